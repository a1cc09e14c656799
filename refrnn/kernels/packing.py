"""Weights as the kernels read them: panels of vectors, and the plan that points at them."""

import math
from typing import Any

import numpy as np

from refrnn.cells import Cell, Weights
from refrnn.gates import Array
from refrnn.kernels.plan import B2, U2, W2, B, U, W

ALIGNMENT = 64  # of a cache line, and of the widest vector


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """Zeros that begin on a cache line."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.zeros(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size].view(dtype).reshape(shape)


def panel(matrix: Array, units: int, lanes: int) -> Array:
    """(K, G*H) as (blocks, K, G, lanes), a block being `lanes` units; zeros fill up the last."""
    K, wide = matrix.shape
    G = wide // units if units else 0
    blocks = -(-units // lanes)
    padded = matrix.reshape(K, G, units)
    if units % lanes:
        padded = np.zeros((K, G, blocks * lanes), matrix.dtype)
        padded[:, :, :units] = matrix.reshape(K, G, units)
    found = aligned((blocks, K, G, lanes), matrix.dtype)
    found[...] = padded.reshape(K, G, blocks, lanes).transpose(2, 0, 1, 3)
    return found


def panels(cell: Cell, weights: Weights, lanes: int) -> dict[int, Array]:
    """The panels of a cell by plan entry; a copy, so later changes of the weights do not count."""
    kernel, recurrent, bias = weights
    units = len(recurrent)
    if bias is None:
        bias = np.zeros(cell.shapes(len(kernel), units)[2], kernel.dtype)
    rows = {W: kernel, U: recurrent, B: bias.reshape(1, -1)}  # a GRU's two biases side by side
    if cell.name == "gru_reset_before":  # the gates, then the candidate, which needs r * h
        halves = {slot: np.split(a, [2 * units], axis=1) for slot, a in rows.items()}
        second = {W: W2, U: U2, B: B2}
        rows = {slot: a for slot, (a, _) in halves.items()}
        rows |= {second[slot]: a for slot, (_, a) in halves.items()}
    return {slot: panel(a, units, lanes) for slot, a in rows.items()}
