"""The command line, `refrnn verify` and the others. Thin: words, over the library."""

import argparse
import contextlib
import json
import os
import sys
import time
import traceback
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, TextIO

from refrnn import bench, convert, files, matrix, panel, recorded
from refrnn.jobs import Bench, CannotJudge, Job
from refrnn.oracles import Unavailable
from refrnn.oracles.table import ORACLES
from refrnn.oracles.tensorflow import TensorFlow
from refrnn.streams import command
from refrnn.verify import Report, grade_file
from refrnn.verify.table import Table, here
from refrnn.verify.whole import plain, write

AGREES, DIFFERS, UNJUDGED = 0, 1, 2


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
        help="hold refrnn against TensorFlow on this machine, whole and in chunks",
        description="Without MODEL: a fixed family of layers and two trained models. With it:"
        " that model. TensorFlow runs eagerly, as tf.function and compiled by XLA, on the CPU and,"
        " where it sees a GPU, by cuDNN; refrnn runs whole, step by step and in chunks, its state"
        " carried. With --against FILE: recorded outputs of anything, for which no TensorFlow is"
        " needed. With --against NAMES: the family against other libraries.",
        epilog="Exit status: 0 agrees, 1 differs, 2 could not be judged.",
    )
    verify.add_argument("model", nargs="?", type=Path, metavar="MODEL", help=".keras or .h5 file")
    verify.add_argument(
        "--against",
        metavar="FILE or NAMES",
        help="outputs to be judged: .npy, or .npz with y and what else is seen: h, c, gates; or"
        f" libraries, separated by commas: {', '.join(ORACLES)}",
    )
    verify.add_argument(
        "--matrix",
        action="store_true",
        help="every library that is installed, or those of --against, on the same cases: who agrees"
        " with whom, and where they are known to differ",
    )
    verify.add_argument(
        "--layer",
        metavar="NAME",
        help="with --against: the recurrent layer of MODEL that they are of; X is its input",
    )
    verify.add_argument(
        "--input", type=Path, metavar="X", help="inputs of MODEL: .npy, or .npz by input name"
    )
    verify.add_argument(
        "--chunks", default="all", metavar="SIZES", help="all (default), whole, or sizes as 7,13"
    )
    verify.add_argument("--device", default="auto", choices=("auto", "cpu", "gpu"))
    verify.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    verify.add_argument(
        "--html", type=Path, metavar="FILE", help="with --against: write it as a page with plots"
    )
    verify.set_defaults(command=verify_command)
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
        help=".keras, .h5 or .weights.h5 file, or model.json of tf.js or its folder",
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
    timing = commands.add_parser(
        "bench", help=bench.HELP, description=bench.DESCRIPTION, epilog=bench.EPILOG
    )
    bench.add_arguments(timing)
    timing.set_defaults(command=bench.run)
    return parser


def verify_command(options: argparse.Namespace) -> int:
    """`refrnn verify`: the main job."""
    started = time.perf_counter()
    cuttings = _cuttings(options.chunks)
    _check_paths(options)
    if options.matrix:
        return _matrix(options)
    if options.against is not None:
        return (_against if options.model else _others)(options)

    print("loading TensorFlow ...", file=sys.stderr, flush=True)
    try:
        tf = TensorFlow()
    except Unavailable as error:
        raise CannotJudge(str(error)) from None
    if options.device == "gpu" and not tf.gpus:
        raise CannotJudge("--device gpu: TensorFlow sees no GPU here, expected one")
    cpu, gpu = options.device != "gpu", options.device != "cpu" and bool(tf.gpus)

    versions, device = here()
    device = " and ".join([device] * cpu + [str(tf.gpu_name())] * gpu)
    report = Table(versions | tf.versions(), device, warnings=tf.warnings())
    workbench = Bench(tf, cpu, gpu, cuttings)
    jobs = [workbench.file(options.model, options.input)] if options.model else workbench.family()
    with contextlib.closing(_progress(jobs, sys.stderr)) as running:
        for job in running:
            report.rows += job()
    report.seconds = time.perf_counter() - started

    print(report.table())
    print()
    print(report.quote())
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if options.json:
        with _writing(options.json):
            report.save(options.json)
    return AGREES if report.agrees else DIFFERS


