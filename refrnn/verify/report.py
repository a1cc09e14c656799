"""What a check found: the verdict, how near the limit, and the first difference."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from refrnn.engines import run as run_reference
from refrnn.gates import Array
from refrnn.reference import QUIET
from refrnn.verify.conventions.blind import blind
from refrnn.verify.envelope import judge
from refrnn.verify.freerun import free_run
from refrnn.verify.judged import Judged
from refrnn.verify.page import page
from refrnn.verify.precisions import PRECISIONS, Precision
from refrnn.verify.subject import Part
from refrnn.verify.tasks import Seen, Task
from refrnn.verify.tracked import TIERS
from refrnn.verify.whole import plain, write

RETURNED = ("h", "c")  # arrays without a time axis


@dataclass(frozen=True)
class First:
    """The first number that no correct implementation can have put out (or hardly any).

    run       which run, in words
    array     "y", a gate, "cs", "hs", or a returned "h" or "c"; of a Bidirectional with its way
    row, step, unit
              where; step is None in a returned state, and counts as in the candidate's own array
    got, expected, bound, margin
              the number, the reference's for the candidate's own step before, the largest error
              allowed (S), and |got - expected| / bound; the bound is 0 where a masked step must
              repeat a number exactly
    new_call  whether the step is the first of a chunk
    """

    run: str
    array: str
    row: int
    step: int | None
    unit: int
    got: float
    expected: float
    bound: float
    margin: float
    new_call: bool = False

    def __str__(self) -> str:
        where = [f"row {self.row}"]
        if self.step is not None:
            where.append(f"step {self.step}")
        where.append(f"unit {self.unit}")
        allowed = f"{self.bound:.1e} allowed" if self.bound else "an exact copy expected"
        border = ", the first of a chunk" if self.new_call else ""
        digits = 9 if abs(self.got - self.expected) > 1e-8 * abs(self.expected) else 17
        return (
            f"{self.array}[{', '.join(where)}] is {self.got:.{digits}g},"
            f" expected {self.expected:.{digits}g}:"
            f" off by {abs(self.got - self.expected):.1e}, {allowed} ({self.run}{border})"
        )


class Found(NamedTuple):
    """One array of one part of a run."""

    part: Part
    name: str
    judged: Judged

    @property
    def label(self) -> str:
        return f"{self.part.way}.{self.name}" if self.part.way else self.name


@dataclass(frozen=True)
class Run:
    """One run of the candidate, and how it was judged.

    title      in words: "whole", "in chunks of 1", ...
    tasks      one for each of the parts, in the order of its processing
    seen       what the candidate showed of each
    hidden     True where only the end was seen, and the envelope is that of a free run
    """

    title: str
    parts: Sequence[Part]
    tasks: Sequence[Task]
    seen: Sequence[Seen]
    precision: Precision
    hidden: bool = False

    @cached_property
    def found(self) -> list[Found]:
        """The arrays, each part's in the order in which a step computes them."""
        judged = _free if self.hidden else judge
        return [
            Found(part, name, array)
            for part, task, seen in zip(self.parts, self.tasks, self.seen, strict=True)
            for name, array in judged(task, seen, self.precision).items()
        ]

    def under(self, precision: Precision) -> "Run":
        """The same run, judged by another arithmetic."""
        return Run(self.title, self.parts, self.tasks, self.seen, precision, self.hidden)

    @cached_property
    def margins(self) -> dict[str, float]:
        """The worst |error| / bound of each tier."""
        return {
            tier: max(
                (float(f.judged.margin(tier).max(initial=0)) for f in self.found), default=0.0
            )
            for tier in TIERS
        }

    @property
    def broken(self) -> bool:
        return max(self.margins.values()) > 1

    @cached_property
    def decidable(self) -> bool:
        return not self.hidden or all(
            bool(np.isfinite(f.judged.bounds["S"]).all()) for f in self.found
        )

    @cached_property
    def first(self) -> First | None:
        """The first broken number in the order of computation: step, array, row, unit."""
        found: list[tuple[tuple[int, ...], First]] = []
        for order, array in enumerate(self.found):
            margin = np.maximum.reduce([array.judged.margin(tier) for tier in TIERS])
            if not (margin > 1).any():
                continue
            timed = margin.ndim == 3
            rows = np.moveaxis(margin > 1, 1, 0) if timed else (margin > 1)[None]
            time, row, unit = (int(k) for k in np.argwhere(rows)[0])
            at = (row, time, unit) if timed else (row, unit)
            key = (time if timed else 2**31, order, row, unit)
            found.append((key, self._told(array, at, margin)))
        return min(found, key=lambda pair: pair[0], default=(None, None))[1]

    def _told(self, array: Found, at: tuple[int, ...], margin: Array) -> First:
        judged, part = array.judged, array.part
        task = self.tasks[list(self.parts).index(part)]
        timed = len(at) == 3
        step = at[1] if timed else None
        if step is not None and part.turned:
            step = judged.error.shape[1] - 1 - step
        return First(
            self.title,
            array.label,
            at[0],
            step,
            at[-1],
            float(judged.expected[at] + judged.error[at]),
            float(judged.expected[at]),
            float(judged.bounds["S"][at]),
            float(margin[at]),
            bool(timed and task.calls is not None and task.calls[at[1]] and at[1] > 0),
        )


