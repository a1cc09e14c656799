"""Numbers that carry bounds of their rounding errors through the equations of `gates`.

The equations are not written a second time: the functions of `gates` are called with `Tracked`
values, and each +, * and activation hands the bounds on by one rule. A value carries four of them:

    W   the worst case: no order of summation, fused or not, can be farther off
    P   the worst case of the cell, fed by sums whose roundings are independent in the mean
        (Higham & Mary 2019): sqrt(n) instead of n
    S   a standard deviation and, apart from it, what is systematic: errors of tanh and sigmoid

A part is what one source contributes, signed, so that a source that is met twice (z h + (1 - z) g)
counts with the difference of its factors.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from refrnn.activations import Activation
from refrnn.gates import Array
from refrnn.verify.precisions import U32, Precision

W, P, DEVIATION, SYSTEMATIC = range(4)
TIERS = ("W", "P", "S")
_fresh = itertools.count()


@dataclass(frozen=True)
class Arithmetic:
    """A precision, and how many standard deviations are allowed.

    many   for sums (P), from the number of elements judged and of roundings in each
    lam    for results (S): all of them stay inside with probability 1 - p
    """

    precision: Precision
    many: float
    lam: float

    @property
    def growth(self) -> float:
        """What rounding makes of errors themselves: none goes through more than 16 roundings."""
        return 1 + 16 * self.precision.pointwise

    def rounding(self, magnitude: Array) -> Array:
        """The part of one rounding of a value of that magnitude, (4, ...)."""
        u = self.precision.pointwise
        part = np.zeros((4, *magnitude.shape))
        part[W] = part[P] = u * magnitude + self.precision.tiny
        part[DEVIATION] = u / np.sqrt(3) * magnitude
        part[SYSTEMATIC] = self.precision.tiny
        return part


@dataclass(frozen=True, eq=False)
class Tracked:
    """A float64 value and the parts of its error by source, each (4, *value.shape)."""

    value: Array
    parts: dict[Any, Array]
    arithmetic: Arithmetic

    __array_ufunc__ = None  # a NumPy array on the left leaves the operation to this class

    def totals(self) -> Array:
        """W, P, the standard deviation and the systematic error, (4, ...)."""
        total = np.zeros((4, *self.value.shape))
        for part in self.parts.values():
            for row in (W, P, SYSTEMATIC):
                total[row] += np.abs(part[row])
            total[DEVIATION] += part[DEVIATION] ** 2
        total[DEVIATION] = np.sqrt(total[DEVIATION])
        total[: P + 1] *= self.arithmetic.growth
        return total

    def worst(self) -> Array:
        """W alone."""
        sizes = (np.abs(part[W]) for part in self.parts.values())
        return np.asarray(sum(sizes) * self.arithmetic.growth)

    def stored(self) -> "Tracked":
        """This, rounded once more."""
        return self._rounded(self.value, self.parts)

    def _rounded(self, value: Array, parts: dict[Any, Array]) -> "Tracked":
        """A result whose own rounding is not in `parts` yet."""
        rounding = {next(_fresh): self.arithmetic.rounding(np.abs(value))}
        return Tracked(value, parts | rounding, self.arithmetic)

    def __add__(self, other: Any) -> "Tracked":
        if not isinstance(other, Tracked):
            if np.ndim(other) == 0 and other == 0:
                return self  # nothing is added, nothing rounded
            other = Tracked(np.asarray(other, np.float64), {}, self.arithmetic)
        value = self.value + other.value
        parts = self.parts | other.parts
        for source in self.parts.keys() & other.parts.keys():
            parts[source] = self.parts[source] + other.parts[source]
        return self._rounded(value, parts)

    __radd__ = __add__

    def __rsub__(self, other: float) -> "Tracked":
        parts = {source: -part for source, part in self.parts.items()}
        return self._rounded(other - self.value, parts)

    def __mul__(self, other: Any) -> "Tracked":
        if not isinstance(other, Tracked):
            other = Tracked(np.asarray(other, np.float64), {}, self.arithmetic)
        parts = {source: part * other.value for source, part in self.parts.items()}
        factor = np.broadcast_to(self.value, (4, *self.value.shape)).copy()
        own = self.totals()[: P + 1]  # error times error goes to the right factor's sources
        factor[: P + 1] += np.copysign(own, self.value)
        for source, part in other.parts.items():
            met = part * factor
            parts[source] = parts[source] + met if source in parts else met
        return self._rounded(self.value * other.value, parts)

    __rmul__ = __mul__


def as_bounds(totals: Array, lam: float) -> dict[str, Array]:
    """W, P and S from (4, ...) totals; neither exceeds W, because W holds for certain."""
    statistical = lam * totals[DEVIATION] + totals[SYSTEMATIC]
    likely = np.minimum(totals[P], totals[W])
    return {"W": totals[W], "P": likely, "S": np.minimum(statistical, totals[W])}


def applied(activation: Activation) -> Callable[[Any], Any]:
    """An activation that takes Tracked values: its error, and what it makes of theirs."""

    def function(z: Tracked) -> Tracked:
        value = activation.value(z.value)
        totals = z.totals()
        reach = totals[:3].copy()
        reach[2] = z.arithmetic.lam * totals[DEVIATION] + totals[SYSTEMATIC]
        slope = _slopes(activation, z.value, value, reach, z.arithmetic.precision.u < U32)
        part = np.empty_like(totals)
        part[W], part[P] = slope[0] * reach[0], slope[1] * reach[1]
        part[DEVIATION], part[SYSTEMATIC] = (
            slope[2] * totals[DEVIATION],
            slope[2] * totals[SYSTEMATIC],
        )
        own = function_error(activation, z.value, value, z.arithmetic.precision)
        part[[W, P, SYSTEMATIC]] += own
        return Tracked(value, {next(_fresh): part}, z.arithmetic)

    return function


def function_error(activation: Activation, z: Array, value: Array, precision: Precision) -> Array:
    """How far an implementation's own activation may be off for an exact argument z."""
    u = precision.pointwise
    if activation.name == "sigmoid":
        return np.full(value.shape, precision.sigmoid * u)
    if activation.name in EXACT:
        return np.zeros(value.shape)
    error = precision.tanh * _spacing(value) * (u / U32)
    if activation.name == "tanh":
        error = np.where(np.abs(value) > 1 - NEAR, BEYOND * error, error)
    if activation.name not in RELATIVE:  # those that add terms of the size of 1 or z lose digits
        error = error + precision.sigmoid * u * np.maximum(1, np.abs(z))
    return np.where(np.isfinite(error), error, 0.0)


