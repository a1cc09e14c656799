"""Gradients for users: `refrnn.gradients` on plain arrays, checked at the border."""

from typing import Any

import numpy as np

from refrnn import checks
from refrnn.backward.loop import Gradients, backward
from refrnn.backward.steps import BACK
from refrnn.cells import Cell, Weights, plain
from refrnn.engines import checked
from refrnn.gates import Array

__all__ = ["Gradients", "gradients"]


def gradients(
    cell: str | Cell,
    weights: Weights,
    xs: Any,
    dys: Any = None,
    state: Any = None,
    *,
    dlast_output: Any = None,
    dstate: Any = None,
    mask: Any = None,
    reset: Any = None,
    activation: Any = None,
    recurrent_activation: Any = None,
    go_backwards: bool = False,
    zero_output_for_mask: bool = False,
    truncate: int | None = None,
    gates: bool = False,
) -> Gradients:
    """The gradients of a loss by all that went into `refrnn.run`, by back-propagation through time.

    cell, weights, xs, state, mask, reset, activation, recurrent_activation, go_backwards,
    zero_output_for_mask
                  as given to `run`; an activation must have a derivative
    dys           (B, T, H), the loss's gradient by each output, in processing order
    dlast_output  (B, H), that by the last output, on top of dys: all that a layer without
                  return_sequences needs
    dstate        that by the state `run` returned, each part (B, H)
    truncate      cut the sequence into pieces of that many steps, the first processed first, and
                  let no gradient go back from one into the one before (truncated BPTT)
    gates         return `dtrace` too

    What is None counts as zeros, but one of the three gradients must be given. The forward pass is
    that of the NumPy engine, and everything has the dtype of the weights. Where an activation has
    a corner its one-sided derivative is taken.

    Returns `refrnn.backward.Gradients`. The dstate and dlast_output of a chunk, given to the chunk
    before it, make the gradients those of the whole sequence: dxs, dstate, dlast_output and dtrace
    in every bit, and they depend on their own row alone. The gradients of the weights are sums,
    over the rows of a step (row 0 first) and then over the steps (the last processed first): how
    they round depends on the batch and on the chunks, though not on the run nor on threads.

    Raises ValueError for a wrong name, shape or number of parts and for a function without a
    derivative, TypeError for a wrong dtype, before anything is computed.
    """
    row, used, xs, state, arrays = checked(
        cell, weights, xs, state, mask, reset, activation, recurrent_activation, None
    )
    who, H = row.name, len(used.recurrent_kernel)
    B, T, _ = xs.shape
    if row.step not in BACK:
        raise ValueError(
            f"{who}: the cell has a step of its own, expected that of a cell of refrnn.cells.CELLS,"
            " because the derivative of another is not known"
        )
    if (row.x_product, row.h_product) != (plain, plain):
        raise ValueError(
            f"{who}: the cell drops out, or has other products of its own, expected the plain"
            " product, because the derivative of another is not known"
        )
    if dys is None and dlast_output is None and dstate is None:
        raise ValueError(
            f"{who}: dys, dlast_output and dstate are all None, expected at least one, because"
            " without a gradient to begin with every gradient is zero"
        )
    done = backward(
        row,
        used,
        xs,
        state,
        _like(who, "dys", dys, (B, T, H), "outputs", xs.dtype),
        _like(who, "dlast_output", dlast_output, (B, H), "last output", xs.dtype),
        checks.state(row, who, dstate, B, H, xs.dtype, "dstate"),
        mask=arrays["mask"],
        reset=arrays["reset"],
        go_backwards=checks.flag(who, "go_backwards", go_backwards),
        zero_output_for_mask=checks.flag(who, "zero_output_for_mask", zero_output_for_mask),
        truncate=None if truncate is None else checks.count(who, "truncate", truncate),
        gates=checks.flag(who, "gates", gates),
    )
    no_bias = len(weights) == 2 or weights[2] is None
    return done._replace(dbias=None) if no_bias else done


def _like(
    who: str, what: str, given: Any, shape: tuple[int, ...], of: str, dtype: np.dtype[Any]
) -> Array:
    """The gradient of some outputs as an array of their shape; zeros when it is None."""
    if given is None:
        return np.zeros(shape, dtype)
    found = checks.array(who, what, given)
    if found.shape != shape:
        raise ValueError(
            f"{who}: {what} has shape {found.shape}, expected {shape}, that of the {of};"
            " it is never broadcast"
        )
    return checks.numbers(who, what, found, dtype)
