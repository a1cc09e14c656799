"""The derivatives of `gates.py`: a line for each of its lines, from the last to the first.

`dy` is the gradient of the loss by y. A function takes what its equation computed, the state
before it and the gradient of the state after it. It returns the gradient of everything the
equation names, in the tuple of its gates, and then that of what else went into it.

`act` is as in `gates.py`; `d_act(x, dy)` is the gradient of x where dy is that of act(x), and
`d_rec` the same of rec.
"""

from collections.abc import Callable

import numpy as np

from refrnn.activations import ACTIVATIONS, Activation
from refrnn.gates import (
    Array,
    Function,
    GRUGates,
    GRUPre,
    LSTMGates,
    LSTMPre,
    SimpleGates,
    SimplePre,
)

Pull = Callable[[Array, Array], Array]  # (x, dy) -> dx, for some y = f(x)


def pull(what: str, function: Activation) -> Pull:
    """How gradients go back through an activation: by its slope, or by its Jacobian.

    Raises ValueError, beginning with `what`, where the derivative is unknown or of a wrong shape.
    """
    derivative = function.derivative
    if derivative is None:
        raise ValueError(
            f"{what} {function.name!r} is a function whose derivative is not known, expected a name"
            " of refrnn.activations.ACTIVATIONS, or the function with its derivative,"
            f" refrnn.activations.Activation({function.name!r}, f, df), because gradients go"
            " through it"
        )
    rows = function.kind == "rows"
    if function.name not in ACTIVATIONS:
        found, shape = np.shape(derivative(np.zeros((2, 3)))), (2, 3, 3) if rows else (2, 3)
        if found != shape:
            raise ValueError(
                f"{what} {function.name!r}: its derivative turns shape (2, 3) into {found},"
                f" expected {shape}, because its kind is {function.kind!r}"
            )
    if rows:
        return lambda x, dy: np.sum(dy[..., :, None] * derivative(x), axis=-2)
    return lambda x, dy: dy * derivative(x)


def simple(q: SimpleGates, dh: Array, d_act: Pull) -> SimpleGates:
    dpre = SimplePre(d_act(q.pre.h, dh))  # h = act(pre.h)
    return SimpleGates(dh, dpre)


def lstm(
    q: LSTMGates, c: Array, dh: Array, dc: Array, act: Function, d_act: Pull, d_rec: Pull
) -> tuple[LSTMGates, Array]:
    """The gradients of the gates, and of the cell state before.

    dc  the gradient of the new cell state, but for what comes through h
    """
    do = dh * act(q.c)  # h = o * act(c)
    dc = dc + d_act(q.c, dh * q.o)
    df = dc * c  # c = f * c + i * g
    di = dc * q.g
    dg = dc * q.i
    dpre = LSTMPre(
        d_rec(q.pre.i, di),  # i = rec(pre.i)
        d_rec(q.pre.f, df),  # f = rec(pre.f)
        d_act(q.pre.g, dg),  # g = act(pre.g)
        d_rec(q.pre.o, do),  # o = rec(pre.o)
    )
    return LSTMGates(di, df, dg, do, dc, dh, dpre), dc * q.f


def gru(
    q: GRUGates, u_g: Array, h: Array, dh: Array, d_act: Pull, d_rec: Pull
) -> tuple[GRUGates, GRUPre, Array]:
    """The gradients of the gates, of u, and of the state before, but for what comes through u.

    u_g  the state's part of the candidate's sum. The gradient of x is that of the sums, dpre.
    """
    dz = dh * (h - q.g)  # h = z * h + (1 - z) * g
    dg = dh * (1 - q.z)
    dpre_g = d_act(q.pre.g, dg)  # g = act(pre_g)
    dr = dpre_g * u_g  # pre_g = x.g + r * u.g
    dpre_r = d_rec(q.pre.r, dr)  # r = rec(pre_r)
    dpre_z = d_rec(q.pre.z, dz)  # z = rec(pre_z)
    dpre = GRUPre(dpre_z, dpre_r, dpre_g)
    du = GRUPre(dpre_z, dpre_r, dpre_g * q.r)
    return GRUGates(dz, dr, dg, dh, dpre), du, dh * q.z


def gru_reset_before(
    q: GRUGates, d_product: Function, h: Array, dh: Array, d_act: Pull, d_rec: Pull
) -> tuple[GRUGates, Array]:
    """The gradients of the gates, and of the state before, but for what comes through u_z, u_r.

    d_product  the gradient of r * h, given that of the recurrent product
    """
    dz = dh * (h - q.g)  # h = z * h + (1 - z) * g
    dg = dh * (1 - q.z)
    dpre_g = d_act(q.pre.g, dg)  # g = act(pre_g)
    drh = d_product(dpre_g)  # pre_g = x.g + product(r * h)
    dr = drh * h
    dpre_r = d_rec(q.pre.r, dr)  # r = rec(pre_r)
    dpre_z = d_rec(q.pre.z, dz)  # z = rec(pre_z)
    dpre = GRUPre(dpre_z, dpre_r, dpre_g)
    return GRUGates(dz, dr, dg, dh, dpre), dh * q.z + drh * q.r
