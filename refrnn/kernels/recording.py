"""Runs that know the way back: the gradients of all that went into them.

The bits of the outputs are those of `Packed.run`, and those of dxs, dstate and dlast_output depend
on their own row alone. The gradients of the weights are sums, cut in an order of their own: over
the steps of a share of the rows, the last one first, a few steps at a time; then over the shares.
Where they are cut depends on the shapes and the mask, never on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from refrnn.cells import AnyState, Cell, Weights
from refrnn.gates import Array
from refrnn.kernels import engine
from refrnn.kernels.backplan import (
    BACKWARDS,
    FIRST,
    HEAD,
    INPUTS,
    ROWS,
    SHARES,
    UNITS,
    WINDOW,
)
from refrnn.kernels.engine import LINE, NO_MARKS, Packed, marked, supports
from refrnn.kernels.threads import together

CELLS = ("simple", "gru", "lstm")  # those of `backs.WAYS`, which is not imported before it is used

SHARE = 30  # rows of a share at most: full tiles
SLOTS = 128  # rows and steps whose outer products are added at once, at least those of a step


class Gradients(NamedTuple):
    """Named as in `refrnn.backward.Gradients`; the bias is there, or counts as zeros."""

    dkernel: Array
    drecurrent_kernel: Array
    dbias: Array
    dxs: Any  # None where it was not asked for
    dstate: AnyState
    dlast_output: Array


Back = Callable[..., Gradients]


def goes_back(cell: Cell, dtype: Any) -> bool:
    """Whether there is a kernel for the way back."""
    return supports(cell, dtype) and cell.name in CELLS


class Recorder(Packed):
    """`Packed`, for runs that keep what the way back needs."""

    _loop = "_kept"

    def __init__(self, cell: Cell, weights: Weights) -> None:
        super().__init__(cell, weights)
        with engine._compiling:
            self._back, _ = engine._compiled(cell.name, self.dtype.name, back=True)
        from refrnn.kernels import backs

        self._way = backs.WAYS[cell.name]
        self._blocks = -(-self.units // self._lanes)
        # a copy, as the panels are
        self._kernels = tuple(np.array(w, order="C") for w in weights[:2])

    def record(
        self,
        xs: Array,
        state: AnyState,
        mask: Array | None = None,
        reset: Array | None = None,
        go_backwards: bool = False,
        zero_output_for_mask: bool = False,
        last_output: Array | None = None,
        threads: int | None = None,
    ) -> tuple[Array, AnyState, Back]:
        """As `Packed.run`, and the function that goes back, once:

            back(dys, dlast_output, dstate, truncate=None, inputs=True) -> Gradients

        with arguments as for `refrnn.backward.loop.record`. The input and the outputs must not be
        written to before.
        """
        xs, parts = self._readable(xs), self._parts(state, last_output)
        start, marks = parts[0].copy(), marked(xs, mask, reset)
        settings = go_backwards, marks is not NO_MARKS, zero_output_for_mask
        rows, steps, _ = xs.shape
        kept = np.empty((steps, rows, self._blocks * self._way.kept * self._lanes), self.dtype)
        ys = self._advance(xs, parts, marks, settings, threads, kept)

        def back(
            dys: Array | None,
            dlast_output: Array | None,
            dstate: AnyState | None,
            truncate: int | None = None,
            inputs: bool = True,
        ) -> Gradients:
            given = np.zeros_like(parts)
            for part, array in zip(given, dstate or (), strict=False):
                part[...] = array
            given[-1] = 0 if dlast_output is None else dlast_output
            if dys is None:
                zeros = np.zeros(self.units, self.dtype)
                dys = np.ndarray(ys.shape, self.dtype, zeros, strides=(0, 0, zeros.itemsize))
            elif dys.strides[2] != dys.itemsize or not dys.flags.aligned:
                dys = np.ascontiguousarray(dys)
            dxs = (np.zeros if settings[1] else np.empty)(xs.shape, self.dtype)
            shares = max(1, -(-rows // SHARE))
            slot = self._blocks * self._way.gates * self._lanes
            height = self.units + self.features + 1 + self._way.apart
            dweights = np.zeros((shares, height * slot), self.dtype)
            cuts = self._cuts(rows, steps, threads, shares)
            calls = []
            for first, last in pairwise(cuts):
                plan = self._back_plan(first, last, shares, rows, steps)
                plan[BACKWARDS : INPUTS + 1] = (*settings, truncate or 0, inputs)
                room = np.empty(self._room(plan), self.dtype)
                calls.append(
                    (plan, xs, ys, start, kept, dys, given, *self._kernels, marks, room, dxs,
                     dweights)
                )  # fmt: skip
            together(self._back, calls)
            dstates = type(state)(*given[:-1])
            return Gradients(*self._unpacked(dweights), dxs if inputs else None, dstates, given[-1])

        return ys, type(state)(*parts[:-1]), back

    def _back_plan(self, first: int, last: int, shares: int, rows: int, steps: int) -> Array:
        """The plan of shares first ... last - 1."""
        high = -(-rows // shares)
        slots = max(SLOTS, high)
        plan = np.empty(HEAD + high * (1 + steps) + 3 * slots, np.int64)
        plan[FIRST : SHARES + 1] = first, last, shares
        plan[UNITS : WINDOW + 1] = self.units, high, slots
        return plan

    def _room(self, plan: Array) -> int:
        """How many numbers of working memory the loop needs; `backloops` says for what."""
        row, inputs = self._blocks * self._lanes, -(-self.features // self._lanes)
        slot = row * self._way.gates
        panels = (self._blocks + inputs) * self._lanes * slot
        slots = int(plan[WINDOW]) * slot * (1 + self._way.apart)
        return panels + slots + (4 * int(plan[ROWS]) + 1) * row + 1 + LINE * 8

    def _unpacked(self, dweights: Array) -> tuple[Array, Array, Array]:
        """Of the kernel, the recurrent kernel and the bias, added up over the shares in order."""
        total = dweights[0]
        for share in dweights[1:]:
            total += share
        H, F, gates = self.units, self.features, self._way.gates
        padded = total.reshape(-1, gates, self._blocks * self._lanes)
        flat = padded[:, :, :H].reshape(len(padded), gates * H)
        bias = flat[H + F :] if self._way.apart else flat[-1]
        return flat[H : H + F].copy(), flat[:H].copy(), bias.copy()


def recorder(cell: Cell, weights: Weights) -> Recorder:
    """`weights` prepared for runs of `cell` and back; ValueError for what does not `goes_back`.

    Raises CompileError where the kernels cannot be compiled or loaded.
    """
    if not goes_back(cell, weights.kernel.dtype):
        raise ValueError(
            f"{cell.name}: there is no kernel back for {weights.kernel.dtype} with these"
            " activations, expected float32 or float64 and 'simple', 'gru' or 'lstm' with the"
            " activations of refrnn.cells.CELLS"
        )
    return Recorder(cell, weights)
