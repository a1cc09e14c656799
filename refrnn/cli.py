"""The command line: `refrnn verify`. Thin: words on a screen, over the library."""

import argparse
import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Generator, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from refrnn.gates import Array

AGREES, DIFFERS, UNJUDGED = 0, 1, 2
Job = Callable[[], list[Any]]


class CannotJudge(Exception):
    """Bad input or a missing library: the message says what to fix."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0: agrees, 1: differs, 2: could not be judged."""
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


def _parser() -> argparse.ArgumentParser:
    from refrnn import __version__

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
    return parser


def verify_command(options: argparse.Namespace) -> int:
    """`refrnn verify`: the main job."""
    started = time.perf_counter()
    cuttings = _cuttings(options.chunks)
    _check_paths(options)

    from refrnn.oracles import Unavailable
    from refrnn.oracles.tensorflow import TensorFlow
    from refrnn.verify.report import Report, here

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
    report = Report(versions | tf.versions(), device, warnings=tf.warnings())
    if options.model is None:
        jobs = [*_family_jobs(tf, cpu, gpu, cuttings), *_tutorial_jobs(tf, cpu, gpu, cuttings)]
    else:
        jobs = [_file_job(tf, options, cpu, gpu, cuttings)]
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
        try:
            report.save(options.json)
        except OSError as error:
            raise CannotJudge(f"--json {options.json}: {error.strerror or error}") from None
    return AGREES if report.agrees else DIFFERS


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
            raise CannotJudge(f"{options.model}: no such file, expected a .keras or .h5 model")
        if options.model.suffix not in (".keras", ".h5", ".hdf5"):
            raise CannotJudge(f"{options.model}: expected a file ending in .keras or .h5")
    if options.json is not None:
        if not options.json.resolve().parent.is_dir():
            raise CannotJudge(f"--json {options.json}: no such folder {options.json.parent}")
        if options.json.is_dir():
            raise CannotJudge(f"--json {options.json}: a folder, expected a file to write")


def _family_jobs(tf: Any, cpu: bool, gpu: bool, cuttings: list[list[int]] | None) -> list[Job]:
    from refrnn import verify
    from refrnn.oracles.tensorflow import MODES

    def job(case: Any) -> list[Any]:
        oracles = {f"TF {m}": partial(tf.run, case, m) for m in MODES} if cpu else {}
        if gpu and tf.runs_on_cudnn(case, case.arrays().mask):
            oracles["TF cuDNN"] = partial(tf.run, case, "eager", cudnn=True)
        if not oracles:
            return []
        return verify.judge_case(case, _guarded(str(case), oracles), cuttings)

    return [partial(job, case) for case in verify.FAMILY]


def _guarded(title: str, oracles: dict[str, Any]) -> dict[str, Any]:
    """The oracles, with their failures to run told as such: no verdict comes of them."""

    def ask(name: str) -> Any:
        try:
            return oracles[name]()
        except Exception as error:  # whatever TensorFlow raises
            raise CannotJudge(f"{title}: {name} cannot run it: {_one_line(error)}") from error

    return {name: partial(ask, name) for name in oracles}


def _model_oracles(
    tf: Any, title: str, model: Any, inputs: list[Array], cpu: bool, gpu: bool
) -> dict[str, Any]:
    from refrnn.oracles.tensorflow import MODES
    from refrnn.verify.chunks import flat

    def ask(mode: str, on_gpu: bool) -> Any:
        return flat(tf.run_model(model, inputs, mode, on_gpu))

    oracles = {f"TF {mode}": partial(ask, mode, False) for mode in MODES} if cpu else {}
    return _guarded(title, oracles | ({"TF GPU": partial(ask, "eager", True)} if gpu else {}))


