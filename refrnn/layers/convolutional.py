"""Convolutions: a dense layer over the places of each window, or of each channel alone."""

from typing import Any, ClassVar

import numpy as np

from refrnn import checks
from refrnn.cells import dot
from refrnn.gates import Array
from refrnn.layers.base import REQUIRED
from refrnn.layers.normalization import wide
from refrnn.layers.reshaping import back
from refrnn.layers.windows import Windowed, Windows, laid, not_both, seen
from refrnn.reference import QUIET


def convolve(x: Array, kernel: Array, along: list[Windows]) -> Array:
    """x (B, sizes, C) convolved with kernel (sizes of a window, C, filters).

    Each element is summed over the places of its window, and over the channels at each, in order:
    in every bit it depends on that window and on the kernel alone.
    """
    found = seen(x, along)
    width, filters = found.shape[-2] * found.shape[-1], kernel.shape[-1]
    rows = found.reshape(found.size // width, width)
    return dot(rows, kernel.reshape(width, filters)).reshape(*found.shape[:-2], filters)


def convolve_apart(x: Array, kernel: Array, along: list[Windows]) -> Array:
    """Each channel of x (B, sizes, C) convolved alone, by M filters: kernel (..., C, M).

    Summed over the places of a window in order; channel c and filter m give channel c * M + m.
    """
    C, M = kernel.shape[-2:]
    places = np.moveaxis(seen(wide(x), along), -2, 0)  # (places, B, counts, C)
    y = np.zeros((*places.shape[1:], M), places.dtype)
    for place, filters in zip(places, wide(kernel).reshape(-1, C, M), strict=True):
        y = y + place[..., None] * filters
    return y.reshape(*places.shape[1:-1], C * M).astype(x.dtype)


def _arguments(head: dict[str, Any], weights: tuple[str, ...], **between: Any) -> dict[str, Any]:
    """The arguments of a convolution in Keras's order; weights by the names of their settings."""
    return {
        **head,
        **between,
        "activation": None,
        "use_bias": True,
        **{f"{name}_initializer": "glorot_uniform" for name in weights},
        "bias_initializer": "zeros",
        **{f"{name}_regularizer": None for name in (*weights, "bias", "activity")},
        **{f"{name}_constraint": None for name in (*weights, "bias")},
    }


class _Convolution(Windowed):
    """What all share.

    kernel_size    the size of a window
    strides        from one window to the next
    padding        "valid": windows inside the input only; "same": one for every stride
    data_format    "channels_last", or "channels_first" for (batch, channels, ...)
    dilation_rate  how far apart the places of a window are
    """

    SETTINGS: ClassVar[dict[str, str]]  # weight -> the name of its settings, before _initializer
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str
    dilation_rate: tuple[int, ...]
    activation: Any
    use_bias: bool
    bias: Array | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        alone = self.kernel_size[0] == self.strides[0] == 1
        self.mixes_time = not alone or self.data_format == "channels_first"

    def _convert(self, argument: str, value: Any) -> Any:
        if argument in ("filters", "groups", "depth_multiplier"):
            return checks.count(self.who, argument, value)
        return super()._convert(argument, value)

    def _taken(self, kernel: Array) -> int:
        """How many channels the input has for a kernel, the first of the weights."""
        return kernel.shape[-2]

    def _features(self, weights: list[Array]) -> int:
        fits = bool(weights) and weights[0].ndim == self.SPATIAL + 2
        return self._taken(weights[0]) if fits else 0

    def _build_for(self, features: int) -> None:
        for name, shape in self.weight_shapes(features).items():
            draw = vars(self)[f"{self.SETTINGS.get(name, name)}_initializer"]
            setattr(self, name, self.add_weight(shape, draw, name=name))
        self.built = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        sizes = list(input_shape)
        if self.data_format == "channels_first":
            sizes.append(sizes.pop(1))
        features = checks.features(self.who, tuple(sizes))
        if not self.built:
            self._check_features(features)
            self._build_for(features)
        elif features != self._taken(self.weights[0]):
            raise ValueError(
                f"{self.who}: the input has {features} features, expected"
                f" {self._taken(self.weights[0])}, because its kernel has shape"
                f" {self.weights[0].shape}"
            )

    def _check_features(self, features: int) -> None:
        """Refuse to build for a number of features that cannot be."""

    def convolved(self, x: Array, along: list[Windows]) -> Array:
        raise NotImplementedError

    def call(self, inputs: Any, training: bool = False) -> Array:
        x = self._numbers(inputs)
        window = self.kernel_size, self.strides, self.dilation_rate, self.padding
        along = laid(self.who, x.shape[1:-1], *window)
        self.build(back(x, self.data_format).shape)
        with QUIET():
            y = self.convolved(x, along)
            if self.bias is not None:
                y = y + self.bias
            return np.ascontiguousarray(self.activation.value(back(y, self.data_format)))


class _Conv(_Convolution):
    """What the plain ones share. Weights: kernel (*kernel_size, C / groups, filters), bias.

    groups  the channels and the filters are split into so many groups, each convolved alone

    Either strides or dilation_rate is 1.
    """

    ARGUMENTS: ClassVar = _arguments(
        {"filters": REQUIRED, "kernel_size": REQUIRED},
        ("kernel",),
        strides=1,
        padding="valid",
        data_format=None,
        dilation_rate=1,
        groups=1,
    )
    SETTINGS: ClassVar = {}
    filters: int
    groups: int
    kernel: Array

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        not_both(self.who, self.strides, self.dilation_rate)
        if self.filters % self.groups:
            raise ValueError(
                f"{self.who}: filters is {self.filters}, expected a multiple of groups,"
                f" {self.groups}, because each group makes as many"
            )

    def weight_shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        kernel = *self.kernel_size, features // self.groups, self.filters
        bias = {"bias": (self.filters,)} if self.use_bias else {}
        return {"kernel": kernel, **bias}

    def _taken(self, kernel: Array) -> int:
        return kernel.shape[-2] * self.groups

    def _check_features(self, features: int) -> None:
        if features % self.groups:
            raise ValueError(
                f"{self.who}: built for {features} features, expected a multiple of groups,"
                f" {self.groups}, because each group takes as many"
            )

    def convolved(self, x: Array, along: list[Windows]) -> Array:
        parts = zip(
            np.split(x, self.groups, axis=-1),
            np.split(self.kernel, self.groups, axis=-1),
            strict=True,
        )
        return np.concatenate([convolve(part, kernel, along) for part, kernel in parts], axis=-1)


class Conv1D(_Conv):
    """A convolution along time, (B, T, F) -> (B, T', filters); as `keras.layers.Conv1D`.

    padding  may be "causal" too: one window for every stride that sees no later step
    """

    SPATIAL = 1
    PADDINGS = ("valid", "same", "causal")


class Conv2D(_Conv):
    """A convolution of images (B, height, width, C); as `keras.layers.Conv2D`."""

    SPATIAL = 2
    ARGUMENTS: ClassVar = {**_Conv.ARGUMENTS, "strides": (1, 1), "dilation_rate": (1, 1)}


class Conv3D(_Conv):
    """A convolution of volumes (B, depth, height, width, C); as `keras.layers.Conv3D`.

    Of videos (B, T, height, width, C) too, along time and space at once.
    """

    SPATIAL = 3
    ARGUMENTS: ClassVar = {**_Conv.ARGUMENTS, "strides": (1, 1, 1), "dilation_rate": (1, 1, 1)}


class _DepthwiseConv(_Convolution):
    """Each channel convolved alone. Weights: kernel (*kernel_size, C, depth_multiplier), bias.

    depth_multiplier  how many filters there are for each channel
    """

    SETTINGS: ClassVar = {"kernel": "depthwise"}
    depth_multiplier: int
    kernel: Array

    def weight_shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        kernel = *self.kernel_size, features, self.depth_multiplier
        bias = {"bias": (features * self.depth_multiplier,)} if self.use_bias else {}
        return {"kernel": kernel, **bias}

    def convolved(self, x: Array, along: list[Windows]) -> Array:
        return convolve_apart(x, self.kernel, along)


def _depthwise(one: Any) -> dict[str, Any]:
    return _arguments(
        {"kernel_size": REQUIRED},
        ("depthwise",),
        strides=one,
        padding="valid",
        depth_multiplier=1,
        data_format=None,
        dilation_rate=one,
    )


class DepthwiseConv1D(_DepthwiseConv):
    """Along time, (B, T, F) -> (B, T', F * depth_multiplier); as `keras.layers.DepthwiseConv1D`."""

    SPATIAL = 1
    ARGUMENTS: ClassVar = _depthwise(1)


class DepthwiseConv2D(_DepthwiseConv):
    """Of images (B, height, width, C); as `keras.layers.DepthwiseConv2D`."""

    SPATIAL = 2
    ARGUMENTS: ClassVar = _depthwise((1, 1))


class _SeparableConv(_Convolution):
    """Each channel convolved alone, then all of them mixed, place by place.

    Weights: depthwise_kernel (*kernel_size, C, depth_multiplier), pointwise_kernel
    (1, ..., C * depth_multiplier, filters), bias (filters,).
    """

    SETTINGS: ClassVar = {"depthwise_kernel": "depthwise", "pointwise_kernel": "pointwise"}
    filters: int
    depth_multiplier: int
    depthwise_kernel: Array
    pointwise_kernel: Array

    def weight_shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        inner = features * self.depth_multiplier
        shapes = {
            "depthwise_kernel": (*self.kernel_size, features, self.depth_multiplier),
            "pointwise_kernel": (*[1] * self.SPATIAL, inner, self.filters),
        }
        return {**shapes, "bias": (self.filters,)} if self.use_bias else shapes

    def convolved(self, x: Array, along: list[Windows]) -> Array:
        y = convolve_apart(x, self.depthwise_kernel, along)
        rows = y.reshape(-1, y.shape[-1])
        mixed = dot(rows, self.pointwise_kernel.reshape(y.shape[-1], self.filters))
        return mixed.reshape(*y.shape[:-1], self.filters)


def _separable(one: Any) -> dict[str, Any]:
    return _arguments(
        {"filters": REQUIRED, "kernel_size": REQUIRED},
        ("depthwise", "pointwise"),
        strides=one,
        padding="valid",
        data_format=None,
        dilation_rate=one,
        depth_multiplier=1,
    )


class SeparableConv1D(_SeparableConv):
    """Along time, (B, T, F) -> (B, T', filters); as `keras.layers.SeparableConv1D`."""

    SPATIAL = 1
    ARGUMENTS: ClassVar = _separable(1)


class SeparableConv2D(_SeparableConv):
    """Of images (B, height, width, C); as `keras.layers.SeparableConv2D`."""

    SPATIAL = 2
    ARGUMENTS: ClassVar = _separable((1, 1))
