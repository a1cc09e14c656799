"""The ways back of the layers that make one array of several."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from refrnn.gates import Array
from refrnn.layers.masks import mask_of
from refrnn.layers.merging import Masks, _spread
from refrnn.layers.normalization import total
from refrnn.training.rules.passing import Rule, local

# (layer, inputs of one rank, their masks, output's gradient) -> each input's, before it broadcast
Merged = Callable[[Any, list[Array], Masks, Array], list[Array]]


def merging(back: Merged) -> Rule:
    """The rule of a layer whose way back is `back`."""

    def way_back(
        layer: Any, given: dict[str, Any], y: Array, dy: Array
    ) -> tuple[list[Array], list[Any]]:
        arrays = layer._arrays(given["inputs"])
        inputs, masks = layer._fitted(arrays, [mask_of(x) for x in given["inputs"]])
        parts = back(layer, inputs, masks, dy)
        return [
            narrowed(part, x.shape).reshape(array.shape)
            for part, x, array in zip(parts, inputs, arrays, strict=True)
        ], []

    return Rule(local(way_back))


def narrowed(gradient: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of an array of `shape` that was broadcast: sums along its axes of size 1."""
    axes = tuple(k for k, n in enumerate(shape) if n == 1 and gradient.shape[k] != 1)
    return total(gradient, axes) if axes else gradient


def add(layer: Any, inputs: list[Array], masks: Masks, dy: Array) -> list[Array]:
    return [dy for _ in inputs]


def subtract(layer: Any, inputs: list[Array], masks: Masks, dy: Array) -> list[Array]:
    return [dy, -dy]


def average(layer: Any, inputs: list[Array], masks: Masks, dy: Array) -> list[Array]:
    return [dy / np.asarray(len(inputs), dy.dtype) for _ in inputs]


def multiply(layer: Any, inputs: list[Array], masks: Masks, dy: Array) -> list[Array]:
    live = [None if m is None else _spread(m, x) for x, m in zip(inputs, masks, strict=True)]
    factors = [
        x if here is None else np.where(here, x, np.ones((), x.dtype))
        for x, here in zip(inputs, live, strict=True)
    ]
    parts = []
    for k, here in enumerate(live):
        part = reduce(np.multiply, [*factors[:k], *factors[k + 1 :]], dy)
        parts.append(part if here is None else np.where(here, part, np.zeros((), part.dtype)))
    return parts


def extreme(layer: Any, inputs: list[Array], masks: Masks, dy: Array) -> list[Array]:
    """One comparison after another: of two equal numbers the first is chosen, as in TensorFlow."""
    shape, none = dy.shape, np.ones(dy.shape, bool)
    spread = [none if m is None else np.broadcast_to(_spread(m, x), shape)
              for x, m in zip(inputs, masks, strict=True)]  # fmt: skip
    compared = []
    y, live = np.broadcast_to(inputs[0], shape), masks[0] is not None
    alive = spread[0]
    for x, mask, here in zip(inputs[1:], masks[1:], spread[1:], strict=True):
        second = np.where(here, x, y)  # as in `layers.merging`: a masked step takes no part
        first = np.where(alive, y, second)
        chosen = type(layer).CHOOSE(first, second)
        compared.append((here, alive, chosen == first))
        live = live and mask is not None
        alive = alive | here if live else none
        y = chosen
    zero, parts = np.zeros((), dy.dtype), []
    for here, alive, is_first in reversed(compared):
        dfirst, dsecond = np.where(is_first, dy, zero), np.where(is_first, zero, dy)
        dsecond = dsecond + np.where(alive, zero, dfirst)
        dy = np.where(alive, dfirst, zero) + np.where(here, zero, dsecond)
        parts.append(np.where(here, dsecond, zero))
    return [dy, *parts[::-1]]


def concatenate(layer: Any, inputs: list[Array], masks: Masks, dy: Array) -> list[Array]:
    ends = np.cumsum([x.shape[layer.axis] for x in inputs])
    return np.split(dy, ends[:-1].tolist(), axis=layer.axis)


ADD = merging(add)
SUBTRACT = merging(subtract)
AVERAGE = merging(average)
MULTIPLY = merging(multiply)
EXTREME = merging(extreme)
CONCATENATE = merging(concatenate)
