"""The processes, one for each front end and precision, and what becomes of them."""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from refrnn.gpucheck.cases import Job
from refrnn.gpucheck.judging import Row, judged
from refrnn.oracles import Unavailable
from refrnn.oracles.cudnn import fronts, host, log
from refrnn.oracles.cudnn.fronts import FRONTS
from refrnn.oracles.cudnn.work import Answer
from refrnn.oracles.process import Apart

AT_ONCE = 4  # processes: each holds a CUDA context and the libraries of a framework


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
        oracle = Apart(made_by, variables)
        return Child(oracle, dict(oracle.ask("start", precision)))
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
    with tempfile.TemporaryDirectory(prefix="refrnn-gpucheck-") as folder:

        def group(made_by: str, precision: str, names: list[str]) -> None:
            own = {
                k: job
                for k, job in enumerate(jobs)
                if job.front in names and job.work.precision == precision
            }
            if own:
                _group(done, own, lambda: start(made_by, precision, folder))

        with ThreadPoolExecutor(min(AT_ONCE, os.cpu_count() or 1)) as pool:
            for future in [pool.submit(group, *each) for each in groups]:
                future.result()
    done.rows = dict(sorted(done.rows.items()))
    return done


def _group(done: Done, jobs: Mapping[int, Job], start: Callable[[], Child]) -> None:
    """The jobs of one process. Where it ends early, what is left is missing."""
    try:
        child = start()
        for k, (front, work) in jobs.items():
            answer: Answer = child.oracle.ask("run", work, FRONTS[front].way)
            done.answers[k] = answer
            done.rows[k] = judged(front, work, answer, child.flags)
            if front not in done.versions:
                done.versions[front] = dict(child.oracle.ask("versions"))
    except (Unavailable, RuntimeError) as error:
        for k, (front, work) in jobs.items():
            if k not in done.answers:
                done.missing[front, work.precision] = str(error)
