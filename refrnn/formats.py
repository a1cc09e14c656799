"""Formats of fewer bits, as rounding functions; the dtype that comes in stays, to hold the result.

NumPy has no TF32, and bfloat16 only with another package. Here a number is put into a format by its
bits, and stays in the float32 or float64 that it came in. What is not a float32 is made one first.
"""

from collections.abc import Callable

import numpy as np

from refrnn.gates import Array

Rounding = Callable[[Array], Array]


def exactly(a: Array) -> Array:
    return a


def _kept_bits(a: Array, bits: int, nearest: bool) -> Array:
    """Only `bits` bits behind the point of a float32's significand; infinities and NaN as given."""
    cut = np.uint32(23 - bits)
    raw = np.asarray(a, np.float32).view(np.uint32)
    if nearest:  # half to even: half a unit less one, and one where the last kept bit is odd
        raw = raw + (np.uint32((1 << (22 - bits)) - 1) + ((raw >> cut) & np.uint32(1)))
    raw = raw & ~np.uint32((1 << (23 - bits)) - 1)
    return np.where(np.isfinite(a), raw.view(np.float32), a)


def tf32(a: Array) -> Array:
    """Rounded to 10 bits behind the point, to nearest even, as cuBLAS does on the way in."""
    return _kept_bits(a, 10, nearest=True)


def tf32_cut(a: Array) -> Array:
    """Cut to 10 bits behind the point, as a tensor core does with a raw float32."""
    return _kept_bits(a, 10, nearest=False)


def bfloat16(a: Array) -> Array:
    """Rounded to 7 bits behind the point, to nearest even."""
    return _kept_bits(a, 7, nearest=True)


def float16(a: Array) -> Array:
    """Rounded to float16; beyond its largest number, infinity."""
    with np.errstate(over="ignore"):
        return a.astype(np.float16).astype(a.dtype)


# What the factors of products are rounded to, by the name of the arithmetic.
PRODUCTS: dict[str, Rounding] = {
    "tf32": tf32,
    "tf32 cut": tf32_cut,
    "float16 products": float16,
    "bfloat16 products": bfloat16,
}
