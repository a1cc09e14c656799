"""What the second oracles share: a case's arrays as another library is given them.

Weights go through `refrnn.layouts`: a wrong row there shows as an oracle that differs.
"""

import importlib
from typing import Any, NamedTuple

import numpy as np

from refrnn.cases import Arrays, Case
from refrnn.gates import Array
from refrnn.layouts import Stored, convert
from refrnn.oracles import Unavailable

CELLS = {"SimpleRNN": "simple", "LSTM": "lstm", "GRU": "gru"}
PARTS = {"SimpleRNN": "h", "LSTM": "hc", "GRU": "h"}


class Given(NamedTuple):
    """The arrays of a case in the order of processing, the state zeros where it has none."""

    weights: list[Array]  # in Keras's order
    x: Array  # (B, T, F)
    state: list[Array]  # each (B, H), h first
    mask: Array | None  # (B, T)


def given(case: Case, arrays: Arrays | None) -> Given:
    """What a library is given for `case`; `arrays` stand in for those that it draws."""
    arrays = case.arrays() if arrays is None else arrays
    x, mask, state = arrays.x, arrays.mask, arrays.state
    if case.options.get("go_backwards"):
        x, mask = x[:, ::-1].copy(), None if mask is None else mask[:, ::-1].copy()
    if state is None:
        state = [np.zeros((len(x), case.units), x.dtype) for _ in PARTS[case.layer]]
    return Given(list(arrays.weights), x, list(state), mask)


def cell(case: Case) -> str:
    """refrnn's name of the cell."""
    return "gru_reset_before" if case.options.get("reset_after") is False else CELLS[case.layer]


def stored(
    case: Case, weights: list[Array], layout: str, lossy: str | tuple[str, ...] = ()
) -> Stored:
    """The weights as a library stores them, and what it must be told, by its own names."""
    names = ("activation", "recurrent_activation")
    attributes = {name: case.options[name] for name in names if name in case.options}
    return convert(weights, cell(case), "keras", layout, attributes=attributes, lossy=lossy or ())


def outputs(case: Case, y: Any, state: list[Any]) -> dict[str, Array]:
    """y, h and c as an oracle returns them."""
    arrays = (np.asarray(y), *(np.asarray(part) for part in state))
    return dict(zip("y" + PARTS[case.layer], arrays, strict=True))


def repeat_outputs(y: Array, mask: Array, go_backwards: bool = False) -> Array:
    """y with the last output put where a row is masked, as Keras has it, in place of zeros."""
    if go_backwards:
        mask = mask[:, ::-1]
    y = y.copy()
    for t in range(1, y.shape[1]):
        y[:, t] = np.where(mask[:, t, None], y[:, t], y[:, t - 1])
    return y


def needed(module: str, title: str, extra: str = "oracles") -> Any:
    """The module, or Unavailable, saying what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(
            f"{title} cannot be imported ({error}): install it with pip install"
            f" 'refrnn[{extra}]' (in a clone: pip install '.[{extra}]')"
        ) from error
