"""The oracle asks TensorFlow the same question that refrnn answers, and says where cuDNN would run.

No GPU is needed: which cases Keras sends to cuDNN is asked of Keras's own rules, and what cuDNN
leaves at masked steps (zeros) is made on the CPU with zero_output_for_mask.
"""

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from strategies import cases

from refrnn.cases import Case
from refrnn.jobs import Bench
from refrnn.oracles import tensorflow as oracle
from refrnn.verify import FAMILY, compare

rules = importlib.import_module("keras.src.backend.tensorflow.rnn")


@pytest.fixture
def gpu_in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_is_gpu_available", lambda: True)


def keras_would_use_cudnn(tf: Any, case: Case) -> bool:
    layer = tf.layer(case, case.arrays().weights)
    if case.layer == "SimpleRNN":
        return False
    cell = layer.cell
    after = {"reset_after": cell.reset_after} if case.layer == "GRU" else {}
    arguments = (cell.activation, cell.recurrent_activation, layer.unroll, cell.use_bias)
    if not rules.cudnn_ok(*arguments, **after):
        return False
    mask = case.arrays().mask
    if mask is None:
        return True
    tensor = tf.tf.constant(mask)
    empty = bool(rules._has_fully_masked_sequence(tensor))
    return bool(rules._is_sequence_right_padded(tensor)) and not empty


def test_the_cases_for_cudnn_are_those_that_keras_sends_there(tf: Any, gpu_in_sight: None) -> None:
    chosen = [case for case in FAMILY if tf.runs_on_cudnn(case, case.arrays().mask)]
    assert chosen == [case for case in FAMILY if keras_would_use_cudnn(tf, case)]
    assert {case.layer for case in chosen} == {"LSTM", "GRU"}


@given(case=cases())
def test_any_case_is_judged_by_keras_rules(tf: Any, case: Case) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "_is_gpu_available", lambda: True)
        want = keras_would_use_cudnn(tf, case)
    assert tf.runs_on_cudnn(case, case.arrays().mask) == want


@pytest.mark.parametrize("layer", ["GRU", "LSTM"])
@pytest.mark.parametrize("backwards", [False, True])
def test_zeros_that_cudnn_leaves_become_the_outputs_of_the_cpu(
    tf: Any, layer: str, backwards: bool
) -> None:
    options = {"go_backwards": True} if backwards else {}
    plain = Case(layer, rows=6, mask="right", options=options)
    like_cudnn = Case(
        layer, rows=6, mask="right", options={**options, "zero_output_for_mask": True}
    )
    found = tf.run(like_cudnn)
    assert not np.array_equal(found["y"], tf.run(plain)["y"]) or backwards
    found["y"] = oracle.repeat_outputs(found["y"], plain.arrays().mask, backwards)
    compare(found, tf.run(plain), 0, "the same numbers, put in place")


def test_what_compilers_say_is_held_back_unless_it_explains_an_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    import os

    with oracle._quiet():
        os.write(2, b"noise\n")
    assert capfd.readouterr().err == ""

    def fail() -> None:
        with oracle._quiet():
            os.write(2, b"the reason\n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert "the reason" in capfd.readouterr().err


def test_a_model_is_run_from_a_blank_state_each_time(tf: Any) -> None:
    keras = tf.keras
    model = keras.Sequential(
        [keras.Input(batch_shape=(2, 5, 3)), keras.layers.GRU(4, stateful=True)]
    )
    x = np.ones((2, 5, 3), np.float32)
    once, again = tf.run_model(model, [x]), tf.run_model(model, [x])
    assert np.array_equal(once, again)
    assert model.layers[0].states[0].numpy().any()


def test_the_recurrent_layers_inside_a_model_show_what_went_in_and_what_came_out(tf: Any) -> None:
    """What is shown is what the layer itself computes from what is shown: masks and states too."""
    layers = tf.keras.layers
    words = tf.keras.Input((None,), dtype="int32")
    embedded = layers.Embedding(20, 6, mask_zero=True)(words)
    first = layers.LSTM(8, return_sequences=True, name="first")(embedded)
    second, h = layers.GRU(5, return_sequences=True, return_state=True, name="second")(first)
    third = layers.GRU(5, name="third")(first, initial_state=h)
    model = tf.keras.Model(words, [second, third])
    x = np.array([[3, 1, 4, 0, 0], [1, 5, 9, 2, 6]], np.int32)
    seen = tf.inside(model, [x])
    assert [inner.name for inner in seen] == ["first", "second", "third"]
    assert [inner.state is None for inner in seen] == [True, True, False]
    assert seen[2].mask is None  # Keras switches the automatic mask off where a state is given
    for inner in seen:
        if inner.state is None:
            np.testing.assert_array_equal(inner.mask, x != 0)
        layer = model.get_layer(inner.name)
        again = layer(inner.x, initial_state=inner.state, mask=inner.mask)
        again = again if isinstance(again, list | tuple) else [again]
        assert len(again) == len(inner.outputs)
        for a, b in zip(again, inner.outputs, strict=True):
            np.testing.assert_array_equal(np.asarray(a), b)
    assert [inner.outputs[0].shape for inner in seen] == [(2, 5, 8), (2, 5, 5), (2, 5)]


def test_a_layer_that_is_called_twice_is_not_shown(tf: Any) -> None:
    layers = tf.keras.layers
    x = tf.keras.Input((None, 4))
    shared = layers.GRU(4, return_sequences=True)
    model = tf.keras.Model(x, shared(shared(x)))
    assert tf.inside(model, [np.zeros((1, 3, 4), np.float32)]) == []


def test_a_wrong_layer_inside_a_model_is_found_though_the_output_hides_it(
    tf: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's output is a small number of the layer's: only the layer's own steps tell."""
    layers = tf.keras.layers
    small = tf.keras.initializers.Constant(1e-9)
    source = tf.keras.Sequential(
        [tf.keras.Input((None, 3)), layers.LSTM(4, return_sequences=True, name="inner"),
         layers.Dense(1, kernel_initializer=small, bias_initializer="ones")]
    )  # fmt: skip
    path = tmp_path / "m.keras"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras: how it asks NumPy for copies
        source.save(path)
    bench = Bench(tf, cpu=True, gpu=False, cuttings=[])
    assert [row.agrees for row in bench.file(path, None)()] == [True] * 4
    inside = type(tf).inside

    def wrong(self: Any, model: Any, inputs: Any) -> Any:
        return [inner._replace(x=inner.x * 1.01) for inner in inside(self, model, inputs)]

    monkeypatch.setattr(type(tf), "inside", wrong)
    assert [row.agrees for row in bench.file(path, None)()] == [True, True, True, False]
