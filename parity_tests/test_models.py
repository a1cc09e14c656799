"""A model made from Keras's own computes Keras's numbers, whole and in chunks, with weights and
states of its own; constructors, weight lists and configs are Keras's too.
"""

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import cuttings

import refrnn
from refrnn import from_keras, layers
from refrnn.layers.masks import leaves
from refrnn.models import from_config
from refrnn.verify import TOLERANCES, compare
from refrnn.verify.chunks import flat, model_in_chunks
from refrnn.verify.compare import same_bits

B, T, F = 2, 7, 3


def randomize(source: Any, seed: int = 0) -> Any:
    """`source` with weights that hide nothing: biases not zero, nothing symmetric."""
    rng = np.random.default_rng(seed)
    source.set_weights([rng.normal(0, 0.5, w.shape) for w in source.get_weights()])
    return source


def drawn(*shape: int, dtype: str = "float64", seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def arrays_of(tf: Any, outputs: Any) -> Any:
    return tf.tf.nest.map_structure(np.asarray, outputs)


def skeleton(outputs: Any) -> Any:
    """The structure of outputs: dictionaries, sequences, and shapes in place of arrays."""
    if isinstance(outputs, dict):
        return {key: skeleton(part) for key, part in outputs.items()}
    if isinstance(outputs, list | tuple):
        return [skeleton(part) for part in outputs]
    return np.shape(outputs)


def assert_equals_keras(tf: Any, mine: Any, source: Any, inputs: Any, **arguments: Any) -> None:
    tensors = tf.tf.nest.map_structure(tf.tf.constant, inputs)
    want = arrays_of(tf, source(tensors, **arguments))
    got = mine(inputs, **arguments)
    assert skeleton(got) == skeleton(want)
    for name, array in flat(want).items():
        limit = TOLERANCES[array.dtype.name].relative
        compare({name: flat(got)[name]}, {name: array}, limit, f"{mine!r}: {name}")


# --- layers and cells ---

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "SimpleRNN": ("SimpleRNN", {"activation": "relu"}),
    "LSTM": ("LSTM", {"return_state": True, "return_sequences": True}),
    "GRU": ("GRU", {"return_state": True}),
    "GRU reset before": ("GRU", {"reset_after": False, "return_sequences": True}),
    "LSTM without bias": ("LSTM", {"use_bias": False, "go_backwards": True}),
    "LSTM of other activations": (
        "LSTM",
        {"activation": "softsign", "recurrent_activation": "hard_sigmoid"},
    ),
    "Dense": ("Dense", {"activation": "tanh"}),
    "Dense without bias": ("Dense", {"use_bias": False}),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_layer_equals_its_keras_layer(tf: Any, kind: str, dtype: str) -> None:
    name, options = KINDS[kind]
    source = getattr(tf.keras.layers, name)(4, dtype=dtype, name="mine", **options)
    source.build((None, T, F))
    mine = from_keras(randomize(source))
    assert (type(mine).__name__, mine.name, mine.dtype.name) == (name, "mine", dtype)
    assert_equals_keras(tf, mine, source, drawn(B, T, F, dtype=dtype))


@pytest.mark.parametrize("inner", ["Dense", "SimpleRNN", "GRU", "LSTM"])
def test_a_time_distributed_layer_equals_its_keras_layer(tf: Any, inner: str) -> None:
    k = tf.keras.layers
    source = k.TimeDistributed(getattr(k, inner)(4, dtype="float64"), dtype="float64")
    x = drawn(B, T, 5, F)
    source(tf.tf.constant(x))
    mine = from_keras(randomize(source))
    assert isinstance(mine, layers.TimeDistributed)
    assert_equals_keras(tf, mine, source, x)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("SimpleRNNCell", {"activation": "sigmoid"}),
        ("GRUCell", {}),
        ("GRUCell", {"reset_after": False}),
        ("LSTMCell", {"recurrent_activation": "hard_sigmoid"}),
        ("LSTMCell", {"use_bias": False}),
    ],
)
def test_a_cell_equals_its_keras_cell(
    tf: Any, kind: str, options: dict[str, Any], dtype: str
) -> None:
    source = getattr(tf.keras.layers, kind)(4, dtype=dtype, **options)
    source.build((B, F))
    mine = from_keras(randomize(source))
    states = [drawn(B, 4, dtype=dtype, seed=k) for k in range(2 if kind == "LSTMCell" else 1)]
    x = drawn(B, F, dtype=dtype, seed=9)
    want, after = source(tf.tf.constant(x), [tf.tf.constant(s) for s in states])
    got, mine_after = mine(x, states)
    assert isinstance(mine_after, list)
    limit = TOLERANCES[dtype].relative
    compare(flat([got, *mine_after]), flat(arrays_of(tf, [want, *after])), limit, kind)


def test_an_unbuilt_layer_stays_unbuilt(tf: Any) -> None:
    mine = from_keras(tf.keras.layers.LSTM(4))
    assert not mine.built
    assert mine.weights == []


# --- models ---


