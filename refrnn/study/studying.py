"""`refrnn study`: the page on which the numbers of a model's gates are read, written and opened."""

import argparse
import os
import sys
import tempfile
import webbrowser
from importlib import resources
from pathlib import Path
from typing import Any

from refrnn.commands import AGREES, CannotJudge, check_writable, writing
from refrnn.files import load_model
from refrnn.study import asked
from refrnn.study.page import page
from refrnn.verify.inputs import bits
from refrnn.verify.whole import write

HELP = "write a page to study the gates on: every equation with its numbers, step by step"
DESCRIPTION = (
    "One HTML file that needs no network: pick a layer, a step and a unit, and see the equations"
    " with their numbers, forwards and, with a target, backwards; the two GRUs side by side; what"
    " cutting into chunks changes and what losing the state does. Without MODEL: a trained LSTM"
    " that counts, the running sum of 0s and 1s."
)
EPILOG = "Exit status: 0 written, 2 not: bad input."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `refrnn study` takes."""
    asked.add_model(parser, optional=True)
    parser.add_argument("--target", type=Path, metavar="Y", help=asked.TARGET)
    parser.add_argument(
        "--html", type=Path, metavar="F",
        help="write it there; by default to a temporary file, which is opened in a browser if"
        " this is a terminal",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """`refrnn study`."""
    check_writable("--html", options.html)
    if options.model is None:
        for name in ("input", "target"):
            if getattr(options, name) is not None:
                raise CannotJudge(f"--{name} {getattr(options, name)}: expected with a MODEL")
        text = running_sum()
    else:
        model, inputs = asked.model_and_inputs(options)
        wanted = asked.target(options)
        with asked.refused(options.model):
            text = page(model, inputs, wanted, options.model.name)
    path: Any = options.html
    if path is None:
        handle, path = tempfile.mkstemp(prefix="refrnn-study-", suffix=".html")
        os.close(handle)
    with writing(path, "--html"):
        write(path, text)
    print(f"written to {path}")
    if options.html is None and sys.stdout.isatty() and _has_screen():
        webbrowser.open(Path(path).as_uri())
    return AGREES


def running_sum() -> str:
    """The page of the trained model that counts the ones of a sequence, with the true sums."""
    with resources.as_file(resources.files("refrnn.verify") / "models/running_sum.keras") as path:
        model = load_model(path)
    x = bits()
    title = "running sum: a trained LSTM that counts"
    return page(model, [x], x.cumsum(axis=1), title)


def _has_screen() -> bool:
    """Whether a browser with a window can be opened: one in the terminal would take it over."""
    if sys.platform.startswith(("win", "darwin")):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
