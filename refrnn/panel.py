"""Several other implementations on the same cases: `refrnn verify --against NAMES`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from refrnn import verify
from refrnn.cases import Case
from refrnn.gates import Array
from refrnn.jobs import CannotJudge, Job, one_line
from refrnn.oracles import Unavailable
from refrnn.oracles.table import ORACLES, Way


def _cases() -> tuple[Case, ...]:
    """The family in both dtypes, because some libraries have one of them alone."""
    both = [replace(case, dtype=d) for case in verify.FAMILY for d in ("float64", "float32")]
    return tuple({(str(case), case.dtype): case for case in reversed(both)}.values())[::-1]


CASES = _cases()


def names(text: str) -> list[str]:
    """The oracles of a comma-separated list, or CannotJudge with those that there are."""
    listed = [name.strip() for name in text.split(",")]
    unknown = [name for name in listed if name not in ORACLES]
    if unknown:
        raise CannotJudge(
            f"--against {text}: {unknown[0]!r} is neither a file nor an oracle, expected some of"
            f" {', '.join(ORACLES)}, separated by commas"
        )
    return list(dict.fromkeys(listed))


class Panel:
    """The oracles, loaded.

    skipped  by oracle and way: how many cases it cannot do, by what it lacks

    Raises CannotJudge, saying what to install, where one is missing.
    """

    def __init__(self, wanted: Sequence[str]) -> None:
        self.oracles: dict[str, Any] = {}
        for name in wanted:
            try:
                self.oracles[name] = ORACLES[name].load()
            except Unavailable as error:
                raise CannotJudge(str(error)) from None
        self.skipped: dict[str, Counter[str]] = {title: Counter() for title, *_ in self.ways()}

    def ways(self) -> list[tuple[str, str, str, Way]]:
        """Each way to run each oracle: its title, the oracle, the way, what it can do."""
        return [
            (f"{name} {way}", name, way, limits)
            for name in self.oracles
            for way, limits in ORACLES[name].ways.items()
        ]

    def versions(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for oracle in self.oracles.values():
            found |= oracle.versions()
        return found

    def jobs(self, cuttings: Sequence[Sequence[int]] | None = None) -> list[Job]:
        """The cases, each to be judged against every oracle that can do it."""
        return [partial(self._judge, case, cuttings) for case in CASES]

    def able(self, case: Case) -> dict[str, Any]:
        """Who can do `case`, as functions without arguments; the others are counted as skipped."""
        found = {}
        for title, name, way, limits in self.ways():
            lacks = limits.lacks(case)
            if lacks is None:
                found[title] = partial(self._ask, title, name, way, case)
            else:
                self.skipped[title][lacks] += 1
        return found

    def _ask(self, title: str, name: str, way: str, case: Case) -> dict[str, Array]:
        try:
            return dict(self.oracles[name].run(case, way))
        except Exception as error:  # whatever the library raises
            raise CannotJudge(f"{case}: {title} cannot run it: {one_line(error)}") from error

    def _judge(self, case: Case, cuttings: Sequence[Sequence[int]] | None) -> list[verify.Row]:
        able = self.able(case)
        return verify.judge_case(case, able, cuttings) if able else []

    def skips(self) -> str:
        """A line for each way that could not do all."""
        lines = []
        for title, lacks in self.skipped.items():
            if lacks:
                what = ", ".join(f"{count} {name}" for name, count in lacks.items())
                lines.append(f"not done by {title}, {lacks.total()} of {len(CASES)}: {what}")
        return "\n".join(lines)
