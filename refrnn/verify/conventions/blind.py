"""What a run cannot show: conventions that would give the same numbers."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from refrnn.gates import Array
from refrnn.reference import QUIET, run
from refrnn.verify.conventions.catalogue import catalogue
from refrnn.verify.conventions.edit import Edit
from refrnn.verify.fits import bounds
from refrnn.verify.precisions import PRECISIONS
from refrnn.verify.scene import Scene, scene, walk
from refrnn.verify.tasks import Seen, Task

SMALL = (3, 12)  # rows and steps that show most conventions
LARGE = (8, 500)
LISTED = 2  # conventions of one aspect that are named


def blind(tasks: Sequence[Task]) -> list[str]:
    """The conventions that some runs cannot tell from the right one, a sentence for each aspect.

    An implementation with any of these would give the same numbers, within the bound S, in all of
    `tasks`. Of long runs the first rows and steps are looked at.
    """
    hidden: dict[str, list[str]] | None = None
    masked = any(task.mask is not None and not task.mask.all() for task in tasks)
    for task in tasks:
        if task.xs.size:
            hidden = _hidden(task, hidden)
    sentences = []
    for names in (hidden or {}).values():
        more = f" (and {len(names) - LISTED} more of the kind)" if len(names) > LISTED else ""
        sentences.append(", or ".join(names[:LISTED]) + more)
    if tasks and not masked:
        sentences.append("masked steps are treated in another way (no step was masked)")
    return sentences


def _hidden(task: Task, among: dict[str, list[str]] | None) -> dict[str, list[str]]:
    """By aspect, the names of conventions that a task does not show; of those in `among`."""
    found: dict[str, list[str]] = {}
    small, large = (_Shown(task, *size) for size in (SMALL, LARGE))
    for edit in catalogue(small.base):
        if edit.rare or edit.aspect in ("precision", "returned state", "mask"):
            continue
        if among is not None and edit.name not in among.get(edit.aspect, ()):
            continue
        if not small.shows(edit) and not large.shows(edit):
            found.setdefault(edit.aspect, []).append(edit.name)
    return found


class _Shown:
    """The first rows and steps of a task, with the reference's own answer."""

    def __init__(self, task: Task, rows: int, steps: int) -> None:
        blank = [not any(part[row].any() for part in task.state) for row in range(len(task.xs))]
        first = np.argsort(blank, kind="stable")[
            :rows
        ]  # rows that start from a state before others

        def cut(a: Array | None) -> Any:
            return None if a is None else a[first, :steps]

        self.task = task._replace(
            xs=cut(task.xs),
            state=type(task.state)(*(part[first] for part in task.state)),
            mask=cut(task.mask),
            reset=cut(task.reset),
            last_output=None if task.last_output is None else task.last_output[first],
            calls=None,
        )

    @cached_property
    def base(self) -> Scene:
        t = self.task
        blank = np.zeros((*t.xs.shape[:2], len(t.weights.recurrent_kernel)))
        empty = scene(t, Seen(blank), PRECISIONS["float32"])
        y, _ = run(
            t.cell,
            empty.weights,
            empty.xs,
            t.cell.State(*empty.state),
            mask=t.mask,
            reset=t.reset,
            zero_output_for_mask=t.emits_zeros,
            last_output=empty.last_output,
        )
        return replace(empty, y=y)

    @cached_property
    def allowed(self) -> float:
        w = walk(self.base)
        bound, _ = bounds(self.base, w, self.base.mask)
        return float(bound.max(initial=0.0))

    def shows(self, edit: Edit) -> bool:
        changed = edit.apply(self.base)
        if changed is None:
            return True  # cannot be
        with QUIET():
            off = np.abs(walk(changed).expected - changed.y)
        return not float(off.max(initial=0.0)) <= self.allowed
