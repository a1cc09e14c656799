"""Layers that act in training only, by noise or by a term of the loss, and Identity."""

from typing import Any, ClassVar

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers.base import REQUIRED, Layer
from refrnn.layers.reshaping import moved


class Identity(Layer):
    """Its input, as `keras.layers.Identity`."""

    supports_masking = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Array:
        return moved(self.who, inputs, self.dtype).copy()


class ActivityRegularization(Identity):
    """Its input; in Keras it adds to the loss, as `keras.layers.ActivityRegularization`.

    l1, l2  how much of the sum of magnitudes and of squares; kept for the config
    """

    ARGUMENTS: ClassVar = {"l1": 0.0, "l2": 0.0}
    l1: float
    l2: float


class _Noise(Identity):
    """Its input in inference. training=True is refused where it would do something."""

    def _convert(self, argument: str, value: Any) -> Any:
        if argument in ("rate", "stddev"):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value <= 1:
                raise ValueError(
                    f"{self.who}: {argument} is {value!r}, expected a number from 0 to 1"
                )
            return value
        if argument == "seed":
            return checks.seed(self.who, value)
        return super()._convert(argument, value)

    def call(self, inputs: Any, training: bool = False) -> Array:
        amount = vars(self).get("rate", vars(self).get("stddev"))
        if training and amount:
            raise NotImplementedError(
                f"{self.who}: training=True, expected training=False, because refrnn has the"
                " random numbers of Keras for Dropout only"
            )
        return super().call(inputs)


class GaussianNoise(_Noise):
    """Its input; in Keras plus normal noise in training, as `keras.layers.GaussianNoise`."""

    ARGUMENTS: ClassVar = {"stddev": REQUIRED, "seed": None}


class GaussianDropout(_Noise):
    """Its input; in Keras times normal noise in training, as `keras.layers.GaussianDropout`."""

    ARGUMENTS: ClassVar = {"rate": REQUIRED, "seed": None}


class AlphaDropout(_Noise):
    """Its input; in Keras SELU's dropout in training, as `keras.layers.AlphaDropout`."""

    ARGUMENTS: ClassVar = {"rate": REQUIRED, "noise_shape": None, "seed": None}