def _tutorial_jobs(tf: Any, cpu: bool, gpu: bool, cuttings: list[list[int]] | None) -> list[Job]:
    """The two trained models that come with refrnn, on the inputs they were trained for."""
    import refrnn
    from refrnn import verify

    def job(file: str, title: str, make: Callable[[], Array], rows: int | None) -> list[Any]:
        with resources.as_file(resources.files("refrnn.verify") / "models" / file) as path:
            keras_model = tf.load(path)
        if rows is not None:
            keras_model = tf.with_batch(keras_model, rows)
        inputs = [make()]
        oracles = _model_oracles(tf, title, keras_model, inputs, cpu, gpu)
        model: Any = refrnn.from_keras(keras_model)
        return verify.judge_model(title, model, inputs, oracles, cuttings)

    def windows(rows: int) -> Array:
        from refrnn.verify.inputs import sine_windows

        return sine_windows()[:rows]

    def sums() -> Array:
        from refrnn.verify.inputs import bits

        return bits()

    return [
        partial(job, "running_sum.keras", "trained running sum, B8 T24", sums, None),
        partial(job, "sine.keras", "trained sine wave, batch 175", partial(windows, 175), None),
        partial(job, "sine.keras", "trained sine wave, batch 1", partial(windows, 1), 1),
    ]


def _file_job(
    tf: Any, options: argparse.Namespace, cpu: bool, gpu: bool, cuttings: list[list[int]] | None
) -> Job:
    """A model of the user's: loaded by Keras, turned into a refrnn model, its inputs ready."""
    import refrnn
    from refrnn import verify

    try:
        keras_model = tf.load(options.model)
    except Exception as error:  # whatever Keras raises for a file that it cannot read
        raise CannotJudge(f"{options.model}: Keras cannot load it: {_one_line(error)}") from None
    if not getattr(keras_model, "inputs", None):
        raise CannotJudge(
            f"{options.model}: the model has no inputs yet, expected one that was built before it"
            " was saved, because its weights are not there otherwise"
        )
    try:
        model: Any = refrnn.from_keras(keras_model)
    except (ValueError, TypeError) as error:
        raise CannotJudge(f"{options.model}: {error}") from None
    if options.input is None:
        inputs = tf.input_arrays(keras_model, rows=3, steps=20)
    else:
        inputs = _read_inputs(options.input, keras_model)
    try:
        inputs = model.arrays(inputs if len(inputs) > 1 else inputs[0])
        verify.judge_model(options.model.name, model, inputs, {}, [])
    except (ValueError, TypeError) as error:
        where = options.model if options.input is None else f"--input {options.input}"
        raise CannotJudge(f"{where}: {error}") from None

    def job() -> list[Any]:
        oracles = _model_oracles(tf, options.model.name, keras_model, inputs, cpu, gpu)
        return verify.judge_model(options.model.name, model, inputs, oracles, cuttings)

    return job


def _read_inputs(path: Path, keras_model: Any) -> list[Array]:
    """Arrays from .npy (one input) or .npz (by name), in the model's order and dtypes."""
    names = [tensor.name for tensor in keras_model.inputs]
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                arrays = [loaded]
            elif sorted(loaded.files) != sorted(names):
                raise CannotJudge(f"--input {path}: arrays are {loaded.files}, expected {names}")
            else:
                arrays = [loaded[name] for name in names]
    except CannotJudge:
        raise
    except Exception as error:  # NumPy raises many kinds for a file that is not what it seems
        raise CannotJudge(
            f"--input {path}: cannot be read as .npy or .npz: {_one_line(error)}"
        ) from None
    if len(arrays) != len(names):
        raise CannotJudge(
            f"--input {path}: one array, expected a .npz with {len(names)}: {', '.join(names)}"
        )
    for name, array in zip(names, arrays, strict=True):
        if array.dtype.kind not in "fiub":
            raise CannotJudge(
                f"--input {path}: {name} has dtype {array.dtype}, expected real numbers"
            )
        if not array.size:
            raise CannotJudge(
                f"--input {path}: {name} has shape {array.shape}, expected a row and a step"
            )
        if not np.isfinite(array).all():
            raise CannotJudge(f"--input {path}: {name} holds NaN or infinity, expected numbers")
    return [
        array.astype(tensor.dtype) for array, tensor in zip(arrays, keras_model.inputs, strict=True)
    ]


def _one_line(error: Exception) -> str:
    """What an error of another library says, in one line: colours and the call's arguments gone."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()]
    said = [line for line in lines if line and not line.startswith("Exception encountered")]
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


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


if __name__ == "__main__":
    sys.exit(main())
