"""A report as one HTML file: words, tables, and plots drawn as SVG. No script, nothing loaded."""

import base64
import struct
import zlib
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from refrnn.gates import Array
from refrnn.verify.tracked import TIERS

if TYPE_CHECKING:
    from refrnn.verify.report import First, Found, Report, Run

WIDE, HIGH = 560, 220  # of a plot, without its margins
LEFT, BOTTOM, TOP = 62, 34, 12
POINTS = WIDE  # of a line, and columns of a heat map, at most
DEEP = 24  # decades of a plot at most
LINES = {  # name, its words and its colour
    "error": ("|error|", "#b2182b"),
    "S": ("allowed (S)", "#2166ac"),
    "W": ("worst case (W)", "#92c5de"),
}
# The colours of margins: from 1e-3 to 1 in 128 shades, above 1 to 1e9 in 127, and infinite.
ALLOWED = ((247, 251, 255), (66, 146, 198))
BROKEN = ((254, 217, 118), (128, 0, 38))
INFINITE = (0, 0, 0)
MARKS = {
    np.inf: "∞",
    1e9: "1e9 or more",
    1e4: "1e4",
    1.001: "more than 1",
    1.0: "1: allowed",
    0: "0",
}

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
.verdict { color: #fff; border-radius: .3em; padding: .1em .5em }
.agrees { background: #1a7f37 } .differs { background: #b2182b }
.undecidable { background: #7a5c00 }
table { border-collapse: collapse } td, th { padding: .2em .8em; text-align: right;
  border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums }
td:first-child, th:first-child { text-align: left } .broken td { color: #b2182b; font-weight: 600 }
svg { max-width: 100%; height: auto } svg text { font: 12px system-ui, sans-serif; fill: #444 }
code { overflow-wrap: anywhere }
"""


def page(report: "Report") -> str:
    """The whole file."""
    body = "".join(_sections(report))
    title = escape(f"{report.who}: {report.verdict}")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def _sections(report: "Report") -> Iterator[str]:
    kind = {"agrees": "agrees", "undecidable": "undecidable"}.get(report.verdict, "differs")
    yield (
        f'<h1>{escape(report.who)} <span class="verdict {kind}">{escape(report.verdict)}'
        "</span></h1>\n"
    )
    for line in str(report).splitlines():
        yield f"<p>{escape(line)}</p>\n"
    if report.first is not None:
        yield _first(report.first)
    yield _runs(report.runs)
    run = next((run for run in report.runs if run.first is not None), None)
    run = run or max(report.runs, key=lambda run: run.margins["S"])
    yield from _plots(run)


def _first(first: "First") -> str:
    cells = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(_told(value))}</td></tr>\n"
        for name, value in vars(first).items()
    )
    return f"<h2>First difference</h2>\n<table>\n{cells}</table>\n"


def _told(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.17g}" if isinstance(value, float) else "none" if value is None else str(value)


def _runs(runs: Sequence["Run"]) -> str:
    head = "".join(f"<th>{tier}</th>" for tier in TIERS)
    rows = "".join(
        f"<tr{' class=broken' if run.broken else ''}><td>{escape(run.title)}</td>"
        + "".join(f"<td>{_number(run.margins[tier])}</td>" for tier in TIERS)
        + "</tr>\n"
        for run in runs
    )
    return (
        "<h2>Runs</h2>\n<p>The largest error of each run over what is allowed: W in the worst"
        " case, P and S with certainty but for one in a million. Above 1 is too much.</p>\n"
        f"<table>\n<tr><th>run</th>{head}</tr>\n{rows}</table>\n"
    )


def _number(value: float) -> str:
    return "∞" if np.isinf(value) else f"{value:.3g}"


# --- plots ----------------------------------------------------------------------------------------


class _Drawn(NamedTuple):
    """An array of a run, time as in the candidate's own array.

    at  (row, step, unit), or (row, unit) of one without time: the number that is looked at
    """

    label: str
    at: tuple[int, ...]
    error: Array
    bounds: dict[str, Array]
    margin: Array

    @property
    def timed(self) -> bool:
        return self.error.ndim == 3


def _plots(run: "Run") -> Iterator[str]:
    drawn = _chosen(run)
    title = escape(run.title)
    if drawn is None:
        yield f"<h2>{title}</h2>\n<p>Nothing to draw: every array is empty.</p>\n"
        return
    label = escape(drawn.label)
    if drawn.timed:
        row, _, unit = drawn.at
        yield (
            f"<h2>{title}: error of {label}, row {row}, unit {unit}</h2>\n<p>Of each step, started"
            " from the candidate's own last one; and what a correct implementation may show.</p>\n"
        )
        yield _over_time(drawn)
        grid, axes = drawn.margin.max(axis=0).T, ("step", "unit")
        by = f"steps and units, the largest of {len(drawn.margin)} rows"
    else:
        grid, axes, by = drawn.margin, ("unit", "row"), "rows and units"
        if run.hidden:
            by += " (the steps before were not shown)"
    yield f"<h2>{title}: error over bound of {label}, by {by}</h2>\n{_heat_map(grid, *axes)}"


def _chosen(run: "Run") -> _Drawn | None:
    """The array and number of the first difference, or those nearest to their bound."""
    drawn = [_drawn(found) for found in run.found if found.judged.error.size]
    first = run.first
    if first is not None:
        step = () if first.step is None else (first.step,)
        at = (first.row, *step, first.unit)
        return next(d for d in drawn if d.label == first.array)._replace(at=at)
    return max(drawn, key=lambda d: d.margin.max(), default=None)


def _drawn(found: "Found") -> _Drawn:
    judged = found.judged

    def in_time(array: Array) -> Array:
        return array[:, ::-1] if found.part.turned and array.ndim == 3 else array

    margin = in_time(np.maximum.reduce([judged.margin(tier) for tier in TIERS]))
    at = np.unravel_index(int(margin.argmax()), margin.shape)
    bounds = {tier: in_time(judged.bounds[tier]) for tier in ("S", "W")}
    error = np.abs(in_time(judged.error))
    return _Drawn(found.label, tuple(int(k) for k in at), error, bounds, margin)


def _over_time(drawn: _Drawn) -> str:
    """The error of one row and unit, and two of its bounds; the logarithm of each by step."""
    row, _, unit = drawn.at
    margin = drawn.margin[row, :, unit]
    steps = _worst_of_each(margin, POINTS)
    lines = {"error": drawn.error, **drawn.bounds}
    values = {name: lines[name][row, steps, unit] for name in LINES}
    logs = np.log10([v for line in values.values() for v in line if 0 < v < np.inf] or [1.0])
    high = int(np.ceil(logs.max()))
    low = min(high - 1, max(int(np.floor(logs.min())), high - DEEP))

    def y(value: float) -> float:
        if not np.isfinite(value):
            return TOP
        place = (np.log10(value) - low) / (high - low) if value > 0 else 0.0
        return float(TOP + HIGH * (1 - max(0.0, place)))

    parts = [_frame(), *_below(len(margin), "step")]
    for decade in range(low, high + 1, 1 + (high - low) // 8):
        parts.append(_left(y(10.0**decade), f"1e{decade}"))
    for k, (name, (words, colour)) in enumerate(LINES.items()):
        points = [
            (_across(step, len(margin)), y(value))
            for step, value in zip(steps, values[name], strict=True)
        ]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}"/>')
        if len(points) <= 60:  # a single step has no line
            parts += [
                f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{colour}"/>' for a, b in points
            ]
        parts.append(_beside(k, words, colour))
    if not all(np.isfinite(line).all() for line in values.values()):
        parts.append(_beside(4, "top edge: infinite or NaN"))
    if any((line == 0).any() for line in values.values()):
        parts.append(_beside(5, "bottom edge: 0"))
    return _svg(parts, "error and bounds by step")


def _heat_map(grid: Array, across: str, down: str) -> str:
    """(rows, columns) of margins as colours; where they are too many, the largest of neighbours."""
    rows, columns = grid.shape
    small = _largest(_largest(grid, HIGH, 0), POINTS, 1)
    picture = base64.b64encode(_png(_shades(small), _palette())).decode()
    parts = [
        f'<image x="{LEFT}" y="{TOP}" width="{WIDE}" height="{HIGH}" preserveAspectRatio="none"'
        f' style="image-rendering:pixelated" href="data:image/png;base64,{picture}"/>',
        _frame(),
        *_below(columns, across),
        *(_left(TOP + HIGH * (k + 0.5) / rows, str(k)) for k in sorted({0, rows - 1})),
        _left(TOP + HIGH / 2, down),
    ]
    palette = _palette()
    for k, (value, words) in enumerate(MARKS.items()):
        colour = f"rgb{palette[int(_shades(np.array(value)))]}"
        parts.append(
            f'<rect x="{LEFT + WIDE + 10}" y="{TOP + 20 * k}" width="14" height="14"'
            f' fill="{colour}" stroke="#888"/>'
        )
        parts.append(_beside(k, words, indent=20))
    return _svg(parts, "error over bound")


def _shades(margin: Array) -> Array:
    """The colour of each margin; what is allowed never looks like what is not."""
    with np.errstate(divide="ignore"):
        decade = np.log10(margin)
    allowed = np.rint(127 * np.clip(1 + decade / 3, 0, 1))
    broken = 128 + np.rint(126 * np.clip(decade / 9, 0, 1))
    return np.where(margin > 1, np.where(np.isinf(margin), 255, broken), allowed).astype(np.uint8)


def _palette() -> list[tuple[int, ...]]:
    halves = [np.linspace(*ALLOWED, 128), np.linspace(*BROKEN, 127)]
    return [*(tuple(int(c) for c in row) for row in np.rint(np.concatenate(halves))), INFINITE]


def _png(indices: Array, palette: Sequence[tuple[int, ...]]) -> bytes:
    """An image of (rows, columns) numbers of colours (W3C, Portable Network Graphics, 2003)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows, columns = indices.shape
    lines = np.zeros((rows, columns + 1), np.uint8)  # before each row a filter byte, 0 for none
    lines[:, 1:] = indices
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0))
        + chunk(b"PLTE", bytes(c for colour in palette for c in colour))
        + chunk(b"IDAT", zlib.compress(lines.tobytes(), 9))
        + chunk(b"IEND", b"")
    )


def _worst_of_each(margin: Array, count: int) -> Array:
    """The steps to draw: all, or of each of `count` neighbourhoods that with the largest margin."""
    starts = np.linspace(0, len(margin), min(count, len(margin)), endpoint=False).astype(int)
    return np.array(
        [
            a + int(part.argmax())
            for a, part in zip(starts, np.split(margin, starts[1:]), strict=True)
        ]
    )


def _largest(grid: Array, count: int, axis: int) -> Array:
    """At most `count` cells along an axis, each the largest of its neighbourhood."""
    size = grid.shape[axis]
    starts = np.linspace(0, size, min(count, size), endpoint=False).astype(int)
    return np.maximum.reduceat(grid, starts, axis=axis)


def _across(k: int, count: int) -> float:
    """The middle of column k."""
    return LEFT + WIDE * (k + 0.5) / count


def _below(count: int, name: str) -> Iterator[str]:
    for k in sorted({0, count // 2, count - 1}):
        yield _under(16, _across(k, count), str(k))
    yield _under(31, LEFT + WIDE / 2, name)


def _under(y: int, x: float, words: str) -> str:
    return f'<text x="{x:.1f}" y="{TOP + HIGH + y}" text-anchor="middle">{words}</text>'


def _left(y: float, words: str) -> str:
    return f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{words}</text>'


def _beside(line: int, words: str, colour: str = "#444", indent: int = 0) -> str:
    x, y = LEFT + WIDE + 10 + indent, TOP + 12 + 20 * line
    return f'<text x="{x}" y="{y}" style="fill:{colour}">{words}</text>'


def _frame() -> str:
    return f'<rect x="{LEFT}" y="{TOP}" width="{WIDE}" height="{HIGH}" fill="none" stroke="#888"/>'


def _svg(parts: Sequence[str], label: str) -> str:
    wide, high = LEFT + WIDE + 190, TOP + HIGH + BOTTOM
    inside = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}"'
        f' height="{high}" role="img" aria-label="{label}">\n{inside}\n</svg>\n'
    )
