"""Stored weights into layers: where each array is, the checks, and CuDNN's layout of Keras 2.

Two layouts. The tree (.weights.h5, and inside .keras) has a folder for each layer, called after
its class, with arrays 0, 1, ... in Keras's order. The legacy one (.h5) has a folder for each layer
name, whose attribute weight_names lists the arrays in that order. Neither is the order of HDF5.
"""

import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from refrnn import checks
from refrnn.files.errors import FileError, shown, within
from refrnn.files.hdf5 import Path, Tree
from refrnn.files.keras3 import Named
from refrnn.gates import Array
from refrnn.layers import Layer, context
from refrnn.layers.names import snake_case
from refrnn.layers.time_major import TimeMajor
from refrnn.models import Model

INNER = (("forward_layer", "backward_layer"), ("cell",), ("layer",))  # attributes and folders
# training's own: never read
OTHER_FOLDERS = {"vars", "optimizer", "metrics", "compiled_metrics", "loss_tracker"}
SEEDS = "seed_generator"
STATISTICS = ("moving_", "renorm_")  # what the names of weights begin with that are not trained


def from_tree(tree: Tree, layers: Sequence[Named]) -> list[list[Array]]:
    """The weights of each layer from the layout of .keras; every array below layers/ is used."""
    odd = sorted(set(tree.names(())) - {"layers"} - OTHER_FOLDERS)
    if odd or (layers and not tree.has(("layers",))):
        raise FileError(
            f"the root has folders {shown(tree.names(()))}, expected 'layers' and at most"
            f" {', '.join(sorted(OTHER_FOLDERS))}"
        )
    used: set[Path] = set()
    found = []
    for folder, (_, layer) in zip(folders(kind for kind, _ in layers), layers, strict=True):
        arrays: list[Array] = []
        for path, leaf in leaves(("layers", folder), layer, tree):
            names = set(tree.names((*path, "vars")))
            expected = [str(k) for k in range(len(names))]
            if names != set(expected):
                raise FileError(
                    f"{layer.who}: has arrays {shown(sorted(names))}, expected {expected}"
                )
            if not names and isinstance(layer, Model) and _trained(leaf):
                raise FileError(
                    f"{layer.who}: has no weights of {leaf.who}, expected {len(_trained(leaf))} in"
                    f" {shown('/'.join(path))}"
                )
            paths = [(*path, "vars", name) for name in expected]
            used.update(paths)
            arrays += plain(leaf, [tree.array(p) for p in paths])
        found.append(arrays)
    _refuse_surplus(tree, ("layers",), used)
    _refuse_surplus(tree, ("vars",), used)
    return found


def from_names(tree: Tree, top: Path, layers: Sequence[Named]) -> list[list[Array]]:
    """The weights of each layer from the layout of .h5: by layer name and weight_names."""
    listed = _texts(tree, top, "layer_names")
    known = {layer.name: layer for _, layer in layers}
    used: set[Path] = set()
    found: dict[str, list[Array]] = {}
    for name in listed:
        paths = [(*top, name, *w.split("/")) for w in _texts(tree, (*top, name), "weight_names")]
        if name not in known and paths:
            raise FileError(f"has weights of layer {shown(name)}, which is not in the model")
        if name in known:
            arrays = [tree.array(path) for path in paths]
            found[name] = in_order(known[name], arrays)
            used.update(paths)
    for name in set(tree.names(top)) - set(listed) - {"top_level_model_weights"}:
        raise FileError(f"has folder {shown(name)}, which layer_names does not list")
    missing = [name for name in known if name not in found]
    if missing:
        raise FileError(
            f"has no weights of layer {shown(missing[0])}, expected every layer of the model in"
            f" layer_names: {shown(listed)}"
        )
    _refuse_surplus(tree, top, used, {"optimizer_weights"})
    return [found[layer.name] for _, layer in layers]


def _texts(tree: Tree, path: Path, name: str) -> list[str]:
    """A list of names, which Keras cuts into name0, name1, ... where it is long; no name twice."""
    found = tree.texts(path, name)
    if found is None:
        found = []
        for k in range(10_000):
            piece = tree.texts(path, f"{name}{k}")
            if piece is None:
                break
            found += piece
        else:
            raise FileError(f"attribute {name} is in more than 10000 pieces")
        if not k:
            raise FileError(f"{shown('/'.join(path))} has no attribute {name}, expected the names")
    twice = [text for text, count in Counter(found).items() if count > 1]
    if twice:
        raise FileError(f"attribute {name} has {shown(twice[0])} twice, expected it once")
    return found


