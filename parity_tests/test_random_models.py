"""Any model that Hypothesis can think of gives Keras's numbers, however it came to refrnn.

Layers with random options and weights, in chains and graphs, are saved by Keras in both formats,
read by refrnn, made of refrnn's own layers by the same lines, written back for Keras, and run in
chunks. A failure prints the model as a program of a few lines.
"""

import copy
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from programs import MASK_VALUES, Program
from strategies import programs

import refrnn
from refrnn import load_model
from refrnn.verify import compare
from refrnn.verify.chunks import flat, model_in_chunks, random_sizes
from refrnn.verify.compare import largest_difference, same_bits

EXAMPLES = 1000 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 24
ROWS, STEPS = 3, 5
# 8 and 4500 spacings: sums in another order take a few; a wrong convention is off by 1e-1
RELATIVE = {"float32": 1e-6, "float64": 1e-12}

pytestmark = [
    # Keras, where it saves: its variables do not take NumPy's newer argument copy
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    # Keras, of masks that end at a convolution, say: right, and what such a model is drawn for
    pytest.mark.filterwarnings("ignore:.*does not support masking:UserWarning"),
]


def randomize(model: Any, seed: int) -> None:
    """Weights that hide nothing: no bias is zero, variances are positive, nothing is symmetric."""
    rng = np.random.default_rng(seed)
    arrays = []
    for weight in model.weights:
        array = rng.normal(0, 0.5, weight.shape)
        arrays.append(0.5 + abs(array) if weight.path.endswith("variance") else array)
    model.set_weights(arrays)


def inputs_of(program: Program, seed: int) -> list[np.ndarray]:
    """An array for each input: ids with zeros among them, and steps that Masking masks."""
    rng = np.random.default_rng(seed)
    arrays = []
    for shape, kind, _ in program.entries:
        full = (ROWS, *shape)
        if kind == "ids":
            array = rng.integers(0, 7, full) * (rng.random(full) < 0.7)
            arrays.append(array.astype("int32"))
        elif kind == "mask":
            arrays.append((rng.random(full) < 0.7) & (rng.random((ROWS, 1)) < 0.9))
        else:
            array = rng.normal(size=full)
            for value in MASK_VALUES if len(shape) > 1 else ():
                array[rng.random(full[:-1]) < 0.15] = value
            arrays.append(array.astype(program.dtype))
    return arrays


def numbers(outputs: Any) -> dict[str, np.ndarray]:
    return flat(outputs if not hasattr(outputs, "numpy") else np.asarray(outputs))


def keras_outputs(tf: Any, model: Any, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    tensors = [tf.tf.constant(array) for array in arrays]
    outputs = model(tensors if len(tensors) > 1 else tensors[0])
    return flat(tf.tf.nest.map_structure(np.asarray, outputs))


def close(got: dict[str, Any], want: dict[str, Any], what: str, relative: dict[str, float]) -> None:
    """Within `relative` of the largest magnitude of each output; NaN where Keras has NaN."""
    assert set(got) == set(want), what
    for name, array in want.items():
        mine, nan = got[name], np.isnan(array)
        if nan.any() and mine.shape == array.shape and np.array_equal(np.isnan(mine), nan):
            mine, array = np.where(nan, 0, mine), np.where(nan, 0, array)
        compare({name: mine}, {name: array}, relative[name], f"{what}: {name}")


def limits(model: Any, arrays: list[np.ndarray], narrow: str, calls: int) -> list[dict[str, float]]:
    """For each call: RELATIVE, or where that is more, twice how far roundings move an output.

    Layers that divide by a small variance, or subtract what is nearly equal, make a rounding many
    times larger. How many is seen by changing each weight and input by a spacing of the dtype,
    four times; twice, because Keras and refrnn both round. MASK_VALUES stay, as Masking needs them.
    """
    rng = np.random.default_rng(0)
    eps = np.finfo(narrow).eps

    def nudged(array: np.ndarray) -> np.ndarray:
        if array.dtype.kind != "f":
            return array
        changed = array * (1 + eps * rng.choice([-1, 1], array.shape))
        return np.where(np.isin(array, MASK_VALUES), array, changed).astype(array.dtype)

    def run(model: Any, arrays: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
        model.reset_states()
        return [numbers(model.call(arrays)) for _ in range(calls)]

    wholes = run(model, arrays)
    found = [dict.fromkeys(whole, RELATIVE[narrow]) for whole in wholes]
    other = copy.deepcopy(model)
    for _ in range(4):
        other.set_weights([nudged(w) for w in model.get_weights()])
        moved = run(other, [nudged(a) for a in arrays])
        for limit, whole, away in zip(found, wholes, moved, strict=True):
            for name in [name for name, array in whole.items() if not np.isnan(array).any()]:
                far = largest_difference({name: away[name]}, {name: whole[name]}).error
                limit[name] = max(limit[name], 2 * far)
    return found


def lost_sizes(source: Any) -> bool:
    """Whether a size beyond batch and time is not known between the layers of a Keras model."""
    nodes = [node for layer in source.layers for node in layer._inbound_nodes]
    inner = any(lost_sizes(layer) for layer in source.layers if hasattr(layer, "layers"))
    return inner or any(None in t.shape[2:] for node in nodes for t in node.output_tensors)


def check(tf: Any, program: Program, seed: int, folder: Path) -> None:
    """Raise unless the model is Keras's in all ways that it can come to refrnn and go back."""
    try:
        source = program.make(tf.keras)
    except ValueError as error:
        if "must be fully-defined" not in str(error):
            raise
        reject()  # Keras lost a size that it would need to make weights
    if lost_sizes(source):
        reject()  # refrnn tries layers with other numbers there, which need not fit one another
    arrays = inputs_of(program, seed)
    x = arrays if len(arrays) > 1 else arrays[0]
    if program.form == "bare chain":
        source(tf.tf.constant(x))
    randomize(source, seed)
    calls = 1 + ("stateful" in repr(program))
    want = [keras_outputs(tf, source, arrays) for _ in range(calls)]
    try:
        mine = {"same lines": program.make(refrnn)}
    except ValueError:
        reject()  # sizes that are open in one input and fixed in another: refrnn tries two numbers
    if program.form == "bare chain":
        mine["same lines"](x)
    mine["same lines"].set_weights(source.get_weights())
    narrow = "float32" if "float32" in repr(program) else "float64"
    relative = limits(mine["same lines"], arrays, narrow, calls)
    for name in ("model.keras", "model.h5"):
        source.save(folder / name)
        mine[name] = load_model(folder / name)
    for what, model in mine.items():
        model.reset_states()
        for k in range(calls):
            close(numbers(model(x)), want[k], f"{what}, call {k}", relative[k])
        model.reset_states()
    model = mine["same lines"]
    model.save(folder / "again.keras")
    theirs = tf.keras.models.load_model(folder / "again.keras", compile=False)
    for k in range(calls):
        close(keras_outputs(tf, theirs, arrays), want[k], f"written back, call {k}", relative[k])
    if model.why_whole() is None:
        whole = flat(model(x))
        for sizes in ([1], [2], random_sizes(STEPS, seed)):
            assert same_bits(model_in_chunks(model, arrays, sizes), whole), f"chunks of {sizes}"


@settings(max_examples=EXAMPLES)
@given(program=programs(STEPS), seed=st.integers(0, 999))
def test_a_random_model_gives_keras_numbers(tf: Any, program: Program, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(tf, program, seed, Path(folder))
