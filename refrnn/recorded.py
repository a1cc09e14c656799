"""Recorded outputs of anything, for `refrnn verify --against` and `refrnn explain`.

No other library is needed: refrnn reads the model, NumPy the arrays.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refrnn import files, verify
from refrnn.gates import Array
from refrnn.jobs import CannotJudge, one_line
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


def model(path: Path) -> Any:
    """A model from any file that refrnn reads, or CannotJudge."""
    try:
        return files.load_model(path)
    except OSError as error:
        raise CannotJudge(f"{path}: {error.strerror or error}") from None
    except (ValueError, TypeError, ImportError) as error:
        raise CannotJudge(str(error)) from None


def arrays(path: Path, only: str) -> dict[str, Array]:
    """The arrays of a .npz by name, or that of a .npy, called `only`; or CannotJudge."""
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            alone = isinstance(loaded, np.ndarray)
            found = {only: loaded} if alone else {n: np.asarray(loaded[n]) for n in loaded.files}
    except OSError as error:
        raise CannotJudge(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # NumPy raises many kinds for a file that is not what it seems
        raise CannotJudge(f"{path}: cannot be read as .npy or .npz: {one_line(error)}") from None
    wrong = [f"{n} of {a.dtype}" for n, a in found.items() if a.dtype.kind not in "fiub"]
    if wrong or not found:
        void = any(array.dtype.kind == "V" for array in found.values())
        raise CannotJudge(
            f"{path}: holds {', '.join(wrong) or 'nothing'}, expected arrays of numbers, {only}"
            f" first{'; store bfloat16 as float32, NumPy forgets what it is' if void else ''}"
        )
    return found


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
    outputs = arrays(seen, "y")
    inputs: dict[str, Array] = {n: outputs.pop(n) for n in INPUTS if n in outputs}
    inputs |= {} if given is None else arrays(given, "x")
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
) -> "verify.Report | verify.Row":
    """`refrnn verify MODEL --against`.

    A recurrent layer is judged step by step; the outputs of a whole model, whose steps are not
    seen, by a tolerance.
    """
    found = model(source)
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


def _whole_model(title: str, found: Any, given: Path | None, seen: Path) -> verify.Row:
    if given is None:
        raise CannotJudge(f"{seen}: expected the inputs of the model with --input")
    inputs, outputs = arrays(given, "x"), arrays(seen, "y")
    try:
        x = found.arrays(inputs["x"] if list(inputs) == ["x"] else inputs)
        own = flat(found(x if len(x) > 1 else x[0]))
        theirs = _renamed(outputs, own)
        (row,) = verify.judge_model(title, found, x, {seen.name: lambda: theirs}, [])
    except (ValueError, TypeError) as error:
        raise CannotJudge(f"{seen}: {error}") from None
    return row


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
    what = recording(source, model(source), layer, given, seen)
    try:
        return verify.explain(what.outputs, what.layer, what.x, what.state, what.mask)
    except (ValueError, TypeError) as error:
        raise CannotJudge(f"{seen}: {error}") from None
