"""Recorded outputs of anything, for `refrnn verify --against` and `refrnn explain`.

No other library is needed: refrnn reads the model, NumPy the arrays.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from refrnn import reading, verify
from refrnn.commands import CannotJudge
from refrnn.gates import Array
from refrnn.models import Model
from refrnn.verify.chunks import flat
from refrnn.verify.subject import Subject, subject

STATES = {"h": "h0", "c": "c0"}  # the first state, as a recording names it
INPUTS = "x", "mask", *STATES.values()


class Recording(NamedTuple):
    """What a recurrent layer was given, and what another implementation of it put out."""

    layer: Subject
    outputs: dict[str, Array]
    x: Array
    state: list[Array] | None
    mask: Array | None


def recording(
    source: Path, found: Any, layer: str | None, given: Path | None, seen: Path
) -> Recording:
    """A recurrent layer of a model, what went into it and what came out.

    source  the file that it was read from
    found   the model
    layer   its name; None for a model that is nothing else
    given   .npy with x, or .npz with x and, where they were used, h0, c0 and mask; None where those
            stand in `seen` too
    seen    .npy with y, or .npz with y and what else the implementation shows
    """
    try:
        what = subject(found if layer is None else found.get_layer(layer))
    except (ValueError, TypeError) as error:
        names = ", ".join(part.name for part in found.layers)
        hint = "" if layer else f"; name a recurrent layer of it with --layer: {names}"
        raise CannotJudge(f"{source}: {error}{hint}") from None
    outputs = reading.arrays(seen, "y")
    inputs: dict[str, Array] = {n: outputs.pop(n) for n in INPUTS if n in outputs}
    inputs |= {} if given is None else reading.arrays(given, "x")
    unknown = sorted(set(inputs) - set(INPUTS))
    if unknown or "x" not in inputs:
        raise CannotJudge(
            f"{given or seen}: arrays are {sorted(inputs)}, expected x and, where they were used,"
            " h0, c0 and mask"
        )
    x, mask = inputs["x"], inputs.get("mask")
    state = None
    own = {STATES[name] for name in what.parts[0].states}
    there = set(inputs) & set(STATES.values())
    if there not in (set(), own):
        raise CannotJudge(
            f"{given or seen}: has {' and '.join(sorted(there))} of a first state, expected"
            f" {' and '.join(sorted(own))} or none, because that is the state of {what.who}"
        )
    if there:
        state = [inputs[STATES[name]] for name in what.parts[0].states]
    return Recording(what, outputs, x, state, None if mask is None else mask != 0)


def judge(
    source: Path, layer: str | None, given: Path | None, seen: Path
) -> "verify.Report | list[verify.Row]":
    """`refrnn verify MODEL --against`.

    A recurrent layer is judged step by step; the outputs of a whole model, whose steps are not
    seen, by a tolerance.
    """
    found = reading.model(source)
    if layer is None:
        try:
            subject(found)
        except (ValueError, TypeError):
            return _whole_model(source.name, found, given, seen)
    what = recording(source, found, layer, given, seen)
    try:
        return verify.check(what.outputs, what.layer, what.x, what.state, what.mask)
    except (ValueError, TypeError) as error:
        raise CannotJudge(f"{seen}: {error}") from None


def _whole_model(title: str, found: Model, given: Path | None, seen: Path) -> list[verify.Row]:
    if given is None:
        raise CannotJudge(f"{seen}: expected the inputs of the model with --input")
    x, outputs = reading.inputs(given, found, given), reading.arrays(seen, "y")
    try:
        own = flat(found(x if len(x) > 1 else x[0]))
        theirs = _renamed(outputs, own)
        return verify.judge_model(title, found, x, {seen.name: lambda: theirs}, [])
    except (ValueError, TypeError) as error:
        raise CannotJudge(f"{seen}: {error}") from None


def _renamed(outputs: Mapping[str, Array], own: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs by the model's names; the only one needs none. Floats in the model's dtype."""
    if len(outputs) == len(own) == 1:
        outputs = dict(zip(own, outputs.values(), strict=True))
    return {
        name: array.astype(own[name].dtype) if name in own and array.dtype.kind == "f" else array
        for name, array in outputs.items()
    }


def explain(
    source: Path, layer: str | None, given: Path | None, seen: Path
) -> "verify.Explanation":
    """`refrnn explain MODEL X OUT`: why a recording differs."""
    what = recording(source, reading.model(source), layer, given, seen)
    try:
        return verify.explain(what.outputs, what.layer, what.x, what.state, what.mask)
    except (ValueError, TypeError) as error:
        raise CannotJudge(f"{seen}: {error}") from None
