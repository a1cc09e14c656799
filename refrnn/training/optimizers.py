"""Optimizers in Keras 3's formulas and order of operations, in the dtype of the weights.

An optimizer changes weights in place, and keeps what it remembers of them from call to call. The
gradients of all weights lie in one array, one after the other, so that an update is a few
operations whatever the number of layers; each entry is computed as if it were alone.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from refrnn.gates import Array
from refrnn.reference import QUIET


class Optimizer:
    """What optimizers share; as `keras.optimizers.Optimizer`.

    learning_rate    may be set between updates
    clipnorm         scale the gradient of each weight to at most this norm
    clipvalue        clip each gradient to [-clipvalue, clipvalue]
    global_clipnorm  scale all gradients together to at most this norm

    One of the three at most. `iterations` counts the updates. Of float64 weights this is Keras with
    a floatx of float64; with another it rounds the learning rate to float32.
    """

    def __init__(
        self,
        learning_rate: float,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
    ) -> None:
        self.learning_rate = learning_rate
        clips = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
        given = {name: value for name, value in clips.items() if value is not None}
        if len(given) > 1:
            raise ValueError(
                f"{type(self).__name__}: {' and '.join(given)} are given, expected one of them,"
                " because each limits the gradients in its own way"
            )
        self.clipnorm, self.clipvalue, self.global_clipnorm = (
            None if value is None else self._number(name, value, above=True)
            for name, value in clips.items()
        )
        self.iterations = 0
        self._shapes: list[tuple[int, ...]] | None = None

    def _number(self, name: str, given: Any, above: bool = False, below: float = math.inf) -> float:
        """A number from 0 to `below`, that left out; without 0 too where `above`."""
        real = isinstance(given, int | float | np.number) and not isinstance(given, bool)
        if not real or not 0 <= given < below or (above and given == 0):
            limit = "" if below == math.inf else f" and below {below:g}"
            raise ValueError(
                f"{type(self).__name__}: {name} is {given!r}, expected a finite number"
                f" {'above' if above else 'of at least'} 0{limit}"
            )
        return float(given)

    @property
    def learning_rate(self) -> float:
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, given: float) -> None:
        self._learning_rate = self._number("learning_rate", given)

    def apply(self, gradients: Sequence[Array], weights: Sequence[Array]) -> None:
        """Make one update: change each of `weights`, in place, along its gradient.

        The weights are the same in each call, in shape, dtype and order. They may be read-only, as
        those of layers are (tell a layer by `weights_changed`), and are so again afterwards.

        Raises ValueError where a shape differs, FloatingPointError where a gradient, clipped, is
        not finite, before anything is changed.
        """
        if self._shapes is None:
            self._build(weights)
        self._check(gradients, weights)
        with QUIET():
            np.concatenate([g.reshape(-1) for g in gradients], out=self._gradient)
            self._clip()
            if not np.isfinite(self._gradient).all():
                raise FloatingPointError(self._not_finite())
            change = self._change(self._gradient, self._gradient.dtype.type)
        self.iterations += 1
        for weight, start, end in zip(weights, self._borders, self._borders[1:], strict=False):
            writeable = weight.flags.writeable
            weight.setflags(write=True)
            weight -= change[start:end].reshape(weight.shape)
            weight.setflags(write=writeable)

    def _build(self, weights: Sequence[Array]) -> None:
        """Make room for gradients and for what is remembered."""
        dtypes = {w.dtype for w in weights}
        if len(dtypes) != 1 or not dtypes <= {np.dtype("float32"), np.dtype("float64")}:
            raise ValueError(
                f"{type(self).__name__}: the weights have dtypes {sorted(map(str, dtypes))},"
                " expected one of them, float32 or float64"
            )
        self._shapes = [w.shape for w in weights]
        sizes = [w.size for w in weights]
        self._borders = [sum(sizes[:k]) for k in range(len(sizes) + 1)]
        self._gradient, self._scratch = np.zeros((2, sum(sizes)), weights[0].dtype)

    def _check(self, gradients: Sequence[Array], weights: Sequence[Array]) -> None:
        for what, arrays in (("weights", weights), ("gradients", gradients)):
            found = [a.shape for a in arrays]
            if found != self._shapes:
                raise ValueError(
                    f"{type(self).__name__}: the {what} have shapes {found}, expected"
                    f" {self._shapes}, those of the first update, because it remembers a number"
                    " for each of them; a new model needs a new optimizer"
                )

    def _clip(self) -> None:
        g, kind = self._gradient, self._gradient.dtype.type
        if self.clipvalue is not None:
            np.clip(g, -self.clipvalue, self.clipvalue, out=g)
        elif self.clipnorm is not None:
            limit = kind(self.clipnorm)
            for start, end in pairwise(self._borders):
                norm = np.sqrt(np.square(g[start:end]).sum())
                g[start:end] = g[start:end] * limit / np.maximum(norm, limit)
        elif self.global_clipnorm is not None:
            limit = kind(self.global_clipnorm)
            norm = np.sqrt(np.square(g).sum())
            g *= limit * np.minimum(kind(1) / norm, kind(1) / limit) + (norm - norm)

    def _not_finite(self) -> str:
        bad = [
            k
            for k, (start, end) in enumerate(pairwise(self._borders))
            if not np.isfinite(self._gradient[start:end]).all()
        ]
        return (
            f"{type(self).__name__}: the gradient of weight {bad[0]} is not finite, expected"
            " numbers, because the weight would be NaN from then on"
        )

    def _change(self, g: Array, kind: Any) -> Array:
        """What to subtract from the weights, for the gradients g. kind makes numbers of its dtype.

        May overwrite g and the scratch array.
        """
        raise NotImplementedError


class SGD(Optimizer):
    """Gradient descent with momentum, as `keras.optimizers.SGD`.

    w <- w + v, where v <- momentum * v - learning_rate * g; with nesterov
    w <- w + momentum * v - learning_rate * g. Without momentum w <- w - learning_rate * g.
    """

    def __init__(
        self,
        learning_rate: float = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, clipnorm, clipvalue, global_clipnorm)
        self.momentum = self._number("momentum", momentum, below=1)
        if not isinstance(nesterov, bool):
            raise ValueError(f"SGD: nesterov is {nesterov!r}, expected True or False")
        self.nesterov = nesterov

    def _build(self, weights: Sequence[Array]) -> None:
        super()._build(weights)
        self._velocity = np.zeros_like(self._gradient)

    def _change(self, g: Array, kind: Any) -> Array:
        g *= kind(self.learning_rate)
        if not self.momentum:
            return g
        v, momentum = self._velocity, _cast(self.momentum, kind)
        v *= momentum
        v -= g
        if self.nesterov:
            np.multiply(v, momentum, out=self._scratch)
            np.subtract(g, self._scratch, out=g)
            return g
        return np.negative(v, out=g)


class Adam(Optimizer):
    """Adam, as `keras.optimizers.Adam`. Kingma & Ba (2015), the form before their section 2.1.

    m <- m + (g - m) * (1 - beta_1) and v <- v + (g^2 - v) * (1 - beta_2), then
    w <- w - m * alpha / (sqrt(v) + epsilon), where after n updates, this one included,
    alpha = learning_rate * sqrt(1 - beta_2^n) / (1 - beta_1^n).
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, clipnorm, clipvalue, global_clipnorm)
        self.beta_1, self.beta_2 = (
            self._number(name, given, below=1)
            for name, given in (("beta_1", beta_1), ("beta_2", beta_2))
        )
        self.epsilon = self._number("epsilon", epsilon)

    def _build(self, weights: Sequence[Array]) -> None:
        super()._build(weights)
        self._m, self._v = np.zeros((2, self._gradient.size), self._gradient.dtype)

    def _change(self, g: Array, kind: Any) -> Array:
        m, v, scratch, n = self._m, self._v, self._scratch, kind(self.iterations + 1)
        one, rate = kind(1), kind(self.learning_rate)
        powers = [_cast(beta, kind) ** n for beta in (self.beta_1, self.beta_2)]
        alpha = rate * np.sqrt(one - powers[1]) / (one - powers[0])
        np.subtract(g, m, out=scratch)
        scratch *= kind(1 - self.beta_1)
        m += scratch
        np.square(g, out=g)
        g -= v
        g *= kind(1 - self.beta_2)
        v += g
        np.sqrt(v, out=scratch)
        scratch += kind(self.epsilon)
        np.multiply(m, alpha, out=g)
        g /= scratch
        return g


def _cast(number: float, kind: Any) -> Any:
    """As `keras.ops.cast` has it: TensorFlow makes a float32 of a number, then one of its kind."""
    return kind(np.float32(number))


OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {"sgd": SGD, "adam": Adam}


def get(given: Any) -> Optimizer:
    """A new optimizer of that name, with its defaults; an `Optimizer` is passed through."""
    if isinstance(given, Optimizer):
        return given
    if not isinstance(given, str) or given.lower() not in OPTIMIZERS:
        raise ValueError(
            f"optimizer is {given!r}, expected one of {', '.join(map(repr, OPTIMIZERS))}, or an"
            " optimizer of refrnn.training"
        )
    return OPTIMIZERS[given.lower()]()
