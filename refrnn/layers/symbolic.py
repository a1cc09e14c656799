"""Layers called on arrays yet to come: `Input`, and the record from which a model is made.

What a layer will return is found by trying it, as Keras does on NumPy: it is run on zeros twice,
with two numbers in place of each size that is not known; what differs then is not known either.
"""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from refrnn.layers import context
from refrnn.layers.masks import leaves, map_arrays
from refrnn.layers.names import unique_name

Shape = tuple[int | None, ...]
TRIALS = (1, 61), (2, 127)  # rows, and other sizes that are not known
_serial = itertools.count()


@dataclass(eq=False)
class Call:
    """One call of a layer; the arrays yet to come among its arguments are `Symbol`s."""

    layer: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    serial: int = field(default_factory=lambda: next(_serial))


@dataclass(eq=False)
class Symbol:
    """An array yet to come: an `Input`, or what a layer returns when it is called on one.

    shape  the batch first; None for a size that is not known yet
    dtype  by name
    call   what returns it, as its array number `index`; None for an Input
    """

    name: str
    shape: Shape
    dtype: str
    call: Call | None = None
    index: int = 0

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            f"{self!r} has no numbers yet, expected an array; combine the inputs of a model by"
            " layers, such as layers.Add()([a, b]), then make refrnn.Model(inputs, outputs)"
        )

    def __repr__(self) -> str:
        return f"<Symbol {self.name!r}, shape={self.shape}, dtype={self.dtype}>"


def Input(
    shape: Any = None,
    batch_size: int | None = None,
    dtype: Any = None,
    name: str | None = None,
    batch_shape: Any = None,
) -> Symbol:
    """A model's input, as `keras.layers.Input`.

    shape        without the batch, None for sizes that vary: (None, 8) for sequences of 8 features
    batch_shape  with the batch, in place of shape and batch_size
    dtype        "float32" by default; what the model is given is cast to it
    """
    who = "Input" if name is None else f"Input {name!r}"
    if (shape is None) == (batch_shape is None):
        raise ValueError(
            f"{who}: shape is {shape!r} and batch_shape is {batch_shape!r}, expected one of them:"
            " shape without the batch, batch_shape with it"
        )
    sizes = _sizes(who, batch_shape) if shape is None else (batch_size, *_sizes(who, shape))
    if not sizes:
        raise ValueError(f"{who}: batch_shape is {batch_shape!r}, expected the batch at least")
    if name is not None and (not isinstance(name, str) or not name or "/" in name):
        raise ValueError(f"{who}: name is {name!r}, expected a string without '/'")
    try:
        kind = np.dtype("float32" if dtype is None else dtype).name
    except TypeError:
        raise ValueError(f"{who}: dtype is {dtype!r}, expected a dtype of NumPy") from None
    return Symbol(name or unique_name("InputLayer"), sizes, kind)


def _sizes(who: str, shape: Any) -> Shape:
    sizes = tuple(shape) if isinstance(shape, list | tuple) else (shape,)
    for n in sizes:
        if n is not None and (isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 0):
            raise ValueError(f"{who}: shape is {shape!r}, expected whole numbers, or None")
    return tuple(n if n is None else int(n) for n in sizes)


def symbols(arguments: Any) -> list[Symbol]:
    """The arrays yet to come among the arguments of a call, in order."""
    return [leaf for leaf in leaves(arguments) if isinstance(leaf, Symbol)]


def record(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a call of `layer` on symbols will return, as symbols; the layer is built for them.

    Raises what the layer raises for arrays of those shapes.
    """
    if not layer.built:
        layer.build_on(*args, **kwargs)
    runs = []
    for rows, size in TRIALS:
        mine = copy.deepcopy(layer, {id(w): w for w in layer.weights})  # its weights are shared
        given, named = map_arrays(partial(_zeros, rows, size), [list(args), kwargs])
        with np.errstate(all="ignore"), context.of(context.trial, True):
            runs.append(mine(*given, **named))
    call = Call(layer, args, kwargs)
    shapes = zip(*map(leaves, runs), strict=True)
    found: Iterator[Symbol] = (
        Symbol(
            layer.name,
            tuple(n if n == m else None for n, m in zip(a.shape, b.shape, strict=True)),
            a.dtype.name,
            call,
            k,
        )
        for k, (a, b) in enumerate(shapes)
    )
    return map_arrays(lambda _: next(found), runs[0])


def _zeros(rows: int, size: int, leaf: Any) -> Any:
    if not isinstance(leaf, Symbol):
        return leaf
    batch, *rest = leaf.shape
    shape = (rows if batch is None else batch, *(size if n is None else n for n in rest))
    return np.zeros(shape, leaf.dtype)
