"""refrnn's "cudnn" layout is, bit for bit, what Keras hands to TensorFlow's cuDNN operation.

No GPU is needed: Keras is shown one, and the operation is replaced by refrnn, so that what Keras
hands over is seen, and what it makes of the outputs as well: masked steps are zeros, states are
those of the CPU.

Keras puts a GRU's gates into cuDNN's order, r z h, only where TensorFlow was built for CUDA; a CPU
build leaves them z r h, as it would never run the operation. Both builds are shown to it here.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refrnn
from refrnn import goldens, layouts, verify
from refrnn.cases import Case
from refrnn.verify import compare

rules = importlib.import_module("keras.src.backend.tensorflow.rnn")
CELLS = {"LSTM": "lstm", "GRU": "gru"}
sizes = st.fixed_dictionaries(
    {"rows": st.integers(1, 4), "steps": st.integers(1, 6), "features": st.integers(1, 9)}
    | {"units": st.integers(1, 9), "seed": st.integers(0, 2**16)}
)
# A Keras layer of each example's own sizes is built, which takes 50 ms.
few = settings(max_examples=25)


class Watched:
    """TensorFlow's cuDNN operation, in refrnn: every call is kept."""

    def __init__(self, tf: Any) -> None:
        self.tf = tf
        self.calls: list[dict[str, Any]] = []

    def __call__(self, **given: Any) -> Any:
        self.calls.append(given)
        cell = given["rnn_mode"]
        x, h = np.asarray(given["input"]), np.asarray(given["input_h"])[:, 0]
        state = [h, np.asarray(given["input_c"])[:, 0]] if cell == "lstm" else [h]
        shape = {"input_size": x.shape[-1], "hidden_size": h.shape[-1]}
        vector = np.asarray(given["params"])
        weights = refrnn.Weights(*keras_weights(vector, cell, shape))
        mask = np.arange(x.shape[1]) < np.asarray(given["sequence_lengths"])[:, None]
        y, after = refrnn.run(cell, weights, x, state, mask=mask, zero_output_for_mask=True)
        tensors = (y, after[0][:, None], after[-1][:, None])
        return *map(self.tf.constant, tensors), None, None


def keras_weights(vector: Any, cell: str, shape: dict[str, int]) -> list[Any]:
    return list(layouts.convert(vector, cell, "cudnn", "keras", attributes=shape).values())


