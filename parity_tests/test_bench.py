"""`refrnn bench` compares the engines before it times them, and says what it left out."""

import re
from typing import Any

import numpy as np
import pytest

from refrnn import bench, kernels, reference
from refrnn.cells import CELLS
from refrnn.cli import main

SMALL = ("--rounds", "1", "--rows", "2", "--features", "2", "--units", "3")


def figures(out: str) -> dict[str, list[float]]:
    """The numbers of each line of the table, by the name before them."""
    lines = (re.match(r"(numba|numpy|products alone) +([\d.,e+ -]+)$", x) for x in out.splitlines())
    found = (line for line in lines if line)
    return {m[1]: [float(n.replace(",", "")) for n in m[2].split()] for m in found}


@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize("steps", ["1", "3"])
def test_every_engine_and_the_floor_have_a_figure(
    cell: str, steps: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *SMALL, "--cell", cell, "--steps", steps, "--dtype", "float64"]) == 0
    found = figures(capsys.readouterr().out)
    assert list(found) == ["numba", "numpy", "products alone"]
    for median, least, most, ratio in found.values():
        assert 0 < least <= median <= most
        assert ratio > 0
    assert found["numba"][3] == 1


def test_engines_that_differ_are_not_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = kernels.run

    def wrong(*arguments: Any, **options: Any) -> Any:
        ys, state = right(*arguments, **options)
        ys[-1, -1, -1] += 1e-4
        return ys, state

    monkeypatch.setattr(kernels, "run", wrong)
    assert main(["bench", *SMALL, "--steps", "3"]) == 1
    out = capsys.readouterr().out
    assert "the engines differ by 1.0e-04" in out
    assert figures(out) == {}


def test_nan_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernels.run
    monkeypatch.setattr(kernels, "run", lambda *a, **o: (right(*a, **o)[0] * np.nan, None))
    assert main(["bench", *SMALL]) == 1


def test_where_nothing_compiles_the_numpy_engine_is_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> Any:
        raise kernels.CompileError("no compiler")

    monkeypatch.setattr(kernels, "pack", fail)
    assert main(["bench", *SMALL]) == 0
    out = capsys.readouterr().out
    assert "left out: numba: no compiler" in out
    assert list(figures(out)) == ["numpy", "products alone"]


@pytest.mark.parametrize(("rows", "steps"), [(1, 40), (40, 1), (7, 6), (1, 1)])
def test_a_long_input_is_compared_in_part(
    rows: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, dtype = CELLS["gru"], np.dtype("float32")
    weights, xs, state = bench.drawn(cell, rows, steps, 3, 4, dtype)
    a_step = (3 + 4) * 12
    monkeypatch.setattr(bench, "CHECKED", 10 * a_step)
    seen = []
    right = reference.run
    monkeypatch.setattr(
        reference, "run", lambda c, w, x, s: seen.append(x.shape[:2]) or right(c, w, x, s)
    )
    work = rows * steps * a_step
    assert bench.difference(cell, weights, xs, state, work, None) < 1e-6
    ((b, t),) = seen
    assert 1 <= b <= rows
    assert 1 <= t <= steps
    assert b * t <= 10
    assert b * t == rows * steps or b * t > 5


@pytest.mark.parametrize("count", ["0", "-1", "x", "1.5"])
def test_a_count_is_a_whole_number(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "--units", count])
    assert "expected a whole number from 1 on" in capsys.readouterr().err
