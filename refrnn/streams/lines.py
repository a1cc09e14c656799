"""Lines of text as steps of sequences, and predictions as lines: CSV, spaces or JSON."""

import json
import math
from typing import Any, NamedTuple

import numpy as np

from refrnn.gates import Array


class BadLine(ValueError):
    """A line that is no step; the message says what is wrong with it."""


class Line(NamedTuple):
    """One step of one session.

    numbers  the features
    key      the session's, "" where there is only one
    form     how it was written: "csv", "spaces", "json" or "object"; the answer is written so too
    """

    numbers: list[float]
    key: str
    form: str


def parse(raw: bytes, features: int | None, key: str | None) -> Line | None:
    """A line as a step; None for an empty one.

    features  how many numbers there must be; None for any
    key       which column has the session's key, a number from 0, or its name in JSON objects;
              None where there is one session
    """
    try:
        text = raw.decode().strip()
    except UnicodeDecodeError:
        raise BadLine("is not text in UTF-8") from None
    if not text:
        return None
    form = {"[": "json", "{": "object"}.get(text[0], "csv" if "," in text else "spaces")
    fields: list[Any] = text.split()
    if form == "csv":
        fields = [word.strip() for word in text.split(",")]
    elif form != "spaces":
        fields = _json(text, key)
    session = "" if key is None else _taken(fields, "0" if form == "object" else key)
    numbers = [_number(field) for field in fields]
    if features is not None and len(numbers) != features:
        raise BadLine(f"has {len(numbers)} numbers, expected {features}, one for each feature")
    return Line(numbers, session, form)


def _json(text: str, key: str | None) -> list[Any]:
    """The fields of a JSON list; of an object the key, if one is asked for, and then its list."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadLine(f"is not JSON: {error}") from None
    if isinstance(found, list):
        return found
    lists = [value for value in found.values() if isinstance(value, list)]
    if len(lists) != 1 or (key is not None and key not in found):
        wanted = "one list of numbers" + (f" and {key!r}" if key is not None else "")
        raise BadLine(f"is an object with {', '.join(map(repr, found))}, expected {wanted}")
    return lists[0] if key is None else [found[key], *lists[0]]


def _taken(fields: list[Any], key: str) -> str:
    """The session's key, taken out of the fields."""
    if not key.isdecimal():
        raise BadLine(f"is no JSON object, expected one with {key!r}, because the key has a name")
    if int(key) >= len(fields):
        raise BadLine(f"has {len(fields)} columns, expected the key in column {key}")
    return str(fields.pop(int(key)))


def _number(field: Any) -> float:
    try:
        number = math.nan if isinstance(field, bool | None) else float(field)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise BadLine(f"has {field!r}, expected a finite number")
    return number


def answer(line: Line, prediction: Array, key: str | None) -> str:
    """A prediction as a line, in the form of the line that it answers, the key first."""
    words = [str(value) for value in prediction.ravel()]  # the shortest that read back the same
    if line.form == "csv":
        return ",".join(words if key is None else [line.key, *words])
    if line.form == "spaces":
        return " ".join(words if key is None else [line.key, *words])
    numbers = [None if word in ("nan", "inf", "-inf") else json.loads(word) for word in words]
    if line.form == "json":
        return json.dumps(numbers if key is None else [line.key, *numbers])
    return json.dumps({"y": numbers} if key is None else {key: line.key, "y": numbers})


def step_of(line: Line, ids: bool) -> Array:
    """The numbers as the step of one row; for ids (1,), else (1, F)."""
    return np.array(line.numbers[:1] if ids else [line.numbers])
