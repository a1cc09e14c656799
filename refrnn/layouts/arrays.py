"""Arrays by a library's names, and the blocks of each layer and direction that they hold.

Reading and writing move numbers and change none. What a layout cannot hold is settled before, in
`refrnn.layouts.fitting`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from refrnn import checks
from refrnn.cells import CELLS
from refrnn.gates import Array
from refrnn.layouts.blocks import Blocks, Sizes, Slot
from refrnn.layouts.hub import Pass
from refrnn.layouts.names import key, listed, named
from refrnn.layouts.table import Form, Layout
from refrnn.layouts.vector import flat_order, unflattened

# --- sizes and blocks --------------------------------------------------------------------------


def _sizes(form: Form, arrays: Mapping[str, Array]) -> Sizes | None:
    """The sizes that the matrices say; None where they say none."""
    units, width, tall = 0, 0, 0
    for slot in form.slots:
        if slot.name not in arrays or slot.parts & set("wup"):
            continue
        shape = arrays[slot.name].shape
        if len(shape) != 2:
            return None
        rows, columns = shape[::-1] if slot.order == "rows" else shape
        if slot.parts == {"R"}:
            width = columns
        elif slot is form.slots[0]:  # W, and in TF1 U below it
            units, tall = columns // len(slot.grid[0]), rows
    width = width or units
    features = tall - width if "U" in form.slots[0].parts else tall
    return Sizes(features, units, width) if min(features, units) > 0 else None


OPTIONAL = ({"w", "u"}, {"p"}, {"R"})  # parts of which there are all or none


def _pass(who: str, cell: str, form: Form, arrays: Mapping[str, Array], where: str) -> Pass:
    """One direction of one layer, its shapes checked."""
    for parts in ({"W", "U"}, *OPTIONAL):
        mine = [slot.name for slot in form.slots if slot.parts & parts]
        missing = [name for name in mine if name not in arrays]
        if missing and (len(missing) < len(mine) or "W" in parts):
            raise ValueError(f"{who}: {listed(missing)}{where} is missing, expected {listed(mine)}")
    sizes = _sizes(form, arrays)
    blocks: Blocks = {}
    for slot in form.slots:
        if slot.name not in arrays:
            continue
        array = arrays[slot.name]
        if sizes is None or array.shape != slot.shape(sizes):
            said = {name: a.shape for name, a in arrays.items()}
            raise ValueError(
                f"{who}: {slot.name}{where} has shape {array.shape}, expected"
                f" {shape_text(slot)}"
                + (f" = {slot.shape(sizes)}" if sizes else "")
                + " (F features, H units)"
                + ("; its transpose would fit" if sizes and _turned(array, slot, sizes) else "")
                + f"; the shapes are {said}"
            )
        blocks |= slot.taken(array, sizes)
    assert sizes is not None
    biases = [part for part in "wu" if any(k[0] == part for k in blocks)]
    if biases:  # a gate that a library has no bias for has a bias of zeros
        zero = np.zeros(sizes.units, next(iter(blocks.values())).dtype)
        blocks = {f"{part}{g}": zero for part in biases for g in CELLS[cell].gates} | blocks
    return Pass(sizes, blocks)


def _turned(array: Array, slot: Slot, sizes: Sizes) -> bool:
    return array.ndim == 2 and array.shape[::-1] == slot.shape(sizes)


def shape_text(slot: Slot) -> str:
    """The shape of a slot's array in letters: (F, 4H)."""
    columns = len(slot.grid[0])
    wide = f"{columns if columns > 1 else ''}H"
    first = slot.grid[0][0][0]
    if first in "wup":
        return f"({wide},)" if len(slot.grid) == 1 else f"({len(slot.grid)}, {wide})"
    if first == "R":
        return "(P, H)" if slot.order == "rows" else "(H, P)"
    tall = "+".join({"W": "F", "U": "H"}[line[0][0]] for line in slot.grid)
    return f"({wide}, {tall})" if slot.order == "rows" else f"({tall}, {wide})"


