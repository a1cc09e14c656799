"""Training follows Keras's: from the same weights and batches the same losses and the same weights.

After 100 updates float64 is within 1e-10 of the largest magnitude and float32 within 1e-4: an
update rounds at 1e-16 or 6e-8, and what has begun to differ grows in training. 4e-14 and 3e-6 were
seen.
"""

from typing import Any

import numpy as np
import pytest

import refrnn
from refrnn import layers, training
from refrnn.verify import compare

ALLOWED = {"float64": 1e-10, "float32": 1e-4}


def chain(k: Any, shape: tuple[int | None, ...], *parts: Any, dtype: Any = None) -> Any:
    return k.Sequential([k.Input(batch_shape=shape, dtype=dtype), *parts])


MODELS: dict[str, Any] = {
    "last output": lambda k: chain(k, (None, 7, 3), k.layers.LSTM(5), k.layers.Dense(1)),
    "several": lambda k: chain(
        k,
        (None, 7, 3),
        k.layers.Dense(4, "tanh"),
        k.layers.GRU(5, return_sequences=True),
        k.layers.SimpleRNN(3),
        k.layers.Dense(6, "relu"),
        k.layers.Dense(1),
    ),
    "stateful": lambda k: chain(
        k,
        (6, 5, 3),
        k.layers.LSTM(4, return_sequences=True, stateful=True),
        k.layers.GRU(4, return_sequences=True, stateful=True, reset_after=False),
        k.layers.Dense(1),
    ),
    "masked": lambda k: chain(
        k,
        (None, 6),
        k.layers.Embedding(9, 4, mask_zero=True),
        k.layers.LSTM(5, return_sequences=True),
        k.layers.Dense(3),
        dtype="int32",
    ),
    "both ways": lambda k: chain(
        k, (None, 7, 3), k.layers.Bidirectional(k.layers.GRU(4)), k.layers.Dense(1, "sigmoid")
    ),
    "classes": lambda k: chain(
        k, (None, 7, 3), k.layers.GRU(6), k.layers.Dense(4), k.layers.Activation("softmax")
    ),
    "softmax layer": lambda k: chain(
        k, (None, 7, 3), k.layers.SimpleRNN(6), k.layers.Dense(4), k.layers.Softmax()
    ),
    "probabilities": lambda k: chain(
        k,
        (None, 7, 3),
        k.layers.SimpleRNN(6, return_sequences=True),
        k.layers.TimeDistributed(k.layers.Dense(1, "sigmoid")),
    ),
    "dropout": lambda k: chain(
        k,
        (None, 7, 3),
        k.layers.LSTM(5, dropout=0.3, recurrent_dropout=0.2, seed=3),
        k.layers.Dropout(0.25, seed=4),
        k.layers.Dense(1),
    ),
}
Optimizer = tuple[str, dict[str, Any]]
SGD: Optimizer = ("SGD", {"learning_rate": 0.05})
MOMENTUM: Optimizer = ("SGD", {"learning_rate": 0.02, "momentum": 0.9})
NESTEROV: Optimizer = ("SGD", {"learning_rate": 0.02, "momentum": 0.8, "nesterov": True})
ADAM: Optimizer = ("Adam", {"learning_rate": 0.01})
CLIPPED: Optimizer = ("Adam", {"learning_rate": 0.01, "clipnorm": 0.1})
GLOBAL: Optimizer = ("SGD", {"learning_rate": 0.2, "global_clipnorm": 0.3})
LOSSES = {
    "mse": "MeanSquaredError",
    "binary_crossentropy": "BinaryCrossentropy",
    "categorical_crossentropy": "CategoricalCrossentropy",
    "sparse_categorical_crossentropy": "SparseCategoricalCrossentropy",
}
CASES: list[tuple[str, str, str, Optimizer]] = [
    ("float64", "last output", "mse", ADAM),
    ("float64", "several", "mse", CLIPPED),
    ("float64", "stateful", "mse", ADAM),
    ("float64", "masked", "mse", NESTEROV),
    ("float64", "both ways", "binary_crossentropy", ADAM),
    ("float64", "classes", "categorical_crossentropy", GLOBAL),
    ("float64", "softmax layer", "sparse_categorical_crossentropy", MOMENTUM),
    ("float64", "probabilities", "binary_crossentropy", ADAM),
    ("float64", "dropout", "mse", ADAM),
    ("float32", "stateful", "mse", SGD),
    ("float32", "last output", "mse", ADAM),
]


