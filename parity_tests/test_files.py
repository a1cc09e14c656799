"""A file of Keras 2 or 3 loads as the model that Keras computed with, or is refused with a reason.

Nothing in a file is run, imported or unpickled, and no file, however hostile, makes more of itself
than a FileError that names it. benchmarks/fuzz_files.py looks for files that do.
"""

import ast
import builtins
import copy
import io
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from test_models import GRAPHS, graph, randomize

import refrnn
from refrnn import from_keras, layers
from refrnn.files import FileError, load_model, load_weights
from refrnn.files import archive as archive_module
from refrnn.files.keras2 import upgrade
from refrnn.verify import compare
from refrnn.verify.chunks import flat
from refrnn.verify.compare import same_bits

FIXTURES = Path(__file__).parent / "fixtures"
RELATIVE = {"float32": 1e-6, "float64": 1e-12}
WHOLE = sorted(
    p
    for p in FIXTURES.glob("keras*/*")
    if p.suffix in (".keras", ".h5") and "weights" not in p.name
)
WEIGHTS = sorted(FIXTURES.glob("keras*/*weights.h5"))
PLAIN = FIXTURES / "keras" / "01_seq_lstm.keras"
PLAIN_H5 = FIXTURES / "keras" / "01_seq_lstm.h5"
GRAPH = FIXTURES / "keras" / "05_func_encdec.keras"
KERAS2 = FIXTURES / "keras2" / "k2_01_lstm_hard_sigmoid.keras"
GRAPH2 = FIXTURES / "keras2" / "k2_10_states_compiled.keras"
# Keras, where it saves: its variables do not take NumPy's newer argument copy
SAVING = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def name_of(path: Path) -> str:
    return path.name


def stem(path: Path) -> Path:
    return path.parent / path.name.partition(".")[0]


# --- what is in a file ---


def config_of(path: Path) -> dict[str, Any]:
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    with h5py.File(path) as file:
        return json.loads(file.attrs["model_config"])


def kinds_in(value: Any) -> Iterator[str]:
    """The classes of all layers and cells in a config."""
    if isinstance(value, dict):
        inner = value.get("config")
        if isinstance(inner, dict) and "trainable" in inner and "name" in inner:
            yield value["class_name"]
        for part in value.values():
            yield from kinds_in(part)
    elif isinstance(value, list):
        for part in value:
            yield from kinds_in(part)


KNOWN = {*layers.LAYERS, "Sequential", "Functional", "CuDNNLSTM", "CuDNNGRU"}


def unknown_in(path: Path) -> set[str]:
    return set(kinds_in(config_of(path))) - KNOWN


def loadable(paths: list[Path]) -> list[Path]:
    return [p for p in paths if not unknown_in(stem(p).with_suffix(".h5"))]


# --- the numbers ---


def assert_outputs_are_those_of_the_file(model: Any, path: Path) -> None:
    arrays = np.load(stem(path).with_suffix(".npz"))
    inputs = {key[3:]: arrays[key] for key in arrays if key.startswith("in_")}
    x = inputs if len(inputs) > 1 else next(iter(inputs.values()))
    calls = sorted(key for key in arrays if "_call" in key)
    if calls:
        got = {key: model(x) for key in calls}
    else:
        got = {f"out{i}": part for i, part in enumerate(flat(model(x)).values())}
    want = {key: arrays[key] for key in arrays if key.startswith("out")}
    for key in want:
        compare({key: got[key]}, {key: want[key]}, RELATIVE[want[key].dtype.name], path.name)
    assert set(got) == set(want)


@pytest.mark.parametrize("path", WHOLE, ids=name_of)
def test_a_loaded_model_gives_keras_numbers_or_its_layer_is_refused_by_name(path: Path) -> None:
    unknown = unknown_in(path)
    if not unknown:
        model = load_model(path)
        assert isinstance(model, refrnn.Model)
        assert_outputs_are_those_of_the_file(model, path)
        return
    with pytest.raises(FileError, match="which refrnn does not have") as caught:
        load_model(path)
    assert any(kind in str(caught.value) for kind in unknown)
    assert str(path) in str(caught.value)


def test_only_the_custom_cell_is_refused() -> None:
    refused = {path.name for path in WHOLE if unknown_in(path)}
    assert refused <= {
        *("18_custom_cell.keras", "18_custom_cell.h5"),
        # until refrnn has Embedding
        *("03_seq_embed_simple.keras", "03_seq_embed_simple.h5", "04_seq_bidir_mask.keras"),
        *("04_seq_bidir_mask.h5", "k2_02_embed_bidir.keras", "k2_02_embed_bidir.h5"),
    }


