"""The graph of a model: calls of layers, and references to what they return."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from refrnn.layers import Layer
from refrnn.layers.masks import NESTED, leaves, map_arrays
from refrnn.layers.symbolic import Call, Symbol, symbols


class InputSpec(NamedTuple):
    """One input of a model. shape and dtype are as Keras declared them, the batch first."""

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str


class Ref(NamedTuple):
    """The output `tensor` of call number `call` of the layer (or input) called `layer`."""

    layer: str
    call: int
    tensor: int


class Node(NamedTuple):
    """One call of a layer; the arrays among its arguments are `Ref`s."""

    layer: Layer
    call: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Graph(NamedTuple):
    """What a model computes. outputs: `Ref`s, in the structure of what it returns."""

    inputs: list[InputSpec]
    nodes: list[Node]  # each after those it takes arrays from
    outputs: Any
    layers: list[Layer]  # in Keras's order, which is that of the weights


Values = dict[Ref, Any]


def is_model(layer: Layer) -> bool:
    """Whether a layer is a model, called inside another one."""
    return isinstance(getattr(layer, "graph", None), Graph)


def map_refs(function: Callable[[Ref], Any], structure: Any) -> Any:
    """`structure` with `function` of every Ref in it, dictionaries taken by sorted key."""
    if isinstance(structure, Ref):
        return function(structure)
    if not isinstance(structure, NESTED):
        return structure
    if not isinstance(structure, dict):
        return type(structure)([map_refs(function, part) for part in structure])
    parts = {name: map_refs(function, structure[name]) for name in sorted(structure)}
    return {name: parts[name] for name in structure}


def refs(structure: Any) -> list[Ref]:
    found: list[Ref] = []
    map_refs(found.append, structure)
    return found


def ordered(waiting: list[Node], inputs: list[InputSpec]) -> list[Node]:
    """The nodes, each after those it takes arrays from."""
    done = {(item.name, 0) for item in inputs}
    nodes: list[Node] = []
    while waiting:
        ready = [
            node
            for node in waiting
            if all(ref[:2] in done for ref in refs([node.args, node.kwargs]))
        ]
        if not ready:
            names = ", ".join(repr(node.layer.name) for node in waiting)
            raise ValueError(f"the graph cannot be ordered: {names} wait for one another")
        nodes += ready
        done |= {(node.layer.name, node.call) for node in ready}
        waiting = [node for node in waiting if node not in ready]
    return nodes


def as_executed(nodes: list[Node], outputs: Any) -> list[Node]:
    """The nodes in the order in which Keras computes them: those furthest from the outputs first.

    nodes  each after those it takes arrays from, as in the result

    The order shows where a layer that carries its state is called twice.
    """
    calls = {(node.layer.name, node.call): node for node in nodes}
    sources = {
        key: [ref[:2] for ref in refs([node.args, node.kwargs]) if ref[:2] in calls]
        for key, node in calls.items()
    }
    done: dict[tuple[str, int], None] = {}
    stack = [(ref[:2], False) for ref in reversed(refs(outputs)) if ref[:2] in calls]
    while stack:
        key, ready = stack.pop()
        if ready:
            done.setdefault(key)
        elif key not in done:
            stack.append((key, True))
            stack += [(parent, False) for parent in reversed(sources[key])]
    depths: dict[tuple[str, int], int] = {}
    of_layer: Counter[str] = Counter()
    for key in reversed(done):
        depth = max(depths.get(key, 0), of_layer[key[0]])
        depths[key] = of_layer[key[0]] = depth
        for parent in sources[key]:
            depths[parent] = max(depths.get(parent, 0), depth + 1)
    places = {key: k for k, key in enumerate(sorted(depths, key=lambda key: -depths[key]))}
    return sorted(nodes, key=lambda n: places.get((n.layer.name, n.call), len(places)))


def run(graph: Graph, arrays: Sequence[Any], call: Callable[[Node, Any, Any], Any]) -> Values:
    """Everything that is computed from `arrays`, one for each input: call(node, args, kwargs)."""
    values: Values = {
        Ref(item.name, 0, 0): array for item, array in zip(graph.inputs, arrays, strict=True)
    }
    for node in graph.nodes:
        args, kwargs = (map_refs(values.__getitem__, part) for part in (node.args, node.kwargs))
        for k, part in enumerate(leaves(call(node, args, kwargs))):
            values[Ref(node.layer.name, node.call, k)] = part
    return values


# --- from symbols ---


def trace_back(inputs: Any, outputs: Any) -> Graph:
    """The graph from `inputs` to `outputs`, symbols both, its layers in Keras's order.

    Raises ValueError where `inputs` are not `Input`s, or some that is needed is missing.
    """
    if isinstance(outputs, list) and len(outputs) == 1:
        outputs = outputs[0]  # as Keras does, the only output of a list is returned bare
    given = leaves(inputs)
    for symbol in given:
        if not isinstance(symbol, Symbol) or symbol.call is not None:
            raise ValueError(f"Model: inputs holds {symbol!r}, expected what layers.Input returned")
    asked = leaves(outputs)
    for symbol in asked:
        if not isinstance(symbol, Symbol):
            raise ValueError(
                f"Model: outputs holds {symbol!r}, expected what layers return when they are"
                " called on layers.Input"
            )
    if not given or not asked:
        raise ValueError("Model: no inputs or no outputs, expected at least one of each")
    order, first = _reached(given, asked)
    calls = [point for point in order if isinstance(point, Call)]
    layers = _by_depth(order, first)
    named = [*given, *layers]
    twice = [name for name, count in Counter(x.name for x in named).items() if count > 1]
    if twice:
        raise ValueError(f"Model: two layers are called {twice[0]!r}, expected unique names")
    counts: Counter[str] = Counter()
    numbers: dict[Call | None, int] = {None: 0}
    for call in sorted(calls, key=lambda call: call.serial):
        numbers[call] = counts[call.layer.name]
        counts[call.layer.name] += 1

    def ref(leaf: Any) -> Any:
        return Ref(leaf.name, numbers[leaf.call], leaf.index) if isinstance(leaf, Symbol) else leaf

    nodes = [
        Node(c.layer, numbers[c], map_arrays(ref, c.args), map_arrays(ref, c.kwargs)) for c in calls
    ]
    items = [InputSpec(x.name, x.shape, x.dtype) for x in given]
    ends = map_arrays(ref, outputs)
    return Graph(items, as_executed(nodes, ends), ends, layers)


Point = Call | Symbol  # a call, or an input


def _reached(given: list[Symbol], asked: list[Symbol]) -> tuple[list[Point], dict[Layer, int]]:
    """What leads from `given` to `asked`, each after what it needs; the layers as first met."""
    done: dict[Point, None] = {}
    first: dict[Layer, int] = {}
    stack: list[tuple[Point, bool]] = [(x.call or x, False) for x in reversed(asked)]
    while stack:
        point, ready = stack.pop()
        if ready:
            done.setdefault(point)
        elif point not in done:
            if isinstance(point, Call):
                first.setdefault(point.layer, len(first))
            elif point not in given:
                raise ValueError(
                    f"Model: the outputs need {point!r}, expected it among the inputs:"
                    f" {', '.join(repr(x.name) for x in given)}"
                )
            stack.append((point, True))
            stack += [(parent, False) for parent in reversed(_parents(point))]
    return list(done), first


def _parents(point: Point) -> list[Point]:
    """Where the arrays of a call come from."""
    if isinstance(point, Symbol):
        return []
    return [x.call or x for x in symbols([list(point.args), point.kwargs])]


def _by_depth(order: list[Point], first: dict[Layer, int]) -> list[Layer]:
    """The layers as Keras lists them: those whose last call is furthest from the outputs first."""
    depths: Counter[Point] = Counter()
    of_layer: Counter[Layer] = Counter()
    for point in reversed(order):
        if isinstance(point, Call):
            depth = of_layer[point.layer] = max(depths[point], of_layer[point.layer])
            for parent in _parents(point):
                depths[parent] = max(depths[parent], depth + 1)
    return sorted(first, key=lambda layer: (-of_layer[layer], first[layer]))
