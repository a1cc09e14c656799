"""ConvLSTM gives Keras's numbers with any options, whole and in chunks, alone and in models.

float64 within 1e-12 of the largest magnitude and float32 within 1e-5, as everywhere: see
`refrnn.verify.TOLERANCES`. Chunks, and rows in other batches, agree in every bit.

On a CPU TensorFlow has "channels_first" for float32 only, and compiles each shape of three axes
anew, seconds at a time: it is drawn where it is there and quick.
"""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refrnn
from refrnn import layers
from refrnn.layers import conv_recurrent
from refrnn.layers.masks import leaves, mask_of, with_mask
from refrnn.verify import TOLERANCES, Mismatch, compare
from refrnn.verify.chunks import flat
from refrnn.verify.compare import same_bits

B, T, C = 3, 4, 2
KINDS = {"ConvLSTM1D": 1, "ConvLSTM2D": 2, "ConvLSTM3D": 3}
kinds = st.sampled_from(list(KINDS))
FIRST = {"data_format": "channels_first"}


def arrays(outputs: Any) -> dict[str, np.ndarray]:
    return flat([np.asarray(leaf) for leaf in leaves(outputs)])


def tensors(tf: Any, structure: Any) -> Any:
    if isinstance(structure, list | tuple):
        return [tensors(tf, part) for part in structure]
    return None if structure is None else tf.tf.constant(structure)


def randomize(source: Any, rng: np.random.Generator) -> Any:
    """Weights that are not symmetric, biases that are not zero, states that are not saturated."""
    source.set_weights([rng.normal(0, 0.3, w.shape) for w in source.get_weights()])
    return source


def video(rng: np.random.Generator, sizes: tuple[int, ...], options: dict[str, Any]) -> np.ndarray:
    first = options.get("data_format") == "channels_first"
    return rng.normal(size=(B, T, C, *sizes) if first else (B, T, *sizes, C))


def some_mask(rng: np.random.Generator, kind: str | None, time: int = T) -> np.ndarray | None:
    steps, lengths = np.arange(time), rng.integers(0, time + 1, (B, 1))
    found = {"right": steps < lengths, "left": steps >= lengths}
    found["holes"] = rng.random((B, time)) < 0.6
    return None if kind is None else found[kind]


dtypes = st.sampled_from(("float64", "float32"))
masks = st.sampled_from((None, "right", "left", "holes"))


def formats(kind: str, dtype: str) -> st.SearchStrategy[str | None]:
    """The data formats that TensorFlow has."""
    first = ["channels_first"] * (dtype == "float32" and kind != "ConvLSTM3D")
    return st.sampled_from((None, "channels_last", *first))


@st.composite
def convolutions(draw: st.DrawFn, kind: str, dtype: str) -> tuple[dict[str, Any], tuple[int, ...]]:
    """The options of a layer, each on its own axis, and sizes of images with room for them."""
    rank = KINDS[kind]
    size, step = (draw(st.tuples(*[st.integers(1, 3)] * rank)) for _ in range(2))
    options: dict[str, Any] = {
        "filters": draw(st.integers(1, 3)),
        "kernel_size": size,
        "padding": draw(st.sampled_from(("valid", "same", "SAME"))),
        "data_format": draw(formats(kind, dtype)),
        "use_bias": draw(st.booleans()),
    }
    reach = list(size)
    which = draw(st.sampled_from(("strides", "dilation_rate", None)))
    if kind == "ConvLSTM3D" and which == "strides":  # see the strides of Conv3D in float64 in
        step = tuple(map(min, step, size))  # test_simple_layers.py
    if which:
        options[which] = step
    if which == "dilation_rate":
        reach = [(n - 1) * d + 1 for n, d in zip(size, step, strict=True)]
    spare = 4 if rank < 3 else 2
    return options, tuple(n + draw(st.integers(0, spare)) for n in reach)


