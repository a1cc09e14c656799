"""The layers, named and called as in Keras 3."""

from refrnn.layers.base import KINDS, Layer
from refrnn.layers.bidirectional import Bidirectional
from refrnn.layers.cells import GRUCell, LSTMCell, SimpleRNNCell
from refrnn.layers.dense import Dense
from refrnn.layers.dropout import Dropout, SpatialDropout1D
from refrnn.layers.recurrent import GRU, LSTM, Recurrent, SimpleRNN
from refrnn.layers.rnn import RNN, StackedRNNCells
from refrnn.layers.wrappers import TimeDistributed

LAYERS = KINDS
LAYERS |= {
    kind.__name__: kind
    for kind in (
        SimpleRNN, GRU, LSTM, SimpleRNNCell, GRUCell, LSTMCell, RNN, StackedRNNCells,
        Bidirectional, TimeDistributed, Dense, Dropout, SpatialDropout1D,
    )
}  # fmt: skip

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Bidirectional",
    "Dense",
    "Dropout",
    "GRUCell",
    "LSTMCell",
    "Layer",
    "Recurrent",
    "SimpleRNN",
    "SimpleRNNCell",
    "SpatialDropout1D",
    "StackedRNNCells",
    "TimeDistributed",
]
