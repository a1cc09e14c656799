"""Dense: act(x W + b) on the last axis, as `keras.layers.Dense`."""

from typing import Any, ClassVar

import numpy as np

from refrnn import checks
from refrnn.cells import dot
from refrnn.gates import Array
from refrnn.layers.base import REQUIRED, Layer
from refrnn.reference import QUIET


class Dense(Layer):
    """A fully connected layer. Weights: kernel (F, units), bias (units,).

    A call takes (..., F) and returns (..., units). A row's numbers do not depend on other rows.
    Regularizers and constraints are kept for the config: they act in training only.
    """

    ARGUMENTS: ClassVar = {
        "units": REQUIRED,
        "activation": None,
        "use_bias": True,
        "kernel_initializer": "glorot_uniform",
        "bias_initializer": "zeros",
        "kernel_regularizer": None,
        "bias_regularizer": None,
        "activity_regularizer": None,
        "kernel_constraint": None,
        "bias_constraint": None,
        "lora_rank": None,
        "lora_alpha": None,
        "quantization_config": None,
    }
    NOT_IN_CONFIG: ClassVar = frozenset({"lora_rank", "lora_alpha", "quantization_config"})

    units: int
    activation: Any
    use_bias: bool

    def _convert(self, argument: str, value: Any) -> Any:
        if argument.startswith(("lora", "quantization")) and value is not None:
            raise ValueError(
                f"{self.who}: {argument} is {value!r}, expected None, because refrnn has neither"
                " low-rank adapters nor quantised kernels"
            )
        return super()._convert(argument, value)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        own = vars(self)
        features = checks.features(self.who, input_shape)
        self.kernel = self.add_weight(
            (features, self.units), own["kernel_initializer"], name="kernel"
        )
        self.bias = (
            self.add_weight((self.units,), own["bias_initializer"], name="bias")
            if self.use_bias
            else None
        )
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Array:
        array = np.asarray(inputs)
        if array.ndim < 2:
            raise ValueError(
                f"{self.who}: the input has shape {array.shape}, expected (batch, ..., features)"
            )
        if not self.built:
            self.build(array.shape)
        if array.shape[-1] != len(self.kernel):
            raise ValueError(
                f"{self.who}: the input has shape {array.shape}, expected"
                f" (..., {len(self.kernel)}), because the kernel has a row for each feature"
            )
        x = checks.numbers(self.who, "the input", array, self.dtype)
        with QUIET():
            y = dot(x, self.kernel)
            if self.bias is not None:
                y = y + self.bias
            return self.activation.value(y)
