"""On models trained for a task, refrnn gives Keras's numbers and does the task.

The models are those of two well-known tutorials: the running sum of 0/1 sequences and the sine
wave. refrnn/verify/models/README.md says who wrote them; fixtures/train_tutorial_models.py redoes
them.
"""

from importlib import resources
from typing import Any

import numpy as np
import pytest

import refrnn
from refrnn.verify import compare
from refrnn.verify.chunks import flat, model_in_chunks
from refrnn.verify.compare import same_bits
from refrnn.verify.inputs import bits, sine_windows

# A tenth of a count: the sums are whole numbers, so a tenth tells them apart with ease.
TENTH = 0.1


@pytest.fixture(scope="module")
def trained(tf: Any) -> Any:
    """name -> the Keras model, freshly loaded."""

    def load(name: str) -> Any:
        with resources.as_file(resources.files("refrnn.verify") / "models" / name) as path:
            return tf.load(path)

    return load


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(1, -1, 1)


def test_a_sum_handed_over_in_pieces_continues(trained: Any) -> None:
    """[1, 1, 1] counts to 3; its state handed to [1, 0, 1] goes on to 5; alone that is 2."""
    model = refrnn.from_keras(trained("running_sum.keras"))
    first, memories = model.advance(column(1, 1, 1))
    second, memories = model.advance(column(1, 0, 1), memories)
    third, _ = model.advance(column(0, 1, 1, 1), memories)
    np.testing.assert_allclose(first.ravel(), [1, 2, 3], atol=TENTH)
    np.testing.assert_allclose(second.ravel(), [4, 4, 5], atol=TENTH)
    np.testing.assert_allclose(third.ravel(), [5, 6, 7, 8], atol=TENTH)
    np.testing.assert_allclose(model(column(1, 0, 1)).ravel(), [1, 1, 2], atol=TENTH)

    whole = model(column(1, 1, 1, 1, 0, 1, 0, 1, 1, 1))
    assert np.concatenate([first, second, third], axis=1).tobytes() == whole.tobytes()


def test_the_sum_is_that_of_keras_on_every_length(tf: Any, trained: Any) -> None:
    keras_model = trained("running_sum.keras")
    model = refrnn.from_keras(keras_model)
    for steps in (1, 2, 7, 30):
        x = bits(steps=max(6, steps))[:, :steps]
        want = flat(tf.run_model(keras_model, [x]))
        compare(flat(model(x)), want, 1e-5, f"{steps} steps")
        assert np.abs(model(x) - np.cumsum(x, axis=1)).max() < 2 * TENTH


def test_the_sine_is_predicted_at_batch_175_and_at_batch_1(tf: Any, trained: Any) -> None:
    keras_model = trained("sine.keras")
    model = refrnn.from_keras(keras_model)
    windows = sine_windows()
    truth = (np.sin(2 * np.pi * np.arange(25, 200) / 50) + 1) / 2

    together = model(windows)
    compare(flat(together), flat(tf.run_model(keras_model, [windows])), 1e-5, "batch 175")
    assert ((together.ravel() - truth) ** 2).mean() < 1e-5

    model.reset_states()
    single = tf.with_batch(keras_model, 1)
    for k in (0, 17, 174):
        alone = model(windows[k : k + 1])
        model.reset_states()
        assert alone.tobytes() == together[k : k + 1].tobytes()  # a row is a row in any batch
        want = flat(tf.run_model(single, [windows[k : k + 1]]))
        compare(flat(alone), want, 1e-5, f"window {k} alone")


def test_a_sine_read_one_value_at_a_time_is_the_same_prediction(trained: Any) -> None:
    model = refrnn.from_keras(trained("sine.keras"))
    windows = sine_windows()
    in_steps = model_in_chunks(model, [windows], [1])
    assert same_bits(in_steps, flat(model(windows)))


def test_keras_predict_still_miscounts_the_steps_of_time_distributed(trained: Any) -> None:
    """A known deviation: with a second shape, Keras's predict returns batch steps, not time steps.

    When this fails Keras is mended: take the row out of the README's table.
    """
    keras_model = trained("running_sum.keras")
    model = refrnn.from_keras(keras_model)
    keras_model.predict(bits(2, 6), verbose=0)
    x = bits(3, 8)
    assert keras_model.predict(x, verbose=0).shape == (3, 3, 1)
    assert model(x).shape == (3, 8, 1)
