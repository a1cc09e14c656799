"""The gradients are those of the mathematics, those of Keras, and the same bits in pieces.

Held against Keras through `tf.GradientTape`, against complex steps through another implementation,
and against central differences; and bugs planted in the backward pass are caught, each by a check
that is named beside it.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from implementations import Plain
from strategies import cases, cuttings

import refrnn
from refrnn import cells, engines
from refrnn.activations import ACTIVATIONS, Activation
from refrnn.backward import Gradients, equations, loop, steps
from refrnn.cases import Case
from refrnn.cells import CELLS, Weights, dropped
from refrnn.gates import Array

NAMES = ("lstm", "gru", "gru_reset_before", "simple")


@pytest.fixture(scope="module", autouse=True)
def _on_the_readable_engine() -> Iterator[None]:
    """The kernels are held against it in test_backward_kernels.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(engines.ENVIRONMENT, "numpy")
        yield


WEIGHTS = tuple(f"d{name}" for name in Weights._fields)
LAYERS = {"lstm": "LSTM", "gru": "GRU", "gru_reset_before": "GRU", "simple": "SimpleRNN"}


@dataclass
class Draw:
    """A case with a loss: the sum of outputs and states, each times a drawn number."""

    case: Case
    dys: Array = field(init=False)
    dlast: Array = field(init=False)
    dstate: list[Array] = field(init=False)

    def __post_init__(self) -> None:
        case = self.case
        self.math = case.build().cell.math
        self.arrays = case.arrays()
        self.weights = Weights(*self.arrays.weights)
        rng = np.random.default_rng([case.seed, 17])
        dtype = self.arrays.x.dtype
        self.dys = rng.normal(size=(case.rows, case.steps, case.units)).astype(dtype)
        self.dlast = rng.normal(size=(case.rows, case.units)).astype(dtype)
        parts = len(self.math.State._fields)
        self.dstate = [rng.normal(size=self.dlast.shape).astype(dtype) for _ in range(parts)]
        self.rng = rng

    @property
    def options(self) -> dict[str, Any]:
        """The options of `refrnn.gradients`, but for the gradients and what has a row."""
        flags = ("go_backwards", "zero_output_for_mask")
        return {name: self.case.options.get(name, False) for name in flags}

    def gradients(self, **options: Any) -> Gradients:
        a = self.arrays
        given = {"dlast_output": self.dlast, "dstate": self.dstate, "mask": a.mask}
        return refrnn.gradients(
            self.math, self.weights, a.x, self.dys, a.state, **given | self.options | options
        )


def named(got: Gradients) -> dict[str, Array]:
    """Every array of the gradients by its name."""
    found = {n: a for n, a in got._asdict().items() if isinstance(a, np.ndarray)}
    found |= {f"dstate.{n}": a for n, a in got.dstate._asdict().items()}
    if got.dtrace is not None:
        found |= {f"dtrace.{n}": a for n, a in got.dtrace._asdict().items() if n != "pre"}
        found |= {f"dtrace.pre.{n}": a for n, a in got.dtrace.pre._asdict().items()}
    return found


def same_bits(got: Any, want: Any, what: object) -> None:
    assert got.shape == want.shape, what
    assert got.dtype == want.dtype, what
    # by value: -0 and 0 are one number
    np.testing.assert_array_equal(got, want, err_msg=str(what))


def near(got: Array, want: Array, relative: float, what: object) -> None:
    """Relative to the largest of the array: what cancels in one element is rounded in all."""
    assert got.shape == want.shape, what
    scale = np.abs(want).max(initial=0)
    error = np.abs(got - want).max(initial=0)
    assert error <= relative * scale, (what, error, scale)


# --- Keras -------------------------------------------------------------------------------------


def keras_gradients(tf: Any, draw: Draw, activation: Any = None) -> dict[str, Array]:
    """By tf.GradientTape through the Keras layer of the case."""
    a, T = draw.arrays, tf.tf
    layer = tf.layer(draw.case, a.weights)
    x = T.constant(a.x)
    state = None if a.state is None else [T.constant(part) for part in a.state]
    mask = None if a.mask is None else T.constant(a.mask)
    sources = {"dxs": x}
    for name, variable in zip(WEIGHTS, layer.trainable_variables, strict=False):
        sources[name] = variable.value
    for name, part in zip(draw.math.State._fields, state or (), strict=False):
        sources[f"dstate.{name}"] = part
    with T.GradientTape() as tape:
        tape.watch([x, *(state or ())])
        y, *ends = layer(x, initial_state=state, mask=mask)
        loss = T.reduce_sum(y * draw.dys) + T.reduce_sum(y[:, -1] * draw.dlast)
        loss += sum(T.reduce_sum(e * d) for e, d in zip(ends, draw.dstate, strict=True))
    found = tape.gradient(loss, sources, unconnected_gradients=T.UnconnectedGradients.ZERO)
    return {name: np.asarray(part) for name, part in found.items()}


def check_keras(tf: Any, case: Case) -> None:
    draw = Draw(case)
    got, want = named(draw.gradients()), keras_gradients(tf, draw)
    assert want.keys() <= got.keys()
    assert ("dbias" in got) == ("dbias" in want)
    for name, array in want.items():
        # Rounding is 1e-16 a sum, a few hundred of them in a row, magnified by steep activations
        near(got[name], array, 1e-10, name)


@given(case=cases(max_steps=5))
def test_gradients_equal_those_of_keras(tf: Any, case: Case) -> None:
    check_keras(tf, case)


DIFFERENTIABLE = [
    name
    for name, row in ACTIVATIONS.items()
    if row.kind not in ("halves", "parametric") and name not in ("swish", "hard_swish")
]
IN_KERAS = [name for name in DIFFERENTIABLE if name != "hard_sigmoid_keras2"]


def case_of(name: str, **more: Any) -> Case:
    options = {"reset_after": False} if name == "gru_reset_before" else {}
    return Case(LAYERS[name], **{**more, "options": options | more.get("options", {})})


def activated(name: str, activation: str, *arguments: str) -> Case:
    """A case in which `activation` stands for each of the arguments."""
    # sums large enough to be on every branch, but for towers of exponentials
    steps, scale = (2, 0.3) if activation == "exponential" else (3, 1.5)
    return case_of(name, steps=steps, scale=scale, options=dict.fromkeys(arguments, activation))


