"""A model of ONNX gives ONNX Runtime's numbers, both ways, or is refused by node and attribute.

No attribute is ignored, and no file, however damaged, makes more of itself than a FileError.
"""

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refrnn
from refrnn import layers
from refrnn.files import FileError, inspect, load_model
from refrnn.files.graphs import importer
from refrnn.files.onnx import Imported, load, messages, wire

FIXTURES = Path(__file__).parent / "fixtures" / "onnx"
READ = sorted(p for p in FIXTURES.glob("*.onnx") if not p.name.startswith("refused_"))
# float32: two libraries that sum a dozen terms, and compute exp, in other orders; outputs below 2.
# Measured against ONNX Runtime 1.31: at most 2.4e-7.
TOLERANCE = 1e-6


def stem(path: Path) -> str:
    return path.stem


def flat(found: Any) -> list[Any]:
    return list(found) if isinstance(found, list | tuple) else [found]


def outputs_of(found: Imported, given: dict[str, Any]) -> list[Any]:
    arrays = [a for end in found.inputs for a in end.arrays(given[end.name])]
    return flat(found.model(arrays if len(arrays) > 1 else arrays[0]))


def assert_gives(found: Imported, given: dict[str, Any], wanted: dict[str, Any]) -> None:
    got = outputs_of(found, given)
    want = [a for end in found.outputs for a in end.arrays(wanted[end.name])]
    assert len(got) == len(want) > 0
    for a, b in zip(got, want, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE)


def recorded(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with np.load(path.with_suffix(".npz")) as arrays:
        given = {n.removeprefix("in_"): arrays[n] for n in arrays if n.startswith("in_")}
        return given, {n.removeprefix("out_"): arrays[n] for n in arrays if n.startswith("out_")}


# --- reading ---


@pytest.mark.parametrize("path", READ, ids=stem)
def test_a_model_gives_the_numbers_of_onnx_runtime(path: Path) -> None:
    assert_gives(load(path), *recorded(path))


def test_load_model_reads_onnx_and_the_batch_is_first() -> None:
    path = FIXTURES / "torch_gru_time_first.onnx"
    given, wanted = recorded(path)
    y = load_model(path)(given["x"].swapaxes(0, 1))
    np.testing.assert_allclose(y, wanted["y"].swapaxes(0, 1), rtol=0, atol=TOLERANCE)
    assert load(path).inputs[0].axes == (1, 0, 2)
    assert load(FIXTURES / "torch_gru_step.onnx").inputs[0].axes == (0, 1, 2)


def test_what_is_computed_anew_is_said() -> None:
    said = load(FIXTURES / "lstm_input_forget.onnx").inexact
    assert any("input_forget" in line for line in said)
    assert any("Wb + Rb" in line for line in said)
    assert load(FIXTURES / "gru_linear_before_reset.onnx").inexact == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clip", r"node 'refused_clip' \(LSTM\).*clipped to 0\.5"),
        ("peepholes", r"node 'refused_peepholes' \(LSTM\).*peepholes"),
        ("sequence_lens", r"node 'refused_sequence_lens' \(GRU\).*sequence_lens"),
        ("activations", r"node 'refused_activations' \(LSTM\).*\['Sigmoid', 'Tanh', 'Relu'\]"),
        ("affine", r"node 'refused_affine' \(RNN\).*'Affine'"),
        ("opset", "opset 13, expected 14"),
        ("last_step", r"\(Gather\): takes entry -1"),
    ],
)
def test_what_no_layer_is_is_refused_by_node_and_attribute(name: str, message: str) -> None:
    with pytest.raises(FileError, match=message) as caught:
        load_model(FIXTURES / f"refused_{name}.onnx")
    assert f"refused_{name}.onnx: " in str(caught.value)


# --- what inspect says ---


def test_inspect_names_the_layers_and_what_is_not_as_in_the_file() -> None:
    found = inspect(FIXTURES / "torch_gru_time_first.onnx")
    assert found.runs
    assert (found.format, found.writer) == ("ONNX, opset 17", "pytorch 2.13.0")
    assert [row.kind for row in found.layers] == ["GRU", "Activation", "Dense", "Activation"]
    assert found.inputs[0].shape == (None, None, 3)
    assert found.outputs[0].shape == (None, None, 2)
    assert found.parameters == sum(row.parameters or 0 for row in found.layers) == 118
    assert [line.partition(":")[0] for line in found.remarks] == ["turned", "turned"]
    assert "not the same  turned: input 'x'" in str(found)
    json.loads(found.to_json())


