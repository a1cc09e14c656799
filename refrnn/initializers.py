"""How untrained weights are drawn: Keras's names and distributions, from NumPy's generator.

The distributions are Keras's; the numbers are not, because the generators differ. A layer also
takes any function `f(shape, dtype=...)` as an initializer.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from refrnn.gates import Array

# a normal cut off at two standard deviations has this standard deviation
CUT_NORMAL_STD = 0.87962566103423978


class Initializer:
    """A distribution. Called with a shape and a dtype it returns a new array.

    seed  an integer draws the same numbers at each call; None draws new ones
    """

    ARGUMENTS: ClassVar[dict[str, Any]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        names = list(self.ARGUMENTS)
        given = dict(zip(names, args, strict=False))
        unknown = sorted(set(kwargs) - set(names) | set(kwargs) & set(given))
        if unknown or len(args) > len(names):
            raise ValueError(
                f"{type(self).__name__}: unexpected arguments {unknown or args}, expected"
                f" {', '.join(names) or 'none'}, each once"
            )
        given |= kwargs
        seed = given.get("seed")
        if seed is not None and (not isinstance(seed, int | np.integer) or seed < 0):
            raise ValueError(
                f"{type(self).__name__}: seed is {seed!r}, expected None or a whole number of at"
                " least 0"
            )
        vars(self).update(self.ARGUMENTS | given)

    def __call__(self, shape: tuple[int, ...], dtype: Any = "float32") -> Array:
        values = self.draw(tuple(shape), np.random.default_rng(getattr(self, "seed", None)))
        return np.asarray(values).astype(dtype)

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        """Values of `shape` in float64."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it draws")

    def get_config(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.ARGUMENTS}

    def __repr__(self) -> str:
        settings = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({settings})"


class Zeros(Initializer):
    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return np.zeros(shape)


class Ones(Initializer):
    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return np.ones(shape)


class Constant(Initializer):
    ARGUMENTS: ClassVar = {"value": 0.0}
    value: float

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return np.full(shape, self.value)


class Identity(Initializer):
    ARGUMENTS: ClassVar = {"gain": 1.0}
    gain: float

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        if len(shape) != 2:
            raise ValueError(f"Identity: shape is {shape}, expected two dimensions, for a matrix")
        return self.gain * np.eye(*shape)


class RandomNormal(Initializer):
    ARGUMENTS: ClassVar = {"mean": 0.0, "stddev": 0.05, "seed": None}
    mean: float
    stddev: float

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return rng.normal(self.mean, self.stddev, shape)


class TruncatedNormal(RandomNormal):
    """A normal whose values beyond two standard deviations are drawn again."""

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        values = rng.standard_normal(shape)
        while (far := np.abs(values) > 2).any():
            values[far] = rng.standard_normal(int(far.sum()))
        return self.mean + self.stddev * values


class RandomUniform(Initializer):
    ARGUMENTS: ClassVar = {"minval": -0.05, "maxval": 0.05, "seed": None}
    minval: float
    maxval: float

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return rng.uniform(self.minval, self.maxval, shape)


class Orthogonal(Initializer):
    """Orthonormal rows or columns, whichever are fewer. Saxe et al. (2013).

    For the recurrent kernel of a gated cell the fused (H, G*H) matrix is orthogonal, not each
    gate's block.
    """

    ARGUMENTS: ClassVar = {"gain": 1.0, "seed": None}
    gain: float

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        if len(shape) < 2:
            raise ValueError(f"Orthogonal: shape is {shape}, expected two dimensions or more")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
        q = q * np.sign(np.diag(r))  # makes the distribution uniform (Haar)
        return self.gain * (q.T if rows < columns else q).reshape(shape)


class VarianceScaling(Initializer):
    """Variance scale / n, n the fan in, the fan out or their mean.

    distribution  "truncated_normal", "untruncated_normal" or "uniform"
    """

    ARGUMENTS: ClassVar = {
        "scale": 1.0,
        "mode": "fan_in",
        "distribution": "truncated_normal",
        "seed": None,
    }
    scale: float
    mode: str
    distribution: str

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        fans = _fans(shape)
        fans["fan_avg"] = sum(fans.values()) / 2
        if self.mode not in fans:
            raise ValueError(f"VarianceScaling: mode is {self.mode!r}, expected {list(fans)}")
        variance = self.scale / max(1.0, fans[self.mode])
        draws: dict[str, Callable[[], Initializer]] = {
            "truncated_normal": lambda: TruncatedNormal(0.0, math.sqrt(variance) / CUT_NORMAL_STD),
            "untruncated_normal": lambda: RandomNormal(0.0, math.sqrt(variance)),
            "uniform": lambda: RandomUniform(-math.sqrt(3 * variance), math.sqrt(3 * variance)),
        }
        if self.distribution not in draws:
            raise ValueError(
                f"VarianceScaling: distribution is {self.distribution!r}, expected {list(draws)}"
            )
        return draws[self.distribution]().draw(shape, rng)


