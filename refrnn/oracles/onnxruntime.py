"""ONNX Runtime on the CPU: a model of one node, and models from files. It has float32 alone."""

from pathlib import Path

from refrnn.cases import Arrays, Case
from refrnn.gates import Array
from refrnn.oracles import adapters, onnx_file, onnx_model


class OnnxRuntime:
    """Raises Unavailable where ONNX Runtime or onnx is missing."""

    def __init__(self) -> None:
        self.onnx = adapters.needed("onnx", "ONNX")
        self.runtime = adapters.needed("onnxruntime", "ONNX Runtime")

    def versions(self) -> dict[str, str]:
        return {"ONNX Runtime": str(self.runtime.__version__), "onnx": str(self.onnx.__version__)}

    def run(self, case: Case, way: str = "node", arrays: Arrays | None = None) -> dict[str, Array]:
        """Outputs y (B, T, H), h and for LSTM c (B, H) of `case`."""
        given = adapters.given(case, arrays)
        model, feed = onnx_model.model(self.onnx, case, given)
        options = self.runtime.SessionOptions()
        options.log_severity_level = 3
        session = self.runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return onnx_model.outputs(case, given, session.run(None, feed))

    def run_file(self, path: str, inputs: dict[str, Array]) -> list[Array]:
        """The outputs of the model in a file, in the file's order."""
        return list(onnx_file.run(Path(path), inputs).values())
