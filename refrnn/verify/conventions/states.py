"""Other rules for the state: where it starts, whether it is carried on, what is returned."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from refrnn.formats import bfloat16, float16
from refrnn.gates import Array
from refrnn.verify.conventions.edit import Edit
from refrnn.verify.scene import Returns, Scene, Walk


def states(base: Scene) -> Iterator[Edit]:
    def first(change: Callable[[tuple[Array, ...]], tuple[Array, ...]], zeros: bool = False) -> Any:
        def apply(s: Scene) -> Scene | None:
            if not zeros and not any(part.any() for part in s.state):
                return None  # the same as to ignore it
            return replace(s, state=change(s.state))

        return apply

    def carrying(**how: Any) -> Any:
        return lambda s: replace(s, lost=np.arange(s.y.shape[1]) > 0, lost_kept=False, **how)

    def never(s: Scene) -> Scene | None:
        if s.cell.name == "simple" or not any(part.any() for part in s.state):
            return None  # the same as no recurrent sum, or as from the second step on
        return replace(s, lost=np.ones(s.y.shape[1], bool), lost_kept=False)

    lstm = base.cell.name == "lstm"
    yield Edit(
        "first state",
        "the initial state is ignored",
        first(lambda state: tuple(np.zeros_like(p) for p in state), zeros=True),
    )
    yield Edit(
        "first state",
        "the first row's initial state is used for all rows",
        first(lambda state: tuple(np.repeat(p[:1], len(p), axis=0) for p in state)),
    )
    if lstm:
        yield Edit(
            "first state",
            "h and c of the initial state are swapped",
            first(lambda state: state[::-1]),
        )
        yield Edit(
            "first state", "the initial h is ignored", first(lambda state: (0 * state[0], state[1]))
        )
        yield Edit(
            "first state", "the initial c is ignored", first(lambda state: (state[0], 0 * state[1]))
        )
    yield Edit("carrying", "the state is not carried: every step starts from zeros", carrying())
    yield Edit(
        "carrying", "the state is not used: every step starts from zeros, the first as well", never
    )
    yield Edit(
        "carrying",
        "the state is not carried: every step starts from the initial state",
        carrying(restarts=True),
    )
    if lstm:
        for part, other in ("hc", "ch"):
            yield Edit(
                "carrying",
                f"{part} is not carried from step to step, {other} is",
                carrying(lost_parts=frozenset(part)),
            )
    yield Edit(
        "state", "the recurrent product takes h of two steps before", lambda s: replace(s, lag=2)
    )


def lost_at(steps: Sequence[int], parts: str, restarts: bool, said: str, kept: bool = True) -> Edit:
    """The state, or a part of it, is lost before some steps; `kept` where they are masked, too."""

    def apply(s: Scene) -> Scene | None:
        T = s.y.shape[1]
        if steps[-1] >= T:
            return None
        lost = np.zeros(T, bool)
        lost[list(steps)] = True
        return replace(s, lost=lost, lost_parts=frozenset(parts), lost_kept=kept, restarts=restarts)

    what = {"hc": "the state", "h": "h", "c": "c"}[parts]
    start = "the initial state again" if restarts else "zeros"
    masked = "" if kept else ", where they are not masked"
    name = f"{what} is not carried into {said}{masked}: it starts from {start}"
    return Edit("carrying", name, apply)


def _each(change: Callable[[Array], Array]) -> Returns:
    return lambda w, first: {name: change(part) for name, part in w.after.items()}


def _at(w: Walk, step: int) -> dict[str, Array]:
    """The state before a step."""
    parts = (w.h,) if w.c is None else (w.h, w.c)
    if w.h.shape[1] < 2:
        return w.after
    return {name: part[:, step] for name, part in zip(w.after, parts, strict=True)}


RETURNS: dict[str, Returns] = {
    "the returned state is that before the last step": lambda w, first: _at(w, -1),
    "the returned state is the initial one": lambda w, first: dict(
        zip(w.after, first, strict=True)
    ),
    "the returned state is zeros": _each(np.zeros_like),
    "the returned state is that after the first step": lambda w, first: _at(w, 1),
    "the first row's state is returned for all rows": _each(
        lambda part: np.repeat(part[:1], len(part), axis=0)
    ),
    "the returned state is rounded to float16": _each(float16),
    "the returned state is rounded to bfloat16": _each(bfloat16),
}


RETURNS_OF_TWO: dict[str, Returns] = {
    "h and c of the returned state are swapped": lambda w, first: {
        "h": w.after["c"],
        "c": w.after["h"],
    },
    "h is returned for c": lambda w, first: {**w.after, "c": w.after["h"]},
    "the returned c is squashed by tanh": lambda w, first: {**w.after, "c": np.tanh(w.after["c"])},
    "the returned c is that before the last step": lambda w, first: {
        **w.after,
        "c": _at(w, -1)["c"],
    },
    "the returned h is that before the last step": lambda w, first: {
        **w.after,
        "h": _at(w, -1)["h"],
    },
}


def returned_states(base: Scene) -> Iterator[Edit]:
    def returns(which: Returns) -> Callable[[Scene], Scene | None]:
        return lambda s: replace(s, returns=which) if s.returned else None

    if base.returned:
        two = RETURNS_OF_TWO if len(base.state) == 2 else {}
        for name, which in {**RETURNS, **two}.items():
            yield Edit("returned state", name, returns(which))
