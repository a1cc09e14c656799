"""What is asked of a step callable: a table of checks, causes before what follows from them.

Each is a function of an `Auditor` that returns what held, in words, or raises `Failed` or
`Skipped`. What a check expects, it takes from a run that is cut in the same way wherever it can,
so that one mistake is found by one check.
"""

from collections.abc import Callable

from refrnn.verify.audits.auditor import SAME, Auditor, Failed, Skipped
from refrnn.verify.audits.borders import arguments, masked, nan_contained, returned
from refrnn.verify.audits.cuts import all_chunkings, causal, empty_chunks, long_run, step_is_push
from refrnn.verify.audits.memory import (
    begins_anew,
    determinism,
    first_call,
    parts_used,
    peeking,
    replay,
    right_numbers,
    state_used,
    zeros_are_none,
)
from refrnn.verify.audits.rows import batches, resets_inside, row_order, row_resets, rows_apart

__all__ = ["CHECKS", "FIRST", "SAME", "Auditor", "Failed", "Skipped"]

CHECKS: dict[str, Callable[[Auditor], str]] = {
    "first call": first_call,
    "determinism": determinism,
    "reset": begins_anew,
    "arguments": arguments,
    "returned arrays": returned,
    "state used": state_used,
    "parts used": parts_used,
    "causality": causal,
    "rows apart": rows_apart,
    "row order": row_order,
    "batches": batches,
    "chunks": all_chunkings,
    "long run": long_run,
    "empty chunks": empty_chunks,
    "step and push": step_is_push,
    "row resets": row_resets,
    "resets in a chunk": resets_inside,
    "replay": replay,
    "peek": peeking,
    "zeros and None": zeros_are_none,
    "reference": right_numbers,
    "NaN": nan_contained,
    "masks": masked,
}
FIRST = "first call", "determinism", "reset"  # where these fail, no other can be trusted
