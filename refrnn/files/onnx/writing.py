"""A model as a graph of ONNX, opset 14, which ONNX Runtime runs; what ONNX has not is refused.

Arrays have the batch first, as in the model; around each recurrent node they are transposed. What
acts in training only, dropout and noise, is left out.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refrnn import layers, layouts
from refrnn.files.graphs.graph import CODES
from refrnn.files.onnx import messages
from refrnn.gates import Array
from refrnn.layers import Layer
from refrnn.layers.masks import leaves
from refrnn.layouts import Stored
from refrnn.models import Model
from refrnn.models.graph import Graph, Ref, is_model, map_refs, refs

DTYPES = ("float16", "float32", "float64")
TIME_FIRST = (1, 0, 2)
ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
    "sigmoid": ("Sigmoid", {}),
    "softplus": ("Softplus", {}),
    "softsign": ("Softsign", {}),
    "softmax": ("Softmax", {"axis": -1}),
    "log_softmax": ("LogSoftmax", {"axis": -1}),
    "elu": ("Elu", {"alpha": 1.0}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "hard_sigmoid_keras2": ("HardSigmoid", {"alpha": 0.2, "beta": 0.5}),
}
OPS = {"simple": "RNN", "gru": "GRU", "gru_reset_before": "GRU", "lstm": "LSTM"}
MERGES = {"sum": "Add", "mul": "Mul", "ave": "Mean"}


def packed(model: Model) -> bytes:
    """The bytes of a file of ONNX. Raises ValueError, by layer, for what ONNX cannot hold."""
    values = model.symbols()
    dtypes = {layer.dtype.name for layer in model.every_layer() if layer.weights}
    if len(dtypes) > 1 or not dtypes <= set(DTYPES):
        raise ValueError(
            f"{model.who}: its layers are of {', '.join(sorted(dtypes))}, expected one of"
            f" {', '.join(DTYPES)} throughout, because ONNX converts no dtype by itself"
        )
    writer = _Writer(model.who, next(iter(dtypes), "float32"))
    given = []
    for item in model.inputs:
        assert item.shape is not None
        given.append(messages.value(item.name, item.dtype, _sizes(item.name, item.shape)))
    inputs = [writer.received(item.name, item.dtype) for item in model.inputs]
    ends = leaves(writer.graph(model.graph, inputs))
    symbols = [values[ref] for ref in refs(model.graph.outputs)]
    titles = _titles(refs(model.graph.outputs), [item.name for item in model.inputs])
    returned = []
    for title, end, symbol in zip(titles, ends, symbols, strict=True):
        writer.node("Identity", [end], [title])
        returned.append(messages.value(title, writer.dtype, _sizes(title, symbol.shape)))
    return messages.model(model.name, writer.nodes, given, returned, writer.tensors)


def _sizes(name: str, shape: Sequence[int | None]) -> "list[int | str]":
    """A shape with names for the sizes that are not known; the batch may always vary."""
    return ["batch", *(f"{name}_{k}" if n is None else n for k, n in enumerate(shape[1:], 1))]


def _titles(outputs: list[Ref], taken: list[str]) -> list[str]:
    """A name for each output, there once: its layer's, with a number where that has more."""
    titles: list[str] = []
    for ref in outputs:
        title, k = ref.layer, 0
        while title in (*taken, *titles):
            k += 1
            title = f"{ref.layer}_{k}"
        titles.append(title)
    return titles


