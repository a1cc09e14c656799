"""Products of matrices with a result of their own for each row, compiled."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from refrnn.gates import Array
from refrnn.kernels import engine
from refrnn.kernels.engine import LINE, NUMBERS


def multiplies(dtype: Any) -> bool:
    """Whether there is a kernel for products of matrices of `dtype`."""
    return np.dtype(dtype) in NUMBERS


@cache
def multiplier(dtype: Any) -> Callable[[Array, Array], Array]:
    """The function (a, b) -> a @ b of matrices of `dtype` that `multiplies`, as `cells.dot`.

    a is (..., K), b (K, N). Each number is summed over k = 0, 1, 2, ... from zero, products and
    sums rounded apart, so a row depends, in every bit, on that row of a and on b alone. On x86 the
    bits are those of `cells.dot`; elsewhere NumPy may round a product and a sum at once.

    Raises CompileError where the kernel cannot be compiled or loaded.
    """
    kind = np.dtype(dtype)
    with engine._compiling:
        entry, lanes = engine._multiplying(kind.name)

    def product(a: Array, b: Array) -> Array:
        left = np.ascontiguousarray(a.reshape(math.prod(a.shape[:-1]), len(b)), kind)
        right = np.ascontiguousarray(b, kind)
        rows, columns = len(left), right.shape[1]
        out = np.empty((rows, columns), kind)
        room = np.empty(-(-columns // lanes) * lanes * len(right) + LINE * 8, kind)
        entry(left, right, room, np.empty(rows, np.int64), out)
        return out.reshape(*a.shape[:-1], columns)

    return product
