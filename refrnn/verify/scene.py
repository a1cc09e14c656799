"""What an implementation is supposed to have done, and what it shows: a hypothesis to be tested.

A scene is a task and an answer to it together, so that a convention can change either: other
weights, another input, another rule for the state, or the answer read in another order. `walk`
says what each step should give, driven by the answer's own outputs as in `envelope`, and `fit` how
far the answer is from that. Plain conventions and broken ones are walked by one piece of code.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from refrnn import gates
from refrnn.cells import Cell, Weights
from refrnn.gates import Array
from refrnn.reference import QUIET
from refrnn.verify.envelope import Seen, Task, judge
from refrnn.verify.precisions import Precision

ALLOWED = 2.0  # times the S bound: what a fitting scene's worst number may be off
ALL = slice(None)
BLOCK = 2**15  # outputs whose bounds are computed at a time
ZEROS, FIRST = 0, 1  # rows of the sources of h, before the outputs


@dataclass(frozen=True, eq=False)
class Scene:
    """Arrays in the order in which the implementation is supposed to have processed them, float64.

    xs         (B, T, F)
    state      the first state, each part (B, H)
    y          (B, T, H), its outputs, once more in that order
    returned   "h" and "c", (B, H), as far as they are seen
    cs         (B, T, H), c after each step, NaN where hidden; or None
    mask, reset, calls, last_output
               as in `envelope.Task`
    emits      what masked steps emit: "held", the last output, "zeros", or "computed" as if live
    runs_on    the parts of the state that masked steps change
    lost       (T,), True where the state is lost before the step, the parts `lost_parts` of it
    restarts   what is lost starts from the first state again, not from zeros
    lag        how many steps old the h is that a step takes
    returns    which state is returned: "after" the last step, "before" it, the "first" or "zeros"
    """

    cell: Cell
    weights: Weights
    xs: Array
    state: tuple[Array, ...]
    y: Array
    precision: Precision
    returned: dict[str, Array] = field(default_factory=dict)
    cs: Array | None = None
    mask: Array | None = None
    reset: Array | None = None
    calls: Array | None = None
    last_output: Array | None = None
    emits: str = "held"
    runs_on: frozenset[str] = frozenset()
    lost: Array | None = None
    lost_parts: frozenset[str] = frozenset({"h", "c"})
    restarts: bool = False
    lag: int = 1
    returns: str = "after"


def scene(task: Task, seen: Seen, precision: Precision) -> Scene:
    """The scene without a change: the reference's own conventions."""
    returned = {n: wide(a) for n, a in (("h", seen.h), ("c", seen.c)) if a is not None}
    cs = None if seen.cs is None or "c" not in task.state._fields else wide(seen.cs)
    last = None if task.last_output is None else wide(task.last_output)
    return Scene(
        task.cell,
        Weights(*map(wide, task.weights)),
        wide(task.xs),
        tuple(map(wide, task.state)),
        wide(seen.y),
        precision,
        returned,
        cs,
        task.mask,
        task.reset,
        task.calls,
        last,
        "zeros" if task.emits_zeros else "held",
    )


def wide(a: Any) -> Array:
    return np.asarray(a, np.float64)


class Walk(NamedTuple):
    """What the steps of a window take and should give, each (R, L, H) but x (R, L, F).

    h, c      the state that each step takes; c is None but for an LSTM
    kept      what a masked step would repeat
    new       what the cell makes, masked or not
    expected  the output
    gates     all that the cell computes
    after     the state after the window, by name
    """

    x: Array
    h: Array
    c: Array | None
    kept: Array | None
    new: Array
    expected: Array
    gates: Any
    after: dict[str, Array]


class Begin(NamedTuple):
    """Where a window in the middle begins: the state, and the last output."""

    state: tuple[Array, ...]
    last_output: Array | None


