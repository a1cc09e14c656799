"""The gradients of whole models are those of Keras, of differences, and the same in chunks.

Held against `tf.GradientTape` on models that the same lines make of Keras's layers and of
refrnn's, fixed ones and any that Hypothesis can think of, and against central differences; and
bugs planted in the rules are caught, each by a model that is named beside it.
"""

import copy
import inspect
import os
import re
import textwrap
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from programs import Made, Program
from strategies import programs
from test_random_models import inputs_of, lost_sizes, randomize

import refrnn
from refrnn import layers, training
from refrnn.gates import Array
from refrnn.layers.masks import leaves, map_arrays
from refrnn.training.rules import (
    activation,
    dense,
    dropout,
    dropped,
    embedding,
    merging,
    models,
    moving,
    normalization,
    passing,
    pooling,
    recurrent,
    wrappers,
)
from refrnn.verify.chunks import random_sizes

EXAMPLES = 1000 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 24
STEPS = 5

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*rms_scaling=True., which is deprecated:UserWarning"),
    # Keras, of masks that end at a layer that takes none: right, and what such a model is drawn for
    pytest.mark.filterwarnings("ignore:.*does not support masking:UserWarning"),
]

# --- fixed models ------------------------------------------------------------------------------


class Double:
    """A library whose layers compute in another dtype than by default."""

    def __init__(self, library: Any, dtype: str) -> None:
        self.library, self.dtype = library, dtype

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.library.layers, name)
        return partial(found, dtype=self.dtype)


class Recipe(NamedTuple):
    """A model by the lines that make it, the same for both libraries.

    make      (layers) -> (inputs, outputs)
    training  whether it is called in training
    calls     how many calls go before the one that counts
    coarse    whether inputs are rounded to halves: then many are equal
    """

    make: Callable[[Any], tuple[Any, Any]]
    training: bool = False
    calls: int = 0
    coarse: bool = False


def floats(L: Any, *shape: int | None, rows: int | None = None) -> Any:
    return L.Input(batch_shape=(rows, *shape))


def chain(
    *kinds: Callable[[Any], Any], shape: tuple[int | None, ...] = (STEPS, 3), **more: Any
) -> Recipe:
    """Layers one after another."""

    def make(L: Any) -> tuple[Any, Any]:
        x = y = floats(L, *shape)
        for kind in kinds:
            y = kind(L)(y)
        return x, y

    return Recipe(make, **more)


def bidirectional(merge_mode: str | None, **options: Any) -> Recipe:
    """Masked in the middle, which the halves see from either side, and another width."""

    def make(L: Any) -> tuple[Any, Any]:
        x = floats(L, STEPS, 3)
        inner = L.LSTM(2, return_sequences=True, **options)
        return x, L.Bidirectional(inner, merge_mode=merge_mode)(L.Masking()(x))

    return Recipe(make)


def last_of_both(L: Any) -> tuple[Any, Any]:
    x = floats(L, STEPS, 3)
    backward = L.GRU(2, go_backwards=True, return_state=True)
    both = L.Bidirectional(L.GRU(2, return_state=True), backward_layer=backward)
    return x, both(L.Masking()(x))


def encoder_decoder(L: Any) -> tuple[Any, Any]:
    """The states of one layer are those that the other begins with, and an output too."""
    x, z = floats(L, STEPS, 3), floats(L, 4, 2)
    _, h, c = L.LSTM(3, return_state=True)(L.Masking()(x))
    y = L.LSTM(3, return_sequences=True)(z, initial_state=[h, c])
    return [x, z], [L.TimeDistributed(L.Dense(2, activation="softmax"))(y), c]


def both_ways_begun(L: Any) -> tuple[Any, Any]:
    x, h, k = floats(L, STEPS, 3), floats(L, 2), floats(L, 2)
    both = L.Bidirectional(L.SimpleRNN(2, return_sequences=True, return_state=True))
    return [x, h, k], both(x, initial_state=[h, k])


def shared(L: Any) -> tuple[Any, Any]:
    """Layers called twice, a bare one, one with a state and a model."""
    x, z = floats(L, STEPS, 3), floats(L, STEPS, 3)
    gru, out = L.GRU(3, return_sequences=True), L.Dense(3, activation="tanh")
    inner_x = floats(L, STEPS, 3)
    inner = L.library.Model(inner_x, [out(gru(inner_x)), L.GlobalMaxPooling1D()(inner_x)])
    y, top = inner(z)
    a, b = gru(out(x)), gru(y)
    return [x, z], [L.Add()([a, b, x]), L.Dense(2)(top)]


def ids(L: Any) -> tuple[Any, Any]:
    """Ids that occur several times, zeros among them, and the mask that comes of them."""
    x = L.library.layers.Input(batch_shape=(None, STEPS), dtype="int32")
    e = L.Embedding(4, 3, mask_zero=True)
    return x, L.LSTM(3)(e(x))


def masked_merges(L: Any) -> tuple[Any, Any]:
    """Each input has a mask of its own, or none; one is broadcast."""
    x, z, w = floats(L, STEPS, 3), floats(L, STEPS, 3), floats(L, 1, 3)
    a = L.SimpleRNN(3, return_sequences=True)(L.Masking()(x))
    b = L.GRU(3, return_sequences=True)(L.Masking(0.5)(z))
    merged = [
        getattr(L, kind)()([a, b, *more])
        for kind in ("Multiply", "Maximum", "Minimum")
        for more in ([], [x], [L.Masking()(z)])
    ]
    merged += [L.Multiply()([x, z, w]), L.Add()([x, w]), L.Average()([x, z, w])]
    merged += [L.Subtract()([x, w]), L.Maximum()([w, x]), L.Concatenate(axis=1)([a, b, w])]
    merged += [L.Concatenate()([L.Masking()(x), z])]
    c = L.GRU(3, return_sequences=True)(L.Masking()(x))  # masked where a is
    merged += [L.Maximum()([a, c]), L.Multiply()([c, a])]
    return [x, z, w], merged


def grid(L: Any) -> tuple[Any, Any]:
    """A recurrent layer at every step, with a mask for each of its sequences."""
    x = floats(L, 3, 4, 2)
    y = L.TimeDistributed(L.Bidirectional(L.GRU(2)))(L.Masking()(x))
    return x, L.TimeDistributed(L.LayerNormalization(rms_scaling=False))(y)


def several_outputs(L: Any) -> tuple[Any, Any]:
    """States and outputs, in a dictionary, of layers that run backwards and repeat outputs."""
    x = floats(L, STEPS, 3)
    y, h, c = L.LSTM(3, return_sequences=True, return_state=True, go_backwards=True)(L.Masking()(x))
    z, k = L.GRU(2, return_state=True, reset_after=False, zero_output_for_mask=True)(y)
    return x, {"y": y, "h": h, "c": c, "k": k, "a": z}


