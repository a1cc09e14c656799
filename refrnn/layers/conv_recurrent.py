"""ConvLSTM: an LSTM of images, whose products are convolutions; as `keras.layers.ConvLSTM2D`."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from refrnn import checks
from refrnn.activations import Activation
from refrnn.cells import ALL, Cell, Product, Weights
from refrnn.gates import Array
from refrnn.layers.base import REQUIRED, Layer
from refrnn.layers.cells import LSTM_HEAD, TAIL, LSTMCell
from refrnn.layers.convolutional import convolve
from refrnn.layers.reshaping import axes, back, channels, last, whole
from refrnn.layers.rnn import RNN, Memory
from refrnn.layers.windows import Windows, laid, not_both, padding

_HEAD = {
    "filters": REQUIRED,
    "kernel_size": REQUIRED,
    "strides": 1,
    "padding": "valid",
    "data_format": None,
    "dilation_rate": 1,
    **{name: default for name, default in LSTM_HEAD.items() if name != "units"},
}
_RETURNS = ("return_sequences", "return_state", "go_backwards", "stateful")


def _setting(who: str, rank: int, argument: str, value: Any) -> Any:
    """An argument of a convolution, checked; others as they are."""
    if argument == "filters":
        return checks.count(who, argument, value)
    if argument in ("kernel_size", "strides", "dilation_rate"):
        return whole(who, argument, value, rank, least=1)
    if argument == "padding":
        return padding(who, value, ("valid", "same"))
    return channels(who, value) if argument == "data_format" else value


def _product(along: list[Windows], masks: Sequence[Array], data_format: str) -> Product:
    """A convolution in place of a product; with masks, one for each gate, of what it is of."""
    moved = [last(mask, data_format) for mask in masks]

    def product(x: Array, kernel: Array, gates: slice = ALL) -> Array:
        if not moved:
            return convolve(x, kernel, along)
        blocks = zip(moved, np.split(kernel, len(moved), axis=-1), strict=True)
        return np.concatenate([convolve(x * m, block, along) for m, block in blocks], axis=-1)

    return product


def _as_in(data_format: str, found: Activation) -> Activation:
    """An activation of arrays that have their channels last here and elsewhere in Keras.

    It matters to one that mixes an axis: it is the last of Keras's array.
    """
    if data_format == "channels_last":
        return found
    return found._replace(value=lambda x: last(found.value(back(x, data_format)), data_format))


class ConvLSTMCell(LSTMCell):
    """One step of a ConvLSTM, gates i f c o; `refrnn.gates` has the equations. States: h, c.

    Weights: kernel (*kernel_size, C, 4 filters), recurrent_kernel (*kernel_size, filters,
    4 filters), bias (4 filters,). An image has `rank` sizes beside its channels.

    The convolution of the input has the strides, padding and dilation_rate of the arguments; that
    of the state has padding "same" and neither, so that a state keeps its size. In training each
    gate has a mask of its own, as large as an image.
    """

    ARGUMENTS: ClassVar = {"rank": REQUIRED, **_HEAD, **TAIL, "seed": None}
    KEYWORDS: ClassVar = Layer.KEYWORDS
    NOT_IN_CONFIG: ClassVar = frozenset({"rank"})  # as in Keras
    rank: int
    filters: int
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str
    data_format: str
    dilation_rate: tuple[int, ...]
    sizes: tuple[int, ...] | None = None  # of an image beside its channels, once one was seen

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        not_both(self.who, self.strides, self.dilation_rate)
        self.units = self.filters

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "rank":
            return value
        return super()._convert(argument, _setting(self.who, self.rank, argument, value))

    @property
    def math(self) -> Cell:
        cell, form = super().math, self.data_format
        return cell._replace(act=_as_in(form, cell.act), rec=_as_in(form, cell.rec))

    @property
    def mask_count(self) -> int:
        return len(self.math.gates)

    # --- shapes ---

    def split(self, shape: Sequence[Any]) -> tuple[Any, tuple[Any, ...]]:
        """The channels, and the sizes, of images of shape (B, ...)."""
        if self.data_format == "channels_first":
            return shape[1], tuple(shape[2:])
        return shape[-1], tuple(shape[1:-1])

    def image(self, rows: int, sizes: tuple[int, ...], filters: int) -> tuple[int, ...]:
        """The shape of images in the cell's data_format."""
        first = self.data_format == "channels_first"
        return (rows, filters, *sizes) if first else (rows, *sizes, filters)

    def along(self, sizes: tuple[int, ...]) -> list[Windows]:
        """The windows on an input; ValueError where there is no room for one."""
        how = self.kernel_size, self.strides, self.dilation_rate, self.padding
        return laid(self.who, sizes, *how)

    def state_shape(self, rows: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of h and c for images of these sizes."""
        return self.image(rows, tuple(len(w.steps) for w in self.along(sizes)), self.filters)

    def get_initial_state(self, batch_size: int) -> list[Array]:
        """Zeros for h and c; of size 1 as long as the size of an image is not known."""
        rows = int(batch_size)
        shape = self.image(rows, (1,) * self.rank, self.filters)
        if self.sizes is not None:
            shape = self.state_shape(rows, self.sizes)
        return [np.zeros(shape, self.dtype) for _ in self.math.State._fields]

    def weight_shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        size, wide = self.kernel_size, len(self.math.gates) * self.filters
        shapes = (*size, features, wide), (*size, self.filters, wide), (wide,)
        return dict(zip(Weights._fields[: 2 + self.use_bias], shapes, strict=False))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights for images of `input_shape`; its sizes, where known, are kept."""
        features, sizes = self.split(input_shape)
        self.check(features, sizes)
        if not self.built:
            self._build_for(features)
        if None not in sizes:
            self.sizes = sizes

    def _build_for(self, features: Any) -> None:
        super().build((None, features))

    def check(self, features: Any, sizes: tuple[Any, ...]) -> None:
        """Refuse images of another number of channels or of other sizes than the first, as Keras.

        A size of None is not known yet.
        """
        if self.built and features != self.kernel.shape[-2]:
            raise ValueError(
                f"{self.who}: the input has {features} channels, expected"
                f" {self.kernel.shape[-2]}, because its kernel has shape {self.kernel.shape}"
            )
        if None in sizes:
            return
        if self.sizes not in (None, sizes):
            raise ValueError(
                f"{self.who}: the input has sizes {sizes}, expected {self.sizes}, those that it was"
                " built for, because the state is made for them"
            )
        self.along(sizes)

    # --- steps ---

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Array, list[Array]]:
        x = checks.numbers(self.who, "the input", inputs, self.dtype)
        if x.ndim != self.rank + 2:
            names = ", ".join(["batch", *axes(self.rank, self.data_format)])
            raise ValueError(f"{self.who}: the input has shape {x.shape}, expected ({names})")
        self.build(x.shape)
        new: tuple[Array, list[Array]] = self.begin(len(x), x.shape[-1], training)(x, states)
        return new

    def begin(self, rows: int, features: int, training: bool | None) -> Any:
        """The step of one call of an `RNN`: (x, states) -> (output, new states).

        For images of the sizes that are kept. Dropout: see `RecurrentCell.drawn`.
        """
        assert self.sizes is not None
        form, shape = self.data_format, self.state_shape(rows, self.sizes)
        images = self.image(rows, self.sizes, self.kernel.shape[-2])
        masks: list[list[Array]] = [[], []]
        if training is not None:
            drawn = self._draw(self.dropout, images), self._draw(self.recurrent_dropout, shape)
            masks = [found if training else [] for found in drawn]
        one = (1,) * self.rank
        same = laid(self.who, self.split(shape)[1], self.kernel_size, one, one, "same")
        cell = self.math._replace(
            x_product=_product(self.along(self.sizes), masks[0], form),
            h_product=_product(same, masks[1], form),
        )

        def step(x: Array, states: Any) -> tuple[Array, list[Array]]:
            state = cell.State(*(last(part, form) for part in states))
            after, _ = cell.step(cell, self.arrays, state, last(x, form))
            new = [np.ascontiguousarray(back(part, form)) for part in after]
            return new[0], new

        return step


