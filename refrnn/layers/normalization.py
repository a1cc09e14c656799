"""Normalization as in inference: by stored statistics, or by those of each row alone."""

from typing import Any, ClassVar

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers.activation import number
from refrnn.layers.base import Layer
from refrnn.reference import QUIET


def wide(x: Array) -> Array:
    """x in at least float32: Keras computes statistics of half precision there."""
    return x.astype(np.float32) if x.dtype.itemsize == 2 else x


def total(x: Array, axes: tuple[int, ...]) -> Array:
    """The sum over axes, which stay with size 1, in an order that depends on their sizes alone.

    NumPy sums along the last axis of a contiguous array row by row, each in the same order however
    many rows there are; along other axes the order could depend on them.
    """
    last = range(x.ndim - len(axes), x.ndim)
    rows = np.ascontiguousarray(np.moveaxis(x, axes, last))
    kept = rows.shape[: x.ndim - len(axes)]
    count = int(np.prod([x.shape[axis] for axis in axes]))
    sums = wide(rows).reshape(*kept, count).sum(axis=-1)
    return sums.astype(x.dtype).reshape([1 if k in axes else n for k, n in enumerate(x.shape)])


def _rsqrt(variance: Array, epsilon: float) -> Array:
    return 1 / np.sqrt(variance + np.asarray(epsilon, variance.dtype))


class _Normalization(Layer):
    """What the two share: weights of the shape of the normalized axes."""

    supports_masking = True
    axis: Any
    epsilon: float
    center: bool
    scale: bool

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "epsilon":
            return number(self.who, argument, value, least=0)
        return super()._convert(argument, value)

    def _axes(self) -> tuple[int, ...]:
        return tuple(self.axis) if isinstance(self.axis, list | tuple) else (self.axis,)

    def _features(self, weights: list[Array]) -> Any:
        """For these layers the shape of each weight."""
        return weights[0].shape if weights else ()

    def _initializer(self, weight: str) -> str:
        """The argument that says how to draw a weight."""
        return f"{weight}_initializer"

    def _build_for(self, features: Any) -> None:
        for name, shape in self.weight_shapes(features).items():
            draw = vars(self)[self._initializer(name)]
            setattr(self, name, self.add_weight(shape, draw, name=name))
        self.built = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        rank, axes = len(input_shape), self._axes()
        if any(not -rank <= axis < rank or axis % rank == 0 for axis in axes):
            raise ValueError(
                f"{self.who}: axis is {self.axis}, expected axes of the input"
                f" {tuple(input_shape)} other than the batch"
            )
        shape = tuple(input_shape[axis] for axis in axes)
        if None in shape:
            raise ValueError(
                f"{self.who}: built for shape {tuple(input_shape)}, expected known sizes along"
                f" axis {self.axis}, because the weights have an entry for each"
            )
        if not self.built:
            self._build_for(shape)
        for name, old in zip(self.weight_names, self.weights, strict=True):
            if old.shape != shape:
                raise ValueError(
                    f"{self.who}: the input has shape {tuple(input_shape)}, so {shape} along axis"
                    f" {self.axis}, expected {old.shape}, the shape of {name}"
                )

    def _along(self, weight: Array | None, x: Array) -> Array | None:
        """A weight shaped to lie along its axes of x, in the dtype of x."""
        if weight is None:
            return None
        axes = {axis % x.ndim for axis in self._axes()}
        return weight.astype(x.dtype).reshape(
            [n if k in axes else 1 for k, n in enumerate(x.shape)]
        )


