"""Why a file cannot be run: every layer, setting and array that is in the way, not the first alone.

A layer is looked at as if it were the only one of a model, by what loads models; so what is said
here is what `load_model` would say. Settings are left out one by one to find what else is wrong.
"""

import copy
from typing import Any, NamedTuple

import numpy as np

from refrnn.files import keras2, keras3, weights
from refrnn.files.errors import FileError, clip, shown, within
from refrnn.files.hdf5 import Path
from refrnn.files.inspection.contents import Config, Contents, Stored
from refrnn.files.keras3 import CODE, NESTED, is_entry
from refrnn.layers import LAYERS, Layer
from refrnn.layers.base import REQUIRED
from refrnn.layers.objects import hint
from refrnn.models import MODELS

BUDGET = 300_000  # parts of configs that are gone through in looking for all that is wrong
MAX_SETTINGS = 60  # of a layer, among which the one that is wrong is looked for
INPUT = "InputLayer"


class Problem(NamedTuple):
    """What is in the way of running a model. where: a layer, "" for the file as a whole."""

    where: str
    what: str


# --- layers ---


def entries_of(config: Config) -> list[Config]:
    """The stored layers of a model, its inputs among them. Raises FileError without any."""
    found = config.get("config")
    if isinstance(found, dict):
        found = found.get("layers")
    if config.get("class_name") not in (*keras2.MODELS, *MODELS):
        return [entry for entry in found if is_entry(entry)] if isinstance(found, list) else []
    if not isinstance(found, list) or not found or not all(map(is_entry, found)):
        raise FileError(
            f"the model's layers are {shown(found)}, expected a list, each with a class_name and a"
            " config"
        )
    if len(found) > keras3.MAX_LAYERS:
        raise FileError(f"the model has {len(found)} layers, expected at most {keras3.MAX_LAYERS}")
    return found


def is_operation(entry: Config) -> bool:
    """Whether an entry is no layer, but an operation that stands between them."""
    kind, module = entry["class_name"], entry.get("module")
    if isinstance(module, str):
        return ".ops." in module
    return f"ops.{kind}" in LAYERS and "trainable" not in entry["config"]


def name_of(entry: Config) -> str:
    """The name of a stored layer."""
    return str(entry["config"].get("name", entry.get("name", "")))


def place_of(entry: Config) -> str:
    """How a layer is called where something is said of it."""
    return clip(f"{name_of(entry)} ({entry['class_name']})")


