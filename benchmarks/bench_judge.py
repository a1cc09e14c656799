"""What the judge is worth: false alarms, bugs caught, places and causes named, and what it costs.

Correct implementations and wrong ones are held against the envelope, and beside it against the
tolerances in use. Seeds are of this script's own, not those with which constants were chosen.

python benchmarks/bench_judge.py [--quick] [--runs 2000] [--only alarms mutants first causes cost]
"""

import argparse
import importlib
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from report import table
from shapes import Problem, Shape

from refrnn import kernels, reference
from refrnn.activations import ACTIVATIONS
from refrnn.cells import CELLS, Weights, dot
from refrnn.engines import run as run_refrnn
from refrnn.verify import MUTANTS, check, explain
from refrnn.verify.envelope import judge
from refrnn.verify.mutants import KINDS, Engine
from refrnn.verify.precisions import PRECISIONS
from refrnn.verify.subject import subject
from refrnn.verify.table import here
from refrnn.verify.tasks import Seen, Task

Array = np.ndarray
Outputs = list[Array]  # y (B, T, H) and each state after the last step
SEED = 2_000_000  # of everything here
SCALES = (0.1, 1.0, 5.0)
COUNTS = ("W", "P", "S")


# --- statistics ---


def upper(hits: int, runs: int, confidence: float = 0.95) -> float:
    """The upper limit of Clopper and Pearson (1934) of a share of which `hits` of `runs` are seen.

    One-sided; as if runs were independent, which those on the same weights are not.
    """
    if hits >= runs:
        return 1.0
    low, high = hits / runs, 1.0
    for _ in range(60):
        p = (low + high) / 2
        below = sum(
            math.exp(
                math.lgamma(runs + 1) - math.lgamma(k + 1) - math.lgamma(runs - k + 1)
                + k * math.log(p) + (runs - k) * math.log1p(-p)
            )
            for k in range(hits + 1)
        )  # fmt: skip
        low, high = (p, high) if below > 1 - confidence else (low, p)
    return high


def share(hits: int, runs: int) -> str:
    return f"{hits} of {runs} ({100 * hits / runs:.4g} %)" if runs else "none tried"


class Goal(NamedTuple):
    what: str
    goal: str
    measured: str
    met: bool


# --- what is judged ---


