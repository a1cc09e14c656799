"""What comes of a graph: a model, and how its inputs and outputs differ from the file's."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from refrnn.files.errors import shown
from refrnn.files.graphs.values import D
from refrnn.gates import Array
from refrnn.models import Model

NAMES = {2: ("batch", "features"), 3: ("batch", "time", "features")}  # of axes, by their number


class End(NamedTuple):
    """An input or output of the file.

    name  what the file calls it
    axes  for each of its axes, which of the model's array it is; -1 is one of directions
    parts  how many arrays of the model's it is: one for each direction
    rows   the size of the batch, where the file has one alone; the model takes any
    """

    name: str
    axes: tuple[int, ...]
    parts: int = 1
    rows: int | None = None

    def arrays(self, given: Array) -> list[Array]:
        """An array of the file's as the model's: batch first, one for each direction."""
        if D not in self.axes:
            return [np.ascontiguousarray(np.transpose(given, np.argsort(self.axes)))]
        place = self.axes.index(D)
        left = End(self.name, (*self.axes[:place], *self.axes[place + 1 :]))
        return [a for part in np.moveaxis(given, place, 0) for a in left.arrays(part)]

    def whole(self, given: Iterator[Array]) -> Array:
        """The file's array from the model's, the next ones of `given`."""
        if D not in self.axes:
            return np.transpose(next(given), self.axes)
        place = self.axes.index(D)
        left = End(self.name, (*self.axes[:place], *self.axes[place + 1 :]))
        return np.stack([left.whole(given) for _ in range(self.parts)], axis=place)


class Imported(NamedTuple):
    """A model and how it differs from its file.

    inputs, outputs  in the order of the model's; outputs with two directions are two of the model's
    inexact          what was computed anew, so that numbers agree to rounding and not to the bit
    others           what the file's own runtime does besides: a word and a sentence
    """

    model: Model
    inputs: list[End]
    outputs: list[End]
    inexact: list[str]
    others: tuple[tuple[str, str], ...] = ()

    def remarks(self) -> list[tuple[str, str]]:
        """What is not as in the file: a word, "rounded" or "turned" say, and a sentence."""
        found = [*self.others, *(("rounded", line) for line in self.inexact)]
        for what, ends in (("input", self.inputs), ("output", self.outputs)):
            for end in ends:
                if end.axes != tuple(range(len(end.axes))):
                    names = NAMES.get(len([axis for axis in end.axes if axis >= 0]), ())
                    known = dict(enumerate(names)) | {D: "directions"}
                    order = ", ".join(str(known.get(axis, axis)) for axis in end.axes)
                    said = f"{what} {shown(end.name)} is ({order}) there, batch first here"
                    found.append(("turned", said))
        return found
