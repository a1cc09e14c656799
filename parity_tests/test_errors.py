"""Theorem: what is wrong is refused at the border, in words, before anything is touched.

Each row of a table below is a mistake and the words that answer it: who speaks, what was given,
what was expected, and why. A table for each part of the border; after them, that a refused call
changes nothing, that no call writes into its arguments, and that results share no memory.
"""

import re

import numpy as np
import pytest

import refrnn
from refrnn import activations, models
from refrnn.cells import CELLS
from refrnn.layers import (
    GRU,
    LSTM,
    Dense,
    GRUCell,
    Input,
    Layer,
    LSTMCell,
    SimpleRNN,
    SimpleRNNCell,
    TimeDistributed,
)
from refrnn.layers.base import GONE

B, T, F, H = 4, 5, 3, 2
RNG = np.random.default_rng(7)
X = RNG.normal(size=(B, T, F))
S = RNG.normal(size=(B, H))
M = np.ones((B, T), bool)


def weights(cell="lstm", dtype="float64"):
    return refrnn.Weights(
        *(np.random.default_rng(1).normal(size=s).astype(dtype) for s in CELLS[cell].shapes(F, H))
    )


W = weights()
RAGGED = [[1.0, 2.0], [3.0]]


def run(cell="lstm", xs=X, *args, w=None, **kwargs):
    return refrnn.run(cell, weights(cell) if w is None else w, xs, *args, **kwargs)


def assert_refused(call, error, text):
    """`call` raises `error` itself, with words that begin with `text`."""
    with pytest.raises(error, match=f"^{re.escape(text)}") as caught:
        call()
    assert caught.type is error
    assert len(str(caught.value)) < 1000


def table(rows):
    """A decorator: one test for each row `id: (call, error, words it begins with)`."""
    cases = [pytest.param(*row, id=name) for name, row in rows.items()]
    return pytest.mark.parametrize(("call", "error", "text"), cases)


# --- run and trace -----------------------------------------------------------------------------

NO_BROADCAST = ": a row for each row of the input, a column for each unit; it is never broadcast"
ONE_DTYPE = "; expected one dtype for all of float32, float64, float16, bfloat16"
WIDTHS = f" for {F} features (rows of kernel) and {H} units (rows of recurrent_kernel)"
NUMBERS = ", expected real numbers, because they are computed with in float64"
KNOWN_CELLS = ", expected one of 'simple', 'gru', 'gru_reset_before', 'lstm'"
FUNCTION = "is another function"
NOT_ONE = "is not an array of one shape: "

RUN = {
    "unknown cell": (lambda: refrnn.run("lsm", W, X), ValueError, f"cell is 'lsm'{KNOWN_CELLS}"),
    "cell of another type": (lambda: refrnn.run(3, W, X), ValueError, f"cell is 3{KNOWN_CELLS}"),
    "list for a cell": (
        lambda: refrnn.run(["lstm"], W, X), ValueError, f"cell is ['lstm']{KNOWN_CELLS}"),
    "one weight": (
        lambda: run(w=W[:1]), ValueError,
        "lstm: the weights are 1 arrays, expected 3: kernel, recurrent_kernel, bias"
        " (bias may be None)"),
    "four weights": (
        lambda: run(w=[*W, W.bias]), ValueError, "lstm: the weights are 4 arrays, expected 3:"),
    "flat kernel": (
        lambda: run(w=(W.bias, *W[1:])), ValueError,
        "lstm: kernel and recurrent_kernel have shapes [(8,), (2, 8)], expected two dimensions"
        " each: (F, G*H), (H, G*H)"),
    "mixed dtypes": (
        lambda: run(w=W._replace(kernel=W.kernel.astype("f4"))), TypeError,
        f"lstm: kernel float32, recurrent_kernel float64, bias float64{ONE_DTYPE}"),
    "mixed dtypes without bias": (
        lambda: run(w=(W.kernel, W.recurrent_kernel.astype("f2"), None)), TypeError,
        f"lstm: kernel float64, recurrent_kernel float16{ONE_DTYPE}"),
    **{
        f"weights of {dtype}": (
            lambda dtype=dtype: run(w=[a.astype(dtype) for a in W]), TypeError,
            f"lstm: kernel {name}, recurrent_kernel {name}, bias {name}{ONE_DTYPE}")
        for dtype, name in (
            ("int64", "int64"), ("complex128", "complex128"), ("<U32", "<U32"), ("O", "object"),
            ("bool", "bool"), ("longdouble", np.dtype("longdouble").name),
        )
    },
    "kernel of another cell": (
        lambda: run(w=weights("gru")._replace(bias=None)), ValueError,
        f"lstm: kernel has shape (3, 6), expected (3, 8){WIDTHS}"),
    "recurrent kernel": (
        lambda: run(w=W._replace(recurrent_kernel=W.recurrent_kernel[:, :6])), ValueError,
        f"lstm: recurrent_kernel has shape (2, 6), expected (2, 8){WIDTHS}"),
    "bias": (
        lambda: run(w=W._replace(bias=W.bias[:3])), ValueError,
        f"lstm: bias has shape (3,), expected (8,){WIDTHS}"),
    "bias to broadcast": (
        lambda: run(w=W._replace(bias=W.bias[:1])), ValueError,
        f"lstm: bias has shape (1,), expected (8,){WIDTHS}"),
    "bias of the other GRU, one row": (
        lambda: run("gru", w=weights("gru_reset_before")), ValueError,
        f"gru: bias has shape (6,), expected (2, 6){WIDTHS};"
        f" a bias of that shape belongs to 'gru_reset_before', which {FUNCTION}"),
    "bias of the other GRU, two rows": (
        lambda: run("gru_reset_before", w=weights("gru")), ValueError,
        f"gru_reset_before: bias has shape (2, 6), expected (6,){WIDTHS};"
        f" a bias of that shape belongs to 'gru', which {FUNCTION}"),
    "input of two dimensions": (
        lambda: run(xs=X[0]), ValueError,
        "lstm: the input has shape (5, 3), expected (batch, time, 3), because the kernel has 3"
        " rows, one for each feature"),
    "input of four dimensions": (
        lambda: run(xs=X[None]), ValueError, "lstm: the input has shape (1, 4, 5, 3), expected"),
    "input too narrow": (
        lambda: run(xs=X[:, :, :2]), ValueError,
        "lstm: the input has shape (4, 5, 2), expected (batch, time, 3)"),
    "input of one feature to broadcast": (
        lambda: run(xs=X[:, :, :1]), ValueError, "lstm: the input has shape (4, 5, 1), expected"),
    "no input": (lambda: run(xs=None), ValueError, "lstm: the input has shape (), expected"),
    **{
        f"input of {dtype}": (
            lambda dtype=dtype: run(xs=np.zeros(X.shape, dtype)), TypeError,
            f"lstm: the input has dtype {name}{NUMBERS}")
        for dtype, name in (
            ("complex128", "complex128"), ("<U3", "<U3"), ("O", "object"),
            ("M8[s]", "datetime64[s]"),
        )
    },
    "engine": (
        lambda: run(engine="cuda"), ValueError,
        "lstm: engine is 'cuda', expected one of auto, numpy, numba"),
    "engine without a kernel": (
        lambda: run(activation="relu", engine="numba"), ValueError,
        "lstm: engine is 'numba', expected 'auto' or 'numpy', because there are kernels for tanh"
        " and sigmoid in float32 and float64 only, not for relu and sigmoid in float64"),
    "no engine": (lambda: run(engine=None), ValueError, "lstm: engine is None, expected one of"),
    "activation": (
        lambda: run(activation="tahn"), ValueError,
        "lstm: activation 'tahn' is not known (did you mean 'tanh'?); expected one of celu,"),
    "recurrent activation": (
        lambda: run(recurrent_activation="sigmoit"), ValueError,
        "lstm: recurrent_activation 'sigmoit' is not known (did you mean 'sigmoid'?);"),
    "activation of another type": (
        lambda: run(activation=3), ValueError,
        "lstm: activation 3 is a int, expected a name, None for linear, or a function of one"
        " array"),
    "last output to broadcast": (
        lambda: run(last_output=S[:1], mask=M), ValueError,
        "lstm: last_output has shape (1, 2), expected (4, 2): a row for each row of the input, a"
        " column for each unit"),
    "glu, which two units would broadcast": (
        lambda: run(activation="glu"), ValueError,
        "lstm: activation 'glu' halves the width, expected one that keeps it, because each gate"
        " must stay as wide as the state"),
    "threshold": (
        lambda: run(recurrent_activation="threshold"), ValueError,
        "lstm: recurrent_activation 'threshold' needs further arguments (threshold,"
        " default_value), expected an activation of one argument; pass a function,"),
    "recurrent activation without gates": (
        lambda: run("simple", recurrent_activation="sigmoid"), ValueError,
        "simple: recurrent_activation is 'sigmoid', expected None, because a SimpleRNN has no"
        " gates"),
    "function of another shape": (
        lambda: run(activation=lambda a: a[:1]), ValueError,
        "lstm: activation '<lambda>' turns shape "),
    **{
        f"{flag} of text": (
            lambda flag=flag: run(**{flag: "no"}), ValueError,
            f"lstm: {flag} is 'no', expected True or False")
        for flag in ("go_backwards", "zero_output_for_mask")
    },
    "ragged input": (
        lambda: run(xs=RAGGED), ValueError, f"lstm: the input {NOT_ONE}"),
    "ragged input of a layer": (
        lambda: LSTM(2, name="a")(RAGGED), ValueError, f"LSTM 'a': the input {NOT_ONE}"),
    "ragged state": (
        lambda: run("gru", X, [RAGGED]), ValueError, f"gru: state h {NOT_ONE}"),
    "no weights": (
        lambda: refrnn.run("lstm", None, X), ValueError,
        "lstm: the weights are None, expected 3: kernel, recurrent_kernel, bias"),
    "no kernel": (
        lambda: run(w=(None, *W[1:])), ValueError,
        "lstm: kernel is None, expected an array; only bias may be None"),
    "trace, cell": (
        lambda: refrnn.trace("lsm", W, X), ValueError, f"cell is 'lsm'{KNOWN_CELLS}"),
    "trace, input": (
        lambda: refrnn.trace("lstm", W, X[0]), ValueError, "lstm: the input has shape (5, 3),"),
    "trace, state": (
        lambda: refrnn.trace("lstm", W, X, [S]), ValueError, "lstm: the state is given as 1 parts"),
    "trace, mask": (
        lambda: refrnn.trace("lstm", W, X, mask=M[0]), ValueError,
        "lstm: the mask has shape (5,), expected (4, 5)"),
    "trace, reset": (
        lambda: refrnn.trace("lstm", W, X, reset=M[0]), ValueError,
        "lstm: the reset has shape (5,), expected (4, 5)"),
}  # fmt: skip