@pytest.mark.parametrize("activation", IN_KERAS)
def test_gradients_go_through_each_activation_as_in_keras(tf: Any, activation: str) -> None:
    for name in NAMES:
        gates = () if name == "simple" else ("recurrent_activation",)
        check_keras(tf, activated(name, activation, "activation", *gates))


# --- differences -------------------------------------------------------------------------------

TINY = 1e-30


def complex_sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


def complex_cell(draw: Draw) -> Any:
    """The cell with functions that complex numbers go through."""
    tanh = Activation("tanh", np.tanh, None)
    return draw.math._replace(act=tanh, rec=Activation("sigmoid", complex_sigmoid, None))


def slope_by_complex_step(draw: Draw, name: str, direction: Array) -> float:
    """How fast the loss grows as the array `name` moves along `direction`, without subtraction.

    The imaginary part of loss(a + i e d) / e, for so small an e that e^2 is nothing. The loss is
    computed by another implementation, which shares no loop and no equation with refrnn.
    """
    a, step = draw.arrays, 1j * TINY * direction
    H = draw.case.units
    given = dict(zip(WEIGHTS, draw.weights, strict=True)) | {"dxs": a.x}
    if draw.weights.bias is None:
        given["dbias"] = np.zeros(draw.math.shapes(1, H)[2])
    zeros = [np.zeros((draw.case.rows, H)) for _ in draw.math.State._fields]
    parts = [f"dstate.{part}" for part in draw.math.State._fields]
    given |= dict(zip(parts, a.state or zeros, strict=True))
    given = {n: array + step if n == name else array + 0j for n, array in given.items()}

    def spoil(what: str, t: int, array: Array) -> Array:
        return array + step[:, t] if f"dtrace.{what}" == name else array

    plain = Plain(
        complex_cell(draw),
        Weights(given["dkernel"], given["drecurrent_kernel"], given["dbias"]),
        spoil=spoil,
        backwards=draw.options["go_backwards"],
        emits_zeros=draw.options["zero_output_for_mask"],
    )
    y, *ends = plain(given["dxs"], [given[part] for part in parts], a.mask)
    loss = np.sum(y * draw.dys) + np.sum(y[:, -1] * draw.dlast)
    loss += sum(np.sum(e * d) for e, d in zip(ends, draw.dstate, strict=True))
    return float(loss.imag) / TINY


def check_complex_steps(case: Case) -> None:
    draw = Draw(case)
    for name, gradient in named(draw.gradients(gates=True)).items():
        if name in ("dlast_output", "dtrace.pre.h"):  # not in that implementation by name
            continue
        direction = draw.rng.normal(size=gradient.shape)
        want = slope_by_complex_step(draw, name, direction)
        terms = gradient * direction
        # a sum of some hundred terms, each with the rounding of a sum over steps and units
        assert abs(terms.sum() - want) <= 1e-12 * (np.abs(terms).sum() + abs(want)), name


def without_activations(case: Case) -> Case:
    return replace(case, options={n: v for n, v in case.options.items() if "activation" not in n})


@given(case=cases().map(without_activations))
def test_gradients_of_all_arrays_gates_and_sums_equal_complex_steps(case: Case) -> None:
    check_complex_steps(case)


STEP = 2.0**-14  # of a difference over 5 points: its error is STEP^4 f'''''/30, or eps / STEP


def check_central_differences(case: Case) -> None:
    """Of `refrnn.run`, along a direction for each array."""
    draw = Draw(case)
    a = draw.arrays
    got = draw.gradients()
    start = dict(zip(Weights._fields, draw.weights, strict=True)) | {"xs": a.x}
    start |= {f"state.{n}": p for n, p in zip(draw.math.State._fields, a.state, strict=True)}

    def loss(values: dict[str, Array]) -> float:
        state = [values[n] for n in values if n.startswith("state")]
        weights = Weights(*(values[n] for n in Weights._fields))
        ys, ends = refrnn.run(
            draw.math, weights, values["xs"], state, mask=a.mask, engine="numpy", **draw.options
        )
        last = np.sum(ys[:, -1] * draw.dlast)
        return (
            np.sum(ys * draw.dys)
            + last
            + sum(np.sum(e * d) for e, d in zip(ends, draw.dstate, strict=True))
        )

    for name, array in start.items():
        direction = draw.rng.normal(size=array.shape) / np.sqrt(array.size)
        at = {k: loss({**start, name: array + k * STEP * direction}) for k in (-2, -1, 1, 2)}
        want = (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * STEP)
        found = np.sum(named(got)[f"d{name}"] * direction)
        scale = max(1.0, abs(want), *map(abs, at.values()))
        # rounding: a loss of hundreds of terms is off by some 1e-14, over STEP that is 2e-10
        assert abs(found - want) <= 4e-9 * scale, (name, found, want)


@pytest.mark.parametrize("activation", DIFFERENTIABLE)
def test_gradients_go_through_each_activation_as_differences_say(activation: str) -> None:
    for name in NAMES:
        check_central_differences(activated(name, activation, "activation"))
        if name != "simple":
            check_central_differences(activated(name, activation, "recurrent_activation"))


# --- pieces ------------------------------------------------------------------------------------

EXACT = ("dxs", "dstate", "dlast_output", "dtrace")  # what no sum over rows or chunks is part of


