"""explain is right: a planted cause is named first, two planted causes are both named, an ambiguity
is said and resolved, and a bug that is no convention is never given a convention's name.

Every wrong implementation is made here, of `implementations.Plain` or of `refrnn.run` on other
arguments, in float32: it shares no code with the hypotheses, which run in float64.
"""

import json
import re
from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from implementations import Plain

from refrnn import Weights, run
from refrnn.activations import ACTIVATIONS
from refrnn.cases import Case
from refrnn.cells import CELLS
from refrnn.gates import Array
from refrnn.layers import GRU, LSTM, Bidirectional, SimpleRNN
from refrnn.oracles.tensorflow import TensorFlow
from refrnn.verify import PRECISIONS, Explanation, check, explain
from refrnn.verify.conventions import blind
from refrnn.verify.subject import subject

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "simple": ("SimpleRNN", {}),
    "gru": ("GRU", {}),
    "gru_reset_before": ("GRU", {"reset_after": False}),
    "lstm": ("LSTM", {}),
}
each_kind = pytest.mark.parametrize("kind", KINDS)
Outputs = tuple[Array, ...]


class Kit:
    """A layer, what it is fed, and wrong runs of it in float32: y, then the states."""

    def __init__(self, kind: str, **settings: Any) -> None:
        layer, options = KINDS[kind]
        shape = {"rows": 3, "steps": 14, "features": 5, "units": 7, **settings}
        case = Case(layer, **{"options": options, "dtype": "float32", **shape})
        self.kind, self.cell, self.layer = kind, CELLS[kind], case.build()
        arrays = case.arrays()
        self.x, self.state, self.mask = arrays.x, arrays.state, arrays.mask
        self.weights = Weights(*arrays.weights)
        self.H = len(self.weights.recurrent_kernel)

    def run(self, **wrong: Any) -> Outputs:
        given = {
            "weights": self.weights,
            "xs": self.x,
            "state": self.state,
            "mask": self.mask,
            "engine": "numpy",
            **wrong,
        }
        y, state = run(
            wrong.pop("cell", self.kind),
            given.pop("weights"),
            given.pop("xs"),
            given.pop("state"),
            **{k: v for k, v in given.items() if k != "cell"},
        )
        return y, *state

    def with_weights(self, **changed: Array) -> Outputs:
        return self.run(weights=self.weights._replace(**changed))

    def steps(self, before: Callable[[int, list[Array], list[Array]], list[Array]]) -> Outputs:
        """Step by step, without a mask; before(t, state, first) is the state that is taken."""
        first = [np.array(part) for part in self.state]
        state, ys = first, []
        for t in range(self.x.shape[1]):
            taken = before(t, state, first)
            y, *state = self.run(xs=self.x[:, t : t + 1], state=taken, mask=None)
            ys.append(y)
        return np.concatenate(ys, axis=1), *state

    def masked_steps(
        self, keep: Callable[[Array, list[Array], list[Array]], list[Array]]
    ) -> Outputs:
        """Step by step; keep(live, old, new) is the state after a step; masked outputs repeat."""
        state = [np.array(part) for part in self.state]
        ys, last = [], np.zeros_like(state[0])
        for t in range(self.x.shape[1]):
            live = self.mask[:, t, None]
            y, *new = self.run(xs=self.x[:, t : t + 1], state=state, mask=None)
            last = np.where(live, y[:, 0], last)
            state = keep(live, state, new)
            ys.append(last)
        return np.stack(ys, axis=1), *state

    def explain(self, outputs: Any, **options: Any) -> Explanation:
        return explain(outputs, self.layer, self.x, self.state, self.mask, **options)


def blocks(kit: Kit, order: str, a: Array) -> Array:
    """The columns as code sees them that takes the k-th block for the gate order[k]."""
    parts = np.split(a, len(order), axis=-1)
    return np.concatenate([parts[order.index(gate)] for gate in kit.cell.gates], axis=-1)


def each_block(kit: Kit, a: Array, change: Callable[[Array], Array]) -> Array:
    parts = np.split(a, len(kit.cell.gates), axis=-1)
    return np.concatenate([change(part) for part in parts], axis=-1)


def of_gate(kit: Kit, gate: str, a: Array, change: Callable[[Array], Array]) -> Array:
    parts = np.split(a, len(kit.cell.gates), axis=-1)
    k = kit.cell.gates.index(gate)
    return np.concatenate([*parts[:k], change(parts[k]), *parts[k + 1 :]], axis=-1)


def negated(kit: Kit, gate: str) -> Outputs:
    return kit.run(weights=Weights(*(of_gate(kit, gate, a, np.negative) for a in kit.weights)))


def zeros(state: list[Array]) -> list[Array]:
    return [np.zeros_like(part) for part in state]


def cut(kit: Kit, period: int, taken: Callable[[list[Array], list[Array]], list[Array]]) -> Outputs:
    return kit.steps(
        lambda t, state, first: taken(state, first) if t and t % period == 0 else state
    )


def merged(kit: Kit, into: int) -> Array:
    bias = np.zeros_like(kit.weights.bias)
    bias[into] = kit.weights.bias.sum(0)
    return bias


