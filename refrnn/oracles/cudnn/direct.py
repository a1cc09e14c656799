"""cuDNN without a framework, through ctypes: every choice that TensorFlow makes, made here.

One layer, two biases, a linear input, batch-major padded data with a length for each row and zeros
past it, and TensorFlow's types of arithmetic: FMA, or tensor cores for TF32 and 16 bits.
"""

import ctypes
import glob
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ctypes import byref, c_int, c_size_t, c_void_p
from typing import Any

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.oracles import Unavailable
from refrnn.oracles.cudnn import host, vectors
from refrnn.oracles.cudnn.front import Front, Made
from refrnn.oracles.cudnn.work import Drawn, Work

# The enumerations of cuDNN 9's headers, as far as they are used
ALGORITHMS = {"standard": 0, "static": 1, "small-h": 3}
CELLS = {"SimpleRNN": 1, "LSTM": 2, "GRU": 3}
DATA = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 9}
TENSOR_OP_MATH, FMA_MATH = 1, 3
DOUBLE_BIAS, LINEAR_INPUT, PADDED_IO, BATCH_MAJOR_UNPACKED = 2, 0, 1, 2
INFERENCE, TRAINING = 0, 1
WGRAD_ADD = 0
TO_DEVICE, TO_HOST = 1, 2  # cudaMemcpyKind
POISON = 0xFF  # bytes of it are a NaN in every type

# Where the wheels of NVIDIA's libraries keep them, under a folder of packages
FOLDERS = ("cudnn", "cu13", "cuda_runtime", "cublas", "cuda_nvrtc")


def load(*names: str) -> Any:
    """The first of these libraries that there is, by the loader's own search or from a wheel.

    Raises Unavailable with the reason of the last.
    """
    folders = [os.path.join(p, "nvidia", f, "lib") for p in sys.path for f in FOLDERS]
    said = ""
    for name in names:
        found = [path for folder in folders for path in glob.glob(os.path.join(folder, name))]
        for path in (name, *found):
            try:
                return ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
            except OSError as error:
                said = str(error)
    raise Unavailable(f"no {names[0].partition('.')[0]}: {said}")


class Library:
    """cuDNN and the CUDA runtime, every call checked: RuntimeError with cuDNN's own words."""

    def __init__(self, cudnn: Any, cuda: Any) -> None:
        self._cudnn, self._cuda = cudnn, cuda
        for name in ("cudnnGetVersion", "cudnnGetCudartVersion"):
            getattr(cudnn, name).restype = c_size_t
        cudnn.cudnnGetErrorString.restype = ctypes.c_char_p

    def cudnn(self, name: str, *arguments: Any) -> None:
        status = getattr(self._cudnn, name)(*arguments)
        if status:
            said = self._cudnn.cudnnGetErrorString(status)
            raise RuntimeError(f"{name}: {said.decode()} ({status})")

    def cuda(self, name: str, *arguments: Any) -> None:
        status = getattr(self._cuda, name)(*arguments)
        if status:
            raise RuntimeError(f"{name}: CUDA error {status}")

    def handle(self) -> c_void_p:
        """Raises RuntimeError where there is no GPU that cuDNN can use."""
        handle = c_void_p()
        self.cudnn("cudnnCreate", byref(handle))
        return handle


class Memory:
    """Blocks of the GPU's memory, freed together."""

    def __init__(self, library: Library) -> None:
        self._library, self._blocks = library, list[c_void_p]()

    def given(self, array: Array) -> c_void_p:
        """A block with a copy of an array."""
        block = self._block(array.nbytes)
        source = array.ctypes.data_as(c_void_p)
        self._library.cuda("cudaMemcpy", block, source, c_size_t(array.nbytes), TO_DEVICE)
        return block

    def blank(self, size: int, byte: int = POISON) -> c_void_p:
        """A block of `size` bytes, each of them `byte`."""
        block = self._block(size)
        self._library.cuda("cudaMemset", block, byte, c_size_t(size))
        return block

    def read(self, block: c_void_p, shape: tuple[int, ...], dtype: Any) -> Array:
        array = np.empty(shape, dtype)
        target = array.ctypes.data_as(c_void_p)
        self._library.cuda("cudaMemcpy", target, block, c_size_t(array.nbytes), TO_HOST)
        return array

    def _block(self, size: int) -> c_void_p:
        block = c_void_p()
        self._library.cuda("cudaMalloc", byref(block), c_size_t(max(size, 16)))
        self._blocks.append(block)
        return block

    def free(self) -> None:
        for block in self._blocks:
            with suppress(RuntimeError):  # after an error every call fails: the first is to be seen
                self._library.cuda("cudaFree", block)


