"""What `fit` tells others while it trains: events, the progress bar."""

import sys
import time
from collections.abc import Callable
from typing import Any

EVENTS = (
    "on_train_begin",
    "on_epoch_begin",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_epoch_end",
    "on_train_end",
)
WIDTH = 30  # of the bar


Listeners = dict[str, list[Callable[..., Any]]]  # by event


def listeners(given: Any) -> Listeners:
    """What to call at each event, of callbacks that are functions or have methods named so.

    Raises ValueError for a callback that is neither, and for what is no list.
    """
    if not isinstance(given, list | tuple):
        raise ValueError(f"fit: callbacks is {given!r}, expected a list of them")
    found: Listeners = {event: [] for event in EVENTS}
    for callback in given:
        methods = {event: getattr(callback, event, None) for event in EVENTS}
        if not any(methods.values()):
            if not callable(callback):
                raise ValueError(
                    f"fit: callback {callback!r} is no function and has none of the methods"
                    f" {', '.join(EVENTS)}, expected one of these, because it would never be called"
                )
            methods["on_epoch_end"] = callback
        for event, method in methods.items():
            if method is not None:
                found[event].append(method)
    return found


class Bar:
    """A callback that draws on stderr how far an epoch is; where that is no terminal, at its end.

    epochs, batches  how many there will be; an epoch has as many batches as any other
    """

    def __init__(self, epochs: int, batches: int) -> None:
        self.epochs, self.batches = epochs, batches
        self.live = sys.stderr.isatty()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float]) -> None:
        self.epoch, self.started, self.drawn = epoch, time.perf_counter(), 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        now = time.perf_counter()
        if self.live and now - self.drawn > 0.1:
            self.drawn = now
            self._write(batch + 1, logs, "\r")

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self._write(self.batches, logs, "\n")

    def _write(self, done: int, logs: dict[str, float], end: str) -> None:
        full = WIDTH * done // self.batches
        bar = "=" * full + "." * (WIDTH - full)
        shown = "  ".join(f"{name} {value:.6g}" for name, value in logs.items())
        spent = time.perf_counter() - self.started
        line = f"epoch {self.epoch + 1}/{self.epochs} [{bar}] {done}/{self.batches}  {spent:.1f} s"
        print(f"{line}  {shown}", end=end, file=sys.stderr, flush=True)
