"""Activations as layers: any by name, and those with settings or weights of their own."""

from typing import Any, ClassVar

import numpy as np

from refrnn import activations, checks
from refrnn.gates import Array
from refrnn.layers.base import REQUIRED, Layer
from refrnn.reference import QUIET


def number(who: str, what: str, given: Any, least: float | None = None) -> Any:
    """A finite number, at least `least`; as it was given, for the config."""
    good = isinstance(given, int | float | np.number) and not isinstance(given, bool)
    if not good or not np.isfinite(given) or (least is not None and given < least):
        wanted = "a number" if least is None else f"a number of at least {least}"
        raise ValueError(f"{who}: {what} is {given!r}, expected {wanted}")
    return given


class _Elementwise(Layer):
    """A function without weights, of arrays of any shape."""

    supports_masking = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.built = True

    def value(self, x: Array) -> Array:
        raise NotImplementedError

    def call(self, inputs: Any, training: bool = False) -> Array:
        x = checks.numbers(self.who, "the input", inputs, self.dtype)
        with QUIET():
            return self.value(x)


class Activation(_Elementwise):
    """An activation of the table, or a function of the caller's, as `keras.layers.Activation`.

    Whole numbers are computed with in the layer's dtype.
    """

    ARGUMENTS: ClassVar = {"activation": REQUIRED}
    activation: activations.Activation

    def value(self, x: Array) -> Array:
        y = self.activation.value(x)
        return y.copy() if y is x else y


class ReLU(_Elementwise):
    """max(x, 0) with a slope below, a ceiling and a threshold, as `keras.layers.ReLU`.

    max_value       what no output exceeds; None for no limit
    negative_slope  below the threshold the output is negative_slope * (x - threshold)
    threshold       at or below it the output is 0, or on the slope
    """

    ARGUMENTS: ClassVar = {"max_value": None, "negative_slope": 0.0, "threshold": 0.0}
    max_value: float | None
    negative_slope: float
    threshold: float

    def _convert(self, argument: str, value: Any) -> Any:
        if argument in self.ARGUMENTS and not (argument == "max_value" and value is None):
            return number(self.who, argument, value, least=0)
        return super()._convert(argument, value)

    def value(self, x: Array) -> Array:
        return activations.relu(x, self.negative_slope, self.max_value, self.threshold)


class LeakyReLU(_Elementwise):
    """x, or negative_slope * x below 0, as `keras.layers.LeakyReLU`.

    The default slope is 0.3; the activation "leaky_relu" has 0.2. As in TensorFlow the slope is a
    float32, for float64 too.
    """

    ARGUMENTS: ClassVar = {"negative_slope": 0.3}
    negative_slope: float

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "negative_slope":
            return number(self.who, argument, value, least=0)
        return super()._convert(argument, value)

    def value(self, x: Array) -> Array:
        return activations.leaky_relu(x, self.negative_slope)


class ELU(_Elementwise):
    """x, or alpha * (exp(x) - 1) below 0, as `keras.layers.ELU`. Clevert et al. (2016)."""

    ARGUMENTS: ClassVar = {"alpha": 1.0}
    alpha: float

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "alpha":
            return number(self.who, argument, value)
        return super()._convert(argument, value)

    def value(self, x: Array) -> Array:
        return activations.elu(x, self.alpha)


