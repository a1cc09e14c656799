"""assert_matches raises for every wrong implementation, in words that name the number, and refuses
to pass a test that could not fail; cases() reaches every edge; the plugin costs no import.

The seven slips of tests that pass what is wrong have a test each, in the order in which they are
named: a comparison that returns, states swapped at zero, constant weights, an upper length never
drawn, shapes only, dtypes only, a wrong index in the message.
"""

import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from implementations import Plain, Plant
from test_check import case, cut_at, each_kind, plants, setup
from test_check import cases as small_cases

from refrnn import Weights, testing
from refrnn.cases import MASKS, Case
from refrnn.cells import CELLS
from refrnn.testing import BlindSpot, Mismatch, assert_matches, plugin
from refrnn.testing.strategies import TILES
from refrnn.verify import PRECISIONS

pytest_plugins = ["pytester"]
Array = np.ndarray[Any, Any]


def weights_of(kind: str, change: Callable[[Array], Array]) -> Weights:
    return Weights(*(change(w) for w in case(kind).arrays().weights))


# --- slip 1: a comparison that returns instead of raising ---


@each_kind
def test_it_raises_for_what_is_wrong_and_not_for_what_is_right(kind: str) -> None:
    layer, arrays, plain = setup(case(kind))
    report = assert_matches(plain, layer, arrays.x, arrays.state)
    assert report.passed
    with pytest.raises(Mismatch):
        assert_matches(
            lambda x, **given: plain(x, **given)[0] + 1e-9, layer, arrays.x, arrays.state
        )
    assert issubclass(Mismatch, AssertionError)


@given(st.data())
def test_it_raises_exactly_where_a_check_does_not_pass(data: st.DataObject) -> None:
    run = data.draw(small_cases())
    layer, arrays, plain = setup(run)
    assert_matches(plain, layer, *arrays[1:])
    plain.spoil = data.draw(plants(run, arrays, ["h"]))
    with pytest.raises(Mismatch):
        assert_matches(plain(*arrays[1:]), layer, *arrays[1:])


def test_an_undecidable_run_fails_and_says_what_to_do() -> None:
    layer, arrays, plain = setup(case("simple", units=16, steps=300, scale=6.0, dtype="float32"))
    y, _ = plain(arrays.x, arrays.state)
    assert_matches(y, layer, arrays.x, arrays.state)
    with pytest.raises(Mismatch, match="undecidable") as raised:
        assert_matches(y[:, -1], layer, arrays.x, arrays.state)
    text = str(raised.value)
    assert "only the last output was shown, and rounding alone can change it" in text
    assert "return_sequences=True" in text


def test_a_candidate_of_nan_is_wrong() -> None:
    layer, arrays, plain = setup(case("lstm"))
    y = plain(arrays.x, arrays.state)[0] * np.nan
    with pytest.raises(Mismatch, match="is nan, expected"):
        assert_matches(y, layer, arrays.x, arrays.state)


# --- slip 2: h and c swapped, where both are zero ---


def swapping(plain: Plain) -> Any:
    return cut_at(plain, lambda state: state[::-1])


def test_h_and_c_that_are_swapped_on_the_way_in_are_caught_from_zero_states_too() -> None:
    layer, arrays, plain = setup(case("lstm", state=False))
    assert_matches(plain, layer, arrays.x)
    with pytest.raises(Mismatch, match="the first of a chunk"):
        assert_matches(swapping(plain), layer, arrays.x)


def test_h_and_c_that_are_swapped_on_the_way_out_are_caught_from_zero_states_too() -> None:
    layer, arrays, plain = setup(case("lstm", state=False))
    y, h, c = plain(arrays.x)
    with pytest.raises(Mismatch, match=r"h\[row 0, unit 0\]"):
        assert_matches((y, c, h), layer, arrays.x)


def test_recorded_outputs_from_zero_states_pass_with_a_loud_note() -> None:
    layer, arrays, plain = setup(case("lstm", state=False))
    zeros = [np.zeros((3, 4)), np.zeros((3, 4))]
    gru, other, right = setup(case("gru", state=False))
    for state in (None, zeros):
        with pytest.warns(BlindSpot, match="zeros for h and c: .* whose h and c are swapped"):
            assert_matches(swapping(plain)(arrays.x, zeros), layer, arrays.x, state)
    with pytest.warns(BlindSpot, match="zeros for h: a first state that is ignored would not"):
        assert_matches(right(other.x), gru, other.x)


