"""A graph of ONNX as a `refrnn.Model`, or a refusal that names the node and what is in the way.

ONNX's recurrent nodes take the time axis first and have one for directions; a model here has the
batch first and none. So a value is kept as symbols of the batch-first model and the places of their
axes in ONNX: transposing renames axes, and inputs and outputs of the model have the batch first
whatever the file has; `Imported` says where each axis was.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from refrnn import layers
from refrnn.files.errors import FileError, shown, within
from refrnn.files.onnx import recurrent
from refrnn.files.onnx.messages import ELEMENTS, Graph, Node, Port
from refrnn.files.onnx.values import D, Known, Size, Sizes, Value, Zeros, as_ints
from refrnn.files.weights import assign
from refrnn.gates import Array
from refrnn.layers.symbolic import Symbol
from refrnn.models import Model

FLOATS = ("float16", "float32", "float64")
ELEMENTWISE = {
    "Relu": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid", "Softplus": "softplus",
    "Softsign": "softsign",
}  # fmt: skip
MERGES = {"Add": layers.Add, "Sub": layers.Subtract, "Mul": layers.Multiply,
          "Max": layers.Maximum, "Min": layers.Minimum, "Mean": layers.Average}  # fmt: skip
KEEPING = {*ELEMENTWISE, *MERGES, "Identity", "Dropout", "Cast", "Softmax", "MatMul", "HardSigmoid",
           "LogSoftmax", "Elu", "LeakyRelu"}  # fmt: skip
FAILURES = (ValueError, TypeError, LookupError, ArithmeticError, MemoryError)
MAX_KNOWN = 1 << 26  # numbers in a constant that is put together from others
MAX_ROW = 1 << 24  # numbers in a row of an array, steps that vary in number taken for 127
HARD = {(0.2, 0.5): "hard_sigmoid_keras2", (1 / 6, 0.5): "hard_sigmoid"}


class End(NamedTuple):
    """An input or output of the file.

    name  what the file calls it
    axes  for each of its axes, which of the model's array it is; -1 is ONNX's axis of directions
    parts  how many arrays of the model's it is: one for each direction
    rows   the size of the batch, where the file has one alone; the model takes any
    """

    name: str
    axes: tuple[int, ...]
    parts: int = 1
    rows: int | None = None

    def arrays(self, given: Array) -> list[Array]:
        """An array of the file's as the model's: batch first, one for each direction."""
        if D not in self.axes:
            return [np.ascontiguousarray(np.transpose(given, np.argsort(self.axes)))]
        place = self.axes.index(D)
        left = End(self.name, (*self.axes[:place], *self.axes[place + 1 :]))
        return [a for part in np.moveaxis(given, place, 0) for a in left.arrays(part)]

    def whole(self, given: Iterator[Array]) -> Array:
        """The file's array from the model's, the next ones of `given`."""
        if D not in self.axes:
            return np.transpose(next(given), self.axes)
        place = self.axes.index(D)
        left = End(self.name, (*self.axes[:place], *self.axes[place + 1 :]))
        return np.stack([left.whole(given) for _ in range(self.parts)], axis=place)


class Imported(NamedTuple):
    """A model and how it differs from its file.

    inputs, outputs  in the order of the model's; outputs with two directions are two of the model's
    inexact          what was computed anew, so that numbers agree to rounding and not to the bit
    """

    model: Model
    inputs: list[End]
    outputs: list[End]
    inexact: list[str]


def model(graph: Graph, name: str) -> Imported:
    """The model of a graph. Raises FileError, by node and attribute, for what it cannot be."""
    return _Importer(graph).run(name)


class _Importer:
    """Goes through the nodes once; `values` holds what has a name so far."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
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

    def run(self, name: str) -> Imported:
        inputs = [self._input(port) for port in self.graph.inputs]
        for node in self.graph.nodes:
            if node.op not in STEPS:
                raise FileError(
                    f"{node.who}: is not of refrnn's, expected one of {', '.join(sorted(STEPS))}"
                )
            if not node.outputs:
                raise FileError(f"{node.who}: has no outputs, expected one at least")
            if any(one in self.fused for one in node.outputs):
                continue
            with within(node.who, *FAILURES):
                STEPS[node.op](self, node)
        outputs: list[Symbol] = []
        ends: list[End] = []
        for port in self.graph.outputs:
            value = self.values.get(port.name)
            if not isinstance(value, Value):
                raise FileError(f"output {shown(port.name)} is not computed from the inputs")
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
        return Imported(made, given, ends, self.inexact)

    # --- inputs ---

    def _input(self, port: Port) -> Value:
        who = f"input {shown(port.name)}"
        if port.shape is None or port.dtype not in (*FLOATS, "int32", "int64"):
            raise FileError(
                f"{who} has shape {shown(port.shape)} and dtype {port.dtype}, expected a tensor of"
                " floats, int32 or int64 whose number of axes is known"
            )
        rank = len(port.shape)
        axes = self._axes(port.name, rank) or tuple(range(rank))
        sizes = [port.shape[axes.index(k)] for k in range(1, rank - axes.count(D))]
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

    def _axes(self, port: str, rank: int) -> tuple[int, ...] | None:
        """The axes of an input, from the first recurrent node that it leads to; None for none."""
        # by name, for each axis of the value, which of the input's it is
        waiting: dict[str, tuple[int, ...]] = {port: tuple(range(rank))}
        seen = set(waiting)
        while waiting:
            name = next(iter(waiting))
            places = waiting.pop(name)
            for node in self.readers.get(name, []):
                if node.op in recurrent.OPS:
                    found = _role(node, name, places, rank)
                    if found:
                        return found
                    continue
                after = _after(node, name, places, rank)
                if after and node.outputs and node.outputs[0] not in seen:
                    seen.add(node.outputs[0])
                    waiting[node.outputs[0]] = after
        return None

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
        return self.named(node.name or node.op.lower())

    def value(self, name: str) -> Any:
        if name not in self.values:
            raise FileError(f"input {shown(name)} is not there, expected it from a node before")
        return self.values[name]

    def inputs(self, node: Node, least: int, most: int) -> list[Any]:
        """The values of a node's inputs, None for those that are not given."""
        found = [self.value(name) if name else None for name in node.inputs]
        if not least <= len(found) <= most or None in found[:least]:
            raise FileError(f"has inputs {shown(node.inputs)}, expected {least} to {most} of them")
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
        made = layer(given, **more)
        self.weights.append((type(layer).__name__, layer))
        self.arrays.append(list(arrays))
        return made


