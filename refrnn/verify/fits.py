"""How well a scene explains an answer: each number against the S bound of the step envelope.

A step is judged for itself, as a row of one step of a `Task`, so that any rule of a scene, however
odd, is bounded by the one `judge`.
"""

from typing import Any, NamedTuple

import numpy as np

from refrnn import gates
from refrnn.gates import Array
from refrnn.reference import QUIET
from refrnn.verify.envelope import judge
from refrnn.verify.scene import ALL, Scene, Walk, formed, walk
from refrnn.verify.tasks import Seen, Task

ALLOWED = 2.0  # times the S bound: what a fitting scene's worst number may be off
BLOCK = 2**15  # outputs whose bounds are computed at a time


class Fit(NamedTuple):
    """How far an answer is from what a scene expects.

    error, margin  (R, T, H): of the outputs, in numbers and in S bounds
    returned       by name: the margins (R, H) of the returned states
    walk           what was expected
    limit          the largest margin that fits
    """

    error: Array
    margin: Array
    returned: dict[str, Array]
    walk: Walk
    limit: float = ALLOWED

    @property
    def wrong(self) -> Array:
        """(R, T, H), True for the outputs that do not fit."""
        return np.asarray(self.margin > self.limit)

    @property
    def worst(self) -> float:
        """The largest margin of all."""
        return max((float(m.max(initial=0.0)) for m in self._all()), default=0.0)

    @property
    def inside(self) -> float:
        """The share of numbers that fit."""
        total = sum(m.size for m in self._all())
        return sum(int((m <= self.limit).sum()) for m in self._all()) / total if total else 1.0

    @property
    def fits(self) -> bool:
        return self.worst <= self.limit

    def _all(self) -> list[Array]:
        return [self.margin, *self.returned.values()]

    def first_misfit(self) -> int | None:
        """The first step at which an output of any row does not fit."""
        steps = np.flatnonzero(self.wrong.any(axis=(0, 2)))
        return int(steps[0]) if len(steps) else None


def fit(scene: Scene, rows: Any = ALL, limit: float = ALLOWED) -> Fit:
    """A scene held against its own bounds: S of the step envelope, steps taken one by one."""
    with QUIET():
        w = walk(scene, rows)
        mask = None if scene.mask is None else scene.mask[rows]
        bound, of_c = bounds(scene, w, mask)
        y = scene.y[rows]
        error = _difference(y, w.expected)
        live = np.ones(y.shape[:2], bool) if mask is None else mask
        copies = ~live[:, :, None] & (scene.emits != "computed")
        margin = ratio(error, np.where(copies, 0, bound))
        returned = {}
        wanted = scene.returns(w, [part[rows] for part in scene.state])
        for name, got in scene.returned.items():
            allowed = of_c if name == "c" and of_c is not None else bound.max(1, initial=0)
            returned[name] = ratio(_difference(got[rows], wanted[name]), allowed)
    return Fit(error, margin, returned, w, limit)


def _difference(got: Array, want: Array) -> Array:
    """got - want; 0 where both are the same infinity or NaN, infinite where one is NaN."""
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    error = np.where(same, 0.0, got - want)
    return np.where(np.isnan(error), np.inf, error)


def ratio(error: Array, bound: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, 0.0, np.abs(error) / bound)


