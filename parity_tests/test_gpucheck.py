"""`refrnn gpucheck` without a GPU: every part that a GPU is not needed for, with cuDNN modelled.

cuDNN's log is read from what cuDNN wrote; front ends run with a model in the place of cuDNN's
operation; a run without proof is not believed, a wrong one is found, and nothing of either is
recorded. That a GPU gives such numbers is what test_cudnn.py shows, where there is one.
"""

import importlib
import importlib.util
import json
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import test_cudnn
from cudnn_model import Here, Model, Telling, adapter_works, block, blocks, computed, told

from refrnn import backward, engines, goldens, gpucheck, kernels
from refrnn.cases import Case
from refrnn.cells import CELLS
from refrnn.cli import main
from refrnn.commands import CannotJudge
from refrnn.gpucheck import cases, judging, recording, running
from refrnn.gpucheck.cases import Job
from refrnn.gpucheck.judging import AGREES, DIFFERS, REACHED, REFUSED, UNPROVEN
from refrnn.gpucheck.table import Report
from refrnn.oracles import Unavailable, process
from refrnn.oracles.cudnn import direct, fronts, host, keras, log, vectors
from refrnn.oracles.cudnn import torch as torch_front
from refrnn.oracles.cudnn.fronts import FRONTS
from refrnn.oracles.cudnn.log import Log, parse
from refrnn.oracles.cudnn.work import NUMBERS, Work
from refrnn.oracles.process import Ended

LOGS = Path(__file__).parent / "fixtures" / "cudnn"
LSTM = Case("LSTM", rows=3, steps=11, features=5, units=7, dtype="float32")
CUTS = ((1,) * 11, (3, 1, 7))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this process's log of cuDNN is."""
    monkeypatch.setenv(log.FOLDER, str(tmp_path))
    monkeypatch.setattr(running, "AT_ONCE", 1)  # the log is one for all front ends of a process
    monkeypatch.delenv(gpucheck.REQUIRE, raising=False)
    return tmp_path


def row(work: Work, front: Any = None, name: str = "torch-packed") -> judging.Row:
    """What is said of a front end's work; of the model's, if no other is given."""
    front = front or Model()
    return judging.judged(name, work, front.run(work, FRONTS[name].way), {"flag": "set"})


# --- the log ------------------------------------------------------------------------------------


def test_a_log_of_cudnn_is_read_in_full() -> None:
    found = parse((LOGS / "cudnn-92800.log").read_text())
    functions = ["cudnnRNNForward"] * 4 + list(log.BACKWARD) + ["cudnnRNNForward"]
    assert [call.function for call in found] == functions
    forward = [call for call in found if call.function == log.FORWARD]
    told = [
        (c.algorithm, c.cell, c.direction, c.data, c.compute, c.math, c.mode, c.lengths)
        for c in forward
    ]
    one, full = "UNIDIRECTIONAL", (7, 7, 7)
    assert told == [
        ("STANDARD", "LSTM", one, "FLOAT", "FLOAT", "FMA", "INFERENCE", full),
        ("STANDARD", "LSTM", "BIDIRECTIONAL", "FLOAT", "FLOAT", "TENSOR_OP", "INFERENCE", full),
        ("STANDARD", "GRU", one, "DOUBLE", "DOUBLE", "FMA", "INFERENCE", (7, 4, 3)),
        ("PERSIST_STATIC_SMALL_H", "RNN_TANH", one, "HALF", "FLOAT", "TENSOR_OP", "TRAINING", full),
        ("PERSIST_STATIC", "GRU", one, "BFLOAT16", "FLOAT", "TENSOR_OP", "INFERENCE", full),
    ]
    assert all(call.version == 92800 and call.padded and call.bias == "DOUBLE" for call in found)


def test_what_cudnn_refused_is_no_proof() -> None:
    text = (LOGS / "cudnn-92800.log").read_text()
    found = parse(text)
    assert all("CUDNN_STATUS_BAD_PARAM" in (call.refused or "") for call in found)
    assert log.forward(found) == log.backward(found) == []
    done = parse("".join(b for b in blocks(text) if b[0] == "I"))
    assert [call._replace(refused=None) for call in found] == done
    assert (len(log.forward(done)), len(log.backward(done))) == (5, 2)


def test_other_versions_write_the_same() -> None:
    newer, older = (parse((LOGS / f"cudnn-{v}.log").read_text()) for v in (92800, 90100))
    assert {call.version for call in older} == {90100}
    same = [call._replace(version=90100) for call in newer if call.data != "BFLOAT16"]
    assert older == same


def test_the_values_of_one_call_are_not_those_of_another() -> None:
    a = block(log.FORWARD, algo="CUDNN_RNN_ALGO_PERSIST_STATIC", mathMode="CUDNN_FMA_MATH")
    b = block(log.FORWARD, dataType="CUDNN_DATA_HALF")
    found = parse(a + b + a)
    assert [c.algorithm for c in found] == ["PERSIST_STATIC", "STANDARD", "PERSIST_STATIC"]
    assert [c.data for c in found] == ["FLOAT", "HALF", "FLOAT"]


def test_a_log_is_read_piece_by_piece(folder: Path) -> None:
    one = Log()
    assert one.new() == []
    assert one.path is not None
    one.path.write_text(block(log.FORWARD))
    assert len(one.new()) == 1
    assert one.new() == []
    with one.path.open("a") as file:
        file.write(block(log.FORWARD) * 2)
    assert len(one.new()) == 2


def test_without_its_folder_there_is_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(log.FOLDER)
    assert Log().new() == []


def test_a_process_is_told_where_to_write_it() -> None:
    told = log.environment("/some")
    assert told["CUDNN_LOGLEVEL_DBG"] == "3"
    assert told["CUDNN_LOGDEST_DBG"] == "/some/cudnn_%i.log"
    assert told[log.FOLDER] == "/some"


# --- judging --------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", NUMBERS)
@pytest.mark.parametrize("layer", ["SimpleRNN", "LSTM", "GRU"])
@pytest.mark.parametrize("kind", ["chunks", "lengths", "bidirectional", "backwards"])
def test_what_is_right_and_proven_agrees(precision: str, layer: str, kind: str) -> None:
    options = {"go_backwards": True} if kind == "backwards" else {}
    mask = "right" if kind == "lengths" else None
    case = replace(LSTM, layer=layer, dtype=NUMBERS[precision], options=options, mask=mask)
    both, cuts = kind == "bidirectional", CUTS[1:] if kind in ("chunks", "backwards") else ()
    found = row(Work(case, precision, both, True, cuts))
    assert found.verdict == AGREES, found
    assert found.proven
    assert found.measured == precision
    assert found.margin is not None
    assert found.margin <= 1
    assert found.calls == 1 + sum(map(len, cuts))
    gradients = {"x", "kernel", "recurrent_kernel", "bias", *("hc" if layer == "LSTM" else "h")}
    assert set(found.gradients) == (set() if both else gradients)
    assert (found.chunked is None) == (not cuts)
    assert found.same_bits
    assert found.read_back == {"flag": "set"}


