"""A stream of pieces is the whole sequence, bit for bit, whatever happens in between; rows come and
go and never see one another. And chunk by chunk it computes Keras's numbers.
"""

import os
import tempfile
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from strategies import cuttings

import refrnn
from refrnn import Stream, layers
from refrnn.layers.masks import leaves
from refrnn.verify import compare

B, T, F = 3, 12, 4


def randomize(model: Any, seed: int = 0) -> Any:
    """`model` with weights that hide nothing: biases not zero, nothing symmetric."""
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.get_weights()])
    return model


def chain(*inner: Any, shape: Any = (None, F), dtype: str = "float32") -> Any:
    return randomize(refrnn.Sequential([layers.Input(shape, dtype=dtype), *inner]))


class Nested(layers.Layer):
    """A cell with a state of parts in a dictionary, and an output of its own width."""

    state_size = {"a": 3, "b": [2, 4]}  # noqa: RUF012 as a user would write it
    output_size = 5

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight((input_shape[-1] + 9, 14), name="kernel")

    def get_initial_state(self, batch_size: int) -> Any:
        return [
            {"a": np.ones((batch_size, 3)), "b": [np.full((batch_size, n), 0.5) for n in (2, 4)]}
        ]

    def call(self, inputs: Any, states: Any) -> Any:
        [state] = states
        z = np.concatenate([inputs, state["a"], *state["b"]], axis=1)
        z = np.tanh(refrnn.cells.dot(z, self.kernel))
        return z[:, :5], [{"a": z[:, 5:8], "b": [z[:, 8:10], z[:, 10:]]}]


def inputs_of(model: Any, rows: int, steps: int, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    made = []
    for item in model.inputs:
        if item.dtype.startswith("int"):
            made.append(rng.integers(0, 4, (rows, steps)))
        else:
            times = () if len(item.shape) < 3 else (steps,)
            made.append(rng.normal(size=(rows, *times, item.shape[-1])).astype(item.dtype))
    return made


def with_states() -> Any:
    """Two inputs: a sequence, and the state to begin with."""
    x, h = layers.Input((None, F)), layers.Input((5,))
    y, end = layers.GRU(5, return_sequences=True, return_state=True)(x, initial_state=h)
    return randomize(refrnn.Model([x, h], {"y": layers.Dense(2)(y), "end": end}))


def shared() -> Any:
    """A layer called twice, a model inside, two outputs."""
    x = layers.Input((None, F))
    inner = chain(layers.GRU(F, return_sequences=True), layers.Dense(F))
    twice = layers.LSTM(F, return_sequences=True)
    y = layers.Add()([twice(inner(x)), twice(x)])
    return randomize(refrnn.Model(x, [layers.LSTM(3)(y), y]))


MODELS: dict[str, Callable[[], Any]] = {
    "lstm": lambda: chain(layers.LSTM(5, return_sequences=True, name="lstm")),
    "gru, last output": lambda: chain(layers.GRU(5)),
    "gru reset before, float64": lambda: chain(
        layers.GRU(5, reset_after=False, return_sequences=True, dtype="float64"), dtype="float64"
    ),
    "lstm on the NumPy engine": lambda: chain(
        layers.LSTM(5, return_sequences=True, engine="numpy"), layers.Dense(3)
    ),
    "simple, float16": lambda: chain(
        layers.SimpleRNN(5, return_sequences=True, dtype="float16"), dtype="float16"
    ),
    "stack with dense": lambda: chain(
        layers.LSTM(5, return_sequences=True),
        layers.Dropout(0.5),
        layers.TimeDistributed(layers.Dense(4, activation="relu")),
        layers.GRU(3),
        layers.Dense(2, activation="softmax"),
    ),
    "states returned": lambda: chain(layers.LSTM(5, return_sequences=True, return_state=True)),
    "zeros for masked steps": lambda: chain(
        layers.LSTM(5, return_sequences=True, zero_output_for_mask=True)
    ),
    "an activation of one's own": lambda: chain(
        layers.SimpleRNN(5, activation=lambda z: np.tanh(z) / 2, return_sequences=True)
    ),
    "normalized": lambda: chain(
        layers.LayerNormalization(), layers.GRU(5, return_sequences=True), layers.ELU()
    ),
    "stacked cells": lambda: chain(
        layers.RNN([layers.LSTMCell(5), layers.GRUCell(3)], return_sequences=True)
    ),
    "nested cell": lambda: chain(layers.RNN(Nested(), return_sequences=True)),
    "causal convolution": lambda: chain(
        layers.Conv1D(6, 3, padding="causal", dilation_rate=2, groups=2),
        layers.GRU(5, return_sequences=True),
    ),
    "ids with a mask": lambda: chain(
        layers.Embedding(4, 3, mask_zero=True),
        layers.LSTM(5, return_sequences=True),
        shape=(None,),
        dtype="int32",
    ),
    "masking": lambda: chain(layers.Masking(0.0), layers.LSTM(5, return_sequences=True)),
    "a state to begin with": with_states,
    "shared and nested": shared,
}


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: make() for name, make in MODELS.items()}