def in_pieces(
    draw: Draw, sizes: list[int], hand_back: bool, **rows: Any
) -> tuple[list[Gradients], list[slice]]:
    """The gradients of each chunk, the last one first taken, and the chunks' slices of xs."""
    a, T = draw.arrays, draw.case.steps
    ends = np.cumsum([0, *sizes])
    back = draw.options["go_backwards"]
    cuts = [(slice(p, q), slice(T - q, T - p) if back else slice(p, q)) for p, q in
            zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]  # fmt: skip
    parts = {"mask": a.mask, **rows}

    def of(cut: slice) -> dict[str, Any]:
        return {n: None if p is None else p[:, cut] for n, p in parts.items()}

    starts, state, last = [], a.state, None
    for _, cut in cuts:
        starts.append(state)
        ys, state = refrnn.run(
            draw.math, draw.weights, a.x[:, cut], state, last_output=last, engine="numpy",
            **of(cut), **draw.options,
        )  # fmt: skip
        last = ys[:, -1] if ys.shape[1] else last
    found: list[Gradients] = []
    carry: dict[str, Any] = {"dlast_output": draw.dlast, "dstate": draw.dstate}
    for (out, cut), begin in zip(reversed(cuts), reversed(starts), strict=True):
        got = refrnn.gradients(
            draw.math, draw.weights, a.x[:, cut], draw.dys[:, out], begin, gates=True,
            **of(cut), **draw.options, **carry,
        )  # fmt: skip
        found.insert(0, got)
        zero = np.zeros_like(draw.dlast)
        carry = {"dlast_output": got.dlast_output, "dstate": got.dstate}
        if not hand_back:
            carry = {"dlast_output": zero, "dstate": [zero for _ in draw.dstate]}
    return found, [cut for _, cut in cuts]


def assert_joined(pieces: list[Gradients], cuts: list[slice], whole: Gradients) -> None:
    want, first = named(whole), named(pieces[0])
    every = [named(piece) for piece in pieces]
    dxs = np.empty_like(whole.dxs)
    for piece, cut in zip(pieces, cuts, strict=True):
        dxs[:, cut] = piece.dxs
    for name, array in want.items():
        if name == "dxs":
            same_bits(dxs, array, name)
        elif name.startswith("dtrace"):
            same_bits(np.concatenate([e[name] for e in every], axis=1), array, name)
        elif name.startswith(EXACT):
            same_bits(first[name], array, name)
        else:  # the same terms added up in another order: a few dozen of them
            wide = np.finfo(array.dtype).eps if array.dtype.itemsize > 2 else 0.01
            total = np.sum([np.abs(e[name]) for e in every], axis=0).max(initial=0)
            assert np.abs(sum(e[name] for e in every) - array).max(initial=0) <= 64 * wide * total


def some_reset(case: Case) -> Array:
    return np.random.default_rng([case.seed, 3]).random((case.rows, case.steps)) < 0.3


def check_chunks(case: Case, sizes: list[int] | None = None, reset: Array | None = None) -> None:
    draw = Draw(case)
    sizes = sizes or [1] * case.steps
    pieces, cuts = in_pieces(draw, sizes, hand_back=True, reset=reset)
    assert_joined(pieces, cuts, draw.gradients(gates=True, reset=reset))


def check_truncation(case: Case, length: int = 3) -> None:
    draw = Draw(case)
    sizes = [min(length, case.steps - p) for p in range(0, case.steps, length)]
    pieces, cuts = in_pieces(draw, sizes, hand_back=False)
    assert_joined(pieces, cuts, draw.gradients(gates=True, truncate=length))


DTYPES = ("float64", "float32")


@given(data=st.data())
def test_chunks_that_hand_gradients_back_have_the_bits_of_the_whole(data: st.DataObject) -> None:
    case = data.draw(cases(DTYPES))
    reset = some_reset(case) if data.draw(st.booleans()) else None
    check_chunks(case, data.draw(cuttings(case.steps)), reset)


@given(case=cases(DTYPES), length=st.integers(1, 9))
def test_truncation_is_chunks_that_hand_nothing_back(case: Case, length: int) -> None:
    check_truncation(case, length)


def test_truncation_loses_something_where_there_is_something_to_lose() -> None:
    """Else the two sides of the test above might be the same for no reason."""
    for name in NAMES:
        draw = Draw(case_of(name, steps=6))
        whole, cut = draw.gradients(), draw.gradients(truncate=3)
        assert np.array_equal(whole.dxs[:, 3:], cut.dxs[:, 3:])
        assert not np.isclose(whole.dxs[:, 2], cut.dxs[:, 2], rtol=1e-3).any(axis=None)
        same = draw.gradients(truncate=6)
        assert all(np.array_equal(a, b) for a, b in zip(named(whole).values(), named(same).values(),
                                                        strict=True))  # fmt: skip


@given(data=st.data())
def test_a_row_does_not_depend_on_the_rows_beside_it(data: st.DataObject) -> None:
    case = data.draw(cases((*DTYPES, "float16", "bfloat16")))
    draw, reset = Draw(case), some_reset(case)
    rows = data.draw(st.lists(st.integers(0, case.rows - 1), min_size=1, max_size=7))
    whole = named(draw.gradients(gates=True, reset=reset))
    a = draw.arrays
    got = refrnn.gradients(
        draw.math, draw.weights, a.x[rows], draw.dys[rows],
        None if a.state is None else [part[rows] for part in a.state],
        dlast_output=draw.dlast[rows], dstate=[part[rows] for part in draw.dstate],
        mask=None if a.mask is None else a.mask[rows], reset=reset[rows], gates=True,
        **draw.options,
    )  # fmt: skip
    for name, array in named(got).items():
        if name.startswith(EXACT):
            same_bits(array, whole[name][rows], name)


@pytest.mark.parametrize("activation", ["softmax", "log_softmax", "sparsemax"])
def test_a_row_is_its_own_through_a_jacobian_of_any_width(activation: str) -> None:
    rng = np.random.default_rng(0)
    pull = equations.pull("", ACTIVATIONS[activation])
    for width in (1, 2, 3, 8, 17, 64, 150):
        x, dy = rng.normal(size=(2, 5, width)).astype(np.float32)
        alone = np.concatenate([pull(x[b : b + 1], dy[b : b + 1]) for b in range(5)])
        same_bits(pull(x, dy), alone, width)


def check_order_of_sums(case: Case) -> None:
    """A weight's gradient: over rows from row 0 on, then over steps from the last one back."""
    draw = Draw(case)
    got = draw.gradients(gates=True)
    a, dz = draw.arrays, np.concatenate(got.dtrace.pre, axis=-1)
    dkernel = np.zeros_like(draw.weights.kernel)
    dbias = np.zeros_like(dz[0, 0])
    for n in reversed(range(case.steps)):
        t = case.steps - 1 - n if draw.options["go_backwards"] else n
        x = a.x[:, t] if a.mask is None else np.where(a.mask[:, t, None], a.x[:, t], 0)
        terms = x[:, :, None] * dz[:, n, None, :]
        dkernel = dkernel + np.add.accumulate(terms, axis=0)[-1]
        dbias = dbias + np.add.accumulate(dz[:, n], axis=0)[-1]
    same_bits(got.dkernel, dkernel, "dkernel")
    if got.dbias is not None:
        same_bits(np.atleast_2d(got.dbias)[0], dbias, "dbias")