def refusal() -> str:
    """The block with which cuDNN tells that it did not compute a forward call."""
    written = blocks((LOGS / "cudnn-92800.log").read_text())
    return next(b for b in written if b[0] == "E" and log.FORWARD in b)


@pytest.mark.parametrize(
    ("lies", "missing"),
    [
        (lambda work, made: [], "0 forward calls"),
        (lambda work, made: [told(work)] * 2, "2 forward calls in cuDNN's log, expected 1"),
        (lambda work, made: [told(work), refusal()], "0 forward calls"),
    ],
    ids=["silent", "twice", "refused"],
)
def test_without_proof_nothing_is_believed(lies: Any, missing: str) -> None:
    model = Model()
    model.lies = lies
    found = row(Work(LSTM, "float32", cuts=CUTS), model)
    assert found.verdict == UNPROVEN
    assert not found.proven
    assert missing in found.notes[0]


def test_every_chunk_has_a_call_of_its_own() -> None:
    calls = iter(range(100))
    model = Model()
    model.lies = lambda work, made: [told(work)] if next(calls) != 5 else []
    found = row(Work(LSTM, "float32", cuts=((1,) * 11,)), model)
    assert found.verdict == UNPROVEN
    assert found.notes == ["in chunks of 1: 10 forward calls in cuDNN's log, expected 11"]


def test_gradients_have_calls_of_their_own() -> None:
    model = Model()
    model.lies = lambda work, made: [told(work)]
    found = row(Work(LSTM, "float32", training=True), model)
    assert found.verdict == UNPROVEN
    assert "backward" in found.notes[0]


def test_two_directions_are_one_call_or_two() -> None:
    model = Model()
    model.lies = lambda work, made: [told(work)] * 2
    assert row(Work(LSTM, "float32", bidirectional=True), model).verdict == AGREES


def test_the_log_alone_is_no_proof_where_the_framework_shows_another_operation() -> None:
    answer = Model().run(Work(LSTM, "float32"), "plain")
    runs = [run._replace(sign="") for run in answer.runs]
    found = judging.judged("torch", Work(LSTM, "float32"), answer._replace(runs=runs), {})
    assert found.verdict == UNPROVEN
    assert "no operation of cuDNN's" in found.notes[0]


def test_what_must_not_reach_cudnn_and_does_is_found() -> None:
    work = Work(LSTM, "float32", on_cudnn=False)
    assert row(work).verdict == AGREES
    model = Model()
    model.lies = lambda work, made: [told(work)]
    found = row(work, model)
    assert found.verdict == REACHED
    assert not found.proven


def _swapped(work: Work, flat: list[Any]) -> list[Any]:
    """y and the states with two units exchanged."""
    return [np.concatenate([a[..., 1:2], a[..., :1], a[..., 2:]], -1) for a in flat]


def _stale(work: Work, flat: list[Any]) -> list[Any]:
    """States that are those of the step before the last."""
    return [flat[0], flat[0][:, -2] if flat[0].shape[1] > 1 else flat[1] * 0.9, *flat[2:]]


def _unwritten(work: Work, flat: list[Any]) -> list[Any]:
    y = flat[0].copy()
    y[-1, -1, -1] = np.nan
    return [y, *flat[1:]]


def _nudged(work: Work, flat: list[Any]) -> list[Any]:
    y = flat[0].copy()
    y[0, 0, 0] += 1e-5
    return [y, *flat[1:]]


@pytest.mark.parametrize("wrong", [_swapped, _stale, _unwritten, _nudged])
def test_wrong_numbers_differ(wrong: Any) -> None:
    model = Model()
    model.changed = wrong
    found = row(Work(LSTM, "float32", cuts=CUTS), model)
    assert found.verdict == DIFFERS
    assert found.proven  # cuDNN computed it: that is why it matters
    assert found.notes


def test_a_state_that_is_not_handed_on_differs() -> None:
    work = Work(LSTM, "float32", cuts=CUTS)
    model = Model()
    answer = model.run(work, "packed")
    fresh = model.run(replace(work, case=replace(LSTM, state=False), cuts=()), "packed")
    runs = [answer.runs[0], answer.runs[1]._replace(outputs=fresh.runs[0].outputs)]
    found = judging.judged("torch-packed", work, answer._replace(runs=runs), {})
    assert found.verdict == DIFFERS
    assert "in chunks of 1" in found.notes[0]


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("backwards", [False, True])
def test_rows_with_a_length_are_cut_too(precision: str, backwards: bool) -> None:
    """A row that has ended keeps its state; it is in no call, for few take a length of 0."""
    seen: list[Any] = []

    class Strict(Model):
        def call(self, layer: Any, work: Work, x: Any, state: Any, mask: Any, dy: Any) -> Any:
            assert mask.any(1).all()
            assert len(x) == len(mask) == len(state[0])
            seen.append((len(x), x.shape[1]))
            return super().call(layer, work, x, state, mask, dy)

    options = {"go_backwards": True} if backwards else {}
    # with seed 3 no row has all the steps: there are chunks without any row
    case = replace(LSTM, mask="right", options=options, dtype=NUMBERS[precision], seed=3)
    lengths = np.array(Work(case, precision).arrays().lengths)
    assert lengths.max() < LSTM.steps
    assert lengths.min() < lengths.max()
    found = row(Work(case, precision, cuts=CUTS), Strict())
    assert found.verdict == AGREES, found
    assert found.chunked is not None
    chunks = [rows for rows, steps in seen if steps == 1]
    want = [(lengths > t).sum() for t in range(LSTM.steps) if (lengths > t).any()]
    assert chunks[: len(want)] == (want[::-1] if backwards else want)

    model = Model()
    answer = model.run(Work(case, precision, cuts=CUTS), "packed")
    last = answer.runs[-1]
    for name, array in answer.runs[0].outputs.items():
        assert {run.outputs[name].dtype for run in answer.runs} == {array.dtype}
    lost = {**last.outputs, "h": last.outputs["h"] * (lengths == lengths.max())[:, None]}
    answer = answer._replace(runs=[*answer.runs[:-1], last._replace(outputs=lost)])
    work = Work(case, precision, cuts=CUTS)
    assert judging.judged("torch-packed", work, answer, {}).verdict == DIFFERS


def test_a_wrong_gradient_differs() -> None:
    work = Work(LSTM, "float32", training=True)
    answer = Model().run(work, "packed")
    off = {**answer.gradients, "h": answer.gradients["h"] * (1 + 1e-4)}
    found = judging.judged("torch-packed", work, answer._replace(gradients=off), {})
    assert found.verdict == DIFFERS
    assert "the gradient by h is off by 1.0e-04" in found.notes[0]


