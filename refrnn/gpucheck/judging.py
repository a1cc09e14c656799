"""One work of one front end, judged: did cuDNN compute it, in which precision, and is it right?"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from refrnn import backward, engines, verify
from refrnn.cells import CELLS, Weights
from refrnn.commands import one_line
from refrnn.gates import Array
from refrnn.goldens import Given
from refrnn.goldens.judging import GRADIENTS
from refrnn.oracles.adapters import cell
from refrnn.oracles.cudnn import log
from refrnn.oracles.cudnn.fronts import FRONTS
from refrnn.oracles.cudnn.work import Answer, Drawn, Ran, Work
from refrnn.verify.compare import same_bits
from refrnn.verify.precisions import MAX32, PRECISIONS, U16, U32, Precision
from refrnn.verify.subject import in_time, subject

AGREES, DIFFERS = "agrees", "DIFFERS"
UNPROVEN, REACHED, REFUSED = "NOT PROVEN", "REACHED CUDNN", "refused"
# What is as good as what was asked for: how TF32 rounds is the hardware's choice, and whether it is
# used for small products cuDNN's. Where it is used for some of the products alone no model of it
# fits, and each step is held to what either rounding of all operands may make.
FITTING = {"tf32": ("tf32", "tf32 cut", "float32")}
WITHIN = {"tf32": Precision("within tf32", 2 * U16, U32, MAX32)}
# cuDNN's word for the numbers of each precision. TensorFlow computes bfloat16 in float32.
DATA = {
    "float64": ("DOUBLE",),
    "float32": ("FLOAT",),
    "tf32": ("FLOAT",),
    "float16": ("HALF",),
    "bfloat16": ("BFLOAT16", "FLOAT"),
}
UNSUPPORTED = re.compile("not[ _]supported", re.IGNORECASE)  # in words, or in cuDNN's name for it
FLIPPED = "Keras's JAX backend turns the outputs of go_backwards a second time"


@dataclass(frozen=True)
class Row:
    """What is known of one work.

    asked, read_back   the precision, and the flags as the front end says they are
    measured           the finest precision that the whole run fits, "none" where it fits none
    proof              what cuDNN's log tells of the first call: algorithm, math, data, ...; empty
                       where there was none
    calls              of cudnnRNNForward, in all runs
    whole, chunked     the distance from refrnn's run in float64, relative in the 2-norm; chunked is
                       the worst of all chunkings, None where there is none
    margin             the worst |error| / bound of a step, whole and in chunks
    gradients          by name, the distance from refrnn's, relative in the 2-norm
    same_bits          whether all repeats had the same bits
    notes              what differs first, and what is odd
    """

    front: str
    layer: str
    work: str
    on_cudnn: bool
    asked: str
    read_back: Mapping[str, Any]
    verdict: str
    measured: str = ""
    proof: Mapping[str, Any] = field(default_factory=dict)
    calls: int = 0
    sign: str = ""
    whole: float | None = None
    chunked: float | None = None
    margin: float | None = None
    gradients: Mapping[str, float] = field(default_factory=dict)
    same_bits: bool | None = None
    notes: Sequence[str] = ()

    @property
    def agrees(self) -> bool:
        return self.verdict == AGREES

    @property
    def proven(self) -> bool:
        """Whether cuDNN computed this."""
        return self.on_cudnn and bool(self.proof) and self.verdict in (AGREES, DIFFERS)

    @property
    def unsupported(self) -> bool:
        """Whether it was refused as what there is not; other refusals are errors of a program."""
        return self.verdict == REFUSED and any(UNSUPPORTED.search(note) for note in self.notes)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def judged(front: str, work: Work, answer: Answer, flags: Mapping[str, Any]) -> Row:
    """The row of a work. What cannot be judged, for having a wrong shape say, differs."""
    row = Row(
        front, work.case.layer, str(work), work.on_cudnn, work.precision, dict(flags), REFUSED
    )
    try:
        return _judged(row, work, answer)
    except Exception as error:
        return replace(row, verdict=DIFFERS, notes=[f"cannot be judged: {one_line(error)}"])


def _judged(row: Row, work: Work, answer: Answer) -> Row:
    front = row.front
    if answer.refused is not None:
        if not work.on_cudnn and FRONTS[front].refuses and work.case.mask is not None:
            row = replace(row, verdict=AGREES)
        return replace(row, notes=[f"refused: {answer.refused}"])
    drawn, first = work.arrays(), answer.runs[0]
    forward = log.forward(first.calls)
    calls = sum(len(log.forward(run.calls)) for run in answer.runs)
    row = replace(
        row, calls=calls, sign=first.sign, same_bits=answer.same_bits, proof=_told(forward)
    )
    if not work.on_cudnn and (calls or first.sign):
        shown = f"{calls} forward calls in cuDNN's log" if calls else first.sign
        return replace(row, verdict=REACHED, notes=[f"{shown}, expected none"])
    if work.on_cudnn:
        missing = unproven(work, answer)
        if missing:
            return replace(row, verdict=UNPROVEN, notes=missing)
    drawn, answer, notes = _turned(front, work, drawn, answer)
    return _measured(row, work, drawn, answer, [*notes, *_odd(work, forward)])


# --- the proof ---------------------------------------------------------------------------------


def unproven(work: Work, answer: Answer) -> list[str]:
    """What is missing in the proof that cuDNN computed every chunk of every run; or nothing."""
    missing = []
    for run in answer.runs:
        done = log.forward(run.calls)
        refused = [call.refused for call in run.calls if call.refused]
        expected = [run.chunks, 2 * run.chunks] if work.bidirectional else [run.chunks]
        if len(done) not in expected:
            missing.append(
                f"{run.title}: {len(done)} forward calls in cuDNN's log, expected"
                f" {' or '.join(map(str, expected))}"
                + (f"; cuDNN refused: {refused[0]}" if refused else "")
            )
        elif not run.sign:
            missing.append(f"{run.title}: the framework shows no operation of cuDNN's")
    if answer.gradients and not log.backward(answer.runs[0].calls):
        missing.append("the gradients: no backward call in cuDNN's log")
    return missing


def _told(forward: Sequence[log.Call]) -> dict[str, Any]:
    """The first call, and what else the others have."""
    if not forward:
        return {}
    first = forward[0]
    told = {k: v for k, v in first._asdict().items() if k not in ("lengths", "refused")}
    others = {(call.algorithm, call.math, call.data) for call in forward}
    return told | ({"all": sorted(map(list, others))} if len(others) > 1 else {})


def _odd(work: Work, forward: Sequence[log.Call]) -> list[str]:
    """Flags that did not do what they say, by cuDNN's own account."""
    if not forward:
        return []
    first, found = forward[0], []
    if first.data not in DATA[work.precision]:
        found.append(f"asked for {work.precision}, and cuDNN was given {first.data}")
    if work.precision == "float32" and first.math != "FMA":
        found.append(f"asked for float32 without TF32, and cuDNN was told {first.math}, not FMA")
    if work.precision == "tf32" and first.math == "FMA":
        found.append("asked for TF32, and cuDNN was told FMA, which excludes it")
    return found


