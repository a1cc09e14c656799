"""Is another implementation right? Its runs are held against the envelope, step by step."""

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.verify import candidate as candidates
from refrnn.verify import chunks as cutting
from refrnn.verify.candidate import Data, Implementation
from refrnn.verify.compare import same_bits
from refrnn.verify.conventions.masks import other_contract
from refrnn.verify.precisions import PRECISIONS, Precision
from refrnn.verify.report import Report, Run, fitting
from refrnn.verify.subject import Subject, in_time, subject

PROBES = 4096  # rows of a probe batch at most
LARGE = 16  # rows of large inputs among them
PREFIXES = 200  # steps of a run that is shown by shorter runs


def check(
    candidate: Any,
    reference: Any,
    x: Any,
    state: Any = None,
    mask: Any = None,
    chunks: Any = "all",
    precision: str | None = None,
) -> Report:
    """Judge another implementation of one recurrent layer.

    candidate  its outputs: y, or (y, h) or (y, h, c), or a dictionary of arrays by name: y, h, c,
               cs (every step's c), gates i, f, g, o or z, r, g, and the sums pre.i, pre.f, ...;
               y is (B, T, H), gates and cs too, h and c are (B, H). Of a Bidirectional y is
               (B, T, 2H), the other names begin with "forward." or "backward.".
               Where y is (B, H), the last output only, the run between is not seen, and a Monte
               Carlo envelope stands in for the step envelope.
               Or a function f(x, initial_state=None, mask=None) that returns y, or (y, h), or
               (y, h, c): then it is also run in chunks, on probes (one feature or one unit of the
               state at a time, so that every weight is read), twice, and row by row.
    reference  a built LSTM, GRU or SimpleRNN layer, a Bidirectional of one, a model of one such
               layer, or a cell's name and `refrnn.Weights`
    x          (B, T, F)
    state      the first state, [h] or [h, c], each (B, H); None for zeros
    mask       (B, T) of booleans, or None
    chunks     "all": one step at a time, and random lengths; "whole": none; or a list of lengths,
               the last repeated to the end
    precision  the arithmetic that is claimed, one of PRECISIONS; None for that of the candidate's
               dtype, or of the reference's if that is coarser

    Returns a Report; it raises nothing for a wrong implementation. Raises ValueError and TypeError
    for arguments that do not fit, before the candidate is called; what the candidate raises goes
    through.
    """
    what = subject(reference)
    claimed = None if precision is None else _precision(what.who, precision)
    if claimed is not None:
        what = what.stored_as(claimed)
    tasks = what.tasks(x, state, mask)  # refusals first
    data = candidates.data(what, tasks, state is not None)
    cuttings = _cuttings(what, chunks, data.x.shape[1])
    judging = _Judging(what, claimed)
    if callable(candidate):
        _Trials(judging, candidate, data).run(cuttings)
    else:
        judging.add("as given", what.named(candidate), data)
    return judging.report()


def _precision(who: str, name: Any) -> Precision:
    if not isinstance(name, str) or name not in PRECISIONS:
        raise ValueError(
            f"{who}: precision is {name!r}, expected one of {', '.join(map(repr, PRECISIONS))}"
        )
    return PRECISIONS[name]


def _cuttings(what: Subject, given: Any, steps: int) -> list[list[int]]:
    if isinstance(given, str):
        if given not in ("all", "whole"):
            raise ValueError(
                f"{what.who}: chunks is {given!r}, expected 'all', 'whole' or a list of lengths"
            )
        return [] if given == "whole" else [[1], cutting.random_sizes(steps, 0)]
    sizes = [checks.count(what.who, "chunks", size) for size in np.atleast_1d(given).tolist()]
    list(cutting.pieces(steps, sizes))  # refuses lengths that never reach the end
    return [sizes]


