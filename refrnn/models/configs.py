"""Graphs of models from configs of Keras 3, and as configs that Keras 3 reads."""

from typing import Any

import numpy as np

from refrnn.layers import Layer
from refrnn.layers.operations import Operation
from refrnn.layers.stored import deserialize, serialize
from refrnn.models.graph import (
    Graph,
    InputSpec,
    Node,
    Ref,
    Values,
    as_executed,
    map_refs,
    ordered,
)

TENSOR, CONSTANT = "__keras_tensor__", "__tensor__"


def read_input(entry: dict[str, Any]) -> InputSpec:
    """An InputLayer."""
    config = entry["config"]
    return InputSpec(config["name"], tuple(config["batch_shape"]), config["dtype"])


def read_graph(config: dict[str, Any]) -> Graph:
    """The graph of a functional model.

    Raises ValueError for a layer that refrnn does not have, by name. Nothing in a config is run.
    """
    inputs = [read_input(e) for e in config["layers"] if e["class_name"] == "InputLayer"]
    order = _in_keras_order(_keras_refs(config["input_layers"]))
    inputs.sort(key=lambda item: order.index(item.name))
    waiting: list[Node] = []
    layers: list[Layer] = []
    for entry in config["layers"]:
        if entry["class_name"] != "InputLayer":
            layer = deserialize(entry)
            if not isinstance(layer, Operation):  # Keras does not count them among its layers
                layers.append(layer)
            for call, node in enumerate(entry["inbound_nodes"]):
                args, kwargs = _tensors(node["args"]), _tensors(node["kwargs"])
                waiting.append(Node(layer, call, tuple(args), kwargs))
    models = {entry["config"]["name"] for entry in config["layers"] if _is_functional(entry)}
    outputs = map_refs(
        lambda ref: ref._replace(call=ref.call - (ref.layer in models)),
        _keras_refs(config["output_layers"]),
    )
    if isinstance(outputs, list) and len(outputs) == 1:
        outputs = outputs[0]  # the only output of a list is returned bare
    return Graph(inputs, as_executed(ordered(waiting, inputs), outputs), outputs, layers)


def _is_functional(entry: dict[str, Any]) -> bool:
    """Whether a layer is a model whose calls Keras counts from 1 in output_layers, and only there.

    (It counts the model's own making as call 0.)
    """
    return bool(entry["class_name"] == "Functional")


def _in_keras_order(structure: Any) -> list[str]:
    """The names in a structure of inputs as Keras flattens it: dictionaries by sorted key."""
    if isinstance(structure, dict):
        return [name for key in sorted(structure) for name in _in_keras_order(structure[key])]
    if isinstance(structure, list):
        return [name for part in structure for name in _in_keras_order(part)]
    return [structure.layer]


def _keras_refs(structure: Any) -> Any:
    """Keras's [layer, call, tensor] lists, at any depth of lists and dictionaries, as Refs."""
    if isinstance(structure, dict):
        return {name: _keras_refs(part) for name, part in structure.items()}
    if len(structure) == 3 and isinstance(structure[0], str) and isinstance(structure[1], int):
        return Ref(*structure)
    return [_keras_refs(part) for part in structure]


def _tensors(structure: Any) -> Any:
    """The arguments of a stored call, its Keras tensors as Refs."""
    if isinstance(structure, dict):
        if structure.get("class_name") == TENSOR:
            return Ref(*structure["config"]["keras_history"])
        if structure.get("class_name") == CONSTANT:
            return np.array(structure["config"]["value"], structure["config"]["dtype"])
        return {name: _tensors(part) for name, part in structure.items()}
    if isinstance(structure, list | tuple):
        return [_tensors(part) for part in structure]
    return structure


# --- and back ---


def input_entry(item: InputSpec) -> dict[str, Any]:
    """An InputLayer for a known shape."""
    config = {
        "batch_shape": list(item.shape or ()),
        "dtype": item.dtype,
        "sparse": False,
        "ragged": False,
        "name": item.name,
    }
    return {
        "module": "keras.layers",
        "class_name": "InputLayer",
        "config": config,
        "registered_name": None,
    }


def write_graph(graph: Graph, values: Values) -> dict[str, Any]:
    """layers, input_layers and output_layers; values: the symbols of all that is computed."""

    def stored(structure: Any) -> Any:
        """The arguments of a call as Keras stores them."""
        if isinstance(structure, Ref):
            symbol = values[structure]
            shape, history = list(symbol.shape), list(structure)
            config = {"shape": shape, "dtype": symbol.dtype, "keras_history": history}
            return {"class_name": TENSOR, "config": config}
        if isinstance(structure, np.ndarray):
            config = {"value": structure.tolist(), "dtype": structure.dtype.name}
            return {"class_name": CONSTANT, "config": config}
        if isinstance(structure, dict):
            return {name: stored(part) for name, part in structure.items()}
        if isinstance(structure, list | tuple):
            return [stored(part) for part in structure]
        return structure

    entries = [input_entry(x) | {"name": x.name, "inbound_nodes": []} for x in graph.inputs]
    called = [node.layer for node in graph.nodes]
    operations = [layer for layer in called if isinstance(layer, Operation)]
    for layer in [*graph.layers, *operations]:
        calls = sorted((n for n in graph.nodes if n.layer is layer), key=lambda node: node.call)
        nodes = [{"args": stored(list(n.args)), "kwargs": stored(n.kwargs)} for n in calls]
        entries.append(serialize(layer) | {"name": layer.name, "inbound_nodes": nodes})
    models = {entry["name"] for entry in entries if _is_functional(entry)}
    outputs = map_refs(
        lambda ref: ref._replace(call=ref.call + (ref.layer in models)), graph.outputs
    )
    sources = [[item.name, 0, 0] for item in graph.inputs]
    return {
        "layers": entries,
        "input_layers": sources[0] if len(sources) == 1 else sources,
        "output_layers": _histories(outputs),
    }


def _histories(structure: Any) -> Any:
    if isinstance(structure, Ref):
        return list(structure)
    if isinstance(structure, dict):
        return {name: _histories(part) for name, part in structure.items()}
    return [_histories(part) for part in structure]
