"""What a recording holds, and what it must hold to be one."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refrnn import formats, verify
from refrnn.cases import LAYERS
from refrnn.gates import Array
from refrnn.layers import Bidirectional
from refrnn.verify.subject import subject

# What a variant must say of where it was recorded, and of how it is known that cuDNN ran.
PROVENANCE: dict[str, Any] = {
    "versions": dict,  # of the front end and all below it, by name: torch, cudnn, cublasLt, driver
    "gpu": str,
    "asked": dict,  # flags and variables that decide the arithmetic, as they were set,
    "read_back": dict,  # and as the front end said they were
    "repeats": bool,  # whether a second run had the same bits
}
PROOF: dict[str, Any] = {
    "calls": int,  # of cudnnRNNForward in cuDNN's own log, at least one
    "algorithm": str,  # and as that log has them
    "math": str,
    "data": str,
}
STAND_IN = "stand_in"  # in a provenance: who computed it in the place of a graphics card
WEIGHTS = ("kernel", "recurrent_kernel", "bias")


def float32(a: Array) -> Array:
    return np.asarray(a, np.float32)


# The numbers of a format, by the precisions whose outputs are in it; others have float32.
STORED: dict[str, Callable[[Array], Array]] = {
    "float64": formats.exactly,
    "float16": formats.float16,
    "bfloat16": formats.bfloat16,
}


@dataclass(frozen=True, eq=False)
class Given:
    """What goes in: one layer with its weights, and one batch.

    layer          "LSTM", "GRU" (reset_after) or "SimpleRNN"
    weights        in Keras's order and layout; of a Bidirectional the forward layer's first
    x              (B, T, F)
    state          the first state, [h] or [h, c], each (B, H), forward first; None for zeros
    lengths        (B,) from 1 to T: the steps of a row from there on are padding; None for none
    cuttings       each a list of chunk lengths with the sum T
    dy             (B, T, H), the gradient of a loss by y, where gradients are recorded
    go_backwards, bidirectional
                   as in Keras

    Arrays hold the very numbers that were computed with: all float32, or all float64. What was run
    in a 16-bit type is recorded with numbers of that type.
    """

    layer: str
    weights: Sequence[Array]
    x: Array
    state: Sequence[Array] | None = None
    lengths: Array | None = None
    cuttings: Sequence[Sequence[int]] = ()
    dy: Array | None = None
    go_backwards: bool = False
    bidirectional: bool = False

    @property
    def mask(self) -> Array | None:
        """(B, T), False where a row is padding."""
        if self.lengths is None:
            return None
        return np.arange(self.x.shape[1]) < np.asarray(self.lengths)[:, None]

    def built(self, dtype: str) -> Any:
        """The refrnn layer, with cuDNN's outputs at masked steps: zeros."""
        options: dict[str, Any] = {"return_sequences": True, "return_state": True, "dtype": dtype}
        units = len(self.weights[1])
        layer = LAYERS[self.layer](
            units, go_backwards=self.go_backwards, zero_output_for_mask=True, **options
        )
        if self.bidirectional:
            layer = Bidirectional(layer, dtype=dtype)
        layer.build((None, None, len(self.weights[0])))
        layer.set_weights([np.asarray(array, dtype) for array in self.weights])
        return layer


@dataclass(frozen=True, eq=False)
class Variant:
    """What one front end returned in one arithmetic.

    name        of the front end and the way: unique in a recording together with the precision
    precision   the arithmetic found in the numbers, one of `verify.PRECISIONS`
    outputs     as `verify.check` takes them: y (B, T, H), in the order that the front end returns;
                h (B, H), and c of an LSTM; of a Bidirectional "forward.h" and so on
    chunked     the same for each of the cuttings, y joined, the states those after the last chunk;
                empty where it was not run in chunks
    gradients   of sum(dy * y), by name: "x", "h", "c", and "kernel", "recurrent_kernel", "bias"
    provenance  JSON: what PROVENANCE names, and what else is known
    proof       JSON: what PROOF names, and what else shows that cuDNN computed it
    """

    name: str
    precision: str
    outputs: Mapping[str, Array]
    chunked: Sequence[Mapping[str, Array]] = ()
    gradients: Mapping[str, Array] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    proof: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.name}, {self.precision}"

    @property
    def stood_in(self) -> bool:
        """Whether something else computed this in the place of a graphics card."""
        return bool(self.provenance.get(STAND_IN))


