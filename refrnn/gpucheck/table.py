"""What `refrnn gpucheck` found: a table for a person, JSON for a program, and the exit status."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from refrnn.commands import AGREES as ALL_AGREE
from refrnn.commands import DIFFERS as SOME_DIFFER
from refrnn.commands import UNJUDGED
from refrnn.gpucheck.judging import AGREES, DIFFERS, REACHED, REFUSED, UNPROVEN, Row
from refrnn.oracles.cudnn.fronts import FRONTS

HEAD = (
    "front", "layer", "cases", "cuDNN proven", "algorithm", "asked", "read back", "measured",
    "whole", "chunked", "of the bound", "verdict",
)  # fmt: skip
WORST = (DIFFERS, REACHED, UNPROVEN, REFUSED, AGREES)  # the verdict of a line: the first it has


@dataclass
class Report:
    """The rows, and what could not be run.

    fronts     those that were asked for
    required   those whose absence is a failure
    rows       one for each work that was run
    missing    by "front, precision": which step was missing
    gpu        what nvidia-smi says of it
    versions   by front end, of what was loaded
    recorded   the files that were written, and why others were not
    unwritten  why a file could not be written, "" where all were
    """

    fronts: Sequence[str]
    required: Sequence[str]
    rows: Sequence[Row]
    missing: Mapping[tuple[str, str], str]
    gpu: str = ""
    versions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    recorded: Sequence[str] = ()
    unwritten: str = ""
    seconds: float = 0.0

    @property
    def proven(self) -> list[str]:
        """The front ends of which at least one work was computed by cuDNN."""
        return [
            name for name in self.fronts if any(r.front == name and r.proven for r in self.rows)
        ]

    @property
    def failures(self) -> list[str]:
        """What makes the exit status 1, in words."""
        count = Counter(row.verdict for row in self.rows)
        words = {
            DIFFERS: "differ from the reference",
            UNPROVEN: "were not proven to be computed by cuDNN",
            REACHED: "reached cuDNN and must not",
        }
        found = [f"{count[verdict]} {words[verdict]}" for verdict in words if count[verdict]]
        lacking = [name for name in self.required if name not in self.proven]
        if lacking:
            found.append(f"required and not proven: {', '.join(lacking)}")
        failed = Counter(
            row.front for row in self.rows if row.verdict == REFUSED and not row.unsupported
        )
        found += [f"{count} of {name} failed: see the notes" for name, count in failed.items()]
        refused = Counter(row.front for row in self.rows if row.unsupported)
        for name in self.required:
            if refused[name]:
                found.append(f"required and refused: {refused[name]} of {name}")
            partly = sorted({p for front, p in self.missing if front == name})
            if name in self.proven and partly:
                found.append(f"required and not run: {name} in {', '.join(partly)}")
        return found

    @property
    def status(self) -> int:
        """0: agrees; 1: differs, or what was required is not proven; 2: nothing was judged."""
        if self.failures:
            return SOME_DIFFER
        return ALL_AGREE if self.proven else UNJUDGED

    def to_dict(self) -> dict[str, Any]:
        verdicts = {ALL_AGREE: "agrees", SOME_DIFFER: "differs", UNJUDGED: "not judged"}
        return {
            "verdict": verdicts[self.status],
            "failures": self.failures,
            "gpu": self.gpu,
            "fronts": list(self.fronts),
            "required": list(self.required),
            "proven": self.proven,
            "versions": self.versions,
            "missing": [
                {"front": front, "precision": precision, "why": why}
                for (front, precision), why in self.missing.items()
            ],
            "recorded": list(self.recorded),
            "seconds": round(self.seconds, 1),
            "rows": [row.to_dict() | {"proven": row.proven} for row in self.rows],
        }

    def __str__(self) -> str:
        parts = [self.table()] if self.rows else []
        parts += [part for part in (self.notes(), self.absences()) if part]
        if self.recorded:
            parts.append("\n".join(self.recorded))
        return "\n\n".join([*parts, self.summary()])

    def table(self) -> str:
        """A line for each front end, layer and precision, the worst of its works."""
        groups: dict[tuple[str, ...], list[Row]] = {}
        for row in self.rows:
            groups.setdefault((row.front, row.layer, row.asked, str(row.on_cudnn)), []).append(row)
        lines = [HEAD, *(_line(group) for group in groups.values())]
        widths = [max(len(line[k]) for line in lines) for k in range(len(HEAD))]
        text = [
            "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        rule = "  ".join("-" * width for width in widths)
        return "\n".join([text[0], rule, *text[1:]])

    def notes(self) -> str:
        """What is odd, or differs: equal things of one front end and precision once."""
        found: dict[tuple[str, str, str], list[Row]] = {}
        for row in self.rows:
            for note in row.notes:
                found.setdefault((row.front, row.asked, note), []).append(row)
        lines = []
        for (front, asked, note), rows in found.items():
            more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
            lines.append(f"{front}, {asked}: {rows[0].work}{more}: {note}")
        unsteady = [row for row in self.rows if row.same_bits is False]
        for front, count in Counter(row.front for row in unsteady).items():
            lines.append(f"{front}: {count} not repeated with the same bits")
        return "\n".join(lines)

    def absences(self) -> str:
        """Which step was missing, a line for each front end and reason."""
        found: dict[tuple[str, str], list[str]] = {}
        for (front, precision), why in self.missing.items():
            found.setdefault((front, why), []).append(precision)
        lines = []
        for (front, why), precisions in found.items():
            whole = set(precisions) == set(FRONTS[front].precisions)
            where = "" if whole else f" in {', '.join(precisions)}"
            told = "" if "not installed" in why else f" ({FRONTS[front].installed()})"
            lines.append(f"not run: {front}{where}, {FRONTS[front].title}{told}: {why}")
        return "\n".join(lines)

    def summary(self) -> str:
        cases = f"{sum(row.proven for row in self.rows)} cases computed by cuDNN"
        if self.status == UNJUDGED:
            return "not judged: cuDNN did not compute anything here, by any front end"
        where = "; ".join([self.gpu] * bool(self.gpu) + [f"{self.seconds:.0f} s"])
        if self.failures:
            return f"FAILS: {'; '.join(self.failures)}; {cases}; {where}"
        return f"agrees: {', '.join(self.proven)}; {cases}; {where}"


def _line(rows: Sequence[Row]) -> tuple[str, ...]:
    first = rows[0]
    verdict = next(v for v in WORST if any(row.verdict == v for row in rows))
    proven = sum(row.proven for row in rows)
    if not first.on_cudnn:
        shown = "none, as it must be" if verdict == AGREES else "-"
    else:
        shown = f"{proven} of {len(rows)}"
    algorithms = dict.fromkeys(
        f"{row.proof['algorithm']} {row.proof['math']}" for row in rows if row.proof
    )
    measured = Counter(row.measured for row in rows if row.measured)
    return (
        first.front,
        first.layer,
        str(len(rows)),
        shown,
        ", ".join(algorithms) or "-",
        first.asked,
        str(next(iter(first.read_back.values()), "-")),
        ", ".join(measured) or "-",
        _worst(row.whole for row in rows),
        _worst(row.chunked for row in rows),
        _worst((row.margin for row in rows), ".2g"),
        verdict,
    )


def _worst(values: Any, form: str = ".1e") -> str:
    known = [value for value in values if value is not None]
    return f"{max(known):{form}}" if known else "-"
