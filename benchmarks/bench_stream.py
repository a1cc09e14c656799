"""What does one step of a stream cost, beside the ways that other libraries have for it?

Every program takes the same steps with its state carried; their outputs are compared first, within
1e-5, the float32 rounding of some steps. Then all are timed in turn, round by round, so that
whatever else the machine does falls on all of them; figures are medians, in microseconds a step,
and in brackets the quartiles. A library that is not installed is named and left out.

    python benchmarks/bench_stream.py         # the table
    python benchmarks/bench_stream.py --soak  # a million steps: memory, and the bits of the whole
"""

import argparse
import importlib.util
import os
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import refrnn
from refrnn import Stream, kernels, layers

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
F, CHECKED, ROUNDS, ROUND_SECONDS = 8, 5, 25, 0.02

Step = Callable[[np.ndarray], Any]


class Shape(NamedTuple):
    """LSTM layers of these units, and a Dense layer of one unit at the end of more than one."""

    units: tuple[int, ...]
    rows: int

    @property
    def dense(self) -> bool:
        return len(self.units) > 1

    def __str__(self) -> str:
        name = " + ".join(f"LSTM({n})" for n in self.units) + (" + Dense(1)" if self.dense else "")
        return f"{name}, {self.rows} row{'s' if self.rows > 1 else ''}"


SHAPES = (
    Shape((32,), 1), Shape((128,), 1), Shape((512,), 1), Shape((64, 64), 1),
    Shape((32,), 1000), Shape((64, 64), 1000),
)  # fmt: skip
SESSIONS = (1, 10, 100, 1000, 10_000)  # rows of one LSTM(32)


def weights_of(shape: Shape) -> list[list[np.ndarray]]:
    """For each layer kernel, recurrent_kernel and bias as Keras has them; of Dense two."""
    rng = np.random.default_rng(0)
    made, features = [], F
    for n in shape.units:
        sizes = (features, 4 * n), (n, 4 * n), (4 * n,)
        scale = 1 / np.sqrt(features + n)
        made.append([rng.normal(0, scale, s).astype(np.float32) for s in sizes])
        features = n
    if shape.dense:
        made.append([rng.normal(0, 0.1, s).astype(np.float32) for s in ((features, 1), (1,))])
    return made


# --- refrnn ---


def model_of(shape: Shape, engine: str = "auto") -> Any:
    inner: list[Any] = [layers.LSTM(n, return_sequences=True, engine=engine) for n in shape.units]
    if shape.dense:
        inner.append(layers.Dense(1))
    model = refrnn.Sequential([layers.Input((None, F)), *inner])
    model.set_weights([w for part in weights_of(shape) for w in part])
    return model


def refrnn_step(shape: Shape) -> Step:
    return Stream(model_of(shape), shape.rows).step


def refrnn_push(shape: Shape) -> Step:
    stream = Stream(model_of(shape), shape.rows)
    return lambda x: stream.push(x[:, None])[:, 0]


def refrnn_numpy(shape: Shape) -> Step:
    return Stream(model_of(shape, "numpy"), shape.rows).step


def bare_kernel(shape: Shape) -> Step | None:
    """The compiled step alone: what the stream adds is the difference."""
    if shape.dense:
        return None
    cell = refrnn.cells.CELLS["lstm"]
    packed = kernels.pack(cell, refrnn.Weights(*weights_of(shape)[0]))
    return packed.stepper(cell.zeros(shape.rows, shape.units[0], np.dtype("float32"))).step


# --- Keras ---


def keras_model(shape: Shape) -> Any:
    import keras

    inner: list[Any] = [
        keras.layers.LSTM(n, return_sequences=k < len(shape.units) - 1, stateful=True)
        for k, n in enumerate(shape.units)
    ]
    if shape.dense:
        inner.append(keras.layers.Dense(1))
    model = keras.Sequential([keras.Input(batch_shape=(shape.rows, 1, F)), *inner])
    model.set_weights([w for part in weights_of(shape) for w in part])
    return model


def keras_predict(shape: Shape) -> Step:
    model = keras_model(shape)
    return lambda x: model.predict(x[:, None], batch_size=shape.rows, verbose=0)


def keras_predict_on_batch(shape: Shape) -> Step:
    model = keras_model(shape)
    return lambda x: model.predict_on_batch(x[:, None])


def keras_call(shape: Shape) -> Step:
    model = keras_model(shape)
    return lambda x: model(x[:, None]).numpy()