@table(RUN)
def test_run_refuses(call, error, text):
    assert_refused(call, error, text)


STATES = {  # for an LSTM; the first two Keras would broadcast
    "h of one row": (
        [S[:1], S],
        ValueError,
        f"state h is of shape (1, 2), expected (4, 2){NO_BROADCAST}",
    ),
    "h without rows": (
        [S[0], S],
        ValueError,
        f"state h is of shape (2,), expected (4, 2){NO_BROADCAST}",
    ),
    "c of one row": ([S, S[:1]], ValueError, "state c is of shape (1, 2), expected (4, 2)"),
    "c of one unit": ([S, S[:, :1]], ValueError, "state c is of shape (4, 1), expected (4, 2)"),
    "h too wide": ([X[:, 0], S], ValueError, "state h is of shape (4, 3), expected (4, 2)"),
    "h a number": ([0.0, S], ValueError, "state h is of shape (), expected (4, 2)"),
    "transposed": ([S.T, S.T], ValueError, "state h is of shape (2, 4), expected (4, 2)"),
    "no c": ([S, None], ValueError, "state c is None, expected (4, 2)"),
    "one part": ([S], ValueError, "the state is given as 1 parts, expected a list of 2: h, c"),
    "three parts": (
        (S, S, S),
        ValueError,
        "the state is given as 3 parts, expected a list of 2: h, c",
    ),
    "a bare array": (S, ValueError, "the state is given as ndarray, expected a list of 2: h, c"),
    "a stack": (
        np.stack([S, S]),
        ValueError,
        "the state is given as ndarray, expected a list of 2: h, c",
    ),
    "a dictionary": (
        {"h": S, "c": S},
        ValueError,
        "the state is given as dict, expected a list of 2",
    ),
    "the state of a GRU": (
        refrnn.State(S),
        ValueError,
        "the state is given as 1 parts, expected a",
    ),
    "h of text": ([S.astype(str), S], TypeError, "state h has dtype <U32, expected real numbers"),
    "c complex": ([S, S + 1j], TypeError, "state c has dtype complex128, expected real numbers"),
    "c of objects": (
        [S, S.astype("O")],
        TypeError,
        "state c has dtype object, expected real numbers",
    ),
}
STATE_ROWS = pytest.mark.parametrize(
    ("state", "error", "text"), [pytest.param(*row, id=name) for name, row in STATES.items()]
)


@pytest.fixture(params=["run", "layer", "cell", "reset_states"])
def start(request):
    """A way to hand over a state, and who answers: four doors to one check."""
    if request.param == "run":
        return lambda state: run("lstm", X, state), "lstm"
    if request.param == "layer":
        layer = LSTM(H, name="a", dtype="float64")
        return lambda state: layer(X, initial_state=state), "LSTM 'a'"
    if request.param == "cell":
        cell = LSTMCell(H, name="a", dtype="float64")
        return lambda state: cell(X[:, 0], state), "LSTMCell 'a'"
    layer = LSTM(H, name="a", dtype="float64", stateful=True)
    layer(X)
    return lambda state: layer.reset_states(state, rows=range(B)), "LSTM 'a'"


@STATE_ROWS
def test_a_state_is_never_broadcast_cut_or_guessed(start, state, error, text):
    call, who = start
    assert_refused(lambda: call(state), error, f"{who}: {text}")


@pytest.mark.parametrize("cell", ["gru", "gru_reset_before", "simple"])
def test_a_state_of_one_part_takes_no_second(cell):
    text = f"{cell}: the state is given as 2 parts, expected a list of 1: h"
    assert_refused(lambda: run(cell, X, [S, S]), ValueError, text)
    assert_refused(lambda: run(cell, X, refrnn.LSTMState(S, S)), ValueError, text)
    assert_refused(
        lambda: run(cell, X, S[:1]), ValueError, f"{cell}: state h is of shape (1, 2), expected"
    )


TRUTH = ": one truth value for each row and time step of the input"
MASKS = {
    "too short": (M[:, :4], ValueError, f"has shape (4, 4), expected (4, 5){TRUTH}"),
    "too few rows": (M[:3], ValueError, f"has shape (3, 5), expected (4, 5){TRUTH}"),
    "no rows": (M[0], ValueError, "has shape (5,), expected (4, 5)"),
    "one step": (M[:, :1], ValueError, "has shape (4, 1), expected (4, 5)"),
    "a number": (True, ValueError, "has shape (), expected (4, 5)"),
    "transposed": (M.T, ValueError, "has shape (5, 4), expected (4, 5)"),
    "for each unit": (np.ones((B, T, H)), ValueError, "has shape (4, 5, 2), expected (4, 5)"),
    "two masks": ([M, M], ValueError, "has shape (2, 4, 5), expected (4, 5)"),
    "text": (M.astype(str), TypeError, "has dtype <U5, expected booleans or numbers"),
    "complex": (M.astype(complex), TypeError, "has dtype complex128, expected booleans or numbers"),
    "objects": (M.astype("O"), TypeError, "has dtype object, expected booleans or numbers"),
}
MASK_ROWS = pytest.mark.parametrize(
    ("mask", "error", "text"), [pytest.param(*row, id=name) for name, row in MASKS.items()]
)


