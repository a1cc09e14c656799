"""What is told, drawn and written for people are the numbers of `refrnn.trace` and `gradients`.

An equation that is shown is checked by computing it: what stands in it makes, in every bit, what
stands after it.
"""

import copy
import json
import pickle
import re
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import cases

import refrnn
from refrnn import layers
from refrnn.cases import Case
from refrnn.cells import CELLS
from refrnn.cli import main
from refrnn.layouts import LAYOUTS
from refrnn.reference import QUIET
from refrnn.study import chunks, equations, page, recurrent, show, summary, variants
from refrnn.study.data import STEPS, UNITS, data, decoded, following
from refrnn.study.equations import BACKWARD, BRACES, FORWARD, NOTATIONS, symbols
from refrnn.study.numbers import backward, forward, in_order
from refrnn.study.plots import BAD, HIGH_END, LOW
from refrnn.study.target import Wanted
from refrnn.study.terminal import number
from refrnn.training import tape
from refrnn.verify.inputs import bits

DTYPES = ("float64", "float32", "float16", "bfloat16")
CELL_NAMES = tuple(CELLS)


def drawn(case: Case, draw: Any = None, **options: Any) -> Any:
    """The trace of a case, with resets where `draw` says so."""
    layer, arrays = case.build(), case.arrays()
    reset = None
    if draw is not None and draw(st.booleans()):
        reset = np.random.default_rng(case.seed).random((case.rows, case.steps)) < 0.3
    return refrnn.trace(
        layer.cell.math,
        layer.cell.arrays,
        arrays.x,
        arrays.state,
        mask=arrays.mask,
        reset=reset,
        go_backwards=layer.go_backwards,
        **options,
    )


def simple_trace(cell: str = "lstm", steps: int = 6, units: int = 3, **options: Any) -> Any:
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape) for shape in CELLS[cell].shapes(2, units)]
    return refrnn.trace(cell, weights, rng.normal(size=(2, steps, 2)), **options)


def computed(parts: str, numbers: dict[str, Any], cell: Any) -> Any:
    """What an equation gives, read as Python, with the numbers of all rows, steps and units."""
    known = {**numbers, "act": cell.act.value, "rec": cell.rec.value}
    return eval(BRACES.sub(lambda name: f"known[{name[1]!r}]", parts), {"known": known})


def equal(a: Any, b: Any) -> bool:
    return np.array_equal(np.asarray(a, np.float64), np.asarray(b, np.float64), equal_nan=True)


def check_lines(trace: Any, lines: Any, numbers: dict[str, Any]) -> None:
    live = np.ones(trace.h.shape[:2], bool)
    if trace.mask is not None:
        live = in_order(trace, trace.mask)
    for line in lines:
        with QUIET():
            found = numbers[line.of]
            if "!" not in line.parts:
                made = np.broadcast_to(computed(line.parts, numbers, trace.cell), found.shape)
                plain = live if line.masked is not None else np.ones_like(live)
                assert equal(made[plain], found[plain]), line
            if line.masked:
                held = computed(line.masked, numbers, trace.cell)
                assert equal(held[~live], found[~live]), line


# --- the equations ---


@given(data=st.data())
def test_the_equations_forwards_give_the_bits_of_the_trace(data: st.DataObject) -> None:
    trace = drawn(data.draw(cases(DTYPES)), data.draw)
    numbers = forward(trace)
    check_lines(trace, FORWARD[trace.cell.name], numbers)
    shown = trace._asdict()
    for name, part in [*shown.items(), *((f"pre.{n}", p) for n, p in trace.pre._asdict().items())]:
        if name != "pre":
            assert numbers[name] is part


@given(data=st.data())
def test_the_equations_backwards_give_the_bits_of_the_gradients(data: st.DataObject) -> None:
    case = data.draw(cases(("float64", "float32")))
    check_backwards(drawn(case, data.draw), case.seed, data.draw(st.booleans()))


@pytest.mark.parametrize("cell", CELL_NAMES)
@pytest.mark.parametrize("go_backwards", [False, True])
def test_masks_and_resets_meet_on_the_way_back(cell: str, go_backwards: bool) -> None:
    """Every pair of masked, reset and plain steps stands side by side in some row."""
    mask, reset = np.random.default_rng(0).random((2, 40, 6)) < [[[0.5]], [[0.4]]]
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=shape) for shape in CELLS[cell].shapes(2, 3)]
    x = rng.normal(size=(40, 6, 2))
    trace = refrnn.trace(cell, weights, x, mask=mask, reset=reset, go_backwards=go_backwards)
    check_lines(trace, FORWARD[cell], forward(trace))
    check_backwards(trace, 0, False)


