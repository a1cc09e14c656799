"""`refrnn inspect` says what is in a model file: the layers, counts and shapes that Keras
has in it, and every layer, setting and array for which refrnn does not load it.
"""

import copy
import json
import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_files import (
    FIXTURES,
    GRAPH2,
    KERNEL,
    PLAIN,
    PLAIN_H5,
    WEIGHTS,
    WHOLE,
    config_of,
    name_of,
    rearranged,
    reconfigured,
)

import refrnn
from refrnn import files
from refrnn.cli import AGREES, DIFFERS, UNJUDGED, main
from refrnn.files import FileError, Inspection, inspect, load_model

TFJS = sorted(path.parent for path in FIXTURES.glob("tfjs/*/model.json"))
CUSTOM = FIXTURES / "keras" / "18_custom_cell.keras"
SAVING = pytest.mark.filterwarnings("ignore")  # Keras: NumPy's copies, HDF5 as legacy, Lambda


def whats(found: Inspection) -> list[str]:
    return [f"{problem.where}: {problem.what}" for problem in found.problems]


def said_of(found: Inspection, *patterns: str) -> None:
    """The problems are these, in any order, and no others."""
    left = whats(found)
    for pattern in patterns:
        hits = [text for text in left if re.search(pattern, text)]
        assert len(hits) == 1, (pattern, left)
        left.remove(hits[0])
    assert left == []


# --- what is in a file, against Keras ---


def opened_by_keras(tf: Any, path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.parent.name == "keras":
            return tf.keras.models.load_model(path, compile=False)
        tf_keras = pytest.importorskip("tf_keras")
        return tf_keras.models.load_model(path, compile=False)


def shapes_of(layer: Any) -> list[tuple[int | None, ...]]:
    output = layer.output
    parts = output if isinstance(output, list | tuple) else [output]
    return [tuple(part.shape) for part in parts]


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.name)
def test_layers_counts_and_shapes_are_those_of_keras(tf: Any, path: Path) -> None:
    found = inspect(path)
    if path.stem == CUSTOM.stem:
        assert not found.runs
        return
    assert found.runs, found
    source = opened_by_keras(tf, path)
    wanted = [layer for layer in source.layers if type(layer).__name__ != "InputLayer"]
    assert [row.name for row in found.layers] == [layer.name for layer in wanted]
    for row, layer in zip(found.layers, wanted, strict=True):
        assert row.kind == type(layer).__name__
        assert row.parameters == layer.count_params(), row
        assert row.bytes == sum(np.asarray(w).nbytes for w in layer.get_weights())
        assert row.shapes == shapes_of(layer), row
        assert bool(row.settings.get("stateful")) == bool(getattr(layer, "stateful", False))
    assert found.parameters == source.count_params()
    assert [item.shape for item in found.inputs] == [tuple(x.shape) for x in source.inputs]
    assert [item.shape for item in found.outputs] == [tuple(x.shape) for x in source.outputs]
    assert found.generation == (3 if path.parent.name == "keras" else 2)
    assert f"Keras {found.generation}." in found.writer


@pytest.mark.parametrize("path", TFJS, ids=lambda path: path.name)
def test_counts_of_tfjs_are_those_of_its_list(path: Path) -> None:
    found = inspect(path)
    manifest = json.loads((path / "model.json").read_text())["weightsManifest"]
    specs = [spec for group in manifest for spec in group["weights"]]
    assert found.runs, found
    assert found.parameters == sum(int(np.prod(spec["shape"])) for spec in specs)
    assert found.parameters == sum(row.parameters or 0 for row in found.layers)
    listed = {name for group in manifest for name in group["paths"]}
    assert found.bytes == sum((path / name).stat().st_size for name in listed)
    assert set(found.hard_sigmoid) <= {"hard_sigmoid_keras2"}
    assert found.to_dict() == inspect(path / "model.json").to_dict() | {"path": str(path)}


@pytest.mark.parametrize("path", [*WHOLE, *TFJS], ids=lambda path: path.name)
def test_shapes_are_those_that_the_layers_return(path: Path) -> None:
    """They are found by rules; running the layers on zeros must give the same."""
    found = inspect(path)
    if not found.runs:
        return
    model = load_model(path)
    values = model.symbols()
    for row in found.layers:
        mine = [s.shape for ref, s in values.items() if ref[:2] == (row.name, 0)]
        assert row.shapes == mine, row