@given(case=cases(DTYPES))
def test_gradients_of_weights_are_summed_in_the_order_that_is_stated(case: Case) -> None:
    check_order_of_sums(case)


def check_resets(case: Case) -> None:
    """Each row is the sequences between its resets, taken by themselves."""
    draw, reset = Draw(case), some_reset(case)
    whole = named(draw.gradients(gates=True, reset=reset))
    a, T, back = draw.arrays, case.steps, draw.options["go_backwards"]
    for b in range(case.rows):
        row = slice(b, b + 1)
        marks = reset[b, ::-1] if back else reset[b]
        cuts = [0, *(int(n) for n in np.flatnonzero(marks) if n > 0), T]
        for begin, end in pairwise(cuts):
            cut = slice(T - end, T - begin) if back else slice(begin, end)
            fresh = a.state is None or marks[begin]
            last = end == T
            got = refrnn.gradients(
                draw.math, draw.weights, a.x[row, cut], draw.dys[row, begin:end],
                None if fresh else [part[row] for part in a.state],
                dlast_output=draw.dlast[row] if last else None,
                dstate=[part[row] for part in draw.dstate] if last else None,
                mask=None if a.mask is None else a.mask[row, cut], gates=True, **draw.options,
            )  # fmt: skip
            for name, array in named(got).items():
                if name == "dxs":
                    same_bits(array, whole[name][row, cut], (name, b, begin))
                elif name.startswith("dtrace"):
                    same_bits(array, whole[name][row, begin:end], (name, b, begin))
                elif name.startswith(EXACT) and begin == 0:
                    want = np.zeros_like(array) if marks[0] else array
                    same_bits(whole[name][row], want, (name, b))


@given(case=cases(DTYPES))
def test_nothing_goes_back_across_a_reset(case: Case) -> None:
    check_resets(case)


def check_last_output(case: Case) -> None:
    """A last output handed in is copied by masked steps alone: the loss is linear in it."""
    draw = Draw(case)
    a, reset = draw.arrays, some_reset(case)
    given = {"mask": a.mask, "reset": reset, "engine": "numpy", **draw.options}
    run = [
        refrnn.run(draw.math, draw.weights, a.x, a.state, last_output=last, **given)[0]
        for last in (np.zeros_like(draw.dlast), draw.dlast)
    ]
    moved = run[1] - run[0]
    want = np.sum(moved * draw.dys, axis=1) + moved[:, -1] * draw.dlast
    # elementwise a few products with the same number: their sum may be taken in another order
    near(draw.gradients(reset=reset).dlast_output * draw.dlast, want, 1e-14, "dlast_output")


@given(case=cases())
def test_the_gradient_of_a_last_output_handed_in_is_that_of_its_copies(case: Case) -> None:
    check_last_output(case)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_none_counts_as_zeros(name: str) -> None:
    draw = Draw(case_of(name, mask="holes"))
    a, zero = draw.arrays, np.zeros_like(draw.dlast)
    zeros = {
        "dys": np.zeros_like(draw.dys),
        "dlast_output": zero,
        "dstate": [zero] * len(draw.dstate),
    }
    values = {"dys": draw.dys, "dlast_output": draw.dlast, "dstate": draw.dstate}
    for given_name, value in values.items():
        got = refrnn.gradients(
            name, draw.weights, a.x, state=a.state, mask=a.mask, **{given_name: value}
        )
        all_given = {**zeros, given_name: value}
        want = refrnn.gradients(name, draw.weights, a.x, state=a.state, mask=a.mask, **all_given)
        for part, array in named(got).items():
            same_bits(array, named(want)[part], part)
    last = np.zeros_like(draw.dys)
    last[:, -1] = draw.dlast
    one = refrnn.gradients(name, draw.weights, a.x, last, a.state, mask=a.mask)
    other = refrnn.gradients(
        name, draw.weights, a.x, None, a.state, mask=a.mask, dlast_output=draw.dlast
    )
    for part, array in named(one).items():
        same_bits(array, named(other)[part], part)


# --- masked steps and NaN ----------------------------------------------------------------------


def check_masked_nan(case: Case) -> None:
    draw = Draw(case)
    mask = draw.arrays.mask
    assert mask is not None
    clean = draw.gradients(gates=True)
    draw.arrays.x[~mask] = np.nan
    spoiled = draw.gradients(gates=True)
    for name, array in named(clean).items():
        same_bits(named(spoiled)[name], array, name)
    assert not clean.dxs[~mask].any()
    order = mask[:, ::-1] if draw.options["go_backwards"] else mask
    for name, array in named(clean).items():
        if name.startswith("dtrace"):
            assert not array[~order].any(), name


@pytest.mark.parametrize("name", NAMES)
def test_a_nan_at_a_masked_step_reaches_no_gradient_though_in_keras_it_does(
    tf: Any, name: str
) -> None:
    case = case_of(name, mask="holes")
    check_masked_nan(case)
    draw = Draw(case)
    draw.arrays.x[~draw.arrays.mask] = np.nan
    assert np.isnan(keras_gradients(tf, draw)["dkernel"]).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_nan_stays_in_its_row_but_for_the_weights(name: str) -> None:
    draw = Draw(case_of(name))
    clean = named(draw.gradients())
    draw.arrays.x[1, 2] = np.nan
    got = named(draw.gradients())
    others = [0, 2]
    for part in ("dxs", "dstate.h"):
        same_bits(got[part][others], clean[part][others], part)
    assert np.isnan(got["dkernel"]).any()
    assert np.isnan(got["dxs"][1]).any()


# --- float32 and half precision ----------------------------------------------------------------

U = 2.0**-24  # the unit roundoff of float32
MEMBERS = 16
# Independent errors of at most e_k move a result by at most lambda sqrt(sum (a_k e_k)^2) but for
# 2 exp(-lambda^2 / 2) of all cases (Hoeffding): 5e-11 for 7. Uniform noise of that size has a third
# of that variance, whence the root of 3.
FACTOR = 7 * np.sqrt(3)