# --- the numbers -------------------------------------------------------------------------------


def given(work: Work, drawn: Drawn) -> Given:
    """What a work is about, as recordings have it; float32 arrays, whose numbers are exact."""
    options = work.case.options
    return Given(
        work.case.layer,
        [a.astype(np.float32) for a in drawn.weights],
        drawn.x.astype(np.float32),
        [a.astype(np.float32) for a in drawn.state],
        None if drawn.mask is None else np.array(drawn.lengths),
        [list(sizes) for sizes in work.cuts],
        drawn.dy.astype(np.float32) if work.with_gradients else None,
        bool(options.get("go_backwards")),
        work.bidirectional,
    )


def _reference(work: Work, drawn: Drawn) -> Any:
    """The refrnn layer: with cuDNN's zeros past a row's length, or as Keras's own loop has it."""
    dtype = "float64" if work.precision == "float64" else "float32"
    if work.on_cudnn:
        return given(work, drawn).built(dtype)
    layer = replace(work.case, dtype=dtype).build()
    layer.set_weights([a.astype(dtype) for a in drawn.weights])
    return layer


class Checked(NamedTuple):
    """One run: its worst margin, the finest precision that it fits, and the first misfit."""

    margin: float
    measured: str
    first: str = ""

    @property
    def passed(self) -> bool:
        return self.margin <= 1


def check(work: Work, drawn: Drawn, outputs: Mapping[str, Array]) -> Checked:
    """One run, in the precision that was asked for, or in another that is as good."""
    layer = _reference(work, drawn)
    dtype = "float64" if work.precision == "float64" else "float32"
    x, state = drawn.x.astype(dtype), [a.astype(dtype) for a in drawn.state]
    names = FITTING.get(work.precision, (work.precision,))
    narrow = work.precision in (
        "float16",
        "bfloat16",
    )  # the type of the outputs tells the precision
    for name in names:
        report = verify.check(outputs, layer, x, state, drawn.mask, "whole", name)
        if name == names[0]:
            asked = report
        if report.passed:
            return Checked(_worst(report), name if narrow else report.fits[0])
    # of numbers in float32 the models of 16-bit types say nothing: they allow too much
    fits = [n for n in asked.fits if narrow or PRECISIONS[n].pointwise <= U32]
    if work.precision in WITHIN and not fits:
        (run,) = (run.under(WITHIN[work.precision]) for run in asked.runs)
        if not run.broken:
            return Checked(max(run.margins.values()), run.precision.name)
    return Checked(_worst(asked), fits[0] if fits else "none", f"{asked.first}")


def _worst(report: verify.Report) -> float:
    return max(report.margins.values())


