"""The operations of OpenVINO as nodes that are called and defined as in ONNX."""

from collections.abc import Callable
from typing import Any

import numpy as np

from refrnn.files.errors import FileError, shown
from refrnn.files.graphs import Graph, Node, Port
from refrnn.files.graphs.graph import CODES
from refrnn.files.openvino.network import DTYPES, Layer, Network, numbers

TROUBLES = {
    "TensorIterator": "is a loop, expected LSTMSequence, GRUSequence or RNNSequence, because a loop"
    " does not say which cell it runs: convert from a model with the layers themselves (of PyTorch"
    " or ONNX), or load the Keras model itself",
    "ReadValue": "keeps a value from one call to the next, expected none: take the model before"
    " its states were hidden in it (MakeStateful, LowLatency2)",
}  # fmt: skip
TROUBLES |= {"Loop": TROUBLES["TensorIterator"], "If": TROUBLES["TensorIterator"],
             "Assign": TROUBLES["ReadValue"]}  # fmt: skip
PLAIN = {
    "Add": "Add", "Subtract": "Sub", "Multiply": "Mul", "Maximum": "Max", "Minimum": "Min",
    "Relu": "Relu", "ReLU": "Relu", "Tanh": "Tanh", "Sigmoid": "Sigmoid", "SoftPlus": "Softplus",
    "SoftSign": "Softsign", "ShapeOf": "Shape", "Squeeze": "Squeeze", "Unsqueeze": "Unsqueeze",
    "Broadcast": "Expand",
}  # fmt: skip
SEQUENCES = {"LSTMSequence": "LSTM", "GRUSequence": "GRU", "RNNSequence": "RNN"}
FEW = 1 << 20  # numbers
LISTS = {"activations_alpha": "activation_alpha", "activations_beta": "activation_beta"}


class Translator:
    """Goes through the layers once."""

    def __init__(self, network: Network) -> None:
        self.constants = dict(network.constants)
        self.nodes: list[Node] = []
        self.inputs: list[Port] = []
        self.outputs: list[Port] = []
        self.left = 4 * sum(array.size for array in self.constants.values()) + FEW

    def run(self, layer: Layer) -> None:
        if layer.type == "Parameter":
            self._parameter(layer)
            return
        if layer.type == "Result":
            given = next(iter(layer.inputs), "")
            self.outputs.append(Port(given, None, None))
            return
        node = Node("", layer.name, layer.inputs, layer.outputs, {}, layer.type)
        try:
            made = self._node(layer, node)
        except FileError as error:
            made = node._replace(trouble=str(error))
        if made is not None:
            self.nodes.append(made)

    def _parameter(self, layer: Layer) -> None:
        if len(layer.outputs) != 1:
            raise FileError(f"layer {shown(layer.name)} has no output, expected one")
        sizes = [part.strip() for part in layer.data.get("shape", "").split(",") if part.strip()]
        shape = tuple(int(n) if n.isdecimal() and len(n) < 19 else None for n in sizes)
        dtype = DTYPES.get(layer.data.get("element_type", ""))
        self.inputs.append(Port(layer.outputs[0], dtype, shape))

    def _node(self, layer: Layer, node: Node) -> Node | None:
        if layer.inside or layer.type in TROUBLES:
            return node._replace(trouble=TROUBLES.get(layer.type, TROUBLES["Loop"]))
        if not layer.inputs or not layer.outputs:
            raise FileError("has no input or no output, expected both")
        if layer.type in PLAIN:
            return node._replace(op=PLAIN[layer.type])
        if layer.type in SEQUENCES:
            return _sequence(layer, node)
        if layer.type not in OPERATIONS:
            known = ", ".join(sorted({*PLAIN, *SEQUENCES, *OPERATIONS}))
            raise FileError(f"is not of refrnn's, expected one of {known}")
        return OPERATIONS[layer.type](self, layer, node)

    def ints(self, layer: Layer, k: int, what: str) -> list[int]:
        """The constant whole numbers that are input `k`."""
        found = self.constants.get(layer.inputs[k]) if k < len(layer.inputs) else None
        if found is None or found.dtype.kind not in "iu" or found.ndim > 1 or found.size > 32:
            raise FileError(f"{what} is not given, or computed, expected constant whole numbers")
        return [int(n) for n in found.reshape(-1)]

    def number(self, layer: Layer, k: int, what: str) -> Any:
        found = self.constants.get(layer.inputs[k]) if k < len(layer.inputs) else None
        if found is None or found.size != 1:
            raise FileError(f"{what} is not given, or computed, expected a constant number")
        return found.reshape(-1)[0].item()


def graph(network: Network) -> Graph:
    """The graph of a network."""
    found = Translator(network)
    for layer in network.layers:
        found.run(layer)
    return Graph(
        found.nodes,
        found.constants,
        found.inputs,
        found.outputs,
        "OpenVINO IR",
        network.writer,
    )


