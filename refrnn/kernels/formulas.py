"""The cells' formulas on vectors of units, each written once; `refrnn.gates` has them for arrays.

x, u and b are the sums of the input, the sums of the state and the biases, in the order of the
gates. A formula may be in two stages, with an array between them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from refrnn.kernels import plan
from refrnn.kernels.vectors import Vector, sigmoid, tanh

Vectors = list[Vector]


def simple(x: Vectors, u: Vectors, b: Vectors) -> Vectors:
    return [tanh(x[0] + u[0] + b[0]).value]


def lstm(x: Vectors, u: Vectors, b: Vectors, c: Vector) -> Vectors:
    i, f, g, o = (x[k] + u[k] + b[k] for k in range(4))
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(c)
    return [h.value, c]


def gru(x: Vectors, u: Vectors, b: Vectors, h: Vector) -> Vectors:
    x_z, x_r, x_g = (x[k] + b[k] for k in range(3))
    u_z, u_r, u_g = (u[k] + b[3 + k] for k in range(3))
    z = sigmoid(x_z + u_z)
    r = sigmoid(x_r + u_r)
    g = tanh(x_g + (r * u_g).value)
    return [z * h + (1 - z) * g]


def reset_before_gates(x: Vectors, u: Vectors, b: Vectors, h: Vector) -> Vectors:
    """z and r * h, whose products with the recurrent weights the second stage needs."""
    z, r = (sigmoid(x[k] + b[k] + u[k]) for k in range(2))
    return [z.value, (r * h).value]


def reset_before_candidate(x: Vectors, u: Vectors, b: Vectors, z: Vector, h: Vector) -> Vectors:
    g = tanh(x[0] + b[0] + u[0])
    return [g * (1 - z) + z * h]


class Stage(NamedTuple):
    """One pass over the units: sums of the input and of the state, and the formula on them.

    gates    sums a unit has
    biases   biases a unit has
    formula  (x, u, b, *reads) -> writes
    reads    arrays that the formula reads at its own row and units, as plan entries
    writes   arrays that it writes there
    factor   the array whose rows are multiplied by the recurrent weights
    panels   the kernel, the recurrent kernel and the bias
    """

    gates: int
    biases: int
    formula: Callable[..., Vectors]
    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = (plan.OUT,)
    factor: int = plan.H
    panels: tuple[int, int, int] = (plan.W, plan.U, plan.B)


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
}  # fmt: skip
