"""Layers that make one array of several: a call takes a list of them."""

from collections.abc import Callable
from functools import reduce
from typing import Any, ClassVar

import numpy as np

from refrnn import cells
from refrnn.gates import Array
from refrnn.layers.base import REQUIRED, Layer
from refrnn.layers.masks import mask_of
from refrnn.layers.normalization import total
from refrnn.layers.reshaping import moved
from refrnn.reference import QUIET

Masks = list[Array | None]
KERAS_EPSILON = 1e-7  # what `keras.backend.epsilon()` is by default


class Merge(Layer):
    """What the merging layers share; see `keras.layers.Add` and its kin.

    Shapes broadcast, but for the batch; an input with fewer axes gets axes of size 1 behind the
    batch. The output has a mask if all inputs have one: where any of them is True. Inputs that are
    all integers are merged as integers; otherwise all are cast to the layer's dtype.
    """

    supports_masking = True
    NUMBER: ClassVar[int | None] = None  # of inputs; at least one where None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.built = True

    def merged(self, arrays: list[Array], masks: Masks) -> Array:
        raise NotImplementedError

    def call(self, inputs: Any, training: bool = False) -> Array:
        arrays = self._arrays(inputs)
        masks: Masks = [mask_of(given) for given in inputs]
        with QUIET():
            return self.merged(*self._fitted(arrays, masks))

    def _arrays(self, given: Any) -> list[Array]:
        """The inputs as arrays of one dtype, as many as there must be."""
        if not isinstance(given, list | tuple) or len(given) != (self.NUMBER or len(given) or 1):
            found = f"{len(given)} arrays" if isinstance(given, list | tuple) else type(given)
            wanted = f"{self.NUMBER}" if self.NUMBER else "at least one"
            raise ValueError(
                f"{self.who}: called on {found}, expected a list of {wanted}, because it merges its"
                " inputs"
            )
        arrays = [moved(self.who, array, self.dtype) for array in given]
        if not all(array.ndim for array in arrays):
            raise ValueError(f"{self.who}: an input is a single number, expected (batch, ...)")
        kinds = {array.dtype.kind for array in arrays}
        whole = kinds <= self.WHOLE
        common = np.result_type(*arrays) if whole else self.dtype
        return [np.asarray(array, common) for array in arrays]

    WHOLE: ClassVar[set[str]] = {"i", "u"}  # kinds of dtype that are merged as they are

    def _fitted(self, arrays: list[Array], masks: Masks) -> tuple[list[Array], Masks]:
        """Arrays of one rank. As in Keras an array that got axes plays its part without mask."""
        shapes = ", ".join(str(array.shape) for array in arrays)
        rank = max(array.ndim for array in arrays)
        wide = [a.reshape(len(a), *[1] * (rank - a.ndim), *a.shape[1:]) for a in arrays]
        try:
            np.broadcast_shapes(*(array.shape[1:] for array in wide))
            fit = len({len(array) for array in arrays}) == 1
        except ValueError:
            fit = False
        if not fit:
            raise ValueError(
                f"{self.who}: the inputs have shapes {shapes}, expected the same batch and sizes"
                " that are equal or 1 along the other axes"
            )
        kept = [m if a.ndim == rank else None for m, a in zip(masks, arrays, strict=True)]
        return wide, kept

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        if any(mask is None for mask in previous_mask):
            return None
        rank = max(np.ndim(mask) for mask in previous_mask)
        return reduce(np.logical_or, (_trailing(mask, rank) for mask in previous_mask))


def _trailing(mask: Any, rank: int) -> Array:
    """A mask with axes of size 1 added behind, so that it lies along the first axes."""
    found = np.asarray(mask) != 0
    return found.reshape(*found.shape, *[1] * (rank - found.ndim))


def _spread(mask: Any, x: Array) -> Array:
    """A mask for each step as one for each number of x."""
    return np.broadcast_to(_trailing(mask, x.ndim), x.shape)


class Add(Merge):
    """The sum of the inputs, as `keras.layers.Add`."""

    def merged(self, arrays: list[Array], masks: Masks) -> Array:
        return reduce(np.add, arrays[1:], arrays[0].copy())


class Subtract(Merge):
    """The first of two inputs less the second, as `keras.layers.Subtract`."""

    NUMBER = 2

    def merged(self, arrays: list[Array], masks: Masks) -> Array:
        return np.subtract(*arrays)


class Average(Add):
    """The mean of the inputs, as `keras.layers.Average`; always in the layer's dtype."""

    WHOLE: ClassVar[set[str]] = set()

    def merged(self, arrays: list[Array], masks: Masks) -> Array:
        return super().merged(arrays, masks) / np.asarray(len(arrays), self.dtype)


class Multiply(Merge):
    """The product of the inputs, as `keras.layers.Multiply`.

    A masked step of an input counts as 1, and where all inputs are masked the product is 0.
    """

    def merged(self, arrays: list[Array], masks: Masks) -> Array:
        product, live = np.ones(1, arrays[0].dtype), []
        for x, mask in zip(arrays, masks, strict=True):
            if mask is not None:
                live.append(_spread(mask, x))
                x = np.where(live[-1], x, np.asarray(1, x.dtype))
            product = product * x
        if len(live) < len(arrays):
            return product
        return np.where(reduce(np.logical_or, live), product, np.asarray(0, product.dtype))


