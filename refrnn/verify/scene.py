"""What an implementation is supposed to have done, and what it shows: a hypothesis to be tested.

A scene is a task and an answer to it together, so that a convention can change either: other
weights, another input, another rule for the state, or the answer read in another order. `walk`
says what each step should give, driven by the answer's own outputs as in `envelope`. Plain
conventions and broken ones are walked by one piece of code.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from refrnn import gates
from refrnn.cells import Cell, Weights
from refrnn.gates import Array
from refrnn.reference import QUIET
from refrnn.verify.precisions import Precision
from refrnn.verify.tasks import Seen, Task
from refrnn.verify.tracked import wide

ALL = slice(None)


ZEROS, FIRST = 0, 1  # rows of the sources of h, before the outputs


class Form(NamedTuple):
    """Equations that are miswritten; arrays of one step or of many.

    c  (gates, c before) -> c; None but for an LSTM
    h  (activation, gates, state before, c) -> h
    """

    c: Callable[[Any, Array], Array] | None
    h: Callable[[Any, Any, Sequence[Array], Any], Array]


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
    emits      what masked steps emit: "held", the last output, "zeros", the "state", or "computed"
               as if live
    runs_on    the parts of the state that masked steps change
    clears     masked steps clear the state
    lost       (T,), True where the step does not take the state, or not the parts `lost_parts`
    lost_kept  the loss lasts where the step is masked
    restarts   what is lost starts from the first state again, not from zeros
    lag        how many steps old the h is that a step takes
    returns    (walk, first state) -> the state that is returned, by name
    form       equations that are not those of the cell, or None
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
    clears: bool = False
    lost: Array | None = None
    lost_parts: frozenset[str] = frozenset({"h", "c"})
    lost_kept: bool = True
    restarts: bool = False
    lag: int = 1
    returns: "Returns" = lambda w, first: w.after
    form: Form | None = None

    @property
    def forgets(self) -> Array | None:
        """(B, T), True where the state is cleared before the step."""
        if not self.clears or self.mask is None:
            return self.reset
        return ~self.mask if self.reset is None else self.reset | ~self.mask


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


Returns = Callable[[Walk, Sequence[Array]], dict[str, Array]]


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
    mask, reset, forgets = (
        None if a is None else a[rows, start:stop] for a in (scene.mask, scene.reset, scene.forgets)
    )
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
    origin = _origin(scene, L, live, forgets, lost)
    product = _product(scene.precision)
    cell = scene.cell._replace(x_product=product, h_product=product)
    operands = scene.precision.operands
    W, U, b = scene.weights
    weights = Weights(operands(W), operands(U), b)
    for _ in range(1 if hidden is None else 2 + int(hidden.sum(1).max(initial=0))):
        h = sources[:, 1:-1] if origin is None else _taken(sources, origin[:, :-1])
        state: Any = (h,) if len(first) == 1 else (h, np.zeros_like(h))
        q: Any = cell.step(cell, weights, cell.State(*state), x)[1]
        c = None
        ends = first
        if len(first) == 2:
            c, c_end = carried(scene, first[1], q, rows, start)
            q = gates.lstm(q.pre, c, cell.act.value, cell.rec.value)
            ends = first[0], c_end
        if scene.form is not None:
            q = formed(scene, q, h, c)
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
            instead = {"held": kept, "zeros": np.zeros(()), "state": h}[scene.emits]
            expected = np.where(mask[:, :, None], q.h, instead)
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
    lose = None if "h" not in scene.lost_parts else lost
    if live is None and reset is None and lose is None and scene.lag == 1:
        return None
    R = len(scene.y) if live is None else len(live)
    before = np.arange(L + 1) - 1
    if live is not None:
        before = np.concatenate([np.full((R, 1), -1), _latest(live)], axis=1)
    if scene.lag > 1:  # but what is returned is not stale
        stale = before[..., np.maximum(np.arange(L) - (scene.lag - 1), 0)]
        before = np.concatenate([stale, before[..., -1:]], axis=-1)
    origin = before + 2
    if reset is not None:
        padded = np.concatenate([reset, np.zeros((len(reset), 1), bool)], axis=1)
        origin = np.where(_latest(padded) > before, ZEROS, origin)
    if lose is not None:
        padded = np.append(lose, False)
        gone = _latest(padded) > before if scene.lost_kept else padded
        origin = np.where(gone, FIRST if scene.restarts else ZEROS, origin)
    return np.atleast_2d(origin)


def carried(
    scene: Scene, first: Array, q: Any, rows: Any = ALL, start: int = 0
) -> tuple[Array, Array]:
    """c before each step (R, L, H) and after the last (R, H).

    first  (R, H), before the window that begins at step `start`
    q      the gates for c = 0, so that its own c is what a step adds
    """
    before = np.empty_like(q.f)
    L = before.shape[1]
    cs, mask, reset = (
        None if a is None else a[rows, start : start + L]
        for a in (scene.cs, scene.mask, scene.forgets)
    )
    lose = None
    if scene.lost is not None and "c" in scene.lost_parts:
        lose = scene.lost[start : start + L]
    frozen = None if mask is None or "c" in scene.runs_on else ~mask
    c = first
    for t in range(L):
        if reset is not None:
            c = np.where(reset[:, t, None], 0, c)
        taken = c
        if lose is not None and lose[t]:
            taken = first if scene.restarts else np.zeros_like(first)
            c = taken if scene.lost_kept else c
        before[:, t] = taken
        if scene.form is None or scene.form.c is None:
            new = q.f[:, t] * taken + q.c[:, t]
        else:
            new = scene.form.c(_at_step(q, t), taken)
        c = new if frozen is None else np.where(frozen[:, t, None], c, new)
        if cs is not None:
            c = np.where(np.isnan(cs[:, t]), c, cs[:, t])
    return before, c


def _at_step(q: Any, t: int) -> Any:
    """One step of a tuple of gates."""
    return type(q)(*(_at_step(a, t) if isinstance(a, tuple) else a[:, t] for a in q))


def formed(scene: Scene, q: Any, h: Array, c: Array | None) -> Any:
    """Gates with the new state that a form makes of them."""
    assert scene.form is not None
    act = scene.cell.act.value
    if c is None:
        return q._replace(h=scene.form.h(act, q, (h,), None))
    q = q._replace(c=q.c if scene.form.c is None else scene.form.c(q, c))
    return q._replace(h=scene.form.h(act, q, (h, c), q.c))


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
