"""The ways back of pooling, over windows or over whole axes."""

import math
from typing import Any

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers.reshaping import back, last
from refrnn.layers.windows import seen
from refrnn.training.rules.passing import Rule, local

Back = tuple[Array, list[Array]]


def _spread(layer: Any, dy: Array, x: Array) -> Array:
    """The gradient of the one number of each channel, as (B, 1, ..., C)."""
    one = last(dy, layer.data_format) if layer.keepdims else dy
    return one.reshape(len(x), *[1] * (x.ndim - 2), x.shape[-1])


def global_average(layer: Any, given: dict[str, Any], y: Array, dy: Array) -> Back:
    x, mask = layer._numbers(given["inputs"]), given.get("mask")
    each = _spread(layer, dy, x)
    if mask is None:
        shares = np.broadcast_to(each / np.asarray(math.prod(x.shape[1:-1]), x.dtype), x.shape)
    else:
        live = checks.mask(layer.who, mask, *x.shape[:2])
        assert live is not None
        count = live.sum(axis=1).astype(x.dtype)[:, None, None]
        shares = np.where(live[:, :, None], each / count, np.zeros((), x.dtype))
    return back(shares, layer.data_format), []


def global_max(layer: Any, given: dict[str, Any], y: Array, dy: Array) -> Back:
    """Equal numbers share it, as in TensorFlow."""
    x = layer._numbers(given["inputs"])
    chosen = (x == x.max(axis=layer.pooled, keepdims=True)).astype(x.dtype)
    share = chosen / chosen.sum(axis=layer.pooled, keepdims=True)
    return back(share * _spread(layer, dy, x), layer.data_format), []


def _places(layer: Any, x: Array) -> tuple[Array, Array]:
    """Where in x, by the index of its numbers, each window's places are, and which are inside."""
    numbered = seen(np.arange(x.size).reshape(x.shape), layer._along(x), -1)
    return numbered, numbered >= 0


def _gathered(layer: Any, x: Array, at: Array, parts: Array) -> Array:
    """Parts of the gradient of x added up where they belong."""
    dx = np.zeros(x.size, x.dtype)
    np.add.at(dx, at, parts)
    return back(dx.reshape(x.shape), layer.data_format)


def average(layer: Any, given: dict[str, Any], y: Array, dy: Array) -> Back:
    x = layer._numbers(given["inputs"])
    at, inside = _places(layer, x)
    each = last(dy, layer.data_format)[..., None, :] / inside.sum(axis=-2, keepdims=True)
    shares = np.broadcast_to(each.astype(x.dtype), at.shape)
    return _gathered(layer, x, at[inside], shares[inside]), []


def maximum(layer: Any, given: dict[str, Any], y: Array, dy: Array) -> Back:
    """Of equal numbers the first of a window gets it all, as in TensorFlow."""
    x = layer._numbers(given["inputs"])
    at, inside = _places(layer, x)
    values = np.where(inside, x.reshape(-1)[at], -np.inf)
    first = np.take_along_axis(at, values.argmax(axis=-2)[..., None, :], axis=-2)
    return _gathered(layer, x, first.reshape(-1), last(dy, layer.data_format).reshape(-1)), []


GLOBAL_AVERAGE = Rule(local(global_average))
GLOBAL_MAX = Rule(local(global_max))
AVERAGE = Rule(local(average))
MAXIMUM = Rule(local(maximum))
