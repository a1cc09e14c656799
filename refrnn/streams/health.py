"""Health counters: how saturated gates are, how |c| grows, and the first number that is none."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from refrnn import reference
from refrnn.gates import Array
from refrnn.layers import RNN, Recurrent
from refrnn.layers.masks import leaves
from refrnn.layers.rnn import Memory
from refrnn.streams.standins import StandIn

NEAR = 0.01  # a gate this near to 0 or 1 is saturated
GATES = "ifozr"  # those that open and close; candidates are not among them


class Bad(NamedTuple):
    """The first NaN or infinity that a recurrent layer gave.

    row, step  of the stream; the step counted from 0, since the row was new
    layer      by name
    cause      "input", "state" or "weights", whichever was not finite; else "overflow"
    """

    row: int
    step: int
    layer: str
    cause: str


@dataclass
class LayerHealth:
    """The counters of one recurrent layer; masked steps are not counted.

    steps      rows times steps seen
    saturated  gate -> the fraction of its values within 0.01 of 0 or of 1
    c_first    the largest |c| of an LSTM after the first piece, and after the last one
    c_last
    """

    steps: int = 0
    saturated: dict[str, float] = field(default_factory=dict)
    c_first: float | None = None
    c_last: float | None = None


@dataclass
class Health:
    """What `Stream.health` returns: counters by layer, and the first bad number if there was one.

    layers     by name: those of the three kinds, Bidirectional ones left out
    first_bad  see `Bad`; None while all is finite
    """

    layers: dict[str, LayerHealth] = field(default_factory=dict)
    first_bad: Bad | None = None


class Seen(NamedTuple):
    """What one piece of a layer adds to its counters."""

    layer: str
    steps: int
    gates: dict[str, tuple[int, int]]  # saturated values, and all
    c: float | None
    bad: tuple[int, int, str] | None  # row and step of the batch, and the cause


class Watch:
    """The counters of a stream. What is seen counts from `commit` on."""

    def __init__(self) -> None:
        self.health = Health()
        self._pending: list[tuple[Seen, Array, Array]] = []
        self._counts: dict[tuple[str, str], tuple[int, int]] = {}
        self._rows = self._at = np.zeros(0, np.int64)

    def begin(self) -> None:
        """Forget what was seen and not committed."""
        self._pending = []

    def expect(self, rows: Array, at: Array) -> None:
        """Whose steps come now: the numbers of the rows, and how many steps they have taken."""
        self._rows, self._at = rows, at

    def see(self, seen: Seen) -> None:
        self._pending.append((seen, self._rows, self._at))

    def commit(self) -> None:
        for seen, rows, at in self._pending:
            self._count(seen)
            if seen.bad and self.health.first_bad is None:
                row, step, cause = seen.bad
                self.health.first_bad = Bad(int(rows[row]), int(at[row]) + step, seen.layer, cause)
        self._pending = []

    def _count(self, seen: Seen) -> None:
        layer = self.health.layers.setdefault(seen.layer, LayerHealth())
        layer.steps += seen.steps
        for gate, (some, all_) in seen.gates.items():
            before = self._counts.get((seen.layer, gate), (0, 0))
            total = self._counts[seen.layer, gate] = before[0] + some, before[1] + all_
            layer.saturated[gate] = total[0] / total[1] if total[1] else 0.0
        if seen.c is not None:
            layer.c_first = seen.c if layer.c_first is None else layer.c_first
            layer.c_last = seen.c


class Watched(StandIn):
    """A recurrent layer that tells a `Watch` what it computes."""

    layer: RNN
    parts_of_state = ()

    def __init__(self, layer: RNN, watch: Watch) -> None:
        super().__init__(layer)
        self.cell, self.watch = layer.cell, watch

    def start(self, rows: int, initial_state: Any = None) -> Memory:
        return self.layer.start(rows, initial_state)

    def advance(self, sequences: Any, memory: Memory, mask: Any = None) -> tuple[Any, Memory]:
        returned, after = self.layer.advance(sequences, memory, mask)
        x = leaves(sequences)[0]
        gates, c = {}, None
        live = np.ones(x.shape[:2], bool) if mask is None else np.asarray(mask, bool)
        bad = None
        if isinstance(self.layer, Recurrent) and live.size:
            cell, weights = self.layer.cell.math, self.layer.cell.arrays
            xs = np.asarray(x, self.layer.dtype, order="C")
            trace: Any = reference.trace(cell, weights, xs, memory.state, mask=live)
            for name in set(GATES) & set(trace._fields):
                values = getattr(trace, name)[live]
                shut = (values < NEAR) | (values > 1 - NEAR)
                gates[name] = int(shut.sum()), shut.size
            c = float(np.abs(after.state.c).max()) if hasattr(after.state, "c") else None
            bad = _first_bad(trace, xs, memory, weights, live)
        self.watch.see(Seen(self.name, int(live.sum()), gates, c, bad))
        return returned, after


def _first_bad(trace: Any, xs: Array, memory: Memory, weights: Any, live: Array) -> Any:
    """The first (row, step) whose state is not finite, the earliest step first, and why."""
    parts = [getattr(trace, name) for name in memory.state._fields]
    broken = np.any([~np.isfinite(part).all(axis=2) for part in parts], axis=0) & live
    if not broken.any():
        return None
    step = int(np.flatnonzero(broken.any(axis=0))[0])
    row = int(np.flatnonzero(broken[:, step])[0])
    if not np.isfinite(xs[row, step]).all():
        return row, step, "input"
    if not all(np.isfinite(part[row]).all() for part in memory.state):
        return row, step, "state"
    finite = all(np.isfinite(weight).all() for weight in weights)
    return row, step, "overflow" if finite else "weights"
