"""In training mode refrnn drops what Keras drops, bit for bit, call after call."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import cases

from refrnn import layers, random
from refrnn.cases import Case
from refrnn.verify import compare
from refrnn.verify.chunks import named

SEEDS = [(0, 0), (7, 2), (2**31 - 3, 5), (123456789, 1000)]
DTYPES = ("float16", "bfloat16", "float32", "float64")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_uniforms_are_those_of_tensorflow(tf: Any, dtype: str, seed: tuple[int, int]) -> None:
    for shape in ((1,), (3, 5), (2, 3, 4), (0, 4)):
        want = tf.tf.random.stateless_uniform(shape, seed=seed, dtype=dtype).numpy()
        got = random.uniform(seed, shape, np.dtype(getattr(ml_dtypes, dtype, dtype)))
        assert got.dtype == want.dtype
        assert got.tobytes() == want.tobytes()


def test_philox_gives_its_authors_known_answers() -> None:
    """Two of the vectors that the authors publish with their code (Random123, kat_vectors)."""
    zeros = random.philox(np.zeros((4, 1), np.uint64), (0, 0))[:, 0]
    assert [hex(int(w)) for w in zeros] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]
    ones = random.philox(np.full((4, 1), 0xFFFFFFFF, np.uint64), (0xFFFFFFFF, 0xFFFFFFFF))[:, 0]
    assert [hex(int(w)) for w in ones] == ["0x408f276d", "0x41c83b0e", "0xa20bc7c6", "0x6d5451fd"]


@given(data=st.data())
def test_training_outputs_are_those_of_keras_call_by_call(tf: Any, data: st.DataObject) -> None:
    """Inference calls in between draw too: the masks after them are others."""
    case = data.draw(cases(max_steps=5))
    rates = st.sampled_from((0.0, 0.3, 0.5, 1.0))
    options = {
        **case.options,
        "dropout": data.draw(rates),
        "recurrent_dropout": data.draw(rates),
        "seed": data.draw(st.integers(0, 2**31 - 1)),
    }
    options.pop("unroll", None)
    case = Case(**{**vars(case), "options": options})
    arrays = case.arrays()
    theirs, mine = tf.layer(case, arrays.weights), case.build()
    x, mask = tf.tf.constant(arrays.x), arrays.mask
    for training in data.draw(st.lists(st.booleans(), min_size=1, max_size=3)):
        given_mask = None if mask is None else tf.tf.constant(mask)
        want = theirs(x, mask=given_mask, initial_state=arrays.state, training=training)
        got = mine(arrays.x, mask=mask, initial_state=arrays.state, training=training)
        compare(named(got), named([np.asarray(w) for w in want]), 1e-12, f"{case} {training}")


@pytest.mark.parametrize("kind", ["Dropout", "SpatialDropout1D"])
@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_dropout_layer_is_that_of_keras_call_by_call(
    tf: Any, rng: np.random.Generator, kind: str, rate: float, dtype: str
) -> None:
    theirs = getattr(tf.keras.layers, kind)(rate, seed=11, dtype=dtype)
    mine = getattr(layers, kind)(rate, seed=11, dtype=dtype)
    x = rng.normal(size=(3, 4, 5)).astype(dtype)
    x[0, 0, 0] = np.nan
    for training in (True, False, True):
        want = np.asarray(theirs(tf.tf.constant(x), training=training))
        got = mine(x, training=training)
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


def test_a_shared_noise_shape_drops_alike(tf: Any) -> None:
    x = np.ones((3, 4, 5), np.float32)
    theirs = tf.keras.layers.Dropout(0.5, noise_shape=(None, 1, 5), seed=3)
    want = np.asarray(theirs(tf.tf.constant(x), training=True))
    got = layers.Dropout(0.5, noise_shape=(None, 1, 5), seed=3)(x, training=True)
    np.testing.assert_array_equal(got, want)


def test_without_a_seed_masks_differ_from_layer_to_layer() -> None:
    x = np.ones((50, 50), np.float32)
    first, second = (layers.Dropout(0.5)(x, training=True) for _ in range(2))
    assert not np.array_equal(first, second)


def test_chunks_in_inference_leave_the_random_numbers_alone() -> None:
    case = Case("LSTM", options={"dropout": 0.5, "seed": 4})
    arrays = case.arrays()
    layer, other = case.build(), case.build()
    layer.advance(arrays.x, layer.start(3))
    got, want = layer(arrays.x, training=True), other(arrays.x, training=True)
    assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("rate", [-0.1, 1.5, True, "half", None])
def test_a_rate_that_is_none_is_refused(rate: Any) -> None:
    with pytest.raises(ValueError, match=r"Dropout 'd': rate is .* expected a number from 0 to 1"):
        layers.Dropout(rate, name="d")


def test_a_noise_shape_of_another_rank_is_refused() -> None:
    with pytest.raises(ValueError, match=r"noise_shape is \(3, 1\), expected 3 sizes"):
        layers.Dropout(0.5, noise_shape=(3, 1), name="d")(np.ones((3, 4, 5)), training=True)


@pytest.mark.parametrize("kind", ["Dropout", "SpatialDropout1D"])
def test_a_config_goes_to_keras_and_back(tf: Any, kind: str) -> None:
    theirs = getattr(tf.keras.layers, kind)(0.25, seed=4, name="d")
    mine = getattr(layers, kind).from_config(theirs.get_config())
    back = type(theirs).from_config(mine.get_config())
    assert back.get_config() == theirs.get_config()


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_whole_channels_of_images_are_dropped_as_in_keras(
    tf: Any, rng: np.random.Generator, data_format: str
) -> None:
    theirs = tf.keras.layers.SpatialDropout2D(0.4, data_format=data_format, seed=11, name="d")
    mine = layers.SpatialDropout2D.from_config(theirs.get_config())
    assert type(theirs).from_config(mine.get_config()).get_config() == theirs.get_config()
    x = rng.normal(size=(3, 4, 5, 6)).astype("float32")
    for training in (True, False, True):
        want = np.asarray(theirs(tf.tf.constant(x), training=training))
        np.testing.assert_array_equal(mine(x, training=training), want, strict=True)
    with pytest.raises(ValueError, match=r"shape \(3, 4, 5\), expected \(batch, .*height, width"):
        mine(x[..., 0], training=True)
