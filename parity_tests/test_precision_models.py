"""A run in TF32 is a run whose products have rounded factors, bit for bit; the judge names it.

Each format is checked against another implementation of it, and a whole run against one made here,
with nothing of refrnn's but NumPy's own sums.
"""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refrnn
from refrnn import formats, kernels, verify
from refrnn.cases import Case
from refrnn.cells import CELLS
from refrnn.formats import PRODUCTS

LAYERS = {"simple": "SimpleRNN", "gru": "GRU", "gru_reset_before": "GRU", "lstm": "LSTM"}
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 2.0**-126, 2.0**-127, 2.0**-149, 2.0**-135, 3.4e38]
BITS = {"tf32": 10, "tf32 cut": 10, "bfloat16 products": 7}


def cell_case(name: str, seed: int, **options: Any) -> Case:
    more = {"reset_after": False} if name == "gru_reset_before" else {}
    return Case(LAYERS[name], dtype="float32", seed=seed, options=more, **options)


def other_rounding(a: Any, precision: str) -> Any:
    """A float32 rounded by arithmetic on its significand, in float64, where nothing is lost."""
    wide = np.asarray(a, np.float64)
    if precision == "float16 products":
        with np.errstate(over="ignore"):
            return wide.astype(np.float16).astype(np.float32)
    _, exponent = np.frexp(wide)
    exponent = np.maximum(exponent, -125)  # below, float32 has no smaller exponents
    unit = np.ldexp(1.0, exponent - 1 - BITS[precision])
    with np.errstate(invalid="ignore", over="ignore"):
        steps = (np.trunc if precision == "tf32 cut" else np.round)(wide / unit)  # half to even
        return np.where(np.isfinite(wide), steps * unit, wide).astype(np.float32)


def same(a: Any, b: Any) -> bool:
    """Equal in every bit, any NaN like any other."""
    return (
        a.dtype == b.dtype
        and np.array_equal(a, b, equal_nan=True)
        and (np.array_equal(np.signbit(a)[~np.isnan(a)], np.signbit(b)[~np.isnan(b)]))
    )


# --- formats ---


@pytest.mark.parametrize("precision", PRODUCTS)
@given(raw=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40))
def test_any_float32_is_rounded_as_by_arithmetic_on_its_significand(
    precision: str, raw: list[int]
) -> None:
    a = np.concatenate([np.array(raw, np.uint32).view(np.float32), np.array(SPECIAL, np.float32)])
    found = PRODUCTS[precision](a)
    assert same(found, other_rounding(a, precision))
    assert same(PRODUCTS[precision](found), found)  # a number of the format stays what it is
    wide = PRODUCTS[precision](a.astype(np.float64))
    assert wide.dtype == np.float64
    assert same(wide.astype(np.float32), found)


@given(raw=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40))
def test_bfloat16_and_float16_are_those_of_other_implementations(raw: list[int]) -> None:
    a = np.concatenate([np.array(raw, np.uint32).view(np.float32), np.array(SPECIAL, np.float32)])
    assert same(formats.bfloat16(a), a.astype(ml_dtypes.bfloat16).astype(np.float32))
    with np.errstate(over="ignore"):
        assert same(formats.float16(a), a.astype(np.float16).astype(np.float32))


def test_halves_go_to_even_and_what_is_cut_goes_to_zero() -> None:
    one, unit = 1.0, 2.0**-10
    a = np.array([one + unit / 2, one + 3 * unit / 2, -(one + unit / 2), one + unit * 0.999])
    assert formats.tf32(a).tolist() == [one, one + 2 * unit, -one, one + unit]
    assert formats.tf32_cut(a).tolist() == [one, one + unit, -one, one]
    just_more = np.array([one + unit / 2 + 2.0**-23])
    assert formats.tf32(just_more).tolist() == [one + unit]
    largest = np.array([np.finfo(np.float32).max])
    assert formats.tf32(largest).tolist() == formats.bfloat16(largest).tolist() == [np.inf]
    assert np.isfinite(formats.tf32_cut(largest)).all()


# --- runs ---


