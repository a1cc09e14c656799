"""The bare math for users: `run` and `trace` on plain arrays, checked at the border.

An engine runs a cell along sequences, with the arguments of `reference.run`. There are two:
"numpy", the readable loop, for every cell and floating dtype; and "numba", the compiled `kernels`,
for tanh and sigmoid in float32 and float64. Within one engine results depend on nothing but their
own row. Between the two they differ by rounding: both sum in order, but a compiled sum rounds once
where a NumPy sum rounds a product and then a sum.
"""

import os
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np

from refrnn import checks, kernels, reference
from refrnn.cells import AnyState, Cell, Product, Weights, dot, plain, rounded
from refrnn.formats import PRODUCTS
from refrnn.gates import Array
from refrnn.traces import Trace

# runs prepared weights: (xs, state, **options of reference.run) -> (outputs, state)
Runner = Callable[..., tuple[Array, AnyState]]
Packed = TypeVar("Packed")
ENVIRONMENT = "REFRNN_ENGINE"  # what engine="auto" means, if it is set: numpy or numba
_broken: list[str] = []  # why the kernels cannot be compiled here, once that is known


def chosen(who: str, engine: Any, cell: Cell, dtype: Any, back: bool = False) -> str:
    """ "numpy" or "numba": what `engine` means for a cell in `dtype`, for gradients with `back`.

    "auto" is numba wherever there is a kernel and it can be compiled. Raises ValueError for another
    name, and for "numba" where there is no kernel.
    """
    asked = checks.engine(who, engine)
    if asked == "numpy":
        return asked
    supported = (kernels.goes_back if back else kernels.supports)(cell, dtype)
    if asked == "numba" and not kernels.supports(cell, dtype):
        raise ValueError(
            f"{who}: engine is 'numba', expected 'auto' or 'numpy', because there are kernels for"
            f" tanh and sigmoid in float32 and float64 only, not for {_said(cell)} in {dtype}"
        )
    if asked == "numba" and not supported:
        raise ValueError(
            f"{who}: engine is 'numba', expected 'auto' or 'numpy', because there is no kernel for"
            " the gradients of this cell"
        )
    if asked == "auto":
        return "numba" if supported and _auto() == "numba" else "numpy"
    return asked


def _auto() -> str:
    """What "auto" stands for where there is a kernel."""
    wish = checks.engine(ENVIRONMENT, os.environ.get(ENVIRONMENT) or "auto")
    return "numpy" if wish == "numpy" or _broken else "numba"


def _said(cell: Cell) -> str:
    return cell.act.name if cell.name == "simple" else f"{cell.act.name} and {cell.rec.name}"


def prepared(who: str, engine: str, cell: Cell, weights: Weights) -> Runner:
    """What runs `cell` with `weights` on the engine; the weights are laid out for it once.

    Where "auto" stands for kernels that turn out not to compile here, there is one warning, and the
    NumPy engine from then on; where "numba" was asked for, the `kernels.CompileError` goes through.
    """
    if chosen(who, engine, cell, weights.kernel.dtype) == "numba":
        packed = compiled(engine, lambda: kernels.pack(cell, weights))
        if packed is not None:
            return packed.run
    return partial(reference.run, cell, weights)


def compiled(engine: str, pack: Callable[[], Packed]) -> Packed | None:
    """What `pack` makes; None, and a warning, where "auto" stood for what does not compile here."""
    try:
        return pack()
    except kernels.CompileError as error:
        if engine == "numba":
            raise
        _broken.append(str(error))
        warnings.warn(
            f"refrnn runs on its NumPy engine, many times slower: {error}",
            RuntimeWarning,
            stacklevel=3,
        )
    return None


def product(dtype: Any) -> Product:
    """What multiplies matrices in training: `cells.dot`, compiled where "auto" finds a kernel.

    On x86 both have the same bits; elsewhere they differ by rounding.
    """
    if kernels.multiplies(dtype) and _auto() == "numba":
        return compiled("auto", lambda: kernels.multiplier(dtype)) or _laid_out
    return _laid_out


def _laid_out(a: Array, b: Array) -> Array:
    """`cells.dot` of arrays that lie in memory in any way."""
    return dot(np.ascontiguousarray(a), np.ascontiguousarray(b))


def checked(
    cell: str | Cell,
    weights: Weights,
    xs: Any,
    state: Any,
    mask: Any,
    reset: Any,
    activation: Any,
    recurrent_activation: Any,
    last_output: Any,
) -> tuple[Cell, Weights, Array, AnyState, dict[str, Array | None]]:
    """The arguments of `run`, checked: the cell with its activations, and arrays of one dtype."""
    row = checks.cell(cell)
    if activation is not None:
        row = row._replace(act=checks.activation(row.name, "activation", activation))
    if recurrent_activation is not None:
        if row.name == "simple":
            raise ValueError(
                f"simple: recurrent_activation is {recurrent_activation!r}, expected None, because"
                " a SimpleRNN has no gates"
            )
        found = checks.activation(row.name, "recurrent_activation", recurrent_activation)
        row = row._replace(rec=found)
    weights = checks.weights(row, weights)
    F, H = len(weights.kernel), len(weights.recurrent_kernel)
    dtype = weights.kernel.dtype
    xs = checks.sequence(row.name, xs, F, dtype)
    B, T, _ = xs.shape
    if last_output is not None:
        last_output = checks.array(row.name, "last_output", last_output)
        if last_output.shape != (B, H):
            raise ValueError(
                f"{row.name}: last_output has shape {last_output.shape}, expected ({B}, {H}): a row"
                " for each row of the input, a column for each unit"
            )
        last_output = checks.numbers(row.name, "last_output", last_output, dtype)
    arrays = {
        "mask": checks.mask(row.name, mask, B, T),
        "reset": checks.mask(row.name, reset, B, T, "reset"),
        "last_output": last_output,
    }
    return row, weights, xs, checks.state(row, row.name, state, B, H, dtype), arrays


