"""Which wrong implementations does a test, or a set of recorded vectors, let pass?

A test that nothing fails proves nothing. Here it is run on every mutant of `MUTANTS`, after the
right implementation, which it has to let pass.
"""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refrnn import checks
from refrnn.cases import Case
from refrnn.cells import Weights
from refrnn.gates import Array
from refrnn.verify.freerun import free_run
from refrnn.verify.mutants import KINDS, MUTANTS, Engine, Implementation, Mutant
from refrnn.verify.mutants.battery import Run, battery, called, distinct, equivalent, margin
from refrnn.verify.precisions import PRECISIONS
from refrnn.verify.subject import Part, Subject, subject
from refrnn.verify.whole import plain

Test = Callable[[Implementation, Any], Any]
Make = Callable[[Part], Implementation]
REQUIRED = ("cell", "kernel", "recurrent_kernel", "x", "y")
OPTIONAL = ("bias", "h0", "c0", "mask", "h", "c")


@dataclass(frozen=True)
class Outcome:
    """One mutant of one layer, and what became of it.

    verdict  "caught"; "survived"; "equivalent": equal to the right one in every bit, so none
    note     of a survivor: what would show it
    margins  of vectors: by each vector's name, the error over what correct rounding may make
    """

    mutant: str
    kind: str
    cell: str
    verdict: str
    wrong: str
    issue: str = ""
    note: str = ""
    margins: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Grade:
    """What a test is worth.

    outcomes      one for each mutant and layer; empty after a false alarm
    false_alarms  what was refused though it is right: then nothing counts
    """

    outcomes: tuple[Outcome, ...] = ()
    false_alarms: tuple[str, ...] = ()

    @property
    def killed(self) -> tuple[Outcome, ...]:
        return self._of("caught")

    @property
    def survived(self) -> tuple[Outcome, ...]:
        return self._of("survived")

    @property
    def equivalents(self) -> tuple[Outcome, ...]:
        return self._of("equivalent")

    def _of(self, verdict: str) -> tuple[Outcome, ...]:
        return tuple(o for o in self.outcomes if o.verdict == verdict)

    @property
    def score(self) -> float | None:
        """The share of mutants that were caught; None where nothing counts."""
        tried = len(self.killed) + len(self.survived)
        return len(self.killed) / tried if tried else None

    def __str__(self) -> str:
        if self.false_alarms:
            head = "nothing counts, because the right implementation is refused:"
            return "\n".join([head, *(f"  {alarm}" for alarm in self.false_alarms)])
        if self.score is None:
            return "no mutant was tried"
        killed, tried = len(self.killed), len(self.killed) + len(self.survived)
        none = len(self.equivalents)
        lines = [
            f"{killed} of {tried} wrong implementations caught ({_percent(killed, tried)})"
            + (f"; {none} more differ in nothing here" if none else "")
        ]
        for kind in KINDS:
            of_kind = [o for o in (*self.killed, *self.survived) if o.kind == kind]
            caught = sum(o.verdict == "caught" for o in of_kind)
            if of_kind:
                share = _percent(caught, len(of_kind))
                lines.append(f"  {kind:<10}  {caught:>3} of {len(of_kind):>3}  {share:>7}")
        if self.survived:
            lines += ["let pass:", *_grouped(self.survived)]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: no infinities, which are written as None."""
        return {
            "verdict": "false alarm" if self.false_alarms else "graded",
            "false_alarms": list(self.false_alarms),
            "score": self.score,
            "killed": len(self.killed),
            "survived": len(self.survived),
            "equivalent": len(self.equivalents),
            "outcomes": [
                asdict(o) | {"margins": {n: plain(m) for n, m in o.margins.items()}}
                for o in self.outcomes
            ],
        }


def grade(test: Test, references: Any = None) -> Grade:
    """Run a test on every wrong implementation of some layers.

    test        test(implementation, layer) -> raises, or returns False, where it notices a
                difference; implementation(x, initial_state=None, mask=None) -> (y, h) or
                (y, h, c), with y (B, T, H), the states after the last step
    references  a layer, or a list of them: anything that `check` takes for a reference; None for
                SimpleRNN, LSTM and both GRUs of 5 features and 7 units in float32

    A test that refuses the right implementation with an AssertionError or False raises a false
    alarm, and nothing counts. Any other exception of its own there is passed on.
    """
    layers = [case.build() for case in _CASES] if references is None else _listed(references)
    subjects = [subject(layer) for layer in layers]
    alarms = []
    for layer, judged in zip(layers, subjects, strict=True):
        try:
            refused = _says_no(test(_whole(judged, Engine().implementation), layer))
            reason = "returned False"
        except AssertionError as error:
            refused, reason = True, (str(error).splitlines() or ["AssertionError"])[0]
        if refused:
            alarms.append(f"{_name(judged)}: {reason}")
    if alarms:
        return Grade(false_alarms=tuple(alarms))
    outcomes = []
    for layer, judged in zip(layers, subjects, strict=True):
        for mutant in MUTANTS.values():
            if not all(mutant.applies(part) for part in judged.parts):
                continue
            if all(equivalent(mutant, part) for part in judged.parts):
                outcomes.append(_outcome(mutant, _name(judged), "equivalent"))
            elif _notices(test, _whole(judged, mutant.make), layer):
                outcomes.append(_outcome(mutant, _name(judged), "caught"))
            else:
                hint = _hint(mutant, judged.parts[0])
                outcomes.append(_outcome(mutant, _name(judged), "survived", hint))
    return Grade(tuple(outcomes))


def _grouped(survived: Sequence[Outcome]) -> list[str]:
    """A paragraph for each mutant, with the layers that it was made of."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in survived:
        groups.setdefault(outcome.mutant, []).append(outcome)
    lines = []
    for name, own in groups.items():
        cells = ", ".join(outcome.cell for outcome in own)
        origin = f", as in {own[0].issue}" if own[0].issue else ""
        lines.append(f"  {name} ({cells}): {own[0].wrong}{origin}")
        lines.append(f"      {own[0].note}")
    return lines


