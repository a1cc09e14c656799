"""The compiled way back gives the readable one's gradients, and rows, chunks and threads no say.

Its bits are held against each other, its numbers against `refrnn.backward.loop`. Bugs are planted
in the sources of the compiled code, which is then run by Python: a tile is a few lines of NumPy.
"""

import ctypes
import inspect
import re
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llvmlite import binding, ir
from strategies import cuttings
from test_gradients import Draw, case_of, float32_bound, named, same_bits
from test_kernels import OTHER_CPUS, X86, draw, python

import refrnn
from refrnn import engines, kernels
from refrnn.backward import Gradients, loop, recorder
from refrnn.cells import CELLS, Cell, Weights
from refrnn.gates import Array
from refrnn.kernels import backloops, backplan, backs, engine, formulas, host, plan, recording
from refrnn.kernels import vectors as V

NAMES = recording.CELLS
DTYPES = ("float64", "float32")
EXACT = ("dxs", "dstate.h", "dstate.c", "dlast_output")  # what depends on one row alone


class Problem(NamedTuple):
    """A run and a loss: the arguments of `loop.record`, and of its way back."""

    cell: Cell
    weights: Weights
    xs: Array
    state: Any
    dys: Array
    dlast: Array
    dstate: Any
    options: dict[str, Any]

    def forward(self) -> dict[str, Any]:
        return {n: v for n, v in self.options.items() if n != "truncate"}

    def back(self, **more: Any) -> Gradients:
        """On the kernels."""
        *_, back = kernels.recorder(self.cell, self.weights).record(
            self.xs, self.state, **self.forward(), **more
        )
        found = back(self.dys, self.dlast, self.dstate, self.options.get("truncate"))
        return Gradients(*found)

    def readable(self) -> Gradients:
        *_, back = loop.record(self.cell, self.weights, self.xs, self.state, **self.forward())
        return back(self.dys, self.dlast, self.dstate, self.options.get("truncate"))

    def some(self, rows: Any) -> "Problem":
        """Some of the rows."""
        parts = {n: v[rows] if isinstance(v, np.ndarray) else v for n, v in self.options.items()}

        def of(state: Any) -> Any:
            return type(state)(*(part[rows] for part in state))

        return Problem(
            self.cell, self.weights, self.xs[rows], of(self.state), self.dys[rows],
            self.dlast[rows], of(self.dstate), parts,
        )  # fmt: skip


def problem(
    name: str, dtype: str, rows: int, steps: int, features: int, units: int, seed: int = 0,
    marks: str = "",
) -> Problem:  # fmt: skip
    """marks: m for a mask, r for resets, b for backwards, z for zeros where masked, t truncated."""
    cell, weights, xs, state = draw(name, dtype, rows, steps, features, units, seed)
    rng = np.random.default_rng([seed, 5])

    def like(part: Array) -> Array:
        return rng.normal(size=part.shape).astype(dtype)

    options: dict[str, Any] = {}
    if "m" in marks:
        options["mask"] = rng.random((rows, steps)) < 0.7
    if "r" in marks:
        options["reset"] = rng.random((rows, steps)) < 0.3
    if "b" in marks:
        options["go_backwards"] = True
    if "z" in marks:
        options["zero_output_for_mask"] = True
    if "t" in marks:
        options["truncate"] = 2
    dys = rng.normal(size=(rows, steps, units)).astype(dtype)
    dstate = type(state)(*map(like, state))
    return Problem(cell, weights, xs, state, dys, like(state.h), dstate, options)


MARKS = st.sets(st.sampled_from("mrbzt")).map(lambda s: "".join(sorted(s)))
ROWS = st.one_of(st.integers(1, 9), st.sampled_from((29, 31, 61, 64)))
UNITS = st.one_of(st.integers(1, 18), st.sampled_from((31, 32, 33, 64, 65)))
SHAPES = st.tuples(ROWS, st.integers(1, 9), st.integers(0, 19), UNITS)


def near(got: Gradients, want: Gradients, relative: float) -> None:
    """Relative to the largest of an array, or to 1, what a gradient that is given has."""
    assert named(got).keys() == named(want).keys()
    for name, array in named(want).items():
        found = named(got)[name]
        assert found.shape == array.shape, name
        assert found.dtype == array.dtype, name
        error = np.abs(found - array).max(initial=0)
        assert error <= relative * max(1, np.abs(array).max(initial=0)), (name, error)


# --- the numbers ---------------------------------------------------------------------------------


