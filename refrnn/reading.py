"""What a command is given: a model, its inputs, arrays; or the reason why not, as CannotJudge."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from refrnn import files
from refrnn.commands import CannotJudge, one_line
from refrnn.gates import Array
from refrnn.layers import Embedding
from refrnn.models import Model
from refrnn.models.graph import Ref

Found = TypeVar("Found")
ROWS, STEPS = 3, 20  # of what is drawn where a size is open


def model(path: Path) -> Model:
    """A model from any file that refrnn reads, or CannotJudge."""
    return loaded(path, files.load_model)


def loaded(path: Path, load: Callable[[Path], Found]) -> Found:
    """What one of the readers of refrnn.files makes of a file, or CannotJudge."""
    try:
        return load(path)
    except OSError as error:
        raise CannotJudge(f"{path}: {error.strerror or error}") from None
    except (ValueError, TypeError, ImportError) as error:
        raise CannotJudge(str(error)) from None


def arrays(path: Path, only: str) -> dict[str, Array]:
    """The arrays of a .npz by name, or that of a .npy, called `only`; or CannotJudge."""
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            alone = isinstance(loaded, np.ndarray)
            found = {only: loaded} if alone else {n: np.asarray(loaded[n]) for n in loaded.files}
    except OSError as error:
        raise CannotJudge(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # NumPy raises many kinds for a file that is not what it seems
        raise CannotJudge(f"{path}: cannot be read as .npy or .npz: {one_line(error)}") from None
    wrong = [f"{n} of {a.dtype}" for n, a in found.items() if a.dtype.kind not in "fiub"]
    if wrong or not found:
        void = any(array.dtype.kind == "V" for array in found.values())
        raise CannotJudge(
            f"{path}: holds {', '.join(wrong) or 'nothing'}, expected arrays of numbers, {only}"
            f" first{'; store bfloat16 as float32, NumPy forgets what it is' if void else ''}"
        )
    return found


def inputs(
    source: Path, model: Model, given: Path | None, rows: int = ROWS, finite: bool = True
) -> list[Array]:
    """The inputs of a model, in its order and dtypes; or CannotJudge for what does not fit.

    source  the file that the model is from
    given   .npy for one input, or .npz by name (one may be called x); None for random ones
    rows    of random ones, where the model takes any
    finite  whether NaN and infinity are refused
    """
    found = _drawn(source, model, rows) if given is None else _read(given, model, finite)
    try:
        return model.arrays(found if len(found) > 1 else found[0])
    except (ValueError, TypeError) as error:
        raise CannotJudge(f"{source if given is None else given}: {error}") from None


def _read(path: Path, model: Model, finite: bool) -> list[Array]:
    names = [spec.name for spec in model.inputs]
    found = arrays(path, "x")
    if len(names) == 1 and list(found) == ["x"]:
        found = {names[0]: found["x"]}
    if list(found) == ["x"] and "x" not in names:
        raise CannotJudge(
            f"{path}: one array, expected a .npz with {len(names)}: {', '.join(names)}"
        )
    if sorted(found) != sorted(names):
        raise CannotJudge(f"{path}: arrays are {list(found)}, expected {names}")
    for name, array in found.items():
        if not array.size:
            wrong = f"has shape {array.shape}, expected a row and a step"
        elif finite and not np.isfinite(array).all():
            wrong = "holds NaN or infinity, expected numbers"
        else:
            continue
        raise CannotJudge(f"{path}: {name} {wrong}")
    return [found[name] for name in names]


def _drawn(source: Path, model: Model, rows: int) -> list[Array]:
    """Random arrays: ids where they are looked up, else normal numbers."""
    ids = {
        ref.layer: node.layer.input_dim
        for node in model.graph.nodes
        if isinstance(node.layer, Embedding)
        for ref in node.args[:1]
        if isinstance(ref, Ref)
    }
    rng = np.random.default_rng(0)
    found: list[Array] = []
    for spec in model.inputs:
        if spec.shape is None:
            raise CannotJudge(
                f"{source}: the shape of input {spec.name} is not in it, expected it there, or an"
                " input with --input"
            )
        first, *rest = spec.shape
        shape = (first or rows, *(STEPS if n is None else n for n in rest))
        if spec.dtype == "bool":
            found.append(rng.random(shape) < 0.75)
        elif spec.name in ids or spec.dtype.startswith(("int", "uint")):
            found.append(rng.integers(0, ids.get(spec.name, 2), shape))
        else:
            found.append(rng.normal(size=shape))
    return found