class Descriptors:
    """cuDNN's descriptors of one computation, as TensorFlow sets them; destroyed together."""

    def __init__(self, library: Library) -> None:
        self._library, self._made = library, list[tuple[str, c_void_p]]()

    def layer(self, work: Work, algorithm: str) -> c_void_p:
        case, dtype = work.case, work.dtype
        narrow = dtype in ("float16", "bfloat16")
        math = TENSOR_OP_MATH if narrow or work.precision == "tf32" else FMA_MATH
        compute = DATA["float64" if dtype == "float64" else "float32"]
        made = self._new("RNN")
        self._library.cudnn(
            "cudnnSetRNNDescriptor_v8", made, ALGORITHMS[algorithm], CELLS[case.layer], DOUBLE_BIAS,
            int(work.bidirectional), LINEAR_INPUT, DATA[dtype], compute, math,
            case.features, case.units, case.units, 1, None, PADDED_IO,
        )  # fmt: skip
        return made

    def sequences(self, dtype: str, steps: int, width: int, lengths: Sequence[int]) -> c_void_p:
        made = self._new("RNNData")
        array = (c_int * len(lengths))(*lengths)
        fill = (ctypes.c_double if dtype == "float64" else ctypes.c_float)(0)
        self._library.cudnn(
            "cudnnSetRNNDataDescriptor", made, DATA[dtype], BATCH_MAJOR_UNPACKED, steps,
            len(lengths), width, array, byref(fill),
        )  # fmt: skip
        return made

    def states(self, dtype: str, ways: int, rows: int, units: int) -> c_void_p:
        made = self._new("Tensor")
        sizes, strides = (c_int * 3)(ways, rows, units), (c_int * 3)(rows * units, units, 1)
        self._library.cudnn("cudnnSetTensorNdDescriptor", made, DATA[dtype], 3, sizes, strides)
        return made

    def _new(self, kind: str) -> c_void_p:
        made = c_void_p()
        self._library.cudnn(f"cudnnCreate{kind}Descriptor", byref(made))
        self._made.append((kind, made))
        return made

    def destroy(self) -> None:
        for kind, made in self._made:
            self._library.cudnn(f"cudnnDestroy{kind}Descriptor", made)


class Direct(Front):
    """Ways: ALGORITHMS, of which TensorFlow has "standard"."""

    def __init__(self) -> None:
        super().__init__()
        self.library = Library(load("libcudnn.so.9"), load("libcudart.so.13", "libcudart.so.12"))
        self.handle = c_void_p()

    def start(self, precision: str) -> dict[str, Any]:
        try:
            self.library.cuda("cudaSetDevice", 0)
            self.handle = self.library.handle()
        except RuntimeError as error:
            raise Unavailable(f"no GPU: {error}") from None
        return {"NVIDIA_TF32_OVERRIDE": os.environ.get("NVIDIA_TF32_OVERRIDE", "not set")}

    def versions(self) -> dict[str, str]:
        return host.libraries()

    def layer(self, work: Work, drawn: Drawn, way: str) -> Any:
        return vectors.vector(work, drawn.weights).astype(checks.dtype("cudnn", work.dtype)), way

    def poison(self, work: Work) -> None:
        """Nothing: every block that cuDNN writes to is filled with NaN as it is made."""

    def call(
        self, layer: Any, work: Work, x: Array, state: Any, mask: Array | None, dy: Array | None
    ) -> Made:
        weights, algorithm = layer
        with self._resources() as (memory, descriptors):
            one = _Computation(self, work, algorithm, memory, descriptors, weights, x, state, mask)
            flat = one.forward()
            gradients = {} if dy is None else one.backward(dy)
        return Made(flat, "called by refrnn", gradients)

    @contextmanager
    def _resources(self) -> Iterator[tuple[Memory, Descriptors]]:
        memory, descriptors = Memory(self.library), Descriptors(self.library)
        try:
            yield memory, descriptors
        finally:
            descriptors.destroy()
            memory.free()


