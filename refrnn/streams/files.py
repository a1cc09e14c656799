"""State files: what a stream remembers, whose it is, and a checksum; .npz, or HDF5.

Both hold an array states_<layer>_<i> for each part of each layer's state, as the tutorials on
stateful Keras models have it, one last_output_<layer>, and a header in JSON.
"""

import hashlib
import io
import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from refrnn.files import archive, hdf5
from refrnn.files.atomic import replacing
from refrnn.files.errors import FileError, shown, within
from refrnn.gates import Array
from refrnn.streams.fingerprints import fingerprint
from refrnn.streams.memory import LAST

FORMAT = "refrnn stream 1"
HEADER = "header.json"  # a member of .npz; in HDF5 an attribute of the root
FIELDS: dict[str, Any] = {
    "format": str, "model": str, "fingerprint": str, "bidirectional": str | None, "layout": dict,
    "rows": list, "names": dict, "steps": list, "fresh": list, "checksum": str,
}  # fmt: skip
PIECE = 1 << 20
FAILURES = (  # of zipfile and NumPy where what they read is damaged
    zipfile.BadZipFile, EOFError, OSError, ValueError, TypeError, RuntimeError, KeyError,
    IndexError, OverflowError, MemoryError, struct.error, zlib.error,
)  # fmt: skip

Header = dict[str, Any]
Arrays = dict[str, Array]


def save(snapshot: Any, path: "str | os.PathLike[str]") -> None:
    """Write a snapshot. Raises ValueError for another suffix, before anything is written."""
    write = _writer(path)
    header: Header = {
        "format": FORMAT,
        "model": snapshot.model.name,
        "fingerprint": fingerprint(snapshot.model),
        "bidirectional": snapshot.bidirectional,
        "layout": {
            layer: {part: values.dtype.name for part, values in parts.items()}
            for layer, parts in snapshot.state.items()
        },
        "rows": list(snapshot.rows),
        "names": dict(snapshot.names),
        "steps": snapshot.steps.tolist(),
        "fresh": snapshot.fresh.tolist(),
    }
    arrays = {
        key: _plain(snapshot.state[layer][part]) for layer, part, key in _keys(header["layout"])
    }
    header["checksum"] = _checksum(header, arrays)
    with replacing(path) as stream:
        write(stream, json.dumps(header), arrays)


def load(path: "str | os.PathLike[str]", make: Callable[[str | None], Any]) -> Any:
    """The stream in a file; make(bidirectional) returns one without rows, which is filled."""
    with within(os.fspath(path), FileError), archive.opened(path) as (stream, size):
        head = stream.read(4)
        stream.seek(0)
        header, arrays = (_read_npz if head == b"PK\x03\x04" else _read_hdf5)(stream, size)
        _check(header, arrays)
    made = make(header["bidirectional"])
    with within(os.fspath(path), FileError, MemoryError):
        mine = fingerprint(made.model)
        if header["fingerprint"] != mine:
            raise FileError(
                f"is the state of model {shown(header['model'])}, fingerprint"
                f" {shown(header['fingerprint'][:12])}, expected that of {made.model.who},"
                f" {mine[:12]!r}: the layers or the weights are others, and a state means nothing"
                " to them"
            )
        made.restore(_filled(made.snapshot(), header, arrays))
    return made


def _writer(path: "str | os.PathLike[str]") -> Callable[[IO[bytes], str, Arrays], None]:
    suffix = Path(path).suffix
    if suffix == ".npz":
        return _write_npz
    if suffix in (".h5", ".hdf5"):
        return _write_hdf5
    raise ValueError(
        f"{os.fspath(path)}: has suffix {suffix!r}, expected .npz or .h5, because the suffix"
        " chooses the format"
    )


