"""A case as an ONNX model of one LSTM, GRU or RNN node, for the runtimes that run such models."""

from typing import Any

import numpy as np

from refrnn.cases import Case
from refrnn.oracles import adapters

NODES = {"SimpleRNN": "RNN", "LSTM": "LSTM", "GRU": "GRU"}
OPSET, IR = 17, 9


def model(onnx: Any, case: Case, given: adapters.Given) -> tuple[bytes, dict[str, Any]]:
    """The model, and its inputs by name: x (T, B, F), lengths (B,), h and c (1, B, H).

    Its outputs are y (T, 1, B, H), then the states (1, B, H). Mask: True up to a row's length.
    """
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    weights = adapters.stored(case, given.weights, "onnx")
    states = adapters.PARTS[case.layer]
    feed: dict[str, Any] = {"x": np.ascontiguousarray(given.x.swapaxes(0, 1))}
    if given.mask is not None:
        feed["lengths"] = given.mask.sum(1).astype(np.int32)
    feed |= {name: part[None] for name, part in zip(states, given.state, strict=True)}
    inputs = ["x", "W", "R", "B" if "B" in weights else "", "lengths", *states]
    node = helper.make_node(
        NODES[case.layer],
        [name if name in feed or name in weights else "" for name in inputs],
        ["y", *(f"{name}_after" for name in states)],
        **weights.attributes,
    )
    (T, B, _), H = feed["x"].shape, case.units
    shapes = {"y": (T, 1, B, H)} | {f"{name}_after": (1, B, H) for name in states}
    real = helper.np_dtype_to_tensor_dtype(given.x.dtype)
    graph = helper.make_graph(
        [node],
        "case",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in feed.items()
        ],
        [helper.make_tensor_value_info(name, real, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    return bytes(made.SerializeToString()), feed


def outputs(case: Case, given: adapters.Given, found: list[Any]) -> dict[str, Any]:
    """y, h and c in Keras's shapes; after a row's length, where ONNX has zeros, its last output."""
    y, *state = (np.array(a) for a in found)
    named = adapters.outputs(case, y[:, 0].swapaxes(0, 1), [part[0] for part in state])
    if given.mask is not None and not case.options.get("zero_output_for_mask"):
        named["y"] = adapters.repeat_outputs(named["y"], given.mask)
    return named
