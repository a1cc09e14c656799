"""The input and the outputs in another order: of time, of axes, a step late."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from refrnn.gates import Array
from refrnn.verify.conventions.edit import Edit
from refrnn.verify.scene import Scene


def directions(backwards: bool, turned: bool) -> Iterator[Edit]:
    def flip(x: bool, y: bool) -> Callable[[Scene], Scene | None]:
        def apply(s: Scene) -> Scene | None:
            if s.y.shape[1] < 2 or s.reset is not None or s.calls is not None:
                return None
            changed: dict[str, Any] = {}
            if x:
                changed["xs"] = s.xs[:, ::-1]
                changed["mask"] = None if s.mask is None else s.mask[:, ::-1]
            if y:
                changed["y"] = s.y[:, ::-1]
                changed["cs"] = None if s.cs is None else s.cs[:, ::-1]
            return replace(s, **changed)

        return apply

    if not backwards:
        names = {
            (True, True): "the sequence is run backwards, outputs in the order of time",
            (True, False): "the sequence is run backwards, outputs in the order of processing",
            (False, True): "the outputs are flipped in time",
        }
    elif turned:
        names = {
            (False, True): "the backward outputs are not flipped back into the order of time",
            (True, True): "the sequence is run forwards",
            (True, False): "the sequence is run forwards, outputs flipped in time",
        }
    else:
        names = {
            (False, True): "the backward outputs are flipped into the order of time",
            (True, False): "the sequence is run forwards",
            (True, True): "the sequence is run forwards, outputs flipped in time",
        }
    for (x, y), name in names.items():
        yield Edit("direction", name, flip(x, y))


def _shifted(a: Array, by: int, fill: str) -> Array:
    """Time moved: by 1, each step has what the one before had."""
    if not a.shape[1]:
        return a
    moved = np.roll(a, by, axis=1)
    edge = 0 if by == 1 else -1
    moved[:, edge] = a[:, edge] if fill == "repeated" else 0
    return moved


def inputs(base: Scene) -> Iterator[Edit]:
    def shifted(by: int, fill: str) -> Callable[[Scene], Scene | None]:
        def apply(s: Scene) -> Scene | None:
            return replace(s, xs=_shifted(s.xs, by, fill))

        return apply

    def axes(memory: bool) -> Callable[[Scene], Scene | None]:
        def apply(s: Scene) -> Scene | None:
            B, T, H = s.y.shape
            if B < 2 or T < 2 or s.reset is not None or s.calls is not None:
                return None

            def moved(a: Array | None) -> Any:
                if a is None:
                    return None
                return a.reshape(T, B, *a.shape[2:]) if memory else a.swapaxes(0, 1)

            same = B == T
            state = s.state if same else tuple(np.zeros((T, H)) for _ in s.state)
            return replace(
                s,
                xs=moved(s.xs),
                y=moved(s.y),
                cs=moved(s.cs),
                mask=moved(s.mask),
                state=state,
                returned=s.returned if same else {},
                last_output=None,
            )

        return apply

    def late(s: Scene) -> Scene | None:
        if s.y.shape[1] < 2 or s.reset is not None or s.calls is not None:
            return None
        if s.y[:, 0].any() and not np.array_equal(s.y[:, 0], s.state[0]):
            return None  # not what could come before the first output
        cut = {n: getattr(s, n)[:, :-1] for n in ("xs", "mask") if getattr(s, n) is not None}
        return replace(s, **cut, y=s.y[:, 1:], cs=None, returned={})

    yield Edit("input", "the input is one step late, the first repeated", shifted(1, "repeated"))
    yield Edit("input", "the input is one step late, zeros first", shifted(1, "zeros"))
    yield Edit("input", "the input is one step early, the last repeated", shifted(-1, "repeated"))
    yield Edit("input", "the input is one step early, zeros last", shifted(-1, "zeros"))
    yield Edit("input", "the last step has the input of the one before", _stale_last)
    yield Edit("outputs", "the outputs are one step late", late)
    yield Edit("outputs", "the outputs' rows come in reverse order", _rows_reversed, rare=True)
    yield Edit("axes", "batch and time are exchanged: the sequence runs over the rows", axes(False))
    yield Edit(
        "axes",
        "the memory of (batch, time) is read as (time, batch), and the sequence runs over the rows",
        axes(True),
    )
    yield Edit("axes", "the input's memory is read as (time, batch)", _time_major_input)


def _stale_last(s: Scene) -> Scene | None:
    if s.xs.shape[1] < 2:
        return None
    xs = s.xs.copy()
    xs[:, -1] = xs[:, -2]
    return replace(s, xs=xs)


def _rows_reversed(s: Scene) -> Scene | None:
    if len(s.y) < 2:
        return None
    return replace(s, y=s.y[::-1], cs=None if s.cs is None else s.cs[::-1])


def _time_major_input(s: Scene) -> Scene | None:
    """x.reshape(T, B, F), then run along T; the outputs come as (B, T, H)."""
    B, T, F = s.xs.shape
    if B < 2 or T < 2:
        return None
    return replace(s, xs=np.ascontiguousarray(s.xs).reshape(T, B, F).swapaxes(0, 1))
