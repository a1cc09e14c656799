"""Live objects of Keras as refrnn's: their configs read as those in files are."""

import json
from typing import Any

import numpy as np

from refrnn import checks
from refrnn.files import keras2, weights
from refrnn.layers import RNN, Bidirectional, Layer
from refrnn.layers.masks import leaves, map_arrays
from refrnn.layers.objects import Objects, custom_object_scope
from refrnn.layers.stored import deserialize
from refrnn.models import Model


def from_keras(source: Any, custom_objects: Objects | None = None) -> Layer | Model:
    """A live layer, cell or model of Keras as a refrnn one, with its weights and carried states.

    source          of Keras 3 or 2 (keras or tf_keras): a layer of the kinds in refrnn.layers, or
                    a Sequential or functional model of them
    custom_objects  the caller's own classes and functions, as for `load_model`

    Keras itself is not imported. Raises ValueError, by name, for a layer that refrnn does not have
    and for weights that are not finite; TypeError for what is not an object of Keras.
    """
    kinds = [k for k in type(source).__mro__ if k.__module__.startswith(("keras.", "tf_keras."))]
    parents = {k.__name__: k.__module__ for k in kinds}
    if "Layer" not in parents:
        raise TypeError(
            f"from_keras: {source!r} is a {type(source).__module__}.{type(source).__name__},"
            " expected a layer or model of Keras"
        )
    kind = type(source).__name__
    if "Model" in parents and kind not in ("Sequential", "Functional"):
        raise ValueError(
            f"from_keras: model {source.name!r} is a {kind}, expected a Sequential or functional"
            " model, because what a subclass computes is code that its config does not hold"
        )
    entry: dict[str, Any] = {"class_name": kind, "config": source.get_config()}
    old = ".engine." in parents["Layer"]
    if old:
        entry = keras2.upgrade_layer(json.loads(json.dumps(entry)))
    else:
        entry |= {"module": type(source).__module__, "build_config": source.get_build_config()}
    with custom_object_scope(custom_objects):
        made: Layer = deserialize(entry)
    _share(source, made, {})
    _copy_weights(source, made, old)
    return made


def _share(source: Any, mine: Layer, seen: dict[int, Layer]) -> None:
    """One layer for one of Keras's that stands in several models; a config has it several times."""
    if not isinstance(mine, Model):
        return
    by_name = {layer.name: layer for layer in source.layers}
    ours = {id(x): seen.setdefault(id(by_name[x.name]), x) for x in mine.graph.layers}
    mine.graph = mine.graph._replace(
        layers=[ours[id(layer)] for layer in mine.graph.layers],
        nodes=[n._replace(layer=ours.get(id(n.layer), n.layer)) for n in mine.graph.nodes],
    )
    for layer in mine.graph.layers:
        _share(by_name[layer.name], layer, seen)


def _copy_weights(source: Any, mine: Layer, old: bool) -> None:
    """Copy weights and carried states, layer by layer where the layer is a model."""
    if isinstance(mine, Model):
        by_name = {layer.name: layer for layer in source.layers}
        for layer in mine.layers:
            _copy_weights(by_name[layer.name], layer, old)
        return
    arrays = source.get_weights()
    if arrays:
        mine.set_weights(weights.in_order(mine, arrays) if old else arrays)
        for name, array in zip(mine.weight_names, mine.weights, strict=True):
            checks.finite(mine.who, name, array)
    if isinstance(mine, RNN | Bidirectional) and mine.stateful:
        states = _carried(source)
        if states:
            mine.reset_states(map_arrays(np.asarray, states))


def _carried(source: Any) -> list[Any]:
    """What a stateful layer of Keras carries; nothing before it knows its rows."""
    if not hasattr(source, "states"):  # Bidirectional of Keras 2
        return [*_carried(source.forward_layer), *_carried(source.backward_layer)]
    states = list(source.states or [])
    return [] if any(part is None for part in leaves(states)) else states
