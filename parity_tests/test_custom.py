"""A layer or cell of the caller's own gives the numbers of the same class written for Keras.

Each class here is written once, for the layers and the operations of either library: Keras's `ops`
have NumPy's names. float64 within 1e-12 of the largest magnitude, as everywhere.
"""

import copy
import inspect
import itertools
import json
import types
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import refrnn
from refrnn import layers
from refrnn.layers.masks import leaves, mask_of, with_mask
from refrnn.layers.states import alike, map_shapes
from refrnn.verify import compare
from refrnn.verify.chunks import flat

B, T, F = 3, 5, 4
F64 = {"dtype": "float64"}
FIXTURES = Path(__file__).parent / "fixtures" / "keras"


def library(kit: Any, ops: Any) -> types.SimpleNamespace:
    """The caller's classes, for the layers `kit` and the operations `ops`."""

    class Minimal(kit.Layer):
        """The cell of Keras's guide; without a get_config."""

        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = units
            self.state_size = units

        def build(self, input_shape):
            self.kernel = self.add_weight(
                shape=(input_shape[-1], self.units), initializer="uniform", name="kernel"
            )
            self.recurrent_kernel = self.add_weight(
                shape=(self.units, self.units), initializer="uniform", name="recurrent_kernel"
            )

        def call(self, inputs, states):
            h = ops.matmul(inputs, self.kernel) + ops.matmul(states[0], self.recurrent_kernel)
            return h, [h]

    class Leaky(kit.Layer):
        """Two states, an output of a third width, training, a start that is not zero."""

        def __init__(self, units, leak=0.25, **kwargs):
            super().__init__(**kwargs)
            self.units, self.leak = units, leak
            self.state_size = [units, 2]
            self.output_size = units + 2

        def build(self, input_shape):
            shape = (input_shape[-1] + self.units, self.units)
            self.kernel = self.add_weight(name="kernel", shape=shape)
            self.rate = self.add_weight(
                shape=(self.units,), initializer="ones", trainable=False, name="rate"
            )
            self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

        def call(self, inputs, states, training=False):
            h, count = states
            z = ops.matmul(ops.concatenate([inputs, h], axis=-1), self.kernel) + self.bias
            h = self.leak * h + ops.tanh(z) * self.rate * (2.0 if training else 1.0)
            count = count + 1
            return ops.concatenate([h, count], axis=-1), [h, count]

        def get_initial_state(self, batch_size=None):
            return [
                ops.ones((batch_size, self.units), dtype=self.compute_dtype) * 0.5,
                ops.zeros((batch_size, 2), dtype=self.compute_dtype),
            ]

        def get_config(self):
            return {**super().get_config(), "units": self.units, "leak": self.leak}

    class Residual(kit.Layer):
        """A cell around another one, and a layer."""

        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = units
            self.project = kit.Dense(units, activation="tanh", dtype=self.compute_dtype)
            self.inner = kit.GRUCell(units, dtype=self.compute_dtype)
            self.state_size = units

        def build(self, input_shape):
            self.inner.build(input_shape)
            self.project.build(input_shape)

        def call(self, inputs, states, training=False):
            y, states = self.inner(inputs, states)
            return y + self.project(inputs), states

        def get_config(self):
            return {**super().get_config(), "units": self.units}

    class Block(kit.Layer):
        """Layers in attributes, lists and dictionaries, weights between them; no build."""

        def __init__(self, width, **kwargs):
            super().__init__(**kwargs)
            self.width = width
            self.last = kit.Dense(width, name="last", **F64)
            self.steps = [kit.Dense(n, activation="relu", **F64) for n in (3, 2)]
            self.steps.append(kit.Dense(5, **F64))
            self.named = {"z": kit.BatchNormalization(**F64), "a": kit.Dense(4, **F64)}
            self.pair = (kit.LayerNormalization(**F64), [kit.Dense(6, **F64)])
            self.drop = kit.Dropout(0.5, seed=3, **F64)

        def call(self, inputs):
            x = inputs
            for step in self.steps:
                x = step(x)
            x = self.named["a"](self.named["z"](x))
            x = self.pair[1][0](self.pair[0](x))
            return self.last(self.drop(x))

    class Frozen(kit.Layer):
        """Weights of both kinds, made in one order, kept in another; and a layer with its own."""

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.norm = kit.BatchNormalization(**F64)

        def build(self, input_shape):
            n = input_shape[-1]
            self.offset = self.add_weight(shape=(n,), trainable=False, initializer="zeros")
            self.scale = self.add_weight(shape=(n, 1), initializer="ones")
            self.other = self.add_weight(shape=(1, n), trainable=False, initializer="zeros")
            self.final = kit.Dense(2, **F64)
            self.final.build((None, n))
            self.norm.build(input_shape)

        def call(self, inputs):
            x = (
                inputs * ops.reshape(self.scale, (-1,))
                + self.offset
                + ops.reshape(self.other, (-1,))
            )
            return self.final(self.norm(x))

    class Skip(kit.Layer):
        """Takes a mask, and gives another one."""

        def call(self, inputs, mask=None):
            if mask is None:
                return inputs
            return ops.where(ops.expand_dims(mask, -1), inputs * 2.0, -1.0)

        def compute_mask(self, inputs, previous_mask=None):
            return None if previous_mask is None else ops.logical_not(previous_mask)

    class Two(kit.Layer):
        """Two arguments that are arrays, with a build and a mask for each."""

        def build(self, left_shape, right_shape):
            self.kernel = self.add_weight(shape=(left_shape[-1], right_shape[-1]), name="kernel")

        def call(self, left, right, left_mask=None, right_mask=None):
            y = ops.matmul(left, self.kernel) + right
            for mask in (left_mask, right_mask):
                if mask is not None:
                    y = y * ops.expand_dims(ops.cast(mask, "float64"), -1)
            return y

    class Learning(kit.Layer):
        """Says whether it is trained; its inner layers do as it does."""

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inner = Inner(**F64)

        def call(self, inputs, training=None):
            return self.inner(inputs) + (10.0 if training else 0.0)

    class Inner(kit.Layer):
        def call(self, inputs, training=None):
            return inputs + (1.0 if training else 0.0)

    class Shared(kit.Layer):
        """One layer in two attributes: where files have it depends on their names."""

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self._first = kit.Dense(4, **F64)
            self.chain = [kit.Dense(4, **F64), self._first, {"b": kit.Dense(4, **F64)}]

        def call(self, inputs):
            return self.chain[2]["b"](self.chain[1](self.chain[0](self._first(inputs))))

    class Zoneout(kit.LSTMCell):
        """A cell of the library with another call."""

        def call(self, inputs, states, training=False):
            h, (h_new, c_new) = super().call(inputs, states, training=training)
            return h, [0.25 * states[0] + 0.75 * h_new, 0.25 * states[1] + 0.75 * c_new]

    found = {name: kind for name, kind in locals().items() if isinstance(kind, type)}
    return types.SimpleNamespace(**found)


