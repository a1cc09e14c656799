"""`import refrnn` costs NumPy and nothing else, and every public name is there and explained."""

import importlib.metadata
import subprocess
import sys
import types

import pytest

import refrnn
from refrnn import activations, initializers, layers, models, verify

HEAVY = ("tensorflow", "keras", "torch", "jax", "onnxruntime", "h5py", "numba", "ml_dtypes")
LOADED = "import {what}, sys; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"


def loaded_by(what: str) -> set[str]:
    """The packages in a fresh Python after `import what`."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOADED.format(what=what)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert run.stderr == ""
    return set(run.stdout.split())


@pytest.mark.parametrize(
    "what", ["refrnn", "refrnn.layers, refrnn.verify, refrnn.cli", "refrnn.oracles.tensorflow"]
)
def test_an_import_loads_no_other_library(what: str) -> None:
    found = loaded_by(what)
    assert {"refrnn", "numpy"} <= found
    assert not found & set(HEAVY)


@pytest.mark.parametrize("module", [refrnn, layers, verify], ids=lambda m: m.__name__)
def test_every_public_name_exists_and_has_a_docstring(module: types.ModuleType) -> None:
    assert module.__doc__
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        found = getattr(module, name)
        if callable(found) or isinstance(found, types.ModuleType):
            assert found.__doc__, name
            assert found.__doc__.strip(), name
            if isinstance(found, type) and issubclass(found, tuple):
                assert not found.__doc__.startswith(f"{name}("), name  # what NamedTuple writes


@pytest.mark.parametrize("module", [refrnn, layers, verify], ids=lambda m: m.__name__)
def test_every_public_class_and_function_is_in_all(module: types.ModuleType) -> None:
    mine = {
        name
        for name, found in vars(module).items()
        if not name.startswith("_") and callable(found) and found.__module__.startswith("refrnn")
    }
    assert mine <= set(module.__all__)


def test_the_version_is_that_of_the_package() -> None:
    assert importlib.metadata.version("refrnn") == refrnn.__version__


def test_tables_of_names_are_not_empty() -> None:
    assert {"tanh", "sigmoid"} <= set(activations.ACTIVATIONS)
    assert {"orthogonal", "zeros"} <= set(initializers.INITIALIZERS)
    # what comes from configs only has a dot in its name: there is nothing to type
    named = {n for n in layers.LAYERS if "." not in n} - set(models.MODELS)
    assert named <= set(layers.__all__)
    assert {"LSTM", "Dense"} <= named
