"""A model.json of tf.js loads as the model that tf.js computes with, and tf.js loads what refrnn
writes; what the two compute differently is refused by name, and so is every damaged file.
"""

import copy
import functools
import json
import os
import random
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refrnn
from refrnn import layers as L
from refrnn.files import FileError, load_model, tfjs
from refrnn.files.keras2 import downgrade, upgrade
from refrnn.layers.masks import leaves
from refrnn.verify import compare
from refrnn.verify.compare import same_bits

FIXTURES = Path(__file__).parent / "fixtures" / "tfjs"
PREDICT = FIXTURES / "predict.js"
# tf.js computes in float32, sums in another order: 1e-6 is 8 spacings of the largest number
RELATIVE = 1e-6
MORE = sorted(p.parent for p in FIXTURES.glob("*/io.json") if "calls" in json.loads(p.read_text()))
STATEFUL = FIXTURES / "stateful_lstm2"
GRU = FIXTURES / "masked_gru"
QUANTIZED = FIXTURES / "pyconv_lstm_gru_uint8"
SINE = FIXTURES / "seed000_sine_b1"
PAIR = FIXTURES / "bigru_srnn"
GRAPH = FIXTURES / "functional_state"


def name_of(path: Path) -> str:
    return path.name


def io_of(folder: Path) -> Any:
    """io.json, every {shape, data} in it as an array."""

    def arrays(value: dict[str, Any]) -> Any:
        if set(value) == {"shape", "data"}:
            return np.array(value["data"], "f4").reshape(value["shape"])
        return value

    return json.loads((folder / "io.json").read_text(), object_hook=arrays)


def same(got: Any, want: list[Any], title: str) -> None:
    mine = leaves(got)
    assert len(mine) == len(want), title
    assert any(np.abs(w).max() > 1e-3 for w in want), title
    compare(dict(enumerate(mine)), dict(enumerate(want)), RELATIVE, title)


# --- what tf.js wrote ---


@pytest.mark.parametrize("folder", MORE, ids=name_of)
def test_a_loaded_model_gives_the_numbers_of_tfjs(folder: Path) -> None:
    io, model = io_of(folder), load_model(folder)
    x = io["x"] if len(io["x"]) > 1 else io["x"][0]
    for k, want in enumerate(io["calls"]):
        same(model(x), want, f"{folder.name}, call {k}")


def test_the_list_of_fixtures_is_whole() -> None:
    assert len(MORE) == 11


def test_states_are_carried_set_and_read_as_in_tfjs() -> None:
    io = io_of(STATEFUL)
    whole = load_model(STATEFUL / "model.json")
    same(whole(io["x"]), [io["y_whole"]], "whole")
    for layer in whole.layers[:2]:
        same(layer.states, io["states_after_whole"][layer.name], "states")
    same(whole(io["x"]), [io["y_second_call_without_reset"]], "second call")
    whole.reset_states()
    ends = np.cumsum(io["chunks"])[:-1]
    pieces = [whole(piece) for piece in np.split(io["x"], ends, axis=1)]
    same(np.concatenate(pieces, axis=1), [io["y_chunked"]], "chunked")
    start = io["initial"]["lstm_a"]
    whole.reset_states()
    whole.layers[0].reset_states([start["h"], start["c"]])
    same(whole(io["x"]), [io["y_with_initial"]], "initial")


def test_masked_steps_are_those_of_tfjs() -> None:
    io = io_of(GRU)
    same(load_model(GRU)(io["x"]), [io["y"]], "masked")


def test_quantized_weights_of_the_python_converter() -> None:
    io, model = io_of(QUANTIZED), load_model(str(QUANTIZED))
    same(model(io["x"]), [io["y"]], "quantized")
    same(model(io["x"]), [io["y_second_call_without_reset"]], "second call")


@pytest.mark.parametrize("reset", [False, True])
def test_a_trained_sine_wave_goes_on_as_in_tfjs(reset: bool) -> None:
    """175 windows of a sine, then 200 of what the model itself says comes next."""
    io, model = io_of(SINE), load_model(SINE)
    sine = ((np.sin(2 * np.pi * np.arange(200) / 50) + 1) / 2).astype("f4")

    def step(window: Any) -> float:
        if reset:
            model.reset_states()
        return model(np.array(window, "f4")[None, :, None]).item()

    key = "reset" if reset else "carried"
    got = [step(sine[k : k + 25]) for k in range(175)]
    # the sine is computed again here, by another library: a spacing of difference in each input
    np.testing.assert_allclose(got, io[f"pred_{key}"], rtol=0, atol=2e-6)
    model.reset_states()
    window = list(sine[175:])
    for _ in range(200):
        window.append(step(window[-25:]))
    # each step takes in the differences of 25 before it
    np.testing.assert_allclose(window[25:], io[f"free_run_{key}"], rtol=0, atol=1e-5)


def test_a_model_is_found_by_folder_by_file_and_by_text() -> None:
    by_folder, by_file = load_model(PAIR), load_model(str(PAIR / "model.json"))
    assert same_bits(
        dict(enumerate(by_folder.get_weights())), dict(enumerate(by_file.get_weights()))
    )
    assert [layer.get_config() for layer in by_folder.layers] == [
        layer.get_config() for layer in by_file.layers
    ]


# --- how tf.js reads a config ---


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "model.json").read_text())


