"""Other libraries' weights compute in refrnn what they compute at home, and convert or are refused.

fixtures/layouts was written by the libraries themselves; where one is installed it is asked again.
Errors are relative to the largest magnitude: 1e-6 in float32 (8 spacings; sums in another order of
so few terms take 3), 1e-12 in float64. Conversions that move numbers are held to the bit.
"""

import itertools
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from foreign import CASES, LIBRARIES
from hypothesis import given
from hypothesis import strategies as st
from others import needs

import refrnn
from refrnn import gates, kernels, layouts, reference
from refrnn.activations import ACTIVATIONS
from refrnn.cells import CELLS, FURTHER, FurtherWeights, LSTMState, Weights
from refrnn.layouts import LAYOUTS, Stored, equivalents
from refrnn.layouts.blocks import Sizes, block_shape
from refrnn.layouts.conversion import read, rewritten
from refrnn.layouts.hub import Function, Hub, Pass
from refrnn.oracles.tensorflow import TensorFlow

Array = np.ndarray[Any, Any]
FIXTURES = Path(__file__).parent / "fixtures" / "layouts"
README = Path(__file__).parents[1] / "README.md"
ALL = tuple(layouts.LOSSY)
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


def same(a: Mapping[str, Array], b: Mapping[str, Array]) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and a[k].tobytes() == b[k].tobytes()
        for k in a
    )


def close(actual: Array, expected: Array, scale: float = 0.0) -> None:
    """scale: a larger magnitude that took part, of a cell state say."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    assert expected.size
    limit = TOLERANCE[expected.dtype.name] * max(scale, abs(expected).max())
    assert abs(actual - expected).max() <= limit


# --- what the libraries computed ---------------------------------------------------------------


class Sample(NamedTuple):
    stored: Stored
    xs: Array  # (B, T, F)
    states: tuple[Array, ...] | None  # as the library has them
    ys: Array  # (B, T, D*H)
    after: tuple[Array, ...] | None
    mask: Array | None = None
    scale: float = 0.0  # of the cell state, where it is far beyond the output


def prefixed(z: Mapping[str, Array]) -> dict[str, Array]:
    return {k[2:]: a for k, a in z.items() if k.startswith("w/")}


def _sample(name: str) -> Sample:
    z = dict(np.load(FIXTURES / f"{name}.npz"))
    kind = name.partition("_")[0]
    if kind in ("onnx", "openvino"):
        cell = {"onnx_gru_lbr0": "gru_reset_before", "onnx_gru_lbr1": "gru"}.get(name, "lstm")
        arrays = {k: z[k] for k in "WRBP" if k in z}
        xs, ys, mask = z["X"], z["Y"], None
        if kind == "onnx":
            xs, ys = xs.swapaxes(0, 1), ys.transpose(2, 0, 1, 3)
        else:
            ys = ys.transpose(0, 2, 1, 3)
        if "sequence_lens" in z:
            mask = np.arange(xs.shape[1]) < z["sequence_lens"][:, None]
        parts = ("h", "c")[: 1 + (cell == "lstm")]
        return Sample(
            Stored(arrays, kind, cell),
            xs,
            tuple(z[f"initial_{p}"] for p in parts),
            ys.reshape(*ys.shape[:2], -1),
            tuple(z[f"Y_{p}"] for p in parts) if "Y_c" in z or cell != "lstm" else None,
            mask,
        )
    cell = "gru" if "gru" in name else "lstm"
    if kind == "keras3":
        states = [tuple(z[f"{s}_{k}"] for k in range(2) if f"{s}_{k}" in z) for s in ("s0", "sn")]
        return Sample(Stored(prefixed(z), "keras", cell), z["x"], states[0], z["y"], states[1])
    if kind == "tflite":
        arrays = {n: z[n] for n in ("kernel", "recurrent_kernel", "bias")}
        there = layouts.convert(arrays, cell, "keras", "tflite")
        told = {**there.attributes, "cell_clip": 10.0}
        stored = Stored(there, "tflite", cell, told)
        return Sample(stored, z["x"], None, z["y_tflite"], None, scale=10.0)
    order = "ch" if kind in ("tf1", "flax") and cell == "lstm" else "hc"
    parts = tuple(p for p in order if f"{p}0" in z)
    states, after = (tuple(z[f"{p}{s}"] for p in parts) for s in "0n")
    if kind == "jax":
        told = {"input_size": 3, "hidden_size": 4, "num_layers": 2, "bidirectional": True}
        stored = Stored({"weights": z["weights"]}, "cudnn", cell, told)
    else:
        layout = {
            "pytorch": "torch", "cudnn": "keras-cudnn", "tf1": "tf1",
            "flax": "-".join(name.split("_")[:2]),
        }[kind]  # fmt: skip
        stored = Stored(prefixed(z), layout, cell)
    return Sample(stored, z["x"], states, z["y"], after)


NAMES = sorted(path.stem for path in FIXTURES.glob("*_*.npz"))
SAMPLES = {name: _sample(name) for name in NAMES}
ONE_WAY = [n for n in NAMES if "bidir" not in n and "seqlens" not in n]


def test_the_list_of_fixtures_is_whole() -> None:
    assert len(NAMES) == 20
    assert {s.stored.layout for s in SAMPLES.values()} == set(LAYOUTS) - {"coreml", "haste", "tfjs"}


@pytest.mark.parametrize("name", NAMES)
def test_weights_compute_what_their_library_computed(name: str) -> None:
    s = SAMPLES[name]
    ys, after = layouts.run(s.stored, s.xs, s.states, mask=s.mask)
    close(ys, s.ys, s.scale)
    for mine, its in zip(after, s.after or (), strict=s.after is not None):
        close(mine, its)


@pytest.mark.parametrize("name", ONE_WAY)
def test_chunks_that_hand_over_the_states_are_the_whole_bit_for_bit(name: str) -> None:
    s = SAMPLES[name]
    whole, end = layouts.run(s.stored, s.xs, s.states)
    states, pieces = s.states, []
    for part in (slice(0, 2), slice(2, 2), slice(2, 3), slice(3, None)):
        ys, states = layouts.run(s.stored, s.xs[:, part], states)
        pieces.append(ys)
    assert np.array_equal(np.concatenate(pieces, axis=1), whole)
    assert states is not None
    assert all(np.array_equal(a, b) for a, b in zip(states, end, strict=True))


@pytest.mark.parametrize("name", [n for n in NAMES if "clip" not in n])
@pytest.mark.parametrize("target", LAYOUTS)
def test_converted_weights_compute_the_same_and_come_back_to_the_bit(
    name: str, target: str
) -> None:
    s = SAMPLES[name]
    if reason := impossible(s.stored, target):
        with pytest.raises(ValueError, match=reason):
            layouts.convert(s.stored, target=target, lossy=ALL)
        return
    there = layouts.convert(s.stored, target=target, lossy=ALL)
    back = layouts.convert(there, target=s.stored.layout)
    assert same(back, s.stored)
    directions, layers = len(read(s.stored).layers[0]), len(read(s.stored).layers)
    states = layouts.convert_state(
        s.states, s.stored.cell, s.stored.layout, target, directions=directions, layers=layers
    )
    ys, after = layouts.run(there, s.xs, states, mask=s.mask)
    close(ys, s.ys)
    returned = layouts.convert_state(
        after, s.stored.cell, target, s.stored.layout, directions=directions, layers=layers
    )
    for mine, its in zip(returned, s.after or (), strict=s.after is not None):
        close(mine, its)


@pytest.mark.parametrize("name", [n for n in ONE_WAY if not re.search("peephole|tflite", n)])
def test_weights_in_keras_layout_are_those_of_refrnn_run(name: str) -> None:
    s = SAMPLES[name]
    w = layouts.convert(s.stored, target="keras", lossy=ALL)
    states = layouts.convert_state(s.states, s.stored.cell, s.stored.layout)
    ys, after = refrnn.run(s.stored.cell, Weights(**w), s.xs, states)
    close(ys, s.ys)
    ends = layouts.convert_state(after, s.stored.cell, "keras", s.stored.layout)
    for mine, its in zip(ends, s.after or (), strict=s.after is not None):
        close(mine, its)


def test_cudnn_weights_of_keras_2_convert_as_keras_2_converts_them() -> None:
    z = dict(np.load(FIXTURES / "cudnn_legacy_gru.npz"))
    given = {k[6:]: a for k, a in z.items() if k.startswith("keras/")}
    stored = SAMPLES["cudnn_legacy_gru"].stored
    assert same(layouts.convert(stored), given)
    assert np.array_equal(layouts.convert(stored, target="cudnn")["weights"], z["cudnn_blob"])
    flat = layouts.convert(
        z["cudnn_blob"], "gru", "cudnn", attributes={"input_size": 3, "hidden_size": 4}
    )
    assert same(flat, given)


def test_a_clip_that_is_reached_matters() -> None:
    """TFLite's converter sets 10, Keras has none: the fixture counts up to it."""
    s = SAMPLES["tflite_cell_clip10"]
    with pytest.raises(ValueError, match=r"clipped to 10.0, which keras cannot; lossy='drop_cell"):
        layouts.convert(dict(s.stored), "lstm", "tflite")  # 10 is what nothing said means
    free = layouts.convert(s.stored, lossy="drop_cell_clip")
    ys, _ = layouts.run(free, s.xs)
    close(ys, np.load(FIXTURES / "tflite_cell_clip10.npz")["y_keras"], scale=20.0)
    assert abs(ys - s.ys).max() > 0.5
    assert free.lossy == ("drop_cell_clip",)
    back = layouts.convert(free, target="tflite")
    assert back.attributes["cell_clip"] == 10.0
    close(layouts.run(back, s.xs)[0], s.ys, s.scale)