class Bound(NamedTuple):
    value: dict[str, Array]  # in float64
    error: dict[str, Array]  # how far float32 may be from it


def float32_bound(case: Case) -> Bound:
    """The gradients in float64, and how they spread when every step rounds at random.

    Where a float32 run rounds, forwards and backwards, a float64 run is disturbed by as much:
    a product of n terms by (n + 8) u of its sum of magnitudes (n for its own sum in any order, 8
    for the products, elementwise, that its factors and the sum beside it went through); tanh,
    sigmoid and their slopes by 16 u (6 spacings, or 12 u, for TensorFlow's tanh; the rest for the
    elementwise products beside them); a bias by 4 u for being added. `error` is FACTOR times the
    spread of 16 such runs, that of an element averaged with that of its array, as 16 are few.
    """
    draw = Draw(replace(case, dtype="float32"))
    a = draw.arrays
    wide = [None if w is None else w.astype(np.float64) for w in draw.weights]
    state = None if a.state is None else [part.astype(np.float64) for part in a.state]

    def gradients(weights: Any, **functions: Any) -> dict[str, Array]:
        return named(
            refrnn.gradients(
                draw.math._replace(**functions), weights, a.x, draw.dys, state, mask=a.mask,
                dlast_output=draw.dlast, dstate=draw.dstate, **draw.options,
            )
        )  # fmt: skip

    value = gradients(wide)
    rng = np.random.default_rng(case.seed)

    def noise(size: Array) -> Array:
        return rng.uniform(-1, 1, size.shape) * size * U

    def noisy_dot(a: Array, b: Array) -> Array:
        return a @ b + noise((a.shape[-1] + 8) * (np.abs(a) @ np.abs(b)))

    def noisy(row: Activation) -> Activation:
        def value(x: Array) -> Array:
            y = row.value(x)
            return y + noise(16 * np.abs(y))

        def derivative(x: Array) -> Array:
            y = row.derivative(x)  # type: ignore[misc]
            return y + noise(np.full_like(y, 16))

        return Activation(row.name, value, derivative)

    functions = {"act": noisy(draw.math.act), "rec": noisy(draw.math.rec)}
    runs = []
    with pytest.MonkeyPatch.context() as patch:
        for module in (cells, steps):
            patch.setattr(module, "dot", noisy_dot)
        for _ in range(MEMBERS):
            moved = [w + noise(4 * np.abs(w)) if n == 2 else w for n, w in enumerate(wide)]
            runs.append(gradients(moved, **functions))
    error = {}
    for name, array in value.items():
        variance = np.mean([(run[name] - array) ** 2 for run in runs], axis=0)
        error[name] = FACTOR * np.sqrt((variance + variance.mean()) / 2)
    # nothing but given numbers, one for each step and one more, added up
    error["dlast_output"] = case.steps * U * (np.abs(draw.dys).sum(axis=1) + np.abs(draw.dlast))
    return Bound(value, error)


@pytest.mark.parametrize("mask", [None, "holes", "left"])
@pytest.mark.parametrize("name", NAMES)
def test_float32_is_within_a_bound_that_rounding_explains(
    tf: Any, name: str, mask: str | None
) -> None:
    for seed in range(2):
        case = case_of(name, mask=mask, seed=seed, steps=8, units=6, dtype="float32")
        bound, draw = float32_bound(case), Draw(case)
        for got in (named(draw.gradients()), keras_gradients(tf, draw)):
            for part, array in got.items():
                assert array.dtype == np.float32
                off = np.abs(array - bound.value[part])
                assert np.all(off <= bound.error[part]), (part, off, bound.error[part])
        for part, array in bound.value.items():  # a bound that lets anything pass is none
            assert bound.error[part].max() < 1e-4 * np.abs(array).max() or not array.any(), part


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "spacing"), [("float16", 2.0**-10), ("bfloat16", 2.0**-7)])
def test_half_precision_follows_float64_within_its_own_rounding(
    name: str, dtype: str, spacing: float
) -> None:
    """4 steps forwards and back with about ten roundings each: 40 spacings of the largest."""
    draw = Draw(case_of(name, dtype=dtype, steps=4, scale=0.7))
    a = draw.arrays
    got = named(draw.gradients(gates=True))
    wide = [np.asarray(w, np.float64) for w in draw.weights]
    state = [np.asarray(part, np.float64) for part in a.state]
    want = named(
        refrnn.gradients(
            name,
            wide,
            a.x,
            draw.dys,
            state,
            dlast_output=draw.dlast,
            dstate=draw.dstate,
            gates=True,
        )
    )
    for part, array in got.items():
        assert array.dtype == np.dtype(getattr(ml_dtypes, dtype, dtype))
        near(array.astype(np.float64), want[part], 40 * spacing, part)


# --- the border --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_derivative_of_ones_own_function_is_used(name: str) -> None:
    draw = Draw(case_of(name))
    a, tanh = draw.arrays, ACTIVATIONS["tanh"]
    mine = Activation("mine", lambda x: np.tanh(x), lambda x: 1 / np.cosh(x) ** 2)
    got = refrnn.gradients(name, draw.weights, a.x, draw.dys, a.state, activation=mine)
    want = refrnn.gradients(name, draw.weights, a.x, draw.dys, a.state, activation=tanh)
    for part, array in named(got).items():
        near(array, named(want)[part], 1e-13, part)  # two ways to write one slope


@pytest.mark.parametrize(("rows", "time"), [(0, 3), (2, 0), (0, 0)])
@pytest.mark.parametrize("name", NAMES)
def test_no_rows_or_no_steps_change_nothing(name: str, rows: int, time: int) -> None:
    F, H = 3, 2
    weights = [np.ones(shape) for shape in CELLS[name].shapes(F, H)]
    ends = [np.full((rows, H), 7.0) for _ in CELLS[name].State._fields]
    last = np.full((rows, H), 5.0)
    got = refrnn.gradients(
        name, weights, np.ones((rows, time, F)), np.ones((rows, time, H)),
        dstate=ends, dlast_output=last, gates=True,
    )  # fmt: skip
    assert got.dxs.shape == (rows, time, F)
    assert all(part.shape == (rows, time, H) for part in (*got.dtrace[:-1], *got.dtrace.pre))
    for part, weight in zip(got[:3], weights, strict=True):
        same_bits(part, np.zeros_like(weight), name)
    if time == 0:
        for part, end in zip((*got.dstate, got.dlast_output), (*ends, last), strict=True):
            same_bits(part, end, name)
            assert not np.shares_memory(part, end)