ALL = ("simple", "gru", "gru_reset_before", "lstm")
GATED = ALL[1:]
GRUS = ("gru", "gru_reset_before")
# name of the cause: (cells, wrong run)
CAUSES: dict[str, tuple[tuple[str, ...], Callable[[Kit], Any]]] = {
    "recurrent_kernel is transposed (each gate's block)": (
        ALL,
        lambda k: k.with_weights(
            recurrent_kernel=each_block(k, k.weights.recurrent_kernel, np.transpose)
        ),
    ),
    "kernel's memory is read as (G*H, F)": (
        ALL,
        lambda k: k.with_weights(kernel=k.weights.kernel.reshape(k.weights.kernel.shape[::-1]).T),
    ),
    "recurrent_kernel's memory is read as (G*H, H)": (
        GATED,
        lambda k: k.with_weights(recurrent_kernel=k.weights.recurrent_kernel.reshape(-1, k.H).T),
    ),
    "kernel's memory is read as (H, F) gate by gate, as CuDNNLSTM stores it": (
        GATED,
        lambda k: k.with_weights(
            kernel=each_block(k, k.weights.kernel, lambda b: b.ravel().reshape(k.H, -1).T)
        ),
    ),
    "the bias is dropped": (ALL, lambda k: k.with_weights(bias=0 * k.weights.bias)),
    "the bias is added twice": (ALL, lambda k: k.with_weights(bias=2 * k.weights.bias)),
    "the recurrent bias is dropped": (
        ("gru",),
        lambda k: k.with_weights(bias=np.stack([k.weights.bias[0], 0 * k.weights.bias[0]])),
    ),
    "the input bias is dropped": (
        ("gru",),
        lambda k: k.with_weights(bias=np.stack([0 * k.weights.bias[0], k.weights.bias[1]])),
    ),
    "the candidate's recurrent bias b_hn is dropped": (
        ("gru",),
        lambda k: k.with_weights(
            bias=np.stack([k.weights.bias[0], of_gate(k, "g", k.weights.bias[1], np.zeros_like)])
        ),
    ),
    "input and recurrent bias are swapped": (
        ("gru",),
        lambda k: k.with_weights(bias=np.ascontiguousarray(k.weights.bias[::-1])),
    ),
    "the biases are merged into the input's: b_hn is not scaled by the reset gate": (
        ("gru",),
        lambda k: k.with_weights(bias=merged(k, 0)),
    ),
    "the biases are merged into the state's: the candidate's input bias is scaled by the reset"
    " gate": (("gru",), lambda k: k.with_weights(bias=merged(k, 1))),
    "1 is added to the forget gate's bias once more": (
        ("lstm",),
        lambda k: k.with_weights(bias=of_gate(k, "f", k.weights.bias, lambda b: b + 1)),
    ),
    "the forget gate's bias lacks its 1": (
        ("lstm",),
        lambda k: k.with_weights(bias=of_gate(k, "f", k.weights.bias, lambda b: b - 1)),
    ),
    "the reset gate is applied before the recurrent product (reset_after=False)": (
        ("gru",),
        lambda k: k.run(
            cell="gru_reset_before", weights=k.weights._replace(bias=k.weights.bias.sum(0))
        ),
    ),
    "the reset gate is applied after the recurrent product (reset_after=True)": (
        ("gru_reset_before",),
        lambda k: k.run(
            cell="gru",
            weights=k.weights._replace(bias=np.stack([k.weights.bias, 0 * k.weights.bias])),
        ),
    ),
    "the update gate z has the other sense: (1-z) h + z g": (GRUS, lambda k: negated(k, "z")),
    "the gates are squashed by Keras 2's hard_sigmoid, 0.2 x + 0.5": (
        GATED,
        lambda k: k.run(recurrent_activation="hard_sigmoid_keras2"),
    ),
    "the gates are squashed by Keras 3's hard_sigmoid, x/6 + 0.5": (
        GATED,
        lambda k: k.run(recurrent_activation="hard_sigmoid"),
    ),
    "the candidate is squashed by relu, not tanh": (GRUS, lambda k: k.run(activation="relu")),
    "the candidate and c are squashed by relu, not tanh": (
        ("lstm",),
        lambda k: k.run(activation="relu"),
    ),
    "the state is squashed by relu, not tanh": (("simple",), lambda k: k.run(activation="relu")),
    "the sequence is run backwards, outputs in the order of processing": (
        ALL,
        lambda k: k.run(go_backwards=True),
    ),
    "the sequence is run backwards, outputs in the order of time": (
        ALL,
        lambda k: (np.flip(k.run(go_backwards=True)[0], 1), *k.run(go_backwards=True)[1:]),
    ),
    "the outputs are flipped in time": (ALL, lambda k: (k.run()[0][:, ::-1], *k.run()[1:])),
    "the memory of (batch, time) is read as (time, batch), and the sequence runs over the rows": (
        ALL,
        lambda k: k.run(xs=k.x.reshape(k.x.shape[1], k.x.shape[0], -1), state=None, mask=None)[
            0
        ].reshape(*k.x.shape[:2], k.H),
    ),
    "batch and time are exchanged: the sequence runs over the rows": (
        ALL,
        lambda k: k.run(xs=np.swapaxes(k.x, 0, 1), state=None, mask=None)[0].swapaxes(0, 1),
    ),
    "the initial state is ignored": (ALL, lambda k: k.run(state=None)),
    "h and c of the initial state are swapped": (
        ("lstm",),
        lambda k: k.run(state=k.state[::-1]),
    ),
    "h and c of the returned state are swapped": (
        ("lstm",),
        lambda k: (lambda y, h, c: (y, c, h))(*k.run()),
    ),
    "the returned state is that before the last step": (
        ALL,
        lambda k: (k.run()[0], *k.run(xs=k.x[:, :-1])[1:]),
    ),
    "the state is not carried: every step starts from zeros": (
        ALL,
        lambda k: k.steps(lambda t, state, first: zeros(state) if t else state),
    ),
    "the state is not carried: every step starts from the initial state": (
        ALL,
        lambda k: k.steps(lambda t, state, first: first),
    ),
    "c is not carried from step to step, h is": (
        ("lstm",),
        lambda k: k.steps(lambda t, s, first: [s[0], 0 * s[1]] if t else s),
    ),
    "the state is not carried into steps 4, 8, ... (every 4): it starts from zeros": (
        ALL,
        lambda k: cut(k, 4, lambda state, first: zeros(state)),
    ),
    "the state is not carried into steps 5, 10, ... (every 5): it starts from the initial state"
    " again": (ALL, lambda k: cut(k, 5, lambda state, first: first)),
    "the state is not carried into step 6: it starts from zeros": (
        ALL,
        lambda k: k.steps(lambda t, state, first: zeros(state) if t == 6 else state),
    ),
    "c is not carried into steps 4, 8, ... (every 4): it starts from zeros": (
        ("lstm",),
        lambda k: cut(k, 4, lambda s, first: [s[0], 0 * s[1]]),
    ),
    "the input is one step late, zeros first": (
        ALL,
        lambda k: k.run(xs=np.concatenate([0 * k.x[:, :1], k.x[:, :-1]], axis=1)),
    ),
    "the input is one step early, the last repeated": (
        ALL,
        lambda k: k.run(xs=np.concatenate([k.x[:, 1:], k.x[:, -1:]], axis=1)),
    ),
    "the outputs are one step late": (
        ALL,
        lambda k: np.concatenate([0 * k.run()[0][:, :1], k.run()[0][:, :-1]], axis=1),
    ),
    "the weights are stored in float16": (
        ALL,
        lambda k: k.run(
            weights=Weights(*(a.astype(np.float16).astype(np.float32) for a in k.weights))
        ),
    ),
}
MASKED: dict[str, tuple[tuple[str, ...], Callable[[Kit], Any]]] = {
    "the mask is ignored": (ALL, lambda k: k.run(mask=None)),
    "the mask is inverted": (ALL, lambda k: k.run(mask=~k.mask)),
    "masked steps emit zeros": (ALL, lambda k: k.run(zero_output_for_mask=True)),
    "c runs on through masked steps, h is held": (
        ("lstm",),
        lambda k: k.masked_steps(lambda live, old, new: [np.where(live, new[0], old[0]), new[1]]),
    ),
    "the state runs on through masked steps, which repeat the last output": (
        ALL,
        lambda k: k.masked_steps(lambda live, old, new: new),
    ),
}


