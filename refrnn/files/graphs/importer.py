"""From the nodes of a graph to a `refrnn.Model`, or a refusal that names the node and its trouble.

Recurrent nodes may take the time axis first and have one for directions; a model here has the batch
first and none. So a value is kept as symbols of the batch-first model and the places of their axes
in the file: transposing renames axes, and inputs and outputs of the model have the batch first
whatever the file has; `Imported` says where each axis was.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from refrnn import layers
from refrnn.files.errors import FileError, shown, within
from refrnn.files.graphs import places
from refrnn.files.graphs.ends import End, Imported
from refrnn.files.graphs.graph import Graph, Node, Port
from refrnn.files.graphs.values import D, Known, Value
from refrnn.files.weights import assign
from refrnn.gates import Array
from refrnn.layers.symbolic import Symbol
from refrnn.models import Model

FLOATS = ("float16", "float32", "float64")
FAILURES = (ValueError, TypeError, LookupError, ArithmeticError, MemoryError)
MAX_ROW = 1 << 24  # numbers in a row of an array, steps that vary in number taken for 127

TURNED = ("Reverse", "Gather", *places.RECURRENT)  # operations that take what is reversed in time
SHARED = 8  # how often a file may use its weights, beside a few numbers


class Importer:
    """Goes through the nodes once; `values` holds what has a name so far."""

    def __init__(self, graph: Graph, steps: "Steps") -> None:
        self.graph = graph
        self.steps = steps
        self.values: dict[str, Any] = {n: Known(a) for n, a in graph.constants.items()}
        self.uses = Counter(name for node in graph.nodes for name in node.inputs)
        self.uses.update(port.name for port in graph.outputs)
        self.readers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in set(node.inputs):
                self.readers.setdefault(name, []).append(node)
        self.weights: list[tuple[str, layers.Layer]] = []
        self.arrays: list[list[Array]] = []
        self.names: set[str] = set()
        self.fused: set[str] = set()  # outputs of nodes that are part of another layer
        self.inexact: list[str] = []
        self.left = SHARED * sum(a.size for a in graph.constants.values()) + MAX_ROW

    def run(self, name: str) -> Imported:
        for node in self.graph.nodes:  # first: what comes before one of them is part of it
            trouble = unknown(node, self.steps)
            if trouble:
                raise FileError(f"{node.who}: {trouble}")
        inputs = [self._input(port) for port in self.graph.inputs]
        for node in self.graph.nodes:
            if not node.outputs:
                raise FileError(f"{node.who}: has no outputs, expected one at least")
            if any(one in self.fused for one in node.outputs):
                continue
            with within(node.who, *FAILURES):
                self.steps[node.op](self, node)
        outputs: list[Symbol] = []
        ends: list[End] = []
        for port in self.graph.outputs:
            value = self.values.get(port.name)
            if not isinstance(value, Value) or value.turned:
                raise FileError(
                    f"output {shown(port.name)} is not computed from the inputs, or reversed in"
                    " time, expected an array of the model's in the order of time"
                )
            outputs += value.parts
            ends.append(End(port.name, value.axes, len(value.parts)))
        symbols = [part for value in inputs for part in value.parts]
        with within("graph"):
            made = Model(symbols, outputs, name=name)
        assign(self.weights, self.arrays)
        pairs = zip(self.graph.inputs, inputs, strict=True)
        given = [
            End(port.name, value.axes, len(value.parts), _rows(port, value))
            for port, value in pairs
        ]
        return Imported(made, given, ends, self.inexact, self.graph.remarks)

    # --- inputs ---

    def _input(self, port: Port) -> Value:
        who = f"input {shown(port.name)}"
        if port.shape is None or port.dtype not in (*FLOATS, "int32", "int64"):
            raise FileError(
                f"{who} has shape {shown(port.shape)} and dtype {port.dtype}, expected a tensor of"
                " floats, int32 or int64 whose number of axes is known"
            )
        rank = len(port.shape)
        axes, reader = places.of_input(port.name, rank, self.readers)
        sizes = [port.shape[axes.index(k)] for k in range(1, rank - axes.count(D))]
        if reader is not None and rank == 3 and sizes[1:] == [None]:
            sizes[1] = self._features(reader)
        if not rank:
            raise FileError(f"{who} has no axes, expected the batch at least")
        parts = []
        for k in range(2 if axes.count(D) and port.shape[axes.index(D)] == 2 else 1):
            title = self.named(port.name + ("_backward" if k else ""))
            with within(who):
                self.room(*sizes)
                parts.append(layers.Input(tuple(sizes), dtype=port.dtype, name=title))
        value = Value(tuple(parts), axes)
        self.values[port.name] = value
        return value

    def _features(self, node: Node) -> int | None:
        """How many features a recurrent node takes, as its weights say; None where they do not."""
        found = self.graph.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
        return int(found.shape[-1]) if found is not None and found.ndim == 3 else None

    # --- what the steps use ---

    def named(self, text: str) -> str:
        """A name for a layer, there once."""
        base = text.strip("/").replace("/", "_") or "layer"
        name, k = base, 0
        while name in self.names:
            k += 1
            name = f"{base}_{k}"
        self.names.add(name)
        return name

    def title(self, node: Node) -> str:
        return self.named(node.name or (node.kind or node.op).lower())

    def value(self, name: str) -> Any:
        if name not in self.values:
            raise FileError(f"input {shown(name)} is not there, expected it from a node before")
        return self.values[name]

    def inputs(self, node: Node, least: int, most: int) -> list[Any]:
        """The values of a node's inputs, None for those that are not given."""
        found = [self.value(name) if name else None for name in node.inputs]
        if not least <= len(found) <= most or None in found[:least]:
            raise FileError(f"has inputs {shown(node.inputs)}, expected {least} to {most} of them")
        turned = any(isinstance(value, Value) and value.turned for value in found)
        if turned and node.op not in TURNED:
            raise FileError("has an input that is reversed in time, expected the order of time")
        return found + [None] * (most - len(found))

    def room(self, *sizes: int | None) -> None:
        """Refuse an array that takes more memory than a file should make of itself."""
        count = 1
        for size in sizes:
            count *= 127 if size is None else size
        if count > MAX_ROW:
            raise FileError(
                f"has rows of shape {shown(sizes)}, expected at most {MAX_ROW} numbers in each"
            )

    def put(self, node: Node, value: Any) -> None:
        """The first output; the others must not be used."""
        self.values[node.outputs[0]] = value
        for name in node.outputs[1:]:
            if name and self.uses[name]:
                raise FileError(f"its output {shown(name)} is used, expected the first one only")

    def add(
        self, layer: layers.Layer, given: Any, arrays: Sequence[Array] = (), **more: Any
    ) -> Any:
        """What a layer returns for symbols; its weights are written when the model is whole."""
        self.left -= sum(array.size for array in arrays)
        if self.left < 0:
            raise FileError(f"uses its weights more than {SHARED} times, expected fewer")
        made = layer(given, **more)
        self.weights.append((type(layer).__name__, layer))
        self.arrays.append(list(arrays))
        return made


Steps = Mapping[str, Callable[[Importer, Node], None]]


def unknown(node: Node, steps: Steps) -> str:
    """Why a node's operation is none of `steps`; "" where it is one."""
    if node.op in steps:
        return ""
    return node.trouble or f"is not of refrnn's, expected one of {', '.join(sorted(steps))}"


def _rows(port: Port, value: Value) -> int | None:
    return port.shape[value.axes.index(0)] if port.shape else None
