"""The benchmarks judge rightly: their solution is right, and who is wrong is not timed."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from refrnn import Weights, reference
from refrnn.cells import CELLS, LSTMState, State

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("shapes", "peers", "race", "report", "bench_training")
    return {n: importlib.import_module(n) for n in names}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_solution_is_that_of_the_reference(cell: str, modules: dict[str, ModuleType]) -> None:
    """Sums of 8 and 5 products in float64, in two orders: far below 1e-14."""
    p = modules["shapes"].problem(modules["shapes"].Shape(cell, 3, 4, 5, 8, "float64"))
    state = (LSTMState if cell == "lstm" else State)(*p.state)
    ys, after = reference.run(CELLS[cell], Weights(p.kernel, p.recurrent, p.bias), p.xs, state)
    for got, want in zip([ys, *after], p.expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-14)


@pytest.mark.parametrize("planted", [0.0, 1e-4, np.nan])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_wrong_competitor_is_not_timed(
    planted: float,
    steps: int,
    modules: dict[str, ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shapes, peers, race = modules["shapes"], modules["peers"], modules["race"]

    def factory(threads: int) -> Any:
        make = peers.refrnn_kernel(threads)

        def wrong(p: Any) -> Any:
            program = make(p)

            def result() -> Any:
                found = program.result()
                found[-1] = found[-1] + np.float32(planted)  # the state alone is wrong
                return found

            return program._replace(result=result)

        return wrong

    monkeypatch.setitem(peers.FACTORIES, "planted", factory)
    shape = shapes.Shape("gru", 2, steps, 3, 4)
    shapes.problem(shape).save(tmp_path / "p.npz")
    competitor = race.Competitor("planted", 1)
    answer = competitor.prepare(str(tmp_path / "p.npz"), list(shape))
    assert ("skipped" in answer) == (planted != 0)
    assert competitor.time(0.001)["minimum"] > 0


def row(modules: dict[str, ModuleType], numba: list[float], peer: list[float]) -> dict[str, Any]:
    """One step of LSTM(32), one row; the floor is far behind, so that no goal of it is missed."""
    found = {"refrnn numba": numba, "torch": peer, "JAX": [9.0] * 3, "floor MKL": [9.0] * 3}
    return {
        "shape": ["lstm", 1, 1, 3, 32, "float32"],
        "threads": 1,
        "found": {name: {"medians": times, "minima": times} for name, times in found.items()},
    }


def test_a_goal_is_met_up_to_its_bound(modules: dict[str, ModuleType]) -> None:
    """0.22 of the best peer; the ratio is of the rounds, not of their medians."""
    report = modules["report"]
    for numba, met in (([0.22, 1.0, 0.2], True), ([0.23, 1.0, 0.2], False)):
        rows = [row(modules, numba, [1.0, 1.0, 1.0])]
        verdicts = {v.goal: v for v in report.verdicts(rows)}
        verdict = verdicts["one step of one row, H <= 128 / best peer"]
        assert verdict.met == met
        assert verdict.where == "lstm 1,1,3,32 (torch)"
        assert verdict.value == numba[0]
        assert ("**no**" in report.goals(rows)) == (not met)
    assert report.ratio(row(modules, [1.0, 2, 30], [1.0, 4, 10]), "torch").median == 1


def test_losses_are_listed(modules: dict[str, ModuleType]) -> None:
    report = modules["report"]
    ahead = report.slower([row(modules, [3.0] * 3, [2.0] * 3)])
    assert len(ahead) == 1
    assert "torch is ahead, ratio 1.5" in ahead[0]
    assert report.slower([row(modules, [1.0] * 3, [2.0] * 3)]) == []


def test_a_training_that_loses_otherwise_is_not_timed(modules: dict[str, ModuleType]) -> None:
    """A bias that learns twice as fast, as PyTorch's two biases do, is beyond the bound."""
    training = modules["bench_training"]
    arrays = training.given()
    exact = training.refrnn_step(arrays, "numpy", "float64")
    losses = [exact() for _ in range(training.UPDATES)]
    ours = training.refrnn_step(arrays)
    found = training.judged([ours() for _ in range(training.UPDATES)], losses)
    assert found["error"] < 1e-5
    assert "skipped" not in found
    for wrong in ([*losses[:-1], losses[-1] * 1.002], [*losses[:-1], np.nan], losses[::-1]):
        assert "skipped" in training.judged(wrong, losses)


def test_the_goals_of_training_are_judged_by_rounds(modules: dict[str, ModuleType]) -> None:
    training = modules["bench_training"]

    def known(figures: list[float]) -> dict[str, Any]:
        return {"error": 1e-6, "seconds": 1.0, "medians": figures, "minima": figures}

    found = {training.OURS: known([0.5, 0.5]), "torch": known([1.0, 0.8]), "keras fit": known([1])}
    text = training.markdown([{"threads": 1, "found": found | {"JAX jit": {"skipped": "wrong"}}}])
    assert "Goal: at most 0.6 of torch: 0.562, met." in text
    assert "Goal: at most 0.0333 of keras fit: 0.5, **not met**." in text
    assert "| JAX jit | wrong |" in text
