"""The operators of TFLite as nodes that are called and defined as in ONNX."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from refrnn.files.errors import FileError, clip
from refrnn.files.graphs import Graph, Node
from refrnn.files.graphs.graph import CODES
from refrnn.files.tflite import lstm
from refrnn.files.tflite.schema import DTYPES, File, Operator, Tensor
from refrnn.gates import Array

NAMES = {
    16: "LSTM", 24: "RNN", 31: "CALL", 35: "UNIDIRECTIONAL_SEQUENCE_RNN",
    49: "SPLIT", 88: "UNPACK", 46: "BIDIRECTIONAL_SEQUENCE_RNN",
    52: "BIDIRECTIONAL_SEQUENCE_LSTM", 114: "QUANTIZE",
    118: "IF", 119: "WHILE", 129: "CALL_ONCE", 142: "VAR_HANDLE", 143: "READ_VARIABLE",
    144: "ASSIGN_VARIABLE",
}  # fmt: skip
CUSTOM = 32
LOOP = (
    "is a loop, into which the converter turns every recurrent layer but an LSTM of tf_keras with"
    " its default activations, biases, a batch of a fixed size and no return_state, expected a"
    " fused UNIDIRECTIONAL_SEQUENCE_LSTM, because a loop does not say which layer it was: load the"
    " Keras model (.keras, .h5) itself, or convert it as such an LSTM"
)
LOOPS = ("WHILE", "IF", "CALL", "CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE")
ACTIVATIONS = {1: "Relu", 4: "Tanh"}  # fused into another operator, by their code
BITS = 32  # of a mask of axes


class Translator:
    """Goes through the operators once; what it makes is in `nodes` and `constants`."""

    def __init__(self, file: File) -> None:
        self.constants = {t.name: t.array for t in file.tensors if t.array is not None}
        self.nodes: list[Node] = []
        self.remarks: list[tuple[str, str]] = []

    def run(self, operator: Operator) -> None:
        kind, translate = OPERATORS.get(operator.code, (_kind(operator), None))
        given = [_name(tensor) for tensor in operator.inputs]
        node = Node("", "", given, [t.name for t in operator.outputs], {}, kind)
        if translate is None:
            known = ", ".join(sorted(name for name, _ in OPERATORS.values()))
            said = LOOP if kind in LOOPS else f"is not of refrnn's, expected one of {known}"
            self.nodes.append(node._replace(trouble=said))
            return
        try:
            if not node.outputs or not node.inputs:
                raise FileError("has no input or no output, expected both")
            self.nodes += list(translate(self, operator, node))
        except FileError as error:
            self.nodes.append(node._replace(trouble=str(error)))

    def array(self, operator: Operator, k: int, what: str) -> Array:
        """The constant that is input `k`."""
        tensor = operator.inputs[k] if k < len(operator.inputs) else None
        found = None if tensor is None else self.constants.get(tensor.name)
        if found is None:
            raise FileError(f"{what} is not given, or computed, expected a constant")
        return found

    def ints(self, operator: Operator, k: int, what: str) -> list[int]:
        found = self.array(operator, k, what)
        if found.dtype.kind not in "iu" or found.ndim > 1 or found.size > BITS:
            raise FileError(f"{what} is {found.dtype} {found.shape}, expected a few whole numbers")
        return [int(n) for n in found.reshape(-1)]

    def constant(self, node: Node, what: str, value: Any) -> str:
        """The name of a constant that the node needs."""
        name = f"{node.outputs[0]}/{what}"
        self.constants[name] = np.asarray(value)
        return name


def graph(file: File) -> Graph:
    """The graph of a file."""
    found = Translator(file)
    for operator in file.operators:
        found.run(operator)
    if file.others and not any(node.trouble for node in found.nodes):
        raise FileError(f"has {file.others} more graphs, expected one")
    return Graph(
        found.nodes,
        found.constants,
        [tensor.port for tensor in file.inputs],
        [tensor.port for tensor in file.outputs],
        "TFLite",
        file.writer,
        tuple(found.remarks),
    )


def _name(tensor: Tensor | None) -> str:
    return "" if tensor is None else tensor.name


def _kind(operator: Operator) -> str:
    if operator.code == CUSTOM:
        return f"CUSTOM {clip(operator.custom)}"
    return NAMES.get(operator.code, f"operator {operator.code}")


def _option(operator: Operator, number: int, kind: str, default: Any = 0) -> Any:
    return default if operator.options is None else operator.options.number(number, kind, default)


def _floats(operator: Operator) -> None:
    """Refuse numbers that stand for others: the interpreter computes with them otherwise."""
    for tensor in (*operator.inputs, *operator.outputs):
        if tensor is not None and (tensor.quantized or tensor.dtype in ("int8", "uint8", "int16")):
            raise FileError(
                f"{tensor.name!r} is {tensor.dtype}, quantized, expected float32 or float16,"
                " because the interpreter rounds the inputs to 8 bits too as it goes: convert"
                " without optimizations, or with supported_types = [tf.float16]"
            )


def _activated(node: Node, code: int) -> Iterator[Node]:
    """A node, and the activation that is fused into it as one of its own."""
    if code and code not in ACTIVATIONS:
        raise FileError(f"has the fused activation {code}, expected none, 1 (RELU) or 4 (TANH)")
    if not code:
        yield node
        return
    inner = f"{node.outputs[0]}/before"
    yield node._replace(outputs=[inner])
    yield Node(ACTIVATIONS[code], "", [inner], node.outputs, {}, node.kind)


# --- the operators ---

Made = Iterator[Node]


def _plain(op: str) -> "Callable[[Translator, Operator, Node], Made]":
    def made(to: Translator, operator: Operator, node: Node) -> Made:
        _floats(operator)
        yield node._replace(op=op)

    return made


def _merged(op: str) -> "Callable[[Translator, Operator, Node], Made]":
    def made(to: Translator, operator: Operator, node: Node) -> Made:
        _floats(operator)
        yield from _activated(node._replace(op=op), _option(operator, 0, "b"))

    return made


def _dequantize(to: Translator, operator: Operator, node: Node) -> Made:
    array = to.array(operator, 0, "what it takes")
    if array.dtype != np.float16:
        _floats(operator)
        raise FileError(f"takes {array.dtype}, expected float16")
    to.constants[node.outputs[0]] = array.astype(np.float32)
    yield from ()


def _dense(to: Translator, operator: Operator, node: Node) -> Made:
    _floats(operator)
    if _option(operator, 1, "b"):
        raise FileError("weights_format is not 0, expected plain weights")
    x, keeps = operator.inputs[0], _option(operator, 2, "?", False)
    if x is None or (len(x.shape) > 2 and not keeps):
        raise FileError(
            "makes a matrix of an array of more axes, expected keep_num_dims, because that would"
            " join the batch with the time"
        )
    made = node._replace(op="Gemm", attributes={"transB": 1})
    yield from _activated(made, _option(operator, 0, "b"))


def _softmax(to: Translator, operator: Operator, node: Node) -> Made:
    _floats(operator)
    beta = _option(operator, 0, "f", 1.0)
    if beta != 1:
        raise FileError(f"beta is {beta}, expected 1")
    yield node._replace(op="Softmax", attributes={"axis": -1})


def _log_softmax(to: Translator, operator: Operator, node: Node) -> Made:
    _floats(operator)
    yield node._replace(op="LogSoftmax", attributes={"axis": -1})


def _leaky(to: Translator, operator: Operator, node: Node) -> Made:
    _floats(operator)
    yield node._replace(op="LeakyRelu", attributes={"alpha": _option(operator, 0, "f")})


def _reshape(to: Translator, operator: Operator, node: Node) -> Made:
    if len(operator.inputs) < 2 or operator.inputs[1] is None:
        listed = None if operator.options is None else operator.options.numbers(0, "<i4")
        if listed is None:
            raise FileError("has no shape, expected one")
        name = to.constant(node, "shape", listed.astype(np.int64))
        node = node._replace(inputs=[node.inputs[0], name])
    yield node._replace(op="Reshape")


def _transpose(to: Translator, operator: Operator, node: Node) -> Made:
    perm = to.ints(operator, 1, "perm")
    yield node._replace(op="Transpose", inputs=node.inputs[:1], attributes={"perm": perm})


def _reverse(to: Translator, operator: Operator, node: Node) -> Made:
    axes = to.ints(operator, 1, "axis")
    if len(axes) != 1:
        raise FileError(f"reverses the axes {axes}, expected one")
    yield node._replace(op="Reverse", inputs=node.inputs[:1], attributes={"axis": axes[0]})


def _squeeze(to: Translator, operator: Operator, node: Node) -> Made:
    listed = None if operator.options is None else operator.options.numbers(0, "<i4")
    if listed is None or not listed.size:
        raise FileError("has no axes, expected those that it drops")
    name = to.constant(node, "axes", listed.astype(np.int64))
    yield node._replace(op="Squeeze", inputs=[node.inputs[0], name])


def _concatenated(to: Translator, operator: Operator, node: Node) -> Made:
    _floats(operator)
    made = node._replace(op="Concat", attributes={"axis": _option(operator, 0, "i")})
    yield from _activated(made, _option(operator, 1, "b"))


def _packed(to: Translator, operator: Operator, node: Node) -> Made:
    if any(tensor is None or tensor.shape for tensor in operator.inputs):
        raise FileError("puts arrays one upon another, expected the sizes of a shape")
    yield node._replace(op="Concat", attributes={"axis": 0})


def _gather(to: Translator, operator: Operator, node: Node) -> Made:
    _floats(operator)
    if _option(operator, 1, "i"):
        raise FileError("batch_dims is not 0, expected 0")
    yield node._replace(op="Gather", attributes={"axis": _option(operator, 0, "i")})


def _cast(to: Translator, operator: Operator, node: Node) -> Made:
    dtype = operator.outputs[0].dtype
    if dtype not in CODES:
        raise FileError(f"makes {dtype}, expected one of {', '.join(DTYPES.values())}")
    yield node._replace(op="Cast", attributes={"to": CODES[dtype]})


def _strided(to: Translator, operator: Operator, node: Node) -> Made:
    """All of an array, or one entry of one axis."""
    begin, end, step = (to.ints(operator, k, w) for k, w in ((1, "begin"), (2, "end"), (3, "step")))
    masks = [_option(operator, k, "i") for k in range(5)]
    x = operator.inputs[0]
    if x is None or masks[2] or masks[3] or not len(begin) == len(end) == len(step) <= BITS:
        raise FileError("has a new axis or an ellipsis, expected a beginning and end for each axis")
    picked = []
    for k, (first, last, by) in enumerate(zip(begin, end, step, strict=True)):
        if masks[4] >> k & 1:
            picked.append((k, first))
            continue
        size = x.shape[k] if k < len(x.shape) else None
        first = 0 if masks[0] >> k & 1 else first
        whole = masks[1] >> k & 1 or (size is not None and last >= size)
        if by != 1 or first or not whole:
            raise FileError(
                f"takes {first} to {last} by {by} of axis {k}, expected all, or one entry"
            )
    if len(picked) > 1:
        raise FileError(f"takes one entry of the axes {[k for k, _ in picked]}, expected one axis")
    if not picked:
        yield node._replace(op="Identity", inputs=node.inputs[:1])
        return
    [(axis, index)] = picked
    name = to.constant(node, "index", np.int64(index))
    yield node._replace(op="Gather", inputs=[node.inputs[0], name], attributes={"axis": axis})


def _lstm(to: Translator, operator: Operator, node: Node) -> Made:
    _floats(operator)
    made, remarks = lstm.node(operator, node, to.constants)
    to.remarks += remarks
    yield made


OPERATORS: dict[int, tuple[str, Any]] = {
    0: ("ADD", _merged("Add")), 2: ("CONCATENATION", _concatenated),
    6: ("DEQUANTIZE", _dequantize), 9: ("FULLY_CONNECTED", _dense),
    14: ("LOGISTIC", _plain("Sigmoid")), 18: ("MUL", _merged("Mul")), 19: ("RELU", _plain("Relu")),
    22: ("RESHAPE", _reshape), 25: ("SOFTMAX", _softmax), 28: ("TANH", _plain("Tanh")),
    36: ("GATHER", _gather), 39: ("TRANSPOSE", _transpose), 41: ("SUB", _merged("Sub")),
    43: ("SQUEEZE", _squeeze), 44: ("UNIDIRECTIONAL_SEQUENCE_LSTM", _lstm),
    45: ("STRIDED_SLICE", _strided), 50: ("LOG_SOFTMAX", _log_softmax), 53: ("CAST", _cast),
    55: ("MAXIMUM", _plain("Max")), 57: ("MINIMUM", _plain("Min")),
    70: ("EXPAND_DIMS", _plain("Unsqueeze")), 77: ("SHAPE", _plain("Shape")),
    83: ("PACK", _packed), 98: ("LEAKY_RELU", _leaky), 105: ("REVERSE_V2", _reverse),
    111: ("ELU", _plain("Elu")),
}  # fmt: skip
