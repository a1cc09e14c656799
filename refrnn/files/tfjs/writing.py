"""The config of a model for tf.js, and what tf.js does not have, refused by name."""

import re
from collections.abc import Iterator
from typing import Any

from refrnn.files import keras2
from refrnn.files.errors import shown
from refrnn.files.keras2 import MODELS
from refrnn.files.keras3 import inner_entries
from refrnn.files.tfjs import masks
from refrnn.files.tfjs.topology import LAYERS
from refrnn.layers import RNN, Bidirectional
from refrnn.layers.masks import leaves
from refrnn.models import Model, Sequential

ACTIVATIONS = (
    None, "linear", "tanh", "sigmoid", "hard_sigmoid", "relu", "relu6", "elu", "selu", "softplus",
    "softsign", "softmax", "log_softmax", "gelu", "mish", "swish",
)  # fmt: skip
INITIALIZERS = {
    **{
        name: name
        for name in (
            "Zeros", "Ones", "Constant", "RandomUniform", "RandomNormal", "TruncatedNormal",
            "Identity", "VarianceScaling", "GlorotUniform", "GlorotNormal", "HeNormal",
            "HeUniform", "Orthogonal",
        )
    },
    "LecunNormal": "LeCunNormal",
    "LecunUniform": "LeCunUniform",
}  # fmt: skip
# settings that tf.js has in one way only
ONLY: dict[str, dict[str, tuple[Any, ...]]] = {
    "": {"activity_regularizer": (None,), "data_format": (None, "channels_last")},
    "GRU": {"reset_after": (False,)},
    "GRUCell": {"reset_after": (False,)},
    "ReLU": {"negative_slope": (0,), "threshold": (0,)},
    "ELU": {"alpha": (1,)},
    "Conv1D": {"groups": (1,), "padding": ("valid", "same")},
    "GlobalMaxPooling1D": {"keepdims": (False,)},
    "GlobalAveragePooling1D": {"keepdims": (False,)},
    "Bidirectional": {"backward_layer": (None,)},
}
WHY = {
    "reset_after": ", the GRU of Keras before cuDNN; the weights of the two are not convertible",
    "backward_layer": ": the way back is made from the same layer",
}
NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._/]*")


def config(model: Model) -> dict[str, Any]:
    """The config of a model in Keras 2's words, as tf.js takes it.

    Raises ValueError for what tf.js does not have, or would compute otherwise.
    """
    kind = "Sequential" if isinstance(model, Sequential) else "Functional"
    new = {"class_name": kind, "config": model.get_config()}
    for entry in masks.masked(new):
        if masks.zeroed(entry) and masks.recurrent(entry)["zero_output_for_mask"]:
            raise ValueError(
                f"{entry['class_name']} {shown(entry['config']['name'])} has a mask and gives zeros"
                " at masked steps, expected one that repeats the last output, because tf.js does"
            )
    old = keras2.downgrade(_without_zeros(new))
    inputs = [e for e in old["config"]["layers"] if e["class_name"] == "InputLayer"]
    if not inputs:
        raise ValueError(
            f"{model.who}: the shape of its input is not known, expected a call first, or a"
            " layers.Input in front, because tf.js needs it"
        )
    stateful = [_check(entry) for entry in _all(old["config"]["layers"])]
    if any(stateful):
        rows = _rows(model)
        for entry in inputs:
            shape = entry["config"]["batch_input_shape"]
            if shape[0] is None and rows is None:
                raise ValueError(
                    f"{model.who}: is stateful and its number of rows is not known, expected a"
                    " batch_size in layers.Input, or a call first, because tf.js needs it"
                )
            entry["config"]["batch_input_shape"] = [shape[0] or rows, *shape[1:]]
    return old


def _without_zeros(value: Any) -> Any:
    """A config without zero_output_for_mask, which says nothing where there is no mask."""
    if isinstance(value, dict):
        return {k: _without_zeros(v) for k, v in value.items() if k != "zero_output_for_mask"}
    return [_without_zeros(part) for part in value] if isinstance(value, list) else value


def _all(entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The layers, those of models among them, and those inside them."""
    for entry in entries:
        if entry["class_name"] in MODELS:
            yield from _all(entry["config"]["layers"])
        else:
            yield entry
            yield from _all(list(inner_entries(entry["config"])))


def _check(entry: dict[str, Any]) -> bool:
    """Whether a layer is stateful; ValueError where tf.js does not have it."""
    kind, settings = entry["class_name"], entry["config"]
    who = f"{kind} {shown(settings['name'])}"
    if kind not in LAYERS:
        raise ValueError(f"{who}: tf.js does not have it, expected one of {', '.join(LAYERS)}")
    if not NAME.fullmatch(settings["name"]):
        raise ValueError(
            f"{who}: expected a name of letters, digits, '.', '-' and '_' that begins with a letter"
            " or digit, because tf.js takes no other"
        )
    if settings["dtype"] not in ("float32", "int32", "bool") or (
        kind != "InputLayer" and settings["dtype"] != "float32"
    ):
        raise ValueError(
            f"{who}: dtype is {settings['dtype']}, expected float32, as tf.js computes"
        )
    for name, known in (ONLY[""] | ONLY.get(kind, {})).items():
        if settings.get(name, known[0]) not in known:
            raise ValueError(
                f"{who}: {name} is {shown(settings[name])}, expected {known[0]}, because tf.js has"
                f" no other{WHY.get(name, '')}"
            )
    for name, value in settings.items():
        if name.endswith("activation") and value not in ACTIVATIONS:
            raise ValueError(
                f"{who}: {name} is {shown(value)}, which tf.js does not have, expected one of"
                f" {', '.join(filter(None, ACTIVATIONS))}"
            )
        if name.endswith("initializer") and isinstance(value, dict):
            settings[name] = _initializer(f"{who}: {name}", value)
        if name.endswith("regularizer") and value is not None and not _is_penalty(value):
            raise ValueError(f"{who}: {name} is {shown(value)}, expected L1, L2 or L1L2, or none")
    if kind == "Bidirectional" and settings["layer"]["class_name"] == "RNN":
        raise ValueError(
            f"{who}: has a layers.RNN inside, expected a SimpleRNN, GRU or LSTM, because tf.js does"
            " not load another"
        )
    if kind == "RNN" and settings["cell"]["class_name"] == "StackedRNNCells":
        if settings["return_state"] or len(entry.get("inbound_nodes", [[[]]])[0]) > 1:
            raise ValueError(
                f"{who}: is a stack of cells that takes or returns its states, expected one that"
                " keeps them, because tf.js orders them from the last cell to the first"
            )
    return bool(settings.get("stateful"))


def _initializer(who: str, value: dict[str, Any]) -> dict[str, Any]:
    kind, settings = value["class_name"], dict(value["config"])
    if kind not in INITIALIZERS:
        raise ValueError(
            f"{who} is {kind}, which tf.js does not have, expected one of {', '.join(INITIALIZERS)}"
        )
    if settings.get("distribution") == "untruncated_normal":
        settings["distribution"] = "normal"
    return {"class_name": INITIALIZERS[kind], "config": settings}


def _is_penalty(value: Any) -> bool:
    return isinstance(value, dict) and value["class_name"] == "L1L2"


def _rows(model: Model) -> int | None:
    """How many sequences the stateful layers carry; None where they do not know yet."""
    for layer in model.every_layer():
        if isinstance(layer, RNN | Bidirectional) and layer.states is not None:
            return len(next(iter(leaves(layer.states))))
    return None
