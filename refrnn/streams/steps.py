"""The fast path: a chain of layers as one call for one step, on states that it writes in place.

A layer's step is bound once, to its weights and its state, and is then one call x (rows, F) ->
y (rows, units) of its engine, which says in which arrays it keeps the state from then on. The last
output is the state h: `settle` copies it, later.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from refrnn import activations
from refrnn.cells import dot
from refrnn.gates import Array
from refrnn.layers import Dense, Dropout, Layer, Recurrent, SpatialDropout1D, TimeDistributed
from refrnn.models.graph import Graph, Ref
from refrnn.reference import QUIET
from refrnn.streams.memory import LAST, Place

Step = Callable[[Array], Array]


def _recurrent_step(layer: Recurrent, state: list[Array]) -> tuple[Step, list[Array]]:
    """One step of a recurrent layer, and the arrays (rows, H) that it keeps its state in."""
    cell, weights = layer.cell.math, layer.cell.arrays
    stepper = layer.stepper(cell.State(*state))
    if stepper is not None:
        return stepper.step, list(stepper.state)

    def step(x: Array) -> Array:
        with QUIET():
            after, _ = cell.step(cell, weights, cell.State(*state), x)
        for old, new in zip(state, after, strict=True):
            old[...] = new
        return after.h

    return step, state


def _dense_step(layer: Dense) -> Step:
    kernel, bias, act = layer.kernel, layer.bias, layer.activation.value

    def step(x: Array) -> Array:
        with QUIET():
            y = dot(x, kernel)
            return act(y if bias is None else y + bias)

    return step


class Bound(NamedTuple):
    """The step of a chain, the shape and dtype of the x that it takes, and its last day.

    stale  whether weights have changed since, so that it must be bound again
    """

    step: Step
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    stale: Callable[[], bool]


def bind(layers: list[Layer], places: list[Place], rows: int) -> Bound:
    """The step of a chain of recurrent and dense layers on places, which have so many rows."""
    memories = iter(places)
    steps = [_bound(layer, memories) for layer in layers]

    def step(x: Array) -> Array:
        for one in steps:
            x = one(x)
        return x

    cells = [layer.cell for layer in layers if isinstance(layer, Recurrent)]
    prepared = [(cell, cell.prepared) for cell in cells]

    def stale() -> bool:
        for cell, known in prepared:  # any() would take longer than a step
            if cell.prepared is not known:
                return True
        return False

    shape = rows, _features(layers[0])
    dtype = np.dtype(layers[0].dtype.type)  # the one that arrays have, to compare by `is`
    return Bound(steps[0] if len(steps) == 1 else step, shape, dtype, stale)


def _bound(layer: Any, memories: Iterator[Place]) -> Step:
    if isinstance(layer, Recurrent):
        place = next(memories)
        step, kept = _recurrent_step(layer, [place.parts[name] for name in place.state_names])
        place.parts |= dict(zip(place.state_names, kept, strict=True))
        return step
    return _dense_step(layer)


def settle(places: list[Place]) -> None:
    """Put down the last outputs, after steps of a chain."""
    for place in places:
        place.parts[LAST][...] = place.parts["h"]


def chained(graph: Graph) -> list[Layer] | None:
    """The layers of a graph that is a chain with a fast step; None where it is not one.

    Left out are those that do nothing in inference. Layers that may have masks, several outputs or
    code of the caller's are not of a chain: they are advanced by a chunk of one step.
    """
    if len(graph.inputs) != 1:
        return None
    found: list[Layer] = []
    at = Ref(graph.inputs[0].name, 0, 0)
    for node in graph.nodes:
        if node.args != (at,) or node.kwargs:
            return None
        layer = node.layer
        if isinstance(layer, TimeDistributed) and type(layer.layer) is Dense:
            layer = layer.layer
        if type(layer) not in (Dropout, SpatialDropout1D):
            if not _fast(layer):
                return None
            found.append(layer)
        at = Ref(node.layer.name, node.call, 0)
    if graph.outputs != at or not any(isinstance(layer, Recurrent) for layer in found):
        return None
    dtypes = {np.dtype(graph.inputs[0].dtype), *(layer.dtype for layer in found)}
    return found if len(dtypes) == 1 else None


def _fast(layer: Any) -> bool:
    if isinstance(layer, Recurrent):
        named = [layer.cell.math.act, layer.cell.math.rec]
        if layer.return_state:
            return False
    elif type(layer) is Dense:
        named = [layer.activation]
    else:
        return False
    return all(activations.ACTIVATIONS.get(one.name) == one for one in named)


def _features(layer: Any) -> int:
    return len(layer.cell.kernel if isinstance(layer, Recurrent) else layer.kernel)
