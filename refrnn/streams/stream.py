"""Stream: sequences that arrive piece by piece, and never lose their place."""

import copy
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers.masks import map_arrays, mask_of
from refrnn.models import Model, chunks
from refrnn.streams.batches import Advance, Batch, Result
from refrnn.streams.fingerprints import fingerprint
from refrnn.streams.graphs import as_model, check_built, streamable, timed_inputs
from refrnn.streams.health import Health, Watch
from refrnn.streams.memory import State, checked, copied, places
from refrnn.streams.rows import Rows, said
from refrnn.streams.steps import Bound, bind, chained, settle

MODES = (None, "chunk")


class Snapshot(NamedTuple):
    """All that a stream remembers at one moment; made by `Stream.snapshot`, never changed.

    model   whose it is; bidirectional as the stream was made with
    rows    the numbers of the rows, in order
    names   the rows that have a name, by it
    steps   how many steps each row has taken since it was new
    fresh   whether each row is still new: it takes the state that it is given to begin with
    state   layer -> part -> (rows, ...), the last outputs among the parts
    forms   the structure of each layer's last output
    """

    model: Model
    bidirectional: str | None
    rows: tuple[int, ...]
    names: Mapping[str, int]
    steps: Array
    fresh: Array
    state: State
    forms: tuple[Any, ...]


