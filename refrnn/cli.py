"""The command line: `refrnn verify | inspect | stream | bench`. Thin: words, over the library."""

import argparse
import contextlib
import os
import sys
import time
import traceback
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TextIO

from refrnn import bench, files
from refrnn.jobs import Bench, CannotJudge, Job
from refrnn.oracles import Unavailable
from refrnn.oracles.tensorflow import TensorFlow
from refrnn.streams import command
from refrnn.verify.table import Table, here

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
        " carried.",
        epilog="Exit status: 0 agrees, 1 differs, 2 could not be judged.",
    )
    verify.add_argument("model", nargs="?", type=Path, metavar="MODEL", help=".keras or .h5 file")
    verify.add_argument(
        "--input", type=Path, metavar="X", help="inputs of MODEL: .npy, or .npz by input name"
    )
    verify.add_argument(
        "--chunks", default="all", metavar="SIZES", help="all (default), whole, or sizes as 7,13"
    )
    verify.add_argument("--device", default="auto", choices=("auto", "cpu", "gpu"))
    verify.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    verify.set_defaults(command=verify_command)
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


def inspect_command(options: argparse.Namespace) -> int:
    """`refrnn inspect`: what is in a model file."""
    on_screen = options.json == Path("-")
    if not on_screen:
        _check_json(options.json)
    try:
        found = files.inspect(options.file)
    except OSError as error:
        raise CannotJudge(f"{options.file}: {error.strerror or error}") from None
    except (files.FileError, ImportError) as error:
        raise CannotJudge(str(error)) from None
    print(found.to_json() if on_screen else found)
    if options.json and not on_screen:
        with _writing(options.json):
            options.json.write_text(f"{found.to_json()}\n")
    return AGREES if found.runs else DIFFERS


@contextlib.contextmanager
def _writing(path: Path) -> Generator[None, None, None]:
    """A report is written to `path` inside the block."""
    try:
        yield
    except OSError as error:
        raise CannotJudge(f"--json {path}: {error.strerror or error}") from None


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
        if options.model.suffix.lower() not in (".keras", ".h5", ".hdf5"):
            raise CannotJudge(f"{options.model}: expected a file ending in .keras or .h5")
    if options.input is not None and not options.input.is_file():
        raise CannotJudge(f"--input {options.input}: no such file, expected a .npy or .npz")
    _check_json(options.json)


def _check_json(path: Path | None) -> None:
    """Refuse what cannot be written, before there is anything to write."""
    if path is not None:
        if not path.resolve().parent.is_dir():
            raise CannotJudge(f"--json {path}: no such folder {path.parent}")
        if path.is_dir():
            raise CannotJudge(f"--json {path}: a folder, expected a file to write")


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
