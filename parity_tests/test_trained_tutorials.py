"""The RNN tutorials' training, replayed with `refrnn.training.fit`, with the figures they show.

Keras is beside where a trajectory is compared; the weights at the start are its own. Whole
trainings are short ones; the longest is made in the nightly profile.
"""

import math
import os
from typing import Any

import numpy as np
import pytest

import refrnn
from refrnn import layers, training
from refrnn.verify import compare

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
WAVE = ((np.sin(2 * np.pi * np.arange(200) / 50) + 1) / 2).astype(np.float32)
WINDOWS = np.stack([WAVE[i : i + 25] for i in range(175)])[..., None]  # (175, 25, 1)
NEXT = WAVE[25:, None]
Initial = refrnn.initializers


def lstm(units: int, seed: int, **options: Any) -> Any:
    return layers.LSTM(
        units,
        kernel_initializer=Initial.GlorotUniform(seed=seed),
        recurrent_initializer=Initial.Orthogonal(seed=seed),
        **options,
    )


def dense(units: int, seed: int, activation: str | None = None) -> Any:
    return layers.Dense(units, activation, kernel_initializer=Initial.GlorotUniform(seed=seed))


# --- the sine wave ---


def sine(stateful: bool, seed: int = 1) -> Any:
    return refrnn.Sequential(
        [
            layers.Input(batch_shape=(175, 25, 1)),
            lstm(32, seed, stateful=stateful),
            dense(128, seed, "relu"),
            dense(1, seed),
        ]
    )


def learn(model: Any, optimizer: Any, epochs: int, **options: Any) -> Any:
    options = {"batch_size": 175, "shuffle": False} | options
    return training.fit(model, WINDOWS, NEXT, "mse", optimizer, epochs=epochs, **options)


def test_a_stateful_model_that_is_reset_learns_as_a_stateless_one_in_one_batch() -> None:
    """Every loss and every weight, bit for bit: "stateful" is no faster, it makes fewer updates."""
    one, other = sine(True), sine(False)
    stateful = learn(one, training.Adam(3e-4), 30, reset_each_epoch=True)
    stateless = learn(other, training.Adam(3e-4), 30)
    assert stateful.history["loss"] == stateless.history["loss"]
    assert all(np.array_equal(a, b) for a, b in zip(one.weights, other.weights, strict=True))
    leaking = learn(sine(True), training.Adam(3e-4), 30).history["loss"]
    assert leaking[0] == stateless.history["loss"][0]
    assert leaking[1] != stateless.history["loss"][1]


def test_the_sine_is_learnt_as_in_keras(tf: Any) -> None:
    """The first 40 losses, float32: within 1e-5 of the first."""
    k = tf.keras
    k.utils.set_random_seed(1)
    theirs = k.Sequential(
        [
            k.Input(batch_shape=(175, 25, 1)),
            k.layers.LSTM(32, stateful=True, name="lstm"),
            k.layers.Dense(128, "relu"),
            k.layers.Dense(1),
        ]
    )
    theirs.compile(k.optimizers.Adam(1e-3), loss="mse", jit_compile=False)
    mine, want = refrnn.from_keras(theirs), []
    for _ in range(40):
        theirs.get_layer("lstm").reset_state()
        want.append(theirs.train_on_batch(WINDOWS, NEXT))
    got = learn(mine, training.Adam(1e-3), 40, reset_each_epoch=True).history["loss"]
    compare({"loss": np.array(got)}, {"loss": np.array(want, float)}, 1e-5, "the sine")


def test_the_sine_goes_on_by_feeding_on_itself() -> None:
    """600 epochs, 1e-5 in the mean square, then 50 values from its own: within 0.05 of the wave."""
    model = sine(True)
    losses = learn(model, training.Adam(1e-3), 600, reset_each_epoch=True).history["loss"]
    assert losses[-1] < 1e-5 < losses[20]
    single, window = model.to_stateful(rows=1), WINDOWS[:1].copy()
    for step in range(50):
        single.reset_states()
        value = single(window)
        assert abs(value.item() - WAVE[25 + step]) < 0.05
        window = np.concatenate([window[:, 1:], value[:, None]], axis=1)


