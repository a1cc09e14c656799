"""convert: weights of one library as another's, exactly, or not at all.

What moves numbers is done; what computes new ones is done when asked for by name, and what would be
another function is refused, with the equivalent that there is. Everything goes through the blocks
of `refrnn.layouts.hub`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from refrnn.cells import CELLS
from refrnn.gates import Array
from refrnn.layouts import attributes as said
from refrnn.layouts.arrays import joined, split
from refrnn.layouts.fitting import LOSSY, settled
from refrnn.layouts.hub import Function, Hub, Stored, form, row
from refrnn.layouts.names import by_name
from refrnn.layouts.table import LAYOUTS, Layout


def convert(
    arrays: Any,
    cell: str | None = None,
    source: str | None = None,
    target: str = "keras",
    *,
    attributes: Mapping[str, Any] | None = None,
    target_attributes: Mapping[str, Any] | None = None,
    lossy: str | Iterable[str] = (),
) -> Stored:
    """The weights of `source` as `target` stores them; what was given is left alone.

    arrays             by the source's names, or one layer's in the source's order; or what this
                       function returned, which knows its cell, source and attributes
    cell               "lstm", "gru", "gru_reset_before" or "simple": the family is never guessed
    source, target     names of `LAYOUTS`
    attributes         what the source was told, by its names: a cuDNN vector needs its sizes; for
                       others the library's defaults hold
    target_attributes  what the target is told; by default whatever keeps the function
    lossy              names of LOSSY that are allowed: "sum_biases", "fold_forget_bias",
                       "drop_cell_clip"

    Several layers have "0/", "1/" before the names, two directions "forward/" and "backward/",
    except where the library has a way of its own (weight_ih_l0_reverse; a first axis in ONNX).

    Returns the arrays by the target's names. Its `.attributes` say what the target must be told
    for the same function; its `.kept` holds the source where a step was lossy, so that the way back
    is exact, bit for bit, as long as the arrays are not changed.

    The shapes of an LSTM do not tell the order of its gates. `refrnn.verify.explain` finds it, from
    outputs.

    Raises ValueError for what the target cannot hold, and for arrays and attributes that are not
    the source's; TypeError for dtypes.
    """
    goal = row("target", target)
    allowed = {lossy} if isinstance(lossy, str) else set(lossy)
    if allowed - set(LOSSY):
        raise ValueError(f"lossy is {sorted(allowed)}, expected names of {', '.join(LOSSY)}")
    stored = original(as_stored(arrays, cell, source, attributes))
    hub = read(stored)
    used = set(stored.lossy)
    whole = settled(hub, goal, allowed | used, used, target_attributes)
    out = _written(whole, goal)
    out.lossy = tuple(name for name in LOSSY if name in used)
    if not _gives_back(out, stored):
        copies = {name: np.array(a) for name, a in stored.items()}
        out.kept = Stored(copies, stored.layout, stored.cell, stored.attributes, out.lossy)
    return out


def as_stored(
    arrays: Any, cell: str | None, source: str | None, attributes: Mapping[str, Any] | None = None
) -> Stored:
    """The arguments of `convert` that describe its source, as one thing, names given to arrays."""
    if isinstance(arrays, Stored):
        for what, given, own in (("cell", cell, arrays.cell), ("source", source, arrays.layout)):
            if given not in (None, own):
                raise ValueError(f"{what} is {given!r}, expected {own!r}, which the arrays are")
        merged = {**arrays.attributes, **(attributes or {})}
        return Stored(arrays, arrays.layout, arrays.cell, merged, arrays.lossy, arrays.kept)
    if cell is None:
        raise ValueError(f"cell is None, expected one of {', '.join(map(repr, CELLS))}")
    if source is None:
        fitting = candidates(arrays, cell)
        raise ValueError(
            f"source is None, expected the name of a layout: these arrays fit"
            f" {', '.join(map(repr, fitting)) or 'none'}, and shapes do not tell the order of"
            " gates; refrnn.verify.explain finds it from outputs"
        )
    layout = row("source", source)
    mine = form(layout, cell)
    told = dict(attributes or {})
    if isinstance(arrays, Mapping):
        return Stored(arrays, source, cell, told)
    if layout.flat and isinstance(arrays, np.ndarray):
        return Stored({"weights": arrays}, source, cell, told)
    named = [Stored(one, source, cell, told) for one in by_name(layout, mine, arrays)]
    for one in named[:-1]:
        try:
            read(one)
        except ValueError:
            continue
        return one
    if named:
        return named[-1]
    raise ValueError(
        f"{source} {cell}: {len(arrays)} arrays are given without names, expected one layer's, in"
        f" one direction or two: {', '.join(slot.name for slot in mine.slots)}"
    )


def candidates(arrays: Any, cell: str) -> list[str]:
    """The layouts whose names and shapes these arrays fit; more than one, where shapes do not tell.

    Their numbers then do: run each, or ask `refrnn.verify.explain` with outputs.
    """
    found = []
    for name, layout in LAYOUTS.items():
        if cell in layout.cells and not layout.flat:
            try:
                read(as_stored(arrays, cell, name))
            except (ValueError, TypeError):
                continue
            found.append(name)
    return found


def read(stored: Stored) -> Hub:
    """The blocks of the arrays, and the function that they are of."""
    layout = row("source", stored.layout)
    form(layout, stored.cell)
    layers = split(layout, stored.cell, stored, stored.attributes)
    hub = Hub(stored.cell, Function(), layers)
    return hub._replace(function=said.read(layout, stored.cell, stored.attributes, hub))


def rewritten(hub: Hub, layout: str) -> Stored:
    """`hub` in a layout that can hold it without loss."""
    goal = row("target", layout)
    return _written(settled(hub, goal, set(), set()), goal)


def _written(hub: Hub, layout: Layout) -> Stored:
    arrays = joined(layout, layout.cells[hub.cell], hub.layers)
    return Stored(arrays, layout.name, hub.cell, said.write(layout, hub))


# --- the way back ------------------------------------------------------------------------------


def original(stored: Stored) -> Stored:
    """What `stored` was converted from, if that was kept and still gives these very arrays."""
    if stored.kept is None:
        return stored
    goal = row("source", stored.layout)
    try:
        hub = settled(read(stored.kept), goal, set(LOSSY), set(), stored.attributes)
    except ValueError:  # the attributes are others by now
        return stored
    if not _same(_written(hub, goal), stored):
        return stored
    kept = stored.kept
    return Stored(kept, kept.layout, kept.cell, kept.attributes, stored.lossy)


def _gives_back(out: Stored, stored: Stored) -> bool:
    """Whether the source can be had from the target alone."""
    goal = row("source", stored.layout)
    hub = settled(read(out), goal, set(LOSSY), set())
    return hub.function == read(stored).function and _same(_written(hub, goal), stored)


def _same(a: Mapping[str, Array], b: Mapping[str, Array]) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and a[k].tobytes() == b[k].tobytes()
        for k in a
    )