def planted(causes: dict[str, Any]) -> list[Any]:
    return [
        pytest.param(kind, name, wrong, id=f"{kind}: {name[:60]}")
        for name, (kinds, wrong) in causes.items()
        for kind in kinds
    ]


# --- single causes ---------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name", "wrong"), planted(CAUSES))
def test_a_planted_cause_is_named_first(kind: str, name: str, wrong: Any) -> None:
    kit = Kit(kind, seed=4)
    found = kit.explain(wrong(kit))
    assert found.causes[0].edits == (name,), found
    assert found.causes[0].exact
    assert not found.agrees
    assert found.verdict == name  # and nothing else fits
    assert found.separating is None


@pytest.mark.parametrize(("kind", "name", "wrong"), planted(MASKED))
def test_a_planted_rule_for_masks_is_named_first(kind: str, name: str, wrong: Any) -> None:
    kit = Kit(kind, mask="holes", seed=1)
    found = kit.explain(wrong(kit))
    assert found.fits[0].edits == (name,), found
    assert len(found.fits) == 1, found


@pytest.mark.parametrize("kind", GATED)
def test_every_order_of_gates_is_named(kind: str) -> None:
    kit = Kit(kind)
    for order in permutations(kit.cell.gates):
        if "".join(order) == kit.cell.gates:
            continue
        wrong = Weights(*(blocks(kit, "".join(order), a) for a in kit.weights))
        found = kit.explain(kit.run(weights=wrong))
        assert len(found.fits) == 1, found
        name = f"gate blocks are read as {','.join(order)}"
        assert (found.verdict + " ").startswith(name + " "), found


@pytest.mark.parametrize(
    ("kind", "order", "who"),
    [
        ("lstm", "iofg", "ONNX order"),
        ("lstm", "igfo", "TF1, Haste order"),
        ("lstm", "figo", "OpenVINO order"),
        ("lstm", "igof", "blocks in ONNX order read as Keras's"),
        ("gru", "rzg", "PyTorch, cuDNN order"),
        ("gru_reset_before", "rzg", "PyTorch, cuDNN order"),
    ],
)
def test_an_order_of_gates_is_said_to_be_whose_it_is(kind: str, order: str, who: str) -> None:
    kit = Kit(kind)
    found = kit.explain(kit.run(weights=Weights(*(blocks(kit, order, a) for a in kit.weights))))
    assert found.verdict == f"gate blocks are read as {','.join(order)} ({who})"


@each_kind
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tf32", "products in TF32: their operands are rounded to 10 bits"),
        ("tf32 cut", "products in TF32: their operands are cut to 10 bits"),
        ("bfloat16 products", "products in bfloat16: their operands are rounded to 7 bits"),
        ("float16 products", "products in float16: their operands are rounded to float16"),
    ],
)
def test_a_precision_of_products_is_named(kind: str, name: str, said: str) -> None:
    kit = Kit(kind)
    operands = PRECISIONS[name].operands
    plain = Plain(
        kit.cell, kit.weights, lambda a: operands(a.astype(np.float64)).astype(np.float32)
    )
    found = kit.explain(plain(kit.x, kit.state))
    assert (said,) in [cause.edits for cause in found.fits], found
    # TF32 and float16 keep as many bits: on numbers of usual size they are one thing
    assert len(found.fits) == (2 if name in ("tf32", "float16 products") else 1), found


