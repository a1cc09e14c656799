"""The judge is right: it finds a difference wherever there is one, says where, and nowhere else.

No TensorFlow takes part: the oracles here are refrnn's own numbers, whole or spoiled in one place.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import cuttings

from refrnn.cases import LAYERS, MASKS, Case
from refrnn.layers import LSTM, Dense, Input, Recurrent
from refrnn.layers.recurrent import Memory
from refrnn.models import Sequential
from refrnn.verify import (
    FAMILY,
    TOLERANCES,
    Mismatch,
    Row,
    Table,
    compare,
    judge_case,
    judge_model,
)
from refrnn.verify.chunks import (
    flat,
    layer_in_chunks,
    layer_whole,
    model_in_chunks,
    pieces,
    random_sizes,
)
from refrnn.verify.compare import largest_difference, same_bits
from refrnn.verify.family import KINDS
from refrnn.verify.inputs import bits, sine_windows

Outputs = dict[str, np.ndarray]
LSTM_CASE = Case("LSTM", seed=3)


def outputs(dtype: str = "float64") -> Outputs:
    rng = np.random.default_rng(1)
    return {
        "y": rng.normal(size=(2, 3, 4)).astype(dtype),
        "h": rng.normal(size=(2, 4)).astype(dtype),
    }


def spoiled(run: Outputs, name: str, at: tuple[int, ...], by: Any) -> Outputs:
    """A copy of `run`, where one element is `by` times the largest magnitude higher."""
    copy = {key: array.copy() for key, array in run.items()}
    copy[name][at] += by * np.max(np.abs(copy[name]))
    return copy


# --- compare ---


def test_equal_runs_do_not_differ() -> None:
    assert largest_difference(outputs(), outputs()).error == 0
    assert compare(outputs(), outputs(), 0, "nothing").error == 0


@pytest.mark.parametrize(("name", "at"), [("y", (1, 0, 3)), ("h", (0, 2)), ("y", (0, 0, 0))])
def test_the_largest_difference_is_found_and_named(name: str, at: tuple[int, ...]) -> None:
    want = outputs()
    got = spoiled(spoiled(want, name, at, 1e-3), "y", (1, 2, 1), 1e-4)
    found = largest_difference(got, want)
    assert (found.array, found.at) == (name, at)
    assert found.error == pytest.approx(1e-3, rel=1e-9)
    assert (found.got, found.want) == (got[name][at], want[name][at])
    assert f"{name}[{', '.join(map(str, at))}] is" in str(found)


def test_each_array_has_a_scale_of_its_own() -> None:
    """A small array is not excused by a large one, and a large one is not blamed for it."""
    want = {"y": np.full((1, 2, 1), 1000.0), "h": np.full((1, 1), 1e-3)}
    found = largest_difference(want | {"h": want["h"] + 1e-5}, want)
    assert (found.array, found.error) == ("h", pytest.approx(1e-2))
    found = largest_difference(want | {"y": want["y"] + 1e-5}, want)
    assert found.error == pytest.approx(1e-8)


def test_the_scale_is_the_expected_run_not_the_found_one() -> None:
    want, got = {"y": np.array([1.0, -2.0])}, {"y": np.array([1.0, 998.0])}
    assert largest_difference(got, want).error == pytest.approx(500)
    assert largest_difference(want, got).error == pytest.approx(1000 / 998)


def test_differences_from_zeros_are_absolute() -> None:
    zeros = {"y": np.zeros(3)}
    assert largest_difference({"y": np.array([0.0, 3e-4, 0.0])}, zeros).error == 3e-4


def test_a_difference_is_compared_with_what_is_allowed() -> None:
    want = {"y": np.array([2.0, 4.0])}
    got = {"y": np.array([2.0, 5.0])}
    assert compare(got, want, 0.25, "a quarter").error == 0.25
    with pytest.raises(Mismatch, match=r"a quarter: y\[1\] is 5, expected 4: .*allowed 2\.5e-01"):
        compare(got, want, np.nextafter(0.25, 0), "a quarter")


@pytest.mark.parametrize("side", ["got", "want", "both"])
def test_nan_is_a_difference_even_from_nan(side: str) -> None:
    good, bad = outputs(), spoiled(outputs(), "h", (1, 1), np.nan)
    found = largest_difference(
        bad if side != "want" else good,
        bad if side != "got" else good,
    )
    assert (found.error, found.array, found.at) == (np.inf, "h", (1, 1))
    with pytest.raises(Mismatch, match="nan"):
        compare({"h": bad["h"]}, {"h": bad["h"]}, np.inf if side == "never" else 1e300, "nan")


def test_infinities_agree_only_with_themselves() -> None:
    want = {"y": np.array([np.inf, -np.inf, 1.0])}
    assert largest_difference(want, want).error == 0
    for wrong in ([-np.inf, -np.inf, 1.0], [np.inf, 5.0, 1.0], [np.inf, -np.inf, np.inf]):
        assert largest_difference({"y": np.array(wrong)}, want).error == np.inf
    # and they do not widen the scale for the rest
    found = largest_difference({"y": np.array([np.inf, -np.inf, 1.5])}, want)
    assert (found.at, found.error) == ((2,), 0.5)


def test_names_shapes_and_dtypes_come_before_numbers() -> None:
    want = outputs()
    wrong: dict[str, Outputs] = {
        r"arrays are \['y'\], expected \['h', 'y'\]": {"y": want["y"]},
        r"arrays are \['c', 'h', 'y'\]": want | {"c": want["h"]},
        r"y has shape \(1, 3, 4\), expected \(2, 3, 4\)": want | {"y": want["y"][:1]},
        r"y has shape \(2, 4, 3\)": want | {"y": want["y"].swapaxes(1, 2)},
        r"h has dtype float32, expected float64": want | {"h": want["h"].astype("float32")},
    }
    for message, got in wrong.items():
        with pytest.raises(Mismatch, match=message):
            largest_difference(got, want)
        assert not same_bits(got, want)


def test_shapes_that_would_broadcast_are_refused() -> None:
    want = {"y": np.ones((2, 1, 1))}
    with pytest.raises(Mismatch, match="shape"):
        largest_difference({"y": np.ones((1, 1, 1))}, want)


def test_nothing_is_never_compared() -> None:
    empty = {"y": np.zeros((2, 0, 4))}
    with pytest.raises(Mismatch, match="at least one"):
        largest_difference({}, {})
    with pytest.raises(Mismatch, match="every array is empty"):
        largest_difference(empty, empty)
    assert largest_difference(empty | {"h": np.ones(2)}, empty | {"h": np.ones(2)}).array == "h"


def test_bits_are_the_same_only_where_every_bit_is() -> None:
    want = outputs("float32")
    assert same_bits(want, {key: array.copy() for key, array in want.items()})
    nudged = {key: array.copy() for key, array in want.items()}
    nudged["h"][1, 2] = np.nextafter(nudged["h"][1, 2], np.float32(9))
    assert not same_bits(nudged, want)
    assert not same_bits({"y": np.array([-0.0])}, {"y": np.array([0.0])})
    assert same_bits({"y": np.array([np.nan])}, {"y": np.array([np.nan])})
    assert not same_bits({"y": want["y"]}, want)
    assert not same_bits(want, {"y": want["y"]})
    assert same_bits({"y": want["y"].copy(order="F")}, {"y": want["y"]})


# --- chunks ---


@given(data=st.data())
def test_pieces_cover_the_sequence_once_and_in_order(data: st.DataObject) -> None:
    steps = data.draw(st.integers(0, 20))
    sizes = data.draw(cuttings(steps))
    found = list(pieces(steps, sizes))
    assert [t for piece in found for t in range(steps)[piece]] == list(range(steps))
    assert [piece.stop - piece.start for piece in found] == sizes


@given(data=st.data())
def test_backwards_pieces_cover_it_from_the_end(data: st.DataObject) -> None:
    steps = data.draw(st.integers(0, 20))
    sizes = data.draw(cuttings(steps))
    found = list(pieces(steps, sizes, backwards=True))
    seen = [t for piece in found for t in reversed(range(steps)[piece])]
    assert seen == list(reversed(range(steps)))
    assert [piece.stop - piece.start for piece in found] == sizes


def test_the_last_size_is_repeated_and_the_last_piece_is_what_is_left() -> None:
    assert list(pieces(7, [1, 0, 2])) == [slice(0, 1), slice(1, 1), slice(1, 3), slice(3, 5),
                                          slice(5, 7)]  # fmt: skip
    assert list(pieces(5, [3])) == [slice(0, 3), slice(3, 5)]
    assert list(pieces(2, [9])) == [slice(0, 2)]
    assert list(pieces(5, [3], backwards=True)) == [slice(2, 5), slice(0, 2)]


def test_sizes_that_never_reach_the_end_are_refused() -> None:
    with pytest.raises(ValueError, match=r"chunks \[2, 0\] never reach the end of 5 steps"):
        list(pieces(5, [2, 0]))
    assert list(pieces(2, [2, 0])) == [slice(0, 2), slice(2, 2)]


@given(steps=st.integers(0, 60), seed=st.integers(0, 999))
def test_random_sizes_add_up_and_one_of_them_is_zero(steps: int, seed: int) -> None:
    sizes = random_sizes(steps, seed)
    assert sum(sizes) == steps
    assert min(sizes) == 0
    assert sizes == random_sizes(steps, seed)


def test_random_sizes_are_not_all_alike() -> None:
    assert len({tuple(random_sizes(20, seed)) for seed in range(20)}) > 10


@pytest.mark.parametrize("mask", [None, "holes"])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("layer", list(LAYERS))
def test_a_layer_in_chunks_is_the_layer_whole(layer: str, backwards: bool, mask: str) -> None:
    case = Case(layer, mask=mask, seed=2, options={"go_backwards": backwards})
    whole = layer_whole(case.build(), case.arrays())
    assert list(whole) == (["y", "h", "c"] if layer == "LSTM" else ["y", "h"])
    for sizes in ([1], [7], [3, 4], [0, 2, 0, 5], [3]):
        assert same_bits(layer_in_chunks(case.build(), case.arrays(), sizes), whole), sizes


def test_outputs_are_flattened_by_path() -> None:
    a, b, c = np.zeros(1), np.ones(2), np.full(3, 2.0)
    found = flat({"p": [a, {"q": b}], "r": (c,)})
    assert list(found) == ["p.0", "p.1.q", "r.0"]
    assert [array.size for array in found.values()] == [1, 2, 3]
    assert list(flat(a)) == ["output"]
    assert list(flat([a, b])) == ["0", "1"]


# --- the judge of a case ---


def right(case: Case) -> Outputs:
    return {k: np.array(v) for k, v in layer_whole(case.build(), case.arrays()).items()}


def judged(case: Case, change: Callable[[Outputs], Outputs], cuttings: Any = None) -> Row:
    (row,) = judge_case(case, {"fake": lambda: change(right(case))}, cuttings)
    return row


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("layer", list(LAYERS))
def test_a_right_oracle_agrees(layer: str, dtype: str) -> None:
    row = judged(Case(layer, dtype=dtype), dict)
    assert (row.whole, row.chunked, row.same_bits) == (0, 0, True)
    assert (row.verdict, row.note, row.dtype) == ("agrees", "", dtype)
    assert row.allowed == TOLERANCES[dtype].relative


@pytest.mark.parametrize(("dtype", "spacing"), [("float64", 2.0**-52), ("float32", 2.0**-23)])
def test_one_spacing_agrees_and_twenty_do_not(dtype: str, spacing: float) -> None:
    """The envelope: no tolerance, which 1e-5 of the magnitude would be, 84 spacings."""
    case = Case("LSTM", dtype=dtype)
    assert judged(case, lambda run: spoiled(run, "y", (0, 6, 0), spacing)).agrees
    row = judged(case, lambda run: spoiled(run, "y", (0, 6, 0), 20 * spacing))
    assert row.whole < row.allowed
    assert (row.verdict, row.margin is not None) == ("DIFFERS", True)


def test_a_difference_that_grew_from_rounding_agrees() -> None:
    """In a chaotic run two correct implementations part; every step of each is right."""
    case = Case("GRU", steps=200, units=16, scale=6.0, dtype="float32")
    layer, arrays = case.build(engine="numpy"), case.arrays()
    other = {k: np.array(v) for k, v in layer_whole(layer, arrays).items()}
    (row,) = judge_case(case, {"the other engine": lambda: other}, [])
    assert row.whole > row.allowed
    assert row.agrees


@pytest.mark.parametrize(("name", "at"), [("y", (1, 3, 2)), ("h", (2, 0)), ("c", (0, 3))])
def test_one_wrong_element_differs_and_the_note_says_where(name: str, at: tuple[int, ...]) -> None:
    row = judged(LSTM_CASE, lambda run: spoiled(run, name, at, 1e-6))
    assert row.verdict == "DIFFERS"
    assert row.whole == pytest.approx(1e-6, rel=0.1)
    assert row.chunked == row.whole
    row_and_unit = f"row {at[0]}, step {at[1]}, unit" if name == "y" else f"row {at[0]}, unit"
    assert row.note.startswith(f"fake: {name}[{row_and_unit} {at[-1]}] is ")
    assert row.same_bits


WRONG: dict[str, tuple[Callable[[Outputs], Outputs], str]] = {
    "everywhere": (lambda run: run | {"y": run["y"] * 1.01}, "fake: y[row 0, step 0"),
    "time reversed": (lambda run: run | {"y": run["y"][:, ::-1]}, "fake: y[row 0, step 0"),
    "rows swapped": (lambda run: run | {"y": run["y"][::-1]}, "fake: y[row 0, step 0"),
    "h and c swapped": (lambda run: run | {"h": run["c"], "c": run["h"]}, "fake: h["),
    "only c": (lambda run: run | {"c": run["c"] + 1e-9}, "fake: c[row 0, unit 0]"),
    "NaN": (lambda run: spoiled(run, "y", (0, 2, 1), np.nan), "whole: y[0, 2, 1] is "),
    "dtype": (
        lambda run: {k: v.astype("float32") for k, v in run.items()},
        "whole: y has dtype float64, expected float32",
    ),
    "shape": (lambda run: run | {"h": run["h"][:1]}, "whole: h has shape (3, 4), expected (1, 4)"),
    "no c": (lambda run: {k: run[k] for k in "yh"}, "whole: arrays are ['c', 'h', 'y']"),
    "nothing": (lambda run: {}, "whole: arrays are ['c', 'h', 'y'], expected at least one"),
}


@pytest.mark.parametrize("how", list(WRONG))
def test_a_wrong_oracle_differs(how: str) -> None:
    change, note = WRONG[how]
    row = judged(LSTM_CASE, change)
    assert row.verdict == "DIFFERS"
    assert row.note.startswith(note)
    assert row.to_dict()["verdict"] == "differs"


def test_each_oracle_has_a_row_of_its_own() -> None:
    run = right(LSTM_CASE)
    wrong = spoiled(run, "y", (0, 0, 0), 1.0)
    rows = judge_case(LSTM_CASE, {"A": lambda: run, "B": lambda: wrong, "C": lambda: run})
    assert [(row.against, row.verdict) for row in rows] == [
        ("A", "agrees"), ("B", "DIFFERS"), ("C", "agrees"),
    ]  # fmt: skip


def test_an_oracle_that_raises_is_not_a_verdict() -> None:
    def broken() -> Outputs:
        raise RuntimeError("no device")

    with pytest.raises(RuntimeError, match="no device"):
        judge_case(LSTM_CASE, {"broken": broken})


def test_without_cuttings_nothing_is_said_of_chunks() -> None:
    row = judged(LSTM_CASE, dict, [])
    assert (row.chunked, row.same_bits, row.verdict) == (None, None, "agrees")


def forget(memory: Memory) -> Memory:
    return Memory(type(memory.state)(*map(np.zeros_like, memory.state)), memory.last_output)


def test_a_refrnn_that_forgets_between_chunks_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole run is right, so only the chunks can tell."""
    advance = Recurrent.advance

    def forgetful(self: Any, sequences: Any, memory: Memory, *rest: Any) -> Any:
        outputs, after = advance(self, sequences, memory, *rest)
        return outputs, forget(after)

    want = right(LSTM_CASE)
    monkeypatch.setattr(Recurrent, "advance", forgetful)
    (row,) = judge_case(LSTM_CASE, {"fake": lambda: want})
    assert (row.verdict, row.whole, row.same_bits) == ("DIFFERS", 0, False)
    assert row.chunked is not None
    assert row.error == row.chunked > 1e-3
    assert row.note.startswith("in chunks: ")
    assert judge_case(LSTM_CASE, {"fake": lambda: want}, [])[0].agrees
    assert judge_case(LSTM_CASE, {"fake": lambda: want}, [[7]])[0].agrees


