"""What a layout cannot hold: done where that is allowed by name, else refused with the reason."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from refrnn.cells import CELLS
from refrnn.layouts import attributes as said
from refrnn.layouts.blocks import Blocks
from refrnn.layouts.hub import Function, Hub, Pass, form
from refrnn.layouts.table import Form, Layout

LOSSY = {
    "sum_biases": "the biases of the input and of the state are added into one",
    "fold_forget_bias": "a forget bias of run time is added to the stored bias, or taken from it",
    "drop_cell_clip": "the bound of the cell state is left out, which is exact while |c| is below",
}


def settled(
    hub: Hub,
    layout: Layout,
    allowed: set[str],
    used: set[str],
    wanted: Mapping[str, Any] | None = None,
) -> Hub:
    """The hub with nothing left that the layout cannot hold; ValueError where that is impossible.

    allowed, used  names of LOSSY: those that may be done; those that are done are added to the
                   second
    wanted         attributes that the target is to have
    """
    mine = form(layout, hub.cell)
    _activations(hub, layout, mine)
    hub = _told(hub, layout, mine, allowed, used)
    if wanted:
        base = {**said.write(layout, hub), **wanted}
        hub = _retold(hub, layout, said.read(layout, hub.cell, base, hub), allowed, used)
    fits = [[_parts(one, hub.cell, layout, mine, allowed, used) for one in k] for k in hub.layers]
    return hub._replace(layers=_even(hub.cell, layout, fits))


def _who(layout: Layout, cell: str) -> str:
    return f"to {layout.name} {cell}"


def _permit(who: str, name: str, reason: str, allowed: set[str], used: set[str]) -> None:
    if name not in allowed:
        raise ValueError(f"{who}: {reason}; lossy={name!r} allows it: {LOSSY[name]}")
    used.add(name)


def _activations(hub: Hub, layout: Layout, mine: Form) -> None:
    who = _who(layout, hub.cell)
    pairs = [("activation", hub.function.act, mine.act, mine.defaults[0])]
    if hub.cell != "simple":
        pairs += [("activation of the gates", hub.function.rec, mine.rec, mine.defaults[1])]
    for what, name, chosen, default in pairs:
        if (not chosen and name != default) or (chosen and said.theirs(layout, name) is None):
            has = sorted(layout.activations or ()) if chosen else [default]
            hint = (
                "; refrnn.layouts.equivalents.rescaled turns one hard_sigmoid into the other by"
                " scaling the gates' weights"
                if name.startswith("hard_sigmoid")
                else ""
            )
            raise ValueError(
                f"{who}: the {what} is {name!r}, expected one of {', '.join(map(repr, has))},"
                f" because {layout.name} has no other{hint}"
            )


def _told(hub: Hub, layout: Layout, mine: Form, allowed: set[str], used: set[str]) -> Hub:
    """Without what the target cannot be told."""
    who, function = _who(layout, hub.cell), hub.function
    if function.clip < np.inf and "clip" not in mine.told:
        raise ValueError(
            f"{who}: the sums are clipped to {function.clip}, expected no clip, because"
            f" {layout.name} has none; refrnn.layouts.run computes it"
        )
    if function.input_forget and "input_forget" not in mine.told:
        raise ValueError(
            f"{who}: input_forget is 1 (f = 1 - i), expected 0, because {layout.name} has no such"
            " thing; refrnn.layouts.equivalents.untied gives the forget gate weights of its own"
        )
    if function.cell_clip < np.inf and "cell_clip" not in mine.told:
        reason = f"the cell state is clipped to {function.cell_clip}, which {layout.name} cannot"
        _permit(who, "drop_cell_clip", reason, allowed, used)
        hub = hub._replace(function=function._replace(cell_clip=np.inf))
    if function.forget_bias and "forget_bias" not in mine.told:
        hub = folded(hub, 0.0, who, layout.name, allowed, used)
    return hub


def _retold(hub: Hub, layout: Layout, wanted: Function, allowed: set[str], used: set[str]) -> Hub:
    """With the attributes that were asked for."""
    who, function = _who(layout, hub.cell), hub.function
    if wanted.forget_bias != function.forget_bias:
        hub = folded(hub, wanted.forget_bias, who, layout.name, allowed, used)
    if wanted.cell_clip == np.inf and function.cell_clip < np.inf:
        reason = f"the cell state is clipped to {function.cell_clip}"
        _permit(who, "drop_cell_clip", reason, allowed, used)
        hub = hub._replace(function=hub.function._replace(cell_clip=np.inf))
    if wanted != hub.function:
        name = next(n for n in Function._fields if getattr(wanted, n) != getattr(hub.function, n))
        raise ValueError(
            f"{who}: {name} would be {getattr(wanted, name)!r} by the attributes of the target,"
            f" expected {getattr(hub.function, name)!r}, because that is what the source computes"
        )
    return hub


def folded(hub: Hub, left: float, who: str, name: str, allowed: set[str], used: set[str]) -> Hub:
    """The forget bias of run time in the stored one, all but `left`."""
    reason = (
        f"{hub.function.forget_bias} is added to the forget gate's sum at run time, expected {left}"
        f" for {name}, and a stored bias that takes up the rest is rounded"
    )
    _permit(who, "fold_forget_bias", reason, allowed, used)
    rest = hub.dtype.type(hub.function.forget_bias - left)
    layers = [
        [one._replace(blocks=blocks | {"wf": blocks["wf"] + rest})
         for one in layer for blocks in [biased(one, "lstm")]]
        for layer in hub.layers
    ]  # fmt: skip
    return hub._replace(layers=layers, function=hub.function._replace(forget_bias=left))


def biased(one: Pass, cell: str) -> Blocks:
    """The blocks of a pass with biases, zeros where it had none."""
    return _zeros(one, [part + gate for part in "wu" for gate in CELLS[cell].gates]) | one.blocks


def _parts(
    one: Pass, cell: str, layout: Layout, mine: Form, allowed: set[str], used: set[str]
) -> Pass:
    """A pass of the blocks that the layout has, biases added up where it has only one."""
    who, blocks = _who(layout, cell), dict(one.blocks)
    has = {name for slot in mine.slots for line in slot.grid for name in line}
    if "R" in blocks and "R" not in has:
        raise ValueError(
            f"{who}: the hidden state is projected to {one.sizes.width}, expected no projection,"
            f" because {layout.name} has none; refrnn.layouts.equivalents.split_projection gives a"
            " plain LSTM and a Dense layer"
        )
    peepholes = [name for name in blocks if name[0] == "p"]
    if peepholes and not set(peepholes) <= has:
        if any(blocks[name].any() for name in peepholes):
            raise ValueError(
                f"{who}: there are peepholes that are not zero, expected none, because"
                f" {layout.name} has none and no weights make up for them; refrnn.layouts.run"
                " computes them"
            )
        blocks = {name: b for name, b in blocks.items() if name not in peepholes}
    for gate in CELLS[cell].gates:
        w, u = blocks.get("w" + gate), blocks.pop("u" + gate, None)
        if w is None or u is None:
            continue
        if "u" + gate in has:
            blocks["u" + gate] = u
            continue
        if cell == "gru" and gate == "g" and u.any():
            raise ValueError(
                f"{who}: the candidate has a bias of its own inside r * (...), expected zeros,"
                f" because {layout.name} has no such bias and none can make up for it"
            )
        if np.logical_and(w, u).any():
            reason = f"{layout.name} has one bias for the gate {gate!r}, there are two"
            _permit(who, "sum_biases", reason, allowed, used)
        blocks["w" + gate] = np.where(u == 0, w, np.where(w == 0, u, w + u))
    return one._replace(blocks=blocks)


def _even(cell: str, layout: Layout, layers: Sequence[list[Pass]]) -> list[list[Pass]]:
    """Every pass with the same blocks as others of its layer; of one size, where numbered."""
    numbered = "_l{layer}" in layout.key
    units = sorted({one.sizes.units for layer in layers for one in layer})
    if numbered and len(units) > 1:
        raise ValueError(
            f"{_who(layout, cell)}: the layers have {units} units, expected one number for all,"
            f" because {layout.name} has one hidden_size; convert each layer by itself"
        )
    some = [[any(name[0] == "w" for name in one.blocks) for one in layer] for layer in layers]
    has = {name for slot in layout.cells[cell].slots for line in slot.grid for name in line}

    def full(one: Pass) -> Pass:
        one_bias = not any(name[0] == "u" for name in one.blocks)
        if layout.flat and cell == "lstm" and one_bias:  # the state's then, as Keras has it
            second = {name.replace("w", "u"): block for name, block in one.blocks.items()}
            one = one._replace(blocks=second)
        blocks = {name: b for name, b in biased(one, cell).items() if name in has | {"R"}}
        return one._replace(blocks=blocks)

    whole = layout.biased or (numbered and any(map(any, some)))
    even = []
    for layer, mine in zip(layers, some, strict=True):
        passes = [full(one) if whole or any(mine) else one for one in layer]
        seen = {name for one in passes for name in one.blocks if name[0] == "p"}
        even.append([one._replace(blocks=_zeros(one, seen) | one.blocks) for one in passes])
    return even


def _zeros(one: Pass, names: Iterable[str]) -> Blocks:
    dtype = next(iter(one.blocks.values())).dtype
    return {name: np.zeros(one.sizes.units, dtype) for name in names}