class _Writer:
    """Collects nodes and constants; an array of the model is known by the name it has there."""

    def __init__(self, who: str, dtype: str) -> None:
        self.who, self.dtype = who, dtype
        self.nodes: list[bytes] = []
        self.tensors: list[bytes] = []
        self.count = 0
        self.ids: set[str] = set()  # inputs of whole numbers, which Gather takes as they are

    def fresh(self, what: str) -> str:
        self.count += 1
        return f"{what}/{self.count}"  # no layer has a slash in its name

    def received(self, name: str, dtype: str) -> str:
        """An input in the dtype of the weights; ids stay as they are."""
        if dtype in ("int32", "int64"):
            self.ids.add(name)
        if dtype == self.dtype or dtype not in DTYPES:
            return name
        return self.one("Cast", [name], {"to": CODES[self.dtype]})

    def constant(self, name: str, array: Any) -> str:
        title = self.fresh(name)
        self.tensors.append(messages.tensor(title, np.asarray(array)))
        return title

    def ints(self, *numbers: int) -> str:
        return self.constant("ints", np.array(numbers, np.int64))

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        attributes: dict[str, Any] | None = None,
        name: str = "",
    ) -> None:
        title = name or self.fresh(op)
        self.nodes.append(messages.node(op, inputs, outputs, attributes, title))

    def one(self, op: str, inputs: Sequence[str], attributes: dict[str, Any] | None = None) -> str:
        """A node of one output, and its name."""
        output = self.fresh(op.lower())
        self.node(op, inputs, [output], attributes)
        return output

    def activated(self, layer: Layer, name: str, x: str) -> str:
        if name == "linear":
            return x
        if name not in ACTIVATIONS:
            raise ValueError(
                f"{self.who}: {layer.who}: activation is {name!r}, expected one of"
                f" {', '.join(['linear', *ACTIVATIONS])}, which ONNX has as nodes"
            )
        op, attributes = ACTIVATIONS[name]
        return self.one(op, [x], attributes)

    def graph(self, graph: Graph, inputs: Sequence[str]) -> Any:
        """The outputs, in their structure, for arrays with these names."""
        names = {
            Ref(item.name, 0, 0): name for item, name in zip(graph.inputs, inputs, strict=True)
        }
        for node in graph.nodes:
            args = map_refs(names.__getitem__, list(node.args))
            kwargs = map_refs(names.__getitem__, node.kwargs)
            found = self.call(node.layer, args, kwargs)
            for k, name in enumerate(found):
                names[Ref(node.layer.name, node.call, k)] = name
        return map_refs(names.__getitem__, graph.outputs)

    def call(self, layer: Layer, args: list[Any], kwargs: dict[str, Any]) -> list[str]:
        """What a call returns."""
        state = [*args[1:2], kwargs.get("initial_state")][0]
        odd = {n: v for n, v in kwargs.items() if n != "initial_state" and v not in (None, False)}
        if odd or any(v not in (None, False) for v in args[2:]):
            raise ValueError(
                f"{self.who}: {layer.who} is called with {', '.join(odd) or 'a mask'}, expected its"
                " input and an initial state, because ONNX has no masks"
            )
        if is_model(layer):
            inner: Any = layer
            return leaves(self.graph(inner.graph, leaves(args[0])))
        emit = EMIT.get(type(layer))
        if emit is None:
            raise ValueError(
                f"{self.who}: {layer.who} is a {type(layer).__name__}, expected one of"
                f" {', '.join(sorted(kind.__name__ for kind in EMIT))}, which are written as ONNX"
            )
        if type(layer) in STATED:
            return emit(self, layer, args[0], state)
        return emit(self, layer, args[0])


# --- layers ---


def _arrays(layer: Any, before: str = "") -> tuple[dict[str, Array], dict[str, Any], str]:
    """A recurrent layer's weights in Keras's layout, its settings, its cell."""
    cell, math = layer.cell, layer.cell.math
    names = ["kernel", "recurrent_kernel", *(["bias"] if cell.use_bias else [])]
    arrays = dict(zip((before + n for n in names), layer.weights, strict=True))
    told = {"activation": math.act.name}
    if math.name != "simple":
        told["recurrent_activation"] = math.rec.name
    return arrays, told, math.name


def _converted(writer: _Writer, layer: Layer, arrays: Any, told: Any, cell: str) -> Stored:
    try:
        return layouts.convert(arrays, cell, "keras", "onnx", attributes=told)
    except ValueError as error:
        raise ValueError(f"{writer.who}: {layer.who}: {error}") from None


