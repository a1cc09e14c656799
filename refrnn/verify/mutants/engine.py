"""A plain implementation of the four cells, in which any one thing can be made wrong.

Every field of `Engine` is something that a run does. The defaults are right; a mutant replaces one
of them. Equations are those of `refrnn.cells`, products summed by NumPy in the layer's dtype.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from refrnn.cells import Cell, Weights
from refrnn.gates import Array
from refrnn.reference import QUIET
from refrnn.verify.subject import Part, in_time

Implementation = Callable[..., tuple[Array, ...]]  # f(x, initial_state=None, mask=None)


class Call(NamedTuple):
    """What an implementation is called with, in the layer's dtype and as given."""

    x: Array  # (B, T, F)
    state: Any  # a tuple of the cell's states, each (B, H), or None
    mask: Array | None  # (B, T)


class Moment(NamedTuple):
    """A step that has just been computed for every row.

    live         (B, 1), False where the row is masked
    old, new     the state before and after
    last         (B, H), what was emitted last, zeros before the first live step
    emits_zeros  what the layer wants at masked steps: zeros, or `last`
    """

    live: Array
    old: Any
    new: Any
    last: Array
    emits_zeros: bool


def as_called(call: Call) -> Call:
    return call


def as_loaded(cell: Cell, weights: Weights) -> Weights:
    return weights


def as_configured(cell: Cell) -> Cell:
    return cell


def newest(past: list[Any]) -> Any:
    return past[-1]


def of_now(xs: Array, t: int) -> Array:
    return xs[:, t]


def one_step(cell: Cell, weights: Weights, state: Any, x: Array) -> Any:
    return cell.step(cell, weights, state, x)[0]


def gates_of(cell: Cell, weights: Weights, state: Any, x: Array) -> Any:
    """Every gate of a step, by the names of its cell."""
    return cell.step(cell, weights, state, x)[1]


def frozen(now: Moment) -> tuple[Any, Array]:
    """The state after a step, and what it emits: masked rows keep theirs and repeat the last."""
    state = type(now.new)(
        *(np.where(now.live, n, o) for n, o in zip(now.new, now.old, strict=True))
    )
    return state, np.where(now.live, now.new.h, 0 if now.emits_zeros else now.last)


def as_computed(y: Array, past: list[Any]) -> tuple[Array, Any]:
    return y, past[-1]


@dataclass(frozen=True)
class Engine:
    """What a run does, in the order in which it does it.

    weights  (cell, weights) -> weights, once, when they are loaded
    cell     cell -> cell: its activations and products
    called   Call -> Call
    state    the states so far, oldest first -> the one that the next step starts from
    inputs   xs (B, T, F) in processing order, t -> x (B, F)
    step     (cell, weights, state, x) -> the new state
    keep     Moment -> the state that is carried on, and the output (B, H)
    result   y (B, T, H) in processing order, the states -> what is handed back
    """

    weights: Callable[[Cell, Weights], Weights] = as_loaded
    cell: Callable[[Cell], Cell] = as_configured
    called: Callable[[Call], Call] = as_called
    state: Callable[[list[Any]], Any] = newest
    inputs: Callable[[Array, int], Array] = of_now
    step: Callable[[Cell, Weights, Any, Array], Any] = one_step
    keep: Callable[[Moment], tuple[Any, Array]] = frozen
    result: Callable[[Array, list[Any]], tuple[Array, Any]] = as_computed

    def implementation(self, part: Part) -> Implementation:
        """A callable of Keras's form for one layer, that returns y and the states."""
        cell, weights = self.cell(part.cell), self.weights(part.cell, part.weights)
        dtype = weights.kernel.dtype

        def run(x: Any, initial_state: Any = None, mask: Any = None) -> tuple[Array, ...]:
            given = None
            if initial_state is not None:
                given = tuple(np.asarray(s, dtype) for s in _as_list(initial_state))
            call = self.called(
                Call(np.asarray(x, dtype), given, None if mask is None else np.asarray(mask, bool))
            )
            state = cell.zeros(len(call.x), part.units, dtype)
            if call.state is not None:
                state = type(state)(*call.state)
            y, state = self._loop(part, cell, weights, call, state)
            return in_time(y, part.turned), *state

        return run

    def _loop(
        self, part: Part, cell: Cell, weights: Weights, call: Call, state: Any
    ) -> tuple[Array, Any]:
        xs, mask = in_time(call.x, part.backwards), in_time(call.mask, part.backwards)
        B, T, _ = xs.shape
        y = np.zeros((B, T, part.units), xs.dtype)
        live, last = np.ones((B, T), bool) if mask is None else mask, np.zeros_like(state.h)
        past = [state]
        with QUIET():
            for t in range(T):
                new = self.step(cell, weights, self.state(past), self.inputs(xs, t))
                now = Moment(live[:, t, None], past[-1], new, last, part.emits_zeros)
                state, y[:, t] = self.keep(now)
                last = np.where(now.live, y[:, t], last)
                past.append(state)
            return self.result(y, past)


def _as_list(state: Any) -> list[Any]:
    return list(state) if isinstance(state, list | tuple) else [state]
