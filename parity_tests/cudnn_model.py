"""A model of cuDNN for machines without a GPU: its numbers by refrnn, its log after its own form.

The block of a call is the one that cuDNN wrote (fixtures/cudnn), with other values in it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import refrnn
from refrnn import Weights
from refrnn.cases import Case
from refrnn.formats import PRODUCTS
from refrnn.layouts import convert
from refrnn.oracles.adapters import cell
from refrnn.oracles.cudnn.front import Front, Made
from refrnn.oracles.cudnn.work import TYPES, Drawn, Work

SAMPLE = Path(__file__).parent / "fixtures" / "cudnn" / "cudnn-92800.log"
CELLS = {"SimpleRNN": "CUDNN_RNN_TANH", "LSTM": "CUDNN_LSTM", "GRU": "CUDNN_GRU"}
DATA = {"float64": "DOUBLE", "float32": "FLOAT", "tf32": "FLOAT", "float16": "HALF"}


def blocks(text: str) -> list[str]:
    """The calls of a log, each from its header on."""
    return [part for part in re.split(r"(?m)^(?=[IWE]! CuDNN)", text) if "called:" in part]


def block(function: str, **values: str) -> str:
    """The block of a call as cuDNN wrote it, with other values in the descriptor of the layer."""
    found = next(b for b in blocks(SAMPLE.read_text()) if f" {function}()" in b and b[0] == "I")
    for name, value in values.items():
        found, count = re.subn(rf"( {name}: type=\w+; val=)\S+", rf"\g<1>{value}", found, count=1)
        assert count == 1, name
    return found


def told(work: Work, function: str = "cudnnRNNForward", **values: str) -> str:
    """The block of the call that a work is."""
    ways = "BIDIRECTIONAL" if work.bidirectional else "UNIDIRECTIONAL"
    math = "FMA" if work.precision in ("float64", "float32") else "TENSOR_OP"
    settings = {
        "cellMode": CELLS[work.case.layer],
        "bidirectional": f"CUDNN_{ways}",
        "dataType": f"CUDNN_DATA_{DATA.get(work.precision, 'BFLOAT16')}",
        "mathMode": f"CUDNN_{math}_MATH",
    }
    return block(function, **{**settings, **values})


def computed(
    cell: str, params: np.ndarray, x: np.ndarray, state: list[np.ndarray], lengths: np.ndarray
) -> tuple[Any, ...]:
    """What cuDNN returns for one direction: weights, y (B, T, H) with zeros, and the states."""
    H = state[0].shape[-1]
    sizes = {"input_size": x.shape[2], "hidden_size": H}
    stored = convert(params, cell, "cudnn", "keras", attributes=sizes, lossy="sum_biases")
    weights = Weights(*stored.values())
    mask = np.arange(x.shape[1]) < np.asarray(lengths)[:, None]
    y, after = refrnn.run(
        cell, weights, x, list(state), mask=mask, zero_output_for_mask=True, engine="numpy"
    )
    return weights, mask, y, list(after)


class Telling(Front):
    """Mixed into a front end: every call is written to the log as if cuDNN had computed it.

    lies     what to write in place of the blocks of a call, (work, made) -> texts
    changed  what to make of the outputs, (work, flat) -> flat
    """

    lies: Any = None
    changed: Any = None

    def call(self, layer: Any, work: Work, *others: Any) -> Made:
        made: Made = super().call(layer, work, *others)  # type: ignore[safe-super]
        if self.changed is not None:
            made = made._replace(flat=self.changed(work, made.flat))
        texts = list(self.told(work, made) if self.lies is None else self.lies(work, made))
        assert self.log.path is not None
        with self.log.path.open("a") as file:
            file.writelines(texts)
        return made._replace(sign="as if it were cuDNN's" if texts else "")

    def told(self, work: Work, made: Made) -> Iterator[str]:
        if work.on_cudnn:
            yield told(work)
            if made.gradients:
                yield told(work, "cudnnRNNBackwardData_v8")
                yield told(work, "cudnnRNNBackwardWeights_v8")


class Reference(Front):
    """A front end that is refrnn itself, in the precision that is asked for.

    computes   by precision asked, another to compute in
    """

    computes: Mapping[str, str] = {}

    def start(self, precision: str) -> dict[str, Any]:
        return {"flag": precision}

    def versions(self) -> dict[str, str]:
        return {"model": "1", "cuDNN": "92800"}

    def layer(self, work: Work, drawn: Drawn, way: str) -> Any:
        return drawn.weights

    def poison(self, work: Work) -> None:
        pass

    def call(self, layer: Any, work: Work, *others: Any) -> Made:
        x, state, mask, dy = others
        precision = self.computes.get(work.precision, work.precision)
        count = len(layer) // (1 + work.bidirectional)
        ys, ends, gradients = [], [], {}
        for d in range(1 + work.bidirectional):
            dtype = TYPES.get(precision, "float32")
            weights, given, start = (
                [np.asarray(a, refrnn.checks.dtype("model", dtype)) for a in arrays]
                for arrays in (layer[d * count : (d + 1) * count], [x], state)
            )
            parts = len(work.parts)
            options: dict[str, Any] = {
                "mask": mask,
                "zero_output_for_mask": work.on_cudnn,
                "go_backwards": bool(d) or bool(work.case.options.get("go_backwards")),
            }
            asked = {n: work.case.options.get(n) for n in ("activation", "recurrent_activation")}
            name = cell(work.case)
            y, after = refrnn.run(
                name, Weights(*weights), given[0], start[d * parts : (d + 1) * parts],
                precision=precision if precision in PRODUCTS else None, **options, **asked,
            )  # fmt: skip
            ys.append(y[:, ::-1] if d else y)
            ends += list(after)
            if dy is not None:
                wide = [a.astype(np.float64) for a in layer]
                back = refrnn.gradients(name, Weights(*wide), x, dy, state, **options)
                gradients = {"x": back.dxs, **back.dstate._asdict(), "kernel": back.dkernel}
                gradients |= {"recurrent_kernel": back.drecurrent_kernel, "bias": back.dbias}
        flat = [np.concatenate(ys, axis=-1), *ends]
        narrow = dtype in ("float16", "bfloat16")
        return Made([a.astype(np.float32) if narrow else a for a in flat], "", gradients)


class Model(Telling, Reference):
    """refrnn, telling that it is cuDNN."""


class Here:
    """A front end in this process, asked as one in another is."""

    def __init__(self, front: Front) -> None:
        self.front = front

    def ask(self, method: str, *arguments: Any) -> Any:
        return getattr(self.front, method)(*arguments)


def adapter_works(masks: bool = True, gru: bool = True) -> list[Work]:
    """Every setting of an adapter, few times."""
    small = Case("LSTM", rows=3, steps=5, features=4, units=3, dtype="float32")
    works = []
    for layer in ("LSTM", "GRU")[: 1 + gru]:
        case = replace(small, layer=layer)
        backwards = replace(case, options={"go_backwards": True})
        works += [
            Work(case, "float32", False, True, ((2, 1, 2),)),
            Work(case, "float32", bidirectional=True),
            Work(backwards, "float32", False, True, ((2, 3),)),
        ]
        if masks:
            works += [
                Work(replace(case, mask="right"), "float32", False, True, ((2, 1, 2),)),
                Work(replace(backwards, mask="right"), "float32", False, True, ((2, 3),)),
                Work(replace(case, mask="right"), "float64", bidirectional=True),
            ]
    return works