def _run(
    writer: _Writer, layer: Layer, stored: Stored, direction: str, x: str, state: list[str]
) -> list[str]:
    """Y, Y_h and Y_c of a recurrent node."""
    if getattr(layer, "stateful", False):
        raise ValueError(
            f"{writer.who}: {layer.who} is stateful, expected stateful=False, because a node of"
            " ONNX carries no state; give and return it: initial_state, return_state"
        )
    op = OPS[stored.cell]
    parts = ["h", "c"] if op == "LSTM" else ["h"]
    weights = [writer.constant(f"{layer.name}/{n}", a) for n, a in stored.items()]
    inputs = [writer.one("Transpose", [x], {"perm": TIME_FIRST}), *weights]
    if state:
        inputs += [""] * (5 - len(inputs))
        for k in range(len(parts)):
            given = [
                writer.one("Unsqueeze", [one, writer.ints(0)]) for one in state[k :: len(parts)]
            ]
            joined = given[0] if len(given) == 1 else writer.one("Concat", given, {"axis": 0})
            inputs.append(joined)
    outputs = [writer.fresh(f"{layer.name}/Y"), *(writer.fresh(f"{layer.name}/{p}") for p in parts)]
    attributes = {n: v for n, v in stored.attributes.items() if n != "input_forget"}
    writer.node(op, inputs, outputs, {**attributes, "direction": direction}, layer.name)
    return outputs


def _as_list(state: Any) -> list[str]:
    return [] if state is None else leaves(state)


def _recurrent(writer: _Writer, layer: Any, x: Any, state: Any) -> list[str]:
    x, state = (x[0], x[1:]) if isinstance(x, list) else (x, state)
    arrays, told, cell = _arrays(layer)
    stored = _converted(writer, layer, arrays, told, cell)
    direction = "reverse" if layer.go_backwards else "forward"
    y, *last = _run(writer, layer, stored, direction, x, _as_list(state))
    states = [writer.one("Squeeze", [one, writer.ints(0)]) for one in last]
    if not layer.return_sequences:
        found = states[0]
    else:
        found = writer.one("Squeeze", [y, writer.ints(1)])
        found = writer.one("Transpose", [found], {"perm": TIME_FIRST})
        if layer.go_backwards:  # Keras returns the steps as they were taken
            ends = [writer.ints(n) for n in (-1, -(2**63) + 1, 1, -1)]
            found = writer.one("Slice", [found, *ends])
    return [found, *(states if layer.return_state else [])]


def _bidirectional(writer: _Writer, layer: Any, x: Any, state: Any) -> list[str]:
    x, state = (x[0], x[1:]) if isinstance(x, list) else (x, state)
    ways = layer.forward_layer, layer.backward_layer
    kinds = [type(one) for one in ways]
    settings = [_arrays(one)[1:] for one in ways if type(one) in RECURRENT]
    shapes = [[w.shape for w in one.weights] for one in ways]
    if len(settings) < 2 or settings[0] != settings[1] or shapes[0] != shapes[1]:
        raise ValueError(
            f"{writer.who}: {layer.who} has {kinds[0].__name__} and {kinds[1].__name__} of shapes"
            f" {shapes[0]} and {shapes[1]}, expected LSTM, GRU or SimpleRNN, alike in both"
            " directions, because they are one node of ONNX"
        )
    if ways[0].go_backwards:
        raise ValueError(
            f"{writer.who}: {layer.who}: its first layer goes backwards, expected forwards"
        )
    arrays = _arrays(ways[0], "forward/")[0] | _arrays(ways[1], "backward/")[0]
    stored = _converted(writer, layer, arrays, *settings[0])
    y, *last = _run(writer, layer, stored, "bidirectional", x, _as_list(state))
    states = [_halves(writer, one, 0) for one in last]
    found = states[0]
    if layer.return_sequences:
        found = [
            writer.one("Transpose", [one], {"perm": TIME_FIRST}) for one in _halves(writer, y, 1)
        ]
    if layer.merge_mode == "concat":
        found = [writer.one("Concat", found, {"axis": -1})]
    elif layer.merge_mode is not None:
        found = [writer.one(MERGES[layer.merge_mode], found)]
    return [*found, *([part[k] for k in (0, 1) for part in states] if layer.return_state else [])]


def _halves(writer: _Writer, name: str, axis: int) -> list[str]:
    """The two directions, their axis dropped."""
    halves = [writer.fresh("half"), writer.fresh("half")]
    writer.node("Split", [name, writer.ints(1, 1)], halves, {"axis": axis})
    return [writer.one("Squeeze", [half, writer.ints(axis)]) for half in halves]