def check_backwards(trace: Any, seed: int, zeros: bool) -> None:
    """The numbers of each step, against the gradients of the whole sequence."""
    rng, dtype = np.random.default_rng(seed), trace.xs.dtype
    B, T, H = trace.h.shape
    loss: dict[str, Any] = {
        "dys": rng.normal(size=(B, T, H)).astype(dtype),
        "dlast_output": rng.normal(size=(B, H)).astype(dtype),
        "dstate": [rng.normal(size=(B, H)).astype(dtype) for _ in trace.start],
    }
    numbers = forward(trace) | backward(trace, **loss, zero_output_for_mask=zeros)
    whole = refrnn.gradients(
        trace.cell, trace.weights, trace.xs, state=trace.start, mask=trace.mask, reset=trace.reset,
        go_backwards=trace.go_backwards, zero_output_for_mask=zeros, gates=True, **loss,
    )  # fmt: skip
    for name, part in whole.dtrace._asdict().items():
        if name != "pre":
            assert equal(numbers[f"d.{name}"], part), name
    for name, part in whole.dtrace.pre._asdict().items():
        assert equal(numbers[f"dpre.{name}"], part), name
    forgotten = np.zeros((B, T, 1), bool)
    if trace.reset is not None:
        forgotten = in_order(trace, trace.reset)[..., None]
    for name, part in whole.dstate._asdict().items():
        handed = np.where(forgotten, 0, numbers[f"prev.{name}"])
        assert equal(handed[:, 0], part), name
        assert equal(handed[:, 1:], numbers[f"next.{name}"][:, :-1]), name
    check_lines(trace, equations.lines(trace.cell, numbers)["backward"], numbers)


@pytest.mark.parametrize("cell", CELL_NAMES)
@pytest.mark.parametrize("notation", NOTATIONS)
def test_every_name_has_letters_in_every_notation(cell: str, notation: str) -> None:
    names = symbols(notation, CELLS[cell])
    for line in (*FORWARD[cell], *BACKWARD[cell]):
        for name in [line.of, *BRACES.findall(line.parts), *BRACES.findall(line.masked or "")]:
            assert names[name.rstrip("!")]
    gates = [names[gate].rstrip("~").lower() for gate in CELLS[cell].gates]
    layout = NOTATIONS[notation].layout
    if layout is not None and cell in LAYOUTS[layout].cells:
        assert "".join(gates) == LAYOUTS[layout].cells[cell].letters
    said = [names[line.of] for line in FORWARD[cell]]
    assert len(set(said)) == len(said)  # no two things are called the same


def test_the_letters_are_those_of_the_libraries() -> None:
    lines = {
        notation: [
            equations.written(line.parts, symbols(notation, CELLS["gru"]))
            for line in FORWARD["gru"]
        ]
        for notation in NOTATIONS
    }
    assert lines["keras"][4] == (
        "(x @ kernel[h] + bias[0, h]) + r * (h_tm1 @ recurrent_kernel[h] + bias[1, h])"
    )
    assert lines["torch"][4] == "(W_in x + b_in) + r * (W_hn h(t-1) + b_hn)"
    assert lines["torch"][6] == "z * h(t-1) + (1 - z) * n"
    assert lines["onnx"][4] == "(X @ Wh^T + Wbh) + r * (H(t-1) @ Rh^T + Rbh)"
    assert lines["papers"][5] == "tanh(a_h)"
    assert equations.written("{rec}({pre.z})", symbols("onnx", CELLS["gru"])) == "Sigmoid(a_z)"


def test_negative_numbers_stand_in_brackets_after_an_operator_only() -> None:
    values = {"a": "-1", "b": "-2", "c": "3"}
    names = {"act": "tanh"}
    for line, wanted in {
        "{a} + {b}": "-1 + (-2)",
        "({a} + {c}) * {b}": "(-1 + 3) * (-2)",
        "{act}({a})": "tanh(-1)",
        "(1 - {b}) * {c}": "(1 - (-2)) * 3",
    }.items():
        assert equations.filled(line, values.__getitem__, names) == wanted
    assert equations.filled("{a!} @ {U.i}", values.__getitem__, names) is None


@given(data=st.data())
def test_show_prints_the_numbers_of_the_trace(data: st.DataObject) -> None:
    case = data.draw(cases(DTYPES[:2]))
    trace = drawn(case)
    row, step, unit = (data.draw(st.integers(0, n - 1)) for n in trace.h.shape)
    told = show(trace, step, unit, row, data.draw(st.sampled_from(tuple(NOTATIONS))))
    results = [
        block.splitlines()[-1].rpartition("= ")[2]
        for block in re.split(r"\n  (?=\S)", told.partition("forwards\n")[2].rstrip())
    ]
    numbers = forward(trace)
    want = [number(numbers[line.of][row, step, unit]) for line in FORWARD[trace.cell.name]]
    assert results == want


