"""Training: gradients of whole models, losses, optimizers and `fit`, in Keras's formulas."""

from refrnn.training import rules as _rules  # noqa: F401 fills the table of rules
from refrnn.training.fit import History, evaluate, fit, train_on_batch
from refrnn.training.losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    Loss,
    MeanSquaredError,
    SparseCategoricalCrossentropy,
)
from refrnn.training.optimizers import SGD, Adam, Optimizer
from refrnn.training.tape import ModelGradients, Tape, gradients, record

__all__ = [
    "SGD",
    "Adam",
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "History",
    "Loss",
    "MeanSquaredError",
    "ModelGradients",
    "Optimizer",
    "SparseCategoricalCrossentropy",
    "Tape",
    "evaluate",
    "fit",
    "gradients",
    "record",
    "train_on_batch",
]