# --- slip 3: constant weights, and others that hide as much ---

ONES = {
    "constant weights": (np.ones_like, "is 1 everywhere, so a transposed or permuted one"),
    "zeros": (np.zeros_like, "is 0 everywhere, so a transposed or permuted one"),
    "gates of equal weights": (
        lambda w: np.tile(w[..., :4], w.shape[-1] // 4),
        "have equal weights, so the two may be exchanged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["gru", "gru_reset_before", "lstm"])
@pytest.mark.parametrize("what", ONES)
def test_weights_that_hide_mistakes_are_refused(kind: str, what: str) -> None:
    change, message = ONES[what]
    _, arrays, plain = setup(case(kind))
    reference = (kind, weights_of(kind, change))
    right = Plain(plain.cell, reference[1])
    with pytest.raises(ValueError, match=f"this test is blind: .*{message}"):
        assert_matches(right, reference, arrays.x, arrays.state)
    # and rightly: exchanged gates of such weights are the same numbers
    wrong = Weights(*(np.roll(w, 4, axis=-1) for w in reference[1]))
    same = [Plain(plain.cell, w)(arrays.x, arrays.state)[0] for w in (wrong, reference[1])]
    np.testing.assert_array_equal(*same)


@each_kind
def test_a_symmetric_recurrent_kernel_is_refused(kind: str) -> None:
    def symmetric(w: Array) -> Array:
        blocks = np.split(w, w.shape[-1] // 4, axis=-1)
        return np.concatenate([b + b.T for b in blocks], axis=-1) if len(w) == 4 else w

    _, arrays, _ = setup(case(kind))
    reference = (kind, weights_of(kind, symmetric))
    with pytest.raises(ValueError, match="recurrent_kernel is symmetric, so a transposed one"):
        assert_matches(arrays.x[:, :, :4], reference, arrays.x, arrays.state)


def test_biases_of_zero_pass_with_a_loud_note() -> None:
    _, arrays, plain = setup(case("gru"))
    weights = Weights(*arrays.weights)._replace(bias=np.zeros((2, 12)))
    with pytest.warns(BlindSpot, match="all biases are 0: one that is left out"):
        assert_matches(Plain(plain.cell, weights), ("gru", weights), arrays.x, arrays.state)


def test_one_step_from_nothing_without_biases_is_refused() -> None:
    _, arrays, plain = setup(case("lstm", steps=1, state=False))
    weights = Weights(*arrays.weights)._replace(bias=np.zeros(16))
    # a transposed recurrent kernel, a forget gate of any bias: all the same numbers
    wrong = Plain(plain.cell, weights._replace(recurrent_kernel=weights.recurrent_kernel * 7))
    for state in (None, [np.zeros((3, 4)), np.zeros((3, 4))]):
        with pytest.raises(ValueError, match="of one step from a state of zeros, without biases"):
            assert_matches(wrong(arrays.x), ("lstm", weights), arrays.x, state)


@pytest.mark.parametrize(("rows", "steps"), [(0, 7), (3, 0), (0, 0)])
def test_nothing_to_compare_is_refused(rows: int, steps: int) -> None:
    layer, arrays, _ = setup(case("lstm", rows=rows, steps=steps))
    with pytest.raises(ValueError, match="this test is blind: every array is empty"):
        assert_matches(np.zeros((rows, steps, 4)), layer, arrays.x, arrays.state)


def test_masks_that_leave_no_step_pass_with_a_loud_note() -> None:
    layer, arrays, plain = setup(case("gru", mask="all"))
    with pytest.warns(BlindSpot, match="no step was live: nothing but copies was compared"):
        assert_matches(plain(*arrays[1:]), layer, *arrays[1:])


def test_inside_a_hypothesis_test_a_single_example_may_be_blind() -> None:
    layer, arrays, plain = setup(case("gru", mask="all", state=False))

    @settings(max_examples=1, database=None)
    @given(st.none())
    def drawn(_: None) -> None:
        assert_matches(plain(*arrays[1:]), layer, *arrays[1:])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn()


# --- slips 5 and 6: only shapes, or only dtypes, are compared ---


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_right_shape_and_dtype_with_wrong_numbers_is_wrong(dtype: str) -> None:
    layer, arrays, plain = setup(case("lstm", dtype=dtype))
    right = plain(arrays.x, arrays.state)
    for k, array in enumerate(right):
        wrong = [a if j != k else np.zeros_like(array) for j, a in enumerate(right)]
        with pytest.raises(Mismatch):
            assert_matches(wrong, layer, arrays.x, arrays.state)


def test_the_right_numbers_of_a_wrong_shape_are_refused() -> None:
    layer, arrays, plain = setup(case("gru"))
    y = plain(arrays.x, arrays.state)[0]
    for wrong in (y[:, :-1], y[..., None], y.swapaxes(0, 1), y[:1]):
        with pytest.raises(ValueError, match="the candidate's y has shape"):
            assert_matches(wrong, layer, arrays.x, arrays.state)


def test_numbers_of_a_coarser_dtype_pass_with_a_loud_note_or_by_name() -> None:
    layer, arrays, plain = setup(case("gru", dtype="float32"))
    half = Plain(plain.cell, Weights(*(w.astype(np.float16) for w in plain.weights)))
    state = [part.astype(np.float16) for part in arrays.state or []]
    y = half(arrays.x.astype(np.float16), state)[0]
    with pytest.warns(BlindSpot, match="only as float16, because that is the outputs' dtype"):
        assert_matches(y, layer, arrays.x, arrays.state)
    assert_matches(y, layer, arrays.x, arrays.state, precision="float16")
    with pytest.raises(Mismatch):
        assert_matches(y, layer, arrays.x, arrays.state, precision="float32")
    with pytest.raises(Mismatch):  # the right dtype alone is not enough
        assert_matches(y.astype(np.float32), layer, arrays.x, arrays.state)


# --- slip 7: a message with the wrong index; and the message as a whole ---


@given(st.data())
def test_the_message_names_the_number_that_was_spoiled(data: st.DataObject) -> None:
    run = data.draw(small_cases())
    layer, arrays, plain = setup(run)
    plain.spoil = plant = data.draw(plants(run, arrays, ["y"]))
    wrong = plain.all(*arrays[1:])["y"]
    with pytest.raises(Mismatch) as raised:
        assert_matches(wrong, layer, *arrays[1:])
    found = re.search(r"y\[row (\d+), step (\d+), unit (\d+)\] is (\S+),", str(raised.value))
    assert found is not None
    row, step, unit = map(int, found.groups()[:3])
    assert (row, step, unit) == (plant.row, plant.step, plant.unit)
    assert float(found[4]) == pytest.approx(wrong[row, step, unit], rel=1e-8)


def test_the_message_needs_no_knowledge_of_how_the_test_is_made() -> None:
    layer, arrays, plain = setup(case("lstm"), spoil=Plant("h", 1, 2, 3, 1e-3))
    with pytest.raises(Mismatch) as raised:
        assert_matches(plain(*arrays[1:]), layer, arrays.x, arrays.state)
    lines = str(raised.value).splitlines()
    assert lines[0] == f"{layer.who}: differs"
    assert re.fullmatch(
        r"  where     y\[row 1, step 2, unit 3\] is \S+, expected \S+: off by 1.0e-03,"
        r" \S+ allowed \(as given\)",
        lines[1],
    )
    assert lines[2] == (
        "  made      in that step, not before: the expected number starts from the candidate's own"
        " state before it. Wrong in themselves: 1 step of a row; right, but carrying it on: 4 steps"
        " of a row"
    )
    assert lines[3].startswith("  precision fits none of float64, float32")
    assert re.fullmatch(
        r"  runs      as given \S+: the largest error of each, where 1 .*", lines[4]
    )
    assert lines[5].startswith("  next      refrnn.verify.explain(actual, reference, x) looks for")


@pytest.mark.parametrize(
    ("name", "alone"), [("kernel", "feature 2 of x"), ("recurrent_kernel", "unit 2 of h")]
)
def test_the_message_says_what_a_probe_is(name: str, alone: str) -> None:
    layer, arrays, plain = setup(case("lstm", steps=0))
    weights = np.copy(getattr(plain.weights, name))
    weights[2, 1] += 0.1
    wrong = Plain(plain.cell, plain.weights._replace(**{name: weights}))
    with pytest.raises(Mismatch, match=f"probes .* each weight is seen alone: here {alone} is 1"):
        assert_matches(wrong, layer, arrays.x, arrays.state)


@pytest.mark.parametrize("takes_state", [True, False])
def test_the_message_names_no_weight_where_a_probe_is_large(takes_state: bool) -> None:
    layer, arrays, plain = setup(case("lstm", steps=0))
    table = {**plain.cell._asdict(), "act": plain.cell.act._replace(value=_clipped)}
    clipped = Plain(type(plain.cell)(**table), plain.weights)
    wrong = clipped if takes_state else lambda x: clipped(x)
    with pytest.raises(Mismatch, match="probes    one step from zeros on large inputs, so that"):
        assert_matches(wrong, layer, arrays.x)


def _clipped(x: Array) -> Array:
    """tanh, but for its ends, which single weights do not reach."""
    return np.clip(np.tanh(x), -0.999, 0.999)


def test_the_message_names_the_precision_that_fits() -> None:
    rounded = PRECISIONS["tf32"].operands
    layer, arrays, plain = setup(
        case("lstm", dtype="float32"), operands=lambda a: rounded(a).astype(np.float32)
    )
    with pytest.raises(Mismatch, match="fits tf32, not float32; give precision='tf32' if that is"):
        assert_matches(plain, layer, arrays.x, arrays.state)
    assert_matches(plain, layer, arrays.x, arrays.state, precision="tf32")


def test_the_message_of_a_hidden_run_does_not_pretend_to_know_the_step() -> None:
    layer, arrays, plain = setup(case("gru"), spoil=Plant("h", 1, 2, 3, 1e-3))
    y = plain(*arrays[1:])[0][:, -1]
    with pytest.raises(Mismatch, match="at any step up to that one: only the end of the run"):
        assert_matches(y, layer, arrays.x, arrays.state)


def test_the_traceback_ends_in_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import numpy as np
        from refrnn import testing
        from refrnn.cases import Case

        def test_mine():
            case = Case("LSTM")
            a = case.arrays()
            testing.assert_matches(np.zeros((3, 7, 4)), case.build(), a.x, a.state)
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:hypothesispytest")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E*Mismatch: LSTM 'lstm*': differs", "E*where*y?row 0, step 0, unit 0? is 0, expected *"]
    )
    result.stdout.no_fnmatch_line("*assertions.py*")


# --- cases(): slip 4, an upper length that is never drawn, and every other edge ---

EXAMPLES = 300


@pytest.fixture(scope="module")
def drawn() -> list[Case]:
    """The same every time: what Hypothesis draws without a seed of its own."""
    found: list[Case] = []

    @settings(max_examples=EXAMPLES, derandomize=True, database=None, phases=[Phase.generate])
    @given(testing.cases())
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return found


EDGES: dict[str, Callable[[Case], bool]] = {
    **{f"T = {n}": lambda c, n=n: c.steps == n for n in (0, 1, 12)},
    **{f"H = {n}": lambda c, n=n: c.units == n for n in TILES},
    **{f"B = {n}": lambda c, n=n: c.rows == n for n in (1, 4)},
    **{f"F = {n}": lambda c, n=n: c.features == n for n in (1, 8, 9)},
    **{f"mask {m}": lambda c, m=m: c.mask == m for m in (None, *MASKS)},
    **{f"{d}": lambda c, d=d: c.dtype == d for d in ("float32", "float64")},
    **{
        f"cell {name}": lambda c, name=name: c.build().cell.math.name == name for name in CELLS
    },
    "no state": lambda c: not c.state,
    "a state": lambda c: c.state,
    "a row that is masked as a whole, beside one that is not": lambda c: (
        c.mask == "row" and c.rows > 1 and c.steps > 0
    ),
    "all rows masked": lambda c: c.mask == "all" and c.steps > 0,
    "one number in all": lambda c: c.rows == c.steps == 1,
    "no step, from a state": lambda c: c.steps == 0 and c.state,
    "no step, with a mask": lambda c: c.steps == 0 and c.mask is not None,
}  # fmt: skip


@pytest.mark.parametrize("edge", EDGES)
def test_every_edge_is_drawn(drawn: list[Case], edge: str) -> None:
    assert any(EDGES[edge](case) for case in drawn), edge


def test_no_case_is_blind(drawn: list[Case]) -> None:
    for found in drawn:
        for name, array in zip(
            ("kernel", "recurrent", "bias"), found.arrays().weights, strict=True
        ):
            assert array.size == 1 or len(np.unique(array)) > 1, name
            assert array.all(), name


def test_a_right_implementation_matches_every_case_in_every_form(drawn: list[Case]) -> None:
    for found in drawn[::4]:
        layer, arrays, plain = setup(found)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BlindSpot)  # here they are not Hypothesis's examples
            assert_matches(plain, layer, *arrays[1:])
            assert_matches(plain(*arrays[1:]), layer, *arrays[1:])


def test_a_failing_case_shrinks_to_the_smallest() -> None:
    def tail(found: Case) -> bool:
        return found.units % 8 == 1 and found.units > 8 and found.steps >= 3

    fixed = settings(max_examples=2000, database=None, derandomize=True)
    found = find(testing.cases(), tail, settings=fixed)
    assert (found.rows, found.steps, found.features) == (1, 3, 1)
    assert found.units in (
        9,
        17,
    )  # the smallest tails; Hypothesis's shrinker may stop at the second
    assert (found.mask, found.seed) == (None, 0)


@given(
    testing.cases(
        cells=["gru"], dtypes=["float32"], masks=[None], states=[False],
        max_rows=2, max_steps=3, max_features=2, max_units=5,
    )
)  # fmt: skip
def test_cases_can_be_narrowed(found: Case) -> None:
    assert (found.layer, found.options, found.dtype) == ("GRU", {}, "float32")
    assert (found.mask, found.state) == (None, False)
    assert found.rows <= 2
    assert found.steps <= 3
    assert found.features <= 2
    assert found.units <= 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cells": ["peephole"]}, "cells is .*'peephole'.*, expected some of 'simple', 'gru'"),
        ({"cells": "lstm"}, "cells is 'lstm', expected some of"),
        ({"cells": []}, "expected some of"),
        ({"masks": ["some"]}, "masks is .*'some'.*, expected some of None, 'right'"),
        ({"dtypes": ["int8"]}, "int8"),
    ],
)
def test_cases_that_do_not_exist_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        testing.cases(**wrong)


