"""How far each number of a correct implementation may be off, and how far it is.

Steps are compared, not trajectories. The reference's step, in float64, starts from what the
implementation itself put out last, so an early rounding is not carried on, and the bound grows
neither with the number of steps nor with the weights. An LSTM's hidden c is computed again from
the implementation's own outputs; its error is carried by the forget gate alone.

The rounding of a sum z = x W + h U + b of n terms is bounded with S = |x||W| + |h||U| + |b|:

    W   n u S / (1 - n u)                                  any order (Jeannerod & Rump 2013)
    P   lambda sqrt(n) u S                                 (Higham & Mary 2019)
    S   variance u^2/3 (n (M^2 + Q/2) + Q), with Q the sum of the squared terms and M the largest
        of x W, h U, b and their sums; for roundings that are independent: long sums of constant or
        ordered terms, one after another, can exceed it, and W and P hold for those

What a step makes of that is in `tracked`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import numpy as np

from refrnn import gates
from refrnn.cells import Cell, Weights
from refrnn.gates import Array
from refrnn.reference import QUIET
from refrnn.verify import doubled
from refrnn.verify.precisions import PRECISIONS, U32, Precision
from refrnn.verify.tracked import (
    DEVIATION,
    SYSTEMATIC,
    TIERS,
    Arithmetic,
    P,
    Tracked,
    W,
    applied,
    as_bounds,
)

BUDGET = 1e-6  # chance that a correct implementation breaks S in one check
TURNED = 3  # factors of one product that a rounding may turn over: of 512, 4 once in 1e9
BLOCK = 2**14  # elements of a gate that are judged at a time, so that they stay in the cache


class Task(NamedTuple):
    """What is to be computed; arrays as for `refrnn.run`, checked, in processing order.

    emits_zeros  masked steps emit zeros instead of the last output
    calls        (T,), True where a new call begins: the last output is forgotten, the state is not
    """

    cell: Cell
    weights: Weights
    xs: Array  # (B, T, F)
    state: Any  # each part (B, H)
    mask: Array | None = None  # (B, T)
    reset: Array | None = None  # (B, T)
    emits_zeros: bool = False
    last_output: Array | None = None
    calls: Array | None = None


class Seen(NamedTuple):
    """What an implementation shows of its run.

    y      (B, T, H), every output
    h, c   (B, H), the state after the last step
    hs, cs (B, T, H), the state after each step; NaN in rows and steps where it is hidden
    gates  each (B, T, H), by the names of `gates`
    """

    y: Array
    h: Array | None = None
    c: Array | None = None
    hs: Array | None = None
    cs: Array | None = None
    gates: Mapping[str, Array] = MappingProxyType({})


@dataclass(frozen=True)
class Judged:
    """One array of an implementation: its errors, and what each tier allows, all of one shape.

    expected   the reference's numbers, given the implementation's own step before
    deviation  the standard deviation of a correct implementation's error
    frozen     True where the number must be a copy, exact in every bit
    """

    error: Array
    expected: Array
    bounds: dict[str, Array]
    deviation: Array
    frozen: Array | None = None

    def margin(self, tier: str) -> Array:
        """|error| / bound; 0 for no error, infinite where none is allowed or it is not a number."""
        return _margin(self.error, self.bounds[tier])

    def against(self, got: Array, frozen: Array) -> "Judged":
        """The same expectation, for other numbers."""
        return replace(self, error=_error(_wide(got), self.expected), frozen=frozen)


def _margin(error: Array, bound: Array) -> Array:
    size = np.where(np.isnan(error), np.inf, np.abs(error))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(size > 0, size / np.where(np.isfinite(bound), bound, np.inf), 0.0)
    return np.where(np.isinf(size), np.inf, ratio)


def shown(cell: Cell, gates_seen: Mapping[str, Any]) -> list[str]:
    """The names of gates that are seen, in the order in which they are computed."""
    order = [name for g in cell.gates for name in (f"pre.{g}", g)]
    return [name for name in order if name in gates_seen]


def _judged(got: Array, want: Tracked) -> Judged:
    totals = want.totals()
    beyond = np.abs(want.value) - totals[W] > want.arithmetic.precision.largest
    expected = np.where(beyond, np.copysign(np.inf, want.value), want.value)
    return Judged(
        _error(got, expected),
        expected,
        as_bounds(totals, want.arithmetic.lam),
        np.sqrt(totals[DEVIATION] ** 2 + totals[SYSTEMATIC] ** 2 / 3),
    )


def _error(got: Array, want: Array) -> Array:
    """got - want; 0 where both are the same infinity or NaN."""
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    return np.where(same, 0.0, got - want)


def judge(
    task: Task, seen: Seen, precision: Precision = PRECISIONS["float32"]
) -> dict[str, Judged]:
    """What is visible, held against the envelope, in the order in which a step computes it.

    Gates and "pre." gates as far as shown, "cs", "y", "hs", and last the returned "h" and "c".

    Arrays are read as the numbers they are; nothing is checked here.
    """
    with QUIET():
        return _Judge(task, seen, precision).run()


class _Judge:
    """One judgement: the terms that are needed block by block."""

    def __init__(self, task: Task, seen: Seen, precision: Precision) -> None:
        self.task, self.seen, self.precision = task, seen, precision
        W, U, bias = (_wide(part) for part in task.weights)
        self.bias = np.atleast_2d(bias)
        self.y = _wide(seen.y)
        B, T, H = self.y.shape
        F = len(W)
        self.shape = B, T, H
        many = max(1, B * T * H)
        self.arithmetic = Arithmetic(
            precision,
            many=standard_deviations(many * len(task.cell.gates) * (F + H + 3)),
            lam=standard_deviations(many),
        )
        self.Wr, self.Ur = (_Matrix.made(precision.operands(matrix)) for matrix in (W, U))
        self.U = _Matrix.made(U)
        self.overflow = np.zeros((B, T), bool)

    # --- the run ------------------------------------------------------------------------------

    def run(self) -> dict[str, Judged]:
        task, seen = self.task, self.seen
        live = np.ones(self.shape[:2], bool) if task.mask is None else task.mask
        before, copied = self._histories(live)
        carried = _Carried(self, live) if "c" in task.state._fields else None
        found: dict[str, list[Judged]] = {}
        for block in self._blocks():
            for name, judged in self._block(block, before, carried).items():
                found.setdefault(name, []).append(judged)
        whole = {name: _joined(parts) for name, parts in found.items()}
        frozen = np.broadcast_to(~live[:, :, None], self.shape)
        if seen.hs is not None:
            hs = self._held(whole["y"], frozen, self._kept(before)).against(seen.hs, frozen)
        if task.mask is not None:
            whole["y"] = self._held(whole["y"], frozen, copied).against(self.y, frozen)
            for name in seen.gates:  # what a gate does at a masked step is its own affair
                whole[name] = _silent(whole[name], frozen)
        if seen.hs is not None:
            whole["hs"] = _silent(hs, np.isnan(_wide(seen.hs)))
        self._returned(whole, live, before, carried)
        if self.overflow.any():
            return {name: self._overflown(name, judged) for name, judged in whole.items()}
        return whole

    def _overflown(self, name: str, judged: Judged) -> Judged:
        """Infinities and NaN of either sign are right from where a row may overflow its type."""
        since = np.logical_or.accumulate(self.overflow, axis=1)[:, :, None]
        got = self.seen.gates[name] if name in self.seen.gates else getattr(self.seen, name)
        lost = ~np.isfinite(_wide(got)) & (since if judged.error.ndim == 3 else since[:, -1])
        return _silent(judged, lost)

    def _blocks(self) -> Iterator[slice]:
        B, T, H = self.shape
        length = max(1, BLOCK // max(1, B * H))
        for start in range(0, max(1, T), length):
            yield slice(start, min(T, start + length))

    def _histories(self, live: Array) -> tuple[Array, Array]:
        """Its own h before each step and after the last; what a masked step must emit."""
        task, (B, T, H) = self.task, self.shape
        h = _wide(task.state.h)
        before, copied = np.empty((B, T + 1, H)), np.zeros((B, T, H))
        if task.mask is None and task.reset is None:
            before[:, 0], before[:, 1:] = h, self.y
            return before, copied
        last = np.zeros((B, H)) if task.last_output is None else _wide(task.last_output)
        for t in range(T):
            if task.reset is not None:
                forget = task.reset[:, t, None]
                h, last = np.where(forget, 0, h), np.where(forget, 0, last)
            if task.calls is not None and task.calls[t]:
                last = np.zeros((B, H))
            before[:, t] = h
            copied[:, t] = 0 if task.emits_zeros else last
            now = live[:, t, None]
            h, last = np.where(now, self.y[:, t], h), np.where(now, self.y[:, t], last)
        before[:, T] = h
        return before, copied

    def _kept(self, before: Array) -> Array:
        """The state that a frozen step copies: the one seen, where it is, else the output."""
        earlier = np.full(self.shape, np.nan)
        earlier[:, 1:] = _wide(self.seen.hs)[:, :-1]
        if self.task.reset is not None:
            earlier[self.task.reset] = np.nan
        return np.where(np.isnan(earlier), before[:, :-1], earlier)

    def _block(self, block: slice, before: Array, carried: Any) -> dict[str, Judged]:
        """Everything visible of some steps, in the order in which it is computed."""
        cell, seen = self.task.cell, self.seen
        x, h = _wide(self.task.xs[:, block]), before[:, block]
        step = getattr(self, cell.name)(x, h, applied(cell.act), applied(cell.rec))
        c = None
        if carried is not None:
            c = carried.before(block, step)
        results = step if c is None else step(c)
        self.overflow[:, block] = self._may_overflow(results, h)
        found: dict[str, Judged] = {}
        for name in shown(cell, seen.gates):
            value = getattr(results.pre if name.startswith("pre.") else results, name[-1])
            found[name] = _judged(_wide(seen.gates[name][:, block]), value)
        if c is not None and seen.cs is not None:
            cs = _wide(seen.cs[:, block])
            after = _judged(cs, results.c)
            if self.task.mask is not None:  # a masked step keeps the c before it, and its error
                frozen = np.broadcast_to(~self.task.mask[:, block, None], cs.shape)
                after = _where(frozen, _judged(cs, c), after)
            found["cs"] = _silent(after, np.isnan(cs))
        found["y"] = _judged(self.y[:, block], results.h)
        return found

    def _may_overflow(self, results: Any, h: Array) -> Array:
        """Where anything on the way may be too large for the type, (B, T).

        The bound W counts a rounding of every term, so W / u is as large as the largest of them.
        """
        over: Array = np.logical_not(np.isfinite(h).all(-1))
        for value in (*results.pre, results.h, *([results.c] if "c" in results._fields else [])):
            size = np.abs(value.value) + value.worst() / self.precision.pointwise
            over |= np.logical_not((size < self.precision.largest).all(-1))
        return over

    def _held(self, y: Judged, frozen: Array, value: Array) -> Judged:
        """What a step makes, but an exact copy of `value` where a row is frozen."""
        none = np.zeros(self.shape)
        return _where(frozen, Judged(none, value, dict.fromkeys(TIERS, none), none), y)

    def _returned(self, whole: dict[str, Judged], live: Array, before: Array, carried: Any) -> None:
        """The state after the last step: that of the last live one, or the first state."""
        B, T, H = self.shape
        times = np.arange(T)
        last = np.max(np.where(live, times, -1), axis=1, initial=-1)
        if self.task.reset is not None:  # where a row forgot after its last live step, zeros
            last = np.where(
                np.max(np.where(self.task.reset, times, -1), axis=1, initial=-1) > last, -1, last
            )
        frozen = np.broadcast_to((last < 0)[:, None], (B, H))
        none = np.zeros((B, H))
        if self.seen.h is not None:
            h = Judged(none, before[:, T], dict.fromkeys(TIERS, none), none)
            if T:  # the last live output's bounds: some compute the two apart
                h = _where(frozen, h, _at(whole["y"], np.arange(B), last))
            whole["h"] = h.against(self.seen.h, frozen)
        if self.seen.c is not None and carried is not None:
            c = Judged(none, carried.c, dict.fromkeys(TIERS, none), none)
            c = _where(frozen, c, _judged(_wide(self.seen.c), carried.after()))
            whole["c"] = c.against(self.seen.c, frozen)

    # --- sums of products ---------------------------------------------------------------------

    def sums(
        self,
        factors: Sequence[tuple[Array, "_Matrix"]],
        bias: Sequence[Array],
        recurrent: "_Matrix | None",
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
        H = self.shape[2]
        first = self.task.cell.gates.index(letters[0])
        return slice(first * H, (first + len(letters)) * H)

    def split(self, tracked: Tracked) -> list[Tracked]:
        """The gates of a sum, each (B, T, H)."""
        count = tracked.value.shape[-1] // max(1, self.shape[2])
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
        return _Steps(self.task.cell, pre, act, rec)

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


class _Matrix(NamedTuple):
    """A matrix of weights, and what the bounds need of it."""

    value: Array
    size: Array
    squares: Array
    sizes: Array  # of the columns: the sum of |w|
    norms: Array  # and of w^2

    @classmethod
    def made(cls, value: Array) -> "_Matrix":
        size, squares = np.abs(value), value * value
        return cls(value, size, squares, size.sum(0), squares.sum(0))

    def of(self, columns: slice) -> "_Matrix":
        """Some columns."""
        return _Matrix(*(part[..., columns] for part in self))


def _times(a: Array, b: Array) -> Array:
    """a @ b for a (..., K), in one product."""
    return (a.reshape(-1, a.shape[-1]) @ b).reshape(*a.shape[:-1], b.shape[1])


class _Steps(NamedTuple):
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


class _Carried:
    """An LSTM's c, which is hidden: computed from the implementation's own outputs.

    c' = f c + i g is carried by the forget gate, and so is the error of c.
    """

    def __init__(self, judge: _Judge, live: Array) -> None:
        self.judge = judge
        self.live = live
        self.c = _wide(judge.task.state.c)  # (B, H)
        self.error = np.zeros((4, *self.c.shape))  # as `Tracked.totals`, but a variance
        self.last = self.c, self.error  # what the last live step made, seen or not

    def before(self, block: slice, step: "_Steps") -> Tracked:
        """c before each step of a block, with its error; `step` makes the gates of a c."""
        arithmetic = self.judge.arithmetic
        shape = self.live[:, block].shape + self.c.shape[1:]
        nothing = step.values(np.zeros(shape))
        before = self._walk(block, nothing.f, nothing.c)
        unit = {"carried": np.ones((4, *shape))}
        once = step.new_c(Tracked(before, unit, arithmetic))  # the errors that one step makes of c
        factor = once.parts.pop("carried")
        factor[[W, P]] *= arithmetic.growth
        errors = self._spread(block, factor, once.totals())
        return Tracked(before, {"carried": errors}, arithmetic)

    def _times(self, block: slice) -> Iterator[tuple[int, Any, Any]]:
        """k, rows that forget before step k of the block or None, rows that are live or None."""
        task = self.judge.task
        for k, t in enumerate(range(block.start, block.stop)):
            forget = None if task.reset is None else task.reset[:, t, None]
            yield k, forget, None if task.mask is None else self.live[:, t, None]

    def _walk(self, block: slice, f: Array, added: Array) -> Array:
        """c before each step."""
        before = np.empty_like(f)
        cs = None if self.judge.seen.cs is None else _wide(self.judge.seen.cs[:, block])
        c, (last, _) = self.c, self.last
        for k, forget, live in self._times(block):
            if forget is not None:
                c, last = np.where(forget, 0, c), np.where(forget, 0, last)
            before[:, k] = c
            new = f[:, k] * c + added[:, k]
            last = new if live is None else np.where(live, new, last)
            c = new if live is None else np.where(live, new, c)
            if cs is not None:
                c = np.where(np.isnan(cs[:, k]), c, cs[:, k])
        self.c, self.last = c, (last, self.last[1])
        return before

    def _spread(self, block: slice, factor: Array, made: Array) -> Array:
        """The error of c before each step, (4, B, T, H)."""
        factor[DEVIATION] **= 2
        made[DEVIATION] **= 2
        factor = np.ascontiguousarray(np.moveaxis(np.abs(factor), 2, 0))  # time first
        made = np.ascontiguousarray(np.moveaxis(made, 2, 0))
        before = np.empty_like(made)
        cs = None if self.judge.seen.cs is None else _wide(self.judge.seen.cs[:, block])
        error, (_, last) = self.error, self.last
        for k, forget, live in self._times(block):
            if forget is not None:
                error, last = np.where(forget, 0, error), np.where(forget, 0, last)
            before[k] = error
            new = factor[k] * error + made[k]
            last = new if live is None else np.where(live, new, last)
            error = new if live is None else np.where(live, new, error)
            if cs is not None:  # seen: from here on it is exact
                error = np.where(np.isnan(cs[:, k]), error, 0)
        self.error, self.last = error, (self.last[0], last)
        before[:, DEVIATION] = np.sqrt(before[:, DEVIATION])
        return np.moveaxis(before, 0, 2)

    def after(self) -> Tracked:
        """c after the last live step, which may be computed apart from the one that was seen."""
        c, error = self.last
        totals = error.copy()
        totals[DEVIATION] = np.sqrt(totals[DEVIATION])
        return Tracked(c, {"carried": totals}, self.judge.arithmetic)


def _wide(a: Any) -> Array:
    return np.asarray(a, np.float64)


def standard_deviations(count: float) -> float:
    """How many standard deviations all of `count` numbers stay inside, but for BUDGET."""
    return float(np.sqrt(2 * np.log(2 * max(1, count) / BUDGET)))


def _joined(parts: list[Judged]) -> Judged:
    """Blocks of steps, one after another."""
    if len(parts) == 1:
        return parts[0]
    return Judged(
        np.concatenate([p.error for p in parts], axis=1),
        np.concatenate([p.expected for p in parts], axis=1),
        {t: np.concatenate([p.bounds[t] for p in parts], axis=1) for t in TIERS},
        np.concatenate([p.deviation for p in parts], axis=1),
    )


def _where(condition: Array, yes: Judged, no: Judged) -> Judged:
    return Judged(
        np.where(condition, yes.error, no.error),
        np.where(condition, yes.expected, no.expected),
        {t: np.where(condition, yes.bounds[t], no.bounds[t]) for t in TIERS},
        np.where(condition, yes.deviation, no.deviation),
    )


def _at(judged: Judged, rows: Array, steps: Array) -> Judged:
    """One step of each row."""
    return Judged(
        judged.error[rows, steps],
        judged.expected[rows, steps],
        {t: bound[rows, steps] for t, bound in judged.bounds.items()},
        judged.deviation[rows, steps],
    )


def _silent(judged: Judged, where: Array) -> Judged:
    """Nothing said about some elements."""
    return replace(judged, error=np.where(where, 0.0, judged.error))
