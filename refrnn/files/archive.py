"""Bounded reading of files, zip members and JSON: no more memory than a file of its size merits.

Members are read by exact name into memory; nothing is extracted, so no name in an archive ever
becomes a path.
"""

import json
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from typing import Any

from refrnn.files.errors import FileError, shown, within

ZIP = b"PK\x03\x04"  # what an archive with members begins with
MEMBERS = ("metadata.json", "config.json", "model.weights.h5")  # what .keras must have
# Keras stores members uncompressed, and weights that someone compresses lose little: twice the
# archive is more than any honest one holds. The constant lets small, well compressed ones pass.
SLACK = 64 << 20
MAX_JSON = 4 << 20  # bytes; a layer takes about 2,000, so a model of 2,000 layers has room
MAX_DEPTH = 64  # of JSON; cells in a stack in an RNN in a wrapper reach 15
MAX_PARTS = 200_000  # objects and lists of JSON; a layer has about 20
MAX_DIRECTORY = 4 << 20  # bytes zipfile may read at a time: the list of 40,000 members
MAX_DIGITS = 19  # of a JSON integer: 64 bits
PIECE = 1 << 20

_TOKENS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{\]}]', re.DOTALL)

_FAILURES = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError,
    NotImplementedError, IndexError, KeyError, OverflowError, MemoryError,
)  # fmt: skip


class Plain(FileIO):
    """A file for zipfile, which would otherwise read a directory of any declared size at once."""

    def read(self, size: int | None = -1, /) -> Any:
        data = super().read(MAX_DIRECTORY + 1 if size is None or size < 0 else size)
        if data is not None and len(data) > MAX_DIRECTORY:
            raise FileError(
                f"the zip directory is longer than {MAX_DIRECTORY} bytes, expected less for the"
                f" {len(MEMBERS)} members of a model"
            )
        return data


@contextmanager
def opened(path: "str | os.PathLike[str]") -> Iterator[tuple[Plain, int]]:
    """A file for reading, and its size. FileError for what is not a file, a pipe say."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = "folder" if stat.S_ISDIR(mode) else "device or pipe"
        raise FileError(f"is a {kind}, expected a file")
    with Plain(path) as stream:
        yield stream, os.fstat(stream.fileno()).st_size


def members(stream: Plain, size: int) -> dict[str, bytes]:
    """The three members of a .keras archive, each checked against its checksum."""
    with within("zip", *_FAILURES), zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        odd = [n for n in names if n.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", n)]
        if odd:
            raise FileError(
                f"a member is called {shown(odd[0])}, expected names without '..' that do not start"
                " with '/', because such a name is made to be written outside of a folder"
            )
        for name in MEMBERS:
            if names.count(name) != 1:
                raise FileError(
                    f"has {names.count(name)} members {name!r}, expected one; found"
                    f" {shown(names[:10])}"
                )
        budget = 2 * size + SLACK
        found: dict[str, bytes] = {}
        for name in MEMBERS:
            limit = MAX_JSON if name.endswith(".json") else budget
            with within(name, *_FAILURES):
                found[name] = _member(archive, archive.getinfo(name), min(limit, budget))
            budget -= len(found[name])
        return found


def every_member(stream: Plain, size: int) -> dict[str, bytes]:
    """All members of an archive of arrays by name, each checked against its checksum."""
    with within("zip", *_FAILURES), zipfile.ZipFile(stream) as archive:
        budget = 2 * size + SLACK
        found: dict[str, bytes] = {}
        for entry in archive.infolist():
            name = entry.filename
            if name in found:
                raise FileError(f"has two members {shown(name)}, expected one")
            with within(shown(name), *_FAILURES):
                found[name] = _member(archive, entry, budget)
            budget -= len(found[name])
        return found


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limit: int) -> bytes:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
        raise FileError(
            f"is encrypted or compressed by method {entry.compress_type}, expected a member stored"
            " (0) or deflated (8)"
        )
    pieces, total = [], 0
    with archive.open(entry) as member:
        while piece := member.read(PIECE):
            total += len(piece)
            if total > limit:
                raise FileError(
                    f"holds more than {limit} bytes, expected less for an archive of this size,"
                    " because no model shrinks that much: it looks like a zip bomb"
                )
            pieces.append(piece)
    if total != entry.file_size:
        raise FileError(f"holds {total} bytes, expected {entry.file_size}, as its entry says")
    return b"".join(pieces)


def parse(text: bytes | str) -> dict[str, Any]:
    """A JSON object; FileError where it is too long, too deep, ambiguous or not one."""
    with within("JSON", ValueError, RecursionError):
        if isinstance(text, str):
            text = text.encode()
        if len(text) > MAX_JSON:
            raise FileError(f"has {len(text)} bytes, expected at most {MAX_JSON}")
        depth, parts = _nesting(text)
        if depth > MAX_DEPTH or parts > MAX_PARTS:
            raise FileError(
                f"is nested {depth} deep and has {parts} parts, expected at most {MAX_DEPTH} and"
                f" {MAX_PARTS}, which no model of Keras's reaches"
            )
        found = json.loads(text.decode(), object_pairs_hook=_object, parse_int=_integer)
        if not isinstance(found, dict):
            raise FileError(f"is a {type(found).__name__}, expected an object")
        return found


def _nesting(text: bytes) -> tuple[int, int]:
    """How deep the brackets outside of texts are nested, and how many open."""
    deepest = depth = parts = 0
    for found in _TOKENS.finditer(text):
        token = found.group()
        if token in b"[{":
            depth += 1
            parts += 1
            deepest = max(deepest, depth)
        elif token in b"]}":
            depth -= 1
    return deepest, parts


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise FileError(f"has the key {shown(twice)} twice in one object, expected it once")
    return found


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise FileError(f"has an integer of {len(digits)} digits, expected at most {MAX_DIGITS}")
    return int(digits)
