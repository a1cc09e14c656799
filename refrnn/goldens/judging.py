"""A recording held against refrnn: its steps within the bound, wrong conventions far beyond it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refrnn import verify
from refrnn.backward import gradients
from refrnn.engines import run
from refrnn.formats import PRODUCTS
from refrnn.gates import Array
from refrnn.goldens.recording import WEIGHTS, Given, Recording, Variant
from refrnn.reference import QUIET
from refrnn.verify.chunks import pieces
from refrnn.verify.compare import largest_difference, same_bits
from refrnn.verify.conventions import catalogue
from refrnn.verify.fits import fit
from refrnn.verify.precisions import PRECISIONS
from refrnn.verify.scene import scene
from refrnn.verify.subject import Subject, in_time, subject

FAR = 100.0  # bounds that a wrong convention must be off by, or a recording would not show it
# Aspects of `verify.explain` that are no conventions but ways to round.
ROUNDING = ("precision", "stored weights", "stored input")
EXACT = ("float64", "float32")
# What no row with a length can show, because it is the same function of such rows: forwards, and
# where the padding is met first and nothing has been emitted yet.
SAME = {
    False: {
        "the mask is taken for lengths: as many first steps are live",
        "holes in the mask are filled: steps up to the last live one are run",
    },
    True: {"masked steps repeat the last output"},
}
# What gradients may be off by, relative in the 2-norm. There is no envelope for them: these are 20
# and more times what float32, and products in TF32 and bfloat16, are off by, and a wrong convention
# is off by 0.1 and more.
GRADIENTS = {
    "float64": 1e-11,
    "float32": 2e-5,
    "tf32": 5e-3,
    "tf32 cut": 1e-2,
    "float16 products": 5e-3,
    "float16": 1e-2,
    "bfloat16 products": 4e-2,
    "bfloat16": 8e-2,
}


@dataclass(frozen=True)
class Verdict:
    """One variant, judged.

    margin     the worst |error| / bound (S) of its steps, whole and in every chunking
    fits       the precisions that the whole run fits, finest first
    own        the same of refrnn's own steps in that arithmetic (where gates are rounded to 16 bits
               too, in that of the products alone)
    same_bits  whether refrnn's chunked runs have the bits of its whole one
    apart      the largest difference between refrnn's run and the recorded one, relative to the
               largest magnitude
    gradients  by name, the distance from refrnn's in float64, relative in the 2-norm
    note       what differs first
    """

    title: str
    precision: str
    margin: float
    fits: Sequence[str]
    own: float
    same_bits: bool
    apart: float
    gradients: dict[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def agrees(self) -> bool:
        allowed = GRADIENTS[self.precision]
        return (
            max(self.margin, self.own) <= 1
            and self.same_bits
            and all(off <= allowed for off in self.gradients.values())
        )


def judge(recording: Recording) -> list[Verdict]:
    """Every variant of a recording held to the bound of its arithmetic, and refrnn beside it."""
    return [_judged(recording.given, variant) for variant in recording.variants]


def _judged(given: Given, variant: Variant) -> Verdict:
    dtype = _dtype(variant)
    layer = given.built(dtype)

    def report(outputs: Any, precision: str) -> verify.Report:
        inputs = (given.x, given.state, given.mask)
        return verify.check(outputs, layer, *inputs, chunks="whole", precision=precision)

    reports = [report(run, variant.precision) for run in (variant.outputs, *variant.chunked)]
    products = _products(variant)
    arithmetic = products or variant.precision
    what = subject(layer)
    own = [_own(what, given, products, sizes) for sizes in (None, *given.cuttings)]
    shown = {name: variant.outputs[name].astype(dtype) for name in own[0]}
    broken = next((r for r in reports if not r.passed), None)
    return Verdict(
        variant.title,
        variant.precision,
        max(_worst(r) for r in reports),
        reports[0].fits,
        max(_worst(report(run, arithmetic)) for run in own),
        all(same_bits(run, own[0]) for run in own),
        largest_difference(own[0], shown).error,
        _off(given, variant),
        str(broken.first) if broken is not None and broken.first is not None else "",
    )


def _dtype(variant: Variant) -> str:
    return "float64" if variant.precision == "float64" else "float32"


def _products(variant: Variant) -> str | None:
    """The arithmetic in which `refrnn.run` comes nearest to the variant."""
    for name in (variant.precision, f"{variant.precision} products"):
        if name in PRODUCTS:
            return name
    return None


def _worst(report: verify.Report) -> float:
    return max(report.margins.values())


def _own(
    what: Subject, given: Given, precision: str | None, sizes: Sequence[int] | None
) -> dict[str, Array]:
    """refrnn's run, whole or in chunks that hand on the state, by the names of the outputs."""
    tasks = what.tasks(given.x, given.state, given.mask)
    found: dict[str, Array] = {}
    ys = []
    for part, task in zip(what.parts, tasks, strict=True):
        T = task.xs.shape[1]
        outputs, state = [], task.state
        for piece in pieces(T, [T] if sizes is None else sizes):
            y, state = run(
                part.cell,
                part.weights,
                task.xs[:, piece],
                state,
                mask=None if task.mask is None else task.mask[:, piece],
                zero_output_for_mask=True,
                precision=precision,
            )
            outputs.append(y)
        ys.append(in_time(np.concatenate(outputs, axis=1), part.turned))
        way = f"{part.way}." if part.way else ""
        found |= {way + name: array for name, array in state._asdict().items()}
    return {"y": np.concatenate(ys, axis=-1), **found}


