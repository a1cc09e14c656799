"""Normalization as in inference: by stored statistics, or by those of each row alone."""

from typing import Any, ClassVar

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers.activation import number
from refrnn.layers.base import REQUIRED, Layer
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


def moments(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Mean and variance over axes, which stay with size 1."""
    count = np.asarray(np.prod([x.shape[axis] for axis in axes]), x.dtype)
    mean = total(x, axes) / count
    return mean, total(np.square(x - mean), axes) / count


def _scaled(x: Array, mean: Array, factor: Array, gamma: Array | None, beta: Array | None) -> Array:
    """gamma (x - mean) factor + beta, in Keras's order."""
    if gamma is not None:
        factor = factor * gamma
    shift = -mean * factor if beta is None else beta - mean * factor
    return np.asarray(x * factor + shift)


def own_floats(who: str, inputs: Any, dtype: np.dtype[Any]) -> Array:
    """The input in its own dtype where that is a float, else in the layer's; float32 at least."""
    given = checks.array(who, "the input", inputs)
    own = given.dtype if checks.is_float(given.dtype) else dtype
    return wide(checks.numbers(who, "the input", given, own))


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
            draw, trained = vars(self)[self._initializer(name)], name in ("gamma", "beta")
            setattr(self, name, self.add_weight(shape, draw, trainable=trained, name=name))
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
            return _scaled(x, mean, factor, gamma, beta).astype(self.dtype)


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
        x = own_floats(self.who, inputs, self.dtype)
        self.build(x.shape)
        gamma, beta = self._along(self.gamma, x), self._along(self.beta, x)
        with QUIET():
            mean, variance = moments(x, tuple(axis % x.ndim for axis in self._axes()))
            factor = _rsqrt(variance, self.epsilon)
            if self.rms_scaling:
                return (x * (factor if gamma is None else factor * gamma)).astype(self.dtype)
            return _scaled(x, mean, factor, gamma, beta).astype(self.dtype)


class GroupNormalization(_Normalization):
    """As `LayerNormalization`, over each of `groups` of channels and all other axes of a row.

    As `keras.layers.GroupNormalization`. Wu & He (2018). Weights, each with an entry for each
    place along `axis`: gamma (with scale), beta (with center).

    groups  how many; -1 for a group for each place along `axis`

    As in Keras floats are computed with in their own dtype, at least float32, not in the layer's,
    to which only the output is cast.
    """

    ARGUMENTS: ClassVar = {
        "groups": 32,
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
    mixes_time = True
    gamma: Array | None = None
    beta: Array | None = None
    groups: int

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "groups" and value != -1:
            return checks.count(self.who, argument, value)
        if argument == "axis" and (isinstance(value, bool) or not isinstance(value, int)):
            raise ValueError(f"{self.who}: axis is {value!r}, expected a whole number")
        return super()._convert(argument, value)

    def weight_shapes(self, features: Any) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(["gamma"] * self.scale + ["beta"] * self.center, features)

    def _groups(self, size: int) -> int:
        """How many groups there are of `size` channels, or ValueError."""
        groups = size if self.groups == -1 else self.groups
        if size % groups or not size:
            raise ValueError(
                f"{self.who}: the input has {size} entries along axis {self.axis}, expected a"
                f" multiple of groups, {groups}"
            )
        return groups

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        rank = len(input_shape)
        size = input_shape[self.axis] if -rank <= self.axis < rank else None
        if size is not None:
            self._groups(size)
        super().build(input_shape)

    def call(self, inputs: Any, training: bool = False) -> Array:
        x = own_floats(self.who, inputs, self.dtype)
        self.build(x.shape)
        axis = self.axis % x.ndim
        groups = self._groups(x.shape[axis])
        split = [*x.shape[:axis], groups, x.shape[axis] // groups, *x.shape[axis + 1 :]]
        gamma, beta = self._along(self.gamma, x), self._along(self.beta, x)
        with QUIET():
            mean, variance = moments(
                x.reshape(split), tuple(k for k in range(1, x.ndim + 1) if k != axis)
            )
            one = [1] * x.ndim
            one[0], one[axis] = len(x), x.shape[axis]
            each = np.repeat(_rsqrt(variance, self.epsilon), split[axis + 1], axis=axis + 1)
            factor = each.reshape(one)
            mean = np.repeat(mean, split[axis + 1], axis=axis + 1).reshape(one)
            return _scaled(x, mean, factor, gamma, beta).astype(self.dtype)


class UnitNormalization(Layer):
    """x / |x|, the length over `axis` of a row; as `keras.layers.UnitNormalization`.

    As in Keras a row of zeros stays zeros, in float16 becomes NaN.

    axis  a whole number, or a list of them, other than the batch
    """

    ARGUMENTS: ClassVar = {"axis": -1}
    supports_masking = True
    axis: int | list[int]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.built = True
        self.mixes_time = any(axis == 1 or axis < -1 for axis in self._axes())

    def _axes(self) -> list[int]:
        return self.axis if isinstance(self.axis, list) else [self.axis]

    def _convert(self, argument: str, value: Any) -> Any:
        if argument != "axis":
            return super()._convert(argument, value)
        given = list(value) if isinstance(value, list | tuple) else [value]
        if not given or any(isinstance(k, bool) or not isinstance(k, int) for k in given):
            raise ValueError(
                f"{self.who}: axis is {value!r}, expected a whole number, or a list of them"
            )
        return given if isinstance(value, list | tuple) else value

    def call(self, inputs: Any, training: bool = False) -> Array:
        x = checks.numbers(self.who, "the input", inputs, self.dtype)
        if any(not -x.ndim <= axis < x.ndim or axis % x.ndim == 0 for axis in self._axes()):
            raise ValueError(
                f"{self.who}: axis is {self.axis}, expected axes of the input {x.shape} other than"
                " the batch"
            )
        axes = tuple(sorted({axis % x.ndim for axis in self._axes()}))
        with QUIET():
            inverse = 1 / np.sqrt(total(np.square(x), axes))
            return x * np.minimum(inverse, np.asarray(1e12).astype(x.dtype))


class Rescaling(Layer):
    """x * scale + offset, as `keras.layers.Rescaling`.

    scale, offset  numbers, or arrays that broadcast to the input along the last axes. As in Keras
                   Python's floats are rounded to float32, in a float64 layer too; arrays are not.
    """

    ARGUMENTS: ClassVar = {"scale": REQUIRED, "offset": 0.0}
    supports_masking = True
    scale: Any
    offset: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.built = True
        self.mixes_time = max(np.ndim(self.scale), np.ndim(self.offset)) > 1

    def _convert(self, argument: str, value: Any) -> Any:
        if argument not in self.ARGUMENTS:
            return super()._convert(argument, value)
        if isinstance(value, dict) and isinstance(value.get("config"), dict):  # a stored array
            value = np.asarray(value["config"].get("value"), value["config"].get("dtype"))
        checks.numbers(self.who, argument, value, self.dtype)
        return value

    def _store(self, argument: str, value: Any) -> Any:
        if argument not in self.ARGUMENTS or not isinstance(value, np.ndarray):
            return super()._store(argument, value)
        return {
            "class_name": "__numpy__",
            "config": {"value": value.tolist(), "dtype": value.dtype.name},
        }

    def _rounded(self, value: Any) -> Array:
        """A setting in the layer's dtype, through that which Keras takes it in."""
        found = np.asarray(value)
        if found.dtype.kind == "f" and not isinstance(value, np.ndarray | np.generic):
            found = found.astype(np.float32)
        return found.astype(self.dtype)

    def call(self, inputs: Any, training: bool = False) -> Array:
        x = checks.numbers(self.who, "the input", inputs, self.dtype)
        scale, offset = self._rounded(self.scale), self._rounded(self.offset)
        for name, part in (("scale", scale), ("offset", offset)):
            pairs = zip(part.shape[::-1], x.shape[::-1], strict=False)
            if part.ndim > x.ndim or any(m not in (1, n) for m, n in pairs):
                raise ValueError(
                    f"{self.who}: the input has shape {x.shape}, expected one that {name}, of shape"
                    f" {part.shape}, broadcasts to along the last axes"
                )
        with QUIET():
            return x * scale + offset
