"""Dense: act(x W + b) on the last axis, as `keras.layers.Dense`."""

from typing import Any, ClassVar

from refrnn import checks
from refrnn.cells import Product, dot
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

    supports_masking = True
    kernel: Array
    units: int
    activation: Any
    use_bias: bool

    def _convert(self, argument: str, value: Any) -> Any:
        if argument.startswith(("lora", "quantization")) and value is not None:
            raise ValueError(
                f"{self.who}: {argument} is {value!r}, expected None, because refrnn has neither"
                " low-rank adapters nor quantised kernels"
            )
        if argument == "activation":
            found = checks.activation(self.who, argument, value, keeps_width=False)
            if found.kind == "halves" and self.units % 2:
                raise ValueError(
                    f"{self.who}: activation {found.name!r} splits {self.units} units in two,"
                    " expected an even number of units"
                )
        return super()._convert(argument, value)

    def weight_shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {"kernel": (features, self.units)}
        return {**shapes, "bias": (self.units,)} if self.use_bias else shapes

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        features = checks.features(self.who, input_shape)
        if self.built:
            checks.same_features(self.who, features, self.kernel)
            return
        own, shapes = vars(self), self.weight_shapes(features)
        draws = own["kernel_initializer"], own["bias_initializer"]
        self.kernel, *bias = (
            self.add_weight(shape, draw, name=name)
            for (name, shape), draw in zip(shapes.items(), draws, strict=False)
        )
        self.bias = bias[0] if bias else None
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Array:
        x = self.checked(inputs)
        with QUIET():
            return self.activation.value(self.sums(x, dot))

    def checked(self, inputs: Any) -> Array:
        """The input of a call as an array of the layer's dtype; the layer is built for it."""
        x = checks.numbers(self.who, "the input", inputs, self.dtype)
        if x.ndim < 2:
            raise ValueError(
                f"{self.who}: the input has shape {x.shape}, expected (batch, ..., features)"
            )
        if self.built and x.shape[-1] != len(self.kernel):
            raise ValueError(
                f"{self.who}: the input has shape {x.shape}, expected (..., {len(self.kernel)}),"
                " because the kernel has a row for each feature"
            )
        if not self.built:
            self.build(x.shape)
        return x

    def sums(self, x: Array, product: Product) -> Array:
        """What the activation is given: x @ kernel + bias."""
        z = product(x, self.kernel)
        return z if self.bias is None else z + self.bias