@MASK_ROWS
@pytest.mark.parametrize("name", ["mask", "reset"])
def test_run_refuses_a_mask_or_reset(name, mask, error, text):
    assert_refused(lambda: run(**{name: mask}), error, f"lstm: the {name} {text}")


@MASK_ROWS
@pytest.mark.parametrize("kind", [LSTM, GRU, SimpleRNN])
def test_a_layer_refuses_a_mask(kind, mask, error, text):
    layer = kind(H, name="a")
    who = f"{kind.__name__} 'a'"
    assert_refused(lambda: layer(X, mask=mask), error, f"{who}: the mask {text}")


@MASK_ROWS
def test_time_distributed_refuses_a_mask(mask, error, text):
    layer = TimeDistributed(Dense(2), name="a")
    assert_refused(lambda: layer(X, mask=mask), error, f"TimeDistributed 'a': the mask {text}")


# --- constructors ------------------------------------------------------------------------------

RECURRENT = [LSTM, GRU, SimpleRNN]
CELL_KINDS = [LSTMCell, GRUCell, SimpleRNNCell]
WITH_UNITS = [*RECURRENT, *CELL_KINDS, Dense]


def kinds(*classes):
    return pytest.mark.parametrize("kind", classes, ids=lambda kind: kind.__name__)


@kinds(*WITH_UNITS)
@pytest.mark.parametrize("units", [0, -1, 2.0, True, "2", None, np.float32(2), [2]], ids=repr)
def test_units_are_a_whole_number_of_at_least_one(kind, units):
    text = f"{kind.__name__} 'a': units is {units!r}, expected a whole number of at least 1"
    assert_refused(lambda: kind(units, name="a"), ValueError, text)


@kinds(*WITH_UNITS)
def test_units_are_asked_for(kind):
    assert_refused(kind, ValueError, f"{kind.__name__}: argument 'units' is missing")


def test_the_table_of_gone_arguments_is_that_of_keras_2():
    names = "time_major batch_input_shape batch_size input_shape input_dim input_length weights"
    assert sorted(GONE) == sorted(names.split())


@kinds(*WITH_UNITS)
@pytest.mark.parametrize("name", GONE)
def test_an_argument_that_is_gone_is_refused_with_what_to_do(kind, name):
    text = f"{kind.__name__}: unknown argument {name}=(2, 3); {GONE[name]}; expected one of units,"
    assert_refused(lambda: kind(2, **{name: (2, 3)}), ValueError, text)


UNKNOWN = (
    (LSTM, "reset_after"), (LSTM, "return_sequence"), (GRU, "unit_forget_bias"),
    (SimpleRNN, "recurrent_activation"), (SimpleRNN, "implementation"), (SimpleRNN, "use_cudnn"),
    (LSTMCell, "return_sequences"), (SimpleRNNCell, "implementation"), (Dense, "dropout"),
)  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), UNKNOWN, ids=[f"{k.__name__}-{n}" for k, n in UNKNOWN])
def test_an_unknown_argument_is_refused_with_the_known_ones(kind, name):
    text = f"{kind.__name__}: unknown argument {name}=True; expected one of units, activation,"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}") as caught:
        kind(2, **{name: True})
    for known in kind.ARGUMENTS | kind.KEYWORDS:
        assert known in str(caught.value)


@kinds(*RECURRENT)
@pytest.mark.parametrize("value", ["yes", "False", None, 1.0, [1]], ids=repr)
def test_a_flag_is_true_or_false(kind, value):
    flags = [name for name, default in kind.ARGUMENTS.items() if isinstance(default, bool)]
    assert {"return_sequences", "return_state", "go_backwards", "stateful", "use_bias"} < set(flags)
    for name in [*flags, "zero_output_for_mask", "trainable"]:
        text = f"{kind.__name__} 'a': {name} is {value!r}, expected True or False"
        assert_refused(lambda n=name: kind(2, name="a", **{n: value}), ValueError, text)


@kinds(*RECURRENT, *CELL_KINDS)
@pytest.mark.parametrize("rate", ["dropout", "recurrent_dropout"])
@pytest.mark.parametrize("value", ["0.5", None, True, [0.5], float("nan")], ids=repr)
def test_a_rate_is_a_number(kind, rate, value):
    text = f"{kind.__name__} 'a': {rate} is {value!r}, expected a number from 0 to 1"
    assert_refused(lambda: kind(2, name="a", **{rate: value}), ValueError, text)


@kinds(LSTM, GRU, LSTMCell, GRUCell)
@pytest.mark.parametrize("value", ["x", None, 3], ids=repr)
def test_an_implementation_is_1_or_2(kind, value):
    text = f"{kind.__name__} 'a': implementation is {value!r}, expected 1 or 2"
    assert_refused(lambda: kind(2, name="a", implementation=value), ValueError, text)


@kinds(*WITH_UNITS)
@pytest.mark.parametrize("name", ["", 3, "a/b", b"a"], ids=repr)
def test_a_name_is_a_string_without_slashes(kind, name):
    text = f"{kind.__name__}: name is {name!r}, expected a string without '/'"
    assert_refused(lambda: kind(2, name=name), ValueError, text)


DTYPES = ["int32", "longdouble", "complex64", "qq", 3, object, {}, "mixed_int8"]


@kinds(*WITH_UNITS)
@pytest.mark.parametrize("dtype", DTYPES, ids=repr)
def test_a_dtype_is_one_that_is_computed_in(kind, dtype):
    text = (
        f"{kind.__name__} 'a': dtype is {dtype!r},"
        " expected one of float32, float64, float16, bfloat16"
    )
    assert_refused(lambda: kind(2, name="a", dtype=dtype), ValueError, text)


def test_bfloat16_asks_for_its_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    text = (
        "LSTM 'a': dtype is 'bfloat16', which NumPy has only with the package ml_dtypes;"
        " install it: pip install ml_dtypes"
    )
    assert_refused(lambda: LSTM(2, name="a", dtype="bfloat16"), ImportError, text)


NOT_ALONE = "needs further arguments (threshold, default_value), expected an activation of one"
CONFIG_CODE = {"class_name": "function", "config": "mine"}
ACTIVATION_VALUES = {
    "misspelt": ("tahn", "'tahn' is not known (did you mean 'tanh'?); expected one of celu, elu,"),
    "a number": (3, "3 is a int, expected a name, None for linear, or a function of one array"),
    "threshold": ("threshold", f"'threshold' {NOT_ALONE}"),
    "code": (
        CONFIG_CODE,
        "is stored as 'function' 'mine', expected the name of an activation, because code from a"
        " config is never run; pass the function itself to the layer",
    ),
}


@kinds(LSTM, GRU, SimpleRNN, LSTMCell, GRUCell, SimpleRNNCell, Dense)
@pytest.mark.parametrize("case", ACTIVATION_VALUES)
@pytest.mark.parametrize("argument", ["activation", "recurrent_activation"])
def test_an_activation_is_a_name_or_a_function(kind, argument, case):
    if argument not in kind.ARGUMENTS:
        with pytest.raises(ValueError, match="unknown argument recurrent_activation='tanh'"):
            kind(2, **{argument: "tanh"})
        return
    value, words = ACTIVATION_VALUES[case]
    with pytest.raises(ValueError, match=f"^{kind.__name__} 'a': {argument} {re.escape(words)}"):
        kind(2, name="a", **{argument: value})


