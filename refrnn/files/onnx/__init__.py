"""Models of ONNX: LSTM, GRU and RNN nodes and what is around them, without the onnx package."""

import os
from pathlib import Path

from refrnn.files import archive
from refrnn.files.errors import FileError, within
from refrnn.files.graphs import End, Graph, Imported, model
from refrnn.files.onnx import messages
from refrnn.files.onnx.writing import packed

__all__ = ["SUFFIX", "End", "Imported", "load", "packed"]

SUFFIX = ".onnx"
MAX_FILE = 1 << 31  # bytes; protobuf has no longer messages


def load(path: "str | os.PathLike[str]") -> Imported:
    """The model in a file of ONNX, and how its inputs and outputs differ from the file's.

    Raises FileError for what is damaged, and for what refrnn's layers are not, by node and
    attribute.
    """
    with within(os.fspath(path), FileError):
        return model(read(path), Path(path).stem)


def read(path: "str | os.PathLike[str]") -> Graph:
    """The graph in a file of ONNX, with its weights. Raises FileError as `load`."""
    with archive.opened(path) as (stream, size):
        if size > MAX_FILE:
            raise FileError(f"has {size} bytes, expected at most {MAX_FILE}")
        data = b"".join(stream.read(archive.PIECE) for _ in range(0, size, archive.PIECE))
    return messages.read(data, Path(path).parent)
