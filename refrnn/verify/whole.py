"""Reports for machines, and on disk: whole, or not there."""

import os
from typing import Any

import numpy as np

from refrnn.files.atomic import replacing


def write(path: "str | os.PathLike[str]", text: str) -> None:
    """All of a text file, or nothing; see `replacing`."""
    with replacing(path) as stream:
        stream.write(text.encode())


def plain(value: Any) -> Any:
    """Values as JSON has them: lists for arrays and tuples, None for infinities and NaN."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
