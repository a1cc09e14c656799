"""Why does another implementation differ? The cause, named; or where, and what would tell more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from refrnn.gates import Array
from refrnn.verify import candidate as candidates
from refrnn.verify.candidate import Data, Implementation
from refrnn.verify.check import check
from refrnn.verify.conventions import catalogue
from refrnn.verify.fits import fit
from refrnn.verify.footprint import footprint
from refrnn.verify.precisions import PRECISIONS, Precision
from refrnn.verify.report import Report
from refrnn.verify.scene import Scene, scene
from refrnn.verify.search import Found, Search
from refrnn.verify.separating import separating
from refrnn.verify.subject import Part, Subject, in_time, subject
from refrnn.verify.tasks import Seen, Task
from refrnn.verify.whole import plain


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
            separating = {name: plain(value) for name, value in self.separating.items()}
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
                f"{name} {a.shape}" if isinstance(a, np.ndarray) else name
                for name, a in self.separating.items()
                if a is not None
            )
            lines.append(f"  told apart by .separating: {shapes}")
        lines.append(f"  ({self.tried} hypotheses in {self.precision})")
        return "\n".join(lines)


def explain(
    candidate: Any,
    reference: Any,
    x: Any,
    state: Any = None,
    mask: Any = None,
    precision: str | None = None,
) -> Explanation:
    """Say why another implementation of one recurrent layer differs.

    candidate  its outputs as `check` takes them: y (B, T, H), or (y, h) or (y, h, c), or a
               dictionary of arrays by name. Or a function f(x, initial_state=None, mask=None) that
               returns them: where its outputs agree or leave more than one cause, it is also run on
               probes, one feature and one unit of the state at a time. One that returns its last
               output only, (B, H), is run on all beginnings of x.
    reference  a built LSTM, GRU or SimpleRNN layer, a Bidirectional of one, a model of one such
               layer, or a cell's name and `refrnn.Weights`
    x          (B, T, F)
    state      the first state, [h] or [h, c], each (B, H); None for zeros
    mask       (B, T) of booleans, or None
    precision  the arithmetic that is claimed, one of PRECISIONS; None for that of the candidate's
               dtype, or of the reference's if that is coarser

    Returns an Explanation; it raises nothing for a wrong implementation. Raises ValueError and
    TypeError for arguments that do not fit, and ValueError for arrays that show the last output
    only; what the candidate raises goes through.
    """
    what = subject(reference)
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(
            f"{what.who}: precision is {precision!r}, expected one of"
            f" {', '.join(map(repr, PRECISIONS))}"
        )
    data = candidates.data(what, what.tasks(x, state, mask), state is not None)
    if not callable(candidate):
        arrays = what.checked(what.named(candidate), *data.x.shape[:2])
        return _explained(what, precision, arrays, data)
    arrays = _outputs(what, candidate, data)
    found = _explained(what, precision, arrays, data)
    if len(found.fits) == 1 and not found.agrees:
        return found
    probe = _probes(what, data)
    on_probes = _explained(what, precision, _outputs(what, candidate, probe), probe)
    if found.agrees:
        if not on_probes.agrees:
            return on_probes
        return _checked(found, check(candidate, reference, x, state, mask, precision=precision))
    if not found.fits:
        return on_probes if on_probes.fits and not on_probes.agrees else found
    both = {cause.edits for cause in on_probes.fits}
    kept = [cause for cause in found.causes if cause.edits in both]
    if not kept:
        return found
    verdict, separating = kept[0].name, found.separating
    if len(kept) > 1:
        verdict = _several(kept, found.separating)
    else:
        separating = None
    return replace(found, verdict=verdict, causes=kept, separating=separating)


def _checked(found: Explanation, report: Report) -> Explanation:
    """Of a function that agrees on x and on probes: what its other runs say."""
    if report.verdict not in ("differs", "probably differs"):
        return found
    verdict = "its outputs on x agree; another run differs, and no convention is known for that"
    seen = (f"first difference: {report.first}", *report.notes)
    return replace(found, verdict=verdict, causes=[], footprint=list(seen))


def _outputs(what: Subject, candidate: Implementation, data: Data) -> dict[str, Array]:
    """A run of a candidate: every output, by the run of every beginning if need be."""
    whole = candidates.run(what, candidate, data)
    if whole["y"].ndim > 2 or len(what.parts) > 1:
        return whole
    return candidates.shown(what, candidate, data, whole)


def _probes(what: Subject, given: Data) -> Data:
    """One feature at a time, one unit of the state at a time where a state was given, and rows of
    random numbers."""
    rng = np.random.default_rng(0)
    F, T = what.features, 4
    widths = [] if given.state is None else [part.shape[1] for part in given.state]
    rows = F + max(widths, default=0) + 4
    x = rng.normal(size=(rows, T, F))
    x[:F, 0] = np.eye(F)
    x[F:-4, 0] = 0
    states = []
    for width in widths:
        part = rng.uniform(-0.9, 0.9, (rows, width))
        part[:F] = 0
        part[F : F + width] = np.eye(width)
        states.append(part.astype(what.dtype))
    mask = None
    if given.mask is not None:
        mask = np.ones((rows, T), bool)
        mask[-4:] = rng.random((4, T)) < 0.6
    return Data(x.astype(what.dtype), states if widths else None, mask)


def _explained(
    what: Subject, asked: str | None, arrays: Mapping[str, Array], data: Data
) -> Explanation:
    """The search in each part, put together."""
    if arrays["y"].ndim == 2:
        if data.x.shape[1] != 1:
            raise ValueError(
                f"{what.who}: the candidate's y has shape {arrays['y'].shape}, expected"
                f" {(*data.x.shape[:2], what.units)}, all outputs, because a cause is"
                " found step by step; give the candidate as a function to have its beginnings run"
            )
        arrays = {**arrays, "y": arrays["y"][:, None]}
    claimed = PRECISIONS[asked] if asked is not None else _native(what, arrays)
    stored = what.stored_as(claimed)
    tasks = stored.tasks(*data)
    seens = what.seen(arrays)
    searches = [
        _Explained(part, scene(task, seen, claimed))
        for part, task, seen in zip(stored.parts, tasks, seens, strict=True)
    ]
    if len(searches) == 2 and not any(s.fits for s in searches):
        exchanged = _exchanged(stored.parts, tasks, seens, claimed)
        if exchanged is not None:
            return Explanation(what.who, exchanged.name, [exchanged], [], None, claimed.name, 1)
    return _together(what.who, searches, claimed.name)


def _native(what: Subject, arrays: Mapping[str, Array]) -> Precision:
    names = {a.dtype.name for a in arrays.values()} | {what.dtype.name}
    return max((PRECISIONS[n] for n in names if n in PRECISIONS), key=lambda p: p.pointwise)


def _exchanged(
    parts: Sequence[Part], tasks: Sequence[Task], seens: Sequence[Seen], claimed: Precision
) -> Cause | None:
    """The halves of a Bidirectional in the other order."""
    halves = [in_time(seen.y, part.turned) for part, seen in zip(parts, seens, strict=True)]
    fits = [
        fit(scene(task, Seen(in_time(y, part.turned)), claimed))
        for part, task, y in zip(parts, tasks, halves[::-1], strict=True)
        if y.shape == halves[0].shape
    ]
    if len(fits) < 2 or not all(f.fits for f in fits):
        return None
    name = "the outputs of the forward and the backward layer are exchanged"
    return Cause(name, (name,), 1.0, max(f.worst for f in fits), True)


class _Explained:
    """The search in one part, and what is said of it."""

    def __init__(self, part: Part, base: Scene) -> None:
        self.part, self.base = part, base
        self.search = Search(base, catalogue(base, part.backwards, part.turned))
        self.found = self.search.run()
        self.causes = [self._cause(f) for f in self.found]

    @property
    def fits(self) -> list[Cause]:
        return [c for c in self.causes if c.exact]

    @property
    def agrees(self) -> bool:
        return bool(self.fits) and not self.fits[0].edits

    def _cause(self, found: Found) -> Cause:
        way = f"{self.part.way}: " if self.part.way else ""
        names = tuple(way + edit.name for edit in found.edits)
        name = "; and ".join(names) if names else AGREES
        exact = self.search.explains(found)
        return Cause(name, names, found.fit.inside, found.fit.worst, exact)

    def footprint(self) -> list[str]:
        if self.fits:
            return []
        whole = self.search.whole
        way = f"{self.part.way}: " if self.part.way else ""
        return [
            way + sentence
            for sentence in footprint(self.base, whole.fit, whole.rows, self.part.turned)
        ]

    def separating(self) -> dict[str, Any] | None:
        fitting = [f.edits for f in self.found if self.search.explains(f)]
        apart = separating(self.base, fitting) if len(fitting) > 1 else None
        if apart is None:
            return None
        turned = {name: in_time(apart[name], self.part.backwards) for name in ("x", "mask")}
        return {**apart, **turned}


AGREES = "agrees: no change is needed"


def _together(who: str, parts: Sequence[_Explained], precision: str) -> Explanation:
    tried = sum(part.search.tried for part in parts)
    marks = [sentence for part in parts for sentence in part.footprint()]
    wrong = [part for part in parts if not part.agrees] or list(parts[:1])
    apart = next((a for a in (part.separating() for part in wrong) if a is not None), None)
    causes = [cause for part in wrong for cause in part.causes]
    if len(parts) == 1 or len(wrong) == 1:
        verdict = _verdict(wrong[0], apart)
        if parts[0] is wrong[0] and all(part.agrees for part in parts):
            causes = parts[0].causes
    else:
        verdict = "; ".join(_verdict(part, apart) for part in wrong)
    return Explanation(who, verdict, causes, marks, apart, precision, tried)


def _verdict(part: _Explained, apart: Mapping[str, Any] | None) -> str:
    if not part.fits:
        nearest = ""
        if part.causes:
            near = part.causes[0]
            nearest = f"; the nearest, {near.name}, explains {near.fit:.0%} of the numbers"
        way = f"{part.part.way}: " if part.part.way else ""
        return (
            f"{way}none of these: no convention, nor two of them, explains the difference{nearest}"
        )
    if len(part.fits) == 1:
        return part.fits[0].name
    return _several(part.fits, apart)


def _several(fits: Sequence[Cause], apart: Mapping[str, Any] | None) -> str:
    others = [cause.name for cause in fits if cause.edits]
    listed = " | ".join(others[:4]) + (f" | {len(others) - 4} more" if len(others) > 4 else "")
    end = "" if apart is not None else "; no input was found that tells them apart"
    if not fits[0].edits:
        return f"{fits[0].name}, but these would give the same numbers here: {listed}{end}"
    return f"{len(fits)} explanations give the same numbers here: {listed}{end}"