def _off(given: Given, variant: Variant) -> dict[str, float]:
    """How far recorded gradients are from refrnn's in float64."""
    if not variant.gradients:
        return {}
    what = subject(given.built("float64"))
    (part,) = what.parts
    (task,) = what.tasks(given.x, given.state, given.mask)
    own = gradients(
        part.cell,
        part.weights,
        task.xs,
        given.dy,
        task.state,
        mask=task.mask,
        zero_output_for_mask=True,
    )
    want = {"x": in_time(own.dxs, part.backwards), **own.dstate._asdict()}
    want |= {name: getattr(own, f"d{name}") for name in WEIGHTS}
    return {name: _distance(array, want[name]) for name, array in variant.gradients.items()}


def _distance(got: Array, want: Array) -> float:
    size = float(np.linalg.norm(want.ravel()))
    return float(np.linalg.norm((got - want).ravel())) / (size or 1.0)


def distances(given: Given, variant: Variant) -> dict[str, float]:
    """By wrong convention, how many bounds (S) the variant's whole run is off from it at most.

    All that `verify.explain` tries, but for the rare ones, those that only round otherwise, and
    those that are the same function of rows with a length; of a Bidirectional each half for itself.
    """
    precision = PRECISIONS[variant.precision]
    what = subject(given.built(_dtype(variant))).stored_as(precision)
    tasks = what.tasks(given.x, given.state, given.mask)
    found: dict[str, float] = {}
    for part, task, seen in zip(what.parts, tasks, what.seen(variant.outputs), strict=True):
        base = scene(task, seen, precision)
        for edit in catalogue(base, part.backwards, part.turned):
            rounds = edit.aspect in ROUNDING or "rounded" in edit.name
            if edit.rare or rounds or edit.name in SAME[part.backwards]:
                continue
            changed = edit.apply(base)
            if changed is not None:
                with QUIET():
                    found[f"{part.way}: {edit.name}".removeprefix(": ")] = fit(changed).worst
    return found


def unseen(recordings: Iterable[Recording]) -> dict[str, float]:
    """The wrong conventions that none of these recordings is FAR off from, and how far at most.

    A convention is named after its layer. Variants in float32 and float64 are asked, others are no
    evidence of what they mean: products in TF32 hide differences of 1e-3.
    """
    found: dict[str, float] = {}
    for recording in recordings:
        for variant in recording.variants:
            if variant.precision in EXACT:
                for name, far in distances(recording.given, variant).items():
                    key = f"{recording.given.layer}: {name}"
                    found[key] = max(far, found.get(key, 0.0))
    return {name: far for name, far in found.items() if far < FAR}
