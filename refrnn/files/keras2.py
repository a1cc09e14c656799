"""Configs of Keras 2 in the words of Keras 3, and back: other names, other functions of one name.

A setting that would change the numbers, time_major=True say, is refused by name; one that repeats
what is known otherwise is dropped.
"""

from typing import Any

from refrnn.files.errors import FileError, shown
from refrnn.files.graph import TENSOR
from refrnn.files.keras3 import NESTED, inner_entries, is_entry

# what files of Keras 2 hold beyond Keras 3's settings, with the values that change nothing
DROPPED: dict[str, tuple[Any, ...]] = {
    "implementation": (0, 1, 2, None),
    "num_constants": (0, None),
    "reverse_state_order": (False, None),
    "stacked": (False, None),
    "dynamic": (False, None),
    "autocast": (True, None),
}
SHAPES = ("batch_input_shape", "input_shape", "input_length", "batch_size", "ragged", "sparse")
CUDNN = {"CuDNNLSTM": "LSTM", "CuDNNGRU": "GRU"}
TIME_MAJOR = "keras2.TimeMajor"
RECURRENT = ("SimpleRNN", "GRU", "LSTM", "RNN", "Bidirectional", TIME_MAJOR)
STATES = "initial_state"
ENDS = ("input_layers", "output_layers")
MODELS = ("Sequential", "Functional", "Model")


