"""`refrnn verify`: refrnn against TensorFlow, other libraries, or recorded outputs."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from refrnn import matrix, panel, recorded
from refrnn.commands import (
    AGREES,
    DIFFERS,
    UNJUDGED,
    CannotJudge,
    check_writable,
    done,
    save_json,
    writing,
)
from refrnn.files.tfjs import MODEL
from refrnn.jobs import Bench, Job
from refrnn.oracles import Unavailable
from refrnn.oracles.table import ORACLES
from refrnn.oracles.tensorflow import TensorFlow
from refrnn.verify import Report
from refrnn.verify.table import Table, here

HELP = "hold refrnn against TensorFlow on this machine, whole and in chunks"
DESCRIPTION = (
    "Without MODEL: a fixed family of layers and two trained models. With it: that model."
    " TensorFlow runs eagerly, as tf.function and compiled by XLA, on the CPU and, where it sees a"
    " GPU, by cuDNN; refrnn runs whole, step by step and in chunks, its state carried. With"
    " --against FILE: recorded outputs of anything, for which no TensorFlow is needed. With"
    " --against NAMES: other libraries, on that family or on MODEL: its recurrent layers one by"
    " one, and all of it where the library reads a format that refrnn writes."
)
EPILOG = "Exit status: 0 agrees, 1 differs, 2 could not be judged."
KERAS_FILES = (".keras", ".h5", ".hdf5")
MODELS = (*KERAS_FILES, ".onnx or model.json")
RUNTIMES = {".onnx": "onnxruntime", ".json": "tfjs"}  # what a file is for, by its suffix


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `refrnn verify` takes."""
    parser.add_argument(
        "model",
        nargs="?",
        type=Path,
        metavar="MODEL",
        help=".keras or .h5 file, for Keras; .onnx, for ONNX Runtime; model.json of tf.js or its"
        " folder, for tf.js",
    )
    parser.add_argument(
        "--against",
        metavar="FILE or NAMES",
        help="outputs to be judged: .npy, or .npz with y and what else is seen: h, c, gates; or"
        f" libraries, separated by commas: {', '.join(ORACLES)}",
    )
    parser.add_argument(
        "--matrix",
        action="store_true",
        help="every library that is installed, or those of --against, on the same cases: who agrees"
        " with whom, and where they are known to differ",
    )
    parser.add_argument(
        "--layer",
        metavar="NAME",
        help="with --against FILE: the recurrent layer of MODEL that they are of; X is its input",
    )
    parser.add_argument(
        "--input", type=Path, metavar="X", help="inputs of MODEL: .npy, or .npz by input name"
    )
    parser.add_argument("--chunks", metavar="SIZES", help="all (default), whole, or sizes as 7,13")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "gpu"), help="of TensorFlow; auto by default"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="with --against FILE: as a page with plots too"
    )


def run(options: argparse.Namespace) -> int:
    """`refrnn verify`: the main job."""
    cuttings = _cuttings(options.chunks)
    _check(options)
    if options.matrix:
        return _matrix(options)
    if _is_recording(options):
        return _recorded(options)
    against = options.against or _runtime(options.model)
    if against is None:
        return _tensorflow(options, cuttings)
    return _libraries(options, panel.names(against), cuttings)


def _tensorflow(options: argparse.Namespace, cuttings: list[list[int]] | None) -> int:
    """Against Keras on TensorFlow."""
    started = time.perf_counter()
    _loading("TensorFlow")
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
    bench = Bench(tf, cpu, gpu, cuttings)
    jobs = [bench.file(options.model, options.input)] if options.model else bench.family()
    _judge(report, jobs, started)
    return _told(options, report)


def _libraries(
    options: argparse.Namespace, names: list[str], cuttings: list[list[int]] | None
) -> int:
    """Against the libraries of --against, or that which runs such a file."""
    started = time.perf_counter()
    _loading(*names)
    others = panel.Panel(names)
    versions, device = here()
    report = Table(versions | others.versions(), device)
    if options.model is None:
        jobs = others.family(cuttings)
    else:
        jobs = others.file(options.model, options.input, cuttings)
    _judge(report, jobs, started)
    if not report.rows:
        raise CannotJudge(f"nothing can be compared: {'; '.join(others.skips().splitlines())}")
    report.against = others.compared(report.rows)
    report.skipped = {title: dict(lacks) for title, lacks in others.skipped.items()}
    return _told(options, report, others.skips())


