"""The compiled engine gives the reference's numbers, and a row's bits depend on that row alone.

Everything is compared with one step of one row at a time, which a kernel cannot do in two orders:
chunks, neighbours, threads, sums made ahead and tiles of any shape must give the same bits. How
good the numbers of one step are is then judged against a wider format, by a bound derived here.
"""

import os
import platform
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llvmlite import binding, ir
from strategies import cuttings

from refrnn import kernels, reference
from refrnn.activations import ACTIVATIONS
from refrnn.cells import CELLS, Cell, Weights, dropped
from refrnn.gates import SimpleGates, SimplePre
from refrnn.kernels import engine, host, tiles, vectors

NAMES = tuple(CELLS)
DTYPES = ("float32", "float64")
WIDER = {"float32": np.float64, "float64": np.longdouble}
Run = tuple[Any, Any]  # what `run` returns


def draw(
    name: str, dtype: str, rows: int, steps: int, features: int, units: int, seed: int = 0
) -> tuple[Cell, Weights, Any, Any]:
    """A cell, weights that keep it lively, an input and a state; all different, none zero."""
    rng = np.random.default_rng(seed)
    cell = CELLS[name]
    scale = 1 / np.sqrt(features + units + 1)
    weights = Weights(
        *(rng.normal(size=s, scale=scale).astype(dtype) for s in cell.shapes(features, units))
    )
    xs = rng.normal(size=(rows, steps, features)).astype(dtype)
    state = cell.State(*(rng.normal(size=(rows, units)).astype(dtype) for _ in cell.State._fields))
    return cell, weights, xs, state


def bits(run: Run) -> list[bytes]:
    ys, state = run
    return [ys.tobytes(), *(part.tobytes() for part in state)]


def one_by_one(packed: kernels.Packed, xs: Any, state: Any) -> Run:
    """Each row on its own, a step a call."""
    ys = np.empty((*xs.shape[:2], packed.units), xs.dtype)
    after = [np.empty_like(part) for part in state]
    for row in range(len(xs)):
        stepper = packed.stepper(type(state)(*(part[row : row + 1] for part in state)))
        for t in range(xs.shape[1]):
            ys[row, t] = stepper.step(xs[row : row + 1, t])[0]
        for part, end in zip(after, stepper.state, strict=True):
            part[row] = end[0]
    return ys, type(state)(*after)


# --- one result -----------------------------------------------------------------------------------

# Around the edges of tiles (1 to 6 rows, 1, 2 or 4 blocks) and of vectors (2 to 16 lanes).
ROWS = st.one_of(st.integers(1, 14), st.sampled_from((17, 24, 25)))
UNITS = st.one_of(st.integers(1, 35), st.sampled_from((47, 48, 63, 64, 65, 79, 80, 100, 128, 129)))
SHAPES = st.tuples(ROWS, st.integers(1, 20), st.integers(0, 9), UNITS)


@given(
    shape=SHAPES,
    name=st.sampled_from(NAMES),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
    threads=st.integers(1, 4),
    data=st.data(),
)
def test_every_way_to_run_a_row_gives_the_same_bits(
    shape: tuple[int, int, int, int],
    name: str,
    dtype: str,
    seed: int,
    threads: int,
    data: st.DataObject,
) -> None:
    cell, weights, xs, state = draw(name, dtype, *shape, seed=seed)
    packed = kernels.pack(cell, weights)
    want = bits(one_by_one(packed, xs, state))
    assert bits(packed.run(xs, state, threads=1)) == want
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "WORK", 1)  # even the smallest run is shared out
        assert bits(packed.run(xs, state, threads=threads)) == want
    chunks, at = [], 0
    carried = state
    for length in data.draw(cuttings(shape[1])):
        ys, carried = packed.run(xs[:, at : at + length], carried, threads=1)
        chunks.append(ys)
        at += length
    assert bits((np.concatenate(chunks, axis=1), carried)) == want
    chosen = data.draw(st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=9))
    some = packed.run(xs[chosen], type(state)(*(part[chosen] for part in state)), threads=1)
    whole = packed.run(xs, state, threads=1)
    assert bits(some) == bits((whole[0][chosen], type(state)(*(p[chosen] for p in whole[1]))))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_thousands_of_shapes_give_the_bits_of_a_row_on_its_own(name: str, dtype: str) -> None:
    """Every number of units over eight vectors and more, times every number of rows to 13."""
    for units in (*range(1, 73), 96, 97, 127, 128, 129):
        cell, weights, xs, state = draw(name, dtype, 13, 3, units % 5, units, seed=units)
        packed = kernels.pack(cell, weights)
        ys, after = one_by_one(packed, xs, state)
        for rows in range(1, 14):
            some = type(state)(*(part[:rows] for part in state))
            got = packed.run(xs[:rows], some)
            want = ys[:rows], type(state)(*(part[:rows] for part in after))
            assert bits(got) == bits(want), (units, rows)


