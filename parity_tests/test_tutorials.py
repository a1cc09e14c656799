"""The well-known RNN tutorials and Keras's RNN guide, done with refrnn beside Keras.

Each test can be read as the example it follows; each number is compared with Keras's, float64
within 1e-12 of the largest magnitude, float32 within 1e-5 (`refrnn.verify.TOLERANCES`).
"""

from importlib import resources
from typing import Any

import h5py
import numpy as np
import pytest

import refrnn
from refrnn import layers
from refrnn.verify import compare
from refrnn.verify.inputs import sine_windows


@pytest.fixture(scope="module")
def load(tf: Any) -> Any:
    def trained(name: str) -> Any:
        with resources.as_file(resources.files("refrnn.verify") / "models" / name) as path:
            return tf.load(path)

    return trained


def same(got: Any, want: Any, allowed: float, what: str) -> None:
    compare({what: np.asarray(got)}, {what: np.asarray(want)}, allowed, what)


# --- the sine wave: trained at batch 175, used at batch 1 ---


def test_weights_of_batch_175_go_to_a_model_of_batch_1(tf: Any, load: Any) -> None:
    model = refrnn.from_keras(load("sine.keras"))
    single = model.to_stateful(rows=1)
    theirs = tf.with_batch(load("sine.keras"), 1)
    for window in sine_windows()[:5]:
        single.reset_states()
        want = tf.run_model(theirs, [window[None]])
        same(single(window[None]), want, 1e-5, "next value")


def test_a_sine_goes_on_by_feeding_on_itself(tf: Any, load: Any) -> None:
    """The last 25 values predict the next, 50 times: within 0.05 of the wave, and Keras's own."""
    model = refrnn.from_keras(load("sine.keras")).to_stateful(rows=1)
    theirs = tf.with_batch(load("sine.keras"), 1)
    window = sine_windows()[:1].copy()
    other = window.copy()
    for step in range(50):
        model.reset_states()
        value = model(window)
        want = np.asarray(tf.run_model(theirs, [other]))
        truth = (np.sin(2 * np.pi * (25 + step) / 50) + 1) / 2
        # each run feeds on its own output: rounding adds up, 1e-5 a step at the most
        assert abs(value.item() - want.item()) < 1e-5 * (step + 1)
        assert abs(value.item() - truth) < 0.05
        window = np.concatenate([window[:, 1:], value[:, None]], axis=1)
        other = np.concatenate([other[:, 1:], want[:, None]], axis=1)


# --- the running sum: the hidden state handed over ---


def test_the_sum_holds_over_lengths_and_fails_where_it_was_not_trained(load: Any) -> None:
    """The error curve over lengths 1 to 40: small to 30, the longest that training saw."""
    model = refrnn.from_keras(load("running_sum.keras"))
    rng = np.random.default_rng(0)
    curve = {}
    for steps in range(1, 41):
        x = rng.integers(0, 2, (16, steps, 1)).astype(np.float32)
        curve[steps] = float(np.abs(model(x)[:, -1] - x.sum(axis=1)).mean())
    assert max(curve[steps] for steps in range(1, 31)) < 0.2
    assert curve[40] > curve[20]


# --- streams: one step at a time ---


def test_samples_of_seven_steps_one_at_a_time_are_the_whole(tf: Any) -> None:
    """Trained stateless, served as a stream of batch 1, which is reset between samples."""
    k = tf.keras
    tf.keras.utils.set_random_seed(1)
    trained = k.Sequential(
        [k.Input((7, 3)), k.layers.LSTM(5, return_sequences=True), k.layers.Dense(1)]
    )
    model = refrnn.from_keras(trained)
    stream = model.to_stateful(rows=1)
    samples = np.random.default_rng(2).normal(size=(4, 7, 3)).astype(np.float32)
    want = np.asarray(trained(samples))
    for sample, expected in zip(samples, want, strict=True):
        stream.reset_states()
        steps = [stream(sample[None, t : t + 1]) for t in range(7)]
        same(np.concatenate(steps, axis=1)[0], expected, 1e-5, "step by step")
    leaked = stream(samples[:1, :1])  # not reset: the last sample's state is still there
    assert abs(leaked.item() - want[0, 0, 0]) > 1e-3


