"""What refrnn writes, Keras reads, with the same numbers; a file is written whole or not at all.

Keras 2 is tf_keras, which is not among what the tests need: without it those tests are skipped.
"""

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from test_files import RELATIVE, WHOLE, name_of
from test_models import GRAPHS, drawn, graph

import refrnn
from refrnn import from_keras, layers
from refrnn.files import FileError, load_model
from refrnn.files.atomic import replacing
from refrnn.verify import compare
from refrnn.verify.chunks import flat
from refrnn.verify.compare import same_bits

B, T, F = 2, 7, 3

pytestmark = pytest.mark.filterwarnings(
    # both generations of Keras, where they read: NumPy's newer arguments, and .h5 being old
    "ignore:__array__ implementation:DeprecationWarning",
    # Keras 3, of .h5 files of Keras 2, which have their only input in a list
    r"ignore:[\s\S]*structure of `inputs` doesn't match:UserWarning",
    "ignore:Argument `alpha` is deprecated:UserWarning",  # as both have it
)


@pytest.fixture(scope="module")
def keras2() -> Any:
    return pytest.importorskip("tf_keras", reason="tf_keras (Keras 2) is not installed")


def chain() -> refrnn.Model:
    """A model with what files could get wrong: stacks, pairs, frozen parts and statistics."""
    model = refrnn.Sequential(
        [
            layers.Input((None, F)),
            layers.Conv1D(4, 2, padding="causal", activation="relu"),
            layers.BatchNormalization(),
            layers.LayerNormalization(),
            layers.RNN([layers.LSTMCell(3), layers.GRUCell(4)], return_sequences=True),
            layers.Bidirectional(layers.GRU(2, return_sequences=True), merge_mode="sum"),
            layers.TimeDistributed(layers.Dense(3, "elu")),
            layers.Dropout(0.5),
            layers.LSTM(4, trainable=False, recurrent_dropout=0.25, return_sequences=True),
            layers.GRU(3, reset_after=False, use_bias=False, activation="relu"),
            layers.LeakyReLU(0.125),
            layers.Dense(2, activation="softmax"),
        ],
        name="chain",
    )
    rng = np.random.default_rng(5)
    model.set_weights([rng.uniform(0.1, 0.9, w.shape) for w in model.get_weights()])
    return model


def reloaded(keras: Any, model: refrnn.Model, x: Any, path: Path) -> None:
    """`model`, saved, gives its numbers in Keras; and its bits in refrnn."""
    model.save(path)
    theirs = keras.models.load_model(path, compile=False)
    tensors = [np.asarray(part) for part in (x if isinstance(x, list) else [x])]
    got = arrays_of_any(theirs(tensors if len(tensors) > 1 else tensors[0]))
    want = flat(model(x))
    for name, array in flat(got).items():
        limit = RELATIVE[array.dtype.name]
        compare({name: want[name]}, {name: array}, limit, f"{path.name}: {name}")
    assert set(flat(got)) == set(want)
    again = load_model(path)
    assert same_bits(flat(again(x)), want)
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]


def arrays_of_any(outputs: Any) -> Any:
    if isinstance(outputs, dict):
        return {key: arrays_of_any(part) for key, part in outputs.items()}
    if isinstance(outputs, list | tuple):
        return [arrays_of_any(part) for part in outputs]
    return np.asarray(outputs)


# --- Keras 3 ---


@pytest.mark.parametrize("name", sorted({*GRAPHS} - {"a_shared_layer_inside_and_outside"}))
def test_keras_3_reads_a_graph(tf: Any, name: str, tmp_path: Path) -> None:
    """All but one, of which Keras does not read its own file either."""
    source, x = graph(tf, name, "float32")
    reloaded(tf.keras, from_keras(source), x, tmp_path / "model.keras")