def _others(options: argparse.Namespace) -> int:
    """`refrnn verify --against NAMES`."""
    started = time.perf_counter()
    cuttings = _cuttings(options.chunks)
    wanted = panel.names(options.against)
    print(f"loading {', '.join(wanted)} ...", file=sys.stderr, flush=True)
    others = panel.Panel(wanted)
    versions, device = here()
    report = Table(versions | others.versions(), device)
    report.against = " and ".join(ORACLES[name].title for name in wanted)
    with contextlib.closing(_progress(others.jobs(cuttings), sys.stderr)) as running:
        for job in running:
            report.rows += job()
    report.seconds = time.perf_counter() - started
    report.skipped = {title: dict(lacks) for title, lacks in others.skipped.items()}
    print("\n\n".join([report.table(), others.skips(), report.quote()]))
    if options.json:
        with _writing(options.json):
            report.save(options.json)
    return AGREES if report.agrees else DIFFERS


def _matrix(options: argparse.Namespace) -> int:
    """`refrnn verify --matrix`."""
    started = time.perf_counter()
    wanted = None if options.against is None else panel.names(options.against)
    print("loading the other libraries ...", file=sys.stderr, flush=True)
    measuring = matrix.Measuring(wanted, *here())
    with contextlib.closing(_progress(measuring.jobs(), sys.stderr)) as running:
        for job in running:
            job()
    found = measuring.matrix
    found.seconds = time.perf_counter() - started
    print(found)
    _save_json(options.json, found)
    return AGREES if found.agrees else DIFFERS


def _against(options: argparse.Namespace) -> int:
    """`refrnn verify MODEL --against FILE`."""
    outputs = Path(options.against)
    found = recorded.judge(options.model, options.layer, options.input, outputs)
    if isinstance(found, Report):
        print(found)
        status = {"agrees": AGREES, "undecidable": UNJUDGED}.get(found.verdict, DIFFERS)
    else:
        print(Table({}, "", [found]).table())
        status = AGREES if found.agrees else DIFFERS
    _save_json(options.json, found)
    if options.html:
        if not isinstance(found, Report):
            raise CannotJudge(f"--html {options.html}: expected with one layer; name it: --layer")
        with _writing(options.html, "--html"):
            found.to_html(options.html)
    return status


def explain_command(options: argparse.Namespace) -> int:
    """`refrnn explain`: why recorded outputs differ."""
    _check_writable("--json", options.json)
    found = recorded.explain(options.model, options.layer, options.input, options.outputs)
    print(found)
    _save_json(options.json, found)
    return AGREES if found.agrees else DIFFERS


def grade_command(options: argparse.Namespace) -> int:
    """`refrnn grade`: which wrong implementations test vectors let pass."""
    _check_writable("--json", options.json)
    try:
        found = grade_file(options.vectors)
    except (ValueError, TypeError) as error:
        raise CannotJudge(str(error)) from None
    print(found)
    _save_json(options.json, found)
    if found.false_alarms:
        return UNJUDGED  # what the right implementation fails tells nothing of the wrong ones
    return DIFFERS if found.survived else AGREES


def _save_json(path: Path | None, found: Any) -> None:
    if path is not None:
        with _writing(path):
            write(path, json.dumps(plain(found.to_dict()), indent=1, allow_nan=False) + "\n")