def stacked(L: Any) -> tuple[Any, Any]:
    """Cells one upon another, their outputs and states, backwards and masked."""
    x, K = floats(L, STEPS, 3), L
    cells = [K.LSTMCell(3), K.GRUCell(2), K.SimpleRNNCell(4)]
    rnn = L.RNN(K.StackedRNNCells(cells), return_sequences=True, return_state=True,
                go_backwards=True)  # fmt: skip
    y, *states = rnn(L.Masking()(x))
    return x, [y, *leaves(states)]


def stateful(L: Any) -> tuple[Any, Any]:
    x = floats(L, STEPS, 3, rows=ROWS)
    y = L.LSTM(3, stateful=True, return_sequences=True)(x)
    return x, L.GRU(2, stateful=True)(y)


def moved(L: Any) -> tuple[Any, Any]:
    x = floats(L, 4, 3)
    y = L.ZeroPadding1D((2, 1))(L.Permute((2, 1))(L.Cropping1D((1, 0))(L.UpSampling1D(2)(x))))
    z = L.RepeatVector(3)(L.Flatten()(L.Reshape((2, 6))(x)))
    return x, [y, z]


def pooled(L: Any) -> tuple[Any, Any]:
    """And the larger of two, entry by entry."""
    x, z = floats(L, STEPS, 3), floats(L, STEPS, 3)
    y = L.Masking()(x)
    return [x, z], [
        L.Maximum()([x, z]),
        L.Minimum()([x, z]),
        L.GlobalAveragePooling1D()(y),
        L.GlobalAveragePooling1D(keepdims=True)(x),
        L.GlobalMaxPooling1D()(x),
        L.MaxPooling1D(3, strides=1, padding="same")(x),
        L.AveragePooling1D(3, strides=2, padding="same")(x),
    ]


def bent(L: Any) -> tuple[Any, Any]:
    x = floats(L, STEPS, 4)
    return x, [
        L.Activation("gelu")(x), L.ReLU(0.5, 0.25)(x), L.ReLU(1.0, 0.25, 0.5)(x),
        L.LeakyReLU(0.1)(x), L.ELU(0.5)(x),
        L.PReLU(shared_axes=[1])(x), L.Softmax(axis=1)(x), L.Softmax(axis=[1, 2])(x),
        L.Dense(3, activation="softmax")(x), L.Dense(2, use_bias=False, activation="relu")(x),
        L.Rescaling(0.5, 0.25)(x), L.Identity()(x), L.Dense(4, activation="glu")(x),
    ]  # fmt: skip


def normalized(L: Any) -> tuple[Any, Any]:
    x = floats(L, STEPS, 3)
    return x, [
        L.LayerNormalization()(x), L.LayerNormalization(axis=[1, 2], center=False)(x),
        L.LayerNormalization(rms_scaling=True)(x), L.LayerNormalization(axis=1, scale=False)(x),
        L.BatchNormalization()(x), L.BatchNormalization(axis=1, scale=False)(x),
        L.UnitNormalization(axis=[1, 2])(x),
    ]  # fmt: skip


def dropping(L: Any) -> tuple[Any, Any]:
    x = floats(L, STEPS, 3)
    y = L.SpatialDropout1D(0.4, seed=3)(L.Dropout(0.3, seed=2)(L.Masking()(x)))
    return x, [L.Dropout(0.5, noise_shape=(None, 1, 3), seed=5)(y), L.Dropout(0.3, seed=4)(x)]


def recurrent_dropout(kind: str, **options: Any) -> Recipe:
    """The masked step shows whether the state that is held was dropped."""
    given = {"dropout": 0.3, "seed": 6, "return_sequences": True, **options}
    if kind != "SimpleRNN":
        given["use_cudnn"] = False  # with it Keras fails where there are masks for each gate
    return chain(lambda L: L.Masking(), lambda L: getattr(L, kind)(3, **given), training=True)


def frozen(L: Any) -> tuple[Any, Any]:
    x = floats(L, STEPS, 3)
    y = L.LSTM(3, trainable=False, return_sequences=True)(x)
    return x, L.Dense(2)(L.BatchNormalization(trainable=False)(L.GRU(2)(y)))


MODELS: dict[str, Recipe] = {
    "a chain": chain(
        lambda L: L.GRU(4, return_sequences=True, reset_after=False),
        lambda L: L.SimpleRNN(3, return_sequences=True, unroll=True),
        lambda L: L.LSTM(4, go_backwards=True),
        lambda L: L.Dense(2, activation="sigmoid"),
    ),
    **{f"Bidirectional {m}": bidirectional(m) for m in ("concat", "sum", "mul", "ave", None)},
    "Bidirectional, last outputs and states": Recipe(last_of_both),
    "Bidirectional, begun": Recipe(both_ways_begun),
    "encoder and decoder": Recipe(encoder_decoder),
    "shared layers": Recipe(shared),
    "ids": Recipe(ids),
    "masked merges": Recipe(masked_merges),
    "a grid": Recipe(grid),
    "several outputs": Recipe(several_outputs),
    "stacked cells": Recipe(stacked),
    "stateful": Recipe(stateful, calls=2),
    "moved": Recipe(moved),
    "pooled": Recipe(pooled, coarse=True),
    "activations": Recipe(bent),
    "normalized": Recipe(normalized),
    "dropout": Recipe(dropping, training=True, calls=1),
    "dropout, but in inference": chain(lambda L: L.LSTM(3, dropout=0.3, seed=6)),
    "a chain of one stack": chain(
        lambda L: L.RNN(L.StackedRNNCells([L.LSTMCell(3), L.GRUCell(3)])), lambda L: L.Dense(2)
    ),
    "dropout of all inputs": chain(lambda L: L.Dropout(1.0), lambda L: L.Dense(2), training=True),
    "SimpleRNN's dropout": recurrent_dropout("SimpleRNN", recurrent_dropout=0.4),
    "LSTM's dropout": recurrent_dropout("LSTM"),
    "LSTM's dropout, gate by gate": recurrent_dropout("LSTM", implementation=1),
    "LSTM's recurrent dropout": recurrent_dropout("LSTM", recurrent_dropout=0.4, go_backwards=True),
    "GRU's recurrent dropout": recurrent_dropout("GRU", recurrent_dropout=0.4),
    "GRU's recurrent dropout, reset before": recurrent_dropout(
        "GRU", recurrent_dropout=0.4, reset_after=False
    ),
    "Bidirectional dropout": chain(
        lambda L: L.Bidirectional(L.LSTM(2, dropout=0.3, recurrent_dropout=0.3, seed=4)),
        training=True,
    ),
    "frozen layers": Recipe(frozen, training=True),
}  # fmt: skip
ROWS = 3


def made(recipe: Recipe, library: Any, dtype: str = "float64") -> Any:
    return library.Model(*recipe.make(Double(library, dtype)))


def arrays_of(model: Any, dtype: str, coarse: bool = False) -> list[Array]:
    """For each input ids, or numbers with steps among them that Masking masks."""
    rng, found = np.random.default_rng(5), []
    for item in model.inputs:
        shape = (ROWS, *item.shape[1:])
        if item.dtype == "int32":
            found.append(np.array([[1, 3, 1, 1, 2], [2, 0, 2, 2, 0], [0, 0, 1, 1, 0]], "int32"))
            continue
        x = rng.normal(size=shape).astype(dtype)
        x = np.round(2 * x) / 2 if coarse else x
        if len(shape) > 2 and shape[1] > 1:
            x[1, 1], x[2, 0], x[2, -1], x[0, 2], x[1, 3 % shape[1]] = 0, 0, 0, 0.5, 0.5
        found.append(x)
    return found


