"""Reshape and Flatten: the batch is kept, and directions may be joined with the units."""

from typing import Any, cast

import numpy as np

from refrnn import layers
from refrnn.files.errors import FileError, shown, within
from refrnn.files.graphs.graph import Node
from refrnn.files.graphs.importer import Importer
from refrnn.files.graphs.values import D, Known, Size, Sizes, Value, Zeros, as_ints, one, only


def reshape(importer: Importer, node: Node) -> None:
    allow = only(node, "allowzero").get("allowzero", 0)
    x, given = importer.inputs(node, 2, 2)
    if isinstance(x, Known) and isinstance(given, Known) and not allow:
        sizes = as_ints(given, "shape")
        sizes = [x.array.shape[k] if n == 0 else n for k, n in enumerate(sizes)]
        with within("shape"):
            importer.put(node, Known(x.array.reshape(sizes)))
        return
    if isinstance(x, Zeros):
        importer.put(node, x)
        return
    if not isinstance(x, Value) or not isinstance(given, Known | Sizes) or allow:
        raise FileError("has a shape that is computed, or allowzero, expected neither")
    target = list(given.items) if isinstance(given, Sizes) else as_ints(given, "shape")
    importer.put(node, _reshaped(importer, node, x, target))


def _reshaped(importer: Importer, node: Node, x: Value, target: list[Any]) -> Value:
    rank = len(x.axes)
    if D in x.axes:
        place = x.axes.index(D)
        if place == rank - 2 and len(target) == rank - 1 and x.axes[-1] == rank - 2:
            left = (*x.axes[:place], x.axes[-1])
            if _keeps(x, target[:-1]) and target[-1] in (-1, _width(x)):
                if len(x.parts) == 1:
                    return x._replace(axes=left)
                layer = layers.Concatenate(name=importer.title(node))
                return Value((importer.add(layer, list(x.parts)),), left)
        raise FileError(
            f"makes {_told(target)} of the axes {x.axes} (-1: directions), expected the directions"
            " beside the units and joined with them, all other sizes as they are"
        )
    symbol = one(x)
    if x.axes != tuple(range(rank)) or not target or not _batch(x, target):
        raise FileError(
            f"makes {_told(target)} of the axes {x.axes}, expected the batch first and kept, by 0"
        )
    sizes = []
    for k, n in enumerate(target[1:], 1):
        if isinstance(n, Size) or n == 0:
            if not (n == 0 and k < rank) and not (isinstance(n, Size) and n.fits(x, k)):
                raise FileError(f"has size {k} of another array, expected a number")
            n = symbol.shape[k]
            n = -1 if n is None else n
        sizes.append(n)
    if sizes.count(-1) > 1:
        raise FileError(f"makes {_told(target)}, expected one size at most that is not known")
    made = importer.add(layers.Reshape(tuple(sizes), name=importer.title(node)), symbol)
    return Value((made,), tuple(range(len(target))))


def _told(target: list[Any]) -> str:
    return shown(["the size of an axis" if isinstance(n, Size) else n for n in target])


def _width(x: Value) -> int | None:
    last = x.parts[0].shape[-1]
    return None if last is None else last * len(x.parts)


def _keeps(x: Value, target: list[Any]) -> bool:
    """Whether the first sizes are kept; a number, or one -1, where the size is not known."""
    for k, n in enumerate(target):
        size = None if x.axes[k] == D else x.parts[0].shape[x.axes[k]]
        if not (n == 0 or n == size or (isinstance(n, Size) and n.fits(x, k))):
            if n != -1 and (isinstance(n, Size) or size is not None):
                return False
    return sum(1 for n in target if not isinstance(n, Size) and n == -1) < 2


def _batch(x: Value, target: list[Any]) -> bool:
    """Whether the batch stays: 0, its size, or -1 beside sizes that account for a row."""
    first, symbol = target[0], x.parts[0]
    if isinstance(first, Size):
        return first.fits(x, 0)
    if first == 0:
        return True
    rest, known = target[1:], symbol.shape[1:]
    whole = all(isinstance(n, int) and n > 0 for n in rest) and None not in known
    return bool(whole and int(np.prod(rest)) == int(np.prod(cast(Any, known))))


def flatten(importer: Importer, node: Node) -> None:
    axis = only(node, "axis").get("axis", 1)
    [x] = importer.inputs(node, 1, 1)
    if not isinstance(x, Value) or axis != 1 or x.axes != tuple(range(len(x.axes))):
        raise FileError(f"has axis {axis} of the axes {shown(x)}, expected 1, the batch first")
    importer.put(
        node,
        Value((importer.add(layers.Flatten(name=importer.title(node)), one(x)),), (0, 1)),
    )
