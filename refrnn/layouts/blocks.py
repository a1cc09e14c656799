"""An array of weights as a library stores it, and the blocks that it is made of.

A block is named by a letter for its part and one for its gate, "Wi" or "uf":

    W  input kernel      (F, H)     w  bias, or the input's bias   (H,)
    U  recurrent kernel  (P, H)     u  the state's bias            (H,)
    R  projection        (H, P)     p  peephole                    (H,)

F input features, H units, P the width of the hidden state: H where nothing is projected. R has no
gate. Taking an array apart and putting it together moves numbers and computes none.
"""

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import numpy as np

from refrnn.gates import Array

Blocks = dict[str, Array]


class Sizes(NamedTuple):
    features: int
    units: int
    width: int  # of the hidden state: units, or what they are projected to


class Slot(NamedTuple):
    """One stored array.

    name    the library's name for it
    blocks  what it holds: "W:igfo / U:igfo" is a row of W's blocks above a row of U's; "w:zrg u:g"
            is one row; "R" is the projection
    order   "columns": as written; "rows": transposed, a row for each unit of each gate;
            "raveled": each block is its own transpose, read in memory order
    """

    name: str
    blocks: str
    order: str = "columns"

    @property
    def grid(self) -> tuple[tuple[str, ...], ...]:
        """The names of the blocks, row by row."""
        return _grid(self.blocks)

    @property
    def parts(self) -> set[str]:
        """The letters of the parts it holds."""
        return {key[0] for row in self.grid for key in row}

    def shape(self, sizes: Sizes) -> tuple[int, ...]:
        """The shape of the stored array."""
        first = block_shape(self.grid[0][0], sizes)
        wide = len(self.grid[0]) * first[-1]
        if len(first) == 1:
            return (wide,) if len(self.grid) == 1 else (len(self.grid), wide)
        tall = sum(block_shape(row[0], sizes)[0] for row in self.grid)
        return (wide, tall) if self.order == "rows" else (tall, wide)

    def stored(self, blocks: Mapping[str, Array], sizes: Sizes) -> Array:
        """The array, from its blocks."""
        rows = [[self._turned(blocks[key]) for key in row] for row in self.grid]
        lines = [np.concatenate(row, axis=-1) for row in rows]
        if lines[0].ndim == 1:
            return np.stack(lines) if len(lines) > 1 else lines[0]
        whole = np.concatenate(lines)
        return np.ascontiguousarray(whole.T if self.order == "rows" else whole)

    def taken(self, array: Array, sizes: Sizes) -> Blocks:
        """The blocks of the array, copies."""
        whole = array.T if self.order == "rows" else array
        if len(block_shape(self.grid[0][0], sizes)) == 1:
            lines = list(np.atleast_2d(whole))
        else:
            tall = [block_shape(row[0], sizes)[0] for row in self.grid]
            lines = np.split(whole, np.cumsum(tall)[:-1])
        return {
            key: self._returned(block)
            for row, line in zip(self.grid, lines, strict=True)
            for key, block in zip(row, np.split(line, len(row), axis=-1), strict=True)
        }

    def _turned(self, block: Array) -> Array:
        if self.order == "raveled" and block.ndim == 2:
            return block.T.reshape(block.shape)
        return block

    def _returned(self, block: Array) -> Array:
        if self.order == "raveled" and block.ndim == 2:
            block = block.reshape(block.shape[::-1]).T
        return np.array(block, order="C")


@cache
def _grid(blocks: str) -> tuple[tuple[str, ...], ...]:
    def expanded(token: str) -> list[str]:
        part, _, gates = token.partition(":")
        return [part + gate for gate in gates] if gates else [part]

    return tuple(
        tuple(key for token in row.split() for key in expanded(token)) for row in blocks.split("/")
    )


def block_shape(key: str, sizes: Sizes) -> tuple[int, ...]:
    """The shape of a block."""
    F, H, P = sizes
    return {"W": (F, H), "U": (P, H), "R": (H, P)}.get(key[0], (H,))
