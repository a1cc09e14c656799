"""`refrnn convert` writes what gives the same numbers, says what it is, or leaves OUT as it was."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from others import needs

import refrnn
from refrnn import cli, convert, files, layers, layouts
from refrnn.files.arrays import ARRAYS
from refrnn.oracles import Unavailable

FIXTURES = Path(__file__).parent / "fixtures"
LSTM = FIXTURES / "keras" / "01_seq_lstm.keras"
TIME_FIRST = FIXTURES / "onnx" / "torch_gru_time_first.onnx"
STATES = FIXTURES / "torch" / "lstm.pt"


def missing(*_: Any) -> Any:
    raise Unavailable("it is missing, install it")


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other library is installed."""
    monkeypatch.setattr(convert, "TensorFlow", missing)
    for runtime in (convert.onnx_file, convert.tflite_file, convert.openvino_file):
        monkeypatch.setattr(runtime, "run", missing)


def converted(*words: Any) -> int:
    return cli.main(["convert", *map(str, words)])


def outputs(path: Path, x: Any) -> bytes:
    y: Any = files.load_model(path)(x)
    return y.tobytes()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", ["out.onnx", "out.h5", "out.keras", "out"])
def test_a_model_is_the_same_in_every_format(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / name
    assert converted(LSTM, out) == 0
    shape = files.load_model(LSTM).inputs[0].shape
    assert shape is not None
    sizes = [5 if n is None else n for n in shape]
    x = np.random.default_rng(0).normal(size=sizes).astype(np.float32)
    assert outputs(out, x) == outputs(LSTM, x)
    said = capsys.readouterr().out
    assert "exact   read back" in said
    assert said.endswith(f"{LSTM} -> {out}\n")
    assert ("not run" in said) == (out.suffix != "")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.usefixtures("alone")
def test_what_is_turned_and_rounded_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert converted(TIME_FIRST, tmp_path / "out.keras") == 0
    said = capsys.readouterr().out
    assert "turned  input 'x' is (time, batch, features) there" in said
    assert "rounded" not in said
    assert converted(FIXTURES / "onnx" / "lstm_state.onnx", tmp_path / "out.onnx") == 0
    said = capsys.readouterr().out
    assert "rounded node 'lstm_state' (LSTM): Wb + Rb" in said
    assert "turned  input 'initial_h' is (directions, batch, features) there" in said


@pytest.mark.usefixtures("alone")
def test_what_nothing_here_can_run_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outputs in the order of steps taken backwards are written for ONNX, but not read."""
    lstm = layers.LSTM(4, go_backwards=True, return_sequences=True)
    refrnn.Sequential([layers.Input((7, 3)), lstm]).save(tmp_path / "m.keras")
    assert converted(tmp_path / "m.keras", tmp_path / "m.onnx") == 2
    said = capsys.readouterr().err
    assert "m.onnx: nothing here runs what was written" in said
    assert ".refrnn-" not in said  # where it was tried
    assert [path.name for path in tmp_path.iterdir()] == ["m.keras"]


@pytest.mark.others
def test_outputs_of_a_dictionary_are_matched_in_the_models_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """ONNX has a list, the model a dictionary whose order is not that of its names."""
    needs("onnxruntime")
    x = layers.Input((None, 3), name="x")
    y = layers.LSTM(5, return_sequences=True)(x)
    refrnn.Model(x, {name: layers.Dense(2)(y) for name in "zam"}).save(tmp_path / "m.keras")
    assert converted(tmp_path / "m.keras", tmp_path / "m.onnx") == 0, capsys.readouterr().out


@pytest.mark.others
@pytest.mark.parametrize("source", ["lstm_state", "gru_state_bidirectional", "torch_lstm_all"])
def test_onnx_runtime_runs_both_files(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("onnxruntime")
    assert converted(FIXTURES / "onnx" / f"{source}.onnx", tmp_path / "out.onnx") == 0
    said = capsys.readouterr().out
    assert "agrees  ONNX Runtime on IN" in said
    assert "agrees  ONNX Runtime on OUT" in said


def test_keras_runs_what_is_written_for_it(
    tf: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert converted(TIME_FIRST, tmp_path / "out.keras") == 0
    assert "agrees  Keras on OUT" in capsys.readouterr().out


# The interpreter says that it moves to another package.
@pytest.mark.filterwarnings("ignore:[\\s\\S]*tf.lite.Interpreter is deprecated:UserWarning")
def test_tflite_is_run_beside_what_is_written(
    tf: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("lstm_dense", "time_major", "embedding"):
        assert converted(FIXTURES / "tflite" / f"{name}.tflite", tmp_path / f"{name}.keras") == 0
        said = capsys.readouterr().out
        assert "lasting node 'tfl.unidirectional_sequence_lstm'" in said
        assert "agrees  TFLite's interpreter on IN" in said
        assert "agrees  Keras on OUT" in said


@pytest.mark.others
@pytest.mark.parametrize("name", ["torch_gru_bidirectional", "onnx_lstm_state"])
def test_openvino_is_run_beside_what_is_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("openvino", "onnxruntime")
    assert converted(FIXTURES / "openvino" / f"{name}.xml", tmp_path / "out.onnx") == 0
    said = capsys.readouterr().out
    assert "agrees  OpenVINO on IN" in said
    assert "agrees  ONNX Runtime on OUT" in said


def test_a_runtime_that_differs_keeps_the_file_from_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = FIXTURES / "tflite" / "lstm_dense.tflite", tmp_path / "out.onnx"
    monkeypatch.setattr(convert.onnx_file, "run", missing)

    def wrong(path: Path, inputs: Any) -> dict[str, Any]:
        [x] = inputs.values()
        return {"StatefulPartitionedCall:0": np.asarray(files.load_model(path)(x)) + 1e-3}

    monkeypatch.setattr(convert.tflite_file, "run", wrong)
    assert converted(source, out) == 1
    assert "DIFFERS TFLite's interpreter on IN" in capsys.readouterr().out
    assert not out.exists()


def test_weights_of_flax_become_those_of_pytorch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = FIXTURES / "flax" / "linen_model.msgpack", tmp_path / "out.safetensors"
    assert converted(source, out, "--layout", "torch") == 0
    said = capsys.readouterr().out
    assert "params/OptimizedLSTMCell_0: lstm of flax-linen as torch" in said
    assert "params/GRUCell_0: gru of flax-linen as torch" in said
    assert "as is   params/Dense_0/bias, params/Dense_0/kernel" in said
    found, stored = files.read_arrays(out), files.read_arrays(source)
    before = "params/OptimizedLSTMCell_0/"
    for k, gate in enumerate("ifgo"):
        np.testing.assert_array_equal(
            found[f"{before}weight_ih_l0"][4 * k : 4 * k + 4], stored[f"{before}i{gate}/kernel"].T
        )


@pytest.mark.usefixtures("alone")
def test_what_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.onnx"
    out.write_bytes(b"as it was")
    real = files.load_model

    def wrong(path: Any, *more: Any) -> Any:
        model = real(path, *more)
        if Path(path) != LSTM:
            model.set_weights([w + np.float32(1e-6) for w in model.get_weights()])
        return model

    with monkeypatch.context() as patch:
        patch.setattr(files, "load_model", wrong)
        assert converted(LSTM, out) == 1
    assert "NOT written" in capsys.readouterr().out
    assert out.read_bytes() == b"as it was"

    def far(path: Path, inputs: Any) -> Any:
        y = files.load_model(LSTM)(next(iter(inputs.values())))
        return {"y": y + np.float32(1e-3)}

    monkeypatch.setattr(convert.onnx_file, "run", far)
    assert converted(LSTM, out) == 1
    assert "DIFFERS ONNX Runtime on OUT" in capsys.readouterr().out

    def broken(path: Path, inputs: Any) -> Any:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(convert.onnx_file, "run", broken)
    assert converted(LSTM, out) == 1
    assert "FAILS   ONNX Runtime on OUT: RuntimeError: no such op" in capsys.readouterr().out
    assert out.read_bytes() == b"as it was"
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors", "w.weights.h5"])
def test_a_model_becomes_weights(name: str, tmp_path: Path) -> None:
    assert converted(LSTM, tmp_path / name) == 0
    model = files.load_model(LSTM)
    wanted = [w.copy() for w in model.get_weights()]
    model.set_weights([w * 0 for w in wanted])
    model.load_weights(tmp_path / name)
    for a, b in zip(model.get_weights(), wanted, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.usefixtures("alone")
def test_a_model_of_ids_is_run_on_ids(tmp_path: Path) -> None:
    ids = layers.Input((None,), dtype="int32")
    model = refrnn.Model(ids, layers.GRU(3)(layers.Embedding(2, 4)(ids)))
    model.save(tmp_path / "in.keras")
    assert converted(tmp_path / "in.keras", tmp_path / "out.onnx") == 0


# --- weights ---


def test_weights_stay_as_they_are(tmp_path: Path) -> None:
    assert converted(STATES, tmp_path / "w.safetensors") == 0
    assert converted(tmp_path / "w.safetensors", tmp_path / "w.npz") == 0
    want, got = files.read_arrays(STATES), files.read_arrays(tmp_path / "w.npz")
    assert got.keys() == want.keys()
    assert all(got[name].tobytes() == want[name].tobytes() for name in want)


def test_weights_change_their_layout_where_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "w.npz"
    assert converted(STATES, out, "--layout", "keras") == 2
    assert "lossy='sum_biases' allows it" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert converted(STATES, out, "--layout", "keras", "--lossy", "sum_biases") == 0
    said = capsys.readouterr().out
    assert "LOSSY   all: lstm of torch as keras" in said
    found = files.read_arrays(out)
    wanted = layouts.convert(
        files.read_arrays(STATES), "lstm", "torch", "keras", lossy="sum_biases"
    )
    assert found.keys() == wanted.keys()
    assert all(found[name].tobytes() == wanted[name].tobytes() for name in wanted)
    assert converted(out, tmp_path / "x.npz", "--layout", "onnx", "--from", "keras") == 2
    words = ["--layout", "haste", "--from", "keras", "--cell", "lstm"]
    assert converted(out, tmp_path / "x.npz", *words) == 0
    assert "exact   all: lstm of keras as haste" in capsys.readouterr().out


def test_the_recurrent_part_of_a_state_dict_changes_and_the_rest_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gru = files.read_arrays(FIXTURES / "torch" / "gru.pt")
    linear = {"fc.weight": np.ones((2, 4), np.float32), "fc.bias": np.zeros(2, np.float32)}
    source, out = tmp_path / "in.npz", tmp_path / "out.safetensors"
    files.write_arrays({f"encoder.rnn.{n}": a for n, a in gru.items()} | linear, source)
    assert converted(source, out, "--layout", "keras") == 0
    said = capsys.readouterr().out
    assert "exact   encoder.rnn: gru of torch as keras" in said
    assert "as is   fc.weight, fc.bias" in said
    found = files.read_arrays(out)
    wanted = {f"encoder.rnn.{n}": a for n, a in layouts.convert(gru, "gru", "torch").items()}
    assert found.keys() == (wanted | linear).keys()
    assert all(found[n].tobytes() == a.tobytes() for n, a in (wanted | linear).items())


# --- refusals ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.onnx", "out.keras"], "none.onnx: No such file"),
        ([LSTM, "no/such/out.keras"], "no such folder"),
        ([LSTM, LSTM], "expected another file"),
        ([LSTM, "out.pt"], "suffix '.pt'"),
        ([LSTM, "out.onnx", "--layout", "torch"], "expected --layout with weights alone"),
        ([STATES, "out.keras"], "do not tell the layers"),
        ([FIXTURES / "torch" / "module.pt", "out.npz"], "could run code"),
        ([FIXTURES / "onnx" / "refused_clip.onnx", "out.keras"], "node 'refused_clip' (LSTM)"),
        ([FIXTURES / "keras" / "04_seq_bidir_mask.keras", "out.onnx"], "makes a mask"),
        ([STATES, "out.npz", "--layout", "keras", "--cell", "lstm"], "--from and --cell together"),
    ],
)
def test_what_cannot_be_converted_is_refused_and_nothing_is_written(
    words: list[Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert converted(*words) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.startswith("refrnn: ")
    assert said.out == ""
    assert not list(tmp_path.iterdir())


def test_the_help_names_every_format() -> None:
    parser = argparse.ArgumentParser()
    convert.add_arguments(parser)
    for suffix in (*ARRAYS, ".keras", ".h5", ".onnx"):
        assert suffix in convert.DESCRIPTION
