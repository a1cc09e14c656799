"""MessagePack's encoding: one value, without objects of Python's; what an extension is, is asked.

Lengths are checked before anything is made of them, and parts and depth are counted.
"""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from refrnn.files.errors import FileError, shown

MAX_PARTS = 1_000_000
MAX_DEPTH = 64

Extension = Callable[[int, memoryview], Any]
# By their first byte: how numbers are stored, and how the lengths of the others are.
NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h",
    0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


class Length(NamedTuple):
    """What a first byte announces: a kind, and the bytes of its length, or the length itself."""

    kind: str
    format: str | None
    length: int = 0


LENGTHS = {
    0xC4: Length("bytes", ">B"), 0xC5: Length("bytes", ">H"), 0xC6: Length("bytes", ">I"),
    0xC7: Length("extension", ">B"), 0xC8: Length("extension", ">H"),
    0xC9: Length("extension", ">I"), 0xD4: Length("extension", None, 1),
    0xD5: Length("extension", None, 2), 0xD6: Length("extension", None, 4),
    0xD7: Length("extension", None, 8), 0xD8: Length("extension", None, 16),
    0xD9: Length("text", ">B"), 0xDA: Length("text", ">H"), 0xDB: Length("text", ">I"),
    0xDC: Length("list", ">H"), 0xDD: Length("list", ">I"), 0xDE: Length("map", ">H"),
    0xDF: Length("map", ">I"),
}  # fmt: skip


def read(data: memoryview, extension: Extension) -> Any:
    """The one value in `data`. Raises FileError where it is damaged, or more follows."""
    reader = _Reader(data, extension)
    found = reader.value(0)
    if reader.place != len(data):
        raise FileError(
            f"has {len(data) - reader.place} bytes after its value, expected none: it is damaged,"
            " or no MessagePack"
        )
    return found


class _Reader:
    def __init__(self, data: memoryview, extension: Extension) -> None:
        self.data, self.extension = data, extension
        self.place, self.left = 0, MAX_PARTS

    def value(self, depth: int) -> Any:
        self.left -= 1
        if depth > MAX_DEPTH or self.left < 0:
            raise FileError(f"is {MAX_DEPTH} deep or has more than {MAX_PARTS} parts")
        first = self._take(1)[0]
        if first < 0x80 or first >= 0xE0:
            return first if first < 0x80 else first - 256
        if first in CONSTANTS:
            return CONSTANTS[first]
        if first in NUMBERS:
            return self._number(NUMBERS[first])
        announced = LENGTHS.get(first)
        if announced is None:
            if first == 0xC1:
                raise FileError("has the byte 0xc1, expected another: it is no MessagePack")
            kind, mask = ("map", 15) if first < 0x90 else ("list", 15)
            kind, mask = (kind, mask) if first < 0xA0 else ("text", 31)
            announced = Length(kind, None, first & mask)
        length = announced.length
        if announced.format is not None:
            length = self._number(announced.format)
        return self._sized(announced.kind, length, depth)

    def _sized(self, kind: str, length: int, depth: int) -> Any:
        if kind == "list":
            return [self.value(depth + 1) for _ in range(length)]
        if kind == "map":
            return self._map(length, depth)
        if kind == "extension":
            code = self._number(">b")
            return self.extension(code, self._take(length))
        taken = self._take(length)
        if kind == "bytes":
            return taken
        try:
            return bytes(taken).decode()
        except UnicodeDecodeError:
            raise FileError(f"has the text {shown(bytes(taken[:40]))}, expected UTF-8") from None

    def _map(self, length: int, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(length):
            key = self.value(depth + 1)
            if not isinstance(key, str) and type(key) is not int:
                raise FileError(f"has the key {shown(key)}, expected a text or a whole number")
            if str(key) in found:
                raise FileError(f"has the key {shown(key)} twice, expected it once")
            found[str(key)] = self.value(depth + 1)
        return found

    def _number(self, kind: str) -> Any:
        return struct.unpack(kind, self._take(struct.calcsize(kind)))[0]

    def _take(self, size: int) -> memoryview:
        if size > len(self.data) - self.place:
            raise FileError(
                f"ends within a part of {size} bytes at {self.place}: it is cut off, or no"
                " MessagePack"
            )
        self.place += size
        return self.data[self.place - size : self.place]
