"""A fused LSTM of TFLite gives the interpreter's numbers; what it has beyond a layer is said.

What has no fused LSTM, or numbers of 8 bits, is refused by operator; a damaged file by FileError.
"""

import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import damaged

from refrnn import layers
from refrnn.files import FileError, foreign, inspect, load_model
from refrnn.files.tflite import schema
from refrnn.oracles import tflite_file

FIXTURES = Path(__file__).parent / "fixtures" / "tflite"
RECORDED = sorted(p.with_suffix(".tflite") for p in FIXTURES.glob("*.npz"))
UNCLIPPED = [p for p in RECORDED if p.stem != "clipped"]
# float32: two libraries that sum a dozen terms, and compute exp, in other orders; outputs below 10.
TOLERANCE = 2e-6


def stem(path: Path) -> str:
    return path.stem


def recorded(path: Path) -> dict[str, Any]:
    """in, out and again: the one array of each, as the file has its axes."""
    with np.load(path.with_suffix(".npz")) as arrays:
        return {name.partition("_")[0]: arrays[name] for name in arrays}


@pytest.mark.parametrize("path", UNCLIPPED, ids=stem)
def test_a_model_gives_the_numbers_of_the_interpreter(path: Path) -> None:
    found, arrays = foreign.load(path), recorded(path)
    [given] = found.inputs[0].arrays(arrays["in"])
    [wanted] = found.outputs[0].arrays(arrays["out"])
    got = found.model(given)
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=TOLERANCE)
    assert not np.allclose(wanted, wanted.reshape(-1)[0])  # the case could show a difference


@pytest.mark.filterwarnings("ignore:[\\s\\S]*tf.lite.Interpreter is deprecated:UserWarning")
def test_a_model_converted_here_gives_the_numbers_of_the_interpreter_here(
    tf: Any, tmp_path: Path
) -> None:
    tf_keras = pytest.importorskip("tf_keras")
    first = tf_keras.layers.Input((4, 2), batch_size=1)
    model = tf_keras.Sequential([first, tf_keras.layers.LSTM(3), tf_keras.layers.Dense(2)])
    draw = np.random.default_rng(0)
    model.set_weights([draw.normal(size=w.shape) for w in model.get_weights()])
    path = tmp_path / "m.tflite"
    path.write_bytes(tf.tf.lite.TFLiteConverter.from_keras_model(model).convert())
    x = draw.normal(size=(1, 4, 2)).astype(np.float32)
    [wanted] = tflite_file.run(path, {foreign.load(path).inputs[0].name: x}).values()
    np.testing.assert_allclose(load_model(path)(x), wanted, rtol=0, atol=TOLERANCE)


# --- what TFLite's LSTM has beyond a layer's ---


def said(path: Path) -> list[str]:
    return [f"{word}: {text}" for word, text in foreign.load(path).remarks()]


def test_the_state_stays_in_the_model_there_and_that_is_said() -> None:
    path = FIXTURES / "two_lstms_any_length.tflite"
    arrays, model = recorded(path), foreign.load(path).model
    assert np.abs(arrays["again"] - arrays["out"]).max() > 1e-3
    twice = model(np.concatenate([arrays["in"], arrays["in"]], axis=1))
    np.testing.assert_allclose(twice, arrays["again"], rtol=0, atol=TOLERANCE)
    lasting = [line for line in said(path) if line.startswith("lasting")]
    assert len(lasting) == 2
    assert "reset_all_variables()" in lasting[0]


def test_a_bound_of_the_cell_state_that_may_be_reached_is_warned_of() -> None:
    path = FIXTURES / "clipped.tflite"
    arrays = recorded(path)
    with pytest.warns(UserWarning, match="cell_clip is 10 and is left out") as caught:
        model = load_model(path)
    assert caught[0].filename == __file__
    y = model(arrays["in"])
    below = 9  # c is 0.9999 after a step, and so on: at step 10 it is still below 10
    np.testing.assert_allclose(y[:, :below], arrays["out"][:, :below], rtol=0, atol=TOLERANCE)
    assert np.abs(y - arrays["out"]).max() > 0.5  # the difference that is warned of


def test_a_bound_that_so_few_steps_cannot_reach_is_not_warned_of() -> None:
    path = FIXTURES / "lstm_dense.tflite"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_model(path)
    assert not [line for line in said(path) if line.startswith("differs")]


def test_a_model_that_goes_time_first_has_the_batch_first_here() -> None:
    found = foreign.load(FIXTURES / "time_major.tflite")
    assert found.inputs[0].axes == found.outputs[0].axes == (1, 0, 2)


