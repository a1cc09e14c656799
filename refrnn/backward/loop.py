"""The loop backwards: back-propagation through time, with the masks and resets of `reference`.

- A masked step computed nothing that counts: its row hands the state's gradient on, and the
  output's to the step whose output it repeated. Not even a NaN gets out of it.
- Nothing goes back across a reset.
- The gradients of the weights are sums over the rows of a step, row 0 first, and then over the
  steps, the last one processed first.

Nothing is checked here: `refrnn.gradients` does that at the border.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from refrnn import reference
from refrnn.backward.steps import BACK, way
from refrnn.cells import AnyGates, AnyState, Cell, Weights
from refrnn.gates import Array


class Gradients(NamedTuple):
    """The gradients of a loss, each named after what it is the gradient of.

    dkernel            (F, G*H)
    drecurrent_kernel  (H, G*H)
    dbias              as the bias; None for a layer without one
    dxs                (B, T, F), steps in the order of xs; zeros where the mask is False
    dstate             of the initial state, each part (B, H)
    dlast_output       (B, H), of `last_output`, what a masked first step repeats
    dtrace             on request: of every gate and sum, each (B, T, H), in processing order;
                       zeros where the mask is False
    """

    dkernel: Array
    drecurrent_kernel: Array
    dbias: Array | None
    dxs: Any
    dstate: AnyState
    dlast_output: Array
    dtrace: Any = None


Back = Callable[..., Gradients]  # (dys, dlast_output, dstate, truncate=None, gates=False)


class Kept(NamedTuple):
    """What a step leaves for the way back."""

    t: int  # its index in xs
    before: AnyState
    gates: AnyGates


def only(where: Array, arrays: Any) -> Any:
    """A state or gates (B, H), with zeros in the rows where `where` (B, 1) is False."""
    return reference.mapped(arrays, lambda part: np.where(where, part, 0))


def kept(
    cell: Cell,
    weights: Weights,
    xs: Array,
    state: AnyState,
    ys: Array,
    reset: Array | None,
    go_backwards: bool,
    **options: Any,
) -> tuple[list[Kept], AnyState]:
    """The steps of `reference.steps`, in processing order, and the state after the last.

    ys  (B, T, H), where their outputs are written
    """
    time = range(xs.shape[1])
    run = reference.steps(
        cell, weights, xs, state, reset=reset, go_backwards=go_backwards, **options
    )
    seen: list[Kept] = []
    for t, (output, after, gates) in zip(
        reversed(time) if go_backwards else time, run, strict=True
    ):
        before = state if reset is None else only(~reset[:, t, None], state)
        ys[:, len(seen)] = output
        seen.append(Kept(t, before, gates))
        state = after
    return seen, state


def record(
    cell: Cell,
    weights: Weights,
    xs: Array,
    state: AnyState,
    mask: Array | None = None,
    reset: Array | None = None,
    go_backwards: bool = False,
    zero_output_for_mask: bool = False,
    last_output: Array | None = None,
) -> tuple[Array, AnyState, Back]:
    """`reference.run`, and the way back: outputs (B, T, H), the last state, and the function

        back(dys, dlast_output, dstate, truncate=None, gates=False, inputs=True) -> Gradients

    with arguments as for `refrnn.gradients`, checked; without `inputs` dxs is None:

    dys           (B, T, H), of the outputs, in processing order; None, as of the others, for zeros
    dlast_output  (B, H), of the last output, on top of dys[:, -1]
    dstate        of the state after the last step, each part (B, H)

    Raises ValueError where an activation has no derivative.
    """
    step_back, made = BACK[cell.step], way(cell, weights)
    ys = np.empty((*xs.shape[:2], state.h.shape[1]), state.h.dtype)
    with reference.QUIET():
        seen, after = kept(
            cell, weights, xs, state, ys, reset, go_backwards,
            mask=mask, zero_output_for_mask=zero_output_for_mask, last_output=last_output,
        )  # fmt: skip

    def back(
        dys: Array | None,
        dlast_output: Array | None,
        dstate: AnyState | None,
        truncate: int | None = None,
        gates: bool = False,
        inputs: bool = True,
    ) -> Gradients:
        zeros = cell.State(*map(np.zeros_like, state))
        dweights, dxs, dtrace = Weights(*map(np.zeros_like, weights)), np.zeros_like(xs), []
        doutput = zeros.h if dlast_output is None else dlast_output.copy()
        dstate = zeros if dstate is None else dstate
        with reference.QUIET():
            for n, (t, before, q) in reversed(list(enumerate(seen))):
                x, doutput = xs[:, t], doutput if dys is None else doutput + dys[:, n]
                dnew = dstate._replace(h=dstate.h + doutput)
                if mask is None:
                    step = step_back(made, before, x, q, dnew)
                    dstate, doutput = step.state, zeros.h
                else:
                    live = mask[:, t, None]  # (B, 1)
                    step = step_back(
                        made,
                        only(live, before),
                        np.where(live, x, 0),
                        only(live, q),
                        only(live, dnew),
                    )
                    dstate = type(dstate)(
                        *(np.where(live, d, on) for d, on in zip(step.state, dstate, strict=True))
                    )
                    doutput = np.where(live | zero_output_for_mask, 0, doutput)
                if reset is not None:
                    remembered = ~reset[:, t, None]  # (B, 1)
                    dstate, doutput = only(remembered, dstate), np.where(remembered, doutput, 0)
                if truncate is not None and n > 0 and n % truncate == 0:
                    dstate, doutput = zeros, zeros.h
                dweights = Weights(*(a + b for a, b in zip(dweights, step.weights, strict=True)))
                dxs[:, t] = step.x
                dtrace.append(step.gates)
        shown = None
        if gates and seen:
            shown = reference.stacked(dtrace[::-1])
        elif gates:  # no steps: the names and shapes of a trace
            shown = reference.trace(cell, weights, xs, state)
        return Gradients(*dweights, dxs if inputs else None, dstate, doutput, shown)

    return ys, after, back
