"""What is asked of a step callable: a table of checks, causes before what follows from them.

Each is a function of an `Auditor` that returns what held, in words, or raises `Failed` or
`Skipped`. What a check expects, it takes from a run that is cut in the same way wherever it can,
so that one mistake is found by one check.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from refrnn import reference
from refrnn.gates import Array
from refrnn.reference import QUIET
from refrnn.verify import chunks as cutting
from refrnn.verify.precisions import PRECISIONS, Precision
from refrnn.verify.report import Run
from refrnn.verify.steppers import Pure, Remembering, Stepper, Trouble, leaves, zeros_like
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
        if (off <= allowed).all():
            self._note(ROUNDING)
            return
        step, row, *unit = (int(k) for k in np.argwhere(np.moveaxis(off > allowed, 1, 0))[0])
        at = (row, step, *unit)
        said = (row if names is None else names[row], step + first, *unit)
        raise Failed(
            f"{what}: y[{self.where(said)}] is {got.y[at]:.9g}, expected {want.y[at]:.9g}"
        )

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
        u = max(p.u, p.pointwise, p.operand_u, float(np.finfo(self.x.dtype).eps) / 2)
        size = np.full(LONG, u * float(np.abs(run.y).max(initial=0)))
        for _ in range(4):
            signs = self.rng.choice([-2, 2], self.x.shape)
            moved = self.whole((self.x * (1 + u * signs)).astype(self.x.dtype))
            off = np.abs(moved.y.astype(np.float64) - run.y)
            size = np.maximum(size, off.max(axis=(0, *range(2, off.ndim))))
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


# --- begin -----------------------------------------------------------------------------------


def first_call(a: Auditor) -> str:
    """It can be called, for several lengths, and returns numbers."""
    shapes = []
    for steps in (SHORT, 2, 1):
        a.step.begin()
        y = a.step.push(a.x[:, :steps])
        if not np.isfinite(y).all():
            at = tuple(int(k) for k in np.argwhere(~np.isfinite(y))[0])
            raise Failed(f"y{list(at)} is {y[at]} for finite inputs of {steps} steps")
        shapes.append(y.shape)
    return f"outputs {shapes[0]} {y.dtype} for x {a.short.shape}"


def determinism(a: Auditor) -> str:
    """The same run twice gives the same bits."""
    runs = [a.halves(a.short) for _ in range(2)]
    if _same(*runs):
        return SAME
    told = _difference(*runs)
    if not a.step.pure:
        for _ in range(SETTLING):
            runs.append(a.halves(a.short))
        first, last = (_off(one.y, other.y) for one, other in (runs[:2], runs[-2:]))
        if last <= FITS * first:  # what is kept has settled; with chance in play it would not
            a.settled, a.suspect = runs[-1].y, told
            return f"alike after {SETTLING} runs"
    either = "" if a.step.pure else ", or what begins it anew leaves something"
    raise Failed(f"two runs of the same input differ{either}: {told}")


def begins_anew(a: Auditor) -> str:
    """After reset() it is as new, also after two."""
    if not a.step.resets:
        raise Skipped("it has no reset(); each run begins with restore() of a first snapshot")
    begun = "with state None, after other runs" if a.step.pure else "after reset()"
    if a.suspect:
        raise Failed(f"{begun} it is not as new: {a.suspect}{_kept(a)}")
    want = a.halves(a.short)
    a.run(a.other, [LONG])
    got = a.halves(a.short)
    if not _same(got, want) and _far(got, want):
        raise Failed(f"{begun} it is not as new: {_difference(got, want)}")
    a.run(a.other, [LONG])
    a.step.begin()
    a.agree("after two resets in a row", a.halves(a.short), want)
    return SAME


def _kept(a: Auditor) -> str:
    """Which part of the state reset() keeps, by the reference."""
    if a.subject is None or a.settled is None:
        return ""
    part = a.subject.parts[0]
    kinds = {"h": ["h"], "c": ["c"]} if len(part.states) > 1 else {}
    for name, kept in {"the state": list(part.states), **kinds}.items():
        state = _zeros(a)
        for _ in range(SETTLING + 2):
            begun = {n: v if n in kept else 0 * v for n, v in state._asdict().items()}
            ys, state = _refrun(a, a.short, type(state)(**begun))
        right, _ = _refrun(a, a.short, _zeros(a))
        if _fits(a.settled, ys, right):
            return f"; reset() keeps {name}"
    return ""


# --- the memory ------------------------------------------------------------------------------


def state_used(a: Auditor) -> str:
    """Outputs depend on what came in earlier calls."""
    tail = a.x[:, HALF : HALF + 1]
    found = []
    for history in (a.short[:, :HALF], a.other[:, :HALF]):
        a.step.begin()
        a.go_on(history)
        found.append(a.go_on(tail).y)
    rows = [k for k in range(a.rows) if found[0][k].tobytes() == found[1][k].tobytes()]
    if not rows:
        return f"after other histories every row's output at step {HALF} is another"
    together = []
    if a.step.chunked:
        for history in (a.short[:, :HALF], a.other[:, :HALF]):
            a.step.begin()
            together.append(a.step.push(np.concatenate([history, tail], axis=1)))
    ends = [y if a.step.last else y[:, -1] for y in together]
    inside = bool(ends) and ends[0].tobytes() != ends[1].tobytes()
    where = "" if len(rows) == a.rows else f" of row {rows[0]}"
    value = found[0][rows[0]].reshape(-1)[0]
    why = (
        "it does depend on earlier steps of the same call, so the state is cleared, or not handed"
        " on, between calls"
        if inside
        else "the state is never used, or it stays what it is from the start"
    )
    raise Failed(
        f"the output{where} at step {HALF} is {value:.9g} whatever came in earlier calls: {why}"
    )


def parts_used(a: Auditor) -> str:
    """Each part of the state is carried: c, not only h."""
    subject = _needs_reference(a)
    names = subject.parts[0].states
    if len(names) < 2:
        raise Skipped(f"the state of a {subject.parts[0].cell.name} has one part, {names[0]}")
    got = a.run(a.short, [1]).y
    right = _in_steps(a, lambda state: state)
    if _close(got, right):
        return f"{' and '.join(names)} are carried from one call to the next"
    for cause, change in _slips(a):
        if _fits(got, _in_steps(a, change), right):
            raise Failed(f"called step by step, {cause} between calls")
    raise Skipped("step by step the outputs fit neither the reference nor one with a part lost")


def _slips(a: Auditor) -> list[tuple[str, Callable[[Any], Any]]]:
    """What may happen to a state of several parts on its way."""
    names = _zeros(a)._fields
    if len(names) < 2:
        return []
    return [
        ("c is lost", lambda s: s._replace(c=0 * s.c)),
        ("h is lost", lambda s: s._replace(h=0 * s.h)),
        ("h and c are swapped", lambda s: s._replace(h=s.c, c=s.h)),
        ("h stands for c too", lambda s: s._replace(c=s.h)),
        ("c stands for h too", lambda s: s._replace(h=s.c)),
    ]


def _in_steps(a: Auditor, change: Callable[[Any], Any]) -> Array:
    """The reference step by step, with something done to the state before each but the first."""
    state, ys = _zeros(a), []
    for t in range(SHORT):
        y, state = _refrun(a, a.short[:, t : t + 1], change(state) if t else state)
        ys.append(y)
    return np.concatenate(ys, axis=1)


def causal(a: Auditor) -> str:
    """No output depends on a later input of the same chunk."""
    _needs_chunks(a)
    if a.step.last:
        raise Skipped("it returns the last output of a chunk alone")
    want = a.whole(a.short)
    for first in (1, SHORT - 1):
        x = a.short.copy()
        x[:, first:] = a.other[:, first:SHORT]
        live = np.broadcast_to(np.arange(SHORT) < first, want.y.shape[:2])
        what = f"with other inputs from step {first} on, in one chunk of {SHORT}"
        a.agree(what, a.whole(x)._replace(x=None), want, live)
    return a.closeness


# --- chunks ----------------------------------------------------------------------------------


def all_chunkings(a: Auditor) -> str:
    """Every way to cut a short run gives the run in one piece."""
    _needs_chunks(a)
    want = a.whole(a.short)
    tried, failed = compositions(SHORT), []
    for sizes in tried:
        try:
            a.agree(in_chunks(sizes), a.run(a.short, sizes), want)
        except Failed as failure:
            failed.append((sizes, str(failure)))
    if not failed:
        return f"{len(tried)} ways to cut {SHORT} steps: {a.closeness}"
    sizes, told = failed[0]
    raise Failed(
        f"{told}; {len(failed)} of {len(tried)} ways to cut {SHORT} steps differ"
        f"{_common([s for s, _ in failed], tried)}{_cut_cause(a, sizes, want)}"
    )


def _common(wrong: list[list[int]], tried: list[list[int]]) -> str:
    """What all the wrong cuttings have, and no other."""
    for n in range(1, SHORT):
        if wrong == [sizes for sizes in tried if n in sizes]:
            return f", all that have a chunk of length {n}"
        if wrong == [sizes for sizes in tried if n in sizes[:-1]]:
            return f", all that have a chunk of length {n} before the last"
    return ""


def _cut_cause(a: Auditor, sizes: Sequence[int], want: Outputs) -> str:
    """What happens at the only border of two chunks, if that can be told."""
    if len(sizes) != 2 or a.step.last:
        return ""
    k, steps = sizes[0], list(range(SHORT))
    got = a.run(a.short, sizes)
    edits = [
        ("the state is cleared between chunks", []),
        ("the last step of a chunk does not reach the state", steps[: k - 1]),
        ("the last step of a chunk is taken twice", [*steps[:k], k - 1]),
        ("the first step of a chunk is taken twice", steps[: k + 1]),
        ("the state that is handed on is that after the first step of a chunk", [0]),
    ]
    for cause, before in edits:
        twice = before == steps[: k + 1]
        order = [*before, *steps[k:]]
        tail = a.whole(a.short[:, order]).y[:, len(before) :]
        skip = k + twice  # which of the two outputs it shows is its own affair
        if _fits(got.y[:, skip:], tail[:, twice:], want.y[:, skip:]):
            return f": {cause}"
    for cause, ys in _border_slips(a, k):
        if _fits(got.y[:, k:], ys, want.y[:, k:]):
            return f": {cause} between chunks"
    return ""


def _border_slips(a: Auditor, k: int) -> Iterator[tuple[str, Array]]:
    """The reference's outputs after k steps, where something happened to its state there."""
    if a.subject is None:
        return
    _, state = _refrun(a, a.short[:, :k], _zeros(a))
    for cause, change in _slips(a):
        yield cause, _refrun(a, a.short[:, k:], change(state))[0]


