"""The few messages of ONNX that a node test needs, written by hand: the package is not needed.

A field is its number and wire type, then a varint or so many bytes (protobuf's encoding); the
numbers are those of onnx.proto.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refrnn.gates import Array

IR_VERSION, OPSET = 8, 14
ELEMENT = {"float32": 1, "int32": 6}
INT, STRING = 2, 3


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, value: "int | str | bytes") -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def _message(*fields: tuple[int, Any]) -> bytes:
    return b"".join(_field(number, value) for number, value in fields)


def tensor(name: str, array: Array) -> bytes:
    """A TensorProto."""
    raw = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    dims = [(1, int(n)) for n in array.shape]
    return _message(*dims, (2, ELEMENT[array.dtype.name]), (8, name), (9, raw))


def _value(name: str, array: Array) -> bytes:
    """A ValueInfoProto: a name, a type and a shape."""
    shape = _message(*((1, _message((1, int(n)))) for n in array.shape))
    kind = _message((1, ELEMENT[array.dtype.name]), (2, shape))
    return _message((1, name), (2, _message((1, kind))))


def _attribute(name: str, value: "int | str") -> bytes:
    if isinstance(value, int):
        return _message((1, name), (3, value), (20, INT))
    return _message((1, name), (4, value), (20, STRING))


def model(
    title: str,
    op: str,
    attributes: Mapping[str, "int | str"],
    inputs: Sequence[tuple[str, Array | None]],
    outputs: Sequence[tuple[str, Array]],
) -> bytes:
    """A ModelProto of one node, whose inputs are the graph's; an input of None is left out."""
    node = _message(
        *((1, name if array is not None else "") for name, array in inputs),
        *((2, name) for name, _ in outputs),
        (3, title),
        (4, op),
        *((5, _attribute(name, value)) for name, value in attributes.items()),
    )
    graph = _message(
        (1, node),
        (2, title),
        *((11, _value(name, array)) for name, array in inputs if array is not None),
        *((12, _value(name, array)) for name, array in outputs),
    )
    return _message((1, IR_VERSION), (2, "refrnn"), (7, graph), (8, _message((2, OPSET))))
