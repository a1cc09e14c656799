"""Wrong cells and drivers by name: what a test of an RNN has to catch to be worth running.

Four kinds: "convention" (conventions and logic), "precision", "numeric" (subtle numeric) and
"state" (state plumbing). `MUTANTS[name].make(part)` is an implementation with that bug, and
`Engine()` one with none; `refrnn.verify.grade` tells which of them a test lets pass.
"""

from refrnn.verify.mutants.conventions import CONVENTIONS
from refrnn.verify.mutants.engine import Engine, Implementation
from refrnn.verify.mutants.mutant import KINDS, Mutant
from refrnn.verify.mutants.numerics import NUMERICS
from refrnn.verify.mutants.precisions import PRECISIONS
from refrnn.verify.mutants.states import STATES

MUTANTS: dict[str, Mutant] = {
    mutant.name: mutant for mutant in (*CONVENTIONS, *PRECISIONS, *NUMERICS, *STATES)
}

__all__ = ["KINDS", "MUTANTS", "Engine", "Implementation", "Mutant"]