def test_show_tells_of_masks_resets_and_the_way_back() -> None:
    mask, reset = np.ones((2, 6), bool), np.zeros((2, 6), bool)
    mask[1, 2], reset[0, 3] = False, True
    trace = simple_trace("gru", mask=mask, reset=reset, go_backwards=True)
    dys = np.ones(trace.h.shape)
    masked = show(trace, 3, 0, row=1, loss={"dys": dys})
    assert "step 2 of the input" in masked
    assert "masked: the state is held" in masked
    assert re.search(r"h +=? h_tm1\n", masked)
    assert masked.count("not computed: the step is masked") == 7
    assert "reset: the state was forgotten" in show(trace, 2, 1, row=0)
    assert "dh(to t-1)" in show(trace, 0, 0, loss={"dys": dys})
    assert "NaN" not in masked


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"step": 6, "unit": 0}, "lstm: step is 6, expected 0 to 5"),
        ({"step": -1, "unit": 0}, "lstm: step is -1, expected 0 to 5"),
        ({"step": 0, "unit": 3}, "lstm: unit is 3, expected 0 to 2"),
        ({"step": 0, "unit": 0, "row": 2}, "lstm: row is 2, expected 0 to 1"),
        ({"step": 0, "unit": 0, "letters": "greek"}, "letters is 'greek', expected keras, torch"),
    ],
)
def test_show_refuses_what_is_not_there(where: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        show(simple_trace(), **where)


def test_cells_of_the_callers_own_have_no_equations() -> None:
    other = CELLS["simple"]._replace(step=lambda *given: CELLS["simple"].step(*given))
    trace = refrnn.trace(other, [np.ones((2, 3)), np.ones((3, 3))], np.ones((1, 2, 2)))
    with pytest.raises(ValueError, match="the cell has a step of its own"):
        show(trace, 0, 0)


def test_nothing_goes_back_from_no_step() -> None:
    with pytest.raises(ValueError, match="the trace has no steps"):
        backward(simple_trace(steps=0), None)


# --- the trace ---


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_a_trace_is_the_tuple_of_its_gates_with_what_went_in(cell: str) -> None:
    mask = np.ones((2, 6), bool)
    trace = simple_trace(cell, mask=mask)
    assert isinstance(trace, tuple)
    assert trace._fields == type(trace.gates)._fields
    assert trace[-1] is trace.pre
    assert trace._asdict()["h"] is trace.h
    assert trace.cell.name == cell
    assert trace.xs.shape == (2, 6, 2)
    assert np.array_equal(trace.mask, mask)
    assert trace.reset is None
    assert trace.start.h.shape == (2, 3)
    assert repr(trace) == f"<Trace of {cell!r}: 2 rows, 6 steps, 3 units, float64>"
    for twin in (copy.deepcopy(trace), copy.copy(trace)):
        assert np.array_equal(twin.h, trace.h)
        assert twin.summary() == trace.summary()
    with pytest.raises(AttributeError):
        _ = trace.gate


def test_a_trace_can_be_pickled() -> None:
    trace = simple_trace("gru")
    twin = pickle.loads(pickle.dumps(trace))
    assert type(twin) is type(trace)
    assert np.array_equal(twin.h, trace.h)
    assert twin.summary() == trace.summary()


def biased(kind: str, **of_gates: Any) -> Any:
    """A trace without products whose sums are given: {gate: (H,) biases}."""
    gates, H = CELLS[kind].gates, 4
    bias = np.concatenate([np.broadcast_to(of_gates.get(gate, 0.0), H) for gate in gates])
    F = H * len(gates)
    bias = np.stack([bias, 0 * bias]) if kind == "gru" else bias
    mask = of_gates.get("mask")
    return refrnn.trace(kind, [np.zeros((2, F)), np.zeros((H, F)), bias], np.ones((3, 5, 2)),
                        mask=mask)  # fmt: skip


def test_a_summary_tells_what_is_saturated_and_how_long_it_remembers() -> None:
    kept = np.array([0.5, 0.9, 0.98, 0.2])
    keep = np.log(kept / (1 - kept))
    told = biased("lstm", i=[50, -50, 0, 0], f=keep, g=1.0, o=0.0).summary()
    assert told.splitlines()[0] == "lstm: 3 rows, 5 steps, 4 units, float64"
    assert re.search(
        r"^i input gate .*25\.0% at 0, 25\.0% at 1; always at 0: 1; always at 1: 0$", told, re.M
    )
    assert re.search(r"^f forget gate +0\.645 +0\.200 +0\.980 +0\.0% at 0, 0\.0% at 1$", told, re.M)
    # -1 / ln f, of 0.98, 0.9 and 0.5; the median of the four is between 0.9 and 0.5
    assert "unit 2 49.5, unit 1 9.49, unit 0 1.44" in told
    assert "half of the units for 5.47 steps" in told
    assert "dead units (|h| below 0.001 throughout): 1" in told


def test_a_summary_leaves_masked_steps_out() -> None:
    mask = np.zeros((3, 5), bool)
    mask[1, 2] = True
    x = np.full((3, 5, 1), 100.0)
    x[1, 2] = 0.0  # every other step would be saturated
    weights = [np.ones((1, 8)), np.zeros((2, 8)), np.zeros(8)]
    trace = refrnn.trace("lstm", weights, x, mask=mask)
    told = trace.summary()
    assert "masked: 14 of 15 steps, left out below" in told
    assert "0.0% at 0, 0.0% at 1" in told
    assert "93.3% at 1" not in told
    assert "93.3% at 1" in refrnn.trace("lstm", weights, x).summary()  # 14 of 15
    assert "no step to speak of" in refrnn.trace("lstm", weights, x, mask=mask & False).summary()


def test_a_summary_tells_where_numbers_ended() -> None:
    x = np.ones((2, 6, 2))
    x[1, 3, 0] = np.nan
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape) for shape in CELLS["lstm"].shapes(2, 3)]
    told = refrnn.trace("lstm", weights, x).summary()
    assert "NaN or infinity: from step 3 on, first in i, f, g, o, c, h" in told
    assert "remembers, by f: not known" in told


