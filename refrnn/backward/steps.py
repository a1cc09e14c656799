"""One step of time back: each step of `cells.py` taken backwards, products and biases included."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from refrnn import cells
from refrnn.backward import equations
from refrnn.backward.equations import Pull
from refrnn.cells import AnyGates, AnyState, Cell, LSTMState, State, Weights, dot
from refrnn.gates import Array, Function, GRUGates, GRUPre, LSTMGates, SimpleGates


class Way(NamedTuple):
    """What every step back of a cell needs.

    weights  as in the run
    W_T, U_T the kernels transposed, (G*H, F) and (G*H, H)
    act, d_act, d_rec
             as in `equations`
    """

    weights: Weights
    W_T: Array
    U_T: Array
    act: Function
    d_act: Pull
    d_rec: Pull


def way(cell: Cell, weights: Weights) -> Way:
    """The way back of a cell. Raises ValueError where an activation has no derivative."""
    return Way(
        weights,
        np.ascontiguousarray(weights.kernel.T),
        np.ascontiguousarray(weights.recurrent_kernel.T),
        cell.act.value,
        equations.pull(f"{cell.name}: activation", cell.act),
        equations.pull(f"{cell.name}: recurrent_activation", cell.rec),
    )


class Back(NamedTuple):
    """The gradients of all that went into a step; those of the weights are summed over its rows."""

    weights: Weights
    x: Array  # (B, F)
    state: AnyState  # before the step, each part (B, H)
    gates: AnyGates  # each (B, H)


def summed(a: Array, dz: Array) -> Array:
    """The gradient of W in z = a @ W: (K, N) of a (B, K) and dz (B, N), row 0 added first."""
    return dot(np.ascontiguousarray(a.T), dz)


def summed_bias(dz: Array) -> Array:
    """The gradient of b in z = a @ W + b, whose left factor is 1 in every row."""
    return dot(np.ones((1, len(dz)), dz.dtype), dz)[0]


def simple_back(way: Way, state: State, x: Array, q: SimpleGates, dstate: State) -> Back:
    """A SimpleRNN's step back; shapes as for `lstm_back`, with one gate."""
    dgates = equations.simple(q, dstate.h, way.d_act)
    dz = dgates.pre.h
    return Back(
        Weights(summed(x, dz), summed(state.h, dz), summed_bias(dz)),
        dot(dz, way.W_T),
        State(dot(dz, way.U_T)),
        dgates,
    )


def lstm_back(way: Way, state: LSTMState, x: Array, q: LSTMGates, dstate: LSTMState) -> Back:
    """An LSTM's step back.

    state   before the step: h (B, H), c (B, H)
    x       (B, F)
    q       what the step computed, each (B, H)
    dstate  the gradient of the state after it, its output's included
    """
    dgates, dc = equations.lstm(q, state.c, dstate.h, dstate.c, way.act, way.d_act, way.d_rec)
    dz = np.concatenate(dgates.pre, axis=-1)  # (B, 4H)
    return Back(
        Weights(summed(x, dz), summed(state.h, dz), summed_bias(dz)),
        dot(dz, way.W_T),
        LSTMState(dot(dz, way.U_T), dc),
        dgates,
    )


def gru_back(way: Way, state: State, x: Array, q: GRUGates, dstate: State) -> Back:
    """A GRU's (reset after) step back; as `lstm_back`, with 3 gates and two rows of bias."""
    _, U, b = way.weights
    H = len(U)
    u_g = dot(state.h, U[:, 2 * H :]) + b[1, 2 * H :]
    dgates, du, dh = equations.gru(q, u_g, state.h, dstate.h, way.d_act, way.d_rec)
    dx_parts = np.concatenate(dgates.pre, axis=-1)  # (B, 3H)
    dh_parts = np.concatenate(du, axis=-1)
    return Back(
        Weights(
            summed(x, dx_parts),
            summed(state.h, dh_parts),
            np.stack([summed_bias(dx_parts), summed_bias(dh_parts)]),
        ),
        dot(dx_parts, way.W_T),
        State(dh + dot(dh_parts, way.U_T)),
        dgates,
    )


def gru_reset_before_back(way: Way, state: State, x: Array, q: GRUGates, dstate: State) -> Back:
    """A GRU's (reset before) step back; as `lstm_back`, with 3 gates."""
    H = state.h.shape[1]

    def d_product(dy: Array) -> Array:
        return dot(dy, way.U_T[2 * H :])

    dgates, dh = equations.gru_reset_before(q, d_product, state.h, dstate.h, way.d_act, way.d_rec)
    dpre: GRUPre = dgates.pre
    dz = np.concatenate(dpre, axis=-1)  # (B, 3H)
    dz_zr, dz_g = np.ascontiguousarray(dz[:, : 2 * H]), dpre.g
    dU = np.concatenate([summed(state.h, dz_zr), summed(q.r * state.h, dz_g)], axis=1)
    return Back(
        Weights(summed(x, dz), dU, summed_bias(dz)),
        dot(dz, way.W_T),
        State(dh + dot(dz_zr, way.U_T[: 2 * H])),
        dgates,
    )


# the step of a cell -> the same step back: (way, state, x, gates, dstate) -> Back
BACK: dict[Callable[..., Any], Callable[..., Back]] = {
    cells.simple_step: simple_back,
    cells.lstm_step: lstm_back,
    cells.gru_step: gru_back,
    cells.gru_reset_before_step: gru_reset_before_back,
}
