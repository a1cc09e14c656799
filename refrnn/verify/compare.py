"""Two runs compared, array by array: first what they are, then their numbers."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from refrnn.gates import Array

Outputs = Mapping[str, Array]  # "y" (B, T, H), "h" and "c" (B, H), or a model's outputs


class Mismatch(AssertionError):
    """Two runs differ, or cannot be compared."""


class Difference(NamedTuple):
    """The largest difference between two runs.

    error  |got - want| / the largest |want| of that array (1 where that is 0)
    """

    error: float
    array: str
    at: tuple[int, ...]
    got: float
    want: float

    def __str__(self) -> str:
        where = ", ".join(map(str, self.at))
        return (
            f"{self.array}[{where}] is {self.got:.9g}, expected {self.want:.9g}:"
            f" off by {self.error:.1e} of the largest magnitude"
        )


def largest_difference(got: Outputs, want: Outputs) -> Difference:
    """The largest relative difference between two runs; NaN anywhere counts as infinite.

    Raises Mismatch if names, shapes or dtypes differ, or if there is nothing to compare.
    """
    if set(got) != set(want) or not want:
        raise Mismatch(f"arrays are {sorted(got)}, expected {sorted(want) or 'at least one'}")
    for name, array in want.items():
        for kind in ("shape", "dtype"):
            mine, other = getattr(got[name], kind), getattr(array, kind)
            if mine != other:
                raise Mismatch(f"{name} has {kind} {mine}, expected {other}")
    if not any(array.size for array in want.values()):
        raise Mismatch("nothing to compare: every array is empty")
    worst = None
    for name, array in want.items():
        if not array.size:
            continue
        a, b = got[name].astype(np.float64), array.astype(np.float64)
        scale = float(np.max(np.abs(b), initial=0, where=np.isfinite(b))) or 1.0
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.where(np.isnan(a) | np.isnan(b), np.inf, np.abs(a - b) / scale)
        error[(a == b)] = 0  # infinities of one sign agree
        at = tuple(int(i) for i in np.unravel_index(int(np.argmax(error)), error.shape))
        found = Difference(float(error[at]), name, at, float(a[at]), float(b[at]))
        if worst is None or found.error > worst.error:
            worst = found
    assert worst is not None
    return worst


def compare(got: Outputs, want: Outputs, relative: float, what: str) -> Difference:
    """`largest_difference`, raising Mismatch where it is more than `relative`."""
    found = largest_difference(got, want)
    if not found.error <= relative:
        raise Mismatch(f"{what}: {found}, allowed {relative:.1e}")
    return found


def same_bits(got: Outputs, want: Outputs) -> bool:
    """Whether two runs are equal in every bit; NaNs of equal bits are equal."""
    return set(got) == set(want) and all(
        got[name].dtype == array.dtype
        and got[name].shape == array.shape
        and got[name].tobytes() == array.tobytes()
        for name, array in want.items()
    )
