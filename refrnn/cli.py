"""The command line, `refrnn verify` and the others. Thin: words, over the library."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from refrnn import bench, convert, files, gpucheck, recorded, verifying
from refrnn.commands import (
    AGREES,
    DIFFERS,
    UNJUDGED,
    CannotJudge,
    check_writable,
    save_json,
    writing,
)
from refrnn.streams import command
from refrnn.study import showing, studying, tracing
from refrnn.verify import grade_file
from refrnn.verify.whole import write


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0: agrees (or can be run), 1: differs, 2: not judged."""
    options = _parser().parse_args(arguments)
    try:
        status = int(options.command(options))
        sys.stdout.flush()
        return status
    except CannotJudge as error:
        print(f"refrnn: {error}", file=sys.stderr)
        return UNJUDGED
    except OSError as error:  # nobody reads on, or the disk is full: the verdict was not told
        sys.stdout = open(os.devnull, "w")
        print(f"refrnn: the report cannot be written: {error.strerror or error}", file=sys.stderr)
        return UNJUDGED
    except KeyboardInterrupt:
        print("\nrefrnn: interrupted", file=sys.stderr)
        return UNJUDGED
    except Exception:  # a bug of refrnn's own must not be taken for a verdict
        traceback.print_exc()
        return UNJUDGED


def _parser() -> argparse.ArgumentParser:
    from refrnn.version import __version__

    parser = argparse.ArgumentParser(prog="refrnn", description=__doc__)
    parser.add_argument("--version", action="version", version=f"refrnn {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    verify = commands.add_parser(
        "verify",
        help=verifying.HELP,
        description=verifying.DESCRIPTION,
        epilog=verifying.EPILOG,
    )
    verifying.add_arguments(verify)
    verify.set_defaults(command=verifying.run)
    explain = commands.add_parser(
        "explain",
        help="say why recorded outputs differ",
        description="Searches the conventions that implementations differ in (order of gates,"
        " biases, activations, masks, states, precision, ...), one and two at a time, for those"
        " that give the recorded outputs.",
        epilog="Exit status: 0 agrees, 1 differs, 2 could not be judged.",
    )
    explain.add_argument("model", type=Path, metavar="MODEL", help="any model file")
    explain.add_argument(
        "input", type=Path, metavar="X", help=".npy, or .npz with x and, where used, h0, c0, mask"
    )
    explain.add_argument(
        "outputs", type=Path, metavar="OUT", help=".npy, or .npz with y and what else is seen"
    )
    explain.add_argument("--layer", metavar="NAME", help="of a model that has more than one layer")
    explain.add_argument("--json", type=Path, metavar="FILE", help="write the answer there too")
    explain.set_defaults(command=explain_command)
    grade = commands.add_parser(
        "grade",
        help="say which wrong implementations a set of test vectors would let pass",
        epilog="Exit status: 0 none, 1 some, 2 could not be graded.",
    )
    grade.add_argument("vectors", type=Path, metavar="VECTORS", help=".npz")
    grade.add_argument("--json", type=Path, metavar="FILE", help="write the grade there too")
    grade.set_defaults(command=grade_command)
    inspect = commands.add_parser(
        "inspect",
        help="say what is inside a model file, and what in it cannot be run",
        description="The format, the layers, their shapes and parameters; whether refrnn can run"
        " the model, and every layer, setting and array that is in the way if not. For a file of"
        " weights alone: the arrays, and the layers that they look like. Nothing in it is run.",
        epilog="Exit status: 0 can be run, 1 cannot be run, 2 damaged, or not a model file.",
    )
    inspect.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help=".keras, .h5, .weights.h5 or .onnx file, or model.json of tf.js or its folder",
    )
    inspect.add_argument(
        "--json", type=Path, metavar="F", help="write it there as JSON too; - for the screen alone"
    )
    inspect.set_defaults(command=inspect_command)
    stream = commands.add_parser(
        "stream", help=command.HELP, description=command.DESCRIPTION, epilog=command.EPILOG
    )
    command.add_arguments(stream)
    stream.set_defaults(command=command.run)
    conversion = commands.add_parser(
        "convert", help=convert.HELP, description=convert.DESCRIPTION, epilog=convert.EPILOG
    )
    convert.add_arguments(conversion)
    conversion.set_defaults(command=convert.run)
    gpu = commands.add_parser(
        "gpucheck", help=gpucheck.HELP, description=gpucheck.DESCRIPTION, epilog=gpucheck.EPILOG
    )
    gpucheck.add_arguments(gpu)
    gpu.set_defaults(command=gpucheck.run)
    timing = commands.add_parser(
        "bench", help=bench.HELP, description=bench.DESCRIPTION, epilog=bench.EPILOG
    )
    bench.add_arguments(timing)
    timing.set_defaults(command=bench.run)
    for name, module in (("trace", tracing), ("study", studying), ("show", showing)):
        looking = commands.add_parser(
            name, help=module.HELP, description=module.DESCRIPTION, epilog=module.EPILOG
        )
        module.add_arguments(looking)
        looking.set_defaults(command=module.run)
    return parser


def explain_command(options: argparse.Namespace) -> int:
    """`refrnn explain`: why recorded outputs differ."""
    check_writable("--json", options.json)
    found = recorded.explain(options.model, options.layer, options.input, options.outputs)
    print(found)
    save_json(options.json, found)
    return AGREES if found.agrees else DIFFERS


def grade_command(options: argparse.Namespace) -> int:
    """`refrnn grade`: which wrong implementations test vectors let pass."""
    check_writable("--json", options.json)
    try:
        found = grade_file(options.vectors)
    except (ValueError, TypeError) as error:
        raise CannotJudge(str(error)) from None
    print(found)
    save_json(options.json, found)
    if found.false_alarms:
        return UNJUDGED  # what the right implementation fails tells nothing of the wrong ones
    return DIFFERS if found.survived else AGREES


def inspect_command(options: argparse.Namespace) -> int:
    """`refrnn inspect`: what is in a model file."""
    on_screen = options.json == Path("-")
    if not on_screen:
        check_writable("--json", options.json)
    try:
        found = files.inspect(options.file)
    except OSError as error:
        raise CannotJudge(f"{options.file}: {error.strerror or error}") from None
    except (files.FileError, ImportError) as error:
        raise CannotJudge(str(error)) from None
    print(found.to_json() if on_screen else found)
    if options.json and not on_screen:
        with writing(options.json):
            write(options.json, f"{found.to_json()}\n")
    return AGREES if found.runs else DIFFERS
