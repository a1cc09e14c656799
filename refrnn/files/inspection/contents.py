"""What a model file consists of, before any model is made: a config, and arrays with their places.

No array is refused here: one that cannot be read is kept with the reason.
"""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from refrnn.files import archive, hdf5, keras2, tfjs, weights
from refrnn.files.errors import FileError, shown, within
from refrnn.files.hdf5 import Path, Tree
from refrnn.files.keras3 import Named, is_entry
from refrnn.files.tfjs import manifest, names, topology
from refrnn.files.weights import SEEDS, folders
from refrnn.gates import Array
from refrnn.layers import Layer
from refrnn.models import Model

LEGACY = ("model_weights",)
LISTS = ("layer_names", "layer_names0")
# what training leaves behind, at the root of a file
TRAINING = {"optimizer", "optimizer_weights", "metrics", "compiled_metrics", "loss_tracker"}
OPTIMIZER = ("optimizer", "optimizer_weights")

Config = dict[str, Any]
Taken = tuple[list[Named], list[list[Array]]]  # layers and the weights of each


@dataclass(frozen=True)
class Stored:
    """One array of a file.

    shape      None where it could not be read; then `complaint` says why
    bytes      what its numbers take in the file
    bad        how many of its numbers are not finite; `first` says where the first of them is
    """

    shape: tuple[int, ...] | None
    dtype: str
    bytes: int
    values: Array | None = field(repr=False)
    complaint: str | None = None
    bad: int = 0
    first: str = ""

    @property
    def size(self) -> int:
        return 0 if self.values is None else int(self.values.size)


def _stored(array: Array, size: int | None = None) -> Stored:
    bad = ~np.isfinite(array) if array.dtype.kind == "f" else np.zeros(0, bool)
    at = np.argwhere(bad)[:1].tolist()
    first = f"{array[tuple(at[0])]} at {at[0]}" if at else ""
    size = array.nbytes if size is None else size
    return Stored(array.shape, array.dtype.name, size, array, None, int(bad.sum()), first)


class Weights:
    """The arrays of a file by their places; which of them belong to which layer."""

    arrays: dict[Path, Stored]

    def places(self, entries: Sequence[Config]) -> list[list[Path]]:
        """For each of the stored layers, where its arrays are."""
        raise NotImplementedError

    def taken(self, kind: str, layer: Layer, places: list[Path]) -> Taken:
        """What a layer takes of its arrays. Raises FileError where they are not those it needs."""
        raise NotImplementedError


class InTree(Weights):
    """The layout of .keras and .weights.h5: a folder for each layer, called after its class."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.arrays = _all(tree, ())

    def places(self, entries: Sequence[Config]) -> list[list[Path]]:
        kinds = [str(entry["class_name"]).rpartition(">")[2] for entry in entries]
        return [[("layers", folder)] for folder in folders(kinds)]

    def taken(self, kind: str, layer: Layer, places: list[Path]) -> Taken:
        kind = kind.rpartition(">")[2]
        [folder] = folders([kind])
        part = _Part(self._tree, ("layers", folder), places[0], self.arrays)
        return [(kind, layer)], weights.from_tree(part, [(kind, layer)])


class ByName(Weights):
    """The layout of .h5: below `top` a folder for each layer, called after it."""

    def __init__(self, tree: Tree, top: Path) -> None:
        self._tree, self._top = tree, top
        self.arrays = _all(tree, top)

    def places(self, entries: Sequence[Config]) -> list[list[Path]]:
        return [[(*self._top, str(entry["config"].get("name")))] for entry in entries]

    def taken(self, kind: str, layer: Layer, places: list[Path]) -> Taken:
        part = _Part(self._tree, places[0], places[0], self.arrays)
        return [(kind, layer)], weights.from_names(part, self._top, [(kind, layer)])


class Listed(Weights):
    """The layout of tf.js: a list of names that begin with the layer's."""

    def __init__(self, listed: Any, folder: FilePath) -> None:
        with within("weightsManifest"):
            self._listed = manifest.read(listed, folder)
        sizes = {spec["name"]: _size(spec) for group in listed for spec in group["weights"]}
        self.arrays = {
            tuple(name.split("/")): _stored(array, sizes[name]) for name, array in self._listed
        }

    def places(self, entries: Sequence[Config]) -> list[list[Path]]:
        return [[(name,) for name in _names_in(entry)] for entry in entries]

    def taken(self, kind: str, layer: Layer, places: list[Path]) -> Taken:
        mine = {place[0] for place in places}
        found = [stored for stored in self._listed if stored[0].partition("/")[0] in mine]
        inner = list(dict.fromkeys(layer.every_layer())) if isinstance(layer, Model) else [layer]
        return [(type(one).__name__, one) for one in inner], names.assigned(found, inner)


