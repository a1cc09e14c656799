"""Named activations as a table: each value beside its derivative, with Keras 3's numbers.

Every name that Keras 3 accepts is here, and `hard_sigmoid_keras2`, the function that Keras 2,
tf.js and ONNX call hard_sigmoid. All compute in the dtype of their argument. Where Keras is odd
its oddness is kept and noted, because trained weights were trained with it.
"""

import difflib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from refrnn.gates import Array


class Activation(NamedTuple):
    """One row of the table.

    name        as Keras writes it into a config
    value       f(x), x of any shape
    derivative  elementwise: f'(x), of the shape of x, one-sided where f has a corner;
                over the last axis: the Jacobian, one axis longer, [..., out, in];
                None for a function of the caller's, whose derivative is not known
    kind        "elementwise"; "rows": mixes the last axis; "halves": mixes it and halves its
                length; "parametric": needs further arguments, so it cannot stand in a layer
    """

    name: str
    value: Callable[..., Array]
    derivative: Callable[..., Array] | None
    kind: str = "elementwise"


# --- the two of every gate ---------------------------------------------------------------------


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), in the form that never overflows."""
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))


def d_sigmoid(x: Array) -> Array:
    """s (1 - s), with 1 - s taken as sigmoid(-x): no digits are lost for large x."""
    return sigmoid(x) * sigmoid(-x)


def tanh(x: Array) -> Array:
    return np.tanh(x)


def d_tanh(x: Array) -> Array:
    """1 / cosh(x)^2, written with e = exp(-2|x|): no digits are lost for large x."""
    e = np.exp(-2 * np.abs(x))
    return 4 * e / ((1 + e) * (1 + e))


# --- piecewise linear --------------------------------------------------------------------------


def linear(x: Array) -> Array:
    return x


def d_linear(x: Array) -> Array:
    return np.ones_like(x)


def _where(condition: Array, yes: Any, no: Any, like: Array) -> Array:
    """np.where in the dtype of `like`, constants included."""
    dtype = like.dtype
    return np.where(condition, np.asarray(yes, dtype), np.asarray(no, dtype))


def _keep_nan(x: Array, y: Array) -> Array:
    """y, with NaN wherever x is NaN: a comparison loses it, TensorFlow's min and max do not."""
    return np.where(np.isnan(x), x, y)


def relu(
    x: Array,
    negative_slope: float = 0.0,
    max_value: float | None = None,
    threshold: float = 0.0,
) -> Array:
    """max(x, 0). In general: x above `threshold` and at most `max_value`, else 0; and below
    `threshold`, negative_slope * (x - threshold). With `max_value` negative x gives 0 as well."""
    if negative_slope != 0 and max_value is None and threshold == 0:
        return leaky_relu(x, negative_slope)
    y = _where(x > threshold, x, 0, x) if threshold != 0 else np.maximum(x, 0)  # NaN stays
    if max_value is not None:
        y = np.minimum(np.maximum(y, 0), _constant(max_value, x))
    if negative_slope != 0:
        y = y - _constant(negative_slope, x) * np.maximum(_constant(threshold, x) - x, 0)
    return y


def d_relu(
    x: Array,
    negative_slope: float = 0.0,
    max_value: float | None = None,
    threshold: float = 0.0,
) -> Array:
    if negative_slope != 0 and max_value is None and threshold == 0:
        return d_leaky_relu(x, negative_slope)
    if max_value is None:
        above = x > threshold
        return _where(above, 1, negative_slope, x) if negative_slope else above.astype(x.dtype)
    rising = (x > threshold) & (x > 0) & (x < max_value)
    return _where(rising, 1, _where(x > threshold, 0, negative_slope, x), x)


def relu6(x: Array) -> Array:
    return relu(x, max_value=6.0)


def d_relu6(x: Array) -> Array:
    return d_relu(x, max_value=6.0)


def _constant(value: float, like: Array) -> Any:
    return np.asarray(value, like.dtype)[()]


def _single(value: float, like: Array) -> Any:
    """A constant that TensorFlow keeps in float32, in a float64 graph too."""
    return np.asarray(np.float32(value), like.dtype)[()]


def leaky_relu(x: Array, negative_slope: float = 0.2) -> Array:
    """x, or negative_slope * x below 0. The slope is a float32 in TensorFlow, also for float64."""
    return _keep_nan(x, _where(x > 0, x, _single(negative_slope, x) * x, x))