def emulated(name: str, arrays: Any, precision: str, act: Any = np.tanh) -> Any:
    """The cell in float32, factors rounded first, sums in the order of their terms."""
    W, U, b = (np.asarray(a, np.float32) for a in arrays.weights)
    H = len(U)

    def product(a: Any, m: Any) -> Any:
        total = np.zeros((len(a), m.shape[1]), np.float32)
        a, m = other_rounding(a, precision), other_rounding(m, precision)
        for k in range(len(m)):
            total = total + a[:, k, None] * m[k]
        return total

    def sigmoid(z: Any) -> Any:
        return CELLS["lstm"].rec.value(z)

    h, *rest = arrays.state
    c, ys = (rest[0] if rest else None), []
    for t in range(arrays.x.shape[1]):
        x = arrays.x[:, t]
        if name == "simple":
            h = act(product(x, W) + product(h, U) + b)
        elif name == "lstm":
            i, f, g, o = np.split(product(x, W) + product(h, U) + b, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * act(g)
            h = sigmoid(o) * act(c)
        elif name == "gru":
            xz, xr, xg = np.split(product(x, W) + b[0], 3, axis=1)
            hz, hr, hg = np.split(product(h, U) + b[1], 3, axis=1)
            z, r = sigmoid(xz + hz), sigmoid(xr + hr)
            h = z * h + (1 - z) * act(xg + r * hg)
        else:
            xz, xr, xg = np.split(product(x, W) + b, 3, axis=1)
            hz, hr = np.split(product(h, U[:, : 2 * H]), 2, axis=1)
            z, r = sigmoid(xz + hz), sigmoid(xr + hr)
            h = z * h + (1 - z) * act(xg + product(r * h, U[:, 2 * H :]))
        ys.append(h)
    return np.stack(ys, axis=1), (h,) if c is None else (h, c)


@pytest.mark.parametrize("name", CELLS)
@given(seed=st.integers(0, 2**16), precision=st.sampled_from(list(PRODUCTS)), data=st.data())
def test_a_run_is_that_of_another_emulation_bit_for_bit(
    name: str, seed: int, precision: str, data: st.DataObject
) -> None:
    shape = st.integers(1, 6)
    sizes = {s: data.draw(shape) for s in ("rows", "steps", "features", "units")}
    arrays = cell_case(name, seed, **sizes).arrays()
    weights = refrnn.Weights(*arrays.weights)
    y, state = refrnn.run(name, weights, arrays.x, arrays.state, precision=precision)
    want, after = emulated(name, arrays, precision)
    assert y.dtype == np.float32
    assert same(y, want)
    assert all(same(a, b) for a, b in zip(state, after, strict=True))


@pytest.mark.parametrize("name", CELLS)
@given(seed=st.integers(0, 2**16), precision=st.sampled_from(list(PRODUCTS)), data=st.data())
def test_chunks_and_rows_have_the_bits_of_the_whole(
    name: str, seed: int, precision: str, data: st.DataObject
) -> None:
    arrays = cell_case(name, seed, rows=3, steps=6, features=data.draw(st.integers(1, 40))).arrays()
    weights = refrnn.Weights(*arrays.weights)
    whole, end = refrnn.run(name, weights, arrays.x, arrays.state, precision=precision)
    cut = data.draw(st.integers(0, 6))
    first, state = refrnn.run(name, weights, arrays.x[:, :cut], arrays.state, precision=precision)
    second, state = refrnn.run(name, weights, arrays.x[:, cut:], state, precision=precision)
    assert same(np.concatenate([first, second], axis=1), whole)
    assert all(same(a, b) for a, b in zip(state, end, strict=True))
    alone, _ = refrnn.run(
        name, weights, arrays.x[1:2], [part[1:2] for part in arrays.state], precision=precision
    )
    assert same(alone, whole[1:2])


# TF32 and float16 have as many bits: factors from 6e-5 to 65504 are rounded alike.
ALIKE = {
    "tf32": {"tf32", "float16 products", "float16"},
    "tf32 cut": {"tf32 cut"},
    "float16 products": {"tf32", "float16 products", "float16"},
    "bfloat16 products": {"bfloat16 products", "bfloat16"},
}


@pytest.mark.parametrize("precision", PRODUCTS)
@pytest.mark.parametrize("name", CELLS)
def test_the_judge_names_the_arithmetic(name: str, precision: str) -> None:
    """At the bound of float32: so tight that none of other bits fits."""
    case = cell_case(name, 3, rows=3, steps=12, features=17, units=16)
    arrays = case.arrays()
    weights = refrnn.Weights(*arrays.weights)

    def candidate(x: Any, initial_state: Any = None) -> Any:
        y, state = refrnn.run(name, weights, x, initial_state, precision=precision)
        return y, *state

    layer = case.build()
    report = verify.check(candidate, layer, arrays.x, arrays.state, precision=precision)
    assert report.passed
    plain = verify.check(candidate, layer, arrays.x, arrays.state)
    assert plain.verdict == "differs"
    assert plain.margin > 100
    assert {precision} <= set(plain.fits) <= ALIKE[precision]


@pytest.mark.parametrize("name", CELLS)
def test_numbers_beyond_float16_tell_it_from_tf32(name: str) -> None:
    case = cell_case(name, 3, rows=3, steps=12, features=17, units=16)
    arrays = case.arrays()
    W, U, b = arrays.weights
    up = np.float32(2.0**20)
    layer = case.build()
    layer.set_weights([W * up, U, b])
    x = arrays.x / up
    for precision in ("tf32", "tf32 cut"):
        weights = refrnn.Weights(W * up, U, b)
        y, state = refrnn.run(name, weights, x, arrays.state, precision=precision)
        report = verify.check((y, *state), layer, x, arrays.state)
        assert report.fits[0] == precision
        assert not {"float16", "float16 products"} & set(report.fits)
        plain = refrnn.run(name, arrays.weights, arrays.x, arrays.state, precision=precision)
        assert same(y, plain[0])  # powers of two change no rounding of TF32


def test_infinities_and_nan_go_through() -> None:
    arrays = cell_case("lstm", 0, rows=4).arrays()
    x = arrays.x.copy()
    x[0, 2, 1], x[1, 2, 1], x[2, 2, 1] = np.inf, np.nan, 2.0**-149
    weights = refrnn.Weights(*arrays.weights)
    for precision in PRODUCTS:
        y, _ = refrnn.run("lstm", weights, x, arrays.state, precision=precision)
        want, _ = refrnn.run("lstm", weights, arrays.x, arrays.state, precision=precision)
        assert same(y[3], want[3])
        assert np.isfinite(y[2]).all()
        assert np.isnan(y[1, 2:]).all()
        assert same(y[:2, :2], want[:2, :2])


# --- the border ---


def test_without_a_precision_nothing_is_changed() -> None:
    arrays = cell_case("gru", 1).arrays()
    weights = refrnn.Weights(*arrays.weights)
    for engine in ("numpy", "numba"):
        y, _ = refrnn.run("gru", weights, arrays.x, arrays.state, engine=engine)
        again, _ = refrnn.run("gru", weights, arrays.x, arrays.state, engine=engine, precision=None)
        assert same(y, again)
    assert kernels.supports(CELLS["gru"], np.float32)


@pytest.mark.parametrize("precision", ["float32", "TF32", 10, "float16"])
def test_another_precision_is_refused(precision: Any) -> None:
    arrays = cell_case("gru", 1).arrays()
    weights = refrnn.Weights(*arrays.weights)
    with pytest.raises(ValueError, match=f"gru: precision is {precision!r}, expected None or one"):
        refrnn.run("gru", weights, arrays.x, precision=precision)


def test_what_cannot_be_emulated_is_refused_with_the_reason() -> None:
    arrays = cell_case("gru", 1).arrays()
    weights = refrnn.Weights(*arrays.weights)
    with pytest.raises(ValueError, match="engine is 'numba', expected 'auto' or 'numpy'"):
        refrnn.run("gru", weights, arrays.x, engine="numba", precision="tf32")
    wide = refrnn.Weights(*(a.astype(np.float64) for a in arrays.weights))
    with pytest.raises(TypeError, match="weights of float64, expected float32"):
        refrnn.run("gru", wide, arrays.x, precision="tf32")
    own = CELLS["gru"]._replace(x_product=lambda a, b, gates=slice(None): a @ b)
    with pytest.raises(ValueError, match="expected the plain product"):
        refrnn.run(own, weights, arrays.x, precision="tf32")
