"""`refrnn verify --against`, `explain` and `grade` judge recorded outputs, without TensorFlow."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import refrnn
from refrnn import layers
from refrnn.cli import main
from refrnn.commands import AGREES, DIFFERS, UNJUDGED
from refrnn.gates import Array

Ran = tuple[int, str, str]


@pytest.fixture
def refrnn_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """The exit status and the two outputs of a command, run in this process."""

    def run(*arguments: Any) -> Ran:
        capsys.readouterr()
        status = main([*map(str, arguments)])
        return (status, *capsys.readouterr())

    return run


class Bench:
    """A folder with a model, its input, and outputs of a right and of a wrong implementation."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(5)
        inputs = layers.Input((None, 3))
        first = layers.LSTM(6, return_sequences=True, name="first")
        self.model = refrnn.Sequential([inputs, first])
        for weights in (first.get_weights(),):
            first.set_weights([rng.normal(0, 0.7, w.shape).astype("f") for w in weights])
        self.x = rng.normal(size=(2, 12, 3)).astype("f")
        self.folder, self.file = folder, folder / "one.keras"
        self.model.save(self.file)
        self.deep = folder / "deep.keras"
        deep = refrnn.Sequential(
            [layers.Input((None, 3)), layers.LSTM(6, return_sequences=True, name="first"),
             layers.Dense(2, name="last")]
        )  # fmt: skip
        deep.get_layer("first").set_weights(first.get_weights())
        deep.save(self.deep)
        self.deep_y = np.asarray(deep(self.x))
        self.input = self.save("x.npy", self.x)
        self.y = np.asarray(self.model(self.x))

    def save(self, name: str, array: Array) -> Path:
        np.save(self.folder / name, array)
        return self.folder / name

    def outputs_in_onnx_order(self) -> Array:
        """What comes of Keras's weights read as if their gates were i, o, f, g."""
        swapped = [
            np.concatenate([np.split(w, 4, -1)[k] for k in (0, 2, 3, 1)], -1)
            for w in self.model.get_weights()
        ]
        return refrnn.run("lstm", refrnn.Weights(*swapped), self.x)[0]