def d_leaky_relu(x: Array, negative_slope: float = 0.2) -> Array:
    return _where(x > 0, 1, _single(negative_slope, x), x)


def hard_tanh(x: Array) -> Array:
    return np.minimum(np.maximum(x, _constant(-1, x)), _constant(1, x))


def d_hard_tanh(x: Array) -> Array:
    return _where((x >= -1) & (x <= 1), 1, 0, x)


def hard_sigmoid(x: Array) -> Array:
    """relu6(x + 3) / 6: clip(x / 6 + 1/2, 0, 1). Keras 3's; it saturates at -3 and 3."""
    return relu6(x + 3) / 6


def d_hard_sigmoid(x: Array) -> Array:
    return _where((x > -3) & (x < 3), 1 / 6, 0, x)


def hard_sigmoid_keras2(x: Array) -> Array:
    """clip(0.2 x + 0.5, 0, 1). Keras 2's, tf.js's and ONNX's; it saturates at -2.5 and 2.5."""
    y = _constant(0.2, x) * x + _constant(0.5, x)
    return np.minimum(np.maximum(y, _constant(0, x)), _constant(1, x))


def d_hard_sigmoid_keras2(x: Array) -> Array:
    return _where((x > -2.5) & (x < 2.5), 0.2, 0, x)


def hard_shrink(x: Array, threshold: float = 0.5) -> Array:
    return _where(np.abs(x) > threshold, x, 0, x)  # NaN gives 0, as in TensorFlow


def d_hard_shrink(x: Array, threshold: float = 0.5) -> Array:
    return _where(np.abs(x) > threshold, 1, 0, x)


def soft_shrink(x: Array, threshold: float = 0.5) -> Array:
    a = _constant(threshold, x)
    return _where(x > a, x - a, _where(x < -a, x + a, 0, x), x)  # NaN gives 0, as in TensorFlow


d_soft_shrink = d_hard_shrink


def threshold(x: Array, threshold: float, default_value: float) -> Array:
    """x above `threshold`, else `default_value`."""
    return _where(x > threshold, x, default_value, x)


def d_threshold(x: Array, threshold: float, default_value: float) -> Array:
    return _where(x > threshold, 1, 0, x)


# --- smooth ------------------------------------------------------------------------------------


def elu(x: Array, alpha: float = 1.0) -> Array:
    below = np.expm1(np.minimum(x, 0))
    return _where(x > 0, x, below if alpha == 1 else _constant(alpha, x) * below, x)


def d_elu(x: Array, alpha: float = 1.0) -> Array:
    return _where(x > 0, 1, _constant(alpha, x) * np.exp(np.minimum(x, 0)), x)


def celu(x: Array, alpha: float = 1.0) -> Array:
    a = _constant(alpha, x)
    return np.maximum(x, 0) + a * np.expm1(np.minimum(x, 0) / a)


def d_celu(x: Array, alpha: float = 1.0) -> Array:
    return _where(x > 0, 1, np.exp(np.minimum(x, 0) / _constant(alpha, x)), x)


SELU_SCALE = 1.0507009873554805  # Klambauer et al. (2017), equation 14
SELU_ALPHA = 1.6732632423543772


def selu(x: Array) -> Array:
    below = _constant(SELU_SCALE * SELU_ALPHA, x) * np.expm1(np.minimum(x, 0))
    return _where(x > 0, _constant(SELU_SCALE, x) * x, below, x)


def d_selu(x: Array) -> Array:
    below = _constant(SELU_SCALE * SELU_ALPHA, x) * np.exp(np.minimum(x, 0))
    return _where(x > 0, SELU_SCALE, below, x)


def exponential(x: Array) -> Array:
    return np.exp(x)


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), in the form that never overflows."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def log_sigmoid(x: Array) -> Array:
    return -softplus(-x)


def d_log_sigmoid(x: Array) -> Array:
    return sigmoid(-x)


def softsign(x: Array) -> Array:
    return x / (1 + np.abs(x))


def d_softsign(x: Array) -> Array:
    d = 1 + np.abs(x)
    return 1 / (d * d)


def squareplus(x: Array, b: float = 4.0) -> Array:
    return (x + np.sqrt(x * x + _constant(b, x))) / 2


def d_squareplus(x: Array, b: float = 4.0) -> Array:
    return (1 + x / np.sqrt(x * x + _constant(b, x))) / 2


def silu(x: Array) -> Array:
    return x * sigmoid(x)


def d_silu(x: Array) -> Array:
    s = sigmoid(x)
    return s + x * d_sigmoid(x)