class NumPy:
    """keras.ops where NumPy has another name."""

    cast = staticmethod(lambda x, dtype: x.astype(dtype))

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


mine = library(layers, NumPy())


@pytest.fixture(scope="module")
def theirs(tf: Any) -> Any:
    found = library(tf.keras.layers, tf.keras.ops)
    for name, kind in vars(found).items():
        tf.keras.saving.register_keras_serializable("own", name)(kind)
    return found


def arrays(outputs: Any) -> dict[str, np.ndarray]:
    return flat([np.asarray(leaf) for leaf in leaves(outputs)])


def randomized(layer: Any, rng: np.random.Generator) -> Any:
    """The Keras layer with weights that are not symmetric; variances positive."""
    layer.set_weights([np.abs(rng.normal(0.1, 0.4, w.shape)) + 0.01 for w in layer.get_weights()])
    return layer


CELLS: dict[str, tuple[Any, ...]] = {
    "Minimal": (3,), "Leaky": (3,), "Residual": (3,), "Zoneout": (3,),
}  # fmt: skip


def cell(kinds: Any, name: str) -> Any:
    return getattr(kinds, name)(*CELLS[name], **F64)


def masked(rng: np.random.Generator) -> np.ndarray:
    return rng.random((B, T)) < 0.6


# --- cells ---


@pytest.mark.parametrize("mask", [False, True], ids=["", "masked"])
@pytest.mark.parametrize("backwards", [False, True], ids=["", "backwards"])
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_in_an_rnn_equals_keras(
    tf: Any, theirs: Any, rng: np.random.Generator, name: str, backwards: bool, mask: bool
) -> None:
    options = {"return_sequences": True, "return_state": True, "go_backwards": backwards, **F64}
    x, given = rng.normal(size=(B, T, F)), {"mask": masked(rng)} if mask else {}
    source = tf.keras.layers.RNN(cell(theirs, name), **options)
    layer = layers.RNN(cell(mine, name), **options)
    source(tf.tf.constant(x))
    layer(x)
    layer.set_weights(randomized(source, rng).get_weights())
    want = source(tf.tf.constant(x), **{k: tf.tf.constant(m) for k, m in given.items()})
    got = layer(x, **given)
    compare(arrays(got), arrays(want), 1e-12, name)
    if not backwards:
        pieces = [(x[:, t], {k: m[:, t] for k, m in given.items()}) for t in (np.s_[:2], np.s_[2:])]
        first, memory = layer.advance(pieces[0][0], layer.start(B), **pieces[0][1])
        second, _ = layer.advance(pieces[1][0], memory, **pieces[1][1])
        assert np.array_equal(np.concatenate([first[0], second[0]], axis=1), got[0])


@pytest.mark.parametrize("training", [False, True])
def test_a_stack_of_cells_passes_training_to_those_that_take_it(
    tf: Any, theirs: Any, rng: np.random.Generator, training: bool
) -> None:
    def stack(kit: Any, kinds: Any) -> Any:
        cells = [cell(kinds, name) for name in CELLS] + [kit.SimpleRNNCell(2, **F64)]
        return kit.RNN(kit.StackedRNNCells(cells, **F64), return_state=True, **F64)

    x, mask = rng.normal(size=(B, T, F)), masked(rng)
    source, layer = stack(tf.keras.layers, theirs), stack(layers, mine)
    source(tf.tf.constant(x))
    layer(x)
    layer.set_weights(randomized(source, rng).get_weights())
    want = source(tf.tf.constant(x), mask=tf.tf.constant(mask), training=training)
    compare(arrays(layer(x, mask=mask, training=training)), arrays(want), 1e-12, str(training))


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_in_a_pair_of_directions_equals_keras(
    tf: Any, theirs: Any, rng: np.random.Generator, name: str
) -> None:
    """Bidirectional copies the cell, by its config."""

    def pair(kit: Any, kinds: Any) -> Any:
        inner = kit.RNN(cell(kinds, name), return_sequences=True, return_state=True, **F64)
        return kit.Bidirectional(inner, **F64)

    x, mask = rng.normal(size=(B, T, F)), masked(rng)
    source, layer = pair(tf.keras.layers, theirs), pair(layers, mine)
    source(tf.tf.constant(x))
    layer(x)
    layer.set_weights(randomized(source, rng).get_weights())
    want = source(tf.tf.constant(x), mask=tf.tf.constant(mask))
    compare(arrays(layer(x, mask=mask)), arrays(want), 1e-12, name)