# --- every pair --------------------------------------------------------------------------------


def impossible(stored: Stored, target: str) -> str:
    """Why no conversion to `target` can exist, from what this test knows of the two libraries."""
    hub = read(stored)
    blocks = {name: b for one in hub.passes for name, b in one.blocks.items()}
    cells = {
        "keras-cudnn": "lstm gru",
        "cudnn": "lstm gru simple",
        "torch": "lstm gru simple",
        "tf1": "lstm gru_reset_before simple",
        "tfjs": "lstm gru_reset_before simple",
        "tflite": "lstm",
        "flax-linen": "lstm gru simple",
        "flax-nnx": "lstm gru simple",
        "coreml": "lstm gru simple",
        "haste": "lstm gru",
    }.get(target, "lstm gru gru_reset_before simple")
    if hub.cell not in cells.split():
        return "another function|has no "
    reasons = []
    free = ("keras", "tfjs", "onnx")  # hard_sigmoid as in Keras 2
    if hub.cell != "simple" and hub.function.rec != "sigmoid" and target not in free:
        reasons.append("activation of the gates is 'hard_sigmoid_keras2'")
    peepholes = ("onnx", "tf1", "tflite", "coreml")
    if any(name[0] == "p" and b.any() for name, b in blocks.items()) and target not in peepholes:
        reasons.append("there are peepholes")
    if "R" in blocks and target not in ("torch", "tf1", "tflite"):
        reasons.append("the hidden state is projected")
    inside = any(one.blocks["ug"].any() for one in hub.passes if "ug" in one.blocks)
    if hub.cell == "gru" and inside and target in ("coreml", "flax-nnx"):
        reasons.append(r"inside r \* ")
    return "|".join(reasons)


@st.composite
def stored_weights(draw: st.DrawFn) -> Stored:
    """Random weights of a random layout, every array filled."""
    layout = LAYOUTS[draw(st.sampled_from(list(LAYOUTS)))]
    cell = draw(st.sampled_from(list(layout.cells)))
    form = layout.cells[cell]
    layers, directions = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    F, H = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    P = draw(st.integers(1, 4))
    dtype = draw(st.sampled_from(("float32", "float64")))
    optional = ("p", "R") if layout.biased else ("wu", "p", "R")
    without = {parts for parts in optional if draw(st.booleans())}
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    names = [name for slot in form.slots for line in slot.grid for name in line]
    names = [name for name in names if not any(name[0] in parts for parts in without)]
    width = P if "R" in names else H
    stack = []
    for layer in range(layers):
        sizes = Sizes(directions * width if layer else F, H, width)
        stack.append([
            Pass(sizes, {n: rng.normal(size=block_shape(n, sizes)).astype(dtype) for n in names})
            for _ in range(directions)
        ])  # fmt: skip
    for one in itertools.chain(*stack):
        if any(n[0] in "wu" for n in names):
            zero = {f"{p}{g}": np.zeros(H, dtype) for p in "wu" for g in CELLS[cell].gates}
            one.blocks.update(zero | one.blocks)
    function = Function(
        rec=form.defaults[1] if draw(st.booleans()) else "sigmoid",
        forget_bias=draw(st.sampled_from((0.0, 1.0, 0.3))) if "forget_bias" in form.told else 0.0,
    )
    return rewritten(Hub(cell, function, stack), layout.name)


