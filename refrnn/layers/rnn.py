"""RNN: any cell stepped along sequences, by the step rule of `reference.py`."""

import operator
from typing import Any, ClassVar, NamedTuple

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers.base import REQUIRED, Layer
from refrnn.layers.masks import has_arrays, leaves, map_arrays
from refrnn.layers.stacking import as_cell, begin, build_cell
from refrnn.layers.states import (
    alike,
    first,
    initial_state,
    map_shapes,
    output_size,
    together,
    zeros,
)
from refrnn.layers.stored import serialize
from refrnn.reference import QUIET


class Memory(NamedTuple):
    """What a recurrent layer hands from one chunk of a sequence to the next.

    state        the cell's state, each part (B, ...), nested as the cell has it
    last_output  (B, ...), what a masked step repeats; zeros before the first step
    """

    state: Any
    last_output: Any


class RNN(Layer):
    """A recurrent layer of any cell; as `keras.layers.RNN`.

    cell  an object with call(inputs, states) and state_size, or a list of them, one upon another.
          `state_size` is a whole number, a TensorShape of TensorFlow, or a list of them, nested or
          not; a cell whose states are of other shapes has get_initial_state(batch_size=) too.

    A call takes
      sequences      (B, T, ...), any B and T, 0 included; cast to the layer's dtype. Or, as in
                     Keras 2, a list, tuple or dictionary of such arrays, nested or not: the cell is
                     given a step of each, in that form, and may return its output in any form
      initial_state  the states, nested as the cell has them; the bare array where there is one
      mask           (B, T), (B, T, 1) or (1, T): where it is 0 the step is skipped for that row
      training       True drops inputs and states, by the masks that Keras draws for the seed

    and returns the last output (B, ...), or all of them (B, T, ...) with return_sequences; with
    return_state a tuple of that and the final states. Outputs are in processing order: with
    go_backwards the first belongs to the last step.

    With stateful=True a call starts where the last one ended; initial_state overrides that for a
    call. `states`, `reset_state` and `reset_states` look at and set what is carried.
    """

    ARGUMENTS: ClassVar = {
        "cell": REQUIRED,
        "return_sequences": False,
        "return_state": False,
        "go_backwards": False,
        "stateful": False,
        "unroll": False,
        "zero_output_for_mask": False,
    }
    supports_masking = True

    cell: Any
    return_sequences: bool
    return_state: bool
    go_backwards: bool
    stateful: bool
    unroll: bool
    zero_output_for_mask: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._carried: Any = None

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "cell":
            return as_cell(self.who, value)
        return super()._convert(argument, value)

    # --- weights: the cell's ---

    def build(self, input_shape: Any) -> None:
        """Make the weights for `input_shape` (B, T, ...); a second time, forget the carried state.

        For several inputs it is a list, tuple or dictionary of shapes, and so it is for the cell.
        """
        step = map_shapes(lambda shape: (shape[0], *(shape[2:] or shape[1:])), input_shape)
        build_cell(self.cell, step)
        self.built = True
        rows = first(input_shape)
        self._carried = self._state(None, rows) if self.stateful and rows is not None else None

    def parts(self) -> list[tuple[str, Layer]]:
        """The cell, whose weights are those of this layer: kernel, recurrent_kernel, bias."""
        return [("", self.cell)] if isinstance(self.cell, Layer) else []

    def weight_shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        return self.cell.weight_shapes(features) if isinstance(self.cell, Layer) else {}

    # --- the carried state ---

    @property
    def states(self) -> list[Any] | None:
        """Copies of what a stateful layer carries, h first; None before it knows its rows."""
        return None if self._carried is None else list(self._copy(self._carried))

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
            if states is not None:
                first: Any = next(iter(leaves(states)), 0)
                self._carried = self._state(states, len(first) if np.ndim(first) else 0)
            elif self._carried is not None:
                self._carried = map_arrays(np.zeros_like, self._carried)
            return
        if self._carried is None:
            raise ValueError(
                f"{self.who}: reset_states was given rows {rows!r}, expected a layer that carries a"
                " state, which a stateful layer does from its first call on"
            )
        chosen = self._rows(rows, self._carried_rows())
        new = iter(leaves(self._state(states, len(chosen))))
        changed = self._copy(self._carried)
        for part in leaves(changed):
            part[chosen] = next(new)
        self._carried = changed

    reset_state = reset_states

    def make_stateful(self, rows: int) -> None:
        """From now on carry the state of `rows` sequences, zeros to begin with."""
        self.stateful = True
        self._carried = self._state(None, rows)

    def _carried_rows(self) -> int:
        return len(leaves(self._carried)[0])

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

    def _blank(self, batch: int) -> Any:
        """The state before anything was seen."""
        blank = initial_state(self.cell, batch, self.dtype)
        return list(blank) if isinstance(blank, list | tuple) else [blank]

    def _state(self, given: Any, batch: int) -> Any:
        """`given` in the structure of the cell's state, copied; zeros where it is None."""
        blank = self._blank(batch)
        return blank if given is None else self._like(blank, given, "state")

    def _like(self, blank: Any, given: Any, path: str) -> Any:
        if isinstance(blank, dict):
            if not isinstance(given, dict) or given.keys() != blank.keys():
                raise ValueError(
                    f"{self.who}: {path} is {type(given).__name__} {list(given)!r}, expected a"
                    f" dictionary of {list(blank)}, as the cell has its states"
                )
            return {k: self._like(blank[k], given[k], f"{path} {k!r}") for k in blank}
        if isinstance(blank, list | tuple):
            if len(blank) == 1 and not isinstance(given, list | tuple):
                given = [given]
            if not isinstance(given, list | tuple) or len(given) != len(blank):
                many = isinstance(given, list | tuple)
                found = f"{len(given)} parts" if many else f"a {type(given).__name__}"
                raise ValueError(
                    f"{self.who}: {path} is {found}, expected a list of {len(blank)}, as the cell"
                    " has its states"
                )
            return [
                self._like(b, g, f"{path} {k}")
                for k, (b, g) in enumerate(zip(blank, given, strict=True))
            ]
        part = checks.array(self.who, path, given)
        if part.shape != blank.shape:
            raise ValueError(
                f"{self.who}: {path} is of shape {part.shape}, expected {blank.shape}: a row for"
                " each row of the input, and as wide as the cell's state; it is never broadcast"
            )
        return checks.numbers(self.who, path, part, blank.dtype).copy()

    @staticmethod
    def _copy(state: Any) -> Any:
        return map_arrays(np.copy, state)

    def _start(self, given: Any, batch: int) -> Any:
        """The state a call begins with. A carried state of zeros is that of any number of rows."""
        if self._carried is not None and any(part.any() for part in leaves(self._carried)):
            rows = self._carried_rows()
            if rows != batch:
                raise ValueError(
                    f"{self.who}: the input has {batch} rows, expected {rows}, because the layer is"
                    f" stateful and carries the state of {rows} sequences; reset_states() first to"
                    " start with another number"
                )
            if given is None:
                return self._carried
        return self._state(given, batch)

    # --- calls ---

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        xs = self._sequence(sequences)
        rows = len(first(xs))
        memory = Memory(self._start(initial_state, rows), self._zeros(rows))
        outputs, memory = self._run(xs, memory, mask, training)
        if self.stateful:
            self._carried = memory.state
        return outputs

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """That of the input where all outputs are returned; states never have one."""
        output = first(previous_mask) if self.return_sequences else None
        count = len(leaves(output_size(self.cell)))
        if count == 1 and not self.return_state:
            return output
        return [*[output] * count, *[None] * (self.state_count if self.return_state else 0)]

    @property
    def output_count(self) -> int:
        return 1 + self.state_count if self.return_state else 1

    @property
    def state_count(self) -> int:
        """How many states return_state adds to what a call returns."""
        size = self.cell.state_size
        return len(size) if isinstance(size, list | tuple) else 1

    def start(self, rows: int, initial_state: Any = None) -> Memory:
        """The memory of `rows` sequences before their first chunk: initial_state or zeros.

        What a stateful layer carries is not used.
        """
        return Memory(self._state(initial_state, rows), self._zeros(rows))

    def _sequence(self, sequences: Any) -> Any:
        """The input as an array (B, T, ...), or as several in the structure that is given."""
        several = isinstance(sequences, list | tuple | dict) and has_arrays(sequences)
        xs = map_arrays(self._one, sequences) if several else self._one(sequences)
        sizes = {x.shape[:2] for x in leaves(xs)}
        if len(sizes) != 1:
            raise ValueError(
                f"{self.who}: the inputs have shapes {[x.shape for x in leaves(xs)]}, expected one"
                " batch and one time for all of them, because a step takes a part of each"
            )
        return xs

    def _one(self, sequence: Any) -> Array:
        xs = checks.numbers(self.who, "the input", sequence, self.dtype)
        if xs.ndim < 3:
            raise ValueError(
                f"{self.who}: the input has shape {xs.shape}, expected (batch, time, features)"
            )
        return xs

    def _zeros(self, batch: int) -> Any:
        """Outputs before the first step, as far as the cell says what they are like."""
        return zeros(output_size(self.cell), batch, self.dtype)

    def advance(self, sequences: Any, memory: Memory, mask: Any = None) -> tuple[Any, Memory]:
        """What `call` returns in inference, and the memory to go on from; changes nothing.

        Chunks of a sequence that hand their memory on give the numbers of the whole, bit for bit,
        masks included. (A stateful call, as in Keras, hands on the state alone.)
        """
        return self._run(self._sequence(sequences), memory, mask, None)

    def _run(self, xs: Any, memory: Memory, mask: Any, training: bool | None) -> tuple[Any, Memory]:
        """One call; training None leaves the random numbers of dropout alone."""
        if isinstance(xs, list | tuple | dict) and isinstance(mask, list | tuple | dict):
            mask = first(mask)  # as in Keras 2: a step is skipped for all inputs alike
        mask = checks.mask(self.who, mask, *first(xs).shape[:2])
        if not self.built:  # only now that nothing is left to refuse
            self.build(map_arrays(np.shape, xs))
        return self.returned(*self._loop(xs, memory, mask, training), memory)

    def returned(self, ys: Any, state: Any, memory: Memory) -> tuple[Any, Memory]:
        """What a call returns whose outputs are `ys` and whose last state is `state`.

        memory  that which the call began with; the second result is that to go on from
        """
        last = memory.last_output
        if first(ys).shape[1]:
            last = map_arrays(lambda y: y[:, -1], ys)
        output = ys if self.return_sequences else self._copy(last)
        states = map_arrays(lambda part: part.astype(self.dtype), state)
        returned = (output, *states) if self.return_state else output
        return returned, Memory(state, self._copy(last))

    def _loop(
        self, xs: Any, memory: Memory, mask: Array | None, training: bool | None
    ) -> tuple[Any, Any]:
        """All outputs, and the state after the last step."""
        rows, steps, *features = first(xs).shape
        step = begin(self.cell, rows, features[-1], training)
        state, output = memory
        outputs: list[Any] = []
        with QUIET():
            for t in reversed(range(steps)) if self.go_backwards else range(steps):
                y, new = step(map_arrays(operator.itemgetter((slice(None), t)), xs), state)
                y = map_arrays(lambda part: np.asarray(part, self.dtype), y)
                if not outputs and not alike(output, y):  # the cell did not say what it returns
                    output = map_arrays(np.zeros_like, y)
                new = self._next(state, new)
                if mask is None:
                    state, output = new, y
                else:
                    live = mask[:, t]
                    held = map_arrays(np.zeros_like, y) if self.zero_output_for_mask else output
                    state, output = _where(live, new, state), _where(live, y, held)
                outputs.append(output)
        if not outputs:
            return map_arrays(lambda y: y[:, None][:, :0], output), state
        return together(lambda *ys: np.stack(ys, axis=1), *outputs), state

    def _next(self, state: Any, new: Any) -> Any:
        """The new state, in the structure and the dtypes of the one before."""
        try:
            return together(lambda old, part: np.asarray(part, old.dtype), state, new)
        except ValueError as error:
            raise ValueError(
                f"{self.who}: its cell returned other states than it was given: {error}"
            ) from None

    def _store(self, argument: str, value: Any) -> Any:
        return serialize(value) if argument == "cell" else super()._store(argument, value)


def _where(live: Array, new: Any, old: Any) -> Any:
    """new for the rows that are live, else old; each (B, ...), in structures of one form."""

    def choose(a: Array, b: Array) -> Array:
        return np.where(live.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return together(choose, new, old)