def data(name: str, loss: str, batches: int, rng: Any) -> tuple[Any, Any]:
    """Rows of inputs and targets, 6 a batch."""
    rows = 6 * batches
    if name == "masked":
        x = rng.integers(1, 9, (rows, 6))
        x[np.arange(6) >= rng.integers(1, 7, (rows, 1))] = 0
        classes = (x + np.roll(x, 1, axis=1)) % 3
        return x, np.eye(3)[classes] if loss == "mse" else classes
    x = rng.normal(size=(rows, 5 if name == "stateful" else 7, 3))
    if name in ("stateful", "probabilities"):
        y = np.tanh(np.cumsum(x[..., :1], axis=1))
        return x, (y > 0).astype(float) if name == "probabilities" else y
    total = x.sum(axis=(1, 2))[:, None]
    if loss == "mse":
        return x, np.sin(total)
    if loss == "binary_crossentropy":
        return x, (total > 0).astype(float)
    classes = x.sum(axis=1)[:, :2].argmax(axis=1) + 2 * (total[:, 0] > 0)
    return x, np.eye(4)[classes] if loss == "categorical_crossentropy" else classes


@pytest.mark.parametrize(("floatx", "name", "loss", "optimizer"), CASES, indirect=["floatx"])
def test_a_hundred_updates_are_those_of_keras(
    tf: Any, floatx: str, name: str, loss: str, optimizer: Optimizer
) -> None:
    tf.keras.utils.set_random_seed(1)
    theirs = MODELS[name](tf.keras)
    kind, options = optimizer
    theirs.compile(
        getattr(tf.keras.optimizers, kind)(**options),
        loss=getattr(tf.keras.losses, LOSSES[loss])(),
        jit_compile=False,
    )
    mine = refrnn.from_keras(theirs)
    x, y = data(name, loss, 10, np.random.default_rng(2))
    if x.dtype.kind == "f":
        x = x.astype(floatx)
    want = []
    for _ in range(10):
        for part in mine.layers:
            if getattr(part, "stateful", False):
                theirs.get_layer(part.name).reset_state()
        for start in range(0, len(x), 6):
            want.append(float(theirs.train_on_batch(x[start : start + 6], y[start : start + 6])))
    got = training.fit(
        mine,
        x,
        y,
        loss,
        getattr(training, kind)(**options),
        epochs=10,
        batch_size=6,
        shuffle=False,
        reset_each_epoch=name == "stateful",
    )
    what = f"{name}, {loss}, {optimizer}"
    compare({"loss": np.array(got.batch_losses)}, {"loss": np.array(want)}, ALLOWED[floatx], what)
    for label, a, b in zip(mine.weight_names, mine.weights, theirs.get_weights(), strict=True):
        compare({label: a}, {label: b}, ALLOWED[floatx], what)


ENDS: list[tuple[str, Any]] = [
    ("binary_crossentropy", lambda k: [k.Dense(3, "sigmoid")]),
    ("binary_crossentropy", lambda k: [k.Dense(3, "softmax")]),  # takes them for those of sigmoids
    ("binary_crossentropy", lambda k: [k.Dense(3, "tanh"), k.Activation("sigmoid")]),
    ("categorical_crossentropy", lambda k: [k.Dense(3), k.Softmax()]),
    ("sparse_categorical_crossentropy", lambda k: [k.Dense(3, "softmax")]),
    ("sparse_categorical_crossentropy", lambda k: [k.Dense(3, "softmax"), k.Reshape((3,))]),
]


