"""The competitors: each is made for a number of threads, and then for a problem, as one program.

A program runs the whole problem once on its library's own kind of arrays, the outputs of every step
and the state after returned. Where the problem is one step, the state is carried from run to run;
else every run starts from the same state. `result` is the outcome of a run from the problem's
state. What a competitor is not made for, or takes over a second for, raises Skip and says why.

Frameworks are imported by the functions below, one competitor to a process.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from shapes import Array, Problem

Run = Callable[[], Any]


class Skip(Exception):
    """Why a competitor has no figure for a problem."""


class Program(NamedTuple):
    """Ways to run a problem, of which the fastest is timed; `result` is None for a floor."""

    runs: list[Run]
    result: Callable[[], list[Any]] | None = None


Maker = Callable[[Problem], Program]
Factory = Callable[[int], Maker]


def blocks(array: Array, order: tuple[int, ...]) -> Array:
    """The gates' blocks along the last axis in another order."""
    return np.concatenate([np.split(array, len(order), axis=-1)[k] for k in order], axis=-1)


def float32_only(p: Problem, library: str) -> None:
    if p.shape.dtype != "float32":
        raise Skip(f"{library} has no float64 kernel for it on the CPU")


# --- refrnn ---


def refrnn_kernel(threads: int) -> Maker:
    """The kernels alone: packed weights, a fresh output a call, no checks of arguments."""
    from refrnn import Weights, kernels
    from refrnn.cells import CELLS, LSTMState, State

    def make(p: Problem) -> Program:
        packed = kernels.pack(CELLS[p.shape.cell], Weights(p.kernel, p.recurrent, p.bias))
        state = (LSTMState if p.shape.cell == "lstm" else State)(*p.state)

        def whole() -> Any:
            return packed.run(p.xs, state, threads=threads)

        def result() -> list[Any]:
            ys, after = whole()
            return [ys, *after]

        if p.shape.steps > 1:
            return Program([whole], result)
        step, x = packed.stepper(state, threads=threads).step, p.xs[:, 0]
        return Program([lambda: step(x)], result)

    return make


def _refrnn_layer(engine: str) -> Maker:
    from refrnn import layers

    def make(p: Problem) -> Program:
        if engine == "numpy" and p.shape.work > 5e8:
            raise Skip("over a second a call")
        kind = {"lstm": layers.LSTM, "gru": layers.GRU}[p.shape.cell]
        streaming = p.shape.steps == 1
        layer = kind(
            p.shape.units, return_sequences=True, return_state=True, stateful=streaming,
            engine=engine, dtype=p.shape.dtype,
        )  # fmt: skip
        layer.build(p.xs.shape)
        layer.set_weights([p.kernel, p.recurrent, p.bias])

        def from_state() -> Any:
            return layer(p.xs, initial_state=p.state)

        return Program([(lambda: layer(p.xs)) if streaming else from_state], from_state)

    return make


def refrnn_layer(threads: int) -> Maker:
    """What a user calls: the layer, with its checks; NUMBA_NUM_THREADS says the threads."""
    return _refrnn_layer("numba")


def refrnn_numpy(threads: int) -> Maker:
    """The same layer on the NumPy engine, which has no threads."""
    return _refrnn_layer("numpy")


# --- Keras and TensorFlow ---


def _tensorflow(threads: int) -> Any:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    return tf


def _keras_layer(p: Problem, **options: Any) -> Any:
    import keras

    keras.config.set_floatx(p.shape.dtype)  # predict converts its input to that
    kind = keras.layers.LSTM if p.shape.cell == "lstm" else keras.layers.GRU
    layer = kind(
        p.shape.units, return_sequences=True, return_state=True, dtype=p.shape.dtype, **options
    )
    layer.build(p.xs.shape)
    layer.set_weights([p.kernel, p.recurrent, p.bias])
    return layer


def _keras_model(p: Problem, call: Callable[[Any, Any], Any]) -> Program:
    """A model of one layer: stateful for one step, else with the state as further inputs."""
    import keras

    B, T, F, H = p.shape[1:5]
    layer = _keras_layer(p, stateful=T == 1)
    x = keras.Input(batch_shape=(B, T, F), dtype=p.shape.dtype)
    if T == 1:
        model = keras.Model(x, layer(x))

        def result() -> list[Any]:
            for variable, part in zip(layer.states, p.state, strict=True):
                variable.assign(part)
            return list(call(model, p.xs))

        return Program([lambda: call(model, p.xs)], result)
    state = [keras.Input(batch_shape=(B, H), dtype=p.shape.dtype) for _ in p.state]
    model = keras.Model([x, *state], layer(x, initial_state=state))
    run = lambda: call(model, [p.xs, *p.state])  # noqa: E731
    return Program([run], run)


