"""Pooling along time: over windows, or over the whole sequence."""

from functools import reduce
from typing import Any, ClassVar, NamedTuple

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers.base import REQUIRED, Layer
from refrnn.layers.normalization import total, wide
from refrnn.layers.reshaping import channels_last, moved, whole
from refrnn.reference import QUIET

RANK = "batch, time, features"


class Windows(NamedTuple):
    """Where windows lie on a sequence that is padded with `before` and `after` steps.

    steps  (N, size) the padded steps that each of N windows sees
    """

    before: int
    after: int
    steps: Array


def windows(
    time: int, size: int, stride: int = 1, dilation: int = 1, padding: str = "valid"
) -> Windows:
    """The windows of `size` steps, `dilation` apart, that start every `stride` steps.

    padding  "valid": only windows that lie inside, none where there is no room;
             "same": a window for every stride-th step, the padding shared between the two ends, an
             odd step at the end; "causal": all padding before, so no window sees a later step
    """
    reach = (size - 1) * dilation + 1
    before = after = 0
    if padding == "same":
        count = -(-time // stride)
        spare = max((count - 1) * stride + reach - time, 0) if count else 0
        before, after = spare // 2, spare - spare // 2
    elif padding == "causal":
        before = reach - 1
    count = max((before + time + after - reach) // stride + 1, 0) if time else 0
    starts = np.arange(count)[:, None] * stride
    return Windows(before, after, starts + np.arange(size) * dilation)


class _Pooling1D(Layer):
    """What the two share.

    pool_size    the steps of a window
    strides      from one window to the next; None for pool_size
    padding      "valid": windows inside the sequence only; "same": a window for every stride
    data_format  "channels_last"; arrays are always (batch, time, features)
    """

    mixes_time = True
    pool_size: tuple[int]
    strides: tuple[int]
    padding: str
    data_format: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.built = True

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "strides" and value is None:
            return self.pool_size
        if argument in ("pool_size", "strides"):
            return whole(self.who, argument, value, 1, least=1)
        if argument == "padding":
            return padding(self.who, value, ("valid", "same"))
        if argument == "data_format":
            return channels_last(self.who, value)
        return super()._convert(argument, value)

    def _windows(self, time: int) -> Windows:
        return windows(time, *self.pool_size, *self.strides, 1, self.padding)


def padding(who: str, given: Any, known: tuple[str, ...]) -> str:
    """The name of a way to pad, in small letters."""
    if not isinstance(given, str) or given.lower() not in known:
        raise ValueError(
            f"{who}: padding is {given!r}, expected one of {', '.join(map(repr, known))}"
        )
    return given.lower()


class MaxPooling1D(_Pooling1D):
    """The largest number of each window, feature by feature, as `keras.layers.MaxPooling1D`.

    As on TensorFlow the search begins at the lowest finite number: NaN is passed over, and a
    window of nothing else, or of -inf alone, gives that number. Integers stay integers.
    """

    ARGUMENTS: ClassVar = {"pool_size": 2, "strides": None, "padding": "valid", "data_format": None}

    def call(self, inputs: Any, training: bool = False) -> Array:
        x = moved(self.who, inputs, self.dtype, RANK)
        before, after, steps = self._windows(x.shape[1])
        low = _lowest(x.dtype)
        padded = np.pad(x, ((0, 0), (before, after), (0, 0)), constant_values=low)
        seen = np.moveaxis(padded[:, steps], 2, 0)  # (size, B, N, F)
        return reduce(np.fmax, seen, np.full(seen.shape[1:], low, x.dtype))


def _lowest(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "b":
        return False
    if dtype.kind in "iu":
        return np.iinfo(dtype).min
    return np.nextafter(np.asarray(-np.inf, dtype), np.asarray(0, dtype))


class AveragePooling1D(_Pooling1D):
    """The mean of each window, feature by feature, as `keras.layers.AveragePooling1D`.

    With padding "same" a mean is over the steps that the sequence has, not over the padding.
    """

    ARGUMENTS: ClassVar = {
        "pool_size": REQUIRED, "strides": None, "padding": "valid", "data_format": None,
    }  # fmt: skip

    def call(self, inputs: Any, training: bool = False) -> Array:
        x = checks.numbers(
            self.who, "the input", moved(self.who, inputs, self.dtype, RANK), self.dtype
        )
        before, after, steps = self._windows(x.shape[1])
        padded = np.pad(wide(x), ((0, 0), (before, after), (0, 0)))
        seen = np.moveaxis(padded[:, steps], 2, 0)  # (size, B, N, F)
        inside = (steps >= before) & (steps < before + x.shape[1])
        with QUIET():
            mean = reduce(np.add, seen) / inside.sum(axis=1)[:, None].astype(padded.dtype)
        return mean.astype(self.dtype)


class _GlobalPooling1D(Layer):
    """What the two share: (B, T, F) -> (B, F), or (B, 1, F) with keepdims."""

    ARGUMENTS: ClassVar = {"data_format": None, "keepdims": False}
    mixes_time = True
    data_format: str
    keepdims: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.built = True

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "data_format":
            return channels_last(self.who, value)
        return super()._convert(argument, value)


class GlobalAveragePooling1D(_GlobalPooling1D):
    """The mean over time, as `keras.layers.GlobalAveragePooling1D`.

    mask  (B, T): the mean is over the steps where it is True; NaN where there are none, as in
          Keras. A sequence of no steps has mean NaN too.
    """

    supports_masking = True

    def call(self, inputs: Any, training: bool = False, mask: Any = None) -> Array:
        x = checks.numbers(
            self.who, "the input", moved(self.who, inputs, self.dtype, RANK), self.dtype
        )
        live = checks.mask(self.who, mask, *x.shape[:2])
        x = wide(x)
        count: Any = np.asarray(x.shape[1], x.dtype)
        if live is not None:
            x = np.where(live[:, :, None], x, np.asarray(0, x.dtype))
            count = live.sum(axis=1).astype(x.dtype)[:, None, None]
        with QUIET():
            mean = (total(x, (1,)) / count).astype(self.dtype)  # (B, 1, F)
        return mean if self.keepdims else mean[:, 0]

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return None


class GlobalMaxPooling1D(_GlobalPooling1D):
    """The largest number over time, as `keras.layers.GlobalMaxPooling1D`. It uses no mask."""

    def call(self, inputs: Any, training: bool = False) -> Array:
        x = moved(self.who, inputs, self.dtype, RANK)
        if not x.shape[1]:
            raise ValueError(
                f"{self.who}: the input has shape {x.shape}, expected at least one step, because no"
                " number is the largest of none"
            )
        return x.max(axis=1, keepdims=self.keepdims)