def test_a_pair_copies_a_cell_with_functions_and_a_built_cell() -> None:
    inner = layers.RNN(layers.GRUCell(3, activation=lambda x: x / (1 + abs(x))))
    pair = layers.Bidirectional(inner)
    assert pair.backward_layer.cell.activation == inner.cell.activation
    built = layers.RNN(mine.Minimal(3))
    built(np.ones((1, 2, 4)))
    pair = layers.Bidirectional(built)
    assert [w.shape for w in pair.weights] == [(4, 3), (3, 3)] * 2
    assert not any(a is b for a in pair.weights for b in built.weights)


def test_a_cell_computes_in_its_own_dtype_as_in_keras(
    tf: Any, theirs: Any, rng: np.random.Generator
) -> None:
    x = rng.normal(size=(B, T, F))
    source, layer = (
        kit.RNN(kinds.Minimal(3), return_state=True, **F64)
        for kit, kinds in ((tf.keras.layers, theirs), (layers, mine))
    )
    want = source(tf.tf.constant(x))
    layer.set_weights(source.get_weights())
    got = layer(x)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == np.asarray(b).dtype == np.float64
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)  # float32, sums of 7
        assert np.array_equal(a, a.astype(np.float32))


def test_a_cell_cannot_write_into_what_it_is_given() -> None:
    class Careless(layers.Layer):
        state_size = 3

        def call(self, inputs: Any, states: Any) -> Any:
            states[0][:] += inputs
            return states[0], states

    with pytest.raises(ValueError, match="read-only"):
        layers.RNN(Careless())(np.ones((2, 3, 3)))


def test_a_stateful_rnn_of_a_cell_carries_its_states(
    tf: Any, theirs: Any, rng: np.random.Generator
) -> None:
    x = rng.normal(size=(B, T, F))
    source, layer = (
        kit.RNN(kinds.Leaky(3, **F64), stateful=True, **F64)
        for kit, kinds in ((tf.keras.layers, theirs), (layers, mine))
    )
    source(tf.tf.constant(x))
    layer(x)
    layer.set_weights(randomized(source, rng).get_weights())
    for carried, state in zip(layer.states, source.states, strict=True):
        state.assign(carried)
    for _ in range(2):
        compare(arrays(layer(x)), arrays(source(tf.tf.constant(x))), 1e-12, "stateful")


def test_states_of_another_number_are_refused() -> None:
    class Forgetful(mine.Leaky):  # type: ignore[name-defined, misc]
        def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
            return super().call(inputs, states)[0], [states[0]]

    with pytest.raises(
        ValueError, match=r"'r': its cell returned other states .* a list of 1, exp"
    ):
        layers.RNN(Forgetful(3), name="r")(np.ones((1, 2, 3)))


# --- layers ---


@pytest.mark.parametrize("training", [False, True])
def test_layers_inside_are_found_in_keras_order(
    tf: Any, theirs: Any, rng: np.random.Generator, training: bool
) -> None:
    """The shapes are all different, so that weights in another order would not fit."""
    x = rng.normal(size=(B, 7))
    source, layer = theirs.Block(3, **F64), mine.Block(3, **F64)
    source(tf.tf.constant(x))
    layer(x)
    randomized(source, rng)
    assert [w.shape for w in layer.weights] == [w.shape for w in source.weights]
    layer.set_weights(source.get_weights())
    if not training:
        want = source(tf.tf.constant(x))
        compare(arrays(layer(x)), arrays(want), 1e-12, "Block")
    for a, b in zip(layer.get_weights(), source.get_weights(), strict=True):
        assert np.array_equal(a, b)


def test_weights_that_are_not_trained_come_last_among_ones_own(
    tf: Any, theirs: Any, rng: np.random.Generator
) -> None:
    x = rng.normal(size=(B, 7))
    source, layer = theirs.Frozen(**F64), mine.Frozen(**F64)
    source(tf.tf.constant(x))
    layer(x)
    randomized(source, rng)
    assert [w.shape for w in layer.weights] == [w.shape for w in source.weights]
    layer.set_weights(source.get_weights())
    compare(arrays(layer(x)), arrays(source(tf.tf.constant(x))), 1e-12, "Frozen")


def test_a_layer_in_two_attributes_has_its_weights_once(tf: Any) -> None:
    def made(kit: Any) -> Any:
        class Twice(kit.Layer):
            def __init__(self) -> None:
                super().__init__()
                self.one = kit.Dense(2)
                self.other = [self.one, kit.Dense(3)]

            def call(self, x: Any) -> Any:
                return self.other[1](self.one(x))

        return Twice()

    x = np.ones((1, 4), np.float32)
    source, layer = made(tf.keras.layers), made(layers)
    source(x)
    layer(x)
    assert [w.shape for w in layer.weights] == [w.shape for w in source.weights]


def test_a_mask_is_passed_where_call_takes_it_and_comes_out_as_compute_mask_says(
    tf: Any, theirs: Any, rng: np.random.Generator
) -> None:
    from keras.src.backend import get_keras_mask, set_keras_mask

    x, mask = rng.normal(size=(B, T, F)), masked(rng)
    tensor = tf.tf.constant(x)
    set_keras_mask(tensor, tf.tf.constant(mask))
    want, got = theirs.Skip(**F64)(tensor), mine.Skip(**F64)(with_mask(x, mask))
    compare(arrays(got), arrays(want), 1e-12, "Skip")
    assert np.array_equal(mask_of(got), get_keras_mask(want))
    assert np.array_equal(mine.Skip(**F64)(x, mask=mask), got)


