"""What a cell is: its weights, its state, one pure step of time, and the table of cells.

Letters, here and everywhere: B batch rows, T time steps, F input features, H units, G gates.
Weights are in the Keras layout, the gates side by side along the last axis.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from refrnn import activations, gates
from refrnn.activations import Activation
from refrnn.gates import Array


class Weights(NamedTuple):
    """The weights of one recurrent layer, as `keras_layer.get_weights()` lists them.

    kernel            (F, G*H)
    recurrent_kernel  (H, G*H)
    bias              (G*H,); for "gru" (2, 3H), a row for the input and a row for the state;
                      None for a layer without bias
    """

    kernel: Array
    recurrent_kernel: Array
    bias: Any = None


class FurtherWeights(NamedTuple):
    """The weights of the LSTMs that are not Keras's.

    kernel, recurrent_kernel, bias  (F, 4H), (P, 4H), (4H,), with P = H where nothing is projected
    peephole                        (3, H): rows i, f, o; zeros where there is none
    projection                      (H, P), of "lstm_projected" alone
    clip, cell_clip                 bounds of the sums and of the cell state; infinity for none
    """

    kernel: Array
    recurrent_kernel: Array
    bias: Array
    peephole: Array
    projection: Any = None
    clip: float = np.inf
    cell_clip: float = np.inf


class State(NamedTuple):
    """The state of a SimpleRNN or GRU: h (B, H)."""

    h: Array


class LSTMState(NamedTuple):
    """The state of an LSTM: h (B, H) and c (B, H); only names keep the two apart."""

    h: Array
    c: Array


AnyState = State | LSTMState
AnyGates = gates.SimpleGates | gates.LSTMGates | gates.GRUGates | gates.ProjectedLSTMGates


def dot(a: Array, b: Array) -> Array:
    """a @ b for a (..., K) and b (K, N), each element summed over k in one order for all shapes.

    A BLAS product sums in an order that depends on the number of rows and of threads. Here the
    result for a row depends, in every bit, on that row and on b alone: k = 0, 1, 2, ... one after
    another. Both must be C-contiguous along the last axis. float16 and bfloat16 are summed in
    float32 and rounded once.
    """
    if b.shape[1] == 1:  # einsum would add along k in pieces of its buffer, which rows share
        return dot(a, np.repeat(b, 2, axis=1))[..., :1]
    if a.dtype.itemsize == 2:
        wide = np.einsum("...k,kn->...n", a.astype(np.float32), b.astype(np.float32))
        return wide.astype(a.dtype)
    return np.einsum("...k,kn->...n", a, b)


Product = Callable[..., Array]  # (a, b, gates) -> a @ b, b the kernel's columns of these gates
ALL = slice(None)


def plain(a: Array, b: Array, gates: slice = ALL) -> Array:
    """The product of every cell without dropout."""
    return dot(a, b)


def rounded(rounding: Callable[[Array], Array]) -> Product:
    """A product whose factors are both rounded first, to one of `refrnn.formats`."""

    def product(a: Array, b: Array, gates: slice = ALL) -> Array:
        return dot(rounding(a), rounding(b))

    return product


def dropped(masks: Sequence[Array]) -> Product:
    """A product whose left factor loses entries: by one mask for all gates, or one for each.

    masks  each of the shape of the left factor, scaled up by 1 / (1 - rate) where it is not 0
    """

    def product(a: Array, b: Array, gates: slice = ALL) -> Array:
        if len(masks) == 1:
            return dot(a * masks[0], b)
        chosen = masks[gates]
        blocks = np.split(b, len(chosen), axis=1)
        return np.concatenate(
            [dot(a * m, block) for m, block in zip(chosen, blocks, strict=True)], axis=-1
        )

    return product


def simple_step(
    cell: "Cell", weights: Weights, state: State, x: Array
) -> tuple[State, gates.SimpleGates]:
    """Advance a SimpleRNN by one step; shapes as for `lstm_step`, with one gate."""
    W, U, b = weights
    q = gates.simple(
        gates.SimplePre(cell.x_product(x, W) + cell.h_product(state.h, U) + b), cell.act.value
    )
    return State(q.h), q


def lstm_step(
    cell: "Cell", weights: Weights, state: LSTMState, x: Array
) -> tuple[LSTMState, gates.LSTMGates]:
    """Advance an LSTM by one step.

    weights  kernel (F, 4H), recurrent_kernel (H, 4H), bias (4H,)
    state    h (B, H), c (B, H)
    x        (B, F)

    Returns the new state and every gate, each (B, H). Writes to none of its arguments.
    """
    W, U, b = weights
    z = cell.x_product(x, W) + cell.h_product(state.h, U) + b  # (B, 4H)
    q = gates.lstm(gates.LSTMPre(*np.split(z, 4, axis=-1)), state.c, cell.act.value, cell.rec.value)
    return LSTMState(q.h, q.c), q


def _bounded(bound: float) -> gates.Function:
    return lambda x: np.clip(x, -bound, bound)


def lstm_peephole_step(
    cell: "Cell", weights: FurtherWeights, state: LSTMState, x: Array
) -> tuple[LSTMState, gates.LSTMGates]:
    """Advance an LSTM with peepholes and clips by one step; shapes as for `lstm_step`."""
    z = cell.x_product(x, weights.kernel) + cell.h_product(state.h, weights.recurrent_kernel)
    q = gates.lstm_peephole(
        gates.LSTMPre(*np.split(z + weights.bias, 4, axis=-1)),
        gates.LSTMPeephole(*weights.peephole),
        state.c,
        _bounded(weights.clip),
        _bounded(weights.cell_clip),
        cell.act.value,
        cell.rec.value,
    )
    return LSTMState(q.h, q.c), q


def lstm_projected_step(
    cell: "Cell", weights: FurtherWeights, state: LSTMState, x: Array
) -> tuple[LSTMState, gates.ProjectedLSTMGates]:
    """Advance an LSTM whose output is projected by one step; the state's h is (B, P)."""
    _, inner = lstm_peephole_step(cell, weights, state, x)
    q = gates.lstm_projected(inner, lambda m: dot(m, weights.projection))
    return LSTMState(q.h, q.c), q