def stack(tf: Any, dtype: str, rows: int | None = None, **options: Any) -> Any:
    k = tf.keras.layers
    return tf.keras.Sequential(
        [
            k.Input(batch_shape=(rows, None, F), dtype=dtype),
            k.LSTM(4, return_sequences=True, dtype=dtype, **options),
            k.GRU(5, return_sequences=True, dtype=dtype, **options),
            k.TimeDistributed(k.Dense(3, dtype=dtype), dtype=dtype),
            k.SimpleRNN(2, return_sequences=True, dtype=dtype, **options),
            k.Dense(6, "sigmoid", dtype=dtype),
        ]
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_sequential_model_equals_its_keras_model(tf: Any, dtype: str) -> None:
    source = randomize(stack(tf, dtype))
    mine = from_keras(source)
    assert isinstance(mine, refrnn.Sequential)
    assert mine.name == source.name
    assert_equals_keras(tf, mine, source, drawn(B, T, F, dtype=dtype))


def test_a_sequential_model_without_an_input_layer_equals_its_keras_model(tf: Any) -> None:
    source = tf.keras.Sequential([tf.keras.layers.GRU(4), tf.keras.layers.Dense(2)])
    x = drawn(B, T, F, dtype="float32")
    source(tf.tf.constant(x))
    assert_equals_keras(tf, from_keras(randomize(source)), source, x)


class Graphs:
    """Functional models by name; each takes Keras's layers and returns inputs, outputs."""

    @staticmethod
    def shared_twice(k: Any, make: Any) -> Any:
        a, b = make(None, F), make(None, F)
        lstm, dense = k.LSTM(4, return_sequences=True), k.Dense(4)
        return [a, b], [dense(lstm(a)), dense(lstm(b)), lstm(a, mask=None)]

    @staticmethod
    def shared_in_a_chain(k: Any, make: Any) -> Any:
        a = make(None, 4)
        gru = k.GRU(4, return_sequences=True)
        return a, gru(gru(gru(a)))

    @staticmethod
    def used_in_another_model_first(k: Any, make: Any) -> Any:
        a, other = make(None, F), make(None, F)
        lstm = k.LSTM(4, return_state=True)
        lstm(other)
        return a, lstm(a)[2]

    @staticmethod
    def encoder_and_decoder(k: Any, make: Any) -> Any:
        source, target = make(None, F), make(None, F)
        _, *state = k.LSTM(4, return_state=True)(source)
        y = k.LSTM(4, return_sequences=True)(target, initial_state=state)
        return [source, target], k.Dense(3)(y)

    @staticmethod
    def states_with_h_and_c_swapped(k: Any, make: Any) -> Any:
        source, target = make(None, F), make(None, F)
        _, h, c = k.LSTM(4, return_state=True)(source)
        return [source, target], k.LSTM(4, return_state=True)(target, initial_state=[c, h])

    @staticmethod
    def a_bare_state(k: Any, make: Any) -> Any:
        a, h = make(None, F), make(4)
        return [a, h], k.GRU(4, return_sequences=True)(a, initial_state=h)

    @staticmethod
    def a_state_from_a_dense_layer(k: Any, make: Any) -> Any:
        a, b = make(None, F), make(6)
        return [a, b], k.SimpleRNN(4)(a, initial_state=k.Dense(4, "tanh")(b))

    @staticmethod
    def a_mask(k: Any, make: Any) -> Any:
        a, mask = make(None, F), make(None, dtype="bool")
        y = k.LSTM(4, return_sequences=True)(a, mask=mask)
        return [a, mask], [y, k.GRU(3)(y), k.GRU(3)(y, mask=mask)]

    @staticmethod
    def dictionaries(k: Any, make: Any) -> Any:
        a = make(None, F)
        y, h, c = k.LSTM(4, return_sequences=True, return_state=True)(a)
        return a, {"z": k.Dense(2)(y), "a": {"h": h, "c": [c, h]}}

    @staticmethod
    def a_list_of_one(k: Any, make: Any) -> Any:
        a = make(None, F)
        return [a], [k.GRU(4)(a)]

    @staticmethod
    def nested_lists(k: Any, make: Any) -> Any:
        a = make(None, F)
        y, h = k.GRU(4, return_sequences=True, return_state=True)(a)
        return a, [[y, [h]], k.Dense(2)(h)]

    @staticmethod
    def a_tuple(k: Any, make: Any) -> Any:
        a = make(None, F)
        y, *state = k.LSTM(4, return_sequences=True, return_state=True)(a)
        return a, (k.Dense(2)(y), tuple(state))

    @staticmethod
    def an_input_among_the_outputs(k: Any, make: Any) -> Any:
        a = make(None, F)
        return a, [a, k.SimpleRNN(4)(a)]

    @staticmethod
    def one_output_twice(k: Any, make: Any) -> Any:
        a = make(None, F)
        y = k.GRU(4)(a)
        return a, {"once": y, "again": y}

    @staticmethod
    def branches_of_different_depth(k: Any, make: Any) -> Any:
        a = make(None, F)
        short = k.Dense(5)(a)
        long = k.GRU(4)(k.LSTM(3, return_sequences=True)(a))
        return a, [long, short]

    @staticmethod
    def a_chain_inside(k: Any, make: Any, models: Any) -> Any:
        a = make(None, F)
        inner = models.Sequential([k.GRU(4, return_sequences=True), k.Dense(3, "tanh")])
        return a, k.LSTM(2)(inner(a))

    @staticmethod
    def a_graph_inside(k: Any, make: Any, models: Any) -> Any:
        p, q = make(None, F), make(4)
        y, h, c = k.LSTM(4, return_sequences=True, return_state=True)(p, initial_state=[q, q])
        inner = models.Model([p, q], {"z": y, "h": h, "a": [c]})
        a, b = make(None, F), make(4)
        out = inner([a, b])
        return [a, b], [k.Dense(2)(out["z"]), out["h"], out["a"][0]]

    @staticmethod
    def a_model_called_twice(k: Any, make: Any, models: Any) -> Any:
        p = make(None, F)
        inner = models.Model(p, k.GRU(3, return_sequences=True)(k.Dense(3)(p)))
        a, b = make(None, F), make(None, F)
        first = inner(a)
        return [a, b], k.Add()([first, inner(k.Add()([first, b]))])

    @staticmethod
    def outputs_of_a_model_called_twice(k: Any, make: Any, models: Any) -> Any:
        p = make(None, F)
        inner = models.Model(p, k.GRU(F, return_sequences=True)(p))
        a = make(None, F)
        return a, [inner(a), inner(inner(a))]

    @staticmethod
    def models_in_models(k: Any, make: Any, models: Any) -> Any:
        p, q, a = make(None, F), make(None, F), make(None, F)
        deep = models.Model(p, k.SimpleRNN(3, return_sequences=True)(p))
        middle = models.Model(q, [deep(q), k.GRU(2)(q)])
        y, last = middle(a)
        return a, [k.LSTM(2, return_sequences=True)(y), last]

    @staticmethod
    def a_shared_layer_inside_and_outside(k: Any, make: Any, models: Any) -> Any:
        dense, p, a = k.Dense(F), make(None, F), make(None, F)
        inner = models.Model(p, k.GRU(4, return_sequences=True)(dense(p)))
        return a, [inner(dense(a)), k.LSTM(2)(a)]

    @staticmethod
    def ids_with_a_mask(k: Any, make: Any, models: Any) -> Any:
        p, a = make(None, dtype="int32"), make(None, dtype="int32")
        inner = models.Model(
            p, k.LSTM(4, return_sequences=True)(k.Embedding(9, 3, mask_zero=True)(p))
        )
        return a, k.GRU(3)(inner(a))

    @staticmethod
    def order_of_layers(k: Any, make: Any) -> Any:
        a, b = make(None, F), make(None, F)
        late, early = k.Dense(3, name="late"), k.Dense(4, name="early")
        x = k.LSTM(3, return_sequences=True)(late(a))
        y = k.GRU(3, return_sequences=True)(k.SimpleRNN(4, return_sequences=True)(early(b)))
        return [b, a], [late(k.Add()([x, y])), k.Dense(1)(early(a))]


GRAPHS = [name for name in vars(Graphs) if not name.startswith("_")]


def tensors(name: str, k: Any, make: Any, models: Any) -> Any:
    """The inputs and outputs of a graph, made of the layers and models of either library."""
    function = getattr(Graphs, name)
    takes_models = "models" in inspect.signature(function).parameters
    return function(k, make, models) if takes_models else function(k, make)


def graph(tf: Any, name: str, dtype: str) -> tuple[Any, Any]:
    """A Keras model and arrays for its inputs."""
    tf.keras.config.set_dtype_policy(dtype)
    try:

        def make(*shape: int | None, dtype: str = dtype) -> Any:
            return tf.keras.layers.Input(shape, dtype=dtype)

        model = randomize(tf.keras.Model(*tensors(name, tf.keras.layers, make, tf.keras)))
    finally:
        tf.keras.config.set_dtype_policy("float32")
    rng = np.random.default_rng(3)
    arrays = []
    for tensor in model.inputs:
        sizes = [B, *[T] * (len(tensor.shape) - 1)]
        drawn = rng.normal(size=[n or size for n, size in zip(tensor.shape, sizes, strict=True)])
        arrays.append(drawn > -0.7 if tensor.dtype == "bool" else drawn.astype(tensor.dtype))
    return model, arrays if len(arrays) > 1 else arrays[0]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_equals_its_keras_model(tf: Any, name: str, dtype: str) -> None:
    source, x = graph(tf, name, dtype)
    assert_equals_keras(tf, from_keras(source), source, x)


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_made_of_symbols_equals_its_keras_model(tf: Any, name: str) -> None:
    """Made by the same lines; the weights go over in one list, so their order is Keras's too."""
    source, x = graph(tf, name, "float32")
    mine = refrnn.Model(*tensors(name, layers, lambda *s, **kw: layers.Input(s, **kw), refrnn))
    kinds = [type(layer).__name__.replace("Functional", "Model") for layer in source.layers]
    assert [type(layer).__name__ for layer in mine.layers] == [
        kind for kind in kinds if kind != "InputLayer"
    ]
    mine.set_weights(source.get_weights())
    assert_equals_keras(tf, mine, source, x)


@pytest.mark.parametrize("name", GRAPHS)
def test_shapes_are_known_before_there_are_numbers(tf: Any, name: str) -> None:
    source, _ = graph(tf, name, "float32")
    *_, outputs = tensors(name, layers, lambda *s, **kw: layers.Input(s, **kw), refrnn)
    shapes = [(symbol.shape, symbol.dtype) for symbol in leaves(outputs)]
    assert shapes == [(tuple(tensor.shape), tensor.dtype) for tensor in source.outputs]


@pytest.mark.parametrize("name", GRAPHS)
def test_keras_reads_the_config_of_a_graph(tf: Any, name: str) -> None:
    if name == "a_shared_layer_inside_and_outside":
        pytest.skip("a config does not say so: Keras makes two layers of it")
    source, x = graph(tf, name, "float32")
    mine = from_keras(source)
    again = tf.keras.Model.from_config(mine.get_config())
    again.set_weights(mine.get_weights())
    assert_equals_keras(tf, mine, again, x)


@pytest.mark.parametrize("name", GRAPHS)
def test_layers_may_be_listed_in_any_order(tf: Any, name: str) -> None:
    source, x = graph(tf, name, "float64")
    config = source.get_config()
    mine = []
    for turn in (lambda entries: entries[::-1], lambda entries: entries[1:] + entries[:1]):
        turned = config | {"layers": turn(config["layers"])}
        model = from_config("Functional", turned)
        for layer in model.layers:
            layer.set_weights(source.get_layer(layer.name).get_weights())
        mine.append(flat(model(x)))
    want = flat(from_keras(source)(x))
    for run in mine:
        assert same_bits(run, want)


def test_a_graph_that_goes_in_circles_is_refused(tf: Any) -> None:
    source, _ = graph(tf, "encoder_and_decoder", "float32")
    config = copy.deepcopy(source.get_config())
    entries = [e for e in config["layers"] if e["class_name"] != "InputLayer"]
    first, second = entries[0], entries[1]
    first["inbound_nodes"], second["inbound_nodes"] = (
        second["inbound_nodes"],
        first["inbound_nodes"],
    )
    with pytest.raises(ValueError, match=r"the graph cannot be ordered: .* wait for one another"):
        from_config("Functional", config)


def test_inputs_are_taken_by_name_or_in_order(tf: Any) -> None:
    source, (a, b) = graph(tf, "encoder_and_decoder", "float64")
    mine = from_keras(source)
    names = [layer.name for layer in source.layers if hasattr(layer, "batch_shape")]
    assert [item.name for item in mine.inputs] == names
    want = mine([a, b])
    assert same_bits(flat(mine((a, b))), flat(want))
    assert same_bits(flat(mine({names[1]: b, names[0]: a})), flat(want))
    assert not same_bits(flat(mine([b, a])), flat(want))
    with pytest.raises(ValueError, match=r"inputs are \['x'\], expected"):
        mine({"x": a})
    with pytest.raises(ValueError, match="3 inputs, expected 2"):
        mine([a, b, a])
    with pytest.raises(ValueError, match="1 inputs, expected 2"):
        mine(a)
    with pytest.raises(ValueError, match="expected 3 dimensions"):
        mine([a, b[0]])


def test_inputs_in_a_dictionary_are_in_keras_order(tf: Any) -> None:
    k = tf.keras.layers
    z, a = k.Input((None, F), name="z"), k.Input((None, F), name="a")
    source = randomize(tf.keras.Model({"z": z, "a": a}, [k.LSTM(4)(z), k.GRU(4)(a)]))
    mine = from_keras(source)
    assert [item.name for item in mine.inputs] == [tensor.name for tensor in source.inputs]
    x = {"z": drawn(B, T, F, dtype="float32"), "a": drawn(B, T, F, dtype="float32", seed=2)}
    assert_equals_keras(tf, mine, source, x)


@pytest.mark.filterwarnings("ignore:.*does not support masking:UserWarning")  # Keras, of models
@pytest.mark.parametrize("mask", ["none", "attached", "argument", "positional"])
def test_a_mask_goes_into_a_model_inside(tf: Any, mask: str) -> None:
    def made(kit: Any, Model: Any) -> Any:
        p, a = kit.Input((None, F)), kit.Input((None, F))
        m = kit.Input((None,), dtype="bool")
        inner = Model(p, kit.GRU(3)(kit.LSTM(4, return_sequences=True)(p)))
        if mask == "attached":
            return Model(a, inner(kit.Masking(0.5)(a)))
        more: dict[str, Any] = {"argument": {"mask": m}}.get(mask, {})
        return Model([a, m], inner(a, *([None, m] if mask == "positional" else []), **more))

    x, m = drawn(B, T, F, dtype="float32"), np.arange(T) < np.array([[T], [3]])
    x[~m] = 0.5
    mine = made(layers, refrnn.Model)
    mine(x if mask == "attached" else [x, m])
    source = made(tf.keras.layers, tf.keras.Model)
    mine.set_weights(randomize(source).get_weights())
    given = [x] if mask == "attached" else [x, m]
    for one in [mine] if mask == "positional" else [mine, from_keras(source)]:
        assert_equals_keras(tf, one, source, given if len(given) > 1 else x)
        whole = flat(one(given if len(given) > 1 else x))
        assert same_bits(model_in_chunks(one, given, [2, 3]), whole)


def test_a_layer_called_twice_is_called_in_keras_order(tf: Any) -> None:
    """It shows where the layer carries a state: the call that is further from the outputs first."""

    def made(kit: Any, Model: Any, turned: bool) -> Any:
        a, b = (kit.Input(batch_shape=(B, None, F)) for _ in range(2))
        shared = kit.GRU(3, stateful=True, return_sequences=True)
        near, far = shared(a), shared(b)
        outputs = [near, kit.Dense(2)(kit.Dense(2)(far))]
        return Model([a, b], outputs[::-1] if turned else outputs)

    x = [drawn(B, T, F, dtype="float32", seed=k) for k in range(2)]
    for turned in (False, True):
        source = randomize(made(tf.keras.layers, tf.keras.Model, turned))
        mine = made(layers, refrnn.Model, turned)
        mine.set_weights(source.get_weights())
        taken = from_keras(source)
        want = arrays_of(tf, source([tf.tf.constant(part) for part in x]))
        for model in (mine, taken):
            compare(flat(model(x)), flat(want), 1e-6, f"turned: {turned}")


@pytest.mark.parametrize("given", ["nothing", None, False, True])
@pytest.mark.parametrize("inside", [False, True], ids=["", "in a model inside"])
def test_training_of_a_model_goes_before_that_of_its_layers(
    tf: Any, given: Any, inside: bool
) -> None:
    """As in Keras, whose configs say training=False of every layer that can be trained."""
    options = {} if given == "nothing" else {"training": given}

    def made(kit: Any, Model: Any) -> Any:
        a, p = kit.Input((F,)), kit.Input((F,))
        dropout = kit.Dropout(0.5, seed=3)
        return Model(a, (Model(p, dropout(p)) if inside else dropout)(a, **options))

    ones = np.ones((B, F), np.float32)
    source, mine = made(tf.keras.layers, tf.keras.Model), made(layers, refrnn.Model)
    taken = from_keras(source)
    for training in (None, False, True):
        drops = bool((np.asarray(source(ones, training=training)) != 1).any())
        for model in (mine, taken):
            assert bool((model(ones, training=training) != 1).any()) == drops, training
    for model in (mine, taken):
        assert np.array_equal(model.predict(ones), ones)


def test_training_of_the_call_around_holds_in_a_model_inside_a_layer() -> None:
    class Around(layers.Layer):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.inner = refrnn.Sequential([layers.Input((F,)), layers.Dropout(0.5, seed=1)])

        def call(self, inputs: Any) -> Any:
            return self.inner(inputs)

    layer, ones = Around(), np.ones((B, F), np.float32)
    assert np.array_equal(layer(ones), ones)
    assert not np.array_equal(layer(ones, training=True), ones)
    assert np.array_equal(layer(ones, training=False), ones)


def test_training_may_be_given_by_position() -> None:
    a = layers.Input((None, F))
    model = refrnn.Model(a, layers.LSTM(4, dropout=0.5, seed=1)(a, None, None, False))
    x = drawn(B, T, F)
    assert np.array_equal(model(x), model.layers[0](x))
    assert not np.array_equal(model(x, training=True), model(x))
    assert same_bits(model_in_chunks(model, [x], [2, 3]), flat(model(x)))


# --- what is copied ---


def test_weights_are_copied(tf: Any) -> None:
    source = randomize(stack(tf, "float64"))
    mine, x = from_keras(source), drawn(B, T, F)
    before, theirs = mine(x), [w.copy() for w in source.get_weights()]
    randomize(source, seed=8)
    assert same_bits(flat(mine(x)), flat(before))
    source.set_weights(theirs)
    mine.set_weights([w + 1 for w in theirs])
    for now, then in zip(source.get_weights(), theirs, strict=True):
        assert np.array_equal(now, then)
    assert not same_bits(flat(mine(x)), flat(before))


@pytest.mark.parametrize("kind", ["SimpleRNN", "GRU", "LSTM"])
def test_a_carried_state_is_copied(tf: Any, kind: str) -> None:
    source = getattr(tf.keras.layers, kind)(4, stateful=True, dtype="float64")
    x, more = drawn(B, T, F), drawn(B, 2, F, seed=5)
    source(tf.tf.constant(x))
    randomize(source)
    source(tf.tf.constant(x))
    mine = from_keras(source)
    carried = [np.array(state.numpy()) for state in source.states]
    assert all(state.any() for state in carried)
    compare(flat(mine.states), flat(carried), 0, kind)
    got = mine(more)
    compare(flat([s.numpy() for s in source.states]), flat(carried), 0, "Keras's state")
    want = np.asarray(source(tf.tf.constant(more)))
    compare(flat(got), flat(want), 1e-12, kind)
    compare(flat(mine.states), flat([s.numpy() for s in source.states]), 1e-12, kind)


def test_a_stateful_model_goes_on_where_keras_stopped(tf: Any) -> None:
    k = tf.keras.layers
    source = tf.keras.Sequential(
        [
            k.Input(batch_shape=(B, None, F)),
            k.LSTM(4, stateful=True, return_sequences=True),
            k.GRU(3, stateful=True),
        ]
    )
    randomize(source)
    x = drawn(B, T, F, dtype="float32")
    fresh = np.asarray(source(tf.tf.constant(x)))
    mine = from_keras(source)
    assert_equals_keras(tf, mine, source, x)
    assert_equals_keras(tf, mine, source, x[:, :1])
    mine.reset_states()
    compare(flat(mine(x)), flat(fresh), 1e-5, "after a reset")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("built", [False, True], ids=["unbuilt", "built"])
@pytest.mark.parametrize("pair", [False, True], ids=["", "Bidirectional"])
def test_a_stateful_layer_of_keras_2_is_taken_with_its_state(built: bool, pair: bool) -> None:
    keras2 = pytest.importorskip("tf_keras", reason="tf_keras (Keras 2) is not installed")
    source = keras2.layers.LSTM(4, stateful=True, return_sequences=True)
    source = keras2.layers.Bidirectional(source) if pair else source
    x = drawn(B, T, F, dtype="float32")
    if built:
        source(x)
        randomize(source)
        source(x)
    mine = from_keras(source)
    assert mine.built == built
    if built:
        compare({"y": mine(x)}, {"y": source(x).numpy()}, 1e-6, "goes on")


# --- chunks ---

CUT = ["shared_twice", "shared_in_a_chain", "a_mask", "a_bare_state", "dictionaries",
       "nested_lists", "an_input_among_the_outputs", "branches_of_different_depth",
       "a_state_from_a_dense_layer", "a_chain_inside", "a_graph_inside", "a_model_called_twice",
       "outputs_of_a_model_called_twice", "models_in_models", "a_shared_layer_inside_and_outside",
       "ids_with_a_mask", "order_of_layers"]  # fmt: skip


@pytest.fixture(scope="module")
def models(tf: Any) -> dict[str, tuple[Any, list[np.ndarray]]]:
    """refrnn models that can be run in chunks, and their inputs."""
    made = {}
    for name in CUT:
        source, x = graph(tf, name, "float64")
        made[name] = from_keras(source), x if isinstance(x, list) else [x]
    made["stack"] = from_keras(randomize(stack(tf, "float32"))), [drawn(B, T, F, dtype="float32")]
    return made


@given(data=st.data())
def test_a_model_in_chunks_has_the_bits_of_the_whole(models: Any, data: st.DataObject) -> None:
    model, x = models[data.draw(st.sampled_from(sorted(models)))]
    sizes = data.draw(cuttings(T))
    if sum(sizes[-1:]) == 0:
        sizes = [n for n in sizes if n]  # else the last run is of no step
    assert model.why_whole() is None
    whole = flat(model(x if len(x) > 1 else x[0]))
    assert same_bits(model_in_chunks(model, x, sizes), whole)


def test_an_empty_last_chunk_returns_what_was_last(models: Any) -> None:
    for name, (model, x) in models.items():
        whole = flat(model(x if len(x) > 1 else x[0]))
        assert same_bits(model_in_chunks(model, x, [3, 4, 0]), whole), name


def test_advance_changes_nothing(tf: Any) -> None:
    """Neither its arguments nor what a stateful model carries; and it starts from zeros."""
    mine = from_keras(randomize(stack(tf, "float64", B, stateful=True)))
    x = drawn(B, T, F)
    fresh = mine(x)
    carried = [flat(layer.states) for layer in mine.layers if isinstance(layer, layers.Recurrent)]
    kept = x.copy()
    got, memories = mine.advance(x)
    assert same_bits(flat(got), flat(fresh))
    before = copy.deepcopy(memories)
    second, _ = mine.advance(x, memories)
    again, _ = mine.advance(x, memories)
    assert same_bits(flat(second), flat(again))
    assert not same_bits(flat(second), flat(got))
    assert list(memories) == list(before)
    for key, memory in memories.items():
        assert same_bits(flat(memory), flat(before[key]))
    assert np.array_equal(x, kept)
    now = [flat(layer.states) for layer in mine.layers if isinstance(layer, layers.Recurrent)]
    assert all(same_bits(a, b) for a, b in zip(now, carried, strict=True))


def test_each_call_of_a_shared_layer_has_a_memory_of_its_own(models: Any) -> None:
    model, x = models["shared_twice"]
    _, memories = model.advance(x)
    assert sorted(call for _, call in memories) == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("encoder_and_decoder", "starts from a state that 'lstm[_0-9]*' ends with"),
    ],
)
def test_a_model_that_cannot_be_cut_is_refused(tf: Any, name: str, why: str) -> None:
    source, x = graph(tf, name, "float32")
    mine = from_keras(source)
    with pytest.raises(ValueError, match=f"cannot be run in chunks: .*{why}"):
        mine.advance(x)


