"""The kill-pack: a few recorded vectors that no wrong implementation of `MUTANTS` gets right.

`write` puts them down in four forms: vectors.npz, for `grade_vectors` and NumPy; vectors.json;
vectors.h, for C; and onnx/, a node test each. certificate.csv says which vector catches which
mutant, and by how much.

The vectors keep to rules: no two gates alike, nothing symmetric, biases of the input and of the
state apart, states that are not zero, rows that differ, odd sizes, steps that are no multiple of 4,
masks with holes and tails, some |c| > 3, inputs of both signs. The outputs are those of float64,
rounded to float32.
"""

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from refrnn import reference
from refrnn.cells import CELLS, Cell, Weights
from refrnn.files.atomic import replacing
from refrnn.files.onnx import messages
from refrnn.gates import Array
from refrnn.verify.grade import Grade, grade_vectors

SEEDS = {"simple": 0, "gru": 2, "gru_reset_before": 1, "lstm": 0}
ARRAYS = ("kernel", "recurrent_kernel", "bias", "x", "h0", "c0", "mask", "y", "h", "c")
HOLES = ("110101", "001011", "000000", "111000")  # a row each, 1 where a step counts
TAILS = ("1110", "1111", "1100")
ONNX_OPS: dict[str, tuple[str, str, dict[str, Any]]] = {  # operator, its order of gates, attributes
    "simple": ("RNN", "h", {}),
    "gru": ("GRU", "zrg", {"linear_before_reset": 1}),
    "gru_reset_before": ("GRU", "zrg", {"linear_before_reset": 0}),
    "lstm": ("LSTM", "iofg", {}),
}


def _mask(rows: tuple[str, ...]) -> Array:
    return np.array([[digit == "1" for digit in row] for row in rows])


class _Draw:
    """The arrays of one cell, float32, from one seed."""

    def __init__(self, cell: Cell, features: int, units: int) -> None:
        self.cell, self.F, self.H = cell, features, units
        self.rng = np.random.default_rng([SEEDS[cell.name], features, units])

    def weights(self) -> Weights:
        kernel, recurrent, bias = self.cell.shapes(self.F, self.H)
        return Weights(
            self._float(self.rng.normal(size=kernel) / np.sqrt(self.F)),
            self._float(self.rng.normal(size=recurrent) / np.sqrt(self.H)),
            self._float(self.rng.uniform(-0.5, 0.5, bias)),
        )

    def x(self, rows: int, steps: int, scale: float = 1.5) -> Array:
        return self._short(scale * self.rng.normal(size=(rows, steps, self.F)))

    def state(self, rows: int, scale: float = 2.0) -> dict[str, Array]:
        """h and c before the first step; some |c| are above 3."""
        h = self._short(self.rng.uniform(-0.9, 0.9, (rows, self.H)))
        c = self._short(scale * self.rng.normal(size=(rows, self.H)))
        return dict(zip(("h0", "c0"), (h, c)[: len(self.cell.State._fields)], strict=False))

    def hot(self, width: int) -> Array:
        """A row for each place, which holds 3 or -3."""
        return self._float(3 * np.eye(width) * self.rng.choice([-1, 1], width))

    def _float(self, a: Array) -> Array:
        return a.astype(np.float32)

    def _short(self, a: Array) -> Array:
        """With four decimals: short as text, and still none of a coarser format."""
        return self._float(np.round(a, 4))