@given(stored_weights(), st.sampled_from(list(LAYOUTS)), st.integers(0, 2**16))
def test_all_pairs_convert_and_come_back_or_are_refused_for_a_reason(
    stored: Stored, target: str, seed: int
) -> None:
    before = {name: a.copy() for name, a in stored.items()}
    if reason := impossible(stored, target):
        with pytest.raises(ValueError, match=reason):
            layouts.convert(stored, target=target, lossy=ALL)
        return
    there = layouts.convert(stored, target=target, lossy=ALL)
    back = layouts.convert(there, target=stored.layout)
    assert same(back, stored)
    assert back.attributes == stored.attributes
    assert same(stored, before)
    assert not any(np.shares_memory(a, b) for a in there.values() for b in stored.values())

    hub = read(stored)
    rng = np.random.default_rng(seed)
    xs = rng.normal(size=(2, 3, hub.passes[0].sizes.features)).astype(hub.dtype)
    sizes = {"h": "width", "c": "units"}
    shape = {"directions": len(hub.layers[0]), "layers": len(hub.layers)}
    states = [
        rng.normal(size=(2, getattr(one.sizes, sizes[part]))).astype(hub.dtype)
        for one in hub.passes
        for part in ("hc" if hub.cell == "lstm" else "h")
    ]
    ends = []
    for weights in (stored, there):
        its = layouts.convert_state(states, hub.cell, "keras", weights.layout, **shape)
        ys, after = layouts.run(weights, xs, its)
        ends.append((ys, layouts.convert_state(after, hub.cell, weights.layout, **shape)))
    (ys, after), (others, other_after) = ends
    close(others, ys, scale=1.0)  # what tanh reaches: a sum of biases is rounded before it
    for mine, its in zip(other_after, after, strict=True):
        close(mine, its, scale=1.0)


@given(stored_weights(), st.sampled_from(list(LAYOUTS)))
def test_what_is_not_lossy_needs_no_permission_and_keeps_nothing(
    stored: Stored, target: str
) -> None:
    """Either the bits come back from the target's arrays alone, or the source is kept."""
    try:
        there = layouts.convert(stored, target=target)
    except ValueError:
        return
    assert there.lossy == ()
    alone = Stored(there, target, stored.cell, there.attributes)
    back = layouts.convert(alone, target=stored.layout)
    assert same(back, stored) == (there.kept is None)


@given(
    st.sampled_from(list(LAYOUTS)), st.sampled_from(list(LAYOUTS)), st.integers(1, 2),
    st.integers(1, 3), st.booleans(),
)  # fmt: skip
def test_states_come_back_to_the_bit(
    source: str, target: str, directions: int, layers: int, lstm: bool
) -> None:
    cell = "lstm" if lstm else "simple"
    if cell not in LAYOUTS[source].cells or cell not in LAYOUTS[target].cells:
        return
    shape = {"directions": directions, "layers": layers}
    rng = np.random.default_rng(0)
    plain = [rng.normal(size=(2, 3)) for _ in range(directions * layers * (1 + lstm))]
    first = layouts.convert_state(plain, cell, "keras", source, **shape)
    there = layouts.convert_state(first, cell, source, target, **shape)
    back = layouts.convert_state(there, cell, target, source, **shape)
    assert all(np.array_equal(a, b) for a, b in zip(back, first, strict=True))
    home = layouts.convert_state(there, cell, target, "keras", **shape)
    assert all(np.array_equal(a, b) for a, b in zip(home, plain, strict=True))


def test_states_are_where_the_libraries_document_them() -> None:
    fh, fc, bh, bc = (np.full((2, 3), float(k)) for k in range(4))
    bidirectional = [fh, fc, bh, bc]
    expected: dict[str, list[Array]] = {
        "keras": bidirectional,
        "torch": [np.stack([fh, bh]), np.stack([fc, bc])],
        "cudnn": [np.stack([fh, bh]), np.stack([fc, bc])],
        "onnx": [np.stack([fh, bh]), np.stack([fc, bc])],
        "openvino": [np.stack([fh, bh], axis=1), np.stack([fc, bc], axis=1)],
        "coreml": [np.hstack([fh, bh]), np.hstack([fc, bc])],
        "tf1": [fc, fh, bc, bh],
        "flax-linen": [fc, fh, bc, bh],
        "flax-nnx": [fc, fh, bc, bh],
    }
    for target, arrays in expected.items():
        found = layouts.convert_state(bidirectional, "lstm", "keras", target, directions=2)
        assert len(found) == len(arrays)
        assert all(np.array_equal(a, b) for a, b in zip(found, arrays, strict=True)), target
    (h,) = layouts.convert_state(fh, "gru", "keras", "haste")
    assert h.shape == (1, 2, 3)


# --- what is kept, and what is not silently done -----------------------------------------------


def torch_lstm(dtype: str = "float32") -> Stored:
    return SAMPLES[f"pytorch_lstm_uni_{dtype}"].stored


def test_a_sum_of_biases_is_asked_for_by_name_and_undone_to_the_bit() -> None:
    with pytest.raises(ValueError, match=r"two; lossy='sum_biases' allows it"):
        layouts.convert(torch_lstm())
    there = layouts.convert(torch_lstm(), lossy="sum_biases")
    w = torch_lstm()
    assert np.array_equal(there["bias"], w["bias_ih_l0"] + w["bias_hh_l0"])
    assert same(layouts.convert(there, target="torch"), w)
    through = layouts.convert(layouts.convert(there, target="openvino"), target="haste")
    assert same(layouts.convert(through, target="torch"), w)
    assert through.lossy == ("sum_biases",)


def test_one_bias_that_is_zero_needs_no_sum() -> None:
    for zero, kept in (("bias_hh_l0", "bias_ih_l0"), ("bias_ih_l0", "bias_hh_l0")):
        w = Stored({**torch_lstm(), zero: np.zeros(16, np.float32)}, "torch", "lstm")
        there = layouts.convert(w)
        assert np.array_equal(there["bias"], w[kept])
        assert same(layouts.convert(there, target="torch"), w)


