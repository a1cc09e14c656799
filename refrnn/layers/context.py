"""What holds for all layers inside a block of code."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Value = TypeVar("Value")

# whether the call around is one of training; None outside of all calls
training: ContextVar[bool | None] = ContextVar("training", default=None)
# whether configs are made to copy a layer: they hold functions and layers as they are
copying: ContextVar[bool] = ContextVar("copying", default=False)
# whether new weights are zeros: they will be overwritten, and drawing takes time
undrawn: ContextVar[bool] = ContextVar("undrawn", default=False)
# whether layers are run for the shapes alone: then nothing is compiled for it
trial: ContextVar[bool] = ContextVar("trial", default=False)


@contextmanager
def of(variable: ContextVar[Value], value: Value) -> Iterator[None]:
    """The variable is `value` inside the block."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
