"""Single wrong weights, read off the outputs.

A weight belongs to one unit: driven by the implementation's own outputs, all other units are right.
What the wrong one is off by, over rows and steps, follows the one input that the weight multiplies:
the weight and its value are found by least squares, each weight of the unit for itself.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from refrnn import gates
from refrnn.gates import Array
from refrnn.reference import QUIET
from refrnn.verify.conventions import Edit
from refrnn.verify.fits import Fit
from refrnn.verify.scene import Scene, carried

UNITS = 3  # with wrong weights, at most
EVIDENCE = 4  # wrong numbers of a unit that name a weight, at least
ROUNDS = 12  # of Gauss and Newton
OFFERED = 3  # weights of a unit that are tried against the bounds
CLOSE = 1e-6  # a value that near to 0 or to -w, in parts of the largest weight, is meant to be that


class Weight(NamedTuple):
    """One number of the weights, by the name of its array and its place in it."""

    array: str
    at: tuple[int, ...]


def single_weights(s: Scene, f: Fit, rows: Array) -> list[tuple[Edit, ...]]:
    """Hypotheses of a wrong weight in each unit that is off, where few are; best first.

    rows  those of the scene that the fit is of
    """
    if s.form is not None:
        return []
    wrong = f.wrong
    units = np.flatnonzero(wrong.any(axis=(0, 1)))
    counts = wrong.sum(axis=(0, 1))[units]
    if not 0 < len(units) <= UNITS or counts.min() < EVIDENCE or len(units) == wrong.shape[2] > 1:
        return []
    if not np.isfinite(f.error[..., units]).all():
        return []
    offers = [_of_unit(s, f, rows, int(unit)) for unit in units]
    if len(units) == 1:
        return [(edit,) for edit in offers[0]]
    return [tuple(edits[0] for edits in offers)] if all(offers) else []


def _of_unit(s: Scene, f: Fit, rows: Array, unit: int) -> list[Edit]:
    """Edits of one weight of a unit, by what they leave over."""
    w = f.walk
    got = w.expected[..., unit] + f.error[..., unit]  # (R, T)
    live = np.ones(got.shape, bool) if s.mask is None else s.mask[rows]
    found = []
    with QUIET():
        for gate in s.cell.gates:
            for respond, inputs, weights in _paths(s, f, rows, unit, gate):
                old = np.array([getattr(s.weights, v.array)[v.at] for v in weights])
                change, left = _least(respond, inputs, got, live, old)
                found += [
                    (float(left[k]), weights[k], float(old[k]), float(old[k] + change[k]), gate)
                    for k in np.argsort(left)[:OFFERED]
                ]
    found.sort(key=lambda item: item[0])
    largest = max(float(np.abs(a).max(initial=0)) for a in s.weights)
    return [
        _edit(weight, old, _meant(new, old, largest), gate, unit)
        for _, weight, old, new, gate in found[:OFFERED]
    ]


def _meant(new: float, old: float, largest: float) -> float:
    """A value that is meant to be 0, or of the other sign, and is found nearly so."""
    for value in (0.0, -old):
        if abs(new - value) <= CLOSE * largest:
            return value
    return new


def _edit(weight: Weight, old: float, new: float, gate: str, unit: int) -> Edit:
    def apply(s: Scene) -> Scene:
        array = getattr(s.weights, weight.array).copy()
        array[weight.at] = new
        return replace(s, weights=s.weights._replace(**{weight.array: array}))

    of = f"unit {unit}" if gate == "h" else f"gate {gate}, unit {unit}"
    where = f"{weight.array}[{', '.join(map(str, weight.at))}]"
    if len(weight.at) == 2 and weight.array == "bias" and gate != "g":  # only their sum shows
        where = f"bias[0, {weight.at[1]}] or bias[1, {weight.at[1]}]"
        return Edit("weight", f"{where} ({of}) is off by {new - old:.6g}", apply)
    return Edit("weight", f"{where} ({of}) is {new:.6g}, not {old:.6g}", apply)


Respond = Callable[[Array], Array]  # (R, T, M): added to a gate's sum -> the unit's output


def _paths(
    s: Scene, f: Fit, rows: Array, unit: int, gate: str
) -> list[tuple[Respond, Array, list[Weight]]]:
    """How weights of a unit reach its output: (response, inputs (R, T, M), the M weights)."""
    w = f.walk
    H = len(s.weights.recurrent_kernel)
    F = len(s.weights.kernel)
    column = s.cell.gates.index(gate) * H + unit
    ones = np.ones((*w.x.shape[:2], 1))
    rounded = s.precision.operands
    x, h = rounded(w.x), rounded(w.h)
    kernel = [Weight("kernel", (m, column)) for m in range(F)]
    recurrent = [Weight("recurrent_kernel", (m, column)) for m in range(H)]
    if s.cell.name == "gru":
        from_x = np.concatenate([x, ones], axis=-1), [*kernel, Weight("bias", (0, column))]
        from_h = np.concatenate([h, ones], axis=-1), [*recurrent, Weight("bias", (1, column))]
        if gate != "g":  # the two biases of z and r are one number: the first stands for it
            both = np.concatenate([from_x[0], h], axis=-1), from_x[1] + recurrent
            return [(_gru(s, f, unit, gate, False), *both)]
        return [
            (_gru(s, f, unit, gate, False), *from_x),
            (_gru(s, f, unit, gate, True), *from_h),
        ]
    if s.cell.name == "gru_reset_before":
        if gate == "r":  # scales what all units are made of
            return []
        h = rounded(w.gates.r * w.h) if gate == "g" else h
    inputs = np.concatenate([x, h, ones], axis=-1)
    respond = {"simple": _simple, "lstm": _lstm}.get(s.cell.name, _gru_before)
    weights = [*kernel, *recurrent, Weight("bias", (column,))]
    return [(respond(s, f, rows, unit, gate), inputs, weights)]


def _simple(s: Scene, f: Fit, rows: Array, unit: int, gate: str) -> Respond:
    pre = f.walk.gates.pre.h[..., unit, None]
    return lambda added: s.cell.act.value(pre + added)


def _lstm(s: Scene, f: Fit, rows: Array, unit: int, gate: str) -> Respond:
    pre = type(f.walk.gates.pre)(*(p[..., unit, None] for p in f.walk.gates.pre))
    act, rec = s.cell.act.value, s.cell.rec.value
    first = s.state[1][rows][:, unit, None]
    alone = replace(s, cs=None)

    def respond(added: Array) -> Array:
        moved = pre._replace(**{gate: getattr(pre, gate) + added})
        moved = type(pre)(*(np.broadcast_to(p, added.shape) for p in moved))
        q = gates.lstm(moved, np.zeros(added.shape), act, rec)
        start = np.broadcast_to(first, (len(added), added.shape[2]))
        c, _ = carried(alone, start, q, rows)
        return gates.lstm(moved, c, act, rec).h

    return respond


def _gru(s: Scene, f: Fit, unit: int, gate: str, recurrent: bool) -> Respond:
    w = f.walk
    act, rec = s.cell.act.value, s.cell.rec.value
    H = len(s.weights.recurrent_kernel)
    column = s.cell.gates.index("g") * H + unit
    rounded = s.precision.operands
    u_g = rounded(w.h) @ rounded(s.weights.recurrent_kernel)[:, column]
    u_g = (u_g + s.weights.bias[1, column])[..., None]
    pre_z, pre_r, pre_g = (p[..., unit, None] for p in w.gates.pre)
    x_g = pre_g - w.gates.r[..., unit, None] * u_g
    h = w.h[..., unit, None]

    def respond(added: Array) -> Array:
        zero = np.zeros(added.shape)
        x = {"z": pre_z, "r": pre_r, "g": x_g}
        u = {"z": zero, "r": zero, "g": u_g}
        side = u if recurrent else x
        side[gate] = side[gate] + added
        return gates.gru(gates.GRUPre(**x), gates.GRUPre(**u), h, act, rec).h

    return respond


def _gru_before(s: Scene, f: Fit, rows: Array, unit: int, gate: str) -> Respond:
    w = f.walk
    act, rec = s.cell.act.value, s.cell.rec.value
    pre = {g: p[..., unit, None] for g, p in zip("zrg", w.gates.pre, strict=True)}
    h = w.h[..., unit, None]

    def respond(added: Array) -> Array:
        x = gates.GRUPre(**{**pre, gate: pre[gate] + added})
        return gates.gru_reset_before(x, 0, 0, lambda rh: 0, h, act, rec).h  # type: ignore[arg-type, return-value]

    return respond


def _least(
    respond: Respond, inputs: Array, got: Array, live: Array, old: Array
) -> tuple[Array, Array]:
    """The change of each weight that leaves least, and what it leaves (root mean square).

    Starts from no change, from a weight of 0 and from its negative, each weight for itself.
    """
    best, least = np.zeros(len(old)), np.full(len(old), np.inf)
    for start in (0.0, -1.0, -2.0):
        change = start * old
        for _ in range(ROUNDS):
            left = _left(respond, inputs, got, live, change)
            size = np.sqrt(np.mean(left**2, axis=0))
            better = size < least
            best, least = np.where(better, change, best), np.where(better, size, least)
            nudge = 1e-6 * np.maximum(1, np.abs(change))
            slope = (left - _left(respond, inputs, got, live, change + nudge)) / nudge
            steep = np.sum(slope * slope, axis=0)
            step = np.divide(
                np.sum(slope * left, axis=0), steep, out=np.zeros_like(steep), where=steep > 0
            )
            change = change + np.clip(step, -2, 2)
    return best, least


def _left(respond: Respond, inputs: Array, got: Array, live: Array, change: Array) -> Array:
    """(numbers, M): what the output is still off by."""
    left = got[..., None] - respond(inputs * change)
    return np.nan_to_num(left[live], nan=1e30, posinf=1e30, neginf=-1e30)