def _sequence(layer: Layer, node: Node) -> Node:
    """A recurrent one. Its inputs as ONNX has them: X, W, R, B, sequence_lens, h, c."""
    lstm = layer.type == "LSTMSequence"
    if len(layer.inputs) != 6 + lstm:
        raise FileError(f"has {len(layer.inputs)} inputs, expected {6 + lstm}")
    x, h, *rest = layer.inputs
    c = [rest.pop(0)] if lstm else []
    lengths, *weights = rest
    told: dict[str, Any] = {}
    for name, text in layer.data.items():
        if name == "hidden_size":
            told[name] = next(iter(numbers(text)), None)
        elif name == "direction":
            told[name] = text
        elif name == "linear_before_reset":
            told[name] = int(text in ("true", "1"))
        elif name == "clip":
            told |= {"clip": _float(text)} if _float(text) else {}
        elif name == "activations":
            both = layer.data.get("direction") == "bidirectional"
            told[name] = _listed(text) * (1 + both)  # the same for each direction
        elif name in LISTS:
            told |= {LISTS[name]: [_float(n) for n in _listed(text)]} if _listed(text) else {}
        else:
            raise FileError(f"has the attribute {shown(name)}, expected none such")
    if layer.type == "RNNSequence":
        told.pop("linear_before_reset", None)
    return node._replace(
        op=SEQUENCES[layer.type],
        source="openvino",
        inputs=[x, *weights, lengths, h, *c],
        attributes=told,
    )


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise FileError(f"has {shown(text)}, expected a number") from None


def _flag(layer: Layer, name: str) -> bool:
    return layer.data.get(name, "false") in ("true", "1")


def _axis(layer: Layer, default: int) -> int:
    return next(iter(numbers(layer.data.get("axis", str(default)))), default)


def _transpose(to: Translator, layer: Layer, node: Node) -> Node:
    order = to.ints(layer, 1, "order")
    return node._replace(op="Transpose", inputs=layer.inputs[:1], attributes={"perm": order})


def _matmul(to: Translator, layer: Layer, node: Node) -> Node:
    if _flag(layer, "transpose_a"):
        raise FileError("transpose_a is true, expected false")
    turned = {"transB": 1} if _flag(layer, "transpose_b") else {}
    return node._replace(op="Gemm", attributes=turned)


def _gather(to: Translator, layer: Layer, node: Node) -> Node:
    if layer.data.get("batch_dims", "0") != "0":
        raise FileError(f"batch_dims is {shown(layer.data['batch_dims'])}, expected 0")
    axis = to.ints(layer, 2, "axis")
    if len(axis) != 1:
        raise FileError(f"axis is {axis}, expected one")
    return node._replace(op="Gather", inputs=layer.inputs[:2], attributes={"axis": axis[0]})


def _concat(to: Translator, layer: Layer, node: Node) -> Node:
    return node._replace(op="Concat", attributes={"axis": _axis(layer, 0)})


def _split(to: Translator, layer: Layer, node: Node) -> Node:
    axis = to.ints(layer, 1, "axis")
    if len(axis) != 1:
        raise FileError(f"axis is {axis}, expected one")
    sizes = layer.inputs[2:]
    return node._replace(op="Split", inputs=[layer.inputs[0], *sizes], attributes={"axis": axis[0]})


def _softmax(to: Translator, layer: Layer, node: Node) -> Node:
    op = "LogSoftmax" if layer.type == "LogSoftmax" else "Softmax"
    return node._replace(op=op, attributes={"axis": _axis(layer, 1 if op == "Softmax" else -1)})


def _elu(to: Translator, layer: Layer, node: Node) -> Node:
    return node._replace(op="Elu", attributes={"alpha": _float(layer.data.get("alpha", ""))})


def _hard(to: Translator, layer: Layer, node: Node) -> Node:
    told = {name: to.number(layer, k, name) for k, name in ((1, "alpha"), (2, "beta"))}
    return node._replace(op="HardSigmoid", inputs=layer.inputs[:1], attributes=told)


def _reshape(to: Translator, layer: Layer, node: Node) -> Node:
    target = to.constants.get(layer.inputs[-1])
    if not _flag(layer, "special_zero") and target is not None and not target.all():
        raise FileError("makes an axis of size 0, expected special_zero, or sizes from 1 on")
    return node._replace(op="Reshape")


def _convert(to: Translator, layer: Layer, node: Node) -> Node | None:
    dtype = DTYPES.get(layer.data.get("destination_type", ""))
    if dtype is None:
        raise FileError(
            f"destination_type is {shown(layer.data.get('destination_type'))}, expected one of"
            f" {', '.join(DTYPES)}"
        )
    constant = to.constants.get(layer.inputs[0])
    if constant is None or dtype == "bfloat16":
        return node._replace(op="Cast", attributes={"to": CODES[dtype]})
    to.left -= constant.size
    if to.left < 0:
        raise FileError("converts constants again and again, expected each once")
    with np.errstate(invalid="ignore", over="ignore"):
        to.constants[layer.outputs[0]] = constant.astype(dtype)
    return None


def _slice(to: Translator, layer: Layer, node: Node) -> Node:
    """Its steps come before its axes; in ONNX after."""
    if not 4 <= len(layer.inputs) <= 5:
        raise FileError(f"has {len(layer.inputs)} inputs, expected 4 or 5")
    x, start, stop, step, *axes = layer.inputs
    return node._replace(op="Slice", inputs=[x, start, stop, *(axes or [""]), step])


OPERATIONS: dict[str, Callable[[Translator, Layer, Node], Node | None]] = {
    "Transpose": _transpose, "MatMul": _matmul, "Gather": _gather, "Concat": _concat,
    "Split": _split, "VariadicSplit": _split, "SoftMax": _softmax, "Softmax": _softmax,
    "LogSoftmax": _softmax, "Elu": _elu, "HardSigmoid": _hard, "Reshape": _reshape,
    "Convert": _convert, "Slice": _slice,
}  # fmt: skip
