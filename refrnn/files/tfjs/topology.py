"""The topology in a model.json, as tf.js understands it, in the words of Keras 2.

tf.js took over the configs of Keras 2, but reads some differently: hard_sigmoid is what gates have
by default, a setting that is null is one that is not there, and some settings it does not know. It
takes names of settings as Python writes them and as JavaScript does.
"""

import re
from collections.abc import Iterator
from typing import Any

from refrnn.files.errors import FileError, shown
from refrnn.files.keras2 import MODELS
from refrnn.files.keras3 import is_entry

# what tf.js has of refrnn's layers, each held against it
LAYERS = (
    "InputLayer", "SimpleRNN", "GRU", "LSTM", "SimpleRNNCell", "GRUCell", "LSTMCell", "RNN",
    "StackedRNNCells", "Bidirectional", "TimeDistributed", "Dense", "Dropout", "SpatialDropout1D",
    "Embedding", "Masking", "Activation", "ReLU", "LeakyReLU", "ELU", "PReLU", "Softmax", "Flatten",
    "Reshape", "Permute", "RepeatVector", "Concatenate", "Add", "Multiply", "Average", "Maximum",
    "Minimum", "Dot", "BatchNormalization", "LayerNormalization", "Conv1D", "MaxPooling1D",
    "AveragePooling1D", "GlobalMaxPooling1D", "GlobalAveragePooling1D",
)  # fmt: skip
# what it does not have, and the Python converter writes all the same
UNLOADED = ("Subtract", "Cropping1D", "ZeroPadding1D", "UpSampling1D")
DEFAULTS: dict[str, dict[str, Any]] = {
    **{kind: {"recurrent_activation": "hard_sigmoid"} for kind in ("GRU", "GRUCell")},
    **{
        kind: {"recurrent_activation": "hard_sigmoid", "unit_forget_bias": False}
        for kind in ("LSTM", "LSTMCell")
    },
    "Softmax": {"axis": 1},
}
# what tf.js does not read
UNREAD = {"ReLU": ("negative_slope", "threshold"), "Bidirectional": ("backward_layer",)}
# what a config holds that has a meaning as null; all else that is null is not there for tf.js
NULL = ("merge_mode", "activation", "recurrent_activation")
RNN = (
    "name", "trainable", "batch_input_shape", "cell", "return_sequences", "return_state",
    "go_backwards", "stateful", "unroll",
)  # fmt: skip
INITIALIZERS = {"LeCunNormal": "LecunNormal", "LeCunUniform": "LecunUniform"}
NAMES = ("name", "class_name")  # texts that are nobody's to change
REFERENCES = ("inbound_nodes", "input_layers", "output_layers")


def config(topology: Any) -> dict[str, Any]:
    """The config of a model of Keras 2, for `keras2.upgrade`."""
    if not isinstance(topology, dict):
        raise FileError(f"is {shown(topology)}, expected an object")
    version = topology.get("keras_version", topology.get("kerasVersion"))
    if isinstance(version, str) and version.startswith("3"):
        raise FileError(
            f"keras_version is {shown(version)}, expected that of Keras 2 or tf.js, because tf.js"
            " loads no model of Keras 3; load the .keras file that this one was made from"
        )
    wrapped = topology.get("model_config", topology.get("modelConfig"))
    found = _pythonic(topology if wrapped is None else wrapped)
    if isinstance(found, dict) and isinstance(found.get("config"), list):  # before Keras 2.2.3
        found["config"] = {"name": "sequential", "layers": found["config"]}
    if not is_entry(found):
        raise FileError(f"the model is {shown(found)}, expected a class_name and a config")
    return _model(found)


def _pythonic(value: Any, key: str = "") -> Any:
    """`value` with the names of settings, and their values, in snake_case."""
    if isinstance(value, str):
        return value if key in NAMES or key in REFERENCES else snake_case(value)
    if isinstance(value, list):
        return [_pythonic(part, key) for part in value]
    if not isinstance(value, dict):
        return value
    new = {snake_case(name): name for name in value}
    if len(new) != len(value):
        raise FileError(f"settings are called {shown(list(value))}, expected each of them once")
    inside = key in REFERENCES  # names of layers, at any depth
    return {name: _pythonic(value[old], key if inside else name) for name, old in new.items()}


def snake_case(text: str) -> str:
    """hardSigmoid -> hard_sigmoid, float32 -> float32: as tf.js writes it."""
    text = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", text)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", text).lower()