def test_units_that_stand_still_are_told_from_dead_ones() -> None:
    told = biased("simple", h=[0.0, 1.0, 1.0, -1.0]).summary()
    assert "dead units (|h| below 0.001 throughout): 0" in told
    assert "units that do not move (h within 0.001): 1, 2, 3" in told


def test_functions_without_bounds_are_never_saturated() -> None:
    told = simple_trace("lstm", activation="relu", recurrent_activation="linear").summary()
    assert "%" not in told
    assert "remembers" not in told


# --- plots ---


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_a_plot_shows_the_numbers_of_the_trace(cell: str, tmp_path: Path) -> None:
    mask = np.ones((2, 6), bool)
    mask[1, 2:4] = mask[1, 5] = False
    trace = simple_trace(cell, mask=mask)
    figure = trace.plot(tmp_path / "gates.png", row=1)
    assert (tmp_path / "gates.png").read_bytes()[:4] == b"\x89PNG"
    names = summary.names(trace)
    maps = figure.axes[1 : 1 + len(names)]
    for axes, name in zip(maps, names, strict=True):
        assert axes.get_ylabel().startswith(f"{name}\n")
        (image,) = axes.images
        assert np.array_equal(image.get_array(), getattr(trace, name)[1].T)
    assert [line.get_ydata().tolist() for line in figure.axes[0].lines] == trace.xs[1].T.tolist()
    path = figure.axes[1 + len(names)]
    state = trace.c if cell == "lstm" else trace.h
    assert [line.get_ydata().tolist() for line in path.lines] == state[1].T.tolist()
    for axes in (figure.axes[0], *maps, path):
        spans = [p for p in axes.patches if p.get_label() == "masked"]
        assert [(p.get_x(), p.get_width()) for p in spans] == [(1.5, 2.0), (4.5, 1.0)]
    assert len(figure.axes) == len(names) + 2 + len(names)  # and their bars of colours


def test_a_plot_marks_what_is_saturated_and_what_is_no_number() -> None:
    trace = biased("lstm", i=[50, -50, 0, 0])
    (image,) = trace.plot().axes[1].images
    shades = image.cmap(image.norm(image.get_array()))[:, 0]
    want = [HIGH_END, LOW, None, None]
    for shade, colour in zip(shades, want, strict=True):
        found = "#" + "".join(f"{round(255 * part):02x}" for part in shade[:3])
        assert (found == colour) == (colour is not None)
        assert found != BAD
    nan = simple_trace()
    nan.gates.f[0, 4, 1] = np.nan
    image = nan.plot().axes[2].images[0]
    assert image.get_array().mask[1, 4]
    assert image.get_array().mask.sum() == 1


def test_a_plot_of_many_units_shows_those_that_move_the_most() -> None:
    trace = simple_trace("simple", units=80)
    trace.gates.h[:, :, 7] = 0.25  # stands still
    figure = trace.plot()
    (image,) = figure.axes[1].images
    moved = np.ptp(trace.h[0], axis=0)
    kept = np.sort(np.argsort(-moved)[:64])
    assert np.array_equal(image.get_array(), trace.h[0][:, kept].T)
    assert "64 of 80 units" in figure._suptitle.get_text()
    (image,) = trace.plot(units=[7, 2]).axes[1].images
    assert np.array_equal(image.get_array(), trace.h[0][:, [7, 2]].T)


def test_many_features_are_a_heat_map() -> None:
    x = np.random.default_rng(0).normal(size=(1, 4, 9))
    axes = refrnn.trace("simple", [np.ones((9, 2)), np.ones((2, 2))], x).plot().axes[0]
    assert np.array_equal(axes.images[0].get_array(), x[0].T)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"row": 2}, "lstm: row is 2, expected 0 to 1"),
        ({"units": [3]}, "lstm: units is [3], expected numbers from 0 to 2"),
        ({"units": []}, "lstm: units is [], expected a list of numbers of units"),
        ({"units": [0.5]}, "lstm: units is [0.5], expected a list of numbers of units"),
        ({"path": "gates.xyz"}, "gates.xyz: expected a file ending in one of"),
        ({"path": "gates"}, "gates: expected a file ending in one of"),
    ],
)
def test_a_plot_refuses_what_is_not_there(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        simple_trace().plot(**given)


def test_a_plot_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="the trace has 0 steps and 3 units"):
        simple_trace(steps=0).plot()


