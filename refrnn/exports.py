"""A model as a file that another library reads, to be run by it as a whole."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from refrnn import reading
from refrnn.files import onnx
from refrnn.files.onnx import Imported
from refrnn.files.tfjs import MODEL
from refrnn.gates import Array
from refrnn.models import Model
from refrnn.models.graph import map_refs
from refrnn.verify.chunks import flat

Run = Callable[[str, dict[str, Array]], Any]  # a file and the inputs by name -> the outputs


class Source(NamedTuple):
    """A model, the file that it is from, and what it is to be run on.

    imported  how a file of ONNX has its axes; None of other files
    """

    path: Path
    model: Model
    inputs: list[Array]
    imported: Imported | None

    def is_file(self, suffix: str) -> bool:
        """Whether the file has this suffix or name itself."""
        return suffix in (self.path.suffix, self.path.name)


def source(path: Path, given: Path | None) -> Source:
    """The model in a file, and its inputs as `reading.inputs` reads them; or CannotJudge."""
    if path.is_dir():
        path = path / MODEL
    if path.suffix != onnx.SUFFIX:
        model = reading.model(path)
        return Source(path, model, reading.inputs(path, model, given), None)
    imported = reading.loaded(path, onnx.load)
    rows = max((end.rows for end in imported.inputs if end.rows), default=reading.ROWS)
    return Source(path, imported.model, reading.inputs(path, imported.model, given, rows), imported)


def asked(source: Source, suffix: str, folder: Path, run: Run) -> Callable[[], dict[str, Array]]:
    """What `run` returns for the model, by refrnn's names.

    The file itself is run where it is one with that suffix; else one that is written to `folder`.
    Raises ValueError for a model that the format cannot hold.
    """
    path, model, inputs, imported = source
    if imported is not None and suffix == onnx.SUFFIX:
        left = iter(inputs)
        turned = {end.name: end.whole(left) for end in imported.inputs}

        def as_in_the_file() -> dict[str, Array]:
            found = zip(imported.outputs, run(str(path), turned), strict=True)
            return named(source.model, [part for end, array in found for part in end.arrays(array)])

        return as_in_the_file
    if not source.is_file(suffix):
        path = folder / (suffix if suffix == MODEL else f"model{suffix}")
        model.save(path)
    by_name = {spec.name: a for spec, a in zip(model.inputs, inputs, strict=True)}
    return lambda: named(model, run(str(path), by_name))


def named(model: Model, outputs: Any) -> dict[str, Array]:
    """Outputs by the model's names; where they have others, or none, in the order of its own."""
    theirs, count = flat(outputs), itertools.count()
    places = flat(map_refs(lambda _: next(count), model.graph.outputs))
    if set(theirs) == set(places) or len(theirs) != len(places):
        return theirs
    arrays = list(theirs.values())
    return {name: arrays[int(place)] for name, place in places.items()}
