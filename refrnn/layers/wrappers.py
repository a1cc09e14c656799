"""TimeDistributed: one layer at every time step, as `keras.layers.TimeDistributed`."""

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers.base import REQUIRED, Layer
from refrnn.layers.bidirectional import Bidirectional
from refrnn.layers.cells import RecurrentCell
from refrnn.layers.reshaping import moved
from refrnn.layers.rnn import RNN
from refrnn.layers.stored import deserialize, serialize


class TimeDistributed(Layer):
    """Applies `layer` to x[:, t] for each t, with the same weights.

    A call takes (B, T, ...) and returns (B, T, ...). mask is (B, T): a step where it is False is
    computed all the same, as in Keras. Or it is (B, T, T2), a mask for each sequence that `layer`
    takes: a layer that uses masks is given it, and a recurrent one takes no other.
    """

    ARGUMENTS: ClassVar = {"layer": REQUIRED}
    supports_masking = True
    layer: Layer

    def _convert(self, argument: str, value: Any) -> Any:
        if argument != "layer":
            return super()._convert(argument, value)
        if isinstance(value, dict) and "class_name" in value:
            value = deserialize(value)
        if isinstance(value, RecurrentCell):
            raise ValueError(
                f"{self.who}: layer is {value!r}, expected a layer that takes one array, because a"
                " cell takes states too"
            )
        if not isinstance(value, Layer):
            raise ValueError(
                f"{self.who}: layer is {value!r}, expected a refrnn layer, such as layers.Dense(3)"
            )
        stateful, returns = (getattr(value, n, False) for n in ("stateful", "return_state"))
        if stateful or returns:
            raise ValueError(
                f"{self.who}: layer is {value!r} with stateful={stateful} and"
                f" return_state={returns}, expected both False, because its batch is made of every"
                " row at every step"
            )
        return value

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) < 3:
            raise ValueError(
                f"{self.who}: built for shape {tuple(input_shape)}, expected (batch, time, ...)"
            )
        self.layer.build((None, *input_shape[2:]))
        self.built = True

    @property
    def weights(self) -> list[Array]:
        return self.layer.weights

    @property
    def weight_names(self) -> list[str]:
        return self.layer.weight_names

    @property
    def weight_dtype(self) -> np.dtype[Any]:
        return self.layer.weight_dtype

    def weight_shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        return self.layer.weight_shapes(features)

    def set_weights(self, weights: Sequence[Any]) -> None:
        """As the inner layer's `set_weights`."""
        self.layer.set_weights(weights)
        self.built = self.layer.built

    def call(self, inputs: Any, training: bool = False, mask: Any = None) -> Array:
        array = moved(self.who, inputs, self.dtype)
        if array.ndim < 3:
            raise ValueError(
                f"{self.who}: the input has shape {array.shape}, expected (batch, time, ...)"
            )
        if self.layer.IS_CUSTOM:
            return self._step_by_step(array, training, mask)
        x, options = self.inside(array, mask)
        flat = self.layer(x, training=training, **options)
        return np.asarray(flat).reshape(*array.shape[:2], *flat.shape[1:])

    def inside(self, array: Array, mask: Any) -> tuple[Array, dict[str, Any]]:
        """What the layer inside is called on, (B * T, ...), and a mask by name if it takes one."""
        kernel = self.weights[0] if self.weights else None
        rows = kernel is not None and kernel.ndim == 2 and self.weight_names[0].endswith("kernel")
        features = len(self.weights[0]) if rows else array.shape[-1]
        if array.shape[-1] != features:
            raise ValueError(
                f"{self.who}: the input has shape {array.shape}, expected (..., {features}),"
                f" because {self.layer.who} was built for {features} features"
            )
        if not self.built:
            self.build(array.shape)
        B, T = array.shape[:2]
        options: dict[str, Any] = {}
        inner = None if mask is None else checks.array(self.who, "the mask", mask)
        each = isinstance(self.layer, RNN | Bidirectional)
        if inner is not None and each and inner.shape != array.shape[:3]:
            raise ValueError(
                f"{self.who}: the mask has shape {inner.shape}, expected {array.shape[:3]},"
                f" because {self.layer.who} takes one for each of its sequences"
            )
        if inner is None or inner.ndim < 3 or inner.shape != array.shape[: inner.ndim]:
            checks.mask(self.who, mask, B, T)
        elif "mask" in inspect.signature(self.layer.call).parameters:
            options["mask"] = inner.reshape(B * T, *inner.shape[2:])
        return array.reshape(B * T, *array.shape[2:]), options

    def _step_by_step(self, array: Array, training: bool, mask: Any) -> Array:
        """As Keras does it: what the caller's own code computes may depend on the other rows."""
        B, T = array.shape[:2]
        if not T:  # one step tells the shape
            return self._step_by_step(np.zeros((B, 1, *array.shape[2:])), training, None)[:, :0]
        options: list[dict[str, Any]] = [{"training": training} for _ in range(T)]
        if mask is not None and "mask" in inspect.signature(self.layer.call).parameters:
            inner = np.asarray(mask)
            if inner.shape[:2] != (B, T):
                raise ValueError(
                    f"{self.who}: the mask has shape {inner.shape}, expected ({B}, {T}, ...): one"
                    f" for each step that {self.layer.who} is called on"
                )
            options = [{**given, "mask": inner[:, t]} for t, given in enumerate(options)]
        if not self.built:
            self.build(array.shape)
        steps = [self.layer(array[:, t], **given) for t, given in enumerate(options)]
        return np.stack([np.asarray(step) for step in steps], axis=1)

    def _store(self, argument: str, value: Any) -> Any:
        if argument != "layer":
            return super()._store(argument, value)
        return serialize(value)
