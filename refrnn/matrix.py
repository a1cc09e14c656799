"""refrnn and every oracle on the same cases: who agrees with whom, and where they differ.

`refrnn verify --matrix`. Each is judged by its own steps; the largest difference of a pair is told,
and not judged: rounding grows along a sequence.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from itertools import combinations
from string import ascii_uppercase
from typing import Any, NamedTuple

from refrnn.cases import Case
from refrnn.commands import CannotJudge
from refrnn.gates import Array
from refrnn.jobs import Job
from refrnn.oracles.differences import DIFFERENCES, Measured
from refrnn.oracles.table import ORACLES
from refrnn.panel import CASES, Panel
from refrnn.verify import PRECISIONS, Run, chunks
from refrnn.verify.compare import Mismatch, largest_difference
from refrnn.verify.subject import subject
from refrnn.verify.whole import plain

DTYPES = ("float64", "float32")
HIDDEN = ("modules", "npm")  # of a difference: what its program needs
OWN = {"refrnn": "auto", "refrnn numpy": "numpy"}  # title -> engine


class Pair(NamedTuple):
    """Two on the cases that both do: how many, and the largest difference (relative)."""

    cases: int
    difference: float


@dataclass
class Matrix:
    """What was found.

    titles   refrnn's engines, then each way to run each oracle
    margins  by title and dtype: the worst |error| / bound of a step, case by case
    fits     by title and dtype: the finest arithmetic that all its steps are possible in, or ""
    pairs    by two titles and a dtype
    failed   what could not be run, or had other shapes, in words
    skipped  by title: how many cases it cannot do, by what it lacks
    known    the known differences, measured
    absent   oracles and known differences that were left out, by what is not installed
    """

    versions: dict[str, str]
    device: str
    titles: list[str]
    margins: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    fits: dict[tuple[str, str], str] = field(default_factory=dict)
    pairs: dict[tuple[str, str, str], Pair] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, dict[str, int]] = field(default_factory=dict)
    known: list[Measured] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def agrees(self) -> bool:
        """All are within the envelopes of the dtypes that they claim."""
        worst = [margin for margins in self.margins.values() for margin in margins]
        return bool(worst) and max(worst) <= 1 and not self.failed

    def __str__(self) -> str:
        """Tables in Markdown."""
        letters = dict(zip(self.titles, ascii_uppercase, strict=False))
        first = [
            [letters[title], title, *(self._judged(title, dtype) for dtype in DTYPES),
             ", ".join(f"{n} {what}" for what, n in self.skipped.get(title, {}).items())]
            for title in self.titles
        ]  # fmt: skip
        grid = [
            [f"{letters[a]} {a}", *(self._pair(a, b) for b in self.titles)] for a in self.titles
        ]
        known = [
            [m.difference.who, m.difference.what, m.difference.kind,
             m.error or f"{m.found:.4g}", "" if m.error else f"{m.expected:.4g}",
             "yes" if m.there else "no longer"]
            for m in self.known
        ]  # fmt: skip
        said = [
            _table(["", "", *(f"{d}: cases, worst step" for d in DTYPES), "cannot do"], first),
            "Largest relative difference; above the diagonal in float32, below it in float64. A `!`"
            " marks those of which one leaves its envelope.",
            _table(["", *(letters[title] for title in self.titles)], grid),
            _table(["library", "known difference", "", "found", "expected", "here"], known),
            *(
                f"{d.who}: {d.what}\n\n```{d.language}\n{d.program}\n```"
                for d in (m.difference for m in self.known)
            ),
            *self.failed,
            *self.absent,
            self.quote(),
        ]
        return "\n\n".join(part for part in said if part)

    def _judged(self, title: str, dtype: str) -> str:
        margins = self.margins.get((title, dtype))
        if not margins:
            return "-"
        finest = self.fits[title, dtype]
        beside = "" if finest == dtype else f" DIFFERS, fits {finest or 'no precision'}"
        return f"{len(margins)}, {max(margins):.2f} of the bound{beside}"

    def _pair(self, a: str, b: str) -> str:
        above = self.titles.index(a) < self.titles.index(b)
        first, second, dtype = (a, b, "float32") if above else (b, a, "float64")
        found = self.pairs.get((first, second, dtype))
        if found is None:
            return ""
        wrong = any(max(self.margins[title, dtype], default=0) > 1 for title in (a, b))
        return f"{found.difference:.0e}" + " !" * wrong

    def quote(self) -> str:
        verdict = "all agree" if self.agrees else "NOT ALL AGREE"
        others = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        there = sum(m.there for m in self.known)
        return (
            f"{verdict}: {len(self.titles)} ways to run {len(CASES)} cases, each by its steps;"
            f" {there} of {len(self.known)} known differences seen here; {self.device}; {others};"
            f" {self.seconds:.0f} s"
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "verdict": "agrees" if self.agrees else "differs",
            "versions": self.versions,
            "device": self.device,
            "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 1),
            "quote": self.quote(),
            "ways": [
                {
                    "name": title,
                    "skipped": self.skipped.get(title, {}),
                    **{
                        dtype: {
                            "cases": len(margins),
                            "margin": plain(max(margins)),
                            "fits": self.fits[title, dtype],
                        }
                        for dtype in DTYPES
                        if (margins := self.margins.get((title, dtype)))
                    },
                }
                for title in self.titles
            ],
            "pairs": [
                {"a": a, "b": b, "dtype": dtype, "cases": pair.cases,
                 "difference": plain(pair.difference)}
                for (a, b, dtype), pair in self.pairs.items()
            ],
            "known": [
                {
                    **{k: v for k, v in m.difference._asdict().items() if k not in HIDDEN},
                    "found": plain(m.found),
                    "expected": plain(m.expected),
                    "error": m.error,
                    "there": m.there,
                }
                for m in self.known
            ],
            "failed": self.failed,
            "absent": self.absent,
        }  # fmt: skip


class Measuring:
    """A matrix in the making: its jobs fill it."""

    def __init__(self, wanted: Sequence[str] | None, versions: dict[str, str], device: str) -> None:
        """wanted: names of oracles, or None for all that are installed."""
        listed = list(ORACLES) if wanted is None else wanted
        installed = [name for name in listed if wanted or not ORACLES[name].missing]
        self.panel = Panel(installed)
        titles = [*OWN, *(title for title, *_ in self.panel.ways())]
        self.matrix = Matrix(versions | self.panel.versions(), device, titles)
        for name in listed:
            if name not in installed:
                self._absent(ORACLES[name].title, ORACLES[name].missing)
        self._runs: dict[tuple[str, str], list[Run]] = defaultdict(list)

    def jobs(self) -> list[Job]:
        cases: list[Job] = [partial(self._case, case) for case in CASES]
        return [*cases, self._settle, *(partial(self._known, d) for d in DIFFERENCES)]

    def _absent(self, what: str, missing: list[str]) -> None:
        self.matrix.absent.append(f"left out, {' and '.join(missing)} not installed: {what}")

    def _case(self, case: Case) -> list[Any]:
        arrays, layer = case.arrays(), case.build()
        what = subject(layer)
        tasks = what.tasks(arrays.x, arrays.state, arrays.mask)
        asked: dict[str, Any] = {
            title: partial(chunks.layer_whole, case.build(engine=engine), arrays)
            for title, engine in OWN.items()
        }
        found: dict[str, dict[str, Array]] = {}
        for title, ask in {**asked, **self.panel.able(case)}.items():
            try:
                found[title] = dict(ask())
                run = Run(
                    "whole", what.parts, tasks, what.seen(found[title]), PRECISIONS[case.dtype]
                )
                self.matrix.margins[title, case.dtype].append(max(run.margins.values()))
            except (CannotJudge, ValueError) as error:
                self.matrix.failed.append(str(error))
                found.pop(title, None)
                continue
            self._runs[title, case.dtype].append(run)
        for a, b in combinations(found, 2):
            self._pair(a, b, case, found)
        return []

    def _pair(self, a: str, b: str, case: Case, found: dict[str, dict[str, Array]]) -> None:
        try:
            error = largest_difference(found[a], found[b]).error
        except Mismatch as mismatch:
            self.matrix.failed.append(f"{case}: {a} and {b}: {mismatch}")
            error = float("inf")
        before = self.matrix.pairs.get((a, b, case.dtype), Pair(0, 0.0))
        pair = Pair(before.cases + 1, max(before.difference, error))
        self.matrix.pairs[a, b, case.dtype] = pair

    def _settle(self) -> list[Any]:
        """The finest precision that every run of a way fits; what it lacks."""
        for (title, dtype), runs in self._runs.items():
            names = [dtype, *(name for name in PRECISIONS if name not in DTYPES)]
            self.matrix.fits[title, dtype] = next(
                (n for n in names if not any(r.under(PRECISIONS[n]).broken for r in runs)), ""
            )
        self._runs.clear()
        self.matrix.skipped = {t: dict(lacks) for t, lacks in self.panel.skipped.items()}
        return []

    def _known(self, difference: Any) -> list[Any]:
        if difference.missing:
            self._absent(f"{difference.who}: {difference.what}", difference.missing)
        else:
            self.matrix.known.append(difference.measure())
        return []


def _table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown with aligned columns; "" without rows."""
    if not rows:
        return ""
    widths = [max(3, *(len(row[k]) for row in [head, *rows])) for k in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )
