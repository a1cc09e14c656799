"""Why does another implementation differ? A search over conventions, one and two at a time.

Every hypothesis is a `Scene`: it is driven by the implementation's own outputs, so it is right at
every step or wrong at every step, whatever came before. Thousands are tried on a few rows and steps
around the first difference; those that survive are held against the bounds of their own, everywhere.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from refrnn.cells import Weights
from refrnn.gates import Array
from refrnn.reference import QUIET
from refrnn.verify.conventions import Edit, applied, catalogue, lost_at
from refrnn.verify.envelope import Seen, Task
from refrnn.verify.footprint import footprint
from refrnn.verify.precisions import PRECISIONS, Precision
from refrnn.verify.scene import ALLOWED, Begin, Fit, Scene, filled, fit, scene, walk, windows
from refrnn.verify.subject import Part, Subject, subject
from refrnn.verify.wrong_weights import single_weights

ROWS, STEPS = 3, 12  # of the window on which hypotheses are tried
NEAR = 0.05  # share of a window's numbers that may be off for a hypothesis to be held against more
TRIED = 24  # hypotheses of a window that are, at most
DEEPENED = 6  # hypotheses that a second one is searched for where they leave off
NUMBERS = 2**16  # outputs on which a hypothesis is finally judged, about
Edits = tuple[Edit, ...]


@dataclass(frozen=True)
class Cause:
    """One explanation.

    name    in words
    edits   its parts, one sentence each; none where nothing needs to be changed
    fit     share of the numbers that it explains, within twice the bound S
    margin  the worst error / bound
    exact   whether it explains every number
    """

    name: str
    edits: tuple[str, ...]
    fit: float
    margin: float
    exact: bool


@dataclass(frozen=True)
class Explanation:
    """What `explain` found.

    who         what was explained
    verdict     a sentence: "agrees", the cause, several that fit, or "none of these"
    causes      the explanations, best first; where none fits, the nearest ones
    footprint   where the numbers differ, in sentences
    separating  arrays that tell apart the explanations that fit: "x", and "state" and "mask", and
                "weights" where no input can with the weights as they are; None where one fits
    precision   the arithmetic that was assumed
    tried       how many hypotheses were tried
    """

    who: str
    verdict: str
    causes: list[Cause]
    footprint: list[str]
    separating: dict[str, Any] | None
    precision: str
    tried: int

    @property
    def fits(self) -> list[Cause]:
        """The causes that explain every number."""
        return [cause for cause in self.causes if cause.exact]

    @property
    def agrees(self) -> bool:
        return bool(self.fits) and not self.fits[0].edits

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, for machines."""
        separating = None
        if self.separating is not None:
            separating = {name: _plain(value) for name, value in self.separating.items()}
        return {
            "who": self.who,
            "verdict": self.verdict,
            "agrees": self.agrees,
            "causes": [
                {
                    "name": c.name,
                    "edits": list(c.edits),
                    "fit": c.fit,
                    "margin": c.margin if np.isfinite(c.margin) else None,
                    "exact": c.exact,
                }
                for c in self.causes
            ],
            "footprint": list(self.footprint),
            "separating": separating,
            "precision": self.precision,
            "tried": self.tried,
        }

    def __str__(self) -> str:
        lines = [f"{self.who}: {self.verdict}"]
        for k, cause in enumerate(self.causes, 1):
            share = "all numbers" if cause.exact else f"{cause.fit:.0%} of the numbers"
            worst = f", worst error {cause.margin:.2g} of the bound" if cause.exact else ""
            lines.append(f"  {k}. {cause.name}: explains {share}{worst}")
        lines += [f"  {sentence}" for sentence in self.footprint]
        if self.separating is not None:
            shapes = ", ".join(
                f"{name} {np.shape(a)}" if isinstance(a, np.ndarray) else name
                for name, a in self.separating.items()
            )
            lines.append(f"  told apart by .separating: {shapes}")
        lines.append(f"  ({self.tried} hypotheses in {self.precision})")
        return "\n".join(lines)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if value is None else [_plain(part) for part in value]


class Found(NamedTuple):
    """A hypothesis that was held against the bounds."""

    edits: Edits
    scene: Scene
    fit: Fit
    rows: Array  # of the scene, those of the fit


