"""The loss by a target, and its gradient as it reaches a recurrent layer of a model."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refrnn.gates import Array
from refrnn.layers import context
from refrnn.models import Model
from refrnn.models.graph import Graph, InputSpec, Node, Ref, map_refs, refs, run
from refrnn.study.recurrent import Seen
from refrnn.training.losses import MeanSquaredError
from refrnn.training.tape import gradients


class Wanted:
    """What the output of a model should have been.

    target  of the shape and dtype of the output
    loss    the mean squared error over all rows, steps and numbers

    Raises ValueError for a target of another shape or not finite, and for a model with several
    outputs; TypeError for what is not real numbers.
    """

    target: Array
    loss: float

    def __init__(self, model: Any, inputs: Sequence[Array], target: Any) -> None:
        self._model: Any = copy.deepcopy(model)
        if hasattr(self._model, "reset_states"):
            self._model.reset_states()
        x = list(inputs)
        with context.of(context.training, False):
            if isinstance(self._model, Model):
                arrays = self._model.arrays(x if len(x) > 1 else x[0])
                self._values = run(
                    self._model.graph,
                    arrays,
                    lambda node, args, kwargs: node.layer(*args, **kwargs),
                )
                y = map_refs(self._values.__getitem__, self._model.graph.outputs)
            else:
                y = self._model(x[0])
        if not isinstance(y, np.ndarray):
            raise ValueError(
                f"{model.who}: returns several arrays, expected one, because the target is one"
            )
        loss, y = MeanSquaredError(), np.asarray(y)
        self.target = loss.targets(target, y.shape, y.dtype)
        self.loss, self._dy = loss.reduced(self.target, y, None)

    def reached(self, seen: Seen) -> dict[str, Any] | str:
        """dys, dlast_output and dstate of a layer, for `numbers.backward`; or why not, in words."""
        parts = [self._dy]
        if isinstance(self._model, Model):
            name, _, call = seen.name.partition("#")
            here = name, int(call or 1) - 1
            graph = self._model.graph
            if here not in [(node.layer.name, node.call) for node in graph.nodes]:
                return "the layer is inside of another one"
            try:
                parts = self._back_to(here)
            except ValueError as error:
                return str(error)
        y, *states = parts
        found = {"dys" if seen.layer.return_sequences else "dlast_output": y}
        return found | ({"dstate": states} if seen.layer.return_state else {})

    def _back_to(self, here: tuple[str, int]) -> list[Array]:
        """The gradients of what a call returned: those of the inputs of all that comes after it."""
        tail, given = _after(self._model.graph, here, self._values)
        inputs = gradients(tail, [self._values[ref] for ref in given], self._dy).inputs
        found = {ref: inputs[k] for k, ref in enumerate(given)}
        parts = []
        for ref in sorted(ref for ref in self._values if ref[:2] == here):
            part = found.get(ref)
            parts.append(np.zeros_like(np.asarray(self._values[ref])) if part is None else part)
        return parts


def _after(
    graph: Graph, here: tuple[str, int], values: Mapping[Ref, Array]
) -> tuple[Model, list[Ref]]:
    """A model of what comes after a call, and what it takes: what the call returned, and the rest.

    values  everything that the graph computes

    Raises ValueError where the outputs do not depend on the call.
    """
    later: list[Node] = []
    known = {here}
    for node in graph.nodes:
        if any(ref[:2] in known for ref in refs([node.args, node.kwargs])):
            later.append(node)
            known.add((node.layer.name, node.call))
    taken = refs([[node.args, node.kwargs] for node in later] + [graph.outputs])
    made = {(node.layer.name, node.call) for node in later}
    given = list(dict.fromkeys(ref for ref in taken if ref[:2] not in made))
    if here not in [ref[:2] for ref in given]:
        raise ValueError("the output does not depend on it")
    renamed = {ref: Ref(f"given {k}", 0, 0) for k, ref in enumerate(given)}

    def rename(structure: Any) -> Any:
        return map_refs(lambda ref: renamed.get(ref, ref), structure)

    nodes = [n._replace(args=rename(n.args), kwargs=rename(n.kwargs)) for n in later]
    layers = list(dict.fromkeys(node.layer for node in nodes))
    specs = [InputSpec(new.layer, None, str(values[ref].dtype)) for ref, new in renamed.items()]
    return Model.of_graph("after", Graph(specs, nodes, rename(graph.outputs), layers)), given
