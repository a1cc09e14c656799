"""The search for what an implementation does differently, one and two conventions at a time.

Every hypothesis is a `Scene`: it is driven by the implementation's own outputs, so it is right at
every step or wrong at every step, whatever came before. Thousands are tried on a few rows and steps
around the first difference; what survives is held against the bounds of its own, everywhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import NamedTuple

import numpy as np

from refrnn.gates import Array
from refrnn.reference import QUIET
from refrnn.verify.conventions import ACROSS, Edit, applied, lost_at
from refrnn.verify.fits import ALLOWED, Fit, fit, windows
from refrnn.verify.scene import Begin, Scene, walk
from refrnn.verify.wrong_weights import single_weights

ROWS, STEPS = 3, 12  # of the window on which hypotheses are tried
NEAR = 0.05  # share of a window's numbers that may be off for a hypothesis to be held against more
TELLING = 0.1  # share of the numbers that a cause explains more than none does, to be called near
TRIED = 24  # hypotheses of a window that are, at most
DEEPENED = 6  # hypotheses that a second one is searched for where they leave off
STRICT = 0.8  # share of numbers whose operands are all rounded as in the reference, at least
CLEARER = 4.0  # times smaller than the reference's a hypothesis's worst margin must be
NUMBERS = 2**16  # outputs on which a hypothesis is finally judged, about
Edits = tuple[Edit, ...]


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
        self.limit = 1.0
        self.whole = self._found((), base)
        if self.whole.fit.worst > ALLOWED:
            self.limit = ALLOWED
            self.whole = self.whole._replace(fit=self.whole.fit._replace(limit=ALLOWED))

    # --- the order of search ------------------------------------------------------------------

    def run(self) -> list[Found]:
        """The hypotheses that fit, best first; where none does, the nearest."""
        if not self.base.y.size:
            return [self.whole]
        if not self.whole.fit.fits and _constant(self.base.y):
            return []  # what gives one number for everything can be explained in many ways
        ranked, found = self._singles(self.whole)
        if self.whole.fit.fits:
            return [self.whole, *found]
        if found:
            return found
        found = self._pairs(ranked)
        if not found:  # perhaps the second shows only where a first one leaves off
            for edits, _ in ranked[:DEEPENED]:
                found += self._singles(self._at(edits))[1]
        if found:
            unique = {frozenset(e.name for e in f.edits): f for f in reversed(found)}
            return list(reversed(unique.values()))
        nearest = [self._at(edits) for edits, _ in ranked[:DEEPENED]]
        telling = [f for f in nearest if f.fit.inside > self.whole.fit.inside + TELLING]
        return sorted(telling, key=lambda f: -f.fit.inside)[:3]

    def explains(self, found: Found) -> bool:
        """Whether a hypothesis fits: not by the little that a bound leaves open, but clearly."""
        if not found.edits or self.whole.fit.fits:
            return found.fit.fits
        return found.fit.fits and CLEARER * found.fit.worst <= self.whole.fit.worst

    def _at(self, edits: Edits) -> Found:
        changed = applied(edits, self.base)
        assert changed is not None
        return self._found(edits, changed)

    def _found(self, edits: Edits, s: Scene) -> Found:
        """A scene held against its bounds, on as many rows as are worth it.

        Where operands are rounded, the bound of a GRU allows for one that falls on the other side;
        few do, so that most numbers must fit without.
        """
        same = s.xs.shape[:2] == self.base.xs.shape[:2]
        rows = self.rows if same else np.arange(len(s.y))[: _many(s)]
        found = fit(s, rows, self.limit)
        if s.precision is not self.base.precision and s.precision.operand_u and found.fits:
            strict = fit(
                replace(s, precision=replace(s.precision, operand_u=0.0)), rows, self.limit
            )
            found = found if strict.inside > STRICT else strict
        return Found(edits, s, found, rows)

    def _singles(self, near: Found) -> tuple[list[tuple[Edits, float]], list[Found]]:
        """All ways to change a hypothesis by one edit: ranked, and those that fit."""
        aspects = {edit.aspect for edit in near.edits}
        window = _Window(near)
        options = [e for e in self.edits if e.aspect not in aspects]
        if near.fit.first_misfit() is None and not near.fit.fits:
            options = [e for e in options if e.aspect == "returned state"]
        elif near.fit.fits:
            options = [e for e in options if not e.rare]
        else:
            options += _borders(near)
        tests = [(*near.edits, edit) for edit in options]
        ranked = self._ranked(tests, window)
        found = self._surviving(ranked)
        if not near.fit.fits and not found:
            for edits in single_weights(near.scene, near.fit, near.rows):
                changed = applied(edits, near.scene)
                assert changed is not None
                hypothesis = self._found((*near.edits, *edits), changed)
                if self.explains(hypothesis):
                    found.append(hypothesis)
        return ranked, found

    def _pairs(self, ranked: Sequence[tuple[Edits, float]]) -> list[Found]:
        """All pairs of usual edits of different aspects."""
        window = _Window(self.whole)
        usual = [e for (e,), _ in ranked if not e.rare and e.aspect != "returned state"]
        across = [e._replace(aspect=ACROSS[e.aspect]) for e in usual if e.aspect in ACROSS]
        orders = [e for e in usual if e.aspect == "gate order"]
        pairs = [(a, b) for a, b in combinations(usual, 2) if a.aspect != b.aspect]
        pairs += [(order, other) for order in orders for other in across]
        short = _Window(self.whole, 3)
        few = [edits for edits in pairs if self._score(edits, short)[0] <= 0.3]
        return self._surviving(self._ranked(few, window))

    # --- trying -------------------------------------------------------------------------------

    def _ranked(self, tests: Sequence[Edits], window: "_Window") -> list[tuple[Edits, float]]:
        """Hypotheses by the share of the window's numbers that are off, then by the median."""
        scored: list[tuple[tuple[float, float], int, Edits]] = []
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
            if self.explains(hypothesis):
                found.append(hypothesis)
        return found


def _constant(y: Array) -> bool:
    return bool((y == y.flat[0]).all() or np.isnan(y).all())


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
        rows = max(ROWS, 36 // max(1, s.y.shape[1]))
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
        with QUIET():
            bound = np.abs(error[seen > 0]) / seen[seen > 0]
        bound = bound[np.isfinite(bound) & (bound > 0)]
        self.tolerance = 2 * ALLOWED * float(bound.max(initial=1e-12))
        self.pointwise = s.precision.pointwise
        self.steps = steps

    def score(self, s: Scene) -> tuple[float, float]:
        """The share of numbers that are off, and the median error, in tolerances."""
        rows, start, stop, begin = self.rows, self.start, self.stop, self.begin
        if s.xs.shape != self.axes:
            rows, start, stop, begin = np.arange(len(s.y))[:ROWS], 0, self.steps, None
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
        for kept in (True, False):
            every = range(k, T, k)
            if 1 < k and 2 * k < T and (kept or _masked(near.scene, list(every))):
                said = f"steps {k}, {2 * k}, ... (every {k})"
                yield lost_at(every, parts, restarts, said, kept)
            if kept or _masked(near.scene, [k]):
                yield lost_at([k], parts, restarts, f"step {k}", kept)


def _masked(s: Scene, steps: list[int]) -> bool:
    """Whether some row is masked at one of some steps."""
    return s.mask is not None and not s.mask[:, steps].all()
