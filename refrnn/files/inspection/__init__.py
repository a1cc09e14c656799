"""What is inside a model file, whether refrnn can run it, and all that is in the way if not.

Nothing in a file is run or imported, and the limits of the readers hold.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from refrnn import files
from refrnn.activations import Activation
from refrnn.files.errors import FileError, clip, within
from refrnn.files.hdf5 import Path
from refrnn.files.inspection import diagnosis, likeness, shapes
from refrnn.files.inspection.contents import Config, Contents, Stored, opened
from refrnn.files.inspection.diagnosis import INPUT, Probe, Problem, children, name_of
from refrnn.files.inspection.report import Group, Inspection, LayerInfo, Shape, Tensor
from refrnn.files.keras3 import is_entry
from refrnn.layers import Layer, StackedRNNCells
from refrnn.layers.recurrent import Recurrent
from refrnn.layers.rnn import RNN
from refrnn.models import MODELS, Model
from refrnn.models.graph import refs

__all__ = ["Group", "Inspection", "LayerInfo", "Problem", "Tensor", "inspect"]

FLAGS = (
    "return_sequences", "return_state", "go_backwards", "stateful", "unroll",
    "zero_output_for_mask", "mask_zero", "time_major",
)  # fmt: skip
NUMBERS = ("dropout", "recurrent_dropout", "rate", "mask_value")
# what a setting is where nothing needs to be said of it
USUAL: dict[str, tuple[Any, ...]] = {
    "use_bias": (True,),
    "trainable": (True,),
    "merge_mode": ("concat",),
    "recurrent_activation": ("sigmoid",),
}


def inspect(path: "str | os.PathLike[str]") -> Inspection:
    """What is inside a model file, and whether `refrnn.load_model` can load it.

    path  what `load_model` or `load_weights` take: .keras, .h5, .weights.h5, model.json of tf.js

    Raises FileError where the file is damaged or no model, ImportError where h5py is missing. What
    refrnn cannot run is no error: `problems` says what it is.
    """
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
            row = _of_entry(entry, found.generation, mine, known.get(name_of(entry), [None]))
        else:
            default = known.get(layer.name, [None])
            row = _of_layer(entry["class_name"], layer, returned, mine, default)
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
        hard_sigmoid=_hard_sigmoids(rows),
        whole=None if model is None else model.why_whole(),
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


# --- layers ---


def _of_layer(
    kind: str,
    layer: Layer,
    returned: dict[int, list[Shape]],
    stored: list[Stored] | None,
    default: list[Shape],
) -> LayerInfo:
    """A layer that could be made; stored: its arrays, None where they are those of one around."""
    unknown: list[Shape] = [None] if isinstance(layer, Model) else []  # of what stands in a wrapper
    inside = [_of_layer(_kind(x), x, returned, None, unknown) for x in _inside(layer)]
    if stored is not None:
        counts: tuple[int | None, int | None] = _counts(stored)
    elif layer.built:
        counts = layer.count_params(), sum(w.nbytes for w in layer.weights)
    else:
        counts = None, None
    config = {} if isinstance(layer, Model) or layer.IS_CUSTOM else layer.get_config()
    found = returned.get(id(layer), default)
    found = default if found == [None] else found
    dtype = "" if isinstance(layer, Model) else layer.dtype.name
    settings = _settings(kind, config, 3)
    return LayerInfo(layer.name, kind, found, counts[0], counts[1], dtype, settings, inside)


def _counts(stored: Sequence[Stored]) -> tuple[int, int]:
    return sum(one.size for one in stored), sum(one.bytes for one in stored)


def _kind(layer: Layer) -> str:
    return "Functional" if type(layer) is Model else type(layer).__name__


def _inside(layer: Layer) -> list[Layer]:
    """The layers and cells that a layer was made with; those of an LSTM say nothing more."""
    if isinstance(layer, Model):
        return layer.layers
    if isinstance(layer, Recurrent):
        return []
    if type(layer) is RNN and isinstance(layer.cell, StackedRNNCells):
        return [cell for cell in layer.cell.cells if isinstance(cell, Layer)]
    return [inner for _, inner in layer.parts()] or [
        inner for name in ("layer",) if isinstance(inner := vars(layer).get(name), Layer)
    ]


def _of_entry(
    entry: Config, generation: int | None, stored: list[Stored] | None, found: list[Shape]
) -> LayerInfo:
    """A layer that could not be made, as the file describes it."""
    kind, config = entry["class_name"], entry["config"]
    unknown: list[Shape] = [None] if kind in (*MODELS, "Model") else []
    inside = [
        _of_entry(inner, generation, None, unknown)
        for inner in children(entry)
        if inner["class_name"] != INPUT
    ]
    counts: tuple[int | None, int | None] = (None, None) if stored is None else _counts(stored)
    dtype = config.get("dtype")
    if isinstance(dtype, dict):
        policy = dtype.get("config")
        dtype = policy.get("name") if isinstance(policy, dict) else None
    settings = _settings(kind, config, generation)
    said = dtype if isinstance(dtype, str) else ""
    return LayerInfo(name_of(entry), kind, found, counts[0], counts[1], said, settings, inside)


def _settings(kind: str, config: Config, generation: int | None) -> dict[str, Any]:
    """Those that are worth a word; hard_sigmoid under the name that it has in refrnn."""
    found: dict[str, Any] = {name: True for name in FLAGS if config.get(name) is True}
    found |= {name: config[name] for name in NUMBERS if config.get(name)}
    for name, usual in USUAL.items():
        if name in config and config[name] not in usual:
            found[name] = config[name]
    recurrent = "recurrent_activation" in config or "recurrent_initializer" in config
    if config.get("activation") not in (None, "linear", *(["tanh"] if recurrent else [])):
        found["activation"] = config["activation"]
    if kind in ("GRU", "GRUCell") and not config.get("reset_after", generation == 3):
        found["reset_after"] = False
    for name, value in found.items():
        if name.endswith("activation") and value == "hard_sigmoid" and generation == 2:
            found[name] = "hard_sigmoid_keras2"
        elif is_entry(value):
            found[name] = f"a {value['class_name']}"
        elif isinstance(value, dict | list):
            found[name] = clip(repr(value))
        elif isinstance(value, Activation):
            found[name] = value.name
    return found


def _hard_sigmoids(rows: Sequence[LayerInfo]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        for name, value in row.settings.items():
            if name.endswith("activation") and str(value).startswith("hard_sigmoid"):
                found.setdefault(str(value), []).append(row.name)
        for function, users in _hard_sigmoids(row.inside).items():
            found.setdefault(function, []).extend(users)
    return {function: list(dict.fromkeys(users)) for function, users in found.items()}


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
        training=found.training,
        groups=sorted(groups, key=lambda group: group.place),
        problems=[Problem("", reason), *diagnosis.of_arrays(where, arrays)],
    )
