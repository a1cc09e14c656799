"""Models of tf.js: model.json, which has the layers, and files of weights beside it.

Read and written without tf.js. A model computes what it computes there, masks included; where
refrnn cannot do that, because tf.js does another thing than Keras, it is refused by name.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from refrnn.files import archive, keras2, keras3, weights
from refrnn.files.atomic import replacing
from refrnn.files.errors import FileError, shown, within
from refrnn.files.tfjs import manifest, masks, names, topology, writing
from refrnn.layers import Bidirectional
from refrnn.models import Model
from refrnn.version import __version__

FORMAT = "layers-model"
MODEL = "model.json"
SHARD = 4 << 20  # bytes in a file of weights, as tf.js cuts them


def load(path: Path) -> Model:
    """The model in a model.json, with the weights from the files that it lists."""
    with archive.opened(path) as (stream, size):
        if size > archive.MAX_JSON:
            raise FileError(f"has {size} bytes, expected at most {archive.MAX_JSON} of JSON")
        found = archive.parse(stream.read(size))
    if found.get("format") not in (None, FORMAT) or "modelTopology" not in found:
        raise FileError(
            f"has format {shown(found.get('format'))} and the keys {shown(list(found))}, expected"
            f" {FORMAT!r} with modelTopology and weightsManifest, because a graph of TensorFlow's"
            " operations has no layers"
        )
    with within("modelTopology", RecursionError):
        config = keras2.upgrade(topology.config(found["modelTopology"]))
        model, _ = keras3.model(config)
        repeating = {e["config"]["name"] for e in masks.masked(config) if masks.zeroed(e)}
    layers = list(dict.fromkeys(model.every_layer()))
    with within("weightsManifest"):
        stored = manifest.read(found.get("weightsManifest"), path.parent)
        arrays = names.assigned(stored, layers)
    weights.assign([(type(layer).__name__, layer) for layer in layers], arrays)
    for layer in layers:
        if isinstance(layer, Bidirectional) and layer.name in repeating:
            for one in (layer.forward_layer, layer.backward_layer):
                one.zero_output_for_mask = False
    return model


def save(model: Model, folder: "str | os.PathLike[str]") -> None:
    """Write a model for tf.js: `tf.loadLayersModel` reads the model.json in `folder`.

    folder  made if it is not there; else it is empty, or holds a model to be replaced

    The states that stateful layers carry are not written. Raises ValueError for a layer or setting
    that tf.js does not have or would compute otherwise, by name; then nothing is written.
    """
    target = Path(folder)
    _refuse_others(target)
    config = writing.config(model)
    unbuilt = [x.who for x in model.every_layer() if not x.built and names.of_layer(x)]
    if unbuilt:
        raise ValueError(
            f"{model.who}: {unbuilt[0]} is not built, expected a call before it is saved, because"
            " it has no weights yet"
        )
    specs, pieces = [], []
    for layer in dict.fromkeys(model.every_layer()):
        for name, array in zip(names.of_layer(layer), layer.weights, strict=True):
            specs.append({"name": name, "shape": list(array.shape), "dtype": "float32"})
            pieces.append(np.asarray(array, "<f4").tobytes())
    data = b"".join(pieces)
    count = -(-len(data) // SHARD)
    shards = {
        f"group1-shard{k + 1}of{count}.bin": data[k * SHARD : (k + 1) * SHARD] for k in range(count)
    }
    text = json.dumps(
        {
            "format": FORMAT,
            "generatedBy": f"refrnn {__version__}",
            "convertedBy": None,
            "modelTopology": {
                "keras_version": "2.15.0",
                "backend": "tensorflow",
                "model_config": config,
            },
            "weightsManifest": [{"paths": list(shards), "weights": specs}],
        },
        allow_nan=False,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    _exchange(target, {**shards, MODEL: text.encode()})


def _refuse_others(folder: Path) -> None:
    """Refuse a folder with other files: it is exchanged as a whole."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file, expected a folder")
    others = [
        p.name for p in folder.iterdir() if p.name != MODEL and not p.match("group*-shard*.bin")
    ]
    if others:
        raise ValueError(
            f"{folder} holds {shown(sorted(others))}, expected an empty folder, a new one, or one"
            " with an earlier model, because it is exchanged as a whole"
        )


def _exchange(folder: Path, files: dict[str, bytes]) -> None:
    """Put a folder of `files` in the place of `folder`: all of them, or none."""
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        new, old = work / "new", work / "old"
        new.mkdir()
        for name, data in files.items():
            with replacing(new / name) as stream:
                stream.write(data)
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    finally:
        shutil.rmtree(work)
