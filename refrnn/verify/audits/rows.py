"""Checks of rows: none of them sees another."""

import numpy as np

from refrnn.verify.audits.auditor import HALF, SHORT, Auditor, Outputs, Skipped, needs_rows
from refrnn.verify.audits.steppers import Remembering


def rows_apart(a: Auditor) -> str:
    """Another input in one row moves no other row."""
    needs_rows(a)
    want = a.halves(a.short)
    for row in a.some_rows:
        x = a.short.copy()
        x[row] = a.other[row, :SHORT]
        others = np.arange(a.rows) != row
        a.agree(f"with another input in row {row}", a.halves(x), want, others[:, None])
    return a.closeness


def row_order(a: Auditor) -> str:
    """Rows in another order give the same rows in that order."""
    needs_rows(a)
    order = np.roll(np.arange(a.rows), 1)
    want = a.halves(a.short).of(list(order))
    got = a.halves(a.short[order])
    a.agree(f"with the rows in the order {[int(k) for k in order]}", got, want)
    return a.closeness


def batches(a: Auditor) -> str:
    """A row alone, or with fewer others, gives what it gives among all."""
    needs_rows(a)
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