def test_a_layer_that_runs_backwards_cannot_be_cut() -> None:
    model = refrnn.Sequential([layers.LSTM(4), layers.Dense(1)])
    assert model.why_whole() is None
    model = refrnn.Sequential([layers.LSTM(4, go_backwards=True, name="back")])
    assert model.why_whole() == (
        "LSTM 'back' runs backwards, so its first output needs the last input"
    )


def test_a_stateful_layer_called_twice_cannot_be_cut(tf: Any) -> None:
    """Its second call starts from the state that the first ends with."""
    a = tf.keras.layers.Input(batch_shape=(B, None, 4))
    shared = tf.keras.layers.GRU(4, stateful=True, return_sequences=True)
    mine = from_keras(randomize(tf.keras.Model(a, shared(shared(a)))))
    assert mine.why_whole() is not None


def kinds_of(inputs: Any, outputs: Any) -> str:
    """Why a model of these symbols cannot be cut; "" where it can."""
    return refrnn.Model(inputs, outputs).why_whole() or ""


def test_steps_are_not_taken_together_with_what_they_end_with() -> None:
    """The last output of a chunk is not that of the sequence until the last chunk."""
    a = layers.Input((None, 4), name="a")
    steps = layers.GRU(4, return_sequences=True, name="steps")(a)
    end = layers.LSTM(4, name="end")(a)
    for both in ([steps, end], [end, steps]):
        assert kinds_of(a, layers.Add(name="sum")(both)) == (
            "Add 'sum' takes each step together with what 'end' ends with"
        )
    y, h = layers.GRU(4, return_sequences=True, return_state=True, name="two")(a)
    assert "together with what 'two' ends with" in kinds_of(a, layers.Multiply()([y, h]))
    assert kinds_of(a, layers.Add()([steps, a])) == ""
    assert kinds_of(a, layers.Add()([end, h])) == ""
    assert kinds_of(a, [layers.Dense(2)(steps), layers.Dense(2)(end)]) == ""


