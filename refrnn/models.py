"""Models: layers in a chain or a graph, made from a list, a Keras config or a live Keras object."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers import RNN, Bidirectional, Layer
from refrnn.layers.base import deserialize
from refrnn.layers.masks import leaves, map_arrays, mask_of
from refrnn.layers.operations import Operation
from refrnn.layers.rnn import Memory


class Input(NamedTuple):
    """One input of a model. shape and dtype are as Keras declared them, the batch first."""

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str


class Ref(NamedTuple):
    """The output `tensor` of call number `call` of the layer (or input) called `layer`."""

    layer: str
    call: int
    tensor: int


class Node(NamedTuple):
    """One call of a layer; the arrays among its arguments are `Ref`s."""

    layer: Layer
    call: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


Memories = dict[tuple[str, int], Memory]


def _map(structure: Any, function: Callable[[Ref], Any]) -> Any:
    """`structure` with `function` of every Ref in it."""
    if isinstance(structure, Ref):
        return function(structure)
    if isinstance(structure, list | tuple):
        return type(structure)(_map(part, function) for part in structure)
    if isinstance(structure, dict):
        return {name: _map(part, function) for name, part in structure.items()}
    return structure


def _refs(structure: Any) -> list[Ref]:
    found: list[Ref] = []
    _map(structure, found.append)
    return found


class Model:
    """A graph of layers.

    A call takes an array for each input, in a list or a dictionary by name (bare for one input),
    and returns the outputs in the structure that the model was made with.
    """

    def __init__(
        self,
        name: str,
        inputs: list[Input],
        nodes: list[Node],
        outputs: Any,
        layers: Sequence[Layer],
    ) -> None:
        self.name, self.inputs, self.outputs = name, inputs, outputs
        self.nodes = nodes  # each after those it takes arrays from
        self.layers = list(layers)  # in Keras's order, which is that of the weights

    @property
    def who(self) -> str:
        return f"model {self.name!r}"

    def __call__(self, inputs: Any, training: bool = False) -> Any:
        def call(node: Node, args: Any, kwargs: dict[str, Any]) -> Any:
            return node.layer(*args, **({"training": training} | kwargs))

        return self._run(self.arrays(inputs), call)

    def advance(self, inputs: Any, memories: Memories | None = None) -> tuple[Any, Memories]:
        """What a call returns, and the memories to go on from with the next chunk.

        memories  None for the first chunk; then what the last one returned

        Changes nothing; what stateful layers carry is neither used nor touched. Raises ValueError
        where a model cannot be run in chunks of time; `why_whole` says why.
        """
        reason = self.why_whole()
        if reason:
            raise ValueError(f"{self.who} cannot be run in chunks: {reason}")
        after: Memories = {}

        def call(node: Node, args: Any, kwargs: dict[str, Any]) -> Any:
            if not isinstance(node.layer, RNN):
                return node.layer(*args, **kwargs)
            key = node.layer.name, node.call
            given = dict(
                zip(("sequences", "initial_state", "mask", "training"), args, strict=False)
            )
            given |= kwargs
            given.pop("training", None)
            start = given.pop("initial_state", None)
            sequences = given["sequences"]
            memory = (memories or {}).get(key) or node.layer.start(len(sequences), start)
            explicit, came = given.get("mask"), mask_of(sequences)
            if start is None and explicit is None:  # as in a call: a state switches the mask off
                given["mask"] = came
            output, after[key] = node.layer.advance(memory=memory, **given)
            previous = came if explicit is None else explicit
            if previous is None:
                return output
            return node.layer.with_masks(output, sequences, previous)

        return self._run(self.arrays(inputs), call), after

    def why_whole(self) -> str | None:
        """Why this model's sequences cannot be cut into chunks; None where they can."""
        given = {item.name for item in self.inputs}
        for node in self.nodes:
            if node.layer.mixes_time:
                return f"{node.layer.who} mixes time steps"
            if not isinstance(node.layer, RNN):
                continue
            if node.layer.stateful and node.call:
                return (
                    f"{node.layer.who} is stateful and called twice: the second continues the first"
                )
            if node.layer.go_backwards:
                return f"{node.layer.who} runs backwards, so its first output needs the last input"
            start = [*node.args[1:2], node.kwargs.get("initial_state")]
            inside = [ref.layer for ref in _refs(start) if ref.layer not in given]
            if inside:
                return f"{node.layer.who} starts from a state that {inside[0]!r} ends with"
        return None

    def timed(self, arrays: Sequence[Array]) -> list[bool]:
        """For each of the inputs, whether it has a time axis, the second: sequences and masks."""
        masks = {
            ref.layer
            for node in self.nodes
            for ref in _refs([node.kwargs.get("mask"), *node.args[2:3]])
        }
        return [
            array.ndim > 2 or item.name in masks
            for array, item in zip(arrays, self.inputs, strict=True)
        ]

    def _run(self, arrays: list[Array], call: Callable[..., Any]) -> Any:
        values: dict[Ref, Any] = {
            Ref(item.name, 0, 0): array for item, array in zip(self.inputs, arrays, strict=True)
        }
        for node in self.nodes:
            result = call(
                node, _map(node.args, values.__getitem__), _map(node.kwargs, values.__getitem__)
            )
            results = result if isinstance(result, tuple) else (result,)
            for k, part in enumerate(results):
                values[Ref(node.layer.name, node.call, k)] = part
        return _map(self.outputs, values.__getitem__)

    def arrays(self, inputs: Any) -> list[Array]:
        """`inputs` as a list in the order of `self.inputs`, or ValueError."""
        names = [item.name for item in self.inputs]
        if isinstance(inputs, Mapping):
            if set(inputs) != set(names):
                raise ValueError(f"{self.who}: inputs are {sorted(inputs)}, expected {names}")
            inputs = [inputs[name] for name in names]
        elif not isinstance(inputs, list | tuple) or (
            len(names) == 1 and not (len(inputs) == 1 and isinstance(inputs[0], np.ndarray))
        ):
            inputs = [inputs]
        if len(inputs) != len(names):
            raise ValueError(
                f"{self.who}: {len(inputs)} inputs, expected {len(names)}: {', '.join(names)}"
            )
        arrays = [
            checks.array(self.who, f"input {name!r}", array)
            for name, array in zip(names, inputs, strict=True)
        ]
        for item, array in zip(self.inputs, arrays, strict=True):
            if item.shape is not None and array.ndim != len(item.shape):
                shape = tuple("batch" if k == 0 else n for k, n in enumerate(item.shape))
                raise ValueError(
                    f"{self.who}: input {item.name!r} has shape {array.shape}, expected"
                    f" {len(item.shape)} dimensions: {shape}"
                )
        return arrays

    @property
    def weights(self) -> list[Array]:
        """The weights of all layers, read-only, in Keras's order."""
        return [array for layer in self.layers for array in layer.weights]

    def get_weights(self) -> list[Array]:
        """Copies of the weights of all layers, in Keras's order."""
        return [array.copy() for array in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Write all weights, in the order of `get_weights`; all layers must be built.

        Raises ValueError if their number or a shape is wrong, before any is written.
        """
        unbuilt = [layer.who for layer in self.layers if not layer.built]
        if unbuilt:
            raise ValueError(
                f"{self.who}: {unbuilt[0]} is not built, expected a call before set_weights,"
                " because the shapes of its weights follow from its input"
            )
        new, mine = [checks.array(self.who, "a weight", w) for w in weights], self.weights
        if len(new) != len(mine):
            raise ValueError(f"{self.who}: set_weights got {len(new)} arrays, expected {len(mine)}")
        names = [f"{layer.who}: {name}" for layer in self.layers for name in layer.weight_names]
        for name, array, old in zip(names, new, mine, strict=True):
            if array.shape != old.shape:
                raise ValueError(f"{name} has shape {array.shape}, expected {old.shape}")
            checks.numbers(name, "the new value", array, old.dtype)
        for layer in self.layers:
            count = len(layer.weights)
            layer.set_weights(new[:count])
            new = new[count:]

    def predict(self, inputs: Any, batch_size: int = 32) -> Any:
        """The outputs for `inputs`, computed `batch_size` rows at a time.

        A row's numbers do not depend on its batch, so they are those of one call; what is saved is
        memory. A stateful model takes its own number of rows at a time, and carries its state on.
        """
        size = checks.count(self.who, "batch_size", batch_size)
        arrays = self.arrays(inputs)
        rows = {len(array) for array in arrays}
        if len(rows) != 1:
            raise ValueError(f"{self.who}: inputs have {sorted(rows)} rows, expected as many each")
        parts = []
        for start in range(0, max(1, rows.pop()), size):
            batch = [array[start : start + size] for array in arrays]
            parts.append(self(batch if len(batch) > 1 else batch[0]))
        columns = iter([np.concatenate(leaf) for leaf in zip(*map(leaves, parts), strict=True)])
        return map_arrays(lambda _: next(columns), parts[0])

    def to_stateful(self, rows: int) -> "Model":
        """A copy whose recurrent layers carry their state from call to call, for `rows` sequences.

        Train stateless, serve stateful: the weights are copied, the state begins with zeros.
        """
        count = checks.count(self.who, "rows", rows)
        copies: dict[int, Layer] = {}
        for layer in self.layers:
            copies[id(layer)] = mine = copy.deepcopy(layer)
            if isinstance(mine, Bidirectional):
                raise ValueError(
                    f"{self.who}: {mine.who} cannot be made stateful, expected layers that go one"
                    " way, because its backward half needs the end of the sequence first"
                )
            if isinstance(mine, RNN):
                mine.make_stateful(count)
        nodes = [node._replace(layer=copies[id(node.layer)]) for node in self.nodes]
        return Model(
            self.name, self.inputs, nodes, self.outputs, [copies[id(x)] for x in self.layers]
        )

    def reset_states(self) -> None:
        """Make every stateful layer forget what it carries."""
        for layer in self.layers:
            if isinstance(layer, RNN | Bidirectional):
                layer.reset_states()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}, {len(self.layers)} layers>"


class Sequential(Model):
    """Layers one after another, as `keras.Sequential`.

    layers  refrnn layers; each takes what the one before returns
    """

    def __init__(
        self, layers: Sequence[Layer], name: str = "sequential", shape: Any = None
    ) -> None:
        if not isinstance(layers, list | tuple):
            raise ValueError(f"Sequential: layers is {layers!r}, expected a list of refrnn layers")
        nodes: list[Node] = []
        previous = Ref("input", 0, 0)
        for k, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise ValueError(f"Sequential: layer {k} is {layer!r}, expected a refrnn layer")
            if any(layer.name == node.layer.name for node in nodes):
                raise ValueError(
                    f"Sequential: two layers are called {layer.name!r}, expected unique names"
                )
            if layer.output_count > 1 and k < len(layers) - 1:
                raise ValueError(
                    f"Sequential: {layer.who} returns {layer.output_count} arrays (return_state, or"
                    " no merge_mode), expected one, because the next layer takes a single array"
                )
            nodes.append(Node(layer, 0, (previous,), {}))
            previous = Ref(layer.name, 0, 0)
        if not nodes:
            raise ValueError("Sequential: no layers, expected at least one")
        last = nodes[-1].layer
        outputs: Any = previous
        if last.output_count > 1:
            outputs = tuple(Ref(last.name, 0, k) for k in range(last.output_count))
        super().__init__(name, [Input("input", shape, "float32")], nodes, outputs, layers)


def from_config(kind: str, config: dict[str, Any]) -> Model:
    """A model without weights from what Keras 3's `get_config` returned.

    kind  "Sequential" or "Functional"

    Raises ValueError for a layer that refrnn does not have, by name. Nothing in a config is run.
    """
    if kind == "Sequential":
        entries = [e for e in config["layers"] if e["class_name"] != "InputLayer"]
        shapes = [e["config"] for e in config["layers"] if e["class_name"] == "InputLayer"]
        shape = tuple(shapes[0]["batch_shape"]) if shapes else None
        return Sequential([deserialize(entry) for entry in entries], config["name"], shape)
    inputs = [
        Input(e["config"]["name"], tuple(e["config"]["batch_shape"]), e["config"]["dtype"])
        for e in config["layers"]
        if e["class_name"] == "InputLayer"
    ]
    order = _in_keras_order(_keras_refs(config["input_layers"]))
    inputs.sort(key=lambda item: order.index(item.name))
    waiting, layers = [], []
    for entry in config["layers"]:
        if entry["class_name"] != "InputLayer":
            layer = deserialize(entry)
            if not isinstance(layer, Operation):  # Keras does not count them among its layers
                layers.append(layer)
            for call, node in enumerate(entry["inbound_nodes"]):
                args, kwargs = _tensors(node["args"]), _tensors(node["kwargs"])
                waiting.append(Node(layer, call, tuple(args), kwargs))
    outputs = _keras_refs(config["output_layers"])
    if isinstance(outputs, list) and len(outputs) == 1:
        outputs = outputs[0]  # the only output of a list is returned bare
    return Model(config["name"], inputs, _sorted(waiting, inputs), outputs, layers)


def _in_keras_order(structure: Any) -> list[str]:
    """The names in a structure of inputs as Keras flattens it: dictionaries by sorted key."""
    if isinstance(structure, dict):
        return [name for key in sorted(structure) for name in _in_keras_order(structure[key])]
    if isinstance(structure, list):
        return [name for part in structure for name in _in_keras_order(part)]
    return [structure.layer]


def _sorted(waiting: list[Node], inputs: list[Input]) -> list[Node]:
    """The nodes, each after those it takes arrays from."""
    done = {(item.name, 0) for item in inputs}
    nodes: list[Node] = []
    while waiting:
        ready = [
            node
            for node in waiting
            if all(ref[:2] in done for ref in _refs([node.args, node.kwargs]))
        ]
        if not ready:
            names = ", ".join(repr(node.layer.name) for node in waiting)
            raise ValueError(f"the graph cannot be ordered: {names} wait for one another")
        nodes += ready
        done |= {(node.layer.name, node.call) for node in ready}
        waiting = [node for node in waiting if node not in ready]
    return nodes


def _keras_refs(structure: Any) -> Any:
    """Keras's [layer, call, tensor] lists, at any depth of lists and dictionaries, as Refs."""
    if isinstance(structure, dict):
        return {name: _keras_refs(part) for name, part in structure.items()}
    if len(structure) == 3 and isinstance(structure[0], str) and isinstance(structure[1], int):
        return Ref(*structure)
    return [_keras_refs(part) for part in structure]


def _tensors(structure: Any) -> Any:
    """The arguments of a stored call, its Keras tensors as Refs."""
    if isinstance(structure, dict):
        if structure.get("class_name") == "__keras_tensor__":
            return Ref(*structure["config"]["keras_history"])
        if structure.get("class_name") == "__tensor__":
            return np.array(structure["config"]["value"], structure["config"]["dtype"])
        return {name: _tensors(part) for name, part in structure.items()}
    if isinstance(structure, list | tuple):
        return [_tensors(part) for part in structure]
    return structure


def from_keras(source: Any) -> Layer | Model:
    """A live Keras 3 layer, cell or model as a refrnn one, with its weights and carried states.

    source  a layer of the kinds in refrnn.layers, or a Sequential or functional model of them

    Keras itself is not imported. Raises ValueError, by name, for a layer that refrnn does not have
    and for weights that are not finite; TypeError for what is not a Keras 3 object.
    """
    parents = {f"{k.__module__.partition('.')[0]}.{k.__name__}" for k in type(source).__mro__}
    if "keras.Layer" not in parents:
        raise TypeError(
            f"from_keras: {source!r} is a {type(source).__module__}.{type(source).__name__},"
            " expected a layer or model of Keras 3"
        )
    kind = type(source).__name__
    if "keras.Model" not in parents:
        entry = {"class_name": kind, "module": type(source).__module__}
        layer = deserialize({**entry, "config": source.get_config()})
        _copy_weights(source, layer)
        return layer
    if kind not in ("Sequential", "Functional"):
        raise ValueError(
            f"from_keras: model {source.name!r} is a {kind}, expected a Sequential or functional"
            " model, because what a subclass computes is code that its config does not hold"
        )
    model = from_config(kind, source.get_config())
    by_name = {layer.name: layer for layer in source.layers}
    for layer in model.layers:
        _copy_weights(by_name[layer.name], layer)
    return model


def _copy_weights(source: Any, layer: Layer) -> None:
    weights = source.get_weights()
    if not weights:
        return
    layer.set_weights(weights)
    for name, array in zip(layer.weight_names, layer.weights, strict=True):
        checks.finite(layer.who, name, array)
    if isinstance(layer, RNN | Bidirectional) and layer.stateful and source.states is not None:
        layer.reset_states(map_arrays(np.asarray, list(source.states)))