def bounds(scene: Scene, w: Walk, mask: Array | None) -> tuple[Array, Array | None]:
    """S of each output (R, L, H), and of c after the last step (R, H).

    Each step is judged for itself, as a row of one step; what c's reconstruction is off by is
    carried beside it by the forget gate.
    """
    R, L, H = w.new.shape
    flat = [None if a is None else a.reshape(R * L, a.shape[2]) for a in (w.x, w.h, w.c)]
    per_call = max(1, BLOCK // max(1, H))
    of_h, made = np.zeros((R * L, H)), np.zeros((R * L, H))
    for at in range(0, R * L, per_call):
        x, *state = (a[at : at + per_call] for a in flat if a is not None)
        blank = np.zeros((len(x), 1, H))
        task = Task(scene.cell, scene.weights, x[:, None], scene.cell.State(*state))
        names = scene.cell.gates if scene.form is not None else ""
        shown = {n: blank for g in names for n in (g, f"pre.{g}") if n != "h"}
        seen = Seen(blank, c=None if w.c is None else blank[:, 0], gates=shown)
        found = judge(task, seen, scene.precision)
        of_h[at : at + per_call] = found["y"].bounds["S"][:, 0]
        if w.c is not None:
            made[at : at + per_call] = found["c"].bounds["S"]
        if scene.form is not None:
            part = slice(at, at + per_call)
            of_h[part], made[part] = _of_form(scene, w, part, found)
    of_h = of_h.reshape(R, L, H)
    if w.c is None:
        return of_h, None
    return _with_error_of_c(scene, w, of_h, made.reshape(R, L, H), mask)


def _with_error_of_c(
    scene: Scene, w: Walk, of_h: Array, made: Array, mask: Array | None
) -> tuple[Array, Array]:
    """What a hidden c adds to the bounds: e' = f e + what the step makes."""
    assert w.c is not None
    e = np.zeros_like(made[:, 0]) if made.shape[1] else np.zeros_like(scene.state[0][: len(made)])
    errors = np.empty_like(made)
    for t in range(made.shape[1]):
        errors[:, t] = e
        new = np.abs(w.gates.f[:, t]) * e + made[:, t]
        e = new if mask is None else np.where(mask[:, t, None] | ("c" in scene.runs_on), new, e)
    act, rec = scene.cell.act.value, scene.cell.rec.value
    more = []
    for c in (w.c - errors, w.c + errors):
        q = gates.lstm(w.gates.pre, c, act, rec)
        q = q if scene.form is None else formed(scene, q, w.h, c)
        more.append(np.abs(q.h - w.new))
    return of_h + np.maximum(*more), e


def _of_form(scene: Scene, w: Walk, part: slice, found: Any) -> tuple[Array, Array]:
    """The bounds of h and c in miswritten equations: what the error of each gate makes of them."""
    flat = _flattened(w.gates, part)
    h, c = (None if a is None else a.reshape(-1, a.shape[-1])[part] for a in (w.h, w.c))
    assert h is not None
    plain = formed(scene, flat, h, c)
    u = scene.precision.pointwise
    of_h = 4 * u * np.maximum(np.abs(plain.h), np.abs(h))
    of_c = np.zeros_like(of_h) if c is None else 4 * u * np.abs(plain.c)
    for name, judged in found.items():
        if name in ("y", "h", "c"):
            continue
        error, gate = judged.bounds["S"][:, 0], name[-1]
        if name.startswith("pre."):
            pre = flat.pre._replace(**{gate: getattr(flat.pre, gate) + error})
            moved = flat._replace(pre=pre)
        else:
            moved = flat._replace(**{gate: getattr(flat, gate) + error})
        after = formed(scene, moved, h, c)
        of_h = of_h + np.abs(after.h - plain.h)
        of_c = of_c if c is None else of_c + np.abs(after.c - plain.c)
    return of_h, of_c


def _flattened(q: Any, part: slice) -> Any:
    """Some steps of a tuple of gates, one after another."""
    return type(q)(
        *(
            _flattened(a, part) if isinstance(a, tuple) else a.reshape(-1, a.shape[-1])[part]
            for a in q
        )
    )


def windows(fit_: Fit, rows: int, steps: int) -> tuple[list[int], int, int]:
    """Rows and steps of a fit where a misfit begins: (rows, start, stop)."""
    B, T, _ = fit_.margin.shape
    wrong = np.asarray(fit_.wrong.any(axis=2))  # (B, T)
    k = fit_.first_misfit()
    if k is None:
        return list(range(min(B, rows))), 0, min(T, steps)
    order = np.argsort(~wrong[:, k], kind="stable")[:rows]
    start = 0 if k <= steps else k - 2
    return sorted(int(r) for r in order), start, min(T, max(start + steps, k + 6))
