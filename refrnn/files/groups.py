"""Which arrays of a file of weights are one recurrent layer, by the names that libraries give."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from refrnn.files.errors import FileError
from refrnn.gates import Array

CELLS_BY_GATES = {4: "lstm", 3: "gru", 1: "simple"}
TORCH = "weight_ih_l0"
LINEN = {"lstm": ("ii", "if", "ig", "io", "hi", "hf", "hg", "ho"),
         "gru": ("ir", "iz", "in", "hr", "hz", "hn"), "simple": ("i", "h")}  # fmt: skip
NNX = ("dense_i", "dense_h")
RENAMED = {"if_": "if"}  # of nnx.LSTMCell, whose arrays are those of linen's


class Group(NamedTuple):
    """One recurrent layer: what stands before its names, and its arrays as the layout names them.

    taken  the names that the arrays have in the file
    """

    before: str
    layout: str
    cell: str
    arrays: dict[str, Array]
    taken: list[str]


def groups(found: Mapping[str, Array]) -> Iterator[Group]:
    """The layers with the names of PyTorch or Flax. Raises FileError where sizes do not fit."""
    for name in found:
        before = name.removesuffix(TORCH)
        if before != name and (not before or before.endswith(".")):
            yield _torch(before, found)
    folders: dict[str, dict[str, str]] = {}  # by folder of folders: the names, by what they end in
    for name in found:
        *top, part, leaf = name.split("/") if name.count("/") else ("", name)
        if leaf in ("kernel", "bias"):
            place = "/".join([*top, ""])
            folders.setdefault(place, {})[f"{RENAMED.get(part, part)}/{leaf}"] = name
    for before, names in folders.items():
        group = _flax(before, names, found)
        if group is not None:
            yield group


def _torch(before: str, found: Mapping[str, Array]) -> Group:
    names = [
        name
        for name in found
        if name.startswith(before) and name.removeprefix(before).startswith(("weight_", "bias_"))
    ]
    arrays = {name.removeprefix(before): found[name] for name in names}
    hidden = arrays.get("weight_hr_l0", arrays.get("weight_hh_l0"))
    sizes = [arrays[TORCH].shape, () if hidden is None else hidden.shape]
    cell = CELLS_BY_GATES.get(sizes[0][0] // max(sizes[1][-1], 1)) if all(sizes) else None
    if cell is None:
        raise FileError(f"{before}{TORCH} has shape {sizes[0]}, beside weights of {sizes[1]}")
    return Group(before, "torch", cell, arrays, names)


def _flax(before: str, names: Mapping[str, str], found: Mapping[str, Array]) -> Group | None:
    """The cell whose arrays are in one folder of Flax's; None where they are another layer's."""
    arrays = {short: found[name] for short, name in names.items()}
    parts = {short.partition("/")[0] for short in names}
    cell = next((cell for cell, known in LINEN.items() if parts == set(known)), None)
    if cell is not None:
        return Group(before, "flax-linen", cell, arrays, [*names.values()])
    kernel = arrays.get("dense_h/kernel")
    if parts != set(NNX) or kernel is None or kernel.ndim != 2:
        return None
    cell = CELLS_BY_GATES.get(kernel.shape[1] // max(kernel.shape[0], 1))
    return None if cell is None else Group(before, "flax-nnx", cell, arrays, [*names.values()])