def bare(arrays: list[Any]) -> Any:
    return arrays if len(arrays) > 1 else arrays[0]


def piece(arrays: list[np.ndarray], span: slice) -> Any:
    return bare([a[:, span] if a.ndim > 2 or a.dtype.kind == "i" else a for a in arrays])


def same(got: Any, want: Any) -> None:
    got, want = leaves(got), leaves(want)
    assert len(got) == len(want) > 0
    for a, b in zip(got, want, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert a.tobytes() == b.tobytes()


def joined(stream: Any, parts: list[Any]) -> list[np.ndarray]:
    """Outputs of pieces, one after another where they have a time axis."""
    columns = list(zip(*map(leaves, parts), strict=True))
    return [
        np.concatenate(c, axis=1) if kind == "steps" else c[-1]
        for c, kind in zip(columns, stream._advance.kinds, strict=True)
    ]


# --- pieces and the whole ---


@pytest.mark.parametrize("name", MODELS)
@given(data=st.data())
def test_a_stream_of_pieces_equals_one_sequence(
    models: Any, name: str, data: st.DataObject
) -> None:
    model = models[name]
    x = inputs_of(model, B, T, data.draw(st.integers(0, 99)))
    mask = None
    if len(x) == 1 and data.draw(st.booleans()):
        mask = np.random.default_rng(data.draw(st.integers(0, 99))).random((B, T)) < 0.6
    stream, at, parts = Stream(model, B), 0, []
    for size in data.draw(cuttings(T)):
        span = slice(at, at + size)
        now = None if mask is None else mask[:, span]
        if size == 1 and mask is None:
            outputs = stream.step(
                bare([a[:, at] if a.ndim > 2 or a.dtype.kind == "i" else a for a in x])
            )
            wide = iter(stream._advance.kinds)
            outputs = [y[:, None] if next(wide) == "steps" else y for y in leaves(outputs)]
        else:
            outputs = stream.push(piece(x, span), mask=now)
        parts.append(outputs)
        at += size
    want = model(bare(x)) if mask is None else model(bare(x), mask=mask)
    same(joined(stream, parts), want)
    assert stream.steps.tolist() == [T] * B


@pytest.mark.parametrize("name", MODELS)
def test_a_reset_row_is_a_new_one(models: Any, name: str) -> None:
    """Resets within a piece, before a piece, and of a whole row: a row's rest is as if alone."""
    model = models[name]
    x = inputs_of(model, B, T)
    reset = np.zeros((B, T), bool)
    reset[1, 5] = reset[2, [0, 4, 9]] = True
    stream = Stream(model, B)
    stream.push(bare(x))
    stream.reset([0, 2])
    got = leaves(stream.push(bare(x), reset=reset))
    assert stream.steps.tolist() == [T, T - 5, T - 9]
    for row, since in ((0, 0), (1, 5), (2, 9)):
        mine = [a[row : row + 1] for a in x]
        alone = leaves(model(piece(mine, slice(since, T))))
        for y, want, kind in zip(got, alone, stream._advance.kinds, strict=True):
            same(y[row : row + 1, since:] if kind == "steps" else y[row : row + 1], want)


@pytest.mark.parametrize("cell", ["lstm", "gru", "gru_reset_before", "simple"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_bare_cell_is_run(cell: str, dtype: str) -> None:
    """With masks and resets at the same steps: forgetting comes first."""
    rng = np.random.default_rng(3)
    shapes = refrnn.cells.CELLS[cell].shapes(F, 5)
    weights = refrnn.Weights(*(rng.normal(size=s).astype(dtype) for s in shapes))
    x = rng.normal(size=(B, T, F)).astype(dtype)
    mask, reset = rng.random((B, T)) < 0.5, rng.random((B, T)) < 0.3
    want, state = refrnn.run(cell, weights, x, mask=mask, reset=reset)
    stream = Stream((cell, weights), rows=B)
    cuts = ((0, 5), (5, 5), (5, 6), (6, T))
    got = [stream.push(x[:, a:b], mask=mask[:, a:b], reset=reset[:, a:b]) for a, b in cuts]
    same(np.concatenate(got, axis=1), want)
    for name, part in state._asdict().items():
        same(stream.state[cell][name], part)
    same(stream.state[cell]["last_output"], want[:, -1])


def test_cells_and_layers_are_streamed_too() -> None:
    x = np.random.default_rng(0).normal(size=(B, T, F)).astype(np.float32)
    cell = layers.LSTMCell(5)
    cell.build((None, F))
    want = layers.RNN(cell, return_sequences=True)(x)
    stream = Stream(cell, rows=B)
    same(np.concatenate([stream.push(x[:, :7]), stream.push(x[:, 7:])], axis=1), want)
    layer = layers.GRU(5)
    layer(x)
    stream = Stream(layer, rows=B)
    stream.push(x[:, :7])
    same(stream.push(x[:, 7:]), layer(x))


def test_the_state_given_with_the_first_step_counts() -> None:
    """Not one that came with no steps, nor one that comes later; and after a reset, again."""
    model = with_states()
    x, first = inputs_of(model, B, T)
    _, second = inputs_of(model, B, T, seed=2)
    stream = Stream(model, B)
    stream.push([x[:, :0], second])
    parts = [stream.push([x[:, :5], first]), stream.push([x[:, 5:], second])]
    same(np.concatenate([part["y"] for part in parts], axis=1), model([x, first])["y"])
    stream.reset()
    same(stream.push([x, second]), model([x, second]))
    stream.reset()
    [gru] = stream.state
    stream.set_state({gru: {"h": first}})
    same(stream.push([x, second])["y"], model([x, first])["y"])


def test_peek_takes_nothing(models: Any) -> None:
    for model in models.values():
        x = inputs_of(model, B, T)
        stream = Stream(model, B)
        stream.push(piece(x, slice(0, 5)))
        before = stream.snapshot()
        seen = stream.peek(piece(x, slice(5, T)))
        same(list(stream.state.values()), list(before.state.values()))
        same(stream.push(piece(x, slice(5, T))), seen)


def test_what_a_stateful_model_carries_is_left_alone() -> None:
    model = chain(layers.LSTM(5, stateful=True, return_sequences=True))
    x = np.ones((B, T, F), np.float32)
    first = model(x)
    carried = model.layers[0].states
    stream = Stream(model, B)
    same(stream.push(x), first)
    same(model.layers[0].states, carried)


def test_thousands_of_steps_later_the_bits_are_those_of_the_whole() -> None:
    """Three layers, pieces of every kind, and ones that are taken back, for 4000 steps."""
    model = chain(
        layers.LSTM(5, return_sequences=True),
        layers.GRU(4, return_sequences=True),
        layers.SimpleRNN(3, return_sequences=True),
    )
    rng = np.random.default_rng(5)
    x = rng.normal(size=(B, 4000, F)).astype(np.float32)
    mask = rng.random((B, 4000)) < 0.9
    want = model(x, mask=mask)
    stream, at = Stream(model, B), 0
    while at < 4000:
        size = int(rng.choice([0, 1, 1, 2, 7, 40]))
        piece = slice(at, at + size)
        if rng.random() < 0.2:
            kept = stream.snapshot()
            stream.push(rng.normal(size=(B, 3, F)))
            stream.reset([1])
            if rng.random() < 0.5:
                stream = Stream(model, rows=1)
            stream.restore(kept)
        if size == 1 and mask[:, at].all():
            got = stream.step(x[:, at])[:, None]
        else:
            got = stream.push(x[:, piece], mask=mask[:, piece])
        same(got, want[:, piece])
        at += size


def test_new_weights_are_those_of_the_next_step() -> None:
    model = chain(layers.LSTM(5, return_sequences=True), layers.Dense(2))
    x = np.random.default_rng(0).normal(size=(B, 4, F)).astype(np.float32)
    stream, other = Stream(model, B), Stream(model, B)
    stream.step(x[:, 0])
    other.push(x[:, :1])
    randomize(model, seed=1)
    for t in (1, 2):
        same(stream.step(x[:, t]), other.push(x[:, t : t + 1])[:, 0])


# --- rows that come and go: a machine against a list of all inputs ---

STATEFUL = {
    "stack": lambda: chain(
        layers.LSTM(4, return_sequences=True), layers.GRU(3, return_sequences=True), layers.Dense(2)
    ),
    "last output of a gru": lambda: chain(layers.GRU(4, reset_after=False)),
    "nested cell": lambda: chain(layers.RNN(Nested(), return_sequences=True)),
}


class Machine(RuleBasedStateMachine):
    """Each row is known by all that it has seen: x (t, F) and mask (t,) since it was new."""

    snapshots = Bundle("snapshots")

    @initialize(name=st.sampled_from(sorted(STATEFUL)), rows=st.integers(0, 3))
    def begin(self, name: str, rows: int) -> None:
        self.model = STATEFUL[name]()
        self.stream = Stream(self.model, rows=rows)
        self.seen = {row: self.nothing() for row in range(rows)}

    @staticmethod
    def nothing() -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((0, F), np.float32), np.zeros(0, bool)

    def want(self, row: int, last: int) -> np.ndarray:
        """The outputs of the last steps of a row, by one call on all it has seen."""
        x, mask = self.seen[row]
        y = self.model(x[None], mask=mask[None])
        return y[0, len(x) - last :] if y.ndim > 2 else y[0]

    def take(self, row: int, x: np.ndarray, mask: np.ndarray) -> None:
        old, was = self.seen[row]
        self.seen[row] = np.concatenate([old, x]), np.concatenate([was, mask])

    def drawn(self, data: st.DataObject, *shape: int) -> np.ndarray:
        seed = data.draw(st.integers(0, 2**16))
        return np.random.default_rng(seed).normal(size=shape).astype(np.float32)

    @rule(data=st.data(), steps=st.integers(0, 4), masked=st.booleans(), forgets=st.booleans())
    def push(self, data: st.DataObject, steps: int, masked: bool, forgets: bool) -> None:
        rows, given = self.some_rows(data)
        x = self.drawn(data, len(rows), steps, F)
        mask = self.drawn(data, len(rows), steps) > -0.5 if masked else None
        reset = self.drawn(data, len(rows), steps) > 0.8 if forgets else None
        y = self.stream.push(x, mask=mask, reset=reset, rows=given)
        for k, row in enumerate(rows):
            live = np.ones(steps, bool) if mask is None else mask[k]
            first = 0
            for t in range(steps):
                if reset is not None and reset[k, t]:
                    self.seen[row], first = self.nothing(), t
                self.take(row, x[k, t : t + 1], live[t : t + 1])
            same(y[k, first:] if y.ndim > 2 else y[k], self.want(row, steps - first))

    def some_rows(self, data: st.DataObject) -> tuple[list[int], list[int] | None]:
        """Rows in any order, or all by None."""
        if data.draw(st.booleans()):
            return sorted(self.seen), None
        rows = data.draw(st.permutations(sorted(self.seen)))
        rows = rows[: data.draw(st.integers(0, len(rows)))]
        return rows, rows

    @rule(data=st.data(), times=st.integers(1, 4))
    def step(self, data: st.DataObject, times: int) -> None:
        for _ in range(times):
            x = self.drawn(data, len(self.seen), F)
            y = self.stream.step(x)
            for k, row in enumerate(sorted(self.seen)):
                self.take(row, x[k : k + 1], np.ones(1, bool))
                want = self.want(row, 1)
                same(y[k], want[0] if want.ndim > 1 else want)

    @rule(data=st.data())
    def reset(self, data: st.DataObject) -> None:
        rows, given = self.some_rows(data)
        self.stream.reset(given)
        self.seen |= {row: self.nothing() for row in rows}

    @rule()
    def join(self) -> None:
        row = self.stream.join()
        assert row == min(set(range(len(self.seen) + 1)) - set(self.seen))
        self.seen[row] = self.nothing()

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(sorted(self.seen)))
        self.stream.leave(row)
        del self.seen[row]

    @precondition(lambda self: len(self.seen) > 1)
    @rule(data=st.data())
    def copy_a_row(self, data: st.DataObject) -> None:
        here, there = data.draw(st.permutations(sorted(self.seen)))[:2]
        k = sorted(self.seen).index(here)
        state = {n: {p: a[[k]] for p, a in parts.items()} for n, parts in self.stream.state.items()}
        self.stream.set_state(state, rows=[there])
        self.seen[there] = self.seen[here]

    @rule(target=snapshots)
    def snapshot(self) -> Any:
        return self.stream.snapshot(), dict(self.seen)

    @rule(kept=snapshots, another=st.booleans())
    def restore(self, kept: Any, another: bool) -> None:
        snapshot, seen = kept
        if another:
            self.stream = Stream(self.model, rows=2)
        self.stream.restore(snapshot)
        self.seen = dict(seen)

    @rule(suffix=st.sampled_from([".npz", ".h5"]))
    def save_and_load(self, suffix: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"state{suffix}"
            self.stream.save(path)
            self.stream = Stream.load(path, self.model)

    @rule(
        data=st.data(), wrong=st.sampled_from(["features", "rows", "mask", "reset", "row", "text"])
    )
    def a_bad_push(self, data: st.DataObject, wrong: str) -> None:
        before = self.stream.snapshot()
        rows = len(self.seen)
        x: Any = self.drawn(data, rows + (wrong == "rows"), 2, F + (wrong == "features"))
        arguments: dict[str, Any] = {}
        if wrong in ("mask", "reset"):
            arguments[wrong] = np.ones((rows, 3))
        if wrong == "row":
            arguments["rows"] = [*range(rows - 1), 99]
        with pytest.raises((ValueError, TypeError)):
            self.stream.push(x.astype(str) if wrong == "text" else x, **arguments)
        same(list(self.stream.state.values()), list(before.state.values()))
        same(self.stream.steps, before.steps)

    @invariant()
    def rows_are_those_that_joined(self) -> None:
        if hasattr(self, "seen"):
            assert self.stream.rows == sorted(self.seen)


TestMachine = Machine.TestCase
TestMachine.settings = settings(stateful_step_count=50)


def test_ten_thousand_rows_never_see_one_another() -> None:
    """Sessions of their own lengths come, go and are served in random groups."""
    model = chain(layers.GRU(3, return_sequences=True), layers.LSTM(2, return_sequences=True))
    rng = np.random.default_rng(0)
    count = 10_000
    x = rng.normal(size=(count, 6, F)).astype(np.float32)
    lengths = rng.integers(1, 7, count)
    want = model(x)
    stream = Stream(model, rows=0)
    waiting, at, rows = list(range(count)), np.zeros(count, int), {}
    most = 0
    while waiting or rows:
        for session in [waiting.pop() for _ in range(min(len(waiting), 700))]:
            rows[session] = stream.join()
        served = [s for s in rows if rng.random() < 0.5]
        rng.shuffle(served)
        most = max(most, len(rows))
        for steps in (1, 2):
            group = [s for s in served[steps - 1 :: 2] if at[s] + steps <= lengths[s]]
            if not group:
                continue
            now = np.stack([x[s, at[s] : at[s] + steps] for s in group])
            y = stream.push(now, rows=[rows[s] for s in group])
            same(y, np.stack([want[s, at[s] : at[s] + steps] for s in group]))
            at[group] += steps
        for session in [s for s in rows if at[s] == lengths[s]]:
            stream.leave(rows.pop(session))
    assert (at == lengths).all()
    assert stream.rows == []
    assert most < stream._rows.capacity < count  # numbers were used again


def test_a_long_run_takes_no_more_memory() -> None:
    """One million steps in the nightly profile, a tenth of it otherwise."""
    steps = 1_000_000 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 100_000
    model = chain(layers.SimpleRNN(2, return_sequences=True), shape=(None, 1))
    x = np.random.default_rng(0).normal(size=(1, steps, 1)).astype(np.float32)
    got = np.empty((1, steps, 2), np.float32)
    stream = Stream(model)
    tracemalloc.start()
    try:
        for t in range(steps):
            if t == steps // 10:
                before = tracemalloc.get_traced_memory()[0]
            got[:, t] = stream.step(x[:, t])
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert after - before < 2_000  # bytes, for nine tenths of the steps
    same(got, model(x))
    assert stream.steps.tolist() == [steps]


# --- Keras ---


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["SimpleRNN", "GRU", "LSTM"])
def test_chunks_are_those_of_a_stateful_keras_model(tf: Any, kind: str, dtype: str) -> None:
    k = tf.keras
    source = k.Sequential(
        [
            k.Input(batch_shape=(B, None, F), dtype=dtype),
            getattr(k.layers, kind)(5, stateful=True, return_sequences=True, dtype=dtype),
            getattr(k.layers, kind)(4, stateful=True, return_sequences=True, dtype=dtype),
            k.layers.Dense(2, dtype=dtype),
        ]
    )
    randomize(source)
    stream = Stream(refrnn.from_keras(source), rows=B)
    x = np.random.default_rng(0).normal(size=(B, 60, F)).astype(dtype)
    limit = {"float32": 1e-5, "float64": 1e-12}[dtype]  # as in test_tutorials
    for a, b in ((0, 7), (7, 8), (8, 9), (9, 40), (40, 60)):
        want = np.asarray(source(tf.tf.constant(x[:, a:b])))
        compare({"y": stream.push(x[:, a:b])}, {"y": want}, limit, f"{kind}, steps {a} to {b}")


@pytest.mark.parametrize("kind", ["SimpleRNN", "GRU", "LSTM"])
def test_chunks_are_those_of_keras_with_states_carried_by_hand(tf: Any, kind: str) -> None:
    theirs = getattr(tf.keras.layers, kind)(5, return_sequences=True, return_state=True)
    theirs.build((None, None, F))
    stream = Stream(refrnn.from_keras(randomize(theirs)), rows=B)
    rng = np.random.default_rng(0)
    state = None
    for steps in (5, 1, 1, 9, 3):
        x = rng.normal(size=(B, steps, F)).astype(np.float32)
        y, *state = theirs(tf.tf.constant(x), initial_state=state)
        got, *mine = stream.push(x)
        names = ["y", *(f"state {k}" for k in range(len(state)))]
        want = [np.asarray(a) for a in (y, *state)]
        compare(
            dict(zip(names, [got, *mine], strict=True)),
            dict(zip(names, want, strict=True)),
            1e-5,
            kind,
        )


# --- what is refused ---


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda: chain(layers.Flatten(), shape=(T, F)), "Flatten .*TimeDistributed"),
        (lambda: chain(layers.Reshape((2, -1)), shape=(T, F)), "Reshape .*features alone"),
        (lambda: chain(layers.GlobalMaxPooling1D()), "GlobalMaxPooling1D .*before it"),
        (lambda: chain(layers.Conv1D(2, 3)), 'Conv1D .* mixes time .*padding="causal"'),
        (lambda: chain(layers.Conv1D(2, 3, padding="causal", strides=2)), "Conv1D .* mixes time"),
        (lambda: chain(layers.GRU(2, go_backwards=True)), "GRU .* runs backwards.*whole sequences"),
        (
            lambda: chain(layers.Bidirectional(layers.GRU(2, name="g"), name="pair")),
            'Bidirectional \'pair\' mixes time .*bidirectional="chunk"',
        ),
    ],
)  # fmt: skip
def test_a_layer_that_mixes_time_is_refused_with_advice(made: Any, why: str) -> None:
    with pytest.raises(ValueError, match=f"cannot be streamed: .*{why}"):
        Stream(made())


