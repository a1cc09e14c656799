"""What every layer is: named settings, weights in Keras's order, and a config that Keras reads.

The constructor arguments of refrnn's own layers are a table, ARGUMENTS, with Keras 3's names, order
and defaults; the signature, the checks of argument names and the config are made from it. A
subclass of the caller's has an __init__ of its own instead, as in Keras.
"""

import copy
import inspect
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from refrnn import activations, checks, initializers
from refrnn.cells import Weights
from refrnn.gates import Array
from refrnn.layers import context
from refrnn.layers.masks import NESTED, has_arrays, leaves, map_arrays, mask_of, with_mask
from refrnn.layers.names import unique_name
from refrnn.layers.objects import custom_function
from refrnn.layers.states import initial_state, map_shapes
from refrnn.layers.subclassing import arguments_of, has_table, names_of, noted_build, signature
from refrnn.layers.symbolic import record, symbols

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


class Layer:
    """A named function with weights; the base of a layer or cell of one's own, as in Keras 3.

    name       unique by default, as in Keras: lstm, lstm_1, ...
    dtype      "float32" (default), "float64", "float16" or "bfloat16": weights and computation
    trainable  kept for the config, and for the order of weights in files
    activity_regularizer  kept for the config: it acts in training only
    autocast   whether call is given floating arrays in the layer's dtype

    A subclass defines __init__ (which begins with super().__init__(**kwargs)), build(input_shape),
    which makes weights by add_weight, and call; a cell also state_size. It computes with NumPy:

        class Minimal(refrnn.layers.Layer):
            def __init__(self, units, **kwargs):
                super().__init__(**kwargs)
                self.units = self.state_size = units

            def build(self, input_shape):
                self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")

            def call(self, inputs, states, training=False):
                h = np.tanh(inputs @ self.kernel + states[0])
                return h, [h]

    build is called before the first call, with the shape of its first argument. training and mask
    are passed where call takes them; training of the call around holds inside. Layers that are set
    as attributes, also in lists and dictionaries, are found: their weights are among those of this
    layer, in Keras's order.
    """

    ARGUMENTS: ClassVar[dict[str, Any]] = {}  # by position or name
    KEYWORDS: ClassVar[dict[str, Any]] = {
        "name": None,
        "dtype": None,
        "trainable": True,
        "activity_regularizer": None,
        "autocast": True,
    }
    NOT_IN_CONFIG: ClassVar[frozenset[str]] = frozenset()
    NOT_KEPT: ClassVar[frozenset[str]] = frozenset()  # arguments that become no attribute
    KERAS_MODULE: ClassVar[str] = "keras.layers"  # where Keras has the class
    IS_CUSTOM: ClassVar[bool] = False  # whether call is the caller's code, not refrnn's
    mixes_time: bool = False  # whether a step of the output needs steps of the input beside its own
    supports_masking: bool = False  # whether the output of masked inputs has a mask
    KEEPS_WIDTH: ClassVar[bool] = False  # whether an activation must leave the width as it is

    activity_regularizer: Any
    autocast: bool
    _layers: list["Layer"]  # inside this one, as they came
    _holders: set[str]  # the attributes that may hold some
    _weights: list[Array]  # of this layer itself, those that are trained first
    _weight_names: list[str]
    _trained: int

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__signature__ = signature(cls)  # type: ignore[attr-defined]
        own = cls.__dict__
        if "compute_mask" in own and "supports_masking" not in own:
            cls.supports_masking = True
        if cls.__module__.partition(".")[0] != __package__.partition(".")[0]:
            cls.IS_CUSTOM = cls.IS_CUSTOM or "call" in own
            if "build" in own:
                cls.build = noted_build(own["build"])  # type: ignore[method-assign]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        layer = super().__new__(cls)
        vars(layer).update(_layers=[], _holders=set(), _weights=[], _weight_names=[], _trained=0)
        vars(layer)["_arguments"] = None if has_table(cls) else arguments_of(cls, args, kwargs)
        return layer

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
        for argument, value in given.items():
            named = argument.endswith("activation")
            converted = self._convert(argument, custom_function(value) if named else value)
            if argument not in self.NOT_KEPT:
                setattr(self, argument, converted)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, HOLDERS) and type(value) not in BARE:
            self._holders.add(name)
            self._find_layers()

    def _find_layers(self) -> list["Layer"]:
        """The layers that are attributes, also in lists and dictionaries, as they came."""
        known = set(map(id, self._layers))
        for name, value in vars(self).items() if self._holders else ():
            if name in self._holders:
                for layer in _layers_in(value):
                    if id(layer) not in known and layer is not self:
                        known.add(id(layer))
                        self._layers.append(layer)
        return self._layers

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
        if argument == "autocast" and not value and not self.IS_CUSTOM:
            raise ValueError(
                f"{who}: autocast is {value!r}, expected True, because refrnn's own layers compute"
                " in their dtype"
            )
        if argument == "implementation" and value not in (0, 1, 2):
            raise ValueError(f"{who}: {argument} is {value!r}, expected 1 or 2")
        if isinstance((self.ARGUMENTS | self.KEYWORDS)[argument], bool):
            return checks.flag(who, argument, value)
        return value

    # --- weights ---

    def build(self, input_shape: Any) -> None:
        """Make the weights for inputs of `input_shape`; a layer without any has nothing to do.

        A layer of layers that says nothing else is run on zeros, which builds those inside.
        """
        if not all(layer.built for layer in self._find_layers()):
            x = map_shapes(lambda s: np.zeros([n or 1 for n in s], self.dtype), input_shape)
            self(x, *([initial_state(self, 1, self.dtype)] if hasattr(self, "state_size") else []))
        if self.IS_CUSTOM:
            vars(self)["_built_for"] = {"input_shape": input_shape}
        self.built = True

    def build_on(self, *args: Any, **kwargs: Any) -> None:
        """Build for the arguments of a call: `build` is given the shape of the first of them.

        A build with several arguments is given the shapes of those they are called after, as in
        Keras: build(query_shape, value_shape) for call(query, value).
        """
        given = dict(zip(names_of(type(self).call), args, strict=False)) | kwargs
        shapes = {f"{name}_shape": map_arrays(_shape, value) for name, value in given.items()}
        wanted = names_of(type(self).build)
        if len(wanted) > 1:
            self.build(**{name: shapes[name] for name in wanted if name in shapes})
        else:
            self.build(next(iter(shapes.values())))

    def get_build_config(self) -> dict[str, Any] | None:
        """What a layer of the caller's own was built for, as Keras writes it; None for the rest."""
        noted: dict[str, Any] | None = vars(self).get("_built_for")
        if noted is None or not self.built:
            return None
        return (
            {"input_shape": next(iter(noted.values()))}
            if len(noted) == 1
            else {"shapes_dict": noted}
        )

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Build for what `get_build_config` returned."""
        if "input_shape" in config:
            self.build(map_shapes(tuple, config["input_shape"]))
        elif "shapes_dict" in config:
            self.build(**{n: map_shapes(tuple, v) for n, v in config["shapes_dict"].items()})

    def add_weight(
        self,
        shape: Any = None,
        initializer: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
        name: str | None = None,
    ) -> Array:
        """A new weight, read-only; `set_weights` writes into this same array.

        initializer             glorot_uniform by default
        trainable               a weight that is not comes after those that are, as in Keras
        regularizer, constraint None, a name or a Keras config: they act in training only
        """
        self._check_init()
        if isinstance(shape, str):
            raise ValueError(
                f"{self.who}: add_weight was given {shape!r} as the shape, expected name={shape!r},"
                " because the first argument is the shape"
            )
        _for_training(self.who, "regularizer", regularizer)
        _for_training(self.who, "constraint", constraint)
        sizes = (shape,) if isinstance(shape, int | np.integer) else tuple(shape or ())
        draw = initializers.get(self.who, "glorot_uniform" if initializer is None else initializer)
        wanted = self.dtype if dtype is None else checks.dtype(self.who, dtype)
        values = np.zeros(sizes) if context.undrawn.get() else draw(sizes, dtype=wanted)
        array = np.array(values, wanted, order="C")
        if array.shape != sizes:
            raise ValueError(
                f"{self.who}: the initializer of {name or 'a weight'} made shape {array.shape},"
                f" expected {sizes}"
            )
        array.flags.writeable = False
        place = self._trained if trainable else len(self._weights)
        self._weight_names.insert(place, name or f"weight_{len(self._weights)}")
        self._weights.insert(place, array)
        self._trained += bool(trainable)
        return array

    def _check_init(self) -> None:
        if "built" not in vars(self):
            raise RuntimeError(
                f"{type(self).__name__}: __init__ of the base was not called, expected"
                " super().__init__(**kwargs) first in __init__"
            )

    @property
    def compute_dtype(self) -> np.dtype[Any]:
        """As `dtype`, under the name that it has in Keras."""
        return self.dtype

    @property
    def variable_dtype(self) -> np.dtype[Any]:
        """As `dtype`, under the name that it has in Keras."""
        return self.dtype

    # --- the weights: own, then those of the layers inside, each once ---

    def parts(self) -> list[tuple[str, "Layer"]]:
        """The layers inside, each with what comes before the names of its weights."""
        return [(f"{layer.name}.", layer) for layer in self._find_layers()]

    @property
    def own_weights(self) -> list[Array]:
        """The weights that are not of the layers inside, those that are trained first."""
        return list(self._weights)

    @property
    def trained_count(self) -> int:
        """How many of `own_weights` are trained."""
        return self._trained

    @property
    def trainable_weights(self) -> list[Array]:
        """Those of `weights` that training would change."""
        if not self.trainable:
            return []
        inner = [w for _, layer in self.parts() for w in layer.trainable_weights]
        return list({id(w): w for w in [*self.own_weights[: self.trained_count], *inner]}.values())

    @property
    def non_trainable_weights(self) -> list[Array]:
        """Those of `weights` that training would leave as they are."""
        trained = set(map(id, self.trainable_weights))
        return [w for w in self.weights if id(w) not in trained]

    def _named_weights(self) -> list[tuple[str, Array]]:
        found = {id(a): (n, a) for n, a in zip(self._weight_names, self._weights, strict=True)}
        for prefix, layer in self.parts():
            for name, array in zip(layer.weight_names, layer.weights, strict=True):
                found.setdefault(id(array), (prefix + name, array))
        counts: Counter[str] = Counter()
        named = []
        for name, array in found.values():
            named.append((f"{name}_{counts[name]}" if counts[name] else name, array))
            counts[name] += 1
        return named

    @property
    def weights(self) -> list[Array]:
        """The weights themselves, read-only, in Keras's order."""
        return [array for _, array in self._named_weights()]

    @property
    def weight_names(self) -> list[str]:
        """A name for each of `weights`: kernel, recurrent_kernel, bias."""
        return [name for name, _ in self._named_weights()]

    def get_weights(self) -> list[Array]:
        """Copies of the weights, in Keras's order."""
        return [array.copy() for array in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Write all weights, in the order of `get_weights`; an unbuilt layer is built for them.

        Raises ValueError if their number or a shape is wrong, before any is written.
        """
        new = [checks.array(self.who, f"weight {k}", w) for k, w in enumerate(weights)]
        if self.built:
            mine = [(name, array.shape, array.dtype) for name, array in self._named_weights()]
        else:
            shapes = self.weight_shapes(self._features(new))
            mine = [(name, shape, self.weight_dtype) for name, shape in shapes.items()]
        names = [name for name, *_ in mine]
        if len(new) != len(mine):
            raise ValueError(
                f"{self.who}: set_weights got {len(new)} arrays, expected {len(mine)}:"
                f" {', '.join(names) or 'none'}"
            )
        for (name, shape, _), value in zip(mine, new, strict=True):
            if value.shape != shape:
                why = "that goes with the rows of the kernel"
                if self.built or "kernel" not in names:
                    why = "it was built with" if self.built else "that goes with its arguments"
                if self.IS_CUSTOM and not self.built:
                    why = f"for {self._features(new)} features; if they are others, build it first"
                raise ValueError(
                    f"{self.who}: {name} has shape {value.shape}, expected {shape}, the shape {why}"
                )
        ready = [
            checks.numbers(self.who, name, value, dtype)
            for (name, _, dtype), value in zip(mine, new, strict=True)
        ]
        if not self.built:
            self._build_for(self._features(new))
        for array, value in zip(self.weights, ready, strict=True):
            array.flags.writeable = True
            array[...] = value
            array.flags.writeable = False
        self.weights_changed()

    def weights_changed(self) -> None:
        """Forget what was made from the weights, here and in the layers inside."""
        for _, layer in self.parts():
            layer.weights_changed()

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
        if not self.IS_CUSTOM and not self._find_layers():
            return {}
        made = self
        if not self.built:
            made = copy.deepcopy(self)
            made.build((None, features))
        return {name: array.shape for name, array in made._named_weights()}

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
        giving an initial_state switches it off; an explicit mask overrides it. On arrays yet to
        come (`layers.Input`) it returns what the layer will return.
        """
        self._check_init()
        if symbols([args, kwargs]):
            return record(self, args, kwargs)
        names = names_of(type(self).call)
        if self.IS_CUSTOM:
            if self.autocast:
                args, kwargs = map_arrays(self._cast, [args, kwargs])
            self._build_first(args, kwargs)
        given = dict(zip(names, args, strict=False)) | kwargs
        training = given.get("training")
        if training is None:
            training = context.training.get()
        if "training" not in names:
            kwargs.pop("training", None)
        elif training is not None and given.get("training") is None:
            args, kwargs = args[: names.index("training")], {**kwargs, "training": training}
        masks = self._masks(names, given)
        kwargs |= masks
        first = next((given[name] for name in names if name in given), None)
        explicit = kwargs.get("mask", given.get("mask"))
        previous = explicit if explicit is not None else map_arrays(mask_of, first)
        with context.of(context.training, training):
            outputs = self.call(*args, **kwargs)
        if self.IS_CUSTOM:
            self.built = True
        if all(leaf is None for leaf in leaves(previous)):
            return outputs
        return self.with_masks(outputs, first, previous)

    def _masks(self, names: tuple[str, ...], given: dict[str, Any]) -> dict[str, Any]:
        """The masks that came with arguments and that `call` takes.

        mask where one argument holds arrays; NAME_mask for each NAME where several do.
        """
        arrays = [name for name, value in given.items() if has_arrays(value)]
        wanted = {"mask": arrays[0]} if len(arrays) == 1 else {f"{n}_mask": n for n in arrays}
        found = {
            mask: map_arrays(mask_of, given[name])
            for mask, name in wanted.items()
            if mask in names and given.get(mask) is None
        }
        return {n: mask for n, mask in found.items() if any(m is not None for m in leaves(mask))}

    def _cast(self, value: Any) -> Any:
        """A floating array in the layer's dtype, its mask with it; anything else as it is."""
        if not isinstance(value, np.ndarray) and hasattr(value, "__array__"):
            value = np.asarray(value)
        if not isinstance(value, np.ndarray) or not checks.is_float(value.dtype):
            return value
        if value.dtype == self.dtype:
            return value
        return with_mask(np.asarray(value, self.dtype), mask_of(value))

    def _build_first(self, args: Any, kwargs: dict[str, Any]) -> None:
        """Build before the first call; a layer without a build of its own is built by it."""
        if self.built:
            return
        if type(self).build is Layer.build:
            given = [*args, *kwargs.values()]
            vars(self)["_built_for"] = {"input_shape": map_arrays(_shape, given[0])}
        else:
            self.build_on(*args, **kwargs)

    def with_masks(self, outputs: Any, inputs: Any, previous_mask: Any) -> Any:
        """The outputs of a call on `inputs` with `previous_mask`, their masks attached."""
        if not self.supports_masking:
            return outputs
        masks = leaves(self.compute_mask(inputs, previous_mask))
        if len(masks) == 1 and masks[0] is None:
            return outputs
        rest = iter(masks)

        def attach(array: Any) -> Any:
            mask = next(rest, None)
            return array if mask_of(array) is not None else with_mask(array, mask)

        return map_arrays(attach, outputs)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """The mask of the output for inputs with `previous_mask`: the same, by default."""
        return previous_mask

    def call(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{self.who} does not say what it computes: define call")

    # --- configs ---

    def get_config(self) -> dict[str, Any]:
        """The settings as Keras 3 writes them; `from_config` of either library reads them.

        Of a subclass of the caller's: name, trainable and dtype, for its own get_config to add to;
        and the arguments of __init__, where it has no get_config and they are plain values.
        """
        self._check_init()
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
            if name not in config and name not in self.NOT_IN_CONFIG | {"autocast"}:
                config[name] = self._store(name, getattr(self, name))
        if "activity_regularizer" not in self.ARGUMENTS and not self.activity_regularizer:
            del config["activity_regularizer"]
        if not self.ARGUMENTS and type(self).get_config is Layer.get_config:
            config |= {k: v for k, v in self._own_arguments().items() if k not in config}
        return {name: value for name, value in config.items() if name not in self.NOT_IN_CONFIG}

    def _own_arguments(self) -> dict[str, Any]:
        """What a subclass without a get_config was made with."""
        if has_table(type(self)):
            return {}
        found: dict[str, Any] | None = vars(self)["_arguments"]
        if found is None:
            raise NotImplementedError(
                f"{self.who}: was made with arguments that are not plain numbers, texts and"
                " truth values, expected a get_config, because a config cannot hold them"
            )
        return found

    def _store(self, argument: str, value: Any) -> Any:
        if isinstance(value, activations.Activation):
            if context.copying.get():
                return value
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


HOLDERS = (Layer, *NESTED)  # what may be a layer, or hold some
BARE = {activations.Activation, Weights}  # tuples that never hold one


def _layers_in(value: Any) -> Iterator[Layer]:
    """The layers in an attribute, in the order in which containers hold them."""
    if isinstance(value, Layer):
        yield value
    elif isinstance(value, NESTED):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _layers_in(part)


def _shape(array: Any) -> tuple[int | None, ...]:
    """Of an array, or of one yet to come."""
    found: tuple[int | None, ...] = array.shape if hasattr(array, "shape") else np.shape(array)
    return found


def _for_training(who: str, argument: str, value: Any) -> Any:
    """A regularizer or constraint: used in training only, so just kept for the config."""
    if value is None or isinstance(value, str | dict):
        return value
    raise ValueError(
        f"{who}: {argument} is {value!r}, expected None, a name or a Keras config, because refrnn"
        " keeps it for the config only: it acts in training, never on an output"
    )
