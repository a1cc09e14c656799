"""Where an answer differs, in words: rows, steps, units, and what such a shape often means."""

from collections.abc import Iterator

import numpy as np

from refrnn.gates import Array
from refrnn.verify.fits import Fit
from refrnn.verify.scene import Scene

NAMED = 4  # as many places are listed by number


def footprint(s: Scene, f: Fit, rows: Array, turned: bool = False) -> list[str]:
    """Sentences on the numbers that a scene does not explain.

    rows    the rows of the scene that the fit is of
    turned  the scene's steps are those of the answer's array from its end
    """
    return list(_sentences(s, f, rows, turned))


def _sentences(s: Scene, f: Fit, rows: Array, turned: bool) -> Iterator[str]:
    wrong = f.wrong  # (R, T, H)
    for name, margin in f.returned.items():
        if (margin > f.limit).any():
            alone = "" if wrong.any() else ", though every output is right"
            yield f"the returned {name} differs in {_share(margin > f.limit)} of its numbers{alone}"
    if not wrong.any():
        return
    broken = ~np.isfinite(s.y[rows]) & wrong
    if broken.any():
        yield f"{int(broken.sum())} of the outputs that differ are not finite"
    size = np.abs(f.error[wrong & np.isfinite(f.error)])
    if len(size):
        yield (
            f"{_share(wrong)} of the outputs differ, by {np.median(size):.1e} in the middle and"
            f" {size.max():.1e} at most"
        )
    y = s.y[rows]
    if (y == y.flat[0]).all():
        yield f"every output is {y.flat[0] + 0.0:g}"
        return
    bits = _fixed_point(y)
    if bits is not None:
        yield f"the outputs are multiples of 2^-{bits}: fixed point"
    by_row, by_step, by_unit = (
        np.asarray(wrong.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))
    )
    if turned:
        by_step = by_step[::-1]
    if not by_row.all():
        yield (
            f"only {_places('row', rows[by_row])}: it depends on the row, its mask or its length,"
            " or on the rows beside it"
        )
    yield from _steps(by_step, turned)
    yield from _units(by_unit, wrong)


def _fixed_point(y: Array) -> int | None:
    """The bits behind the point of numbers that share a grid, None where they do not."""
    y = y[np.isfinite(y) & (y != 0)]
    for bits in range(4, 17):
        if len(y) and np.mean(y * 2.0**bits % 1 == 0) > 0.95:
            return bits
    return None


def _share(wrong: Array) -> str:
    share = float(np.mean(wrong))
    return f"{share:.0%}" if share >= 0.01 else f"{int(wrong.sum())}"


def _steps(by_step: Array, turned: bool) -> Iterator[str]:
    T = len(by_step)
    steps = np.flatnonzero(by_step)
    first = steps[-1] if turned else steps[0]
    if len(steps) == T or T == 1:
        return
    gaps = np.unique(np.diff(steps))
    if len(steps) == 1:
        meaning = ": the last one, as of an input or a length that is off by one"
        yield f"only step {steps[0]}{meaning if steps[0] == (0 if turned else T - 1) else ''}"
    elif len(gaps) == 1 and gaps[0] > 1:
        yield f"only every {gaps[0]} steps, from step {steps[0]} on: borders of chunks"
    elif len(steps) == abs((T if not turned else -1) - first):
        way = "back from" if turned else "from"
        yield f"{way} step {first} on, none before it"
    else:
        yield f"first at step {first}; {len(steps)} of {T} steps differ"


def _units(by_unit: Array, wrong: Array) -> Iterator[str]:
    H = len(by_unit)
    units = np.flatnonzero(by_unit)
    if len(units) == H:
        return
    if len(units) == 1 and wrong.any(axis=2).mean() > 0.5:
        yield f"only unit {units[0]}, in most rows and steps: a weight of that unit"
    elif H >= 4 and len(units) == H - H // 2 and units[0] == H // 2:
        yield f"only the upper half of the units, {units[0]} to {H - 1}: a state updated in place"
    elif len(units) > 1 and units[-1] == H - 1 and len(units) == H - units[0]:
        yield f"only the last {len(units)} of {H} units: a tile at the end"
    else:
        yield f"only {_places('unit', units)}"


def _places(what: str, numbers: Array) -> str:
    """row 3; rows 1, 2; 17 rows from 2 to 40"""
    if len(numbers) == 1:
        return f"{what} {numbers[0]}"
    if len(numbers) <= NAMED:
        return f"{what}s {', '.join(map(str, numbers))}"
    return f"{len(numbers)} {what}s from {numbers[0]} to {numbers[-1]}"