def _rows(port: Port, value: Value) -> int | None:
    return port.shape[value.axes.index(0)] if port.shape else None


def _role(node: Node, name: str, places: tuple[int, ...], rank: int) -> tuple[int, ...] | None:
    """The axes of an input that a recurrent node takes, its own axes in `places`."""
    role = node.inputs.index(name)
    first = node.attributes.get("layout", 0) == 0
    wanted = recurrent.AXES[first]["X" if role == 0 else "state"]
    if role not in (0, 5, 6) or len(places) != len(wanted):
        return None
    mine = [D] * rank
    for place, axis in zip(places, wanted, strict=True):
        if place < rank:
            mine[place] = axis
    return tuple(mine)


def _after(node: Node, name: str, places: tuple[int, ...], rank: int) -> tuple[int, ...] | None:
    """Where an input's axes are in what a node returns; None where that is not to be said."""
    if node.op == "Transpose":
        perm = node.attributes.get("perm") or [*reversed(range(len(places)))]
        known = sorted(perm) == list(range(len(places)))
        return tuple(places[p] for p in perm) if known else None
    if node.op == "Gather" and node.inputs[-1] == name:
        return (*places, rank)  # of ids: their vectors have an axis more
    if node.op == "Unsqueeze" and len(places) == 2:
        return (rank, *places)
    return places if node.op in KEEPING else None


def only(node: Node, *names: str) -> dict[str, Any]:
    """The attributes, all of which are known."""
    for name in node.attributes:
        if name not in names:
            raise FileError(
                f"has the attribute {shown(name)}, expected"
                f" {'one of ' + ', '.join(names) if names else 'none'}: none is ignored"
            )
    return node.attributes


def axis_of(value: Value, axis: Any) -> int:
    """The place of an axis in ONNX, counted from 0."""
    rank = len(value.axes)
    if type(axis) is not int or not -rank <= axis < rank:
        raise FileError(f"has axis {shown(axis)}, expected one of {rank}")
    return axis % rank


# --- the steps ---


def _same(importer: _Importer, node: Node) -> None:
    only(node, "seed")
    x, _, training = importer.inputs(node, 1, 3)
    if training is not None and not (isinstance(training, Known) and not training.array.any()):
        raise FileError("has training_mode, expected False")
    importer.put(node, x)


