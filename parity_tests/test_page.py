"""The page of a report says what the report says, draws the numbers that were judged, needs no
other file, and is written whole or not at all.

What is drawn is read back: the points of the lines, the pixels of the heat map.
"""

import base64
import os
import re
import struct
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from implementations import Plant
from test_check import bidirectional, case, each_kind, over_time, setup

from refrnn.layers import LSTM
from refrnn.verify import Report, check
from refrnn.verify.page import HIGH, LEFT, TOP, WIDE, _palette, _shades

SVG = "{http://www.w3.org/2000/svg}"
Drawing = ElementTree.Element


def written(report: Report, folder: Path) -> str:
    report.to_html(folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


class Reader(HTMLParser):
    """The text of a page, its tags and their attributes; refuses tags that do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.open = "", [], []  # type: ignore[var-annotated]
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def drawings(page: str) -> list[Drawing]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def lines(drawing: Drawing) -> list[np.ndarray]:
    """|error|, S and W as drawn: their values, read back from the axis."""
    marks = [
        (float(text.get("y", "")) - 4, float(text.text or ""))
        for text in drawing.iter(f"{SVG}text")
        if text.get("text-anchor") == "end"
    ]
    (y0, v0), (y1, v1) = marks[0], marks[-1]
    found = []
    for line in drawing.iter(f"{SVG}polyline"):
        ys = [float(pair.split(",")[1]) for pair in line.get("points", "").split()]
        share = (np.array(ys) - y0) / (y1 - y0)
        found.append(v0 * (v1 / v0) ** share)
    return found


def pixels(drawing: Drawing) -> np.ndarray:
    """The numbers of the colours of a heat map, as any reader of PNG finds them."""
    image = next(drawing.iter(f"{SVG}image"))
    assert (image.get("width"), image.get("height")) == (str(WIDE), str(HIGH))
    data = base64.b64decode(image.get("href", "").removeprefix("data:image/png;base64,"))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        chunks[kind] = data[at + 8 : at + 8 + length]
        (crc,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        assert crc == zlib.crc32(kind + chunks[kind])
        at += 12 + length
    columns, rows, depth, indexed = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (depth, indexed, len(chunks[b"PLTE"])) == (8, 3, 3 * 256)
    flat = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(rows, columns + 1)
    assert not flat[:, 0].any()
    return flat[:, 1:]


def spoiled(kind: str = "lstm", error: float = 1e-3, **settings: Any) -> Report:
    layer, arrays, plain = setup(case(kind, dtype="float32", **settings))
    plain.spoil = Plant("h", 1, 2, 3, error)
    return check(plain(*arrays[1:]), layer, *arrays[1:])


REPORTS: dict[str, Callable[[], Report]] = {}


def report_of(function: Callable[[], Report]) -> Callable[[], Report]:
    REPORTS[function.__name__.replace("_", " ")] = function
    return function


@report_of
def right() -> Report:
    layer, arrays, plain = setup(case("gru", mask="holes"))
    return check(plain, layer, *arrays[1:])


@report_of
def wrong() -> Report:
    return spoiled()


@report_of
def gates() -> Report:
    layer, arrays, plain = setup(case("lstm"), spoil=Plant("f", 1, 2, 3, 1e-3))
    return check(over_time(plain, arrays), layer, *arrays[1:])


@report_of
def a_returned_state() -> Report:
    layer, arrays, plain = setup(case("lstm"))
    y, h, c = plain(*arrays[1:])
    return check((y, h, c + 1e-6), layer, *arrays[1:])


@report_of
def infinite() -> Report:
    layer, arrays, plain = setup(case("lstm"))
    y = plain(*arrays[1:])[0]
    y[1, 3, 2] = np.nan
    return check(y, layer, *arrays[1:])


@report_of
def hidden() -> Report:
    layer, arrays, plain = setup(case("lstm"))
    return check(plain(*arrays[1:])[0][:, -1] + 1e-9, layer, *arrays[1:])


@report_of
def undecidable() -> Report:
    layer, arrays, plain = setup(case("simple", units=16, steps=300, scale=6.0, dtype="float32"))
    return check(plain(*arrays[1:])[0][:, -1], layer, *arrays[1:])


@report_of
def no_step() -> Report:
    layer, arrays, plain = setup(case("gru", steps=0))
    return check(plain(*arrays[1:]), layer, *arrays[1:])


@report_of
def one_step() -> Report:
    layer, arrays, plain = setup(case("gru", steps=1))
    return check(plain(*arrays[1:]), layer, *arrays[1:])


@report_of
def no_row() -> Report:
    layer, arrays, plain = setup(case("gru", rows=0))
    return check(plain(*arrays[1:]), layer, *arrays[1:])


@report_of
def all_masked() -> Report:
    layer, arrays, plain = setup(case("lstm", mask="all"))
    return check(plain(*arrays[1:]), layer, *arrays[1:])


@pytest.mark.parametrize("what", REPORTS)
def test_a_page_has_every_word_of_the_report_and_needs_nothing_else(
    what: str, tmp_path: Path
) -> None:
    report = REPORTS[what]()
    page = written(report, tmp_path)
    read = Reader(page)
    for line in [*str(report).splitlines(), report.verdict, *(run.title for run in report.runs)]:
        assert line in read.text
    for tag, attributes in read.tags:
        assert tag not in ("script", "link", "iframe", "object", "img")
        for name, value in attributes.items():
            assert name not in ("src", "srcset", "data", "action")
            assert name != "href" or (value or "").startswith("data:image/png;base64,")
    assert "url(" not in page
    assert page.count("http") == page.count("http://www.w3.org/2000/svg")
    assert len(page) < 30_000
    for drawing in drawings(page):
        assert "nan" not in ElementTree.tostring(drawing, "unicode")
    drawn = {"no row": 0, "no step": 1, "hidden": 1, "undecidable": 1, "a returned state": 1}
    assert len(drawings(page)) == drawn.get(what, 2)


def test_words_are_escaped(tmp_path: Path) -> None:
    layer = LSTM(3, return_sequences=True, dtype="float64", name="<script>alert('&')")
    layer.build((None, None, 2))
    x = np.random.default_rng(0).normal(size=(2, 3, 2))
    report = check(layer(x) + 1e-6, layer, x)
    report.notes.append("<b>note</b> & more")
    page = written(report, tmp_path)
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;b&gt;note&lt;/b&gt; &amp; more" in page
    assert layer.name in Reader(page).text


@each_kind
def test_the_lines_are_the_error_and_the_bounds_of_the_first_difference(
    kind: str, tmp_path: Path
) -> None:
    report = spoiled(kind)
    drawing, _ = drawings(written(report, tmp_path))
    judged = report.runs[0].found[0].judged
    at = (1, slice(None), 3)
    want = [np.abs(judged.error[at]), judged.bounds["S"][at], judged.bounds["W"][at]]
    # a tenth of a pixel of 220 that span at most 24 decades
    for got, right in zip(lines(drawing), want, strict=True):
        drawn = right > 0  # nothing has no logarithm
        np.testing.assert_allclose(np.log10(got[drawn]), np.log10(right[drawn]), atol=0.02)
    assert int(np.argmax(lines(drawing)[0])) == 2


@each_kind
def test_the_heat_map_has_the_margins_of_all_steps_and_units(kind: str, tmp_path: Path) -> None:
    report = spoiled(kind)
    _, drawing = drawings(written(report, tmp_path))
    judged = report.runs[0].found[0].judged
    margin = np.maximum.reduce([judged.margin(tier) for tier in ("W", "P", "S")])
    got = pixels(drawing)
    np.testing.assert_array_equal(got, _shades(margin.max(axis=0).T))
    assert np.argwhere(got > 127).tolist() == [[3, 2]]  # one unit of one step is too far off


def test_what_is_infinite_is_black_and_at_the_top(tmp_path: Path) -> None:
    line, heat = drawings(written(infinite(), tmp_path))
    assert pixels(heat)[2, 3] == 255
    assert _palette()[255] == (0, 0, 0)
    points = next(line.iter(f"{SVG}polyline")).get("points", "").split()
    assert float(points[3].split(",")[1]) == TOP
    assert "top edge: infinite or NaN" in ElementTree.tostring(line, "unicode")


def test_a_wrong_gate_is_the_one_that_is_drawn(tmp_path: Path) -> None:
    page = written(gates(), tmp_path)
    assert "error of f, row 1, unit 3" in page
    assert np.argwhere(pixels(drawings(page)[1]) > 127).tolist() == [[3, 2]]


def test_the_first_difference_is_drawn_though_another_is_larger(tmp_path: Path) -> None:
    layer, arrays, plain = setup(case("gru", dtype="float32"))
    y = plain(*arrays[1:])[0]
    y[0, 1, 2] += 1e-4
    y[2, 5, 3] += 1e-1
    assert "error of y, row 0, unit 2" in written(check(y, layer, *arrays[1:]), tmp_path)


def test_time_is_drawn_as_the_candidate_has_it(tmp_path: Path) -> None:
    layer, arrays, forward, backward = bidirectional()
    ahead, back = forward(arrays.x)[0], backward(arrays.x)[0][:, ::-1]
    y = np.concatenate([ahead, back], axis=2)
    y[1, 0, 4 + 3] += 1e-6  # the backward half's last step in its own time
    report = check(y, layer, arrays.x)
    page = written(report, tmp_path)
    assert "error of backward.y, row 1, unit 3" in page
    line, heat = drawings(page)
    assert int(np.argmax(lines(line)[0])) == 0
    assert np.argwhere(pixels(heat) > 127).tolist() == [[3, 0]]


def test_a_single_step_is_a_point(tmp_path: Path) -> None:
    drawing, heat = drawings(written(one_step(), tmp_path))
    points = [(circle.get("cx"), circle.get("fill")) for circle in drawing.iter(f"{SVG}circle")]
    assert [x for x, _ in points] == [f"{LEFT + WIDE / 2:.1f}"] * 3
    assert pixels(heat).shape == (4, 1)


@pytest.mark.parametrize(("steps", "units"), [(3000, 9), (3, 700), (1200, 300)])
def test_a_long_or_wide_run_is_drawn_small_and_keeps_its_worst(
    steps: int, units: int, tmp_path: Path
) -> None:
    layer, arrays, plain = setup(case("simple", dtype="float32", rows=1, steps=steps, units=units))
    y = plain(arrays.x, arrays.state)[0]
    step, unit = steps - 2, units - 3
    y[0, step, unit] += 0.5
    report = check(y, layer, arrays.x, arrays.state)
    page = written(report, tmp_path)
    assert len(page) < 300_000
    line, heat = drawings(page)
    got = pixels(heat)
    assert got.shape == (min(units, HIGH), min(steps, WIDE))
    worst = np.argwhere(got == got.max())[0] / got.shape
    assert abs(worst - np.array([unit / units, step / steps])).max() < 0.01
    error = lines(line)[0]
    assert len(error) == min(steps, WIDE)
    assert error.max() == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("margin", [1.0, np.nextafter(1, 0), 0.999])
def test_what_is_allowed_never_looks_like_what_is_not(margin: float) -> None:
    palette = _palette()
    assert len(palette) == 256
    assert _shades(np.array([0.0, margin])).max() <= 127
    assert _shades(np.array([np.nextafter(1, 2), 1e12])).min() >= 128
    red = [r > b for r, _, b in palette]
    assert not any(red[:128])
    assert all(red[128:255])
    shades = _shades(10.0 ** np.linspace(-5, 12, 500))
    assert (np.diff(shades.astype(int)) >= 0).all()


# --- the file ---


def test_a_page_takes_the_place_of_another_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    assert written(right(), tmp_path).startswith("<!DOCTYPE html>")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_page_that_cannot_be_written_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.html").write_text("old")

    def full(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        right().to_html(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(FileNotFoundError):
        right().to_html(tmp_path / "no" / "report.html")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.html").write_text("old")
    (tmp_path / "report.html").symlink_to(tmp_path / "real.html")
    right().to_html(str(tmp_path / "report.html"))
    assert (tmp_path / "report.html").is_symlink()
    assert (tmp_path / "real.html").read_text().startswith("<!DOCTYPE html>")