class BatchNormalization(_Normalization):
    """gamma (x - moving_mean) / sqrt(moving_variance + epsilon) + beta.

    As `keras.layers.BatchNormalization` in inference. Ioffe & Szegedy (2015). Weights, each with
    an entry for each place along `axis`: gamma (with scale), beta (with center), moving_mean,
    moving_variance; with renorm, which changes training only, three more.

    training=True is refused, unless trainable is False: it would use the batch's own statistics
    and change the moving ones.
    """

    ARGUMENTS: ClassVar = {
        "axis": -1,
        "momentum": 0.99,
        "epsilon": 1e-3,
        "center": True,
        "scale": True,
        "beta_initializer": "zeros",
        "gamma_initializer": "ones",
        "moving_mean_initializer": "zeros",
        "moving_variance_initializer": "ones",
        "beta_regularizer": None,
        "gamma_regularizer": None,
        "beta_constraint": None,
        "gamma_constraint": None,
        "renorm": False,
        "renorm_clipping": None,
        "renorm_momentum": 0.99,
        "synchronized": False,
    }
    moving_mean: Array
    moving_variance: Array
    gamma: Array | None = None
    beta: Array | None = None
    renorm: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mixes_time = self.axis == 1 or self.axis < -1

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "axis":
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise ValueError(f"{self.who}: axis is {value!r}, expected a whole number")
            return int(value)
        if argument in ("momentum", "epsilon", "renorm_momentum"):
            return float(number(self.who, argument, value, least=0))
        if argument == "renorm_clipping" and value is not None:
            known = {"rmax", "rmin", "dmax"}
            if not isinstance(value, dict) or set(value) - known:
                raise ValueError(
                    f"{self.who}: renorm_clipping is {value!r}, expected None or a dictionary with"
                    f" {', '.join(sorted(known))}"
                )
        return super()._convert(argument, value)

    def weight_shapes(self, features: Any) -> dict[str, tuple[int, ...]]:
        names = ["gamma"] * self.scale + ["beta"] * self.center
        names += ["moving_mean", "moving_variance"]
        if self.renorm:
            names += ["moving_stddev", "renorm_mean", "renorm_stddev"]
        return dict.fromkeys(names, features)

    def _initializer(self, weight: str) -> str:
        same = {"renorm_mean": "moving_mean"} | dict.fromkeys(
            ("moving_stddev", "renorm_stddev"), "moving_variance"
        )
        return super()._initializer(same.get(weight, weight))

    def _build_for(self, features: Any) -> None:
        super()._build_for(features)
        for name, array in zip(self.weight_names, self.weights, strict=True):
            if name.endswith("stddev"):  # drawn as a variance
                array.flags.writeable = True
                np.sqrt(array, out=array)
                array.flags.writeable = False

    def call(self, inputs: Any, training: bool = False, mask: Any = None) -> Array:
        x = checks.numbers(self.who, "the input", inputs, self.dtype)
        if mask is not None and np.ndim(mask) != x.ndim - 1:
            raise ValueError(
                f"{self.who}: the mask has shape {np.shape(mask)}, expected one axis less than the"
                f" input {x.shape}"
            )
        if training and self.trainable:
            raise NotImplementedError(
                f"{self.who}: training=True, expected training=False or trainable=False, because"
                " refrnn normalizes by the stored statistics, never by those of the batch"
            )
        self.build(x.shape)
        x = wide(x)
        mean, variance = self._along(self.moving_mean, x), self._along(self.moving_variance, x)
        gamma, beta = self._along(self.gamma, x), self._along(self.beta, x)
        assert mean is not None
        assert variance is not None
        with QUIET():
            factor = _rsqrt(variance, self.epsilon)
            if gamma is not None:
                factor = factor * gamma
            shift = -mean * factor if beta is None else beta - mean * factor
            return (x * factor + shift).astype(self.dtype)


class LayerNormalization(_Normalization):
    """gamma (x - mean) / sqrt(variance + epsilon) + beta, mean and variance over `axis` of a row.

    As `keras.layers.LayerNormalization`. Ba et al. (2016). Weights, each of the sizes along
    `axis`: gamma (with scale), beta (with center). With rms_scaling x is not shifted: neither mean
    nor beta.

    As in Keras floats are computed with in their own dtype, at least float32, not in the layer's,
    to which only the output is cast.
    """

    ARGUMENTS: ClassVar = {
        "axis": -1,
        "epsilon": 1e-3,
        "center": True,
        "scale": True,
        "beta_initializer": "zeros",
        "gamma_initializer": "ones",
        "beta_regularizer": None,
        "gamma_regularizer": None,
        "beta_constraint": None,
        "gamma_constraint": None,
    }
    KEYWORDS: ClassVar = {**Layer.KEYWORDS, "rms_scaling": False}
    gamma: Array | None = None
    beta: Array | None = None
    rms_scaling: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mixes_time = any(axis == 1 or axis < -1 for axis in self._axes())
        self.built = not self.weight_shapes(())

    def _convert(self, argument: str, value: Any) -> Any:
        if argument != "axis":
            return super()._convert(argument, value)
        given = list(value) if isinstance(value, list | tuple) else [value]
        if (
            not given
            or any(isinstance(k, bool) or not isinstance(k, int) for k in given)
            or len({k < 0 for k in given}) > 1
        ):
            raise ValueError(
                f"{self.who}: axis is {value!r}, expected a whole number, or a list of them that"
                " all count from the front or all from the back"
            )
        return given if isinstance(value, list | tuple) else value

    def _axes(self) -> tuple[int, ...]:
        return tuple(sorted(super()._axes()))

    def weight_shapes(self, features: Any) -> dict[str, tuple[int, ...]]:
        names = ["gamma"] * (self.scale or self.rms_scaling)
        names += ["beta"] * (self.center and not self.rms_scaling)
        return dict.fromkeys(names, features)

    def call(self, inputs: Any, training: bool = False) -> Array:
        given = checks.array(self.who, "the input", inputs)
        own = given.dtype if checks.is_float(given.dtype) else self.dtype
        x = wide(checks.numbers(self.who, "the input", given, own))
        self.build(x.shape)
        gamma, beta = self._along(self.gamma, x), self._along(self.beta, x)
        axes = tuple(axis % x.ndim for axis in self._axes())
        count = np.asarray(np.prod([x.shape[axis] for axis in axes]), x.dtype)
        with QUIET():
            mean = total(x, axes) / count
            variance = total(np.square(x - mean), axes) / count
            factor = _rsqrt(variance, self.epsilon)
            if gamma is not None:
                factor = factor * gamma
            if self.rms_scaling:
                return (x * factor).astype(self.dtype)
            shift = -mean * factor if beta is None else beta - mean * factor
            return (x * factor + shift).astype(self.dtype)