def changed(folder: Path, target: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of a folder with its model.json changed."""
    target.mkdir(exist_ok=True)
    for path in folder.iterdir():
        shutil.copyfile(path, target / path.name)
    found = read(folder)
    text = change(found)
    (target / "model.json").write_text(text if isinstance(text, str) else json.dumps(found))
    return target


def settings(found: dict[str, Any], k: int) -> dict[str, Any]:
    topology = found["modelTopology"]
    return topology.get("model_config", topology)["config"]["layers"][k]["config"]


def camel(value: Any, key: str = "") -> Any:
    """As JavaScript writes it: settings and values in camelCase."""

    def word(text: str) -> str:
        first, *rest = text.split("_")
        return first + "".join(part.capitalize() for part in rest)

    if isinstance(value, dict):
        return {word(k): camel(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [camel(part, key) for part in value]
    return word(value) if isinstance(value, str) and key not in ("name", "class_name") else value


@pytest.mark.parametrize("folder", [PAIR, SINE, FIXTURES / "stacked", FIXTURES / "around"])
def test_the_names_of_javascript_are_those_of_python(folder: Path, tmp_path: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        found["modelTopology"] = camel(found["modelTopology"])

    one, other = load_model(folder), load_model(changed(folder, tmp_path / "x", change))
    assert [x.get_config() for x in one.layers] == [x.get_config() for x in other.layers]
    assert "useBias" in (tmp_path / "x" / "model.json").read_text()


def test_what_is_not_there_is_as_tfjs_has_it(tmp_path: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        for k in range(2):
            for name in ("recurrent_activation", "unit_forget_bias", "activation", "use_bias"):
                settings(found, k).pop(name)

    def change_gru(found: dict[str, Any]) -> None:
        settings(found, 1).pop("recurrent_activation")

    def change_softmax(found: dict[str, Any]) -> None:
        softmax = found["modelTopology"]["config"]["layers"][-1]["config"]
        softmax.pop("axis")

    gru = load_model(changed(GRU, tmp_path / "gru", change_gru)).layers[1]
    assert gru.recurrent_activation.name == "hard_sigmoid_keras2"
    around = load_model(changed(FIXTURES / "around", tmp_path / "around", change_softmax))
    assert around.layers[-1].axis == 1
    folder = changed(STATEFUL, tmp_path / "x", change)
    one, two, _ = load_model(folder).layers
    assert one.recurrent_activation.name == two.recurrent_activation.name == "hard_sigmoid_keras2"
    assert one.activation.name == "tanh"
    assert one.use_bias
    assert not one.unit_forget_bias


def test_null_is_tanh_for_simple_rnns_and_linear_for_others(tmp_path: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        settings(found, 0)["layer"]["config"]["activation"] = None
        settings(found, 1)["activation"] = None

    pair, simple = load_model(changed(PAIR, tmp_path / "x", change)).layers
    assert pair.forward_layer.activation.name == "linear"
    assert simple.activation.name == "tanh"


def test_settings_that_tfjs_does_not_read_are_not_read(tmp_path: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        relu = next(
            e["config"]
            for e in found["modelTopology"]["config"]["layers"]
            if e["class_name"] == "ReLU"
        )
        relu |= {"negative_slope": 0.5, "threshold": 0.5}

    folder = FIXTURES / "around"
    io, model = io_of(folder), load_model(changed(folder, tmp_path / "x", change))
    same(model(io["x"][0]), io["calls"][0], "around")


def test_everything_is_float32_as_in_tfjs(tmp_path: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        settings(found, 1)["dtype"] = "float64"
        settings(found, 2)["dtype"] = {"class_name": "Policy", "config": {"name": "mixed_float16"}}

    for layer in load_model(changed(QUANTIZED, tmp_path / "x", change)).layers:
        assert layer.dtype == np.float32


def test_a_gru_that_tfjs_refuses_is_read_as_keras_2_has_it(tmp_path: Path) -> None:
    """The default GRU of Keras 2 is converted, and then not loaded by tf.js."""
    gru = L.GRU(3, name="g")
    x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("f4")
    gru(x)
    weights = gru.get_weights()
    weights[2] = np.random.default_rng(1).normal(size=weights[2].shape).astype("f4")
    gru.set_weights(weights)

    def change(found: dict[str, Any]) -> None:
        settings(found, 1).update(reset_after=True, recurrent_activation="sigmoid")
        del found["modelTopology"]["config"]["layers"][0]
        settings(found, 0)["batch_input_shape"] = [None, None, 3]
        found["weightsManifest"][0]["weights"][2]["shape"] = [2, 9]

    folder = changed(GRU, tmp_path / "x", change)
    (folder / "weights.bin").write_bytes(b"".join(w.astype("<f4").tobytes() for w in weights))
    assert np.array_equal(load_model(folder)(x)[:, -1], gru(x))


def test_optimizer_weights_are_left_alone(tmp_path: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        weights = found["weightsManifest"][0]["weights"]
        weights.insert(1, {"name": "iter", "shape": [2], "dtype": "int32", "group": "optimizer"})

    folder = changed(GRU, tmp_path / "x", change)
    data = (GRU / "weights.bin").read_bytes()
    (folder / "weights.bin").write_bytes(data[:108] + b"12345678" + data[108:])
    io = io_of(GRU)
    same(load_model(folder)(io["x"]), [io["y"]], "masked")


# --- which weight is which ---


def test_weights_are_found_by_name_in_any_order(tmp_path: Path) -> None:
    """Equal shapes, exchanged: forward_g and backward_g have the same."""
    data = b"".join(path.read_bytes() for path in sorted(PAIR.glob("*.bin")))
    target = tmp_path / "x"

    def change(found: dict[str, Any]) -> None:
        group = found["weightsManifest"][0]
        sizes = [4 * int(np.prod(w["shape"])) for w in group["weights"]]
        starts = np.cumsum([0, *sizes])
        order = [5, 3, 4, 2, 0, 1, 8, 6, 7]
        group["weights"] = [group["weights"][k] for k in order]
        group["paths"] = ["all.bin"]
        (target / "all.bin").write_bytes(
            b"".join(data[starts[k] : starts[k] + sizes[k]] for k in order)
        )

    one, other = load_model(PAIR), load_model(changed(PAIR, target, change))
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.replace("RNNCell_", "stacked_rnn_cells/cell_"),
        lambda name: name + ":0",
        lambda name: f"{name}_7",
        lambda name: "/".join([*name.split("/")[:-1], "inner_cell", name.split("/")[-1]]),
    ],
)
def test_other_names_of_a_layers_weights_are_taken_in_order(
    rename: Callable[[str], str], tmp_path: Path
) -> None:
    def change(found: dict[str, Any]) -> None:
        for weight in found["weightsManifest"][0]["weights"]:
            weight["name"] = rename(weight["name"])

    folder = FIXTURES / "stacked"
    io, model = io_of(folder), load_model(changed(folder, tmp_path / "x", change))
    same(model(io["x"][0]), io["calls"][0], "renamed")


def half(values: Any) -> bytes:
    """float16 by the standard library, not by NumPy."""
    return struct.pack(f"<{values.size}e", *values.ravel().tolist())


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float16"])
def test_every_way_to_quantize(kind: str, tmp_path: Path) -> None:
    original, target = load_model(GRU).get_weights(), tmp_path / "x"
    want, data = [], b""

    def change(found: dict[str, Any]) -> None:
        nonlocal data
        for spec, array in zip(found["weightsManifest"][0]["weights"], original, strict=True):
            if kind == "float16":
                packed = half(array)
                numbers = struct.unpack(f"<{array.size}e", packed)
                spec["quantization"] = {"dtype": kind, "original_dtype": "float32"}
            else:
                top = {"uint8": 255, "uint16": 65535}[kind]
                least, scale = float(array.min()), float(np.ptp(array)) / top
                codes = [round((float(v) - least) / scale) for v in array.ravel()]
                packed = struct.pack(f"<{len(codes)}{'B' if kind == 'uint8' else 'H'}", *codes)
                numbers = tuple(code * scale + least for code in codes)
                spec["quantization"] = {"dtype": kind, "scale": scale, "min": least}
            want.append(np.array(numbers, "f4").reshape(array.shape))
            data += packed

    changed(GRU, target, change)
    (target / "weights.bin").write_bytes(data)
    for a, b, old in zip(load_model(target).get_weights(), want, original, strict=True):
        assert a.tobytes() == b.tobytes()
        assert a.tobytes() != old.tobytes()


def test_whole_numbers_and_truth_values_are_read(tmp_path: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        first, second, third = found["weightsManifest"][0]["weights"]
        first["dtype"], second["dtype"] = "int32", "bool"
        third |= {"dtype": "int32", "quantization": {"dtype": "uint8", "scale": 0.5, "min": -2}}

    folder = changed(GRU, tmp_path / "x", change)
    numbers = np.arange(27, dtype="<i4") - 9
    truth = bytes([1, 0, 1] * 9)
    (folder / "weights.bin").write_bytes(numbers.tobytes() + truth + bytes(range(9)))
    kernel, recurrent, bias = load_model(folder).get_weights()
    assert kernel.ravel().tolist() == numbers.tolist()
    assert recurrent.ravel().tolist() == [*truth]
    # JavaScript's Math.round: a half goes up
    assert bias.tolist() == [-2, -1, -1, 0, 0, 1, 1, 2, 2]


# --- masks ---

UNITS = {"units": 3}


def chain(*parts: tuple[str, dict[str, Any]], shape: Any = (None, 6, 3)) -> dict[str, Any]:
    """A Sequential topology of class names and settings."""
    entries = [
        {"class_name": kind, "config": {"name": f"{kind.lower()}_{k}", **given}}
        for k, (kind, given) in enumerate(parts)
    ]
    entries[0]["config"]["batch_input_shape"] = list(shape)
    return {"class_name": "Sequential", "config": {"name": "m", "layers": entries}}


MASKING = ("Masking", {"mask_value": 0})
WHOLE = {"units": 3, "return_sequences": True}
INNER = {"class_name": "GRU", "config": {"name": "g", **WHOLE}}


def written(topology: dict[str, Any], folder: Path, weights: Any = ()) -> Path:
    """A folder with a model.json, and weights by name."""
    folder.mkdir(exist_ok=True)
    specs = [{"name": n, "shape": list(w.shape), "dtype": "float32"} for n, w in weights]
    (folder / "w.bin").write_bytes(b"".join(w.astype("<f4").tobytes() for _, w in weights))
    manifest = [{"paths": ["w.bin"], "weights": specs}]
    found = {"modelTopology": topology, "format": "layers-model", "weightsManifest": manifest}
    (folder / "model.json").write_text(json.dumps(found))
    return folder


DIFFERENT = {
    "a stateful layer": (
        chain(MASKING, ("GRU", {**WHOLE, "stateful": True}), shape=(2, None, 3)),
        "has the mask of masking_0, and a state to begin with",
    ),
    "a mask left behind": (
        chain(MASKING, ("LSTM", UNITS), ("RepeatVector", {"n": 6}), ("LSTM", UNITS)),
        "LSTM 'lstm_3' is given the mask of masking_0 by tf.js and the mask of None by refrnn",
    ),
    "a mean over time": (
        chain(MASKING, ("GlobalAveragePooling1D", {})),
        "GlobalAveragePooling1D 'globalaveragepooling1d_1' is given the mask of masking_0",
    ),
    "a softmax layer": (chain(MASKING, ("Softmax", {})), "Softmax 'softmax_1' is given the mask"),
    "a layer at each step": (
        chain(MASKING, ("TimeDistributed", {"layer": INNER}), shape=(None, 4, 6, 3)),
        "TimeDistributed 'timedistributed_1' is given the mask",
    ),
    "a model inside": (
        chain(MASKING, ("Sequential", chain(("LSTM", UNITS))["config"] | {"name": "inner"})),
        "Sequential 'inner' is given the mask",
    ),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_a_mask_that_tfjs_uses_otherwise_is_refused(case: str, tmp_path: Path) -> None:
    topology, message = DIFFERENT[case]
    refused(written(topology, tmp_path / "m"), message)


def test_bidirectional_layers_repeat_masked_outputs_as_tfjs_does(tmp_path: Path) -> None:
    rng, name = np.random.default_rng(0), "bidirectional_1"
    shapes = {"kernel": (3, 9), "recurrent_kernel": (3, 9), "bias": (9,)}
    weights = [
        (f"{name}/{way}_g/{kind}", rng.normal(size=shape))
        for way in ("forward", "backward")
        for kind, shape in shapes.items()
    ]
    topology = chain(MASKING, ("Bidirectional", {"layer": INNER}))
    x = rng.normal(size=(2, 6, 3)).astype("f4")
    x[:, 4:] = 0
    y = load_model(written(topology, tmp_path / "m", weights))(x)
    assert np.array_equal(y[:, 4, :3], y[:, 3, :3])  # Keras has zeros there
    assert np.abs(y[:, 3, :3]).min() > 0


def test_masks_that_are_the_same_are_not_refused(tmp_path: Path) -> None:
    """Only the weights are missing."""
    for topology in (
        chain(MASKING, ("LeakyReLU", {}), ("GRU", WHOLE), ("Dense", UNITS)),
        chain(("LSTM", WHOLE), MASKING, ("GRU", UNITS)),
    ):
        refused(written(topology, tmp_path / "m"), r"weightsManifest: .*has weights \[\], expected")


# --- files that are refused ---


def refused(folder: Path, message: str) -> None:
    with pytest.raises(FileError, match=message) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value)) < 2000


def group(found: dict[str, Any]) -> dict[str, Any]:
    return found["weightsManifest"][0]


def weight(found: dict[str, Any]) -> dict[str, Any]:
    return group(found)["weights"][0]


@pytest.mark.parametrize(
    "name",
    [
        *("../outside.bin", "/etc/passwd", "a/../../outside.bin", "..\\outside.bin", "", "."),
        *("C:\\x.bin", "http://host/x.bin", "x\0.bin", "a//b", "./weights.bin", 7, None, ["a"]),
    ],
)
def test_a_path_that_leads_out_of_the_folder_is_refused(name: Any, tmp_path: Path) -> None:
    (tmp_path / "outside.bin").write_bytes((GRU / "weights.bin").read_bytes())

    def change(found: dict[str, Any]) -> None:
        group(found)["paths"] = [name]

    refused(changed(GRU, tmp_path / "x", change), "expected the name of one in the folder")


def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder, outside = changed(GRU, tmp_path / "x", lambda found: None), tmp_path / "outside"
    outside.mkdir()
    (folder / "weights.bin").rename(outside / "weights.bin")
    (folder / "weights.bin").symlink_to(outside / "weights.bin")
    refused(folder, "weights.bin.*is a link to .*outside")
    (folder / "inside").symlink_to(outside)

    def change(found: dict[str, Any]) -> None:
        group(found)["paths"] = ["inside/weights.bin"]

    found = read(GRU)
    change(found)
    (folder / "model.json").write_text(json.dumps(found))
    refused(folder, "is a link to .*outside")


def test_files_that_are_not_there_or_no_files_are_refused(tmp_path: Path) -> None:
    folder = changed(GRU, tmp_path / "x", lambda found: None)
    (folder / "weights.bin").unlink()
    refused(folder, r"file 'weights.bin': .*No such file")
    (folder / "weights.bin").mkdir()
    refused(folder, "is a folder, expected a file")
    (folder / "weights.bin").rmdir()
    os.mkfifo(folder / "weights.bin")
    refused(folder, "is a device or pipe, expected a file")
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "x" / "nowhere.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="is a folder, expected a file"):
        load_model(tmp_path / "empty")


@pytest.mark.parametrize("change", [b"", b"1234", bytes(248), bytes(253), bytes(10_000)])
def test_files_of_another_size_are_refused(change: bytes, tmp_path: Path) -> None:
    folder = changed(GRU, tmp_path / "x", lambda found: None)
    (folder / "weights.bin").write_bytes(change)
    refused(folder, f"have {len(change)} bytes, expected 252")


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no manifest": (lambda f: f.pop("weightsManifest"), "is None, expected a list of groups"),
    "a manifest of text": (lambda f: f.update(weightsManifest="x"), "expected a list of groups"),
    "no paths": (lambda f: group(f).pop("paths"), "paths is None, expected a list"),
    "a path twice": (lambda f: group(f).update(paths=["weights.bin"] * 2), "each of them once"),
    "a path in two groups": (
        lambda f: f["weightsManifest"].append({"paths": ["weights.bin"], "weights": []}),
        "each of them once",
    ),
    "no weights": (lambda f: group(f).pop("weights"), "weights is None, expected a list"),
    "a weight of text": (lambda f: group(f).update(weights=["x"]), "a weight is 'x'"),
    "no name": (lambda f: weight(f).pop("name"), "a weight is .*expected a name"),
    "no shape": (lambda f: weight(f).pop("shape"), "shape is None, expected at most 8 sizes"),
    "a negative size": (lambda f: weight(f).update(shape=[-3, -9]), "expected at most 8 sizes"),
    "a size of truth": (lambda f: weight(f).update(shape=[True, 27]), "expected at most 8 sizes"),
    "a size with a point": (lambda f: weight(f).update(shape=[3.0, 9]), "at most 8 sizes"),
    "a rank": (lambda f: weight(f).update(shape=[1] * 9), "expected at most 8 sizes"),
    "a huge shape": (lambda f: weight(f).update(shape=[10**18, 9]), "bytes, expected 360000000"),
    "huge sizes": (lambda f: weight(f).update(shape=[10**18] * 8), "bytes, expected 4000"),
    "another shape": (lambda f: weight(f).update(shape=[9, 3]), "kernel has shape"),
    "string": (lambda f: weight(f).update(dtype="string"), "dtype is 'string', expected one of"),
    "complex64": (lambda f: weight(f).update(dtype="complex64"), "dtype is 'complex64'"),
    "a dtype of number": (lambda f: weight(f).update(dtype=4), "dtype is 4"),
    "a dtype of list": (lambda f: weight(f).update(dtype=["float32"]), "dtype is"),
    "bool": (lambda f: weight(f).update(dtype="bool"), "have 252 bytes, expected 171"),
    "a name twice": (
        lambda f: weight(f).update(name="g/bias", shape=[9]) or group(f)["weights"][1].clear(),
        "a weight is {}|two weights are called",
    ),
    "two of a name": (
        lambda f: group(f)["weights"][1].update(name="g/kernel"),
        "two weights are called 'g/kernel'",
    ),
    "of no layer": (lambda f: weight(f).update(name="q/kernel"), "'q/kernel' is of no layer"),
    "of another kind": (lambda f: weight(f).update(name="g/gamma"), "has weights .*g/gamma"),
    "a layer without": (
        lambda f: [w.update(group="optimizer") for w in group(f)["weights"]],
        r"has weights \[\], expected \['g/kernel'",
    ),
    "one missing": (
        lambda f: weight(f).update(group="optimizer"),
        "has weights .*expected .*g/kernel",
    ),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_damaged_list_of_weights_is_refused(case: str, tmp_path: Path) -> None:
    change, message = MANIFESTS[case]

    def apply(found: dict[str, Any]) -> None:
        change(found)

    start = time.monotonic()
    refused(changed(GRU, tmp_path / "x", apply), message)
    assert time.monotonic() - start < 5  # nothing of a declared size is made


NUMBERS = ["1", None, True, [], float("nan"), float("inf"), 1e300]


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
@pytest.mark.parametrize(
    ("key", "value"),
    [("scale", 0), ("scale", -1), *((k, v) for k in ("scale", "min") for v in NUMBERS)],
)
def test_a_damaged_quantization_is_refused(kind: str, key: str, value: Any, tmp_path: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        weight(found)["quantization"] = {"dtype": kind, "scale": 1, "min": 0, key: value}

    refused(changed(GRU, tmp_path / "x", change), f"quantization: {key} is")


@pytest.mark.parametrize("value", [None, 3, "uint8", {}, {"dtype": "int8"}, {"dtype": ["uint8"]}])
def test_an_unknown_quantization_is_refused(value: Any, tmp_path: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        weight(found)["quantization"] = value

    refused(changed(GRU, tmp_path / "x", change), "quantization is .*expected a dtype of uint8")


@pytest.mark.parametrize("dtype", ["int32", "bool"])
def test_a_quantization_of_another_dtype_is_refused(dtype: str, tmp_path: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        weight(found).update(dtype=dtype, quantization={"dtype": "float16"})

    refused(changed(GRU, tmp_path / "x", change), f"is of dtype {dtype}, stored as float16")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_weights_that_are_not_finite_are_refused(value: str, tmp_path: Path) -> None:
    folder = changed(GRU, tmp_path / "x", lambda found: None)
    data = bytearray((GRU / "weights.bin").read_bytes())
    data[40:44] = struct.pack("<f", float(value))
    (folder / "weights.bin").write_bytes(data)
    refused(folder, "kernel")


def test_numbers_that_grow_out_of_float32_are_refused(tmp_path: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        for spec in group(found)["weights"]:
            spec["quantization"] = {"dtype": "uint8", "scale": 3e38, "min": 0}

    folder = changed(GRU, tmp_path / "x", change)
    (folder / "weights.bin").write_bytes(bytes([2] * 63))
    refused(folder, "kernel")


def layer_entry(found: dict[str, Any], k: int) -> dict[str, Any]:
    return found["modelTopology"]["config"]["layers"][k]


TOPOLOGIES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a graph": (lambda f: f.update(format="graph-model"), "has format 'graph-model'"),
    "a number": (lambda f: "{1}", "JSON"),
    "no topology": (lambda f: f.pop("modelTopology"), "expected 'layers-model' with modelTopology"),
    "a topology of text": (lambda f: f.update(modelTopology="x"), "modelTopology: is 'x'"),
    "an empty topology": (lambda f: f.update(modelTopology={}), "expected a class_name"),
    "a model of text": (lambda f: f.update(modelTopology={"model_config": "x"}), "the model is"),
    "layers of text": (
        lambda f: f["modelTopology"]["config"].update(layers="x"),
        "the model's layers are 'x'",
    ),
    "no layers": (lambda f: f["modelTopology"]["config"].update(layers=[]), "layers are"),
    "Keras 3": (
        lambda f: f["modelTopology"].update(keras_version="3.5.0"),
        "keras_version is '3.5.0'",
    ),
    "a subclass": (lambda f: f["modelTopology"].update(class_name="MyModel"), "is a 'MyModel'"),
    "Lambda": (lambda f: layer_entry(f, 1).update(class_name="Lambda"), "Lambda"),
    "an unknown layer": (
        lambda f: layer_entry(f, 1).update(class_name="ConvLSTM2D"),
        "is a 'ConvLSTM2D', which refrnn does not read from files of tf.js",
    ),
    "a name twice": (
        lambda f: settings(f, 1).update(name="masking_Masking1"),
        "two layers are called 'masking_Masking1'",
    ),
    "a name in two cases": (
        lambda f: settings(f, 1).update(useBias=True),
        "expected each of them once",
    ),
    "units of text": (lambda f: settings(f, 1).update(units="3"), "units"),
    "units without end": (lambda f: settings(f, 1).update(units=10**12), "kernel has shape|units"),
    "an unknown setting": (lambda f: settings(f, 1).update(peephole=True), "peephole"),
    "an unknown activation": (lambda f: settings(f, 1).update(activation="magic"), "magic"),
    "a shape of text": (
        lambda f: settings(f, 0).update(batch_input_shape="x"),
        "has shape 'x', expected a list of sizes",
    ),
    "too deep": (lambda f: "[" * 10_000, "JSON"),
    "too deep an object": (lambda f: '{"a":' * 10_000, "is nested 10000 deep"),
    "too long": (lambda f: '{"a":"' + "x" * (5 << 20) + '"}', "expected at most 4194304"),
}


@pytest.mark.parametrize("case", TOPOLOGIES)
def test_a_damaged_topology_is_refused(case: str, tmp_path: Path) -> None:
    change, message = TOPOLOGIES[case]
    folder = changed(GRU, tmp_path / "x", change)
    if not (folder / "model.json").read_text().startswith("{"):
        message = "."
    refused(folder, message)


def test_states_of_a_stack_are_refused(tmp_path: Path) -> None:
    """tf.js has them as a flat list, from the last cell to the first."""

    def change(found: dict[str, Any]) -> None:
        settings(found, 0)["return_state"] = True

    refused(
        changed(FIXTURES / "stacked", tmp_path / "x", change), "from the last cell to the first"
    )


def test_arguments_that_tfjs_does_not_read_are_refused(tmp_path: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        layer_entry(found, 4)["inbound_nodes"][0][0][3] = {"training": True}

    refused(changed(GRAPH, tmp_path / "x", change), "is called with training True")


ODD: list[Any] = [
    None, True, -1, 0, 3, 1e300, float("nan"), "", "x", "../x", [], {}, [None], {"a": 1},
    10**18, [[["x", 0, 0, {}]]], "LSTM", {"class_name": "LSTM", "config": {"units": 2}},
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a structure, as the keys that lead there."""
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in parts:
        yield (*path, key)
        if isinstance(part, dict | list):
            yield from places(part, (*path, key))


@pytest.mark.parametrize("folder", [GRU, QUANTIZED, GRAPH, PAIR, *MORE], ids=name_of)
def test_a_change_anywhere_is_harmless_or_refused(folder: Path, tmp_path: Path) -> None:
    rng = random.Random(folder.name)
    found = read(folder)
    everywhere = list(places(found))
    target = changed(folder, tmp_path / "x", lambda found: None)
    refusals = 0
    for _ in range(150):
        mutated = copy.deepcopy(found)
        for path in rng.sample(everywhere, rng.choice([1, 1, 2])):
            holder: Any = mutated
            try:
                for key in path[:-1]:
                    holder = holder[key]
                if rng.random() < 0.3:
                    del holder[path[-1]]
                else:
                    holder[path[-1]] = rng.choice(ODD)
            except (KeyError, IndexError, TypeError):
                continue  # an earlier change took the place away
        (target / "model.json").write_text(json.dumps(mutated))
        said = refusal(target)
        refusals += said is not None
        assert said is None or str(target) in said
    assert refusals > 20


def refusal(folder: Path) -> str | None:
    """Why a model is refused; None where it is not. Any other exception goes on."""
    try:
        load_model(folder)
    except FileError as error:
        return str(error)
    return None


# --- writing ---


@functools.cache
def node() -> str | None:
    """Why tf.js cannot be run here; None where it can."""
    if shutil.which("node") is None:
        return "no node here"
    program = "require.resolve('@tensorflow/tfjs')"
    found = subprocess.run(
        ["node", "-e", program], cwd=FIXTURES, capture_output=True, timeout=60, check=False
    )
    return None if found.returncode == 0 else f"no @tensorflow/tfjs: run npm install in {FIXTURES}"


def in_tfjs(folder: Path, x: list[Any]) -> list[list[Any]]:
    """The outputs of two calls in tf.js, or AssertionError with what it says."""
    reason = node()
    if reason:
        pytest.skip(reason)
    inputs, outputs = folder.parent / "x.json", folder.parent / "y.json"
    packed = [{"shape": list(a.shape), "data": a.ravel().tolist()} for a in x]
    inputs.write_text(json.dumps(packed))
    run = subprocess.run(
        ["node", str(PREDICT), str(folder), str(inputs), str(outputs)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    calls = json.loads(outputs.read_text())
    return [[np.array(t["data"], "f4").reshape(t["shape"]) for t in call] for call in calls]


def weighted(model: refrnn.Model, x: Any, seed: int = 0) -> refrnn.Model:
    """The model, built for `x`, with random weights."""
    model(x)
    rng = np.random.default_rng(seed)
    drawn = [rng.normal(scale=0.5, size=w.shape).astype("f4") for w in model.get_weights()]
    names = [n for layer in model.every_layer() for n in layer.weight_names]
    model.set_weights(
        [abs(w) + 0.1 if "variance" in n else w for n, w in zip(names, drawn, strict=True)]
    )
    model.reset_states()
    return model


def keras_defaults() -> list[Any]:
    return [
        L.Masking(0.0), L.LSTM(4, return_sequences=True, kernel_initializer="lecun_normal"),
        L.Bidirectional(L.GRU(3, reset_after=False), name="pair"), L.Dense(2, "silu"),
    ]  # fmt: skip


PENALTY = {"class_name": "L2", "config": {"l2": 0.1}}
MODELS: dict[str, Callable[[], list[Any]]] = {
    "keras defaults": keras_defaults,
    "hard sigmoid": lambda: [
        L.LSTM(3, recurrent_activation="hard_sigmoid_keras2", return_sequences=True),
        L.Activation("hard_sigmoid_keras2"),
    ],
    "around": lambda: [
        L.Conv1D(4, 3, padding="same"), L.BatchNormalization(), L.LayerNormalization(axis=-1),
        L.LeakyReLU(0.1), L.PReLU(), L.ReLU(2.0), L.ELU(), L.AveragePooling1D(2, padding="same"),
        L.SimpleRNN(3, return_sequences=True, kernel_regularizer=PENALTY),
        L.Permute((2, 1)), L.Flatten(), L.Dropout(0.5), L.Softmax(), L.RepeatVector(3),
        L.Reshape((9, -1)), L.GlobalMaxPooling1D(),
    ],
    "stacks": lambda: [
        L.RNN([L.LSTMCell(3), L.GRUCell(4, reset_after=False)], return_sequences=True),
        L.Bidirectional(L.SimpleRNN(2, return_sequences=True), merge_mode="mul"),
        L.TimeDistributed(L.Dense(3)), L.RNN([L.SimpleRNNCell(2, use_bias=False)]),
    ],
    "a model inside": lambda: [
        refrnn.Sequential(
            [L.Input((6, 3)), L.LSTM(4, return_sequences=True, name="first")], name="inner"
        ),
        L.GRU(2, reset_after=False, go_backwards=True),
    ],
    "pooled": lambda: [L.GRU(2, reset_after=False, return_sequences=True), L.MaxPooling1D(2),
                       L.GlobalAveragePooling1D(), L.Dense(2, use_bias=False)],
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_tfjs_computes_what_refrnn_wrote(name: str, tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(2, 6, 3)).astype("f4")
    x[0, 3:] = 0
    model = weighted(refrnn.Sequential([L.Input((6, 3)), *MODELS[name]()], name="m"), x)
    tfjs.save(model, tmp_path / "m")
    read_back = load_model(tmp_path / "m")
    assert same_bits({"y": read_back(x)}, {"y": model(x)})
    for call in in_tfjs(tmp_path / "m", [x]):
        same(model(x), call, name)


def graph() -> refrnn.Model:
    """Inputs that are states, a shared layer, a model called twice, several outputs."""
    x, h, c = L.Input((5, 3), name="x"), L.Input((4,), name="h"), L.Input((4,), name="c")
    shared = L.GRU(3, reset_after=False, return_sequences=True, name="shared")
    inner = refrnn.Sequential([L.Input((5, 3)), L.Dense(3, "tanh", name="d")], name="inner")
    y, h2, c2 = L.LSTM(4, return_sequences=True, return_state=True, name="l")(
        shared(inner(inner(shared(x)))), initial_state=[h, c]
    )
    return refrnn.Model([x, h, c], [L.Concatenate(name="j")([y, x]), h2, c2], name="m")


def test_tfjs_computes_a_graph_that_refrnn_wrote(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x = [rng.normal(size=s).astype("f4") for s in ((2, 5, 3), (2, 4), (2, 4))]
    model = weighted(graph(), x)
    tfjs.save(model, tmp_path / "m")
    assert same_bits(
        dict(enumerate(leaves(load_model(tmp_path / "m")(x)))), dict(enumerate(leaves(model(x))))
    )
    for call in in_tfjs(tmp_path / "m", x):
        same(model(x), call, "graph")


def test_a_stateful_model_is_written_for_its_rows(tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(3, 4, 2)).astype("f4")
    plain = weighted(refrnn.Sequential([L.LSTM(3), L.Dense(1)], name="m"), x)
    model = plain.to_stateful(rows=3)
    tfjs.save(model, tmp_path / "m")
    shapes = [e["config"]["batch_input_shape"] for e in layer_list(tmp_path / "m")[:1]]
    assert shapes == [[3, 4, 2]]
    for call in in_tfjs(tmp_path / "m", [x]):
        same(model(x), call, "stateful")


def layer_list(folder: Path) -> list[dict[str, Any]]:
    return read(folder)["modelTopology"]["model_config"]["config"]["layers"]


@pytest.mark.parametrize("folder", [PAIR, GRAPH, QUANTIZED, *MORE], ids=name_of)
def test_what_was_read_is_written_as_it_was(folder: Path, tmp_path: Path) -> None:
    one = load_model(folder)
    tfjs.save(one, tmp_path / "m")
    other = load_model(tmp_path / "m")
    assert [x.get_config() for x in one.every_layer()] == [
        x.get_config() for x in other.every_layer()
    ]
    weights = zip(one.get_weights(), other.get_weights(), strict=True)
    assert all(a.tobytes() == b.tobytes() for a, b in weights)


KINDS = {"SimpleRNN": {}, "LSTM": {}, "GRU": {"reset_after": False}}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(KINDS)),
            st.integers(1, 4),
            st.booleans(),
            st.sampled_from(["tanh", "relu", "hard_sigmoid_keras2", "softsign"]),
            st.sampled_from([None, "concat", "sum"]),
        ),
        min_size=1,
        max_size=3,
    ),
    st.integers(0, 99),
)
def test_a_written_model_is_read_as_it_was(parts: list[Any], seed: int) -> None:
    made = []
    for kind, units, bias, activation, merge in parts:
        layer = getattr(L, kind)(
            units, activation=activation, use_bias=bias, return_sequences=True, **KINDS[kind]
        )
        made.append(layer if merge is None else L.Bidirectional(layer, merge_mode=merge))
    x = np.random.default_rng(seed).normal(size=(2, 4, 3)).astype("f4")
    model = weighted(refrnn.Sequential(made, name="m"), x, seed)
    with tempfile.TemporaryDirectory() as folder:
        tfjs.save(model, Path(folder) / "m")
        assert same_bits({"y": load_model(Path(folder) / "m")(x)}, {"y": model(x)})


def test_weights_are_cut_into_files_of_4_mib(tmp_path: Path) -> None:
    x = np.zeros((1, 2, 700), "f4")
    model = weighted(refrnn.Sequential([L.LSTM(500, name="l")], name="m"), x)
    tfjs.save(model, tmp_path / "m")
    sizes = {p.name: p.stat().st_size for p in (tmp_path / "m").glob("*.bin")}
    total = 4 * model.count_params()
    assert sizes == {
        "group1-shard1of3.bin": 4 << 20,
        "group1-shard2of3.bin": 4 << 20,
        "group1-shard3of3.bin": total - (8 << 20),
    }
    assert [a.tobytes() for a in load_model(tmp_path / "m").get_weights()] == [
        a.tobytes() for a in model.get_weights()
    ]


REFUSED: dict[str, tuple[Callable[[], list[Any]], str]] = {
    "GRU": (lambda: [L.GRU(2, name="g")], "GRU 'g': reset_after is True, expected False, because"),
    "hard_sigmoid": (
        lambda: [L.LSTM(2, recurrent_activation="hard_sigmoid", name="l")],
        "recurrent_activation is 'hard_sigmoid' as Keras 3 computes it",
    ),
    "activation": (lambda: [L.Dense(2, "celu", name="d")], "activation is 'celu', which tf.js"),
    "layer": (lambda: [L.Cropping1D(1, name="c")], "Cropping1D 'c': tf.js does not have it"),
    "dtype": (lambda: [L.LSTM(2, dtype="float64")], "dtype is float64, expected float32"),
    "slope": (lambda: [L.ReLU(negative_slope=0.1, name="r")], "negative_slope is 0.1, expected 0"),
    "elu": (lambda: [L.ELU(0.5, name="e")], "ELU 'e': alpha is 0.5, expected 1"),
    "causal": (lambda: [L.Conv1D(2, 2, padding="causal")], "padding is 'causal', expected valid"),
    "two layers": (
        lambda: [
            L.Bidirectional(
                L.LSTM(2), backward_layer=L.SimpleRNN(2, go_backwards=True), name="b"
            )
        ],
        "Bidirectional 'b': backward_layer is .*expected None",
    ),
    "zeros": (
        lambda: [
            L.Masking(),
            L.Bidirectional(L.LSTM(2, return_sequences=True), name="b"),
        ],
        "Bidirectional 'b' has a mask and gives zeros at masked steps",
    ),
    "zeros of one": (
        lambda: [L.Masking(), L.LSTM(2, zero_output_for_mask=True, name="l")],
        "LSTM 'l' has a mask and gives zeros at masked steps",
    ),
    "mask": (
        lambda: [L.Masking(name="k"), L.GlobalAveragePooling1D(name="p")],
        "GlobalAveragePooling1D 'p' is given the mask of k",
    ),
    "name": (lambda: [L.LSTM(2, name="a b")], "LSTM 'a b': expected a name of letters"),
    "a cell both ways": (
        lambda: [L.Bidirectional(L.RNN(L.LSTMCell(2)), name="b")],
        "Bidirectional 'b': has a layers.RNN inside, expected a SimpleRNN, GRU or LSTM",
    ),
    "states of a stack": (
        lambda: [L.RNN([L.LSTMCell(2), L.LSTMCell(2)], return_state=True, name="r")],
        "RNN 'r': is a stack of cells that takes or returns its states",
    ),
    "rows": (lambda: [L.LSTM(2, stateful=True, name="s")], "stateful.*rows"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_tfjs_does_not_have_is_refused_and_nothing_is_written(
    case: str, tmp_path: Path
) -> None:
    make, message = REFUSED[case]
    source = L.Input((6, 3))
    outputs = source
    for layer in make():
        found = layer(outputs)
        outputs = found[0] if isinstance(found, tuple) else found
    chain = refrnn.Model(source, outputs, name="m")
    with pytest.raises(ValueError, match=message):
        tfjs.save(chain, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_weights_is_refused(tmp_path: Path) -> None:
    model = refrnn.Sequential([L.LSTM(2, name="l")])
    model.expect(model.inputs[0]._replace(shape=(None, 6, 3)))
    with pytest.raises(ValueError, match="LSTM 'l' is not built, expected a call before"):
        tfjs.save(model, tmp_path / "m")


def test_a_model_whose_input_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the shape of its input is not known"):
        tfjs.save(refrnn.Sequential([L.LSTM(2)]), tmp_path / "m")


def test_a_folder_is_exchanged_as_a_whole_or_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = load_model(PAIR), load_model(GRAPH)
    folder = tmp_path / "deep" / "m"
    tfjs.save(one, folder)
    assert {p.name for p in folder.iterdir()} == {"model.json", "group1-shard1of1.bin"}
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def fail(path: Path) -> Any:
        raise OSError(f"no space left for {path.name}")

    with monkeypatch.context() as patch:
        patch.setattr(tfjs, "replacing", fail)
        with pytest.raises(OSError, match="no space"):
            tfjs.save(two, folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    tfjs.save(two, folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} != before
    assert [p.name for p in folder.parent.iterdir()] == ["m"]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds \['notes.txt'\], expected an empty folder"):
        tfjs.save(one, folder)
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(ValueError, match="is a file, expected a folder"):
        tfjs.save(one, folder / "notes.txt")


# --- the config in the words of Keras 2 ---


@pytest.mark.parametrize("name", ["keras defaults", "hard sigmoid", "stacks", "a model inside"])
def test_keras_2_computes_what_its_config_says(name: str) -> None:
    keras2 = pytest.importorskip("tf_keras", reason="no tf_keras here: Keras 2 reads the config")
    x = np.random.default_rng(1).normal(size=(2, 6, 3)).astype("f4")
    model = weighted(refrnn.Sequential([L.Input((6, 3)), *MODELS[name]()], name="m"), x)
    config = downgrade({"class_name": "Sequential", "config": model.get_config()})
    theirs = keras2.Sequential.from_config(config["config"])
    theirs.set_weights(model.get_weights())
    same(model(x), [theirs(x).numpy()], name)
    assert all("time_major" not in e["config"] for e in config["config"]["layers"])


def test_keras_2_computes_what_the_config_of_a_graph_says() -> None:
    keras2 = pytest.importorskip("tf_keras", reason="no tf_keras here: Keras 2 reads the config")
    rng = np.random.default_rng(1)
    x = [rng.normal(size=s).astype("f4") for s in ((2, 5, 3), (2, 4), (2, 4))]
    model = weighted(graph(), x)
    config = downgrade({"class_name": "Functional", "config": model.get_config()})
    theirs = keras2.Model.from_config(config["config"])
    order = {w.name.split(":")[0]: k for k, w in enumerate(theirs.weights)}
    assert len(order) == len(model.get_weights())
    theirs.set_weights(model.get_weights())
    same(model(x), [y.numpy() for y in theirs(x)], "graph")


def test_there_and_back_is_the_same_config() -> None:
    model = graph()
    config = {"class_name": "Functional", "config": model.get_config()}
    back = upgrade(copy.deepcopy(downgrade(config)))
    for entry, new in zip(config["config"]["layers"], back["config"]["layers"], strict=True):
        assert new["class_name"] == entry["class_name"]
        assert new["config"]["name"] == entry["config"]["name"]
        if entry["inbound_nodes"]:
            assert histories(new["inbound_nodes"]) == histories(entry["inbound_nodes"])
    assert back["config"]["output_layers"] == config["config"]["output_layers"]


def histories(value: Any) -> list[Any]:
    if isinstance(value, dict) and "keras_history" in value:
        return [value["keras_history"]]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [found for part in parts for found in histories(part)]
