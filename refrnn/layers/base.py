"""What every layer is: named settings, weights in Keras's order, and a config that Keras reads.

A layer's constructor arguments are a table, ARGUMENTS, with Keras 3's names, order and defaults;
the signature, the checks of argument names and the config are made from it.
"""

import functools
import inspect
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from refrnn import activations, checks, initializers
from refrnn.gates import Array
from refrnn.layers.masks import has_arrays, leaves, map_arrays, mask_of, with_mask

REQUIRED: Any = inspect.Parameter.empty
GONE = {  # arguments of Keras 2 that Keras 3 refuses: what to do instead
    "time_major": "arrays are always (batch, time, features)",
    "batch_input_shape": "shapes are taken from the first call",
    "batch_size": "the batch is taken from the first call",
    "input_shape": "shapes are taken from the first call",
    "input_dim": "shapes are taken from the first call",
    "input_length": "any length is accepted",
    "weights": "call set_weights after making the layer",
}
_counts: Counter[str] = Counter()


def snake_case(name: str) -> str:
    """LSTMCell -> lstm_cell, TimeDistributed -> time_distributed: Keras's names for layers."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def unique_name(kind: str) -> str:
    """lstm, lstm_1, lstm_2, ..."""
    base = snake_case(kind)
    _counts[base] += 1
    return base if _counts[base] == 1 else f"{base}_{_counts[base] - 1}"


@functools.cache
def _names(function: Any) -> tuple[str, ...]:
    """The names of the arguments of a method, `self` left out."""
    return tuple(inspect.signature(function).parameters)[1:]


class Layer:
    """A named function with weights.

    name       unique by default, as in Keras: lstm, lstm_1, ...
    dtype      "float32" (default), "float64", "float16" or "bfloat16": weights and computation
    trainable  kept for the config; refrnn runs layers, it does not train them
    """

    ARGUMENTS: ClassVar[dict[str, Any]] = {}  # by position or name
    KEYWORDS: ClassVar[dict[str, Any]] = {"name": None, "dtype": None, "trainable": True}
    NOT_IN_CONFIG: ClassVar[frozenset[str]] = frozenset()
    NOT_KEPT: ClassVar[frozenset[str]] = frozenset()  # arguments that become no attribute
    mixes_time: bool = False  # whether a step of the output needs steps of the input beside its own
    supports_masking: bool = False  # whether the output of masked inputs has a mask
    KEEPS_WIDTH: ClassVar[bool] = False  # whether an activation must leave the width as it is

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" not in cls.__dict__ or "ARGUMENTS" in cls.__dict__:
            kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
            cls.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
                [
                    inspect.Parameter(name, kind, default=default)
                    for kind, table in zip(kinds, (cls.ARGUMENTS, cls.KEYWORDS), strict=True)
                    for name, default in table.items()
                ]
            )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kind = type(self).__name__
        given = self._bind(args, kwargs)
        name = given.pop("name")
        if name is not None and (not isinstance(name, str) or not name or "/" in name):
            raise ValueError(f"{kind}: name is {name!r}, expected a string without '/'")
        self.name: str = name if name is not None else unique_name(kind)
        self.trainable = checks.flag(self.who, "trainable", given.pop("trainable"))
        self.dtype = checks.dtype(self.who, given.pop("dtype"))
        self.built = False
        self._weight_names: list[str] = []
        self._weights: list[Array] = []
        for argument, value in given.items():
            converted = self._convert(argument, value)
            if argument not in self.NOT_KEPT:
                setattr(self, argument, converted)

    @property
    def who(self) -> str:
        """How error messages call this layer."""
        return f"{type(self).__name__} {self.name!r}"

    def _bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments by name, defaults filled in."""
        kind, names = type(self).__name__, list(self.ARGUMENTS)
        if len(args) > len(names):
            raise ValueError(
                f"{kind}: {len(args)} positional arguments, expected at most {len(names)}:"
                f" {', '.join(names)}"
            )
        given = dict(zip(names, args, strict=False))
        known = self.ARGUMENTS | self.KEYWORDS
        for name, value in kwargs.items():
            if name in given:
                raise ValueError(f"{kind}: argument {name!r} is given twice")
            if name not in known:
                why = f"; {GONE[name]}" if name in GONE else ""
                raise ValueError(
                    f"{kind}: unknown argument {name}={value!r}{why}; expected one of"
                    f" {', '.join(known)}"
                )
            given[name] = value
        given = known | given
        missing = [name for name, value in given.items() if value is REQUIRED]
        if missing:
            raise ValueError(f"{kind}: argument {missing[0]!r} is missing")
        return given

    def _convert(self, argument: str, value: Any) -> Any:
        """A constructor argument as the attribute it becomes, or ValueError."""
        who = self.who
        if argument == "units":
            return checks.count(who, argument, value)
        if argument.endswith("activation"):
            return checks.activation(who, argument, value, self.KEEPS_WIDTH)
        if argument.endswith("initializer"):
            return initializers.get(f"{who}: {argument}", value)
        if argument.endswith(("regularizer", "constraint")):
            return _for_training(who, argument, value)
        if argument in ("dropout", "recurrent_dropout"):
            return checks.rate(who, argument, value)
        if argument == "implementation" and value not in (0, 1, 2):
            raise ValueError(f"{who}: {argument} is {value!r}, expected 1 or 2")
        if isinstance((self.ARGUMENTS | self.KEYWORDS)[argument], bool):
            return checks.flag(who, argument, value)
        return value

    # --- weights ---

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights for inputs of `input_shape`; a layer without any has nothing to do."""
        self.built = True

    def add_weight(
        self,
        shape: tuple[int, ...] = (),
        initializer: Any = "glorot_uniform",
        dtype: Any = None,
        trainable: bool = True,
        name: str | None = None,
    ) -> Array:
        """A new weight, read-only to callers; `set_weights` writes into this same array."""
        draw = initializers.get(self.who, initializer)
        wanted = self.dtype if dtype is None else checks.dtype(self.who, dtype)
        array = np.array(draw(tuple(shape), dtype=wanted), wanted, order="C")
        if array.shape != tuple(shape):
            raise ValueError(
                f"{self.who}: the initializer of {name or 'a weight'} made shape {array.shape},"
                f" expected {tuple(shape)}"
            )
        array.flags.writeable = False
        self._weight_names.append(name or f"weight_{len(self._weights)}")
        self._weights.append(array)
        return array

    @property
    def weights(self) -> list[Array]:
        """The weights themselves, read-only, in Keras's order."""
        return list(self._weights)

    @property
    def weight_names(self) -> list[str]:
        """A name for each of `weights`: kernel, recurrent_kernel, bias."""
        return list(self._weight_names)

    def get_weights(self) -> list[Array]:
        """Copies of the weights, in Keras's order."""
        return [array.copy() for array in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Write all weights, in the order of `get_weights`; an unbuilt layer is built for them.

        Raises ValueError if their number or a shape is wrong, before any is written.
        """
        new = [checks.array(self.who, f"weight {k}", w) for k, w in enumerate(weights)]
        if self.built:
            shapes = {n: a.shape for n, a in zip(self.weight_names, self.weights, strict=True)}
        else:
            shapes = self.weight_shapes(self._features(new))
        if len(new) != len(shapes):
            raise ValueError(
                f"{self.who}: set_weights got {len(new)} arrays, expected {len(shapes)}:"
                f" {', '.join(shapes) or 'none'}"
            )
        for (name, shape), value in zip(shapes.items(), new, strict=True):
            if value.shape != shape:
                why = "that goes with the rows of the kernel"
                if self.built or "kernel" not in shapes:
                    why = "it was built with" if self.built else "that goes with its arguments"
                raise ValueError(
                    f"{self.who}: {name} has shape {value.shape}, expected {shape}, the shape {why}"
                )
        ready = [
            checks.numbers(self.who, name, value, self.weight_dtype)
            for name, value in zip(shapes, new, strict=True)
        ]
        if not self.built:
            self._build_for(self._features(new))
        for array, value in zip(self.weights, ready, strict=True):
            array.flags.writeable = True
            array[...] = value
            array.flags.writeable = False

    def _features(self, weights: list[Array]) -> Any:
        """What `weight_shapes` and `_build_for` of an unbuilt layer need to know of its weights."""
        return len(weights[0]) if weights and weights[0].ndim else 0

    def _build_for(self, features: Any) -> None:
        """Make weights of the shapes `weight_shapes(features)`."""
        self.build((None, features))

    @property
    def weight_dtype(self) -> np.dtype[Any]:
        """The dtype of the weights."""
        return self.dtype

    def weight_shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        """The weights of a layer for `features` input features, by name, before it is built."""
        return {}

    @property
    def output_count(self) -> int:
        """How many arrays a call returns."""
        return 1

    def count_params(self) -> int:
        return sum(array.size for array in self.weights)

    # --- calls ---

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """`call`, with the mask that came with the input, and the mask of the output attached.

        As in Keras 3: the mask is taken from the input only if no other argument holds arrays, so
        giving an initial_state switches it off; an explicit mask overrides it.
        """
        given = dict(zip(_names(type(self).call), args, strict=False)) | kwargs
        first = next(iter(given.values()), None)
        mask = given.get("mask")
        previous = mask if mask is not None else map_arrays(mask_of, first)
        if all(leaf is None for leaf in leaves(previous)):
            return self.call(*args, **kwargs)
        takes_mask = "mask" in _names(type(self).call) and mask is None
        if takes_mask and sum(map(has_arrays, given.values())) == 1:
            kwargs["mask"] = previous
        return self.with_masks(self.call(*args, **kwargs), first, previous)

    def with_masks(self, outputs: Any, inputs: Any, previous_mask: Any) -> Any:
        """The outputs of a call on `inputs` with `previous_mask`, their masks attached."""
        if not self.supports_masking:
            return outputs
        masks = leaves(self.compute_mask(inputs, previous_mask))
        if len(masks) == 1 and masks[0] is None:
            return outputs
        rest = iter(masks)
        return map_arrays(lambda array: with_mask(array, next(rest, None)), outputs)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """The mask of the output for inputs with `previous_mask`: the same, by default."""
        return previous_mask

    def call(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{self.who} does not say what it computes: define call")

    # --- configs ---

    def get_config(self) -> dict[str, Any]:
        """The settings as Keras 3 writes them; `from_config` of either library reads them."""
        config: dict[str, Any] = {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": {
                "module": "keras",
                "class_name": "DTypePolicy",
                "config": {"name": self.dtype.name},
                "registered_name": None,
            },
        }
        for name in self.ARGUMENTS | self.KEYWORDS:
            if name not in config and name not in self.NOT_IN_CONFIG:
                config[name] = self._store(name, getattr(self, name))
        return {name: value for name, value in config.items() if name not in self.NOT_IN_CONFIG}

    def _store(self, argument: str, value: Any) -> Any:
        if isinstance(value, activations.Activation):
            if value != activations.ACTIVATIONS.get(value.name):
                raise ValueError(
                    f"{self.who}: {argument} is the function {value.name}, which cannot be written"
                    " into a config, expected an activation by name, because a function would"
                    " have to be stored as code"
                )
            return value.name
        if argument.endswith("initializer"):
            return initializers.serialize(self.who, value)
        return value

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Layer":
        """A new, unbuilt layer with the settings of `config`, refrnn's or Keras 3's."""
        if not isinstance(config, dict):
            raise ValueError(f"{cls.__name__}: config is {config!r}, expected a dictionary")
        return cls(**config)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a copy: its weights are read-only too."""
        vars(self).update(state)
        for array in self._weights:
            array.flags.writeable = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


KINDS: dict[str, type[Layer]] = {}  # class name -> class; `refrnn.layers` enters them


def deserialize(entry: dict[str, Any]) -> Layer:
    """A new layer from what Keras writes for one: class_name and config. Nothing in it is run.

    Raises ValueError, by name, for a layer that is not one of KINDS, the caller's own included.
    """
    kind, config, module = (entry.get(key) for key in ("class_name", "config", "module"))
    if not isinstance(kind, str) or not isinstance(config, dict):
        raise ValueError(
            f"a layer is stored as class_name {kind!r} and config {config!r}, expected a name and a"
            " dictionary"
        )
    module = str(module or "keras")
    if module.startswith("keras.src.ops"):  # an operation that makes masks, between the layers
        kind = f"ops.{kind}"
    if kind not in KINDS or module.partition(".")[0] != "keras":
        name = config.get("name", entry.get("name"))
        origin = "" if module.startswith("keras") else f" of {module}"
        raise ValueError(
            f"layer {name!r} is a {kind}{origin}, which refrnn does not have; expected one of"
            f" {', '.join(name for name in KINDS if '.' not in name)}"
        )
    return KINDS[kind].from_config(config)


def serialize(layer: Any) -> dict[str, Any]:
    """A layer as Keras writes it into the config of the one around it."""
    if type(layer) not in KINDS.values():
        raise ValueError(
            f"{layer!r} cannot be written into a config, expected a layer of refrnn, because code"
            " would have to be stored"
        )
    return {
        "module": "keras.layers",
        "class_name": type(layer).__name__,
        "config": layer.get_config(),
        "registered_name": None,
    }


def _for_training(who: str, argument: str, value: Any) -> Any:
    """A regularizer or constraint: used in training only, so just kept for the config."""
    if value is None or isinstance(value, str | dict):
        return value
    raise ValueError(
        f"{who}: {argument} is {value!r}, expected None, a name or a Keras config, because refrnn"
        " keeps it for the config only: it acts in training, never on an output"
    )
