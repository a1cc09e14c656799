"""One update of a model: forward, loss, back, and the weights changed; or nothing changed."""

import copy
import math
from functools import cache
from typing import Any

import numpy as np

from refrnn import activations
from refrnn.gates import Array
from refrnn.layers import RNN, ActivityRegularization, Layer, Softmax
from refrnn.layers.activation import Activation
from refrnn.layers.masks import mask_of
from refrnn.models import Model, Node, Ref
from refrnn.training.losses import Loss
from refrnn.training.optimizers import Optimizer
from refrnn.training.origin import every_layer, origin
from refrnn.training.tape import Tape, record

ENDS = ("sigmoid", "softmax")  # activations behind which Keras finds the logits


class Step:
    """A model with its loss; with an optimizer too it can be trained.

    Raises ValueError for a model that cannot be trained so, before anything is computed.
    """

    def __init__(self, model: Model, loss: Loss, optimizer: Optimizer | None = None) -> None:
        self.model, self.loss, self.optimizer = model, loss, optimizer
        if not isinstance(model.graph.outputs, Ref):
            raise ValueError(
                f"{model.who}: returns {model.output_count} arrays, expected one, because there is"
                " one loss"
            )
        inner = every_layer(model)
        self.weights = model.trainable_weights
        if optimizer is not None:
            _check_trainable(model, inner, self.weights)
        bare = _without_end(model) if loss.takes_logits else None
        self.run, self.from_logits = bare or model, bare is not None
        self._stateful = [layer for layer in inner if isinstance(layer, RNN) and layer.stateful]
        self._seeds = [vars(layer)["_seeds"] for layer in inner if "_seeds" in vars(layer)]
        self._prepared = [
            layer for layer in inner if type(layer).weights_changed is not Layer.weights_changed
        ]

    def forward(self, x: Any, training: bool) -> Tape:
        """A call on a batch, up to the logits where the loss takes them."""
        return record(self.run, x, training=training)

    def targets(self, y: Any, tape: Tape, rows: int | None = None) -> Array:
        """Targets as the loss takes them, for the outputs of `tape`, or more `rows` of such."""
        outputs = np.asarray(tape.outputs)
        batch = len(outputs) if rows is None else rows
        if not batch:
            raise ValueError(
                f"{self.model.who}: the batch has no rows, expected at least one, because the mean"
                " over none is no loss"
            )
        return self.loss.targets(y, (batch, *outputs.shape[1:]), outputs.dtype)

    def reduced(self, y: Array, tape: Tape) -> tuple[float, Array]:
        """The loss, and its gradient by the outputs of `tape`."""
        outputs = np.asarray(tape.outputs)
        return self.loss.reduced(y, outputs, mask_of(tape.outputs), self.from_logits)

    def update(self, x: Any, y: Any) -> float:
        """The loss of a batch before the update that it makes.

        Raises ValueError or TypeError for targets that do not fit, and FloatingPointError where the
        loss or a gradient is not finite, saying where it arose. Then nothing is changed: neither a
        weight nor a state that is carried, nor the random numbers of dropout.
        """
        assert self.optimizer is not None
        before = self.remembered()
        try:
            tape = self.forward(x, training=True)
            value, dy = self.reduced(self.targets(y, tape), tape)
            if not math.isfinite(value):
                raise FloatingPointError(f"the loss is {value}")
            gradients = tape.of_weights(dy, self.weights)
            try:
                self.optimizer.apply(gradients, self.weights)
            except FloatingPointError as error:
                raise FloatingPointError(self._bad_gradient(gradients)) from error
        except FloatingPointError as error:
            self.recall(before)
            arose = origin(self.model, x)
            self.recall(before)
            words = arose or "all outputs are finite, so it arose in the loss or on the way back"
            raise FloatingPointError(f"{error}: {words}") from None
        except BaseException:
            self.recall(before)
            raise
        for layer in self._prepared:
            layer.weights_changed()
        return value

    def _bad_gradient(self, gradients: list[Array]) -> str:
        names = {id(w): n for n, w in self.model._named_weights()}
        for weight, gradient in zip(self.weights, gradients, strict=True):
            if not np.isfinite(gradient).all():
                return f"the gradient of {names[id(weight)]} is not finite"
        return "the gradients are not finite once they are clipped"

    def remembered(self) -> tuple[list[Any], list[int]]:
        """What stateful layers carry, and how often dropout drew."""
        return [layer._carried for layer in self._stateful], [seeds.count for seeds in self._seeds]

    def forget(self) -> None:
        """Let stateful layers carry nothing, for any number of rows."""
        for layer in self._stateful:
            layer._carried = None

    def recall(self, before: tuple[list[Any], list[int]]) -> None:
        for layer, carried in zip(self._stateful, before[0], strict=True):
            layer._carried = carried
        for seeds, count in zip(self._seeds, before[1], strict=True):
            seeds.count = count


def _check_trainable(model: Model, inner: list[Layer], weights: list[Array]) -> None:
    if not weights:
        frozen = [layer.who for layer in inner if not layer.trainable]
        why = f"; trainable is False in {', '.join(frozen)}" if frozen else ""
        raise ValueError(
            f"{model.who}: has no weights to train, expected at least one{why}, because an update"
            " would change nothing"
        )
    dtypes = {w.dtype for w in weights}
    if len(dtypes) > 1 or not dtypes <= {np.dtype("float32"), np.dtype("float64")}:
        raise ValueError(
            f"{model.who}: the weights to train have dtypes {', '.join(sorted(map(str, dtypes)))},"
            " expected float32 alone or float64 alone, because an update is made in one dtype"
        )
    for layer in inner:
        if isinstance(layer, ActivityRegularization):
            raise ValueError(
                f"{layer.who}: is in the model, expected none such, because penalties are no part"
                " of training here"
            )
        kind: Any = type(layer)
        for name in _penalties(kind):
            value = getattr(layer, name, None)
            if value is not None:
                raise ValueError(
                    f"{layer.who}: {name} is {value!r}, expected None, because neither penalties"
                    " nor constraints are part of training here"
                )


@cache
def _penalties(kind: type[Layer]) -> tuple[str, ...]:
    """The arguments of layers of a class that act in training, and only there."""
    names = kind.ARGUMENTS | kind.KEYWORDS
    return tuple(name for name in names if name.endswith(("regularizer", "constraint")))


def _without_end(model: Model) -> Model | None:
    """The model up to what its last sigmoid or softmax is given; None where it has no such end.

    It shares its layers, and so its weights and states, with the model.
    """
    graph = model.graph
    node = next(n for n in graph.nodes if (n.layer.name, n.call) == graph.outputs[:2])
    layer: Layer | None = None
    if isinstance(node.layer, Model):
        layer = _without_end(node.layer)
    elif isinstance(node.layer, Softmax) and node.layer.axis == -1 and not node.kwargs:
        layer = Activation("linear", name=node.layer.name, dtype=node.layer.dtype)
    elif not isinstance(node.layer, RNN) and _end(node.layer) in ENDS:
        layer = copy.copy(node.layer)
        vars(layer)["activation"] = activations.get("linear")
    if layer is None:
        return None
    nodes = [Node(layer, n.call, n.args, n.kwargs) if n is node else n for n in graph.nodes]
    return Model.of_graph(model.name, graph._replace(nodes=nodes), model.trainable)


def _end(layer: Layer) -> str | None:
    return getattr(getattr(layer, "activation", None), "name", None)
