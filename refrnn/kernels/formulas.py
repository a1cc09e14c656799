"""The cells' formulas on vectors of units, each written once; `refrnn.gates` has them for arrays.

x, u and b are the sums of the input, the sums of the state and the biases, in the order of the
gates. A formula may be in two stages, with an array between them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from refrnn.kernels import plan
from refrnn.kernels.vectors import Ratio, Vector, reciprocals, sigmoid, tanh, tanh_and_slope

Vectors = list[Vector]


def simple(x: Vectors, u: Vectors, b: Vectors) -> Vectors:
    return [tanh(x[0] + u[0] + b[0]).value]


def simple_kept(x: Vectors, u: Vectors, b: Vectors) -> Vectors:
    h, slope = tanh_and_slope(x[0] + u[0] + b[0])
    return [h.value, slope.value]


def lstm(x: Vectors, u: Vectors, b: Vectors, c: Vector) -> Vectors:
    i, f, g, o = (x[k] + u[k] + b[k] for k in range(4))
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(c)
    return [h.value, c]


def lstm_kept(x: Vectors, u: Vectors, b: Vectors, c: Vector) -> Vectors:
    pre_i, pre_f, pre_g, pre_o = (x[k] + u[k] + b[k] for k in range(4))
    i, f, o = sigmoid(pre_i), sigmoid(pre_f), sigmoid(pre_o)
    g, d_g = tanh_and_slope(pre_g)
    new = f * c + i * g
    squashed, d_squashed = tanh_and_slope(new)
    h = o * squashed
    by = reciprocals([i.bottom, f.bottom, g.bottom, o.bottom, squashed.bottom])
    return [
        h.value,
        new,
        g.top * by[2] * slope(i, by[0]),  # of pre_i, times dc
        c * slope(f, by[1]),  # of pre_f, times dc
        i.top * by[0] * (d_g.top * by[2] * by[2]),  # of pre_g, times dc
        squashed.top * by[4] * slope(o, by[3]),  # of pre_o, times dh
        o.top * by[3] * (d_squashed.top * by[4] * by[4]),  # of the new c, times dh
        f.top * by[1],  # of c, times dc
    ]


def gru(x: Vectors, u: Vectors, b: Vectors, h: Vector) -> Vectors:
    x_z, x_r, x_g = (x[k] + b[k] for k in range(3))
    u_z, u_r, u_g = (u[k] + b[3 + k] for k in range(3))
    z = sigmoid(x_z + u_z)
    r = sigmoid(x_r + u_r)
    g = tanh(x_g + (r * u_g).value)
    return [z * h + (1 - z) * g]


def gru_kept(x: Vectors, u: Vectors, b: Vectors, h: Vector) -> Vectors:
    x_z, x_r, x_g = (x[k] + b[k] for k in range(3))
    u_z, u_r, u_g = (u[k] + b[3 + k] for k in range(3))
    z = sigmoid(x_z + u_z)
    r = sigmoid(x_r + u_r)
    g, d_g = tanh_and_slope(x_g + (r * u_g).value)
    by = reciprocals([z.bottom, r.bottom, g.bottom])
    d_pre_g = (1 - z).top * by[0] * (d_g.top * by[2] * by[2])
    return [
        z * h + (1 - z) * g,
        (h - g.top * by[2]) * slope(z, by[0]),  # of pre_z; as the others, times dh
        d_pre_g * u_g * slope(r, by[1]),  # of pre_r
        d_pre_g,  # of pre_g
        d_pre_g * (r.top * by[1]),  # of u_g
        z.top * by[0],  # of h, but for what goes through u
    ]


def reset_before_gates(x: Vectors, u: Vectors, b: Vectors, h: Vector) -> Vectors:
    """z and r * h, whose products with the recurrent weights the second stage needs."""
    z, r = (sigmoid(x[k] + b[k] + u[k]) for k in range(2))
    return [z.value, (r * h).value]


def reset_before_candidate(x: Vectors, u: Vectors, b: Vectors, z: Vector, h: Vector) -> Vectors:
    g = tanh(x[0] + b[0] + u[0])
    return [g * (1 - z) + z * h]


def slope(y: Ratio, by: Vector) -> Vector:
    """y (1 - y) of a sigmoid, where `by` is 1 / y.bottom."""
    return (y.top * by) * ((1 - y).top * by)


class Stage(NamedTuple):
    """One pass over the units: sums of the input and of the state, and the formula on them.

    gates    sums a unit has
    biases   biases a unit has
    formula  (x, u, b, *reads) -> writes
    reads    arrays that the formula reads at its own row and units, as plan entries
    writes   arrays that it writes there
    factor   the array whose rows are multiplied by the recurrent weights
    panels   the kernel, the recurrent kernel and the bias
    kept     vectors that the formula returns after its writes, for the way back
    """

    gates: int
    biases: int
    formula: Callable[..., Vectors]
    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = (plan.OUT,)
    factor: int = plan.H
    panels: tuple[int, int, int] = (plan.W, plan.U, plan.B)
    kept: int = 0


STAGES: dict[str, tuple[Stage, ...]] = {
    "simple": (Stage(1, 1, simple),),
    "gru": (Stage(3, 6, gru, reads=(plan.H,)),),
    "gru_reset_before": (
        Stage(2, 2, reset_before_gates, reads=(plan.H,), writes=(plan.Z, plan.RH)),
        Stage(
            1, 1, reset_before_candidate, reads=(plan.Z, plan.H), factor=plan.RH,
            panels=(plan.W2, plan.U2, plan.B2),
        ),
    ),
    "lstm": (Stage(4, 4, lstm, reads=(plan.C,), writes=(plan.OUT, plan.C)),),
    # the same, and how fast everything moves, for the way back
    "simple_kept": (Stage(1, 1, simple_kept, kept=1),),
    "gru_kept": (Stage(3, 6, gru_kept, reads=(plan.H,), kept=5),),
    "lstm_kept": (Stage(4, 4, lstm_kept, reads=(plan.C,), writes=(plan.OUT, plan.C), kept=6),),
}  # fmt: skip
