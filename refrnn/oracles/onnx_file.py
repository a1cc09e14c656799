"""ONNX Runtime on the CPU: a whole model, from a file."""

from collections.abc import Mapping
from pathlib import Path

from refrnn.gates import Array
from refrnn.oracles import adapters


def run(path: Path, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs by name. Raises Unavailable without ONNX Runtime; else whatever it raises."""
    runtime = adapters.needed("onnxruntime", "ONNX Runtime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))