@pytest.mark.parametrize("floatx", ["float64"], indirect=True)
@pytest.mark.parametrize(("loss", "end"), ENDS)
def test_logits_are_found_behind_the_last_activation(
    tf: Any, floatx: str, loss: str, end: Any
) -> None:
    """Where it saturates: probabilities of 0 and 1 would be clipped, and give no gradient."""
    k = tf.keras.layers
    theirs = tf.keras.Sequential([k.Input((2,)), *end(k)])
    rng = np.random.default_rng(1)
    theirs.set_weights([40 * rng.normal(size=w.shape) for w in theirs.get_weights()])
    theirs.compile(tf.keras.optimizers.SGD(0.1), loss=loss, jit_compile=False)
    mine = refrnn.from_keras(theirs)
    x, classes = rng.normal(size=(8, 2)), rng.integers(0, 3, 8)
    y = classes if "sparse" in loss else np.eye(3)[classes]
    want = theirs.train_on_batch(x, y)
    got = training.train_on_batch(mine, x, y, loss, training.SGD(0.1))
    assert got == pytest.approx(want, rel=1e-12)
    for label, a, b in zip(mine.weight_names, mine.weights, theirs.get_weights(), strict=True):
        compare({label: a}, {label: b}, 1e-12, loss)


@pytest.mark.parametrize("floatx", ["float64"], indirect=True)
@pytest.mark.parametrize("name", ["last output", "stateful"])
def test_the_history_of_fit_is_that_of_keras(tf: Any, floatx: str, name: str) -> None:
    """Epochs of several batches, the last of them smaller, and validation after each.

    A stateful model goes on from epoch to epoch, and its validation from the training's states.
    """
    tf.keras.utils.set_random_seed(1)
    theirs = MODELS[name](tf.keras)
    theirs.compile("adam", loss="mse", jit_compile=False)
    mine = refrnn.from_keras(theirs)
    (x, y), (v, w) = (data(name, "mse", n, np.random.default_rng(n)) for n in (4, 2))
    if name == "last output":
        x, y, v, w = x[:-2], y[:-2], v[:-1], w[:-1]
    options = {"epochs": 3, "batch_size": 6, "shuffle": False, "validation_data": (v, w)}
    want = theirs.fit(x, y, verbose=0, **options).history
    got = training.fit(mine, x, y, **options)
    assert list(got.history) == ["loss", "val_loss"]
    assert got.epoch == [0, 1, 2]
    assert len(got.batch_losses) == 12
    for key in got.history:
        compare({key: np.array(got.history[key])}, {key: np.array(want[key])}, 1e-10, name)
    again = theirs.evaluate(v, w, batch_size=6, verbose=0)
    assert training.evaluate(mine, v, w, batch_size=6) == pytest.approx(again, rel=1e-10)


@pytest.mark.parametrize("floatx", ["float64"], indirect=True)
def test_adam_squares_the_whole_gradient_of_an_embedding(tf: Any, floatx: str) -> None:
    """Keras on TensorFlow squares the parts that several rows of ids give, and adds the squares.

    So its first update is larger than the learning rate, which Adam's cannot be. Where no id comes
    twice the two agree. When this fails Keras has mended it, and the README's row can go.
    """
    x, y = np.array([[1, 1]]), np.array([[0.5]])
    moved = {}
    for ids in ("twice", "once"):
        tf.keras.utils.set_random_seed(2)
        k = tf.keras.layers
        theirs = tf.keras.Sequential(
            [k.Input((2,), dtype="int32"), k.Embedding(4, 3), k.GRU(2), k.Dense(1)]
        )
        mine = refrnn.from_keras(theirs)
        before = mine.get_weights()[0]
        theirs.compile(tf.keras.optimizers.Adam(0.01), loss="mse", jit_compile=False)
        given = x if ids == "twice" else np.array([[1, 2]])
        theirs.train_on_batch(given, y)
        training.train_on_batch(mine, given, y, "mse", training.Adam(0.01))
        moved[ids] = np.abs(mine.get_weights()[0] - before)[1]
        other = np.abs(theirs.get_weights()[0] - before)[1]
        assert (np.abs(other - moved[ids]).max() > 1e-4) == (ids == "twice")
        assert moved[ids].max() < 0.01


