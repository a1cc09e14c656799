"""Models in files of other runtimes, told apart by suffix: graphs of operations, no layers."""

import os
from collections.abc import Callable
from pathlib import Path

from refrnn.files import onnx, openvino, tflite
from refrnn.files.errors import FileError, within
from refrnn.files.graphs import Graph, Imported, model

AnyPath = str | os.PathLike[str]
READERS: dict[str, Callable[[AnyPath], Graph]] = {
    onnx.SUFFIX: onnx.read,
    tflite.SUFFIX: tflite.read,
    openvino.SUFFIX: openvino.read,
}
DIFFERS = "differs"  # the word of a remark on other numbers


def load(path: AnyPath) -> Imported:
    """The model in a file of ONNX, TFLite or OpenVINO, and how it differs from the file's.

    Raises FileError for what is damaged, and for what refrnn's layers are not, by node and
    attribute.
    """
    with within(os.fspath(path), FileError):
        return model(READERS[Path(path).suffix](path), Path(path).stem)
