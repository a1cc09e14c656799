"""Libraries beside TensorFlow: `pip install '.[oracles]'`.

A test that needs one carries the mark `others`. Where the library is missing it is skipped by name,
or fails if REFRNN_REQUIRE_ORACLES is set.
"""

import os
from importlib.util import find_spec
from typing import NoReturn

import pytest

from refrnn.oracles.table import ORACLES

REQUIRE = "REFRNN_REQUIRE_ORACLES"


def needs(*modules: str) -> None:
    """Skip or fail where one of them is not installed."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        without(missing)


def needs_oracles(*names: str) -> None:
    """The same for oracles by name; those of Node, which no extra installs, are skipped."""
    missing = [one for name in names if not ORACLES[name].npm for one in ORACLES[name].missing]
    if missing:
        without(missing)
    absent = [one for name in names for one in ORACLES[name].missing]
    if absent:
        pytest.skip(f"{' and '.join(absent)} not installed")


def without(missing: list[str]) -> NoReturn:
    """The end of a test whose libraries are missing."""
    said = f"{' and '.join(missing)} not installed"
    if os.environ.get(REQUIRE):
        pytest.fail(f"{said}, and {REQUIRE} is set")
    pytest.skip(said)