@kinds(LSTM, GRU, SimpleRNN, LSTMCell, GRUCell, SimpleRNNCell)
@pytest.mark.parametrize("argument", ["activation", "recurrent_activation"])
@pytest.mark.parametrize("value", ["glu", activations.ACTIVATIONS["glu"]], ids=["name", "row"])
def test_glu_has_no_place_in_a_cell(kind, argument, value):
    if argument not in kind.ARGUMENTS:
        return
    text = (
        f"{kind.__name__} 'a': {argument} 'glu' halves the width, expected one that keeps it,"
        " because each gate must stay as wide as the state"
    )
    assert_refused(lambda: kind(2, name="a", **{argument: value}), ValueError, text)


@kinds(LSTM, GRU, LSTMCell, GRUCell, SimpleRNN, SimpleRNNCell)
@pytest.mark.parametrize("argument", ["kernel", "recurrent", "bias"])
def test_an_initializer_is_known(kind, argument):
    name = f"{argument}_initializer"
    text = f"{kind.__name__} 'a': {name}: initializer 'he' is not known; expected one of zeros,"
    assert_refused(lambda: kind(2, name="a", **{name: "he"}), ValueError, text)


@kinds(LSTM, GRU, SimpleRNN, Dense)
@pytest.mark.parametrize(
    "argument", ["kernel_regularizer", "activity_regularizer", "bias_constraint"]
)
def test_what_acts_in_training_is_kept_by_name_only(kind, argument):
    text = (
        f"{kind.__name__} 'a': {argument} is 0.1, expected None, a name or a Keras config, because"
        " refrnn keeps it for the config only: it acts in training, never on an output"
    )
    assert_refused(lambda: kind(2, name="a", **{argument: 0.1}), ValueError, text)


CPU = "expected 'auto' or False, because refrnn runs on the CPU"
CONSTRUCTORS = {
    **{
        f"use_cudnn={value!r}": (
            lambda value=value: LSTM(2, name="a", use_cudnn=value), ValueError,
            f"LSTM 'a': use_cudnn is {value!r}, {CPU}")
        for value in (True, "yes", None)
    },
    "use_cudnn of a GRU": (
        lambda: GRU(2, name="a", use_cudnn=True), ValueError,
        f"GRU 'a': use_cudnn is True, {CPU}"),
    "engine": (
        lambda: GRU(2, name="a", engine="cuda"), ValueError,
        "GRU 'a': engine is 'cuda', expected one of auto, numpy, numba"),
    "engine without a kernel": (
        lambda: GRU(2, name="a", dtype="float16", engine="numba"), ValueError,
        "GRU 'a': engine is 'numba', expected 'auto' or 'numpy', because there are kernels for"
        " tanh and sigmoid in float32 and float64 only, not for tanh and sigmoid in float16"),
    "an argument twice": (
        lambda: LSTM(3, units=2), ValueError, "LSTM: argument 'units' is given twice"),
    "too many arguments": (
        lambda: SimpleRNNCell(*range(20)), ValueError,
        "SimpleRNNCell: 20 positional arguments, expected at most 15: units, activation,"),
    "config": (
        lambda: LSTM.from_config(3), ValueError, "LSTM: config is 3, expected a dictionary"),
    "config with a new argument": (
        lambda: LSTM.from_config({"units": 2, "quantum": 1}), ValueError,
        "LSTM: unknown argument quantum=1; expected one of units,"),
    "config without units": (
        lambda: LSTM.from_config({}), ValueError, "LSTM: argument 'units' is missing"),
    "low-rank adapter": (
        lambda: Dense(2, name="a", lora_rank=3), ValueError,
        "Dense 'a': lora_rank is 3, expected None, because refrnn has neither low-rank adapters"
        " nor quantised kernels"),
    "quantised": (
        lambda: Dense(2, name="a", quantization_config={"k": 1}), ValueError,
        "Dense 'a': quantization_config is {'k': 1}, expected None, because"),
    **{
        f"TimeDistributed of {value!r}": (
            lambda value=value: TimeDistributed(value, name="a"), ValueError,
            f"TimeDistributed 'a': layer is {value!r}, expected a refrnn layer, such as"
            " layers.Dense(3)")
        for value in (3, None, "Dense", Dense)
    },
    "TimeDistributed of another layer's config": (
        lambda: TimeDistributed({"class_name": "Lambda", "config": {"name": "in"}}), ValueError,
        "layer 'in' is a Lambda, which refrnn does not have; expected one of SimpleRNN,"),
    "TimeDistributed of a cell": (
        lambda: TimeDistributed(LSTMCell(2, name="c"), name="a"), ValueError,
        "TimeDistributed 'a': layer is <LSTMCell 'c'>, expected"),
    "glu of an odd width": (
        lambda: Dense(3, name="a", activation="glu"), ValueError,
        "Dense 'a': activation 'glu' splits 3 units in two, expected an even number of units"),
    "Sequential of a layer, not a list": (
        lambda: refrnn.Sequential(Dense(2, name="a")), ValueError,
        "Sequential: layers is <Dense 'a'>, expected a list of refrnn layers"),
    "Sequential with a state in the middle": (
        lambda: refrnn.Sequential([GRU(2, return_state=True, name="a"), Dense(2)], name="m"),
        ValueError,
        "model 'm': GRU 'a' returns 2 arrays (return_state, or no merge_mode), expected one,"
        " because the next layer takes a single array"),
    "TimeDistributed of nothing": (
        TimeDistributed, ValueError, "TimeDistributed: argument 'layer' is missing"),
    "TimeDistributed of a stateful layer": (
        lambda: TimeDistributed(LSTM(2, name="in", stateful=True), name="a"), ValueError,
        "TimeDistributed 'a': layer is <LSTM 'in'> with stateful=True and return_state=False,"
        " expected both False, because its batch is made of every row at every step"),
    "TimeDistributed of a layer that returns its state": (
        lambda: TimeDistributed(GRU(2, name="in", return_state=True), name="a"), ValueError,
        "TimeDistributed 'a': layer is <GRU 'in'> with stateful=False and return_state=True,"),
    "Sequential of a number": (
        lambda: refrnn.Sequential([Dense(2), 3], name="m"), ValueError,
        "model 'm': layer 1 is 3, expected a refrnn layer"),
    "Sequential of one name twice": (
        lambda: refrnn.Sequential([Dense(2, name="a"), GRU(2, name="a")], name="m"), ValueError,
        "model 'm': two layers are called 'a', expected unique names"),
    "Sequential with an input behind a layer": (
        lambda: refrnn.Sequential([Dense(2), Input((F,), name="x")], name="m"), ValueError,
        "model 'm': <Symbol 'x', shape=(None, 3), dtype=float32> comes after others, expected"
        " layers.Input in front"),
    "Sequential with a shape where Keras has trainable": (
        lambda: refrnn.Sequential([], (None, F), "m"), ValueError,
        "model 'm': trainable is (None, 3), expected True or False"),
    "function in a config": (
        lambda: LSTM(2, name="a", activation=np.tanh).get_config(), ValueError,
        "LSTM 'a': activation is the function tanh, which cannot be written into a config,"
        " expected an activation by name, because a function would have to be stored as code"),
    "initializing function in a config": (
        lambda: LSTM(2, name="a", bias_initializer=np.zeros).get_config(), ValueError,
        f"LSTM 'a': initializer {np.zeros!r} cannot be written into a config, expected a name"),
}  # fmt: skip


@table(CONSTRUCTORS)
def test_a_constructor_refuses(call, error, text):
    assert_refused(call, error, text)


# --- calls of layers ---------------------------------------------------------------------------

INPUTS = {
    "two dimensions": (X[0], ValueError, "has shape (5, 3), expected (batch, time, "),
    "four dimensions": (X[None], ValueError, "has shape (1, 4, 5, 3), expected (batch, time, "),
    "nothing": (None, ValueError, "has shape (), expected (batch, time, "),
    "complex": (X + 1j, TypeError, "has dtype complex128, expected real numbers, because"),
    "text": (X.astype(str), TypeError, "has dtype <U32, expected real numbers, because"),
    "objects": (X.astype("O"), TypeError, "has dtype object, expected real numbers, because"),
}