def _measured(row: Row, work: Work, drawn: Drawn, answer: Answer, notes: Sequence[str]) -> Row:
    """The row, with what its numbers show."""
    notes = list(notes)
    reports = _checks(work, drawn, answer.runs)
    want = expected(work, drawn)
    far = [distance(run.outputs, want) for run in answer.runs]
    in_chunks = [d for run, d in zip(answer.runs, far, strict=True) if "chunks" in run.title]
    wholes = [d for run, d in zip(answer.runs, far, strict=True) if "chunks" not in run.title]
    measured = reports[0].measured
    if work.on_cudnn and work.precision == "tf32" and measured == "float32":
        notes.append("asked for TF32, and the numbers are those of float32")
    right = all(report.passed for report in reports)
    wrong = zip(answer.runs, reports, strict=True)
    notes += [f"{run.title}: {report.first}" for run, report in wrong if report.first][:1]
    off = gradients_off(work, drawn, answer.gradients)
    allowed = GRADIENTS[work.precision]
    for name, error in off.items():
        if not error <= allowed:
            right = False
            notes.append(f"the gradient by {name} is off by {error:.1e}, {allowed:.0e} allowed")
    return replace(
        row,
        verdict=AGREES if right else DIFFERS,
        measured=measured,
        whole=max(wholes),
        chunked=max(in_chunks, default=None),
        margin=max(report.margin for report in reports),
        gradients=off,
        notes=notes,
    )


def _checks(work: Work, drawn: Drawn, runs: Sequence[Ran]) -> list[Checked]:
    """Each run; those with the bits of the first are as good as it."""
    first = check(work, drawn, runs[0].outputs)
    same = [same_bits(run.outputs, runs[0].outputs) for run in runs]
    return [first if equal else check(work, drawn, run.outputs) for run, equal in
            zip(runs, same, strict=True)]  # fmt: skip


def expected(work: Work, drawn: Drawn) -> dict[str, Array]:
    """refrnn's own outputs in float64."""
    layer = _reference(replace(work, precision="float64"), drawn)
    what = subject(layer)
    found: dict[str, Array] = {}
    ys = []
    tasks = what.tasks(drawn.x, drawn.state, drawn.mask)
    for part, task in zip(what.parts, tasks, strict=True):
        y, state = engines.run(
            part.cell, part.weights, task.xs, task.state, mask=task.mask,
            zero_output_for_mask=part.emits_zeros,
        )  # fmt: skip
        ys.append(in_time(y, part.turned))
        way = f"{part.way}." if part.way else ""
        found |= {way + name: array for name, array in state._asdict().items()}
    return {"y": np.concatenate(ys, axis=-1), **found}


def distance(got: Mapping[str, Array], want: Mapping[str, Array]) -> float:
    """Of all arrays together, relative in the 2-norm; infinite where a number is NaN."""
    error = sum(float(np.sum((got[n].astype(np.float64) - want[n]) ** 2)) for n in want)
    size = sum(float(np.sum(a**2)) for a in want.values())
    far = float(np.sqrt(error / (size or 1.0)))
    return far if far == far else float("inf")


def gradients_off(work: Work, drawn: Drawn, gradients: Mapping[str, Array]) -> dict[str, float]:
    """How far each gradient is from refrnn's in float64."""
    if not gradients:
        return {}
    own = backward.gradients(
        CELLS[cell(work.case)],
        Weights(*drawn.weights),
        drawn.x,
        drawn.dy,
        drawn.state,
        mask=drawn.mask,
        go_backwards=bool(work.case.options.get("go_backwards")),
        zero_output_for_mask=True,
    )
    want = {"x": own.dxs, **own.dstate._asdict(), "kernel": own.dkernel, "bias": own.dbias}
    want["recurrent_kernel"] = own.drecurrent_kernel
    return {name: distance({name: a}, {name: want[name]}) for name, a in gradients.items()}


# --- a known deviation ---------------------------------------------------------------------------


def _turned(
    front: str, work: Work, drawn: Drawn, answer: Answer
) -> tuple[Drawn, Answer, list[str]]:
    """Outputs in the right order, and the gradients by them, where a front end is known to turn
    them once too often."""
    backwards = bool(work.case.options.get("go_backwards"))
    if front != "keras-jax" or not (work.on_cudnn and backwards) or work.case.steps < 2:
        return drawn, answer, []
    if check(work, drawn, answer.runs[0].outputs).passed:
        return drawn, answer, [f"mended: no longer true that {FLIPPED}"]
    runs = [_with_turned(run) for run in answer.runs]
    if not check(work, drawn, runs[0].outputs).passed:
        return drawn, answer, []
    known = f"known: {FLIPPED}; judged in the right order"
    return drawn._replace(dy=drawn.dy[:, ::-1]), answer._replace(runs=runs), [known]


def _with_turned(run: Ran) -> Ran:
    return run._replace(outputs={**run.outputs, "y": run.outputs["y"][:, ::-1]})
