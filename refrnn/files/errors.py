"""FileError, and how the complaints of other modules become one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LONGEST = 400  # characters of a complaint or a value: what a file holds may be megabytes long


class FileError(ValueError):
    """A file that refrnn does not load: damaged, hostile, or with something it does not have.

    The message names the file and the place in it, what was found, what was expected, and why.
    """


def shown(value: Any) -> str:
    """A value from a file as a message shows it: its repr, escaped and cut."""
    return clip(repr(value))


def clip(text: str) -> str:
    # a lone surrogate, as HDF5 names may hold, could not be printed
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text)} characters)"


@contextmanager
def within(place: str, *kinds: type[Exception]) -> Iterator[None]:
    """Complaints inside the block are FileErrors that begin with `place`.

    kinds  what else is a complaint of the file: ValueError and TypeError by default, which is how
           a layer refuses a setting or a weight
    """
    caught = kinds or (ValueError, TypeError)
    try:
        yield
    except FileError as error:
        raise FileError(f"{place}: {error}") from None
    except caught as error:
        said = str(error) or type(error).__name__
        raise FileError(f"{place}: {clip(said)}") from None
