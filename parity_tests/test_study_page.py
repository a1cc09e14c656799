"""The page in a real browser: what is read on it, after each slide, click and key, is the trace."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser, browser, found
from test_study import running_sum

import refrnn
from refrnn import layers
from refrnn.study import equations, page, recurrent, show, variants
from refrnn.study.equations import BRACES
from refrnn.study.numbers import backward, forward
from refrnn.study.target import Wanted
from refrnn.verify.inputs import bits

pytestmark = pytest.mark.skipif(found() is None, reason="no Chromium, and none in $CHROME")

LINES = """[...document.querySelectorAll("#%s .line")].map((line) => ({
  of: line.dataset.of, name: line.querySelector(".name").textContent,
  symbols: line.querySelector(".symbols")?.textContent, number:
  line.querySelector(".number")?.textContent, value: line.querySelector("b")?.dataset.value }))"""
CHOSEN = """[document.getElementById("step-told").textContent,
  document.getElementById("unit-told").textContent].map(Number)"""


def gru_model() -> tuple[Any, np.ndarray[Any, Any]]:
    """Masked steps, a GRU, a SimpleRNN that goes backwards; NaN in the second row."""
    model = refrnn.Sequential(
        [
            layers.Input((12, 2)),
            layers.Masking(),
            layers.GRU(9, return_sequences=True, name="first"),
            layers.SimpleRNN(3, go_backwards=True, return_sequences=True, name="second"),
        ]
    )
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(0, 0.7, weight.shape) for weight in model.get_weights()])
    x = rng.normal(size=(2, 12, 2)).astype(np.float32)
    x[0, 4:6] = 0
    x[1, 8, 0] = np.nan
    return model, x


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    model, x = gru_model()
    wide = layers.LSTM(100, return_sequences=True)
    long = np.random.default_rng(0).normal(size=(1, 420, 40)).astype(np.float32)
    texts = {
        "sum": page(running_sum(), [bits()], bits().cumsum(axis=1)),
        "gru": page(model, [x]),
        "large": page(wide, [long]),
        "tiny": page(layers.SimpleRNN(1), [np.ones((1, 1, 1))]),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = found()
    assert program
    with browser(program, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(chromium: Browser) -> Iterator[Browser]:
    """The browser; what a page complains about fails the test."""
    chromium.complaints.clear()
    yield chromium
    assert chromium.complaints == []


def numbers_of(text: str) -> list[float]:
    """The numbers in a line, in their order."""
    return [float(n.replace("∞", "inf")) for n in
            re.findall(r"(?<![\w.~-])-?(?:\d+\.?\d*(?:e[+-]?\d+)?|∞|NaN)", text)]  # fmt: skip


def check(tab: Browser, trace: Any, numbers: Any, row: int, section: str = "forward") -> None:
    """Every line that is shown has the numbers of the trace at the place that is chosen."""
    step, unit = tab.run(CHOSEN)
    letters = tab.run('Object.keys(JSON.parse(document.getElementById("data").textContent).letters)'
                      '[document.getElementById("letters").value]')  # fmt: skip
    names = equations.symbols(letters, trace.cell)
    shown, way = tab.run(LINES % section), "backward" if section == "backward" else "forward"
    lines = equations.lines(trace.cell, numbers)[way]
    assert [line["of"] for line in shown] == [line.of for line in lines]

    def value(name: str) -> float:
        array = numbers[name]
        return float(array[unit] if array.ndim == 1 else array[row, step, unit])

    live = trace.mask is None or trace.mask[row, step]
    for line, told in zip(lines, shown, strict=True):
        parts = line.parts if live or line.masked is None else line.masked
        assert told["name"] == names[line.of]
        if not parts:
            assert told["value"] is None
            continue
        written = equations.written(parts, names)
        if written != names[line.of]:
            assert told["symbols"] == f"= {written}"
        assert float(told["value"]) == value(line.of) or np.isnan(value(line.of))
        wanted = [value(line.of)]
        if "!" not in parts:
            inside = [float(n) if n.isdigit() else value(n)
                      for n in re.findall(r"\{([\w.]+)\}|(?<![\w.])(\d)", parts)
                      for n in n if n and n not in ("act", "rec")]  # fmt: skip
            wanted = inside + wanted if parts != f"{{{line.of}}}" else wanted
            same = len(inside) == 1 and BRACES.fullmatch(parts) is not None
            wanted = wanted[1:] if same else wanted
        rounded = [float(f"{n:.6g}") for n in wanted]
        assert np.array_equal(numbers_of(told["number"]), rounded, equal_nan=True), told


@pytest.fixture(scope="module")
def summed() -> tuple[Any, Any]:
    """The trace of the running sum, and all its numbers."""
    model, x = running_sum(), bits()
    (seen,), _ = recurrent(model, x)
    loss: Any = Wanted(model, [x], x.cumsum(axis=1)).reached(seen)
    trace = seen.trace()
    return trace, forward(trace) | backward(trace, **loss)


@pytest.fixture(scope="module")
def masked() -> list[tuple[Any, Any]]:
    traces = [seen.trace() for seen in recurrent(*gru_model())[0]]
    return [(trace, forward(trace)) for trace in traces]


def test_sliders_show_the_step_and_the_unit(
    tab: Browser, pages: dict[str, Path], summed: Any
) -> None:
    trace, numbers = summed
    tab.open(pages["sum"])
    check(tab, trace, numbers, 0)
    check(tab, trace, numbers, 0, "backward")
    for slider, count, place in (("step", 24, 0), ("unit", 32, 1)):
        for share in (0.02, 0.5, 0.98):
            tab.click(f"#{slider}", share)
            got = tab.run(CHOSEN)[place]
            assert abs(got - share * (count - 1)) <= 1.5
            assert tab.run(f"Number(document.getElementById('{slider}').value)") == got
            check(tab, trace, numbers, 0)
            check(tab, trace, numbers, 0, "backward")


def test_sliders_move_by_keyboard(tab: Browser, pages: dict[str, Path], summed: Any) -> None:
    tab.open(pages["sum"])
    tab.run("document.getElementById('step').focus()")
    tab.key("Home")
    assert tab.run(CHOSEN)[0] == 0
    tab.key("ArrowRight", 4)
    assert tab.run(CHOSEN)[0] == 4
    tab.key("ArrowLeft")
    assert tab.run(CHOSEN)[0] == 3
    tab.key("End")
    assert tab.run(CHOSEN)[0] == 23
    tab.key("Tab")
    tab.key("Home")
    tab.key("ArrowRight", 2)
    assert tab.run(CHOSEN) == [23, 2]
    check(tab, *summed, 0)
    assert "step 23" in tab.run("document.getElementById('step').getAttribute('aria-valuetext')")


def test_clicks_on_the_maps_pick_a_step_and_a_unit(
    tab: Browser, pages: dict[str, Path], summed: Any
) -> None:
    trace, numbers = summed
    tab.open(pages["sum"])
    maps = tab.run("[...document.querySelectorAll('[data-map]')].map((map) => map.dataset.map)")
    assert maps == ["x", "i", "f", "c~", "o", "c", "h", "dh"]
    of = dict(zip(maps[1:], ("i", "f", "g", "o", "c", "h", "d.h"), strict=True))
    for k, name in enumerate(maps[1:]):
        step, unit = (5 * k + 1) % 24, (7 * k + 2) % 32
        tab.click(f'[data-map="{name}"] canvas', (step + 0.5) / 24, 1 - (unit + 0.5) / 32)
        assert tab.run(CHOSEN) == [step, unit]
        told = tab.run(f"document.querySelector('[data-map=\"{name}\"]').ariaLabel")
        value = float(told.rpartition(": ")[2])
        assert value == float(f"{numbers[of[name]][0, step, unit]:.6g}")
        assert f"step {step}, unit {unit}" in told
        check(tab, trace, numbers, 0)
    tab.click('[data-map="x"] canvas', 7.5 / 24)  # the input has features, no units
    assert tab.run(CHOSEN) == [7, unit]


def test_arrows_move_on_a_map(tab: Browser, pages: dict[str, Path], summed: Any) -> None:
    tab.open(pages["sum"])
    tab.click('[data-map="f"] canvas', 3.5 / 24, 1 - 9.5 / 32)
    assert tab.run(CHOSEN) == [3, 9]
    for key, place in {
        "ArrowRight": [4, 9], "ArrowUp": [4, 10], "ArrowLeft": [3, 10], "ArrowDown": [3, 9],
        "End": [23, 9], "Home": [0, 9],
    }.items():  # fmt: skip
        tab.key(key)
        assert tab.run(CHOSEN) == place
        check(tab, *summed, 0)
    tab.key("ArrowLeft")
    assert tab.run(CHOSEN) == [0, 9]  # nothing is before the first
    assert tab.run("document.activeElement.dataset.map") == "f"


def test_the_maps_are_painted_with_the_numbers(
    tab: Browser, pages: dict[str, Path], summed: Any
) -> None:
    """A pixel for each number: saturated ones in the colours of the bounds, the others ordered."""
    tab.open(pages["sum"])
    found = tab.run("""(() => { const c = document.querySelector('[data-map="f"] canvas');
      const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
      return [c.width, c.height, [...d]]; })()""")
    f = summed[0].f[0]
    assert found[:2] == [24, 32]
    pixels = np.array(found[2]).reshape(32, 24, 4)[::-1, :, :3].transpose(1, 0, 2)
    high = (pixels == [255, 127, 14]).all(axis=-1)
    assert np.array_equal(high, f > 0.99)
    plain = ~high & (f >= 0.01)
    darker = pixels[plain].sum(axis=-1)[np.argsort(f[plain])]
    assert (np.diff(darker) <= 3).all()  # a larger value is darker, but for rounding


def test_the_letters_are_those_that_are_chosen(
    tab: Browser, pages: dict[str, Path], summed: Any, masked: Any
) -> None:
    for name, (trace, numbers) in (("sum", summed), ("gru", masked[0])):
        tab.open(pages[name])
        tab.run("document.getElementById('letters').focus()")
        for letters in ("torch", "onnx", "papers"):
            tab.key("ArrowDown")
            title = equations.NOTATIONS[letters].title
            picked = "document.getElementById('letters').selectedOptions[0].textContent"
            assert tab.run(picked) == title
            check(tab, trace, numbers, 0)


def test_layers_rows_masks_and_nan_are_shown(
    tab: Browser, pages: dict[str, Path], masked: Any
) -> None:
    tab.open(pages["gru"])
    trace, numbers = masked[0]
    tab.click('[data-map="z"] canvas', 4.5 / 12, 0.5)
    check(tab, trace, numbers, 0)
    assert "Masked: the state is held" in tab.run("document.getElementById('place').textContent")
    spans = tab.run("[...document.querySelectorAll('[data-map=\"z\"] .masked')].map((span) =>"
                    " [parseFloat(span.style.left), parseFloat(span.style.width)])")  # fmt: skip
    np.testing.assert_allclose(spans, [[400 / 12, 200 / 12]], rtol=1e-3)
    tab.run("document.getElementById('row').focus()")
    tab.key("ArrowDown")
    tab.click('[data-map="h"] canvas', 9.5 / 12, 0.5)
    check(tab, trace, numbers, 1)
    assert "NaN" in tab.run("document.getElementById('forward').textContent")
    tab.run("document.getElementById('layer').focus()")
    tab.key("ArrowDown")
    other, of_other = masked[1]
    check(tab, other, of_other, 1)
    assert "Processed backwards: step 8" in tab.run("document.getElementById('place').textContent")


def test_the_two_grus_stand_side_by_side(tab: Browser, pages: dict[str, Path], masked: Any) -> None:
    trace, numbers = masked[0]
    other = variants.other(trace)
    assert other is not None
    tab.open(pages["gru"])
    for step in (0, 3, 11):
        tab.click('[data-map="r"] canvas', (step + 0.5) / 12, 0.3)
        check(tab, trace, numbers, 0, "own")
        check(tab, other, forward(other), 0, "other")
        differ = tab.run("[...document.querySelectorAll('#own .differs')].map(l => l.dataset.of)")
        place = (0, *tab.run(CHOSEN))
        theirs = forward(other)
        shown = [line.of for line in equations.FORWARD["gru"]]
        assert differ == [name for name in shown if numbers[name][place] != theirs[name][place]]
        assert "h" in differ
    boxes = tab.run("['own', 'other'].map((id) => document.getElementById(id)"
                    ".getBoundingClientRect().top)")  # fmt: skip
    assert boxes[0] == boxes[1]


def test_chunks_are_drawn_as_they_were_computed(
    tab: Browser, pages: dict[str, Path], summed: Any
) -> None:
    tab.open(pages["sum"])
    trace, _ = summed
    assert "all 6144 numbers have the bits of the whole run" in tab.run(
        "document.getElementById('chunk-told').textContent"
    )
    tab.click('[data-map="h"] canvas', 20.5 / 24, 1 - 5.5 / 32)
    for length in (4, 12):
        key = tab.run("document.querySelector('#chunk-unit .head span').textContent")
        lost = refrnn.run(
            "lstm", trace.weights, trace.xs, reset=np.tile(np.arange(24) % length == 0, (8, 1)),
            engine="numpy",
        )[0][0, 20, 5]  # fmt: skip
        told = numbers_of(key)
        assert told == [float(f"{trace.h[0, 20, 5]:.4g}"), float(f"{lost:.4g}")]
        tab.run("document.getElementById('chunk').focus()")
        tab.key("ArrowDown")


def test_units_that_follow_the_output_can_be_picked(tab: Browser, pages: dict[str, Path]) -> None:
    tab.open(pages["sum"])
    first = tab.run("document.querySelector('#follow button').textContent")
    assert tab.run(CHOSEN)[1] == int(re.findall(r"\d+", first)[0])
    tab.click("#follow button:nth-of-type(2)")
    second = tab.run("document.querySelector('#follow [aria-pressed=true]').textContent")
    assert tab.run(CHOSEN)[1] == int(re.findall(r"\d+", second)[0])
    assert second != first


def test_a_large_model_is_thinned_and_told(tab: Browser, pages: dict[str, Path]) -> None:
    tab.open(pages["large"])
    tab.click('[data-map="f"] canvas', 0.999, 0.001)
    step, unit = tab.run(CHOSEN)
    stored = json.loads(tab.run("document.getElementById('data').textContent"))["layers"][0]
    assert [step, unit] == [stored["steps"][-1], stored["units"][-1]]
    assert step == 419
    assert "200 of 420 steps" in tab.run("document.getElementById('notes').textContent")


@pytest.mark.parametrize("name", ["sum", "gru", "large", "tiny"])
@pytest.mark.parametrize("dark", [False, True])
def test_a_page_fits_a_phone(name: str, dark: bool, tab: Browser, pages: dict[str, Path]) -> None:
    tab.open(pages[name], width=360, height=740, dark=dark)
    wide = tab.run("[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]")
    assert wide == [360, 360, 360]
    beyond = tab.run("""[...document.querySelectorAll("main *, nav *")].filter((e) =>
      !e.closest("pre, svg") && e.getBoundingClientRect().right > 361).map((e) => e.outerHTML)""")
    assert beyond == []
    nav = tab.run("document.querySelector('nav').getBoundingClientRect().height")
    assert nav < 740 / 4
    back = tab.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", back))) < 200) == dark


def test_everything_can_be_reached_and_seen_by_keyboard(
    tab: Browser, pages: dict[str, Path]
) -> None:
    tab.open(pages["gru"])
    tab.run("document.body.focus()")
    reached = []
    for _ in range(24):
        tab.key("Tab")
        reached.append(tab.run(
            "(() => { const e = document.activeElement; const style = getComputedStyle(e);"
            " return [e.id || e.dataset.map || e.textContent, style.outlineStyle,"
            " parseFloat(style.outlineWidth),"
            " e.ariaLabel || e.closest('label')?.textContent || e.textContent]; })()"
        ))  # fmt: skip
    names = [one[0] for one in reached]
    for wanted in ("layer", "row", "letters", "step", "unit", "x", "z", "r", "h~", "h", "chunk"):
        assert wanted in names
    for name, style, width, label in reached:
        if name in names[: names.index("chunk") + 1]:
            assert style != "none", name
            assert width >= 2, name
            assert label.strip(), name


def test_the_page_says_what_the_terminal_says(
    tab: Browser, pages: dict[str, Path], summed: Any
) -> None:
    trace, _ = summed
    tab.open(pages["sum"])
    step, unit = tab.run(CHOSEN)
    there = [n for line in tab.run(LINES % "forward") for n in numbers_of(line["number"])]
    here = [
        n
        for line in show(trace, step, unit).partition("forwards\n")[2].splitlines()
        if not re.search(r"= .*[a-z~]\[|= .*(a_|_tm1|\*.*[a-z]\b|tanh\(c\)$)", line)
        for n in numbers_of(line.partition("= ")[2])
    ]
    assert here == there
