"""Which engine runs what: the choice of "auto", what it says of itself, and what weights it uses.

That the kernels compute what the reference computes is held in test_kernels.py.
"""

import copy
import pickle
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest

import refrnn
from refrnn import engines, kernels, layers
from refrnn.kernels import engine as compiled

B, T, F, H = 3, 7, 4, 5
KINDS = ("SimpleRNN", "GRU", "LSTM")
NAMES = {"SimpleRNN": "simple", "GRU": "gru", "LSTM": "lstm"}
# an output adds up F + H products and the terms of its gates, each rounded: a few times that
SPACINGS = {"float32": 64 * np.finfo(np.float32).eps, "float64": 64 * np.finfo(np.float64).eps}


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(engines.ENVIRONMENT, raising=False)
    monkeypatch.setattr(engines, "_broken", [])


def drawn(dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).normal(size=(B, T, F)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_engines_agree_and_are_not_the_same(kind: str, dtype: str) -> None:
    x, options = drawn(dtype), {"dtype": dtype, "return_sequences": True}
    a = getattr(layers, kind)(33, engine="numpy", **options)
    b = getattr(layers, kind)(33, engine="numba", **options)
    want = a(x)
    b.set_weights(a.get_weights())
    got = b(x)
    assert np.abs(got - want).max() < SPACINGS[dtype]
    assert not np.array_equal(got, want)  # or the kernel did not run
    weights = refrnn.Weights(*a.get_weights())
    bare = {e: refrnn.run(NAMES[kind], weights, x, engine=e)[0] for e in ("numpy", "numba", "auto")}
    assert np.array_equal(bare["numpy"], want)
    assert np.array_equal(bare["numba"], got)
    assert np.array_equal(bare["auto"], got)


@pytest.mark.parametrize(
    ("arguments", "engine"),
    [
        ({}, "numba"),
        ({"dtype": "float64"}, "numba"),
        ({"engine": "numba"}, "numba"),
        ({"engine": "numpy"}, "numpy"),
        ({"activation": "relu"}, "numpy"),
        ({"recurrent_activation": "hard_sigmoid"}, "numpy"),
        ({"dtype": "float16"}, "numpy"),
    ],
)
def test_a_layer_says_what_it_runs_on(arguments: dict[str, Any], engine: str) -> None:
    layer = layers.GRU(H, **arguments)
    assert layer.engine == engine
    layer(drawn())
    assert layer.engine == engine


def test_an_engine_can_be_changed_and_is_kept_by_copies_alone() -> None:
    layer, x = layers.LSTM(H, return_sequences=True), drawn()
    fast = layer(x)
    layer.engine = "numpy"
    slow = layer(x)
    assert layer.engine == "numpy"
    assert not np.array_equal(fast, slow)
    with pytest.raises(ValueError, match="LSTM 'relu': engine is 'numba', expected 'auto' or"):
        layers.LSTM(H, activation="relu", name="relu").engine = "numba"
    pair = layers.Bidirectional(layer)
    assert (pair.forward_layer.engine, pair.backward_layer.engine) == ("numpy", "numpy")
    assert "engine" not in layer.get_config()


@pytest.mark.parametrize("wrong", ["cuda", None, 3])
def test_another_engine_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"engine is {wrong!r}, expected one of auto, numpy, numb"):
        layers.LSTM(H, engine=wrong)
    weights = refrnn.Weights(np.ones((1, 4)), np.ones((1, 4)), np.ones(4))
    with pytest.raises(ValueError, match=f"lstm: engine is {wrong!r}"):
        refrnn.run("lstm", weights, np.ones((1, 1, 1)), engine=wrong)


def test_numba_is_refused_where_there_is_no_kernel() -> None:
    weights = refrnn.Weights(np.ones((1, 4)), np.ones((1, 4)), np.ones(4))
    with pytest.raises(ValueError, match="not for relu and sigmoid in float64"):
        refrnn.run("lstm", weights, np.ones((1, 1, 1)), activation="relu", engine="numba")
    with pytest.raises(ValueError, match=r"'low': engine is 'numba'.* not for .* in float16"):
        layers.SimpleRNN(2, dtype="float16", engine="numba", name="low")


