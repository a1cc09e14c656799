"""SimpleRNN, GRU and LSTM as `keras.layers` has them: arguments, weights, masks and states."""

from functools import partial
from typing import Any, ClassVar

from refrnn import checks, kernels, reference
from refrnn.cells import AnyState
from refrnn.engines import chosen
from refrnn.gates import Array
from refrnn.layers import context
from refrnn.layers.base import Layer
from refrnn.layers.cells import (
    GRU_HEAD,
    IMPLEMENTATION,
    LSTM_HEAD,
    SIMPLE_HEAD,
    TAIL,
    GRUCell,
    LSTMCell,
    RecurrentCell,
    SimpleRNNCell,
)
from refrnn.layers.rnn import RNN, Memory

_RETURNS = dict.fromkeys(
    ("return_sequences", "return_state", "go_backwards", "stateful", "unroll"), False
)
_ACTIVITY = {"activity_regularizer": None}


class Recurrent(RNN):
    """What the three layers share: an `RNN` whose cell is one of the three, run by an engine.

    sequences is (B, T, F); initial_state is a list of arrays (B, H), h first, or the bare array
    where there is only h. unroll and use_cudnn are accepted and change no number.

    engine  "numpy", "numba", or "auto": numba where there is a kernel for the activations and dtype
    """

    CELL: ClassVar[type[RecurrentCell]]
    KEYWORDS: ClassVar = {**Layer.KEYWORDS, "zero_output_for_mask": False, "engine": "auto"}
    NOT_IN_CONFIG: ClassVar = frozenset({"use_cudnn", "engine", "implementation"})
    KEEPS_WIDTH = True

    units: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = vars(self)
        arguments = [*self.CELL.ARGUMENTS, *(n for n in IMPLEMENTATION if n in own)]
        settings = {name: own[name] for name in arguments}
        self.cell = self.CELL(**settings, dtype=self.dtype, name=f"{self.name}_cell")
        self.engine = self._engine  # refused where there is no such kernel

    @property
    def engine(self) -> str:
        """What this layer runs on: "numba" or "numpy", as it was told to, or as "auto" chooses."""
        return chosen(self.who, self._engine, self.cell.math, self.dtype)

    @engine.setter
    def engine(self, engine: str) -> None:
        if "cell" in vars(self):
            chosen(self.who, engine, self.cell.math, self.dtype)
        self._engine = engine

    def _convert(self, argument: str, value: Any) -> Any:
        if argument == "engine":
            return checks.engine(self.who, value)
        if argument == "use_cudnn" and value not in ("auto", False):
            raise ValueError(
                f"{self.who}: use_cudnn is {value!r}, expected 'auto' or False, because refrnn runs"
                " on the CPU"
            )
        return super()._convert(argument, value)

    def stepper(self, state: AnyState) -> kernels.Stepper | None:
        """What takes sequences on from `state` one step at a time; None on the NumPy engine."""
        packed = getattr(self.cell.runner(self._engine), "__self__", None)
        return packed.stepper(state) if isinstance(packed, kernels.Packed) else None

    def get_config(self) -> dict[str, Any]:
        """As Keras writes it; of a copy that refrnn makes for itself with the engine too."""
        config = super().get_config()
        return config | {"engine": self._engine} if context.copying.get() else config

    def _state(self, given: Any, batch: int) -> AnyState:
        return checks.state(self.cell.math, self.who, given, batch, self.units, self.dtype)

    def _sequence(self, sequences: Any) -> Array:
        """The input as an array (B, T, F); F is checked where the layer is built."""
        features = len(self.cell.kernel) if self.built else None
        return checks.sequence(self.who, sequences, features, self.dtype)

    def _loop(
        self, xs: Array, memory: Memory, mask: Array | None, training: bool | None
    ) -> tuple[Array, Any]:
        cell = self.cell.drawn(len(xs), xs.shape[2], training)
        if cell == self.cell.math and not context.trial.get():
            run = self.cell.runner(self._engine)
        else:  # with dropout
            run = partial(reference.run, cell, self.cell.arrays)
        return run(
            xs,
            memory.state,
            mask=mask,
            go_backwards=self.go_backwards,
            zero_output_for_mask=self.zero_output_for_mask,
            last_output=memory.last_output,
        )


def _arguments(head: dict[str, Any], *tail: dict[str, Any]) -> dict[str, Any]:
    """A cell's arguments with the layer's own in the places where Keras has them."""
    merged = {**head, **_ACTIVITY, **TAIL}
    for part in tail:
        merged |= part
    return merged


class SimpleRNN(Recurrent):
    """A fully connected recurrent layer, as `keras.layers.SimpleRNN`. Elman (1990)."""

    CELL = SimpleRNNCell
    ARGUMENTS: ClassVar = _arguments(SIMPLE_HEAD, _RETURNS, {"seed": None})


class GRU(Recurrent):
    """A gated recurrent unit layer, as `keras.layers.GRU`. Cho et al. (2014).

    reset_after  see `GRUCell`: two different functions
    """

    CELL = GRUCell
    ARGUMENTS: ClassVar = _arguments(
        GRU_HEAD, {"seed": None}, _RETURNS, {"reset_after": True, "use_cudnn": "auto"}
    )
    KEYWORDS: ClassVar = {**Recurrent.KEYWORDS, **IMPLEMENTATION}


class LSTM(Recurrent):
    """A long short-term memory layer, as `keras.layers.LSTM`. Hochreiter & Schmidhuber (1997)."""

    CELL = LSTMCell
    ARGUMENTS: ClassVar = _arguments(LSTM_HEAD, {"seed": None}, _RETURNS, {"use_cudnn": "auto"})
    KEYWORDS: ClassVar = {**Recurrent.KEYWORDS, **IMPLEMENTATION}
