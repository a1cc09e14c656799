"""Where tf.js masks other steps than Keras and refrnn do, found in the config of a model.

tf.js passes masks on through other layers, and the last mask that a layer was given is left for
every layer after it that has none. A mask is called here after the layer that computed it. A layer
that would use two different ones, or one in two different ways, is refused.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from refrnn.files.errors import FileError, shown
from refrnn.files.graph import TENSOR
from refrnn.files.keras2 import MODELS, RECURRENT, STATES

# who passes a mask on
BOTH = (
    "Dense", "Dropout", "SpatialDropout1D", "Activation", "ReLU", "PReLU", "BatchNormalization",
    "LayerNormalization", "TimeDistributed",
)  # fmt: skip
ONLY_REFRNN = ("LeakyReLU", "ELU", "Softmax")
OTHERWISE = ("Add", "Subtract", "Average", "Multiply", "Maximum", "Minimum")
COMBINE = ("Concatenate", *OTHERWISE)
# who uses one where tf.js does not
USED = ("GlobalAveragePooling1D", "Multiply", "Maximum", "Minimum")

Mask = str | None  # the name of the layer that computed it
Call = tuple[str, int]


class Masks(NamedTuple):
    """The mask of an array in tf.js and in refrnn."""

    tfjs: Mask
    refrnn: Mask


class Step(NamedTuple):
    """A call of a layer: where its first argument comes from, and where any of them does."""

    entry: dict[str, Any]
    call: Call
    first: list[Call]
    parents: list[Call]
    has_state: bool


def masked(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The recurrent layers that have a mask, the same in tf.js and in refrnn.

    config  of a model, in the words of Keras 3, its references checked

    Raises FileError for a layer whose mask, or what it does with it, is another in tf.js.
    """
    return _flow(config)[0]


def zeroed(entry: dict[str, Any]) -> bool:
    """Whether Keras gives zeros at masked steps, where tf.js repeats the last output."""
    settings = recurrent(entry)
    if entry["class_name"] == "Bidirectional":
        return bool(settings.get("return_sequences"))
    return bool(settings.get("zero_output_for_mask"))


def recurrent(entry: dict[str, Any]) -> dict[str, Any]:
    """The settings of a recurrent layer, for Bidirectional those of the layer inside."""
    config: dict[str, Any] = entry["config"]
    return config["layer"]["config"] if entry["class_name"] == "Bidirectional" else config


def _flow(config: dict[str, Any]) -> tuple[list[dict[str, Any]], Mask]:
    """What `masked` returns, and the mask that refrnn gives to the last output."""
    steps = _ordered(list(_steps(config)))
    needed: dict[Call, set[Call]] = {}  # by each call, directly or not
    masks: dict[Call, Masks] = {}
    found: list[dict[str, Any]] = []
    for step in steps:
        needed[step.call] = set(step.parents).union(*(needed.get(p, ()) for p in step.parents))
    makers = [s for s in steps if _makes_masks(s.entry) or s.entry["class_name"] in COMBINE]
    makers = makers if any(_makes_masks(s.entry) for s in makers) else []
    last: Mask = None
    for step in steps:
        given = [masks[call] for call in step.first if call in masks]
        mask = Masks(
            next((m.tfjs for m in given if m.tfjs), None),
            next((m.refrnn for m in given if m.refrnn), None),
        )
        left = [s.call[0] for s in makers if s is not step and step.call not in needed[s.call]]
        _check(step, mask if mask.tfjs else Masks(" or ".join(left) or None, mask.refrnn))
        kind, inside = step.entry["class_name"], None
        if kind in MODELS:
            more, inside = _flow(step.entry)
            found += more
        if kind in RECURRENT and any(mask):
            found.append(step.entry)
        masks[step.call] = _passed(step.entry, mask, inside)
        last = masks[step.call].refrnn
    return found, last


def _check(step: Step, given: Masks) -> None:
    kind, settings = step.entry["class_name"], recurrent(step.entry)
    who = f"{kind} {shown(step.call[0])}"
    if kind in RECURRENT:
        if given.tfjs != given.refrnn:
            raise FileError(
                f"{who} is given the mask of {given.tfjs} by tf.js and the mask of {given.refrnn}"
                " by refrnn, expected the same, because the numbers would differ"
            )
        if given.tfjs and (settings.get("stateful") or step.has_state):
            raise FileError(
                f"{who} has the mask of {given.tfjs}, and a state to begin with, expected one of"
                " them, because at masked steps before the others tf.js returns the state and"
                " refrnn zeros"
            )
        return
    differs = kind == "Softmax" or (kind in (*MODELS, "TimeDistributed") and _has_users(step.entry))
    if (differs and any(given)) or (kind in USED and given.refrnn):
        raise FileError(
            f"{who} is given the mask of {given.refrnn or given.tfjs}, expected none, because tf.js"
            " and refrnn do not do the same with it"
        )


def _passed(entry: dict[str, Any], given: Masks, inside: Mask) -> Masks:
    """The masks of what a layer returns; `inside` is that of a model's own output."""
    kind, name = entry["class_name"], entry["config"]["name"]
    if kind not in MODELS and _makes_masks(entry):
        return Masks(name, name)
    if kind in BOTH or (kind in RECURRENT and recurrent(entry).get("return_sequences")):
        return given
    if kind == "Concatenate" and any(given):
        return Masks(name, name) if entry["config"].get("axis", -1) == -1 else Masks(None, name)
    if kind in OTHERWISE and any(given):
        return Masks(f"{name} (as tf.js combines masks)", name)
    return Masks(None, given.refrnn if kind in ONLY_REFRNN else inside)


def _makes_masks(entry: dict[str, Any]) -> bool:
    if entry["class_name"] in MODELS:
        return any(map(_makes_masks, entry["config"]["layers"]))
    return entry["class_name"] == "Masking" or bool(entry["config"].get("mask_zero"))


def _has_users(entry: dict[str, Any]) -> bool:
    """Whether a layer, or one inside it, uses masks."""
    inside = entry["config"].get("layers", [entry["config"].get("layer")])
    return entry["class_name"] in (*RECURRENT, *USED, "Softmax") or any(
        _has_users(part) for part in inside if part is not None
    )


# --- the calls of a config ---


def _steps(config: dict[str, Any]) -> Iterator[Step]:
    entries = [e for e in config["config"]["layers"] if e["class_name"] != "InputLayer"]
    if config["class_name"] == "Sequential":
        parents: list[Call] = []
        for entry in entries:
            call = (entry["config"]["name"], 0)
            yield Step(entry, call, parents, parents, False)
            parents = [call]
        return
    for entry in entries:
        for k, node in enumerate(entry["inbound_nodes"]):
            args, kwargs = node["args"], node["kwargs"]
            first = _references(args[:1] or list(kwargs.values())[:1])
            has_state = bool(_references([args[1:2], kwargs.get(STATES)]))
            everything = _references([args, kwargs])
            yield Step(entry, (entry["config"]["name"], k), first, everything, has_state)


def _references(value: Any) -> list[Call]:
    if isinstance(value, dict) and value.get("class_name") == TENSOR:
        layer, call, _ = value["config"]["keras_history"]
        return [(layer, call)]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [call for part in parts for call in _references(part)]


def _ordered(steps: list[Step]) -> list[Step]:
    """The steps, each after those that it needs."""
    waiting = {step.call: step for step in steps}
    done: list[Step] = []
    while waiting:
        ready = [s for s in waiting.values() if not any(p in waiting for p in s.parents)]
        done += ready
        for step in ready:
            del waiting[step.call]
    return done
