"""The way back of all layers that move numbers, and of operations between layers."""

from typing import Any

import numpy as np

from refrnn.gates import Array
from refrnn.layers.reshaping import moved
from refrnn.training.rules.passing import Flow, Passed, Rule, Sums, local


def moving(layer: Any, given: dict[str, Any], y: Array, dy: Array) -> tuple[Array, list[Any]]:
    """Where the layer moves the numbers is seen by what it makes of indices; 0 is padding."""
    x = moved(layer.who, given["inputs"], layer.dtype)
    at = layer.rearranged(np.arange(1, x.size + 1).reshape(x.shape))
    dx = np.zeros(x.size + 1, dy.dtype)
    np.add.at(dx, at.reshape(-1), dy.reshape(-1))
    return dx[1:].reshape(x.shape), []


def nothing(layer: Any, given: dict[str, Any], memory: Any) -> Passed:
    """Of what returns truth values or constants."""
    return Passed(layer(**given), lambda dys, sums, dmemory: Flow({}))


def shaped(layer: Any, given: dict[str, Any], memory: Any) -> Passed:
    """Of what returns the same numbers, in another shape or dtype."""

    def back(dys: list[Array], sums: Sums, dmemory: Any) -> Flow:
        return Flow({"x": [dys[0].reshape(np.shape(given["x"]))]})

    return Passed(layer(**given), back)


def joined(layer: Any, given: dict[str, Any], memory: Any) -> Passed:
    ends = np.cumsum([np.shape(x)[layer.axis] for x in given["xs"]])[:-1].tolist()

    def back(dys: list[Array], sums: Sums, dmemory: Any) -> Flow:
        return Flow({"xs": np.split(dys[0], ends, axis=layer.axis)})

    return Passed(layer(**given), back)


MOVING = Rule(local(moving))
NOTHING = Rule(nothing)
SHAPED = Rule(shaped)
JOINED = Rule(joined)
