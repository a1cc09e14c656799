"""RNN: any cell stepped along sequences, by the step rule of `reference.py`."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers.base import REQUIRED, Layer, serialize
from refrnn.layers.masks import leaves, map_arrays
from refrnn.layers.stacking import as_cell, begin, initial_state, output_size
from refrnn.reference import QUIET


class Memory(NamedTuple):
    """What a recurrent layer hands from one chunk of a sequence to the next.

    state        the cell's state, each part (B, H), nested as the cell has it
    last_output  (B, H), what a masked step repeats; zeros before the first step
    """

    state: Any
    last_output: Array


class RNN(Layer):
    """A recurrent layer of any cell; as `keras.layers.RNN`.

    cell  an object with call(inputs, states) and state_size, or a list of them. `state_size` is a
          whole number or a list of them; a cell with a nested state has get_initial_state too.

    A call takes
      sequences      (B, T, ...), any B and T, 0 included; cast to the layer's dtype
      initial_state  the states, nested as the cell has them; the bare array where there is one
      mask           (B, T), (B, T, 1) or (1, T): where it is 0 the step is skipped for that row
      training       True drops inputs and states, by the masks that Keras draws for the seed

    and returns the last output (B, H), or all of them (B, T, H) with return_sequences; with
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

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights for `input_shape` (B, T, F); a second time, forget the carried state."""
        if hasattr(self.cell, "build"):
            self.cell.build((input_shape[0], *(input_shape[2:] or input_shape[1:])))
        self.built = True
        rows = input_shape[0]
        self._carried = self._state(None, rows) if self.stateful and rows is not None else None

    @property
    def weights(self) -> list[Array]:
        """The cell's weights, read-only; for the layers of this package kernel, ..., bias."""
        return list(getattr(self.cell, "weights", []))

    @property
    def weight_names(self) -> list[str]:
        return list(getattr(self.cell, "weight_names", []))

    def weight_shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = self.cell.weight_shapes(features)
        return shapes

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
        return blank if isinstance(blank, list | tuple) else [blank]

    def _state(self, given: Any, batch: int) -> Any:
        """`given` in the structure of the cell's state, copied; zeros where it is None."""
        blank = self._blank(batch)
        return blank if given is None else self._like(blank, given, "state")

    def _like(self, blank: Any, given: Any, path: str) -> Any:
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
        memory = Memory(self._start(initial_state, len(xs)), self._zeros(len(xs)))
        outputs, memory = self._run(xs, memory, mask, training)
        if self.stateful:
            self._carried = memory.state
        return outputs

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """That of the input where all outputs are returned; states never have one."""
        mask = leaves(previous_mask)[0]
        output = mask if self.return_sequences else None
        return [output, *[None] * self.state_count] if self.return_state else output

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

    def _sequence(self, sequences: Any) -> Array:
        """The input as an array (B, T, ...)."""
        xs = checks.numbers(self.who, "the input", sequences, self.dtype)
        if xs.ndim < 3:
            raise ValueError(
                f"{self.who}: the input has shape {xs.shape}, expected (batch, time, features)"
            )
        return xs

    def _zeros(self, batch: int) -> Array:
        return np.zeros((batch, output_size(self.cell)), self.dtype)

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
        ys, state = self._loop(xs, memory, mask, training)
        last = (ys[:, -1] if ys.shape[1] else memory.last_output).copy()
        output = ys if self.return_sequences else last.copy()
        returned = (output, *self._copy(state)) if self.return_state else output
        return returned, Memory(state, last)

    def _loop(
        self, xs: Array, memory: Memory, mask: Array | None, training: bool | None
    ) -> tuple[Array, Any]:
        """All outputs, and the state after the last step."""
        step = begin(self.cell, len(xs), xs.shape[-1], training)
        state, output = memory
        outputs = []
        time = range(xs.shape[1])
        with QUIET():
            for t in reversed(time) if self.go_backwards else time:
                y, new = step(xs[:, t], state)
                if mask is None:
                    state, output = new, y
                else:
                    old = iter(leaves(state))
                    state = map_arrays(_held(mask[:, t], old), new)
                    output = _where(mask[:, t], y, 0 if self.zero_output_for_mask else output)
                outputs.append(output)
        blank = memory.last_output
        return (np.stack(outputs, axis=1) if outputs else blank[:, None][:, :0]), state

    def _store(self, argument: str, value: Any) -> Any:
        return serialize(value) if argument == "cell" else super()._store(argument, value)


def _where(live: Array, new: Array, old: Any) -> Array:
    """new for the rows that are live, else old; new (B, ...)."""
    shape = (len(live), *[1] * (new.ndim - 1))
    return np.where(live.reshape(shape), new, np.asarray(old, new.dtype))


def _held(live: Array, old: Iterator[Array]) -> Callable[[Array], Array]:
    return lambda new: _where(live, new, next(old))
