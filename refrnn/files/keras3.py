"""A model from a config of Keras 3, every part of it checked before anything is made.

Nothing in a config is run: a layer is looked up among refrnn's by its name, and whatever stands
for code (a Lambda, a function, a class of somebody's module) is refused by name.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from refrnn import checks
from refrnn.files import graph
from refrnn.files.errors import FileError, clip, shown, within
from refrnn.layers import LAYERS, Layer, context
from refrnn.layers.objects import custom_class, custom_function, hint
from refrnn.layers.stored import some_kinds
from refrnn.models import MODELS, Model, Sequential, from_config

MAX_LAYERS = 1000  # finding names that are there twice takes time by their square
CODE = ("Lambda", "__lambda__", "function", "__function__", "__class__", "__typespec__")
OPERATION = "keras.src.ops"  # the module of what is no layer
NESTED = ("layer", "backward_layer", "cell")  # settings that are layers, and "cells", a list

Named = tuple[str, Layer]  # the class name in the file, and the layer


def model(config: dict[str, Any]) -> tuple[Model, list[Named]]:
    """The model without weights, and its layers in the order of the file."""
    kind, body = config.get("class_name"), config.get("config")
    if not isinstance(kind, str) or kind not in MODELS:
        raise FileError(
            f"the model is a {shown(kind)}, expected 'Sequential' or 'Functional', because what"
            " another class computes is code, which no file holds"
        )
    refuse_code(body)
    clean = _checked(kind, body)
    with within("config"):
        made = from_config(kind, clean)
        _build_custom(made)
    _check_references(made)
    names = [
        str(entry["class_name"])
        for entry in clean["layers"]
        if entry["class_name"] != "InputLayer" and entry.get("module") != OPERATION
    ]
    return made, list(zip(names, made.layers, strict=True))


def _build_custom(made: Model) -> None:
    """Build layers of the caller's whose shapes no file tells, by trying the model on zeros."""
    known = all(item.shape is not None for item in made.inputs)
    if known and any(map(_is_open, made.every_layer())):
        with context.of(context.undrawn, True):
            made.symbols()


def _is_open(layer: Layer) -> bool:
    """Whether a layer of the caller's, this one or one inside, is not built."""
    return (layer.IS_CUSTOM and not layer.built) or any(_is_open(x) for _, x in layer.parts())


def _check_references(made: Model) -> None:
    """Refuse graphs, those of models inside too, that refer to what no layer returns."""
    for layer in made.layers:
        if isinstance(layer, Model):
            with within(layer.who):
                _check_references(layer)
    if not isinstance(made, Sequential):
        graph.check_references(made)


def _checked(kind: str, body: Any) -> dict[str, Any]:
    """The config of a model with only what has been checked in it."""
    entries = _entries(body)
    inputs = [entry for entry in entries if entry["class_name"] == "InputLayer"]
    others = [entry for entry in entries if entry["class_name"] != "InputLayer"]
    for entry in inputs:
        _check_input(entry)
    for entry in others:
        _check_layer(entry)
    name = body.get("name")
    if not isinstance(name, str):
        raise FileError(f"the model's name is {shown(name)}, expected text")
    clean = {"name": name, "layers": entries}
    if kind == "Functional":
        return clean | graph.checked(body, inputs, others)
    if len(inputs) > 1 or (inputs and entries[0] is not inputs[0]):
        raise FileError(
            f"a Sequential model has {len(inputs)} inputs, expected at most one, in front"
        )
    for entry in others:
        entry.pop("inbound_nodes", None)
    return clean


def _entries(body: Any) -> list[dict[str, Any]]:
    """The stored layers, each with a class name and a config with a name of its own."""
    found = body.get("layers") if isinstance(body, dict) else None
    if not isinstance(found, list) or not found:
        raise FileError(f"the model's layers are {shown(found)}, expected a list of them")
    if len(found) > MAX_LAYERS:
        raise FileError(f"the model has {len(found)} layers, expected at most {MAX_LAYERS}")
    for entry in found:
        if not is_entry(entry):
            raise FileError(f"a layer is {shown(entry)}, expected a class_name and a config")
        if custom_class(entry) is not None and "name" not in entry["config"] | entry:
            continue  # its class wrote none, and will make one
        name = entry["config"].setdefault("name", entry.get("name"))
        if not isinstance(name, str) or not name:
            raise FileError(f"a {entry['class_name']} is called {shown(name)}, expected a name")
        if entry.get("name", name) != name:
            raise FileError(f"a layer is called {shown(entry['name'])} and {shown(name)}")
    names = [e["config"]["name"] for e in found if "name" in e["config"]]
    twice = [n for n, k in Counter(names).items() if k > 1]
    if twice:
        raise FileError(f"two layers are called {shown(twice[0])}, expected unique names")
    return found