def test_what_a_model_inside_returns_is_steps_or_an_end() -> None:
    p, a = layers.Input((None, 4)), layers.Input((None, 4), name="a")
    y, h = layers.GRU(4, return_sequences=True, return_state=True)(p)
    inner = refrnn.Model(p, {"steps": y, "end": h}, name="inner")
    found = inner(a)
    assert kinds_of(a, layers.Add()([found["steps"], a])) == ""
    assert "together with what 'inner' ends with" in kinds_of(a, layers.Add()([found["end"], a]))
    back = refrnn.Model(p, layers.GRU(2, go_backwards=True)(p), name="back")
    assert kinds_of(a, back(a)).startswith("in model 'back', GRU ")


def test_inputs_of_a_model_inside_are_known_by_name() -> None:
    p, q = layers.Input((None, F), name="z"), layers.Input((4,), name="a")
    inner = refrnn.Model([p, q], layers.LSTM(4)(p, initial_state=[q, q]))
    b, c = layers.Input((None, F)), layers.Input((4,))
    model = refrnn.Model([c, b], inner({"a": c, "z": b}))
    x = [drawn(B, 4), drawn(B, T, F)]
    assert model.timed(x) == [False, True]
    assert same_bits(model_in_chunks(model, x, [2, 3]), flat(inner(x[::-1])))


