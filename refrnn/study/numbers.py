"""Every number of the equations at every step: those of a trace, and what they were summed from.

By name, each (B, T, H) in processing order; those of the biases (H,):

x.i u.i b.i    the products of the input and of the state before, and the bias, of gate i;
               of "gru" two biases, bx.z and bh.z
pre.i i ... c h  as in the trace
before.h before.c  the state that the step began with
act.c          the activation of c
dy             the loss's gradient by the output, of masked steps that repeated it too
d.i dpre.i     the gradient of the gate, and of its sum; d.h and d.c the whole gradient of the state
slope.i        the derivative of the activation at the sum; slope.c that at c
next.h prev.h  the state's gradient as it comes from the step after, and that by before.h, which
               goes to the step before unless there was a reset
"""

from typing import Any

import numpy as np

from refrnn import checks
from refrnn.activations import Activation
from refrnn.backward import gradients
from refrnn.cells import CELLS, dot
from refrnn.gates import Array
from refrnn.reference import QUIET
from refrnn.traces import Trace

Numbers = dict[str, Array]


def in_order(trace: Trace, array: Any) -> Any:
    """An array (B, T, ...) in the order of xs, in that of processing; None as it is."""
    return array if array is None or not trace.go_backwards else array[:, ::-1]


def forward(trace: Trace) -> Numbers:
    """The numbers of the equations forwards. Raises ValueError for a cell that is not refrnn's."""
    cell, q = trace.cell, trace.gates
    if cell.name not in CELLS or cell.step is not CELLS[cell.name].step:
        raise ValueError(
            f"{cell.name}: the cell has a step of its own, expected that of a cell of"
            " refrnn.cells.CELLS, because the equations of another are not known"
        )
    numbers = _before(trace)
    with QUIET():
        numbers |= _terms(trace, numbers["before.h"])
        numbers |= {f"pre.{name}": part for name, part in q.pre._asdict().items()}
        numbers |= {name: part for name, part in q._asdict().items() if name != "pre"}
        if "c" in numbers:
            numbers["act.c"] = cell.act.value(numbers["c"])
    return numbers


def _before(trace: Trace) -> Numbers:
    """The state that each step began with."""
    found = {}
    for name, first in zip(trace.start._fields, trace.start, strict=True):
        after = getattr(trace.gates, name)
        states = np.concatenate([first[:, None], after], axis=1)[:, :-1]
        reset = in_order(trace, trace.reset)
        found[f"before.{name}"] = states if reset is None else np.where(reset[..., None], 0, states)
    return found


def _terms(trace: Trace, h: Array) -> Numbers:
    """What the sums are made of, with the products of the cell's own step."""
    W, U, b = trace.weights
    gates, H = trace.cell.gates, len(U)
    x = dot(np.ascontiguousarray(in_order(trace, trace.xs)), W)
    if trace.cell.name == "gru_reset_before":
        zr = dot(h, U[:, : 2 * H])
        u = np.concatenate([zr, dot(trace.gates.r * h, U[:, 2 * H :])], axis=-1)  # type: ignore
    else:
        u = dot(h, U)
    parts = {"x": x, "u": u, **({"bx": b[0], "bh": b[1]} if b.ndim == 2 else {"b": b})}
    return {
        f"{name}.{gate}": block
        for name, array in parts.items()
        for gate, block in zip(gates, np.split(array, len(gates), axis=-1), strict=True)
    }


def backward(
    trace: Trace,
    dys: Any = None,
    dlast_output: Any = None,
    dstate: Any = None,
    zero_output_for_mask: bool = False,
) -> Numbers:
    """The numbers of the equations backwards, by `refrnn.gradients` a step at a time.

    dys           (B, T, H), the loss's gradient by each output, in processing order
    dlast_output  (B, H), that by the last output
    dstate        that by the state after the last step, each part (B, H)

    Raises ValueError as `refrnn.gradients` does, for an activation without a derivative say, and
    for a trace of no steps.
    """
    before, dtype, who = _before(trace), trace.xs.dtype, trace.cell.name
    B, T, H = trace.gates.h.shape
    if not T:
        raise ValueError(f"{who}: the trace has no steps, expected one, to go back from")
    dys = np.zeros((B, T, H), dtype) if dys is None else checks.numbers(who, "dys", dys, dtype)
    dstate = checks.state(trace.cell, who, dstate, B, H, dtype, "dstate")
    dlast = np.zeros((B, H), dtype)
    if dlast_output is not None:
        dlast = checks.numbers(who, "dlast_output", dlast_output, dtype)
    seen = []
    for n in reversed(range(T)):
        t = T - 1 - n if trace.go_backwards else n
        now = np.s_[:, t : t + 1]
        step = gradients(
            trace.cell,
            trace.weights,
            trace.xs[now],
            dys[:, n : n + 1],
            [before[f"before.{name}"][:, n] for name in trace.start._fields],
            dlast_output=dlast,
            dstate=dstate,
            mask=None if trace.mask is None else trace.mask[now],
            zero_output_for_mask=zero_output_for_mask,
            gates=True,
        )
        with QUIET():
            found = {"dy": dlast + dys[:, n]}
        for name, after, ahead in zip(dstate._fields, dstate, step.dstate, strict=True):
            found |= {f"next.{name}": after, f"prev.{name}": ahead}
        for name, part in step.dtrace._asdict().items():
            if name != "pre":
                found[f"d.{name}"] = part[:, 0]
        found |= {f"dpre.{name}": part[:, 0] for name, part in step.dtrace.pre._asdict().items()}
        dstate, dlast = step.dstate, step.dlast_output
        if trace.reset is not None:  # the state that was forgotten has no part in it
            forgotten = trace.reset[now]
            dstate = type(dstate)(*(np.where(forgotten, 0, part) for part in dstate))
            dlast = np.where(forgotten, 0, dlast)
        seen.append(found)
    numbers = {n: np.stack([one[n] for one in reversed(seen)], axis=1) for n in seen[0]}
    with QUIET():
        return numbers | _slopes(trace)


def _slopes(trace: Trace) -> Numbers:
    """The derivatives of the activations; of those that mix units there is no such number."""
    cell, found = trace.cell, {}

    def put(name: str, function: Activation, at: Array) -> None:
        if function.kind == "elementwise" and function.derivative is not None:
            found[f"slope.{name}"] = function.derivative(at)

    for name, at in trace.gates.pre._asdict().items():
        put(name, cell.act if name in "gh" else cell.rec, at)
    if "c" in trace.start._fields:
        put("c", cell.act, trace.gates.c)  # type: ignore[union-attr]
    return found