# what only Keras 3 has: explicit masks, outputs in structures
NEW = {"a_mask", "dictionaries", "one_output_twice", "nested_lists", "a_tuple", "a_graph_inside"}
# what Keras 3 does not read from .h5, its own files aside: states, models inside
OLD = {"encoder_and_decoder", "states_with_h_and_c_swapped", "a_bare_state",
       "a_state_from_a_dense_layer", "a_chain_inside", "a_model_called_twice",
       "outputs_of_a_model_called_twice", "models_in_models", "ids_with_a_mask"}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_an_h5_file_is_for_both_generations_or_refused_by_one(
    tf: Any, keras2: Any, name: str, tmp_path: Path
) -> None:
    source, x = graph(tf, name, "float32")
    x = [np.abs(part) for part in x] if isinstance(x, list) else np.abs(x)  # ids too
    mine, path = from_keras(source), tmp_path / "model.h5"
    mine.save(path)
    for keras, others in ((tf.keras, OLD), (keras2, NEW)):
        if name in others:
            with pytest.raises((ValueError, TypeError, IndexError)):
                keras.models.load_model(path, compile=False)
        else:
            reloaded(keras, mine, x, path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_keras_3_reads_a_chain(tf: Any, suffix: str, tmp_path: Path) -> None:
    reloaded(tf.keras, chain(), drawn(B, T, F, dtype="float32"), tmp_path / f"model{suffix}")


def inputs_of(path: Path, model: refrnn.Model) -> Any:
    arrays = np.load(path.parent / f"{path.name.partition('.')[0]}.npz")
    named = {key[3:]: arrays[key] for key in arrays if key.startswith("in_")}
    return [named[x.name] for x in model.inputs] if len(named) > 1 else next(iter(named.values()))


READ = [path for path in WHOLE if not path.name.startswith("18_")]  # that has a cell of its own


@pytest.mark.parametrize("path", READ, ids=name_of)
def test_keras_3_reads_what_was_read(tf: Any, path: Path, tmp_path: Path) -> None:
    """Each fixture, of Keras 2 too, as a .keras file of Keras 3."""
    model = load_model(path)
    if "hard_sigmoid_keras2" in str(model.get_config()):
        with pytest.raises(ValueError, match=r"hard_sigmoid_keras2, expected .* of Keras 3"):
            model.save(tmp_path / "model.keras")
    elif "time_major" in path.name:
        with pytest.raises(ValueError, match=r"time before the batch, expected none"):
            model.save(tmp_path / "model.keras")
    else:
        reloaded(tf.keras, model, inputs_of(path, model), tmp_path / "model.keras")
        return
    assert not list(tmp_path.iterdir())


# --- Keras 2 ---


@pytest.mark.parametrize("path", READ, ids=name_of)
def test_keras_2_reads_what_was_read(keras2: Any, path: Path, tmp_path: Path) -> None:
    model = load_model(path)
    if "'hard_sigmoid'" in str(model.get_config()):  # Keras 3's: the file is for Keras 3
        model.save(tmp_path / "model.h5")
        with pytest.raises(TypeError, match="batch_shape"):
            keras2.models.load_model(tmp_path / "model.h5", compile=False)
        return
    reloaded(keras2, model, inputs_of(path, model), tmp_path / "model.h5")


def test_keras_2_reads_a_chain(keras2: Any, tmp_path: Path) -> None:
    reloaded(keras2, chain(), drawn(B, T, F, dtype="float32"), tmp_path / "model.h5")


def test_keras_3_refuses_the_hard_sigmoid_of_keras_2(tf: Any, tmp_path: Path) -> None:
    """It has another function of that name, and would use it without a word."""
    x = drawn(B, T, F, dtype="float32")
    model = refrnn.Sequential([layers.LSTM(3, recurrent_activation="hard_sigmoid_keras2")])
    want = model(x)
    model.save(tmp_path / "model.h5")
    assert np.array_equal(load_model(tmp_path / "model.h5")(x), want)
    with pytest.raises((TypeError, ValueError), match="time_major"):
        tf.keras.models.load_model(tmp_path / "model.h5", compile=False)
    dense = refrnn.Sequential([layers.Dense(3, activation="hard_sigmoid_keras2")])
    dense(x)
    with pytest.raises(ValueError, match="outside of recurrent layers, expected another"):
        dense.save(tmp_path / "dense.h5")


# --- weights alone, states, and files that are not to be half written ---


def test_keras_reads_weights(tf: Any, tmp_path: Path) -> None:
    source, x = graph(tf, "encoder_and_decoder", "float32")
    mine = from_keras(source)
    want = flat(arrays_of_any(source(x)))
    mine.save_weights(tmp_path / "m.weights.h5")
    source.set_weights([w * 0 for w in source.get_weights()])
    source.load_weights(tmp_path / "m.weights.h5")
    assert same_bits(flat(arrays_of_any(source(x))), want)
    before = mine.get_weights()
    mine.set_weights([w * 0 for w in before])
    mine.load_weights(tmp_path / "m.weights.h5")
    assert all(np.array_equal(a, b) for a, b in zip(mine.get_weights(), before, strict=True))


def test_keras_reads_a_stateful_model(tf: Any, tmp_path: Path) -> None:
    model = refrnn.Sequential([layers.Input((None, F)), layers.LSTM(4), layers.Dense(1)])
    stream = model.to_stateful(rows=B)
    stream.save(tmp_path / "stream.keras")
    theirs = tf.keras.models.load_model(tmp_path / "stream.keras")
    x = drawn(B, T, F, dtype="float32")
    for piece in (slice(0, 3), slice(3, T)):
        got = np.asarray(theirs(x[:, piece]))
        compare({"y": stream(x[:, piece])}, {"y": got}, 1e-6, "stateful")


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_every_dtype_is_kept(dtype: str, tmp_path: Path) -> None:
    model = refrnn.Sequential([layers.Input((None, F)), layers.GRU(3, dtype=dtype)])
    x = drawn(B, T, F)
    want = model(x)
    for name in ("model.keras", "model.h5"):
        model.save(tmp_path / name)
        got = load_model(tmp_path / name)(x)
        assert got.dtype == want.dtype
        assert np.array_equal(got, want)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("model.onnxx", "has suffix '.onnxx', expected .keras"),
        ("model.weights.h5", "is named as a file of weights alone"),
    ],
)
def test_a_name_that_says_nothing_is_refused(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        chain().save(tmp_path / name)
    with pytest.raises(ValueError, match=r"does not end with \.weights\.h5"):
        chain().save_weights(tmp_path / "weights.h5")
    assert not list(tmp_path.iterdir())


def test_what_has_no_weights_or_is_the_callers_is_refused(tmp_path: Path) -> None:
    class Mine(layers.Layer):
        def call(self, inputs: Any) -> Any:
            return inputs

    unbuilt = refrnn.Sequential([layers.LSTM(3, name="early")])
    for name in ("model.keras", "model.h5"):
        with pytest.raises(ValueError, match="LSTM 'early' is not built, expected a call before"):
            unbuilt.save(tmp_path / name)
    with pytest.raises(ValueError, match="is not built"):
        unbuilt.save_weights(tmp_path / "m.weights.h5")
    assert not list(tmp_path.iterdir())


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.keras"
    chain().save(path)
    path.chmod(0o640)
    before = path.read_bytes()

    def broken(handle: int) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(OSError, match="disk is full"):
            chain().save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    chain().save(path)
    assert path.stat().st_mode & 0o777 == 0o640
    with pytest.raises(TypeError), replacing(tmp_path / "new") as stream:
        stream.write("half")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_link_points_at_is_replaced_and_a_device_is_written_to(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"old")
    link.symlink_to(path)
    with replacing(link) as stream:
        stream.write(b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    with replacing(os.devnull) as stream:
        stream.write(b"new")
    assert not Path(os.devnull).is_file()


def test_long_lists_of_names_are_cut(tf: Any, tmp_path: Path) -> None:
    """HDF5 takes 64 KiB in an attribute."""
    name = "a" * 180
    many = [layers.Dense(2, name=f"{name}{k}") for k in range(400)]
    model = refrnn.Sequential([layers.Input((2,)), *many])
    model.save(tmp_path / "long.h5")
    with h5py.File(tmp_path / "long.h5") as file:
        assert "layer_names0" in file["model_weights"].attrs
    x = drawn(B, 2, dtype="float32")
    assert np.array_equal(load_model(tmp_path / "long.h5")(x), model(x))


def test_a_saved_file_is_one_that_refuses_damage(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    chain().save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(FileError):
        load_model(path)


# --- live objects of Keras 2 ---


OF_KERAS_2 = [p for p in READ if p.match("k2_*.h5") and "cudnn" not in p.name]  # that needs a GPU


@pytest.mark.parametrize("path", OF_KERAS_2, ids=name_of)
def test_a_live_model_of_keras_2_is_taken(keras2: Any, path: Path) -> None:
    """What is in its .h5 file, without the file."""
    source = keras2.models.load_model(path, compile=False)
    mine, want = from_keras(source), load_model(path)
    x = inputs_of(path, want)
    assert same_bits(flat(mine(x)), flat(want(x)))
