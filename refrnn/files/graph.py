"""The graph of a functional model as Keras 3 stores it: calls, and references to what they return.

Every reference is looked up before the graph is made, and once more when it is known how many
arrays each layer returns.
"""

import inspect
from typing import Any

import numpy as np

from refrnn.files.errors import FileError, shown, within
from refrnn.layers.masks import leaves
from refrnn.layers.time_major import TimeMajor
from refrnn.models import Model, Node, Ref

MAX_CALLS = 1000  # of all layers together: ordering them takes time by their square
TENSOR, CONSTANT = "__keras_tensor__", "__tensor__"
CONSTANTS = ("float32", "float64", "int32", "int64", "bool")  # dtypes


def checked(
    body: dict[str, Any], inputs: list[dict[str, Any]], others: list[dict[str, Any]]
) -> dict[str, Any]:
    """input_layers and output_layers; they and the calls in `others` refer to what is there."""
    calls: dict[str, int] = {entry["config"]["name"]: 1 for entry in inputs}
    for entry in others:
        nodes = entry.get("inbound_nodes")
        if not isinstance(nodes, list) or not all(
            isinstance(n, dict)
            and isinstance(n.get("args"), list)
            and isinstance(n.get("kwargs"), dict)
            for n in nodes
        ):
            raise FileError(
                f"layer {shown(entry['config']['name'])} has inbound_nodes {shown(nodes)}, expected"
                " a list of calls with args and kwargs"
            )
        calls[entry["config"]["name"]] = len(nodes)
    if sum(calls.values()) > MAX_CALLS:
        raise FileError(
            f"layers are called {sum(calls.values())} times, expected at most {MAX_CALLS}, because"
            " their order must be found"
        )
    for entry in others:
        with within(f"layer {shown(entry['config']['name'])}"):
            for node in entry["inbound_nodes"]:
                _check_arguments([node["args"], node["kwargs"]], calls)
    # here, and only here, Keras counts the calls of a functional model inside from 1
    models = [entry["config"]["name"] for entry in others if entry["class_name"] == "Functional"]
    ends = calls | {name: calls[name] + 1 for name in models}
    found: dict[str, Any] = {}
    for key in ("input_layers", "output_layers"):
        if not body.get(key):
            raise FileError(f"{key} is {shown(body.get(key))}, expected the tensors of the model")
        _check_structure(key, body[key], calls if key == "input_layers" else ends)
        found[key] = body[key]
    given = sorted(_names(found["input_layers"]))
    if given != sorted(entry["config"]["name"] for entry in inputs):
        raise FileError(f"input_layers name {shown(given)}, expected each InputLayer once")
    return found


def _is_reference(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and isinstance(value[0], str)
        and all(type(n) is int for n in value[1:])
    )


def _check_reference(value: Any, calls: dict[str, int]) -> None:
    if not _is_reference(value):
        raise FileError(f"a tensor is {shown(value)}, expected [layer, call, tensor]")
    layer, call, tensor = value
    if layer not in calls:
        raise FileError(f"refers to layer {shown(layer)}, which is not in the file")
    if not 0 <= call < calls[layer]:
        raise FileError(
            f"refers to call {call} of layer {shown(layer)}, expected 0 to {calls[layer] - 1}"
        )
    if tensor < 0:
        raise FileError(f"refers to tensor {tensor} of layer {shown(layer)}, expected at least 0")


def _check_structure(key: str, value: Any, calls: dict[str, int]) -> None:
    if _is_reference(value):
        with within(key):
            _check_reference(value, calls)
    elif isinstance(value, list | dict) and value:
        for part in value.values() if isinstance(value, dict) else value:
            _check_structure(key, part, calls)
    else:
        raise FileError(f"{key} holds {shown(value)}, expected [layer, call, tensor]")


def _names(structure: Any) -> list[str]:
    if _is_reference(structure):
        return [structure[0]]
    parts = structure.values() if isinstance(structure, dict) else structure
    return [name for part in parts for name in _names(part)]


def _check_arguments(value: Any, calls: dict[str, int]) -> None:
    """The arguments of a call: tensors, constants, and plain values, at any depth."""
    if isinstance(value, list):
        for part in value:
            _check_arguments(part, calls)
    elif isinstance(value, dict) and "class_name" not in value:
        for part in value.values():
            _check_arguments(part, calls)
    elif isinstance(value, dict):
        kind, config = value["class_name"], value.get("config")
        if not isinstance(config, dict) or kind not in (TENSOR, CONSTANT):
            raise FileError(f"an argument is {shown(value)}, expected a tensor or a plain value")
        if kind == TENSOR:
            _check_reference(config.get("keras_history"), calls)
        elif config.get("dtype") not in CONSTANTS or "value" not in config:
            raise FileError(f"a constant is {shown(config)}, expected numbers of {CONSTANTS}")
        else:
            with within("a constant"):
                np.array(config["value"], config["dtype"])


def check_references(made: Model) -> None:
    """Refuse tensors that a layer does not return, and arguments that it does not take."""
    returned = {item.name: 1 for item in made.inputs}
    returned |= {node.layer.name: count_outputs(node.layer) for node in made.graph.nodes}
    parts = [made.graph.outputs]
    for node in made.graph.nodes:
        _check_call(node)
        parts += [node.args, node.kwargs]
    for ref in _refs(parts):
        if ref.tensor >= returned[ref.layer]:
            raise FileError(
                f"refers to tensor {ref.tensor} of layer {shown(ref.layer)}, expected 0 to"
                f" {returned[ref.layer] - 1}, because it returns {returned[ref.layer]}"
            )


def _check_call(node: Node) -> None:
    with within(node.layer.who):
        inspect.signature(node.layer.call).bind(*node.args, **node.kwargs)
        first = (*node.args, *node.kwargs.values())[:1]
        if not _refs(list(first)):
            raise FileError(f"is called with {shown(first)}, expected a tensor first")
        training = node.kwargs.get("training")
        if not (training is None or isinstance(training, bool)):
            raise FileError(f"is called with training={shown(training)}, expected true or false")


def _refs(structure: Any) -> list[Ref]:
    if isinstance(structure, Ref):
        return [structure]
    if isinstance(structure, dict):
        structure = list(structure.values())
    if isinstance(structure, list | tuple):
        return [ref for part in structure for ref in _refs(part)]
    return []


def count_outputs(layer: Any) -> int:
    """How many arrays a layer returns."""
    if isinstance(layer, Model | TimeMajor):
        return layer.output_count
    forward = getattr(layer, "forward_layer", None)
    if forward is not None:
        states = 2 * (count_outputs(forward) - 1)
        return states + (2 if getattr(layer, "merge_mode", "concat") is None else 1)
    if not getattr(layer, "return_state", False):
        return 1
    return 1 + len(leaves(layer.cell.state_size))
