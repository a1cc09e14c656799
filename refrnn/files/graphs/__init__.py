"""Graphs of operations, of whatever file, as a `refrnn.Model`.

A reader gives a `Graph`, whose operations are called and defined as in ONNX; `model` makes layers
of them, or says by node and attribute why it cannot.
"""

from refrnn.files.graphs import axes, constants, dense, picking, reshaping
from refrnn.files.graphs.ends import End, Imported
from refrnn.files.graphs.graph import Graph, Node, Port
from refrnn.files.graphs.importer import Importer, Steps, unknown
from refrnn.files.graphs.places import RECURRENT

__all__ = ["End", "Graph", "Imported", "Node", "Port", "model", "troubles"]

STEPS: Steps = {
    **dict.fromkeys(("Identity", "Dropout"), constants.same),
    **dict.fromkeys((*dense.ELEMENTWISE, *dense.SETTINGS), dense.activation),
    **dict.fromkeys(dense.MERGES, dense.merge),
    **dict.fromkeys(RECURRENT, dense.recurrent),
    "Cast": constants.cast, "Constant": constants.constant,
    "ConstantOfShape": constants.constant_of_shape, "Expand": constants.expand,
    "Shape": constants.shape, "Transpose": axes.transpose, "Squeeze": axes.squeeze,
    "Unsqueeze": axes.unsqueeze, "Reverse": axes.reverse, "Gather": picking.gather,
    "Slice": picking.slice_,
    "Split": picking.split, "Concat": picking.concat, "Reshape": reshaping.reshape,
    "Flatten": reshaping.flatten, "MatMul": dense.matmul, "Gemm": dense.gemm,
}  # fmt: skip


def model(graph: Graph, name: str) -> Imported:
    """The model of a graph. Raises FileError, by node and attribute, for what it cannot be."""
    return Importer(graph, STEPS).run(name)


def troubles(graph: Graph) -> list[tuple[str, str]]:
    """The operations of a graph that are none of refrnn's: the first node of each, and why."""
    found: dict[tuple[str, str], Node] = {}
    for node in graph.nodes:
        if node.op not in STEPS:
            found.setdefault((node.op, node.kind), node)
    return [(node.who, unknown(node, STEPS)) for node in found.values()]
