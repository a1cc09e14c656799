"""A fused LSTM of TFLite gives the interpreter's numbers; what it has beyond a layer is said.

What has no fused LSTM, or numbers of 8 bits, is refused by operator; a damaged file by FileError.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refrnn.files import foreign

FIXTURES = Path(__file__).parent / "fixtures" / "tflite"
RECORDED = sorted(p.with_suffix(".tflite") for p in FIXTURES.glob("*.npz"))
UNCLIPPED = [p for p in RECORDED if p.stem != "clipped"]
# float32: two libraries that sum a dozen terms, and compute exp, in other orders; outputs below 10.
TOLERANCE = 2e-6


def stem(path: Path) -> str:
    return path.stem


def recorded(path: Path) -> dict[str, Any]:
    """in, out and again: the one array of each, as the file has its axes."""
    with np.load(path.with_suffix(".npz")) as arrays:
        return {name.partition("_")[0]: arrays[name] for name in arrays}


@pytest.mark.parametrize("path", UNCLIPPED, ids=stem)
def test_a_model_gives_the_numbers_of_the_interpreter(path: Path) -> None:
    found, arrays = foreign.load(path), recorded(path)
    [given] = found.inputs[0].arrays(arrays["in"])
    [wanted] = found.outputs[0].arrays(arrays["out"])
    got = found.model(given)
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=TOLERANCE)
    assert not np.allclose(wanted, wanted.reshape(-1)[0])  # the case could show a difference
