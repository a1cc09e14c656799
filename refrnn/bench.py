"""`refrnn bench`: what a layer of the user's own shape costs on each engine, on this machine.

The engines' outputs are compared first. Then they are timed in turn, round by round in reversed
order, beside the products alone, which no implementation can avoid, through NumPy's BLAS.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from refrnn import kernels, reference
from refrnn.cells import CELLS, AnyState, Cell, Weights
from refrnn.gates import Array
from refrnn.verify.table import here

TIMED, DIFFERS = 0, 1
HELP = "time the engines on a layer of your own shape"
DESCRIPTION = (
    "One layer with random weights: one step, its state carried on, or whole sequences. The outputs"
    " of the engines are compared before anything is timed. A floor is timed with them: only the"
    " products of the input and of the state with the weights, by NumPy's BLAS."
)
EPILOG = "Exit status: 0 timed, 1 the engines differ by more than rounding."

NUMBA, NUMPY, FLOOR = "numba", "numpy", "products alone"
BOUND = {"float32": 1e-5, "float64": 1e-13}  # many times the rounding, far less than a wrong gate
CHECKED = 10**8  # multiply-adds of the runs that are compared: the first rows and steps
ENDLESS = 2 * 10**9  # multiply-adds from which the NumPy engine takes many seconds
BLOCK = 0.05  # seconds that each is timed for in a round

Run = Callable[[], Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `refrnn bench` takes."""
    parser.add_argument("--cell", choices=sorted(CELLS), default="lstm", help="lstm by default")
    parser.add_argument("--rows", type=_count, default=1, metavar="B", help="1 by default")
    parser.add_argument(
        "--steps", type=_count, default=1, metavar="T", help="1 by default: a stream, step by step"
    )
    parser.add_argument("--features", type=_count, default=8, metavar="F", help="8 by default")
    parser.add_argument("--units", type=_count, default=32, metavar="H", help="32 by default")
    parser.add_argument("--dtype", choices=tuple(BOUND), default="float32")
    parser.add_argument(
        "--threads", type=_count, metavar="N",
        help="of the numba engine; by default as many as it would use",
    )  # fmt: skip
    parser.add_argument("--rounds", type=_count, default=7, metavar="N", help="7 by default")


def _count(text: str) -> int:
    """A whole number from 1 on."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1 on")
    return number


def run(options: argparse.Namespace) -> int:
    """`refrnn bench`; 0: timed, 1: the engines differ."""
    cell, threads = CELLS[options.cell], options.threads
    B, T, F, H = options.rows, options.steps, options.features, options.units
    versions, machine = here()
    print(f"{cell.name}, {options.dtype}: rows {B}, steps {T}, features {F}, units {H}")
    print(f"{machine}; {', '.join(f'{name} {v}' for name, v in versions.items())}")

    weights, xs, state = drawn(cell, B, T, F, H, np.dtype(options.dtype))
    work = B * T * (F + H) * len(cell.gates) * H
    runs = {FLOOR: products(weights, xs, state)}
    try:
        packed = kernels.pack(cell, weights)
    except kernels.CompileError as error:
        print(f"left out: {NUMBA}: {error}")
    else:
        most = difference(cell, weights, xs, state, work, threads)
        if not most <= BOUND[options.dtype]:
            print(f"the engines differ by {most:.1e}, expected at most {BOUND[options.dtype]:.0e}")
            return DIFFERS
        print(f"the engines agree: the largest difference is {most:.1e}")
        runs[NUMBA] = kernel_run(packed, xs, state, threads)
    if work <= ENDLESS:
        runs[NUMPY] = lambda: reference.run(cell, weights, xs, state)
    else:
        print(f"left out: {NUMPY}: {work / 1e9:.0f} billion multiply-adds would take too long")
    print(table(timed(runs, options.rounds)))
    return TIMED


def drawn(
    cell: Cell, B: int, T: int, F: int, H: int, dtype: np.dtype[Any]
) -> tuple[Weights, Array, AnyState]:
    """Random weights, input (B, T, F) and the zero state."""
    rng = np.random.default_rng(0)
    columns = len(cell.gates) * H
    bias = (2, columns) if cell.name == "gru" else (columns,)
    weights = Weights(
        *(
            rng.normal(0, 1 / np.sqrt(F + H), size).astype(dtype)
            for size in ((F, columns), (H, columns), bias)
        )
    )
    return weights, rng.normal(size=(B, T, F)).astype(dtype), cell.zeros(B, H, dtype)


def kernel_run(packed: kernels.Packed, xs: Array, state: AnyState, threads: int | None) -> Run:
    """A whole run from the state, or of one step a step that goes on from the last one."""
    if xs.shape[1] > 1:
        return lambda: packed.run(xs, state, threads=threads)
    step, x = packed.stepper(state, threads).step, xs[:, 0]
    return lambda: step(x)


def products(weights: Weights, xs: Array, state: AnyState) -> Run:
    """All steps' products of the input at once, then one of the state for each step."""
    B, T, F = xs.shape
    W, U = weights.kernel, weights.recurrent_kernel
    flat, h = xs.reshape(B * T, F), state.h
    x_out, h_out = np.empty((B * T, W.shape[1]), W.dtype), np.empty((B, U.shape[1]), W.dtype)

    def run() -> None:
        np.dot(flat, W, out=x_out)
        for _ in range(T):
            np.dot(h, U, out=h_out)

    return run


def difference(
    cell: Cell, weights: Weights, xs: Array, state: AnyState, work: int, threads: int | None
) -> float:
    """The largest difference between the engines, on as much of the input as is quick to run."""
    B, T, _ = xs.shape
    rows = max(1, min(B, B * T * CHECKED // (work * T)))
    steps = max(1, min(T, B * T * CHECKED // (work * rows)))
    xs, state = xs[:rows, :steps], type(state)(*(part[:rows] for part in state))
    want, _ = reference.run(cell, weights, xs, state)
    got, _ = kernels.run(cell, weights, xs, state, threads=threads)
    return float(np.abs(got - want).max())


def timed(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Seconds a call, round by round."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for name in runs:
        runs[name]()
    for k in range(rounds):
        for name in list(runs) if k % 2 == 0 else reversed(runs):
            found[name].append(_block(runs[name]))
    return found


def _block(run: Run) -> float:
    """Seconds a call, over BLOCK seconds; the first call is for the caches."""
    clock = time.perf_counter
    started = clock()
    run()
    once = clock() - started
    if once > BLOCK:
        return once
    calls = max(1, int(BLOCK / once))
    started = clock()
    for _ in range(calls):
        run()
    return (clock() - started) / calls


def table(found: dict[str, list[float]]) -> str:
    """Medians, the least and the most, and the first engine's part of each, round by round."""
    order = [name for name in (NUMBA, NUMPY, FLOOR) if name in found]
    first = found[order[0]]
    lines = [f"{'':16}{'median us':>12}{'least':>12}{'most':>12}   {order[0]} / this"]
    for name in order:
        times = found[name]
        numbers = (statistics.median(times), min(times), max(times))
        ratio = statistics.median(a / b for a, b in zip(first, times, strict=True))
        lines.append(
            f"{name:16}" + "".join(f"{_micro(n):>12}" for n in numbers) + f"   {ratio:.3g}"
        )
    return "\n".join(lines)


def _micro(seconds: float) -> str:
    return f"{1e6 * seconds:,.0f}" if seconds >= 1e-4 else f"{1e6 * seconds:.2f}"
