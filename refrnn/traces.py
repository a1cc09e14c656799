"""Trace: every gate of every step, with what it was made of; it can be told, and drawn."""

import os
from typing import TYPE_CHECKING, Any

from refrnn.cells import AnyGates, AnyState, Cell, Weights
from refrnn.gates import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Trace(tuple[Any, ...]):
    """What `refrnn.trace` returns: the gates by name, each (B, T, H), in processing order.

    It is the tuple of `refrnn.gates` that the cell computes: .i .f .g .o .c .h for "lstm", .z .r .g
    .h for the GRUs, .h for "simple", and .pre with the sums. Beside it are what went in:

    cell         the row of `refrnn.cells`, with its activations
    weights      `Weights`, biases of zero where there were none
    xs           (B, T, F), in the order in which they were given
    start        the state before the first step, each part (B, H)
    mask, reset  (B, T) of bool, in the order of xs, or None
    go_backwards whether the last step of xs was the first to be processed
    """

    gates: AnyGates
    cell: Cell
    weights: Weights
    xs: Array
    start: AnyState
    mask: Array | None
    reset: Array | None
    go_backwards: bool

    def __new__(cls, gates: AnyGates, **made_of: Any) -> "Trace":
        made = super().__new__(cls, gates)
        vars(made).update(made_of, gates=gates)
        return made

    def __getnewargs__(self) -> tuple[AnyGates]:
        return (self.gates,)

    def __getattr__(self, name: str) -> Any:
        """A gate, or what a named tuple has: _fields, _asdict, _replace."""
        if name == "gates" or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        return getattr(self.gates, name)

    def __repr__(self) -> str:
        B, T, _ = self.xs.shape
        H = self.gates.h.shape[-1]
        return f"<Trace of {self.cell.name!r}: {B} rows, {T} steps, {H} units, {self.xs.dtype}>"

    def summary(self) -> str:
        """In words: how open the gates are, what is saturated, how long it remembers, dead units.

        Masked steps are not counted. A gate is saturated within 0.01 of a bound of its activation.
        """
        from refrnn.study import summary

        return summary.told(self)

    def plot(
        self,
        path: "str | os.PathLike[str] | None" = None,
        row: int = 0,
        units: Any = None,
        title: str | None = None,
    ) -> "Figure":
        """Draw a row: the input, under it each gate as a heat map of time and units, and the state.

        path   where to write it, in the format of its suffix (.png, .svg, .pdf ...), replacing
               what is there; None for nowhere
        row    of the batch
        units  their numbers, in the order in which they are to be drawn; None for all of them, or
               for the 64 that move the most where there are more
        title  above it; None for the cell, its row and its sizes

        Returns the `matplotlib.figure.Figure`. Raises ImportError without matplotlib, ValueError
        for a row, a unit or a format that is not there, or where there is no step.
        """
        from refrnn.study import plots

        figure = plots.drawn(self, row, units, title)
        if path is not None:
            plots.saved(figure, path)
        return figure