def upgrade(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a model of Keras 2 as Keras 3 would have written it."""
    kind, body = config.get("class_name"), config.get("config")
    if isinstance(body, list):  # Sequential before Keras 2.2.3
        body = {"name": "sequential", "layers": body}
    entries = body.get("layers") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(entries, list):
        raise FileError(f"the model's layers are {shown(entries)}, expected a list of them")
    layers = [upgrade_layer(entry) for entry in entries]
    if kind == "Model":
        kind = "Functional"
    if kind == "Functional":
        for entry in layers:
            entry["inbound_nodes"] = _calls(entry)
        _refuse_masked_states(layers)
        nested = [layer["config"].get("name") for layer in entries if _has_own_call(layer)]
        body = _counted_from_zero(body, layers, nested)
    return {"class_name": kind, "config": {**body, "layers": layers}}


def upgrade_layer(entry: Any) -> dict[str, Any]:
    """A layer, or a model that is one, as Keras 3 would have written it."""
    if not is_entry(entry):
        raise FileError(f"a layer is {shown(entry)}, expected a class_name and a config")
    if entry["class_name"] in MODELS:
        return {**entry, **upgrade(entry), "stored_as": entry["class_name"]}
    kind, config = entry.get("class_name"), dict(entry["config"])
    who = f"{kind} {shown(config.get('name'))}"
    if kind == "InputLayer":
        shape = config.pop("batch_input_shape", config.pop("batch_shape", None))
        return {**entry, "config": {**config, "batch_shape": shape}}
    time_major = config.pop("time_major", None)
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
            config[key] = upgrade_layer(inner)
    if isinstance(config.get("cells"), list):
        config["cells"] = [upgrade_layer(cell) for cell in config["cells"]]
    new = {**entry, "class_name": kind, "config": config, "stored_as": entry.get("class_name")}
    if not time_major:
        return new
    if kind not in RECURRENT[:4]:
        raise FileError(
            f"{who}: time_major is {shown(time_major)}, expected False, or a recurrent layer"
        )
    inner = {"class_name": kind, "config": config}
    return {**new, "class_name": TIME_MAJOR, "config": {"name": config.get("name"), "layer": inner}}


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


def _counted_from_zero(
    body: dict[str, Any], layers: list[dict[str, Any]], nested: list[Any]
) -> dict[str, Any]:
    """References to calls of `nested` models, of which Keras 2 counts the model's own first.

    Keras 3 counts it too, in the ends of a graph, for functional models.
    """

    def counted(value: Any, names: list[Any]) -> Any:
        if isinstance(value, dict):
            return {key: counted(part, names) for key, part in value.items()}
        if not isinstance(value, list):
            return value
        if len(value) >= 3 and isinstance(value[0], str) and type(value[1]) is int:
            return [value[0], value[1] - (value[0] in names), *value[2:]]
        return [counted(part, names) for part in value]

    for entry in layers:
        entry["inbound_nodes"] = counted(entry["inbound_nodes"], nested)
    chains = [name for name in nested if name not in _functional(layers)]
    return {k: counted(body.get(k), chains) if k in ENDS else part for k, part in body.items()}


def _functional(layers: list[dict[str, Any]]) -> list[Any]:
    """The names of the functional models among layers of Keras 3."""
    return [e["config"].get("name") for e in layers if e["class_name"] == "Functional"]


def _has_own_call(entry: dict[str, Any]) -> bool:
    """Whether a layer is a model that was made with its inputs."""
    if entry["class_name"] not in MODELS:
        return False
    return any(
        part["class_name"] == "InputLayer"
        or "batch_input_shape" in part["config"]
        or _has_own_call(part)
        for part in entry["config"]["layers"][:1]
    )


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


# --- and back ---

# what Keras 2 does not know, with the values that change nothing
NEW: dict[str, tuple[Any, ...]] = {
    "zero_output_for_mask": (False,),
    "lora_rank": (None,),
    "lora_alpha": (None,),
    "quantization_config": (None,),
    "rms_scaling": (False,),
    "renorm": (False,),
    "synchronized": (False,),
    "use_cudnn": ("auto", True, False),
}
SEEDED = ("SimpleRNN", "GRU", "LSTM", "SimpleRNNCell", "GRUCell", "LSTMCell")
OLD_NAMES = {"hard_sigmoid_keras2": "hard_sigmoid", "silu": "swish"}  # of activations
PENALTIES = {"L1": ("l1",), "L2": ("l2",), "L1L2": ("l1", "l2")}


def downgrade(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a model, class_name and config of Keras 3, as Keras 2 would have written it.

    Raises ValueError for what Keras 2 does not have, by name, or would compute otherwise.
    """
    kind, body = config["class_name"], config["config"]
    entries = body["layers"]
    new: dict[str, Any] = {"name": body["name"], "layers": [_old_layer(e) for e in entries]}
    if kind == "Functional":
        nested = {e["config"]["name"] for e in entries if _has_own_call(_old_layer(e))}
        for entry, old in zip(entries, new["layers"], strict=True):
            name = old["name"] = old["config"]["name"]
            calls = [_old_call(old["class_name"], name, node) for node in entry["inbound_nodes"]]
            old["inbound_nodes"] = [
                [[layer, k + (layer in nested), tensor, {}] for layer, k, tensor in call]
                for call in calls
            ]
        for key in ENDS:
            ends, counted = _histories(key, body[key]), nested - {*_functional(entries)}
            new[key] = [[layer, k + (layer in counted), tensor] for layer, k, tensor in ends]
    return {"class_name": kind, "config": new}


def _old_layer(entry: dict[str, Any]) -> dict[str, Any]:
    kind = entry["class_name"]
    if kind in MODELS:
        return downgrade(entry)
    if kind == TIME_MAJOR:
        inner = _old_layer(entry["config"]["layer"])
        return {**inner, "config": {**inner["config"], "time_major": True}}
    config = dict(entry["config"])
    who = f"{kind} {shown(config['name'])}"
    dtype = config.get("dtype")
    config["dtype"] = dtype["config"]["name"] if isinstance(dtype, dict) else dtype
    if kind == "InputLayer":
        config["batch_input_shape"] = config.pop("batch_shape")
    if kind in SEEDED:
        config.pop("seed", None)
    if kind == "Bidirectional":
        _one_layer(config)
    for name, harmless in NEW.items():
        if name in config and (value := config.pop(name)) not in harmless:
            raise ValueError(
                f"{who}: {name} is {shown(value)}, expected {harmless[0]}, because Keras 2 does not"
                " have it"
            )
    for name, value in config.items():
        if name.endswith("activation"):
            if value == "hard_sigmoid":
                raise ValueError(
                    f"{who}: {name} is 'hard_sigmoid' as Keras 3 computes it, x / 6 + 0.5, expected"
                    " another, because Keras 2 has another function of that name; refrnn has that"
                    " one as 'hard_sigmoid_keras2'"
                )
            config[name] = OLD_NAMES.get(value, value)
        if name.endswith("initializer") and isinstance(value, dict):
            config[name] = {"class_name": value["class_name"], "config": _unseeded(value["config"])}
        if name.endswith("regularizer") and isinstance(value, dict):
            config[name] = _old_regularizer(value)
        if name in NESTED and value is not None:
            config[name] = _inner(value)
        if name == "cells":
            config[name] = [_inner(cell) for cell in value]
    if kind == "LeakyReLU":
        config["alpha"] = config.pop("negative_slope")
    return {"class_name": kind, "config": config}


def _inner(entry: dict[str, Any]) -> dict[str, Any]:
    """A layer that is a setting of another: unlike those of a model it names its module."""
    return {"module": entry["module"], **_old_layer(entry), "registered_name": None}


def _one_layer(config: dict[str, Any]) -> None:
    """Bidirectional of Keras 2 has one layer, its way back made from it, where they are alike."""
    forward, backward = config["layer"], config["backward_layer"]
    name = forward["config"]["name"].removeprefix("forward_")
    back = {"go_backwards": not forward["config"]["go_backwards"], "name": f"backward_{name}"}
    if backward == {**forward, "config": {**forward["config"], **back}}:
        del config["backward_layer"]
    halves = ("layer", forward, name), ("backward_layer", backward, backward["config"]["name"])
    for key, half, called in halves:
        if key in config:  # without what Bidirectional sets itself
            inner = {**half["config"], "name": called, "zero_output_for_mask": False}
            config[key] = {**half, "config": inner}


def _unseeded(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of an initializer; a seed that is more than a number is left out."""
    seed = config.get("seed")
    return {**config, "seed": None} if isinstance(seed, dict) else config


def _old_regularizer(value: dict[str, Any]) -> dict[str, Any]:
    kind, config = value["class_name"], value["config"]
    if kind not in PENALTIES:
        return {"class_name": kind, "config": config}
    penalties = {name: config.get(name, 0.0) for name in ("l1", "l2")}
    return {"class_name": "L1L2", "config": penalties}


def _old_call(kind: str, name: str, node: dict[str, Any]) -> list[list[Any]]:
    """The tensors of a call: its input, or inputs, and for recurrent layers the state behind."""
    first, *args = node["args"]
    rest = dict(node["kwargs"])
    if kind in RECURRENT and args:
        rest[STATES] = args.pop(0)
    states = rest.pop(STATES, None) if kind in RECURRENT else None
    odd = [a for a in args if a is not None] + [
        k for k, v in rest.items() if v not in (None, False)
    ]
    if odd:
        raise ValueError(
            f"{kind} {shown(name)} is called with {shown(odd)}, expected its input and for a"
            " recurrent layer its state, because Keras 2 stores no other argument"
        )
    return [*_tensors_in(name, first), *_tensors_in(name, states)]


def _tensors_in(name: str, value: Any) -> list[list[Any]]:
    if value is None:
        return []
    if isinstance(value, list):
        return [history for part in value for history in _tensors_in(name, part)]
    if not isinstance(value, dict) or value.get("class_name") != TENSOR:
        raise ValueError(
            f"layer {shown(name)} is called with {shown(value)}, expected what other layers return"
        )
    return [value["config"]["keras_history"]]


def _histories(key: str, value: Any) -> list[list[Any]]:
    if isinstance(value, list) and isinstance(value[0], str):
        return [value]
    if isinstance(value, dict) or not all(isinstance(part[0], str) for part in value):
        raise ValueError(
            f"{key} is {shown(value)}, expected a plain list, because Keras 2 stores no other"
            " structure"
        )
    return [*value]