def _dense(writer: _Writer, layer: Any, x: str) -> list[str]:
    found = writer.one("MatMul", [x, writer.constant(f"{layer.name}/kernel", layer.kernel)])
    if layer.bias is not None:
        found = writer.one("Add", [found, writer.constant(f"{layer.name}/bias", layer.bias)])
    return [writer.activated(layer, layer.activation.name, found)]


def _distributed(writer: _Writer, layer: Any, x: str) -> list[str]:
    inner = layer.layer
    if type(inner) not in (layers.Dense, layers.Activation, layers.Dropout):
        raise ValueError(
            f"{writer.who}: {layer.who} has a {type(inner).__name__}, expected Dense, Activation or"
            " Dropout, which act on the last axis alone"
        )
    return writer.call(inner, [x], {})


def _embedding(writer: _Writer, layer: Any, x: str) -> list[str]:
    if layer.mask_zero:
        raise ValueError(
            f"{writer.who}: {layer.who} makes a mask, expected mask_zero=False, because ONNX has no"
            " masks"
        )
    to = {"to": CODES["int64"]}
    ids = x if x in writer.ids else writer.one("Cast", [x], to)
    table = writer.constant(f"{layer.name}/embeddings", layer.weights[0])
    return [writer.one("Gather", [table, ids], {"axis": 0})]


def _activation(writer: _Writer, layer: Any, x: str) -> list[str]:
    return [writer.activated(layer, layer.activation.name, x)]


def _merge(op: str) -> Callable[..., list[str]]:
    return lambda writer, layer, xs: [writer.one(op, xs)]


def _concatenate(writer: _Writer, layer: Any, xs: list[str]) -> list[str]:
    return [writer.one("Concat", xs, {"axis": int(layer.axis)})]


def _same(writer: _Writer, layer: Any, x: str) -> list[str]:
    return [x]


def _reshape(writer: _Writer, layer: Any, x: str) -> list[str]:
    return [writer.one("Reshape", [x, writer.ints(0, *layer.target_shape)])]


def _flatten(writer: _Writer, layer: Any, x: str) -> list[str]:
    if layer.data_format == "channels_first":
        raise ValueError(f"{writer.who}: {layer.who}: data_format, expected channels_last")
    return [writer.one("Flatten", [x], {"axis": 1})]


def _permute(writer: _Writer, layer: Any, x: str) -> list[str]:
    return [writer.one("Transpose", [x], {"perm": [0, *map(int, layer.dims)]})]


def _repeat(writer: _Writer, layer: Any, x: str) -> list[str]:
    wide = writer.one("Unsqueeze", [x, writer.ints(1)])
    return [writer.one("Tile", [wide, writer.ints(1, layer.n, 1)])]


def _leaky(writer: _Writer, layer: Any, x: str) -> list[str]:
    return [writer.one("LeakyRelu", [x], {"alpha": float(layer.negative_slope)})]


def _elu(writer: _Writer, layer: Any, x: str) -> list[str]:
    return [writer.one("Elu", [x], {"alpha": float(layer.alpha)})]


RECURRENT = (layers.LSTM, layers.GRU, layers.SimpleRNN)
STATED = {*RECURRENT, layers.Bidirectional}
EMIT: dict[type[Layer], Callable[..., list[str]]] = {
    **dict.fromkeys(RECURRENT, _recurrent),
    layers.Bidirectional: _bidirectional,
    layers.Dense: _dense,
    layers.TimeDistributed: _distributed,
    layers.Embedding: _embedding,
    layers.Activation: _activation,
    layers.LeakyReLU: _leaky,
    layers.ELU: _elu,
    layers.Concatenate: _concatenate,
    layers.Add: _merge("Add"),
    layers.Subtract: _merge("Sub"),
    layers.Multiply: _merge("Mul"),
    layers.Average: _merge("Mean"),
    layers.Maximum: _merge("Max"),
    layers.Minimum: _merge("Min"),
    layers.Reshape: _reshape,
    layers.Flatten: _flatten,
    layers.Permute: _permute,
    layers.RepeatVector: _repeat,
    **dict.fromkeys(
        (
            layers.Dropout,
            layers.SpatialDropout1D,
            layers.GaussianNoise,
            layers.GaussianDropout,
            layers.AlphaDropout,
            layers.ActivityRegularization,
            layers.Identity,
        ),
        _same,
    ),
}