def _cast(importer: _Importer, node: Node) -> None:
    attributes = only(node, "to", "saturate")
    [x] = importer.inputs(node, 1, 1)
    to = ELEMENTS.get(attributes.get("to", 0))
    if isinstance(x, Known) and to not in (None, "bfloat16"):
        x = Known(x.array.astype(to))
    elif isinstance(x, Value) and x.parts[0].dtype != to:
        raise FileError(f"to {to}, expected {x.parts[0].dtype}, which its input is already")
    importer.put(node, x)


def _constant(importer: _Importer, node: Node) -> None:
    found = list(only(node, "value", "value_float", "value_floats", "value_int", "value_ints"))
    if len(found) != 1:
        raise FileError(f"has the attributes {found}, expected one")
    given = node.attributes[found[0]]
    dtype = {"value": None, "value_i": np.int64, "value_f": np.float32}[found[0][:7]]
    importer.put(node, Known(np.asarray(given, dtype)))


def _constant_of_shape(importer: _Importer, node: Node) -> None:
    fill = only(node, "value").get("value", np.zeros(1, np.float32))
    importer.inputs(node, 1, 1)
    if fill.any():
        raise FileError("has a value that is not 0, expected zeros, for a state to begin with")
    importer.put(node, Zeros())


def _expand(importer: _Importer, node: Node) -> None:
    only(node)
    x, _ = importer.inputs(node, 2, 2)
    if not isinstance(x, Zeros) and not (isinstance(x, Known) and not x.array.any()):
        raise FileError("expands what is not zeros, expected zeros, for a state to begin with")
    importer.put(node, Zeros())


def _shape(importer: _Importer, node: Node) -> None:
    attributes = only(node, "start", "end")
    [x] = importer.inputs(node, 1, 1)
    if not isinstance(x, Value):
        raise FileError("has a constant input, expected one of the model's arrays")
    sizes = tuple(Size(x, k) for k in range(len(x.axes)))
    importer.put(node, Sizes(sizes[attributes.get("start", 0) : attributes.get("end")]))


def _transpose(importer: _Importer, node: Node) -> None:
    perm = only(node, "perm").get("perm")
    [x] = importer.inputs(node, 1, 1)
    if isinstance(x, Known):
        with within("perm"):
            importer.put(node, Known(np.transpose(x.array, perm)))
        return
    if not isinstance(x, Value):
        raise FileError("transposes sizes or zeros, expected an array")
    places = list(reversed(range(len(x.axes)))) if perm is None else perm
    if sorted(places) != list(range(len(x.axes))):
        raise FileError(f"has perm {shown(perm)}, expected the axes of {len(x.axes)}")
    importer.put(node, x._replace(axes=tuple(x.axes[p] for p in places)))


def _squeeze(importer: _Importer, node: Node) -> None:
    attributes = only(node)
    x, given = importer.inputs(node, 1, 2)
    if isinstance(x, Sizes) or (isinstance(x, Known) and given is None):
        importer.put(node, x if isinstance(x, Sizes) else Known(np.squeeze(x.array)))
        return
    if not isinstance(x, Value) or given is None:
        raise FileError(f"has axes {shown(attributes)}, expected an array and its axes as input")
    places = sorted({axis_of(x, k) for k in as_ints(given, "axes")}, reverse=True)
    for place in places:
        x = _dropped(importer, node, x, place)
    importer.put(node, x)


def _dropped(importer: _Importer, node: Node, x: Value, place: int) -> Value:
    """Without an axis of size 1."""
    axis, left = x.axes[place], (*x.axes[:place], *x.axes[place + 1 :])
    if axis == D:
        if len(x.parts) > 1:
            raise FileError("drops the axis of two directions, expected one direction")
        return x._replace(axes=left)
    shape = x.parts[0].shape
    if axis == 0 or shape[axis] != 1 or len(x.parts) > 1:
        raise FileError(f"drops axis {place} of size {shape[axis]}, expected 1, not the batch's")
    sizes = tuple(-1 if n is None else n for k, n in enumerate(shape) if k not in (0, axis))
    made = importer.add(layers.Reshape(sizes, name=importer.title(node)), x.parts[0])
    return Value((made,), tuple(a - (a > axis) for a in left))


