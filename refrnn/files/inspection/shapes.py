"""The shapes of what the layers of a model return, without running any of them.

A file may declare an input, or a layer, of any size, so nothing is allocated. A size that is not
known, and the shape of what a layer that is not listed here returns, is None.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from refrnn.files.graph import TENSOR
from refrnn.layers import Bidirectional, Layer
from refrnn.layers.masks import leaves
from refrnn.layers.rnn import RNN
from refrnn.layers.states import output_size, shape_of
from refrnn.models import Model, Ref
from refrnn.models.graph import refs

Shape = tuple[int | None, ...]
Known = Shape | None
Shapes = dict[int, list[Known]]  # by the id of a layer: what its first call returns


def of(model: Model) -> tuple[Shapes, list[Known]]:
    """The shapes of what each layer returns, those in models inside too, and of the outputs."""
    found: Shapes = {}
    inputs = [None if item.shape is None else tuple(item.shape) for item in model.inputs]
    return found, _of_graph(model, inputs, found)


def stated(entries: Sequence[dict[str, Any]]) -> dict[str, list[Known]]:
    """The shapes of what layers return, by name, as far as a config of Keras 3 says them.

    It does for what other layers are called on, and, in a chain, for what the next is built for.
    """
    found: dict[str, list[Known]] = {}
    for before, entry in itertools.pairwise(entries):
        built = entry.get("build_config")
        shape = shape_of_json(built.get("input_shape")) if isinstance(built, dict) else None
        if shape and "inbound_nodes" not in entry:
            found[str(before["config"].get("name"))] = [shape]
    for tensor in _tensors([entry.get("inbound_nodes") for entry in entries]):
        shape, history = shape_of_json(tensor.get("shape")), tensor.get("keras_history")
        if shape and isinstance(history, list) and history[1:] == [0, 0]:
            found[str(history[0])] = [shape]
    return found


def shape_of_json(value: Any) -> Known:
    """A stored shape; None where it is not one."""
    if not isinstance(value, list) or not all(n is None or type(n) is int for n in value):
        return None
    return tuple(value)


def _tensors(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict) and value.get("class_name") == TENSOR:
        return [value["config"]] if isinstance(value.get("config"), dict) else []
    inside = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list):
        return []
    return [tensor for part in inside for tensor in _tensors(part)]


def _of_graph(model: Model, inputs: Sequence[Known], found: Shapes) -> list[Known]:
    values: dict[Ref, Known] = {
        Ref(item.name, 0, 0): shape for item, shape in zip(model.inputs, inputs, strict=False)
    }
    for node in model.graph.nodes:
        given = [values.get(ref) for ref in refs([node.args[:1] or list(node.kwargs.values())[:1]])]
        returned = _returned(node.layer, given, found)
        for k, shape in enumerate(returned):
            values[Ref(node.layer.name, node.call, k)] = shape
        found.setdefault(id(node.layer), returned)
    return [values.get(ref) for ref in refs(model.graph.outputs)]


def _returned(layer: Layer, given: list[Known], found: Shapes) -> list[Known]:
    """What a call on arrays of the shapes `given` returns."""
    if isinstance(layer, Model):
        return _of_graph(layer, given, found)
    rule = RULES.get(type(layer).__name__)
    if rule is None or not given or any(shape is None for shape in given):
        return [None] * layer.output_count
    try:
        returned = rule(layer, given)
    except (TypeError, ValueError, IndexError):  # a rank that the layer does not take
        return [None] * layer.output_count
    return returned if isinstance(returned, list) else [returned]


def _product(sizes: Sequence[int | None]) -> int | None:
    known = [n for n in sizes if n is not None]
    return math.prod(known) if len(known) == len(sizes) else None


def _plus(size: int | None, more: int) -> int | None:
    return None if size is None else size + more


def _same(layer: Any, given: list[Any]) -> Shape:
    return tuple(given[0])


def _rnn(layer: RNN, given: list[Any]) -> list[Known]:
    batch, time = given[0][:2]
    steps = (batch, time) if layer.return_sequences else (batch,)
    found = [(*steps, *shape_of(size)) for size in leaves(output_size(layer.cell))]
    if layer.return_state:
        size = layer.cell.state_size
        parts = size if isinstance(size, list | tuple) else [size]
        found += [(batch, *shape_of(n)) for n in leaves(parts)]
    return list(found)


def _both_ways(layer: Bidirectional, given: list[Any]) -> list[Known]:
    forward, *first = _rnn(layer.forward_layer, given)
    backward, *second = _rnn(layer.backward_layer, given)
    if layer.merge_mode is None:
        return [forward, backward, *first, *second]
    if layer.merge_mode == "concat" and forward and backward:
        forward = (*forward[:-1], _plus(forward[-1], backward[-1] or 0))
    return [forward, *first, *second]


def _time_first(layer: Any, given: list[Any]) -> list[Known]:
    """Of a layer that takes and returns (time, batch, ...), its states apart."""
    time, batch, *rest = given[0]
    first, *states = _rnn(layer.layer, [(batch, time, *rest)])
    if layer.layer.return_sequences and first:
        first = (time, batch, *first[2:])
    return [first, *states]


def _at_each_step(layer: Any, given: list[Any]) -> Known:
    batch, time, *rest = given[0]
    [inner] = _returned(layer.layer, [(batch, *rest)], {})
    return None if inner is None else (inner[0], time, *inner[1:])


def _flatten(layer: Any, given: list[Any]) -> Shape:
    return given[0][0], _product(given[0][1:])


def _reshape(layer: Any, given: list[Any]) -> Shape:
    size = _product(given[0][1:])
    known = math.prod(n for n in layer.target_shape if n != -1)
    left = size // known if size is not None and known else None
    return given[0][0], *(left if n == -1 else n for n in layer.target_shape)


def _permute(layer: Any, given: list[Any]) -> Shape:
    return given[0][0], *(given[0][n] for n in layer.dims)


def _windows(layer: Any, given: list[Any]) -> Shape:
    """A convolution, or pooling by windows."""
    batch, sizes, features = _split(layer, given[0])
    found = []
    for k, size in enumerate(sizes):
        width = _each(getattr(layer, "kernel_size", None) or layer.pool_size, k)
        reach = (width - 1) * _each(getattr(layer, "dilation_rate", 1), k) + 1
        stride = _each(layer.strides or width, k)
        if size is not None and layer.padding == "valid":
            size = max((size - reach) // stride + 1, 0)
        elif size is not None:
            size = -(-size // stride)
        found.append(size)
    if hasattr(layer, "filters"):
        features = layer.filters
    elif hasattr(layer, "depth_multiplier") and features is not None:
        features *= layer.depth_multiplier
    return _joined_again(layer, batch, found, features)


def _each(value: Any, k: int) -> int:
    return int(value[k] if isinstance(value, list | tuple) else value)


def _split(layer: Any, shape: Any) -> tuple[int | None, list[int | None], int | None]:
    """Rows, sizes and features of a shape."""
    if getattr(layer, "data_format", None) == "channels_first":
        return shape[0], list(shape[2:]), shape[1]
    return shape[0], list(shape[1:-1]), shape[-1]


def _joined_again(
    layer: Any, batch: int | None, sizes: list[int | None], features: int | None
) -> Shape:
    if getattr(layer, "data_format", None) == "channels_first":
        return batch, features, *sizes
    return batch, *sizes, features


def _pooled(layer: Any, given: list[Any]) -> Shape:
    batch, sizes, features = _split(layer, given[0])
    return _joined_again(layer, batch, [1] * len(sizes) if layer.keepdims else [], features)


def _merged(layer: Any, given: list[Any]) -> Shape:
    rank = max(map(len, given))
    wide = [(s[0], *[1] * (rank - len(s)), *s[1:]) for s in given]
    found = []
    for sizes in zip(*wide, strict=True):
        others = {n for n in sizes if n != 1} or {1}
        known = others - {None}
        found.append(next(iter(known)) if len(known) == 1 else None)
    return tuple(found)


def _joined(layer: Any, given: list[Any]) -> Shape:
    axis = layer.axis % len(given[0])
    sizes = [shape[axis] for shape in given]
    total = None if None in sizes else sum(sizes)
    return tuple(total if k == axis else n for k, n in enumerate(_merged(layer, given)))


RULES: dict[str, Callable[[Any, list[Any]], list[Known] | Known]] = {
    **dict.fromkeys(
        (
            "Dropout", "SpatialDropout1D", "GaussianNoise", "GaussianDropout", "AlphaDropout",
            "SpatialDropout2D", "Identity", "UnitNormalization", "GroupNormalization", "Rescaling",
            "Activation", "ReLU", "LeakyReLU", "ELU", "PReLU", "Softmax", "Masking",
            "BatchNormalization", "LayerNormalization", "ActivityRegularization",
        ),
        _same,
    ),
    **dict.fromkeys(("SimpleRNN", "GRU", "LSTM", "RNN"), _rnn),
    **{
        f"{kind}{n}D": _windows
        for kind in ("Conv", "DepthwiseConv", "SeparableConv", "MaxPooling", "AveragePooling")
        for n in (1, 2, 3)
    },
    **{f"Global{kind}Pooling{n}D": _pooled for kind in ("Max", "Average") for n in (1, 2, 3)},
    **dict.fromkeys(
        ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"), _merged
    ),
    "Bidirectional": _both_ways,
    "TimeMajor": _time_first,
    "TimeDistributed": _at_each_step,
    "Dense": lambda layer, given: (*given[0][:-1], layer.units),
    "Embedding": lambda layer, given: (*given[0], layer.output_dim),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    "RepeatVector": lambda layer, given: (given[0][0], layer.n, *given[0][1:]),
    "Cropping1D": lambda layer, given: (
        given[0][0], _plus(given[0][1], -sum(layer.cropping)), given[0][2]
    ),
    "ZeroPadding1D": lambda layer, given: (
        given[0][0], _plus(given[0][1], sum(layer.padding)), given[0][2]
    ),
    "UpSampling1D": lambda layer, given: (
        given[0][0], None if given[0][1] is None else given[0][1] * layer.size, given[0][2]
    ),
    "Concatenate": _joined,
}  # fmt: skip