def test_what_was_kept_is_dropped_once_the_weights_were_changed() -> None:
    there = layouts.convert(torch_lstm(), lossy="sum_biases")
    there["kernel"] = there["kernel"] * 2
    back = layouts.convert(there, target="torch")
    assert np.array_equal(back["weight_ih_l0"], 2 * torch_lstm()["weight_ih_l0"])
    assert np.array_equal(back["bias_ih_l0"], there["bias"])
    assert not back["bias_hh_l0"].any()


def test_what_was_kept_is_a_copy() -> None:
    source = Stored({n: a.copy() for n, a in torch_lstm().items()}, "torch", "lstm")
    there = layouts.convert(source, lossy="sum_biases")
    source["bias_ih_l0"][:] = 0
    assert same(layouts.convert(there, target="torch"), torch_lstm())


def test_a_forget_bias_of_run_time_is_carried_or_folded_when_asked() -> None:
    s = SAMPLES["tf1_basiclstmcell_float32"]
    with pytest.raises(ValueError, match=r"1.0 is added .* lossy='fold_forget_bias'"):
        layouts.convert(s.stored)
    there = layouts.convert(s.stored, lossy="fold_forget_bias")
    expected = s.stored["bias"].reshape(4, -1)[[0, 2, 1, 3]]  # i c f o
    assert np.array_equal(there["bias"].reshape(4, -1)[1], expected[1] + np.float32(1))
    assert np.array_equal(there["bias"].reshape(4, -1)[[0, 2, 3]], expected[[0, 2, 3]])
    assert layouts.convert(there, target="tf1").attributes["forget_bias"] == 1.0

    keras = SAMPLES["keras3_lstm_default_float32"]
    exact = layouts.convert(keras.stored, target="tf1")
    assert exact.attributes["forget_bias"] == 0.0
    wished = {"forget_bias": 1.0}
    with pytest.raises(ValueError, match="fold_forget_bias"):
        layouts.convert(keras.stored, target="tf1", target_attributes=wished)
    made = layouts.convert(
        keras.stored, target="tf1", target_attributes=wished, lossy="fold_forget_bias"
    )
    close(layouts.run(made, keras.xs, keras.states[::-1])[0], keras.ys)
    assert same(layouts.convert(made, target="keras"), keras.stored)


def test_attributes_are_those_the_constructor_wants() -> None:
    w = SAMPLES["pytorch_gru_uni_float32"].stored
    keras = layouts.convert(w)
    assert keras.attributes == {
        "units": 4, "use_bias": True, "reset_after": True,
        "activation": "tanh", "recurrent_activation": "sigmoid",
    }  # fmt: skip
    assert layouts.convert(w, target="onnx").attributes == {
        "hidden_size": 4, "direction": "forward", "linear_before_reset": 1,
        "activations": ["Sigmoid", "Tanh"],
    }  # fmt: skip
    deep = SAMPLES["jax_cudnn_flat_lstm_2l_bidir"].stored
    assert layouts.convert(deep, target="torch").attributes == {
        "input_size": 3, "hidden_size": 4, "num_layers": 2, "bias": True, "bidirectional": True,
        "proj_size": 0,
    }  # fmt: skip
    onnx = layouts.convert(deep, target="onnx")
    assert onnx.attributes["direction"] == "bidirectional"
    assert onnx.attributes["activations"] == ["Sigmoid", "Tanh", "Tanh"] * 2
    assert sorted(onnx) == ["0/B", "0/R", "0/W", "1/B", "1/R", "1/W"]
    assert onnx["1/W"].shape == (2, 16, 8)


def test_lists_are_taken_in_the_order_of_the_library() -> None:
    w = SAMPLES["keras3_lstm_default_float32"].stored
    for listed in (list(w.values()), Weights(**w)):
        assert same(layouts.convert(listed, "lstm", "keras", "keras"), w)
    t = torch_lstm()
    assert same(layouts.convert(list(t.values()), "lstm", "torch", "torch"), t)
    bare = layouts.convert(Weights(w["kernel"], w["recurrent_kernel"]), "lstm", "keras", "torch")
    assert sorted(bare) == ["weight_hh_l0", "weight_ih_l0"]
    both = layouts.convert([*w.values(), *w.values()], "lstm", "keras", "onnx")
    assert both["W"].shape == (2, 16, 3)
    cells = {n.removesuffix("_l0"): a for n, a in t.items()}
    assert same(layouts.convert(cells, "lstm", "torch", "torch"), t)


def test_layouts_that_shapes_cannot_tell_apart_are_named() -> None:
    w = SAMPLES["keras3_lstm_default_float32"].stored
    assert layouts.candidates(dict(w), "lstm") == ["keras", "tfjs", "haste"]
    with pytest.raises(ValueError, match=r"'keras', 'tfjs', 'haste', and shapes .*verify.explain"):
        layouts.convert(dict(w), "lstm")
    assert layouts.candidates(dict(torch_lstm()), "lstm") == ["torch"]
    assert layouts.candidates({"kernel": np.zeros(3)}, "lstm") == []


W32 = dict(SAMPLES["keras3_lstm_default_float32"].stored)
ONNX = dict(SAMPLES["onnx_lstm"].stored)
GRU32 = dict(SAMPLES["pytorch_gru_uni_float32"].stored)
HARD = {"recurrent_activation": "hard_sigmoid"}


