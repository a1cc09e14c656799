"""Models of TFLite: the fused LSTM and what is around it, without TensorFlow or flatbuffers.

What TFLite's LSTM has beyond a layer's is said: its state stays in the model between calls, while
here every call begins with zeros; and its cell state is clipped, to 10 by the converter.
"""

import os

from refrnn.files import archive
from refrnn.files.errors import FileError
from refrnn.files.graphs import Graph
from refrnn.files.tflite import schema, translation

SUFFIX = ".tflite"
MAX_FILE = 1 << 31  # bytes: offsets have no more


def read(path: "str | os.PathLike[str]") -> Graph:
    """The graph in a file of TFLite, with its weights.

    Raises FileError for what is damaged; what refrnn does not have is a node with its trouble.
    """
    with archive.opened(path) as (stream, size):
        if size > MAX_FILE:
            raise FileError(f"has {size} bytes, expected at most {MAX_FILE}")
        data = b"".join(stream.read(archive.PIECE) for _ in range(0, size, archive.PIECE))
    return translation.graph(schema.read(data))
