"""A test that another implementation is right, which raises if it is not, or could not be told."""

import itertools
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from refrnn.verify import PRECISIONS, Mismatch, Report, check
from refrnn.verify.report import First, Run
from refrnn.verify.subject import Part, Subject, subject

__all__ = ["BlindSpot", "Mismatch", "assert_matches"]


class BlindSpot(UserWarning):
    """A test passed that certain mistakes would have passed as well."""


def assert_matches(
    actual: Any,
    reference: Any,
    x: Any,
    state: Any = None,
    mask: Any = None,
    chunks: Any = "all",
    precision: str | None = None,
) -> Report:
    """Raise unless an implementation gives the reference's numbers; arguments as for `check`.

    actual     the outputs: y (B, T, H), or (y, h) or (y, h, c), or a dictionary with gates; or a
               function f(x, initial_state=None, mask=None) that returns them, which is then also
               run in chunks, row by row, and on one weight at a time
    reference  a built LSTM, GRU or SimpleRNN layer, a Bidirectional of one, a model of one such
               layer, or a cell's name and `refrnn.Weights`

    Returns the report. Raises Mismatch, an AssertionError, if the implementation differs, or if
    it cannot be decided whether it does; the message says where, by how much, and what to do next.
    Raises ValueError for arguments that do not fit, and for a test that is blind: constant weights,
    gates of equal weights, symmetric recurrent kernels, a single step from nothing, or no number to
    compare. Warns with BlindSpot where a passing test leaves a common mistake unseen, but not
    inside a Hypothesis test, whose other examples see more.
    """
    __tracebackhide__ = True
    what = subject(reference)
    for sentence in _refusals(what, x, state, mask):
        raise ValueError(f"{what.who}: this test is blind: {sentence}")
    report = check(actual, what, x, state, mask, chunks, precision)
    if not any(found.judged.error.size for run in report.runs for found in run.found):
        raise ValueError(
            f"{what.who}: this test is blind: every array is empty, expected at least one number"
            " to compare; use a batch of at least one row and one step"
        )
    if not report.passed:
        raise Mismatch(_told(report))
    if not _drawn():
        for sentence in _unseen(what, report, precision):
            warnings.warn(f"{what.who}: passed, but {sentence}", BlindSpot, stacklevel=2)
    return report


def _refusals(what: Subject, x: Any, state: Any, mask: Any) -> Iterator[str]:
    """Why no outcome of the test would mean anything."""
    for part in what.parts:
        yield from _alike(part)
    tasks = what.tasks(x, state, mask)
    nothing = not any(np.any(s) for task in tasks for s in task.state)
    if tasks[0].xs.shape[1] == 1 and nothing and not any(map(_biased, what.parts)):
        yield (
            "of one step from a state of zeros, without biases, most is multiplied by 0 (the"
            " recurrent kernel, the forget gate); use more steps, or a state and biases that are"
            " not 0"
        )


def _alike(part: Part) -> Iterator[str]:
    """Weights that are the same after the mistakes that are made most often."""
    of = f"the {part.way} layer's " if part.way else "the "
    drawn = "; draw them at random, as refrnn.cases.Case does"
    W, U, bias = part.weights
    for name, array in (("kernel", W), ("recurrent_kernel", U)):
        if array.size > 1 and np.all(array == array.flat[0]):
            yield (
                f"{of}{name} is {array.flat[0]:g} everywhere, so a transposed or permuted one gives"
                f" the same numbers{drawn}"
            )
    H, gates = part.units, part.cell.gates
    blocks = [
        np.concatenate([np.atleast_2d(a)[:, k * H : (k + 1) * H] for a in (W, U, bias)])
        for k in range(len(gates))
    ]
    for k, other in itertools.combinations(range(len(gates)), 2):
        if np.array_equal(blocks[k], blocks[other]):
            yield (
                f"{of}gates {gates[k]} and {gates[other]} have equal weights, so the two may be"
                f" exchanged{drawn}"
            )
    if H > 1 and all(np.array_equal(U[:, k : k + H], U[:, k : k + H].T) for k in _starts(part)):
        yield f"{of}recurrent_kernel is symmetric, so a transposed one gives the same{drawn}"


def _starts(part: Part) -> range:
    return range(0, part.units * len(part.cell.gates), part.units)


def _biased(part: Part) -> bool:
    return bool(np.any(part.weights.bias))


