"""What an `RNN` asks of a cell, and StackedRNNCells: cells one upon another."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers.base import REQUIRED, Layer, deserialize, serialize
from refrnn.layers.masks import leaves

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
    def output_size(self) -> int:
        return output_size(self.cells[-1])

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for cell in self.cells:
            if hasattr(cell, "build") and not getattr(cell, "built", False):
                cell.build(input_shape)
            input_shape = (*input_shape[:-1], output_size(cell))
        self.built = True

    @property
    def weights(self) -> list[Array]:
        return [w for cell in self.cells for w in getattr(cell, "weights", [])]

    @property
    def weight_names(self) -> list[str]:
        return [
            f"cells.{k}.{name}"
            for k, cell in enumerate(self.cells)
            for name in getattr(cell, "weight_names", [])
        ]

    def weight_shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for k, cell in enumerate(self.cells):
            found = cell.weight_shapes(features) if isinstance(cell, Layer) else {}
            shapes |= {f"cells.{k}.{name}": shape for name, shape in found.items()}
            features = output_size(cell)
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
            features = output_size(cell)

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


def output_size(cell: Any) -> int:
    """The width of a cell's output: its output_size, else its first state's size."""
    found = getattr(cell, "output_size", None)
    return int(leaves(cell.state_size)[0] if found is None else found)


def initial_state(cell: Any, rows: int, dtype: np.dtype[Any]) -> Any:
    """Zeros in the structure of the cell's state_size, or what its get_initial_state gives."""
    if hasattr(cell, "get_initial_state"):
        return cell.get_initial_state(batch_size=rows)
    sizes = cell.state_size if isinstance(cell.state_size, list | tuple) else [cell.state_size]
    return [np.zeros((rows, int(size)), dtype) for size in sizes]


def begin(cell: Any, rows: int, features: int, training: bool | None) -> Step:
    """The step of a cell for one call, its dropout masks drawn; None draws none."""
    if hasattr(cell, "begin"):
        found: Step = cell.begin(rows, features, training)
        return found
    takes = "training" in _arguments_of(cell.call)

    def step(x: Array, states: Any) -> tuple[Array, Any]:
        y, after = cell.call(x, states, **({"training": bool(training)} if takes else {}))
        return y, after if isinstance(after, list | tuple) else [after]

    return step


def _arguments_of(function: Any) -> tuple[str, ...]:
    code = getattr(function, "__func__", function).__code__
    names: tuple[str, ...] = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return names
