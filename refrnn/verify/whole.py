"""Reports for machines, and on disk: whole, or not there."""

import os
from pathlib import Path
from typing import Any

import numpy as np


def write(path: "str | os.PathLike[str]", text: str) -> None:
    """All of a file, or nothing: written beside it, then renamed. A device is written to."""
    target = Path(path).resolve()  # what a link points at, not the link
    if target.exists() and not (target.is_file() or target.is_dir()):
        target.write_text(text, encoding="utf-8")
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def plain(value: Any) -> Any:
    """Values as JSON has them: lists for arrays and tuples, None for infinities and NaN."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
