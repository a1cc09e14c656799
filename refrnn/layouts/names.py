"""The names of arrays: how a library tells layers and directions apart by them."""

from collections.abc import Iterator, Mapping
from typing import Any

from refrnn.gates import Array
from refrnn.layouts.blocks import Blocks, Slot
from refrnn.layouts.table import Form, Layout


def key(layout: Layout, slot: Slot, layer: int, layers: int, word: str) -> str:
    """The name of an array: a number for the layer where there are several, or always in torch."""
    numbered = "_l{layer}" in layout.key
    text = str(layer) if numbered else f"{layer}/" if layers > 1 else ""
    return layout.key.format(name=slot.name, layer=text, direction=word)


def named(who: str, layout: Layout, form: Form, arrays: Mapping[str, Array]) -> list[list[Blocks]]:
    """The arrays by slot, [layer][direction]; every one is used."""
    lead = form.slots[0]
    for words in reversed(layout.words):
        several = 0
        while all(key(layout, lead, several, several + 2, word) in arrays for word in words):
            several += 1
        layers = several or int(all(key(layout, lead, 0, 1, word) in arrays for word in words))
        if layers:
            break
    else:
        raise ValueError(
            f"{who}: the arrays are {listed(arrays)}, expected {listed(names(layout, form))}"
        )
    count = max(several, 2) if several else 1
    left = dict(arrays)
    found = [
        [
            {
                slot.name: left.pop(name)
                for slot in form.slots
                if (name := key(layout, slot, layer, count, word)) in left
            }
            for word in words
        ]
        for layer in range(layers)
    ]
    if left:
        raise ValueError(
            f"{who}: has {listed(left)} beside the arrays of {layers} layers, expected only"
            f" {listed(names(layout, form))}: none is ignored"
        )
    return found


def listed(names: Any) -> str:
    return ", ".join(map(repr, names)) or "none"


def names(layout: Layout, form: Form) -> list[str]:
    return [key(layout, slot, 0, 1, layout.words[0][0]) for slot in form.slots]


def by_name(layout: Layout, form: Form, arrays: Any) -> Iterator[dict[str, Any]]:
    """The ways to give names to arrays that come without, as get_weights() lists them."""
    arrays = [a for a in arrays if a is not None]
    plain = [s for s in form.slots if s.parts <= set("WUwu")]
    for words in layout.words:
        for slots in (plain, [s for s in plain if s.parts <= set("WU")]):
            names = [key(layout, slot, 0, 1, word) for word in words for slot in slots]
            if len(names) == len(arrays):
                yield dict(zip(names, arrays, strict=True))
