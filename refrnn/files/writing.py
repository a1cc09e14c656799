"""Models and weights in files: .keras, .weights.h5 and .h5, which Keras reads, and others."""

import io
import json
import os
import zipfile
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from refrnn.files import hdf5, keras2, onnx, tfjs, weights
from refrnn.files.arrays import WRITERS, write_arrays
from refrnn.files.atomic import replacing
from refrnn.layers import Bidirectional, Layer
from refrnn.layers.stored import serialize
from refrnn.models import Model

AnyPath = str | os.PathLike[str]
KERAS_3, KERAS_2 = "3.12.0", "2.15.0"  # the oldest of each that the tests hold these files against
OLD_SIGMOID = "hard_sigmoid_keras2"
ATTRIBUTE = 64_000  # bytes; HDF5 takes 64 KiB in an attribute, so Keras cuts longer lists of names


def save_model(model: Model, path: AnyPath) -> None:
    """Write a model with its weights, in the format that the suffix names.

    path  .keras for Keras 3; .h5 for Keras 2, which Keras 3 reads too if no layer is called with a
          state and no model is inside, or for Keras 3 where Keras 2 has not all of it; a folder, or
          model.json in one, for tf.js; .onnx for ONNX, opset 14

    A file that is there is replaced when the new one is whole. Raises ValueError for what the
    format cannot hold, by name, before anything is written; ImportError without h5py.
    """
    target = Path(path)
    if target.name.endswith(".weights.h5"):
        raise ValueError(
            f"{os.fspath(path)}: is named as a file of weights alone, expected a whole model's"
            " name; for the weights call save_weights"
        )
    if not target.suffix or target.name == tfjs.MODEL:
        tfjs.save(model, target if not target.suffix else target.parent)
        return
    formats = {".keras": _archive, ".h5": _legacy, ".hdf5": _legacy, onnx.SUFFIX: onnx.packed}
    if target.suffix not in formats:
        raise ValueError(
            f"{os.fspath(path)}: has suffix {target.suffix!r}, expected .keras (Keras 3), .h5"
            " (Keras 2 and 3), .onnx, or a folder (tf.js), because the suffix chooses the format"
        )
    data = formats[target.suffix](model)
    with replacing(target) as stream:
        stream.write(data)


def save_weights(model: Model, path: AnyPath) -> None:
    """Write the weights of a model by themselves, in the format that the suffix names.

    path  .weights.h5, as Keras 3 writes it; .npz or .safetensors, by the model's `weight_names`
    """
    if Path(path).suffix in WRITERS:
        _check(model)
        names = model.weight_names
        if len(set(names)) < len(names):
            raise ValueError(f"{model.who}: two weights have one name, expected .weights.h5 for it")
        write_arrays(dict(zip(names, model.weights, strict=True)), path)
        return
    if not os.fspath(path).endswith(".weights.h5"):
        raise ValueError(
            f"{os.fspath(path)}: does not end with .weights.h5, expected that suffix, because Keras"
            " reads such a file by no other name, or .npz or .safetensors"
        )
    data = _tree(model)
    with replacing(path) as stream:
        stream.write(data)


def _check(model: Model) -> None:
    """Refuse what no file of Keras can hold."""
    if not model.layers:
        raise ValueError(f"{model.who}: has no layers, expected at least one")
    for layer in model.every_layer():
        if isinstance(layer, Bidirectional) and (
            layer.forward_layer.zero_output_for_mask != layer.return_sequences
        ):
            raise ValueError(
                f"{model.who}: {layer.who} repeats outputs at masked steps, as in tf.js, expected"
                " zeros there, because Keras has no other Bidirectional"
            )
    unbuilt = [layer.who for layer in model.every_layer() if not layer.built]
    if unbuilt:
        raise ValueError(
            f"{model.who}: {unbuilt[0]} is not built, expected a call before it is saved, because"
            " it has no weights yet"
        )


# --- Keras 3 ---


def _archive(model: Model) -> bytes:
    """A .keras file."""
    config = serialize(model)
    text = json.dumps(config)
    if OLD_SIGMOID in text:
        raise ValueError(
            f"{model.who}: has {OLD_SIGMOID}, expected an activation of Keras 3, because it does"
            " not have Keras 2's hard_sigmoid; save it as .h5, for Keras 2"
        )
    _refuse_time_major(model, text)
    data = _tree(model)
    now = datetime.now().strftime("%Y-%m-%d@%H:%M:%S")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": KERAS_3, "date_saved": now}))
        archive.writestr("config.json", json.dumps({**config, "compile_config": {}}))
        archive.writestr("model.weights.h5", data)
    return stream.getvalue()


