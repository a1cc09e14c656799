"""Keras 3's own layers on the GPU, on each of its backends.

KERAS_BACKEND is set before Keras is imported, one backend a process.
"""

import os
from abc import abstractmethod
from typing import Any

import numpy as np

from refrnn.gates import Array
from refrnn.oracles import Unavailable
from refrnn.oracles.adapters import needed
from refrnn.oracles.cudnn import host, jax, torch
from refrnn.oracles.cudnn.front import Front, Made
from refrnn.oracles.cudnn.work import Drawn, Work

OPERATION = "CudnnRNNV3"
NAMES = ("kernel", "recurrent_kernel", "bias")


class Keras(Front):
    """What the backends share. Raises Unavailable where Keras or its backend is missing."""

    backend: str

    def __init__(self) -> None:
        super().__init__()
        os.environ["KERAS_BACKEND"] = self.backend
        self.keras = needed("keras", "Keras", "verify")
        if self.keras.backend.backend() != self.backend:
            raise Unavailable(
                f"Keras runs on {self.keras.backend.backend()!r}, expected {self.backend!r}"
            )

    def versions(self) -> dict[str, str]:
        return {"Keras": str(self.keras.__version__), **host.libraries()}

    def built(self, work: Work, drawn: Drawn) -> Any:
        """The Keras layer with its weights.

        use_cudnn is True, with which Keras raises where it knows that it falls back; it does not
        always know. Where cuDNN must not be reached it is "auto": the choice is Keras's.
        """
        case, layers = work.case, self.keras.layers
        options = {"return_sequences": True, "return_state": True, "dtype": work.dtype}
        options["recurrent_initializer"] = "zeros"  # an orthogonal one has no 16-bit kernel
        if case.layer != "SimpleRNN":
            options["use_cudnn"] = True if work.on_cudnn else "auto"
        layer = getattr(layers, case.layer)(case.units, **{**options, **case.options})
        if work.bidirectional:
            layer = layers.Bidirectional(layer, dtype=work.dtype)
        layer.build((None, None, case.features))
        layer.set_weights([a.astype(_numpy(work)) for a in drawn.weights])
        return layer

    def tensor(self, work: Work, array: Array) -> Any:
        """A tensor in the dtype of the work, of memory of its own."""
        ops = self.keras.ops
        return ops.cast(ops.convert_to_tensor(array.astype(_numpy(work))), work.dtype)

    def to_host(self, tensor: Any) -> Array:
        """In NumPy, 16-bit numbers as float32."""
        ops = self.keras.ops
        name = self.keras.backend.standardize_dtype(tensor.dtype)
        wide = ops.cast(tensor, "float32") if name in ("float16", "bfloat16") else tensor
        return np.array(ops.convert_to_numpy(wide))

    def layer(self, work: Work, drawn: Drawn, way: str) -> Any:
        return self.built(work, drawn)

    def poison(self, work: Work) -> None:
        B, T, H = work.case.rows, work.case.steps, work.case.units * (1 + work.bidirectional)
        full = self.keras.ops.full
        blocks = [full((n,), np.nan, dtype=work.dtype) for n in (B * T * H, B * H)]
        del blocks

    def call(
        self, layer: Any, work: Work, x: Array, state: Any, mask: Array | None, dy: Array | None
    ) -> Made:
        given = self.tensor(work, x)
        parts = [self.tensor(work, part) for part in state]
        live = None if mask is None else self.keras.ops.convert_to_tensor(mask)
        flat, sign, gradients = self.ran(
            layer, work, given, parts, live, None if dy is None else self.tensor(work, dy)
        )
        named = dict(zip(("x", *work.parts, *NAMES), gradients, strict=bool(gradients)))
        found = {name: self.to_host(gradient) for name, gradient in named.items()}
        return Made([self.to_host(a) for a in flat], sign, found)

    @abstractmethod
    def ran(
        self, layer: Any, work: Work, x: Any, state: list[Any], mask: Any, dy: Any
    ) -> tuple[list[Any], str, list[Any]]:
        """Outputs, the sign, and the gradients by x, the states and the weights, or none."""


def _numpy(work: Work) -> str:
    return "float64" if work.dtype == "float64" else "float32"


