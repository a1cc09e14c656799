"""What Hypothesis draws: cases (shapes, options and a seed), ways to cut a sequence, and models."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from hypothesis import strategies as st

from refrnn.cases import MASKS, Case
from refrnn.layers.masks import leaves

ACTIVATIONS = ("tanh", "relu", "sigmoid", "elu", "softsign", "hard_sigmoid", "linear", "softmax")
GATES = ("sigmoid", "hard_sigmoid", "tanh", "softsign")


@st.composite
def options(draw: st.DrawFn, layer: str) -> dict[str, Any]:
    """Arguments of `layer` that change its numbers, or must not; few at a time."""
    flags = ["go_backwards", "zero_output_for_mask", "unroll"]
    chosen: dict[str, Any] = dict.fromkeys(draw(st.sets(st.sampled_from(flags))), True)
    if draw(st.booleans()):
        chosen["use_bias"] = False
    if draw(st.booleans()):
        chosen["activation"] = draw(st.sampled_from(ACTIVATIONS))
    if layer != "SimpleRNN":
        if draw(st.booleans()):
            chosen["recurrent_activation"] = draw(st.sampled_from(GATES))
        if draw(st.booleans()):
            chosen["implementation"] = 1
    if layer == "GRU" and draw(st.booleans()):
        chosen["reset_after"] = False
    if chosen.keys() >= {"go_backwards", "zero_output_for_mask", "unroll"}:
        del chosen["unroll"]  # Keras reads the mask the wrong way round there: see test_grid.py
    return chosen


@st.composite
def cases(draw: st.DrawFn, dtypes: tuple[str, ...] = ("float64",), max_steps: int = 8) -> Case:
    layer = draw(st.sampled_from(("SimpleRNN", "GRU", "LSTM")))
    return Case(
        layer=layer,
        rows=draw(st.integers(1, 5)),
        steps=draw(st.integers(1, max_steps)),
        features=draw(st.integers(1, 6)),
        units=draw(st.integers(1, 7)),
        dtype=draw(st.sampled_from(dtypes)),
        mask=draw(st.sampled_from((None, *MASKS))),
        state=draw(st.booleans()),
        seed=draw(st.integers(0, 2**16)),
        options=draw(options(layer)),
    )


@st.composite
def cuttings(draw: st.DrawFn, steps: int) -> list[int]:
    """Chunk lengths that add up to `steps`, empty chunks among them."""
    cuts = sorted(draw(st.lists(st.integers(0, steps), max_size=4)))
    return [b - a for a, b in zip([0, *cuts], [*cuts, steps], strict=True)]


# --- random models ---

Shape = tuple[int, ...]  # the batch left out

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


def some(draw: st.DrawFn, **options: Any) -> dict[str, Any]:
    """Some of the options, a value for each drawn from its strategy or list."""
    chosen = draw(st.sets(st.sampled_from(sorted(options)))) if options else set()
    return {name: drawn(draw, options[name]) for name in sorted(chosen)}


def drawn(draw: st.DrawFn, values: Any) -> Any:
    return draw(values if isinstance(values, st.SearchStrategy) else st.sampled_from(values))


class World(NamedTuple):
    """What all layers of a model share: the dtype, the batch where it is fixed, open steps."""

    dtype: str
    rows: int | None
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
sizes = st.integers(1, 4)


def anywhere(draw: st.DrawFn, shape: Shape, open: bool, masked: bool) -> Layer:
    """A layer that takes any shape, element by element or along an axis."""
    axes = [-1] if open else [-1, *range(1, len(shape) + 1)]
    axis = draw(st.sampled_from(axes))
    shared = [*range(1, len(shape))]
    table: dict[str, Callable[[], dict[str, Any]]] = {
        "Activation": lambda: {"activation": drawn(draw, AROUND)},
        "BatchNormalization": lambda: {
            **({"axis": axis} if axis > 0 else {}),
            **some(draw, center=[False], scale=[False], epsilon=[0.01]),
        },
        "LayerNormalization": lambda: {
            "axis": drawn(draw, [axis, *([shared[:2]] if len(shared) > 1 and not open else [])]),
            **some(draw, center=[False], scale=[False], epsilon=[0.01]),
        },
        "UnitNormalization": lambda: {"axis": axis},
        "GroupNormalization": lambda: {
            "groups": drawn(draw, [n for n in range(1, 5) if shape[-1] % n == 0])
        },
        "Rescaling": lambda: {"scale": 0.5, **some(draw, offset=[0.25])},
        "ReLU": lambda: some(draw, max_value=[1.5], negative_slope=[0.25], threshold=[0.5]),
        "LeakyReLU": lambda: some(draw, negative_slope=[0.1]),
        "ELU": lambda: some(draw, alpha=[0.5]),
        "PReLU": lambda: {"shared_axes": shared} if open else some(draw, shared_axes=[shared[:1]]),
        "Dropout": lambda: {"rate": 0.5},
        "GaussianNoise": lambda: {"stddev": 0.5},
        "GaussianDropout": lambda: {"rate": 0.5},
        "AlphaDropout": lambda: {"rate": 0.5},
        "ActivityRegularization": lambda: {"l2": 0.5},
        "Identity": dict,
    }
    if not masked:  # as a mask Softmax wants one for each element
        table["Softmax"] = lambda: {"axis": axis}
    kind = draw(st.sampled_from(list(table)))
    return Made(kind, table[kind]()), [shape]


def dense(draw: st.DrawFn, shape: Shape) -> Layer:
    units = draw(sizes)
    return (
        Made("Dense", {"units": units, **some(draw, activation=AROUND, use_bias=[False])}),
        [(*shape[:-1], units)],
    )


def windowed(draw: st.DrawFn, shape: Shape) -> Layer:
    """A convolution or pooling along time."""
    T, F = shape
    kind = draw(st.sampled_from(("Conv1D", "MaxPooling1D", "AveragePooling1D", "SeparableConv1D",
                                 "DepthwiseConv1D")))  # fmt: skip
    pool = kind.endswith("Pooling1D")
    size, stride = draw(st.integers(1, min(T, 3))), draw(st.integers(1, 2))
    apart = 1 if pool or stride > 1 or 2 * size - 1 > T else draw(st.integers(1, 2))
    padding = draw(st.sampled_from(("valid", "same", *(["causal"] if kind == "Conv1D" else []))))
    fits = (T - apart * (size - 1) - 1) // stride + 1
    after = fits if padding == "valid" else -(-T // stride)
    options = {"pool_size" if pool else "kernel_size": size, "strides": stride, "padding": padding}
    if pool:
        return Made(kind, options), [(after, F)]
    options |= {"dilation_rate": apart, **some(draw, activation=AROUND, use_bias=[False])}
    if kind == "DepthwiseConv1D":
        return Made(kind, {**options, "depth_multiplier": 2}), [(after, 2 * F)]
    filters = draw(sizes)
    if kind == "Conv1D":
        groups = [n for n in (1, 2) if F % n == filters % n == 0]
        options["groups"] = draw(st.sampled_from(groups))
    return Made(kind, {"filters": filters, **options}), [(after, filters)]


def reshaping(draw: st.DrawFn, shape: Shape, open: bool) -> Layer:
    """A layer that moves numbers, and others of sequences that have no weights."""
    if len(shape) == 1:
        table: dict[str, tuple[dict[str, Any], Shape]] = {
            "RepeatVector": ({"n": 3}, (3, *shape)),
            "Reshape": ({"target_shape": (*shape, 1)}, (*shape, 1)),
            "Flatten": ({}, shape),
        }
    elif len(shape) == 2:
        T, F = shape
        keep = draw(st.booleans())
        value = draw(st.sampled_from(MASK_VALUES))
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
        table = {"Masking": ({"mask_value": draw(st.sampled_from(MASK_VALUES))}, shape)}
        if not open:
            table["Reshape"] = {"target_shape": (T, T2 * F)}, (T, T2 * F)
            table["Permute"] = {"dims": (2, 1, 3)}, (T2, T, F)
    kind = draw(st.sampled_from(list(table)))
    return Made(kind, table[kind][0]), [table[kind][1]]


FLAGS = ("go_backwards", "zero_output_for_mask", "unroll")
FIXING = ("RepeatVector", "Reshape", "keepdims=True", "Dot(axes=1")  # their steps are known
RETURNS = ("return_sequences", "return_state", "stateful")
CELLS = ("SimpleRNN", "GRU", "LSTM")


def recurrent(
    draw: st.DrawFn,
    shape: Shape,
    world: World,
    units: int | None = None,
    single: bool = False,
    kinds: tuple[str, ...] = (*CELLS, "RNN", "stack"),
) -> Layer:
    """A recurrent layer, of a class of its own or of any cells.

    units   how many there must be; of CELLS alone
    single  whether there is to be one output
    """
    kind = draw(st.sampled_from(kinds if units is None else [k for k in kinds if k in CELLS]))
    flags = {"return_sequences": True} if draw(st.sampled_from((False, True, True))) else {}
    flags |= some(
        draw,
        **({} if single else {"return_state": [True]}),
        **({} if world.rows is None else {"stateful": [True]}),
    )

    def cell(kind: str) -> dict[str, Any]:
        made = {"units": units or draw(sizes), **draw(options(kind))}
        more = {"dropout": [0.5], "recurrent_dropout": [0.5]}
        return made | some(
            draw, **more, **({"unit_forget_bias": [False]} if kind == "LSTM" else {})
        )

    if kind in CELLS:
        stack = [kind]
        made = Made(kind, cell(kind) | flags)
        widths = [made.options["units"]]
    else:
        count = 2 if kind == "stack" else 1
        stack = draw(st.lists(st.sampled_from(CELLS), min_size=count, max_size=count))
        found = [cell(one) for one in stack]
        widths = [one["units"] for one in found]
        for one in found:
            flags |= {name: one.pop(name) for name in FLAGS if name in one}
        if flags.keys() >= {*FLAGS}:
            del flags["unroll"]
        cells = [Made(f"{name}Cell", one) for name, one in zip(stack, found, strict=True)]
        # not a bare list: Keras makes a stack of it that rounds to its own dtype, float32
        inside = Made("StackedRNNCells", {"cells": cells}) if kind == "stack" else cells[0]
        made = Made("RNN", {"cell": inside, **flags})
    if world.open:
        made.options.pop("unroll", None)
    states = [
        (n,) for one, n in zip(stack, widths, strict=True) for _ in range(1 + (one == "LSTM"))
    ]
    y = (shape[0], widths[-1]) if "return_sequences" in flags else (widths[-1],)
    return made, [y, *(states if "return_state" in flags else [])]


def bidirectional(draw: st.DrawFn, shape: Shape, world: World, single: bool = False) -> Layer:
    """A pair of recurrent layers, the second drawn on its own or left to Keras."""
    merge = draw(st.sampled_from(("concat", "sum", "mul", "ave", *([] if single else [None]))))
    forward, (y, *states) = recurrent(draw, shape, world, single=single)
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
    if kinds and draw(st.booleans()):
        backward, _ = recurrent(draw, shape, world, y[-1], single, kinds)
        two = {k: v for k, v in backward.options.items() if k not in ("unroll", *RETURNS)}
        two |= {name: True for name in RETURNS if name in one}
        made["backward_layer"] = Made(backward.kind, two | {"go_backwards": True})
    merged = [y, y] if merge is None else [(*y[:-1], y[-1] * (1 + (merge == "concat")))]
    return Made("Bidirectional", made), [*merged, *states, *states]


def distributed(draw: st.DrawFn, value: Value, world: World) -> Layer:
    """A layer at every step, which cannot carry a state."""
    inner, world = value.shape[1:], world._replace(rows=None)
    makers: list[Callable[[], Layer]] = [
        lambda: dense(draw, inner),
        lambda: anywhere(draw, inner, open=False, masked=value.masked),
        lambda: reshaping(draw, inner, open=False),
    ]
    if len(inner) == 2:
        makers += [
            lambda: recurrent(draw, inner, world, single=True),
            lambda: bidirectional(draw, inner, world, single=True),
            lambda: windowed(draw, inner),
        ]
    made, [after] = draw(st.sampled_from(makers))()
    return Made("TimeDistributed", {"layer": made}), [(value.shape[0], *after)]


def layer(draw: st.DrawFn, value: Value, world: World, single: bool) -> Layer:
    """Any layer of one input."""
    shape = value.shape
    makers: list[Callable[[], Layer]] = [
        lambda: dense(draw, shape),
        lambda: anywhere(draw, shape, world.open, value.masked),
    ]
    if value.misfit:
        return draw(st.sampled_from(makers))()
    makers.append(lambda: reshaping(draw, shape, world.open))
    if len(shape) == 2:
        makers += 2 * [lambda: recurrent(draw, shape, world, single=single)]
        makers += [lambda: bidirectional(draw, shape, world, single)]
        makers += [lambda: windowed(draw, shape)]
    if len(shape) > 1:
        makers.append(lambda: distributed(draw, value, world))
    return draw(st.sampled_from(makers))()


class Sketch:
    """A program while it is drawn."""

    def __init__(self, draw: st.DrawFn, world: World, inside: bool) -> None:
        self.draw, self.world, self.inside = draw, world, inside
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
        if isinstance(made, Made) and self.draw(st.integers(0, 11)) == 11:
            made.options["dtype"] = DTYPES[self.world.dtype == "float32"]
        self.layers.append(made)
        self.call(Call(len(self.layers) - 1, inputs, **others), shapes)

    def pick(self, *ranks: int) -> int | None:
        """One of the values of these ranks, the latest for preference."""
        found = [k for k, v in enumerate(self.values) if v.kind == "floats"]
        found = [k for k in found if len(self.values[k].shape) in ranks]
        return self.draw(st.sampled_from(found[::-1])) if found else None

    def like(self, shape: Shape, fixed: bool = False, masked: bool = True) -> int:
        """A value of that shape, a new input perhaps; with a mask only where that is right."""
        wanted = [Value(shape, "floats", fixed, known) for known in (False, masked)]
        found = [k for k, v in enumerate(self.values) if v in wanted]
        if found and self.draw(st.booleans()):
            return self.draw(st.sampled_from(found))
        return self.enter(shape, fixed=fixed)

    # --- lines ---

    def begin(self, steps: int) -> None:
        """The first input, and the embedding of ids."""
        kind = self.draw(st.sampled_from(("sequence", "ids", "grid")))
        if kind == "ids":
            width = self.draw(sizes)
            options = {"input_dim": 7, "output_dim": width, "mask_zero": self.draw(st.booleans())}
            self.add(Made("Embedding", options), [(steps, width)], self.enter((steps,), "ids"))
        else:
            grid = (3,) if kind == "grid" else ()
            self.enter((steps, *grid, self.draw(sizes)))

    def new(self, single: bool = False) -> None:
        """A layer of one input, with a mask of its own now and then."""
        k = self.pick(1, 2, 3)
        assert k is not None
        value = self.values[k]
        made, shapes = layer(self.draw, value, self.world, single)
        masked = made.kind in (*CELLS, "RNN", "Bidirectional") and not single
        given = masked and self.draw(st.booleans())
        mask = self.enter(value.shape[:1], "mask", value.fixed) if given else None
        self.add(made, shapes, k, mask=mask)

    def begun(self) -> None:
        """A recurrent layer that begins with given states."""
        k = self.pick(2)
        if k is None or self.values[k].misfit:
            return self.new()
        vectors = [v.shape[0] for v in self.values if len(v.shape) == 1 and v.kind == "floats"]
        units = self.draw(st.sampled_from(vectors)) if vectors else self.draw(sizes)
        made, shapes = recurrent(self.draw, self.values[k].shape, self.world, units)
        state = tuple(self.like((units,)) for _ in range(1 + (made.kind == "LSTM")))
        return self.add(made, shapes, k, state=state)

    def again(self) -> None:
        """A layer that was called before, on another value or the same."""
        calls = [(n, x) for n, x in self.numbered() if isinstance(x, Call) and not x.state
                 and len(x.inputs) == 1 and self.values[x.inputs[0]].kind == "floats"]  # fmt: skip
        if not calls:
            return self.new()
        first, call = self.draw(st.sampled_from(calls))
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
        kind = self.draw(st.sampled_from(("Add", "Concatenate", "Multiply", "Average", "Maximum",
                                          "Minimum", "Subtract", "Dot")))  # fmt: skip
        pair = kind in ("Subtract", "Dot")
        count = 2 if pair else self.draw(st.integers(2, 3))
        inputs = [k, *(self.like(shape, fixed) for _ in range(count - 1))]
        made: dict[str, Any] = {}
        after = shape
        if kind == "Dot" and len(shape) > 2:
            kind = "Add"
        if kind == "Dot":
            axis = self.draw(st.integers(1, len(shape)))
            made = {"axes": axis, "normalize": self.draw(st.booleans())}
            rest = [n for i, n in enumerate(shape, 1) if i != axis]
            after = (*rest, *rest) or (1,)
        if kind == "Concatenate":
            axis = self.draw(st.sampled_from([-1, *range(1, len(shape) + 1)]))
            made = {"axis": axis}
            place = axis - 1 if axis > 0 else len(shape) - 1
            after = tuple(n * count if i == place else n for i, n in enumerate(shape))
        return self.add(Made(kind, made), [after], *inputs)

    def nest(self) -> None:
        """A model inside."""
        k = self.pick(2, 3)
        if k is None or self.values[k].misfit:
            return self.new()
        form = self.draw(st.sampled_from(("chain", "list", "dict")))
        inner = Sketch(self.draw, self.world, inside=True)
        inner.enter(self.values[k].shape, fixed=self.values[k].fixed)
        inner.values[0] = self.values[k]
        program = inner.finish(form, self.draw(st.integers(1, 3)))
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
            ways = [self.new, self.new, self.begun, self.again, self.merge]
            for _ in range(count):
                self.draw(st.sampled_from(ways if self.inside else [*ways, self.nest]))()
        ends = [k for k in range(len(self.values)) if k not in self.used]
        more = [k for k in sorted(self.used) if self.values[k].kind == "floats"]
        if self.inside:  # Keras takes a model that returns its input for a cycle
            starts = [n for n, line in self.numbered() if isinstance(line, Entry)]
            more = [k for k in more if k not in starts]
        if "chain" not in form and more and self.draw(st.booleans()):
            ends.append(self.draw(st.sampled_from(more)))
        world = self.world
        return Program(tuple(self.lines), tuple(self.layers), tuple(self.counts), tuple(ends), form,
                       world.dtype, world.rows, world.open)  # fmt: skip

    def last(self) -> None:
        """A layer more, of a chain."""
        made, shapes = layer(self.draw, self.values[-1], self.world, single=True)
        self.add(made, shapes, len(self.values) - 1)


@st.composite
def programs(draw: st.DrawFn, steps: int = 5) -> Program:
    """Models of 2 to 6 layers, the embedding not counted."""
    rows = draw(st.sampled_from((None, 3)))
    world = World(draw(st.sampled_from(DTYPES)), rows, draw(st.booleans()))
    form = draw(st.sampled_from(("list", "chain", "dict", *(["bare chain"] if not rows else []))))
    sketch = Sketch(draw, world, inside=False)
    sketch.begin(steps)
    return sketch.finish(form, draw(st.integers(2, 6)))