def test_a_refrnn_whose_masked_chunks_forget_the_last_output_differs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = Case("GRU", mask="holes", seed=1)
    advance = Recurrent.advance

    def forgetful(self: Any, sequences: Any, memory: Memory, *rest: Any) -> Any:
        memory = memory._replace(last_output=np.zeros_like(memory.last_output))
        return advance(self, sequences, memory, *rest)

    want = right(case)
    monkeypatch.setattr(Recurrent, "advance", forgetful)
    (row,) = judge_case(case, {"fake": lambda: want}, [[1]])
    assert (row.verdict, row.whole) == ("DIFFERS", 0)


def test_chunks_that_differ_in_one_bit_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bitwise equality of chunks and whole is a promise; within tolerance is not enough."""
    advance = Recurrent.advance

    def nudged(self: Any, sequences: Any, memory: Memory, *rest: Any) -> Any:
        (y, *states), after = advance(self, sequences, memory, *rest)
        if y.shape[1] == 1:
            y = np.nextafter(y, y.dtype.type(9))
        return (y, *states), after

    want = right(LSTM_CASE)
    monkeypatch.setattr(Recurrent, "advance", nudged)
    (row,) = judge_case(LSTM_CASE, {"fake": lambda: want}, [[3, 3, 1]])
    assert row.error < row.allowed
    assert (row.same_bits, row.verdict) == (False, "DIFFERS")
    assert row.note == "chunks and whole differ in their bits"
    assert judge_case(LSTM_CASE, {"fake": lambda: want}, [[3, 4]])[0].agrees


# --- the judge of a model ---


def small_model(**options: Any) -> tuple[Sequential, np.ndarray]:
    layers = [Input((None, 5)), LSTM(4, return_sequences=True, **options), Dense(2)]
    model = Sequential(layers)
    x = np.random.default_rng(5).normal(size=(3, 7, 5)).astype("float32")
    model(x)
    rng = np.random.default_rng(6)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.weights])
    model.reset_states()
    return model, x


def judged_model(model: Any, x: np.ndarray, want: Any, cuttings: Any = None) -> Row:
    (row,) = judge_model("a model", model, [x], {"fake": lambda: want}, cuttings)
    return row


def test_a_right_oracle_of_a_model_agrees() -> None:
    model, x = small_model()
    row = judged_model(model, x, flat(model(x)))
    assert (row.verdict, row.whole, row.chunked, row.same_bits) == ("agrees", 0, 0, True)
    assert (row.case, row.dtype, row.note) == ("a model", "float32", "")


def test_a_wrong_oracle_of_a_model_differs_and_the_note_says_where() -> None:
    model, x = small_model()
    right = flat(model(x))
    row = judged_model(model, x, spoiled(right, "output", (2, 6, 1), 1e-3))
    assert row.verdict == "DIFFERS"
    assert row.note.startswith("whole: output[2, 6, 1] is ")
    assert not judged_model(model, x, spoiled(right, "output", (0, 0, 0), np.nan)).agrees
    wide = {"output": right["output"].astype("float64")}
    assert judged_model(model, x, wide).note == "whole: output has dtype float32, expected float64"


def test_a_model_that_forgets_between_chunks_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = small_model()
    want = flat(model(x))
    start = type(model).advance
    monkeypatch.setattr(type(model), "advance", lambda self, inputs, memories: start(self, inputs))
    row = judged_model(model, x, want)
    assert (row.whole, row.verdict) == (0, "DIFFERS")
    assert row.note.startswith("in chunks: output[")
    assert judged_model(model, x, want, []).agrees


def test_a_model_that_cannot_be_cut_says_why() -> None:
    model, x = small_model(go_backwards=True)
    row = judged_model(model, x, flat(model(x)))
    assert (row.verdict, row.chunked, row.same_bits) == ("agrees", None, None)
    assert row.note.startswith("whole only: LSTM ")
    assert "backwards" in row.note


def test_a_model_that_cannot_be_cut_still_differs_where_it_is_wrong() -> None:
    model, x = small_model(go_backwards=True)
    wrong = spoiled(flat(model(x)), "output", (0, 1, 1), 1e-3)
    row = judged_model(model, x, wrong)
    assert row.verdict == "DIFFERS"
    assert row.note.startswith("whole: output[0, 1, 1]")


def test_a_model_made_by_hand_is_judged_in_chunks_too() -> None:
    """A Sequential that was given no shape has a time axis all the same."""
    _, x = small_model()
    model = Sequential([LSTM(4, return_sequences=True), Dense(2)])
    row = judged_model(model, x, flat(model(x)))
    assert (row.chunked, row.same_bits) == (0, True)


def test_a_stateful_model_is_judged_from_the_beginning_and_left_there() -> None:
    model, x = small_model(stateful=True)
    want = flat(model(x))  # the first call
    model(x)
    assert judged_model(model, x, want).agrees
    assert same_bits(flat(model(x)), want)


def test_a_model_in_chunks_joins_sequences_and_keeps_the_last_of_the_rest() -> None:
    model, x = small_model()
    assert same_bits(model_in_chunks(model, [x], [2, 0, 4, 1]), flat(model(x)))
    last = Sequential([Input((None, 5)), LSTM(4, return_state=True)])
    whole = flat(last(x))
    assert [a.shape for a in whole.values()] == [(3, 4)] * 3
    assert same_bits(model_in_chunks(last, [x], [2, 0, 4, 1, 0]), whole)


# --- the family ---

MAIN = [case for case in FAMILY if case.rows > 2 and case.scale == 1]


def kind_of(case: Case) -> tuple[str, bool]:
    return case.layer, case.options.get("reset_after", True)


ALL_KINDS = [("SimpleRNN", True), ("LSTM", True), ("GRU", True), ("GRU", False)]


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_the_family_covers_every_layer_and_option(kind: tuple[str, bool]) -> None:
    cases = [case for case in FAMILY if kind_of(case) == kind]
    options = [case.options for case in cases]
    assert {case.mask for case in cases} == {None, *MASKS}
    assert {case.dtype for case in cases} == {"float32", "float64"}
    assert {case.state for case in cases} == {True, False}
    assert {1, 7, 1000} <= {case.steps for case in cases}
    assert any(case.units > 64 for case in cases)
    assert {0.01, 1, 4.0} <= {case.scale for case in cases}
    for name, value in (
        ("use_bias", False), ("zero_output_for_mask", True), ("go_backwards", True),
        ("unroll", True), ("activation", "relu"),
    ):  # fmt: skip
        assert any(o.get(name) == value for o in options), name
    if kind[0] != "SimpleRNN":
        assert any("recurrent_activation" in o for o in options)
        assert any(o.get("implementation") == 1 for o in options)


def test_the_family_has_every_kind_and_nothing_twice() -> None:
    assert {kind_of(case) for case in FAMILY} == set(ALL_KINDS)
    assert len(KINDS) == len(ALL_KINDS)
    assert len({(str(case), case.dtype) for case in FAMILY}) == len(FAMILY)
    assert len({case.seed for case in FAMILY}) == len(FAMILY)


def test_no_two_sizes_of_a_main_case_are_equal() -> None:
    """Else a transposed array would have the right shape."""
    assert len(MAIN) > len(FAMILY) / 2
    for case in MAIN:
        sizes = case.rows, case.steps, case.features, case.units
        assert len(set(sizes)) == 4, case
        assert min(sizes) > 1, case


def test_every_mask_of_the_family_masks_something_and_keeps_something() -> None:
    for case in FAMILY:
        mask = case.arrays().mask
        if mask is not None:
            assert not mask.all(), case
            assert mask.any() == (case.mask != "all"), case
            if case.mask not in ("all", "row"):
                assert len({row.tobytes() for row in mask}) > 1, case


def test_the_family_is_lively() -> None:
    """Outputs neither stuck at their limits nor at 0, so that a wrong sign or gate would show."""
    for case in MAIN:
        y = layer_whole(case.build(), case.arrays())["y"]
        if case.mask != "all" and case.options.get("activation") != "relu":
            assert 0.05 < np.std(y) < 0.95, case
            assert np.mean(np.abs(y) > 0.99) < 0.2, case


# --- cases ---


@pytest.mark.parametrize("case", [*FAMILY, Case("GRU", dtype="float32", seed=77)], ids=str)
def test_what_a_case_draws_hides_nothing(case: Case) -> None:
    arrays = case.arrays()
    kernel, recurrent, *bias = arrays.weights
    H = case.units
    assert arrays.x.shape == (case.rows, case.steps, case.features)
    assert {a.dtype.name for a in [*arrays.weights, arrays.x]} == {case.dtype}
    assert len(bias) == case.options.get("use_bias", True)
    for array in (kernel, recurrent, arrays.x, *bias):
        assert np.all(array != 0)
        assert len(np.unique(array)) > 0.99 * array.size
    if bias:
        assert len(np.unique(np.abs(bias[0]))) == bias[0].size
    for gate in np.split(recurrent, recurrent.shape[1] // H, axis=1):
        assert H == 1 or np.max(np.abs(gate - gate.T)) > 1e-3
    if case.state:
        assert arrays.state is not None
        assert len(arrays.state) == (2 if case.layer == "LSTM" else 1)
        for part in arrays.state:
            assert part.shape == (case.rows, H)
            assert part.dtype.name == case.dtype
            assert np.all(part != 0)
        assert len({part.tobytes() for part in arrays.state}) == len(arrays.state)
    else:
        assert arrays.state is None


def test_a_case_draws_the_same_again_and_another_seed_other_numbers() -> None:
    def bytes_of(case: Case) -> list[bytes]:
        arrays = case.arrays()
        assert arrays.state is not None
        assert arrays.mask is not None
        return [a.tobytes() for a in (*arrays.weights, arrays.x, *arrays.state, arrays.mask)]

    case = Case("LSTM", mask="holes", seed=5)
    assert bytes_of(case) == bytes_of(Case("LSTM", mask="holes", seed=5))
    other = bytes_of(Case("LSTM", mask="holes", seed=6))
    assert all(a != b for a, b in zip(bytes_of(case), other, strict=True))
    for mine, drawn in zip(case.build().weights, case.arrays().weights, strict=True):
        assert mine.tobytes() == drawn.tobytes()


@given(
    kind=st.sampled_from(MASKS),
    rows=st.integers(1, 6),
    steps=st.integers(1, 9),
    seed=st.integers(0, 999),
)
def test_masks_are_of_the_kind_they_are_called(kind: str, rows: int, steps: int, seed: int) -> None:
    mask = Case("GRU", rows=rows, steps=steps, mask=kind, seed=seed).arrays().mask
    assert mask is not None
    assert (mask.shape, mask.dtype) == ((rows, steps), np.dtype(bool))
    if kind == "right":  # the padding is on the right: True, then False
        assert np.all(mask[:, :-1] >= mask[:, 1:])
        assert np.all(mask[:, 0])
    elif kind == "left":
        assert np.all(mask[:, :-1] <= mask[:, 1:])
        assert np.all(mask[:, -1])
    elif kind == "row":
        assert np.array_equal(mask.all(1), np.arange(rows) >= (rows + 1) // 2)
        assert np.array_equal(mask.any(1), mask.all(1))
    elif kind == "all":
        assert not mask.any()


def test_no_row_of_a_mask_with_holes_is_empty_by_chance() -> None:
    for seed in range(50):
        mask = Case("GRU", steps=3, mask="holes", seed=seed).arrays().mask
        assert mask is not None
        assert mask.any(1).all(), seed


def test_an_unknown_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="mask is 'diagonal', expected None or one of"):
        Case("GRU", mask="diagonal").arrays()


def test_a_case_prints_in_one_line_with_all_that_matters() -> None:
    case = Case("GRU", 2, 9, 3, 5, mask="left", state=False, scale=4.0,
                options={"unroll": True, "activation": "relu"})  # fmt: skip
    assert str(case) == "GRU B2 T9 F3 H5 mask left, no state, weights x 4, relu, unroll"
    assert str(Case("LSTM")) == "LSTM B3 T7 F5 H4"


def test_the_inputs_of_the_trained_models_are_those_of_their_tutorials() -> None:
    windows = sine_windows()
    assert (windows.shape, windows.dtype) == ((175, 25, 1), np.dtype("float32"))
    assert np.array_equal(windows[1:, :-1], windows[:-1, 1:])  # each a step after the last
    assert np.allclose(windows[50:], windows[:-50], atol=1e-6)
    assert windows.min() == pytest.approx(0, abs=1e-3)
    assert windows.max() == pytest.approx(1, abs=1e-3)
    drawn = bits()
    assert drawn[0, :6, 0].tolist() == [1, 1, 1, 1, 0, 1]
    assert set(np.unique(drawn)) == {0, 1}
    assert bits(3, 9).shape == (3, 9, 1)


# --- the report ---

VERSIONS = {"refrnn": "9.8.7", "NumPy": "1.2.3", "tensorflow": "4.5.6"}
GOOD = Row("LSTM B3", "float64", "TF eager", 1e-16, 2e-16, True, 1e-12)


def report(*rows: Row) -> Table:
    return Table(VERSIONS, "a processor", list(rows), seconds=12.3)


def changed(row: Row, **values: Any) -> Row:
    return Row(**{**{k: v for k, v in row.to_dict().items() if k != "verdict"}, **values})


UNEQUAL = changed(GOOD, against="TF XLA", whole=np.inf, chunked=np.inf, note="whole: y[0] is nan")
WHOLE_ONLY = changed(GOOD, case="backwards", chunked=None, same_bits=None, note="whole only: so")


def test_a_report_agrees_only_if_every_row_does_and_there_is_one() -> None:
    assert report(GOOD).agrees
    assert report(GOOD, WHOLE_ONLY).agrees
    assert not report(GOOD, UNEQUAL).agrees
    assert not report(changed(GOOD, same_bits=False)).agrees
    assert not report(changed(GOOD, chunked=1e-11)).agrees
    assert not report().agrees


def test_the_table_has_a_line_a_case_and_one_for_each_that_differs() -> None:
    rows = [GOOD, changed(GOOD, against="TF function", whole=3e-16), UNEQUAL, WHOLE_ONLY]
    lines = report(*rows).table().splitlines()
    assert lines[0].split() == [
        "case", "dtype", "against", "whole", "chunked", "of", "the", "bound", "verdict",
    ]  # fmt: skip
    assert set(lines[1]) == {"-", " "}
    agrees, differs, whole_only = lines[2:5]
    assert "TF eager, function" in agrees
    assert "3.0e-16" in agrees  # the worst of the two
    assert "same bits" in agrees
    assert agrees.endswith("agrees")
    assert "TF XLA" in differs
    assert "inf of 1e-12" in differs
    assert differs.endswith("DIFFERS")
    assert " - " in whole_only
    assert "same bits" not in whole_only
    assert whole_only.endswith("agrees")
    assert lines[5:] == [
        "",
        "LSTM B3 against TF XLA: whole: y[0] is nan",
        "backwards: whole only: so",
    ]


def test_cases_of_one_name_and_two_dtypes_are_two_lines() -> None:
    lines = report(GOOD, changed(GOOD, dtype="float32", allowed=1e-5)).table().splitlines()
    assert len(lines) == 4


def test_the_columns_of_the_table_are_aligned() -> None:
    lines = report(GOOD, changed(GOOD, case="a much longer name")).table().splitlines()
    columns = [line.index("float64") for line in lines[2:]]
    assert columns == [lines[0].index("dtype")] * 2
    assert len({line.index("agrees") for line in lines[2:]} | {lines[0].index("verdict")}) == 1


def test_the_quote_has_versions_counts_and_the_largest_errors() -> None:
    other = changed(GOOD, case="GRU", dtype="float32", whole=3e-7, allowed=1e-5)
    quote = report(GOOD, changed(GOOD, against="TF XLA"), other).quote()
    assert "\n" not in quote
    for part in (
        "refrnn 9.8.7 agrees with TensorFlow on a processor", "2 cases", "3 comparisons",
        "3 of them in chunks too (3 with the same bits", "3.0e-07 in float32", "2.0e-16 in float64",
        "NumPy 1.2.3", "tensorflow 4.5.6", "12 s",
    ):  # fmt: skip
        assert part in quote
    wrong = report(GOOD, UNEQUAL, UNEQUAL).quote()
    assert "refrnn 9.8.7 DIFFERS in 2 of 3 from TensorFlow" in wrong
    assert "agrees" not in wrong
    assert "inf in float64" in wrong


def test_the_quote_tells_chunks_with_other_bits() -> None:
    assert "(1 with the same bits" in report(GOOD, changed(GOOD, same_bits=False)).quote()


def strict_json(text: str) -> Any:
    """JSON as other languages read it: NaN and Infinity are not in it."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("kind", [Path, str])
