"""Small errors: the right convention and arithmetic, and numbers that are slightly off."""

from collections.abc import Callable
from typing import Any

import numpy as np

from refrnn.activations import Activation
from refrnn.cells import Cell, LSTMState, Weights
from refrnn.gates import Array
from refrnn.verify.mutants.engine import Call, Engine, gates_of, one_step
from refrnn.verify.mutants.mutant import ALL, GATED, GRUS, Mutant

GITHUB = "https://github.com/"
LSTM = ("lstm",)
Function = Callable[[Array], Array]


def middle(a: Array) -> tuple[int, ...]:
    """Where the entry of median size is: neither the largest nor one lost beside the others."""
    order = np.argsort(np.abs(a), axis=None, kind="stable")
    return tuple(int(k) for k in np.unravel_index(order[a.size // 2], a.shape))


def one_weight(name: str, change: Callable[[float], float]) -> Engine:
    """One entry of one array changed."""

    def load(cell: Cell, weights: Weights) -> Weights:
        a = getattr(weights, name).copy()
        at = middle(a)
        a[at] = change(float(a[at]))
        return weights._replace(**{name: a})

    return Engine(weights=load)


def off(relative: float) -> Callable[[float], float]:
    return lambda value: value * (1 + relative)


def each_weight(change: Function) -> Engine:
    return Engine(weights=lambda cell, w: Weights(*(change(a).astype(a.dtype) for a in w)))


def printed(digits: int) -> Function:
    """Through text with so many significant digits."""
    return np.vectorize(lambda value: float(f"{value:.{digits}g}"), otypes=[np.float64])


def without_small(a: Array) -> Array:
    return np.where(np.abs(a) < 0.02 * np.max(np.abs(a), initial=0), 0, a)


def of_activation(name: str, wrong: Function) -> Engine:
    """An activation computed in another way, wherever the layer has that one."""

    def replaced(activation: Activation) -> Activation:
        if activation.name != name:
            return activation
        return activation._replace(value=lambda z: wrong(z).astype(z.dtype))

    return Engine(cell=lambda cell: cell._replace(act=replaced(cell.act), rec=replaced(cell.rec)))


def sigmoid(z: Array) -> Array:
    return 0.5 + 0.5 * np.tanh(0.5 * z.astype(np.float64))


def table(function: Function, reach: float, entries: int) -> Function:
    """Looked up between -reach and reach, straight lines between the entries."""
    points = np.linspace(-reach, reach, entries)
    values = function(points)
    return lambda z: np.interp(z, points, values) + 0 * z  # NaN stays NaN


def rational(z: Array) -> Array:
    """Lambert's fraction for tanh, clipped where it leaves its range."""
    z = np.clip(z, -3, 3)
    return z * (27 + z * z) / (27 + 9 * z * z)


def forget(change: Function) -> Engine:
    """The LSTM's forget gate changed."""

    def step(cell: Cell, weights: Weights, state: Any, x: Array) -> Any:
        q = gates_of(cell, weights, state, x)
        c = change(q.f).astype(q.f.dtype) * state.c + q.i * q.g
        return LSTMState(q.o * cell.act.value(c), c)

    return Engine(step=step)


def clipped(limit: float) -> Engine:
    def step(cell: Cell, weights: Weights, state: Any, x: Array) -> Any:
        q = gates_of(cell, weights, state, x)
        c = np.clip(q.c, -limit, limit)
        return LSTMState(q.o * cell.act.value(c), c)

    return Engine(step=step)


def after_step(part: str, change: Function) -> Engine:
    def step(cell: Cell, weights: Weights, state: Any, x: Array) -> Any:
        new = one_step(cell, weights, state, x)
        old = getattr(new, part)
        return new._replace(**{part: change(old).astype(old.dtype)})

    return Engine(step=step)


def keep_more(eps: float) -> Engine:
    """A GRU whose z and 1 - z do not add up to 1."""

    def step(cell: Cell, weights: Weights, state: Any, x: Array) -> Any:
        q = gates_of(cell, weights, state, x)
        return type(state)(q.z * state.h + (1 + eps - q.z) * q.g)

    return Engine(step=step)


def once(relative: float) -> Engine:
    """One output of the last row disturbed, in the middle of the run."""

    def result(y: Array, past: list[Any]) -> tuple[Array, Any]:
        if y.size:
            y = y.copy()
            y[-1, y.shape[1] // 2, y.shape[2] // 2] *= 1 + relative
        return y, past[-1]

    return Engine(result=result)


def inputs(change: Function) -> Engine:
    return Engine(called=lambda call: Call(change(call.x).astype(call.x.dtype), *call[1:]))


def no_nan(x: Array) -> Array:
    return np.where(np.isnan(x), 0, x)


_ROWS: tuple[tuple[str, tuple[str, ...], str, Engine, str], ...] = (
    ("one recurrent weight off by 1e-3", ALL, "one recurrent weight is off by 1e-3 of itself",
     one_weight("recurrent_kernel", off(1e-3)), ""),
    ("one recurrent weight off by 1e-4", ALL, "one recurrent weight is off by 1e-4 of itself",
     one_weight("recurrent_kernel", off(1e-4)), ""),
    ("one recurrent weight off by 1e-5", ALL, "one recurrent weight is off by 1e-5 of itself",
     one_weight("recurrent_kernel", off(1e-5)), ""),
    ("one recurrent weight is 0", ALL, "one recurrent weight is 0",
     one_weight("recurrent_kernel", lambda value: 0.0), ""),
    ("one recurrent weight of the other sign", ALL, "one recurrent weight has the wrong sign",
     one_weight("recurrent_kernel", lambda value: -value), ""),
    ("one input weight off by 1e-3", ALL, "one weight of the kernel is off by 1e-3 of itself",
     one_weight("kernel", off(1e-3)), ""),
    ("one input weight off by 1e-4", ALL, "one weight of the kernel is off by 1e-4 of itself",
     one_weight("kernel", off(1e-4)), ""),
    ("one input weight off by 1e-5", ALL, "one weight of the kernel is off by 1e-5 of itself",
     one_weight("kernel", off(1e-5)), ""),
    ("one bias off by 1e-3", ALL, "one bias is off by 1e-3 of itself",
     one_weight("bias", off(1e-3)), ""),
    ("one bias off by 1e-4", ALL, "one bias is off by 1e-4 of itself",
     one_weight("bias", off(1e-4)), ""),
    ("weights printed with 6 digits", ALL, "the weights went through text with 6 digits",
     each_weight(printed(6)), ""),
    ("weights printed with 4 digits", ALL, "the weights went through text with 4 digits",
     each_weight(printed(4)), ""),
    ("small weights pruned", ALL, "weights below 2 % of the largest are 0",
     each_weight(without_small), ""),
    ("tanh off by 1e-4", ALL, "tanh is 1e-4 of itself too small",
     of_activation("tanh", lambda z: np.tanh(z) * (1 - 1e-4)), ""),
    ("tanh off by 1e-5", ALL, "tanh is 1e-5 of itself too small",
     of_activation("tanh", lambda z: np.tanh(z) * (1 - 1e-5)), ""),
    ("tanh off by 1e-6", ALL, "tanh is 1e-6 of itself too small",
     of_activation("tanh", lambda z: np.tanh(z.astype(np.float64)) * (1 - 1e-6)), ""),
    ("tanh from a table", ALL, "tanh is looked up in 256 entries between -4 and 4",
     of_activation("tanh", table(np.tanh, 4.0, 256)), "tensorflow/tflite-micro/issues/1455"),
    ("tanh as a fraction", ALL, "tanh is z (27 + z^2) / (27 + 9 z^2)",
     of_activation("tanh", rational), ""),
    ("sigmoid off by 1e-4", GATED, "sigmoid is 1e-4 too large",
     of_activation("sigmoid", lambda z: sigmoid(z) + 1e-4), ""),
    ("sigmoid off by 1e-5", GATED, "sigmoid is 1e-5 too large",
     of_activation("sigmoid", lambda z: sigmoid(z) + 1e-5), ""),
    ("sigmoid off by 1e-6", GATED, "sigmoid is 1e-6 too large",
     of_activation("sigmoid", lambda z: sigmoid(z) + 1e-6), ""),
    ("sigmoid from a table", GATED, "sigmoid is looked up in 1024 entries between -8 and 8",
     of_activation("sigmoid", table(sigmoid, 8.0, 1024)), "tensorflow/tflite-micro/issues/1455"),
    ("sigmoid saturates at 4", GATED, "sigmoid is that of 4 for all that is larger, and of -4",
     of_activation("sigmoid", lambda z: sigmoid(np.clip(z, -4, 4))), ""),
    ("forget gate never above 0.99", LSTM, "the forget gate is at most 0.99",
     forget(lambda f: np.minimum(f, 0.99)), ""),
    ("forget gate opens fully", LSTM, "a forget gate above 0.95 is taken for 1",
     forget(lambda f: np.where(f > 0.95, 1, f)), ""),
    ("c clipped to 3", LSTM, "c is clipped to -3 and 3", clipped(3.0),
     "microsoft/onnxruntime/issues/27224"),
    ("c clipped to 10", LSTM, "c is clipped to -10 and 10", clipped(10.0),
     "microsoft/onnxruntime/issues/27224"),
    ("c decays", LSTM, "c loses 1e-5 of itself at every step",
     after_step("c", lambda c: c * (1 - 1e-5)), ""),
    ("h decays", ALL, "h loses 1e-5 of itself at every step",
     after_step("h", lambda h: h * (1 - 1e-5)), ""),
    ("z and 1 - z make 1.00001", GRUS, "the candidate's share is 1.00001 - z", keep_more(1e-5), ""),
    ("one output off by 1e-3", ALL, "one output is off by 1e-3 of itself, once", once(1e-3), ""),
    ("one output off by 1e-4", ALL, "one output is off by 1e-4 of itself, once", once(1e-4), ""),
    ("input scaled by 1.00001", ALL, "the input is multiplied by 1.00001",
     inputs(lambda x: x * 1.00001), ""),
    ("small inputs taken for 0", ALL, "inputs below 0.05 are taken for 0",
     inputs(lambda x: np.where(np.abs(x) < 0.05, 0, x)), ""),
    ("inputs clipped to 2", ALL, "inputs are clipped to -2 and 2",
     inputs(lambda x: np.clip(x, -2, 2)), ""),
    ("NaN swallowed", ALL, "NaN in the input is taken for 0", inputs(no_nan),
     "pytorch/pytorch/issues/173922"),
)  # fmt: skip

NUMERICS = tuple(
    Mutant(name, "numeric", applies, wrong, engine.implementation, issue and GITHUB + issue)
    for name, applies, wrong, engine, issue in _ROWS
)