class PReLU(Layer):
    """x, or alpha * x below 0, alpha a weight; as `keras.layers.PReLU`. He et al. (2015).

    Weights: alpha, of the shape of a row, 1 along each of shared_axes (counted from 1, the batch
    being axis 0). A time axis that is not shared fixes the number of steps.
    """

    ARGUMENTS: ClassVar = {
        "alpha_initializer": "Zeros",
        "alpha_regularizer": None,
        "alpha_constraint": None,
        "shared_axes": None,
    }
    supports_masking = True
    alpha: Array
    shared_axes: list[int] | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mixes_time = 1 not in (self.shared_axes or [])

    def _convert(self, argument: str, value: Any) -> Any:
        if argument != "shared_axes" or value is None:
            return super()._convert(argument, value)
        given = list(value) if isinstance(value, list | tuple) else [value]
        return [checks.count(self.who, "an axis of shared_axes", axis) for axis in given]

    def weight_shapes(self, features: Any) -> dict[str, tuple[int, ...]]:
        return {"alpha": features}

    def _features(self, weights: list[Array]) -> Any:
        """For this layer the shape of alpha."""
        return weights[0].shape if weights else ()

    def _build_for(self, features: Any) -> None:
        self.alpha = self.add_weight(features, vars(self)["alpha_initializer"], name="alpha")
        self.mixes_time = self.mixes_time and self.alpha.ndim > 1
        self.built = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = list(input_shape[1:])
        for axis in self.shared_axes or []:
            if axis > len(shape):
                raise ValueError(
                    f"{self.who}: shared_axes has {axis}, expected 1 to {len(shape)}, the axes of"
                    f" the input {tuple(input_shape)} behind the batch"
                )
            shape[axis - 1] = 1
        if None in shape:
            raise ValueError(
                f"{self.who}: built for shape {tuple(input_shape)}, expected known sizes along all"
                " axes that are not in shared_axes, because alpha has an entry for each"
            )
        if not self.built:
            self._build_for(tuple(shape))

    def call(self, inputs: Any, training: bool = False) -> Array:
        x = checks.numbers(self.who, "the input", inputs, self.dtype)
        if not self.built:
            self.build(x.shape)
        shared = self.shared_axes or []
        wanted = tuple(
            x.shape[k] if k in shared and k < x.ndim else n
            for k, n in enumerate(self.alpha.shape, 1)
        )
        if x.shape[1:] != wanted:
            raise ValueError(
                f"{self.who}: the input has shape {x.shape}, expected rows of shape {wanted},"
                f" because alpha has shape {self.alpha.shape}"
            )
        with QUIET():
            return activations.relu(x) + -self.alpha * activations.relu(-x)


class Softmax(_Elementwise):
    """Softmax over one axis or over several together, as `keras.layers.Softmax`.

    mask  of the shape of the input, or one that broadcasts to it along the last axes: where it is
          False, or a number not above 0.5, the output is 0, and the others sum to 1. So the mask
          (B, T) of a sequence is refused as in Keras, unless it happens to fit.
    """

    ARGUMENTS: ClassVar = {"axis": -1}
    axis: int | list[int] | tuple[int, ...]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mixes_time = any(axis == 1 or axis < -1 for axis in self._axes())

    def _axes(self) -> tuple[int, ...]:
        return tuple(self.axis) if isinstance(self.axis, list | tuple) else (self.axis,)

    def _convert(self, argument: str, value: Any) -> Any:
        if argument != "axis":
            return super()._convert(argument, value)
        given = value if isinstance(value, list | tuple) else [value]
        if not given or any(isinstance(k, bool) or not isinstance(k, int) for k in given):
            raise ValueError(
                f"{self.who}: axis is {value!r}, expected a whole number, or a list of them"
            )
        return value

    def call(self, inputs: Any, training: bool = False, mask: Any = None) -> Array:
        x = checks.numbers(self.who, "the input", inputs, self.dtype)
        keep = None if mask is None else self._kept(mask, x.shape)
        if keep is not None:
            low = -3e4 if self.dtype.name == "float16" else -1e9
            x = np.where(keep, x, np.asarray(low, self.dtype))
        with QUIET():
            y = self.value(x)
        return y if keep is None else np.where(keep, y, np.asarray(0, self.dtype))

    def _kept(self, given: Any, shape: tuple[int, ...]) -> Array:
        """The mask as booleans. As in Keras a number counts where it is above 0.5."""
        mask = checks.array(self.who, "the mask", given)
        fits = mask.ndim <= len(shape) and all(
            m in (1, n) for m, n in zip(mask.shape[::-1], shape[::-1], strict=False)
        )
        if not fits:
            raise ValueError(
                f"{self.who}: the mask has shape {mask.shape}, expected the input's {shape} or one"
                " that broadcasts to it along the last axes, because it says which entries to leave"
                " out of the sum"
            )
        return mask if mask.dtype == bool else mask > np.asarray(0.5).astype(mask.dtype)

    def value(self, x: Array) -> Array:
        if any(not -x.ndim <= axis < x.ndim for axis in self._axes()):
            raise ValueError(
                f"{self.who}: axis is {self.axis}, expected axes of the input, whose shape is"
                f" {x.shape}"
            )
        axes = sorted({axis % x.ndim for axis in self._axes()})
        if not x.size:
            return x.copy()
        last = range(x.ndim - len(axes), x.ndim)
        moved = np.moveaxis(x, axes, last)
        rows = np.ascontiguousarray(moved).reshape(*moved.shape[: -len(axes)], -1)
        return np.ascontiguousarray(
            np.moveaxis(activations.softmax(rows).reshape(moved.shape), last, axes)
        )
