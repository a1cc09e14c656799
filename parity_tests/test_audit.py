"""An audit names what is wrong with a stream, and finds nothing wrong with a right one.

Each planted bug below is one slip in an otherwise right callable; the audit must name it first, by
the check that is about it, and say where.
"""

import json
import re
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refrnn
from refrnn import Stream
from refrnn.cases import Case
from refrnn.verify import Audit, audit_stream
from refrnn.verify.audits import CHECKS
from refrnn.verify.audits.auditor import SHORT, compositions

F, H, ROWS = 4, 5, 3
CASE = Case("LSTM", features=F, units=H, dtype="float32", seed=3)
WEIGHTS = refrnn.Weights(*CASE.build().get_weights())
LSTM = "lstm", WEIGHTS


def run(x: Any, state: Any = None, **options: Any) -> Any:
    return refrnn.run("lstm", WEIGHTS, x, state, engine="numpy", **options)


class Plain:
    """A right stream, as one would write it by hand; `state` is a list [h, c]."""

    def __init__(self) -> None:
        self.rows = list(range(ROWS))
        self.state = self.zeros()

    def zeros(self) -> Any:
        return [np.zeros((ROWS, H), np.float32) for _ in "hc"]

    def advance(self, x: Any, state: Any, **options: Any) -> Any:
        y, after = run(x, state, **options)
        return y, list(after)

    def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
        y, self.state = self.advance(x, self.state, mask=mask, reset=reset)
        return y

    def step(self, x: Any) -> Any:
        return self.push(x[:, None])[:, 0]

    def peek(self, x: Any) -> Any:
        return self.advance(x, self.state)[0]

    def reset(self, rows: Any = None) -> None:
        for part in self.state:
            part[slice(None) if rows is None else rows] = 0

    def snapshot(self) -> Any:
        return [part.copy() for part in self.state]

    def restore(self, saved: Any) -> None:
        self.state = [part.copy() for part in saved]


Plant = Callable[[], Any]
OBJECTS: dict[str, tuple[Plant, str, str]] = {}
FUNCTIONS: dict[str, tuple[Plant, str, str]] = {}
WITH_REFERENCE: dict[str, tuple[Plant, str, str]] = {}


def plant(table: dict[str, Any], name: str, words: str) -> Callable[[Plant], Plant]:
    """A bug, the finding that must come first, and words that its sentence must have."""

    def kept(make: Plant) -> Plant:
        table[make.__name__.strip("_").replace("_", " ")] = make, name, words
        return make

    return kept


# --- objects ---


@plant(OBJECTS, "state used", "the state is cleared")
class state_cleared_on_every_chunk(Plain):  # whisper.cpp#3677
    def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
        self.state = self.zeros()
        return super().push(x, mask, reset)


@plant(OBJECTS, "state used", "the output of row 1 at step 3")
class state_of_one_row_not_carried(Plain):
    def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
        y = super().push(x, mask, reset)
        for part in self.state:
            part[1] = 0
        return y


@plant(OBJECTS, "state used", "whatever came in earlier calls: the state is never used")
class no_recurrence_at_all(Plain):
    def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
        ys = [run(x[:, t : t + 1])[0] for t in range(x.shape[1])]
        return np.concatenate([np.zeros((ROWS, 0, H), np.float32), *ys], axis=1)


@plant(OBJECTS, "chunks", "31 of 32 ways to cut 6 steps differ")
class c_not_carried(Plain):
    def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
        y = super().push(x, mask, reset)
        self.state[1] = np.zeros_like(self.state[1])
        return y


@plant(OBJECTS, "reset", "after reset() it is not as new")
class reset_keeps_c(Plain):
    def reset(self, rows: Any = None) -> None:
        self.state[0][slice(None) if rows is None else rows] = 0


@plant(OBJECTS, "reset", "after reset() it is not as new")
class reset_does_nothing(Plain):
    def reset(self, rows: Any = None) -> None:
        pass


@plant(OBJECTS, "reset", "after two resets in a row")
class a_second_reset_undoes_the_first(Plain):
    kept: Any = None
    fresh = False

    def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
        self.fresh = False
        return super().push(x, mask, reset)

    def reset(self, rows: Any = None) -> None:
        if self.fresh and rows is None:
            self.state, self.fresh = [part.copy() for part in self.kept], False
        elif rows is None:
            self.kept, self.fresh = self.snapshot(), True
            super().reset()
        else:
            super().reset(rows)