def test_repeats_that_differ_are_each_judged() -> None:
    runs = iter(range(9))
    model = Model()
    model.changed = lambda work, flat: _nudged(work, flat) if next(runs) == 1 else flat
    found = row(Work(LSTM, "float32"), model)
    assert found.same_bits is False
    assert found.verdict == DIFFERS
    assert found.notes[0].startswith("again: ")


@pytest.mark.parametrize(
    ("asked", "computes", "verdict"),
    [
        ("float32", "tf32", DIFFERS),
        ("float32", "tf32 cut", DIFFERS),
        ("float64", "float32", DIFFERS),
        ("tf32", "tf32 cut", AGREES),
        ("tf32", "float32", AGREES),
        ("tf32", "bfloat16 products", DIFFERS),
    ],
)
def test_the_precision_is_told_by_the_numbers(asked: str, computes: str, verdict: str) -> None:
    model = Model()
    model.computes = {asked: computes}
    found = row(Work(LSTM, asked, cuts=CUTS), model)
    assert (found.verdict, found.measured) == (verdict, computes)


def test_tf32_that_did_not_come_is_reported() -> None:
    model = Model()
    model.computes = {"tf32": "float32"}
    model.lies = lambda work, made: [told(work, mathMode="CUDNN_FMA_MATH")]
    found = row(Work(LSTM, "tf32"), model)
    assert found.verdict == AGREES
    assert "asked for TF32, and cuDNN was told FMA, which excludes it" in found.notes
    assert "asked for TF32, and the numbers are those of float32" in found.notes


def test_a_flag_that_did_nothing_is_reported() -> None:
    model = Model()
    model.lies = lambda work, made: [told(work, mathMode="CUDNN_DEFAULT_MATH")]
    notes = row(Work(LSTM, "float32"), model).notes
    assert notes == ["asked for float32 without TF32, and cuDNN was told DEFAULT, not FMA"]


def test_tf32_for_some_of_the_products_is_within_tf32() -> None:
    """Half of the units by one rounding, half by the other: no model fits, and none is wrong."""
    work, halves = Work(LSTM, "tf32"), []
    for computes in ("tf32", "tf32 cut"):
        model = Model()
        model.computes = {"tf32": computes}
        halves.append(model.run(work, "packed"))
    a, b = (answer.runs[0].outputs["y"] for answer in halves)
    first = halves[0].runs[0]
    mixed = np.concatenate([a[:, :, :4], b[:, :, 4:]], axis=-1)
    answer = halves[0]._replace(runs=[first._replace(outputs={**first.outputs, "y": mixed})])
    found = judging.judged("torch-packed", work, answer, {})
    assert (found.verdict, found.measured) == (AGREES, "within tf32")
    swapped = dict(zip(work.names, _swapped(work, list(first.outputs.values())), strict=True))
    answer = answer._replace(runs=[first._replace(outputs=swapped)])
    assert judging.judged("torch-packed", work, answer, {}).verdict == DIFFERS


def test_keras_on_jax_turns_its_outputs_once_too_often() -> None:
    case = replace(LSTM, options={"go_backwards": True})
    model = Model()
    model.changed = lambda work, flat: [flat[0][:, ::-1], *flat[1:]]
    found = row(Work(case, "float32"), model, "keras-jax")
    assert found.verdict == AGREES
    assert found.notes[0].startswith("known: Keras's JAX backend turns")
    assert row(Work(case, "float32"), Model(), "keras-jax").notes[0].startswith("mended")
    assert row(Work(case, "float32"), model, "keras-torch").verdict == DIFFERS


def test_what_a_front_end_raises_is_told() -> None:
    class Broken(Model):
        def layer(self, *others: Any) -> Any:
            raise RuntimeError("CUDNN_STATUS_NOT_SUPPORTED\nat some place")

    found = row(Work(LSTM, "float32"), Broken())
    assert found.verdict == REFUSED
    assert found.unsupported
    assert found.notes == ["refused: RuntimeError: CUDNN_STATUS_NOT_SUPPORTED"]
    masked = Work(replace(LSTM, mask="left"), "float32", on_cudnn=False)
    assert row(masked, Broken(), "tf-function").verdict == AGREES
    assert row(masked, Broken(), "tf").verdict == REFUSED


# --- the cases ------------------------------------------------------------------------------------


def _settings(job: Job) -> tuple[Any, ...]:
    case, work = job.work.case, job.work
    return (
        job.front, work.precision, case.layer,
        (work.bidirectional, bool(case.options.get("go_backwards"))),
        (case.rows, case.steps, case.features, case.units), case.mask, work.training,
    )  # fmt: skip


def test_every_two_settings_meet_that_can() -> None:
    made = [_settings(job) for job in cases.jobs(list(FRONTS), list(NUMBERS)) if job.work.on_cudnn]
    possible = [_settings(Job(f, w)) for _, f, w in cases._possible(list(FRONTS), list(NUMBERS))]
    for pair in [*combinations(range(7), 2), (0, 1, 2)]:
        assert {tuple(s[k] for k in pair) for s in made} == {
            tuple(s[k] for k in pair) for s in possible
        }
    assert 100 < len(made) < 200  # of the 10,000 that are possible: it is to take minutes


def test_every_front_end_of_keras_has_what_must_not_arrive() -> None:
    made = cases.jobs(list(FRONTS), list(NUMBERS))
    for name, front in FRONTS.items():
        kept = [job.work for job in made if job.front == name and not job.work.on_cudnn]
        assert bool(kept) == front.keras
        if front.keras:
            assert {"left", "holes", "row"} <= {work.case.mask for work in kept}
            assert any(work.case.options.get("reset_after") is False for work in kept)
            assert any(work.case.options.get("unroll") for work in kept)
    gru = [j for j in made if j.front == "keras-jax" and j.work.case.layer == "GRU"]
    assert gru
    assert not any(job.work.on_cudnn for job in gru)


def test_cuttings_have_the_sum_of_the_steps() -> None:
    for job in cases.jobs(list(FRONTS), list(NUMBERS)):
        assert all(sum(sizes) == job.work.case.steps for sizes in job.work.cuts)
        if job.work.on_cudnn and not job.work.bidirectional:
            flips = job.front == "keras-jax" and "go_backwards" in job.work.case.options
            assert bool(job.work.cuts) == (job.work.case.steps > 1 and not flips)


def test_the_recorded_cases_are_the_same_for_all() -> None:
    made = cases.recorded(list(FRONTS), list(NUMBERS))
    names = {recording.name(job.work) for job in made}
    assert len({(job.front, job.work.precision, recording.name(job.work)) for job in made}) == len(
        made
    )
    for name in names:
        cases_of = [job.work.case for job in made if recording.name(job.work) == name]
        assert all(case == cases_of[0] for case in cases_of)


