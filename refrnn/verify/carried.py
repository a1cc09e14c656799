"""An LSTM's hidden c, computed again from the outputs that are seen."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from refrnn.gates import Array
from refrnn.verify.sums import Steps
from refrnn.verify.tasks import Task
from refrnn.verify.tracked import DEVIATION, Arithmetic, P, Tracked, W, wide


class Carried:
    """An LSTM's c, which is hidden: computed from the implementation's own outputs.

    c' = f c + i g is carried by the forget gate, and so is the error of c.
    """

    def __init__(self, task: Task, cs: Array | None, arithmetic: Arithmetic, live: Array) -> None:
        self.reset, self.masked = task.reset, task.mask is not None
        self.cs, self.arithmetic, self.live = cs, arithmetic, live
        self.c = wide(task.state.c)  # (B, H)
        self.error = np.zeros((4, *self.c.shape))  # as `Tracked.totals`, but a variance
        self.last = self.c, self.error  # what the last live step made, seen or not

    def before(self, block: slice, step: Steps) -> Tracked:
        """c before each step of a block, with its error; `step` makes the gates of a c."""
        arithmetic = self.arithmetic
        shape = self.live[:, block].shape + self.c.shape[1:]
        nothing = step.values(np.zeros(shape))
        before = self._walk(block, nothing.f, nothing.c)
        unit = {"carried": np.ones((4, *shape))}
        once = step.new_c(Tracked(before, unit, arithmetic))  # the errors that one step makes of c
        factor = once.parts.pop("carried")
        factor[[W, P]] *= arithmetic.growth
        errors = self._spread(block, factor, once.totals())
        return Tracked(before, {"carried": errors}, arithmetic)

    def _times(self, block: slice) -> Iterator[tuple[int, Any, Any]]:
        """k, rows that forget before step k of the block or None, rows that are live or None."""
        for k, t in enumerate(range(block.start, block.stop)):
            forget = None if self.reset is None else self.reset[:, t, None]
            yield k, forget, self.live[:, t, None] if self.masked else None

    def _walk(self, block: slice, f: Array, added: Array) -> Array:
        """c before each step."""
        before = np.empty_like(f)
        cs = None if self.cs is None else wide(self.cs[:, block])
        c, (last, _) = self.c, self.last
        for k, forget, live in self._times(block):
            if forget is not None:
                c, last = np.where(forget, 0, c), np.where(forget, 0, last)
            before[:, k] = c
            new = f[:, k] * c + added[:, k]
            last = new if live is None else np.where(live, new, last)
            c = new if live is None else np.where(live, new, c)
            if cs is not None:
                c = np.where(np.isnan(cs[:, k]), c, cs[:, k])
        self.c, self.last = c, (last, self.last[1])
        return before

    def _spread(self, block: slice, factor: Array, made: Array) -> Array:
        """The error of c before each step, (4, B, T, H)."""
        factor[DEVIATION] **= 2
        made[DEVIATION] **= 2
        factor = np.ascontiguousarray(np.moveaxis(np.abs(factor), 2, 0))  # time first
        made = np.ascontiguousarray(np.moveaxis(made, 2, 0))
        before = np.empty_like(made)
        cs = None if self.cs is None else wide(self.cs[:, block])
        error, (_, last) = self.error, self.last
        for k, forget, live in self._times(block):
            if forget is not None:
                error, last = np.where(forget, 0, error), np.where(forget, 0, last)
            before[k] = error
            new = factor[k] * error + made[k]
            last = new if live is None else np.where(live, new, last)
            error = new if live is None else np.where(live, new, error)
            if cs is not None:  # seen: from here on it is exact
                error = np.where(np.isnan(cs[:, k]), error, 0)
        self.error, self.last = error, (self.last[0], last)
        before[:, DEVIATION] = np.sqrt(before[:, DEVIATION])
        return np.moveaxis(before, 0, 2)

    def after(self) -> Tracked:
        """c after the last live step, which may be computed apart from the one that was seen."""
        c, error = self.last
        totals = error.copy()
        totals[DEVIATION] = np.sqrt(totals[DEVIATION])
        return Tracked(c, {"carried": totals}, self.arithmetic)
