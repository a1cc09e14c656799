"""refrnn reproduces 239 results of Keras's RNN driver, and not its one bug.

fixtures/driver_grid.npz was written by Keras 3.15.1 on TensorFlow 2.21.0 (CPU), in float64: layers
x masks x go_backwards x zero_output_for_mask x unroll x initial_state.
"""

from pathlib import Path

import numpy as np
import pytest

import refrnn
from refrnn.verify import compare
from refrnn.verify.chunks import named

GRID = dict(np.load(Path(__file__).parent / "fixtures" / "driver_grid.npz"))
KEYS = sorted({key.rpartition("|")[0] for key in GRID if "|" in key})
CELLS = {
    "lstm": "LSTM",
    "lstm_nobias": "LSTM",
    "gru": "GRU",
    "gru_before": "GRU",
    "simple": "SimpleRNN",
}


def layer_of(key: str) -> refrnn.layers.Recurrent:
    kind, _, backwards, zero, unroll, _ = key.split("|")
    options = {"reset_after": kind == "gru"} if kind.startswith("gru") else {}
    layer = getattr(refrnn.layers, CELLS[kind])(
        3,
        return_sequences=True,
        return_state=True,
        use_bias=kind != "lstm_nobias",
        go_backwards=backwards == "gb1",
        zero_output_for_mask=zero == "zo1",
        unroll=unroll == "un1",
        dtype="float64",
        **options,
    )
    layer.set_weights([GRID[f"{kind}_w{k}"] for k in range(3) if f"{kind}_w{k}" in GRID])
    return layer


def run(key: str) -> dict[str, np.ndarray]:
    kind, mask, *_, initial = key.split("|")
    state = None
    if initial == "ini1":
        state = [GRID["h0"], GRID["c0"]] if kind.startswith("lstm") else [GRID["h0"]]
    given = None if mask == "none" else GRID[f"mask_{mask}"]
    return named(layer_of(key)(GRID["x"], initial_state=state, mask=given))


def stored(key: str) -> dict[str, np.ndarray]:
    return {part: GRID[f"{key}|{part}"] for part in "yhc" if f"{key}|{part}" in GRID}


def has_the_bug(key: str) -> bool:
    """unroll, zero_output_for_mask and go_backwards together, with a mask that has a direction.

    Keras then zeroes outputs by the mask as given, though the steps were taken in reverse order.
    """
    mask = GRID.get(f"mask_{key.split('|')[1]}")
    options = {"gb1", "zo1", "un1"} <= set(key.split("|"))
    return options and mask is not None and not (mask == mask[:, ::-1]).all()


@pytest.mark.parametrize("key", [key for key in KEYS if not has_the_bug(key)])
def test_a_result_of_the_driver_is_reproduced(key: str) -> None:
    compare(run(key), stored(key), 1e-12, key)


@pytest.mark.parametrize("key", [key for key in KEYS if has_the_bug(key)])
def test_the_bug_of_keras_is_known_and_not_copied(key: str) -> None:
    """refrnn gives what Keras gives without unroll; Keras's outputs are those, wrongly zeroed."""
    got, want = run(key), stored(key)
    mask = GRID[f"mask_{key.split('|')[1]}"]
    emitted = mask[:, ::-1, None]  # the steps that count, in processing order

    assert not got["y"][~np.broadcast_to(emitted, got["y"].shape)].any()
    assert np.abs(got["y"] - want["y"]).max() > 1e-2  # else the bug is gone and this test too
    agree = (emitted & mask[:, :, None]).repeat(3, axis=2)
    np.testing.assert_allclose(got["y"][agree], want["y"][agree], rtol=1e-12, atol=0)
    assert not want["y"][~mask].any()
    states = [name for name in want if name != "y"]
    compare({n: got[n] for n in states}, {n: want[n] for n in states}, 1e-12, key)


def test_the_grid_is_all_there() -> None:
    assert len(KEYS) == 239
    assert sum(map(has_the_bug, KEYS)) >= 5
