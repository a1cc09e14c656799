"""What a stream remembers: for each recurrent call, named arrays with a row for each session."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers import RNN, StackedRNNCells
from refrnn.layers.cells import RecurrentCell
from refrnn.layers.masks import leaves, map_arrays
from refrnn.layers.rnn import Memory
from refrnn.models.graph import Graph, is_model
from refrnn.streams.graphs import starts
from refrnn.streams.standins import StandIn

Key = tuple[str, int]  # a layer and the number of its call, as in `models.chunks`
State = dict[str, dict[str, Array]]  # layer -> part -> (rows, ...)
LAST = "last_output"


class Place:
    """One call of a recurrent layer: where its memory is.

    path   the keys that lead to it, through models inside
    name   what users call it: the layer's name, with those of the models around it
    given  whether the call is given the state to begin with
    parts  each part of the state, and the last output, (rows, ...), by name
    """

    def __init__(self, path: tuple[Key, ...], layer: RNN, given: bool) -> None:
        self.path, self.layer, self.given = path, layer, given
        self.name = "/".join(f"{name}#{call}" if call else name for name, call in path)
        blank = layer.start(0)
        self.state_form, self.last_form = blank
        self.state_names = _names(layer, blank.state)
        self.parts = self._named(blank)

    def _named(self, memory: Memory) -> dict[str, Array]:
        last = leaves(memory.last_output)
        names = [LAST] if len(last) == 1 else [f"{LAST}.{k}" for k in range(len(last))]
        return dict(zip([*self.state_names, *names], [*leaves(memory.state), *last], strict=True))

    def resize(self, capacity: int) -> None:
        """Make room for `capacity` rows; those that are there stay."""
        for name, part in self.parts.items():
            grown = np.zeros((capacity, *part.shape[1:]), part.dtype)
            kept = min(capacity, len(part))
            grown[:kept] = part[:kept]
            self.parts[name] = grown

    def read(self, rows: Any) -> Memory:
        """The memory of some rows, copied."""
        copied = isinstance(rows, np.ndarray)
        values = [part[rows] if copied else part[rows].copy() for part in self.parts.values()]
        count = len(self.state_names)
        state, last = values[:count], values[count:]
        return Memory(_filled(self.state_form, state), _filled(self.last_form, last))

    def write(self, rows: Any, memory: Memory) -> None:
        """Put the memory of some rows in its place."""
        found = self._named(memory)
        if self._forms(found) != self._forms(self.parts):
            self._take_form(memory, found)
        for name, values in found.items():
            self.parts[name][rows] = values

    @staticmethod
    def _forms(parts: dict[str, Array]) -> dict[str, Any]:
        return {name: (part.shape[1:], part.dtype) for name, part in parts.items()}

    def _take_form(self, memory: Memory, found: dict[str, Array]) -> None:
        """A cell's first output says what it is like, where the cell itself did not."""
        capacity = len(next(iter(self.parts.values())))
        kept = {name: self.parts[name] for name in self.state_names}
        blank = {n: np.zeros((capacity, *v.shape[1:]), v.dtype) for n, v in found.items()}
        self.parts = {**blank, **kept}
        self.last_form = memory.last_output

    def adopt(self, rows: list[int], parts: dict[str, Array], form: Any, capacity: int) -> None:
        """Have these parts of these rows, and nothing of others."""
        self.last_form = form
        for name, values in parts.items():
            self.parts[name] = np.zeros((capacity, *values.shape[1:]), values.dtype)
            self.parts[name][rows] = values

    def blank(self, rows: int) -> Memory:
        """The memory of rows that have seen nothing."""
        state, _ = self.layer.start(rows)
        last = list(self.parts.values())[len(self.state_names) :]
        zeros = [np.zeros((rows, *part.shape[1:]), part.dtype) for part in last]
        return Memory(state, _filled(self.last_form, zeros))


def _filled(form: Any, values: list[Array]) -> Any:
    """A structure like `form` of other arrays."""
    rest = iter(values)
    return map_arrays(lambda _: next(rest), form)


def _names(layer: RNN, state: Any) -> list[str]:
    """A name for each array of a state: h and c, or where it is in the structure."""
    if isinstance(layer, StandIn) and layer.parts_of_state:
        return list(layer.parts_of_state)
    return list(_of_cell(layer.cell, state))


def _of_cell(cell: Any, state: Any) -> Iterator[str]:
    if isinstance(cell, RecurrentCell):
        yield from cell.math.State._fields
    elif isinstance(cell, StackedRNNCells):
        for k, (inner, part) in enumerate(zip(cell.cells, state, strict=True)):
            yield from (f"{k}.{name}" for name in _of_cell(inner, part))
    else:
        yield from _paths(state)


def _paths(structure: Any) -> Iterator[str]:
    """Where each leaf is, in the order of `leaves`."""
    if isinstance(structure, dict):
        items: Any = sorted(structure.items())
    elif isinstance(structure, list | tuple):
        items = enumerate(structure)
    else:
        yield ""
        return
    for key, part in items:
        yield from (f"{key}.{rest}" if rest else str(key) for rest in _paths(part))


def places(graph: Graph, path: tuple[Key, ...] = ()) -> list[Place]:
    """The places of all recurrent calls, in the order in which they are made."""
    found: list[Place] = []
    for node in graph.nodes:
        here = (*path, (node.layer.name, node.call))
        layer: Any = node.layer
        if is_model(layer):
            found += places(layer.graph, here)
        elif isinstance(layer, RNN):
            found.append(Place(here, layer, starts(node)))
    return found


def nested(found: list[tuple[Place, Memory]]) -> dict[Key, Any]:
    """Memories as `models.chunks.advance` takes them: by key, those of models inside nested."""
    memories: dict[Key, Any] = {}
    for place, memory in found:
        folder = memories
        for key in place.path[:-1]:
            folder = folder.setdefault(key, {})
        folder[place.path[-1]] = memory
    return memories


def flattened(memories: dict[Key, Any], order: list[Place]) -> list[Memory]:
    """The memories of `order` from what `models.chunks.advance` returned."""
    found = []
    for place in order:
        folder: Any = memories
        for key in place.path:
            folder = folder[key]
        found.append(folder)
    return found


def copied(found: list[Place], rows: list[int]) -> State:
    """Copies of what rows have in each place."""
    return {p.name: {name: part[rows] for name, part in p.parts.items()} for p in found}


def checked(who: str, found: list[Place], state: Any, rows: int) -> list[tuple[Array, Array]]:
    """For each array of a state, given by layer and part, the one that is to hold it."""
    known = {place.name: place.parts for place in found}
    ready = []
    for layer, parts in _entries(who, "the state", state, known):
        for name, given in _entries(who, f"the state of {layer!r}", parts, known[layer]):
            part, what = known[layer][name], f"state {layer!r} {name!r}"
            values = checks.numbers(who, what, given, part.dtype)
            if values.shape != (rows, *part.shape[1:]):
                raise ValueError(
                    f"{who}: {what} has shape {values.shape}, expected {(rows, *part.shape[1:])}: a"
                    " row for each row of the stream; it is never broadcast"
                )
            ready.append((part, values))
    return ready


def _entries(who: str, what: str, given: Any, known: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The items of a dictionary whose keys must be known."""
    if not isinstance(given, Mapping):
        raise ValueError(
            f"{who}: {what} is {type(given).__name__}, expected a dictionary by {list(known)}"
        )
    for name in given:
        if name not in known:
            raise ValueError(f"{who}: {what} has {name!r}, expected some of {list(known)}")
    return list(given.items())