# --- what fit does with rows, epochs and callbacks ---


def seeded(*parts: Any, shape: tuple[int | None, ...] = (None, None, 1)) -> Any:
    """A model with weights of its own that are the same in every run."""
    model = refrnn.Sequential([layers.Input(batch_shape=shape), *parts])
    draw = refrnn.initializers.GlorotUniform(seed=1)
    turn = refrnn.initializers.Orthogonal(seed=1)
    weights = [
        w if w.ndim == 1 else (turn if name.endswith("recurrent_kernel") else draw)(w.shape)
        for name, w in zip(model.weight_names, model.get_weights(), strict=True)
    ]
    model.set_weights(weights)
    return model


def small(**options: Any) -> Any:
    return seeded(layers.GRU(3, name="g", **options), layers.Dense(1, name="d"))


def rows(count: int = 10) -> tuple[Any, Any]:
    rng = np.random.default_rng(count)
    x = rng.normal(size=(count, 4, 1)).astype(np.float32)
    return x, x.sum(axis=1)


def test_shuffled_rows_come_once_an_epoch_in_the_order_of_the_seed() -> None:
    x, y = rows()
    seen: list[list[float]] = []

    class Spy(training.MeanSquaredError):
        def reduced(self, y_true: Any, *rest: Any) -> Any:
            seen[-1] += y_true.ravel().tolist()
            return super().reduced(y_true, *rest)

    orders = []
    for seed in (3, 3, 4):
        model = small()

        class Begin:
            def on_epoch_begin(self, epoch: int, logs: Any) -> None:
                seen.append([])

        training.fit(model, x, y, Spy(), epochs=2, batch_size=4, seed=seed, callbacks=[Begin()])
        orders.append(seen[-2:])
    plain = np.sort(y.ravel())
    assert all(np.array_equal(np.sort(epoch), plain) for order in orders for epoch in order)
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][0] != orders[0][1]
    assert orders[0][0] != y.ravel().tolist()


def test_a_loss_falls_and_the_same_seed_trains_the_same_model() -> None:
    x, y = rows(32)
    one, other = small(), small()
    options = {"epochs": 30, "batch_size": 8, "seed": 0}
    history = training.fit(one, x, y, "mse", training.Adam(0.02), **options).history["loss"]
    training.fit(other, x, y, "mse", training.Adam(0.02), **options)
    assert history[-1] < history[0] / 2
    assert all(np.array_equal(a, b) for a, b in zip(one.weights, other.weights, strict=True))


def test_callbacks_hear_of_everything_and_may_end_the_training(capsys: Any) -> None:
    x, y = rows(5)
    heard: list[Any] = []

    class Listener:
        def __getattr__(self, event: str) -> Any:
            if not event.startswith("on_"):
                raise AttributeError(event)
            return lambda *arguments: heard.append((event, *arguments))

    def stop(epoch: int, logs: dict[str, float]) -> bool:
        return epoch == 1

    done = training.fit(
        small(), x, y, epochs=9, batch_size=3, validation_data=(x, y), callbacks=[Listener(), stop]
    )
    assert done.epoch == [0, 1]
    assert len(done.history["loss"]) == len(done.history["val_loss"]) == 2
    one = ["on_train_batch_begin", "on_train_batch_end"]
    epoch = ["on_epoch_begin", *one, *one, "on_epoch_end"]
    assert [event for event, *_ in heard] == ["on_train_begin", *epoch, *epoch, "on_train_end"]
    ends = [logs["loss"] for event, *_, logs in heard if event == "on_train_batch_end"]
    assert ends == done.batch_losses
    assert done.history["loss"][0] == pytest.approx((3 * ends[0] + 2 * ends[1]) / 5)
    assert capsys.readouterr().err == ""


