"""What a name in a graph of ONNX stands for: arrays of the model, constants, sizes, zeros."""

from typing import Any, NamedTuple

from refrnn.files.errors import FileError
from refrnn.gates import Array
from refrnn.layers.symbolic import Symbol

D = -1  # the axis of directions, which a refrnn array does not have
Axes = tuple[int, ...]


class Value(NamedTuple):
    """An array of the model.

    parts  symbols, batch first; two where ONNX has an axis of two directions
    axes   for each axis in ONNX, which axis of the symbols it is, or D
    ends   for the output of a recurrent node, each direction's (forward, last hidden state)
    """

    parts: tuple[Symbol, ...]
    axes: Axes
    ends: "tuple[tuple[bool, Symbol], ...] | None" = None


class Known(NamedTuple):
    """A constant."""

    array: Array


class Zeros(NamedTuple):
    """Zeros of a shape that is computed: a state to begin with."""


class Size(NamedTuple):
    """The size of an axis, as ONNX counts it, of an array of the model."""

    value: Value
    place: int

    def fits(self, value: Value, place: int) -> bool:
        """Whether it is surely the size of that axis: both the batch, or one axis of one array."""
        mine, axis = self.value.axes[self.place], value.axes[place]
        if mine == axis == 0:
            return True
        if D in (mine, axis):
            return False
        one, other = self.value.parts[0], value.parts[0]
        return one is other and mine == axis


class Sizes(NamedTuple):
    """A shape, or a part of one: numbers and sizes."""

    items: tuple["int | Size", ...]


def as_ints(value: Any, what: str) -> list[int]:
    """A constant list of whole numbers."""
    if not isinstance(value, Known) or value.array.dtype.kind not in "iu" or value.array.ndim > 1:
        raise FileError(f"{what} is computed, expected constant whole numbers")
    return [int(n) for n in value.array.reshape(-1)]