@kinds(*RECURRENT)
@pytest.mark.parametrize("case", INPUTS)
@pytest.mark.parametrize("built", [True, False], ids=["built", "unbuilt"])
def test_a_recurrent_layer_refuses_an_input(kind, case, built):
    layer = kind(H, name="a")
    if built:
        layer(X)
    given, error, text = INPUTS[case]
    assert_refused(lambda: layer(given), error, f"{kind.__name__} 'a': the input {text}")


@kinds(*RECURRENT)
def test_a_recurrent_layer_refuses_another_number_of_features(kind):
    layer = kind(H, name="a")
    layer(X)
    text = (
        f"{kind.__name__} 'a': the input has shape (4, 5, 2), expected (batch, time, 3), because"
        " the kernel has 3 rows, one for each feature"
    )
    assert_refused(lambda: layer(X[:, :, :2]), ValueError, text)


@kinds(*CELL_KINDS)
@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (X, ValueError, "has shape (4, 5, 3), expected (batch, features), because a cell takes"),
        (X[0, 0], ValueError, "has shape (3,), expected (batch, features), because a cell takes"),
        (X[:, 0] + 1j, TypeError, "has dtype complex128, expected real numbers, because"),
        (X[:, 0].astype(str), TypeError, "has dtype <U32, expected real numbers, because"),
    ],
    ids=["a sequence", "one row", "complex", "text"],
)
def test_a_cell_refuses_an_input(kind, given, error, text):
    cell = kind(H, name="a")
    states = [S] * len(cell.math.State._fields)
    assert_refused(lambda: cell(given, states), error, f"{kind.__name__} 'a': the input {text}")


@kinds(*CELL_KINDS)
def test_a_cell_refuses_another_number_of_features(kind):
    cell = kind(H, name="a")
    states = [S] * len(cell.math.State._fields)
    cell(X[:, 0], states)
    text = (
        f"{kind.__name__} 'a': the input has shape (4, 2), expected (batch, 3), because a cell"
        " takes one time step"
    )
    assert_refused(lambda: cell(X[:, 0, :2], states), ValueError, text)


def test_dense_names_the_shape_of_a_number():
    text = "Dense 'a': the input has shape (), expected (batch, ..., features)"
    assert_refused(lambda: Dense(2, name="a")(3.0), ValueError, text)


def test_training_is_allowed_where_nothing_would_be_dropped():
    layer = LSTM(H)
    np.testing.assert_array_equal(layer(X, training=True), layer(X))


def called(layer, *args):
    layer(*args)
    return layer


X4 = np.random.default_rng(3).normal(size=(4, 2, 5, 3))
CALLS = {
    "Dense, one dimension": (
        lambda: Dense(2, name="a")(X[0, 0]), ValueError,
        "Dense 'a': the input has shape (3,), expected (batch, ..., features)"),
    "Dense, features": (
        lambda: called(Dense(2, name="a"), X)(X[..., :2]), ValueError,
        "Dense 'a': the input has shape (4, 5, 2), expected (..., 3), because the kernel has a row"
        " for each feature"),
    "Dense, complex": (
        lambda: Dense(2, name="a")(X + 1j), TypeError,
        "Dense 'a': the input has dtype complex128, expected real numbers, because they are"
        " computed with in float32"),
    "Dense, text": (
        lambda: Dense(2, name="a")(X.astype(str)), TypeError,
        "Dense 'a': the input has dtype <U32, expected real numbers"),
    "Dense, built for an unknown width": (
        lambda: Dense(2, name="a").build((None, None)), ValueError,
        "Dense 'a': built for shape (None, None), expected a known number of features on the last"
        " axis, because the kernel has a row for each"),
    "cell, built for an unknown width": (
        lambda: GRUCell(2, name="a").build((None, None)), ValueError,
        "GRUCell 'a': built for shape (None, None), expected a known number of features"),
    "glu of an odd width": (
        lambda: activations.glu(np.zeros((2, 3))), ValueError,
        "glu: the last axis has length 3, expected an even one, because"),
    "TimeDistributed, features": (
        lambda: called(TimeDistributed(Dense(2, name="in"), name="a"), X)(X[..., :2]), ValueError,
        "TimeDistributed 'a': the input has shape (4, 5, 2), expected (..., 3), because Dense 'in'"
        " was built for 3 features"),
    "TimeDistributed, two dimensions": (
        lambda: TimeDistributed(Dense(2), name="a")(X[0]), ValueError,
        "TimeDistributed 'a': the input has shape (5, 3), expected (batch, time, ...)"),
    "TimeDistributed, built for two dimensions": (
        lambda: TimeDistributed(Dense(2), name="a").build((None, 3)), ValueError,
        "TimeDistributed 'a': built for shape (None, 3), expected (batch, time, ...)"),
    "TimeDistributed, mask of a recurrent layer": (
        lambda: TimeDistributed(GRU(2, name="in"), name="a")(X4, mask=np.ones((4, 2))), ValueError,
        "TimeDistributed 'a': the mask has shape (4, 2), expected (4, 2, 5), because GRU 'in' takes"
        " one for each of its sequences"),
    "TimeDistributed, mask of text": (
        lambda: TimeDistributed(GRU(2, name="in"), name="a")(
            X4, mask=np.ones((4, 2, 5)).astype(str)), TypeError,
        "GRU 'in': the mask has dtype <U32, expected booleans or numbers"),
    "a layer without call": (
        lambda: Layer(name="a")(X), NotImplementedError,
        "Layer 'a' does not say what it computes: define call"),
}  # fmt: skip


@table(CALLS)
def test_a_call_refuses(call, error, text):
    assert_refused(call, error, text)


# --- what is carried ---------------------------------------------------------------------------


def carrying(**options):
    """A stateful LSTM 'a' that carries a state of B rows."""
    return called(LSTM(H, name="a", dtype="float64", stateful=True, **options), X)


STATEFUL = {
    "another batch": (
        lambda: carrying()(X[:3]), ValueError,
        "LSTM 'a': the input has 3 rows, expected 4, because the layer is stateful and carries the"
        " state of 4 sequences; reset_states() first to start with another number"),
    "another batch with a state of its own": (
        lambda: carrying()(X[:3], initial_state=[S[:3], S[:3]]), ValueError,
        "LSTM 'a': the input has 3 rows, expected 4, because"),
    "a state for a layer that carries none": (
        lambda: LSTM(H, name="a").reset_states([S, S]), ValueError,
        "LSTM 'a': reset_states was given states, expected a layer made with stateful=True,"
        " because only such a layer carries a state"),
    "rows of a layer that carries none": (
        lambda: LSTM(H, name="a").reset_states(rows=[0]), ValueError,
        "LSTM 'a': reset_states was given rows [0], expected a layer that carries a state"),
    "rows before the first call": (
        lambda: LSTM(H, name="a", stateful=True).reset_states(rows=[0]), ValueError,
        "LSTM 'a': reset_states was given rows [0], expected a layer that carries a state"),
    **{
        f"row {rows!r}": (
            lambda rows=rows: carrying().reset_states(rows=rows), ValueError,
            f"LSTM 'a': row {wrong} is not there, expected 0 to 3, because the layer carries 4"
            " rows")
        for rows, wrong in ((4, 4), (-5, -5), ([0, 9], 9), ((1, -7, 8), -7))
    },
    **{
        f"rows {rows!r}": (
            lambda rows=rows: carrying().reset_states(rows=rows), ValueError,
            f"LSTM 'a': rows is {rows!r}, expected whole numbers, or 4 booleans")
        for rows in (1.5, "a", [[0]], [True, False], True, [0.0, 1.0])
    },
    "fewer states than rows": (
        lambda: carrying().reset_states([S[:1], S[:1]], rows=[0, 1]), ValueError,
        "LSTM 'a': state h is of shape (1, 2), expected (2, 2)"),
    "states too wide": (
        lambda: carrying().reset_states([X[:, 0], X[:, 0]]), ValueError,
        "LSTM 'a': state h is of shape (4, 3), expected (4, 2)"),
    "states of two batches": (
        lambda: carrying().reset_states([S, S[:3]]), ValueError,
        "LSTM 'a': state c is of shape (3, 2), expected (4, 2)"),
    "no states": (
        lambda: carrying().reset_states([]), ValueError,
        "LSTM 'a': the state is given as 0 parts, expected a list of 2: h, c"),
    "states of text": (
        lambda: carrying().reset_states([S, S.astype(str)]), TypeError,
        "LSTM 'a': state c has dtype <U32, expected real numbers"),
}  # fmt: skip


