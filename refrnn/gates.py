"""The equations of SimpleRNN, LSTM and GRU, each written once, every term by name.

A function takes the pre-activations of a step (the sums before the nonlinearity) and the state
before it, and returns all that it computed, each (B, H): the gates, the new state, and `pre`, the
sums that went into the nonlinearities. That tuple is what `refrnn.trace` shows.

`act` squashes the candidate and the output ("activation" in Keras), `rec` the gates proper
("recurrent_activation"). A variant of a cell is another function, never a switch inside one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from numpy.typing import NDArray

Array = NDArray[Any]
Function = Callable[[Array], Array]


class SimplePre(NamedTuple):
    h: Array


class SimpleGates(NamedTuple):
    h: Array  # new hidden state, and the output
    pre: SimplePre


def simple(pre: SimplePre, act: Function) -> SimpleGates:
    """Elman (1990)."""
    return SimpleGates(act(pre.h), pre)


class LSTMPre(NamedTuple):
    i: Array
    f: Array
    g: Array
    o: Array


class LSTMGates(NamedTuple):
    i: Array  # input gate
    f: Array  # forget gate
    g: Array  # candidate ("c" in Keras's weights)
    o: Array  # output gate
    c: Array  # new cell state
    h: Array  # new hidden state, and the output
    pre: LSTMPre


def lstm(pre: LSTMPre, c: Array, act: Function, rec: Function) -> LSTMGates:
    """Hochreiter & Schmidhuber (1997), with the forget gate of Gers et al. (2000)."""
    i = rec(pre.i)
    f = rec(pre.f)
    g = act(pre.g)
    o = rec(pre.o)
    c = f * c + i * g
    h = o * act(c)
    return LSTMGates(i, f, g, o, c, h, pre)


class LSTMPeephole(NamedTuple):
    i: Array  # (H,), as the others
    f: Array
    o: Array


def lstm_peephole(
    pre: LSTMPre,
    peephole: LSTMPeephole,
    c: Array,
    clip: Function,
    clip_cell: Function,
    act: Function,
    rec: Function,
) -> LSTMGates:
    """Gers & Schmidhuber (2000): the gates see the cell state; with the clips of ONNX and TF1.

    peephole   a weight for each unit, by gate; zeros for none
    clip       applied to each of the four sums ("clip" of ONNX Runtime and OpenVINO)
    clip_cell  applied to the new cell state, before o sees it ("cell_clip" of TF1 and TFLite)
    """
    pre_i = clip(pre.i + peephole.i * c)
    pre_f = clip(pre.f + peephole.f * c)
    pre_g = clip(pre.g)
    i = rec(pre_i)
    f = rec(pre_f)
    g = act(pre_g)
    c = clip_cell(f * c + i * g)
    pre_o = clip(pre.o + peephole.o * c)
    o = rec(pre_o)
    h = o * act(c)
    return LSTMGates(i, f, g, o, c, h, LSTMPre(pre_i, pre_f, pre_g, pre_o))


class ProjectedLSTMGates(NamedTuple):
    i: Array
    f: Array
    g: Array
    o: Array
    c: Array
    m: Array  # o * act(c), what is projected
    h: Array  # new hidden state, and the output: (B, P)
    pre: LSTMPre


def lstm_projected(q: LSTMGates, product: Function) -> ProjectedLSTMGates:
    """Sak et al. (2014): the output of an LSTM, projected, is its hidden state.

    q        the gates of the LSTM, with or without peepholes
    product  the product with the projection, m -> m @ R
    """
    return ProjectedLSTMGates(q.i, q.f, q.g, q.o, q.c, q.h, product(q.h), q.pre)


class GRUPre(NamedTuple):
    z: Array
    r: Array
    g: Array


class GRUGates(NamedTuple):
    z: Array  # update gate: how much of the old state is kept
    r: Array  # reset gate
    g: Array  # candidate ("h" in Keras's weights)
    h: Array  # new hidden state, and the output
    pre: GRUPre


def gru(x: GRUPre, u: GRUPre, h: Array, act: Function, rec: Function) -> GRUGates:
    """Cho et al. (2014) with the reset gate after the recurrent product, as cuDNN has it.

    x   the input's part of each sum, x @ W + its bias
    u   the state's part, h @ U + its bias; the reset gate scales that of the candidate
    """
    pre_z = x.z + u.z
    pre_r = x.r + u.r
    z = rec(pre_z)
    r = rec(pre_r)
    pre_g = x.g + r * u.g
    g = act(pre_g)
    h = z * h + (1 - z) * g
    return GRUGates(z, r, g, h, GRUPre(pre_z, pre_r, pre_g))


def gru_reset_before(
    x: GRUPre, u_z: Array, u_r: Array, product: Function, h: Array, act: Function, rec: Function
) -> GRUGates:
    """Cho et al. (2014) as published: the reset gate scales the state before the product.

    x         the input's part of each sum, x @ W + bias
    u_z, u_r  the state's part of the two gates, h @ U
    product   the recurrent product of the candidate, r * h -> (r * h) @ U
    """
    pre_z = x.z + u_z
    pre_r = x.r + u_r
    z = rec(pre_z)
    r = rec(pre_r)
    pre_g = x.g + product(r * h)
    g = act(pre_g)
    h = z * h + (1 - z) * g
    return GRUGates(z, r, g, h, GRUPre(pre_z, pre_r, pre_g))