def test_a_learning_rate_may_be_set_by_a_callback() -> None:
    x, y = rows(4)
    model, sgd = small(), training.SGD(0.1)
    kept = []

    def freeze(epoch: int, logs: Any) -> None:
        sgd.learning_rate = 0
        kept.append(model.get_weights())

    training.fit(model, x, y, "mse", sgd, epochs=3, callbacks=[freeze])
    for later in kept[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(kept[0], later, strict=True))


def test_the_bar_is_drawn_on_stderr(capsys: Any) -> None:
    x, y = rows(5)
    training.fit(small(), x, y, epochs=2, batch_size=3, verbose=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert [line[: len("epoch 1/2 [=====")] for line in lines] == [
        "epoch 1/2 [=====",
        "epoch 2/2 [=====",
    ]
    assert "2/2" in lines[1]
    assert "loss" in lines[1]


def test_a_model_that_was_called_before_uses_what_it_has_learnt() -> None:
    x, y = rows(6)
    model, other = small(), small()
    model(x)
    training.fit(model, x, y)
    other.set_weights(model.get_weights())
    assert np.array_equal(model(x), other(x))


def test_weights_that_are_not_trainable_stay() -> None:
    x, y = rows(6)
    model = small()
    model.get_layer("g").trainable = False
    before = model.get_weights()
    training.fit(model, x, y)
    same = [np.array_equal(a, b) for a, b in zip(model.weights, before, strict=True)]
    assert same == [True, True, True, False, False]


def test_a_layer_is_frozen_and_thawed_between_two_batches() -> None:
    x, y = rows(6)
    model, sgd = small(), training.SGD(0.1)
    for trainable in (True, False, True):
        model.get_layer("g").trainable = trainable
        before = model.get_weights()
        # an optimizer is for the weights of its first update
        training.train_on_batch(model, x, y, "mse", sgd if trainable else training.SGD(0.1))
        same = [np.array_equal(a, b) for a, b in zip(model.weights, before, strict=True)]
        assert same == [not trainable] * 3 + [False] * 2


def test_fit_looks_at_targets_without_a_say_in_what_is_carried() -> None:
    x, y = np.ones((4, 3, 2)), np.ones((4, 1))
    model = refrnn.Sequential([layers.LSTM(2, stateful=True), layers.Dense(1)])
    other = refrnn.Sequential([layers.LSTM(2, stateful=True), layers.Dense(1)])
    model(x)
    other(x)
    other.set_weights(model.get_weights())
    model.reset_states()
    other.reset_states()
    for _ in range(2):  # the second time with a state of four rows
        done = training.fit(model, x, y, "mse", "sgd", batch_size=4, shuffle=False)
        lost = training.train_on_batch(other, x, y, "mse", training.SGD())
        assert done.batch_losses == [lost]
        carried = [np.array(part) for part in model.layers[0].states]
        with pytest.raises(ValueError, match="the target has shape"):
            training.fit(model, x, np.ones((4, 2)), "mse", "sgd", batch_size=4, shuffle=False)
        for a, b in zip(model.layers[0].states, carried, strict=True):
            assert np.array_equal(a, b)


def test_an_optimizer_goes_on_from_fit_to_fit() -> None:
    x, y = rows(8)
    one, other = small(), small()
    adam = training.Adam()
    training.fit(one, x, y, "mse", adam, epochs=2, shuffle=False)
    training.fit(one, x, y, "mse", adam, epochs=2, shuffle=False)
    training.fit(other, x, y, "mse", training.Adam(), epochs=4, shuffle=False)
    assert all(np.array_equal(a, b) for a, b in zip(one.weights, other.weights, strict=True))
    assert adam.iterations == 4


def test_a_model_without_an_input_is_built_for_what_it_learns_from() -> None:
    x, y = rows(6)
    model = refrnn.Sequential([layers.LSTM(3), layers.Dense(1)])
    first = training.fit(model, x, y).history["loss"]
    assert training.evaluate(model, x, y) < first[0]


def test_a_model_of_several_inputs_is_trained() -> None:
    a, b = layers.Input((None, 1), name="a"), layers.Input((2,), name="b")
    joined = layers.Concatenate()([layers.LSTM(3)(a), b])
    model = refrnn.Model([a, b], layers.Dense(1)(joined))
    x, y = rows(20)
    other = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    target = y + other[:, :1]
    for given in ([x, other], {"a": x, "b": other}):
        losses = training.fit(model, given, target, epochs=20, batch_size=7).history["loss"]
        assert losses[-1] < losses[0]


# --- what is refused, before anything is changed ---

X, Y = rows(6)


def regularized() -> Any:
    return seeded(layers.LSTM(2, name="l", recurrent_regularizer="l2"), layers.Dense(1))


def penalized() -> Any:
    return seeded(layers.ActivityRegularization(l1=0.1, name="a"), layers.Dense(1))


def frozen() -> Any:
    model = small()
    for layer in model.layers:
        layer.trainable = False
    return model


def several_outputs() -> Any:
    given = layers.Input((None, 1))
    return refrnn.Model(given, [layers.LSTM(2)(given), layers.GRU(2)(given)], name="two")


def batches_of(count: int, **options: Any) -> Any:
    gru = layers.GRU(3, stateful=True, name="g", **options)
    return seeded(gru, layers.Dense(1), shape=(count, None, 1))


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (small, {"loss": "mae"}, "loss is 'mae', expected one of 'mse'"),
    (small, {"optimizer": "rmsprop"}, "optimizer is 'rmsprop', expected one of 'sgd', 'adam'"),
    (small, {"y": Y[:, :0]}, r"the target has shape \(6, 0\), expected \(6, 1\)"),
    (small, {"y": np.repeat(Y, 3, 1)}, "never broadcast"),
    (small, {"y": Y[:5]}, r"target has shape \(5, 1\) and the input 6 rows"),
    (small, {"y": np.where(Y > 0, np.nan, Y)}, "the target is nan at"),
    (small, {"loss": "binary_crossentropy", "y": Y * 0 + 2}, "the target is 2.0 .* 0 to 1"),
    (small, {"x": X[:0], "y": Y[:0]}, "the input has no rows, expected at least one"),
    (small, {"epochs": 0}, "epochs is 0, expected a whole number of at least 1"),
    (small, {"batch_size": 0}, "batch_size is 0"),
    (small, {"seed": 1.5}, "seed is 1.5"),
    (small, {"validation_data": X}, "expected a pair"),
    (small, {"validation_data": (X, Y[:2])}, "fit: validation_data: the target has shape"),
    (small, {"validation_data": (X, Y[:, :0])}, r"the target has shape \(6, 0\)"),
    (small, {"callbacks": [3]}, "callback 3 is no function and has none of the methods on_train"),
    (small, {"callbacks": print}, "callbacks is <built-in function print>, expected a list"),
    (penalized, {}, "ActivityRegularization 'a': is in the model, expected none such"),
    (small, {"reset_each_epoch": True}, "has no stateful layer, expected one"),
    (frozen, {}, "has no weights to train.* trainable is False in GRU 'g', "),
    (regularized, {}, "LSTM 'l': recurrent_regularizer is 'l2', expected None"),
    (several_outputs, {}, "model 'two': returns 2 arrays, expected one"),
    (lambda: layers.LSTM(2), {}, "expected a refrnn.Model or Sequential"),
    (lambda: batches_of(3), {"batch_size": 3}, "GRU 'g' is stateful, expected shuffle=False"),
    (lambda: batches_of(3), {"batch_size": 2, "shuffle": False}, "batch_size is 2, expected 3"),
    (lambda: batches_of(4), {"batch_size": 4, "shuffle": False}, "6 rows, expected a multiple of"),
]


