"""Bidirectional: a recurrent layer forwards and one backwards; as `keras.layers.Bidirectional`."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from refrnn.gates import Array
from refrnn.layers.base import REQUIRED, Layer
from refrnn.layers.masks import leaves
from refrnn.layers.rnn import RNN
from refrnn.layers.stored import clone, deserialize, serialize

MERGES: dict[str, Callable[[Array, Array], Array]] = {
    "concat": lambda f, b: np.concatenate([f, b], axis=-1),
    "sum": lambda f, b: f + b,
    "mul": lambda f, b: f * b,
    "ave": lambda f, b: (f + b) / 2,
}


class Bidirectional(Layer):
    """Runs `layer` and a copy of it that goes backwards, and merges what they return.

    layer           a recurrent layer; it is copied, its weights are not used
    merge_mode      "concat", "sum", "mul", "ave", or None for a pair of outputs
    backward_layer  another layer for the way back, used as it is; it must go backwards

    With return_sequences the backward outputs are turned round, so that both belong to the same
    step, and masked steps are zeros. return_state adds the forward states, then the backward
    ones; initial_state is a flat list in that order. Weights: forward, then backward.
    """

    ARGUMENTS: ClassVar = {
        "layer": REQUIRED,
        "merge_mode": "concat",
        "weights": None,
        "backward_layer": None,
    }
    NOT_IN_CONFIG: ClassVar = frozenset({"weights", "layer", "backward_layer"})
    NOT_KEPT = NOT_IN_CONFIG
    supports_masking = True
    mixes_time = True
    merge_mode: str | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        given = self._bind(args, kwargs)
        template = self._recurrent("layer", given["layer"])
        self.forward_layer: RNN = self._copy_of(template, "forward", {})
        self.backward_layer: RNN = (
            self._copy_of(template, "backward", {"go_backwards": True})
            if given["backward_layer"] is None
            else self._recurrent("backward_layer", given["backward_layer"])
        )
        self._check_pair()
        for one in (self.forward_layer, self.backward_layer):
            one.zero_output_for_mask = one.return_sequences  # as Keras forces it
        self.return_sequences = self.forward_layer.return_sequences
        self.return_state = self.forward_layer.return_state
        self.stateful = self.forward_layer.stateful

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "weights" and value is not None:
            raise ValueError(
                f"{self.who}: weights is given, expected None, because Keras ignores it; call"
                " set_weights after making the layer"
            )
        if argument == "merge_mode" and value is not None and value not in MERGES:
            raise ValueError(
                f"{self.who}: merge_mode is {value!r}, expected one of {', '.join(MERGES)} or None"
            )
        return super()._convert(argument, value)

    def _recurrent(self, argument: str, value: Any) -> RNN:
        if isinstance(value, dict) and "class_name" in value:
            value = deserialize(value)
        if not isinstance(value, RNN):
            raise ValueError(
                f"{self.who}: {argument} is {value!r}, expected a recurrent layer, such as"
                " layers.LSTM(3)"
            )
        return value

    @staticmethod
    def _copy_of(template: RNN, way: str, changes: dict[str, Any]) -> Any:
        return clone(template, name=f"{way}_{template.name.removeprefix(f'{way}_')}", **changes)

    def _check_pair(self) -> None:
        forward, backward = self.forward_layer, self.backward_layer
        if forward.go_backwards == backward.go_backwards:
            raise ValueError(
                f"{self.who}: both layers have go_backwards={forward.go_backwards}, expected one of"
                " each, because they are to meet"
            )
        for name in ("return_sequences", "return_state", "stateful"):
            values = getattr(forward, name), getattr(backward, name)
            if values[0] != values[1]:
                raise ValueError(
                    f"{self.who}: {name} is {values[0]} forwards and {values[1]} backwards,"
                    " expected the same, because their outputs are merged"
                )

    # --- weights and states: forward, then backward ---

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for one in (self.forward_layer, self.backward_layer):
            one.build(input_shape)
        self.built = True

    def parts(self) -> list[tuple[str, Layer]]:
        return [("forward.", self.forward_layer), ("backward.", self.backward_layer)]

    def weight_shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        ways = ("forward", self.forward_layer), ("backward", self.backward_layer)
        return {
            f"{way}.{name}": shape
            for way, one in ways
            for name, shape in one.weight_shapes(features).items()
        }

    def _features(self, weights: list[Array]) -> Any:
        return self.forward_layer._features(weights)

    def _build_for(self, features: Any) -> None:
        for one in (self.forward_layer, self.backward_layer):
            one._build_for(features)
        self.built = True

    @property
    def states(self) -> list[Any] | None:
        """Copies of what stateful layers carry, forward then backward."""
        forward, backward = self.forward_layer.states, self.backward_layer.states
        return None if forward is None or backward is None else [*forward, *backward]

    def reset_states(self, states: Any = None, rows: Any = None) -> None:
        """As `RNN.reset_states`, with the forward states first."""
        forward, backward = self._halves(states)
        self.forward_layer.reset_states(forward, rows)
        self.backward_layer.reset_states(backward, rows)

    reset_state = reset_states

    def _halves(self, states: Any) -> tuple[Any, Any]:
        """A flat list of states as those of the two layers."""
        if states is None:
            return None, None
        count = self.forward_layer.state_count
        expected = count + self.backward_layer.state_count
        if not isinstance(states, list | tuple) or len(states) != expected:
            found = len(states) if isinstance(states, list | tuple) else type(states).__name__
            raise ValueError(
                f"{self.who}: the state is given as {found}, expected a flat list of {expected}"
                f" arrays: {count} forwards, then {expected - count} backwards"
            )
        return list(states[:count]), list(states[count:])

    # --- calls ---

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        starts = self._halves(initial_state)
        ways = (self.forward_layer, self.backward_layer)
        forward, backward = (
            one.call(sequences, start, mask, training)
            for one, start in zip(ways, starts, strict=True)
        )
        self.built = True
        return self.merged(forward, backward)

    def merged(self, forward: Any, backward: Any) -> Any:
        """What a call returns, from what the two layers return."""
        states: list[Any] = []
        if self.return_state:
            (forward, *first), (backward, *second) = forward, backward
            states = [*first, *second]
        if self.return_sequences:
            backward = np.flip(backward, axis=1)
        if self.merge_mode is None:
            return (forward, np.ascontiguousarray(backward), *states)
        merged = MERGES[self.merge_mode](forward, backward)
        return (merged, *states) if self.return_state else merged

    @property
    def output_count(self) -> int:
        states = self.forward_layer.state_count + self.backward_layer.state_count
        return (2 if self.merge_mode is None else 1) + (states if self.return_state else 0)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """That of the input, for both outputs where they are not merged; states have none."""
        mask = leaves(previous_mask)[0] if self.return_sequences else None
        outputs = [mask, mask] if self.merge_mode is None else [mask]
        return [*outputs, *[None] * (self.output_count - len(outputs))]

    def get_config(self) -> dict[str, Any]:
        """The settings as Keras 3 writes them: both layers, under the names they have here."""
        config = super().get_config()
        config["layer"] = serialize(self.forward_layer)
        config["backward_layer"] = serialize(self.backward_layer)
        return config