def test_what_is_not_built_or_no_model_is_refused() -> None:
    with pytest.raises(ValueError, match="GRU 'g' is not built, expected weights"):
        Stream(layers.GRU(2, name="g"))
    with pytest.raises(ValueError, match=r"model is 'm.keras', expected .*load_model"):
        Stream("m.keras")
    model = chain(layers.GRU(2))
    for rows in (-1, True, 2.0):
        with pytest.raises(ValueError, match=r"rows is .*, expected a whole number"):
            Stream(model, rows=rows)
    with pytest.raises(ValueError, match="bidirectional is 'both'"):
        Stream(model, bidirectional="both")


def test_bidirectional_by_chunks_goes_on_forwards_alone() -> None:
    """One chunk is the whole; of more, the forward half is that of the whole sequence."""
    pair = layers.Bidirectional(layers.LSTM(3, return_sequences=True))
    model = chain(pair)
    x = np.random.default_rng(0).normal(size=(B, T, F)).astype(np.float32)
    stream = Stream(model, B, bidirectional="chunk")
    same(stream.push(x), model(x))
    stream.reset()
    parts = [stream.push(x[:, :5]), stream.push(x[:, 5:])]
    got, whole = np.concatenate(parts, axis=1), model(x)
    same(got[..., :3].copy(), whole[..., :3].copy())
    same(got[:, :5, 3:].copy(), model(x[:, :5])[..., 3:].copy())
    same(got[:, 5:, 3:].copy(), model(x[:, 5:])[..., 3:].copy())