def _judge(report: Table, jobs: Sequence[Job], started: float) -> None:
    for rows in done(jobs):
        report.rows += rows
    report.seconds = time.perf_counter() - started


def _told(options: argparse.Namespace, report: Table, skips: str = "") -> int:
    print("\n\n".join(part for part in (report.table(), skips, report.quote()) if part))
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    save_json(options.json, report)
    return AGREES if report.agrees else DIFFERS


def _matrix(options: argparse.Namespace) -> int:
    started = time.perf_counter()
    wanted = None if options.against is None else panel.names(options.against)
    _loading("the other libraries")
    measuring = matrix.Measuring(wanted, *here())
    for _ in done(measuring.jobs()):
        pass
    found = measuring.matrix
    found.seconds = time.perf_counter() - started
    print(found)
    save_json(options.json, found)
    return AGREES if found.agrees else DIFFERS


def _recorded(options: argparse.Namespace) -> int:
    """Against outputs in a file."""
    outputs = Path(options.against)
    found = recorded.judge(options.model, options.layer, options.input, outputs)
    if isinstance(found, Report):
        print(found)
        save_json(options.json, found)
        if options.html:
            with writing(options.html, "--html"):
                found.to_html(options.html)
        return {"agrees": AGREES, "undecidable": UNJUDGED}.get(found.verdict, DIFFERS)
    if options.html:
        raise CannotJudge(f"--html {options.html}: expected with one layer; name it: --layer")
    report = Table(*here(), found, against=outputs.name)
    print(report.table())
    save_json(options.json, report)
    return AGREES if report.agrees else DIFFERS


def _loading(*names: str) -> None:
    print(f"loading {', '.join(names)} ...", file=sys.stderr, flush=True)


def _runtime(model: Path | None) -> str | None:
    """The library that runs such files; None for Keras, which loads its own."""
    if model is None:
        return None
    return RUNTIMES.get(".json" if model.is_dir() else model.suffix.lower())


def _cuttings(text: str | None) -> list[list[int]] | None:
    """Chunk lengths as asked for; None for the default cuttings, [] for whole runs only."""
    if text in (None, "all"):
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


def _is_recording(options: argparse.Namespace) -> bool:
    """Whether --against is a file: one that is there, or no list of libraries."""
    if options.against is None:
        return False
    return Path(options.against).exists() or not panel.are_names(options.against)


def _check(options: argparse.Namespace) -> None:
    """What can be refused before a library is loaded."""
    recording = _is_recording(options)
    keras = options.against is None and _runtime(options.model) is None and not options.matrix
    for option, wanted, given in (
        ("input", "with a MODEL, whose input it is", options.model is not None),
        ("layer", "with MODEL and --against FILE", options.model is not None and recording),
        ("html", "with MODEL and --against FILE", options.model is not None and recording),
        ("device", "where TensorFlow alone is asked", keras),
        ("chunks", "without --against FILE, whose outputs are judged as they are", not recording),
        ("chunks", "without --matrix, whose cases are run whole", not options.matrix),
        ("model", "without --matrix, which has cases of its own", not options.matrix),
    ):
        value = getattr(options, option)
        if value is not None and not given:
            name = "MODEL" if option == "model" else f"--{option}"
            raise CannotJudge(f"{name} {value}: expected {wanted}")
    if options.model is not None:
        _check_model(options.model, keras)
    if options.input is not None and not options.input.is_file():
        raise CannotJudge(f"--input {options.input}: no such file, expected a .npy or .npz")
    check_writable("--json", options.json)
    check_writable("--html", options.html)
    if options.model is None and options.against is not None:
        if Path(options.against).exists():
            raise CannotJudge(
                f"--against {options.against}: expected with MODEL, whose outputs it has"
            )
        panel.names(options.against)


def _check_model(path: Path, keras: bool) -> None:
    if not path.exists():
        raise CannotJudge(f"{path}: no such file, expected a {', '.join(MODELS)}")
    if path.is_dir() and not (path / MODEL).is_file():
        raise CannotJudge(f"{path}: a folder without {MODEL}, expected a {', '.join(MODELS)}")
    if keras and path.suffix.lower() not in KERAS_FILES:
        raise CannotJudge(f"{path}: expected a file ending in {', '.join(MODELS)}")