class _Judging:
    """Runs of one candidate, judged one after another."""

    def __init__(self, what: Subject, claimed: Precision | None) -> None:
        self.what, self.claimed = what, claimed
        self.runs: list[Run] = []
        self.notes: list[str] = []

    def add(
        self,
        title: str,
        arrays: Mapping[str, Array],
        data: Data,
        calls: Array | None = None,
    ) -> None:
        """Judge one run; `arrays` as `check` takes them, hs as well."""
        B, T = data.x.shape[:2]
        arrays = self.what.checked(arrays, B, T)
        if self.claimed is None:
            self.claimed = self._native(arrays)
        what = self.what.stored_as(self.claimed)
        tasks = [task._replace(calls=calls) for task in what.tasks(*data)]
        hidden = arrays["y"].ndim == 2
        if hidden and T == 1:
            arrays, hidden = {**arrays, "y": arrays["y"][:, None]}, False
        self.runs.append(Run(title, what.parts, tasks, what.seen(arrays), self.claimed, hidden))

    def _native(self, arrays: Mapping[str, Array]) -> Precision:
        """The arithmetic of the candidate's dtype, or of the reference's if that is coarser."""
        names = {a.dtype.name for a in arrays.values()} | {self.what.dtype.name}
        found = [PRECISIONS[name] for name in names if name in PRECISIONS]
        coarsest = max(found, key=lambda precision: precision.pointwise)
        coarse = [name for name, a in arrays.items() if a.dtype.name == coarsest.name]
        if coarse and "y" not in coarse and self.what.dtype.name != coarsest.name:
            self.notes.append(
                f"y is {arrays['y'].dtype}, but judged as {coarsest.name}, the dtype of"
                f" {', '.join(coarse)}: leave that out, or give precision="
            )
        return coarsest

    def report(self) -> Report:
        assert self.claimed is not None
        if not any(found.judged.error.size for run in self.runs for found in run.found):
            self.notes.append("nothing was compared: every array is empty")
        whole = self.runs[0]
        if not whole.hidden and len(whole.parts) == 1:  # a Bidirectional knows one contract only
            note = other_contract(whole.tasks[0], whole.seen[0].y)
            self.notes += [note] if note else []
        fits = fitting(self.runs, self.claimed)
        return Report(self.what.who, self.claimed.name, fits, self.runs, self.notes)


