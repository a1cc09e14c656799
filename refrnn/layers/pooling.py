"""Pooling over windows of the axes between batch and channels, or over all of them."""

from functools import reduce
from typing import Any, ClassVar

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers.base import REQUIRED
from refrnn.layers.normalization import total, wide
from refrnn.layers.reshaping import AXES
from refrnn.layers.windows import Windowed, Windows, seen, windows
from refrnn.reference import QUIET


class _Pooling(Windowed):
    """What windowed pooling shares.

    pool_size    the steps of a window
    strides      from one window to the next; None for pool_size
    padding      "valid": windows inside the input only; "same": a window for every stride
    data_format  "channels_last", or "channels_first" for (batch, channels, ...)
    """

    pool_size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.built = True
        alone = self.pool_size[0] == self.strides[0] == 1
        self.mixes_time = not alone or self.data_format == "channels_first"

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "strides" and value is None:
            return self.pool_size
        return super()._convert(argument, value)

    def _along(self, x: Array) -> list[Windows]:
        return [
            windows(n, size, stride, 1, self.padding)
            for n, size, stride in zip(x.shape[1:-1], self.pool_size, self.strides, strict=True)
        ]


def _arguments(pool_size: Any) -> dict[str, Any]:
    return {"pool_size": pool_size, "strides": None, "padding": "valid", "data_format": None}


class _MaxPooling(_Pooling):
    """The largest number of each window, channel by channel.

    As on TensorFlow the search begins at the lowest finite number: NaN is passed over, and a
    window of nothing else, or of -inf alone, gives that number. Integers stay integers.
    """

    def call(self, inputs: Any, training: bool = False) -> Array:
        x = self._given(inputs)
        low = _lowest(x.dtype)
        places = np.moveaxis(seen(x, self._along(x), low), -2, 0)
        return self._returned(reduce(np.fmax, places, np.full(places.shape[1:], low, x.dtype)))


def _lowest(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "b":
        return False
    if dtype.kind in "iu":
        return np.iinfo(dtype).min
    return np.nextafter(np.asarray(-np.inf, dtype), np.asarray(0, dtype))


class MaxPooling1D(_MaxPooling):
    """Of (B, T, F), over time; as `keras.layers.MaxPooling1D`."""

    SPATIAL = 1
    ARGUMENTS: ClassVar = _arguments(2)


class MaxPooling2D(_MaxPooling):
    """Of images (B, height, width, C); as `keras.layers.MaxPooling2D`."""

    SPATIAL = 2
    ARGUMENTS: ClassVar = _arguments((2, 2))


class MaxPooling3D(_MaxPooling):
    """Of volumes (B, depth, height, width, C); as `keras.layers.MaxPooling3D`."""

    SPATIAL = 3
    ARGUMENTS: ClassVar = _arguments((2, 2, 2))


class _AveragePooling(_Pooling):
    """The mean of each window, channel by channel.

    With padding "same" a mean is over the places that the input has, not over the padding.
    """

    ARGUMENTS: ClassVar = _arguments(REQUIRED)

    def call(self, inputs: Any, training: bool = False) -> Array:
        x = self._numbers(inputs)
        along = self._along(x)
        places = np.moveaxis(seen(wide(x), along), -2, 0)
        inside = seen(np.ones((1, *x.shape[1:-1], 1), places.dtype), along)
        with QUIET():
            mean = reduce(np.add, places) / inside.sum(axis=-2)
        return self._returned(mean.astype(self.dtype))


class AveragePooling1D(_AveragePooling):
    """Of (B, T, F), over time; as `keras.layers.AveragePooling1D`."""

    SPATIAL = 1


class AveragePooling2D(_AveragePooling):
    """Of images (B, height, width, C); as `keras.layers.AveragePooling2D`."""

    SPATIAL = 2


class AveragePooling3D(_AveragePooling):
    """Of volumes (B, depth, height, width, C); as `keras.layers.AveragePooling3D`."""

    SPATIAL = 3


class _GlobalPooling(Windowed):
    """What pooling over whole axes shares: (B, ..., C) -> (B, C), or (B, 1, ..., C) with keepdims.

    data_format  "channels_last", or "channels_first" for (batch, channels, ...)
    """

    ARGUMENTS: ClassVar = {"data_format": None, "keepdims": False}
    mixes_time = True
    keepdims: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.built = True

    @property
    def pooled(self) -> tuple[int, ...]:
        """The axes that go, the channels being last."""
        return tuple(range(1, 1 + self.SPATIAL))

    def _kept(self, y: Array) -> Array:
        """What is returned for y (B, 1, ..., C)."""
        return self._returned(y) if self.keepdims else y.reshape(len(y), y.shape[-1])

    def mean(self, x: Array, count: Any) -> Array:
        """The sum of x over `count`, in the layer's dtype."""
        with QUIET():
            return self._kept((total(x, self.pooled) / count).astype(self.dtype))


class _GlobalAveragePooling(_GlobalPooling):
    """The mean of each channel; NaN where there is nothing to take it of."""

    def call(self, inputs: Any, training: bool = False) -> Array:
        x = wide(self._numbers(inputs))
        return self.mean(x, np.asarray(np.prod(x.shape[1:-1]), x.dtype))


class GlobalAveragePooling1D(_GlobalPooling):
    """The mean over time, as `keras.layers.GlobalAveragePooling1D`.

    mask  (B, T): the mean is over the steps where it is True; NaN where there are none, as in
          Keras. A sequence of no steps has mean NaN too.
    """

    SPATIAL = 1
    supports_masking = True

    def call(self, inputs: Any, training: bool = False, mask: Any = None) -> Array:
        x = self._numbers(inputs)
        live = checks.mask(self.who, mask, *x.shape[:2])
        x = wide(x)
        count: Any = np.asarray(x.shape[1], x.dtype)
        if live is not None:
            x = np.where(live[:, :, None], x, np.asarray(0, x.dtype))
            count = live.sum(axis=1).astype(x.dtype)[:, None, None]
        return self.mean(x, count)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return None


class GlobalAveragePooling2D(_GlobalAveragePooling):
    """Of images (B, height, width, C); as `keras.layers.GlobalAveragePooling2D`."""

    SPATIAL = 2


class GlobalAveragePooling3D(_GlobalAveragePooling):
    """Of volumes (B, depth, height, width, C); as `keras.layers.GlobalAveragePooling3D`."""

    SPATIAL = 3


class _GlobalMaxPooling(_GlobalPooling):
    """The largest number of each channel. It uses no mask."""

    def call(self, inputs: Any, training: bool = False) -> Array:
        x = self._given(inputs)
        if not all(x.shape[1:-1]):
            what = "step" if self.SPATIAL == 1 else "place along " + ", ".join(AXES[self.SPATIAL])
            raise ValueError(
                f"{self.who}: the input has shape {np.shape(inputs)}, expected at least one {what},"
                " because no number is the largest of none"
            )
        return self._kept(x.max(axis=self.pooled, keepdims=True))


class GlobalMaxPooling1D(_GlobalMaxPooling):
    """Of (B, T, F), over time; as `keras.layers.GlobalMaxPooling1D`."""

    SPATIAL = 1


class GlobalMaxPooling2D(_GlobalMaxPooling):
    """Of images (B, height, width, C); as `keras.layers.GlobalMaxPooling2D`."""

    SPATIAL = 2


class GlobalMaxPooling3D(_GlobalMaxPooling):
    """Of volumes (B, depth, height, width, C); as `keras.layers.GlobalMaxPooling3D`."""

    SPATIAL = 3