@pytest.mark.parametrize("path", loadable([*WEIGHTS, *WHOLE]), ids=name_of)
def test_weights_of_every_format_fit_the_model(path: Path) -> None:
    model = load_model(stem(path).with_suffix(".h5"))
    model.set_weights([w * 0 + 9 for w in model.get_weights()])
    load_weights(model, path)
    assert_outputs_are_those_of_the_file(model, path)


@pytest.mark.parametrize("path", loadable(WHOLE), ids=name_of)
def test_weights_fit_layers_that_were_never_built(path: Path) -> None:
    loaded = load_model(path)
    model = type(loaded).from_config(loaded.get_config())
    load_weights(model, path) if "cudnn" not in path.name else load_weights(
        model, stem(path).with_suffix(".h5")
    )
    assert_outputs_are_those_of_the_file(model, path)


@SAVING
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_saved_graph_is_the_live_one(tf: Any, name: str, suffix: str, tmp_path: Path) -> None:
    source, x = graph(tf, name, "float32")
    path = tmp_path / f"model{suffix}"
    source.save(path)
    if name == "a_shared_layer_inside_and_outside" and suffix == ".keras":
        with pytest.raises(ValueError, match="is not connected"):  # Keras does not load it either
            tf.keras.models.load_model(path)
        refused(path, "model 'functional.*': has no weights of Dense 'dense.*', expected 2 in")
        return
    mine, want = load_model(path), from_keras(source)
    assert same_bits(flat(mine(x)), flat(want(x)))
    assert [item.name for item in mine.inputs] == [item.name for item in want.inputs]


@SAVING
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("frozen", ["forward_layer", "backward_layer", None])
def test_frozen_parts_of_a_layer_are_not_exchanged_with_the_others(
    tf: Any, frozen: str | None, suffix: str, tmp_path: Path
) -> None:
    """In .h5 frozen weights come after the others: of equal shapes, only the flags tell."""
    k = tf.keras.layers
    both = k.Bidirectional(k.LSTM(3, return_sequences=True))
    source = randomize(tf.keras.Sequential([k.Input((4, 2)), both, k.Dense(2)]))
    if frozen:
        getattr(both, frozen).trainable = False
    else:
        both.trainable = False
    path = tmp_path / f"model{suffix}"
    source.save(path)
    x = np.random.default_rng(0).normal(size=(2, 4, 2)).astype("f4")
    want = np.asarray(source(tf.tf.constant(x)))
    mine = load_model(path)
    compare({"y": mine(x)}, {"y": want}, RELATIVE["float32"], path.name)
    mine.save(path)
    again = np.asarray(tf.load(path)(tf.tf.constant(x)))
    compare({"y": again}, {"y": want}, RELATIVE["float32"], f"{path.name}, written")


def test_both_formats_and_both_names_hold_one_model() -> None:
    one, other = load_model(PLAIN), load_model(str(PLAIN_H5))
    assert [layer.get_config() for layer in one.layers] == [
        layer.get_config() for layer in other.layers
    ]
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()
    assert refrnn.load_model is load_model


def test_the_settings_are_kept() -> None:
    stored = config_of(PLAIN)["config"]["layers"][1]["config"]
    mine = load_model(PLAIN).layers[0].get_config()
    for key in ("name", "units", "activation", "recurrent_activation", "return_sequences"):
        assert mine[key] == stored[key]
    assert mine["kernel_initializer"]["class_name"] == "GlorotUniform"


def test_cudnn_weights_are_those_that_keras_2_converts_them_to() -> None:
    path = FIXTURES / "keras2" / "k2_08_cudnnlstm.h5"
    arrays, model = np.load(path.with_suffix(".npz")), load_model(path)
    assert type(model.layers[0]) is layers.LSTM
    for k, array in enumerate(model.get_weights()):
        assert array.tobytes() == arrays[f"plain_w{k}"].tobytes()


def test_cudnn_weights_of_a_gru_are_turned_block_by_block(tmp_path: Path) -> None:
    """No CuDNNGRU file is at hand: one is made from plain weights by the inverse of the rule."""
    F, H = 3, 4
    gru = layers.GRU(H, name="g")
    x = np.random.default_rng(0).normal(size=(2, 5, F)).astype("f4")
    gru(x)
    rng = np.random.default_rng(1)
    gru.set_weights([rng.normal(size=w.shape) for w in gru.get_weights()])
    kernel, recurrent, bias = gru.get_weights()
    blocks = [np.reshape(k, (H, F), order="F").T for k in np.hsplit(kernel, 3)]
    stored = {
        "kernel:0": np.hstack(blocks),
        "recurrent_kernel:0": np.hstack([k.T for k in np.hsplit(recurrent, 3)]),
        "bias:0": bias.reshape(-1),
    }
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["g"]
        group = file.create_group("g")
        group.attrs["weight_names"] = [f"g/{key}" for key in stored]
        for key, array in stored.items():
            group[f"g/{key}"] = array
    model = refrnn.Sequential([layers.GRU(H, name="g")])
    load_weights(model, path)
    assert same_bits({"y": model(x)}, {"y": gru(x)})
    with pytest.raises(FileError, match=r"bias has shape \(24,\)|CuDNN's bias"):
        load_weights(refrnn.Sequential([layers.GRU(H, reset_after=False, name="g")]), path)