class Search:
    """The search for what one recurrent layer does differently."""

    def __init__(self, base: Scene, edits: Sequence[Edit]) -> None:
        self.base, self.edits = base, list(edits)
        self.tried = 0
        self.rows = _rows(base)
        self.whole = self._found((), base)

    # --- the order of search ------------------------------------------------------------------

    def run(self) -> list[Found]:
        """The hypotheses that fit, best first; where none does, the nearest."""
        ranked, found = self._singles(self.whole)
        if self.whole.fit.fits:
            return [self.whole, *found]
        if found:
            return found
        found = self._pairs(ranked)
        for edits, _ in ranked[:DEEPENED]:
            if len(found) >= TRIED:
                break
            found += self._singles(self._at(edits))[1]
        if found:
            unique = {frozenset(e.name for e in f.edits): f for f in found}
            return list(unique.values())
        nearest = [self._at(edits) for edits, _ in ranked[:3]]
        return sorted(nearest, key=lambda f: -f.fit.inside)

    def _at(self, edits: Edits) -> Found:
        changed = applied(edits, self.base)
        assert changed is not None
        return self._found(edits, changed)

    def _found(self, edits: Edits, s: Scene) -> Found:
        """A scene held against its bounds, on as many rows as are worth it."""
        same = s.xs.shape[:2] == self.base.xs.shape[:2]
        rows = self.rows if same else np.arange(len(s.y))[: _many(s)]
        return Found(edits, s, fit(s, rows), rows)

    def _singles(self, near: Found) -> tuple[list[tuple[Edits, float]], list[Found]]:
        """All ways to change a hypothesis by one edit: ranked, and those that fit."""
        aspects = {edit.aspect for edit in near.edits}
        window = _Window(near)
        # an aspect that is settled may be changed again only by another rule for carrying
        options = [e for e in self.edits if e.aspect not in aspects]
        if near.fit.first_misfit() is None and not near.fit.fits:
            options = [e for e in options if e.aspect == "returned state"]
        else:
            options += _borders(near)
        tests = [(near.edits + (edit,)) for edit in options]
        ranked = self._ranked(tests, window)
        found = self._surviving(ranked)
        if not near.fit.fits and not found:
            for edit in single_weights(near.scene, near.fit, window.rows):
                changed = edit.apply(near.scene)
                assert changed is not None
                hypothesis = self._found((*near.edits, edit), changed)
                if hypothesis.fit.fits:
                    found.append(hypothesis)
        return ranked, found

    def _pairs(self, ranked: Sequence[tuple[Edits, float]]) -> list[Found]:
        """All pairs of usual edits of different aspects."""
        window = _Window(self.whole)
        usual = [e for (e,), _ in ranked if not e.rare and e.aspect != "returned state"]
        pairs = [(a, b) for a, b in combinations(usual, 2) if a.aspect != b.aspect]
        short = _Window(self.whole, 3)
        few = [edits for edits in pairs if self._score(edits, short)[0] <= 0.3]
        return self._surviving(self._ranked(few, window))

    # --- trying -------------------------------------------------------------------------------

    def _ranked(
        self, tests: Sequence[Edits], window: "_Window"
    ) -> list[tuple[Edits, float]]:
        """Hypotheses by the share of the window's numbers that are off, then by the median."""
        scored = []
        for edits in tests:
            outside, middle = self._score(edits, window)
            if outside <= 1:
                scored.append(((outside, middle), len(scored), edits))
        return [(edits, score[0]) for score, _, edits in sorted(scored, key=lambda s: s[:2])]

    def _score(self, edits: Edits, window: "_Window") -> tuple[float, float]:
        self.tried += 1
        changed = applied(edits, self.base)
        if changed is None:
            return 2.0, np.inf
        return window.score(changed)

    def _surviving(self, ranked: Sequence[tuple[Edits, float]]) -> list[Found]:
        found = []
        for edits, outside in ranked[:TRIED]:
            if outside > NEAR:
                break
            hypothesis = self._at(edits)
            if hypothesis.fit.fits:
                found.append(hypothesis)
        return found


