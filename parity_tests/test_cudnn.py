"""cuDNN on this machine's GPU agrees with refrnn, by every front end, and it is proven that it ran.

All cases of `refrnn gpucheck` are run once. A front end that cannot run is skipped, and the skip
says which step is missing; where REFRNN_REQUIRE_GPU requires it, it is a failure: "1" requires all
but those that may refuse odd sizes, or it is a list of names. What can be tested without a GPU is
tested in test_gpucheck.py, these judgements too.
"""

from collections.abc import Sequence
from typing import Any

import pytest

from refrnn import gpucheck
from refrnn.gpucheck.judging import AGREES
from refrnn.gpucheck.table import Report
from refrnn.oracles.cudnn.fronts import FRONTS
from refrnn.oracles.cudnn.work import NUMBERS

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def report() -> Report:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(gpucheck.REQUIRE, raising=False)  # a front end that is missing fails by itself
        return gpucheck.checked(list(FRONTS), [], list(NUMBERS))


def missing(fronts: Sequence[str], reason: str) -> Any:
    """A skip, or a failure where one of these front ends is required."""
    if gpucheck.required_here(fronts):
        pytest.fail(f"{gpucheck.REQUIRE} is set: {reason}")
    pytest.skip(reason)


@pytest.mark.parametrize("precision", NUMBERS)
@pytest.mark.parametrize("front", FRONTS)
def test_a_front_end_agrees_on_cudnn(report: Report, front: str, precision: str) -> None:
    if precision not in FRONTS[front].precisions:
        pytest.skip(f"{front} has no {precision}")
    rows = [row for row in report.rows if (row.front, row.asked) == (front, precision)]
    wrong = [row for row in rows if row.verdict != AGREES and not row.unsupported]
    assert not wrong, wrong[0]
    lost = report.missing.get((front, precision))
    if not rows:
        missing([front], f"{front}: {lost}")
    assert lost is None, f"{front} was not run to its end: {lost}"
    refused = [row for row in rows if row.unsupported]
    if refused:
        missing([front], f"{front}: {refused[0].work}: {'; '.join(refused[0].notes)}")
    assert any(row.proven for row in rows)


def test_the_whole_report_agrees(report: Report) -> None:
    if not report.rows:
        reasons = dict.fromkeys(report.missing.values())
        missing(list(FRONTS), f"nothing was run: {' | '.join(reasons)}")
    assert report.status == 0, f"{report}"