class Loss:
    """The sum of a model's outputs, each times a drawn number."""

    def __init__(self, outputs: Any, seed: int = 9) -> None:
        rng = np.random.default_rng(seed)
        arrays = [np.asarray(y) for y in leaves(outputs)]
        self.dys = [rng.normal(size=y.shape).astype(y.dtype) for y in arrays]

    def like(self, outputs: Any) -> Any:
        """Its gradient by each output, in the structure of the outputs."""
        parts = iter(self.dys)
        return map_arrays(lambda _: next(parts), outputs)

    def of(self, outputs: Any) -> float:
        pairs = zip(leaves(outputs), self.dys, strict=True)
        return sum(float(np.sum(np.asarray(y) * dy)) for y, dy in pairs)


def refrnn_gradients(model: Any, arrays: list[Array], mode: bool, loss: Loss) -> list[Array]:
    """Of the weights, then of the inputs that have one."""
    tape = training.record(model, arrays if len(arrays) > 1 else arrays[0], training=mode)
    found = tape.back(loss.like(tape.outputs))
    return [*found.weights, *(x for x in found.inputs if x is not None)]


def keras_gradients(
    tf: Any, model: Any, arrays: list[Array], mode: bool, loss: Loss
) -> list[Array]:
    """The same by tf.GradientTape."""
    T = tf.tf
    tensors = [T.constant(array) for array in arrays]
    watched = [t for t in tensors if t.dtype.is_floating]
    with T.GradientTape() as tape:
        tape.watch(watched)
        outputs = T.nest.flatten(model(tensors if len(tensors) > 1 else tensors[0], training=mode))
        parts = [T.reduce_sum(y * dy) for y, dy in zip(outputs, loss.dys, strict=True)]
        total = sum(T.cast(part, "float64") for part in parts)
    sources = [*(v.value for v in model.trainable_variables), *watched]
    found = tape.gradient(total, sources, unconnected_gradients=T.UnconnectedGradients.ZERO)
    return [np.asarray(T.convert_to_tensor(part)) for part in found]


def near(got: list[Array], want: list[Array], limits: list[float], what: object) -> None:
    """Each array within its limit of the one that is wanted, in every number; NaN where it is."""
    assert len(got) == len(want), what
    for k, (a, b, limit) in enumerate(zip(got, want, limits, strict=True)):
        assert a.shape == b.shape, (what, k)
        assert a.dtype == b.dtype, (what, k)
        assert np.array_equal(np.isnan(a), np.isnan(b)), (what, k)
        error = np.abs(np.nan_to_num(a) - np.nan_to_num(b)).max(initial=0)
        assert error <= limit, (what, k, error, limit)


def scales(arrays: list[Array]) -> list[float]:
    return [float(np.abs(np.nan_to_num(array)).max(initial=0)) for array in arrays]


# float64: rounding is 1e-16 a sum, a few hundred in a row; a wrong rule is off by 1e-3 or more
RELATIVE = 1e-10

_known: dict[tuple[str, str], tuple[list[Array], list[Array], list[Array]]] = {}


def wanted(tf: Any, name: str, dtype: str) -> tuple[list[Array], list[Array], list[Array]]:
    """The weights and inputs of a model of MODELS, and its gradients by Keras; once for all."""
    if (name, dtype) not in _known:
        recipe = MODELS[name]
        theirs = made(recipe, tf.keras, dtype)
        randomize(theirs, 7)
        arrays = arrays_of(made(recipe, refrnn, dtype), dtype, recipe.coarse)
        for _ in range(recipe.calls):
            theirs(arrays if len(arrays) > 1 else arrays[0], training=recipe.training)
        loss = Loss(made(recipe, refrnn, dtype)(arrays if len(arrays) > 1 else arrays[0]))
        found = keras_gradients(tf, theirs, arrays, recipe.training, loss)
        _known[name, dtype] = theirs.get_weights(), arrays, found
    return _known[name, dtype]


def mine(tf: Any, name: str, dtype: str = "float64") -> tuple[list[Array], list[Array]]:
    """The gradients of a model of MODELS: refrnn's, and Keras's."""
    weights, arrays, want = wanted(tf, name, dtype)
    recipe = MODELS[name]
    model, x = made(recipe, refrnn, dtype), arrays if len(arrays) > 1 else arrays[0]
    model.set_weights(weights)
    for _ in range(recipe.calls):
        loss = Loss(model(x, training=recipe.training))
    if not recipe.calls:
        loss = Loss(copy.deepcopy(model)(x, training=recipe.training))
    return refrnn_gradients(model, arrays, recipe.training, loss), want


def check_keras(tf: Any, name: str) -> None:
    got, want = mine(tf, name)
    near(got, want, [RELATIVE * scale for scale in scales(want)], name)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_gradients_of_keras(tf: Any, name: str) -> None:
    check_keras(tf, name)


# --- any model ---------------------------------------------------------------------------------


def seeded(program: Program, seed: int) -> Program:
    """The program with a seed for all that drops: the masks are those of Keras then."""

    def of(made: Any) -> Any:
        if isinstance(made, Program):
            return replace(made, layers=tuple(map(of, made.layers)))
        if isinstance(made, list):
            return [of(one) for one in made]
        if not isinstance(made, Made):
            return made
        options = {name: of(value) for name, value in made.options.items()}
        drops = made.kind in ("Dropout", "SpatialDropout1D") or "units" in options
        if drops and made.kind != "Dense":
            options["seed"] = seed
        if made.kind in ("GRU", "LSTM"):
            options["use_cudnn"] = False
        return Made(made.kind, options)

    return of(program)


def nudged(array: Array, eps: float, rng: np.random.Generator) -> Array:
    """Each number, but for those that Masking looks for, moved by a spacing of the dtype."""
    if array.dtype.kind != "f":
        return array
    moved = array * (1 + eps * rng.choice([-1, 1], array.shape))
    return np.where(np.isin(array, (0.0, 0.5)), array, moved).astype(array.dtype)


def limits(
    model: Any, arrays: list[Array], mode: bool, loss: Loss, got: list[Array], eps: float
) -> list[float]:
    """How far roundings may move each array of the gradients.

    RELATIVE, as for the fixed models, in float64; 2000 spacings in float32, of which one sum of a
    few hundred terms takes ten. And where a model magnifies roundings, 16 times how far the
    gradients move when each weight and input is moved by a spacing, four times: Keras and refrnn
    both round, at each of some steps, as often as the four draws do at once.
    """
    rng, weights = np.random.default_rng(0), model.get_weights()
    least = RELATIVE if eps < 1e-10 else 2000 * eps
    found = [least * scale for scale in scales(got)]
    for _ in range(4):
        other = copy.deepcopy(model)
        other.set_weights([nudged(w, eps, rng) for w in weights])
        away = refrnn_gradients(other, [nudged(a, eps, rng) for a in arrays], mode, loss)
        moved = scales([a - b for a, b in zip(away, got, strict=True)])
        found = [max(limit, 16 * far) for limit, far in zip(found, moved, strict=True)]
    return found


