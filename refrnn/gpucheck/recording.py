"""What cuDNN returned, written down: `refrnn gpucheck --record DIR`.

Only what cuDNN was proven to compute, and only what is a number. Nothing stands in for the rest,
which is told by name. So is TF32 used for some of the products alone ("within tf32"): no model of
one rounding fits it, so that refrnn has no run of its own to be held to it, and it is not recorded.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refrnn import goldens
from refrnn.commands import one_line
from refrnn.gates import Array
from refrnn.goldens.recording import checked
from refrnn.gpucheck.cases import Job
from refrnn.gpucheck.judging import WITHIN, Row, given, unproven
from refrnn.gpucheck.running import Done
from refrnn.oracles.cudnn import host, log
from refrnn.oracles.cudnn.fronts import COMMON, FRONTS
from refrnn.oracles.cudnn.work import Answer, Work
from refrnn.verify import PRECISIONS
from refrnn.version import __version__

LARGEST = 4 * 2**20  # bytes of all files together, so that they can be kept with tests


class Written(NamedTuple):
    """What became of the files.

    said      of each what was written, and what not and why
    unwritten why a file could not be, the first of them; or ""
    """

    said: list[str]
    unwritten: str = ""


def write(jobs: Mapping[int, Job], done: Done, gpu: str, folder: Path) -> Written:
    """Files in `folder`, one for each case and type of numbers; what was written and what not.

    jobs  those to be recorded, by their number in `done`
    """
    said, unwritten, size = [], "", 0
    groups: dict[str, list[goldens.Recording]] = {}  # by file, each of one variant
    for k, job in jobs.items():
        if k not in done.answers:
            continue
        found = recorded(job, done, k, gpu)
        if isinstance(found, str):
            front, work = job
            said.append(f"not recorded: {front} in {work.precision}, {work}: {found}")
        else:
            groups.setdefault(name(job.work), []).append(found)
    for file, ones in sorted(groups.items()):
        path = folder / file
        variants = [variant for one in ones for variant in one.variants]
        try:
            goldens.write(goldens.Recording(ones[0].given, variants), path)
            written = path.stat().st_size
            if size + written > LARGEST:
                path.unlink()
                said.append(f"not recorded: {file}: all files are over {LARGEST} bytes with it")
                continue
        except OSError as error:
            said.append(f"not recorded: {file}: {error}")
            unwritten = unwritten or f"{path}: {error}"
            continue
        size += written
        said.append(f"recorded: {path}: {len(variants)} runs")
    return Written(said, unwritten)


def recorded(job: Job, done: Done, k: int, gpu: str) -> goldens.Recording | str:
    """The recording of one front end's run, or why there is none."""
    work, answer, row = job.work, done.answers[k], done.rows[k]
    reason = refusal(work, answer, row)
    if reason is not None:
        return reason
    found = goldens.Recording(given(work, work.arrays()), [variant(job, done, k, gpu)])
    try:
        checked(found)
    except (ValueError, TypeError) as error:
        return one_line(error)
    return found


def refusal(work: Work, answer: Answer, row: Row) -> str | None:
    """Why an answer is not recorded, or None."""
    if answer.refused is not None:
        return f"refused: {answer.refused}"
    missing = unproven(work, answer)
    if missing:
        return f"no proof that cuDNN computed it: {missing[0]}"
    arrays = [a for run in answer.runs for a in run.outputs.values()]
    if not all(np.isfinite(a).all() for a in (*arrays, *answer.gradients.values())):
        return "NaN or infinity among the outputs: memory that was not written, or worse"
    if row.measured in [within.name for within in WITHIN.values()]:
        return f"is {row.measured}, as no one rounding of all products is"
    if row.measured not in PRECISIONS:
        return f"fits no precision: {row.measured or '; '.join(row.notes)}"
    return None


def name(work: Work) -> str:
    """Of the file: one for all precisions that have the same numbers."""
    case = work.case
    marks = ["backwards"] * bool(case.options.get("go_backwards"))
    marks += ["bidirectional"] * work.bidirectional + ["lengths"] * (case.mask is not None)
    shape = f"b{case.rows}t{case.steps}f{case.features}h{case.units}"
    return "-".join([case.layer.lower(), *marks, shape, case.dtype]) + ".npz"


def variant(job: Job, done: Done, k: int, gpu: str) -> goldens.Variant:
    """One front end's run as recordings have it."""
    (front, work), answer, row = job, done.answers[k], done.rows[k]
    whole, *chunked = [run for run in answer.runs if run.title != "again"]
    gradients = {n: _stored(work, a) for n, a in answer.gradients.items()}
    return goldens.Variant(
        f"{front}, asked for {work.precision}",
        row.measured,
        _stored_all(work, whole.outputs),
        [_stored_all(work, run.outputs) for run in chunked],
        gradients,
        {
            "versions": {"refrnn": __version__, **done.versions.get(front, {})},
            "gpu": gpu,
            "asked": {"precision": work.precision, **host.variables(), **COMMON},
            "read_back": dict(row.read_back),
            "repeats": answer.same_bits,
            "front": FRONTS[front].title,
            "distance": row.whole,
            "margin": row.margin,
        },
        _proof(answer, row),
    )


def _proof(answer: Answer, row: Row) -> dict[str, Any]:
    calls = [call for run in answer.runs for call in run.calls]
    return {
        **{n: row.proof[n] for n in ("algorithm", "math", "data", "compute", "bias", "mode")},
        "cudnn": row.proof["version"],
        "padded": row.proof["padded"],
        "calls": len(log.forward(calls)),
        "backward_calls": len(log.backward(calls)),
        "sign": row.sign,
    }


def _stored_all(work: Work, outputs: Mapping[str, Array]) -> dict[str, Array]:
    return {name: _stored(work, array) for name, array in outputs.items()}


def _stored(work: Work, array: Array) -> Array:
    """As it was produced; bfloat16 as float32, because NumPy's files have no such type."""
    return array.astype(np.float16) if work.precision == "float16" else array