@given(
    shape=SHAPES, name=st.sampled_from(NAMES), dtype=st.sampled_from(DTYPES), marks=MARKS,
    seed=st.integers(0, 99),
)  # fmt: skip
def test_gradients_are_those_of_the_readable_engine(
    shape: tuple[int, int, int, int], name: str, dtype: str, marks: str, seed: int
) -> None:
    """Some hundred terms of size 1, in float32 and rounded at random: 1e-4 is for wrong ones.

    float32 has a bound of its own below.
    """
    p = problem(name, dtype, *shape, seed=seed, marks=marks)
    near(p.back(), p.readable(), 1e-12 if dtype == "float64" else 1e-4)


@pytest.mark.parametrize("mask", [None, "holes"])
@pytest.mark.parametrize("name", NAMES)
def test_float32_is_within_the_bound_that_rounding_explains(name: str, mask: str | None) -> None:
    case = case_of(name, mask=mask, steps=8, units=6, dtype="float32")
    bound, drawn = float32_bound(case), Draw(case)
    for part, array in named(drawn.gradients(engine="numba")).items():
        assert array.dtype == np.float32
        off = np.abs(array - bound.value[part])
        assert np.all(off <= bound.error[part]), (part, off, bound.error[part])


@pytest.mark.parametrize("name", NAMES)
def test_many_rows_and_steps_are_summed_as_exactly_as_by_the_readable_engine(name: str) -> None:
    """Sums of 8 192 terms in pieces: their error is less than that of one running sum."""
    p = problem(name, "float32", 128, 64, 3, 20)
    wide = Problem(
        p.cell, Weights(*(w.astype(np.float64) for w in p.weights)), p.xs.astype(np.float64),
        type(p.state)(*(part.astype(np.float64) for part in p.state)),
        p.dys.astype(np.float64), p.dlast.astype(np.float64),
        type(p.state)(*(part.astype(np.float64) for part in p.dstate)), {},
    )  # fmt: skip
    want, ours, theirs = named(wide.back()), named(p.back()), named(p.readable())
    for part, array in want.items():

        def rms(got: Array, array: Array = array) -> float:
            return float(np.sqrt(np.mean((got - array) ** 2)))

        assert rms(ours[part]) <= 2 * rms(theirs[part]), part


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_outputs_have_the_bits_of_a_run(name: str, dtype: str) -> None:
    for units, marks in ((5, ""), (16, "mr"), (33, "mzb"), (40, "b")):
        p = problem(name, dtype, 7, 6, 3, units, marks=marks)
        ys, after, _ = kernels.recorder(p.cell, p.weights).record(p.xs, p.state, **p.forward())
        want, end = kernels.run(p.cell, p.weights, p.xs, p.state, **p.forward())
        assert ys.tobytes() == want.tobytes()
        assert [a.tobytes() for a in after] == [a.tobytes() for a in end]


@pytest.mark.parametrize("name", NAMES)
def test_a_saturated_gate_lets_nothing_through(name: str) -> None:
    """Slopes are 0 far out, not what is left of a clamp: the input is 1e8 times as large."""
    for dtype in DTYPES:
        p = problem(name, dtype, 2, 2, 1, 5)
        p.weights.kernel[...] = np.where(p.weights.kernel < 0, -1, 1)
        p.xs[...] = np.where(p.xs < 0, -1e8, 1e8)
        assert not p.back().dkernel.any() or name != "simple"
        near(p.back(), p.readable(), 1e-12 if dtype == "float64" else 1e-5)


# --- one result -----------------------------------------------------------------------------------


@given(
    shape=st.tuples(st.sampled_from((5, 61, 64, 95)), st.integers(1, 6), st.integers(1, 4),
                    st.sampled_from((3, 16, 20))),
    name=st.sampled_from(NAMES), marks=MARKS, threads=st.integers(2, 5), data=st.data(),
)  # fmt: skip
def test_neither_threads_nor_other_rows_change_a_bit(
    shape: tuple[int, int, int, int], name: str, marks: str, threads: int, data: st.DataObject
) -> None:
    p = problem(name, "float32", *shape, marks=marks)
    whole = named(p.back(threads=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "WORK", 1)  # even the smallest run is shared out
        for part, array in named(p.back(threads=threads)).items():
            assert array.tobytes() == whole[part].tobytes(), part
    rows = data.draw(st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=9))
    some = named(p.some(rows).back())
    for part in EXACT:
        if part in some:
            assert some[part].tobytes() == np.ascontiguousarray(whole[part][rows]).tobytes(), part