@plant(OBJECTS, "row resets", "after reset(rows=[0]) at step 3: y[row 1, step 3, unit 0]")
class reset_of_a_row_resets_all(Plain):
    def reset(self, rows: Any = None) -> None:
        super().reset()


@plant(OBJECTS, "row resets", "y[row 0, step 3, unit 0]")
class reset_of_a_row_keeps_its_c(Plain):
    def reset(self, rows: Any = None) -> None:
        if rows is None:
            super().reset()
        else:
            self.state[0][rows] = 0


@plant(OBJECTS, "row resets", "after reset(rows=[0]) at step 3: y[row 0, step 3, unit 0]")
class reset_of_a_row_counts_from_1(Plain):
    def reset(self, rows: Any = None) -> None:
        super().reset(None if rows is None else [row + 1 for row in rows])


@plant(OBJECTS, "replay", "snapshot() is no copy")
class snapshot_is_the_state_itself(Plain):
    def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
        y, after = self.advance(x, self.state, mask=mask, reset=reset)
        for part, new in zip(self.state, after, strict=True):
            part[...] = new
        return y

    def snapshot(self) -> Any:
        return self.state


@plant(OBJECTS, "replay", "after another input")
class restore_adopts_the_snapshot(Plain):
    push = snapshot_is_the_state_itself.push

    def restore(self, saved: Any) -> None:
        self.state = saved


@plant(OBJECTS, "replay", "nothing is restored")
class restore_does_nothing(Plain):
    def restore(self, saved: Any) -> None:
        pass


@plant(OBJECTS, "replay", "restoring makes it as new")
class restore_resets(Plain):
    def restore(self, saved: Any) -> None:
        self.reset()


@plant(OBJECTS, "peek", "what a second peek() returns: y[row 0, step 3, unit 0]")
class peek_advances(Plain):
    def peek(self, x: Any) -> Any:
        return self.push(x)


@plant(OBJECTS, "step and push", "by step() alone: y[row 0, step 1, unit 0]")
class step_forgets(Plain):
    def step(self, x: Any) -> Any:
        return run(x[:, None])[0][:, 0]