@pytest.mark.parametrize("rows", [1, 2, 6, 7])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_made_ahead_have_the_same_bits(
    dtype: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, weights, xs, state = draw("lstm", dtype, rows, 37, 11, 21)
    packed = kernels.pack(cell, weights)
    found = set()
    for few, ahead in ((0, 0), (9, 1), (9, 7), (9, 16), (9, 99)):
        monkeypatch.setattr(engine, "FEW", few)
        monkeypatch.setattr(engine, "STEPS_AHEAD", ahead)
        found.add(tuple(bits(packed.run(xs, state))))
    assert len(found) == 1


@pytest.mark.parametrize("threads", [1, 2, 5, 50])
def test_a_stepper_s_rows_may_be_shared_out_too(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, weights, xs, state = draw("lstm", "float32", 13, 5, 3, 20)
    packed = kernels.pack(cell, weights)
    want = packed.run(xs, state, threads=1)
    monkeypatch.setattr(engine, "WORK", 1)
    stepper = packed.stepper(state, threads=threads)
    assert len(stepper._plans) == min(threads, 13)
    ys = np.stack([stepper.step(xs[:, t]) for t in range(5)], axis=1)
    assert bits((ys, stepper.state)) == bits(want)


# --- the step rule --------------------------------------------------------------------------------


def on_kernels(cell: Cell, packed: kernels.Packed) -> Cell:
    """The cell with its step computed by the kernels, for the loop of the reference."""

    def step(row: Cell, weights: Weights, state: Any, x: Any) -> tuple[Any, Any]:
        stepper = packed.stepper(state)
        h = stepper.step(x)
        return stepper.state, SimpleGates(h, SimplePre(h))

    return cell._replace(step=step)


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 4), st.integers(1, 20)),
    name=st.sampled_from(NAMES),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
    threads=st.integers(1, 3),
    flags=st.tuples(*[st.booleans()] * 5),
)
def test_masks_resets_and_direction_follow_the_rule_of_the_reference(
    shape: tuple[int, int, int, int],
    name: str,
    dtype: str,
    seed: int,
    threads: int,
    flags: tuple[bool, bool, bool, bool, bool],
) -> None:
    cell, weights, xs, state = draw(name, dtype, *shape, seed=seed)
    rng = np.random.default_rng(seed)
    masked, reset, backwards, zero_output, last = flags
    options = {
        "mask": rng.random(shape[:2]) < 0.6 if masked else None,
        "reset": rng.random(shape[:2]) < 0.3 if reset else None,
        "go_backwards": backwards,
        "zero_output_for_mask": zero_output,
        "last_output": rng.normal(size=(shape[0], shape[3])).astype(dtype) if last else None,
    }
    packed = kernels.pack(cell, weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "WORK", 1)
        got = packed.run(xs, state, **options, threads=threads)
    want = reference.run(on_kernels(cell, packed), weights, xs, state, **options)
    assert bits(got) == bits(want)
    assert type(got[1]) is cell.State


# --- the numbers ----------------------------------------------------------------------------------


