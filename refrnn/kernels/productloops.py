"""A product of matrices, compiled by Numba: one function for each dtype."""

import hashlib
from pathlib import Path
from typing import Any

import numba
from numba import types
from numba.extending import intrinsic

from refrnn.kernels.backloops import _form, _tile
from refrnn.kernels.host import Machine
from refrnn.kernels.tiles import TALLEST, sums_at_once


def _version() -> int:
    """A number that changes with the code generator: Numba's cache looks at this file alone."""
    digest = hashlib.sha256()
    for name in ("backloops.py", "backs.py", "tiles.py", "vectors.py"):
        digest.update(Path(__file__).with_name(name).read_bytes())
    return int.from_bytes(digest.digest()[:7], "big")


def _product(
    typing_context: Any, size: Any, width: Any, registers: Any, fma: Any, version: Any,
    rows: Any, blocks: Any, numbers: Any, factor: Any, factor_row: Any, count: Any,
    panel: Any, panel_block: Any, target: Any, target_row: Any, left: Any,
) -> Any:  # fmt: skip
    """A call of a `backs.product_tile`; the first five arguments are literal."""
    form, number = _form(size, width, registers, fma)
    return _tile("product", form, number, (size, width, registers, fma, version))


run_product: Any = intrinsic(prefer_literal=True)(_product)


def signature(number: Any) -> Any:
    """The argument types of a loop on float32 or float64 numbers."""
    c_1, c_2 = types.Array(number, 1, "C"), types.Array(number, 2, "C")
    return c_2, c_2, c_1, types.Array(types.int64, 1, "C"), c_2


def loop(name: str, size: int, made_for: Machine, cached: bool) -> Any:
    """The Numba function; it is not compiled here.

        (a, b, room, numbers, out)

    a, b     (M, K) and (K, N)
    room     working memory: blocks * K * lanes numbers, and those of a line
    numbers  (M,), working memory
    out      (M, N), where the product is written

    Products and sums are rounded apart, as by NumPy's einsum on x86, with or without FMA.
    """
    width, registers, fma, version = made_for.width, made_for.registers, False, _version()
    lanes = made_for.lanes(size)
    most = sums_at_once(registers)

    def run(a: Any, b: Any, room: Any, numbers: Any, out: Any) -> None:
        rows, count = a.shape
        columns = b.shape[1]
        blocks = (columns + lanes - 1) // lanes
        panel = ((room.ctypes.data + 63) // 64 * 64 - room.ctypes.data) // size
        for block in range(blocks):
            inside = min(lanes, columns - block * lanes)
            for k in range(count):
                at = panel + (block * count + k) * lanes
                for lane in range(inside):
                    room[at + lane] = b[k, block * lanes + lane]
                for lane in range(inside, lanes):
                    room[at + lane] = 0
        for row in range(rows):
            numbers[row] = row
        panel_at, block_bytes = room.ctypes.data + panel * size, count * lanes * size
        block = 0
        while block < blocks:
            wide = 4
            while block + wide > blocks:
                wide //= 2
            parts = (rows - 1) // min(TALLEST, most // wide) + 1
            for part in range(parts):
                begin, end = rows * part // parts, rows * (part + 1) // parts
                run_product(
                    size, width, registers, fma, version,
                    end - begin, wide, numbers.ctypes.data + 8 * begin,
                    a.ctypes.data + begin * count * size, count * size, count,
                    panel_at + block * block_bytes, block_bytes,
                    out.ctypes.data + block * lanes * size, columns * size, columns - block * lanes,
                )  # fmt: skip
            block += wide

    return numba.njit(nogil=True, cache=cached)(run)
