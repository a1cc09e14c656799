"""Files that are written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: "str | os.PathLike[str]") -> Iterator[IO[bytes]]:
    """A new file for writing, which takes the place of `path` at the end of the block.

    It is beside it under another name until it is whole and on the disk. Where the block fails it
    is removed, and what was at `path` is as it was. Of a link, what it points at is replaced; a
    device is written to.
    """
    target = Path(path).resolve()
    if target.exists() and not (target.is_file() or target.is_dir()):
        with target.open("wb") as stream:
            yield stream
        return
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        _take_mode(name, target)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


def _take_mode(name: str, target: Path) -> None:
    """Give a file the permissions of the one that it replaces, or those of any new file."""
    if target.exists():
        mode = target.stat().st_mode & 0o777
    else:
        mask = os.umask(0)
        os.umask(mask)
        mode = 0o666 & ~mask
    os.chmod(name, mode)
