"""The gradients of whole models are those of Keras, of differences, and of the same model in chunks.

Held against `tf.GradientTape` on models that the same lines make of Keras's layers and of refrnn's,
fixed ones and any that Hypothesis can think of, and against central differences; and bugs planted
in the rules are caught, each by a model that is named beside it.
"""

import copy
import inspect
import os
import re
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
from refrnn.layers.rnn import Memory
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

EXAMPLES = 1000 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 30
STEPS = 5

pytestmark = [
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
    """

    make: Callable[[Any], tuple[Any, Any]]
    training: bool = False
    calls: int = 0


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
    a, b = L.Masking()(x), L.Masking(0.5)(z)
    merged = [
        getattr(L, kind)()([a, b, *more])
        for kind in ("Multiply", "Maximum", "Minimum")
        for more in ([], [x], [L.Masking()(z)])
    ]
    merged += [L.Multiply()([x, z, w]), L.Add()([x, w]), L.Average()([x, z, w])]
    merged += [L.Subtract()([x, w]), L.Maximum()([w, x]), L.Concatenate(axis=1)([a, b, w])]
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
    """Of numbers among which some are equal: zeros, by relu."""
    x = floats(L, STEPS, 3)
    y = L.Masking()(x)
    r = L.ReLU()(x)
    return x, [
        L.GlobalAveragePooling1D()(y),
        L.GlobalAveragePooling1D(keepdims=True)(x),
        L.GlobalMaxPooling1D()(r),
        L.MaxPooling1D(3, strides=1, padding="same")(r),
        L.AveragePooling1D(3, strides=2, padding="same")(x),
    ]


def bent(L: Any) -> tuple[Any, Any]:
    x = floats(L, STEPS, 4)
    return x, [
        L.Activation("gelu")(x), L.ReLU(1.0, 0.25, 0.5)(x), L.LeakyReLU(0.1)(x), L.ELU(0.5)(x),
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
    **{f"Bidirectional {mode}": bidirectional(mode) for mode in ("concat", "sum", "mul", "ave", None)},
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
    "pooled": Recipe(pooled),
    "activations": Recipe(bent),
    "normalized": Recipe(normalized),
    "dropout": Recipe(dropping, training=True, calls=1),
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


def arrays_of(model: Any, dtype: str) -> list[Array]:
    """For each input ids, or numbers with steps among them that Masking masks."""
    rng, found = np.random.default_rng(5), []
    for item in model.inputs:
        shape = (ROWS, *item.shape[1:])
        if item.dtype == "int32":
            found.append(np.array([[1, 3, 1, 1, 2], [2, 0, 2, 2, 0], [0, 0, 1, 1, 0]], "int32"))
            continue
        x = rng.normal(size=shape).astype(dtype)
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
        arrays = arrays_of(made(recipe, refrnn, dtype), dtype)
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
        model(x)
    randomize(theirs, seed)
    model.set_weights(theirs.get_weights())
    for layer in (theirs, model):
        reset_seeds(layer)
    model.reset_states()
    try:
        training.record(copy.deepcopy(model), x, training=mode)
    except ValueError as error:
        assert "there are no gradients of" in str(error) or "training is True" in str(error)
        reject()
    fresh = copy.deepcopy(model)
    loss = Loss(copy.deepcopy(model)(x, training=mode), seed)
    got = refrnn_gradients(model, arrays, mode, loss)
    want = keras_gradients(tf, theirs, arrays, mode, loss)
    eps = np.finfo("float32" if "float32" in repr(program) else "float64").eps
    near(got, want, limits(fresh, arrays, mode, loss, got, float(eps)), f"{program} {mode}")


def reset_seeds(model: Any) -> None:
    """Begin with the first mask, whatever was drawn while the model was made."""
    parts = [part for _, part in model.parts()] if isinstance(model, layers.Layer) else None
    for layer in model._flatten_layers() if parts is None else parts:
        if hasattr(layer, "_seeds"):
            layer._seeds.count = 0
        elif hasattr(layer, "seed_generator") and not isinstance(layer, layers.Layer):
            state = layer.seed_generator.state
            state.assign([state.numpy()[0], 0])
        if parts is not None:
            reset_seeds(layer)


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