def _free(task: Task, seen: Seen, precision: Precision) -> dict[str, Judged]:
    """The end of a run whose steps were not seen; no limit where rounding decides the outcome."""
    free = free_run(task, precision)
    B, T, H = free.y.shape
    settled = free.decidable[:, -1:] if T else np.ones((B, 1), bool)
    nothing = np.zeros((B, H))  # what no step emits
    found = {}
    ends = {"y": free.y[:, -1] if T else nothing, **free.state._asdict()}
    bounds = {"y": free.bound[:, -1] if T else nothing, **free.bounds._asdict()}
    for name, got in (("y", seen.y), ("h", seen.h), ("c", seen.c)):
        if got is None:
            continue
        want, bound = ends[name], np.where(settled, bounds[name], np.inf)
        error = np.where(settled, np.asarray(got, np.float64) - want, 0.0)
        none = np.full_like(bound, np.inf)
        found[name] = Judged(error, want, {"W": none, "P": none, "S": bound}, bound)
    return found


@dataclass(frozen=True)
class Report:
    """The outcome of `check`.

    who        what was judged
    precision  the arithmetic that was claimed
    fits       names of PRECISIONS that the runs do fit, finest first
    runs       each run with its margins
    notes      what else was seen: runs that were not possible, bits that differ
    """

    who: str
    precision: str
    fits: list[str]
    runs: list[Run]
    notes: list[str]

    @cached_property
    def blind(self) -> list[str]:
        """Wrong conventions that these runs could not have told from the right one, in words.

        Looked for when it is asked for, or printed: it costs more than the check.
        """
        with QUIET():
            return blind([task for run in self.runs for task in run.tasks])

    @property
    def margins(self) -> dict[str, float]:
        """The worst |error| / bound of all runs: W, worst case; P and S, probable."""
        return {t: max((run.margins[t] for run in self.runs), default=0.0) for t in TIERS}

    @property
    def margin(self) -> float:
        """The worst |error| / bound of tier S."""
        return self.margins["S"]

    @property
    def verdict(self) -> str:
        """ "agrees"; "differs": W is broken, which is a proof; "probably differs": only S or P is;
        "undecidable": rounding decides the outcome of a run of which only the end was seen."""
        margins = self.margins
        if margins["W"] > 1:
            return "differs"
        if max(margins.values()) > 1:
            return "probably differs"
        return "agrees" if all(run.decidable for run in self.runs) else "undecidable"

    @property
    def passed(self) -> bool:
        return self.verdict == "agrees"

    @property
    def first(self) -> First | None:
        """The first difference of the first run that has one."""
        return next((run.first for run in self.runs if run.first is not None), None)

    @cached_property
    def spread(self) -> tuple[int, int]:
        """Of the steps of the first broken run after its first difference: how many are wrong in
        themselves, and how many are right but carry an earlier error on."""
        for run in self.runs:
            if run.first is not None and not run.hidden:
                return _made_and_carried(run)
        return 0, 0

    def to_dict(self) -> dict[str, Any]:
        """For machines: plain numbers, strings and lists; infinities and NaN as None."""
        made, carried = self.spread
        return plain(
            {
                "who": self.who,
                "verdict": self.verdict,
                "passed": self.passed,
                "precision": self.precision,
                "fits": self.fits,
                "margins": self.margins,
                "first": None if self.first is None else vars(self.first),
                "made": made,
                "carried": carried,
                "runs": [{"title": run.title, **run.margins} for run in self.runs],
                "notes": self.notes,
                "blind": self.blind,
            }
        )

    def to_html(self, path: "str | os.PathLike[str]") -> None:
        """Write one page that needs no other file: the words of `print`, every number of the
        first difference, the runs and their margins, and for the run of the first difference (or
        the worst) its error and bounds by step, and its margins by step and unit. The file is
        whole or not there. Raises OSError where it cannot be written."""
        write(path, page(self))

    def __str__(self) -> str:
        m = self.margins
        worst = "" if all(run.hidden for run in self.runs) else f" ({m['W']:.3g} of the worst case)"
        lines = [
            f"{self.who}: {self.verdict}, as {self.precision}: largest error {m['S']:.3g} of what a"
            f" correct implementation may show{worst},"
            f" {len(self.runs)} run{'s' if len(self.runs) != 1 else ''}"
        ]
        if self.first is not None:
            lines.append(f"first difference: {self.first}")
            made, carried = self.spread
            if made:
                lines.append(
                    f"made in that step, from the candidate's own step before; {made} (row, step)"
                    f" pairs are wrong in themselves, {carried} are right but carry an error on"
                )
        if self.fits and self.precision not in self.fits:
            lines.append(f"fits {self.fits[0]}, not {self.precision}")
        elif self.fits and self.fits[0] != self.precision:
            lines.append(f"fits {self.fits[0]} already, finer than {self.precision}")
        elif self.first is not None and self.first.bound:
            lines.append(f"fits none of {', '.join(PRECISIONS)}")
        lines += self.notes
        if self.passed and self.blind:
            lines.append("these runs could not have seen: " + "; ".join(self.blind))
        return "\n".join(lines)