def test_the_environment_says_what_auto_is(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layers.LSTM(H)
    monkeypatch.setenv(engines.ENVIRONMENT, "numpy")
    assert layer.engine == "numpy"
    assert layers.LSTM(H, engine="numba").engine == "numba"
    monkeypatch.setenv(engines.ENVIRONMENT, "numba")
    assert layer.engine == "numba"
    assert layers.LSTM(H, activation="relu").engine == "numpy"  # auto still chooses what there is
    monkeypatch.setenv(engines.ENVIRONMENT, "fast")
    with pytest.raises(ValueError, match="REFRNN_ENGINE: engine is 'fast'"):
        layer.engine  # noqa: B018


def test_without_a_compiler_there_is_one_warning_and_the_numpy_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any) -> Any:
        raise kernels.CompileError("no compiler here")

    monkeypatch.setattr(compiled, "_compiled", broken)
    x = drawn()
    layer, other = layers.LSTM(H, return_sequences=True), layers.GRU(H)
    with pytest.warns(RuntimeWarning, match=r"NumPy engine, many times slower: no compiler here"):
        y = layer(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other(x)
        layer(x)
    assert (layer.engine, other.engine) == ("numpy", "numpy")
    slow = layers.LSTM(H, return_sequences=True, engine="numpy")
    slow.set_weights(layer.get_weights())
    assert np.array_equal(y, slow(x))
    with pytest.raises(kernels.CompileError, match="no compiler here"):
        layers.LSTM(H, engine="numba")(x)


# --- prepared weights are those of the layer ---


def changes() -> dict[str, Any]:
    """Layers around an LSTM, and how its weights are changed."""
    lstm = layers.LSTM(H, return_sequences=True)
    inner = layers.LSTM(H, return_sequences=True)
    middle = layers.GRU(H, return_sequences=True)
    return {
        "layer": lstm,
        "pair": layers.Bidirectional(lstm),
        "each step of another": layers.TimeDistributed(layers.GRU(H)),
        "chain": refrnn.Sequential([inner, layers.Dense(2)]),
        "chain in a chain": refrnn.Sequential([refrnn.Sequential([middle])]),
    }


@pytest.mark.parametrize("name", changes())
def test_new_weights_are_used_at_once(name: str) -> None:
    layer = changes()[name]
    x = drawn() if name != "each step of another" else drawn()[:, :, None]
    layer(x)
    layer.set_weights([w * 0 for w in layer.get_weights()])
    assert not layer(x).any()


def test_new_weights_of_the_cell_are_used_at_once() -> None:
    layer = layers.LSTM(H)
    layer(drawn())
    layer.cell.set_weights([w * 0 for w in layer.get_weights()])
    assert not layer(drawn()).any()


@pytest.mark.parametrize("how", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_has_weights_of_its_own(how: Any) -> None:
    layer = layers.LSTM(H)
    y = layer(drawn())
    twin = how(layer)
    assert np.array_equal(twin(drawn()), y)
    twin.set_weights([w * 0 for w in twin.get_weights()])
    assert not twin(drawn()).any()
    assert np.array_equal(layer(drawn()), y)


def test_dropout_in_training_runs_on_numpy() -> None:
    """There is no kernel for it; Keras's masks are held in test_dropout.py."""
    x, options = drawn(), {"dropout": 0.5, "seed": 3, "return_sequences": True}
    auto, slow = layers.LSTM(H, **options), layers.LSTM(H, engine="numpy", **options)
    auto(x)
    slow(x)
    slow.set_weights(auto.get_weights())
    assert np.array_equal(auto(x, training=True), slow(x, training=True))


def test_shapes_are_found_without_compiling() -> None:
    """A model is made of symbols in no time, and on machines without a compiler."""
    code = (
        "import sys; from refrnn import Model, layers\n"
        "a = layers.Input((None, 3)); Model(a, layers.LSTM(4)(a)).summary()\n"
        "print('numba' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split()[-1] == "False"