def test_a_sequence_that_is_not_the_inputs_cannot_be_cut() -> None:
    """Ids that come by way of another layer are not known to be a sequence."""
    a = layers.Input((None,), dtype="int32")
    embedded = layers.Embedding(9, 3, name="words")(layers.Identity()(a))
    why = kinds_of(a, layers.LSTM(2, name="r")(embedded))
    assert why == "LSTM 'r' runs over 'words', whose steps are not the input's"
    b = layers.Input((None, 3))
    once = layers.Reshape((1, 3))(layers.LSTM(3)(b))
    assert "mixes time steps" in kinds_of(b, layers.GRU(2)(once))


def test_a_layer_that_is_called_in_training_cannot_be_cut() -> None:
    a = layers.Input((None, F))
    dropped = layers.Dropout(0.5, name="d")(a, training=True)
    why = kinds_of(a, layers.LSTM(2)(dropped))
    assert why == "Dropout 'd' is called with training=True, and chunks are run in inference"
    assert kinds_of(a, layers.Dropout(0.5)(a, training=False)) == ""


def test_a_layer_of_ones_own_around_a_recurrent_one_is_not_made_stateful() -> None:
    class Around(layers.Layer):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.inner = [layers.GRU(2)]

        def call(self, inputs: Any) -> Any:
            return self.inner[0](inputs)

    model = refrnn.Sequential([layers.Input((None, F)), Around(name="around")], name="m")
    with pytest.raises(ValueError, match="m': Around 'around' cannot be made stateful, expected"):
        model.to_stateful(1)