@each_kind
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_run_in_two_bytes_is_named(kind: str, dtype: str) -> None:
    kit = Kit(kind)
    weights = Weights(*(PRECISIONS[dtype].operands(a.astype(np.float64)) for a in kit.weights))
    narrow: Any = np.float16
    if dtype == "bfloat16":
        import ml_dtypes

        narrow = ml_dtypes.bfloat16
    plain = Plain(kit.cell, Weights(*(a.astype(narrow) for a in weights)))
    y = plain(kit.x, [part.astype(narrow) for part in kit.state])[0].astype(np.float32)
    found = kit.explain(y)
    assert found.verdict.startswith(f"{dtype}: the outputs are numbers of that format"), found


def test_float32_is_named_where_float64_is_claimed() -> None:
    kit = Kit("lstm")
    case = Case("LSTM", rows=3, steps=14, features=5, units=7, dtype="float64")
    layer, arrays = case.build(), case.arrays()
    narrow = [a.astype(np.float32) for a in arrays.weights]
    layer.set_weights([a.astype(np.float64) for a in narrow])
    x, state = arrays.x.astype(np.float32), [p.astype(np.float32) for p in arrays.state]
    y, _ = run("lstm", Weights(*narrow), x, state)
    found = explain(y.astype(np.float64), layer, x, state, precision="float64")
    assert found.verdict == "it computes in float32", found
    assert kit.explain(kit.run()).agrees


# --- pairs -----------------------------------------------------------------------------------


def weighted(kit: Kit, change: Callable[[Kit], Weights], **options: Any) -> Outputs:
    return kit.run(weights=change(kit), **options)


def transposed(kit: Kit, weights: Weights) -> Weights:
    U = each_block(kit, weights.recurrent_kernel, np.transpose)
    return weights._replace(recurrent_kernel=np.ascontiguousarray(U))


# each changes the weights, or the arguments of a run
FIRST: dict[str, Callable[[Kit, Weights], Weights]] = {
    "gate blocks are read as": lambda k, w: Weights(*(blocks(k, k.cell.gates[::-1], a) for a in w)),
    "recurrent_kernel is transposed (each gate's block)": transposed,
    "the bias is dropped": lambda k, w: w._replace(bias=0 * w.bias),
    "the bias is added twice": lambda k, w: w._replace(bias=2 * w.bias),
    "kernel's memory is read as (G*H, F)": lambda k, w: w._replace(
        kernel=np.ascontiguousarray(w.kernel.reshape(w.kernel.shape[::-1]).T)
    ),
}
SECOND: dict[str, Callable[[Kit], dict[str, Any]]] = {
    "the sequence is run backwards, outputs in the order of processing": lambda k: {
        "go_backwards": True
    },
    "the initial state is ignored": lambda k: {"state": None},
    "the input is one step late, zeros first": lambda k: {
        "xs": np.concatenate([0 * k.x[:, :1], k.x[:, :-1]], axis=1)
    },
    "squashed by": lambda k: (
        {"activation": "relu"} if k.kind == "simple" else {"recurrent_activation": "hard_sigmoid"}
    ),
}


@each_kind
@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("first", FIRST)
def test_two_causes_are_both_named(kind: str, first: str, second: str) -> None:
    if kind == "simple" and first.startswith("gate"):
        pytest.skip("a SimpleRNN has but one gate")
    kit = Kit(kind, seed=7)
    found = kit.explain(kit.run(weights=FIRST[first](kit, kit.weights), **SECOND[second](kit)))
    assert len(found.fits) >= 1, found
    names = found.fits[0].edits
    assert len(names) == 2, found
    assert any(first in name for name in names), found
    assert any(second in name for name in names), found


@settings(max_examples=12)
@given(
    kind=st.sampled_from(GATED),
    seed=st.integers(0, 999),
    first=st.sampled_from(sorted(FIRST)),
    again=st.sampled_from(sorted(FIRST)),
)
def test_two_drawn_causes_in_the_weights_are_both_named(
    kind: str, seed: int, first: str, again: str
) -> None:
    if first == again or {first, again} == {"the bias is dropped", "the bias is added twice"}:
        return
    kit = Kit(kind, seed=seed)
    weights = FIRST[first](kit, FIRST[again](kit, kit.weights))
    found = kit.explain(kit.run(weights=weights))
    assert found.fits, found
    names = found.fits[0].edits
    assert len(names) == 2, found
    assert all(any(want in name for name in names) for want in (first, again)), found


@pytest.mark.parametrize("stored", [True, False])
def test_a_forget_bias_is_named_whether_added_before_or_after_the_blocks_are_read(
    stored: bool,
) -> None:
    kit = Kit("lstm")

    def order(weights: Weights) -> Weights:
        return Weights(*(blocks(kit, "iofg", a) for a in weights))

    def plus_one(weights: Weights) -> Weights:
        return weights._replace(bias=of_gate(kit, "f", weights.bias, lambda b: b + 1))

    wrong = order(plus_one(kit.weights)) if stored else plus_one(order(kit.weights))
    assert set(kit.explain(kit.run(weights=wrong)).fits[0].edits) == {
        "gate blocks are read as i,o,f,g (ONNX order)",
        "1 is added to the forget gate's bias once more",
    }


@each_kind
@pytest.mark.parametrize("wrong", ["bias", "border"])
def test_a_precision_is_named_beside_another_cause(kind: str, wrong: str) -> None:
    kit = Kit(kind, seed=2)

    def rounded(a: Array) -> Array:
        return PRECISIONS["bfloat16 products"].operands(a.astype(np.float64)).astype(np.float32)

    if wrong == "bias":
        plain = Plain(kit.cell, kit.weights._replace(bias=0 * kit.weights.bias), rounded)
        outputs, said = plain(kit.x, kit.state), "the bias is dropped"
    else:
        plain = Plain(kit.cell, kit.weights, rounded)
        y, *state = plain(kit.x[:, :6], kit.state)
        more, *state = plain(kit.x[:, 6:], zeros(state))
        outputs = (np.concatenate([y, more], axis=1), *state)
        said = "the state is not carried into step 6"
    found = kit.explain(outputs)
    names = found.fits[0].edits
    assert any("bfloat16" in name for name in names), found
    assert any(name.startswith(said) for name in names), found


