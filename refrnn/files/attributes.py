"""Texts that are attributes of a folder in an HDF5 file, read without libhdf5.

libhdf5 believes what a text of variable length says of itself: one number makes it allocate 4 GiB,
another makes it walk a heap for ever. So the few bytes concerned are read here, as version 3.0 of
the HDF5 file format lays them out (sections III.E, IV.A and IV.A.2.m). Every number is compared
with the size of the file.
"""

import math
import struct
from collections.abc import Iterator
from typing import IO

from refrnn.files.errors import FileError

MAX_NAMES = 4096  # texts in one attribute: HDF5 holds no more references in its 64 KiB
CONTINUED, ATTRIBUTE = 0x10, 0x0C  # messages of an object header
STRING, VARIABLE = 3, 9  # classes of types
HEADER = struct.Struct("<B7xI4x")  # version, bytes of messages
MESSAGE = struct.Struct("<HHB3x")  # kind, bytes, flags
PARTS = struct.Struct("<BBHHH")  # version, flags, bytes of name, of type, of shape
REFERENCE = struct.Struct("<IQI")  # bytes of the text, its heap, its index there
HEAP = struct.Struct("<4sB3xQ")  # GCOL, version 1, bytes
OBJECT = struct.Struct("<HH4xQ")  # index (0: what is free), references, bytes


class Texts:
    """The texts in a file of `size` bytes."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._size = stream, size
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}

    def of(self, address: int, name: str) -> list[str] | None:
        """The attribute `name` of the object at `address`; None where it has none."""
        for kind, place, length in self._messages(address):
            if kind == ATTRIBUTE:
                found = self._attribute(self._read(place, length), name)
                if found is not None:
                    return found
        return None

    def _read(self, start: int, length: int) -> bytes:
        if start + length > self._size:
            raise FileError(
                f"refers to bytes {start} to {start + length}, expected a place in a file of"
                f" {self._size}: it is damaged or cut off"
            )
        self._stream.seek(start)
        return self._stream.read(length)

    def _messages(self, address: int) -> Iterator[tuple[int, int, int]]:
        """What the header of an object consists of: kind, place, length."""
        blocks, form, sealed = self._header(address)
        left = self._size
        for start, length in blocks:
            left -= length
            if left < 0:
                raise FileError("has an object header without an end, expected one in the file")
            place, end = start, start + length
            while place + form.size <= end:
                kind, length, *_ = form.unpack(self._read(place, form.size))
                place += form.size
                if place + length > end:
                    raise FileError(f"has a header message of {length} bytes, expected fewer")
                if kind == CONTINUED:
                    start, length = struct.unpack("<QQ", self._read(place, 16))
                    # newer ones have a mark in front and a checksum behind, of 4 bytes each
                    blocks.append((start + sealed, max(0, length - 2 * sealed)))
                    length = 16
                yield kind, place, length
                place += length

    def _header(self, address: int) -> tuple[list[tuple[int, int]], struct.Struct, int]:
        """The first block of messages, their form, and the bytes that seal a further block."""
        start = self._read(address, 6)
        if start[:5] != b"OHDR\2":
            version, length = HEADER.unpack(self._read(address, HEADER.size))
            if version != 1:
                raise FileError(f"has an object header of version {version}, expected 1 or 2")
            return [(address + HEADER.size, length)], MESSAGE, 0
        flags = start[5]
        place = address + 6 + (16 if flags & 32 else 0) + (4 if flags & 16 else 0)
        width = 1 << (flags & 3)
        length = int.from_bytes(self._read(place, width), "little")
        form = struct.Struct("<BHB2x" if flags & 4 else "<BHB")
        return [(place + width, length)], form, 4

    def _attribute(self, data: bytes, name: str) -> list[str] | None:
        """The texts in a message, if that is their name."""
        version, flags, *lengths = PARTS.unpack(_part(data, 0, PARTS.size))
        place, parts = PARTS.size + (version == 3), []
        for length in lengths:
            parts.append(_part(data, place, length))
            place += length + (-length % 8 if version == 1 else 0)
        if parts[0].rstrip(b"\0") != name.encode():
            return None
        if version not in (1, 2, 3) or flags:
            raise FileError(f"is an attribute of version {version} and flags {flags}, expected 1")
        count = _count(parts[2])
        if not count:
            return []  # Keras writes an empty list as one of floats
        kind, bits, size = struct.unpack("<BB2xI", _part(parts[1], 0, 8))
        if kind & 15 not in (STRING, VARIABLE) or (kind & 15 == VARIABLE and bits & 15 != 1):
            raise FileError(f"is of type class {kind & 15}, expected text")
        if count > MAX_NAMES:
            raise FileError(f"has {count} texts, expected at most {MAX_NAMES}")
        values = [_part(data, place + k * size, size) for k in range(count)]
        if kind & 15 == VARIABLE:
            values = self._texts(values)
        return [value.rstrip(b"\0").decode() for value in values]

    def _texts(self, references: list[bytes]) -> list[bytes]:
        found, left = [], self._size
        for reference in references:
            length, heap, index = REFERENCE.unpack(_part(reference, 0, REFERENCE.size))
            place, most = self._heap(heap).get(index, (0, 0)) if length else (0, 0)
            left -= length
            if length > most or left < 0:
                raise FileError(
                    f"has a text of {length} bytes at {index} of the heap at byte {heap}, expected"
                    f" at most {most}, and all together no more than the file: it is damaged"
                )
            found.append(self._read(place, length))
        return found

    def _heap(self, address: int) -> dict[int, tuple[int, int]]:
        """The objects of a heap by index: place and length."""
        if address in self._heaps:
            return self._heaps[address]
        mark, version, length = HEAP.unpack(self._read(address, HEAP.size))
        if (mark, version) != (b"GCOL", 1) or address + length > self._size:
            raise FileError(f"has no heap at byte {address}, expected one for its texts")
        found: dict[int, tuple[int, int]] = {}
        place, end = address + HEAP.size, address + length
        while place + OBJECT.size <= end:
            index, _, used = OBJECT.unpack(self._read(place, OBJECT.size))
            if not index:
                break  # the rest is free
            found[index] = place + OBJECT.size, used
            place += OBJECT.size + used + -used % 8
            if place > end or index > 0xFFFF or len(found) > MAX_NAMES * 16:
                raise FileError(f"has a damaged heap at byte {address}")
        self._heaps[address] = found
        return found


def _part(data: bytes, start: int, length: int) -> bytes:
    if start + length > len(data):
        raise FileError(f"has a header of {len(data)} bytes, expected at least {start + length}")
    return data[start : start + length]


def _count(shape: bytes) -> int:
    """How many values a stored shape has."""
    version, rank, _, kind = _part(shape, 0, 4)
    if version not in (1, 2) or rank > 32:
        raise FileError(f"has a shape of version {version} and rank {rank}, expected 1 or 2")
    if version == 2 and kind == 2:
        return 0
    return math.prod(struct.unpack(f"<{rank}Q", _part(shape, 8 if version == 1 else 4, 8 * rank)))