def test_inputs_with_a_time_axis_are_known(tf: Any) -> None:
    for name, timed in (
        ("a_mask", [True, True]),
        ("a_bare_state", [True, False]),
        ("shared_twice", [True, True]),
    ):
        source, x = graph(tf, name, "float32")
        assert from_keras(source).timed(x) == timed


# --- lists of weights ---


ORDERED = [name for name in GRAPHS if name != "a_list_of_one"]


@pytest.mark.parametrize("name", ORDERED)
def test_weights_are_listed_in_keras_order(tf: Any, name: str) -> None:
    source, x = graph(tf, name, "float64")
    mine = from_keras(source)
    for got, want in zip(mine.get_weights(), source.get_weights(), strict=True):
        assert np.array_equal(got, want)
    randomize(source, seed=7)
    mine.set_weights(source.get_weights())
    assert_equals_keras(tf, mine, source, x)


def test_weights_of_a_stack_are_listed_in_keras_order(tf: Any) -> None:
    source = randomize(stack(tf, "float32"))
    mine = from_keras(source)
    for got, want in zip(mine.get_weights(), source.get_weights(), strict=True):
        assert np.array_equal(got, want)
        assert got.dtype == want.dtype


def test_wrong_weights_are_refused_before_any_is_written(tf: Any) -> None:
    mine = from_keras(randomize(stack(tf, "float32")))
    before = mine.get_weights()
    new = [w + 1 for w in before]
    wrong = {
        r"set_weights got 12 arrays, expected 13": new[:-1],
        r"has shape \(1, 6\), expected \(6,\)": [*new[:-1], new[-1][None]],
        r"has dtype complex64": [*new[:-1], new[-1].astype("complex64")],
    }
    for message, weights in wrong.items():
        with pytest.raises((ValueError, TypeError), match=message):
            mine.set_weights(weights)
        for now, then in zip(mine.get_weights(), before, strict=True):
            assert np.array_equal(now, then)