@contextmanager
def watching(tf: Any, cuda: bool = True) -> Iterator[list[dict[str, Any]]]:
    """Keras believes in a GPU, and in TensorFlow's build; what it hands over is in the list."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "_is_gpu_available", lambda: True)
        build = {**tf.tf.sysconfig.get_build_info(), "is_cuda_build": cuda}
        patch.setattr(tf.tf.sysconfig, "get_build_info", lambda: build)
        watched = Watched(tf.tf)
        patch.setattr(tf.tf.raw_ops, "CudnnRNNV3", watched)  # Keras looks it up at each call
        yield watched.calls


def called(tf: Any, case: Case, arrays: Any, how: Any = True) -> dict[str, Any]:
    """The outputs of the Keras layer; use_cudnn=True raises where it would fall back."""
    layer = tf.layer(case, arrays.weights, use_cudnn=how)
    outputs = layer(arrays.x, mask=arrays.mask, initial_state=arrays.state)
    return dict(zip(("y", "h", "c"), map(np.asarray, outputs), strict=False))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layer", CELLS)
@few
@given(sizes=sizes)
def test_the_vector_is_what_keras_hands_over_and_gives_its_weights_back(
    tf: Any, layer: str, dtype: str, sizes: dict[str, int]
) -> None:
    case = Case(layer, dtype=dtype, **sizes)
    arrays = case.arrays()
    with watching(tf) as calls:
        found = called(tf, case, arrays)
    (call,) = calls
    params = np.asarray(call["params"])
    mine = layouts.convert(arrays.weights, CELLS[layer], "keras", "cudnn")["weights"]
    assert params.dtype == mine.dtype == np.dtype(dtype)
    assert params.tobytes() == mine.tobytes()
    shape = {"input_size": case.features, "hidden_size": case.units}
    for got, weight in zip(keras_weights(params, CELLS[layer], shape), arrays.weights, strict=True):
        assert got.dtype == weight.dtype
        assert got.tobytes() == weight.astype(dtype).tobytes()
    want = case.build()(arrays.x, initial_state=arrays.state)
    compare(found, dict(zip("yhc", want, strict=False)), 0, "the watched operation")


@few
@given(sizes=sizes)
def test_a_build_without_cuda_leaves_a_gru_in_the_order_of_keras(
    tf: Any, sizes: dict[str, int]
) -> None:
    """Such a vector is not cuDNN's: z and r are exchanged in it. An LSTM's is the same."""
    case = Case("GRU", **sizes)
    arrays = case.arrays()
    with watching(tf, cuda=False) as calls:
        called(tf, case, arrays)
    blocks = [np.split(a, 3, axis=-1) for a in arrays.weights]
    exchanged = [np.concatenate([r, z, h], axis=-1) for z, r, h in blocks]
    mine = layouts.convert(exchanged, "gru", "keras", "cudnn")["weights"]
    assert np.asarray(calls[0]["params"]).tobytes() == mine.tobytes()
    lstm = Case("LSTM", **sizes)
    with watching(tf, cuda=False) as calls:
        called(tf, lstm, lstm.arrays())
    mine = layouts.convert(lstm.arrays().weights, "lstm", "keras", "cudnn")["weights"]
    assert np.asarray(calls[0]["params"]).tobytes() == mine.tobytes()


# --- masks ---


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("layer", CELLS)
@few
@given(sizes=sizes)
def test_past_its_length_a_row_is_zeros_on_cudnn_and_repeats_on_the_cpu(
    tf: Any, layer: str, backwards: bool, sizes: dict[str, int]
) -> None:
    options = {"go_backwards": True} if backwards else {}
    case = Case(layer, mask="right", options=options, **sizes)
    arrays = case.arrays()
    with watching(tf) as calls:
        on_cudnn = called(tf, case, arrays)
    (call,) = calls
    assert np.array_equal(call["sequence_lengths"], goldens.lengths(arrays.mask))
    weights = refrnn.Weights(*arrays.weights)

    def run(zeros: bool) -> dict[str, Any]:
        y, state = refrnn.run(
            CELLS[layer],
            weights,
            arrays.x,
            arrays.state,
            mask=arrays.mask,
            go_backwards=backwards,
            zero_output_for_mask=zeros,
        )
        return {"y": y, **state._asdict()}

    zeros, repeats = run(True), run(False)
    compare(on_cudnn, zeros, 0, "zeros past the length")
    for name in set(zeros) - {"y"}:
        assert np.array_equal(zeros[name], repeats[name])
    assert np.array_equal(zeros["y"], repeats["y"]) == (backwards or bool(arrays.mask.all()))


def test_the_difference_between_cudnn_and_the_cpu_is_no_rounding(tf: Any) -> None:
    """The reproducer: one layer, one right-padded mask, two answers."""
    case = Case("LSTM", rows=4, steps=9, mask="right", seed=2)
    arrays = case.arrays()
    with watching(tf) as calls:
        gpu = called(tf, case, arrays)
    cpu = called(tf, case, arrays, how=False)
    assert len(calls) == 1
    padding = ~arrays.mask
    assert not gpu["y"][padding].any()
    assert np.abs(cpu["y"][padding]).max() > 0.1
    assert np.abs(gpu["y"] - cpu["y"])[arrays.mask].max() < 1e-14
    assert max(np.abs(gpu[name] - cpu[name]).max() for name in "hc") < 1e-14


@given(
    mask=st.integers(1, 4).flatmap(
        lambda T: st.lists(st.lists(st.booleans(), min_size=T, max_size=T), min_size=1, max_size=4)
    )
)
def test_masks_that_cudnn_does_not_take_are_those_that_keras_keeps_from_it(
    tf: Any, mask: list[list[bool]]
) -> None:
    tensor = tf.tf.constant(mask)
    taken = bool(rules._is_sequence_right_padded(tensor)) and not bool(
        rules._has_fully_masked_sequence(tensor)
    )
    if taken:
        want = rules._compute_sequence_length_from_mask(tensor, time_major=False)
        assert np.array_equal(goldens.lengths(mask), want)
        assert goldens.lengths(mask).dtype == np.int32
    else:
        with pytest.raises(ValueError, match=r"mask: row \d is .*, expected its|has no live step"):
            goldens.lengths(mask)


@pytest.mark.parametrize("mask", ["left", "holes", "row"])
def test_a_layer_falls_back_or_raises_for_such_a_mask(tf: Any, mask: str) -> None:
    case = Case("GRU", rows=4, steps=9, mask=mask)
    arrays = case.arrays()
    with pytest.raises(ValueError, match="mask: row"):
        goldens.lengths(arrays.mask)
    with watching(tf) as calls:
        fell_back = called(tf, case, arrays, how="auto")
        assert not calls
        with pytest.raises(ValueError, match="use_cudnn=True"):
            called(tf, case, arrays)
    compare(fell_back, called(tf, case, arrays, how=False), 0, "the loop of the CPU")


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("layer", ["SimpleRNN", "GRU", "LSTM"])
@few
@given(sizes=sizes, mask=st.sampled_from(["right", "left", "holes", "row", "all"]))
def test_the_judge_says_which_of_the_two_contracts_is_followed(
    layer: str, backwards: bool, sizes: dict[str, int], mask: str
) -> None:
    """Where the two give the same numbers there is nothing to say, and both agree."""
    options = {"go_backwards": True} if backwards else {}
    case = Case(layer, mask=mask, options=options, **sizes)
    arrays = case.arrays()
    cpu, cudnn = case.build(), case.build(zero_output_for_mask=True)
    given = arrays.x, arrays.state, arrays.mask
    runs = [one(arrays.x, initial_state=arrays.state, mask=arrays.mask) for one in (cpu, cudnn)]
    alike = np.array_equal(runs[0][0], runs[1][0])
    for run, own, other, words in (
        (runs[0], cpu, cudnn, "masked steps repeat the last output, as Keras does on the CPU; the"),
        (runs[1], cudnn, cpu, "masked steps emit zeros, as cuDNN does; the reference was told to"),
    ):
        report = verify.check(run, own, *given)
        assert report.passed
        assert not report.notes
        report = verify.check(run, other, *given)
        assert report.passed == alike
        said = [note for note in report.notes if words in note]
        assert len(said) == len(report.notes) == (not alike)
        if said:
            assert said[0].endswith(f"zero_output_for_mask={own.zero_output_for_mask}")
    neither = [np.where(arrays.mask[:, :, None], runs[0][0], 0.5), *runs[0][1:]]
    if backwards:
        neither[0] = np.where(arrays.mask[:, ::-1, None], runs[0][0], 0.5)
    assert not verify.check(neither, cpu, *given).notes
