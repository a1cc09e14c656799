"""What a page shows, as JSON: the numbers of every equation, thinned to what a browser can hold.

Arrays are written as the bytes of their numbers, little-endian, in base64: a reader of the page has
every bit of the trace.
"""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from refrnn.gates import Array
from refrnn.study import chunks, equations, summary, variants
from refrnn.study.numbers import backward, forward, in_order
from refrnn.study.plots import most_active
from refrnn.study.recurrent import Seen, recurrent
from refrnn.study.target import Wanted
from refrnn.study.terminal import number
from refrnn.traces import Trace

ROWS, STEPS, UNITS, FEATURES, LAYERS, LINES = 4, 200, 64, 32, 6, 4  # shown at most
PLACES = 2**14  # rows times steps times units of a layer, at most: some 4 MB
FOLLOWING = 5  # units that are named for going with the output


def encoded(array: Array) -> dict[str, Any]:
    """An array as JSON: type f4, f8 or u1, shape, and the bytes in base64."""
    kind = "u1" if array.dtype == bool else "f8" if array.dtype == np.float64 else "f4"
    raw = np.ascontiguousarray(array).astype(f"<{kind}").tobytes()
    return {
        "type": kind,
        "shape": list(array.shape),
        "data": base64.b64encode(raw).decode("ascii"),
    }


def decoded(stored: dict[str, Any]) -> Array:
    """The array of `encoded`."""
    raw = base64.b64decode(stored["data"])
    return np.frombuffer(raw, f"<{stored['type']}").reshape(stored["shape"])


def data(model: Any, inputs: Sequence[Array], title: str, wanted: Wanted | None) -> dict[str, Any]:
    """All that the page shows of a model on its inputs; `refrnn.study.page` says what it takes."""
    x: Any = list(inputs) if len(inputs) > 1 else inputs[0]
    found, outputs = recurrent(model, x)
    if not found:
        raise ValueError(
            f"{title}: has no recurrent layer that can be shown, expected an LSTM, GRU or"
            " SimpleRNN, because the equations of other layers are not known"
        )
    notes = []
    if len(found) > LAYERS:
        left = ", ".join(seen.name for seen in found[LAYERS:])
        notes.append(f"Of {len(found)} recurrent layers the first {LAYERS} are shown; left: {left}")
    y = outputs if isinstance(outputs, np.ndarray) else None
    layers = [_layer(seen, y, wanted, notes) for seen in found[:LAYERS]]
    return {
        "title": title,
        "letters": {name: how.title for name, how in equations.NOTATIONS.items()},
        "layers": layers,
        "output": None if y is None else _output(model, list(inputs), y, layers[0], wanted),
        "loss": None if wanted is None else number(wanted.loss),
        "notes": notes,
    }


# --- a layer ------------------------------------------------------------------------------------


