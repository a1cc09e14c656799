"""A convention as an edit of a scene, and what such edits are about."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from refrnn.verify.scene import Scene

# Aspects of an implementation, in the order in which their edits are applied.
ASPECTS = (
    "axes",
    "direction",
    "mask",
    "input",
    "stored input",
    "outputs",
    "state",
    "first state",
    "carrying",
    "stored weights",
    "kernel",
    "recurrent kernel",
    "stored bias",
    "gate order",
    "kernel by gates",
    "recurrent kernel by gates",
    "bias",
    "gates' sense",
    "equations",
    "form",
    "activation",
    "recurrent activation",
    "precision",
    "returned state",
    "weight",
)

# The same on the other side of "gate order": what is done to a block before or after it is read.
ACROSS = {
    "bias": "stored bias",
    "kernel": "kernel by gates",
    "recurrent kernel": "recurrent kernel by gates",
}


class Edit(NamedTuple):
    """One convention.

    aspect  what it is about, one of ASPECTS: of two edits of one aspect only one can be so
    name    what the implementation does, in words
    apply   makes the scene in which it does so, or None where that is no different thing
    rare    tried alone, or together with what else was found, but not in every pair
    """

    aspect: str
    name: str
    apply: Callable[[Scene], Scene | None]
    rare: bool = False


def applied(edits: Sequence[Edit], base: Scene) -> Scene | None:
    """The scene with some edits, or None where one of them is not applicable."""
    found: Scene | None = base
    for edit in sorted(edits, key=lambda e: ASPECTS.index(e.aspect)):
        found = None if found is None else edit.apply(found)
    return found
