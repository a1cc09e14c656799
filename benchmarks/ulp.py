"""How far are the kernels' tanh and sigmoid from the exact values, on all of float32?

Every float32 goes through the code that the cells are made of, compiled here for this machine, and
is compared with the float64 value of NumPy. An error is counted in units in the last place of the
exact result, subnormal results included. NumPy's float32 functions go through the same comparison.
float64 is compared with mpmath, where that is installed, on a sample.

    python benchmarks/ulp.py             all of float32: a few minutes
    python benchmarks/ulp.py --stride 997   a sample
"""

import argparse
import ctypes
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import binding, ir

from refrnn.activations import sigmoid as numpy_sigmoid
from refrnn.kernels import vectors
from refrnn.kernels.host import machine
from refrnn.kernels.vectors import I64, Code

CHUNK = 1 << 22
Function = Callable[[Any], Any]


def compiled(name: str, dtype: Any) -> Function:
    """The kernels' function `name` as a function of a contiguous array, a chunk at a time."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    features = binding.get_host_cpu_features().flatten()
    host = machine(binding.get_process_triple(), features)
    itemsize = np.dtype(dtype).itemsize
    form = (vectors.float32 if itemsize == 4 else vectors.float64)(host.lanes(itemsize), host.fma)

    module = ir.Module()
    kind = ir.FunctionType(ir.VoidType(), [I64, I64, I64])
    function = ir.Function(module, kind, "apply")
    builder = ir.IRBuilder(function.append_basic_block())
    code = Code(builder, form)
    source, target, count = function.args

    def body(k: Any, carried: list[Any]) -> list[Any]:
        x = code.load(code.address(source, (k, form.bytes)))
        code.store(getattr(vectors, name)(x).value, code.address(target, (k, form.bytes)))
        return []

    code.loop(count, [], body)
    builder.ret_void()

    parsed = binding.parse_assembly(str(module))
    target_machine = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=features, opt=3
    )
    engine = binding.create_mcjit_compiler(parsed, target_machine)
    engine.finalize_object()
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(engine.get_function_address("apply"))

    def apply(x: Any, keep_alive: Any = engine) -> Any:
        padded = np.zeros(-(-len(x) // form.lanes) * form.lanes, dtype)
        padded[: len(x)] = x
        y = np.empty_like(padded)
        call(padded.ctypes.data, y.ctypes.data, len(padded) // form.lanes)
        return y[: len(x)]

    return apply


def errors(found: Any, exact: Any) -> Any:
    """|found - exact| in spacings of float32 at the exact value; exact in float64."""
    # the spacing of the binade that holds |exact|: below a power of two it is the smaller one
    _, exponent = np.frexp(np.abs(exact))
    spacing = np.ldexp(1.0, np.maximum(exponent - 24, -149))
    return np.abs(found - exact) / spacing


def exhaust(name: str, function: Function, exact: Function, stride: int) -> None:
    started = time.perf_counter()
    worst, where, total, count = 0.0, np.float32(0), 0.0, 0
    for first in range(0, 1 << 32, CHUNK * stride):
        stop = min(first + CHUNK * stride, 1 << 32)
        bits = np.arange(first, stop, stride, dtype=np.int64).astype(np.uint32)
        x = bits.view(np.float32)
        y, nan = function(x), np.isnan(x)
        assert np.array_equal(np.isnan(y), nan), f"{name}: NaN in and out differ"
        assert np.array_equal(np.abs(y[~nan]) <= 1, np.ones(np.sum(~nan), bool)), f"{name} > 1"
        error = errors(y[~nan].astype(np.float64), exact(x[~nan].astype(np.float64)))
        if len(error):
            total, count = total + float(error.sum()), count + len(error)
            k = int(np.argmax(error))
            if error[k] > worst:
                worst, where = float(error[k]), x[~nan][k]
    seconds = time.perf_counter() - started
    print(
        f"{name:16} largest {worst:.3f} at {where!r}, mean {total / count:.4f},"
        f" {count} numbers, {seconds:.0f} s",
        flush=True,
    )


def sigmoid64(x: Any) -> Any:
    return np.where(x < 0, np.exp(np.minimum(x, 0)), 1.0) / (1 + np.exp(-np.abs(x)))


def sample64() -> None:
    """float64 at 20000 points of all sizes."""
    try:
        import mpmath
    except ImportError:
        print("float64          skipped: mpmath is not installed", flush=True)
        return
    mpmath.mp.dps = 50
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [rng.normal(size=6000) * 4, rng.uniform(-745, 40, 6000)]
        + [rng.choice([-1, 1], 8000) * 2.0 ** rng.uniform(-60, 6, 8000)]
    )
    exact = {
        "tanh": mpmath.tanh,
        "sigmoid": lambda v: 1 / (1 + mpmath.exp(-v)),
    }
    for name, function in exact.items():
        worst = 0.0
        for v, y in zip(x, compiled(name, np.float64)(x), strict=True):
            true = function(mpmath.mpf(float(v)))
            _, exponent = mpmath.frexp(abs(true))
            spacing = mpmath.mpf(2) ** max(int(exponent) - 53, -1074)
            worst = max(worst, float(abs(mpmath.mpf(float(y)) - true) / spacing))
        print(f"{name + ' float64':16} largest {worst:.3f}, {len(x)} numbers", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stride", type=int, default=1, help="every n-th float32")
    stride = parser.parse_args().stride
    exhaust("tanh", compiled("tanh", np.float32), np.tanh, stride)
    exhaust("sigmoid", compiled("sigmoid", np.float32), sigmoid64, stride)
    with np.errstate(all="ignore"):
        exhaust("numpy tanh", np.tanh, np.tanh, stride)
        exhaust("numpy sigmoid", numpy_sigmoid, sigmoid64, stride)
    sample64()


if __name__ == "__main__":
    sys.exit(main())
