"""The RNN reference: SimpleRNN, LSTM and GRU in NumPy, with the weights and numbers of Keras."""

from refrnn import activations, initializers, layers
from refrnn.cells import LSTMState, State, Weights
from refrnn.engines import run, trace
from refrnn.layers import GRU, LSTM, SimpleRNN
from refrnn.models import Model, Sequential, from_keras

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
    "run",
    "trace",
]