def test_a_mask_that_comes_from_inside_is_kept(rng: np.random.Generator) -> None:
    class Inside(layers.Layer):
        supports_masking = True

        def __init__(self) -> None:
            super().__init__()
            self.masking = layers.Masking()

        def call(self, inputs: Any) -> Any:
            return self.masking(inputs)

    x = rng.normal(size=(B, T, F)).astype(np.float32)
    x[0, 2:] = 0
    want = mask_of(layers.Masking()(x))
    assert np.array_equal(mask_of(Inside()(x)), want)
    assert np.array_equal(mask_of(Inside()(with_mask(x, np.ones((B, T), bool)))), want)


def test_each_of_two_arguments_has_its_shape_and_its_mask(
    tf: Any, theirs: Any, rng: np.random.Generator
) -> None:
    from keras.src.backend import set_keras_mask

    left, right, mask = rng.normal(size=(B, T, F)), rng.normal(size=(B, T, 2)), masked(rng)
    tensors = tf.tf.constant(left), tf.tf.constant(right)
    set_keras_mask(tensors[1], tf.tf.constant(mask))
    source, layer = theirs.Two(**F64), mine.Two(**F64)
    want = source(*tensors)
    layer(left, right)
    layer.set_weights(source.get_weights())
    compare(arrays(layer(left, with_mask(right, mask))), arrays(want), 1e-12, "Two")


@pytest.mark.parametrize("training", [None, False, True])
def test_training_holds_inside(tf: Any, theirs: Any, training: bool | None) -> None:
    x = np.zeros((1, 2))
    want = theirs.Learning(**F64)(tf.tf.constant(x), training=training)
    assert np.array_equal(mine.Learning(**F64)(x, training=training), want)
    assert np.array_equal(mine.Skip(**F64)(x, training=training), x)  # call does not take it


def test_dropout_inside_drops_what_keras_drops(
    tf: Any, theirs: Any, rng: np.random.Generator
) -> None:
    class Drops(layers.Layer):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.drop = layers.Dropout(0.5, seed=3, **F64)

        def call(self, inputs: Any, training: Any = None) -> Any:
            return self.drop(inputs)

    x = rng.normal(size=(B, 8))
    layer, want = Drops(**F64), layers.Dropout(0.5, seed=3, **F64)(x, training=True)
    assert np.array_equal(layer(x, training=True), want)
    assert np.array_equal(layer(x), x)


def test_inputs_are_cast_to_the_layers_dtype_as_in_keras(tf: Any) -> None:
    seen: list[Any] = []

    def made(kit: Any) -> Any:
        class Looks(kit.Layer):
            def call(self, inputs: Any, other: Any = None) -> Any:
                seen.append([str(np.asarray(x).dtype) for x in (*inputs, other)])
                return inputs[0]

        return Looks()

    given = [np.ones((2, 3)), np.ones((2, 3), int), np.ones((2, 3), np.float16)]
    made(tf.keras.layers)(given, other=np.ones(2))
    made(layers)(given, other=np.ones(2))
    assert seen[0] == seen[1] == ["float32", "int64", "float32", "float32"]


@pytest.mark.filterwarnings("ignore:.build... was called on layer:UserWarning")  # of Keras
@pytest.mark.parametrize("inner", ["Block", "Frozen"])
def test_a_layer_in_every_step_and_in_a_chain_equals_keras(
    tf: Any, theirs: Any, rng: np.random.Generator, inner: str
) -> None:
    def chain(kit: Any, kinds: Any, Sequential: Any) -> Any:
        one = getattr(kinds, inner)(**({"width": 3} if inner == "Block" else {}), **F64)
        return Sequential(
            [kit.LSTM(7, return_sequences=True, **F64), kit.TimeDistributed(one, **F64)]
        )

    x = rng.normal(size=(B, T, F))
    source = chain(tf.keras.layers, theirs, tf.keras.Sequential)
    model = chain(layers, mine, refrnn.Sequential)
    source(tf.tf.constant(x))
    model(x)
    randomized(source, rng)
    model.set_weights(source.get_weights())
    compare(arrays(model(x)), arrays(source(tf.tf.constant(x))), 1e-12, inner)


# --- building ---


def test_build_is_called_once_with_the_shape_of_the_first_argument() -> None:
    seen: list[Any] = []

    class Built(layers.Layer):
        def build(self, input_shape: Any) -> None:
            seen.append(input_shape)

        def call(self, inputs: Any, other: Any = None) -> Any:
            return self.built

    layer = Built()
    assert layer(np.ones((2, 3)), np.ones((4, 5))) is True
    layer(np.ones((6, 3)))
    assert seen == [(2, 3)]
    layer = Built()
    layer.build((None, 3))
    layer(np.ones((2, 3)))
    assert seen == [(2, 3), (None, 3)]
    layer = Built()
    layer([np.ones((2, 3)), np.ones((2, 4))])
    assert seen[2:] == [[(2, 3), (2, 4)]]


def test_weights_make_a_layer_that_was_never_called(rng: np.random.Generator) -> None:
    cell = mine.Minimal(3, **F64)
    kernels = [rng.normal(size=(4, 3)), rng.normal(size=(3, 3))]
    layer = layers.RNN(cell, **F64)
    layer.set_weights(kernels)
    assert all(np.array_equal(a, b) for a, b in zip(layer.get_weights(), kernels, strict=True))
    assert cell.kernel is layer.weights[0]
    block = mine.Block(3, **F64)
    block.build((None, 7))
    assert len(block.weights) == len(block.weight_names) == 18


