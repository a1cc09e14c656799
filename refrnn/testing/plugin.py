"""pytest's header says what is installed, its summary what could not be asked. Nothing is imported.

Registered as the entry point "refrnn"; `pytest -p no:refrnn` leaves it out.
"""

import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from refrnn.version import __version__

if TYPE_CHECKING:
    import pytest

ENGINES = ("numpy", "numba")
# packages that bring an implementation to compare with, and how to install one
OTHERS: dict[str, tuple[tuple[str, ...], str]] = {
    "tensorflow": (("tensorflow", "tensorflow-cpu", "tf-nightly"), "'refrnn[verify]'"),
    "keras": (("keras",), "'refrnn[verify]'"),
    "torch": (("torch",), "torch"),
    "onnxruntime": (("onnxruntime", "onnxruntime-gpu"), "onnxruntime"),
    "jax": (("jax",), "jax"),
}
JUDGE = ("refrnn.verify", "refrnn.oracles")


def pytest_report_header() -> str:
    """Versions of refrnn and of what it can be compared with."""
    found = {name: version for name in ENGINES if (version := _version(name))}
    found |= {name: version for name, (names, _) in OTHERS.items() if (version := _version(*names))}
    versions = ", ".join(f"{name} {version}" for name, version in found.items())
    return f"refrnn {__version__}: {versions}; GPU: {_gpu()}"


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    """What no test can have been compared with, if any test has compared at all."""
    if not any(name in sys.modules for name in JUDGE):
        return
    missing = [
        f"{name} (pip install {install})"
        for name, (names, install) in OTHERS.items()
        if not _version(*names)
    ]
    if missing:
        terminalreporter.write_line(
            f"refrnn: not installed, so nothing was compared with: {', '.join(missing)}"
        )


def _version(*names: str) -> str | None:
    """Of the first that is installed."""
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _gpu() -> str:
    """What the system says without a library being asked."""
    if not sys.platform.startswith("linux"):
        return "unknown"
    cards = Path("/proc/driver/nvidia/gpus")
    count = len(list(cards.iterdir())) if cards.is_dir() else 0
    return f"{count} NVIDIA, not asked whether it can be used" if count else "none seen"
