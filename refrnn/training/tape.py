"""`record` runs a model or a layer and keeps the way back, which `Tape.back` takes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers import RNN, Layer, context
from refrnn.layers.masks import leaves
from refrnn.layers.rnn import Memory
from refrnn.layers.states import alike
from refrnn.layers.subclassing import names_of
from refrnn.models import Model
from refrnn.reference import QUIET
from refrnn.training.rules.passing import RULES, Flow, Passed, Sums, check, passed


class ModelGradients(NamedTuple):
    """The gradients of a loss by all that went into the call of a model or a layer.

    weights  that of each of `trainable_weights`, in their order
    inputs   that of each input, in the order of `model.inputs`; of a layer that of each array it
             was called on. None for ids and masks, which are whole numbers or truth values
    states   of what the call began with, in the form of `Tape.memory`
    """

    weights: list[Array]
    inputs: list[Array | None]
    states: Any


class Tape:
    """A call that was made, and the way back through it, which can be gone more than once.

    outputs  what the model or layer returned
    memory   what its recurrent layers hand on to the next chunk: a `layers.rnn.Memory` of one
             layer; of a model a dictionary of them by (name, number of the call). None where there
             is no recurrent layer
    """

    def __init__(self, layer: Layer, given: list[Any], made: Passed) -> None:
        self.outputs, self.memory = made.outputs, made.memory
        self._layer, self._given, self._made = layer, given, made

    def back(self, dy: Any, dmemory: Any = None) -> ModelGradients:
        """The gradients, from those of what was returned.

        dy       the loss's gradient by each output, in the structure of `outputs`; None for zeros
        dmemory  that by `memory`: the `states` of the next chunk's gradients. Handed over chunk by
                 chunk, the last one first, they make the gradients those of the whole sequence;
                 without them no gradient goes from one chunk into the one before (truncated BPTT)

        Raises ValueError for a wrong number or shape, TypeError for a wrong dtype, before anything
        is computed.
        """
        sums = Sums()
        flow = self._back(dy, dmemory, sums)
        first = next(iter(flow.inputs.values()), [None] * len(self._given))
        inputs = [_input(x, part) for x, part in zip(self._given, first, strict=True)]
        weights = [sums.of(weight) for weight in self._layer.trainable_weights]
        return ModelGradients(weights, inputs, flow.start)

    def of_weights(self, dy: Any, weights: Sequence[Array]) -> list[Array]:
        """The gradients by some weights alone: `back(dy)`, without the time for those by inputs.

        weights  of the layer, the arrays themselves, as in `trainable_weights`
        """
        sums = Sums(inputs=not RULES[type(self._layer)].spares)
        self._back(dy, None, sums)
        return [sums.of(weight) for weight in weights]

    def _back(self, dy: Any, dmemory: Any, sums: Sums) -> Flow:
        who = self._layer.who
        dys = _given_back(who, dy, self.outputs)
        if dmemory is not None:
            _check_memory(who, dmemory, self.memory)
        if all(part is None for part in dys) and dmemory is None:
            raise ValueError(
                f"{who}: dy and dmemory are None, expected at least one gradient, because without"
                " one to begin with every gradient is zero"
            )
        with QUIET():
            return self._made.back(dys, sums, dmemory)


def record(
    layer: Any,
    x: Any,
    *,
    training: bool = False,
    mask: Any = None,
    initial_state: Any = None,
    memory: Any = None,
) -> Tape:
    """Run a model or a layer, as a call of it does, and keep what the way back needs.

    layer          a `refrnn.Model` or a layer; each layer in it must have a rule
    x              what it is called on
    training       True drops what Keras drops, by the masks that a call would draw
    mask           as the call takes it
    initial_state  of a recurrent layer, as the call takes it
    memory         what the chunk before handed on, `Tape.memory`; then what stateful layers carry
                   is neither used nor touched. None to begin as a call does: from initial_state,
                   from what stateful layers carry, which goes on as in a call, or from zeros

    A layer with recurrent_dropout, or with dropout and implementation=1, is run with its masks
    multiplied into its kernels: outputs differ from those of a call by rounding.

    The arrays that are given must not be written to, nor the weights changed, before the way back
    is gone: it uses both.

    Raises ValueError for a layer without a rule, by name, and for a mask, a state or a memory that
    it does not take, before anything is computed; and what the call raises.
    """
    if not isinstance(layer, Layer):
        raise ValueError(
            f"record: layer is {layer!r}, expected a refrnn model or layer, because gradients need"
            " a rule for each layer"
        )
    mode = checks.flag(layer.who, "training", training)
    check(layer, mode)
    names = names_of(type(layer).call)
    given = {names[0]: x}
    for name, value in (("mask", mask), ("initial_state", initial_state)):
        if value is None:
            continue
        if name not in names:
            raise ValueError(
                f"{layer.who}: {name} is given, expected None, because a call of"
                f" {type(layer).__name__} takes none"
            )
        given[name] = value
    if memory is not None:
        _check_chunks(layer, memory)
    with context.of(context.training, mode), QUIET():
        made = passed(layer, given, memory)
    return Tape(layer, _in_order(layer, x), made)


def gradients(
    layer: Any, x: Any, dy: Any, *, dmemory: Any = None, **options: Any
) -> ModelGradients:
    """`record`, with its options, and `Tape.back` in one call."""
    return record(layer, x, **options).back(dy, dmemory)


def _check_chunks(layer: Layer, memory: Any) -> None:
    """Refuse a memory where a call cannot go on from one."""
    reason: str | None = f"a {type(layer).__name__} hands nothing on"
    if isinstance(layer, Model):
        reason = layer.why_whole()
    elif isinstance(layer, RNN):
        reason = None
    if reason:
        raise ValueError(f"{layer.who} cannot be run in chunks: {reason}")
    form: type = dict if isinstance(layer, Model) else Memory
    if not isinstance(memory, form):
        raise ValueError(
            f"{layer.who}: memory is a {type(memory).__name__}, expected a {form.__name__}, what"
            " the tape of the chunk before has"
        )


def _input(given: Any, gradient: Array | None) -> Array | None:
    """The gradient of one input, of its shape and dtype."""
    x = np.asarray(given)
    if not checks.is_float(x.dtype):
        return None
    return np.zeros_like(x) if gradient is None else np.asarray(gradient, x.dtype)


def _in_order(layer: Layer, x: Any) -> list[Any]:
    """The arrays that a call is given, in the order in which gradients are returned."""
    return layer.in_order(x) if isinstance(layer, Model) else leaves(x)


def _given_back(who: str, dy: Any, outputs: Any) -> list[Array | None]:
    """The gradient of each output as an array of its shape; None for one of zeros."""
    wanted = leaves(outputs)
    if dy is None:
        return [None] * len(wanted)
    given = [dy]
    if isinstance(outputs, dict | list | tuple):
        given = leaves(dy)
        names = list(outputs) if isinstance(outputs, dict) else None
        fit = isinstance(dy, list | tuple) if names is None else isinstance(dy, dict)
        if not fit or len(given) != len(wanted) or (names and sorted(names) != sorted(dy)):
            raise ValueError(
                f"{who}: dy is {_form(dy)}, expected {_form(outputs)}, a gradient for each output"
            )
    return [
        _like(who, f"dy of output {k}" if len(wanted) > 1 else "dy", part, np.asarray(y))
        for k, (part, y) in enumerate(zip(given, wanted, strict=True))
    ]


def _form(structure: Any) -> str:
    if isinstance(structure, dict):
        return f"a dictionary of {', '.join(map(str, structure))}"
    if isinstance(structure, list | tuple):
        return f"a list of {len(leaves(structure))}"
    return f"an array {np.shape(structure)}"


def _like(who: str, what: str, given: Any, y: Array) -> Array | None:
    if given is None:
        return None
    found = checks.array(who, what, given)
    if found.shape != y.shape:
        raise ValueError(
            f"{who}: {what} has shape {found.shape}, expected {y.shape}, that of the output;"
            " it is never broadcast"
        )
    return checks.numbers(who, what, found, y.dtype)


def _check_memory(who: str, given: Any, memory: Any) -> None:
    if memory is None:
        raise ValueError(f"{who}: dmemory is given, expected None, because it hands nothing on")
    if not alike(memory, given):
        raise ValueError(
            f"{who}: dmemory is not of the form and shapes of the tape's memory, expected the"
            " states of the next chunk's gradients"
        )
