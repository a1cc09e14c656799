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

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from refrnn.cells import Cell
from refrnn.gates import Array
from refrnn.reference import QUIET
from refrnn.verify.carried import Carried
from refrnn.verify.judged import Judged, at, compared, joined, silent, where
from refrnn.verify.precisions import PRECISIONS, Precision
from refrnn.verify.sums import Sums
from refrnn.verify.tasks import Seen, Task
from refrnn.verify.tracked import TIERS, Arithmetic, wide

BUDGET = 1e-6  # chance that a correct implementation breaks S in one check
BLOCK = 2**14  # elements of a gate that are judged at a time, so that they stay in the cache


def shown(cell: Cell, gates_seen: Mapping[str, Any]) -> list[str]:
    """The names of gates that are seen, in the order in which they are computed."""
    order = [name for g in cell.gates for name in (f"pre.{g}", g)]
    return [name for name in order if name in gates_seen]


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
        self.y = wide(seen.y)
        B, T, H = self.y.shape
        F = len(task.weights.kernel)
        self.shape = B, T, H
        many = max(1, B * T * H)
        self.arithmetic = Arithmetic(
            precision,
            many=standard_deviations(many * len(task.cell.gates) * (F + H + 3)),
            lam=standard_deviations(many),
        )
        self.sums = Sums(task.cell, task.weights, precision, self.arithmetic)
        self.overflow = np.zeros((B, T), bool)

    # --- the run ------------------------------------------------------------------------------

    def run(self) -> dict[str, Judged]:
        task, seen = self.task, self.seen
        live = np.ones(self.shape[:2], bool) if task.mask is None else task.mask
        before, copied = self._histories(live)
        carried = (
            Carried(task, seen.cs, self.arithmetic, live) if "c" in task.state._fields else None
        )
        found: dict[str, list[Judged]] = {}
        for block in self._blocks():
            for name, judged in self._block(block, before, carried).items():
                found.setdefault(name, []).append(judged)
        whole = {name: joined(parts) for name, parts in found.items()}
        frozen = np.broadcast_to(~live[:, :, None], self.shape)
        if seen.hs is not None:
            hs = self._held(whole["y"], frozen, self._kept(before)).against(seen.hs, frozen)
        if task.mask is not None:
            whole["y"] = self._held(whole["y"], frozen, copied).against(self.y, frozen)
            for name in seen.gates:  # what a gate does at a masked step is its own affair
                whole[name] = silent(whole[name], frozen)
        if seen.hs is not None:
            whole["hs"] = silent(hs, np.isnan(wide(seen.hs)))
        self._returned(whole, live, before, carried)
        if self.overflow.any():
            return {name: self._overflown(name, judged) for name, judged in whole.items()}
        return whole

    def _overflown(self, name: str, judged: Judged) -> Judged:
        """Infinities and NaN of either sign are right from where a row may overflow its type."""
        since = np.logical_or.accumulate(self.overflow, axis=1)[:, :, None]
        got = self.seen.gates[name] if name in self.seen.gates else getattr(self.seen, name)
        lost = ~np.isfinite(wide(got)) & (since if judged.error.ndim == 3 else since[:, -1])
        return silent(judged, lost)

    def _blocks(self) -> Iterator[slice]:
        B, T, H = self.shape
        length = max(1, BLOCK // max(1, B * H))
        for start in range(0, max(1, T), length):
            yield slice(start, min(T, start + length))

    def _histories(self, live: Array) -> tuple[Array, Array]:
        """Its own h before each step and after the last; what a masked step must emit."""
        task, (B, T, H) = self.task, self.shape
        h = wide(task.state.h)
        before, copied = np.empty((B, T + 1, H)), np.zeros((B, T, H))
        if task.mask is None and task.reset is None:
            before[:, 0], before[:, 1:] = h, self.y
            return before, copied
        last = np.zeros((B, H)) if task.last_output is None else wide(task.last_output)
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
        earlier[:, 1:] = wide(self.seen.hs)[:, :-1]
        if self.task.reset is not None:
            earlier[self.task.reset] = np.nan
        return np.where(np.isnan(earlier), before[:, :-1], earlier)

    def _block(self, block: slice, before: Array, carried: Any) -> dict[str, Judged]:
        """Everything visible of some steps, in the order in which it is computed."""
        cell, seen = self.task.cell, self.seen
        x, h = wide(self.task.xs[:, block]), before[:, block]
        step = self.sums.step(x, h)
        c = None
        if carried is not None:
            c = carried.before(block, step)
        results = step if c is None else step(c)
        self.overflow[:, block] = self._may_overflow(results, h)
        found: dict[str, Judged] = {}
        for name in shown(cell, seen.gates):
            value = getattr(results.pre if name.startswith("pre.") else results, name[-1])
            found[name] = compared(wide(seen.gates[name][:, block]), value)
        if c is not None and seen.cs is not None:
            cs = wide(seen.cs[:, block])
            after = compared(cs, results.c)
            if self.task.mask is not None:  # a masked step keeps the c before it, and its error
                frozen = np.broadcast_to(~self.task.mask[:, block, None], cs.shape)
                after = where(frozen, compared(cs, c), after)
            found["cs"] = silent(after, np.isnan(cs))
        found["y"] = compared(self.y[:, block], results.h)
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
        return where(frozen, Judged(none, value, dict.fromkeys(TIERS, none), none), y)

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
                h = where(frozen, h, at(whole["y"], np.arange(B), last))
            whole["h"] = h.against(self.seen.h, frozen)
        if self.seen.c is not None and carried is not None:
            c = Judged(none, carried.c, dict.fromkeys(TIERS, none), none)
            c = where(frozen, c, compared(wide(self.seen.c), carried.after()))
            whole["c"] = c.against(self.seen.c, frozen)


def standard_deviations(count: float) -> float:
    """How many standard deviations all of `count` numbers stay inside, but for BUDGET."""
    return float(np.sqrt(2 * np.log(2 * max(1, count) / BUDGET)))
