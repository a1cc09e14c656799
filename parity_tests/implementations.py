"""Other implementations, in plain NumPy, that can be spoiled at one number of one step.

Independent of refrnn's own loops: a whole step in a few lines, BLAS products, any float dtype.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from refrnn.cells import Cell
from refrnn.gates import Array

Spoil = Callable[[str, int, Array], Array]  # (name, step, what was computed) -> what is used


def untouched(name: str, step: int, array: Array) -> Array:
    return array


class Plant:
    """Adds `error` to one number: row, step and unit of the array called `name`."""

    def __init__(self, name: str, row: int, step: int, unit: int, error: float) -> None:
        self.name, self.row, self.step, self.unit, self.error = name, row, step, unit, error

    def __call__(self, name: str, step: int, array: Array) -> Array:
        if (name, step) != (self.name, self.step):
            return array
        spoiled = array.copy()
        spoiled[self.row, self.unit] += self.error
        return spoiled


class Plain:
    """A layer of one cell, in the call form of Keras: y, then the states.

    operands  how each factor of a product is rounded first
    emits_zeros
              masked steps emit zeros, as the halves of a Bidirectional do
    spoil     may change each gate, sum and state where it is computed; "y" is the output alone
    """

    def __init__(
        self,
        cell: Cell,
        weights: Any,
        operands: Callable[[Array], Array] = np.asarray,
        spoil: Spoil = untouched,
        backwards: bool = False,
        emits_zeros: bool = False,
    ) -> None:
        self.cell, self.weights, self.spoil, self.backwards = cell, weights, spoil, backwards
        self.operands, self.emits_zeros = operands, emits_zeros
        self.dtype = weights.kernel.dtype

    def __call__(self, x: Array, initial_state: Any = None, mask: Any = None) -> tuple[Array, ...]:
        arrays = self.all(x, initial_state, mask)
        return tuple(arrays[name] for name in ("y", *self.cell.State._fields))

    def all(self, x: Array, initial_state: Any = None, mask: Any = None) -> dict[str, Array]:
        """y (B, T, H), every gate and sum (B, T, H), cs, and the states after the last step."""
        B, T, _ = x.shape
        H = len(self.weights.recurrent_kernel)
        parts = self.cell.State._fields
        given = initial_state or [np.zeros((B, H), self.dtype) for _ in parts]
        state = [np.array(part, self.dtype) for part in given]
        last = np.zeros((B, H), self.dtype)
        shown: dict[str, list[Array]] = {}
        time = slice(None, None, -1) if self.backwards else slice(None)
        live = np.ones((B, T), bool) if mask is None else np.asarray(mask, bool)
        for t, (x_t, live_t) in enumerate(
            zip(np.moveaxis(x[:, time], 1, 0), live[:, time].T, strict=True)
        ):
            now = live_t[:, None]
            step = self._step(t, np.asarray(x_t, self.dtype), state)
            new = [step[name] for name in parts]
            state = [np.where(now, n, old) for n, old in zip(new, state, strict=True)]
            last = np.where(now, step["y"], 0 if self.emits_zeros else last)
            step |= {"y": last} | {f"{p}s": s for p, s in zip(parts, state, strict=True)}
            for name, array in step.items():
                shown.setdefault(name, []).append(array)
        arrays = {name: np.stack(steps, axis=1) for name, steps in shown.items()}
        arrays = arrays or {"y": np.zeros((B, 0, H), self.dtype)}
        return arrays | dict(zip(parts, state, strict=True))

    def _step(self, t: int, x: Array, state: list[Array]) -> dict[str, Array]:
        computed: dict[str, Array] = {}

        def keep(name: str, array: Array) -> Array:
            computed[name] = self.spoil(name, t, np.asarray(array, self.dtype))
            return computed[name]

        act, rec, names = self.cell.act.value, self.cell.rec.value, self.cell.gates
        W, U, bias = self.weights
        H = len(U)
        a = np.split(self._product(x, W), len(names), axis=1)
        b = np.split(np.broadcast_to(np.atleast_2d(bias)[0], (len(names) * H,)), len(names))
        columns = {gate: U[:, k * H : (k + 1) * H] for k, gate in enumerate(names)}
        h = state[0]
        sums = {gate: a[k] + b[k] for k, gate in enumerate(names)}

        def gate(name: str, function: Any, add: Array) -> Array:
            return keep(name, function(keep(f"pre.{name}", sums[name] + add)))

        if self.cell.name == "simple":
            keep("h", act(sums["h"] + self._product(h, U)))
        elif self.cell.name == "lstm":
            i = gate("i", rec, self._product(h, columns["i"]))
            f = gate("f", rec, self._product(h, columns["f"]))
            g = gate("g", act, self._product(h, columns["g"]))
            o = gate("o", rec, self._product(h, columns["o"]))
            c = keep("c", f * state[1] + i * g)
            keep("h", o * act(c))
        else:
            after = self.cell.name == "gru"
            extra = np.split(bias[1], 3) if after else [np.zeros(H, self.dtype)] * 3
            z = gate("z", rec, self._product(h, columns["z"]) + extra[0])
            r = gate("r", rec, self._product(h, columns["r"]) + extra[1])
            if after:
                g = gate("g", act, r * (self._product(h, columns["g"]) + extra[2]))
            else:
                g = gate("g", act, self._product(r * h, columns["g"]))
            keep("h", z * h + (1 - z) * g)
        computed["y"] = self.spoil("y", t, computed["h"])
        return computed

    def _product(self, a: Array, b: Array) -> Array:
        if self.dtype.itemsize == 2:  # two-byte factors, summed in float32
            return (a.astype(np.float32) @ b.astype(np.float32)).astype(self.dtype)
        return np.asarray(self.operands(a) @ self.operands(b), self.dtype)
