"""The recurrent layers at work inside a model: what goes into each, as a case for other libraries.

Layers of the three kinds are shown, alone or in a Bidirectional, in models inside models, and an
RNN over one of the three cells. Others are named.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from refrnn.activations import ACTIVATIONS
from refrnn.cases import Arrays, Case
from refrnn.gates import Array
from refrnn.layers import RNN, Bidirectional, GRUCell, Layer, LSTMCell, SimpleRNNCell
from refrnn.layers.masks import leaves, mask_of
from refrnn.layers.subclassing import names_of
from refrnn.models import Model
from refrnn.models.graph import Node, is_model, map_refs, run

KINDS: dict[type[Layer], str] = {SimpleRNNCell: "SimpleRNN", GRUCell: "GRU", LSTMCell: "LSTM"}
CHOICES = ("activation", "recurrent_activation", "use_bias", "reset_after")  # of a cell
TURNS = ("go_backwards", "zero_output_for_mask")  # of a layer, where they are True


class Inner(NamedTuple):
    """A recurrent layer of a model, alone.

    name    its name, after those of the models and layers that it is in
    case    the layer, its options and shapes; its seed and what is drawn from it mean nothing
    arrays  what stand in for that: its weights, and what it is given in the model
    """

    name: str
    case: Case
    arrays: Arrays


class Found(NamedTuple):
    """shown: the layers; others: what else is recurrent, in words."""

    shown: list[Inner]
    others: list[str]


def look(model: Model, inputs: Sequence[Array]) -> Found:
    """What goes into the recurrent layers of `model` when it is run on `inputs`."""
    found = Found([], [])
    model.reset_states()
    _run(model, "", inputs, found)
    model.reset_states()
    return found


def kind_of(mask: Array | None) -> str | None:
    """The kind of `Case.mask` that a mask (B, T) of booleans is; None where no step is masked."""
    if mask is None or mask.all():
        return None
    if not mask.any():
        return "all"
    if not mask.any(1).all():
        return "row"
    if (mask[:, :-1] >= mask[:, 1:]).all():
        return "right"
    return "left" if (mask[:, :-1] <= mask[:, 1:]).all() else "holes"


def _run(model: Any, before: str, arrays: Sequence[Array], found: Found) -> Any:
    """The outputs of a model; its recurrent layers are added to what was found."""

    def call(node: Node, args: Any, kwargs: dict[str, Any]) -> Any:
        layer: Any = node.layer
        name = f"{before}{layer.name}" + (f" (call {node.call + 1})" if node.call else "")
        named = dict(zip(names_of(type(layer).call), args, strict=False)) | kwargs
        if is_model(layer):
            given = layer.arrays(named["inputs"], named.get("mask"))
            return _run(layer, f"{name}.", given, found)
        if isinstance(layer, RNN | Bidirectional):
            _add(name, layer, named, found)
        elif any(isinstance(part, RNN | Bidirectional) for part in _within(layer)):
            found.others.append(f"{name}, a {type(layer).__name__} of recurrent layers")
        return layer(*args, **kwargs)

    values = run(model.graph, arrays, call)
    return map_refs(values.__getitem__, model.graph.outputs)


def _within(layer: Any) -> list[Any]:
    parts = [part for _, part in layer.parts()]
    return [deeper for part in parts for deeper in (part, *_within(part))]


def _add(name: str, layer: Any, named: dict[str, Any], found: Found) -> None:
    """One call of a recurrent layer; a Bidirectional is two of them."""
    xs, mask, start = (named.get(n) for n in ("sequences", "mask", "initial_state"))
    if mask is None and start is None:  # as in a call: a state switches the mask off
        mask = mask_of(leaves(xs)[0])
    ways = {name: (layer, start)}
    if isinstance(layer, Bidirectional):
        count = layer.forward_layer.state_count
        starts = (None, None) if start is None else (start[:count], start[count:])
        ways = {
            f"{name}.forward": (layer.forward_layer, starts[0]),
            f"{name}.backward": (layer.backward_layer, starts[1]),
        }
    for title, (one, state) in ways.items():
        options = _options(one)
        if options is None or not isinstance(xs, np.ndarray):
            cell = type(one.cell).__name__
            found.others.append(f"{title}, a {type(one).__name__} of {cell}")
            continue
        carried = one.states if state is None else leaves(state)
        arrays = Arrays(
            one.get_weights() if one.built else [],
            np.ascontiguousarray(xs, one.dtype),
            None if carried is None else [np.ascontiguousarray(a, one.dtype) for a in carried],
            None if kind_of(_bools(mask)) is None else _bools(mask),
        )
        rows, steps, features = arrays.x.shape
        case = Case(
            KINDS[type(one.cell)],
            rows,
            steps,
            features,
            one.cell.units,
            one.dtype.name,
            kind_of(arrays.mask),
            arrays.state is not None,
            options=options,
        )
        found.shown.append(Inner(title, case, arrays))


def _bools(mask: Any) -> Array | None:
    return None if mask is None else np.asarray(mask) != 0


def _options(layer: Any) -> dict[str, Any] | None:
    """The options of a layer's case, those that differ from the defaults; None if it is no case."""
    if type(layer.cell) not in KINDS:
        return None
    config, standard = layer.cell.get_config(), type(layer.cell)(1).get_config()
    told = {n: config[n] for n in CHOICES if n in config and config[n] != standard[n]}
    if any(told[n] not in ACTIVATIONS for n in CHOICES[:2] if n in told):
        return None
    return told | {n: True for n in TURNS if getattr(layer, n)}
