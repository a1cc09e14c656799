"""The table for people: a library's equations in its own letters, and the README's table."""

from refrnn.cells import CELLS
from refrnn.layouts.arrays import shape_text
from refrnn.layouts.blocks import Slot
from refrnn.layouts.hub import form, row
from refrnn.layouts.states import shape_text as state_text
from refrnn.layouts.table import LAYOUTS, Form, Layout


def describe(layout: str, cell: str = "lstm") -> str:
    """The arrays, equations and states of a library's cell, in the library's letters.

    layout  a name of LAYOUTS
    cell    "lstm", "gru", "gru_reset_before", "simple", or "gru" for whichever family there is

    Raises ValueError for a name that is not in the table.
    """
    found = row("layout", layout)
    families = [cell]
    if cell == "gru" and "gru_reset_before" in found.cells:
        families = [name for name in ("gru", "gru_reset_before") if name in found.cells]
    return "\n\n".join(_described(found, name, form(found, name)) for name in families) + "\n"


def _described(layout: Layout, cell: str, mine: Form) -> str:
    letters = dict(zip(CELLS[cell].gates, mine.letters, strict=True))
    lines = [f'{layout.title}: "{cell}"', "", "arrays (F features, H units)"]
    for slot in mine.slots:
        lines.append(f"  {slot.name:<18} {_shape(layout, slot):<12} {_held(slot, letters)}")
    lines += ["", "equations"]
    lines += [f"  {line}" for line in _equations(mine, cell, letters)]
    lines += ["", f"input    {layout.sequence}"]
    lines.append(f"state    {', '.join(mine.state)}, each {state_text(layout)}")
    lines += [f"told     {said}" for said in [*_family(mine, cell), *_told(mine)]]
    if layout.note:
        lines.append(f"note     {layout.note}")
    return "\n".join(lines)


def _told(mine: Form) -> list[str]:
    return [f"{told.name}={told.default}" for told in mine.told.values()]


def _functions(layout: Layout, mine: Form) -> list[str]:
    names = {name: name for name in mine.defaults} | (layout.activations or {})
    return [names[name] for name in mine.defaults]


def _family(mine: Form, cell: str) -> list[str]:
    names = {"reset_after": cell == "gru", "linear_before_reset": int(cell == "gru")}
    return [f"{name}={names[name]}" for name in mine.shape if name in names]


def _shape(layout: Layout, slot: Slot) -> str:
    shape = shape_text(slot)
    return shape.replace("(", "(D, ").replace(",)", ")") if layout.axis else shape


PARTS = {"W": "input", "U": "state", "w": "bias", "u": "state's bias", "p": "peephole"}


def _held(slot: Slot, letters: dict[str, str]) -> str:
    if slot.parts == {"R"}:
        return "projection"
    said = []
    for line in slot.grid:
        for part in dict.fromkeys(name[0] for name in line):
            gates = " ".join(letters[name[1]] for name in line if name[0] == part)
            said.append(f"{PARTS[part]} {gates}")
    order = ", each block its transpose in memory order" if slot.order == "raveled" else ""
    return "; ".join(said) + order


def _equations(mine: Form, cell: str, letters: dict[str, str]) -> list[str]:
    """The equations, every block by the name of its array and the library's letter."""
    place: dict[str, str] = {}
    for slot in mine.slots:
        several = len([name for line in slot.grid for name in line]) > 1
        for line in slot.grid:
            for name in line:
                gate = letters.get(name[1:], "")
                tail = {"u": "h", "U": "h", "W": "x", "w": "x"}.get(name[0], "")
                inside = f"{tail}{gate}" if len(slot.parts) > 1 else gate
                place[name] = f"{slot.name}[{inside}]" if several else slot.name
                if slot.order == "rows":
                    place[name] += "'"
    sums = {g: _sum(place, g) for g in letters}
    act, rec = mine.defaults
    if cell == "simple":
        return [f"h = {act}({sums['h']})"]
    if cell == "lstm":
        i, f, g, o = (letters[gate] for gate in "ifgo")
        told = mine.told.get("forget_bias")
        return [
            f"{i} = {rec}({sums['i']})",
            f"{f} = {rec}({sums['f']}{f' + {told.name}' if told else ''})",
            f"{g}~ = {act}({sums['g']})",
            f"c = {f} * c + {i} * {g}~",
            f"{o} = {rec}({sums['o']})",
            f"h = {o} * {act}(c)" + (f" @ {place['R']}, where it is there" if "R" in place else ""),
        ]
    z, r, g = (letters[gate] for gate in "zrg")
    outer = _joined(f"x @ {place['Wg']}", place.get("wg"))
    if cell == "gru":
        inner = f"{r} * ({_joined('h @ ' + place['Ug'], place.get('ug'))})"
    else:
        inner = f"({r} * h) @ {place['Ug']}" + (f" + {place['ug']}" if "ug" in place else "")
    return [
        f"{z} = {rec}({sums['z']})",
        f"{r} = {rec}({sums['r']})",
        f"{g}~ = {act}({outer} + {inner})",
        f"h = {z} * h + (1 - {z}) * {g}~",
    ]


def _sum(place: dict[str, str], gate: str) -> str:
    products = [f"{value} @ {place[part + gate]}" for value, part in (("x", "W"), ("h", "U"))]
    peephole = [f"{place['p' + gate]} * c"] if "p" + gate in place else []
    return _joined(*products, place.get("w" + gate), place.get("u" + gate), *peephole)


def _joined(*terms: str | None) -> str:
    return " + ".join(term for term in terms if term is not None)


# --- the README's table ------------------------------------------------------------------------

HEAD = ("layout", "for", "LSTM gates", "GRU gates", "input kernel", "biases", "state", "by default")


def markdown() -> str:
    """The table of the README, from LAYOUTS."""
    lines = [HEAD, tuple("---" for _ in HEAD), *(_line(layout) for layout in LAYOUTS.values())]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _line(layout: Layout) -> tuple[str, ...]:
    lstm = layout.cells.get("lstm")
    grus = [name for name in ("gru", "gru_reset_before") if name in layout.cells]
    some = lstm or layout.cells[grus[0]]
    families = {"gru": "after", "gru_reset_before": "before"}
    gru = layout.cells[grus[0]] if grus else None
    return (
        f"`{layout.name}`",
        layout.title,
        _order(lstm) if lstm else "-",
        f"{_order(gru)}; reset {' or '.join(families[n] for n in grus)}" if gru else "-",
        "one vector" if layout.flat else _shape(layout, some.slots[0]),
        _biases(layout, lstm, gru),
        f"{', '.join(some.state)} {state_text(layout)}",
        ", ".join([*_functions(layout, some), *_told(some)]),
    )


def _order(mine: Form) -> str:
    """The gates in the order of the input kernel's blocks, in the library's letters."""
    cell = "lstm" if len(mine.letters) == 4 else "gru"
    letters = dict(zip(CELLS[cell].gates, mine.letters, strict=True))
    names = [name for slot in mine.slots for line in slot.grid for name in line]
    return " ".join(letters[name[1]] for name in names if name[0] == "W")


def _biases(layout: Layout, lstm: Form | None, gru: Form | None) -> str:
    said = []
    for name, mine in (("LSTM", lstm), ("GRU", gru)):
        if mine is not None:
            names = [n for slot in mine.slots for line in slot.grid for n in line]
            said.append(f"{name} {sum(n[0] in 'wu' for n in names)}H")
    return ", ".join(said)