def test_without_matplotlib_a_plot_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'refrnn[study]'")):
        simple_trace().plot()


# --- the recurrent layers of a model ---


def nested() -> tuple[Any, Any]:
    """A model with a mask, a model inside, a Bidirectional and an RNN of a cell; and its input."""
    x = layers.Input((7, 3))
    y = layers.Bidirectional(layers.GRU(4, return_sequences=True), name="two")(layers.Masking()(x))
    y = layers.RNN(layers.LSTMCell(5), return_sequences=True, name="cell")(y)
    inner = refrnn.Model(x, layers.TimeDistributed(layers.Dense(2))(y), name="inner")
    z = layers.Input((7, 3))
    w = layers.SimpleRNN(3, name="last", go_backwards=True)(inner(z))
    xs = np.random.default_rng(0).normal(size=(2, 7, 3)).astype(np.float32)
    xs[0, 4:] = 0
    return refrnn.Model(z, w), xs


def test_the_layers_of_a_model_are_found_with_what_they_are_given() -> None:
    model, xs = nested()
    found, outputs = recurrent(model, xs)
    assert [seen.name for seen in found] == [
        "inner/two/forward", "inner/two/backward", "inner/cell", "last",
    ]  # fmt: skip
    assert np.array_equal(outputs, model(xs))
    assert np.array_equal(found[0].mask, xs.any(axis=-1))
    ways = np.concatenate([found[0].outputs()[0], found[1].outputs()[0][:, ::-1]], axis=-1)
    np.testing.assert_allclose(ways, found[2].xs, atol=1e-6)  # two engines: they differ by rounding
    np.testing.assert_allclose(found[3].outputs()[0][:, -1], outputs, atol=1e-6)
    for seen in found:
        few = seen.rows(1)
        assert np.array_equal(few.trace().h, seen.trace().h[:1])


def test_a_model_that_carries_its_state_is_left_as_it_is() -> None:
    model = refrnn.Sequential([layers.Input(batch_shape=(2, 4, 1)), layers.GRU(3, stateful=True)])
    x = np.ones((2, 4, 1), np.float32)
    first = model(x)
    carried = model.layers[0].states
    found, outputs = recurrent(model, x)
    assert np.array_equal(outputs, first)  # begun with zeros
    assert np.array_equal(model.layers[0].states[0], carried[0])
    assert not found[0].state[0].any()


def test_a_layer_that_is_called_twice_is_seen_twice() -> None:
    shared, x = layers.GRU(2, return_sequences=True, name="shared"), layers.Input((4, 2))
    model = refrnn.Model(x, shared(shared(x)))
    xs = np.random.default_rng(0).normal(size=(1, 4, 2)).astype(np.float32)
    found, _ = recurrent(model, xs)
    assert [seen.name for seen in found] == ["shared", "shared#2"]
    np.testing.assert_allclose(found[1].xs, found[0].outputs()[0], atol=1e-6)


# --- the loss, from the output to a layer ---


def with_a_way_round(**options: Any) -> tuple[Any, Any]:
    """LSTM, with its state and its sequence used, beside a way around it; float64."""
    how = {"dtype": "float64"}
    x = layers.Input((5, 3), dtype="float64")
    before = layers.Dense(4, activation="tanh", **how)(x)
    y, h, c = layers.LSTM(4, name="lstm", return_sequences=True, return_state=True, **how)(before)
    both = layers.Add(**how)([layers.RepeatVector(5, **how)(layers.Add(**how)([h, c])), y, before])
    out = layers.Dense(2, activation="sigmoid", **how)(layers.GRU(3, name="gru", **how)(both))
    return refrnn.Model(x, out), np.random.default_rng(1).normal(size=(2, 5, 3))


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_the_gradient_that_reaches_a_layer_makes_its_weights_gradients(name: str) -> None:
    """By way of the whole model's backward pass: the same sums, in float64 to 1e-12."""
    model, xs = with_a_way_round()
    target = np.random.default_rng(2).random((2, 2))
    wanted = Wanted(model, [xs], target)
    y = model(xs)
    assert wanted.loss == pytest.approx(((y - target) ** 2).mean(), rel=1e-12)
    seen = next(seen for seen in recurrent(model, xs)[0] if seen.name == name)
    reached: Any = wanted.reached(seen)
    cell = seen.layer.cell
    got = refrnn.gradients(cell.math, cell.arrays, seen.xs, **reached)
    whole = tape.gradients(model, xs, 2 * (y - target) / y.size)
    places = [id(weight) for weight in model.trainable_weights]
    for own, gradient in zip(model.get_layer(name).weights, got[:3], strict=True):
        want = whole.weights[places.index(id(own))]
        np.testing.assert_allclose(gradient, want, rtol=1e-9, atol=1e-12)


def test_a_layer_by_itself_is_reached_by_the_loss_as_it_is() -> None:
    layer = layers.GRU(3, return_sequences=True)
    x = np.ones((2, 4, 1), np.float32)
    y = layer(x)
    (seen,), _ = recurrent(layer, x)
    reached: Any = Wanted(layer, [x], y + 1).reached(seen)
    np.testing.assert_allclose(reached["dys"], np.full_like(y, -2 / y.size), rtol=1e-6)


