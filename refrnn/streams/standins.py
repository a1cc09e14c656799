"""Layers that are not recurrent and carry something all the same, in the form of those that are.

A causal convolution needs the last inputs again; a Bidirectional layer by chunks carries the state
of its forward half. Each stands in a stream's graph for the layer it is made of.
"""

from typing import Any, ClassVar

import numpy as np

from refrnn import checks
from refrnn.layers import RNN, Bidirectional, Conv1D, Layer
from refrnn.layers.base import REQUIRED
from refrnn.layers.bidirectional import MERGES
from refrnn.layers.masks import leaves
from refrnn.layers.rnn import Memory


class StandIn(RNN):
    """What stands for `layer` in the graph of a stream: its name, its outputs, and a memory."""

    ARGUMENTS: ClassVar = {"layer": REQUIRED}
    parts_of_state: tuple[str, ...]  # names; () for those of the cell
    layer: Any

    def __init__(self, layer: Layer) -> None:
        Layer.__init__(self, layer, name=layer.name, dtype=layer.dtype)
        self.return_sequences = getattr(layer, "return_sequences", True)
        self.return_state = getattr(layer, "return_state", False)
        self.go_backwards = getattr(layer, "go_backwards", False)
        self.stateful = getattr(layer, "stateful", False)
        self.built = True

    @property
    def who(self) -> str:
        return str(self.layer.who) if "layer" in vars(self) else "a layer"

    def with_masks(self, outputs: Any, inputs: Any, previous_mask: Any) -> Any:
        return self.layer.with_masks(outputs, inputs, previous_mask)


class Causal(StandIn):
    """A causal Conv1D, which remembers the inputs that its window still reaches."""

    layer: Conv1D
    parts_of_state = ("inputs",)

    @staticmethod
    def of(layer: Layer) -> bool:
        """Whether a layer is one: every output is of its own step and of those before."""
        return type(layer) is Conv1D and layer.padding == "causal" and layer.strides == (1,)

    @property
    def _reach(self) -> int:
        """How many steps before its own an output needs."""
        return (self.layer.kernel_size[0] - 1) * self.layer.dilation_rate[0]

    def start(self, rows: int, initial_state: Any = None) -> Memory:
        features = self.layer.kernel.shape[1] * self.layer.groups
        inputs = np.zeros((rows, self._reach, features), self.dtype)
        return Memory([inputs], np.zeros((rows, self.layer.filters), self.dtype))

    def advance(self, sequences: Any, memory: Memory, mask: Any = None) -> tuple[Any, Memory]:
        x = checks.sequence(self.who, sequences, memory.state[0].shape[2], self.dtype)
        seen = np.concatenate([*memory.state, x], axis=1)
        y = self.layer.call(seen)[:, self._reach :]
        kept = seen[:, seen.shape[1] - self._reach :].copy()
        return y, Memory([kept], y[:, -1].copy() if y.shape[1] else memory.last_output)


class ByChunks(StandIn):
    """A Bidirectional layer whose forward half goes on from chunk to chunk.

    Its backward half begins anew at the end of each chunk, and sees no further.
    """

    layer: Bidirectional
    parts_of_state = ()

    def __init__(self, layer: Bidirectional) -> None:
        super().__init__(layer)
        if layer.forward_layer.go_backwards:
            raise ValueError(
                f"{layer.who}: its first layer goes backwards, expected it forwards, because that"
                " is the half that goes on from chunk to chunk"
            )
        if layer.merge_mode is None and layer.return_sequences:
            raise ValueError(
                f"{layer.who}: merge_mode is None, expected one of {', '.join(MERGES)}, because a"
                " stream follows one output of a layer through time"
            )
        self.cell = layer.forward_layer.cell

    def start(self, rows: int, initial_state: Any = None) -> Memory:
        if initial_state is not None:
            raise ValueError(
                f"{self.who}: is called with an initial_state, expected none, because its backward"
                " half would begin every chunk with it"
            )
        return self.layer.forward_layer.start(rows)

    def advance(self, sequences: Any, memory: Memory, mask: Any = None) -> tuple[Any, Memory]:
        pair = self.layer
        forward, memory = pair.forward_layer.advance(sequences, memory, mask)
        blank = pair.backward_layer.start(len(leaves(sequences)[0]))
        backward, _ = pair.backward_layer.advance(sequences, blank, mask)
        states: list[Any] = []
        if pair.return_state:
            (forward, *first), (backward, *second) = forward, backward
            states = [*first, *second]
        if pair.return_sequences:
            backward = np.flip(backward, axis=1)
        if pair.merge_mode is None:
            return (forward, backward, *states), memory
        merged = MERGES[pair.merge_mode](forward, backward)
        return ((merged, *states) if states else merged), memory