@plant(OBJECTS, "step and push", "by push() and step() in turns")
class step_has_a_state_of_its_own(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.other = self.zeros()

    def step(self, x: Any) -> Any:
        y, self.other = self.advance(x[:, None], self.other)
        return y[:, 0]

    def reset(self, rows: Any = None) -> None:
        super().reset(rows)
        self.other = self.zeros()


@plant(OBJECTS, "returned arrays", "the outputs (3, 1, 5) of an earlier call has changed")
class output_buffer_used_again(Plain):
    def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
        if not hasattr(self, "buffer"):
            self.buffer = np.zeros((ROWS, 100, H), np.float32)
        y = super().push(x, mask, reset)
        self.buffer[:, : y.shape[1]] = y
        return self.buffer[:, : y.shape[1]]


@plant(OBJECTS, "returned arrays", "outputs overwritten after each call: y[row 0, step 1, unit 0]")
class output_is_the_state(Plain):
    def step(self, x: Any) -> Any:
        super().step(x)
        return self.state[0]


@plant(OBJECTS, "arguments", "push() of 1 step writes to its argument x")
class input_written_to(Plain):
    def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
        y = super().push(x, mask, reset)
        x *= 0.5
        return y


@plant(OBJECTS, "masks", "writes to its argument mask")
class mask_written_to(Plain):
    def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
        y = super().push(x, mask, reset)
        if mask is not None:
            mask[:] = True
        return y


@plant(OBJECTS, "arguments", "x overwritten after each call")
class input_kept_for_later(Plain):
    late: Any = None

    def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
        if self.late is not None and self.late.shape[1]:
            _, self.state = self.advance(self.late, self.before)
        self.before = self.snapshot()
        self.late = x if mask is None and reset is None else None
        return super().push(x, mask, reset)

    def reset(self, rows: Any = None) -> None:
        if self.late is not None:
            self.late = None
        super().reset(rows)

    def restore(self, saved: Any) -> None:
        self.late = None
        super().restore(saved)


@plant(OBJECTS, "masks", "other inputs at masked steps")
class mask_ignored(Plain):
    def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
        return super().push(x, None, reset)


@plant(OBJECTS, "masks", "with NaN at masked steps")
class mask_by_multiplication(Plain):
    def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
        if mask is None:
            return super().push(x, None, reset)
        ys = []
        for t in range(x.shape[1]):
            y, after = self.advance(x[:, t : t + 1], self.state)
            live = mask[:, t, None].astype(np.float32)
            pairs = zip(after, self.state, strict=True)
            self.state = [live * new + (1 - live) * old for new, old in pairs]
            ys.append(y * live[:, None])
        return np.concatenate(ys, axis=1)


@plant(OBJECTS, "masks", "row 1 with masked steps, against the row without these steps")
class masked_steps_clear_c(Plain):
    def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
        if mask is None:
            return super().push(x, None, reset)
        ys = []
        for t in range(x.shape[1]):
            y = super().push(x[:, t : t + 1], mask[:, t : t + 1])
            self.state[1] = np.where(mask[:, t, None], self.state[1], 0)
            ys.append(y)
        return np.concatenate(ys, axis=1)


@plant(OBJECTS, "masks", "with another mask in row")
class a_step_masked_in_one_row_is_masked_in_all(Plain):
    def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
        if mask is not None:
            mask = np.broadcast_to(mask.all(axis=0), mask.shape)
        return super().push(x, mask, reset)


@plant(OBJECTS, "resets in a chunk", "with resets inside a chunk: y[row 0, step 1, unit 0]")
class reset_after_the_step(Plain):
    def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
        if reset is not None:
            reset = np.roll(reset, 1, axis=1)
        return super().push(x, mask, reset)


@plant(OBJECTS, "determinism", "two runs of the same input differ")
class dropout_left_on(Plain):
    rng = np.random.default_rng(0)

    def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
        return super().push(x * (self.rng.random(x.shape) < 0.8), mask, reset)


@plant(OBJECTS, "empty chunks", "in chunks of 3 + 0 + 3: y[row 0, step 3, unit 0]")
class a_chunk_of_no_steps_resets(Plain):
    def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
        if not x.shape[1]:
            self.reset()
        return super().push(x, mask, reset)


@plant(OBJECTS, "empty chunks", "with x (3, 0, 4) raises ValueError: no steps")
class a_chunk_of_no_steps_refused(Plain):
    def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
        if not x.shape[1]:
            raise ValueError("no steps")
        return super().push(x, mask, reset)


@plant(OBJECTS, "first call", "raises ZeroDivisionError: division by zero")
class broken(Plain):
    def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
        return 1 / 0


@plant(OBJECTS, "first call", "returns outputs of shape (3, 5, 5), expected (3, 6, units)")
class last_output_of_a_chunk_dropped(Plain):
    def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
        return super().push(x, mask, reset)[:, :-1]


@plant(OBJECTS, "first call", "is nan for finite inputs of 6 steps")
class nan_from_the_start(Plain):
    def zeros(self) -> Any:
        return [np.full((ROWS, H), np.nan, np.float32) for _ in "hc"]

    def reset(self, rows: Any = None) -> None:
        self.state = self.zeros()


# --- functions ---


@plant(FUNCTIONS, "state used", "the state is cleared, or not handed on, between calls")
def state_never_handed_on() -> Any:
    return lambda x, state: run(x)


@plant(FUNCTIONS, "state used", "not handed on")
def state_read_from_a_key_that_is_not_there() -> Any:  # livekit/agents-js#944
    def step(x: Any, state: Any) -> Any:
        y, (h, c) = run(x, (state or {}).get("state"))
        return y, {"stateN": (h, c)}

    return step


@plant(FUNCTIONS, "chunks", "the last step of a chunk does not reach the state")
def last_step_of_each_chunk_lost() -> Any:
    return lambda x, state: (run(x, state)[0], run(x[:, :-1], state)[1])


@plant(FUNCTIONS, "chunks", "the first step of a chunk is taken twice")
def first_step_of_each_chunk_taken_twice() -> Any:
    def step(x: Any, state: Any) -> Any:
        if state is not None and x.shape[1]:
            state = run(x[:, :1], state)[1]
        return run(x, state)

    return step


@plant(FUNCTIONS, "chunks", "the last step of a chunk is taken twice")
def last_step_of_each_chunk_taken_twice() -> Any:
    def step(x: Any, state: Any) -> Any:
        y, after = run(x, state)
        return y, run(x[:, -1:], after)[1] if x.shape[1] else after

    return step


@plant(FUNCTIONS, "chunks", "is that after the first step of a chunk")
def first_state_of_each_chunk_handed_on() -> Any:
    return lambda x, state: (run(x, state)[0], run(x[:, :1], state)[1])


@plant(FUNCTIONS, "chunks", "all that have a chunk of length 1 before the last")
def chunks_of_one_step_do_not_count() -> Any:
    def step(x: Any, state: Any) -> Any:
        y, after = run(x, state)
        return y, after if x.shape[1] != 1 else state

    return step


@plant(FUNCTIONS, "long run", "in chunks of 16 + 7: y[row 0, step 16, unit 0]")
def state_of_a_long_chunk_is_that_of_its_first_block() -> Any:
    return lambda x, state: (run(x, state)[0], run(x[:, :8], state)[1])


@plant(FUNCTIONS, "rows apart", "with another input in row 0: y[row 1, step 3, unit 0]")
def rows_leak_into_the_next() -> Any:
    def step(x: Any, state: Any) -> Any:
        y, (h, c) = run(x, state)
        return y, (h, c + np.float32(0.01) * np.roll(c, 1, axis=0))

    return step


@plant(FUNCTIONS, "rows apart", "with another input in row")
def inputs_scaled_by_the_batch() -> Any:
    return lambda x, state: run(x / np.float32(1 + np.abs(x[:, :1]).max(initial=0)), state)


@plant(FUNCTIONS, "row order", "with the rows in the order [2, 0, 1]")
def rows_depend_on_their_place() -> Any:
    return lambda x, state: run(x * np.float32(1 + np.arange(len(x)))[:, None, None], state)


@plant(FUNCTIONS, "batches", "rows [0] alone: y[row 0, step 0, unit 0]")
def a_batch_of_one_is_special() -> Any:
    return lambda x, state: run(x * np.float32(2 if len(x) == 1 else 1), state)


@plant(FUNCTIONS, "batches", "rows [0] alone: y[row 0, step 3, unit 0]")
def the_state_of_a_batch_of_one_is_lost() -> Any:
    return lambda x, state: run(x, None if len(x) == 1 else state)


@plant(FUNCTIONS, "zeros and None", "from a state of zeros, not None: y[row 0, step 0, unit 0]")
def none_is_not_zeros() -> Any:  # mlx#3249: a bias left out where there is no state
    return lambda x, state: run(x, [np.full((len(x), H), 0.1)] * 2 if state is None else state)


@plant(FUNCTIONS, "determinism", "two runs of the same input differ")
def noise_in_the_state() -> Any:
    rng = np.random.default_rng(0)

    def step(x: Any, state: Any) -> Any:
        y, (h, c) = run(x, state)
        return y, (h, c + rng.normal(0, 1e-3, c.shape))

    return step


@plant(FUNCTIONS, "determinism", "two runs of the same input differ")
def the_function_remembers_by_itself() -> Any:
    memory: list[Any] = [None]

    def step(x: Any, state: Any) -> Any:
        y, memory[0] = run(x, memory[0])
        return y, ()

    return step


@plant(FUNCTIONS, "arguments", "writes to the state it is given (array 1 of it)")
def state_changed_in_place() -> Any:
    def step(x: Any, state: Any) -> Any:
        y, (h, c) = run(x, state)
        if state is not None:
            state[1][...] = c
            c = state[1]
        return y, (h, c)

    return step


@plant(FUNCTIONS, "arguments", "writes to the state it is given (array 1 of it)")
def state_buffer_used_again() -> Any:
    buffers: dict[int, Any] = {}

    def step(x: Any, state: Any) -> Any:
        if state is not None:
            state = [part.copy() for part in state]
        y, (h, c) = run(x, state)
        kept = buffers.setdefault(len(x), np.zeros_like(c))
        kept[...] = c
        return y, (h, kept)

    return step


@plant(FUNCTIONS, "causality", "with other inputs from step 1 on, in one chunk of 6")
def looks_ahead() -> Any:
    def step(x: Any, state: Any) -> Any:
        later = np.concatenate([x[:, 1:], x[:, -1:]], axis=1)
        return run(x + later, state)

    return step


@plant(FUNCTIONS, "NaN", "with NaN in row 0 at step 4: y[row 0, step 3, unit 0]")
def nan_in_a_row_clears_all() -> Any:
    return lambda x, state: run(x if np.isfinite(x).all() else np.full_like(x, np.nan), state)


@plant(FUNCTIONS, "first call", "expected a pair: outputs, state")
def no_state_returned() -> Any:
    return lambda x, state: run(x, state)[0]


@plant(FUNCTIONS, "first call", "returns 3 things for outputs")
def too_much_returned() -> Any:
    def step(x: Any, state: Any) -> Any:
        y, (h, c) = run(x, state)
        return [y, h, c], (h, c)

    return step


@plant(FUNCTIONS, "first call", "returns outputs of dtype <U3")
def words_returned() -> Any:
    return lambda x, state: (np.full((*x.shape[:2], H), "abc"), ())


@plant(FUNCTIONS, "first call", "as in the first call")
def one_step_comes_in_another_dtype() -> Any:
    def step(x: Any, state: Any) -> Any:
        y, after = run(x, state)
        return (y.astype(np.float64) if x.shape[1] == 1 else y), after

    return step


# --- what takes a reference to be seen, or to be named ---


@plant(WITH_REFERENCE, "parts used", "c is lost between calls")
def c_not_handed_on() -> Any:
    return lambda x, state: run(x, None if state is None else (state[0], 0 * state[1]))


@plant(WITH_REFERENCE, "parts used", "h is lost between calls")
def h_not_handed_on() -> Any:
    return lambda x, state: run(x, None if state is None else (0 * state[0], state[1]))


@plant(WITH_REFERENCE, "parts used", "h and c are swapped between calls")
def h_and_c_swapped_on_the_way() -> Any:
    return lambda x, state: run(x, None if state is None else state[::-1])


@plant(WITH_REFERENCE, "parts used", "h stands for c too")
def h_handed_on_twice() -> Any:
    return lambda x, state: run(x, None if state is None else (state[0], state[0]))


@plant(WITH_REFERENCE, "reset", "reset() keeps c")
class reset_keeps_only_c(Plain):
    reset = reset_keeps_c.reset


@plant(WITH_REFERENCE, "reset", "reset() keeps h")
class reset_keeps_only_h(Plain):
    def reset(self, rows: Any = None) -> None:
        self.state[1][slice(None) if rows is None else rows] = 0


@plant(WITH_REFERENCE, "reset", "reset() keeps the state")
class reset_keeps_everything(Plain):
    reset = reset_does_nothing.reset


@plant(WITH_REFERENCE, "replay", "h and c are swapped")
class h_and_c_swapped_on_restore(Plain):
    def restore(self, saved: Any) -> None:
        super().restore(saved[::-1])


@plant(WITH_REFERENCE, "replay", "c is not restored")
class c_not_restored(Plain):
    def restore(self, saved: Any) -> None:
        self.state[0] = saved[0].copy()


@plant(WITH_REFERENCE, "reference", "y[row 0, step 0, unit 0]")
def other_weights() -> Any:
    wrong = WEIGHTS._replace(bias=WEIGHTS.bias * np.float32(1.01))
    return lambda x, state: refrnn.run("lstm", wrong, x, state)


@plant(WITH_REFERENCE, "reference", "the candidate's y has shape")
def other_width() -> Any:
    def step(x: Any, state: Any) -> Any:
        y, after = run(x, state)
        return y[..., :2], after

    return step


def audited(bug: tuple[Plant, str, str], reference: Any) -> Audit:
    return audit_stream(bug[0](), reference, features=F if reference is None else None)


def named(found: Audit, *names: str) -> bool:
    return bool(found.findings) and found.findings[0].name in names


@pytest.mark.parametrize("name", [*OBJECTS, *FUNCTIONS])
def test_a_bug_is_named_without_a_reference(name: str) -> None:
    bug = (OBJECTS | FUNCTIONS)[name]
    found = audited(bug, None)
    assert named(found, bug[1]), found
    assert bug[2] in found.findings[0].sentence, found


@pytest.mark.parametrize("name", [*OBJECTS, *FUNCTIONS])
def test_a_bug_is_named_with_a_reference_too(name: str) -> None:
    """Which may know which part of the state it is."""
    bug = (OBJECTS | FUNCTIONS)[name]
    found = audited(bug, LSTM)
    assert named(found, bug[1], "parts used"), found
    assert any(bug[2] in f.sentence for f in found.findings if f.name == bug[1]), found


@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_a_bug_is_named_with_a_reference(name: str) -> None:
    bug = WITH_REFERENCE[name]
    found = audited(bug, LSTM)
    assert named(found, bug[1]), found
    assert bug[2] in found.findings[0].sentence, found


def test_every_check_has_a_bug_that_it_alone_names_first() -> None:
    tables = OBJECTS, FUNCTIONS, WITH_REFERENCE
    assert {name for table in tables for _, name, _ in table.values()} == set(CHECKS)


# The bugs that show in single steps, too.
IN_STEPS = {
    "state never handed on": "state used",
    "state read from a key that is not there": "state used",
    "c not handed on": "parts used",
    "h not handed on": "parts used",
    "h and c swapped on the way": "parts used",
    "rows leak into the next": "rows apart",
    "a batch of one is special": "batches",
    "none is not zeros": "zeros and None",
    "state changed in place": "arguments",
    "noise in the state": "determinism",
    "other weights": "reference",
}


@pytest.mark.parametrize("name", IN_STEPS)
def test_a_function_of_single_steps_is_audited(name: str) -> None:
    in_chunks = (FUNCTIONS | WITH_REFERENCE)[name][0]()

    def step(x: Any, state: Any) -> Any:
        y, after = in_chunks(x[:, None], state)
        return y[:, 0], after

    found = audit_stream(step, LSTM, takes="steps")
    assert named(found, IN_STEPS[name]), found


class Last(Plain):
    """Returns the last output of a chunk alone, as Keras's layers do by themselves."""

    def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
        y = super().push(x, mask, reset)
        return y[:, -1] if x.shape[1] else np.zeros((ROWS, H), np.float32)

    def step(self, x: Any) -> Any:
        return self.push(x[:, None])

    def peek(self, x: Any) -> Any:
        return super().peek(x)[:, -1]


def test_the_last_output_of_a_chunk_is_enough() -> None:
    right = audit_stream(Last(), LSTM)
    assert right.passed, right
    assert right.skipped["causality"] == "it returns the last output of a chunk alone"

    class Forgets(Last):
        def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
            self.reset()
            return super().push(x, mask, reset)

    class Loses(Last):
        def push(self, x: Any, mask: Any = None, reset: Any = None) -> Any:
            y = super().push(x, mask, reset)
            self.state[1] *= np.float32(0.9)
            return y

    assert named(audit_stream(Forgets(), features=F), "state used")
    assert named(audit_stream(Loses(), features=F), "chunks")


# --- right ones ------------------------------------------------------------------------------


def test_a_plain_stream_and_its_function_pass() -> None:
    for step in (Plain(), run):
        for found in (audit_stream(step, LSTM), audit_stream(step, features=F)):
            assert found.passed, found


@settings(max_examples=15)
@given(
    case=st.builds(
        Case,
        layer=st.sampled_from(("LSTM", "GRU", "SimpleRNN")),
        features=st.integers(1, 6),
        units=st.integers(1, 7),
        dtype=st.sampled_from(("float32", "float64")),
        seed=st.integers(0, 2**16),
    ),
    engine=st.sampled_from(("numpy", "numba")),
    rows=st.integers(1, 5),
    seed=st.integers(0, 2**16),
)
def test_streams_pass_in_the_same_bits(case: Case, engine: str, rows: int, seed: int) -> None:
    """Streams promise bits: no check may need rounding, nor be left out but for what is named."""
    layer = case.build(return_state=False, engine=engine)
    for found in (
        audit_stream(Stream(layer, rows=rows), layer, seed=seed),
        audit_stream(Stream(layer, rows=rows), features=case.features, seed=seed),
    ):
        assert found.passed, found
        assert not any("rounding" in told for told in found.checks.values()), found
        left_out = {"zeros and None"}
        left_out |= {"rows apart", "row order", "batches"} if rows == 1 else set()
        assert left_out <= set(found.skipped) <= left_out | {"parts used", "reference"}, found


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_judged_as_such(dtype: str) -> None:
    layer = Case("GRU", features=F, units=H, dtype=dtype, seed=1).build(return_state=False)
    found = audit_stream(Stream(layer, rows=2), layer)
    assert found.passed, found
    assert f"within the envelope of {dtype}" in found.checks["reference"]
    rough = audit_stream(Stream(layer, rows=2), layer, precision="float32")
    assert [f.name for f in rough.findings] == ["reference"], rough


def with_blas(x: Any, state: Any) -> Any:
    """An LSTM on BLAS, whose sums depend on the number of rows and steps."""
    kernel, recurrent, bias = BLAS
    h, c = state or np.zeros((2, len(x), len(recurrent)), kernel.dtype)
    ys = []
    from_x = x @ kernel
    for t in range(x.shape[1]):
        i, f, g, o = np.split(from_x[:, t] + h @ recurrent + bias, 4, axis=1)
        i, f, o = (1 / (1 + np.exp(-z)) for z in (i, f, o))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        ys.append(h)
    return np.stack(ys, axis=1) if ys else np.zeros((len(x), 0, len(recurrent)), h.dtype), (h, c)


BLAS = Case("LSTM", features=61, units=37, dtype="float32", seed=5).build().get_weights()


def test_rounding_is_told_from_a_bug() -> None:
    judged = audit_stream(with_blas, ("lstm", BLAS), rows=5)
    alone = audit_stream(with_blas, features=61, rows=5)
    assert judged.passed, judged
    assert alone.passed, alone
    assert judged.checks["batches"] == "within the envelope"
    assert alone.checks["batches"] == "within rounding"

    def off(x: Any, state: Any) -> Any:  # a ten-thousandth where a row is alone
        return with_blas(x * np.float32(1.0001 if len(x) == 1 else 1), state)

    assert named(audit_stream(off, ("lstm", BLAS), rows=5), "batches")
    assert named(audit_stream(off, features=61, rows=5), "batches")


@pytest.mark.parametrize(("name", "sequences"), [("LSTM", True), ("GRU", False)])
def test_a_stateful_layer_of_keras_passes_but_for_empty_chunks(
    tf: Any, name: str, sequences: bool
) -> None:
    import keras

    layer = getattr(keras.layers, name)(H, stateful=True, return_sequences=sequences)
    layer.build((ROWS, None, F))
    layer.set_weights(
        Case(name, features=F, units=H, dtype="float32", seed=2).build().get_weights()
    )
    step = types.SimpleNamespace(
        push=lambda x, mask=None: layer(x, mask=mask), reset=layer.reset_state
    )
    found = audit_stream(step, refrnn.from_keras(layer))
    assert [f.name for f in found.findings] == ["empty chunks"], found
    assert "raises InvalidArgumentError" in found.findings[0].sentence
    assert {"masks", "reference", "chunks"} <= set(found.checks)


def test_a_keras_layer_that_is_handed_its_state_passes(tf: Any) -> None:
    import keras

    layer = keras.layers.LSTM(H, return_sequences=True, return_state=True)
    layer.build((None, None, F))

    def step(x: Any, state: Any) -> Any:
        blank = [np.zeros((len(x), H), np.float32)] * 2
        y, h, c = layer(x, initial_state=blank if state is None else state)
        return y, [h, c]

    found = audit_stream(step, refrnn.from_keras(layer), skip=["empty chunks"])
    assert found.passed, found
    assert {"zeros and None", "replay", "batches"} <= set(found.checks)


def test_an_object_without_reset_begins_by_its_snapshot() -> None:
    class Without:
        def __init__(self) -> None:
            self.inner = Plain()
            self.push = self.inner.push
            self.snapshot, self.restore = self.inner.snapshot, self.inner.restore

    found = audit_stream(Without(), LSTM)
    assert found.passed, found
    assert found.skipped["reset"] == (
        "it has no reset(); each run begins with restore() of a first snapshot"
    )


# --- what an audit says ----------------------------------------------------------------------


def test_an_audit_reads_and_is_plain_data() -> None:
    found = audited(OBJECTS["a chunk of no steps refused"], LSTM)
    lines = str(found).splitlines()
    assert lines[0] == f"a_chunk_of_no_steps_refused: 1 finding in 21 checks ({found.calls} calls)"
    assert lines[1] == (
        "  failed  empty chunks       push(x) with x (3, 0, 4) raises ValueError: no steps"
    )
    assert "  held    chunks             32 ways to cut 6 steps: same bits" in lines
    assert "  not run zeros and None     it is not handed its state" in lines
    assert len(lines) == 1 + len(CHECKS)
    assert not found.passed
    data = found.to_dict()
    assert data["passed"] is False
    assert data["findings"] == [
        {
            "name": "empty chunks",
            "sentence": "push(x) with x (3, 0, 4) raises ValueError: no steps",
        }
    ]
    assert json.loads(json.dumps(data)) == data
    assert {*data["checks"], *data["skipped"], "empty chunks"} == set(CHECKS)


def test_what_follows_from_a_failed_beginning_is_not_run() -> None:
    found = audited(OBJECTS["reset keeps c"], None)
    assert [f.name for f in found.findings] == ["reset"]
    assert set(found.skipped.values()) == {"each check rests on 'reset', which failed"}


def test_a_check_that_is_not_wanted_is_not_run() -> None:
    found = audit_stream(FUNCTIONS["none is not zeros"][0](), features=F, skip=["zeros and None"])
    assert found.passed, found
    assert found.skipped["zeros and None"] == "as asked"


def test_a_zero_that_changes_its_sign_is_told_and_stops_nothing() -> None:
    calls = [0]

    def flickering(x: Any, state: Any) -> Any:
        calls[0] += 1
        y, after = run(x, state)
        y[:, :, 0] = -0.0 if calls[0] % 3 else 0.0
        return y, after

    found = audit_stream(flickering, features=F)
    assert named(found, "determinism"), found
    assert "y[row 0, step 0, unit 0] is " in found.findings[0].sentence


def test_what_is_no_error_goes_through() -> None:
    def interrupted(x: Any, state: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit_stream(interrupted, features=F)


def test_a_callable_that_refuses_nan_is_no_finding() -> None:
    def careful(x: Any, state: Any) -> Any:
        if not np.isfinite(x).all():
            raise ValueError("the input is not finite")
        return run(x, state)

    found = audit_stream(careful, LSTM)
    assert found.passed, found
    assert "the input is not finite" in found.skipped["NaN"]


def test_every_way_to_cut_is_tried_once() -> None:
    cut = compositions(SHORT)
    assert len(cut) == len({tuple(sizes) for sizes in cut}) == 2 ** (SHORT - 1)
    assert all(sum(sizes) == SHORT and min(sizes) > 0 for sizes in cut)


# --- arguments that do not fit ---------------------------------------------------------------


class Unresettable:
    def push(self, x: Any) -> Any:
        raise AssertionError("never called")


def refuses(x: Any, state: Any) -> Any:
    raise AssertionError("never called")


BACKWARDS = refrnn.layers.LSTM(3, go_backwards=True)
BACKWARDS.build((None, None, F))
BAD: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
    (refuses, None, {}, ValueError, "features is None, expected a number, as there is no"),
    (refuses, LSTM, {"features": 4}, ValueError, "features is 4, expected None, because the"),
    (refuses, None, {"features": 0}, ValueError, "features is 0, expected a whole number"),
    (refuses, LSTM, {"rows": 0}, ValueError, "rows is 0, expected a whole number of at least 1"),
    (refuses, LSTM, {"takes": "x"}, ValueError, "takes is 'x', expected 'chunks' or 'steps'"),
    (refuses, LSTM, {"precision": "f8"}, ValueError, "precision is 'f8', expected one of"),
    (refuses, LSTM, {"skip": "NaN"}, ValueError, "skip has 'NaN', expected a list of names"),
    (refuses, LSTM, {"skip": ["nan"]}, ValueError, "skip has 'nan', expected a list of names"),
    (refuses, LSTM, {"seed": 1.5}, ValueError, "seed is 1.5, expected a whole number"),
    (refuses, "lstm", {}, TypeError, "reference is 'lstm', expected"),
    (refuses, BACKWARDS, {}, ValueError, "the reference runs backwards in time"),
    (Unresettable(), LSTM, {}, ValueError, "has push() and no reset(), nor snapshot()"),
    (Plain(), LSTM, {"rows": 2}, ValueError, "rows is 2, expected 3, because step has 3 rows"),
    (Plain, LSTM, {}, TypeError, "step is the class Plain, expected an object of it"),
    ("step", LSTM, {}, TypeError, "step is 'step', expected a function step(x, state)"),
    (None, LSTM, {}, TypeError, "step is of type NoneType, expected a function"),
    (lambda x: x, LSTM, {}, TypeError, "step cannot be called with x and a state"),
]


@pytest.mark.parametrize(("step", "reference", "options", "kind", "words"), BAD)
def test_arguments_that_do_not_fit_are_refused(
    step: Any, reference: Any, options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=re.escape(words)):
        audit_stream(step, reference, **options)
