"""Conventions mixed up and equations miswritten: right arithmetic of the wrong thing."""

from collections.abc import Callable
from typing import Any

import numpy as np

from refrnn import activations, cells
from refrnn.cells import Cell, State, Weights
from refrnn.gates import Array
from refrnn.verify.mutants.engine import Call, Engine, Moment, gates_of
from refrnn.verify.mutants.mutant import ALL, GATED, GRUS, Mutant

GITHUB = "https://github.com/"
LSTM, GRU, BEFORE, SIMPLE = ("lstm",), ("gru",), ("gru_reset_before",), ("simple",)


# --- weights read wrongly ----------------------------------------------------------------------


def blocks(a: Array, cell: Cell) -> list[Array]:
    return np.split(a, len(cell.gates), axis=-1)


def reordered(order: str, where: str = "kernel recurrent_kernel bias") -> Engine:
    """The gates' blocks taken in `order` by code that means Keras's order."""

    def read(cell: Cell, weights: Weights) -> Weights:
        def moved(a: Array) -> Array:
            return np.concatenate([blocks(a, cell)[cell.gates.index(g)] for g in order], axis=-1)

        return weights._replace(**{name: moved(getattr(weights, name)) for name in where.split()})

    return Engine(weights=read)


def kernel(change: Callable[[Cell, Array], Array]) -> Engine:
    return Engine(weights=lambda cell, w: w._replace(kernel=change(cell, w.kernel)))


def recurrent(change: Callable[[Cell, Array], Array]) -> Engine:
    return Engine(
        weights=lambda cell, w: w._replace(recurrent_kernel=change(cell, w.recurrent_kernel))
    )


def bias(change: Callable[[Cell, Array], Array]) -> Engine:
    return Engine(weights=lambda cell, w: w._replace(bias=change(cell, w.bias)))


def each_transposed(cell: Cell, U: Array) -> Array:
    return np.concatenate([block.T for block in blocks(U, cell)], axis=-1)


def by_column(cell: Cell, a: Array) -> Array:
    """Memory in Fortran's order taken for C's."""
    return a.ravel(order="F").reshape(a.shape)


def interleaved(cell: Cell, a: Array) -> Array:
    """Column unit * G + gate taken for gate * H + unit."""
    gates = len(cell.gates)
    return a.reshape(len(a), -1, gates).swapaxes(1, 2).reshape(a.shape)


def shifted(letter: str, by: float | None) -> Callable[[Cell, Array], Array]:
    """One gate's bias moved, or set to 0."""

    def change(cell: Cell, b: Array) -> Array:
        parts = [block.copy() for block in blocks(b, cell)]
        k = cell.gates.index(letter)
        parts[k] = np.zeros_like(parts[k]) if by is None else parts[k] + parts[k].dtype.type(by)
        return np.concatenate(parts, axis=-1)

    return change


def row_zeroed(row: int, columns: str = "zrg") -> Callable[[Cell, Array], Array]:
    """One row of a GRU's two biases dropped, for some gates."""

    def change(cell: Cell, b: Array) -> Array:
        b = b.copy()
        for letter in columns:
            blocks(b, cell)[cell.gates.index(letter)][row] = 0  # the blocks are views
        return b

    return change


def merged(cell: Cell, b: Array) -> Array:
    return np.stack([b.sum(0), np.zeros_like(b[0])])


def negated(letter: str) -> Engine:
    """sigmoid(-z) = 1 - sigmoid(z): a gate in the other sense."""

    def change(cell: Cell, weights: Weights) -> Weights:
        sign = np.repeat([-1 if g == letter else 1 for g in cell.gates], len(weights[1]))
        return Weights(*(w * sign.astype(w.dtype) for w in weights))

    return Engine(weights=change)


def stuck(letter: str) -> Engine:
    """A gate that is always open."""

    def change(cell: Cell, weights: Weights) -> Weights:
        open_ = np.repeat([g == letter for g in cell.gates], len(weights[1]))
        W, U, b = (np.where(open_, 0, w).astype(w.dtype) for w in weights)
        return Weights(W, U, np.where(open_, 30, b).astype(b.dtype))

    return Engine(weights=change)


# --- activations and equations -----------------------------------------------------------------


