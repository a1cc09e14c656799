"""Is a step callable right as a stream? Everything that can go wrong between two calls is tried.

What is audited is one of these, with B rows, F features, and T steps in a chunk:

    step(x, state) -> (y, state)   a function that remembers nothing by itself. The first state is
                                   None, then whatever it returned. x is a chunk (B, T, F), or
                                   with takes="steps" one step (B, F)
    object.push(x) -> y            a chunk (B, T, F)
    object.step(x) -> y            one step (B, F); an object may have both

y is (B, T, ...) for a chunk, or (B, ...) where only the last output is returned, and (B, ...) for
a step. An object needs `reset()`, or `snapshot()` and `restore(snapshot)`, and these are audited
too where they are offered, as are `peek(x)`, `reset(rows=[...])`, `push(x, rows=[...])`, and the
arguments `mask` (B, T) and `reset` (B, T) of a function or of push. `refrnn.Stream` fits as it is.
Anything else is wrapped:

    types.SimpleNamespace(push=keras_layer, reset=keras_layer.reset_state)    # stateful=True
    lambda x, state: session_step(x, blank(len(x)) if state is None else state)

An audit changes what an object remembers: give it one of its own.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from refrnn import checks
from refrnn.verify.audits import CHECKS, FIRST, SAME, Auditor, Failed, Skipped
from refrnn.verify.audits.steppers import Stepper, Trouble, stepper
from refrnn.verify.precisions import PRECISIONS
from refrnn.verify.subject import Subject, subject

HELD, FAILED, NOT_RUN = "held", "failed", "not run"


class Finding(NamedTuple):
    """What is wrong: the name of a check, and a sentence with the row, the step and the numbers."""

    name: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.name}: {self.sentence}"


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    who       how the callable calls itself
    findings  causes first: those further down are often consequences
    checks    check -> what held, of those that ran and held
    skipped   check -> why it was not run
    calls     how often the callable was called
    """

    who: str
    findings: tuple[Finding, ...]
    checks: dict[str, str]
    skipped: dict[str, str]
    calls: int

    @property
    def passed(self) -> bool:
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        found = asdict(self) | {"passed": self.passed}
        return found | {"findings": [f._asdict() for f in self.findings]}

    def __str__(self) -> str:
        ran = len(self.checks) + len(self.findings)
        count = f"{len(self.findings) or 'no'} finding{'s' * (len(self.findings) != 1)}"
        lines = [f"{self.who}: {count} in {ran} checks ({self.calls} calls)"]
        groups = {
            FAILED: {f.name: f.sentence for f in self.findings},
            HELD: self.checks,
            NOT_RUN: self.skipped,
        }
        for verdict, group in groups.items():
            lines += [f"  {verdict:8}{name:19}{sentence}" for name, sentence in group.items()]
        return "\n".join(lines)


def audit_stream(
    step: Any,
    reference: Any = None,
    *,
    features: int | None = None,
    rows: int | None = None,
    takes: str = "chunks",
    precision: str | None = None,
    skip: Sequence[str] = (),
    seed: int = 0,
) -> Audit:
    """Try everything that can go wrong with a callable that is fed piece by piece.

    step       what is audited; the module's docstring says what it may be
    reference  a built LSTM, GRU or SimpleRNN layer, a model of one, or a cell's name and
               `refrnn.Weights`: then the outputs are judged too, and a difference between two runs
               passes only within the envelope of rounding. None: what needs no reference is
               checked, and a difference passes as rounding where it is at most 16 times what a
               change of the inputs in the last place does
    features   F; needed, and allowed, without a reference only
    rows       B; None for what the object says in a list `rows`, or else 3. With one row the
               checks of rows are not run
    takes      "chunks", or "steps" for a function of x (B, F)
    precision  one of PRECISIONS; None for that of the outputs, or of the reference if coarser
    skip       names of CHECKS that are not to be run: what is by design
    seed       of the inputs, which are normal

    Returns an Audit. What the callable raises is a finding; KeyboardInterrupt and the like go
    through. Raises TypeError and ValueError for arguments that do not fit, before it is called.
    """
    held = None if reference is None else _streamable(subject(reference))
    if held is None and features is None:
        raise ValueError("audit: features is None, expected a number, as there is no reference")
    if held is not None and features is not None:
        raise ValueError(
            f"audit: features is {features}, expected None, because the reference has"
            f" {held.features}"
        )
    count = checks.count("audit", "features", features) if held is None else held.features
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(
            f"audit: precision is {precision!r}, expected one of {', '.join(map(repr, PRECISIONS))}"
        )
    unknown = [skip] if isinstance(skip, str) else [name for name in skip if name not in CHECKS]
    if unknown:
        raise ValueError(
            f"audit: skip has {unknown[0]!r}, expected a list of names among {', '.join(CHECKS)}"
        )
    chosen = checks.seed("audit", seed) or 0
    made = stepper(step, takes, rows)
    claimed = None if precision is None else PRECISIONS[precision]
    return _audited(made, Auditor(made, held, count, claimed, chosen), frozenset(skip))


def _streamable(held: Subject) -> Subject:
    part = held.parts[0]
    if len(held.parts) > 1 or part.backwards:
        raise ValueError(
            f"{held.who}: the reference runs backwards in time, expected one that runs forwards,"
            " because a stream has no end to begin from"
        )
    return held


def _audited(step: Stepper, auditor: Auditor, skip: frozenset[str]) -> Audit:
    findings: list[Finding] = []
    held: dict[str, str] = {}
    skipped: dict[str, str] = {}
    stopped = ""
    for name, check in CHECKS.items():
        if name in skip:
            skipped[name] = "as asked"
            continue
        if stopped or (name == "long run" and any(f.name == "chunks" for f in findings)):
            skipped[name] = stopped or "short runs in chunks differ already"
            continue
        auditor.closeness = SAME
        try:
            if name not in FIRST and not auditor.measured:
                auditor.measure()
            held[name] = check(auditor)
        except Skipped as reason:
            skipped[name] = str(reason)
        except (Failed, Trouble) as failure:
            findings.append(Finding(name, str(failure)))
            if name in FIRST:
                stopped = f"each check rests on {name!r}, which failed"
    return Audit(step.who, tuple(findings), held, skipped, step.calls)
