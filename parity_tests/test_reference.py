"""One engine, one dtype: a row's result never depends, in any bit, on cuts, neighbours or layout.

And the bare `run` and `trace` are the layers' numbers, gate by gate.
"""

import os
import subprocess
import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import cases, cuttings

import refrnn
from refrnn import gates
from refrnn.activations import ACTIVATIONS
from refrnn.cases import Case
from refrnn.cells import CELLS, dot
from refrnn.verify import compare
from refrnn.verify.chunks import layer_in_chunks, layer_whole, named, pieces
from refrnn.verify.compare import same_bits

DTYPES = ("float64", "float32", "float16", "bfloat16")
NAMES = ("lstm", "gru", "gru_reset_before", "simple")


def bare(case: Case) -> tuple[str, refrnn.Weights, dict[str, Any]]:
    """The arguments of refrnn.run for `case`."""
    cell = case.build().cell.math
    options = {"activation": cell.act, "go_backwards": case.options.get("go_backwards", False)}
    if cell.name != "simple":
        options["recurrent_activation"] = cell.rec
    return cell.name, refrnn.Weights(*case.arrays().weights), options


@given(data=st.data())
def test_chunks_have_the_bits_of_the_whole(data: st.DataObject) -> None:
    case = data.draw(cases(DTYPES, max_steps=12))
    layer, arrays = case.build(), case.arrays()
    sizes = data.draw(cuttings(case.steps))
    whole = layer_whole(layer, arrays)
    assert same_bits(layer_in_chunks(layer, arrays, sizes), whole), sizes
    assert same_bits(layer_in_chunks(layer, arrays, [1]), whole)


@given(data=st.data())
def test_a_row_does_not_depend_on_the_rows_beside_it(data: st.DataObject) -> None:
    case = data.draw(cases(DTYPES))
    layer, arrays = case.build(), case.arrays()
    whole = layer_whole(layer, arrays)
    rows = data.draw(st.lists(st.integers(0, case.rows - 1), min_size=1, max_size=7))
    chosen = arrays._replace(
        x=arrays.x[rows],
        state=None if arrays.state is None else [part[rows] for part in arrays.state],
        mask=None if arrays.mask is None else arrays.mask[rows],
    )
    assert same_bits(layer_whole(layer, chosen), {n: a[rows] for n, a in whole.items()})