# --- processes, the table, the exit status --------------------------------------------------------


def started(**changes: Any) -> Callable[..., running.Child]:
    """Front ends that are models, in this process; `changes` to the model's attributes."""

    def start(made_by: str, precision: str, folder: str) -> running.Child:
        if made_by in changes.get("missing", ()):
            raise Unavailable("no libcudnn: none is found")
        model = Model()
        for name, value in changes.items():
            setattr(model, name, value)
        return running.Child(Here(model), model.start(precision))

    return start


@pytest.fixture
def at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were a driver, and everything were installed; few and small cases."""
    monkeypatch.setattr(cases, "SHAPES", ((3, 2, 5, 7), (2, 11, 5, 3)))
    monkeypatch.setattr(cases, "RECORDED", cases.RECORDED[:1])
    monkeypatch.setattr(host, "check_driver", lambda: None)
    monkeypatch.setattr(host, "gpu", lambda: "a model of a GPU")
    monkeypatch.setattr(fronts.FrontEnd, "check_installed", lambda self: None)


def checked(names: list[str], required: list[str] | None = None, **changes: Any) -> Report:
    precisions = changes.pop("precisions", ["float32"])
    start = changes.pop("start", None) or started(**changes)
    return gpucheck.checked(names, required or [], precisions, start=start)


@pytest.mark.usefixtures("at_hand")
def test_all_that_agree_have_the_status_0() -> None:
    report = checked(["torch", "torch-packed"], ["torch"], precisions=["float32", "tf32"])
    assert report.status == 0, report
    text = str(report)
    assert text.splitlines()[0].split()[:3] == ["front", "layer", "cases"]
    lines = [line for line in text.splitlines() if line.startswith("torch ")]
    assert len(lines) == 6  # three layers, two precisions
    assert all("agrees" in line and "STANDARD" in line for line in lines)
    assert text.splitlines()[-1].startswith("agrees: torch, torch-packed; ")
    assert "a model of a GPU" in text
    assert report.versions["torch"] == {"model": "1", "cuDNN": "92800"}


@pytest.mark.usefixtures("at_hand")
@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"changed": _nudged}, DIFFERS),
        ({"lies": lambda work, made: []}, UNPROVEN),
    ],
    ids=["wrong", "unproven"],
)
def test_one_that_differs_or_is_not_proven_has_the_status_1(
    changes: dict[str, Any], verdict: str
) -> None:
    report = checked(["direct-small-h"], **changes)
    assert report.status == 1
    assert {row.verdict for row in report.rows} == {verdict}
    assert "FAILS" in str(report)


@pytest.mark.usefixtures("at_hand")
def test_a_front_end_that_reaches_cudnn_where_it_must_not_has_the_status_1() -> None:
    def lies(work: Work, made: Any) -> list[str]:
        return [told(work)] if not work.on_cudnn else list(Model().told(work, made))

    report = checked(["tf"], lies=lies)
    assert report.status == 1
    assert REACHED in {row.verdict for row in report.rows}


@pytest.mark.usefixtures("at_hand")
def test_what_is_missing_is_told_and_fails_only_where_it_is_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names, start = ["jax", "direct-small-h"], started(missing=["cudnn.jax:Jax"])
    report = checked(names, start=start)
    assert report.status == 0
    assert "not run: jax" in str(report)
    assert "no libcudnn" in str(report)
    assert checked(names, ["jax"], start=start).status == 1
    assert checked(names, ["direct-small-h"], start=start).status == 0
    assert checked(["jax"], start=start).status == 2
    monkeypatch.setenv(gpucheck.REQUIRE, "1")
    report = checked(names, start=start)
    assert report.status == 1
    assert "required and not proven: jax" in report.failures
    monkeypatch.setenv(gpucheck.REQUIRE, "0")
    assert checked(names, start=start).status == 0
    monkeypatch.setenv(gpucheck.REQUIRE, "direct-small-h, torch")  # a list; torch is not asked for
    assert checked(names, start=start).required == ["direct-small-h"]
    assert checked(names, start=start).status == 0
    monkeypatch.setenv(gpucheck.REQUIRE, "jax")
    assert checked(names, start=start).status == 1
    monkeypatch.setenv(gpucheck.REQUIRE, "all")
    with pytest.raises(CannotJudge, match="REFRNN_REQUIRE_GPU all: 'all' is unknown, expected"):
        checked(names, start=start)


def test_all_are_required_but_those_that_may_refuse_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpucheck.REQUIRE, "1")
    required = gpucheck.required_here(list(FRONTS))
    assert set(FRONTS) - set(required) == {"direct-static", "direct-small-h"}


@pytest.mark.usefixtures("at_hand")
def test_the_tests_on_a_gpu_tell_an_error_from_an_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(report: Report) -> str:
        try:
            test_cudnn.test_a_front_end_agrees_on_cudnn(report, "torch", "float32")
        except (pytest.skip.Exception, pytest.fail.Exception, AssertionError) as error:
            return f"{type(error).__name__}: {error}"
        return "passed"

    right = checked(["torch"])
    ended = checked(["torch"], start=starting(Failing(Ended("ended with -11"))))
    broken = checked(["torch"], start=starting(Failing(TypeError("missing an argument"))))
    picky = checked(["torch"], start=starting(Failing(RuntimeError("CUDNN_STATUS_NOT_SUPPORTED"))))
    absent = checked(["torch"], missing=["cudnn.torch:Torch"])
    cut = replace(right, missing={("torch", "float32"): "ended with -11"})
    assert told(right) == "passed"
    for report, words in ((ended, "ended with -11"), (broken, "TypeError"), (cut, "to its end")):
        assert told(report).startswith("AssertionError")
        assert words in told(report)
    for report in (picky, absent):
        assert told(report).startswith("Skipped")
    monkeypatch.setenv(gpucheck.REQUIRE, "tf,torch")
    for report in (picky, absent):
        assert told(report).startswith("Failed")
    monkeypatch.setenv(gpucheck.REQUIRE, "tf")
    assert told(absent).startswith("Skipped")


@pytest.mark.usefixtures("at_hand")
def test_a_required_front_end_must_not_refuse() -> None:
    class Refusing(Model):
        def call(self, layer: Any, work: Work, *others: Any) -> Any:
            if work.training:
                raise RuntimeError("CUDNN_STATUS_NOT_SUPPORTED")
            return super().call(layer, work, *others)

    def start(*others: str) -> running.Child:
        return running.Child(Here(Refusing()), {})

    assert checked(["direct-small-h"], start=start).status == 0
    assert checked(["direct-small-h"], ["direct-small-h"], start=start).status == 1


class Failing(Here):
    """A front end whose process fails at a question."""

    def __init__(self, error: Exception, method: str = "run", layer: str = "GRU") -> None:
        super().__init__(Model())
        self.error, self.method, self.layer = error, method, layer

    def ask(self, method: str, *arguments: Any) -> Any:
        if method == self.method and (not arguments or arguments[0].case.layer == self.layer):
            raise self.error
        return super().ask(method, *arguments)


def starting(oracle: Here, of: str = "cudnn.torch:Torch") -> Callable[..., running.Child]:
    """This in the place of one front end; models of the others."""

    def start(made_by: str, precision: str, folder: str) -> running.Child:
        if made_by == of:
            return running.Child(oracle, {"flag": precision})
        return started()(made_by, precision, folder)

    return start


@pytest.mark.usefixtures("at_hand")
def test_a_process_that_ends_early_takes_only_its_own_with_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    start = starting(Failing(Ended("its process ended with -11: CUDA error"), layer="LSTM"))
    report = checked(["torch", "direct-small-h"], start=start)
    assert {row.front for row in report.rows} == {"torch", "direct-small-h"}
    assert "ended with -11" in report.missing["torch", "float32"]
    (ended,) = [row for row in report.rows if row.verdict == REFUSED]
    assert (ended.front, ended.layer) == ("torch", "LSTM")
    assert "ended with -11" in ended.notes[0]
    assert report.status == 1  # though nothing is required
    assert "1 of torch failed: see the notes" in report.failures
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"torch in float32: \d+ of \d+ cases, \d+ s", first)
    done, of = re.findall(r"\d+ of \d+", first)[0].split(" of ")
    assert int(done) < int(of)
    assert second.startswith("direct-small-h in float32: ")


@pytest.mark.usefixtures("at_hand")
@pytest.mark.parametrize("error", [TypeError("missing an argument"), BrokenPipeError(32, "pipe")])
def test_an_error_of_an_adapter_fails_its_cases_alone(error: Exception) -> None:
    report = checked(["torch"], start=starting(Failing(error)))
    verdicts = {(row.layer, row.verdict) for row in report.rows}
    assert verdicts == {("SimpleRNN", AGREES), ("LSTM", AGREES), ("GRU", REFUSED)}
    assert report.missing == {}
    assert report.status == 1
    assert type(error).__name__ in str(report)


@pytest.mark.usefixtures("at_hand")
def test_versions_that_are_not_told_lose_no_case() -> None:
    failing = Failing(AttributeError("cublasLtGetVersion"), "versions")
    report = checked(["torch"], start=starting(failing))
    assert report.status == 0, report
    assert report.missing == {}
    assert report.versions == {"torch": {"not told": "AttributeError: cublasLtGetVersion"}}


def _short(work: Work, flat: list[Any]) -> list[Any]:
    """y without its last step."""
    return [flat[0][:, :-1], *flat[1:]]


@pytest.mark.usefixtures("at_hand")
def test_outputs_of_a_wrong_shape_differ_and_lose_no_report(tmp_path: Path) -> None:
    model = Model()
    model.changed = lambda work, flat: _short(work, flat) if work.case.layer == "GRU" else flat
    start = starting(Here(model))
    report = gpucheck.checked(["torch"], [], ["float32"], tmp_path, start=start)
    wrong = [row for row in report.rows if row.layer == "GRU"]
    assert wrong
    assert {row.verdict for row in wrong} == {DIFFERS}
    assert all("cannot be judged: ValueError: " in row.notes[0] for row in wrong)
    assert not any(row.proven for row in wrong)
    assert {row.verdict for row in report.rows if row.layer != "GRU"} == {AGREES}
    assert report.status == 1
    assert not list(tmp_path.glob("gru*"))
    assert list(tmp_path.glob("lstm*"))


@pytest.mark.usefixtures("at_hand")
def test_a_warning_of_a_slow_engine_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where warnings are errors: the judge runs refrnn, whose kernels may not compile."""

    def broken(*arguments: Any) -> Any:
        raise kernels.CompileError("no compiler")

    monkeypatch.setattr(kernels, "pack", broken)
    monkeypatch.setattr(engines, "_broken", [])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("error")
        report = checked(["torch"])
    assert report.status == 0, report
    assert ["runs on its NumPy engine" in str(warning.message) for warning in told] == [True]


