"""Bounded reading of HDF5: names, texts and whole plain arrays, reached by hard links only.

What h5py would follow or run is refused before it is opened: soft and external links, external
storage, virtual datasets, filters, and types that are not plain floats. Sizes that a file declares
are compared with the bytes it has before anything is allocated.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from refrnn.files.attributes import Texts
from refrnn.files.errors import FileError, shown, within
from refrnn.gates import Array

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_FOLDERS = 20  # how deep; Keras's own go 8 deep

KINDS = {1: "SoftLink", 64: "ExternalLink"}  # of links, as libhdf5 numbers them

Path = tuple[str, ...]


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise ImportError(
            "weights are read and written with h5py, which is not installed; install it:"
            " pip install 'refrnn[files]'"
        ) from None
    return h5py


@contextmanager
def made(stream: IO[bytes]) -> Iterator[Any]:
    """A new HDF5 file in `stream`, as h5py's root, whole at the end of the block."""
    with _h5py().File(stream, "w") as root:
        yield root


@contextmanager
def opened(stream: IO[bytes], size: int) -> "Iterator[Tree]":
    """The tree in `stream`, a file of `size` bytes."""
    h5py = _h5py()
    stream.seek(0)
    head = stream.read(len(SIGNATURE) + 8)
    if head[: len(SIGNATURE)] != SIGNATURE:
        raise FileError("does not begin as an HDF5 file does: it is damaged, or of another kind")
    version = head[8] if len(head) == 16 else -1
    sizes = {0: head[13:15], 2: head[9:11], 3: head[9:11]}.get(version)
    if sizes != b"\x08\x08":
        raise FileError(
            f"is HDF5 of version {version} with numbers of {shown(sizes)} bytes, expected version"
            " 0, 2 or 3 with addresses and lengths of 8 bytes, as h5py writes it"
        )
    # h5py raises what libhdf5's own errors happen to be translated to
    with within("HDF5", Exception):
        root = h5py.File(stream, "r")
    try:
        yield Tree(root, stream, size, _root_address(stream, version))
    finally:
        with within("HDF5", Exception):
            root.close()


def _root_address(stream: IO[bytes], version: int) -> int:
    """Where the header of the root folder is: a number in the first bytes of a file."""
    stream.seek(64 if version == 0 else 36)
    return int.from_bytes(stream.read(8), "little")


class Tree:
    """An open HDF5 file; every place in it is a path of names from the root."""

    def __init__(self, root: Any, stream: IO[bytes], size: int, address: int) -> None:
        self._root, self._size, self._address = root, size, address
        self._texts = Texts(stream, size)
        self._left = size  # what all arrays together may still take: no more than the file has

    def names(self, path: Path) -> list[str]:
        """What a folder holds; nothing where there is no such folder."""
        found = self._object(path)
        if found is None:
            return []
        if not isinstance(found, _h5py().Group):
            raise FileError(f"{_said(path)} is an array, expected a folder")
        with within(_said(path), Exception):
            # h5py leaves a name that is no UTF-8 as bytes
            return [
                n if isinstance(n, str) else n.decode("utf-8", "surrogateescape") for n in found
            ]

    def has(self, path: Path) -> bool:
        return self._object(path) is not None

    def arrays(self, path: Path) -> list[Path]:
        """The paths of all arrays at or below `path`."""
        found: list[Path] = []
        seen: set[int] = set()
        waiting = [path]
        while waiting:
            path = waiting.pop()
            at = self._place(path)
            if at is None:
                continue
            here, place = at
            if not isinstance(here, _h5py().Group):
                found.append(path)
                continue
            if place in seen or len(path) > MAX_FOLDERS:
                raise FileError(
                    f"folder {_said(path)} is reached twice or is more than {MAX_FOLDERS} deep,"
                    " expected a tree, because such a file has no end"
                )
            seen.add(place)
            waiting += [(*path, name) for name in self.names(path)]
        return found

    def array(self, path: Path) -> Array:
        """A whole array of floats, in this machine's byte order."""
        found, said = self._object(path), _said(path)
        if found is None:
            raise FileError(f"array {said} is missing")
        if not isinstance(found, _h5py().Dataset):
            raise FileError(f"{said} is a folder, expected an array")
        with within(said, Exception):
            self._check(found)
            values = np.asarray(found[()])
            return np.asarray(values, values.dtype.newbyteorder("="), order="C")

    def _check(self, found: Any) -> None:
        """Refuse whatever is not a plain array that is really in the file."""
        h5py = _h5py()
        made = found.id.get_create_plist()
        if not isinstance(found.id.get_type(), h5py.h5t.TypeFloatID) or not (
            found.dtype.kind == "f" and found.dtype.itemsize in (2, 4, 8)
        ):
            raise FileError(f"has type {shown(found.dtype)}, expected floats of 2, 4 or 8 bytes")
        layout = made.get_layout()
        if layout == h5py.h5d.VIRTUAL or made.get_external_count():
            raise FileError("takes its numbers from other files, expected them in this one")
        if layout not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT) or made.get_nfilters():
            raise FileError("is chunked or compressed, expected a whole plain array, as Keras's")
        shape = found.shape
        size = math.prod(shape or ()) * found.dtype.itemsize
        stored = found.id.get_storage_size()
        if shape is None or size > self._left or stored != size:
            raise FileError(
                f"declares shape {shown(shape)}, {size} bytes, and has {stored} stored; expected"
                f" what it declares, and at most {self._left} more bytes from a file of"
                f" {self._size}"
            )
        offset = found.id.get_offset()
        if layout == h5py.h5d.CONTIGUOUS and size and (offset or 0) + size > self._size:
            raise FileError(f"reaches beyond the end of the file, byte {self._size}: it is cut off")
        self._left -= size

    def texts(self, path: Path, name: str) -> list[str] | None:
        """The attribute `name` of a folder as a list of texts; None where it has none."""
        found = self._place(path)
        if found is None:
            return None
        with within(f"{_said(path)}: attribute {name!r}", Exception):
            return self._texts.of(found[1], name)

    def text(self, path: Path, name: str) -> str | None:
        """An attribute that is one text."""
        found = self.texts(path, name)
        if found is not None and len(found) != 1:
            raise FileError(f"{_said(path)}: attribute {name!r} has {len(found)} texts, expected 1")
        return found[0] if found else None

    def _object(self, path: Path) -> Any:
        """The group or dataset at `path`, or None."""
        found = self._place(path)
        return None if found is None else found[0]

    def _place(self, path: Path) -> tuple[Any, int] | None:
        """The object at `path` and its address; every link on the way must be a hard one.

        The address is the link's: h5py's own get_info measures the object, and never ends on some.
        """
        h5py, here, address = _h5py(), self._root, self._address
        if any(not name or name in (".", "..") or "/" in name or "\0" in name for name in path):
            raise FileError(f"{_said(path)} is no path of names, expected one")
        for depth, name in enumerate(path, 1):
            with within(_said(path[:depth]), Exception):
                key = name.encode("utf-8", "surrogateescape")
                if not isinstance(here, h5py.Group) or not here.id.links.exists(key):
                    return None
                link = here.id.links.get_info(key)
                if link.type != h5py.h5l.TYPE_HARD:
                    raise FileError(
                        f"is a {KINDS.get(link.type, 'strange link')}, expected what it stands for,"
                        " because a link may lead anywhere, out of the file too"
                    )
                here, address = here[key], int(link.u)
        return here, address


def _said(path: Path) -> str:
    return shown("/" + "/".join(path))
