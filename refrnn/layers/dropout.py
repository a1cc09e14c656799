"""Dropout: in training it drops what Keras drops, bit for bit; otherwise it does nothing."""

from typing import Any, ClassVar

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers.base import REQUIRED, Layer
from refrnn.layers.reshaping import axes, channels, last
from refrnn.random import SeedGenerator, dropout


class Dropout(Layer):
    """Sets inputs to 0 at `rate` in training and scales the others up; as `keras.layers.Dropout`.

    seed  the masks of a layer with the same seed are those of Keras, call by call
    """

    ARGUMENTS: ClassVar = {"rate": REQUIRED, "noise_shape": None, "seed": None}
    supports_masking = True
    rate: float
    noise_shape: Any
    seed: int | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seeds = SeedGenerator(self.seed)

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "rate":
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value <= 1:
                raise ValueError(f"{self.who}: rate is {value!r}, expected a number from 0 to 1")
            return float(value)
        if argument == "seed":
            return checks.seed(self.who, value)
        if argument == "noise_shape" and value is not None:
            if not isinstance(value, list | tuple):
                raise ValueError(f"{self.who}: noise_shape is {value!r}, expected a tuple or None")
            return tuple(value)
        return super()._convert(argument, value)

    def call(self, inputs: Any, training: bool = False) -> Array:
        x = checks.numbers(self.who, "the input", inputs, self.dtype)
        self.built = True
        if not training or self.rate == 0:
            return x
        if self.rate == 1:
            return np.zeros_like(x)
        return dropout(x, self.rate, self._seeds.next(), self._noise(x))

    def _noise(self, x: Array) -> Any:
        """The shape of the mask: a size of None is that of the input."""
        if self.noise_shape is None:
            return None
        if len(self.noise_shape) != x.ndim:
            raise ValueError(
                f"{self.who}: noise_shape is {self.noise_shape}, expected {x.ndim} sizes, one for"
                f" each axis of the input {x.shape}"
            )
        return tuple(x.shape[k] if n is None else n for k, n in enumerate(self.noise_shape))


class SpatialDropout1D(Dropout):
    """Drops whole features, at all time steps alike; as `keras.layers.SpatialDropout1D`."""

    ARGUMENTS: ClassVar = {"rate": REQUIRED, "seed": None}
    NOT_IN_CONFIG: ClassVar = frozenset({"trainable"})  # Keras's would refuse it
    noise_shape: Any = None

    def _noise(self, x: Array) -> Any:
        if x.ndim != 3:
            raise ValueError(
                f"{self.who}: the input has shape {x.shape}, expected (batch, time, features)"
            )
        return (x.shape[0], 1, x.shape[2])


class SpatialDropout2D(Dropout):
    """Drops whole channels of images, as `keras.layers.SpatialDropout2D`.

    data_format  "channels_last", or "channels_first" for (batch, channels, height, width)
    """

    ARGUMENTS: ClassVar = {"rate": REQUIRED, "data_format": None, "seed": None}
    NOT_IN_CONFIG: ClassVar = frozenset({"trainable"})  # Keras's would refuse it
    noise_shape: Any = None
    data_format: str

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "data_format":
            return channels(self.who, value)
        return super()._convert(argument, value)

    def _noise(self, x: Array) -> Any:
        if x.ndim != 4:
            names = ", ".join(["batch", *axes(2, self.data_format)])
            raise ValueError(f"{self.who}: the input has shape {x.shape}, expected ({names})")
        B, C = x.shape[0], last(x, self.data_format).shape[-1]
        return (B, C, 1, 1) if self.data_format == "channels_first" else (B, 1, 1, C)
