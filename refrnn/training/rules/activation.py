"""The ways back of the activations that are layers, and of those in layers."""

from typing import Any

import numpy as np

from refrnn import activations
from refrnn.backward import equations
from refrnn.backward.equations import Pull
from refrnn.gates import Array
from refrnn.layers.normalization import total
from refrnn.training.rules.passing import Rule, local, numbers


def pull(layer: Any) -> Pull:
    """How gradients go back through a layer's activation.

    Raises ValueError where its derivative is not known.
    """
    function = layer.activation
    if function.kind == "halves":
        return lambda x, dy: np.sum(dy[..., :, None] * function.derivative(x), axis=-2)
    return equations.pull(f"{layer.who}: activation", function)


def check(layer: Any, training: bool) -> None:
    """Refuse an activation without a derivative."""
    pull(layer)


Back = tuple[Array, list[Array]]


def activation(layer: Any, given: dict[str, Any], y: Array, dy: Array) -> Back:
    return pull(layer)(numbers(layer, given), dy), []


def relu(layer: Any, given: dict[str, Any], y: Array, dy: Array) -> Back:
    """At the corners as on TensorFlow: 1 at a ceiling, unless it is that of relu6, else 0."""
    x = numbers(layer, given)
    slope, ceiling, edge = layer.negative_slope, layer.max_value, layer.threshold
    if slope != 0 and ceiling is None and edge == 0:
        return dy * activations.d_leaky_relu(x, slope), []
    rising = x > edge
    if ceiling is not None:
        rising &= (x < ceiling) if ceiling == 6 and edge == 0 else (x <= ceiling)
    return dy * np.where(rising, 1, np.where(x < edge, slope, 0)).astype(x.dtype), []


def leaky_relu(layer: Any, given: dict[str, Any], y: Array, dy: Array) -> Back:
    return dy * activations.d_leaky_relu(numbers(layer, given), layer.negative_slope), []


def elu(layer: Any, given: dict[str, Any], y: Array, dy: Array) -> Back:
    return dy * activations.d_elu(numbers(layer, given), layer.alpha), []


def prelu(layer: Any, given: dict[str, Any], y: Array, dy: Array) -> Back:
    x, alpha = numbers(layer, given), layer.alpha
    below = np.minimum(x, 0)  # y = relu(x) - alpha * relu(-x), whose slope at 0 is 0
    slope = np.where(x > 0, np.ones_like(x), np.where(x < 0, alpha, np.zeros_like(x)))
    return dy * slope, [_along(dy * below, alpha.shape)]


def _along(rows: Array, shape: tuple[int, ...]) -> Array:
    """Rows (B, ...) summed to `shape`, which has size 1 along the axes that are shared."""
    axes = tuple(k for k, n in enumerate(shape, 1) if n == 1)
    return total(rows, (0, *axes)).reshape(shape)


def softmax(layer: Any, given: dict[str, Any], y: Array, dy: Array) -> Back:
    axes = tuple(sorted({axis % y.ndim for axis in layer._axes()}))
    return y * (dy - total(dy * y, axes)), []  # y is 0 where the mask leaves an entry out


ACTIVATION = Rule(local(activation), check)
RELU = Rule(local(relu))
LEAKY_RELU = Rule(local(leaky_relu))
ELU = Rule(local(elu))
PRELU = Rule(local(prelu))
SOFTMAX = Rule(local(softmax))
