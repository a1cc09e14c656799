"""A case: a layer, its options, shapes and a seed, from which weights, input and state are drawn.

Cases are made to see: features, units, rows and steps differ, weights are not symmetric, every
bias is its own and none is zero, the state is not zero, and little is saturated. Zero states, zero
biases, constant weights or a single step would hide most mistakes.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers import GRU, LSTM, SimpleRNN

LAYERS: dict[str, Any] = {"SimpleRNN": SimpleRNN, "GRU": GRU, "LSTM": LSTM}
MASKS = ("right", "left", "holes", "row", "all")


class Arrays(NamedTuple):
    """What a case draws, in its dtype."""

    weights: list[Array]  # in Keras's order
    x: Array  # (B, T, F)
    state: list[Array] | None  # each (B, H), h first
    mask: Array | None  # (B, T) bool


@dataclass(frozen=True)
class Case:
    """A run of one recurrent layer, in one line.

    layer    "SimpleRNN", "GRU" or "LSTM"
    options  further arguments of the layer, as in Keras
    mask     None, "right" or "left" padding, "holes" anywhere, one whole "row", or "all" steps
    state    start from a drawn state, or from none
    scale    1 for weights that keep the state lively: the sums have a spread of about 1
    """

    layer: str
    rows: int = 3
    steps: int = 7
    features: int = 5
    units: int = 4
    dtype: str = "float64"
    mask: str | None = None
    state: bool = True
    scale: float = 1.0
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        marks = [f"mask {self.mask}"] if self.mask else []
        marks += [] if self.state else ["no state"]
        marks += [f"weights x {self.scale:g}"] if self.scale != 1 else []
        options = dict(self.options)
        if options.get("reset_after") is False:
            marks = ["reset before", *marks]
            del options["reset_after"]
        acts = [options.pop(n) for n in ("activation", "recurrent_activation") if n in options]
        marks += ["/".join(acts)] if acts else []
        marks += [name if v is True else f"{name}={v}" for name, v in options.items()]
        shape = f"B{self.rows} T{self.steps} F{self.features} H{self.units}"
        return " ".join([self.layer, shape, ", ".join(marks)]).strip()

    def build(self, **options: Any) -> Any:
        """The refrnn layer, returning all outputs and the states, with the weights drawn."""
        settings = {"return_sequences": True, "return_state": True, "dtype": self.dtype}
        layer = LAYERS[self.layer](self.units, **{**settings, **self.options, **options})
        layer.build((None, None, self.features))
        layer.set_weights(self._weights(layer, self._rng("weights")))
        return layer

    def arrays(self) -> Arrays:
        layer = self.build()
        rng = self._rng("input")
        shape = self.rows, self.units
        parts = len(layer.cell.math.State._fields)
        x = rng.normal(size=(self.rows, self.steps, self.features))
        state = [rng.uniform(-0.9, 0.9, shape) for _ in range(parts)] if self.state else None
        dtype = checks.dtype("case", self.dtype)
        return Arrays(
            layer.get_weights(),
            x.astype(dtype),
            None if state is None else [part.astype(dtype) for part in state],
            self._mask(rng),
        )

    def _rng(self, what: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, len(what)])

    def _weights(self, layer: Any, rng: np.random.Generator) -> list[Array]:
        drawn = []
        for name, array in zip(layer.weight_names, layer.weights, strict=True):
            if name == "bias":
                drawn.append(rng.uniform(-0.5, 0.5, array.shape))
            else:
                spread = self.scale / np.sqrt(max(1, len(array)))
                drawn.append(rng.normal(0, spread, array.shape))
        return drawn

    def _mask(self, rng: np.random.Generator) -> Array | None:
        """True where a step counts; each row has its own, and none is left empty by chance."""
        if self.mask is None:
            return None
        B, T = self.rows, self.steps
        mask = np.ones((B, T), bool)
        time = np.arange(T)
        lengths = rng.integers(1, T + 1, (B, 1)) if T else np.zeros((B, 1), int)
        if self.mask == "right":
            mask = time < lengths
        elif self.mask == "left":
            mask = time >= T - lengths
        elif self.mask == "holes":
            mask = rng.random((B, T)) < 0.6
            if T:
                mask[np.arange(B), rng.integers(0, T, B)] = True
        elif self.mask == "row":
            mask[: (B + 1) // 2] = False
        elif self.mask == "all":
            mask[:] = False
        else:
            raise ValueError(f"case: mask is {self.mask!r}, expected None or one of {MASKS}")
        return mask
