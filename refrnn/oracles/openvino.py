"""OpenVINO on the CPU, told to compute in float32: bfloat16 is its default where the CPU has it."""

from typing import Any

import numpy as np

from refrnn.cases import Arrays, Case
from refrnn.gates import Array
from refrnn.oracles import adapters, onnx_model


class OpenVino:
    """Raises Unavailable where OpenVINO or onnx is missing."""

    def __init__(self) -> None:
        self.onnx = adapters.needed("onnx", "ONNX")
        self.openvino = adapters.needed("openvino", "OpenVINO")
        self.core = self.openvino.Core()

    def versions(self) -> dict[str, str]:
        build = str(self.openvino.__version__)
        return {"OpenVINO": build.partition("-")[0], "onnx": str(self.onnx.__version__)}

    def run(self, case: Case, way: str = "f32", arrays: Arrays | None = None) -> dict[str, Array]:
        """Outputs y (B, T, H), h and for LSTM c (B, H) of `case`."""
        given = adapters.given(case, arrays)
        model, feed = onnx_model.model(self.onnx, case, given)
        found = self._run(self.core.read_model(model, b""), feed, way)
        return onnx_model.outputs(case, given, found)

    def run_file(self, path: str, inputs: dict[str, Array]) -> list[Array]:
        """The outputs of the model in a file of ONNX, in the file's order; in float32."""
        return self._run(self.core.read_model(path), inputs, "f32")

    def _run(self, model: Any, inputs: dict[str, Array], precision: str) -> list[Array]:
        compiled = self.core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
        found = compiled.create_infer_request().infer(inputs)
        return [np.array(found[end]) for end in compiled.outputs]
