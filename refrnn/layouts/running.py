"""run: weights of any layout along sequences, by the readable loop.

It computes what conversion must refuse, too: peepholes, clips, projections, input_forget.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from refrnn import checks, reference
from refrnn.activations import ACTIVATIONS
from refrnn.cells import CELLS, FURTHER, Cell, FurtherWeights, LSTMState, State, Weights
from refrnn.gates import Array
from refrnn.layouts.conversion import as_stored, read
from refrnn.layouts.equivalents import without_input_forget
from refrnn.layouts.fitting import biased
from refrnn.layouts.hub import Hub, Pass, row
from refrnn.layouts.states import given, taken


def run(
    arrays: Any,
    xs: Any,
    states: Any = None,
    cell: str | None = None,
    source: str | None = None,
    *,
    attributes: Mapping[str, Any] | None = None,
    mask: Any = None,
) -> tuple[Array, tuple[Array, ...]]:
    """The outputs of a library's weights, computed by refrnn in their dtype.

    arrays, cell, source, attributes
            as for `convert`
    xs      (B, T, F), whatever the library's own order
    states  as the library has them, for `convert_state`; None for zeros
    mask    (B, T) bool: as in ONNX and in PyTorch's packed sequences, where it is False the state
            is held and the output is zero, and the backward direction begins at the last True

    Returns the outputs (B, T, D*H) of the last layer, forwards beside backwards, both in the order
    of time, and the last states in the library's order and shapes. For one direction, chunks that
    hand over the states give the bits of the whole.

    Raises as `convert` does, and ValueError for inputs and states of other shapes.
    """
    stored = as_stored(arrays, cell, source, attributes)
    layout, hub = row("source", stored.layout), read(stored)
    who = f"{stored.layout} {stored.cell}"
    ys = checks.sequence(who, xs, hub.layers[0][0].sizes.features, hub.dtype)
    B, T, _ = ys.shape
    live = checks.mask(who, mask, B, T)
    directions = len(hub.layers[0])
    given_states = (
        [None] * len(hub.passes)
        if states is None
        else taken(layout, hub.cell, states, directions, len(hub.layers))
    )
    plain = without_input_forget(hub) if hub.function.input_forget else hub
    left, after = iter(given_states), []
    for layer in plain.layers:
        outputs = []
        for direction, one in enumerate(layer):
            math, weights = cell_of(plain, one)
            state = _state(who, math, next(left), B, one, hub.dtype)
            y, state = reference.run(
                math,
                weights,
                ys,
                state,
                mask=live,
                go_backwards=direction == 1,
                zero_output_for_mask=True,
            )
            outputs.append(y[:, ::-1] if direction else y)
            after.append(state._asdict())
        ys = np.concatenate(outputs, axis=-1)
    return ys, given(layout, hub.cell, after, directions)


def cell_of(hub: Hub, one: Pass) -> tuple[Cell, Any]:
    """The cell that computes a pass, and its weights."""
    function, gates = hub.function, CELLS[hub.cell].gates
    blocks = biased(one, hub.cell)
    if function.forget_bias:
        blocks["wf"] = blocks["wf"] + hub.dtype.type(function.forget_bias)

    def row_of(part: str) -> Array:
        return np.concatenate([blocks[part + gate] for gate in gates], axis=-1)

    W, U, w, u = map(row_of, "WUwu")
    bias = np.stack([w, u]) if hub.cell == "gru" else w + u
    peephole = "pi" in blocks
    bounds = (function.clip, function.cell_clip)
    if hub.cell != "lstm" and function.clip < np.inf:
        raise ValueError(f"{hub.cell}: the sums are clipped, expected no clip but for LSTM")
    if "R" not in blocks and not peephole and bounds == (np.inf, np.inf):
        math = CELLS[hub.cell]
        weights: Any = Weights(W, U, bias)
    else:
        math = FURTHER["lstm_projected" if "R" in blocks else "lstm_peephole"]
        zero = np.zeros_like(blocks["wi"])
        peepholes = np.stack([blocks.get(name, zero) for name in ("pi", "pf", "po")])
        weights = FurtherWeights(W, U, bias, peepholes, blocks.get("R"), *bounds)
    return math._replace(act=ACTIVATIONS[function.act], rec=ACTIVATIONS[function.rec]), weights


def _state(
    who: str, math: Cell, parts: dict[str, Array] | None, rows: int, one: Pass, dtype: Any
) -> State | LSTMState:
    widths = {"h": one.sizes.width, "c": one.sizes.units}
    made = {}
    for name in math.State._fields:
        array = np.zeros((rows, widths[name]), dtype) if parts is None else parts[name]
        if array.shape != (rows, widths[name]):
            raise ValueError(
                f"{who}: state {name} of a layer is {array.shape}, expected"
                f" {(rows, widths[name])}: a row for each row of the input, a column for each unit"
            )
        made[name] = checks.numbers(who, f"state {name}", array, dtype)
    return math.State(**made)
