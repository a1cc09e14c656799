"""Where in a model a number that is not finite arose: layer, gate, row, step and unit."""

from typing import Any

import numpy as np

from refrnn import checks, reference
from refrnn.gates import Array
from refrnn.layers import Layer, context
from refrnn.layers.masks import leaves, mask_of
from refrnn.layers.recurrent import Recurrent
from refrnn.layers.subclassing import names_of
from refrnn.models import Model, Node
from refrnn.models.graph import map_refs


class _Found(Exception):
    """The words that say where it was."""


def origin(model: Model, inputs: Any, training: bool = True) -> str | None:
    """The first NaN or infinity in a call of `model` on `inputs`, in words; None if there is none.

    The call is made once more: a stateful model goes on, and dropout draws.
    """
    try:
        for item, array in zip(model.inputs, model.arrays(inputs), strict=True):
            bad = _first(array)
            if bad is not None:
                return f"input {item.name!r} is {bad}"
        with context.of(context.training, training), reference.QUIET():
            model.values(inputs, None, _watched)
    except _Found as found:
        return str(found)
    return None


def _watched(node: Node, args: Any, kwargs: dict[str, Any]) -> Any:
    """A call of a layer; raises _Found for what is not finite in its weights and its outputs."""
    layer, training = node.layer, context.training.get()
    if isinstance(layer, Model):
        values = layer.values(args[0], kwargs.get("mask"), _watched)
        return map_refs(values.__getitem__, layer.graph.outputs)
    for name, weight in zip(layer.weight_names, layer.weights, strict=True):
        bad = _first(weight)
        if bad is not None:
            raise _Found(f"{layer.who}: weight {name} is {bad}")
    names = names_of(type(layer).call)
    given = dict(zip(names, args, strict=False)) | kwargs
    if isinstance(layer, Recurrent):
        _watch_gates(layer, given, bool(training))
    if "training" in names:
        given["training"] = training
    outputs = layer(**given)
    for output in leaves(outputs):
        bad = _first(output)
        if bad is not None:
            raise _Found(f"{layer.who}: its output is {bad}, of finite inputs and weights")
    return outputs


def _watch_gates(layer: Recurrent, given: dict[str, Any], training: bool) -> None:
    """Raise _Found for the first gate, in the order of the equations, at the first step."""
    xs = layer._sequence(given["sequences"])
    B, T, F = xs.shape
    own = given.get("mask")
    mask = checks.mask(layer.who, mask_of(given["sequences"]) if own is None else own, B, T)
    state = layer._start(given.get("initial_state"), B)
    seeds = layer.cell._seeds
    drawn = seeds.count
    cell = layer.cell.drawn(B, F, training)
    seeds.count = drawn  # the call draws the same
    trace: Any = reference.trace(
        cell, layer.cell.arrays, xs, state, mask=mask, go_backwards=layer.go_backwards
    )
    live = np.ones((B, T), bool) if mask is None else mask
    live = live[:, ::-1] if layer.go_backwards else live
    sums = {f"the sum of gate {name}": part for name, part in trace.pre._asdict().items()}
    rest = {
        f"{'state' if name in state._fields else 'gate'} {name}": getattr(trace, name)
        for name in trace._fields
        if name != "pre"
    }
    firsts = []
    for order, (name, values) in enumerate((sums | rest).items()):
        bad = live & ~np.isfinite(values).all(axis=2)
        if bad.any():
            step = int(np.flatnonzero(bad.any(axis=0))[0])
            firsts.append((step, order, name, values, bad))
    if not firsts:
        return
    step, _, name, values, bad = min(firsts, key=lambda first: first[:2])
    row = int(np.flatnonzero(bad[:, step])[0])
    unit = int(np.flatnonzero(~np.isfinite(values[row, step]))[0])
    time = T - 1 - step if layer.go_backwards else step
    raise _Found(
        f"{layer.who}: {name} is {values[row, step, unit]} at step {time}, row {row}, unit {unit}"
    )


def _first(values: Array) -> str | None:
    """The first of `values` that is not finite, and where it is."""
    array = np.asarray(values)
    if not checks.is_float(array.dtype):
        return None
    bad = ~np.isfinite(array)
    if not bad.any():
        return None
    where = [int(k) for k in np.argwhere(bad)[0]]
    return f"{array[tuple(where)]} at {where}"


def every_layer(layer: Layer) -> list[Layer]:
    """A layer and all that are inside, each once."""
    found: dict[int, Layer] = {}
    waiting = [layer]
    while waiting:
        one = waiting.pop()
        if id(one) not in found:
            found[id(one)] = one
            waiting += [part for _, part in reversed(one.parts())]
    return list(found.values())
