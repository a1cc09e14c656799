"""Sums of products to twice the digits of float64, for judging float64 itself.

Error-free transformations (Dekker 1971, Knuth 1969): a product or a sum is a rounded number and an
exact remainder, both float64. The remainders are added up beside the sum.
"""

from collections.abc import Sequence

import numpy as np

from refrnn.gates import Array

_SPLITTER = 2.0**27 + 1


def _halves(a: Array) -> tuple[Array, Array]:
    """a = high + low, each of 26 bits."""
    scaled = _SPLITTER * a
    high = scaled - (scaled - a)
    return high, a - high


def two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """a * b, rounded, and what the rounding lost."""
    product = a * b
    a_high, a_low = _halves(a)
    b_high, b_low = _halves(b)
    lost = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, lost


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """a + b, rounded, and what the rounding lost."""
    total = a + b
    back = total - a
    return total, (a - (total - back)) + (b - back)


def sum_of_products(factors: Sequence[tuple[Array, Array]], terms: Sequence[Array]) -> Array:
    """sum of a @ b over the factors, (..., K) by (K, N), and of the terms (N,): rounded once.

    As if computed with 106 bits; infinities and NaNs come out as NaN.
    """
    first, _ = factors[0]
    shape = (*first.shape[:-1], factors[0][1].shape[1])
    total, lost = np.zeros(shape), np.zeros(shape)
    for a, b in factors:
        for k in range(len(b)):
            product, remainder = two_product(a[..., k, None], b[k])
            total, carried = two_sum(total, product)
            lost += carried + remainder
    for term in terms:
        total, carried = two_sum(total, np.broadcast_to(term, shape))
        lost += carried
    return total + lost
