"""An array of an implementation beside what was expected, and how far each number may be off."""

from dataclasses import dataclass, replace

import numpy as np

from refrnn.gates import Array
from refrnn.verify.tracked import DEVIATION, SYSTEMATIC, TIERS, Tracked, W, as_bounds, wide


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
        return replace(self, error=_error(wide(got), self.expected), frozen=frozen)


def _margin(error: Array, bound: Array) -> Array:
    size = np.where(np.isnan(error), np.inf, np.abs(error))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(size > 0, size / np.where(np.isfinite(bound), bound, np.inf), 0.0)
    return np.where(np.isinf(size), np.inf, ratio)


def compared(got: Array, want: Tracked) -> Judged:
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


def joined(parts: list[Judged]) -> Judged:
    """Blocks of steps, one after another."""
    if len(parts) == 1:
        return parts[0]
    return Judged(
        np.concatenate([p.error for p in parts], axis=1),
        np.concatenate([p.expected for p in parts], axis=1),
        {t: np.concatenate([p.bounds[t] for p in parts], axis=1) for t in TIERS},
        np.concatenate([p.deviation for p in parts], axis=1),
    )


def where(condition: Array, yes: Judged, no: Judged) -> Judged:
    return Judged(
        np.where(condition, yes.error, no.error),
        np.where(condition, yes.expected, no.expected),
        {t: np.where(condition, yes.bounds[t], no.bounds[t]) for t in TIERS},
        np.where(condition, yes.deviation, no.deviation),
    )


def at(judged: Judged, rows: Array, steps: Array) -> Judged:
    """One step of each row."""
    return Judged(
        judged.error[rows, steps],
        judged.expected[rows, steps],
        {t: bound[rows, steps] for t, bound in judged.bounds.items()},
        judged.deviation[rows, steps],
    )


def silent(judged: Judged, where: Array) -> Judged:
    """Nothing said about some elements."""
    return replace(judged, error=np.where(where, 0.0, judged.error))
