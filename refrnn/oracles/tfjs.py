"""tf.js in Node, on its own JavaScript backend: layers, and whole models. It has float32 alone."""

import base64
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from refrnn.cases import Arrays, Case
from refrnn.gates import Array
from refrnn.oracles import adapters, node

KINDS = {"SimpleRNN": "simpleRNN", "LSTM": "lstm", "GRU": "gru"}


class TfJs:
    """tf.js in a process of its own. Raises RuntimeError where it cannot be loaded."""

    def __init__(self) -> None:
        program = resources.files("refrnn.oracles").joinpath("tfjs.js").read_text("utf-8")
        self._node = node.Program(program)
        self._version = str(self._node.ask({})["version"])

    def versions(self) -> dict[str, str]:
        return {"tf.js": self._version}

    def run(self, case: Case, way: str = "cpu", arrays: Arrays | None = None) -> dict[str, Array]:
        """Outputs y (B, T, H), h and for LSTM c (B, H) of `case`."""
        given = adapters.given(case, arrays)
        stored = adapters.stored(case, given.weights, "tfjs")
        answer = self._node.ask(
            {
                "kind": KINDS[case.layer],
                "config": stored.attributes,
                "weights": [_packed(a) for a in stored.values()],
                "x": _packed(given.x),
                "state": [_packed(a) for a in given.state],
                "mask": None if given.mask is None else _packed(given.mask),
            }
        )
        y, *state = map(_unpacked, answer["outputs"])
        return adapters.outputs(case, y, state)

    def run_file(self, path: str, inputs: dict[str, Array]) -> list[Array]:
        """The outputs of the model in a model.json."""
        question = {
            "folder": str(Path(path).resolve().parent),
            "inputs": [_packed(a) for a in inputs.values()],
        }
        return [_unpacked(one) for one in self._node.ask(question)["outputs"]]


def _packed(array: Array) -> dict[str, Any]:
    dtype = {"b": "bool", "i": "int32", "u": "int32"}.get(array.dtype.kind, "float32")
    data = base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()
    return {"shape": list(array.shape), "dtype": dtype, "data": data}


def _unpacked(tensor: dict[str, Any]) -> Array:
    return np.frombuffer(base64.b64decode(tensor["data"]), "<f4").reshape(tensor["shape"])
