"""The loop over time, compiled by Numba: one function for each cell and dtype.

The step rule is that of `refrnn.reference`. Where it keeps a row's state, the row is not computed.
"""

import hashlib
from pathlib import Path
from typing import Any

import numba
from numba import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from refrnn.kernels.formulas import STAGES
from refrnn.kernels.host import Machine, machine
from refrnn.kernels.plan import (
    AHEAD,
    BACKWARDS,
    C_ROW,
    FIRST,
    FORGET,
    H_ROW,
    HEAD,
    HIDDEN,
    KEPT,
    KEPT_STEP,
    LAST,
    MASKED,
    OUT,
    OUT_ROW,
    RH,
    RH_ROW,
    SUMS,
    SUMS_ROW,
    UNITS,
    X_ROW,
    Z_ROW,
    ZERO_OUTPUT,
    C,
    H,
    X,
    Z,
)
from refrnn.kernels.tiles import INPUT_SUMS, TALLEST, sums_at_once, tiles
from refrnn.kernels.vectors import float32, float64

CELLS = tuple(STAGES)


def host() -> Machine:
    """The machine that Numba compiles for."""
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    return machine(triple, features)


def _version() -> int:
    """A number that changes with the code generator: Numba's cache looks at this file alone."""
    digest = hashlib.sha256()
    for name in ("formulas.py", "plan.py", "tiles.py", "vectors.py"):
        digest.update(Path(__file__).with_name(name).read_bytes())
    return int.from_bytes(digest.digest()[:7], "big")


def _run_tile(
    typing_context: Any, cell: Any, size: Any, width: Any, registers: Any, fma: Any, version: Any,
    plan: Any, numbers: Any, rows: Any, block: Any, blocks: Any, stage: Any,
) -> Any:  # fmt: skip
    """A call of `tiles.tiles`; the first six arguments are literal and say which."""
    literals = cell, size, width, registers, fma, version
    made_for = Machine(width.literal_value, registers.literal_value, bool(fma.literal_value))
    make = {4: float32, 8: float64}[size.literal_value]
    form = make(made_for.lanes(size.literal_value), made_for.fma)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        name = CELLS[cell.literal_value]
        function = tiles(builder.module, form, name, made_for.registers)
        builder.call(function, arguments[len(literals) :])
        return context.get_dummy_value()

    return types.void(*literals, *[types.int64] * 6), emit


run_tile: Any = intrinsic(prefer_literal=True)(_run_tile)


def signature(number: Any) -> Any:
    """The argument types of a loop on float32 or float64 numbers."""
    return (
        types.Array(types.int64, 1, "C"),
        types.Array(number, 3, "A"),
        types.Array(number, 2, "C"),
        types.Array(number, 3, "C"),
        types.Array(types.uint8, 2, "C"),
    )