class Stream:
    """Runs a model along sequences that arrive piece by piece, a row of memory for each of them.

    model          a Model, a layer, a cell, or a pair (cell name, Weights)
    rows           how many sequences there are to begin with, numbered 0, 1, ...; 0 for none
    bidirectional  None: a Bidirectional layer is refused, because its backward half needs the end
                   of the sequence. "chunk": that half sees one chunk at a time, and begins anew
                   with each; so the numbers depend on how the sequence is cut
    health         whether counters are kept, see `health`; a step then costs some three times more

    Pushed in any pieces, a sequence gives the numbers of the whole in one call of the model, bit
    for bit; a row's numbers never depend on the rows beside it. What stateful layers carry is
    neither used nor touched, and the model is not changed: many streams share one.

    A stream is used by one thread at a time; another one's call meanwhile is a RuntimeError.
    Raises ValueError, with the layer's name and what to do instead, for a model that mixes time.
    """

    def __init__(
        self,
        model: Any,
        rows: int = 1,
        bidirectional: str | None = None,
        health: bool = False,
    ) -> None:
        if bidirectional not in MODES:
            raise ValueError(
                f'Stream: bidirectional is {bidirectional!r}, expected None, or "chunk" for a'
                " backward half that sees one chunk at a time"
            )
        if rows != 0 or isinstance(rows, bool):
            rows = checks.count("Stream", "rows", rows)
        self.model, self.bidirectional = as_model(model), bidirectional
        check_built(self.model)
        by_chunks = bidirectional == "chunk"
        self._watch = Watch() if checks.flag("Stream", "health", health) else None
        graph, kinds = streamable(self.model, by_chunks, self._watch)
        timed = timed_inputs(self.model)
        self._places = places(graph)
        self._advance = Advance(graph, self._places, kinds, timed, by_chunks, self._watch)
        self._chain = chained(graph)
        self._bound: Bound | None = None  # the fast path, on the memory as it is
        self._ticks = 0  # steps that it took since anything else happened
        self._torn = False  # whether a write was interrupted
        self._busy = threading.Lock()
        self._rows = Rows(self.who)
        self._rows.set(range(rows), {})
        self._resize(rows)
        self._forget(self._rows.numbers)

    @property
    def who(self) -> str:
        """How error messages call this stream."""
        return f"Stream of {self.model.who}"

    def __repr__(self) -> str:
        return f"<{self.who}, {len(self._rows.numbers)} rows>"

    # --- rows ---

    @property
    def rows(self) -> list[int]:
        """The numbers of the rows, in order."""
        return list(self._rows.numbers)

    @property
    def names(self) -> dict[str, int]:
        """The rows that have a name, by it."""
        return dict(self._rows.names)

    @property
    def steps(self) -> Array:
        """How many steps each row has taken since it was new, masked ones included; a copy."""
        with self._alone("steps"):
            return self._rows.steps[self._rows.numbers]

    def join(self, name: str | None = None) -> int:
        """A new row, with nothing remembered: its number, the lowest that is free.

        name  what to call it, a session's key say; kept in files
        """
        with self._alone("join"):
            row = self._rows.free(name)
            if row >= self._rows.capacity:
                self._resize(max(4, 2 * row))
            with self._writing():
                self._forget([row])
                self._rows.add(row, name)
            return row

    def leave(self, row: int) -> None:
        """Let go of a row: what it remembers is wiped, and its number is free for another."""
        with self._alone("leave"):
            [chosen] = self._rows.chosen([row])
            with self._writing():
                self._forget([chosen])
                self._rows.remove(chosen)

    def _resize(self, capacity: int) -> None:
        for place in self._places:
            place.resize(capacity)
        self._rows.resize(capacity)
        self._bound = None

    # --- steps ---

    def push(self, x: Any, mask: Any = None, reset: Any = None, rows: Any = None) -> Any:
        """Take the next piece of each sequence; what the model returns for it.

        x      (rows, T, F), any T, 0 included; for ids (rows, T). For several inputs a list, or a
               dictionary by name, as in a call of the model; those without a time axis are given
               with every piece, and a state to begin with is used by rows that are new
        mask   (rows, T): where it is 0 the step is skipped for that row; as in a call of the model
        reset  (rows, T): where it is True the row forgets before that step
        rows   the numbers of the rows that x is for, in its order; None for all

        Outputs with a time axis have the T steps of this piece; the others are those after it. The
        whole piece is taken or, where anything is wrong, nothing of it.
        """
        with self._alone("push"):
            return self._push(x, mask, reset, rows)

    def peek(self, x: Any, mask: Any = None, reset: Any = None, rows: Any = None) -> Any:
        """What `push` would return; nothing is taken."""
        with self._alone("peek"):
            _, result = self._computed(x, mask, reset, rows)
            return result.outputs

    def step(self, x: Any, rows: Any = None) -> Any:
        """Take one step of each sequence: the fast path.

        x  (rows, F), for ids (rows,): one step of what `push` takes; rows as there

        Returns what the model returns for the step, its time axis left out. An array of the dtype
        of the model's input, for all rows, is taken as it is. The numbers are those of `push`.
        """
        if not self._busy.acquire(False):
            self._refuse("step")
        try:
            bound = self._bound
            if bound is None or rows is not None or self._torn or bound.stale():
                bound = self._bind() if rows is None else None
                if bound is None:
                    return self._step_by_push(x, rows)
            step, shape, dtype, _ = bound
            if type(x) is not np.ndarray or x.shape != shape or x.dtype is not dtype:
                x = self._one_step(x, shape)
            self._torn = True  # to stay, where the next lines are interrupted
            y = step(x)
            self._ticks += 1
            self._torn = False
            return y
        finally:
            self._busy.release()

    def _bind(self) -> Bound | None:
        """The fast path on the memory as it is now; None where it does not lead there."""
        self._ready()
        count = len(self._rows.numbers)
        if self._chain is not None and count and self._rows.dense:
            self._resize(count)
            self._bound = bind(self._chain, self._places, count)
        return self._bound

    def _one_step(self, x: Any, shape: tuple[int, int]) -> Array:
        """x as an array that the fast path takes."""
        [array] = self.model.arrays(self._with_time(x))
        if array.shape != (shape[0], 1, shape[1]):
            raise ValueError(
                f"{self.who}: the step has shape {np.shape(x)}, expected {shape}: a row for each"
                " sequence, a column for each feature"
            )
        return np.ascontiguousarray(array[:, 0])

    def _step_by_push(self, x: Any, rows: Any) -> Any:
        self._ready()
        outputs = self._push(self._with_time(x), None, None, rows)
        kinds = iter(self._advance.kinds)
        return map_arrays(lambda y: y[:, 0] if next(kinds) == chunks.STEPS else y, outputs)

    def _with_time(self, x: Any) -> Any:
        """A step of each input as a sequence of one."""
        names = [item.name for item in self.model.inputs]
        timed = dict(zip(names, self._advance.timed, strict=True))
        if isinstance(x, Mapping):
            return {name: self._widened(part, timed.get(name, False)) for name, part in x.items()}
        if len(names) > 1 and isinstance(x, list | tuple):
            return [self._widened(*pair) for pair in zip(x, timed.values(), strict=False)]
        return self._widened(x, True)

    def _widened(self, given: Any, timed: bool) -> Array:
        array = checks.array(self.who, "the step", given)
        if timed and not array.ndim:
            raise ValueError(
                f"{self.who}: the step is {given!r}, expected (rows, features): an array with a row"
                " for each sequence"
            )
        return array[:, None] if timed else array

    def _push(self, x: Any, mask: Any, reset: Any, rows: Any) -> Any:
        index, result = self._computed(x, mask, reset, rows)
        with self._writing(bound=True):
            for place, memory in zip(self._places, result.memories, strict=True):
                place.write(index, memory)
            self._rows.steps[index], self._rows.fresh[index] = result.at, result.fresh
            if self._watch is not None:
                self._watch.commit()
        return result.outputs

    def _computed(self, x: Any, mask: Any, reset: Any, rows: Any) -> tuple[Any, Result]:
        """What selects the rows, and what a push of them comes to; nothing is changed."""
        chosen = self._rows.chosen(rows)
        arrays = self.model.arrays(x, mask)
        steps = self._checked_steps(arrays, chosen)
        index = self._rows.index(chosen)
        batch = Batch(
            np.asarray(chosen, np.int64),
            arrays,
            [place.read(index) for place in self._places],
            self._rows.steps[index].copy(),
            self._rows.fresh[index].copy(),
            checks.mask(self.who, reset, len(chosen), steps, "reset"),
        )
        if self._watch is not None:
            self._watch.begin()
        return index, self._advance(batch, steps)

    def _checked_steps(self, arrays: list[Array], chosen: list[int]) -> int:
        """How many steps there are, of inputs whose rows, steps and masks fit one another."""
        lengths = {}
        for item, array, timed in zip(self.model.inputs, arrays, self._advance.timed, strict=True):
            what = f"{self.who}: input {item.name!r}"
            if array.ndim < 1 + timed or len(array) != len(chosen):
                expected = f"({len(chosen)}, time, ...)" if timed else f"({len(chosen)}, ...)"
                raise ValueError(
                    f"{what} has shape {array.shape}, expected {expected}, for {said(chosen)}"
                )
            mask = mask_of(array)
            if timed and mask is not None and mask.shape[:2] != array.shape[:2]:
                raise ValueError(
                    f"{what} has a mask of shape {mask.shape}, expected {array.shape[:2]}: one"
                    " truth value for each row and time step"
                )
            if timed:
                lengths[item.name] = array.shape[1]
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"{self.who}: the inputs have {lengths} steps, expected as many each, because they"
                " go on together"
            )
        return next(iter(lengths.values()))

    # --- state ---

    def reset(self, rows: Any = None) -> None:
        """Make rows forget all they have seen: they are as new ones. None for all rows."""
        with self._alone("reset", torn_too=rows is None):
            chosen = self._rows.chosen(rows)
            with self._writing(bound=True):
                self._forget(chosen)

    def _forget(self, chosen: list[int]) -> None:
        index = np.asarray(chosen, np.intp)
        for place in self._places:
            place.write(index, place.blank(len(chosen)))
        self._rows.steps[index], self._rows.fresh[index] = 0, True

    @property
    def state(self) -> State:
        """What is remembered: layer -> part -> (rows, ...), copies, a row for each of `rows`.

        Parts are "h" and "c", or where an array is in the state of another cell; "last_output" is
        what a masked step repeats.
        """
        with self._alone("state"):
            return copied(self._places, self._rows.numbers)

    def set_state(self, state: Mapping[str, Mapping[str, Any]], rows: Any = None) -> None:
        """Write what rows remember, in the form of `state`; layers and parts left out stay.

        rows  the numbers of the rows, in the order of the arrays; None for all

        Raises ValueError for a name or a shape that does not fit, before anything is written. Rows
        that were new are not new any more: they take no other state to begin with.
        """
        with self._alone("set_state"):
            chosen = self._rows.chosen(rows)
            ready = checked(self.who, self._places, state, len(chosen))
            index = self._rows.index(chosen)
            with self._writing(bound=True):
                for part, values in ready:
                    part[index] = values
                self._rows.fresh[index] = False

    def snapshot(self) -> Snapshot:
        """All that is remembered now, to come back to with `restore`; it costs a copy."""
        with self._alone("snapshot"):
            numbers = self._rows.numbers
            return Snapshot(
                self.model,
                self.bidirectional,
                tuple(numbers),
                dict(self._rows.names),
                self._rows.steps[numbers],
                self._rows.fresh[numbers],
                copied(self._places, numbers),
                tuple(place.last_form for place in self._places),
            )

    def restore(self, snapshot: Snapshot) -> None:
        """Be as when a snapshot was taken, its rows and their names included.

        snapshot  of this stream, or of another one of the same model: its architecture and weights

        Raises ValueError for that of another model, before anything is changed.
        """
        with self._alone("restore", torn_too=True):
            self._check_snapshot(snapshot)
            numbers = list(snapshot.rows)
            with self._writing():
                self._resize(max([self._rows.capacity, *(row + 1 for row in numbers)]))
                self._rows.set(numbers, snapshot.names)
                self._rows.steps[numbers] = snapshot.steps
                self._rows.fresh[numbers] = snapshot.fresh
                kept = zip(self._places, snapshot.state.values(), snapshot.forms, strict=True)
                for place, parts, form in kept:
                    place.adopt(numbers, parts, form, self._rows.capacity)

    def _check_snapshot(self, snapshot: Any) -> None:
        if not isinstance(snapshot, Snapshot):
            raise ValueError(
                f"{self.who}: restore was given {type(snapshot).__name__}, expected what snapshot()"
                " returned"
            )
        if snapshot.bidirectional != self.bidirectional:
            raise ValueError(
                f"{self.who}: the snapshot is of a stream with bidirectional="
                f"{snapshot.bidirectional!r}, expected {self.bidirectional!r}"
            )
        if snapshot.model is self.model:
            return
        if fingerprint(snapshot.model) != fingerprint(self.model):
            raise ValueError(
                f"{self.who}: the snapshot is of {snapshot.model.who}, whose layers or weights are"
                " others, expected the same model's, because a state means nothing to another"
            )

    # --- files ---

    def save(self, path: "str | os.PathLike[str]") -> None:
        """Write all that is remembered into a file, whole or not at all.

        path  .npz, or .h5, with an array states_<layer>_<i> for each part; the suffix chooses

        The file carries the model's fingerprint, the rows with their names and steps, and a
        checksum. What is at `path` stays until the new file is whole and on the disk.
        """
        from refrnn.streams import files

        files.save(self.snapshot(), path)

    @classmethod
    def load(cls, path: "str | os.PathLike[str]", model: Any, health: bool = False) -> "Stream":
        """The stream that `save` wrote, which goes on bit for bit.

        model  the model it was of, or the same one made again: architecture and weights

        Raises FileError (a ValueError) for a file that is damaged or of another model.
        """
        from refrnn.streams import files

        made: Stream = files.load(path, lambda mode: cls(model, 0, mode, health))
        return made

    # --- health ---

    def health(self) -> Health:
        """The counters since the stream was made: saturated gates, |c|, the first bad number.

        Raises ValueError where the stream was made without health=True.
        """
        if self._watch is None:
            raise ValueError(
                f"{self.who}: keeps no counters, expected one made with health=True, because"
                " counting takes time"
            )
        with self._alone("health"):
            return copy.deepcopy(self._watch.health)

    # --- one thread at a time, and nothing half done ---

    @contextmanager
    def _alone(self, doing: str, torn_too: bool = False) -> Iterator[None]:
        """Keep other threads out; torn_too: it may be done after an interrupted write."""
        if not self._busy.acquire(False):
            self._refuse(doing)
        try:
            self._ready(torn_too)
            yield
        finally:
            self._busy.release()

    def _refuse(self, doing: str) -> None:
        raise RuntimeError(
            f"{self.who}: {doing} was called while another call is running, expected one thread at"
            " a time, because the order of steps would be left to chance; give each thread a stream"
            " of its own, which share the model's weights, or hold a lock"
        )

    def _ready(self, torn_too: bool = False) -> None:
        """Put down what the fast path left for later; refuse to go on from half a write."""
        if self._torn and not torn_too:
            raise RuntimeError(
                f"{self.who}: was interrupted while its state was written, expected restore() of a"
                " snapshot or reset() of all rows first, because some layers may be a step ahead"
            )
        if self._ticks:
            count = len(self._rows.numbers)
            settle(self._places)
            self._rows.steps[:count] += self._ticks
            self._rows.fresh[:count] = False
            self._ticks = 0

    @contextmanager
    def _writing(self, bound: bool = False) -> Iterator[None]:
        """Where the block is interrupted, the stream knows; bound: the fast path stays valid."""
        self._torn = True
        yield
        if not bound:
            self._bound = None
        self._torn = False
