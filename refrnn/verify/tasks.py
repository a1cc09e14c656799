"""What an implementation is asked to compute, and what it shows of that."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from refrnn.cells import Cell, Weights
from refrnn.gates import Array


class Task(NamedTuple):
    """What is to be computed; arrays as for `refrnn.run`, checked, in processing order.

    emits_zeros  masked steps emit zeros instead of the last output
    calls        (T,), True where a new call begins: the last output is forgotten, the state is not
    """

    cell: Cell
    weights: Weights
    xs: Array  # (B, T, F)
    state: Any  # each part (B, H)
    mask: Array | None = None  # (B, T)
    reset: Array | None = None  # (B, T)
    emits_zeros: bool = False
    last_output: Array | None = None
    calls: Array | None = None


class Seen(NamedTuple):
    """What an implementation shows of its run.

    y      (B, T, H), every output
    h, c   (B, H), the state after the last step
    hs, cs (B, T, H), the state after each step; NaN in rows and steps where it is hidden
    gates  each (B, T, H), by the names of `gates`
    """

    y: Array
    h: Array | None = None
    c: Array | None = None
    hs: Array | None = None
    cs: Array | None = None
    gates: Mapping[str, Array] = MappingProxyType({})