@pytest.mark.parametrize("name", NAMES)
def test_no_argument_is_written_into_and_no_result_shares_memory(name: str) -> None:
    draw = Draw(case_of(name, mask="holes"))
    a = draw.arrays
    given = [*draw.weights, a.x, *a.state, a.mask, draw.dys, draw.dlast, *draw.dstate]
    before = [array.copy() for array in given]
    for array in given:
        array.flags.writeable = False
    got = list(named(draw.gradients(gates=True, reset=some_reset(draw.case), truncate=2)).values())
    for array, copy in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, copy)
    for n, array in enumerate(got):
        assert array.flags.writeable
        assert not any(np.shares_memory(array, other) for other in (*got[:n], *given))


def test_two_runs_have_the_same_bits_and_a_layers_cell_is_taken_as_it_is() -> None:
    draw = Draw(case_of("lstm", dtype="float32"))
    for part, array in named(draw.gradients(gates=True)).items():
        same_bits(named(draw.gradients(gates=True))[part], array, part)
    a = draw.arrays
    got = refrnn.gradients("lstm", draw.weights, a.x, draw.dys, a.state, dstate=draw.dstate,
                           dlast_output=draw.dlast)  # fmt: skip
    for part, array in named(draw.gradients()).items():
        same_bits(named(got)[part], array, part)


B, T, F, H = 4, 5, 3, 2
X, DYS = np.ones((B, T, F)), np.ones((B, T, H))


def never(x: Array) -> Array:
    """Stands in for an activation; only the border may try it out, on zeros."""
    assert not x.any(), "something was computed before it was refused"
    return x


def refused(name: str = "lstm", dys: Any = DYS, cell: Any = None, **options: Any) -> None:
    weights = [np.ones(shape) for shape in CELLS[name].shapes(F, H)]
    options = {"activation": Activation("never", never, np.ones_like)} | options
    refrnn.gradients(cell or name, weights, X, dys, **options)


class Doubled:
    def __call__(self, x: Array) -> Array:
        return 2 * x