def test_inspect_says_why_a_graph_cannot_be_run() -> None:
    found = inspect(FIXTURES / "refused_affine.onnx")
    assert not found.runs
    [problem] = found.problems
    assert re.search(r"node 'refused_affine' \(RNN\).*'Affine'", problem.what)
    assert [row.kind for row in found.layers] == ["RNN"]


def test_inspect_names_every_operation_that_there_is_not(tmp_path: Path) -> None:
    nodes = [messages.node(op, ["X"], [f"{op}_{k}"]) for k in range(2) for op in ("Foo", "Bar")]
    path = built(tmp_path, *nodes, out=("Foo_0",))
    found = inspect(path)
    assert [problem.where for problem in found.problems] == [
        "node 'Foo_0' (Foo)", "node 'Bar_0' (Bar)",
    ]  # fmt: skip
    path.write_bytes(b"x")
    with pytest.raises(FileError, match=r"m.onnx: "):
        inspect(path)


F, H = 3, 4
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def built(
    tmp_path: Path,
    *nodes: bytes,
    x: Any = ("time", "batch", F),
    out: tuple[str, ...] = ("Y",),
    constants: dict[str, Any] | None = None,
    name: str = "m.onnx",
) -> Path:
    """A file of these nodes on the input X."""
    inputs = [messages.value("X", "float32", x)]
    outputs = [messages.value(one, "float32", ()) for one in out]
    tensors = [messages.tensor(n, np.asarray(a)) for n, a in (constants or {}).items()]
    path = tmp_path / name
    path.write_bytes(messages.model("m", nodes, inputs, outputs, tensors))
    return path


