"""`fit`, `evaluate` and `train_on_batch`: a model learns from arrays, as in Keras."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers import RNN
from refrnn.models import Model
from refrnn.training import losses, optimizers
from refrnn.training.callbacks import Bar, listeners
from refrnn.training.losses import Loss
from refrnn.training.optimizers import Optimizer
from refrnn.training.origin import every_layer
from refrnn.training.step import Step


@dataclass
class History:
    """What `fit` returns, as `keras.callbacks.History`.

    history       "loss", and "val_loss" with validation_data: a number for each epoch, the mean
                  over its rows
    epoch         the epochs made, counted from 0
    batch_losses  the loss of every batch, before the update that it made
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    epoch: list[int] = field(default_factory=list)
    batch_losses: list[float] = field(default_factory=list)


def fit(
    model: Model,
    x: Any,
    y: Any,
    loss: str | Loss = "mse",
    optimizer: str | Optimizer = "adam",
    *,
    epochs: int = 1,
    batch_size: int = 32,
    shuffle: bool = True,
    seed: int | None = None,
    reset_each_epoch: bool = False,
    validation_data: tuple[Any, Any] | None = None,
    callbacks: Sequence[Any] = (),
    verbose: bool = False,
) -> History:
    """Train a model, as `keras.Model.fit`.

    x                 the inputs of all rows, as the model takes them
    y                 the targets of all rows, as the loss takes them
    loss, optimizer   by name, or an object of refrnn.training. An optimizer that is given goes on
                      from what it remembers, which is of one model: another takes a new one, and
                      one of other shapes is refused
    batch_size        rows of an update; the last batch of an epoch has what is left
    shuffle           take the rows in a new order each epoch: as in Keras, but not in its order,
                      because TensorFlow's random numbers for it are not reproduced
    seed              of the order of rows; None draws one
    reset_each_epoch  make stateful layers forget before each epoch and each validation. Without
                      it, as in Keras, they go on for ever
    validation_data   (x, y), of which "val_loss" is computed after each epoch
    callbacks         functions f(epoch, logs) that are called after each epoch, or objects with
                      some of Keras's methods: on_train_begin(logs), on_epoch_begin(epoch, logs),
                      on_train_batch_begin(batch, logs), on_train_batch_end(batch, logs),
                      on_epoch_end(epoch, logs), on_train_end(logs). logs holds "loss", of a batch
                      its own. A function, or on_epoch_end, that returns True ends the training
    verbose           draw a progress bar on stderr

    With a stateful model row k of a batch goes on with the sequence that was row k of the batch
    before: batch_size must divide the rows, and shuffle must be False.

    Raises ValueError or TypeError for what does not fit, before any weight is changed, and
    FloatingPointError where the loss or a gradient is not finite: the message says in which batch
    and where in the model it arose, and the weights are those that the last good update made.
    """
    who = "fit"
    learner = optimizers.get(optimizer)
    data = _Data(who, model, x, y, batch_size)
    step = Step(model, losses.get(loss), learner)
    epochs = checks.count(who, "epochs", epochs)
    shuffle = checks.flag(who, "shuffle", shuffle)
    if shuffle and data.stateful:
        raise ValueError(
            f"{who}: shuffle is True and {data.stateful[0].who} is stateful, expected"
            " shuffle=False, because each row of a batch goes on with the sequence of that row in"
            " the batch before"
        )
    reset = checks.flag(who, "reset_each_epoch", reset_each_epoch)
    if reset and not data.stateful:
        raise ValueError(
            f"{who}: reset_each_epoch is True and {model.who} has no stateful layer, expected one,"
            " because there is nothing to reset"
        )
    random = np.random.default_rng(checks.seed(who, seed))
    other = None
    if validation_data is not None:
        if not isinstance(validation_data, tuple | list) or len(validation_data) != 2:
            raise ValueError(
                f"{who}: validation_data is {validation_data!r}, expected a pair (x, y)"
            )
        other = _Data(f"{who}: validation_data", model, *validation_data, batch_size)
        other.check_targets(step)
    data.check_targets(step)
    bar = [Bar(epochs, data.batches)] if checks.flag(who, "verbose", verbose) else []
    heard = listeners(callbacks)
    for event, extra in listeners(bar).items():
        heard[event] += extra

    def tell(event: str, *arguments: Any) -> bool:
        answers = [listener(*arguments) for listener in heard[event]]
        return any(answer is True for answer in answers)

    done = History({name: [] for name in (["loss", "val_loss"] if other else ["loss"])})
    tell("on_train_begin", {})
    for epoch in range(epochs):
        if reset:
            model.reset_states()
        tell("on_epoch_begin", epoch, {})
        order = random.permutation(data.rows) if shuffle else None
        total = 0.0
        for batch, (inputs, targets) in enumerate(data.in_batches(order)):
            tell("on_train_batch_begin", batch, {})
            try:
                value = step.update(inputs, targets)
            except FloatingPointError as error:
                raise FloatingPointError(
                    f"{who}: epoch {epoch + 1} of {epochs}, batch {batch + 1} of {data.batches}:"
                    f" {error}; the weights are those before this batch"
                ) from None
            done.batch_losses.append(value)
            total += value * len(targets)
            tell("on_train_batch_end", batch, {"loss": value})
        logs = {"loss": total / data.rows}
        if other:
            if reset:
                model.reset_states()
            logs["val_loss"] = other.loss(step)
        done.epoch.append(epoch)
        for name, value in logs.items():
            done.history[name].append(value)
        if tell("on_epoch_end", epoch, logs):
            break
    tell("on_train_end", {})
    return done


