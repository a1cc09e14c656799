"""`refrnn verify` exits 0 where refrnn agrees, 1 where it differs, and 2, with one line that says
what to fix, where nothing could be judged.
"""

import io
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refrnn
from refrnn.cells import CELLS, LSTMState
from refrnn.cli import main
from refrnn.commands import AGREES, DIFFERS, UNJUDGED, progress
from refrnn.engines import ENVIRONMENT

LOADING = "loading TensorFlow ..."


class Ran:
    """A command that was run: its exit status, and the lines it wrote."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def message(self) -> str:
        """The one line of a refusal; nothing else may have been written."""
        assert self.status == UNJUDGED, self
        assert self.out == "", self
        lines = [line for line in self.err.splitlines() if line != LOADING]
        assert len(lines) == 1, self
        assert lines[0].startswith("refrnn: "), self
        return lines[0]

    def row(self) -> list[str]:
        """The columns of the only model of the table; its layers have lines of their own."""
        head, rule, *lines = self.out.partition("\n\n")[0].splitlines()
        assert head.split()[0] == "case"
        assert set(rule) == {"-", " "}
        model, *layers = [[c.strip() for c in line.split("  ") if c.strip()] for line in lines]
        assert all(layer[0].startswith(f"{model[0]}: ") for layer in layers), self
        return model

    def __repr__(self) -> str:
        return f"exit {self.status}\n--- out\n{self.out}--- err\n{self.err}"


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """`refrnn verify` with these arguments, in this process."""

    def run(*arguments: Any) -> Ran:
        capsys.readouterr()
        status = main(["verify", *map(str, arguments)])
        return Ran(status, *capsys.readouterr())

    return run


def python(*arguments: str, **environment: str) -> Ran:
    """A Python of its own, as a user starts it."""
    inherited = {
        k: v for k, v in os.environ.items() if not k.startswith(("TF_", "KERAS", "PYTHONW"))
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=inherited | environment,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


# --- models, saved by Keras ---


def save(tf: Any, model: Any, path: Path) -> Path:
    rng = np.random.default_rng(4)
    model.set_weights([rng.normal(0, 0.4, w.shape) for w in model.get_weights()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras: how it asks NumPy for copies, and HDF5 is legacy
        model.save(path)
    return path


def sequential(tf: Any, *layers: Any, shape: Any = (None, 3), **options: Any) -> Any:
    return tf.keras.Sequential([tf.keras.layers.Input(shape, name="x", **options), *layers])


@pytest.fixture(scope="module")
def lstm(tf: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with an LSTM of 3 features and 4 units, and a Dense layer at every step."""
    layers = tf.keras.layers
    model = sequential(tf, layers.LSTM(4, return_sequences=True), layers.Dense(2))
    return save(tf, model, tmp_path_factory.mktemp("models") / "lstm.keras")


@pytest.fixture
def x(tmp_path: Path, rng: np.random.Generator) -> Path:
    path = tmp_path / "x.npy"
    np.save(path, rng.normal(size=(2, 9, 3)))
    return path


# --- what cannot be judged, before TensorFlow is loaded ---


@pytest.mark.parametrize("arguments", [[], ["judge"], ["verify", "--device", "tpu"], ["--nope"]])
def test_a_command_that_is_not_there_is_an_error_of_usage(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    ran = Ran(stopped.value.code, *capsys.readouterr())  # type: ignore[arg-type]
    assert (ran.status, ran.out) == (UNJUDGED, "")
    assert ran.err.startswith("usage: refrnn")
    assert "error: " in ran.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.keras"], "missing.keras: no such file, expected a .keras, .h5"),
        ([__file__], "test_cli.py: expected a file ending in .keras, .h5"),
        ([Path(__file__).parent], "parity_tests: a folder without model.json"),
        (["--input", "x.npy"], "--input x.npy: expected with a MODEL, whose input it is"),
        (["--json", "no/such/folder/r.json"], "no such folder no/such/folder"),
        (["--chunks", "nonsense"], "--chunks nonsense: expected all, whole, or lengths such as 7"),
        (["--chunks", ""], "--chunks : expected all, whole"),
        (["--chunks", "7,,13"], "--chunks 7,,13: expected"),
        (["--chunks", "1.5"], "--chunks 1.5: expected"),
        (["--chunks", "-1"], "--chunks -1: expected"),
        (["--chunks", "7,0"], "the last one is repeated and cannot be 0"),
        (["--chunks", "0"], "cannot be 0"),
    ],
)
def test_arguments_are_checked_before_tensorflow_is_loaded(
    verify: Callable[..., Ran], arguments: list[Any], message: str
) -> None:
    ran = verify(*arguments)
    assert message in ran.message
    assert LOADING not in ran.err