def _made_and_carried(run: Run) -> tuple[int, int]:
    """(row, step) pairs wrong in themselves, and right ones whose outputs are off all the same."""
    made = carried = 0
    for part, task, seen in zip(run.parts, run.tasks, run.seen, strict=True):
        mine = [f.judged for f in run.found if f.part == part and f.judged.error.ndim == 3]
        wrong = np.any([(j.margin("S") > 1).any(-1) for j in mine], axis=0)  # (B, T)
        y = next(f.judged for f in run.found if f.part == part and f.name == "y")
        free = _reference_run(task)
        with QUIET():
            off = (np.abs(np.asarray(seen.y, np.float64) - free) > 10 * y.bounds["S"]).any(-1)
        started = np.logical_or.accumulate(wrong, axis=1)
        made += int(wrong.sum())
        carried += int((off & ~wrong & started).sum())
    return made, carried


def _reference_run(task: Task) -> Array:
    weights = type(task.weights)(*(np.asarray(w, np.float64) for w in task.weights))
    state = type(task.state)(*(np.asarray(s, np.float64) for s in task.state))
    y, _ = run_reference(
        task.cell,
        weights,
        np.asarray(task.xs, np.float64),
        state,
        mask=task.mask,
        reset=task.reset,
        zero_output_for_mask=task.emits_zeros,
        last_output=task.last_output,
    )
    return y


def fitting(runs: Sequence[Run], claimed: Precision) -> list[str]:
    """The precisions that all the runs fit, finest first.

    Those coarser than the claimed one are tried only where that one does not fit, for most of the
    outputs of a run: a few wrong numbers among right ones are no matter of rounding.
    """
    broken = any(run.broken for run in runs)
    if broken and not any(map(_mostly_broken, runs)):
        return []
    names: list[str] = []
    for precision in PRECISIONS.values():
        if precision == claimed:
            if not broken:
                return [*names, precision.name]
            continue
        if precision.u < claimed.u and not broken:
            continue  # float64 of float32 numbers would be a miracle
        if not any(run.under(precision).broken for run in runs):
            names.append(precision.name)
    return names


def _mostly_broken(run: Run) -> bool:
    outputs = [found.judged for found in run.found if found.name == "y"]
    margins = np.concatenate([y.margin("S")[y.bounds["S"] > 0] for y in outputs])
    return bool(np.mean(margins > 1) > 0.5) if margins.size else False