def long_run(a: Auditor) -> str:
    """A longer run in random chunks, and step by step."""
    _needs_chunks(a)
    want = a.whole(a.x)
    cuttings = [[1] * LONG]
    for seed in range(CUTTINGS):
        cuttings.append([n for n in cutting.random_sizes(LONG, seed) if n])
    for sizes in cuttings:
        what = "step by step" if len(sizes) == LONG else in_chunks(sizes)
        a.agree(what, a.run(a.x, sizes), want)
    return f"{LONG} steps, {len(cuttings)} ways: {a.closeness}"


def empty_chunks(a: Auditor) -> str:
    """A chunk of no steps returns no outputs and changes nothing."""
    _needs_chunks(a)
    for sizes in ([0, SHORT], [HALF, 0, HALF], [HALF, HALF, 0], [0, 0, HALF, 0, 0, HALF]):
        want = a.run(a.short, [n for n in sizes if n])
        a.agree(in_chunks(sizes), a.run(a.short, sizes), want)
    return a.closeness


def step_is_push(a: Auditor) -> str:
    """step(x) is push(x) of one step, and the two can take turns."""
    if len(a.step.ways) < 2:
        raise Skipped("it has one way to take steps")
    push, step = a.step.ways
    want = a.run(a.short, [1])
    a.step.begin()
    got = a.shown(a.step.by_steps(a.short, step), SHORT)
    a.agree("by step() alone", Outputs(got.y, np.ones(SHORT, bool), a.short), want)
    a.step.begin()
    ys = [a.step.by_steps(a.short[:, t : t + 1], (push, step)[t % 2]) for t in range(SHORT)]
    got = Outputs(np.concatenate(ys, axis=1), np.ones(SHORT, bool), a.short)
    a.agree("by push() and step() in turns", got, want)
    return a.closeness