def test_a_reset_gives_zeros(tf: Any) -> None:
    """Not the last state, and not the initial one, as some tutorials say."""
    k = tf.keras.layers
    theirs = k.GRU(3, stateful=True)
    x, start = np.ones((2, 4, 5), np.float32), np.full((2, 3), 0.5, np.float32)
    theirs(x, initial_state=tf.tf.constant(start))
    mine = refrnn.from_keras(theirs)
    assert np.abs(mine.states[0]).min() > 0
    theirs.reset_state()
    mine.reset_state()
    assert not np.asarray(theirs.states[0]).any()
    assert not mine.states[0].any()


# --- Keras's guide to RNNs ---


@pytest.mark.parametrize("kind", ["SimpleRNN", "GRU", "LSTM"])
def test_the_guide_begins_with_each_layer(tf: Any, kind: str) -> None:
    k = tf.keras
    model = k.Sequential(
        [
            k.Input((None, 6)),
            getattr(k.layers, kind)(8, return_sequences=True),
            getattr(k.layers, kind)(5),
            k.layers.Dense(10),
        ]
    )
    x = np.random.default_rng(0).normal(size=(3, 9, 6)).astype(np.float32)
    same(refrnn.from_keras(model)(x), model(x), 1e-5, kind)


def test_an_encoder_hands_its_state_to_a_decoder(tf: Any) -> None:
    k = tf.keras
    source, target = k.Input((None, 4)), k.Input((None, 3))
    _, h, c = k.layers.LSTM(6, return_state=True, name="encoder")(source)
    y = k.layers.LSTM(6, name="decoder")(target, initial_state=[h, c])
    theirs = k.Model([source, target], k.layers.Dense(2)(y))
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(3, n, f)).astype(np.float32) for n, f in ((7, 4), (5, 3))]
    mine = refrnn.from_keras(theirs)
    same(mine(inputs), theirs(inputs), 1e-5, "translation")
    assert "starts from a state that 'encoder' ends with" in str(mine.why_whole())


def test_three_paragraphs_of_one_book(tf: Any) -> None:
    """Cross-batch statefulness, and the states of one layer as the start of another."""
    paragraphs = np.random.default_rng(0).normal(size=(3, 20, 10, 5)).astype(np.float32)
    theirs = tf.keras.layers.LSTM(6, stateful=True)
    theirs.build((20, 10, 5))
    mine = refrnn.from_keras(theirs)
    for paragraph in paragraphs:
        same(mine(paragraph), theirs(tf.tf.constant(paragraph)), 1e-5, "paragraph")
    again = tf.keras.layers.LSTM(6)
    want = again(
        tf.tf.constant(paragraphs[0]), initial_state=[tf.tf.constant(s) for s in mine.states]
    )
    got = refrnn.from_keras(again)(paragraphs[0], initial_state=mine.states)
    same(got, want, 1e-5, "states reused")


def test_bidirectional_layers_are_stacked(tf: Any) -> None:
    k = tf.keras
    model = k.Sequential(
        [
            k.Input((5, 10)),
            k.layers.Bidirectional(k.layers.LSTM(8, return_sequences=True)),
            k.layers.Bidirectional(k.layers.LSTM(4)),
            k.layers.Dense(10),
        ]
    )
    x = np.random.default_rng(0).normal(size=(3, 5, 10)).astype(np.float32)
    same(refrnn.from_keras(model)(x), model(x), 1e-5, "both ways, twice")


def test_an_rnn_of_an_lstm_cell_is_an_lstm() -> None:
    x = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    lstm = layers.LSTM(6, engine="numpy")  # as any cell in an RNN
    want = lstm(x)
    rnn = layers.RNN(layers.LSTMCell(6))
    rnn.set_weights(lstm.get_weights())
    assert np.array_equal(rnn(x), want)


# --- Keras's guide "Working with RNNs", each model written once and made of both libraries ---

WORDS = np.random.default_rng(3).integers(0, 20, (4, 9)).astype("int32")  # ids; 0 is padding


def pair(tf: Any, make: Any) -> tuple[Any, Any]:
    """What `make` makes of refrnn and of Keras, with the same random weights."""
    mine, theirs = make(refrnn), make(tf.keras)
    rng = np.random.default_rng(4)
    theirs.set_weights([rng.normal(0, 0.5, w.shape) for w in theirs.get_weights()])
    mine.set_weights(theirs.get_weights())
    return mine, theirs


