"""The bare math for users: `run` and `trace` on plain arrays, checked at the border.

An engine is a function with the signature of `reference.run`. There is one so far: "numpy", the
readable loop, for every floating dtype.
"""

from typing import Any

from refrnn import checks, reference
from refrnn.cells import AnyGates, AnyState, Cell, Weights
from refrnn.gates import Array

ENGINES = {"numpy": reference.run}


def _checked(
    cell: str | Cell,
    weights: Weights,
    xs: Any,
    state: Any,
    mask: Any,
    reset: Any,
    activation: Any,
    recurrent_activation: Any,
    last_output: Any,
) -> tuple[Cell, Weights, Array, AnyState, dict[str, Array | None]]:
    row = checks.cell(cell)
    if activation is not None:
        row = row._replace(act=checks.activation(row.name, "activation", activation))
    if recurrent_activation is not None:
        if row.name == "simple":
            raise ValueError(
                f"simple: recurrent_activation is {recurrent_activation!r}, expected None, because"
                " a SimpleRNN has no gates"
            )
        found = checks.activation(row.name, "recurrent_activation", recurrent_activation)
        row = row._replace(rec=found)
    weights = checks.weights(row, weights)
    F, H = len(weights.kernel), len(weights.recurrent_kernel)
    dtype = weights.kernel.dtype
    xs = checks.sequence(row.name, xs, F, dtype)
    B, T, _ = xs.shape
    if last_output is not None:
        last_output = checks.array(row.name, "last_output", last_output)
        if last_output.shape != (B, H):
            raise ValueError(
                f"{row.name}: last_output has shape {last_output.shape}, expected ({B}, {H}): a row"
                " for each row of the input, a column for each unit"
            )
        last_output = checks.numbers(row.name, "last_output", last_output, dtype)
    arrays = {
        "mask": checks.mask(row.name, mask, B, T),
        "reset": checks.mask(row.name, reset, B, T, "reset"),
        "last_output": last_output,
    }
    return row, weights, xs, checks.state(row, row.name, state, B, H, dtype), arrays


def run(
    cell: str | Cell,
    weights: Weights,
    xs: Any,
    state: Any = None,
    *,
    mask: Any = None,
    reset: Any = None,
    activation: Any = None,
    recurrent_activation: Any = None,
    go_backwards: bool = False,
    zero_output_for_mask: bool = False,
    last_output: Any = None,
    engine: str = "auto",
) -> tuple[Array, AnyState]:
    """Run a cell along sequences, by the rule of `keras.layers.RNN`; pure: state in, state out.

    cell         "lstm", "gru", "gru_reset_before" or "simple"
    weights      `refrnn.Weights` in the Keras layout; its dtype is the dtype of the computation
    xs           (B, T, F); B and T may be 0
    state        each part (B, H), by name or in order (h, c); None for zeros
    mask         (B, T); where False the row keeps its state and repeats its last output
    reset        (B, T); where True the row forgets, state and last output, before that step
    activation, recurrent_activation
                 names of `refrnn.activations.ACTIVATIONS` or functions; None for tanh and sigmoid
    go_backwards walk from the last step to the first; outputs stay in processing order
    zero_output_for_mask
                 masked steps emit zeros instead of the last output
    last_output  (B, H), what the last chunk emitted last; only a masked first step shows it
    engine       "auto" or "numpy"

    Returns the outputs (B, T, H) and the state after the last step, in the dtype of the weights.
    A row's numbers depend, in every bit, on that row alone: not on the rows beside it, nor on how
    its sequence is cut into calls that hand over the state (and, with a mask, the last output).

    Raises ValueError for a wrong name, shape or number of parts, TypeError for a wrong dtype,
    before anything is computed.
    """
    row, weights, xs, state, arrays = _checked(
        cell, weights, xs, state, mask, reset, activation, recurrent_activation, last_output
    )
    return ENGINES[checks.engine(row.name, engine)](
        row,
        weights,
        xs,
        state,
        go_backwards=checks.flag(row.name, "go_backwards", go_backwards),
        zero_output_for_mask=checks.flag(row.name, "zero_output_for_mask", zero_output_for_mask),
        **arrays,
    )


def trace(
    cell: str | Cell,
    weights: Weights,
    xs: Any,
    state: Any = None,
    *,
    mask: Any = None,
    reset: Any = None,
    activation: Any = None,
    recurrent_activation: Any = None,
    go_backwards: bool = False,
) -> AnyGates:
    """Every gate of every step by name, each (B, T, H); arguments and errors as for `run`.

    Returns for "lstm" .i .f .g .o .c .h, for the GRUs .z .r .g .h, for "simple" .h, and in `.pre`
    the sums before the activations under the names of their gates. Gates are shown as computed,
    on masked steps too; .h and .c are the state after the step, held where the mask is False.
    """
    row, weights, xs, state, arrays = _checked(
        cell, weights, xs, state, mask, reset, activation, recurrent_activation, None
    )
    backwards = checks.flag(row.name, "go_backwards", go_backwards)
    return reference.trace(row, weights, xs, state, go_backwards=backwards, **arrays)
