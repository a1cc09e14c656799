"""The equations of a step as lines of names, forwards and backwards, in four ways to write them.

A line says what a number of `numbers` is made of: "{x.i} + {u.i} + {b.i}". With the names of a
library in the braces it is the equation; with the numbers of a step and a unit it is filled in.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from refrnn.cells import CELLS, Cell
from refrnn.layouts.table import LAYOUTS

MASKED = "not computed: the step is masked"


class Line(NamedTuple):
    """One equation.

    of      the number that it gives, by its name in `numbers`
    parts   what it is, names in braces
    masked  what it is at a masked step; None where that changes nothing
    """

    of: str
    parts: str
    masked: str | None = None


# --- forwards: gates.py -------------------------------------------------------------------------


def _gate(gate: str, sums: str, function: str) -> list[Line]:
    return [Line(f"pre.{gate}", sums), Line(gate, f"{{{function}}}({{pre.{gate}}})")]


def _sum(gate: str) -> str:
    return f"{{x.{gate}}} + {{u.{gate}}} + {{b.{gate}}}"


def _two(gate: str) -> str:
    return f"({{x.{gate}}} + {{bx.{gate}}}) + ({{u.{gate}}} + {{bh.{gate}}})"


_KEPT = Line("h", "{z} * {before.h} + (1 - {z}) * {g}", "{before.h}")
FORWARD: dict[str, tuple[Line, ...]] = {
    "simple": (
        Line("pre.h", _sum("h")),
        Line("h", "{act}({pre.h})", "{before.h}"),
    ),
    "lstm": (
        *_gate("i", _sum("i"), "rec"),
        *_gate("f", _sum("f"), "rec"),
        *_gate("g", _sum("g"), "act"),
        *_gate("o", _sum("o"), "rec"),
        Line("c", "{f} * {before.c} + {i} * {g}", "{before.c}"),
        Line("act.c", "{act}({c})"),
        Line("h", "{o} * {act.c}", "{before.h}"),
    ),
    "gru": (
        *_gate("z", _two("z"), "rec"),
        *_gate("r", _two("r"), "rec"),
        *_gate("g", "({x.g} + {bx.g}) + {r} * ({u.g} + {bh.g})", "act"),
        _KEPT,
    ),
    "gru_reset_before": (
        *_gate("z", "({x.z} + {b.z}) + {u.z}", "rec"),
        *_gate("r", "({x.r} + {b.r}) + {u.r}", "rec"),
        *_gate("g", "({x.g} + {b.g}) + {u.g}", "act"),
        _KEPT,
    ),
}

# --- backwards: backward/equations.py -----------------------------------------------------------

_DH = Line("d.h", "{next.h} + {dy}", "")


def _back(gate: str, of_gate: str) -> list[Line]:
    return [
        Line(f"d.{gate}", of_gate, ""),
        Line(f"dpre.{gate}", f"{{d.{gate}}} * {{slope.{gate}}}", ""),
    ]


def _before(extra: str, *gates: str) -> Line:
    """The gradient that goes to the step before; through the products all units have a part."""
    sums = " + ".join(f"{{dpre.{gate}!}} @ {{U.{gate}}}" for gate in gates)
    return Line("prev.h", f"{extra}{sums}", "{next.h}")


BACKWARD: dict[str, tuple[Line, ...]] = {
    "simple": (_DH, Line("dpre.h", "{d.h} * {slope.h}", ""), _before("", "h")),
    "lstm": (
        _DH,
        *_back("o", "{d.h} * {act.c}"),
        Line("d.c", "{next.c} + {d.h} * {o} * {slope.c}", ""),
        *_back("f", "{d.c} * {before.c}"),
        *_back("i", "{d.c} * {g}"),
        *_back("g", "{d.c} * {i}"),
        Line("prev.c", "{d.c} * {f}", "{next.c}"),
        _before("", "i", "f", "g", "o"),
    ),
    "gru": (
        _DH,
        *_back("z", "{d.h} * ({before.h} - {g})"),
        *_back("g", "{d.h} * (1 - {z})"),
        *_back("r", "{dpre.g} * ({u.g} + {bh.g})"),
        Line(
            "prev.h",
            "{d.h} * {z} + {dpre.z!} @ {U.z} + {dpre.r!} @ {U.r} + ({dpre.g!} * {r!}) @ {U.g}",
            "{next.h}",
        ),
    ),
    "gru_reset_before": (
        _DH,
        *_back("z", "{d.h} * ({before.h} - {g})"),
        *_back("g", "{d.h} * (1 - {z})"),
        *_back("r", "({dpre.g!} @ {U.g}) * {before.h}"),
        Line(
            "prev.h",
            "{d.h} * {z} + ({dpre.g!} @ {U.g}) * {r} + {dpre.z!} @ {U.z} + {dpre.r!} @ {U.r}",
            "{next.h}",
        ),
    ),
}

# --- four ways to write them --------------------------------------------------------------------


class Notation(NamedTuple):
    """How somebody writes the equations; {g} stands for the letter of a gate.

    title        who
    layout       the row of LAYOUTS whose letters and names of activations these are; None for own
    x, W         the product of the input
    u, U         that of the state before, and what a gradient is multiplied by on the way back
    b            the only bias
    bx, bh       that of the input and that of the state, where there are two
    h, c         the state
    earlier      that of the step before
    """

    title: str
    layout: str | None
    x: str
    u: str
    U: str
    b: str
    bx: str
    bh: str
    h: str
    c: str
    earlier: str


NOTATIONS = {
    "keras": Notation(
        "Keras", "keras",
        "x @ kernel[{g}]", "{h} @ recurrent_kernel[{g}]", "recurrent_kernel[{g}]'",
        "bias[{g}]", "bias[0, {g}]", "bias[1, {g}]", "h", "c", "{}_tm1",
    ),
    "torch": Notation(
        "PyTorch", "torch",
        "W_i{g} x", "W_h{g} {h}", "W_h{g}", "(b_i{g} + b_h{g})", "b_i{g}", "b_h{g}",
        "h", "c", "{}(t-1)",
    ),
    "onnx": Notation(
        "ONNX", "onnx",
        "X @ W{g}^T", "{h} @ R{g}^T", "R{g}", "(Wb{g} + Rb{g})", "Wb{g}", "Rb{g}",
        "H", "C", "{}(t-1)",
    ),
    "papers": Notation(
        "the papers", None,
        "W_{g} x", "U_{g} {h}", "U_{g}", "b_{g}", "b_{g}", "b'_{g}", "h", "c", "{}(t-1)",
    ),
}  # fmt: skip
PAPERS = {"lstm": "ifgo", "gru": "zrh", "gru_reset_before": "zrh", "simple": "h"}


def symbols(notation: str, cell: Cell) -> dict[str, str]:
    """What each name of the lines is called; "act" and "rec" are the functions."""
    how = NOTATIONS[notation]
    letters, functions = PAPERS[cell.name], {"sigmoid": "\u03c3"}
    if how.layout is not None:
        layout = LAYOUTS[how.layout]
        family = cell.name if cell.name in layout.cells else "gru"
        letters, functions = layout.cells[family].letters, layout.activations or {}
    state = {"h": how.h, "c": how.c}
    before = {name: how.earlier.format(said) for name, said in state.items()}
    named = dict(zip(CELLS[cell.name].gates, letters, strict=True))
    found = {name: functions.get(getattr(cell, name).name, getattr(cell, name).name)
             for name in ("act", "rec")}  # fmt: skip
    for gate, letter in named.items():
        of = {"g": letter, "h": before["h"]}
        found |= {f"{part}.{gate}": getattr(how, part).format(**of) for part in ("x", "U", "b")}
        found |= {f"{part}.{gate}": getattr(how, part).format(**of) for part in ("u", "bx", "bh")}
        function = found["act" if gate in "gh" else "rec"]
        said = how.h if gate == "h" else f"{letter}~" if letter in state.values() else letter
        if cell.name == "simple":
            found |= {"x.h": _alone(how.x), "u.h": _alone(how.u.replace("{h}", before["h"]))}
            found |= {"b.h": _alone(how.b), "U.h": _alone(how.U)}
            letter = ""
        found |= {gate: said, f"pre.{gate}": f"a_{letter}".rstrip("_")}
        found |= {f"d.{gate}": f"d{said}", f"dpre.{gate}": f"da_{letter}".rstrip("_")}
        found[f"slope.{gate}"] = f"{function}'({found[f'pre.{gate}']})"
    for name, said in state.items():
        found |= {name: said, f"before.{name}": before[name], f"d.{name}": f"d{said}"}
        found |= {f"next.{name}": f"d{said}(from t+1)", f"prev.{name}": f"d{said}(to t-1)"}
    if cell.name == "gru_reset_before":
        product = how.u.format(g=named["g"], h=f"({found['r']} * {before['h']})")
        found["u.g"] = product
    found |= {"act.c": f"{found['act']}({how.c})", "slope.c": f"{found['act']}'({how.c})"}
    return found | {"dy": "dL/dy"}


def _alone(text: str) -> str:
    """A name of the cell that has one gate: without its letter."""
    return re.sub(r"\[\{g\}\]|_?\{g\}", "", text)


BRACES = re.compile(r"\{([^{}]+)\}")


def written(line: str, names: Mapping[str, str]) -> str:
    """A line with what its names are called; those with a ! are of all units."""
    return BRACES.sub(lambda found: names[found[1].rstrip("!")], line)


def filled(line: str, value: Callable[[str], str], names: Mapping[str, str]) -> str | None:
    """A line with its numbers, negative ones in brackets; None where it needs those of all units.

    value  a number in words, by its name
    """
    if "!" in line:
        return None

    def put(found: re.Match[str]) -> str:
        name = found[1]
        if name in ("act", "rec"):
            return names[name]
        said, after = value(name), line[: found.start()].rstrip()[-1:]
        return f"({said})" if said.startswith("-") and after in tuple("+-*") else said

    return BRACES.sub(put, line)


def lines(cell: Cell, numbers: Mapping[str, object]) -> dict[str, tuple[Line, ...]]:
    """The lines of a cell, by "forward" and, where there are such numbers, "backward".

    Where an activation mixes the units, what goes back through it is not filled in.
    """
    found = {"forward": FORWARD[cell.name]}
    if "dy" in numbers:
        found["backward"] = tuple(
            line._replace(parts=re.sub(r"\{slope\.(\w)\}", r"{slope.\1!}", line.parts))
            if any(f"slope.{g}" not in numbers for g in re.findall(r"\{slope\.(\w)\}", line.parts))
            else line
            for line in BACKWARD[cell.name]
        )
    return found
