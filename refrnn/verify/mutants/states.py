"""State plumbing: every step is right, and what is carried between steps, rows and calls is not."""

from collections.abc import Callable
from typing import Any

import numpy as np

from refrnn.cells import Cell, LSTMState, Weights
from refrnn.gates import Array
from refrnn.verify.mutants.engine import Call, Engine, Implementation, Moment, frozen, one_step
from refrnn.verify.mutants.mutant import ALL, Mutant
from refrnn.verify.subject import Part

GITHUB = "https://github.com/"
LSTM = ("lstm",)
CHUNK = 4  # steps that are computed together inside, by implementations that do so
Make = Callable[[Part], Implementation]


def given(change: Callable[[list[Array]], Any]) -> Engine:
    """The initial state changed, where there is one."""

    def called(call: Call) -> Call:
        return call if call.state is None else call._replace(state=change(list(call.state)))

    return Engine(called=called)


def started(where: Callable[[Call], bool]) -> Engine:
    """The initial state ignored in some calls."""
    return Engine(called=lambda call: call._replace(state=None) if where(call) else call)


def returned(change: Callable[[Array, list[Any]], Any]) -> Engine:
    """Another state handed back: (y, the states) -> state."""
    return Engine(result=lambda y, past: (y, change(y, past)))


def every(part: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of each part of a state."""
    return lambda state: type(state)(*(part(p) for p in state))


nothing = every(np.zeros_like)


def before(past: list[Any], steps: int = 1) -> Any:
    """The state of some steps ago."""
    return past[max(0, len(past) - 1 - steps)]


def at_borders(change: Callable[[list[Any]], Any]) -> Engine:
    """Another state to start from at every border between chunks inside."""

    def state(past: list[Any]) -> Any:
        t = len(past) - 1
        return change(past) if t and t % CHUNK == 0 else past[-1]

    return Engine(state=state)


def at_first(change: Callable[[Any], Any]) -> Engine:
    """Another state to start the first step from."""
    return Engine(state=lambda past: change(past[0]) if len(past) == 1 else past[-1])


def not_cleared(part: Array) -> Array:
    return np.concatenate([part[:2], np.full_like(part[2:], 0.25)])


def stale_last(xs: Array, t: int) -> Array:
    return xs[:, max(0, t - 1)] if t == xs.shape[1] - 1 else xs[:, t]


def repeated(xs: Array, t: int) -> Array:
    return xs[:, t - 1] if t and t % CHUNK == 0 else xs[:, t]


def of_row_before(state: Any) -> Any:
    """The last row has the state of the one before."""
    return every(lambda part: np.concatenate([part[:-1], part[-2:-1] if len(part) > 1 else part]))(
        state
    )


def last_unit_lost(part: Array) -> Array:
    part = part.copy()
    part[:, -1] = 0
    return part


def in_place(cell: Cell, weights: Weights, state: Any, x: Array) -> Any:
    """Units are computed in two halves, the second from an h in which the first is new."""
    half = len(weights.recurrent_kernel) // 2
    first = one_step(cell, weights, state, x)
    mixed = state._replace(h=np.concatenate([first.h[:, :half], state.h[:, half:]], axis=1))
    second = one_step(cell, weights, mixed, x)
    return type(state)(
        *(np.concatenate([a[:, :half], b[:, half:]], 1) for a, b in zip(first, second, strict=True))
    )


def leaking(part: str) -> Engine:
    """Masked steps hold the output and the state, but not this part."""

    def keep(now: Moment) -> tuple[Any, Array]:
        state, y = frozen(now)
        return state._replace(**{part: getattr(now.new, part)}), y

    return Engine(keep=keep)


def rows_from_third(state: list[Array]) -> list[Array]:
    return [np.concatenate([part[:2], np.zeros_like(part[2:])]) for part in state]


def unknown_start(engine: Engine) -> Make:
    """Wrong only where no initial state is given."""

    def make(part: Part) -> Implementation:
        wrong, right = engine.implementation(part), Engine().implementation(part)

        def run(x: Any, initial_state: Any = None, mask: Any = None) -> tuple[Array, ...]:
            return (wrong if initial_state is None else right)(x, initial_state, mask)

        return run

    return make


def no_recurrent_part(cell: Cell, weights: Weights, state: Any, x: Array) -> Any:
    """A first step, from zeros, that leaves out the recurrent sum with its bias."""
    if state.h.any():
        return one_step(cell, weights, state, x)
    bias = np.stack([weights.bias[0], np.zeros_like(weights.bias[1])])
    return one_step(cell, weights._replace(bias=bias), state, x)


def remembering(part: Part) -> Implementation:
    """A call without a state goes on where the last one ended."""
    right = Engine().implementation(part)
    memory: list[Array] = []

    def run(x: Any, initial_state: Any = None, mask: Any = None) -> tuple[Array, ...]:
        if initial_state is None and memory and len(memory[0]) == len(x):
            initial_state = list(memory)
        y, *memory[:] = right(x, initial_state, mask)
        return y, *memory

    return run


def swapped(state: Any) -> Any:
    return LSTMState(state.c, state.h)


def half(part: Array) -> Array:
    return part.astype(np.float16).astype(part.dtype)


_ROWS: tuple[tuple[str, tuple[str, ...], str, Engine | Make, str], ...] = (
    ("initial state ignored", ALL, "every call starts from zeros", started(lambda call: True),
     "livekit/agents-js/issues/944"),
    ("initial c ignored", LSTM, "only h is taken from the initial state",
     given(lambda s: [s[0], np.zeros_like(s[1])]), ""),
    ("initial h ignored", LSTM, "only c is taken from the initial state",
     given(lambda s: [np.zeros_like(s[0]), s[1]]), "rockchip-linux/rknn-toolkit/issues/385"),
    ("h and c swapped on the way in", LSTM, "the initial state is read as c, h",
     given(lambda s: s[::-1]), ""),
    ("h and c swapped on the way out", LSTM, "the state is returned as c, h",
     returned(lambda y, past: swapped(past[-1])), ""),
    ("first row's state for all", ALL, "the initial state of the first row is taken for all",
     given(lambda s: [np.repeat(p[:1], len(p), axis=0) for p in s]),
     "keras-team/keras/issues/21183"),
    ("state of rows from the third on ignored", ALL, "rows from the third on start from zeros",
     given(rows_from_third), ""),
    ("rows from the third on not cleared", ALL, "without an initial state rows from the third on"
     " start from what was there", unknown_start(at_first(every(not_cleared))),
     "microsoft/onnxruntime/issues/3893"),
    ("state ignored for one step", ALL, "a call of a single step starts from zeros",
     started(lambda call: call.x.shape[1] == 1), ""),
    ("state ignored for one row", ALL, "a call of a single row starts from zeros",
     started(lambda call: len(call.x) == 1), ""),
    ("state ignored with a mask", ALL, "a call with a mask starts from zeros",
     started(lambda call: call.mask is not None), ""),
    ("no state is not zeros", ALL, "without an initial state the run starts from 0.1",
     unknown_start(at_first(every(lambda part: part + part.dtype.type(0.1)))), ""),
    ("recurrent bias missing at the start", ("gru",), "without an initial state the first step has"
     " no recurrent bias", unknown_start(Engine(step=no_recurrent_part)),
     "ml-explore/mlx/issues/3249"),
    ("remembers the last call", ALL, "a call without a state goes on where the last one ended",
     remembering, "snakers4/silero-vad/issues/725"),
    ("returned state is zeros", ALL, "the state is returned as zeros",
     returned(lambda y, past: nothing(past[-1])), "livekit/agents/issues/4437"),
    ("returned state is the first", ALL, "the initial state is returned",
     returned(lambda y, past: past[0]), ""),
    ("returned state is one step old", ALL, "the state before the last step is returned",
     returned(lambda y, past: before(past)), ""),
    ("returned c is one step old", LSTM, "c from before the last step is returned",
     returned(lambda y, past: LSTMState(past[-1].h, before(past).c)), ""),
    ("returned c is h", LSTM, "h is returned twice",
     returned(lambda y, past: LSTMState(past[-1].h, past[-1].h)), ""),
    ("returned c is squashed", LSTM, "tanh(c) is returned for c",
     returned(lambda y, past: LSTMState(past[-1].h, np.tanh(past[-1].c))), ""),
    ("returned state is that of the first step", ALL, "the state after the first step is returned",
     returned(lambda y, past: past[min(1, len(past) - 1)]), "tflearn/tflearn/issues/522"),
    ("returned state of the first row", ALL, "every row gets the state of the first",
     returned(lambda y, past: every(lambda p: np.repeat(p[:1], len(p), axis=0))(past[-1])), ""),
    ("returned h is the last output", ALL, "the last output is returned for h, at masked steps too",
     returned(lambda y, past: past[-1]._replace(h=y[:, -1]) if y.shape[1] else past[-1]), ""),
    ("returned state in float16", ALL, "the state is returned through float16",
     returned(lambda y, past: every(half)(past[-1])), ""),
    ("state cleared at every step", ALL, "every step starts from zeros",
     Engine(state=lambda past: nothing(past[0])), "tracel-ai/burn/issues/2701"),
    ("state never advances", ALL, "every step starts from the initial state",
     Engine(state=lambda past: past[0]), "livekit/agents-js/issues/944"),
    ("state stands still from step 16 on", ALL, "every step after the 16th starts from its state",
     Engine(state=lambda past: past[min(len(past) - 1, 16)]), "Tencent/ncnn/issues/3665"),
    ("state cleared inside", ALL, "the state is cleared every 4 steps",
     at_borders(lambda past: nothing(past[-1])), "ggml-org/whisper.cpp/issues/3677"),
    ("c cleared inside", LSTM, "c is cleared every 4 steps",
     at_borders(lambda past: past[-1]._replace(c=np.zeros_like(past[-1].c))), ""),
    ("h cleared inside", LSTM, "h is cleared every 4 steps",
     at_borders(lambda past: past[-1]._replace(h=np.zeros_like(past[-1].h))), ""),
    ("first state again inside", ALL, "the initial state comes back every 4 steps",
     at_borders(lambda past: past[0]), ""),
    ("stale state inside", ALL, "every fourth step starts from the state of two steps before",
     at_borders(before), "sonos/tract/issues/2157"),
    ("h and c swapped inside", LSTM, "h and c are exchanged every 4 steps",
     at_borders(lambda past: swapped(past[-1])), ""),
    ("h one step late", ALL, "the recurrent product has h of two steps before",
     Engine(state=lambda past: past[-1]._replace(h=before(past).h)), ""),
    ("c one step late", LSTM, "the forget gate scales c of two steps before",
     Engine(state=lambda past: past[-1]._replace(c=before(past).c)), ""),
    ("input one step late", ALL, "each step has the input of the step before",
     Engine(inputs=lambda xs, t: xs[:, max(0, t - 1)]), ""),
    ("input one step early", ALL, "each step has the input of the step after",
     Engine(inputs=lambda xs, t: xs[:, min(xs.shape[1] - 1, t + 1)]), ""),
    ("last input stale", ALL, "the last step has the input of the one before",
     Engine(inputs=stale_last), ""),
    ("input repeated inside", ALL, "every fourth step has the input of the one before",
     Engine(inputs=repeated), ""),
    ("h written in place", ALL, "the upper half of the units sees the new h of the lower half",
     Engine(step=in_place), "onnx/onnx-mlir/issues/367"),
    ("last row reads the row before", ALL, "the last row goes on from the state of the row before",
     Engine(state=lambda past: of_row_before(past[-1])), "pytorch/pytorch/issues/41774"),
    ("last unit not carried", ALL, "the last unit's state is 0 at every step",
     Engine(state=lambda past: every(last_unit_lost)(past[-1])), ""),
    ("h leaks through the mask", ALL, "h goes on at masked steps", leaking("h"),
     "tensorflow/tensorflow/issues/49241"),
    ("c leaks through the mask", LSTM, "c goes on at masked steps", leaking("c"), ""),
)  # fmt: skip

STATES = tuple(
    Mutant(name, "state", applies, wrong, make.implementation if isinstance(make, Engine) else make,
           issue and GITHUB + issue)
    for name, applies, wrong, make, issue in _ROWS
)  # fmt: skip