def walk(
    scene: Scene,
    rows: Any = ALL,
    start: int = 0,
    stop: int | None = None,
    begin: Begin | None = None,
) -> Walk:
    """The steps of a window of a scene; `begin` where it does not begin with the sequence."""
    y = scene.y[rows, start:stop]
    x = scene.xs[rows, start:stop]
    R, L, _ = y.shape
    cut = [None if a is None else a[rows, start:stop] for a in (scene.mask, scene.reset)]
    mask, reset = cut
    lost = None if scene.lost is None else scene.lost[start:stop]
    if begin is None:
        first = tuple(part[rows] for part in scene.state)
        last = None if scene.last_output is None else scene.last_output[rows]
    else:
        first, last = begin
    sources = np.empty((R, L + 2, y.shape[2]))
    sources[:, ZEROS], sources[:, FIRST], sources[:, 2:] = 0, first[0], y
    hidden = ~mask if mask is not None and "h" in scene.runs_on else None
    live = None if hidden is not None else mask
    origin = _origin(scene, L, live, reset, lost)
    product = _product(scene.precision)
    cell = scene.cell._replace(x_product=product, h_product=product)
    operands = scene.precision.operands
    W, U, b = scene.weights
    weights = Weights(operands(W), operands(U), b)
    for _ in range(1 if hidden is None else 2 + int(hidden.sum(1).max(initial=0))):
        h = sources[:, 1:-1] if origin is None else _taken(sources, origin[:, :-1])
        state = cell.State(h) if len(first) == 1 else cell.State(h, np.zeros_like(h))
        _, q = cell.step(cell, weights, state, x)
        c = None
        ends = first
        if len(first) == 2:
            c, c_end = _carried(scene, first[1], q.f, q.c, mask, reset, lost, rows, start)
            q = gates.lstm(q.pre, c, cell.act.value, cell.rec.value)
            ends = first[0], c_end
        if hidden is None:
            break
        filled = np.where(hidden[:, :, None], q.h, y)
        if np.array_equal(filled, sources[:, 2:], equal_nan=True):
            break
        sources[:, 2:] = filled
    after_h = sources[:, -1] if origin is None else _taken(sources, origin[:, -1:])[:, 0]
    after = dict(zip(scene.cell.State._fields, (after_h, *ends[1:]), strict=True))
    expected, kept = q.h, None
    if mask is not None:
        kept = _kept(scene, y, mask, reset, last, start)
        if scene.emits != "computed":
            expected = np.where(mask[:, :, None], q.h, 0 if scene.emits == "zeros" else kept)
    return Walk(x, h, c, kept, q.h, expected, q, after)


def _product(precision: Precision) -> Any:
    def product(a: Array, b: Array, gates: slice = ALL) -> Array:
        return precision.operands(a) @ b

    return product


def _taken(sources: Array, origin: Array) -> Array:
    return np.take_along_axis(sources, origin[:, :, None], axis=1)


def _latest(where: Array) -> Array:
    """(..., L) booleans: the last step up to each at which they are True, -1 for none."""
    times = np.arange(where.shape[-1])
    return np.maximum.accumulate(np.where(where, times, -1), axis=-1)


def _origin(
    scene: Scene, L: int, live: Array | None, reset: Array | None, lost: Array | None
) -> Array | None:
    """(R, L + 1): from which of the sources h comes before each step, and after the last.

    None where it is simply the output before.
    """
    lose = lost is not None and "h" in scene.lost_parts
    if live is None and reset is None and not lose and scene.lag == 1:
        return None
    R = len(scene.y) if live is None else len(live)
    before = np.arange(L + 1) - 1
    if live is not None:
        before = np.concatenate([np.full((R, 1), -1), _latest(live)], axis=1)
    if scene.lag > 1:
        before = np.maximum(before - (scene.lag - 1), -1)
        before[..., -1] = L - 1  # the state that is returned is not stale
    origin = before + 2
    if reset is not None:
        padded = np.concatenate([reset, np.zeros((len(reset), 1), bool)], axis=1)
        origin = np.where(_latest(padded) > before, ZEROS, origin)
    if lose:
        padded = np.append(lost, False)
        origin = np.where(_latest(padded) > before, FIRST if scene.restarts else ZEROS, origin)
    return np.atleast_2d(origin)


def _carried(
    scene: Scene,
    first: Array,
    f: Array,
    added: Array,
    mask: Array | None,
    reset: Array | None,
    lost: Array | None,
    rows: Any,
    start: int,
) -> tuple[Array, Array]:
    """c before each step and after the last: c' = f c + i g."""
    before = np.empty_like(f)
    L = f.shape[1]
    cs = None if scene.cs is None else scene.cs[rows, start : start + L]
    lose = lost if lost is not None and "c" in scene.lost_parts else None
    frozen = None if mask is None or "c" in scene.runs_on else ~mask
    c = first
    for t in range(L):
        if reset is not None:
            c = np.where(reset[:, t, None], 0, c)
        if lose is not None and lose[t]:
            c = first if scene.restarts else np.zeros_like(first)
        before[:, t] = c
        new = f[:, t] * c + added[:, t]
        c = new if frozen is None else np.where(frozen[:, t, None], c, new)
        if cs is not None:
            c = np.where(np.isnan(cs[:, t]), c, cs[:, t])
    return before, c


def _kept(
    scene: Scene, y: Array, mask: Array, reset: Array | None, last: Array | None, start: int
) -> Array:
    """What masked steps repeat: the last live output since the row forgot or a call began."""
    R, L, H = y.shape
    sources = np.zeros((R, L + 2, H))
    sources[:, 2:] = y
    if last is not None:
        sources[:, FIRST] = last
    latest = _latest(mask)
    origin = latest + 2
    if reset is not None:
        origin = np.where(_latest(reset) > latest, ZEROS, origin)
    if scene.calls is not None:
        calls = scene.calls[start : start + L]
        origin = np.where(_latest(calls) > latest, ZEROS, origin)
    return _taken(sources, origin)


