"""Weights read in another way: the order of gates, transposed memory, what is done to the bias."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np

from refrnn.cells import Weights
from refrnn.gates import Array
from refrnn.verify.conventions.edit import Edit
from refrnn.verify.scene import Scene

ORDERS = {  # the order of blocks, by cell, and who has it
    ("lstm", "ifgo"): "Keras, PyTorch, cuDNN",
    ("lstm", "iofg"): "ONNX",
    ("lstm", "igfo"): "TF1, Haste",
    ("lstm", "figo"): "OpenVINO",
    ("lstm", "ifog"): "CoreML",
    ("gru", "zrg"): "Keras, ONNX, OpenVINO",
    ("gru", "rzg"): "PyTorch, cuDNN",
    ("gru", "rgz"): "CoreML",
}


Change = Callable[[Array, Scene], Array]  # an array of the weights, of a scene


def gate_orders(base: Scene) -> Iterator[Edit]:
    letters = base.cell.gates
    for order in permutations(letters):
        blocks = "".join(order)
        if blocks == letters:
            continue
        yield Edit("gate order", f"gate blocks are read as {_ordered(base, blocks)}", _read(blocks))
    arrays = ("kernel", "recurrent_kernel", "bias")
    for array in arrays:
        for order in permutations(letters):
            blocks = "".join(order)
            if blocks != letters:
                name = f"gate blocks of the {array} alone are read as {','.join(blocks)}"
                yield Edit("gate order", name, _read(blocks, array), rare=True)
    for array in arrays[:2]:
        if len(letters) > 1:
            name = f"columns of the {array} are read unit by unit, not gate by gate"
            yield Edit(array.replace("_", " "), name, _interleaved(array), rare=True)


def _ordered(base: Scene, blocks: str) -> str:
    """i,o,f,g (ONNX order)"""
    family = base.cell.name.removesuffix("_reset_before")
    said = ",".join(blocks)
    if (family, blocks) in ORDERS:
        return f"{said} ({ORDERS[family, blocks]} order)"
    letters = base.cell.gates
    for (cell, other), who in ORDERS.items():
        if cell == family and blocks == "".join(letters[other.index(g)] for g in letters):
            return f"{said} (blocks in {who} order read as Keras's)"
    return said


def _read(blocks: str, only: str | None = None) -> Callable[[Scene], Scene]:
    """The k-th block is taken for the gate blocks[k]."""

    def apply(s: Scene) -> Scene:
        letters = s.cell.gates
        width = s.weights.recurrent_kernel.shape[0]
        columns = np.concatenate([np.arange(width) + width * blocks.index(g) for g in letters])
        changed = {
            name: array[..., columns]
            for name, array in s.weights._asdict().items()
            if only in (None, name)
        }
        return replace(s, weights=s.weights._replace(**changed))

    return apply


def _interleaved(name: str) -> Callable[[Scene], Scene]:
    def change(a: Array, s: Scene) -> Array:
        gates = len(s.cell.gates)
        return a.reshape(len(a), -1, gates).swapaxes(1, 2).reshape(a.shape)

    return _changed(name, change)


def _each_transposed(a: Array, s: Scene) -> Array:
    return np.concatenate([part.T for part in np.split(a, len(s.cell.gates), axis=1)], axis=1)


def _other_memory(a: Array, s: Scene) -> Array:
    return a.reshape(a.shape[::-1]).T


def _by_columns(a: Array, s: Scene) -> Array:
    return a.ravel(order="F").reshape(a.shape)


def _each_other_memory(a: Array, s: Scene) -> Array:
    blocks = np.split(a, len(s.cell.gates), axis=1)
    return np.concatenate([_other_memory(np.ascontiguousarray(b), s) for b in blocks], axis=1)


def matrices(base: Scene) -> Iterator[Edit]:
    def edit(name: str, array: str, change: Change, rare: bool = False) -> Edit:
        return Edit(array.replace("_", " "), name, _changed(array, change), rare)

    def both(name: str, change: Change) -> Edit:
        first, second = _changed("kernel", change), _changed("recurrent_kernel", change)
        return Edit("recurrent kernel", name, lambda s: second(first(s)))

    kernel, recurrent = "kernel", "recurrent_kernel"
    square = base.weights.kernel.shape == base.weights.recurrent_kernel.shape
    gated = base.cell.gates != "h"
    yield edit("recurrent_kernel is transposed (each gate's block)", recurrent, _each_transposed)
    if square:
        yield edit("kernel is transposed (each gate's block)", kernel, _each_transposed)
        yield both(
            "kernel and recurrent_kernel are transposed (each gate's block)", _each_transposed
        )
        yield Edit("kernel", "kernel and recurrent_kernel are exchanged", _exchanged)
    yield edit("kernel's memory is read as (G*H, F)", kernel, _other_memory)
    yield edit("kernel's memory is read by columns", kernel, _by_columns, rare=True)
    if gated:
        yield edit("recurrent_kernel's memory is read as (G*H, H)", recurrent, _other_memory)
        yield edit(
            "recurrent_kernel's memory is read by columns", recurrent, _by_columns, rare=True
        )
        yield both("kernel's and recurrent_kernel's memory is read transposed", _other_memory)
    if gated and not square:
        yield edit(
            "kernel's memory is read as (H, F) gate by gate, as CuDNNLSTM stores it",
            kernel,
            _each_other_memory,
        )
    yield edit("the state is not used: there is no recurrent sum", recurrent, _nothing)
    yield edit("the input is not used", kernel, _nothing, rare=True)


def _exchanged(s: Scene) -> Scene:
    kernel, recurrent_kernel, bias = s.weights
    return replace(s, weights=Weights(recurrent_kernel, kernel, bias))


def _nothing(a: Array, s: Scene) -> Array:
    return np.zeros_like(a)


def _bias_of(gate: str, change: Callable[[Array], Any], row: int | None = None) -> Any:
    """The bias of one gate changed."""

    def apply(b: Array, s: Scene) -> Array:
        H = len(s.weights.recurrent_kernel)
        at = slice(s.cell.gates.index(gate) * H, (s.cell.gates.index(gate) + 1) * H)
        found = b.copy()
        if row is None:
            found[..., at] = change(b[..., at])
        else:
            found[row, at] = change(b[row, at])
        return found

    return _changed("bias", apply)


def _merged(into: int) -> Change:
    def change(b: Array, s: Scene) -> Array:
        found = np.zeros_like(b)
        found[into] = b.sum(0)
        return found

    return change


def biases(base: Scene) -> Iterator[Edit]:
    def edit(name: str, change: Change, rare: bool = False) -> Edit:
        return Edit("bias", name, _changed("bias", change), rare)

    yield edit("the bias is dropped", lambda b, s: 0 * b)
    yield edit("the bias is added twice", lambda b, s: 2 * b)
    yield edit("the bias is subtracted", lambda b, s: -b, rare=True)
    if base.cell.bias_rows == 2:
        yield edit("the recurrent bias is dropped", lambda b, s: b * [[1], [0]])
        yield edit("the input bias is dropped", lambda b, s: b * [[0], [1]])
        yield Edit(
            "bias",
            "the candidate's recurrent bias b_hn is dropped",
            _bias_of("g", lambda b: 0 * b, row=1),
        )
        yield edit("input and recurrent bias are swapped", lambda b, s: b[::-1])
        yield edit(
            "the biases are merged into the input's: b_hn is not scaled by the reset gate",
            _merged(0),
        )
        yield edit(
            "the biases are merged into the state's: the candidate's input bias is scaled by"
            " the reset gate",
            _merged(1),
        )
        yield edit("the input bias is used for both", lambda b, s: b[[0, 0]])
        yield edit("the recurrent bias is used for both", lambda b, s: b[[1, 1]])
    if base.cell.name == "lstm":
        yield Edit("bias", "1 is added to the forget gate's bias once more", _bias_of("f", _plus))
        yield Edit("bias", "the forget gate's bias lacks its 1", _bias_of("f", lambda b: b - 1))
        yield Edit("bias", "the forget gate's bias is dropped", _bias_of("f", lambda b: 0 * b))
    if base.cell.name != "simple":
        yield Edit(
            "bias", "the candidate's bias is dropped", _bias_of("g", lambda b: 0 * b), rare=True
        )


def _plus(b: Array) -> Array:
    return b + 1


def _changed(name: str, change: Change) -> Callable[[Scene], Scene]:
    """Another array of that name."""

    def apply(s: Scene) -> Scene:
        return replace(s, weights=s.weights._replace(**{name: change(getattr(s.weights, name), s)}))

    return apply
