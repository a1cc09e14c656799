"""safetensors: a length, a JSON object that says where each array is, and their bytes."""

import json
import math
import struct
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from refrnn.files import archive
from refrnn.files.errors import FileError, shown, within
from refrnn.gates import Array

METADATA = "__metadata__"
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip
NAMES = {
    np.dtype(stored).name: name for name, stored in DTYPES.items() if name != "BF16"
} | {"bfloat16": "BF16"}  # fmt: skip
ALIGN = 8  # the header is padded, so that the arrays are


def read(stream: IO[bytes], size: int) -> dict[str, Array]:
    """The arrays in a file of `size` bytes; what it says about itself (__metadata__) is not read.

    Raises FileError where they overlap, leave gaps or are not all there.
    """
    head = stream.read(8)
    length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
    if not 2 <= length <= min(archive.MAX_JSON, size - 8):
        raise FileError(
            f"begins with {shown(head)}, expected the length of a header, at most"
            f" {min(archive.MAX_JSON, max(size - 8, 0))}: it is no safetensors file, or cut off"
        )
    header = archive.parse(stream.read(length))
    header.pop(METADATA, None)
    data = stream.read(size - 8 - length)
    end, found = 0, {}
    for name, entry in sorted(header.items(), key=_start):
        with within(shown(name)):
            array, start, stop = _array(entry, data)
            if start != end:
                raise FileError(f"begins at byte {start}, expected {end}: no gap and no overlap")
        found[name], end = array, stop
    if end != len(data):
        raise FileError(f"has {len(data)} bytes of arrays, expected {end}, as the header says")
    return {name: found[name] for name in header}


def _start(item: tuple[str, Any]) -> tuple[int, ...]:
    offsets: Any = item[1].get("data_offsets") if isinstance(item[1], dict) else None
    return tuple(offsets) if _counts(offsets) else ()


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _array(entry: Any, data: bytes) -> tuple[Array, int, int]:
    """An array and where it is; always a copy."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise FileError(f"is {shown(entry)}, expected dtype, shape and data_offsets")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in DTYPES:
        raise FileError(f"has dtype {shown(kind)}, expected one of {', '.join(DTYPES)}")
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2 or len(shape) > 32:
        raise FileError(
            f"has shape {shown(shape)} and data_offsets {shown(offsets)}, expected lists of whole"
            " numbers from 0, at most 32 and two"
        )
    start, stop = offsets
    dtype = np.dtype(DTYPES[kind])
    if stop > len(data) or math.prod(shape) * dtype.itemsize != stop - start:
        raise FileError(
            f"has shape {shape} of {kind} in bytes {start} to {stop}, expected"
            f" {math.prod(shape) * dtype.itemsize} bytes of the {len(data)} that there are"
        )
    array = np.frombuffer(data[start:stop], dtype).reshape(shape)
    if kind == "BF16":
        return widened(array), start, stop
    return array.astype(dtype.newbyteorder("=")), start, stop


def widened(upper: Array) -> Array:
    """bfloat16, given as its bits, as float32: the upper half of the same number."""
    return (upper.astype(np.uint32) << np.uint32(16)).view(np.float32)


def packed(arrays: Mapping[str, Array]) -> bytes:
    """A file of these arrays. Raises TypeError for a dtype that the format does not have."""
    header: dict[str, Any] = {}
    parts: list[bytes] = []
    place = 0
    # the widest first, so that each is aligned, as the format's own writer has it
    for name, array in sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize):
        kind = NAMES.get(array.dtype.name)
        if kind is None or name == METADATA:
            raise TypeError(
                f"{name} is {array.dtype}, expected one of {', '.join(NAMES)} and another name than"
                f" {METADATA}"
            )
        plain = array.view(np.uint16) if kind == "BF16" else array
        parts.append(plain.astype(DTYPES[kind], copy=False).tobytes())
        stop = place + len(parts[-1])
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [place, stop]}
        place = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGN)
    return struct.pack("<Q", len(text)) + text + b"".join(parts)