# From one element to beyond every blocking and buffer of NumPy (8192 elements) and of its einsum.
SIZES = (1, 2, 3, 5, 8, 16, 17, 31, 33, 64, 100, 257, 1031, 9001)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_of_one_column_is_its_own_beyond_numpy_buffer(dtype: str) -> None:
    """einsum adds up one column in pieces of 8192 elements, which rows share; `dot` must not."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 9000)).astype(dtype), rng.normal(size=(9000, 1)).astype(dtype)
    alone = np.concatenate([dot(row[None], b) for row in a])
    assert alone.tobytes() == dot(a, b).tobytes()
    in_order = np.add.accumulate(a * b[:, 0], axis=1)[:, -1:]
    assert alone.tobytes() == in_order.tobytes()


@given(data=st.data())
def test_a_product_sums_each_row_in_one_order_for_all_shapes(data: st.DataObject) -> None:
    k, n = data.draw(st.sampled_from(SIZES)), data.draw(st.sampled_from(SIZES[:-2]))
    rows = data.draw(st.sampled_from((1, 2, 3, 7, 32)))
    dtype = data.draw(st.sampled_from(DTYPES))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    a = rng.normal(size=(rows, k)).astype(dtype)
    b = rng.normal(size=(k, n)).astype(dtype)
    whole = dot(a, b)
    one_by_one = np.concatenate([dot(a[r : r + 1], b) for r in range(rows)])
    assert whole.tobytes() == one_by_one.tobytes()
    assert dot(a[None], b).tobytes() == whole.tobytes()


def test_a_product_is_right() -> None:
    """Bitwise sameness would hold for a wrong product too."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(5, 33)), rng.normal(size=(33, 9))
    # sums of 33 products of size 1, each rounded to 1.1e-16: within 33 * 6 * 1.1e-16
    np.testing.assert_allclose(dot(a, b), a @ b, rtol=0, atol=3e-14)
    for dtype, half_spacing in (("float16", 2.0**-11), ("bfloat16", 2.0**-8)):
        x, w = a.astype(dtype), b.astype(dtype)
        exact = x.astype(float) @ w.astype(float)
        got = dot(x, w)
        assert got.dtype == x.dtype
        # rounded once: half a spacing of the result, and the float32 sum's own error
        assert np.all(np.abs(got.astype(float) - exact) <= half_spacing * np.abs(exact) + 1e-5)


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "every other element": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "negative strides": lambda a: np.flip(np.ascontiguousarray(np.flip(a))),
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "lists": lambda a: a.tolist(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_the_layout_of_an_array_in_memory_changes_no_bit(name: str, layout: str) -> None:
    case = Case("LSTM" if name == "lstm" else "SimpleRNN" if name == "simple" else "GRU", rows=4)
    if name == "gru_reset_before":
        case = Case("GRU", rows=4, options={"reset_after": False})
    arrays = case.arrays()
    change = LAYOUTS[layout]
    weights = [change(array) for array in arrays.weights]
    want = refrnn.run(name, arrays.weights, arrays.x, arrays.state)
    got = refrnn.run(name, weights, change(arrays.x), [change(part) for part in arrays.state])
    assert same_bits(named([got[0], *got[1]]), named([want[0], *want[1]]))


SCRIPT = """
import hashlib, refrnn.verify as v
from refrnn.verify.chunks import layer_whole, layer_in_chunks, random_sizes
from refrnn.verify.compare import same_bits
h = hashlib.sha256()
for case in v.FAMILY:
    layer, arrays = case.build(), case.arrays()
    whole = layer_whole(layer, arrays)
    sizes = random_sizes(case.steps, 1)
    assert same_bits(layer_in_chunks(layer, arrays, sizes), whole), case
    h.update(b"".join(whole[name].tobytes() for name in sorted(whole)))
print(h.hexdigest())
"""


def run_family(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_neither_the_run_nor_the_number_of_threads_changes_a_bit() -> None:
    one = run_family(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    two = run_family(OPENBLAS_NUM_THREADS="2", OMP_NUM_THREADS="2", MKL_NUM_THREADS="2")
    assert one == two


def test_chunks_equal_the_whole_without_the_newest_vector_instructions() -> None:
    """NumPy's exp and tanh are other code on an older processor; the promise holds there too."""
    found = np.show_config(mode="dicts")["SIMD Extensions"]["found"]  # type: ignore[index]
    assert run_family(NPY_DISABLE_CPU_FEATURES=" ".join(found))


@given(case=cases(DTYPES))
def test_run_is_the_layer(case: Case) -> None:
    name, weights, options = bare(case)
    arrays = case.arrays()
    zero = case.options.get("zero_output_for_mask", False)
    ys, state = refrnn.run(
        name,
        weights,
        arrays.x,
        arrays.state,
        mask=arrays.mask,
        zero_output_for_mask=zero,
        **options,
    )
    assert same_bits(named([ys, *state]), layer_whole(case.build(), arrays))


@given(case=cases())
def test_a_trace_satisfies_the_equations_and_ends_where_the_run_ends(case: Case) -> None:
    name, weights, options = bare(case)
    arrays = case.arrays()
    trace = refrnn.trace(name, weights, arrays.x, arrays.state, mask=arrays.mask, **options)
    ys, state = refrnn.run(
        name, weights, arrays.x, arrays.state, mask=arrays.mask, engine="numpy", **options
    )
    shape = (case.rows, case.steps, case.units)
    cell = case.build().cell.math
    for field in (*trace._fields[:-1], *(f"pre.{p}" for p in trace.pre._fields)):
        part = getattr(trace.pre, field[4:]) if field[:4] == "pre." else getattr(trace, field)
        assert part.shape == shape, field
    for letter in set(trace.pre._fields) - {"h"}:
        function = cell.act if letter == "g" else cell.rec
        assert np.array_equal(getattr(trace, letter), function.value(getattr(trace.pre, letter)))
    for part, last in zip(state._fields, state, strict=True):
        assert np.array_equal(getattr(trace, part)[:, -1], last)
    if arrays.mask is None:
        assert np.array_equal(trace.h, ys)


@pytest.mark.parametrize("name", NAMES)
def test_a_trace_of_no_steps_has_every_name(name: str) -> None:
    H, F = 3, 2
    weights = [np.ones(shape) for shape in CELLS[name].shapes(F, H)]
    empty = refrnn.trace(name, weights, np.zeros((4, 0, F)))
    full = refrnn.trace(name, weights, np.zeros((4, 1, F)))
    assert empty._fields == full._fields
    assert all(part.shape == (4, 0, H) for part in (*empty[:-1], *empty.pre))


@given(data=st.data())
def test_a_reset_begins_a_new_sequence(data: st.DataObject) -> None:
    """Steps from a reset on are those of a run that starts there; earlier ones are untouched."""
    case = data.draw(cases(max_steps=9))
    name, weights, options = bare(case)
    arrays = case.arrays()
    at = data.draw(st.integers(0, case.steps - 1))
    row = data.draw(st.integers(0, case.rows - 1))
    reset = np.zeros((case.rows, case.steps), bool)
    reset[row, at] = True
    given_mask = {"mask": arrays.mask}
    ys, state = refrnn.run(
        name, weights, arrays.x, arrays.state, reset=reset, **given_mask, **options
    )
    plain, plain_state = refrnn.run(name, weights, arrays.x, arrays.state, **given_mask, **options)
    others = [b for b in range(case.rows) if b != row]
    assert np.array_equal(ys[others], plain[others])
    assert all(
        np.array_equal(a[others], b[others]) for a, b in zip(state, plain_state, strict=True)
    )

    back = options["go_backwards"]
    rest = slice(0, at + 1) if back else slice(at, case.steps)
    mask = None if arrays.mask is None else arrays.mask[row : row + 1, rest]
    fresh, fresh_state = refrnn.run(
        name, weights, arrays.x[row : row + 1, rest], mask=mask, **options
    )
    length = fresh.shape[1]
    assert np.array_equal(ys[row, case.steps - length :], fresh[0])
    assert np.array_equal(ys[row, : case.steps - length], plain[row, : case.steps - length])
    assert all(np.array_equal(a[row], b[0]) for a, b in zip(state, fresh_state, strict=True))


@given(data=st.data())
def test_a_masked_step_is_as_if_it_were_not_there(data: st.DataObject) -> None:
    case = data.draw(cases(max_steps=9))
    name, weights, options = bare(case)
    arrays = case.arrays()
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=case.steps, max_size=case.steps)))
    mask = np.broadcast_to(keep, (case.rows, case.steps))
    _, state = refrnn.run(name, weights, arrays.x, arrays.state, mask=mask, **options)
    ys, want = refrnn.run(name, weights, arrays.x[:, keep], arrays.state, **options)
    assert all(np.array_equal(a, b) for a, b in zip(state, want, strict=True))
    masked, _ = refrnn.run(name, weights, arrays.x, arrays.state, mask=mask, **options)
    order = keep[::-1] if options["go_backwards"] else keep
    assert np.array_equal(masked[:, order], ys)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "spacing"), [("float16", 2.0**-10), ("bfloat16", 2.0**-7)])