@table(STATEFUL)
def test_a_stateful_layer_refuses(call, error, text):
    assert_refused(call, error, text)


# --- weights -----------------------------------------------------------------------------------

KERNELS = list(weights("lstm", "float32"))
BUILT = ", the shape it was built with"
THREE = "expected 3: kernel, recurrent_kernel, bias"
SET_WEIGHTS = {
    "too few": (KERNELS[:2], ValueError, f"set_weights got 2 arrays, {THREE}"),
    "too many": (
        [*KERNELS, KERNELS[2]],
        ValueError,
        "set_weights got 4 arrays, expected 3: kernel,",
    ),
    "none": (
        [],
        ValueError,
        "set_weights got 0 arrays, expected 3: kernel, recurrent_kernel, bias",
    ),
    "last too short": (
        [*KERNELS[:2], KERNELS[2][:3]],
        ValueError,
        f"bias has shape (3,), expected (8,){BUILT}",
    ),
    "last to broadcast": (
        [*KERNELS[:2], KERNELS[2][:1]],
        ValueError,
        "bias has shape (1,), expected (8,), the shape",
    ),
    "last of text": (
        [*KERNELS[:2], KERNELS[2].astype(str)],
        TypeError,
        "bias has dtype <U32, expected real numbers, because",
    ),
    "last complex": (
        [*KERNELS[:2], KERNELS[2] + 1j],
        TypeError,
        "bias has dtype complex64, expected real numbers, because",
    ),
    "last None": ([*KERNELS[:2], None], ValueError, "bias has shape (), expected (8,), the shape"),
    "swapped": (
        [KERNELS[1], KERNELS[0], KERNELS[2]],
        ValueError,
        "kernel has shape (2, 8), expected (3, 8), the shape",
    ),
}


@pytest.mark.parametrize("case", SET_WEIGHTS)
def test_set_weights_refuses_and_then_has_written_none(case):
    layer = called(LSTM(H, name="a"), X)
    before = layer.get_weights()
    given, error, text = SET_WEIGHTS[case]
    assert_refused(lambda: layer.set_weights(given), error, f"LSTM 'a': {text}")
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not np.array_equal(before[0], KERNELS[0])  # they would have shown


@pytest.mark.parametrize("after", [True, False], ids=["reset after", "reset before"])
def test_a_gru_refuses_the_weights_of_the_other_gru(after):
    mine, other = (called(GRU(H, name="a", reset_after=r), X) for r in (after, not after))
    shapes = [(2, 6), (6,)]
    text = "GRU 'a': bias has shape {}, expected {}".format(*(shapes[::-1] if after else shapes))
    assert_refused(lambda: mine.set_weights(other.get_weights()), ValueError, text)


def two_layers():
    x = Input((None, F), name="input")
    layers = [x, LSTM(H, return_sequences=True, name="a"), Dense(2, name="d")]
    return called(refrnn.Sequential(layers, name="m"), X)


MODEL_WEIGHTS = {
    "too few": (lambda w: w[:2], ValueError, "model 'm': set_weights got 2 arrays, expected 5"),
    "last too long": (
        lambda w: [*w[:-1], np.ones(9)], ValueError,
        "model 'm': d/bias has shape (9,), expected (2,)"),
    "last of text": (
        lambda w: [*w[:-1], w[-1].astype(str)], TypeError,
        "model 'm': d/bias: the new value has dtype <U32, expected real numbers, because"),
}  # fmt: skip


@pytest.mark.parametrize("case", MODEL_WEIGHTS)
def test_a_model_refuses_weights_and_then_has_written_none(case):
    model = two_layers()
    before = model.get_weights()
    change, error, text = MODEL_WEIGHTS[case]
    given = change([w + 1 for w in before])
    assert_refused(lambda: model.set_weights(given), error, text)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


# --- models ------------------------------------------------------------------------------------

MODELS = {
    "a call of no layers": (
        lambda: refrnn.Sequential(name="m")(X), ValueError,
        "model 'm': has no layers, expected at least one"),
    "weights before the first call": (
        lambda: refrnn.Sequential([LSTM(2, name="a")], name="m").set_weights(KERNELS), ValueError,
        "model 'm': LSTM 'a' is not built, expected a call before set_weights, because the shapes"
        " of its weights follow from its input"),
    "rank": (
        lambda: two_layers()(X[0]), ValueError,
        "model 'm': input 'input' has shape (5, 3), expected 3 dimensions: ('batch', None, 3)"),
    "name of an input": (
        lambda: two_layers()({"x": X}), ValueError,
        "model 'm': inputs are ['x'], expected ['input']"),
    "features": (
        lambda: two_layers()(X[..., :2]), ValueError,
        "LSTM 'a': the input has shape (4, 5, 2), expected (batch, time, 3)"),
    "chunks of what runs backwards": (
        lambda: refrnn.Sequential([GRU(2, go_backwards=True, name="g")], name="m").advance(X),
        ValueError,
        "model 'm' cannot be run in chunks: GRU 'g' runs backwards, so its first output needs the"
        " last input"),
}  # fmt: skip


@table(MODELS)
def test_a_model_refuses(call, error, text):
    assert_refused(call, error, text)


def test_a_model_of_two_inputs_refuses_one(tf):
    keras = tf.keras
    inputs = [keras.Input((None, F), name=name) for name in ("left", "right")]
    outputs = [keras.layers.GRU(2, name=f"of_{i.name}")(i) for i in inputs]
    model = refrnn.from_keras(keras.Model(inputs, outputs, name="m"))
    model([X, X])
    assert_refused(lambda: model([X]), ValueError, "model 'm': 1 inputs, expected 2: left, right")
    assert_refused(
        lambda: model([X, X, X]), ValueError, "model 'm': 3 inputs, expected 2: left, right"
    )
    assert_refused(
        lambda: model({"left": X}), ValueError,
        "model 'm': inputs are ['left'], expected ['left', 'right']",
    )  # fmt: skip
    assert_refused(
        lambda: model([X, X[0]]), ValueError, "model 'm': input 'right' has shape (5, 3), expected"
    )


def test_a_model_whose_state_comes_from_within_cannot_be_run_in_chunks(tf):
    keras = tf.keras
    first = keras.Input((None, F), name="first")
    second = keras.Input((None, F), name="second")
    _, h = keras.layers.GRU(2, return_state=True, name="encoder")(first)
    y = keras.layers.GRU(2, name="decoder")(second, initial_state=h)
    model = refrnn.from_keras(keras.Model([first, second], y, name="m"))
    text = (
        "model 'm' cannot be run in chunks: GRU 'decoder' starts from a state that 'encoder' ends"
        " with"
    )
    assert_refused(lambda: model.advance([X, X]), ValueError, text)


