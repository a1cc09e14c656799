"""Runs that see: inputs, states and masks under which a bug has to show itself, if it can."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from refrnn.cells import Weights
from refrnn.gates import Array
from refrnn.verify.envelope import judge
from refrnn.verify.mutants.engine import Engine, Implementation
from refrnn.verify.mutants.mutant import Mutant
from refrnn.verify.precisions import PRECISIONS
from refrnn.verify.subject import Part, Subject

DRAWS = 2  # sets of weights under which a mutant must be equal in every bit to count as equivalent


class Run(NamedTuple):
    """One call: x (B, T, F), each state (B, H) or None, mask (B, T) or None."""

    name: str
    x: Array
    state: list[Array] | None = None
    mask: Array | None = None


def drawn(part: Part, seed: int) -> Part:
    """The same layer with random weights: none equal, none symmetric, every bias its own."""
    rng = np.random.default_rng(seed)
    W, U, b = part.weights
    return part._replace(
        weights=Weights(
            (rng.normal(size=W.shape) / np.sqrt(len(W))).astype(W.dtype),
            (rng.normal(size=U.shape) / np.sqrt(len(U))).astype(U.dtype),
            rng.uniform(-0.5, 0.5, b.shape).astype(b.dtype),
        )
    )


def battery(part: Part, seed: int = 0) -> list[Run]:
    """Long and short, one row and many, with and without states and masks; probes; extremes."""
    rng = np.random.default_rng([seed, 1])
    F, H = part.weights.kernel.shape[0], part.units
    count, dtype = len(part.states), part.weights.kernel.dtype

    def x(B: int, T: int, scale: float = 1.0) -> Array:
        return (scale * rng.normal(size=(B, T, F))).astype(dtype)

    def state(B: int, scale: float = 1.0) -> list[Array]:
        h = rng.uniform(-0.9, 0.9, (B, H))
        return [a.astype(dtype) for a in (h, scale * rng.normal(size=(B, H)))[:count]]

    def hot(width: int) -> Array:
        """A row for each of the width's places, some of each sign."""
        return (3 * np.eye(width) * rng.choice([-1, 1], width)).astype(dtype)

    holes = np.array([[1, 1, 0, 1, 0, 0, 1, 1, 0], [0, 0, 1, 1, 1, 0, 1, 1, 1], [0] * 9,
                      [1, 1, 1, 1, 1, 0, 0, 0, 0], [1] * 9], bool)  # fmt: skip
    broken = x(3, 6)
    broken[1, 2, 0] = np.nan
    probes = [Run("one-hot inputs", hot(F)[:, None]), Run("few inputs", hot(F)[:, None], state(F))]
    for k, name in enumerate(part.states):
        for title, others in (("one-hot", [np.zeros((H, H), dtype)] * count), ("much", state(H))):
            probed = [*others[:k], others[k] + hot(H), *others[k + 1 :]]
            probes.append(Run(f"{title} {name}", np.zeros((H, 1, F), dtype), probed))
    return [
        Run("whole", x(3, 19), state(3)),
        Run("no state", x(2, 7)),
        Run("no state again", x(2, 7)),
        Run("holes", x(5, 9), state(5), holes),
        Run("holes, no state", x(5, 9), None, holes),
        Run("one row", x(1, 6), state(1)),
        Run("one step", x(3, 1), state(3)),
        *probes,
        Run("large", x(3, 10, 6.0), state(3, 12.0)),
        Run("large state", x(3, 1), state(3, 30.0)),
        Run("not a number", broken, state(3)),
    ]  # fmt: skip


def called(implementation: Implementation, run: Run) -> tuple[Array, ...]:
    """The run's outputs; keywords are passed only where there is something to pass."""
    options: dict[str, Any] = {"initial_state": run.state, "mask": run.mask}
    return implementation(run.x, **{k: v for k, v in options.items() if v is not None})


def same(a: tuple[Array, ...], b: tuple[Array, ...]) -> bool:
    return all(np.array_equal(p, q, equal_nan=True) for p, q in zip(a, b, strict=True))


def equivalent(mutant: Mutant, part: Part) -> bool:
    """Whether the mutant is none: equal in every bit to the engine without it, in every run.

    That of the layer's cell, activations and sizes, whatever its weights.
    """
    return not any(
        distinct(mutant.make, drawn(part, seed), battery(part, seed)) for seed in range(DRAWS)
    )


def distinct(make: Callable[[Part], Implementation], part: Part, runs: list[Run]) -> bool:
    """Whether any run tells an implementation from the right one."""
    right, wrong = Engine().implementation(part), make(part)
    return not all(same(called(right, run), called(wrong, run)) for run in runs)


def margin(part: Part, run: Run, outputs: Any, tier: str = "S") -> float:
    """The largest error of a run's outputs, by name or in order, over what the tier allows."""
    subject = Subject(part.cell.name, (part._replace(way=""),))
    (task,) = subject.tasks(run.x, run.state, run.mask)
    (seen,) = subject.seen(subject.named(outputs))
    precision = PRECISIONS[part.weights.kernel.dtype.name]
    judged = judge(task, seen, precision)
    return max(float(np.max(j.margin(tier), initial=0.0)) for j in judged.values())
