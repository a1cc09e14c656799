"""The way back through a model: its layers in the order opposite to that of the call."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers import Layer
from refrnn.layers.masks import leaves
from refrnn.layers.subclassing import names_of
from refrnn.models import Model, Node, Ref
from refrnn.models.graph import map_refs, refs
from refrnn.training.rules.passing import RULES, Flow, Passed, Rule, Sums, check, passed


def check_parts(layer: Layer, training: bool) -> None:
    """Refuse a layer for what is inside it."""
    for _, part in layer.parts():
        check(part, training)


def model(layer: Model, given: dict[str, Any], memory: dict[Any, Any] | None) -> Passed:
    """The rule: of a model the memory is a dictionary, by layer and call."""
    made: list[tuple[Node, dict[str, Any], Passed]] = []

    def call(node: Node, args: Any, kwargs: dict[str, Any]) -> Any:
        names = names_of(type(node.layer).call)
        before = (memory or {}).get((node.layer.name, node.call))
        found = passed(node.layer, dict(zip(names, args, strict=False)) | kwargs, before)
        made.append((node, dict(zip(names, node.args, strict=False)) | node.kwargs, found))
        return found.outputs

    values = layer.values(given["inputs"], given.get("mask"), call)
    graph = layer.graph
    after = {(n.layer.name, n.call): p.memory for n, _, p in made if p.memory is not None}

    def back(dys: list[Array], sums: Sums, dmemory: dict[Any, Any] | None) -> Flow:
        found: dict[Ref, Array] = {}

        def add(ref: Ref, part: Array | None) -> None:
            value = values[ref]
            if part is not None and checks.is_float(value.dtype):
                new = np.asarray(part, value.dtype)
                found[ref] = found[ref] + new if ref in found else new

        for ref, dy in zip(refs(graph.outputs), dys, strict=True):
            add(ref, dy)
        starts = {}
        for node, named, step in reversed(made):
            key = node.layer.name, node.call
            outputs = [Ref(*key, k) for k in range(len(leaves(step.outputs)))]
            dmine = (dmemory or {}).get(key)
            needed = sums.inputs or not RULES[type(node.layer)].spares or _inside(layer, node)
            dys_here = [found.get(ref) for ref in outputs]
            flow = step.back(dys_here, sums.asked(needed), dmine)
            if flow.start is not None:
                starts[key] = flow.start
            for name, parts in flow.inputs.items():
                for end, part in zip(_ends(named[name]), parts, strict=True):
                    if isinstance(end, Ref):
                        add(end, part)
        dinputs = [found.get(Ref(item.name, 0, 0)) for item in graph.inputs]
        return Flow({"inputs": _as_given(layer, given["inputs"], dinputs)}, starts or None)

    return Passed(map_refs(values.__getitem__, graph.outputs), back, after or None)


def _inside(layer: Model, node: Node) -> bool:
    """Whether a layer of a model is called on what another has made."""
    inputs = {item.name for item in layer.graph.inputs}
    return any(ref.layer not in inputs for ref in refs([node.args, node.kwargs]))


def _ends(structure: Any) -> list[Any]:
    """The leaves of the arguments of a call, in the order of `masks.leaves`; a Ref is one."""
    if isinstance(structure, Ref) or not isinstance(structure, list | tuple | dict):
        return [structure]
    parts = [structure[k] for k in sorted(structure)] if isinstance(structure, dict) else structure
    return [end for part in parts for end in _ends(part)]


def _as_given(layer: Model, given: Any, gradients: list[Array | None]) -> list[Array | None]:
    """Gradients of the model's inputs as those of the arrays that it was given, in their order."""
    shaped = [
        None if gradient is None else gradient.reshape(np.shape(array))
        for array, gradient in zip(layer.in_order(given), gradients, strict=True)
    ]
    if not isinstance(given, Mapping):
        return shaped
    named = {item.name: part for item, part in zip(layer.inputs, shaped, strict=True)}
    return [named[name] for name in sorted(named)]


MODEL = Rule(model, check_parts, spares=True)
