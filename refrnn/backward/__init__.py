"""Gradients for users: `refrnn.gradients` on plain arrays, checked at the border.

`recorder` is for layers, whose arrays are checked already.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from refrnn import checks, engines, kernels
from refrnn.backward.loop import Back, Gradients, record
from refrnn.backward.steps import BACK
from refrnn.cells import AnyState, Cell, Weights, plain
from refrnn.engines import checked
from refrnn.gates import Array

__all__ = ["Back", "Gradients", "Recorder", "gradients", "recorder"]

NO_GATES = "the compiled way back does not show the gradients of gates"

# runs forwards and keeps the way back: (xs, state, **options of reference.run) -> (ys, state, back)
Recorder = Callable[..., tuple[Array, AnyState, Back]]


def recorder(who: str, engine: str, cell: Cell, weights: Weights) -> Recorder:
    """What runs `cell` with `weights` and knows the way back: `loop.record` on an engine.

    The arrays that it is given and the outputs that it returns must not be written to before the
    way back is gone. The engine is chosen as by `refrnn.gradients`. Raises ValueError where an
    activation has no derivative.
    """
    if engines.chosen(who, engine, cell, weights.kernel.dtype, back=True) == "numba":
        packed = engines.compiled(engine, lambda: kernels.recorder(cell, weights))
        if packed is not None:
            return partial(_record, who, packed)
    return partial(record, cell, weights)


def _record(
    who: str, packed: kernels.Recorder, xs: Array, state: AnyState, *args: Any, **options: Any
) -> tuple[Array, AnyState, Back]:
    """`loop.record` by the kernels, but for the gradients of gates."""
    ys, after, walk = packed.record(xs, state, *args, **options)

    def back(
        dys: Array | None,
        dlast_output: Array | None,
        dstate: AnyState | None,
        truncate: int | None = None,
        gates: bool = False,
        inputs: bool = True,
    ) -> Gradients:
        if gates:
            raise ValueError(f"{who}: gates is True, expected False, because {NO_GATES}")
        return Gradients(*walk(dys, dlast_output, dstate, truncate, inputs))

    return ys, after, back


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
    engine: str = "auto",
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
    gates         return `dtrace` too, which is on the NumPy engine alone
    engine        as for `run`; numba has kernels for the gradients of "lstm", "gru" and "simple"

    What is None counts as zeros, but one of the three gradients must be given. The forward pass is
    that of the engine, and everything has the dtype of the weights. Where an activation has a
    corner its one-sided derivative is taken.

    Returns `refrnn.backward.Gradients`. The dstate and dlast_output of a chunk, given to the chunk
    before it, make the gradients those of the whole sequence: dxs, dstate, dlast_output and dtrace
    in every bit, and they depend on their own row alone. The gradients of the weights are sums
    over rows and steps: how they round depends on the batch and on the chunks, though not on the
    run nor on threads. On the NumPy engine they are over the rows of a step (row 0 first) and then
    over the steps (the last processed first).

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
    gates = checks.flag(who, "gates", gates)
    if gates and checks.engine(who, engine) == "numba":
        raise ValueError(
            f"{who}: engine is 'numba', expected 'auto' or 'numpy' with gates=True, because"
            f" {NO_GATES}"
        )
    recording = recorder(who, "numpy" if gates else engine, row, used)
    given = (
        _like(who, "dys", dys, (B, T, H), "outputs", xs.dtype),
        _like(who, "dlast_output", dlast_output, (B, H), "last output", xs.dtype),
        checks.state(row, who, dstate, B, H, xs.dtype, "dstate"),
    )
    how = {
        "go_backwards": checks.flag(who, "go_backwards", go_backwards),
        "zero_output_for_mask": checks.flag(who, "zero_output_for_mask", zero_output_for_mask),
    }
    cut = None if truncate is None else checks.count(who, "truncate", truncate)
    *_, back = recording(xs, state, arrays["mask"], arrays["reset"], **how)
    done = back(*given, cut, gates)
    no_bias = len(weights) == 2 or weights[2] is None
    return done._replace(dbias=None) if no_bias else done


def _like(
    who: str, what: str, given: Any, shape: tuple[int, ...], of: str, dtype: np.dtype[Any]
) -> Array | None:
    """The gradient of some outputs as an array of their shape; None as it is."""
    if given is None:
        return None
    found = checks.array(who, what, given)
    if found.shape != shape:
        raise ValueError(
            f"{who}: {what} has shape {found.shape}, expected {shape}, that of the {of};"
            " it is never broadcast"
        )
    return checks.numbers(who, what, found, dtype)