def _tree(model: Model) -> bytes:
    """A .weights.h5 file: a folder for each layer, called after its class."""
    _check(model)
    stream = io.BytesIO()
    with hdf5.made(stream) as root:
        for path, layer in weights.leaves((), model, None):
            folder = root.create_group("/".join([*path, "vars"]))
            folder.attrs["name"] = layer.name
            for k, array in enumerate(layer.own_weights):
                folder.create_dataset(str(k), data=_plain(array))
    return stream.getvalue()


def _plain(array: Any) -> Any:
    """bfloat16, which HDF5 does not have, as float32: exact, and cast back by what reads it."""
    return np.asarray(array, np.float32) if array.dtype.name == "bfloat16" else array


# --- .h5: Keras 2, and Keras 3 ---


def _legacy(model: Model) -> bytes:
    """A whole-model .h5 file."""
    _check(model)
    version, config = _dialect(model)
    stream = io.BytesIO()
    with hdf5.made(stream) as root:
        head = {"keras_version": version, "backend": "tensorflow"}
        root.attrs.update({**head, "model_config": json.dumps(config)})
        top = root.create_group("model_weights")
        top.attrs.update(head)
        _put_names(top, "layer_names", [layer.name for layer in model.layers])
        for layer in model.layers:
            folder = top.create_group(layer.name)
            named = list(_named(layer))
            _put_names(folder, "weight_names", [name for name, _ in named])
            for name, array in named:
                folder.create_dataset(name, data=_plain(array))
    return stream.getvalue()


def _dialect(model: Model) -> tuple[str, dict[str, Any]]:
    """The generation of Keras, and the config in its words.

    Those of Keras 2 where it has all that the model does: Keras 3 reads them too, but for graphs
    with models inside or calls with a state, for which it has .keras. Else those of Keras 3.
    """
    config = _without_operations(serialize(model))
    try:
        old = keras2.downgrade(config)
        keras2.upgrade(old)  # what would mean another thing there is refused here
    except ValueError:
        _refuse_time_major(model, json.dumps(config))
        return KERAS_3, config
    if OLD_SIGMOID in json.dumps(config) and not _marked(old):
        raise ValueError(
            f"{model.who}: has {OLD_SIGMOID} outside of recurrent layers, expected another"
            " activation, because Keras 3 would read it from .h5 as another function"
        )
    return KERAS_2, old


def _refuse_time_major(model: Model, config: str) -> None:
    if keras2.TIME_MAJOR in config:
        raise ValueError(
            f"{model.who}: has layers that take time before the batch, expected none, because"
            " Keras 3 has no such layer; what else Keras 2 has can be saved as .h5"
        )


def _marked(config: dict[str, Any]) -> bool:
    """Whether a recurrent layer was there to mark, so that Keras 3 refuses the file.

    It would else read hard_sigmoid, without a word, as another function than Keras 2 does.
    """
    for entry in config["config"]["layers"]:
        if "layers" in entry["config"] and _marked(entry):
            return True
        if "return_sequences" in entry["config"]:
            entry["config"]["time_major"] = False
            return True
    return False


def _without_operations(config: dict[str, Any]) -> dict[str, Any]:
    """A config without the operations that make masks: layers make the same when Keras calls them.

    Keras 3 writes them into its own .h5 files and then cannot read those.
    """
    body = config["config"]
    if "layers" not in body:
        return config
    layers = [_without_operations(entry) for entry in body["layers"]]
    names = {e["config"]["name"] for e in layers if ".ops." in (e.get("module") or "")}
    kept = [entry for entry in layers if entry["config"]["name"] not in names]
    for entry in kept:
        for node in entry.get("inbound_nodes", []):
            mask = json.dumps(node["kwargs"].get("mask"))
            if any(json.dumps(name) in mask for name in names):
                del node["kwargs"]["mask"]
    return {**config, "config": {**body, "layers": kept}}


def _named(layer: Layer) -> Iterator[tuple[str, Any]]:
    """The weights, those that are trained first, with names that are there once."""
    names = {id(w): name for name, w in zip(layer.weight_names, layer.weights, strict=True)}
    counts: Counter[str] = Counter()
    for array in [*layer.trainable_weights, *layer.non_trainable_weights]:
        name = names[id(array)].replace(".", "/")
        counts[name] += 1
        again = f"_{counts[name] - 1}" if counts[name] > 1 else ""
        yield f"{layer.name}/{name}{again}:0", array


def _put_names(group: Any, title: str, names: list[str]) -> None:
    """A list of names as an attribute, or cut into title0, title1, ... where it is long."""
    texts = [name.encode() for name in names]
    longest = max(map(len, texts), default=1)
    size = max(1, ATTRIBUTE // longest)
    if len(texts) <= size:
        group.attrs[title] = np.array(texts, f"S{longest}")
        return
    for k, start in enumerate(range(0, len(texts), size)):
        group.attrs[f"{title}{k}"] = np.array(texts[start : start + size], f"S{longest}")