def test_a_reset_cuts_only_its_own_row_of_a_bidirectional_layer() -> None:
    model = chain(layers.Bidirectional(layers.GRU(3, return_sequences=True)))
    x = np.random.default_rng(0).normal(size=(B, T, F)).astype(np.float32)
    reset = np.zeros((B, T), bool)
    reset[1, 4] = True
    y = Stream(model, B, bidirectional="chunk").push(x, reset=reset)
    whole = model(x)
    same(y[[0, 2]], whole[[0, 2]])
    same(y[1:2, 4:], model(x[1:2, 4:]))
    same(y[1:2, :4], model(x[1:2, :4]))


# --- states by name ---


def test_states_have_names(models: Any) -> None:
    found = {name: Stream(model, 2).state for name, model in models.items()}
    assert {n: a.shape for n, a in found["lstm"]["lstm"].items()} == {
        "h": (2, 5), "c": (2, 5), "last_output": (2, 5),
    }  # fmt: skip
    [stacked] = found["stacked cells"].values()
    assert list(stacked) == ["0.h", "0.c", "1.h", "last_output"]
    [nested] = found["nested cell"].values()
    assert list(nested) == ["0.a", "0.b.0", "0.b.1", "last_output"]
    assert nested["0.a"].all()  # as get_initial_state says
    assert len(found["shared and nested"]) == 4
    assert any("/" in name for name in found["shared and nested"])
    assert any(name.endswith("#1") for name in found["shared and nested"])


