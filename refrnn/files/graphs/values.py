"""What a name in a graph stands for: arrays of the model, constants, sizes, zeros."""

from typing import Any, NamedTuple, cast

from refrnn.files.errors import FileError, shown
from refrnn.files.graphs.graph import Node
from refrnn.gates import Array
from refrnn.layers.symbolic import Symbol

D = -1  # the axis of directions, which a refrnn array does not have
Axes = tuple[int, ...]
MAX_KNOWN = 1 << 26  # numbers in a constant that is put together from others


class Value(NamedTuple):
    """An array of the model.

    parts  symbols, batch first; two where the file has an axis of two directions
    axes   for each axis in the file, which axis of the symbols it is, or D
    ends   for the output of a recurrent node, each direction's (forward, last hidden state)
    turned  whether the file has it backwards in time
    clock   of which array it has the steps; None for those of its own
    """

    parts: tuple[Symbol, ...]
    axes: Axes
    ends: "tuple[tuple[bool, Symbol], ...] | None" = None
    turned: bool = False
    clock: Symbol | None = None

    @property
    def steps(self) -> Symbol:
        """The array of which it has the steps."""
        return self.parts[0] if self.clock is None else self.clock


class Known(NamedTuple):
    """A constant."""

    array: Array


class Zeros(NamedTuple):
    """Zeros of a shape that is computed: a state to begin with."""


class Size(NamedTuple):
    """The size of an axis, as the file counts it, of an array of the model."""

    value: Value
    place: int

    def fits(self, value: Value, place: int) -> bool:
        """Whether it is surely the size of that axis: the batch, the same steps, or one axis."""
        mine, axis = self.value.axes[self.place], value.axes[place]
        if mine == axis == 0:
            return True
        if D in (mine, axis):
            return False
        if mine == axis == 1:
            return self.value.steps is value.steps
        return self.value.parts[0] is value.parts[0] and mine == axis


class Filled(NamedTuple):
    """A size as often as there are rows: the lengths of whole sequences."""

    size: Size


class Sizes(NamedTuple):
    """A shape, or a part of one: numbers and sizes."""

    items: tuple["int | Size", ...]


def as_ints(value: Any, what: str) -> list[int]:
    """A constant list of whole numbers."""
    if not isinstance(value, Known) or value.array.dtype.kind not in "iu" or value.array.ndim > 1:
        raise FileError(f"{what} is computed, expected constant whole numbers")
    return [int(n) for n in value.array.reshape(-1)]


def only(node: Node, *names: str) -> dict[str, Any]:
    """The attributes, all of which are known."""
    for name in node.attributes:
        if name not in names:
            raise FileError(
                f"has the attribute {shown(name)}, expected"
                f" {'one of ' + ', '.join(names) if names else 'none'}: none is ignored"
            )
    return node.attributes


def axis_of(value: Value, axis: Any) -> int:
    """The place of an axis in the file, counted from 0."""
    rank = len(value.axes)
    if type(axis) is not int or not -rank <= axis < rank:
        raise FileError(f"has axis {shown(axis)}, expected one of {rank}")
    return axis % rank


def one(value: Value) -> Symbol:
    if len(value.parts) > 1:
        raise FileError("takes two directions as one array, expected them joined by a Reshape")
    return value.parts[0]


def alike(found: list[Any]) -> Value:
    """The first of some values whose axes are in the same order."""
    if not found or not all(isinstance(x, Value) for x in found):
        raise FileError("has a constant among its inputs, expected arrays of the model's alone")
    if any(x.turned for x in found):
        raise FileError("has an input that is reversed in time, expected the order of time")
    if len({x.axes for x in found}) > 1:
        raise FileError(
            f"has inputs with axes {[x.axes for x in found]} of the batch-first model, expected the"
            " same, because it would mix batch and time"
        )
    return cast(Value, found[0])


def small(count: int) -> None:
    if count > MAX_KNOWN:
        raise FileError(f"makes a constant of {count} numbers, expected at most {MAX_KNOWN}")
