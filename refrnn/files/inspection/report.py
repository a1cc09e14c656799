"""What was found in a model file, as data and as text."""

import dataclasses
import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from refrnn.files.errors import clip, shown
from refrnn.files.inspection.diagnosis import Problem

WIDTH = 100
LONGEST_CELL = 26  # characters of a name in a table
HARD_SIGMOIDS = {
    "hard_sigmoid": "as in Keras 3, x/6 + 1/2 cut to 0..1",
    "hard_sigmoid_keras2": "as in Keras 2, 0.2 x + 0.5 cut to 0..1",
}

Shape = tuple[int | None, ...] | None
Row = tuple[str, ...]


@dataclass(frozen=True)
class Tensor:
    """An input or an output of a model; shape None where it is not known, the batch first."""

    name: str
    shape: Shape
    dtype: str


@dataclass(frozen=True)
class LayerInfo:
    """One layer of a model.

    kind        its class, as the file names it
    shapes      of what it returns, each None where it is not known
    parameters  None where the file does not say; so for bytes
    settings    those that are not what they are by default, as far as they matter in a run
    inside      the layers and cells inside it
    """

    name: str
    kind: str
    shapes: list[Shape]
    parameters: int | None
    bytes: int | None
    dtype: str
    settings: dict[str, Any]
    inside: list["LayerInfo"]


@dataclass(frozen=True)
class Group:
    """The arrays of one folder in a file of weights alone, and the layer that they look like."""

    place: str
    looks_like: str
    arrays: list[Tensor]


@dataclass(frozen=True)
class Inspection:
    """What is in a model file.

    writer      the library and version, as the file says
    generation  2 or 3, of Keras; None where the file does not say
    model       the class and name of the model; None for weights alone
    parameters  numbers in the file that are weights; bytes is what they take there
    hard_sigmoid  for each function that has this name, the layers that use it
    whole       why sequences cannot be cut into chunks; None where they can, or it is not known
    remarks     what is not as in the file: the order of axes, numbers that are computed anew
    training    what training left in the file; it is not read
    groups      the arrays, for a file of weights alone
    problems    all that is in the way of running it; none where `refrnn.load_model` loads it
    """

    path: str
    format: str
    writer: str
    generation: int | None
    model: tuple[str, str] | None
    inputs: list[Tensor]
    outputs: list[Tensor]
    layers: list[LayerInfo]
    parameters: int
    bytes: int
    hard_sigmoid: dict[str, list[str]]
    whole: str | None
    remarks: list[str]
    training: list[str]
    groups: list[Group]
    problems: list[Problem]

    @property
    def runs(self) -> bool:
        """Whether `refrnn.load_model` loads it."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """All of it as what JSON can hold."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"runs": self.runs, **{name: _plain(value) for name, value in found.items()}}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def __str__(self) -> str:
        return "\n".join(line.rstrip() for line in self._lines())

    def _lines(self) -> Iterator[str]:
        yield from _entry("file", self.path)
        yield from _entry("format", self.format)
        yield from _entry("written by", self.writer)
        if self.model is not None:
            yield from _entry("model", f"{_cell(self.model[0])} {_cell(self.model[1])!r}")
        yield from _entry("weights", f"{self.parameters:,} parameters, {_size(self.bytes)}")
        for title, tensors in (("inputs", self.inputs), ("outputs", self.outputs)):
            for k, tensor in enumerate(tensors):
                said = f"{_cell(tensor.name)}  {_shape(tensor.shape)}  {_cell(tensor.dtype)}"
                yield from _entry("" if k else title, said)
        for k, (name, users) in enumerate(self.hard_sigmoid.items()):
            said = f"{HARD_SIGMOIDS[name]}: {', '.join(map(_cell, users))}"
            yield from _entry("" if k else "hard_sigmoid", said)
        for text in self.training:
            yield from _entry("also in it", f"{text}, not read")
        for text in self.remarks:
            yield from _entry("not the same", text)
        if any(_carries(layer) for layer in self.layers):
            yield from _entry("states", "not in the file: stateful layers start from zeros")
        if self.model is not None and self.runs:
            chunks = "can be cut" if self.whole is None else f"cannot be cut: {self.whole}"
            yield from _entry("sequences", f"{chunks}{' into chunks' * (self.whole is None)}")
        if self.runs:
            yield from _entry("refrnn", "can run it")
        else:
            count = len(self.problems)
            yield from _entry("refrnn", f"cannot run it, for {count} reason{'s' * (count > 1)}:")
        yield from self._reasons()
        if self.layers:
            yield ""
            yield from _table(
                ("layer", "kind", "output", "params", "dtype", "settings"),
                [row for layer in self.layers for row in _rows(layer)],
            )
        if self.groups:
            yield ""
            yield from _table(
                ("arrays", "shapes", "dtype", "looks like"),
                [row for group in self.groups for row in _group(group)],
            )

    def _reasons(self) -> Iterator[str]:
        for problem in self.problems:
            where = f"{_escaped(problem.where)}: " if problem.where else ""
            yield from textwrap.wrap(
                f"{where}{_escaped(problem.what)}",
                WIDTH,
                initial_indent="  - ",
                subsequent_indent="    ",
            )


