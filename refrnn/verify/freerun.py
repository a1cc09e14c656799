"""What a correct run may look like when its outputs over time are hidden: a Monte-Carlo envelope.

Many copies of the reference run in float64, each with random errors of the size of the step
envelope at every step. Their spread follows the run as it is, contracting or chaotic. Where copies
with 10 and 100 times the errors are not just 10 and 100 times as far apart, the run amplifies
rounding beyond all bounds, and nothing can be decided from there on.
"""

from typing import Any, NamedTuple

import numpy as np

from refrnn.gates import Array
from refrnn.reference import QUIET, steps
from refrnn.verify.envelope import judge, standard_deviations
from refrnn.verify.precisions import PRECISIONS, Precision
from refrnn.verify.tasks import Seen, Task

MEMBERS = 16
SCALES = (1, 10, 100)
APART = 5.0  # spreads, divided by their scale, that are further apart are not linear any more
WIDE = 0.05  # spread of outputs that says the same: a tenth of what a gate's output can span


class Free(NamedTuple):
    """A free run of the reference, and how far a correct one may be off.

    y          (B, T, H) outputs, float64
    state      the last, each part (B, H)
    bound      of each output, (B, T, H)
    bounds     of each part of the state, (B, H)
    decidable  (B, T): False from the step on at which rounding decides the outcome
    """

    y: Array
    state: Any
    bound: Array
    bounds: Any
    decidable: Array


def free_run(
    task: Task, precision: Precision = PRECISIONS["float32"], members: int = MEMBERS, seed: int = 0
) -> Free:
    """The reference alone, from the first state on, in float64."""
    B, T, _ = task.xs.shape
    H = len(task.weights.recurrent_kernel)
    W, U, bias = (np.asarray(part, np.float64) for part in task.weights)
    weights = type(task.weights)(precision.operands(W), precision.operands(U), bias)
    copies = 1 + len(SCALES) * members  # the first without errors
    scales = np.concatenate([[0.0], np.repeat(SCALES, members)])[:, None, None]
    rng = np.random.default_rng(seed)
    cell = task.cell._replace(x_product=_product, h_product=_product)

    def spoiled(h: Array, b: Array, gates: slice = slice(None)) -> Array:
        """Rounded as an operand, at random: two runs a rounding apart may round it apart."""
        off = precision.operand_u * np.repeat(scales[:, 0], B, axis=0) * np.abs(h)
        return (h + off * rng.uniform(-1, 1, h.shape)) @ b

    noisy = cell._replace(h_product=spoiled) if precision.operand_u else cell

    def stacked(part: Any) -> Any:
        return None if part is None else np.tile(part, (copies, *[1] * (np.ndim(part) - 1)))

    xs = precision.operands(np.asarray(task.xs, np.float64))
    state = type(task.state)(*(np.asarray(part, np.float64) for part in task.state))
    with QUIET():
        spreads = _local(task, list(_walk(task, cell, weights, xs, state)), precision)

    outputs: list[Array] = []
    now = type(state)(*(stacked(part) for part in state))
    last = np.zeros((copies * B, H)) if task.last_output is None else stacked(task.last_output)
    with QUIET():
        for t in range(T):
            step = task._replace(
                xs=stacked(xs[:, t : t + 1]),
                state=now,
                mask=stacked(None if task.mask is None else task.mask[:, t : t + 1]),
                reset=stacked(None if task.reset is None else task.reset[:, t : t + 1]),
                last_output=last,
            )
            ((output, after, _),) = _walk(step, noisy, weights, step.xs, now)
            live = np.ones((B, 1), bool) if task.mask is None else task.mask[:, t, None]
            noise = {
                name: (
                    scales * spreads[name][:, t] * live * rng.standard_normal((copies, B, H))
                ).reshape(-1, H)
                for name in state._fields
            }
            now = type(state)(
                *(part + noise[name] for name, part in zip(state._fields, after, strict=True))
            )
            emitted = np.where(np.tile(live, (copies, 1)), now.h, output)
            last = (
                emitted
                if not task.emits_zeros
                else np.where(np.tile(live, (copies, 1)), now.h, last)
            )
            outputs.append(emitted.reshape(copies, B, H))
    ends = type(state)(*(part.reshape(copies, B, H) for part in now))
    ys = np.stack(outputs, axis=2) if T else np.zeros((copies, B, 0, H))  # (copies, B, T, H)
    lam = standard_deviations(B * max(1, T) * H)
    bound, decidable = _spread(ys, lam, members)
    ended = type(state)(*(_spread(part[:, :, None], lam, members)[0][:, 0] for part in ends))
    settled = np.logical_and.accumulate(decidable, axis=1)
    return Free(ys[0], type(state)(*(part[0] for part in ends)), bound, ended, settled)


def _product(a: Array, b: Array, gates: slice = slice(None)) -> Array:
    return a @ b


def _walk(task: Task, cell: Any, weights: Any, xs: Array, state: Any) -> Any:
    return steps(
        cell,
        weights,
        xs,
        state,
        mask=task.mask,
        reset=task.reset,
        zero_output_for_mask=task.emits_zeros,
        last_output=task.last_output,
    )


def _local(task: Task, plain: list[Any], precision: Precision) -> dict[str, Array]:
    """The spread of the error that one step makes along the run, by part of the state."""
    if not plain:
        return {}
    hs = np.stack([after.h for _, after, _ in plain], axis=1)
    cs = np.stack([after[-1] for _, after, _ in plain], axis=1)
    hidden = "c" in task.state._fields
    judged = judge(task._replace(mask=None), Seen(hs, cs=cs if hidden else None), precision)
    return {"h": judged["y"].deviation} | ({"c": judged["cs"].deviation} if hidden else {})


def _spread(runs: Array, lam: float, members: int) -> tuple[Array, Array]:
    """(copies, B, T, H): the bound (B, T, H), and where (B, T) rounding does not decide."""
    apart = []
    for k in range(len(SCALES)):
        group = runs[1 + k * members : 1 + (k + 1) * members]
        apart.append(np.sqrt(np.mean((group - runs[0]) ** 2, axis=0)))
    pooled = np.sqrt(np.mean(apart[0] ** 2, axis=-1, keepdims=True))
    bound = lam * np.sqrt((apart[0] ** 2 + pooled**2) / 2)
    sizes = [
        np.sqrt(np.mean(spread**2, axis=-1)) / s for spread, s in zip(apart, SCALES, strict=True)
    ]
    least, most = np.minimum.reduce(sizes), np.maximum.reduce(sizes)
    linear = (most <= APART * least) & (sizes[1] * SCALES[1] <= WIDE)
    return bound, linear
