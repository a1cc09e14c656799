"""A trace in words: how open its gates are, what is saturated, how long it remembers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from refrnn.activations import Activation
from refrnn.gates import Array
from refrnn.study.numbers import in_order
from refrnn.traces import Trace

NEAR = 0.01  # a value this near to a bound of its activation is saturated
DEAD = 1e-3  # a unit whose |h| never gets above that has no say
LISTED = 8  # units by number, at most
BOUNDS = {
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "hard_sigmoid_keras2": (0.0, 1.0),
    "sparse_sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "sparsemax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "hard_tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
}
WORDS = {
    "i": "input gate", "f": "forget gate", "o": "output gate", "z": "update gate",
    "r": "reset gate", "g": "candidate", "c": "cell state", "h": "hidden state",
}  # fmt: skip


def bounds(trace: Trace, name: str) -> tuple[float, float] | None:
    """Those of a gate's activation; None where it has none, and of a state."""
    cell = trace.cell
    if name == "c" or (name == "h" and cell.name != "simple"):
        return None
    function: Activation = cell.act if name in "gh" else cell.rec
    return BOUNDS.get(function.name)


def saturated(trace: Trace, name: str) -> Array | None:
    """(B, T, H): -1 at the lower bound of a gate's activation, 1 at the upper one, else 0.

    None for what has no bounds.
    """
    ends = bounds(trace, name)
    if ends is None:
        return None
    values = getattr(trace.gates, name)
    return np.where(values < ends[0] + NEAR, -1, np.where(values > ends[1] - NEAR, 1, 0))


def names(trace: Trace) -> list[str]:
    """The gates and the states, as the trace has them."""
    return [name for name in trace.gates._fields if name != "pre"]


def told(trace: Trace) -> str:
    """`Trace.summary`."""
    B, T, H = trace.gates.h.shape
    lines = [f"{trace.cell.name}: {B} rows, {T} steps, {H} units, {trace.xs.dtype}"]
    live = np.ones((B, T), bool) if trace.mask is None else in_order(trace, trace.mask)
    if trace.mask is not None:
        lines.append(f"masked: {live.size - live.sum()} of {live.size} steps, left out below")
    if not (live.any() and H):
        return "\n".join([*lines, "no step to speak of"])
    lines.append(f"{'':18}{'mean':>8}{'least':>9}{'most':>9}   saturated")
    for name in names(trace):
        lines.append(_gate(trace, name, live))
    lines += _memory(trace, live)
    lines += _dead(trace, live)
    return "\n".join(lines + _bad(trace, live))


def _gate(trace: Trace, name: str, live: Array) -> str:
    values = getattr(trace.gates, name)[live].astype(np.float64)  # (steps, H)
    finite = values[np.isfinite(values)]
    numbers = (finite.mean(), finite.min(), finite.max()) if finite.size else [np.nan] * 3
    line = f"{name} {WORDS[name]:16}" + "".join(f"{n:>9.3f}" for n in numbers)[1:]
    marks = saturated(trace, name)
    if marks is None:
        return f"{line}   -"
    ends, marks = bounds(trace, name), marks[live]
    low, high = ((marks == side).mean() for side in (-1, 1))
    assert ends is not None
    line += f"   {low:.1%} at {ends[0]:g}, {high:.1%} at {ends[1]:g}"
    for side, end in zip((-1, 1), ends, strict=True):
        always = np.flatnonzero((marks == side).all(axis=0))
        line += f"; always at {end:g}: {units(always)}" if always.size else ""
    return line


def _memory(trace: Trace, live: Array) -> list[str]:
    """Steps until 1/e of a state is left, by the gate that keeps it; a number for each unit."""
    gate = {"lstm": "f", "gru": "z", "gru_reset_before": "z"}.get(trace.cell.name)
    if gate is None or trace.cell.rec.name not in BOUNDS:
        return []
    times = time_constants(getattr(trace.gates, gate)[live])
    if np.isnan(times).any():
        return [f"remembers, by {gate}: not known, there is NaN"]
    longest = ", ".join(
        f"unit {k} {_steps(times[k])}" for k in np.argsort(-times, kind="stable")[:3]
    )
    return [
        f"remembers, by {gate}: half of the units for {_steps(np.median(times))} steps or more"
        f" (then 1/e is left); the longest: {longest}"
    ]


def time_constants(kept: Array) -> Array:
    """(H,): steps until 1/e is left of what is multiplied by `kept` (steps, H) step by step."""
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = -np.log(kept.astype(np.float64)).mean(axis=0)
        return np.where(rate > 0, 1 / rate, np.where(rate == 0, np.inf, np.nan))


def _steps(time: Any) -> str:
    return "for ever" if time == np.inf else f"{time:.3g}"


def _dead(trace: Trace, live: Array) -> list[str]:
    h = np.abs(trace.gates.h[live])
    silent = np.flatnonzero((h < DEAD).all(axis=0))
    still = np.flatnonzero((h >= DEAD).any(axis=0) & (np.ptp(trace.gates.h[live], axis=0) < DEAD))
    found = f"dead units (|h| below {DEAD:g} throughout): {units(silent)}"
    constant = f"units that do not move (h within {DEAD:g}): {units(still)}"
    return [found, *([constant] if still.size and live.sum() > 1 else [])]


def _bad(trace: Trace, live: Array) -> list[str]:
    bad = {n: ~np.isfinite(getattr(trace.gates, n)) & live[..., None] for n in names(trace)}
    since = {n: int(b.any(axis=(0, 2)).argmax()) for n, b in bad.items() if b.any()}
    if not since:
        return []
    step = min(since.values())
    first = ", ".join(name for name, at in since.items() if at == step)
    return [f"NaN or infinity: from step {step} on, first in {first}"]


def units(found: Sequence[Any] | Array) -> str:
    """Units by number, the first of them; "none"."""
    if not len(found):
        return "none"
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return f"{', '.join(str(k) for k in found[:LISTED])}{more}"