def _listed(references: Any) -> list[Any]:
    """A list of references; (cell, Weights) is one of them, not two."""
    pair = isinstance(references, tuple) and len(references) == 2
    if isinstance(references, Sequence) and not pair:
        if not references:
            raise ValueError("references is empty, expected at least one layer, or None")
        return list(references)
    return [references]


def _says_no(answer: Any) -> bool:
    return isinstance(answer, bool | np.bool_) and not answer


def _notices(test: Test, implementation: Implementation, layer: Any) -> bool:
    try:
        return _says_no(test(implementation, layer))
    except Exception:
        return True


def _name(judged: Subject) -> str:
    name = judged.parts[0].cell.name
    return name if len(judged.parts) == 1 else f"bidirectional {name}"


def _outcome(mutant: Mutant, cell: str, verdict: str, note: str = "") -> Outcome:
    return Outcome(mutant.name, mutant.kind, cell, verdict, mutant.wrong, mutant.issue, note)


def _whole(judged: Subject, make: Make) -> Implementation:
    """One implementation of all parts: the outputs side by side, the states one after another."""
    implementations = [make(part) for part in judged.parts]
    if len(implementations) == 1:
        return implementations[0]
    count = len(judged.parts[0].states)

    def run(x: Any, initial_state: Any = None, mask: Any = None) -> tuple[Array, ...]:
        results = []
        for k, implementation in enumerate(implementations):
            own = None if initial_state is None else initial_state[k * count : (k + 1) * count]
            results.append(implementation(x, own, mask))
        ys, states = [r[0] for r in results], [s for r in results for s in r[1:]]
        return np.concatenate(ys, axis=-1), *states

    return run