@dataclass(frozen=True, eq=False)
class Recording:
    """One case, and what came of it."""

    given: Given
    variants: Sequence[Variant]


def lengths(mask: Any) -> Array:
    """(B,) how many steps of each row are live: the masks that cuDNN takes, as it takes them.

    mask  (B, T), True for the live steps, which come first in every row

    Raises ValueError for a mask that cuDNN does not take. Keras then runs its own loop instead, or
    raises where use_cudnn=True; inside tf.function it always raises.
    """
    live = np.asarray(mask) != 0
    if live.ndim != 2:
        raise ValueError(f"mask has shape {live.shape}, expected (B, T)")
    found = np.asarray(live.sum(1), np.int32)
    T = live.shape[1]
    holes = np.flatnonzero((live != (np.arange(T) < found[:, None])).any(1))
    if holes.size:
        raise ValueError(
            f"mask: row {holes[0]} is {live[holes[0]].astype(int).tolist()}, expected its live"
            " steps before all others, because cuDNN is told a length for each row, and no mask"
        )
    empty = np.flatnonzero(found == 0)
    if empty.size:
        raise ValueError(
            f"mask: row {empty[0]} has no live step, expected at least one in every row, because"
            " cuDNN does not take sequences of length 0"
        )
    return found


def checked(recording: Recording) -> None:
    """Raise ValueError, or TypeError, for what is not a whole recording with its proof."""
    given, variants = recording.given, list(recording.variants)
    _check_given(given)
    if not variants:
        raise ValueError("has no variants, expected at least one: a recording of nothing")
    titles = [variant.title for variant in variants]
    for title in titles:
        if titles.count(title) > 1:
            raise ValueError(f"has the variant {title!r} twice, expected it once")
    for variant in variants:
        try:
            _check_origin(given, variant)
            _check_arrays(given, variant)
        except ValueError as error:
            raise ValueError(f"{variant.title!r}: {error}") from None


def _check_given(given: Given) -> None:
    if given.layer not in LAYERS:
        raise ValueError(f"layer is {given.layer!r}, expected one of {', '.join(LAYERS)}")
    inputs = [*given.weights, given.x, *(given.state or ())]
    inputs += [] if given.dy is None else [given.dy]
    dtypes = {array.dtype.name for array in inputs}
    if len(dtypes) > 1 or dtypes - {"float32", "float64"}:
        raise ValueError(f"is given {', '.join(sorted(dtypes))}, expected all float32 or float64")
    if not all(np.isfinite(array).all() for array in inputs):
        raise ValueError("is given numbers that are not finite, expected finite ones")
    if given.x.ndim != 3 or not given.x.size:
        raise ValueError(
            f"x has shape {given.x.shape}, expected (B, T, F), none of them 0, because nothing"
            " would be seen"
        )
    B, T, _ = given.x.shape
    if given.lengths is not None:
        if given.lengths.shape != (B,) or given.lengths.dtype.kind not in "iu":
            raise ValueError(f"lengths are {given.lengths!r}, expected ({B},) whole numbers")
        if given.lengths.max() > T:
            raise ValueError(f"lengths are {given.lengths.tolist()}, expected at most {T}")
        lengths(given.mask)
    what = subject(given.built(dtypes.pop()))  # refuses weights that do not fit
    what.tasks(given.x, given.state)  # and input and state
    for sizes in given.cuttings:
        if min(sizes, default=0) < 0 or sum(sizes) != T:
            raise ValueError(f"a cutting is {list(sizes)}, expected lengths with the sum {T}")
    if given.cuttings and given.bidirectional:
        raise ValueError("a Bidirectional has cuttings, expected none: one half runs backwards")
    if given.dy is not None and given.dy.shape != (B, T, what.units):
        raise ValueError(f"dy has shape {given.dy.shape}, expected {(B, T, what.units)}")


