"""A GRU as one of the other family with the same weights: another function, side by side."""

import numpy as np

from refrnn.cells import CELLS, Weights
from refrnn.engines import trace
from refrnn.layouts.hub import OTHER_FAMILY
from refrnn.traces import Trace


def other(found: Trace) -> Trace | None:
    """The trace of the other GRU on the same input; None for a cell that is no GRU.

    Of two biases the sum is one, of one bias the second is zeros: where the candidate has a second
    bias it is added outside of r * (...) in the other.
    """
    if found.cell.name not in OTHER_FAMILY:
        return None
    W, U, b = found.weights
    bias = b.sum(axis=0, dtype=b.dtype) if b.ndim == 2 else np.stack([b, np.zeros_like(b)])
    row = CELLS[OTHER_FAMILY[found.cell.name]]
    return trace(
        row._replace(act=found.cell.act, rec=found.cell.rec),
        Weights(W, U, bias),
        found.xs,
        found.start,
        mask=found.mask,
        reset=found.reset,
        go_backwards=found.go_backwards,
    )