def hard_silu(x: Array) -> Array:
    return x * hard_sigmoid(x)


def d_hard_silu(x: Array) -> Array:
    return hard_sigmoid(x) + x * d_hard_sigmoid(x)


def mish(x: Array) -> Array:
    return x * tanh(softplus(x))


def d_mish(x: Array) -> Array:
    s = softplus(x)
    return tanh(s) + x * d_tanh(s) * sigmoid(x)


def tanh_shrink(x: Array) -> Array:
    return x - tanh(x)


def d_tanh_shrink(x: Array) -> Array:
    t = tanh(x)
    return t * t


_erfc64 = np.frompyfunc(math.erfc, 1, 1)


def _erfc(x: Array) -> Array:
    """1 - erf(x); NumPy has none, so each element goes through math.erfc in float64."""
    return np.asarray(_erfc64(x.astype(np.float64)), np.float64).astype(x.dtype)


def gelu(x: Array, approximate: bool = False) -> Array:
    """x Phi(x), Phi the standard normal's distribution function; or its tanh approximation.

    Constants are rounded to float32 as in TensorFlow, for float64 too: sqrt(1/2) in the exact form,
    0.044715 in the other. That is up to 5e-9 away from the textbook.
    """
    if approximate:
        inner = x + _single(0.044715, x) * (x * x * x)
        return x * (1 + tanh(_constant(math.sqrt(2 / math.pi), x) * inner)) / 2
    return x / 2 * _erfc(-x * _single(math.sqrt(0.5), x))


def d_gelu(x: Array, approximate: bool = False) -> Array:
    if approximate:
        k = _constant(math.sqrt(2 / math.pi), x)
        inner = k * (x + _single(0.044715, x) * (x * x * x))
        d_inner = k * (1 + 3 * _single(0.044715, x) * (x * x))
        return (1 + tanh(inner)) / 2 + x / 2 * d_tanh(inner) * d_inner
    scale = _single(math.sqrt(0.5), x)
    z = x * scale
    return _erfc(-z) / 2 + z * np.exp(-z * z) * _constant(1 / math.sqrt(math.pi), x)


def sparse_plus(x: Array) -> Array:
    middle = (x + 1) * (x + 1) / 4
    return _keep_nan(x, _where(x <= -1, 0, _where(x < 1, middle, x, x), x))


def d_sparse_plus(x: Array) -> Array:
    return _where(x <= -1, 0, _where(x < 1, (x + 1) / 2, 1, x), x)


def sparse_sigmoid(x: Array) -> Array:
    return _keep_nan(x, _where(x <= -1, 0, _where(x < 1, (x + 1) / 2, 1, x), x))


def d_sparse_sigmoid(x: Array) -> Array:
    return _where((x > -1) & (x < 1), 0.5, 0, x)


# --- over the last axis ------------------------------------------------------------------------


def softmax(x: Array) -> Array:
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def d_softmax(x: Array) -> Array:
    s = softmax(x)
    return s[..., :, None] * (_identity(x) - s[..., None, :])