class OnTensorFlow(Keras):
    """Ways: "eager" and "function"."""

    backend = "tensorflow"

    def __init__(self) -> None:
        self.tf = needed("tensorflow", "TensorFlow", "verify")
        super().__init__()
        self.device = "/GPU:0"

    def start(self, precision: str) -> dict[str, Any]:
        tf = self.tf
        build = "no CUDA: TensorFlow is built without it"
        host.needed(tf, tf.test.is_built_with_cuda(), build)
        gpus = tf.config.list_physical_devices("GPU")
        host.needed(tf, bool(gpus), "no GPU: TensorFlow sees none, or a library of CUDA is missing")
        return self.set_flags(precision)

    def set_flags(self, precision: str) -> dict[str, Any]:
        settings = self.tf.config.experimental
        settings.enable_tensor_float_32_execution(precision == "tf32")
        return {
            "tensor_float_32": settings.tensor_float_32_execution_enabled(),
            "NVIDIA_TF32_OVERRIDE": os.environ.get("NVIDIA_TF32_OVERRIDE", "not set"),
        }

    def versions(self) -> dict[str, str]:
        return {"TensorFlow": str(self.tf.__version__), **super().versions()}

    def layer(self, work: Work, drawn: Drawn, way: str) -> Any:
        with self.tf.device(self.device):
            layer = self.built(work, drawn)
        if way == "eager":
            return layer, None
        spec, case = self.tf.TensorSpec, work.case
        steps = case.steps if case.options.get("unroll") else None  # Keras must know them then
        given = [spec((None, steps, case.features), work.dtype)]
        given += [spec((None, case.units), work.dtype) for _ in drawn.state]
        given += [] if drawn.mask is None else [spec((None, None), "bool")]
        states = len(drawn.state)

        def function(x: Any, *others: Any) -> Any:
            mask = others[states] if len(others) > states else None
            return self._called(layer, work, x, list(others[:states]), mask)

        return layer, self.tf.function(function, input_signature=given)

    def _called(self, layer: Any, work: Work, x: Any, state: list[Any], mask: Any) -> Any:
        return layer(x, initial_state=state, mask=mask, training=work.training)

    def ran(
        self, layer: Any, work: Work, x: Any, state: list[Any], mask: Any, dy: Any
    ) -> tuple[list[Any], str, list[Any]]:
        tf, (built, function) = self.tf, layer
        seen: list[str] = []
        real = tf.raw_ops.CudnnRNNV3

        def spy(**arguments: Any) -> Any:
            outputs = real(**arguments)
            seen.append(getattr(outputs[0], "device", ""))
            return outputs

        with tf.device(self.device), tf.GradientTape() as tape:
            tape.watch([x, *state])
            if function is None:
                tf.raw_ops.CudnnRNNV3 = spy  # Keras looks it up at every call
                try:
                    flat = self._called(built, work, x, state, mask)
                finally:
                    tf.raw_ops.CudnnRNNV3 = real
                on_gpu = bool(seen) and all(device.endswith("GPU:0") for device in seen)
                sign = f"{OPERATION} on {seen[0]}" if on_gpu else ""
            else:
                flat = function(x, *state, *([] if mask is None else [mask]))
                graph = function.get_concrete_function().graph
                kinds = {operation.type for operation in graph.get_operations()}
                sign = f"{OPERATION} in the graph" if OPERATION in kinds else ""
        if dy is None:
            return list(flat), sign, []
        weights = [variable.value for variable in built.trainable_variables]
        return list(flat), sign, tape.gradient(flat[0], [x, *state, *weights], dy)


class OnTorch(Keras):
    """Ways: "eager"."""

    backend = "torch"

    def __init__(self) -> None:
        self.torch = needed("torch", "PyTorch")
        super().__init__()

    def start(self, precision: str) -> dict[str, Any]:
        return torch.start(self.torch, precision)

    def versions(self) -> dict[str, str]:
        return {"PyTorch": str(self.torch.__version__), **super().versions()}

    def tensor(self, work: Work, array: Array) -> Any:
        # A state that is not contiguous makes cuDNN's operation raise, which Keras swallows
        return super().tensor(work, array).contiguous()

    def ran(
        self, layer: Any, work: Work, x: Any, state: list[Any], mask: Any, dy: Any
    ) -> tuple[list[Any], str, list[Any]]:
        for tensor in (x, *state):
            tensor.requires_grad_(dy is not None)
        with self.torch.set_grad_enabled(work.training), torch.recorder() as seen:
            flat = layer(x, initial_state=state, mask=mask, training=work.training)
            if dy is not None:
                flat[0].backward(dy)
        flat = [tensor.detach() for tensor in flat]
        sign = torch.sign(seen.seen)
        if dy is None:
            return flat, sign, []
        weights = [variable.value for variable in layer.trainable_variables]
        gradients = [tensor.grad.clone() for tensor in (x, *state, *weights)]
        for weight in weights:
            weight.grad = None
        return flat, sign, gradients


class OnJax(Keras):
    """Ways: "eager"."""

    backend = "jax"

    def __init__(self) -> None:
        self.jax = needed("jax", "JAX")
        super().__init__()

    def start(self, precision: str) -> dict[str, Any]:
        return jax.start(self.jax, precision)

    def versions(self) -> dict[str, str]:
        return {"JAX": str(self.jax.__version__), **super().versions()}

    def ran(
        self, layer: Any, work: Work, x: Any, state: list[Any], mask: Any, dy: Any
    ) -> tuple[list[Any], str, list[Any]]:
        fixed = [v.value for v in layer.non_trainable_variables]

        def called(x: Any, state: list[Any], weights: list[Any]) -> list[Any]:
            flat, _ = layer.stateless_call(
                weights, fixed, x, initial_state=state, mask=mask, training=work.training
            )
            return list(flat)

        weights = [v.value for v in layer.trainable_variables]
        sign = jax.sign(self.jax, called, x, state, weights)
        if dy is None:
            return called(x, state, weights), sign, []
        flat, back = self.jax.vjp(called, x, state, weights)
        nothing = [self.jax.numpy.zeros_like(part) for part in flat[1:]]
        by_x, by_state, by_weights = back([dy, *nothing])
        return flat, sign, [by_x, *by_state, *by_weights]