class Setting(NamedTuple):
    cell: str
    B: int
    T: int
    F: int
    H: int

    def task(self, scale: float, seed: int, masked: bool = False) -> Task:
        """Weights of `scale` times Glorot's, biases and states that are not zero."""
        row = CELLS[self.cell]
        rng = np.random.default_rng([SEED, seed, *(len(self.cell), *self[1:])])
        wide = len(row.gates) * self.H

        def glorot(rows: int) -> Array:
            limit = scale * np.sqrt(6 / (rows + self.H))
            return rng.uniform(-limit, limit, (rows, wide)).astype(np.float32)

        _, _, bias = row.shapes(self.F, self.H)
        weights = Weights(
            glorot(self.F), glorot(self.H), rng.uniform(-0.5, 0.5, bias).astype(np.float32)
        )
        xs = rng.normal(size=(self.B, self.T, self.F)).astype(np.float32)
        shape = self.B, self.H
        state = row.State(*(rng.uniform(-0.9, 0.9, shape).astype("f4") for _ in row.State._fields))
        mask = None
        if masked:
            mask = rng.random((self.B, self.T)) < 0.7
            mask[0, self.T // 2 :] = False
        return Task(row, weights, xs, state, mask)

    def problem(self, task: Task) -> Problem:
        """The same for the implementations of the race."""
        shape = Shape(self.cell, *self[1:])
        return Problem(shape, *task.weights, task.xs, list(task.state), [])


def in_float64(task: Task) -> Outputs:
    """The free run that fixed tolerances are held against."""
    wide = type(task.weights)(*(np.asarray(part, np.float64) for part in task.weights))
    state = type(task.state)(*(np.asarray(part, np.float64) for part in task.state))
    y, state = run_refrnn(task.cell.name, wide, task.xs.astype(np.float64), state, mask=task.mask)
    return [y, *state]


def margins(task: Task, outputs: Outputs) -> tuple[dict[str, float], float]:
    """The worst margin of each tier, and the median of S."""
    y, *state = outputs
    names = dict(zip(("h", "c"), state, strict=False))
    judged = judge(task, Seen(y, **names))
    worst = {
        tier: max(float(part.margin(tier).max(initial=0)) for part in judged.values())
        for tier in COUNTS
    }
    return worst, float(np.median(judged["y"].margin("S")))


# --- fixed tolerances ---

Rule = Callable[[Array, Array], bool]  # got, want -> passes


def allclose(rtol: float, atol: float) -> Rule:
    return lambda got, want: bool(np.allclose(got, want, rtol=rtol, atol=atol, equal_nan=True))


@cache
def rules() -> dict[str, Rule]:
    found = {
        "np.allclose 1e-5, 1e-6": allclose(1e-5, 1e-6),
        "np.allclose 1e-3, 1e-3": allclose(1e-3, 1e-3),
        "ONNX 1e-3, 1e-7": allclose(1e-3, 1e-7),
    }
    torch = library("torch")
    if torch is not None:

        def close(got: Array, want: Array) -> bool:
            try:
                pair = (torch.tensor(np.array(a, got.dtype, order="C")) for a in (got, want))
                torch.testing.assert_close(*pair, equal_nan=True)
            except AssertionError:
                return False
            return True

        found["torch.testing.assert_close"] = close
    return found


def passes(rule: Rule, got: Outputs, want: Outputs) -> bool:
    return all(rule(g, w) for g, w in zip(got, want, strict=True))


# --- correct implementations ---

missing: dict[str, str] = {}


@cache
def library(name: str) -> Any:
    """The module, or None, and then why it is missing is said at the end."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing[name] = str(error)
        return None


Runner = Callable[[Task], Outputs]


def numpy_engine(setting: Setting) -> Runner:
    def run(task: Task) -> Outputs:
        y, state = reference.run(task.cell, task.weights, task.xs, task.state, mask=task.mask)
        return [y, *state]

    return run


def compiled(setting: Setting) -> Runner:
    def run(task: Task) -> Outputs:
        y, state = kernels.pack(task.cell, task.weights).run(task.xs, task.state, mask=task.mask)
        return [y, *state]

    return run


def keras(mode: str) -> Callable[[Setting], Runner]:
    def make(setting: Setting) -> Runner:
        tf, keras = library("tensorflow"), library("keras")
        kind = {"simple": "SimpleRNN", "lstm": "LSTM"}.get(setting.cell, "GRU")
        options: dict[str, Any] = {"return_sequences": True, "return_state": True}
        if kind == "GRU":
            options["reset_after"] = setting.cell == "gru"
        layer = getattr(keras.layers, kind)(setting.H, **options)
        layer.build((setting.B, setting.T, setting.F))

        def call(x: Any, state: Any, mask: Any = None) -> Any:
            return layer(x, initial_state=state, mask=mask)

        function = call if mode == "eager" else tf.function(call, jit_compile=mode == "XLA")

        def run(task: Task) -> Outputs:
            layer.set_weights(list(task.weights))
            given = [tf.constant(task.xs), [tf.constant(part) for part in task.state]]
            given += [] if task.mask is None else [tf.constant(task.mask)]
            return [np.asarray(part) for part in function(*given)]

        return run

    return make


def raced(maker: str) -> Callable[[Setting], Runner]:
    """An implementation of the race, which is made anew for every set of weights."""

    def make(setting: Setting) -> Runner:
        peer = _factory(maker)

        def run(task: Task) -> Outputs:
            return [np.asarray(part) for part in peer(setting.problem(task)).result()]

        return run

    return make


@cache
def _factory(maker: str) -> Any:
    import peers

    return getattr(peers, maker)(1)


def jax_scan(setting: Setting) -> Runner:
    """As in the race, but compiled once for all weights."""
    jax = library("jax")
    jnp, sigmoid, tanh = jax.numpy, jax.nn.sigmoid, jax.numpy.tanh

    def lstm(U: Any, b: Any, state: Any, product: Any) -> Any:
        i, f, g, o = jnp.split(product + state[0] @ U, 4, axis=1)
        c = sigmoid(f) * state[1] + sigmoid(i) * tanh(g)
        return (sigmoid(o) * tanh(c), c), sigmoid(o) * tanh(c)

    def gru(U: Any, b: Any, state: Any, product: Any) -> Any:
        z, r, g = jnp.split(product, 3, axis=1)
        hz, hr, hg = jnp.split(state[0] @ U + b[1], 3, axis=1)
        z = sigmoid(z + hz)
        h = z * state[0] + (1 - z) * tanh(g + sigmoid(r + hr) * hg)
        return (h,), h

    @jax.jit
    def layer(W: Any, U: Any, b: Any, x: Any, *state: Any) -> Any:
        products = jnp.swapaxes(x @ W + (b if setting.cell == "lstm" else b[0]), 0, 1)
        step = lstm if setting.cell == "lstm" else gru
        state, ys = jax.lax.scan(lambda s, p: step(U, b, s, p), state, products)
        return jnp.swapaxes(ys, 0, 1), *state

    def run(task: Task) -> Outputs:
        return [np.asarray(part) for part in layer(*task.weights, task.xs, *task.state)]

    return run


class Implementation(NamedTuple):
    """masks: takes them. steps: runs of more take too long."""

    make: Callable[[Setting], Runner]
    cells: tuple[str, ...] = tuple(CELLS)
    needs: tuple[str, ...] = ()
    masks: bool = True
    steps: int = 1000


TENSORFLOW = ("tensorflow", "keras")
TWO = ("lstm", "gru")
IMPLEMENTATIONS = {
    "refrnn NumPy": Implementation(numpy_engine),
    "refrnn kernels": Implementation(compiled, needs=("numba",)),
    "TensorFlow eager": Implementation(keras("eager"), needs=TENSORFLOW, steps=100),
    "TensorFlow function": Implementation(keras("function"), needs=TENSORFLOW),
    "TensorFlow XLA": Implementation(keras("XLA"), needs=TENSORFLOW),
    "torch": Implementation(raced("torch_nn"), TWO, ("torch",), masks=False),
    "ONNX Runtime": Implementation(
        raced("onnx_runtime"), TWO, ("onnxruntime", "onnx"), masks=False
    ),
    "JAX": Implementation(jax_scan, TWO, ("jax",), masks=False),
}


# --- false alarms ---


class Row(NamedTuple):
    """One correct run."""

    by: str
    setting: Setting
    scale: float
    outputs: int
    worst: dict[str, float]
    middle: float
    alarms: dict[str, bool]  # of the fixed tolerances


def sizes(quick: bool) -> Iterator[tuple[int, int, int, int]]:
    """B, T, F, H."""
    for T in (1, 10, 100) if quick else (1, 10, 100, 1000):
        yield 3, T, 5, 4
        yield 3, T, 20, 64
        if T <= (10 if quick else 100):
            yield 2, T, 64, 512


def correct_runs(quick: bool, wanted: int) -> Iterator[Row]:
    used = {
        name: each
        for name, each in IMPLEMENTATIONS.items()
        if all(library(needed) is not None for needed in each.needs)
    }
    places = [
        (cell, size)
        for size in sizes(quick)
        for cell in CELLS
        if any(cell in each.cells for each in used.values())
    ]
    once = sum(
        len(SCALES)
        for cell, size in places
        for each in used.values()
        if cell in each.cells and size[1] <= each.steps and size[3] < 512
    )
    seeds = max(1, math.ceil(wanted / once))
    for cell, size in places:
        setting = Setting(cell, *size)
        runners = {
            name: each.make(setting)
            for name, each in used.items()
            if cell in each.cells and setting.T <= each.steps
        }
        for scale in SCALES:
            for seed in range(seeds if setting.H < 512 else 1):
                masked = seed % 2 == 1
                tasks = {
                    masked: setting.task(scale, seed, masked),
                    False: setting.task(scale, seed),
                }
                wants = {key: in_float64(task) for key, task in tasks.items()}
                for name, run in runners.items():
                    key = masked and used[name].masks
                    task, want = tasks[key], wants[key]
                    got = run(task)
                    worst, middle = margins(task, got)
                    alarms = {r: not passes(rule, got, want) for r, rule in rules().items()}
                    yield Row(name, setting, scale, got[0].size, worst, middle, alarms)


def alarms_of(rows: Sequence[Row]) -> list[str]:
    fixed = [share(sum(r.alarms[name] for r in rows), len(rows)) for name in rules()]
    return [
        str(len(rows)),
        f"{sum(r.outputs for r in rows):.2g}",
        *(str(sum(r.worst[t] >= 1 for r in rows)) for t in COUNTS),
        *(f"{max(r.worst[t] for r in rows):.2f}" for t in COUNTS),
        f"{np.median([r.middle for r in rows]):.3f}",
        *fixed,
    ]


def false_alarms(quick: bool, wanted: int) -> list[Goal]:
    rows = list(correct_runs(quick, wanted))
    head = (
        "runs", "outputs", "alarms W", "P", "S", "largest margin W", "P", "S", "median S", *rules(),
    )  # fmt: skip

    def by(title: str, key: Callable[[Row], Any]) -> None:
        groups = defaultdict(list)
        for row in rows:
            groups[key(row)].append(row)
        lines = [[str(name), *alarms_of(group)] for name, group in groups.items()]
        print(f"\n### By {title}\n\n" + table((title, *head), lines))

    print("\n## Correct implementations\n\n" + table(("", *head), [["all", *alarms_of(rows)]]))
    by("implementation", lambda r: r.by)
    by("steps", lambda r: r.setting.T)
    by("weights", lambda r: f"{r.scale:g} x Glorot")
    by("cell and units", lambda r: f"{r.setting.cell} {r.setting.H}")
    for row in rows:
        if row.worst["S"] >= 1 or row.worst["W"] >= 1:
            print(f"\nalarm: {row}")
    W, S = (sum(r.worst[t] >= 1 for r in rows) for t in "WS")
    limit = f"at most {100 * upper(S, len(rows)):.2g} % (95 %)"
    return [
        Goal("false alarms at W", "0", share(W, len(rows)), W == 0),
        Goal(
            "false alarms at S",
            "1 in 10,000",
            f"{share(S, len(rows))}, {limit}",
            S <= 1e-4 * len(rows),
        ),
    ]


# --- wrong implementations ---


class Heard(NamedTuple):
    """One call of a candidate."""

    x: Array
    state: Any
    mask: Any
    outputs: Outputs


def recorded(candidate: Any, heard: list[Heard]) -> Any:
    def run(x: Any, initial_state: Any = None, mask: Any = None) -> Any:
        outputs = candidate(x, initial_state, mask)
        heard.append(Heard(x, initial_state, mask, list(outputs)))
        return outputs

    return run


class Trial(NamedTuple):
    """One wrong implementation on one set of weights.

    margin   the largest S of all runs of `check`
    caught   by rule: in the whole run, and with the probe batch
    credible the same, where the rule passes the right implementation on the same input
    """

    name: str
    kind: str
    setting: Setting
    margin: float
    caught: dict[str, tuple[bool, bool]]
    credible: dict[str, tuple[bool, bool]]


class Right(NamedTuple):
    """The right implementation in float32, and in float64, of one layer."""

    single: Any
    double: Any

    def outputs(self, call: Heard) -> Outputs:
        return list(self.single(call.x, call.state, call.mask))

    def alarms(self, call: Heard, outputs: Outputs) -> dict[str, bool]:
        state = None if call.state is None else [np.asarray(s, np.float64) for s in call.state]
        want = list(self.double(np.asarray(call.x, np.float64), state, call.mask))
        return {name: not passes(rule, outputs, want) for name, rule in rules().items()}


def tried(mutant: Any, setting: Setting, task: Task) -> Trial | None:
    """None where every output of every call is that of the right implementation, to the bit."""
    layer = (setting.cell, task.weights)
    (part,) = subject(layer).parts
    heard: list[Heard] = []
    report = check(recorded(mutant.make(part), heard), layer, task.xs, list(task.state), task.mask)
    wide = part._replace(weights=Weights(*(a.astype(np.float64) for a in task.weights)))
    right = Right(Engine().implementation(part), Engine().implementation(wide))
    rights = [right.outputs(call) for call in heard]
    if all(
        np.array_equal(a, b, equal_nan=True)
        for call, outputs in zip(heard, rights, strict=True)
        for a, b in zip(call.outputs, outputs, strict=True)
    ):
        return None
    caught, credible = {}, {}
    for tier in ("W", "S"):
        whole = report.runs[0].margins[tier] >= 1
        caught[tier] = credible[tier] = whole, report.margins[tier] >= 1
    both = [
        (right.alarms(heard[k], heard[k].outputs), right.alarms(heard[k], rights[k]))
        for k in (0, -1)
    ]
    for name in rules():
        (wrong, false), (wrong_probe, false_probe) = ((a[name], b[name]) for a, b in both)
        caught[name] = wrong, wrong or wrong_probe
        credible[name] = (
            wrong and not false,
            (wrong and not false) or (wrong_probe and not (false or false_probe)),
        )
    return Trial(mutant.name, mutant.kind, setting, report.margin, caught, credible)


def mutants(quick: bool, wanted: int) -> list[Goal]:
    """Every mutant of every cell it can be made of; those equal to the bit are left out."""
    trials: list[Trial] = []
    equal = alarms = right_runs = 0
    places = [(4, 19, 5, 7, scale, masked) for scale in SCALES for masked in (False, True)]
    places += [] if quick else [(3, 33, 20, 64, 1.0, True)]
    for cell in CELLS:
        for k, (B, T, F, H, scale, masked) in enumerate(places if not quick else places[2:4]):
            setting = Setting(cell, B, T, F, H)
            task = setting.task(scale, 1000 + k, masked)
            layer = (cell, task.weights)
            engine = Engine().implementation(subject(layer).parts[0])
            right_runs += 1
            alarms += not check(engine, layer, task.xs, list(task.state), task.mask).passed
            for mutant in MUTANTS.values():
                if cell not in mutant.cells:
                    continue
                trial = tried(mutant, setting, task)
                trials += [trial] if trial else []
                equal += trial is None
    names = ["W", "S", *rules()]
    head = ("class", "runs", *(f"{n}{more}" for n in names for more in ("", " + probes")))
    lines = []
    for kind in KINDS:
        own = [t for t in trials if t.kind == kind]
        counts = [
            f"{100 * np.mean([t.credible[n][more] for t in own]):.1f}"
            for n in names
            for more in (0, 1)
        ]
        lines.append([kind, str(len(own)), *counts])
    print(
        f"\n## Wrong implementations\n\n{len(MUTANTS)} mutants, {len(trials)} runs; {equal} more"
        f" are equal to the right implementation in every bit. {alarms} false alarms of `check` in"
        f" {right_runs} layers. Caught, %, where the same rule passes the right implementation on"
        " the same input; with the probe batch of one-hot inputs and states, and for S and W chunks"
        " and repeats as well.\n"
    )
    print(table(head, lines))
    _missed(trials)
    return [
        Goal(
            f"{kind} mutants caught",
            "at least 90 %" if kind == "numeric" else "100 %",
            share(sum(t.caught["S"][1] for t in own), len(own)),
            sum(t.caught["S"][1] for t in own) >= (0.9 if kind == "numeric" else 1) * len(own),
        )
        for kind in KINDS
        if (own := [t for t in trials if t.kind == kind])
    ] + [Goal("false alarms of check", "0", share(alarms, right_runs), alarms == 0)]


def _missed(trials: Sequence[Trial]) -> None:
    """Each mutant that was let pass, where, and how far it stays below what rounding may do."""
    groups = defaultdict(list)
    for trial in trials:
        groups[trial.name].append(trial)
    lines = []
    for name, group in groups.items():
        passed = [t for t in group if not t.caught["S"][1]]
        if passed:
            margins_ = [t.margin for t in passed]
            where = sorted({f"{t.setting.cell} {t.setting.H}" for t in passed})
            lines.append([
                name, group[0].kind, f"{len(passed)} of {len(group)}", ", ".join(where),
                f"{min(margins_):.2f} to {max(margins_):.2f}",
            ])  # fmt: skip
    head = ("missed", "class", "runs", "where", "largest error / what correct rounding may show")
    print("\n" + (table(head, lines) if lines else "None was missed."))


# --- the first difference ---


def disturbed(
    task: Task, at: tuple[int, int, int], order: int, size: float
) -> tuple[Outputs, dict[str, Array]]:
    """A float32 run in which one number of one step is off: the `order`-th result of an activation
    that the step computes, in one row and unit. Outputs, and the gates by name."""
    row, step, unit = at
    count = -1

    def off(activation: Any) -> Any:
        def value(z: Array) -> Array:
            nonlocal count
            count += 1
            found = activation.value(z)
            if count == order + step * per_step:
                found = found.copy()
                found[row, unit] += np.float32(size)
            return found

        return activation._replace(value=value)

    names = ORDER[task.cell.name]
    per_step = len(names)
    cell = task.cell._replace(act=off(task.cell.act), rec=off(task.cell.rec))
    ys, gates, state = [], [], task.state
    for output, after, computed in reference.steps(cell, task.weights, task.xs, task.state):
        ys.append(output)
        gates.append(computed)
        state = after
    shown = {g: np.stack([getattr(q, g) for q in gates], axis=1) for g in names if len(g) == 1}
    return [np.stack(ys, axis=1), *state], shown if task.cell.name != "simple" else {}


# what a step's activations are called one after another; the last of an LSTM is seen in h alone
ORDER = {
    "simple": ("h",), "lstm": ("i", "f", "g", "o", "tanh(c)"), "gru": ("z", "r", "g"),
    "gru_reset_before": ("z", "r", "g"),
}  # fmt: skip


def first_differences(quick: bool, wanted: int) -> list[Goal]:
    """One number is spoiled in one step; is that the place which the report names first?"""
    counts = dict.fromkeys(("tried", "seen", "right", "tried with", "seen with", "right with"), 0)
    late: list[str] = []
    rng = np.random.default_rng([SEED, 1])
    for seed in range(25 if quick else 125):
        for cell, names in ORDER.items():
            setting = Setting(cell, 3, 20, 5, int(rng.choice([4, 16, 64])))
            task = setting.task(float(rng.choice(SCALES)), 2000 + seed)
            at = int(rng.integers(3)), int(rng.integers(20)), int(rng.integers(setting.H))
            order, size = int(rng.integers(len(names))), 10 ** rng.uniform(-6, -1)
            outputs, gates = disturbed(task, at, order, size)
            y, *state = outputs
            arrays = {"y": y, **dict(zip(("h", "c"), state, strict=False))}
            for more, given in (("", {}), (" with", gates)):
                first = check(
                    {**arrays, **given}, (cell, task.weights), task.xs, list(task.state)
                ).first
                counts[f"tried{more}"] += 1
                if first is None:
                    continue
                counts[f"seen{more}"] += 1
                name = names[order] if more and names[order] in gates else "y"
                place = first.row, first.step, first.array
                if (place[:2] == at[:2]) and (not more or place[2] == name):
                    counts[f"right{more}"] += 1
                else:
                    late.append(f"{cell} {names[order]} {size:.1e} at {at}: {first}")
    print(
        f"\n## First difference\n\nOne number off by 1e-6 to 1e-1 in one step, then carried on."
        f" Outputs seen alone: {counts['seen']} of {counts['tried']} flagged, the rest below"
        f" rounding. Gates seen too: {counts['seen with']}.\n"
    )
    for line in late[:12]:
        print(f"- elsewhere: {line}")
    return [
        Goal("first difference: row and step", "99 %", share(counts["right"], counts["seen"]),
             counts["right"] >= 0.99 * counts["seen"]),
        Goal("first difference: row, step and gate", "99 %",
             share(counts["right with"], counts["seen with"]),
             counts["right with"] >= 0.99 * counts["seen with"]),
    ]  # fmt: skip


# --- causes ---


class Slip(NamedTuple):
    """One convention got wrong, written without regard to how the search writes it.

    about   slips about one thing are not combined
    named   what the search's sentence has to contain
    change  task -> task
    """

    about: str
    named: str
    change: Callable[[Task], Task]
    cells: tuple[str, ...] = ("lstm", "gru", "gru_reset_before")
    masked: bool = False


def on_weights(change: Callable[[Task, Weights], Weights]) -> Callable[[Task], Task]:
    return lambda task: task._replace(weights=change(task, task.weights))


def in_blocks(task: Task, a: Array, change: Callable[[list[Array]], list[Array]]) -> Array:
    return np.concatenate(change(np.split(a, len(task.cell.gates), axis=-1)), axis=-1)


def reordered(*order: int) -> Callable[[Task], Task]:
    return on_weights(
        lambda task, w: Weights(*(in_blocks(task, a, lambda b: [b[k] for k in order]) for a in w))
    )


def with_block(letter: str, change: Callable[[Array], Array], only_bias: bool = False) -> Any:
    def changed(task: Task, weights: Weights) -> Weights:
        k = task.cell.gates.index(letter)

        def one(blocks: list[Array]) -> list[Array]:
            return [change(b) if i == k else b for i, b in enumerate(blocks)]

        W, U, b = weights
        if not only_bias:
            W, U = in_blocks(task, W, one), in_blocks(task, U, one)
        return Weights(W, U, in_blocks(task, b, one))

    return on_weights(changed)


def transposed(task: Task, w: Weights) -> Weights:
    U = in_blocks(task, w.recurrent_kernel, lambda blocks: [b.T for b in blocks])
    return w._replace(recurrent_kernel=np.ascontiguousarray(U))


def one_weight(task: Task, w: Weights) -> Weights:
    U = w.recurrent_kernel.copy()
    U[1, 2] += np.float32(0.1)
    return w._replace(recurrent_kernel=U)


def squashed(**names: str) -> Callable[[Task], Task]:
    found = {key: ACTIVATIONS[name] for key, name in names.items()}
    return lambda task: task._replace(cell=task.cell._replace(**found))


def products_in(name: str) -> Callable[[Task], Task]:
    def product(a: Array, b: Array, gates: slice = slice(None)) -> Array:
        cut = [PRECISIONS[name].operands(np.asarray(part, np.float64)) for part in (a, b)]
        return dot(*(np.ascontiguousarray(part, np.float32) for part in cut))

    return lambda task: task._replace(cell=task.cell._replace(x_product=product, h_product=product))


def late(task: Task) -> Task:
    return task._replace(xs=np.concatenate([0 * task.xs[:, :1], task.xs[:, :-1]], axis=1))


LSTM, GRUS = ("lstm",), ("gru", "gru_reset_before")
SLIPS = {
    "gates as in TF1": Slip("order", "gate blocks are read", reordered(0, 2, 1, 3), LSTM),
    "gates as in ONNX": Slip("order", "gate blocks are read", reordered(0, 3, 1, 2), LSTM),
    "gates as in torch": Slip("order", "gate blocks are read", reordered(1, 0, 2), GRUS),
    "U transposed": Slip("U", "recurrent_kernel is transposed", on_weights(transposed)),
    "no bias": Slip(
        "bias", "bias is dropped", on_weights(lambda t, w: w._replace(bias=0 * w.bias))
    ),
    "bias twice": Slip(
        "bias", "bias is added twice", on_weights(lambda t, w: w._replace(bias=2 * w.bias))
    ),
    "forget bias again": Slip(
        "bias", "1 is added to the forget gate", with_block("f", lambda b: b + 1, True), LSTM
    ),
    "z turned round": Slip("sense", "z has the other sense", with_block("z", np.negative), GRUS),
    "Keras 2's hard_sigmoid": Slip("rec", "0.2 x + 0.5", squashed(rec="hard_sigmoid_keras2")),
    "relu": Slip("act", "squashed by relu", squashed(act="relu")),
    "TF32": Slip("precision", "TF32", products_in("tf32")),
    "no first state": Slip(
        "state", "initial state is ignored",
        lambda t: t._replace(state=type(t.state)(*(np.zeros_like(part) for part in t.state))),
    ),
    "h and c swapped": Slip(
        "state", "h and c of the initial state are swapped",
        lambda t: t._replace(state=type(t.state)(t.state.c, t.state.h)), LSTM,
    ),
    "mask ignored": Slip("mask", "mask is ignored", lambda t: t._replace(mask=None), masked=True),
    "mask inverted": Slip(
        "mask", "mask is inverted", lambda t: t._replace(mask=~t.mask), masked=True
    ),
    "input late": Slip("input", "input is one step late", late),
    "time reversed": Slip(
        "input", "run backwards", lambda t: t._replace(xs=np.ascontiguousarray(t.xs[:, ::-1]))
    ),
    "one weight": Slip("weight", "recurrent_kernel[1, 2]", on_weights(one_weight)),
}  # fmt: skip

# mutants that no convention of the search is about
STRANGE = (
    "int8 weights", "Q15 h", "int8 h", "Q7 gates", "float16 c", "small weights pruned",
    "tanh from a table", "tanh as a fraction", "tanh off by 1e-4", "sigmoid from a table",
    "sigmoid saturates at 4", "c decays", "h decays", "z and 1 - z make 1.00001",
    "input scaled by 1.00001", "inputs clipped to 2", "last partial tile of units",
    "h written in place", "last row reads the row before", "last unit not carried",
    "features beyond a multiple of 4", "state beyond a multiple of 4",
)  # fmt: skip


def causes(quick: bool, wanted: int) -> list[Goal]:
    single, double, strange = [0, 0], [0, 0], [0, 0]
    wrong: list[str] = []
    times = []
    rng = np.random.default_rng([SEED, 2])

    def named(setting: Setting, seed: int, slips: Sequence[str]) -> bool:
        masked = any(SLIPS[name].masked for name in slips)
        task = setting.task(1.0, seed, masked)
        spoiled = task
        for name in slips:
            spoiled = SLIPS[name].change(spoiled)
        y, state = reference.run(
            spoiled.cell, spoiled.weights, spoiled.xs, spoiled.state, mask=spoiled.mask
        )
        layer = (setting.cell, task.weights)
        started = time.perf_counter()
        found = explain((y, *state), layer, task.xs, list(task.state), task.mask)
        times.append(time.perf_counter() - started)
        best = " ".join(found.causes[0].edits) if found.causes and found.causes[0].exact else ""
        right = all(SLIPS[name].named in best for name in slips)
        right &= bool(best) and len(found.causes[0].edits) == len(slips)
        if not right:
            wrong.append(f"{setting.cell}: {' and '.join(slips)}: {found.verdict}")
        return right

    for cell in ("lstm", "gru", "gru_reset_before"):
        own = [name for name, slip in SLIPS.items() if cell in slip.cells]
        for seed in range(1 if quick else 3):
            setting = Setting(cell, 5, 19, 5, (7, 16)[seed % 2])
            for name in own:
                single[0] += named(setting, 3000 + seed, [name])
                single[1] += 1
        pairs = [(a, b) for a in own for b in own if a < b and SLIPS[a].about != SLIPS[b].about]
        for k in rng.permutation(len(pairs))[: 5 if quick else 30]:
            double[0] += named(Setting(cell, 5, 19, 5, 7), 4000 + int(k), pairs[k])
            double[1] += 1
        setting = Setting(cell, 5, 19, 5, 7)
        for name in STRANGE:
            if cell not in MUTANTS[name].cells:
                continue
            task = setting.task(1.0, 5000)
            layer = (cell, task.weights)
            (part,) = subject(layer).parts
            outputs = MUTANTS[name].make(part)(task.xs, list(task.state))
            found = explain(outputs, layer, task.xs, list(task.state))
            strange[1] += 1
            if any(cause.edits for cause in found.fits):
                strange[0] += 1
                wrong.append(f"{cell}: {name}, which is none of them: {found.verdict}")
    print(
        f"\n## Causes\n\n{np.median(times):.2f} s each in the median, {max(times):.2f} s at most.\n"
    )
    for line in wrong:
        print(f"- {line}")
    return [
        Goal("single cause named first", "100 %", share(*single), single[0] == single[1]),
        Goal("two causes both named", "95 %", share(*double), double[0] >= 0.95 * double[1]),
        Goal("a name for what is in no catalogue", "0", share(*strange), strange[0] == 0),
    ]


# --- cost ---


def seconds(call: Callable[[], Any]) -> float:
    """The best of three, and of as many as take half a second."""
    best, started, done = math.inf, time.perf_counter(), 0
    while done < 3 or time.perf_counter() - started < 0.5:
        before = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - before)
        done += 1
    return best


def costs(setting: Setting) -> tuple[float, float, float]:
    """Seconds of `check` on recorded outputs, and of the same run in float64 by both engines."""
    task = setting.task(1.0, 6000)
    y, state = reference.run(task.cell, task.weights, task.xs, task.state)
    wide = Weights(*(part.astype(np.float64) for part in task.weights))
    start = task.cell.State(*(part.astype(np.float64) for part in task.state))
    xs, layer = task.xs.astype(np.float64), (setting.cell, task.weights)
    return (
        seconds(lambda: check((y, *state), layer, task.xs, list(task.state)).passed),
        seconds(lambda: reference.run(task.cell, wide, xs, start)),
        seconds(lambda: run_refrnn(setting.cell, wide, xs, start)),
    )


def cost(quick: bool, wanted: int) -> list[Goal]:
    """`check` of recorded outputs, over the same run of the reference in float64."""
    lines, worst = [], 0.0
    sizes = [(8, 100, 20, 64), (32, 100, 64, 128), (2, 1000, 64, 128), (4, 50, 256, 512)]
    for size in sizes[:1] if quick else sizes:
        for cell in CELLS:
            times = costs(Setting(cell, *size))
            worst = max(worst, times[0] / times[1])
            figures = (f"{1e3 * t:.1f}" for t in times)
            where = f"{cell} {','.join(map(str, size))}"
            lines.append([where, *figures, f"{times[0] / times[1]:.2f}"])
    head = (
        "cell B,T,F,H",
        "check, ms",
        "float64 NumPy, ms",
        "float64 kernels, ms",
        "check / NumPy",
    )
    print("\n## Cost\n\n" + table(head, lines))
    return [Goal("cost of check / float64 run", "at most 3", f"at most {worst:.2f}", worst <= 3)]


# --- the whole ---

PARTS: dict[str, Callable[..., list[Goal]]] = {
    "alarms": false_alarms, "mutants": mutants, "first": first_differences, "causes": causes,
    "cost": cost,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of it, in a minute")
    parser.add_argument("--runs", type=int, default=2000, help="correct runs, at least")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    from peers import PACKAGES
    from race import versions

    own, machine = here()
    found = own | versions(PACKAGES)
    print(f"# The judge\n\n`python {' '.join(sys.argv)}`\n\n{machine}")
    print(", ".join(f"{name} {version}" for name, version in found.items()))
    goals: list[Goal] = []
    for name in options.only:
        started = time.perf_counter()
        goals += PARTS[name](options.quick, options.runs)
        print(f"\n({name}: {time.perf_counter() - started:.0f} s)", flush=True)
    for name, why in missing.items():
        print(f"\nWithout {name}: {why}")
    lines = [[g.what, g.goal, g.measured, "yes" if g.met else "**no**"] for g in goals]
    print("\n## Goals\n\n" + table(("", "goal", "measured", "met"), lines))


if __name__ == "__main__":
    main()