def test_the_order_of_weights_is_that_of_their_names_not_of_the_file() -> None:
    """HDF5 lists bias first; and layer 'first' comes after 'second' in the model."""
    with h5py.File(PLAIN_H5) as file:
        assert next(iter(file["model_weights/lstm/sequential/lstm/lstm_cell"])) == "bias"
    names = [layer.name for layer in load_model(GRAPH2).layers]
    assert names.index("second") < names.index("first")


def test_long_lists_of_names_are_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "pieces.h5"
    path.write_bytes(PLAIN_H5.read_bytes())
    with h5py.File(path, "r+") as file:
        held = file["model_weights"].attrs
        names = list(held["layer_names"])
        del held["layer_names"]
        held["layer_names0"], held["layer_names1"] = names[:1], names[1:]
    assert_outputs_are_those_of_the_file(load_model(path), PLAIN)


# --- nothing else is loaded or run ---


def test_loading_imports_no_framework() -> None:
    program = f"""
import sys, refrnn
assert "h5py" not in sys.modules and "zipfile" not in sys.modules
for path in {[str(PLAIN), str(PLAIN_H5), str(KERAS2), str(GRAPH2)]}:
    refrnn.load_model(path)
print(*{{"tensorflow", "keras", "tf_keras", "torch", "jax", "pickle"}} & set(sys.modules))
"""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.stderr == ""
    assert set(run.stdout.split()) <= {"pickle"}  # NumPy's and h5py's own


def test_the_code_evaluates_and_imports_nothing_by_name() -> None:
    for path in (Path(refrnn.__file__).parent / "files").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Name):
                assert node.id not in {"eval", "exec", "compile", "__import__", "pickle"}, path
            if isinstance(node, ast.Attribute):
                assert node.attr not in {"extract", "extractall", "import_module", "loads_"}, path


def test_without_h5py_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_h5py(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "h5py":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_h5py)
    for path in (PLAIN, PLAIN_H5):
        with pytest.raises(ImportError, match=r"pip install 'refrnn\[files\]'"):
            load_model(path)


# --- making hostile files ---


def rezipped(path: Path, target: Path, **changes: Any) -> Path:
    """A .keras file with members exchanged, added, or (None) left out."""
    with zipfile.ZipFile(path) as archive:
        members: dict[str, Any] = {n: archive.read(n) for n in archive.namelist()}
    members |= {name.replace("__", "."): data for name, data in changes.items()}
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(name, data)
    return target


