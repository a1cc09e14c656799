"""What every check of a stream uses: runs of the callable in pieces, and how two are compared."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from refrnn import reference
from refrnn.gates import Array
from refrnn.reference import QUIET
from refrnn.verify import chunks as cutting
from refrnn.verify.audits.steppers import Stepper, leaves
from refrnn.verify.precisions import PRECISIONS, Precision
from refrnn.verify.report import Run
from refrnn.verify.subject import Subject

SHORT = 6  # steps of which every chunking is tried: 32
LONG = 23
CUTTINGS = 5  # random ones of the long run
HALF = 3  # where a short run is cut in two
CHANGED_ROWS = 4  # rows that are tried one at a time, at most
SETTLING = 10  # runs after which what reset() kept has become the same each time
# Without a reference no bound can be derived. Then a difference passes as rounding where it is at
# most so many times what a last-place change of every input does to the outputs.
ROUNDINGS = 16
WRONG = 1000  # units in the last place of the largest output: more is no rounding in a repetition
FITS = 0.01  # a cause is named where it leaves a hundredth of the difference
SAME, ENVELOPE, ROUNDING = "same bits", "within the envelope", "within rounding"


class Failed(Exception):
    """A check found something; the text says what and where."""


class Skipped(Exception):
    """A check cannot be run; the text says why."""


class Outputs(NamedTuple):
    """What came out for x.

    y     (B, T, H)
    seen  (T,) False where the callable showed no output: within chunks, if it returns only the last
    x     (B, T, F), where it is all that was taken since the beginning; or None
    """

    y: Array
    seen: Array
    x: Array | None = None

    def of(self, rows: Sequence[int]) -> "Outputs":
        return Outputs(self.y[rows], self.seen, None if self.x is None else self.x[rows])


class Auditor:
    """A callable, what it is held against, and inputs."""

    def __init__(
        self,
        step: Stepper,
        subject: Subject | None,
        features: int,
        precision: Precision | None,
        seed: int,
    ) -> None:
        self.step, self.subject, self.precision = step, subject, precision
        rng = np.random.default_rng(seed)
        dtype = "float64" if precision is PRECISIONS["float64"] else "float32"
        shape = step.rows, LONG, features
        wanted = dtype if subject is None else subject.dtype
        self.x, self.other = (rng.normal(size=shape).astype(wanted) for _ in range(2))
        self.rng = rng
        self.measured = False
        self.right = False  # whether the run is right in one piece
        self.allowed = np.zeros(LONG)  # what passes as rounding at each step
        self.settled: Array | None = None  # a run after reset(), where it keeps something
        self.suspect = ""  # how two runs differ where reset() seems to keep something
        self.closeness = SAME  # the worst since the check began

    # --- runs ---

    @property
    def rows(self) -> int:
        return self.step.rows

    @property
    def short(self) -> Array:
        return self.x[:, :SHORT]

    @property
    def some_rows(self) -> list[int]:
        picked = np.linspace(0, self.rows - 1, min(CHANGED_ROWS, self.rows))
        return [int(row) for row in picked]

    def whole(self, x: Array, **keywords: Any) -> Outputs:
        """The run in one call; or step by step, where that alone shows all outputs."""
        return self.run(x, [1] if self.step.last else [x.shape[1]], **keywords)

    def halves(self, x: Array, **keywords: Any) -> Outputs:
        return self.run(x, [HALF, x.shape[1] - HALF], **keywords)

    def run(self, x: Array, sizes: Sequence[int], **keywords: Any) -> Outputs:
        """From the beginning, in chunks; keywords (B, T) are cut as x is."""
        self.step.begin()
        return self.go_on(x, sizes, **keywords)._replace(x=None if keywords else x)

    def go_on(self, x: Array, sizes: Sequence[int] | None = None, **keywords: Any) -> Outputs:
        """From where it is."""
        parts: list[Outputs] = []
        for piece in cutting.pieces(x.shape[1], sizes or [x.shape[1]]):
            cut = {name: array[:, piece].copy() for name, array in keywords.items()}
            parts.append(self.shown(self.step.push(x[:, piece], **cut), piece.stop - piece.start))
            for name, array in cut.items():
                if not np.array_equal(array, keywords[name][:, piece]):
                    raise Failed(f"{self.step.ways[0].name}() writes to its argument {name}")
        return joined(parts)

    def shown(self, y: Array, steps: int) -> Outputs:
        """What a call returned, step by step."""
        if not (self.step.last and y.ndim == 2):
            return Outputs(y, np.ones(steps, bool))
        filled = np.repeat(y[:, None], steps, axis=1)
        return Outputs(filled, np.arange(steps) == steps - 1)

    # --- comparing ---

    def agree(
        self,
        what: str,
        got: Outputs,
        want: Outputs,
        live: Array | None = None,
        first: int = 0,
        names: Sequence[int] | None = None,
    ) -> None:
        """Raise Failed where two runs differ by more than rounding.

        live   (B, T) what to compare, or None for all
        first  the step at which both begin, in a message and for what rounding may do
        names  the numbers of the rows in a message
        """
        if got.y.shape != want.y.shape:
            raise Failed(f"{what}: outputs have shape {got.y.shape}, expected {want.y.shape}")
        there = np.broadcast_to(got.seen & want.seen, got.y.shape[:2])
        there = there if live is None else there & live
        a, b = got.y[there], want.y[there]
        if a.tobytes() == b.tobytes():
            return
        with QUIET():
            off = np.abs(got.y.astype(np.float64) - want.y.astype(np.float64))
        alike = (got.y == want.y) | (np.isnan(got.y) & np.isnan(want.y))
        off = np.where(alike, 0, np.where(np.isnan(off), np.inf, off))
        off[~there] = 0
        if self._in_envelope(got, there):
            self._note(ENVELOPE)
            return
        steps = slice(first, first + off.shape[1])
        allowed = self.allowed[steps].reshape(1, -1, *[1] * (off.ndim - 2))
        wrong = (off > 0) & ~(off <= allowed)
        if not wrong.any():
            self._note(ROUNDING)
            return
        step, row, *unit = (int(k) for k in np.argwhere(np.moveaxis(wrong, 1, 0))[0])
        at = (row, step, *unit)
        said = (row if names is None else names[row], step + first, *unit)
        raise Failed(f"{what}: y[{self.where(said)}] is {got.y[at]:.9g}, expected {want.y[at]:.9g}")

    @staticmethod
    def where(at: Sequence[int]) -> str:
        row, step, *unit = at
        return ", ".join([f"row {row}", f"step {step}", *(f"unit {k}" for k in unit)])

    def _note(self, closeness: str) -> None:
        order = SAME, ENVELOPE, ROUNDING
        self.closeness = max(self.closeness, closeness, key=order.index)

    def _in_envelope(self, got: Outputs, there: Array) -> bool:
        """Whether a run by itself is right: the reference's, step by step."""
        if not (self.right and got.x is not None and got.seen.all()):
            return False
        return bool(self.judged("", got).margins["S"] <= 1)

    def judged(self, title: str, run: Outputs) -> Run:
        """A run from the beginning held against the reference."""
        assert self.subject is not None
        precision = self.claimed(run.y.dtype)
        what = self.subject.stored_as(precision)
        tasks = what.tasks(run.x)
        seen = what.seen(what.checked({"y": run.y}, *run.y.shape[:2]))
        return Run(title, what.parts, tasks, seen, precision)

    def claimed(self, dtype: Any) -> Precision:
        """The precision asked for, or that of the outputs, or of the reference if it is coarser."""
        if self.precision is not None:
            return self.precision
        dtypes = [dtype] if self.subject is None else [dtype, self.subject.dtype]
        return max((PRECISIONS[np.dtype(d).name] for d in dtypes), key=lambda p: p.pointwise)

    def measure(self) -> None:
        """See whether the whole run is right, and what passes as rounding at each step."""
        run = self.whole(self.x)
        p = self.claimed(run.y.dtype)
        u = max(p.u, p.pointwise, p.operand_u, PRECISIONS[self.x.dtype.name].pointwise)
        others = (0, *range(2, run.y.ndim))  # all axes but time
        size = u * np.abs(run.y).astype(np.float64).max(axis=others)
        for _ in range(4):
            signs = self.rng.choice([-2, 2], self.x.shape)
            moved = self.whole((self.x * (1 + u * signs)).astype(self.x.dtype))
            with QUIET():
                off = np.abs(moved.y.astype(np.float64) - run.y)
            size = np.maximum(size, off.max(axis=others))
        self.allowed = ROUNDINGS * np.maximum.accumulate(size)
        if self.subject is not None:
            try:
                self.right = self.judged("", run).margins["S"] <= 1
            except ValueError:  # of another width: the check of the numbers says so
                pass
        self.measured = True


