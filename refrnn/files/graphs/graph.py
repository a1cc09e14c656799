"""A graph of operations as every reader gives it: nodes, constants, inputs and outputs.

The operations are called and defined as in ONNX; a reader of another format translates its own, and
keeps for messages what they are called there.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from refrnn.files.errors import shown
from refrnn.gates import Array

# The dtypes of Cast, by their numbers in ONNX.
ELEMENTS = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16",
}  # fmt: skip
CODES = {name: code for code, name in ELEMENTS.items()}


class Node(NamedTuple):
    """One operation. An input that is not given is "".

    op       what it is in ONNX; "" for what has no like there
    kind     what the file calls it, where that is another name
    source   of a recurrent node: the name in `layouts.LAYOUTS` of how its weights are stored
    arrays   of a recurrent node: its weights by that layout's names, where they are no inputs
    trouble  why it cannot be translated: what was found, what was expected, and what to do
    """

    op: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]
    kind: str = ""
    source: str = "onnx"
    arrays: Mapping[str, Array] = {}
    trouble: str = ""

    @property
    def who(self) -> str:
        kind = self.kind or self.op
        return f"node {shown(self.name or ', '.join(self.outputs))} ({clean(kind)})"


class Port(NamedTuple):
    """An input or output of the graph. shape: None for a size without a number, or at all."""

    name: str
    dtype: str | None
    shape: tuple[int | None, ...] | None


class Graph(NamedTuple):
    """What a file holds; constants by name, nodes in an order in which they can be run.

    format, writer  what it is, and which library wrote it, as the file says
    remarks         what the file's own runtime does besides: "differs" or "lasting", a sentence
    """

    nodes: list[Node]
    constants: dict[str, Array]
    inputs: list[Port]
    outputs: list[Port]
    format: str
    writer: str
    remarks: tuple[tuple[str, str], ...] = ()


def clean(text: str) -> str:
    """A name from a file as it is, if it is one, or as a message can show it."""
    return text if text.isidentifier() else shown(text)
