"""The grid of the benchmarks: shapes with names, a problem for each, and its float64 solution.

Letters as everywhere: B rows, T steps, F features, H units. The shapes are those that people run:
one step of a stream; series of one feature; images row by row; long signals; large layers.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray


class Shape(NamedTuple):
    """One layer on one input; every output is returned, and the state after the last step."""

    cell: str  # "lstm" or "gru" (reset after)
    rows: int
    steps: int
    features: int
    units: int
    dtype: str = "float32"

    @property
    def gates(self) -> int:
        return 4 if self.cell == "lstm" else 3

    @property
    def work(self) -> int:
        """Multiply-adds of the products."""
        return self.rows * self.steps * (self.features + self.units) * self.gates * self.units

    def __str__(self) -> str:
        name = f"{self.cell} {self.rows},{self.steps},{self.features},{self.units}"
        return name if self.dtype == "float32" else f"{name} {self.dtype}"


# (B, T, F, H)
STEPS = ((1, 1, 3, 32), (1, 1, 64, 128), (1, 1, 256, 512), (16, 1, 64, 128))
SEQUENCES = (
    (1, 100, 3, 32), (1, 1000, 64, 128), (32, 100, 64, 128), (64, 28, 28, 64), (175, 25, 1, 32),
    (32, 50, 256, 512), (128, 50, 512, 1024),
)  # fmt: skip
CELLS = ("lstm", "gru")


def grid(sizes: tuple[tuple[int, int, int, int], ...], dtypes: tuple[str, ...]) -> list[Shape]:
    """Every cell and dtype on all the sizes."""
    return [Shape(cell, *size, dtype) for dtype in dtypes for cell in CELLS for size in sizes]


class Problem(NamedTuple):
    """Weights in Keras's layout, the input and the state before it; and what must come out."""

    shape: Shape
    kernel: Array  # (F, G*H)
    recurrent: Array  # (H, G*H)
    bias: Array  # (4H,) for the LSTM, (2, 3H) for the GRU
    xs: Array  # (B, T, F)
    state: list[Array]  # h, c or h, each (B, H)
    expected: list[Array]  # outputs (B, T, H) and the state after, in float64

    def save(self, path: Path) -> None:
        arrays = {name: getattr(self, name) for name in ("kernel", "recurrent", "bias", "xs")}
        arrays |= {f"state{k}": part for k, part in enumerate(self.state)}
        arrays |= {f"expected{k}": part for k, part in enumerate(self.expected)}
        np.savez(path, **arrays)


def load(path: Path, shape: Shape) -> Problem:
    """What `Problem.save` wrote."""
    with np.load(path) as found:
        arrays = {name: found[name] for name in found.files}
    parts = len(shape_of_state(shape))
    state = [arrays.pop(f"state{k}") for k in range(parts)]
    expected = [arrays.pop(f"expected{k}") for k in range(parts + 1)]
    return Problem(shape, **arrays, state=state, expected=expected)


def shape_of_state(shape: Shape) -> list[tuple[int, int]]:
    return [(shape.rows, shape.units)] * (2 if shape.cell == "lstm" else 1)


def problem(shape: Shape) -> Problem:
    """Random weights as Keras draws them, but with biases and a state that are not zero."""
    rng = np.random.default_rng(0)
    B, T, F, H = shape[1:5]
    columns = shape.gates * H
    limit = np.sqrt(6 / (F + columns))
    q, _ = np.linalg.qr(rng.standard_normal((columns, H)))
    arrays: list[Any] = [
        rng.uniform(-limit, limit, (F, columns)),
        q.T,
        rng.uniform(-0.5, 0.5, (columns,) if shape.cell == "lstm" else (2, columns)),
        rng.standard_normal((B, T, F)),
    ]
    kernel, recurrent, bias, xs = (np.ascontiguousarray(a, shape.dtype) for a in arrays)
    state = [rng.uniform(-0.5, 0.5, size).astype(shape.dtype) for size in shape_of_state(shape)]
    expected = solution(kernel, recurrent, bias, xs, state)
    return Problem(shape, kernel, recurrent, bias, xs, state, expected)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def solution(
    kernel: Array, recurrent: Array, bias: Array, xs: Array, state: list[Array]
) -> list[Array]:
    """Outputs and the state after the last step by a plain float64 loop, none of refrnn's code."""
    W, U, b = (a.astype(np.float64) for a in (kernel, recurrent, bias))
    h = state[0].astype(np.float64)
    products = np.moveaxis(xs.astype(np.float64) @ W, 1, 0)  # (T, B, G*H)
    outputs = []
    if len(state) == 2:
        c = state[1].astype(np.float64)
        for product in products:
            i, f, g, o = np.split(product + h @ U + b, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            outputs.append(h)
        return [np.stack(outputs, axis=1), h, c]
    for product in products:
        (z, r, g), (hz, hr, hg) = (np.split(p, 3, axis=1) for p in (product + b[0], h @ U + b[1]))
        z = sigmoid(z + hz)
        h = z * h + (1 - z) * np.tanh(g + sigmoid(r + hr) * hg)
        outputs.append(h)
    return [np.stack(outputs, axis=1), h]
