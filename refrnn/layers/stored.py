"""Layers as configs have them: read, written, and copied by way of one."""

import copy
from typing import Any

from refrnn.layers import context
from refrnn.layers.base import Layer
from refrnn.layers.objects import custom_class, hint, tail

KINDS: dict[str, type[Layer]] = {}  # class name -> class; `refrnn.layers` enters them


def some_kinds() -> str:
    """The names of the layers that refrnn has, for a message: the first, and where the rest are."""
    names = [name for name in KINDS if "." not in name]
    return f"{', '.join(names[:20])}, ... (all {len(names)}: refrnn.layers.LAYERS)"


def deserialize(entry: Any) -> Any:
    """A new layer from what Keras writes for one: class_name and config. Nothing in it is run.

    A class that is not of refrnn is looked for in `custom_object_scope`. Raises ValueError, by
    name, for a layer that is neither there nor one of KINDS.
    """
    if isinstance(entry, Layer):  # of a config that was made to copy a layer
        return entry
    kind, config, module = (entry.get(key) for key in ("class_name", "config", "module"))
    if not isinstance(kind, str) or not isinstance(config, dict):
        raise ValueError(
            f"a layer is stored as class_name {kind!r} and config {config!r}, expected a name and a"
            " dictionary"
        )
    own = custom_class(entry)
    if own is not None:
        return _custom(own, entry)
    module = str(module or "keras")
    if module.startswith("keras.src.ops"):  # an operation that makes masks, between the layers
        kind = f"ops.{kind}"
    if kind not in KINDS or module.partition(".")[0] != "keras":
        name = config.get("name", entry.get("name"))
        origin = "" if module.startswith("keras") else f" of {module}"
        raise ValueError(
            f"layer {name!r} is a {kind}{origin}, which refrnn does not have; expected one of"
            f" {some_kinds()}{hint(kind)}"
        )
    return KINDS[kind].from_config(config)


def _custom(kind: Any, entry: dict[str, Any]) -> Any:
    """A layer or cell of the caller's class, with the stored config, built for what it was."""
    name = entry["class_name"]
    if not callable(getattr(kind, "from_config", None)):
        raise ValueError(
            f"custom_objects: {name!r} is {kind!r}, expected a class with from_config, such as a"
            " subclass of refrnn.layers.Layer"
        )
    try:
        made = kind.from_config(copy.deepcopy(entry["config"]))
    except TypeError as error:
        raise ValueError(
            f"{kind.__name__}.from_config does not take the stored config of {name!r}, which has"
            f" {', '.join(entry['config'])}: {error}"
        ) from error
    if not isinstance(made, Layer):
        return made
    if isinstance(entry.get("name"), str):  # in a graph the layer is known by it
        made.name = entry["name"]
    vars(made)["_stored_as"] = tail(name)
    stored = entry.get("build_config")
    if isinstance(stored, dict) and not made.built:
        made.build_from_config(stored)
    return made


def serialize(layer: Any) -> Any:
    """A layer as Keras writes it into the config of the one around it."""
    if context.copying.get():
        return clone(layer)
    if type(layer) in KINDS.values():
        kind = next(name for name, known in KINDS.items() if known is type(layer))
        return {
            "module": layer.KERAS_MODULE,
            "class_name": kind.removeprefix("ops."),
            "config": layer.get_config(),
            "registered_name": None,
        }
    if not isinstance(layer, Layer):
        raise ValueError(
            f"{layer!r} cannot be written into a config, expected a refrnn layer or a subclass of"
            " refrnn.layers.Layer, which has a get_config"
        )
    kind = type(layer).__name__
    entry = {
        "module": None,
        "class_name": kind,
        "config": layer.get_config(),
        "registered_name": kind,
    }
    built_for = layer.get_build_config()
    return entry if built_for is None else {**entry, "build_config": built_for}


def clone(layer: Any, **changes: Any) -> Any:
    """A new layer with the settings of `layer` but for `changes`; its weights are not copied.

    Like Keras through the config, but functions and classes of the caller's need no name there.
    """
    if not isinstance(layer, Layer):
        raise ValueError(
            f"{layer!r} cannot be copied, expected a subclass of refrnn.layers.Layer, because it"
            " is copied by its get_config"
        )
    with context.of(context.copying, True):
        made = type(layer).from_config({**layer.get_config(), **changes})
        built_for = layer.get_build_config()
        if built_for is not None and not made.built:
            made.build_from_config(built_for)
    if "_stored_as" in vars(layer):
        vars(made)["_stored_as"] = vars(layer)["_stored_as"]
    return made
