"""Checks of how a sequence is cut: however it comes, it is the same sequence."""

from collections.abc import Iterator, Sequence

import numpy as np

from refrnn.gates import Array
from refrnn.verify import chunks as cutting
from refrnn.verify.audits.auditor import (
    CUTTINGS,
    HALF,
    LONG,
    SHORT,
    Auditor,
    Failed,
    Outputs,
    Skipped,
    by_reference,
    compositions,
    explains,
    in_chunks,
    needs_chunks,
    no_state,
    slips,
)


def causal(a: Auditor) -> str:
    """No output depends on a later input of the same chunk."""
    needs_chunks(a)
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


def all_chunkings(a: Auditor) -> str:
    """Every way to cut a short run gives the run in one piece."""
    needs_chunks(a)
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
        if explains(got.y[:, skip:], tail[:, twice:], want.y[:, skip:]):
            return f": {cause}"
    for cause, ys in _border_slips(a, k):
        if explains(got.y[:, k:], ys, want.y[:, k:]):
            return f": {cause} between chunks"
    return ""


def _border_slips(a: Auditor, k: int) -> Iterator[tuple[str, Array]]:
    """The reference's outputs after k steps, where something happened to its state there."""
    if a.subject is None:
        return
    _, state = by_reference(a, a.short[:, :k], no_state(a))
    for cause, change in slips(a):
        yield cause, by_reference(a, a.short[:, k:], change(state))[0]


def long_run(a: Auditor) -> str:
    """A longer run in random chunks, and step by step."""
    needs_chunks(a)
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
    needs_chunks(a)
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