def test_a_saved_report_is_json_even_of_infinite_errors(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "report.json"
    report(GOOD, UNEQUAL, WHOLE_ONLY).save(kind(path))
    found = strict_json(path.read_text(encoding="utf-8"))
    assert found["verdict"] == "differs"
    assert found["versions"] == VERSIONS
    assert (found["device"], found["seconds"], found["warnings"]) == ("a processor", 12.3, [])
    good, bad, whole_only = found["rows"]
    assert (good["whole"], good["chunked"], good["same_bits"]) == (1e-16, 2e-16, True)
    assert (good["case"], good["dtype"], good["against"]) == ("LSTM B3", "float64", "TF eager")
    assert (good["verdict"], good["allowed"]) == ("agrees", 1e-12)
    assert (bad["whole"], bad["chunked"], bad["verdict"]) == (None, None, "differs")
    assert bad["note"] == "whole: y[0] is nan"
    assert (whole_only["chunked"], whole_only["same_bits"]) == (None, None)
    assert found["quote"] == report(GOOD, UNEQUAL, WHOLE_ONLY).quote()


def test_a_saved_report_replaces_an_older_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("older and much longer " * 999)
    report(GOOD).save(path)
    assert strict_json(path.read_text())["verdict"] == "agrees"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_save_leaves_the_older_report(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("older")
    broken = report(GOOD)
    broken.versions = {**VERSIONS, "what": object()}  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        broken.save(path)
    assert path.read_text() == "older"


def test_a_failed_save_leaves_no_temporary_file(tmp_path: Path) -> None:
    broken = report(GOOD)
    broken.versions = {**VERSIONS, "what": object()}  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        broken.save(tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []


def test_a_save_onto_a_folder_leaves_no_temporary_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(OSError, match="directory"):
        report(GOOD).save(folder)
    assert list(tmp_path.iterdir()) == [folder]


def test_a_report_is_written_beside_its_place_so_that_the_move_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """os.replace is atomic within one file system only."""
    moved = []
    move = os.replace

    def watch(source: str, target: Path) -> None:
        moved.append((Path(source).parent, target))
        move(source, target)

    monkeypatch.setattr(os, "replace", watch)
    report(GOOD).save(tmp_path / "report.json")
    assert moved == [(tmp_path, tmp_path / "report.json")]


def test_a_report_goes_to_what_a_link_points_at_and_keeps_the_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text("old")
    link.symlink_to(real)
    report(GOOD).save(link)
    assert link.is_symlink()
    assert json.loads(real.read_text())["verdict"] == "agrees"


def test_a_report_can_be_written_to_a_device(tmp_path: Path) -> None:
    report(GOOD).save(Path("/dev/null"))
    assert not Path("/dev/null").is_file()