def acting(act: str | None = None, rec: str | None = None) -> Engine:
    table = activations.ACTIVATIONS

    def change(cell: Cell) -> Cell:
        return cell._replace(
            act=cell.act if act is None else table[act], rec=cell.rec if rec is None else table[rec]
        )

    return Engine(cell=change)


def equation(new_state: Callable[[Cell, Any, Any], Any]) -> Engine:
    """A new state made from the right gates: (cell, gates, old state) -> state."""

    def step(cell: Cell, weights: Weights, state: Any, x: Array) -> Any:
        return new_state(cell, gates_of(cell, weights, state, x), state)

    return Engine(step=step)


def memory(
    new_c: Callable[[Any, Any], Array], new_h: Callable[[Cell, Any, Array], Array] | None = None
) -> Engine:
    """An LSTM with another c, (gates, old state) -> c; and perhaps another h of it."""

    def state(cell: Cell, q: Any, old: Any) -> Any:
        c = new_c(q, old)
        h = q.o * cell.act.value(c) if new_h is None else new_h(cell, q, c)
        return cells.LSTMState(h, c)

    return equation(state)


def right_c(q: Any, old: Any) -> Array:
    return q.c


def blended(new_h: Callable[[Any, Array], Array]) -> Engine:
    """A GRU with another h: (gates, old h) -> h."""
    return equation(lambda cell, q, old: State(new_h(q, old.h)))


def reset_after_run_as_before(cell: Cell, weights: Weights, state: Any, x: Array) -> Any:
    one = weights._replace(bias=weights.bias.sum(0))
    return cells.gru_reset_before_step(cell, one, state, x)[0]


def reset_before_run_as_after(cell: Cell, weights: Weights, state: Any, x: Array) -> Any:
    two = weights._replace(bias=np.stack([weights.bias, np.zeros_like(weights.bias)]))
    return cells.gru_step(cell, two, state, x)[0]


def reset_scales_the_input_too(cell: Cell, weights: Weights, state: Any, x: Array) -> Any:
    q = gates_of(cell, weights, state, x)
    H = len(weights.recurrent_kernel)
    W, U, b = (np.ascontiguousarray(part[..., 2 * H :]) for part in weights)
    pre = q.r * (cell.x_product(x, W) + b[0] + cell.h_product(state.h, U) + b[1])
    return State(q.z * state.h + (1 - q.z) * cell.act.value(pre))


def squashed_before_bias(cell: Cell, weights: Weights, state: Any, x: Array) -> Any:
    bare = weights._replace(bias=np.zeros_like(weights.bias))
    return State(cell.step(cell, bare, state, x)[0].h + weights.bias)


# --- time and rows -----------------------------------------------------------------------------


def turned(call: Call) -> Call:
    return call._replace(x=call.x[:, ::-1], mask=None if call.mask is None else call.mask[:, ::-1])


def time_major(call: Call) -> Call:
    B, T, F = call.x.shape
    return call._replace(x=np.ascontiguousarray(call.x).reshape(T, B, F).swapaxes(0, 1))


def not_computed(axis: int, lanes: int) -> Callable[[Array, list[Any]], tuple[Array, Any]]:
    """Outputs and states beyond the last whole group of `lanes` left as zeros."""

    def result(y: Array, past: list[Any]) -> tuple[Array, Any]:
        y, state = y.copy(), type(past[-1])(*(part.copy() for part in past[-1]))
        n = y.shape[axis] // lanes * lanes
        np.moveaxis(y, axis, 0)[n:] = 0
        if axis != 1:
            for part in state:
                np.moveaxis(part, min(axis, 1), 0)[n:] = 0
        return y, state

    return result


def tail_left_out(which: str, lanes: int) -> Engine:
    """A product's last terms left out where their number is not a multiple of `lanes`."""

    def product(a: Array, b: Array, gates: slice = cells.ALL) -> Array:
        n = len(b) // lanes * lanes
        return cells.dot(np.ascontiguousarray(a[..., :n]), b[:n])

    changed: dict[str, Any] = {which: product}
    return Engine(cell=lambda cell: cell._replace(**changed))


# --- masks -------------------------------------------------------------------------------------