# --- a process that hangs -------------------------------------------------------------------------

HANGING = """
import os, sys, threading, time, types
class Oracle:
    def run(self, seconds):
        time.sleep(seconds)
        return "done"
    def end(self):
        os._exit(7)
    def stay(self):
        threading.Thread(target=time.sleep, args=(600,)).start()
sys.modules["refrnn.oracles.hanging"] = types.SimpleNamespace(Oracle=Oracle)
"""


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> process.Apart:
    """An oracle that answers late, in a process of its own."""
    (tmp_path / "sitecustomize.py").write_text(HANGING)
    monkeypatch.setattr(process, "ENDING", 1.0)
    return process.Apart("hanging:Oracle", {"PYTHONPATH": str(tmp_path)}, 60.0)


def test_a_process_that_hangs_is_killed(hanging: process.Apart) -> None:
    assert hanging.ask("run", 0) == "done"
    hanging.limit = 0.3
    began = time.perf_counter()
    with pytest.raises(Ended, match=r"killed, 0.3 s without an answer"):
        hanging.ask("run", 600)
    assert time.perf_counter() - began < 30
    with pytest.raises(Ended):  # asked once more, it is still gone
        hanging.ask("run", 0)


def test_a_process_that_ends_says_how(hanging: process.Apart) -> None:
    with pytest.raises(Ended, match="ended with 7"):
        hanging.ask("end")


def test_a_process_that_does_not_end_by_itself_is_killed(hanging: process.Apart) -> None:
    hanging.ask("stay")
    child = hanging._child
    began = time.perf_counter()
    process.end(child, hanging._said)
    assert child.returncode == -9
    assert time.perf_counter() - began < 30


def test_here_it_explains_itself_and_exits_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "DRIVER", "libthere-is-none.so.1")
    written = tmp_path / "report.json"
    assert main(["gpucheck", "--json", str(written)]) == 2
    out = capsys.readouterr().out
    for name in FRONTS:
        (line,) = [line for line in out.splitlines() if line.startswith(f"not run: {name},")]
        assert "no driver: libthere-is-none.so.1" in line
    assert "not judged" in out.splitlines()[-1]
    report = json.loads(written.read_text())
    assert report["verdict"] == "not judged"
    assert report["rows"] == report["proven"] == []
    assert {entry["front"] for entry in report["missing"]} == set(FRONTS)
    assert main(["gpucheck", "--fronts", "torch,jax", "--require", "torch"]) == 1
    monkeypatch.setenv(gpucheck.REQUIRE, "1")
    assert main(["gpucheck", "--fronts", "direct"]) == 1
    assert "required and not proven: direct" in capsys.readouterr().out


def test_a_driver_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Driver:
        cuInit = staticmethod(lambda flags: 100)

    monkeypatch.setattr(host.ctypes, "CDLL", lambda name: Driver)
    with pytest.raises(Unavailable, match=r"no GPU: .* cuInit returned error 100"):
        host.check_driver()