def joined(parts: Sequence[Outputs]) -> Outputs:
    """Pieces one after another."""
    kept = [part for part in parts if part.seen.size] or list(parts[:1])
    return Outputs(
        np.concatenate([part.y for part in kept], axis=1),
        np.concatenate([part.seen for part in kept]),
    )


def compositions(steps: int) -> list[list[int]]:
    """Every way to cut `steps` into chunks of at least 1; few and equal chunks first."""
    found = []
    for cut in product([False, True], repeat=steps - 1):
        ends = [t + 1 for t, here in enumerate(cut) if here] + [steps]
        found.append([b - a for a, b in zip([0, *ends], ends, strict=False)])
    return sorted(found, key=lambda sizes: (len(sizes), max(sizes)))


def in_chunks(sizes: Sequence[int]) -> str:
    return f"in chunks of {' + '.join(map(str, sizes))}"


def needs_chunks(a: Auditor) -> None:
    if not a.step.chunked:
        raise Skipped("it takes one step at a time")


def needs_rows(a: Auditor) -> None:
    if a.rows < 2:
        raise Skipped("there is one row")


def needs_reference(a: Auditor) -> Subject:
    if a.subject is None:
        raise Skipped("no reference is given")
    return a.subject


def same_bits(got: Outputs, want: Outputs) -> bool:
    return got.y.tobytes() == want.y.tobytes()


