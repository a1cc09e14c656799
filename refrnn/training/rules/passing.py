"""A call of one layer, and the way back through it: what all rules have in common.

Nothing is checked here but whether there is a rule: the layers check what they are called on, and
`refrnn.training.record` what goes back.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers import Layer, context
from refrnn.layers.masks import leaves, map_arrays, mask_of
from refrnn.layers.subclassing import names_of


class Sums:
    """The gradients of weights, added up over all calls of the layers that have them.

    inputs  whether the gradients of the input are asked for too; a rule that `spares` them need
            not make them where they are not
    """

    def __init__(self, inputs: bool = True) -> None:
        self.inputs = inputs
        self._found: dict[int, tuple[Array, Array]] = {}

    def asked(self, inputs: bool) -> "Sums":
        """The same sums for another layer, whose inputs' gradients are asked for or not."""
        if inputs == self.inputs:
            return self
        other = Sums(inputs)
        other._found = self._found
        return other

    def add(self, weight: Array | None, gradient: Array | None) -> None:
        """One more part of the gradient of a weight; nothing for a weight that is not there."""
        if weight is None or gradient is None:
            return
        part = np.asarray(gradient, weight.dtype)
        _, known = self._found.get(id(weight), (weight, None))
        self._found[id(weight)] = weight, part if known is None else known + part

    def of(self, weight: Array) -> Array:
        """The gradient of a weight: zeros where nothing came."""
        _, found = self._found.get(id(weight), (weight, None))
        return np.zeros_like(weight) if found is None else found


class Flow(NamedTuple):
    """What comes out of a call, going back.

    inputs  by the name of an argument the gradient of each array in it, in order; None for none
    start   of the memory that the call began with; None for a layer without one
    """

    inputs: Mapping[str, Sequence[Array | None]]
    start: Any = None


# (the gradient of each array that was returned, where weights' go, that of the memory) -> Flow
Back = Callable[[list[Any], Sums, Any], Flow]


class Passed(NamedTuple):
    """A call that was made.

    outputs  what the layer returns, with its masks
    back     the way back
    memory   what a recurrent layer hands on to the next chunk; None for the others
    """

    outputs: Any
    back: Back
    memory: Any = None


def anything(layer: Layer, training: bool) -> None:
    """The check of a layer that gradients go back through whatever its settings."""


class Rule(NamedTuple):
    """How gradients go back through the layers of one class.

    run     (layer, arguments of call by name, memory or None) -> Passed
    check   (layer, training): raises ValueError for a layer that they cannot go back through
    spares  whether the way back heeds `Sums.inputs`: it is False for no others
    """

    run: Callable[[Any, dict[str, Any], Any], Passed]
    check: Callable[[Any, bool], None] = anything
    spares: bool = False


RULES: dict[type[Layer], Rule] = {}


def check(layer: Layer, training: bool) -> None:
    """Raise ValueError, naming the layer and why, where there is no way back through it."""
    rule = RULES.get(type(layer))
    if rule is None:
        raise ValueError(
            f"{layer.who}: there are no gradients of {type(layer).__name__}, expected one of"
            f" {', '.join(sorted(kind.__name__ for kind in RULES))}, because its derivative is not"
            " known"
        )
    rule.check(layer, training)


def passed(layer: Any, given: dict[str, Any], memory: Any = None) -> Passed:
    """A call of `layer` with the arguments `given`, as `layer(**given)` makes it, and the way back.

    The training mode is that of the call around.
    """
    names, training = names_of(type(layer).call), context.training.get()
    if training is not None and "training" in names:
        given = {**given, "training": training}
    made = RULES[type(layer)].run(layer, given | layer._masks(names, given), memory)
    outputs = leaves(made.outputs)

    def back(dys: Sequence[Array | None], sums: Sums, dmemory: Any) -> Flow:
        return made.back(
            [
                np.zeros_like(np.asarray(y)) if dy is None else np.asarray(dy, y.dtype)
                for y, dy in zip(outputs, dys, strict=True)
            ],
            sums,
            dmemory,
        )

    return made._replace(back=back)


def masked(layer: Layer, outputs: Any, first: Any, given: dict[str, Any]) -> Any:
    """The outputs of a call on `first` with their masks, as `Layer.__call__` attaches them."""
    explicit = given.get("mask")
    previous = explicit if explicit is not None else map_arrays(mask_of, first)
    if all(leaf is None for leaf in leaves(previous)):
        return outputs
    return layer.with_masks(outputs, first, previous)


# (layer, arguments, output, gradient of the output) -> gradients of the inputs and of the weights
Local = Callable[[Any, dict[str, Any], Array, Array], tuple[Any, Sequence[Array | None]]]


def local(back: Local) -> Callable[[Any, dict[str, Any], Any], Passed]:
    """How a layer is run whose way back needs no more than what it was given and returned.

    back  (layer, arguments, output, its gradient) -> the gradient of the input, in a list where
          it takes several, and that of each of `layer.weights`
    """

    def run(layer: Any, given: dict[str, Any], memory: Any) -> Passed:
        y = layer(**given)

        def way_back(dys: list[Array], sums: Sums, dmemory: Any) -> Flow:
            dx, dweights = back(layer, given, np.asarray(y), dys[0])
            for weight, gradient in zip(layer.weights, dweights, strict=True):
                sums.add(weight, gradient)
            return Flow({"inputs": dx if isinstance(dx, list) else [dx]})

        return Passed(y, way_back)

    return run


def numbers(layer: Any, given: dict[str, Any]) -> Array:
    """The input in the layer's dtype, as the layer takes it."""
    return checks.numbers(layer.who, "the input", given["inputs"], layer.dtype)


def unchanged(layer: Any, given: dict[str, Any], y: Array, dy: Array) -> tuple[Array, list[Any]]:
    """The way back of a layer that returns its input."""
    return dy, []
