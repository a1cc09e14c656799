"""UNIDIRECTIONAL_SEQUENCE_LSTM as a node; what it has beyond a layer is said or refused."""

from collections.abc import Mapping

import numpy as np

from refrnn.files.errors import FileError
from refrnn.files.graphs import Node
from refrnn.files.tflite.schema import Operator, Tensor
from refrnn.gates import Array

GATES = ("input", "forget", "cell", "output")
INPUTS = (
    "input",
    *(f"input_to_{gate}_weights" for gate in GATES),
    *(f"recurrent_to_{gate}_weights" for gate in GATES),
    *(f"cell_to_{gate}_weights" for gate in GATES if gate != "cell"),
    *(f"{gate}_gate_bias" for gate in GATES),
    "projection_weights", "projection_bias", "output_state", "cell_state",
    *(f"{gate}_layer_norm_coefficients" for gate in GATES),
)  # fmt: skip
STATES = ("output_state", "cell_state")
FUSED = {1: "RELU", 4: "TANH"}


def node(
    operator: Operator, node: Node, constants: Mapping[str, Array]
) -> tuple[Node, list[tuple[str, str]]]:
    """The node, and what TFLite does besides: a word and a sentence each."""
    if not 20 <= len(operator.inputs) <= len(INPUTS):
        raise FileError(f"has {len(operator.inputs)} inputs, expected 20 to {len(INPUTS)}")
    given: dict[str, Tensor] = {
        name: tensor
        for name, tensor in zip(INPUTS, operator.inputs, strict=False)
        if tensor is not None
    }
    for name in given:
        if name.endswith("layer_norm_coefficients"):
            raise FileError(f"has {name}, expected none, because refrnn's LSTM has no such norm")
    if "input" not in given or len(given["input"].shape) != 3:
        raise FileError("has an input that is not of 3 axes, expected (batch, time, features)")
    if "input_to_input_weights" not in given:
        raise FileError(
            "has no input_to_input_weights (i = 1 - f), expected them: an input gate of its own"
        )
    options = operator.options
    if options is None or options.number(5, "?", False):
        raise FileError("has no options, or diagonal_recurrent_tensors, expected plain weights")
    fused, clip = options.number(0, "b"), options.number(1, "f", 0.0)
    if fused not in FUSED:
        raise FileError(f"has the fused activation {fused}, expected 4 (TANH) or 1 (RELU)")
    if not 0 <= clip < np.inf:
        raise FileError(f"cell_clip is {clip}, expected 0 (none), or a bound above")
    time_major = options.number(3, "?", False)
    arrays = {}
    for name, tensor in given.items():
        if name in ("input", *STATES):
            continue
        if tensor.name not in constants:
            raise FileError(f"{name} is computed, expected a constant, because weights are fixed")
        arrays[name] = constants[tensor.name]
    biases = [arrays.pop("projection_bias")] if "projection_bias" in arrays else []
    if any(bias.any() for bias in biases):
        raise FileError("has a projection_bias that is not zero, expected none")
    inputs = [given["input"].name, "", "", "", "", *(_state(given, n, constants) for n in STATES)]
    steps = given["input"].shape[0 if time_major else 1]
    bound = steps if fused == 4 else None  # |c| grows by 1 a step at most
    attributes = {
        "fused_activation_function": FUSED[fused], "cell_clip": clip, "time_major": time_major,
    }  # fmt: skip
    made = node._replace(
        op="LSTM", source="tflite", inputs=inputs, attributes=attributes, arrays=arrays
    )
    return made, _remarks(made.who, clip, bound, given)


def _state(given: Mapping[str, Tensor], name: str, constants: Mapping[str, Array]) -> str:
    """The name of a state to begin with; "" for the zeros of one that lasts."""
    tensor = given.get(name)
    if tensor is None:
        raise FileError(f"has no {name}, expected one")
    stored = constants.get(tensor.name)
    if stored is not None and stored.any():
        raise FileError(f"{name} is a constant that is not zero, expected zeros or an input")
    return "" if tensor.lasting or stored is not None else tensor.name


def _remarks(
    who: str, clip: float, bound: int | None, given: Mapping[str, Tensor]
) -> list[tuple[str, str]]:
    found = []
    if any(given[name].lasting for name in STATES):
        found.append((
            "lasting",
            f"{who}: its state stays in the model from one call to the next there, until"
            " reset_all_variables(); here every call begins with zeros, as TFLite's first",
        ))  # fmt: skip
    if clip and not (bound is not None and bound <= clip):
        found.append((
            "differs",
            f"{who}: cell_clip is {clip:g} and is left out: where a cell state passes it, the"
            " numbers are others than TFLite's (the converter adds it, Keras has none)",
        ))  # fmt: skip
    return found
