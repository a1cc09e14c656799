"""ORACLES: the other implementations by name, how each is run, and what it cannot do; as data."""

import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

from refrnn.cases import MASKS, Case
from refrnn.oracles import Unavailable, process

ANY = (None, *MASKS)


class Way(NamedTuple):
    """How an oracle is run, and what it can do that way.

    dtypes       of the arithmetic
    masks        None for no mask, and the kinds of `Case.mask`
    layers       with them: GRU in its families "reset after" and "reset before"
    activations  pairs (activation, recurrent_activation), or of SimpleRNN (activation, None);
                 None for any
    zeroes       it can do zero_output_for_mask
    biased_gru   it can do a GRU with a bias in the recurrent product of the candidate
    """

    dtypes: tuple[str, ...] = ("float32", "float64")
    masks: tuple[str | None, ...] = (None,)
    layers: tuple[str, ...] = ("SimpleRNN", "LSTM", "GRU", "GRU reset before")
    activations: tuple[tuple[str, str | None], ...] | None = None
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
        if self.activations is not None and pair not in self.activations:
            return f"no {'/'.join(name for name in pair if name)}"
        if not self.biased_gru and case.layer == "GRU" and o.get("use_bias", True):
            return "no recurrent bias of a GRU"
        return None


class Oracle(NamedTuple):
    """A row of the table.

    title    for people
    made_by  "module:class" under refrnn.oracles; the class has versions() and run(case, way,
             arrays), and raises Unavailable
    modules  what must be installed
    ways     how it is run
    extra    of refrnn's, that installs it
    apart    it runs in a process of its own, because it cannot live with another one here
    """

    title: str
    made_by: str
    modules: tuple[str, ...]
    ways: dict[str, Way]
    extra: str = "oracles"
    apart: bool = False

    @property
    def missing(self) -> list[str]:
        return [name for name in self.modules if importlib.util.find_spec(name) is None]

    def load(self) -> Any:
        """The oracle itself, or Unavailable."""
        if self.missing:
            raise Unavailable(
                f"{self.title}: {' and '.join(self.missing)} cannot be imported: install with"
                f" pip install 'refrnn[{self.extra}]' (in a clone: pip install '.[{self.extra}]')"
            )
        return process.Apart(self.made_by) if self.apart else process.made(self.made_by)


_TANH = (("tanh", "sigmoid"), ("tanh", None))
_TORCH = Way(layers=("SimpleRNN", "LSTM", "GRU"), activations=(*_TANH, ("relu", None)))
_RELU = (*_TANH, ("relu", "sigmoid"), ("relu", None))
_FLAX = Way(layers=("SimpleRNN", "LSTM", "GRU"), activations=_RELU)
_KERAS = Way(masks=ANY, zeroes=True)
_ONNX = Way(dtypes=("float32",), masks=(None, "right"), zeroes=True)

ORACLES: dict[str, Oracle] = {
    "keras": Oracle(
        "Keras on TensorFlow",
        "tensorflow:TensorFlow",
        ("tensorflow", "keras"),
        {"eager": _KERAS, "function": _KERAS, "XLA": _KERAS},
        "verify",
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
        "ONNX Runtime", "onnxruntime:OnnxRuntime", ("onnx", "onnxruntime"), {"node": _ONNX}
    ),
    "jax": Oracle("JAX", "jax:Jax", ("jax",), {"scan": Way(masks=ANY, zeroes=True)}),
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
    ),
}


def unknown(names: Sequence[str]) -> list[str]:
    return [name for name in names if name not in ORACLES]
