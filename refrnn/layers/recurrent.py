"""SimpleRNN, GRU and LSTM as `keras.layers` has them: arguments, weights, masks and states."""

from typing import Any, ClassVar, NamedTuple

import numpy as np

from refrnn import checks
from refrnn.cells import AnyState
from refrnn.engines import ENGINES
from refrnn.gates import Array
from refrnn.layers.base import Layer
from refrnn.layers.cells import (
    GRU_HEAD,
    IMPLEMENTATION,
    LSTM_HEAD,
    SIMPLE_HEAD,
    TAIL,
    GRUCell,
    LSTMCell,
    RecurrentCell,
    SimpleRNNCell,
)
from refrnn.layers.masks import leaves

_RETURNS = dict.fromkeys(
    ("return_sequences", "return_state", "go_backwards", "stateful", "unroll"), False
)
_ACTIVITY = {"activity_regularizer": None}


class Memory(NamedTuple):
    """What a recurrent layer hands from one chunk of a sequence to the next.

    state        the cell's state, each part (B, H)
    last_output  (B, H), what a masked step repeats; zeros before the first step
    """

    state: AnyState
    last_output: Array


class Recurrent(Layer):
    """What the three layers share; see `keras.layers.RNN`.

    A call takes
      sequences      (B, T, F), any B and T, 0 included; cast to the layer's dtype
      initial_state  a list of arrays (B, H), h first; the bare array where there is only h
      mask           (B, T), (B, T, 1) or (1, T): where it is 0 the step is skipped for that row
      training       True drops inputs and states, by the masks that Keras draws for the seed

    and returns the last output (B, H), or all of them (B, T, H) with return_sequences; with
    return_state a tuple of that and the final states. Outputs are in processing order: with
    go_backwards the first belongs to the last step.

    With stateful=True a call starts where the last one ended; initial_state overrides that for a
    call. `states`, `reset_state` and `reset_states` look at and set what is carried.

    unroll and use_cudnn are accepted and change no number.
    """

    CELL: ClassVar[type[RecurrentCell]]
    KEYWORDS: ClassVar = {**Layer.KEYWORDS, "zero_output_for_mask": False, "engine": "auto"}
    NOT_IN_CONFIG: ClassVar = frozenset({"use_cudnn", "engine", "implementation"})
    KEEPS_WIDTH = True

    supports_masking = True
    units: int
    return_sequences: bool
    return_state: bool
    go_backwards: bool
    stateful: bool
    unroll: bool
    zero_output_for_mask: bool
    engine: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = vars(self)
        arguments = [*self.CELL.ARGUMENTS, *(n for n in IMPLEMENTATION if n in own)]
        settings = {name: own[name] for name in arguments}
        self.cell = self.CELL(**settings, dtype=self.dtype, name=f"{self.name}_cell")
        self._carried: AnyState | None = None

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "engine":
            return checks.engine(self.who, value)
        if argument == "use_cudnn" and value not in ("auto", False):
            raise ValueError(
                f"{self.who}: use_cudnn is {value!r}, expected 'auto' or False, because refrnn runs"
                " on the CPU"
            )
        return super()._convert(argument, value)

    # --- weights: the cell's ---

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights for `input_shape` (B, T, F); a second time, forget the carried state."""
        self.cell.build(input_shape)
        self.built = True
        rows = input_shape[0]
        self._carried = self._state(None, rows) if self.stateful and rows is not None else None

    @property
    def weights(self) -> list[Array]:
        """kernel, recurrent_kernel and (with use_bias) bias, read-only."""
        return self.cell.weights

    @property
    def weight_names(self) -> list[str]:
        return self.cell.weight_names

    def weight_shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        return self.cell.weight_shapes(features)

    # --- the carried state ---

    @property
    def states(self) -> list[Array] | None:
        """Copies of what a stateful layer carries, h first; None before it knows its rows."""
        return None if self._carried is None else [part.copy() for part in self._carried]

    def reset_states(self, states: Any = None, rows: Any = None) -> None:
        """Forget, or set, what is carried: for all rows, or for some.

        states  the new state, as initial_state; None for zeros
        rows    indices of rows, or a mask (B,) of booleans; None for all. With `states`, which
                then has a row for each of them.

        A layer that carries nothing is left as it is, as in Keras, unless states or rows are
        given: that is a ValueError.
        """
        if states is not None and not self.stateful:
            raise ValueError(
                f"{self.who}: reset_states was given states, expected a layer made with"
                " stateful=True, because only such a layer carries a state"
            )
        if rows is None:
            if states is None:
                if self._carried is not None:
                    self._carried = type(self._carried)(*map(np.zeros_like, self._carried))
                return
            given = states if isinstance(states, list | tuple) else [states]
            batch = len(given[0]) if given and np.ndim(given[0]) else 0
            self._carried = self._copy(self._state(given, batch))
            return
        if self._carried is None:
            raise ValueError(
                f"{self.who}: reset_states was given rows {rows!r}, expected a layer that carries a"
                " state, which a stateful layer does from its first call on"
            )
        chosen = self._rows(rows, len(self._carried.h))
        new = self._state(states, len(chosen))
        parts = [part.copy() for part in self._carried]
        for part, values in zip(parts, new, strict=True):
            part[chosen] = values
        self._carried = type(self._carried)(*parts)

    reset_state = reset_states

    def _rows(self, rows: Any, batch: int) -> Array:
        chosen = np.atleast_1d(np.asarray(rows))
        if chosen.dtype == bool and chosen.shape == (batch,):
            return np.flatnonzero(chosen)
        if chosen.size == 0:
            return np.zeros(0, np.intp)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
            raise ValueError(
                f"{self.who}: rows is {rows!r}, expected whole numbers, or {batch} booleans"
            )
        outside = chosen[(chosen < -batch) | (chosen >= batch)]
        if outside.size:
            raise ValueError(
                f"{self.who}: row {int(outside[0])} is not there, expected 0 to {batch - 1},"
                f" because the layer carries {batch} rows"
            )
        return chosen

    def _state(self, given: Any, batch: int) -> AnyState:
        return checks.state(self.cell.math, self.who, given, batch, self.units, self.dtype)

    @staticmethod
    def _copy(state: AnyState) -> AnyState:
        return type(state)(*(part.copy() for part in state))

    def _start(self, initial_state: Any, batch: int) -> AnyState:
        """The state a call begins with. A carried state of zeros is that of any number of rows."""
        if self._carried is not None and any(part.any() for part in self._carried):
            rows = len(self._carried.h)
            if rows != batch:
                raise ValueError(
                    f"{self.who}: the input has {batch} rows, expected {rows}, because the layer is"
                    f" stateful and carries the state of {rows} sequences; reset_states() first to"
                    " start with another number"
                )
            if initial_state is None:
                return self._carried
        return self._state(initial_state, batch)

    # --- calls ---

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        xs = self._sequence(sequences)
        memory = Memory(self._start(initial_state, len(xs)), self._zeros(len(xs)))
        outputs, memory = self._run(xs, memory, mask, training)
        if self.stateful:
            self._carried = memory.state
        return outputs

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """That of the input where all outputs are returned; states never have one."""
        mask = leaves(previous_mask)[0]
        output = mask if self.return_sequences else None
        return (
            [output, *[None] * len(self.cell.math.State._fields)] if self.return_state else output
        )

    def start(self, rows: int, initial_state: Any = None) -> Memory:
        """The memory of `rows` sequences before their first chunk: initial_state or zeros.

        What a stateful layer carries is not used.
        """
        return Memory(self._state(initial_state, rows), self._zeros(rows))

    def _sequence(self, sequences: Any) -> Array:
        """The input as an array (B, T, F); F is checked where the layer is built."""
        features = len(self.cell.kernel) if self.built else None
        return checks.sequence(self.who, sequences, features, self.dtype)

    def _zeros(self, batch: int) -> Array:
        return np.zeros((batch, self.units), self.dtype)

    def advance(self, sequences: Any, memory: Memory, mask: Any = None) -> tuple[Any, Memory]:
        """What `call` returns in inference, and the memory to go on from; changes nothing.

        Chunks of a sequence that hand their memory on give the numbers of the whole, bit for bit,
        masks included. (A stateful call, as in Keras, hands on the state alone.)
        """
        return self._run(self._sequence(sequences), memory, mask, None)

    def _run(
        self, xs: Array, memory: Memory, mask: Any, training: bool | None
    ) -> tuple[Any, Memory]:
        """One call; training None leaves the random numbers of dropout alone."""
        mask = checks.mask(self.who, mask, *xs.shape[:2])
        if not self.built:  # only now that nothing is left to refuse
            self.build(xs.shape)
        drawn = training is not None
        cell = self.cell.drawn(len(xs), xs.shape[2], training) if drawn else self.cell.math
        ys, state = ENGINES[self.engine](
            cell,
            self.cell.arrays,
            xs,
            memory.state,
            mask=mask,
            go_backwards=self.go_backwards,
            zero_output_for_mask=self.zero_output_for_mask,
            last_output=memory.last_output,
        )
        last = (ys[:, -1] if ys.shape[1] else memory.last_output).copy()
        output = ys if self.return_sequences else last.copy()
        returned = (output, *self._copy(state)) if self.return_state else output
        return returned, Memory(state, last)


def _arguments(head: dict[str, Any], *tail: dict[str, Any]) -> dict[str, Any]:
    """A cell's arguments with the layer's own in the places where Keras has them."""
    merged = {**head, **_ACTIVITY, **TAIL}
    for part in tail:
        merged |= part
    return merged


class SimpleRNN(Recurrent):
    """A fully connected recurrent layer, as `keras.layers.SimpleRNN`. Elman (1990)."""

    CELL = SimpleRNNCell
    ARGUMENTS: ClassVar = _arguments(SIMPLE_HEAD, _RETURNS, {"seed": None})


class GRU(Recurrent):
    """A gated recurrent unit layer, as `keras.layers.GRU`. Cho et al. (2014).

    reset_after  see `GRUCell`: two different functions
    """

    CELL = GRUCell
    ARGUMENTS: ClassVar = _arguments(
        GRU_HEAD, {"seed": None}, _RETURNS, {"reset_after": True, "use_cudnn": "auto"}
    )
    KEYWORDS: ClassVar = {**Recurrent.KEYWORDS, **IMPLEMENTATION}


class LSTM(Recurrent):
    """A long short-term memory layer, as `keras.layers.LSTM`. Hochreiter & Schmidhuber (1997)."""

    CELL = LSTMCell
    ARGUMENTS: ClassVar = _arguments(LSTM_HEAD, {"seed": None}, _RETURNS, {"use_cudnn": "auto"})
    KEYWORDS: ClassVar = {**Recurrent.KEYWORDS, **IMPLEMENTATION}
