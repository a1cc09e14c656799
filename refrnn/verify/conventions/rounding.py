"""Coarser numbers: rounded operands, narrow outputs, weights stored in fewer digits."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from refrnn.cells import Weights
from refrnn.formats import bfloat16, exactly, float16
from refrnn.gates import Array
from refrnn.reference import QUIET
from refrnn.verify.conventions.edit import Edit
from refrnn.verify.precisions import PRECISIONS
from refrnn.verify.scene import Scene

OPERATIONS = {
    "float64": "it computes in float64",
    "float32": "it computes in float32",
    "tf32": "products in TF32: their operands are rounded to 10 bits",
    "tf32 cut": "products in TF32: their operands are cut to 10 bits",
    "bfloat16 products": "products in bfloat16: their operands are rounded to 7 bits",
    "float16 products": "products in float16: their operands are rounded to float16",
    "bfloat16": "bfloat16: the outputs are numbers of that format, stored or computed in it",
    "float16": "float16: the outputs are numbers of that format, stored or computed in it",
}


FORMATS = {"bfloat16": bfloat16, "float16": float16}
BITS = {"bfloat16": 8, "float16": 11}  # of a significand


def _stored_in(name: str, values: Array) -> bool:
    """Whether numbers are of a format, as those are that were stored in it, and of no coarser."""
    if name not in FORMATS:
        return True
    with QUIET():
        if not np.any(values * 2.0 ** (BITS[name] + 1) % 1):
            return False  # multiples of what numbers near 1/2 are multiples of: fixed point
        shares = {n: float(np.mean(form(values) == values)) for n, form in FORMATS.items()}
    coarser = name == "float16" and shares["bfloat16"] > 0.99
    return shares[name] > 0.99 and not coarser


def precisions(base: Scene) -> Iterator[Edit]:
    def precision(name: str) -> Callable[[Scene], Scene | None]:
        def apply(s: Scene) -> Scene | None:
            coarser = PRECISIONS[name].pointwise > base.precision.pointwise
            if coarser and not _stored_in(name, s.y):
                return None
            return replace(s, precision=PRECISIONS[name])

        return apply

    def stored(rounding: Callable[[Array], Array]) -> Callable[[Scene], Scene | None]:
        return lambda s: replace(s, weights=Weights(*(rounding(a) for a in s.weights)))

    asked = base.precision
    for name, row in PRECISIONS.items():
        if row.pointwise >= asked.pointwise and row is not asked:
            yield Edit("precision", OPERATIONS[name], precision(name))
    if asked.operands is exactly:
        for name, rounding in FORMATS.items():
            yield Edit("stored weights", f"the weights are stored in {name}", stored(rounding))
            yield Edit("stored input", f"the input is stored in {name}", _input_in(rounding))
        for digits in (6, 5, 4, 3):
            yield Edit(
                "stored weights",
                f"the weights are printed with {digits} digits",
                stored(_printed(digits)),
                rare=True,
            )


def _input_in(rounding: Callable[[Array], Array]) -> Callable[[Scene], Scene]:
    return lambda s: replace(s, xs=rounding(s.xs))


def _printed(digits: int) -> Callable[[Array], Array]:
    """Decimal digits kept, as by %.6g; then stored in float32."""

    def rounding(a: Array) -> Array:
        exponent = np.floor(np.log10(np.maximum(np.abs(a), 1e-300)))
        unit = 10.0 ** (exponent - digits + 1)
        return (np.round(a / unit) * unit).astype(np.float32).astype(np.float64)

    return rounding
