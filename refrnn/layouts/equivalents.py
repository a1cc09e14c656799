"""Other weights for the same function, where one library lacks what another has.

Each takes what `refrnn.layouts.convert` returns, or a `Stored` of the caller's, and returns one in
the same layout. They compute: the numbers of the outputs agree to rounding, not to the bit, except
where it is said.
"""

from collections.abc import Callable

import numpy as np

from refrnn.cells import CELLS, Weights
from refrnn.gates import Array
from refrnn.layouts.conversion import read, rewritten
from refrnn.layouts.fitting import biased
from refrnn.layouts.hub import OTHER_FAMILY, Hub, Pass, Stored

SYMMETRIC = ("sigmoid", "hard_sigmoid", "hard_sigmoid_keras2")  # f(-x) = 1 - f(x)
SLOPES = {"hard_sigmoid_keras2": 1 / 5, "hard_sigmoid": 1 / 6}


def _gates(one: Pass, gates: str, factor: float) -> Pass:
    """The weights of some gates times a factor."""
    blocks = {
        name: block * block.dtype.type(factor) if name[1:] in tuple(gates) else block
        for name, block in one.blocks.items()
    }
    return one._replace(blocks=blocks)


def _each(hub: Hub, function: Callable[[Pass], Pass]) -> list[list[Pass]]:
    return [[function(one) for one in layer] for layer in hub.layers]


def negated_update(stored: Stored) -> Stored:
    """A GRU with h = (1 - u) h + u g, as Lasagne and Chung et al. (2014) have it, as one of these.

    z = 1 - u, so the block of z is that of u, negated: exact to the bit, and its own inverse.

    Raises ValueError for other cells, and for an activation of the gates that is not symmetric.
    """
    hub = read(stored)
    _expect("negated_update", hub, ("gru", "gru_reset_before"))
    _symmetric("negated_update", hub)
    layers = _each(hub, lambda one: _gates(one, "z", -1.0))
    return rewritten(hub._replace(layers=layers), stored.layout)


def rescaled(stored: Stored, rec: str) -> Stored:
    """The gates with `rec`, the hard_sigmoid of the other generation of Keras.

    Keras 3 and JAX have x/6 + 1/2, Keras 2, tf.js and ONNX x/5 + 1/2: the sums of the gates, and
    so their weights and biases, grow by 6/5 to the first or by 5/6 to the second.

    Raises ValueError for other functions: sigmoid and hard_sigmoid are no multiples of each other.
    """
    hub = read(stored)
    now = hub.function.rec
    _expect("rescaled", hub, ("lstm", "gru", "gru_reset_before"))
    if now not in SLOPES or rec not in SLOPES:
        raise ValueError(
            f"rescaled: from {now!r} to {rec!r}, expected {' and '.join(map(repr, SLOPES))},"
            " because no other two activations of gates are multiples of each other"
        )
    if hub.function.forget_bias or hub.function.clip < np.inf:
        raise ValueError(
            f"rescaled: forget_bias is {hub.function.forget_bias} and clip is {hub.function.clip},"
            " expected 0 and none, because they would have to be scaled too"
        )
    factor = SLOPES[now] / SLOPES[rec]
    layers = _each(hub, lambda one: _gates(one, "ifo" if hub.cell == "lstm" else "zr", factor))
    hub = hub._replace(layers=layers, function=hub.function._replace(rec=rec))
    return rewritten(hub, stored.layout)


def untied(stored: Stored) -> Stored:
    """An LSTM of ONNX with input_forget=1, f = 1 - i, as one with a forget gate of its own.

    f = 1 - s(x) = s(-x): the block of f is that of i, negated.

    Raises ValueError with peepholes, and where the gates' activation is not symmetric.
    """
    return rewritten(without_input_forget(read(stored)), stored.layout)


def without_input_forget(hub: Hub) -> Hub:
    """The same on a hub. The bound of the sums is symmetric, so it stays."""
    _expect("untied", hub, ("lstm",))
    _symmetric("untied", hub)
    if not hub.function.input_forget:
        raise ValueError("untied: input_forget is 0, expected 1: the forget gate has weights")

    def alone(one: Pass) -> Pass:
        blocks = dict(one.blocks)
        for part in {name[0] for name in blocks if name[1:] == "i"}:
            blocks[part + "f"] = -blocks[part + "i"]
        return one._replace(blocks=blocks)

    function = hub.function._replace(input_forget=False)
    return hub._replace(layers=_each(hub, alone), function=function)


