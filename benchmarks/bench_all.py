"""Every benchmark, one after another, and benchmarks/results.md written from what they measured.

python benchmarks/bench_all.py
python benchmarks/bench_all.py --rounds 2 --quick --results /tmp/results.md  # does it work?

With --parts FOLDER the measurements are kept there; what is there already is not measured again.
"""

import argparse
import datetime
import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bench_scaling
import bench_startup
import bench_training
import report

HERE = Path(__file__).parent
QUICK = ("step", "sequence", "scaling")  # those that know --quick

ABOUT = """\
Times are microseconds a call unless said otherwise; B rows, T steps, F features, H units.
Competitors race as `race.py` says: a process each, one awake at a time, in turn, the order reversed
every round; a figure is the median over the rounds of the medians of a round, a ratio the median
over the rounds of the ratio within a round, with quartiles in brackets. "best peer" is the one with
the largest such ratio. Outputs are compared with a float64 solution before anything is timed.

"numba" is `refrnn.kernels` alone (`Packed.run`, for one step `Stepper.step`): a fresh output a
call, no checks of arguments, as the peers have it on their own tensors. "layer" is the call of
`refrnn.layers.LSTM` or `GRU`. The floor is the products that nothing can avoid, of the input and of
the state, through a BLAS and without anything else. A ratio below 1 is faster."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Every benchmark, and results.md from it.")
    parser.add_argument("--rounds", type=int, help="of each benchmark, instead of its own number")
    parser.add_argument("--quick", action="store_true", help="small shapes only")
    parser.add_argument("--parts", type=Path, help="folder to keep measurements in")
    parser.add_argument("--results", type=Path, default=HERE / "results.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.parts or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        for name in ("startup", "scaling", "step", "sequence", "training"):
            if (folder / f"{name}.json").exists():
                continue
            command = [sys.executable, str(HERE / f"bench_{name}.py")]
            command += ["--json", str(folder / f"{name}.json")]
            command += ["--rounds", str(options.rounds)] if options.rounds else []
            command += ["--quick"] if options.quick and name in QUICK else []
            print(f"--- {name}", flush=True)
            subprocess.run(command, check=True)
            print(f"--- {name}: done, {time.perf_counter() - started:.0f} s so far", flush=True)
        parts = {p.stem: json.loads(p.read_text()) for p in folder.glob("*.json")}
        minutes = (time.perf_counter() - started) / 60
    raced = parts["step"] + parts["sequence"]
    machine, versions = report.machine_text()
    head = [
        "# Benchmarks: what was measured",
        f"Written by `benchmarks/bench_all.py`; `python {shlex.join(sys.argv)}`,"
        f" {minutes:.0f} minutes, {datetime.date.today()}.",
        f"Machine: {machine}.",
        f"Versions: {versions}.",
        ABOUT,
    ]
    if options.quick:
        head.insert(1, "**A trial run with small shapes: these are no results.**")
    text = [
        *head,
        report.sections(raced),
        bench_startup.markdown(parts["startup"], report.table),
        bench_scaling.markdown(parts["scaling"], report.table, report.micro),
        bench_training.markdown(parts["training"]),
    ]
    options.results.write_text("\n\n".join(text) + "\n")
    print(f"written: {options.results}")


if __name__ == "__main__":
    main()