def _refuse_surplus(tree: Tree, top: Path, used: set[Path], other: Iterable[str] = ()) -> None:
    """Refuse arrays that no layer took: they belong to another model."""
    for path in tree.arrays(top):
        if path not in used and SEEDS not in path and path[0] not in other:
            raise FileError(
                f"has weights {shown('/'.join(path))}, expected only those of the model's layers"
            )


# --- the parts of a layer ---


def folders(kinds: Iterable[str]) -> Iterator[str]:
    """lstm, lstm_1, dense, ...: Keras's folders for objects of these classes."""
    counts: Counter[str] = Counter()
    for kind in kinds:
        name = snake_case(kind)
        yield name if not counts[name] else f"{name}_{counts[name]}"
        counts[name] += 1


def _parts(layer: Layer) -> list[tuple[Path, Layer]]:
    """The layers inside a layer, with their folders, in the order of their weights."""
    own = vars(layer)
    if isinstance(layer, Model):
        layers = list({id(part): part for part in layer.layers}.values())
        called = folders(map(kind_of, layers))
        return [(("layers", f), part) for f, part in zip(called, layers, strict=True)]
    if isinstance(layer, TimeMajor):
        return _parts(layer.layer)
    if layer.IS_CUSTOM:
        found = dict(_attributes(layer))
        return [(found[id(part)], part) for _, part in layer.parts()]
    cells = own.get("cells")
    if isinstance(cells, list | tuple) and cells:
        called = folders(map(kind_of, cells))
        return [(("cells", f), cell) for f, cell in zip(called, cells, strict=True)]
    for names in INNER:
        if isinstance(own.get(names[0]), Layer):
            return [((name,), own[name]) for name in names]
    return []


def _attributes(layer: Layer) -> Iterator[tuple[int, Path]]:
    """The folder of each layer inside one of the caller's own, by id; the first in Keras's order.

    They are called after attributes, which Keras goes through by name, private ones last.
    """
    own = {name: value for name, value in vars(layer).items() if name != "_layers"}
    for name in sorted(own, key=lambda name: (name.startswith("_"), name), reverse=True):
        yield from reversed(list(_contents((name,), own[name])))


def _contents(path: Path, value: Any) -> Iterator[tuple[int, Path]]:
    if isinstance(value, Layer):
        yield id(value), path
    elif isinstance(value, list | tuple | dict):
        parts = [
            part
            for part in (value.values() if isinstance(value, dict) else value)
            if isinstance(part, Layer | list | tuple | dict)
        ]
        kinds = [kind_of(part) if isinstance(part, Layer) else "container" for part in parts]
        for folder, part in zip(folders(kinds), parts, strict=True):
            yield from _contents((*path, folder), part)


def kind_of(layer: Layer) -> str:
    """The name of a layer's class in Keras; in the file it is from where it is the caller's own."""
    if isinstance(layer, TimeMajor):
        return kind_of(layer.layer)
    found: str = vars(layer).get("_stored_as", type(layer).__name__)
    return "Functional" if type(layer) is Model else found


def leaves(path: Path, layer: Layer, tree: Tree | None) -> Iterator[tuple[Path, Layer]]:
    """The layers that have weights of their own.

    A CuDNN layer of Keras 2 has them where the plain one has a cell.
    """
    parts = _parts(layer)
    if parts and layer.IS_CUSTOM and layer.own_weights:
        yield path, layer
    flat = tree and [folder for folder, _ in parts] == [("cell",)] and tree.names((*path, "vars"))
    if not parts or flat:
        yield path, parts[0][1] if parts else layer
        return
    for folder, part in parts:
        yield from leaves((*path, *folder), part, tree)


def in_order(layer: Layer, arrays: list[Array]) -> list[Array]:
    """A flat list of .h5, or of Keras 2, in the order of `set_weights`, each part `plain`.

    There the weights that are trained come before those that are frozen.
    """
    ends = [leaf for _, leaf in leaves((), layer, None)]
    trained = [
        [not frozen and flag for flag in _trained(leaf)]
        for leaf, frozen in zip(ends, _frozen(layer), strict=True)
    ]
    places = [(k, i) for k, flags in enumerate(trained) for i in range(len(flags))]
    if len(places) != len(arrays):
        return arrays  # the layer will say what it expected
    places.sort(key=lambda place: not trained[place[0]][place[1]])
    found = dict(zip(places, arrays, strict=True))
    return [
        array
        for k, leaf in enumerate(ends)
        for array in plain(leaf, [found[k, i] for i in range(len(trained[k]))])
    ]


