"""Layers that move numbers and compute none. As in Keras they lose the mask, and keep integers."""

import math
from typing import Any, ClassVar

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers.base import REQUIRED, Layer

FORMATS = ("channels_last", "channels_first")
AXES = {1: ("time",), 2: ("height", "width"), 3: ("depth", "height", "width")}


def moved(who: str, given: Any, dtype: np.dtype[Any], rank: str = "") -> Array:
    """`given` as a plain array: floats in `dtype`, integers and booleans as they are.

    rank  the axes that it must have, by name, such as "batch, time, features"; any where empty
    """
    found = checks.array(who, "the input", given)
    if rank and found.ndim != rank.count(",") + 1:
        raise ValueError(f"{who}: the input has shape {found.shape}, expected ({rank})")
    kept = found.dtype if found.dtype.kind in "iub" else dtype
    return checks.numbers(who, "the input", found, kept)


def channels(who: str, given: Any) -> str:
    """A data_format; None stands for "channels_last"."""
    if given not in (None, *FORMATS):
        raise ValueError(
            f"{who}: data_format is {given!r}, expected 'channels_last' or 'channels_first'"
        )
    return str(given or "channels_last")


def axes(rank: int, data_format: str) -> list[str]:
    """The names of the axes of images, the batch left out, of `rank` sizes beside the channels."""
    sizes, features = list(AXES[rank]), ["features" if rank == 1 else "channels"]
    return features + sizes if data_format == "channels_first" else sizes + features


def last(x: Array, data_format: str) -> Array:
    """x with the channels on the last axis."""
    return np.moveaxis(x, 1, -1) if data_format == "channels_first" else x


def back(y: Array, data_format: str) -> Array:
    """The inverse of `last`."""
    return np.moveaxis(y, -1, 1) if data_format == "channels_first" else y


def whole(who: str, what: str, given: Any, number: int, least: int = 0) -> tuple[int, ...]:
    """`number` whole numbers of at least `least`; a single one stands for them all."""
    found = (given,) * number if isinstance(given, int | np.integer) else given
    good = (
        isinstance(found, list | tuple)
        and len(found) == number
        and all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in found)
        and all(n >= least for n in found)
    )
    if not good:
        several = f" or {number} of them" if number > 1 else ""
        raise ValueError(
            f"{who}: {what} is {given!r}, expected a whole number of at least {least}{several}"
        )
    return tuple(int(n) for n in found)


def pairs(who: str, what: str, given: Any) -> tuple[tuple[int, ...], ...]:
    """Two pairs of whole numbers; a number in the place of either stands for a pair of it."""
    both = [given, given] if isinstance(given, int | np.integer) else given
    if not isinstance(both, list | tuple) or len(both) != 2:
        raise ValueError(
            f"{who}: {what} is {given!r}, expected a whole number, or two of height and width, each"
            " a number or a pair"
        )
    return tuple(whole(who, what, one, 2) for one in both)


class _Reshaping(Layer):
    """A call takes an array with the axes RANK, any where that is empty."""

    RANK: ClassVar[str] = "batch, time, features"
    mixes_time = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.built = True

    def rearranged(self, x: Array) -> Array:
        raise NotImplementedError

    def call(self, inputs: Any, training: bool = False) -> Array:
        return self.rearranged(moved(self.who, inputs, self.dtype, self._rank())).copy()

    def _rank(self) -> str:
        """The axes of the input by name; empty for any."""
        return self.RANK


class Flatten(_Reshaping):
    """(B, ...) -> (B, all the rest), as `keras.layers.Flatten`; (B,) -> (B, 1).

    data_format  "channels_first" moves axis 1 to the end before flattening
    """

    ARGUMENTS: ClassVar = {"data_format": None}
    RANK = ""
    data_format: str

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "data_format":
            return channels(self.who, value)
        return super()._convert(argument, value)

    def rearranged(self, x: Array) -> Array:
        if not x.ndim:
            raise ValueError(f"{self.who}: the input is a single number, expected (batch, ...)")
        x = last(x, self.data_format) if x.ndim > 1 else x
        return x.reshape(len(x), math.prod(x.shape[1:]))


