"""Libraries beside TensorFlow: `pip install '.[oracles]'`.

A test that needs one carries the mark `others`. Where the library is missing it is skipped by name,
or fails if REFRNN_REQUIRE_ORACLES is set.
"""

import os
from importlib.util import find_spec
from typing import NoReturn

import pytest

REQUIRE = "REFRNN_REQUIRE_ORACLES"


def needs(*modules: str) -> None:
    """Skip or fail where one of them is not installed."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        without(missing)


def without(missing: list[str]) -> NoReturn:
    """The end of a test whose libraries are missing."""
    said = f"{' and '.join(missing)} not installed"
    if os.environ.get(REQUIRE):
        pytest.fail(f"{said}, and {REQUIRE} is set")
    pytest.skip(said)
