"""Hypothesis profiles, and TensorFlow once a session: dev by default, ci where CI is set."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from refrnn.oracles.tensorflow import TensorFlow

COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=30, **COMMON)
settings.register_profile("ci", max_examples=150, derandomize=True, database=None, **COMMON)
settings.register_profile("nightly", max_examples=1000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


@pytest.fixture(scope="session")
def tf() -> TensorFlow:
    """TensorFlow with Keras 3. Its absence is an error, never a skip: parity is the point."""
    return TensorFlow()


@pytest.fixture
def floatx(tf: TensorFlow, request: Any) -> Iterator[str]:
    """A dtype, given by indirect parameters, of all that Keras makes: layers, losses, rates."""
    config = tf.keras.config
    before, policy = config.floatx(), config.dtype_policy()
    config.set_floatx(request.param)
    config.set_dtype_policy(request.param)
    yield request.param
    config.set_floatx(before)
    config.set_dtype_policy(policy)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
