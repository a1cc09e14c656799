"""Checks of what goes in and out: arrays, NaN, masks."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from refrnn.gates import Array
from refrnn.reference import QUIET
from refrnn.verify.audits.auditor import (
    HALF,
    SHORT,
    Auditor,
    Failed,
    Outputs,
    Skipped,
    arrays_of,
    in_chunks,
    joined,
)
from refrnn.verify.audits.steppers import Remembering, Trouble


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
            before = [array.copy() for array in arrays_of(state)]
            ys.append(a.step.raw(given, way).copy())
            if given.tobytes() != x.tobytes():
                raise Failed(f"{what} writes to its argument x")
            for k, (old, now) in enumerate(zip(before, arrays_of(state), strict=True)):
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
                raws += [("state", leaf, leaf.copy()) for leaf in arrays_of(a.step.save())]
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