def test_what_runs_is_what_loads() -> None:
    for path in [*WHOLE, *TFJS]:
        try:
            load_model(path)
        except FileError:
            assert not inspect(path).runs
        else:
            assert inspect(path).runs


def test_hard_sigmoid_is_that_of_the_generation() -> None:
    assert inspect(GRAPH2).hard_sigmoid == {"hard_sigmoid_keras2": ["gru", "shared"]}
    new = inspect(FIXTURES / "keras" / "21_states_compiled.keras")
    assert new.hard_sigmoid == {"hard_sigmoid": ["gru", "shared"]}
    assert "0.2 x + 0.5" in str(inspect(GRAPH2))
    assert inspect(PLAIN).hard_sigmoid == {}


def test_what_training_left_and_what_cannot_be_cut_is_said() -> None:
    for suffix in (".keras", ".h5"):
        found = inspect(FIXTURES / "keras" / f"21_states_compiled{suffix}")
        assert found.training == ["state of the optimizer", "loss and optimizer settings"]
        assert found.whole == load_model(found.path).why_whole()
        assert found.whole in str(found).replace("\n" + " " * 14, " ")
    assert inspect(PLAIN).training == []
    stateful = str(inspect(FIXTURES / "keras" / "09_stateful.keras"))
    assert "stateful layers start from zeros" in stateful
    assert "start from zeros" not in str(inspect(PLAIN))


def test_what_stands_inside_is_listed() -> None:
    found = inspect(FIXTURES / "keras" / "06_stacked_cells.keras").layers[0]
    assert [row.kind for row in found.inside] == ["LSTMCell", "GRUCell", "SimpleRNNCell"]
    assert sum(row.parameters or 0 for row in found.inside) == found.parameters
    nested = inspect(FIXTURES / "tfjs" / "nested").layers[0]
    assert [row.name for row in nested.inside] == ["first", "second"]


# --- what is in the way ---