@each_kind
def test_a_border_is_found_behind_another_cause(kind: str) -> None:
    """The period shows only after the first cause is corrected, far beyond the first window."""
    kit = Kit(kind, steps=60, seed=3)
    kit.weights = kit.weights._replace(bias=0 * kit.weights.bias)
    found = kit.explain(cut(kit, 25, lambda state, first: zeros(state)))
    assert found.fits[0].edits == (
        "the bias is dropped",
        "the state is not carried into steps 25, 50, ... (every 25): it starts from zeros",
    ), found


# --- single weights ---------------------------------------------------------------------------


@given(
    kind=st.sampled_from(ALL),
    seed=st.integers(0, 999),
    array=st.sampled_from(["kernel", "recurrent_kernel", "bias"]),
    factor=st.sampled_from([0.0, -1.0, 0.9, 1.01]),
)
def test_a_wrong_weight_is_named_with_its_value(
    kind: str, seed: int, array: str, factor: float
) -> None:
    kit = Kit(kind, seed=seed, steps=20)
    at = tuple(np.random.default_rng(seed).integers(n) for n in getattr(kit.weights, array).shape)
    if kind == "gru_reset_before" and kit.H <= at[-1] < 2 * kit.H:
        return  # a reset gate before the product reaches every unit
    changed = getattr(kit.weights, array).copy()
    old, new = changed[at], changed[at] * np.float32(factor)
    changed[at] = new
    if abs(new - old) < 1e-3:
        return  # too little to be sure that it shows
    found = kit.explain(kit.with_weights(**{array: changed}))
    assert found.fits, found
    said = found.causes[0].name
    place = ", ".join(str(int(k)) for k in at)
    assert f"{array}[{place}]" in said, found
    if "or bias" not in said:  # of a GRU's two biases of z and r only the sum shows
        value = float(re.search(r" is (\S+), not ", said).group(1))  # type: ignore[union-attr]
        assert value == pytest.approx(float(new), rel=1e-3, abs=1e-5), said  # what float32 shows


def test_a_callable_is_probed_for_a_weight_that_the_input_never_reads() -> None:
    kit = Kit("lstm")
    kit.x[:, :, 3] = 0
    wrong = kit.weights.kernel.copy()
    wrong[3, 9] += np.float32(0.25)
    candidate = Plain(kit.cell, kit.weights._replace(kernel=wrong))
    assert kit.explain(candidate(kit.x, kit.state)).agrees
    found = kit.explain(candidate)
    assert found.verdict.startswith("kernel[3, 9] (gate f, unit 2) is "), found


# --- what is no convention -------------------------------------------------------------------


def in_place(kit: Kit) -> Outputs:
    """The upper half of the units sees the new h of the lower half."""
    half = kit.H // 2
    state, ys = [np.array(part) for part in kit.state], []
    for t in range(kit.x.shape[1]):
        x = kit.x[:, t : t + 1]
        _, *new = kit.run(xs=x, state=state)
        mixed = [np.concatenate([new[0][:, :half], state[0][:, half:]], axis=1), *state[1:]]
        _, *late = kit.run(xs=x, state=mixed)
        state = [
            np.concatenate([a[:, :half], b[:, half:]], axis=1)
            for a, b in zip(new, late, strict=True)
        ]
        ys.append(state[0])
    return np.stack(ys, axis=1), *state


def row_leak(kit: Kit) -> Outputs:
    """The last row goes on from the state of the row before."""
    return kit.steps(lambda t, state, first: [np.concatenate([p[:-1], p[-2:-1]]) for p in state])


def leaky(kit: Kit) -> Outputs:
    """A tenth of the state is lost at every step."""
    return kit.steps(lambda t, state, first: [np.float32(0.9) * p for p in state] if t else state)


def zeroed_row(kit: Kit) -> Outputs:
    U = kit.weights.recurrent_kernel.copy()
    U[-1] = 0
    return kit.with_weights(recurrent_kernel=U)


def noisy(kit: Kit, size: float) -> Array:
    y = kit.run()[0]
    return (y + size * np.random.default_rng(0).normal(size=y.shape)).astype(np.float32)


def glitch(kit: Kit) -> Array:
    y = kit.run()[0].copy()
    y[1, 5, 2] += np.float32(1e-3)
    return y


def quantised(kit: Kit, bits: int) -> Array:
    return np.round(kit.run()[0] * 2.0**bits).astype(np.float32) / np.float32(2.0**bits)


def coarse_tanh(kit: Kit) -> Outputs:
    table = ACTIVATIONS["tanh"]._replace(name="table", value=lambda x: np.round(np.tanh(x), 3))
    return Plain(kit.cell._replace(act=table), kit.weights)(kit.x, kit.state)


STRANGE: dict[str, Callable[[Kit], Any]] = {
    "h in place": in_place,
    "rows leak": row_leak,
    "a tenth of the state is lost": leaky,
    "a row of the recurrent kernel is zero": zeroed_row,
    "noise of 1e-2": lambda k: noisy(k, 1e-2),
    "noise of 1e-3": lambda k: noisy(k, 1e-3),
    "noise of 1e-4": lambda k: noisy(k, 1e-4),
    "noise of 1e-5": lambda k: noisy(k, 1e-5),
    "one number": glitch,
    "outputs in 7 bits": lambda k: quantised(k, 7),
    "outputs in 15 bits": lambda k: quantised(k, 15),
    "tanh from a table": coarse_tanh,
    "another layer's outputs": lambda k: Kit(k.kind, seed=99).run(),
    "zeros": lambda k: 0 * k.run()[0],
    "not a number": lambda k: np.nan * k.run()[0],
    "half of the input": lambda k: k.run(xs=k.x * np.float32(0.5)),
    "weights scaled": lambda k: k.run(weights=Weights(*(a * np.float32(1.01) for a in k.weights))),
    "state scaled": lambda k: k.run(state=[np.float32(0.5) * p for p in k.state]),
}