def far_apart(got: Outputs, want: Outputs) -> bool:
    """Whether two repetitions differ by more than any rounding would."""
    with QUIET():
        off = np.abs(got.y.astype(np.float64) - want.y)
    u = float(np.finfo(np.float32 if got.y.dtype.itemsize < 8 else np.float64).eps)
    return not bool((off <= WRONG * u * np.abs(want.y).max(initial=0)).all())


def difference(got: Outputs, want: Outputs) -> str:
    differs = (got.y != want.y) | (np.signbit(got.y) != np.signbit(want.y))
    step, row, *unit = (int(k) for k in np.argwhere(np.moveaxis(differs, 1, 0))[0])
    at = (row, step, *unit)
    return f"y[{Auditor.where(at)}] is {got.y[at]:.9g}, and {want.y[at]:.9g} the other time"


def no_state(a: Auditor) -> Any:
    assert a.subject is not None
    part = a.subject.parts[0]
    return part.cell.zeros(a.rows, part.units, np.float64)


def by_reference(a: Auditor, x: Array, state: Any) -> tuple[Array, Any]:
    """The reference in float64."""
    assert a.subject is not None
    part = a.subject.parts[0]
    weights = type(part.weights)(*(np.asarray(w, np.float64) for w in part.weights))
    return reference.run(part.cell, weights, x.astype(np.float64), state)


def distance(got: Array, want: Array) -> float:
    if got.shape != want.shape or not got.size:
        return np.inf
    with QUIET():
        off = np.abs(got.astype(np.float64) - want).max()
    return float(off) if np.isfinite(off) else np.inf


def explains(got: Array, cause: Array, right: Array) -> bool:
    """Whether a cause explains what came out, where it and what is right can be told apart."""
    return (
        distance(got, cause) <= FITS * distance(cause, right) < np.inf
        and distance(cause, right) > 0
    )


def nearly(got: Array, right: Array) -> bool:
    """Whether this is the reference's run, but for what its precision makes of it."""
    return distance(got, right) <= FITS * float(np.abs(right).max(initial=0))


def slips(a: Auditor) -> list[tuple[str, Callable[[Any], Any]]]:
    """What may happen to a state of several parts on its way."""
    names = no_state(a)._fields
    if len(names) < 2:
        return []
    return [
        ("c is lost", lambda s: s._replace(c=0 * s.c)),
        ("h is lost", lambda s: s._replace(h=0 * s.h)),
        ("h and c are swapped", lambda s: s._replace(h=s.c, c=s.h)),
        ("h stands for c too", lambda s: s._replace(c=s.h)),
        ("c stands for h too", lambda s: s._replace(h=s.c)),
    ]


def arrays_of(state: Any) -> list[Array]:
    return [np.asarray(leaf) for leaf in leaves(state) if hasattr(leaf, "__array__")]