class Probe:
    """Layers of a file, one by one."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._left = BUDGET
        self.problems: list[Problem] = []

    @property
    def exhausted(self) -> bool:
        return self._left < 0

    def look(self, entry: Config, above: str = "") -> Layer | None:
        """The layer, or None and the reasons among the problems."""
        where = clip(f"{above}{place_of(entry)}")
        said = self._try(entry)
        if not isinstance(said, str):
            return said
        before = len(self.problems)
        for inner in children(entry):
            self.look(inner, f"{where} / ")
        if len(self.problems) > before:
            entry = _with_stand_ins(entry)
        self.problems += [Problem(where, text) for text in self._complaints(entry)]
        return None

    def _try(self, entry: Config) -> Layer | str | None:
        """The layer, or why there is none; None for an input and an operation."""
        if is_operation(entry):
            return None
        self._left -= _parts(entry)
        if self.exhausted:
            return None
        if len(children(entry)) > keras3.MAX_LAYERS:
            return f"has {len(children(entry))} layers, expected at most {keras3.MAX_LAYERS}"
        # a Sequential model in a model is one of layers too
        body = {"name": "one", "layers": [copy.deepcopy(entry)]}
        try:
            with within("config", RecursionError):
                config = self._contents.upgrade({"class_name": "Sequential", "config": body})
                made = keras3.model(config)[0]
        except FileError as error:
            return _said(entry, str(error))
        return made.layers[0] if made.layers else None

    def _complaints(self, entry: Config) -> list[str]:
        """Everything that is wrong with a layer, the layers inside it left out."""
        found: list[str] = []
        while isinstance(said := self._try(entry), str) and len(found) < MAX_SETTINGS:
            found.append(said)
            culprit = None if _is_unknown(entry) else self._culprit(entry, said)
            if culprit is None:
                break
            entry = _without(entry, culprit)
        return found

    def _culprit(self, entry: Config, said: str) -> str | None:
        """The setting without which something else, or nothing, is wrong."""
        kind = keras2.CUDNN.get(entry["class_name"], entry["class_name"])
        arguments = LAYERS[kind].ARGUMENTS if kind in LAYERS else {}
        named = [
            name
            for name in entry["config"]
            if name != "name" and arguments.get(name) is not REQUIRED
        ]
        named.sort(key=lambda name: name not in said)
        for name in named[:MAX_SETTINGS]:
            if self._try(_without(entry, name)) != said:
                return name
        return None


def children(entry: Config) -> list[Config]:
    """The layers, and cells, inside a stored one."""
    config = entry["config"]
    found = [config.get(key) for key in NESTED]
    for key in ("cells", "layers") if entry["class_name"] in keras2.MODELS else ("cells",):
        several = config.get(key)
        found += several if isinstance(several, list) else []
    return [inner for inner in found if is_entry(inner)]


def _with_stand_ins(entry: Config) -> Config:
    """A layer with others in place of those inside, so that nothing is said of them again."""
    config = dict(entry["config"])
    kind = entry["class_name"]
    if kind in keras2.MODELS:
        return {"class_name": "Activation", "config": {"name": name_of(entry), "activation": None}}
    for key in NESTED:
        if is_entry(config.get(key)):
            config[key] = _stand_in(kind, key, config[key]["config"])
    if isinstance(config.get("cells"), list):
        config["cells"] = [_stand_in(kind, f"cells{k}", {}) for k in range(len(config["cells"]))]
    return {**entry, "config": config}


def _stand_in(outer: str, key: str, config: Config) -> Config:
    settings: Config = {"name": key, "units": 1}
    kind = "Dense"
    if key.startswith("cell"):
        kind = "SimpleRNNCell"
    elif outer == "Bidirectional":
        kind = "SimpleRNN"
        flags = ("return_sequences", "return_state", "stateful", "go_backwards")
        settings |= {name: config[name] for name in flags if isinstance(config.get(name), bool)}
    module = {"module": "keras.layers", "registered_name": None}
    return {**module, "class_name": kind, "config": settings}


def _without(entry: Config, name: str) -> Config:
    config = {key: value for key, value in entry["config"].items() if key != name}
    return {**entry, "config": config}


def _is_unknown(entry: Config) -> bool:
    kind = entry["class_name"]
    known = kind in LAYERS or kind in (*keras2.MODELS, *keras2.CUDNN, INPUT)
    return kind in CODE or not known


def _said(entry: Config, message: str) -> str:
    """A complaint, without the list of all layers that there are."""
    message = _bare(message, f"{entry['class_name']} {shown(name_of(entry))}: ")
    head, cut, _ = message.partition("; expected one of SimpleRNN")
    if not cut:
        head, cut, _ = message.partition("; expected one of ops.")
    return f"{head}{hint(entry['class_name'])}" if cut and _is_unknown(entry) else message


def _bare(message: str, who: str) -> str:
    """A complaint without where it is made, which is told beside it."""
    while (shorter := message.removeprefix("config: ").removeprefix(who)) != message:
        message = shorter
    return message


def _parts(value: Any) -> int:
    """How many values a config has."""
    inside = value.values() if isinstance(value, dict) else value
    return 1 + sum(map(_parts, inside)) if isinstance(value, dict | list) else 1


def of_model(contents: Contents) -> list[Problem]:
    """What is wrong with a model whose layers are right, one by one."""
    assert contents.config is not None
    try:
        with within("config", RecursionError):
            keras3.model(contents.upgrade(copy.deepcopy(contents.config)))
    except FileError as error:
        return [Problem("", _bare(str(error), "config: "))]
    return []


# --- weights ---


def of_arrays(where: dict[Path, str], arrays: dict[Path, Stored]) -> list[Problem]:
    """Arrays that cannot be read, or with numbers that are not finite.

    where  the layer that each array is of
    """
    found = []
    for path, stored in arrays.items():
        name = shown("/".join(path))
        if stored.complaint is not None:
            found.append(Problem(where.get(path, ""), f"array {stored.complaint}"))
        if stored.bad:
            found.append(
                Problem(
                    where.get(path, ""),
                    f"array {name} {stored.shape} has {stored.bad} numbers that are not finite,"
                    f" the first {stored.first}",
                )
            )
    return found


def of_layer(contents: Contents, kind: str, layer: Layer, places: list[Path]) -> str | None:
    """Why a layer cannot take its arrays; what `of_arrays` says is left out."""
    try:
        named, found = contents.weights.taken(kind, layer, places)
        weights.assign(named, [[_finite(array) for array in arrays] for arrays in found])
    except FileError as error:
        return _bare(str(error), f"{layer.who}: ")
    return None


def _finite(array: Any) -> Any:
    kind = array.dtype.kind
    return np.nan_to_num(array, nan=0, posinf=0, neginf=0) if kind == "f" else array