def is_entry(value: Any) -> bool:
    """Whether a value is how Keras stores a layer."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("class_name"), str)
        and isinstance(value.get("config"), dict)
    )


def refuse_code(structure: Any) -> None:
    """Refuse code, and objects that are somebody's own, wherever they stand."""
    if isinstance(structure, list):
        for part in structure:
            refuse_code(part)
    if not isinstance(structure, dict):
        return
    kind, module, own = (structure.get(k) for k in ("class_name", "module", "registered_name"))
    if isinstance(kind, str) and "config" in structure:
        if kind in CODE and custom_function(structure) is structure:
            raise FileError(
                f"holds a {kind}, which is code, expected layers and activations by name, because"
                f" code from a file is never run{_hint(kind, structure['config'])}"
            )
        if not (module is None or isinstance(module, str)) or not (
            own is None or isinstance(own, str)
        ):
            raise FileError(f"a {kind} is of module {shown(module)} and registered as {shown(own)}")
        custom = own not in (None, "", kind) or ">" in kind
        foreign = custom or (module or "keras").partition(".")[0] != "keras"
        if foreign and kind not in CODE and custom_class(structure) is None:
            config = structure["config"]
            name = config.get("name") if isinstance(config, dict) else None
            raise FileError(
                f"{shown(name)} is a {shown(own or kind)} of module {shown(module)}, which refrnn"
                " does not have, expected what Keras itself comes with, because what it computes"
                f" is code, which no file holds{clip(hint(own or kind))}"
            )
    for part in structure.values():
        refuse_code(part)


def _hint(kind: str, config: Any) -> str:
    return clip(hint(config, "function")) if kind == "function" else ""


def _check_input(entry: dict[str, Any]) -> None:
    config = entry["config"]
    shape = config.get("batch_shape", config.get("shape"))
    if not isinstance(shape, list) or not all(
        n is None or (isinstance(n, int) and not isinstance(n, bool) and n >= 0) for n in shape
    ):
        raise FileError(
            f"input {shown(config['name'])} has shape {shown(shape)}, expected a list of sizes"
        )
    if config.get("sparse") or config.get("ragged"):
        raise FileError(f"input {shown(config['name'])} is sparse or ragged, expected a dense one")
    dtype = config.get("dtype") or "float32"
    if not isinstance(dtype, str):
        raise FileError(f"input {shown(config['name'])} has dtype {shown(dtype)}, expected a name")
    entry["config"] = {"name": config["name"], "batch_shape": shape, "dtype": dtype}


def _check_layer(entry: dict[str, Any]) -> None:
    """Refuse a layer that refrnn does not have, also inside another, and odd dtypes."""
    if custom_class(entry) is not None:
        return  # it reads its own config
    kind, config, module = entry["class_name"], entry["config"], entry.get("module")
    name = config.get("name")
    if kind in MODELS:
        with within(f"{kind} {shown(name)}"):
            entry["config"] = _checked(kind, config)
        return
    layers = module is None or ".layers" in module or module == "keras"
    named = "trainable" not in config if module is None else ".ops." in module
    if named and f"ops.{kind}" in LAYERS:
        entry["module"] = OPERATION  # an .h5 does not say: only layers are trainable
        return
    if kind not in LAYERS or not layers:
        origin = "" if layers else f" of {module}"
        raise FileError(
            f"layer {shown(name)} is a {shown(kind)}{origin}, which refrnn does not have; expected"
            f" one of {some_kinds()}{clip(hint(kind))}"
        )
    dtype = config.get("dtype")
    if isinstance(dtype, dict):
        policy = dtype.get("config")
        dtype = policy.get("name") if isinstance(policy, dict) else dtype
    if dtype is not None and dtype not in (*checks.DTYPES, *checks.MIXED):
        raise FileError(
            f"{kind} {shown(name)}: dtype is {shown(dtype)}, expected one of"
            f" {', '.join(checks.DTYPES)}, because refrnn computes in the dtype of the weights"
        )
    config["dtype"] = dtype
    for inner in inner_entries(config):
        _check_layer(inner)


def inner_entries(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The layers and cells that are settings of a layer."""
    found = [config[key] for key in NESTED if config.get(key) is not None]
    cells = config.get("cells")
    if isinstance(cells, list) and len(cells) > MAX_LAYERS:
        raise FileError(f"a stack has {len(cells)} cells, expected at most {MAX_LAYERS}")
    for entry in [*found, *(cells if isinstance(cells, list) else [])]:
        if not is_entry(entry):
            raise FileError(
                f"inside {shown(config.get('name'))}: a layer is {shown(entry)}, expected a"
                " class_name and a config"
            )
        yield entry
