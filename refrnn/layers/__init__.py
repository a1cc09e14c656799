"""The layers, named and called as in Keras 3."""

from refrnn.layers.activation import ELU, Activation, LeakyReLU, PReLU, ReLU, Softmax
from refrnn.layers.base import KINDS, Layer
from refrnn.layers.bidirectional import Bidirectional
from refrnn.layers.cells import GRUCell, LSTMCell, SimpleRNNCell
from refrnn.layers.convolutional import Conv1D
from refrnn.layers.dense import Dense
from refrnn.layers.dropout import Dropout, SpatialDropout1D
from refrnn.layers.embedding import Embedding, Masking
from refrnn.layers.merging import (
    Add,
    Average,
    Concatenate,
    Dot,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
)
from refrnn.layers.normalization import BatchNormalization, LayerNormalization
from refrnn.layers.operations import OPERATIONS
from refrnn.layers.pooling import (
    AveragePooling1D,
    GlobalAveragePooling1D,
    GlobalMaxPooling1D,
    MaxPooling1D,
)
from refrnn.layers.recurrent import GRU, LSTM, Recurrent, SimpleRNN
from refrnn.layers.reshaping import (
    Cropping1D,
    Flatten,
    Permute,
    RepeatVector,
    Reshape,
    UpSampling1D,
    ZeroPadding1D,
)
from refrnn.layers.rnn import RNN
from refrnn.layers.stacking import StackedRNNCells
from refrnn.layers.wrappers import TimeDistributed

LAYERS = KINDS
LAYERS |= OPERATIONS
LAYERS |= {
    kind.__name__: kind
    for kind in (
        SimpleRNN, GRU, LSTM, SimpleRNNCell, GRUCell, LSTMCell, RNN, StackedRNNCells,
        Bidirectional, TimeDistributed, Dense, Dropout, SpatialDropout1D,
        Embedding, Masking, Activation, ReLU, LeakyReLU, ELU, PReLU, Softmax,
        Flatten, Reshape, Permute, RepeatVector, Cropping1D, ZeroPadding1D, UpSampling1D,
        Concatenate, Add, Subtract, Multiply, Average, Maximum, Minimum, Dot,
        BatchNormalization, LayerNormalization, Conv1D,
        MaxPooling1D, AveragePooling1D, GlobalMaxPooling1D, GlobalAveragePooling1D,
    )
}  # fmt: skip

__all__ = [
    "ELU",
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "Add",
    "Average",
    "AveragePooling1D",
    "BatchNormalization",
    "Bidirectional",
    "Concatenate",
    "Conv1D",
    "Cropping1D",
    "Dense",
    "Dot",
    "Dropout",
    "Embedding",
    "Flatten",
    "GRUCell",
    "GlobalAveragePooling1D",
    "GlobalMaxPooling1D",
    "LSTMCell",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "Masking",
    "MaxPooling1D",
    "Maximum",
    "Minimum",
    "Multiply",
    "PReLU",
    "Permute",
    "ReLU",
    "Recurrent",
    "RepeatVector",
    "Reshape",
    "SimpleRNN",
    "SimpleRNNCell",
    "Softmax",
    "SpatialDropout1D",
    "StackedRNNCells",
    "Subtract",
    "TimeDistributed",
    "UpSampling1D",
    "ZeroPadding1D",
]