def inspect_command(options: argparse.Namespace) -> int:
    """`refrnn inspect`: what is in a model file."""
    on_screen = options.json == Path("-")
    if not on_screen:
        _check_writable("--json", options.json)
    try:
        found = files.inspect(options.file)
    except OSError as error:
        raise CannotJudge(f"{options.file}: {error.strerror or error}") from None
    except (files.FileError, ImportError) as error:
        raise CannotJudge(str(error)) from None
    print(found.to_json() if on_screen else found)
    if options.json and not on_screen:
        with _writing(options.json):
            write(options.json, f"{found.to_json()}\n")
    return AGREES if found.runs else DIFFERS


@contextlib.contextmanager
def _writing(path: Path, option: str = "--json") -> Generator[None, None, None]:
    """A report is written to `path` inside the block."""
    try:
        yield
    except OSError as error:
        raise CannotJudge(f"{option} {path}: {error.strerror or error}") from None


def _cuttings(text: str) -> list[list[int]] | None:
    """Chunk lengths as asked for; None for the default cuttings, [] for whole runs only."""
    if text == "all":
        return None
    if text == "whole":
        return []
    try:
        sizes = [int(word) for word in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 0 or sizes[-1] == 0:
        raise CannotJudge(
            f"--chunks {text}: expected all, whole, or lengths such as 7,13 (the last one is"
            " repeated and cannot be 0)"
        )
    return [sizes]


def _check_paths(options: argparse.Namespace) -> None:
    """What can be refused before TensorFlow is loaded."""
    if options.input is not None and options.model is None:
        raise CannotJudge(f"--input {options.input}: expected with a MODEL, whose input it is")
    if options.model is not None:
        if not options.model.is_file():
            what = "a folder" if options.model.is_dir() else "no such file"
            raise CannotJudge(f"{options.model}: {what}, expected a .keras or .h5 model")
        known = options.model.suffix.lower() in (".keras", ".h5", ".hdf5")
        if not known and options.against is None:
            raise CannotJudge(f"{options.model}: expected a file ending in .keras or .h5")
    if options.input is not None and not options.input.is_file():
        raise CannotJudge(f"--input {options.input}: no such file, expected a .npy or .npz")
    _check_writable("--json", options.json)
    _check_writable("--html", options.html)
    for option in ("layer", "html"):
        given = getattr(options, option)
        if given is not None and (options.model is None or options.against is None):
            raise CannotJudge(f"--{option} {given}: expected with MODEL and --against FILE")
    if options.matrix and options.model is not None:
        raise CannotJudge(f"--matrix: expected without MODEL, here {options.model}")
    if options.against is not None:
        is_file = Path(options.against).exists()
        if options.model is None and is_file:
            raise CannotJudge(
                f"--against {options.against}: expected with MODEL, whose outputs it has"
            )
        if options.model is None:
            panel.names(options.against)
        elif not is_file and not set(options.against.split(",")) - set(ORACLES):
            raise CannotJudge(
                f"--against {options.against}: expected without MODEL, because other libraries run"
                " the fixed family; for a model, record what they put out and give the file"
            )


def _check_writable(option: str, path: Path | None) -> None:
    """Refuse what cannot be written, before there is anything to write."""
    if path is not None:
        if not path.resolve().parent.is_dir():
            raise CannotJudge(f"{option} {path}: no such folder {path.parent}")
        if path.is_dir():
            raise CannotJudge(f"{option} {path}: a folder, expected a file to write")


def _progress(jobs: Sequence[Job], stream: TextIO) -> Generator[Job, None, None]:
    """The jobs, with a bar on a terminal and nothing elsewhere; the bar is wiped at the end."""
    if not stream.isatty():
        yield from jobs
        return
    try:
        for k, job in enumerate(jobs):
            filled = 30 * k // len(jobs)
            bar = "#" * filled + "." * (30 - filled)
            print(f"\r[{bar}] {k}/{len(jobs)}", end="", file=stream, flush=True)
            yield job
    finally:
        print("\r" + " " * 50 + "\r", end="", file=stream, flush=True)
