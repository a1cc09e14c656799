"""SimpleRNNCell, GRUCell and LSTMCell: one step of time, with Keras's arguments and weights."""

from typing import Any, ClassVar

import numpy as np

from refrnn import checks
from refrnn.cells import CELLS, Cell, Weights, dropped, plain
from refrnn.engines import Runner, prepared
from refrnn.gates import Array
from refrnn.initializers import Ones
from refrnn.layers.base import REQUIRED, Layer
from refrnn.random import SeedGenerator, dropout
from refrnn.reference import QUIET

_KERNELS = {
    "use_bias": True,
    "kernel_initializer": "glorot_uniform",
    "recurrent_initializer": "orthogonal",
    "bias_initializer": "zeros",
}
_REGULARIZERS = dict.fromkeys(("kernel_regularizer", "recurrent_regularizer", "bias_regularizer"))
_CONSTRAINTS = dict.fromkeys(("kernel_constraint", "recurrent_constraint", "bias_constraint"))
_RATES = {"dropout": 0.0, "recurrent_dropout": 0.0}
_GATED = {"activation": "tanh", "recurrent_activation": "sigmoid"}

# The arguments of each cell in Keras's order; the layers splice their own in between.
SIMPLE_HEAD = {"units": REQUIRED, "activation": "tanh", **_KERNELS, **_REGULARIZERS}
GRU_HEAD = {"units": REQUIRED, **_GATED, **_KERNELS, **_REGULARIZERS}
LSTM_HEAD = {"units": REQUIRED, **_GATED, **_KERNELS, "unit_forget_bias": True, **_REGULARIZERS}
TAIL = {**_CONSTRAINTS, **_RATES}
IMPLEMENTATION = {"implementation": 2}  # LSTM and GRU only, as in Keras


class RecurrentCell(Layer):
    """What the three cells share. Weights: kernel (F, G*H), recurrent_kernel (H, G*H), bias.

    A call takes inputs (B, F) and the states, a list of arrays (B, H), and returns the output
    (B, H) and the list of new states; it changes nothing.

    Regularizers and constraints are kept for the config: they act in training only.
    """

    kernel: Array
    units: int
    activation: Any
    use_bias: bool
    dropout: float
    recurrent_dropout: float

    KEEPS_WIDTH = True
    IGNORES_RATE_1: ClassVar[bool] = True
    seed: int | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seeds = SeedGenerator(self.seed)
        self._runners: dict[str, Runner] = {}

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "seed":
            return checks.seed(self.who, value)
        return super()._convert(argument, value)

    @property
    def math(self) -> Cell:
        """The equations, with this cell's activations."""
        raise NotImplementedError

    @property
    def state_size(self) -> int | list[int]:
        parts = len(self.math.State._fields)
        return self.units if parts == 1 else [self.units] * parts

    @property
    def output_size(self) -> int:
        return self.units

    def weight_shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        names = Weights._fields if self.use_bias else Weights._fields[:2]
        return dict(zip(names, self.math.shapes(features, self.units), strict=False))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        features = checks.features(self.who, input_shape)
        if self.built:
            checks.same_features(self.who, features, self.kernel)
            return
        own, shapes = vars(self), self.weight_shapes(features)
        draws = own["kernel_initializer"], own["recurrent_initializer"], self._draw_bias
        self.kernel, self.recurrent_kernel, *bias = (
            self.add_weight(shape, draw, name=name)
            for (name, shape), draw in zip(shapes.items(), draws, strict=False)
        )
        self.bias = bias[0] if bias else None
        zeros = np.zeros(self.math.shapes(features, self.units)[2], self.dtype)
        self.arrays = Weights(self.kernel, self.recurrent_kernel, *(bias or [zeros]))
        self.built = True

    def runner(self, engine: str) -> Runner:
        """What runs this cell along sequences; prepared once for the weights."""
        if engine not in self._runners:
            self._runners[engine] = prepared(self.who, engine, self.math, self.arrays)
        return self._runners[engine]

    @property
    def prepared(self) -> object:
        """What stands for the weights as they are: another object after every change of them."""
        return self._runners

    def weights_changed(self) -> None:
        self._runners = {}

    def __getstate__(self) -> dict[str, Any]:
        """Of a copy: without what is prepared for the weights, which is not to be copied."""
        return {**vars(self), "_runners": {}}

    def _draw_bias(self, shape: tuple[int, ...], dtype: Any) -> Array:
        draw: Any = vars(self)["bias_initializer"]
        return np.asarray(draw(shape, dtype=dtype))

    def get_initial_state(self, batch_size: int) -> list[Array]:
        """Zeros: a list of arrays (batch_size, units)."""
        return list(self.math.zeros(int(batch_size), self.units, self.dtype))

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Array, list[Array]]:
        x = checks.numbers(self.who, "the input", inputs, self.dtype)
        features = len(self.kernel) if self.built else None
        if x.ndim != 2 or features not in (None, x.shape[1]):
            raise ValueError(
                f"{self.who}: the input has shape {x.shape}, expected (batch,"
                f" {features or 'features'}), because a cell takes one time step"
            )
        state = checks.state(self.math, self.who, states, len(x), self.units, self.dtype)
        if not self.built:
            self.build(x.shape)
        cell = self.drawn(len(x), x.shape[1], training)
        with QUIET():
            after, _ = cell.step(cell, self.arrays, state, x)
        return after.h.copy(), list(after)

    def begin(self, rows: int, features: int, training: bool | None) -> Any:
        """The step of one call of an `RNN`: (x, states) -> (output, new states)."""
        cell = self.drawn(rows, features, training)

        def step(x: Array, states: Any) -> tuple[Array, list[Array]]:
            after, _ = cell.step(cell, self.arrays, cell.State(*states), x)
            return after.h, list(after)

        return step

    def drawn(self, rows: int, features: int, training: bool | None) -> Cell:
        """The equations for one call: in training with dropout masks, one for all its steps.

        training None leaves the random numbers alone. As in Keras masks are drawn wherever a rate
        is above 0, so that a call in inference moves on the random numbers too; a rate of 1 is
        ignored by GRU and LSTM.
        """
        if training is None:
            return self.math
        masks = self.masks(rows, features)
        if not training:
            return self.math
        x, h = (dropped(m) if m else plain for m in masks)
        return self.math._replace(x_product=x, h_product=h)

    def masks(self, rows: int, features: int) -> tuple[list[Array], list[Array]]:
        """The next dropout masks, of the input and of the state; none where nothing is dropped."""
        shapes = {"dropout": (rows, features), "recurrent_dropout": (rows, self.units)}
        x, h = (self._draw(vars(self)[name], shape) for name, shape in shapes.items())
        return x, h

    def _draw(self, rate: float, shape: tuple[int, ...]) -> list[Array]:
        if rate == 0:
            return []
        if rate == 1:
            return [] if self.IGNORES_RATE_1 else [np.zeros(shape, self.dtype)]
        ones = np.ones(shape, self.dtype)
        return [dropout(ones, rate, self._seeds.next()) for _ in range(self.mask_count)]

    @property
    def mask_count(self) -> int:
        """Masks a draw: one for each gate with implementation 1, which recurrent_dropout forces."""
        apart = vars(self).get("implementation") == 1 or self.recurrent_dropout > 0
        return len(self.math.gates) if apart and self.IGNORES_RATE_1 else 1