def log_softmax(x: Array) -> Array:
    shifted = x - np.max(x, axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def d_log_softmax(x: Array) -> Array:
    return _identity(x) - softmax(x)[..., None, :]


def _identity(x: Array) -> Array:
    return np.eye(x.shape[-1], dtype=x.dtype)


def _sparsemax(x: Array) -> tuple[Array, Array, Array]:
    """Value, support and rank (1 for the largest) of each entry; see `sparsemax`."""
    order = np.argsort(-x, axis=-1, kind="stable")
    rank = np.argsort(order, axis=-1, kind="stable") + 1
    ordered = np.take_along_axis(x, order, axis=-1)
    total = np.cumsum(ordered, axis=-1)
    k = np.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    support = ordered - (total - 1) / k > 0
    size = np.sum(support, axis=-1, keepdims=True)
    edge = (np.sum(np.where(support, total, 0), axis=-1, keepdims=True) - 1) / size.astype(x.dtype)
    return np.maximum(x - edge, 0), rank <= size, rank


def sparsemax(x: Array) -> Array:
    """max(x - edge, 0), with the edge as Keras 3 computes it on TensorFlow.

    Martins & Astudillo (2016) put the edge at (sum of the k entries of the support - 1) / k, so
    that the outputs sum to 1. Keras adds up the k partial sums instead: for a support of more
    than one entry the outputs sum to less than 1, down to 0.
    """
    return _sparsemax(x)[0]


def d_sparsemax(x: Array) -> Array:
    value, support, rank = _sparsemax(x)
    size = np.sum(support, axis=-1, keepdims=True)
    # the entry of rank r is part of the partial sums r ... k
    d_edge = (np.where(support, size - rank + 1, 0) / size).astype(x.dtype)
    inside = (value > 0).astype(x.dtype)
    return inside[..., :, None] * (_identity(x) - d_edge[..., None, :])


def glu(x: Array) -> Array:
    """a sigmoid(b), a and b the two halves of the last axis. Dauphin et al. (2017)."""
    if x.shape[-1] % 2:
        raise ValueError(
            f"glu: the last axis has length {x.shape[-1]}, expected an even one,"
            " because it is split into a half to gate and a half that gates"
        )
    a, b = np.split(x, 2, axis=-1)
    return a * sigmoid(b)


def d_glu(x: Array) -> Array:
    a, b = np.split(x, 2, axis=-1)
    eye = _identity(a)
    return np.concatenate([eye * sigmoid(b)[..., None], eye * (a * d_sigmoid(b))[..., None]], -1)


# --- the table ---------------------------------------------------------------------------------

_ROWS = (
    Activation("linear", linear, d_linear),
    Activation("tanh", tanh, d_tanh),
    Activation("sigmoid", sigmoid, d_sigmoid),
    Activation("relu", relu, d_relu),
    Activation("relu6", relu6, d_relu6),
    Activation("leaky_relu", leaky_relu, d_leaky_relu),
    Activation("elu", elu, d_elu),
    Activation("celu", celu, d_celu),
    Activation("selu", selu, d_selu),
    Activation("softplus", softplus, sigmoid),
    Activation("log_sigmoid", log_sigmoid, d_log_sigmoid),
    Activation("softsign", softsign, d_softsign),
    Activation("squareplus", squareplus, d_squareplus),
    Activation("silu", silu, d_silu),
    Activation("gelu", gelu, d_gelu),
    Activation("mish", mish, d_mish),
    Activation("hard_sigmoid", hard_sigmoid, d_hard_sigmoid),
    Activation("hard_sigmoid_keras2", hard_sigmoid_keras2, d_hard_sigmoid_keras2),
    Activation("hard_silu", hard_silu, d_hard_silu),
    Activation("hard_tanh", hard_tanh, d_hard_tanh),
    Activation("exponential", exponential, exponential),
    Activation("tanh_shrink", tanh_shrink, d_tanh_shrink),
    Activation("hard_shrink", hard_shrink, d_hard_shrink),
    Activation("soft_shrink", soft_shrink, d_soft_shrink),
    Activation("sparse_plus", sparse_plus, d_sparse_plus),
    Activation("sparse_sigmoid", sparse_sigmoid, d_sparse_sigmoid),
    Activation("softmax", softmax, d_softmax, "rows"),
    Activation("log_softmax", log_softmax, d_log_softmax, "rows"),
    Activation("sparsemax", sparsemax, d_sparsemax, "rows"),
    Activation("glu", glu, d_glu, "halves"),
    Activation("threshold", threshold, d_threshold, "parametric"),
)

ACTIVATIONS: dict[str, Activation] = {row.name: row for row in _ROWS}
ACTIVATIONS["swish"] = ACTIVATIONS["silu"]
ACTIVATIONS["hard_swish"] = ACTIVATIONS["hard_silu"]


def get(identifier: "str | Activation | Callable[..., Array] | None") -> Activation:
    """The activation that `identifier` names, as `keras.activations.get` finds it.

    identifier  a name of the table (case-sensitive), None for linear, a row of the table, or a
                function of one array

    Raises ValueError for a name that is not in the table.
    """
    if identifier is None:
        return ACTIVATIONS["linear"]
    if isinstance(identifier, Activation):
        return identifier
    if isinstance(identifier, str):
        if identifier in ACTIVATIONS:
            return ACTIVATIONS[identifier]
        near = difflib.get_close_matches(identifier, ACTIVATIONS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(
            f"activation {identifier!r} is not known{hint}; expected one of"
            f" {', '.join(sorted(ACTIVATIONS))}, None for linear, or a function of one array"
        )
    if callable(identifier):
        return Activation(getattr(identifier, "__name__", "function"), identifier, None)
    raise ValueError(
        f"activation {identifier!r} is a {type(identifier).__name__}, expected a name, None for"
        " linear, or a function of one array"
    )