def test_what_is_not_installed_is_told() -> None:
    absent = FRONTS["torch"]._replace(packages=(("torch_of_no_one", "torch"),))
    with pytest.raises(Unavailable, match="not installed: torch_of_no_one"):
        absent.check_installed()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fronts", "torch,pytorch"], "'pytorch' is unknown, expected some of tf, tf-function"),
        (["--fronts", "torch", "--require", "tf"], "tf is not among those of --fronts"),
        (["--precisions", "float8"], "'float8' is unknown, expected some of float64"),
        (["--record", "/no/such/folder"], "no such folder /no/such"),
        (["--record", __file__], "File exists, expected a folder"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gpucheck", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_front_end_in_a_process_of_its_own_says_which_step_is_missing(folder: Path) -> None:
    if host_has_a_gpu():
        pytest.skip("there is a GPU here: test_cudnn.py runs it")
    with pytest.raises(
        Unavailable, match=r"no CUDA: TensorFlow is built without it|no GPU: Tensor"
    ):
        running.started("cudnn.keras:OnTensorFlow", "float32", str(folder))


def host_has_a_gpu() -> bool:
    try:
        host.check_driver()
    except Unavailable:
        return False
    return True


# --- recordings -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("at_hand")
def test_what_is_recorded_is_what_was_returned(tmp_path: Path) -> None:
    """By the model: the files are read back and judged, and stay in a temporary folder."""
    names, precisions = ["torch", "torch-packed"], ["float32", "tf32", "float16"]
    report = gpucheck.checked(names, [], precisions, tmp_path, start=started())
    assert report.status == 0, report
    files = sorted(tmp_path.glob("*.npz"))
    assert len(files) == 2 * 3 * 3
    assert sum(path.stat().st_size for path in files) < recording.LARGEST
    (path,) = [p for p in files if p.name == "lstm-b3t11f5h7-float32.npz"]
    found = goldens.read(path)
    assert {(v.name, v.precision) for v in found.variants} == {
        (f"{name}, asked for {precision}", precision)
        for name in names
        for precision in ("float32", "tf32")
    }
    for variant in found.variants:
        assert variant.proof["calls"] == 1 + 3
        assert variant.proof["backward_calls"] == 2
        assert variant.provenance["gpu"] == "a model of a GPU"
        assert variant.provenance["read_back"]["flag"] in variant.name
    assert all(verdict.agrees for verdict in goldens.judge(found)), goldens.judge(found)
    (path,) = [p for p in files if p.name == "gru-lengths-b3t11f5h7-float16.npz"]
    (variant,) = goldens.read(path).variants
    assert variant.outputs["y"].dtype == np.float16


@pytest.mark.usefixtures("at_hand")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lies": lambda work, made: []}, "no proof that cuDNN computed it"),
        ({"changed": _unwritten}, "NaN or infinity among the outputs"),
        ({"changed": _swapped}, "fits no precision"),
    ],
    ids=["unproven", "unwritten", "wrong"],
)
def test_nothing_else_is_recorded(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    record = gpucheck.checked(["jax"], [], ["float32"], tmp_path, start=started(**changes))
    assert record.status == 1
    assert list(tmp_path.glob("*.npz")) == []
    assert record.recorded
    assert all(said.startswith("not recorded: jax in float32, ") for said in record.recorded)
    assert all(reason in said for said in record.recorded)


def test_without_a_gpu_nothing_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "DRIVER", "libthere-is-none.so.1")
    assert main(["gpucheck", "--record", str(tmp_path)]) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("at_hand")
def test_recordings_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "LARGEST", 20_000)
    monkeypatch.setattr(cases, "RECORDED", ((3, 33, 24, 40), (9, 11, 1, 1)))
    report = gpucheck.checked(["jax"], [], ["float32"], tmp_path, start=started())
    (small,) = tmp_path.glob("*.npz")  # though it is not the first by its name
    assert small.name == "lstm-b9t11f1h1-float32.npz"
    assert small.stat().st_size <= 20_000
    skipped = [said for said in report.recorded if "all files are over 20000 bytes" in said]
    assert [said.split(":")[1].strip() for said in skipped] == [
        f"lstm-{way}b3t33f24h40-float32.npz" for way in ("", "bidirectional-", "lengths-")
    ]


def test_all_recordings_together_stay_small(tmp_path: Path) -> None:
    """The second shape is large: in training it has gradients in every variant."""
    made = cases.recorded(list(FRONTS), list(NUMBERS))
    large = [job.work for job in made if job.work.case.units == cases.RECORDED[1][3]]
    assert large
    assert not any(work.with_gradients for work in large)
    small = [work for work in (job.work for job in made) if work not in large]
    assert any(work.with_gradients for work in small)
    done, model, found = running.Done(), Model(), {}

    def with_other_bits(work: Work, flat: list[Any]) -> list[Any]:
        """Those of chunks, each the last bit of its format: they are stored then."""
        if flat[0].shape[1] == work.case.steps:
            return flat
        last = 1 << {"float16": 13, "bfloat16": 16}.get(work.precision, 0)
        return [(a.view(f"u{a.itemsize}") ^ last).view(a.dtype) for a in map(np.array, flat)]

    model.changed = with_other_bits
    for k, (front, work) in enumerate(made):
        key = f"{work} in {work.precision}"
        if key not in found:
            answer = model.run(replace(work, repeats=1), FRONTS[front].way)
            found[key] = answer, judging.judged(front, work, answer, {"flag": "set"})
        done.answers[k], done.rows[k] = found[key]
    said, unwritten = recording.write(dict(enumerate(made)), done, "a model", tmp_path)
    assert unwritten == ""
    assert all(line.startswith("recorded: ") for line in said), said


@pytest.mark.usefixtures("at_hand")
def test_one_that_cannot_be_recorded_leaves_the_others(tmp_path: Path) -> None:
    """The log of one front end does not tell the algorithm, without which there is no proof."""
    model = Model()
    model.lies = lambda work, made: [
        text.replace("algo: ", "other: ") for text in Model().told(work, made)
    ]
    names = ["torch", "jax"]
    report = gpucheck.checked(names, [], ["float32"], tmp_path, start=starting(Here(model)))
    assert report.unwritten == ""
    failed = [said for said in report.recorded if said.startswith("not recorded: ")]
    assert len(failed) == len(cases.recorded(["torch"], ["float32"]))
    assert all(said.startswith("not recorded: torch in float32, ") for said in failed)
    assert all("proof has algorithm ''" in said for said in failed)
    for path in tmp_path.glob("*.npz"):
        (variant,) = goldens.read(path).variants
        assert variant.name == "jax, asked for float32"
    assert list(tmp_path.glob("lstm*.npz"))


