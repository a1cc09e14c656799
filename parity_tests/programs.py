"""Random models as short programs, to be made of Keras's layers or of refrnn's by the same lines.

A program knows the shape of every value, so that each line is one that Keras takes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from refrnn.layers.masks import leaves

Shape = tuple[int, ...]  # the batch left out

ACTIVATIONS = ("tanh", "relu", "sigmoid", "elu", "softsign", "hard_sigmoid", "linear", "softmax")
GATES = ("sigmoid", "hard_sigmoid", "tanh", "softsign")
# those that neither explode along a chain of layers nor hide most of what came before
AROUND = ("tanh", "relu", "sigmoid", "elu", "gelu", "silu", "softplus", "mish", "leaky_relu",
          "hard_sigmoid", "softmax")  # fmt: skip
MASK_VALUES = (0.0, 0.5)
DTYPES = ("float32", "float64")


@dataclass(frozen=True, repr=False)
class Made:
    """A layer or cell by its class and arguments, to be made of Keras's classes or refrnn's."""

    kind: str
    options: dict[str, Any]

    def make(self, library: Any, dtype: str) -> Any:
        def made(value: Any) -> Any:
            if isinstance(value, list):
                return [made(part) for part in value]
            return value.make(library, dtype) if isinstance(value, Made) else value

        dtype = self.options.get("dtype", dtype)
        options = {name: made(value) for name, value in self.options.items()}
        return getattr(library.layers, self.kind)(**{"dtype": dtype, **options})

    def __repr__(self) -> str:
        return f"{self.kind}({', '.join(f'{k}={v!r}' for k, v in self.options.items())})"


class Entry(NamedTuple):
    """An Input.

    kind   "floats", "ids" or "mask"
    fixed  whether its number of steps is known in a program that leaves them open
    """

    shape: Shape
    kind: str = "floats"
    fixed: bool = False


class Call(NamedTuple):
    """A layer called on values, by their numbers: inputs, the state and the mask."""

    layer: int
    inputs: tuple[int, ...]
    state: tuple[int, ...] = ()
    mask: int | None = None


@dataclass(frozen=True, repr=False)
class Program:
    """A model, line by line: each gives one value or several, numbered from 0.

    form   "chain" (Sequential), "bare chain" (without an Input), "list" or "dict" (of outputs)
    rows   the batch, where it is fixed
    open   whether the number of time steps is left open
    """

    lines: tuple[Entry | Call, ...]
    layers: tuple[Any, ...]  # Made, or Program for a model inside
    counts: tuple[int, ...]  # how many values each line gives
    outputs: tuple[int, ...]
    form: str
    dtype: str
    rows: int | None
    open: bool

    @property
    def entries(self) -> list[Entry]:
        return [line for line in self.lines if isinstance(line, Entry)]

    def make(self, library: Any) -> Any:
        """The model, of `library.layers`, `library.Model` and `library.Sequential`."""
        layers = [
            layer.make(library, self.dtype) if isinstance(layer, Made) else layer.make(library)
            for layer in self.layers
        ]
        if self.form == "bare chain":
            return library.Sequential(layers)
        values: list[Any] = []
        inputs: list[Any] = []
        for line in self.lines:
            if isinstance(line, Entry):
                inputs.append(self._input(library, line))
                values.append(inputs[-1])
            elif self.form != "chain":
                values += self._called(layers[line.layer], line, values)
        if self.form == "chain":
            return library.Sequential([*inputs, *layers])
        results = [values[k] for k in self.outputs]
        named = dict(zip(self.names, results, strict=True))
        return library.Model(inputs, named if self.form == "dict" else results)

    @property
    def names(self) -> list[str]:
        """The outputs by name, in the order opposite to that of the alphabet."""
        return [f"{chr(ord('z') - k)}" for k in range(len(self.outputs))]

    def _input(self, library: Any, entry: Entry) -> Any:
        timed = len(entry.shape) > 1 or entry.kind != "floats"
        unknown = self.open and timed and not entry.fixed
        shape = (None, *entry.shape[1:]) if unknown else entry.shape
        dtype = {"floats": self.dtype, "ids": "int32", "mask": "bool"}[entry.kind]
        return library.layers.Input(batch_shape=(self.rows, *shape), dtype=dtype)

    def _called(self, layer: Any, call: Call, values: list[Any]) -> list[Any]:
        given = [values[k] for k in call.inputs]
        options: dict[str, Any] = {}
        if call.state:
            options["initial_state"] = [values[k] for k in call.state]
        if call.mask is not None:
            options["mask"] = values[call.mask]
        found = layer(given if len(given) > 1 else given[0], **options)
        if isinstance(found, dict):
            return [found[name] for name in self.layers[call.layer].names]
        return leaves(found)

    def __repr__(self) -> str:
        head = f"{self.form} of {self.dtype}, rows={self.rows}, open={self.open}"
        return "\n".join([head, *self._text("    ")])

    def _text(self, indent: str) -> list[str]:
        text, number = [], 0
        for line, count in zip(self.lines, self.counts, strict=True):
            to = ", ".join(f"v{number + k}" for k in range(count))
            number += count
            if isinstance(line, Entry):
                text.append(f"{indent}{to} = Input({line.shape}, {line.kind})")
                continue
            layer = self.layers[line.layer]
            if isinstance(layer, Program):
                text += [f"{indent}f{line.layer} = {layer.form}:", *layer._text(indent + "    ")]
                name = f"f{line.layer}"
            else:
                name = f"{layer!r}[{line.layer}]"
            given = ", ".join(f"v{k}" for k in line.inputs)
            given += f", initial_state={line.state}" if line.state else ""
            given += f", mask=v{line.mask}" if line.mask is not None else ""
            text.append(f"{indent}{to} = {name}({given})")
        return [*text, f"{indent}return {', '.join(f'v{k}' for k in self.outputs)}"]


def coin(rng: Random) -> bool:
    return rng.random() < 0.5


def few(rng: Random) -> int:
    return rng.randint(1, 4)


def some(rng: Random, **options: Any) -> dict[str, Any]:
    """Some of the options, each with one of its values."""
    return {name: rng.choice(values) for name, values in options.items() if rng.random() < 0.4}


class World(NamedTuple):
    """What all layers of a model share.

    rows   the batch, where it is fixed
    steps  of its sequences
    open   whether that number is left open
    """

    dtype: str
    rows: int | None
    steps: int
    open: bool


class Value(NamedTuple):
    """What the lines of a program give.

    kind   as of an Entry
    fixed  as of an Entry
    masked whether it may have a mask
    deep   T2 of a mask (B, T, T2), which a grid may have been given, and all that came of it have;
           0 for none
    """

    shape: Shape
    kind: str = "floats"
    fixed: bool = False
    masked: bool = False
    deep: int = 0

    @property
    def misfit(self) -> bool:
        """Whether its mask has outlived its shape: Keras keeps it, and fails where it is used."""
        return self.deep > 0 and (len(self.shape) < 3 or self.shape[1] != self.deep)


Layer = tuple[Made, list[Shape]]  # and the shapes of what it returns


def anywhere(rng: Random, shape: Shape, open: bool, masked: bool) -> Layer:
    """A layer that takes any shape, element by element or along an axis."""
    axes = [-1] if open else [-1, *range(1, len(shape) + 1)]
    axis = rng.choice(axes)
    shared = [*range(1, len(shape))]
    table: dict[str, Callable[[], dict[str, Any]]] = {
        "Activation": lambda: {"activation": rng.choice(AROUND)},
        "BatchNormalization": lambda: {
            **({"axis": axis} if axis > 0 else {}),
            **some(rng, center=[False], scale=[False], epsilon=[0.01]),
        },
        "LayerNormalization": lambda: {
            "axis": rng.choice([axis, *([shared[:2]] if len(shared) > 1 and not open else [])]),
            **some(rng, center=[False], scale=[False], epsilon=[0.01]),
        },
        "UnitNormalization": lambda: {"axis": axis},
        "GroupNormalization": lambda: {
            "groups": rng.choice([n for n in range(1, 5) if shape[-1] % n == 0])
        },
        "Rescaling": lambda: {"scale": 0.5, **some(rng, offset=[0.25])},
        "ReLU": lambda: some(rng, max_value=[1.5], negative_slope=[0.25], threshold=[0.5]),
        "LeakyReLU": lambda: some(rng, negative_slope=[0.1]),
        "ELU": lambda: some(rng, alpha=[0.5]),
        "PReLU": lambda: {"shared_axes": shared} if open else some(rng, shared_axes=[shared[:1]]),
        "Dropout": lambda: {"rate": 0.5},
        "GaussianNoise": lambda: {"stddev": 0.5},
        "GaussianDropout": lambda: {"rate": 0.5},
        "AlphaDropout": lambda: {"rate": 0.5},
        "ActivityRegularization": lambda: {"l2": 0.5},
        "Identity": dict,
    }
    if not masked:  # as a mask Softmax wants one for each element
        table["Softmax"] = lambda: {"axis": axis}
    kind = rng.choice(list(table))
    return Made(kind, table[kind]()), [shape]


def dense(rng: Random, shape: Shape) -> Layer:
    units = few(rng)
    return (
        Made("Dense", {"units": units, **some(rng, activation=AROUND, use_bias=[False])}),
        [(*shape[:-1], units)],
    )


def windowed(rng: Random, shape: Shape) -> Layer:
    """A convolution or pooling along time."""
    T, F = shape
    kind = rng.choice(("Conv1D", "MaxPooling1D", "AveragePooling1D", "SeparableConv1D",
                                 "DepthwiseConv1D"))  # fmt: skip
    pool = kind.endswith("Pooling1D")
    size, stride = rng.randint(1, min(T, 3)), rng.randint(1, 2)
    apart = 1 if pool or stride > 1 or 2 * size - 1 > T else rng.randint(1, 2)
    padding = rng.choice(("valid", "same", *(["causal"] if kind == "Conv1D" else [])))
    fits = (T - apart * (size - 1) - 1) // stride + 1
    after = fits if padding == "valid" else -(-T // stride)
    options = {"pool_size" if pool else "kernel_size": size, "strides": stride, "padding": padding}
    if pool:
        return Made(kind, options), [(after, F)]
    options |= {"dilation_rate": apart, **some(rng, activation=AROUND, use_bias=[False])}
    if kind == "DepthwiseConv1D":
        return Made(kind, {**options, "depth_multiplier": 2}), [(after, 2 * F)]
    filters = few(rng)
    if kind == "Conv1D":
        groups = [n for n in (1, 2) if F % n == filters % n == 0]
        options["groups"] = rng.choice(groups)
    return Made(kind, {"filters": filters, **options}), [(after, filters)]


def reshaping(rng: Random, shape: Shape, open: bool) -> Layer:
    """A layer that moves numbers, and others of sequences that have no weights."""
    if len(shape) == 1:
        table: dict[str, tuple[dict[str, Any], Shape]] = {
            "RepeatVector": ({"n": 3}, (3, *shape)),
            "Reshape": ({"target_shape": (*shape, 1)}, (*shape, 1)),
            "Flatten": ({}, shape),
        }
    elif len(shape) == 2:
        T, F = shape
        keep = coin(rng)
        value = rng.choice(MASK_VALUES)
        table = {
            "Masking": ({"mask_value": value}, shape),
            "SpatialDropout1D": ({"rate": 0.5}, shape),
            "GlobalAveragePooling1D": ({"keepdims": keep}, (1, F) if keep else (F,)),
            "GlobalMaxPooling1D": ({"keepdims": keep}, (1, F) if keep else (F,)),
            "UpSampling1D": ({"size": 2}, (2 * T, F)),
            "ZeroPadding1D": ({"padding": (1, 0)}, (T + 1, F)),
        }
        if T > 2:
            table["Cropping1D"] = {"cropping": (0, 1)}, (T - 1, F)
        if not open:
            table["Permute"] = {"dims": (2, 1)}, (F, T)
            table["Flatten"] = {}, (T * F,)
            table["Reshape"] = {"target_shape": (F, T)}, (F, T)
    else:
        T, T2, F = shape
        table = {"Masking": ({"mask_value": rng.choice(MASK_VALUES)}, shape)}
        if not open:
            table["Reshape"] = {"target_shape": (T, T2 * F)}, (T, T2 * F)
            table["Permute"] = {"dims": (2, 1, 3)}, (T2, T, F)
    kind = rng.choice(list(table))
    return Made(kind, table[kind][0]), [table[kind][1]]


FIXING = ("RepeatVector", "Reshape", "keepdims=True", "Dot(axes=1")  # their steps are known
RETURNS = ("return_sequences", "return_state", "stateful")
CELLS = ("SimpleRNN", "GRU", "LSTM")


def cell_options(rng: Random, kind: str, units: int) -> dict[str, Any]:
    """Arguments of a cell; they change its numbers, or must not."""
    more: dict[str, Any] = {}
    if kind != "SimpleRNN":
        more = {"recurrent_activation": GATES, "implementation": [1]}
    if kind == "GRU":
        more["reset_after"] = [False]
    if kind == "LSTM":
        more["unit_forget_bias"] = [False]
    found = some(rng, activation=ACTIVATIONS, use_bias=[False], dropout=[0.5], **more)
    return {"units": units, **found, **some(rng, recurrent_dropout=[0.5])}


def recurrent(
    rng: Random,
    shape: Shape,
    world: World,
    units: int | None = None,
    single: bool = False,
    kinds: tuple[str, ...] = (*CELLS, *CELLS, "RNN", "stack"),
) -> Layer:
    """A recurrent layer, of a class of its own or of any cells.

    units   how many there must be; of CELLS alone
    single  whether there is to be one output
    """
    kind = rng.choice(kinds if units is None else [k for k in kinds if k in CELLS])
    flags = some(rng, go_backwards=[True], zero_output_for_mask=[True])
    flags |= {"return_sequences": True} if rng.random() < 0.7 else {}
    flags |= {} if single else some(rng, return_state=[True])
    flags |= {} if world.rows is None else some(rng, stateful=[True])
    if not world.open and not flags.keys() >= {"go_backwards", "zero_output_for_mask"}:
        flags |= some(rng, unroll=[True])  # with both, Keras reads a mask the wrong way round
    stack = [rng.choice(CELLS), rng.choice(CELLS)] if kind == "stack" else [kind]
    stack = [rng.choice(CELLS)] if kind == "RNN" else stack
    given = [cell_options(rng, one, units or few(rng)) for one in stack]
    if kind in CELLS:
        made = Made(kind, given[0] | flags)
    else:
        cells = [Made(f"{one}Cell", options) for one, options in zip(stack, given, strict=True)]
        # not a bare list: Keras makes a stack of it that rounds to its own dtype, float32
        inside = Made("StackedRNNCells", {"cells": cells}) if kind == "stack" else cells[0]
        made = Made("RNN", {"cell": inside, **flags})
    widths = [options["units"] for options in given]
    y = (shape[0], widths[-1]) if "return_sequences" in flags else (widths[-1],)
    states: list[Shape] = []
    for one, width in zip(stack, widths, strict=True):
        states += [(width,)] * (2 if one == "LSTM" else 1)
    return made, [y, *(states if "return_state" in flags else [])]


def bidirectional(rng: Random, shape: Shape, world: World, single: bool = False) -> Layer:
    """A pair of recurrent layers, the second drawn on its own or left to Keras."""
    merge = rng.choice(("concat", "sum", "mul", "ave", *([] if single else [None])))
    forward, (y, *states) = recurrent(rng, shape, world, single=single)
    one = forward.options
    for name in ("unroll", "go_backwards"):  # unrolled, Keras reads a mask the wrong way round
        one.pop(name, None)
    if "return_state" in one:
        one.pop("stateful", None)  # an error in Keras
    made: dict[str, Any] = {"layer": forward, "merge_mode": merge}
    kinds = CELLS
    if "return_state" in one:  # Keras takes the states of both to be alike
        same = ("LSTM",) if forward.kind == "LSTM" else ("SimpleRNN", "GRU")
        kinds = same if forward.kind in CELLS else ()
    if kinds and coin(rng):
        backward, _ = recurrent(rng, shape, world, y[-1], single, kinds)
        two = {k: v for k, v in backward.options.items() if k not in ("unroll", *RETURNS)}
        two |= {name: True for name in RETURNS if name in one}
        made["backward_layer"] = Made(backward.kind, two | {"go_backwards": True})
    merged = [y, y] if merge is None else [(*y[:-1], y[-1] * (1 + (merge == "concat")))]
    return Made("Bidirectional", made), [*merged, *states, *states]


def distributed(rng: Random, value: Value, world: World) -> Layer:
    """A layer at every step, which cannot carry a state."""
    inner, world = value.shape[1:], world._replace(rows=None)
    makers: list[Callable[[], Layer]] = [
        lambda: dense(rng, inner),
        lambda: anywhere(rng, inner, open=False, masked=value.masked),
        lambda: reshaping(rng, inner, open=False),
    ]
    if len(inner) == 2 and value.masked and not value.deep:
        makers.pop()  # the mask (B, T) would be taken for that of the sequences in the grid
    elif len(inner) == 2:
        makers += [
            lambda: recurrent(rng, inner, world, single=True),
            lambda: bidirectional(rng, inner, world, single=True),
            lambda: windowed(rng, inner),
        ]
    made, [after] = rng.choice(makers)()
    return Made("TimeDistributed", {"layer": made}), [(value.shape[0], *after)]


def layer(rng: Random, value: Value, world: World, single: bool) -> Layer:
    """Any layer of one input."""
    shape = value.shape
    makers: list[Callable[[], Layer]] = [
        lambda: dense(rng, shape),
        lambda: anywhere(rng, shape, world.open, value.masked),
    ]
    if value.misfit:
        return rng.choice(makers)()
    makers.append(lambda: reshaping(rng, shape, world.open))
    if len(shape) == 2:
        makers += 4 * [lambda: recurrent(rng, shape, world, single=single)]
        makers += 2 * [lambda: bidirectional(rng, shape, world, single)]
        makers += [lambda: windowed(rng, shape)]
    if len(shape) > 1:
        makers.append(lambda: distributed(rng, value, world))
    return rng.choice(makers)()


class Sketch:
    """A program while it is drawn."""

    def __init__(self, rng: Random, world: World, inside: bool) -> None:
        self.rng, self.world, self.inside = rng, world, inside
        self.lines: list[Entry | Call] = []
        self.layers: list[Any] = []
        self.counts: list[int] = []
        self.values: list[Value] = []
        self.used: set[int] = set()

    def enter(self, shape: Shape, kind: str = "floats", fixed: bool = False) -> int:
        self.lines.append(Entry(shape, kind, fixed))
        self.counts.append(1)
        self.values.append(Value(shape, kind, fixed))
        return len(self.values) - 1

    def call(self, call: Call, shapes: list[Shape]) -> None:
        self.lines.append(call)
        self.counts.append(len(shapes))
        made = self.layers[call.layer]
        given = [self.values[k] for k in call.inputs]
        grids = [v.shape[1] for v in given if len(v.shape) > 2 and "Masking" in repr(made)]
        deep = max([*grids, *(v.deep for v in given)])
        fixed = any(v.fixed for v in given) or any(name in repr(made) for name in FIXING)
        own = "Masking" in repr(made) or "mask_zero=True" in repr(made)
        masked = own or any(v.masked for v in given)
        self.values += [Value(n, "floats", fixed and len(n) > 1, masked, deep) for n in shapes]
        self.used |= {*call.inputs, *call.state, *([] if call.mask is None else [call.mask])}

    def add(self, made: Any, shapes: list[Shape], *inputs: int, **others: Any) -> None:
        if isinstance(made, Made) and self.rng.randint(0, 11) == 11:
            made.options["dtype"] = DTYPES[self.world.dtype == "float32"]
        self.layers.append(made)
        self.call(Call(len(self.layers) - 1, inputs, **others), shapes)

    def pick(self, *ranks: int) -> int | None:
        """One of the values of these ranks, the latest for preference."""
        found = [k for k, v in enumerate(self.values) if v.kind == "floats"]
        found = [k for k in found if len(self.values[k].shape) in ranks]
        return self.rng.choice(found[::-1]) if found else None

    def like(self, shape: Shape, fixed: bool = False, masked: bool = True) -> int:
        """A value of that shape, a new input perhaps; with a mask only where that is right."""
        wanted = [Value(shape, "floats", fixed, known) for known in (False, masked)]
        found = [k for k, v in enumerate(self.values) if v in wanted]
        if found and (coin(self.rng) or not self.open_for(shape, fixed)):
            return self.rng.choice(found)
        return self.enter(shape, fixed=fixed)

    def open_for(self, shape: Shape, fixed: bool) -> bool:
        """Whether an input may stand beside a value; refrnn takes open ones to have equal steps."""
        return not self.world.open or fixed or len(shape) == 1 or shape[0] == self.world.steps

    # --- lines ---

    def begin(self) -> None:
        """The first input, and the embedding of ids."""
        kind = self.rng.choice(("sequence", "sequence", "ids", "ids", "grid"))
        if kind == "ids":
            width = few(self.rng)
            options = {"input_dim": 7, "output_dim": width, "mask_zero": coin(self.rng)}
            self.add(
                Made("Embedding", options),
                [(self.world.steps, width)],
                self.enter((self.world.steps,), "ids"),
            )
        else:
            grid = (3,) if kind == "grid" else ()
            self.enter((self.world.steps, *grid, few(self.rng)))

    def new(self, single: bool = False) -> None:
        """A layer of one input, with a mask of its own now and then."""
        k = self.pick(1, 2, 3)
        assert k is not None
        value = self.values[k]
        made, shapes = layer(self.rng, value, self.world, single)
        masked = made.kind in (*CELLS, "RNN", "Bidirectional") and not single
        given = masked and coin(self.rng) and self.open_for(value.shape, value.fixed)
        mask = self.enter(value.shape[:1], "mask", value.fixed) if given else None
        self.add(made, shapes, k, mask=mask)

    def begun(self) -> None:
        """A recurrent layer that begins with given states."""
        k = self.pick(2)
        if k is None or self.values[k].misfit:
            return self.new()
        vectors = [v.shape[0] for v in self.values if len(v.shape) == 1 and v.kind == "floats"]
        units = self.rng.choice(vectors) if vectors else few(self.rng)
        made, shapes = recurrent(self.rng, self.values[k].shape, self.world, units)
        state = tuple(self.like((units,)) for _ in range(1 + (made.kind == "LSTM")))
        return self.add(made, shapes, k, state=state)

    def again(self) -> None:
        """A layer that was called before, on another value or the same."""
        calls = [(n, x) for n, x in self.numbered() if isinstance(x, Call) and not x.state
                 and len(x.inputs) == 1 and self.values[x.inputs[0]].kind == "floats"]  # fmt: skip
        if not calls:
            return self.new()
        first, call = self.rng.choice(calls)
        count = self.counts[self.lines.index(call)]
        shapes = [v.shape for v in self.values[first : first + count]]
        before = self.values[call.inputs[0]]
        masked = "Softmax(" not in repr(self.layers[call.layer])
        value = self.like(before.shape, before.fixed, masked)
        return self.call(Call(call.layer, (value,)), shapes)

    def numbered(self) -> list[tuple[int, Entry | Call]]:
        """The lines so far, each with the number of the first value that it gave."""
        firsts = [sum(self.counts[:k]) for k in range(len(self.lines))]
        return list(zip(firsts, self.lines, strict=True))

    def merge(self) -> None:
        """Two values or three of one shape made one."""
        k = self.pick(1, 2, 3)
        assert k is not None
        if self.values[k].misfit:
            return self.new()
        shape, fixed = self.values[k].shape, self.values[k].fixed
        kind = self.rng.choice(("Add", "Concatenate", "Multiply", "Average", "Maximum",
                                          "Minimum", "Subtract", "Dot"))  # fmt: skip
        pair = kind in ("Subtract", "Dot")
        count = 2 if pair else self.rng.randint(2, 3)
        inputs = [k, *(self.like(shape, fixed) for _ in range(count - 1))]
        made: dict[str, Any] = {}
        after = shape
        if kind == "Dot" and len(shape) > 2:
            kind = "Add"
        if kind == "Dot":
            axis = 1 if self.world.open else self.rng.randint(1, len(shape))
            made = {"axes": axis, "normalize": coin(self.rng)}
            rest = [n for i, n in enumerate(shape, 1) if i != axis]
            after = (*rest, *rest) or (1,)
        if kind == "Concatenate":
            axis = self.rng.choice([-1, *range(1, len(shape) + 1)])
            made = {"axis": axis}
            place = axis - 1 if axis > 0 else len(shape) - 1
            after = tuple(n * count if i == place else n for i, n in enumerate(shape))
        return self.add(Made(kind, made), [after], *inputs)

    def nest(self) -> None:
        """A model inside."""
        k = self.pick(2, 3)
        if k is None or self.values[k].misfit:
            return self.new()
        form = self.rng.choice(("chain", "list", "dict"))
        inner = Sketch(self.rng, self.world, inside=True)
        inner.enter(self.values[k].shape, fixed=self.values[k].fixed)
        inner.values[0] = self.values[k]
        program = inner.finish(form, self.rng.randint(1, 3))
        inputs = [k]
        for entry in program.entries[1:]:
            if entry.kind == "floats":
                inputs.append(self.like(entry.shape, entry.fixed, masked=False))
            else:
                inputs.append(self.enter(*entry))
        return self.add(program, [inner.values[k].shape for k in program.outputs], *inputs)

    # --- the whole ---

    def finish(self, form: str, count: int) -> Program:
        """The program after `count` lines more; all values that nothing takes are its outputs."""
        if "chain" in form:
            for _ in range(count):
                self.last()
        else:
            ways = [self.new, self.new, self.begun, self.begun, self.again, self.merge]
            for _ in range(count):
                self.rng.choice(ways if self.inside else [*ways, self.nest])()
        ends = [k for k in range(len(self.values)) if k not in self.used]
        more = [k for k in sorted(self.used) if self.values[k].kind == "floats"]
        if self.inside:  # Keras takes a model that returns its input for a cycle
            starts = [n for n, line in self.numbered() if isinstance(line, Entry)]
            more = [k for k in more if k not in starts]
        if "chain" not in form and more and coin(self.rng):
            ends.append(self.rng.choice(more))
        world = self.world
        return Program(tuple(self.lines), tuple(self.layers), tuple(self.counts), tuple(ends), form,
                       world.dtype, world.rows, world.open)  # fmt: skip

    def last(self) -> None:
        """A layer more, of a chain."""
        made, shapes = layer(self.rng, self.values[-1], self.world, single=True)
        self.add(made, shapes, len(self.values) - 1)


def random_program(seed: int, count: int, steps: int) -> Program:
    """A model of `count` layers (the embedding not counted) over sequences of `steps`.

    With a smaller count it is the beginning of the same program.
    """
    rng = Random(seed)
    rows = rng.choice((None, 3))
    world = World(rng.choice(DTYPES), rows, steps, coin(rng))
    form = rng.choice(("list", "list", "dict", "chain", *(["bare chain"] if not rows else [])))
    sketch = Sketch(rng, world, inside=False)
    sketch.begin()
    return sketch.finish(form, count)
