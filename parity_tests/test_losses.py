"""Every loss and its gradient are those of Keras 3 on TensorFlow.

Masks, clipped probabilities, logits, and logits that Keras finds behind a sigmoid or a softmax
included. float64 within 1e-12 of the largest magnitude, float32 within 1e-5
(`refrnn.verify.TOLERANCES`): the same formulas, summed in another order.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refrnn.training import losses
from refrnn.verify import compare

KERAS = {
    "mean_squared_error": "MeanSquaredError",
    "binary_crossentropy": "BinaryCrossentropy",
    "categorical_crossentropy": "CategoricalCrossentropy",
    "sparse_categorical_crossentropy": "SparseCategoricalCrossentropy",
}
ALLOWED = {"float64": 1e-12, "float32": 1e-5}


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def targets(name: str, rng: Any, shape: tuple[int, ...]) -> Any:
    if name == "mean_squared_error":
        return rng.normal(size=shape)
    if name == "binary_crossentropy":
        return rng.choice([0.0, 1.0, 0.3], shape)
    classes = rng.integers(0, shape[-1], shape[:-1])
    if name == "sparse_categorical_crossentropy":
        return classes
    return 0.9 * np.eye(shape[-1])[classes] + 0.1 / shape[-1]


def theirs(tf: Any, loss: Any, y: Any, x: Any, mask: Any, end: str | None) -> tuple[Any, Any]:
    """Keras's loss of y and what `end` makes of x, and its gradient by x."""
    given = tf.tf.constant(x)
    with tf.tf.GradientTape() as tape:
        tape.watch(given)
        output = getattr(tf.keras.activations, end)(given) if end else tf.tf.identity(given)
        if mask is not None:
            output._keras_mask = tf.tf.constant(mask)
        value = loss(tf.tf.constant(y), output)
    return np.asarray(value), np.asarray(tape.gradient(value, given))


@st.composite
def cases(draw: Any) -> tuple[str, str, tuple[int, ...], bool, str, float, int]:
    name = draw(st.sampled_from(sorted(KERAS)))
    least = 2 if "categorical" in name else 1
    shape = (
        *draw(st.lists(st.integers(1, 4), min_size=1, max_size=2)),
        draw(st.integers(least, 5)),
    )
    kinds = ["probabilities", "logits", "found"]
    kind = "plain" if name == "mean_squared_error" else draw(st.sampled_from(kinds))
    masked = len(shape) == 3 and draw(st.booleans())
    dtype = draw(st.sampled_from(sorted(ALLOWED)))
    return (
        name,
        kind,
        shape,
        masked,
        dtype,
        draw(st.sampled_from([1, 30, 300])),
        draw(st.integers(0, 9)),
    )


@given(case=cases())
def test_losses_and_gradients_are_those_of_keras(tf: Any, case: Any) -> None:
    name, kind, shape, masked, dtype, size, seed = case
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) * size
    x[rng.uniform(size=shape) < 0.1] = 0  # a corner of some formulas
    if kind == "probabilities":  # 0 and 1 themselves among the large ones
        x = softmax(x) if "categorical" in name else 1 / (1 + np.exp(-np.clip(x, -700, 700)))
    x, y = x.astype(dtype), targets(name, rng, shape)
    y = y if "sparse" in name else y.astype(dtype)
    mask = rng.uniform(size=shape[:-1]) < 0.6 if masked else None
    options = {} if kind == "plain" else {"from_logits": kind == "logits"}
    loss = getattr(tf.keras.losses, KERAS[name])(dtype=dtype, **options)
    end = None
    if kind == "found":
        end = "sigmoid" if name == "binary_crossentropy" else "softmax"
    want = theirs(tf, loss, y, x, mask, end)
    mine = losses.LOSSES[name](**options)
    got = mine.reduced(mine.targets(y, shape, x.dtype), x, mask, from_logits=kind == "found")
    assert got[1].dtype == dtype
    compare({"loss": np.asarray(got[0], dtype)}, {"loss": want[0]}, ALLOWED[dtype], f"{case}")
    # p - y is rounded as p is: for one entry of one row and step, before the mean over all of them
    entry = 1 / max(1, np.prod(shape[:-1]) if mask is None else mask.sum())
    entry /= 1 if "categorical" in name else shape[-1]
    error, largest = np.abs(got[1] - want[1]).max(), np.abs(want[1]).max()
    assert error <= ALLOWED[dtype] * max(largest, entry)


@pytest.mark.parametrize("name", sorted(KERAS))
def test_gradients_are_differences_of_losses(name: str) -> None:
    """Central differences of step h err by h^2 / 6 of the third derivative, below 1e-6 here."""
    rng = np.random.default_rng(1)
    for from_logits in (False, True):
        x = softmax(rng.normal(size=(3, 4, 5)))
        mask = rng.uniform(size=(3, 4)) < 0.6
        loss = losses.LOSSES[name]()
        y = loss.targets(targets(name, rng, x.shape), x.shape, x.dtype)
        _, gradient = loss.reduced(y, x, mask, from_logits)
        for _ in range(20):
            where, h = tuple(rng.integers(0, x.shape)), 1e-6
            near = [x.copy(), x.copy()]
            near[0][where] -= h
            near[1][where] += h
            low, high = (loss.reduced(y, part, mask, from_logits)[0] for part in near)
            assert gradient[where] == pytest.approx((high - low) / (2 * h), abs=1e-6)


