"""What is inside a graph of operations: the layers that it becomes, or its nodes and what is wrong.

A graph has no layers: their names and kinds are those that refrnn gives them.
"""

import os
from pathlib import Path
from typing import Any

from refrnn.files import foreign
from refrnn.files.errors import FileError, clip
from refrnn.files.graphs import Node, model, troubles
from refrnn.files.inspection import shapes
from refrnn.files.inspection.diagnosis import Problem
from refrnn.files.inspection.report import Inspection, LayerInfo, Shape, Tensor
from refrnn.files.inspection.rows import hard_sigmoids, of_layer
from refrnn.layers import Layer
from refrnn.models import Model
from refrnn.models.graph import refs


def inspected(path: "str | os.PathLike[str]") -> Inspection:
    """What is in a graph. Raises FileError where the file is damaged or no graph."""
    graph = foreign.READERS[Path(path).suffix](path)
    try:
        imported, said = model(graph, Path(path).stem), ""
    except FileError as error:
        imported, said = None, str(error)
    arrays = graph.constants.values()
    common: dict[str, Any] = {
        "path": os.fspath(path),
        "format": graph.format,
        "writer": graph.writer,
        "generation": None,
        "model": ("graph", Path(path).stem),
        "training": [],
        "groups": [],
    }
    if imported is None:
        problems = [Problem(*both) for both in troubles(graph)]
        return Inspection(
            **common,
            inputs=[Tensor(p.name, p.shape, p.dtype or "") for p in graph.inputs],
            outputs=[Tensor(p.name, p.shape, p.dtype or "") for p in graph.outputs],
            layers=[_of_node(node) for node in graph.nodes],
            parameters=sum(array.size for array in arrays),
            bytes=sum(array.nbytes for array in arrays),
            hard_sigmoid={},
            whole=None,
            remarks=[],
            problems=problems or [Problem("", said)],
        )
    made = imported.model
    returned, ends = shapes.of(made)
    rows = [of_layer(_kind(layer), layer, returned, None, [None]) for layer in made.layers]
    return Inspection(
        **common,
        inputs=[Tensor(item.name, item.shape, item.dtype) for item in made.inputs],
        outputs=_outputs(made, rows, ends),
        layers=rows,
        parameters=made.count_params(),
        bytes=sum(array.nbytes for array in made.get_weights()),
        hard_sigmoid=hard_sigmoids(rows),
        whole=made.why_whole(),
        remarks=[f"{word}: {text}" for word, text in imported.remarks()],
        problems=[],
    )


def _kind(layer: Layer) -> str:
    return "Functional" if type(layer) is Model else type(layer).__name__


def _outputs(made: Model, rows: list[LayerInfo], ends: list[Shape]) -> list[Tensor]:
    dtypes = {row.name: row.dtype for row in rows} | {i.name: i.dtype for i in made.inputs}
    names = [ref.layer for ref in refs(made.graph.outputs)]
    return [
        Tensor(name, shape, dtypes.get(name, "")) for name, shape in zip(names, ends, strict=True)
    ]


def _of_node(node: Node) -> LayerInfo:
    """An operation as the file describes it."""
    settings = {
        name: clip(repr(value))
        for name, value in node.attributes.items()
        if isinstance(value, int | float | str | list)
    }
    return LayerInfo(node.name, node.kind or node.op, [None], None, None, "", settings, [])
