"""jax.experimental.rnn: JAX's only recurrent layer on cuDNN, an LSTM in float32."""

import importlib
import os
from functools import partial
from typing import Any

import numpy as np

from refrnn.gates import Array
from refrnn.oracles.adapters import needed
from refrnn.oracles.cudnn import host, vectors
from refrnn.oracles.cudnn.front import Front, Made
from refrnn.oracles.cudnn.work import Drawn, Work

OPERATION = "cudnn_rnn"  # begins the names of its custom calls, forward and backward


def start(jax: Any, precision: str) -> dict[str, Any]:
    """The flags of a precision, as JAX says that they are.

    Raises Unavailable where a GPU is missing, or the plugin that would find it.
    """
    on_gpu = jax.default_backend() == "gpu"
    host.needed(
        jax, on_gpu, f"no GPU: JAX runs on {jax.default_backend()}, without its CUDA plugin or GPU"
    )
    return set_flags(jax, precision)


def set_flags(jax: Any, precision: str) -> dict[str, Any]:
    """Only "highest" keeps TF32 out of its LSTM; without a setting TF32 is allowed.

    64 bits stay off: the operation takes float64 arrays and computes on them as on float32.
    """
    jax.config.update("jax_enable_x64", False)
    jax.config.update("jax_default_matmul_precision", None if precision == "tf32" else "highest")
    return {
        "jax_default_matmul_precision": jax.config.jax_default_matmul_precision,
        "jax_enable_x64": bool(jax.config.jax_enable_x64),
        "NVIDIA_TF32_OVERRIDE": os.environ.get("NVIDIA_TF32_OVERRIDE", "not set"),
    }


def sign(jax: Any, function: Any, *arguments: Any) -> str:
    """The custom call in the lowered text of a function, "" where there is none."""
    text = jax.jit(function).lower(*arguments).as_text()
    return f"custom call {OPERATION}" if OPERATION in text else ""


class Jax(Front):
    """Ways: "lstm". Raises Unavailable where JAX is missing."""

    def __init__(self) -> None:
        super().__init__()
        self.jax = needed("jax", "JAX")
        self.rnn = importlib.import_module("jax.experimental.rnn")

    def start(self, precision: str) -> dict[str, Any]:
        return start(self.jax, precision)

    def versions(self) -> dict[str, str]:
        return {"JAX": str(self.jax.__version__), **host.libraries()}

    def layer(self, work: Work, drawn: Drawn, way: str) -> Any:
        return self._array(vectors.vector(work, drawn.weights))

    def call(
        self, layer: Any, work: Work, x: Array, state: Any, mask: Array | None, dy: Array | None
    ) -> Made:
        T = x.shape[1]
        lengths = np.full(len(x), T) if mask is None else mask.sum(1)
        sizes = {
            "input_size": work.case.features,
            "hidden_size": work.case.units,
            "num_layers": 1,
            "dropout": 0.0,
            "bidirectional": work.bidirectional,
        }
        counts = self.jax.numpy.asarray(lengths, dtype="int32")

        def called(x: Any, h: Any, c: Any, weights: Any) -> Any:
            return self.rnn.lstm(x, h, c, weights, counts, **sizes)

        h, c = (self._array(np.stack(state[k::2])) for k in range(2))
        given = (self._array(x), h, c, layer)
        seen = sign(self.jax, called, *given)
        gradients: dict[str, Array] = {}
        if dy is None:
            y, h, c = called(*given)
        else:
            (y, h, c), back = self.jax.vjp(called, *given)
            zeros = self.jax.numpy.zeros_like
            by_x, by_h, by_c, by_weights = back((self._array(dy), zeros(h), zeros(c)))
            of = vectors.split(work, np.array(by_weights))
            gradients = vectors.gradients(work, of)
            gradients |= {"x": np.array(by_x), "h": np.array(by_h[0]), "c": np.array(by_c[0])}
        ends = [part[d] for d in range(1 + work.bidirectional) for part in (h, c)]
        return Made([np.array(a) for a in (y, *ends)], seen, gradients)

    def poison(self, work: Work) -> None:
        B, T, H = work.case.rows, work.case.steps, work.case.units * (1 + work.bidirectional)
        full = partial(self.jax.numpy.full, fill_value=np.nan, dtype="float32")
        blocks = [full((n,)) for n in (B * T * H, B * H)]
        del blocks

    def _array(self, array: Array) -> Any:
        return self.jax.numpy.asarray(array, dtype="float32")