@pytest.mark.usefixtures("at_hand")
def test_what_no_one_rounding_explains_is_told_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = running.Done()
    (job, *_) = cases.recorded(["torch"], ["tf32"])
    answer = Model().run(job.work, "plain")
    done.answers[0] = answer
    right = judging.judged("torch", job.work, answer, {})
    done.rows[0] = replace(right, measured="within tf32")
    said, _ = recording.write({0: job}, done, "a model", tmp_path)
    (line,) = said
    assert line.startswith(f"not recorded: torch in tf32, {job.work}: is within tf32")


@pytest.mark.usefixtures("at_hand")
def test_a_recording_says_which_variables_were_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    gpucheck.checked(["jax"], [], ["float32"], tmp_path / "new", start=started())
    path = next((tmp_path / "new").glob("*.npz"))  # in a folder that was made for it
    (variant,) = goldens.read(path).variants
    assert variant.provenance["asked"]["NVIDIA_TF32_OVERRIDE"] == "0"
    assert variant.provenance["asked"]["precision"] == "float32"


@pytest.mark.usefixtures("at_hand")
def test_logs_are_kept_where_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def start(made_by: str, precision: str, folder: str) -> running.Child:
        seen.append(Path(folder))
        (seen[-1] / "cudnn_1.log").write_text("I! CuDNN")
        return started()(made_by, precision, folder)

    checked(["jax"], start=start)
    assert not seen[0].exists()
    for name in ("kept", "kept"):  # made the first time
        monkeypatch.setenv(running.KEEP, str(tmp_path / name))
        checked(["jax"], start=start)
    assert [path.parent for path in seen[1:]] == [tmp_path / "kept"] * 2
    assert seen[1] != seen[2]
    assert all((path / "cudnn_1.log").read_text() == "I! CuDNN" for path in seen[1:])
    monkeypatch.setenv(running.KEEP, "/no/such/folder")
    with pytest.raises(CannotJudge, match="REFRNN_KEEP_LOGS /no/such/folder: no such folder"):
        checked(["jax"], start=start)


@pytest.mark.usefixtures("at_hand")
def test_a_folder_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the report, which is not lost."""

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(goldens, "write", full)
    run = running.run
    monkeypatch.setattr(running, "run", lambda jobs, start: run(jobs, started()))
    asked = ["gpucheck", "--fronts", "jax", "--precisions", "float32", "--record", str(tmp_path)]
    json = tmp_path / "report.json"
    assert main([*asked, "--json", str(json)]) == 2
    out, err = capsys.readouterr()
    assert "agrees: jax; " in out
    assert "not recorded: lstm-b3t11f5h7-float32.npz: " in out
    assert "No space left on device" in err.splitlines()[-1]
    assert json.exists()


# --- the adapters, cuDNN's operation replaced by a model of it ------------------------------------


def test_gradients_at_padded_steps_are_zeros() -> None:
    """cuDNN does not write them, so that they are what was in memory."""

    class Unwritten(Model):
        def call(self, layer: Any, work: Work, *others: Any) -> Any:
            made = super().call(layer, work, *others)
            mask = others[2]
            if mask is not None and "x" in made.gradients:
                made.gradients["x"] = np.where(mask[:, :, None], made.gradients["x"], np.nan)
            return made

    for options in ({}, {"go_backwards": True}):
        case = replace(LSTM, mask="right", options=options)
        work = Work(case, "float32", training=True)
        found = row(work, Unwritten())
        assert found.verdict == AGREES, found
        live = work.arrays().mask
        assert live is not None
        assert not live.all()
        assert not Unwritten().run(work, "plain").gradients["x"][~live].any()


def test_a_library_that_does_not_tell_its_version_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maps = "".join(
        f"1-2 r-xp 0 00:00 1 /there/{name}.so.9\n" for name in ("libcudnn", "libcublasLt")
    )

    class Maps:
        exists = staticmethod(lambda: True)
        read_text = staticmethod(lambda: maps)

    class Told:
        def __call__(self) -> int:
            return 92800

    def load(path: str) -> Any:
        if "cublasLt" in path:
            raise OSError(f"{path}: cannot open shared object file")
        return type("Library", (), {"cudnnGetVersion": Told()})  # and no cudnnGetCudartVersion

    monkeypatch.setattr(host, "Path", lambda path: Maps if "maps" in path else Path(path))
    monkeypatch.setattr(host.ctypes, "CDLL", load)
    told = host.libraries()
    assert told == {"libraries": "libcublasLt.so.9, libcudnn.so.9", "cuDNN": "92800"}


def test_the_first_error_of_cuda_is_seen() -> None:
    """After an error of a kernel every call fails, those that free memory too."""

    class Sick:
        def cuda(self, name: str, *arguments: Any) -> None:
            if name == "cudaFree":
                raise RuntimeError("cudaFree: CUDA error 700")

    memory = direct.Memory(Sick())  # type: ignore[arg-type]
    memory.blank(16)
    memory.free()


def test_flags_of_an_older_pytorch() -> None:
    """Its cudnn.rnn has no fp32_precision, or there is none: the flag is cudnn's."""
    for rnn in ({"rnn": SimpleNamespace()}, {}):
        cudnn = SimpleNamespace(allow_tf32=None, enabled=True, **rnn)
        older = SimpleNamespace(backends=SimpleNamespace(cudnn=cudnn))
        assert torch_front.set_flags(older, "tf32")["cudnn TF32"] is True
        assert torch_front.set_flags(older, "float32")["cudnn TF32"] is False


class OnTensorFlow(Telling, keras.OnTensorFlow):
    """Keras on TensorFlow, on the CPU."""


@pytest.fixture
def on_tensorflow() -> Iterator[OnTensorFlow]:
    """Keras on TensorFlow, with a model in the place of CudnnRNNV3."""
    with pytest.MonkeyPatch.context() as patch:
        front = OnTensorFlow()
        front.device = "/CPU:0"
        patch.setattr(front.tf.raw_ops, "CudnnRNNV3", modelled(front.tf))
        rnn = importlib.import_module("keras.src.backend.tensorflow.rnn")
        patch.setattr(rnn, "_is_gpu_available", lambda: True)
        patch.setitem(front.tf.sysconfig.get_build_info(), "is_cuda_build", True)
        yield front