@each_kind
@pytest.mark.parametrize("name", STRANGE)
def test_what_is_no_convention_is_given_no_name(kind: str, name: str) -> None:
    kit = Kit(kind, seed=5)
    found = kit.explain(STRANGE[name](kit))
    assert not found.fits, found
    assert not found.agrees
    assert found.verdict.startswith("none of these"), found
    assert found.footprint
    assert all(not cause.exact for cause in found.causes)


@settings(max_examples=10)
@given(kind=st.sampled_from(ALL), seed=st.integers(0, 999), name=st.sampled_from(sorted(STRANGE)))
def test_what_is_no_convention_is_given_no_name_whatever_is_drawn(
    kind: str, seed: int, name: str
) -> None:
    kit = Kit(kind, seed=seed)
    found = kit.explain(STRANGE[name](kit))
    assert not found.fits, found


@pytest.mark.parametrize(
    ("kind", "seed", "size"), [("simple", 1, 3e-6), ("gru", 3, 3e-6), ("lstm", 2, 3e-6)]
)
def test_a_cause_that_changes_next_to_nothing_is_not_named(
    kind: str, seed: int, size: float
) -> None:
    """An error just beyond the bound, that weights of 6 digits bring just within it."""
    kit = Kit(kind, seed=seed, rows=1, steps=3, units=1)
    assert not kit.explain(noisy(kit, size)).fits


@pytest.mark.parametrize("seed", [2, 20, 26])
@pytest.mark.parametrize("units", [1, 2])
@pytest.mark.parametrize("size", [1e-5, 1e-4])
def test_noise_on_a_handful_of_numbers_is_not_a_precision(
    seed: int, units: int, size: float
) -> None:
    """TF32 leaves a GRU room for a rounding that falls on the other side: noise must not use it."""
    kit = Kit("gru_reset_before", seed=seed, rows=1, steps=2, units=units)
    found = kit.explain(noisy(kit, size))
    assert not found.fits or found.agrees, found


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("h in place", "only the upper half of the units, 3 to 6"),
        ("rows leak", "only row 2"),
        ("one number", "only row 1"),
        ("outputs in 7 bits", "the outputs are multiples of 2^-7: fixed point"),
        ("not a number", "21 of the outputs that differ are not finite"),  # at step 0
        ("zeros", "every output is 0"),
        ("a tenth of the state is lost", "from step 1 on, none before it"),
    ],
)
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_footprint_is_described(kind: str, name: str, said: str) -> None:
    kit = Kit(kind, seed=5)
    found = kit.explain(STRANGE[name](kit))
    assert any(said in sentence for sentence in found.footprint), found.footprint


# --- what agrees -----------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("mask", [None, "holes", "right", "row"])
@pytest.mark.parametrize("engine", ["numpy", "numba", "plain"])
def test_a_correct_implementation_agrees(kind: str, mask: str | None, engine: str) -> None:
    kit = Kit(kind, mask=mask, seed=11)
    if engine == "plain":
        outputs: Any = Plain(kit.cell, kit.weights)(kit.x, kit.state, kit.mask)
    else:
        outputs = kit.run(engine=engine)
    found = kit.explain(outputs)
    assert found.agrees, found
    assert found.verdict.startswith("agrees: no change is needed")
    assert found.causes[0].edits == ()
    if mask in (None, "holes"):  # lengths alone do not tell a mask from lengths
        assert found.fits == found.causes[:1], found
        assert found.separating is None
    assert not found.footprint
    assert kit.explain(kit.layer).agrees  # as a callable


@settings(max_examples=25)
@given(
    kind=st.sampled_from(ALL),
    rows=st.integers(1, 5),
    steps=st.integers(1, 30),
    units=st.integers(1, 20),
    mask=st.sampled_from([None, "holes", "right", "left", "row", "all"]),
    state=st.booleans(),
    scale=st.sampled_from([0.1, 1.0, 4.0]),
    seed=st.integers(0, 999),
)
def test_every_drawn_correct_implementation_agrees(kind: str, **drawn: Any) -> None:
    kit = Kit(kind, **drawn)
    assert kit.explain(kit.run()).agrees


@each_kind
def test_keras_agrees_and_its_options_are_named(kind: str, tf: TensorFlow) -> None:
    layer, options = KINDS[kind]
    case = Case(layer, rows=3, steps=9, dtype="float32", options=options, mask="holes")
    arrays = case.arrays()
    outputs = tf.run(case)
    assert explain(outputs, case.build(), arrays.x, arrays.state, arrays.mask).agrees
    if kind == "simple":
        return
    hard = Case(
        layer,
        rows=3,
        steps=9,
        dtype="float32",
        options={**options, "recurrent_activation": "hard_sigmoid"},
        mask="holes",
    )
    found = explain(tf.run(hard), case.build(), arrays.x, arrays.state, arrays.mask)
    assert found.verdict == "the gates are squashed by Keras 3's hard_sigmoid, x/6 + 0.5"


# --- several that fit ------------------------------------------------------------------------


def without_bias(kind: str) -> Kit:
    kit = Kit(kind)
    kit.weights = kit.weights._replace(bias=0 * kit.weights.bias)
    kit.layer.set_weights(list(kit.weights))
    return kit