def test_a_gpu_is_refused_where_there_is_none(verify: Callable[..., Ran], tf: Any) -> None:
    if tf.gpus:
        pytest.skip("there is a GPU")
    assert "--device gpu: TensorFlow sees no GPU here" in verify("--device", "gpu").message


def test_the_help_tells_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["verify", "--help"])
    assert stopped.value.code == 0
    assert "0 agrees, 1 differs, 2 could not be judged" in " ".join(capsys.readouterr().out.split())
    assert (AGREES, DIFFERS, UNJUDGED) == (0, 1, 2)


def test_an_interrupt_is_no_verdict(
    verify: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, lstm: Path
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("refrnn.verify.judge_model", interrupted)
    ran = verify(lstm)
    assert (ran.status, ran.out) == (UNJUDGED, "")
    assert ran.err.endswith("\nrefrnn: interrupted\n")


# --- models that cannot be judged ---


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize("content", ["nothing", "nonsense", "half a file"])
def test_a_corrupt_file_is_refused(
    verify: Callable[..., Ran], tf: Any, lstm: Path, tmp_path: Path, suffix: str, content: str
) -> None:
    path = tmp_path / f"corrupt.{suffix}"
    whole = save(tf, tf.load(lstm), tmp_path / f"whole.{suffix}").read_bytes()
    texts = {"nothing": b"", "nonsense": b"nonsense", "half a file": whole[: len(whole) // 2]}
    path.write_bytes(texts[content])
    message = verify(path).message
    assert "corrupt." in message
    assert "Keras cannot load it" in message


def test_a_layer_that_refrnn_does_not_have_is_named(
    verify: Callable[..., Ran], tf: Any, tmp_path: Path
) -> None:
    layers = tf.keras.layers
    model = sequential(tf, layers.Conv1DTranspose(2, 3, name="to_one"))
    message = verify(save(tf, model, tmp_path / "m.keras")).message
    assert "layer 'to_one' is a Conv1DTranspose, which refrnn does not have" in message
    assert "LSTM" in message  # what is expected


def test_an_operation_that_refrnn_does_not_have_is_named(
    verify: Callable[..., Ran], tf: Any, tmp_path: Path
) -> None:
    x = tf.keras.layers.Input((None, 3))
    model = tf.keras.Model(x, tf.keras.layers.LSTM(4)(x) + 1.0)
    assert "is a ops.Add, which refrnn" in verify(save(tf, model, tmp_path / "m.keras")).message


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(
    verify: Callable[..., Ran], tf: Any, lstm: Path, tmp_path: Path, wrong: float
) -> None:
    model = tf.load(lstm)
    weights = model.get_weights()
    weights[1][2, 3] = wrong
    model.set_weights(weights)
    path = tmp_path / "m.keras"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path)
    message = verify(path).message
    assert "recurrent_kernel has 1 values that are not finite" in message
    assert f"{wrong} at [2, 3]" in message


def test_code_in_a_file_is_not_run(verify: Callable[..., Ran], tf: Any, tmp_path: Path) -> None:
    marker = tmp_path / "was_run"
    path = str(marker)
    layer = tf.keras.layers.Lambda(lambda x: __import__("pathlib").Path(path).touch() or x)
    file = save(tf, sequential(tf, layer, tf.keras.layers.LSTM(2)), tmp_path / "m.keras")
    assert marker.exists()  # it was run to make the model
    marker.unlink()
    assert "Keras cannot load it" in verify(file).message
    assert not marker.exists()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_dtype_without_a_tolerance_is_refused(
    verify: Callable[..., Ran], tf: Any, tmp_path: Path, dtype: str
) -> None:
    # Keras draws no orthogonal matrix in bfloat16
    layer = tf.keras.layers.GRU(4, dtype=dtype, recurrent_initializer="glorot_uniform")
    model = sequential(tf, layer)
    assert dtype in verify(save(tf, model, tmp_path / "m.keras")).message


def test_a_model_without_a_shape_is_refused(
    verify: Callable[..., Ran], tf: Any, tmp_path: Path
) -> None:
    model = tf.keras.Sequential([tf.keras.layers.LSTM(4)])
    assert "m.keras" in verify(save(tf, model, tmp_path / "m.keras")).message


def test_a_layer_that_keras_does_not_know_is_refused_in_one_line(
    verify: Callable[..., Ran], tf: Any, tmp_path: Path
) -> None:
    class Mine(tf.keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x

    path = save(tf, sequential(tf, Mine(), tf.keras.layers.LSTM(2)), tmp_path / "m.keras")
    assert "Keras cannot load it" in verify(path).message


# --- inputs that cannot be judged ---


def write(path: Path, content: Any) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        np.savez(path, **content)
    else:
        np.save(path, content, allow_pickle=True)
    return path


PICKLED = np.array([{"a": 1}], object)


# NumPy leaves an archive open that it cannot read.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.npy", b"", "cannot be read as .npy or .npz"),
        ("x.npy", b"nonsense", "cannot be read as .npy or .npz"),
        ("x.npy", b"\x93NUMPY\x01\x00\x05\x00{{{{{", "cannot be read as .npy or .npz"),
        ("x.npz", b"PK\x03\x04nonsense", "cannot be read as .npy or .npz"),
        ("x.npy", PICKLED, "Object arrays cannot be loaded"),
        ("x.npy", np.zeros((2, 9)), "has shape (2, 9), expected 3 dimensions"),
        ("x.npy", np.zeros((2, 9, 3, 2)), "has shape (2, 9, 3, 2), expected 3 dimensions"),
        ("x.npy", np.zeros((2, 9, 4)), "has shape (2, 9, 4), expected (batch, time, 3)"),
        (
            "x.npy",
            np.zeros((2, 9, 3), complex),
            "holds x of complex128, expected arrays of numbers",
        ),
        ("x.npy", np.full((2, 9, 3), "1.5"), "holds x of <U3, expected arrays of numbers"),
        ("x.npz", {"y": np.zeros((2, 9, 3))}, "arrays are ['y'], expected ['x']"),
        ("x.npz", {"x": np.zeros(1), "y": np.zeros(1)}, "expected ['x']"),
        ("x.npz", {}, "holds nothing, expected arrays of numbers"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(
    verify: Callable[..., Ran], lstm: Path, tmp_path: Path, name: str, content: Any, message: str
) -> None:
    path = write(tmp_path / name, content)
    found = verify(lstm, "--input", path).message
    assert message in found
    assert str(path) in found


def test_an_input_that_is_not_there_is_refused(
    verify: Callable[..., Ran], lstm: Path, tmp_path: Path
) -> None:
    for path in (tmp_path / "x.npy", tmp_path):
        assert f"--input {path}: no such file" in verify(lstm, "--input", path).message


def test_a_pickled_array_in_an_archive_is_refused(
    verify: Callable[..., Ran], lstm: Path, tmp_path: Path
) -> None:
    path = write(tmp_path / "x.npz", {"x": PICKLED})
    assert "cannot be read" in verify(lstm, "--input", path).message


def test_an_input_with_nan_cannot_be_judged(
    verify: Callable[..., Ran], lstm: Path, tmp_path: Path
) -> None:
    path = write(tmp_path / "x.npy", np.full((2, 9, 3), np.nan))
    assert "nan" in verify(lstm, "--input", path).message.lower()


@pytest.mark.parametrize("shape", [(0, 9, 3), (2, 0, 3)])
def test_an_empty_input_cannot_be_judged(
    verify: Callable[..., Ran], lstm: Path, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    path = write(tmp_path / "x.npy", np.zeros(shape))
    assert "x.npy" in verify(lstm, "--input", path).message


def test_one_array_for_a_model_of_two_inputs_is_refused(
    verify: Callable[..., Ran], tf: Any, tmp_path: Path, x: Path
) -> None:
    layers = tf.keras.layers
    a, h = layers.Input((None, 3), name="a"), layers.Input((4,), name="h")
    model = tf.keras.Model([a, h], layers.GRU(4)(a, initial_state=h))
    path = save(tf, model, tmp_path / "m.keras")
    assert "one array, expected a .npz with 2: a, h" in verify(path, "--input", x).message


# --- models that agree ---


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_model_saved_by_keras_agrees(
    verify: Callable[..., Ran], tf: Any, lstm: Path, tmp_path: Path, suffix: str
) -> None:
    path = save(tf, tf.load(lstm), tmp_path / f"model.{suffix}")
    ran = verify(path)
    assert ran.status == AGREES, ran
    case, dtype, against, _, chunked, _, verdict = ran.row()
    assert (case, dtype, verdict) == (f"model.{suffix}", "float32", "agrees")
    if not tf.gpus:
        assert against == "TF eager, function, XLA"
    assert chunked.endswith("same bits")
    assert f"refrnn {refrnn.__version__} agrees with TensorFlow on" in ran.out.splitlines()[-1]
    assert tf.tf.__version__ in ran.out.splitlines()[-1]
    assert ran.err == f"{LOADING}\n"


@pytest.mark.parametrize(
    ("asked", "cuttings"),
    [("all", None), ("whole", []), ("1", [[1]]), ("7,13", [[7, 13]]), ("0,5", [[0, 5]])],
)
def test_the_chunks_asked_for_are_run(
    verify: Callable[..., Ran],
    monkeypatch: pytest.MonkeyPatch,
    lstm: Path,
    asked: str,
    cuttings: list[list[int]] | None,
) -> None:
    from refrnn.verify import chunks

    run: list[list[int]] = []
    cut = chunks.model_in_chunks

    def watch(model: Any, inputs: Any, sizes: list[int]) -> Any:
        run.append(sizes)
        return cut(model, inputs, sizes)

    monkeypatch.setattr(chunks, "model_in_chunks", watch)
    ran = verify(lstm, "--chunks", asked, "--device", "cpu")
    assert ran.status == AGREES, ran
    assert ("same bits" in ran.row()[4]) == (cuttings != [])
    if cuttings is None:
        assert run[0] == [1]
        assert len(run) == 2
        assert sum(run[1]) == 20
    else:
        assert run == cuttings


def test_an_input_of_the_users_is_what_is_run(
    verify: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, lstm: Path, x: Path
) -> None:
    from refrnn import verify as judge

    seen = []

    def watch(title: str, model: Any, inputs: Any, *rest: Any) -> Any:
        seen.extend(inputs)
        return judged(title, model, inputs, *rest)

    judged = judge.judge_model
    monkeypatch.setattr(judge, "judge_model", watch)
    assert verify(lstm, "--input", x).status == AGREES
    array = seen[-1]
    assert array.dtype == np.float32
    assert np.array_equal(array, np.load(x).astype("float32"))


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "float16", ">f8"])
def test_an_input_of_any_real_numbers_is_taken(
    verify: Callable[..., Ran], lstm: Path, tmp_path: Path, rng: np.random.Generator, dtype: str
) -> None:
    path = write(tmp_path / "x.npy", rng.integers(0, 2, (2, 5, 3)).astype(dtype))
    ran = verify(lstm, "--input", path, "--chunks", "2")
    assert ran.status == AGREES, ran


def test_a_report_is_written_as_json(
    verify: Callable[..., Ran], lstm: Path, tmp_path: Path, tf: Any
) -> None:
    path = tmp_path / "report.json"
    ran = verify(lstm, "--json", path, "--device", "cpu", "--chunks", "3")
    assert ran.status == AGREES, ran
    found = json.loads(path.read_text())
    assert found["verdict"] == "agrees"
    assert found["versions"]["refrnn"] == refrnn.__version__
    for library in (np, tf.tf, tf.keras):
        assert library.__version__ in found["versions"].values()
    *whole, layer = found["rows"]
    assert [row["against"] for row in whole] == ["TF eager", "TF function", "TF XLA"]
    assert (layer["against"], layer["verdict"]) == ("TF eager", "agrees")
    assert 0 < layer["margin"] < 1  # the model's outputs have a tolerance, its layers the envelope
    for row in whole:
        assert row["margin"] is None
        assert (row["case"], row["dtype"], row["verdict"]) == ("lstm.keras", "float32", "agrees")
        assert 0 <= row["whole"] <= row["allowed"] == 1e-5
        assert row["same_bits"] is True
    assert found["quote"] in ran.out


def test_a_report_that_cannot_be_written_is_refused_before_the_work(
    verify: Callable[..., Ran], lstm: Path, tmp_path: Path
) -> None:
    assert "--json" in verify(lstm, "--json", tmp_path).message


def test_the_device_can_be_the_cpu_alone(verify: Callable[..., Ran], lstm: Path, tf: Any) -> None:
    assert verify(lstm, "--device", "cpu").row()[2] == "TF eager, function, XLA"


# --- models that differ ---


def test_a_model_that_differs_is_told_so(
    verify: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, lstm: Path, tmp_path: Path
) -> None:
    right = CELLS["lstm"]

    def wrong(*arguments: Any) -> Any:
        after, gates = right.step(*arguments)
        return LSTMState(after.h, after.c * np.float32(1.001)), gates

    monkeypatch.setitem(CELLS, "lstm", right._replace(step=wrong))
    monkeypatch.setenv(ENVIRONMENT, "numpy")  # the engine that takes the step from there
    path = tmp_path / "r.json"
    ran = verify(lstm, "--device", "cpu", "--json", path)
    assert ran.status == DIFFERS, ran
    lines = ran.out.partition("\n\n")[0].splitlines()[2:]
    for line, mode in zip(
        lines, ("TF eager", "TF function", "TF XLA", "lstm.keras: lstm"), strict=True
    ):
        assert mode in line
        assert line.endswith("DIFFERS")
    assert "lstm.keras against TF eager: whole: output[" in ran.out
    assert "DIFFERS in 4 of 4 from TensorFlow" in ran.out
    assert json.loads(path.read_text())["verdict"] == "differs"


def test_a_model_whose_chunks_alone_differ_is_told_so(
    verify: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, lstm: Path
) -> None:
    advance = refrnn.Model.advance
    monkeypatch.setattr(refrnn.Model, "advance", lambda self, x, memories: advance(self, x))
    ran = verify(lstm, "--device", "cpu")
    assert ran.status == DIFFERS, ran
    assert "in chunks: output[" in ran.out
    assert "same bits" not in ran.out.splitlines()[2]
    assert verify(lstm, "--device", "cpu", "--chunks", "whole").status == AGREES


# --- graphs ---


@pytest.fixture
def graph(tf: Any, tmp_path: Path) -> Path:
    """A sequence, its mask and a state in; a dictionary out."""
    layers = tf.keras.layers
    a = layers.Input((None, 3), name="a")
    keep = layers.Input((None,), dtype="bool", name="keep")
    h, c = layers.Input((4,), name="h"), layers.Input((4,), name="c")
    lstm = layers.LSTM(4, return_sequences=True, return_state=True)
    y, h_after, c_after = lstm(a, mask=keep, initial_state=[h, c])
    outputs = {"y": layers.Dense(2)(y), "state": [h_after, c_after]}
    model = tf.keras.Model([a, keep, h, c], outputs)
    return save(tf, model, tmp_path / "graph.keras")


def test_a_graph_of_several_inputs_and_named_outputs_agrees(
    verify: Callable[..., Ran],
    graph: Path,
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrays = {
        "c": rng.normal(size=(5, 4)),
        "keep": rng.random((5, 8)) < 0.6,
        "a": rng.normal(size=(5, 8, 3)),
        "h": rng.normal(size=(5, 4)),
    }
    path = write(tmp_path / "in.npz", arrays)
    ran = verify(graph, "--input", path, "--chunks", "0,3")
    assert ran.status == AGREES, ran
    assert "same bits" in ran.row()[4]
    assert verify(graph).status == AGREES  # on inputs of its own

    dense = refrnn.layers.Dense.call
    monkeypatch.setattr(refrnn.layers.Dense, "call", lambda *a, **k: dense(*a, **k) + 1)
    ran = verify(graph, "--input", path)
    assert ran.status == DIFFERS
    assert "whole: y[" in ran.out


def test_names_of_arrays_are_checked(
    verify: Callable[..., Ran], graph: Path, tmp_path: Path
) -> None:
    path = write(tmp_path / "in.npz", {"a": np.zeros((5, 8, 3)), "hat": np.zeros((5, 4))})
    message = verify(graph, "--input", path).message
    assert "arrays are ['a', 'hat'], expected ['a', 'keep', 'h', 'c']" in message


def test_rows_that_do_not_match_are_refused(
    verify: Callable[..., Ran], graph: Path, tmp_path: Path
) -> None:
    shapes = {"a": (5, 8, 3), "keep": (5, 8), "h": (1, 4), "c": (5, 4)}
    path = write(tmp_path / "in.npz", {name: np.zeros(shape) for name, shape in shapes.items()})
    assert "state h is of shape (1, 4), expected (5, 4)" in verify(graph, "--input", path).message


@pytest.mark.parametrize("rows", [2, 3])
def test_a_stateful_model_agrees(
    verify: Callable[..., Ran], tf: Any, tmp_path: Path, rows: int
) -> None:
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            layers.Input(batch_shape=(rows, None, 3)),
            layers.GRU(4, stateful=True, return_sequences=True),
            layers.SimpleRNN(2, stateful=True),
        ]
    )
    ran = verify(save(tf, model, tmp_path / "m.keras"))
    assert ran.status == AGREES, ran
    assert "same bits" in ran.row()[4]


def test_another_batch_for_a_stateful_model_is_refused(
    verify: Callable[..., Ran], tf: Any, tmp_path: Path, x: Path
) -> None:
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [layers.Input(batch_shape=(3, None, 3)), layers.LSTM(4, stateful=True)]
    )
    assert "m.keras" in verify(save(tf, model, tmp_path / "m.keras"), "--input", x).message


def test_a_model_that_runs_backwards_agrees_whole_and_says_why(
    verify: Callable[..., Ran], tf: Any, tmp_path: Path
) -> None:
    model = sequential(tf, tf.keras.layers.LSTM(4, go_backwards=True, name="back"))
    ran = verify(save(tf, model, tmp_path / "m.keras"))
    assert ran.status == AGREES, ran
    assert ran.row()[4] == "-"
    assert "whole only: LSTM 'back' runs backwards" in ran.out
    assert "1 of them in chunks" in ran.out  # the layer alone, from the end


def test_an_encoder_and_decoder_agree_whole_and_say_why(
    verify: Callable[..., Ran], tf: Any, tmp_path: Path
) -> None:
    layers = tf.keras.layers
    source, target = layers.Input((None, 3), name="s"), layers.Input((None, 2), name="t")
    _, *state = layers.LSTM(4, return_state=True, name="encoder")(source)
    decoder = layers.LSTM(4, return_sequences=True, name="decoder")
    model = tf.keras.Model([source, target], decoder(target, initial_state=state))
    ran = verify(save(tf, model, tmp_path / "m.keras"))
    assert ran.status == AGREES, ran
    assert "whole only: LSTM 'decoder' starts from a state that 'encoder' ends with" in ran.out


def test_a_model_without_time_agrees_whole_and_says_why(
    verify: Callable[..., Ran], tf: Any, tmp_path: Path
) -> None:
    model = sequential(tf, tf.keras.layers.Dense(4, "tanh"), shape=(3,))
    ran = verify(save(tf, model, tmp_path / "m.keras"))
    assert ran.status == AGREES, ran
    assert "whole only: the inputs have no time axis" in ran.out


def test_a_model_of_a_fixed_length_agrees(
    verify: Callable[..., Ran], tf: Any, tmp_path: Path
) -> None:
    layers = tf.keras.layers
    inner = layers.TimeDistributed(layers.SimpleRNN(3))
    model = sequential(tf, inner, layers.LSTM(4), shape=(6, 5, 2))
    ran = verify(save(tf, model, tmp_path / "m.keras"))
    assert ran.status == AGREES, ran
    assert "same bits" in ran.row()[4]


def test_a_model_in_float64_is_held_to_the_tolerance_of_float64(
    verify: Callable[..., Ran], tf: Any, tmp_path: Path
) -> None:
    model = sequential(tf, tf.keras.layers.GRU(4, dtype="float64"), dtype="float64")
    ran = verify(save(tf, model, tmp_path / "m.keras"))
    assert ran.status == AGREES, ran
    assert ran.row()[1] == "float64"
    assert ran.row()[5].endswith("of 1e-12")


def test_inputs_of_different_lengths_agree(
    verify: Callable[..., Ran], tf: Any, tmp_path: Path
) -> None:
    layers = tf.keras.layers
    a, b = layers.Input((6, 3), name="a"), layers.Input((9, 2), name="b")
    model = tf.keras.Model([a, b], [layers.LSTM(4)(a), layers.GRU(4)(b)])
    ran = verify(save(tf, model, tmp_path / "m.keras"))
    assert ran.status == AGREES, ran


def test_a_stateful_layer_called_twice_agrees(
    verify: Callable[..., Ran], tf: Any, tmp_path: Path
) -> None:
    layers = tf.keras.layers
    a = layers.Input(batch_shape=(2, 6, 3))
    shared = layers.LSTM(3, stateful=True, return_sequences=True)
    ran = verify(save(tf, tf.keras.Model(a, shared(shared(a))), tmp_path / "m.keras"))
    assert ran.status == AGREES, ran


def test_the_only_output_of_a_list_agrees(
    verify: Callable[..., Ran], tf: Any, tmp_path: Path
) -> None:
    a = tf.keras.layers.Input((None, 3))
    model = tf.keras.Model([a], [tf.keras.layers.GRU(4)(a)])
    ran = verify(save(tf, model, tmp_path / "m.keras"))
    assert ran.status == AGREES, ran


@pytest.mark.parametrize("first", ["float64", "bool"])
def test_outputs_of_several_dtypes_agree(
    verify: Callable[..., Ran], tf: Any, tmp_path: Path, first: str
) -> None:
    layers = tf.keras.layers
    a, other = layers.Input((None, 3), name="a"), layers.Input((None, 3), dtype=first, name="b")
    model = tf.keras.Model([a, other], [other, layers.LSTM(4)(a)])
    ran = verify(save(tf, model, tmp_path / "m.keras"))
    assert ran.status == AGREES, ran


def test_inputs_in_a_dictionary_agree(verify: Callable[..., Ran], tf: Any, tmp_path: Path) -> None:
    layers = tf.keras.layers
    z, a = layers.Input((None, 2), name="z"), layers.Input((None, 3), name="a")
    model = tf.keras.Model({"z": z, "a": a}, {"p": layers.LSTM(4)(z), "b": layers.GRU(4)(a)})
    ran = verify(save(tf, model, tmp_path / "m.keras"))
    assert ran.status == AGREES, ran


# --- without a model ---


def test_without_a_model_the_family_and_the_trained_models_are_judged(
    verify: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from refrnn import verify as judge

    few = judge.FAMILY[1], judge.FAMILY[-1]
    monkeypatch.setattr(judge, "FAMILY", few)
    path = tmp_path / "r.json"
    ran = verify("--device", "cpu", "--chunks", "4", "--json", path)
    assert ran.status == AGREES, ran
    rows = json.loads(path.read_text())["rows"]
    names = [str(case) for case in few for _ in range(3)]
    for title in ("running sum, B8 T24", "sine wave, batch 175", "sine wave, batch 1"):
        names += [f"trained {title}"] * 3 + [f"trained {title}: lstm"]
    assert [row["case"] for row in rows] == names
    assert [row["against"] for row in rows[:3]] == ["TF eager", "TF function", "TF XLA"]
    assert all(row["same_bits"] for row in rows)


def test_without_a_model_a_wrong_layer_differs(
    verify: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    from refrnn import verify as judge

    monkeypatch.setattr(judge, "FAMILY", tuple(c for c in judge.FAMILY if c.rows == 1)[:2])
    right = CELLS["lstm"]

    def swapped(*arguments: Any) -> Any:
        after, gates = right.step(*arguments)
        return LSTMState(h=after.c, c=after.h), gates

    monkeypatch.setitem(CELLS, "lstm", right._replace(step=swapped))
    monkeypatch.setenv(ENVIRONMENT, "numpy")  # the engine that takes the step from there
    ran = verify("--device", "cpu", "--chunks", "whole")
    assert ran.status == DIFFERS
    lines = ran.out.splitlines()
    assert any(line.startswith("SimpleRNN") and line.endswith("agrees") for line in lines)
    assert any(line.startswith("LSTM") and line.endswith("DIFFERS") for line in lines)


def test_an_oracle_that_fails_is_no_verdict(
    verify: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, lstm: Path
) -> None:
    from refrnn.oracles.tensorflow import TensorFlow

    def broken(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(TensorFlow, "run_model", broken)
    message = verify(lstm).message
    assert "lstm.keras: TF " in message
    assert "cannot run it: RuntimeError: out of memory" in message


def test_two_installed_tensorflows_are_warned_of(
    verify: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, lstm: Path
) -> None:
    monkeypatch.setattr("refrnn.oracles.tensorflow._installed", lambda name: True)
    ran = verify(lstm)
    assert ran.status == AGREES
    assert ran.err.splitlines()[-1].startswith(
        "warning: tensorflow and tensorflow-cpu are both installed"
    )


# --- the progress bar ---


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def jobs(count: int) -> list[Callable[[], list[Any]]]:
    return [lambda k=k: [k] for k in range(count)]  # type: ignore[misc]


def test_progress_is_shown_on_a_terminal_and_wiped_at_the_end() -> None:
    screen = Screen()
    assert [job() for job in progress(jobs(3), screen)] == [[0], [1], [2]]
    assert "0/3" in screen.getvalue()
    assert "2/3" in screen.getvalue()
    assert "\n" not in screen.getvalue()
    assert screen.getvalue().endswith(" \r")


def test_progress_is_shown_nowhere_else() -> None:
    file = io.StringIO()
    assert [job() for job in progress(jobs(3), file)] == [[0], [1], [2]]
    assert file.getvalue() == ""


def test_an_error_is_not_written_behind_the_bar(
    monkeypatch: pytest.MonkeyPatch, verify: Callable[..., Ran], lstm: Path
) -> None:
    from refrnn.oracles.tensorflow import TensorFlow

    def broken(*_: Any) -> None:
        raise RuntimeError("out of memory")

    screen = Screen()
    monkeypatch.setattr(TensorFlow, "run_model", broken)
    monkeypatch.setattr(sys, "stderr", screen)
    assert main(["verify", str(lstm)]) == UNJUDGED
    before, _, _ = screen.getvalue().rpartition("refrnn: ")
    assert before.endswith(("\r", "\n"))


# --- in a process of its own ---


def test_the_version_is_printed() -> None:
    ran = python("-m", "refrnn", "--version")
    assert (ran.status, ran.out, ran.err) == (0, f"refrnn {refrnn.__version__}\n", "")


def test_nothing_of_tensorflow_is_heard(lstm: Path) -> None:
    """TensorFlow, XLA and Keras log to stderr, from C++ too; the user sees refrnn's line only."""
    ran = python("-m", "refrnn", "verify", str(lstm), "--device", "cpu")
    assert ran.status == AGREES, ran
    assert ran.err == f"{LOADING}\n"
    assert ran.row()[-1] == "agrees"


def test_a_refusal_is_the_status_of_the_process(tmp_path: Path) -> None:
    path = tmp_path / "corrupt.keras"
    path.write_bytes(b"nonsense")
    assert "Keras cannot load it" in python("-m", "refrnn", "verify", str(path)).message


WITHOUT = (
    "import sys; sys.modules[{name!r}] = None;"
    " from refrnn.cli import main; sys.exit(main(['verify']))"
)


@pytest.mark.parametrize("name", ["tensorflow", "keras"])
def test_a_missing_library_is_named_with_what_to_install(name: str) -> None:
    message = python("-c", WITHOUT.format(name=name)).message
    assert f"import of {name} halted" in message
    assert "pip install 'refrnn[verify]'" in message


def test_keras_on_another_backend_is_refused() -> None:
    code = (
        "import sys, types; keras = types.ModuleType('keras'); keras.__version__ = '3.10.0';"
        " keras.backend = types.SimpleNamespace(backend=lambda: 'jax');"
        " tf = types.ModuleType('tensorflow');"
        " sys.modules |= {'keras': keras, 'tensorflow': tf};"
        " from refrnn.cli import main; sys.exit(main(['verify']))"
    )
    assert "Keras runs on 'jax', expected 'tensorflow'" in python("-c", code).message


def test_keras_2_is_refused() -> None:
    code = (
        "import sys, types; keras = types.ModuleType('keras'); keras.__version__ = '2.15.0';"
        " sys.modules |= {'keras': keras, 'tensorflow': types.ModuleType('tensorflow')};"
        " from refrnn.cli import main; sys.exit(main(['verify']))"
    )
    assert "Keras is 2.15.0, expected 3 or later" in python("-c", code).message
