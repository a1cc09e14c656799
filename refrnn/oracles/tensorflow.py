"""Keras 3 on TensorFlow: the oracle. Eager, as tf.function and compiled by XLA, on CPU and GPU."""

import contextlib
import importlib.metadata
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refrnn.cases import Arrays, Case
from refrnn.gates import Array
from refrnn.oracles import Unavailable
from refrnn.oracles.adapters import repeat_outputs

INSTALL = (
    "install it with pip install 'refrnn[verify]' (in a clone: pip install '.[verify]'); on a host"
    " with a TensorFlow of its own, 'refrnn[verify-host]'"
)
MODES = ("eager", "function", "XLA")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what C++ code writes to stderr; show it after all if an error comes of it."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        saved = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except (Unavailable, KeyboardInterrupt):
            raise  # said in words of their own
        except BaseException:
            os.dup2(saved, 2)
            held.seek(0)
            sys.stderr.write(held.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


class Inner(NamedTuple):
    """One recurrent layer at work inside a model: x (B, T, F), mask (B, T), its outputs."""

    name: str
    x: Array
    state: list[Array] | None
    mask: Array | None
    outputs: list[Array]  # y (B, T, H), or (B, H) the last; and the states if it returns them


class TensorFlow:
    """TensorFlow and Keras, imported and set up: quiet, float32 products in full precision.

    Raises Unavailable, saying what to do, where they are missing or Keras runs on another backend.
    """

    def __init__(self) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        if "keras" not in sys.modules:
            os.environ["KERAS_BACKEND"] = "tensorflow"
        with _quiet():
            try:
                import tensorflow as tf
            except ImportError as error:
                raise Unavailable(f"TensorFlow cannot be imported ({error}): {INSTALL}") from error
            try:
                import keras
            except ImportError as error:
                raise Unavailable(f"Keras cannot be imported ({error}): {INSTALL}") from error
            if int(keras.__version__.partition(".")[0]) < 3:
                raise Unavailable(f"Keras is {keras.__version__}, expected 3 or later: {INSTALL}")
            if keras.backend.backend() != "tensorflow":
                raise Unavailable(
                    f"Keras runs on {keras.backend.backend()!r}, expected 'tensorflow':"
                    " set KERAS_BACKEND=tensorflow"
                )
            tf.get_logger().setLevel("ERROR")
            tf.config.experimental.enable_tensor_float_32_execution(False)
            self.gpus = tf.config.list_physical_devices("GPU")
            for gpu in self.gpus:
                tf.config.experimental.set_memory_growth(gpu, True)
            with tf.device("/CPU:0"):  # what the compilers have to say is said once, here
                tf.function(lambda x: x + 1, jit_compile=True)(tf.zeros(1))
        self.tf, self.keras = tf, keras

    def versions(self) -> dict[str, str]:
        return {"TensorFlow": self.tf.__version__, "Keras": self.keras.__version__}

    def gpu_name(self) -> str | None:
        if not self.gpus:
            return None
        details = self.tf.config.experimental.get_device_details(self.gpus[0])
        return str(details.get("device_name", self.gpus[0].name))

    def warnings(self) -> list[str]:
        """What is odd about this installation."""
        both = [n for n in ("tensorflow", "tensorflow-cpu") if _installed(n)]
        if len(both) < 2:
            return []
        return [
            f"{' and '.join(both)} are both installed and overwrite each other's files;"
            " uninstall both, then install the one you want"
        ]

    # --- cases ---

    def runs_on_cudnn(self, case: Case, mask: Array | None) -> bool:
        """Whether Keras's own rules send `case` to cuDNN: see `keras.layers.LSTM`."""
        o = case.options
        right = mask is None or bool((mask[:, :1].all()) and (mask[:, :-1] >= mask[:, 1:]).all())
        return (
            case.layer in ("LSTM", "GRU")
            and o.get("activation", "tanh") == "tanh"
            and o.get("recurrent_activation", "sigmoid") == "sigmoid"
            and o.get("use_bias", True)
            and o.get("reset_after", True)
            and not o.get("unroll", False)
            and right
        )

    def layer(self, case: Case, weights: Sequence[Array], use_cudnn: bool = False) -> Any:
        """The Keras layer of `case`, built, with its weights."""
        options = {"return_sequences": True, "return_state": True, "dtype": case.dtype}
        options |= case.options
        if case.layer != "SimpleRNN":
            options["use_cudnn"] = use_cudnn  # True makes Keras raise where it would fall back
        layer = getattr(self.keras.layers, case.layer)(case.units, **options)
        layer.build((case.rows, case.steps, case.features))
        layer.set_weights(list(weights))
        return layer

    def run(
        self, case: Case, mode: str = "eager", arrays: Arrays | None = None, cudnn: bool = False
    ) -> dict[str, Array]:
        """Outputs y (B, T, H), h and for LSTM c (B, H) of `case`, on the CPU or by cuDNN.

        mode    one of MODES
        arrays  stand in for those that the case draws
        """
        arrays = case.arrays() if arrays is None else arrays
        with self.tf.device("/GPU:0" if cudnn else "/CPU:0"):
            layer = self.layer(case, arrays.weights, cudnn)
            tensors = [None if a is None else self.tf.constant(a) for a in (arrays.x, arrays.mask)]
            state = arrays.state and [self.tf.constant(part) for part in arrays.state]

            def call(x: Any, mask: Any, state: Any) -> Any:
                return layer(x, mask=mask, initial_state=state)

            outputs = self._compiled(call, mode)(*tensors, state)
        found = dict(zip(("y", "h", "c"), (np.asarray(part) for part in outputs), strict=False))
        if cudnn and arrays.mask is not None and not case.options.get("zero_output_for_mask"):
            backwards = bool(case.options.get("go_backwards"))
            found["y"] = repeat_outputs(found["y"], arrays.mask, backwards)
        return found

    def _compiled(self, call: Any, mode: str) -> Any:
        if mode == "eager":
            return call
        return self.tf.function(call, jit_compile=mode == "XLA")

    # --- models ---

    def load(self, path: Path) -> Any:
        """A model from a .keras or .h5 file, without its optimizer and without running its code."""
        with _quiet():
            return self.keras.models.load_model(path, compile=False, safe_mode=True)

    def with_batch(self, model: Any, rows: int) -> Any:
        """A copy of a Sequential model for another fixed batch, with the same weights."""
        config = model.get_config()
        for layer in config["layers"]:
            layer.pop("build_config", None)  # the shapes it was built with, the old batch included
            if layer["class_name"] == "InputLayer":
                layer["config"]["batch_shape"] = [rows, *layer["config"]["batch_shape"][1:]]
        copy = type(model).from_config(config)
        copy.set_weights(model.get_weights())
        return copy

    def run_model(
        self, model: Any, inputs: Sequence[Array], mode: str = "eager", gpu: bool = False
    ) -> Any:
        """The outputs of a Keras model, its carried states reset first, in its own structure."""
        for layer in _all_layers(model):
            if getattr(layer, "stateful", False) and hasattr(layer, "reset_state"):
                layer.reset_state()
            if hasattr(layer, "use_cudnn"):
                layer.use_cudnn = "auto" if gpu else False
        with self.tf.device("/GPU:0" if gpu else "/CPU:0"):
            tensors = [self.tf.constant(array) for array in inputs]

            # as the model was made: bare, in a list or in a dictionary
            structure = getattr(model, "_inputs_struct", None)

            def call(tensors: Any) -> Any:
                if isinstance(structure, dict):
                    return model(self.tf.nest.pack_sequence_as(structure, tensors))
                return model(tensors if len(tensors) > 1 else tensors[0])

            outputs = self._compiled(call, mode)(tensors)
        return self.tf.nest.map_structure(np.asarray, outputs)

    def inside(self, model: Any, inputs: Sequence[Array]) -> list[Inner]:
        """What goes into the recurrent layers of a Keras model and what comes out, on the CPU.

        Left out are layers that are wrapped or called twice.
        """
        flatten = self.keras.tree.flatten
        kinds = tuple(getattr(self.keras.layers, name) for name in ("LSTM", "GRU", "SimpleRNN"))
        shown = [
            layer
            for layer in getattr(model, "layers", [])
            if isinstance(layer, kinds)
            if isinstance(model, self.keras.Sequential) or len(layer._inbound_nodes) == 1
        ]
        found = []
        for layer in shown:
            given, returned = flatten(layer.input), flatten(layer.output)
            through = self.keras.Model(model.inputs, [*given, *returned])
            arrays = self.run_model(through, inputs)
            x, *others = arrays[: len(given)]
            mask = next((a for a in others if a.dtype == bool), None)
            state = [a for a in others if a.dtype != bool] or None
            found.append(Inner(layer.name, x, state, mask, arrays[len(given) :]))
        return found

    def run_file(self, path: str, inputs: dict[str, Array]) -> Any:
        """The outputs of the model in a file, in its own structure; on the CPU."""
        return self.run_model(self.load(Path(path)), list(inputs.values()))


def _all_layers(model: Any) -> Iterator[Any]:
    """The layers of a Keras model, those inside wrappers and nested models included."""
    for layer in getattr(model, "layers", None) or [getattr(model, "layer", None)]:
        if layer is not None:
            yield layer
            yield from _all_layers(layer)


def _installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