def _trained(leaf: Layer) -> list[bool]:
    """For each of a leaf's own weights, whether it is trained where the leaf is."""
    if not leaf.built:
        return [not name.startswith(STATISTICS) for name in leaf.weight_shapes(1)]
    return [k < leaf.trained_count for k in range(len(leaf.own_weights))]


def _count(layer: Layer) -> int:
    """How many weights a layer has, built or not."""
    if isinstance(layer, Model):
        return sum(_count(part) for _, part in _parts(layer))
    return len(layer.weights if layer.built else layer.weight_shapes(1))


def _frozen(layer: Layer, above: bool = False) -> list[bool]:
    """For each of the leaves of a layer, whether it or what it is in is not trained."""
    here, parts = above or not layer.trainable, _parts(layer)
    if not parts:
        return [here]
    mine = [here] if layer.IS_CUSTOM and layer.own_weights else []
    return mine + [f for _, part in parts for f in _frozen(part, here)]


GATES = {"LSTMCell": 4, "GRUCell": 3}


def plain(cell: Layer, arrays: list[Array]) -> list[Array]:
    """Weights of CuDNNLSTM and CuDNNGRU as those of LSTM and GRU; others as they are.

    CuDNN's are known by a flat bias of twice the width: it has one for the input and one for the
    state. Its matrices are in column order.
    """
    gates, units = GATES.get(type(cell).__name__, 0), getattr(cell, "units", 0)
    if not gates or len(arrays) != 3 or arrays[2].shape != (2 * gates * units,):
        return arrays
    kernel, recurrent, bias = arrays
    width = gates * units
    if kernel.ndim != 2 or kernel.shape[1] != width or recurrent.shape != (units, width):
        return arrays  # the layer will say what it expected
    if gates == 3 and not getattr(cell, "reset_after", True):
        raise FileError(f"{cell.who}: has CuDNN's bias, expected reset_after=True, its family")
    kernel = np.hstack([k.T.reshape(k.shape, order="F") for k in np.hsplit(kernel, gates)])
    recurrent = np.hstack([k.T for k in np.hsplit(recurrent, gates)])
    both = bias.reshape(2, -1)
    return [kernel, recurrent, both.sum(0, dtype=bias.dtype) if gates == 4 else both]


# --- into the layers ---


def assign(layers: Sequence[Named], weights: list[list[Array]]) -> None:
    """Write the weights into the layers; into none of them if one does not fit."""
    for (_, layer), arrays in zip(layers, weights, strict=True):
        with within(layer.who), np.errstate(over="ignore"):
            for k, array in enumerate(arrays):
                names = layer.weight_names
                if not names and not isinstance(layer, Model):
                    names = list(layer.weight_shapes(1))
                name = names[k] if k < len(names) else f"weight {k}"
                checks.finite(layer.who, name, array)
                checks.finite(layer.who, f"{name} in {layer.dtype}", array.astype(layer.dtype))
            _write(copy.deepcopy(layer), arrays)
    for (_, layer), arrays in zip(layers, weights, strict=True):
        _write(layer, arrays)


def assign_named(model: Model, arrays: Mapping[str, Array]) -> None:
    """Write arrays into a model by the names of its weights; none where one does not fit."""
    names = model.weight_names
    if set(names) != set(arrays):
        missing, more = (
            sorted(a - b) for a, b in ((set(names), set(arrays)), (set(arrays), set(names)))
        )
        raise FileError(
            f"has the arrays {shown(more)} beside those of {model.who}, and lacks"
            f" {shown(missing)}, expected the names of its weights: {shown(names)}"
        )
    assign([(kind_of(model), model)], [[arrays[name] for name in names]])


def _write(layer: Layer, arrays: list[Array]) -> None:
    if isinstance(layer, Model):
        for _, part in _parts(layer):
            count = _count(part)
            _write(part, arrays[:count])
            arrays = arrays[count:]
        if arrays:
            raise FileError(f"has {len(arrays)} weights more than its layers")
        return
    if arrays or layer.weights or layer.weight_shapes(1):
        with context.of(context.undrawn, True):
            layer.set_weights(arrays)