def _check_origin(given: Given, variant: Variant) -> None:
    """Provenance and proof, or what stands in for them."""
    for what, told in (("provenance", variant.provenance), ("proof", variant.proof)):
        try:
            json.dumps(told, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{what} is not JSON: {error}") from None
    if variant.stood_in:
        if variant.proof:
            raise ValueError("a stand-in has a proof, expected none: cuDNN did not compute it")
        return
    wanted = (("provenance", variant.provenance, PROVENANCE), ("proof", variant.proof, PROOF))
    for what, told, fields in wanted:
        for name, kind in fields.items():
            if type(told.get(name)) is not kind or told[name] in ("", {}):
                raise ValueError(
                    f"{what} has {name} {told.get(name)!r}, expected a {kind.__name__}, because"
                    " without it nobody knows what was recorded"
                )
    chunks = sum(sum(size > 0 for size in sizes) for sizes in given.cuttings if variant.chunked)
    if variant.proof["calls"] < 1 + chunks:
        raise ValueError(
            f"proof has {variant.proof['calls']} calls of cuDNN, expected at least {1 + chunks}:"
            " one for the whole and one for each chunk"
        )


def _check_arrays(given: Given, variant: Variant) -> None:
    if variant.precision not in verify.PRECISIONS:
        raise ValueError(
            f"precision is {variant.precision!r}, expected one of {', '.join(verify.PRECISIONS)}"
        )
    numbers = STORED.get(variant.precision, float32)
    for array in (*given.weights, given.x, *(given.state or ())):
        if not np.array_equal(numbers(array), array):
            raise ValueError(
                f"is given numbers that {variant.precision} does not have, expected none, because"
                " it cannot have computed with them"
            )
    what = subject(given.built("float64"))
    B, T, _ = given.x.shape
    if len(variant.chunked) not in (0, len(given.cuttings)):
        raise ValueError(
            f"has {len(variant.chunked)} chunked runs, expected none or {len(given.cuttings)}: one"
            " for each of the cuttings"
        )
    dtype = variant.precision if variant.precision in ("float64", "float16") else "float32"
    states = [f"{p.way}.{n}" if p.way else n for p in what.parts for n in p.states]
    for run in (variant.outputs, *variant.chunked):
        what.checked(run, B, T)
        if run["y"].ndim < 3 or set(states) - set(run):
            raise ValueError(f"shows {sorted(run)}, expected all outputs y and {states}")
        for name, array in run.items():
            if array.dtype.name != dtype or not np.array_equal(numbers(array), array):
                raise ValueError(f"{name} is {array.dtype}, expected {dtype} and no NaN")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} has numbers that are not finite, expected finite ones")
    if variant.gradients:
        _check_gradients(given, variant)


def _check_gradients(given: Given, variant: Variant) -> None:
    if given.dy is None or given.bidirectional:
        raise ValueError("has gradients, expected dy to be given, and one direction")
    shapes = {"x": given.x.shape}
    shapes |= dict(zip(WEIGHTS, (a.shape for a in given.weights), strict=True))
    shapes |= dict(zip("hc", (part.shape for part in given.state or ()), strict=False))
    for name, array in variant.gradients.items():
        if array.shape != shapes.get(name) or not np.isfinite(array).all():
            raise ValueError(
                f"gradient {name!r} has shape {array.shape}, expected finite numbers of one of"
                f" {shapes}"
            )