NEAR = 2.0**-20  # so near to 1, tanh is off by more:
BEYOND = 12 / 7  # ONNX Runtime's GRU puts out 1 and 10 spacings for it where |z| is over 9
SIGMOIDAL = frozenset({"tanh", "sigmoid"})
EXACT = frozenset({"linear", "relu", "relu6", "hard_tanh", "hard_shrink"})
RELATIVE = frozenset({"tanh", "leaky_relu", "softsign", "exponential"})


def _spacing(value: Array) -> Array:
    """The spacing of float32 at `value`."""
    _, exponent = np.frexp(np.maximum(np.abs(value), 2.0**-126))
    return np.ldexp(1.0, exponent - 24)


def _slopes(activation: Activation, z: Array, value: Array, reach: Array, fine: bool) -> Array:
    """The steepest chord of the activation from z to within `reach` of it, (3, ...).

    Exact for functions without a turn inside the reach, which is every gate's; the middles of the
    chords are tried too, for those that turn. Where `reach` is near float64's own spacing (`fine`)
    a chord has no digits left and the derivative stands for it.
    """
    f = activation.value
    if activation.kind == "rows":  # each result depends on all of the row
        jacobian = np.abs(activation.derivative(z))  # type: ignore[misc]
        total = np.einsum("...ok,t...k->t...o", jacobian, reach)
        return 2 * np.divide(total, reach, out=np.zeros_like(reach), where=reach > 0)
    if fine:
        if activation.derivative is not None:
            d = activation.derivative
            steep = np.maximum(np.abs(d(z)), np.maximum(np.abs(d(z - reach)), np.abs(d(z + reach))))
            return np.where(np.isfinite(steep), steep, 0.0) * (1 + 1e-6)
        reach = np.maximum(reach, 1e-7)
    moved = np.zeros_like(reach)
    if activation.name in SIGMOIDAL:  # steeper towards 0 than away from it
        ends: Any = (-np.copysign(1.0, z),)
    else:
        ends = (-1.0, -0.5, 0.5, 1.0)
    for share in ends:
        moved = np.maximum(moved, np.abs(f(z + share * reach) - value))
    slope = np.divide(moved, reach, out=np.zeros_like(reach), where=reach > 0)
    return np.where(np.isfinite(slope), slope, 0.0)


def wide(a: Any) -> Array:
    """In float64."""
    return np.asarray(a, np.float64)
