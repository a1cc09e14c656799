"""The layers, named and called as in Keras 3."""

from refrnn.layers import time_major
from refrnn.layers.activation import ELU, Activation, LeakyReLU, PReLU, ReLU, Softmax
from refrnn.layers.base import Layer
from refrnn.layers.bidirectional import Bidirectional
from refrnn.layers.cells import GRUCell, LSTMCell, SimpleRNNCell
from refrnn.layers.conv_recurrent import ConvLSTM1D, ConvLSTM2D, ConvLSTM3D
from refrnn.layers.convolutional import (
    Conv1D,
    Conv2D,
    Conv3D,
    DepthwiseConv1D,
    DepthwiseConv2D,
    SeparableConv1D,
    SeparableConv2D,
)
from refrnn.layers.dense import Dense
from refrnn.layers.dropout import Dropout, SpatialDropout1D, SpatialDropout2D
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
from refrnn.layers.noise import (
    ActivityRegularization,
    AlphaDropout,
    GaussianDropout,
    GaussianNoise,
    Identity,
)
from refrnn.layers.normalization import (
    BatchNormalization,
    GroupNormalization,
    LayerNormalization,
    Rescaling,
    UnitNormalization,
)
from refrnn.layers.objects import custom_object_scope
from refrnn.layers.operations import OPERATIONS
from refrnn.layers.pooling import (
    AveragePooling1D,
    AveragePooling2D,
    AveragePooling3D,
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalAveragePooling3D,
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
    GlobalMaxPooling3D,
    MaxPooling1D,
    MaxPooling2D,
    MaxPooling3D,
)
from refrnn.layers.recurrent import GRU, LSTM, Recurrent, SimpleRNN
from refrnn.layers.reshaping import (
    Cropping1D,
    Cropping2D,
    Flatten,
    Permute,
    RepeatVector,
    Reshape,
    UpSampling1D,
    ZeroPadding1D,
    ZeroPadding2D,
)
from refrnn.layers.rnn import RNN
from refrnn.layers.stacking import StackedRNNCells
from refrnn.layers.stored import KINDS, deserialize, serialize
from refrnn.layers.symbolic import Input
from refrnn.layers.wrappers import TimeDistributed

LAYERS = KINDS
LAYERS |= OPERATIONS
LAYERS |= {"keras2.TimeMajor": time_major.TimeMajor}
LAYERS |= {
    kind.__name__: kind
    for kind in (
        SimpleRNN, GRU, LSTM, SimpleRNNCell, GRUCell, LSTMCell, RNN, StackedRNNCells,
        Bidirectional, TimeDistributed, Dense, Dropout, SpatialDropout1D, SpatialDropout2D,
        GaussianNoise, GaussianDropout, AlphaDropout, ActivityRegularization, Identity,
        Embedding, Masking, Activation, ReLU, LeakyReLU, ELU, PReLU, Softmax,
        Flatten, Reshape, Permute, RepeatVector, UpSampling1D,
        Cropping1D, Cropping2D, ZeroPadding1D, ZeroPadding2D,
        Concatenate, Add, Subtract, Multiply, Average, Maximum, Minimum, Dot,
        BatchNormalization, LayerNormalization, GroupNormalization, UnitNormalization, Rescaling,
        ConvLSTM1D, ConvLSTM2D, ConvLSTM3D,
        Conv1D, Conv2D, Conv3D, DepthwiseConv1D, DepthwiseConv2D, SeparableConv1D, SeparableConv2D,
        MaxPooling1D, MaxPooling2D, MaxPooling3D,
        AveragePooling1D, AveragePooling2D, AveragePooling3D,
        GlobalMaxPooling1D, GlobalMaxPooling2D, GlobalMaxPooling3D,
        GlobalAveragePooling1D, GlobalAveragePooling2D, GlobalAveragePooling3D,
    )
}  # fmt: skip

__all__ = [
    "ELU",
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "ActivityRegularization",
    "Add",
    "AlphaDropout",
    "Average",
    "AveragePooling1D",
    "AveragePooling2D",
    "AveragePooling3D",
    "BatchNormalization",
    "Bidirectional",
    "Concatenate",
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "ConvLSTM1D",
    "ConvLSTM2D",
    "ConvLSTM3D",
    "Cropping1D",
    "Cropping2D",
    "Dense",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "Dot",
    "Dropout",
    "Embedding",
    "Flatten",
    "GRUCell",
    "GaussianDropout",
    "GaussianNoise",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalAveragePooling3D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "GlobalMaxPooling3D",
    "GroupNormalization",
    "Identity",
    "Input",
    "LSTMCell",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "Masking",
    "MaxPooling1D",
    "MaxPooling2D",
    "MaxPooling3D",
    "Maximum",
    "Minimum",
    "Multiply",
    "PReLU",
    "Permute",
    "ReLU",
    "Recurrent",
    "RepeatVector",
    "Rescaling",
    "Reshape",
    "SeparableConv1D",
    "SeparableConv2D",
    "SimpleRNN",
    "SimpleRNNCell",
    "Softmax",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "StackedRNNCells",
    "Subtract",
    "TimeDistributed",
    "UnitNormalization",
    "UpSampling1D",
    "ZeroPadding1D",
    "ZeroPadding2D",
    "custom_object_scope",
    "deserialize",
    "serialize",
]
