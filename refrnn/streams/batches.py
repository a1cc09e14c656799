"""A chunk of a graph advanced for a batch of rows: resets, states that are given, and pieces."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from refrnn.gates import Array
from refrnn.layers.masks import leaves, map_arrays, mask_of, with_mask
from refrnn.layers.rnn import Memory
from refrnn.layers.states import together
from refrnn.models import chunks
from refrnn.models.graph import Graph
from refrnn.streams.health import Watch
from refrnn.streams.memory import Place, flattened, nested


class Batch(NamedTuple):
    """The rows of one push.

    rows      (rows,) their numbers
    arrays    an input each, the rows first, with their masks
    memories  one for each place
    at        (rows,) how many steps each has taken
    fresh     (rows,) whether it is new: it takes a state that is given to begin with
    reset     (rows, T) whether it forgets before a step; or None
    """

    rows: Array
    arrays: list[Array]
    memories: list[Memory]
    at: Array
    fresh: Array
    reset: Array | None


class Result(NamedTuple):
    """Outputs in the model's structure, and memories, steps and freshness after them."""

    outputs: Any
    memories: list[Memory]
    at: Array
    fresh: Array


class Advance:
    """How the chunks of one graph are computed. Changes nothing of what it is given.

    kinds      what each output is to a chunk, as `models.chunks` says
    timed      whether each input has a time axis
    by_chunks  whether a cut changes numbers: then each row is cut by its own resets alone
    watch      who is told whose steps come, or None
    """

    def __init__(
        self,
        graph: Graph,
        places: list[Place],
        kinds: list[str],
        timed: list[bool],
        by_chunks: bool,
        watch: Watch | None,
    ) -> None:
        self.graph, self.places, self.kinds, self.timed = graph, places, kinds, timed
        self.by_chunks, self.watch = by_chunks, watch

    def __call__(self, batch: Batch, steps: int) -> Result:
        if batch.reset is None or not batch.reset.any():
            return self._span(batch, slice(0, steps))
        if self.by_chunks:
            _, pattern = np.unique(batch.reset, axis=0, return_inverse=True)
            return _grouped(batch, pattern.reshape(-1), lambda part: self._pieces(part, steps))
        return self._pieces(batch, steps)

    def _pieces(self, batch: Batch, steps: int) -> Result:
        """The chunk cut before each step at which a row is reset."""
        reset: Any = batch.reset
        cuts = [0, *(int(t) for t in np.flatnonzero(reset.any(axis=0)) if t), steps]
        results: list[Result] = []
        for first, last in pairwise(cuts):
            forget = reset[:, first]
            if forget.any():
                batch = batch._replace(
                    memories=self._forgotten(batch.memories, forget),
                    at=np.where(forget, 0, batch.at),
                    fresh=batch.fresh | forget,
                )
            results.append(self._span(batch, slice(first, last)))
            _, memories, at, fresh = results[-1]
            batch = batch._replace(memories=memories, at=at, fresh=fresh)
        return Result(self._joined([r.outputs for r in results]), *results[-1][1:])

    def _forgotten(self, memories: list[Memory], forget: Array) -> list[Memory]:
        rows = len(forget)

        def choose(blank: Array, old: Array) -> Array:
            return np.where(forget.reshape(-1, *[1] * (old.ndim - 1)), blank, old)

        return [
            Memory(*together(choose, tuple(place.blank(rows)), tuple(memory)))
            for place, memory in zip(self.places, memories, strict=True)
        ]

    def _joined(self, runs: list[Any]) -> Any:
        """The outputs of the pieces, one after another where they have a time axis."""
        columns = zip(*map(leaves, runs), strict=True)
        joined = [
            np.concatenate(column, axis=1) if kind == chunks.STEPS else column[-1]
            for kind, column in zip(self.kinds, columns, strict=True)
        ]
        return refilled(runs[-1], joined)

    def _span(self, batch: Batch, span: slice) -> Result:
        """A piece without resets after its beginning."""
        cut = [
            _cut(array, (slice(None), span)) if timed else array
            for array, timed in zip(batch.arrays, self.timed, strict=True)
        ]
        batch = batch._replace(arrays=cut, reset=None)
        given = any(place.given for place in self.places)
        result = _grouped(batch, batch.fresh, self._plain) if given else self._plain(batch)
        steps = span.stop - span.start
        return result._replace(at=batch.at + steps, fresh=batch.fresh & (steps == 0))

    def _plain(self, batch: Batch) -> Result:
        """A piece for rows that are all fresh, or all not, where states are given."""
        begin = bool(batch.fresh.any())
        known = [
            (place, memory)
            for place, memory in zip(self.places, batch.memories, strict=True)
            if not (place.given and begin)
        ]
        if self.watch is not None:
            self.watch.expect(batch.rows, batch.at)
        outputs, after = chunks.advance(self.graph, batch.arrays, nested(known))
        memories = flattened(after, self.places)
        return Result(map_arrays(np.asarray, outputs), memories, batch.at, batch.fresh)


def _cut(array: Array, where: Any) -> Array:
    """A part of an input, with that part of its mask."""
    mask = mask_of(array)
    return with_mask(np.asarray(array)[where], None if mask is None else mask[where])


def _grouped(batch: Batch, labels: Array, function: Callable[[Batch], Result]) -> Result:
    """`function` of the rows of each label by themselves, and the rows in their places again."""
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if len(groups) <= 1:
        return function(batch)
    results = [function(_rows(batch, rows)) for rows in groups]
    outputs = _spread(groups, [leaves(r.outputs) for r in results], len(labels))
    after = _spread(groups, [leaves(list(r[1:])) for r in results], len(labels))
    first, *rest = results[0]
    return Result(refilled(first, outputs), *refilled(rest, after))


def _rows(batch: Batch, rows: Array) -> Batch:
    arrays = [_cut(array, rows) for array in batch.arrays]
    memories = map_arrays(lambda part: part[rows], batch.memories)
    reset = None if batch.reset is None else batch.reset[rows]
    return Batch(batch.rows[rows], arrays, memories, batch.at[rows], batch.fresh[rows], reset)


def _spread(groups: Sequence[Array], found: list[list[Array]], rows: int) -> list[Array]:
    spread = []
    for parts in zip(*found, strict=True):
        whole = np.empty((rows, *parts[0].shape[1:]), parts[0].dtype)
        for chosen, part in zip(groups, parts, strict=True):
            whole[chosen] = part
        spread.append(whole)
    return spread


def refilled(structure: Any, arrays: Sequence[Array]) -> Any:
    """The structure with other arrays, in the order of `leaves`."""
    rest = iter(arrays)
    return map_arrays(lambda _: next(rest), structure)
