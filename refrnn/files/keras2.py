"""Configs of Keras 2 in the words of Keras 3: other names, and other functions of one name.

A setting that would change the numbers, time_major=True say, is refused by name; one that repeats
what is known otherwise is dropped.
"""

from typing import Any

from refrnn.files.errors import FileError, shown
from refrnn.files.graph import TENSOR
from refrnn.files.keras3 import inner_entries, is_entry

# what files of Keras 2 hold beyond Keras 3's settings, with the values that change nothing
DROPPED: dict[str, tuple[Any, ...]] = {
    "time_major": (False, None),
    "implementation": (0, 1, 2, None),
    "num_constants": (0, None),
    "reverse_state_order": (False, None),
    "stacked": (False, None),
    "dynamic": (False, None),
    "autocast": (True, None),
}
SHAPES = ("batch_input_shape", "input_shape", "input_length", "batch_size", "ragged", "sparse")
CUDNN = {"CuDNNLSTM": "LSTM", "CuDNNGRU": "GRU"}
RECURRENT = ("SimpleRNN", "GRU", "LSTM", "RNN", "Bidirectional")
STATES = "initial_state"


def upgrade(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a model of Keras 2 as Keras 3 would have written it."""
    kind, body = config.get("class_name"), config.get("config")
    if isinstance(body, list):  # Sequential before Keras 2.2.3
        body = {"name": "sequential", "layers": body}
    entries = body.get("layers") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(entries, list):
        raise FileError(f"the model's layers are {shown(entries)}, expected a list of them")
    layers = [_layer(entry) for entry in entries]
    if kind == "Model":
        kind = "Functional"
    if kind == "Functional":
        for entry in layers:
            entry["inbound_nodes"] = _calls(entry)
        _refuse_masked_states(layers)
    return {"class_name": kind, "config": {**body, "layers": layers}}


def _layer(entry: Any) -> dict[str, Any]:
    if not is_entry(entry):
        raise FileError(f"a layer is {shown(entry)}, expected a class_name and a config")
    kind, config = entry.get("class_name"), dict(entry["config"])
    who = f"{kind} {shown(config.get('name'))}"
    if kind == "InputLayer":
        shape = config.pop("batch_input_shape", config.pop("batch_shape", None))
        return {**entry, "config": {**config, "batch_shape": shape}}
    for name, harmless in DROPPED.items():
        if name in config and (value := config.pop(name)) not in harmless:
            raise FileError(
                f"{who}: {name} is {shown(value)}, expected {harmless[0]}: it is a setting of"
                " Keras 2 that Keras 3 and refrnn do not have"
            )
    for name in SHAPES:
        config.pop(name, None)
    if kind in CUDNN:
        kind = CUDNN[kind]
        config |= {"activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True}
        config |= {"reset_after": True} if kind == "GRU" else {}
    if kind in ("GRU", "GRUCell"):
        config.setdefault("reset_after", False)  # before it was a setting
    for name, value in config.items():
        if name.endswith("activation") and value == "hard_sigmoid":
            config[name] = "hard_sigmoid_keras2"
        if name.endswith("initializer"):
            config[name] = _initializer(value)
    if kind == "LeakyReLU" and "alpha" in config:
        config["negative_slope"] = config.pop("alpha")
    axis = config.get("axis")
    if kind == "BatchNormalization" and isinstance(axis, list) and len(axis) == 1:
        config["axis"] = axis[0]
    for inner in list(inner_entries(config)):
        key = next((k for k, v in config.items() if v is inner), None)
        if key is not None:
            config[key] = _layer(inner)
    if isinstance(config.get("cells"), list):
        config["cells"] = [_layer(cell) for cell in config["cells"]]
    return {**entry, "class_name": kind, "config": config, "stored_as": entry.get("class_name")}


def _initializer(value: Any) -> Any:
    """Initial values are never drawn for a file, but the settings are kept."""
    if not isinstance(value, dict) or not isinstance(value.get("config"), dict):
        return value
    config = {k: v for k, v in value["config"].items() if k != "dtype"}
    if config.get("distribution") == "normal":
        config["distribution"] = "truncated_normal"
    return {**value, "config": config}


# --- the graph ---


def _calls(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """[[[layer, call, tensor, kwargs], ...], ...] as args and kwargs."""
    nodes = entry.get("inbound_nodes")
    if not isinstance(nodes, list):
        raise FileError(f"inbound_nodes is {shown(nodes)}, expected a list of calls")
    return [node if _is_new(node) else _call(str(entry["class_name"]), node) for node in nodes]


def _is_new(node: Any) -> bool:
    return isinstance(node, dict) and "args" in node and "kwargs" in node


def _call(kind: str, node: Any) -> dict[str, Any]:
    parts = node if isinstance(node, list) else []
    if not parts or not all(isinstance(p, list) and len(p) in (3, 4) for p in parts):
        raise FileError(
            f"a call is stored as {shown(node)}, expected a list of [layer, call, tensor,"
            " arguments]"
        )
    tensors = [_tensor(part[:3]) for part in parts]
    given = [part[3] for part in parts if len(part) == 4]
    if not all(isinstance(k, dict) for k in given) or any(k and k != given[0] for k in given):
        raise FileError(f"a call is stored with arguments {shown(given)}, expected one dictionary")
    kwargs = {name: _keyword(value) for name, value in (given[0] if given else {}).items()}
    if len(tensors) > 1 and kind in RECURRENT:  # called as [x, h, c]
        if kwargs.get(STATES) is not None:
            raise FileError(f"a {kind} is called with a list and {STATES}, expected one of them")
        return {"args": tensors[:1], "kwargs": {**kwargs, STATES: tensors[1:]}}
    return {"args": tensors if len(tensors) == 1 else [tensors], "kwargs": kwargs}


def _tensor(history: list[Any]) -> dict[str, Any]:
    return {"class_name": TENSOR, "config": {"keras_history": history}}


def _keyword(value: Any) -> Any:
    """An argument of a call: [layer, call, tensor] stands for a tensor, at any depth."""
    if isinstance(value, list):
        if len(value) >= 3 and isinstance(value[0], str):
            if value[0] == "_CONSTANT_VALUE" or len(value) > 4:
                raise FileError(f"an argument is {shown(value)}, expected a tensor")
            return _tensor(value[:3])
        return [_keyword(part) for part in value]
    return value


def _refuse_masked_states(layers: list[dict[str, Any]]) -> None:
    """With an initial state Keras 2 applies the mask that came with the input, Keras 3 does not."""
    masks = [
        entry["config"].get("name")
        for entry in layers
        if entry["class_name"] == "Masking" or entry["config"].get("mask_zero")
    ]
    for entry in layers:
        for node in entry["inbound_nodes"]:
            kwargs = node["kwargs"] if isinstance(node["kwargs"], dict) else {}
            if masks and kwargs.get(STATES) is not None and kwargs.get("mask") is None:
                raise FileError(
                    f"{entry['class_name']} {shown(entry['config'].get('name'))} has an initial"
                    f" state in a model with the mask of {shown(masks[0])}, expected one of them,"
                    " because Keras 2 applies both, and Keras 3 and refrnn only the state"
                )