def test_half_precision_follows_float64_within_its_own_rounding(
    name: str, dtype: str, spacing: float
) -> None:
    """Gates and states are about 1 in size and a step rounds about ten times: ten spacings."""
    layer = {"lstm": "LSTM", "simple": "SimpleRNN"}.get(name, "GRU")
    options = {"reset_after": False} if name == "gru_reset_before" else {}
    case = Case(layer, dtype=dtype, steps=4, scale=0.7, options=options)
    arrays = case.arrays()
    ys, state = refrnn.run(name, arrays.weights, arrays.x, arrays.state)
    wide = [np.asarray(w, np.float64) for w in arrays.weights]
    start = [np.asarray(part, np.float64) for part in arrays.state]
    want, _ = refrnn.run(name, wide, arrays.x.astype(np.float64), start)
    assert ys.dtype == np.dtype(getattr(ml_dtypes, dtype, dtype))
    assert all(part.dtype == ys.dtype for part in state)
    error = np.abs(ys.astype(np.float64) - want).max()
    assert spacing / 100 < error < 10 * spacing


@pytest.mark.parametrize("name", NAMES)
def test_infinities_and_nan_stay_in_their_row_and_after_their_step(name: str) -> None:
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape) for shape in CELLS[name].shapes(2, 3)]
    x = rng.normal(size=(3, 5, 2))
    clean, _ = refrnn.run(name, weights, x)
    x[1, 2, 0] = np.nan
    x[2, 3, 1] = np.inf
    ys, _ = refrnn.run(name, weights, x)
    assert np.array_equal(ys[0], clean[0])
    assert np.array_equal(ys[1, :2], clean[1, :2])
    assert np.isnan(ys[1, 2:]).all()
    mask = np.ones((3, 5), bool)
    mask[1, 2] = False  # a masked NaN is never seen
    ys, _ = refrnn.run(name, weights, x, mask=mask)
    assert np.isfinite(ys[1]).all()


