"""Models: layers in a graph or a chain, called as one layer."""

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers import RNN, Bidirectional, Layer, context
from refrnn.layers.masks import leaves, map_arrays, mask_of, with_mask
from refrnn.layers.names import unique_name
from refrnn.layers.stored import deserialize, serialize
from refrnn.layers.subclassing import names_of
from refrnn.layers.symbolic import Symbol, record, symbols
from refrnn.models import chunks, configs, summary
from refrnn.models.chunks import Memories
from refrnn.models.graph import Graph, InputSpec, Node, Ref, Values, map_refs, run, trace_back


class Model(Layer):
    """A graph of layers, as a functional model of Keras.

    inputs   what `layers.Input` returned, or a list or dictionary of it
    outputs  what layers returned when they were called on that, in any structure

    A call takes an array for each input, in a list or a dictionary by name (bare for one input),
    and returns the outputs in the structure that the model was made with. A model is a layer: it
    can be called on symbols, and be part of another model.
    """

    KERAS_MODULE: ClassVar = "keras.src.models.functional"
    graph: Graph

    def __init__(
        self, inputs: Any, outputs: Any, name: str | None = None, trainable: bool = True
    ) -> None:
        graph = trace_back(inputs, outputs)
        super().__init__(name=name or unique_name("Functional"), trainable=trainable)
        self.graph, self.built = graph, True

    @classmethod
    def of_graph(cls, name: str, graph: Graph, trainable: bool = True) -> "Model":
        """The model of a graph that is already there."""
        made = cls.__new__(cls)
        Layer.__init__(made, name=name, trainable=trainable)
        made.graph = graph
        return made

    def build(self, input_shape: Any) -> None:
        """Make the weights of all layers, for the inputs that the model was declared with."""
        self.symbols()
        self.built = True

    @property
    def who(self) -> str:
        return f"model {self.name!r}"

    @property
    def inputs(self) -> list[InputSpec]:
        """What a call takes."""
        return self.graph.inputs

    @property
    def layers(self) -> list[Layer]:
        """The layers, in Keras's order, which is that of the weights."""
        return list(self.graph.layers)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of that name, or of that place in `layers`."""
        if (name is None) == (index is None):
            raise ValueError(f"{self.who}: get_layer needs a name or an index, one of them")
        found = [x for k, x in enumerate(self.graph.layers) if name == x.name or index == k]
        if not found:
            names = ", ".join(repr(layer.name) for layer in self.graph.layers)
            raise ValueError(
                f"{self.who}: has no layer {name if index is None else index!r}, expected one of"
                f" {names}, or an index below {len(self.graph.layers)}"
            )
        return found[0]

    def every_layer(self) -> Iterator[Layer]:
        """The layers, and those of models among them, in order; models themselves left out."""
        for layer in self.graph.layers:
            if isinstance(layer, Model):
                yield from layer.every_layer()
            else:
                yield layer

    # --- calls ---

    def __call__(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """The outputs for `inputs`, as symbols where those are.

        training  None for that of the call around. Where it is given, here or there, it goes
                  before what layers of the model were called with, as in Keras.
        mask      for each input, in the structure of `inputs`; None for those that they carry
        """
        if symbols(inputs):
            given = {"training": training, "mask": mask}
            return record(self, (inputs,), {n: v for n, v in given.items() if v is not None})
        return self.call(inputs, training, mask)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        around = context.training.get() if training is None else training
        with context.of(context.training, around):
            values = self.values(inputs, mask, self._call)
        return map_refs(values.__getitem__, self.graph.outputs)

    def values(
        self, inputs: Any, mask: Any, call: Callable[[Node, Any, dict[str, Any]], Any]
    ) -> Values:
        """Everything that is computed from `inputs`, each layer by `call`(node, args, kwargs)."""
        return run(self.graph, self.arrays(inputs, mask), call)

    def _call(self, node: Node, args: Any, kwargs: dict[str, Any]) -> Any:
        training = context.training.get()
        names = names_of(type(node.layer).call)
        if training is not None and "training" in names:
            place = names.index("training")
            if place < len(args):
                args = (*args[:place], training, *args[place + 1 :])
            else:
                kwargs = {**kwargs, "training": training}
        return node.layer(*args, **kwargs)

    def arrays(self, inputs: Any, mask: Any = None) -> list[Array]:
        """`inputs` in the order and dtypes of `self.inputs`, with their masks, or ValueError.

        mask  for each input, in the structure of `inputs`; None for those that they carry
        """
        specs = self.graph.inputs
        given = self.in_order(inputs)
        masks = [None] * len(specs) if mask is None else self.in_order(mask, "masks")
        ready = []
        for spec, array, own in zip(specs, given, masks, strict=True):
            came = mask_of(array) if own is None else own
            ready.append(with_mask(self._array(spec, array), came))
        return ready

    def in_order(self, given: Any, what: str = "inputs") -> list[Any]:
        """What is given for each input, by name or in a list, in the order of `self.inputs`."""
        names = [item.name for item in self.graph.inputs]
        if isinstance(given, Mapping):
            if set(given) != set(names):
                raise ValueError(f"{self.who}: {what} are {sorted(given)}, expected {names}")
            given = [given[name] for name in names]
        elif not isinstance(given, list | tuple) or (
            len(names) == 1
            and not (len(given) == 1 and (given[0] is None or isinstance(given[0], np.ndarray)))
        ):
            given = [given]
        if len(given) != len(names):
            raise ValueError(
                f"{self.who}: {len(given)} {what}, expected {len(names)}: {', '.join(names)}"
            )
        return list(given)

    def _array(self, spec: InputSpec, given: Any) -> Array:
        """One input as Keras takes it: cast, and a last axis of size 1 added or dropped."""
        what = f"input {spec.name!r}"
        array = checks.array(self.who, what, given)
        if spec.shape is not None and array.ndim != len(spec.shape):
            if array.ndim == len(spec.shape) + 1 and array.shape[-1] == 1:
                array = array[..., 0]
            elif array.ndim == len(spec.shape) - 1 and spec.shape[-1] == 1:
                array = array[..., None]
            else:
                shape = tuple("batch" if k == 0 else n for k, n in enumerate(spec.shape))
                raise ValueError(
                    f"{self.who}: {what} has shape {array.shape}, expected {len(spec.shape)}"
                    f" dimensions: {shape}"
                )
        return checks.numbers(self.who, what, array, np.dtype(spec.dtype))

    def predict(self, inputs: Any, batch_size: int = 32) -> Any:
        """The outputs for `inputs`, computed `batch_size` rows at a time.

        A row's numbers do not depend on its batch, so they are those of one call; what is saved is
        memory. Of a stateful model batch_size must be the number of rows that it carries, and each
        batch goes on where the one before it ended, as in Keras.
        """
        size = checks.count(self.who, "batch_size", batch_size)
        arrays = self.arrays(inputs)
        rows = {len(array) for array in arrays}
        if len(rows) != 1:
            raise ValueError(f"{self.who}: inputs have {sorted(rows)} rows, expected as many each")
        parts = []
        for start in range(0, max(1, rows.pop()), size):
            batch = [array[start : start + size] for array in arrays]
            parts.append(self(batch if len(batch) > 1 else batch[0], training=False))
        columns = iter([np.concatenate(leaf) for leaf in zip(*map(leaves, parts), strict=True)])
        return map_arrays(lambda _: next(columns), parts[0])

    # --- in chunks of time ---

    def advance(self, inputs: Any, memories: Memories | None = None) -> tuple[Any, Memories]:
        """What a call returns, and the memories to go on from with the next chunk.

        memories  None for the first chunk; then what the last one returned

        Changes nothing; what stateful layers carry is neither used nor touched. Raises ValueError
        where a model cannot be run in chunks of time; `why_whole` says why.
        """
        reason = self.why_whole()
        if reason:
            raise ValueError(f"{self.who} cannot be run in chunks: {reason}")
        return chunks.advance(self.graph, self.arrays(inputs), memories)

    def why_whole(self) -> str | None:
        """Why this model's sequences cannot be cut into chunks; None where they can."""
        try:
            chunks.check(self.graph)
        except chunks.Whole as why:
            return str(why)
        return None

    def timed(self, arrays: Sequence[Array]) -> list[bool]:
        """For each of the inputs, whether it has a time axis, the second: sequences, ids, masks."""
        return chunks.timed(self.graph, arrays)

    def to_stateful(self, rows: int) -> "Model":
        """A copy whose recurrent layers carry their state from call to call, for `rows` sequences.

        Train stateless, serve stateful: the weights are copied, the state begins with zeros.
        """
        count = checks.count(self.who, "rows", rows)
        mine = copy.deepcopy(self)
        for layer in mine.every_layer():
            if isinstance(layer, Bidirectional):
                raise ValueError(
                    f"{self.who}: {layer.who} cannot be made stateful, expected layers that go one"
                    " way, because its backward half needs the end of the sequence first"
                )
            if isinstance(layer, RNN):
                layer.make_stateful(count)
            elif layer.IS_CUSTOM and _is_recurrent(layer):
                raise ValueError(
                    f"{self.who}: {layer.who} cannot be made stateful, expected recurrent layers in"
                    " the model itself, because what is inside a layer of your own is called by it"
                )
        known = [
            x if x.shape is None else x._replace(shape=(count, *x.shape[1:]))
            for x in mine.graph.inputs
        ]
        mine.graph = mine.graph._replace(inputs=known)
        return mine

    def reset_states(self) -> None:
        """Make every stateful layer forget what it carries."""
        for layer in self.every_layer():
            if isinstance(layer, RNN | Bidirectional):
                layer.reset_states()

    # --- weights ---

    def parts(self) -> list[tuple[str, Layer]]:
        """The layers, each with what comes before the names of its weights."""
        return [(f"{layer.name}/", layer) for layer in self.graph.layers]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Write all weights, in the order of `get_weights`.

        Raises ValueError if their number or a shape is wrong, before any is written, and where the
        shape of the input is not known yet.
        """
        unbuilt = [layer.who for layer in self.every_layer() if not layer.built]
        if unbuilt and all(item.shape is not None for item in self.graph.inputs):
            self.build(self.graph.inputs[0].shape)
        elif unbuilt:
            raise ValueError(
                f"{self.who}: {unbuilt[0]} is not built, expected a call before set_weights,"
                " because the shapes of its weights follow from its input"
            )
        new, mine = [checks.array(self.who, "a weight", w) for w in weights], self.weights
        if len(new) != len(mine):
            raise ValueError(f"{self.who}: set_weights got {len(new)} arrays, expected {len(mine)}")
        for name, array, old in zip(self.weight_names, new, mine, strict=True):
            who = f"{self.who}: {name}"
            if array.shape != old.shape:
                raise ValueError(f"{who} has shape {array.shape}, expected {old.shape}")
            checks.numbers(who, "the new value", array, old.dtype)
        values = {id(old): array for old, array in zip(mine, new, strict=True)}
        for layer in self.graph.layers:
            layer.set_weights([values[id(w)] for w in layer.weights])

    @property
    def output_count(self) -> int:
        return len(leaves(map_refs(lambda ref: 0, self.graph.outputs)))

    # --- what is inside ---

    def symbols(self) -> Values:
        """Everything that the model computes, as symbols with its shape and dtype.

        Raises ValueError where the shape of an input is not known.
        """
        unknown = [item.name for item in self.graph.inputs if item.shape is None]
        if unknown:
            raise ValueError(
                f"{self.who}: the shape of its input is not known yet, expected a call first, or an"
                " Input in front"
            )
        given = [Symbol(x.name, cast(Any, x.shape), x.dtype) for x in self.graph.inputs]
        return run(self.graph, given, lambda node, args, kwargs: record(node.layer, args, kwargs))

    def get_config(self) -> dict[str, Any]:
        """The config as Keras 3 writes it; `from_config` of either library reads it.

        Raises ValueError for a layer of the caller's, which would have to be stored as code.
        """
        return self._head() | configs.write_graph(self.graph, self.symbols())

    def _head(self) -> dict[str, Any]:
        return {"name": self.name, "trainable": self.trainable}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Model":
        """A model without weights. Raises ValueError, by name, for a layer not of refrnn's."""
        graph = configs.read_graph(config)
        return Model.of_graph(config["name"], graph, config.get("trainable", True))

    def summary(self, expand_nested: bool = False, print_fn: Callable[[str], Any] = print) -> None:
        """Print the layers with their output shapes and numbers of parameters.

        expand_nested  whether the layers of models inside are listed too
        print_fn       what to do with the text
        """
        print_fn(summary.table(self, isinstance(self, Sequential), expand_nested))

    # --- files ---

    def save(self, path: "str | os.PathLike[str]") -> None:
        """Write the model and its weights; what they are written as is said by the suffix.

        path  .keras for Keras 3; .h5 for Keras 2, mostly read by Keras 3 too, see
              `refrnn.files.save_model`; a folder, or model.json in one, for tf.js

        A file that is there is replaced when the new one is whole. Carried states are not written.
        Raises ValueError for what the format cannot hold, by name; ImportError without h5py.
        """
        from refrnn import files

        files.save_model(self, path)

    def save_weights(self, path: "str | os.PathLike[str]") -> None:
        """Write the weights into a .weights.h5 file, as Keras 3 does."""
        from refrnn import files

        files.save_weights(self, path)

    def load_weights(self, path: "str | os.PathLike[str]") -> None:
        """Read all weights from a file of Keras 2 or 3; `refrnn.files.load_weights` says which."""
        from refrnn import files

        files.load_weights(self, path)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}, {len(self.graph.layers)} layers>"


