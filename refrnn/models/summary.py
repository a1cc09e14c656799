"""A table of a model's layers: shapes, parameters, and what each is called on."""

from typing import Any

from refrnn.layers import Layer
from refrnn.layers.symbolic import Symbol
from refrnn.models.graph import Node, is_model, refs

TITLES = ("Layer (type)", "Output Shape", "Param #", "Connected to")
Row = tuple[str, ...]


def table(model: Any, chain: bool, expand_nested: bool) -> str:
    """The table of a model as text.

    chain          whether each layer is called on what the one above returns
    expand_nested  whether the layers of models inside are listed too, indented
    """
    rows = _rows(model, "", expand_nested)
    if chain:
        rows = rows[1:]
    columns = 3 if chain else 4
    widths = [max(len(row[k]) for row in [TITLES, *rows]) for k in range(columns)]
    lines = [_line(row, widths) for row in [TITLES, *rows]]
    rule = "-" * (sum(widths) + 2 * (columns - 1))
    trained = {id(w) for w in model.trainable_weights}
    counts = [(w.size, w.nbytes, id(w) in trained) for w in model.weights]
    totals = [
        f"{title}: {_size([(n, b) for n, b, t in counts if t in wanted])}"
        for title, wanted in (
            ("Total params", (True, False)),
            ("Trainable params", (True,)),
            ("Non-trainable params", (False,)),
        )
    ]
    return "\n".join([f'Model: "{model.name}"', rule, lines[0], rule, *lines[1:], rule, *totals])


def _rows(model: Any, indent: str, expand_nested: bool) -> list[Row]:
    graph = model.graph
    known = all(item.shape is not None for item in graph.inputs)
    values = model.symbols() if known and graph.nodes else {}
    rows: list[Row] = [
        (f"{indent}{x.name} (InputLayer)", str(x.shape or "?"), "0", "") for x in graph.inputs
    ]
    for layer in graph.layers:
        calls = [node for node in graph.nodes if node.layer is layer]
        found = [values[ref] for ref in values if ref[:2] == (layer.name, calls[0].call)]
        built = layer.built or found
        rows.append(
            (
                f"{indent}{layer.name} ({_kind(layer)})",
                _shapes(found),
                f"{layer.count_params():,}" if built else "?",
                ", ".join(dict.fromkeys(part for node in calls for part in _sources(node))),
            )
        )
        if expand_nested and is_model(layer):
            rows += _rows(layer, f"{indent}    ", expand_nested)
    return rows


def _kind(layer: Layer) -> str:
    kind = type(layer).__name__
    return "Functional" if kind == "Model" else kind


def _shapes(found: list[Symbol]) -> str:
    shapes = [str(symbol.shape) for symbol in found]
    return shapes[0] if len(shapes) == 1 else f"[{', '.join(shapes)}]" if shapes else "?"


def _sources(node: Node) -> list[str]:
    return [f"{x.layer}[{x.call}][{x.tensor}]" for x in refs([list(node.args), node.kwargs])]


def _line(row: Row, widths: list[int]) -> str:
    cells = [
        f"{text:>{w}}" if k == 2 else f"{text:<{w}}"
        for k, (text, w) in enumerate(zip(row, widths, strict=False))
    ]
    return "  ".join(cells).rstrip()


def _size(weights: list[tuple[int, int]]) -> str:
    """A number of parameters, and the memory that they take."""
    count, memory = (sum(column) for column in zip((0, 0), *weights, strict=True))
    unit, size = "B", float(memory)
    for larger in ("KB", "MB", "GB"):
        if size >= 1024:
            unit, size = larger, size / 1024
    return f"{count:,} ({size:.2f} {unit})"
