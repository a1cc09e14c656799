"""The arithmetic that an implementation claims: what is rounded, how finely, and how often.

A precision is not a tolerance. Where operands are rounded before a product (TF32, bfloat16), the
reference rounds them too, and the bound stays as tight as that of float32: only so does a residual
tell one precision from another.
"""

from dataclasses import dataclass

import numpy as np

from refrnn.formats import PRODUCTS, Rounding, bfloat16, exactly, float16

U16 = 2.0**-11  # half a spacing at 1: unit roundoffs
UBF16 = 2.0**-8
U32 = 2.0**-24
U64 = 2.0**-53
MAX32 = float(np.finfo(np.float32).max)
MAX64 = float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class Precision:
    """One row of the table.

    name       what users write
    u          unit roundoff of the sums of products
    pointwise  unit roundoff of the sums' results, gates and states
    largest    the largest finite number
    operands   how each factor of a product is rounded first
    operand_u  the unit roundoff of that, 0 for none
    tiny       an absolute floor: what is flushed to zero or lost among the smallest numbers
    tanh       largest error of tanh and of other activations, in spacings of the result
    sigmoid    largest error of sigmoid, in units of `pointwise`, absolute
    emitted    an output may differ by this many units of `pointwise` from the state that was
               carried on: XLA computes the two apart

    The constants for tanh (7 spacings) and sigmoid (4 units) are the largest errors measured among
    NumPy, PyTorch, XLA, ONNX Runtime and TensorFlow (5.7 and 3.0; 6.5 in ONNX Runtime's GRU), and a
    little more. For float64 they count the reference's own rounding as well, which is no finer.
    """

    name: str
    u: float
    pointwise: float
    largest: float
    operands: Rounding = exactly
    operand_u: float = 0.0
    tiny: float = 2.0**-120
    tanh: float = 7.0
    sigmoid: float = 4.0
    emitted: float = 1.0


PRECISIONS: dict[str, Precision] = {
    p.name: p
    for p in (
        Precision("float64", U64, 2 * U64, MAX64, tiny=2.0**-1000, tanh=6.0, sigmoid=4.0),
        Precision("float32", U32, U32, MAX32),
        Precision("tf32", U32, U32, MAX32, PRODUCTS["tf32"], U16),
        Precision("tf32 cut", U32, U32, MAX32, PRODUCTS["tf32 cut"], 2 * U16),
        Precision("float16 products", U32, U32, MAX32, float16, U16, tiny=2.0**-24),
        Precision("bfloat16 products", U32, U32, MAX32, bfloat16, UBF16),
        Precision("float16", U32, U16, 65504.0, float16, U16, tiny=2.0**-24, tanh=2.0, sigmoid=2.0),
        Precision("bfloat16", U32, UBF16, MAX32, bfloat16, UBF16, tanh=2.0, sigmoid=2.0),
    )
}