def test_a_graph_that_waits_for_itself_is_refused():
    def entry(name, source):
        tensor = {"class_name": "__keras_tensor__", "config": {"keras_history": [source, 0, 0]}}
        return {
            "class_name": "Dense",
            "config": {"name": name, "units": 2},
            "inbound_nodes": [{"args": [tensor], "kwargs": {}}],
        }

    config = {
        "name": "m",
        "layers": [entry("a", "b"), entry("b", "a")],
        "input_layers": [],
        "output_layers": [["b", 0, 0]],
    }
    text = "the graph cannot be ordered: 'a', 'b' wait for one another"
    assert_refused(lambda: models.from_config("Functional", config), ValueError, text)


# --- from_keras --------------------------------------------------------------------------------

HAS = ", which refrnn does not have; expected one of SimpleRNN, GRU, LSTM,"


@pytest.mark.parametrize("place", ["alone", "Sequential", "functional"])
def test_a_layer_of_keras_that_is_not_here_is_named(tf, place):
    keras = tf.keras
    layer = keras.layers.Conv1DTranspose(2, 3, name="to_one")
    source = layer
    if place == "Sequential":
        source = keras.Sequential([keras.Input((None, F)), layer])
    if place == "functional":
        x = keras.Input((None, F))
        source = keras.Model(x, layer(x))
    text = f"layer 'to_one' is a Conv1DTranspose{HAS}"
    assert_refused(lambda: refrnn.from_keras(source), ValueError, text)


def test_a_subclass_of_a_keras_layer_is_not_taken_for_it(tf):
    class Clipped(tf.keras.layers.LSTM):
        pass

    same_name = type("LSTM", (tf.keras.layers.LSTM,), {"call": lambda self, x: x})
    for kind in (Clipped, same_name):
        text = f"layer 'mine' is a {kind.__name__} of {__name__}{HAS}"
        assert_refused(lambda k=kind: refrnn.from_keras(k(2, name="mine")), ValueError, text)


def test_a_layer_that_is_not_here_is_named_inside_time_distributed_too(tf):
    layers = tf.keras.layers
    source = layers.TimeDistributed(layers.Conv2DTranspose(2, 2, name="inner"), name="a")
    text = f"layer 'inner' is a Conv2DTranspose{HAS}"
    assert_refused(lambda: refrnn.from_keras(source), ValueError, text)


def test_other_objects_of_keras_are_no_layers(tf):
    for source in (tf.keras.initializers.Zeros(), tf.keras.optimizers.SGD()):
        with pytest.raises(TypeError, match=r"^from_keras: .* expected a layer or model of Keras$"):
            refrnn.from_keras(source)


def test_a_subclassed_model_is_refused_because_it_is_code(tf):
    class Mine(tf.keras.Model):
        def call(self, x):
            return x

    class Chain(tf.keras.Sequential):
        pass

    because = (
        ", expected a Sequential or functional model, because what a subclass computes is code"
        " that its config does not hold"
    )
    for source in (Mine(name="m"), Chain([tf.keras.layers.Dense(2)], name="m")):
        text = f"from_keras: model 'm' is a {type(source).__name__}{because}"
        assert_refused(lambda s=source: refrnn.from_keras(s), ValueError, text)


@pytest.mark.parametrize("value", [3, None, "LSTM", [1], LSTM, LSTM(2, name="a")], ids=repr)
def test_what_is_no_keras_object_is_refused(value):
    kind = f"{type(value).__module__}.{type(value).__name__}"
    text = f"from_keras: {value!r} is a {kind}, expected a layer or model of Keras"
    assert_refused(lambda: refrnn.from_keras(value), TypeError, text)


def test_a_class_of_keras_is_no_object_of_keras(tf):
    with pytest.raises(TypeError, match=r"is a builtins\.type, expected a layer or model of Keras"):
        refrnn.from_keras(tf.keras.layers.LSTM)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("which", "at"), [(0, (1, 5)), (1, (0, 5)), (2, (5,))], ids=["kernel", "recurrent", "bias"]
)
def test_weights_that_are_not_finite_are_refused(tf, bad, which, at):
    source = tf.keras.layers.LSTM(H, name="a")
    source.build((None, None, F))
    arrays = source.get_weights()
    arrays[which][at] = bad
    source.set_weights(arrays)
    name = ("kernel", "recurrent_kernel", "bias")[which]
    text = (
        f"LSTM 'a': {name} has 1 values that are not finite, the first {bad} at {list(at)};"
        " expected numbers, because every output would be NaN"
    )
    assert_refused(lambda: refrnn.from_keras(source), ValueError, text)


def test_an_adapter_of_keras_is_refused_by_name(tf):
    adapted = tf.keras.layers.Dense(2, name="d")
    adapted.build((None, 3))
    adapted.enable_lora(1)
    text = "Dense 'd': lora_rank is 1, expected None, because refrnn has neither"
    assert_refused(lambda: refrnn.from_keras(adapted), ValueError, text)


def test_an_object_as_activation_in_a_keras_layer_is_refused(tf):
    layers = tf.keras.layers
    source = layers.LSTM(2, name="a", activation=layers.LeakyReLU(name="leaky"))
    text = "LSTM 'a': activation is stored as 'LeakyReLU' \"{'name': 'leaky',"
    assert_refused(lambda: refrnn.from_keras(source), ValueError, text)


# --- a refused call changes nothing ------------------------------------------------------------

REFUSED_CALLS = {
    "batch": lambda layer: layer(X[:3]),
    "features": lambda layer: layer(X[:, :, :2]),
    "rank": lambda layer: layer(X[0]),
    "dtype": lambda layer: layer(X + 1j),
    "mask": lambda layer: layer(X, mask=M[0]),
    "state": lambda layer: layer(X, initial_state=[S, S[:1]]),
    "second state": lambda layer: layer.reset_states([S, S[:3]]),
    "dtype of the second state": lambda layer: layer.reset_states([S, S.astype(str)]),
    "rows": lambda layer: layer.reset_states(rows=[0, 9]),
    "states of rows": lambda layer: layer.reset_states([S[:2], S[:1]], rows=[0, 1]),
    "weights": lambda layer: layer.set_weights([*layer.get_weights()[:2], S]),
}


