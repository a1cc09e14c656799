"""Models and weights from files: of Keras 2 and 3, tf.js, ONNX, TFLite; of PyTorch and Flax.

Neither TensorFlow nor Keras is needed, and nothing in a file is imported, unpickled or run. What
is damaged, hostile, or not of refrnn's layers is refused with a FileError.
"""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refrnn.files import archive, foreign, keras2, keras3, tfjs, weights
from refrnn.files.arrays import ARRAYS, read_arrays, write_arrays
from refrnn.files.errors import FileError, shown, within
from refrnn.files.hdf5 import SIGNATURE, Tree
from refrnn.files.hdf5 import opened as hdf5_opened
from refrnn.files.keras3 import Named
from refrnn.files.live import from_keras
from refrnn.files.writing import save_model, save_weights
from refrnn.layers.objects import Objects, custom_object_scope
from refrnn.models import Model

__all__ = [
    "FileError",
    "Inspection",
    "from_keras",
    "inspect",
    "load_model",
    "load_weights",
    "read_arrays",
    "save_model",
    "save_weights",
    "write_arrays",
]

AnyPath = str | os.PathLike[str]
LEGACY = ("model_weights",)


def __getattr__(name: str) -> Any:
    if name in ("Inspection", "inspect"):
        from refrnn.files import inspection

        return getattr(inspection, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load_model(path: AnyPath, custom_objects: Objects | None = None) -> Model:
    """The model in a file that Keras 2 or 3 wrote, with its weights.

    path  a .keras archive, a whole-model .h5 file, or the model.json of tf.js or the folder it is
          in, told apart by what they begin with; or a file whose name ends with .onnx, .tflite
          or .xml (OpenVINO, its weights in .bin beside it)
    custom_objects  the caller's own layers, cells and activations, by class or function name, or
          "package>Name" where Keras registered it so; see `layers.custom_object_scope`

    A model of the last three has the batch first here, whatever its file has; `files.foreign.load`
    says where each axis was, and what else is not as there. A UserWarning says what may change
    numbers: a bound of TFLite's LSTM that can be reached. Carried states, the optimizer and the
    loss are not read.

    Raises FileError (a ValueError) for a file that is damaged or holds what refrnn does not have;
    ImportError where h5py is missing.
    """
    inside = Path(path) / tfjs.MODEL
    source = inside if inside.is_file() else Path(path)
    if source.suffix in foreign.READERS:
        imported = foreign.load(source)
        for word, sentence in imported.remarks():
            if word == foreign.DIFFERS:
                warnings.warn(f"{os.fspath(path)}: {sentence}", UserWarning, stacklevel=2)
        return imported.model
    with (
        custom_object_scope(custom_objects),
        _naming(path),
        archive.opened(source) as (stream, size),
    ):
        head = stream.read(8)
        stream.seek(0)
        if head.lstrip().startswith(b"{"):
            return tfjs.load(source)
        if source.suffix in ARRAYS:
            raise FileError(
                "holds weights alone, which do not tell the layers, expected a model: make the"
                " layers, and give them the arrays of refrnn.files.read_arrays, with"
                " refrnn.layouts.convert where they are laid out for another library"
            )
        if head != SIGNATURE and not head.startswith(archive.ZIP):
            raise FileError(
                f"begins with {shown(head)}, expected a model of .keras, .h5, .onnx, .tflite,"
                " OpenVINO's .xml, or tf.js"
            )
        if head == SIGNATURE:
            with hdf5_opened(stream, size) as tree:
                version, text = (tree.text((), k) for k in ("keras_version", "model_config"))
                if text is None:
                    raise FileError(
                        "has no attribute model_config, expected a whole model; for a file of"
                        " weights alone make the model and call load_weights(model, path)"
                    )
                with within("model_config", RecursionError):
                    model, layers = _model(version, archive.parse(text))
                weights.assign(layers, weights.from_names(tree, LEGACY, layers))
            return model
        found = archive.members(stream, size)
        with within("metadata.json"):
            version = archive.parse(found["metadata.json"]).get("keras_version")
        with within("config.json", RecursionError):
            model, layers = _model(version, archive.parse(found["config.json"]))
        stored = found["model.weights.h5"]
        with (
            within("model.weights.h5"),
            hdf5_opened(io.BytesIO(stored), len(stored)) as tree,
        ):
            weights.assign(layers, weights.from_tree(tree, layers))
        return model


def load_weights(model: Model, path: AnyPath) -> None:
    """Write the weights in a file into `model`, or none of them where one does not fit.

    path  a .weights.h5 file, a legacy .h5 file of weights, or a whole model, whose weights it is;
          or what `save_weights` wrote as .npz or .safetensors

    Raises FileError as `load_model`.
    """
    if Path(path).suffix in ARRAYS:
        found = read_arrays(path)
        with _naming(path):
            weights.assign_named(model, found)
        return
    layers = [(weights.kind_of(layer), layer) for layer in model.layers]
    with _naming(path), archive.opened(path) as (stream, size):
        head = stream.read(8)
        stream.seek(0)
        if head != SIGNATURE:
            stored = archive.members(stream, size)["model.weights.h5"]
            source: Any = io.BytesIO(stored)
            size = len(stored)
        else:
            source = stream
        with hdf5_opened(source, size) as tree:
            weights.assign(layers, _weights(tree, layers))


def _weights(tree: Tree, layers: list[Named]) -> list[list[Any]]:
    for top in ((), LEGACY):
        if tree.has(top) and any(
            tree.texts(top, name) is not None for name in ("layer_names", "layer_names0")
        ):
            return weights.from_names(tree, top, layers)
    return weights.from_tree(tree, layers)


def _model(version: Any, config: dict[str, Any]) -> tuple[Model, list[Named]]:
    major = version.partition(".")[0] if isinstance(version, str) else None
    if major not in ("2", "3"):
        raise FileError(
            f"keras_version is {shown(version)}, expected that of Keras 2 or 3, because they give"
            " one name, hard_sigmoid, to two functions"
        )
    if major == "3":
        return keras3.model(config)
    new = keras2.upgrade(config)
    stored = [entry["stored_as"] for entry in new["config"]["layers"] if "stored_as" in entry]
    model, layers = keras3.model(new)
    return model, [(kind, layer) for kind, (_, layer) in zip(stored, layers, strict=True)]


@contextmanager
def _naming(path: AnyPath) -> Iterator[None]:
    """Complaints begin with the file."""
    try:
        yield
    except FileError as error:
        raise FileError(f"{os.fspath(path)}: {error}") from None
