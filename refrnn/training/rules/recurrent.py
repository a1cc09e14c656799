"""The ways back of SimpleRNN, GRU and LSTM, and of RNN with their cells, one upon another too.

`refrnn.backward` has the mathematics: here it is given what a layer's call begins with.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refrnn import checks
from refrnn.backward import equations
from refrnn.gates import Array
from refrnn.layers import RNN, GRUCell, LSTMCell, SimpleRNNCell, StackedRNNCells
from refrnn.layers.masks import leaves
from refrnn.layers.recurrent import Recurrent
from refrnn.layers.rnn import Memory
from refrnn.layers.states import alike
from refrnn.training.rules import dropped
from refrnn.training.rules.passing import Flow, Passed, Rule, Sums, masked

CELLS = (SimpleRNNCell, GRUCell, LSTMCell)


def _cells(layer: RNN) -> list[Any]:
    """The cells of a layer, the first that takes the input."""
    return layer.cell.cells if isinstance(layer.cell, StackedRNNCells) else [layer.cell]


def check(layer: RNN, training: bool) -> None:
    """Refuse cells that are not refrnn's own, or have activations without a derivative."""
    for cell in _cells(layer):
        if type(cell) not in CELLS:
            raise ValueError(
                f"{layer.who}: its cell is {cell!r}, expected one of"
                f" {', '.join(kind.__name__ for kind in CELLS)}, or a stack of them, because the"
                " derivative of another is not known"
            )
        if cell.dtype != layer.dtype:
            raise ValueError(
                f"{layer.who}: it computes in {layer.dtype} and {cell.who} in {cell.dtype},"
                " expected one dtype for both, because gradients have that of what they are of"
            )
        for name in ("activation", "recurrent_activation"):
            if name in vars(cell):
                equations.pull(f"{layer.who}: {name}", getattr(cell, name))


def recurrent(layer: RNN, given: dict[str, Any], memory: Memory | None) -> Passed:
    """The rule: `unmasked`, with the masks that the outputs of a call have."""
    found = unmasked(layer, given, memory)
    return found._replace(outputs=masked(layer, found.outputs, given["sequences"], given))


def unmasked(layer: RNN, given: dict[str, Any], memory: Memory | None = None) -> Passed:
    """What `layer.call` returns, and the way back.

    given   arguments of call by name
    memory  what the chunk before handed on: it goes before initial_state and what is carried
    """
    xs, state = layer._sequence(given["sequences"]), given.get("initial_state")
    B, T, _ = xs.shape
    mask = checks.mask(layer.who, given.get("mask"), B, T)
    if memory is None:
        begun = Memory(layer._start(state, B), layer._zeros(B))
    else:
        begun = _checked(layer, memory, B)
    if not layer.built:
        layer.build(xs.shape)
    ys, after, chain_back = _chain(layer, xs, begun, mask, given.get("training") or False)
    outputs, end = layer.returned(ys, after, begun)
    if layer.stateful and memory is None:
        layer._carried = after

    def back(dys: list[Array], sums: Sums, dmemory: Memory | None) -> Flow:
        doutput, *dstates = dys
        dstates = dstates or [np.zeros_like(part) for part in leaves(after)]
        doutputs, dlast = (doutput, None) if layer.return_sequences else (None, doutput)
        if dmemory is not None:
            dstates = [a + b for a, b in zip(dstates, leaves(dmemory.state), strict=True)]
            dlast = dmemory.last_output if dlast is None else dlast + dmemory.last_output
        dxs, dstart = chain_back(doutputs, dlast, dstates, sums)
        inputs: dict[str, Sequence[Array | None]] = {"sequences": [dxs]}
        if state is not None:
            unused = memory is not None
            inputs["initial_state"] = [None if unused else part for part in leaves(dstart.state)]
        return Flow(inputs, dstart)

    return Passed(outputs, back, end)


def _checked(layer: RNN, memory: Memory, rows: int) -> Memory:
    """The memory of a chunk before, refused where it is not that of this layer and batch."""
    blank = layer.start(rows)
    if not alike(blank, memory):
        raise ValueError(
            f"{layer.who}: the memory is not of the form and shapes that the layer hands on for"
            f" {rows} rows, expected the memory of the tape of the chunk before"
        )
    return memory


ChainBack = Callable[[Array | None, Array | None, list[Array], Sums], tuple[Any, Memory]]


def _chain(
    layer: RNN, xs: Array, begun: Memory, mask: Array | None, training: bool
) -> tuple[Array, Any, ChainBack]:
    """All outputs, the states after the last step, and the way back, of the cells of a layer.

    Cells one upon another are run one after another: what one makes of a masked step is not used
    by the next, whose step is masked too.
    """
    cells, engine = _cells(layer), layer._engine if isinstance(layer, Recurrent) else "numpy"
    stacked = isinstance(layer.cell, StackedRNNCells)
    runs, ys, backwards, live = [], xs, layer.go_backwards, mask
    for cell, state in zip(cells, begun.state if stacked else [begun.state], strict=True):
        masks = cell.masks(len(ys), ys.shape[2])
        run = dropped.run(
            layer.who,
            engine,
            cell,
            ys,
            cell.math.State(*state),
            masks if training else ([], []),
            mask=live,
            go_backwards=backwards,
            zero_output_for_mask=layer.zero_output_for_mask,
            last_output=begun.last_output if cell is cells[-1] else None,
        )
        runs.append(run)
        ys = run.ys
        if backwards:  # outputs are in processing order already
            backwards, live = False, None if live is None else live[:, ::-1]

    def back(
        dys: Array | None, dlast: Array | None, dstates: list[Array], sums: Sums
    ) -> tuple[Array | None, Memory]:
        rest, dstarts, last = list(dstates), [], dlast
        dlast_output = None
        for cell, run in reversed(list(zip(cells, runs, strict=True))):
            parts = [rest.pop() for _ in cell.math.State._fields][::-1]
            asked = sums.inputs or cell is not cells[0]
            found = run.back(dys, last, cell.math.State(*parts), inputs=asked)
            for name in ("kernel", "recurrent_kernel", "bias"):
                sums.add(getattr(cell, name), getattr(found, f"d{name}"))
            dys, last = found.dxs, None
            dlast_output = found.dlast_output if dlast_output is None else dlast_output
            dstarts.append(found.dstate)
        return found.dxs, Memory(_nested(layer, dstarts[::-1]), dlast_output)

    return ys, _nested(layer, [run.state for run in runs]), back


def _nested(layer: RNN, states: list[Any]) -> Any:
    """The states of the cells as the layer has them."""
    if isinstance(layer, Recurrent):
        return states[0]
    parts = [list(state) for state in states]
    return parts if isinstance(layer.cell, StackedRNNCells) else parts[0]


RECURRENT = Rule(recurrent, check, spares=True)