@pytest.mark.parametrize(("make", "changes", "message"), REFUSED)
def test_what_does_not_fit_is_refused(make: Any, changes: dict[str, Any], message: str) -> None:
    model = make()
    before = [w.copy() for w in model.weights]
    with pytest.raises(ValueError, match=message):
        training.fit(model, **({"x": X, "y": Y} | changes))
    assert all(np.array_equal(a, b) for a, b in zip(model.weights, before, strict=True))


def test_a_target_of_text_is_refused() -> None:
    with pytest.raises(TypeError, match="the target has dtype <U1, expected real numbers"):
        training.fit(small(), X, np.full((6, 1), "a"))


def test_a_label_outside_the_classes_is_refused_wherever_it_is() -> None:
    """In the last batch too, before the first one has changed anything."""
    model = seeded(layers.GRU(3), layers.Dense(3, "softmax"))
    labels = np.array([0, 1, 2, 0, 1, 3])
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"target is 3.0 at \[5\], expected a whole number from 0"):
        training.fit(model, X, labels, "sparse_categorical_crossentropy", batch_size=2)
    assert all(np.array_equal(a, b) for a, b in zip(model.weights, before, strict=True))


def test_a_batch_without_rows_changes_nothing() -> None:
    model = refrnn.Sequential([layers.Input((2,)), layers.Dense(1)])
    adam, before = training.Adam(), [w.copy() for w in model.get_weights()]
    training.train_on_batch(model, np.ones((3, 2)), np.zeros((3, 1)), optimizer=adam)
    moved = model.get_weights()
    with pytest.raises(ValueError, match="the batch has no rows, expected at least one"):
        training.train_on_batch(model, np.ones((0, 2)), np.zeros((0, 1)), optimizer=adam)
    assert adam.iterations == 1
    assert not any(np.array_equal(a, b) for a, b in zip(before, moved, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), moved, strict=True))


