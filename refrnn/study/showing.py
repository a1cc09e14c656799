"""`refrnn show`: the equations of one step and unit with their numbers, in the terminal."""

import argparse
from pathlib import Path

from refrnn.commands import AGREES
from refrnn.study import asked
from refrnn.study.equations import NOTATIONS
from refrnn.study.recurrent import chosen
from refrnn.study.target import Wanted
from refrnn.study.terminal import show

HELP = "print the equations of one step and unit with their numbers"
DESCRIPTION = (
    "What each gate of a recurrent layer computes at one step for one unit: each equation in the"
    " letters of a library, and then with its numbers, which are those of refrnn.trace."
)
EPILOG = "Exit status: 0 shown, 2 not: bad input."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `refrnn show` takes."""
    asked.add_model(parser)
    asked.add_layer(parser)
    parser.add_argument(
        "--step", type=int, default=0, metavar="T", help="in the order of processing, from 0"
    )
    parser.add_argument("--unit", type=int, default=0, metavar="U", help="from 0")
    parser.add_argument("--letters", choices=tuple(NOTATIONS), default="keras")
    parser.add_argument("--target", metavar="Y", type=Path, help=asked.TARGET)


def run(options: argparse.Namespace) -> int:
    """`refrnn show`."""
    model, inputs = asked.model_and_inputs(options)
    wanted = asked.target(options)
    found = asked.layers(options.model, model, inputs, options.layer)
    with asked.refused(options.model):
        seen = chosen(found, options.layer)
        gradients = None if wanted is None else Wanted(model, inputs, wanted).reached(seen)
        if isinstance(gradients, str):
            raise ValueError(f"{seen.name}: cannot be shown backwards: {gradients}")
        told = show(
            seen.trace(),
            options.step,
            options.unit,
            options.row,
            options.letters,
            gradients,
            seen.layer.zero_output_for_mask,
        )
    print(f"{seen.name}: {told}")
    return AGREES
