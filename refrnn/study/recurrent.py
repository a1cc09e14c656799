"""The recurrent layers of a model, each with what it was given when the model was run."""

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from refrnn.engines import run, trace
from refrnn.gates import Array
from refrnn.layers import RNN, Layer, TimeDistributed
from refrnn.layers.cells import RecurrentCell
from refrnn.layers.masks import leaves
from refrnn.traces import Trace


class Seen(NamedTuple):
    """One call of a recurrent layer.

    name   that of the layer; "outer/name" in a model inside, "name/forward" in a Bidirectional,
           "name#2" for its second call
    layer  whose cell is one of refrnn's
    xs     (B, T, F)
    state  that it was called with; None for zeros
    mask   (B, T) or None
    """

    name: str
    layer: Any
    xs: Array
    state: Any
    mask: Array | None

    def rows(self, count: int) -> "Seen":
        """The first rows of it."""
        few = np.s_[:count]
        state = self.state if self.state is None else [part[few] for part in leaves(self.state)]
        mask = None if self.mask is None else np.asarray(self.mask)[few]
        return self._replace(xs=self.xs[few], state=state, mask=mask)

    def trace(self, **changes: Any) -> Trace:
        """`refrnn.trace` of it. changes: of its arguments, such as reset."""
        return trace(*self._run_on(), **{**self._how(), **changes})

    def outputs(self, **changes: Any) -> tuple[Array, Any]:
        """`refrnn.run` of it on the NumPy engine: all outputs (B, T, H), and the last state."""
        zeros = self.layer.zero_output_for_mask
        how = {"zero_output_for_mask": zeros, "engine": "numpy", **self._how(), **changes}
        return run(*self._run_on(), **how)

    def _run_on(self) -> tuple[Any, ...]:
        cell = self.layer.cell
        return cell.math, cell.arrays, self.xs, self.state

    def _how(self) -> dict[str, Any]:
        return {"mask": self.mask, "go_backwards": self.layer.go_backwards}


def recurrent(model: Any, inputs: Any) -> tuple[list[Seen], Any]:
    """The recurrent layers that can be shown, in the order of their calls; and the outputs.

    model   of `refrnn.load_model` and the like, or a layer. It is left as it is: a copy is run, in
            inference, and what stateful layers carry begins with zeros
    inputs  as for a call

    Custom cells and StackedRNNCells are left out: their equations are not known.
    """
    mine: Any = copy.deepcopy(model)
    if hasattr(mine, "reset_states"):
        mine.reset_states()
    found: list[Seen] = []
    for name, inner in _inside(mine.name, mine):
        layer: Any = inner
        layer.call = _watched(name, layer, found)
    outputs = mine(inputs, training=False)
    return found, outputs


def _inside(name: str, layer: Layer, before: str = "") -> Iterator[tuple[str, RNN]]:
    """The layers to watch in a layer, with their names; itself, where it is one."""
    if isinstance(layer, RNN):
        if isinstance(layer.cell, RecurrentCell):
            yield name, layer
        return
    parts = [("", layer.layer)] if isinstance(layer, TimeDistributed) else layer.parts()
    for prefix, part in parts:
        path = before + prefix
        yield from _inside(path.rstrip("/.") or name, part, path)


def _watched(name: str, layer: Any, found: list[Seen]) -> Any:
    """The `call` of a layer, which also puts what it was given into `found`."""
    call = layer.call

    def watched(
        sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        given = [layer.states if initial_state is None else initial_state, mask]
        state, seen_mask = copy.deepcopy(given)
        outputs = call(sequences, initial_state, mask, training)
        times = sum(one.layer is layer for one in found)
        called = f"{name}#{times + 1}" if times else name
        xs = np.array(sequences, layer.dtype)
        found.append(Seen(called, layer, xs, state, seen_mask))
        return outputs

    return watched


def chosen(found: list[Seen], name: str | None) -> Seen:
    """The layer of that name, or the only one.

    Raises ValueError where there is none, or none of that name, or several and no name.
    """
    names = ", ".join(repr(one.name) for one in found)
    if not found:
        raise ValueError(
            "the model has no recurrent layer that can be shown, expected an LSTM, GRU or"
            " SimpleRNN, because the equations of other layers are not known"
        )
    if name is None and len(found) > 1:
        raise ValueError(f"the model has the recurrent layers {names}, expected the name of one")
    for one in found:
        if name in (None, one.name):
            return one
    raise ValueError(f"no recurrent layer is called {name!r}, expected one of {names}")
