"""The rows of a stream: which numbers are in use, what they are called, how far each has come."""

import bisect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from refrnn import checks


class Rows:
    """Numbered rows, any of which may come and go.

    numbers  those in use, in order; a new row gets the lowest that is free
    names    the rows that have a name, by it
    steps    (capacity,) how many steps each has taken since it was new
    fresh    (capacity,) whether it is still new
    """

    def __init__(self, who: str) -> None:
        self.who = who
        self.numbers: list[int] = []
        self.names: dict[str, int] = {}
        self.steps, self.fresh = np.zeros(0, np.int64), np.ones(0, bool)
        self._named: dict[int, str] = {}
        self._all: Any = None  # what selects them, once it is asked for

    @property
    def capacity(self) -> int:
        return len(self.steps)

    @property
    def dense(self) -> bool:
        """Whether the numbers are 0, 1, 2, ... without a gap."""
        return not self.numbers or self.numbers[-1] == len(self.numbers) - 1

    def resize(self, capacity: int) -> None:
        more = max(0, capacity - self.capacity)
        self.steps = np.concatenate([self.steps[:capacity], np.zeros(more, np.int64)])
        self.fresh = np.concatenate([self.fresh[:capacity], np.ones(more, bool)])

    def set(self, numbers: Iterable[int], names: Mapping[str, int]) -> None:
        """Have these rows and no others."""
        self.numbers, self.names, self._all = list(numbers), dict(names), None
        self._named = {row: name for name, row in names.items()}

    def free(self, name: Any) -> int:
        """The number of a row to come, its name checked."""
        if name is not None and (not isinstance(name, str) or name in self.names):
            raise ValueError(f"{self.who}: name is {name!r}, expected a text that no row has yet")
        taken = self.numbers  # from the first gap on, each number is more than its place
        return bisect.bisect_left(range(len(taken)), True, key=lambda k: taken[k] > k)

    def add(self, row: int, name: str | None) -> None:
        bisect.insort(self.numbers, row)
        if name is not None:
            self.names[name], self._named[row] = row, name
        self._all = None

    def remove(self, row: int) -> None:
        del self.numbers[bisect.bisect_left(self.numbers, row)]
        if row in self._named:
            del self.names[self._named.pop(row)]
        self._all = None

    def chosen(self, given: Any) -> list[int]:
        """The numbers that a caller means: all for None; or numbers, or a truth value for each."""
        if given is None:
            return self.numbers
        found = np.atleast_1d(checks.array(self.who, "rows", given))
        if found.dtype == bool and found.shape == (len(self.numbers),):
            return [row for row, wanted in zip(self.numbers, found, strict=True) if wanted]
        if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
            raise ValueError(
                f"{self.who}: rows is {given!r}, expected numbers of rows, or"
                f" {len(self.numbers)} booleans, one for each row"
            )
        wanted = [int(row) for row in found]
        for row in wanted:
            k = bisect.bisect_left(self.numbers, row)
            if k == len(self.numbers) or self.numbers[k] != row:
                raise ValueError(
                    f"{self.who}: row {row} is not there, expected {self.said()}; join() gives"
                    " another"
                )
        if len(set(wanted)) != len(wanted):
            raise ValueError(
                f"{self.who}: rows is {said(wanted)}, expected each row once, because a row takes"
                " its steps one after another"
            )
        return wanted

    def index(self, chosen: list[int]) -> Any:
        """What selects the chosen rows of an array: a slice where that will do."""
        if chosen is not self.numbers:
            return np.asarray(chosen, np.intp)
        if self._all is None:
            self._all = slice(0, len(chosen)) if self.dense else np.asarray(chosen, np.intp)
        return self._all

    def said(self) -> str:
        return said(self.numbers)


def said(numbers: Sequence[int]) -> str:
    """Row numbers as a message has them."""
    if len(numbers) > 8:
        return f"{len(numbers)} rows, {numbers[0]} to {numbers[-1]}"
    return f"rows {list(numbers)}"
