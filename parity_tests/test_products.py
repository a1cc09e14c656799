"""The compiled product of matrices is `cells.dot`: in every bit on x86, else within rounding."""

import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_backward_kernels import LANES, memory, words
from test_gradients import same_bits
from test_kernels import X86, python

from refrnn import engines, kernels
from refrnn.cells import dot
from refrnn.gates import Array
from refrnn.kernels import engine, host, productloops

DTYPES = ("float64", "float32")
SIZES = st.one_of(st.integers(0, 19), st.sampled_from((31, 32, 33, 64, 65, 130)))
SHAPES = st.tuples(SIZES, SIZES, SIZES)


def drawn(shape: tuple[int, int, int], dtype: str, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    rows, count, columns = shape
    a, b = rng.normal(size=(rows, count)), rng.normal(size=(count, columns))
    return a.astype(dtype), b.astype(dtype)


def agree(got: Array, a: Array, b: Array) -> None:
    """The bits of NumPy on x86; else K roundings of partial sums no larger than |a| @ |b|."""
    want = dot(a, b)
    if X86:
        same_bits(got, want, "bits")
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    bound = 2 * len(b) * np.finfo(a.dtype).eps * (np.abs(a) @ np.abs(b))
    assert np.all(np.abs(got - want) <= bound)


@given(shape=SHAPES, dtype=st.sampled_from(DTYPES), seed=st.integers(0, 9))
def test_products_are_those_of_numpy(shape: tuple[int, int, int], dtype: str, seed: int) -> None:
    a, b = drawn(shape, dtype, seed)
    agree(kernels.multiplier(dtype)(a, b), a, b)


@given(shape=SHAPES, dtype=st.sampled_from(DTYPES), data=st.data())
def test_a_row_depends_on_itself_alone(
    shape: tuple[int, int, int], dtype: str, data: st.DataObject
) -> None:
    a, b = drawn((shape[0] + 1, *shape[1:]), dtype)
    product = kernels.multiplier(dtype)
    rows = data.draw(st.lists(st.integers(0, shape[0]), min_size=1, max_size=7))
    some = a[rows]
    same_bits(product(some, b), np.ascontiguousarray(product(a, b)[rows]), "rows")


def test_what_is_not_finite_stays_in_its_row_and_column() -> None:
    a, b = drawn((9, 5, 37), "float32")
    product = kernels.multiplier("float32")
    clean = product(a, b)
    a[3, 2], b[1, 36] = np.nan, np.inf
    spoiled = np.isfinite(product(a, b))
    expected = np.ones((9, 37), bool)
    expected[3] = expected[:, 36] = False
    np.testing.assert_array_equal(spoiled, expected)
    same_bits(product(a, b)[expected], clean[expected], "the others")


def test_how_arrays_lie_in_memory_does_not_matter() -> None:
    a, b = drawn((6, 9, 21), "float32")
    product = kernels.multiplier(np.dtype("float32"))
    want = product(a, b)
    wide = np.repeat(a, 2, axis=1)[:, ::2]
    for left, right in ((np.asfortranarray(a), b), (wide, np.asfortranarray(b))):
        left.flags.writeable = right.flags.writeable = False
        same_bits(product(left, right), want, "layout")
    same_bits(product(a.reshape(2, 3, 9), b), want.reshape(2, 3, 21), "more axes")


DIGEST = """
import hashlib, numpy as np
from refrnn import kernels
rng = np.random.default_rng(0)
digest = hashlib.sha256()
for shape in ((1, 5, 3), (175, 32, 128), (32, 175, 130)):
    a, b = (rng.normal(size=s).astype("f4") for s in (shape[:2], shape[1:]))
    digest.update(kernels.multiplier("float32")(a, b).tobytes())
print(digest.hexdigest())
"""


@pytest.mark.skipif(not X86, reason="narrows the features of an x86 CPU")
def test_a_cpu_with_narrower_vectors_gives_the_same_bits() -> None:
    features = "+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+avx,+avx2,+fma"
    avx2 = python(DIGEST, NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES=features)
    assert avx2 == python(DIGEST)


def test_the_product_is_chosen_as_engines_are(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = drawn((3, 4, 5), "float16")
    assert not kernels.multiplies("float16")
    same_bits(engines.product(a.dtype)(a, b.T.copy().T), dot(a, b), "float16")
    compiled = kernels.multiplier(np.dtype("float32"))
    assert engines.product(np.dtype("float32")) is compiled
    with monkeypatch.context() as patch:
        patch.setenv(engines.ENVIRONMENT, "numpy")
        assert engines.product(np.dtype("float32")) is not compiled

    def broken(dtype: str) -> Any:
        raise kernels.CompileError("planted")

    kernels.multiplier.cache_clear()
    monkeypatch.setattr(engine, "_multiplying", broken)
    monkeypatch.setattr(engines, "_broken", [])
    a, b = drawn((3, 4, 5), "float32")
    with pytest.warns(RuntimeWarning, match="on its NumPy engine, many times slower: planted"):
        same_bits(engines.product(a.dtype)(a, b), dot(a, b), "NumPy")
    same_bits(engines.product(a.dtype)(a, b), dot(a, b), "no second warning")


# --- planted bugs ---------------------------------------------------------------------------------


def product_tile(*arguments: Any) -> None:
    """What a tile computes, in Python."""
    rows, blocks, numbers, factor, factor_row, count, panel, panel_block = arguments[5:13]
    target, target_row, left = arguments[13:]
    width = min(blocks * LANES, left)
    for r, number in enumerate(words(numbers, rows).tolist()):
        vectors = [memory(panel + u * panel_block, count * LANES) for u in range(blocks)]
        matrix = np.concatenate([v.reshape(count, LANES) for v in vectors], axis=1)
        found = memory(factor + r * factor_row, count) @ matrix
        memory(target + number * target_row, width)[...] = found[:width]


def by_python(monkeypatch: pytest.MonkeyPatch, right: str = "", wrong: str = "") -> None:
    """Let products be made by the loop's source, changed, on float64 vectors of 4 lanes."""
    source = inspect.getsource(productloops)
    assert source.count(right) == 1 or not right
    found = {"__name__": productloops.__name__, "__file__": productloops.__file__}
    exec(source.replace(right, wrong) if right else source, found)
    njit = SimpleNamespace(njit=lambda **options: lambda function: function)
    found.update(numba=njit, run_product=product_tile)
    run = found["loop"]("product", 8, host.Machine(8 * LANES, 16, True), False)  # type: ignore[operator]
    kernels.multiplier.cache_clear()
    monkeypatch.setattr(engine, "_multiplying", lambda dtype: (run, LANES))


BUGS = {
    "the first columns in every block": ("b[k, block * lanes + lane]", "b[k, lane]"),
    "every block the first": ("panel_at + block * block_bytes", "panel_at"),
    "rows from the wrong place": ("begin * count * size", "begin * size"),
    "a row left out": ("range(parts)", "range(parts - 1)"),
    "rows written over one another": ("numbers[row] = row", "numbers[row] = 0"),
    "the last row of factors not summed": ("count * size, count,", "count * size, count - 1,"),
}


def tried() -> None:
    for shape in ((1, 1, 1), (13, 3, 21), (7, 2, 5)):
        a, b = drawn(shape, "float64")
        got = kernels.multiplier("float64")(a, b)
        np.testing.assert_allclose(got, dot(a, b), rtol=1e-12, atol=1e-13)  # @ sums in its order


@pytest.mark.parametrize("bug", [None, *BUGS])
def test_a_planted_bug_is_caught(monkeypatch: pytest.MonkeyPatch, bug: str | None) -> None:
    by_python(monkeypatch, *(BUGS[bug] if bug else ()))
    try:
        if bug is None:
            tried()
        else:
            with pytest.raises(AssertionError):
                tried()
    finally:
        kernels.multiplier.cache_clear()