@each_kind
def test_without_a_bias_what_is_done_to_it_is_said_to_be_unknown(kind: str) -> None:
    kit = without_bias(kind)
    found = kit.explain(kit.run())
    assert found.agrees
    names = {cause.name for cause in found.fits}
    assert {"the bias is dropped", "the bias is added twice"} <= names
    assert "these would give the same numbers here" in found.verdict
    assert found.separating is not None
    assert found.separating["weights"] is not None  # no input can tell


@each_kind
def test_arrays_that_separate_do(kind: str) -> None:
    """A doubled bias shows on the separating weights and inputs, and the right one agrees there."""
    apart = (lambda kit: kit.explain(kit.run()).separating)(without_bias(kind))
    assert apart is not None
    weights, x, state = apart["weights"], apart["x"], apart["state"]
    reference = (kind, weights)
    doubled = weights._replace(bias=2 * weights.bias)
    right, _ = run(kind, weights, x, state)
    wrong, _ = run(kind, doubled, x, state)
    assert explain(right, reference, x, state).verdict == "agrees: no change is needed"
    assert explain(wrong, reference, x, state).verdict == "the bias is added twice"


def test_an_input_separates_where_one_can() -> None:
    kit = Kit("gru", state=False)
    found = kit.explain(kit.run())
    assert found.agrees
    assert [cause.name for cause in found.fits[1:]] == ["the initial state is ignored"]
    apart = found.separating
    assert apart is not None
    assert apart["weights"] is None
    x, state = apart["x"], apart["state"]
    right, _ = run("gru", kit.weights, x, state)
    wrong, _ = run("gru", kit.weights, x, None)
    assert explain(right, kit.layer, x, state).agrees
    assert explain(wrong, kit.layer, x, state).verdict == "the initial state is ignored"


def test_tf32_and_float16_products_are_separated_by_large_inputs() -> None:
    kit = Kit("lstm")
    operands = PRECISIONS["tf32"].operands
    plain = Plain(
        kit.cell, kit.weights, lambda a: operands(a.astype(np.float64)).astype(np.float32)
    )
    found = kit.explain(plain(kit.x, kit.state))
    assert len(found.fits) == 2
    apart = found.separating
    assert apart is not None
    again = explain(plain(apart["x"], apart["state"]), kit.layer, apart["x"], apart["state"])
    assert found.fits[0].edits in [cause.edits for cause in again.fits]
    assert found.fits[1].edits not in [cause.edits for cause in again.fits]


# --- two layers, directions, forms -----------------------------------------------------------


def bidirectional() -> tuple[Any, Array, list[Array]]:
    rng = np.random.default_rng(0)
    layer = Bidirectional(LSTM(4, return_sequences=True))
    layer.build((None, None, 3))
    layer.set_weights([rng.normal(size=a.shape).astype(np.float32) / 2 for a in layer.weights])
    x = rng.normal(size=(3, 9, 3)).astype(np.float32)
    y = np.asarray(layer(x))
    return layer, x, [y[..., :4], y[..., 4:]]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda f, b: (f, b), "agrees"),
        (
            lambda f, b: (f, b[:, ::-1]),
            "backward: the backward outputs are not flipped back into the order of time",
        ),
        (lambda f, b: (f[:, ::-1], b), "forward: the outputs are flipped in time"),
        (
            lambda f, b: (b, f),
            "the outputs of the forward and the backward layer are exchanged",
        ),
        (lambda f, b: (f, f), "backward: none of these"),
    ],
)
def test_the_halves_of_a_bidirectional_are_explained(wrong: Any, said: str) -> None:
    layer, x, (forward, backward) = bidirectional()
    found = explain(np.concatenate(wrong(forward, backward), axis=-1), layer, x)
    assert said in found.verdict, found


def test_a_backward_half_that_runs_forwards_is_named() -> None:
    layer, x, (forward, _) = bidirectional()
    own = Weights(*layer.backward_layer.get_weights())
    y, _ = run("lstm", own, x)
    found = explain(np.concatenate([forward, y], axis=-1), layer, x)
    assert found.verdict == "backward: the sequence is run forwards"


@pytest.mark.parametrize(
    ("flipped", "said"),
    [
        (True, "the backward outputs are flipped into the order of time"),
        (False, "the sequence is run forwards"),
    ],
)
def test_a_layer_that_goes_backwards_is_explained_in_its_own_order(
    flipped: bool, said: str
) -> None:
    rng = np.random.default_rng(0)
    layer = GRU(4, return_sequences=True, go_backwards=True)
    layer.build((None, None, 3))
    x = rng.normal(size=(3, 9, 3)).astype(np.float32)
    y = np.asarray(layer(x))
    if not flipped:
        y, _ = run("gru", Weights(*layer.get_weights()), x)
    found = explain(y[:, ::-1] if flipped else y, layer, x)
    assert said in [cause.name for cause in found.fits], found


def test_a_function_that_returns_the_last_output_only_is_explained() -> None:
    kit = Kit("gru", state=False)
    wrong = Plain(kit.cell, Weights(*(blocks(kit, "rzg", a) for a in kit.weights)))
    found = kit.explain(lambda x: wrong(x)[0][:, -1])
    assert found.verdict == "gate blocks are read as r,z,g (PyTorch, cuDNN order)", found


def test_a_function_is_asked_where_its_arrays_do_not_tell() -> None:
    """Its first input has one step: what is carried shows on the probes."""
    kit = Kit("gru")
    plain = Plain(kit.cell, kit.weights)

    def forgetful(x: Array, initial_state: Any = None, mask: Any = None) -> Outputs:
        ys, state = [], initial_state
        for t in range(x.shape[1]):
            y, *state = plain(x[:, t : t + 1], state if t == 0 else None)
            ys.append(y)
        return np.concatenate(ys, axis=1), *state

    x = kit.x[:, :1]
    assert explain(forgetful(x, kit.state), kit.layer, x, kit.state).agrees
    found = explain(forgetful, kit.layer, x, kit.state)
    assert found.verdict == "the state is not carried: every step starts from zeros", found


