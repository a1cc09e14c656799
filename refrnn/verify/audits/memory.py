"""Checks of the memory: it begins anew, it is used, it can be come back to."""

from collections.abc import Callable
from typing import Any

import numpy as np

from refrnn.gates import Array
from refrnn.verify.audits.auditor import (
    FITS,
    HALF,
    LONG,
    SAME,
    SETTLING,
    SHORT,
    Auditor,
    Failed,
    Outputs,
    Skipped,
    arrays_of,
    by_reference,
    difference,
    distance,
    explains,
    far_apart,
    nearly,
    needs_reference,
    no_state,
    same_bits,
    slips,
)
from refrnn.verify.audits.steppers import Pure, Remembering, zeros_like


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
    if same_bits(*runs):
        return SAME
    told = difference(*runs)
    if not a.step.pure:
        for _ in range(SETTLING):
            runs.append(a.halves(a.short))
        first, last = (distance(one.y, other.y) for one, other in (runs[:2], runs[-2:]))
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
    if not same_bits(got, want) and far_apart(got, want):
        raise Failed(f"{begun} it is not as new: {difference(got, want)}")
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
        state = no_state(a)
        for _ in range(SETTLING + 2):
            begun = {n: v if n in kept else 0 * v for n, v in state._asdict().items()}
            ys, state = by_reference(a, a.short, type(state)(**begun))
        right, _ = by_reference(a, a.short, no_state(a))
        if explains(a.settled, ys, right):
            return f"; reset() keeps {name}"
    return ""


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
    subject = needs_reference(a)
    names = subject.parts[0].states
    if len(names) < 2:
        raise Skipped(f"the state of a {subject.parts[0].cell.name} has one part, {names[0]}")
    got = a.run(a.short, [1]).y
    right = _in_steps(a, lambda state: state)
    if nearly(got, right):
        return f"{' and '.join(names)} are carried from one call to the next"
    for cause, change in slips(a):
        if explains(got, _in_steps(a, change), right):
            raise Failed(f"called step by step, {cause} between calls")
    raise Skipped("step by step the outputs fit neither the reference nor one with a part lost")


def _in_steps(a: Auditor, change: Callable[[Any], Any]) -> Array:
    """The reference step by step, with something done to the state before each but the first."""
    state, ys = no_state(a), []
    for t in range(SHORT):
        y, state = by_reference(a, a.short[:, t : t + 1], change(state) if t else state)
        ys.append(y)
    return np.concatenate(ys, axis=1)


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
    held = [array.copy() for array in arrays_of(saved)]
    a.agree(f"after {kept} at step {HALF}", a.go_on(tail), want, None, HALF)
    now = arrays_of(saved)
    changed = any(b.tobytes() != n.tobytes() for b, n in zip(held, now, strict=True))
    again: list[tuple[str, Callable[[], Any]]] = [
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
        if explains(got, a.whole(x).y[:, -tail.shape[1] :], want):
            return f": {cause}"
    if a.subject is None or len(no_state(a)._fields) < 2:
        return ""
    _, then = by_reference(a, a.short[:, :HALF], no_state(a))
    _, now = by_reference(a, a.short, no_state(a))
    ways = [(cause, change(then)) for cause, change in slips(a)]
    ways += [
        ("c is not restored", then._replace(c=now.c)),
        ("h is not restored", then._replace(h=now.h)),
    ]
    for cause, state in ways:
        if explains(got, by_reference(a, tail, state)[0], want):
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
    needs_reference(a)
    in_one = a.step.chunked and not a.step.last
    try:
        run = a.judged("in one piece" if in_one else "step by step", a.whole(a.x))
    except ValueError as error:
        raise Failed(str(error)) from None
    if run.margins["S"] > 1:
        raise Failed(str(run.first))
    return f"within the envelope of {run.precision.name}, margin {run.margins['S']:.2g} of 1"
