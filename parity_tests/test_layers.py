"""A refrnn layer gives Keras's numbers: any options, whole, in chunks, stateful.

float64 is held to 1e-12 of the largest magnitude and float32 to 1e-5, as in `refrnn verify`
(`refrnn.verify.TOLERANCES` has the reasons): rounding stays far below, wrong conventions far above.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import cases, cuttings

from refrnn.cases import Arrays, Case
from refrnn.verify import TOLERANCES, compare
from refrnn.verify.chunks import layer_in_chunks, layer_whole, named, pieces
from refrnn.verify.compare import same_bits

DTYPES = ("float64", "float64", "float32")


def keras_call(tf: Any, layer: Any, x: Any, **arguments: Any) -> list[np.ndarray]:
    """What a Keras layer returns, as a list of arrays."""
    given = {k: v for k, v in arguments.items() if v is not None}
    outputs = layer(tf.tf.constant(x), **given)
    return [np.asarray(part) for part in (outputs if isinstance(outputs, tuple) else (outputs,))]


def allowed(case: Case) -> float:
    return TOLERANCES[case.dtype].relative


@given(data=st.data())
def test_a_whole_run_equals_keras_in_every_mode(tf: Any, data: st.DataObject) -> None:
    case = data.draw(cases(DTYPES))
    mode = data.draw(st.sampled_from(("eager", "eager", "eager", "function", "XLA")))
    got = layer_whole(case.build(), case.arrays())
    compare(got, tf.run(case, mode), allowed(case), f"{case} {mode}")


@given(data=st.data())
def test_chunks_equal_one_run_of_keras(tf: Any, data: st.DataObject) -> None:
    case = data.draw(cases(DTYPES))
    sizes = data.draw(cuttings(case.steps))
    got = layer_in_chunks(case.build(), case.arrays(), sizes)
    compare(got, tf.run(case), allowed(case), f"{case} in chunks {sizes}")


@given(data=st.data())
def test_a_stateful_layer_equals_keras_call_by_call(tf: Any, data: st.DataObject) -> None:
    """Both carry their own state over several calls, resets between them included."""
    case = data.draw(cases())
    returns = {"return_sequences": data.draw(st.booleans()), "stateful": True}
    arrays = case.arrays()
    mine = case.build(**returns)
    theirs = _keras_layer(tf, case, arrays, returns)
    for size in data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)):
        start = data.draw(st.integers(0, case.steps - 1))
        piece = slice(start, start + size)
        mask = None if arrays.mask is None else arrays.mask[:, piece]
        state = arrays.state if data.draw(st.booleans()) else None
        if data.draw(st.booleans()):
            mine.reset_state()
            theirs.reset_state()
        x = arrays.x[:, piece]
        want = keras_call(tf, theirs, x, mask=mask, initial_state=state)
        got = mine(x, mask=mask, initial_state=state)
        compare(named(got), named(want), allowed(case), str(case))
        carried = [np.asarray(part) for part in theirs.states]
        compare(named(mine.states), named(carried), allowed(case), f"{case}: states")


def _keras_layer(tf: Any, case: Case, arrays: Arrays, returns: dict[str, Any]) -> Any:
    options = {"return_state": True, "dtype": case.dtype, **case.options, **returns}
    options.pop("unroll", None)  # Keras unrolls for one length only; it changes no number
    layer = getattr(tf.keras.layers, case.layer)(case.units, **options)
    layer.build(arrays.x.shape)
    layer.set_weights(arrays.weights)
    return layer


@given(data=st.data())
def test_keras_in_the_same_chunks_gives_the_same_numbers(tf: Any, data: st.DataObject) -> None:
    """Layers called on chunk after chunk, with the states handed over by hand, as users do it."""
    case = data.draw(cases())
    arrays = case.arrays()
    sizes = [size for size in data.draw(cuttings(case.steps)) if size]  # Keras takes no T = 0
    mine, theirs = case.build(), _keras_layer(tf, case, arrays, {"return_sequences": True})
    state = want_state = arrays.state
    for piece in pieces(case.steps, sizes):
        mask = None if arrays.mask is None else arrays.mask[:, piece]
        x = arrays.x[:, piece]
        y, *state = mine(x, initial_state=state, mask=mask)
        want, *want_state = keras_call(tf, theirs, x, initial_state=want_state, mask=mask)
        compare(named([y, *state]), named([want, *want_state]), allowed(case), str(case))


@pytest.mark.parametrize("layer", ["SimpleRNN", "GRU", "LSTM"])
@pytest.mark.parametrize("returns_sequences", [False, True])
@pytest.mark.parametrize("returns_state", [False, True])
def test_what_is_returned_has_keras_form(
    tf: Any, layer: str, returns_sequences: bool, returns_state: bool
) -> None:
    case = Case(layer, mask="right", options={"go_backwards": True})
    returns = {"return_sequences": returns_sequences, "return_state": returns_state}
    arrays = case.arrays()
    got = case.build(**returns)(arrays.x, mask=arrays.mask)
    theirs = _keras_layer(tf, case, arrays, returns)
    want = theirs(tf.tf.constant(arrays.x), mask=tf.tf.constant(arrays.mask))

    assert isinstance(got, tuple if isinstance(want, tuple) else np.ndarray)
    got, want = (v if isinstance(v, tuple) else (v,) for v in (got, want))
    assert len(got) == len(want)
    compare(named(got), named([np.asarray(w) for w in want]), 1e-12, str(case))


FORMS = ("(B, T, 1)", "(1, T)", "int", "float with NaN")


@pytest.mark.parametrize(
    ("layer", "form"),
    [(layer, form) for layer in ("SimpleRNN", "GRU", "LSTM") for form in FORMS]
    + [("GRU", "list of one"), ("LSTM", "list of one")],  # Keras's SimpleRNN fails on a list
)
def test_a_mask_in_any_of_keras_forms_means_the_same(tf: Any, layer: str, form: str) -> None:
    case = Case(layer, mask="holes", rows=3, steps=6)
    arrays = case.arrays()
    mask: Any = {
        "(B, T, 1)": arrays.mask[:, :, None],
        "(1, T)": arrays.mask[:1],
        "int": arrays.mask.astype(np.int32),
        "float with NaN": np.where(arrays.mask, np.nan, 0.0),
        "list of one": arrays.mask,
    }[form]
    theirs = _keras_layer(tf, case, arrays, {"return_sequences": True})
    in_list = (lambda m: [m]) if form == "list of one" else (lambda m: m)
    want = keras_call(tf, theirs, arrays.x, mask=in_list(tf.tf.constant(mask)))
    got = case.build()(arrays.x, mask=in_list(mask))
    compare(named(got), named(want), 1e-12, str(case))


@given(data=st.data())
def test_cells_called_by_hand_equal_keras_cells(tf: Any, data: st.DataObject) -> None:
    case = data.draw(cases(max_steps=1))
    arrays = case.arrays()
    mine = case.build().cell
    theirs = _keras_layer(tf, case, arrays, {}).cell
    state = arrays.state or mine.get_initial_state(case.rows)
    x = arrays.x[:, 0]
    want, want_states = theirs(tf.tf.constant(x), [tf.tf.constant(part) for part in state])
    got, got_states = mine(x, state)
    compare({"y": got}, {"y": np.asarray(want)}, 1e-12, str(case))
    compare(named(got_states), named([np.asarray(s) for s in want_states]), 1e-12, str(case))


@pytest.mark.parametrize("layer", ["SimpleRNN", "GRU", "LSTM"])
def test_rates_of_dropout_do_nothing_outside_training(tf: Any, layer: str) -> None:
    case = Case(layer, options={"dropout": 0.3, "recurrent_dropout": 0.2})
    compare(layer_whole(case.build(), case.arrays()), tf.run(case), 1e-12, str(case))


@pytest.mark.parametrize("inner", ["Dense", "LSTM"])
def test_time_distributed_equals_keras(tf: Any, rng: np.random.Generator, inner: str) -> None:
    """The inner layer sees each step alone; for a recurrent one each step is a sequence."""
    from refrnn import layers

    options = {"activation": "relu"} if inner == "Dense" else {"return_sequences": True}
    x = rng.normal(size=(3, 4, 5) if inner == "Dense" else (3, 4, 6, 5))
    theirs = tf.keras.layers.TimeDistributed(
        getattr(tf.keras.layers, inner)(7, dtype="float64", **options), dtype="float64"
    )
    mine = layers.TimeDistributed(
        getattr(layers, inner)(7, dtype="float64", **options), dtype="float64"
    )
    mask = None if inner == "Dense" else rng.random((3, 4, 6)) < 0.7
    tensors = {} if mask is None else {"mask": tf.tf.constant(mask)}
    want = np.asarray(theirs(tf.tf.constant(x), **tensors))
    mine.set_weights(theirs.get_weights())
    compare({"y": mine(x, mask=mask)}, {"y": want}, 1e-12, inner)


@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3), (2, 2, 4, 3)])
@pytest.mark.parametrize("activation", [None, "relu", "softmax", "gelu", "glu"])
def test_dense_equals_keras(
    tf: Any, rng: np.random.Generator, shape: tuple[int, ...], activation: str | None
) -> None:
    from refrnn import layers

    theirs = tf.keras.layers.Dense(6, activation, dtype="float64", bias_initializer="normal")
    x = rng.normal(size=shape)
    want = np.asarray(theirs(tf.tf.constant(x)))
    mine = layers.Dense(6, activation, dtype="float64")
    mine.set_weights(theirs.get_weights())
    compare({"y": mine(x)}, {"y": want}, 1e-12, "Dense")


def test_one_step_of_state_only_moves_one_row() -> None:
    """reset_states of a row, which Keras does not have, leaves the others in every bit."""
    case = Case("LSTM", rows=4)
    arrays = case.arrays()
    layer = case.build(stateful=True)
    layer(arrays.x)
    before = layer.states
    layer.reset_states(rows=[2])
    kept = [0, 1, 3]
    assert all((new[2] == 0).all() for new in layer.states)
    assert all(
        (new[kept] == old[kept]).all() for new, old in zip(layer.states, before, strict=True)
    )

    set_to = [np.full((2, 4), 0.25), np.full((2, 4), -0.5)]
    layer.reset_states(set_to, rows=np.array([True, False, False, True]))
    for new, old, value in zip(layer.states, before, (0.25, -0.5), strict=True):
        assert (new[[0, 3]] == value).all()
        assert (new[1] == old[1]).all()
        assert (new[2] == 0).all()


@pytest.mark.parametrize("layer", ["SimpleRNN", "GRU", "LSTM"])
@pytest.mark.parametrize(("steps", "rows"), [(0, 3), (5, 0), (0, 0)])
def test_nothing_in_gives_nothing_out_and_keeps_the_state(
    layer: str, steps: int, rows: int
) -> None:
    """No steps, or no rows: Keras fails; here the shapes are right and the state is as it was."""
    case = Case(layer, steps=steps, rows=rows)
    arrays = case.arrays()
    assert arrays.state is not None
    whole = layer_whole(case.build(), arrays)
    assert whole["y"].shape == (rows, steps, case.units)
    last, *states = case.build(return_sequences=False)(arrays.x, initial_state=arrays.state)
    assert last.shape == (rows, case.units)
    assert not last.any()  # no step was taken, so no output was emitted: Keras's zeros
    if steps == 0:
        assert same_bits(named(states), named(arrays.state))