def in_pieces(p: Problem, sizes: list[int], hand_back: bool) -> tuple[Array, dict[str, Array]]:
    """dxs and the gradients of what came before, and the sums of those of the weights."""
    T, back = p.xs.shape[1], p.options.get("go_backwards", False)
    ends = np.cumsum([0, *sizes]).tolist()
    made, state, last = [], p.state, None
    packed = kernels.recorder(p.cell, p.weights)
    for begin, end in pairwise(ends):
        cut = slice(T - end, T - begin) if back else slice(begin, end)
        options = {n: v[:, cut] if isinstance(v, np.ndarray) else v for n, v in p.forward().items()}
        ys, state, way = packed.record(p.xs[:, cut], state, last_output=last, **options)
        last = ys[:, -1] if ys.shape[1] else last
        made.append((slice(begin, end), cut, way))
    dxs, carry, sums = np.empty_like(p.xs), (p.dlast, p.dstate), {}
    for out, cut, way in reversed(made):
        found = Gradients(*way(p.dys[:, out], *carry))
        dxs[:, cut] = found.dxs
        carry = (found.dlast_output, found.dstate) if hand_back else (None, None)
        for part in ("dkernel", "drecurrent_kernel", "dbias"):
            sums[part] = sums.get(part, 0) + getattr(found, part)
    return dxs, named(found) | sums


@given(
    name=st.sampled_from(NAMES), dtype=st.sampled_from(DTYPES), marks=MARKS, seed=st.integers(0, 9),
    data=st.data(),
)  # fmt: skip
def test_chunks_that_hand_gradients_back_have_the_bits_of_the_whole(
    name: str, dtype: str, marks: str, seed: int, data: st.DataObject
) -> None:
    p = problem(name, dtype, 6, 8, 3, 19, seed, marks.replace("t", ""))
    whole = named(p.back())
    dxs, found = in_pieces(p, data.draw(cuttings(8)), hand_back=True)
    same_bits(dxs, whole["dxs"], "dxs")
    for part, array in whole.items():
        if part.startswith(("dstate", "dlast")):
            same_bits(found[part], array, part)
        elif part != "dxs":  # up to 48 terms of size 1 or so, in another order
            spacing = np.finfo(dtype).eps
            assert np.abs(found[part] - array).max() <= 64 * spacing * max(1, np.abs(array).max())


@pytest.mark.parametrize("name", NAMES)
def test_truncation_is_chunks_that_hand_nothing_back(name: str) -> None:
    for marks in ("t", "mt", "mbt"):
        p = problem(name, "float64", 3, 5, 2, 7, marks=marks)
        dxs, found = in_pieces(p, [2, 2, 1], hand_back=False)
        whole = p.back()
        same_bits(whole.dxs, dxs, marks)
        for part in ("dstate.h", "dlast_output"):
            same_bits(named(whole)[part], found[part], part)


DIGEST = """
import hashlib, numpy as np
from refrnn import kernels
from refrnn.cells import CELLS, Weights
rng = np.random.default_rng(0)
digest = hashlib.sha256()
cell = CELLS["gru"]
weights = Weights(*(rng.normal(size=s).astype("f4") / 5 for s in cell.shapes(3, 37)))
packed = kernels.recorder(cell, weights)
for rows in (1, 5, 61):
    xs = rng.normal(size=(rows, 9, 3)).astype("f4")
    ys, state, back = packed.record(xs, cell.zeros(rows, 37, "f4"))
    for part in back(rng.normal(size=ys.shape).astype("f4"), None, None):
        digest.update(b"".join(p.tobytes() for p in (part if type(part) is tuple else [part]))
                      if not hasattr(part, "_fields") else part.h.tobytes())
print(digest.hexdigest(), packed._lanes)
"""


@pytest.mark.skipif(not X86, reason="narrows the features of an x86 CPU")
def test_a_cpu_with_narrower_vectors_gives_the_same_bits() -> None:
    here = python(DIGEST).split()
    if int(here[1]) < 8:
        pytest.skip("this CPU has no AVX2")
    features = "+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+avx,+avx2,+fma"
    avx2 = python(DIGEST, NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES=features).split()
    assert avx2 == [here[0], "8"]


@pytest.mark.parametrize("cpu", OTHER_CPUS)
def test_the_code_for_other_cpus_calls_nothing_outside(cpu: str) -> None:
    """A multiply-add or a masked store that a CPU lacks would be a call of the C library: slow."""
    triple, name, features = OTHER_CPUS[cpu]
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    try:
        target = binding.Target.from_triple(triple)
    except RuntimeError:
        pytest.skip(f"this LLVM has no code generator for {triple}")
    made_for = host.machine(triple, features)
    form = V.float32(made_for.lanes(4), made_for.fma)
    module = ir.Module()
    module.triple = triple
    backs.step_back(module, form, "lstm").linkage = "external"
    for kind in backs.ARGUMENTS:
        backs.any_tile(module, form, kind, made_for.registers).linkage = "external"
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    machine = target.create_target_machine(name, features, opt=1, codemodel="default")
    code = machine.emit_assembly(parsed)
    called = set(re.findall(r"\b(?:callq?|bl)\s+(\S+)", code))
    assert called, "no call found: has the syntax of calls changed?"
    assert all(c.startswith("refrnn_") for c in called), called


