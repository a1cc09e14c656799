"""The processes, one for each front end and precision, and what becomes of them."""

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from refrnn.commands import one_line
from refrnn.gpucheck.cases import Job
from refrnn.gpucheck.judging import Row, judged
from refrnn.oracles import Unavailable
from refrnn.oracles.cudnn import fronts, host, log
from refrnn.oracles.cudnn.fronts import FRONTS
from refrnn.oracles.cudnn.work import Answer
from refrnn.oracles.process import Apart, Ended

AT_ONCE = 4  # processes: each holds a CUDA context and the libraries of a framework
STARTING = 300.0  # seconds that a framework has to be loaded and to find the GPU
LIMIT = 90.0  # seconds that a case has, by which a process that hangs is known
KEEP = "REFRNN_KEEP_LOGS"  # the variable with the folder that cuDNN's logs are kept in


class Child(NamedTuple):
    """A front end that was started: its process, and what it said.

    flags      the precision's, as the framework reads them back
    """

    oracle: Any
    flags: dict[str, Any]


@dataclass
class Done:
    """What came of all.

    rows        by the job's number, in their order
    answers     likewise
    missing     by front end and precision: the step that was missing
    versions    by front end, of what was loaded
    """

    rows: dict[int, Row] = field(default_factory=dict)
    answers: dict[int, Answer] = field(default_factory=dict)
    missing: dict[tuple[str, str], str] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)


Start = Callable[[str, str, str], Child]


def started(made_by: str, precision: str, folder: str) -> Child:
    """A front end in a process of its own. Raises Unavailable, saying which step is missing."""
    variables = {**fronts.COMMON, **log.environment(folder)}
    try:
        oracle = Apart(made_by, variables, STARTING)
        flags = dict(oracle.ask("start", precision))
        oracle.limit = LIMIT
        return Child(oracle, flags)
    except RuntimeError as error:
        raise Unavailable(f"could not start: {error}") from None


def run(jobs: Sequence[Job], start: Start = started) -> Done:
    """All jobs, those of a front end and precision one after another in one process.

    Nothing is started where there is no driver: each front end is then only said to be there.
    """
    done = Done()
    able, precisions = [], list(dict.fromkeys(job.work.precision for job in jobs))
    for name in dict.fromkeys(job.front for job in jobs):
        steps = []
        for check in (host.check_driver, FRONTS[name].check_installed):
            try:
                check()
            except Unavailable as error:
                steps.append(str(error))
        if not steps:
            able.append(name)
        for precision in precisions if steps else []:
            if precision in FRONTS[name].precisions:
                done.missing[name, precision] = "; ".join(steps)
    groups = fronts.processes(able, precisions)
    with _logs() as folder, warnings.catch_warnings():
        # told once, and no error where warnings are: a slow engine has the same numbers
        warnings.filterwarnings("default", "refrnn runs on its NumPy engine", RuntimeWarning)

        def group(made_by: str, precision: str, names: list[str]) -> None:
            own = {
                k: job
                for k, job in enumerate(jobs)
                if job.front in names and job.work.precision == precision
            }
            if own:
                began = time.perf_counter()
                _group(done, own, lambda: start(made_by, precision, folder))
                told = f"{', '.join(names)} in {precision}: {sum(k in done.rows for k in own)}"
                seconds = time.perf_counter() - began
                print(f"{told} of {len(own)} cases, {seconds:.0f} s", file=sys.stderr, flush=True)

        with ThreadPoolExecutor(min(AT_ONCE, os.cpu_count() or 1)) as pool:
            for future in [pool.submit(group, *each) for each in groups]:
                future.result()
    done.rows = dict(sorted(done.rows.items()))
    return done


@contextmanager
def _logs() -> Iterator[str]:
    """The folder of cuDNN's logs: one that ends with the run, or a new one in that of KEEP."""
    kept = os.environ.get(KEEP)
    if kept:
        yield tempfile.mkdtemp(prefix="refrnn-gpucheck-", dir=Path(kept).resolve())
    else:
        with tempfile.TemporaryDirectory(prefix="refrnn-gpucheck-") as folder:
            yield folder


def _group(done: Done, jobs: Mapping[int, Job], start: Callable[[], Child]) -> None:
    """The jobs of one process. Where it ends early that job is refused, and the rest is missing."""
    try:
        child = start()
    except (Unavailable, RuntimeError) as error:
        for front, work in jobs.values():
            done.missing[front, work.precision] = str(error)
        return
    ended = ""
    for k, (front, work) in jobs.items():
        if ended:
            done.missing[front, work.precision] = ended
            continue
        try:
            answer: Answer = child.oracle.ask("run", work, FRONTS[front].way)
        except Exception as error:
            answer = Answer([], {}, False, one_line(error))
            ended = str(error) if isinstance(error, Ended) else ""
        row = judged(front, work, answer, child.flags)
        done.rows[k], done.answers[k] = row, answer
        if front not in done.versions and not ended:
            done.versions[front] = _versions(child)


def _versions(child: Child) -> dict[str, str]:
    try:
        return dict(child.oracle.ask("versions"))
    except Exception as error:
        return {"not told": one_line(error)}