@pytest.fixture(scope="module")
def odd(tf: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Files with a Lambda, also inside a wrapper, a custom class, an unknown layer and code."""
    keras, k = tf.keras, tf.keras.layers

    @keras.saving.register_keras_serializable("mine")
    class Scale(k.Layer):  # type: ignore[misc, name-defined]
        def build(self, shape: Any) -> None:
            self.scale = self.add_weight(shape=(shape[-1],))

        def call(self, x: Any) -> Any:
            return x * self.scale

    x = k.Input((5, 3), name="x")
    h = k.LSTM(4, return_sequences=True, dropout=0.1, name="lstm")(x)
    h = k.Lambda(lambda y: y * 2, name="twice", output_shape=(5, 4))(h)
    h = Scale(name="scale")(h)
    h = k.Bidirectional(k.GRU(3, return_sequences=True), name="bi")(h)
    h = k.TimeDistributed(k.Lambda(lambda y: y + 1, name="inner"), name="td")(h)
    h = k.MultiHeadAttention(2, 2, name="attention")(h, h)
    h = k.Dense(2, activation=lambda y: y, name="dense")(h)
    model = keras.Model(x, h)
    folder = tmp_path_factory.mktemp("odd")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for suffix in (".keras", ".h5"):
            model.save(folder / f"odd{suffix}")
    np.savez(folder / "counts.npz", **{y.name: y.count_params() for y in model.layers})
    return lambda suffix: folder / f"odd{suffix}"


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_every_layer_in_the_way_is_named(odd: Callable[[str], Path], suffix: str) -> None:
    path = odd(suffix)
    found = inspect(path)
    said_of(
        found,
        r"^twice \(Lambda\): .*Lambda.*code",
        r"^scale \(.*Scale\): .*custom_objects=\{'Scale'",
        r"^td \(TimeDistributed\) / inner \(Lambda\): .*code",
        r"^attention \(MultiHeadAttention\): .*refrnn does not have",
        r"^dense \(Dense\): .*activation.*code|^dense \(Dense\): .*lambda.*code",
    )
    counts = np.load(path.parent / "counts.npz")
    assert {row.name: row.parameters for row in found.layers} == {
        name: int(counts[name]) for name in counts if name != "x"
    }
    by_name = {row.name: row for row in found.layers}
    assert by_name["lstm"].settings == {"return_sequences": True, "dropout": 0.1}
    assert [row.parameters for row in by_name["bi"].inside] == [81, 81]
    assert by_name["scale"].shapes == [(None, 5, 4)]
    assert [item.name for item in found.outputs] == ["dense"]


def test_a_custom_class_is_said_to_be_supplied_by_custom_objects() -> None:
    found = inspect(CUSTOM)
    said_of(
        found, r"^rnn_1 \(RNN\) / minimal_cell \(MinimalCell\): .*custom_objects=.'MinimalCell'"
    )
    assert found.parameters == 10


def test_every_setting_in_the_way_is_named(tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        for entry in config["config"]["layers"]:
            if entry["class_name"] == "LSTM":
                entry["config"] |= {"num_constants": 2, "dtype": "int8", "gates": 5}
            if entry["class_name"] == "GRU":
                entry["config"] |= {"dropout": "much"}

    old = config_of(GRAPH2)["config"]["layers"]
    lstms = [e["config"]["name"] for e in old if e["class_name"] == "LSTM"]
    grus = [e["config"]["name"] for e in old if e["class_name"] == "GRU"]
    found = inspect(reconfigured(GRAPH2, tmp_path / "x.keras", change))
    patterns = [
        rf"^{name} .*{setting}"
        for name in lstms
        for setting in ("num_constants is 2", "dtype is 'int8'", "argument gates=5")
    ]
    said_of(found, *patterns, *(rf"^{name} .*dropout is 'much'" for name in grus))
    assert found.hard_sigmoid == {"hard_sigmoid_keras2": ["gru", "shared"]}  # made or not


def test_a_setting_that_must_be_there_is_said_once(tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][1]["config"]["units"] = -3

    said_of(inspect(reconfigured(PLAIN, tmp_path / "x.keras", change)), "units is -3")


def test_settings_around_a_layer_in_the_way_are_looked_at_too(tmp_path: Path) -> None:
    path = FIXTURES / "keras" / "04_seq_bidir_mask.keras"

    def change(config: dict[str, Any]) -> None:
        for entry in config["config"]["layers"]:
            if entry["class_name"] == "Bidirectional":
                entry["config"]["merge_mode"] = "xor"
                entry["config"]["layer"]["config"]["dropout"] = "some"
                break

    said_of(
        inspect(reconfigured(path, tmp_path / "x.keras", change)),
        r"Bidirectional\) / .*dropout is 'some'",
        r"Bidirectional\): .*merge_mode is 'xor'",
    )


def test_a_graph_in_the_way_is_said_of_the_model(tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["config"]["output_layers"] = [["nobody", 0, 0]]

    path = FIXTURES / "keras" / "05_func_encdec.keras"
    said_of(inspect(reconfigured(path, tmp_path / "x.keras", change)), "^: .*'nobody'")


def test_a_model_of_a_class_of_its_own_and_no_version(tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["class_name"] = "Mine"

    said_of(inspect(reconfigured(PLAIN, tmp_path / "x.keras", change)), "the model is a 'Mine'")

    def forget(file: Any) -> None:
        del file.attrs["keras_version"]

    said_of(inspect(rearranged(PLAIN_H5, tmp_path / "x.h5", forget)), "keras_version is None")


# --- weights in the way ---


def test_every_array_in_the_way_is_named(tmp_path: Path) -> None:
    def change(file: Any) -> None:
        values = file[KERNEL][()]
        values[1, 5], values[0, 0] = np.nan, -np.inf
        file[KERNEL][...] = values
        del file["layers/dense/vars/1"]
        file["layers/other/vars/0"] = np.zeros(3, "f4")

    found = inspect(rearranged(PLAIN, tmp_path / "x.keras", change))
    said_of(
        found,
        r"^lstm \(LSTM\): array '.*/vars/0' \(3, 16\) has 2 numbers .* the first -inf at \[0, 0\]",
        r"^dense \(Dense\): set_weights got 1 arrays, expected 2",
        r"^: array 'layers/other/vars/0' \(3,\) is of no layer",
    )


@pytest.mark.parametrize(
    ("path", "place"), [(PLAIN, KERNEL), (PLAIN_H5, None)], ids=["tree", "names"]
)
def test_shapes_and_forms_of_arrays_in_the_way(
    path: Path, place: str | None, tmp_path: Path
) -> None:
    def kernel(file: Any) -> str:
        if place:
            return place
        layer = next(name for name in file["model_weights"] if name.startswith("lstm"))
        [name, *_] = file[f"model_weights/{layer}"].attrs["weight_names"]
        return f"model_weights/{layer}/{name}"

    def reshape(file: Any) -> None:
        at = kernel(file)
        del file[at]
        file[at] = np.ones((3, 15), "f4")

    def compress(file: Any) -> None:
        at = kernel(file)
        del file[at]
        file.create_dataset(at, data=np.ones((3, 16), "f4"), compression="gzip")

    target = tmp_path / f"x{path.suffix}"
    said_of(inspect(rearranged(path, target, reshape)), r"^lstm.*: kernel has shape \(3, 15\)")
    said_of(inspect(rearranged(path, target, compress)), r"^lstm.*: array .*compressed")


def test_second_layers_of_a_kind_are_checked_against_their_own_arrays(tmp_path: Path) -> None:
    path = FIXTURES / "keras" / "05_func_encdec.keras"

    def change(file: Any) -> None:
        at = "layers/lstm_1/cell/vars/2"
        del file[at]
        file[at] = np.ones(5, "f4")

    said_of(
        inspect(rearranged(path, tmp_path / "x.keras", change)),
        r"^decoder \(LSTM\): bias has shape \(5,\)",
    )


def test_missing_and_surplus_weights_of_tfjs(tmp_path: Path) -> None:
    source = FIXTURES / "tfjs" / "masked_gru"
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    text = json.loads((source / "model.json").read_text())
    specs = text["weightsManifest"][0]["weights"]
    name = specs[0]["name"]
    specs[0]["name"] = "nobody/kernel"
    (tmp_path / "model.json").write_text(json.dumps(text))
    said_of(
        inspect(tmp_path), rf"^g \(GRU\): has weights .*{name}", "'nobody/kernel' .* is of no layer"
    )


# --- weights alone ---


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.name)
def test_weights_alone_look_like_the_layers_they_are_of(path: Path) -> None:
    found = inspect(path)
    assert not found.runs
    assert "weights alone" in found.problems[0].what
    assert len(found.problems) == 1
    whole = inspect(path.parent / f"{path.name.partition('.')[0]}.h5")
    assert found.parameters == whole.parameters
    arrays = [array for group in found.groups for array in group.arrays]
    assert sum(int(np.prod(array.shape or ())) for array in arrays) == found.parameters
    looks = [group.looks_like.partition(",")[0] for group in found.groups]
    wanted = [kind for row in whole.layers for kind in leaf_kinds(row)]
    if path.name.startswith(CUSTOM.name.partition(".")[0]):
        wanted = ["SimpleRNN without bias"]  # what it looks like
    if path.name.startswith("k2_08") and "legacy" not in path.name:
        wanted = ["LSTM"]
    assert sorted(looks) == sorted(wanted)


def leaf_kinds(row: Any) -> list[str]:
    """The classes that have weights of their own."""
    if row.inside:
        return [kind for inner in row.inside for kind in leaf_kinds(inner)]
    return [row.kind.removesuffix("Cell")] if row.parameters else []


@pytest.mark.parametrize(
    ("arrays", "look"),
    [
        ({"kernel:0": (3, 12), "recurrent_kernel:0": (4, 12), "bias:0": (2, 12)}, "after=True"),
        ({"kernel:0": (3, 12), "recurrent_kernel:0": (4, 12), "bias:0": (12,)}, "after=False"),
        ({"kernel:0": (3, 12), "recurrent_kernel:0": (4, 12), "bias:0": (24,)}, "CuDNNGRU"),
        ({"kernel:0": (3, 16), "recurrent_kernel:0": (4, 16), "bias:0": (32,)}, "CuDNNLSTM"),
        ({"kernel:0": (3, 16), "recurrent_kernel:0": (4, 16)}, "LSTM without bias"),
        ({"kernel:0": (5, 3, 8), "bias:0": (8,)}, "Conv1D"),
        ({"kernel:0": (5, 3)}, "Dense without bias"),
        ({"embeddings:0": (5, 3)}, "Embedding"),
        ({"gamma:0": (5,), "beta:0": (5,)}, "LayerNormalization"),
        (
            dict.fromkeys(("moving_mean:0", "gamma:0", "beta:0", "moving_variance:0"), (5,)),
            "BatchNormalization",
        ),
        ({"a:0": (5, 3, 8, 2), "b:0": (8,)}, "unknown"),
        ({"kernel:0": (0, 0), "recurrent_kernel:0": (0, 0), "bias:0": (0,)}, "unknown"),
    ],
)
def test_a_group_of_arrays_looks_like(
    arrays: dict[str, tuple[int, ...]], look: str, tmp_path: Path
) -> None:
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["x"]
        file.create_group("x").attrs["weight_names"] = [f"x/{name}" for name in arrays]
        for name, shape in arrays.items():
            file[f"x/x/{name}"] = np.zeros(shape, "f4")
    [group] = inspect(path).groups
    assert look in group.looks_like


# --- damaged and hostile files ---


@pytest.mark.parametrize("path", [PLAIN, PLAIN_H5, WEIGHTS[0]], ids=name_of)
def test_a_damaged_file_is_an_error(path: Path, tmp_path: Path) -> None:
    data, cut = path.read_bytes(), tmp_path / f"cut{path.suffix}"
    for length in range(0, len(data), len(data) // 40):
        cut.write_bytes(data[:length])
        try:
            found = inspect(cut)
        except FileError:
            continue
        assert not found.runs  # it opens, but what its arrays were is not there


def test_what_is_no_model_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["spectra"] = np.zeros(3)
    for what in (path, tmp_path, Path(__file__)):
        with pytest.raises(FileError, match=r"expected|not a zip"):
            inspect(what)
    with pytest.raises(FileNotFoundError):
        inspect(tmp_path / "nowhere.keras")


def test_a_name_that_is_no_text_is_shown(tmp_path: Path) -> None:
    def change(file: Any) -> None:
        file["optimizer_weights/plainname"] = np.zeros(3, "f4")
        file["model_weights/plainname"] = np.zeros(3, "f4")

    path = rearranged(PLAIN_H5, tmp_path / "x.h5", change)
    path.write_bytes(path.read_bytes().replace(b"plainname", b"plain\xff\xfeme"))
    found = inspect(path)
    said_of(found, r"^: array .*plain\\udcff\\udcfeme' \(3,\) is of no layer")
    assert found.training == ["state of the optimizer"]
    assert str(found)
    assert found.to_json()


def test_names_are_shown_escaped_and_cut(tmp_path: Path) -> None:
    name = "\x1b[31m\nevil\u202e\ud800" + "n" * 100_000

    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][1]["config"] |= {"name": name, "dropout": name}

    found = inspect(reconfigured(PLAIN, tmp_path / "x.keras", change))
    text = str(found)
    assert "\\x1b[31m\\nevil\\u202e" in text
    assert all(line.isprintable() and len(line) <= 130 for line in text.split("\n"))
    assert len(text) < 5000
    assert len(json.dumps(found.to_dict())) < 20_000


def test_a_file_that_declares_what_nobody_can_hold_takes_no_memory(tmp_path: Path) -> None:
    """Shapes are found by rules, nothing is run: 10**18 bytes are declared here."""
    huge = 10**9

    def change(config: dict[str, Any]) -> None:
        layers = config["config"]["layers"]
        layers[0]["config"]["batch_shape"] = [huge, huge, 3]
        repeat = {"class_name": "RepeatVector", "module": "keras.layers", "registered_name": None}
        layers.append({**repeat, "config": {"name": "repeat", "n": huge, "trainable": True}})

    found = inspect(reconfigured(PLAIN, tmp_path / "x.keras", change))
    assert found.inputs[0].shape == (huge, huge, 3)
    assert found.layers[0].parameters == inspect(PLAIN).layers[0].parameters


def test_many_layers_with_much_wrong_take_seconds(tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        layers = config["config"]["layers"]
        wrong = {f"setting_{k}": k for k in range(100)}
        lstm = layers[1]
        config["config"]["layers"] = [
            layers[0],
            *({**lstm, "config": {**lstm["config"], **wrong, "name": f"l{k}"}} for k in range(600)),
        ]

    started = time.perf_counter()
    found = inspect(reconfigured(PLAIN, tmp_path / "x.keras", change))
    assert time.perf_counter() - started < 60  # some seconds; without the budget, minutes
    assert "not looked at" in "".join(whats(found))
    assert "setting_0" in whats(found)[0]


CHANGES: list[Any] = [None, 0, -1, 1.5, "x", "Lambda", "LSTM", [], {}, [None], True, 10**18]


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    found = [place for key, part in inside for place in places_in(part, (*path, key))]
    return [path, *found] if path else found


@given(
    st.sampled_from([p for p in WHOLE if p.suffix == ".keras"]),
    st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(CHANGES)), min_size=1, max_size=3),
)
def test_whatever_is_in_a_config_is_told_or_refused(
    tmp_path_factory: pytest.TempPathFactory, path: Path, changes: list[tuple[int, Any]]
) -> None:
    def change(config: dict[str, Any]) -> None:
        for number, value in changes:
            places = places_in(config["config"])
            if not places:
                return
            *above, last = places[number % len(places)]
            inside: Any = config["config"]
            for key in above:
                inside = inside[key]
            inside[last] = copy.deepcopy(value)

    target = reconfigured(path, tmp_path_factory.mktemp("changed") / "x.keras", change)
    try:
        load_model(target)
        loads = True
    except FileError:
        loads = False
    try:
        found = inspect(target)
    except FileError:
        assert not loads
        return
    assert found.runs == loads
    json.dumps(found.to_dict(), allow_nan=False)
    assert str(found)


# --- the command ---


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main(["inspect", *map(str, arguments)])
    return (status, *capsys.readouterr())


def test_the_exit_status_is_the_verdict(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, err = run(capsys, PLAIN)
    assert (status, err) == (AGREES, "")
    assert out == f"{inspect(PLAIN)}\n"
    assert "can run it" in out
    status, out, err = run(capsys, CUSTOM)
    assert (status, err) == (DIFFERS, "")
    assert "cannot run it, for 1 reason:" in out
    for path in (Path(__file__), tmp_path, tmp_path / "nowhere.keras"):
        status, out, err = run(capsys, path)
        assert (status, out, err.count("\n")) == (UNJUDGED, "", 1)
        assert err.startswith(f"refrnn: {path}: ")


def test_json_goes_to_a_file_or_to_the_screen(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status, out, _ = run(capsys, PLAIN, "--json", "-")
    assert (status, json.loads(out)["runs"]) == (AGREES, True)
    target = tmp_path / "found.json"
    status, out, _ = run(capsys, CUSTOM, "--json", target)
    assert status == DIFFERS
    assert "cannot run it" in out
    assert json.loads(target.read_text()) == inspect(CUSTOM).to_dict()
    status, out, err = run(capsys, PLAIN, "--json", tmp_path / "nowhere" / "x.json")
    assert (status, out) == (UNJUDGED, "")
    assert "no such folder" in err


def test_without_h5py_the_command_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    status, out, err = run(capsys, PLAIN)
    assert (status, out) == (UNJUDGED, "")
    assert "pip install 'refrnn[files]'" in err


@pytest.mark.parametrize("path", [*WHOLE, *WEIGHTS, *TFJS], ids=lambda path: path.name)
def test_the_text_fits_a_screen_and_json_holds_all(path: Path) -> None:
    found = inspect(path)
    for line in str(found).splitlines():
        assert len(line) <= 100 or "hard_sigmoid" in line
    assert json.loads(found.to_json()) == json.loads(json.dumps(found.to_dict()))
    assert files.inspect is inspect
    assert refrnn.files.Inspection is Inspection
