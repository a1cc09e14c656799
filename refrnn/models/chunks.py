"""Models over sequences in chunks: which can be cut, and what is handed from chunk to chunk."""

from collections.abc import Callable, Sequence
from typing import Any

from refrnn.gates import Array
from refrnn.layers import LAYERS, RNN, Embedding, Layer
from refrnn.layers.masks import leaves, mask_of
from refrnn.layers.subclassing import names_of
from refrnn.models.graph import Graph, Node, Ref, is_model, map_refs, refs, run

# what each recurrent layer, or model inside, hands on, by its name and the number of the call
Memories = dict[tuple[str, int], Any]

# What an array is to a chunk: STEPS has a time axis, END is what came of the steps so far, and
# GIVEN is the same for all chunks.
STEPS, END, GIVEN = "steps", "end", "given"


class Whole(Exception):
    """A model cannot be run in chunks; the message says why."""


def check(graph: Graph) -> None:
    """Raise `Whole` where sequences cannot be cut into chunks."""
    ids = {ref.layer for node in graph.nodes for ref in _ids(node)}
    kinds_of(
        graph,
        [
            STEPS if item.shape is None or len(item.shape) > 2 or item.name in ids else GIVEN
            for item in graph.inputs
        ],
    )


def _ids(node: Node) -> list[Ref]:
    """What a call takes as sequences of ids."""
    if isinstance(node.layer, Embedding):
        return refs([list(node.args), node.kwargs])
    return _inside(node, _ids)


def _inside(node: Node, find: Callable[[Node], list[Ref]]) -> list[Ref]:
    """What a call of a model takes and `find` finds among the calls in that model."""
    layer: Any = node.layer
    if not is_model(layer):
        return []
    named = {ref.layer for call in layer.graph.nodes for ref in find(call)}
    given = _inputs(node)
    return [ref for item, ref in zip(layer.inputs, given, strict=True) if item.name in named]


def _inputs(node: Node) -> list[Ref]:
    """What a call of a model takes, in the order of the model's inputs."""
    layer: Any = node.layer
    return refs(layer.in_order(_named(layer, node.args, node.kwargs)["inputs"]))


def _named(layer: Layer, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call, by name."""
    return dict(zip(names_of(type(layer).call), args, strict=False)) | kwargs


def kinds_of(graph: Graph, given: list[str]) -> list[str]:
    """The kinds of the outputs for inputs of the kinds `given`."""
    found = {(item.name, 0): [kind] for item, kind in zip(graph.inputs, given, strict=True)}

    def kind(ref: Ref) -> str:  # the last stands for all that follow
        kinds = found[ref.layer, ref.call]
        return kinds[min(ref.tensor, len(kinds) - 1)]

    for node in graph.nodes:
        found[node.layer.name, node.call] = _of_call(node, kind)
    return [kind(ref) for ref in refs(graph.outputs)]


def _of_call(node: Node, kind: Callable[[Ref], str]) -> list[str]:
    """The kinds of what a call returns."""
    layer: Any = node.layer
    given = _named(layer, node.args, node.kwargs)
    came = [(kind(ref), ref) for ref in refs([list(node.args), node.kwargs])]
    if given.get("training"):
        raise Whole(f"{layer.who} is called with training=True, and chunks are run in inference")
    if is_model(layer):
        try:
            return kinds_of(layer.graph, [kind(ref) for ref in _inputs(node)])
        except Whole as why:
            raise Whole(f"in {layer.who}, {why}") from None
    if layer.mixes_time:
        raise Whole(f"{layer.who} mixes time steps")
    if isinstance(layer, RNN):
        if layer.stateful and node.call:
            raise Whole(f"{layer.who} is stateful and called twice: the second continues the first")
        if layer.go_backwards:
            raise Whole(f"{layer.who} runs backwards, so its first output needs the last input")
        for ref in refs([given["sequences"]]):
            if kind(ref) != STEPS:
                raise Whole(f"{layer.who} runs over {ref.layer!r}, whose steps are not the input's")
        start = refs([given.get("initial_state")])
        late = [ref.layer for ref in start if kind(ref) != GIVEN]
        if late:
            raise Whole(f"{layer.who} starts from a state that {late[0]!r} ends with")
        return [STEPS if layer.return_sequences else END, END]
    if type(layer) not in LAYERS.values() and "mixes_time" not in _said(layer):
        raise Whole(
            f"{layer.who} is not one of refrnn's layers and does not say whether it mixes time"
            " steps: set mixes_time = False in its class if it does not"
        )
    steps, ends = ([ref for k, ref in came if k == wanted] for wanted in (STEPS, END))
    if steps and ends:
        raise Whole(f"{layer.who} takes each step together with what {ends[0].layer!r} ends with")
    return [END if ends else STEPS if steps else GIVEN]


def _said(layer: Layer) -> set[str]:
    """What the classes of a layer that are not refrnn's define."""
    return {
        name
        for kind in type(layer).__mro__[: type(layer).__mro__.index(Layer)]
        for name in vars(kind)
    }


def timed(graph: Graph, arrays: Sequence[Array]) -> list[bool]:
    """For each of the inputs, whether it has a time axis, the second: sequences, ids and masks."""
    found = {ref.layer for node in graph.nodes for ref in [*_ids(node), *_masks(node)]}
    return [
        array.ndim > 2 or item.name in found
        for array, item in zip(arrays, graph.inputs, strict=True)
    ]


def _masks(node: Node) -> list[Ref]:
    """What a call takes as masks."""
    return [*refs([node.kwargs.get("mask"), *node.args[2:3]]), *_inside(node, _masks)]


def advance(graph: Graph, arrays: Sequence[Any], memories: Memories | None) -> tuple[Any, Memories]:
    """What the graph returns for a chunk, and the memories to go on from; changes nothing."""
    after: Memories = {}

    def call(node: Node, args: Any, kwargs: dict[str, Any]) -> Any:
        layer: Any = node.layer
        key = layer.name, node.call
        before = (memories or {}).get(key)
        if is_model(layer):
            named = _named(layer, args, kwargs)
            arrays = layer.arrays(named["inputs"], named.get("mask"))
            output, after[key] = advance(layer.graph, arrays, before)
            return output
        if not isinstance(layer, RNN):
            return layer(*args, **kwargs)
        given = _named(layer, args, kwargs)
        given.pop("training", None)
        start = given.pop("initial_state", None)
        sequences = given["sequences"]
        explicit, came = given.get("mask"), mask_of(leaves(sequences)[0])
        if start is None and explicit is None:  # as in a call: a state switches the mask off
            given["mask"] = came
        if before is None:
            before = layer.start(len(leaves(sequences)[0]), start)
        output, after[key] = layer.advance(memory=before, **given)
        previous = came if explicit is None else explicit
        return output if previous is None else layer.with_masks(output, sequences, previous)

    values = run(graph, arrays, call)
    return map_refs(values.__getitem__, graph.outputs), after