def keras_predict(threads: int) -> Maker:
    """model.predict(x), one batch."""
    _tensorflow(threads)
    return lambda p: _keras_model(
        p, lambda model, x: model.predict(x, batch_size=p.shape.rows, verbose=0)
    )


def keras_call(threads: int) -> Maker:
    """model(x)."""
    _tensorflow(threads)

    def make(p: Problem) -> Program:
        if p.shape.steps > 100 or p.shape.work > 5e9:
            raise Skip("over a second a call")
        return _keras_model(p, lambda model, x: model(x, training=False))

    return make


def _tf_function(threads: int, xla: bool) -> Maker:
    tf = _tensorflow(threads)

    def make(p: Problem) -> Program:
        layer = _keras_layer(p)
        x, *start = (tf.constant(a) for a in (p.xs, *p.state))
        function = tf.function(
            lambda x, *state: layer(x, initial_state=list(state), training=False), jit_compile=xla
        ).get_concrete_function(x, *start)
        state = start

        def step() -> None:
            nonlocal state
            _, *state = function(x, *state)

        def whole() -> None:
            function(x, *start)[0].numpy()

        return Program(
            [step if p.shape.steps == 1 else whole],
            lambda: [y.numpy() for y in function(x, *start)],
        )

    return make


def tf_function(threads: int) -> Maker:
    """A Keras layer in a tf.function, called as a concrete function."""
    return _tf_function(threads, xla=False)


def tf_xla(threads: int) -> Maker:
    """The same compiled by XLA."""
    return _tf_function(threads, xla=True)


# --- PyTorch ---


def _torch(threads: int, onednn: bool) -> Maker:
    import torch

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    torch.backends.mkldnn.enabled = onednn

    def make(p: Problem) -> Program:
        lstm = p.shape.cell == "lstm"
        if not onednn and not lstm:
            raise Skip("as torch: oneDNN is for the LSTM alone")
        if not onednn and p.shape.dtype != "float32":
            raise Skip("as torch: oneDNN is for float32 alone")
        order = (0, 1, 2, 3) if lstm else (1, 0, 2)
        kind = torch.nn.LSTM if lstm else torch.nn.GRU
        module = kind(
            p.shape.features, p.shape.units, batch_first=True, dtype=getattr(torch, p.shape.dtype)
        ).eval()
        biases = np.stack([p.bias, np.zeros_like(p.bias)]) if lstm else p.bias
        parts = [blocks(w, order).T for w in (p.kernel, p.recurrent)]
        parts += [blocks(bias, order) for bias in biases]
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        with torch.no_grad():
            for name, part in zip(names, parts, strict=True):
                getattr(module, name).copy_(torch.from_numpy(part.copy()))
        x = torch.from_numpy(p.xs)
        start = [torch.from_numpy(part)[None] for part in p.state]
        first = tuple(start) if lstm else start[0]
        state = first

        @torch.inference_mode()
        def step() -> None:
            nonlocal state
            _, state = module(x, state)

        @torch.inference_mode()
        def whole() -> Any:
            return module(x, first)

        def result() -> list[Any]:
            y, after = whole()
            return [y.numpy(), *(s.numpy()[0] for s in (after if lstm else (after,)))]

        return Program([step if p.shape.steps == 1 else whole], result)

    return make


def torch_nn(threads: int) -> Maker:
    """torch.nn.LSTM and GRU as they are."""
    return _torch(threads, onednn=True)


def torch_native(threads: int) -> Maker:
    """torch.nn.LSTM without oneDNN, which is faster for one step."""
    return _torch(threads, onednn=False)


# --- ONNX ---


