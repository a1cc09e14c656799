"""Losses and their gradients, in the formulas of Keras 3 on TensorFlow.

Each is a mean: over the last axis of the output where the loss has an entry there, and then over
rows and steps; of masked outputs over the steps where the mask is True. Probabilities are clipped
to [1e-7, 1 - 1e-7], where no gradient goes back from outside.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.reference import QUIET

EPSILON = 1e-7  # keras.config.epsilon()

Back = Callable[[Array], Array]  # gradient of the losses (...) -> that of the output (..., C)


@dataclass(frozen=True)
class Loss:
    """A number that says how far outputs are from their targets, and its gradient.

    A call takes targets and outputs (..., C), and the mask (...) of the outputs or None, and
    returns the loss as a float. Raises ValueError or TypeError for targets that do not fit.
    """

    name: ClassVar[str]
    takes_logits: ClassVar[bool] = False  # whether logits that are known go before probabilities

    def __call__(self, y_true: Any, y_pred: Any, mask: Any = None) -> float:
        return self.value_and_gradient(y_true, y_pred, mask)[0]

    def value_and_gradient(self, y_true: Any, y_pred: Any, mask: Any = None) -> tuple[float, Array]:
        """The loss, and its gradient by y_pred, an array like y_pred."""
        outputs = checks.array(self.name, "the output", y_pred)
        if not checks.is_float(outputs.dtype):
            outputs = checks.numbers(self.name, "the output", outputs, np.dtype("float32"))
        return self.reduced(self.targets(y_true, outputs.shape, outputs.dtype), outputs, mask)

    def targets(self, given: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """`given` as targets for outputs of `shape`. A last axis of size 1 may be left out.

        Raises ValueError for a shape or a value that does not fit, TypeError for a dtype.
        """
        found = checks.array(self.name, "the target", given)
        if found.shape != shape:
            bare = shape[:-1] if shape[-1:] == (1,) else None
            if found.shape != bare and found.shape != (*shape, 1):
                raise ValueError(
                    f"{self.name}: the target has shape {found.shape}, expected {shape}, that of"
                    " the output; it is never broadcast, because each output would then be"
                    " compared with the targets of others"
                )
            found = found.reshape(shape)
        values = checks.numbers(self.name, "the target", found, dtype)
        self.refuse(values, ~np.isfinite(values), "finite numbers, because the loss would be NaN")
        return values

    def refuse(self, values: Array, bad: Array, wanted: str) -> None:
        """Raise ValueError for the first of `values` where `bad` is True, if there is one."""
        if bad.any():
            where = [int(k) for k in np.argwhere(bad)[0]]
            raise ValueError(
                f"{self.name}: the target is {values[tuple(where)]} at {where}, expected {wanted}"
            )

    def reduced(
        self, y_true: Array, y_pred: Array, mask: Array | None, from_logits: bool = False
    ) -> tuple[float, Array]:
        """The loss and its gradient, of targets that were checked.

        from_logits  whether y_pred is what a sigmoid or softmax at the end was given
        """
        with QUIET():
            losses, back = self.each(y_true, y_pred, from_logits)
            kind = losses.dtype.type
            if not losses.size:
                return 0.0, np.zeros_like(y_pred)
            one = kind(1) / kind(losses.size)
            if mask is None:
                value, weights = losses.sum(), np.full(losses.shape, one)
            else:
                live = np.broadcast_to(np.asarray(mask, bool), losses.shape)
                valid = kind(live.sum())
                weight = kind(live.size) / valid if valid else kind(0)
                value = np.where(live, losses * weight, kind(0)).sum()
                weights = np.where(live, one * weight, kind(0))
            gradient = back(weights)
            if mask is not None:
                gradient = np.where(live[..., None], gradient, kind(0))
            return float(value / kind(losses.size)), gradient

    def each(self, y_true: Array, y_pred: Array, from_logits: bool) -> tuple[Array, Back]:
        """The loss of each row and step, and how gradients go back."""
        raise NotImplementedError


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """The mean of (y_true - y_pred)^2, as `keras.losses.MeanSquaredError`."""

    name: ClassVar = "mean_squared_error"

    def each(self, y_true: Array, y_pred: Array, from_logits: bool) -> tuple[Array, Back]:
        error, count = y_true - y_pred, y_pred.dtype.type(y_pred.shape[-1])
        return np.square(error).mean(axis=-1), lambda d: (-2 * error) * (d / count)[..., None]


@dataclass(frozen=True)
class _CrossEntropy(Loss):
    """What the cross-entropies share.

    from_logits  whether the outputs are logits, no activation having made probabilities of them

    As in Keras, where the last layer of a model ends in a sigmoid or a softmax, training takes what
    goes into that activation as the logits, and clips nothing, whatever from_logits is.
    """

    takes_logits: ClassVar = True
    from_logits: bool = False

    def each(self, y_true: Array, y_pred: Array, from_logits: bool) -> tuple[Array, Back]:
        of = self.of_logits if from_logits or self.from_logits else self.of_probabilities
        return of(y_true, y_pred)

    def of_logits(self, y_true: Array, x: Array) -> tuple[Array, Back]:
        raise NotImplementedError

    def of_probabilities(self, y_true: Array, p: Array) -> tuple[Array, Back]:
        raise NotImplementedError


@dataclass(frozen=True)
class BinaryCrossentropy(_CrossEntropy):
    """-(y log p + (1 - y) log(1 - p)), as `keras.losses.BinaryCrossentropy`.

    Targets are from 0 to 1, of the shape of the output.
    """

    name: ClassVar = "binary_crossentropy"

    def targets(self, given: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        values = super().targets(given, shape, dtype)
        bad = (values < 0) | (values > 1)
        self.refuse(values, bad, "0 to 1, because it is the probability of one of two classes")
        return values

    def of_logits(self, y_true: Array, x: Array) -> tuple[Array, Back]:
        small = np.exp(-np.abs(x))  # never overflows
        losses = np.maximum(x, 0) - x * y_true + np.log1p(small)
        p = np.where(x >= 0, 1, small) / (1 + small)
        count = x.dtype.type(x.shape[-1])
        return losses.mean(axis=-1), lambda d: (p - y_true) * (d / count)[..., None]

    def of_probabilities(self, y_true: Array, p: Array) -> tuple[Array, Back]:
        q, inside = _clipped(p)
        losses = -(y_true * np.log(q) + (1 - y_true) * np.log(1 - q))
        slope = (1 - y_true) / (1 - q) - y_true / q
        count = p.dtype.type(p.shape[-1])
        return losses.mean(axis=-1), lambda d: inside * (slope * (d / count)[..., None])


@dataclass(frozen=True)
class CategoricalCrossentropy(_CrossEntropy):
    """-sum over classes of y log p, as `keras.losses.CategoricalCrossentropy`.

    Targets have the shape of the output and a probability for each class, 1 for one of them mostly.
    Probabilities of the output are divided by their sum first.
    """

    name: ClassVar = "categorical_crossentropy"

    def targets(self, given: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        _several(self.name, shape)
        values = super().targets(given, shape, dtype)
        self.refuse(values, values < 0, "at least 0, because it is the probability of a class")
        total = values.sum(axis=-1)
        wrong = np.abs(total - 1) > 1e-3  # soft labels may be rounded
        if wrong.any():
            where = [int(k) for k in np.argwhere(wrong)[0]]
            raise ValueError(
                f"{self.name}: the target at {where} sums to {total[tuple(where)]}, expected 1,"
                " because it has the probability of each class; for numbers of classes use"
                " 'sparse_categorical_crossentropy'"
            )
        return values

    def of_logits(self, y_true: Array, x: Array) -> tuple[Array, Back]:
        logs, p = _softmax(x)
        return -(y_true * logs).sum(axis=-1), lambda d: (p - y_true) * d[..., None]

    def of_probabilities(self, y_true: Array, p: Array) -> tuple[Array, Back]:
        total = p.sum(axis=-1, keepdims=True)
        share = p / total
        q, inside = _clipped(share)

        def back(d: Array) -> Array:
            dshare = inside * (-y_true / q) * d[..., None]
            return (dshare - (dshare * share).sum(axis=-1, keepdims=True)) / total

        return -(y_true * np.log(q)).sum(axis=-1), back


@dataclass(frozen=True)
class SparseCategoricalCrossentropy(_CrossEntropy):
    """-log p of the class that the target names, as `keras.losses.SparseCategoricalCrossentropy`.

    Targets are whole numbers from 0, below the size of the output's last axis, in an array (...) or
    (..., 1) for outputs (..., C). Clipped probabilities are divided by their sum.
    """

    name: ClassVar = "sparse_categorical_crossentropy"

    def targets(self, given: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        _several(self.name, shape)
        found = checks.array(self.name, "the target", given)
        if found.shape not in (shape[:-1], (*shape[:-1], 1)):
            raise ValueError(
                f"{self.name}: the target has shape {found.shape}, expected {shape[:-1]}, a class"
                f" for each row and step of the output {shape}; for a probability of each class use"
                " 'categorical_crossentropy'"
            )
        values = checks.numbers(self.name, "the target", found, np.dtype("float64"))
        bad = ~((values >= 0) & (values < shape[-1]) & (values == np.floor(values)))
        self.refuse(
            values,
            bad,
            f"a whole number from 0 to {shape[-1] - 1}, because the output has {shape[-1]} classes",
        )
        return values.reshape(shape[:-1]).astype(np.intp)

    def of_logits(self, y_true: Array, x: Array) -> tuple[Array, Back]:
        (logs, dx), chosen = _softmax(x), y_true[..., None]
        np.put_along_axis(dx, chosen, np.take_along_axis(dx, chosen, -1) - 1, -1)
        return -np.take_along_axis(logs, chosen, -1)[..., 0], lambda d: dx * d[..., None]

    def of_probabilities(self, y_true: Array, p: Array) -> tuple[Array, Back]:
        q, inside = _clipped(p)
        losses, back = self.of_logits(y_true, np.log(q))
        return losses, lambda d: inside * back(d) / q


def _several(name: str, shape: tuple[int, ...]) -> None:
    """Refuse an output of one class: its probability is always 1."""
    if shape[-1] < 2:
        raise ValueError(
            f"{name}: the output has shape {shape}, expected at least 2 classes on the last axis;"
            " for the probability of one of two classes use 'binary_crossentropy'"
        )


def _clipped(p: Array) -> tuple[Array, Array]:
    """Probabilities away from 0 and 1, and where they were."""
    low, high = p.dtype.type(EPSILON), p.dtype.type(1 - EPSILON)
    return np.clip(p, low, high), (p >= low) & (p <= high)


def _softmax(x: Array) -> tuple[Array, Array]:
    """The logarithms of the probabilities, and these."""
    shifted = x - x.max(axis=-1, keepdims=True)
    powers = np.exp(shifted)
    total = powers.sum(axis=-1, keepdims=True)
    return shifted - np.log(total), powers / total


LOSSES: dict[str, type[Loss]] = {
    "mse": MeanSquaredError,
    **{
        kind.name: kind
        for kind in (
            MeanSquaredError,
            BinaryCrossentropy,
            CategoricalCrossentropy,
            SparseCategoricalCrossentropy,
        )
    },
}


def get(given: Any) -> Loss:
    """The loss of that name, with its defaults; a `Loss` is passed through."""
    if isinstance(given, Loss):
        return given
    if not isinstance(given, str) or given not in LOSSES:
        raise ValueError(
            f"loss is {given!r}, expected one of {', '.join(map(repr, LOSSES))}, or a loss of"
            " refrnn.training"
        )
    return LOSSES[given]()
