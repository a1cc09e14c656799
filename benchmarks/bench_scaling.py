"""How do time and memory grow with the steps, the rows and the units? One thread.

Growth is the exponent between two neighbouring sizes: 1 where twice the size costs twice the time.
Memory is what Python allocates beyond the input and the output (tracemalloc), and for a long stream
how much the process grows.

python benchmarks/bench_scaling.py
python benchmarks/bench_scaling.py --quick  # does it work?
"""

import argparse
import json
import math
import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from race import Row, block
from shapes import Problem, Shape, problem

from refrnn import Weights, kernels, reference
from refrnn.cells import CELLS, LSTMState

ROUNDS, BLOCK, LARGE = 5, 0.02, 1e8
MILLION = 1_000_000

# what grows, on which axis of (B, T, F, H), and the sizes
AXES: tuple[tuple[str, tuple[int, int, int, int], int, tuple[int, ...]], ...] = (
    ("steps T of (1, T, 8, 64)", (1, 0, 8, 64), 1, (1, 10, 100, 1000, 10_000, 100_000)),
    ("rows B of (B, 25, 8, 64)", (0, 25, 8, 64), 0, (1, 2, 4, 8, 16, 64, 256, 1024, 4096)),
    ("units H of (1, 100, 8, H)", (1, 100, 8, 0), 3, (1, 8, 16, 32, 33, 64, 128, 256, 512, 1024)),
    ("units H of (32, 20, 8, H)", (32, 20, 8, 0), 3, (1, 8, 16, 32, 33, 64, 128, 256, 512, 1024)),
)


def runs(p: Problem) -> dict[str, Callable[[], Any]]:
    """The kernels, and the NumPy engine where that is not endless."""
    cell, state = CELLS["lstm"], LSTMState(*p.state)
    weights = Weights(p.kernel, p.recurrent, p.bias)
    packed = kernels.pack(cell, weights)
    found: dict[str, Callable[[], Any]] = {"numba": lambda: packed.run(p.xs, state, threads=1)}
    if p.shape.work < LARGE:
        found["numpy"] = lambda: reference.run(cell, weights, p.xs, state)
    return found


def grown(rounds: int, quick: bool) -> list[Row]:
    """Time and memory of every size of every axis."""
    rows = []
    for what, sizes, axis, values in AXES:
        for value in values:
            shape = Shape("lstm", *(value if k == axis else n for k, n in enumerate(sizes)))
            if quick and shape.work > LARGE / 10:
                continue
            p = problem(shape)
            programs = runs(p)
            times: dict[str, list[float]] = {name: [] for name in programs}
            for k in range(rounds):
                for name in list(programs) if k % 2 == 0 else list(programs)[::-1]:
                    times[name].append(block(programs[name], BLOCK)[0])
            memory = {name: extra(run, p) for name, run in programs.items()}
            rows.append({"what": what, "size": value, "times": times, "memory": memory})
    return rows


def extra(run: Callable[[], Any], p: Problem) -> int:
    """The most bytes that were allocated at once during a run, beyond what it returns."""
    run()
    tracemalloc.start()
    ys, state = run()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return int(most - ys.nbytes - sum(part.nbytes for part in state))


def resident() -> int:
    """Bytes of memory that this process has, or 0 where the system does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next(x for x in status.read_text().splitlines() if x.startswith("VmRSS"))
    return 1024 * int(line.split()[1])


def streamed(steps: int) -> Row:
    """A stream of so many steps: seconds, and bytes gained after the first thousand."""
    p = problem(Shape("lstm", 1, 1, 3, 32))
    packed = kernels.pack(CELLS["lstm"], Weights(p.kernel, p.recurrent, p.bias))
    step, x = packed.stepper(LSTMState(*p.state)).step, p.xs[:, 0]
    for _ in range(1000):
        step(x)
    before, started = resident(), time.perf_counter()
    for _ in range(steps):
        step(x)
    seconds, after = time.perf_counter() - started, resident()
    tracemalloc.start()
    step(x)
    begin = tracemalloc.get_traced_memory()[0]
    for _ in range(steps // 10):
        step(x)
    gained = tracemalloc.get_traced_memory()[0] - begin
    tracemalloc.stop()
    return {"steps": steps, "seconds": seconds, "resident": after - before, "traced": gained}


def markdown(found: dict[str, Any], table: Callable[..., str], micro: Callable[..., str]) -> str:
    parts = ["## Growth (LSTM, float32, 1 thread)"]
    for what, *_ in AXES:
        lines, last = [], None
        for row in (r for r in found["grown"] if r["what"] == what):
            medians = {name: statistics.median(t) for name, t in row["times"].items()}
            growth = ""
            if last:
                ratio = medians["numba"] / last[1]
                growth = f"{math.log(ratio) / math.log(row['size'] / last[0]):.2f}"
            last = row["size"], medians["numba"]
            low, high = min(row["times"]["numba"]), max(row["times"]["numba"])
            numpy = micro(medians["numpy"]) if "numpy" in medians else "-"
            lines.append([
                str(row["size"]), micro(medians["numba"]), f"{micro(low)} to {micro(high)}", growth,
                numpy, f"{row['memory']['numba'] / 1024:.1f}",
            ])  # fmt: skip
        head = ("size", "numba, us", "least to most", "growth", "numpy, us", "extra memory, KiB")
        parts += [f"### {what}", table(head, lines)]
    stream = found["stream"]
    parts.append(
        f"A stream of {stream['steps']:,} steps of LSTM(32): {stream['seconds']:.2f} s; the process"
        f" grew by {stream['resident'] / 1024:.0f} KiB, and Python's memory by"
        f" {stream['traced']} bytes in {stream['steps'] // 10:,} further steps."
    )
    return "\n\n".join(parts)


def main() -> None:
    from report import micro, table

    parser = argparse.ArgumentParser(description="How do time and memory grow?")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"{ROUNDS} by default")
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--json", type=Path, help="write what was measured there")
    options = parser.parse_args()
    steps = MILLION // 20 if options.quick else MILLION
    found = {"grown": grown(options.rounds, options.quick), "stream": streamed(steps)}
    print(markdown(found, table, micro))
    if options.json:
        options.json.write_text(json.dumps(found))


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