def test_who_only_runs_forwards_compiles_and_loads_nothing_more() -> None:
    python("""
import sys, numpy as np, refrnn
rng = np.random.default_rng(0)
weights = refrnn.Weights(rng.normal(size=(2, 12)), rng.normal(size=(3, 12)), np.zeros(12))
refrnn.run("lstm", weights, rng.normal(size=(1, 2, 2)), engine="numba")
assert "refrnn.kernels.loops" in sys.modules
assert "refrnn.kernels.backloops" not in sys.modules
""")


# --- arrays ---------------------------------------------------------------------------------------


def test_how_arrays_lie_in_memory_does_not_matter() -> None:
    p = problem("lstm", "float32", 5, 4, 3, 9, marks="m")
    want = named(p.back())
    for made in (
        p._replace(xs=np.asfortranarray(p.xs), dys=np.asfortranarray(p.dys)),
        p._replace(
            xs=np.repeat(p.xs, 2, axis=2)[..., ::2], dys=np.repeat(p.dys, 2, axis=1)[:, ::2]
        ),
        p._replace(weights=Weights(*map(np.asfortranarray, p.weights))),
    ):
        for part, array in named(made.back()).items():
            same_bits(array, want[part], part)
    for array in (p.xs, p.dys, p.dlast, *p.weights, *p.state, *p.dstate):
        array.flags.writeable = False
    for part, array in named(p.back()).items():
        same_bits(array, want[part], part)


def test_what_is_none_counts_as_zeros_and_weights_are_copied() -> None:
    for name in NAMES:
        p = problem(name, "float32", 4, 3, 2, 5)
        packed = kernels.recorder(p.cell, p.weights)
        zeros = type(p.state)(*map(np.zeros_like, p.state))
        *_, way = packed.record(p.xs, p.state)
        want = named(Gradients(*way(np.zeros_like(p.dys), p.dlast, zeros)))
        p.weights.kernel[...] = p.weights.recurrent_kernel[...] = np.nan
        *_, way = packed.record(p.xs, p.state)
        for part, array in named(Gradients(*way(None, p.dlast, None))).items():
            same_bits(array, want[part], part)