def _calls(draw: _Draw) -> Iterator[tuple[str, dict[str, Array]]]:
    """What each vector of a layer is called with."""
    yield "long", {"x": draw.x(2, 18), **draw.state(2)}
    yield "no_state", {"x": draw.x(3, 3)}
    yield "no_state_again", {"x": draw.x(3, 2)}
    yield "holes", {"x": draw.x(4, 6), **draw.state(4), "mask": _mask(HOLES)}
    yield "tails", {"x": draw.x(3, 4), **draw.state(3), "mask": _mask(TAILS)}
    yield "single", {"x": draw.x(1, 1), **draw.state(1)}
    yield "inputs", {"x": draw.hot(draw.F)[:, None], **draw.state(draw.F, 1.0)}
    nothing = np.zeros((draw.H, 1, draw.F), np.float32)
    for name in draw.state(1):
        state = draw.state(draw.H, 1.0)
        state[name] = state[name] + draw.hot(draw.H)
        yield f"probe_{name[0]}", {"x": nothing, **state}
    yield "large", {"x": draw.x(2, 3, 8.0), **draw.state(2, 12.0)}
    broken = draw.x(2, 3)
    broken[1, 1, 0] = np.nan
    yield "not_a_number", {"x": broken, **draw.state(2)}


def _even(draw: _Draw) -> Iterator[tuple[str, dict[str, Array]]]:
    """The same for a layer whose units fill a vector register."""
    yield "steps", {"x": draw.x(2, 3), **draw.state(2)}


LAYERS = (("", 3, 5, _calls), ("_even", 2, 4, _even))  # name, features, units, vectors


def _outputs(cell: Cell, weights: Weights, given: Mapping[str, Array]) -> dict[str, Array]:
    """What is right, in float64, and then rounded."""
    wide = Weights(*(a.astype(np.float64) for a in weights))
    x = given["x"].astype(np.float64)
    state = cell.zeros(len(x), len(wide.recurrent_kernel), x.dtype)
    if "h0" in given:
        names = [f"{name}0" for name in cell.State._fields]
        state = cell.State(*(given[name].astype(np.float64) for name in names))
    y, after = reference.run(cell, wide, x, state, mask=given.get("mask"))
    return {name: a.astype(np.float32) for name, a in {"y": y, **after._asdict()}.items()}


def vectors() -> dict[str, Array]:
    """Every array by "layer/name" or "layer/vector/name", as `grade_vectors` takes them."""
    arrays: dict[str, Array] = {}
    for cell in CELLS.values():
        for suffix, features, units, calls in LAYERS:
            draw = _Draw(cell, features, units)
            weights = draw.weights()
            shared = {"cell": np.array(cell.name), **weights._asdict()}
            arrays |= {f"{cell.name}{suffix}/{key}": array for key, array in shared.items()}
            for name, given in calls(draw):
                path = f"{cell.name}{suffix}/{name}/"
                run = {**given, **_outputs(cell, weights, given)}
                arrays |= {path + key: array for key, array in run.items()}
    return arrays


def write(folder: "str | os.PathLike[str]") -> None:
    """Write the pack into a folder, which is made where it is missing; each file whole or not.

    Raises RuntimeError, and writes nothing, if a mutant would survive or the right one be refused.
    """
    arrays = vectors()
    found = grade_vectors(arrays)
    if found.false_alarms or found.survived:
        raise RuntimeError(f"the vectors do not catch every mutant:\n{found}")
    root = Path(folder)
    files = {
        "vectors.npz": as_npz(arrays),
        "vectors.json": as_json(arrays).encode(),
        "vectors.h": as_header(arrays).encode(),
        "certificate.csv": as_certificate(found).encode(),
        **as_onnx(arrays),
    }
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(content)


