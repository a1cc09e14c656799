"""A cell along sequences and back, with its dropout.

A row whose inputs and states are multiplied by masks is a row of a cell without dropout whose
kernels are: m * x @ W = x @ (m * W). So rows that drop parts of their states go one at a time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from refrnn.backward import Gradients, recorder
from refrnn.cells import Weights
from refrnn.gates import Array
from refrnn.layers.cells import RecurrentCell

Masks = tuple[list[Array], list[Array]]  # of the input and of the state, as `RecurrentCell.masks`


class Run(NamedTuple):
    """What a cell made of sequences.

    ys     (B, T, H)
    state  after the last step
    back   (dys, dlast_output, dstate, inputs=True) -> Gradients, each of the three None for zeros;
           without `inputs` dxs is None
    """

    ys: Array
    state: Any
    back: Callable[..., Gradients]


def run(
    who: str, engine: str, cell: RecurrentCell, xs: Array, state: Any, masks: Masks, **options: Any
) -> Run:
    """`cell` along xs (B, T, F) from `state`; options as of `refrnn.reference.run`."""
    of_x, of_h = masks
    if of_h or len(of_x) > 1:
        return _by_rows(who, engine, cell, xs, state, masks, options)
    record = recorder(who, engine, cell.math, cell.arrays)
    if not of_x:
        return Run(*record(xs, state, **options))
    mask = of_x[0][:, None]  # (B, 1, F)
    ys, after, back = record(xs * mask, state, **options)

    def way_back(*gradients: Any, inputs: bool = True) -> Gradients:
        found = back(*gradients, inputs=inputs)
        return found._replace(dxs=found.dxs * mask if inputs else None)

    return Run(ys, after, way_back)


def _by_rows(
    who: str,
    engine: str,
    cell: RecurrentCell,
    xs: Array,
    state: Any,
    masks: Masks,
    options: dict[str, Any],
) -> Run:
    kernel, recurrent_kernel, bias = cell.arrays
    factors = [tuple(_factor(cell, of, row) for of in masks) for row in range(len(xs))]
    runs = []
    for row, (of_x, of_h) in enumerate(factors):
        record = recorder(
            who, engine, cell.math, Weights(kernel * of_x, recurrent_kernel * of_h, bias)
        )
        runs.append(record(xs[row, None], _row(state, row), **_row(options, row)))

    def back(
        dys: Array | None, dlast_output: Array | None, dstate: Any, inputs: bool = True
    ) -> Gradients:
        found = [
            way(*(_row(given, row) for given in (dys, dlast_output, dstate)), inputs=inputs)
            for row, (*_, way) in enumerate(runs)
        ]
        weights = Weights(*map(np.zeros_like, cell.arrays))
        for (of_x, of_h), (dkernel, drecurrent, dbias, *_) in zip(factors, found, strict=True):
            weights = Weights(
                weights.kernel + dkernel * of_x,
                weights.recurrent_kernel + drecurrent * of_h,
                weights.bias + dbias,
            )
        return Gradients(
            *weights,
            np.concatenate([one.dxs for one in found]) if inputs else None,
            _stacked([one.dstate for one in found]),
            np.concatenate([one.dlast_output for one in found]),
        )

    return Run(np.concatenate([ys for ys, *_ in runs]), _stacked([s for _, s, _ in runs]), back)


def _factor(cell: RecurrentCell, masks: list[Array], row: int) -> Any:
    """What multiplies a kernel for a row: (K, G*H), or 1 where nothing is dropped."""
    gates = len(cell.math.gates)
    each = masks * gates if len(masks) == 1 else masks
    columns = [np.repeat(mask[row][:, None], cell.units, axis=1) for mask in each]
    return np.concatenate(columns, axis=1) if columns else np.ones((), cell.dtype)


def _row(given: Any, row: int) -> Any:
    """One row of every array in what is given, as a batch of one."""
    if isinstance(given, dict):
        return {name: _row(part, row) for name, part in given.items()}
    if isinstance(given, tuple):
        return type(given)(*(part[row, None] for part in given))
    return given[row, None] if isinstance(given, np.ndarray) else given


def _stacked(states: list[Any]) -> Any:
    return type(states[0])(*map(np.concatenate, zip(*states, strict=True)))
