"""The loop over time backwards, compiled by Numba: one function for each cell and dtype.

Its rule is that of `refrnn.backward.loop`. The rows are cut into shares, which are gone through one
by one. A step of a share puts the gradients of its sums into slots. When the next step's would find
no room there, the outer products of the slots and their inputs and states are added to the share's
own gradients of the weights: over the slots in order, then to what is there.
"""

import hashlib
from pathlib import Path
from typing import Any

import numba
from numba import types
from numba.extending import intrinsic

from refrnn.kernels.backplan import (
    BACKWARDS,
    DC,
    DIRECT,
    DOUT,
    DU,
    DX,
    DY,
    DY_ROW,
    FIRST,
    HEAD,
    INPUTS,
    KEPT,
    KEPT_ROW,
    LAST,
    MASKED,
    OWN_ROW,
    ROWS,
    SHARES,
    SLOT,
    SUMS,
    TRUNCATE,
    UNITS,
    WINDOW,
    ZERO_OUTPUT,
)
from refrnn.kernels.backs import ARGUMENTS, WAYS, any_tile, step_back
from refrnn.kernels.host import Machine
from refrnn.kernels.plan import FORGET, HIDDEN
from refrnn.kernels.tiles import TALLEST, sums_at_once
from refrnn.kernels.vectors import float32, float64

CELLS = tuple(WAYS)


def _version() -> int:
    """A number that changes with the code generator: Numba's cache looks at this file alone."""
    digest = hashlib.sha256()
    for name in ("backplan.py", "backs.py", "plan.py", "tiles.py", "vectors.py"):
        digest.update(Path(__file__).with_name(name).read_bytes())
    return int.from_bytes(digest.digest()[:7], "big")


def _form(size: Any, width: Any, registers: Any, fma: Any) -> tuple[Any, int]:
    """The vector format that literal types name, and the registers."""
    made_for = Machine(width.literal_value, registers.literal_value, bool(fma.literal_value))
    make = {4: float32, 8: float64}[size.literal_value]
    return make(made_for.lanes(size.literal_value), made_for.fma), made_for.registers


def _step(
    typing_context: Any, cell: Any, size: Any, width: Any, registers: Any, fma: Any, version: Any,
    plan: Any, numbers: Any, rows: Any,
) -> Any:  # fmt: skip
    """A call of `backs.step_back`; the first six arguments are literal and say which."""
    form, _ = _form(size, width, registers, fma)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = step_back(builder.module, form, CELLS[cell.literal_value])
        builder.call(function, arguments[6:])
        return context.get_dummy_value()

    return types.void(cell, size, width, registers, fma, version, *[types.int64] * 3), emit


def _tile(kind: str, form: Any, registers: int, literals: tuple[Any, ...]) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.call(any_tile(builder.module, form, kind, registers), arguments[len(literals) :])
        return context.get_dummy_value()

    return types.void(*literals, *[types.int64] * (2 + ARGUMENTS[kind])), emit


def _product(
    typing_context: Any, size: Any, width: Any, registers: Any, fma: Any,
    rows: Any, blocks: Any, numbers: Any, factor: Any, factor_row: Any, count: Any,
    panel: Any, panel_block: Any, target: Any, target_row: Any, left: Any,
) -> Any:  # fmt: skip
    """A call of a `backs.product_tile`; the first four arguments are literal."""
    form, number = _form(size, width, registers, fma)
    return _tile("product", form, number, (size, width, registers, fma))


def _outer(
    typing_context: Any, size: Any, width: Any, registers: Any, fma: Any,
    rows: Any, blocks: Any, factors: Any, offset: Any, count: Any,
    vectors: Any, vectors_row: Any, target: Any, target_row: Any,
) -> Any:  # fmt: skip
    """A call of a `backs.outer_tile`; the first four arguments are literal."""
    form, number = _form(size, width, registers, fma)
    return _tile("outer", form, number, (size, width, registers, fma))


run_step: Any = intrinsic(prefer_literal=True)(_step)
run_product: Any = intrinsic(prefer_literal=True)(_product)
run_outer: Any = intrinsic(prefer_literal=True)(_outer)


def signature(number: Any) -> Any:
    """The argument types of a loop on float32 or float64 numbers."""
    any_3, c_3 = types.Array(number, 3, "A"), types.Array(number, 3, "C")
    c_1, c_2 = types.Array(number, 1, "C"), types.Array(number, 2, "C")
    plan, marks = types.Array(types.int64, 1, "C"), types.Array(types.uint8, 2, "C")
    return (plan, any_3, c_3, c_2, c_3, any_3, c_3, c_2, c_2, marks, c_1, c_3, c_2)


