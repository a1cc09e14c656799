"""What implementations do differently, as data: each convention is an edit of a `Scene`.

An edit changes what the implementation is supposed to have done: the weights as it reads them, its
equations, its input, its rule for the state, or the order in which its outputs are shown. Two edits
of different aspects can be applied one after the other, in the order of ASPECTS.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np

from refrnn.activations import ACTIVATIONS
from refrnn.cells import CELLS, Weights
from refrnn.gates import Array
from refrnn.reference import QUIET
from refrnn.verify.envelope import Seen, Task
from refrnn.verify.precisions import PRECISIONS, bfloat16, exactly, float16
from refrnn.verify.scene import ALLOWED, Scene, filled, fit, scene, walk

# Aspects of an implementation, in the order in which their edits are applied.
ASPECTS = (
    "axes",
    "direction",
    "mask",
    "input",
    "outputs",
    "state",
    "first state",
    "carrying",
    "stored weights",
    "gate order",
    "kernel",
    "recurrent kernel",
    "bias",
    "gates' sense",
    "equations",
    "activation",
    "recurrent activation",
    "precision",
    "returned state",
    "weight",
)


class Edit(NamedTuple):
    """One convention.

    aspect  what it is about, one of ASPECTS: of two edits of one aspect only one can be so
    name    what the implementation does, in words
    apply   makes the scene in which it does so, or None where that is no different thing
    rare    tried alone, or together with what else was found, but not in every pair
    """

    aspect: str
    name: str
    apply: Callable[[Scene], Scene | None]
    rare: bool = False


def applied(edits: Sequence[Edit], base: Scene) -> Scene | None:
    """The scene with some edits, or None where one of them is not applicable."""
    found: Scene | None = base
    for edit in sorted(edits, key=lambda e: ASPECTS.index(e.aspect)):
        found = None if found is None else edit.apply(found)
    return found


def catalogue(base: Scene, backwards: bool = False, turned: bool = False) -> list[Edit]:
    """All edits that could be made to a scene, most usual first.

    backwards, turned
               the reference runs from the last step to the first; and its outputs, which a scene
               has in the order of processing, come in the order of time
    """
    found: list[Edit] = []
    for maker in (
        _gate_orders,
        _biases,
        _matrices,
        _equations,
        _activations,
        _states,
        _masks,
        _inputs,
        _precisions,
        _returned,
    ):
        found += maker(base)
    found += _directions(backwards, turned)
    return found


# --- weights -------------------------------------------------------------------------------------

ORDERS = {  # the order of blocks, by cell, and who has it
    ("lstm", "ifgo"): "Keras, PyTorch, cuDNN",
    ("lstm", "iofg"): "ONNX",
    ("lstm", "igfo"): "TF1, Haste",
    ("lstm", "figo"): "OpenVINO",
    ("lstm", "ifog"): "CoreML",
    ("gru", "zrg"): "Keras, ONNX, OpenVINO",
    ("gru", "rzg"): "PyTorch, cuDNN",
    ("gru", "rgz"): "CoreML",
}


def _gate_orders(base: Scene) -> Iterator[Edit]:
    letters = base.cell.gates
    for order in permutations(letters):
        blocks = "".join(order)
        if blocks == letters:
            continue
        yield Edit("gate order", f"gate blocks are read as {_ordered(base, blocks)}", _read(blocks))
    arrays = ("kernel", "recurrent_kernel", "bias")
    for array in arrays:
        for order in permutations(letters):
            blocks = "".join(order)
            if blocks != letters:
                name = f"gate blocks of the {array} alone are read as {','.join(blocks)}"
                yield Edit("gate order", name, _read(blocks, array), rare=True)
    for array in arrays[:2]:
        if len(letters) > 1:
            name = f"columns of the {array} are read unit by unit, not gate by gate"
            yield Edit(array.replace("_", " "), name, _interleaved(array), rare=True)


def _ordered(base: Scene, blocks: str) -> str:
    """i,o,f,g (ONNX order)"""
    family = base.cell.name.removesuffix("_reset_before")
    said = ",".join(blocks)
    if (family, blocks) in ORDERS:
        return f"{said} ({ORDERS[family, blocks]} order)"
    letters = base.cell.gates
    for (cell, other), who in ORDERS.items():
        if cell == family and blocks == "".join(letters[other.index(g)] for g in letters):
            return f"{said} (blocks in {who} order read as Keras's)"
    return said


def _read(blocks: str, only: str | None = None) -> Callable[[Scene], Scene]:
    """The k-th block is taken for the gate blocks[k]."""

    def apply(s: Scene) -> Scene:
        letters = s.cell.gates
        width = s.weights.recurrent_kernel.shape[0]
        columns = np.concatenate([np.arange(width) + width * blocks.index(g) for g in letters])
        changed = {
            name: array[..., columns]
            for name, array in s.weights._asdict().items()
            if only in (None, name)
        }
        return replace(s, weights=s.weights._replace(**changed))

    return apply


def _interleaved(name: str) -> Callable[[Scene], Scene]:
    def change(a: Array, s: Scene) -> Array:
        gates = len(s.cell.gates)
        return a.reshape(len(a), -1, gates).swapaxes(1, 2).reshape(a.shape)

    return _weights(name, change)


def _weights(name: str, change: Callable[[Array, Scene], Array]) -> Callable[[Scene], Scene]:
    """Another array of that name."""

    def apply(s: Scene) -> Scene:
        return replace(
            s, weights=s.weights._replace(**{name: change(getattr(s.weights, name), s)})
        )

    return apply


def _each_transposed(a: Array, s: Scene) -> Array:
    return np.concatenate([part.T for part in np.split(a, len(s.cell.gates), axis=1)], axis=1)


def _other_memory(a: Array, s: Scene) -> Array:
    return a.reshape(a.shape[::-1]).T


def _by_columns(a: Array, s: Scene) -> Array:
    return a.ravel(order="F").reshape(a.shape)


def _each_other_memory(a: Array, s: Scene) -> Array:
    blocks = np.split(a, len(s.cell.gates), axis=1)
    return np.concatenate([_other_memory(np.ascontiguousarray(b), s) for b in blocks], axis=1)


def _matrices(base: Scene) -> Iterator[Edit]:
    W, U, _ = base.weights
    square = W.shape == U.shape
    U_, W_ = "recurrent_kernel", "kernel"
    aspect_U, aspect_W = "recurrent kernel", "kernel"
    yield Edit(aspect_U, "recurrent_kernel is transposed (each gate's block)",
               _weights(U_, _each_transposed))
    if square:
        yield Edit(aspect_W, "kernel is transposed (each gate's block)",
                   _weights(W_, _each_transposed))

        def both(s: Scene) -> Scene:
            return _weights(W_, _each_transposed)(_weights(U_, _each_transposed)(s))

        yield Edit(aspect_U, "kernel and recurrent_kernel are transposed (each gate's block)", both)

        def exchanged(s: Scene) -> Scene:
            W, U, b = s.weights
            return replace(s, weights=Weights(U, W, b))

        yield Edit(aspect_W, "kernel and recurrent_kernel are exchanged", exchanged)
    yield Edit(aspect_W, "kernel's memory is read as (G*H, F)", _weights(W_, _other_memory))
    if base.cell.gates != "h":
        yield Edit(aspect_U, "recurrent_kernel's memory is read as (G*H, H)",
                   _weights(U_, _other_memory))
        if not square:
            yield Edit(aspect_W, "kernel's memory is read as (H, F) gate by gate, as CuDNNLSTM"
                       " stores it", _weights(W_, _each_other_memory))
        yield Edit(aspect_U, "recurrent_kernel's memory is read by columns",
                   _weights(U_, _by_columns), rare=True)
        yield Edit(aspect_W, "kernel's memory is read by columns",
                   _weights(W_, _by_columns), rare=True)

        def memories(s: Scene) -> Scene:
            return _weights(W_, _other_memory)(_weights(U_, _other_memory)(s))

        yield Edit(aspect_U, "kernel's and recurrent_kernel's memory is read transposed", memories)
    yield Edit(aspect_U, "the state is not used: there is no recurrent sum",
               _weights(U_, lambda a, s: 0 * a))
    yield Edit(aspect_W, "the input is not used", _weights(W_, lambda a, s: 0 * a), rare=True)


def _bias_of(gate: str, change: Callable[[Array], Any], row: int | None = None) -> Any:
    """The bias of one gate changed."""

    def apply(b: Array, s: Scene) -> Array:
        H = len(s.weights.recurrent_kernel)
        at = slice(s.cell.gates.index(gate) * H, (s.cell.gates.index(gate) + 1) * H)
        found = b.copy()
        if row is None:
            found[..., at] = change(b[..., at])
        else:
            found[row, at] = change(b[row, at])
        return found

    return _weights("bias", apply)


def _merged(into: int) -> Callable[[Array, Scene], Array]:
    def change(b: Array, s: Scene) -> Array:
        found = np.zeros_like(b)
        found[into] = b.sum(0)
        return found

    return change


def _biases(base: Scene) -> Iterator[Edit]:
    def edit(name: str, change: Callable[[Array, Scene], Array], rare: bool = False) -> Edit:
        return Edit("bias", name, _weights("bias", change), rare)

    yield edit("the bias is dropped", lambda b, s: 0 * b)
    yield edit("the bias is added twice", lambda b, s: 2 * b)
    yield edit("the bias is subtracted", lambda b, s: -b, rare=True)
    if base.cell.bias_rows == 2:
        yield edit("the recurrent bias is dropped", lambda b, s: b * [[1], [0]])
        yield edit("the input bias is dropped", lambda b, s: b * [[0], [1]])
        yield Edit("bias", "the candidate's recurrent bias b_hn is dropped",
                   _bias_of("g", lambda b: 0 * b, row=1))
        yield edit("input and recurrent bias are swapped", lambda b, s: b[::-1])
        yield edit("the biases are merged into the input's: b_hn is not scaled by the reset gate",
                   _merged(0))
        yield edit("the biases are merged into the state's: the candidate's input bias is scaled by"
                   " the reset gate", _merged(1))
        yield edit("the input bias is used for both", lambda b, s: b[[0, 0]])
        yield edit("the recurrent bias is used for both", lambda b, s: b[[1, 1]])
    if base.cell.name == "lstm":
        yield Edit("bias", "1 is added to the forget gate's bias once more", _bias_of("f", _plus))
        yield Edit("bias", "the forget gate's bias lacks its 1", _bias_of("f", lambda b: b - 1))
        yield Edit("bias", "the forget gate's bias is dropped", _bias_of("f", lambda b: 0 * b))
    if base.cell.name != "simple":
        yield Edit("bias", "the candidate's bias is dropped", _bias_of("g", lambda b: 0 * b),
                   rare=True)


def _plus(b: Array) -> Array:
    return b + 1


# --- equations -----------------------------------------------------------------------------------


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
        return None if _opposite(gate)(s) is None else replace(
            s, weights=_of_gate(s, gate, lambda a: next(sources))
        )

    return apply


def _open(gate: str) -> Callable[[Scene], Scene | None]:
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


def _equations(base: Scene) -> Iterator[Edit]:
    if base.cell.name == "gru":
        yield Edit("equations", "the reset gate is applied before the recurrent product"
                   " (reset_after=False)", _reset_before)
    if base.cell.name == "gru_reset_before":
        yield Edit("equations", "the reset gate is applied after the recurrent product"
                   " (reset_after=True)", _reset_after)
    if base.cell.gates == "zrg":
        yield Edit("gates' sense", "the update gate z has the other sense: (1-z) h + z g",
                   _opposite("z"))
        yield Edit("gates' sense", "the reset gate r has the other sense", _opposite("r"))
        yield Edit("gates' sense", "the reset gate is ignored", _open("r"))
    if base.cell.name == "lstm":
        yield Edit("gates' sense", "the input gate is tied to the forget gate: i = 1 - f",
                   _tied("i", "f"))
        yield Edit("gates' sense", "the forget gate is tied to the input gate: f = 1 - i",
                   _tied("f", "i"))
        yield Edit("gates' sense", "the output gate is left out", _open("o"))
        yield Edit("gates' sense", "the forget gate is left out", _open("f"))
        yield Edit("gates' sense", "the input gate is left out", _open("i"))


GATES = {
    "sigmoid": "the gates are squashed by sigmoid",
    "hard_sigmoid": "the gates are squashed by Keras 3's hard_sigmoid, x/6 + 0.5",
    "hard_sigmoid_keras2": "the gates are squashed by Keras 2's hard_sigmoid, 0.2 x + 0.5",
    "tanh": "the gates are squashed by tanh",
}
SQUASHES = ("tanh", "relu", "linear", "hard_tanh", "softsign", "sigmoid", "elu")


def _activations(base: Scene) -> Iterator[Edit]:
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
            yield Edit("activation", f"{of} squashed by {name}, not {base.cell.act.name}", act(name))


# --- the state -----------------------------------------------------------------------------------


def _states(base: Scene) -> Iterator[Edit]:
    def first(change: Callable[[tuple[Array, ...]], tuple[Array, ...]]) -> Any:
        return lambda s: replace(s, state=change(s.state))

    def carrying(lost: Callable[[int], Array], **how: Any) -> Any:
        return lambda s: replace(s, lost=lost(s.y.shape[1]), **how)

    def each(T: int) -> Array:
        return np.arange(T) > 0

    lstm = base.cell.name == "lstm"
    yield Edit("first state", "the initial state is ignored",
               first(lambda state: tuple(np.zeros_like(p) for p in state)))
    yield Edit("first state", "the first row's initial state is used for all rows",
               first(lambda state: tuple(np.repeat(p[:1], len(p), axis=0) for p in state)))
    if lstm:
        yield Edit("first state", "h and c of the initial state are swapped",
                   first(lambda state: state[::-1]))
        yield Edit("first state", "the initial h is ignored",
                   first(lambda state: (0 * state[0], state[1])))
        yield Edit("first state", "the initial c is ignored",
                   first(lambda state: (state[0], 0 * state[1])))
    yield Edit("carrying", "the state is not carried: every step starts from zeros", carrying(each))
    yield Edit("carrying", "the state is not carried: every step starts from the initial state",
               carrying(each, restarts=True))
    if lstm:
        for part, other in ("hc", "ch"):
            yield Edit("carrying", f"{part} is not carried from step to step, {other} is",
                       carrying(each, lost_parts=frozenset(part)))
    yield Edit("state", "the recurrent product takes h of two steps before",
               lambda s: replace(s, lag=2))


def lost_at(
    steps: Sequence[int], parts: str, restarts: bool, said: str
) -> Edit:
    """The state, or a part of it, is lost before some steps."""

    def apply(s: Scene) -> Scene | None:
        T = s.y.shape[1]
        if steps[-1] >= T:
            return None
        lost = np.zeros(T, bool)
        lost[list(steps)] = True
        return replace(s, lost=lost, lost_parts=frozenset(parts), restarts=restarts)

    what = {"hc": "the state", "h": "h", "c": "c"}[parts]
    start = "the initial state again" if restarts else "zeros"
    return Edit("carrying", f"{what} is not carried into {said}: it starts from {start}", apply)


def _masks(base: Scene) -> Iterator[Edit]:
    if base.mask is None:
        return
    other = {"held": "zeros", "zeros": "held"}[base.emits] if base.emits != "computed" else "held"
    say = {
        "held": "repeat the last output",
        "zeros": "emit zeros",
        "computed": "emit what they compute",
    }

    def mask(change: Callable[[Array], Array | None]) -> Any:
        return lambda s: None if s.mask is None else replace(s, mask=change(s.mask))

    def emits(kind: str, *runs_on: str) -> Any:
        return lambda s: replace(s, emits=kind, runs_on=frozenset(runs_on))

    yield Edit("mask", "the mask is ignored", mask(lambda m: None))
    yield Edit("mask", "the mask is inverted", mask(lambda m: ~m))
    yield Edit("mask", f"masked steps {say[other]}", emits(other))
    yield Edit("mask", f"masked steps {say['computed']}, the state is held", emits("computed"))
    if base.cell.name == "lstm":
        yield Edit("mask", "c runs on through masked steps, h is held", emits(base.emits, "c"))
        yield Edit("mask", "h runs on through masked steps, c is held", emits(base.emits, "h"))
    for kind in (base.emits, other):
        yield Edit("mask", f"the state runs on through masked steps, which {say[kind]}",
                   emits(kind, "h", "c"))
    yield Edit("mask", "the first row's mask is used for all rows",
               mask(lambda m: np.repeat(m[:1], len(m), axis=0)))
    yield Edit("mask", "the mask is one step late",
               mask(lambda m: np.concatenate([m[:, :1], m[:, :-1]], axis=1)))
    yield Edit("mask", "the mask is taken for lengths: as many first steps are live",
               mask(lambda m: np.arange(m.shape[1]) < m.sum(1, keepdims=True)))
    yield Edit("mask", "holes in the mask are filled: steps up to the last live one are run",
               mask(lambda m: np.logical_or.accumulate(m[:, ::-1], axis=1)[:, ::-1]))


def _returned(base: Scene) -> Iterator[Edit]:
    if not base.returned:
        return

    def returns(which: str) -> Any:
        return lambda s: replace(s, returns=which)

    if len(base.returned) == 2:
        yield Edit("returned state", "h and c of the returned state are swapped",
                   lambda s: replace(s, returned={"h": s.returned["c"], "c": s.returned["h"]}))
    yield Edit("returned state", "the returned state is that before the last step",
               returns("before"))
    yield Edit("returned state", "the returned state is the initial one", returns("first"))
    yield Edit("returned state", "the returned state is zeros", returns("zeros"))


# --- input and outputs ---------------------------------------------------------------------------


def _directions(backwards: bool, turned: bool) -> Iterator[Edit]:
    def flip(x: bool, y: bool) -> Callable[[Scene], Scene | None]:
        def apply(s: Scene) -> Scene | None:
            if s.y.shape[1] < 2 or s.reset is not None or s.calls is not None:
                return None
            changed: dict[str, Any] = {}
            if x:
                changed["xs"] = s.xs[:, ::-1]
                changed["mask"] = None if s.mask is None else s.mask[:, ::-1]
            if y:
                changed["y"] = s.y[:, ::-1]
                changed["cs"] = None if s.cs is None else s.cs[:, ::-1]
            return replace(s, **changed)

        return apply

    if not backwards:
        names = {
            (True, True): "the sequence is run backwards, outputs in the order of time",
            (True, False): "the sequence is run backwards, outputs in the order of processing",
            (False, True): "the outputs are flipped in time",
        }
    elif turned:
        names = {
            (False, True): "the backward outputs are not flipped back into the order of time",
            (True, True): "the sequence is run forwards",
            (True, False): "the sequence is run forwards, outputs flipped in time",
        }
    else:
        names = {
            (False, True): "the backward outputs are flipped into the order of time",
            (True, False): "the sequence is run forwards",
            (True, True): "the sequence is run forwards, outputs flipped in time",
        }
    for (x, y), name in names.items():
        yield Edit("direction", name, flip(x, y))


def _shifted(a: Array, by: int, fill: str) -> Array:
    """Time moved: by 1, each step has what the one before had."""
    if not a.shape[1]:
        return a
    moved = np.roll(a, by, axis=1)
    edge = 0 if by == 1 else -1
    moved[:, edge] = a[:, edge] if fill == "repeated" else 0
    return moved


def _inputs(base: Scene) -> Iterator[Edit]:
    def shifted(by: int, fill: str) -> Callable[[Scene], Scene | None]:
        def apply(s: Scene) -> Scene | None:
            return replace(s, xs=_shifted(s.xs, by, fill))

        return apply

    def axes(memory: bool) -> Callable[[Scene], Scene | None]:
        def apply(s: Scene) -> Scene | None:
            B, T, H = s.y.shape
            if B < 2 or T < 2 or s.reset is not None or s.calls is not None:
                return None

            def moved(a: Array | None) -> Any:
                if a is None:
                    return None
                return a.reshape(T, B, *a.shape[2:]) if memory else a.swapaxes(0, 1)

            same = B == T
            state = s.state if same else tuple(np.zeros((T, H)) for _ in s.state)
            return replace(
                s,
                xs=moved(s.xs),
                y=moved(s.y),
                cs=moved(s.cs),
                mask=moved(s.mask),
                state=state,
                returned=s.returned if same else {},
                last_output=None,
            )

        return apply

    def late(s: Scene) -> Scene | None:
        if s.y.shape[1] < 2 or s.reset is not None or s.calls is not None:
            return None
        cut = {n: getattr(s, n)[:, :-1] for n in ("xs", "mask") if getattr(s, n) is not None}
        return replace(s, **cut, y=s.y[:, 1:], cs=None, returned={})

    yield Edit("input", "the input is one step late, the first repeated", shifted(1, "repeated"))
    yield Edit("input", "the input is one step late, zeros first", shifted(1, "zeros"))
    yield Edit("input", "the input is one step early, the last repeated", shifted(-1, "repeated"))
    yield Edit("input", "the input is one step early, zeros last", shifted(-1, "zeros"))
    yield Edit("input", "the last step has the input of the one before", _stale_last)
    yield Edit("outputs", "the outputs are one step late", late)
    yield Edit("outputs", "the outputs' rows come in reverse order", _rows_reversed, rare=True)
    yield Edit("axes", "batch and time are exchanged: the sequence runs over the rows", axes(False))
    yield Edit("axes", "the memory of (batch, time) is read as (time, batch), and the sequence runs"
               " over the rows", axes(True))
    yield Edit("axes", "the input's memory is read as (time, batch)", _time_major_input)


def _stale_last(s: Scene) -> Scene | None:
    if s.xs.shape[1] < 2:
        return None
    xs = s.xs.copy()
    xs[:, -1] = xs[:, -2]
    return replace(s, xs=xs)


def _rows_reversed(s: Scene) -> Scene | None:
    if len(s.y) < 2:
        return None
    return replace(s, y=s.y[::-1], cs=None if s.cs is None else s.cs[::-1])


def _time_major_input(s: Scene) -> Scene | None:
    """x.reshape(T, B, F), then run along T; the outputs come as (B, T, H)."""
    B, T, F = s.xs.shape
    if B < 2 or T < 2:
        return None
    return replace(s, xs=np.ascontiguousarray(s.xs).reshape(T, B, F).swapaxes(0, 1))


# --- precision -----------------------------------------------------------------------------------

OPERATIONS = {
    "float64": "it computes in float64",
    "float32": "it computes in float32",
    "tf32": "products in TF32: their operands are rounded to 10 bits",
    "tf32 cut": "products in TF32: their operands are cut to 10 bits",
    "bfloat16 products": "products in bfloat16: their operands are rounded to 7 bits",
    "float16 products": "products in float16: their operands are rounded to float16",
    "bfloat16": "it computes in bfloat16",
    "float16": "it computes in float16",
}


def _representable(values: Array, name: str) -> bool:
    """Whether numbers are of a format, as those are that were stored in it."""
    rounding = {"bfloat16": bfloat16, "float16": float16}.get(name)
    if rounding is None:
        return True
    with QUIET():
        return bool(np.mean(rounding(values.astype(np.float32).astype(np.float64)) == values) > 0.99)


def _precisions(base: Scene) -> Iterator[Edit]:
    def precision(name: str) -> Callable[[Scene], Scene | None]:
        def apply(s: Scene) -> Scene | None:
            if PRECISIONS[name].pointwise > base.precision.pointwise and not _representable(
                s.y, name
            ):
                return None
            return replace(s, precision=PRECISIONS[name])

        return apply

    def stored(rounding: Callable[[Array], Array]) -> Callable[[Scene], Scene | None]:
        return lambda s: replace(s, weights=Weights(*(rounding(a) for a in s.weights)))

    asked = base.precision
    for name, row in PRECISIONS.items():
        coarser = row.pointwise > asked.pointwise or (
            row.pointwise >= asked.pointwise and row.operand_u > asked.operand_u
        )
        other = row.operand_u == asked.operand_u and row.operands is not asked.operands
        if (coarser or other) and row.operands is not asked.operands or (
            row.pointwise > asked.pointwise
        ):
            yield Edit("precision", OPERATIONS[name], precision(name))
    if asked.operands is exactly:
        for name, rounding in (("bfloat16", bfloat16), ("float16", float16)):
            yield Edit("stored weights", f"the weights are stored in {name}", stored(rounding))


# --- what a run cannot show ------------------------------------------------------------------------

SMALL = (3, 12)  # rows and steps that show most conventions
LARGE = (8, 1000)


def blind(tasks: Sequence[Task], seens: Sequence[Seen] = ()) -> list[str]:
    """The conventions that some runs cannot tell from the right one, a sentence for each.

    An implementation with any of these would give the same outputs, within the bounds, for all of
    `tasks`. Only the first rows and steps of long runs are looked at.
    """
    hidden: dict[str, None] | None = None
    for task in tasks:
        base = scene(task, _nothing(task), PRECISIONS["float32"])
        found = dict.fromkeys(_blind(base))
        hidden = found if hidden is None else {name: None for name in hidden if name in found}
    return list(hidden or {})


def _nothing(task: Task) -> Seen:
    B, T, _ = task.xs.shape
    return Seen(np.zeros((B, T, len(task.weights.recurrent_kernel))))


def _blind(base: Scene) -> Iterator[str]:
    for rows, steps in (SMALL, LARGE):
        part = first_part(base, rows, steps)
        filled(part)
        _ = rows
    yield from ()


def first_part(s: Scene, rows: int, steps: int) -> Scene:
    """The first rows and steps."""

    def cut(a: Array | None) -> Any:
        return None if a is None else a[:rows, :steps]

    return replace(
        s,
        xs=cut(s.xs),
        y=cut(s.y).copy(),
        cs=None,
        mask=cut(s.mask),
        reset=cut(s.reset),
        state=tuple(p[:rows] for p in s.state),
        calls=None if s.calls is None else s.calls[:steps],
        last_output=None if s.last_output is None else s.last_output[:rows],
        returned={},
    )


def same(edit: Edit, base: Scene) -> bool:
    """Whether a scene would fit as well with an edit."""
    found = edit.apply(base)
    if found is None:
        return False
    with QUIET():
        w = walk(found)
        off = np.abs(w.expected - found.y).max(initial=0)
    return bool(off == 0) or fit(found).worst <= ALLOWED