def keras_function(shape: Shape) -> Step:
    """A tf.function that takes the states and returns them: no variable is touched."""
    import tensorflow as tf

    parts = weights_of(shape)
    states = [tf.zeros((2, shape.rows, n)) for n in shape.units]

    @tf.function
    def step(x: Any, states: Any) -> Any:
        after = []
        for (kernel, recurrent, bias), state in zip(parts, states, strict=False):
            h, c = tf.unstack(state)
            i, f, g, o = tf.split(x @ kernel + h @ recurrent + bias, 4, axis=1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            x = tf.sigmoid(o) * tf.tanh(c)
            after.append(tf.stack([x, c]))
        if shape.dense:
            x = x @ parts[-1][0] + parts[-1][1]
        return x, after

    def run(x: np.ndarray) -> Any:
        nonlocal states
        y, states = step(tf.constant(x), states)
        return y.numpy()

    return run


# --- others ---


def torch_lstm(shape: Shape) -> Step:
    import torch

    torch.set_num_threads(1)
    parts = weights_of(shape)
    modules = []
    for (kernel, recurrent, bias), n in zip(parts, shape.units, strict=False):
        cell = torch.nn.LSTMCell(len(kernel), n)
        with torch.no_grad():  # the gates are in Keras's order: i f g o
            cell.weight_ih.copy_(torch.from_numpy(kernel.T.copy()))
            cell.weight_hh.copy_(torch.from_numpy(recurrent.T.copy()))
            cell.bias_ih.copy_(torch.from_numpy(bias))
            cell.bias_hh.zero_()
        modules.append(cell)
    states: list[Any] = [None] * len(modules)
    last = [torch.from_numpy(part) for part in parts[-1]]

    def run(x: np.ndarray) -> Any:
        with torch.inference_mode():
            y = torch.from_numpy(x)
            for k, cell in enumerate(modules):
                states[k] = cell(y, states[k])
                y = states[k][0]
            return (torch.addmm(last[1], y, last[0]) if shape.dense else y).numpy()

    return run


def onnxruntime_lstm(shape: Shape) -> Step:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rows, parts = shape.rows, weights_of(shape)
    nodes, inputs, outputs, arrays = [], [], [], []
    at = "x"
    inputs.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, rows, F)))
    for k, ((kernel, recurrent, bias), n) in enumerate(zip(parts, shape.units, strict=False)):
        i, f, g, o = np.arange(4 * n).reshape(4, n)
        order = np.concatenate([i, o, f, g])  # ONNX has i o f c
        named = {
            f"W{k}": kernel.T[order][None],
            f"R{k}": recurrent.T[order][None],
            f"B{k}": np.concatenate([bias[order], np.zeros_like(bias)])[None],
        }
        arrays += [numpy_helper.from_array(np.ascontiguousarray(a), m) for m, a in named.items()]
        ends = [f"h{k}", f"c{k}"]
        for name in ends:
            sizes = 1, rows, n
            inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes))
            outputs.append(helper.make_tensor_value_info(f"{name}_", TensorProto.FLOAT, sizes))
        nodes.append(
            helper.make_node(
                "LSTM", [at, *named, "", *ends], ["", *(f"{e}_" for e in ends)], hidden_size=n
            )
        )
        at = f"h{k}_"
    if shape.dense:
        arrays += [
            numpy_helper.from_array(a, m) for m, a in zip(("D", "E"), parts[-1], strict=True)
        ]
        nodes += [
            helper.make_node("MatMul", [at, "D"], ["d"]),
            helper.make_node("Add", ["d", "E"], ["y"]),
        ]
        outputs.insert(0, helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, rows, 1)))
    graph = helper.make_graph(nodes, "step", inputs, outputs, arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {i.name: np.zeros(i.shape, np.float32) for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]

    def run(x: np.ndarray) -> Any:
        feed["x"] = x[None]
        found = dict(zip(names, session.run(None, feed), strict=True))
        for name in feed:
            if name != "x":
                feed[name] = found[f"{name}_"]
        return found["y" if shape.dense else "h0_"][0]

    return run


PROGRAMS: dict[str, tuple[str, Callable[[Shape], Step | None]]] = {
    "refrnn Stream.step": ("refrnn", refrnn_step),
    "refrnn kernel alone": ("refrnn", bare_kernel),
    "refrnn Stream.push": ("refrnn", refrnn_push),
    "refrnn Stream.step, NumPy engine": ("refrnn", refrnn_numpy),
    "torch LSTMCell": ("torch", torch_lstm),
    "ONNX Runtime": ("onnxruntime", onnxruntime_lstm),
    "tf.function, state carried": ("tensorflow", keras_function),
    "Keras predict_on_batch": ("keras", keras_predict_on_batch),
    "Keras model(x)": ("keras", keras_call),
    "Keras predict": ("keras", keras_predict),
}


def available() -> dict[str, Callable[[Shape], Step | None]]:
    missing = {lib for lib, _ in PROGRAMS.values() if importlib.util.find_spec(lib) is None}
    for library in sorted(missing):
        print(f"{library} is not installed here, and left out")
    return {name: make for name, (lib, make) in PROGRAMS.items() if lib not in missing}


def verified(shape: Shape, makers: dict[str, Callable[[Shape], Step | None]]) -> dict[str, Step]:
    """The programs of a shape, which agree."""
    x = np.random.default_rng(1).normal(size=(CHECKED, shape.rows, F)).astype(np.float32)
    steps = {name: step for name, make in makers.items() if (step := make(shape)) is not None}
    want = None
    for name, step in steps.items():
        got = np.stack([np.asarray(step(x[t])).reshape(shape.rows, -1) for t in range(CHECKED)])
        want = got if want is None else want
        worst = float(np.abs(got - want).max())
        assert worst < 1e-5, f"{name} differs by {worst} for {shape}"
    return steps


def timed(steps: dict[str, Step], rows: int) -> dict[str, list[float]]:
    """Seconds a step, round by round."""
    x = np.random.default_rng(2).normal(size=(rows, F)).astype(np.float32)
    counts, found = {}, {name: [] for name in steps}
    for name, step in steps.items():
        started = time.perf_counter()
        step(x)
        once = time.perf_counter() - started
        counts[name] = max(1, min(20_000, int(ROUND_SECONDS / once)))
    for _ in range(ROUNDS):
        for name, step in steps.items():
            started = time.perf_counter()
            for _ in range(counts[name]):
                step(x)
            found[name].append((time.perf_counter() - started) / counts[name])
    return found


def report(shape: Shape, found: dict[str, list[float]]) -> None:
    medians = {name: 1e6 * statistics.median(times) for name, times in found.items()}
    mine = medians["refrnn Stream.step"]
    peers = {name: m for name, m in medians.items() if not name.startswith("refrnn")}
    print(f"\n{shape}")
    for name, median in medians.items():
        low, _, high = (1e6 * q for q in statistics.quantiles(found[name], n=4))
        print(f"  {name:34}{median:12.2f}  [{low:.2f} to {high:.2f}]{median / mine:10.1f} x")
    if peers:
        best = min(peers, key=lambda name: peers[name])
        print(f"  Stream.step / best peer ({best}): {mine / peers[best]:.2f}")


def sessions() -> None:
    """How the cost of a step grows with the number of sessions that share it."""
    print("\nsessions of LSTM(32): microseconds a step of all, and steps a second")
    steps = {str(n): refrnn_step(Shape((32,), n)) for n in SESSIONS}
    for n in SESSIONS:
        times = timed({str(n): steps[str(n)]}, n)[str(n)]
        median = statistics.median(times)
        print(f"  {n:6}{1e6 * median:12.1f}{n / median:14,.0f}")


def soak(steps: int = 1_000_000) -> None:
    """Memory before and after, and the outputs against one call on the whole sequence."""
    model = model_of(Shape((32,), 1))
    x = np.random.default_rng(0).normal(size=(1, steps, F)).astype(np.float32)
    got = np.empty((1, steps, 32), np.float32)
    stream = Stream(model)
    tracemalloc.start()
    for t in range(steps):
        if t == 1000:
            before = tracemalloc.get_traced_memory()[0]
        got[:, t] = stream.step(x[:, t])
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    equal = got.tobytes() == np.asarray(model(x)).tobytes()
    print(f"{steps:,} steps: {after - before:+} bytes; the bits of the whole: {equal}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--soak", action="store_true", help="a million steps instead of the table")
    if parser.parse_args().soak:
        soak()
        return
    makers = available()
    print("microseconds a step: median, quartiles, and how many times Stream.step")
    for shape in SHAPES:
        report(shape, timed(verified(shape, makers), shape.rows))
    sessions()


if __name__ == "__main__":
    main()
