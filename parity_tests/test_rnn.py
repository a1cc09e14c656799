"""RNN over any cell, stacks of cells and Bidirectional give Keras's numbers, whole and in calls.

float64 within 1e-12 of the largest magnitude, as everywhere: see `refrnn.verify.TOLERANCES`.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refrnn
from refrnn import layers
from refrnn.layers.masks import leaves, mask_of, with_mask
from refrnn.verify import compare
from refrnn.verify.chunks import flat

CELLS = ("SimpleRNNCell", "GRUCell", "LSTMCell")
LAYERS = ("SimpleRNN", "GRU", "LSTM")
MERGES = ("concat", "sum", "mul", "ave", None)
B, T, F = 3, 5, 4


def arrays(outputs: Any) -> dict[str, np.ndarray]:
    return flat([np.asarray(leaf) for leaf in leaves(outputs)])


def tensors(tf: Any, structure: Any) -> Any:
    if isinstance(structure, list | tuple):
        return [tensors(tf, part) for part in structure]
    return None if structure is None else tf.tf.constant(structure)


def randomize(source: Any, rng: np.random.Generator) -> Any:
    """Weights that are not symmetric and biases that are not zero."""
    source.set_weights([rng.normal(0, 0.4, w.shape) for w in source.get_weights()])
    return source


def some_mask(rng: np.random.Generator, kind: str | None) -> np.ndarray | None:
    time = np.arange(T)
    lengths = rng.integers(0, T + 1, (B, 1))
    kinds = {"right": time < lengths, "left": time >= lengths, "holes": rng.random((B, T)) < 0.6}
    return None if kind is None else kinds[kind]


masks = st.sampled_from((None, "right", "left", "holes"))


@given(data=st.data())
def test_a_stack_of_cells_equals_keras(tf: Any, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    kinds = data.draw(st.lists(st.sampled_from(CELLS), min_size=2, max_size=3))
    units = [data.draw(st.integers(1, 4)) for _ in kinds]
    k = tf.keras.layers
    cells = [getattr(k, c)(n, dtype="float64") for c, n in zip(kinds, units, strict=True)]
    options = {name: data.draw(st.booleans()) for name in ("return_sequences", "go_backwards")}
    theirs = k.RNN(
        k.StackedRNNCells(cells, dtype="float64"), return_state=True, dtype="float64", **options
    )
    x = rng.normal(size=(B, T, F))
    theirs(tf.tf.constant(x))
    mine = refrnn.from_keras(randomize(theirs, rng))
    mask = some_mask(rng, data.draw(masks))
    state = None
    if data.draw(st.booleans()):
        state = [
            [rng.normal(size=(B, n)) for _ in range(2 if c == "LSTMCell" else 1)]
            for c, n in zip(kinds, units, strict=True)
        ]
    want = theirs(tf.tf.constant(x), mask=tensors(tf, mask), initial_state=tensors(tf, state))
    got = mine(x, mask=mask, initial_state=state)
    assert len(got) == 1 + len(kinds)
    compare(arrays(got), arrays(want), 1e-12, f"{kinds} {options}")


@pytest.mark.parametrize("kind", CELLS)
def test_an_rnn_of_a_cell_is_the_layer(kind: str, rng: np.random.Generator) -> None:
    options = {"return_sequences": True, "return_state": True, "dtype": "float64"}
    layer = getattr(layers, kind.removesuffix("Cell"))(
        3, bias_initializer="normal", engine="numpy", **options
    )
    x, mask = rng.normal(size=(B, T, F)), rng.random((B, T)) < 0.6
    want = layer(x, mask=mask)
    mine = layers.RNN(getattr(layers, kind)(3, dtype="float64"), **options)
    mine.set_weights(layer.get_weights())
    got = mine(x, mask=mask)
    assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))


class Minimal:
    """The cell of Keras's guide: a plain object, without weights of its own kind."""

    state_size = 3

    def __init__(self, U: np.ndarray) -> None:
        self.U = U

    def call(self, inputs: Any, states: Any) -> Any:
        h = np.tanh(inputs + states[0] @ self.U)
        return h, [h]


