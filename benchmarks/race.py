"""Competitors timed in turn in one run: a process for each, all alive, one awake at a time.

Before a problem is timed every competitor's outputs are compared with its float64 solution; who is
further off than BOUND, or takes over TOO_LONG, is not timed. Then come rounds: in each, every
competitor in turn runs the problem for a block of time, in the next one in reverse order; a round's
figure is the median of the calls in the block. A process that is not being timed is stopped, so
that no thread of its pool spins on a core that another one needs. For one thread the processes are
held on one core.

Run by bench_step.py and bench_sequence.py, and by itself as the process of one competitor.
"""

import argparse
import contextlib
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from shapes import Shape, load, problem

# Worst errors seen are 2e-6 and 2e-15: these catch a wrong gate, not rounding.
BOUND = {"float32": 1e-5, "float64": 1e-13}
TOO_LONG = 1.5  # seconds a call, after which the one call that was made is the figure
LONG = 0.1  # seconds a call, from which a block is one call
PATIENCE = 300  # seconds without an answer, after which a process is given up

Row = dict[str, Any]  # shape, threads, and for each competitor what is known about it


# --- a competitor's process ---


def block(run: Callable[[], Any], seconds: float) -> tuple[float, float]:
    """The median and the minimum of calls one after another for so long, in seconds a call.

    The first call is not counted, because the process has just been woken up, unless it is LONG.
    Short calls are timed in groups, so that reading the clock weighs less than 1 %.
    """
    clock = time.perf_counter
    started = clock()
    run()
    once = clock() - started
    if once > LONG:
        return once, once
    started = clock()
    run()
    times = [clock() - started]
    group = max(1, int(20e-6 / times[0]))
    for _ in range(min(20_000, int(seconds / (times[0] * group)))):
        started = clock()
        for _ in range(group):
            run()
        times.append((clock() - started) / group)
    return statistics.median(times), min(times)


class Competitor:
    """Answers the driver's messages, one a line."""

    def __init__(self, name: str, threads: int) -> None:
        from peers import FACTORIES

        self.make = FACTORIES[name](threads)
        self.runs: list[Callable[[], Any]] = []

    def prepare(self, path: str, shape: list[Any]) -> dict[str, Any]:
        """Make the program and compare its outputs with the solution: the largest error."""
        import numpy as np
        from peers import Skip

        self.runs = []
        try:
            given = load(Path(path), Shape(*shape))
            self.runs, result = self.make(given)
            for run in self.runs:  # what is compiled at the first call is
                run()
            if result is None:
                return {}
            found = [np.asarray(part) for part in result()]
            errors = []
            for got, want in zip(found, given.expected, strict=True):
                if got.shape != want.shape or got.dtype.name != given.shape.dtype:
                    return {"skipped": f"returned {got.dtype} {got.shape}"}
                errors.append(float(np.abs(got - want).max()))
            error = float(np.max(errors))  # NaN if one is NaN, which max() may miss
        except Skip as skip:
            return {"skipped": str(skip)}
        if not error <= BOUND[given.shape.dtype]:
            return {"skipped": f"wrong by {error:.1e}", "error": error}
        return {"error": error}

    def settle(self) -> dict[str, Any]:
        """Warm up, and keep the fastest of the ways to run; seconds of a call."""
        seconds = [block(run, 0.01)[0] for run in self.runs]
        fastest = min(range(len(seconds)), key=seconds.__getitem__)
        self.runs = [self.runs[fastest]]
        return {"seconds": seconds[fastest]}

    def time(self, seconds: float) -> dict[str, Any]:
        median, least = block(self.runs[0], seconds)
        return {"median": median, "minimum": least}


