"""check is right: correct implementations pass however they are shown, spoiled ones fail, and the
first difference is the number that was spoiled.

Candidates are those of `implementations`, which share no loop with refrnn, and Keras itself.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from implementations import Plain, Plant

from refrnn import Weights
from refrnn.cases import Arrays, Case
from refrnn.layers import GRU, LSTM, Bidirectional, Dense, Input, SimpleRNN
from refrnn.models import Sequential
from refrnn.oracles.tensorflow import TensorFlow
from refrnn.verify import PRECISIONS, Report, check
from refrnn.verify.subject import subject

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "simple": ("SimpleRNN", {}),
    "gru": ("GRU", {}),
    "gru_reset_before": ("GRU", {"reset_after": False}),
    "lstm": ("LSTM", {}),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def case(kind: str, **settings: Any) -> Case:
    layer, options = KINDS[kind]
    return Case(layer, **{"options": options, **settings})


def setup(run: Case, **options: Any) -> tuple[Any, Arrays, Plain]:
    """The layer, what it is fed, and a correct implementation of it. Two-byte floats are drawn in
    float32: NumPy alone does not know bfloat16."""
    small = run.dtype in ("float16", "bfloat16")
    layer = run.build(**({"engine": "numpy"} if small else {}))
    arrays = (dataclasses.replace(run, dtype="float32") if small else run).arrays()
    part = subject(layer).parts[0]
    return layer, arrays, Plain(part.cell, part.weights, backwards=part.backwards, **options)


def over_time(plain: Plain, arrays: Arrays) -> dict[str, np.ndarray]:
    """Everything that `plain` computes, by the names of `check`; h is y."""
    found = plain.all(arrays.x, arrays.state, arrays.mask)
    return {name: a for name, a in found.items() if name != "hs" and (name == "y" or a.ndim > 2)}


@st.composite
def cases(draw: st.DrawFn, steps: st.SearchStrategy[int] | None = None) -> Case:
    return case(
        draw(st.sampled_from(list(KINDS))),
        rows=draw(st.integers(1, 3)),
        steps=draw(st.integers(1, 6) if steps is None else steps),
        features=draw(st.integers(1, 5)),
        units=draw(st.integers(1, 9)),
        mask=draw(st.sampled_from((None, "holes", "left", "right"))),
        state=draw(st.booleans()),
        seed=draw(st.integers(0, 2**16)),
    )


@st.composite
def plants(draw: st.DrawFn, run: Case, arrays: Arrays, names: list[str]) -> Plant:
    """An error at a live step, from a thousand roundings of float64 to half the span of a gate."""
    live = np.ones((run.rows, run.steps), bool) if arrays.mask is None else arrays.mask
    row, step = draw(st.sampled_from([(int(b), int(t)) for b, t in np.argwhere(live)]))
    size = 10.0 ** draw(st.integers(-11, -1)) * draw(st.sampled_from((1, 5, -1, -5)))
    return Plant(draw(st.sampled_from(names)), row, step, draw(st.integers(0, run.units - 1)), size)


# --- the verdicts ---


@each_kind
@pytest.mark.parametrize("mask", [None, "holes", "left", "all"])
def test_a_correct_implementation_agrees(kind: str, mask: str | None) -> None:
    layer, arrays, plain = setup(case(kind, mask=mask))
    report = check(plain, layer, arrays.x, arrays.state, arrays.mask)
    assert (report.verdict, report.passed, report.first) == ("agrees", True, None)
    assert report.margin <= 1
    assert report.margins["W"] <= 1
    assert mask == "all" or report.margin > 0.01
    assert [run.title for run in report.runs] == [
        "whole", "rows reversed", "last row alone", "in chunks of 1", "in chunks of 4, 1, 2",
        "probes", "probes of -1",
    ]  # fmt: skip
    assert str(report).startswith(f"{layer.who}: agrees, as float64: largest error 0")


@given(cases(st.integers(0, 6)))
def test_every_drawn_correct_implementation_agrees(run: Case) -> None:
    layer, arrays, plain = setup(run)
    report = check(plain, layer, arrays.x, arrays.state, arrays.mask)
    assert report.passed, str(report)


def test_an_error_between_the_statistical_and_the_worst_case_bound_probably_differs() -> None:
    layer, arrays, plain = setup(case("simple", units=100, features=400, dtype="float32"))
    y, _ = plain(arrays.x, arrays.state)
    judged = check(y, layer, arrays.x, arrays.state).runs[0].found[0].judged
    low, high = judged.bounds["S"][2, -1, 7], judged.bounds["W"][2, -1, 7]
    assert high > 10 * low  # 501 terms seldom conspire
    expected = judged.expected
    wrong = y.astype(np.float64)
    wrong[2, -1, 7] = expected[2, -1, 7] + (low + high) / 2
    report = check(wrong, layer, arrays.x, arrays.state)
    assert report.verdict == "probably differs"
    assert not report.passed
    assert report.margins["W"] < 1 < report.margin
    assert report.first is not None
    assert (report.first.row, report.first.step, report.first.unit) == (2, 6, 7)
    wrong[2, -1, 7] = expected[2, -1, 7] + 1.5 * high
    assert check(wrong, layer, arrays.x, arrays.state).verdict == "differs"


def test_where_rounding_decides_the_outcome_nothing_is_decided() -> None:
    chaotic = case("simple", units=16, steps=300, scale=6.0, dtype="float32")
    layer, arrays, plain = setup(chaotic)
    y, _ = plain(arrays.x, arrays.state)
    assert check(y, layer, arrays.x, arrays.state).verdict == "agrees"  # the steps are right
    report = check(y[:, -1], layer, arrays.x, arrays.state)
    assert report.verdict == "undecidable"
    assert not report.passed
    assert report.to_dict()["verdict"] == "undecidable"


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_differs(wrong: float) -> None:
    layer, arrays, plain = setup(case("lstm"))
    y, h, c = plain(arrays.x, arrays.state)
    y[1, 3, 2] = wrong
    report = check((y, h, c), layer, arrays.x, arrays.state)
    assert report.verdict == "differs"
    assert report.margin == np.inf
    assert report.first is not None
    assert (report.first.array, report.first.row, report.first.step) == ("y", 1, 3)
    assert json.loads(json.dumps(report.to_dict()))["first"]["margin"] is None
    hidden = check((y[:, -1], h * wrong), layer, arrays.x, arrays.state)
    assert hidden.verdict == "differs"


# --- the ways to show a candidate ---

Show = Callable[[Plain, Arrays], Any]
ALONE: dict[str, Show] = {
    "y": lambda p, a: p(a.x, a.state, a.mask)[0],
    "(y,)": lambda p, a: p(a.x, a.state, a.mask)[:1],
    "(y, h, c)": lambda p, a: p(a.x, a.state, a.mask),
    "[y, [h, c]]": lambda p, a: [p(a.x, a.state, a.mask)[0], list(p(a.x, a.state, a.mask)[1:])],
    "{y, states}": lambda p, a: dict(
        zip(("y", "h", "c"), p(a.x, a.state, a.mask), strict=False)
    ),
    "{gates and cs}": over_time,
    "the last output": lambda p, a: p(a.x, a.state, a.mask)[0][:, -1],
    "the last output and states": lambda p, a: (
        p(a.x, a.state, a.mask)[0][:, -1],
        *p(a.x, a.state, a.mask)[1:],
    ),
    "a layer": lambda p, a: p,
    "a function of x, state and mask": lambda p, a: (
        lambda x, initial_state=None, mask=None: p(x, initial_state, mask)
    ),
    "a function that returns outputs alone": lambda p, a: (
        lambda x, **given: p(x, **given)[0]
    ),
    "a function that returns the last output": lambda p, a: (
        lambda x, **given: p(x, **given)[0][:, -1]
    ),
}  # fmt: skip


@each_kind
@pytest.mark.parametrize("show", ALONE)
@pytest.mark.parametrize("mask", [None, "holes"])
def test_a_candidate_may_be_shown_in_any_form(kind: str, show: str, mask: str | None) -> None:
    layer, arrays, plain = setup(case(kind, mask=mask, seed=5))
    arguments = layer, arrays.x, arrays.state, arrays.mask
    report = check(ALONE[show](plain, arrays), *arguments)
    assert report.passed, str(report)
    # a recurrent kernel of the wrong sign, shown in the same way
    weights = plain.weights._replace(recurrent_kernel=-plain.weights.recurrent_kernel)
    wrong = check(ALONE[show](Plain(plain.cell, weights), arrays), *arguments)
    # of a run that is not seen nothing is proven, however far it is off
    hidden = show.startswith("the last output")
    assert wrong.verdict == ("probably differs" if hidden else "differs")
    assert wrong.first is not None


@pytest.mark.parametrize("form", ["cell and weights", "layer", "model", "Bidirectional model"])
def test_a_reference_may_be_a_cell_a_layer_or_a_model_of_one(form: str) -> None:
    layer, arrays, plain = setup(case("lstm", state=False))
    candidate: Any = plain
    if form == "cell and weights":
        reference: Any = ("lstm", Weights(*arrays.weights))
    elif form == "layer":
        reference = layer
    elif form == "model":
        reference = Sequential([Input((None, 5)), LSTM(4, return_sequences=True, dtype="float64")])
        reference.set_weights(arrays.weights)
    else:
        inner = LSTM(4, return_sequences=True, dtype="float64")
        reference = Sequential([Input((None, 5)), Bidirectional(inner, dtype="float64")])
        reference.set_weights([*arrays.weights, *(-w for w in arrays.weights)])
        back = Plain(plain.cell, Weights(*(-w for w in arrays.weights)), backwards=True)

        def candidate(x: np.ndarray) -> np.ndarray:
            return np.concatenate([plain(x)[0], back(x)[0][:, ::-1]], axis=2)

    assert check(candidate, reference, arrays.x).passed
    wrong = check(lambda x: np.asarray(plain(x)[0]) + 1e-9, reference, arrays.x) if (
        "Bidirectional" not in form
    ) else check(lambda x: candidate(x) + 1e-9, reference, arrays.x)  # fmt: skip
    assert wrong.verdict == "differs"


@pytest.mark.parametrize("backwards", [False, True])
def test_a_layer_that_goes_backwards_is_judged_in_its_own_order(backwards: bool) -> None:
    run = case("gru", mask="holes", options={"go_backwards": backwards})
    layer, arrays, plain = setup(run)
    arguments = layer, arrays.x, arrays.state, arrays.mask
    assert check(plain, *arguments).passed
    plain.backwards = not backwards
    assert check(plain, *arguments).verdict == "differs"
    plain.backwards = backwards
    step = int(np.argwhere(arrays.mask[0][:: -1 if backwards else 1])[0, 0])
    plain.spoil = Plant("h", 0, step, 1, 1e-6)
    first = check(plain.all(*arrays[1:])["y"], *arguments).first
    assert first is not None
    assert (first.row, first.step, first.unit) == (0, step, 1)


def bidirectional(merge: str = "concat", mask: str | None = None) -> tuple[Any, Any, Any, Any]:
    run = case("lstm", dtype="float64", mask=mask, state=False)
    layer = Bidirectional(
        LSTM(4, return_sequences=True, return_state=True, dtype="float64"),
        merge_mode=merge,
        dtype="float64",
    )
    arrays = run.arrays()
    layer.build((None, None, 5))
    other = dataclasses.replace(run, seed=9).arrays()
    layer.set_weights([*arrays.weights, *other.weights])
    part = subject(run.build()).parts[0]
    halves = (
        Plain(part.cell, Weights(*arrays.weights), emits_zeros=True),
        Plain(part.cell, Weights(*other.weights), backwards=True, emits_zeros=True),
    )
    return layer, arrays, *halves


@pytest.mark.parametrize("mask", [None, "right"])
def test_the_halves_of_a_bidirectional_are_judged_each_in_its_own_time(mask: str | None) -> None:
    layer, arrays, forward, backward = bidirectional(mask=mask)

    def both(x: np.ndarray, initial_state: Any = None, mask: Any = None) -> list[np.ndarray]:
        state = [None, None] if initial_state is None else [initial_state[:2], initial_state[2:]]
        ahead, back = forward(x, state[0], mask), backward(x, state[1], mask)
        return [np.concatenate([ahead[0], back[0][:, ::-1]], axis=2), *ahead[1:], *back[1:]]

    report = check(both, layer, arrays.x, None, arrays.mask)
    assert report.passed, str(report)
    assert "not run in chunks: one half runs backwards" in report.notes
    y = both(arrays.x, None, arrays.mask)[0]
    y[0, 0, 5] += 1e-6  # a unit of the backward half: its last step is the sequence's first
    first = check(y, layer, arrays.x, None, arrays.mask).first
    assert first is not None
    assert (first.array, first.row, first.step, first.unit) == ("backward.y", 0, 0, 1)
    named = backward.all(arrays.x, None, arrays.mask)
    gates = {f"backward.{gate}": named[gate][:, ::-1].copy() for gate in "ifgo"}
    good = {"y": both(arrays.x, None, arrays.mask)[0], **gates}
    assert check(good, layer, arrays.x, None, arrays.mask).passed
    good["backward.g"][1, 0, 3] += 1e-6  # a gate is not looked at where the mask is False
    first = check(good, layer, arrays.x, None, arrays.mask).first
    assert first is not None
    assert (first.array, first.row, first.step, first.unit) == ("backward.g", 1, 0, 3)


def test_a_bidirectional_takes_the_states_of_both_halves() -> None:
    layer, arrays, forward, backward = bidirectional()
    state = [np.random.default_rng(k).uniform(-0.9, 0.9, (3, 4)) for k in range(4)]
    ahead, back = forward(arrays.x, state[:2]), backward(arrays.x, state[2:])
    y = np.concatenate([ahead[0], back[0][:, ::-1]], axis=2)
    assert check((y, *ahead[1:], *back[1:]), layer, arrays.x, state).passed
    swapped = check((y, *ahead[1:], *back[1:]), layer, arrays.x, state[2:] + state[:2])
    assert swapped.verdict == "differs"


@each_kind
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_a_float_of_any_size_is_judged_as_what_it_is(kind: str, dtype: str) -> None:
    layer, arrays, plain = setup(case(kind, dtype=dtype, units=9, steps=12))
    report = check(plain, layer, arrays.x, arrays.state)
    assert (report.verdict, report.precision) == ("agrees", dtype)
    assert report.fits == [dtype]


def test_keras_itself_agrees(tf: TensorFlow) -> None:
    import keras

    for kind, mask in (("lstm", None), ("gru", "right"), ("gru_reset_before", None)):
        run = case(kind, dtype="float32", mask=mask)
        layer, arrays, _ = setup(run)
        same = getattr(keras.layers, run.layer)(
            run.units, return_sequences=True, return_state=True, **run.options
        )
        same.build((None, None, run.features))
        same.set_weights(arrays.weights)
        report = check(same, layer, arrays.x, arrays.state, arrays.mask)
        assert report.passed, str(report)
        assert {"in chunks of 1", "probes"} <= {found.title for found in report.runs}
        same.set_weights([-w for w in arrays.weights])
        assert not check(same, layer, arrays.x, arrays.state, arrays.mask).passed


# --- the first difference ---


@given(st.data())
def test_the_first_difference_is_the_number_that_was_spoiled(data: st.DataObject) -> None:
    """A single number of y is off, the run that it came from is not."""
    run = data.draw(cases())
    layer, arrays, plain = setup(run)
    plain.spoil = plant = data.draw(plants(run, arrays, ["y"]))
    report = check(plain.all(*arrays[1:])["y"], layer, arrays.x, arrays.state, arrays.mask)
    first = report.first
    assert first is not None
    assert (first.array, first.row, first.step, first.unit) == (
        "y", plant.row, plant.step, plant.unit,
    )  # fmt: skip
    assert first.got - first.expected == pytest.approx(plant.error, rel=1e-3)
    assert abs(plant.error) > first.bound
    assert first.margin == pytest.approx(abs(plant.error) / first.bound, rel=0.01)


@given(st.data())
def test_the_first_difference_is_the_step_that_was_wrong(data: st.DataObject) -> None:
    """A step makes an error and the run goes on from there: one step is wrong in itself."""
    run = data.draw(cases())
    layer, arrays, plain = setup(run)
    plain.spoil = plant = data.draw(plants(run, arrays, ["h"]))
    report = check(plain(*arrays[1:]), layer, arrays.x, arrays.state, arrays.mask)
    first = report.first
    assert first is not None
    assert (first.array, first.row, first.step, first.unit) == (
        "y", plant.row, plant.step, plant.unit,
    )  # fmt: skip
    assert report.spread[0] == 1


@given(st.data())
def test_where_gates_are_shown_the_wrong_one_is_named(data: st.DataObject) -> None:
    run = data.draw(cases())
    layer, arrays, plain = setup(run)
    gates = subject(layer).parts[0].cell.gates
    names = [name for g in gates for name in (g, f"pre.{g}")] if gates != "h" else ["h"]
    plain.spoil = plant = data.draw(plants(run, arrays, [*names, *("c" if "i" in gates else "")]))
    report = check(over_time(plain, arrays), layer, arrays.x, arrays.state, arrays.mask)
    first = report.first
    assert first is not None
    assert first.array == {"h": "y", "c": "cs"}.get(plant.name, plant.name)
    assert (first.row, first.step, first.unit) == (plant.row, plant.step, plant.unit)


@pytest.mark.parametrize("name", ["h", "c"])
def test_a_wrong_returned_state_is_found_without_a_step(name: str) -> None:
    layer, arrays, plain = setup(case("lstm"))
    outputs = dict(zip(("y", "h", "c"), plain(arrays.x, arrays.state), strict=True))
    outputs[name] = outputs[name].copy()
    outputs[name][2, 1] += 1e-9
    first = check(outputs, layer, arrays.x, arrays.state).first
    assert first is not None
    assert (first.array, first.row, first.step, first.unit) == (name, 2, None, 1)
    assert f"{name}[row 2, unit 1] is " in str(first)


def test_states_in_the_wrong_order_differ() -> None:
    layer, arrays, plain = setup(case("lstm"))
    y, h, c = plain(arrays.x, arrays.state)
    assert check((y, c, h), layer, arrays.x, arrays.state).verdict == "differs"
    assert arrays.state is not None
    swapped = plain(arrays.x, arrays.state[::-1])
    first = check(swapped, layer, arrays.x, arrays.state).first
    assert first is not None
    assert (first.array, first.step) == ("y", 0)


def test_a_masked_step_must_repeat_its_output_exactly() -> None:
    layer, arrays, plain = setup(case("gru", mask="holes", steps=12))
    y, _ = plain(arrays.x, arrays.state, arrays.mask)
    assert arrays.mask is not None
    row, step = map(int, np.argwhere(~arrays.mask[:, 1:] & arrays.mask[:, :-1])[0] + (0, 1))
    y[row, step, 2] = np.nextafter(y[row, step, 2], 2)
    first = check(y, layer, arrays.x, arrays.state, arrays.mask).first
    assert first is not None
    assert (first.row, first.step, first.unit, first.bound) == (row, step, 2, 0)
    assert first.margin == np.inf
    assert "an exact copy expected" in str(first)


@each_kind
@pytest.mark.parametrize("step", [0, 3, 6])
def test_one_step_makes_the_error_and_the_others_carry_it(kind: str, step: int) -> None:
    layer, arrays, plain = setup(case(kind, steps=7), spoil=Plant("h", 1, step, 2, 0.1))
    report = check(plain(*arrays[1:]), layer, arrays.x, arrays.state)
    assert report.spread == (1, 6 - step)
    found = report.to_dict()
    assert (found["made"], found["carried"]) == (1, 6 - step)
    assert f"1 (row, step) pairs are wrong in themselves, {6 - step} are right" in str(report)


def test_what_a_chaotic_run_makes_of_rounding_is_not_carried_from_a_later_error() -> None:
    chaotic = case("simple", units=16, steps=200, scale=6.0, dtype="float32")
    layer, arrays, plain = setup(chaotic, spoil=Plant("h", 1, 199, 2, 0.1))
    report = check(plain(*arrays[1:]), layer, arrays.x, arrays.state)
    assert report.spread == (1, 0)


# --- runs of a callable ---


def cut_at(plain: Plain, error: Callable[[list[np.ndarray]], list[np.ndarray]]) -> Any:
    """An implementation that is right as a whole, and spoils the state that it is handed."""

    def candidate(x: np.ndarray, initial_state: Any = None, mask: Any = None) -> Any:
        if initial_state is not None:
            initial_state = error(initial_state)
        return plain(x, initial_state, mask)

    return candidate


@each_kind
def test_a_state_lost_between_chunks_is_found_at_the_border(kind: str) -> None:
    layer, arrays, plain = setup(case(kind, state=False))
    lossy = cut_at(plain, lambda state: [0 * part for part in state])
    assert check(plain(arrays.x), layer, arrays.x).passed  # whole, it is right
    report = check(lossy, layer, arrays.x, chunks=[3, 2])
    first = report.first
    assert first is not None
    assert (first.run, first.step, first.new_call) == ("in chunks of 3, 2", 3, True)
    assert "the first of a chunk" in str(first)
    assert check(lossy, layer, arrays.x, chunks="all").first.run == "in chunks of 1"  # type: ignore[union-attr]
    whole = check(lossy, layer, arrays.x, chunks="whole")
    broken = {run.title for run in whole.runs if run.broken}
    assert broken == {"probes", "probes of -1"}  # which read h as well


def test_h_and_c_swapped_between_chunks_are_found_at_the_border() -> None:
    layer, arrays, plain = setup(case("lstm", state=False))
    first = check(cut_at(plain, lambda s: s[::-1]), layer, arrays.x, chunks=[5]).first
    assert first is not None
    assert (first.run, first.step, first.new_call) == ("in chunks of 5", 5, True)


@pytest.mark.parametrize("name", ["kernel", "recurrent_kernel"])
@each_kind
def test_a_wrong_weight_that_the_input_never_reads_is_found_by_the_probes(
    kind: str, name: str
) -> None:
    layer, arrays, plain = setup(case(kind, dtype="float32", steps=1, state=False))
    arrays.x[:, :, 3] = 0
    weights = np.copy(getattr(plain.weights, name))
    weights[3, 1] *= 1.001
    wrong = Plain(plain.cell, plain.weights._replace(**{name: weights}))
    assert check(wrong(arrays.x), layer, arrays.x).passed
    first = check(wrong, layer, arrays.x).first
    assert first is not None
    assert (first.run, first.row, first.unit) == ("probes", 3 if name == "kernel" else 5 + 3, 1)


@pytest.mark.parametrize("seed", range(8))
def test_a_wrong_weight_behind_a_relu_is_found_by_probes_of_both_signs(seed: int) -> None:
    layer, wrong = (
        GRU(1, activation="relu", use_bias=False, return_sequences=True, return_state=True)
        for _ in range(2)
    )
    rng = np.random.default_rng(seed)
    kernel, recurrent = (rng.normal(size=s).astype("f") for s in ((2, 3), (1, 3)))
    for one in (layer, wrong):
        one.build((None, None, 2))
    layer.set_weights([kernel, recurrent])
    wrong.set_weights([kernel, recurrent * np.float32([1, 1, 1.5])])
    assert not check(wrong, layer, np.zeros((1, 1, 2), "f")).passed


def test_rows_that_leak_into_each_other_are_found() -> None:
    layer, arrays, plain = setup(case("simple"))

    def leaky(x: np.ndarray, initial_state: Any = None) -> Any:
        y, h = plain(x, initial_state)
        if len(x) == 1:  # the tail of a tile: its last row is left out
            y = np.zeros_like(y)
        return y, h

    report = check(leaky, layer, arrays.x, arrays.state)
    assert [run.title for run in report.runs if run.broken] == ["last row alone"]


def test_what_is_not_deterministic_is_said() -> None:
    layer, arrays, plain = setup(case("lstm"))
    rng = np.random.default_rng(1)

    def moody(x: np.ndarray, initial_state: Any = None) -> Any:
        y, h, c = plain(x, initial_state)
        return y * (1 + rng.choice([-1, 1], y.shape) * 2.0**-53), h, c

    report = check(moody, layer, arrays.x, arrays.state)
    assert "two runs on the same input differ in their bits: not deterministic" in report.notes
    assert "again" in [run.title for run in report.runs]
    assert report.passed  # every run within the envelope
    steady = check(plain, layer, arrays.x, arrays.state)
    assert not any("deterministic" in note for note in steady.notes)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_last_output_alone_is_made_visible_by_shorter_runs(backwards: bool) -> None:
    run = case("gru", options={"go_backwards": backwards})
    layer, arrays, plain = setup(run)

    def last(x: np.ndarray, initial_state: Any = None) -> np.ndarray:
        return plain(x, initial_state)[0][:, -1]

    report = check(last, layer, arrays.x, arrays.state)
    assert report.passed, str(report)
    assert any("only the last output is returned" in note for note in report.notes)
    plain.spoil = Plant("h", 0, 4, 1, 1e-6)
    first = check(lambda x, **given: plain(x, **given)[0][:, -1], layer, arrays.x[:1],
                  [part[:1] for part in arrays.state or []]).first  # fmt: skip
    assert first is not None
    assert (first.run, first.row, first.step, first.unit) == ("whole", 0, 4, 1)


@pytest.mark.parametrize("mask", [None, "holes"])
@pytest.mark.parametrize("backwards", [False, True])
@each_kind
def test_a_last_output_and_its_states_are_run_in_chunks(
    kind: str, backwards: bool, mask: str | None
) -> None:
    layer, options = KINDS[kind]
    run = Case(layer, mask=mask, options={**options, "go_backwards": backwards})
    reference, arrays, plain = setup(run)

    def last(x: Any, initial_state: Any = None, mask: Any = None) -> Any:
        y, *states = plain(x, initial_state, mask)
        return y[:, -1], *states

    for chunks in ("all", [2, 3]):
        report = check(last, reference, arrays.x, arrays.state, arrays.mask, chunks)
        assert report.passed, str(report)
        assert "in chunks of 1" in [run.title for run in report.runs]

    def forgets(x: Any, initial_state: Any = None, mask: Any = None) -> Any:
        y, *states = last(x, initial_state, mask)
        return y, *(0.5 * part for part in states)

    first = check(forgets, reference, arrays.x, arrays.state, arrays.mask).runs
    assert any(run.broken for run in first if run.title == "in chunks of 1")


def test_a_candidate_without_a_state_is_run_without_one() -> None:
    layer, arrays, plain = setup(case("lstm", state=False))
    report = check(lambda x: plain(x), layer, arrays.x)
    assert report.passed
    assert "not run in chunks: the candidate takes no initial_state, or returns no h and c" in (
        report.notes
    )


# --- precisions ---


@pytest.mark.parametrize("name", ["tf32", "tf32 cut", "bfloat16 products", "float16 products"])
@each_kind
def test_rounded_products_are_identified(kind: str, name: str) -> None:
    run = case(kind, dtype="float32", units=16, features=12, steps=10)
    operands = PRECISIONS[name].operands
    layer, arrays, plain = setup(run, operands=lambda a: operands(a).astype(np.float32))
    report = check(plain, layer, arrays.x, arrays.state)
    assert not report.passed
    assert report.precision == "float32"
    # a float16 has the bits of a TF32: only numbers beyond its range would tell
    assert report.fits[0] == {"float16 products": "tf32"}.get(name, name)
    assert name in report.fits
    assert f"fits {report.fits[0]}, not float32" in str(report)
    claimed = check(plain, layer, arrays.x, arrays.state, precision=name)
    assert claimed.passed
    assert claimed.precision == name


@pytest.mark.parametrize("error", [1e-5, 1e-3])
def test_a_few_wrong_numbers_among_right_ones_fit_no_precision(error: float) -> None:
    """Of the size of a float16's rounding, but one: that a coarser run fits says nothing."""
    layer, arrays, plain = setup(case("gru", dtype="float32"), spoil=Plant("h", 1, 3, 2, error))
    report = check(plain(*arrays[1:]), layer, arrays.x, arrays.state)
    assert report.verdict == "differs"
    assert report.fits == []
    assert "fits none of float64, float32, tf32" in str(report)