def test_the_layers_are_those_of_the_keras_model() -> None:
    kinds = [type(layer) for layer in load_model(FIXTURES / "lstm_dense.tflite").layers]
    assert kinds == [layers.LSTM, layers.Dense]
    lstm = load_model(FIXTURES / "backwards.tflite").layers[0]
    assert isinstance(lstm, layers.LSTM)
    assert (lstm.go_backwards, lstm.return_sequences) == (True, False)


# --- what is refused ---


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("int8", r"\(UNIDIRECTIONAL_SEQUENCE_LSTM\): 'tfl.pseudo_qconst' is int8, quantized"),
        ("gru", r"\(WHILE\): is a loop, into which the converter turns"),
        ("keras3", r"\(WHILE\): is a loop.*load the Keras model"),
        ("unrolled", r"\(UNPACK\): is not of refrnn's, expected one of ADD, CAST"),
    ],
)
def test_what_has_no_fused_lstm_is_refused_by_operator(name: str, message: str) -> None:
    path = FIXTURES / f"refused_{name}.tflite"
    with pytest.raises(FileError, match=message) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: node ")
    found = inspect(path)
    assert not found.runs
    assert any("UNI" in row.kind or "UNPACK" in row.kind or "WHILE" in row.kind
               for row in found.layers)  # fmt: skip


def patched(path: Path, tmp_path: Path, change: Any) -> Path:
    """A file whose first LSTM's operator `change` has altered in place."""
    data = bytearray(path.read_bytes())
    model = schema.Buffer(bytes(data)).root()
    [operator] = [
        one
        for one in model.tables(2)[0].tables(3)
        if model.tables(1)[one.number(0, "I")].number(3, "i") == 44
    ]
    change(data, operator)
    out = tmp_path / "m.tflite"
    out.write_bytes(data)
    return out


def slot(operator: Any, k: int) -> int:
    """Where the number of input `k` is."""
    return int(operator._pointed(1)) + 4 + 4 * k


def swap(a: int, b: int) -> Any:
    def change(data: bytearray, operator: Any) -> None:
        one, other = slot(operator, a), slot(operator, b)
        first, second = data[one : one + 4], data[other : other + 4]
        data[one : one + 4], data[other : other + 4] = second, first

    return change


def put(k: int, number: int) -> Any:
    def change(data: bytearray, operator: Any) -> None:
        struct.pack_into("<i", data, slot(operator, k), number)

    return change


def copy(source: int, *targets: int) -> Any:
    def change(data: bytearray, operator: Any) -> None:
        one = slot(operator, source)
        for other in (slot(operator, k) for k in targets):
            data[other : other + 4] = data[one : one + 4]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(1, -1), "has no input_to_input_weights"),
        (copy(12, 20), "has input_layer_norm_coefficients, expected none"),
        (copy(12, 9, 10, 11), "peepholes"),
        (copy(5, 16), "project"),
        (put(5, 0), "recurrent_to_input_weights is computed"),
        (put(5, 10**6), r"operator \d+: has tensor 1000000"),
        (put(0, -1), "has an input that is not of 3 axes"),
        (put(18, -1), "has no output_state"),
    ],
)
def test_inputs_that_no_layer_has_are_refused_by_name(
    change: Any, message: str, tmp_path: Path
) -> None:
    path = patched(FIXTURES / "lstm_dense.tflite", tmp_path, change)
    with pytest.raises(FileError, match=message):
        load_model(path)


def test_the_order_of_the_gates_is_that_of_the_interpreter(tmp_path: Path) -> None:
    """A planted bug: the weights of i and f exchanged give other numbers."""
    path = patched(FIXTURES / "lstm_dense.tflite", tmp_path, swap(1, 2))
    arrays = recorded(FIXTURES / "lstm_dense.tflite")
    assert np.abs(load_model(path)(arrays["in"]) - arrays["out"]).max() > 1e-3


@pytest.mark.filterwarnings("ignore:.*cell_clip:UserWarning")
@pytest.mark.parametrize("name", ["lstm_dense", "bidirectional", "float16", "refused_gru"])
def test_damage_is_a_file_error(name: str, tmp_path: Path) -> None:
    data, path = (FIXTURES / f"{name}.tflite").read_bytes(), tmp_path / "m.tflite"
    refused = 0
    for made in damaged(data, 150):
        path.write_bytes(made)
        try:
            load_model(path)
        except FileError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("data", [b"", b"TFL3", bytes(8), b"\x08\0\0\0TFL3", bytes(4) + b"TFL3"])
def test_what_is_no_tflite_file_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(data)
    with pytest.raises(FileError, match=r"TFL3|damaged"):
        load_model(path)