def _layer(seen: Seen, y: Array | None, wanted: Wanted | None, notes: list[str]) -> dict[str, Any]:
    trace = seen.trace()
    B, T, H = trace.gates.h.shape
    if not (B and T and H):
        raise ValueError(
            f"{seen.name}: {B} rows, {T} steps and {H} units, expected at least one of each,"
            " because there is nothing to show otherwise"
        )
    follow = following(trace, y)
    steps, units = thinned(T), _units(trace, [unit for unit, _ in follow])
    rows = np.arange(min(B, ROWS, max(1, PLACES // (len(steps) * len(units)))))
    notes += _told(seen.name, (B, T, H), (rows, steps, units))
    at = np.ix_(rows, steps, units)
    few = seen.rows(len(rows)).trace()  # rows do not know of each other
    numbers = forward(few)
    back = None if wanted is None else wanted.reached(seen)
    if isinstance(back, str):
        notes.append(f"{seen.name}: not shown backwards: {back}")
    elif back is not None:
        given = {name: _first(part, len(rows)) for name, part in back.items()}
        zeros = bool(seen.layer.zero_output_for_mask)
        numbers |= backward(few, **given, zero_output_for_mask=zeros)
    other = variants.other(few)
    xs = in_order(trace, trace.xs)[np.ix_(rows, steps)]
    mask = in_order(trace, trace.mask)
    cuts = [chunks.of_layer(seen, length) for length in chunks.lengths(T)]
    return {
        "name": seen.name,
        "cell": trace.cell.name,
        "dtype": str(trace.xs.dtype),
        "sizes": [B, T, H],
        "rows": rows.tolist(),
        "steps": steps.tolist(),
        "units": units.tolist(),
        "backwards": trace.go_backwards,
        "x": encoded(xs[..., :FEATURES]),
        "mask": None if mask is None else encoded(mask[np.ix_(rows, steps)]),
        "maps": [
            {"name": n, "words": summary.WORDS[n], "bounds": summary.bounds(trace, n)}
            for n in summary.names(trace)
        ],
        **_equations(few, numbers, at),
        "other": None if other is None else _other(other, few, at),
        "follow": [[int(unit), float(r)] for unit, r in follow],
        "summary": trace.summary(),
        "cuts": [
            {"length": cut.length, "differ": cut.differ, "of": B * T * H,
             "lost": encoded(cut.lost[at])}
            for cut in cuts
        ],
        "whole": encoded(seen.outputs()[0][at]),
    }  # fmt: skip


def _first(part: Any, rows: int) -> Any:
    """The first rows of an array, or of each of a list."""
    return [one[:rows] for one in part] if isinstance(part, list) else part[:rows]


def _equations(trace: Trace, numbers: dict[str, Array], at: Any) -> dict[str, Any]:
    """The lines, what things are called, and the numbers, of the places `at`."""
    units = at[2].ravel()
    return {
        "lines": {way: [list(line) for line in lines]
                  for way, lines in equations.lines(trace.cell, numbers).items()},
        "names": {way: equations.symbols(way, trace.cell) for way in equations.NOTATIONS},
        "numbers": {
            name: encoded(array[units] if array.ndim == 1 else array[at])
            for name, array in numbers.items()
        },
    }  # fmt: skip


def _other(other: Trace, trace: Trace, at: Any) -> dict[str, Any]:
    """The GRU of the other family."""
    with np.errstate(invalid="ignore"):
        most = float(np.abs(other.gates.h.astype(np.float64) - trace.gates.h).max())
    return {"cell": other.cell.name, "most": f"{most:.3g}", **_equations(other, forward(other), at)}


def following(trace: Trace, y: Array | None) -> list[tuple[int, float]]:
    """The units whose state goes most with the first number of the model's output, and how much.

    By Pearson's correlation over all rows and steps that are not masked; none where the output is
    no sequence of the input's length, or does not move.
    """
    B, T, _ = trace.gates.h.shape
    if y is None or y.ndim != 3 or y.shape[:2] != (B, T) or trace.go_backwards:
        return []
    live = np.ones((B, T), bool) if trace.mask is None else trace.mask
    state = getattr(trace.gates, "c" if "c" in trace.start._fields else "h")[live]
    a, b = state.astype(np.float64), y[..., 0][live].astype(np.float64)
    with np.errstate(all="ignore"):
        a, b = a - a.mean(axis=0), b - b.mean()
        r = (a * b[:, None]).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum())
    known = np.flatnonzero(np.isfinite(r))
    best = known[np.argsort(-np.abs(r[known]), kind="stable")][:FOLLOWING]
    return [(int(unit), float(r[unit])) for unit in best]


def thinned(steps: int) -> Array:
    """The steps to show: all, or STEPS of them at even distances, the first and the last among."""
    return np.unique(np.linspace(0, steps - 1, min(steps, STEPS)).round().astype(int))


def _units(trace: Trace, first: list[int]) -> Array:
    """The units to show: all, or UNITS of them: those that are named, and those that move most."""
    H = trace.gates.h.shape[2]
    if H <= UNITS:
        return np.arange(H)
    flat = trace.gates.h.reshape(-1, H)
    active = [int(unit) for unit in most_active(flat, UNITS) if unit not in first]
    return np.sort([*first, *active[: UNITS - len(first)]])


def _told(name: str, sizes: Sequence[int], shown: Sequence[Array]) -> list[str]:
    """How a layer was thinned, in sentences."""
    B, T, H = sizes
    rows, steps, units = (len(part) for part in shown)
    said = []
    if rows < B:
        said.append(f"the first {rows} of {B} rows")
    if steps < T:
        said.append(f"{steps} of {T} steps, about every {round((T - 1) / (steps - 1))}th")
    if units < H:
        said.append(f"{units} of {H} units, those that move the most")
    if not said:
        return []
    return [
        f"{name}: {'; '.join(said)}. Every step was computed: the equations of those shown have"
        " their true numbers"
    ]


# --- the output of the model --------------------------------------------------------------------


def _output(
    model: Any, inputs: list[Array], y: Array, layer: dict[str, Any], wanted: Wanted | None
) -> dict[str, Any] | None:
    """The first number of the output at each step that is shown; None where it has no steps."""
    B, T, _ = layer["sizes"]
    if y.ndim != 3 or y.shape[:2] != (B, T) or layer["backwards"]:
        return None
    at = np.ix_(layer["rows"], layer["steps"])
    found = [chunks.of_model(model, inputs, y, cut["length"]) for cut in layer["cuts"]]
    (x, *more) = inputs
    drawn = not more and x.ndim == 3 and x.shape[:2] == (B, T) and x.shape[2] <= LINES
    return {
        "x": encoded(x[at]) if drawn else None,
        "y": encoded(np.asarray(y)[..., 0][at]),
        "target": None if wanted is None else encoded(wanted.target[..., 0][at]),
        "more": y.shape[2] - 1,
        "cuts": [
            None if cut is None else
            {"differ": cut.differ, "of": int(y.size), "lost": encoded(cut.lost[..., 0][at])}
            for cut in found
        ],
    }  # fmt: skip