def test_float32_that_claims_to_be_float64_fits_float32() -> None:
    layer, arrays, _ = setup(case("lstm"))
    coarse = Plain(subject(layer).parts[0].cell, Weights(*(w.astype("f4") for w in arrays.weights)))
    y = coarse(arrays.x.astype("f4"), [part.astype("f4") for part in arrays.state or []])[0]
    assert check(y, layer, arrays.x, arrays.state).precision == "float32"  # its own dtype
    report = check(y.astype(np.float64), layer, arrays.x, arrays.state)
    assert report.precision == "float64"
    assert not report.passed


def test_a_finer_run_than_claimed_is_said_to_be_finer() -> None:
    layer, arrays, plain = setup(case("lstm", dtype="float32", units=16))
    coarse = PRECISIONS["bfloat16"].operands
    stored = Weights(*(coarse(w).astype(np.float32) for w in plain.weights))
    report = check(Plain(plain.cell, stored), layer, arrays.x, arrays.state, precision="bfloat16")
    assert report.passed
    assert report.fits == ["float32", "float16", "bfloat16"]  # of the same few bits or more
    assert "fits float32 already, finer than bfloat16" in str(report)
    exact = check(plain, layer, arrays.x, arrays.state, precision="tf32")
    assert not exact.passed  # TF32 is no wider bound: the products are other products
    assert "fits float32, not tf32" in str(exact)


