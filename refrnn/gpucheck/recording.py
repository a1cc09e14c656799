"""What cuDNN returned, written down: `refrnn gpucheck --record DIR`.

Only what cuDNN was proven to compute, and only what is a number. Nothing stands in for the rest.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refrnn import goldens
from refrnn.commands import CannotJudge
from refrnn.gates import Array
from refrnn.gpucheck.cases import Job
from refrnn.gpucheck.judging import Row, given, unproven
from refrnn.gpucheck.running import Done
from refrnn.oracles.cudnn import log
from refrnn.oracles.cudnn.fronts import COMMON, FRONTS
from refrnn.oracles.cudnn.work import Answer, Work
from refrnn.verify import PRECISIONS
from refrnn.version import __version__

LARGEST = 4 * 2**20  # bytes of all files together, so that they can be kept with tests


def write(jobs: Mapping[int, Job], done: Done, gpu: str, folder: Path) -> list[str]:
    """Files in `folder`, one for each case and type of numbers; what was written and what not.

    jobs  those to be recorded, by their number in `done`

    Raises CannotJudge where a file cannot be written.
    """
    said, groups = [], dict[str, list[int]]()
    for k, (front, work) in jobs.items():
        if k not in done.answers:
            continue
        reason = refusal(work, done.answers[k], done.rows[k])
        if reason is not None:
            said.append(f"not recorded: {front} in {work.precision}, {work}: {reason}")
        else:
            groups.setdefault(name(work), []).append(k)
    size = 0
    for file, numbers in sorted(groups.items()):
        work = jobs[numbers[0]].work
        recording = goldens.Recording(
            given(work, work.arrays()), [variant(jobs[k], done, k, gpu) for k in numbers]
        )
        path = folder / file
        try:
            goldens.write(recording, path)
        except (OSError, ValueError) as error:
            raise CannotJudge(f"--record {path}: {error}") from None
        size += path.stat().st_size
        if size > LARGEST:
            path.unlink()
            said.append(f"not recorded: {file}: all files are over {LARGEST} bytes with it")
            break
        said.append(f"recorded: {path}: {len(numbers)} runs")
    return said


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
    if row.measured not in PRECISIONS:
        return f"fits no precision: {row.measured}"
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
            "asked": {"precision": work.precision, **COMMON},
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
