"""Recurrent layers of Keras 2 that take sequences as (time, batch, features)."""

from typing import Any, ClassVar

import numpy as np

from refrnn import checks
from refrnn.layers.base import REQUIRED, Layer
from refrnn.layers.rnn import RNN
from refrnn.layers.stored import deserialize, serialize


class TimeMajor(Layer):
    """`layer` with the first two axes of its sequences exchanged; Keras 2's time_major=True.

    It comes from files of Keras 2, and goes into them: Keras 3 has nothing like it. A call takes
    sequences (T, B, ...), their mask (T, B), and the states of `layer`, which have the batch first;
    outputs of all steps are (T, B, ...) too.
    """

    ARGUMENTS: ClassVar = {"layer": REQUIRED}
    supports_masking = True
    mixes_time = True  # what is cut into chunks is the second axis
    layer: RNN

    def _convert(self, argument: str, value: Any) -> Any:
        if argument != "layer":
            return super()._convert(argument, value)
        made = deserialize(value) if isinstance(value, dict) else value
        if not isinstance(made, RNN):
            raise ValueError(f"{self.who}: layer is {made!r}, expected a recurrent layer")
        return made

    def build(self, input_shape: Any) -> None:
        T, B, *features = input_shape
        self.layer.build((B, T, *features))
        self.built = True

    def weight_shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        return self.layer.weight_shapes(features)

    def _build_for(self, features: Any) -> None:
        self.layer._build_for(features)
        self.built = True

    @property
    def stateful(self) -> bool:
        """Whether the layer carries its state from call to call."""
        return self.layer.stateful

    @property
    def output_count(self) -> int:
        return self.layer.output_count

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        xs = checks.array(self.who, "the input", sequences)
        if xs.ndim < 3:
            raise ValueError(
                f"{self.who}: the input has shape {xs.shape}, expected (time, batch, features)"
            )
        steps = None if mask is None else np.swapaxes(np.asarray(mask), 0, 1)
        found = self.layer.call(np.swapaxes(xs, 0, 1), initial_state, steps, training)
        self.built = True
        if not self.layer.return_sequences:
            return found
        if not self.layer.return_state:
            return np.swapaxes(found, 0, 1)
        outputs, *states = found
        return (np.swapaxes(outputs, 0, 1), *states)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return self.layer.compute_mask(inputs, previous_mask)

    def _store(self, argument: str, value: Any) -> Any:
        return serialize(value) if argument == "layer" else super()._store(argument, value)