def loop(cell_name: str, size: int, made_for: Machine, cached: bool) -> Any:
    """The Numba function (plan, x, y, state, marks) of a cell; it is not compiled here.

    plan   see `plan.py`
    x      (B, T, F), the last axis contiguous
    y      (B, T * H)
    state  (parts, B, H): h, for an LSTM c, and the last output; advanced in place
    marks  (B, T) of HIDDEN where the step is masked and FORGET where the row forgets before it;
           read if plan[MASKED]
    """
    # Numba's cache tells closures apart by these values, which must be plain numbers for it
    cell = CELLS.index(cell_name)
    gates = tuple(stage.gates for stage in STAGES[cell_name])
    width, registers, fma, version = made_for.width, made_for.registers, made_for.fma, _version()
    lanes = made_for.lanes(size)
    most_sums = sums_at_once(registers)

    def run(plan: Any, x: Any, y: Any, state: Any, marks: Any) -> None:
        base = plan.ctypes.data
        first, last, units = plan[FIRST], plan[LAST], plan[UNITS]
        backwards, masked, ahead = plan[BACKWARDS] != 0, plan[MASKED] != 0, plan[AHEAD]
        last_output = state.shape[0] - 1
        steps, blocks = x.shape[1], (units + lanes - 1) // lanes

        def sweep(stage: int, a_unit: int, numbers: int, count: int) -> None:
            """Advance `count` rows, listed in the plan from entry `numbers` on, by one stage."""
            parts = (count - 1) // min(TALLEST, most_sums // a_unit) + 1
            high = (count - 1) // parts + 1
            block = 0
            while block < blocks:
                wide = 4
                while wide > 1 and (wide * high * a_unit > most_sums or block + wide > blocks):
                    wide //= 2
                for part in range(parts):
                    begin, end = count * part // parts, count * (part + 1) // parts
                    run_tile(
                        cell, size, width, registers, fma, version,
                        base, base + 8 * (numbers + begin), end - begin, block, wide, stage,
                    )  # fmt: skip
                block += wide

        rows = HEAD
        times = rows + last - first
        room = (base + 8 * (times + ahead) + 63) & ~63
        for k in range(last - first):
            plan[rows + k] = first + k
        for k in range(ahead):
            plan[times + k] = k

        start, step = x.ctypes.data, x.strides[1]
        if backwards:
            start, step = start + (steps - 1) * step, -step
        row_bytes, sum_bytes = units * size, blocks * lanes * gates[0] * size
        plan[H], plan[H_ROW] = state.ctypes.data, row_bytes
        plan[C], plan[C_ROW] = state.ctypes.data + state.strides[0], row_bytes
        plan[OUT_ROW] = y.strides[0]
        plan[SUMS] = 0
        if len(gates) == 2:
            plan[Z], plan[Z_ROW] = room - first * row_bytes, row_bytes
            plan[RH], plan[RH_ROW] = plan[Z] + (last - first) * row_bytes, row_bytes

        for t in range(steps):
            if ahead > 0:
                s = t % ahead
                if s == 0:
                    plan[X_ROW], plan[SUMS_ROW] = step, sum_bytes
                    for row in range(first, last):
                        plan[X] = start + row * x.strides[0] + t * step
                        plan[SUMS] = room + (row - first) * ahead * sum_bytes
                        sweep(INPUT_SUMS, gates[0], times, min(ahead, steps - t))
                plan[SUMS], plan[SUMS_ROW] = (
                    room + (s - first * ahead) * sum_bytes,
                    ahead * sum_bytes,
                )
            plan[X], plan[X_ROW] = start + t * step, x.strides[0]
            plan[OUT] = y.ctypes.data + t * row_bytes

            here = t * units
            count = last - first
            if masked:
                count = 0
                mark = steps - 1 - t if backwards else t
                for row in range(first, last):
                    forget = marks[row, mark] & FORGET != 0
                    if forget:
                        for part in range(state.shape[0]):
                            for unit in range(units):
                                state[part, row, unit] = 0
                    if marks[row, mark] & HIDDEN == 0:
                        plan[rows + count] = row
                        count += 1
                    else:
                        for unit in range(units):
                            if forget or plan[ZERO_OUTPUT] != 0:
                                y[row, here + unit] = 0
                            elif t == 0:
                                y[row, unit] = state[last_output, row, unit]
                            else:
                                y[row, here + unit] = y[row, here - units + unit]
            if count > 0:
                for stage in range(len(gates)):
                    sweep(stage, gates[stage], rows, count)
            if masked:
                for k in range(count):
                    for unit in range(units):
                        state[0, plan[rows + k], unit] = y[plan[rows + k], here + unit]
            else:  # the output is the state that the next step reads
                plan[H], plan[H_ROW] = plan[OUT], y.strides[0]
            plan[KEPT] += plan[KEPT_STEP]
        if steps > 0 and not masked:
            for row in range(first, last):
                for unit in range(units):
                    state[0, row, unit] = y[row, (steps - 1) * units + unit]

    return numba.njit(nogil=True, cache=cached)(run)
