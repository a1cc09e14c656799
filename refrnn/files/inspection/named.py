"""What is inside a file of arrays by name: weights of PyTorch, Flax, .safetensors, .npz."""

import os
from collections.abc import Mapping
from pathlib import Path

from refrnn.files import flax, torch_files
from refrnn.files.arrays import WRITERS, read_arrays
from refrnn.files.errors import FileError
from refrnn.files.groups import groups
from refrnn.files.inspection import likeness
from refrnn.files.inspection.diagnosis import Problem
from refrnn.files.inspection.report import Group, Inspection, Tensor
from refrnn.gates import Array

FORMATS = {
    **dict.fromkeys(torch_files.SUFFIXES, "state dict of PyTorch"),
    **dict.fromkeys(flax.SUFFIXES, "MessagePack of Flax"),
    **{suffix: f"{suffix}, arrays by name" for suffix in WRITERS},
}
ALONE = (
    "holds weights alone, and no layers: make the model and set them; `refrnn convert --layout`"
    " gives the recurrent ones in another layout"
)


def inspected(path: "str | os.PathLike[str]") -> Inspection:
    """What is in a file of arrays. Raises FileError where it is damaged."""
    found = read_arrays(path)
    return Inspection(
        path=os.fspath(path),
        format=FORMATS[Path(path).suffix],
        writer="not said",
        generation=None,
        model=None,
        inputs=[],
        outputs=[],
        layers=[],
        parameters=sum(array.size for array in found.values()),
        bytes=sum(array.nbytes for array in found.values()),
        hard_sigmoid={},
        whole=None,
        remarks=[],
        training=[],
        groups=_groups(found),
        problems=[Problem("", ALONE)],
    )


def _groups(found: Mapping[str, Array]) -> list[Group]:
    """The recurrent layers first, then what is left, folder by folder."""
    try:
        known = list(groups(found))
    except FileError:  # sizes that do not fit: then they are no layers
        known = []
    rows = []
    for one in known:
        said = f"{one.cell} of {one.layout}"
        rows.append(Group(one.before.rstrip("./"), said, _tensors(found, one.before, one.taken)))
    taken = {name for one in known for name in one.taken}
    folders: dict[str, list[str]] = {}
    for name in found:
        if name not in taken:
            mark = "/" if "/" in name else "."
            folders.setdefault(name.rpartition(mark)[0] + mark, []).append(name)
    for before, names in folders.items():
        names.sort(key=lambda name: likeness.rank(name.removeprefix(before)))
        place = before.rstrip("./")
        said = likeness.like(place, names, [found[name].shape for name in names])
        rows.append(Group(place, said, _tensors(found, before, names)))
    return rows


def _tensors(found: Mapping[str, Array], before: str, names: list[str]) -> list[Tensor]:
    return [
        Tensor(name.removeprefix(before), found[name].shape, found[name].dtype.name)
        for name in names
    ]
