"""The interpreter of TFLite, as TensorFlow has it: a whole model, from a file."""

from collections.abc import Mapping
from pathlib import Path

from refrnn.gates import Array
from refrnn.oracles import adapters


def run(path: Path, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of the first call by name. Raises Unavailable without TensorFlow."""
    tensorflow = adapters.needed("tensorflow", "TensorFlow")
    interpreter = tensorflow.lite.Interpreter(str(path))
    places = {entry["name"]: entry["index"] for entry in interpreter.get_input_details()}
    for name, array in inputs.items():
        interpreter.resize_tensor_input(places[name], array.shape)
    interpreter.allocate_tensors()
    for name, array in inputs.items():
        interpreter.set_tensor(places[name], array)
    interpreter.invoke()
    return {
        entry["name"]: interpreter.get_tensor(entry["index"])
        for entry in interpreter.get_output_details()
    }