def weights(op: str, directions: int = 1, **more: Any) -> dict[str, Any]:
    draw, G = np.random.default_rng(1), GATES[op]
    shapes = {"W": (directions, G * H, F), "R": (directions, G * H, H)}
    arrays = {n: draw.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    return arrays | {n: np.asarray(a) for n, a in more.items()}


def single(op: str, inputs: str = "X W R", **attributes: Any) -> bytes:
    names = [n.replace("-", "") for n in inputs.split()]
    return messages.node(op, names, ["Y", "Y_h"], {"hidden_size": H, **attributes}, "the node")


@pytest.mark.parametrize(
    ("op", "attributes", "message"),
    [
        ("LSTM", {"cell_clip": 1.0}, "'cell_clip'"),
        ("LSTM", {"linear_before_reset": 1}, "'linear_before_reset'"),
        ("GRU", {"input_forget": 1}, "'input_forget'"),
        ("GRU", {"output_sequence": 1}, "'output_sequence'"),
        ("LSTM", {"clip": 0.0}, "clip is 0"),
        ("GRU", {"clip": 3.0}, "clipped to 3.0"),
        ("RNN", {"clip": 3.0}, "clipped to 3.0"),
        ("LSTM", {"layout": 2}, "layout is 2"),
        ("LSTM", {"direction": "sideways"}, "direction is 'sideways'"),
        ("LSTM", {"direction": "bidirectional"}, "bidirectional"),
        ("LSTM", {"hidden_size": 5}, "hidden_size"),
        ("GRU", {"activations": ["Tanh"]}, "['Tanh']"),
        ("GRU", {"activations": ["Sigmoid", "Elu"]}, "'Elu'"),
        ("RNN", {"activations": ["LeakyRelu"], "activation_alpha": [0.1]}, "'LeakyRelu'"),
        ("RNN", {"activations": ["Tanh"], "activation_alpha": [0.1]}, "activation_alpha"),
        (
            "LSTM",
            {"activations": ["HardSigmoid", "Tanh", "Tanh"], "activation_alpha": [0.3]},
            "0.3",
        ),
    ],
)
def test_no_attribute_is_ignored(
    op: str, attributes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    turn = messages.node("Transpose", ["A"], ["X"], {"perm": [1, 0, 2]})
    node = single(op, **attributes)
    inputs = [messages.value("A", "float32", ("batch", "time", F))]
    tensors = [messages.tensor(n, a) for n, a in weights(op).items()]
    path = tmp_path / "m.onnx"
    path.write_bytes(
        messages.model("m", [turn, node], inputs, [messages.value("Y", "float32", ())], tensors)
    )
    with pytest.raises(FileError) as caught:
        load(path)
    assert message in str(caught.value), caught.value
    assert f"node 'the node' ({op})" in str(caught.value)


@pytest.mark.parametrize("op", GATES)
def test_the_batch_first_layout_is_the_same_model(op: str, tmp_path: Path) -> None:
    first = built(tmp_path, single(op), constants=weights(op))
    second = built(
        tmp_path, single(op, layout=1), constants=weights(op), x=("b", "t", F), name="n.onnx"
    )
    x = np.random.default_rng(2).normal(size=(2, 5, F)).astype(np.float32)
    a, b = load(first), load(second)
    assert (a.outputs[0].axes, b.outputs[0].axes) == ((1, -1, 0, 2), (0, 1, -1, 2))
    assert flat(a.model(x))[0].tobytes() == flat(b.model(x))[0].tobytes()


def test_states_that_are_not_inputs_or_zeros_are_refused(tmp_path: Path) -> None:
    node = single("GRU", "X W R - - h")
    zeros, ones = np.zeros((1, 2, H), np.float32), np.ones((1, 2, H), np.float32)
    load(built(tmp_path, node, constants=weights("GRU", h=zeros)))
    with pytest.raises(FileError, match="initial_h is a constant that is not zero"):
        load(built(tmp_path, node, constants=weights("GRU", h=ones)))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (messages.node("Loop", ["X"], ["Y"], name="a"), "(Loop): is not of refrnn's"),
        (messages.node("Erf", ["X"], ["Y"], name="a"), "(Erf): is not of refrnn's"),
        (messages.node("bad\nname" * 200, ["X"], ["Y"], name="a"), "is not of refrnn's"),
        (messages.node("Relu", ["Z"], ["Y"], name="a"), "'Z' is not there"),
        (messages.node("Relu", [], ["Y"], name="a"), "has inputs []"),
        (messages.node("Relu", [""], ["Y"], name="a"), "has inputs ['']"),
        (messages.node("Relu", ["X"], [], name="a"), "(Relu): has no outputs"),
        (messages.node("Relu", ["X"], ["Y"], {"alpha": 1.0}, "a"), "'alpha'"),
        (messages.node("Relu", ["X", "X"], ["Y"], name="a"), "expected 1 to 1"),
        (messages.node("Dropout", ["X"], ["Q", "Y"], name="a"), "output 'Y' is used"),
        (messages.node("Softmax", ["X"], ["Y"], {"axis": 1}, "a"), "axis is 1"),
        (messages.node("Softmax", ["X"], ["Y"], {"axis": 7}, "a"), "has axis 7"),
        (messages.node("HardSigmoid", ["X"], ["Y"], {"alpha": 0.5}, "a"), "alpha and beta"),
        (messages.node("Transpose", ["X"], ["Y"], {"perm": [0, 0, 2]}, "a"), "has perm"),
        (messages.node("MatMul", ["X", "X"], ["Y"], name="a"), "multiplies two arrays"),
        (messages.node("MatMul", ["X", "K"], ["Y"], name="a"), "Dense 'a'"),
        (messages.node("Gemm", ["X", "W3"], ["Y"], {"alpha": 2.0}, "a"), "alpha is 2.0"),
        (messages.node("Gemm", ["X", "W3"], ["Y"], {"transA": 1}, "a"), "transA is 1"),
        (messages.node("Gemm", ["X", "W3", "K"], ["Y"], name="a"), "a number for each unit"),
        (messages.node("Gemm", ["X", "W3", "C"], ["Y"], name="a"), "a number for each unit"),
        (messages.node("Add", ["X", "K"], ["Y"], name="a"), "has a constant"),
        (messages.node("Concat", ["X", "K"], ["Y"], {"axis": 0}, "a"), "has a constant"),
        (messages.node("Reshape", ["X", "S"], ["Y"], name="a"), "the batch first and kept"),
        (messages.node("Squeeze", ["X", "S"], ["Y"], name="a"), "has axis 6"),
        (messages.node("Cast", ["X"], ["Y"], {"to": 11}, "a"), "to float64"),
        (messages.node("Gather", ["K", "X"], ["Y"], {"axis": 1}, "a"), "on axis 1"),
        (messages.node("Flatten", ["X"], ["Y"], {"axis": 2}, "a"), "has axis 2"),
        (messages.node("Expand", ["K", "S"], ["Y"], name="a"), "(Expand): shape: "),
        (messages.node("Identity", ["K"], ["Y"], name="a"), "not computed from the inputs"),
        (messages.node("Constant", [], ["Y"], name="a"), "expected one"),
        (messages.node("LSTM", ["X", "K"], ["Y"], name="a"), "has inputs"),
        (messages.node("LSTM", ["X", "X", "X"], ["Y"], name="a"), "node 'a' (LSTM): W is computed"),
        (messages.node("LSTM", ["X", "K", "K"], ["Y"], name="a"), "node 'a' (LSTM)"),
    ],
)
def test_a_node_that_refrnn_has_not_is_refused_by_name(
    node: bytes, message: str, tmp_path: Path
) -> None:
    constants = {"K": np.ones((2, 2), np.float32), "W3": np.ones((F, 2), np.float32),
                 "S": np.array([6, -1]), "C": np.ones((2, 1), np.float32)}  # fmt: skip
    with pytest.raises(FileError) as caught:
        load(built(tmp_path, node, constants=constants, x=("b", 5, F)))
    assert message in str(caught.value)
    assert len(str(caught.value)) < 2000


