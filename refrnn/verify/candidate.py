"""A candidate that can be called: it is run on copies, and made to show all its outputs."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from refrnn.gates import Array
from refrnn.verify.subject import Subject, in_time
from refrnn.verify.tasks import Task

Implementation = Callable[..., Any]


class Data(NamedTuple):
    """What a candidate is run on, in the order of time.

    x      (B, T, F)
    state  the first states of all parts, each (B, H); None for zeros
    mask   (B, T) of booleans, or None
    """

    x: Array
    state: Sequence[Array] | None = None
    mask: Array | None = None

    def steps(self, piece: slice) -> "Data":
        """From the same states, a piece of the steps."""
        mask = None if self.mask is None else self.mask[:, piece]
        return Data(self.x[:, piece], self.state, mask)


def data(what: Subject, tasks: Sequence[Task], given: bool) -> Data:
    """What the tasks of `what.tasks` start from; `given` tells whether a state was."""
    backwards = what.parts[0].backwards
    x, mask = in_time(tasks[0].xs, backwards), in_time(tasks[0].mask, backwards)
    return Data(x, [part for task in tasks for part in task.state] if given else None, mask)


def run(what: Subject, candidate: Implementation, data: Data) -> dict[str, Array]:
    """One call, keywords only where they are needed; what goes in and comes out is copied."""
    given: dict[str, Any] = {}
    if data.state is not None:
        given["initial_state"] = [part.copy() for part in data.state]
    if data.mask is not None:
        given["mask"] = data.mask.copy()
    outputs = candidate(data.x.copy(), **given)
    arrays = {name: np.array(array) for name, array in what.named(outputs).items()}
    return what.checked(arrays, *data.x.shape[:2])


def shown(
    what: Subject, candidate: Implementation, data: Data, whole: dict[str, Array]
) -> dict[str, Array]:
    """`whole` of a candidate that returns its last output only, with those of all shorter runs."""
    T = data.x.shape[1]
    backwards = what.parts[0].backwards
    pieces = [slice(T - t, T) if backwards else slice(t) for t in range(1, T)]
    ys = [run(what, candidate, data.steps(piece))["y"] for piece in pieces]
    return {**whole, "y": np.stack([*ys, whole["y"]], axis=1)}