def step_bound(name: str, weights: Weights, x: Any, state: Any, u: float) -> float:
    """How far a state may be after one step, in the worst case of every rounding.

    u  half a spacing of 1, the largest relative error of one rounding

    A sum of n products is off by at most n u times the sum of their magnitudes. The cell passes
    that on with at most its derivatives, where tanh' <= 1 and sigmoid' <= 1/4, and adds the
    roundings of its own: under 20 of them, of numbers no larger than 1 + |h| + |c|.
    """
    W, U, b = (np.abs(w.astype(np.float64)) for w in weights)
    x, *parts = (np.abs(a.astype(np.float64)) for a in (x, *state))
    h, size = parts[0], 1 + sum(float(np.max(part)) for part in parts)
    sums = x @ W + h @ U + np.sum(np.atleast_2d(b), axis=0)
    of_sums = (len(W) + len(U) + 4) * u * float(np.max(sums))
    candidate = float(np.max((h @ U + np.atleast_2d(b)[-1])[:, -len(U) :]))
    slope = {
        "simple": 1,
        "lstm": size / 4 + 1 / 4 + 1 + 1 / 4,  # through f, i, g and o
        "gru": size / 4 + 1 + candidate / 4,  # through z, g and r
        "gru_reset_before": size / 4 + 1 + candidate / 4,
    }
    return slope[name] * of_sums + 20 * u * size


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("features", "units"), [(3, 32), (1, 7), (64, 129), (0, 5), (200, 50)])
def test_a_step_is_within_its_derived_bound(
    name: str, dtype: str, features: int, units: int
) -> None:
    cell, weights, xs, state = draw(name, dtype, 40, 1, features, units)
    exact = in_wider(cell, weights, xs, state)
    got = kernels.run(cell, weights, xs, state)
    bound = step_bound(name, weights, xs[:, 0], state, float(np.finfo(dtype).eps) / 2)
    assert bound < 1e-3  # a wrong convention is off by 1e-1
    for found, true in zip(got[1], exact[1], strict=True):
        assert np.max(np.abs(found - true)) < bound


def in_wider(cell: Cell, weights: Weights, xs: Any, state: Any) -> Run:
    """The run of the reference in a format with more digits."""
    wide = WIDER[xs.dtype.name]
    parts = cell.State(*(part.astype(wide) for part in state))
    return reference.run(cell, Weights(*(w.astype(wide) for w in weights)), xs.astype(wide), parts)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_long_runs_are_as_exact_as_those_of_the_readable_engine(name: str, dtype: str) -> None:
    """Root mean square errors: the kernels round less often (FMA), so 1.3 leaves room for luck."""
    cell, weights, xs, state = draw(name, dtype, 16, 60, 24, 48)
    exact, _ = in_wider(cell, weights, xs, state)

    def error(run: Run) -> float:
        return float(np.sqrt(np.mean((run[0] - exact) ** 2)))

    of_kernels, of_numpy = (
        error(engine.run(cell, weights, xs, state)) for engine in (kernels, reference)
    )
    assert of_kernels < 1.3 * of_numpy


def kernel_tanh(x: Any) -> Any:
    """tanh of each number: a SimpleRNN with a weight of one and a state of zero."""
    one = np.ones((1, 1), x.dtype)
    zeros = CELLS["simple"].zeros(len(x), 1, x.dtype)
    weights = Weights(one, 0 * one)
    return kernels.run(CELLS["simple"], weights, x[:, None, None], zeros)[0][:, 0, 0]


def kernel_sigmoid(x: Any) -> Any:
    """sigmoid of each number, by an LSTM with i = 0, f = 1, c = 100: so h = o tanh(100) = o.

    An infinity would be NaN in the other gates: those go in as biases, a unit for each.
    """
    cell, units = CELLS["lstm"], len(x)
    if np.isfinite(x).all():
        kernel = np.array([[0, 0, 0, 1]], x.dtype)
        bias = np.array([-np.inf, np.inf, 0, 0], x.dtype)
        state = cell.State(np.zeros((units, 1), x.dtype), np.full((units, 1), 100, x.dtype))
        weights = Weights(kernel, 0 * kernel, bias)
        return kernels.run(cell, weights, x[:, None, None], state)[0][:, 0, 0]
    infinite = np.full(units, np.inf, x.dtype)
    bias = np.concatenate([-infinite, infinite, np.zeros_like(x), x])
    state = cell.State(np.zeros((1, units), x.dtype), np.full((1, units), 100, x.dtype))
    weights = Weights(
        np.zeros((0, 4 * units), x.dtype), np.zeros((units, 4 * units), x.dtype), bias
    )
    return kernels.run(cell, weights, np.zeros((1, 1, 0), x.dtype), state)[0][0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_tanh_and_sigmoid_are_within_two_spacings(dtype: str) -> None:
    """benchmarks/ulp.py does all of float32; here a sample, of the tails and tiny numbers too."""
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [
            rng.normal(size=30_000) * 3,
            rng.uniform(-120, 20, 20_000),
            rng.choice([-1, 1], 20_000) * 2.0 ** rng.uniform(-40, 7, 20_000),
            [-3.4651163, 4.500235, 0.12556283],  # where simpler formulas are off by more
        ]
    ).astype(dtype)
    wide = x.astype(WIDER[dtype])
    exact = {
        "tanh": (kernel_tanh(x), np.tanh(wide)),
        "sigmoid": (kernel_sigmoid(x), np.exp(np.minimum(wide, 0)) / (1 + np.exp(-np.abs(wide)))),
    }
    for name, (got, true) in exact.items():
        _, exponent = np.frexp(true)
        spacing = np.ldexp(true.dtype.type(1), exponent - 1 - np.finfo(dtype).nmant)
        spacing = np.maximum(spacing, np.finfo(dtype).smallest_subnormal)
        own = 0 if np.finfo(wide.dtype).nmant > np.finfo(dtype).nmant else 1  # no wider format here
        assert np.max(np.abs(got - true) / spacing) <= 2 + own, name


