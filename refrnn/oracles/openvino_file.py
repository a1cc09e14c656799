"""OpenVINO on the CPU: a whole model, from a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refrnn.gates import Array
from refrnn.oracles import adapters

FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}  # else bfloat16 where the processor has it


def run(path: Path, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs by name. Raises Unavailable without OpenVINO; else whatever it raises."""
    openvino = adapters.needed("openvino", "OpenVINO")
    compiled = openvino.Core().compile_model(str(path), "CPU", FLOAT32)
    found = compiled([inputs[port.any_name] for port in compiled.inputs])
    return {_name(port): found[port] for port in compiled.outputs}


def _name(port: Any) -> str:
    """What users call an output; the operation's own name where they do not."""
    return port.any_name if port.names else port.node.input_value(0).node.friendly_name