def test_weights_that_do_not_tell_what_for_are_refused(rng: np.random.Generator) -> None:
    kernels = [rng.normal(size=shape) for shape in ((7, 3), (3,), (3,))]
    layer = mine.Leaky(3, name="a")
    text = r"'a': kernel has shape \(7, 3\), expected \(10, 3\), the shape for 7 features; if they"
    with pytest.raises(ValueError, match=text):
        layer.set_weights(kernels)
    layer.build((None, 4))
    layer.set_weights(kernels)
    assert layer.get_build_config() == {"input_shape": (None, 4)}


def test_a_weight_is_one_array_and_read_only(rng: np.random.Generator) -> None:
    layer = mine.Minimal(3)
    layer.build((None, 4))
    kept = layer.kernel
    new = [rng.normal(size=w.shape).astype(np.float32) for w in layer.weights]
    layer.set_weights(new)
    assert kept is layer.kernel is layer.weights[0]
    assert np.array_equal(kept, new[0])
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 1
    again = copy.deepcopy(layer)
    assert again.kernel is again.weights[0] is not kept


ADD_WEIGHT = {
    "Keras's order": lambda layer: layer.add_weight((2, 3), "ones", "float32"),
    "name first": lambda layer: layer.add_weight(name="w", shape=(2, 3), initializer="ones"),
    "a list as shape": lambda layer: layer.add_weight(shape=[2, 3], initializer="ones"),
    "with a regularizer": lambda layer: layer.add_weight(
        shape=(2, 3), initializer="ones", regularizer="l2", constraint="non_neg"
    ),
}


@pytest.mark.parametrize("way", ADD_WEIGHT)
def test_add_weight_takes_what_keras_takes(tf: Any, way: str) -> None:
    want = ADD_WEIGHT[way](tf.keras.layers.Layer())
    got = ADD_WEIGHT[way](layers.Layer())
    assert np.array_equal(got, np.asarray(want))
    assert layers.Layer().add_weight(initializer="ones").shape == ()


# --- configs ---


@pytest.mark.parametrize("name", ["Minimal", "Leaky", "Block", "Frozen"])
def test_a_config_is_that_of_keras_and_makes_the_same_layer(
    tf: Any, theirs: Any, name: str
) -> None:
    arguments = {"Minimal": {"units": 3}, "Block": {"width": 3}, "Frozen": {}}.get(
        name, {"units": 3, "leak": 0.5}
    )
    source, layer = (
        getattr(kinds, name)(name="same", **F64, **arguments) for kinds in (theirs, mine)
    )
    assert layer.get_config() == source.get_config()
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert type(layer).from_config(source.get_config()).get_config() == layer.get_config()


def test_a_config_of_what_is_no_plain_value_is_refused() -> None:
    class Table(layers.Layer):
        def __init__(self, table: Any, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.table = table

        def call(self, inputs: Any) -> Any:
            return inputs

    with pytest.raises(NotImplementedError, match=r"Table 'a': .* expected a get_config"):
        Table(np.ones(3), name="a").get_config()


def test_a_class_without_the_bases_init_is_told_so() -> None:
    class Silent(layers.Layer):
        def __init__(self) -> None:
            pass

        def call(self, inputs: Any) -> Any:
            return inputs

    with pytest.raises(
        RuntimeError, match=r"Silent: __init__ of the base was not called, expected"
    ):
        Silent()(np.ones(3))


def test_refrnns_own_layers_keep_their_arguments_and_a_subclass_has_its_own() -> None:
    with pytest.raises(ValueError, match="Dense: unknown argument unit=3"):
        layers.Dense(3, unit=3)
    with pytest.raises(ValueError, match="Minimal: unknown argument leek=3"):
        mine.Minimal(3, leek=3)
    assert list(inspect.signature(mine.Leaky).parameters) == ["units", "leak", "kwargs"]
    assert list(inspect.signature(mine.Zoneout).parameters)[:2] == ["units", "activation"]


REGULARIZED = ["RNN", "Bidirectional", "TimeDistributed", "Flatten", "Add", "Masking", "ReLU"]


@pytest.mark.parametrize("value", [None, "l2"])
@pytest.mark.parametrize(
    "kind", [*REGULARIZED, "Embedding", "LSTM", "GRUCell", "BatchNormalization"]
)
def test_every_layer_takes_an_activity_regularizer(tf: Any, kind: str, value: str | None) -> None:
    def made(kit: Any) -> Any:
        inner = {
            "RNN": lambda: [kit.GRUCell(2)],
            "Bidirectional": lambda: [kit.GRU(2)],
            "TimeDistributed": lambda: [kit.Dense(2)],
            "Embedding": lambda: [3, 2],
            "LSTM": lambda: [2],
            "GRUCell": lambda: [2],
        }.get(kind, list)()
        return getattr(kit, kind)(*inner, activity_regularizer=value)

    config, want = made(layers).get_config(), made(tf.keras.layers).get_config()
    assert ("activity_regularizer" in config) == ("activity_regularizer" in want)
    assert config.get("activity_regularizer") == value


# --- files and live objects ---


def model_of(name: str, kit: Any, kinds: Any, Sequential: Any, Model: Any) -> Any:
    """A model with the caller's classes in every place where a config holds a layer."""
    options = {"return_sequences": True, **F64}
    chains = {
        "cells": lambda: [kit.RNN(kinds.Minimal(3, **F64), **options)],
        "stack": lambda: [
            kit.RNN(kit.StackedRNNCells([kinds.Leaky(3, **F64), kinds.Minimal(2, **F64),
                                         kinds.Minimal(3, **F64)], **F64), **options)
        ],
        "pair": lambda: [kit.Bidirectional(kit.RNN(kinds.Leaky(3, **F64), **options), **F64)],
        "inside": lambda: [kit.RNN(kinds.Residual(3, **F64), **options)],
        "layers": lambda: [
            kinds.Frozen(name="a", **F64), kinds.Block(3, name="b", trainable=False, **F64),
            kinds.Frozen(name="c", **F64),
        ],
        "each": lambda: [kit.TimeDistributed(kinds.Frozen(**F64), **F64)],
        "shared": lambda: [kinds.Shared(**F64)],
        "subclass": lambda: [kit.RNN(kinds.Zoneout(3, **F64), **options), kinds.Skip(**F64)],
    }  # fmt: skip
    if name in chains:
        return Sequential([kit.Input((T, F), dtype="float64"), *chains[name]()])
    left, right = (kit.Input((T, n), dtype="float64", name=f"in{n}") for n in (F, 2))
    joined = kinds.Two(**F64)(left, right)
    return Model([left, right], kinds.Two(**F64)(joined, right))


MODELS = ["cells", "stack", "pair", "inside", "layers", "each", "shared", "subclass", "graph"]
SAVING = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning", "ignore:.build... was called:UserWarning"
)