class _Computation:
    """One call: its descriptors and its blocks, forward and then backward."""

    def __init__(
        self, front: Direct, work: Work, algorithm: str, memory: Memory, descriptors: Descriptors,
        weights: Array, x: Array, state: Any, mask: Array | None,
    ) -> None:  # fmt: skip
        self.library, self.handle, self.memory, self.work = (
            front.library,
            front.handle,
            memory,
            work,
        )
        case, self.dtype = work.case, checks.dtype("cudnn", work.dtype)
        self.B, self.T, self.F = x.shape
        self.H, self.ways = case.units, 1 + work.bidirectional
        lengths = [self.T] * self.B if mask is None else [int(n) for n in mask.sum(1)]
        self.layer = descriptors.layer(work, algorithm)
        self.xs = descriptors.sequences(work.dtype, self.T, self.F, lengths)
        self.ys = descriptors.sequences(work.dtype, self.T, self.ways * self.H, lengths)
        self.hs = descriptors.states(work.dtype, self.ways, self.B, self.H)
        self.mode = TRAINING if work.training else INFERENCE

        size = c_size_t()
        self.library.cudnn("cudnnGetRNNWeightSpaceSize", self.handle, self.layer, byref(size))
        if size.value != weights.nbytes:
            raise RuntimeError(
                f"cuDNN's weights take {size.value} bytes, expected {weights.nbytes}: two biases"
                " for every matrix, and no gaps"
            )
        self.work_size, self.reserve_size = c_size_t(), c_size_t()
        self.library.cudnn(
            "cudnnGetRNNTempSpaceSizes", self.handle, self.layer, self.mode, self.xs,
            byref(self.work_size), byref(self.reserve_size),
        )  # fmt: skip
        parts = [np.stack(state[k :: len(work.parts)]) for k in range(len(work.parts))]
        self.lengths = memory.given(np.array(lengths, np.int32))
        self.weights, self.weights_size = self._put(weights), size
        self.x = self._put(x)
        self.first = [self._put(part) for part in parts]
        self.y = self._blank(self.B * self.T * self.ways * self.H)
        self.last = [self._blank(self.ways * self.B * self.H) for _ in parts]
        self.workspace = memory.blank(self.work_size.value)
        self.reserve = memory.blank(self.reserve_size.value)

    def forward(self) -> list[Array]:
        """y (B, T, ways * H), then the states after it, those of the forward direction first."""
        h, c = self._pairs(self.first)
        h_after, c_after = self._pairs(self.last)
        self.library.cudnn(
            "cudnnRNNForward", self.handle, self.layer, self.mode, self.lengths, self.xs, self.x,
            self.ys, self.y, self.hs, h, h_after, self.hs, c, c_after,
            self.weights_size, self.weights, self.work_size, self.workspace,
            self.reserve_size, self.reserve,
        )  # fmt: skip
        y = self._get(self.y, (self.B, self.T, self.ways * self.H))
        parts = [self._get(block, (self.ways, self.B, self.H)) for block in self.last]
        return [y, *(part[d] for d in range(self.ways) for part in parts)]

    def backward(self, dy: Array) -> dict[str, Array]:
        """The gradients of sum(dy * y), of one direction, from the reserve of the forward call."""
        by_y = self._put(dy)
        by_x = self._blank(self.B * self.T * self.F)
        by_first = [self._blank(self.B * self.H) for _ in self.first]
        # No pointer to the gradients of the last states means zeros; those of the weights are added
        by_weights = self.memory.blank(self.weights_size.value, 0)
        (h, c), (by_h, by_c) = self._pairs(self.first), self._pairs(by_first)
        self.library.cudnn(
            "cudnnRNNBackwardData_v8", self.handle, self.layer, self.lengths, self.ys, self.y, by_y,
            self.xs, by_x, self.hs, h, None, by_h, self.hs, c, None, by_c,
            self.weights_size, self.weights, self.work_size, self.workspace,
            self.reserve_size, self.reserve,
        )  # fmt: skip
        self.library.cudnn(
            "cudnnRNNBackwardWeights_v8", self.handle, self.layer, WGRAD_ADD, self.lengths, self.xs,
            self.x, self.hs, h, self.ys, self.y, self.weights_size, by_weights,
            self.work_size, self.workspace, self.reserve_size, self.reserve,
        )  # fmt: skip
        count = self.weights_size.value // self.dtype.itemsize
        gradients = vectors.gradients(
            self.work, vectors.split(self.work, self._get(by_weights, (count,)))
        )
        gradients["x"] = self._get(by_x, (self.B, self.T, self.F))
        for name, block in zip(self.work.parts, by_first, strict=True):
            gradients[name] = self._get(block, (self.B, self.H))
        return gradients

    def _pairs(self, parts: list[c_void_p]) -> tuple[c_void_p, c_void_p | None]:
        """The blocks of h and c, None for a layer without c."""
        return parts[0], parts[1] if len(parts) > 1 else None

    def _put(self, array: Array) -> c_void_p:
        return self.memory.given(np.ascontiguousarray(array, self.dtype))

    def _blank(self, count: int) -> c_void_p:
        return self.memory.blank(count * self.dtype.itemsize)

    def _get(self, block: c_void_p, shape: tuple[int, ...]) -> Array:
        """Read back, which waits for the GPU; 16-bit numbers as float32."""
        array = self.memory.read(block, shape, self.dtype)
        return array.astype(np.float32) if self.dtype.itemsize == 2 else array
