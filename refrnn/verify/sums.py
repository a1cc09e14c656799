"""A step's sums and gates as `tracked` numbers: the equations of `gates`, called with bounds."""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, cast

import numpy as np

from refrnn import gates
from refrnn.cells import Cell, Weights
from refrnn.gates import Array
from refrnn.verify import doubled
from refrnn.verify.precisions import U32, Precision
from refrnn.verify.tracked import DEVIATION, SYSTEMATIC, Arithmetic, P, Tracked, W, applied, wide

TURNED = 3  # factors of one product that a rounding may turn over: of 512, 4 once in 1e9


class Matrix(NamedTuple):
    """A matrix of weights, and what the bounds need of it."""

    value: Array
    size: Array
    squares: Array
    sizes: Array  # of the columns: the sum of |w|
    norms: Array  # and of w^2

    @classmethod
    def made(cls, value: Array) -> "Matrix":
        size, squares = np.abs(value), value * value
        return cls(value, size, squares, size.sum(0), squares.sum(0))

    def of(self, columns: slice) -> "Matrix":
        """Some columns."""
        return Matrix(*(part[..., columns] for part in self))


def _times(a: Array, b: Array) -> Array:
    """a @ b for a (..., K), in one product."""
    return (a.reshape(-1, a.shape[-1]) @ b).reshape(*a.shape[:-1], b.shape[1])


class Steps(NamedTuple):
    """One step of an LSTM from each c that is given, its sums and gates known."""

    cell: Cell
    pre: Any
    act: Any
    rec: Any

    def __call__(self, c: Tracked) -> Any:
        return gates.lstm(self.pre, cast(Any, c), self.act, self.rec)

    def values(self, c: Array) -> gates.LSTMGates:
        """The numbers alone."""
        pre = gates.LSTMPre(*(part.value for part in self.pre))
        return gates.lstm(pre, c, self.cell.act.value, self.cell.rec.value)

    def new_c(self, c: Tracked) -> Tracked:
        """The new c alone: what becomes of it is not computed."""

        def act(z: Any) -> Any:
            return self.act(z) if z is self.pre.g else Tracked(z.value, {}, z.arithmetic)

        found: Any = gates.lstm(self.pre, cast(Any, c), act, self.rec).c
        return cast(Tracked, found)