def _in_precision(row: Cell, precision: Any, dtype: np.dtype[Any], engine: Any) -> Cell:
    """The cell with products whose factors are rounded."""
    if not isinstance(precision, str) or precision not in PRODUCTS:
        raise ValueError(
            f"{row.name}: precision is {precision!r}, expected None or one of"
            f" {', '.join(map(repr, PRODUCTS))}"
        )
    if dtype != np.float32:
        raise TypeError(
            f"{row.name}: precision is {precision!r} for weights of {dtype}, expected float32,"
            " because that is what the factors are rounded from and the products summed in"
        )
    if checks.engine(row.name, engine) == "numba":
        raise ValueError(
            f"{row.name}: engine is 'numba', expected 'auto' or 'numpy', because the kernels do not"
            f" round the factors of products, as precision={precision!r} asks"
        )
    if (row.x_product, row.h_product) != (plain, plain):
        raise ValueError(
            f"{row.name}: precision is {precision!r} for a cell that drops out, or has other"
            " products of its own, expected the plain product, because it stands in its place"
        )
    product = rounded(PRODUCTS[precision])
    return row._replace(x_product=product, h_product=product)


def run(
    cell: str | Cell,
    weights: Weights,
    xs: Any,
    state: Any = None,
    *,
    mask: Any = None,
    reset: Any = None,
    activation: Any = None,
    recurrent_activation: Any = None,
    go_backwards: bool = False,
    zero_output_for_mask: bool = False,
    last_output: Any = None,
    engine: str = "auto",
    precision: str | None = None,
) -> tuple[Array, AnyState]:
    """Run a cell along sequences, by the rule of `keras.layers.RNN`; pure: state in, state out.

    cell         "lstm", "gru", "gru_reset_before" or "simple"
    weights      `refrnn.Weights` in the Keras layout; its dtype is the dtype of the computation
    xs           (B, T, F); B and T may be 0
    state        each part (B, H), by name or in order (h, c); None for zeros
    mask         (B, T); where False the row keeps its state and repeats its last output
    reset        (B, T); where True the row forgets, state and last output, before that step
    activation, recurrent_activation
                 names of `refrnn.activations.ACTIVATIONS` or functions; None for tanh and sigmoid
    go_backwards walk from the last step to the first; outputs stay in processing order
    zero_output_for_mask
                 masked steps emit zeros instead of the last output: what cuDNN leaves there, where
                 Keras on the CPU repeats; the states are the same
    last_output  (B, H), what the last chunk emitted last; only a masked first step shows it
    engine       "numpy", "numba", or "auto": numba where there is a kernel for the cell and dtype
    precision    what a graphics card may do with float32, emulated on the NumPy engine: the factors
                 of each product are rounded first, the sums and all else are as ever. "tf32" (to
                 nearest), "tf32 cut", "float16 products", "bfloat16 products"; None for no rounding

    Returns the outputs (B, T, H) and the state after the last step, in the dtype of the weights.
    A row's numbers depend, in every bit, on that row alone: not on the rows beside it, nor on how
    its sequence is cut into calls that hand over the state (and, with a mask, the last output).

    Raises ValueError for a wrong name, shape or number of parts, TypeError for a wrong dtype,
    before anything is computed.
    """
    row, weights, xs, state, arrays = checked(
        cell, weights, xs, state, mask, reset, activation, recurrent_activation, last_output
    )
    if precision is not None:
        row = _in_precision(row, precision, weights.kernel.dtype, engine)
    return prepared(row.name, engine, row, weights)(
        xs,
        state,
        go_backwards=checks.flag(row.name, "go_backwards", go_backwards),
        zero_output_for_mask=checks.flag(row.name, "zero_output_for_mask", zero_output_for_mask),
        **arrays,
    )


def trace(
    cell: str | Cell,
    weights: Weights,
    xs: Any,
    state: Any = None,
    *,
    mask: Any = None,
    reset: Any = None,
    activation: Any = None,
    recurrent_activation: Any = None,
    go_backwards: bool = False,
) -> Trace:
    """Every gate of every step by name, each (B, T, H); arguments and errors as for `run`.

    Returns a `Trace`: for "lstm" .i .f .g .o .c .h, for the GRUs .z .r .g .h, for "simple" .h, and
    in `.pre` the sums before the activations under the names of their gates. Gates are shown as
    computed, on masked steps too; .h and .c are the state after the step, held where the mask is
    False. The numbers are those of the NumPy engine. `.summary()` and `.plot()` are for people.
    """
    row, weights, xs, state, arrays = checked(
        cell, weights, xs, state, mask, reset, activation, recurrent_activation, None
    )
    backwards = checks.flag(row.name, "go_backwards", go_backwards)
    gates = reference.trace(row, weights, xs, state, go_backwards=backwards, **arrays)
    del arrays["last_output"]
    return Trace(
        gates, cell=row, weights=weights, xs=xs, start=state, go_backwards=backwards, **arrays
    )