def test_the_equations_are_those_of_the_literature() -> None:
    """Each gate by hand for one unit, with numbers that no two terms share."""
    act, rec = ACTIVATIONS["tanh"].value, ACTIVATIONS["sigmoid"].value
    a = [np.array([[v]]) for v in (0.3, -0.7, 1.1, 0.2, 0.9, -0.4, 0.6)]
    i, f, g, o, c = (v.item() for v in a[:5])

    def s(v: float) -> float:
        return 1 / (1 + np.exp(-v))

    q = gates.lstm(gates.LSTMPre(*a[:4]), a[4], act, rec)
    new_c = s(f) * c + s(i) * np.tanh(g)
    assert q.c.item() == pytest.approx(new_c, rel=1e-15)  # a few roundings of 1.1e-16
    assert q.h.item() == pytest.approx(s(o) * np.tanh(new_c), rel=1e-15)

    x, u, h = gates.GRUPre(*a[:3]), gates.GRUPre(*a[3:6]), a[6]
    z, r = s(0.3 + 0.2), s(-0.7 + 0.9)
    want = z * 0.6 + (1 - z) * np.tanh(1.1 + r * -0.4)
    assert gates.gru(x, u, h, act, rec).h.item() == pytest.approx(want, rel=1e-15)
    want = z * 0.6 + (1 - z) * np.tanh(1.1 + 5 * (r * 0.6))
    q = gates.gru_reset_before(x, a[3], a[4], lambda rh: 5 * rh, h, act, rec)
    assert q.h.item() == pytest.approx(want, rel=1e-15)


def test_chunk_lengths_of_zero_change_nothing() -> None:
    case = Case("GRU", mask="holes")
    layer, arrays = case.build(), case.arrays()
    assert list(pieces(3, [0, 2, 0, 1])) == [
        slice(0, 0),
        slice(0, 2),
        slice(2, 2),
        slice(2, 3),
    ]
    assert same_bits(layer_in_chunks(layer, arrays, [0, 3, 0, 4]), layer_whole(layer, arrays))


def test_no_bias_is_a_bias_of_zeros() -> None:
    case = Case("GRU", options={"use_bias": False})
    arrays = case.arrays()
    kernel, recurrent = arrays.weights
    without, _ = refrnn.run("gru", refrnn.Weights(kernel, recurrent), arrays.x)
    zeros = refrnn.Weights(kernel, recurrent, np.zeros((2, 12)))
    compare({"y": without}, {"y": refrnn.run("gru", zeros, arrays.x)[0]}, 0, "no bias")
