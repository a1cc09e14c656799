"""Other implementations, on the same cases or on a model: `refrnn verify --against NAMES`."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from refrnn import exports, inside, verify
from refrnn.cases import Arrays, Case
from refrnn.commands import CannotJudge
from refrnn.jobs import Job, guarded
from refrnn.oracles import Unavailable
from refrnn.oracles.table import ALIASES, ORACLES, Way
from refrnn.verify.agreement import Cuttings


def _cases() -> tuple[Case, ...]:
    """The family in both dtypes, because some libraries have one of them alone."""
    both = [replace(case, dtype=d) for case in verify.FAMILY for d in ("float64", "float32")]
    return tuple({(str(case), case.dtype): case for case in reversed(both)}.values())[::-1]


CASES = _cases()


def names(text: str) -> list[str]:
    """The oracles of a comma-separated list, or CannotJudge with those that there are."""
    unknown = [name for name in _listed(text) if name not in ORACLES]
    if unknown:
        raise CannotJudge(
            f"--against {text}: {unknown[0]!r} is neither a file nor an oracle, expected some of"
            f" {', '.join(ORACLES)}, separated by commas"
        )
    return list(dict.fromkeys(_listed(text)))


def are_names(text: str) -> bool:
    """Whether a text is a list of oracles."""
    return not set(_listed(text)) - set(ORACLES)


def _listed(text: str) -> list[str]:
    names = (name.strip() for name in text.split(","))
    return [ALIASES.get(name, name) for name in names]


class Panel:
    """The oracles, loaded.

    skipped  by oracle and way: how many cases it cannot do, by what it lacks
    asked    how many cases there were
    others   what of a model could not be asked, in words

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
        self.asked = 0
        self.others: list[str] = []

    def ways(self) -> list[tuple[str, str, str, Way]]:
        """Each way to run each oracle: its title, the oracle, the way, what it can do."""
        return [
            (f"{name} {way}", name, way, limits)
            for name in self.oracles
            for way, limits in ORACLES[name].ways.items()
        ]

    def compared(self, rows: Sequence[verify.Row]) -> str:
        """The oracles that rows are against, in words."""
        there = {row.against.partition(" ")[0] for row in rows}
        return " and ".join(ORACLES[name].title for name in self.oracles if name in there)

    def versions(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for oracle in self.oracles.values():
            found |= oracle.versions()
        return found

    def family(self, cuttings: Cuttings | None = None) -> list[Job]:
        """The cases, each to be judged against every oracle that can do it."""
        return [partial(self._judge, str(case), case, None, cuttings) for case in CASES]

    def file(self, path: Path, given: Path | None, cuttings: Cuttings | None = None) -> list[Job]:
        """A model's recurrent layers, one by one, and all of it where an oracle reads such files.

        given  its inputs, as `reading.inputs` reads them
        """
        source = exports.source(path, given)
        inner, self.others = inside.look(source.model, source.inputs)
        return [
            *(partial(self._whole, name, source, cuttings) for name in self.oracles),
            *(
                partial(
                    self._judge, f"{source.path.name}: {one.name}", one.case, one.arrays, cuttings
                )
                for one in inner
            ),
        ]

    def able(self, case: Case, arrays: Arrays | None = None) -> dict[str, Any]:
        """Who can do `case`, as functions without arguments; the others are counted as skipped."""
        self.asked += 1
        found: dict[str, Any] = {}
        for title, name, way, limits in self.ways():
            lacks = limits.lacks(case)
            if lacks is None:
                found[title] = partial(self.oracles[name].run, case, way, arrays)
            else:
                self.skipped[title][lacks] += 1
        return guarded(str(case), found)

    def _judge(
        self, title: str, case: Case, arrays: Arrays | None, cuttings: Cuttings | None
    ) -> list[verify.Row]:
        able = self.able(case, arrays)
        if not able:
            return []
        layer = case.build()
        if arrays is None:
            arrays = case.arrays()
        else:
            layer.set_weights(arrays.weights)
        return verify.judge_layer(title, layer, arrays, able, cuttings, case.seed)

    def _whole(
        self, name: str, source: exports.Source, cuttings: Cuttings | None
    ) -> list[verify.Row]:
        """All of a model, by an oracle that reads files of models."""
        suffix, what = ORACLES[name].file, source.path.name
        if not suffix:
            return []
        title = f"{name} {suffix}"
        dtypes = {layer.dtype.name for layer in source.model.every_layer() if layer.weights}
        if not dtypes <= set(ORACLES[name].dtypes):
            self.others.append(f"all of {what} by {title}: no {' and '.join(sorted(dtypes))}")
            return []
        with tempfile.TemporaryDirectory(prefix="refrnn-") as folder:
            try:
                ask = exports.asked(source, suffix, Path(folder), self.oracles[name].run_file)
            except ValueError as error:
                self.others.append(f"all of {what} by {title}: {error}")
                return []
            oracles = guarded(what, {title: ask})
            try:
                return verify.judge_model(what, source.model, source.inputs, oracles, cuttings)
            except CannotJudge as error:
                if source.is_file(suffix):  # its own, and so the library is what is asked for
                    raise
                self.others.append(f"{error}")
                return []

    def skips(self) -> str:
        """A line for each way that could not do all, and for what else was not asked."""
        lines = []
        for title, lacks in self.skipped.items():
            if lacks:
                what = ", ".join(f"{count} {name}" for name, count in lacks.items())
                lines.append(f"not done by {title}, {lacks.total()} of {self.asked}: {what}")
        return "\n".join([*lines, *(f"not compared: {what}" for what in self.others)])