# --- rows ------------------------------------------------------------------------------------


def rows_apart(a: Auditor) -> str:
    """Another input in one row moves no other row."""
    _needs_rows(a)
    want = a.halves(a.short)
    for row in a.some_rows:
        x = a.short.copy()
        x[row] = a.other[row, :SHORT]
        others = np.arange(a.rows) != row
        a.agree(f"with another input in row {row}", a.halves(x), want, others[:, None])
    return a.closeness


def row_order(a: Auditor) -> str:
    """Rows in another order give the same rows in that order."""
    _needs_rows(a)
    order = np.roll(np.arange(a.rows), 1)
    want = a.halves(a.short).of(list(order))
    got = a.halves(a.short[order])
    a.agree(f"with the rows in the order {[int(k) for k in order]}", got, want)
    return a.closeness


def batches(a: Auditor) -> str:
    """A row alone, or with fewer others, gives what it gives among all."""
    _needs_rows(a)
    want = a.halves(a.short)
    if a.step.pure:
        groups = [[row] for row in a.some_rows] + [list(range(a.rows - 1))]
        for rows in groups:
            a.agree(f"rows {rows} alone", a.halves(a.short[rows]), want.of(rows), names=rows)
        return a.closeness
    if not isinstance(a.step, Remembering) or "rows" not in a.step.keywords:
        raise Skipped("it has a fixed number of rows")
    for row in a.some_rows:
        others = [k for k in range(a.rows) if k != row]
        a.step.begin()
        ys = np.empty_like(want.y)
        start = a.go_on(a.short[:, :HALF]).y
        ys[:, :HALF] = start
        for rows in ([row], others):
            part = a.step.push(a.short[rows, HALF:], rows=a.step.named(rows))
            ys[rows, HALF:] = part if not a.step.last else part[:, None]
        a.agree(f"row {row} taken before the others", Outputs(ys, want.seen, a.short), want)
    return a.closeness