@pytest.mark.parametrize("shape", [(0, 3, 2, 4), (3, 0, 2, 4), (2, 3, 0, 4), (0, 0, 0, 1)])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_do_is_done(name: str, shape: tuple[int, int, int, int]) -> None:
    p = problem(name, "float64", *shape, marks="m")
    near(p.back(), p.readable(), 1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_a_nan_at_a_masked_step_reaches_no_gradient_and_others_stay_in_their_row(name: str) -> None:
    for units in (5, 16, 21):
        p = problem(name, "float32", 7, 5, 3, units, marks="m")
        clean = named(p.back())
        p.xs[~p.options["mask"]] = np.nan
        for part, array in named(p.back()).items():
            same_bits(array, clean[part], part)
        assert not clean["dxs"][~p.options["mask"]].any()
        step = np.flatnonzero(p.options["mask"][2])[0]
        p.xs[2, step] = np.nan
        spoiled = named(p.back())
        others = [0, 1, 3, 4, 5, 6]
        for part in ("dxs", "dstate.h"):
            same_bits(spoiled[part][others], clean[part][others], part)
        assert np.isnan(spoiled["dkernel"]).any()
        assert np.isnan(spoiled["dxs"][2]).any()


@pytest.mark.parametrize("name", NAMES)
def test_an_infinite_input_has_the_gradients_of_saturation(name: str) -> None:
    """Nothing of the lanes beyond the last unit, where an infinity times 0 is NaN."""
    p = problem(name, "float32", 3, 4, 2, 5)
    p.xs[1, 2, 0] = np.inf
    got, want = named(p.back()), named(p.readable())
    for part in ("dxs", "dstate.h"):
        np.testing.assert_array_equal(np.isnan(got[part]), np.isnan(want[part]), err_msg=part)
        finite = np.isfinite(want[part])
        np.testing.assert_allclose(got[part][finite], want[part][finite], rtol=1e-4, atol=1e-5)


# --- the engine -----------------------------------------------------------------------------------


def test_the_engine_is_chosen_as_for_runs() -> None:
    p = problem("lstm", "float32", 3, 4, 2, 5)
    given = (p.weights, p.xs, p.dys, p.state)
    of = {e: refrnn.gradients("lstm", *given, engine=e) for e in ("auto", "numba", "numpy")}
    same_bits(of["auto"].dkernel, of["numba"].dkernel, "auto")
    assert not np.array_equal(of["numba"].dkernel, of["numpy"].dkernel)
    shown = refrnn.gradients("lstm", *given, gates=True)  # the readable engine alone has them
    same_bits(shown.dkernel, of["numpy"].dkernel, "gates")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(engines.ENVIRONMENT, "numpy")
        same_bits(refrnn.gradients("lstm", *given).dkernel, of["numpy"].dkernel, "environment")
    *_, back = recorder("who", "numba", p.cell, p.weights)(p.xs, p.state)
    same_bits(back(p.dys, None, None).dkernel, of["numba"].dkernel, "recorder")
    with pytest.raises(ValueError, match=r"who: gates is True, expected False, because the comp"):
        back(p.dys, None, None, gates=True)
    with pytest.raises(ValueError, match=r"lstm: engine is 'numba', expected 'auto' or 'numpy' w"):
        refrnn.gradients("lstm", *given, gates=True, engine="numba")
    with pytest.raises(ValueError, match=r"lstm: engine is 'fast'"):
        refrnn.gradients("lstm", *given, engine="fast")


def test_what_has_no_kernel_stays_on_the_readable_engine() -> None:
    p = problem("gru_reset_before", "float32", 3, 4, 2, 5)
    given = (p.weights, p.xs, p.dys, p.state)
    want = refrnn.gradients("gru_reset_before", *given, engine="numpy")
    same_bits(refrnn.gradients("gru_reset_before", *given).dkernel, want.dkernel, "auto")
    for options, reason in (
        ({}, "there is no kernel for the gradients of this cell"),
        ({"activation": "relu"}, "tanh and sigmoid in float32 and float64 only"),
    ):
        with pytest.raises(ValueError, match=reason):
            refrnn.gradients("gru_reset_before", *given, engine="numba", **options)
    with pytest.raises(ValueError, match="there is no kernel back for float32"):
        kernels.recorder(p.cell, p.weights)
    assert not kernels.goes_back(CELLS["lstm"], "float16")
    assert kernels.goes_back(CELLS["lstm"], "float64")


def test_a_compiler_that_fails_on_the_way_back_is_one_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    p = problem("lstm", "float32", 3, 4, 2, 5)
    given = (p.weights, p.xs, p.dys, p.state)
    want = refrnn.gradients("lstm", *given, engine="numpy")

    def broken(*arguments: Any, **options: Any) -> Any:
        raise kernels.CompileError("planted")

    monkeypatch.setattr(engine, "_compiled", broken)
    monkeypatch.setattr(engines, "_broken", [])
    with pytest.raises(kernels.CompileError, match="planted"):
        refrnn.gradients("lstm", *given, engine="numba")
    with pytest.warns(RuntimeWarning, match="on its NumPy engine, many times slower: planted"):
        same_bits(refrnn.gradients("lstm", *given).dkernel, want.dkernel, "auto")
    same_bits(refrnn.gradients("lstm", *given).dkernel, want.dkernel, "no second warning")


# --- planted bugs ---------------------------------------------------------------------------------

LANES = 4


def memory(address: int, count: int) -> Array:
    """float64 numbers in memory."""
    return np.ctypeslib.as_array((ctypes.c_double * int(count)).from_address(int(address)))


def words(address: int, count: int) -> Array:
    return np.ctypeslib.as_array((ctypes.c_int64 * int(count)).from_address(int(address)))


def sigmoid(x: Array) -> V.Ratio:
    e = np.exp(-np.abs(x))
    return V.Ratio(np.where(x < 0, e, 1), 1 + e, np.where(x < 0, 1, e))  # type: ignore[arg-type]


def tanh_and_slope(x: Array) -> tuple[V.Ratio, V.Ratio]:
    e = np.exp(-2 * np.abs(x))
    value: Any = np.copysign(1 - e, x)
    return V.Ratio(value, 1 + e), V.Ratio(4 * e, (1 + e) ** 2)  # type: ignore[arg-type]


class ByPython:
    """The loops of a cell run by Python, on float64 vectors of 4 lanes."""

    def __init__(self, cell: Cell, weights: Weights, sources: dict[Any, Any]) -> None:
        self.cell, self.weights = cell, weights
        self.name, self.way = cell.name, backs.WAYS[cell.name]
        functions = {f.__name__: f for f in (sigmoid, tanh_and_slope)}
        self.formulas = self.made(formulas, sources, functions)
        self.backs = self.made(backs, sources, {})
        njit = SimpleNamespace(njit=lambda **options: lambda function: function)
        tiles = {"run_step": self.step, "run_product": self.product, "run_outer": self.outer}
        found = self.made(backloops, sources, {"numba": njit, **tiles})
        self.loop = found["loop"](cell.name, 8, host.Machine(8 * LANES, 16, True), False)

    @staticmethod
    def made(module: Any, sources: dict[Any, str], more: dict[str, Any]) -> dict[str, Any]:
        """What a module defines, with some functions of another source, and more."""
        whole = inspect.getsource(module)
        for function, source in sources.items():
            if inspect.getmodule(function) is module:
                whole = whole.replace(inspect.getsource(function), source)
        found = {"__name__": module.__name__, "__file__": module.__file__}
        exec(whole, found)
        found.update(more)
        return found

    def compiled(self, name: str, dtype: str, back: bool = False) -> tuple[Any, int]:
        """In the place of `engine._compiled`."""
        return (self.loop if back else self.forwards), LANES

    def forwards(self, p: Array, xs: Array, ys: Array, parts: Array, marks: Array) -> None:
        """The loop forwards: the formula on whole arrays, masks by the rule of the reference."""
        B, T, _ = xs.shape
        H, formula = parts.shape[2], self.formulas[f"{self.name}_kept"]
        outputs, keeping = ys.reshape(B, T, H), self.way.kept
        padded = -(-H // LANES) * LANES
        for n in range(T):
            t = T - 1 - n if p[plan.BACKWARDS] else n
            mark = marks[:, t] if p[plan.MASKED] else np.zeros(B, np.uint8)
            parts[:, mark & plan.FORGET != 0] = 0
            live = mark & plan.HIDDEN == 0
            W, U, b = self.weights
            x, u = (np.split(m, len(self.cell.gates), axis=1) for m in (xs[:, t] @ W, parts[0] @ U))
            bias = np.split(np.atleast_2d(b).ravel(), np.size(b) // H)
            state = {"lstm": [parts[1]], "gru": [parts[0]], "simple": []}[self.name]
            made = formula(x, u, bias, *(part.copy() for part in state))
            for k in range(keeping):
                for row in np.flatnonzero(live):
                    at = p[plan.KEPT] + n * p[plan.KEPT_STEP] + row * p[plan.KEPT_ROW]
                    blocks = memory(at, keeping * padded).reshape(-1, keeping, LANES)
                    vectors = np.full(padded, np.nan)  # what the lanes beyond hold must not matter
                    vectors[:H] = made[len(made) - keeping + k][row]
                    blocks[:, k] = vectors.reshape(-1, LANES)
            for k, part in enumerate(made[: len(made) - keeping]):
                parts[k, live] = part[live]
            parts[-1] = np.where(live[:, None], made[0], 0 if p[plan.ZERO_OUTPUT] else parts[-1])
            outputs[:, n] = parts[-1]

    def step(self, *arguments: Any) -> None:
        base, numbers, rows = arguments[6:]
        p = words(base, backplan.HEAD)
        H = int(p[backplan.UNITS])
        padded, gates, keeping = -(-H // LANES) * LANES, self.way.gates, self.way.kept
        for r, number in enumerate(words(numbers, rows).tolist()):
            own = {
                e: memory(p[e] + number * p[backplan.OWN_ROW], padded)
                for e in (backplan.DIRECT, backplan.SUMS, backplan.DOUT, backplan.DC)
            }
            dy = np.zeros(padded)
            dy[:H] = memory(p[backplan.DY] + number * p[backplan.DY_ROW], H)
            kept = memory(p[backplan.KEPT] + number * p[backplan.KEPT_ROW], padded * keeping)
            kept = kept.reshape(-1, keeping, LANES).swapaxes(0, 1).reshape(keeping, padded)
            dh = own[backplan.DIRECT] + own[backplan.SUMS] + (own[backplan.DOUT] + dy)
            made = self.backs[self.name](list(kept), dh, own[backplan.DC].copy())
            for e, parts in ((backplan.DX, made.x), (backplan.DU, made.u)):
                slot = memory(p[e] + r * p[backplan.SLOT], gates * padded).reshape(gates, padded)
                slot[...] = parts
                slot[:, H:] = 0
            own[backplan.DIRECT][...] = 0 if made.direct is None else made.direct
            own[backplan.DOUT][...] = 0
            if made.c is not None:
                own[backplan.DC][...] = made.c

    def product(self, *arguments: Any) -> None:
        rows, blocks, numbers, factor, factor_row, count, panel, panel_block = arguments[4:12]
        target, target_row, left = arguments[12:]
        width = min(blocks * LANES, left)
        for r, number in enumerate(words(numbers, rows).tolist()):
            vectors = [memory(panel + u * panel_block, count * LANES) for u in range(blocks)]
            matrix = np.concatenate([v.reshape(count, LANES) for v in vectors], axis=1)
            found = memory(factor + r * factor_row, count) @ matrix
            memory(target + number * target_row, width)[...] = found[:width]

    def outer(self, *arguments: Any) -> None:
        rows, blocks, factors, offset, count, vectors, vectors_row = arguments[4:11]
        target, target_row = arguments[11:]
        for k, at in enumerate(words(factors, count).tolist()):
            factor = memory(at + offset, rows)
            vector = memory(vectors + k * vectors_row, blocks * LANES)
            for r in range(rows):
                memory(target + r * target_row, blocks * LANES)[...] += factor[r] * vector


class Bug(NamedTuple):
    """`right` of one function's source put as `wrong`."""

    function: Callable[..., Any]
    right: str
    wrong: str


F, B, L, R = formulas, backs, backloops.loop, recording.Recorder
BUGS = {
    # what the formulas keep
    "the slope of a gate without 1 - y": Bug(F.slope, "((1 - y).top * by)", "by"),
    "simple: the value kept for the slope": Bug(F.simple_kept, "slope.value]", "h.value]"),
    "lstm: i's slope times i": Bug(F.lstm_kept, "g.top * by[2] * slope", "i.top * by[0] * slope"),
    "lstm: f's slope times the new c": Bug(F.lstm_kept, "c * slope(f", "new * slope(f"),
    "lstm: f's slope divided as i's": Bug(F.lstm_kept, "slope(f, by[1])", "slope(f, by[0])"),
    "lstm: g's slope divided once": Bug(F.lstm_kept, "(d_g.top * by[2] *", "(d_g.top *"),
    "lstm: o's slope times c": Bug(F.lstm_kept, "squashed.top * by[4] * slope", "new * slope"),
    "lstm: the squash's slope forgotten": Bug(
        F.lstm_kept, " * (d_squashed.top * by[4] * by[4])", ""
    ),
    "lstm: i carried for f": Bug(F.lstm_kept, "f.top * by[1],", "i.top * by[0],"),
    "gru: wrong sign in z": Bug(F.gru_kept, "(h - g.top * by[2])", "(g.top * by[2] - h)"),
    "gru: the candidate by z": Bug(F.gru_kept, "(1 - z).top * by[0] * (", "z.top * by[0] * ("),
    "gru: r's path without u": Bug(F.gru_kept, "d_pre_g * u_g * slope", "d_pre_g * slope"),
    "gru: the state's part not scaled by r": Bug(
        F.gru_kept, "d_pre_g * (r.top * by[1]),", "d_pre_g,"
    ),
    "gru: the carry by 1 - z": Bug(F.gru_kept, "z.top * by[0],  #", "(1 - z).top * by[0],  #"),
    # the formulas back
    "lstm: c's gradient from later steps lost": Bug(B.lstm, "dc = dc + dh", "dc = dh"),
    "lstm: c's gradient from h lost": Bug(B.lstm, "dc = dc + dh * by_squash", "dc = dc + 0"),
    "lstm: the carry misses f": Bug(B.lstm, "c=dc * by_c", "c=dc"),
    "lstm: o by c's gradient": Bug(B.lstm, "dh * by_o", "dc * by_o"),
    "lstm: gates in another order": Bug(B.lstm, "dc * by_g, dh * by_o]", "dh * by_o, dc * by_g]"),
    "gru: no carry": Bug(B.gru, "direct=dh * by_h", "direct=0 * dh"),
    "gru: the state's sums as the input's": Bug(B.gru, "dh * by_u]", "dh * by_g]"),
    "gru: the input's sums as the state's": Bug(B.gru, "dh * by_g]", "dh * by_u]"),
    # the loop
    "the gates of the recurrent kernel in reverse": Bug(
        L, "matrix[column, g * units + unit]", "matrix[column, (gates - 1 - g) * units + unit]"
    ),
    "the kernel's panel for the recurrent one": Bug(L, "plan[DU], u_panel", "plan[DU], w_panel"),
    "the state after a step taken for that before": Bug(
        L,
        "of_h + used + count] = plan[before + (row - first) * steps + n]",
        "of_h + used + count] = plan[before + (row - first) * steps + min(n + 1, steps - 1)]",
    ),
    "a masked step's output taken for the state": Bug(
        L, "if mark & HIDDEN == 0:", "if mark & HIDDEN >= 0:"
    ),
    "the state of a step is that before the sequence": Bug(
        L, "if mark & HIDDEN == 0:", "if mark & HIDDEN < 0:"
    ),
    "a reset's state is not forgotten on the way back": Bug(
        L, "if mark & FORGET != 0:", "if mark & FORGET < 0:"
    ),
    "the state's gradient crosses a reset": Bug(
        L, "if cut or marks[row, t] & FORGET != 0:", "if cut:"
    ),
    "only the first part of the state stops at a reset": Bug(
        L, "for part in range(4):", "for part in range(1):"
    ),
    "a cell's state goes back across a reset": Bug(
        L, "for part in range(4):", "for part in range(3):"
    ),
    "a repeated output hands nothing on": Bug(L, "room[mine + unit] += dys[row, n, unit]", "pass"),
    "zeros hand on as repeats do": Bug(L, "if plan[ZERO_OUTPUT] != 0:", "if units < 0:"),
    "outputs counted in the order of the input": Bug(L, "n * dys.strides[1]", "t * dys.strides[1]"),
    "inputs counted in the order of the outputs": Bug(
        L, "dxs.ctypes.data + t * features", "dxs.ctypes.data + n * features"
    ),
    "the mask in the order of the outputs": Bug(
        L, "masked and marks[row, t]", "masked and marks[row, n]"
    ),
    "truncation a step too early": Bug(L, "n % piece == 0", "(n + 1) % piece == 0"),
    "truncation cuts the initial state off": Bug(L, "piece > 0 and n > 0 and", "piece > 0 and"),
    "slots are written over": Bug(L, "used += count", "used += 1"),
    "the last slots are lost": Bug(L, "if used > 0:", "if used > 0 and n >= 0:"),
    "one bias for both": Bug(L, "du if part in (0, 3)", "du if part == 0"),
    "the input's bias by the state's sums": Bug(L, "du if part in (0, 3)", "du if part != 1"),
    "the recurrent kernel by the input's sums": Bug(L, "du if part in (0, 3)", "du if part == 3"),
    "what came back to the last share's rows stays": Bug(
        L, "for k in range(own, zeros):", "for k in range(own, own + own_numbers):"
    ),
    "the last output's gradient is dropped": Bug(
        L, "room[mine + 2 * own_numbers + unit] = given[last_output, row, unit]", "pass"
    ),
    "the last state's gradient is dropped": Bug(
        L, "room[mine + unit] = given[0, row, unit]", "pass"
    ),
    "the first state's gradient misses the product": Bug(
        L, "room[mine + unit] + room[mine + own_numbers + unit]", "room[mine + unit]"
    ),
    # around it
    "the shares are not added up": Bug(R._unpacked, "total += share", "pass"),
    "padded columns taken for units": Bug(R._unpacked, "padded[:, :, :H]", "padded[:, :, -H:]"),
    "the input's rows before the state's": Bug(
        R._unpacked, "flat[H : H + F].copy(), flat[:H]", "flat[:F].copy(), flat[F : F + H]"
    ),
    "the gradient of the cell's state is not taken": Bug(
        R.record, "zip(given, dstate or ()", "zip(given[:1], dstate or ()"
    ),
    "what lies there is the gradient of a masked input": Bug(
        R.record, "(np.zeros if settings[1] else np.empty)", "np.ones"
    ),
    "no truncation": Bug(R.record, "truncate or 0", "0"),
    "no mask on the way back": Bug(
        R.record, "= (*settings, truncate", "= (settings[0], False, settings[2], truncate"
    ),
}

BATTERY = [
    problem(name, "float64", *shape, seed=seed, marks=marks)
    for name in NAMES
    for seed, (shape, marks) in enumerate(
        (((5, 5, 3, 6), ""), ((3, 7, 5, 2), "mr"), ((4, 6, 2, 3), "mb"), ((5, 7, 2, 5), "mzrb"),
         ((3, 7, 1, 3), "bt"))
    )
]  # fmt: skip


def check(sources: dict[Any, str]) -> None:
    """The battery by Python, with some functions of another source."""
    members = {f.__name__: s for f, s in sources.items() if inspect.getmodule(f) is recording}
    rest = {f: s for f, s in sources.items() if inspect.getmodule(f) is not recording}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "SHARE", 2)
        patch.setattr(recording, "SLOTS", 5)
        for name, source in members.items():
            found = vars(recording).copy()
            exec("class Made(Recorder):\n" + source, found)
            patch.setattr(R, name, vars(found["Made"])[name])
        for p in BATTERY:
            by_python = ByPython(p.cell, p.weights, rest)
            patch.setattr(engine, "_compiled", by_python.compiled)
            with np.errstate(all="ignore"):
                near(p.back(threads=1), p.readable(), 1e-12)


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name: str) -> None:
    bug = BUGS[name]
    source = inspect.getsource(bug.function)
    assert source.count(bug.right) == 1, "the source has changed: plant another bug"
    with pytest.raises(AssertionError):
        check({bug.function: source.replace(bug.right, bug.wrong)})


def test_without_a_bug_nothing_is_caught() -> None:
    check({})
    check({bug.function: inspect.getsource(bug.function) for bug in BUGS.values()})
