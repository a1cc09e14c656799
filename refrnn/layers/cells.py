"""SimpleRNNCell, GRUCell and LSTMCell: one step of time, with Keras's arguments and weights."""

from typing import Any, ClassVar

import numpy as np

from refrnn import checks
from refrnn.cells import CELLS, Cell, Weights
from refrnn.gates import Array
from refrnn.initializers import Ones
from refrnn.layers.base import REQUIRED, Layer
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
        self.check_training(training)
        state = checks.state(self.math, self.who, states, len(x), self.units, self.dtype)
        if not self.built:
            self.build(x.shape)
        with QUIET():
            after, _ = self.math.step(self.math, self.arrays, state, x)
        return after.h.copy(), list(after)

    def check_training(self, training: Any) -> None:
        """Refuse a training-mode call that would have to drop inputs."""
        rates = {n: getattr(self, n) for n in ("dropout", "recurrent_dropout")}
        if training and any(rates.values()):
            raise NotImplementedError(
                f"{self.who}: training=True with dropout={rates['dropout']} and"
                f" recurrent_dropout={rates['recurrent_dropout']}, expected training=False or rates"
                " of 0, because refrnn does not draw dropout masks"
            )


class SimpleRNNCell(RecurrentCell):
    """h' = act(x W + h U + b), as `keras.layers.SimpleRNNCell`. State: h."""

    ARGUMENTS: ClassVar = {**SIMPLE_HEAD, **TAIL, "seed": None}

    @property
    def math(self) -> Cell:
        return CELLS["simple"]._replace(act=self.activation)


class GRUCell(RecurrentCell):
    """As `keras.layers.GRUCell`, gates z r h; `refrnn.gates` has the equations. State: h.

    reset_after     True: the reset gate scales the recurrent product (cuDNN's GRU), bias (2, 3H);
                    False: it scales the state before the product (the 2014 paper), bias (3H,).
                    The two are different functions, not two spellings of one.
    implementation  accepted and ignored: in Keras it chooses between equal computations
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
    implementation    accepted and ignored: in Keras it chooses between equal computations
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
