"""Windows over the axes between batch and channels: what convolutions and pooling share."""

from typing import Any, ClassVar, NamedTuple

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers.base import Layer
from refrnn.layers.reshaping import AXES, axes, back, channels, last, moved, whole


class Windows(NamedTuple):
    """Where windows lie on an axis that is padded with `before` and `after` steps.

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


def seen(x: Array, along: list[Windows], fill: Any = 0) -> Array:
    """What each window sees of x (B, sizes, C): (B, counts, places in a window, C).

    along  the windows along each axis between batch and channels
    fill   what is seen of the padding
    """
    rank = len(along)
    widths = [(0, 0), *((w.before, w.after) for w in along), (0, 0)]
    padded = np.pad(x, widths, constant_values=fill)
    index: list[Any] = [slice(None)]
    for axis, (_, _, steps) in enumerate(along):
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = steps.shape
        index.append(steps.reshape(shape))
    found = padded[tuple(index)]
    counts = [len(w.steps) for w in along]
    places = int(np.prod([w.steps.shape[1] for w in along]))
    return np.ascontiguousarray(found).reshape(len(x), *counts, places, x.shape[-1])


def padding(who: str, given: Any, known: tuple[str, ...]) -> str:
    """The name of a way to pad, in small letters."""
    if not isinstance(given, str) or given.lower() not in known:
        raise ValueError(
            f"{who}: padding is {given!r}, expected one of {', '.join(map(repr, known))}"
        )
    return given.lower()


class Windowed(Layer):
    """A layer of arrays (batch, sizes, channels), with as many sizes as it has SPATIAL axes.

    data_format  "channels_last", or "channels_first" for (batch, channels, sizes)
    """

    SPATIAL: ClassVar[int]
    PADDINGS: ClassVar[tuple[str, ...]] = ("valid", "same")
    data_format: str

    def _convert(self, argument: str, value: Any) -> Any:
        if argument in ("kernel_size", "pool_size", "strides", "dilation_rate"):
            return whole(self.who, argument, value, self.SPATIAL, least=1)
        if argument == "padding":
            return padding(self.who, value, self.PADDINGS)
        if argument == "data_format":
            return channels(self.who, value)
        return super()._convert(argument, value)

    def _given(self, inputs: Any) -> Array:
        """The input with its channels last; integers are left as they are."""
        names = ", ".join(["batch", *axes(self.SPATIAL, self.data_format)])
        return last(moved(self.who, inputs, self.dtype, names), self.data_format)

    def _numbers(self, inputs: Any) -> Array:
        """The input with its channels last, in the layer's dtype."""
        return checks.numbers(self.who, "the input", self._given(inputs), self.dtype)

    def _returned(self, y: Array) -> Array:
        """The output in the layer's data_format."""
        return np.ascontiguousarray(back(y, self.data_format))


def not_both(who: str, strides: tuple[int, ...], dilation_rate: tuple[int, ...]) -> None:
    """Refuse windows that are both strided and dilated."""
    if max(strides) > 1 and max(dilation_rate) > 1:
        raise ValueError(
            f"{who}: strides is {strides} and dilation_rate {dilation_rate}, expected 1 for one of"
            " them, as in Keras"
        )


def laid(
    who: str,
    sizes: tuple[int, ...],
    kernel_size: tuple[int, ...],
    strides: tuple[int, ...],
    dilation_rate: tuple[int, ...],
    padding: str,
) -> list[Windows]:
    """The windows of a convolution on axes of these sizes; ValueError where there is no room."""
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel_size, dilation_rate, strict=True))
    if padding == "valid" and any(n < r > 1 for n, r in zip(sizes, reach, strict=True)):
        names = ", ".join(AXES[len(sizes)])
        least = f"{reach[0]} steps" if len(sizes) == 1 else f"{reach} along {names}"
        raise ValueError(
            f"{who}: the input has {sizes} places along {names}, expected at least {least},"
            " because padding is 'valid' and a window is as long"
        )
    return [
        windows(*axis, padding)
        for axis in zip(sizes, kernel_size, strides, dilation_rate, strict=True)
    ]
