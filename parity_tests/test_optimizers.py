"""Every optimizer makes Keras's updates from the same gradients.

float64 within 1e-12 of the largest magnitude and float32 within 1e-6 after 30 updates: the same
operations in the same order, but for the sums of clipped norms and the rounding of powers.
"""

from typing import Any

import numpy as np
import pytest

from refrnn.training import optimizers
from refrnn.verify import compare

SHAPES = [(3, 8), (2, 8), (8,), (2, 1), (1,)]
WAYS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"learning_rate": 0.3, "momentum": 0.9}),
    ("SGD", {"learning_rate": 0.3, "momentum": 0.8, "nesterov": True}),
    ("SGD", {"momentum": 0.9, "clipvalue": 0.5}),
    ("SGD", {"clipnorm": 1.0}),
    ("SGD", {"global_clipnorm": 2.0}),
    ("Adam", {}),
    ("Adam", {"learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3}),
    ("Adam", {"clipnorm": 0.5}),
    ("Adam", {"clipvalue": 0.1}),
    ("Adam", {"global_clipnorm": 0.7}),
    ("Adam", {"beta_1": 0.0}),
]
ALLOWED = {"float64": 1e-12, "float32": 1e-6}


@pytest.mark.parametrize(
    ("floatx", "kind", "options"),
    [
        *(("float64", *way) for way in WAYS),
        *(("float32", *way) for way in WAYS if "clipnorm" not in way[1] and len(way[1]) != 1),
    ],
    indirect=["floatx"],
)
def test_updates_are_those_of_keras(
    tf: Any, floatx: str, kind: str, options: dict[str, Any]
) -> None:
    rng = np.random.default_rng(0)
    start = [rng.normal(size=shape).astype(floatx) for shape in SHAPES]
    mine = [w.copy() for w in start]
    theirs = [tf.keras.Variable(w) for w in start]
    a, b = getattr(optimizers, kind)(**options), getattr(tf.keras.optimizers, kind)(**options)
    for step in range(30):
        # of very different sizes, and now and then exactly zero
        sizes = 10.0 ** rng.integers(-4, 3, len(SHAPES)) * (step % 7 > 0)
        g = [(s * rng.normal(size=n)).astype(floatx) for s, n in zip(sizes, SHAPES, strict=True)]
        if step == 20:
            a.learning_rate = 0.05
            b.learning_rate = 0.05
        kept = [part.copy() for part in g]
        a.apply(g, mine)
        b.apply([tf.tf.constant(part) for part in g], theirs)
        assert all(np.array_equal(p, q) for p, q in zip(g, kept, strict=True))
        for k, (got, want) in enumerate(zip(mine, theirs, strict=True)):
            what = f"{kind} {options}, weight {k}, update {step}"
            compare({what: got}, {what: np.asarray(want)}, ALLOWED[floatx], what)
    assert a.iterations == 30


APART: list[tuple[str, dict[str, Any]]] = [
    ("Adam", {}),
    ("SGD", {"clipnorm": 1.0}),
    ("SGD", {"global_clipnorm": 1.0}),
    ("SGD", {"clipvalue": 5.0}),
]


@pytest.mark.parametrize(("kind", "options"), APART)
def test_a_gradient_is_squared_and_clipped_whole(
    tf: Any, kind: str, options: dict[str, Any]
) -> None:
    """Keras on TensorFlow takes the parts apart that an Embedding's gradient comes in.

    One comes for each place that an id stands at. When this fails Keras has mended it.
    """
    parts = np.array([[3.0, 4.0], [3.0, 4.0]], np.float32)  # of row 1, which comes twice
    whole = np.array([[0.0, 0.0], [6.0, 8.0]], np.float32)
    slices = tf.tf.IndexedSlices(tf.tf.constant(parts), tf.tf.constant([1, 1]), [2, 2])
    moved = []
    for gradient in (tf.tf.constant(whole), slices):
        variable = tf.keras.Variable(np.ones((2, 2), np.float32))
        getattr(tf.keras.optimizers, kind)(**options).apply([gradient], [variable])
        moved.append(np.asarray(variable))
    mine = np.ones((2, 2), np.float32)
    getattr(optimizers, kind)(**options).apply([whole], [mine])
    compare({kind: mine}, {kind: moved[0]}, ALLOWED["float32"], kind)
    assert np.abs(moved[0] - moved[1]).max() > 1e-4


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_read_only_weights_are_written_in_place_and_stay_read_only(kind: str) -> None:
    w = np.ones(3)
    w.flags.writeable = False
    getattr(optimizers, kind)().apply([np.ones(3)], [w])
    assert (w < 1).all()
    assert not w.flags.writeable


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(kind: str, bad: float) -> None:
    """Not even what the optimizer remembers: it goes on as if there had been no such update."""
    one, other = getattr(optimizers, kind)(), getattr(optimizers, kind)()
    w, v = [np.ones(2), np.ones(1)], [np.ones(2), np.ones(1)]
    for optimizer, weights in ((one, w), (other, v)):
        optimizer.apply([np.ones(2), np.ones(1)], weights)
    with pytest.raises(FloatingPointError, match="the gradient of weight 1 is not finite"):
        one.apply([np.ones(2), np.array([bad])], w)
    assert one.iterations == 1
    for optimizer, weights in ((one, w), (other, v)):
        optimizer.apply([np.ones(2), np.ones(1)], weights)
    assert np.array_equal(np.concatenate(w), np.concatenate(v))


def test_an_optimizer_is_for_the_weights_it_began_with() -> None:
    adam = optimizers.Adam()
    adam.apply([np.ones(2)], [np.ones(2)])
    with pytest.raises(ValueError, match="a new model needs a new optimizer"):
        adam.apply([np.ones(3)], [np.ones(3)])
    with pytest.raises(ValueError, match=r"the gradients have shapes \[\(3,\)\]"):
        adam.apply([np.ones(3)], [np.ones(2)])
    with pytest.raises(ValueError, match=r"dtypes \['float16'\], expected one of them, float32"):
        optimizers.SGD().apply([np.ones(2)], [np.ones(2, np.float16)])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("SGD", {"learning_rate": -1}, "SGD: learning_rate is -1, expected a finite number of at"),
        ("Adam", {"learning_rate": "fast"}, "learning_rate is 'fast'"),
        ("Adam", {"learning_rate": np.nan}, "learning_rate is nan"),
        ("Adam", {"beta_1": 1.0}, "beta_1 is 1.0, expected .* and below 1"),
        ("Adam", {"epsilon": -1e-7}, "epsilon is -1e-07"),
        ("SGD", {"momentum": 1}, "momentum is 1, expected"),
        ("SGD", {"nesterov": "yes"}, "nesterov is 'yes', expected True or False"),
        ("SGD", {"clipnorm": 0}, "clipnorm is 0, expected a finite number above 0"),
        ("SGD", {"clipnorm": 1, "clipvalue": 1}, "clipnorm and clipvalue are given, expected one"),
    ],
)
def test_settings_out_of_range_are_refused(
    kind: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(optimizers, kind)(**options)


def test_an_unknown_optimizer_is_refused_with_a_list() -> None:
    assert isinstance(optimizers.get("Adam"), optimizers.Adam)
    with pytest.raises(ValueError, match="optimizer is 'rmsprop', expected one of 'sgd', 'adam'"):
        optimizers.get("rmsprop")