def test_smaller_batches_learn_more_in_an_epoch() -> None:
    """Six updates in place of one: the epoch that is slower in the tutorial's table."""
    many = learn(sine(False), training.Adam(3e-4), 20, batch_size=25)
    one = learn(sine(False), training.Adam(3e-4), 20)
    assert many.history["loss"][-1] < one.history["loss"][-1] / 3
    assert (len(many.batch_losses), len(one.batch_losses)) == (140, 20)


# --- the running sum: the hidden state handed over ---


def bits(rng: Any, batch: int, steps: int) -> tuple[Any, Any]:
    """Random sequences of 0 and 1, each with its own share of ones, and their running sums."""
    x = (rng.uniform(size=(batch, steps, 1)) < rng.uniform(size=(batch, 1, 1))).astype(np.float32)
    return x, np.cumsum(x, axis=1)


def running_sum(batches: int, batch: int, longest: int) -> Any:
    """Trained on sequences of 1 to `longest` steps, at a rate that falls to nothing."""
    rng = np.random.default_rng(7)
    model = refrnn.Sequential(
        [layers.Input((None, 1)), dense(32, 7), lstm(32, 7, return_sequences=True), dense(1, 7)]
    )
    adam = training.Adam(5e-3, clipnorm=1.0)
    for n in range(batches):
        adam.learning_rate = 5e-3 * (1 + math.cos(math.pi * n / batches)) / 2
        x, y = bits(rng, batch, int(rng.integers(1, longest + 1)))
        training.train_on_batch(model, x, y, "mse", adam)
    return model


@pytest.mark.parametrize("size", [(2000, 32, 10), *([(6000, 64, 30)] if NIGHTLY else [])])
def test_a_sum_goes_on_from_the_state_that_is_handed_over(size: tuple[int, int, int]) -> None:
    """[1,1,1] -> 1 2 3, then [1,0,1] -> 4 4 5; without the state 1 1 2. Figures within 0.1."""
    model = running_sum(*size)
    stream = model.to_stateful(rows=1)

    def of(*ones: int) -> Any:
        return stream(np.float32(ones).reshape(1, -1, 1)).ravel()

    def near(got: Any, *want: float) -> bool:
        return bool(np.abs(got - np.array(want)).max() < 0.1)

    assert near(of(1, 1, 1), 1, 2, 3)
    assert near(of(1, 0, 1), 4, 4, 5)
    assert near(of(0, 1, 1, 1), 5, 6, 7, 8)
    stream.reset_states()
    assert near(of(1, 0, 1), 1, 1, 2)
    stream.reset_states()
    whole = of(1, 1, 1, 1, 0, 1)
    stream.reset_states()
    assert np.array_equal(np.concatenate([of(1, 1, 1), of(1, 0, 1)]), whole)


# --- the binary sum, by length ---


@pytest.mark.parametrize("every_step", [False, True])
def test_a_sum_that_sees_every_step_holds_at_other_lengths(every_step: bool) -> None:
    """Trained at 20 steps. From the last output alone it is good there and nowhere else.

    Mean squares by length, as seen in Keras: 5: 78, 10: 76, 20: 0.004, 30: 60 from the last output;
    5: 0.001, 20: 0.004, 30: 0.35 from every step.
    """
    x, y = bits(np.random.default_rng(7), 1024, 20)
    model = refrnn.Sequential(
        [layers.Input((None, 1)), lstm(32, 7, return_sequences=every_step), dense(1, 7)]
    )
    target = y if every_step else y[:, -1]
    training.fit(model, x, target, "mse", training.Adam(1e-2), epochs=30, seed=1)
    rng, error = np.random.default_rng(8), {}
    for steps in (5, 10, 20, 30):
        z = rng.integers(0, 2, (200, steps, 1)).astype(np.float32)
        total = model(z)[:, -1] if every_step else model(z)
        error[steps] = float(np.square(total - z.sum(axis=1)).mean())
    if every_step:
        assert max(error[5], error[10], error[20]) < 0.1
        assert error[30] > 5 * error[20]
    else:
        assert error[20] < 0.2
        assert min(error[5], error[10], error[30]) > 10
