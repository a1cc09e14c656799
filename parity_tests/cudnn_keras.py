"""Keras on PyTorch and JAX, and JAX, cuDNN's operation modelled: python cudnn_keras.py NAME

NAME is a front end. Keras has one backend a process, and in the tests' it is TensorFlow. Prints a
line of JSON for each work: the row of `refrnn gpucheck`.
"""

import importlib
import json
import sys
from dataclasses import replace
from typing import Any

from cudnn_model import Telling, adapter_works, told

from refrnn.gpucheck import judging
from refrnn.oracles.cudnn import keras
from refrnn.oracles.cudnn.fronts import FRONTS
from refrnn.oracles.cudnn.jax import Jax
from refrnn.verify.whole import plain


class OnTorch(Telling, keras.OnTorch):
    """torch._VF.lstm and gru, which compute on the CPU too: cuDNN's way through Keras is taken
    where Keras would go its own."""

    def __init__(self) -> None:
        super().__init__()
        rnn = importlib.import_module("keras.src.backend.torch.rnn")

        def lstm(x: Any, h: Any, c: Any, *others: Any) -> Any:
            kernel, recurrent_kernel, bias, _, _, sequences, batch_first = others
            assert batch_first
            weights = kernel, recurrent_kernel, bias
            return rnn._cudnn_lstm(x, h, c, *weights, sequences, x.device)

        def gru(x: Any, h: Any, *others: Any) -> Any:
            kernel, recurrent_kernel, bias, _, _, sequences = others
            return rnn._cudnn_gru(x, h, kernel, recurrent_kernel, bias, sequences, x.device)

        rnn._fallback_lstm, rnn._fallback_gru = lstm, gru


def with_jax(rnn: Any) -> Any:
    """jax.experimental.rnn.lstm in JAX's own reference, with zeros past each row's length."""
    jax = importlib.import_module("jax")

    def model(x: Any, h: Any, c: Any, weights: Any, lengths: Any, **sizes: Any) -> Any:
        shape = [sizes[n] for n in ("input_size", "hidden_size", "num_layers", "bidirectional")]
        unpacked = rnn.unpack_lstm_weights(weights, *shape)
        y, h, c = rnn.lstm_ref(
            x, h, c, *unpacked, lengths, *shape[:3], sizes["dropout"], sizes["bidirectional"]
        )
        live = jax.numpy.arange(x.shape[1]) < lengths[:, None]
        return jax.numpy.where(live[:, :, None], y, 0), h, c

    def operation(*arrays: Any, **sizes: Any) -> Any:
        sizes.pop("precision", None)

        def cudnn_rnn_model(*given: Any) -> Any:  # a name that shows in lowered text
            return model(*given, **sizes)

        return jax.jit(cudnn_rnn_model)(*arrays)

    return operation


class WithJax(Telling, Jax):
    """The same operation, without Keras."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn.lstm = with_jax(self.rnn)


class OnJax(Telling, keras.OnJax):
    """jax.experimental.rnn.lstm replaced."""

    def __init__(self) -> None:
        super().__init__()
        rnn = importlib.import_module("jax.experimental.rnn")
        rnn.lstm = with_jax(rnn)
        backend = importlib.import_module("keras.src.backend.jax.rnn")
        backend._is_gpu_available = lambda: True


if __name__ == "__main__":
    (name,) = sys.argv[1:]
    front: Any = {"keras-torch": OnTorch, "keras-jax": OnJax, "jax": WithJax}[name]()
    for work in adapter_works(masks=name == "jax", gru=name == "keras-torch"):
        if work.precision not in FRONTS[name].precisions or FRONTS[name].lacks(work):
            continue
        if name == "keras-jax" and work.case.options:
            work = replace(work, cuts=())  # Keras turns each chunk for itself
        if work.bidirectional and name == "keras-torch":  # on a CPU Keras does not fuse the two
            front.lies = lambda work, made: [told(work)] * 2
        else:
            front.lies = None
        row = judging.judged(name, work, front.run(work, FRONTS[name].way), {})
        print(json.dumps(plain(row.to_dict())))
