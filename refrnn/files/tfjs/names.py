"""What tf.js calls the weights of a layer, and which stored weight belongs where."""

import re
from collections import Counter
from collections.abc import Sequence

from refrnn.files.errors import FileError, shown
from refrnn.gates import Array
from refrnn.layers import RNN, Bidirectional, Layer, StackedRNNCells, TimeDistributed

Stored = tuple[str, Array]  # a weight with its name in the file


def of_layer(layer: Layer) -> list[str]:
    """The names of a layer's weights, in the order of `set_weights`."""
    return [f"{layer.name}/{name}" for name in _inside(layer)]


def _inside(layer: Layer) -> list[str]:
    if isinstance(layer, Bidirectional):
        base = layer.forward_layer.name.removeprefix("forward_")
        ways = {f"forward_{base}": layer.forward_layer, f"backward_{base}": layer.backward_layer}
        return [f"{way}/{name}" for way, one in ways.items() for name in _inside(one)]
    if isinstance(layer, RNN):
        return _inside(layer.cell)
    if isinstance(layer, StackedRNNCells):
        cells = enumerate(layer.cells)
        return [f"RNNCell_{k}/{name}" for k, cell in cells for name in _inside(cell)]
    if isinstance(layer, TimeDistributed):
        return _inside(layer.layer)
    return layer.weight_names if layer.built else list(layer.weight_shapes(1))


def assigned(stored: Sequence[Stored], layers: Sequence[Layer]) -> list[list[Array]]:
    """The weights of each layer in the order of `set_weights`.

    By name, as in tf.js; where a layer's are not called as tf.js calls them, in the order of the
    file. Raises FileError for a weight without a layer and a layer without its weights.
    """
    _refuse_twice("weights", [name for name, _ in stored])
    _refuse_twice("layers", [layer.name for layer in layers])
    names = {layer.name: of_layer(layer) for layer in layers}
    owners = {name: layer.name for layer in layers for name in names[layer.name]}
    found: dict[str, list[Stored]] = {name: [] for name in names}
    for name, array in stored:
        short = _without_cell(name)
        full = short if name not in owners and short in owners else name
        owner = owners.get(full, name.partition("/")[0])
        if owner not in found:
            raise FileError(
                f"weight {shown(name)} is of no layer, expected one of those of the model:"
                f" {shown(list(names))}"
            )
        found[owner].append((full, array))
    return [_in_order(layer, names[layer.name], found[layer.name]) for layer in layers]


def _in_order(layer: Layer, names: list[str], found: list[Stored]) -> list[Array]:
    if {name for name, _ in found} == set(names) and len(found) == len(names):
        by_name = dict(found)
        return [by_name[name] for name in names]
    if [_last(name) for name, _ in found] != [_last(name) for name in names]:
        raise FileError(
            f"{layer.who}: has weights {shown([name for name, _ in found])}, expected {names}"
        )
    return [array for _, array in found]


def _without_cell(name: str) -> str:
    """lstm/lstm_cell/kernel, as Keras 2 calls it -> lstm/kernel, as tf.js does."""
    parts = name.split("/")
    return "/".join([*parts[:-2], parts[-1]])


def _last(name: str) -> str:
    """dense/kernel_1:0 -> kernel"""
    return re.sub(r"(_\d+)?(:\d+)?$", "", name.rpartition("/")[2])


def _refuse_twice(what: str, names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise FileError(f"two {what} are called {shown(twice[0])}, expected unique names")
