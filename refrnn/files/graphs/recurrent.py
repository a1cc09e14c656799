"""LSTM, GRU and RNN nodes as recurrent layers; what a layer cannot be is refused."""

from typing import Any, NamedTuple

import numpy as np

from refrnn import layers, layouts
from refrnn.files.errors import FileError, within
from refrnn.files.graphs import places
from refrnn.files.graphs.graph import Node
from refrnn.files.graphs.places import Places
from refrnn.files.graphs.values import Filled, Known, Value, Zeros
from refrnn.gates import Array
from refrnn.layouts import Stored, equivalents

DIRECTIONS = ("forward", "reverse", "bidirectional")
SAID = {"sum_biases": "Wb + Rb: the two biases are added up"}
# what a reader says of its own runtime: a bound of the cell state is in the graph's remarks
LOSSY = (*SAID, "drop_cell_clip")


class Made(NamedTuple):
    """A layer and what it is called on.

    direction  one of DIRECTIONS
    lone       whether it is a Bidirectional of which only the way back counts
    """

    layer: layers.Layer
    x: Value
    arrays: list[Array]
    more: dict[str, Any]
    direction: str
    where: Places
    lone: bool
    states: int
    inexact: list[str]


def layer(node: Node, found: list[Any], used: list[bool], name: str) -> Made:
    """The layer of a node.

    found  the values of its inputs: X, W, R, B, sequence_lens, initial_h, initial_c, P
    used   which of Y, Y_h and Y_c are used
    """
    given = dict(node.attributes)  # the layout refuses what it does not know
    where = places.of(node)
    for mine in ("layout", "time_major"):
        given.pop(mine, None)
    direction = given.pop("direction", "forward") or "forward"
    if direction not in DIRECTIONS:
        raise FileError(f"direction is {direction!r}, expected one of {', '.join(DIRECTIONS)}")
    x, *arrays, lengths, h, c, peepholes = (*found, None, None)[:8]
    _sequence(x, where.x)
    if x.turned:
        turned = {"forward": "reverse", "reverse": "forward"}
        if direction not in turned:
            raise FileError("goes both ways over what is reversed, expected the order of time")
        direction = turned[direction]
    if lengths is not None and not (node.source == "openvino" and _whole(lengths, x)):
        raise FileError(
            "has sequence_lens, expected none, because a layer takes a mask and no lengths; run it"
            " on each length, or pad and mask in refrnn"
        )
    stored = _stored(node, arrays, peepholes, given, direction)
    inexact = []
    if stored.attributes.get("input_forget"):
        with within("input_forget"):
            stored = equivalents.untied(stored)
        inexact.append(f"{node.who}: input_forget: f = 1 - i is computed as a gate of its own")
    keras = layouts.convert(stored, target="keras", lossy=LOSSY)
    inexact += [f"{node.who}: {SAID[step]}" for step in keras.lossy if step in SAID]
    states = 2 if node.op == "LSTM" else 1
    start = [_state(v, n, where.state) for v, n in zip((h, c), "hc", strict=True)][:states]
    lone = direction == "reverse" and used[0]
    more = _start(start, lone, direction)
    made = _layer(node, keras, direction, used, lone, name)
    weights = list(keras.values())
    if lone:
        dtype, features = weights[0].dtype, len(weights[0])
        idle = [np.zeros((features, 1), dtype), np.zeros((1, 1), dtype), np.zeros(1, dtype)]
        weights = [*idle, *weights]
    return Made(made, x, weights, more, direction, where, lone, states, inexact)


def _whole(lengths: Any, x: Value) -> bool:
    """Whether the lengths of all rows are surely that of the sequence."""
    place = x.axes.index(1)
    if isinstance(lengths, Known):
        return lengths.array.size > 0 and bool(np.all(lengths.array == x.parts[0].shape[1]))
    return isinstance(lengths, Filled) and lengths.size.fits(x, place)


def _sequence(x: Any, axes: tuple[int, ...]) -> None:
    if not isinstance(x, Value) or len(x.parts) > 1 or x.axes != axes:
        told = x.axes if isinstance(x, Value) else "a constant"
        raise FileError(
            f"X has the axes {told} (0 batch, 1 time, 2 features, -1 directions), expected {axes}"
        )


def _stored(
    node: Node, arrays: list[Any], peepholes: Any, given: dict[str, Any], direction: str
) -> Stored:
    """The weights in the layout of the node's library."""
    named = dict(node.arrays)
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
    if node.source != "tflite":
        given["direction"] = "bidirectional" if direction == "bidirectional" else "forward"
    return Stored(named, node.source, cell, given)


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
        "return_state": used[2] or (used[0] and used[1]),
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
    by_part = [
        tuple(states[k * made.states + part] for k in range(count)) if states else None
        for part in range(made.states)
    ]
    by_part[0] = by_part[0] or (None if used[0] else ys)  # a layer returns its last state
    forward = [made.direction != "reverse", False][:count]
    ends = None if by_part[0] is None else tuple(zip(forward, by_part[0], strict=True))
    y = Value(ys, made.where.y, ends, made.x.turned, made.x.steps)
    found = [None if part is None else Value(part, made.where.state) for part in by_part]
    return [y, *found]
