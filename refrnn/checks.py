"""The border: what comes in is checked here, once, before anything is computed or changed.

Each message says who is speaking, what it was given, what it expected, and why. `who` is a
layer's name or a cell's.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from refrnn import activations
from refrnn.activations import Activation
from refrnn.cells import CELLS, AnyState, Cell, Weights
from refrnn.gates import Array

HALF = ("float16", "bfloat16")
DTYPES = ("float32", "float64", *HALF)
MIXED = {f"mixed_{name}": name for name in HALF}  # policies of Keras, and what they compute in
ENGINES = ("auto", "numpy", "numba")


def cell(name: Any) -> Cell:
    """The row of CELLS called `name`; a Cell is passed through."""
    if isinstance(name, Cell):
        return name
    if not isinstance(name, str) or name not in CELLS:
        raise ValueError(f"cell is {name!r}, expected one of {', '.join(map(repr, CELLS))}")
    return CELLS[name]


def dtype(who: str, given: Any) -> np.dtype[Any]:
    """A dtype that refrnn computes in. bfloat16 comes from ml_dtypes, loaded only when named.

    Keras's mixed policies compute in a 16-bit dtype with weights of 32 bits that are cast before
    each use: here they are cast once, when they are set.
    """
    if isinstance(given, dict) and isinstance(given.get("config"), dict):  # a DTypePolicy of Keras
        given = given["config"].get("name", given)
    name = "float32" if given is None else given if isinstance(given, str) else None
    name = MIXED.get(name or "", name)
    if name == "bfloat16":
        try:
            import ml_dtypes
        except ImportError:
            raise ImportError(
                f"{who}: dtype is 'bfloat16', which NumPy has only with the package ml_dtypes;"
                " install it: pip install ml_dtypes"
            ) from None
        return np.dtype(ml_dtypes.bfloat16)
    try:
        found = np.dtype(name if name is not None else given).newbyteorder("=")
    except TypeError:
        found = None
    if found is None or found.name not in DTYPES:
        raise ValueError(f"{who}: dtype is {given!r}, expected one of {', '.join(DTYPES)}")
    return found


def is_float(found: np.dtype[Any]) -> bool:
    return found.kind == "f" or found.name == "bfloat16"


def array(who: str, what: str, given: Any) -> Array:
    """`given` as an array, or a ValueError that says whose it was."""
    try:
        return np.asarray(given)
    except ValueError as error:
        raise ValueError(f"{who}: {what} is not an array of one shape: {error}") from None


def numbers(who: str, what: str, given: Any, dtype: np.dtype[Any]) -> Array:
    """`given` as a C-contiguous array of `dtype`: floats, integers and booleans, nothing else."""
    found = array(who, what, given)
    if not (is_float(found.dtype) or found.dtype.kind in "iub"):
        raise TypeError(
            f"{who}: {what} has dtype {found.dtype}, expected real numbers, because they are"
            f" computed with in {dtype}"
        )
    if found.dtype == dtype and found.flags.c_contiguous:
        return found
    with np.errstate(over="ignore"):  # too large a number becomes infinity, as in TensorFlow
        return np.asarray(found, dtype, order="C")


def flag(who: str, what: str, given: Any) -> bool:
    """True or False, or a number that stands for one."""
    if not isinstance(given, bool | np.bool_ | int):
        raise ValueError(f"{who}: {what} is {given!r}, expected True or False")
    return bool(given)


def rate(who: str, what: str, given: Any) -> float:
    """A rate of dropout, clamped to [0, 1] as in Keras."""
    if (
        isinstance(given, bool)
        or not isinstance(given, int | float | np.floating)
        or given != given
    ):
        raise ValueError(f"{who}: {what} is {given!r}, expected a number from 0 to 1")
    return min(1.0, max(0.0, float(given)))


def seed(who: str, given: Any) -> int | None:
    """A seed: None or a whole number. A Keras SeedGenerator in a config is taken for its seed."""
    if isinstance(given, dict) and isinstance(given.get("config"), dict):
        given = given["config"].get("seed", given)
    if given is None or (isinstance(given, int | np.integer) and not isinstance(given, bool)):
        return None if given is None else int(given)
    raise ValueError(f"{who}: seed is {given!r}, expected a whole number or None")


def activation(who: str, what: str, given: Any, keeps_width: bool = True) -> Activation:
    """An activation that can stand in a layer; `keeps_width` where its output must be as wide."""
    if isinstance(given, dict):
        raise ValueError(
            f"{who}: {what} is stored as {given.get('class_name')!r}"
            f" {str(given.get('config'))[:40]!r}, expected the name of an activation, because code"
            " from a config is never run; pass the function itself to the layer"
        )
    try:
        found = activations.get(given)
    except ValueError as error:
        raise ValueError(f"{who}: {what}{str(error).removeprefix('activation')}") from None
    if found.kind == "parametric":
        raise ValueError(
            f"{who}: {what} {found.name!r} needs further arguments (threshold, default_value),"
            " expected an activation of one argument; pass a function, such as"
            " lambda x: activations.threshold(x, threshold=0.5, default_value=0.0)"
        )
    if keeps_width and found.kind == "halves":
        raise ValueError(
            f"{who}: {what} {found.name!r} halves the width, expected one that keeps it, because"
            " each gate must stay as wide as the state"
        )
    if keeps_width and found.name not in activations.ACTIVATIONS:
        shape = np.shape(found.value(np.zeros((2, 3), np.float32)))
        if shape != (2, 3):
            raise ValueError(
                f"{who}: {what} {found.name!r} turns shape (2, 3) into {shape}, expected a function"
                " that keeps the shape, because each gate must stay as wide as the state"
            )
    return found


def engine(who: str, given: Any) -> str:
    """The name of an engine, or "auto"."""
    if given not in ENGINES:
        raise ValueError(f"{who}: engine is {given!r}, expected one of {', '.join(ENGINES)}")
    return str(given)


def weights(cell: Cell, given: Sequence[Any]) -> Weights:
    """`given` as `Weights` of one floating dtype, zeros for a bias of None."""
    if given is None or not 2 <= len(given) <= 3:
        found = "None" if given is None else f"{len(given)} arrays"
        raise ValueError(
            f"{cell.name}: the weights are {found}, expected 3:"
            f" {', '.join(Weights._fields)} (bias may be None)"
        )
    for name, part in zip(Weights._fields[:2], given, strict=False):
        if part is None:
            raise ValueError(
                f"{cell.name}: {name} is None, expected an array; only bias may be None"
            )
    names = [n for n, a in zip(Weights._fields, given, strict=False) if a is not None]
    arrays = [array(cell.name, n, a) for n, a in zip(names, given, strict=False)]
    if any(a.ndim != 2 for a in arrays[:2]):
        raise ValueError(
            f"{cell.name}: kernel and recurrent_kernel have shapes"
            f" {[a.shape for a in arrays[:2]]}, expected two dimensions each: (F, G*H), (H, G*H)"
        )
    arrays = [a.astype(a.dtype.newbyteorder("="), copy=False) for a in arrays]
    dtypes = {a.dtype for a in arrays}
    if len(dtypes) > 1 or arrays[0].dtype.name not in DTYPES:
        found = ", ".join(f"{n} {a.dtype}" for n, a in zip(names, arrays, strict=True))
        raise TypeError(f"{cell.name}: {found}; expected one dtype for all of {', '.join(DTYPES)}")
    F, H = len(arrays[0]), len(arrays[1])
    shapes = cell.shapes(F, H)
    for name, part, shape in zip(names, arrays, shapes, strict=False):
        if part.shape != shape:
            raise ValueError(
                f"{cell.name}: {name} has shape {part.shape}, expected {shape} for {F} features"
                f" (rows of kernel) and {H} units (rows of recurrent_kernel)"
                + _other_family(cell, name, part, F, H)
            )
    if len(arrays) == 2:
        arrays.append(np.zeros(shapes[2], arrays[0].dtype))
    return Weights(*map(np.ascontiguousarray, arrays))


def _other_family(cell: Cell, name: str, part: Array, F: int, H: int) -> str:
    """A hint where a GRU's bias belongs to the GRU of the other family."""
    other = {"gru": "gru_reset_before", "gru_reset_before": "gru"}.get(cell.name)
    if name == "bias" and other and part.shape == CELLS[other].shapes(F, H)[2]:
        return f"; a bias of that shape belongs to {other!r}, which is another function"
    return ""