def test_a_state_that_does_not_fit_is_refused_and_nothing_is_written() -> None:
    stream = Stream(chain(layers.LSTM(5, name="l")), rows=2)
    stream.step(np.ones((2, F)))
    before = stream.state
    good = np.zeros((2, 5))
    for state, why in (
        ({"m": {"h": good}}, "has 'm', expected some of \\['l'\\]"),
        ({"l": {"h": good, "k": good}}, "has 'k', expected some of \\['h', 'c', 'last_output'\\]"),
        ({"l": {"h": good, "c": good[:1]}}, r"'c' has shape \(1, 5\), expected \(2, 5\)"),
        ({"l": good}, "is ndarray, expected a dictionary"),
        ({"l": {"h": good.astype(str)}}, "expected real numbers"),
    ):
        with pytest.raises((ValueError, TypeError), match=why):
            stream.set_state(state)
    same(list(stream.state.values()), list(before.values()))


def test_states_given_are_copies() -> None:
    stream = Stream(chain(layers.LSTM(5, name="l")), rows=2)
    stream.step(np.ones((2, F)))
    before = stream.state
    stream.state["l"]["h"][:] = 9
    snapshot = stream.snapshot()
    stream.step(np.ones((2, F)))
    same(list(snapshot.state.values()), list(before.values()))
    y = stream.step(np.ones((2, F)))
    kept = stream.state
    y[:] = 9
    same(list(stream.state.values()), list(kept.values()))


