"""`refrnn verify MODEL --against NAMES`: a model's layers one by one, and all of it, by others.

What goes into a layer inside a model is what makes it put out what it puts out there. Models are
made and written by refrnn; each other library runs their layers with their trained weights.
"""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from others import needs_oracles

import refrnn
from refrnn import inside, layers, reading
from refrnn.cases import MASKS, Case
from refrnn.cli import main
from refrnn.commands import AGREES, DIFFERS, UNJUDGED, CannotJudge
from refrnn.oracles import onnx_file
from refrnn.oracles.table import ORACLES
from refrnn.verify import chunks

Ran = tuple[int, str, str]


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """The exit status of `refrnn verify` with these arguments, and its two outputs."""

    def run(*arguments: Any) -> Ran:
        capsys.readouterr()
        status = main(["verify", *map(str, arguments)])
        return (status, *capsys.readouterr())

    return run


def weighted(model: Any) -> Any:
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(0, 0.4, w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def stacked() -> Any:
    """An LSTM, a Bidirectional, and a GRU that begins with a state, behind masked words."""
    ids = layers.Input((None,), dtype="int32", name="ids")
    words = layers.Embedding(9, 3, mask_zero=True)(ids)
    first = layers.LSTM(5, return_sequences=True, name="first")(words)
    gru = layers.GRU(4, return_sequences=True, reset_after=False)
    both = layers.Bidirectional(gru, name="both")(first)
    over = layers.RNN(
        layers.SimpleRNNCell(3), return_sequences=True, return_state=True, name="over"
    )
    y, h = over(both)
    last = layers.GRU(3, return_sequences=True, name="last")(y, initial_state=h)
    return weighted(refrnn.Model(ids, [first, both, y, h, last]))


def plain(dtype: str = "float32") -> Any:
    x = layers.Input((None, 3), dtype=dtype, name="x")
    y = layers.LSTM(5, return_sequences=True, name="first", dtype=dtype)(x)
    y = layers.SimpleRNN(4, activation="relu", return_sequences=True, name="second", dtype=dtype)(y)
    return weighted(refrnn.Model(x, layers.Dense(2, name="end", dtype=dtype)(y)))


WORDS = np.array([[3, 1, 4, 1, 5, 2], [2, 7, 1, 0, 0, 0], [5, 0, 3, 0, 2, 0]])


# --- what goes into a layer ---


def test_what_goes_into_a_layer_makes_what_comes_out_of_it() -> None:
    """Each layer alone, on what is shown of its input, state and mask, gives the model's bits."""
    model = stacked()
    first, both, y, h, last = model(WORDS)
    seen = {one.name: one for one in inside.look(model, model.arrays(WORDS)).shown}
    assert list(seen) == ["first", "both.forward", "both.backward", "over", "last"]
    alone = {}
    for name, one in seen.items():
        layer = one.case.build()
        layer.set_weights(one.arrays.weights)
        alone[name] = chunks.layer_whole(layer, one.arrays)
    np.testing.assert_array_equal(alone["first"]["y"], first)
    np.testing.assert_array_equal(alone["both.forward"]["y"], both[..., :4])
    np.testing.assert_array_equal(alone["both.backward"]["y"][:, ::-1], both[..., 4:])
    np.testing.assert_allclose(alone["over"]["y"], y, rtol=1e-6, atol=1e-7)  # another engine
    np.testing.assert_allclose(alone["over"]["h"], h, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(alone["last"]["y"], last)
    assert [one.case.mask for one in seen.values()] == ["holes"] * 4 + [None]
    assert [one.case.state for one in seen.values()] == [False] * 4 + [True]
    assert seen["both.backward"].case.options == {
        "reset_after": False, "go_backwards": True, "zero_output_for_mask": True,
    }  # fmt: skip


def test_layers_in_models_inside_and_called_twice_are_shown_each_time() -> None:
    x = layers.Input((None, 4))
    shared = layers.GRU(4, return_sequences=True, name="shared")
    inner = refrnn.Sequential(
        [layers.Input((None, 4)), layers.LSTM(4, return_sequences=True, name="deep")], name="inner"
    )
    model = refrnn.Model(x, inner(shared(shared(x))))
    array = np.ones((2, 5, 4), np.float32)
    found = inside.look(model, model.arrays(array))
    assert [one.name for one in found.shown] == ["shared", "shared (call 2)", "inner.deep"]
    np.testing.assert_array_equal(found.shown[1].arrays.x, shared(array))


def test_a_carried_state_is_blank_at_first_and_goes_on_in_the_second_call() -> None:
    x = layers.Input(batch_shape=(2, 5, 4))
    shared = layers.GRU(4, return_sequences=True, stateful=True, name="shared")
    model = weighted(refrnn.Model(x, shared(shared(x))))
    array = np.ones((2, 5, 4), np.float32)
    model(array)  # a state is left behind
    once, again = inside.look(model, model.arrays(array)).shown
    assert not np.any(once.arrays.state)
    np.testing.assert_array_equal(again.arrays.state[0], again.arrays.x[:, -1])
    assert not np.any(shared.states)


def test_what_is_no_case_is_named() -> None:
    class Mine(layers.Layer):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.units = self.state_size = 4

        def call(self, inputs: Any, states: Any) -> Any:
            return inputs, [inputs]

    x = layers.Input((6, 3, 4))
    within = layers.TimeDistributed(layers.LSTM(4), name="within")(x)
    own = layers.RNN(Mine(), return_sequences=True, name="own")(within)
    two = layers.StackedRNNCells([layers.LSTMCell(3), layers.GRUCell(2)])
    model = refrnn.Model(x, layers.RNN(two, name="stack")(own))
    found = inside.look(model, model.arrays(np.ones((1, 6, 3, 4), np.float32)))
    assert found.shown == []
    assert found.others == [
        "within, a TimeDistributed of recurrent layers",
        "own, a RNN of Mine",
        "stack, a RNN of StackedRNNCells",
    ]


@given(
    kind=st.sampled_from(MASKS),
    rows=st.integers(1, 4),
    steps=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_the_kind_of_a_mask_is_one_that_it_is(kind: str, rows: int, steps: int, seed: int) -> None:
    """As coarse as what libraries can do: to be told "right" a mask must be right padding, ..."""
    mask = Case("LSTM", rows=rows, steps=steps, mask=kind, seed=seed).arrays().mask
    assert mask is not None
    told = inside.kind_of(mask)
    right, left = (mask[:, :-1] >= mask[:, 1:]).all(), (mask[:, :-1] <= mask[:, 1:]).all()
    assert (told is None) == mask.all()
    assert (told == "all") == (not mask.any())
    assert (told == "row") == (mask.any() and not mask.any(1).all())
    if told == "right":
        assert right
        assert mask[:, 0].all()
    if told == "left":
        assert left
        assert not right
    if told == "holes":
        assert not left
        assert not right
    assert kind in ("right", "left", "holes", told) or mask.all() or rows == 1


# --- inputs that are drawn ---


def test_drawn_inputs_have_the_shapes_that_a_model_declares() -> None:
    ids = layers.Input((None,), dtype="int32", name="ids")
    more = [
        layers.Input((7, 2), dtype="float64", name="a"), layers.Input((4,), name="b"),
        layers.Input((None,), dtype="bool", name="c"),
    ]  # fmt: skip
    model = refrnn.Model([ids, *more], [layers.Embedding(9, 3)(ids), *more])
    found = reading.inputs(Path("m.keras"), model, None)
    assert [a.shape for a in found] == [(3, 20), (3, 7, 2), (3, 4), (3, 20)]
    assert [a.dtype.name for a in found] == ["int32", "float64", "float32", "bool"]
    assert found[0].min() == 0
    assert found[0].max() == 8  # ids that the Embedding has
    assert 0 < found[3].mean() < 1


def test_a_model_of_no_known_shape_needs_an_input(tmp_path: Path) -> None:
    model = plain()
    model.graph.inputs[0] = model.graph.inputs[0]._replace(shape=None)
    with pytest.raises(CannotJudge, match=r"shape of input x is not in it, .*--input"):
        reading.inputs(tmp_path / "m.keras", model, None)


# --- the command ---


@pytest.mark.parametrize("suffix", [".keras", ".onnx"])
def test_a_models_layers_agree_with_keras(
    verify: Callable[..., Ran], tmp_path: Path, suffix: str
) -> None:
    path, report = tmp_path / f"m{suffix}", tmp_path / "r.json"
    plain().save(path)
    status, out, err = verify(path, "--against", "tensorflow", "--json", report)
    assert (status, err) == (AGREES, "loading keras ...\n")
    rows = json.loads(report.read_text())["rows"]
    by_layer = [f"m{suffix}: {layer}" for layer in ("first", "second") for _ in range(3)]
    assert [row["case"] for row in rows] == [path.name, *by_layer]
    assert [row["against"] for row in rows[:2]] == ["keras .keras", "keras eager"]
    assert all(row["same_bits"] for row in rows)
    assert all(0 < row["margin"] < 1 for row in rows[1:])
    assert "agrees with Keras on TensorFlow on" in out


def test_masks_and_states_inside_a_model_agree(verify: Callable[..., Ran], tmp_path: Path) -> None:
    stacked().save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", WORDS)
    status, out, _ = verify(
        tmp_path / "m.keras", "--against", "keras", "--input", tmp_path / "x.npy", "--chunks", "2"
    )
    assert status == AGREES, out
    for name in ("first", "both.forward", "both.backward", "over", "last"):
        assert f"m.keras: {name} " in out


@pytest.mark.others
def test_many_libraries_agree_and_what_each_cannot_do_is_counted(
    verify: Callable[..., Ran], tmp_path: Path
) -> None:
    needs_oracles("torch", "onnxruntime", "jax")
    path, report = tmp_path / "m.keras", tmp_path / "r.json"
    plain().save(path)
    status, out, _ = verify(path, "--against", "torch,onnxruntime,jax", "--json", report)
    assert status == AGREES, out
    found = json.loads(report.read_text())
    against = {row["against"] for row in found["rows"] if row["case"] == "m.keras: first"}
    assert against == {"torch whole", "torch cells", "onnxruntime node", "jax scan"}
    whole = [row["against"] for row in found["rows"] if row["case"] == "m.keras"]
    assert whole == ["onnxruntime .onnx"]
    assert found["skipped"]["torch packed"] == {"for masks alone": 2}
    assert "not done by torch packed, 2 of 2: 2 for masks alone" in out
    assert "agrees with PyTorch and ONNX Runtime and JAX" in out


@pytest.mark.others
@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "tf_keras", "tfjs"])
def test_a_whole_model_agrees_in_the_file_that_a_library_reads(
    verify: Callable[..., Ran], tmp_path: Path, name: str
) -> None:
    needs_oracles(name)
    x = layers.Input((None, 3), name="x")
    y, h, _ = layers.LSTM(5, return_sequences=True, return_state=True, name="first")(x)
    ends = [layers.Dense(2, name="b")(y), h, layers.Dense(2, name="a")(y)]
    weighted(refrnn.Model(x, ends)).save(tmp_path / "m.keras")
    status, out, _ = verify(tmp_path / "m.keras", "--against", name, "--chunks", "whole")
    assert status == AGREES, out
    assert f"{name} {ORACLES[name].file}" in out


@pytest.mark.others
def test_a_library_that_compares_nothing_is_not_said_to_agree(
    verify: Callable[..., Ran], tmp_path: Path
) -> None:
    needs_oracles("onnxruntime")
    path = tmp_path / "m.keras"
    plain("float64").save(path)
    status, out, err = verify(path, "--against", "onnxruntime")
    assert (status, out) == (UNJUDGED, "")
    assert "nothing can be compared: not done by onnxruntime node, 2 of 2: 2 no float64" in err
    assert "all of m.keras by onnxruntime .onnx: no float64" in err
    status, out, _ = verify(path, "--against", "onnxruntime,keras", "--chunks", "whole")
    assert status == AGREES, out
    assert "agrees with Keras on TensorFlow on" in out
    assert "not compared: all of m.keras by onnxruntime .onnx: no float64" in out


def test_a_wrong_layer_is_told_by_name(
    verify: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tf: Any
) -> None:
    run = type(tf).run

    def wrong(self: Any, case: Case, mode: str, arrays: Any = None) -> Any:
        found = run(self, case, mode, arrays)
        return {**found, "h": found["h"] * np.float32(1.001)} if case.units == 4 else found

    monkeypatch.setattr(type(tf), "run", wrong)
    plain().save(tmp_path / "m.keras")
    status, out, _ = verify(tmp_path / "m.keras", "--against", "keras", "--chunks", "whole")
    assert status == DIFFERS
    assert "DIFFERS in 3 of 7 from Keras on TensorFlow" in out
    assert "m.keras: second against keras eager: keras eager: h[" in out
    assert "m.keras: first against" not in out


def test_a_wrong_whole_model_is_told(
    verify: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tf: Any
) -> None:
    run = type(tf).run_file
    monkeypatch.setattr(type(tf), "run_file", lambda *asked: run(*asked) + 1e-3)
    plain().save(tmp_path / "m.keras")
    status, out, _ = verify(tmp_path / "m.keras", "--against", "keras", "--chunks", "whole")
    assert status == DIFFERS
    assert "m.keras against keras .keras: whole: output[" in out


def test_a_library_that_cannot_run_its_own_file_is_no_verdict_and_a_written_one_is_told(
    verify: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tf: Any
) -> None:
    def fail(*asked: Any) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(type(tf), "run_file", fail)
    model = plain()
    for suffix, status in ((".keras", UNJUDGED), (".h5", AGREES)):
        path = tmp_path / f"m{suffix}"
        model.save(path)
        found, out, err = verify(path, "--against", "keras", "--chunks", "whole")
        assert found == status
        message = f"m{suffix}: keras .keras cannot run it: RuntimeError: out of order"
        assert message in (err if status == UNJUDGED else out)


@pytest.mark.others
def test_outputs_by_other_names_are_matched_in_the_models_order(
    verify: Callable[..., Ran], tmp_path: Path
) -> None:
    """ONNX has a list, the model a dictionary whose order is not that of its names."""
    needs_oracles("onnxruntime")
    x = layers.Input((None, 3), name="x")
    y = layers.LSTM(5, return_sequences=True, name="first")(x)
    ends = {name: layers.Dense(2, name=f"to_{k}")(y) for k, name in enumerate("zam")}
    weighted(refrnn.Model(x, ends)).save(tmp_path / "m.keras")
    status, out, _ = verify(tmp_path / "m.keras", "--against", "onnxruntime", "--chunks", "whole")
    assert status == AGREES, out
    assert "onnxruntime .onnx" in out


# --- files that belong to another runtime ---


@pytest.mark.others
def test_a_file_of_onnx_is_held_against_onnx_runtime(
    verify: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_oracles("onnxruntime")
    path = tmp_path / "m.onnx"
    plain().save(path)
    status, out, err = verify(path, "--chunks", "7,3")
    assert (status, err) == (AGREES, "loading onnxruntime ...\n")
    lines = out.partition("\n\n")[0].splitlines()[2:]
    assert [line.split("  ")[0] for line in lines] == ["m.onnx", "m.onnx: first", "m.onnx: second"]
    assert all("same bits" in line for line in lines)

    run = onnx_file.run
    monkeypatch.setattr(
        onnx_file, "run", lambda *asked: {n: a * 1.01 for n, a in run(*asked).items()}
    )
    status, out, _ = verify(path)
    assert status == DIFFERS
    assert "m.onnx against onnxruntime .onnx: whole: " in out


FIXTURES = Path(__file__).parent / "fixtures"


@pytest.mark.others
@pytest.mark.parametrize("name", ["torch_gru_step", "gru_state_bidirectional", "weights_beside"])
def test_files_of_other_axes_are_run_as_they_are(verify: Callable[..., Ran], name: str) -> None:
    """Time first, two directions in one array, one step, a batch of one: turned on the way."""
    needs_oracles("onnxruntime")
    status, out, _ = verify(FIXTURES / "onnx" / f"{name}.onnx", "--chunks", "whole")
    assert status == AGREES, out


@pytest.mark.others
def test_a_folder_of_tfjs_is_held_against_tfjs(verify: Callable[..., Ran], tmp_path: Path) -> None:
    needs_oracles("tfjs")
    plain().save(tmp_path / "m")
    for path in (tmp_path / "m", tmp_path / "m" / "model.json"):
        status, out, err = verify(path, "--chunks", "whole")
        assert (status, err) == (AGREES, "loading tfjs ...\n")
        assert "model.json: second" in out


def test_a_runtime_that_is_not_there_is_named(
    verify: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = ORACLES["onnxruntime"]._replace(modules=("onnxruntime_absent",))
    monkeypatch.setitem(ORACLES, "onnxruntime", missing)
    plain().save(tmp_path / "m.onnx")
    status, out, err = verify(tmp_path / "m.onnx")
    assert (status, out) == (UNJUDGED, "")
    assert "pip install onnxruntime_absent" in err


def test_a_file_that_refrnn_does_not_read_is_refused(
    verify: Callable[..., Ran], tmp_path: Path
) -> None:
    path = tmp_path / "m.keras"
    path.write_bytes(b"nonsense")
    status, out, err = verify(path, "--against", "keras")
    assert (status, out) == (UNJUDGED, "")
    assert "m.keras" in err.splitlines()[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        status, _, err = verify(FIXTURES / "onnx" / "refused_peepholes.onnx", "--against", "keras")
    assert status == UNJUDGED
    assert "peepholes" in err