def _unseen(what: Subject, report: Report, precision: str | None) -> Iterator[str]:
    """Mistakes that would have passed as well."""
    claimed, own = PRECISIONS[report.precision], PRECISIONS.get(what.dtype.name)
    if precision is None and own is not None and claimed.pointwise > own.pointwise:
        yield (
            f"only as {claimed.name}, because that is the outputs' dtype, where the reference is"
            f" {own.name}; give precision={claimed.name!r} if that is meant"
        )
    if not all(map(_biased, what.parts)):
        yield "all biases are 0: one that is left out, or added twice, would not show"
    if not any(map(_live, report.runs)):
        yield "no step was live: nothing but copies was compared"
    elif not any(map(_started, report.runs)):
        states = " and ".join(what.parts[0].states)
        swapped = ", or whose h and c are swapped," if "c" in what.parts[0].states else ""
        yield (
            f"every run began with zeros for {states}: a first state that is ignored{swapped} would"
            " not show; give a state, or the implementation as a function"
        )


def _live(run: Run) -> bool:
    return any(
        task.xs.shape[1] > 0 and (task.mask is None or bool(task.mask.any())) for task in run.tasks
    )


def _started(run: Run) -> bool:
    """Whether a state other than zeros was handed over, at first or between chunks."""
    return any(
        any(np.any(part) for part in task.state)
        or (task.calls is not None and bool(task.calls[1:].any()))
        for task in run.tasks
    )


def _drawn() -> bool:
    """Whether this is one of many examples of a Hypothesis test."""
    hypothesis = sys.modules.get("hypothesis")
    return hypothesis is not None and bool(hypothesis.currently_in_test_context())


def _told(report: Report) -> str:
    """A report for somebody who does not know how it comes about."""
    lines = [("", f"{report.who}: {report.verdict}")]
    first = report.first
    if first is not None:
        lines.append(("where", str(first)))
        if first.run in ("probes", "probes of -1"):
            lines.append(("probes", _probe(report, first)))
        lines += [("made", sentence) for sentence in _origin(report)]
        if not report.fits:
            text = f"fits none of {', '.join(PRECISIONS)}: not a matter of rounding"
        elif report.precision in report.fits:
            text = f"as {report.precision}"
        else:
            text = (
                f"fits {report.fits[0]}, not {report.precision}; give precision={report.fits[0]!r}"
                " if that is meant"
            )
        lines.append(("precision", text))
    runs = [f"{run.title} {max(run.margins.values()):.2g}" for run in report.runs]
    lines.append(("runs", f"{', '.join(runs)}: the largest error of each, where 1 is just allowed"))
    lines += [("note", note) for note in report.notes]
    lines.append(("next", _advice(report)))
    return "\n".join(f"  {name:9} {text}" if name else text for name, text in lines)


def _origin(report: Report) -> Iterator[str]:
    made, carried = report.spread
    if made:
        yield (
            "in that step, not before: the expected number starts from the candidate's own state"
            f" before it. Wrong in themselves: {_steps(made)}; right, but carrying it on:"
            f" {_steps(carried)}"
        )
    elif report.first is not None and any(run.hidden for run in report.runs):
        yield "at any step up to that one: only the end of the run was shown"


def _steps(count: int) -> str:
    return f"{count} step{'' if count == 1 else 's'} of a row"


def _probe(report: Report, first: First) -> str:
    """What a row of the probes is fed."""
    row, one = first.row, first.run.partition("of ")[2] or "1"
    tasks = report.runs[-1].tasks
    features = tasks[0].xs.shape[2]
    if row < features:
        alone = f"feature {row} of x"
    elif any(np.any(part[row]) for task in tasks for part in task.state):
        alone = f"unit {row - features} of h"
    else:
        return "one step from zeros on large inputs, so that the activations reach their ends"
    seen = f"so that each weight is seen alone: here {alone} is {one}"
    return f"one step on 0s and a single {one}, {seen}"


def _advice(report: Report) -> str:
    if report.verdict == "undecidable":
        return (
            "only the last output was shown, and rounding alone can change it beyond all bounds:"
            " two right implementations may differ as much. Return the outputs of all steps"
            " (return_sequences=True), give the implementation as a function, or take fewer steps"
        )
    return (
        "refrnn.verify.explain(actual, reference, x) looks for the cause, as `refrnn explain` does"
        " for files; refrnn.trace shows every gate of the reference"
    )
