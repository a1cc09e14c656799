"""The layers, named and called as in Keras 3."""

from refrnn.layers.base import Layer
from refrnn.layers.cells import GRUCell, LSTMCell, SimpleRNNCell
from refrnn.layers.dense import Dense
from refrnn.layers.recurrent import GRU, LSTM, Recurrent, SimpleRNN
from refrnn.layers.wrappers import TimeDistributed

LAYERS: dict[str, type[Layer]] = {
    kind.__name__: kind
    for kind in (
        SimpleRNN, GRU, LSTM, SimpleRNNCell, GRUCell, LSTMCell, TimeDistributed, Dense,
    )
}  # fmt: skip

__all__ = [
    "GRU",
    "LSTM",
    "Dense",
    "GRUCell",
    "LSTMCell",
    "Layer",
    "Recurrent",
    "SimpleRNN",
    "SimpleRNNCell",
    "TimeDistributed",
]
