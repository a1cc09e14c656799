"""What a library is told beside its arrays, by its own names: into a `Function`, and from one.

No attribute is ignored: one that is not known, or that contradicts the arrays, is refused.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from refrnn.activations import ACTIVATIONS
from refrnn.layouts.hub import Function, Hub, Pass
from refrnn.layouts.table import Form, Layout


def _first(hub: Hub) -> Pass:
    return hub.layers[0][0]


def _units(hub: Hub) -> Any:
    units = [layer[0].sizes.units for layer in hub.layers]
    return units[0] if len(set(units)) == 1 else units


def _biased(hub: Hub) -> bool:
    return any(name[0] in "wu" for one in hub.passes for name in one.blocks)


def _two_ways(hub: Hub) -> bool:
    return len(hub.layers[0]) == 2


def _projected(hub: Hub) -> Any:
    return _first(hub).sizes.width if "R" in _first(hub).blocks else None


def _features(hub: Hub) -> int:
    return _first(hub).sizes.features


# What the arrays say about the shape, by the libraries' names for it.
SHAPE: dict[str, Callable[[Hub], Any]] = {
    "units": _units,
    "num_units": _units,
    "hidden_size": _units,
    "hidden_features": _units,
    "features": _units,
    "input_size": _features,
    "in_features": _features,
    "num_layers": lambda hub: len(hub.layers),
    "bidirectional": _two_ways,
    "direction": lambda hub: "bidirectional" if _two_ways(hub) else "forward",
    "use_bias": _biased,
    "useBias": _biased,
    "bias": _biased,
    "proj_size": lambda hub: _projected(hub) or 0,
    "num_proj": _projected,
    "reset_after": lambda hub: hub.cell == "gru",
    "linear_before_reset": lambda hub: int(hub.cell == "gru"),
}

ALPHAS = ("activation_alpha", "activation_beta")
HARD = {"hard_sigmoid_keras2": (0.2, 0.5), "hard_sigmoid": (1 / 6, 0.5)}  # slope and offset


def read(layout: Layout, cell: str, given: Mapping[str, Any], hub: Hub) -> Function:
    """The function that the attributes say, its defaults the library's.

    hub  what the arrays said; attributes about the shape must agree with it
    """
    who, form, left = f"{layout.name} {cell}", layout.cells[cell], dict(given)
    act, rec = form.defaults
    if "activations" in form.act:
        act, rec = _listed(who, layout, form, cell, left, 1 + _two_ways(hub))
    else:
        said = [_known(who, layout, n, left.pop(n)) for n in form.act if n in left]
        if len(set(said)) > 1:
            raise ValueError(
                f"{who}: {' and '.join(form.act)} are {said}, expected the same, because refrnn's"
                " LSTM squashes the candidate and the output by one function"
            )
        act = said[0] if said else act
        for name in form.rec:
            rec = _known(who, layout, name, left.pop(name)) if name in left else rec
    numbers: dict[str, Any] = {}
    for field, told in form.told.items():
        value = left.pop(told.name, told.default)
        numbers[field] = _number(who, field, told.name, told.off if value is None else value)
    for name in form.shape:
        expected = SHAPE[name](hub)
        value = left.pop(name, expected)
        if name == "direction" and value == "reverse":
            raise ValueError(
                f"{who}: direction is 'reverse', expected 'forward': the weights are the same; run"
                " them forward on the reversed sequence and reverse the outputs (Keras's"
                " go_backwards reverses the input alone)"
            )
        if value != expected and not (value in (None, 0) and not expected):
            raise ValueError(
                f"{who}: {name} is {value!r}, expected {expected!r}, because the arrays"
                f" {'are read as those of ' + repr(cell) if 'reset' in name else 'have that'}"
            )
    if left:
        names = [*form.act, *form.rec, *(t.name for t in form.told.values()), *form.shape]
        raise ValueError(
            f"{who}: the attribute {next(iter(left))!r} is not known, expected one of"
            f" {', '.join(sorted(set(names)))}: none is ignored, leave out what changes no number"
        )
    return Function(act, rec, **numbers)


def _number(who: str, field: str, name: str, value: Any) -> Any:
    if value is None:  # no clip
        return np.inf
    if isinstance(value, str) or np.ndim(value) != 0 or value != value:
        raise ValueError(f"{who}: {name} is {value!r}, expected a number")
    if field == "input_forget":
        return bool(value)
    number = float(value)
    return number if field == "forget_bias" or number > 0 else np.inf


def _known(who: str, layout: Layout, name: str, value: Any) -> str:
    """refrnn's name for an activation."""
    if layout.activations is None:
        names = {n: n for n, row in ACTIVATIONS.items() if row.kind == "elementwise"}
    else:
        names = {theirs: mine for mine, theirs in layout.activations.items()}
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"{who}: {name} is {value!r}, expected one of {', '.join(sorted(names))}")
    return names[value]