@pytest.mark.parametrize("kind", ["SimpleRNN", "GRU", "LSTM"])
def test_words_are_embedded_and_read_by_each_layer(tf: Any, kind: str) -> None:
    """The last output alone, or the outputs of all words into a second layer."""

    def last(library: Any) -> Any:
        k = library.layers
        return library.Sequential(
            [k.Input((None,)), k.Embedding(20, 6), getattr(k, kind)(8), k.Dense(10)]
        )

    def every(library: Any) -> Any:
        k = library.layers
        first = getattr(k, kind)(8, return_sequences=True)
        return library.Sequential(
            [k.Input((None,)), k.Embedding(20, 6), first, k.SimpleRNN(5), k.Dense(10)]
        )

    for make in (last, every):
        mine, theirs = pair(tf, make)
        same(mine(WORDS), theirs(WORDS), 1e-5, kind)


def test_a_translator_hands_the_states_of_its_encoder_over(tf: Any) -> None:
    """Embedded words on both sides; the decoder begins with h and c of the encoder."""

    def make(library: Any) -> Any:
        k = library.layers
        question, answer = k.Input((None,), dtype="int32"), k.Input((None,), dtype="int32")
        known = k.Embedding(20, 6)(question)
        output, h, c = k.LSTM(7, return_state=True)(known)
        said = k.Embedding(15, 5)(answer)
        y = k.LSTM(7)(said, initial_state=[h, c])
        return library.Model([question, answer], [k.Dense(10, "softmax")(y), output, h, c])

    mine, theirs = pair(tf, make)
    inputs = [WORDS, WORDS[:, :4] % 15]
    probabilities, output, h, c = mine(inputs)
    for name, got, want in zip("pohc", (probabilities, output, h, c), theirs(inputs), strict=True):
        same(got, want, 1e-5, name)
    assert np.array_equal(output, h)  # the last output is the state h; c is another
    assert not np.array_equal(h, c)
    same(probabilities.sum(axis=1), np.ones(4, np.float32), 1e-6, "probabilities")


@pytest.mark.parametrize("kind", ["SimpleRNN", "GRU", "LSTM"])
def test_a_long_sequence_is_read_piece_by_piece(tf: Any, kind: str) -> None:
    """Cross-batch statefulness: the pieces in order are the whole; a reset begins anew."""

    def make(library: Any) -> Any:
        k = library.layers
        layer = getattr(k, kind)(6, stateful=True, return_sequences=True)
        return library.Sequential([k.Input(batch_shape=(3, None, 4)), layer])

    mine, theirs = pair(tf, make)
    x = np.random.default_rng(5).normal(size=(3, 12, 4)).astype(np.float32)
    parts = [slice(0, 5), slice(5, 6), slice(6, 12)]
    got = [mine(x[:, part]) for part in parts]
    for piece, part in zip(got, parts, strict=True):
        same(piece, theirs(x[:, part]), 1e-5, "piece")
    mine.reset_states()
    assert np.array_equal(np.concatenate(got, axis=1), mine(x))
    assert not np.array_equal(mine(x[:, :5]), got[0])  # goes on from the end
    mine.reset_states()
    assert np.array_equal(mine(x[:, :5]), got[0])


@pytest.mark.parametrize("kind", ["SimpleRNN", "GRU", "LSTM"])
def test_the_states_of_one_layer_begin_another(tf: Any, kind: str) -> None:
    x = np.random.default_rng(6).normal(size=(3, 10, 4)).astype(np.float32)
    theirs = getattr(tf.keras.layers, kind)(5, stateful=True)
    theirs.build((3, 10, 4))
    mine = refrnn.from_keras(theirs)
    mine(x), theirs(x)
    other = getattr(tf.keras.layers, kind)(5)
    other.build((3, 10, 4))
    got = refrnn.from_keras(other)(x, initial_state=mine.states)
    same(got, other(x, initial_state=list(theirs.states)), 1e-5, "states reused")
    assert np.abs(got - refrnn.from_keras(other)(x)).max() > 1e-3  # and they matter


def test_sentences_are_read_both_ways_and_padding_is_skipped(tf: Any) -> None:
    """Two Bidirectional layers, one upon the other, on sentences of different lengths."""

    def make(library: Any) -> Any:
        k = library.layers
        return library.Sequential(
            [
                k.Input((None,)),
                k.Embedding(20, 6, mask_zero=True),
                k.Bidirectional(k.LSTM(8, return_sequences=True)),
                k.Bidirectional(k.LSTM(4)),
                k.Dense(10),
            ]
        )

    mine, theirs = pair(tf, make)
    padded = np.where(np.arange(9) < np.array([[9], [6], [3], [1]]), WORDS + 1, 0) % 20
    got = mine(padded)
    same(got, theirs(padded), 1e-5, "both ways")
    shorter = mine(padded[1:2, :6])
    assert np.array_equal(got[1:2], shorter)  # as if there were no padding