# --- hostile files ---


def test_another_domain_and_functions_are_refused(tmp_path: Path) -> None:
    foreign = messages.node("LSTM", ["X"], ["Y"], name="a") + wire.field(7, "com.microsoft")
    with pytest.raises(FileError, match=r"'a' is LSTM of 'com\.microsoft'"):
        load(built(tmp_path, foreign))
    path = built(tmp_path, messages.node("Relu", ["X"], ["Y"]))
    path.write_bytes(path.read_bytes() + wire.field(25, b""))
    with pytest.raises(FileError, match="1 functions of its own"):
        load(path)
    with pytest.raises(FileError, match="'Y' twice"):
        load(built(tmp_path, *[messages.node("Relu", ["X"], ["Y"])] * 2))


def test_an_attribute_that_holds_a_graph_is_refused(tmp_path: Path) -> None:
    inner = wire.message((1, "body"), (6, b"\x0a\x00"), (20, 5))
    node = messages.node("Relu", ["X"], ["Y"], name="a") + wire.field(5, inner)
    with pytest.raises(FileError, match="'body': holds a graph"):
        load(built(tmp_path, node))


def outside(tmp_path: Path, **entries: str) -> Path:
    """A model whose one matrix is in another file."""
    told = [(13, wire.message((1, k), (2, v))) for k, v in entries.items()]
    tensor = wire.message((1, F), (1, 2), (2, 1), (8, "K"), *told, (14, 1))
    node = messages.node("MatMul", ["X", "K"], ["Y"])
    value = [messages.value(n, "float32", ("b", F)) for n in "XY"]
    path = tmp_path / "m.onnx"
    path.write_bytes(messages.model("m", [node], value[:1], value[1:], [tensor]))
    return path


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "../w.data"}, "expected a plain name"),
        ({"location": "/etc/passwd"}, "expected a plain name"),
        ({"location": "a\\w.data"}, "expected a plain name"),
        ({"location": ""}, "expected a plain name"),
        ({"location": ".."}, "expected a plain name"),
        ({"location": "none.data", "length": "24"}, "No such file"),
        ({"location": "w.data"}, "whole numbers"),
        ({"location": "w.data", "length": "-1"}, "whole numbers"),
        ({"location": "w.data", "length": "24", "offset": "1"}, "has 24 bytes, expected 24 from 1"),
        ({"location": "w.data", "length": "9" * 19}, "has 24 bytes"),
        ({"location": "w.data", "length": "20"}, "has 20 bytes, expected those of [3, 2]"),
        ({"location": "folder", "length": "24"}, "is a folder"),
        ({"location": "pipe", "length": "24"}, "device or pipe"),
    ],
)
def test_weights_are_read_from_the_models_folder_only(
    entries: dict[str, str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "w.data").write_bytes(b"\0" * 24)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    load(outside(tmp_path, location="w.data", length="24"))
    with pytest.raises(FileError) as caught:
        load(outside(tmp_path, **entries))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no graph"),
        (b"hello", ""),
        (b"\x3a\xff\xff\xff\xff\x7f", "cut off"),
        (b"\x80" * 20, "no protobuf"),
        (b"\x0b", "wire type 3"),
        (b"\x3d\0\0\0\0", "graph has wire type 5"),
        (wire.message((7, wire.message((12, b"")))), "opset 0"),
        (wire.message((7, wire.message((2, b"\xff")))), "utf-8"),
        (wire.field(8, b"") * (wire.MAX_PARTS + 1), "more than 1000000 parts"),
    ],
)
def test_what_is_no_model_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(FileError) as caught:
        load_model(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ([(1, 3), (2, 1), (9, b"\0" * 11)], "has 11 bytes"),
        ([(1, -3), (2, 1), (9, b"\0" * 12)], "has shape [-3]"),
        ([(1, 2**40), (1, 2**40), (2, 1), (9, b"\0" * 12)], "has 12 bytes"),
        ([(1, 3), (2, 8), (9, b"abc")], "has type 8"),
        ([(1, 3), (2, 1), (4, b"\0" * 8)], "has 2 numbers"),
        ([(1, 3), (2, 1), (4, b"\0" * 7)], "a multiple of 4"),
        ([(1, 1), (2, 3), (5, b"\xff\x7f")], "numbers"),
        ([(1, 1), (2, 1), (3, b"\0")], "in one piece"),
    ],
)
def test_a_tensor_that_is_not_all_there_is_refused(
    changed: list[tuple[int, Any]], message: str, tmp_path: Path
) -> None:
    node = messages.node("Relu", ["X"], ["Y"])
    value = [messages.value(n, "float32", ("b", F)) for n in "XY"]
    path = tmp_path / "m.onnx"
    tensor = wire.message((8, "K"), *changed)
    path.write_bytes(messages.model("m", [node], value[:1], value[1:], [tensor]))
    with pytest.raises(FileError) as caught:
        load(path)
    assert message in str(caught.value)
    assert "'K'" in str(caught.value) or "multiple" in message


