"""Keras's random numbers on TensorFlow, bit for bit, so that a dropout mask can be drawn again.

TensorFlow's stateless uniforms come from the counter-based generator Philox 4x32 with ten rounds
(Salmon et al., 2011). Keras gives it a seed and a count of the draws so far.
"""

import math
from typing import Any

import numpy as np

from refrnn.gates import Array

MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL = 0x9E3779B9, 0xBB67AE85
KEY = 0x3EC8F720, 0x02461E29  # TensorFlow scrambles a seed with this key
LOW, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
LARGEST_SEED = 2**31 - 2  # Keras reduces seed and count modulo this

# dtype -> unsigned type of its bits, the bits of 1.0, and a mask of the mantissa
LAYOUTS: dict[str, tuple[type[Any], int, int]] = {
    "float16": (np.uint16, 0x3C00, 0x03FF),
    "bfloat16": (np.uint16, 0x3F80, 0x007F),
    "float32": (np.uint32, 0x3F800000, 0x007FFFFF),
}


def philox(counter: Array, key: tuple[int, int]) -> Array:
    """Philox 4x32-10 of counters (4, n), 32-bit words in uint64, under one key: (4, n)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1 = (p1 >> HALF) ^ c1 ^ np.uint64(k0), p1 & LOW
        c2, c3 = (p0 >> HALF) ^ c3 ^ np.uint64(k1), p0 & LOW
        k0, k1 = (k0 + WEYL[0]) & 0xFFFFFFFF, (k1 + WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3])


def words(seed: tuple[int, int], count: int) -> Array:
    """The first `count` 32-bit words of TensorFlow's stateless generator, as uint64."""
    halves = [[half] for s in seed for half in (s & 0xFFFFFFFF, s >> 32)]
    k0, k1, c2, c3 = (int(w) for w in philox(np.array(halves, np.uint64), KEY)[:, 0])
    blocks = np.arange(-(-count // 4), dtype=np.uint64)
    fixed = [np.full_like(blocks, word) for word in (c2, c3)]
    counter = np.stack([blocks & LOW, blocks >> HALF, *fixed])
    return philox(counter, (k0, k1)).T.reshape(-1)[:count]


def uniform(seed: tuple[int, int], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """`tf.random.stateless_uniform`: numbers in [0, 1) of `dtype`."""
    count = math.prod(shape)
    if dtype.name == "float64":
        high, low = words(seed, 2 * count).reshape(-1, 2).T
        bits = ((high & np.uint64(0xFFFFF)) << HALF) | low
        return ((bits | np.uint64(1023 << 52)).view(np.float64) - 1).reshape(shape)
    unsigned, one, mantissa = LAYOUTS[dtype.name]
    bits = (words(seed, count) & np.uint64(mantissa) | np.uint64(one)).astype(unsigned)
    return (bits.view(dtype) - np.asarray(1, dtype)).reshape(shape)


def dropout(x: Array, rate: float, seed: tuple[int, int], noise_shape: Any = None) -> Array:
    """x / (1 - rate) where a uniform number is at least `rate`, else 0, NaN included.

    noise_shape  of the mask, broadcast to x; None for that of x
    """
    u = uniform(seed, x.shape if noise_shape is None else tuple(noise_shape), x.dtype)
    scale = np.asarray(1 / (1 - rate), x.dtype)
    return np.where(u >= np.asarray(rate, x.dtype), x * scale, np.zeros((), x.dtype))


class SeedGenerator:
    """A seed and the number of draws made: as `keras.random.SeedGenerator`.

    seed  a whole number; None draws one
    """

    def __init__(self, seed: int | None = None) -> None:
        drawn = int(np.random.default_rng().integers(0, LARGEST_SEED)) if seed is None else seed
        self.seed, self.count = int(drawn), 0

    def next(self) -> tuple[int, int]:
        """The seed of the next draw."""
        now = self.seed % LARGEST_SEED, self.count % LARGEST_SEED
        self.count += 1
        return now
