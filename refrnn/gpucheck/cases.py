"""What `refrnn gpucheck` runs: few cases in which every two settings meet, and what must not."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, product
from typing import NamedTuple

import numpy as np

from refrnn.cases import Case
from refrnn.oracles.cudnn.fronts import FRONTS, negatives
from refrnn.oracles.cudnn.work import NUMBERS, Work

# B, T, F, H: single steps and long runs, rows that fill no block, and the sizes at which cuDNN and
# PyTorch choose other kernels (128 and 192 units, multiples of 128 for persistent ones)
SHAPES = (
    (1, 1, 1, 1),
    (3, 2, 5, 7),
    (3, 11, 5, 7),
    (8, 11, 5, 64),
    (3, 33, 1, 5),
    (8, 2, 128, 128),
    (3, 11, 5, 128),
    (1, 11, 5, 192),
    (3, 2, 5, 193),
    (8, 11, 128, 256),
    (1, 257, 5, 7),
)
UNEVEN = {2: (1, 1), 11: (3, 1, 7), 33: (10, 1, 22), 257: (100, 57, 100)}
STEPWISE = 33  # steps of the longest run that is also done step by step
REPEATS = 2
# Rows with a length on TensorFlow: there were versions of cuDNN that raced there, now and then
RACY = ("tf", "tf-function")
RACES = 20


class Job(NamedTuple):
    """A work, and the front end that is to do it."""

    front: str
    work: Work


def jobs(fronts: Sequence[str], precisions: Sequence[str]) -> list[Job]:
    """Cases in which every two settings meet that go together, and those that must not arrive.

    The settings are the front end, the precision, the layer, the direction, the shape, the mask and
    the mode; every front end meets every layer in every precision.
    """
    made = [Job(*job) for job in _pairwise(_possible(fronts, precisions))]
    for front in fronts:
        if "float32" in FRONTS[front].precisions and "float32" in precisions:
            made += [
                Job(front, Work(replace(case, dtype="float32"), "float32", on_cudnn=False))
                for _, case in negatives(FRONTS[front])
            ]
    return made


def cuts(steps: int) -> tuple[tuple[int, ...], ...]:
    """Step by step where that is not long, and in uneven chunks."""
    each = ((1,) * steps,) if 1 < steps <= STEPWISE else ()
    uneven = (UNEVEN[steps],) if steps in UNEVEN and UNEVEN[steps] not in each else ()
    return each + uneven


_Settings = tuple[object, ...]


def _possible(
    fronts: Sequence[str], precisions: Sequence[str]
) -> list[tuple[_Settings, str, Work]]:
    """All that each front end can do, with its settings."""
    found: list[tuple[_Settings, str, Work]] = []
    axes = product(
        fronts, precisions, ("SimpleRNN", "LSTM", "GRU"), ("forwards", "backwards", "both"),
        SHAPES, (None, "right"), (False, True),
    )  # fmt: skip
    for settings in axes:
        front, precision, layer, direction, (B, T, F, H), mask, training = settings
        options = {"go_backwards": True} if direction == "backwards" else {}
        case = Case(layer, B, T, F, H, NUMBERS[precision], mask, True, 1.0, len(found), options)
        whole_only = direction == "both" or _flips(front, direction)
        work = Work(
            case,
            precision,
            direction == "both",
            training,
            () if whole_only else cuts(T),
            RACES if mask and front in RACY else REPEATS,
        )
        if FRONTS[front].lacks(work) is None:
            found.append((settings, front, work))
    return found


def _flips(front: str, direction: str) -> bool:
    """Where outputs come in the wrong order, which chunks would each do for themselves."""
    return front == "keras-jax" and direction == "backwards"


def _pairwise(possible: list[tuple[_Settings, str, Work]]) -> list[tuple[str, Work]]:
    """The fewest that are found greedily in which every pair of settings occurs that can.

    The first three settings occur in every triple that can.
    """
    if not possible:
        return []
    numbers: dict[object, int] = {}

    def number(key: object) -> int:
        return numbers.setdefault(key, len(numbers))

    groups = [*combinations(range(7), 2), (0, 1, 2)]
    met = np.array(
        [
            [number((group, *(settings[k] for k in group))) for group in groups]
            for settings, *_ in possible
        ]
    )  # (cases, groups)
    missing = np.ones(len(numbers), bool)
    chosen = []
    while missing.any():
        best = int(missing[met].sum(1).argmax())
        missing[met[best]] = False
        chosen.append(best)
    return [possible[k][1:] for k in sorted(chosen)]


# --- what is recorded ---

# Small enough for files that people keep, large enough to tell wrong conventions apart.
RECORDED = ((3, 11, 5, 7), (2, 33, 24, 40))
DIRECTIONS = ("forwards", "backwards", "both", "lengths")


def recorded(fronts: Sequence[str], precisions: Sequence[str]) -> list[Job]:
    """The same few cases for every front end that can do them, in every precision.

    Those of the first shape in training mode, most with gradients; so the files stay small.
    """
    made = []
    for shape, layer, direction in product(RECORDED, ("LSTM", "GRU", "SimpleRNN"), DIRECTIONS):
        if shape != RECORDED[0] and direction != "forwards":
            continue
        B, T, F, H = shape
        options = {"go_backwards": True} if direction == "backwards" else {}
        mask = "right" if direction == "lengths" else None
        for precision in precisions:
            case = Case(layer, B, T, F, H, NUMBERS[precision], mask, True, 1.0, 7, options)
            work = Work(
                case,
                precision,
                direction == "both",
                shape == RECORDED[0],
                () if mask or direction == "both" else (UNEVEN[T],),
            )
            for front in fronts:
                if FRONTS[front].lacks(work) is None and not _flips(front, direction):
                    made.append(Job(front, work))
    return made
