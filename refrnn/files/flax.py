"""Parameters of Flax: `flax.serialization.to_bytes` of a tree, by the paths of its arrays.

MessagePack with extensions of Flax's for arrays; large arrays are cut into chunks.
"""

import math
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from refrnn.files import archive, msgpack
from refrnn.files.errors import FileError, shown, within
from refrnn.files.safetensors import widened
from refrnn.gates import Array

SUFFIXES = (".msgpack",)
ARRAY, COMPLEX, SCALAR = 1, 2, 3  # Flax's extensions
CHUNKED = "__msgpack_chunked_array__"
DTYPES = {
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16",
    "uint32", "uint64", "bool",
}  # fmt: skip
MAX_FILE = 1 << 35  # bytes


def read(stream: IO[bytes], size: int) -> dict[str, Array]:
    """The arrays in a file of `size` bytes by their paths, "params/cell/ii/kernel"; numbers too.

    What is empty or None, as the state of an optimizer without any, has no place. bfloat16 is read
    as float32. Raises FileError for what is damaged, complex numbers, texts, and other extensions.
    """
    if size > MAX_FILE:
        raise FileError(f"has {size} bytes, expected at most {MAX_FILE}")
    data = b"".join(stream.read(archive.PIECE) for _ in range(0, size, archive.PIECE))
    found: dict[str, Array] = {}
    for path, array in _leaves((), msgpack.read(memoryview(data), _extension)):
        name = "/".join(path)
        if name in found:
            raise FileError(f"has the array {shown(name)} twice, expected it once")
        found[name] = array
    if not found:
        raise FileError("has no arrays, expected a tree of parameters of Flax")
    return found


def _extension(code: int, data: memoryview) -> Array:
    if code == COMPLEX:
        raise FileError("has a complex number, expected real ones")
    if code not in (ARRAY, SCALAR):
        raise FileError(f"has the extension {code}, expected {ARRAY} (array) or {SCALAR} (number)")
    found = msgpack.read(data, _nested)
    if not isinstance(found, list) or len(found) != 3:
        raise FileError("has an array that is no [shape, dtype, bytes]")
    shape, dtype, raw = found
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise FileError(f"has an array of shape {shown(shape)}, expected whole numbers")
    if not isinstance(dtype, str) or dtype not in {*DTYPES, "bfloat16"} or len(shape) > 32:
        raise FileError(f"has an array of {shown(dtype)}, expected one of {', '.join(DTYPES)}")
    stored = np.dtype("<u2" if dtype == "bfloat16" else np.dtype(dtype).newbyteorder("<"))
    if not isinstance(raw, memoryview) or len(raw) != math.prod(shape) * stored.itemsize:
        raise FileError(f"has an array without the bytes of {shape} of {dtype}")
    flat = np.frombuffer(raw, stored)
    flat = widened(flat) if dtype == "bfloat16" else flat
    return np.array(flat.reshape(shape), flat.dtype.newbyteorder("="))


def _nested(code: int, data: memoryview) -> Any:
    raise FileError(f"has the extension {code} within an array, expected a shape, dtype and bytes")


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Array]]:
    place = shown("/".join(path))
    if isinstance(value, dict) and CHUNKED in value:
        with within(place, ValueError, TypeError, KeyError):
            yield path, _joined(value)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves((*path, key), part)
    elif isinstance(value, list):
        for k, part in enumerate(value):
            yield from _leaves((*path, str(k)), part)
    elif isinstance(value, np.ndarray):
        yield path, value
    elif isinstance(value, bool | int | float):
        yield path, np.array(value)
    elif value is not None:
        raise FileError(f"{place} is a {type(value).__name__}, expected an array or a number")


def _joined(value: dict[str, Any]) -> Array:
    """An array from its chunks."""
    shape, chunks = ([part[str(k)] for k in range(len(part))] for part in _parts(value))
    if not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 32:
        raise FileError(f"is of chunks of shape {shown(shape)}, expected whole numbers")
    if not chunks or not all(isinstance(c, np.ndarray) and c.ndim == 1 for c in chunks):
        raise FileError("is of chunks that are no flat arrays")
    if len({chunk.dtype for chunk in chunks}) > 1:
        raise FileError("is of chunks of several dtypes, expected one")
    if sum(chunk.size for chunk in chunks) != math.prod(shape):
        raise FileError(f"is of chunks that do not make {shape}")
    return np.concatenate(chunks).reshape(shape)


def _parts(value: dict[str, Any]) -> list[dict[str, Any]]:
    parts = [value.get("shape"), value.get("chunks")]
    if not all(isinstance(part, dict) for part in parts):
        raise FileError("is of chunks without a shape and the chunks")
    return [part for part in parts if isinstance(part, dict)]
