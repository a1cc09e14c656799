"""Layers that move numbers and compute none. As in Keras they lose the mask, and keep integers."""

import math
from typing import Any, ClassVar

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers.base import REQUIRED, Layer


def moved(who: str, given: Any, dtype: np.dtype[Any], rank: str = "") -> Array:
    """`given` as a plain array: floats in `dtype`, integers and booleans as they are.

    rank  the axes that it must have, by name, such as "batch, time, features"; any where empty
    """
    found = checks.array(who, "the input", given)
    if rank and found.ndim != rank.count(",") + 1:
        raise ValueError(f"{who}: the input has shape {found.shape}, expected ({rank})")
    kept = found.dtype if found.dtype.kind in "iub" else dtype
    return checks.numbers(who, "the input", found, kept)


def channels_last(who: str, given: Any) -> str:
    """The only data_format that there is; None stands for it."""
    if given not in (None, "channels_last"):
        raise ValueError(
            f"{who}: data_format is {given!r}, expected 'channels_last', because arrays are always"
            " (batch, time, features)"
        )
    return "channels_last"


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
        return self.rearranged(moved(self.who, inputs, self.dtype, self.RANK)).copy()


class Flatten(_Reshaping):
    """(B, ...) -> (B, all the rest), as `keras.layers.Flatten`; (B,) -> (B, 1).

    data_format  "channels_first" moves axis 1 to the end before flattening
    """

    ARGUMENTS: ClassVar = {"data_format": None}
    RANK = ""
    data_format: str

    def _convert(self, argument: str, value: Any) -> Any:
        if argument != "data_format":
            return super()._convert(argument, value)
        if value not in (None, "channels_last", "channels_first"):
            raise ValueError(
                f"{self.who}: data_format is {value!r}, expected 'channels_last' or"
                " 'channels_first'"
            )
        return value or "channels_last"

    def rearranged(self, x: Array) -> Array:
        if not x.ndim:
            raise ValueError(f"{self.who}: the input is a single number, expected (batch, ...)")
        if self.data_format == "channels_first" and x.ndim > 1:
            x = np.moveaxis(x, 1, -1)
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


class ZeroPadding1D(_Reshaping):
    """Adds steps of zeros at both ends, as `keras.layers.ZeroPadding1D`.

    padding  how many at each end, or (at the start, at the end)
    """

    ARGUMENTS: ClassVar = {"padding": 1, "data_format": None}
    padding: tuple[int, int]
    data_format: str

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "padding":
            return whole(self.who, argument, value, 2)
        if argument == "data_format":
            return channels_last(self.who, value)
        return super()._convert(argument, value)

    def rearranged(self, x: Array) -> Array:
        return np.pad(x, ((0, 0), self.padding, (0, 0)))


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
