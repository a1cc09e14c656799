"""A model's fingerprint: equal for models that compute the same, whatever they are called."""

import hashlib
import json
from typing import Any

import numpy as np

from refrnn.layers import Layer
from refrnn.models import Model
from refrnn.models.graph import Graph, is_model, map_refs

# settings that are of training, or names: they change no number of inference
WITHOUT = ("name", "trainable", "stateful", "unroll", "seed", "dropout", "recurrent_dropout",
           "rate", "noise_shape")  # fmt: skip
ENDINGS = ("_initializer", "_regularizer", "_constraint", "regularizer")


def fingerprint(model: Model) -> str:
    """SHA-256 of a model's architecture, settings, dtypes and weights, in hexadecimal.

    Of a layer of the caller's own, and of one with a function of the caller's, the code is not
    in it: the class and the weights stand for it.
    """
    digest = hashlib.sha256(json.dumps(_graph(model.graph), sort_keys=True).encode())
    for weight in model.weights:
        digest.update(f"{weight.dtype.name} {weight.shape}".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def _graph(graph: Graph) -> Any:
    """The calls of a graph, layers and inputs by number."""
    numbers = {item.name: k for k, item in enumerate(graph.inputs)}
    layers: list[Layer] = []
    for node in graph.nodes:
        if node.layer not in layers:
            numbers[node.layer.name] = len(numbers)
            layers.append(node.layer)

    def numbered(structure: Any) -> Any:
        return _plain(map_refs(lambda ref: [numbers[ref.layer], ref.call, ref.tensor], structure))

    return {
        "inputs": [item.dtype for item in graph.inputs],
        "layers": [_layer(layer) for layer in layers],
        "calls": [
            [numbers[n.layer.name], numbered(list(n.args)), numbered(n.kwargs)] for n in graph.nodes
        ],
        "outputs": numbered(graph.outputs),
    }


def _layer(layer: Any) -> Any:
    if is_model(layer):
        return _graph(layer.graph)
    try:
        config = layer.get_config()
    except (ValueError, NotImplementedError):  # it holds code, which cannot be written down
        config = {}
    return [type(layer).__name__, layer.dtype.name, _plain(config)]


def _plain(value: Any) -> Any:
    """What JSON can hold of a config, without what changes no number."""
    if isinstance(value, dict):
        return {
            str(key): _plain(part)
            for key, part in value.items()
            if key not in WITHOUT and not str(key).endswith(ENDINGS)
        }
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.ndarray):
        return [value.shape, value.ravel().tolist()]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value) if isinstance(value, np.generic) else type(value).__name__
