"""Each known deviation from Keras is still one: Keras does what the README's table says.

A test here that fails means that Keras has changed: mend the table, and refrnn if it should follow.
What refrnn does instead is asserted beside it.
"""

from typing import Any

import numpy as np
import pytest

from refrnn import layers
from refrnn.cases import Case
from refrnn.verify.chunks import layer_whole


def keras_layer(tf: Any, case: Case, **options: Any) -> Any:
    return tf.layer(
        Case(case.layer, options={**case.options, **options}, dtype=case.dtype),
        case.arrays().weights,
    )


def test_unroll_with_zeros_and_backwards_zeroes_the_wrong_steps(tf: Any) -> None:
    options = {"zero_output_for_mask": True, "go_backwards": True}
    case = Case("LSTM", mask="right", options=options)
    arrays = case.arrays()
    mine = layer_whole(case.build(unroll=True), arrays)
    x, mask = tf.tf.constant(arrays.x), tf.tf.constant(arrays.mask)
    loop, unrolled = (
        np.asarray(keras_layer(tf, case, unroll=u)(x, mask=mask, initial_state=arrays.state)[0])
        for u in (False, True)
    )
    assert np.abs(loop - unrolled).max() > 0.01
    np.testing.assert_allclose(mine["y"], loop, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layer", ["SimpleRNN", "GRU", "LSTM"])
def test_no_steps_fail_in_keras(tf: Any, layer: str) -> None:
    case = Case(layer)
    with pytest.raises(tf.tf.errors.InvalidArgumentError):
        keras_layer(tf, case)(tf.tf.zeros((3, 0, 5), "float64"))
    assert case.build()(np.zeros((3, 0, 5)))[0].shape == (3, 0, 4)


def test_no_rows_fail_in_keras_lstm(tf: Any) -> None:
    case = Case("LSTM")
    with pytest.raises(tf.tf.errors.InvalidArgumentError):
        keras_layer(tf, case)(tf.tf.zeros((0, 7, 5), "float64"))
    assert case.build()(np.zeros((0, 7, 5)))[0].shape == (0, 7, 4)


def test_a_state_of_one_row_is_broadcast_by_keras(tf: Any) -> None:
    case = Case("LSTM")
    x, state = case.arrays().x, [np.full((1, 4), 0.5), np.full((1, 4), 0.5)]
    y, *_ = keras_layer(tf, case)(tf.tf.constant(x), initial_state=[*map(tf.tf.constant, state)])
    assert np.asarray(y).shape == (3, 7, 4)
    with pytest.raises(ValueError, match=r"state h is of shape \(1, 4\), expected \(3, 4\)"):
        case.build()(x, initial_state=state)


def test_a_second_state_for_a_gru_is_ignored_by_keras(tf: Any) -> None:
    case = Case("GRU")
    x, h = case.arrays().x, np.full((3, 4), 0.5)
    one, two = (
        np.asarray(keras_layer(tf, case)(tf.tf.constant(x), initial_state=state)[0])
        for state in ([tf.tf.constant(h)], [tf.tf.constant(h), tf.tf.constant(h + 1)])
    )
    assert np.array_equal(one, two)
    with pytest.raises(ValueError, match="the state is given as 2 parts, expected a list of 1: h"):
        case.build()(x, initial_state=[h, h + 1])


def test_a_keras_lstm_cell_takes_rows_for_states(tf: Any) -> None:
    case = Case("LSTM")
    x, h = case.arrays().x[:, 0], case.arrays().state[0]
    y, _ = keras_layer(tf, case).cell(tf.tf.constant(x), tf.tf.constant(h))
    assert np.asarray(y).shape == (3, 4)
    with pytest.raises(ValueError, match="the state is given as ndarray, expected a list of 2"):
        case.build().cell(x, h)


def test_spare_columns_of_a_mask_are_ignored_by_keras_when_unrolled(tf: Any) -> None:
    case = Case("GRU", options={"unroll": True})
    x, mask = case.arrays().x, np.ones((3, 9), bool)
    y, _ = keras_layer(tf, case)(tf.tf.constant(x), mask=tf.tf.constant(mask))
    assert np.asarray(y).shape == (3, 7, 4)
    with pytest.raises(ValueError, match=r"mask has shape \(3, 9\), expected \(3, 7\)"):
        case.build()(x, mask=mask)


def test_a_mask_for_each_unit_is_taken_by_keras_loop(tf: Any) -> None:
    case = Case("GRU")
    x, mask = case.arrays().x, np.ones((3, 7, 4), bool)
    y, _ = keras_layer(tf, case)(tf.tf.constant(x), mask=tf.tf.constant(mask))
    assert np.asarray(y).shape == (3, 7, 4)
    with pytest.raises(ValueError, match=r"mask has shape \(3, 7, 4\), expected \(3, 7\)"):
        case.build()(x, mask=mask)


def test_keras_cannot_reset_a_row_or_set_a_state(tf: Any) -> None:
    case = Case("LSTM", options={"stateful": True})
    theirs = keras_layer(tf, case)
    with pytest.raises(TypeError):
        theirs.reset_state(rows=[0])
    with pytest.raises(TypeError):
        theirs.reset_states(case.arrays().state)
    mine = case.build()
    mine.reset_states(case.arrays().state)
    assert np.array_equal(mine.states[0], case.arrays().state[0])


def test_time_distributed_scrambles_returned_states_in_keras(tf: Any) -> None:
    inner = tf.keras.layers.LSTM(4, return_state=True)
    y = tf.keras.layers.TimeDistributed(inner)(tf.tf.zeros((2, 3, 5, 6)))
    assert tuple(y.shape) != (2, 3, 4)
    with pytest.raises(ValueError, match="return_state=True, expected both False"):
        layers.TimeDistributed(layers.LSTM(4, return_state=True))


def test_keras_fixes_the_batch_of_a_stateful_layer_for_good(tf: Any) -> None:
    case = Case("GRU", options={"stateful": True})
    theirs = keras_layer(tf, case)
    theirs(tf.tf.zeros((3, 7, 5), "float64"))
    theirs.reset_state()
    with pytest.raises(ValueError, match="batch size"):
        theirs(tf.tf.zeros((2, 7, 5), "float64"))
    mine = case.build()
    mine(np.ones((3, 7, 5)))
    mine.reset_state()
    assert mine(np.ones((2, 7, 5)))[0].shape == (2, 7, 4)
    with pytest.raises(ValueError, match="the input has 3 rows, expected 2"):
        mine(np.ones((3, 7, 5)))


def test_a_stack_of_one_cell_with_a_mask_fails_in_keras(tf: Any) -> None:
    k = tf.keras.layers
    x, mask = np.ones((2, 3, 4), np.float32), np.array([[1, 0, 1], [1, 1, 0]], bool)
    theirs = k.RNN(k.StackedRNNCells([k.LSTMCell(5)]))
    theirs(tf.tf.constant(x))
    with pytest.raises(ValueError, match="nested structure"):
        theirs(tf.tf.constant(x), mask=tf.tf.constant(mask))
    stack = layers.RNN([layers.LSTMCell(5)])
    stack.set_weights(theirs.get_weights())
    alone = layers.LSTM(5, engine="numpy")
    alone.set_weights(theirs.get_weights())
    assert np.array_equal(stack(x, mask=mask), alone(x, mask=mask))


def test_the_states_of_a_stack_cannot_be_reset_in_keras(tf: Any) -> None:
    k = tf.keras.layers
    theirs = k.RNN(k.StackedRNNCells([k.GRUCell(2), k.LSTMCell(3)]), stateful=True)
    theirs(tf.tf.ones((2, 3, 4)))
    with pytest.raises(AttributeError):
        theirs.reset_state()
    mine = layers.RNN([layers.GRUCell(2), layers.LSTMCell(3)], stateful=True)
    mine(np.ones((2, 3, 4)))
    mine.reset_states(rows=[0])
    (first,), (h, c) = mine.states
    assert not any(part[0].any() for part in (first, h, c))
    assert all(part[1].any() for part in (first, h, c))


def test_a_stateful_pair_that_returns_its_states_crashes_keras(tf: Any) -> None:
    k = tf.keras.layers
    with pytest.raises(TypeError):
        k.Bidirectional(k.GRU(2, stateful=True, return_state=True))(tf.tf.ones((2, 3, 4)))
    mine = layers.Bidirectional(layers.GRU(2, stateful=True, return_state=True))
    y, forward, backward = mine(np.ones((2, 3, 4)))
    assert np.array_equal(y, np.concatenate([forward, backward], axis=1))


def test_a_list_as_mask_fails_in_keras(tf: Any) -> None:
    case = Case("GRU", mask="holes")
    arrays = case.arrays()
    with pytest.raises(AttributeError):
        keras_layer(tf, case)(tf.tf.constant(arrays.x), mask=arrays.mask.tolist())
    with_list = case.build()(arrays.x, mask=arrays.mask.tolist())
    assert np.array_equal(with_list[0], case.build()(arrays.x, mask=arrays.mask)[0])


def test_weights_cannot_be_set_in_keras_before_the_first_call(tf: Any) -> None:
    weights = Case("LSTM").arrays().weights
    with pytest.raises(ValueError, match="set_weights"):
        tf.keras.layers.LSTM(4).set_weights(weights)
    layer = layers.LSTM(4, dtype="float64")
    layer.set_weights(weights)
    assert layer.built


def test_keras_simple_rnn_loses_its_seed(tf: Any) -> None:
    assert "seed" not in tf.keras.layers.SimpleRNN(4, seed=3).get_config()
    assert layers.SimpleRNN(4, seed=3).get_config()["seed"] == 3
