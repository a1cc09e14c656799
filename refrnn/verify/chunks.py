"""A sequence cut into chunks, and layers and models run over them with the state handed on."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from refrnn.cases import Arrays
from refrnn.gates import Array
from refrnn.verify.compare import Outputs


def random_sizes(steps: int, seed: int) -> list[int]:
    """Chunk lengths that add up to `steps`, in random proportions, one of them 0."""
    rng = np.random.default_rng([steps, seed])
    cuts = np.sort(rng.integers(0, steps + 1, int(rng.integers(1, 5))))
    sizes = [int(n) for n in np.diff(cuts, prepend=0, append=steps)]
    return [*sizes[:1], 0, *sizes[1:]]


def pieces(steps: int, sizes: Sequence[int], backwards: bool = False) -> Iterator[slice]:
    """The slices of time of chunks of `sizes`; the last size is repeated to the end.

    backwards  from the end: the first chunk is the last of the sequence
    """
    if steps and (not sizes or min(sizes) < 0):
        raise ValueError(f"chunks are {list(sizes)}, expected lengths of at least 0")
    start, k = 0, 0
    while start < steps or k < len(sizes):
        size = sizes[min(k, len(sizes) - 1)]
        if size == 0 and k >= len(sizes):
            raise ValueError(f"chunks {list(sizes)} never reach the end of {steps} steps")
        stop = min(steps, start + size)
        yield slice(steps - stop, steps - start) if backwards else slice(start, stop)
        start, k = stop, k + 1


def named(outputs: Sequence[Array]) -> dict[str, Array]:
    """What a recurrent layer with return_state returns, by name."""
    return dict(zip(("y", "h", "c"), outputs, strict=False))


def layer_whole(layer: Any, arrays: Arrays) -> Outputs:
    outputs = layer(arrays.x, initial_state=arrays.state, mask=arrays.mask)
    return named(outputs if layer.return_state else [outputs])


def layer_in_chunks(layer: Any, arrays: Arrays, sizes: Sequence[int]) -> Outputs:
    """The layer run over chunks; outputs joined in processing order, states from the last."""
    memory = layer.start(len(arrays.x), arrays.state)
    parts, states = [], list(memory.state)
    for piece in pieces(arrays.x.shape[1], sizes, layer.go_backwards):
        mask = None if arrays.mask is None else arrays.mask[:, piece]
        outputs, memory = layer.advance(arrays.x[:, piece], memory, mask)
        y, *states = outputs if layer.return_state else [outputs]
        parts.append(y)
    y = np.concatenate(parts, axis=1) if parts else arrays.x[:, :0, :0]
    return named([y, *states] if layer.return_state else [y])


def flat(outputs: Any, name: str = "output") -> dict[str, Array]:
    """A model's outputs, at any depth of lists and dictionaries, by path."""
    if isinstance(outputs, dict):
        items: Any = outputs.items()
    elif isinstance(outputs, list | tuple):
        items = enumerate(outputs)
    else:
        return {name: np.asarray(outputs)}
    found: dict[str, Array] = {}
    for key, part in items:
        found |= flat(part, f"{name}.{key}" if name != "output" else str(key))
    return found


def model_in_chunks(model: Any, inputs: Sequence[Array], sizes: Sequence[int]) -> Outputs:
    """The model run over chunks; outputs with a time axis joined, the others from the last."""
    timed = model.timed(inputs)
    steps = next(a.shape[1] for a, t in zip(inputs, timed, strict=True) if t)
    memories = None
    runs = []
    for piece in pieces(steps, sizes):
        cut = [a[:, piece] if t else a for a, t in zip(inputs, timed, strict=True)]
        outputs, memories = model.advance(cut if len(cut) > 1 else cut[0], memories)
        runs.append(flat(outputs))
    return {
        name: np.concatenate([run[name] for run in runs], axis=1) if last.ndim > 2 else last
        for name, last in runs[-1].items()
    }
