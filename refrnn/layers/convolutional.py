"""Conv1D: a dense layer over the steps of each window, as `keras.layers.Conv1D`."""

from typing import Any, ClassVar

import numpy as np

from refrnn import checks
from refrnn.cells import dot
from refrnn.gates import Array
from refrnn.layers.base import REQUIRED, Layer
from refrnn.layers.pooling import padding, windows
from refrnn.layers.reshaping import channels_last, whole
from refrnn.reference import QUIET


class Conv1D(Layer):
    """A convolution along time. Weights: kernel (size, F / groups, filters), bias (filters,).

    A call takes (B, T, F) and returns (B, T', filters). A row's numbers do not depend on other
    rows: the sum runs over the steps of the window, and over the features at each, in order.

    padding        "valid": windows inside the sequence only; "same": one for every stride;
                   "causal": one for every stride that sees no later step
    dilation_rate  how far apart the steps of a window are; only where strides is 1
    groups         the features and the filters are split into so many groups, each convolved alone
    """

    ARGUMENTS: ClassVar = {
        "filters": REQUIRED,
        "kernel_size": REQUIRED,
        "strides": 1,
        "padding": "valid",
        "data_format": None,
        "dilation_rate": 1,
        "groups": 1,
        "activation": None,
        "use_bias": True,
        "kernel_initializer": "glorot_uniform",
        "bias_initializer": "zeros",
        "kernel_regularizer": None,
        "bias_regularizer": None,
        "activity_regularizer": None,
        "kernel_constraint": None,
        "bias_constraint": None,
    }
    filters: int
    kernel_size: tuple[int]
    strides: tuple[int]
    padding: str
    dilation_rate: tuple[int]
    groups: int
    activation: Any
    use_bias: bool
    kernel: Array

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.strides[0] > 1 and self.dilation_rate[0] > 1:
            raise ValueError(
                f"{self.who}: strides is {self.strides[0]} and dilation_rate"
                f" {self.dilation_rate[0]}, expected 1 for one of them, as in Keras"
            )
        if self.filters % self.groups:
            raise ValueError(
                f"{self.who}: filters is {self.filters}, expected a multiple of groups,"
                f" {self.groups}, because each group makes as many"
            )
        self.mixes_time = self.kernel_size[0] > 1 or self.strides[0] > 1

    def _convert(self, argument: str, value: Any) -> Any:
        if argument in ("filters", "groups"):
            return checks.count(self.who, argument, value)
        if argument in ("kernel_size", "strides", "dilation_rate"):
            return whole(self.who, argument, value, 1, least=1)
        if argument == "padding":
            return padding(self.who, value, ("valid", "same", "causal"))
        if argument == "data_format":
            return channels_last(self.who, value)
        return super()._convert(argument, value)

    def weight_shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        kernel = *self.kernel_size, features // self.groups, self.filters
        bias = {"bias": (self.filters,)} if self.use_bias else {}
        return {"kernel": kernel, **bias}

    def _features(self, weights: list[Array]) -> int:
        kernel = weights[0] if weights else np.zeros(())
        return kernel.shape[1] * self.groups if kernel.ndim == 3 else 0

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        features = checks.features(self.who, input_shape)
        if features % self.groups:
            raise ValueError(
                f"{self.who}: built for {features} features, expected a multiple of groups,"
                f" {self.groups}, because each group takes as many"
            )
        if self.built:
            if features != self.kernel.shape[1] * self.groups:
                raise ValueError(
                    f"{self.who}: the input has {features} features, expected"
                    f" {self.kernel.shape[1] * self.groups}, because its kernel has shape"
                    f" {self.kernel.shape}"
                )
            return
        own, shapes = vars(self), self.weight_shapes(features)
        draws = own["kernel_initializer"], own["bias_initializer"]
        self.kernel, *bias = (
            self.add_weight(shape, draw, name=name)
            for (name, shape), draw in zip(shapes.items(), draws, strict=False)
        )
        self.bias = bias[0] if bias else None
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Array:
        x = checks.sequence(self.who, inputs, None, self.dtype)
        time, reach = x.shape[1], (self.kernel_size[0] - 1) * self.dilation_rate[0] + 1
        if self.padding == "valid" and time < reach:
            raise ValueError(
                f"{self.who}: the input has shape {x.shape}, expected at least {reach} steps,"
                " because padding is 'valid' and a window is as long"
            )
        self.build(x.shape)
        before, after, steps = windows(
            time, *self.kernel_size, *self.strides, *self.dilation_rate, self.padding
        )
        padded = np.pad(x, ((0, 0), (before, after), (0, 0)))
        B, N, size = len(x), len(steps), len(self.kernel)
        outputs = []
        with QUIET():
            parts = zip(
                np.split(padded, self.groups, axis=2),
                np.split(self.kernel, self.groups, axis=2),
                strict=True,
            )
            for part, kernel in parts:  # (B, T, C), (size, C, filters / groups)
                width = size * part.shape[2]
                seen = part[:, steps].reshape(B, N, width)
                outputs.append(dot(seen, kernel.reshape(width, kernel.shape[2])))
            y = np.concatenate(outputs, axis=-1)
            if self.bias is not None:
                y = y + self.bias
            return self.activation.value(y)