def reconfigured(path: Path, target: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A .keras file with its config changed."""
    config = config_of(path)
    text = change(config)
    return rezipped(path, target, config__json=text if text else json.dumps(config))


def rearranged(path: Path, target: Path, change: Callable[[Any], Any]) -> Path:
    """A .keras or .h5 file with its HDF5 tree changed."""
    data = path.read_bytes()
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            data = archive.read("model.weights.h5")
    stream = io.BytesIO(data)
    with h5py.File(stream, "r+") as file:
        change(file)
    if path.suffix == ".keras":
        return rezipped(path, target, model__weights__h5=stream.getvalue())
    target.write_bytes(stream.getvalue())
    return target


def refused(path: Path, message: str) -> None:
    with pytest.raises(FileError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert isinstance(caught.value, ValueError)


def layer_of(config: dict[str, Any], name: str) -> dict[str, Any]:
    return next(e for e in config["config"]["layers"] if e["config"]["name"] == name)


# --- archives ---


@pytest.mark.parametrize("path", [PLAIN, PLAIN_H5, GRAPH2], ids=name_of)
def test_a_file_that_is_cut_off_is_refused(path: Path, tmp_path: Path) -> None:
    data, cut = path.read_bytes(), tmp_path / f"cut{path.suffix}"
    for length in [*range(0, 100, 9), *range(100, len(data), len(data) // 60)]:
        cut.write_bytes(data[:length])
        refused(cut, ".")


def test_what_is_no_model_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.keras"
    for data in (b"", b"PK", b"hello" * 100, b"\x80\x04pickle.", b"\x89HDF\r\n\x1a\n"):
        path.write_bytes(data)
        refused(path, ".")
    refused(tmp_path, "is a folder, expected a file")
    refused(Path("/dev/zero"), "is a device or pipe, expected a file")
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "nowhere.keras")


def test_missing_and_doubled_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.keras"
    for name in archive_module.MEMBERS:
        rezipped(PLAIN, path, **{name.replace(".", "__"): None})
        refused(path, f"has 0 members '{name}'")
        rezipped(PLAIN, path)
        with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, b"{}")
        refused(path, f"has 2 members '{name}'")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil"])
def test_a_name_that_leads_out_of_the_archive_is_refused(name: str, tmp_path: Path) -> None:
    refused(rezipped(PLAIN, tmp_path / "x.keras", **{name: b"x"}), "without '..'")
    assert [p.name for p in tmp_path.iterdir()] == ["x.keras"]


def test_a_damaged_member_is_refused(tmp_path: Path) -> None:
    data = bytearray(PLAIN.read_bytes())
    data[data.index(b'"units"') + 9] ^= 1
    path = tmp_path / "x.keras"
    path.write_bytes(data)
    refused(path, "config.json.*CRC")


def test_a_zip_bomb_is_refused_before_it_unfolds(tmp_path: Path) -> None:
    path = tmp_path / "bomb.keras"
    for name, limit in (("config.json", 4 << 20), ("model.weights.h5", 64 << 20)):
        with zipfile.ZipFile(PLAIN) as good:
            members = {n: good.read(n) for n in good.namelist()}
        members[name] = b" " * (80 << 20)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for key, data in members.items():
                archive.writestr(key, data)
        assert path.stat().st_size < 1 << 20
        refused(path, rf"{name}: holds more than {str(limit)[:2]}\d* bytes.*zip bomb")


def test_other_compressions_and_passwords_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.keras"
    with zipfile.ZipFile(PLAIN) as good:
        members = {n: good.read(n) for n in good.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        for key, data in members.items():
            archive.writestr(key, data)
    refused(path, "compressed by method 12")
    data = bytearray(PLAIN.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    refused(path, "encrypted")


def test_a_compressed_archive_loads(tmp_path: Path) -> None:
    path = tmp_path / "x.keras"
    with zipfile.ZipFile(PLAIN) as good, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in good.namelist():
            new.writestr(name, good.read(name))
    assert_outputs_are_those_of_the_file(load_model(path), PLAIN)


# --- JSON ---


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested 100000 deep"),
        ('{"a":' * 200_000, "nested 200000 deep"),
        ('{"a": [' + "[]," * 300_000 + "[]]}", "has 300003 parts, expected at most 64 and 200000"),
        ("", "Expecting value"),
        ("[]", "is a list, expected an object"),
        ('{"a": 1, "a": 2}', "key 'a' twice"),
        ('{"a": ' + "9" * 5000 + "}", "integer of 5000 digits"),
        ('"' + "\\" * 100_001, "."),
        (b"\xff\xfe{}", "."),
        ("{} x", "Extra data"),
        ("{}", "expected 'Sequential' or 'Functional'"),
    ],
)
def test_json_that_is_no_config_is_refused(text: Any, message: str, tmp_path: Path) -> None:
    refused(rezipped(PLAIN, tmp_path / "x.keras", config__json=text), message)


def test_brackets_in_texts_are_not_nesting(tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["note"] = '\\"[' + "[{" * 100

    assert load_model(reconfigured(PLAIN, tmp_path / "x.keras", change))


@pytest.mark.parametrize("version", [None, 3, "1.2", "4.0", "", "three"])
def test_another_generation_of_keras_is_refused(version: Any, tmp_path: Path) -> None:
    text = json.dumps({"keras_version": version})
    path = rezipped(PLAIN, tmp_path / "x.keras", metadata__json=text)
    refused(path, "keras_version is .*, expected that of Keras 2 or 3")


# --- configs ---


def lambda_layer(config: dict[str, Any]) -> None:
    layer_of(config, "dense")["class_name"] = "Lambda"


def lambda_activation(config: dict[str, Any]) -> None:
    layer_of(config, "dense")["config"]["activation"] = {
        "class_name": "__lambda__",
        "config": {"value": "4wEAAAA="},
    }


def function_activation(config: dict[str, Any]) -> None:
    layer_of(config, "dense")["config"]["activation"] = {
        "module": "builtins",
        "class_name": "function",
        "config": "eval",
        "registered_name": "function",
    }


def class_of_another_module(config: dict[str, Any]) -> None:
    layer_of(config, "dense").update(module="os", class_name="system")


def registered_class(config: dict[str, Any]) -> None:
    layer_of(config, "lstm").update(module=None, registered_name="mine>LSTM")


def subclass_model(config: dict[str, Any]) -> None:
    config["class_name"] = "MyModel"


def names_twice(config: dict[str, Any]) -> None:
    layer_of(config, "lstm_1")["config"]["name"] = "lstm"


def huge_units(config: dict[str, Any]) -> None:
    layer_of(config, "lstm")["config"]["units"] = 10**12


def odd_class(config: dict[str, Any]) -> None:
    config["class_name"] = ["Sequential"]


def mixed_precision(config: dict[str, Any]) -> None:
    layer_of(config, "lstm")["config"]["dtype"]["config"]["name"] = "mixed_int8"


def odd_dtype(config: dict[str, Any]) -> None:
    layer_of(config, "lstm")["config"]["dtype"] = "(9999,9999,9999)f4"


def unknown_argument(config: dict[str, Any]) -> None:
    layer_of(config, "lstm")["config"]["projection"] = 3


def no_layers(config: dict[str, Any]) -> None:
    config["config"]["layers"] = []


def layer_that_is_text(config: dict[str, Any]) -> None:
    config["config"]["layers"][1] = "lstm" * 10_000


def another_layer(config: dict[str, Any]) -> None:
    layer_of(config, "dense")["class_name"] = "MultiHeadAttention"


def input_twice(config: dict[str, Any]) -> None:
    entry = copy.deepcopy(config["config"]["layers"][0])
    entry["config"]["name"] = "other"
    config["config"]["layers"].append(entry)


def input_of_odd_shape(config: dict[str, Any]) -> None:
    config["config"]["layers"][0]["config"]["batch_shape"] = [None, "x", -3]


def too_many_layers(config: dict[str, Any]) -> None:
    config["config"]["layers"] += [
        {"class_name": "Dropout", "config": {"name": f"d{k}", "rate": 0.5}} for k in range(20_000)
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (too_many_layers, "has 20004 layers, expected at most 1000"),
        (lambda_layer, "Lambda, which is code"),
        (lambda_activation, "__lambda__, which is code"),
        (function_activation, "function, which is code"),
        (class_of_another_module, "'dense' is a 'system' of module 'os'"),
        (registered_class, "'mine>LSTM'"),
        (subclass_model, "model is a 'MyModel'"),
        (names_twice, "two layers are called 'lstm'"),
        (huge_units, r"kernel has shape \(3, 16\), expected \(3, 4000000000000\)"),
        (odd_class, r"the model is a \['Sequential'\], expected"),
        (mixed_precision, "dtype is 'mixed_int8'"),
        (odd_dtype, "dtype is '.9999"),
        (unknown_argument, "unknown argument projection=3"),
        (no_layers, "expected a list"),
        (layer_that_is_text, "a layer is 'lstm"),
        (another_layer, "'dense' is a 'MultiHeadAttention', which refrnn does not have"),
        (input_twice, "2 inputs, expected at most one"),
        (input_of_odd_shape, r"has shape \[None, 'x', -3\]"),
    ],
)
def test_a_config_that_is_not_of_refrnns_layers_is_refused(
    change: Any, message: str, tmp_path: Path
) -> None:
    refused(reconfigured(PLAIN, tmp_path / "x.keras", change), message)


def history(config: dict[str, Any], layer: str) -> list[Any]:
    node = layer_of(config, layer)["inbound_nodes"][0]
    return node["args"][0]["config"]["keras_history"]


def cycle(config: dict[str, Any]) -> None:
    history(config, "encoder")[:] = ["decoder", 0, 0]


def own_output(config: dict[str, Any]) -> None:
    history(config, "proj")[:] = ["proj", 0, 0]


def layer_not_there(config: dict[str, Any]) -> None:
    history(config, "proj")[:] = ["nobody", 0, 0]


def call_not_there(config: dict[str, Any]) -> None:
    history(config, "proj")[:] = ["decoder", 1, 0]


def tensor_not_there(config: dict[str, Any]) -> None:
    history(config, "proj")[:] = ["decoder", 0, 3]


def negative_tensor(config: dict[str, Any]) -> None:
    history(config, "proj")[:] = ["decoder", 0, -1]


def history_of_text(config: dict[str, Any]) -> None:
    history(config, "proj")[:] = ["decoder", "0", None]


def output_not_there(config: dict[str, Any]) -> None:
    config["config"]["output_layers"][0] = ["proj", 0, 1]


def no_outputs(config: dict[str, Any]) -> None:
    config["config"]["output_layers"] = []


def input_not_listed(config: dict[str, Any]) -> None:
    del config["config"]["input_layers"][0]


def unknown_call_argument(config: dict[str, Any]) -> None:
    layer_of(config, "proj")["inbound_nodes"][0]["kwargs"]["speed"] = 3


def too_many_calls(config: dict[str, Any]) -> None:
    layer_of(config, "proj")["inbound_nodes"] *= 1001


def huge_constant(config: dict[str, Any]) -> None:
    layer_of(config, "proj")["inbound_nodes"][0]["args"] = [
        {"class_name": "__tensor__", "config": {"value": [1.0], "dtype": "(99999,99999)f8"}}
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cycle, "wait for one another"),
        (own_output, "wait for one another"),
        (layer_not_there, "refers to layer 'nobody', which is not in the file"),
        (call_not_there, "refers to call 1 of layer 'decoder', expected 0 to 0"),
        (tensor_not_there, "refers to tensor 3 of layer 'decoder', expected 0 to 2"),
        (negative_tensor, "refers to tensor -1"),
        (history_of_text, r"expected \[layer, call, tensor\]"),
        (output_not_there, "refers to tensor 1 of layer 'proj', expected 0 to 0"),
        (no_outputs, "output_layers is"),
        (input_not_listed, "expected each InputLayer once"),
        (unknown_call_argument, "unexpected keyword argument 'speed'"),
        (too_many_calls, "layers are called 1005 times, expected at most 1000"),
        (huge_constant, "a constant is"),
    ],
)
def test_a_graph_that_does_not_hold_together_is_refused(
    change: Any, message: str, tmp_path: Path
) -> None:
    refused(reconfigured(GRAPH, tmp_path / "x.keras", change), message)


def constants(config: dict[str, Any]) -> None:
    layer_of(config, "gru")["config"]["num_constants"] = 2


def implementation(config: dict[str, Any]) -> None:
    layer_of(config, "gru")["config"]["implementation"] = 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (constants, "GRU 'gru': num_constants is 2, expected 0"),
        (implementation, "implementation is 7"),
    ],
)
def test_settings_of_keras_2_that_change_numbers_are_refused(
    change: Any, message: str, tmp_path: Path
) -> None:
    refused(reconfigured(KERAS2, tmp_path / "x.keras", change), message)


@SAVING
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_a_mixed_policy_computes_in_16_bits(
    tf: Any, half: str, suffix: str, tmp_path: Path
) -> None:
    k, policy = tf.keras.layers, f"mixed_{half}"
    source = randomize(
        tf.keras.Sequential(
            [
                k.Input((6, 3)),
                k.LSTM(4, return_sequences=True, dtype=policy),
                k.LayerNormalization(dtype=policy),
                k.Bidirectional(k.GRU(3, dtype=policy), dtype=policy),
                k.Dense(2, "softmax"),
            ]
        )
    )
    source.save(tmp_path / f"model{suffix}")
    model = load_model(tmp_path / f"model{suffix}")
    assert model.layers[0].dtype.name == half
    x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
    # six steps of three layers, each rounded to half's spacing; Keras adds up products in float32
    limit = 8 * {"float16": 2**-10, "bfloat16": 2**-7}[half]
    assert np.abs(model(x) - np.asarray(source(x))).max() < limit


def test_an_axis_of_keras_2_is_one_number_in_keras_3() -> None:
    entry = {"class_name": "BatchNormalization", "config": {"name": "b", "axis": [2]}}
    new = upgrade({"class_name": "Sequential", "config": {"name": "m", "layers": [entry]}})
    assert new["config"]["layers"][0]["config"]["axis"] == 2
    assert entry["config"]["axis"] == [2]


def test_a_mask_and_a_state_together_are_refused_from_keras_2(tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        layer_of(config, "shared")["config"]["mask_zero"] = True

    refused(reconfigured(GRAPH2, tmp_path / "x.keras", change), "Keras 2 applies both")


def test_hard_sigmoid_is_that_of_the_generation_that_wrote_the_file() -> None:
    old, new = load_model(GRAPH2), load_model(FIXTURES / "keras" / "21_states_compiled.keras")
    for model, name in ((old, "hard_sigmoid_keras2"), (new, "hard_sigmoid")):
        by_name = {layer.name: layer for layer in model.layers}
        assert by_name["gru"].get_config()["recurrent_activation"] == name
        assert by_name["shared"].get_config()["activation"] == name


# --- weights ---

KERNEL = "layers/lstm/cell/vars/0"


def exchange(value: Any, **options: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[KERNEL]
        file.create_dataset(KERNEL, data=value, **options)

    return change


def missing_array(file: Any) -> None:
    del file["layers/lstm/cell/vars/2"]


def missing_first_array(file: Any) -> None:
    del file[KERNEL]


def missing_layer(file: Any) -> None:
    del file["layers/dense"]


def surplus_array(file: Any) -> None:
    file["layers/lstm/cell/vars/3"] = np.zeros(3, "f4")


def surplus_layer(file: Any) -> None:
    file["layers/lstm_2/cell/vars/0"] = np.zeros(3, "f4")


def surplus_folder(file: Any) -> None:
    file["payload/0"] = np.zeros(3, "f4")


def huge_array(file: Any) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, (10**12, 10**5), "f4", chunks=(100, 100))


def unwritten_array(file: Any) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, (3, 10**15), "f4")


def soft_link(file: Any) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.SoftLink("/layers/lstm/cell/vars/1")


def external_link(file: Any) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.ExternalLink("/etc/passwd", "/x")


def soft_folder(file: Any) -> None:
    file.move("layers/lstm", "layers/other")
    file["layers/lstm"] = h5py.SoftLink("/layers/other")


def external_storage(file: Any) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, (3, 16), "f4", external=[("/etc/passwd", 0, 192)])


def virtual_dataset(file: Any) -> None:
    del file[KERNEL]
    layout = h5py.VirtualLayout((3, 16), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3, 16))
    file.create_virtual_dataset(KERNEL, layout)


def circle_of_folders(file: Any) -> None:
    file["layers/lstm/cell/again"] = file["layers"]


def folder_for_an_array(file: Any) -> None:
    del file[KERNEL]
    file.create_group(KERNEL)


def named_type(file: Any) -> None:
    del file[KERNEL]
    file[KERNEL] = np.dtype("f8")


def not_finite(value: float) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        file[KERNEL][1, 5] = value

    return change


def infinite_in_float32(file: Any) -> None:
    del file[KERNEL]
    file[KERNEL] = np.full((3, 16), 1e200)


FLOATS = np.ones((3, 16), "f4")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (exchange(FLOATS[:, :15]), r"kernel has shape \(3, 15\), expected \(3, 16\)"),
        (exchange(FLOATS.ravel()), r"kernel has shape \(48,\)"),
        (exchange(np.float32(1)), r"kernel has shape \(\)"),
        (exchange(FLOATS.astype("i4")), "type dtype.'int32'., expected floats"),
        (exchange(FLOATS.astype("c8")), "expected floats"),
        (exchange(FLOATS.astype("g")), "expected floats of 2, 4 or 8 bytes"),
        (exchange(FLOATS.astype("S3")), "expected floats"),
        (exchange(["a", "b"], dtype=h5py.string_dtype()), "expected floats"),
        (exchange(None, shape=(1,), dtype=h5py.vlen_dtype("f4")), "expected floats"),
        (exchange(h5py.Empty("f4")), "declares shape None"),
        (exchange(FLOATS, compression="gzip"), "chunked or compressed"),
        (exchange(FLOATS, chunks=(1, 1)), "chunked or compressed"),
        (missing_array, "set_weights got 2 arrays, expected 3"),
        (missing_first_array, r"has arrays \['1', '2'\]"),
        (missing_layer, "set_weights got 0 arrays, expected 2"),
        (surplus_array, "set_weights got 4 arrays, expected 3"),
        (surplus_layer, "has weights 'layers/lstm_2/cell/vars/0'"),
        (surplus_folder, "the root has folders"),
        (huge_array, "chunked or compressed"),
        (unwritten_array, "declares shape .3, 1000000000000000."),
        (soft_link, "is a SoftLink"),
        (external_link, "is a ExternalLink"),
        (soft_folder, "is a SoftLink"),
        (external_storage, "from other files"),
        (virtual_dataset, "from other files"),
        (circle_of_folders, "reached twice"),
        (folder_for_an_array, "is a folder, expected an array"),
        (named_type, "is a folder|expected an array"),
        (not_finite(np.nan), r"kernel has 1 values that are not finite, the first nan at \[1, 5\]"),
        (not_finite(-np.inf), "kernel has 1 values that are not finite"),
        (infinite_in_float32, "kernel in float32 has 48 values that are not finite"),
    ],
)
def test_weights_that_are_not_the_models_are_refused(
    change: Any, message: str, tmp_path: Path
) -> None:
    path = rearranged(PLAIN, tmp_path / "x.keras", change)
    refused(path, message)
    model = load_model(PLAIN)
    before = model.get_weights()
    with pytest.raises(FileError, match=message):
        load_weights(model, path)
    for now, then in zip(model.get_weights(), before, strict=True):
        assert now.tobytes() == then.tobytes()


@pytest.mark.parametrize("dtype", [">f4", "f8", ">f8", "f2"])
def test_weights_of_other_floats_are_read(dtype: str, tmp_path: Path) -> None:
    path = rearranged(PLAIN, tmp_path / "x.keras", exchange(np.full((3, 16), 0.25, dtype)))
    kernel = load_model(path).get_weights()[0]
    assert (kernel.dtype.str, kernel.flat[0]) == ("<f4", 0.25)


def attribute(place: str, name: str, value: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[place].attrs[name]
        if value is not None:
            file[place].attrs[name] = value

    return change


LSTM = "model_weights/lstm"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (attribute("/", "model_config", None), "has no attribute model_config"),
        (attribute("/", "model_config", 3), "expected text"),
        (attribute("/", "model_config", ["{}", "{}"]), "has 2 texts, expected 1"),
        (attribute("/", "keras_version", None), "keras_version is None"),
        (attribute("model_weights", "layer_names", None), "no attribute layer_names"),
        (attribute("model_weights", "layer_names", ["lstm", "dense"]), "does not list"),
        (attribute("model_weights", "layer_names", ["lstm", "lstm", "dense"]), "'lstm' twice"),
        (attribute("model_weights", "layer_names", ["lstm", "lstm_1", "dense", "../x"]), "path"),
        (attribute(LSTM, "weight_names", []), "expected only those of the model"),
        (attribute(LSTM, "weight_names", ["a", "b", "c"]), "is missing"),
        (attribute(LSTM, "weight_names", ["a/../b", "b", "c"]), "is no path of names"),
        (attribute(LSTM, "weight_names", ["/", "b", "c"]), "is no path of names"),
    ],
)
def test_names_that_lead_nowhere_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    refused(rearranged(PLAIN_H5, tmp_path / "x.h5", change), message)


def test_a_text_that_declares_to_be_longer_than_it_is_is_refused(tmp_path: Path) -> None:
    """libhdf5 would allocate as much: 4 GiB for each."""
    path = tmp_path / "x.h5"
    for length in (2**32 - 1, 2**31, 4096):
        data = bytearray(PLAIN_H5.read_bytes())
        heap = data.index(b"GCOL\x01")
        named = struct.pack("<IQ", len("sequential/lstm/lstm_cell/kernel"), heap)
        struct.pack_into("<I", data, data.index(named), length)
        path.write_bytes(data)
        refused(path, f"has a text of {length} bytes .* damaged")


def test_a_header_that_libhdf5_would_measure_for_ever_is_refused(tmp_path: Path) -> None:
    """Found by benchmarks/fuzz_files.py, seed 1045282; in a process that can be ended."""
    data = bytearray((FIXTURES / "keras" / "05_func_encdec.h5").read_bytes())
    for places, value in (((18544,), 8), ((18606, 18607, 26816, 26817), 255), ((18670,), 1)):
        for place in places:
            data[place] = value
    data[18671] = 0
    path = tmp_path / "x.h5"
    path.write_bytes(data)
    program = f"import refrnn; refrnn.load_model({str(path)!r})"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert "FileError" in run.stderr


def test_many_references_to_one_long_text_are_refused(tmp_path: Path) -> None:
    """They would be a text each in memory: 4,000 of 60,000 bytes."""
    path = tmp_path / "x.h5"
    path.write_bytes(PLAIN_H5.read_bytes())
    with h5py.File(path, "r+") as file:
        del file["model_weights"].attrs["layer_names"]
        file["model_weights"].attrs["layer_names"] = ["y" * 60_000, *["same"] * 3999]
    data = bytearray(path.read_bytes())
    text = data.index(b"y" * 60_000)
    heap = data.rindex(b"GCOL\x01", 0, text)
    first = data.index(struct.pack("<IQI", 60_000, heap, 1))
    for k in range(4000):
        data[first + 16 * k : first + 16 * k + 16] = data[first : first + 16]
    path.write_bytes(data)
    refused(path, "has a text of 60000 bytes .* no more than the file")


def test_a_heap_that_libhdf5_would_walk_for_ever_is_refused(tmp_path: Path) -> None:
    data = bytearray(PLAIN_H5.read_bytes())
    heap = data.index(b"GCOL\x01")
    path = tmp_path / "x.h5"
    for index, length in ((0, 0), (1, 2**64 - 16), (1, 2**40), (0, 8), (1, 0)):
        struct.pack_into("<HH4xQ", data, heap + 16, index, 1, length)
        path.write_bytes(data)
        refused(path, "damaged")


@pytest.mark.parametrize("libver", ["earliest", "v108", "v110", "latest"])
def test_every_version_of_the_format_is_read(libver: str, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(PLAIN_H5) as old, h5py.File(path, "w", libver=libver) as new:
        for key in old:
            old.copy(key, new)
        new.attrs.update(old.attrs)
        held = new["model_weights/lstm"].attrs  # a copy keeps its form: these are written anew
        held["weight_names"] = [name.encode() for name in held["weight_names"]]
        for k in range(4):
            held[f"more{k}"] = "x" * 3000
    assert_outputs_are_those_of_the_file(load_model(path), PLAIN)


def test_weights_alone_are_no_model() -> None:
    refused(FIXTURES / "keras" / "01_seq_lstm.weights.h5", "has no attribute model_config")


def test_weights_of_another_model_are_refused() -> None:
    model = load_model(PLAIN)
    before = model.get_weights()
    for path in WEIGHTS:
        if path.name.startswith("01"):
            continue
        with pytest.raises(FileError) as caught:
            load_weights(model, path)
        assert str(path) in str(caught.value)
    for now, then in zip(model.get_weights(), before, strict=True):
        assert now.tobytes() == then.tobytes()