def serve(make: Callable[[str, int], Any], name: str, threads: int) -> None:
    """Be a competitor's process: messages on standard input, answers on what was its output.

    make  of a name and a number of threads: what has a method for each message
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        competitor = make(name, threads)
        answers.write(json.dumps({}) + "\n")
    except ImportError as error:
        answers.write(json.dumps({"missing": str(error)}) + "\n")
        return
    for line in sys.stdin:
        message = json.loads(line)
        try:
            answer = getattr(competitor, message.pop("do"))(**message)
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {str(error)[:300]}"}
        answers.write(json.dumps(answer) + "\n")


# --- the driver ---


class Process:
    """A competitor's process as the driver sees it; stopped whenever it is not asked anything.

    command  what it is; by default this script, serving by that name
    """

    def __init__(self, name: str, threads: int, command: Sequence[str] = ()) -> None:
        self.name, self.threads = name, threads
        variables = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA", "VECLIB_MAXIMUM")
        environment = {f"{v}_NUM_THREADS": str(threads) for v in variables}
        environment |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
        script = [sys.executable, __file__, "--serve", name, "--threads", str(threads)]
        self.popen = subprocess.Popen(
            list(command) or script,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | environment,
        )

    def send(self, **message: Any) -> None:
        with contextlib.suppress(BrokenPipeError, ProcessLookupError):
            os.kill(self.popen.pid, signal.SIGCONT)
            assert self.popen.stdin
            self.popen.stdin.write(json.dumps(message) + "\n")
            self.popen.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The next answer, after which the process is stopped."""
        assert self.popen.stdout
        ready, _, _ = select.select([self.popen.stdout], [], [], PATIENCE)
        line = self.popen.stdout.readline() if ready else ""
        if not line:
            self.popen.kill()
            return {"failed": f"no answer in {PATIENCE} s" if not ready else "its process ended"}
        os.kill(self.popen.pid, signal.SIGSTOP)
        return dict(json.loads(line))

    def ask(self, **message: Any) -> dict[str, Any]:
        self.send(**message)
        return self.answer()

    def hold(self, cores: Iterable[int]) -> None:
        """Let all its threads run on these cores alone, where the system can do that."""
        for task in Path(f"/proc/{self.popen.pid}/task").glob("*"):
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(task.name), cores)


@contextlib.contextmanager
def started(processes: list[Process]) -> Iterator[list[Process]]:
    """The processes of all whose library is there; the others are said on the screen."""
    try:
        answers = [process.answer() for process in processes]
        for process, answer in zip(processes, answers, strict=True):
            for why in answer.values():
                print(f"left out: {process.name}: {why}", flush=True)
        yield [p for p, answer in zip(processes, answers, strict=True) if not answer]
    finally:
        for process in processes:
            process.popen.kill()
            process.popen.wait()


def race(shape: Shape, processes: list[Process], rounds: int, seconds: float) -> Row:
    """All that is known about one shape: errors, and each round's figures."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problem.npz"
        problem(shape).save(path)
        found = timed(processes, rounds, seconds, path=str(path), shape=list(shape))
    return {"shape": list(shape), "threads": processes[0].threads, "found": found}


def timed(
    processes: list[Process], rounds: int, seconds: float, **problem: Any
) -> dict[str, dict[str, Any]]:
    """What is known about each competitor on a problem: its error, and each round's figures."""
    threads = processes[0].threads
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    for process in processes:
        process.hold(cores)
        process.send(do="prepare", **problem)
    found = {process.name: process.answer() for process in processes}
    racing = []
    for process in processes:
        known = found[process.name]
        if "skipped" in known or "failed" in known:
            continue
        process.hold(cores[-threads:])
        known |= process.ask(do="settle")
        if "failed" not in known and known["seconds"] < TOO_LONG:
            known |= {"medians": [], "minima": []}
            racing.append(process)
    for k in range(rounds):
        for process in racing if k % 2 == 0 else racing[::-1]:
            known, answer = found[process.name], process.ask(do="time", seconds=seconds)
            if "median" in answer:
                known["medians"].append(answer["median"])
                known["minima"].append(answer["minimum"])
            else:
                known |= answer
    for name, known in found.items():
        if "failed" in known:
            print(f"  failed: {name}: {known['failed']}", flush=True)
    return found


# --- one question ---


def main(question: str, shapes: list[Shape], arguments: list[str] | None = None) -> None:
    """The command line of bench_step.py and bench_sequence.py."""
    from peers import FACTORIES
    from report import print_rows

    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--rounds", type=int, default=7, help="7 by default")
    parser.add_argument("--seconds", type=float, default=0.02, help="of a block, 0.02 by default")
    parser.add_argument("--threads", default="1,2", help="1,2 by default")
    parser.add_argument("--only", help="competitors, with commas; all by default")
    parser.add_argument("--quick", action="store_true", help="no shape of over 5e7 multiply-adds")
    parser.add_argument("--json", type=Path, help="write what was measured there")
    options = parser.parse_args(arguments)
    names = options.only.split(",") if options.only else list(FACTORIES)
    if options.quick:
        shapes = [shape for shape in shapes if shape.work < 5e7]
    rows: list[Row] = []
    for threads in map(int, options.threads.split(",")):
        with started([Process(name, threads) for name in names]) as processes:
            for shape in shapes:
                rounds = options.rounds if shape.work < 1e10 else max(2, options.rounds // 2)
                rows.append(race(shape, processes, rounds, options.seconds))
                print_rows(rows[-1:])
    if options.json:
        options.json.write_text(json.dumps(rows))


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of the distributions that are installed."""
    found = {}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    serve(Competitor, options.serve, options.threads)
