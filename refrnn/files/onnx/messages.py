"""The messages of ONNX, read and written without the onnx package; field numbers as in onnx.proto.

Weights may be in a file beside the model, as PyTorch writes them: by plain name, in its folder.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from refrnn.files import archive
from refrnn.files.errors import FileError, shown, within
from refrnn.files.graphs.graph import CODES, ELEMENTS, Graph, Node, Port, clean
from refrnn.files.onnx import wire
from refrnn.files.onnx.wire import Field, message
from refrnn.files.safetensors import widened
from refrnn.gates import Array

IR_VERSION, OPSET = 8, 14  # what is written: the oldest that is read
NEWEST = 28  # of the opsets that are read: that of ONNX 1.23

FLOAT, INT, STRING, TENSOR, FLOATS, INTS, STRINGS = 1, 2, 3, 4, 6, 7, 8
VALUES = {FLOAT: "f", INT: "i", STRING: "s", TENSOR: "t", FLOATS: "floats", INTS: "ints",
          STRINGS: "strings"}  # fmt: skip
LISTED = {"float32": "floats", "float64": "doubles", "int64": "int64s"}  # the others in int32s

_ENTRY = {1: Field("key", "text"), 2: Field("value", "text")}
_TENSOR = {
    1: Field("dims", "int", True), 2: Field("type", "int"), 3: Field("segment", "bytes"),
    4: Field("floats", "float", True), 5: Field("int32s", "int", True),
    7: Field("int64s", "int", True), 8: Field("name", "text"), 9: Field("raw", "bytes"),
    10: Field("doubles", "double", True), 13: Field("external", _ENTRY, True),
    14: Field("location", "int"),
}  # fmt: skip
_ATTRIBUTE = {
    1: Field("name", "text"), 2: Field("f", "float"), 3: Field("i", "int"), 4: Field("s", "text"),
    5: Field("t", _TENSOR), 6: Field("graph", "bytes"), 7: Field("floats", "float", True),
    8: Field("ints", "int", True), 9: Field("strings", "text", True), 20: Field("type", "int"),
    21: Field("reference", "text"),
}  # fmt: skip
_NODE = {
    1: Field("inputs", "text", True), 2: Field("outputs", "text", True), 3: Field("name", "text"),
    4: Field("op", "text"), 5: Field("attributes", _ATTRIBUTE, True), 7: Field("domain", "text"),
}  # fmt: skip
_DIMENSION = {1: Field("size", "int"), 2: Field("name", "text")}
_SHAPE = {1: Field("dims", _DIMENSION, True)}
_KIND = {1: Field("tensor", {1: Field("element", "int"), 2: Field("shape", _SHAPE)})}
_VALUE = {1: Field("name", "text"), 2: Field("type", _KIND)}
_GRAPH = {
    1: Field("nodes", _NODE, True), 2: Field("name", "text"),
    5: Field("tensors", _TENSOR, True), 11: Field("inputs", _VALUE, True),
    12: Field("outputs", _VALUE, True), 15: Field("sparse", "bytes", True),
}  # fmt: skip
_OPSET = {1: Field("domain", "text"), 2: Field("version", "int")}
_MODEL = {
    1: Field("ir_version", "int"), 2: Field("producer", "text"), 3: Field("version", "text"),
    7: Field("graph", _GRAPH), 8: Field("opsets", _OPSET, True),
    25: Field("functions", "bytes", True),
}  # fmt: skip


def read(data: bytes, folder: Path) -> Graph:
    """The graph in a file of ONNX.

    folder  where files of weights may be

    Raises FileError for what is damaged, and, by name, for what refrnn does not read.
    """
    with within("ONNX", UnicodeDecodeError):
        found = wire.Reader().message(memoryview(data), _MODEL)
    graph = found["graph"]
    if graph is None or not graph["outputs"]:
        raise FileError("has no graph with outputs, expected a model of ONNX")
    _refuse(found, graph)
    [opset] = [o["version"] for o in found["opsets"] if o["domain"] in ("", "ai.onnx")] or [0]
    if not OPSET <= opset <= NEWEST:
        raise FileError(
            f"has operations of opset {opset}, expected {OPSET} to {NEWEST}; the package onnx"
            " converts older ones: onnx.version_converter.convert_version"
        )
    constants = {}
    for tensor in graph["tensors"]:
        with within(f"initializer {shown(tensor['name'])}"):
            constants[tensor["name"]] = array(tensor, folder)
    nodes = [_node(one, folder) for one in graph["nodes"]]
    inputs = [_port(value) for value in graph["inputs"] if value["name"] not in constants]
    names = [*constants, *(p.name for p in inputs), *(n for x in nodes for n in x.outputs if n)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise FileError(f"has the value {shown(twice)} twice, expected it once")
    outputs = list(map(_port, graph["outputs"]))
    writer = f"{found['producer']} {found['version']}".strip() or "not said"
    return Graph(nodes, constants, inputs, outputs, f"ONNX, opset {opset}", writer)


def _refuse(model: wire.Message, graph: wire.Message) -> None:
    if model["functions"]:
        raise FileError(f"has {len(model['functions'])} functions of its own, expected none")
    if graph["sparse"]:
        raise FileError("has sparse initializers, expected dense ones")
    for node in graph["nodes"]:
        if node["domain"] not in ("", "ai.onnx"):
            raise FileError(
                f"node {shown(node['name'])} is {clean(node['op'])} of {shown(node['domain'])},"
                " expected an operation of ONNX's own"
            )


def _node(found: wire.Message, folder: Path) -> Node:
    node = Node(found["op"], found["name"], found["inputs"], found["outputs"], {})
    for attribute in found["attributes"]:
        name, kind = attribute["name"], attribute["type"]
        with within(f"{node.who}: attribute {shown(name)}"):
            if name in node.attributes:
                raise FileError("is there twice, expected once")
            if kind not in VALUES or attribute["reference"]:
                what = "holds a graph" if len(attribute["graph"]) else f"is of type {kind}"
                raise FileError(f"{what}, expected numbers, a text or a tensor")
            value = attribute[VALUES[kind]]
            if kind == TENSOR:
                value = array(value or {**_empty(), "type": 0}, folder)
            node.attributes[name] = value
    return node


def _empty() -> wire.Message:
    return {field.name: field.default() for field in _TENSOR.values()}


def _port(value: wire.Message) -> Port:
    tensor = (value["type"] or {}).get("tensor")
    if tensor is None:
        return Port(value["name"], None, None)
    shape = tensor["shape"]
    sizes = None if shape is None else tuple(d["size"] or None for d in shape["dims"])
    return Port(value["name"], ELEMENTS.get(tensor["element"]), sizes)


def array(tensor: wire.Message, folder: Path) -> Array:
    """The numbers of a tensor; bfloat16 as float32."""
    dtype, shape = ELEMENTS.get(tensor["type"]), tensor["dims"]
    if dtype is None or len(tensor["segment"]):
        raise FileError(
            f"has type {tensor['type']}, expected one of"
            f" {', '.join(f'{k} ({name})' for k, name in ELEMENTS.items())}, in one piece"
        )
    if min(shape, default=0) < 0 or len(shape) > 32:
        raise FileError(f"has shape {shown(shape)}, expected sizes from 0, at most 32 of them")
    stored = np.dtype("<u2" if dtype == "bfloat16" else np.dtype(dtype).newbyteorder("<"))
    raw = _external(tensor, folder) if tensor["location"] else tensor["raw"]
    listed = tensor[LISTED.get(dtype, "int32s")]
    if len(raw) or not listed:
        if len(raw) != math.prod(shape) * stored.itemsize:
            raise FileError(f"has {len(raw)} bytes, expected those of {shape} of {dtype}")
        flat = np.frombuffer(raw, stored)
    else:
        if len(listed) != math.prod(shape):
            raise FileError(f"has {len(listed)} numbers, expected those of {shape}")
        halves = dtype in ("float16", "bfloat16")  # as bits in int32
        with within("numbers", OverflowError, ValueError):
            flat = np.array(listed, "<u2" if halves else stored).view(stored)
    flat = widened(flat) if dtype == "bfloat16" else flat
    return np.array(flat.reshape(shape), flat.dtype.newbyteorder("="))


def _external(tensor: wire.Message, folder: Path) -> bytes:
    """The bytes of a tensor that are in another file."""
    entries = {entry["key"]: entry["value"] for entry in tensor["external"]}
    name = entries.get("location", "")
    if name != Path(name).name or name in ("", ".", "..") or "\\" in name or "\0" in name:
        raise FileError(
            f"is in the file {shown(name)}, expected a plain name, because weights are read from"
            " the folder of the model only"
        )
    numbers = [entries.get(key, default) for key, default in (("offset", "0"), ("length", ""))]
    if not all(n.isdecimal() and len(n) < 20 for n in numbers):
        raise FileError(f"has offset and length {shown(numbers)}, expected whole numbers")
    offset, length = map(int, numbers)
    try:
        with archive.opened(folder / name) as (stream, size):
            if offset + length > size:
                raise FileError(f"has {size} bytes, expected {length} from {offset} on")
            stream.seek(offset)
            return b"".join(
                stream.read(min(archive.PIECE, length - k)) for k in range(0, length, archive.PIECE)
            )
    except FileError as error:
        raise FileError(f"{shown(name)}: {error}") from None
    except OSError as error:
        raise FileError(f"is in the file {shown(name)}: {error.strerror}") from None


# --- writing ---


def tensor(name: str, array: Array) -> bytes:
    """A TensorProto."""
    raw = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    dims = [(1, int(n)) for n in array.shape]
    return message(*dims, (2, CODES[array.dtype.name]), (8, name), (9, raw))


def value(name: str, dtype: str, shape: Sequence["int | str"]) -> bytes:
    """A ValueInfoProto: a name, a dtype and a shape, whose unknown sizes have names."""
    sizes = message(*((1, message((1 if isinstance(n, int) else 2, n))) for n in shape))
    return message((1, name), (2, message((1, message((1, CODES[dtype]), (2, sizes))))))


def _attribute(name: str, given: Any) -> bytes:
    """An AttributeProto of an int, a float, a text, or a list of them."""
    many = isinstance(given, list | tuple)
    first = given[0] if many else given
    number, kind = {int: (3, INT), float: (2, FLOAT), str: (4, STRING)}[type(first)]
    if not many:
        return message((1, name), (number, given), (20, kind))
    number = {INT: 8, FLOAT: 7, STRING: 9}[kind]
    return message((1, name), *((number, one) for one in given), (20, kind + 5))


def node(
    op: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    attributes: Mapping[str, Any] | None = None,
    name: str = "",
) -> bytes:
    """A NodeProto."""
    return message(
        *((1, one) for one in inputs),
        *((2, one) for one in outputs),
        (3, name),
        (4, op),
        *((5, _attribute(*item)) for item in (attributes or {}).items()),
    )


def model(
    title: str,
    nodes: Sequence[bytes],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    tensors: Sequence[bytes] = (),
) -> bytes:
    """A ModelProto."""
    graph = message(
        *((1, one) for one in nodes),
        (2, title),
        *((5, one) for one in tensors),
        *((11, one) for one in inputs),
        *((12, one) for one in outputs),
    )
    return message((1, IR_VERSION), (2, "refrnn"), (7, graph), (8, message((2, OPSET))))
