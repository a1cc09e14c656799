"""Calls that release Python's lock, shared out among threads of this package's own.

Numba's threading layers are not used: the one that is always there may not be entered from two
threads at once, and none survives a fork.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_pool: ThreadPoolExecutor | None = None


def allowed(threads: int | None) -> int:
    """How many threads to use: `threads`, or what NUMBA_NUM_THREADS says, or one for each CPU."""
    if threads is None:
        import numba

        config: Any = numba.config  # its variables are made when it is imported
        threads = int(config.NUMBA_NUM_THREADS)
    return max(1, threads)


def together(function: Callable[..., None], calls: Sequence[tuple[Any, ...]]) -> None:
    """Make all the calls of `function` at once, the first in this thread; done when all are."""
    global _pool
    if len(calls) > 1 and _pool is None:
        _pool = ThreadPoolExecutor(thread_name_prefix="refrnn")
    others = [_pool.submit(function, *call) for call in calls[1:] if _pool]
    function(*calls[0])
    for other in others:
        other.result()


def _forget() -> None:
    """A forked process has none of its parent's threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