REFUSED = {
    "no gradient": (
        lambda: refused(dys=None), ValueError,
        "lstm: dys, dlast_output and dstate are all None, expected at least one"),
    "dys of the last output alone": (
        lambda: refused(dys=DYS[:, -1]), ValueError,
        "lstm: dys has shape (4, 2), expected (4, 5, 2), that of the outputs"),
    "dys to broadcast": (
        lambda: refused(dys=DYS[:1]), ValueError,
        "lstm: dys has shape (1, 5, 2), expected (4, 5, 2), that of the outputs"),
    "dys ragged": (
        lambda: refused(dys=[[1.0, 2.0], [3.0]]), ValueError,
        "lstm: dys is not an array of one shape"),
    "dys complex": (
        lambda: refused(dys=DYS * 1j), TypeError,
        "lstm: dys has dtype complex128, expected real numbers"),
    "dlast_output": (
        lambda: refused(dlast_output=DYS), ValueError,
        "lstm: dlast_output has shape (4, 5, 2), expected (4, 2), that of the last output"),
    "dstate of one part": (
        lambda: refused(dstate=DYS[:, 0]), ValueError,
        "lstm: the dstate is given as ndarray, expected a list of 2: h, c"),
    "dstate of a wrong shape": (
        lambda: refused(dstate=[DYS[:, 0], DYS]), ValueError,
        "lstm: dstate c is of shape (4, 5, 2), expected (4, 2)"),
    "dstate with a None": (
        lambda: refused(dstate=[DYS[:, 0], None]), ValueError,
        "lstm: dstate c is None, expected (4, 2)"),
    "state": (
        lambda: refused(state=[DYS, DYS]), ValueError,
        "lstm: state h is of shape (4, 5, 2), expected (4, 2)"),
    "mask": (
        lambda: refused(mask=np.ones((3, 3))), ValueError, "lstm: the mask has shape (3, 3)"),
    "truncate 0": (
        lambda: refused(truncate=0), ValueError,
        "lstm: truncate is 0, expected a whole number of at least 1"),
    "truncate True": (
        lambda: refused(truncate=True), ValueError, "lstm: truncate is True, expected a whole"),
    "gates by name": (
        lambda: refused(gates="i"), ValueError, "lstm: gates is 'i', expected True or False"),
    "go_backwards": (
        lambda: refused(go_backwards="yes"), ValueError, "lstm: go_backwards is 'yes'"),
    "unknown cell": (lambda: refused(cell="lsm"), ValueError, "cell is 'lsm', expected one of"),
    "a function without a derivative": (
        lambda: refused(activation=Doubled()), ValueError,
        "lstm: activation 'function' is a function whose derivative is not known, expected a name"),
    "gates without a derivative": (
        lambda: refused("gru", recurrent_activation=never), ValueError,
        "gru: recurrent_activation 'never' is a function whose derivative is not known"),
    "a derivative of a wrong shape": (
        lambda: refused(activation=Activation("sum", np.asarray, np.sum)), ValueError,
        "lstm: activation 'sum': its derivative turns shape (2, 3) into (), expected (2, 3)"),
    "a Jacobian of a wrong shape": (
        lambda: refused(activation=Activation("flat", np.asarray, np.asarray, "rows")), ValueError,
        "lstm: activation 'flat': its derivative turns shape (2, 3) into (2, 3), expected"
        " (2, 3, 3), because its kind is 'rows'"),
    "half the width": (
        lambda: refused(activation="glu"), ValueError,
        "lstm: activation 'glu' halves the width"),
    "more arguments": (
        lambda: refused(activation="threshold"), ValueError,
        "lstm: activation 'threshold' needs further arguments"),
    "gates of a SimpleRNN": (
        lambda: refused("simple", recurrent_activation="sigmoid"), ValueError,
        "simple: recurrent_activation is 'sigmoid', expected None"),
    "dropout": (
        lambda: refused(cell=CELLS["lstm"]._replace(x_product=dropped([X[:, 0]]))), ValueError,
        "lstm: the cell drops out, or has other products of its own, expected the plain product"),
    "a step of one's own": (
        lambda: refused(cell=CELLS["lstm"]._replace(step=lambda *_: None)), ValueError,
        "lstm: the cell has a step of its own, expected that of a cell of refrnn.cells.CELLS"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_refused_before_anything_is_computed(name: str) -> None:
    call, error, words = REFUSED[name]
    with pytest.raises(error, match=f"^{re.escape(words)}") as caught:
        call()
    assert caught.type is error
    assert len(str(caught.value)) < 500


# --- planted bugs ------------------------------------------------------------------------------

BATTERY = [
    case_of(name, mask=mask, steps=6, seed=seed, options=options)
    for name in NAMES
    for seed, (mask, options) in enumerate(
        (
            (None, {}),
            ("holes", {}),
            ("holes", {"go_backwards": True}),
            ("holes", {"zero_output_for_mask": True}),
            ("left", {}),
        )
    )
]


def masked_only(check: Callable[[Case], None]) -> Callable[[Case], None]:
    return lambda case: check(case) if case.mask else None


def check_log_softmax(case: Case) -> None:
    """Its Jacobian, unlike that of softmax, is not symmetric."""
    check_central_differences(replace(case, options={**case.options, "activation": "log_softmax"}))


CHECKS: dict[str, Callable[[Case], None]] = {
    "complex steps": check_complex_steps,
    "differences": check_central_differences,
    "log_softmax": check_log_softmax,
    "chunks": check_chunks,
    "truncation": check_truncation,
    "resets": check_resets,
    "last output": check_last_output,
    "masked NaN": masked_only(check_masked_nan),
}


class Bug(NamedTuple):
    """`right` of one function's source put as `wrong`, and the check that must notice."""

    function: Callable[..., Any]
    right: str
    wrong: str
    check: str = "complex steps"


E, S, L = equations, steps, loop.record
BUGS = {
    # equations
    "a Jacobian not transposed": Bug(E.pull, "axis=-2", "axis=-1", "log_softmax"),
    "a slope of the wrong argument": Bug(
        E.pull, "dy * derivative(x)", "dy * derivative(dy)", "differences"
    ),
    "simple: the slope taken of the output": Bug(E.simple, "d_act(q.pre.h, dh)", "d_act(q.h, dh)"),
    "lstm: the carry misses f": Bug(E.lstm, "dc * q.f", "dc"),
    "lstm: no carry": Bug(E.lstm, "dc * q.f", "0 * dc"),
    "lstm: c's gradient from later steps lost": Bug(E.lstm, "dc = dc + ", "dc = "),
    "lstm: c's gradient from h lost": Bug(E.lstm, "dc = dc + d_act(q.c, dh * q.o)", "dc = dc + 0"),
    "lstm: o's gradient without the squash": Bug(E.lstm, "dh * act(q.c)", "dh * q.c"),
    "lstm: the squash's slope taken of its value": Bug(
        E.lstm, "d_act(q.c, dh * q.o)", "d_act(act(q.c), dh * q.o)"
    ),
    "lstm: the squash's slope forgotten": Bug(E.lstm, "d_act(q.c, dh * q.o)", "dh * q.o"),
    "lstm: f's gradient from the new c": Bug(E.lstm, "df = dc * c", "df = dc * q.c"),
    "lstm: i and g swapped": Bug(E.lstm, "di = dc * q.g", "di = dc * q.i"),
    "lstm: i's slope taken of the gate": Bug(E.lstm, "d_rec(q.pre.i, di)", "d_rec(q.i, di)"),
    "lstm: f's slope taken at i": Bug(E.lstm, "d_rec(q.pre.f, df)", "d_rec(q.pre.i, df)"),
    "lstm: the candidate's slope that of a gate": Bug(
        E.lstm, "d_act(q.pre.g, dg)", "d_rec(q.pre.g, dg)"
    ),
    "lstm: i's gradient shown for f's": Bug(E.lstm, "LSTMGates(di, df", "LSTMGates(df, di"),
    "lstm: c's gradient shown without h's part": Bug(
        E.lstm, "do, dc, dh, dpre)", "do, dc - d_act(q.c, dh * q.o), dh, dpre)"
    ),
    "gru: wrong sign in z": Bug(E.gru, "(h - q.g)", "(q.g - h)"),
    "gru: z's gradient without the candidate": Bug(E.gru, "(h - q.g)", "h"),
    "gru: the candidate's gradient by z": Bug(E.gru, "dh * (1 - q.z)", "dh * q.z"),
    "gru: r's path missing": Bug(E.gru, "dpre_g * u_g", "0 * u_g"),
    "gru: r's slope taken of the gate": Bug(E.gru, "d_rec(q.pre.r, dr)", "d_rec(q.r, dr)"),
    "gru: the state's part not scaled by r": Bug(E.gru, "dpre_g * q.r", "dpre_g"),
    "gru: no carry through z": Bug(E.gru, "du, dh * q.z", "du, 0 * dh"),
    "gru: the carry by 1 - z": Bug(E.gru, "du, dh * q.z", "du, dh * (1 - q.z)"),
    "gru before: wrong sign in z": Bug(E.gru_reset_before, "(h - q.g)", "(q.g - h)"),
    "gru before: no way back through r h": Bug(E.gru_reset_before, " + drh * q.r", ""),
    "gru before: r h's way back without r": Bug(E.gru_reset_before, "drh * q.r", "drh"),
    "gru before: r's path missing": Bug(E.gru_reset_before, "dr = drh * h", "dr = 0 * h"),
    "gru before: r's gradient by the candidate": Bug(
        E.gru_reset_before, "dr = drh * h", "dr = drh * q.g"
    ),
    # steps
    "simple: the recurrent kernel not transposed": Bug(
        S.simple_back, "dot(dz, way.U_T)", "dot(dz, way.weights.recurrent_kernel)"
    ),
    "lstm: gates in another order than the kernel": Bug(
        S.lstm_back, "dgates.pre, axis", "[dgates.pre[k] for k in (0, 1, 3, 2)], axis"
    ),
    "lstm: the recurrent kernel's gradient by the new h": Bug(
        S.lstm_back, "summed(state.h, dz)", "summed(q.h, dz)"
    ),
    "lstm: nothing back through the recurrent kernel": Bug(
        S.lstm_back, "dot(dz, way.U_T)", "0 * state.h"
    ),
    "lstm: the bias's gradient of one row": Bug(S.lstm_back, "summed_bias(dz)", "dz[0]"),
    "gru: one bias row for both": Bug(
        S.gru_back, "summed_bias(dh_parts)])", "summed_bias(dx_parts)])"
    ),
    "gru: bias rows swapped": Bug(
        S.gru_back,
        "[summed_bias(dx_parts), summed_bias(dh_parts)]",
        "[summed_bias(dh_parts), summed_bias(dx_parts)]",
    ),
    "gru: the candidate's own bias left out": Bug(S.gru_back, " + b[1, 2 * H :]", ""),
    "gru: the input's bias in the candidate's place": Bug(S.gru_back, "b[1, 2", "b[0, 2"),
    "gru: the input's gradient scaled by r": Bug(
        S.gru_back, "dot(dx_parts, way.W_T)", "dot(dh_parts, way.W_T)"
    ),
    "gru: the recurrent kernel's not scaled by r": Bug(
        S.gru_back, "summed(state.h, dh_parts)", "summed(state.h, dx_parts)"
    ),
    "gru: the carry without the recurrent product": Bug(
        S.gru_back, "dh + dot(dh_parts, way.U_T)", "dh"
    ),
    "gru before: the recurrent kernel's gradient by h": Bug(
        S.gru_reset_before_back, "summed(q.r * state.h, dz_g)", "summed(state.h, dz_g)"
    ),
    "gru before: the carry without z and r": Bug(
        S.gru_reset_before_back, "dh + dot(dz_zr, way.U_T[: 2 * H])", "dh"
    ),
    "one product transposed by its gates alone": Bug(
        S.gru_reset_before_back, "way.U_T[2 * H :]", "way.weights.recurrent_kernel[:, 2 * H :]"
    ),
    # the loop
    "the state's gradient leaks through the mask": Bug(L, "np.where(live, d, on)", "d"),
    "the state's gradient stops at the mask": Bug(
        L, "np.where(live, d, on)", "np.where(live, d, 0)"
    ),
    "a masked step computes": Bug(L, "only(live, dnew)", "dnew"),
    "a repeated output hands nothing on": Bug(
        L, "np.where(live | zero_output_for_mask, 0, doutput)", "zeros.h"
    ),
    "zeros hand on as repeats do": Bug(L, "live | zero_output_for_mask", "live"),
    "an output hands on as if it were repeated": Bug(
        L, "live | zero_output_for_mask", "zero_output_for_mask"
    ),
    "a masked NaN in the input gets out": Bug(L, "np.where(live, x, 0)", "x", "masked NaN"),
    "a masked NaN in the gates gets out": Bug(L, "only(live, q)", "q", "masked NaN"),
    "the state's gradient crosses a reset": Bug(L, "only(remembered, dstate)", "dstate", "resets"),
    "the output's gradient crosses a reset": Bug(
        L, "np.where(remembered, doutput, 0)", "doutput", "resets"
    ),
    "the last output's gradient crosses a reset": Bug(
        L, "np.where(remembered, doutput, 0)", "doutput", "last output"
    ),
    "the reset is taken for the mask of its row": Bug(
        L, "~reset[:, t, None]  # (B, 1)", "reset[:, t, None]", "resets"
    ),
    "a reset's state is not forgotten on the way back": Bug(
        loop.kept, "only(~reset[:, t, None], state)", "state", "resets"
    ),
    "truncation a step too early": Bug(
        L, "n % truncate == 0", "(n + 1) % truncate == 0", "truncation"
    ),
    "truncation a step too late": Bug(
        L, "n % truncate == 0", "(n - 1) % truncate == 0", "truncation"
    ),
    "truncation counted from the end": Bug(
        L, "n % truncate == 0", "(len(seen) - n) % truncate == 1", "truncation"
    ),
    "truncation cuts the initial state off": Bug(L, "n > 0 and ", "", "truncation"),
    "truncation lets the repeated output through": Bug(
        L,
        "dstate, doutput = zeros, zeros.h\n                dw",
        "dstate = zeros\n                dw",
        "truncation",
    ),
    "the state's gradient handed back is dropped": Bug(
        L, "h=dstate.h + doutput", "h=0 * dstate.h + doutput"
    ),
    "the last output's gradient is dropped": Bug(L, "dlast_output.copy()", "zeros.h", "chunks"),
    "outputs counted in the order of the input": Bug(L, "dys[:, n]", "dys[:, t]"),
    "inputs counted in the order of the outputs": Bug(L, "dxs[:, t]", "dxs[:, n]"),
    "the gates' gradients in reverse": Bug(L, "dtrace[::-1]", "dtrace"),
    "the weights' gradients of one step": Bug(L, "a + b for a, b", "b for a, b"),
    "the state after a step taken for that before": Bug(
        loop.kept, "Kept(t, before, gates)", "Kept(t, after, gates)"
    ),
}


def on_the_battery(check: str) -> None:
    for case in BATTERY:
        CHECKS[check](case)


def plant(patch: pytest.MonkeyPatch, bug: Bug) -> None:
    module = inspect.getmodule(bug.function)
    source = inspect.getsource(bug.function)
    assert source.count(bug.right) == 1, "the source has changed: plant another bug"
    made: dict[str, Any] = {}
    exec(source.replace(bug.right, bug.wrong), vars(module), made)
    name = bug.function.__name__
    for user in (module, refrnn.backward):
        if vars(user).get(name) is bug.function:
            patch.setattr(user, name, made[name])
    for step, back in steps.BACK.items():
        if back is bug.function:
            patch.setitem(steps.BACK, step, made[name])


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    plant(monkeypatch, BUGS[name])
    with pytest.raises(AssertionError):
        on_the_battery(BUGS[name].check)


@pytest.mark.parametrize("check", CHECKS)
def test_without_a_bug_nothing_is_caught(monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    plant(monkeypatch, Bug(loop.record, "dlast_output.copy()", "dlast_output.copy()"))
    on_the_battery(check)
