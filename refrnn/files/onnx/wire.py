"""protobuf's encoding, as far as ONNX needs it: messages by a table of their fields.

A field is its number and wire type, then a varint, 4 or 8 bytes, or a length and so many bytes.
"""

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from refrnn.files.errors import FileError

MAX_PARTS = 1_000_000  # messages, texts and single numbers in a file; weights are one part each
MAX_VARINT = 10  # bytes: 64 bits
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
WIRE = {"int": VARINT, "float": FIXED32, "double": FIXED64}


class Field(NamedTuple):
    """One field of a message.

    name   what it is called
    kind   "int", "float", "double", "text", "bytes", or the table of the message that it is
    many   whether it may come again: then it is a list
    """

    name: str
    kind: "str | Mapping[int, Field]"
    many: bool = False

    def default(self) -> Any:
        if self.many:
            return []
        if not isinstance(self.kind, str):
            return None
        return {"int": 0, "float": 0.0, "double": 0.0, "text": "", "bytes": b""}[self.kind]


Table = Mapping[int, Field]
Message = dict[str, Any]


class Reader:
    """Reads messages of one file; it counts what it makes of them."""

    def __init__(self) -> None:
        self.left = MAX_PARTS

    def message(self, data: memoryview, table: Table) -> Message:
        """A message by the names of its fields, those that are not there as protobuf has them.

        Fields that are not in the table are passed over. Raises FileError where it is damaged.
        """
        found = {field.name: field.default() for field in table.values()}
        place = 0
        while place < len(data):
            key, place = varint(data, place)
            number, wire = key >> 3, key & 7
            value: Any
            if wire == VARINT:
                value, place = varint(data, place)
            elif wire in (FIXED32, FIXED64, BYTES):
                size = 4 if wire == FIXED32 else 8
                if wire == BYTES:
                    size, place = varint(data, place)
                if size > len(data) - place:
                    raise FileError(f"ends within a field of {size} bytes: it is cut off")
                value, place = data[place : place + size], place + size
            else:
                raise FileError(f"has wire type {wire}, expected 0, 1, 2 or 5: it is no protobuf")
            self._count(1)
            field = table.get(number)
            if field is not None:
                self._put(found, field, wire, value)
        return found

    def _put(self, found: Message, field: Field, wire: int, value: Any) -> None:
        if isinstance(field.kind, str) and field.kind in WIRE:
            if wire == BYTES and field.many:
                found[field.name] += self._packed(field.kind, value)
                return
            if wire != WIRE[field.kind]:
                raise FileError(f"{field.name} has wire type {wire}, expected {WIRE[field.kind]}")
            read: Any = _signed(value) if wire == VARINT else _number(field.kind, value)
        elif wire != BYTES:
            raise FileError(f"{field.name} has wire type {wire}, expected {BYTES}")
        elif not isinstance(field.kind, str):
            read = self.message(value, field.kind)
        else:
            read = bytes(value).decode() if field.kind == "text" else value
        if field.many:
            found[field.name].append(read)
        else:
            found[field.name] = read

    def _packed(self, kind: str, data: memoryview) -> list[Any]:
        """Numbers one after another."""
        if kind != "int":
            size = 4 if kind == "float" else 8
            if len(data) % size:
                raise FileError(f"has {len(data)} bytes of {kind}s, expected a multiple of {size}")
            self._count(len(data) // size)
            return np.frombuffer(data, f"<f{size}").tolist()
        found, place = [], 0
        while place < len(data):
            self._count(1)
            value, place = varint(data, place)
            found.append(_signed(value))
        return found

    def _count(self, parts: int) -> None:
        self.left -= parts
        if self.left < 0:
            raise FileError(
                f"has more than {MAX_PARTS} parts, expected fewer: weights belong into raw_data"
            )


def varint(data: memoryview, place: int) -> tuple[int, int]:
    """A number of 64 bits at `place`, and where it ends."""
    value = 0
    for k in range(MAX_VARINT):
        if place + k >= len(data):
            raise FileError("ends within a number: it is cut off")
        value |= (data[place + k] & 127) << 7 * k
        if data[place + k] < 128:
            return value & (1 << 64) - 1, place + k + 1
    raise FileError(f"has a number longer than {MAX_VARINT} bytes: it is no protobuf")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _number(kind: str, value: memoryview) -> float:
    number: float = struct.unpack("<f" if kind == "float" else "<d", value)[0]
    return number


# --- writing ---


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: "int | float | str | bytes") -> bytes:
    """One field: an int as a varint, a float in 4 bytes, texts and messages with their length."""
    if isinstance(value, int):
        return _varint(number << 3 | VARINT) + _varint(value)
    if isinstance(value, float):
        return _varint(number << 3 | FIXED32) + struct.pack("<f", value)
    raw = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | BYTES) + _varint(len(raw)) + raw


def message(*fields: tuple[int, Any]) -> bytes:
    """A message of these fields, by number."""
    return b"".join(field(number, value) for number, value in fields)
