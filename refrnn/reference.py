"""The readable loop: a cell stepped along a sequence; masks and resets live here and nowhere else.

The step rule is that of `keras.layers.RNN` on TensorFlow:

- time runs forwards, or backwards with `go_backwards`; outputs come in processing order;
- every step is computed for every row; where the mask is False the row keeps its state, and emits
  the output that it emitted last (zeros before its first), or zeros with `zero_output_for_mask`;
- where `reset` is True the row forgets before the step: state and last output are zeros.

Nothing is checked here: `refrnn.run` and the layers do that at the border.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from refrnn.cells import AnyGates, AnyState, Cell, Weights
from refrnn.gates import Array

# Infinities and NaNs go through, as in TensorFlow, without a warning from NumPy.
QUIET = partial(np.errstate, over="ignore", invalid="ignore", divide="ignore")


def steps(
    cell: Cell,
    weights: Weights,
    xs: Array,
    state: AnyState,
    mask: Array | None = None,
    reset: Array | None = None,
    go_backwards: bool = False,
    zero_output_for_mask: bool = False,
    last_output: Array | None = None,
) -> Iterator[tuple[Array, AnyState, AnyGates]]:
    """Each step's output (B, H), the state after it, and its gates; arguments as for `run`."""
    time = range(xs.shape[1])
    output = np.zeros_like(state.h) if last_output is None else last_output
    for t in reversed(time) if go_backwards else time:
        if reset is not None:
            forget = reset[:, t, None]  # (B, 1)
            state = type(state)(*(np.where(forget, 0, part) for part in state))
            output = np.where(forget, 0, output)
        new, gates = cell.step(cell, weights, state, xs[:, t])
        if mask is None:
            state, output = new, new.h
        else:
            live = mask[:, t, None]  # (B, 1)
            state = type(state)(
                *(np.where(live, n, old) for n, old in zip(new, state, strict=True))
            )
            output = np.where(live, new.h, 0 if zero_output_for_mask else output)
        yield output, state, gates


def run(
    cell: Cell, weights: Weights, xs: Array, state: AnyState, **options: Any
) -> tuple[Array, AnyState]:
    """All outputs (B, T, H), in processing order, and the state after the last step.

    weights      kernel (F, G*H), recurrent_kernel (H, G*H), bias (zeros where there is none)
    xs           (B, T, F), T may be 0
    state        each part (B, H)
    mask, reset  (B, T) bool or None
    last_output  (B, H), what a masked first step repeats; None for zeros, as in Keras.
                 Handing over both the state and the last output makes chunks equal the whole.
    """
    B, T, _ = xs.shape
    ys = np.empty((B, T, *state.h.shape[1:]), state.h.dtype)
    with QUIET():
        for t, (output, after, _) in enumerate(steps(cell, weights, xs, state, **options)):
            ys[:, t] = output
            state = after
    return ys, state


def trace(cell: Cell, weights: Weights, xs: Array, state: AnyState, **options: Any) -> AnyGates:
    """Every gate, pre-activation and state at every step, each (B, T, H), in processing order.

    The gates are those computed, on masked steps too; h and c are the state after the step, held
    where the mask is False. Arguments as for `run`.
    """
    with QUIET():
        seen = [
            gates._replace(**after._asdict())
            for _, after, gates in steps(cell, weights, xs, state, **options)
        ]
    if not seen:  # no step to take the names from: one on zeros has them
        blank = np.zeros((len(xs), xs.shape[2]), xs.dtype)
        _, gates = cell.step(cell, weights, state, blank)
        return mapped(gates, lambda part: np.empty((len(xs), 0, part.shape[1]), part.dtype))
    return stacked(seen)


def mapped(gates: Any, function: Any) -> Any:
    """`function` of every array of a tuple of gates, `pre` included."""
    return type(gates)(
        *(mapped(p, function) if isinstance(p, tuple) else function(p) for p in gates)
    )


def stacked(seen: list[Any]) -> Any:
    """Tuples of gates, a step each, as one tuple of arrays with a time axis."""
    columns = zip(*seen, strict=True)
    return type(seen[0])(
        *(stacked(list(c)) if isinstance(c[0], tuple) else np.stack(c, axis=1) for c in columns)
    )
