"""What a front end is given to do, in one small value, and what it hands back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from refrnn.cases import Case
from refrnn.gates import Array
from refrnn.oracles.adapters import PARTS
from refrnn.oracles.cudnn.log import Call

# The precisions that can be asked for, and the numbers that inputs and weights are made of: those
# of float64 are float32's too, so that all three compute with the very same ones.
NUMBERS = {
    "float64": "float32",
    "float32": "float32",
    "tf32": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
}
TYPES = {**{name: name for name in NUMBERS}, "tf32": "float32"}  # that arrays have
FUSED = {1: ("",), 2: ("forward.", "backward.")}


@dataclass(frozen=True)
class Work:
    """One layer on one batch, in one precision.

    case           the layer, shapes, options, mask and seed; its dtype is that of NUMBERS
    precision      what is asked for: one of NUMBERS
    bidirectional  two of the layer, as keras.layers.Bidirectional has them
    training       in training mode; with gradients, but for two directions
    cuts           chunk lengths, each list of the sum T: the state is carried from chunk to chunk
    repeats        how often the whole run is done; the bits are compared
    on_cudnn       whether this is to reach cuDNN, or must not
    """

    case: Case
    precision: str
    bidirectional: bool = False
    training: bool = False
    cuts: tuple[tuple[int, ...], ...] = ()
    repeats: int = 2
    on_cudnn: bool = True

    def __str__(self) -> str:
        marks = ["bidirectional"] * self.bidirectional + ["training"] * self.training
        return ", ".join([f"{self.case}", *marks])

    @property
    def dtype(self) -> str:
        """Of the arrays of the front end."""
        return TYPES[self.precision]

    @property
    def parts(self) -> str:
        """The parts of a state: "h" or "hc"."""
        return PARTS[self.case.layer]

    @property
    def names(self) -> list[str]:
        """The names of the outputs, in the order in which a Keras layer returns them."""
        ways = FUSED[1 + self.bidirectional]
        return ["y", *(way + part for way in ways for part in self.parts)]

    @property
    def with_gradients(self) -> bool:
        return self.training and not self.bidirectional

    def arrays(self) -> "Drawn":
        """What it is about; float64 arrays that hold numbers of NUMBERS."""
        cases = [self.case]
        if self.bidirectional:
            cases.append(replace(self.case, seed=self.case.seed + 1))
        drawn = [case.arrays() for case in cases]
        first = drawn[0]
        zeros = np.zeros((self.case.rows, self.case.units))
        state = [_wide(a) for one in drawn for a in one.state or [zeros for _ in self.parts]]
        rng = np.random.default_rng([self.case.seed, 99])
        dy = rng.normal(size=(self.case.rows, self.case.steps, self.case.units))
        dy = _wide(dy.astype(first.x.dtype))
        if first.mask is not None:
            live = first.mask[:, ::-1] if self.case.options.get("go_backwards") else first.mask
            dy = dy * live[:, :, None]
        weights = [_wide(a) for one in drawn for a in one.weights]
        return Drawn(weights, _wide(first.x), state, first.mask, dy)


class Drawn(NamedTuple):
    """The arrays of a `Work`."""

    weights: list[Array]  # in Keras's order, those of the forward layer first
    x: Array  # (B, T, F)
    state: list[Array]  # each (B, H), those of the forward layer first
    mask: Array | None  # (B, T) bool
    dy: Array  # (B, T, H), zeros where y is masked

    @property
    def lengths(self) -> list[int]:
        """How many steps each row has."""
        B, T, _ = self.x.shape
        return [T] * B if self.mask is None else [int(n) for n in self.mask.sum(1)]


def _wide(array: Any) -> Array:
    return np.asarray(array).astype(np.float64)


class Ran(NamedTuple):
    """One run.

    title     "whole", "again" (only where its bits are others than those of the first), or
              "in chunks of ..."
    outputs   y (B, T, H) or (B, T, 2H) and the states, by name; 16-bit numbers as float32
    calls     of cuDNN, from its log
    chunks    how many calls of the layer there were: none for a chunk in which all rows had ended
    sign      the framework's own: what it says it ran, "" where that is not cuDNN
    """

    title: str
    outputs: dict[str, Array]
    calls: list[Call]
    chunks: int
    sign: str


class Answer(NamedTuple):
    """What came of a `Work`.

    runs        the whole run first; empty where it was refused
    gradients   of sum(dy * y), by Keras's names and "x", "h", "c"
    same_bits   whether all repeats were equal in every bit
    refused     what the front end raised, or None
    """

    runs: list[Ran]
    gradients: dict[str, Array]
    same_bits: bool
    refused: str | None = None


def named(work: Work, flat: Sequence[Any]) -> dict[str, Array]:
    """Outputs y, h, ... by name, in float64 or float32."""
    arrays = (np.asarray(a) for a in flat)
    return dict(zip(work.names, arrays, strict=True))


Outputs = Mapping[str, Array]
