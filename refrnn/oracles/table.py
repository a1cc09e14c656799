"""ORACLES: the other implementations by name, how each is run, and what it cannot do; as data."""

import importlib.util
from typing import Any, NamedTuple

from refrnn.activations import ACTIVATIONS
from refrnn.cases import MASKS, Case
from refrnn.layouts import LAYOUTS
from refrnn.oracles import Unavailable, node, process
from refrnn.oracles.jax import FUNCTIONS
from refrnn.oracles.tf_keras import NAMES as KERAS_2

ANY = (None, *MASKS)


class Way(NamedTuple):
    """How an oracle is run, and what it can do that way.

    dtypes       of the arithmetic
    masks        None for no mask, and the kinds of `Case.mask`
    layers       with them: GRU in its families "reset after" and "reset before"
    activations  names, any of which can stand anywhere; or pairs (activation,
                 recurrent_activation), of SimpleRNN (activation, None)
    zeroes       it can do zero_output_for_mask
    biased_gru   it can do a GRU with a bias in the recurrent product of the candidate
    """

    dtypes: tuple[str, ...] = ("float32", "float64")
    masks: tuple[str | None, ...] = (None,)
    layers: tuple[str, ...] = ("SimpleRNN", "LSTM", "GRU", "GRU reset before")
    activations: frozenset[str] | tuple[tuple[str, str | None], ...] = frozenset()
    zeroes: bool = False
    biased_gru: bool = True

    def lacks(self, case: Case) -> str | None:
        """What in `case` cannot be done, in words that are the same for all such cases; or None."""
        o = case.options
        before = " reset before" if o.get("reset_after") is False else ""
        rec = None if case.layer == "SimpleRNN" else o.get("recurrent_activation", "sigmoid")
        pair = o.get("activation", "tanh"), rec
        if case.dtype not in self.dtypes:
            return f"no {case.dtype}"
        if case.layer + before not in self.layers:
            return f"no {case.layer}{before}"
        if case.mask not in self.masks:
            return f"no mask {case.mask}" if case.mask else "for masks alone"
        if case.mask and o.get("go_backwards") and self.masks != ANY:
            return "no mask with go_backwards"
        if case.mask and o.get("zero_output_for_mask") and not self.zeroes:
            return "no zero_output_for_mask"
        if not self._has(pair):
            return f"no {'/'.join(name for name in pair if name)}"
        if not self.biased_gru and case.layer == "GRU" and o.get("use_bias", True):
            return "no recurrent bias of a GRU"
        return None

    def _has(self, pair: tuple[str, str | None]) -> bool:
        if isinstance(self.activations, frozenset):
            return {name for name in pair if name} <= self.activations
        return pair in self.activations


class Oracle(NamedTuple):
    """A row of the table.

    title    for people
    made_by  "module:class" under refrnn.oracles; the class has versions() and run(case, way,
             arrays), and raises Unavailable
    modules  what must be installed
    ways     how it is run
    extra    of refrnn's, that installs it
    apart    it runs in a process of its own, because it cannot live with another one here
    file     the suffix of files of models that it can run whole, or model.json; the class then has
             run_file(path, inputs by name)
    npm      packages that Node must find
    """

    title: str
    made_by: str
    modules: tuple[str, ...]
    ways: dict[str, Way]
    extra: str = "oracles"
    apart: bool = False
    file: str = ""
    npm: tuple[str, ...] = ()

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Of the arithmetic, as it is run first."""
        return next(iter(self.ways.values())).dtypes

    @property
    def missing(self) -> list[str]:
        modules = [name for name in self.modules if importlib.util.find_spec(name) is None]
        return modules + (node.missing(self.npm) if self.npm else [])

    def load(self) -> Any:
        """The oracle itself, or Unavailable."""
        missing = self.missing
        if missing and self.npm:
            raise Unavailable(
                f"{self.title}: {' and '.join(missing)} not found: install Node.js, and in this"
                f" folder npm install {' '.join(self.npm)}, or set NODE_PATH to where it is"
            )
        if missing:
            raise Unavailable(
                f"{self.title}: {' and '.join(missing)} cannot be imported: install with pip"
                f" install {' '.join(missing)}, or with all others 'refrnn[{self.extra}]' (in a"
                f" clone: pip install '.[{self.extra}]')"
            )
        return process.Apart(self.made_by) if self.apart else process.made(self.made_by)


_KERAS_3 = frozenset(
    name
    for name, row in ACTIVATIONS.items()
    if row.kind in ("elementwise", "rows") and name != "hard_sigmoid_keras2"
)
_TANH = (("tanh", "sigmoid"), ("tanh", None))
_TORCH = Way(layers=("SimpleRNN", "LSTM", "GRU"), activations=(*_TANH, ("relu", None)))
_RELU = (*_TANH, ("relu", "sigmoid"), ("relu", None))
_FLAX = Way(layers=("SimpleRNN", "LSTM", "GRU"), activations=_RELU)
_KERAS = Way(masks=ANY, zeroes=True, activations=_KERAS_3)
_KERAS_2 = _KERAS._replace(activations=frozenset(KERAS_2))
_JAX = Way(masks=ANY, zeroes=True, activations=frozenset(FUNCTIONS))
_ONNX = Way(
    dtypes=("float32",),
    masks=(None, "right"),
    activations=frozenset(LAYOUTS["onnx"].activations or ()),
    zeroes=True,
)
_TFJS = Way(
    dtypes=("float32",),
    masks=(None, "right"),
    layers=("SimpleRNN", "LSTM", "GRU reset before"),
    activations=frozenset(LAYOUTS["tfjs"].activations or ()),
)

ORACLES: dict[str, Oracle] = {
    "keras": Oracle(
        "Keras on TensorFlow",
        "tensorflow:TensorFlow",
        ("tensorflow", "keras"),
        {"eager": _KERAS, "function": _KERAS, "XLA": _KERAS},
        "verify",
        file=".keras",
    ),
    "tf_keras": Oracle(
        "Keras 2 on TensorFlow",
        "tf_keras:Keras2",
        ("tensorflow", "tf_keras"),
        {"eager": _KERAS_2, "function": _KERAS_2},
        apart=True,  # it and Keras 3 read one variable of the environment each in its own way
        file=".h5",
    ),
    "torch": Oracle(
        "PyTorch",
        "torch:PyTorch",
        ("torch",),
        {
            "whole": _TORCH,
            "packed": _TORCH._replace(masks=("right",), zeroes=True),
            "cells": _TORCH,
        },
    ),
    "onnxruntime": Oracle(
        "ONNX Runtime",
        "onnxruntime:OnnxRuntime",
        ("onnx", "onnxruntime"),
        {"node": _ONNX},
        file=".onnx",
    ),
    "jax": Oracle("JAX", "jax:Jax", ("jax",), {"scan": _JAX}),
    "flax": Oracle(
        "Flax",
        "flax:Flax",
        ("jax", "flax"),
        {"linen": _FLAX, "nnx": _FLAX._replace(biased_gru=False)},
    ),
    "openvino": Oracle(
        "OpenVINO",
        "openvino:OpenVino",
        ("onnx", "openvino"),
        {"f32": _ONNX._replace(activations=_RELU)},
        apart=True,  # it forks as it is imported, which can lock up where JAX runs
        file=".onnx",
    ),
    "tfjs": Oracle(
        "tf.js",
        "tfjs:TfJs",
        (),
        {"cpu": _TFJS},
        file="model.json",
        npm=("@tensorflow/tfjs",),
    ),
}
ALIASES = {"tensorflow": "keras", "pytorch": "torch", "tf.js": "tfjs"}
