"""What cutting a sequence into chunks changes, which is nothing, and what losing the state does."""

import copy
from typing import Any, NamedTuple

import numpy as np

from refrnn.gates import Array
from refrnn.models import Model
from refrnn.study.recurrent import Seen


class Cut(NamedTuple):
    """A sequence run in chunks.

    length  of a chunk, in steps
    differ  how many numbers are of other bits than those of the whole run, the state handed over
    lost    the numbers where each chunk begins with zeros, (B, T, ...)
    """

    length: int
    differ: int
    lost: Array


def lengths(steps: int) -> list[int]:
    """Chunks of one step, of a sixth and of a half of the sequence."""
    return sorted({1, max(1, steps // 6), max(1, steps // 2)} - {steps})


def of_layer(seen: Seen, length: int) -> Cut:
    """The outputs of a recurrent layer, all steps in the order of processing."""
    whole, _ = seen.outputs()
    T = seen.xs.shape[1]
    state, last, parts = seen.state, None, []
    for start in range(0, T, length):
        now = np.s_[start : start + length]
        if seen.layer.go_backwards:
            now = np.s_[max(0, T - start - length) : T - start]
        mask = None if seen.mask is None else np.asarray(seen.mask)[:, now]
        piece = seen._replace(xs=seen.xs[:, now], state=state, mask=mask)
        ys, state = piece.outputs(last_output=last)
        last = ys[:, -1]
        parts.append(ys)
    steps = np.arange(T)
    order = T - 1 - steps if seen.layer.go_backwards else steps
    begins = (order % length == 0) & (order > 0)
    lost, _ = seen.outputs(reset=np.broadcast_to(begins, seen.xs.shape[:2]))
    return Cut(length, _differ(whole, np.concatenate(parts, axis=1)), lost)


def of_model(model: Any, inputs: list[Array], whole: Any, length: int) -> Cut | None:
    """The outputs of a model, step by step; None where they are not a sequence of the input's.

    whole  what the model returned for `inputs`
    """
    if not isinstance(model, Model) or len(inputs) != 1 or not isinstance(whole, np.ndarray):
        return None
    (x,) = inputs
    if model.why_whole() or model.timed(inputs) != [True] or whole.shape[:2] != x.shape[:2]:
        return None
    pieces = [x[:, start : start + length] for start in range(0, x.shape[1], length)]
    memories, carried, lost = None, [], []
    for piece in pieces:
        ys, memories = model.advance(piece, memories)
        carried.append(np.asarray(ys))
        alone = copy.deepcopy(model)
        alone.reset_states()
        lost.append(np.asarray(alone(piece)))
    differ = _differ(np.asarray(whole), np.concatenate(carried, axis=1))
    return Cut(length, differ, np.concatenate(lost, axis=1))


def _differ(a: Array, b: Array) -> int:
    """How many numbers of two arrays are of other bits."""
    size = a.dtype.itemsize
    same = np.ascontiguousarray(a).view(f"u{size}") == np.ascontiguousarray(b).view(f"u{size}")
    return int(same.size - np.count_nonzero(same))