def test_why_a_layer_is_not_reached_is_said() -> None:
    model, xs = nested()
    wanted = Wanted(model, [xs], np.zeros((2, 3)))
    found, _ = recurrent(model, xs)
    assert wanted.reached(found[0]) == "the layer is inside of another one"
    x = layers.Input((3, 2))
    idle = refrnn.Model(x, layers.Dense(1)(x))
    idle_wanted = Wanted(idle, [xs[:, :3, :2]], np.zeros((2, 3, 1)))
    assert "another one" in str(idle_wanted.reached(found[3]))


def test_a_target_must_fit() -> None:
    model, xs = nested()
    with pytest.raises(ValueError, match=re.escape("the target has shape (2, 4), expected (2, 3)")):
        Wanted(model, [xs], np.zeros((2, 4)))
    x = layers.Input((4, 2))
    two = refrnn.Model(x, [layers.GRU(2)(x), layers.GRU(2)(x)])
    with pytest.raises(ValueError, match="returns several arrays, expected one"):
        Wanted(two, [np.ones((1, 4, 2))], np.zeros((1, 2)))


# --- chunks and variants ---


@given(case=cases(("float32",), max_steps=7), length=st.integers(1, 5))
@example(case=Case("GRU", mask="right", dtype="float32"), length=2)
def test_chunks_change_nothing_and_a_lost_state_begins_again(case: Case, length: int) -> None:
    layer, arrays = case.build(return_state=False), case.arrays()
    (seen,), _ = recurrent(layer, arrays.x)
    seen = seen._replace(state=arrays.state, mask=arrays.mask)
    cut = chunks.of_layer(seen, length)
    assert cut.differ == 0
    T = case.steps
    for start in range(0, T, length):
        now = slice(start, start + length)
        if layer.go_backwards:
            now = slice(max(0, T - start - length), T - start)
        mask = None if arrays.mask is None else arrays.mask[:, now]
        state = arrays.state if start == 0 else None
        alone, _ = seen._replace(xs=arrays.x[:, now], state=state, mask=mask).outputs()
        assert np.array_equal(cut.lost[:, start : start + length], alone)


def test_a_difference_between_chunks_would_be_counted() -> None:
    a = np.array([0.0, 1.0, np.nan], np.float32)
    assert chunks._differ(a, a.copy()) == 0
    assert chunks._differ(a, np.array([-0.0, 1.0, np.nan], np.float32)) == 1


def test_the_output_of_a_model_forgets_with_its_layers() -> None:
    model = running_sum()
    x = bits(2, 8)
    whole = np.asarray(model(x))
    cut = chunks.of_model(model, [x], whole, 3)
    assert cut is not None
    assert cut.differ == 0
    for start in (0, 3, 6):
        assert np.array_equal(cut.lost[:, start : start + 3], model(x[:, start : start + 3]))
    assert chunks.of_model(model, [x], whole[:, -1], 3) is None


def test_the_other_gru_is_that_of_the_same_weights() -> None:
    for cell, other in (("gru", "gru_reset_before"), ("gru_reset_before", "gru")):
        trace = simple_trace(cell, activation="relu")
        found = variants.other(trace)
        assert found is not None
        W, U, b = trace.weights
        bias = b.sum(axis=0) if cell == "gru" else np.stack([b, 0 * b])
        want = refrnn.trace(other, [W, U, bias], trace.xs, activation="relu")
        assert np.array_equal(found.h, want.h)
        assert found.cell.name == other
        assert not np.array_equal(found.h, trace.h)
    assert variants.other(simple_trace("lstm")) is None


# --- the page's numbers ---


def running_sum() -> Any:
    with resources.as_file(resources.files("refrnn.verify") / "models/running_sum.keras") as path:
        return refrnn.load_model(path)


