"""LSTM, GRU and RNN nodes of ONNX as recurrent layers; what a layer cannot be is refused."""

from typing import Any, NamedTuple

import numpy as np

from refrnn import layers, layouts
from refrnn.files.errors import FileError, within
from refrnn.files.onnx.messages import Node
from refrnn.files.onnx.values import D, Known, Value, Zeros
from refrnn.gates import Array
from refrnn.layers.symbolic import Symbol
from refrnn.layouts import Stored, equivalents

OPS = ("LSTM", "GRU", "RNN")
# By whether time is first (layout=0): the axes of the input, of the output, and of a state.
AXES: dict[bool, dict[str, tuple[int, ...]]] = {
    True: {"X": (1, 0, 2), "Y": (1, D, 0, 2), "state": (D, 0, 1)},
    False: {"X": (0, 1, 2), "Y": (0, 1, D, 2), "state": (0, D, 1)},
}
DIRECTIONS = ("forward", "reverse", "bidirectional")


class Made(NamedTuple):
    """A layer and what it is called on.

    direction  one of DIRECTIONS
    first      whether time is first in the file
    lone       whether it is a Bidirectional of which only the way back counts
    """

    layer: layers.Layer
    symbol: Symbol
    arrays: list[Array]
    more: dict[str, Any]
    direction: str
    first: bool
    lone: bool
    states: int
    inexact: list[str]


def layer(node: Node, found: list[Any], used: list[bool], name: str) -> Made:
    """The layer of a node.

    found  the values of its inputs: X, W, R, B, sequence_lens, initial_h, initial_c, P
    used   which of Y, Y_h and Y_c are used
    """
    given = dict(node.attributes)  # the layout refuses what it does not know
    layout = given.pop("layout", 0)
    if layout not in (0, 1):
        raise FileError(f"layout is {layout!r}, expected 0 or 1")
    first = layout == 0
    direction = given.pop("direction", "forward") or "forward"
    if direction not in DIRECTIONS:
        raise FileError(f"direction is {direction!r}, expected one of {', '.join(DIRECTIONS)}")
    x, *arrays, lengths, h, c, peepholes = (*found, None, None)[:8]
    if lengths is not None:
        raise FileError(
            "has sequence_lens, expected none, because a layer takes a mask and no lengths; run it"
            " on each length, or pad and mask in refrnn"
        )
    symbol = _sequence(x, AXES[first]["X"])
    stored = _stored(node, arrays, peepholes, given, direction)
    inexact = []
    if stored.attributes.get("input_forget"):
        with within("input_forget"):
            stored = equivalents.untied(stored)
        inexact.append(f"{node.who}: input_forget: f = 1 - i is computed as a gate of its own")
    keras = layouts.convert(stored, target="keras", lossy="sum_biases")
    if keras.lossy:
        inexact.append(f"{node.who}: Wb + Rb: the two biases are added up")
    states = 2 if node.op == "LSTM" else 1
    start = [_state(v, n, AXES[first]["state"]) for v, n in zip((h, c), "hc", strict=True)][:states]
    lone = direction == "reverse" and used[0]
    more = _start(start, lone, direction)
    made = _layer(node, keras, direction, used, lone, name)
    weights = list(keras.values())
    if lone:
        dtype, features = weights[0].dtype, len(weights[0])
        idle = [np.zeros((features, 1), dtype), np.zeros((1, 1), dtype), np.zeros(1, dtype)]
        weights = [*idle, *weights]
    return Made(made, symbol, weights, more, direction, first, lone, states, inexact)


def _sequence(x: Any, axes: tuple[int, ...]) -> Symbol:
    if not isinstance(x, Value) or len(x.parts) > 1 or x.axes != axes:
        told = x.axes if isinstance(x, Value) else "a constant"
        raise FileError(
            f"X has the axes {told} (0 batch, 1 time, 2 features, -1 directions), expected {axes}"
        )
    return x.parts[0]


