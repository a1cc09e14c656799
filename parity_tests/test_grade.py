"""A grade tells what a test lets pass, and says so of tests known to be blind."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refrnn import layers, run
from refrnn.cases import Case
from refrnn.cells import Weights
from refrnn.verify.grade import Grade, grade, grade_file, grade_vectors

GATE_ORDERS = {
    "gates in torch's order",
    "update gate and candidate swapped",
    "reset gate and candidate swapped",
    "gates turned round",
}
MASKS = {"mask ignored", "mask inverted", "state cleared at masked steps"}


def close(got: Any, want: Any, rtol: float = 1e-5) -> None:
    np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-5)


def inputs(layer: Any, rows: int = 3, steps: int = 6) -> Any:
    rng = np.random.default_rng(5)
    return rng.normal(size=(rows, steps, len(layer.weights[0]))).astype("float32")


def outputs_only(implementation: Any, layer: Any) -> None:
    x = inputs(layer)
    close(implementation(x)[0], layer(x)[0])


def with_states(implementation: Any, layer: Any) -> None:
    x = inputs(layer)
    state = [np.full((3, layer.units), v, "float32") for v in (0.3, -0.7)]
    state = state[: len(layer(x)) - 1]
    for got, want in zip(
        implementation(x, initial_state=state), layer(x, initial_state=state), strict=True
    ):
        close(got, want)


def names(outcomes: Any) -> set[str]:
    return {outcome.mutant for outcome in outcomes}


def gru(**options: Any) -> Any:
    return Case("GRU", dtype="float32", options=options).build()


def test_a_test_of_outputs_alone_is_blind_to_masks_and_states() -> None:
    found = grade(outputs_only)
    assert found.false_alarms == ()
    assert {o.cell for o in found.outcomes} == {"simple", "lstm", "gru", "gru_reset_before"}
    assert MASKS | {"initial state ignored", "returned state is zeros"} <= names(found.survived)
    assert GATE_ORDERS | {"recurrent kernel transposed"} <= names(found.killed)
    assert 0.4 < (found.score or 0) < 0.9
    assert not names(found.survived) & names(found.equivalents)


def test_a_better_test_has_a_better_grade() -> None:
    worse, better = grade(outputs_only, gru()), grade(with_states, gru())
    assert (better.score or 0) > (worse.score or 0)
    assert "initial state ignored" in names(worse.survived)
    assert "initial state ignored" in names(better.killed)


def test_constant_weights_hide_every_order_of_gates() -> None:
    layer = gru()
    layer.set_weights([np.full_like(w, 0.1) for w in layer.get_weights()])
    found = grade(outputs_only, layer)
    assert names(found.survived) >= GATE_ORDERS
    notes = {o.note for o in found.survived if o.mutant in GATE_ORDERS}
    assert notes == {"no input shows it with these weights and sizes, others would"}


@pytest.mark.parametrize("refusal", ["raises", "returns"])
def test_a_test_that_refuses_what_is_right_counts_for_nothing(refusal: str) -> None:
    def refuse(implementation: Any, layer: Any) -> bool:
        assert refusal == "returns", "too strict"
        return False

    found = grade(refuse, gru())
    assert found.outcomes == ()
    assert found.score is None
    reason = "too strict" if refusal == "raises" else "returned False"
    assert found.false_alarms[0].startswith(f"gru: {reason}")
    assert "nothing counts" in str(found)
    assert found.to_dict()["verdict"] == "false alarm"


def test_a_broken_test_is_not_taken_for_a_refusal() -> None:
    with pytest.raises(ZeroDivisionError):
        grade(lambda implementation, layer: 1 / 0, gru())


@pytest.mark.parametrize("answer", [None, True, 0, np.bool_(True)])
def test_only_false_and_an_exception_are_a_refusal(answer: Any) -> None:
    found = grade(lambda implementation, layer: answer, gru())
    assert found.killed == ()
    assert found.score == 0


def test_a_comparison_of_shapes_lets_everything_pass() -> None:
    def shapes(implementation: Any, layer: Any) -> None:
        x = inputs(layer)
        assert implementation(x)[0].shape == layer(x)[0].shape

    assert grade(shapes, gru()).score == 0


def test_a_false_of_numpy_is_a_refusal_as_well() -> None:
    def allclose(implementation: Any, layer: Any) -> Any:
        x = inputs(layer)
        return np.all(np.abs(implementation(x)[0] - layer(x)[0]) < 1e-5)

    assert (grade(allclose, gru()).score or 0) > 0.4


def test_mutants_that_are_none_are_not_counted() -> None:
    found = grade(outputs_only, gru(recurrent_activation="hard_sigmoid"))
    assert "hard sigmoid of Keras 3" in names(found.equivalents)
    assert "hard sigmoid of Keras 2" in names(found.killed)
    assert "sigmoid off by 1e-4" in names(found.equivalents)
    found = grade(outputs_only, Case("GRU", units=8, dtype="float32").build())
    assert "last partial tile of units" in names(found.equivalents)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_bidirectional_layer_is_graded_too(kind: str) -> None:
    inner = getattr(layers, kind)(4, return_sequences=True, return_state=True)
    layer = layers.Bidirectional(inner)
    layer.build((None, None, 3))

    def all_of(implementation: Any, layer: Any) -> None:
        x = np.random.default_rng(0).normal(size=(3, 9, 3)).astype("float32")
        mask = np.ones((3, 9), bool)
        mask[0, 2:5] = mask[1, 6:] = mask[2, :2] = False
        for got, want in zip(implementation(x, mask=mask), layer(x, mask=mask), strict=True):
            close(got, want, 1e-6)

    found = grade(all_of, layer)
    assert found.false_alarms == ()
    assert {o.cell for o in found.outcomes} == {f"bidirectional {kind.lower()}"}
    assert MASKS | {"time reversed", "outputs flipped"} <= names(found.killed)
    assert "initial state ignored" in names(found.survived)


def test_no_reference_is_an_error() -> None:
    with pytest.raises(ValueError, match="references is empty, expected at least one layer"):
        grade(outputs_only, [])
    with pytest.raises(TypeError, match="reference is 3"):
        grade(outputs_only, 3)


def test_a_cell_with_weights_is_one_reference() -> None:
    weights = Weights(*gru().get_weights())

    def judged(implementation: Any, reference: Any) -> None:
        x = inputs(gru())
        close(implementation(x)[0], run("gru", weights, x)[0])

    assert {o.cell for o in grade(judged, ("gru", weights)).outcomes} == {"gru"}


def test_the_grade_is_printed_and_is_json() -> None:
    found = grade(outputs_only, gru())
    text = str(found)
    killed, tried = len(found.killed), len(found.killed) + len(found.survived)
    assert text.startswith(f"{killed} of {tried} wrong implementations caught (")
    assert "mask ignored (gru): masked steps are run like any other" in text
    assert "shown, for one, by 'holes'" in text
    for kind in ("convention", "precision", "numeric", "state"):
        assert f"\n  {kind}" in text
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["killed"] == killed
    assert told["verdict"] == "graded"
    assert len(told["outcomes"]) == len(found.outcomes)
    assert str(Grade()) == "no mutant was tried"


# --- vectors -----------------------------------------------------------------------------------


def vector(layer: str = "LSTM", mask: str | None = None, **settings: Any) -> dict[str, Any]:
    case = Case(layer, dtype="float32", mask=mask, **settings)
    arrays = case.arrays()
    outputs = dict(zip(("y", "h", "c"), case.build()(arrays.x, arrays.state, mask=arrays.mask)))  # noqa: B905
    kernel, recurrent, bias = arrays.weights
    found = {"cell": layer.lower(), "kernel": kernel, "recurrent_kernel": recurrent, "bias": bias}
    found |= {"x": arrays.x, **outputs}
    if arrays.mask is not None:
        found["mask"] = arrays.mask
    if arrays.state is not None:
        found |= dict(zip(("h0", "c0"), arrays.state, strict=False))
    return found


def test_a_vector_without_mask_is_blind_to_masks() -> None:
    blind, seeing = grade_vectors(vector()), grade_vectors(vector(mask="holes", steps=9))
    assert blind.false_alarms == seeing.false_alarms == ()
    assert names(blind.survived) >= MASKS
    assert names(seeing.killed) >= MASKS
    outcome = next(o for o in seeing.killed if o.mutant == "mask inverted")
    assert outcome.margins[""] > 1e4


def test_several_vectors_are_told_apart_and_share_what_stands_above() -> None:
    first, second = vector(), vector("GRU", mask="holes")
    arrays = {f"first/{k}": a for k, a in first.items()}
    arrays |= {f"second/{k}": a for k, a in second.items()}
    found = grade_vectors(arrays)
    assert {o.cell for o in found.outcomes} == {"lstm", "gru"}
    assert {n for o in found.outcomes if o.cell == "gru" for n in o.margins} == {"second"}
    shared = {k: first[k] for k in ("cell", "kernel", "recurrent_kernel", "bias")}
    runs = {f"a/{k}": a for k, a in first.items() if k not in shared}
    again = grade_vectors({**shared, **runs})
    assert again.score == grade_vectors(first).score


@pytest.mark.parametrize("steps", [1, 12])
def test_a_vector_of_the_last_output_alone_sees_less(steps: int) -> None:
    whole = vector(steps=steps)
    last = {k: a for k, a in whole.items() if k not in "hc"} | {"y": whole["y"][:, -1]}
    found = grade_vectors(last)
    assert found.false_alarms == ()
    assert 0.3 < (found.score or 0) < (grade_vectors(whole).score or 0)
    assert "returned state is zeros" in names(found.survived)
    assert "gates in ONNX's order" in names(found.killed)


def test_a_vector_that_is_wrong_counts_for_nothing() -> None:
    wrong = vector()
    wrong["y"] = wrong["y"].copy()
    wrong["y"][1, 2, 0] += 1e-4
    found = grade_vectors(wrong)
    assert found.outcomes == ()
    assert "lstm: the recorded outputs are not those of lstm: off by" in found.false_alarms[0]


def test_float64_vectors_are_judged_in_float64() -> None:
    case = Case("LSTM")
    arrays = case.arrays()
    y, h, c = case.build()(arrays.x, arrays.state)
    kernel, recurrent, bias = arrays.weights
    given = dict(zip(("h0", "c0"), arrays.state or [], strict=True))
    record = {"cell": "lstm", "kernel": kernel, "recurrent_kernel": recurrent, "bias": bias}
    record |= {"x": arrays.x, "y": y, "h": h, "c": c, **given}
    found = grade_vectors(record)
    assert found.false_alarms == ()
    assert "one recurrent weight off by 1e-5" in names(found.killed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": None}, "there is no array x, expected cell, kernel"),
        ({"y": None}, "y is missing, expected cell, kernel, recurrent_kernel, x, y"),
        ({"cell": "rnn"}, "cell is 'rnn', expected one of"),
        ({"labels": np.zeros(3)}, "'labels' is not known, expected cell"),
        ({"c0": None}, "expected all of h0, c0, or none"),
        ({"y": np.zeros((2, 2), "float32")}, r"y has shape \(2, 2\), expected \(3, 7, 4\)"),
        ({"kernel": np.zeros((5, 3), "float32")}, "kernel"),
        ({"x": np.zeros((3, 7, 2), "float32")}, r"the input has shape \(3, 7, 2\), expected"),
    ],
)
def test_vectors_that_are_none_are_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    arrays = {k: a for k, a in {**vector(), **change}.items() if a is not None}
    with pytest.raises(ValueError, match=message):
        grade_vectors(arrays)
    path = tmp_path / "vectors.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=f"vectors.npz: .*{message}"):
        grade_file(path)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    for name, content in (("a.npz", b""), ("b.npz", b"no archive"), ("c.npz", b"PK\3\4 cut")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: cannot be read as vectors: "):
            grade_file(tmp_path / name)
    with pytest.raises(ValueError, match=r"gone\.npz: cannot be read as vectors: "):
        grade_file(tmp_path / "gone.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"it holds one array, expected an \.npz"):
        grade_file(tmp_path / "one.npy")
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"objects\.npz: cannot be read as vectors: "):
        grade_file(tmp_path / "objects.npz")


def test_a_file_is_graded_as_its_arrays(tmp_path: Path) -> None:
    arrays = vector()
    np.savez(tmp_path / "v.npz", **arrays)
    assert grade_file(tmp_path / "v.npz").to_dict() == grade_vectors(arrays).to_dict()
