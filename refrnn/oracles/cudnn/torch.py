"""PyTorch on the GPU: torch.nn.LSTM, GRU and RNN, on padded batches and on packed sequences."""

import importlib
import os
from typing import Any

import numpy as np

from refrnn.gates import Array
from refrnn.oracles.adapters import needed
from refrnn.oracles.cudnn import host, vectors
from refrnn.oracles.cudnn.front import Front, Made
from refrnn.oracles.cudnn.work import Drawn, Work

KINDS = {"SimpleRNN": "RNN", "LSTM": "LSTM", "GRU": "GRU"}
OPERATION = "aten._cudnn_rnn.default"


def start(torch: Any, precision: str) -> dict[str, Any]:
    """The flags of a precision, as PyTorch says that they are.

    Raises Unavailable where its CUDA, a GPU or cuDNN is missing.
    """
    host.needed(torch, torch.version.cuda is not None, "no CUDA: PyTorch is built without it")
    host.needed(torch, torch.cuda.is_available(), "no GPU: PyTorch sees none")
    host.needed(torch, torch.backends.cudnn.is_available(), "no libcudnn: PyTorch finds none")
    return set_flags(torch, precision)


def set_flags(torch: Any, precision: str) -> dict[str, Any]:
    """TF32 in cuDNN's recurrent layers, or not; PyTorch's own products are never rounded."""
    cudnn = torch.backends.cudnn
    # cudnn.allow_tf32 must not be touched where the flag of the recurrent layers is set: reading
    # it raises from then on
    newer = hasattr(getattr(cudnn, "rnn", None), "fp32_precision")
    if newer:
        cudnn.rnn.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    else:
        cudnn.allow_tf32 = precision == "tf32"
    return {
        "cudnn TF32": cudnn.rnn.fp32_precision if newer else cudnn.allow_tf32,
        "cudnn.enabled": cudnn.enabled,
        "NVIDIA_TF32_OVERRIDE": os.environ.get("NVIDIA_TF32_OVERRIDE", "not set"),
    }


def recorder() -> Any:
    """A context that keeps in `.seen` the names of the operations that PyTorch runs."""
    mode: Any = importlib.import_module("torch.utils._python_dispatch").TorchDispatchMode

    class Recorder(mode):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.seen: set[str] = set()

        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            self.seen.add(str(function))
            return function(*args, **(kwargs or {}))

    return Recorder()


def sign(seen: set[str]) -> str:
    return OPERATION if OPERATION in seen else ""


def to_host(tensor: Any) -> Array:
    """A tensor in NumPy, 16-bit numbers as float32."""
    tensor = tensor.detach().cpu()
    return np.array((tensor.float() if tensor.element_size() == 2 else tensor).numpy())


class Torch(Front):
    """Ways: "plain" and "packed". Raises Unavailable where PyTorch is missing."""

    def __init__(self) -> None:
        super().__init__()
        self.torch = needed("torch", "PyTorch")
        self.device = "cuda"

    def start(self, precision: str) -> dict[str, Any]:
        return start(self.torch, precision)

    def versions(self) -> dict[str, str]:
        return {"PyTorch": str(self.torch.__version__), **host.libraries()}

    def layer(self, work: Work, drawn: Drawn, way: str) -> Any:
        case = work.case
        module = getattr(self.torch.nn, KINDS[case.layer])(
            case.features, case.units, batch_first=True, bidirectional=work.bidirectional,
            device=self.device, dtype=getattr(self.torch, work.dtype),
        )  # fmt: skip
        arrays = vectors.as_torch(work, drawn.weights)
        module.load_state_dict({name: self._to_device(work, a) for name, a in arrays.items()})
        return module.train(work.training), way

    def call(
        self, layer: Any, work: Work, x: Array, state: Any, mask: Array | None, dy: Array | None
    ) -> Made:
        torch, (module, way) = self.torch, layer
        rnn = torch.nn.utils.rnn
        T = x.shape[1]
        given = self._to_device(work, x)
        parts = [self._to_device(work, np.stack(state[k :: len(work.parts)])) for k in
                 range(len(work.parts))]  # fmt: skip
        for tensor in (given, *parts):
            tensor.requires_grad_(dy is not None)
        if way == "packed":
            lengths = [T] * len(x) if mask is None else mask.sum(1).tolist()
            fed: Any = rnn.pack_padded_sequence(given, lengths, True, enforce_sorted=False)
        else:
            fed = given
        with torch.set_grad_enabled(work.training), recorder() as seen:
            y, after = module(fed, tuple(parts) if len(parts) > 1 else parts[0])
            if way == "packed":
                y, _ = rnn.pad_packed_sequence(y, batch_first=True, total_length=T)
            if dy is not None:
                y.backward(self._to_device(work, dy))
        after = list(after) if len(parts) > 1 else [after]
        ends = [part[d] for d in range(1 + work.bidirectional) for part in after]
        gradients = {}
        if dy is not None:
            of = {name: to_host(p.grad) for name, p in module.named_parameters()}
            module.zero_grad(set_to_none=True)
            gradients = vectors.gradients(work, of)
            gradients["x"] = to_host(given.grad)
            gradients |= {n: to_host(p.grad[0]) for n, p in zip(work.parts, parts, strict=True)}
        return Made([to_host(a) for a in (y, *ends)], sign(seen.seen), gradients)

    def poison(self, work: Work) -> None:
        poison(self.torch, self.device, work)

    def _to_device(self, work: Work, array: Array) -> Any:
        tensor = self.torch.from_numpy(np.array(array))  # a copy of its own, contiguous
        return tensor.to(getattr(self.torch, work.dtype)).to(self.device)


def poison(torch: Any, device: str, work: Work) -> None:
    """NaN in blocks of the sizes of outputs and states, given back to PyTorch's own store."""
    B, T, H = work.case.rows, work.case.steps, work.case.units * (1 + work.bidirectional)
    dtype = getattr(torch, work.dtype)
    blocks = [torch.full((n,), np.nan, device=device, dtype=dtype) for n in (B * T * H, B * H)]
    del blocks
