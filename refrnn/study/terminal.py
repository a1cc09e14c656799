"""`show`: the equations of one step and unit with their numbers, as text."""

from collections.abc import Mapping
from typing import Any

from refrnn.study import equations
from refrnn.study.equations import MASKED, NOTATIONS, Line
from refrnn.study.numbers import Numbers, backward, forward, in_order
from refrnn.traces import Trace

TITLES = {"forward": "forwards", "backward": "backwards (dy: the gradient of the loss by y)"}


def show(
    trace: Trace,
    step: int,
    unit: int,
    row: int = 0,
    letters: str = "keras",
    loss: Mapping[str, Any] | None = None,
    zero_output_for_mask: bool = False,
) -> str:
    """The equations of a step and a unit, and what they are with the numbers of the trace.

    step     counted from 0, in the order of processing
    letters  "keras", "torch", "onnx" or "papers"
    loss     dys, dlast_output and dstate of `numbers.backward`, for the equations backwards too
    zero_output_for_mask
             as in `refrnn.run`: what the outputs of masked steps were

    Raises ValueError for a step, a unit, a row or letters that are not there, and for a cell that
    is not one of refrnn's.
    """
    check(trace, step, unit, row)
    if letters not in NOTATIONS:
        raise ValueError(
            f"{trace.cell.name}: letters is {letters!r}, expected {', '.join(NOTATIONS)}"
        )
    numbers = forward(trace)
    if loss is not None:
        numbers |= backward(trace, **loss, zero_output_for_mask=zero_output_for_mask)
    names = equations.symbols(letters, trace.cell)
    at = row, step, unit
    said = [f"row {row}, step {step}, unit {unit}, in the letters of {NOTATIONS[letters].title}"]
    said += _notes(trace, row, step)
    masked = trace.mask is not None and not in_order(trace, trace.mask)[row, step]
    for way, lines in equations.lines(trace.cell, numbers).items():
        said += ["", TITLES[way]]
        wide = max(len(names[line.of]) for line in lines)
        for line in lines:
            said += _told(line, names, numbers, at, masked, wide)
    return "\n".join(said)


def check(trace: Trace, step: int, unit: int, row: int) -> None:
    """Raise ValueError for a place that is not in a trace."""
    B, T, H = trace.gates.h.shape
    for what, given, count in (("row", row, B), ("step", step, T), ("unit", unit, H)):
        if not 0 <= given < count:
            there = f"0 to {count - 1}" if count else f"none: there is no {what}"
            raise ValueError(f"{trace.cell.name}: {what} is {given}, expected {there}")


def _notes(trace: Trace, row: int, step: int) -> list[str]:
    t = len(trace.xs[row]) - 1 - step if trace.go_backwards else step
    x = ", ".join(number(v) for v in trace.xs[row, t, :8])
    more = trace.xs.shape[2] - 8
    found = [f"x = [{x}{f', ... {more} more' if more > 0 else ''}]"]
    if trace.go_backwards:
        found.append(f"the sequence is processed backwards: this is step {t} of the input")
    if trace.reset is not None and trace.reset[row, t]:
        found.append("reset: the state was forgotten before this step")
    if trace.mask is not None and not trace.mask[row, t]:
        found.append("masked: the state is held; the gates are shown as they were computed")
    return found


def _told(
    line: Line,
    names: Mapping[str, str],
    numbers: Numbers,
    at: tuple[int, int, int],
    masked: bool,
    wide: int,
) -> list[str]:
    def value(name: str) -> str:
        array = numbers[name]
        return number(array[at[-1]] if array.ndim == 1 else array[at])

    parts = line.masked if masked and line.masked is not None else line.parts
    name = names[line.of].ljust(wide)
    if not parts:
        return [f"  {name} {MASKED}"]
    result, numeric = value(line.of), equations.filled(parts, value, names)
    said = equations.written(parts, names)
    sides = [said] if said != names[line.of] else []
    sides += [numeric] if numeric not in (None, result) else []
    begins = [name, *[" " * wide] * len(sides)]
    return [f"  {b} = {side}" for b, side in zip(begins, [*sides, result], strict=True)]


def number(value: float) -> str:
    """A number in at most six digits."""
    return f"{float(value):.6g}"