def test_train_on_batch_needs_an_optimizer_that_remembers() -> None:
    with pytest.raises(ValueError, match="optimizer is 'adam', expected an optimizer of refrnn"):
        training.train_on_batch(small(), X, Y, "mse", "adam")  # type: ignore[arg-type]


def test_a_refused_batch_leaves_states_and_random_numbers_as_they_were() -> None:
    one, other = (batches_of(6, dropout=0.5, seed=1) for _ in range(2))
    adams = training.Adam(), training.Adam()
    for model, adam in zip((one, other), adams, strict=True):
        training.train_on_batch(model, X, Y, "mse", adam)
    for bad in (Y[:3], Y * np.nan):
        with pytest.raises(ValueError, match="the target"):
            training.train_on_batch(one, X, bad, "mse", adams[0])
    for x, y in ((X * np.nan, Y), (X, Y + 1e30)):  # the loss is NaN, and infinite
        with pytest.raises(FloatingPointError):
            training.train_on_batch(one, x, y, "mse", adams[0])
    for _ in range(2):
        losses = [
            training.train_on_batch(model, X, Y, "mse", adam)
            for model, adam in zip((one, other), adams, strict=True)
        ]
        assert losses[0] == losses[1]
    assert all(np.array_equal(a, b) for a, b in zip(one.weights, other.weights, strict=True))


# --- a loss that is not finite: where it arose ---


def with_a_bad_input() -> tuple[Any, Any, str]:
    x = X.copy()
    x[4, 2, 0] = np.nan
    return small(), x, "batch 3 of 3: the loss is nan: input ... is nan at [0, 2, 0]"


def with_a_bad_weight() -> tuple[Any, Any, str]:
    model = small()
    weights = model.get_weights()
    weights[4][0] = np.inf
    model.set_weights(weights)
    return model, X, "batch 1 of 3: the loss is inf: Dense 'd': weight bias is inf at [0]"