def test_a_graph_that_goes_round_or_branches_without_end_is_refused(tmp_path: Path) -> None:
    round_and_round = [messages.node("Relu", [a], [b]) for a, b in ("XA", "BC", "CB")]
    with pytest.raises(FileError, match="'B' is not there"):
        load(built(tmp_path, *round_and_round, out=("C",), x=("b", F)))
    doubled, name = [], "X"
    for k in range(60):
        doubled.append(messages.node("Concat", [name, name], [f"Y{k}"], {"axis": 1}, f"n{k}"))
        name = f"Y{k}"
    with pytest.raises(FileError, match=r"node 'n2\d' \(Concat\): has rows of shape"):
        load(built(tmp_path, *doubled, out=(name,), x=("b", F)))
    with pytest.raises(FileError, match="input 'X': has rows of shape"):
        load(built(tmp_path, messages.node("Relu", ["X"], ["Y"]), x=("b", 2**40)))
    doubled, name = [], "K"
    for k in range(60):
        doubled.append(messages.node("Concat", [name, name], [f"Y{k}"], {"axis": 0}, f"n{k}"))
        name = f"Y{k}"
    with pytest.raises(FileError, match="makes a constant of"):
        load(built(tmp_path, *doubled, out=(name,), constants={"K": np.ones(1 << 16)}))
    added, name = [], "X"
    for k in range(40):  # 2^40 paths
        added.append(messages.node("Add", [name, name], [f"Y{k}"]))
        name = f"Y{k}"
    load(built(tmp_path, *added, out=(name,), x=("b", F)))


def test_every_way_to_list_numbers_is_read(tmp_path: Path) -> None:
    halves = np.array([1.5, -2.0], np.float16)
    forms = {
        (1, "float32"): [(4, np.array([1.5, -2.0], "<f4").tobytes())],
        (11, "float64"): [(10, np.array([1.5, -2.0], "<f8").tobytes())],
        (7, "int64"): [(7, 5), (7, -3)],
        (6, "int32"): [(5, 5), (5, -3)],
        (10, "float16"): [(5, int(b)) for b in halves.view(np.uint16)],
    }
    for (code, name), fields in forms.items():
        data = wire.message((1, 2), (2, code), *fields)
        found = wire.Reader().message(memoryview(data), messages._TENSOR)
        array = messages.array(found, tmp_path)
        assert array.dtype.name == name
        assert array.tolist() == ([5, -3] if "int" in name else [1.5, -2.0])