def _fans(shape: tuple[int, ...]) -> dict[str, float]:
    """Inputs and outputs of one unit, as Keras counts them."""
    if len(shape) < 2:
        n = float(math.prod(shape))
        return {"fan_in": n, "fan_out": n}
    field = math.prod(shape[:-2])
    return {"fan_in": float(shape[-2] * field), "fan_out": float(shape[-1] * field)}


def _scaling(name: str, scale: float, mode: str, distribution: str) -> type[VarianceScaling]:
    """A VarianceScaling with its settings fixed, under the name that Keras gives it."""

    def draw(self: Any, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return VarianceScaling(scale, mode, distribution).draw(shape, rng)

    return type(name, (VarianceScaling,), {"ARGUMENTS": {"seed": None}, "draw": draw})


GlorotUniform = _scaling("GlorotUniform", 1.0, "fan_avg", "uniform")
GlorotNormal = _scaling("GlorotNormal", 1.0, "fan_avg", "truncated_normal")
HeUniform = _scaling("HeUniform", 2.0, "fan_in", "uniform")
HeNormal = _scaling("HeNormal", 2.0, "fan_in", "truncated_normal")
LecunUniform = _scaling("LecunUniform", 1.0, "fan_in", "uniform")
LecunNormal = _scaling("LecunNormal", 1.0, "fan_in", "truncated_normal")

INITIALIZERS: dict[str, type[Initializer]] = {
    "zeros": Zeros,
    "ones": Ones,
    "constant": Constant,
    "identity": Identity,
    "random_normal": RandomNormal,
    "truncated_normal": TruncatedNormal,
    "random_uniform": RandomUniform,
    "orthogonal": Orthogonal,
    "variance_scaling": VarianceScaling,
    "glorot_uniform": GlorotUniform,
    "glorot_normal": GlorotNormal,
    "he_uniform": HeUniform,
    "he_normal": HeNormal,
    "lecun_uniform": LecunUniform,
    "lecun_normal": LecunNormal,
}
_CLASSES = {kind.__name__: kind for kind in INITIALIZERS.values()}
_CLASSES |= {  # further names that Keras knows
    "OrthogonalInitializer": Orthogonal,
    "IdentityInitializer": Identity,
    "normal": RandomNormal,
    "uniform": RandomUniform,
    "one": Ones,
    "zero": Zeros,
}


def get(who: str, identifier: Any) -> Callable[..., Array]:
    """The initializer that a name, a Keras config, a class or a function stands for.

    Raises ValueError for a name that is not in INITIALIZERS.
    """
    if isinstance(identifier, dict) and "class_name" in identifier:
        kind, settings = identifier["class_name"], identifier.get("config") or {}
        if isinstance(kind, str) and kind in _CLASSES and isinstance(settings, dict):
            unused = {"input_axes", "output_axes"}  # of newer Keras; None where they do nothing
            settings = {k: v for k, v in settings.items() if v is not None or k not in unused}
            try:
                return _CLASSES[kind](**settings)
            except ValueError as error:
                raise ValueError(f"{who}: {error}") from None
    elif isinstance(identifier, str):
        found = INITIALIZERS.get(identifier) or _CLASSES.get(identifier)
        if found:
            return found()
    elif isinstance(identifier, type):
        if issubclass(identifier, Initializer):
            return identifier()
    elif callable(identifier):
        return identifier
    raise ValueError(
        f"{who}: initializer {identifier!r} is not known; expected one of"
        f" {', '.join(INITIALIZERS)}, an object of refrnn.initializers, or f(shape, dtype=...)"
    )


def serialize(who: str, initializer: Any) -> dict[str, Any]:
    """The initializer as Keras writes it into a config. ValueError for a function."""
    if type(initializer) not in _CLASSES.values():
        raise ValueError(
            f"{who}: initializer {initializer!r} cannot be written into a config, expected a name"
            " or an object of refrnn.initializers, because a function would be stored as code"
        )
    return {
        "module": "keras.initializers",
        "class_name": type(initializer).__name__,
        "config": initializer.get_config(),
        "registered_name": None,
    }