def check_program(tf: Any, program: Program, seed: int, mode: bool) -> None:
    program = seeded(program, seed)
    try:
        theirs, model = program.make(tf.keras), program.make(refrnn)
    except ValueError:
        reject()  # sizes that one of the two does not know: see test_random_models.py
    if lost_sizes(theirs) or (mode and "TimeDistributed" in repr(program)):
        reject()  # Keras draws a mask for each step, refrnn one for all
    arrays = inputs_of(program, seed)
    x = arrays if len(arrays) > 1 else arrays[0]
    if program.form == "bare chain":
        theirs(tf.tf.constant(x))
        model.build((None, *np.shape(x)[1:]))
    randomize(theirs, seed)
    model.set_weights(theirs.get_weights())
    for layer in theirs._flatten_layers():
        if hasattr(layer, "seed_generator"):  # a SimpleRNN of Keras loses it when it is copied
            layer.seed_generator.state.assign([seed, 0])
    model.reset_states()
    try:
        training.record(copy.deepcopy(model), x, training=mode)
    except ValueError as error:
        if not re.search("there are no gradients of|training is True", str(error)):
            raise
        reject()
    fresh = copy.deepcopy(model)
    loss = Loss(copy.deepcopy(model)(x, training=mode), seed)
    got = refrnn_gradients(model, arrays, mode, loss)
    want = keras_gradients(tf, theirs, arrays, mode, loss)
    eps = np.finfo("float32" if "float32" in repr(program) else "float64").eps
    near(got, want, limits(fresh, arrays, mode, loss, got, float(eps)), f"{program} {mode}")


@settings(max_examples=EXAMPLES)
@given(program=programs(STEPS), seed=st.integers(0, 999), mode=st.booleans())
def test_any_model_has_the_gradients_of_keras(
    tf: Any, program: Program, seed: int, mode: bool
) -> None:
    check_program(tf, program, seed, mode)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("activations", "pooled")])
def test_in_float32_a_model_has_the_gradients_of_keras(tf: Any, name: str) -> None:
    """Within `limits`. Left out are corners, which roundings step over."""
    got, want = mine(tf, name, "float32")
    weights, arrays, _ = wanted(tf, name, "float32")
    recipe = MODELS[name]
    model, mode = made(recipe, refrnn, "float32"), recipe.training
    model.set_weights(weights)
    x = arrays if len(arrays) > 1 else arrays[0]
    for _ in range(recipe.calls):
        model(x, training=mode)
    loss = Loss(copy.deepcopy(model)(x, training=mode))
    eps = float(np.finfo("float32").eps)
    near(got, want, limits(model, arrays, mode, loss, got, eps), name)


# --- differences -------------------------------------------------------------------------------

STEP = 2.0**-14  # of a difference over 5 points: its error is STEP^4 f'''''/30, or eps / STEP
SMOOTH = [
    n for n, r in MODELS.items() if n not in ("activations", "pooled", "masked merges", "ids")
]


@pytest.mark.parametrize("name", SMOOTH)
def test_a_model_has_the_gradients_that_differences_say(tf: Any, name: str) -> None:
    """Along a direction for each weight and input. Left out are corners, and ids."""
    weights, arrays, _ = wanted(tf, name, "float64")
    recipe = MODELS[name]
    model, mode = made(recipe, refrnn), recipe.training
    model.set_weights(weights)

    def at(weights: list[Array], arrays: list[Array]) -> Any:
        other = copy.deepcopy(model)
        other.set_weights(weights)
        return other(arrays if len(arrays) > 1 else arrays[0], training=mode)

    loss = Loss(at(weights, arrays))
    got = refrnn_gradients(copy.deepcopy(model), arrays, mode, loss)
    trained = [any(w is t for t in model.trainable_weights) for w in model.weights]
    places = [("weight", k) for k, t in enumerate(trained) if t]
    places += [("input", k) for k in range(len(arrays))]
    rng = np.random.default_rng(1)
    for (kind, k), gradient in zip(places, got, strict=True):
        given = {"weight": weights, "input": arrays}
        direction = rng.normal(size=gradient.shape) / np.sqrt(gradient.size)
        if kind == "input":  # steps stay masked
            direction = np.where(np.isin(arrays[k], (0.0, 0.5)), 0, direction)
        losses = {}
        for n in (-2, -1, 1, 2):
            moved = list(given[kind])
            moved[k] = moved[k] + n * STEP * direction
            losses[n] = loss.of(at(**{"weights": weights, "arrays": arrays, f"{kind}s": moved})
                                if kind == "weight" else at(weights, moved))  # fmt: skip
        want = (8 * (losses[1] - losses[-1]) - (losses[2] - losses[-2])) / (12 * STEP)
        # rounding: a loss of a hundred terms is off by some 1e-14, over STEP that is 2e-10
        scale = max(1.0, abs(want), *map(abs, losses.values()))
        assert abs(np.sum(gradient * direction) - want) <= 4e-9 * scale, (name, kind, k)


# --- chunks ------------------------------------------------------------------------------------


def chunked(L: Any) -> tuple[Any, Any]:
    x = floats(L, None, 3)
    y = L.LSTM(3, return_sequences=True)(L.Masking()(x))
    y = L.TimeDistributed(L.Dense(4, activation="tanh"))(y)
    inner_x = floats(L, None, 4)
    cells = L.StackedRNNCells([L.GRUCell(3), L.LSTMCell(2)])
    inner = L.library.Model(inner_x, L.RNN(cells, return_sequences=True)(inner_x))
    return x, L.GRU(2, return_sequences=True, zero_output_for_mask=True)(inner(y))


@given(seed=st.integers(0, 2**16))
@settings(max_examples=20)
def test_chunks_that_hand_gradients_back_give_those_of_the_whole(seed: int) -> None:
    """The inputs' in every bit, the weights' but for the order of their sums: some 1e-15 of them.

    What is handed on is that of `Model.advance`, in every bit on one engine.
    """
    rng = np.random.default_rng(seed)
    model = made(Recipe(chunked), refrnn)
    x = rng.normal(size=(2, 7, 3)) * (rng.random((2, 7, 1)) < 0.7)
    model(x)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.weights])
    whole = training.record(model, x)
    dy = rng.normal(size=whole.outputs.shape)
    want = whole.back(dy)
    ends = np.cumsum([0, *random_sizes(7, seed)])
    cuts = [slice(a, b) for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]
    tapes, memory = [], None
    for cut in cuts:
        tapes.append(training.record(model, x[:, cut], memory=memory))
        memory = tapes[-1].memory
    np.testing.assert_array_equal(
        np.concatenate([tape.outputs for tape in tapes], axis=1), whole.outputs
    )
    _, advanced = model.advance(x)
    for a, b in zip(leaves(memory), leaves(advanced), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-14)
    found, dmemory = [], None
    for cut, tape in reversed(list(zip(cuts, tapes, strict=True))):
        found.append(tape.back(dy[:, cut], dmemory))
        dmemory = found[-1].states
    [dx] = zip(*(part.inputs for part in found[::-1]), strict=True)
    np.testing.assert_array_equal(np.concatenate(dx, axis=1), want.inputs[0])
    for a, b in zip(leaves(dmemory), leaves(want.states), strict=True):
        np.testing.assert_array_equal(a, b)
    sums = [sum(parts) for parts in zip(*(part.weights for part in found), strict=True)]
    near(sums, want.weights, [1e-12 * max(scale, 1) for scale in scales(want.weights)], seed)


