"""What an `RNN` asks of a cell, and StackedRNNCells: cells one upon another."""

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers.base import REQUIRED, Layer
from refrnn.layers.masks import leaves, map_arrays
from refrnn.layers.states import initial_state, output_size, shape_of
from refrnn.layers.stored import deserialize, serialize

# one step of a cell for a whole call: (x, states) -> (output, new states)
Step = Callable[[Array, Any], tuple[Array, Any]]


class StackedRNNCells(Layer):
    """Cells one upon another, in one time step; as `keras.layers.StackedRNNCells`.

    A call takes inputs (B, F) and a list of states, an entry for each cell, and returns the output
    of the last cell and the list of new states.
    """

    ARGUMENTS: ClassVar = {"cells": REQUIRED}
    cells: list[Any]

    def _convert(self, argument: str, value: Any) -> Any:
        if argument != "cells":
            return super()._convert(argument, value)
        if not isinstance(value, list | tuple) or not value:
            raise ValueError(
                f"{self.who}: cells is {value!r}, expected a list of at least one cell"
            )
        return [as_cell(self.who, cell) for cell in value]

    @property
    def state_size(self) -> list[Any]:
        return [cell.state_size for cell in self.cells]

    @property
    def output_size(self) -> Any:
        return output_size(self.cells[-1])

    def build(self, input_shape: Any) -> None:
        for cell in self.cells:
            build_cell(cell, input_shape)
            input_shape = map_arrays(lambda size: (None, *shape_of(size)), output_size(cell))
        self.built = True

    def parts(self) -> list[tuple[str, Layer]]:
        """The cells, each with its number."""
        return [(f"cells.{k}.", c) for k, c in enumerate(self.cells) if isinstance(c, Layer)]

    def weight_shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for k, cell in enumerate(self.cells):
            found = cell.weight_shapes(features) if isinstance(cell, Layer) else {}
            shapes |= {f"cells.{k}.{name}": shape for name, shape in found.items()}
            features = _width(cell)
        return shapes

    def get_initial_state(self, batch_size: int) -> list[Any]:
        """Zeros, an entry for each cell."""
        return [initial_state(cell, batch_size, self.dtype) for cell in self.cells]

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Array, list[Any]]:
        x = checks.numbers(self.who, "the input", inputs, self.dtype)
        if not self.built:
            self.build(x.shape)
        return self.begin(len(x), x.shape[-1], training)(x, states)

    def begin(self, rows: int, features: int, training: Any) -> Step:
        """The step of one call; see `begin`."""
        steps = []
        for cell in self.cells:
            steps.append(begin(cell, rows, features, training))
            features = _width(cell)

        def step(x: Array, states: Any) -> tuple[Array, Any]:
            after = []
            for one, state in zip(steps, states, strict=True):
                x, new = one(x, state)
                after.append(new)
            return x, after

        return step

    def _store(self, argument: str, value: Any) -> Any:
        return [serialize(cell) for cell in value] if argument == "cells" else value


def as_cell(who: str, given: Any) -> Any:
    """A cell: an object with `call` and `state_size`, a list of them, or a Keras config."""
    if isinstance(given, dict) and "class_name" in given:
        return deserialize(given)
    if isinstance(given, list | tuple):
        return StackedRNNCells(given)
    if not callable(getattr(given, "call", None)) or not hasattr(given, "state_size"):
        raise ValueError(
            f"{who}: cell is {given!r}, expected an object with call(inputs, states) and"
            " state_size, such as layers.LSTMCell(3), or a list of them"
        )
    return given


def build_cell(cell: Any, input_shape: Any) -> None:
    """Make the weights of a cell that has any; one that has them checks that they still fit."""
    checks_itself = not getattr(cell, "IS_CUSTOM", True)
    if hasattr(cell, "build") and (checks_itself or not getattr(cell, "built", False)):
        cell.build(input_shape)


def _width(cell: Any) -> int:
    """The last axis of a cell's output."""
    sizes = leaves(output_size(cell))
    return shape_of(sizes[0])[-1]


def begin(cell: Any, rows: int, features: int, training: bool | None) -> Step:
    """The step of a cell for one call, its dropout masks drawn; None draws none.

    A cell of the caller's is given arrays that it cannot write to.
    """
    if hasattr(cell, "begin") and not getattr(cell, "IS_CUSTOM", False):
        found: Step = cell.begin(rows, features, training)
        return found
    call = cell if isinstance(cell, Layer) else cell.call
    takes = isinstance(cell, Layer) or "training" in inspect.signature(cell.call).parameters
    options = {"training": bool(training)} if takes else {}

    def step(x: Any, states: Any) -> tuple[Any, Any]:
        y, after = call(*map_arrays(_shown, [x, states]), **options)
        return y, after if isinstance(after, list | tuple) else [after]

    return step


def _shown(array: Array) -> Array:
    """The same numbers, read-only."""
    view = array.view()
    view.flags.writeable = False
    return view