def _onnx_model(p: Problem) -> bytes:
    """Rows first, as all others have them: ONNX has steps first, so with two transposes."""
    from onnx import TensorProto, helper, numpy_helper

    lstm = p.shape.cell == "lstm"
    B, T, F, H = p.shape[1:5]
    order = (0, 3, 1, 2) if lstm else (0, 1, 2)
    biases = (p.bias, np.zeros_like(p.bias)) if lstm else tuple(p.bias)
    arrays = {
        "W": blocks(p.kernel, order).T[None],
        "R": blocks(p.recurrent, order).T[None],
        "B": np.concatenate([blocks(b, order) for b in biases])[None],
        "axis": np.array([1], np.int64),
    }

    def info(name: str, *sizes: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)

    states = ["h", "c"] if lstm else ["h"]
    after = [f"{name}_after" for name in states]
    options = {} if lstm else {"linear_before_reset": 1}
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
        helper.make_node(
            p.shape.cell.upper(), ["xt", "W", "R", "B", "", *states], ["yt", *after],
            hidden_size=H, **options,
        ),
        helper.make_node("Squeeze", ["yt", "axis"], ["ys"]),
        helper.make_node("Transpose", ["ys"], ["y"], perm=[1, 0, 2]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "layer",
        [info("x", B, T, F), *(info(name, 1, B, H) for name in states)],
        [info("y", B, T, H), *(info(name, 1, B, H) for name in after)],
        [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def _onnx_program(p: Problem, call: Callable[[dict[str, Array]], Any]) -> Program:
    """`call` takes the inputs by name and returns the outputs in order."""
    names = ["h", "c"][: len(p.state)]
    start = {"x": p.xs} | {n: part[None] for n, part in zip(names, p.state, strict=True)}
    feed = dict(start)

    def step() -> None:
        found = call(feed)
        for k, name in enumerate(names):
            feed[name] = found[k + 1]

    def result() -> list[Any]:
        found = call(start)
        return [np.array(found[0]), *(np.array(found[k + 1])[0] for k in range(len(names)))]

    return Program([step if p.shape.steps == 1 else lambda: call(start)], result)


def onnx_runtime(threads: int) -> Maker:
    """ONNX Runtime on a model of one node and its transposes."""
    import onnxruntime

    def make(p: Problem) -> Program:
        float32_only(p, "ONNX Runtime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            _onnx_model(p), options, providers=["CPUExecutionProvider"]
        )
        return _onnx_program(p, lambda feed: session.run(None, feed))

    return make


def openvino(threads: int) -> Maker:
    """OpenVINO on the same model, told to compute in float32 (bfloat16 is its default on some)."""
    from openvino import Core

    core = Core()

    def make(p: Problem) -> Program:
        float32_only(p, "OpenVINO")
        settings = {
            "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1,
        }  # fmt: skip
        model = core.compile_model(core.read_model(_onnx_model(p), b""), "CPU", settings)
        request = model.create_infer_request()
        shared = p.shape.steps > 1  # the state of a step must outlive the next call

        def call(feed: dict[str, Array]) -> Any:
            return request.infer(feed, share_inputs=True, share_outputs=shared)

        return _onnx_program(p, call)

    return make


# --- JAX ---


def jax_scan(threads: int) -> Maker:
    """jax.jit of a lax.scan, the input products made ahead of it."""
    if threads == 1:
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        os.environ["XLA_FLAGS"] = flags
    os.environ["NPROC"] = str(threads)
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)  # else float64 arrays become float32

    def make(p: Problem) -> Program:
        W, U, b, x = (jnp.asarray(a) for a in (p.kernel, p.recurrent, p.bias, p.xs))
        start = tuple(jnp.asarray(part) for part in p.state)
        sigmoid = jax.nn.sigmoid

        def lstm(state: Any, product: Any) -> Any:
            h, c = state
            i, f, g, o = jnp.split(product + h @ U, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
            h = sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        def gru(state: Any, product: Any) -> Any:
            (h,) = state
            z, r, g = jnp.split(product, 3, axis=1)
            hz, hr, hg = jnp.split(h @ U + b[1], 3, axis=1)
            z = sigmoid(z + hz)
            h = z * h + (1 - z) * jnp.tanh(g + sigmoid(r + hr) * hg)
            return (h,), h

        @jax.jit
        def layer(x: Any, *state: Any) -> Any:
            products = x @ W + (b if p.shape.cell == "lstm" else b[0])
            step = lstm if p.shape.cell == "lstm" else gru
            state, ys = jax.lax.scan(step, state, jnp.swapaxes(products, 0, 1))
            return jnp.swapaxes(ys, 0, 1), *state

        state = start

        def step() -> None:
            nonlocal state
            y, *state = layer(x, *state)
            y.block_until_ready()

        def whole() -> None:
            layer(x, *start)[0].block_until_ready()

        return Program([step if p.shape.steps == 1 else whole], lambda: list(layer(x, *start)))

    return make


# --- the floor: the products that no implementation can avoid, through a BLAS, and nothing else ---

ROWS, PLAIN, TRANSPOSED, PACKED, AS_B = 101, 111, 112, 151, 162  # of cblas.h and mkl_cblas.h


def _openblas(threads: int) -> tuple[Any, str, Any]:
    """The OpenBLAS of NumPy's wheel, its name for a function, and its integer."""
    folders = [Path(np.__file__).parent.parent / "numpy.libs", Path(np.__file__).parent / ".dylibs"]
    for path in (p for folder in folders for p in folder.glob("libscipy_openblas64_*")):
        library = ctypes.CDLL(str(path))
        library.scipy_openblas_set_num_threads64_(threads)
        return library, "scipy_cblas_{}64_", ctypes.c_int64
    raise ImportError("NumPy is not the wheel with OpenBLAS in it")


def _mkl(threads: int) -> tuple[Any, str, Any]:
    """MKL of `pip install mkl`, its name for a function, and its integer."""
    os.environ["MKL_THREADING_LAYER"] = "SEQUENTIAL" if threads == 1 else "INTEL"
    os.environ["KMP_BLOCKTIME"] = "5"  # spinning threads go to sleep after so many ms, not 200
    folder = Path(sys.prefix) / "lib"
    for path in folder.glob("libmkl_rt.so*"):
        ctypes.CDLL(str(folder / "libiomp5.so"), ctypes.RTLD_GLOBAL)
        library = ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
        library.MKL_Set_Num_Threads(threads)
        return library, "cblas_{}", ctypes.c_int32
    raise ImportError("MKL is not installed, expected pip install mkl")


def _cblas(library: Any, name: str, integer: Any, dtype: str, function: str) -> Any:
    """gemm, gemv or gemm_compute; pointers as integers, so that compiled loops can call it."""
    number, pointer = (ctypes.c_float if dtype == "float32" else ctypes.c_double), ctypes.c_void_p
    matrix = [pointer, integer]
    end = [number, *matrix]
    types = {
        "gemm": [*[integer] * 6, number, *matrix, *matrix, *end],
        "gemv": [*[integer] * 4, number, *matrix, *matrix, *end],
        "gemm_compute": [*[integer] * 6, *matrix, *matrix, *end],
    }
    found = library[name.format(("s" if dtype == "float32" else "d") + function)]
    found.argtypes, found.restype = types[function], None
    return found


def _floor(blas: tuple[Any, str, Any]) -> Maker:
    """One product of the input, one of the state a step; in the fastest of the ways to call."""
    from numba import njit

    R, N, Y = ROWS, PLAIN, TRANSPOSED

    @cache
    def loops(dtype: str) -> tuple[Any, Any, Any]:
        gemm, gemv = (_cblas(*blas, dtype, name) for name in ("gemm", "gemv"))

        @njit
        def by_gemm(x, h, z, W, U, B, T, F, H, G):  # addresses and sizes
            gemm(R, N, N, B * T, G, F, 1.0, x, F, W, G, 0.0, z, G)
            for _ in range(T):
                gemm(R, N, N, B, G, H, 1.0, h, H, U, G, 0.0, z, G)

        @njit
        def by_gemv(x, h, z, W, U, B, T, F, H, G):
            if T == 1:
                gemv(R, Y, F, G, 1.0, W, G, x, 1, 0.0, z, 1)
            else:
                gemm(R, N, N, T, G, F, 1.0, x, F, W, G, 0.0, z, G)
            for _ in range(T):
                gemv(R, Y, H, G, 1.0, U, G, h, 1, 0.0, z, 1)

        @njit
        def by_rows(x, h, z, W, U, B, T, F, H, G):
            """As by_gemv, of weights that lie transposed."""
            if T == 1:
                gemv(R, N, G, F, 1.0, W, F, x, 1, 0.0, z, 1)
            else:
                gemm(R, N, Y, T, G, F, 1.0, x, F, W, F, 0.0, z, G)
            for _ in range(T):
                gemv(R, N, G, H, 1.0, U, H, h, 1, 0.0, z, 1)

        return by_gemm, by_gemv, by_rows

    def make(p: Problem) -> Program:
        by_gemm, by_gemv, by_rows = loops(p.shape.dtype)
        runs = [_products(p, by_gemm, p.kernel, p.recurrent)]
        if p.shape.rows == 1:
            runs.append(_products(p, by_gemv, p.kernel, p.recurrent))
            runs.append(_products(p, by_rows, p.kernel.T.copy(), p.recurrent.T.copy()))
        return Program(runs)

    return make


def _products(p: Problem, function: Any, W: Array, U: Array) -> Run:
    B, T, F, H = p.shape[1:5]
    columns = p.recurrent.shape[1]
    z = np.zeros((B * T, columns), p.shape.dtype)
    arrays = p.xs, p.state[0], z, W, U
    addresses = [a.ctypes.data for a in arrays]

    def run(keep: Any = arrays) -> None:
        function(*addresses, B, T, F, H, columns)

    return run


def floor_openblas(threads: int) -> Maker:
    """The products through NumPy's OpenBLAS."""
    return _floor(_openblas(threads))


def floor_mkl(threads: int) -> Maker:
    """The products through MKL."""
    return _floor(_mkl(threads))


def floor_mkl_packed(threads: int) -> Maker:
    """The products through MKL with the weights packed ahead."""
    from numba import njit

    blas = _mkl(threads)
    library, _, integer = blas
    R, N, P = ROWS, PLAIN, PACKED

    @cache
    def loop(dtype: str) -> Any:
        compute = _cblas(*blas, dtype, "gemm_compute")

        @njit
        def run(x, h, z, W, U, B, T, F, H, G):
            compute(R, N, P, B * T, G, F, x, F, W, G, 0.0, z, G)
            for _ in range(T):
                compute(R, N, P, B, G, H, h, H, U, G, 0.0, z, G)

        return run

    def packed(weights: Array, rows: int) -> Array:
        letter = "s" if weights.dtype == np.float32 else "d"
        size, pack = (library[f"cblas_{letter}gemm_pack{end}"] for end in ("_get_size", ""))
        number = ctypes.c_float if letter == "s" else ctypes.c_double
        size.argtypes, size.restype = [integer] * 4, ctypes.c_size_t
        pack.argtypes = [integer] * 6 + [number, ctypes.c_void_p, integer, ctypes.c_void_p]
        pack.restype = None
        inner, columns = weights.shape
        room = np.zeros(size(AS_B, rows, columns, inner) + 64, np.uint8)
        room = room[-room.ctypes.data % 64 :]
        at = weights.ctypes.data, columns, room.ctypes.data
        pack(R, AS_B, N, rows, columns, inner, 1.0, *at)
        return room

    def make(p: Problem) -> Program:
        weights = packed(p.kernel, p.shape.rows * p.shape.steps), packed(p.recurrent, p.shape.rows)
        return Program([_products(p, loop(p.shape.dtype), *weights)])

    return make


# the kernels alone are what the goals are about
KERNEL, LAYER, NUMPY = "refrnn numba", "refrnn layer", "refrnn numpy"
PREDICT = "keras predict"
FACTORIES: dict[str, Factory] = {
    KERNEL: refrnn_kernel,
    LAYER: refrnn_layer,
    NUMPY: refrnn_numpy,
    PREDICT: keras_predict,
    "keras model(x)": keras_call,
    "tf.function": tf_function,
    "tf XLA": tf_xla,
    "torch": torch_nn,
    "torch no oneDNN": torch_native,
    "ONNX Runtime": onnx_runtime,
    "OpenVINO": openvino,
    "JAX": jax_scan,
    "floor OpenBLAS": floor_openblas,
    "floor MKL": floor_mkl,
    "floor MKL packed": floor_mkl_packed,
}
OURS = (KERNEL, LAYER, NUMPY)
FLOORS = tuple(name for name in FACTORIES if name.startswith("floor"))
PEERS = tuple(name for name in FACTORIES if name not in (*OURS, *FLOORS))
# distributions whose versions are reported
PACKAGES = (
    "refrnn", "numpy", "numba", "llvmlite", "tensorflow-cpu", "tensorflow", "keras", "torch",
    "onnxruntime", "openvino", "jax", "jaxlib", "mkl",
)  # fmt: skip