@pytest.mark.parametrize("dtype", DTYPES)
def test_limits_infinities_and_nan_are_those_of_numpy(dtype: str) -> None:
    big, tiny = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    x = np.array([0, np.inf, -np.inf, np.nan, big, -big, tiny, -tiny, 50, -50, -2000], dtype)
    np.testing.assert_array_equal(kernel_tanh(x), np.tanh(x))
    got, want = kernel_sigmoid(x), ACTIVATIONS["sigmoid"].value(x)
    np.testing.assert_allclose(got, want, rtol=3 * float(np.finfo(dtype).eps), atol=0)
    assert got.tolist()[:3] == [0.5, 1, 0]
    assert np.isnan(got[3])
    assert got[10] == 0


@pytest.mark.parametrize("name", NAMES)
def test_nan_and_infinity_go_where_the_reference_has_them_and_stay_in_their_row(name: str) -> None:
    cell, weights, xs, state = draw(name, "float32", 9, 6, 3, 20)
    clean, _ = kernels.run(cell, weights, xs, state)
    xs[2, 3, 1], xs[5, 0, 0], xs[7, 2, 2] = np.nan, np.inf, -np.inf
    got, after = kernels.run(cell, weights, xs, state)
    want, end = reference.run(cell, weights, xs, state)
    for a, b in zip([got, *after], [want, *end], strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
        np.testing.assert_array_equal(np.isinf(a), np.isinf(b))
    assert np.isnan(got[2, 3:]).all()
    others = [0, 1, 3, 4, 6, 8]
    assert got[others].tobytes() == clean[others].tobytes()


# --- shapes and arrays ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 3, 2, 4), (3, 0, 2, 4), (2, 3, 0, 4), (0, 0, 0, 1)])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_do_is_done(name: str, shape: tuple[int, int, int, int]) -> None:
    cell, weights, xs, state = draw(name, "float32", *shape)
    ys, after = kernels.run(cell, weights, xs, state)
    want, end = reference.run(cell, weights, xs, state)
    assert ys.shape == want.shape
    np.testing.assert_allclose(ys, want, atol=1e-6)
    for a, b in zip(after, end, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def unusual(xs: Any) -> dict[str, Any]:
    """The same input, lying in memory in other ways."""
    rows, steps, features = xs.shape
    wide = np.zeros((rows, 2 * steps, features + 3), xs.dtype)
    wide[:, ::2, 1:-2] = xs
    bytes_ = np.zeros(xs.nbytes + 1, np.uint8)
    shifted = bytes_[1:].view(xs.dtype).reshape(xs.shape)
    shifted[...] = xs
    read_only = xs.copy()
    read_only.flags.writeable = False
    return {
        "a slice of a larger array": wide[:, ::2, 1:-2],
        "time backwards twice": np.ascontiguousarray(xs[:, ::-1])[:, ::-1],
        "features backwards twice": np.ascontiguousarray(xs[:, :, ::-1])[:, :, ::-1],
        "Fortran order": np.asfortranarray(xs),
        "time first": np.ascontiguousarray(xs.transpose(1, 0, 2)).transpose(1, 0, 2),
        "not aligned": shifted,
        "read-only": read_only,
        "of the other byte order": xs.astype(xs.dtype.newbyteorder()),
    }


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("features", [1, 5])
def test_how_arrays_lie_in_memory_does_not_matter(features: int, backwards: bool) -> None:
    cell, weights, xs, state = draw("lstm", "float32", 3, 4, features, 18)
    packed = kernels.pack(cell, weights)
    want = packed.run(xs, state, go_backwards=backwards)
    for what, same in unusual(xs).items():
        assert bits(packed.run(same, state, go_backwards=backwards)) == bits(want), what
        assert packed.stepper(state).step(same[:, 0]).tobytes() == want[0][:, 0].tobytes() or (
            backwards
        ), what
    for array in (*weights, *state):
        array.flags.writeable = False
    assert bits(kernels.run(cell, weights, xs, state, go_backwards=backwards)) == bits(want)
    strided = Weights(*(np.asfortranarray(w) for w in weights))
    assert bits(kernels.run(cell, strided, xs, state, go_backwards=backwards)) == bits(want)
    one_row = np.broadcast_to(xs[:1], xs.shape)
    state = cell.State(*(np.broadcast_to(p[:1], p.shape) for p in state))
    for row in packed.run(one_row, state, go_backwards=backwards)[0]:
        assert row.tobytes() == want[0][0].tobytes()


def test_a_run_changes_none_of_its_arguments_and_shares_nothing_with_them() -> None:
    cell, weights, xs, state = draw("lstm", "float32", 3, 4, 2, 5)
    mask = np.array([[True, True, False, True]] * 3)
    last = np.ones((3, 5), np.float32)
    before = [a.tobytes() for a in (*weights, xs, *state, mask, last)]
    for steps in (0, 4):
        ys, after = kernels.run(
            cell, weights, xs[:, :steps], state, mask=mask[:, :steps], last_output=last
        )
        for part in (ys, *after):
            part[...] = 7
    assert [a.tobytes() for a in (*weights, xs, *state, mask, last)] == before


def test_no_bias_is_a_bias_of_zeros() -> None:
    for name in NAMES:
        cell, weights, xs, state = draw(name, "float32", 2, 3, 4, 5)
        zeros = weights._replace(bias=np.zeros_like(weights.bias))
        without = weights._replace(bias=None)
        assert bits(kernels.run(cell, without, xs, state)) == bits(
            kernels.run(cell, zeros, xs, state)
        )


def test_packed_weights_are_a_copy() -> None:
    cell, weights, xs, state = draw("gru", "float32", 2, 3, 4, 5)
    packed = kernels.pack(cell, weights)
    want = bits(packed.run(xs, state))
    for array in weights:
        array[...] = 0
    assert bits(packed.run(xs, state)) == want
    with pytest.raises(TypeError, match="cannot be pickled"):
        packed.__reduce__()


def test_a_stepper_shows_and_takes_its_state_and_writes_where_it_is_told() -> None:
    cell, weights, xs, state = draw("lstm", "float32", 3, 6, 4, 21)
    packed = kernels.pack(cell, weights)
    stepper = packed.stepper(state)
    out = np.empty((3, 21), np.float32)
    assert stepper.step(xs[:, 0], out) is out
    want, _ = packed.run(xs, state)
    assert out.tobytes() == want[:, 0].tobytes()
    saved = [part.copy() for part in stepper.state]
    stepper.step(xs[:, 1])
    for part, value in zip(stepper.state, saved, strict=True):
        part[...] = value
    assert stepper.step(xs[:, 1]).tobytes() == want[:, 1].tobytes()
    for wrong in (np.empty((3, 20), np.float32), np.empty((3, 21)), np.empty((21, 3), "f4").T):
        with pytest.raises(ValueError, match="out is float"):
            stepper.step(xs[:, 1], wrong)
    with pytest.raises(ValueError, match="5 features, expected 4"):
        packed.run(np.zeros((3, 2, 5), np.float32), state)
    with pytest.raises(ValueError, match="20 units, expected 21"):
        packed.run(xs, cell.zeros(3, 20, "float32"))
    with pytest.raises(TypeError, match="cannot be copied"):
        stepper.__reduce__()


# --- what is supported, and what happens elsewhere ------------------------------------------------


def test_only_the_cells_of_the_table_have_kernels() -> None:
    for cell in CELLS.values():
        assert kernels.supports(cell, "float32")
        assert kernels.supports(cell, np.float64)
        assert not kernels.supports(cell, "float16")
        assert not kernels.supports(cell, np.longdouble)
        assert not kernels.supports(cell._replace(act=ACTIVATIONS["relu"]), "float32")
        assert not kernels.supports(cell._replace(rec=ACTIVATIONS["hard_sigmoid"]), "float32")
        masks = [np.ones((1, 2))]
        assert not kernels.supports(cell._replace(x_product=dropped(masks)), "float32")
    cell, weights, _, _ = draw("lstm", "float32", 1, 1, 2, 3)
    with pytest.raises(ValueError, match="lstm: there is no kernel"):
        kernels.pack(cell._replace(act=ACTIVATIONS["relu"]), weights)


def test_a_failing_compiler_is_one_documented_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise OSError("no code for this machine")

    cell, weights, _, _ = draw("lstm", "float32", 1, 1, 2, 3)
    monkeypatch.setattr("refrnn.kernels.loops.loop", fail)
    engine._compiled.cache_clear()
    try:
        with pytest.raises(kernels.CompileError, match=r"lstm.*float32.*no code for this machine"):
            kernels.pack(cell, weights)
        monkeypatch.undo()
        monkeypatch.setitem(sys.modules, "numba", None)
        with pytest.raises(kernels.CompileError, match=r"lstm.*numba"):
            kernels.pack(cell, weights)
    finally:
        engine._compiled.cache_clear()


def python(program: str, **environment: str) -> str:
    """What a program prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


DIGEST = """
import hashlib, numpy as np
from refrnn import kernels
from refrnn.cells import CELLS, Weights
rng = np.random.default_rng(0)
digest = hashlib.sha256()
cell = CELLS["lstm"]
weights = Weights(*(rng.normal(size=s).astype("f4") / 5 for s in cell.shapes(3, 37)))
packed = kernels.pack(cell, weights)
for rows in (1, 2, 5, 13):
    xs = rng.normal(size=(rows, 9, 3)).astype("f4")
    ys, state = packed.run(xs, cell.zeros(rows, 37, "f4"))
    digest.update(ys.tobytes() + state.c.tobytes())
print(digest.hexdigest(), packed._lanes)
"""


def test_importing_the_kernels_loads_no_compiler() -> None:
    python("import sys, refrnn.kernels; assert not {'numba', 'llvmlite'} & set(sys.modules)")


def test_a_second_process_compiles_nothing(tmp_path: Any) -> None:
    cache = {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_DEBUG_CACHE": "1"}
    first, second = python(DIGEST, **cache), python(DIGEST, **cache)
    assert first.count("data saved to") == 1
    assert "data saved to" not in second
    assert second.count("data loaded from") == 1
    assert first.splitlines()[-1] == second.splitlines()[-1]


def test_without_a_folder_to_cache_in_it_compiles_each_time() -> None:
    assert python(DIGEST, NUMBA_CACHE_DIR=os.devnull, HOME=os.devnull) == python(DIGEST)


X86 = platform.machine() in ("x86_64", "AMD64")


@pytest.mark.skipif(not X86, reason="narrows the features of an x86 CPU")
def test_a_cpu_with_narrower_vectors_gives_the_same_bits() -> None:
    """Any CPU with fused multiply-add: the one that runs this, and as if it had AVX2 only."""
    here = python(DIGEST).split()
    if int(here[1]) < 8:
        pytest.skip("this CPU has no AVX2")
    features = "+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+avx,+avx2,+fma"
    avx2 = python(DIGEST, NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES=features).split()
    assert avx2 == [here[0], "8"]


@pytest.mark.skipif(not X86, reason="narrows the features of an x86 CPU")
def test_a_cpu_without_fused_multiply_add_keeps_its_promises() -> None:
    """There sums round twice a product, so bits are others; they still depend on the row alone."""
    program = """
import numpy as np
from refrnn import kernels, reference
from refrnn.cells import CELLS, Weights
rng = np.random.default_rng(0)
cell = CELLS["lstm"]
weights = Weights(*(rng.normal(size=s).astype("f4") / 5 for s in cell.shapes(3, 19)))
packed = kernels.pack(cell, weights)
xs, state = rng.normal(size=(7, 5, 3)).astype("f4"), cell.zeros(7, 19, "f4")
ys, after = packed.run(xs, state)
want, _ = reference.run(cell, weights, xs, state)
assert np.max(np.abs(ys - want)) < 1e-6, np.max(np.abs(ys - want))
for row in range(7):
    alone, _ = packed.run(xs[row : row + 1], cell.zeros(1, 19, "f4"))
    assert alone.tobytes() == ys[row].tobytes()
print(packed._lanes)
"""
    found = python(program, NUMBA_CPU_NAME="nehalem", NUMBA_CPU_FEATURES="+sse2,+sse4.2")
    assert int(found) == 4


def test_lanes_follow_the_features_of_the_cpu() -> None:
    linux = "x86_64-unknown-linux-gnu"
    known = {
        (linux, "+avx512f,+avx512dq,+avx2,+fma"): (64, 32, True),
        (linux, "+avx512f,-avx512dq,+avx2,+fma"): (32, 16, True),
        (linux, "+avx,+avx2,+fma,-avx512f"): (32, 16, True),
        (linux, "+avx,-avx2,-fma"): (16, 16, False),
        (linux, ""): (16, 16, False),
        ("arm64-apple-darwin22.4.0", "+neon"): (16, 32, True),
        ("aarch64-unknown-linux-gnu", ""): (16, 32, True),
        ("riscv64-unknown-linux-gnu", "+v"): (16, 16, False),
    }
    for (triple, features), expected in known.items():
        assert host.machine(triple, features) == expected, (triple, features)
    assert host.Machine(64, 32, True).lanes(4) == 16


OTHER_CPUS = {
    "AVX-512": ("x86_64-unknown-linux-gnu", "skylake-avx512", "+avx512f,+avx512dq,+avx2,+fma"),
    "AVX2": ("x86_64-unknown-linux-gnu", "haswell", "+avx2,+fma"),
    "SSE": ("x86_64-unknown-linux-gnu", "x86-64", "+sse2"),
    "NEON": ("aarch64-unknown-linux-gnu", "cortex-a72", "+neon"),
}


@pytest.mark.parametrize("cpu", OTHER_CPUS)
@pytest.mark.parametrize("double", [False, True])
def test_the_code_for_other_cpus_fuses_as_told_and_calls_nothing_outside(
    cpu: str, double: bool
) -> None:
    """A multiply-add or a masked store that a CPU lacks would be a call of the C library: slow."""
    triple, name, features = OTHER_CPUS[cpu]
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    try:
        target = binding.Target.from_triple(triple)
    except RuntimeError:
        pytest.skip(f"this LLVM has no code generator for {triple}")
    made_for = host.machine(triple, features)
    size = 8 if double else 4
    form = (vectors.float64 if double else vectors.float32)(made_for.lanes(size), made_for.fma)
    module = ir.Module()
    module.triple = triple
    tiles.tiles(module, form, "lstm", made_for.registers).linkage = "external"
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    machine = target.create_target_machine(name, features, opt=1, codemodel="default")
    code = machine.emit_assembly(parsed)
    called = set(re.findall(r"\b(?:callq?|bl)\s+(\S+)", code))
    assert called, "no call found: has the syntax of calls changed?"
    assert all(c.startswith("refrnn_") for c in called), called
    # LLVM has fused what it was told to fuse, nothing else and nothing less
    fused = re.findall(r"\t(?:vfn?m(?:add|sub)\d+p[sd]|fml[as])\b", code)
    assert len(fused) == len(re.findall(r'call .*@"llvm\.fma\.', str(module)))
    assert bool(fused) == made_for.fma


# --- the generator of tiles -----------------------------------------------------------------------


@pytest.mark.parametrize("gates", [1, 2, 3, 4])
def test_a_tile_adds_up_in_order_from_zero(gates: int) -> None:
    """Each tile of sums, run by itself, against one number at a time in the order of k."""
    features = binding.get_host_cpu_features().flatten()
    made_for = host.machine(binding.get_process_triple(), features)
    form = vectors.float32(made_for.lanes(4), made_for.fma)
    shapes = tiles.shapes(gates, made_for.registers)
    assert (1, 1) in shapes
    assert all(r * u * gates <= made_for.registers for r, u in shapes)
    module = ir.Module()
    for r, u in shapes:
        tiles.sums_tile(module, form, gates, r, u).linkage = "external"
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=features
    )
    library = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), machine)
    library.finalize_object()
    import ctypes

    rng = np.random.default_rng(0)
    K, lanes = 23, form.lanes
    # 11 bits each: a product and its sum are exact in float64, so that float32 rounds just once
    factor = np.round(rng.normal(size=(9, K)) * 300).astype(np.float32) / 256
    for r, u in shapes:
        weight = (np.round(rng.normal(size=(u, K, gates, lanes)) * 300) / 2048).astype(np.float32)
        numbers = rng.permutation(9)[:r].astype(np.int64)
        target = np.full((r, u * gates * lanes + 3), np.nan, np.float32)
        call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 8)(
            library.get_function_address(f"refrnn_sums{gates}_{r}x{u}")
        )
        call(
            numbers.ctypes.data, factor.ctypes.data, factor.strides[0], K,
            weight.ctypes.data, weight.strides[0], target.ctypes.data, target.strides[0],
        )  # fmt: skip
        want = np.zeros((r, u, gates, lanes), np.float32)
        for k in range(K):
            product = factor[numbers, k, None, None, None].astype(np.float64) * weight[:, k]
            if not made_for.fma:
                product = product.astype(np.float32)
            want = (want + product.astype(np.float64)).astype(np.float32)
        np.testing.assert_array_equal(target[:, :-3], want.reshape(r, -1), f"{r}x{u}")
        assert np.isnan(target[:, -3:]).all()


# --- threads --------------------------------------------------------------------------------------


def test_several_python_threads_share_packed_weights() -> None:
    cell, weights, xs, state = draw("lstm", "float32", 24, 30, 8, 48)
    packed = kernels.pack(cell, weights)
    want = bits(packed.run(xs, state, threads=1))
    with ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(packed.run, xs, state, threads=1 + k % 3) for k in range(60)]
        assert all(bits(run.result()) == want for run in runs)


def test_the_first_run_of_several_threads_at_once_is_compiled_once_and_right() -> None:
    cell, weights, xs, state = draw("simple", "float64", 3, 5, 4, 17)
    want = bits(kernels.run(cell, weights, xs, state))
    engine._compiled.cache_clear()
    start = threading.Barrier(4)

    def first(k: int) -> list[bytes]:
        start.wait()
        return bits(kernels.run(cell, weights, xs, state))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(first, range(4))) == [want] * 4
    assert engine._compiled.cache_info().misses == 1


def test_a_kernel_holds_no_lock_of_python() -> None:
    cell, weights, xs, state = draw("lstm", "float32", 16, 300, 64, 128)
    packed = kernels.pack(cell, weights)
    done = threading.Event()
    turns = 0

    def work() -> None:
        for _ in range(10):
            packed.run(xs, state, threads=1)
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    while not done.is_set():
        time.sleep(0.001)
        turns += 1
    worker.join()
    assert turns > 20  # with the lock held it would get a turn after each run at most


def test_the_number_of_threads_is_an_argument_or_numba_s_variable() -> None:
    program = """
import threading, numpy as np
from refrnn import kernels
from refrnn.kernels import engine
from refrnn.cells import CELLS, Weights
engine.WORK = 1
cell = CELLS["simple"]
packed = kernels.pack(cell, Weights(*(np.zeros(s, "f4") for s in cell.shapes(2, 3))))
def threads(**options):
    packed.run(np.zeros((9, 4, 2), "f4"), cell.zeros(9, 3, "f4"), **options)
    return sum(t.name.startswith("refrnn") for t in threading.enumerate())
print(threads(threads=1), threads() > 0)
"""
    assert python(program, NUMBA_NUM_THREADS="1").split() == ["0", "False"]
    assert python(program, NUMBA_NUM_THREADS="2").split() == ["0", "True"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_runs_with_threads_of_its_own() -> None:
    program = """
import os, signal, warnings, numpy as np
from refrnn import kernels
from refrnn.kernels import engine
from refrnn.cells import CELLS, Weights
warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tested
engine.WORK = 1
rng = np.random.default_rng(0)
cell = CELLS["lstm"]
weights = Weights(*(rng.normal(size=s).astype("f4") for s in cell.shapes(2, 17)))
packed = kernels.pack(cell, weights)
xs, state = rng.normal(size=(9, 4, 2)).astype("f4"), cell.zeros(9, 17, "f4")
want, _ = packed.run(xs, state, threads=2)
child = os.fork()
if child == 0:
    signal.alarm(60)
    for threads in (1, 2, 3):
        ys, _ = packed.run(xs, state, threads=threads)
        if ys.tobytes() != want.tobytes():
            os._exit(3)
    ys, _ = kernels.pack(cell, weights).run(xs, state, threads=2)
    os._exit(0 if ys.tobytes() == want.tobytes() else 4)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
"""
    assert python(program).strip() == "0"