def test_lists_of_weights_are_copies_and_weights_are_read_only(tf: Any) -> None:
    mine = from_keras(randomize(stack(tf, "float32")))
    for owner in (mine, *mine.layers):
        kept = owner.get_weights()
        owner.get_weights()[0][:] = 99
        assert np.array_equal(owner.get_weights()[0], kept[0])
    with pytest.raises(ValueError, match="read-only"):
        mine.weights[0][:] = 99


# --- refusals ---


def test_what_is_not_keras_is_refused() -> None:
    for thing in (3, "lstm", layers.LSTM(4), None):
        with pytest.raises(TypeError, match="expected a layer or model of Keras"):
            from_keras(thing)


def test_a_layer_that_is_not_there_is_refused_by_name(tf: Any) -> None:
    k = tf.keras.layers
    nested = tf.keras.Sequential([k.Input((None, F)), k.LSTM(4), k.Lambda(abs, name="code")])
    wrong: dict[str, Callable[[], Any]] = {
        "layer 'grid' is a Conv2DTranspose": lambda: k.Conv2DTranspose(2, 2, name="grid"),
        "layer 'up' is a Conv1DTranspose": lambda: tf.keras.Sequential(
            [k.Input((None, F)), k.Conv1DTranspose(2, 2, name="up"), k.LSTM(4)]
        ),
        "layer 'code' is a Lambda": lambda: tf.keras.Sequential(
            [k.Input((None, F)), nested, k.Dense(1)]
        ),
    }
    for message, make in wrong.items():
        with pytest.raises(ValueError, match=f"{message}, which refrnn does not have"):
            from_keras(make())


def test_a_model_that_is_code_is_refused(tf: Any) -> None:
    class Mine(tf.keras.Model):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(ValueError, match="is a Mine, expected a Sequential or functional model"):
        from_keras(Mine(name="mine"))


@pytest.mark.parametrize("wrong", [np.nan, -np.inf])
def test_weights_that_are_not_finite_are_refused(tf: Any, wrong: float) -> None:
    source = tf.keras.layers.GRU(4, name="gone")
    source.build((None, T, F))
    weights = source.get_weights()
    weights[2][1, 5] = wrong
    source.set_weights(weights)
    with pytest.raises(ValueError, match=r"GRU 'gone': bias has 1 values .* at \[1, 5\]"):
        from_keras(source)


def test_a_sequence_of_layers_is_checked() -> None:
    with pytest.raises(ValueError, match="has no layers, expected at least one"):
        refrnn.Sequential([])(drawn(B, T, F))
    with pytest.raises(ValueError, match=r"comes after others, expected layers\.Input in front"):
        refrnn.Sequential([layers.LSTM(4), layers.Input((None, F))])
    with pytest.raises(ValueError, match="layer 1 is 'dense', expected a refrnn layer"):
        refrnn.Sequential([layers.LSTM(4), "dense"])
    with pytest.raises(ValueError, match="two layers are called 'a', expected unique names"):
        refrnn.Sequential([layers.LSTM(4, name="a"), layers.Dense(4, name="a")])


def test_a_layer_may_be_called_input(tmp_path: Any) -> None:
    """As long as the user has not called an Input so."""
    model = refrnn.Sequential([layers.Dense(2, name="input")])
    x = drawn(B, F, dtype="float32")
    want = model(x)
    model.save(tmp_path / "m.keras")
    assert np.array_equal(refrnn.load_model(tmp_path / "m.keras")(x), want)
    with pytest.raises(ValueError, match="two layers are called 'a', expected unique names"):
        refrnn.Sequential([layers.Input((F,), name="a"), layers.Dense(2, name="a")])


@pytest.mark.parametrize("declared", [True, False], ids=["", "without a shape"])
def test_a_chain_refuses_a_layer_that_returns_several_arrays(declared: bool) -> None:
    class Two(layers.Layer):
        def call(self, inputs: Any) -> Any:
            return inputs, inputs + 1

    x = drawn(B, F)
    with pytest.raises(ValueError, match=r"'m': Two 'two' returns 2 arrays, expected 1, because"):
        refrnn.Sequential([*[layers.Input((F,))] * declared, Two(name="two")], name="m")(x)


def test_layers_are_added_to_a_chain_whose_shape_is_known(tf: Any) -> None:
    """By a first call, or from a config: they are built at once, as in Keras."""
    for how in ("declared", "called", "read"):
        chain = [layers.Input((F,))] if how == "declared" else []
        model = refrnn.Sequential([*chain, layers.Dense(4, name="a")])
        if how == "called":
            model(drawn(B, F))
        if how == "read":
            model = from_keras(tf.keras.Sequential([tf.keras.Input((F,)), tf.keras.layers.ReLU()]))
        before = len(model.weights)
        model.add(layers.Dense(2))
        assert len(model.weights) == before + 2, how
        assert model(drawn(B, F)).shape == (B, 2)


def test_a_layer_that_does_not_fit_is_not_added() -> None:
    model = refrnn.Sequential([layers.Input((F,)), layers.Dense(4)])
    with pytest.raises(ValueError, match=r"expected \(batch, time"):
        model.add(layers.LSTM(2))
    assert len(model.layers) == 1
    model.add(layers.Dense(1))
    assert model(drawn(B, F)).shape == (B, 1)


def test_a_chain_of_nothing_is_not_written(tmp_path: Any) -> None:
    for name in ("m.keras", "m.h5", "m.weights.h5"):
        model = refrnn.Sequential(name="m")
        with pytest.raises(ValueError, match="model 'm': has no layers, expected at least one"):
            (model.save_weights if "weights" in name else model.save)(tmp_path / name)
    assert not list(tmp_path.iterdir())


# --- configs and constructors ---