def embedded(text: str) -> Any:
    """The JSON of a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found
    return json.loads(found[1])


def check_numbers(stored: Any, trace: Any, rows: Any, steps: Any, units: Any) -> None:
    at = np.ix_(rows, steps, units)
    numbers = {name: decoded(part) for name, part in stored["numbers"].items()}
    for name, array in forward(trace).items():
        assert equal(numbers[name], array[units] if array.ndim == 1 else array[at]), name


def test_the_page_holds_the_bits_of_the_trace_and_of_the_gradients() -> None:
    model, x = running_sum(), bits()
    target = x.cumsum(axis=1)
    found = embedded(page(model, [x], target))
    (stored,) = found["layers"]
    (seen,), y = recurrent(model, x)
    check_numbers(stored, seen.trace(), stored["rows"], stored["steps"], stored["units"])
    cell, reached = seen.layer.cell, Wanted(model, [x], target).reached(seen)
    assert isinstance(reached, dict)
    whole = refrnn.gradients(cell.math, cell.arrays, seen.xs, **reached, gates=True)
    for name in "ifgoch":
        got = decoded(stored["numbers"][f"d.{name}"])
        assert equal(got, getattr(whole.dtrace, name)[:4]), name
    assert equal(decoded(found["output"]["y"]), y[:4, :, 0])
    assert equal(decoded(found["output"]["target"]), target[:4, :, 0])
    assert equal(decoded(stored["x"]), seen.xs[:4])
    assert [cut["differ"] for cut in stored["cuts"]] == [0, 0, 0]
    assert stored["summary"] == seen.trace().summary()


def test_the_unit_that_counts_is_named() -> None:
    model, x = running_sum(), bits()
    (seen,), y = recurrent(model, x)
    (unit, r), *_ = following(seen.trace(), y)
    c = seen.trace().c[:, :, unit].ravel()
    assert r == pytest.approx(np.corrcoef(c, y.ravel())[0, 1], abs=1e-6)
    every = [np.corrcoef(seen.trace().c[:, :, k].ravel(), y.ravel())[0, 1] for k in range(32)]
    assert unit == int(np.argmax(np.abs(every)))
    assert abs(r) > 0.95  # it does count
    assert following(seen.trace(), y[:, -1]) == []


def test_large_models_are_thinned_and_the_page_says_how() -> None:
    layer = layers.GRU(70, return_sequences=True, name="wide", bias_initializer="uniform")
    x = np.random.default_rng(0).normal(size=(6, 450, 3)).astype(np.float32)
    found = data(refrnn.Sequential([layers.Input((None, 3)), layer]), [x], "large", None)
    (stored,) = found["layers"]
    steps, units = stored["steps"], stored["units"]
    assert (len(steps), len(units)) == (STEPS, UNITS)
    assert (steps[0], steps[-1]) == (0, 449)
    assert set(np.diff(steps)) <= {2, 3}
    (seen,), _ = recurrent(layer, x)
    check_numbers(stored, seen.trace(), stored["rows"], steps, units)
    moved = np.ptp(seen.trace().h.reshape(-1, 70).astype(np.float64), axis=0)
    left = sorted(set(range(70)) - set(units))
    named = {unit for unit, _ in stored["follow"]}
    assert moved[left].max() <= min(moved[unit] for unit in units if unit not in named)
    (note,) = found["notes"]
    assert note.startswith(
        "wide: the first 1 of 6 rows; 200 of 450 steps, about every 2th; 64 of 70 units"
    )
    assert len(json.dumps(found)) < 8e6


def test_layers_that_are_not_shown_are_told() -> None:
    model, xs = nested()
    found = data(model, [xs], "nested", Wanted(model, [xs], np.zeros((2, 3))))
    assert [stored["name"] for stored in found["layers"]][-1] == "last"
    assert sum("not shown backwards: the layer is inside" in note for note in found["notes"]) == 3
    assert "backward" in found["layers"][-1]["lines"]
    chain = [layers.Input((3, 1)), *(layers.GRU(1, return_sequences=True) for _ in range(8))]
    many = data(refrnn.Sequential(chain), [np.ones((1, 3, 1))], "many", None)
    assert len(many["layers"]) == 6
    assert "Of 8 recurrent layers the first 6 are shown; left: gru" in many["notes"][0]


def test_a_page_is_one_file_that_asks_for_nothing() -> None:
    layer = layers.GRU(2, return_sequences=True)
    text = page(layer, [np.ones((1, 3, 1))], title="</script><b>&")
    assert "<h1>&lt;/script&gt;&lt;b&gt;&amp;</h1>" in text
    assert text.count("</script>") == 2
    assert embedded(text)["title"] == "</script><b>&"
    assert "default-src 'none'" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_numbers_that_are_none_are_in_the_page() -> None:
    x = np.ones((1, 4, 2), np.float32)
    x[0, 2, 0] = np.nan
    layer = layers.SimpleRNN(2, return_sequences=True, activation="relu")
    found = embedded(page(layer, [x]))
    assert np.isnan(decoded(found["layers"][0]["numbers"]["h"])[0, 2:]).all()


def test_a_page_needs_a_layer_and_a_step() -> None:
    dense = refrnn.Sequential([layers.Input((3, 1)), layers.Dense(1)])
    with pytest.raises(ValueError, match="has no recurrent layer that can be shown"):
        page(dense, [np.ones((1, 3, 1))])
    with pytest.raises(ValueError, match="0 steps"):
        page(layers.GRU(2), [np.ones((1, 0, 1))])


# --- commands ---


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "m.keras"
    running_sum().save(path)
    np.save(tmp_path / "x.npy", bits(2, 6))
    np.save(tmp_path / "y.npy", bits(2, 6).cumsum(axis=1))
    return path


def test_trace_writes_a_recording_that_agrees_a_picture_and_a_page(
    model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model_file.parent
    out, plot, html = folder / "t.npz", folder / "p.svg", folder / "p.html"
    given = ["trace", str(model_file), "--input", str(folder / "x.npy"), "--out", str(out),
             "--plot", str(plot), "--html", str(html)]  # fmt: skip
    assert main(given) == 0
    told = capsys.readouterr().out
    assert "lstm: 2 rows, 6 steps, 32 units, float32" in told
    (seen,), _ = recurrent(running_sum(), bits(2, 6))
    with np.load(out) as stored:
        assert sorted(stored.files) == sorted(
            ["x", "y", "h0", "c0", "hs", "cs", *"ifgo", *(f"pre.{gate}" for gate in "ifgo")]
        )
        for name in (*"ifgo", "hs", "cs", "y"):
            assert np.array_equal(
                stored[name], getattr(seen.trace(), {"y": "h"}.get(name, name[0]))
            )
    assert "<svg" in plot.read_text()
    assert embedded(html.read_text())["title"] == "m.keras"
    assert main(["verify", str(model_file), "--layer", "lstm", "--against", str(out)]) == 0


def test_show_prints_the_step(model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = model_file.parent
    given = ["show", str(model_file), "--input", str(folder / "x.npy"), "--step", "3",
             "--unit", "5", "--row", "1", "--letters", "torch"]  # fmt: skip
    assert main(given) == 0
    (seen,), _ = recurrent(running_sum(), bits(2, 6))
    told = capsys.readouterr().out
    assert told == f"lstm: {show(seen.trace(), 3, 5, 1, 'torch')}\n"
    assert main([*given, "--target", str(folder / "y.npy")]) == 0
    assert "backwards" in capsys.readouterr().out


def test_study_writes_the_page_and_says_where(
    model_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model_file.parent
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr("webbrowser.open", lambda url: pytest.fail("no terminal, no browser"))
    assert main(["study"]) == 0
    (path,) = re.findall(r"written to (.*\.html)", capsys.readouterr().out)
    found = embedded(Path(path).read_text())
    assert "backward" in found["layers"][0]["lines"]
    assert float(found["loss"]) < 0.01
    named = folder / "page.html"
    given = ["study", str(model_file), "--input", str(folder / "x.npy"), "--html", str(named)]
    assert main(given) == 0
    assert embedded(named.read_text())["loss"] is None
    assert main([*given, "--target", str(folder / "y.npy")]) == 0
    assert embedded(named.read_text())["loss"] is not None


def test_study_opens_a_browser_where_there_is_a_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert main(["study"]) == 0
    assert not opened
    monkeypatch.setenv("DISPLAY", ":0")
    assert main(["study"]) == 0
    (url,) = opened
    assert url.startswith("file:")
    assert main(["study", "--html", str(tmp_path / "named.html")]) == 0
    assert len(opened) == 1


def test_random_inputs_stand_in_where_none_are_given(
    model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(model_file)]) == 0
    assert "row 0, step 0, unit 0" in capsys.readouterr().out


def test_nan_in_the_input_is_shown_not_refused(
    model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = bits(1, 6)
    x[0, 2] = np.nan
    np.save(model_file.parent / "nan.npy", x)
    given = ["trace", str(model_file), "--input", str(model_file.parent / "nan.npy")]
    assert main(given) == 0
    assert "NaN or infinity: from step 2 on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("show {m} --step 99", "step is 99, expected 0 to 19"),
        ("show {m} --unit 32", "unit is 32, expected 0 to 31"),
        ("show {m} --layer lstn", "no recurrent layer is called 'lstn', expected one of 'lstm'"),
        ("show {m} --target {d}/x.npy", "the target has shape (2, 6, 1), expected (3, 20, 1)"),
        ("show {d}/none.keras", "No such file"),
        ("show {d}/dense.keras", "has no recurrent layer that can be shown"),
        ("show {d}/two.keras", "has the recurrent layers 'a', 'b', expected the name of one"),
        ("trace {d}/two.keras --out {d}/t.npz", "expected --layer with --out and --plot"),
        ("trace {m} --plot {d}/p.xyz", "expected a file ending in one of"),
        ("trace {m} --plot {d}/no/p.png", "no such folder"),
        ("trace {m} --row 7 --plot {d}/p.png", "row is 7, expected 0 to 2"),
        ("trace {m} --input {d}/junk.npy", "cannot be read as .npy or .npz"),
        ("study --input {d}/x.npy", "expected with a MODEL"),
        ("study --target {d}/x.npy", "expected with a MODEL"),
        ("study {m} --html {d}", "a folder, expected a file to write"),
        ("study {d}/dense.keras", "has no recurrent layer that can be shown"),
    ],
)
def test_commands_say_what_is_wrong_and_write_nothing(
    given: str, message: str, model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model_file.parent
    refrnn.Sequential([layers.Input((3, 1)), layers.Dense(1)]).save(folder / "dense.keras")
    gru = {"return_sequences": True}
    two = [layers.Input((3, 1)), layers.GRU(1, name="a", **gru), layers.GRU(1, name="b")]
    refrnn.Sequential(two).save(folder / "two.keras")
    (folder / "junk.npy").write_text("junk")
    before = sorted(folder.iterdir())
    assert main(given.format(m=model_file, d=folder).split()) == 2
    assert message in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before
