"""What is inside a model file, whether refrnn can run it, and all that is in the way if not.

Nothing in a file is run or imported, and the limits of the readers hold.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath
from typing import Any

from refrnn import files
from refrnn.files import foreign
from refrnn.files.errors import FileError, clip, within
from refrnn.files.hdf5 import Path
from refrnn.files.inspection import diagnosis, graphs, likeness, named, shapes
from refrnn.files.inspection.contents import Config, Contents, Stored, opened
from refrnn.files.inspection.diagnosis import INPUT, Probe, Problem, name_of
from refrnn.files.inspection.report import Group, Inspection, LayerInfo, Shape, Tensor
from refrnn.files.inspection.rows import hard_sigmoids, of_entry, of_layer
from refrnn.layers import Layer
from refrnn.models import MODELS, Model
from refrnn.models.graph import refs

__all__ = ["Group", "Inspection", "LayerInfo", "Problem", "Tensor", "inspect"]


def inspect(path: "str | os.PathLike[str]") -> Inspection:
    """What is inside a model file, and whether `refrnn.load_model` can load it.

    path  what `load_model` or `load_weights` take: .keras, .h5, .weights.h5, model.json of tf.js,
          .onnx, .tflite, .xml of OpenVINO; or what `read_arrays` takes

    Raises FileError where the file is damaged or no model, ImportError where h5py is missing. What
    refrnn cannot run is no error: `problems` says what it is.
    """
    suffix = FilePath(path).suffix
    if suffix in named.FORMATS:
        return named.inspected(path)
    if suffix in foreign.READERS:
        with within(os.fspath(path), FileError):
            return graphs.inspected(path)
    with within(os.fspath(path), FileError), opened(path) as found:
        if found.config is None:
            return _of_weights(path, found)
        return _of_model(path, found, found.config)


# --- models ---


def _of_model(path: "str | os.PathLike[str]", found: Contents, config: Config) -> Inspection:
    try:
        model, said = files.load_model(path), ""
    except FileError as error:
        model, said = None, str(error).removeprefix(f"{os.fspath(path)}: ")
    entries = diagnosis.entries_of(config)
    layered = [e for e in entries if e["class_name"] != INPUT and not diagnosis.is_operation(e)]
    arrays = found.weights.arrays
    places = found.weights.places(layered)
    owners = _owners(places, arrays)
    stored: list[list[Stored]] = [[] for _ in layered]
    for path_, k in owners.items():
        stored[k].append(arrays[path_])
    problems: list[Problem] = []
    made: Sequence[Layer | None]
    if model is not None:
        made = model.layers
        returned, ends = shapes.of(model)
    else:
        made, problems = _diagnosed(found, config, entries, layered, places, owners)
        problems = problems or [Problem("", said)]
        returned, ends = {}, []
    known = shapes.stated(entries)
    rows = []
    for entry, layer, mine in zip(layered, made, stored, strict=True):
        if layer is None:
            row = of_entry(entry, found.generation, mine, known.get(name_of(entry), [None]))
        else:
            default = known.get(layer.name, [None])
            row = of_layer(entry["class_name"], layer, returned, mine, default)
        rows.append(row)
    return Inspection(
        path=os.fspath(path),
        format=found.format,
        writer=found.writer,
        generation=found.generation,
        model=_named(config),
        inputs=_inputs(model, entries),
        outputs=_outputs(model, config, rows, ends),
        layers=rows,
        parameters=sum(one.size for one in arrays.values()),
        bytes=sum(one.bytes for one in arrays.values()),
        hard_sigmoid=hard_sigmoids(rows),
        whole=None if model is None else model.why_whole(),
        remarks=[],
        training=found.training,
        groups=[],
        problems=problems,
    )


def _owners(places: Sequence[Sequence[Path]], arrays: dict[Path, Stored]) -> dict[Path, int]:
    """The number of the layer that each array is of, where it is of one."""
    numbers = {place: k for k, several in enumerate(places) for place in several}
    lengths = sorted({len(place) for place in numbers})
    return {path: numbers[path[:n]] for path in arrays for n in lengths if path[:n] in numbers}


def _diagnosed(
    found: Contents,
    config: Config,
    entries: list[Config],
    layered: list[Config],
    places: list[list[Path]],
    owners: dict[Path, int],
) -> tuple[list[Layer | None], list[Problem]]:
    """The layers that can be made one by one, with their weights, and all that is wrong."""
    probe = Probe(found)
    made: dict[int, Layer | None] = {}
    if found.generation is not None and config.get("class_name") in (*MODELS, "Model"):
        made = {id(entry): probe.look(entry) for entry in entries}
    problems = probe.problems
    if not problems and found.generation is not None:
        problems += diagnosis.of_model(found)
    if probe.exhausted:
        problems.append(Problem("", "the rest of the layers was not looked at: there is too much"))
    where = {path: diagnosis.place_of(layered[k]) for path, k in owners.items()}
    arrays = found.weights.arrays
    problems += diagnosis.of_arrays(where, arrays)
    unread = {owners.get(path) for path, one in arrays.items() if one.complaint is not None}
    for k, (entry, mine) in enumerate(zip(layered, places, strict=True)):
        layer = made.get(id(entry))
        if layer is not None and k not in unread:
            said = diagnosis.of_layer(found, entry["class_name"], layer, mine)
            problems += [Problem(diagnosis.place_of(entry), said)] if said else []
    if layered:
        problems += [
            Problem("", clip(f"array {'/'.join(path)!r} {one.shape} is of no layer"))
            for path, one in arrays.items()
            if path not in owners
        ]
    return [made.get(id(entry)) for entry in layered], problems


def _named(config: Config) -> tuple[str, str]:
    body = config.get("config")
    name = body.get("name") if isinstance(body, dict) else None
    return str(config.get("class_name")), str(name)


def _inputs(model: Model | None, entries: list[Config]) -> list[Tensor]:
    if model is not None:
        return [Tensor(item.name, item.shape, item.dtype) for item in model.inputs]
    found = []
    for entry in entries:
        if entry["class_name"] == INPUT:
            config = entry["config"]
            shape = config.get("batch_shape", config.get("batch_input_shape"))
            known = shapes.shape_of_json(shape)
            found.append(Tensor(name_of(entry), known, str(config.get("dtype", "float32"))))
    return found


def _outputs(
    model: Model | None, config: Config, rows: list[LayerInfo], ends: list[Shape]
) -> list[Tensor]:
    by_name = {row.name: row for row in rows}
    if model is not None:
        names = [ref.layer for ref in refs(model.graph.outputs)]
    else:
        body, ends = config.get("config"), []
        stored = body.get("output_layers") if isinstance(body, dict) else None
        names = list(_ends(stored)) or [row.name for row in rows[-1:]]
    found = []
    for k, name in enumerate(names):
        row = by_name.get(name)
        shape = ends[k] if k < len(ends) else None
        if shape is None and row is not None and len(row.shapes) == 1:
            shape = row.shapes[0]
        found.append(Tensor(name, shape, row.dtype if row else ""))
    return found


def _ends(structure: Any) -> Iterator[str]:
    """The names in output_layers: [layer, call, tensor], at any depth."""
    if isinstance(structure, list) and structure and isinstance(structure[0], str):
        yield structure[0]
    elif isinstance(structure, list | dict):
        for part in structure.values() if isinstance(structure, dict) else structure:
            yield from _ends(part)


# --- weights alone ---


def _of_weights(path: "str | os.PathLike[str]", found: Contents) -> Inspection:
    arrays = found.weights.arrays
    folders: dict[Path, list[Path]] = {}
    for place in arrays:
        folders.setdefault(place[:-1], []).append(place)
    groups = []
    for folder, places in folders.items():
        places.sort(key=lambda place: likeness.rank(place[-1]))
        names = [place[-1] for place in places]
        sizes = [arrays[place].shape or () for place in places]
        tensors = [
            Tensor(name, arrays[place].shape, arrays[place].dtype)
            for name, place in zip(names, places, strict=True)
        ]
        said = "/".join(folder)
        groups.append(Group(said, likeness.like(said, names, sizes), tensors))
    reason = (
        "holds weights alone, and no layers: make the model, then"
        " refrnn.files.load_weights(model, path)"
    )
    where = dict.fromkeys(arrays, "")
    return Inspection(
        path=os.fspath(path),
        format=found.format,
        writer=found.writer,
        generation=found.generation,
        model=None,
        inputs=[],
        outputs=[],
        layers=[],
        parameters=sum(one.size for one in arrays.values()),
        bytes=sum(one.bytes for one in arrays.values()),
        hard_sigmoid={},
        whole=None,
        remarks=[],
        training=found.training,
        groups=sorted(groups, key=lambda group: group.place),
        problems=[Problem("", reason), *diagnosis.of_arrays(where, arrays)],
    )
