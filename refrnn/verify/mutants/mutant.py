"""What a mutant is: one row of the list."""

from collections.abc import Callable
from dataclasses import dataclass

from refrnn.verify.mutants.engine import Implementation
from refrnn.verify.subject import Part

KINDS = ("convention", "precision", "numeric", "state")
ALL = ("simple", "lstm", "gru", "gru_reset_before")
GATED = ("lstm", "gru", "gru_reset_before")
GRUS = ("gru", "gru_reset_before")


@dataclass(frozen=True)
class Mutant:
    """A wrong implementation.

    name   as tests and reports call it
    kind   one of KINDS
    cells  the cells that it can be made of
    wrong  what is wrong, in one sentence
    make   a layer (`subject(...).parts[k]`) -> f(x, initial_state=None, mask=None), which returns
           y (B, T, H) and the states after the last step
    issue  where it happened, "" where there is no such place
    """

    name: str
    kind: str
    cells: tuple[str, ...]
    wrong: str
    make: Callable[[Part], Implementation]
    issue: str = ""

    def applies(self, part: Part) -> bool:
        """Whether the mutant can be made of this layer."""
        return part.cell.name in self.cells
