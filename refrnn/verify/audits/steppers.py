"""Step callables of every kind in one form: begin anew, take a piece, come back to a moment.

The kinds are described in `audit`. What the callable raises, or returns that cannot be read as
outputs, is a `Trouble` here, whose text is fit for a reader.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from refrnn import checks
from refrnn.gates import Array

TAKES = ("chunks", "steps")
ROWS = 3  # where nothing says how many there are


class Trouble(Exception):
    """The callable raised, or returned what cannot be read."""


@contextmanager
def troubles(what: str) -> Iterator[None]:
    """An exception within is Trouble; what is no error, such as KeyboardInterrupt, goes through."""
    try:
        yield
    except Trouble:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or ["(without a message)"]
        raise Trouble(f"{what} raises {type(error).__name__}: {lines[0]}") from error


class Way(NamedTuple):
    """One way to call it: its name, whether it takes chunks (B, T, F) or a step (B, F)."""

    name: str
    call: Callable[..., Any]
    chunked: bool


class Stepper:
    """A callable and the rows that it is audited with.

    ways      how it can be called, the first for all but what is about another
    keywords  of mask, reset and rows those that the first way takes
    last      it returns the last output of a chunk alone; known after a first call
    calls     how often it was called
    """

    resets = False  # whether begin() is its own reset()
    replays = True  # whether there are save() and load()
    pure = False

    def __init__(self, who: str, ways: Sequence[Way], rows: int) -> None:
        self.who, self.ways, self.rows = who, list(ways), rows
        self.keywords = _keywords(ways[0].call, ("mask", "reset", "rows"))
        self.last = False
        self.calls = 0
        self._form: tuple[tuple[int, ...], np.dtype[Any]] | None = None

    @property
    def chunked(self) -> bool:
        return self.ways[0].chunked

    def begin(self) -> None:
        """Have it forget everything."""
        raise NotImplementedError

    def save(self) -> Any:
        """This moment, as the callable itself keeps it."""
        raise NotImplementedError

    def load(self, saved: Any) -> None:
        """Come back to a moment."""
        raise NotImplementedError

    def _called(self, way: Way, x: Array, keywords: dict[str, Any]) -> Any:
        """What it returns for outputs; the memory is advanced."""
        raise NotImplementedError

    def raw(self, x: Array, way: Way | None = None, **keywords: Any) -> Array:
        """One call: the outputs for x (B, T, F), or (B, F) where a step is taken, not copied."""
        way = way or self.ways[0]
        self.calls += 1
        with troubles(f"{way.name}(x) with x {x.shape}"):
            given = self._called(way, x, keywords)
        return self._checked(given, x, way)

    def _checked(self, given: Any, x: Array, way: Way) -> Array:
        what = f"{way.name}(x) with x {x.shape}"
        if isinstance(given, list | tuple | dict):
            raise Trouble(
                f"{what} returns {len(given)} things for outputs, expected one array; audit one"
                " output at a time"
            )
        with troubles(f"{what}, its output as an array,"):
            y = np.asarray(given)
        if not checks.is_float(y.dtype):
            raise Trouble(f"{what} returns outputs of dtype {y.dtype}, expected real numbers")
        leading = x.shape[: 2 if way.chunked else 1]
        alone = way.chunked and y.ndim == 2 and y.shape[0] == len(x)
        if not alone and (y.ndim < len(leading) + 1 or y.shape[: len(leading)] != leading):
            expected = f"({', '.join(map(str, leading))}, units)"
            expected += f", or ({len(x)}, units), the last" if way.chunked else ""
            raise Trouble(f"{what} returns outputs of shape {y.shape}, expected {expected}")
        form = y.shape[1 if alone else len(leading) :], y.dtype
        if self._form is None:
            self._form = form
            self.last = alone
        elif form != self._form or (way.chunked and alone != self.last):
            raise Trouble(
                f"{what} returns outputs of shape {y.shape} and dtype {y.dtype}, expected"
                f" {self._form[0]} numbers of {self._form[1]} a step, as in the first call"
            )
        return y

    def push(self, x: Array, **keywords: Any) -> Array:
        """Take a piece (B, T, F), in one call if it takes chunks; a copy of the outputs."""
        if self.chunked:
            return self.raw(x.copy(), **keywords).copy()
        return self.by_steps(x, self.ways[0])

    def by_steps(self, x: Array, way: Way) -> Array:
        """Take a piece in one call a step."""
        ys = [
            self.raw(x[:, t : t + 1].copy() if way.chunked else x[:, t].copy(), way).copy()
            for t in range(x.shape[1])
        ]
        return np.concatenate(ys, axis=1) if way.chunked and not self.last else np.stack(ys, axis=1)


class Pure(Stepper):
    """A function (x, state) -> (y, state)."""

    resets = pure = True

    def __init__(self, function: Callable[..., Any], takes: str, rows: int) -> None:
        name = getattr(function, "__name__", type(function).__name__)
        name = "step" if name == "<lambda>" else name
        super().__init__(name, [Way(name, function, takes == "chunks")], rows)
        self.keywords -= {"rows"}
        self.state: Any = None

    def begin(self) -> None:
        self.state = None

    def save(self) -> Any:
        return self.state

    def load(self, saved: Any) -> None:
        self.state = saved

    def _called(self, way: Way, x: Array, keywords: dict[str, Any]) -> Any:
        result = way.call(x, self.state, **keywords)
        if not isinstance(result, list | tuple) or len(result) != 2:
            raise Trouble(
                f"{way.name}(x, state) returns {_said(result)}, expected a pair: outputs, state"
            )
        y, self.state = result
        return y


class Remembering(Stepper):
    """An object with push(x) or step(x)."""

    def __init__(self, step: Any, rows: int) -> None:
        names = [name for name in ("push", "step") if callable(getattr(step, name, None))]
        super().__init__(
            getattr(step, "who", type(step).__name__),
            [Way(name, getattr(step, name), name == "push") for name in names],
            rows,
        )
        self.object = step
        self.names = list(step.rows) if isinstance(getattr(step, "rows", None), list) else None
        self.resets = self.has("reset")
        self.replays = self.has("snapshot") and self.has("restore")
        self._first: Any = None
        self._begun = False

    def has(self, name: str) -> bool:
        return callable(getattr(self.object, name, None))

    def named(self, rows: Sequence[int]) -> list[int]:
        """The numbers by which it calls rows."""
        return list(rows) if self.names is None else [self.names[row] for row in rows]

    def begin(self) -> None:
        if self.resets:
            with troubles("reset()"):
                self.object.reset()
        elif self._begun:
            self.load(self._first)
        else:
            self._first, self._begun = self.save(), True

    def reset_rows(self, rows: Sequence[int]) -> None:
        with troubles(f"reset(rows={list(rows)})"):
            self.object.reset(rows=self.named(rows))

    @property
    def resets_rows(self) -> bool:
        return self.resets and "rows" in _keywords(self.object.reset, ("rows",))

    def save(self) -> Any:
        with troubles("snapshot()"):
            return self.object.snapshot()

    def load(self, saved: Any) -> None:
        with troubles("restore(snapshot)"):
            self.object.restore(saved)

    def peek(self, x: Array) -> Array:
        way = Way("peek", self.object.peek, self.chunked)
        return self.raw(x.copy() if self.chunked else x[:, 0].copy(), way).copy()

    def _called(self, way: Way, x: Array, keywords: dict[str, Any]) -> Any:
        return way.call(x, **keywords)


def stepper(step: Any, takes: str, rows: Any) -> Stepper:
    """The callable in one form.

    Raises TypeError and ValueError for what is none of the kinds that `audit` describes.
    """
    forms = (
        "expected a function step(x, state) -> (y, state), or an object with push(x) or step(x)"
        " and reset()"
    )
    if takes not in TAKES:
        raise ValueError(f"audit: takes is {takes!r}, expected 'chunks' or 'steps'")
    if isinstance(step, type):
        raise TypeError(f"audit: step is the class {step.__name__}, expected an object of it")
    methods = [name for name in ("push", "step") if callable(getattr(step, name, None))]
    if methods:
        return Remembering(step, _row_count(step, methods, rows))
    if not callable(step):
        raise TypeError(f"audit: step is {_said(step)}, {forms}")
    try:
        inspect.signature(step).bind(None, None)
    except TypeError:
        raise TypeError(
            f"audit: step cannot be called with x and a state, {forms}; one that remembers by"
            " itself is wrapped: types.SimpleNamespace(push=..., reset=...)"
        ) from None
    except ValueError:
        pass  # a builtin that does not tell
    return Pure(step, takes, ROWS if rows is None else checks.count("audit", "rows", rows))


def _row_count(step: Any, methods: list[str], rows: Any) -> int:
    has = {n: callable(getattr(step, n, None)) for n in ("reset", "snapshot", "restore")}
    if not (has["reset"] or (has["snapshot"] and has["restore"])):
        raise ValueError(
            f"audit: step, {_said(step)}, has {methods[0]}() and no reset(), nor snapshot() and"
            " restore(), expected one of them, because each check begins anew"
        )
    own = getattr(step, "rows", None)
    count = len(own) if isinstance(own, list) else None
    if rows is not None:
        rows = checks.count("audit", "rows", rows)
    if count is not None and rows not in (None, count):
        raise ValueError(f"audit: rows is {rows}, expected {count}, because step has {count} rows")
    if count == 0:
        raise ValueError("audit: step has no rows, expected at least 1")
    return int(count or rows or ROWS)


def _keywords(function: Any, names: Sequence[str]) -> frozenset[str]:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return frozenset()
    return frozenset(names) & set(parameters)


def _said(thing: Any) -> str:
    """What a message calls an object."""
    return f"of type {type(thing).__name__}" if not isinstance(thing, str) else repr(thing)


def leaves(state: Any) -> list[Any]:
    """What a state of nested lists, tuples and dictionaries holds, in order; None holds nothing."""
    if isinstance(state, dict):
        return [leaf for part in state.values() for leaf in leaves(part)]
    if isinstance(state, list | tuple):
        return [leaf for part in state for leaf in leaves(part)]
    return [] if state is None else [state]


def zeros_like(state: Any) -> Any:
    """A state of the same structure with zeros; a TypeError for what has none."""
    if isinstance(state, dict):
        return type(state)({name: zeros_like(part) for name, part in state.items()})
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        return type(state)(*map(zeros_like, state))
    if isinstance(state, list | tuple):
        return type(state)(map(zeros_like, state))
    if state is None or isinstance(state, str | bytes):
        raise TypeError(f"a part of the state is {_said(state)}, which has no zero")
    return state * 0