def sequence(who: str, given: Any, features: int | None, dtype: np.dtype[Any]) -> Array:
    """`given` as (B, T, F) of `dtype`; any F where `features` is None."""
    xs = array(who, "the input", given)
    if xs.ndim != 3 and features is None:
        raise ValueError(f"{who}: the input has shape {xs.shape}, expected (batch, time, features)")
    if xs.ndim != 3 or features not in (None, xs.shape[2]):
        raise ValueError(
            f"{who}: the input has shape {xs.shape}, expected (batch, time, {features}),"
            f" because the kernel has {features} rows, one for each feature"
        )
    return numbers(who, "the input", xs, dtype)


def state(
    cell: Cell, who: str, given: Any, batch: int, units: int, dtype: Any, what: str = "state"
) -> AnyState:
    """`given` as the state of `cell`, each part (batch, units); zeros when it is None.

    given  a State, a list or tuple of the parts in order, or for one part the bare array
    """
    parts = cell.State._fields
    if given is None:
        return cell.zeros(batch, units, dtype)
    if len(parts) == 1 and not isinstance(given, list | tuple):
        given = [given]
    if not isinstance(given, list | tuple) or len(given) != len(parts):
        found = f"{len(given)} parts" if isinstance(given, list | tuple) else type(given).__name__
        raise ValueError(
            f"{who}: the {what} is given as {found}, expected a list of {len(parts)}:"
            f" {', '.join(parts)}"
        )
    given = [
        None if p is None else array(who, f"{what} {n}", p)
        for n, p in zip(parts, given, strict=True)
    ]
    for name, part in zip(parts, given, strict=True):
        if part is None or part.shape != (batch, units):
            found = "None" if part is None else f"of shape {part.shape}"
            raise ValueError(
                f"{who}: {what} {name} is {found}, expected ({batch}, {units}): a row for each row"
                " of the input, a column for each unit; it is never broadcast"
            )
    # copies: with no steps to take this very state is returned
    return cell.State(
        *(numbers(who, f"{what} {n}", p, dtype).copy() for n, p in zip(parts, given, strict=True))
    )