def convert(arrays: Any, *args: Any, **options: Any) -> Callable[[], Any]:
    return lambda: layouts.convert(arrays, *args, **options)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "layout": (convert(W32, "lstm", "pytorch"), "source is 'pytorch', expected one of 'keras'"),
    "target": (convert(W32, "lstm", "keras", "flax"), "target is 'flax', expected one of"),
    "cell": (convert(W32, "lsm", "keras"), "cell is 'lsm', expected one of"),
    "no cell": (convert(W32, source="keras"), "cell is None, expected one of"),
    "lossy": (convert(W32, "lstm", "keras", lossy="all"), r"lossy is \['all'\], expected names of"),
    "family": (
        convert(GRU32, "gru", "torch", "tfjs"),
        "tfjs has 'gru_reset_before' and no 'gru'.* before the recurrent product",
    ),
    "family, back": (
        convert(dict(SAMPLES["onnx_gru_lbr0"].stored), "gru_reset_before", "onnx", "torch"),
        "torch has 'gru' and no 'gru_reset_before'.* after the recurrent product",
    ),
    "family of an attribute": (
        convert(GRU32, "gru", "onnx", attributes={"linear_before_reset": 0}),
        "the arrays are 'weight_ih_l0'",
    ),
    "family in onnx": (
        convert(
            dict(SAMPLES["onnx_gru_lbr1"].stored), "gru", "onnx",
            attributes={"linear_before_reset": 0},
        ),
        "linear_before_reset is 0, expected 1, because the arrays are read as those of 'gru'",
    ),
    "no such cell": (convert(W32, "gru", "tflite"), "tflite has no 'gru', expected one of 'lstm'"),
    "peepholes": (
        convert(dict(SAMPLES["onnx_lstm_peephole"].stored), "lstm", "onnx", lossy=ALL),
        "there are peepholes that are not zero.* refrnn.layouts.run",
    ),
    "clip": (
        convert(ONNX, "lstm", "onnx", lossy=ALL, attributes={"clip": 0.5}),
        "the sums are clipped to 0.5, expected no clip",
    ),
    "input_forget": (
        convert(ONNX, "lstm", "onnx", lossy=ALL, attributes={"input_forget": 1}),
        r"input_forget is 1 .*equivalents.untied",
    ),
    "hard against sigmoid": (
        convert(W32, "lstm", "keras", "torch", attributes=HARD),
        r"activation of the gates is 'hard_sigmoid', expected one of 'sigmoid'.*rescaled",
    ),
    "hard of Keras 3 in tf.js": (
        convert(W32, "lstm", "keras", "tfjs", attributes=HARD), "equivalents.rescaled"
    ),
    "projection": (
        lambda: layouts.convert(projected(), target="keras", lossy=ALL),
        "the hidden state is projected to 2.*split_projection",
    ),
    "bias inside r": (
        convert(GRU32, "gru", "torch", "coreml", lossy=ALL), r"bias of its own inside r \* "
    ),
    "transposed": (
        convert({**GRU32, "weight_hh_l0": GRU32["weight_hh_l0"].T}, "gru", "torch"),
        r"weight_hh has shape \(4, 12\), expected \(3H, H\) = \(12, 4\).*its transpose would fit",
    ),
    "shape": (
        convert({**W32, "bias": np.zeros(15, np.float32)}, "lstm", "keras"),
        r"bias has shape \(15,\), expected \(4H,\) = \(16,\)",
    ),
    "order of a list": (
        convert(list(W32.values())[::-1], "lstm", "keras"), "kernel has shape"
    ),
    "gru's bias of the other family": (
        convert(
            {**SAMPLES["keras3_gru_default_float32"].stored, "bias": np.zeros(12, np.float32)},
            "gru", "keras",
        ),
        r"bias has shape \(12,\), expected \(2, 3H\) = \(2, 12\)",
    ),
    "missing": (
        convert({"kernel": W32["kernel"]}, "lstm", "keras"), "'recurrent_kernel' is missing"
    ),
    "half of the biases": (
        convert({n: a for n, a in GRU32.items() if n != "bias_hh_l0"}, "gru", "torch"),
        "'bias_hh' is missing",
    ),
    "beside": (convert({**W32, "norm": W32["bias"]}, "lstm", "keras"), "has 'norm' beside"),
    "attribute": (
        convert(W32, "lstm", "keras", attributes={"dropout": 0.1}),
        "the attribute 'dropout' is not known, expected one of activation, recurrent_activation",
    ),
    "size": (
        convert(W32, "lstm", "keras", attributes={"units": 5}), "units is 5, expected 4, because"
    ),
    "reverse": (
        convert(ONNX, "lstm", "onnx", attributes={"direction": "reverse"}), "direction is 'reverse'"
    ),
    "activation": (
        convert(W32, "lstm", "keras", attributes={"activation": "tahn"}), "activation is 'tahn'"
    ),
    "two functions": (
        convert(ONNX, "lstm", "onnx", attributes={"activations": ["Sigmoid", "Tanh", "Relu"]}),
        "the last two the same",
    ),
    "slope": (
        convert(
            ONNX, "lstm", "onnx",
            attributes={"activations": ["HardSigmoid", "Tanh", "Tanh"], "activation_alpha": [0.3]},
        ),
        "alpha 0.3",
    ),
    "sizes of a vector": (convert(np.zeros(9), "gru", "cudnn"), "the vector has no sizes"),
    "length of a vector": (
        convert(np.zeros(9), "gru", "cudnn", attributes={"input_size": 2, "hidden_size": 2}),
        "weights has 9 numbers, expected 36",
    ),
    "chain": (
        convert(
            {f"{k}/{n}": a for k in (0, 1) for n, a in W32.items()}, "lstm", "keras"
        ),
        "layer 1 reads 3 features, expected 4",
    ),
    "layers of different sizes": (
        convert(
            {"0/kernel": W32["kernel"], "0/recurrent_kernel": W32["recurrent_kernel"],
             "1/kernel": np.zeros((4, 8), np.float32),
             "1/recurrent_kernel": np.zeros((2, 8), np.float32)},
            "lstm", "keras", "torch",
        ),
        r"the layers have \[2, 4\] units, expected one number for all",
    ),
    "states": (
        lambda: layouts.convert_state([np.zeros((2, 3))], "lstm", "keras"),
        "1 states are given, expected 2: h, c",
    ),
    "state's shape": (
        lambda: layouts.convert_state([np.zeros((2, 3))] * 2, "lstm", "torch"),
        r"state h has shape \(2, 3\), expected \(L\*D, B, H\)",
    ),
    "other source": (
        lambda: layouts.convert(torch_lstm(), source="keras"), "source is 'keras', expected 'torch'"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_with_the_reason(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_dtypes_are_one_and_floating() -> None:
    for wrong in (np.float64, np.int32):
        with pytest.raises(TypeError, match="expected one floating dtype"):
            layouts.convert({**W32, "bias": W32["bias"].astype(wrong)}, "lstm", "keras")
    with pytest.raises(TypeError, match="expected one floating dtype"):
        layouts.convert({n: a.astype(int) for n, a in W32.items()}, "lstm", "keras")
    swapped = {n: a.astype(">f4") for n, a in W32.items()}
    assert same(layouts.convert(swapped, "lstm", "keras", "keras"), W32)


# --- the further cells -------------------------------------------------------------------------


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def further(H: int = 4, F: int = 3, P: int | None = None, **bounds: float) -> FurtherWeights:
    return FurtherWeights(
        normal(F, 4 * H), normal(P or H, 4 * H, seed=1), normal(4 * H, seed=2),
        normal(3, H, seed=3), None if P is None else normal(H, P, seed=4), **bounds,
    )  # fmt: skip


def test_without_peepholes_and_clips_it_is_the_lstm_to_the_bit() -> None:
    w = further()._replace(peephole=np.zeros((3, 4)))
    xs, state = normal(2, 5, 3, seed=5), LSTMState(normal(2, 4, seed=6), normal(2, 4, seed=7))
    plain, end = reference.run(CELLS["lstm"], Weights(*w[:3]), xs, state)
    found, other = reference.run(FURTHER["lstm_peephole"], w, xs, state)  # type: ignore[arg-type]
    assert np.array_equal(plain, found)
    assert np.array_equal(end, other)
    square = w._replace(projection=np.eye(4))
    found, other = reference.run(FURTHER["lstm_projected"], square, xs, state)  # type: ignore[arg-type]
    assert np.array_equal(plain, found)
    assert np.array_equal(end, other)


def test_a_trace_of_a_projected_lstm_names_what_is_projected() -> None:
    w = further(P=2)
    xs, state = normal(2, 5, 3, seed=5), LSTMState(normal(2, 2, seed=6), normal(2, 4, seed=7))
    seen: Any = reference.trace(FURTHER["lstm_projected"], w, xs, state)  # type: ignore[arg-type]
    assert isinstance(seen.pre, gates.LSTMPre)
    assert np.allclose(seen.m, seen.o * np.tanh(seen.c), rtol=1e-15)
    assert np.allclose(seen.h, seen.m @ w.projection, rtol=1e-13)


@pytest.mark.parametrize("name", FURTHER)
def test_the_kernels_refuse_the_further_cells(name: str) -> None:
    assert name not in CELLS
    assert not kernels.supports(FURTHER[name], np.float32)
    with pytest.raises(ValueError, match="cell is"):
        refrnn.run(name, Weights(*further()[:3]), normal(1, 2, 3))


def test_block_lstm_of_tensorflow_has_the_peepholes_and_the_clip(tf: TensorFlow) -> None:
    """BlockLSTM, the kernel of LSTMBlockCell: i c f o; cell_clip comes before o's peephole."""
    F, H, B, T = 3, 4, 2, 7
    rng = np.random.default_rng(0)
    w = {n: rng.normal(size=s).astype("float32") * 2 for n, s in (
        ("kernel", (F + H, 4 * H)), ("bias", (4 * H,)),
        ("w_i_diag", (H,)), ("w_f_diag", (H,)), ("w_o_diag", (H,)),
    )}  # fmt: skip
    xs = rng.normal(size=(B, T, F)).astype("float32")
    c, h = rng.normal(size=(2, B, H)).astype("float32")
    for forget_bias, clip in ((1.0, 0.7), (0.3, -1.0)):
        out = tf.tf.raw_ops.BlockLSTM(
            seq_len_max=np.int64(T), x=xs.swapaxes(0, 1), cs_prev=c, h_prev=h, w=w["kernel"],
            wci=w["w_i_diag"], wcf=w["w_f_diag"], wco=w["w_o_diag"], b=w["bias"],
            forget_bias=forget_bias, cell_clip=clip, use_peephole=True,
        )  # fmt: skip
        told = {"forget_bias": forget_bias, "cell_clip": None if clip < 0 else clip}
        ys, after = layouts.run(w, xs, (c, h), "lstm", "tf1", attributes=told)
        close(ys, out.h.numpy().swapaxes(0, 1))
        close(after[0], out.cs.numpy()[-1])
        for other in ("onnx", "tflite", "coreml"):
            if clip < 0:
                there = layouts.convert(w, "lstm", "tf1", other, attributes=told, lossy=ALL)
                states = layouts.convert_state((c, h), "lstm", "tf1", other)
                close(layouts.run(there, xs, states)[0], ys)


def test_gru_block_cell_of_tensorflow_is_reset_before(tf: TensorFlow) -> None:
    F, H = 3, 4
    w = {n: normal(*s, seed=k).astype("float32") for k, (n, s) in enumerate((
        ("gates/kernel", (F + H, 2 * H)), ("gates/bias", (2 * H,)),
        ("candidate/kernel", (F + H, H)), ("candidate/bias", (H,)),
    ))}  # fmt: skip
    xs, h = normal(2, 1, F, seed=8).astype("float32"), normal(2, H, seed=9).astype("float32")
    out = tf.tf.raw_ops.GRUBlockCell(
        x=xs[:, 0], h_prev=h, w_ru=w["gates/kernel"], w_c=w["candidate/kernel"],
        b_ru=w["gates/bias"], b_c=w["candidate/bias"],
    )  # fmt: skip
    close(layouts.run(w, xs, (h,), "gru_reset_before", "tf1")[0][:, 0], out.h.numpy())


# --- libraries that cannot run here, by their documented equations -----------------------------


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def test_core_ml_lstm_is_i_f_o_z() -> None:
    F, H = 3, 4
    w = {"weight_ih": normal(4 * H, F), "weight_hh": normal(4 * H, H, seed=1),
         "bias": normal(4 * H, seed=2), "peephole": normal(3 * H, seed=3)}  # fmt: skip
    x, h, c = normal(2, F, seed=4), normal(2, H, seed=5), normal(2, H, seed=6)
    i, f, o, z = np.split(x @ w["weight_ih"].T + h @ w["weight_hh"].T + w["bias"], 4, axis=1)
    p_i, p_f, p_o = np.split(w["peephole"], 3)
    after = sigmoid(f + p_f * c) * c + sigmoid(i + p_i * c) * np.tanh(z)
    expected = sigmoid(o + p_o * after) * np.tanh(after)
    ys, ends = layouts.run(w, x[:, None], (h, c), "lstm", "coreml")
    close(ys[:, 0], expected)
    close(ends[1], after)


def test_core_ml_gru_is_r_o_z() -> None:
    F, H = 3, 4
    w = {"weight_ih": normal(3 * H, F), "weight_hh": normal(3 * H, H, seed=1),
         "bias": normal(3 * H, seed=2)}  # fmt: skip
    x, h = normal(2, F, seed=4), normal(2, H, seed=5)
    r, o, z = np.split(x @ w["weight_ih"].T + w["bias"], 3, axis=1)
    ur, uo, uz = np.split(h @ w["weight_hh"].T, 3, axis=1)
    z = sigmoid(z + uz)
    expected = (1 - z) * np.tanh(o + sigmoid(r + ur) * uo) + z * h
    close(layouts.run(w, x[:, None], (h,), "gru", "coreml")[0][:, 0], expected)


def test_haste_is_i_g_f_o_and_z_r_g() -> None:
    F, H = 3, 4
    x, h, c = normal(2, F, seed=4), normal(2, H, seed=5), normal(2, H, seed=6)
    w = {"kernel": normal(F, 4 * H), "recurrent_kernel": normal(H, 4 * H, seed=1),
         "bias": normal(4 * H, seed=2)}  # fmt: skip
    i, g, f, o = np.split(x @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"], 4, axis=1)
    after = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    ys, ends = layouts.run(w, x[:, None], (h[None], c[None]), "lstm", "haste")
    close(ys[:, 0], sigmoid(o) * np.tanh(after))
    close(ends[1][0], after)

    w = {"kernel": normal(F, 3 * H), "recurrent_kernel": normal(H, 3 * H, seed=1),
         "bias": normal(3 * H, seed=2), "recurrent_bias": normal(3 * H, seed=3)}  # fmt: skip
    z, r, g = np.split(x @ w["kernel"] + w["bias"], 3, axis=1)
    uz, ur, ug = np.split(h @ w["recurrent_kernel"] + w["recurrent_bias"], 3, axis=1)
    z = sigmoid(z + uz)
    expected = z * h + (1 - z) * np.tanh(g + sigmoid(r + ur) * ug)
    close(layouts.run(w, x[:, None], (h[None],), "gru", "haste")[0][:, 0], expected)


def test_tfjs_has_gates_of_hard_sigmoid_by_default() -> None:
    w, xs = {n: a.astype("float64") for n, a in W32.items()}, normal(2, 5, 3)
    ys, _ = layouts.run(w, xs, None, "lstm", "tfjs")
    hard = ACTIVATIONS["hard_sigmoid_keras2"]
    expected, _ = refrnn.run("lstm", Weights(**w), xs, recurrent_activation=hard)
    assert np.array_equal(ys, expected)
    there = layouts.convert(w, "lstm", "tfjs", "keras")
    assert there.attributes["recurrent_activation"] == "hard_sigmoid_keras2"
    onnx = layouts.convert(there, target="onnx")
    assert onnx.attributes["activations"] == ["HardSigmoid", "Tanh", "Tanh"]
    assert "activation_alpha" not in onnx.attributes


# --- equivalents -------------------------------------------------------------------------------


def projected() -> Stored:
    H, P, F = 4, 2, 3
    return Stored(
        {"weight_ih_l0": normal(4 * H, F), "weight_hh_l0": normal(4 * H, P, seed=1),
         "bias_ih_l0": normal(4 * H, seed=2), "bias_hh_l0": normal(4 * H, seed=3),
         "weight_hr_l0": normal(P, H, seed=4)},
        "torch", "lstm",
    )  # fmt: skip


def test_a_projected_lstm_is_a_plain_one_and_a_dense_layer() -> None:
    xs, h, c = normal(2, 6, 3, seed=5), normal(1, 2, 2, seed=6), normal(1, 2, 4, seed=7)
    expected, (h_end, c_end) = layouts.run(projected(), xs, (h, c))
    its = projected()
    plain, dense = equivalents.split_projection(its)
    assert not np.shares_memory(dense, its["weight_hr_l0"])
    assert dense.shape == (4, 2)
    ys, (h2, c2) = layouts.run(plain, xs, (equivalents.plain_state(h[0], dense)[None], c))
    close(ys @ dense, expected)
    close(h2 @ dense, h_end)
    close(c2, c_end)
    assert plain.attributes["proj_size"] == 0
    with pytest.raises(ValueError, match="no projection"):
        equivalents.split_projection(plain)


def test_input_forget_is_a_negated_input_gate() -> None:
    told = {"input_forget": 1}
    s = SAMPLES["onnx_lstm"]
    stored = Stored({n: a.astype("float64") for n, a in s.stored.items()}, "onnx", "lstm", told)
    plain = equivalents.untied(stored)
    assert plain.attributes["input_forget"] == 0
    w = layouts.convert(plain, target="keras", lossy=ALL)
    i, f, _, _ = np.split(w["kernel"], 4, axis=1)
    assert np.array_equal(f, -i)
    h, c = (normal(1, 2, 4, seed=k) for k in (1, 2))
    x = normal(2, 1, 3, seed=3)
    z = x[:, 0] @ w["kernel"] + h[0] @ w["recurrent_kernel"] + w["bias"]
    i, _, g, o = np.split(z, 4, axis=1)
    end = (1 - sigmoid(i)) * c[0] + sigmoid(i) * np.tanh(g)
    for weights in (plain, stored):
        ys, after = layouts.run(weights, x, (h, c))
        close(after[1][0], end)
        close(ys[:, 0], sigmoid(o) * np.tanh(end))
    with pytest.raises(ValueError, match="input_forget is 0"):
        equivalents.untied(plain)


@pytest.mark.parametrize("cell", ["lstm", "gru", "gru_reset_before"])
@pytest.mark.parametrize("way", [("hard_sigmoid_keras2", "hard_sigmoid"), ("hard_sigmoid",) * 2])
def test_one_hard_sigmoid_is_the_other_of_scaled_gates(cell: str, way: tuple[str, str]) -> None:
    now, then = way
    w = Weights(*(normal(*s, seed=k) for k, s in enumerate(CELLS[cell].shapes(3, 4))))
    stored = Stored(w._asdict(), "keras", cell, {"recurrent_activation": now})
    other = equivalents.rescaled(stored, then)
    assert other.attributes["recurrent_activation"] == then
    xs = normal(2, 6, 3, seed=5)
    close(layouts.run(other, xs)[0], layouts.run(stored, xs)[0])
    wrong = Stored(stored, "keras", cell, {"recurrent_activation": then})
    if now != then:
        assert abs(layouts.run(wrong, xs)[0] - layouts.run(stored, xs)[0]).max() > 1e-2
    with pytest.raises(ValueError, match="no other two activations"):
        equivalents.rescaled(stored, "sigmoid")


@pytest.mark.parametrize("cell", ["gru", "gru_reset_before"])
def test_the_other_sense_of_z_is_a_negated_block(cell: str) -> None:
    w = Weights(*(normal(*s, seed=k) for k, s in enumerate(CELLS[cell].shapes(3, 4))))
    stored = Stored(w._asdict(), "keras", cell)
    other = equivalents.negated_update(stored)
    assert same(equivalents.negated_update(other), stored)
    x, h = normal(2, 1, 3, seed=5), normal(2, 4, seed=6)
    seen: Any = refrnn.trace(cell, w, x, (h,))
    z, g = seen.z[:, 0], seen.g[:, 0]
    close(layouts.run(other, x, (h,))[0][:, 0], (1 - z) * h + z * g)


def test_a_minimal_gated_unit_is_a_gru() -> None:
    F, H = 3, 4
    kernel, recurrent, bias = normal(F, 2 * H), normal(H, 2 * H, seed=1), normal(2, 2 * H, seed=2)
    x, h = normal(2, 1, F, seed=3), normal(2, H, seed=4)
    xf, xn = np.split(x[:, 0] @ kernel + bias[0], 2, axis=1)
    hf, hn = np.split(h @ recurrent + bias[1], 2, axis=1)
    f = sigmoid(xf + hf)
    expected = (1 - f) * np.tanh(xn + f * hn) + f * h
    ys, _ = refrnn.run("gru", equivalents.mgu(kernel, recurrent, bias), x, (h,))
    close(ys[:, 0], expected)
    assert equivalents.mgu(kernel, recurrent).bias is None
    with pytest.raises(ValueError, match="expected"):
        equivalents.mgu(kernel, recurrent[:, :-1], bias)


@pytest.mark.parametrize("cell", ["gru", "gru_reset_before"])
def test_the_families_meet_where_the_candidate_is_diagonal(cell: str) -> None:
    w = Weights(*(normal(*s, seed=k) for k, s in enumerate(CELLS[cell].shapes(3, 4))))
    with pytest.raises(ValueError, match="12 entries off the diagonal"):
        equivalents.other_family(Stored(w._asdict(), "keras", cell))
    w.recurrent_kernel[:, 8:] *= np.eye(4)
    if cell == "gru":
        with pytest.raises(ValueError, match="4 biases"):
            equivalents.other_family(Stored(w._asdict(), "keras", cell))
        w.bias[1, 8:] = 0
    other = equivalents.other_family(Stored(w._asdict(), "keras", cell))
    assert {cell, other.cell} == {"gru", "gru_reset_before"}
    xs, h = normal(2, 6, 3, seed=5), normal(2, 4, seed=6)
    close(layouts.run(other, xs, (h,))[0], refrnn.run(cell, w, xs, (h,))[0])


# --- other libraries: what they computed, and again where they are installed --------------------

WRITTEN = dict(np.load(FIXTURES / "written.npz"))


def agree(mine: tuple[Array, tuple[Array, ...]], its: tuple[Array, tuple[Array, ...]]) -> None:
    for a, b in zip((mine[0], *mine[1]), (its[0], *its[1]), strict=True):
        close(a, b)


@pytest.mark.parametrize("name", CASES)
def test_what_other_libraries_computed(name: str) -> None:
    case = CASES[name]
    z = {key.partition(":")[2]: a for key, a in WRITTEN.items() if key.startswith(f"{name}:")}
    stored = Stored(prefixed(z), case.layout, case.cell, json.loads(str(z["attributes"])))
    assert stored.attributes == case.weights().attributes
    count = 1 + (case.cell == "lstm")
    states, after = ([z[f"{what}{k}"] for k in range(count)] for what in ("state", "after"))
    agree(layouts.run(stored, z["x"], states), (z["y"], tuple(after)))


@pytest.mark.others
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", CASES)
def test_other_libraries_where_they_are_installed(name: str) -> None:
    case = CASES[name]
    needed, its = LIBRARIES[case.layout]
    needs(*needed)
    weights, (xs, states) = case.weights(), case.inputs()
    agree(layouts.run(weights, xs, states), its(weights, xs, states))


KERAS = {"lstm": "LSTM", "gru": "GRU", "gru_reset_before": "GRU", "simple": "SimpleRNN"}


IN_KERAS = (
    "torch lstm", "torch gru", "torch simple", "onnx lstm", "onnx gru", "onnx gru reset before",
    "onnx simple", "onnx relu", "onnx softsign", "onnx hard_sigmoid of Keras 3",
)  # fmt: skip


@pytest.mark.parametrize("name", IN_KERAS)
def test_keras_layers_made_of_the_attributes_and_arrays(tf: TensorFlow, name: str) -> None:
    """layers.GRU(**attributes), Bidirectional, set_weights: the numbers of the other library."""
    case = CASES[name]
    weights, (xs, states) = case.weights(), case.inputs()
    there = layouts.convert(weights, lossy=ALL)
    ys: Any = xs
    for layer in range(case.layers):
        prefix = f"{layer}/" if case.layers > 1 else ""
        arrays = {n.removeprefix(prefix): a for n, a in there.items() if n.startswith(prefix)}
        kind = getattr(tf.keras.layers, KERAS[case.cell])
        made = tf.keras.layers.Bidirectional(
            kind(**there.attributes, return_sequences=True), merge_mode="concat"
        )
        made.build(ys.shape)
        made.set_weights(list(arrays.values()))
        states_of = layouts.convert_state(
            states, case.cell, case.layout, directions=2, layers=case.layers
        )
        count = len(states_of) // case.layers
        ys = made(ys, initial_state=list(states_of[count * layer : count * (layer + 1)]))
    close(np.asarray(ys), WRITTEN[f"{name}:y"])


# --- for people --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "cell"), [(name, c) for name, row in LAYOUTS.items() for c in row.cells]
)
def test_every_form_is_described_and_every_array_named(layout: str, cell: str) -> None:
    text = layouts.describe(layout, cell)
    for slot in LAYOUTS[layout].cells[cell].slots:
        assert slot.name in text
    assert "equations" in text


def test_equations_are_in_the_letters_of_the_library() -> None:
    assert "n~ = tanh(x @ weight_ih[n]' + bias_ih[n] + r * (h @ weight_hh[n]' + bias_hh[n]))" in (
        layouts.describe("torch", "gru")
    )
    both = layouts.describe("onnx", "gru")
    assert "(r * h) @ R[h]'" in both
    assert "linear_before_reset=0" in both
    assert "linear_before_reset=1" in both
    assert "forget_bias)" in layouts.describe("tf1")
    with pytest.raises(ValueError, match="tflite has no 'gru'"):
        layouts.describe("tflite", "gru")


def test_the_table_of_the_readme_is_that_of_the_code() -> None:
    text = README.read_text(encoding="utf-8")
    tables = re.findall(r"<!-- layouts -->(.*?)<!-- /layouts -->", text, re.DOTALL)
    assert [table.strip() for table in tables] == [layouts.markdown().strip()]