RECURRENT = {
    "activation": "relu",
    "use_bias": False,
    "kernel_initializer": "he_normal",
    "recurrent_initializer": "glorot_uniform",
    "bias_initializer": "ones",
    "kernel_regularizer": "l2",
    "recurrent_constraint": "max_norm",
    "dropout": 0.25,
    "recurrent_dropout": 0.5,
    "seed": 11,
    "name": "other",
    "trainable": False,
    "dtype": "float64",
}
RETURNS: dict[str, Any] = dict.fromkeys(
    (
        "return_sequences", "return_state", "go_backwards", "stateful", "unroll",
        "zero_output_for_mask",
    ),
    True,
) | {"activity_regularizer": "l1"}  # fmt: skip
GATED = {"recurrent_activation": "hard_sigmoid"}
CHANGED: dict[str, dict[str, Any]] = {
    "SimpleRNNCell": RECURRENT,
    "GRUCell": {**RECURRENT, **GATED, "reset_after": False},
    "LSTMCell": {**RECURRENT, **GATED, "unit_forget_bias": False},
    "SimpleRNN": {**RECURRENT, **RETURNS},
    "GRU": {**RECURRENT, **GATED, **RETURNS, "reset_after": False},
    "LSTM": {**RECURRENT, **GATED, **RETURNS, "unit_forget_bias": False},
    "Dense": {
        "activation": "softplus",
        "use_bias": False,
        "kernel_initializer": "random_normal",
        "bias_initializer": "ones",
        "bias_regularizer": "l1",
        "kernel_constraint": "non_neg",
        "activity_regularizer": "l2",
        "name": "other",
        "trainable": False,
        "dtype": "float64",
    },
}


def keras_made(tf: Any, kind: str, changed: bool) -> Any:
    if kind != "TimeDistributed":
        return getattr(tf.keras.layers, kind)(4, **(CHANGED[kind] if changed else {}))
    inner = keras_made(tf, "Dense", changed)
    return tf.keras.layers.TimeDistributed(inner, **({"name": "each"} if changed else {}))


@pytest.mark.parametrize("changed", [False, True], ids=["default", "changed"])
@pytest.mark.parametrize("kind", [*CHANGED, "TimeDistributed"])
def test_a_config_goes_from_keras_to_refrnn_and_back(tf: Any, kind: str, changed: bool) -> None:
    source = keras_made(tf, kind, changed)
    theirs = source.get_config()
    mine = getattr(layers, kind).from_config(theirs)
    back = type(source).from_config(mine.get_config())
    assert back.get_config() == theirs
    again = getattr(layers, kind).from_config(mine.get_config())
    assert again.get_config() == mine.get_config()


@pytest.mark.parametrize("changed", [False, True], ids=["default", "changed"])
@pytest.mark.parametrize("kind", list(CHANGED))
def test_a_config_has_keras_keys_and_values(tf: Any, kind: str, changed: bool) -> None:
    """Made with the same arguments, both write the same, regularizers as they were given."""
    options: dict[str, Any] = {"name": "same"} | (CHANGED[kind] if changed else {})
    mine = getattr(layers, kind)(4, **options).get_config()
    theirs = getattr(tf.keras.layers, kind)(4, **options).get_config()
    for key, value in theirs.items():
        if value is None and key not in mine:  # refused where it is not None
            continue
        if key.endswith("initializer"):  # newer Keras adds settings that are None
            set_to = {k: v for k, v in value["config"].items() if v is not None}
            mine_set = {k: v for k, v in mine[key]["config"].items() if v is not None}
            assert (mine[key]["class_name"], mine_set) == (value["class_name"], set_to), key
        elif not key.endswith(("regularizer", "constraint")):
            assert mine[key] == value, key
        else:
            assert mine[key] == options.get(key), key
    assert set(mine) - set(theirs) <= {
        "activity_regularizer",
        "seed",
    }  # Keras leaves them out here and there


def test_every_layer_has_a_round_trip_here() -> None:
    """Of the recurrent family; the layers around it have theirs in test_simple_layers.py."""
    family = {"SimpleRNN", "GRU", "LSTM", "SimpleRNNCell", "GRUCell", "LSTMCell", "Dense"}
    assert family <= {*CHANGED} <= set(layers.LAYERS)


@pytest.mark.parametrize("kind", [*CHANGED, "TimeDistributed"])
def test_a_constructor_has_keras_arguments_in_keras_order(tf: Any, kind: str) -> None:
    theirs = [
        (p.name, p.default)
        for p in inspect.signature(getattr(tf.keras.layers, kind)).parameters.values()
        if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    mine = list(inspect.signature(getattr(layers, kind)).parameters.values())
    # a version of Keras may lack what a later one has: the last of Dense's
    known = {"quantization_config", "lora_alpha"} - {name for name, _ in theirs}
    positional = [p for p in mine if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert [(p.name, p.default) for p in positional if p.name not in known] == theirs
    extra = mine[len(positional) :]
    assert {"name", "dtype", "trainable"} <= {p.name for p in extra}
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in extra)


def test_arguments_by_position_are_keras_arguments(tf: Any) -> None:
    for kind in ("SimpleRNN", "GRU", "LSTM", "SimpleRNNCell", "GRUCell", "LSTMCell", "Dense"):
        arguments = 4, "relu"
        mine = getattr(layers, kind)(*arguments, name="n")
        theirs = getattr(tf.keras.layers, kind)(*arguments, name="n")
        assert (mine.units, mine.get_config()["activation"]) == (4, "relu")
        assert theirs.get_config()["activation"] == "relu"


@pytest.mark.parametrize("how", ["copy", "pickle"])
def test_a_copy_of_a_model_is_a_model_of_its_own(how: str) -> None:
    """Equal numbers, its own weights, read-only as they were, and a config as before."""
    source = refrnn.Sequential([layers.LSTM(3, name="a"), layers.Dense(2, name="b")], name="m")
    x = np.ones((2, 4, 5), np.float32)
    want = source(x)
    mine = copy.deepcopy(source) if how == "copy" else pickle.loads(pickle.dumps(source))
    assert np.array_equal(mine(x), want)
    assert mine.layers[0].get_config() == source.layers[0].get_config()
    with pytest.raises(ValueError, match="read-only"):
        mine.weights[0][:] = 0
    mine.set_weights([w + 1 for w in mine.get_weights()])
    assert np.array_equal(source(x), want)
    assert not np.array_equal(mine(x), want)
