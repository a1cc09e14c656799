"""A model of OpenVINO gives the CPU plugin's numbers, or is refused by layer and attribute.

No file, however damaged, makes more of itself than a FileError.
"""

import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_onnx import assert_gives, recorded, stem

from refrnn.files import FileError, foreign, inspect, load_model
from refrnn.files.openvino import xml

FIXTURES = Path(__file__).parent / "fixtures" / "openvino"
READ = sorted(p for p in FIXTURES.glob("*.xml") if not p.name.startswith("refused_"))


# --- numbers ---


@pytest.mark.parametrize("path", READ, ids=stem)
def test_a_model_gives_the_numbers_of_openvino(path: Path) -> None:
    assert_gives(foreign.load(path), *recorded(path))


@pytest.mark.parametrize("path", READ, ids=stem)
def test_the_stored_numbers_are_those_of_openvino_here(path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    given, wanted = recorded(path)
    found = compiled([given[port.any_name] for port in compiled.inputs])
    for a, b in zip(found.values(), wanted.values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
