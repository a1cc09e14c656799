"""The inputs that the trained models of `refrnn verify` were trained for."""

import numpy as np

from refrnn.gates import Array


def bits(rows: int = 8, steps: int = 24) -> Array:
    """Sequences of 0 and 1, (rows, steps, 1) float32, the first beginning 1 1 1 1 0 1."""
    drawn = np.random.default_rng(0).integers(0, 2, (rows, steps, 1)).astype(np.float32)
    drawn[0, :6, 0] = [1, 1, 1, 1, 0, 1]
    return drawn


def sine_windows() -> Array:
    """175 windows of 25 steps, (175, 25, 1) float32, of a sine of period 50 scaled to [0, 1]."""
    wave = (np.sin(2 * np.pi * np.arange(200) / 50) + 1) / 2
    return np.stack([wave[k : k + 25] for k in range(175)])[..., None].astype(np.float32)