def test_without_what_is_handed_back_chunks_are_those_of_truncated_bptt() -> None:
    """As `refrnn.gradients` has it with truncate."""
    rng = np.random.default_rng(3)
    layer = layers.LSTM(3, return_sequences=True, dtype="float64")
    x, dy = rng.normal(size=(2, 6, 2)), rng.normal(size=(2, 6, 3))
    layer(x)
    want = refrnn.gradients(layer.cell.math, layer.cell.arrays, x, dy, truncate=2)
    tapes, memory = [], None
    for k in range(0, 6, 2):
        tapes.append(training.record(layer, x[:, k : k + 2], memory=memory))
        memory = tapes[-1].memory
    found = [tape.back(dy[:, 2 * k : 2 * k + 2]) for k, tape in enumerate(tapes)]
    got = np.concatenate([part.inputs[0] for part in found], axis=1)
    np.testing.assert_allclose(got, want.dxs, rtol=0, atol=1e-14)
    kernel = sum(part.weights[0] for part in found)
    np.testing.assert_allclose(kernel, want.dkernel, rtol=0, atol=1e-13)


# --- layers, states, and what is not trained ---------------------------------------------------


@pytest.mark.parametrize("engine", ["numpy", "numba"])
def test_a_layer_has_the_gradients_of_its_cell(engine: str) -> None:
    """Its states too, on either engine."""
    rng = np.random.default_rng(4)
    layer = layers.LSTM(3, return_state=True, dtype="float64", engine=engine)
    x, h, c = (rng.normal(size=shape) for shape in ((2, 5, 3), (2, 3), (2, 3)))
    mask, dy, dh, dc = rng.random((2, 5)) < 0.6, *(rng.normal(size=(2, 3)) for _ in range(3))
    layer(x)
    found = training.gradients(layer, x, [dy, dh, dc], mask=mask, initial_state=[h, c])
    want = refrnn.gradients(
        layer.cell.math, layer.cell.arrays, x, None, [h, c], dlast_output=dy, dstate=[dh, dc],
        mask=mask, engine=engine,
    )  # fmt: skip
    got = [*found.weights, *found.inputs, *found.states.state, found.states.last_output]
    for a, b in zip(got, [*want[:4], *want.dstate, want.dlast_output], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_stateful_layer_goes_on_and_a_memory_leaves_it_alone() -> None:
    rng = np.random.default_rng(2)
    layer = layers.GRU(3, stateful=True, dtype="float64")
    x = rng.normal(size=(2, 4, 3))
    first = training.record(layer, x)
    np.testing.assert_array_equal(layer.states[0], first.memory.state.h)
    before = layer.states
    second = training.record(layer, x, memory=first.memory)
    np.testing.assert_array_equal(layer.states[0], before[0])
    np.testing.assert_array_equal(training.record(layer, x).outputs, second.outputs)


def test_gradients_are_of_what_is_trained_in_the_order_of_trainable_weights() -> None:
    model = made(MODELS["frozen layers"], refrnn)
    x = arrays_of(model, "float64")[0]
    tape = training.record(model, x)
    found = tape.back(np.ones_like(tape.outputs))
    assert [w.shape for w in found.weights] == [w.shape for w in model.trainable_weights]
    assert len(found.weights) == 5  # GRU and Dense
    model.trainable = False
    assert training.gradients(model, x, np.ones_like(tape.outputs)).weights == []


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_weights_alone_have_the_bits_of_those_with_inputs(name: str) -> None:
    recipe = MODELS[name]
    model = made(recipe, refrnn, "float32")
    outer = None
    if len(model.inputs) == 1 and model.output_count == 1:
        outer = refrnn.Sequential([model])  # a model inside a model
    arrays = arrays_of(model, "float32", recipe.coarse)
    for one in filter(None, (model, outer)):
        tape = training.record(one, arrays if len(arrays) > 1 else arrays[0])
        dy = Loss(tape.outputs).like(tape.outputs)
        want = tape.back(dy).weights
        got = tape.of_weights(dy, one.trainable_weights)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Bidirectional(layers.GRU(2, return_sequences=True)),
        layers.TimeDistributed(layers.Dense(2)),
        layers.LSTM(2, dropout=0.4, recurrent_dropout=0.3),
        layers.LSTM(2, dropout=0.4),
        layers.RNN([layers.GRUCell(2), layers.LSTMCell(3)]),
        layers.Dense(2, "relu"),
        layers.ReLU(),
    ],
    ids=str,
)
def test_a_layer_has_gradients_of_weights_alone(layer: Any) -> None:
    x = np.random.default_rng(0).normal(size=(3, 4, 2)).astype("float32")
    tape = training.record(layer, x, training=True)
    dy = Loss(tape.outputs).like(tape.outputs)
    got, want = tape.of_weights(dy, layer.trainable_weights), tape.back(dy).weights
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_way_back_can_be_gone_again() -> None:
    layer = layers.Bidirectional(layers.LSTM(2, dropout=0.4, recurrent_dropout=0.3, seed=1))
    x = np.random.default_rng(0).normal(size=(3, 4, 2)).astype("float32")
    tape = training.record(layer, x, training=True)
    first, second = (tape.back(np.ones_like(tape.outputs)) for _ in range(2))
    for a, b in zip(leaves(first), leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_nothing_is_written_to() -> None:
    model = made(MODELS["encoder and decoder"], refrnn)
    arrays = arrays_of(model, "float64")
    tape = training.record(model, arrays)
    kept = [np.copy(a) for a in (*arrays, *leaves(tape.outputs), *model.weights)]
    dys = [np.ones_like(y) for y in tape.outputs]
    tape.back(dys)
    for a, b in zip([*arrays, *leaves(tape.outputs), *model.weights], kept, strict=True):
        np.testing.assert_array_equal(a, b)
    assert all((dy == 1).all() for dy in dys)


def test_half_precision_goes_back_too() -> None:
    """In float16: near the gradients in float64, by some hundred spacings of 1e-3."""
    found = []
    for dtype in ("float16", "float64"):
        model = made(MODELS["a chain"], refrnn, dtype)
        model.set_weights([np.sin(np.arange(w.size)).reshape(w.shape) / 3 for w in model.weights])
        x = arrays_of(model, dtype)[0]
        got = training.gradients(model, x, np.ones((ROWS, 2), dtype))
        assert {a.dtype.name for a in [*got.weights, *got.inputs]} == {dtype}
        found.append([np.asarray(a, "float64") for a in [*got.weights, *got.inputs]])
    near(*found, [0.05 * scale for scale in scales(found[1])], "float16")


# --- what is refused ---------------------------------------------------------------------------


class Own(layers.Layer):
    def call(self, inputs: Any) -> Any:
        return 2 * inputs


class OwnCell(layers.LSTMCell):
    """A subclass may compute anything."""


X = np.ones((ROWS, STEPS, 3))
DY = np.ones((ROWS, 2))


def refused(*kinds: Any, name: str = "m", **options: Any) -> None:
    """In training a dropout in front draws a mask, if anything is run."""
    first = layers.Dropout(0.5, seed=1, name="first")
    model = refrnn.Sequential([first, *kinds], name=name)
    try:
        training.record(model, X, **options)
    finally:
        assert first._seeds.count == 0, "something was run before it was refused"


def sent_back(dy: Any, dmemory: Any = None, **options: Any) -> None:
    model = refrnn.Sequential([layers.LSTM(2, name="l", **options)], name="m")
    training.gradients(model, X, dy, dmemory=dmemory)


def two_back(dy: Any) -> None:
    x = layers.Input((STEPS, 3))
    outputs = {"a": layers.LSTM(2)(x), "b": layers.Dense(2)(x)}
    training.gradients(refrnn.Model(x, outputs, name="m"), X, dy)


LSTM = partial(layers.LSTM, 2, name="l")
REFUSED: dict[str, tuple[Callable[[], None], str]] = {
    "a layer without a rule": (
        lambda: refused(layers.ConvLSTM1D(2, 2, name="c")),
        "ConvLSTM1D 'c': there are no gradients of ConvLSTM1D, expected one of Activation,",
    ),
    "a layer of one's own": (
        lambda: refused(Own(name="o"), training=True), "Own 'o': there are no gradients of Own,"),
    "in a model in a model": (
        lambda: refused(refrnn.Sequential([layers.TimeDistributed(Own(name="o"))]), training=True),
        "Own 'o': there are no gradients of Own",
    ),
    "a cell of one's own": (
        lambda: refused(layers.RNN(OwnCell(2), name="r"), training=True),
        "RNN 'r': its cell is <OwnCell 'own_cell",
    ),
    "a cell of another dtype": (
        lambda: refused(layers.RNN(layers.GRUCell(2, dtype="float64", name="g"), name="r")),
        "RNN 'r': it computes in float32 and GRUCell 'g' in float64, expected one dtype",
    ),
    "an activation without a derivative": (
        lambda: refused(layers.Dense(2, activation=np.sin, name="d"), training=True),
        "Dense 'd': activation 'sin' is a function whose derivative is not known",
    ),
    "a layer of one": (
        lambda: refused(layers.Activation(np.sin, name="a"), training=True),
        "Activation 'a': activation 'sin' is a function whose derivative is not known",
    ),
    "gates without a derivative": (
        lambda: refused(layers.Bidirectional(LSTM(recurrent_activation=np.sin)), training=True),
        "LSTM 'forward_l': recurrent_activation 'sin' is a function whose derivative is not known",
    ),
    "the statistics of a batch": (
        lambda: refused(layers.BatchNormalization(name="b"), training=True),
        "BatchNormalization 'b': training is True, expected False, or a layer with trainable=False",
    ),
    "noise": (
        lambda: refused(layers.GaussianNoise(0.5, name="g"), training=True),
        "GaussianNoise 'g': training is True, expected False, because refrnn has the random",
    ),
    "no layer": (
        lambda: training.record("lstm", X), "record: layer is 'lstm', expected a refrnn model"),
    "training by name": (
        lambda: refused(LSTM(), training="yes"), "model 'm': training is 'yes', expected True or"),
    "a state of a model": (
        lambda: refused(LSTM(), initial_state=DY, training=True),
        "model 'm': initial_state is given, expected None, because a call of Sequential takes none",
    ),
    "a mask of a layer that takes none": (
        lambda: training.record(layers.Dense(2, name="d"), X, mask=X),
        "Dense 'd': mask is given, expected None, because a call of Dense takes none",
    ),
    "a memory of what is run whole": (
        lambda: refused(layers.Bidirectional(LSTM(), name="b"), memory={}, training=True),
        "model 'm' cannot be run in chunks: Bidirectional 'b' mixes time steps",
    ),
    "a memory of a layer that has none": (
        lambda: training.record(layers.Dense(2, name="d"), X, memory={}),
        "Dense 'd' cannot be run in chunks: a Dense hands nothing on",
    ),
    "a memory of another form": (
        lambda: training.record(LSTM(), X, memory={}),
        "LSTM 'l': memory is a dict, expected a Memory, what the tape of the chunk before has",
    ),
    "a memory of other rows": (
        lambda: training.record(LSTM(), X, memory=LSTM().start(2)),
        "LSTM 'l': the memory is not of the form and shapes that the layer hands on for 3 rows",
    ),
    "no gradient": (
        lambda: sent_back(None), "model 'm': dy and dmemory are None, expected at least one"),
    "dy of another shape": (
        lambda: sent_back(DY[:1]),
        "model 'm': dy has shape (1, 2), expected (3, 2), that of the output; it is never broadc",
    ),
    "dy ragged": (
        lambda: sent_back([[1.0], [2.0, 3.0]]), "model 'm': dy is not an array of one shape"),
    "dy of one output of two": (
        lambda: two_back(DY), "model 'm': dy is an array (3, 2), expected a dictionary of a, b,"),
    "dy of another name": (
        lambda: two_back({"a": DY, "c": DY}),
        "model 'm': dy is a dictionary of a, c, expected a dictionary of a, b, a gradient for each",
    ),
    "dy of the second output": (
        lambda: two_back({"a": DY, "b": DY}),
        "model 'm': dy of output 1 has shape (3, 2), expected (3, 5, 2), that of the output",
    ),
    "dmemory of another form": (
        lambda: sent_back(DY, {}), "model 'm': dmemory is not of the form and shapes of the"),
    "dmemory where nothing is handed on": (
        lambda: training.gradients(layers.Dense(2, name="d"), X, None, dmemory={}),
        "Dense 'd': dmemory is given, expected None, because it hands nothing on",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_refused_by_name_before_anything_is_run(name: str) -> None:
    call, words = REFUSED[name]
    with pytest.raises(ValueError, match=f"^{re.escape(words)}"):
        call()


def test_complex_gradients_are_refused() -> None:
    with pytest.raises(TypeError, match=r"^model 'm': dy has dtype complex128, expected real"):
        sent_back(DY * 1j)


def test_no_gradient_of_one_output_counts_as_zeros() -> None:
    x = layers.Input((STEPS, 3))
    a, b = layers.LSTM(2)(x), layers.Dense(2)(x)
    model = refrnn.Model(x, [a, b])
    got = training.gradients(model, X, [DY, None])
    want = training.gradients(model, X, [DY, np.zeros((ROWS, STEPS, 2))])
    for p, q in zip(got.weights, want.weights, strict=True):
        np.testing.assert_array_equal(p, q)


def test_nan_goes_back_as_far_as_it_reaches() -> None:
    """Rows are apart; and what a mask leaves out stays so."""
    model = refrnn.Sequential([layers.Masking(), layers.LSTM(2, return_sequences=True)])
    x = np.ones((ROWS, STEPS, 3))
    x[0, 1] = 0
    tape = training.record(model, x)
    dy = np.ones(tape.outputs.shape)
    dy[0, 2] = np.nan
    [dx] = tape.back(dy).inputs
    assert np.isnan(dx[0, [0, 2]]).all()
    assert np.isfinite(dx[1:]).all()
    assert (dx[0, 1] == 0).all()


# --- planted bugs ------------------------------------------------------------------------------


class Bug(NamedTuple):
    """`right` of one function's source put as `wrong`, and the model of MODELS that must notice."""

    function: Callable[..., Any]
    right: str
    wrong: str
    model: str


M, R, W, N, P = merging, recurrent, wrappers, normalization, pooling
BUGS = {
    # models
    "a shared layer's weights overwritten": Bug(
        passing.Sums.add, "part if known is None else known + part", "part", "shared layers"
    ),
    "a shared value's gradient overwritten": Bug(
        models.model, "found[ref] + new if ref in found else new", "new", "shared layers"
    ),
    "a shared value's gradient from its first use": Bug(
        models.model, "found[ref] + new if", "found[ref] if", "shared layers"
    ),
    "layers in the order of the call": Bug(models.model, "reversed(made)", "made", "a chain"),
    "states do not hand gradients on": Bug(
        R.unmasked, "None if unused else part", "None", "encoder and decoder"
    ),
    "an output of a model inside lost": Bug(
        models.model, "zip(refs(graph.outputs), dys, strict=True)",
        "list(zip(refs(graph.outputs), dys, strict=True))[:1]", "shared layers"
    ),
    # recurrent layers
    "the last output taken for the first": Bug(
        R.unmasked, "else (None, doutput)", "else (None, doutput[::-1])", "a chain"
    ),
    "the gradients of returned states lost": Bug(
        R.unmasked, "dstates = dstates or", "dstates =", "several outputs"
    ),
    "returned states swapped": Bug(
        R.unmasked, "doutput, *dstates = dys", "doutput, *dstates = dys[:1] + dys[:0:-1]",
        "several outputs"
    ),
    "a layer's mask lost": Bug(R._chain, "mask=live", "mask=None", "several outputs"),
    "the mask not turned for the second cell": Bug(
        R._chain, "live[:, ::-1]", "live", "stacked cells"
    ),
    "the second cell runs backwards too": Bug(
        R._chain, "backwards, live = False,", "live =", "stacked cells"
    ),
    "the states of cells mixed up": Bug(
        R._chain, "rest.pop() for _ in cell.math.State._fields][::-1]",
        "rest.pop(0) for _ in cell.math.State._fields]", "stacked cells"
    ),
    "a cell's gradient not handed to the one below": Bug(
        R._chain, "dys, last = found.dxs, None", "dys, last = 0 * found.dxs, None", "stacked cells"
    ),
    "the last output's gradient handed down": Bug(
        R._chain, "dys, last = found.dxs, None", "dys = found.dxs", "a chain of one stack"
    ),
    "what is carried forgotten": Bug(R.unmasked, "layer._start(state, B)",
                                     "layer._state(state, B)", "stateful"),
    "zeros for masked steps forgotten": Bug(
        R._chain, "zero_output_for_mask=layer.zero_output_for_mask",
        "zero_output_for_mask=False", "Bidirectional sum"
    ),
    # dropout
    "the mask of inputs not applied on the way back": Bug(
        dropped.run, "found.dxs * mask", "found.dxs", "LSTM's dropout"
    ),
    "the mask of inputs not applied on the way there": Bug(
        dropped.run, "record(xs * mask, state", "record(xs, state", "LSTM's dropout"
    ),
    "rows share their masks": Bug(
        dropped._factor, "mask[row]", "mask[0]", "GRU's recurrent dropout"
    ),
    "gates share their masks": Bug(
        dropped._factor, "masks * gates if len(masks) == 1 else masks", "masks[:1] * gates",
        "LSTM's dropout, gate by gate"
    ),
    "the kernel's gradient not masked": Bug(
        dropped._by_rows, "dkernel * of_x", "dkernel", "LSTM's recurrent dropout"
    ),
    "the recurrent kernel's gradient not masked": Bug(
        dropped._by_rows, "drecurrent * of_h", "drecurrent", "GRU's recurrent dropout, reset before"
    ),
    "masks drawn for the states of inputs": Bug(
        dropped._by_rows, "kernel * of_x, recurrent", "kernel, recurrent",
        "SimpleRNN's dropout"
    ),
    "dropout in inference": Bug(
        R._chain, "masks if training else ([], [])", "masks", "dropout, but in inference"
    ),
    "a dropout's mask forgotten": Bug(
        dropout.dropping, "np.where(factor == 0, 0, dy * factor)", "dy", "dropout"
    ),
    "a dropout not scaled": Bug(dropout.dropping, "dy * factor)", "dy)", "dropout"),
    "another dropout mask": Bug(
        dropout.dropping, "copy.copy(layer._seeds)", "layer._seeds", "dropout"
    ),
    "a dropout of all lets through": Bug(
        dropout.dropping, "np.zeros_like(np.asarray(y))", "np.ones_like(np.asarray(y))",
        "dropout of all inputs"
    ),
    "a shared mask drawn for each step": Bug(
        dropout.dropping, ", layer._noise(x)", "", "dropout"
    ),
    # wrappers
    "backward outputs not turned back": Bug(W.bidirectional, "[turned(db), *", "[db, *",
                                            "Bidirectional concat"),
    "backward outputs not turned for the product": Bug(
        W.bidirectional, "f, turned(b), dy)", "f, b, dy)", "Bidirectional mul"
    ),
    "last outputs turned too": Bug(
        W.bidirectional, "if layer.return_sequences else y", "if y.ndim > 2 else y[::-1]",
        "Bidirectional, last outputs and states"
    ),
    "the product's gradient by itself": Bug(
        W.parted, "(dy * b, dy * f)", "(dy * f, dy * b)", "Bidirectional mul"
    ),
    "the mean's gradient not halved": Bug(
        W.parted, "(dy / 2, dy / 2)", "(dy, dy)", "Bidirectional ave"
    ),
    "the halves of a concatenation swapped": Bug(
        W.parted, "(dy[..., :H], dy[..., H:])", "(dy[..., H:], dy[..., :H])",
        "Bidirectional concat"
    ),
    "one way's gradient of the input lost": Bug(
        W.bidirectional, "dxs[0] + dxs[1]", "dxs[0]", "Bidirectional sum"
    ),
    "states of the two ways mixed up": Bug(
        W.bidirectional, "[[df, *dstates[:states]], [turned(db), *dstates[states:]]]",
        "[[df, *dstates[states:]], [turned(db), *dstates[:states]]]",
        "Bidirectional, last outputs and states"
    ),
    "initial states of the two ways mixed up": Bug(
        W.bidirectional, "[p for flow in flows for", "[p for flow in flows[::-1] for",
        "Bidirectional, begun"
    ),
    "the mask does not reach the layer inside": Bug(
        W.time_distributed, "given.get(\"mask\")", "None", "a grid"
    ),
    "steps and rows exchanged": Bug(
        W.time_distributed, "dys[0].reshape(flat.shape)",
        "np.swapaxes(dys[0], 0, 1).reshape(flat.shape)", "a grid"
    ),
    # layers without time
    "a bias's gradient of one row": Bug(
        dense.dense, "summed_bias(rows)", "rows[0]", "encoder and decoder"
    ),
    "a kernel's gradient of the first step": Bug(
        dense.dense, "product(x.reshape(-1, len(kernel)).T, rows)",
        "product(x[:, 0].T, dz[:, 0])", "encoder and decoder"
    ),
    "a slope taken of the output": Bug(
        dense.dense, "pull(layer)(z, dz)", "pull(layer)(layer.activation.value(z), dz)", "a chain"
    ),
    "a bias left out of the slope": Bug(
        dense.dense, "pull(layer)(z, dz)", "pull(layer)(product(x, kernel), dz)", "a chain"
    ),
    "repeated ids counted once": Bug(
        embedding.embedding,
        "np.add.at(dtable, rows.reshape(-1), dys[0].reshape(-1, layer.output_dim))",
        "dtable[rows.reshape(-1)] = dys[0].reshape(-1, layer.output_dim)", "ids"
    ),
    "a masked step's gradient leaks": Bug(
        embedding.masking, "np.where(live[..., None], dy, np.zeros((), dy.dtype))", "dy",
        "masked merges"
    ),
    "glu's halves exchanged": Bug(
        activation.pull, "axis=-2)", "axis=-2)[..., ::-1]", "activations"
    ),
    "relu's corner taken from below": Bug(
        activation.relu, "x < edge", "x <= edge", "activations"
    ),
    "relu's ceiling taken from above": Bug(activation.relu, "x <= ceiling", "x < ceiling",
                                           "activations"),
    "prelu's slope not summed": Bug(
        activation._along, "total(rows, (0, *axes)).reshape(shape)", "rows[0, :1]", "activations"
    ),
    "softmax along the last axis": Bug(activation.softmax, "(dy * y, axes)", "(dy * y, (-1,))",
                                       "activations"),
    # merging
    "a broadcast input's gradient of one step": Bug(
        M.narrowed, "total(gradient, axes) if axes", "gradient[:, :1] if axes", "masked merges"
    ),
    "a difference's sign": Bug(M.subtract, "[dy, -dy]", "[dy, dy]", "masked merges"),
    "a product's own factor left in": Bug(
        M.multiply, "*factors[k + 1 :]", "*factors[k:]", "masked merges"
    ),
    "a masked factor counts": Bug(
        M.multiply, "np.where(here, x, np.ones((), x.dtype))", "x", "masked merges"
    ),
    "a masked factor has a gradient": Bug(
        M.multiply, "part if here is None else np.where(here, part, np.zeros((), part.dtype))",
        "part", "masked merges"
    ),
    "of equal numbers the second": Bug(
        M.extreme, "chosen == first", "chosen != second", "pooled"
    ),
    "where the first is masked the second gets nothing": Bug(
        M.extreme, "dsecond + np.where(alive, zero, dfirst)", "dsecond", "masked merges"
    ),
    "where the second is masked the first gets nothing": Bug(
        M.extreme, " + np.where(here, zero, dsecond)", "", "masked merges"
    ),
    "pieces of a concatenation in reverse": Bug(
        M.concatenate, "np.split(dy, ends[:-1].tolist(), axis=layer.axis)",
        "np.split(dy, ends[:-1].tolist(), axis=layer.axis)[::-1]", "masked merges"
    ),
    # normalization, pooling, moving
    "the variance taken for a constant": Bug(
        N.layer_normalization, "factor**3 / -2", "factor**3 * 0", "normalized"
    ),
    "the mean taken for a constant": Bug(
        N.layer_normalization, "if not layer.rms_scaling:", "if False:", "normalized"
    ),
    "rms shifted as well": Bug(
        N.layer_normalization, "if not layer.rms_scaling:", "if True:", "normalized"
    ),
    "gamma left out": Bug(
        N.layer_normalization, "dy if gamma is None else dy * gamma", "dy", "normalized"
    ),
    "gamma's gradient by the raw input": Bug(
        N.batch_normalization, "(x - mean) * factor, axes", "x * factor, axes", "normalized"
    ),
    "the length taken for a constant": Bug(
        N.unit_normalization, "- x * dlength", "", "normalized"
    ),
    "a mean over masked steps": Bug(
        P.global_average, "mask is None", "True", "pooled"
    ),
    "the largest number counted twice": Bug(
        P.global_max, "chosen / chosen.sum(axis=layer.pooled, keepdims=True)", "chosen", "pooled"
    ),
    "padding counted in a mean": Bug(
        P.average, "inside.sum(axis=-2, keepdims=True)", "inside.shape[-2]", "pooled"
    ),
    "overlapping windows overwrite": Bug(
        P._gathered, "np.add.at(dx, at, parts)", "dx[at] = parts", "pooled"
    ),
    "the last of equal numbers": Bug(
        P.maximum, "values.argmax(axis=-2)",
        "(values.shape[-2] - 1 - values[..., ::-1, :].argmax(axis=-2))", "pooled"
    ),
    "repeated numbers counted once": Bug(
        moving.moving, "np.add.at(dx, at.reshape(-1), dy.reshape(-1))",
        "dx[at.reshape(-1)] = dy.reshape(-1)", "moved"
    ),
    "padding taken for a number": Bug(moving.moving, "dx[1:]", "dx[:-1]", "moved"),
}  # fmt: skip


def plant(patch: pytest.MonkeyPatch, bug: Bug) -> None:
    """The function itself changes, so whatever holds it has the bug."""
    source = textwrap.dedent(inspect.getsource(bug.function))
    assert source.count(bug.right) == 1, "the source has changed: plant another bug"
    found: dict[str, Any] = {}
    exec(source.replace(bug.right, bug.wrong), vars(inspect.getmodule(bug.function)), found)
    patch.setattr(bug.function, "__code__", found[bug.function.__name__].__code__)


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(tf: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    bug = BUGS[name]
    wanted(tf, bug.model, "float64")
    plant(monkeypatch, bug)
    try:
        check_keras(tf, bug.model)
    except (AssertionError, ValueError, IndexError):  # another shape is noticed too
        return
    pytest.fail("it was not noticed")


def test_no_bug_is_planted_in_the_model_that_notices_it(tf: Any) -> None:
    """Else a bug in a test's eyes could be one that is there: each model is right without it."""
    for name in {bug.model for bug in BUGS.values()}:
        check_keras(tf, name)
