"""A trace drawn with matplotlib: the input, the gates as heat maps, and the state, time aligned."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from refrnn import checks
from refrnn.files.atomic import replacing
from refrnn.gates import Array
from refrnn.study.numbers import in_order
from refrnn.study.summary import NEAR, WORDS, bounds, names
from refrnn.traces import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

UNITS = 64  # drawn where the caller does not say which
LINES = 8  # features of the input that are drawn as lines; more are a heat map
WIDE, HIGH = 10.0, 1.5  # inches
LOW, HIGH_END, BAD = "#8e44ad", "#ff7f0e", "#e600ac"  # at a bound of the activation; NaN
LEGEND = (
    f"orange: within {NEAR:g} of the upper bound, purple: of the lower one; magenta: NaN, infinity;"
    " hatched: masked"
)
MASK: dict[str, Any] = {
    "facecolor": (0.6, 0.6, 0.6, 0.45), "hatch": "///", "edgecolor": (0.3, 0.3, 0.3, 0.6),
    "linewidth": 0,
}  # fmt: skip


def most_active(h: Array, count: int) -> Array:
    """The units of h (T, H) that move the most, at most `count`, by their number."""
    with np.errstate(invalid="ignore"):
        moved = np.nan_to_num(np.ptp(h.astype(np.float64), axis=0), nan=np.inf, posinf=np.inf)
    return np.sort(np.argsort(-moved, kind="stable")[:count])


def drawn(trace: Trace, row: int, units: Any, title: str | None) -> "Figure":
    """`Trace.plot`, without writing it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(
            "plot needs matplotlib, which is not installed; install it: pip install 'refrnn[study]'"
        ) from None
    B, T, H = trace.gates.h.shape
    who = trace.cell.name
    if not 0 <= row < B:
        raise ValueError(f"{who}: row is {row}, expected 0 to {B - 1}")
    if not (T and H):
        raise ValueError(f"{who}: the trace has {T} steps and {H} units, expected one of each")
    shown = most_active(trace.gates.h[row], UNITS) if units is None else _units(who, units, H)
    states = [name for name in ("c", "h") if name in trace.gates._fields]
    figure = Figure(figsize=(WIDE, HIGH * (len(names(trace)) + 2)), layout="constrained")
    rows: list[Axes] = list(
        figure.subplots(len(names(trace)) + 2, 1, sharex=True, squeeze=False)[:, 0]
    )
    some = f"{len(shown)} of {H}" if len(shown) < H else H
    head = title or f"{who}, row {row}: {T} steps, {some} units, {trace.xs.dtype}"
    figure.suptitle(f"{head}\n{LEGEND}", fontsize="medium")
    _input(rows[0], in_order(trace, trace.xs)[row])
    for axes, name in zip(rows[1:], names(trace), strict=False):
        values = getattr(trace.gates, name)[row][:, shown].astype(np.float64)
        _heat_map(figure, axes, values, bounds(trace, name), shown)
        axes.set_ylabel(f"{name}\n{WORDS[name]}")
    path = rows[-1]
    path.plot(getattr(trace.gates, states[0])[row][:, shown], linewidth=0.9, alpha=0.75)
    path.set_ylabel(f"path of\n{states[0]}")
    path.set_xlabel("step" + (", last of the input first" if trace.go_backwards else ""))
    path.set_xlim(-0.5, T - 0.5)
    path.locator_params(axis="x", integer=True)
    if trace.mask is not None:
        for start, end in _spans(~in_order(trace, trace.mask)[row]):
            for axes in rows:
                axes.axvspan(start - 0.5, end - 0.5, label="masked", **MASK)
    return figure


def saved(figure: "Figure", path: "str | os.PathLike[str]") -> None:
    """Write a figure in the format of the path's suffix, whole or not at all.

    Raises ValueError for a suffix that matplotlib does not write.
    """
    kind = Path(path).suffix[1:].lower()
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise ValueError(f"{path}: expected a file ending in one of {', '.join(sorted(known))}")
    with replacing(path) as stream:
        figure.savefig(stream, format=kind)


def _units(who: str, units: Any, H: int) -> Array:
    found = checks.array(who, "units", units)
    if found.ndim != 1 or found.dtype.kind not in "iu" or not found.size:
        raise ValueError(f"{who}: units is {units!r}, expected a list of numbers of units")
    if found.min() < 0 or found.max() >= H:
        raise ValueError(f"{who}: units is {units!r}, expected numbers from 0 to {H - 1}")
    return found


def _input(axes: "Axes", x: Array) -> None:
    """(T, F) as lines, or as a heat map where there are many features."""
    axes.set_ylabel("input")
    if x.shape[1] <= LINES:
        axes.plot(x, drawstyle="steps-mid", linewidth=1)
    else:
        _image(axes, x.astype(np.float64), "Greys", {"bad": BAD})


def _heat_map(
    figure: "Figure", axes: "Axes", values: Array, ends: tuple[float, float] | None, units: Array
) -> None:
    """(T, H) by step and unit; saturated values in colours of their own, NaN in red."""
    if ends is None:
        finite = np.abs(values[np.isfinite(values)])
        high = float(finite.max()) if finite.size and finite.max() else 1.0
        low, beyond = -high, {"bad": BAD}
    else:
        low, high = ends[0] + NEAR, ends[1] - NEAR
        beyond = {"bad": BAD, "under": LOW, "over": HIGH_END}
    image = _image(axes, values, "RdBu_r" if low < 0 else "Blues", beyond, vmin=low, vmax=high)
    axes.locator_params(axis="y", integer=True, nbins=4)
    axes.yaxis.set_major_formatter(lambda k, _: _number(units, k))
    figure.colorbar(
        image, ax=axes, pad=0.01, aspect=8, extend="neither" if ends is None else "both"
    )


def _image(
    axes: "Axes",
    values: Array,
    colours: str,
    beyond: dict[str, str],
    vmin: float | None = None,
    vmax: float | None = None,
) -> "AxesImage":
    from matplotlib import colormaps

    return axes.imshow(
        np.ma.masked_invalid(values).T,
        aspect="auto", interpolation="nearest", origin="lower",
        cmap=colormaps[colours].with_extremes(**beyond), vmin=vmin, vmax=vmax,
    )  # fmt: skip


def _number(units: Array, place: float) -> str:
    """The unit at a place of the axis."""
    k = round(place)
    return str(units[k]) if abs(place - k) < 1e-9 and 0 <= k < len(units) else ""


def _spans(where: Array) -> list[tuple[int, int]]:
    """The stretches of True, from their first to after their last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], where.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
