"""Cases for Hypothesis to draw, every edge among them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from refrnn import checks
from refrnn.cases import MASKS, Case
from refrnn.cells import CELLS

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "simple": ("SimpleRNN", {}),
    "gru": ("GRU", {}),
    "gru_reset_before": ("GRU", {"reset_after": False}),
    "lstm": ("LSTM", {}),
}
# where loops unrolled by 2, 4, 8, 16 or 32 have a tail, and where they have none
TILES = (1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33)


def cases(
    cells: Sequence[str] = tuple(CELLS),
    dtypes: Sequence[str] = ("float32", "float64"),
    masks: Sequence[str | None] = (None, *MASKS),
    states: Sequence[bool] = (True, False),
    max_rows: int = 4,
    max_steps: int = 12,
    max_features: int = 9,
    max_units: int = 33,
) -> "SearchStrategy[Case]":
    """A Hypothesis strategy of `refrnn.cases.Case`: shapes, options and a seed.

    cells      names as for `refrnn.run`
    masks      None for no mask, and names of `refrnn.cases.MASKS`
    states     whether there may be a first state, and whether there may be none
    max_...    the largest sizes, which are drawn too; steps from 0 on, the others from 1

    A case's weights are random, its biases not 0. `case.build()` is refrnn's layer, the reference;
    `case.arrays()` has the weights in Keras's order, x, the state and the mask.

    Raises ImportError without Hypothesis, ValueError for an unknown cell or mask.
    """
    try:
        from hypothesis import strategies as st
    except ImportError as error:
        raise ImportError(
            f"refrnn.testing.cases: Hypothesis cannot be imported ({error}); install it with"
            " pip install 'refrnn[testing]'"
        ) from error
    who = "refrnn.testing.cases"
    _known(who, "cells", cells, CELLS)
    _known(who, "masks", masks, (None, *MASKS))
    for dtype in dtypes:
        checks.dtype(who, dtype)

    def size(least: int, largest: int, edges: Sequence[int]) -> Any:
        """Any size, the edges more often; a failing one shrinks to the smallest."""
        inside = [edge for edge in (*edges, largest) if least <= edge <= largest]
        return st.one_of(st.integers(least, largest), st.sampled_from(inside))

    def case(cell: str, **drawn: Any) -> Case:
        layer, options = LAYERS[cell]
        return Case(layer, options=dict(options), **drawn)

    return st.builds(
        case,
        st.sampled_from(list(cells)),
        rows=size(1, max_rows, (1,)),
        steps=size(0, max_steps, (0, 1)),
        features=size(1, max_features, TILES),
        units=size(1, max_units, TILES),
        dtype=st.sampled_from(list(dtypes)),
        mask=st.sampled_from(list(masks)),
        state=st.sampled_from(list(states)),
        seed=st.integers(0, 2**16),
    )


def _known(who: str, what: str, given: Sequence[Any], known: Any) -> None:
    if isinstance(given, str) or not given or any(name not in known for name in given):
        raise ValueError(
            f"{who}: {what} is {given!r}, expected some of {', '.join(map(repr, known))}"
        )