def _hint(mutant: Mutant, part: Part) -> str:
    """What would show a survivor."""
    runs = battery(part)
    if not distinct(mutant.make, part, runs):
        return "no input shows it with these weights and sizes, others would"
    implementation = mutant.make(part)
    for best in runs:
        if margin(part, best, called(implementation, best)) > 1:
            break
    else:
        return "with these weights it is smaller than rounding"
    B, T, _ = best.x.shape
    given = [name for name, a in (("states", best.state), ("a mask", best.mask)) if a is not None]
    return f"shown, for one, by {best.name!r}: B {B}, T {T}, {' and '.join(given) or 'no state'}"


_CASES = (
    Case("SimpleRNN", features=5, units=7, dtype="float32"),
    Case("LSTM", features=5, units=7, dtype="float32"),
    Case("GRU", features=5, units=7, dtype="float32"),
    Case("GRU", features=5, units=7, dtype="float32", options={"reset_after": False}),
)


# --- recorded vectors --------------------------------------------------------------------------


class Vector(NamedTuple):
    """A recorded run: a cell with its weights, what it was called with, what it gave.

    y  (B, T, H), or (B, H) where only the last output was recorded
    """

    name: str
    part: Part
    run: Run
    y: Array
    states: dict[str, Array]  # h and c, as far as recorded

    @property
    def recorded(self) -> dict[str, Array]:
        return {"y": self.y, **self.states}

    def shown_by(self, implementation: Implementation) -> dict[str, Array]:
        """What an implementation gives of that which was recorded."""
        outputs = called(implementation, self.run)
        found = dict(zip(("y", *self.part.states), outputs, strict=True))
        if self.y.ndim == 2:
            found["y"] = found["y"][:, -1]
        return {name: found[name] for name in self.recorded}

    def margin(self, outputs: Mapping[str, Array]) -> float:
        """The largest error of a run's outputs over what rounding may make of them.

        0 where only the last output was recorded and rounding decides that one.
        """
        if self.y.ndim == 3:
            return margin(self.part, self.run, outputs)
        (task,) = Subject(self.name, (self.part,)).tasks(*self.run[1:])
        free = free_run(task, PRECISIONS[self.part.weights.kernel.dtype.name])
        if not free.decidable[:, -1].all():
            return 0.0
        expected = {"y": (free.y[:, -1], free.bound[:, -1])}
        for name in self.states:
            expected[name] = getattr(free.state, name), getattr(free.bounds, name)
        return max(_ratio(got, *expected[name]) for name, got in outputs.items())


def _ratio(got: Array, want: Array, bound: Array) -> float:
    """The largest error over its bound; infinite for a number in the place of NaN."""
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(same, 0, np.abs(got - want) / bound)
    return float(np.max(np.where(np.isnan(ratio), np.inf, ratio), initial=0))


def grade_file(path: "str | Path") -> Grade:
    """`grade_vectors` of an .npz file. Raises ValueError for what is no such file."""
    try:
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array, expected an .npz archive of several")
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path}: cannot be read as vectors: {error}") from error
    try:
        return grade_vectors(arrays)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def grade_vectors(arrays: Mapping[str, Any]) -> Grade:
    """Which mutants give the recorded outputs too, but for rounding?

    arrays  kernel, recurrent_kernel, bias (none: zeros), x (B, T, F), y (B, T, H) or, of the last
            step only, (B, H); as far as there are any h0, c0, mask, h, c; and `cell`, a string, one
            of "simple", "lstm", "gru", "gru_reset_before". Several vectors are told apart by a
            prefix: "first/x", "second/x". What they share may stand above them: "kernel" beside
            "first/x", or "lstm/kernel" above "lstm/first/x".

    An implementation runs all vectors of the same weights one after another, in their order.

    Raises ValueError and TypeError for an array that is missing, unknown or of a wrong shape.
    """
    vectors = vectors_of(arrays)
    alarms = []
    for vector in vectors:
        found = vector.margin(vector.recorded)
        if not found <= 1:
            alarms.append(
                f"{vector.name or vector.part.cell.name}: the recorded outputs are not those of"
                f" {vector.part.cell.name}: off by {found:.3g} times what rounding may make"
            )
    if alarms:
        return Grade(false_alarms=tuple(alarms))
    by_cell: dict[str, list[Vector]] = {}
    for vector in vectors:
        by_cell.setdefault(vector.part.cell.name, []).append(vector)
    outcomes = []
    for cell, own in by_cell.items():
        for mutant in MUTANTS.values():
            if cell in mutant.cells:
                outcomes.append(_of_vectors(mutant, cell, own))
    return Grade(tuple(outcomes))


