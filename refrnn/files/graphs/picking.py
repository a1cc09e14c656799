"""Steps that take a part of an array, or put arrays together."""

from typing import Any

import numpy as np

from refrnn import layers
from refrnn.files.errors import FileError, within
from refrnn.files.graphs.graph import Node
from refrnn.files.graphs.importer import Importer
from refrnn.files.graphs.values import (
    D,
    Known,
    Sizes,
    Value,
    Zeros,
    alike,
    as_ints,
    axis_of,
    one,
    only,
    small,
)


def gather(importer: Importer, node: Node) -> None:
    axis = only(node, "axis").get("axis", 0)
    data, index = importer.inputs(node, 2, 2)
    if isinstance(data, Known) and isinstance(index, Known):
        count = index.array.size * (data.array.size // max(data.array.shape[axis], 1))
        small(count)
        with within("indices", IndexError, ValueError):
            importer.put(node, Known(np.take(data.array, index.array, axis=axis)))
    elif isinstance(data, Known) and isinstance(index, Value):
        if data.array.ndim != 2 or axis != 0 or D in index.axes:
            raise FileError(f"takes from shape {data.array.shape} on axis {axis}, expected vectors")
        importer.room(*index.parts[0].shape[1:], data.array.shape[1])
        layer = layers.Embedding(
            *data.array.shape, dtype=data.array.dtype.name, name=importer.title(node)
        )
        made = importer.add(layer, index.parts[0], [data.array])
        importer.put(node, Value((made,), (*index.axes, len(index.axes))))
    elif isinstance(data, Sizes) and isinstance(index, Known):
        with within("indices", IndexError):
            picked = [data.items[int(k)] for k in np.atleast_1d(index.array)]
        importer.put(node, Sizes(tuple(picked)))
    elif isinstance(data, Value) and isinstance(index, Known) and index.array.ndim == 0:
        importer.put(node, _picked(data, axis_of(data, axis), int(index.array)))
    else:
        raise FileError("takes by an index that is computed, expected a constant one")


def _picked(x: Value, place: int, index: int) -> Value:
    """One entry of an axis: a direction, or the end of the time that a layer returns anyway."""
    axis = x.axes[place]
    steps = x.parts[0].shape[1] if axis == 1 else None
    if steps and index == steps - 1:
        index = -1
    if x.turned:
        index = -1 - index
    left = (*x.axes[:place], *x.axes[place + 1 :])
    if axis == D and -len(x.parts) <= index < len(x.parts):
        ends = None if x.ends is None else (x.ends[index],)
        return Value((x.parts[index],), left, ends)
    if axis == 1 and x.ends is not None and index in (0, -1):
        last = [(-1 if forward else 0, h) for forward, h in x.ends]
        if all(end == index for end, _ in last):
            after = tuple(a if a < 2 else a - 1 for a in left)
            return Value(tuple(h for _, h in last), after)
    raise FileError(
        f"takes entry {index} of axis {place}, expected a direction, or the last step of a"
        " recurrent node's own output: of another, refrnn's layers do not return one step"
    )


def slice_(importer: Importer, node: Node) -> None:
    only(node)
    x, starts, ends, axes, steps = importer.inputs(node, 3, 5)
    begin, end = as_ints(starts, "starts"), as_ints(ends, "ends")
    places = list(range(len(begin))) if axes is None else as_ints(axes, "axes")
    step = [1] * len(begin) if steps is None else as_ints(steps, "steps")
    if isinstance(x, Sizes) and places == [0] and step == [1]:
        importer.put(node, Sizes(x.items[begin[0] : end[0]]))
        return
    if isinstance(x, Zeros):
        importer.put(node, x)
        return
    if not isinstance(x, Value) or not len(begin) == len(end) == len(places) == len(step):
        raise FileError("slices a constant, expected an array")
    for start, stop, axis, by in zip(begin, end, places, step, strict=True):
        place = axis_of(x, axis)
        if by == 1 and start == 0 and stop >= 2**31 - 1:
            continue
        if by != 1 or start != -1 or stop < 2**31 - 1:
            raise FileError(
                f"takes {start} to {stop} by {by} of axis {place}, expected all, or the last step"
            )
        x = _picked(x, place, -1)
        if D in x.axes:
            raise FileError("leaves the axis of directions, expected it to be gone by here")
        x = x._replace(axes=(*x.axes[:place], D, *x.axes[place:]))
    importer.put(node, x)


def split(importer: Importer, node: Node) -> None:
    axis = only(node, "axis", "num_outputs").get("axis", 0)
    x, sizes = importer.inputs(node, 1, 2)
    if isinstance(x, Zeros | Known):
        _split_constant(importer, node, x, sizes, axis)
        return
    if not isinstance(x, Value) or x.axes[axis_of(x, axis)] != D:
        raise FileError(f"splits axis {axis}, expected that of the directions")
    if len(node.outputs) != len(x.parts) or (sizes and set(as_ints(sizes, "split")) != {1}):
        raise FileError(f"has {len(node.outputs)} outputs, expected one for each direction")
    for name, part in zip(node.outputs, x.parts, strict=True):
        importer.values[name] = Value((part,), x.axes)


def _split_constant(importer: Importer, node: Node, x: Any, sizes: Any, axis: Any) -> None:
    parts = [x] * len(node.outputs)
    if isinstance(x, Known):
        ends: Any = len(parts) if sizes is None else np.cumsum(as_ints(sizes, "split"))[:-1]
        with within("split"):
            parts = [Known(part) for part in np.split(x.array, ends, axis=axis)]
    if len(parts) != len(node.outputs):
        raise FileError(f"has {len(node.outputs)} outputs, expected {len(parts)}")
    importer.values |= zip(node.outputs, parts, strict=True)


def concat(importer: Importer, node: Node) -> None:
    axis = only(node, "axis").get("axis")
    found = [importer.value(name) for name in node.inputs]
    if all(isinstance(x, Known) for x in found):
        small(sum(x.array.size for x in found))
        with within("inputs"):
            importer.put(node, Known(np.concatenate([x.array for x in found], axis=axis)))
    elif all(isinstance(x, Sizes | Known) for x in found):
        items = [x.items if isinstance(x, Sizes) else tuple(as_ints(x, "sizes")) for x in found]
        importer.put(node, Sizes(tuple(k for part in items for k in part)))
    elif found and all(isinstance(x, Zeros) for x in found):
        importer.put(node, Zeros())
    else:
        importer.put(node, _joined(importer, node, found, axis))


def _joined(importer: Importer, node: Node, found: list[Any], axis: Any) -> Value:
    first = alike(found)
    place = axis_of(first, axis)
    if first.axes[place] == D:
        return Value(tuple(p for x in found for p in x.parts), first.axes)
    if len(found) == 1:
        return first
    importer.room(len(found), *first.parts[0].shape[1:])
    layer = layers.Concatenate(axis=first.axes[place], name=importer.title(node))
    return Value((importer.add(layer, [one(x) for x in found]),), first.axes)