def _stored(
    node: Node, arrays: list[Any], peepholes: Any, given: dict[str, Any], direction: str
) -> Stored:
    """The weights in ONNX's layout."""
    named = {}
    for name, value in zip("WRBP", (*arrays, peepholes), strict=True):
        if isinstance(value, Zeros):
            raise FileError(f"{name} has a shape that is computed, expected a constant")
        if value is not None and not isinstance(value, Known):
            raise FileError(f"{name} is computed, expected a constant, because weights are fixed")
        if value is not None:
            named[name] = value.array
    cell = {"LSTM": "lstm", "RNN": "simple"}.get(node.op)
    if cell is None:
        cell = "gru" if given.get("linear_before_reset") else "gru_reset_before"
    if given.get("clip") == 0:
        raise FileError("clip is 0, expected a bound above 0, or no such attribute")
    two = {"direction": "bidirectional" if direction == "bidirectional" else "forward"}
    return Stored(named, "onnx", cell, {**given, **two})


def _state(value: Any, name: str, axes: tuple[int, ...]) -> Value | None:
    """An initial state; None for zeros."""
    zeros = isinstance(value, Known) and not value.array.any()
    if value is None or isinstance(value, Zeros) or zeros:
        return None
    if isinstance(value, Known):
        raise FileError(
            f"initial_{name} is a constant that is not zero, expected an input of the model, or"
            " zeros, because a layer begins with zeros where it is not given a state"
        )
    if not isinstance(value, Value) or value.axes != axes:
        raise FileError(f"initial_{name} has the axes {value.axes}, expected {axes}")
    return value


def _start(start: list[Value | None], lone: bool, direction: str) -> dict[str, Any]:
    """What a layer is called with beside its input."""
    if not any(start):
        return {}
    count = 2 if direction == "bidirectional" else 1
    if lone or any(v is None or len(v.parts) != count for v in start):
        raise FileError(
            "has an initial state of one part, or for a reversed output, expected all of its"
            f" parts, for {count} directions, and a direction that is not 'reverse'"
        )
    return {"initial_state": [v.parts[k] for k in range(count) for v in start if v is not None]}


def _layer(
    node: Node, keras: Stored, direction: str, used: list[bool], lone: bool, name: str
) -> layers.Layer:
    told = keras.attributes
    settings: dict[str, Any] = {
        "return_sequences": used[0],
        "return_state": any(used[1:]),
        "dtype": next(iter(keras.values())).dtype.name,
    }
    cell = {
        "units": told["units"], "activation": told["activation"], "use_bias": told["use_bias"],
    }  # fmt: skip
    kind: Any = {"LSTM": layers.LSTM, "GRU": layers.GRU, "RNN": layers.SimpleRNN}[node.op]
    if node.op != "RNN":
        cell["recurrent_activation"] = told["recurrent_activation"]
    if node.op == "GRU":
        cell["reset_after"] = told["reset_after"]
    if direction == "bidirectional":
        inner = kind(**cell, **settings, name=f"{name}_cell")
        return layers.Bidirectional(inner, merge_mode=None, name=name)
    if not lone:
        return kind(**cell, **settings, go_backwards=direction == "reverse", name=name)
    # Keras turns the outputs of the way back round only beside a way forward: an idle one
    idle = layers.SimpleRNN(1, activation="linear", **settings, name=f"{name}_idle")
    back = kind(**cell, **settings, go_backwards=True, name=f"{name}_back")
    return layers.Bidirectional(idle, merge_mode=None, backward_layer=back, name=name)


def outputs(made: Made, symbols: Any, used: list[bool]) -> list[Value | None]:
    """Y, Y_h and Y_c."""
    flat = list(symbols) if isinstance(symbols, list | tuple) else [symbols]
    count = 2 if made.direction == "bidirectional" or made.lone else 1
    ys, states = tuple(flat[:count]), flat[count:]
    if made.lone:
        ys, states = ys[1:], states[1:]  # the idle layer's go
        count = 1
    axes = AXES[made.first]
    by_part = [
        tuple(states[k * made.states + part] for k in range(count)) if states else None
        for part in range(made.states)
    ]
    if not used[0]:  # then a layer returns its last hidden state
        by_part[0] = by_part[0] or ys
        y = None
    else:
        forward = [made.direction != "reverse", False][:count]
        ends = None if by_part[0] is None else tuple(zip(forward, by_part[0], strict=True))
        y = Value(ys, axes["Y"], ends)
    found = [None if part is None else Value(part, axes["state"]) for part in by_part]
    return [y, *found]