class SimpleRNNCell(RecurrentCell):
    """h' = act(x W + h U + b), as `keras.layers.SimpleRNNCell`. State: h."""

    ARGUMENTS: ClassVar = {**SIMPLE_HEAD, **TAIL, "seed": None}
    IGNORES_RATE_1 = False

    @property
    def math(self) -> Cell:
        return CELLS["simple"]._replace(act=self.activation)


class GRUCell(RecurrentCell):
    """As `keras.layers.GRUCell`, gates z r h; `refrnn.gates` has the equations. State: h.

    reset_after     True: the reset gate scales the recurrent product (cuDNN's GRU), bias (2, 3H);
                    False: it scales the state before the product (the 2014 paper), bias (3H,).
                    The two are different functions, not two spellings of one.
    implementation  1 drops each gate's inputs by a mask of its own in training; equal otherwise
    """

    ARGUMENTS: ClassVar = {**GRU_HEAD, **TAIL, "reset_after": True, "seed": None}
    KEYWORDS: ClassVar = {**Layer.KEYWORDS, **IMPLEMENTATION}
    NOT_IN_CONFIG: ClassVar = frozenset(IMPLEMENTATION)
    recurrent_activation: Any
    reset_after: bool

    @property
    def math(self) -> Cell:
        row = CELLS["gru" if self.reset_after else "gru_reset_before"]
        return row._replace(act=self.activation, rec=self.recurrent_activation)


class LSTMCell(RecurrentCell):
    """As `keras.layers.LSTMCell`, gates i f c o; `refrnn.gates` has the equations. States: h, c.

    unit_forget_bias  new weights have a forget bias of 1; nothing is added when the cell runs
    implementation    1 drops each gate's inputs by a mask of its own in training; equal otherwise
    """

    ARGUMENTS: ClassVar = {**LSTM_HEAD, **TAIL, "seed": None}
    KEYWORDS: ClassVar = {**Layer.KEYWORDS, **IMPLEMENTATION}
    NOT_IN_CONFIG: ClassVar = frozenset(IMPLEMENTATION)
    recurrent_activation: Any
    unit_forget_bias: bool

    @property
    def math(self) -> Cell:
        return CELLS["lstm"]._replace(act=self.activation, rec=self.recurrent_activation)

    def _draw_bias(self, shape: tuple[int, ...], dtype: Any) -> Array:
        if not self.unit_forget_bias:
            return super()._draw_bias(shape, dtype)
        H = (self.units,)
        i, f, g_and_o = (
            super()._draw_bias(H, dtype),
            Ones()(H, dtype),
            super()._draw_bias((2 * self.units,), dtype),
        )
        return np.concatenate([i, f, g_and_o])