class _Trials:
    """The runs of a candidate that can be called."""

    def __init__(self, judging: _Judging, candidate: Implementation, data: Data) -> None:
        self.judging, self.candidate, self.what = judging, candidate, judging.what
        self.data = data
        self.takes_state = _takes(candidate, "initial_state")

    def run(self, cuttings: Sequence[Sequence[int]]) -> None:
        whole, T = self._call(self.data), self.data.x.shape[1]
        if whole["y"].ndim == 2 and 1 < T <= PREFIXES and len(self.what.parts) == 1:
            whole = candidates.shown(self.what, self.candidate, self.data, whole)
            self._note(
                "only the last output is returned: those of shorter runs stand for the others"
            )
            cuttings = [[1]] if cuttings else []  # in longer chunks it would hide outputs
        self.judging.add("whole", whole, self.data)
        self._twice(whole)
        self._row_by_row(whole)
        if whole["y"].ndim > 2:
            for sizes in cuttings:
                self._in_chunks(sizes, whole)
        self._probes()

    def _call(self, data: Data) -> dict[str, Array]:
        return candidates.run(self.what, self.candidate, data)

    def _note(self, sentence: str) -> None:
        if sentence not in self.judging.notes:
            self.judging.notes.append(sentence)

    def _twice(self, whole: dict[str, Array]) -> None:
        again = self._call(self.data)
        if not same_bits({"y": _end(again)}, {"y": _end(whole)}):
            self._note("two runs on the same input differ in their bits: not deterministic")
            if again["y"].ndim == whole["y"].ndim:
                self.judging.add("again", again, self.data)

    def _row_by_row(self, whole: dict[str, Array]) -> None:
        """The rows in another order, and the last one alone."""
        given = self.data
        B = len(given.x)
        for title, rows in (
            ("rows reversed", slice(None, None, -1)),
            ("last row alone", slice(B - 1, B)),
        ):
            if B < 2:
                return
            state = None if given.state is None else [part[rows] for part in given.state]
            mask = None if given.mask is None else given.mask[rows]
            data = Data(given.x[rows], state, mask)
            arrays = self._call(data)
            if not same_bits({"y": _end(arrays)}, {"y": np.ascontiguousarray(_end(whole)[rows])}):
                self._note(f"{title}: other bits than in the whole batch")
            self.judging.add(title, arrays, data)

    def _in_chunks(self, sizes: Sequence[int], whole: dict[str, Array]) -> None:
        lengths = [n for n in sizes if n]
        title = (
            f"in chunks of {', '.join(map(str, lengths[:6]))}{', ...' if len(lengths) > 6 else ''}"
        )
        part = self.what.parts[0]
        if len(self.what.parts) > 1:
            return self._note("not run in chunks: one half runs backwards")
        if not self.takes_state or any(name not in whole for name in part.states):
            return self._note(
                "not run in chunks: the candidate takes no initial_state, or returns no"
                f" {' and '.join(part.states)}"
            )
        B, T, H = whole["y"].shape
        calls, state = np.zeros(T, bool), self.data.state
        over_time = {name: np.full((B, T, H), np.nan) for name in part.states}
        ys, arrays, done = [], whole, 0
        for piece in cutting.pieces(T, sizes, part.backwards):
            length = piece.stop - piece.start
            if not length:
                continue
            arrays = self._call(self.data.steps(piece)._replace(state=state))
            state = [arrays[name] for name in part.states]
            calls[done] = True
            done += length
            ys.append(arrays["y"] if arrays["y"].ndim > 2 else arrays["y"][:, None])
            for name in part.states:
                over_time[name][:, done - 1] = arrays[name]
        if not ys:
            return None
        joined = {"y": np.concatenate(ys, axis=1)}
        shown = in_time(
            self.data.mask, part.backwards
        )  # a masked step's output depends on the call
        shown = np.ones((B, T), bool) if shown is None else shown
        if not same_bits({"y": joined["y"][shown]}, {"y": whole["y"][shown]}):
            self._note(f"{title}: other bits than whole")
        joined |= {f"{name}s": array for name, array in over_time.items()}
        joined |= {name: arrays[name] for name in part.states}
        self.judging.add(title, joined, self.data, calls)
        return None

    def _probes(self) -> None:
        """One feature at a time from no state, one unit of h at a time without input, large inputs.

        The first read every weight, the last the ends of the activations.
        """
        F = self.what.features
        widths = [part.units for part in self.what.parts for _ in part.states]
        hs = [
            k for k, name in enumerate(n for p in self.what.parts for n in p.states) if name == "h"
        ]
        single = F + (max(widths) if self.takes_state else 0)
        if single > PROBES:
            return self._note(f"not probed: {single} weights a unit, more than {PROBES}")
        rows = single + LARGE
        x = np.zeros((rows, 1, F), self.data.x.dtype)
        x[:F, 0] = np.eye(F)
        x[single:, 0] = np.random.default_rng(F).normal(0, 8, (LARGE, F))
        state = None
        if self.takes_state:
            state = [np.zeros((rows, width), self.data.x.dtype) for width in widths]
            for k in hs:
                state[k][F : F + widths[k]] = np.eye(widths[k])
        for title, sign in (("probes", 1), ("probes of -1", -1)):  # a relu shows one of the two
            signed = None if state is None else [sign * part for part in state]
            data = Data(sign * x, signed)
            self.judging.add(title, self._call(data), data)
        return None


def _end(arrays: Mapping[str, Array]) -> Array:
    """The last output, which is seen of every candidate."""
    y = arrays["y"]
    return np.ascontiguousarray(y[:, -1] if y.ndim > 2 and y.shape[1] else y)


def _takes(candidate: Implementation, keyword: str) -> bool:
    """Whether a call may have that keyword; a candidate that does not tell is believed to."""
    plain = inspect.isroutine(candidate) or isinstance(candidate, partial)
    function = candidate if plain else type(candidate).__call__  # a layer's own signature is new's
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.name == keyword or p.kind is p.VAR_KEYWORD for p in parameters)
