"""convert_state: the states of one library as another's. Nothing is computed.

h and c have equal shapes, so that only their order keeps them apart: the table says it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layouts.hub import form, row
from refrnn.layouts.table import Layout

Parts = dict[str, Array]  # "h" and, for LSTM, "c", each (B, H)


def convert_state(
    states: Any,
    cell: str,
    source: str,
    target: str = "keras",
    *,
    directions: int = 1,
    layers: int = 1,
) -> tuple[Array, ...]:
    """The states of `source` in the order and shapes of `target`; copies.

    states  the arrays in the source's order: [h, c] in Keras, (c, h) in TF1 and Flax; several
            directions and layers one after another, forwards first, where the library has an array
            for each. For a cell with one part the bare array will do.
    directions, layers
            how many there are, 1 or 2 and any number

    Raises ValueError for another number of arrays, and for shapes that are not the source's.
    """
    if directions not in (1, 2):
        raise ValueError(f"directions is {directions!r}, expected 1 or 2")
    checks.count("convert_state", "layers", layers)
    passes = taken(row("source", source), cell, states, directions, layers)
    return given(row("target", target), cell, passes, directions)


def taken(layout: Layout, cell: str, states: Any, directions: int, layers: int) -> list[Parts]:
    """The states of a layout, by pass: layer 0 forwards, layer 0 backwards, layer 1 ..."""
    who, order = f"{layout.name} {cell}", form(layout, cell).state
    if isinstance(states, np.ndarray):
        states = [states]
    found = [checks.array(who, f"state {k}", a) for k, a in enumerate(states)]
    groups = {"each": directions * layers, "(L*D, B, H)": 1}.get(layout.states, layers)
    if len(found) != groups * len(order):
        raise ValueError(
            f"{who}: {len(found)} states are given, expected {groups * len(order)}:"
            f" {', '.join(order)} of shape {shape_text(layout)} for {layers} layers in"
            f" {directions} directions"
        )
    count = directions * layers // groups
    passes: list[Parts] = []
    for k in range(groups):
        parts = [
            _pulled(who, layout, name, found[k * len(order) + n], count)
            for n, name in enumerate(order)
        ]
        passes += [{name: p[d] for name, p in zip(order, parts, strict=True)} for d in range(count)]
    shapes = [tuple(a.shape for a in parts.values()) for parts in passes]
    if any(a[0] != shapes[0][0][0] for one in shapes for a in one):
        raise ValueError(f"{who}: the states have shapes {shapes}, expected as many rows in each")
    return passes


def shape_text(layout: Layout) -> str:
    return "(B, H)" if layout.states == "each" else layout.states


def _pulled(who: str, layout: Layout, name: str, array: Array, count: int) -> Sequence[Array]:
    """One part by pass, from an array that holds `count` of them."""
    shape, wanted = array.shape, None
    if layout.states == "each":
        wanted = [array] if array.ndim == 2 else None
    elif layout.states == "(B, D*H)":
        if array.ndim == 2 and shape[1] % count == 0:
            wanted = np.split(array, count, axis=1)
    elif array.ndim == 3:
        moved = array.swapaxes(0, 1) if layout.states == "(B, D, H)" else array
        wanted = list(moved) if len(moved) == count else None
    if wanted is None:
        raise ValueError(
            f"{who}: state {name} has shape {shape}, expected {shape_text(layout)} for {count}"
            " directions of layers in it"
        )
    return wanted


def given(layout: Layout, cell: str, passes: Sequence[Parts], directions: int) -> tuple[Array, ...]:
    """The states as the layout has them, from those of each pass."""
    order = form(layout, cell).state
    count = {"each": 1, "(L*D, B, H)": len(passes)}.get(layout.states, directions)
    made: list[Array] = []
    for k in range(0, len(passes), count):
        for name in order:
            parts = [one[name] for one in passes[k : k + count]]
            if layout.states == "each":
                made.append(np.array(parts[0]))
            elif layout.states == "(B, D*H)":
                made.append(np.concatenate(parts, axis=1))
            else:
                made.append(np.stack(parts, axis=1 if layout.states == "(B, D, H)" else 0))
    return tuple(made)