@given(data=st.data())
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_layer_gives_the_numbers_of_keras(tf: Any, dtype: str, data: st.DataObject) -> None:
    """Outputs and states, with any window, mask, state and activation, in several calls."""
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    kind = data.draw(kinds)
    options, sizes = data.draw(convolutions(kind, dtype))
    flags = ("return_sequences", "return_state", "go_backwards", "stateful", "unroll")
    options |= {name: data.draw(st.booleans()) for name in (*flags, "zero_output_for_mask")}
    options["activation"] = data.draw(st.sampled_from(("tanh", "relu", "softmax")))
    options["recurrent_activation"] = data.draw(st.sampled_from(("sigmoid", "hard_sigmoid")))
    if options["unroll"] and options["go_backwards"]:
        options["zero_output_for_mask"] = False  # Keras zeroes the wrong steps: test_deviations.py
    x = video(rng, sizes, options).astype(dtype)
    theirs = getattr(tf.keras.layers, kind)(**options, dtype=dtype)
    theirs(tf.tf.constant(x))
    if options["stateful"]:
        theirs.reset_state()
    mine = refrnn.from_keras(randomize(theirs, rng))
    mask = some_mask(rng, data.draw(masks))
    state = None
    if data.draw(st.booleans()):
        shape = theirs.cell.compute_output_shape((B, *x.shape[2:]))[0]
        state = [rng.normal(size=shape).astype(dtype) for _ in range(2)]
    for _ in range(1 + options["stateful"]):
        want = theirs(tf.tf.constant(x), mask=tensors(tf, mask), initial_state=tensors(tf, state))
        got = mine(x, mask=mask, initial_state=state)
        assert isinstance(got, tuple) == options["return_state"]
        limit = TOLERANCES[dtype].relative
        compare(arrays(got), arrays(want), limit, f"{kind} {options} {sizes}")
        state = None
    if options["stateful"]:
        compare(
            arrays(mine.states), arrays([np.asarray(v) for v in theirs.states]), limit, "states"
        )
        mine.reset_state()
        assert not any(part.any() for part in mine.states)


@given(data=st.data())
def test_dropout_drops_what_keras_drops(tf: Any, data: st.DataObject) -> None:
    """Inference calls in between draw too: the masks after them are others."""
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    kind, dtype = data.draw(kinds), data.draw(dtypes)
    options, sizes = data.draw(convolutions(kind, dtype))
    rates = st.sampled_from((0.0, 0.3, 0.6, 1.0))
    options |= {"dropout": data.draw(rates), "recurrent_dropout": data.draw(rates)}
    options |= {"seed": data.draw(st.integers(0, 2**31 - 1)), "return_sequences": True}
    x = video(rng, sizes, options).astype(dtype)
    theirs = getattr(tf.keras.layers, kind)(**options, dtype=dtype)
    theirs.build(x.shape)
    mine = refrnn.from_keras(randomize(theirs, rng))
    limit = TOLERANCES[dtype].relative
    for training in data.draw(st.lists(st.booleans(), min_size=1, max_size=3)):
        want = theirs(tf.tf.constant(x), training=training)
        compare(arrays(mine(x, training=training)), arrays(want), limit, f"{options} {training}")


def test_channels_first_of_volumes_equals_keras(tf: Any, rng: np.random.Generator) -> None:
    x = video(rng, (3, 4, 2), FIRST)
    theirs = tf.keras.layers.ConvLSTM3D(2, 2, dtype="float64", activation="softmax", **FIRST)
    theirs.build(x.shape)
    mine = refrnn.from_keras(randomize(theirs, rng))
    compare(arrays(mine(x)), arrays(theirs(tf.tf.constant(x))), 1e-12, "ConvLSTM3D")


def test_channels_first_in_float64_is_channels_last_in_keras(
    tf: Any, rng: np.random.Generator
) -> None:
    """Keras on a CPU has no such convolution."""
    x = video(rng, (4, 5), FIRST)
    first = tf.keras.layers.ConvLSTM2D(3, 2, dtype="float64", **FIRST)
    first.build(x.shape)
    with pytest.raises(tf.tf.errors.UnimplementedError):
        first(tf.tf.constant(x))
    mine = refrnn.from_keras(randomize(first, rng))
    moved = np.moveaxis(x, 2, -1)
    theirs = tf.keras.layers.ConvLSTM2D(3, 2, dtype="float64")
    theirs.build(moved.shape)
    theirs.set_weights(first.get_weights())
    want = np.moveaxis(np.asarray(theirs(tf.tf.constant(moved))), -1, 1)
    compare(arrays(mine(x)), arrays(want), 1e-12, "channels_first")


