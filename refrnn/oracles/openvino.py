"""OpenVINO on the CPU, told to compute in float32: bfloat16 is its default where the CPU has it."""

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
        settings = {"INFERENCE_PRECISION_HINT": way}
        compiled = self.core.compile_model(self.core.read_model(model, b""), "CPU", settings)
        found = compiled.create_infer_request().infer(feed)
        return onnx_model.outputs(case, given, [found[k] for k in range(len(found))])
