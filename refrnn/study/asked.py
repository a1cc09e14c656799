"""What `refrnn trace`, `show` and `study` are given: a model, its inputs, a layer of it."""

import argparse
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refrnn import reading
from refrnn.commands import CannotJudge
from refrnn.gates import Array
from refrnn.models import Model
from refrnn.study.recurrent import Seen, chosen, recurrent

INPUT = "inputs of MODEL: .npy, or .npz by input name; random ones by default"
TARGET = (
    "what the output should have been, .npy: the equations backwards too, of the mean squared error"
)


def add_model(parser: argparse.ArgumentParser, optional: bool = False) -> None:
    """MODEL and its inputs."""
    parser.add_argument(
        "model", nargs="?" if optional else None, type=Path, metavar="MODEL", help="any model file"
    )
    parser.add_argument("--input", type=Path, metavar="X", help=INPUT)


def add_layer(parser: argparse.ArgumentParser) -> None:
    """--layer and --row."""
    parser.add_argument(
        "--layer", metavar="NAME", help="of a model that has more than one recurrent layer"
    )
    parser.add_argument(
        "--row", type=int, default=0, metavar="N", help="of the batch, 0 by default"
    )


def model_and_inputs(options: argparse.Namespace) -> tuple[Model, list[Array]]:
    """What was given, or CannotJudge."""
    found = reading.model(options.model)
    return found, reading.inputs(options.model, found, options.input, finite=False)


def target(options: argparse.Namespace) -> Array | None:
    """The array of --target, or CannotJudge."""
    if options.target is None:
        return None
    found = reading.arrays(options.target, "y")
    if list(found) != ["y"]:
        raise CannotJudge(f"{options.target}: arrays are {list(found)}, expected y alone")
    return found["y"]


@contextmanager
def refused(source: Any) -> Generator[None, None, None]:
    """What the library refuses inside the block is CannotJudge."""
    try:
        yield
    except (ValueError, TypeError, ImportError) as error:
        raise CannotJudge(f"{source}: {error}") from None


def layers(source: Path, model: Model, inputs: list[Array], name: str | None) -> list[Seen]:
    """The recurrent layer of that name, or all of them; or CannotJudge."""
    with refused(source):
        found, _ = recurrent(model, inputs if len(inputs) > 1 else inputs[0])
        if name is None and found:
            return found
        return [chosen(found, name)]
