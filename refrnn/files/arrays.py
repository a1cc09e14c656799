"""Arrays by name in .npz, without pickles; and `read_arrays`, `write_arrays` for every format.

No dtype but numbers and booleans is read. bfloat16, which NumPy does not have, is read as float32,
which holds each of its numbers exactly.
"""

import io
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refrnn.files import archive, flax, safetensors, torch_files
from refrnn.files.atomic import replacing
from refrnn.files.errors import FileError, shown, within
from refrnn.gates import Array

AnyPath = str | os.PathLike[str]
NPY = ".npy"
MAX_HEADER = 10_000  # bytes; one of 32 dimensions takes about 1,000
_FAILURES = (ValueError, TypeError, OSError, EOFError, SyntaxError, OverflowError, MemoryError)


def read_arrays(path: AnyPath) -> dict[str, Array]:
    """The arrays in a file of weights by the names that they have there.

    path  .npz; .safetensors; .pt, .pth, .bin or .ckpt with a state dict of PyTorch 1.6 and later,
          told apart by what they begin with; .msgpack of `flax.serialization.to_bytes`

    No pickle is run: the one in a state dict is read by an interpreter that knows tensors only.
    Raises FileError for a file that is damaged, hostile, or holds anything else.
    """
    with within(os.fspath(path), FileError), archive.opened(path) as (stream, size):
        if Path(path).suffix in flax.SUFFIXES:
            return flax.read(stream, size)
        head = stream.read(4)
        stream.seek(0)
        if head != archive.ZIP:
            if Path(path).suffix in torch_files.SUFFIXES:
                raise FileError(
                    f"begins with {shown(head)}, expected a zip archive ({shown(archive.ZIP)}), as"
                    " PyTorch writes since 1.6; what was saved before is a bare pickle: load it in"
                    " PyTorch and save it again"
                )
            return safetensors.read(stream, size)
        found = archive.every_member(stream, size)
        if any(name.endswith("/" + torch_files.PICKLE) for name in found):
            return torch_files.read(found)
        return from_npz(found)


def write_arrays(arrays: Mapping[str, Any], path: AnyPath) -> None:
    """Write arrays by name, as .npz or .safetensors; whole, or not at all.

    Raises ValueError for another suffix and TypeError for a dtype that the format does not have,
    before anything is written.
    """
    suffix = Path(path).suffix
    if suffix not in WRITERS:
        raise ValueError(
            f"{os.fspath(path)}: has suffix {suffix!r}, expected {' or '.join(WRITERS)}, because"
            " the suffix chooses the format"
        )
    data = WRITERS[suffix]({name: np.asarray(a) for name, a in arrays.items()})
    with replacing(path) as stream:
        stream.write(data)


def from_npz(members: Mapping[str, bytes]) -> dict[str, Array]:
    """The arrays of an .npz, from its members."""
    if not members:
        raise FileError("has no members, expected arrays")
    found = {}
    for name, data in members.items():
        with within(shown(name), *_FAILURES):
            if not name.endswith(NPY):
                raise FileError(f"is no array, expected a name that ends with {NPY}")
            found[name.removesuffix(NPY)] = _npy(data)
    return found


def _npy(data: bytes) -> Array:
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise FileError(f"has version {version} of the format, expected 1.0 or 2.0")
    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    shape, fortran, dtype = read[version[0]](stream, max_header_size=MAX_HEADER)
    if dtype.kind not in "fiub":
        raise FileError(f"has dtype {dtype}, expected numbers or booleans: objects are pickles")
    left = len(data) - stream.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != left:
        raise FileError(f"has {left} bytes, expected those of {shape} of {dtype}")
    flat = np.frombuffer(data, dtype, offset=stream.tell())
    array = flat.reshape(shape, order="F" if fortran else "C")
    return np.array(array, dtype.newbyteorder("="), order="C")


def _to_npz(arrays: Mapping[str, Array]) -> bytes:
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise TypeError(
                f"{name} is {array.dtype}, expected a dtype of NumPy's numbers, because .npz holds"
                " no other; .safetensors has bfloat16"
            )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            made.writestr(zipfile.ZipInfo(name + NPY), member.getvalue())
    return stream.getvalue()


WRITERS: dict[str, Callable[[Mapping[str, Array]], bytes]] = {
    ".npz": _to_npz,
    ".safetensors": safetensors.packed,
}
ARRAYS = (*WRITERS, *torch_files.SUFFIXES, *flax.SUFFIXES)  # that hold weights alone