def modelled(tf: Any) -> Any:
    """CudnnRNNV3: y with zeros past each row's length, the states, and gradients."""

    def operation(
        input: Any, input_h: Any, input_c: Any, params: Any, is_training: bool, rnn_mode: str,
        sequence_lengths: Any, time_major: bool,
    ) -> Any:  # fmt: skip
        assert is_training is True
        assert time_major is False
        lstm, dtype = rnn_mode == "lstm", input.dtype
        given = [input, params, input_h, *([input_c] if lstm else [])]

        def forward(x: Any, params: Any, lengths: Any, *state: Any) -> list[Any]:
            first = [part[:, 0] for part in state]  # (B, 1, H), where the batch comes first
            *_, y, after = computed(rnn_mode, params, x, first, lengths)
            return [y, *(part[:, None] for part in after)]

        def back(dy: Any, x: Any, params: Any, lengths: Any, *state: Any) -> list[Any]:
            first = [part[:, 0] for part in state]
            weights, mask, *_ = computed(rnn_mode, params, x, first, lengths)
            own = backward.gradients(
                CELLS[rnn_mode], weights, x, dy, first, mask=mask, zero_output_for_mask=True
            )
            by = [np.asarray(a) for a in (own.dkernel, own.drecurrent_kernel, own.dbias)]
            G, H = len(CELLS[rnn_mode].gates), first[0].shape[1]
            order = range(4) if lstm else (1, 0, 2)
            matrices = [np.split(a, G, 1)[g].T.ravel() for a in by[:2] for g in order]
            rows = [by[2], by[2]] if lstm else list(by[2])
            biases = [np.split(r, G)[g] for r in rows for g in order]
            assert sum(b.size for b in biases) == 2 * G * H
            flat = np.concatenate([*matrices, *biases])
            return [own.dxs, flat, *(part[:, None] for part in own.dstate)]

        @tf.custom_gradient
        def op(*tensors: Any) -> Any:
            x, params, *state = tensors
            asked = [x, params, sequence_lengths, *state]
            outputs = tf.numpy_function(forward, asked, [dtype] * (1 + len(state)))
            outputs[0].set_shape([None, None, input_h.shape[-1]])
            for part in outputs[1:]:
                part.set_shape(input_h.shape)

            def gradient(dy: Any, *others: Any) -> Any:
                return tf.numpy_function(back, [dy, *asked], [dtype] * len(tensors))

            return outputs, gradient

        y, h, *c = op(*given)
        return y, h, c[0] if lstm else None, None, None

    return operation


@pytest.mark.parametrize("name", ["tf", "tf-function"])
@pytest.mark.parametrize("work", adapter_works(), ids=str)
def test_keras_on_tensorflow(on_tensorflow: OnTensorFlow, name: str, work: Work) -> None:
    if work.bidirectional:  # Keras calls it once for each direction
        on_tensorflow.lies = lambda work, made: [told(work)] * 2
    found = row(work, on_tensorflow, name)
    assert found.verdict == AGREES, found
    assert len(found.gradients) == (0 if work.bidirectional else 4 + len(work.parts))


def test_the_vector_is_what_keras_hands_to_cudnn(on_tensorflow: OnTensorFlow) -> None:
    """Bit for bit, of both layers; for cuDNN itself and for JAX, which take the same."""
    tf, seen = on_tensorflow.tf, []
    model = tf.raw_ops.CudnnRNNV3
    with pytest.MonkeyPatch.context() as patch:

        def watched(**arguments: Any) -> Any:
            seen.append(arguments["params"].numpy())
            return model(**arguments)

        patch.setattr(tf.raw_ops, "CudnnRNNV3", watched)
        for layer in ("LSTM", "GRU"):
            work = Work(replace(LSTM, layer=layer), "float32", repeats=1)
            assert on_tensorflow.run(work, "eager").refused is None
            own = vectors.vector(work, work.arrays().weights).astype(np.float32)
            assert seen.pop().tobytes() == own.tobytes()


def test_keras_on_tensorflow_on_a_cpu_is_not_taken_for_cudnn() -> None:
    """The model is not there: use_cudnn=True is refused, "auto" falls back, and both show."""
    front = keras.OnTensorFlow()
    front.device = "/CPU:0"
    for name in ("tf", "tf-function"):
        found = row(Work(LSTM, "float32"), front, name)
        assert found.verdict == REFUSED
        assert "use_cudnn=True was specified" in found.notes[0]
        kept = Work(LSTM, "float32", on_cudnn=False)
        assert row(kept, front, name).verdict == AGREES


@pytest.mark.parametrize("name", ["tf", "tf-function"])
def test_what_keras_keeps_from_cudnn_agrees(name: str) -> None:
    front = keras.OnTensorFlow()
    front.device = "/CPU:0"
    for title, case in fronts.negatives(FRONTS[name]):
        work = Work(replace(case, dtype="float32"), "float32", on_cudnn=False, repeats=1)
        assert row(work, front, name).verdict == AGREES, title


def test_the_flags_of_tensorflow_are_read_back() -> None:
    front = keras.OnTensorFlow()
    assert front.set_flags("tf32")["tensor_float_32"] is True
    assert front.set_flags("float32")["tensor_float_32"] is False
    assert front.versions()["TensorFlow"] == front.tf.__version__


def needed(module: str) -> Any:
    """The module, or a skip that names it."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    return importlib.import_module(module)


@pytest.mark.others
@pytest.mark.parametrize("name", ["torch", "torch-packed"])
@pytest.mark.parametrize("layer", ["SimpleRNN", "LSTM", "GRU"])
def test_pytorch(name: str, layer: str) -> None:
    """Its own kernels for the CPU are the model."""
    needed("torch")
    from refrnn.oracles.cudnn.torch import Torch

    class OnCpu(Telling, Torch):
        pass

    for front in (OnCpu(), Torch()):
        front.device = "cpu"
        for work in adapter_works(masks=name == "torch-packed", gru=False):
            if work.case.options:  # it has no go_backwards
                continue
            found = row(replace(work, case=replace(work.case, layer=layer)), front, name)
            if isinstance(front, OnCpu):
                assert found.verdict == AGREES, found
            else:
                assert found.verdict == UNPROVEN, found


@pytest.mark.others
@pytest.mark.parametrize(("name", "count"), [("keras-torch", 6), ("keras-jax", 3), ("jax", 3)])
def test_another_backend(name: str, count: int) -> None:
    """In a process of its own, with cuDNN's operation modelled."""
    needed("torch" if name == "keras-torch" else "jax")
    script = Path(__file__).parent / "cudnn_keras.py"
    done = subprocess.run(
        [sys.executable, str(script), name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(rows) == count
    for found in rows:
        assert found["verdict"] == AGREES, found
        turned = name == "keras-jax" and "go_backwards" in found["work"]
        assert any(note.startswith("known: ") for note in found["notes"]) == turned
        gradients = 0 if "bidirectional" in found["work"] else 5 + ("LSTM" in found["work"])
        assert len(found["gradients"]) == gradients


@pytest.mark.others
def test_the_flags_of_pytorch_are_read_back() -> None:
    torch = needed("torch")
    from refrnn.oracles.cudnn.torch import set_flags

    assert set_flags(torch, "tf32")["cudnn TF32"] == "tf32"
    assert set_flags(torch, "float32")["cudnn TF32"] == "ieee"
    assert set_flags(torch, "float32")["cudnn.enabled"] is True
