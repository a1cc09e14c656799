"""The names that layers get where none is given: Keras's."""

import re
from collections import Counter

_counts: Counter[str] = Counter()


def snake_case(name: str) -> str:
    """LSTMCell -> lstm_cell, Conv1D -> conv1d: Keras's names for layers and their folders."""
    spaced = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", spaced).lower()


def unique_name(kind: str) -> str:
    """lstm, lstm_1, lstm_2, ..."""
    base = snake_case(kind)
    _counts[base] += 1
    return base if _counts[base] == 1 else f"{base}_{_counts[base] - 1}"
