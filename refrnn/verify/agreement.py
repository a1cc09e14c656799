"""One case or model held against another implementation: whole, step by step and in chunks.

A recurrent layer is judged by the step envelope, both sides of it: another implementation and
refrnn agree if each of their steps is one that a correct implementation can make. What else a
model does is compared with a tolerance.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from refrnn.cases import Arrays, Case
from refrnn.gates import Array
from refrnn.verify import chunks
from refrnn.verify.compare import Difference, Mismatch, Outputs, largest_difference, same_bits
from refrnn.verify.precisions import PRECISIONS
from refrnn.verify.report import Run
from refrnn.verify.subject import subject
from refrnn.verify.tolerances import TOLERANCES


@dataclass(frozen=True)
class Row:
    """One line of the table.

    whole, chunked  largest difference of refrnn's run from the other's, relative to the largest
                    magnitude; chunked is the worst of all cuttings, None where none is possible
    same_bits       whether refrnn's chunked runs equal its whole run in every bit
    allowed         the tolerance of that dtype, where there is no envelope
    note            what differs and where, or why there is no chunked run
    margin          the worst |error| / bound of a step, refrnn's or the other's; None for a model's
                    outputs, which have no envelope
    """

    case: str
    dtype: str
    against: str
    whole: float
    chunked: float | None
    same_bits: bool | None
    allowed: float
    note: str = ""
    margin: float | None = None

    @property
    def error(self) -> float:
        return max(self.whole, self.chunked or 0.0)

    @property
    def share(self) -> float:
        """How much of what is allowed was used: of the envelope, or of the tolerance."""
        if self.margin is not None:
            return self.margin
        return self.error / self.allowed if self.allowed else float("inf") if self.error else 0.0

    @property
    def agrees(self) -> bool:
        return self.share <= 1 and self.same_bits is not False

    @property
    def verdict(self) -> str:
        return "agrees" if self.agrees else "DIFFERS"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict.lower()}


Cuttings = Sequence[Sequence[int]]
Oracle = Callable[[], Outputs]


def _rows(
    title: str,
    whole: Outputs,
    chunked: Sequence[Outputs],
    oracles: dict[str, Oracle],
    note: str = "",
    envelope: Callable[[Outputs], Run] | None = None,
) -> list[Row]:
    """refrnn's runs against each oracle's, which is asked here; an oracle's error is not caught.

    A row for each oracle and each dtype among the outputs, because that decides what is allowed.

    envelope  holds outputs against the step envelope, where there is one
    """
    own = envelope and envelope(whole)
    limits = _limits(title, whole)
    rows = []
    for against, ask in oracles.items():
        want = ask()
        missing = sorted(set(want) - set(whole))
        for dtype, limit in limits.items():

            def of_dtype(outputs: Outputs, dtype: str = dtype) -> Outputs:
                return {n: a for n, a in outputs.items() if n in whole and whole[n].dtype == dtype}

            theirs = {**of_dtype(want), **{name: want[name] for name in missing}}
            mine, *runs = (_as_shown(of_dtype(run), theirs) for run in (whole, *chunked))
            row = _row(title, dtype, against, mine, runs, theirs, limit, note)
            if own is not None and envelope is not None and np.isfinite(row.whole):
                row = _enveloped(row, own, envelope(theirs))
            rows.append(row)
    return rows


def _as_shown(own: Outputs, theirs: Outputs) -> Outputs:
    """The last output alone where the other shows no more."""
    y, other = own.get("y"), theirs.get("y")
    if y is not None and other is not None and (y.ndim, other.ndim) == (3, 2):
        return {**own, "y": y[:, -1]}
    return own


def _enveloped(row: Row, own: Run, other: Run) -> Row:
    """The row, judged by the steps of both runs."""
    note = row.note if row.same_bits is False else ""
    for who, run in (("refrnn", own), (row.against, other)):
        if run.broken:
            note = f"{who}: {run.first}"
    margin = max(*own.margins.values(), *other.margins.values())
    return replace(row, margin=margin, note=note)


def _row(
    title: str,
    dtype: str,
    against: str,
    whole: Outputs,
    chunked: Sequence[Outputs],
    want: Outputs,
    limit: float,
    note: str,
) -> Row:
    bits = all(same_bits(run, whole) for run in chunked) if chunked else None
    first, found = _difference(whole, want)
    others = [_difference(run, want) for run in chunked]
    worst = max(others, key=lambda pair: pair[0], default=(None, ""))
    if not first <= limit:
        note = f"whole: {found}"
    elif worst[0] is not None and not worst[0] <= limit:
        note = f"in chunks: {worst[1]}"
    elif bits is False:
        note = "chunks and whole differ in their bits"
    return Row(title, dtype, against, first, worst[0], bits, limit, note)


def _limits(title: str, outputs: Outputs) -> dict[str, float]:
    """What is allowed in each dtype among the outputs; whole numbers and truths must be equal."""
    limits: dict[str, float] = {}
    for name, array in outputs.items():
        dtype = array.dtype.name
        if dtype not in TOLERANCES and array.dtype.kind not in "iub":
            raise ValueError(
                f"{title}: {name} is in {dtype}, expected {' or '.join(TOLERANCES)}, because there"
                " is no tolerance for others: TensorFlow's own ways to run a layer are 1e-2 apart"
                " in half precision"
            )
        limits[dtype] = TOLERANCES[dtype].relative if dtype in TOLERANCES else 0.0
    return limits


def _difference(got: Outputs, want: Outputs) -> tuple[float, str]:
    try:
        found: Difference = largest_difference(got, want)
    except Mismatch as mismatch:
        return float("inf"), str(mismatch)
    return found.error, str(found)


def judge_case(
    case: Case, oracles: dict[str, Oracle], cuttings: Cuttings | None = None
) -> list[Row]:
    """A row for each oracle, a function that returns the outputs y, h (and c) of `case`.

    refrnn runs the case whole, and in chunks with carried state.

    cuttings  lists of chunk lengths, the last of each repeated to the end; None for one step at a
              time and random chunks
    """
    return judge_layer(str(case), case.build(), case.arrays(), oracles, cuttings, case.seed)


def judge_layer(
    title: str,
    layer: Any,
    arrays: Arrays,
    oracles: dict[str, Oracle],
    cuttings: Cuttings | None = None,
    seed: int = 0,
) -> list[Row]:
    """As `judge_case`, for a recurrent layer of refrnn's that returns all outputs.

    Where an oracle shows the last output alone, (B, H), the envelope is that of free runs.
    """
    steps = arrays.x.shape[1]
    what = subject(layer)
    tasks = what.tasks(arrays.x, arrays.state, arrays.mask)

    def envelope(outputs: Outputs) -> Run:
        hidden = outputs["y"].ndim == 2
        precision = PRECISIONS[what.dtype.name]
        return Run("whole", what.parts, tasks, what.seen(outputs), precision, hidden)

    whole = chunks.layer_whole(layer, arrays)
    if cuttings is None:
        cuttings = [[1], chunks.random_sizes(steps, seed)]
    runs = [chunks.layer_in_chunks(layer, arrays, sizes) for sizes in cuttings]
    return _rows(title, whole, runs, oracles, envelope=envelope)


def judge_model(
    title: str,
    model: Any,
    inputs: Sequence[Array],
    oracles: dict[str, Oracle],
    cuttings: Cuttings | None = None,
) -> list[Row]:
    """A row for each oracle, a function that returns the outputs of `model` for `inputs`.

    model     a `refrnn.Model`
    cuttings  as for `judge_case`
    """
    model.reset_states()
    whole = chunks.flat(model(inputs if len(inputs) > 1 else inputs[0]))
    lengths = {a.shape[1] for a, timed in zip(inputs, model.timed(inputs), strict=True) if timed}
    reason = model.why_whole()
    if reason is None and len(lengths) != 1:
        found = f"time axes of lengths {sorted(lengths)}" if lengths else "no time axis"
        reason = f"the inputs have {found}"
    runs = []
    if reason is None:
        if cuttings is None:
            cuttings = [[1], chunks.random_sizes(lengths.pop(), 0)]
        runs = [chunks.model_in_chunks(model, inputs, sizes) for sizes in cuttings]
    model.reset_states()
    return _rows(title, whole, runs, oracles, note=f"whole only: {reason}" if reason else "")