def test_a_mask_without_a_step_gives_zero_as_in_keras(tf: Any) -> None:
    x, y, mask = np.ones((2, 3, 1)), np.zeros((2, 3, 1)), np.zeros((2, 3), bool)
    want = theirs(tf, tf.keras.losses.MeanSquaredError(dtype="float64"), y, x, mask, None)
    got = losses.get("mse").value_and_gradient(y, x, mask)
    assert got[0] == want[0] == 0
    assert not got[1].any()
    assert not want[1].any()


def test_what_is_masked_does_not_count_nan_included() -> None:
    """In Keras a NaN at a masked step makes the loss NaN, because it is multiplied by 0."""
    x = np.array([[[1.0], [np.nan]]])
    value, gradient = losses.get("mse").reduced(np.zeros_like(x), x, np.array([[True, False]]))
    assert value == 1
    assert gradient.ravel().tolist() == [2, 0]


def test_keras_gives_nan_for_a_nan_at_a_masked_step(tf: Any) -> None:
    x, y, mask = np.array([[[1.0], [np.nan]]]), np.zeros((1, 2, 1)), np.array([[True, False]])
    value, _ = theirs(tf, tf.keras.losses.MeanSquaredError(dtype="float64"), y, x, mask, None)
    assert np.isnan(value)


def test_a_last_axis_of_one_may_be_left_out() -> None:
    x = np.arange(6.0).reshape(2, 3, 1)
    loss = losses.get("mse")
    want = pytest.approx(np.square(x).mean(), rel=1e-15)
    assert loss(np.zeros((2, 3)), x) == loss(np.zeros((2, 3, 1)), x) == want
    assert loss(np.zeros((2, 3, 1)), x[..., 0]) == want


WRONG: list[tuple[str, Any, tuple[int, ...], type[Exception], str]] = [
    ("mse", np.zeros((4, 3)), (4, 1), ValueError, r"has shape \(4, 3\), expected \(4, 1\)"),
    ("mse", np.zeros(1), (4, 1), ValueError, "never broadcast"),
    ("mse", np.array(["a"]), (1, 1), TypeError, "has dtype <U1, expected real numbers"),
    ("mse", [[1.0], [np.nan]], (2, 1), ValueError, r"the target is nan at \[1, 0\], expected fin"),
    ("mse", [[1.0], [np.inf]], (2, 1), ValueError, "the target is inf"),
    ("binary_crossentropy", [[0], [2]], (2, 1), ValueError, r"is 2.0 at \[1, 0\], expected 0 to 1"),
    ("binary_crossentropy", [[-1], [1]], (2, 1), ValueError, "expected 0 to 1"),
    ("sparse_categorical_crossentropy", [0, 3], (2, 3), ValueError, "whole number from 0 to 2"),
    ("sparse_categorical_crossentropy", [0, -1], (2, 3), ValueError, "is -1.0 at .*3 classes"),
    ("sparse_categorical_crossentropy", [0, 0.5], (2, 3), ValueError, "is 0.5 at"),
    ("sparse_categorical_crossentropy", [0, np.nan], (2, 3), ValueError, "is nan at"),
    ("sparse_categorical_crossentropy", np.eye(3), (3, 3), ValueError, "categorical_crossentropy'"),
    ("sparse_categorical_crossentropy", [0, 0], (2, 1), ValueError, "at least 2 classes"),
    (
        "categorical_crossentropy",
        [0, 1],
        (2, 3),
        ValueError,
        r"has shape \(2,\), expected \(2, 3\)",
    ),
    ("categorical_crossentropy", [[0.5, 0.6]], (1, 2), ValueError, r"at \[0\] sums to 1.1"),
    ("categorical_crossentropy", [[-0.5, 1.5]], (1, 2), ValueError, "expected at least 0"),
    ("categorical_crossentropy", [[1.0]], (1, 1), ValueError, "use 'binary_crossentropy'"),
]


@pytest.mark.parametrize(("name", "y", "shape", "error", "message"), WRONG)
def test_a_target_that_does_not_fit_is_refused(
    name: str, y: Any, shape: tuple[int, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        losses.get(name)(y, np.full(shape, 0.5))


def test_an_unknown_loss_is_refused_with_a_list() -> None:
    with pytest.raises(ValueError, match=r"loss is 'mae', expected one of 'mse', 'mean_squared"):
        losses.get("mae")
    with pytest.raises(ValueError, match="loss is None"):
        losses.get(None)