def test_a_snapshot_of_another_model_is_refused() -> None:
    stream = Stream(chain(layers.GRU(3)))
    snapshot = stream.snapshot()
    Stream(chain(layers.GRU(3))).restore(snapshot)  # made again: the same weights
    others = [
        chain(layers.GRU(3, reset_after=False)),
        chain(layers.GRU(3, activation="relu")),
        chain(layers.GRU(4)),
        chain(layers.GRU(3, return_sequences=True)),
        chain(layers.GRU(3, dtype="float64")),
        chain(layers.GRU(3), layers.Dropout(0.5)),
        randomize(chain(layers.GRU(3)), seed=1),
    ]
    for other in others:
        with pytest.raises(ValueError, match="whose layers or weights are others"):
            Stream(other).restore(snapshot)
    with pytest.raises(ValueError, match="expected what snapshot"):
        stream.restore(stream.state)


# --- rows ---


def test_rows_have_numbers_and_names() -> None:
    stream = Stream(chain(layers.GRU(3)), rows=2)
    assert [stream.join("a"), stream.join(), stream.join("b")] == [2, 3, 4]
    stream.leave(2)
    assert stream.names == {"b": 4}
    assert stream.rows == [0, 1, 3, 4]
    assert stream.join("a") == 2
    with pytest.raises(ValueError, match="name is 'a', expected a text that no row has"):
        stream.join("a")
    for rows, why in (
        ([7], "row 7 is not there, expected rows \\[0, 1, 2, 3, 4\\]"),
        ([-1], "row -1 is not there"),
        ([1, 1], "each row once"),
        ([0.5], "expected numbers of rows"),
        ([True, False], "expected numbers of rows, or 5 booleans"),
    ):
        with pytest.raises(ValueError, match=why):
            stream.push(np.ones((len(rows), 1, F)), rows=rows)
    stream.reset([True, False, False, False, False])
    assert stream.steps.tolist() == [0] * 5