def test_half_precision_is_near_keras(tf: Any, rng: np.random.Generator) -> None:
    x = video(rng, (5, 6), {}).astype("float16")
    theirs = tf.keras.layers.ConvLSTM2D(3, 3, padding="same", dtype="float16")
    theirs(tf.tf.constant(x))
    mine = refrnn.from_keras(randomize(theirs, rng))
    got = mine(x)
    # float16 has 2^-11; a step rounds a dozen times, the errors of four steps add up
    compare(arrays(got), arrays(theirs(tf.tf.constant(x))), 50 * 2**-11, "float16")


# --- chunks, rows, states ---


def random_layer(kind: str, rng: np.random.Generator, *shape: int, **options: Any) -> Any:
    layer = getattr(layers, kind)(3, 2, dtype="float64", **options)
    layer.build(shape)
    return randomize(layer, rng)


@given(data=st.data())
def test_chunks_equal_the_whole_in_every_bit(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    kind = data.draw(kinds)
    form = data.draw(st.sampled_from(({}, FIRST)))
    x = video(rng, (4, 3, 2)[: KINDS[kind]], form)
    layer = random_layer(kind, rng, *x.shape, return_sequences=True, return_state=True, **form)
    mask = some_mask(rng, data.draw(masks))
    ys, *states = layer(x, mask=mask)
    cuts = sorted(data.draw(st.lists(st.integers(0, T), max_size=3)))
    memory, pieces = layer.start(B), []
    for start, stop in zip([0, *cuts], [*cuts, T], strict=True):
        part = None if mask is None else mask[:, start:stop]
        (y, *last), memory = layer.advance(x[:, start:stop], memory, part)
        pieces.append(y)
    assert same_bits({"y": np.concatenate(pieces, axis=1)}, {"y": ys})
    assert same_bits(arrays(last), arrays(states))


@given(data=st.data())
def test_a_row_is_the_same_in_every_bit_in_any_batch(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    kind = data.draw(kinds)
    options, sizes = data.draw(convolutions(kind, "float32"))
    dtype = data.draw(st.sampled_from(("float32", "float64", "float16")))
    layer = getattr(layers, kind)(**options, dtype=dtype, return_state=True)
    x = video(rng, sizes, options).astype(dtype)
    layer.build(x.shape)
    whole = randomize(layer, rng)(x)
    for rows in ([0], [2, 1], []):
        part = layer(x[rows])
        assert same_bits(arrays(part), arrays([leaf[rows] for leaf in whole]))


def test_a_memory_before_the_first_image_goes_with_any_size(rng: np.random.Generator) -> None:
    """The state has the size of an image, which a layer that only has weights does not know."""
    x = video(rng, (4, 5), {})
    known = random_layer("ConvLSTM2D", rng, *x.shape, return_sequences=True)
    layer = layers.ConvLSTM2D(3, 2, dtype="float64", return_sequences=True)
    layer.set_weights(known.get_weights())
    memory = layer.start(B)
    assert [part.shape for part in memory.state] == [(B, 1, 1, 3)] * 2
    first, memory = layer.advance(x[:, :0], memory)
    assert first.shape == (B, 0, 3, 4, 3)
    second, memory = layer.advance(x, memory)
    assert same_bits({"y": second}, {"y": known(x)})
    assert layer.start(1).last_output.shape == (1, 3, 4, 3)
    with pytest.raises(
        ValueError, match=r"sizes \(5, 5\), expected \(4, 5\), those that it was bu"
    ):
        layer.advance(video(rng, (5, 5), {}), memory)


def test_a_state_is_kept_set_and_forgotten_row_by_row(rng: np.random.Generator) -> None:
    x = video(rng, (4, 5), {})
    layer = random_layer("ConvLSTM2D", rng, *x.shape, stateful=True)
    assert [part.shape for part in layer.states] == [(B, 3, 4, 3)] * 2
    layer(x)
    kept = layer.states
    layer.reset_states(rows=[1])
    assert not layer.states[0][1].any()
    assert np.array_equal(layer.states[1][2], kept[1][2])
    layer.reset_states([part[:1] for part in kept], rows=[1])
    assert np.array_equal(layer.states[0][1], kept[0][0])
    with pytest.raises(ValueError, match="has 2 rows, expected 3, because the layer is stateful"):
        layer(x[:2])
    late = layers.ConvLSTM2D(3, 2, dtype="float64", stateful=True)
    late.set_weights(layer.get_weights())
    late.reset_states(kept)
    layer.reset_states(kept)
    assert same_bits({"y": late(x)}, {"y": layer(x)})


def test_no_rows_and_no_steps_are_answered(tf: Any, rng: np.random.Generator) -> None:
    """Keras fails on both."""
    x = video(rng, (4, 5), {})
    layer = random_layer("ConvLSTM2D", rng, *x.shape, return_state=True)
    assert [part.shape for part in layer(x[:0])] == [(0, 3, 4, 3)] * 3
    state = [rng.normal(size=(B, 3, 4, 3)) for _ in range(2)]
    y, *after = layer(x[:, :0], initial_state=state)
    assert not y.any()
    assert same_bits(arrays(after), arrays(state))
    with pytest.raises(tf.tf.errors.InvalidArgumentError):
        tf.keras.layers.ConvLSTM2D(3, 2)(x[:, :0].astype("float32"))


# --- inside other layers ---


@given(data=st.data())
def test_bidirectional_equals_keras(tf: Any, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    kind, k = data.draw(kinds), tf.keras.layers
    merge = data.draw(st.sampled_from(("concat", "sum", "mul", "ave", None)))
    options = {n: data.draw(st.booleans()) for n in ("return_sequences", "return_state")}
    dtype = data.draw(dtypes)
    options["data_format"] = data.draw(formats(kind, dtype))
    x = video(rng, (4, 3, 2)[: KINDS[kind]], options).astype(dtype)
    inner = getattr(k, kind)(3, 2, dtype=dtype, **options)
    theirs = k.Bidirectional(inner, merge_mode=merge, dtype=dtype)
    theirs(tf.tf.constant(x))
    mine = refrnn.from_keras(randomize(theirs, rng))
    mask = some_mask(rng, data.draw(masks))
    want = theirs(tf.tf.constant(x), mask=tensors(tf, mask))
    limit = TOLERANCES[dtype].relative
    compare(arrays(mine(x, mask=mask)), arrays(want), limit, f"{kind} {merge} {options}")


@pytest.mark.parametrize("kind", list(KINDS))
def test_time_distributed_equals_keras(tf: Any, rng: np.random.Generator, kind: str) -> None:
    k = tf.keras.layers
    x = rng.normal(size=(2, 3, 4, *(4, 3, 2)[: KINDS[kind]], C))
    theirs = k.TimeDistributed(getattr(k, kind)(3, 2, dtype="float64"), dtype="float64")
    theirs(tf.tf.constant(x))
    mine = refrnn.from_keras(randomize(theirs, rng))
    compare(arrays(mine(x)), arrays(theirs(tf.tf.constant(x))), 1e-12, kind)


@pytest.mark.parametrize("sequences", [False, True])
def test_a_mask_comes_with_the_input_and_goes_with_the_output(
    tf: Any, rng: np.random.Generator, sequences: bool
) -> None:
    from keras.src.backend import get_keras_mask, set_keras_mask

    x, mask = video(rng, (4, 5), {}), rng.random((B, T)) < 0.6
    theirs = tf.keras.layers.ConvLSTM2D(
        3, 2, dtype="float64", return_sequences=sequences, return_state=True
    )
    theirs.build(x.shape)
    mine = refrnn.from_keras(randomize(theirs, rng))
    given_to = tf.tf.constant(x)
    set_keras_mask(given_to, tf.tf.constant(mask))
    want, got = theirs(given_to), mine(with_mask(x, mask))
    compare(arrays(got), arrays(want), 1e-12, "masked")
    for a, b in zip(got, want, strict=True):
        expected = get_keras_mask(b)
        assert (mask_of(a) is None) == (expected is None)
        assert expected is None or np.array_equal(mask_of(a), expected)


# --- weights and configs ---


CHANGED = {
    "filters": 4, "kernel_size": 3, "strides": 1, "padding": "same",
    "data_format": "channels_first", "dilation_rate": 2, "activation": "relu",
    "recurrent_activation": "hard_sigmoid", "use_bias": False, "kernel_initializer": "he_normal",
    "recurrent_initializer": "glorot_normal", "bias_initializer": "ones",
    "unit_forget_bias": False, "kernel_regularizer": "l1", "bias_constraint": "non_neg",
    "dropout": 0.2, "recurrent_dropout": 0.3, "seed": 5, "return_sequences": True,
    "return_state": True, "go_backwards": True, "stateful": True, "unroll": True,
    "zero_output_for_mask": True, "name": "other", "dtype": "float64", "trainable": False,
}  # fmt: skip


@pytest.mark.parametrize("options", [{"filters": 2, "kernel_size": 3}, CHANGED])
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_config_goes_from_keras_to_refrnn_and_back(
    tf: Any, kind: str, options: dict[str, Any]
) -> None:
    theirs = getattr(tf.keras.layers, kind)(**options)
    mine = getattr(layers, kind).from_config(theirs.get_config())
    assert set(mine.get_config()) == set(theirs.get_config())
    back = type(theirs).from_config(mine.get_config())
    assert back.get_config() == theirs.get_config()
    stored = json.loads(json.dumps(mine.get_config()))
    assert getattr(layers, kind).from_config(stored).get_config() == mine.get_config()


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_constructor_has_keras_arguments_in_keras_order(tf: Any, kind: str) -> None:
    import inspect

    tables = [inspect.signature(getattr(of, kind)).parameters for of in (tf.keras.layers, layers)]
    theirs, mine = (
        [(p.name, p.default) for p in table.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        for table in tables
    )
    assert mine == theirs


@pytest.mark.parametrize("form", [{}, FIRST])
@pytest.mark.parametrize("kind", list(KINDS))
def test_weights_are_those_of_keras(
    tf: Any, rng: np.random.Generator, kind: str, form: dict[str, Any]
) -> None:
    """Names, order, shapes, and what a new bias is."""
    x = video(rng, (4, 5, 3)[: KINDS[kind]], form)
    theirs, mine = (getattr(of, kind)(3, 2, **form) for of in (tf.keras.layers, layers))
    theirs.build(x.shape)
    mine.build(x.shape)
    assert mine.weight_names == [v.name for v in theirs.weights]
    assert [w.shape for w in mine.weights] == [tuple(v.shape) for v in theirs.weights]
    np.testing.assert_array_equal(mine.weights[2], theirs.get_weights()[2])
    flat_recurrent = mine.weights[1].reshape(-1, 12)
    gram = flat_recurrent @ flat_recurrent.T
    if len(flat_recurrent) > 12:
        gram = flat_recurrent.T @ flat_recurrent
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)  # orthogonal, in float32
    late = getattr(layers, kind)(3, 2, **form)
    late.set_weights(theirs.get_weights())
    assert same_bits(arrays(late(x)), arrays(refrnn.from_keras(theirs)(x)))


# --- models and files ---


def forecaster(k: Any) -> Any:
    """A video in, the next frame out: the pattern of Keras's own example, with normalization."""
    return [
        k.Input((None, 6, 5, 1)),
        k.ConvLSTM2D(3, (3, 2), padding="same", return_sequences=True, activation="relu"),
        k.BatchNormalization(),
        k.Bidirectional(k.ConvLSTM2D(2, 2, strides=2, return_sequences=True)),
        k.Conv3D(1, 3, padding="same", activation="sigmoid"),
    ]


def reader(k: Any) -> Any:
    """A convolutional network of each frame, then an LSTM."""
    return [
        k.Input((None, 8, 7, 2)),
        k.TimeDistributed(k.Rescaling(0.5, -0.1)),
        k.TimeDistributed(k.Conv2D(4, 3, padding="same", activation="relu")),
        k.TimeDistributed(k.MaxPooling2D(2)),
        k.TimeDistributed(k.SeparableConv2D(5, 2)),
        k.TimeDistributed(k.GroupNormalization(5)),
        k.TimeDistributed(k.GlobalAveragePooling2D()),
        k.UnitNormalization(),
        k.GaussianNoise(0.1),
        k.LSTM(3, return_sequences=True),
        k.Dense(2),
    ]


def stack(k: Any) -> Any:
    """ConvLSTMs one behind another and what comes before recurrent layers, in one dimension."""
    return [
        k.Input((None, 9, 2)),
        k.ConvLSTM1D(3, 3, padding="same", return_sequences=True, recurrent_dropout=0.2, seed=1),
        k.TimeDistributed(k.DepthwiseConv1D(2, depth_multiplier=2)),
        k.ConvLSTM1D(2, 2, strides=2),
        k.SpatialDropout1D(0.3),
        k.AveragePooling1D(2, data_format="channels_first"),
        k.Identity(),
        k.Flatten(),
        k.Dense(2),
    ]


# Keras hands NumPy its own arrays in an old way
SAVING = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
MODELS = {"forecaster": forecaster, "reader": reader, "stack": stack}


def positive_variances(source: Any, rng: np.random.Generator) -> Any:
    source.set_weights(
        [rng.uniform(0.5, 1.5, w.shape) if "variance" in v.name else rng.normal(0, 0.4, w.shape)
         for v, w in zip(source.weights, source.get_weights(), strict=True)]
    )  # fmt: skip
    return source


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", list(MODELS))
@SAVING
def test_a_file_of_keras_is_read(
    tf: Any, rng: np.random.Generator, name: str, suffix: str, tmp_path: Any
) -> None:
    source = positive_variances(tf.keras.Sequential(MODELS[name](tf.keras.layers)), rng)
    path = tmp_path / f"model{suffix}"
    source.save(path)
    x = rng.normal(size=(B, T, *source.input_shape[2:])).astype("float32")
    want = arrays(np.asarray(source(tf.tf.constant(x))))
    mine = refrnn.load_model(path)
    # float32: see TOLERANCES, ten times for some ten layers one upon another
    compare(arrays(mine(x)), want, 10 * TOLERANCES["float32"].relative, name)
    compare(arrays(refrnn.from_keras(source)(x)), want, 1e-4, name)


@SAVING
def test_a_loaded_model_runs_in_chunks_at_once(
    tf: Any, rng: np.random.Generator, tmp_path: Any
) -> None:
    """Before any call: the size of the images is then found from the first chunk."""
    k = tf.keras.layers
    source = tf.keras.Sequential(
        [k.Input((None, 6, 5, 1)), k.ConvLSTM2D(3, 3, return_sequences=True),
         k.TimeDistributed(k.Flatten()), k.GRU(2, return_sequences=True)]
    )  # fmt: skip
    source.save(tmp_path / "m.keras")
    mine = refrnn.load_model(tmp_path / "m.keras")
    x, memories, parts = rng.normal(size=(B, T, 6, 5, 1)), None, []
    for piece in (slice(0, 1), slice(1, 1), slice(1, T)):
        y, memories = mine.advance(x[:, piece], memories)
        parts.append(y)
    assert same_bits({"y": np.concatenate(parts, axis=1)}, {"y": np.asarray(mine(x))})
    stateful = refrnn.load_model(tmp_path / "m.keras").to_stateful(rows=B)
    assert same_bits({"y": np.asarray(stateful(x))}, {"y": np.asarray(mine(x))})


# --- refusals ---

X = np.ones((B, T, 4, 5, C), np.float32)


def called(**options: Any) -> Any:
    layer = layers.ConvLSTM2D(3, 2, name="v", **options)
    layer(X)
    return layer


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: layers.ConvLSTM2D(0, 2, name="v"), "'v': filters is 0, expected a whole number"),
        (lambda: layers.ConvLSTM2D(3, (2, 2, 2)), r"kernel_size is \(2, 2, 2\), expected a whole"),
        (lambda: layers.ConvLSTM1D(3, 2, strides=0), "strides is 0, expected a whole number of at"),
        (
            lambda: layers.ConvLSTM1D(3, 2, strides=2, dilation_rate=3),
            r"strides is \(2,\) and dila",
        ),
        (lambda: layers.ConvLSTM2D(3, 2, padding="causal"), "padding is 'causal', expected one of"),
        (lambda: layers.ConvLSTM2D(3, 2, data_format="NCHW"), "data_format is 'NCHW', expected 'c"),
        (lambda: layers.ConvLSTM2D(3, 2, implementation=1), "unknown argument implementation=1"),
        (lambda: layers.ConvLSTM2D(3, 2, activation="glu"), "'glu' halves the width"),
        (lambda: layers.ConvLSTM2D(3, 2)(X[0]), r"expected \(batch, time, height, width, channels"),
        (
            lambda: layers.ConvLSTM1D(3, 2, **FIRST)(X),
            r"shape \(3, 4, 4, 5, 2\), expected \(batch, time, features, time\)",
        ),
        (lambda: layers.ConvLSTM2D(3, 5)(X), r"\(4, 5\) places .* at least \(5, 5\) along height"),
        (lambda: called()(X[:, :, :3]), r"the input has sizes \(3, 5\), expected \(4, 5\), those"),
        (lambda: called()(X[..., :1]), r"has 1 channels, expected 2, because its kernel"),
        (
            lambda: called()(X, mask=np.ones((B, 2))),
            r"the mask has shape \(3, 2\), expected \(3, 4",
        ),
        (
            lambda: called()(X, [np.ones((B, 3, 4, 3))]),
            "state is 1 parts, expected a list of 2, as the cell",
        ),
        (
            lambda: called()(X, [np.ones((B, 3, 4, 3)), np.ones((B, 3, 4, 1))]),
            r"state 1 is of shape \(3, 3, 4, 1\), expected \(3, 3, 4, 3\)",
        ),
        (
            lambda: layers.ConvLSTM2D(3, 2)(X, [np.ones((B, 4, 4, 3))] * 2),
            r"the state has shape \(3, 4, 4, 3\), expected \(3, 3, 4, 3\), what it makes of",
        ),
        (
            lambda: layers.ConvLSTM2D(3, 2).set_weights([np.ones((2, 2, 2, 12))]),
            "got 1 arrays, expected 3: kernel, recurrent_kernel, bias",
        ),
        (
            lambda: layers.ConvLSTM2D(3, 2).set_weights(
                [np.ones((2, 2, 2, 12)), np.ones((2, 2, 2, 12)), np.ones(12)]
            ),
            r"recurrent_kernel has shape \(2, 2, 2, 12\), expected \(2, 2, 3, 12\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_a_refused_call_changes_nothing() -> None:
    layer = layers.ConvLSTM2D(3, 2, stateful=True)
    for wrong in ({"mask": np.ones((B, 2))}, {"initial_state": [np.ones((B, 4, 4, 3))] * 2}):
        with pytest.raises(ValueError, match="expected"):
            layer(X, **wrong)
        assert not layer.built
        assert layer.cell.sizes is None
        assert layer.states is None


# --- mutants ---


convolve, laid, last = conv_recurrent.convolve, conv_recurrent.laid, conv_recurrent.last
MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "a kernel read backwards": (
        conv_recurrent, "convolve", lambda x, kernel, along: convolve(x, kernel[::-1], along),
    ),
    "an axis of Keras's array forgotten": (conv_recurrent, "_as_in", lambda form, found: found),
    "one mask for all gates": (
        conv_recurrent.ConvLSTMCell, "mask_count", property(lambda self: 1),
    ),
    "a state padded at its start": (
        conv_recurrent, "laid",
        lambda *a: [
            w._replace(before=w.before + w.after, after=0) if a[-1] == "same" else w
            for w in laid(*a)
        ],
    ),
    "height and width exchanged": (
        conv_recurrent, "last", lambda x, form: np.swapaxes(last(x, form), 1, 2),
    ),
    "masks drawn in another order": (
        conv_recurrent.ConvLSTMCell, "_draw",
        lambda self, *a: layers.LSTMCell._draw(self, *a)[::-1],
    ),
    "states that begin with ones": (
        conv_recurrent.ConvLSTMCell, "get_initial_state",
        lambda self, batch_size: [np.ones((batch_size, 4, 3, 3), np.float32)] * 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(MUTANTS))
def test_a_mutant_is_caught(tf: Any, monkeypatch: Any, name: str) -> None:
    rng = np.random.default_rng(8)
    options = {
        "activation": "softmax",
        "dropout": 0.3,
        "recurrent_dropout": 0.4,
        "seed": 2,
        **FIRST,
    }
    x = video(rng, (4, 4), options).astype("float32")
    theirs = tf.keras.layers.ConvLSTM2D(4, 2, **options)
    theirs.build(x.shape)
    mine = refrnn.from_keras(randomize(theirs, rng))
    want = arrays(theirs(tf.tf.constant(x), training=True))
    compare(arrays(mine(x, training=True)), want, 1e-5, "without")
    mutated = refrnn.from_keras(theirs)
    monkeypatch.setattr(*MUTANTS[name])
    with pytest.raises(Mismatch):
        compare(arrays(mutated(x, training=True)), want, 1e-5, name)