def row_resets(a: Auditor) -> str:
    """reset(rows=[r]) makes row r as new, and no other."""
    if not isinstance(a.step, Remembering) or not a.step.resets_rows:
        raise Skipped("it has no reset(rows=...)")
    tail = a.short[:, HALF:]
    fresh = a.whole(tail)
    want = a.halves(a.short).y[:, HALF:]
    for row in a.some_rows:
        a.step.begin()
        a.go_on(a.short[:, :HALF])
        a.step.reset_rows([row])
        got = a.go_on(tail)
        expected = want.copy()
        expected[row] = fresh.y[row]
        what = f"after reset(rows=[{row}]) at step {HALF}"
        a.agree(what, got, Outputs(expected, got.seen), None, HALF)
    return a.closeness


def resets_inside(a: Auditor) -> str:
    """reset=(B, T), True where a row forgets before a step, within a chunk."""
    if "reset" not in a.step.keywords or not a.step.chunked:
        raise Skipped("it takes no reset=")
    if a.step.last:
        raise Skipped("it returns the last output of a chunk alone")
    want = a.whole(a.short)
    reset = np.zeros(a.short.shape[:2], bool)
    expected = want.y.copy()
    for row in range(a.rows):
        t = 1 + row % (SHORT - 1)
        reset[row, t] = True
        expected[row, t:] = a.whole(a.short[:, t:]).y[row]
    got = a.whole(a.short, reset=reset)
    a.agree("with resets inside a chunk", got, Outputs(expected, want.seen))
    a.agree("with reset= all False", a.whole(a.short, reset=np.zeros_like(reset)), want)
    return a.closeness


# --- coming back -----------------------------------------------------------------------------


def replay(a: Auditor) -> str:
    """From a moment kept before, the same goes on, whatever was done since."""
    if not a.step.replays:
        raise Skipped("it has no snapshot() and restore()")
    tail, step = a.short[:, HALF:], a.step
    kept = "the state returned" if step.pure else "snapshot()"
    want = a.halves(a.short)
    want = Outputs(want.y[:, HALF:], want.seen[HALF:])
    step.begin()
    a.go_on(a.short[:, :HALF])
    saved = step.save()
    held = [np.array(leaf) for leaf in leaves(saved) if isinstance(leaf, np.ndarray)]
    a.agree(f"after {kept} at step {HALF}", a.go_on(tail), want, None, HALF)
    now = [leaf for leaf in leaves(saved) if isinstance(leaf, np.ndarray)]
    changed = any(b.tobytes() != n.tobytes() for b, n in zip(held, now, strict=True))
    again = [
        ("again", lambda: None),
        ("after another input", lambda: a.go_on(a.other[:, : HALF + 1])),
        ("after it has begun anew", step.begin),
        ("for the fourth time", lambda: None),
    ]
    for when, between in again:
        between()
        step.load(saved)
        got = a.go_on(tail)
        try:
            a.agree(f"from the moment of step {HALF}, {when}", got, want, None, HALF)
        except Failed as failure:
            cause = (
                f": {kept} is no copy, it changes as the callable goes on"
                if changed
                else _replay_cause(a, got.y, want.y)
                if when == "again"
                else ""
            )
            raise Failed(f"{failure}{cause}") from None
    return a.closeness