class Nested(layers.Layer):
    """A cell whose states are nested and of two ranks."""

    state_size = (3, ((2, 3),))
    output_size = 3

    def get_initial_state(self, batch_size: int) -> Any:
        return [np.zeros((batch_size, 3)), [np.zeros((batch_size, 2, 3))]]

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        h, (m,) = states
        new = np.tanh(inputs + 0.5 * h + m.sum(axis=1))
        return new, [new, [m + 0.1 * new[:, None]]]


def by_hand(cell: Any, x: np.ndarray, state: Any, mask: np.ndarray) -> Any:
    """The step rule, a row and a step at a time."""
    outputs = np.zeros((B, T, 3))
    for b in range(B):
        here = layers.rnn.map_arrays(lambda a, b=b: a[b : b + 1], state)
        last = np.zeros((1, 3))
        for t in range(T):
            if mask[b, t]:
                last, here = cell.call(x[b : b + 1, t], here)
            outputs[b, t] = last
    return outputs


@pytest.mark.parametrize("kind", ["minimal", "nested"])
def test_a_cell_of_the_users_own_is_stepped_and_masked(kind: str, rng: np.random.Generator) -> None:
    cell = Minimal(rng.normal(size=(3, 3))) if kind == "minimal" else Nested(dtype="float64")
    x, mask = rng.normal(size=(B, T, 3)), rng.random((B, T)) < 0.6
    layer = layers.RNN(cell, return_sequences=True, return_state=True, dtype="float64")
    ys, *states = layer(x, mask=mask)
    blank = layer.start(B).state
    np.testing.assert_allclose(ys, by_hand(cell, x, blank, mask), rtol=1e-14, atol=1e-15)
    first, memory = layer.advance(x[:, :2], layer.start(B), mask[:, :2])
    second, _ = layer.advance(x[:, 2:], memory, mask[:, 2:])
    assert np.array_equal(np.concatenate([first[0], second[0]], axis=1), ys)
    for a, b in zip(leaves(second[1:]), leaves(states), strict=True):
        assert np.array_equal(a, b)


