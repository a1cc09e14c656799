"""Steps that are layers: Dense, merging, activations, and the recurrent ones."""

import math
from typing import Any

import numpy as np

from refrnn import layers
from refrnn.files.errors import FileError, within
from refrnn.files.graphs import places
from refrnn.files.graphs import recurrent as cells
from refrnn.files.graphs.graph import Node
from refrnn.files.graphs.importer import Importer
from refrnn.files.graphs.values import Known, Value, alike, axis_of, one, only, small

ELEMENTWISE = {
    "Relu": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid", "Softplus": "softplus",
    "Softsign": "softsign",
}  # fmt: skip
MERGES = {"Add": layers.Add, "Sub": layers.Subtract, "Mul": layers.Multiply,
          "Max": layers.Maximum, "Min": layers.Minimum, "Mean": layers.Average}  # fmt: skip
FOLDED = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}
HARD = {(0.2, 0.5): "hard_sigmoid_keras2", (1 / 6, 0.5): "hard_sigmoid"}
SETTINGS = {
    "Softmax": ("axis",), "LogSoftmax": ("axis",), "HardSigmoid": ("alpha", "beta"),
    "Elu": ("alpha",), "LeakyRelu": ("alpha",),
}  # fmt: skip


def matmul(importer: Importer, node: Node) -> None:
    only(node)
    x, kernel = importer.inputs(node, 2, 2)
    _dense(importer, node, x, kernel, None, node.outputs[0])


def gemm(importer: Importer, node: Node) -> None:
    attributes = only(node, "alpha", "beta", "transA", "transB")
    x, kernel, bias = importer.inputs(node, 2, 3)
    for name, expected in (("alpha", 1.0), ("beta", 1.0), ("transA", 0)):
        if attributes.get(name, expected) != expected:
            raise FileError(f"{name} is {attributes[name]}, expected {expected}")
    if isinstance(kernel, Known) and attributes.get("transB", 0):
        kernel = Known(kernel.array.T)
    _dense(importer, node, x, kernel, bias, node.outputs[0])


def _dense(importer: Importer, node: Node, x: Any, kernel: Any, bias: Any, output: str) -> None:
    """A Dense layer, with the bias that a next node adds."""
    if not isinstance(x, Value) or not isinstance(kernel, Known) or kernel.array.ndim != 2:
        raise FileError("multiplies two arrays, expected one of the model's by a constant matrix")
    if x.axes[-1] != len(x.parts[0].shape) - 1 or len(x.axes) < 2:
        raise FileError(f"has the axes {x.axes}, expected the features last")
    importer.room(*x.parts[0].shape[1:-1], kernel.array.shape[1])
    name = importer.title(node)
    readers = importer.readers.get(output, [])
    if bias is None and importer.uses[output] == 1 and readers and readers[0].op == "Add":
        other = [importer.values.get(n) for n in readers[0].inputs if n != output]
        if len(other) == 1 and isinstance(other[0], Known):
            bias, output = other[0], readers[0].outputs[0]
            importer.fused.add(output)
    arrays = [np.ascontiguousarray(kernel.array)]
    if bias is not None:
        units, shape = kernel.array.shape[1], bias.array.shape if isinstance(bias, Known) else ()
        if shape[-1:] != (units,) or int(np.prod(shape)) != units or len(shape) > len(x.axes):
            raise FileError("has a bias that is not a constant with a number for each unit")
        arrays.append(bias.array.reshape(-1))
    layer = layers.Dense(
        kernel.array.shape[1], use_bias=bias is not None, dtype=kernel.array.dtype.name, name=name
    )
    importer.values[output] = Value((importer.add(layer, one(x), arrays),), x.axes, clock=x.steps)


def merge(importer: Importer, node: Node) -> None:
    only(node)
    found = [importer.value(name) for name in node.inputs]
    if len(found) == 2 and all(isinstance(x, Known) for x in found) and node.op in FOLDED:
        arrays = [x.array for x in found]
        with within("inputs"):
            small(math.prod(np.broadcast_shapes(*(a.shape for a in arrays))))
            importer.put(node, Known(FOLDED[node.op](*arrays)))
        return
    first = alike(found)
    shapes = {x.parts[0].shape for x in found}
    if len(found) < 2 or len(shapes) > 1:
        raise FileError(f"has inputs of shapes {shapes}, expected two or more of one shape")
    layer = MERGES[node.op](name=importer.title(node))
    made = importer.add(layer, [one(x) for x in found])
    importer.put(node, Value((made,), first.axes, clock=first.steps))


def activation(importer: Importer, node: Node) -> None:
    attributes = only(node, *SETTINGS.get(node.op, ()))
    [x] = importer.inputs(node, 1, 1)
    if not isinstance(x, Value):
        raise FileError("has a constant input, expected an array of the model's")
    name = importer.title(node)
    layer: layers.Layer
    if node.op in ("Softmax", "LogSoftmax"):
        if x.axes[axis_of(x, attributes.get("axis", -1))] != len(x.parts[0].shape) - 1:
            raise FileError(f"axis is {attributes.get('axis')}, expected that of the features")
        kind = {"Softmax": "softmax", "LogSoftmax": "log_softmax"}[node.op]
        layer = layers.Activation(kind, name=name)
    elif node.op == "HardSigmoid":
        pair = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
        near = [kind for known, kind in HARD.items() if np.allclose(pair, known, rtol=1e-6)]
        if not near:
            raise FileError(f"alpha and beta are {pair}, expected 0.2 or 1/6, and 0.5")
        layer = layers.Activation(near[0], name=name)
    elif node.op == "Elu":
        layer = layers.ELU(attributes.get("alpha", 1.0), name=name)
    elif node.op == "LeakyRelu":
        layer = layers.LeakyReLU(attributes.get("alpha", 0.01), name=name)
    else:
        layer = layers.Activation(ELEMENTWISE[node.op], name=name)
    importer.put(node, Value((importer.add(layer, one(x)),), x.axes, clock=x.steps))


def recurrent(importer: Importer, node: Node) -> None:
    found = importer.inputs(node, 1 if node.arrays else 3, 8 if node.op == "LSTM" else 6)
    used = [bool(name) and importer.uses[name] > 0 for name in node.outputs]
    used += [False] * (3 - len(used))
    if used[0] and _only_the_end(importer, node):
        used[:2] = False, True
    elif used[0] and any(other.op in ("Gather", "Slice") for other in importer.graph.nodes):
        used[1] = True  # the last step may be taken: it is the state
    made = cells.layer(node, found, used, importer.title(node))
    symbol = one(made.x)
    importer.room(symbol.shape[1], *made.arrays[-1].shape)
    importer.inexact += made.inexact
    symbols = importer.add(made.layer, symbol, made.arrays, **made.more)
    outputs = cells.outputs(made, symbols, used)
    for name, value in zip(node.outputs, outputs, strict=False):
        if value is not None:
            importer.values[name] = value


def _only_the_end(importer: Importer, node: Node) -> bool:
    """Whether nothing but one step of the output is taken: it must be the state then."""
    name = node.outputs[0]
    readers = importer.readers.get(name, [])
    return importer.uses[name] == len(readers) and all(
        reader.op == "Gather"
        and isinstance(index := importer.values.get(reader.inputs[-1]), Known)
        and not index.array.ndim
        and places.of(node).y[reader.attributes.get("axis", 0)] == 1
        for reader in readers
    )