class Sums:
    """The weights of a cell in an arithmetic, and the steps that they make."""

    def __init__(
        self, cell: Cell, weights: Weights, precision: Precision, arithmetic: Arithmetic
    ) -> None:
        self.cell, self.precision, self.arithmetic = cell, precision, arithmetic
        W, U, bias = (wide(part) for part in weights)
        self.bias = np.atleast_2d(bias)
        self.Wr, self.Ur = (Matrix.made(precision.operands(matrix)) for matrix in (W, U))
        self.U = Matrix.made(U)

    def step(self, x: Array, h: Array) -> Any:
        """The gates of a step from x (B, T, F) and h (B, T, H); of an LSTM a function of c."""
        return getattr(self, self.cell.name)(x, h, applied(self.cell.act), applied(self.cell.rec))

    # --- sums of products ---------------------------------------------------------------------

    def sums(
        self,
        factors: Sequence[tuple[Array, "Matrix"]],
        bias: Sequence[Array],
        recurrent: "Matrix | None",
        others: int = 0,
    ) -> Tracked:
        """The sum of a @ b over the factors, and of the biases, with the bounds above.

        recurrent  the matrix that multiplies the state, which may differ from the output seen
        others     terms of another sum that may be accumulated with these
        """
        u = self.precision.u
        n = sum(len(b.value) for _, b in factors) + len(bias) + 1 + others
        rounded = self.precision.operands
        used = [(rounded(a), b) for a, b in factors]
        products = [_times(a, b.value) for a, b in used]
        plain = np.asarray(sum(products) + sum(bias))
        value = plain
        if u < U32:
            exact = doubled.sum_of_products([(a, b.value) for a, b in used], bias)
            value = np.where(np.isfinite(exact), exact, plain)
        size = sum(_times(np.abs(a), b.size) for a, b in used) + sum(np.abs(b) for b in bias)
        squares = sum(_times(a * a, b.squares) for a, b in used) + sum(b * b for b in bias)
        largest = plain * plain
        for product in products:
            for offset in (0.0, *bias):
                largest = np.maximum(largest, (product + offset) ** 2)
        spread = u * u / 3 * (n * (largest + squares / 2) + squares)
        part = np.empty((4, *value.shape))
        part[W] = n * u / (1 - n * u) * size
        part[P] = self.arithmetic.many * np.sqrt(n) * u * size
        if recurrent is not None:
            slack = self.precision.emitted * self.precision.pointwise
            part[[W, P]] += slack * recurrent.sizes
            spread += slack**2 / 3 * recurrent.norms
        part[DEVIATION] = np.sqrt(spread)
        part[SYSTEMATIC] = 0.0
        part[[W, P, SYSTEMATIC]] += self.precision.tiny
        tracked = Tracked(value, {object(): part}, self.arithmetic)
        if self.precision.pointwise > 2 * u:  # each product is stored, and each sum of two
            for stored in products + [np.sqrt(largest)] * (len(products) + len(bias) - 2):
                tracked.parts[object()] = self.arithmetic.rounding(np.abs(stored))
        return tracked.stored() if self.precision.pointwise > u else tracked

    def product(self, a: Tracked, columns: slice, others: int) -> Tracked:
        """a @ U for a factor with errors of its own: the state that a reset gate has scaled."""
        matrix = self.Ur.of(columns)
        result = self.sums([(a.value, matrix)], [], None, others)
        size, squares = matrix.size, matrix.squares
        totals = a.totals()
        part = np.empty((4, *result.value.shape))
        part[[W, P]] = totals[[W, P]] @ size
        part[DEVIATION] = np.sqrt(totals[DEVIATION] ** 2 @ squares)
        # the gate's own errors are systematic, but not aligned with the signs of U (Hoeffding)
        aligned = totals[SYSTEMATIC] @ size
        scattered = self.arithmetic.lam * np.sqrt(totals[SYSTEMATIC] ** 2 @ squares)
        part[SYSTEMATIC] = np.minimum(aligned, scattered)
        if self.precision.operand_u:  # an error before the rounding of a factor may turn it over
            step = 2 * self.precision.operand_u
            part[[W, P]] += step * np.abs(a.value) @ size
            largest = np.abs(a.value).max(-1, keepdims=True, initial=0) * size.max(0, initial=0)
            part[SYSTEMATIC] += TURNED * step * largest
        return Tracked(result.value, {**result.parts, object(): part}, self.arithmetic)

    def carried_on(self, h: Array) -> Tracked:
        """The implementation's own output, as the state that it carried on."""
        part = self.arithmetic.rounding(np.maximum(1, np.abs(h))) * self.precision.emitted
        return Tracked(h, {object(): part}, self.arithmetic)

    def columns(self, letters: str) -> slice:
        """The columns of some neighbouring gates."""
        H = len(self.U.value)
        first = self.cell.gates.index(letters[0])
        return slice(first * H, (first + len(letters)) * H)

    def split(self, tracked: Tracked) -> list[Tracked]:
        """The gates of a sum, each (B, T, H)."""
        count = tracked.value.shape[-1] // max(1, len(self.U.value))
        values = np.split(tracked.value, count, axis=-1)
        parts = {s: np.split(part, count, axis=-1) for s, part in tracked.parts.items()}
        return [
            Tracked(value, {(s, k): part[k] for s, part in parts.items()}, self.arithmetic)
            for k, value in enumerate(values)
        ]

    # --- the cells ----------------------------------------------------------------------------

    def simple(self, x: Array, h: Array, act: Any, rec: Any) -> Any:
        total = self.sums([(x, self.Wr), (h, self.Ur)], list(self.bias), self.U)
        return gates.simple(gates.SimplePre(cast(Array, total)), act)

    def lstm(self, x: Array, h: Array, act: Any, rec: Any) -> Any:
        """A function of c."""
        total = self.sums([(x, self.Wr), (h, self.Ur)], list(self.bias), self.U)
        pre = gates.LSTMPre(*cast(Any, self.split(total)))
        act, rec = cache(act), cache(rec)  # the gates are the same for every c
        return Steps(self.cell, pre, act, rec)

    def _gru_gates(self, x: Array, h: Array) -> list[Tracked]:
        zr = self.columns("zr")
        factors = [(x, self.Wr.of(zr)), (h, self.Ur.of(zr))]
        return self.split(self.sums(factors, [b[zr] for b in self.bias], self.U.of(zr)))

    def gru(self, x: Array, h: Array, act: Any, rec: Any) -> Any:
        z, r = self._gru_gates(x, h)
        g = self.columns("g")
        from_x = self.sums([(x, self.Wr.of(g))], [self.bias[0][g]], None)
        from_h = self.sums([(h, self.Ur.of(g))], [self.bias[1][g]], self.U.of(g))
        given: Any = gates.GRUPre(*cast(Any, (z, r, from_x)))
        rest: Any = gates.GRUPre(*cast(Any, (0, 0, from_h)))  # z and r are whole already
        return gates.gru(given, rest, cast(Array, self.carried_on(h)), act, rec)

    def gru_reset_before(self, x: Array, h: Array, act: Any, rec: Any) -> Any:
        z, r = self._gru_gates(x, h)
        g = self.columns("g")
        F, H = len(self.Wr.value), len(self.Ur.value)
        from_x = self.sums([(x, self.Wr.of(g))], [self.bias[0][g]], None, others=H)

        def product(rh: Any) -> Any:
            return self.product(rh, g, others=F + 1)

        given: Any = gates.GRUPre(*cast(Any, (z, r, from_x)))
        carried = cast(Any, self.carried_on(h))
        return gates.gru_reset_before(given, cast(Any, 0), cast(Any, 0), product, carried, act, rec)
