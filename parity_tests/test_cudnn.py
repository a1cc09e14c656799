"""cuDNN on this machine's GPU agrees with refrnn, by every front end, and it is proven that it ran.

All cases of `refrnn gpucheck` are run once. A front end that cannot run is skipped, and the skip
says which step is missing; with REFRNN_REQUIRE_GPU=1 it is a failure. What can be tested without a
GPU is tested in test_gpucheck.py.
"""

import os
from typing import Any

import pytest

from refrnn import gpucheck
from refrnn.gpucheck.judging import AGREES, REFUSED
from refrnn.gpucheck.table import Report
from refrnn.oracles.cudnn.fronts import FRONTS
from refrnn.oracles.cudnn.work import NUMBERS

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def report() -> Report:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(gpucheck.REQUIRE, raising=False)  # a front end that is missing fails by itself
        return gpucheck.checked(list(FRONTS), [], list(NUMBERS))


def missing(reason: str) -> Any:
    if os.environ.get(gpucheck.REQUIRE, "") not in ("", "0"):
        pytest.fail(f"{gpucheck.REQUIRE} is set: {reason}")
    pytest.skip(reason)


@pytest.mark.parametrize("precision", NUMBERS)
@pytest.mark.parametrize("front", FRONTS)
def test_a_front_end_agrees_on_cudnn(report: Report, front: str, precision: str) -> None:
    if precision not in FRONTS[front].precisions:
        pytest.skip(f"{front} has no {precision}")
    rows = [row for row in report.rows if (row.front, row.asked) == (front, precision)]
    if (front, precision) in report.missing:
        missing(f"{front}: {report.missing[front, precision]}")
    assert rows
    refused = [row for row in rows if row.verdict == REFUSED]
    wrong = [row for row in rows if row.verdict not in (AGREES, REFUSED)]
    assert not wrong, wrong[0]
    if refused:
        missing(f"{front}: {refused[0].work}: {'; '.join(refused[0].notes)}")
    assert any(row.proven for row in rows)


def test_the_whole_report_agrees(report: Report) -> None:
    if not report.proven:
        reasons = dict.fromkeys(report.missing.values())
        missing(f"cuDNN did not compute anything: {' | '.join(reasons)}")
    assert report.status == 0, f"{report}"
