"""Masks that travel with an array from layer to layer, as Keras 3 attaches them to tensors.

An array with a mask is a NumPy array like any other; whatever NumPy makes of it has none. So, as
in Keras, a mask goes from layer to layer and is lost in any operation between them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from refrnn.gates import Array


class Tensor(np.ndarray[Any, Any]):
    """An array that a layer returned, with the mask of its steps."""

    keras_mask: Array | None = None

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """Compute on plain arrays: the result has no mask."""
        plain = [np.asarray(x) if isinstance(x, Tensor) else x for x in inputs]
        if "out" in kwargs:
            kwargs["out"] = tuple(
                np.asarray(x) if isinstance(x, Tensor) else x for x in kwargs["out"]
            )
        return getattr(ufunc, method)(*plain, **kwargs)


def mask_of(array: Any) -> Array | None:
    """The mask that came with an array, or None."""
    return getattr(array, "keras_mask", None)


def with_mask(array: Array, mask: Any) -> Array:
    """The same numbers with `mask` attached; the array itself where mask is None."""
    if mask is None:
        return array
    carrier = np.asarray(array).view(Tensor)
    carrier.keras_mask = np.asarray(mask)
    return carrier


NESTED = (list, tuple, dict)


def map_arrays(function: Callable[[Any], Any], structure: Any) -> Any:
    """`function` of every leaf of nested lists, tuples and dictionaries, those by sorted key."""
    if not isinstance(structure, NESTED):
        return function(structure)
    if isinstance(structure, dict):
        parts = {name: map_arrays(function, structure[name]) for name in sorted(structure)}
        return {name: parts[name] for name in structure}
    mapped = [map_arrays(function, part) for part in structure]
    named = isinstance(structure, tuple) and hasattr(structure, "_fields")
    return type(structure)(*mapped) if named else type(structure)(mapped)


def leaves(structure: Any) -> list[Any]:
    """The leaves of nested lists, tuples and dictionaries, in order."""
    if not isinstance(structure, NESTED):
        return [structure]
    found: list[Any] = []
    map_arrays(found.append, structure)
    return found


def has_arrays(value: Any) -> bool:
    """Whether an argument of a call holds arrays, as Keras counts its tensor arguments."""
    return any(isinstance(leaf, np.ndarray) for leaf in leaves(value))