def checked(who: str, arrays: Mapping[str, Any]) -> dict[str, Array]:
    """The arrays, of one floating dtype in the machine's byte order."""
    found = {str(name): checks.array(who, str(name), a) for name, a in arrays.items()}
    dtypes = {a.dtype.newbyteorder("=") for a in found.values()}
    if len(dtypes) != 1 or not checks.is_float(next(iter(dtypes))):
        said = ", ".join(f"{name} {a.dtype}" for name, a in found.items())
        raise TypeError(f"{who}: the arrays are {said or 'none'}; expected one floating dtype")
    return {name: np.asarray(a, next(iter(dtypes))) for name, a in found.items()}


def split(
    layout: Layout, cell: str, arrays: Mapping[str, Any], shape: Mapping[str, Any]
) -> list[list[Pass]]:
    """The passes of all layers, from arrays by the library's names.

    shape  for a flat vector: its sizes by name

    Raises ValueError for names and shapes that are not the layout's, TypeError for dtypes.
    """
    who, form = f"{layout.name} {cell}", layout.cells[cell]
    found = checked(who, arrays)
    if layout.flat:
        found = unflattened(who, layout, form, found, shape)
    elif "weight_ih" in found and layout.name == "torch":  # a cell, not a layer
        found = {f"{name}_l0": a for name, a in found.items()}
    passes = named(who, layout, form, found)
    if layout.axis:
        passes = [_unstacked(who, layer[0]) for layer in passes]
    layers = [
        [
            _pass(who, cell, form, arrays, _where(k, len(passes), d, len(layer)))
            for d, arrays in enumerate(layer)
        ]
        for k, layer in enumerate(passes)
    ]
    _chained(who, layers)
    return layers


def _where(layer: int, layers: int, direction: int, directions: int) -> str:
    said = [f"layer {layer}"] if layers > 1 else []
    said += [("forward", "backward")[direction]] if directions > 1 else []
    return f" ({', '.join(said)})" if said else ""


def _chained(who: str, layers: list[list[Pass]]) -> None:
    """Each layer reads what the one before emits."""
    for k, layer in enumerate(layers):
        if len({one.sizes for one in layer}) > 1:
            raise ValueError(
                f"{who}: layer {k} has sizes {[tuple(p.sizes) for p in layer]} (features, units,"
                " width) forwards and backwards, expected the same in both directions"
            )
        if k:
            given = sum(one.sizes.width for one in layers[k - 1])
            if layer[0].sizes.features != given:
                raise ValueError(
                    f"{who}: layer {k} reads {layer[0].sizes.features} features, expected {given},"
                    f" because the directions of layer {k - 1} emit so many together"
                )


def _unstacked(who: str, arrays: Mapping[str, Array]) -> list[Blocks]:
    """One dict of arrays a direction, from arrays whose first axis is that of directions."""
    counts = {a.shape[0] if a.ndim else 0 for a in arrays.values()}
    if counts not in ({1}, {2}):
        said = {name: a.shape for name, a in arrays.items()}
        raise ValueError(
            f"{who}: the shapes are {said}, expected a first axis of 1 or 2 directions in each"
        )
    return [{name: a[d] for name, a in arrays.items()} for d in range(counts.pop())]


# --- writing -----------------------------------------------------------------------------------


def joined(layout: Layout, form: Form, layers: list[list[Pass]]) -> dict[str, Array]:
    """The arrays by the library's names; `layers` holds nothing that the layout cannot."""
    count, directions = len(layers), len(layers[0])
    written: dict[str, Array] = {}
    for k, layer in enumerate(layers):
        parts = [
            {
                slot.name: slot.stored(one.blocks, one.sizes)
                for slot in form.slots
                if all(name in one.blocks for line in slot.grid for name in line)
            }
            for one in layer
        ]
        if layout.axis:
            parts = [{name: np.stack([p[name] for p in parts]) for name in parts[0]}]
        for word, arrays in zip(layout.words[len(parts) - 1], parts, strict=True):
            for slot in form.slots:
                if slot.name in arrays:
                    written[key(layout, slot, k, count, word)] = arrays[slot.name]
    if layout.flat:
        order = [name for name, _, _ in flat_order(layout, form, count, directions)]
        return {"weights": np.concatenate([written[n].ravel() for n in order if n in written])}
    return written
