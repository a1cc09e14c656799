"""The RNN reference: SimpleRNN, LSTM and GRU in NumPy, with the weights and numbers of Keras."""

from typing import TYPE_CHECKING, Any

from refrnn import activations, initializers, layers
from refrnn.cells import LSTMState, State, Weights
from refrnn.engines import run, trace
from refrnn.layers import GRU, LSTM, SimpleRNN
from refrnn.models import Model, Sequential, from_keras

if TYPE_CHECKING:
    from refrnn.files import load_model

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "LSTMState",
    "Model",
    "Sequential",
    "SimpleRNN",
    "State",
    "Weights",
    "activations",
    "from_keras",
    "initializers",
    "layers",
    "load_model",
    "run",
    "trace",
]


def __getattr__(name: str) -> Any:
    """load_model, imported where it is asked for: reading files takes zipfile and json."""
    if name == "load_model":
        from refrnn.files import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