class _ConvLSTM(RNN):
    """What the layers share: an `RNN` whose cell is a `ConvLSTMCell`, with its weights.

    A call takes
      sequences      (B, T, ..., C), or (B, T, C, ...) with data_format "channels_first"
      initial_state  h and c, of the shape of an output
      mask           (B, T), (B, T, 1) or (1, T), as in `RNN`

    As in Keras a layer takes images of one size: those it was built or first called with. Before
    that a state of zeros has size 1. unroll is accepted and changes no number.
    """

    SPATIAL: ClassVar[int]
    ARGUMENTS: ClassVar = {
        **_HEAD,
        "activity_regularizer": None,
        **TAIL,
        "seed": None,
        **dict.fromkeys(_RETURNS, False),
    }
    KEYWORDS: ClassVar = {**Layer.KEYWORDS, "unroll": False, "zero_output_for_mask": False}
    KEEPS_WIDTH = True
    cell: ConvLSTMCell

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = [name for name in ConvLSTMCell.ARGUMENTS if name != "rank"]
        settings = {name: vars(self)[name] for name in names}
        name = f"{self.name}_cell"
        self.cell = ConvLSTMCell(self.SPATIAL, **settings, dtype=self.dtype, name=name)

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "seed":
            return checks.seed(self.who, value)
        return super()._convert(argument, _setting(self.who, self.SPATIAL, argument, value))

    def _features(self, weights: list[Array]) -> int:
        kernel = weights[0] if weights else np.zeros(())
        return kernel.shape[-2] if kernel.ndim == self.SPATIAL + 2 else 0

    def _build_for(self, features: Any) -> None:
        self.cell._build_for(features)
        self.built = True

    def _sequence(self, sequences: Any) -> Array:
        xs = checks.numbers(self.who, "the input", sequences, self.dtype)
        if xs.ndim != self.SPATIAL + 3:
            names = ", ".join(["batch", "time", *axes(self.SPATIAL, self.cell.data_format)])
            raise ValueError(f"{self.who}: the input has shape {xs.shape}, expected ({names})")
        self.cell.check(*self.cell.split(xs.shape[1:]))
        return xs

    def _zeros(self, batch: int) -> Array:
        return self.cell.get_initial_state(batch)[0]

    def _state(self, given: Any, batch: int) -> Any:
        """As for `RNN`; as long as the size of an image is not known, of the size of `given`."""
        blank = self._blank(batch)
        listed = isinstance(given, list | tuple) and len(given) > 0
        if self.cell.sizes is None and listed and np.ndim(given[0]) == blank[0].ndim:
            sizes = self.cell.split(np.shape(given[0]))[1]
            blank = [np.zeros(self.cell.image(batch, sizes, self.cell.filters), self.dtype)] * 2
        return blank if given is None else self._like(blank, given, "state")

    def _run(
        self, xs: Array, memory: Memory, mask: Any, training: bool | None
    ) -> tuple[Any, Memory]:
        checks.mask(self.who, mask, *xs.shape[:2])
        sizes = self.cell.split(xs.shape[1:])[1]
        shape = self.cell.state_shape(len(xs), sizes)
        state = [self._fitted(part, shape) for part in memory.state]
        memory = Memory(state, self._fitted(memory.last_output, shape))
        self.cell.sizes = sizes
        return super()._run(xs, memory, mask, training)

    def _fitted(self, part: Array, shape: tuple[int, ...]) -> Array:
        """A part of a state in the size that the images give it; zeros go with any."""
        if part.shape == shape:
            return part
        if part.any() or len(part) != shape[0]:
            raise ValueError(
                f"{self.who}: the state has shape {part.shape}, expected {shape}, what it makes of"
                " images of the input's size"
            )
        return np.zeros(shape, part.dtype)


class ConvLSTM1D(_ConvLSTM):
    """A convolutional LSTM of (B, T, width, C), as `keras.layers.ConvLSTM1D`. Shi et al. (2015)."""

    SPATIAL = 1


class ConvLSTM2D(_ConvLSTM):
    """A convolutional LSTM of videos (B, T, height, width, C), as `keras.layers.ConvLSTM2D`."""

    SPATIAL = 2


class ConvLSTM3D(_ConvLSTM):
    """A convolutional LSTM of volumes (B, T, depth, height, width, C), as Keras's `ConvLSTM3D`."""

    SPATIAL = 3