def test_without_hypothesis_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(ImportError, match=r"pip install 'refrnn\[testing\]'"):
        testing.cases()


# --- the plugin ---

PLUGIN = ("-p", "refrnn.testing.plugin", "-p", "no:refrnn", "-p", "no:hypothesispytest")


def test_the_header_has_versions_and_the_summary_what_is_missing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plugin.OTHERS, "elsewhere", (("refrnn-elsewhere",), "elsewhere"))
    pytester.makepyfile("from refrnn import verify\ndef test_it(): pass")
    result = pytester.runpytest_inprocess(*PLUGIN)
    result.assert_outcomes(passed=1)
    numpy, keras = metadata.version("numpy"), metadata.version("keras")
    result.stdout.fnmatch_lines(
        [
            f"refrnn *: numpy {numpy}, numba *keras {keras}*; GPU: *",
            "refrnn: not installed, so nothing was compared with: *elsewhere (pip install *)",
        ]
    )


def test_the_summary_is_silent_where_nothing_was_judged(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin, "JUDGE", ("refrnn.nothing",))
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_inprocess(*PLUGIN)
    result.stdout.fnmatch_lines(["refrnn *GPU: *"])
    result.stdout.no_fnmatch_line("refrnn: not installed*")


SCRIPT = """
import sys
import pytest

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hypothesis":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
status = pytest.main(["-q", "-p", "no:hypothesispytest", *{options!r}, {test!r}])
print("loaded", *sorted(name for name in sys.modules if name.partition(".")[0] in {heavy!r}))
raise SystemExit(status)
"""
HEAVY = ("tensorflow", "keras", "torch", "jax", "onnxruntime", "numba", "h5py")


def test_the_plugin_loads_no_library_and_needs_no_hypothesis(tmp_path: Path) -> None:
    test = tmp_path / "test_nothing.py"
    test.write_text("import sys\ndef test_it(): assert 'refrnn.verify' not in sys.modules\n")
    script = SCRIPT.format(options=list(PLUGIN[:4]), test=str(test), heavy=HEAVY)
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1] == "loaded"


def test_pytest_finds_the_plugin_by_its_entry_point() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert '[project.entry-points.pytest11]\nrefrnn = "refrnn.testing.plugin"\n' in text