def split_projection(stored: Stored) -> tuple[Stored, Array]:
    """A projected LSTM as a plain one and the kernel (H, P) of a Dense layer after it.

    The recurrent kernel becomes R @ U. The plain LSTM's h0 is any with h0 @ R = the projected one:
    `plain_state` gives it.

    Raises ValueError for several layers or directions, and where nothing is projected.
    """
    hub = read(stored)
    _expect("split_projection", hub, ("lstm",))
    if len(hub.passes) > 1 or "R" not in hub.passes[0].blocks:
        raise ValueError(
            f"split_projection: {len(hub.passes)} directions and layers,"
            f" {'one' if 'R' in hub.passes[0].blocks else 'no'} projection, expected one LSTM with"
            " a projection, because the Dense layer stands between layers"
        )
    (one,) = hub.passes
    R = one.blocks["R"]
    blocks = {name: R @ b if name[0] == "U" else b for name, b in one.blocks.items() if name != "R"}
    sizes = one.sizes._replace(width=one.sizes.units)
    return rewritten(hub._replace(layers=[[Pass(sizes, blocks)]]), stored.layout), R


def plain_state(h: Array, projection: Array) -> Array:
    """h (B, P) of a projected LSTM as the h (B, H) of the plain one, by the pseudo-inverse."""
    return np.asarray(h @ np.linalg.pinv(projection), h.dtype)


def mgu(kernel: Array, recurrent_kernel: Array, bias: Array | None = None) -> Weights:
    """A minimal gated unit (Zhou et al., 2016; Flax's MGUCell) as weights for "gru".

    kernel, recurrent_kernel  (F, 2H), (H, 2H): the blocks f and n
    bias                      (2, 2H), a row for the input and one for the state, or None

    z and r are both f: exact to the bit. There is no way back but for such a GRU.

    Raises ValueError for other shapes.
    """
    F, H = len(kernel), len(recurrent_kernel)
    found = [np.shape(a) for a in (kernel, recurrent_kernel, bias) if a is not None]
    expected = [(F, 2 * H), (H, 2 * H), (2, 2 * H)][: len(found)]
    if found != expected:
        raise ValueError(f"mgu: the arrays have shapes {found}, expected {expected}: blocks f, n")

    def doubled(a: Array) -> Array:
        return np.concatenate([a[:, :H], a], axis=1)

    return Weights(
        doubled(kernel), doubled(recurrent_kernel), None if bias is None else doubled(bias)
    )


def other_family(stored: Stored) -> Stored:
    """A GRU as one of the other family, where that is possible.

    r * (h @ U) = (r * h) @ U where the candidate's U is diagonal, as it is for one unit; the
    candidate must have no bias inside r * (...).

    Raises ValueError for all others, and for a library that has only one family.
    """
    hub = read(stored)
    _expect("other_family", hub, ("gru", "gru_reset_before"))
    for one in hub.passes:
        U, u = one.blocks["Ug"], biased(one, hub.cell)["ug"]
        off = np.count_nonzero(U - np.diag(np.diag(U)))
        if off or (hub.cell == "gru" and u.any()):
            raise ValueError(
                f"other_family: the candidate's recurrent block has {off} entries off the diagonal"
                f" and {np.count_nonzero(u)} biases inside r * (...), expected 0 and 0, because"
                " r * (h @ U + u) is no other product's (r * h) @ U"
            )

    def summed(one: Pass) -> Pass:
        blocks = dict(one.blocks)
        for gate in CELLS[hub.cell].gates:
            if "u" + gate in blocks:
                blocks["w" + gate] = blocks["w" + gate] + blocks["u" + gate]
                blocks["u" + gate] = np.zeros_like(blocks["u" + gate])
        return one._replace(blocks=blocks)

    changed = hub._replace(cell=OTHER_FAMILY[hub.cell], layers=_each(hub, summed))
    return rewritten(changed, stored.layout)


def _expect(name: str, hub: Hub, cells: tuple[str, ...]) -> None:
    if hub.cell not in cells:
        raise ValueError(f"{name}: the cell is {hub.cell!r}, expected {' or '.join(cells)}")


def _symmetric(name: str, hub: Hub) -> None:
    if hub.function.rec not in SYMMETRIC:
        raise ValueError(
            f"{name}: the gates' activation is {hub.function.rec!r}, expected one of"
            f" {', '.join(SYMMETRIC)}, because f(-x) must be 1 - f(x)"
        )