def _many(s: Scene) -> int:
    """How many rows are judged."""
    _, T, H = s.y.shape
    return max(1, NUMBERS // max(1, T * H))


def _rows(s: Scene) -> Array:
    """The rows to judge: all, or the first and those that differ most."""
    B, many = len(s.y), _many(s)
    if B <= many:
        return np.arange(B)
    with QUIET():
        off = np.abs(walk(s).expected - s.y).max(axis=(1, 2), initial=0)
    worst = np.argsort(-np.nan_to_num(off, nan=np.inf), kind="stable")
    chosen = [*worst[: (many + 1) // 2], *range(B)]
    return np.sort(np.array(list(dict.fromkeys(int(r) for r in chosen))[:many]))


class _Window:
    """Some rows and steps around the first misfit of a hypothesis."""

    def __init__(self, near: Found, steps: int = STEPS) -> None:
        s, f = near.scene, near.fit
        B, T, _ = s.y.shape
        rows = max(ROWS, 36 // max(1, T))
        judged, self.start, self.stop = windows(f, rows, steps)
        self.rows = near.rows[judged]
        self.axes = s.xs.shape
        self.begin = None
        if self.start:
            w = f.walk
            state = (w.h, w.c) if w.c is not None else (w.h,)
            at = tuple(part[judged, self.start] for part in state)
            kept = None if w.kept is None else w.kept[judged, self.start]
            self.begin = Begin(at, kept)
        seen = f.margin[judged, self.start : self.stop]
        error = f.error[judged, self.start : self.stop]
        bound = np.abs(error[seen > 0]) / seen[seen > 0]
        bound = bound[np.isfinite(bound) & (bound > 0)]
        self.tolerance = 2 * ALLOWED * float(bound.max(initial=1e-12))
        self.pointwise = s.precision.pointwise
        self.steps = steps

    def score(self, s: Scene) -> tuple[float, float]:
        """The share of numbers that are off, and the median error, in tolerances."""
        rows, start, stop, begin = self.rows, self.start, self.stop, self.begin
        if s.xs.shape != self.axes:
            rows, start, stop, begin = list(range(min(ROWS, len(s.y)))), 0, self.steps, None
        with QUIET():
            w = walk(s, rows, start, stop, begin)
            off = np.abs(w.expected - s.y[rows, start:stop]).ravel()
        if not len(off):
            return 2.0, np.inf
        tolerance = self.tolerance * max(1.0, s.precision.pointwise / self.pointwise)
        off[np.isnan(off)] = np.inf
        half = len(off) // 2
        return float(np.mean(off > tolerance)), float(np.partition(off, half)[half] / tolerance)


def _borders(near: Found) -> Iterator[Edit]:
    """The state, or a part of it, is lost at the first misfit; once, or again and again."""
    k = near.fit.first_misfit()
    T = near.scene.y.shape[1]
    if k is None or k < 1:
        return
    kinds = [(parts, restarts) for parts in ("hc", "h", "c") for restarts in (False, True)]
    for parts, restarts in kinds:
        if parts != "hc" and len(near.scene.state) == 1:
            continue
        if k > 1:
            yield lost_at([k], parts, restarts, f"step {k}")
        if 1 < k and 2 * k < T:
            yield lost_at(range(k, T, k), parts, restarts, f"steps {k}, {2 * k}, ... (every {k})")


# --- the answer ------------------------------------------------------------------------------------


def explain(
    candidate: Any,
    reference: Any,
    x: Any,
    state: Any = None,
    mask: Any = None,
    precision: str | None = None,
) -> Explanation:
    """Say why another implementation of one recurrent layer differs.

    candidate  its outputs, as `check` takes them: y, or (y, h) or (y, h, c), or a dictionary of
               arrays by name; or a function f(x, initial_state=None, mask=None) that returns them
    reference  a built LSTM, GRU or SimpleRNN layer, a Bidirectional of one, a model of one such
               layer, or a cell's name and `refrnn.Weights`
    x          (B, T, F)
    state      the first state, [h] or [h, c], each (B, H); None for zeros
    mask       (B, T) of booleans, or None
    precision  the arithmetic that is claimed, one of PRECISIONS; None for that of the dtypes

    Returns an Explanation. Raises ValueError and TypeError for arguments that do not fit; what the
    candidate raises goes through.
    """
    what = subject(reference)
    tasks = what.tasks(x, state, mask)
    asked = PRECISIONS[precision or "float32"]
    arrays = what.checked(what.named(candidate), *tasks[0].xs.shape[:2])
    seens = what.seen(arrays)
    (part,), (task,), (seen,) = what.parts, tasks, seens
    base = scene(task, seen, asked)
    search = Search(base, catalogue(base, part.backwards, part.turned))
    found = search.run()
    causes = [_cause(f) for f in found]
    return Explanation(what.who, causes[0].name, causes, [], None, asked.name, search.tried)


def _cause(found: Found) -> Cause:
    names = tuple(edit.name for edit in found.edits)
    name = "; and ".join(names) if names else "agrees: no change is needed"
    f = found.fit
    return Cause(name, names, f.inside, f.worst, f.fits)