def gru_step(
    cell: "Cell", weights: Weights, state: State, x: Array
) -> tuple[State, gates.GRUGates]:
    """Advance a GRU (reset after) by one step; as `lstm_step`, with 3 gates and bias (2, 3H)."""
    W, U, b = weights
    b_x, b_h = b
    x_parts = np.split(cell.x_product(x, W) + b_x, 3, axis=-1)
    h_parts = np.split(cell.h_product(state.h, U) + b_h, 3, axis=-1)
    q = gates.gru(
        gates.GRUPre(*x_parts), gates.GRUPre(*h_parts), state.h, cell.act.value, cell.rec.value
    )
    return State(q.h), q


def gru_reset_before_step(
    cell: "Cell", weights: Weights, state: State, x: Array
) -> tuple[State, gates.GRUGates]:
    """Advance a GRU (reset before) by one step; as `lstm_step`, with 3 gates and bias (3H,)."""
    W, U, b = weights
    H = len(U)
    x_parts = gates.GRUPre(*np.split(cell.x_product(x, W) + b, 3, axis=-1))
    u_z, u_r = np.split(cell.h_product(state.h, U[:, : 2 * H], slice(0, 2)), 2, axis=-1)

    def product(rh: Array) -> Array:
        return cell.h_product(rh, U[:, 2 * H :], slice(2, 3))

    q = gates.gru_reset_before(x_parts, u_z, u_r, product, state.h, cell.act.value, cell.rec.value)
    return State(q.h), q


class Cell(NamedTuple):
    """One row of the table of cells; `_replace` gives it other activations.

    name       what `refrnn.run` calls it
    gates      a letter for each block of the weights, in the Keras order
    bias_rows  2 where the input and the state have a bias each
    State      the tuple its state is
    step       (cell, weights, state, x) -> (state, gates)
    act, rec   activation and recurrent activation (SimpleRNN has only the first)
    x_product, h_product
               how the input and the state are multiplied by their kernels: `dropped` in training
    """

    name: str
    gates: str
    bias_rows: int
    State: type[AnyState]
    step: Callable[..., tuple[AnyState, AnyGates]]
    act: Activation = activations.ACTIVATIONS["tanh"]
    rec: Activation = activations.ACTIVATIONS["sigmoid"]
    x_product: Product = plain
    h_product: Product = plain

    def shapes(self, features: int, units: int) -> tuple[tuple[int, ...], ...]:
        """The shapes of kernel, recurrent_kernel and bias for F features and H units."""
        wide = len(self.gates) * units
        return (features, wide), (units, wide), (2, wide) if self.bias_rows == 2 else (wide,)

    def zeros(self, batch: int, units: int, dtype: Any) -> AnyState:
        """The state before anything was seen."""
        return self.State(*(np.zeros((batch, units), dtype) for _ in self.State._fields))


CELLS: dict[str, Cell] = {
    cell.name: cell
    for cell in (
        #     name               gates  bias rows
        Cell("simple",           "h",    1, State,     simple_step),
        Cell("gru",              "zrg",  2, State,     gru_step),
        Cell("gru_reset_before", "zrg",  1, State,     gru_reset_before_step),
        Cell("lstm",             "ifgo", 1, LSTMState, lstm_step),
    )
}  # fmt: skip

# Cells that Keras does not have: they take FurtherWeights, and only the readable loop runs them.
FURTHER: dict[str, Cell] = {
    cell.name: cell
    for cell in (
        Cell("lstm_peephole",  "ifgo", 1, LSTMState, lstm_peephole_step),
        Cell("lstm_projected", "ifgo", 1, LSTMState, lstm_projected_step),
    )
}  # fmt: skip