def with_a_large_state() -> tuple[Any, Any, str]:
    """c grows without bound; h is infinite in the same step, but after it."""
    model = seeded(layers.LSTM(2, activation="linear", name="l"), layers.Dense(1))
    kernel, recurrent, bias, *rest = model.get_weights()
    kernel[:] = recurrent[:] = bias[:] = 0
    bias[:] = [30, 30, 30, 30, 3e38, 1, 30, 30]  # i and f are 1, g is 3e38 in unit 0
    model.set_weights([kernel, recurrent, bias, *rest])
    return model, X, "LSTM 'l': state c is inf at step 1, row 0, unit 0"


def with_large_outputs() -> tuple[Any, Any, str]:
    model = small()
    model.set_weights([*model.get_weights()[:3], np.full((3, 1), 1e30), np.zeros(1)])
    return model, X, "all outputs are finite"


def with_a_large_sum() -> tuple[Any, Any, str]:
    """Of a gate's sum, in a model inside the model, from a state that is carried backwards."""
    inner = seeded(layers.SimpleRNN(2, activation="linear", go_backwards=True, name="s"))
    inner.set_weights([np.full((1, 2), 1e20), np.diag([1e30, 1.0]), np.zeros(2)])
    given = layers.Input((None, 1))
    return (
        refrnn.Model(given, layers.Dense(1)(inner(given))),
        np.abs(X) + 1,
        "SimpleRNN 's': the sum of gate h is inf at step 2, row 0, unit 0",
    )


@pytest.mark.parametrize(
    "make",
    [
        with_a_bad_input,
        with_a_bad_weight,
        with_a_large_state,
        with_large_outputs,
        with_a_large_sum,
    ],
)
def test_a_loss_that_is_not_finite_says_where_it_arose(make: Any) -> None:
    model, x, words = make()
    before = model.get_weights()
    with pytest.raises(FloatingPointError) as found:
        training.fit(model, x, Y, "mse", "sgd", epochs=3, batch_size=2, shuffle=False)
    message = str(found.value)
    assert message.startswith("fit: epoch 1 of 3, batch ")
    assert message.endswith("; the weights are those before this batch")
    assert all(part in message for part in words.split(" ... ")), message
    if "batch 1" in message:
        assert all(np.array_equal(a, b) for a, b in zip(model.weights, before, strict=True))


def test_after_a_bad_batch_the_weights_are_those_of_the_last_good_one() -> None:
    """And the optimizer's memory too: the training goes on as if there had been no such batch."""
    one, other = small(), small()
    adams = training.Adam(), training.Adam()
    x = np.concatenate([X, X * np.nan])
    with pytest.raises(FloatingPointError, match="epoch 1 of 1, batch 3 of 4"):
        training.fit(one, x, np.tile(Y, (2, 1)), "mse", adams[0], batch_size=3, shuffle=False)
    training.fit(other, X, Y, "mse", adams[1], batch_size=3, shuffle=False)
    for model, adam in zip((one, other), adams, strict=True):
        training.train_on_batch(model, X, Y, "mse", adam)
    assert all(np.array_equal(a, b) for a, b in zip(one.weights, other.weights, strict=True))


def test_a_gradient_that_is_not_finite_is_named() -> None:
    """The loss is finite, and what goes back to the first layer is not."""
    model = seeded(layers.Dense(2, name="d"), layers.Dense(1, name="e"), shape=(None, 1))
    model.set_weights([np.full((1, 2), 1e-30), np.zeros(2), np.full((2, 1), 1e25), np.zeros(1)])
    x = np.full((2, 1), 1e20, np.float32)
    with pytest.raises(FloatingPointError, match="the gradient of d/kernel is not finite"):
        training.train_on_batch(model, x, np.zeros((2, 1)), "mse", training.SGD())
