"""The right equations in another arithmetic than the one that is claimed."""

from collections.abc import Callable
from typing import Any

import numpy as np

from refrnn import cells, formats
from refrnn.cells import Cell, Weights
from refrnn.formats import Rounding
from refrnn.gates import Array
from refrnn.verify.mutants.engine import Call, Engine, one_step
from refrnn.verify.mutants.mutant import ALL, GATED, Mutant

GITHUB = "https://github.com/"
LSTM = ("lstm",)


def kept(a: Array, rounding: Rounding) -> Array:
    """Rounded to a coarser format, in the dtype that it came in."""
    return rounding(a).astype(a.dtype)


def fixed(bits: int) -> Rounding:
    """Fixed point with so many bits behind the point."""
    return lambda a: np.round(np.ldexp(a, bits)) * 2.0**-bits


def int8(a: Array) -> Array:
    """Eight bits over the range of the whole tensor."""
    scale = float(np.max(np.abs(a), initial=0)) / 127 or 1.0
    return np.round(a / scale) * scale


def weights(rounding: Rounding) -> Engine:
    return Engine(weights=lambda cell, w: Weights(*(kept(a, rounding) for a in w)))


def products(rounding: Rounding, which: str = "x_product h_product") -> Engine:
    """Both factors of a product rounded, and exactly multiplied."""
    product = cells.rounded(lambda a: kept(a, rounding))
    changed: dict[str, Any] = dict.fromkeys(which.split(), product)
    return Engine(cell=lambda cell: cell._replace(**changed))


def summed(rounding: Rounding) -> Engine:
    """Sums of products rounded after every term."""

    def product(a: Array, b: Array, gates: slice = cells.ALL) -> Array:
        total = np.zeros((*a.shape[:-1], b.shape[1]), a.dtype)
        for k in range(len(b)):
            total = kept(total + a[..., k, None] * b[k], rounding)
        return total

    return Engine(cell=lambda cell: cell._replace(x_product=product, h_product=product))


def stored(rounding: Rounding, parts: str) -> Engine:
    """Some parts of the state rounded after every step."""

    def step(cell: Cell, w: Weights, state: Any, x: Array) -> Any:
        new = one_step(cell, w, state, x)
        return new._replace(**{p: kept(getattr(new, p), rounding) for p in parts.split()})

    return Engine(step=step)


def activations(rounding: Rounding) -> Engine:
    """Gates rounded."""

    def change(cell: Cell) -> Cell:
        def rounded(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
            return lambda z: kept(function(z), rounding)

        return cell._replace(
            act=cell.act._replace(value=rounded(cell.act.value)),
            rec=cell.rec._replace(value=rounded(cell.rec.value)),
        )

    return Engine(cell=change)


def inputs(rounding: Rounding) -> Engine:
    def called(call: Call) -> Call:
        return call._replace(x=kept(call.x, rounding))

    return Engine(called=called)


def outputs(rounding: Rounding) -> Engine:
    return Engine(result=lambda y, past: (kept(y, rounding), past[-1]))


_ROWS: tuple[tuple[str, tuple[str, ...], str, Engine, str], ...] = (
    ("float16 weights", ALL, "the weights were stored in float16", weights(formats.float16), ""),
    ("bfloat16 weights", ALL, "the weights were stored in bfloat16", weights(formats.bfloat16), ""),
    ("int8 weights", ALL, "the weights were stored in 8 bits, one scale a tensor", weights(int8),
     "tensorflow/tensorflow/issues/48487"),
    ("Q4.12 weights", ALL, "the weights were stored with 12 bits behind the point",
     weights(fixed(12)), "fastmachinelearning/hls4ml/issues/594"),
    ("TF32 products", ALL, "the factors of products are rounded to TF32",
     products(formats.tf32), "keras-team/tf-keras/issues/772"),
    ("TF32 products, cut", ALL, "the factors of products are cut to TF32",
     products(formats.tf32_cut), "microsoft/onnxruntime/issues/20338"),
    ("TF32 recurrent products", ALL, "only the state's product is in TF32",
     products(formats.tf32, "h_product"), ""),
    ("TF32 input products", ALL, "only the input's product is in TF32",
     products(formats.tf32, "x_product"), ""),
    ("bfloat16 products", ALL, "the factors of products are rounded to bfloat16",
     products(formats.bfloat16), ""),
    ("float16 products", ALL, "the factors of products are rounded to float16",
     products(formats.float16), ""),
    ("float16 sums", ALL, "sums of products are kept in float16", summed(formats.float16), ""),
    ("bfloat16 sums", ALL, "sums of products are kept in bfloat16", summed(formats.bfloat16), ""),
    ("TF32 sums", ALL, "sums of products are kept with 10 bits", summed(formats.tf32), ""),
    ("float16 h", ALL, "h is stored in float16 between steps", stored(formats.float16, "h"), ""),
    ("bfloat16 h", ALL, "h is stored in bfloat16 between steps", stored(formats.bfloat16, "h"), ""),
    ("Q15 h", ALL, "h is stored with 15 bits behind the point", stored(fixed(15), "h"),
     "tensorflow/tflite-micro/issues/2449"),
    ("int8 h", ALL, "h is stored with 7 bits behind the point", stored(fixed(7), "h"), ""),
    ("float16 c", LSTM, "c is stored in float16 between steps", stored(formats.float16, "c"), ""),
    ("bfloat16 c", LSTM, "c is stored in bfloat16 between steps", stored(formats.bfloat16, "c"),
     ""),
    ("Q4.11 c", LSTM, "c is stored with 11 bits behind the point", stored(fixed(11), "c"), ""),
    ("float16 activations", ALL, "gates and candidates are rounded to float16",
     activations(formats.float16), ""),
    ("float16 input", ALL, "the input was handed over in float16", inputs(formats.float16), ""),
    ("bfloat16 input", ALL, "the input was handed over in bfloat16", inputs(formats.bfloat16), ""),
    ("float16 outputs", ALL, "only the outputs are rounded to float16", outputs(formats.float16),
     ""),
    ("Q7 gates", GATED, "gates are rounded to 7 bits behind the point", activations(fixed(7)), ""),
)  # fmt: skip

PRECISIONS = tuple(
    Mutant(name, "precision", applies, wrong, engine.implementation, issue and GITHUB + issue)
    for name, applies, wrong, engine, issue in _ROWS
)