# --- health ---


def test_health_counts_saturated_gates_and_finds_the_first_bad_number() -> None:
    model = chain(
        layers.LSTM(3, return_sequences=True, activation="linear", name="l"),
        layers.GRU(2, return_sequences=True, name="g"),
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(B, T, F)).astype(np.float32)
    stream = Stream(model, B, health=True)
    plain = Stream(model, B)
    same(stream.push(x), plain.push(x))
    health = stream.health()
    assert health.first_bad is None
    assert health.layers["l"].steps == B * T
    gates = refrnn.trace(
        "lstm", refrnn.Weights(*model.layers[0].get_weights()), x, activation="linear"
    )
    want = float(((gates.f < 0.01) | (gates.f > 0.99)).mean())
    assert health.layers["l"].saturated["f"] == want
    assert set(health.layers["g"].saturated) == {"z", "r"}
    assert health.layers["l"].c_last == float(np.abs(gates.c[:, -1]).max())
    x[1, 3] = np.nan
    stream.peek(x)
    assert stream.health().first_bad is None
    stream.leave(0)
    stream.push(x[1:, :2])
    assert stream.health().layers["l"].steps == B * T + 4
    stream.push(x[1:, 2:])
    assert stream.health().first_bad == (1, T + 3, "l", "input")
    big = np.full((2, 1, F), 3e38, np.float32)
    stream = Stream(model, 2, health=True)
    stream.push(big)
    assert stream.health().first_bad[2:] == ("l", "overflow")
    with pytest.raises(ValueError, match="made with health=True"):
        plain.health()


