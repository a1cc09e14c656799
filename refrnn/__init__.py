"""The RNN reference: SimpleRNN, LSTM and GRU in NumPy, with the weights and numbers of Keras."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from refrnn import activations, initializers, layers
from refrnn.backward import gradients
from refrnn.cells import LSTMState, State, Weights
from refrnn.engines import run, trace
from refrnn.layers import GRU, LSTM, SimpleRNN
from refrnn.models import Model, Sequential
from refrnn.version import __version__ as __version__

if TYPE_CHECKING:
    from refrnn import files, goldens, layouts, testing, training, verify
    from refrnn.files import from_keras, load_model
    from refrnn.streams import Stream

__all__ = [
    "GRU",
    "LSTM",
    "LSTMState",
    "Model",
    "Sequential",
    "SimpleRNN",
    "State",
    "Stream",
    "Weights",
    "activations",
    "files",
    "from_keras",
    "goldens",
    "gradients",
    "initializers",
    "layers",
    "layouts",
    "load_model",
    "run",
    "testing",
    "trace",
    "training",
    "verify",
]


def __getattr__(name: str) -> Any:
    """What is not needed to run a layer, imported where it is asked for."""
    if name in ("load_model", "from_keras"):
        from refrnn import files

        return getattr(files, name)
    if name == "Stream":
        from refrnn.streams import Stream

        return Stream
    if name in ("files", "goldens", "layouts", "testing", "training", "verify"):
        return import_module(f"refrnn.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