@pytest.mark.parametrize("case", REFUSED_CALLS)
def test_a_refused_call_leaves_a_stateful_layer_as_it_was(case):
    layer = carrying(dropout=0.5)
    states, arrays = layer.states, layer.get_weights()
    assert np.abs(states).min() > 0
    with pytest.raises((ValueError, TypeError, NotImplementedError), match="'a"):
        REFUSED_CALLS[case](layer)
    for old, new in zip(states + arrays, layer.states + layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@kinds(*RECURRENT, Dense)
def test_a_refused_rank_leaves_a_layer_unbuilt(kind):
    layer = kind(2)
    with pytest.raises(ValueError, match="the input has shape"):
        layer(X[0, 0])
    assert not layer.built
    assert layer.weights == layer.weight_names == []
    layer(X[..., :2])  # as if nothing had happened
    assert layer.weights[0].shape[0] == 2


FIRST_CALLS = {
    "dtype": lambda layer: layer(X.astype(str)),
    "mask": lambda layer: layer(X, mask=M[0]),
    "state": lambda layer: layer(X, initial_state=[S[:1], S[:1]]),
}


def test_a_refused_dtype_leaves_a_dense_layer_unbuilt():
    layer = Dense(H)
    with pytest.raises(TypeError, match=r"^Dense"):
        layer(X.astype(str))
    assert not layer.built


@pytest.mark.parametrize("case", FIRST_CALLS)
def test_a_refused_first_call_leaves_a_layer_unbuilt(case):
    layer = LSTM(H, dropout=0.5)
    with pytest.raises((ValueError, TypeError, NotImplementedError), match="LSTM"):
        FIRST_CALLS[case](layer)
    assert not layer.built
    assert not layer.cell.built
    assert layer.weights == []


@pytest.mark.parametrize("kind", [LSTM, Dense], ids=lambda kind: kind.__name__)
def test_a_build_without_a_width_leaves_a_layer_unbuilt(kind):
    layer = kind(2)
    with pytest.raises(ValueError, match="expected a known number of features"):
        layer.build((None, None, None))
    assert not layer.built
    assert layer.weights == []


FOR_UNBUILT = {
    "one array": (KERNELS[2:], ValueError, f"set_weights got 1 arrays, {THREE}"),
    "two arrays": (KERNELS[:2], ValueError, f"set_weights got 2 arrays, {THREE}"),
    "transposed": (
        [KERNELS[0].T, *KERNELS[1:]],
        ValueError,
        "kernel has shape (8, 3), expected (8, 8), the shape that goes with the rows of the kernel",
    ),
    "last wrong": (
        [*KERNELS[:2], KERNELS[2][:3]],
        ValueError,
        "bias has shape (3,), expected (8,)",
    ),
    "last of text": ([*KERNELS[:2], KERNELS[2].astype(str)], TypeError, "bias has dtype <U32"),
}


@pytest.mark.parametrize("case", FOR_UNBUILT)
def test_refused_weights_leave_a_layer_unbuilt(case):
    layer = LSTM(H, name="a")
    given, error, text = FOR_UNBUILT[case]
    assert_refused(lambda: layer.set_weights(given), error, f"LSTM 'a': {text}")
    assert not layer.built
    assert layer.weights == []
    layer.set_weights(KERNELS)  # as if nothing had happened
    np.testing.assert_array_equal(layer.weights[0], KERNELS[0])


@kinds(*RECURRENT, *CELL_KINDS, Dense)
def test_building_twice_makes_the_weights_once(kind):
    layer = kind(2)
    shape = (None, F) if kind in CELL_KINDS else (None, None, F)
    layer.build(shape)
    before = layer.get_weights()
    layer.build(shape)
    assert len(layer.weights) == len(layer.weight_names) == len(before)
    for old, new in zip(before, layer.weights, strict=True):
        np.testing.assert_array_equal(old, new)


@kinds(*RECURRENT, *CELL_KINDS, Dense)
def test_building_again_for_other_features_is_refused_and_keeps_the_weights(kind):
    layer = kind(2, name="a")
    layer.build((None, F) if kind in CELL_KINDS else (None, None, F))
    before = layer.get_weights()
    with pytest.raises(ValueError, match=r"'a.* built again for 7 features, expected 3, because"):
        layer.build((None, 7) if kind in CELL_KINDS else (None, None, 7))
    for old, new in zip(before, layer.weights, strict=True):
        np.testing.assert_array_equal(old, new)


# --- calls never write into their arguments, results are nobody else's --------------------------


def frozen(*arrays):
    """Copies that cannot be written to: a call that tries raises."""
    copies = [np.array(a) for a in arrays]
    for copy in copies:
        copy.flags.writeable = False
    return copies


@pytest.mark.parametrize("cell", CELLS)
def test_run_and_trace_write_into_no_argument(cell):
    xs, h, mask, reset, last = frozen(X, S, M, ~M, S)
    mask_with_holes = frozen(np.arange(B * T).reshape(B, T) % 3 > 0)[0]
    state = [h] * len(CELLS[cell].State._fields)
    w = refrnn.Weights(*frozen(*weights(cell)))
    for m in (mask, mask_with_holes):
        refrnn.run(cell, w, xs, state, mask=m, reset=reset, last_output=last, go_backwards=True)
        refrnn.run(cell, w, xs, state, mask=m, zero_output_for_mask=True)
        refrnn.trace(cell, w, xs, state, mask=m, reset=reset)


@kinds(*RECURRENT)
def test_layers_write_into_no_argument(kind):
    xs, h, mask = frozen(X, S, M)
    layer = kind(H, dtype="float64", stateful=True, return_state=True)
    given = frozen(*called(kind(H, dtype="float64"), X).get_weights())
    layer.set_weights(given)
    state = [h] * len(layer.cell.math.State._fields)
    layer(xs, initial_state=state, mask=mask)
    layer.reset_states(state)
    layer(xs)
    layer.reset_states([part[:1] for part in state], rows=[2])
    layer.cell(xs[:, 0], state)
    TimeDistributed(Dense(2, dtype="float64"))(xs, mask=mask)
    two_layers()(xs)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("activation", [None, "linear"])
def test_what_run_and_trace_return_shares_no_memory_with_the_arguments(cell, activation):
    w, state = weights(cell), [S.copy() for _ in CELLS[cell].State._fields]
    for mask in (None, M, ~M):
        ys, after = refrnn.run(cell, w, X, state, mask=mask, activation=activation)
        q = refrnn.trace(cell, w, X, state, mask=mask, activation=activation)
        results = [ys, *after, *(a for a in q if not isinstance(a, tuple)), *q.pre]
        for result in results:
            assert not any(np.shares_memory(result, a) for a in (X, *w, *state))
        assert not np.shares_memory(ys, after.h)


@pytest.mark.parametrize("cell", CELLS)
def test_without_steps_the_state_is_returned_as_a_copy(cell):
    state = [S.copy() for _ in CELLS[cell].State._fields]
    _, after = run(cell, X[:, :0], state)
    for mine, given in zip(after, state, strict=True):
        np.testing.assert_array_equal(mine, given)
        assert not np.shares_memory(mine, given)


@kinds(*RECURRENT)
@pytest.mark.parametrize("steps", [0, 3])
def test_the_memory_of_a_chunk_shares_nothing_with_what_was_given_and_returned(kind, steps):
    layer = kind(H, dtype="float64", return_sequences=True, return_state=True)
    given = [S.copy() for _ in layer.cell.math.State._fields]
    start = layer.start(len(X), given)
    returned, memory = layer.advance(X[:, :steps], start)
    for kept in (*start.state, *memory.state, memory.last_output):
        assert not any(np.shares_memory(kept, a) for a in (*given, *returned))


@kinds(*RECURRENT)
@pytest.mark.parametrize("sequences", [True, False], ids=["all outputs", "last output"])
def test_writing_into_results_changes_nothing_in_a_layer(kind, sequences):
    options = {"stateful": True, "return_state": True, "return_sequences": sequences}
    spoilt, spared = (kind(H, dtype="float64", **options) for _ in range(2))
    spared.build(X.shape)
    spoilt.set_weights(spared.get_weights())
    for _ in range(3):
        results, expected = spoilt(X), spared(X)
        for result, want in zip(results, expected, strict=True):
            np.testing.assert_array_equal(result, want)
            result[...] = 99
        for array in (*spoilt.get_weights(), *spoilt.states):
            array[...] = 99
    state = [S.copy() for _ in spoilt.states]
    spoilt.reset_states(state)
    spared.reset_states([S] * len(state))
    for part in state:
        part[...] = 99
    for result, want in zip(spoilt(X), spared(X), strict=True):
        np.testing.assert_array_equal(result, want)


def test_writing_into_the_source_of_weights_changes_nothing_in_a_layer():
    layer = LSTM(H)
    given = [array.copy() for array in KERNELS]
    layer.set_weights(given)
    for array in given:
        array[...] = 99
    for array, want in zip(layer.get_weights(), KERNELS, strict=True):
        np.testing.assert_array_equal(array, want)


@kinds(*RECURRENT, *CELL_KINDS, Dense)
def test_the_weights_of_a_layer_are_read_only_to_callers(kind):
    layer = kind(H)
    layer.build((None, F) if kind in CELL_KINDS else (None, None, F))
    for array in layer.weights:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1
    layer.weights.clear()
    layer.weight_names.clear()
    assert len(layer.weights) == len(layer.weight_names) >= 2


def test_read_only_weights_stay_so_after_set_weights():
    layer = called(LSTM(H), X)
    layer.set_weights(KERNELS)
    assert not any(array.flags.writeable for array in layer.weights)
