"""Where masks come from: Embedding looks rows up by id, Masking marks steps of one value."""

from typing import Any, ClassVar

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers.base import REQUIRED, Layer
from refrnn.layers.masks import with_mask
from refrnn.layers.reshaping import moved


class Embedding(Layer):
    """A row of the table for each id, as `keras.layers.Embedding`. Weights: embeddings (N, D).

    input_dim   N, the number of ids
    output_dim  D, the width of a row
    mask_zero   whether id 0 is padding: the output then has the mask ids != 0

    A call takes ids of any shape (...) and returns (..., D). As in Keras a float is truncated
    towards 0 to look its row up, but masked by its value: 0.5 is row 0, not padding. Negative ids
    count from the end. Raises ValueError, naming the id, for one outside -N to N - 1.
    """

    ARGUMENTS: ClassVar = {
        "input_dim": REQUIRED,
        "output_dim": REQUIRED,
        "embeddings_initializer": "uniform",
        "embeddings_regularizer": None,
        "embeddings_constraint": None,
        "mask_zero": False,
        "weights": None,
        "lora_rank": None,
        "lora_alpha": None,
        "quantization_config": None,
    }
    NOT_IN_CONFIG: ClassVar = frozenset(
        {"weights", "lora_rank", "lora_alpha", "quantization_config"}
    )
    NOT_KEPT: ClassVar = frozenset({"weights"})
    embeddings: Array
    input_dim: int
    output_dim: int
    mask_zero: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.supports_masking = self.mask_zero
        table = self._bind(args, kwargs)["weights"]
        if table is not None:
            one = isinstance(table, list) and len(table) == 1
            self.set_weights(table if one else [table])

    def _convert(self, argument: str, value: Any) -> Any:
        if argument in ("input_dim", "output_dim"):
            return checks.count(self.who, argument, value)
        if argument.startswith(("lora", "quantization")) and value is not None:
            raise ValueError(
                f"{self.who}: {argument} is {value!r}, expected None, because refrnn has neither"
                " low-rank adapters nor quantised tables"
            )
        return super()._convert(argument, value)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "activity_regularizer": self.activity_regularizer}

    def weight_shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        return {"embeddings": (self.input_dim, self.output_dim)}

    def build(self, input_shape: Any = None) -> None:
        if not self.built:
            shape = self.input_dim, self.output_dim
            draw = vars(self)["embeddings_initializer"]
            self.embeddings = self.add_weight(shape, draw, name="embeddings")
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Array:
        ids = self._ids(inputs)
        rows = self._rows(ids)
        self.build()
        return with_mask(self.embeddings[rows], self.compute_mask(ids, None))

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """ids != 0 with mask_zero, whatever mask the ids had; else none."""
        return self._ids(inputs) != 0 if self.mask_zero else None

    def _ids(self, given: Any) -> Array:
        ids = checks.array(self.who, "the input", given)
        if not (checks.is_float(ids.dtype) or ids.dtype.kind in "iub"):
            raise TypeError(f"{self.who}: the input has dtype {ids.dtype}, expected ids: numbers")
        return ids

    def _rows(self, ids: Array) -> Array:
        """The ids as indices of rows."""
        N = self.input_dim
        whole = np.trunc(ids.astype(np.float64)) if checks.is_float(ids.dtype) else ids
        inside = (whole >= -N) & (whole < N)  # False for NaN
        if not np.all(inside):
            at = tuple(int(i) for i in np.argwhere(~inside)[0])
            raise ValueError(
                f"{self.who}: id {ids[at]} at {list(at)} is outside the table, expected {-N} to"
                f" {N - 1}, because input_dim is {N}"
            )
        return whole.astype(np.intp)


class Masking(Layer):
    """Masks the steps whose features all equal mask_value, as `keras.layers.Masking`.

    mask_value  a number, or one for each feature. As in Keras a Python float is rounded to float32
                before it is compared, in a float64 layer too: 0.1 matches float32(0.1) only; an
                integer or a NumPy number is compared as it is. NaN equals nothing.

    A call takes (..., F), returns the same with masked steps set to 0, and attaches the mask (...).
    """

    ARGUMENTS: ClassVar = {"mask_value": 0.0}
    supports_masking = True
    mask_value: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.built = True

    def _convert(self, argument: str, value: Any) -> Any:
        if argument != "mask_value":
            return super()._convert(argument, value)
        if isinstance(value, dict) and isinstance(value.get("config"), dict):  # a stored array
            config = value["config"]
            if "value" in config:
                value = np.asarray(config["value"], config.get("dtype"))
        found = checks.array(self.who, "mask_value", value)
        if not (checks.is_float(found.dtype) or found.dtype.kind in "iub"):
            raise ValueError(
                f"{self.who}: mask_value is {value!r}, expected a number or one for each feature"
            )
        numpy_made = isinstance(value, np.ndarray | np.generic)
        if found.dtype.kind == "f" and not numpy_made:
            with np.errstate(over="ignore"):
                single = found.astype(np.float32)
            if (np.isinf(single) & np.isfinite(found)).any():
                raise ValueError(
                    f"{self.who}: mask_value is {value!r}, expected a number within float32,"
                    " because it is compared as one"
                )
            found = single
        self._compared = found
        return value

    def call(self, inputs: Any, training: bool = False) -> Array:
        x = moved(self.who, inputs, self.dtype)
        mask = self.compute_mask(x, None)
        return with_mask(np.where(mask[..., None], x, np.asarray(0, x.dtype)), mask)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """Where any feature differs from mask_value, whatever mask the input had."""
        x, value = moved(self.who, inputs, self.dtype), self._compared
        if not x.ndim or np.broadcast_shapes(x.shape, (1,) * x.ndim) != self._wide(x.shape):
            raise ValueError(
                f"{self.who}: the input has shape {x.shape}, expected (..., features) that goes"
                f" with mask_value, whose shape is {value.shape}"
            )
        return np.any(self.differs(x), axis=-1)

    def differs(self, x: Array) -> Array:
        """Where a number is not mask_value, compared in the dtype in which Keras compares."""
        common = _common(x.dtype, self._compared.dtype)
        return np.asarray(x.astype(common) != self._compared.astype(common))

    def _wide(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The shape of input and mask_value together; None where they do not fit."""
        try:
            return np.broadcast_shapes(shape, self._compared.shape)
        except ValueError:
            return None


def _common(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which Keras compares two: a float goes before an integer of any width."""
    floats = [found for found in (a, b) if checks.is_float(found)]
    if len(floats) == 1:
        return floats[0]
    if a != b and {a.name, b.name} == {"float16", "bfloat16"}:
        return np.dtype(np.float32)
    return np.promote_types(a, b)