# --- what is left alone, and what is refused ---


def test_nothing_is_written_to_and_a_candidate_may_write_to_its_own() -> None:
    layer, arrays, plain = setup(case("lstm", mask="holes"))
    given = [arrays.x, *(arrays.state or []), arrays.mask]
    before = [np.copy(array) for array in given]

    def scribbling(x: np.ndarray, initial_state: Any = None, mask: Any = None) -> Any:
        outputs = plain(x, initial_state, mask)
        x[:] = np.nan
        for part in initial_state or []:
            part[:] = np.nan
        if mask is not None:
            mask[:] = False
        return outputs

    assert check(scribbling, layer, arrays.x, arrays.state, arrays.mask).passed
    for array, copy in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_candidate_that_returns_the_same_buffer_each_time_is_judged_all_the_same() -> None:
    layer, arrays, plain = setup(case("lstm"))
    buffers: dict[tuple[int, ...], np.ndarray] = {}

    def reusing(x: np.ndarray, initial_state: Any = None) -> Any:
        outputs = plain(x, initial_state)
        for k, array in enumerate(outputs):
            buffers.setdefault((k, *array.shape), np.empty_like(array))[:] = array
        return [buffers[(k, *array.shape)] for k, array in enumerate(outputs)]

    assert check(reusing, layer, arrays.x, arrays.state).passed


