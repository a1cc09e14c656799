"""A file of TFLite: its tensors and operators; field numbers as in the schema of TensorFlow."""

import math
from typing import NamedTuple

import numpy as np

from refrnn.files.errors import FileError, shown, within
from refrnn.files.graphs import Port
from refrnn.files.tflite.flatbuffer import Buffer, Table
from refrnn.gates import Array

MARK = b"TFL3"  # at byte 4
DTYPES = {
    0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16",
    9: "int8", 10: "float64", 12: "uint64", 15: "uint32", 16: "uint16",
}  # fmt: skip


class Tensor(NamedTuple):
    """One tensor.

    name      there once: with its number where the file has it twice
    shape     as the file has it; None for a size that is not known
    array     its numbers, where it is a constant
    lasting   whether it keeps its value from one call to the next
    quantized whether its numbers stand for others, by a scale
    """

    name: str
    dtype: str | None
    shape: tuple[int | None, ...]
    array: Array | None
    lasting: bool
    quantized: bool

    @property
    def port(self) -> Port:
        return Port(self.name, self.dtype, self.shape)


class Operator(NamedTuple):
    """One operator: its code in the schema, its tensors, None for those not given, its options."""

    code: int
    custom: str
    inputs: list[Tensor | None]
    outputs: list[Tensor]
    options: Table | None


class File(NamedTuple):
    """The first graph of a file. others: how many graphs there are beside it."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    tensors: list[Tensor]
    operators: list[Operator]
    others: int
    writer: str


def read(data: bytes) -> File:
    """What is in a file. Raises FileError where it is damaged or none of TFLite's."""
    if data[4:8] != MARK:
        raise FileError(
            f"begins with {shown(data[:8])}, expected {shown(MARK)} at byte 4: it is no TFLite file"
        )
    model = Buffer(data).root()
    graphs, buffers = model.tables(2), model.tables(4)
    if not graphs:
        raise FileError("has no graph, expected one")
    codes = [_code(table) for table in model.tables(1)]
    graph = graphs[0]
    names: set[str] = set()
    tensors: list[Tensor] = []
    for k, table in enumerate(graph.tables(0)):
        with within(f"tensor {k}"):
            tensors.append(_tensor(k, table, buffers, names))
        names.add(tensors[-1].name)

    def tensor(k: int) -> Tensor:
        if not 0 <= k < len(tensors):
            raise FileError(f"has tensor {k}, expected one of {len(tensors)}")
        return tensors[k]

    operators = []
    for k, table in enumerate(graph.tables(3)):
        with within(f"operator {k}"):
            index = table.number(0, "I")
            if index >= len(codes):
                raise FileError(f"has code {index}, expected one of {len(codes)}")
            given = [None if n == -1 else tensor(n) for n in _ints(table, 1)]
            made = [tensor(n) for n in _ints(table, 2)]
            code, custom = codes[index]
            operators.append(Operator(code, custom, given, made, table.table(4)))
    inputs, outputs = ([tensor(n) for n in _ints(graph, k)] for k in (1, 2))
    writer = model.text(3) or "not said"
    return File(inputs, outputs, tensors, operators, len(graphs) - 1, writer)


def _ints(table: Table, number: int) -> list[int]:
    found = table.numbers(number, "<i4")
    return [] if found is None else [int(n) for n in found]


def _code(table: Table) -> tuple[int, str]:
    """The larger of the two fields, of which the first is as old as the format, and its name."""
    return max(table.number(0, "b"), table.number(3, "i")), table.text(1)


def _tensor(k: int, table: Table, buffers: list[Table], names: set[str]) -> Tensor:
    name, shape = table.text(3) or f"tensor {k}", _ints(table, 0)
    if name in names:
        name = f"{name}, tensor {k}"
    if name in names or min(shape, default=0) < -1 or len(shape) > 8:
        raise FileError(f"{shown(name)} has shape {shown(shape)}, expected up to 8 sizes from 0 on")
    signature = _ints(table, 7) or shape
    if len(signature) != len(shape):
        raise FileError(f"{shown(name)} has shapes {shown(shape)} and {shown(signature)}")
    dtype = DTYPES.get(table.number(1, "b"))
    place = table.number(2, "I")
    if place >= max(len(buffers), 1):
        raise FileError(f"{shown(name)} has buffer {place}, expected one of {len(buffers)}")
    array = None
    data = buffers[place].numbers(0, "u1") if place else None
    if place and (buffers[place].number(1, "Q") > 1 or buffers[place].number(2, "Q") > 1):
        raise FileError(f"{shown(name)} is stored behind the tables, expected a file below 2 GB")
    if data is not None and data.size and table.table(6) is None:
        if dtype is None or data.size != math.prod(shape) * np.dtype(dtype).itemsize:
            raise FileError(
                f"{shown(name)} has {data.size} bytes, expected those of {shape} of {dtype}"
            )
        array = np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape)
        array = array.astype(dtype, copy=False)
    scales = table.table(4)
    found = None if scales is None else scales.numbers(2, "<f4")
    quantized = found is not None and found.size > 0
    sizes = tuple(n if n >= 0 else None for n in signature)
    return Tensor(name, dtype, sizes, array, bool(table.number(5, "b")), quantized)