def _listed(
    who: str, layout: Layout, form: Form, cell: str, left: dict[str, Any], directions: int
) -> tuple[str, str]:
    """act and rec from a list of functions, for LSTM [rec, act, act], a direction after another."""
    alphas, betas = (list(left.pop(name, None) or ()) for name in ALPHAS)
    listed = left.pop("activations", None)
    if listed is None:
        return form.defaults
    names = []
    for value in listed:
        mine = _known(who, layout, "activations", value)
        if mine in HARD and layout.name == "onnx":
            slope = alphas.pop(0) if alphas else 0.2
            offset = betas.pop(0) if betas else 0.5
            near = [n for n, s in HARD.items() if np.allclose((slope, offset), s, rtol=1e-6)]
            if not near:
                raise ValueError(
                    f"{who}: HardSigmoid has alpha {slope} and beta {offset}, expected 1/6 (Keras"
                    " 3) or 0.2 (Keras 2) and 0.5; weights of gates can be scaled to one of these"
                )
            mine = near[0]
        names.append(mine)
    count = {"simple": 1, "lstm": 3}.get(cell, 2)
    one = names[:count]
    if len(names) != count * directions or names != one * directions or len(set(one[1:])) > 1:
        raise ValueError(
            f"{who}: activations are {list(listed)}, expected {count} names for each of"
            f" {directions} directions, the same in each, and for LSTM the last two the same,"
            " because refrnn's cells have two functions"
        )
    if alphas or betas:
        raise ValueError(f"{who}: {' and '.join(ALPHAS)} are given for functions that take none")
    return (one[0], form.defaults[1]) if cell == "simple" else (one[1], one[0])


def write(layout: Layout, hub: Hub) -> dict[str, Any]:
    """The attributes that say `hub`'s shape and function; the layout can say them."""
    form, function = layout.cells[hub.cell], hub.function
    said: dict[str, Any] = {name: SHAPE[name](hub) for name in form.shape}
    if "activations" in form.act:
        mine = [function.rec, function.act, function.act]
        mine = {"simple": mine[1:2], "lstm": mine}.get(hub.cell, mine[:2])
        mine = mine * (1 + _two_ways(hub))
        said["activations"] = [theirs(layout, name) for name in mine]
        if "hard_sigmoid" in mine:
            for k, name in enumerate(ALPHAS):
                said[name] = [HARD[n][k] for n in mine if n in HARD]
    else:
        said |= {name: theirs(layout, function.act) for name in form.act}
        said |= {name: theirs(layout, function.rec) for name in form.rec}
    for field, told in form.told.items():
        value = getattr(function, field)
        value = told.off if value == np.inf else int(value) if field == "input_forget" else value
        said[told.name] = value
    return {name: value for name, value in said.items() if value is not None}


def theirs(layout: Layout, name: str) -> Any:
    """The library's name for an activation; None where it has none."""
    if layout.activations is None:
        return name
    return layout.activations.get(name)
