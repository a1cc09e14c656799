"""What the commands share: their exit statuses, why one cannot judge, and how results are told."""

import json
import re
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

from refrnn.verify.whole import plain, write

AGREES, DIFFERS, UNJUDGED = 0, 1, 2
Found = TypeVar("Found")


class CannotJudge(Exception):
    """Bad input or a missing library: the message says what to fix."""


def one_line(error: Exception) -> str:
    """What an error of another library says, in one line: colours and the call's arguments gone."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()]
    said = [line for line in lines if line and not line.startswith("Exception encountered")]
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def done(jobs: Sequence[Callable[[], Found]]) -> Iterable[Found]:
    """What each job returns, as it is done; on a terminal a bar shows how many are."""
    with closing(progress(jobs, sys.stderr)) as running:
        for job in running:
            yield job()


def progress(jobs: Sequence[Found], stream: TextIO) -> Generator[Found, None, None]:
    """The jobs, with a bar on a terminal and nothing elsewhere; the bar is wiped at the end."""
    if not stream.isatty():
        yield from jobs
        return
    try:
        for k, job in enumerate(jobs):
            filled = 30 * k // len(jobs)
            bar = "#" * filled + "." * (30 - filled)
            print(f"\r[{bar}] {k}/{len(jobs)}", end="", file=stream, flush=True)
            yield job
    finally:
        print("\r" + " " * 50 + "\r", end="", file=stream, flush=True)


def check_writable(option: str, path: Path | None) -> None:
    """Refuse what cannot be written, before there is anything to write."""
    if path is not None:
        if not path.resolve().parent.is_dir():
            raise CannotJudge(f"{option} {path}: no such folder {path.parent}")
        if path.is_dir():
            raise CannotJudge(f"{option} {path}: a folder, expected a file to write")


@contextmanager
def writing(path: Path, option: str = "--json") -> Generator[None, None, None]:
    """A report is written to `path` inside the block."""
    try:
        yield
    except OSError as error:
        raise CannotJudge(f"{option} {path}: {error.strerror or error}") from None


def save_json(path: Path | None, found: Any) -> None:
    """Write what `found.to_dict()` gives, if a path was asked for."""
    if path is not None:
        with writing(path):
            write(path, json.dumps(plain(found.to_dict()), indent=1, allow_nan=False) + "\n")