def _replay_cause(a: Auditor, got: Array, want: Array) -> str:
    """What restore() seems to do instead."""
    tail = a.short[:, HALF:]
    for cause, x in (
        ("nothing is restored, it goes on from where it was", np.concatenate([a.short, tail], 1)),
        ("restoring makes it as new", tail),
    ):
        if _fits(got, a.whole(x).y[:, -tail.shape[1] :], want):
            return f": {cause}"
    if a.subject is None or len(_zeros(a)._fields) < 2:
        return ""
    _, then = _refrun(a, a.short[:, :HALF], _zeros(a))
    _, now = _refrun(a, a.short, _zeros(a))
    ways = [(cause, change(then)) for cause, change in _slips(a)]
    ways += [("c is not restored", then._replace(c=now.c)), ("h is not restored", then._replace(h=now.h))]
    for cause, state in ways:
        if _fits(got, _refrun(a, tail, state)[0], want):
            return f": {cause}"
    return ""


def peeking(a: Auditor) -> str:
    """peek(x) returns what push(x) would, and takes nothing."""
    if not isinstance(a.step, Remembering) or not a.step.has("peek"):
        raise Skipped("it has no peek()")
    n = HALF if a.step.chunked else 1
    x, want = a.short[:, : HALF + n], a.run(a.short[:, : HALF + n], [HALF, n])
    tail = Outputs(want.y[:, HALF:], want.seen[HALF:])
    a.step.begin()
    a.go_on(x[:, :HALF])
    a.step.peek(a.other[:, :n])
    peeked = a.step.peek(x[:, HALF:])
    got = a.shown(peeked if a.step.chunked else peeked[:, None], n)
    a.agree("what a second peek() returns", got, tail, None, HALF)
    a.agree("what comes after peek()", a.go_on(x[:, HALF:]), tail, None, HALF)
    return a.closeness


def zeros_are_none(a: Auditor) -> str:
    """A state of zeros is no state."""
    if not isinstance(a.step, Pure):
        raise Skipped("it is not handed its state")
    want = a.halves(a.short)
    try:
        blank = zeros_like(a.step.state)
    except TypeError as error:
        raise Skipped(str(error)) from None
    a.step.load(blank)
    got = a.go_on(a.short, [HALF, HALF])
    a.agree("from a state of zeros, not None", Outputs(got.y, got.seen, a.short), want)
    return a.closeness


def right_numbers(a: Auditor) -> str:
    """The outputs are the reference's."""
    _needs_reference(a)
    in_one = a.step.chunked and not a.step.last
    try:
        run = a.judged("in one piece" if in_one else "step by step", a.whole(a.x))
    except ValueError as error:
        raise Failed(str(error)) from None
    if run.margins["S"] > 1:
        raise Failed(str(run.first))
    return f"within the envelope of {run.precision.name}, margin {run.margins['S']:.2g} of 1"


# --- arrays ----------------------------------------------------------------------------------


def arguments(a: Auditor) -> str:
    """It writes to nothing that it is given, and needs nothing of it later."""
    for way, n in _calls(a):
        what = f"{way.name}() of {n} step{'s' * (n != 1)}"
        want = _in_pieces(a, way, n)
        a.step.begin()
        ys = []
        for t in range(0, SHORT, n):
            x = a.short[:, t : t + n] if way.chunked else a.short[:, t]
            given = x.copy()
            state = a.step.save() if a.step.pure else None
            before = [np.array(leaf) for leaf in _arrays(state)]
            ys.append(a.step.raw(given, way).copy())
            if given.tobytes() != x.tobytes():
                raise Failed(f"{what} writes to its argument x")
            for k, (old, now) in enumerate(zip(before, _arrays(state), strict=True)):
                if old.tobytes() != now.tobytes():
                    raise Failed(f"{what} writes to the state it is given (array {k} of it)")
            given[...] = 1000
        a.agree(f"{what}, x overwritten after each call", _pieced(a, way, n, ys), want)
    return "x is left alone" + (", and so is the state" if a.step.pure else "")


