"""Steps on constants and shapes; and what changes nothing."""

import math

import numpy as np

from refrnn.files.errors import FileError, within
from refrnn.files.graphs.graph import ELEMENTS, Node
from refrnn.files.graphs.importer import Importer
from refrnn.files.graphs.values import (
    Filled,
    Known,
    Size,
    Sizes,
    Value,
    Zeros,
    as_ints,
    only,
    small,
)


def same(importer: Importer, node: Node) -> None:
    only(node, "seed")
    x, _, training = importer.inputs(node, 1, 3)
    if training is not None and not (isinstance(training, Known) and not training.array.any()):
        raise FileError("has training_mode, expected False")
    importer.put(node, x)


def cast(importer: Importer, node: Node) -> None:
    attributes = only(node, "to", "saturate")
    [x] = importer.inputs(node, 1, 1)
    to = ELEMENTS.get(attributes.get("to", 0))
    if isinstance(x, Known) and to not in (None, "bfloat16"):
        x = Known(x.array.astype(to))
    elif isinstance(x, Value) and x.parts[0].dtype != to and not _ids(importer, node, to):
        raise FileError(f"to {to}, expected {x.parts[0].dtype}, which its input is already")
    importer.put(node, x)


def _ids(importer: Importer, node: Node, to: str | None) -> bool:
    """Whether it makes ids for vectors, which an Embedding rounds the same way."""
    return to in ("int32", "int64") and all(
        reader.op == "Gather" and reader.inputs[-1] == node.outputs[0]
        for reader in importer.readers.get(node.outputs[0], [])
    )


def constant(importer: Importer, node: Node) -> None:
    found = list(only(node, "value", "value_float", "value_floats", "value_int", "value_ints"))
    if len(found) != 1:
        raise FileError(f"has the attributes {found}, expected one")
    given = node.attributes[found[0]]
    dtype = {"value": None, "value_i": np.int64, "value_f": np.float32}[found[0][:7]]
    importer.put(node, Known(np.asarray(given, dtype)))


def constant_of_shape(importer: Importer, node: Node) -> None:
    fill = only(node, "value").get("value", np.zeros(1, np.float32))
    importer.inputs(node, 1, 1)
    if fill.any():
        raise FileError("has a value that is not 0, expected zeros, for a state to begin with")
    importer.put(node, Zeros())


def expand(importer: Importer, node: Node) -> None:
    only(node)
    x, shape = importer.inputs(node, 2, 2)
    if isinstance(x, Known) and isinstance(shape, Known) and x.array.any():
        sizes = as_ints(shape, "shape")
        small(math.prod(sizes))
        with within("shape"):
            importer.put(node, Known(np.broadcast_to(x.array, sizes)))
        return
    if isinstance(x, Sizes) and len(x.items) == 1 and isinstance(x.items[0], Size):
        importer.put(node, Filled(x.items[0]))
        return
    if not isinstance(x, Zeros) and not (isinstance(x, Known) and not x.array.any()):
        raise FileError("expands what is not zeros, expected zeros, for a state to begin with")
    importer.put(node, Zeros())


def shape(importer: Importer, node: Node) -> None:
    attributes = only(node, "start", "end")
    [x] = importer.inputs(node, 1, 1)
    if isinstance(x, Known):
        importer.put(node, Known(np.array(x.array.shape, np.int64)))
        return
    if not isinstance(x, Value):
        raise FileError("has a constant input, expected one of the model's arrays")
    sizes = tuple(Size(x, k) for k in range(len(x.axes)))
    importer.put(node, Sizes(sizes[attributes.get("start", 0) : attributes.get("end")]))
