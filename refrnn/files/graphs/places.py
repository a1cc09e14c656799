"""Where the axes of recurrent nodes are, and which axis of an input is therefore which."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from refrnn.files.errors import FileError
from refrnn.files.graphs.graph import Node
from refrnn.files.graphs.values import Axes, D

RECURRENT = ("LSTM", "GRU", "RNN")
# Operations that leave the axes of their input where they are.
KEEPING = {
    "Relu", "Tanh", "Sigmoid", "Softplus", "Softsign", "Add", "Sub", "Mul", "Max", "Min", "Mean",
    "Identity", "Dropout", "Cast", "Softmax", "MatMul", "HardSigmoid", "LogSoftmax", "Elu",
    "LeakyRelu", "Reverse",
}  # fmt: skip


class Places(NamedTuple):
    """The axes of a recurrent node's input, output and states: 0 batch, 1 time, 2 features, D."""

    x: Axes
    y: Axes
    state: Axes


TIME_FIRST = Places((1, 0, 2), (1, D, 0, 2), (D, 0, 1))
BATCH_FIRST = Places((0, 1, 2), (0, 1, D, 2), (0, D, 1))
OPENVINO = Places((0, 1, 2), (0, D, 1, 2), (0, D, 1))
ONE_WAY = Places((0, 1, 2), (0, 1, 2), (0, 1))  # without an axis of directions
ONE_WAY_TIME_FIRST = Places((1, 0, 2), (1, 0, 2), (0, 1))


def of(node: Node) -> Places:
    """The places of a recurrent node."""
    if node.source == "openvino":
        return OPENVINO
    if node.source == "tflite":
        return ONE_WAY_TIME_FIRST if node.attributes.get("time_major") else ONE_WAY
    layout = node.attributes.get("layout", 0)
    if layout not in (0, 1):
        raise FileError(f"layout is {layout!r}, expected 0 or 1")
    return BATCH_FIRST if layout else TIME_FIRST


def of_input(
    name: str, rank: int, readers: Mapping[str, Sequence[Node]]
) -> tuple[Axes, Node | None]:
    """The axes of an input as the first recurrent node that it leads to has them, and that node.

    The node is None where it is not the node's sequence; without any the batch is first.
    """
    # by name, for each axis of the value, which of the input's it is
    waiting: dict[str, Axes] = {name: tuple(range(rank))}
    seen = set(waiting)
    while waiting:
        reached = next(iter(waiting))
        places = waiting.pop(reached)
        for node in readers.get(reached, []):
            if node.op in RECURRENT:
                found = _role(node, reached, places, rank)
                if found:
                    return found, node if node.inputs[0] == reached else None
                continue
            after = _after(node, reached, places, rank)
            if after and node.outputs and node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                waiting[node.outputs[0]] = after
    return tuple(range(rank)), None


def _role(node: Node, name: str, places: Axes, rank: int) -> Axes | None:
    """The axes of an input that a recurrent node takes, its own axes in `places`."""
    role = node.inputs.index(name)
    try:
        wanted = of(node).x if role == 0 else of(node).state
    except FileError:  # said of the node, later
        return None
    if role not in (0, 5, 6) or len(places) != len(wanted):
        return None
    mine = [D] * rank
    for place, axis in zip(places, wanted, strict=True):
        if place < rank:
            mine[place] = axis
    return tuple(mine)


def _after(node: Node, name: str, places: Axes, rank: int) -> Axes | None:
    """Where an input's axes are in what a node returns; None where that is not to be said."""
    if node.op == "Transpose":
        perm = node.attributes.get("perm") or [*reversed(range(len(places)))]
        known = sorted(perm) == list(range(len(places)))
        return tuple(places[p] for p in perm) if known else None
    if node.op == "Gather" and node.inputs[-1] == name:
        return (*places, rank)  # of ids: their vectors have an axis more
    if node.op == "Unsqueeze" and len(places) == 2:
        return (rank, *places)
    return places if node.op in KEEPING else None
