"""What can be streamed: a model of whatever is given, its graph made to go on, or the reason."""

import copy
from typing import Any

import numpy as np

from refrnn import checks
from refrnn.cells import Weights
from refrnn.layers import GRU, LSTM, RNN, Bidirectional, Conv1D, Layer, SimpleRNN
from refrnn.layers.reshaping import Flatten, Reshape
from refrnn.layers.stacking import as_cell
from refrnn.models import Model, Sequential, chunks
from refrnn.models.graph import Graph, Node, is_model
from refrnn.streams.health import Watch, Watched
from refrnn.streams.standins import ByChunks, Causal

LAYERS: dict[str, tuple[type[RNN], dict[str, Any]]] = {
    "simple": (SimpleRNN, {}),
    "gru": (GRU, {"reset_after": True}),
    "gru_reset_before": (GRU, {"reset_after": False}),
    "lstm": (LSTM, {}),
}

# what to do instead of streaming a layer that is refused
INSTEAD: tuple[tuple[type[Layer], str], ...] = (
    (Bidirectional, 'pass bidirectional="chunk", where its backward half sees one chunk at a time,'
                    " or train a model that goes one way"),
    (Conv1D, 'train it with padding="causal" and strides=1, or call the model on whole windows'),
    (Flatten, "apply the layers after it step by step, by layers.TimeDistributed say, or call the"
              " model on whole windows"),
    (Reshape, "reshape the features alone, by layers.TimeDistributed, or call the model on whole"
              " windows"),
    (RNN, "call the model on whole sequences"),
)  # fmt: skip
OTHERWISE = "stream the part of the model before it, and call the rest on whole sequences"


def as_model(given: Any) -> Model:
    """The model of what a stream is made for: a model, a layer, a cell, or (cell, Weights)."""
    if isinstance(given, Model):
        return given
    if isinstance(given, tuple | list) and len(given) == 2:
        return Sequential([_of_weights(*given)])
    if isinstance(given, Layer) and not hasattr(given, "state_size"):
        return Sequential([given], name=given.name)
    if hasattr(given, "state_size") and callable(getattr(given, "call", None)):
        layer = RNN(as_cell("Stream", given), return_sequences=True)
        layer.built = getattr(layer.cell, "built", True)
        return Sequential([layer])
    raise ValueError(
        f"Stream: model is {given!r}, expected a model, a layer, a cell, or a pair such as"
        ' ("lstm", Weights); a file is read by refrnn.load_model(path), a live Keras model by'
        " refrnn.from_keras(model)"
    )


def _of_weights(cell: Any, weights: Any) -> RNN:
    """The layer of a bare cell, which returns every step."""
    row = checks.cell(cell)
    ready = checks.weights(row, weights)
    kind, options = LAYERS[row.name]
    if row.name != "simple":
        options = {**options, "recurrent_activation": row.rec}
    layer = kind(
        len(ready.recurrent_kernel),
        activation=row.act,
        return_sequences=True,
        dtype=ready.kernel.dtype.name,
        name=row.name,
        **options,
    )
    layer.set_weights(Weights(*ready))
    return layer


def check_built(model: Model) -> None:
    """Build a model whose inputs are declared; refuse one that has no weights yet."""
    unbuilt = [layer for layer in model.every_layer() if not layer.built]
    if unbuilt and all(item.shape is not None for item in model.inputs):
        model.build(model.inputs[0].shape)
    elif unbuilt:
        raise ValueError(
            f"{model.who}: {unbuilt[0].who} is not built, expected weights before it is streamed:"
            " call it once, set_weights, or load it from a file"
        )


def streamable(model: Model, by_chunks: bool, watch: Watch | None) -> tuple[Graph, list[str]]:
    """A graph that can be advanced chunk by chunk, and what each of its outputs is to a chunk.

    Raises ValueError, with the layer and what to do instead, for what mixes time.
    """
    graph = _adapted(model.graph, by_chunks, watch)
    timed = timed_inputs(model)
    try:
        kinds = chunks.kinds_of(graph, [chunks.STEPS if t else chunks.GIVEN for t in timed])
    except chunks.Whole as why:
        raise ValueError(
            f"{model.who} cannot be streamed: {why}; expected layers that need no later step:"
            f" {_instead(model, str(why))}"
        ) from None
    if chunks.STEPS not in kinds and chunks.END not in kinds:
        raise ValueError(f"{model.who} cannot be streamed: no output follows from a sequence")
    return graph, kinds


def timed_inputs(model: Model) -> list[bool]:
    """For each input whether it has a time axis, as far as its declaration says."""
    dummies = [np.empty((0,) * (3 if x.shape is None else len(x.shape))) for x in model.inputs]
    return model.timed(dummies)


def _adapted(graph: Graph, by_chunks: bool, watch: Watch | None) -> Graph:
    """The graph with stand-ins for layers that carry something without being recurrent.

    watch  what recurrent layers tell of themselves; None to leave them as they are
    """
    made: dict[Layer, Layer] = {}

    def adapt(layer: Any) -> Layer:
        if is_model(layer):
            copied = copy.copy(layer)
            copied.graph = _adapted(layer.graph, by_chunks, watch)
            return copied
        if Causal.of(layer):
            return Causal(layer)
        if by_chunks and isinstance(layer, Bidirectional):
            return ByChunks(layer)
        if watch is not None and isinstance(layer, RNN):
            return Watched(layer, watch)
        return layer

    nodes = []
    for node in graph.nodes:
        if node.layer not in made:
            made[node.layer] = adapt(node.layer)
        nodes.append(node._replace(layer=made[node.layer]))
    return graph._replace(nodes=nodes)


def starts(node: Node) -> bool:
    """Whether a call of a recurrent layer is given the state to begin with."""
    given = [node.kwargs.get("initial_state"), *node.args[1:2]]
    return any(part is not None for part in given)


def _instead(model: Model, why: str) -> str:
    named = [layer for layer in model.every_layer() if layer.who in why]
    for kind, advice in INSTEAD:
        if any(isinstance(layer, kind) for layer in named[:1]):
            return advice
    return OTHERWISE
