"""What `refrnn verify` found: a table and a line to quote for a person, JSON for a program."""

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from refrnn.cells import CELLS
from refrnn.engines import chosen
from refrnn.verify.agreement import Row
from refrnn.verify.whole import plain, write
from refrnn.version import __version__


@dataclass
class Table:
    """The rows of a run, and where it ran.

    versions  name -> version of every library that took part
    device    what the oracles ran on, in words
    against   the libraries that refrnn was held against, in words
    skipped   by oracle: how many cases it could not do, by what it lacks
    """

    versions: dict[str, str]
    device: str
    rows: list[Row] = field(default_factory=list)
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    against: str = "TensorFlow"
    skipped: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def agrees(self) -> bool:
        return bool(self.rows) and all(row.agrees for row in self.rows)

    def table(self) -> str:
        """One line a case, the worst of all that agree; a line for each that differs."""
        head = ("case", "dtype", "against", "whole", "chunked", "of the bound", "verdict")
        lines = [head]
        for group in _grouped(self.rows):
            worst = max(group, key=lambda row: row.share)
            chunked = "-" if worst.chunked is None else f"{worst.chunked:.1e}"
            if worst.same_bits:
                chunked = "same bits"  # as whole, and so as far from the other
            against = _join([row.against for row in group])
            share = f"{worst.share:.2g}"
            share += f" of {worst.allowed:.0e}" if worst.margin is None else ""
            cells = (worst.case, worst.dtype, against, f"{worst.whole:.1e}", chunked)
            lines.append((*cells, share, worst.verdict))
        widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
        text = [
            "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        rule = "  ".join("-" * w for w in widths)
        notes = dict.fromkeys(
            f"{row.case}{'' if row.agrees else f' against {row.against}'}: {row.note}"
            for row in self.rows
            if row.note
        )
        return "\n".join([text[0], rule, *text[1:], *([""] if notes else []), *notes])

    def quote(self) -> str:
        """One sentence with versions, counts and the largest errors."""
        bad = sum(not row.agrees for row in self.rows)
        cases = _count(len({(row.case, row.dtype) for row in self.rows}), "case")
        worst: dict[str, float] = {}
        for row in self.rows:
            worst[row.dtype] = max(worst.get(row.dtype, 0.0), row.error)
        errors = ", ".join(f"{error:.1e} in {dtype}" for dtype, error in sorted(worst.items()))
        margins = [row.margin for row in self.rows if row.margin is not None]
        inside = f"largest step error {max(margins):.2g} of the bound, " if margins else ""
        verdict = "agrees with" if self.agrees else f"DIFFERS in {bad} of {len(self.rows)} from"
        chunked = [row for row in self.rows if row.chunked is not None]
        bits = sum(row.same_bits is True for row in chunked)
        others = ", ".join(f"{n} {v}" for n, v in self.versions.items() if n != "refrnn")
        return (
            f"refrnn {self.versions['refrnn']} {verdict} {self.against} on {self.device}: {cases},"
            f" {_count(len(self.rows), 'comparison')}, {len(chunked)} of them in chunks too"
            f" ({bits} with the same bits as whole); {inside}largest difference {errors}, relative"
            f" to the largest magnitude; {others}; {self.seconds:.0f} s"
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "verdict": "agrees" if self.agrees else "differs",
            "versions": self.versions,
            "device": self.device,
            "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 1),
            "warnings": self.warnings,
            "skipped": self.skipped,
            "quote": self.quote(),
            "rows": [plain(row.to_dict()) for row in self.rows],
        }

    def save(self, path: Path) -> None:
        """Write the report as JSON: all of it, or nothing. A device or pipe is written to."""
        write(path, json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")


def here() -> tuple[dict[str, str], str]:
    """Versions of what refrnn runs on, Numba only if it runs by default; the processor in words."""
    versions = {
        "refrnn": __version__,
        "NumPy": np.__version__,
        "Python": platform.python_version(),
    }
    if chosen("verify", "auto", CELLS["lstm"], np.dtype("float32")) == "numba":
        versions["Numba"] = metadata.version("numba")
    return versions, f"{_processor()} ({os.cpu_count()} cores, {platform.system()})"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _grouped(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of one case that agree, together; each that differs alone. In order."""
    groups: dict[Any, list[Row]] = {}
    for k, row in enumerate(rows):
        key = (row.case, row.dtype, "" if row.agrees else k)
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def _join(names: list[str]) -> str:
    """TF eager, TF function, TF XLA -> TF eager, function, XLA."""
    first, *others = names
    prefix = first.partition(" ")[0] + " "
    return ", ".join([first, *(name.removeprefix(prefix) for name in others)])
