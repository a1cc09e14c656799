"""FRONTS: the ways in which a program reaches cuDNN, and what each cannot do; as data."""

import importlib.metadata
import importlib.util
from typing import NamedTuple

from refrnn.cases import Case
from refrnn.oracles import Unavailable
from refrnn.oracles.cudnn.work import NUMBERS, Work

ALL = tuple(NUMBERS)
COMMON = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # else it takes all of the GPU's memory
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # else three quarters of it
}


class FrontEnd(NamedTuple):
    """A row of the table.

    title       for people
    made_by     "module:class" under refrnn.oracles: a `front.Front`
    way         how it is run, as that class knows it
    packages    what must be installed: (module, distribution)
    layers      those that it has on cuDNN
    others      those that it has, but computes without cuDNN
    precisions  that can be asked for
    backwards   it has go_backwards
    masks       it takes right-padded rows
    keras       the layers are Keras's, which choose by themselves where cuDNN is not for them
    refuses     what of those choices is an error instead: the masks, in a tf.function
    picky       cuDNN may not have it for all sizes on all GPUs
    """

    title: str
    made_by: str
    way: str
    packages: tuple[tuple[str, str], ...]
    layers: tuple[str, ...] = ("LSTM", "GRU")
    others: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ALL
    backwards: bool = False
    masks: bool = False
    keras: bool = False
    refuses: bool = False
    picky: bool = False

    def lacks(self, work: Work) -> str | None:
        """What of a work that is to reach cuDNN it cannot do there, or None."""
        case = work.case
        if work.precision not in self.precisions:
            return f"no {work.precision}"
        if case.layer not in self.layers:
            return f"no {case.layer}"
        if case.options.get("go_backwards") and not self.backwards:
            return "no go_backwards"
        if case.mask is not None and not self.masks:
            return "no masks"
        return None

    def check_installed(self) -> None:
        """Raises Unavailable with the packages that are missing. Imports none of them."""
        missing = [name for name, _ in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            raise Unavailable(f"not installed: {' and '.join(missing)}")

    def installed(self) -> str:
        """The packages and their versions, in words."""
        found = []
        for module, distribution in self.packages:
            for name in (distribution, module):
                try:
                    found.append(f"{name} {importlib.metadata.version(name)}")
                    break
                except importlib.metadata.PackageNotFoundError:
                    continue
        return " and ".join(found) or "needs no package"


_TF = (("tensorflow", "tensorflow-cpu"), ("keras", "keras"))
_TORCH = (("torch", "torch"),)
_JAX = (("jax", "jax"),)
_KERAS = (("keras", "keras"),)
_RAW = ("SimpleRNN", "LSTM", "GRU")
_FLOAT32 = ("float32", "tf32")

FRONTS: dict[str, FrontEnd] = {
    "tf": FrontEnd(
        "Keras on TensorFlow, eager",
        "cudnn.keras:OnTensorFlow", "eager", _TF, others=("SimpleRNN",),
        backwards=True, masks=True, keras=True,
    ),
    "tf-function": FrontEnd(
        "Keras on TensorFlow, in a tf.function",
        "cudnn.keras:OnTensorFlow", "function", _TF, others=("SimpleRNN",),
        backwards=True, masks=True, keras=True, refuses=True,
    ),
    "keras-torch": FrontEnd(
        "Keras on PyTorch",
        "cudnn.keras:OnTorch", "eager", (*_TORCH, *_KERAS), others=("SimpleRNN",),
        backwards=True, keras=True,
    ),
    "torch": FrontEnd("PyTorch, torch.nn", "cudnn.torch:Torch", "plain", _TORCH, layers=_RAW),
    "torch-packed": FrontEnd(
        "PyTorch, packed sequences",
        "cudnn.torch:Torch", "packed", _TORCH, layers=_RAW, masks=True,
    ),
    "keras-jax": FrontEnd(
        "Keras on JAX",
        "cudnn.keras:OnJax", "eager", (*_JAX, *_KERAS), ("LSTM",), ("GRU", "SimpleRNN"),
        precisions=_FLOAT32, backwards=True, keras=True,
    ),
    "jax": FrontEnd(
        "JAX, jax.experimental.rnn",
        "cudnn.jax:Jax", "lstm", _JAX, layers=("LSTM",), precisions=_FLOAT32, masks=True,
    ),
    "direct": FrontEnd(
        "cuDNN itself, as TensorFlow calls it",
        "cudnn.direct:Direct", "standard", (), layers=_RAW, masks=True,
    ),
    "direct-static": FrontEnd(
        "cuDNN itself, PERSIST_STATIC",
        "cudnn.direct:Direct", "static", (), layers=_RAW, precisions=("float32", "float16"),
        picky=True,
    ),
    "direct-small-h": FrontEnd(
        "cuDNN itself, PERSIST_STATIC_SMALL_H",
        "cudnn.direct:Direct", "small-h", (), layers=_RAW, precisions=("float32", "float16"),
        picky=True,
    ),
}  # fmt: skip


def processes(names: list[str], precisions: list[str]) -> list[tuple[str, str, list[str]]]:
    """One for each way to load a front end and each precision: made_by, precision, its fronts."""
    found: dict[tuple[str, str], list[str]] = {}
    for precision in precisions:
        for name in names:
            if precision in FRONTS[name].precisions:
                found.setdefault((FRONTS[name].made_by, precision), []).append(name)
    return [(made_by, precision, list(own)) for (made_by, precision), own in found.items()]


def negatives(front: FrontEnd) -> list[tuple[str, Case]]:
    """What must not reach cuDNN, by what is wrong with it: Keras's own rules, and its gaps."""
    if not front.keras:
        return []
    found = [
        ("SimpleRNN", Case("SimpleRNN")),
        ("relu", Case("LSTM", options={"activation": "relu"})),
        ("hard sigmoid", Case("GRU", options={"recurrent_activation": "hard_sigmoid"})),
        ("no bias", Case("LSTM", options={"use_bias": False})),
        ("unroll", Case("LSTM", options={"unroll": True})),
        ("reset before", Case("GRU", options={"reset_after": False})),
        *((f"mask {kind}", Case("LSTM", mask=kind)) for kind in ("left", "holes", "row")),
    ]
    if "GRU" in front.others:
        found.append(("GRU", Case("GRU")))
    if not front.masks:
        found.append(("mask right", Case("LSTM", mask="right")))
    return found