def _model(entry: dict[str, Any]) -> dict[str, Any]:
    """A model, or one inside another, with its layers as tf.js takes them."""
    body = entry["config"]
    layers = body.get("layers")
    if not isinstance(layers, list) or not all(map(is_entry, layers)):
        raise FileError(f"the model's layers are {shown(layers)}, expected a list of them")
    made = [_part(layer) for layer in layers]
    if entry["class_name"] == "Sequential" and made:
        made = [*_input(made[0]), *made]
    for part in made:
        _refuse_order_of_states(part)
        for argument, value in _arguments(part.get("inbound_nodes")):
            if argument != "initial_state" and value not in (None, False):
                raise FileError(
                    f"layer {shown(part['config'].get('name'))} is called with {argument}"
                    f" {shown(value)}, expected none, because tf.js does not read it"
                )
    return {**entry, "config": {**body, "layers": made}}


def _part(entry: dict[str, Any]) -> dict[str, Any]:
    return _model(entry) if entry["class_name"] in MODELS else _layer(entry)


def _layer(entry: dict[str, Any]) -> dict[str, Any]:
    """A layer with its settings as tf.js takes them."""
    kind = entry["class_name"]
    if kind not in (*LAYERS, *UNLOADED):
        raise FileError(
            f"layer {shown(entry['config'].get('name'))} is a {shown(kind)}, which refrnn does not"
            f" read from files of tf.js; expected one of {', '.join((*LAYERS, *UNLOADED))}"
        )
    settings = {k: v for k, v in entry["config"].items() if v is not None or k in NULL}
    if kind == "InputLayer":
        return {**entry, "config": settings}
    if kind == "RNN":  # tf.js writes the settings of the cell beside it too
        settings = {k: v for k, v in settings.items() if k in RNN}
    for name in UNREAD.get(kind, ()):
        settings.pop(name, None)
    if kind in ("SimpleRNN", "SimpleRNNCell") and settings.get("activation") is None:
        settings.pop("activation", None)
    settings = {**DEFAULTS.get(kind, {}), **settings, "dtype": "float32"}
    settings.pop("zero_output_for_mask", None)
    for key, value in settings.items():
        if key.endswith("initializer") and is_entry(value):
            kind = value["class_name"]
            settings[key] = {**value, "class_name": INITIALIZERS.get(kind, kind)}
        if key in ("layer", "cell") and is_entry(value):
            settings[key] = _part(value)
        if key == "cells" and isinstance(value, list):
            settings[key] = [_part(part) if is_entry(part) else part for part in value]
    return {**entry, "config": settings}


def _refuse_order_of_states(entry: dict[str, Any]) -> None:
    """The states of a stack are a flat list in tf.js, those of the last cell first."""
    config = entry["config"]
    cell = config.get("cell")
    if not is_entry(cell) or cell["class_name"] != "StackedRNNCells":
        return
    nodes = entry.get("inbound_nodes")
    given = isinstance(nodes, list) and any(isinstance(n, list) and len(n) > 1 for n in nodes)
    if config.get("return_state") or given:
        raise FileError(
            f"RNN {shown(config.get('name'))} is a stack of cells that takes or returns its states,"
            " expected one that keeps them, because tf.js orders them from the last cell to the"
            " first"
        )


def _input(first: dict[str, Any]) -> list[dict[str, Any]]:
    """The input that a first layer stands for in files of tf.js."""
    shape = _taken_by(first)
    if first["class_name"] == "InputLayer" or shape is None:
        return []
    name = f"{first['config'].get('name')}_input"
    settings = {"name": name, "batch_input_shape": shape, "dtype": "float32"}
    return [{"class_name": "InputLayer", "config": settings}]


def _taken_by(first: dict[str, Any]) -> Any:
    """The shape that a first layer says it takes, or for a model its own first layer."""
    layers = first["config"].get("layers") if first["class_name"] in MODELS else None
    return _taken_by(layers[0]) if layers else first["config"].get("batch_input_shape")


def _arguments(nodes: Any) -> Iterator[tuple[str, Any]]:
    """The arguments beside tensors in the calls of a layer."""
    for node in nodes if isinstance(nodes, list) else []:
        for part in node if isinstance(node, list) else []:
            if isinstance(part, list) and len(part) == 4 and isinstance(part[3], dict):
                yield from part[3].items()
