"""The states and outputs of cells: their sizes, zeros, and structures of arrays side by side."""

from collections.abc import Callable
from typing import Any

import numpy as np

from refrnn.layers.masks import leaves, map_arrays


def shape_of(size: Any) -> tuple[int, ...]:
    """A leaf of state_size or output_size as a shape without the batch.

    A whole number is a width; a TensorShape of TensorFlow, as in Keras 2, a shape.
    """
    return tuple(map(int, size.as_list() if hasattr(size, "as_list") else [size]))


def zeros(sizes: Any, rows: int, dtype: np.dtype[Any]) -> Any:
    """Zeros (rows, ...) in the structure of `sizes`."""
    return map_arrays(lambda size: np.zeros((rows, *shape_of(size)), dtype), sizes)


def output_size(cell: Any) -> Any:
    """The size of a cell's output: its output_size, else its first state's size."""
    found = getattr(cell, "output_size", None)
    return leaves(cell.state_size)[0] if found is None else found


def initial_state(cell: Any, rows: int, dtype: np.dtype[Any]) -> Any:
    """What a cell's get_initial_state gives, or zeros in the structure of its state_size.

    dtype  that of the state of a cell that has none of its own
    """
    own = getattr(cell, "dtype", None)
    kind = own if isinstance(own, np.dtype) else dtype
    if hasattr(cell, "get_initial_state"):
        given = cell.get_initial_state(batch_size=rows)
        if getattr(cell, "IS_CUSTOM", True):  # refrnn's own cells make what they compute in
            given = map_arrays(lambda part: np.asarray(part, kind), given)
    else:
        given = zeros(cell.state_size, rows, kind)
    return given if isinstance(given, list | tuple) else [given]


def together(function: Callable[..., Any], structure: Any, *others: Any) -> Any:
    """`function` of the leaves of structures of one form; the result has that of the first.

    Lists and tuples are one form. Raises ValueError where the forms differ.
    """
    if isinstance(structure, dict):
        if not all(isinstance(o, dict) and o.keys() == structure.keys() for o in others):
            raise ValueError(f"{_form(others[0])}, expected {_form(structure)}")
        return {
            name: together(function, part, *(o[name] for o in others))
            for name, part in structure.items()
        }
    if isinstance(structure, list | tuple):
        if not all(isinstance(o, list | tuple) and len(o) == len(structure) for o in others):
            raise ValueError(f"{_form(others[0])}, expected {_form(structure)}")
        parts = [together(function, *part) for part in zip(structure, *others, strict=True)]
        named = hasattr(structure, "_fields")
        return type(structure)(*parts) if named else type(structure)(parts)
    if any(isinstance(o, dict | list | tuple) for o in others):
        raise ValueError(f"{_form(others[0])}, expected {_form(structure)}")
    return function(structure, *others)


def alike(a: Any, b: Any) -> bool:
    """Whether two structures of arrays have one form and equal shapes."""
    try:
        return all(leaves(together(lambda x, y: x.shape == y.shape, a, b)))
    except ValueError:
        return False


def _form(structure: Any) -> str:
    if isinstance(structure, dict):
        return f"a dictionary of {sorted(structure)}"
    if isinstance(structure, list | tuple):
        return f"a list of {len(structure)}"
    return f"an array {np.shape(structure)}"


def first(structure: Any) -> Any:
    """The first leaf."""
    return leaves(structure)[0]


# --- shapes ---


def is_shape(value: Any) -> bool:
    """Whether a list or tuple is one shape, not a structure of them."""
    return isinstance(value, list | tuple) and all(
        n is None or (isinstance(n, int | np.integer) and not isinstance(n, bool)) for n in value
    )


def map_shapes(function: Callable[[tuple[int | None, ...]], Any], shapes: Any) -> Any:
    """`function` of a shape, or of each in a list, tuple or dictionary of shapes."""
    if is_shape(shapes):
        return function(tuple(shapes))
    if isinstance(shapes, dict):
        return {name: map_shapes(function, part) for name, part in shapes.items()}
    if not isinstance(shapes, list | tuple):
        raise ValueError(f"a shape is {shapes!r}, expected a tuple of sizes, or several of them")
    return type(shapes)(map_shapes(function, part) for part in shapes)