@SAVING
@pytest.mark.parametrize("suffix", [".keras", ".h5", "live"])
@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_of_ones_own_classes_gives_keras_numbers(
    tf: Any, theirs: Any, rng: np.random.Generator, tmp_path: Path, name: str, suffix: str
) -> None:
    keras = tf.keras
    kit = types.SimpleNamespace(**{**vars(keras.layers), "Input": keras.Input})
    source = model_of(name, kit, theirs, keras.Sequential, keras.Model)
    x = [rng.normal(size=(B, T, n)) for n in ((F, 2) if name == "graph" else (F,))]
    tensors = [tf.tf.constant(part) for part in x]
    source(tensors if len(x) > 1 else tensors[0])
    randomized(source, rng)
    want = source(tensors if len(x) > 1 else tensors[0])
    if suffix == "live":
        with layers.custom_object_scope(vars(mine)):
            model = refrnn.from_keras(source)
    else:
        path = tmp_path / f"model{suffix}"
        source.save(path)
        named = {f"own>{kind}": value for kind, value in vars(mine).items()}
        model = refrnn.load_model(path, custom_objects=named if len(name) % 2 else vars(mine))
    compare(arrays(model(x if len(x) > 1 else x[0])), arrays(want), 1e-12, name)


@SAVING
def test_a_cell_of_a_file_that_does_not_say_for_what_is_built_for_the_models_input(
    tf: Any, theirs: Any, rng: np.random.Generator, tmp_path: Path
) -> None:
    """As in Keras 2; the rows of this cell's kernel are not the features of its input."""
    kit, path = tf.keras.layers, tmp_path / "model.h5"
    pair = kit.Bidirectional(kit.RNN(theirs.Leaky(3, **F64), **F64), **F64)
    source = tf.keras.Sequential([tf.keras.Input((None, F), dtype="float64"), pair])
    x = rng.normal(size=(B, T, F))
    randomized(source, rng).save(path)

    def without(structure: Any) -> Any:
        if isinstance(structure, dict):
            return {k: without(part) for k, part in structure.items() if k != "build_config"}
        return [without(part) for part in structure] if isinstance(structure, list) else structure

    with h5py.File(path, "r+") as file:
        stored = json.loads(file.attrs["model_config"])
        file.attrs["model_config"] = json.dumps(without(stored))
    model = refrnn.load_model(path, custom_objects={"Leaky": mine.Leaky})
    compare(arrays(model(x)), arrays(source(tf.tf.constant(x))), 1e-12, "pair")


@SAVING
def test_the_class_may_be_called_otherwise_than_in_the_file(
    tf: Any, theirs: Any, rng: np.random.Generator, tmp_path: Path
) -> None:
    """The folders of a list of cells are called after their classes."""
    kit = tf.keras.layers
    source = tf.keras.Sequential(
        [tf.keras.Input((T, F)), kit.RNN([theirs.Minimal(2), kit.GRUCell(3), theirs.Minimal(4)])]
    )
    source.save(tmp_path / "model.keras")

    class Another(mine.Minimal):  # type: ignore[name-defined, misc]
        pass

    model = refrnn.load_model(tmp_path / "model.keras", custom_objects={"Minimal": Another})
    for got, want in zip(model.weights, source.get_weights(), strict=True):
        assert np.array_equal(got, want)


@SAVING
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_config_may_be_without_a_name(tf: Any, tmp_path: Path, suffix: str) -> None:
    def made(kit: Any) -> Any:
        class Bare(kit.Layer):
            def __init__(self, factor: Any) -> None:
                super().__init__()
                self.factor = factor

            def call(self, inputs: Any) -> Any:
                return inputs * self.factor

            def get_config(self) -> Any:
                return {"factor": self.factor}

        return Bare

    path = tmp_path / f"model{suffix}"
    tf.keras.Sequential([tf.keras.Input((3,)), made(tf.keras.layers)(3.0)]).save(path)
    model = refrnn.load_model(path, custom_objects={"Bare": made(layers)})
    assert np.array_equal(model(np.ones((1, 3))), np.full((1, 3), 3.0))


@pytest.mark.parametrize("key", ["MinimalCell", "lab>MinimalCell"])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_of_keras_with_a_registered_cell_loads(suffix: str, key: str) -> None:
    path = FIXTURES / "18_custom_cell"
    stored = np.load(path.with_suffix(".npz"))
    model = refrnn.load_model(path.with_suffix(suffix), custom_objects={key: mine.Minimal})
    compare({"y": model(stored["in_x"])}, {"y": stored["out0"]}, 1e-6, suffix)
    refrnn.files.load_weights(model, path.with_suffix(".weights.h5"))
    compare({"y": model(stored["in_x"])}, {"y": stored["out0"]}, 1e-6, "weights")