def evaluate(
    model: Model, x: Any, y: Any, loss: str | Loss = "mse", *, batch_size: int = 32
) -> float:
    """The loss of a model on all rows, in inference, as `keras.Model.evaluate`.

    x, y, loss, batch_size  as for `fit`

    A stateful model goes on from batch to batch, and from what it carried before.
    """
    data = _Data("evaluate", model, x, y, batch_size)
    step = Step(model, losses.get(loss))
    data.check_targets(step)
    return data.loss(step)


def train_on_batch(
    model: Model, x: Any, y: Any, loss: str | Loss = "mse", optimizer: Optimizer | None = None
) -> float:
    """Make one update and return the loss before it, as `keras.Model.train_on_batch`.

    x, y, loss  as for `fit`, of one batch
    optimizer   an object, because it remembers what came before

    Raises what `fit` raises; then nothing is changed.
    """
    who = "train_on_batch"
    if not isinstance(optimizer, Optimizer):
        raise ValueError(
            f"{who}: optimizer is {optimizer!r}, expected an optimizer of refrnn.training, because"
            " it remembers from call to call"
        )
    _built(who, model, x)
    try:
        return Step(model, losses.get(loss), optimizer).update(x, y)
    except FloatingPointError as error:
        raise FloatingPointError(f"{who}: {error}; the weights are those before") from None


class _Data:
    """Inputs and targets in batches, checked against a model."""

    def __init__(self, who: str, model: Model, x: Any, y: Any, batch_size: int) -> None:
        self.who, self.model = who, model
        self.size = checks.count(who, "batch_size", batch_size)
        _built(who, model, x)
        self.arrays = model.arrays(x)
        self.targets = checks.array(who, "the target", y)
        rows = {len(array) for array in self.arrays}
        if len(rows) != 1:
            raise ValueError(f"{who}: inputs have {sorted(rows)} rows, expected as many each")
        self.rows = rows.pop()
        if not self.rows:
            raise ValueError(f"{who}: the input has no rows, expected at least one")
        if self.targets.ndim == 0 or len(self.targets) != self.rows:
            raise ValueError(
                f"{who}: the target has shape {self.targets.shape} and the input {self.rows} rows,"
                " expected a target for each row"
            )
        self.batches = -(-self.rows // self.size)
        self.stateful = [x for x in every_layer(model) if isinstance(x, RNN) and x.stateful]
        if self.stateful:
            self._check_stateful(self.stateful[0])

    def _check_stateful(self, layer: RNN) -> None:
        shape = self.model.inputs[0].shape
        fixed = shape[0] if shape else None
        if fixed is not None and fixed != self.size:
            raise ValueError(
                f"{self.who}: batch_size is {self.size}, expected {fixed}, because {layer.who} is"
                f" stateful in a model made for batches of {fixed}"
            )
        if self.rows % self.size:
            raise ValueError(
                f"{self.who}: the input has {self.rows} rows, expected a multiple of batch_size"
                f" {self.size}, because {layer.who} carries the state of as many rows from batch to"
                " batch"
            )

    def check_targets(self, step: Step) -> None:
        """Make targets of what was given, for outputs like those of the first row."""
        first = [array[:1] for array in self.arrays]
        before = step.remembered()
        step.forget()
        try:
            tape = step.forward(first if len(first) > 1 else first[0], training=False)
        finally:
            step.recall(before)
        self.targets = step.targets(self.targets, tape, self.rows)

    def in_batches(self, order: Array | None = None) -> Iterator[tuple[Any, Array]]:
        """Inputs, as the model takes them, and targets; the rows in `order`."""
        for start in range(0, self.rows, self.size):
            rows: Any = slice(start, start + self.size)
            rows = rows if order is None else order[rows]
            batch = [array[rows] for array in self.arrays]
            yield batch if len(batch) > 1 else batch[0], self.targets[rows]

    def loss(self, step: Step) -> float:
        """The mean over rows of the losses of batches, in inference."""
        total = 0.0
        for inputs, targets in self.in_batches():
            tape = step.forward(inputs, training=False)
            total += step.reduced(targets, tape)[0] * len(targets)
        return total / self.rows


def _built(who: str, model: Any, x: Any) -> None:
    """Make the weights of a model whose input was not known until now."""
    if not isinstance(model, Model):
        raise ValueError(
            f"{who}: model is {model!r}, expected a refrnn.Model or Sequential; a layer is made"
            " one by refrnn.Sequential([layer])"
        )
    if not all(layer.built for layer in every_layer(model)):
        shape = np.shape(model.in_order(x)[0])
        model.build((None, *shape[1:]))
