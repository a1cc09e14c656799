"""The wire form of FlatBuffers: tables whose fields are found through a list of offsets.

Every offset is checked before it is followed. A table may be pointed at from many places, so what
is read is counted.
"""

import struct
from typing import Any

import numpy as np

from refrnn.files.errors import FileError, shown
from refrnn.gates import Array

MAX_PARTS = 1_000_000  # tables, texts and lists of one file


class Buffer:
    """The bytes of a file, and how much of it may still be read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.left = MAX_PARTS

    def number(self, kind: str, place: int) -> Any:
        """The number at a place; kind as in `struct`."""
        size = struct.calcsize(kind)
        if not 0 <= place <= len(self.data) - size:
            raise FileError(
                f"has {len(self.data)} bytes, expected {size} from {place} on: it is damaged"
            )
        [found] = struct.unpack_from("<" + kind, self.data, place)
        return found

    def count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise FileError(f"has more than {MAX_PARTS} parts, expected fewer")

    def root(self) -> "Table":
        return Table(self, self.number("I", 0))

    def vector(self, place: int, size: int) -> tuple[int, int]:
        """Where the items of a vector begin, and how many there are; size: of one, in bytes."""
        self.count()
        length = self.number("I", place)
        if length * size > len(self.data) - place - 4:
            raise FileError(
                f"has a list of {length} items of {size} bytes at {place}, expected it to end"
                f" within the {len(self.data)} bytes of the file"
            )
        return place + 4, length


class Table:
    """A table; its fields by their number in the schema, the default where one is not there."""

    def __init__(self, buffer: Buffer, place: int) -> None:
        buffer.count()
        self.buffer, self.place = buffer, place
        self._offsets = place - buffer.number("i", place)
        self._size = buffer.number("H", self._offsets)
        if self._size < 4 or self._offsets + self._size > len(buffer.data):
            raise FileError(f"has a table at {place} whose list of fields is damaged")

    def _field(self, number: int) -> int | None:
        at = 4 + 2 * number
        offset = self.buffer.number("H", self._offsets + at) if at + 2 <= self._size else 0
        return self.place + offset if offset else None

    def _pointed(self, number: int) -> int | None:
        place = self._field(number)
        return None if place is None else place + int(self.buffer.number("I", place))

    def number(self, number: int, kind: str, default: Any = 0) -> Any:
        place = self._field(number)
        return default if place is None else self.buffer.number(kind, place)

    def text(self, number: int) -> str:
        place = self._pointed(number)
        if place is None:
            return ""
        start, length = self.buffer.vector(place, 1)
        try:
            return self.buffer.data[start : start + length].decode()
        except UnicodeDecodeError:
            found = self.buffer.data[start : start + min(length, 40)]
            raise FileError(f"has the text {shown(found)}, expected UTF-8") from None

    def numbers(self, number: int, dtype: str) -> Array | None:
        """A list of numbers, read-only; None where it is not there."""
        place = self._pointed(number)
        if place is None:
            return None
        start, length = self.buffer.vector(place, np.dtype(dtype).itemsize)
        return np.frombuffer(self.buffer.data, dtype, length, start)

    def table(self, number: int) -> "Table | None":
        place = self._pointed(number)
        return None if place is None else Table(self.buffer, place)

    def tables(self, number: int) -> "list[Table]":
        place = self._pointed(number)
        if place is None:
            return []
        start, length = self.buffer.vector(place, 4)
        places = [start + 4 * k for k in range(length)]
        return [Table(self.buffer, at + int(self.buffer.number("I", at))) for at in places]
