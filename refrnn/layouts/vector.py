"""cuDNN's flat vector: all matrices of all layers, then all biases, and no sizes."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layouts.blocks import Sizes, Slot
from refrnn.layouts.names import key
from refrnn.layouts.table import Form, Layout


def flat_order(
    layout: Layout, form: Form, layers: int, directions: int
) -> Iterator[tuple[str, Slot, int]]:
    """The name, slot and layer of each array in the vector, in its order."""
    for parts in ("WU", "wu"):
        for layer in range(layers):
            for word in layout.words[directions - 1]:
                for slot in form.slots:
                    if slot.parts <= set(parts):
                        yield key(layout, slot, layer, layers, word), slot, layer


def unflattened(
    who: str, layout: Layout, form: Form, arrays: Mapping[str, Array], shape: Mapping[str, Any]
) -> dict[str, Array]:
    vector = arrays.get("weights")
    if vector is None or len(arrays) > 1 or vector.ndim != 1:
        said = {name: a.shape for name, a in arrays.items()}
        raise ValueError(f"{who}: the arrays are {said}, expected one vector called 'weights'")
    if not {"input_size", "hidden_size"} <= set(shape):
        raise ValueError(
            f"{who}: the attributes are {dict(shape)}, expected input_size and hidden_size, and"
            " num_layers and bidirectional where they are not 1 and False: the vector has no sizes"
        )
    layers = checks.count(who, "num_layers", shape.get("num_layers", 1))
    directions = 1 + checks.flag(who, "bidirectional", shape.get("bidirectional", False))
    F = checks.count(who, "input_size", shape["input_size"])
    H = checks.count(who, "hidden_size", shape["hidden_size"])
    order = list(flat_order(layout, form, layers, directions))
    sizes = [Sizes(directions * H if layer else F, H, H) for layer in range(layers)]
    shapes = [slot.shape(sizes[layer]) for _, slot, layer in order]
    ends = np.cumsum([int(np.prod(s)) for s in shapes])
    matrices = len(order) // 2  # as many biases
    if len(vector) == ends[matrices - 1]:  # without biases
        order, shapes, ends = order[:matrices], shapes[:matrices], ends[:matrices]
    if len(vector) != ends[-1]:
        raise ValueError(
            f"{who}: weights has {len(vector)} numbers, expected {ends[-1]} for {layers} layers of"
            f" {H} units on {F} features in {directions} directions"
        )
    parts = np.split(vector, ends[:-1])
    return {
        name: part.reshape(s) for (name, _, _), part, s in zip(order, parts, shapes, strict=True)
    }
