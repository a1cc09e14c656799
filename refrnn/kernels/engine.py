"""Packed weights, and runs and steps on them; nothing is compiled or loaded before `pack`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import cache
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np

from refrnn.cells import CELLS, AnyState, Cell, Weights
from refrnn.gates import Array
from refrnn.kernels.packing import panels
from refrnn.kernels.plan import (
    AHEAD,
    FEATURES,
    FIRST,
    FORGET,
    HEAD,
    HIDDEN,
    KEPT,
    KEPT_STEP,
    UNITS,
)
from refrnn.kernels.threads import allowed, together

DTYPES = ("float32", "float64")
NUMBERS = frozenset(map(np.dtype, DTYPES))
NO_MARKS = np.zeros((0, 0), np.uint8)

Entry = Callable[..., None]


class CompileError(RuntimeError):
    """The kernels cannot be compiled on this machine; the NumPy engine can be used instead."""


def supports(cell: Cell, dtype: Any) -> bool:
    """Whether there is a kernel: a row of CELLS as it is, tanh and sigmoid and no dropout."""
    return CELLS.get(cell.name) == cell and np.dtype(dtype) in NUMBERS


# --- the compiled loops ---

_compiling = threading.RLock()


@cache
def _compiled(cell_name: str, dtype_name: str, back: bool = False) -> tuple[Entry, int]:
    """The machine code of a loop, or of that backwards, and the lanes of its vectors."""
    return _made("backloops" if back else "loops", cell_name, dtype_name)


@cache
def _multiplying(dtype_name: str) -> tuple[Entry, int]:
    """The machine code of a product of matrices, and the lanes of its vectors."""
    return _made("productloops", "product", dtype_name)


def _made(module: str, name: str, dtype_name: str) -> tuple[Entry, int]:
    try:
        import numba

        from refrnn.kernels import loops

        config: Any = numba.config  # its variables are made when it is imported
        if config.DISABLE_JIT:
            raise RuntimeError("NUMBA_DISABLE_JIT is set")
        machine, size = loops.host(), np.dtype(dtype_name).itemsize
        maker: Any = import_module(f"refrnn.kernels.{module}")
        signature = maker.signature(numba.from_dtype(np.dtype(dtype_name)))
        try:
            compiled = maker.loop(name, size, machine, cached=True)
            compiled.compile(signature)
        except Exception:  # nowhere to write, or a damaged cache: anything else fails again
            compiled = maker.loop(name, size, machine, cached=False)
            compiled.compile(signature)
        # to be called directly: the types are known, Numba need not look them up each time
        return compiled.overloads[signature].entry_point, machine.lanes(size)
    except Exception as error:
        raise CompileError(
            f"the kernel of {name!r} for {dtype_name} cannot be compiled here, because of"
            f" {type(error).__name__}: {error}; the NumPy engine needs no compiler"
        ) from error


def _renew_lock() -> None:
    """A forked process does not have the thread that may have held the lock."""
    global _compiling
    _compiling = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


# --- runs ---

# A thread gets at least so many multiply-adds, 100 microseconds' worth; to hand work over and to
# wait for it costs 20 to 60. One step of one row is never worth it.
WORK = 10_000_000
CELL_WORK = 100  # what the cell of one unit costs, in multiply-adds

FEW = 4  # rows up to which sums of the input are made ahead,
STEPS_AHEAD = 32  # and for how many steps
LINE = 8  # int64 in a cache line, on which working memory begins


class Packed:
    """The weights of one layer as the kernels read them, and the machine code for them.

    It holds a copy: after a change of the weights, pack again. It is never changed, so threads may
    share it. It cannot be pickled, because it holds addresses; a copy of it is itself.
    """

    _loop = ""  # what the name of the loop has beside that of the cell

    def __init__(self, cell: Cell, weights: Weights) -> None:
        self.cell = cell
        self.dtype = weights.kernel.dtype
        self.features, self.units = len(weights.kernel), len(weights.recurrent_kernel)
        with _compiling:
            self._entry, self._lanes = _compiled(cell.name + self._loop, self.dtype.name)
        self._two_stages = cell.name == "gru_reset_before"
        self._panels = panels(cell, weights, self._lanes)
        self._head = np.zeros(HEAD, np.int64)
        self._head[FEATURES], self._head[UNITS] = self.features, self.units
        for entry, array in self._panels.items():
            self._head[entry] = array.ctypes.data

    def __deepcopy__(self, memo: Any) -> Packed:
        return self

    def __reduce__(self) -> Any:
        raise TypeError("packed weights cannot be pickled: they hold addresses; pack them again")

    def run(
        self,
        xs: Array,
        state: AnyState,
        mask: Array | None = None,
        reset: Array | None = None,
        go_backwards: bool = False,
        zero_output_for_mask: bool = False,
        last_output: Array | None = None,
        threads: int | None = None,
    ) -> tuple[Array, AnyState]:
        """All outputs (B, T, H) and the state after the last step; arguments as `reference.run`.

        threads  how many threads may share the rows; None for as many as NUMBA_NUM_THREADS says
        """
        parts = self._parts(state, last_output)
        settings = go_backwards, mask is not None or reset is not None, zero_output_for_mask
        marks = marked(xs, mask, reset)
        ys = self._advance(self._readable(xs), parts, marks, settings, threads)
        return ys, type(state)(*parts[:-1])

    def _advance(
        self,
        xs: Array,
        parts: Array,
        marks: Array,
        settings: tuple[bool, bool, bool],
        threads: int | None,
        kept: Array | None = None,
    ) -> Array:
        """The outputs of a run; `parts` are taken on.

        kept  (T, B, numbers), where steps keep what the way back needs
        """
        B, T, _ = xs.shape
        ys = np.empty((B, T, self.units), self.dtype)
        cuts = self._cuts(B, T, threads)
        plans = [self._plan(first, last, T, settings) for first, last in pairwise(cuts)]
        if kept is not None:
            for plan in plans:
                plan[KEPT : KEPT_STEP + 1] = kept.ctypes.data, kept.strides[1], kept.strides[0]
        arrays = xs, ys.reshape(B, T * self.units), parts, marks
        together(self._entry, [(plan, *arrays) for plan in plans])
        return ys

    def stepper(self, state: AnyState, threads: int | None = None) -> Stepper:
        """What takes sequences on from `state` one step at a time; `threads` as for `run`."""
        return Stepper(self, state, threads)

    def _parts(self, state: AnyState, last_output: Array | None) -> Array:
        """The parts of the state and the last output, (parts + 1, B, H): a copy."""
        rows, units = state.h.shape
        if units != self.units:  # else memory beyond it would be read
            raise ValueError(f"the state has {units} units, expected {self.units}")
        parts = np.empty((len(state) + 1, rows, units), self.dtype)
        for k, part in enumerate(state):
            parts[k] = part
        parts[-1] = 0 if last_output is None else last_output
        return parts

    def _readable(self, xs: Array) -> Array:
        """`xs` with the features of a step side by side."""
        if xs.shape[2] != self.features:  # else memory beyond it would be read
            raise ValueError(f"the input has {xs.shape[2]} features, expected {self.features}")
        if xs.strides[2] == xs.itemsize and xs.flags.aligned and xs.dtype == self.dtype:
            return xs
        return np.ascontiguousarray(xs, self.dtype)

    def _cuts(
        self, rows: int, steps: int, threads: int | None, pieces: int | None = None
    ) -> list[int]:
        """Where the rows, or `pieces` of them, are cut into shares, one for each thread."""
        a_unit = len(self.cell.gates) * (self.features + self.units) + CELL_WORK
        pieces = rows if pieces is None else pieces
        shares = min(pieces, rows * steps * self.units * a_unit // WORK)
        shares = min(shares, allowed(threads)) if shares > 1 else 1
        return [pieces * k // shares for k in range(shares + 1)]

    def _plan(self, first: int, last: int, steps: int, settings: tuple[bool, bool, bool]) -> Array:
        """The plan of rows first ... last - 1, with room for what the loop keeps."""
        rows = last - first
        ahead = 0
        if 1 < steps and rows <= FEW and not self._two_stages:
            ahead = min(steps, STEPS_AHEAD)
        padded = -(-self.units // self._lanes) * self._lanes
        numbers = rows * max(ahead * padded * len(self.cell.gates), 2 * self.units)
        room = LINE + -(-numbers * self.dtype.itemsize // 8)
        plan = np.empty(HEAD + rows + ahead + room, np.int64)
        plan[:HEAD] = self._head
        plan[FIRST : AHEAD + 1] = (first, last, *settings, ahead)
        return plan


class Stepper:
    """Sequences taken on one step at a time, with everything that a step needs laid out before."""

    def __init__(self, packed: Packed, state: AnyState, threads: int | None) -> None:
        rows = len(state.h)
        self._packed = packed  # its panels must outlive the addresses in the plans
        self._entry = packed._entry
        self._shape = rows, packed.units
        self._dtype = packed.dtype
        self._kind = type(state)
        self._parts = packed._parts(state, None)
        self._xs = np.empty((rows, 1, packed.features), packed.dtype)
        self._x = self._xs[:, 0]
        cuts = packed._cuts(rows, 1, threads)
        settings = (False, False, False)
        self._plans = [packed._plan(first, last, 1, settings) for first, last in pairwise(cuts)]

    def __reduce__(self) -> Any:
        raise TypeError("a stepper cannot be copied: it holds addresses; make one from its state")

    @property
    def state(self) -> AnyState:
        """The state after the last step: views of it, so that writing to them sets it."""
        return self._kind(*self._parts[:-1])

    def step(self, x: Array, out: Array | None = None) -> Array:
        """The output (B, H) of one step on x (B, F).

        out  where to write it, C-contiguous (B, H); a new array by default
        """
        self._x[...] = x
        if out is None:
            y = np.empty(self._shape, self._dtype)
        elif out.shape == self._shape and out.dtype == self._dtype and out.flags.c_contiguous:
            y = out
        else:  # memory beyond it would be written
            raise ValueError(
                f"out is {out.dtype} of shape {out.shape}, strides {out.strides}, expected"
                f" C-contiguous {self._dtype} of shape {self._shape}"
            )
        if len(self._plans) == 1:
            self._entry(self._plans[0], self._xs, y, self._parts, NO_MARKS)
        else:
            together(self._entry, [(p, self._xs, y, self._parts, NO_MARKS) for p in self._plans])
        return y


def marked(xs: Array, mask: Array | None, reset: Array | None) -> Array:
    """Masked steps and resets of an input as the loop reads them."""
    if mask is None and reset is None:
        return NO_MARKS
    marks = np.zeros(xs.shape[:2], np.uint8)
    if mask is not None:
        marks[~mask] = HIDDEN
    if reset is not None:
        marks[reset] |= FORGET
    return marks


def pack(cell: Cell, weights: Weights) -> Packed:
    """`weights` prepared for runs of `cell`; for what is not `supports`-ed, ValueError.

    Raises CompileError where the kernel cannot be compiled or loaded.
    """
    if not supports(cell, weights.kernel.dtype):
        raise ValueError(
            f"{cell.name}: there is no kernel for {weights.kernel.dtype} with these activations,"
            " expected float32 or float64 and the activations of refrnn.cells.CELLS"
        )
    return Packed(cell, weights)


def run(
    cell: Cell, weights: Weights, xs: Array, state: AnyState, **options: Any
) -> tuple[Array, AnyState]:
    """`pack` and `Packed.run` at once: as `reference.run`."""
    return pack(cell, weights).run(xs, state, **options)