# --- words ---


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return clip(value)
    if hasattr(value, "_asdict"):
        value = value._asdict()
    elif dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {clip(str(key)): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return str(value)
    return value


def _escaped(text: str) -> str:
    """Text in which nothing moves the cursor or ends the line."""
    return "".join(c if c.isprintable() else shown(c)[1:-1] for c in clip(text))


def _cell(text: str) -> str:
    """A name as a table shows it: escaped and cut."""
    said = _escaped(text)
    return said if len(said) <= LONGEST_CELL else f"{said[: LONGEST_CELL - 3]}..."


def _shape(shape: Shape) -> str:
    return "?" if shape is None else str(tuple(shape))


def _size(count: int) -> str:
    for unit, size in (("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _entry(title: str, text: str) -> list[str]:
    return textwrap.wrap(
        _escaped(text), WIDTH, initial_indent=f"{title:<14}", subsequent_indent=" " * 14
    )


def _carries(layer: LayerInfo) -> bool:
    return bool(layer.settings.get("stateful")) or any(map(_carries, layer.inside))


def _rows(layer: LayerInfo, depth: int = 0) -> Iterator[Row]:
    shapes = [_shape(shape) for shape in layer.shapes]
    count = "?" if layer.parameters is None else f"{layer.parameters:,}"
    settings = ", ".join(
        name if value is True else f"{name}={_cell(str(value))}"
        for name, value in layer.settings.items()
    )
    name, kind = f"{'  ' * depth}{_cell(layer.name)}", _cell(layer.kind)
    yield name, kind, shapes[0] if shapes else "", count, _cell(layer.dtype), settings
    for shape in shapes[1:]:
        yield "", "", shape, "", "", ""
    for inner in layer.inside:
        yield from _rows(inner, depth + 1)


def _group(group: Group) -> Iterator[Row]:
    yield _cell_end(group.place, 60), "", "", group.looks_like
    for array in group.arrays:
        yield f"  {_cell_end(array.name, 58)}", _shape(array.shape), array.dtype, ""


def _cell_end(text: str, longest: int) -> str:
    """The end of a path, which tells more than its beginning."""
    said = _escaped(text)
    return said if len(said) <= longest else f"...{said[3 - longest :]}"


def _table(titles: Row, rows: Sequence[Row]) -> Iterator[str]:
    """Columns side by side; the last one is wrapped, numbers are to the right."""
    widths = [max(len(row[k]) for row in [titles, *rows]) for k in range(len(titles) - 1)]
    indent = sum(widths) + 2 * len(widths)
    room = max(WIDTH - indent, 24)
    for k, row in enumerate([titles, *rows]):
        cells = [
            f"{text:>{width}}" if title == "params" else f"{text:<{width}}"
            for title, text, width in zip(titles, row, widths, strict=False)
        ]
        first, *more = textwrap.wrap(row[-1], room, break_long_words=False) or [""]
        yield "  ".join([*cells, first])
        yield from (" " * indent + part for part in more)
        if not k:
            yield "-" * min(WIDTH, indent + max(len(titles[-1]), 8))