def returned(a: Auditor) -> str:
    """What it has returned is the caller's: it changes no more, and may be written to."""
    for way, n in _calls(a):
        what = f"{way.name}() of {n} step{'s' * (n != 1)}"
        want = _in_pieces(a, way, n)
        a.step.begin()
        raws: list[tuple[str, Array, Array]] = []
        for t in range(0, SHORT, n):
            x = a.short[:, t : t + n] if way.chunked else a.short[:, t]
            y = a.step.raw(x.copy(), way)
            for name, held, kept in raws:
                if held.tobytes() != kept.tobytes():
                    raise Failed(
                        f"{what}: the {name} of an earlier call has changed after the call at step"
                        f" {t}; it is a view of memory that is used again"
                    )
            raws.append((f"outputs {y.shape}", y, y.copy()))
            if a.step.pure:
                raws += [("state", leaf, leaf.copy()) for leaf in _arrays(a.step.save())]
        a.step.begin()
        ys = []
        for t in range(0, SHORT, n):
            x = a.short[:, t : t + n] if way.chunked else a.short[:, t]
            y = a.step.raw(x.copy(), way)
            ys.append(y.copy())
            if y.flags.writeable:
                y[...] = 1000
        a.agree(f"{what}, outputs overwritten after each call", _pieced(a, way, n, ys), want)
    return "outputs are the caller's own"


def _calls(a: Auditor) -> list[tuple[Any, int]]:
    return [(way, n) for way in a.step.ways for n in ((1, HALF) if way.chunked else (1,))]


def _in_pieces(a: Auditor, way: Any, n: int) -> Outputs:
    a.step.begin()
    ys = []
    for t in range(0, SHORT, n):
        x = a.short[:, t : t + n] if way.chunked else a.short[:, t]
        ys.append(a.step.raw(x.copy(), way).copy())
    return _pieced(a, way, n, ys)


def _pieced(a: Auditor, way: Any, n: int, ys: Sequence[Array]) -> Outputs:
    return joined([a.shown(y if way.chunked else y[:, None], n) for y in ys])


def _arrays(state: Any) -> list[Array]:
    return [leaf for leaf in leaves(state) if isinstance(leaf, np.ndarray)]


# --- NaN and masks ---------------------------------------------------------------------------


def nan_contained(a: Auditor) -> str:
    """A NaN stays in its row, moves nothing before it, and is gone after a reset."""
    want = a.halves(a.short)
    time = np.arange(SHORT)
    for row in a.some_rows:
        x = a.short.copy()
        x[row, HALF + 1] = np.nan
        with QUIET():
            try:
                got = a.halves(x)
            except Trouble as trouble:
                if isinstance(trouble.__cause__, ValueError | FloatingPointError):
                    raise Skipped(f"it refuses NaN: {trouble}") from None
                raise
        clean = np.ones(want.y.shape[:2], bool)
        clean[row] = time <= HALF
        a.agree(f"with NaN in row {row} at step {HALF + 1}", got, want, clean)
        if isinstance(a.step, Remembering) and a.step.resets_rows:
            a.step.reset_rows([row])
            tail = a.go_on(a.short).of([row])
            what = f"after NaN and reset(rows=[{row}])"
            a.agree(what, tail, a.whole(a.short).of([row]), names=[row])
        a.agree(f"after NaN in row {row} and a new beginning", a.halves(a.short), want)
    return a.closeness


