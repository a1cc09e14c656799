"""The ways back of normalization, by a row's own statistics or by stored ones."""

from typing import Any

import numpy as np

from refrnn.gates import Array
from refrnn.layers.normalization import _rsqrt, moments, own_floats, total, wide
from refrnn.training.rules.passing import Rule, local, numbers

Back = tuple[Array, list[Array | None]]


def layer_normalization(layer: Any, given: dict[str, Any], y: Array, dy: Array) -> Back:
    """Mean m and variance v over the axes: y = gamma * (x - m) * f + beta, f = 1 / sqrt(v + eps).

    With rms_scaling y = gamma * x * f, f the same.
    """
    x = own_floats(layer.who, given["inputs"], layer.dtype)
    dy = dy.astype(x.dtype)
    axes = tuple(axis % x.ndim for axis in layer._axes())
    gamma = layer._along(layer.gamma, x)
    mean, variance = moments(x, axes)
    factor, centered = _rsqrt(variance, layer.epsilon), x - mean
    scaled = x if layer.rms_scaling else centered  # what the factor multiplies
    dscaled = dy if gamma is None else dy * gamma
    count = np.asarray(np.prod([x.shape[axis] for axis in axes]), x.dtype)
    dvariance = total(dscaled * scaled, axes) * factor**3 / -2
    dx = dscaled * factor + dvariance * 2 * centered / count
    if not layer.rms_scaling:
        dx = dx - total(dscaled, axes) * factor / count
    return dx, _of_weights(layer, dy, scaled * factor, axes)


def batch_normalization(layer: Any, given: dict[str, Any], y: Array, dy: Array) -> Back:
    """By the stored statistics, which are no function of the input."""
    x, dy = wide(numbers(layer, given)), wide(dy)
    mean, variance = (layer._along(w, x) for w in (layer.moving_mean, layer.moving_variance))
    gamma, factor = layer._along(layer.gamma, x), _rsqrt(variance, layer.epsilon)
    dx = dy * factor if gamma is None else dy * (factor * gamma)
    axes = (layer.axis % x.ndim,)
    found = _of_weights(layer, dy, (x - mean) * factor, axes)
    return dx, [*found, *[None] * (len(layer.weights) - len(found))]


def _of_weights(layer: Any, dy: Array, normal: Array, axes: tuple[int, ...]) -> list[Array | None]:
    """The gradients of gamma and beta, as far as they are there, which lie along `axes`."""
    others = tuple(k for k in range(dy.ndim) if k not in axes)
    return [
        total(part, others).reshape(weight.shape)
        for weight, part in ((layer.gamma, dy * normal), (layer.beta, dy))
        if weight is not None
    ]


def check_batch(layer: Any, training: bool) -> None:
    """Refuse what `layer.call` refuses."""
    if training and layer.trainable:
        raise ValueError(
            f"{layer.who}: training is True, expected False, or a layer with trainable=False,"
            " because refrnn normalizes by the stored statistics, never by those of the batch"
        )


def unit_normalization(layer: Any, given: dict[str, Any], y: Array, dy: Array) -> Back:
    """y = x * f, f = min(1 / |x|, 1e12)."""
    x = numbers(layer, given)
    axes = tuple(sorted({axis % x.ndim for axis in layer._axes()}))
    inverse = 1 / np.sqrt(total(np.square(x), axes))
    bound = np.asarray(1e12).astype(x.dtype)
    factor = np.minimum(inverse, bound)
    dlength = np.where(inverse <= bound, total(dy * x, axes) * factor**3, np.zeros((), x.dtype))
    return dy * factor - x * dlength, []


def rescaling(layer: Any, given: dict[str, Any], y: Array, dy: Array) -> Back:
    return dy * layer._rounded(layer.scale), []


LAYER_NORMALIZATION = Rule(local(layer_normalization))
BATCH_NORMALIZATION = Rule(local(batch_normalization), check_batch)
UNIT_NORMALIZATION = Rule(local(unit_normalization))
RESCALING = Rule(local(rescaling))
