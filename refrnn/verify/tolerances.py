"""How far two correct implementations may be apart, and why that far."""

from typing import NamedTuple


class Tolerance(NamedTuple):
    """The largest difference allowed, relative to the largest magnitude of the array compared."""

    relative: float
    why: str


TOLERANCES: dict[str, Tolerance] = {
    "float64": Tolerance(
        1e-12,
        "4500 spacings of float64 (2.2e-16): sums in another order stay within a few dozen, a"
        " wrong convention is off by 1e-1",
    ),
    "float32": Tolerance(
        1e-5,
        "84 spacings of float32 (1.2e-7), 3 times the largest difference measured between"
        " TensorFlow's own ways to run a layer (3.6e-6: SimpleRNN, eager against XLA); products in"
        " TF32 are off by 3e-4, a wrong convention by 1e-1",
    ),
}