class _Extreme(Merge):
    """A masked step of an input takes no part where another input is not masked."""

    CHOOSE: ClassVar[Callable[..., Any]]

    def merged(self, arrays: list[Array], masks: Masks) -> Array:
        spread = [
            None if mask is None else _spread(mask, x)
            for x, mask in zip(arrays, masks, strict=True)
        ]
        output, live = arrays[0].copy(), spread[0]
        for x, mask in zip(arrays[1:], spread[1:], strict=True):
            if mask is not None:
                x = np.where(mask, x, output)
            if live is not None:
                output = np.where(live, output, x)
            live = None if mask is None or live is None else live | mask
            output = type(self).CHOOSE(output, x)
        return output


class Maximum(_Extreme):
    """The largest of the inputs, entry by entry, as `keras.layers.Maximum`."""

    CHOOSE = np.maximum


class Minimum(_Extreme):
    """The smallest of the inputs, entry by entry, as `keras.layers.Minimum`."""

    CHOOSE = np.minimum


class Concatenate(Merge):
    """The inputs one after another along `axis`, as `keras.layers.Concatenate`.

    The output has a mask if any input has one; a step of an input without mask counts as True.
    """

    ARGUMENTS: ClassVar = {"axis": -1}
    WHOLE: ClassVar[set[str]] = {"i", "u", "b"}
    axis: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mixes_time = self.axis == 1 or self.axis < -1

    def _convert(self, argument: str, value: Any) -> Any:
        if argument != "axis":
            return super()._convert(argument, value)
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ValueError(f"{self.who}: axis is {value!r}, expected a whole number")
        return int(value)

    def _fitted(self, arrays: list[Array], masks: Masks) -> tuple[list[Array], Masks]:
        rank, axis = arrays[0].ndim, self.axis
        others = {
            (a.ndim, *(n for k, n in enumerate(a.shape) if k not in (axis, axis + a.ndim)))
            for a in arrays
        }
        if len(others) > 1 or not -rank <= axis < rank:
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise ValueError(
                f"{self.who}: the inputs have shapes {shapes}, expected an axis {axis} in each, and"
                " equal sizes along all others"
            )
        return arrays, masks

    def merged(self, arrays: list[Array], masks: Masks) -> Array:
        return np.concatenate(arrays, axis=self.axis)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        if all(mask is None for mask in previous_mask):
            return None
        spread = [
            np.ones(np.shape(x), bool) if mask is None else _spread(mask, np.asarray(x))
            for x, mask in zip(inputs, previous_mask, strict=True)
        ]
        return np.any(np.concatenate(spread, axis=self.axis), axis=-1)


class Dot(Merge):
    """The inner product of two inputs along an axis of each, as `keras.layers.Dot`.

    axes       the axis of both, or a pair; not 0, the batch
    normalize  whether to scale each input to length 1 along its axis first

    The output has the other axes of the first input, then those of the second; (B, 1) where there
    are none. It has no mask.
    """

    ARGUMENTS: ClassVar = {"axes": REQUIRED, "normalize": False}
    WHOLE: ClassVar[set[str]] = set()
    NUMBER = 2
    mixes_time = True
    axes: int | list[int] | tuple[int, int]
    normalize: bool

    def _convert(self, argument: str, value: Any) -> Any:
        if argument != "axes":
            return super()._convert(argument, value)
        pair = value if isinstance(value, list | tuple) else (value, value)
        if len(pair) != 2 or any(isinstance(k, bool) or not isinstance(k, int) for k in pair):
            raise ValueError(f"{self.who}: axes is {value!r}, expected a whole number or two")
        return value

    def _fitted(self, arrays: list[Array], masks: Masks) -> tuple[list[Array], Masks]:
        x, y = arrays
        given = self.axes if isinstance(self.axes, list | tuple) else (self.axes, self.axes)
        inside = all(
            0 < k % a.ndim and -a.ndim <= k < a.ndim for k, a in zip(given, arrays, strict=True)
        )
        fit = len(x) == len(y) and inside and x.shape[given[0]] == y.shape[given[1]]
        if not fit:
            raise ValueError(
                f"{self.who}: the inputs have shapes {x.shape} and {y.shape}, expected the same"
                f" batch, and the same size along axes {self.axes}, which must not be the batch"
            )
        return [np.moveaxis(x, given[0], -1), np.moveaxis(y, given[1], 1)], masks

    def merged(self, arrays: list[Array], masks: Masks) -> Array:
        x, y = arrays  # (B, ..., K), (B, K, ...)
        if self.normalize:
            x, y = _unit(x, -1), _unit(y, 1)
        B, K = len(x), x.shape[-1]
        left = np.ascontiguousarray(x).reshape(B, -1 if B and K else _size(x.shape[1:-1]), K)
        right = np.ascontiguousarray(y).reshape(B, K, -1 if B and K else _size(y.shape[2:]))
        # row by row: a product of several rows at once could sum in another order
        products = np.zeros((B, left.shape[1], right.shape[2]), self.dtype)
        for row, (a, b) in enumerate(zip(left, right, strict=True)):
            products[row] = cells.dot(a, b)
        shape = (*x.shape[1:-1], *y.shape[2:]) or (1,)
        return products.reshape(B, *shape)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return None


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=int))


def _unit(x: Array, axis: int) -> Array:
    """x scaled to length 1 along an axis; as in Keras by 1e7 at most."""
    squares = total(np.square(x), (axis % x.ndim,))
    return x * np.minimum(1 / np.sqrt(squares), np.asarray(1 / KERAS_EPSILON, x.dtype))