def test_a_recorded_array_is_not_written_to() -> None:
    layer, arrays, plain = setup(case("lstm", mask="holes"))
    shown = over_time(plain, arrays)
    for array in shown.values():
        array.setflags(write=False)
    report = check(shown, layer, arrays.x, arrays.state, arrays.mask)
    assert report.passed
    report.to_dict()


LSTM_CASE = case("lstm")
REFUSED: dict[str, tuple[Callable[[Any, Arrays, Plain], Any], type[Exception], str]] = {
    "an unknown precision": (
        lambda l, a, p: check(p, l, a.x, precision="fp32"),
        ValueError, "precision is 'fp32', expected one of 'float64', 'float32'",
    ),
    "unknown chunks": (
        lambda l, a, p: check(p, l, a.x, chunks="some"),
        ValueError, "chunks is 'some', expected 'all', 'whole' or a list of lengths",
    ),
    "chunks that never end": (
        lambda l, a, p: check(p, l, a.x, chunks=[3, 0]),
        ValueError, "chunks is 0, expected a whole number of at least 1",
    ),
    "an input of another width": (
        lambda l, a, p: check(p, l, a.x[:, :, :4]),
        ValueError, r"the input has shape \(3, 7, 4\), expected \(batch, time, 5\)",
    ),
    "a state of another shape": (
        lambda l, a, p: check(p, l, a.x, [a.state[0][:2], a.state[1]]),  # type: ignore[index]
        ValueError, r"expected \(3, 4\)",
    ),
    "a single state": (
        lambda l, a, p: check(p, l, a.x, a.state[:1]),  # type: ignore[index]
        ValueError, "expected a list of 2: h, c",
    ),
    "outputs of another shape": (
        lambda l, a, p: check(p(a.x)[0][:, :6], l, a.x),
        ValueError, r"the candidate's y has shape \(3, 6, 4\), expected \(3, 7, 4\) or \(3, 4\)",
    ),
    "outputs, time first": (
        lambda l, a, p: check(p(a.x)[0].swapaxes(0, 1), l, a.x),
        ValueError, r"the candidate's y has shape \(7, 3, 4\), expected \(3, 7, 4\) or \(3, 4\)",
    ),
    "too many arrays": (
        lambda l, a, p: check((*p(a.x), p(a.x)[0]), l, a.x),
        ValueError, "the candidate has 4 arrays, expected at most 3: y, h, c",
    ),
    "no array": (
        lambda l, a, p: check({}, l, a.x), ValueError, "the candidate has no arrays",
    ),
    "no outputs": (
        lambda l, a, p: check({"h": p(a.x)[1]}, l, a.x),
        ValueError, "the candidate has h, expected at least y, its outputs",
    ),
    "an unknown name": (
        lambda l, a, p: check({"y": p(a.x)[0], "q": p(a.x)[0]}, l, a.x),
        ValueError, "the candidate has an array called 'q', expected y, h, c, pre.i",
    ),
    "words": (
        lambda l, a, p: check(np.full((3, 7, 4), "no"), l, a.x),
        TypeError, "the candidate's y has dtype <U2, expected real numbers",
    ),
    "complex numbers": (
        lambda l, a, p: check(p(a.x)[0] * 1j, l, a.x),
        TypeError, "the candidate's y has dtype complex128, expected real numbers",
    ),
    "nothing": (
        lambda l, a, p: check(None, l, a.x),
        TypeError, "the candidate's y has dtype object, expected real numbers",
    ),
    "a layer that is not built": (
        lambda l, a, p: check(p, LSTM(4), a.x), ValueError, "the layer has no weights yet",
    ),
    "another kind of layer": (
        lambda l, a, p: check(p, Dense(4), a.x), TypeError, "expected an LSTM, GRU or SimpleRNN",
    ),
    "a model of two layers": (
        lambda l, a, p: check(p, Sequential([Input((None, 5)), LSTM(4), Dense(1)]), a.x),
        TypeError, "a model of one such layer",
    ),
    "a merged Bidirectional": (
        lambda l, a, p: check(p, bidirectional("sum")[0], a.x),
        ValueError, "merge_mode is 'sum', expected 'concat'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_judged_is_refused_with_the_reason(what: str) -> None:
    call, error, message = REFUSED[what]
    layer, arrays, plain = setup(LSTM_CASE)
    with pytest.raises(error, match=message):
        call(layer, arrays, plain)


def test_arguments_are_refused_before_the_candidate_is_called() -> None:
    layer, arrays, _ = setup(LSTM_CASE)

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("called")

    for wrong in ({"precision": "fp32"}, {"chunks": "some"}, {"mask": np.ones((2, 7), bool)}):
        with pytest.raises(ValueError, match="expected"):
            check(never, layer, arrays.x, **wrong)  # type: ignore[arg-type]


def test_what_the_candidate_raises_goes_through() -> None:
    layer, arrays, _ = setup(LSTM_CASE)

    def broken(x: np.ndarray) -> np.ndarray:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        check(broken, layer, arrays.x)


# --- the report ---


def test_a_report_is_words_for_people_and_plain_values_for_machines() -> None:
    layer, arrays, plain = setup(case("gru"), spoil=Plant("h", 1, 2, 3, 1e-3))
    report: Report = check(plain(*arrays[1:]), layer, arrays.x, arrays.state)
    lines = str(report).splitlines()
    assert lines[0].startswith(f"{layer.who}: differs, as float64: largest error ")
    assert lines[1].startswith("first difference: y[row 1, step 2, unit 3] is ")
    assert "off by 1.0e-03" in lines[1]
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert (found["verdict"], found["passed"], found["precision"]) == ("differs", False, "float64")
    assert {found["first"][k] for k in ("row", "step", "unit")} == {1, 2, 3}
    assert found["runs"][0]["title"] == "as given"
    assert found["margins"].keys() == {"W", "P", "S"}


@each_kind
@pytest.mark.parametrize(("steps", "rows"), [(0, 2), (1, 2), (1, 1), (3, 0)])
def test_runs_without_a_step_or_a_row_are_judged(kind: str, steps: int, rows: int) -> None:
    layer, arrays, plain = setup(case(kind, steps=steps, rows=rows))
    assert check(plain, layer, arrays.x, arrays.state).passed
    assert check(plain(arrays.x, arrays.state), layer, arrays.x, arrays.state).passed
    if rows:
        lost = cut_at(plain, lambda state: [part + 1e-3 for part in state])
        assert check(lost, layer, arrays.x, arrays.state).verdict == "differs"


def test_it_is_said_where_a_state_of_a_coarser_dtype_widens_the_bounds_of_y() -> None:
    layer, arrays, plain = setup(case("gru", dtype="float32"))
    y, h = plain(arrays.x, arrays.state)
    note = "y is float32, but judged as float16, the dtype of h: leave that out"
    for mixed in (True, False):
        shown = (y, h.astype("f2") if mixed else h)
        assert (note in str(check(shown, layer, arrays.x, arrays.state))) == mixed
    halves = (y.astype("f2"), h.astype("f2"))
    assert check(halves, layer, arrays.x, arrays.state).notes == []


@each_kind
def test_the_last_output_of_no_steps_is_zeros(kind: str) -> None:
    layer, arrays, plain = setup(case(kind, steps=0))
    y, *states = plain(arrays.x, arrays.state)
    last = np.zeros((len(arrays.x), y.shape[-1]))
    assert check((last, *states), layer, arrays.x, arrays.state).passed
    assert check(lambda x: last if len(x) == len(last) else plain(x)[0], layer, arrays.x).passed
    assert not check((last + 1e-3, *states), layer, arrays.x, arrays.state).passed


def test_it_is_said_where_nothing_was_compared() -> None:
    layer, arrays, plain = setup(case("gru", steps=0))
    y, h = plain(arrays.x)
    assert "nothing was compared: every array is empty" in str(check(y, layer, arrays.x))
    assert "nothing was compared" not in str(check((y, h), layer, arrays.x))


def test_a_report_of_a_run_that_overflows_is_printed_without_a_warning() -> None:
    layer = SimpleRNN(3, activation="exponential", return_sequences=True)
    x = np.full((2, 5, 2), 3, np.float32)
    layer.build(x.shape)
    layer.set_weights([np.ones_like(w) for w in layer.get_weights()])
    y = np.asarray(layer(x))
    assert np.isinf(y).any()
    assert "could not have seen" in str(check(y, layer, x))  # warnings are errors here


def test_layers_of_the_same_kind_are_told_apart_by_their_own_options() -> None:
    x = np.random.default_rng(0).normal(size=(2, 4, 3))
    for layer in (
        SimpleRNN(3, activation="relu", return_sequences=True, dtype="float64"),
        GRU(3, recurrent_activation="hard_sigmoid", return_sequences=True, dtype="float64"),
        LSTM(3, activation="softsign", return_sequences=True, dtype="float64"),
    ):
        layer.build((None, None, 3))
        assert check(layer, layer, x).passed
        other = type(layer)(3, return_sequences=True, dtype="float64")
        other.build((None, None, 3))
        other.set_weights(layer.get_weights())
        assert not check(other, layer, x).passed