def loop(cell_name: str, size: int, made_for: Machine, cached: bool) -> Any:
    """The Numba function of a cell; it is not compiled here.

        (plan, x, ys, start, kept, dys, given, kernel, recurrent, marks, room, dxs, dweights)

    plan       see `backplan.py`
    x, ys      (B, T, F), the last axis contiguous, and the outputs (B, T, H)
    start      (B, H), the state h before the first step
    kept       (T, B, blocks * kept * lanes), what the steps kept, in processing order
    dys        (B, T, H), the last axis contiguous
    given      (parts, B, H): of h, for an LSTM of c, and of the last output; taken back in place
    kernel, recurrent
               (F, G*H) and (H, G*H)
    marks      as in `loops.loop`
    room       working memory
    dxs        (B, T, F), zeros where the step is masked; written elsewhere
    dweights   (SHARES, (H + F + 1) * slot), of a cell with sums apart one slot more: of the
               recurrent kernel, the kernel, and the bias or biases, as [row][gate][block][lane];
               added to
    """
    # Numba's cache tells closures apart by these values, which must be plain numbers for it
    cell = CELLS.index(cell_name)
    way = WAYS[cell_name]
    gates, apart, carries = way.gates, way.apart, way.carries
    width, registers, fma, version = made_for.width, made_for.registers, made_for.fma, _version()
    lanes = made_for.lanes(size)
    most = sums_at_once(registers)

    def run(
        plan: Any, x: Any, ys: Any, start: Any, kept: Any, dys: Any, given: Any,
        kernel: Any, recurrent: Any, marks: Any, room: Any, dxs: Any, dweights: Any,
    ) -> None:  # fmt: skip
        base = plan.ctypes.data
        batch, steps, features = x.shape
        units, shares, window = plan[UNITS], plan[SHARES], plan[WINDOW]
        backwards, masked, piece = plan[BACKWARDS] != 0, plan[MASKED] != 0, plan[TRUNCATE]
        blocks, input_blocks = (units + lanes - 1) // lanes, (features + lanes - 1) // lanes
        slot = blocks * gates * lanes  # numbers in a slot
        last_output = given.shape[0] - 1

        def products(
            count: int, target: int, target_row: int, numbers: int, factor: int, panel: int,
            columns: int,
        ) -> None:  # fmt: skip
            """target[number] = factor @ panel, for `count` rows of `columns` columns."""
            block, width_in_blocks = 0, (columns + lanes - 1) // lanes
            while block < width_in_blocks:
                wide = 4
                while block + wide > width_in_blocks:
                    wide //= 2
                parts = (count - 1) // min(TALLEST, most // wide) + 1
                for part in range(parts):
                    begin, end = count * part // parts, count * (part + 1) // parts
                    run_product(
                        size, width, registers, fma,
                        end - begin, wide, numbers + 8 * begin, factor + begin * slot * size,
                        slot * size, slot, panel + block * slot * lanes * size, slot * lanes * size,
                        target + block * lanes * size, target_row, columns - block * lanes,
                    )  # fmt: skip
                block += wide

        def outers(factors: int, high: int, vectors: int, count: int, target: int) -> None:
            """target (high, slot) += the sum of the outer products of `count` slots."""
            block, vectors_in_slot = 0, blocks * gates
            while block < vectors_in_slot:
                wide = 4
                while block + wide > vectors_in_slot:
                    wide //= 2
                parts = (high - 1) // min(TALLEST, most // wide) + 1
                for part in range(parts):
                    begin, end = high * part // parts, high * (part + 1) // parts
                    run_outer(
                        size, width, registers, fma,
                        end - begin, wide, base + 8 * factors, begin * size, count,
                        vectors + block * lanes * size, slot * size,
                        target + (begin * slot + block * lanes) * size, slot * size,
                    )  # fmt: skip
                block += wide

        rows = HEAD
        of_x = rows + plan[ROWS]
        of_h = of_x + window
        ones = of_h + window
        before = ones + window

        # working memory, in numbers
        at = ((room.ctypes.data + 63) // 64 * 64 - room.ctypes.data) // size
        u_panel = at
        w_panel = u_panel + blocks * slot * lanes
        x_slots = w_panel + input_blocks * slot * lanes
        u_slots = x_slots + (window * slot if apart else 0)
        own = u_slots + window * slot
        own_numbers = plan[ROWS] * blocks * lanes
        zeros = own + 4 * own_numbers
        one = zeros + blocks * lanes
        room_at = room.ctypes.data
        for k in range(zeros, one):
            room[k] = 0
        room[one] = 1

        for panel, matrix, columns in ((u_panel, recurrent, units), (w_panel, kernel, features)):
            for column in range((columns + lanes - 1) // lanes * lanes):
                block, lane = column // lanes, column % lanes
                for g in range(gates):
                    for unit in range(blocks * lanes):
                        k = g * blocks * lanes + unit
                        inside = column < columns and unit < units
                        room[panel + (block * slot + k) * lanes + lane] = (
                            matrix[column, g * units + unit] if inside else 0
                        )

        start_x, step_x = x.ctypes.data, x.strides[1]
        if backwards:
            start_x, step_x = start_x + (steps - 1) * step_x, -step_x
        row_bytes, own_row = units * size, blocks * lanes
        plan[SLOT], plan[OWN_ROW] = slot * size, own_row * size
        plan[KEPT_ROW], plan[DY_ROW] = kept.strides[1], dys.strides[0]
        for k in range(window):
            plan[ones + k] = room_at + one * size

        for share in range(plan[FIRST], plan[LAST]):
            first, last = batch * share // shares, batch * (share + 1) // shares
            plan[DIRECT] = room_at + (own - first * own_row) * size
            plan[SUMS] = plan[DIRECT] + own_numbers * size
            plan[DOUT] = plan[SUMS] + own_numbers * size
            plan[DC] = plan[DOUT] + own_numbers * size
            for k in range(own, zeros):
                room[k] = 0
            for row in range(first, last):
                mine = own + (row - first) * own_row
                for unit in range(units):
                    room[mine + unit] = given[0, row, unit]
                    room[mine + 2 * own_numbers + unit] = given[last_output, row, unit]
                    if carries:
                        room[mine + 3 * own_numbers + unit] = given[1, row, unit]
                found = start.ctypes.data + row * row_bytes
                for n in range(steps):
                    mark = 0
                    if masked:
                        mark = marks[row, steps - 1 - n if backwards else n]
                        if mark & FORGET != 0:
                            found = room_at + zeros * size
                    plan[before + (row - first) * steps + n] = found
                    if mark & HIDDEN == 0:
                        found = ys.ctypes.data + row * ys.strides[0] + n * row_bytes

            used = 0
            for k in range(steps + 1):
                n = steps - 1 - k
                if n < 0 or used + last - first > window:
                    if used > 0:
                        dx, du = room_at + x_slots * size, room_at + u_slots * size
                        of, high = (of_h, of_x, ones, ones), (units, features, 1, 1)
                        total = dweights.ctypes.data + share * dweights.strides[0]
                        for part in range(4 if apart else 3):
                            slots = du if part in (0, 3) else dx
                            outers(of[part], high[part], slots, used, total)
                            total += high[part] * slot * size
                    used = 0
                if n < 0:
                    break
                t = steps - 1 - n if backwards else n
                count = 0
                for row in range(first, last):
                    if masked and marks[row, t] & HIDDEN != 0:
                        mine = own + 2 * own_numbers + (row - first) * own_row
                        for unit in range(units):
                            if plan[ZERO_OUTPUT] != 0:
                                room[mine + unit] = 0
                            else:
                                room[mine + unit] += dys[row, n, unit]
                    else:
                        plan[rows + count] = row
                        plan[of_x + used + count] = start_x + row * x.strides[0] + n * step_x
                        plan[of_h + used + count] = plan[before + (row - first) * steps + n]
                        count += 1
                if count > 0:
                    plan[KEPT] = kept.ctypes.data + n * kept.strides[0]
                    plan[DY] = dys.ctypes.data + n * dys.strides[1]
                    plan[DX] = room_at + (x_slots + used * slot) * size
                    plan[DU] = room_at + (u_slots + used * slot) * size
                    run_step(
                        cell, size, width, registers, fma, version,
                        base, base + 8 * rows, count,
                    )  # fmt: skip
                    asked = features if plan[INPUTS] != 0 else 0
                    dx_at, dx_row = dxs.ctypes.data + t * features * size, dxs.strides[0]
                    for target, target_row, factor, panel, columns in (
                        (plan[SUMS], own_row * size, plan[DU], u_panel, units),
                        (dx_at, dx_row, plan[DX], w_panel, asked),
                    ):
                        products(
                            count, target, target_row, base + 8 * rows, factor,
                            room_at + panel * size, columns,
                        )  # fmt: skip
                    used += count
                cut = piece > 0 and n > 0 and n % piece == 0
                if masked or cut:
                    for row in range(first, last):
                        if cut or marks[row, t] & FORGET != 0:
                            for part in range(4):
                                mine = own + part * own_numbers + (row - first) * own_row
                                for unit in range(units):
                                    room[mine + unit] = 0

            for row in range(first, last):
                mine = own + (row - first) * own_row
                for unit in range(units):
                    given[0, row, unit] = room[mine + unit] + room[mine + own_numbers + unit]
                    given[last_output, row, unit] = room[mine + 2 * own_numbers + unit]
                    if carries:
                        given[1, row, unit] = room[mine + 3 * own_numbers + unit]

    return numba.njit(nogil=True, cache=cached)(run)
