"""A front end in its own process: started once in one precision, then asked for work."""

import re
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np

from refrnn.gates import Array
from refrnn.oracles.cudnn.log import Log
from refrnn.oracles.cudnn.work import Answer, Drawn, Ran, Work, named


class Made(NamedTuple):
    """What one call of a layer gave.

    flat       y (B, T, H), then the states in Keras's order, on the host
    sign       what the framework says it ran, "" where that is not cuDNN
    gradients  by name, where they were asked for
    """

    flat: list[Array]
    sign: str
    gradients: dict[str, Array]


class Front(ABC):
    """What the front ends share: whole, again, and in chunks, the log read after each."""

    def __init__(self) -> None:
        self.log = Log()

    def run(self, work: Work, way: str) -> Answer:
        """Whole, `work.repeats` times, and in the chunks of each of `work.cuts`.

        What the front end raises is part of the answer, on the first line.
        """
        drawn = work.arrays()
        try:
            return self._answer(work, drawn, way)
        except Exception as error:  # whatever a framework raises
            return Answer([], {}, False, _first_line(error))

    def _answer(self, work: Work, drawn: Drawn, way: str) -> Answer:
        layer = self.layer(work, drawn, way)
        whole, gradients = self._run("whole", layer, work, drawn, [work.case.steps])
        runs, same = [whole], True
        for _ in range(work.repeats - 1):
            again, _ = self._run("again", layer, work, drawn, [work.case.steps])
            if any(again.outputs[n].tobytes() != a.tobytes() for n, a in whole.outputs.items()):
                runs.append(again)
                same = False
        for sizes in work.cuts:
            title = "in chunks of " + ", ".join(map(str, _short(sizes)))
            runs.append(self._run(title, layer, work, drawn, list(sizes))[0])
        return Answer(runs, gradients, same)

    def _run(
        self, title: str, layer: Any, work: Work, drawn: Drawn, sizes: list[int]
    ) -> tuple[Ran, dict[str, Array]]:
        """One run over chunks, each started from the states that the one before returned.

        A row that has ended is left out of a chunk: few front ends take a length of 0.
        """
        T, signs = work.case.steps, []
        state, gradients = drawn.state, {}
        ys: list[Array] = []
        backwards = bool(work.case.options.get("go_backwards"))
        self.poison(work)
        self.log.new()
        done = 0
        for size in sizes:
            piece = slice(T - done - size, T - done) if backwards else slice(done, done + size)
            mask = None if drawn.mask is None else drawn.mask[:, piece]
            dy = drawn.dy if work.with_gradients and len(sizes) == 1 else None
            x = drawn.x[:, piece]
            done += size
            if mask is None or len(sizes) == 1:
                made = self.call(layer, work, x, state, mask, dy)
            elif mask.any():
                made = self._of_live(layer, work, x, state, mask)
            else:
                ys.append(np.zeros((*x.shape[:2], work.case.units), bool))  # zeros of any type
                continue
            y, *state = made.flat
            ys.append(y)
            signs.append(made.sign)
            gradients = made.gradients
            if mask is not None and "x" in gradients:  # cuDNN does not write the padding
                gradients["x"] = np.where(mask[:, :, None], gradients["x"], 0)
        outputs = named(work, [np.concatenate(ys, axis=1), *state])
        sign = signs[0] if all(signs) else ""
        return Ran(title, outputs, self.log.new(), len(signs), sign), gradients

    def _of_live(self, layer: Any, work: Work, x: Array, state: list[Array], mask: Array) -> Made:
        """One call for the rows that have not ended; others have zeros, and keep their states."""
        live = np.asarray(mask.any(1))
        made = self.call(layer, work, x[live], [part[live] for part in state], mask[live], None)
        before = zip(made.flat, (0, *state), strict=True)
        return made._replace(flat=[_spread(after, live, other) for after, other in before])

    # --- what each front end has -------------------------------------------------------------

    @abstractmethod
    def start(self, precision: str) -> dict[str, Any]:
        """Set the flags of a precision; return them as the framework then says they are.

        Raises Unavailable, saying which step is missing.
        """

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """What is loaded, by name."""

    @abstractmethod
    def layer(self, work: Work, drawn: Drawn, way: str) -> Any:
        """The layer with its weights, as `call` takes it; `way` as in `fronts`."""

    @abstractmethod
    def call(
        self, layer: Any, work: Work, x: Array, state: Any, mask: Array | None, dy: Array | None
    ) -> Made:
        """One call; x (B, T, F), each part of the state (B, H), dy (B, T, H) for gradients."""

    @abstractmethod
    def poison(self, work: Work) -> None:
        """Leave NaN in the memory that outputs may come to lie in: what is not written shows."""


def _spread(array: Array, rows: Array, others: Any) -> Array:
    """The rows of an array at those that are True, and `others` elsewhere."""
    found = np.empty((len(rows), *array.shape[1:]), array.dtype)
    found[:] = others
    found[rows] = array
    return found


def _short(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Chunk lengths as people say them: 1, not 1, 1, 1, ..."""
    return sizes[:1] if len(set(sizes)) == 1 else sizes


def _first_line(error: Exception) -> str:
    """What an error says first, without colours and the calls that a tf.function tells before."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()]
    traced = [k for k, line in enumerate(lines) if line.startswith('File "')]
    lines = lines[traced[-1] + 2 :] if traced else lines  # each has a line of code below it
    said = next((line for line in lines if line and "Exception encountered" not in line), "")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