def masked(a: Auditor) -> str:
    """A masked step is skipped: its input is not read, the row's state stays."""
    if "mask" not in a.step.keywords or not a.step.chunked:
        raise Skipped("it takes no mask=")
    x, shape = a.short, a.short.shape[:2]
    a.agree("with a mask of all True", a.halves(x, mask=np.ones(shape, bool)), a.halves(x))
    mask = a.rng.random(shape) < 0.6
    mask[:, 1], mask[:, HALF] = True, True
    mask[:, 2] = np.arange(a.rows) % 2 == 0
    mask[:, HALF + 1] = np.arange(a.rows) % 2 == 1
    want = a.halves(x, mask=mask)
    for what, filling in (("other inputs", a.other[:, :SHORT]), ("NaN", np.full_like(x, np.nan))):
        with QUIET():
            got = a.halves(np.where(mask[..., None], x, filling), mask=mask)
        a.agree(f"with {what} at masked steps", got, want, mask)
    for row in a.some_rows:
        changed = mask.copy()
        changed[row] = ~mask[row]
        others = np.broadcast_to((np.arange(a.rows) != row)[:, None], shape)
        what = f"with another mask in row {row}"
        a.agree(what, a.halves(x, mask=changed), want, others)
        short = a.whole(np.repeat(x[row : row + 1, mask[row]], a.rows, axis=0)).y[row]
        expected = want.y.copy()
        expected[row, mask[row]] = short
        only = np.zeros(shape, bool)
        only[row] = mask[row]
        what = f"row {row} with masked steps, against the row without these steps"
        a.agree(what, want, Outputs(expected, want.seen), only)
    if not a.step.last:
        a.agree(in_chunks([HALF, HALF]), want, a.whole(x, mask=mask), mask)
    return a.closeness


# --- helpers ---------------------------------------------------------------------------------


def _needs_chunks(a: Auditor) -> None:
    if not a.step.chunked:
        raise Skipped("it takes one step at a time")


def _needs_rows(a: Auditor) -> None:
    if a.rows < 2:
        raise Skipped("there is one row")


def _needs_reference(a: Auditor) -> Subject:
    if a.subject is None:
        raise Skipped("no reference is given")
    return a.subject


def _same(got: Outputs, want: Outputs) -> bool:
    return got.y.tobytes() == want.y.tobytes()


def _far(got: Outputs, want: Outputs) -> bool:
    """Whether two repetitions differ by more than any rounding would."""
    with QUIET():
        off = np.abs(got.y.astype(np.float64) - want.y)
    u = float(np.finfo(np.float32 if got.y.dtype.itemsize < 8 else np.float64).eps)
    return not bool((off <= WRONG * u * np.abs(want.y).max(initial=0)).all())


def _difference(got: Outputs, want: Outputs) -> str:
    differs = ~((got.y == want.y) | (np.isnan(got.y) & np.isnan(want.y)))
    step, row, *unit = (int(k) for k in np.argwhere(np.moveaxis(differs, 1, 0))[0])
    at = (row, step, *unit)
    return (
        f"y[{Auditor.where(at)}] is {got.y[at]:.9g}, and {want.y[at]:.9g} the other time"
    )


def _zeros(a: Auditor) -> Any:
    assert a.subject is not None
    part = a.subject.parts[0]
    return part.cell.zeros(a.rows, part.units, np.float64)


def _refrun(a: Auditor, x: Array, state: Any) -> tuple[Array, Any]:
    """The reference in float64."""
    assert a.subject is not None
    part = a.subject.parts[0]
    weights = type(part.weights)(*(np.asarray(w, np.float64) for w in part.weights))
    return reference.run(part.cell, weights, x.astype(np.float64), state)


def _off(got: Array, want: Array) -> float:
    if got.shape != want.shape or not got.size:
        return np.inf
    with QUIET():
        off = np.abs(got.astype(np.float64) - want).max()
    return float(off) if np.isfinite(off) else np.inf


def _fits(got: Array, cause: Array, right: Array) -> bool:
    """Whether a cause explains what came out, where it and what is right can be told apart."""
    return _off(got, cause) <= FITS * _off(cause, right) < np.inf and _off(cause, right) > 0


def _close(got: Array, right: Array) -> bool:
    """Whether this is the reference's run, but for what its precision makes of it."""
    return _off(got, right) <= FITS * float(np.abs(right).max(initial=0))


CHECKS: dict[str, Callable[[Auditor], str]] = {
    "first call": first_call,
    "determinism": determinism,
    "reset": begins_anew,
    "arguments": arguments,
    "returned arrays": returned,
    "state used": state_used,
    "parts used": parts_used,
    "causality": causal,
    "rows apart": rows_apart,
    "row order": row_order,
    "batches": batches,
    "chunks": all_chunkings,
    "long run": long_run,
    "empty chunks": empty_chunks,
    "step and push": step_is_push,
    "row resets": row_resets,
    "resets in a chunk": resets_inside,
    "replay": replay,
    "peek": peeking,
    "zeros and None": zeros_are_none,
    "reference": right_numbers,
    "NaN": nan_contained,
    "masks": masked,
}
FIRST = "first call", "determinism", "reset"  # where these fail, no other can be trusted