def test_what_the_caller_does_not_give_is_refused_by_name() -> None:
    path = FIXTURES / "18_custom_cell.keras"
    text = (
        r"is a 'lab>MinimalCell' of module None, .* pass custom_objects=\{'MinimalCell': the class"
    )
    for given in (None, {}, {"Minimal": mine.Minimal}, {"other>MinimalCell": mine.Minimal}):
        with pytest.raises(refrnn.files.FileError, match=text):
            refrnn.load_model(path, custom_objects=given)
    entry = {
        "class_name": "Mine",
        "module": None,
        "registered_name": "Mine",
        "config": {"name": "a"},
    }
    with pytest.raises(
        ValueError, match=r"layer 'a' is a Mine, which .* pass custom_objects={'Mine'"
    ):
        layers.deserialize(entry)


def test_a_class_that_cannot_be_refrnns_is_refused(tf: Any, theirs: Any) -> None:
    class Bare(layers.Layer):
        def __init__(self) -> None:
            super().__init__()

    path = FIXTURES / "18_custom_cell.keras"
    for given, text in (
        (theirs.Minimal, "a class of Keras, expected the same class written for refrnn"),
        (3, "'MinimalCell' is 3, expected a class or a function by its name"),
        (dict, "'MinimalCell' is <class 'dict'>, expected a class with from_config"),
        (Bare, "Bare.from_config does not take the stored config of 'MinimalCell', which"),
    ):
        with pytest.raises(ValueError, match=text):
            refrnn.load_model(path, custom_objects={"MinimalCell": given})


