"""The rows of the table of layers: of what could be made, and of what is only described."""

from collections.abc import Sequence
from typing import Any

from refrnn.activations import Activation
from refrnn.files.errors import clip
from refrnn.files.inspection.contents import Config, Stored
from refrnn.files.inspection.diagnosis import INPUT, children, name_of
from refrnn.files.inspection.report import LayerInfo, Shape
from refrnn.files.keras3 import is_entry
from refrnn.layers import Layer, StackedRNNCells
from refrnn.layers.recurrent import Recurrent
from refrnn.layers.rnn import RNN
from refrnn.models import MODELS, Model

FLAGS = (
    "return_sequences", "return_state", "go_backwards", "stateful", "unroll",
    "zero_output_for_mask", "mask_zero", "time_major",
)  # fmt: skip
NUMBERS = ("dropout", "recurrent_dropout", "rate", "mask_value")
# what a setting is where nothing needs to be said of it
USUAL: dict[str, tuple[Any, ...]] = {
    "use_bias": (True,),
    "trainable": (True,),
    "merge_mode": ("concat",),
    "recurrent_activation": ("sigmoid",),
}


def of_layer(
    kind: str,
    layer: Layer,
    returned: dict[int, list[Shape]],
    stored: list[Stored] | None,
    default: list[Shape],
) -> LayerInfo:
    """A layer that could be made; stored: its arrays, None where they are those of one around."""
    unknown: list[Shape] = [None] if isinstance(layer, Model) else []  # of what stands in a wrapper
    inside = [of_layer(_kind(x), x, returned, None, unknown) for x in _inside(layer)]
    if stored is not None:
        counts: tuple[int | None, int | None] = _counts(stored)
    elif layer.built:
        counts = layer.count_params(), sum(w.nbytes for w in layer.weights)
    else:
        counts = None, None
    config = {} if isinstance(layer, Model) or layer.IS_CUSTOM else layer.get_config()
    found = returned.get(id(layer), default)
    found = default if found == [None] else found
    dtype = "" if isinstance(layer, Model) else layer.dtype.name
    settings = _settings(kind, config, 3)
    return LayerInfo(layer.name, kind, found, counts[0], counts[1], dtype, settings, inside)


def _counts(stored: Sequence[Stored]) -> tuple[int, int]:
    return sum(one.size for one in stored), sum(one.bytes for one in stored)


def _kind(layer: Layer) -> str:
    return "Functional" if type(layer) is Model else type(layer).__name__


def _inside(layer: Layer) -> list[Layer]:
    """The layers and cells that a layer was made with; those of an LSTM say nothing more."""
    if isinstance(layer, Model):
        return layer.layers
    if isinstance(layer, Recurrent):
        return []
    if type(layer) is RNN and isinstance(layer.cell, StackedRNNCells):
        return [cell for cell in layer.cell.cells if isinstance(cell, Layer)]
    return [inner for _, inner in layer.parts()] or [
        inner for name in ("layer",) if isinstance(inner := vars(layer).get(name), Layer)
    ]


def of_entry(
    entry: Config, generation: int | None, stored: list[Stored] | None, found: list[Shape]
) -> LayerInfo:
    """A layer that could not be made, as the file describes it."""
    kind, config = entry["class_name"], entry["config"]
    unknown: list[Shape] = [None] if kind in (*MODELS, "Model") else []
    inside = [
        of_entry(inner, generation, None, unknown)
        for inner in children(entry)
        if inner["class_name"] != INPUT
    ]
    counts: tuple[int | None, int | None] = (None, None) if stored is None else _counts(stored)
    dtype = config.get("dtype")
    if isinstance(dtype, dict):
        policy = dtype.get("config")
        dtype = policy.get("name") if isinstance(policy, dict) else None
    settings = _settings(kind, config, generation)
    said = dtype if isinstance(dtype, str) else ""
    return LayerInfo(name_of(entry), kind, found, counts[0], counts[1], said, settings, inside)


def _settings(kind: str, config: Config, generation: int | None) -> dict[str, Any]:
    """Those that are worth a word; hard_sigmoid under the name that it has in refrnn."""
    found: dict[str, Any] = {name: True for name in FLAGS if config.get(name) is True}
    found |= {name: config[name] for name in NUMBERS if config.get(name)}
    for name, usual in USUAL.items():
        if name in config and config[name] not in usual:
            found[name] = config[name]
    recurrent = "recurrent_activation" in config or "recurrent_initializer" in config
    if config.get("activation") not in (None, "linear", *(["tanh"] if recurrent else [])):
        found["activation"] = config["activation"]
    if kind in ("GRU", "GRUCell") and not config.get("reset_after", generation == 3):
        found["reset_after"] = False
    for name, value in found.items():
        if name.endswith("activation") and value == "hard_sigmoid" and generation == 2:
            found[name] = "hard_sigmoid_keras2"
        elif is_entry(value):
            found[name] = f"a {value['class_name']}"
        elif isinstance(value, dict | list):
            found[name] = clip(repr(value))
        elif isinstance(value, Activation):
            found[name] = value.name
    return found


def hard_sigmoids(rows: Sequence[LayerInfo]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        for name, value in row.settings.items():
            if name.endswith("activation") and str(value).startswith("hard_sigmoid"):
                found.setdefault(str(value), []).append(row.name)
        for function, users in hard_sigmoids(row.inside).items():
            found.setdefault(function, []).extend(users)
    return {function: list(dict.fromkeys(users)) for function, users in found.items()}