class Sequential(Model):
    """Layers one after another, as `keras.Sequential`.

    layers  refrnn layers, each of which takes what the one before returns; a `layers.Input` may be
            in front: without it the shapes are those of the first call
    """

    KERAS_MODULE: ClassVar = "keras"

    def __init__(
        self, layers: Sequence[Any] | None = None, trainable: bool = True, name: str | None = None
    ) -> None:
        if layers is not None and not isinstance(layers, list | tuple):
            raise ValueError(f"Sequential: layers is {layers!r}, expected a list of refrnn layers")
        Layer.__init__(self, name=name or unique_name("Sequential"), trainable=trainable)
        self.graph = Graph([InputSpec("input", None, "float32")], [], Ref("input", 0, 0), [])
        self._end: Symbol | None = None  # what the last layer will return, once shapes are known
        for layer in layers or []:
            self.add(layer)

    def add(self, layer: Any) -> None:
        """One layer more, at the end; or a `layers.Input`, in front of all."""
        if isinstance(layer, Symbol):
            if self.graph.layers or self._end is not None or layer.call is not None:
                raise ValueError(
                    f"{self.who}: {layer!r} comes after others, expected layers.Input in front"
                )
            self.expect(InputSpec(layer.name, layer.shape, layer.dtype))
            self._end, self.built = layer, True
            return
        before = self.graph
        known = before.inputs[0].shape is not None and isinstance(before.outputs, Ref)
        if self._end is None and known:  # from the first call on, or from a config
            self._end = self.symbols()[before.outputs]
        self.append(layer)
        if self._end is not None:
            try:
                end = layer(self._end)
                self._check_count(layer, end)
            except ValueError:
                self.graph = before
                raise
            self._end = end

    def expect(self, item: InputSpec) -> None:
        """Say what the input is, before there are layers or where its shape was not known."""
        old = self.graph.inputs[0].name
        inputs = [item]
        ref = Ref(item.name, 0, 0)
        nodes = [
            node._replace(args=(ref,)) if node.args[0].layer == old else node
            for node in self.graph.nodes
        ]
        outputs = self.graph.outputs if nodes else ref
        self.graph = self.graph._replace(inputs=inputs, nodes=nodes, outputs=outputs)

    def append(self, layer: Any) -> None:
        """One layer more, whose weights are made when they are needed."""
        if not isinstance(layer, Layer):
            raise ValueError(
                f"{self.who}: layer {len(self.graph.layers)} is {layer!r}, expected a refrnn layer"
            )
        [item] = self.graph.inputs
        if item.shape is None and layer.name == item.name:  # which nobody gave
            self.expect(item._replace(name=f"{layer.name}_input"))
        graph = self.graph
        if layer.name in [graph.inputs[0].name, *(other.name for other in graph.layers)]:
            raise ValueError(
                f"{self.who}: two layers are called {layer.name!r}, expected unique names"
            )
        if not isinstance(graph.outputs, Ref):
            last = graph.layers[-1]
            raise ValueError(
                f"{self.who}: {last.who} returns {last.output_count} arrays (return_state, or no"
                " merge_mode), expected one, because the next layer takes a single array"
            )
        if not graph.layers and graph.inputs[0].shape is None:  # Keras takes the layer's dtype
            self.expect(graph.inputs[0]._replace(dtype=_taken_by(layer)))
            graph = self.graph
        count = layer.output_count
        outputs = tuple(Ref(layer.name, 0, k) for k in range(count))
        self.graph = Graph(
            graph.inputs,
            [*graph.nodes, Node(layer, 0, (graph.outputs,), {})],
            outputs if count > 1 else outputs[0],
            [*graph.layers, layer],
        )

    def build(self, input_shape: Any) -> None:
        """Make the weights of all layers for inputs of `input_shape`, the batch first."""
        item = self.graph.inputs[0]._replace(shape=tuple(input_shape))
        self.expect(item)
        self.symbols()
        self.built = True

    def values(
        self, inputs: Any, mask: Any, call: Callable[[Node, Any, dict[str, Any]], Any]
    ) -> Values:
        if not self.graph.layers:
            raise ValueError(f"{self.who}: has no layers, expected at least one")
        values = super().values(inputs, mask, call)
        item = self.graph.inputs[0]
        if item.shape is None:  # now it is known
            [given] = self.in_order(inputs)
            self.expect(item._replace(shape=(None, *np.shape(given)[1:])))
            self.built = True
        return values

    def _call(self, node: Node, args: Any, kwargs: dict[str, Any]) -> Any:
        outputs = super()._call(node, args, kwargs)
        self._check_count(node.layer, outputs)
        return outputs

    def _check_count(self, layer: Layer, outputs: Any) -> None:
        """Refuse several arrays where one is expected: the others would be lost."""
        count = len(leaves(outputs))
        if count != layer.output_count:
            raise ValueError(
                f"{self.who}: {layer.who} returns {count} arrays, expected {layer.output_count},"
                " because a chain hands a single array on; make a refrnn.Model of its outputs"
            )

    def get_config(self) -> dict[str, Any]:
        [item] = self.graph.inputs
        known = [] if item.shape is None else [configs.input_entry(item)]
        return self._head() | {"layers": [*known, *map(serialize, self.graph.layers)]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Sequential":
        made = cls(name=config["name"], trainable=config.get("trainable", True))
        for entry in config["layers"]:
            if entry["class_name"] == "InputLayer":
                made.expect(configs.read_input(entry))
            else:
                made.append(deserialize(entry))
        return made


def _is_recurrent(layer: Layer) -> bool:
    """Whether a recurrent layer is inside another one."""
    return any(isinstance(part, RNN) or _is_recurrent(part) for _, part in layer.parts())


def _taken_by(layer: Layer) -> str:
    """The dtype of a layer's input."""
    return layer.inputs[0].dtype if isinstance(layer, Model) else layer.dtype.name