# --- threads, and steps that are interrupted ---


class Waiting(layers.Layer):
    """A cell that waits until it is told to go on."""

    state_size = 1

    def __init__(self, entered: threading.Event, go: threading.Event) -> None:
        super().__init__()
        self.entered, self.go = entered, go

    def call(self, inputs: Any, states: Any) -> Any:
        self.entered.set()
        assert self.go.wait(30)
        return inputs[:, :1], [states[0] + 1]


def test_a_second_thread_is_turned_away() -> None:
    entered, go = threading.Event(), threading.Event()
    go.set()
    model = refrnn.Sequential([layers.RNN(Waiting(entered, go))])
    x = np.ones((1, 1, 2), np.float32)
    model(x)
    stream = Stream(model)
    entered.clear()
    go.clear()
    worker = threading.Thread(target=stream.push, args=(x,))
    worker.start()
    assert entered.wait(30)
    calls: list[Callable[[], Any]] = [
        lambda: stream.push(x), lambda: stream.step(x[0]), lambda: stream.state,
        lambda: stream.reset(), lambda: stream.snapshot(), lambda: stream.join(),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(RuntimeError, match="one thread at a time"):
            call()
    go.set()
    worker.join()
    assert stream.steps.tolist() == [1]
    stream.step(x[0])
    assert stream.steps.tolist() == [2]


def test_streams_of_one_model_run_in_threads() -> None:
    model = chain(layers.LSTM(5, return_sequences=True), layers.Dense(2))
    x = np.random.default_rng(0).normal(size=(8, 200, F)).astype(np.float32)
    want, got = model(x), {}

    def serve(k: int) -> None:
        stream = Stream(model)
        got[k] = np.stack([stream.step(x[k : k + 1, t]) for t in range(200)], axis=1)

    workers = [threading.Thread(target=serve, args=(k,)) for k in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for k in range(8):
        same(got[k], want[k : k + 1])


def test_an_interrupted_step_is_known() -> None:
    """One layer has stepped and the next has not: nothing goes on from there."""
    model = chain(layers.GRU(3, return_sequences=True), layers.LSTM(3, name="late"))
    x = np.ones((1, F), np.float32)
    stream, plain = Stream(model), Stream(model)
    stream.step(x)
    kept = stream.snapshot()
    bound = stream._bound

    def interrupted(x: np.ndarray) -> np.ndarray:
        bound.step(x)
        raise KeyboardInterrupt

    stream._bound = bound._replace(step=interrupted)
    with pytest.raises(KeyboardInterrupt):
        stream.step(x)
    for call in (lambda: stream.step(x), lambda: stream.push(x[None]), lambda: stream.state):
        with pytest.raises(RuntimeError, match="was interrupted"):
            call()
    stream.restore(kept)
    plain.step(x)
    same(stream.step(x), plain.step(x))
    stream._torn = True
    stream.reset()
    plain.reset()
    same(stream.step(x), plain.step(x))


def test_an_error_in_the_middle_of_a_push_leaves_every_state() -> None:
    """The first layer has taken its steps when the second one fails, at its second step."""
    left = [10**9]

    def late(z: np.ndarray) -> np.ndarray:
        left[0] -= 1
        if left[0] < 0:
            raise ArithmeticError("here")
        return np.tanh(z)

    model = chain(
        layers.GRU(3, return_sequences=True),
        layers.SimpleRNN(2, activation=late, return_sequences=True),
    )
    x = np.random.default_rng(0).normal(size=(1, 4, F)).astype(np.float32)
    want = model(x)
    stream = Stream(model)
    first = stream.push(x[:, :1])
    before = stream.state
    for allowed, call in ((1, lambda: stream.push(x[:, 1:])), (0, lambda: stream.step(x[:, 1]))):
        left[0] = allowed
        with pytest.raises(ArithmeticError):
            call()
        same(list(stream.state.values()), list(before.values()))
    left[0] = 10**9
    same(np.concatenate([first, stream.push(x[:, 1:])], axis=1), want)