@given(data=st.data())
def test_bidirectional_equals_keras(tf: Any, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    k = tf.keras.layers
    kind, merge = data.draw(st.sampled_from(LAYERS)), data.draw(st.sampled_from(MERGES))
    returns = {n: data.draw(st.booleans()) for n in ("return_sequences", "return_state")}
    own = data.draw(st.sampled_from((None, *LAYERS)))
    inner = getattr(k, kind)(3, dtype="float64", **returns)
    backward = None
    if own:
        backward = getattr(k, own)(3, dtype="float64", go_backwards=True, **returns)
    theirs = k.Bidirectional(inner, merge_mode=merge, backward_layer=backward, dtype="float64")
    x = rng.normal(size=(B, T, F))
    theirs(tf.tf.constant(x))
    mine = refrnn.from_keras(randomize(theirs, rng))
    mask = some_mask(rng, data.draw(masks))
    state = None
    same = own is None or (own == "LSTM") == (kind == "LSTM")  # Keras halves the list
    if same and data.draw(st.booleans()):
        state = [rng.normal(size=(B, 3)) for _ in range(4 if kind == "LSTM" else 2)]
    want = theirs(tf.tf.constant(x), mask=tensors(tf, mask), initial_state=tensors(tf, state))
    got = mine(x, mask=mask, initial_state=state)
    assert isinstance(got, tuple) == isinstance(want, tuple | list)
    compare(arrays(got), arrays(want), 1e-12, f"{kind} {own} {merge} {returns}")
    again = type(theirs).from_config(mine.get_config())
    again(tf.tf.constant(x))
    again.set_weights(mine.get_weights())
    want = again(tf.tf.constant(x), mask=tensors(tf, mask), initial_state=tensors(tf, state))
    compare(arrays(got), arrays(want), 1e-12, "through the config")


@pytest.mark.parametrize("kind", LAYERS)
def test_a_stateful_pair_carries_both_states(tf: Any, rng: np.random.Generator, kind: str) -> None:
    k = tf.keras.layers
    inner = getattr(k, kind)(3, return_sequences=True, stateful=True, dtype="float64")
    theirs = k.Bidirectional(inner, dtype="float64")
    x = rng.normal(size=(B, T, F))
    theirs(tf.tf.constant(x))
    theirs.reset_state()
    mine = refrnn.from_keras(randomize(theirs, rng))
    for _ in range(3):
        want = theirs(tf.tf.constant(x))
        compare(arrays(mine(x)), arrays(want), 1e-12, kind)
    mine.reset_states()
    assert not any(part.any() for part in mine.states)


def test_a_stack_in_training_drops_what_keras_drops(tf: Any, rng: np.random.Generator) -> None:
    k = tf.keras.layers
    rates = {"dropout": 0.4, "recurrent_dropout": 0.3, "dtype": "float64"}
    cells = [k.GRUCell(3, seed=1, **rates), k.LSTMCell(2, seed=2, **rates)]
    theirs = k.RNN(k.StackedRNNCells(cells, dtype="float64"), dtype="float64")
    x = rng.normal(size=(B, T, F))
    theirs.build(x.shape)
    mine = refrnn.from_keras(randomize(theirs, rng))
    for training in (True, False, True):
        want = theirs(tf.tf.constant(x), training=training)
        compare(arrays(mine(x, training=training)), arrays(want), 1e-12, str(training))


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("merge", ["concat", None])
def test_masks_of_outputs_are_those_of_keras(
    tf: Any, rng: np.random.Generator, sequences: bool, merge: str | None
) -> None:
    from keras.src.backend import get_keras_mask, set_keras_mask

    k = tf.keras.layers
    returns = {"return_sequences": sequences, "return_state": True}
    theirs = k.Bidirectional(k.GRU(3, **returns), merge_mode=merge)
    x, mask = rng.normal(size=(B, T, F)).astype("float32"), rng.random((B, T)) < 0.7
    tensor = tf.tf.constant(x)
    set_keras_mask(tensor, tf.tf.constant(mask))
    want = theirs(tensor)
    mine = refrnn.from_keras(theirs)
    got = mine(with_mask(x, mask))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, np.asarray(b), rtol=0, atol=1e-6)  # float32, sums of 7
        expected = get_keras_mask(b)
        assert (mask_of(a) is None) == (expected is None)
        assert expected is None or np.array_equal(mask_of(a), expected)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: layers.RNN(3, name="r"), "RNN 'r': cell is 3, expected an object with call"),
        (lambda: layers.RNN([], name="r"), "cells is .., expected a list of at least one"),
        (lambda: layers.Bidirectional(layers.Dense(3), name="b"), "'b': layer is <Dense"),
        (lambda: layers.Bidirectional(layers.GRU(3), "avg", name="b"), "merge_mode is 'avg'"),
        (lambda: layers.Bidirectional(layers.GRU(3, go_backwards=True)), "go_backwards=True"),
        (lambda: layers.Bidirectional(layers.GRU(3), weights=[1]), "weights is given"),
        (
            lambda: layers.Bidirectional(
                layers.GRU(3), backward_layer=layers.GRU(3, go_backwards=True, stateful=True)
            ),
            "stateful is False forwards and True backwards",
        ),
        (
            lambda: layers.Bidirectional(layers.LSTM(2))(np.ones((1, 2, 3)), [np.ones((1, 2))] * 2),
            "given as 2, expected a flat list of 4 arrays: 2 forwards, then 2 backwards",
        ),
        (
            lambda: layers.RNN([layers.GRUCell(2), layers.LSTMCell(2)])(
                np.ones((1, 2, 3)), [np.ones((1, 2)), [np.ones((1, 2))]]
            ),
            "state 1 is 1 parts, expected a list of 2",
        ),
        (
            lambda: layers.RNN([layers.GRUCell(2)])(np.ones((2, 2, 3)), [np.ones((1, 2))]),
            r"state 0 0 is of shape \(1, 2\), expected \(2, 2\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