# --- the answer as an object -----------------------------------------------------------------


def test_an_answer_is_words_for_people_and_plain_values_for_machines() -> None:
    kit = without_bias("lstm")
    for outputs in (kit.run(), kit.run(go_backwards=True), noisy(kit, 1e-2)):
        found = kit.explain(outputs)
        assert found.verdict in str(found)
        again = json.loads(json.dumps(found.to_dict()))
        assert again["verdict"] == found.verdict
        assert again["agrees"] == found.agrees
        assert [c["name"] for c in again["causes"]] == [c.name for c in found.causes]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "float8"}, "precision is 'float8', expected one of"),
        ({"candidate": np.zeros((3, 7), np.float32)}, "because a cause is found step by step"),
        ({"candidate": np.zeros((3, 13, 7), np.float32)}, "y has shape"),
        ({"mask": np.ones((2, 14), bool)}, "the mask has shape"),
    ],
)
def test_what_cannot_be_explained_is_refused_with_the_reason(
    change: dict[str, Any], message: str
) -> None:
    kit = Kit("lstm")
    arguments = {"candidate": kit.run(), "state": kit.state, **change}
    with pytest.raises(ValueError, match=message):
        explain(arguments.pop("candidate"), kit.layer, kit.x, **arguments)


def test_nothing_is_written_to() -> None:
    kit = Kit("lstm", mask="holes")
    outputs = kit.run(go_backwards=True)
    arrays = [*outputs, kit.x, *kit.state, kit.mask, *kit.weights]
    before = [a.copy() for a in arrays]
    for a in arrays:
        a.setflags(write=False)
    kit.explain(outputs)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


@pytest.mark.parametrize(("rows", "steps"), [(0, 5), (2, 0), (1, 1)])
@each_kind
def test_runs_without_a_row_or_a_step_are_explained(kind: str, rows: int, steps: int) -> None:
    layer, options = KINDS[kind]
    made = {"SimpleRNN": SimpleRNN, "GRU": GRU, "LSTM": LSTM}[layer](
        3, return_sequences=True, **options
    )
    made.build((None, None, 2))
    x = np.ones((rows, steps, 2), np.float32)
    assert explain(np.asarray(made(x)), made, x).agrees


# --- what a run cannot show ------------------------------------------------------------------


def seen_by(kit: Kit, **changed: Any) -> list[str]:
    x, state, mask = (changed.get(n, getattr(kit, n)) for n in ("x", "state", "mask"))
    return blind(subject((kit.kind, changed.get("weights", kit.weights))).tasks(x, state, mask))


@each_kind
def test_a_lively_run_is_blind_to_nothing(kind: str) -> None:
    assert seen_by(Kit(kind, mask="holes")) == []


@each_kind
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no mask", "no step was masked"),
        ("no state", "the initial state is ignored"),
        ("no bias", "the bias is dropped"),
        ("one step", "the state is not carried"),
        ("equal weights", "kernel's memory is read"),
        ("symmetric", "recurrent_kernel is transposed"),
    ],
)
def test_what_a_run_cannot_show_is_said(kind: str, what: str, said: str) -> None:
    kit = Kit(kind, mask="holes")
    U = kit.weights.recurrent_kernel
    changed: dict[str, dict[str, Any]] = {
        "no mask": {"mask": None},
        "no state": {"state": None},
        "no bias": {"weights": kit.weights._replace(bias=0 * kit.weights.bias)},
        "one step": {"x": kit.x[:, :1], "mask": kit.mask[:, :1]},
        "equal weights": {"weights": kit.weights._replace(kernel=0 * kit.weights.kernel + 0.01)},
        "symmetric": {
            "weights": kit.weights._replace(recurrent_kernel=each_block(kit, U, lambda b: b + b.T))
        },
    }
    found = seen_by(kit, **changed[what])
    assert any(said in sentence for sentence in found), found


def test_what_one_run_shows_another_need_not() -> None:
    kit = Kit("gru")
    one, other = (
        subject(("gru", kit.weights)).tasks(kit.x, state)[0] for state in (kit.state, None)
    )
    assert any("initial state" in sentence for sentence in blind([other]))
    assert not any("initial state" in sentence for sentence in blind([other, one]))


def test_what_only_another_run_shows_is_not_called_agreement() -> None:
    """The input is clipped at 5: x and the probes of one weight never reach that, check's do."""
    rng = np.random.default_rng(3)
    layer = LSTM(4, return_sequences=True, return_state=True)
    layer.build((None, None, 3))
    layer.set_weights([rng.normal(0, 0.5, w.shape).astype("f") for w in layer.get_weights()])
    x = rng.uniform(-1, 1, (2, 9, 3)).astype("f")

    def clipped(x: Array, initial_state: Any = None, mask: Any = None) -> Any:
        return layer(np.clip(x, -5, 5), initial_state=initial_state, mask=mask)

    assert not check(clipped, layer, x).passed
    found = explain(clipped, layer, x)
    assert not found.agrees
    assert "another run differs" in found.verdict
    assert any("first difference: " in sentence for sentence in found.footprint)


@pytest.mark.parametrize("features", [2, 9, 20])
def test_a_state_that_the_probes_give_is_not_called_unseen(features: int) -> None:
    layer = GRU(3, return_sequences=True, return_state=True)
    x = np.random.default_rng(0).normal(size=(2, 5, features)).astype("f")
    layer(x)
    report = check(layer, layer, x)
    assert not any("initial state is ignored" in sentence for sentence in report.blind)