def _unsqueeze(importer: _Importer, node: Node) -> None:
    only(node)
    x, given = importer.inputs(node, 2, 2)
    axes = as_ints(given, "axes")
    if isinstance(x, Sizes):
        importer.put(node, x)
    elif isinstance(x, Known):
        with within("axes"):
            importer.put(node, Known(np.expand_dims(x.array, tuple(axes))))
    elif isinstance(x, Value) and D not in x.axes and len(axes) == 1:
        place = axes[0] % (len(x.axes) + 1)
        importer.put(node, x._replace(axes=(*x.axes[:place], D, *x.axes[place:])))
    elif isinstance(x, Zeros):
        importer.put(node, x)
    else:
        raise FileError(f"adds axes {axes}, expected one, to what has none of directions")


def _gather(importer: _Importer, node: Node) -> None:
    axis = only(node, "axis").get("axis", 0)
    data, index = importer.inputs(node, 2, 2)
    if isinstance(data, Known) and isinstance(index, Known):
        count = index.array.size * (data.array.size // max(data.array.shape[axis], 1))
        _small(count)
        with within("indices", IndexError, ValueError):
            importer.put(node, Known(np.take(data.array, index.array, axis=axis)))
    elif isinstance(data, Known) and isinstance(index, Value):
        if data.array.ndim != 2 or axis != 0 or D in index.axes:
            raise FileError(f"takes from shape {data.array.shape} on axis {axis}, expected vectors")
        importer.room(*index.parts[0].shape[1:], data.array.shape[1])
        layer = layers.Embedding(
            *data.array.shape, dtype=data.array.dtype.name, name=importer.title(node)
        )
        made = importer.add(layer, index.parts[0], [data.array])
        importer.put(node, Value((made,), (*index.axes, len(index.axes))))
    elif isinstance(data, Sizes) and isinstance(index, Known):
        with within("indices", IndexError):
            picked = [data.items[int(k)] for k in np.atleast_1d(index.array)]
        importer.put(node, Sizes(tuple(picked)))
    elif isinstance(data, Value) and isinstance(index, Known) and index.array.ndim == 0:
        importer.put(node, _picked(data, axis_of(data, axis), int(index.array)))
    else:
        raise FileError("takes by an index that is computed, expected a constant one")


def _small(count: int) -> None:
    if count > MAX_KNOWN:
        raise FileError(f"makes a constant of {count} numbers, expected at most {MAX_KNOWN}")


def _picked(x: Value, place: int, index: int) -> Value:
    """One entry of an axis: a direction, or the end of the time that a layer returns anyway."""
    axis = x.axes[place]
    left = (*x.axes[:place], *x.axes[place + 1 :])
    if axis == D and -len(x.parts) <= index < len(x.parts):
        ends = None if x.ends is None else (x.ends[index],)
        return Value((x.parts[index],), left, ends)
    if axis == 1 and x.ends is not None and index in (0, -1):
        last = [(-1 if forward else 0, h) for forward, h in x.ends]
        if all(end == index for end, _ in last):
            after = tuple(a if a < 2 else a - 1 for a in left)
            return Value(tuple(h for _, h in last), after)
    raise FileError(
        f"takes entry {index} of axis {place}, expected a direction, or the last step of a"
        " recurrent node's own output: of another, refrnn's layers do not return one step"
    )


def _slice(importer: _Importer, node: Node) -> None:
    only(node)
    x, starts, ends, axes, steps = importer.inputs(node, 3, 5)
    begin, end = as_ints(starts, "starts"), as_ints(ends, "ends")
    places = list(range(len(begin))) if axes is None else as_ints(axes, "axes")
    step = [1] * len(begin) if steps is None else as_ints(steps, "steps")
    if isinstance(x, Sizes) and places == [0] and step == [1]:
        importer.put(node, Sizes(x.items[begin[0] : end[0]]))
        return
    if isinstance(x, Zeros):
        importer.put(node, x)
        return
    if not isinstance(x, Value) or not len(begin) == len(end) == len(places) == len(step):
        raise FileError("slices a constant, expected an array")
    for start, stop, axis, by in zip(begin, end, places, step, strict=True):
        place = axis_of(x, axis)
        if by == 1 and start == 0 and stop >= 2**31 - 1:
            continue
        if by != 1 or start != -1 or stop < 2**31 - 1:
            raise FileError(
                f"takes {start} to {stop} by {by} of axis {place}, expected all, or the last step"
            )
        x = _picked(x, place, -1)
        if D in x.axes:
            raise FileError("leaves the axis of directions, expected it to be gone by here")
        x = x._replace(axes=(*x.axes[:place], D, *x.axes[place:]))
    importer.put(node, x)


def _split(importer: _Importer, node: Node) -> None:
    axis = only(node, "axis", "num_outputs").get("axis", 0)
    x, sizes = importer.inputs(node, 1, 2)
    if not isinstance(x, Value) or x.axes[axis_of(x, axis)] != D:
        raise FileError(f"splits axis {axis}, expected that of the directions")
    if len(node.outputs) != len(x.parts) or (sizes and set(as_ints(sizes, "split")) != {1}):
        raise FileError(f"has {len(node.outputs)} outputs, expected one for each direction")
    for name, part in zip(node.outputs, x.parts, strict=True):
        importer.values[name] = Value((part,), x.axes)


def _concat(importer: _Importer, node: Node) -> None:
    axis = only(node, "axis").get("axis")
    found = [importer.value(name) for name in node.inputs]
    if all(isinstance(x, Known) for x in found):
        _small(sum(x.array.size for x in found))
        with within("inputs"):
            importer.put(node, Known(np.concatenate([x.array for x in found], axis=axis)))
    elif all(isinstance(x, Sizes | Known) for x in found):
        items = [x.items if isinstance(x, Sizes) else tuple(as_ints(x, "sizes")) for x in found]
        importer.put(node, Sizes(tuple(k for part in items for k in part)))
    elif found and all(isinstance(x, Zeros) for x in found):
        importer.put(node, Zeros())
    else:
        importer.put(node, _joined(importer, node, found, axis))


def _joined(importer: _Importer, node: Node, found: list[Any], axis: Any) -> Value:
    first = _alike(found)
    place = axis_of(first, axis)
    if first.axes[place] == D:
        return Value(tuple(p for x in found for p in x.parts), first.axes)
    if len(found) == 1:
        return first
    importer.room(len(found), *first.parts[0].shape[1:])
    layer = layers.Concatenate(axis=first.axes[place], name=importer.title(node))
    return Value((importer.add(layer, [_one(x) for x in found]),), first.axes)


def _one(value: Value) -> Symbol:
    if len(value.parts) > 1:
        raise FileError("takes two directions as one array, expected them joined by a Reshape")
    return value.parts[0]


def _alike(found: list[Any]) -> Value:
    """The first of some values whose axes are in the same order."""
    if not found or not all(isinstance(x, Value) for x in found):
        raise FileError("has a constant among its inputs, expected arrays of the model's alone")
    if len({x.axes for x in found}) > 1:
        raise FileError(
            f"has inputs with axes {[x.axes for x in found]} of the batch-first model, expected the"
            " same, because it would mix batch and time"
        )
    return cast(Value, found[0])


def _reshape(importer: _Importer, node: Node) -> None:
    allow = only(node, "allowzero").get("allowzero", 0)
    x, given = importer.inputs(node, 2, 2)
    if isinstance(x, Known) and isinstance(given, Known) and not allow:
        sizes = as_ints(given, "shape")
        sizes = [x.array.shape[k] if n == 0 else n for k, n in enumerate(sizes)]
        with within("shape"):
            importer.put(node, Known(x.array.reshape(sizes)))
        return
    if not isinstance(x, Value) or not isinstance(given, Known | Sizes) or allow:
        raise FileError("has a shape that is computed, or allowzero, expected neither")
    target = list(given.items) if isinstance(given, Sizes) else as_ints(given, "shape")
    importer.put(node, _reshaped(importer, node, x, target))


def _reshaped(importer: _Importer, node: Node, x: Value, target: list[Any]) -> Value:
    rank = len(x.axes)
    if D in x.axes:
        place = x.axes.index(D)
        if place == rank - 2 and len(target) == rank - 1 and x.axes[-1] == rank - 2:
            left = (*x.axes[:place], x.axes[-1])
            if _keeps(x, target[:-1]) and target[-1] in (-1, _width(x)):
                if len(x.parts) == 1:
                    return x._replace(axes=left)
                layer = layers.Concatenate(name=importer.title(node))
                return Value((importer.add(layer, list(x.parts)),), left)
        raise FileError(
            f"makes {_told(target)} of the axes {x.axes} (-1: directions), expected the directions"
            " beside the units and joined with them, all other sizes as they are"
        )
    symbol = _one(x)
    if x.axes != tuple(range(rank)) or not target or not _batch(x, target):
        raise FileError(
            f"makes {_told(target)} of the axes {x.axes}, expected the batch first and kept, by 0"
        )
    sizes = []
    for k, n in enumerate(target[1:], 1):
        if isinstance(n, Size) or n == 0:
            if not (n == 0 and k < rank) and not (isinstance(n, Size) and n.fits(x, k)):
                raise FileError(f"has size {k} of another array, expected a number")
            n = symbol.shape[k]
            n = -1 if n is None else n
        sizes.append(n)
    if sizes.count(-1) > 1:
        raise FileError(f"makes {_told(target)}, expected one size at most that is not known")
    made = importer.add(layers.Reshape(tuple(sizes), name=importer.title(node)), symbol)
    return Value((made,), tuple(range(len(target))))


def _told(target: list[Any]) -> str:
    return shown(["the size of an axis" if isinstance(n, Size) else n for n in target])


def _width(x: Value) -> int | None:
    last = x.parts[0].shape[-1]
    return None if last is None else last * len(x.parts)


def _keeps(x: Value, target: list[Any]) -> bool:
    """Whether the first sizes are kept; a number, or one -1, where the size is not known."""
    for k, n in enumerate(target):
        size = None if x.axes[k] == D else x.parts[0].shape[x.axes[k]]
        if not (n == 0 or n == size or (isinstance(n, Size) and n.fits(x, k))):
            if n != -1 and (isinstance(n, Size) or size is not None):
                return False
    return sum(1 for n in target if not isinstance(n, Size) and n == -1) < 2


def _batch(x: Value, target: list[Any]) -> bool:
    """Whether the batch stays: 0, its size, or -1 beside sizes that account for a row."""
    first, symbol = target[0], x.parts[0]
    if isinstance(first, Size):
        return first.fits(x, 0)
    if first == 0:
        return True
    rest, known = target[1:], symbol.shape[1:]
    whole = all(isinstance(n, int) and n > 0 for n in rest) and None not in known
    return bool(whole and int(np.prod(rest)) == int(np.prod(cast(Any, known))))


def _flatten(importer: _Importer, node: Node) -> None:
    axis = only(node, "axis").get("axis", 1)
    [x] = importer.inputs(node, 1, 1)
    if not isinstance(x, Value) or axis != 1 or x.axes != tuple(range(len(x.axes))):
        raise FileError(f"has axis {axis} of the axes {shown(x)}, expected 1, the batch first")
    importer.put(
        node,
        Value((importer.add(layers.Flatten(name=importer.title(node)), _one(x)),), (0, 1)),
    )


def _matmul(importer: _Importer, node: Node) -> None:
    only(node)
    x, kernel = importer.inputs(node, 2, 2)
    _dense(importer, node, x, kernel, None, node.outputs[0])


def _gemm(importer: _Importer, node: Node) -> None:
    attributes = only(node, "alpha", "beta", "transA", "transB")
    x, kernel, bias = importer.inputs(node, 2, 3)
    for name, expected in (("alpha", 1.0), ("beta", 1.0), ("transA", 0)):
        if attributes.get(name, expected) != expected:
            raise FileError(f"{name} is {attributes[name]}, expected {expected}")
    if isinstance(kernel, Known) and attributes.get("transB", 0):
        kernel = Known(kernel.array.T)
    _dense(importer, node, x, kernel, bias, node.outputs[0])


def _dense(importer: _Importer, node: Node, x: Any, kernel: Any, bias: Any, output: str) -> None:
    """A Dense layer, with the bias that a next node adds."""
    if not isinstance(x, Value) or not isinstance(kernel, Known) or kernel.array.ndim != 2:
        raise FileError("multiplies two arrays, expected one of the model's by a constant matrix")
    if x.axes[-1] != len(x.parts[0].shape) - 1 or len(x.axes) < 2:
        raise FileError(f"has the axes {x.axes}, expected the features last")
    importer.room(*x.parts[0].shape[1:-1], kernel.array.shape[1])
    name = importer.title(node)
    readers = importer.readers.get(output, [])
    if bias is None and importer.uses[output] == 1 and readers and readers[0].op == "Add":
        other = [importer.values.get(n) for n in readers[0].inputs if n != output]
        if len(other) == 1 and isinstance(other[0], Known):
            bias, output = other[0], readers[0].outputs[0]
            importer.fused.add(output)
    arrays = [np.ascontiguousarray(kernel.array)]
    if bias is not None:
        units, shape = kernel.array.shape[1], bias.array.shape if isinstance(bias, Known) else ()
        if shape[-1:] != (units,) or int(np.prod(shape)) != units or len(shape) > len(x.axes):
            raise FileError("has a bias that is not a constant with a number for each unit")
        arrays.append(bias.array.reshape(-1))
    layer = layers.Dense(
        kernel.array.shape[1], use_bias=bias is not None, dtype=kernel.array.dtype.name, name=name
    )
    importer.values[output] = Value((importer.add(layer, _one(x), arrays),), x.axes)


def _merge(importer: _Importer, node: Node) -> None:
    only(node)
    found = [importer.value(name) for name in node.inputs]
    first = _alike(found)
    shapes = {x.parts[0].shape for x in found}
    if len(found) < 2 or len(shapes) > 1:
        raise FileError(f"has inputs of shapes {shapes}, expected two or more of one shape")
    layer = MERGES[node.op](name=importer.title(node))
    importer.put(node, Value((importer.add(layer, [_one(x) for x in found]),), first.axes))


def _activation(importer: _Importer, node: Node) -> None:
    attributes = only(node, *SETTINGS.get(node.op, ()))
    [x] = importer.inputs(node, 1, 1)
    if not isinstance(x, Value):
        raise FileError("has a constant input, expected an array of the model's")
    name = importer.title(node)
    layer: layers.Layer
    if node.op in ("Softmax", "LogSoftmax"):
        if x.axes[axis_of(x, attributes.get("axis", -1))] != len(x.parts[0].shape) - 1:
            raise FileError(f"axis is {attributes.get('axis')}, expected that of the features")
        kind = {"Softmax": "softmax", "LogSoftmax": "log_softmax"}[node.op]
        layer = layers.Activation(kind, name=name)
    elif node.op == "HardSigmoid":
        pair = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
        near = [kind for known, kind in HARD.items() if np.allclose(pair, known, rtol=1e-6)]
        if not near:
            raise FileError(f"alpha and beta are {pair}, expected 0.2 or 1/6, and 0.5")
        layer = layers.Activation(near[0], name=name)
    elif node.op == "Elu":
        layer = layers.ELU(attributes.get("alpha", 1.0), name=name)
    elif node.op == "LeakyRelu":
        layer = layers.LeakyReLU(attributes.get("alpha", 0.01), name=name)
    else:
        layer = layers.Activation(ELEMENTWISE[node.op], name=name)
    importer.put(node, Value((importer.add(layer, _one(x)),), x.axes))


SETTINGS = {
    "Softmax": ("axis",), "LogSoftmax": ("axis",), "HardSigmoid": ("alpha", "beta"),
    "Elu": ("alpha",), "LeakyRelu": ("alpha",),
}  # fmt: skip


def _recurrent(importer: _Importer, node: Node) -> None:
    found = importer.inputs(node, 3, 8 if node.op == "LSTM" else 6)
    used = [bool(name) and importer.uses[name] > 0 for name in node.outputs]
    used += [False] * (3 - len(used))
    if used[0] and any(other.op in ("Gather", "Slice") for other in importer.graph.nodes):
        used[1] = True  # the last step may be taken: it is the state
    made = recurrent.layer(node, found, used, importer.title(node))
    importer.room(made.symbol.shape[1], *made.arrays[-1].shape)
    importer.inexact += made.inexact
    symbols = importer.add(made.layer, made.symbol, made.arrays, **made.more)
    outputs = recurrent.outputs(made, symbols, used)
    for name, value in zip(node.outputs, outputs, strict=False):
        if value is not None:
            importer.values[name] = value


STEPS: dict[str, Callable[[_Importer, Node], None]] = {
    **dict.fromkeys(("Identity", "Dropout"), _same),
    **dict.fromkeys((*ELEMENTWISE, *SETTINGS), _activation),
    **dict.fromkeys(MERGES, _merge),
    **dict.fromkeys(recurrent.OPS, _recurrent),
    "Cast": _cast, "Constant": _constant, "ConstantOfShape": _constant_of_shape,
    "Expand": _expand, "Shape": _shape, "Transpose": _transpose, "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze, "Gather": _gather, "Slice": _slice, "Split": _split, "Concat": _concat,
    "Reshape": _reshape, "Flatten": _flatten, "MatMul": _matmul, "Gemm": _gemm,
}  # fmt: skip
