"""Keras 2 on TensorFlow, the package tf_keras: eager and as tf.function."""

import os
from typing import Any

import numpy as np

from refrnn.cases import Arrays, Case
from refrnn.gates import Array
from refrnn.oracles import adapters

NAMES = {  # refrnn's names of activations, and those of Keras 2
    "elu": "elu",
    "exponential": "exponential",
    "gelu": "gelu",
    "hard_sigmoid_keras2": "hard_sigmoid",
    "linear": "linear",
    "relu": "relu",
    "selu": "selu",
    "sigmoid": "sigmoid",
    "silu": "swish",
    "softplus": "softplus",
    "softsign": "softsign",
    "tanh": "tanh",
}


class Keras2:
    """Raises Unavailable where TensorFlow or tf_keras is missing."""

    def __init__(self) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        self.tf = adapters.needed("tensorflow", "TensorFlow", "verify")
        self.keras = adapters.needed("tf_keras", "Keras 2")
        self._kept: dict[Any, tuple[Any, Any]] = {}
        self.tf.config.set_visible_devices([], "GPU")
        self.tf.config.experimental.enable_tensor_float_32_execution(False)

    def versions(self) -> dict[str, str]:
        return {"TensorFlow": self.tf.__version__, "tf_keras": self.keras.__version__}

    def run(self, case: Case, way: str = "eager", arrays: Arrays | None = None) -> dict[str, Array]:
        """Outputs y (B, T, H), h and for LSTM c (B, H) of `case`: "eager" or "function"."""
        arrays = case.arrays() if arrays is None else arrays
        layer, call = self._made(case, way)
        layer.set_weights(list(arrays.weights))
        x, mask = (None if a is None else self.tf.constant(a) for a in (arrays.x, arrays.mask))
        state = arrays.state and [self.tf.constant(part) for part in arrays.state]
        y, *after = call(x, mask, state)
        return adapters.outputs(case, y, after)

    def _made(self, case: Case, way: str) -> tuple[Any, Any]:
        """The layer of a case and what calls it, traced once for each shape; kept."""
        key = way, case.layer, case.units, case.features, case.dtype, str(case.options)
        if key not in self._kept:
            options = {"return_sequences": True, "return_state": True, "dtype": case.dtype}
            options |= {name: NAMES.get(v, v) for name, v in case.options.items()}
            layer = getattr(self.keras.layers, case.layer)(case.units, **options)
            layer.build((None, None, case.features))

            def call(x: Any, mask: Any, state: Any) -> Any:
                return layer(x, mask=mask, initial_state=state)

            self._kept[key] = layer, call if way == "eager" else self.tf.function(call)
        return self._kept[key]

    def run_file(self, path: str, inputs: dict[str, Array]) -> Any:
        """The outputs of the model in an .h5 file, in its own structure."""
        model = self.keras.models.load_model(path, compile=False)
        tensors = [self.tf.constant(a) for a in inputs.values()]
        outputs = model(tensors if len(tensors) > 1 else tensors[0])
        return self.tf.nest.map_structure(np.asarray, outputs)
