"""Operations that Keras records between the layers of a functional model, to make masks.

They come from configs only, where they stand among the layers. As in `keras.ops`, one computes on
arrays as they are and loses their masks.
"""

from typing import Any, ClassVar

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers.base import REQUIRED, Layer
from refrnn.layers.embedding import Masking


class Operation(Layer):
    """What they share: no weights."""

    KERAS_MODULE: ClassVar = "keras.src.ops.numpy"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """The settings as Keras writes them: an operation is not a layer, it has few."""
        return {"name": self.name} | {name: getattr(self, name) for name in self.ARGUMENTS}

    def _plain(self, given: Any) -> Array:
        return np.asarray(checks.array(self.who, "the input", given))


class NotEqual(Operation):
    """Where x1 and x2 differ; a Python float is compared as a float32, as in `Masking`."""

    def call(self, x1: Any, x2: Any, training: bool = False) -> Array:
        if isinstance(x2, np.ndarray):
            return np.asarray(self._plain(x1) != self._plain(x2))
        return Masking(x2).differs(self._plain(x1))


class Any_(Operation):
    """Whether any entry along an axis is True."""

    ARGUMENTS: ClassVar = {"axis": None, "keepdims": False}
    axis: Any
    keepdims: bool

    def call(self, x: Any, training: bool = False) -> Array:
        axis = tuple(self.axis) if isinstance(self.axis, list) else self.axis
        return np.asarray(np.any(self._plain(x), axis=axis, keepdims=self.keepdims))


class LogicalOr(Operation):
    """Where x1 or x2 is True."""

    def call(self, x1: Any, x2: Any, training: bool = False) -> Array:
        return np.logical_or(self._plain(x1), self._plain(x2))


class ExpandDims(Operation):
    """x with an axis of size 1 more."""

    ARGUMENTS: ClassVar = {"axis": REQUIRED}
    axis: Any

    def call(self, x: Any, training: bool = False) -> Array:
        return np.expand_dims(self._plain(x), self.axis)


class _Like(Operation):
    """An array of the shape of x, of one value."""

    VALUE: ClassVar[int]
    KEYWORDS: ClassVar = {**Layer.KEYWORDS, "dtype": None}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kind = kwargs.pop("dtype", None)
        super().__init__(*args, **kwargs)
        self.kind = kind

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"dtype": self.kind}

    def call(self, x: Any, training: bool = False) -> Array:
        return np.full_like(self._plain(x), self.VALUE, dtype=self.kind)


class ZerosLike(_Like):
    VALUE = 0


class OnesLike(_Like):
    VALUE = 1


class Cast(Operation):
    """x in another dtype."""

    KERAS_MODULE: ClassVar = "keras.src.ops.core"

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"dtype": self.dtype.name}

    def call(self, x: Any, training: bool = False) -> Array:
        return checks.numbers(self.who, "the input", x, self.dtype)


class Joined(Operation):
    """Arrays one after another along an axis."""

    ARGUMENTS: ClassVar = {"axis": -1}
    axis: int

    def call(self, xs: Any, training: bool = False) -> Array:
        return np.concatenate([self._plain(x) for x in xs], axis=self.axis)


OPERATIONS: dict[str, type[Layer]] = {
    "ops.NotEqual": NotEqual,
    "ops.Any": Any_,
    "ops.LogicalOr": LogicalOr,
    "ops.ExpandDims": ExpandDims,
    "ops.ZerosLike": ZerosLike,
    "ops.OnesLike": OnesLike,
    "ops.Cast": Cast,
    "ops.Concatenate": Joined,
}
