"""Steps that move, drop and add axes."""

import numpy as np

from refrnn import layers
from refrnn.files.errors import FileError, shown, within
from refrnn.files.graphs.graph import Node
from refrnn.files.graphs.importer import Importer
from refrnn.files.graphs.values import D, Known, Sizes, Value, Zeros, as_ints, axis_of, only


def transpose(importer: Importer, node: Node) -> None:
    perm = only(node, "perm").get("perm")
    [x] = importer.inputs(node, 1, 1)
    if isinstance(x, Known):
        with within("perm"):
            importer.put(node, Known(np.transpose(x.array, perm)))
        return
    if isinstance(x, Zeros):
        importer.put(node, x)
        return
    if not isinstance(x, Value):
        raise FileError("transposes sizes or zeros, expected an array")
    places = list(reversed(range(len(x.axes)))) if perm is None else perm
    if sorted(places) != list(range(len(x.axes))):
        raise FileError(f"has perm {shown(perm)}, expected the axes of {len(x.axes)}")
    importer.put(node, x._replace(axes=tuple(x.axes[p] for p in places)))


def squeeze(importer: Importer, node: Node) -> None:
    attributes = only(node)
    x, given = importer.inputs(node, 1, 2)
    if isinstance(x, Sizes) or (isinstance(x, Known) and given is None):
        importer.put(node, x if isinstance(x, Sizes) else Known(np.squeeze(x.array)))
        return
    if not isinstance(x, Value) or given is None:
        raise FileError(f"has axes {shown(attributes)}, expected an array and its axes as input")
    places = sorted({axis_of(x, k) for k in as_ints(given, "axes")}, reverse=True)
    for place in places:
        x = _dropped(importer, node, x, place)
    importer.put(node, x)


def _dropped(importer: Importer, node: Node, x: Value, place: int) -> Value:
    """Without an axis of size 1."""
    axis, left = x.axes[place], (*x.axes[:place], *x.axes[place + 1 :])
    if axis == D:
        if len(x.parts) > 1:
            raise FileError("drops the axis of two directions, expected one direction")
        return x._replace(axes=left)
    shape = x.parts[0].shape
    if axis == 0 or shape[axis] != 1 or len(x.parts) > 1:
        raise FileError(f"drops axis {place} of size {shape[axis]}, expected 1, not the batch's")
    sizes = tuple(-1 if n is None else n for k, n in enumerate(shape) if k not in (0, axis))
    made = importer.add(layers.Reshape(sizes, name=importer.title(node)), x.parts[0])
    return Value((made,), tuple(a - (a > axis) for a in left))


def unsqueeze(importer: Importer, node: Node) -> None:
    only(node)
    x, given = importer.inputs(node, 2, 2)
    axes = as_ints(given, "axes")
    if isinstance(x, Sizes):
        importer.put(node, x)
    elif isinstance(x, Known):
        with within("axes"):
            importer.put(node, Known(np.expand_dims(x.array, tuple(axes))))
    elif isinstance(x, Value) and D not in x.axes and len(axes) == 1:
        place = axes[0] % (len(x.axes) + 1)
        importer.put(node, x._replace(axes=(*x.axes[:place], D, *x.axes[place:])))
    elif isinstance(x, Zeros):
        importer.put(node, x)
    else:
        raise FileError(f"adds axes {axes}, expected one, to what has none of directions")


def reverse(importer: Importer, node: Node) -> None:
    """Backwards in time. There is no such operation in ONNX; it goes round a recurrent one."""
    axis = only(node, "axis")["axis"]
    [x] = importer.inputs(node, 1, 1)
    if not isinstance(x, Value) or x.axes[axis_of(x, axis)] != 1:
        raise FileError(f"reverses axis {axis}, expected that of the time, around an LSTM")
    importer.put(node, x._replace(turned=not x.turned))
