"""Other rules for masked steps."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from refrnn.gates import Array
from refrnn.verify.conventions.edit import Edit
from refrnn.verify.scene import Scene
from refrnn.verify.tasks import Task

CPU = "repeat the last output, as Keras does on the CPU"
CUDNN = "emit zeros, as cuDNN does"


def other_contract(task: Task, y: Array) -> str | None:
    """Says so where masked steps follow the other of two contracts in every bit: cuDNN's or the
    CPU's, which share the states. None where they follow neither, or where it cannot be told.

    y  (B, T, H), in the order of processing
    """
    if task.mask is None or task.mask.all():
        return None
    last = np.zeros_like(y[:, 0]) if task.last_output is None else task.last_output
    kept = np.empty_like(y)
    for t in range(y.shape[1]):
        last = np.where(task.mask[:, t, None], y[:, t], last)
        kept[:, t] = last
    masked = ~task.mask
    zeros, repeats = not y[masked].any(), np.array_equal(y[masked], kept[masked])
    if zeros == repeats or zeros == task.emits_zeros:
        return None
    does, wanted = (CUDNN, CPU) if zeros else (CPU, CUDNN)
    return (
        f"masked steps {does}; the reference was told to {wanted}: compare with a layer that has"
        f" zero_output_for_mask={zeros}"
    )


def masks(base: Scene) -> Iterator[Edit]:
    if base.mask is None:
        return
    other = {"held": "zeros", "zeros": "held"}[base.emits] if base.emits != "computed" else "held"
    say = {
        "held": "repeat the last output",
        "zeros": "emit zeros",
        "computed": "emit what they compute",
    }

    def mask(change: Callable[[Array], Array | None]) -> Any:
        return lambda s: None if s.mask is None else replace(s, mask=change(s.mask))

    def emits(kind: str, *runs_on: str) -> Any:
        return lambda s: replace(s, emits=kind, runs_on=frozenset(runs_on))

    yield Edit("mask", "the mask is ignored", mask(lambda m: None))
    yield Edit("mask", "the mask is inverted", mask(lambda m: ~m))
    yield Edit("mask", f"masked steps {say[other]}", emits(other))
    yield Edit("mask", f"masked steps {say['computed']}, the state is held", emits("computed"))
    yield Edit(
        "mask",
        "masked steps emit the state, before the first live one as well",
        emits("state"),
        rare=True,
    )
    if base.cell.name == "lstm":
        yield Edit("mask", "c runs on through masked steps, h is held", emits(base.emits, "c"))
        yield Edit("mask", "h runs on through masked steps, c is held", emits(base.emits, "h"))
    for kind in (base.emits, other):
        yield Edit(
            "mask",
            f"the state runs on through masked steps, which {say[kind]}",
            emits(kind, "h", "c"),
        )
    yield Edit(
        "mask",
        "the first row's mask is used for all rows",
        mask(lambda m: np.repeat(m[:1], len(m), axis=0)),
    )
    yield Edit(
        "mask",
        "a step that is masked in one row is masked in all",
        mask(lambda m: np.repeat(m.all(0, keepdims=True), len(m), axis=0)),
    )
    yield Edit("mask", "the mask is flipped in time", mask(lambda m: m[:, ::-1]))
    yield Edit("mask", "masked steps clear the state", lambda s: replace(s, clears=True))
    yield Edit(
        "mask",
        "the mask is one step late",
        mask(lambda m: np.concatenate([m[:, :1], m[:, :-1]], axis=1)),
    )
    yield Edit(
        "mask",
        "the mask is taken for lengths: as many first steps are live",
        mask(lambda m: np.arange(m.shape[1]) < m.sum(1, keepdims=True)),
    )
    yield Edit(
        "mask",
        "holes in the mask are filled: steps up to the last live one are run",
        mask(lambda m: np.logical_or.accumulate(m[:, ::-1], axis=1)[:, ::-1]),
    )