# --- bounds --------------------------------------------------------------------------------------


class Fit(NamedTuple):
    """How far an answer is from what a scene expects.

    error, margin  (R, T, H): of the outputs, in numbers and in S bounds
    returned       by name: the margins (R, H) of the returned states
    walk           what was expected
    """

    error: Array
    margin: Array
    returned: dict[str, Array]
    walk: Walk

    @property
    def worst(self) -> float:
        """The largest margin of all."""
        return max((float(m.max(initial=0.0)) for m in self._all()), default=0.0)

    @property
    def inside(self) -> float:
        """The share of numbers within ALLOWED bounds."""
        total = sum(m.size for m in self._all())
        return sum(int((m <= ALLOWED).sum()) for m in self._all()) / total if total else 1.0

    @property
    def fits(self) -> bool:
        return self.worst <= ALLOWED

    @property
    def median(self) -> float:
        return float(np.median(self.margin)) if self.margin.size else 0.0

    def _all(self) -> list[Array]:
        return [self.margin, *self.returned.values()]

    def first_misfit(self) -> int | None:
        """The first step at which an output of any row does not fit."""
        steps = np.flatnonzero((self.margin > ALLOWED).any(axis=(0, 2)))
        return int(steps[0]) if len(steps) else None


def fit(scene: Scene, rows: Any = ALL, stop: int | None = None) -> Fit:
    """A scene held against its own bounds: S of the step envelope, steps taken one by one."""
    with QUIET():
        w = walk(scene, rows, 0, stop)
        bound, of_c = bounds(scene, w, None if scene.mask is None else scene.mask[rows, :stop])
        y = scene.y[rows, :stop]
        error = _difference(y, w.expected)
        live = np.ones(y.shape[:2], bool) if scene.mask is None else scene.mask[rows, :stop]
        copies = ~live[:, :, None] & (scene.emits != "computed")
        margin = ratio(error, np.where(copies, 0, bound))
        returned = {}
        if stop is None or stop >= scene.y.shape[1]:
            for name, got in scene.returned.items():
                want = _to_return(scene, w, name, rows)
                allowed = of_c if name == "c" and of_c is not None else bound.max(1, initial=0)
                returned[name] = ratio(_difference(got[rows], want), allowed)
    return Fit(error, margin, returned, w)


def _to_return(scene: Scene, w: Walk, name: str, rows: Any) -> Array:
    """The state that should be returned."""
    if scene.returns == "after" or not w.h.shape[1]:
        return w.after[name]
    if scene.returns == "before":
        before = w.h if name == "h" else w.c
        assert before is not None
        return before[:, -1]
    first = scene.state[scene.cell.State._fields.index(name)][rows]
    return first if scene.returns == "first" else np.zeros_like(first)


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
    flat = [None if a is None else a.reshape(R * L, -1) for a in (w.x, w.h, w.c)]
    per_call = max(1, BLOCK // max(1, H))
    of_h, made = np.zeros((R * L, H)), np.zeros((R * L, H))
    for at in range(0, R * L, per_call):
        x, *state = (a[at : at + per_call] for a in flat if a is not None)
        blank = np.zeros((len(x), 1, H))
        task = Task(scene.cell, scene.weights, x[:, None], scene.cell.State(*state))
        found = judge(task, Seen(blank, c=None if w.c is None else blank[:, 0]), scene.precision)
        of_h[at : at + per_call] = found["y"].bounds["S"][:, 0]
        if w.c is not None:
            made[at : at + per_call] = found["c"].bounds["S"]
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
    more = [np.abs(gates.lstm(w.gates.pre, w.c + s * errors, act, rec).h - w.new) for s in (-1, 1)]
    return of_h + np.maximum(*more), e


def filled(empty: Scene) -> Scene:
    """A scene whose answer is what the scene itself would give; `empty.y` is written to.

    y may be a view of an array in another order, which is then filled in that order.
    """
    T = empty.y.shape[1]
    empty.y[...] = 0
    with QUIET():
        for t in range(T):  # each step needs the output before
            w = walk(empty, stop=t + 1)
            empty.y[:, t] = w.expected[:, t]
    return empty


def windows(fit_: Fit, rows: int, steps: int) -> tuple[list[int], int, int]:
    """Rows and steps of a fit where a misfit begins: (rows, start, stop)."""
    B, T, _ = fit_.margin.shape
    wrong = (fit_.margin > ALLOWED).any(axis=2)  # (B, T)
    k = fit_.first_misfit()
    if k is None:
        return list(range(min(B, rows))), 0, min(T, steps)
    order = np.argsort(~wrong[:, k], kind="stable")[:rows]
    start = 0 if k <= steps else k - 2
    return sorted(int(r) for r in order), start, min(T, max(start + steps, k + 6))
