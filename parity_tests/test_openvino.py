"""A model of OpenVINO gives the CPU plugin's numbers, or is refused by layer and attribute.

No file, however damaged, makes more of itself than a FileError.
"""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from damage import damaged
from others import needs
from test_onnx import assert_gives, recorded, stem

from refrnn import layers
from refrnn.files import FileError, foreign, inspect, load_model
from refrnn.oracles import openvino_file

FIXTURES = Path(__file__).parent / "fixtures" / "openvino"
READ = sorted(p for p in FIXTURES.glob("*.xml") if not p.name.startswith("refused_"))
LSTM = FIXTURES / "torch_lstm.xml"


def altered(tmp_path: Path, old: str, new: str, source: Path = LSTM) -> Path:
    """A copy of a model in whose .xml a text is exchanged, wherever it is."""
    text = source.read_text()
    assert old in text
    path = tmp_path / "m.xml"
    path.write_text(text.replace(old, new))
    shutil.copy(source.with_suffix(".bin"), path.with_suffix(".bin"))
    return path


# --- numbers ---


@pytest.mark.parametrize("path", READ, ids=stem)
def test_a_model_gives_the_numbers_of_openvino(path: Path) -> None:
    assert_gives(foreign.load(path), *recorded(path))


@pytest.mark.others
@pytest.mark.parametrize("path", READ, ids=stem)
def test_the_stored_numbers_are_those_of_openvino_here(path: Path) -> None:
    needs("openvino")
    given, wanted = recorded(path)
    found = openvino_file.run(path, given)
    assert found.keys() == wanted.keys()
    for name, array in found.items():
        # one build may sum in another order than the one that wrote them; outputs below 2
        np.testing.assert_allclose(array, wanted[name], rtol=0, atol=1e-6)


def test_the_layers_are_those_of_the_module() -> None:
    kinds = [type(layer) for layer in load_model(LSTM).layers]
    assert kinds == [layers.LSTM, layers.Dense, layers.Activation]
    found = inspect(FIXTURES / "torch_gru_bidirectional.xml")
    assert found.runs
    assert found.writer.startswith("OpenVINO 2026.4.1")
    assert [row.kind for row in found.layers] == [
        "Bidirectional", "Concatenate", "Dense", "Activation",
    ]  # fmt: skip


def test_weights_in_half_precision_are_those_numbers_in_float32() -> None:
    model = load_model(FIXTURES / "torch_lstm_half.xml")
    for array in model.get_weights():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, array.astype(np.float16).astype(np.float32))


def test_a_planted_exchange_of_weights_gives_other_numbers(tmp_path: Path) -> None:
    """The constants W and R of the LSTM are (1, 16, 3) and (1, 16, 4); two gates of W exchanged."""
    path = altered(tmp_path, 'version="11"', 'version="11"')
    where = re.search(r'shape="1, 16, 3" offset="(\d+)"', LSTM.read_text())
    assert where is not None
    data, at = bytearray(path.with_suffix(".bin").read_bytes()), int(where[1])
    size = 4 * 4 * 3
    data[at : at + 2 * size] = data[at + size : at + 2 * size] + data[at : at + size]
    path.with_suffix(".bin").write_bytes(data)
    given, wanted = recorded(LSTM)
    y = load_model(path)(given["x"])
    assert max(np.abs(y - array).max() for array in wanted.values()) > 1e-3


# --- what is refused ---


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lengths", r"node .* \(LSTMSequence\): has sequence_lens"),
        ("clip", r"node .* \(LSTMSequence\): .*the sums are clipped to 0\.5"),
        ("loop", r"node .* \(Loop\): is a loop, expected LSTMSequence"),
    ],
)
def test_what_no_layer_is_is_refused_by_layer(name: str, message: str) -> None:
    path = FIXTURES / f"refused_{name}.xml"
    with pytest.raises(FileError, match=message) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: ")
    found = inspect(path)
    assert not found.runs
    assert any(re.search(r"\(L", problem.where + problem.what) for problem in found.problems)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('version="11"', 'version="7"', "version '7', expected <net> of 10 or 11"),
        ("<?xml version=\"1.0\"?>", '<!DOCTYPE a [<!ENTITY b "c">]>', "DOCTYPE or an entity"),
        ('direction="forward"', 'direction="sideways"', "direction is 'sideways'"),
        ('activations="sigmoid, tanh, tanh"', 'activations="sigmoid, tanh, relu"', "activations"),
        ('clip="0"', 'clip="3"', "clipped to 3"),
        ('clip="0"', 'clip="0" more="1"', "the attribute 'more', expected none such"),
        ('type="LSTMSequence"', 'type="LSTMCell"', r"\(LSTMCell\): is not of refrnn's"),
        ('type="Sigmoid"', 'type="ReadValue"', r"\(ReadValue\): keeps a value"),
        ('transpose_a="false"', 'transpose_a="true"', "transpose_a is true"),
        ('element_type="f32" shape="1, 16, 3"', 'element_type="f32" shape="1, 16, 9"', "bytes for"),
        ('element_type="f32" shape="1, 16, 3"', 'element_type="u4" shape="1, 16, 3"', "'u4'"),
        ('from-layer="0"', 'from-layer="999"', "has the edge"),
        ("</net>", "", "is no XML"),
    ],
)  # fmt: skip
def test_other_settings_are_refused_by_name(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(FileError, match=message):
        load_model(altered(tmp_path, old, new))


def test_weights_that_are_missing_or_cut_off_are_said(tmp_path: Path) -> None:
    path = altered(tmp_path, "net", "net")
    weights = path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(FileError, match=r"expected them within the \d+ of .bin"):
        load_model(path)
    weights.unlink()
    with pytest.raises(FileError, match=r"has weights in 'm.bin', expected it beside"):
        load_model(path)


def test_layers_in_a_circle_are_refused(tmp_path: Path) -> None:
    edge = re.search(r'<edge from-layer="(\d+)" from-port="(\d+)" to-layer="(\d+)"',
                     LSTM.read_text())  # fmt: skip
    assert edge is not None
    path = altered(tmp_path, edge[0], edge[0].replace(f'from-layer="{edge[1]}"', "from-layer='3'"))
    with pytest.raises(FileError, match=r"circle|has the edge"):
        load_model(path)


def test_elements_too_deep_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.xml"
    path.write_text("<a>" * 100_000)
    with pytest.raises(FileError, match="32 deep"):
        load_model(path)


@pytest.mark.parametrize("name", ["torch_lstm", "torch_gru_bidirectional", "torch_lstm_half"])
def test_damage_is_a_file_error(name: str, tmp_path: Path) -> None:
    source, path, refused = FIXTURES / f"{name}.xml", tmp_path / "m.xml", 0
    shutil.copy(source.with_suffix(".bin"), path.with_suffix(".bin"))
    for made in damaged(source.read_bytes(), 120):
        path.write_bytes(made)
        try:
            load_model(path)
        except FileError:
            refused += 1
    assert refused > 40
