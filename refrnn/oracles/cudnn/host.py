"""What a machine has of what it takes to run cuDNN, and what it is."""

import ctypes
import os
import re
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from refrnn.oracles import Unavailable

DRIVER = "libcuda.so.1"
QUERY = "name,uuid,driver_version,compute_cap,mig.mode.current,memory.total"
# what decides the arithmetic or the algorithm, from outside
_VARIABLES = re.compile(r"(NVIDIA_TF32|CUDNN_|CUBLAS|CUDA_|TF_|XLA_|JAX_|KERAS_|TORCH_|PYTORCH_)")


def check_driver() -> None:
    """Raises Unavailable where there is no driver of NVIDIA's or no GPU that it may use."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError as error:
        raise Unavailable(f"no driver: {error}") from None
    status = driver.cuInit(0)
    if status:
        raise Unavailable(f"no GPU: the driver is there, and cuInit returned error {status}")
    count = ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    if not count.value:
        raise Unavailable("no GPU: the driver is there, and counts 0 of them")


def gpu() -> str:
    """The first GPU as nvidia-smi describes it, or why it does not."""
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi: {error}"
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0] if lines else f"nvidia-smi: status {done.returncode}"


def libraries() -> dict[str, str]:
    """The versions of NVIDIA's libraries in this process, those that tell one; call it after a run.

    By name: cuDNN, its CUDA runtime, cuBLASLt, and the files that are mapped.
    """
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    paths = {line.split()[-1] for line in lines if ".so" in line}
    named = re.compile(r"lib(cudnn|cublas|cublasLt|cudart|cuda|nvrtc)\b")
    mapped = sorted(os.path.realpath(path) for path in paths if named.match(Path(path).name))
    found = {"libraries": ", ".join(Path(path).name for path in mapped)}
    asked = {
        "cuDNN": (r"libcudnn\.so", "cudnnGetVersion"),
        "cuDNN's CUDA runtime": (r"libcudnn\.so", "cudnnGetCudartVersion"),
        "cuBLASLt": (r"libcublasLt\.so", "cublasLtGetVersion"),
    }
    for name, (file, function) in asked.items():
        for path in mapped:
            if re.match(file, Path(path).name):
                with suppress(OSError, AttributeError):  # a file deleted since, or another library
                    call = getattr(ctypes.CDLL(path), function)
                    call.restype = ctypes.c_size_t
                    found[name] = str(call())
    return found


def variables() -> dict[str, str]:
    """The variables of this process that may decide what is computed, and how."""
    return {name: value for name, value in sorted(os.environ.items()) if _VARIABLES.match(name)}


def needed(module: Any, step: bool, what: str) -> None:
    """Raises Unavailable with `what`, which begins with the step that is missing, unless `step`."""
    if not step:
        raise Unavailable(f"{what} ({module.__name__} {module.__version__})")
