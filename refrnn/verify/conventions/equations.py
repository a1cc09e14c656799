"""Other equations: the GRU's two families, a gate in the other sense, other activations."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from refrnn.activations import ACTIVATIONS
from refrnn.cells import CELLS, Weights
from refrnn.gates import Array
from refrnn.verify.conventions.edit import Edit
from refrnn.verify.scene import Form, Scene


def _opposite(gate: str) -> Callable[[Scene], Scene | None]:
    """A gate taken for 1 minus itself: rec(-z) = 1 - rec(z)."""

    def apply(s: Scene) -> Scene | None:
        z = np.linspace(-4, 4, 9)
        if not np.allclose(s.cell.rec.value(z) + s.cell.rec.value(-z), 1):
            return None
        return replace(s, weights=_of_gate(s, gate, lambda a: -a))

    return apply


def _of_gate(s: Scene, gate: str, change: Callable[[Array], Array]) -> Weights:
    H = len(s.weights.recurrent_kernel)
    start = s.cell.gates.index(gate) * H
    found = [a.copy() for a in s.weights]
    for a in found:
        a[..., start : start + H] = change(a[..., start : start + H])
    return Weights(*found)


def _tied(gate: str, to: str) -> Callable[[Scene], Scene | None]:
    """One gate is 1 minus another."""

    def apply(s: Scene) -> Scene | None:
        H = len(s.weights.recurrent_kernel)
        start = s.cell.gates.index(to) * H
        sources = iter([-a[..., start : start + H] for a in s.weights])
        return (
            None
            if _opposite(gate)(s) is None
            else replace(s, weights=_of_gate(s, gate, lambda a: next(sources)))
        )

    return apply


def _stuck_open(gate: str) -> Callable[[Scene], Scene | None]:
    """A gate is 1 whatever comes."""

    def apply(s: Scene) -> Scene | None:
        if s.cell.rec.value(np.array([64.0]))[0] != 1:
            return None
        weights = _of_gate(s, gate, lambda a: 0 * a)
        H = len(weights.recurrent_kernel)
        start = s.cell.gates.index(gate) * H
        weights.bias[..., start : start + H] = 64
        return replace(s, weights=weights)

    return apply


def _reset_before(s: Scene) -> Scene:
    weights = s.weights._replace(bias=s.weights.bias.sum(0))
    cell = CELLS["gru_reset_before"]._replace(act=s.cell.act, rec=s.cell.rec)
    return replace(s, cell=cell, weights=weights)


def _reset_after(s: Scene) -> Scene:
    b = s.weights.bias
    cell = CELLS["gru"]._replace(act=s.cell.act, rec=s.cell.rec)
    return replace(s, cell=cell, weights=s.weights._replace(bias=np.stack([b, 0 * b])))


def equations(base: Scene) -> Iterator[Edit]:
    if base.cell.name == "gru":
        yield Edit(
            "equations",
            "the reset gate is applied before the recurrent product (reset_after=False)",
            _reset_before,
        )
    if base.cell.name == "gru_reset_before":
        yield Edit(
            "equations",
            "the reset gate is applied after the recurrent product (reset_after=True)",
            _reset_after,
        )
    if base.cell.gates == "zrg":
        yield Edit(
            "gates' sense", "the update gate z has the other sense: (1-z) h + z g", _opposite("z")
        )
        yield Edit("gates' sense", "the reset gate r has the other sense", _opposite("r"))
        yield Edit("gates' sense", "the reset gate is ignored", _stuck_open("r"))
    for name, form in FORMS[base.cell.name.removesuffix("_reset_before")].items():
        yield Edit("form", name, _with_form(form), rare="clipped" in name)
    if base.cell.name == "lstm":
        yield Edit(
            "gates' sense", "the input gate is tied to the forget gate: i = 1 - f", _tied("i", "f")
        )
        yield Edit(
            "gates' sense", "the forget gate is tied to the input gate: f = 1 - i", _tied("f", "i")
        )
        yield Edit("gates' sense", "the output gate is left out", _stuck_open("o"))
        yield Edit("gates' sense", "the forget gate is left out", _stuck_open("f"))
        yield Edit("gates' sense", "the input gate is left out", _stuck_open("i"))


def _output(act: Any, q: Any, old: Sequence[Array], c: Any) -> Array:
    return q.o * act(c)


def _memory(q: Any, c: Array) -> Array:
    return q.f * c + q.i * q.g


FORMS: dict[str, dict[str, Form]] = {
    "lstm": {
        "c is not squashed: h = o c": Form(_memory, lambda act, q, old, c: q.o * c),
        "the candidate is not squashed": Form(lambda q, c: q.f * c + q.i * q.pre.g, _output),
        "h is made of the c before the step": Form(
            _memory, lambda act, q, old, c: q.o * act(old[1])
        ),
        "the forget gate scales all of c: c = f (c + i g)": Form(
            lambda q, c: q.f * (c + q.i * q.g), _output
        ),
        "c is clipped to -10 and 10 (TFLite's cell_clip)": Form(
            lambda q, c: np.clip(_memory(q, c), -10, 10), _output
        ),
    },
    "gru": {
        "the candidate is not scaled by 1 - z: h = z h + g": Form(
            None, lambda act, q, old, c: q.z * old[0] + q.g
        ),
        "the old state is not kept: h = (1 - z) g": Form(
            None, lambda act, q, old, c: (1 - q.z) * q.g
        ),
    },
    "simple": {},
}


def _with_form(form: Form) -> Callable[[Scene], Scene]:
    return lambda s: replace(s, form=form)


GATES = {
    "sigmoid": "the gates are squashed by sigmoid",
    "hard_sigmoid": "the gates are squashed by Keras 3's hard_sigmoid, x/6 + 0.5",
    "hard_sigmoid_keras2": "the gates are squashed by Keras 2's hard_sigmoid, 0.2 x + 0.5",
    "tanh": "the gates are squashed by tanh",
}


SQUASHES = ("tanh", "relu", "linear", "hard_tanh", "softsign", "sigmoid", "elu")


def activations_of(base: Scene) -> Iterator[Edit]:
    def rec(name: str) -> Callable[[Scene], Scene | None]:
        return lambda s: replace(s, cell=s.cell._replace(rec=ACTIVATIONS[name]))

    def act(name: str) -> Callable[[Scene], Scene | None]:
        return lambda s: replace(s, cell=s.cell._replace(act=ACTIVATIONS[name]))

    if base.cell.name != "simple":
        for name, sentence in GATES.items():
            if name != base.cell.rec.name:
                yield Edit("recurrent activation", sentence, rec(name))
    for name in SQUASHES:
        if name != base.cell.act.name:
            of = "the state" if base.cell.name == "simple" else "the candidate"
            of += " and c are" if base.cell.name == "lstm" else " is"
            yield Edit(
                "activation", f"{of} squashed by {name}, not {base.cell.act.name}", act(name)
            )