def _of_vectors(mutant: Mutant, cell: str, vectors: list[Vector]) -> Outcome:
    margins = certificate(mutant.make, vectors)
    if max(margins.values()) > 1:
        verdict, note = "caught", ""
    elif _is_none(mutant, cell):
        verdict, note = "equivalent", ""
    else:
        verdict, note = "survived", _hint(mutant, vectors[0].part)
    outcome = (mutant.name, mutant.kind, cell, verdict, mutant.wrong, mutant.issue, note)
    return Outcome(*outcome, margins=margins)


def certificate(make: Make, vectors: Sequence[Vector]) -> dict[str, float]:
    """The margin of each vector for one implementation; it is killed where one is above 1."""
    made: dict[Any, Implementation] = {}
    margins = {}
    for vector in vectors:
        key = (vector.part.cell.name, *(a.tobytes() for a in vector.part.weights))
        if key not in made:
            made[key] = make(vector.part)
        margins[vector.name] = vector.margin(vector.shown_by(made[key]))
    return margins


@cache
def _is_none(mutant: Mutant, cell: str) -> bool:
    """Whether the mutant is the right implementation for layers of an odd size."""
    case = next(c for c in _CASES if subject(c.build()).parts[0].cell.name == cell)
    return equivalent(mutant, subject(case.build()).parts[0])


def vectors_of(arrays: Mapping[str, Any]) -> list[Vector]:
    """The vectors among arrays called "kernel" or "name/kernel"; see `grade_vectors`."""
    groups: dict[str, dict[str, Any]] = {}
    for key, array in arrays.items():
        name, _, own = key.rpartition("/")
        groups.setdefault(name, {})[own] = array
    vectors = []
    for name, group in groups.items():
        if "x" in group:
            shared: dict[str, Any] = {}
            for parent in sorted((n for n in groups if name.startswith(f"{n}/")), key=len):
                shared |= groups[parent]
            vectors.append(_vector(name, groups.get("", {}) | shared | group))
    if not vectors:
        raise ValueError(f"there is no array x, expected {', '.join(REQUIRED)} for each vector")
    return vectors


def _vector(name: str, group: Mapping[str, Any]) -> Vector:
    where = f"vector {name!r}: " if name else ""
    for key in REQUIRED:
        if key not in group:
            raise ValueError(f"{where}{key} is missing, expected {', '.join(REQUIRED)}")
    for key in group:
        if key not in REQUIRED + OPTIONAL:
            raise ValueError(
                f"{where}{key!r} is not known, expected {', '.join(REQUIRED + OPTIONAL)}"
            )
    cell = checks.cell(str(np.asarray(group["cell"])))
    weights = checks.weights(
        cell, Weights(group["kernel"], group["recurrent_kernel"], group.get("bias"))
    )
    part = Part("", cell, weights)
    judged = Subject(where + cell.name, (part,))
    states = [f"{s}0" for s in part.states]
    given = [group[s] for s in states if s in group]
    if len(given) not in (0, len(states)):
        raise ValueError(f"{where}expected all of {', '.join(states)}, or none")
    mask = group.get("mask")
    (task,) = judged.tasks(group["x"], given or None, mask)
    B, T, _ = task.xs.shape
    recorded = {key: np.asarray(group[key]) for key in ("y", "h", "c") if key in group}
    recorded = judged.checked(recorded, B, T)
    y = recorded.pop("y")
    if T == 1 and y.ndim == 2:
        y = y[:, None]
    run = Run(name, task.xs, list(task.state) if given else None, task.mask)
    return Vector(name, part, run, y, recorded)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"
