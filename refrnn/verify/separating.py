"""Inputs, and weights if need be, on which explanations that fit alike give different numbers."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from refrnn.cells import Weights
from refrnn.verify.conventions import applied
from refrnn.verify.fits import fit
from refrnn.verify.scene import Scene, filled, scene
from refrnn.verify.search import Edits
from refrnn.verify.tasks import Seen, Task

SCALES = (1.0, 8.0, 1e5)  # of inputs: the usual, the saturated, what float16 cannot hold
UNLIKE = 6  # explanations that are told apart at most


def separating(base: Scene, fitting: Sequence[Edits]) -> dict[str, Any] | None:
    """Arrays on which explanations that fit give different numbers, as many as can be told apart.

    "x", "state" (a list) and "mask" (or None), in the order of processing of `base`, and "weights",
    None where those at hand will do. Each explanation is run on them, and none of the others fits
    what comes out. None where nothing was found that tells the first from all others.
    """
    several = list(fitting[:UNLIKE])
    best: tuple[int, dict[str, Any] | None] = (0, None)
    for weights in (None, _lively(base)):
        for seed, scale in enumerate(SCALES):
            trial = _trial(base, weights, scale, seed)
            count = _told_apart(trial, several)
            if count > best[0]:
                best = count, _arrays(trial, weights)
            if count == len(several) - 1:
                return best[1]
        if best[1] is not None:
            return best[1]
    return best[1]


def _lively(base: Scene) -> Weights:
    """The same shapes, and no two numbers alike."""
    rng = np.random.default_rng(0)
    K, U, b = base.weights
    spread = [rng.normal(0, 1 / np.sqrt(len(a)), a.shape) for a in (K, U)]
    return Weights(*(a.astype(np.float32) for a in (*spread, rng.uniform(-0.5, 0.5, b.shape))))


def _trial(base: Scene, weights: Weights | None, scale: float, seed: int) -> Scene:
    rng = np.random.default_rng(seed)
    B, T = 3, 7
    F, H = len(base.weights.kernel), len(base.weights.recurrent_kernel)
    x = (scale * rng.normal(size=(B, T, F))).astype(np.float32)
    state = [rng.uniform(-0.9, 0.9, (B, H)).astype(np.float32) for _ in base.state]
    mask = None
    if base.mask is not None:
        mask = rng.random((B, T)) < 0.6
        mask[:, 2] = True
    task = Task(
        base.cell,
        base.weights if weights is None else weights,
        x,
        base.cell.State(*state),
        mask,
        emits_zeros=base.emits == "zeros",
    )
    return scene(task, Seen(np.zeros((B, T, H))), base.precision)


def _told_apart(trial: Scene, several: Sequence[Edits]) -> int:
    """How many of the others do not fit the first's numbers, nor the first theirs."""

    def answer(edits: Edits) -> Scene | None:
        """The trial with the outputs that an explanation gives."""
        empty = replace(trial, y=np.zeros_like(trial.y))
        changed = applied(edits, empty)
        if changed is None:
            return None
        filled(changed)
        return replace(trial, y=empty.y)

    def explains(edits: Edits, seen: Scene | None) -> bool:
        changed = None if seen is None else applied(edits, seen)
        return changed is not None and fit(changed).fits

    first, *others = several
    shown = answer(first)
    return sum(
        not explains(edits, shown) and not explains(first, answer(edits)) for edits in others
    )


def _arrays(trial: Scene, weights: Weights | None) -> dict[str, Any]:
    return {
        "x": trial.xs.astype(np.float32),
        "state": [part.astype(np.float32) for part in trial.state],
        "mask": trial.mask,
        "weights": weights,
    }
