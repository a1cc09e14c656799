"""What layouts are read into and written from: blocks, their sizes, and what is computed."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layouts.blocks import Blocks, Sizes
from refrnn.layouts.table import LAYOUTS, Form, Layout


class Function(NamedTuple):
    """What is computed with the blocks, beside the cell: refrnn's names, infinity for no clip."""

    act: str = "tanh"
    rec: str = "sigmoid"
    forget_bias: float = 0.0  # added to the sum of f
    cell_clip: float = np.inf  # bound of c
    clip: float = np.inf  # bound of the sums
    input_forget: bool = False  # f is 1 - i


class Pass(NamedTuple):
    """One direction of one layer; without biases it has no block of w or u."""

    sizes: Sizes
    blocks: Blocks


class Hub(NamedTuple):
    cell: str
    function: Function
    layers: list[list[Pass]]  # [layer][direction]

    @property
    def passes(self) -> list[Pass]:
        return [one for layer in self.layers for one in layer]

    @property
    def dtype(self) -> np.dtype[Any]:
        return next(iter(self.passes[0].blocks.values())).dtype


class Stored(dict[str, Array]):
    """Arrays by the names that a library gives them, and what they mean.

    layout, cell  whose they are
    attributes    what the library must be told beside them, by its own names: sizes, activations,
                  linear_before_reset, forget_bias, ...
    lossy         which lossy steps were allowed on the way here
    kept          for the way back: what these arrays cannot give back bit for bit, in the layout
                  that they came from; None where there is nothing
    """

    def __init__(
        self,
        arrays: Mapping[str, Array],
        layout: str,
        cell: str,
        attributes: Mapping[str, Any] | None = None,
        lossy: Sequence[str] = (),
        kept: "Stored | None" = None,
    ) -> None:
        super().__init__(arrays)
        self.layout = layout
        self.cell = cell
        self.attributes = dict(attributes or {})
        self.lossy = tuple(lossy)
        self.kept = kept


def row(what: str, name: Any) -> Layout:
    """The row of LAYOUTS called `name`."""
    if not isinstance(name, str) or name not in LAYOUTS:
        raise ValueError(f"{what} is {name!r}, expected one of {', '.join(map(repr, LAYOUTS))}")
    return LAYOUTS[name]


OTHER_FAMILY = {"gru": "gru_reset_before", "gru_reset_before": "gru"}


def form(layout: Layout, cell: Any) -> Form:
    """The layout's form of a cell."""
    if isinstance(cell, str) and cell in layout.cells:
        return layout.cells[cell]
    checks.cell(cell)
    other = OTHER_FAMILY.get(cell)
    if other in layout.cells:
        raise ValueError(
            f"{layout.name} has {other!r} and no {cell!r}, expected {other!r}: the reset gate acts"
            f" {'before' if cell == 'gru' else 'after'} the recurrent product there, which is"
            " another function of the same weights (they differ by about 0.2); only"
            " refrnn.layouts.equivalents.other_family bridges the two, for a diagonal candidate"
        )
    raise ValueError(
        f"{layout.name} has no {cell!r}, expected one of {', '.join(map(repr, layout.cells))}"
    )