def mask(who: str, given: Any, batch: int, time: int, what: str = "mask") -> Array | None:
    """`given` as (B, T) bool, as Keras reads it: whatever is not zero is True, NaN included.

    given  None, or (B, T), (B, T, 1) or (1, T), the last for all rows alike; or a list of one
    """
    if given is None:
        return None
    if isinstance(given, list | tuple) and len(given) == 1 and np.ndim(given[0]) > 1:
        given = given[0]
    truth = array(who, f"the {what}", given)
    if truth.dtype.kind not in "biuf" and truth.dtype.name != "bfloat16":
        raise TypeError(f"{who}: the {what} has dtype {truth.dtype}, expected booleans or numbers")
    found = truth.shape
    if truth.ndim == 3 and found[2] == 1:
        truth = truth[:, :, 0]
    if truth.shape == (1, time):
        truth = np.broadcast_to(truth, (batch, time))
    if truth.shape != (batch, time):
        raise ValueError(
            f"{who}: the {what} has shape {found}, expected ({batch}, {time}):"
            " one truth value for each row and time step of the input"
        )
    return np.ascontiguousarray(truth != 0)


def finite(who: str, what: str, values: Array) -> None:
    """Refuse weights that hold NaN or infinity: a file or a training run that went wrong."""
    good = np.isfinite(values)
    if not good.all():
        first = tuple(int(i) for i in np.argwhere(~good)[0])
        raise ValueError(
            f"{who}: {what} has {int((~good).sum())} values that are not finite, the first"
            f" {values[first]} at {list(first)}; expected numbers, because every output would be"
            " NaN"
        )


def features(who: str, shape: tuple[int | None, ...]) -> int:
    """The size of the last axis of a shape that a layer is built for."""
    if not shape or shape[-1] is None:
        raise ValueError(
            f"{who}: built for shape {tuple(shape)}, expected a known number of features on the"
            " last axis, because the kernel has a row for each"
        )
    return int(shape[-1])


def same_features(who: str, features: int, kernel: Array) -> None:
    """Refuse to build a built layer again for another number of features."""
    if features != len(kernel):
        raise ValueError(
            f"{who}: built again for {features} features, expected {len(kernel)}, because its"
            f" kernel has {len(kernel)} rows, one for each"
        )


def count(who: str, what: str, given: Any) -> int:
    """A positive whole number."""
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or given < 1:
        raise ValueError(f"{who}: {what} is {given!r}, expected a whole number of at least 1")
    return int(given)
