"""What is to be computed, from whatever the caller holds: a layer, a model of one, a cell.

A candidate's arrays are brought into the order of processing here: time turned where a layer goes
backwards, the halves of a Bidirectional taken apart.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from refrnn import checks
from refrnn.cells import Cell, Weights
from refrnn.gates import Array
from refrnn.layers import Bidirectional, Layer
from refrnn.layers.recurrent import Recurrent
from refrnn.verify.precisions import PRECISIONS, Precision
from refrnn.verify.tasks import Seen, Task

ARRAYS = ("y", "h", "c", "hs", "cs")


class Part(NamedTuple):
    """One recurrent layer of a subject.

    way        "" or, of a Bidirectional, "forward" or "backward"
    backwards  time runs from the last step to the first
    turned     outputs come in the order of time all the same
    """

    way: str
    cell: Cell
    weights: Weights
    backwards: bool = False
    emits_zeros: bool = False
    turned: bool = False

    @property
    def units(self) -> int:
        return len(self.weights.recurrent_kernel)

    @property
    def states(self) -> tuple[str, ...]:
        return self.cell.State._fields


class Subject(NamedTuple):
    """What a candidate is held against: one recurrent layer, or two that run against each other."""

    who: str
    parts: tuple[Part, ...]

    @property
    def features(self) -> int:
        return len(self.parts[0].weights.kernel)

    @property
    def units(self) -> int:
        """The width of the output."""
        return sum(part.units for part in self.parts)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.parts[0].weights.kernel.dtype

    def stored_as(self, precision: Precision) -> "Subject":
        """The same with its weights as an implementation in that precision holds them."""
        if precision.pointwise <= PRECISIONS["float64"].pointwise:
            return self
        stored = (
            precision.operands if precision.pointwise > PRECISIONS["float32"].pointwise else None
        )

        def kept(array: Array) -> Array:
            wide = np.asarray(array, np.float32)
            return wide if stored is None else stored(wide.astype(np.float64)).astype(np.float32)

        parts = (
            part._replace(weights=Weights(*(kept(array) for array in part.weights)))
            for part in self.parts
        )
        return self._replace(parts=tuple(parts))

    def tasks(self, x: Any, state: Any = None, mask: Any = None, reset: Any = None) -> list[Task]:
        """One for each part, in the order of its processing.

        Raises ValueError and TypeError as `refrnn.run` does.
        """
        xs = checks.sequence(self.who, x, self.features, self.dtype)
        B, T, _ = xs.shape
        mask = checks.mask(self.who, mask, B, T)
        reset = checks.mask(self.who, reset, B, T, "reset")
        states = self._states(state, B)
        tasks = []
        for part, of_part in zip(self.parts, states, strict=True):
            tasks.append(
                Task(
                    part.cell,
                    part.weights,
                    in_time(xs, part.backwards),
                    of_part,
                    in_time(mask, part.backwards),
                    in_time(reset, part.backwards),
                    part.emits_zeros,
                )
            )
        return tasks

    def _states(self, given: Any, batch: int) -> list[Any]:
        if len(self.parts) == 1:
            groups: list[Any] = [given]
        elif given is None:
            groups = [None] * len(self.parts)
        else:
            flat = [a for g in given for a in (g if isinstance(g, list | tuple) else [g])]
            counts = [len(part.states) for part in self.parts]
            if len(flat) != sum(counts):
                raise ValueError(
                    f"{self.who}: state has {len(flat)} arrays, expected {sum(counts)}: those of"
                    f" {' and '.join(part.way for part in self.parts)}"
                )
            groups = [flat[: counts[0]], flat[counts[0] :]]
        return [
            checks.state(part.cell, self.who, group, batch, part.units, self.dtype)
            for part, group in zip(self.parts, groups, strict=True)
        ]

    def seen(self, arrays: Mapping[str, Array]) -> list[Seen]:
        """What a candidate shows, one for each part, in the order of its processing."""
        if len(self.parts) == 1:
            return [_seen(self.parts[0], arrays)]
        start, found = 0, []
        for part in self.parts:
            own = {
                name.removeprefix(f"{part.way}."): array
                for name, array in arrays.items()
                if name.startswith(f"{part.way}.")
            }
            own["y"] = arrays["y"][..., start : start + part.units]
            found.append(_seen(part, own))
            start += part.units
        return found

    def named(self, outputs: Any) -> dict[str, Array]:
        """What a layer returns, by name: y, or y and the states after it; a dictionary as it is.

        Raises ValueError if there are too many, TypeError for what is not an array.
        """
        if isinstance(outputs, Mapping):
            return {str(name): _array(self.who, str(name), a) for name, a in outputs.items()}
        if not isinstance(outputs, list | tuple):
            return {"y": _array(self.who, "y", outputs)}
        names = ["y"]
        for part in self.parts:
            names += [f"{part.way}.{name}" if part.way else name for name in part.states]
        flat: list[Any] = []
        for item in outputs:
            flat += item if isinstance(item, list | tuple) else [item]
        if len(flat) > len(names) or not flat:
            raise ValueError(
                f"{self.who}: the candidate has {len(flat)} arrays, expected at most {len(names)}:"
                f" {', '.join(names)}"
            )
        return {n: _array(self.who, n, a) for n, a in zip(names, flat, strict=False)}

    def checked(self, arrays: Mapping[str, Array], rows: int, steps: int) -> dict[str, Array]:
        """The arrays, each of its right shape and kind; `y` is (B, T, H), or (B, H): the last.

        Raises ValueError for an unknown name or a wrong shape, TypeError for a wrong dtype.
        """
        if "y" not in arrays:
            raise ValueError(
                f"{self.who}: the candidate has {', '.join(arrays) or 'no arrays'}, expected at"
                " least y, its outputs"
            )
        shapes: dict[str, tuple[int, ...]] = {"y": (rows, steps, self.units)}
        for part in self.parts:
            prefix = f"{part.way}." if part.way else ""
            shapes |= {prefix + name: (rows, part.units) for name in part.states}
            over_time = [f"pre.{g}" for g in part.cell.gates] + list(part.cell.gates)
            over_time = [n for n in over_time if n != "h"] + [f"{n}s" for n in part.states]
            shapes |= {prefix + name: (rows, steps, part.units) for name in over_time}
        for name, array in arrays.items():
            if name not in shapes:
                raise ValueError(
                    f"{self.who}: the candidate has an array called {name!r}, expected"
                    f" {', '.join(shapes)}"
                )
            fits = [shapes[name]] + ([(rows, self.units)] if name == "y" else [])
            if array.shape not in fits:
                raise ValueError(
                    f"{self.who}: the candidate's {name} has shape {array.shape}, expected"
                    f" {' or '.join(map(str, fits))}"
                )
        return dict(arrays)


def subject(reference: Any) -> Subject:
    """What a reference is: a recurrent layer, a Bidirectional, a model of one, (cell, Weights).

    Raises TypeError for anything else, ValueError for a layer that is not built or cannot be
    judged step by step.
    """
    if isinstance(reference, Subject):
        return reference
    if isinstance(reference, Sequence) and not isinstance(reference, str) and len(reference) == 2:
        cell, weights = reference
        row = checks.cell(cell)
        return Subject(row.name, (Part("", row, checks.weights(row, weights)),))
    alone = _only_layer(reference)
    if isinstance(alone, Recurrent):
        return Subject(alone.who, (_part(alone, "", turned=False),))
    if isinstance(alone, Bidirectional) and isinstance(alone.forward_layer, Recurrent):
        if alone.merge_mode != "concat":
            raise ValueError(
                f"{alone.who}: merge_mode is {alone.merge_mode!r}, expected 'concat', because the"
                " two layers' own outputs cannot be seen in a merged one; judge forward_layer and"
                " backward_layer each for itself"
            )
        return Subject(
            alone.who,
            (
                _part(alone.forward_layer, "forward", turned=alone.forward_layer.go_backwards),
                _part(alone.backward_layer, "backward", turned=alone.backward_layer.go_backwards),
            ),
        )
    raise TypeError(
        f"reference is {reference!r}, expected an LSTM, GRU or SimpleRNN layer, a Bidirectional of"
        " one, a model of one such layer, or a cell's name and refrnn.Weights"
    )


def _only_layer(reference: Any) -> Any:
    """The one recurrent layer of a model that is nothing else; anything else as it is."""
    inner = getattr(reference, "layers", None)
    if isinstance(reference, Layer) and isinstance(inner, list):
        real = [layer for layer in inner if type(layer).__name__ != "InputLayer"]
        if len(real) == 1:
            return _only_layer(real[0])
    return reference


def _part(layer: Any, way: str, turned: bool) -> Part:
    if not layer.built:
        raise ValueError(
            f"{layer.who}: the layer has no weights yet, expected one that is built; call it once,"
            " or build((None, None, features))"
        )
    return Part(
        way,
        layer.cell.math,
        layer.cell.arrays,
        layer.go_backwards,
        layer.zero_output_for_mask,
        turned,
    )


def in_time(a: Any, backwards: bool) -> Any:
    """(B, T, ...) with time turned, or as it is."""
    return a if a is None or not backwards else np.ascontiguousarray(a[:, ::-1])


def _seen(part: Part, arrays: Mapping[str, Array]) -> Seen:
    turned = {name: in_time(a, part.turned and a.ndim > 2) for name, a in arrays.items()}
    gates = {name: a for name, a in turned.items() if name not in ARRAYS}
    return Seen(
        turned["y"], turned.get("h"), turned.get("c"), turned.get("hs"), turned.get("cs"), gates
    )


def _array(who: str, name: str, given: Any) -> Array:
    """An array of real numbers; torch and TensorFlow hand theirs over through NumPy's protocol."""
    found = checks.array(who, f"the candidate's {name}", given)
    if not (checks.is_float(found.dtype) or found.dtype.kind in "iub"):
        raise TypeError(
            f"{who}: the candidate's {name} has dtype {found.dtype}, expected real numbers"
        )
    return found