def test_a_layer_is_an_rnn_of_its_cell_in_keras_too(tf: Any) -> None:
    x = np.random.default_rng(7).normal(size=(3, 5, 4)).astype(np.float32)
    for kind in ("SimpleRNN", "GRU", "LSTM"):

        def make(library: Any, kind: str = kind) -> Any:
            k = library.layers
            cell = getattr(k, f"{kind}Cell")(6)
            return library.Sequential([k.Input((None, 4)), k.RNN(cell)])

        mine, theirs = pair(tf, make)
        same(mine(x), theirs(x), 1e-5, kind)
        layer = getattr(layers, kind)(6)
        layer.set_weights(mine.get_weights())
        same(layer(x), theirs(x), 1e-5, kind)


# --- prediction on a stream, its state kept in a file ---


def test_a_stream_of_single_steps_is_kept_in_a_file_between_them(tf: Any, tmp_path: Any) -> None:
    """Samples of 7 steps: trained whole, predicted one step at a time, each by a new stream.

    The file holds an array `states_<layer>_<i>` for each state, which Keras's layers take as well.
    """

    def make(library: Any) -> Any:
        k = library.layers
        return library.Sequential(
            [
                k.Input((None, 3)),
                k.LSTM(5, return_sequences=True, name="first"),
                k.GRU(4, return_sequences=True, name="second"),
                k.Dense(1, name="head"),
            ]
        )

    mine, theirs = pair(tf, make)
    samples = np.random.default_rng(8).normal(size=(2, 7, 3)).astype(np.float32)
    path = tmp_path / "state.h5"
    refrnn.Stream(mine, rows=2).save(path)
    for t in range(7):
        stream = refrnn.Stream.load(path, mine)
        y = stream.step(samples[:, t])
        stream.save(path)
        assert np.array_equal(y, mine(samples)[:, t])  # bit for bit that of the whole
        same(y, theirs(samples)[:, t], 1e-5, f"step {t}")
        if t == 3:
            with h5py.File(path) as file:
                kept = {name: np.array(file[name]) for name in file if name.startswith("states_")}
    assert sorted(kept) == ["states_first_0", "states_first_1", "states_second_0"]
    k = tf.keras.layers
    x: Any = samples[:, 4:]
    for name, kind, units in (("first", k.LSTM, 5), ("second", k.GRU, 4)):
        layer = kind(units, return_sequences=True)
        layer.build(x.shape)
        layer.set_weights(theirs.get_layer(name).get_weights())
        x = layer(x, initial_state=[v for key, v in sorted(kept.items()) if name in key])
    same(mine(samples)[:, 4:], theirs.get_layer("head")(x), 1e-5, "Keras, from the file")


# --- predict ---


def test_predict_in_batches_is_one_call(tf: Any) -> None:
    k = tf.keras
    model = k.Sequential([k.Input((None, 4)), k.layers.GRU(3), k.layers.Dense(2)])
    mine = refrnn.from_keras(model)
    x = np.random.default_rng(0).normal(size=(10, 6, 4)).astype(np.float32)
    same(mine.predict(x, batch_size=3), model.predict(x, verbose=0), 1e-5, "predict")
    assert np.array_equal(mine.predict(x, batch_size=3), mine(x))
    assert mine.predict(x[:0]).shape == (0, 2)


def test_a_model_for_a_stream_needs_a_number_of_rows_and_one_direction() -> None:
    one_way = refrnn.Sequential([layers.GRU(2)], name="m")
    with pytest.raises(ValueError, match="model 'm': rows is 0, expected a whole number"):
        one_way.to_stateful(0)
    both = refrnn.Sequential([layers.Bidirectional(layers.GRU(2), name="b")], name="m")
    with pytest.raises(ValueError, match="Bidirectional 'b' cannot be made stateful"):
        both.to_stateful(1)
    with pytest.raises(ValueError, match="batch_size is 0, expected a whole number"):
        one_way.predict(np.ones((2, 3, 4)), batch_size=0)


def test_a_stateful_copy_leaves_its_model_as_it_was() -> None:
    model = refrnn.Sequential([layers.GRU(2, name="g")], name="m")
    x = np.ones((1, 3, 4), np.float32)
    want = model(x)
    stream = model.to_stateful(rows=1)
    assert np.array_equal(stream(x), want)
    assert not np.array_equal(stream(x), want)
    assert np.array_equal(model(x), want)
    assert not model.layers[0].stateful
