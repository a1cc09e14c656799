"""Weights and states of one library as another's: exactly, or refused with the reason.

`LAYOUTS` is the table, `convert` and `convert_state` move weights and states, `run` runs weights of
any layout, `describe` prints a library's equations, `equivalents` has the conversions that compute.
"""

from refrnn.layouts import equivalents
from refrnn.layouts.conversion import candidates, convert
from refrnn.layouts.description import describe, markdown
from refrnn.layouts.fitting import LOSSY
from refrnn.layouts.hub import Stored
from refrnn.layouts.running import run
from refrnn.layouts.states import convert_state
from refrnn.layouts.table import LAYOUTS, Layout

__all__ = [
    "LAYOUTS",
    "LOSSY",
    "Layout",
    "Stored",
    "candidates",
    "convert",
    "convert_state",
    "describe",
    "equivalents",
    "markdown",
    "run",
]