class Reshape(_Reshaping):
    """(B, ...) -> (B, *target_shape), as `keras.layers.Reshape`.

    target_shape  the batch left out; one size may be -1: what is left
    """

    ARGUMENTS: ClassVar = {"target_shape": REQUIRED}
    RANK = ""
    target_shape: tuple[int, ...]

    def _convert(self, argument: str, value: Any) -> Any:
        if argument != "target_shape":
            return super()._convert(argument, value)
        good = isinstance(value, list | tuple) and all(
            isinstance(n, int | np.integer) and not isinstance(n, bool) and n >= -1 for n in value
        )
        if not good or list(value).count(-1) > 1:
            raise ValueError(
                f"{self.who}: target_shape is {value!r}, expected whole numbers of at least 0, the"
                " batch left out, of which one may be -1"
            )
        return tuple(int(n) for n in value)

    def rearranged(self, x: Array) -> Array:
        size, target = math.prod(x.shape[1:]), self.target_shape
        known = math.prod(n for n in target if n != -1)
        fits = known and size % known == 0 if -1 in target else size == known
        if not x.ndim or not fits:
            raise ValueError(
                f"{self.who}: the input has shape {x.shape}, expected rows that make up"
                f" {target}, so {known or 'no'} entries"
                + (" or a multiple of that" if -1 in target and known else "")
            )
        return x.reshape(len(x), *(size // known if n == -1 else n for n in target))


class Permute(_Reshaping):
    """The axes behind the batch in another order, as `keras.layers.Permute`.

    dims  (2, 1) exchanges time and features; axes count from 1
    """

    ARGUMENTS: ClassVar = {"dims": REQUIRED}
    RANK = ""
    dims: tuple[int, ...]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mixes_time = self.dims[:1] != (1,)

    def _convert(self, argument: str, value: Any) -> Any:
        if argument != "dims":
            return super()._convert(argument, value)
        if not isinstance(value, list | tuple) or sorted(value) != [*range(1, len(value) + 1)]:
            raise ValueError(
                f"{self.who}: dims is {value!r}, expected the axes 1, 2, ... in some order, the"
                " batch left out"
            )
        return tuple(value)

    def rearranged(self, x: Array) -> Array:
        if x.ndim != 1 + len(self.dims):
            raise ValueError(
                f"{self.who}: the input has shape {x.shape}, expected {1 + len(self.dims)} axes,"
                f" because dims is {self.dims} and the batch comes first"
            )
        return x.transpose(0, *self.dims)


class RepeatVector(_Reshaping):
    """(B, F) -> (B, n, F), as `keras.layers.RepeatVector`."""

    ARGUMENTS: ClassVar = {"n": REQUIRED}
    RANK = "batch, features"
    n: int

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "n":
            return checks.count(self.who, argument, value)
        return super()._convert(argument, value)

    def rearranged(self, x: Array) -> Array:
        return np.repeat(x[:, None], self.n, axis=1)


class Cropping1D(_Reshaping):
    """Leaves out steps at both ends, as `keras.layers.Cropping1D`.

    cropping  how many at each end, or (at the start, at the end); fewer than there are steps
    """

    ARGUMENTS: ClassVar = {"cropping": (1, 1)}
    cropping: tuple[int, int]

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "cropping":
            return whole(self.who, argument, value, 2)
        return super()._convert(argument, value)

    def rearranged(self, x: Array) -> Array:
        first, last = self.cropping
        if first + last >= x.shape[1]:
            raise ValueError(
                f"{self.who}: the input has shape {x.shape}, expected more than {first + last}"
                f" steps, because cropping is {self.cropping}"
            )
        return x[:, first : x.shape[1] - last]


class Cropping2D(_Reshaping):
    """Leaves out the borders of images, as `keras.layers.Cropping2D`.

    cropping  as `padding` of `ZeroPadding2D`; something must be left
    """

    ARGUMENTS: ClassVar = {"cropping": ((0, 0), (0, 0)), "data_format": None}
    cropping: tuple[tuple[int, ...], ...]
    data_format: str

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "cropping":
            return pairs(self.who, argument, value)
        if argument == "data_format":
            return channels(self.who, value)
        return super()._convert(argument, value)

    def _rank(self) -> str:
        return ", ".join(["batch", *axes(2, self.data_format)])

    def rearranged(self, x: Array) -> Array:
        images = last(x, self.data_format)
        ends = [n - after for n, (_, after) in zip(images.shape[1:], self.cropping, strict=False)]
        if any(end <= before for end, (before, _) in zip(ends, self.cropping, strict=True)):
            raise ValueError(
                f"{self.who}: the input has shape {x.shape}, expected more along height and width"
                f" than cropping, {self.cropping}, takes away"
            )
        rows, columns = (
            slice(before, end) for end, (before, _) in zip(ends, self.cropping, strict=True)
        )
        return back(images[:, rows, columns], self.data_format)


class _ZeroPadding(_Reshaping):
    """What the two share.

    data_format  "channels_last", or "channels_first" for (batch, channels, ...)
    """

    SPATIAL: ClassVar[int]
    padding: Any
    data_format: str

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "data_format":
            return channels(self.who, value)
        return super()._convert(argument, value)

    def _rank(self) -> str:
        return ", ".join(["batch", *axes(self.SPATIAL, self.data_format)])

    def _padded(self, x: Array, *widths: tuple[int, ...]) -> Array:
        padded = np.pad(last(x, self.data_format), ((0, 0), *widths, (0, 0)))
        return back(padded, self.data_format)


class ZeroPadding1D(_ZeroPadding):
    """Adds steps of zeros at both ends, as `keras.layers.ZeroPadding1D`.

    padding  how many at each end, or (at the start, at the end)
    """

    SPATIAL = 1
    ARGUMENTS: ClassVar = {"padding": 1, "data_format": None}

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "padding":
            return whole(self.who, argument, value, 2)
        return super()._convert(argument, value)

    def rearranged(self, x: Array) -> Array:
        return self._padded(x, self.padding)


class ZeroPadding2D(_ZeroPadding):
    """Adds zeros around images, as `keras.layers.ZeroPadding2D`.

    padding  how many at each end of height and width, or (of height, of width), each a number or
             (at the start, at the end)
    """

    SPATIAL = 2
    ARGUMENTS: ClassVar = {"padding": (1, 1), "data_format": None}

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "padding":
            return pairs(self.who, argument, value)
        return super()._convert(argument, value)

    def rearranged(self, x: Array) -> Array:
        return self._padded(x, *self.padding)


class UpSampling1D(_Reshaping):
    """Each step `size` times, as `keras.layers.UpSampling1D`."""

    ARGUMENTS: ClassVar = {"size": 2}
    size: int

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "size":
            return checks.count(self.who, argument, value)
        return super()._convert(argument, value)

    def rearranged(self, x: Array) -> Array:
        return np.repeat(x, self.size, axis=1)