def masked(change: Callable[[Array], Array]) -> Engine:
    def called(call: Call) -> Call:
        return call if call.mask is None else call._replace(mask=change(call.mask))

    return Engine(called=called)


def as_lengths(mask: Array) -> Array:
    """The number of live steps, taken for the length of a right-padded row."""
    return np.arange(mask.shape[1]) < mask.sum(1, keepdims=True)


def up_to_the_last(mask: Array) -> Array:
    """Everything up to the last live step."""
    return np.cumsum(mask[:, ::-1], axis=1)[:, ::-1] > 0


def late(mask: Array) -> Array:
    return np.concatenate([mask[:, :1], mask[:, :-1]], axis=1)


def other_padding(now: Moment) -> tuple[Any, Array]:
    state, y = Engine().keep(now._replace(emits_zeros=not now.emits_zeros))
    return state, y


def state_emitted(now: Moment) -> tuple[Any, Array]:
    state, y = Engine().keep(now)
    return state, y if now.emits_zeros else state.h


def cleared(now: Moment) -> tuple[Any, Array]:
    state, y = Engine().keep(now)
    return type(state)(*(np.where(now.live, part, 0) for part in state)), y


# --- the rows ----------------------------------------------------------------------------------

_ROWS: tuple[tuple[str, tuple[str, ...], str, Engine, str], ...] = (
    ("gates in ONNX's order", LSTM, "the LSTM's blocks are read as i, o, f, g, ONNX's order",
     reordered("iofg"), "onnx/onnx/issues/2279"),
    ("gates in TF1's order", LSTM, "the LSTM's blocks are read as i, g, f, o, TF1's order",
     reordered("igfo"), "keras-team/keras/issues/10179"),
    ("gates in CoreML's order", LSTM, "the LSTM's blocks are read as i, f, o, g",
     reordered("ifog"), "apple/coremltools/issues/93"),
    ("input and forget gate swapped", LSTM, "the input and the forget gate are exchanged",
     reordered("figo"), "keras-team/keras/issues/3088"),
    ("input and output gate swapped", LSTM, "the input and the output gate are exchanged",
     reordered("ofgi"), ""),
    ("forget and output gate swapped", LSTM, "the forget and the output gate are exchanged",
     reordered("iogf"), ""),
    ("input gate and candidate swapped", LSTM, "the input gate and the candidate are exchanged",
     reordered("gfio"), ""),
    ("gates reversed", LSTM, "the LSTM's blocks are read from the last to the first",
     reordered("ogfi"), ""),
    ("gates in torch's order", GRUS, "the GRU's blocks are read as r, z, g, the order of PyTorch"
     " and cuDNN", reordered("rzg"), "keras-team/keras/issues/22115"),
    ("update gate and candidate swapped", GRUS, "the update gate and the candidate are exchanged",
     reordered("grz"), ""),
    ("reset gate and candidate swapped", GRUS, "the reset gate and the candidate are exchanged",
     reordered("zgr"), ""),
    ("gates turned round", GRUS, "the GRU's blocks are read as g, z, r", reordered("gzr"), ""),
    ("LSTM recurrent gates in another order", LSTM, "only the recurrent kernel's blocks are"
     " reordered, f and i", reordered("figo", "recurrent_kernel"), ""),
    ("GRU recurrent gates in another order", GRUS, "only the recurrent kernel's blocks are"
     " reordered, r and z", reordered("rzg", "recurrent_kernel"), ""),
    ("LSTM bias in another order", LSTM, "only the bias is reordered, f and i",
     reordered("figo", "bias"), "keras-team/keras/issues/8720"),
    ("GRU bias in another order", GRUS, "only the biases are reordered, r and z",
     reordered("rzg", "bias"), "keras-team/keras/issues/8720"),
    ("recurrent kernel transposed", ALL, "each gate's recurrent kernel is transposed",
     recurrent(each_transposed), ""),
    ("kernel read by columns", ALL, "the kernel's memory is read in the other order",
     kernel(by_column), ""),
    ("recurrent kernel read by columns", ALL, "the recurrent kernel's memory is read in the other"
     " order", recurrent(by_column), ""),
    ("gates interleaved", GATED, "the kernel's columns are read as unit by unit, not gate by gate",
     kernel(interleaved), ""),
    ("recurrent gates interleaved", GATED, "the recurrent kernel's columns are read unit by unit",
     recurrent(interleaved), ""),
    ("bias dropped", ALL, "there is no bias", bias(lambda cell, b: np.zeros_like(b)), ""),
    ("bias twice", ALL, "the bias is added with the input and again with the state",
     bias(lambda cell, b: 2 * b), "pytorch/pytorch/issues/23728"),
    ("bias subtracted", ALL, "the bias has the wrong sign", bias(lambda cell, b: -b), ""),
    ("forget bias added again", LSTM, "1 is added to the forget gate at run time, as in TF1, over"
     " weights that have it", bias(shifted("f", 1)), "keras-team/keras/issues/10179"),
    ("forget bias missing", LSTM, "the forget gate has no bias", bias(shifted("f", None)), ""),
    ("LSTM candidate without bias", LSTM, "the candidate has no bias", bias(shifted("g", None)),
     ""),
    ("GRU candidate without bias", BEFORE, "the candidate has no bias", bias(shifted("g", None)),
     ""),
    ("recurrent bias dropped", GRU, "only the input's bias is loaded", bias(row_zeroed(1)), ""),
    ("input bias dropped", GRU, "only the state's bias is loaded", bias(row_zeroed(0)), ""),
    ("candidate's recurrent bias dropped", GRU, "the reset gate scales h U without its bias, b_hn",
     bias(row_zeroed(1, "g")), "google/flax/issues/5594"),
    ("biases merged", GRU, "the two biases are added up and none is scaled by the reset gate",
     bias(merged), "apple/coremltools/issues/1124"),
    ("biases exchanged", GRU, "the state's bias is added to the input's part, and the other way",
     bias(lambda cell, b: b[::-1]), ""),
    ("reset after run as before", GRU, "the reset gate scales the state before the product",
     Engine(step=reset_after_run_as_before), "pytorch/pytorch/issues/8153"),
    ("reset before run as after", BEFORE, "the reset gate scales the product, not the state",
     Engine(step=reset_before_run_as_after), "microsoft/onnxscript/issues/2852"),
    ("reset scales the input too", GRU, "the reset gate scales the whole sum of the candidate",
     Engine(step=reset_scales_the_input_too), ""),
    ("reset gate ignored", GRUS, "the reset gate is always open", stuck("r"), ""),
    ("update gate in the other sense", GRUS, "z keeps the candidate and 1 - z the old state",
     negated("z"), ""),
    ("reset gate in the other sense", GRUS, "1 - r scales the state", negated("r"), ""),
    ("update without 1 - z", GRUS, "the new state is z h + g",
     blended(lambda q, h: q.z * h + q.g), ""),
    ("old state not kept", GRUS, "the new state is (1 - z) g",
     blended(lambda q, h: (1 - q.z) * q.g), ""),
    ("input gate tied to forget gate", LSTM, "i is taken as 1 - f, ONNX's input_forget",
     memory(lambda q, old: q.f * old.c + (1 - q.f) * q.g), "sonos/tract/issues/2751"),
    ("output not squashed", LSTM, "h is o c, without tanh",
     memory(right_c, lambda cell, q, c: q.o * c), ""),
    ("output of the old c", LSTM, "h is made of the c before the step",
     equation(lambda cell, q, old: cells.LSTMState(q.o * cell.act.value(old.c), q.c)), ""),
    ("output gate left out", LSTM, "h is tanh(c), whatever the output gate",
     memory(right_c, lambda cell, q, c: cell.act.value(c)), ""),
    ("forget gate left out", LSTM, "c is c + i g, as in 1997",
     memory(lambda q, old: old.c + q.i * q.g), ""),
    ("forget gate on all of c", LSTM, "c is f (c + i g)",
     memory(lambda q, old: q.f * (old.c + q.i * q.g)), ""),
    ("candidate not squashed", LSTM, "c is f c + i times the candidate's sum",
     memory(lambda q, old: q.f * old.c + q.i * q.pre.g), ""),
    ("bias after the squash", SIMPLE, "the bias is added to the output",
     Engine(step=squashed_before_bias), ""),
    ("hard sigmoid of Keras 2", GATED, "the gates are clip(0.2 x + 0.5, 0, 1)",
     acting(rec="hard_sigmoid_keras2"), "tensorflow/tensorflow/issues/47495"),
    ("hard sigmoid of Keras 3", GATED, "the gates are clip(x / 6 + 0.5, 0, 1)",
     acting(rec="hard_sigmoid"), "tensorflow/tensorflow/issues/65381"),
    ("relu for tanh", ALL, "the candidate and the output are squashed by relu", acting("relu"),
     "sonos/tract/issues/2751"),
    ("softsign for tanh", ALL, "the candidate and the output are squashed by softsign",
     acting("softsign"), ""),
    ("hard tanh for tanh", ALL, "the candidate and the output are clipped to -1 and 1",
     acting("hard_tanh"), ""),
    ("linear for tanh", ALL, "nothing is squashed but the gates", acting("linear"), ""),
    ("tanh for sigmoid", GATED, "the gates are squashed by tanh", acting(rec="tanh"), ""),
    ("sigmoid for tanh", ALL, "the candidate and the output are squashed by sigmoid",
     acting("sigmoid"), ""),
    ("time reversed", ALL, "the sequence is read from its end", Engine(called=turned),
     "onnx/onnx/issues/2881"),
    ("outputs flipped", ALL, "the outputs come in the other order of time",
     Engine(result=lambda y, past: (y[:, ::-1], past[-1])), "onnx/onnx/issues/2881"),
    ("time-major memory", ALL, "the input's memory is read as time, batch, features",
     Engine(called=time_major), ""),
    ("rows reversed", ALL, "the outputs' rows come in the other order",
     Engine(result=lambda y, past: (y[::-1], past[-1])), ""),
    ("last partial tile of units", ALL, "units beyond a multiple of 8 are not computed",
     Engine(result=not_computed(2, 8)), ""),
    ("last partial tile of rows", ALL, "rows beyond a multiple of 2 are not computed",
     Engine(result=not_computed(0, 2)), "tensorflow/tensorflow/issues/51561"),
    ("last partial tile of steps", ALL, "the outputs of steps beyond a multiple of 4 are not"
     " written", Engine(result=not_computed(1, 4)), ""),
    ("features beyond a multiple of 4", ALL, "the input's product leaves out its last terms",
     tail_left_out("x_product", 4), ""),
    ("state beyond a multiple of 4", ALL, "the state's product leaves out its last terms",
     tail_left_out("h_product", 4), ""),
    ("mask ignored", ALL, "masked steps are run like any other",
     Engine(called=lambda call: call._replace(mask=None)), ""),
    ("mask inverted", ALL, "the mask is True where a step is to be skipped",
     masked(lambda m: ~m), ""),
    ("mask taken for lengths", ALL, "the live steps are counted and taken for the first ones",
     masked(as_lengths), "tensorflow/tensorflow/issues/33148"),
    ("holes in the mask filled", ALL, "everything up to the last live step is run",
     masked(up_to_the_last), ""),
    ("mask one step late", ALL, "each step has the mask of the step before", masked(late), ""),
    ("mask of the first row for all", ALL, "every row has the mask of the first",
     masked(lambda m: np.broadcast_to(m[:1], m.shape)), "microsoft/onnxruntime/issues/1400"),
    ("mask not turned", ALL, "the mask runs in the other direction than the input",
     masked(lambda m: m[:, ::-1]), "keras-team/keras/issues/17596"),
    ("a masked row stops all", ALL, "a step that is masked in one row is skipped in all",
     masked(lambda m: np.broadcast_to(m.all(0), m.shape)), ""),
    ("other output at masked steps", ALL, "masked steps emit zeros instead of the last output, or"
     " the other way", Engine(keep=other_padding), "microsoft/onnxruntime/issues/1193"),
    ("state emitted at masked steps", ALL, "masked steps before the first live one emit the first"
     " state, as Keras does on JAX", Engine(keep=state_emitted), ""),
    ("state cleared at masked steps", ALL, "masked steps forget the state", Engine(keep=cleared),
     ""),
)  # fmt: skip

CONVENTIONS = tuple(
    Mutant(name, "convention", applies, wrong, engine.implementation, issue and GITHUB + issue)
    for name, applies, wrong, engine, issue in _ROWS
)