@pytest.fixture
def recorded(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_right_outputs_agree(refrnn_command: Callable[..., Ran], recorded: Bench) -> None:
    seen = recorded.save("y.npy", recorded.y)
    status, out, err = refrnn_command(
        "verify", recorded.file, "--input", recorded.input, "--against", seen
    )
    assert (status, err) == (AGREES, "")
    assert "LSTM 'first': agrees, as float32" in out


def test_wrong_outputs_differ_and_the_step_is_named(
    refrnn_command: Callable[..., Ran], recorded: Bench
) -> None:
    y = recorded.y.copy()
    y[1, 7, 4] += 1e-5
    seen, page = recorded.save("y.npy", y), recorded.folder / "page.html"
    report = recorded.folder / "report.json"
    status, out, _ = refrnn_command(
        "verify", recorded.file, "--input", recorded.input, "--against", seen,
        "--json", report, "--html", page,
    )  # fmt: skip
    assert status == DIFFERS
    assert "first difference: y[row 1, step 7, unit 4]" in out
    found = json.loads(report.read_text())
    assert (found["verdict"], found["first"]["step"]) == ("differs", 7)
    assert "<html" in page.read_text()


def test_inputs_states_and_masks_may_stand_in_the_recording(
    refrnn_command: Callable[..., Ran], recorded: Bench
) -> None:
    rng = np.random.default_rng(1)
    h0, c0 = (rng.normal(size=(2, 6)).astype("f") for _ in range(2))
    mask = np.arange(12) < [[12], [5]]
    layer = recorded.model.get_layer("first")
    y = layer(recorded.x, initial_state=[h0, c0], mask=mask)
    path = recorded.folder / "all.npz"
    np.savez(path, x=recorded.x, y=y, h0=h0, c0=c0, mask=mask)
    assert refrnn_command("verify", recorded.file, "--against", path)[0] == AGREES
    np.savez(path, x=recorded.x, y=y, h0=h0, mask=mask)
    status, _, err = refrnn_command("verify", recorded.file, "--against", path)
    assert (status, "has h0 of a first state, expected c0 and h0 or none" in err) == (
        UNJUDGED,
        True,
    )
    np.savez(path, x=recorded.x, y=y, h0=h0, c0=c0)
    assert refrnn_command("verify", recorded.file, "--against", path)[0] == DIFFERS


def test_a_state_that_the_layer_has_not_is_refused(
    refrnn_command: Callable[..., Ran], recorded: Bench
) -> None:
    gru = refrnn.Sequential([layers.Input((None, 3)), layers.GRU(6, return_sequences=True)])
    file = recorded.folder / "gru.keras"
    gru.save(file)
    path, zeros = recorded.folder / "all.npz", np.zeros((2, 6), np.float32)
    np.savez(path, x=recorded.x, y=gru(recorded.x), h0=zeros, c0=zeros)
    status, _, err = refrnn_command("verify", file, "--against", path)
    assert (status, "has c0 and h0 of a first state, expected h0 or none" in err) == (
        UNJUDGED,
        True,
    )
    np.savez(path, x=recorded.x, y=gru(recorded.x), h0=zeros)
    assert refrnn_command("verify", file, "--against", path)[0] == AGREES


def test_one_layer_of_a_model_is_judged_by_name_and_the_whole_by_a_tolerance(
    refrnn_command: Callable[..., Ran], recorded: Bench
) -> None:
    seen = recorded.save("y.npy", recorded.y)
    whole = recorded.save("whole.npy", recorded.deep_y)
    given = ("--input", recorded.input, "--against")
    assert refrnn_command("verify", recorded.deep, "--layer", "first", *given, seen)[0] == AGREES
    status, out, _ = refrnn_command("verify", recorded.deep, *given, whole)
    assert (status, "of 1e-05" in out) == (AGREES, True)
    wrong = recorded.save("wrong.npy", recorded.deep_y + 1e-3)
    assert refrnn_command("verify", recorded.deep, *given, wrong)[0] == DIFFERS


def test_explain_names_the_order_of_gates(
    refrnn_command: Callable[..., Ran], recorded: Bench
) -> None:
    seen = recorded.save("y.npy", recorded.outputs_in_onnx_order())
    status, out, _ = refrnn_command("explain", recorded.file, recorded.input, seen)
    assert (status, "ONNX order" in out.splitlines()[0]) == (DIFFERS, True)
    assert (
        refrnn_command(
            "explain", recorded.file, recorded.input, recorded.save("r.npy", recorded.y)
        )[0]
        == AGREES
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "--against", "y.npy"], "--against y.npy: expected with MODEL"),
        (["verify", "one.keras", "--layer", "a"], "--layer a: expected with MODEL and --against"),
        (["verify", "one.keras", "--html", "p"], "--html p: expected with MODEL and --against"),
        (["verify", "one.keras", "--against", "none.npy"], "none.npy: No such file"),
        (["verify", "one.keras", "--against", "y.npy", "--chunks", "7"],
         "--chunks 7: expected without --against FILE"),
        (["verify", "one.keras", "--against", "y.npy", "--device", "cpu"],
         "--device cpu: expected where TensorFlow alone is asked"),
        (["verify", "one.keras", "--against", "y.npy"], "y.npy: arrays are [], expected x"),
        (["verify", "one.keras", "--input", "x.npy", "--against", "one.keras"],
         "expected arrays of numbers"),
        (["verify", "one.keras", "--input", "x.npy", "--against", "x.npy"],
         "y has shape (2, 12, 3)"),
        (["verify", "one.keras", "--input", "x.npy", "--against", "bfloat16.npy"],
         "holds y of |V2, expected arrays of numbers, y first; store bfloat16 as float32"),
        (["explain", "deep.keras", "x.npy", "y.npy"], "--layer: first, last"),
        (["explain", "deep.keras", "x.npy", "y.npy", "--layer", "b"], "'b'"),
        (["grade", "none.npz"], "none.npz: cannot be read"),
        (["grade", "y.npy"], "y.npy"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_said_in_one_line(
    refrnn_command: Callable[..., Ran],
    recorded: Bench,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded.save("y.npy", recorded.y)
    recorded.save("bfloat16.npy", recorded.y.astype(ml_dtypes.bfloat16))
    monkeypatch.chdir(recorded.folder)
    status, out, err = refrnn_command(*arguments)
    assert (status, out) == (UNJUDGED, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_recordings_are_judged_without_tensorflow(recorded: Bench) -> None:
    seen = recorded.save("y.npy", recorded.y)
    code = (
        "import sys; from refrnn.cli import main;"
        f"assert main(['verify', {str(recorded.file)!r}, '--input', {str(recorded.input)!r},"
        f" '--against', {str(seen)!r}]) == 0;"
        " assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_whole_model_that_cannot_be_compared_is_written_as_json(
    refrnn_command: Callable[..., Ran], recorded: Bench
) -> None:
    """JSON has no infinity, which is the difference of outputs of another shape."""
    seen, report = recorded.save("y.npy", recorded.deep_y[:, :3]), recorded.folder / "r.json"
    status, _, _ = refrnn_command(
        "verify", recorded.deep, "--input", recorded.input, "--against", seen, "--json", report
    )
    assert status == DIFFERS
    assert json.loads(report.read_text())["rows"][0]["whole"] is None
