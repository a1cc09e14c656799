"""`refrnn gpucheck`: does cuDNN on this machine agree with the reference, and did it really run?

Every front end that reaches cuDNN is run in a process of its own, one for each precision. That it
was cuDNN that computed is read in cuDNN's own log and in what the framework says that it ran; the
numbers are held to the step envelope, and tell the precision that was really used.
"""

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from refrnn.commands import CannotJudge, check_writable, save_json
from refrnn.gpucheck import cases, recording, running
from refrnn.gpucheck.table import Report
from refrnn.oracles import Unavailable
from refrnn.oracles.cudnn import host
from refrnn.oracles.cudnn.fronts import FRONTS
from refrnn.oracles.cudnn.work import NUMBERS

HELP = "hold cuDNN on this machine against the reference, with proof that it ran"
DESCRIPTION = (
    "Runs every way to cuDNN that is installed (Keras on TensorFlow, PyTorch and JAX, torch.nn,"
    " jax.experimental.rnn, and the library itself), whole and in chunks, in five precisions, and"
    " reads in cuDNN's own log that it computed them. What Keras must keep from cuDNN is run too."
)
EPILOG = (
    "Exit status: 0 agrees, 1 differs, or a required front end was not proven to run on cuDNN, 2"
    " could not be judged: no GPU, say. REFRNN_REQUIRE_GPU=1 requires every front end of --fronts"
    f" but {' and '.join(name for name, front in FRONTS.items() if front.picky)}, which cuDNN may"
    " not have for all sizes; or it names those to require, as in tf,torch."
    f" {running.KEEP}=FOLDER keeps cuDNN's own logs, in a new folder in that one."
)
REQUIRE = "REFRNN_REQUIRE_GPU"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `refrnn gpucheck` takes."""
    parser.add_argument(
        "--fronts", default=",".join(FRONTS), metavar="NAMES",
        help=f"front ends, separated by commas; all by default: {', '.join(FRONTS)}",
    )  # fmt: skip
    parser.add_argument(
        "--require", default="", metavar="NAMES",
        help="front ends whose absence is a failure, as in tf,torch",
    )  # fmt: skip
    parser.add_argument(
        "--precisions", default=",".join(NUMBERS), metavar="NAMES",
        help=f"separated by commas; all by default: {', '.join(NUMBERS)}",
    )  # fmt: skip
    parser.add_argument(
        "--record", type=Path, metavar="DIR",
        help="write what cuDNN returned for a few more cases there, as recordings; made where it"
        " does not exist",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")


def run(options: argparse.Namespace) -> int:
    """`refrnn gpucheck`."""
    report = checked(
        _names("--fronts", options.fronts, FRONTS),
        _names("--require", options.require, FRONTS) if options.require else [],
        _names("--precisions", options.precisions, NUMBERS),
        options.record,
        options.json,
    )
    print(report)
    save_json(options.json, report)
    if report.unwritten:
        raise CannotJudge(f"--record {report.unwritten}")
    return report.status


def checked(
    fronts: list[str],
    required: list[str],
    precisions: list[str],
    record: Path | None = None,
    json: Path | None = None,
    start: running.Start = running.started,
) -> Report:
    """All cases of these front ends in these precisions, judged; and recorded, where asked for.

    Raises CannotJudge, before anything is run, for what cannot be written or is not asked for.
    """
    began = time.perf_counter()
    check_writable("--json", json)
    required = list(dict.fromkeys([*required, *required_here(fronts)]))
    strangers = [name for name in required if name not in fronts]
    if strangers:
        raise CannotJudge(
            f"--require {','.join(required)}: {strangers[0]} is not among those of --fronts"
        )
    _make("--record", record)
    kept = os.environ.get(running.KEEP)
    _make(running.KEEP, Path(kept) if kept else None)
    jobs = cases.jobs(fronts, precisions)
    more = cases.recorded(fronts, precisions) if record is not None else []
    done = running.run([*jobs, *more], start)
    gpu = _gpu() if done.rows else ""
    files = recording.Written([])
    if record is not None:
        files = recording.write(dict(enumerate(more, len(jobs))), done, gpu, record)
    return Report(
        fronts,
        required,
        list(done.rows.values()),
        done.missing,
        gpu,
        done.versions,
        files.said,
        files.unwritten,
        time.perf_counter() - began,
    )


def required_here(fronts: Sequence[str]) -> list[str]:
    """Those of these front ends that REFRNN_REQUIRE_GPU requires.

    Raises CannotJudge for a name that is unknown.
    """
    asked = os.environ.get(REQUIRE, "")
    if asked in ("", "0"):
        return []
    if asked == "1":
        return [name for name in fronts if not FRONTS[name].picky]
    named = _names(REQUIRE, asked, FRONTS)
    return [name for name in fronts if name in named]


def _make(option: str, folder: Path | None) -> None:
    """Make a folder that is to be written into, where it does not exist; not the one it is in."""
    if folder is not None:
        try:
            folder.mkdir(exist_ok=True)
        except FileNotFoundError:
            raise CannotJudge(f"{option} {folder}: no such folder {folder.parent}") from None
        except OSError as error:
            raise CannotJudge(f"{option} {folder}: {error.strerror}, expected a folder") from None


def _gpu() -> str:
    try:
        host.check_driver()
    except Unavailable as error:
        return str(error)
    return host.gpu()


def _names(option: str, text: str, known: Mapping[str, object]) -> list[str]:
    listed = list(dict.fromkeys(name.strip() for name in text.split(",")))
    unknown = [name for name in listed if name not in known]
    if unknown:
        raise CannotJudge(
            f"{option} {text}: {unknown[0]!r} is unknown, expected some of {', '.join(known)},"
            " separated by commas"
        )
    return listed
