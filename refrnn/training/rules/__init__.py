"""How gradients go back through each layer: the table RULES, layer class -> rule."""

from refrnn import layers
from refrnn.layers import operations
from refrnn.layers.time_major import TimeMajor
from refrnn.models import Model, Sequential
from refrnn.training.rules import (
    activation,
    dense,
    dropout,
    embedding,
    merging,
    models,
    moving,
    normalization,
    pooling,
    recurrent,
    wrappers,
)
from refrnn.training.rules.passing import RULES

RULES |= dict.fromkeys((layers.SimpleRNN, layers.GRU, layers.LSTM, layers.RNN), recurrent.RECURRENT)
RULES |= dict.fromkeys((Model, Sequential), models.MODEL)
RULES |= {
    layers.Bidirectional: wrappers.BIDIRECTIONAL,
    layers.TimeDistributed: wrappers.TIME_DISTRIBUTED,
    TimeMajor: wrappers.TIME_MAJOR,
    layers.Dense: dense.DENSE,
    layers.Embedding: embedding.EMBEDDING,
    layers.Masking: embedding.MASKING,
}
RULES |= {
    layers.Activation: activation.ACTIVATION,
    layers.ReLU: activation.RELU,
    layers.LeakyReLU: activation.LEAKY_RELU,
    layers.ELU: activation.ELU,
    layers.PReLU: activation.PRELU,
    layers.Softmax: activation.SOFTMAX,
}
RULES |= dict.fromkeys(
    (layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D), dropout.DROPOUT
)
RULES |= dict.fromkeys(
    (layers.GaussianNoise, layers.GaussianDropout, layers.AlphaDropout), dropout.NOISE
)
RULES |= dict.fromkeys((layers.Identity, layers.ActivityRegularization), dropout.IDENTITY)
RULES |= {
    layers.LayerNormalization: normalization.LAYER_NORMALIZATION,
    layers.BatchNormalization: normalization.BATCH_NORMALIZATION,
    layers.UnitNormalization: normalization.UNIT_NORMALIZATION,
    layers.Rescaling: normalization.RESCALING,
    layers.Add: merging.ADD,
    layers.Subtract: merging.SUBTRACT,
    layers.Average: merging.AVERAGE,
    layers.Multiply: merging.MULTIPLY,
    layers.Maximum: merging.EXTREME,
    layers.Minimum: merging.EXTREME,
    layers.Concatenate: merging.CONCATENATE,
}
RULES |= dict.fromkeys(
    (
        layers.Flatten, layers.Reshape, layers.Permute, layers.RepeatVector, layers.UpSampling1D,
        layers.Cropping1D, layers.Cropping2D, layers.ZeroPadding1D, layers.ZeroPadding2D,
    ),
    moving.MOVING,
)  # fmt: skip
RULES |= dict.fromkeys(
    (operations.NotEqual, operations.Any_, operations.LogicalOr, operations.ZerosLike,
     operations.OnesLike),
    moving.NOTHING,
)  # fmt: skip
RULES |= {
    operations.ExpandDims: moving.SHAPED,
    operations.Cast: moving.SHAPED,
    operations.Joined: moving.JOINED,
}
for _rank in ("1D", "2D", "3D"):
    RULES |= {
        vars(layers)[f"GlobalAveragePooling{_rank}"]: pooling.GLOBAL_AVERAGE,
        vars(layers)[f"GlobalMaxPooling{_rank}"]: pooling.GLOBAL_MAX,
        vars(layers)[f"AveragePooling{_rank}"]: pooling.AVERAGE,
        vars(layers)[f"MaxPooling{_rank}"]: pooling.MAXIMUM,
    }