def _size(spec: Any) -> int:
    """The bytes that a listed weight takes in the files."""
    stored = spec.get("quantization", {}).get("dtype", spec["dtype"])
    kind = (manifest.STORED | manifest.DTYPES)[stored]
    return int(np.prod(spec["shape"], dtype=np.int64)) * np.dtype(kind).itemsize


def _names_in(entry: Config) -> Iterator[str]:
    """The name of a layer, or of those in a model."""
    if entry["class_name"] not in keras2.MODELS:
        yield str(entry["config"].get("name"))
        return
    layers = entry["config"].get("layers")
    for inner in layers if isinstance(layers, list) else []:
        if is_entry(inner):
            yield from _names_in(inner)


def _all(tree: Tree, top: Path) -> dict[Path, Stored]:
    """The arrays below `top` that are weights: not those of an optimizer or of random seeds."""
    found: dict[Path, Stored] = {}
    for path in tree.arrays(top):
        if path[0] in TRAINING or SEEDS in path:
            continue
        try:
            found[path] = _stored(tree.array(path))
        except FileError as error:
            found[path] = Stored(None, "", 0, None, str(error))
    return found


class _Part(Tree):
    """A tree in which there is nothing but what is below `at`, and that stands at `shown_as`."""

    def __init__(self, tree: Tree, shown_as: Path, at: Path, arrays: dict[Path, Stored]) -> None:
        self._tree, self._as, self._at, self._arrays = tree, shown_as, at, arrays

    def _real(self, path: Path) -> Path | None:
        mine = path[: len(self._as)] == self._as
        return (*self._at, *path[len(self._as) :]) if mine else None

    def _above(self, path: Path) -> bool:
        return len(path) < len(self._as) and self._as[: len(path)] == path

    def names(self, path: Path) -> list[str]:
        real = self._real(path)
        if real is None:
            return [self._as[len(path)]] if self._above(path) else []
        return self._tree.names(real)

    def has(self, path: Path) -> bool:
        real = self._real(path)
        return self._above(path) if real is None else self._tree.has(real)

    def arrays(self, path: Path) -> list[Path]:
        real = self._at if self._above(path) else self._real(path)
        if real is None:
            return []
        here = [p for p in self._arrays if p[: len(real)] == real]
        return [(*self._as, *p[len(self._at) :]) for p in here]

    def array(self, path: Path) -> Array:
        real = self._real(path)
        stored = None if real is None else self._arrays.get(real)
        if stored is None or stored.values is None:
            raise FileError(f"array {shown('/'.join(real or path))} is missing")
        return stored.values

    def texts(self, path: Path, name: str) -> list[str] | None:
        real = self._real(path)
        if real is not None:
            return self._tree.texts(real, name)
        return [self._as[-1]] if path == self._as[:-1] and name == LISTS[0] else None


# --- the kinds of files ---


@dataclass
class Contents:
    """A file as it is stored.

    generation  2 or 3, of Keras; None where the file does not say
    config      the model: class_name and config; None where there are only weights
    upgrade     a config as Keras 3 would have written it
    """

    format: str
    writer: str
    generation: int | None
    config: Config | None
    upgrade: Callable[[Config], Config]
    weights: Weights
    training: list[str]


def _same(config: Config) -> Config:
    return config


def _from_js(config: Config) -> Config:
    return keras2.upgrade(topology.config(config))


UPGRADES: dict[int | None, Callable[[Config], Config]] = {2: keras2.upgrade, 3: _same, None: _same}


