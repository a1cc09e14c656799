"""Random weights as other libraries store them, and those libraries run on them.

Each library is imported where it is asked for. What they computed is kept in
fixtures/layouts/written.npz, so that tests need none of them.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from refrnn.layouts import LAYOUTS, Stored
from refrnn.layouts.blocks import Sizes, block_shape
from refrnn.layouts.conversion import rewritten
from refrnn.layouts.hub import Function, Hub, Pass

Array = np.ndarray[Any, Any]
States = tuple[Array, ...]
B, T, F, H = 2, 7, 3, 4


class Case(NamedTuple):
    layout: str
    cell: str
    directions: int = 2
    layers: int = 1
    width: int = H
    peephole: bool = False
    function: Function = Function()

    def weights(self) -> Stored:
        """Float32, with all biases, and zero nowhere."""
        rng = np.random.default_rng(0)
        slots = LAYOUTS[self.layout].cells[self.cell].slots
        names = sorted({n for slot in slots for line in slot.grid for n in line})
        names = [n for n in names if n != "R" or self.width != H]
        names = [n for n in names if n[0] != "p" or self.peephole]
        stack = []
        for layer in range(self.layers):
            sizes = Sizes(self.directions * self.width if layer else F, H, self.width)
            stack.append([
                Pass(sizes, {n: rng.normal(0, 0.5, block_shape(n, sizes)).astype("float32")
                             for n in names})
                for _ in range(self.directions)
            ])  # fmt: skip
        return rewritten(Hub(self.cell, self.function, stack), self.layout)

    def inputs(self) -> tuple[Array, States]:
        """xs (B, T, F), and states as the library has them."""
        rng = np.random.default_rng(1)
        D, L = self.directions, self.layers
        form = LAYOUTS[self.layout].cells[self.cell]

        def state(part: str) -> Array:
            wide = self.width if part == "h" else H
            shape = {
                "(L*D, B, H)": (L * D, B, wide),
                "(D, B, H)": (D, B, wide),
                "(B, D, H)": (B, D, wide),
            }.get(LAYOUTS[self.layout].states, (B, wide))
            return rng.normal(size=shape).astype("float32")

        xs = rng.normal(size=(B, T, F)).astype("float32")
        return xs, tuple(state(part) for part in form.state)


_HARD2, _HARD3 = Function(rec="hard_sigmoid_keras2"), Function(rec="hard_sigmoid")
CASES = {
    "torch lstm": Case("torch", "lstm", layers=2),
    "torch gru": Case("torch", "gru", layers=2),
    "torch simple": Case("torch", "simple", layers=2),
    "torch projection": Case("torch", "lstm", layers=2, width=2),
    "onnx lstm": Case("onnx", "lstm"),
    "onnx gru": Case("onnx", "gru"),
    "onnx gru reset before": Case("onnx", "gru_reset_before"),
    "onnx simple": Case("onnx", "simple"),
    "onnx peepholes": Case("onnx", "lstm", peephole=True),
    "onnx clip": Case("onnx", "lstm", function=Function(clip=0.4)),
    "onnx peepholes and clip": Case("onnx", "lstm", peephole=True, function=Function(clip=0.4)),
    "onnx input_forget": Case("onnx", "lstm", function=Function(input_forget=True)),
    "onnx hard_sigmoid of Keras 2": Case("onnx", "lstm", function=_HARD2),
    "onnx hard_sigmoid of Keras 3": Case("onnx", "gru", function=_HARD3),
    "onnx relu": Case("onnx", "simple", function=Function(act="relu")),
    "onnx softsign": Case("onnx", "lstm", function=Function(act="softsign")),
    "openvino lstm": Case("openvino", "lstm"),
    "openvino clip": Case("openvino", "lstm", function=Function(clip=0.4)),
    "openvino gru": Case("openvino", "gru"),
    "openvino gru reset before": Case("openvino", "gru_reset_before"),
    "openvino simple": Case("openvino", "simple"),
    "jax lstm": Case("cudnn", "lstm", layers=2),
    "linen lstm": Case("flax-linen", "lstm", directions=1),
    "linen gru": Case("flax-linen", "gru", directions=1),
    "linen simple": Case("flax-linen", "simple", directions=1),
    "nnx lstm": Case("flax-nnx", "lstm", directions=1),
    "nnx gru": Case("flax-nnx", "gru", directions=1),
    "nnx simple": Case("flax-nnx", "simple", directions=1),
}


def torch(w: Stored, xs: Array, states: States) -> tuple[Array, States]:
    torch = importlib.import_module("torch")
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "simple": torch.nn.RNN}[w.cell]
    module = kind(**w.attributes, batch_first=True)
    module.load_state_dict({name: torch.from_numpy(a) for name, a in w.items()})
    given = tuple(map(torch.from_numpy, states))
    with torch.no_grad():
        ys, after = module(torch.from_numpy(xs), given if len(given) > 1 else given[0])
    ends = after if len(given) > 1 else (after,)
    return ys.numpy(), tuple(end.numpy() for end in ends)


def onnx(w: Stored, xs: Array, states: States) -> tuple[Array, States]:
    onnx, runtime = map(importlib.import_module, ("onnx", "onnxruntime"))
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    op = {"lstm": "LSTM", "simple": "RNN"}.get(w.cell, "GRU")
    names = ["X", "W", "R", "B", "", "h"]
    names += ["c", "P" if "P" in w else ""] if op == "LSTM" else []
    held = [*w.items(), *zip("hc", states, strict=False)]
    outputs = ["Y", "Y_h", "Y_c"][: 1 + len(states)]
    graph = helper.make_graph(
        [helper.make_node(op, names, outputs, **w.attributes)],
        "graph",
        [helper.make_tensor_value_info("X", floats, None)],
        [helper.make_tensor_value_info(name, floats, None) for name in outputs],
        [onnx.numpy_helper.from_array(a, name) for name, a in held],
    )
    opset = [helper.make_opsetid("", 14)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    Y, *after = session.run(None, {"X": np.ascontiguousarray(xs.swapaxes(0, 1))})
    return Y.transpose(2, 0, 1, 3).reshape(B, T, -1), tuple(after)


def openvino(w: Stored, xs: Array, states: States) -> tuple[Array, States]:
    openvino = importlib.import_module("openvino")
    ops = openvino.opset9
    make = {"lstm": ops.lstm_sequence, "simple": ops.rnn_sequence}.get(w.cell, ops.gru_sequence)
    told = dict(w.attributes)
    if "linear_before_reset" in told:
        told["linear_before_reset"] = bool(told["linear_before_reset"])
    X = ops.parameter(list(xs.shape), np.float32)
    arrays = [*states, np.full(B, T), *(w[name] for name in "WRB")]
    if w.cell == "simple":  # its activations are those of the binding's default, tanh
        del told["activations"]
    node = make(X, *map(ops.constant, arrays), **told)
    model = openvino.Model(node.outputs(), [X])
    run = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    Y, *after = run([xs]).values()
    return Y.transpose(0, 2, 1, 3).reshape(B, T, -1), tuple(after)


def jax(w: Stored, xs: Array, states: States) -> tuple[Array, States]:
    rnn = importlib.import_module("jax.experimental.rnn")
    weights = rnn.unpack_lstm_weights(w["weights"], **w.attributes)
    lengths = np.full(B, T, np.int32)
    y, h, c = rnn.lstm_ref(xs, *states, *weights, lengths, dropout=0.0, **w.attributes)
    return np.asarray(y), (np.asarray(h), np.asarray(c))


def nested(arrays: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """ "hi/kernel" as ["hi"]["kernel"]."""
    found: dict[str, dict[str, Array]] = {}
    for name, a in arrays.items():
        layer, _, what = name.partition("/")
        found.setdefault(layer, {})[what] = a
    return found


def _steps(step: Callable[[Any, Array], Any], xs: Array, states: States) -> tuple[Array, States]:
    carry: Any = states if len(states) > 1 else states[0]
    ys = []
    for t in range(xs.shape[1]):
        carry, y = step(carry, xs[:, t])
        ys.append(np.asarray(y))
    ends = carry if len(states) > 1 else (carry,)
    return np.stack(ys, axis=1), tuple(map(np.asarray, ends))


def linen(w: Stored, xs: Array, states: States) -> tuple[Array, States]:
    linen = importlib.import_module("flax.linen")
    kind = {"lstm": linen.LSTMCell, "gru": linen.GRUCell, "simple": linen.SimpleCell}[w.cell]
    cell = kind(features=H)
    return _steps(lambda carry, x: cell.apply({"params": nested(w)}, carry, x), xs, states)


def nnx(w: Stored, xs: Array, states: States) -> tuple[Array, States]:
    nnx = importlib.import_module("flax.nnx")
    kind = {"lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell, "simple": nnx.SimpleCell}[w.cell]
    cell = kind(F, H, rngs=nnx.Rngs(0))
    for layer, arrays in nested(w).items():
        for what, a in arrays.items():
            getattr(getattr(cell, layer), what).set_value(a)
    return _steps(cell, xs, states)


# By the layout: what it needs, and how it is run.
LIBRARIES: dict[str, tuple[tuple[str, ...], Callable[..., tuple[Array, States]]]] = {
    "torch": (("torch",), torch),
    "onnx": (("onnx", "onnxruntime"), onnx),
    "openvino": (("openvino",), openvino),
    "cudnn": (("jax",), jax),
    "flax-linen": (("flax",), linen),
    "flax-nnx": (("flax",), nnx),
}
