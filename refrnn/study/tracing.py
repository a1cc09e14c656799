"""`refrnn trace`: the gates of a model's recurrent layers, in words, numbers and pictures."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from refrnn.commands import AGREES, CannotJudge, check_writable, writing
from refrnn.files.atomic import replacing
from refrnn.gates import Array
from refrnn.study import asked
from refrnn.study.page import page
from refrnn.study.recurrent import Seen
from refrnn.verify.whole import write

HELP = "tell, draw and save the gates of a model's recurrent layers"
DESCRIPTION = (
    "Runs a model and tells of each recurrent layer how open its gates are, what is saturated, how"
    " long it remembers, and which units are dead."
)
EPILOG = "Exit status: 0 traced, 2 not: bad input, or a missing library."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `refrnn trace` takes."""
    asked.add_model(parser)
    asked.add_layer(parser)
    parser.add_argument(
        "--out", type=Path, metavar="NPZ",
        help="write every gate, sum and state there, with the layer's input: a recording that"
        " `refrnn verify --against` reads",
    )  # fmt: skip
    parser.add_argument(
        "--plot", type=Path, metavar="PNG",
        help="draw the row there: .png, .svg or .pdf; needs matplotlib",
    )  # fmt: skip
    parser.add_argument(
        "--html", type=Path, metavar="F", help="write the page of `refrnn study` there"
    )


def run(options: argparse.Namespace) -> int:
    """`refrnn trace`."""
    for name in ("out", "plot", "html"):
        check_writable(f"--{name}", getattr(options, name))
    model, inputs = asked.model_and_inputs(options)
    found = asked.layers(options.model, model, inputs, options.layer)
    if len(found) > 1 and (options.out or options.plot):
        names = ", ".join(seen.name for seen in found)
        raise CannotJudge(
            f"{options.model}: has the recurrent layers {names}, expected --layer with --out and"
            " --plot, because they hold one"
        )
    for seen in found:
        with asked.refused(options.model):
            print(f"{seen.name}\n{seen.trace().summary()}")
    (first, *_) = found
    if options.out:
        named: dict[str, Any] = recording(first)
        with writing(options.out, "--out"), replacing(options.out) as stream:
            np.savez(stream, **named)
    if options.plot:
        title = f"{options.model.name}: {first.name}, row {options.row}"
        with writing(options.plot, "--plot"), asked.refused(f"--plot {options.plot}"):
            first.trace().plot(options.plot, options.row, title=title)
    if options.html:
        with asked.refused(options.model):
            text = page(model, inputs, title=options.model.name)
        with writing(options.html, "--html"):
            write(options.html, text)
    return AGREES


def recording(seen: Seen) -> dict[str, Array]:
    """Everything of a layer under the names of a recording: see `refrnn verify --against`.

    x, mask, h0 and c0 are what it was given, y what it put out; hs, cs, the gates and, with pre.,
    their sums are in the order of processing.
    """
    trace: Any = seen.trace()
    ys, _ = seen.outputs()
    found: dict[str, Array] = {"x": trace.xs, "y": ys}
    if trace.mask is not None:
        found["mask"] = trace.mask
    for name, first in zip(trace.start._fields, trace.start, strict=True):
        found |= {f"{name}0": first, f"{name}s": getattr(trace, name)}
    found |= {name: getattr(trace, name) for name in trace.cell.gates if name != "h"}
    return found | {f"pre.{name}": part for name, part in trace.pre._asdict().items()}