def test_from_config_is_given_what_is_stored(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Looks(mine.Minimal):  # type: ignore[name-defined, misc]
        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Any:
            seen.append(config)
            return cls(config["units"])

    path = FIXTURES / "18_custom_cell.keras"
    with zipfile.ZipFile(path) as archive:
        stored = json.loads(archive.read("config.json"))["config"]["layers"][1]["config"]["cell"]
    model = refrnn.load_model(path, custom_objects={"MinimalCell": Looks})
    assert seen == [stored["config"]]
    assert type(model.layers[0].cell) is Looks


@SAVING
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_an_activation_of_ones_own_is_found(
    tf: Any, rng: np.random.Generator, tmp_path: Path, suffix: str
) -> None:
    keras = tf.keras

    def soft(x: Any) -> Any:
        return x / (1 + abs(x))

    @keras.saving.register_keras_serializable("own")
    def hard(x: Any) -> Any:
        return keras.ops.relu(x) * 2

    kit = keras.layers
    source = keras.Sequential(
        [
            keras.Input((T, F), dtype="float64"),
            kit.LSTM(3, recurrent_activation=hard, return_sequences=True, **F64),
            kit.RNN([kit.SimpleRNNCell(2, activation=soft, **F64)], return_sequences=True, **F64),
            kit.Dense(2, activation=soft, **F64),
        ]
    )
    x = rng.normal(size=(B, T, F))
    randomized(source, rng)
    path = tmp_path / f"model{suffix}"
    source.save(path)
    with pytest.raises(refrnn.files.FileError, match=r"holds a function, .* pass custom_objects="):
        refrnn.load_model(path)
    given = {"soft": soft, "own>hard": lambda x: np.maximum(x, 0) * 2}
    model = refrnn.load_model(path, custom_objects=given)
    compare(arrays(model(x)), arrays(source(tf.tf.constant(x))), 1e-6, suffix)


def test_a_scope_ends_and_an_inner_one_adds() -> None:
    entry = layers.serialize(mine.Minimal(3, name="a"))
    assert entry["class_name"] == entry["registered_name"] == "Minimal"
    with layers.custom_object_scope({"Minimal": mine.Minimal}):
        with layers.custom_object_scope({"Leaky": mine.Leaky}):
            assert type(layers.deserialize(entry)) is mine.Minimal
        stored = layers.RNN(mine.Minimal(3)).get_config()
        assert type(layers.RNN.from_config(stored).cell) is mine.Minimal
    with pytest.raises(ValueError, match="which refrnn does not have"):
        layers.deserialize(entry)


def test_a_name_of_keras_itself_is_not_the_callers() -> None:
    """As in Keras: a class of its own in a .keras file is never another one."""
    stored = layers.serialize(layers.LSTM(2))
    with layers.custom_object_scope({"LSTM": mine.Minimal}):
        assert type(layers.deserialize(stored)) is layers.LSTM


# --- several sequences at once ---


def pack(form: str, one: Any, two: Any) -> Any:
    return {"tuple": (one, two), "dict": {"b": two, "a": one}, "deep": (one, {"in": [two]})}[form]


class NestedCell(layers.Layer):
    """That of fixtures/nested/write.py."""

    def __init__(self, form: str, declares: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.form = form
        self.state_size = [2, TensorShape([3, 2])]
        if declares:
            self.output_size = pack(form, 2, TensorShape([3, 2]))

    def build(self, input_shapes: Any) -> None:
        (_, i1), (_, i2, i3) = shapes_in(input_shapes)
        self.kernel = self.add_weight(name="kernel", shape=(i1, 2))
        self.kernel_2 = self.add_weight(name="kernel_2", shape=(i2, i3, 3, 2))

    def call(self, inputs: Any, states: Any) -> Any:
        one, two = leaves(inputs)
        s, s2 = states
        y = np.tanh(one @ self.kernel + s)
        y2 = np.tanh(np.einsum("bij,ijkl->bkl", two, self.kernel_2) + s2)
        return pack(self.form, y + 1, y2 * 2), [y, y2]


class TensorShape:
    """What RNN asks of TensorFlow's."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes

    def as_list(self) -> list[int]:
        return self.sizes


def shapes_in(shapes: Any) -> list[Any]:
    found: list[Any] = []
    map_shapes(found.append, shapes)
    return sorted(found, key=len)


NESTED = np.load(FIXTURES.parent / "nested" / "nested.npz")
CASES = [
    (form, flags, masked)
    for form in ("tuple", "dict", "deep")
    for flags in itertools.product((0, 1), repeat=3)
    for masked in (0, 1)
]


def nested_rnn(form: str, flags: Any = (1, 0, 0), declares: bool = True, **options: Any) -> Any:
    names = ("return_sequences", "go_backwards", "zero_output_for_mask")
    cell = NestedCell(form, declares, **F64)
    layer = layers.RNN(
        cell, return_state=True, **F64, **dict(zip(names, map(bool, flags), strict=True)), **options
    )
    layer.build(pack(form, (None, None, 3), (None, None, 2, 4)))
    layer.set_weights([NESTED["w0"], NESTED["w1"]])
    return layer


X, STATE = [NESTED["x0"], NESTED["x1"]], [NESTED["s0"], NESTED["s1"]]


@pytest.mark.parametrize("declares", [True, False], ids=["declared", "found"])
@pytest.mark.parametrize(("form", "flags", "masked"), CASES, ids=str)
def test_several_sequences_give_the_numbers_of_keras_2(
    form: str, flags: Any, masked: int, declares: bool
) -> None:
    """Twice, the second call from the state of the first."""
    layer = nested_rnn(form, flags, declares, stateful=True)
    given = {"mask": NESTED["mask"]} if masked else {}
    for call in range(2):
        got = layer(pack(form, *X), **given, **({} if call else {"initial_state": STATE}))
        key = f"{form}|{''.join(map(str, flags))}|{masked}|{call}"
        want = {str(k): NESTED[f"{key}|{k}"] for k in range(4)}
        compare({str(k): part for k, part in enumerate(leaves(got))}, want, 1e-12, key)
        assert alike(got[0], pack(form, *leaves(got[0])))


@pytest.mark.parametrize("form", ["tuple", "dict", "deep"])
@pytest.mark.parametrize("masked", [False, True])
def test_chunks_of_several_sequences_are_the_whole(form: str, masked: bool) -> None:
    layer, mask = nested_rnn(form), NESTED["mask"] if masked else None
    whole = leaves(layer(pack(form, *X), initial_state=STATE, mask=mask))
    memory, parts = layer.start(B, STATE), []
    for piece in (np.s_[:2], np.s_[2:2], np.s_[2:3], np.s_[3:]):
        here = None if mask is None else mask[:, piece]
        got, memory = layer.advance(pack(form, *(x[:, piece] for x in X)), memory, here)
        parts.append(leaves(got))
    for k in (0, 1):
        assert np.array_equal(np.concatenate([part[k] for part in parts], axis=1), whole[k])
    for k in (2, 3):
        assert np.array_equal(parts[-1][k], whole[k])


def test_the_mask_of_the_first_sequence_is_that_of_all() -> None:
    layer, mask = nested_rnn("dict"), NESTED["mask"]
    want = layer({"b": X[1], "a": X[0]}, mask=mask)
    got = layer({"b": X[1], "a": with_mask(X[0], mask)})  # "a" is the first by name
    assert all(np.array_equal(a, b) for a, b in zip(leaves(got), leaves(want), strict=True))
    assert np.array_equal(mask_of(got[0]["a"]), mask)
    assert np.array_equal(mask_of(got[0]["b"]), mask)
    assert mask_of(got[1]) is None
    ignored = layer({"b": with_mask(X[1], mask), "a": X[0]})
    assert np.array_equal(ignored[1], layer({"b": X[1], "a": X[0]})[1])


def test_no_steps_of_several_sequences_keep_the_state() -> None:
    layer = nested_rnn("tuple")
    got = layer(tuple(x[:, :0] for x in X), initial_state=STATE)
    assert [part.shape for part in got[0]] == [(B, 0, 2), (B, 0, 3, 2)]
    assert all(np.array_equal(a, b) for a, b in zip(got[1:], STATE, strict=True))


def test_sequences_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"inputs have shapes .* expected one batch and one time"):
        nested_rnn("tuple")((X[0], X[1][:, :3]))
    with pytest.raises(ValueError, match=r"the input has shape \(3, 5\), expected \(batch, time"):
        nested_rnn("tuple")((X[0], X[1][:, :, 0, 0]))


@pytest.mark.parametrize("mask", [False, True])
def test_sequences_and_states_of_any_rank_equal_keras(
    tf: Any, rng: np.random.Generator, mask: bool
) -> None:
    def made(kit: Any, ops: Any) -> Any:
        class Grid(kit.Layer):
            state_size = output_size = 3

            def build(self, input_shape: Any) -> None:
                self.kernel = self.add_weight(shape=(input_shape[-1], 3), name="kernel")

            def get_initial_state(self, batch_size: Any = None) -> Any:
                return [ops.ones((batch_size, 2, 3), dtype="float64")]

            def call(self, inputs: Any, states: Any) -> Any:
                h = ops.tanh(ops.matmul(inputs, self.kernel) + states[0])
                return h, [h]

        return kit.RNN(Grid(**F64), return_sequences=True, return_state=True, **F64)

    x = rng.normal(size=(B, T, 2, F))
    given = {"mask": masked(rng)} if mask else {}
    source, layer = made(tf.keras.layers, tf.keras.ops), made(layers, np)
    tensors = {k: tf.tf.constant(m) for k, m in given.items()}
    want = source(tf.tf.constant(x), **tensors)
    layer.build(x.shape)
    layer.set_weights(source.get_weights())
    compare(arrays(layer(x, **given)), arrays(want), 1e-12, "rank 4")