def _keys(layout: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Each layer and part with the name that its array has in a file."""
    for layer, parts in layout.items():
        title = layer.replace("/", ".")  # which would be a folder
        for k, part in enumerate(parts):
            last = part.startswith(LAST)
            yield layer, part, f"{part}_{title}" if last else f"states_{title}_{k}"


def _plain(array: Array) -> Array:
    """bfloat16, which neither format has, as float32: exact, and cast back by what reads it."""
    return np.ascontiguousarray(array, np.float32 if array.dtype.name == "bfloat16" else None)


def _checksum(header: Header, arrays: Arrays) -> str:
    told = {name: value for name, value in header.items() if name != "checksum"}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name, values in arrays.items():
        digest.update(f"{name} {values.dtype.name} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


# --- what is read is checked ---


def _header(text: bytes | str) -> Header:
    header = archive.parse(text)
    if header.get("format") != FORMAT:
        raise FileError(
            f"says its format is {shown(header.get('format'))}, expected {FORMAT!r}, the only one"
            " that this version reads"
        )
    for name, kind in FIELDS.items():
        if not isinstance(header.get(name), kind):
            raise FileError(f"has no {name} in its header, expected one: it is damaged")
    if not all(isinstance(parts, dict) for parts in header["layout"].values()):
        raise FileError("has a layout that is none: it is damaged")
    return header


def _check(header: Header, arrays: Arrays) -> None:
    if header["checksum"] != _checksum(header, arrays):
        raise FileError("holds other than what its checksum was made of: it is damaged")
    rows, steps, fresh = (header[name] for name in ("rows", "steps", "fresh"))
    named = list(header["names"].values())
    if not (
        all(type(number) is int and number >= 0 for number in [*rows, *steps, *named])
        and all(type(new) is bool for new in fresh)
        and len(rows) == len(steps) == len(fresh)
        and rows == sorted(set(rows))
        and set(named) <= set(rows)
        and len(set(named)) == len(named)
    ):
        raise FileError("has rows, names and steps that do not go together: it is damaged")


def _filled(blank: Any, header: Header, arrays: Arrays) -> Any:
    """The snapshot that was saved, for a stream of the same model, whose own is `blank`."""
    layout = header["layout"]
    found = [list(parts.items()) for parts in layout.values()]
    mine = [[(p, a.dtype.name) for p, a in parts.items()] for parts in blank.state.values()]
    if found != mine:
        raise FileError(f"has a layout {shown(layout)}, expected {shown(mine)}")
    values = iter(arrays.values())
    state: dict[str, dict[str, Array]] = {}
    for layer, parts in blank.state.items():
        state[layer] = {}
        for part, empty in parts.items():
            array, shape = next(values), (len(header["rows"]), *empty.shape[1:])
            if array.shape != shape:
                raise FileError(f"{layer!r} {part!r} has shape {array.shape}, expected {shape}")
            state[layer][part] = array.astype(empty.dtype)
    return blank._replace(
        rows=tuple(header["rows"]),
        names=header["names"],
        steps=np.array(header["steps"], np.int64),
        fresh=np.array(header["fresh"], bool),
        state=state,
    )


# --- .npz: a zip archive of .npy members ---


def _write_npz(stream: IO[bytes], header: str, arrays: Arrays) -> None:
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr(HEADER, header)
        for name, values in arrays.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, values, allow_pickle=False)
            file.writestr(f"{name}.npy", data.getvalue())


def _read_npz(stream: IO[bytes], size: int) -> tuple[Header, Arrays]:
    with within("npz", *FAILURES), zipfile.ZipFile(stream) as file:
        entries = {entry.filename: entry for entry in file.infolist()}
        packed = [e for e in entries.values() if e.compress_type or e.file_size > size]
        if packed or len(entries) != len(file.infolist()):
            raise FileError("has members that are compressed or there twice, expected them plain")
        header = _header(_member(file, entries, HEADER))
        names = [key for _, _, key in _keys(header["layout"])]
        return header, {name: _npy(_member(file, entries, f"{name}.npy")) for name in names}


def _member(file: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], name: str) -> bytes:
    if name not in entries:
        raise FileError(f"has no member {shown(name)}, expected it: it is damaged")
    with file.open(entries[name]) as member:
        return b"".join(iter(lambda: member.read(PIECE), b""))


def _npy(data: bytes) -> Array:
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise FileError("has a .npy member of another version, expected 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    rest = data[stream.tell() :]
    if dtype.kind != "f" or fortran or math.prod(shape) * dtype.itemsize != len(rest):
        raise FileError(
            f"has an array of {dtype} {shape} in {len(rest)} bytes, expected its floats"
        )
    return np.frombuffer(rest, dtype).reshape(shape)


# --- HDF5 ---


def _write_hdf5(stream: IO[bytes], header: str, arrays: Arrays) -> None:
    with hdf5.made(stream) as root:
        root.attrs[HEADER] = header
        for name, values in arrays.items():
            root.create_dataset(name, data=values)


def _read_hdf5(stream: IO[bytes], size: int) -> tuple[Header, Arrays]:
    with hdf5.opened(stream, size) as tree:
        text = tree.text((), HEADER)
        if text is None:
            raise FileError(
                f"has no attribute {HEADER!r}, expected the header that Stream.save writes; the"
                " states in a file of another origin are set by Stream.set_state"
            )
        header = _header(text)
        return header, {key: tree.array((key,)) for _, _, key in _keys(header["layout"])}
