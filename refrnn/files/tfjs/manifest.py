"""The weights of tf.js: a list of shapes and dtypes, and the files whose bytes they are.

The sizes of the files are compared with what the list says before any of them is read, and none of
them is outside of the folder of model.json.
"""

import math
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refrnn.files import archive
from refrnn.files.errors import FileError, shown, within
from refrnn.files.tfjs.names import Stored
from refrnn.gates import Array

DTYPES = {"float32": "<f4", "int32": "<i4", "bool": "u1"}
STORED = {"uint8": "u1", "uint16": "<u2", "float16": "<f2"}  # of quantized weights
OTHER_GROUP = "optimizer"
MAX_RANK = 8
LARGEST = float(np.finfo(np.float32).max)


class Weight(NamedTuple):
    """One weight of the list; scale and least where whole numbers stand for others."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    stored: str
    scale: float | None
    least: float
    wanted: bool

    @property
    def size(self) -> int:
        return math.prod(self.shape) * np.dtype(self.stored).itemsize


def read(manifest: Any, folder: Path) -> list[Stored]:
    """The weights of a model, without those of its optimizer, in the order of the list."""
    if not isinstance(manifest, list) or not all(isinstance(group, dict) for group in manifest):
        raise FileError(f"is {shown(manifest)}, expected a list of groups")
    names = [name for group in manifest for name in _list(group, "paths")]
    if len(set(map(str, names))) != len(names):
        raise FileError(f"lists the files {shown(names)}, expected each of them once")
    found: list[Stored] = []
    for group in manifest:
        weights = [_weight(spec) for spec in _list(group, "weights")]
        files = [_inside(folder, name) for name in _list(group, "paths")]
        data = _bytes(files, sum(weight.size for weight in weights))
        start = 0
        for weight in weights:
            if weight.wanted:
                found.append((weight.name, _array(weight, data, start)))
            start += weight.size
    return found


def _list(group: dict[str, Any], key: str) -> list[Any]:
    value = group.get(key)
    if not isinstance(value, list):
        raise FileError(f"{key} is {shown(value)}, expected a list")
    return value


# --- the list ---


def _weight(spec: Any) -> Weight:
    name = spec.get("name") if isinstance(spec, dict) else None
    if not isinstance(name, str) or not name:
        raise FileError(f"a weight is {shown(spec)}, expected a name, a shape and a dtype")
    with within(f"weight {shown(name)}"):
        shape, dtype = spec.get("shape"), spec.get("dtype")
        if (
            not isinstance(shape, list)
            or len(shape) > MAX_RANK
            or not all(type(n) is int and n >= 0 for n in shape)
        ):
            raise FileError(f"shape is {shown(shape)}, expected at most {MAX_RANK} sizes")
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise FileError(f"dtype is {shown(dtype)}, expected one of {', '.join(DTYPES)}")
        wanted = spec.get("group") != OTHER_GROUP
        if "quantization" not in spec:
            return Weight(name, tuple(shape), dtype, DTYPES[dtype], None, 0.0, wanted)
        stored, scale, least = _quantization(spec["quantization"], dtype)
        return Weight(name, tuple(shape), dtype, stored, scale, least, wanted)


def _quantization(given: Any, dtype: str) -> tuple[str, float | None, float]:
    """The stored dtype, the scale (None where the numbers are stored), and the least number."""
    kind = given.get("dtype") if isinstance(given, dict) else None
    if not isinstance(kind, str) or kind not in STORED:
        raise FileError(f"quantization is {shown(given)}, expected a dtype of {', '.join(STORED)}")
    if dtype not in (("float32",) if kind == "float16" else ("float32", "int32")):
        raise FileError(f"is of dtype {dtype}, stored as {kind}, expected float32")
    if kind == "float16":
        return STORED[kind], None, 0.0
    scale, least = (given.get(key) for key in ("scale", "min"))
    for key, value in (("scale", scale), ("min", least)):
        if type(value) not in (int, float) or not abs(value) <= LARGEST:
            raise FileError(f"quantization: {key} is {shown(value)}, expected a finite float32")
    if scale <= 0:
        raise FileError(f"quantization: scale is {scale}, expected more than 0")
    return STORED[kind], float(scale), float(least)


def _array(weight: Weight, data: bytearray, start: int) -> Array:
    """A weight from its bytes, computed as in tf.js: in float64, then rounded."""
    count = math.prod(weight.shape)
    raw = np.frombuffer(data, weight.stored, count, start).reshape(weight.shape)
    if weight.scale is None:
        return raw.astype(weight.dtype)
    numbers = raw * weight.scale + weight.least
    if weight.dtype == "int32":
        return np.floor(numbers + 0.5).astype(np.int32)
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


# --- the files ---


def _inside(folder: Path, name: Any) -> Path:
    """The path of a file in the folder, or FileError."""
    parts = re.split(r"[/\\]", name) if isinstance(name, str) else []
    if not parts or "\0" in name or ":" in name or not all(parts) or {".", ".."} & set(parts):
        raise FileError(
            f"the file {shown(name)} is listed, expected the name of one in the folder, because no"
            " other file is read"
        )
    path = folder.joinpath(*parts)
    with within(f"file {shown(name)}", OSError, ValueError):
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(os.path.realpath(folder)):
            raise FileError(f"is a link to {shown(str(real))}, expected a file in the folder")
    return path


def _bytes(files: list[Path], expected: int) -> bytearray:
    """The bytes of the files, one after another."""
    sizes = []
    for path in files:
        with within(f"file {shown(path.name)}", OSError), archive.opened(path) as (_, size):
            sizes.append(size)
    if sum(sizes) != expected:
        raise FileError(
            f"the files {shown([path.name for path in files])} have {sum(sizes)} bytes, expected"
            f" {expected}, which the shapes and dtypes of their weights take"
        )
    data = bytearray(expected)
    place = memoryview(data)
    for path, size in zip(files, sizes, strict=True):
        with within(f"file {shown(path.name)}", OSError), archive.opened(path) as (stream, _):
            read = 0
            while read < size and (count := stream.readinto(place[read:size])):
                read += count
            if read != size:
                raise FileError(f"ended after {read} bytes, expected {size}")
            place = place[size:]
    return data
