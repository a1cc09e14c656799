"""What does a program pay before its first output: imports, compiling, and loading what was kept?

Whole processes, each fresh, in turn, round by round; medians, and in brackets the least and the
most. Compiled code goes to a folder of its own, empty where "nothing kept" is said. Verified first:
`import refrnn` must not load what it promises not to.

python benchmarks/bench_startup.py
python benchmarks/bench_startup.py --rounds 2  # does it work?
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from race import Row

CHECK = """
import sys, refrnn
heavy = {"tensorflow", "keras", "torch", "h5py", "numba"} & set(sys.modules)
assert not heavy, f"import refrnn loads {heavy}"
"""
FIRST = """
import sys, time
import numpy as np
from refrnn import layers
x = np.zeros((1, 1, 3), {dtype!r})
layer = layers.{cell}(32, engine={engine!r}, dtype={dtype!r})
layer.build(x.shape)
started = time.perf_counter()
layer(x)
sys.stderr.write(str(time.perf_counter() - started))
"""
KERAS = """
import numpy as np, keras
model = keras.Sequential([keras.Input((1, 3)), keras.layers.LSTM(32)])
model(np.zeros((1, 1, 3), "float32"))
"""
TORCH = """
import torch
with torch.inference_mode():
    torch.nn.LSTM(3, 32, batch_first=True)(torch.zeros(1, 1, 3))
"""
JAX = """
import jax, jax.numpy as jnp
jax.jit(lambda x, W: jnp.tanh(x @ W))(jnp.zeros((1, 3)), jnp.zeros((3, 32))).block_until_ready()
"""
# what a process does, by name
IMPORTS = {"python": "pass", "import numpy": "import numpy", "import refrnn": "import refrnn"}
LIBRARIES = ("numba", "torch", "keras", "onnxruntime", "openvino", "jax")
SLOW = 3  # rounds of what takes seconds
OTHERS = {
    "refrnn, numpy engine": FIRST.format(cell="LSTM", engine="numpy", dtype="float32"),
    "keras model(x)": KERAS,
    "torch": TORCH,
    "JAX (a product and tanh)": JAX,
}
KERNELS = [
    (cell, dtype) for cell in ("LSTM", "GRU", "SimpleRNN") for dtype in ("float32", "float64")
]


def whole(program: str, folder: str) -> tuple[float, float]:
    """Seconds of a whole process, and of the first call where it says so."""
    environment = os.environ | {"NUMBA_CACHE_DIR": folder, "TF_CPP_MIN_LOG_LEVEL": "3"}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    try:
        return seconds, float(done.stderr)
    except ValueError:
        return seconds, float("nan")


def works(name: str, program: str, folder: str) -> bool:
    """Run once: what is not installed is said and left out, what is is in the disk's cache."""
    try:
        whole(program, folder)
    except subprocess.CalledProcessError as error:
        print(f"left out: {name}: {error.stderr.strip().splitlines()[-1]}")
        return False
    return True


def measure(rounds: int) -> list[Row]:
    """A row a figure: its section, its name, and seconds round by round."""
    subprocess.run([sys.executable, "-c", CHECK], check=True)
    found: dict[tuple[str, str], list[float]] = {}

    def keep(section: str, name: str, seconds: float) -> None:
        found.setdefault((section, name), []).append(seconds)

    with tempfile.TemporaryDirectory() as kept:
        imports = IMPORTS | {f"import {name}": f"import {name}" for name in LIBRARIES}
        imports = {name: p for name, p in imports.items() if works(name, p, kept)}
        others = {name: p for name, p in OTHERS.items() if works(name, p, kept)}
        for k in range(rounds):
            for name, program in imports.items():
                if k < SLOW or name in IMPORTS:
                    keep("import", name, whole(program, kept)[0])
            for cell, dtype in KERNELS:
                program = FIRST.format(cell=cell, engine="numba", dtype=dtype)
                if k < (SLOW if (cell, dtype) == KERNELS[0] else 1):
                    with tempfile.TemporaryDirectory() as nothing:
                        total, call = whole(program, nothing)
                    keep("first call, nothing kept", f"{cell} {dtype}", call)
                    if (cell, dtype) == KERNELS[0]:
                        keep("first output", "refrnn, nothing kept", total)
                        whole(program, kept)
                if (cell, dtype) == KERNELS[0]:
                    total, call = whole(program, kept)
                    keep("first call, loaded from disk", f"{cell} {dtype}", call)
                    keep("first output", "refrnn, loaded from disk", total)
            for name, program in others.items():
                if k < SLOW:
                    keep("first output", name, whole(program, kept)[0])
    return [{"section": s, "name": n, "seconds": seconds} for (s, n), seconds in found.items()]


TITLES = {
    "import": "Whole processes that only import",
    "first call, nothing kept": "The first call of a layer, its kernel compiled in it",
    "first call, loaded from disk": "The first call of a layer, its kernel loaded from disk",
    "first output": "From the start of Python to the first output of LSTM(32), one step",
}


def markdown(rows: list[Row], table: Callable[..., str]) -> str:
    medians = {row["name"]: statistics.median(row["seconds"]) for row in rows}
    parts = ["## Start-up"]
    for section, title in TITLES.items():
        lines = []
        for row in (r for r in rows if r["section"] == section):
            seconds = row["seconds"]
            spread = f"{min(seconds):.3f} to {max(seconds):.3f}"
            lines.append([row["name"], f"{statistics.median(seconds):.3f}", spread])
        parts += [f"### {title}", table(("", "seconds", "least to most"), lines)]
    bare = medians["python"]
    ratio = (medians["import refrnn"] - bare) / (medians["import numpy"] - bare)
    parts.append(f"import refrnn / import numpy, without Python's own start: {ratio:.2f}")
    cached = next(r for r in rows if r["section"] == "first call, loaded from disk")
    median = statistics.median(cached["seconds"])
    parts.append(
        f"Goal: first call with code from disk under 0.5 s: {median:.2f} s,"
        f" {'met' if median < 0.5 else '**not met**'}."
    )
    return "\n\n".join(parts)


def main() -> None:
    from report import table

    parser = argparse.ArgumentParser(description="What does a program pay before its first output?")
    parser.add_argument(
        "--rounds", type=int, default=10, help="10 by default; at most 3 of what takes seconds"
    )
    parser.add_argument("--json", type=Path, help="write what was measured there")
    options = parser.parse_args()
    rows = measure(options.rounds)
    print(markdown(rows, table))
    if options.json:
        options.json.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