def _layers(arrays: Mapping[str, Array]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """By layer: what its vectors share, and the arrays of each vector."""
    layers: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for key, array in arrays.items():
        layer, *vector, own = key.split("/")
        shared, found = layers.setdefault(layer, ({}, {}))
        (found.setdefault(vector[0], {}) if vector else shared)[own] = array
    return layers


def _runs(arrays: Mapping[str, Array]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each vector by "layer/vector", with what it shares."""
    for layer, (shared, found) in _layers(arrays).items():
        for name, run in found.items():
            yield f"{layer}/{name}", shared | run


def as_npz(arrays: Mapping[str, Array]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
    return buffer.getvalue()


# --- text --------------------------------------------------------------------------------------


def _number(value: Any) -> str:
    """As few digits as name this float32 and no other."""
    if value == 0 or 1e-3 <= abs(value) < 1e3:
        return np.format_float_positional(value, trim="0")
    return np.format_float_scientific(value, trim="0", exp_digits=1)


def as_json(arrays: Mapping[str, Array]) -> str:
    """Layers and their vectors: shapes and flat lists, the last axis fastest; null is NaN."""
    layers = []
    for name, (shared, found) in _layers(arrays).items():
        head = f'"name": "{name}", "cell": "{shared["cell"]}",\n {_json_arrays(shared)}'
        runs = ",\n".join(f'{{"name": "{n}",\n {_json_arrays(run)}}}' for n, run in found.items())
        layers.append(f'{{{head},\n "vectors": [\n{runs}]}}')
    return '{"format": "refrnn vectors 1", "layers": [\n' + ",\n".join(layers) + "]}\n"


def _json_arrays(arrays: Mapping[str, Array]) -> str:
    fields = []
    for key in ARRAYS:
        if key in arrays:
            array = arrays[key]
            values = ",".join(_json_number(v) for v in array.ravel())
            fields.append(f'"{key}": {{"shape": {list(array.shape)}, "data": [{values}]}}')
    return ",\n ".join(fields)


def _json_number(value: Any) -> str:
    if value.dtype == bool:
        return "1" if value else "0"
    return "null" if np.isnan(value) else _number(value)


HEADER = """\
/* Vectors that no known wrong implementation gets right. Made by refrnn.verify.killpack; C99.
 * Arrays are in row-major order: kernel (F, G*H), recurrent_kernel (H, G*H), bias (G*H) or, for
 * gru, (2, 3*H); x (B, T, F); h0, c0, h, c (B, H); mask (B, T); y (B, T, H). Gates: lstm i f g o,
 * gru z r g. NULL where there is none; a vector without h0 is to be run without a state. */
#ifndef REFRNN_VECTORS_H
#define REFRNN_VECTORS_H
#include <math.h>
#include <stddef.h>
typedef struct {
  const char *name, *cell;
  int B, T, F, H;
  const float *kernel, *recurrent_kernel, *bias, *x, *h0, *c0;
  const unsigned char *mask;
  const float *y, *h, *c;
} refrnn_vector;
"""


def as_header(arrays: Mapping[str, Array]) -> str:
    """A C header: equal arrays once, and a table of vectors that point at them."""
    known: dict[tuple[str, bytes], str] = {}
    lines, rows = [HEADER], []
    for name, group in _runs(arrays):
        pointers = []
        for key in ARRAYS:
            array = group.get(key)
            if array is None:
                pointers.append("NULL")
                continue
            content = (array.dtype.name, array.tobytes())
            if content not in known:
                known[content] = f"refrnn_{len(known)}"
                kind = "unsigned char" if array.dtype == bool else "float"
                values = ",".join(_c_number(value) for value in array.ravel())
                lines.append(f"static const {kind} {known[content]}[{array.size}] = {{{values}}};")
            pointers.append(known[content])
        B, T, F = group["x"].shape
        H = len(group["recurrent_kernel"])
        sizes = f"{B}, {T}, {F}, {H}"
        rows.append(f'  {{"{name}", "{group["cell"]}", {sizes}, {", ".join(pointers)}}},')
    table = ["static const refrnn_vector refrnn_vectors[] = {", *rows, "};"]
    return "\n".join([*lines, *table, "#endif", ""])


def _c_number(value: Any) -> str:
    if value.dtype == bool:
        return "1" if value else "0"
    if np.isnan(value):
        return "NAN"
    return f"{_number(value)}f"


def as_certificate(found: Grade) -> str:
    """A row for each mutant and cell: the margin of each vector that catches it."""
    names = list(dict.fromkeys(_short(name) for o in found.killed for name in o.margins))
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(["mutant", "cell", *names])
    for outcome in found.killed:
        margins = {_short(name): margin for name, margin in outcome.margins.items()}
        shown = [margins.get(name, 0.0) for name in names]
        cells = [f"{m:.0e}".replace("e+0", "e") if m > 1 else "" for m in shown]
        table.writerow([outcome.mutant, outcome.cell, *cells])
    return buffer.getvalue()


def _short(name: str) -> str:
    """The vector's name without its layer's."""
    return name.partition("/")[2]


# --- ONNX --------------------------------------------------------------------------------------


def as_onnx(arrays: Mapping[str, Array]) -> dict[str, bytes]:
    """The files of a node test for each vector that ONNX can put.

    Masks only as lengths, and no call after another: each node test is a model of its own.
    """
    files: dict[str, bytes] = {}
    for name, group in _runs(arrays):
        mask = group.get("mask")
        holes = mask is not None and not np.array_equal(np.sort(mask, axis=1)[:, ::-1], mask)
        if holes or name.endswith("_again"):
            continue
        op, order, attributes = ONNX_OPS[str(group["cell"])]
        inputs, outputs = _onnx_values(group, order)
        title = "test_" + name.replace("/", "_")
        settings = {"hidden_size": len(group["recurrent_kernel"]), **attributes}
        files[f"onnx/{title}/model.onnx"] = _onnx_model(title, op, settings, inputs, outputs)
        data = f"onnx/{title}/test_data_set_0"
        given = [(n, a) for n, a in inputs if a is not None]
        for kind, tensors in (("input", given), ("output", outputs)):
            for k, (label, array) in enumerate(tensors):
                files[f"{data}/{kind}_{k}.pb"] = messages.tensor(label, array)
    return files


def _onnx_model(
    title: str,
    op: str,
    attributes: Mapping[str, "int | str"],
    inputs: Sequence[tuple[str, Array | None]],
    outputs: Sequence[tuple[str, Array]],
) -> bytes:
    """A model of one node, whose inputs are the graph's; an input of None is left out."""
    names = [name if array is not None else "" for name, array in inputs]
    node = messages.node(op, names, [name for name, _ in outputs], attributes, title)
    given, returned = (
        [messages.value(n, a.dtype.name, a.shape) for n, a in pairs if a is not None]
        for pairs in (inputs, outputs)
    )
    return messages.model(title, [node], given, returned)


def _onnx_values(
    group: Mapping[str, Array], order: str
) -> tuple[list[tuple[str, Array | None]], list[tuple[str, Array]]]:
    """Inputs and outputs in ONNX's order and layout: time first, a leading axis for directions."""
    letters = CELLS[str(group["cell"])].gates

    def rows(a: Array) -> Array:
        """(K, G*H) as (G*H, K) with the gates in ONNX's order."""
        blocks = np.split(a, len(letters), axis=-1)
        return np.concatenate([blocks[letters.index(g)] for g in order], axis=-1).T

    bias = np.atleast_2d(group["bias"])
    both = [rows(b) for b in bias] + [np.zeros(bias.shape[1], np.float32)] * (2 - len(bias))
    mask = group.get("mask")
    y = group["y"] if mask is None else np.where(mask[:, :, None], group["y"], np.float32(0))
    inputs: list[tuple[str, Array | None]] = [
        ("X", group["x"].swapaxes(0, 1)),
        ("W", rows(group["kernel"])[None]),
        ("R", rows(group["recurrent_kernel"])[None]),
        ("B", np.concatenate(both)[None]),
        ("sequence_lens", None if mask is None else mask.sum(1).astype(np.int32)),
        ("initial_h", group["h0"][None] if "h0" in group else None),
        ("initial_c", group["c0"][None] if "c0" in group else None),
    ]
    while inputs[-1][1] is None:
        inputs.pop()
    outputs = [("Y", y.swapaxes(0, 1)[:, None]), ("Y_h", group["h"][None])]
    if "c" in group:
        outputs.append(("Y_c", group["c"][None]))
    return inputs, outputs