@contextmanager
def opened(path: "str | os.PathLike[str]") -> Iterator[Contents]:
    """What is in a file, for as long as the block runs. Raises FileError where it is no model."""
    inside = FilePath(path) / tfjs.MODEL
    source = inside if inside.is_file() else FilePath(path)
    with archive.opened(source) as (stream, size), ExitStack() as files:
        head = stream.read(8)
        stream.seek(0)
        if head.lstrip().startswith(b"{"):
            found = _model_json(source, stream, size)
        elif head == hdf5.SIGNATURE:
            found = _hdf5(files.enter_context(hdf5.opened(stream, size)))
        else:
            found = _archive(archive.members(stream, size), files)
        yield found


def _archive(members: dict[str, bytes], files: ExitStack) -> Contents:
    with within("metadata.json"):
        version = archive.parse(members["metadata.json"]).get("keras_version")
    with within("config.json"):
        config = archive.parse(members["config.json"])
    data = members["model.weights.h5"]
    with within("model.weights.h5"):
        tree = files.enter_context(hdf5.opened(io.BytesIO(data), len(data)))
        return _made(".keras archive", version, config, InTree(tree), tree)


def _hdf5(tree: Tree) -> Contents:
    version, text = (tree.text((), name) for name in ("keras_version", "model_config"))
    if text is not None:
        with within("model_config"):
            config = archive.parse(text)
        return _made(".h5, a whole model", version, config, ByName(tree, LEGACY), tree)
    for top in ((), LEGACY):
        if tree.has(top) and any(tree.texts(top, name) is not None for name in LISTS):
            return _made(".h5, weights alone", version, None, ByName(tree, top), tree)
    if not tree.has(("layers",)) and not tree.has(("vars",)):
        raise FileError(
            f"is HDF5 with {shown(tree.names(()))}, expected a model or weights of Keras: a folder"
            " 'layers', or an attribute layer_names or model_config"
        )
    return _made(".weights.h5, weights alone", version, None, InTree(tree), tree)


def _made(what: str, version: Any, config: Config | None, found: Weights, tree: Tree) -> Contents:
    major = version.partition(".")[0] if isinstance(version, str) else ""
    generation = int(major) if major in ("2", "3") else None
    training = []
    if any(tree.arrays((name,)) for name in OPTIMIZER):
        training.append("state of the optimizer")
    if tree.text((), "training_config") or (config or {}).get("compile_config"):
        training.append("loss and optimizer settings")
    writer = f"Keras {version}" if isinstance(version, str) else "not said"
    return Contents(what, writer, generation, config, UPGRADES[generation], found, training)


def _model_json(path: FilePath, stream: archive.Plain, size: int) -> Contents:
    if size > archive.MAX_JSON:
        raise FileError(f"has {size} bytes, expected at most {archive.MAX_JSON} of JSON")
    found = archive.parse(stream.read(size))
    config = found.get("modelTopology")
    if found.get("format") not in (None, tfjs.FORMAT) or not isinstance(config, dict):
        raise FileError(
            f"has format {shown(found.get('format'))} and the keys {shown(list(found))}, expected"
            f" {tfjs.FORMAT!r} with modelTopology and weightsManifest, because a graph of"
            " TensorFlow's operations has no layers"
        )
    written = [found.get(key) for key in ("generatedBy", "convertedBy")]
    writer = ", ".join(text for text in written if isinstance(text, str)) or "tf.js"
    topology_ = config
    with within("modelTopology"):
        try:
            config = topology.config(config)
        except FileError:  # it is said of the layer, later
            inside = config.get("model_config", config)
            if not is_entry(inside):
                raise
            config = inside
    listed = found.get("weightsManifest")
    groups = [g for g in listed if isinstance(g, dict)] if isinstance(listed, list) else []
    specs = [w for g in groups for w in (g.get("weights") or []) if isinstance(w, dict)]
    training = []
    if any(spec.get("group") == manifest.OTHER_GROUP for spec in specs):
        training.append("state of the optimizer")
    if "trainingConfig" in found or "training_config" in topology_:
        training.append("loss and optimizer settings")
    weights_ = Listed(listed, path.parent)
    return Contents("tf.js model.json", writer, 2, config, _from_js, weights_, training)