@pytest.mark.parametrize("name", ["lstm_state", "torch_lstm_bidirectional"])
def test_every_cut_and_changed_byte_is_refused_or_read(name: str, tmp_path: Path) -> None:
    whole = (FIXTURES / f"{name}.onnx").read_bytes()
    path, draw = tmp_path / "m.onnx", np.random.default_rng(0)
    for _ in range(150):
        place = int(draw.integers(len(whole)))
        changed = bytearray(whole)
        changed[place] = int(draw.integers(256))
        for data in (bytes(changed), whole[:place]):
            path.write_bytes(data)
            with contextlib.suppress(FileError):
                load(path)


# --- writing ---


def test_weights_that_make_ever_more_layers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is small, and what it makes is not: each node copies the same weights."""
    monkeypatch.setattr(importer, "MAX_ROW", 1000)
    nodes = [messages.node("LSTM", ["X", "W", "R"], [f"Y{k}"], {"hidden_size": H})
             for k in range(40)]  # fmt: skip
    path = built(tmp_path, *nodes, x=(5, 2, F), out=("Y0",), constants=weights("LSTM"))
    with pytest.raises(FileError, match="uses its weights more than 8 times"):
        load_model(path)


def randomized(model: refrnn.Model) -> refrnn.Model:
    draw = np.random.default_rng(3)
    model.set_weights([draw.normal(0, 0.5, w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def chain(*parts: Any, shape: Any = (None, F), dtype: str = "float32") -> refrnn.Model:
    return refrnn.Sequential([layers.Input(shape, dtype=dtype, name="x"), *parts])


def with_states() -> refrnn.Model:
    x, h, c = layers.Input((None, F)), layers.Input((H,)), layers.Input((H,))
    y = layers.LSTM(H, return_sequences=True, return_state=True)(x, initial_state=[h, c])
    return refrnn.Model([x, h, c], [layers.Dense(2)(y[0]), *y[1:]])


def two_ways_with_states() -> refrnn.Model:
    x, f, b = layers.Input((None, F)), layers.Input((H,)), layers.Input((H,))
    pair = layers.Bidirectional(layers.GRU(H, return_state=True), merge_mode="sum")
    return refrnn.Model([x, f, b], list(pair(x, initial_state=[f, b])))


def branched() -> refrnn.Model:
    x = layers.Input((5, F))
    a = layers.GRU(H, return_sequences=True)(x)
    b = layers.Dense(H, activation="relu")(x)
    both = layers.Concatenate()([layers.Add()([a, b]), layers.Multiply()([a, b])])
    inner = chain(layers.Dense(2, activation="softmax"), shape=(5, 2 * H))
    return refrnn.Model(x, inner(both))


MODELS: dict[str, Any] = {
    "lstm": lambda: chain(layers.LSTM(H)),
    "gru": lambda: chain(layers.GRU(H, return_sequences=True), layers.Dense(2)),
    "gru_reset_before": lambda: chain(layers.GRU(H, reset_after=False, return_sequences=True)),
    "simple_relu": lambda: chain(layers.SimpleRNN(H, activation="relu")),
    "no_bias": lambda: chain(layers.LSTM(H, use_bias=False, return_sequences=True)),
    "hard_sigmoid": lambda: chain(
        layers.LSTM(H, recurrent_activation="hard_sigmoid", return_sequences=True)
    ),
    "hard_sigmoid_keras2": lambda: chain(
        layers.GRU(H, recurrent_activation="hard_sigmoid_keras2")
    ),
    "backwards": lambda: chain(layers.GRU(H, go_backwards=True)),
    "backwards_all": lambda: chain(layers.LSTM(H, go_backwards=True, return_sequences=True)),
    "stack": lambda: chain(
        layers.LSTM(H, return_sequences=True, dropout=0.3), layers.Dropout(0.5), layers.LSTM(5),
        layers.Dense(3, activation="tanh"), layers.Dense(2, activation="softmax"),
    ),
    **{
        f"bidirectional_{mode}": lambda mode=mode: chain(
            layers.Bidirectional(layers.LSTM(H, return_sequences=True), merge_mode=mode)
        )
        for mode in ("concat", "sum", "mul", "ave")
    },
    "bidirectional_last": lambda: chain(layers.Bidirectional(layers.GRU(H)), layers.Dense(1)),
    "states": with_states,
    "two_ways_with_states": two_ways_with_states,
    "branched": branched,
    "embedding": lambda: chain(
        layers.Embedding(7, F), layers.SimpleRNN(H), shape=(None,), dtype="int32"
    ),
    "embedding_of_floats": lambda: chain(layers.Embedding(7, F), layers.GRU(H), shape=(None,)),
    "distributed": lambda: chain(
        layers.GRU(H, return_sequences=True), layers.TimeDistributed(layers.Dense(2)),
        layers.Activation("sigmoid"), layers.LeakyReLU(0.2), layers.ELU(0.5),
    ),
    "flat": lambda: chain(
        layers.LSTM(H, return_sequences=True), layers.Flatten(), layers.Dense(6),
        layers.Reshape((2, 3)), shape=(5, F),
    ),
    "autoencoder": lambda: chain(
        layers.LSTM(H), layers.RepeatVector(5), layers.LSTM(3, return_sequences=True),
        layers.Permute((2, 1)),
    ),
    "float64": lambda: chain(
        layers.LSTM(H, dtype="float64"), layers.Dense(2, dtype="float64"), dtype="float64"
    ),
}  # fmt: skip
NOT_READ = {"backwards_all": "Slice", "autoencoder": "Tile", "flat": None}


def inputs_of(model: refrnn.Model) -> list[Any]:
    draw = np.random.default_rng(4)
    found = []
    for spec in model.inputs:
        shape = (2, *(5 if n is None else n for n in (spec.shape or ())[1:]))
        ids = len(shape) == 2 and shape[1] == 5
        drawn = draw.integers(0, 7, shape) if ids else draw.normal(size=shape)
        found.append(drawn.astype(spec.dtype))
    return found


@pytest.mark.parametrize("name", MODELS)
def test_onnx_runtime_computes_the_same_with_what_is_written(name: str, tmp_path: Path) -> None:
    runtime: Any = pytest.importorskip("onnxruntime")
    checker: Any = pytest.importorskip("onnx").checker
    model = randomized(MODELS[name]())
    path = tmp_path / "m.onnx"
    model.save(path)
    checker.check_model(str(path), full_check=True)
    if name == "float64":
        return  # ONNX Runtime has no LSTM of float64
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    arrays = inputs_of(model)
    given = dict(zip((spec.name for spec in model.inputs), arrays, strict=True))
    wanted = flat(model(arrays if len(arrays) > 1 else arrays[0]))
    found = session.run(None, given)
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_is_read_bit_for_bit(name: str, tmp_path: Path) -> None:
    model = randomized(MODELS[name]())
    path = tmp_path / "m.onnx"
    model.save(path)
    arrays = inputs_of(model)
    if NOT_READ.get(name):
        with pytest.raises(FileError, match=NOT_READ[name]):
            load(path)
        return
    found = load(path)
    assert found.inexact == []
    given = dict(zip((spec.name for spec in model.inputs), arrays, strict=True))
    wanted = flat(model(arrays if len(arrays) > 1 else arrays[0]))
    for a, b in zip(outputs_of(found, given), wanted, strict=True):
        assert a.tobytes() == b.tobytes()
        assert (a.dtype, a.shape) == (b.dtype, b.shape)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: chain(layers.Masking(), layers.LSTM(H)), "is a Masking"),
        (
            lambda: chain(layers.Embedding(7, F, mask_zero=True), layers.LSTM(H), shape=(None,)),
            "makes a mask",
        ),
        (lambda: chain(layers.LSTM(H, activation="gelu")), "'gelu'"),
        (lambda: chain(layers.LSTM(H, activation="linear")), "'linear'"),
        (lambda: chain(layers.Dense(2, activation="mish")), "activation is 'mish'"),
        (lambda: chain(layers.LSTM(H)).to_stateful(2), "is stateful"),
        (lambda: chain(layers.BatchNormalization()), "is a BatchNormalization"),
        (
            lambda: chain(
                layers.Bidirectional(
                    layers.LSTM(H), backward_layer=layers.GRU(H, go_backwards=True)
                )
            ),
            "alike in both directions",
        ),
        (lambda: chain(layers.LSTM(H, dtype="float64"), layers.Dense(2)), "float32, float64"),
    ],
)
def test_what_onnx_cannot_hold_is_refused_and_nothing_is_written(
    model: Any, message: str, tmp_path: Path
) -> None:
    made = model()
    with pytest.raises(ValueError, match="model 'sequential") as caught:
        made.save(tmp_path / "m.onnx")
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())
