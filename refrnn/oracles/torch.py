"""PyTorch on the CPU: whole sequences, packed ones, and its cells in a loop."""

from typing import Any

import numpy as np

from refrnn.cases import Arrays, Case
from refrnn.gates import Array
from refrnn.oracles import adapters

KINDS = {"SimpleRNN": "RNN", "LSTM": "LSTM", "GRU": "GRU"}


class PyTorch:
    """Raises adapters' Unavailable where PyTorch is missing."""

    def __init__(self) -> None:
        self.torch = adapters.needed("torch", "PyTorch")

    def versions(self) -> dict[str, str]:
        return {"PyTorch": str(self.torch.__version__)}

    def run(self, case: Case, way: str = "whole", arrays: Arrays | None = None) -> dict[str, Array]:
        """Outputs y (B, T, H), h and for LSTM c (B, H) of `case`: "whole", "packed" or "cells"."""
        given = adapters.given(case, arrays)
        weights = adapters.stored(case, given.weights, "torch")
        with self.torch.inference_mode():
            x = self.torch.from_numpy(given.x)
            state = [self.torch.from_numpy(part) for part in given.state]
            if way == "cells":
                y, state = self._cells(case, weights, x, state)
            else:
                y, state = self._whole(case, weights, x, state, given.mask)
            found = adapters.outputs(case, y, state)
        if way == "packed" and not case.options.get("zero_output_for_mask"):
            assert given.mask is not None
            found["y"] = adapters.repeat_outputs(found["y"], given.mask)
        return found

    def _whole(
        self, case: Case, weights: Any, x: Any, state: list[Any], mask: Array | None
    ) -> tuple[Any, list[Any]]:
        kind = getattr(self.torch.nn, KINDS[case.layer])
        module = kind(**weights.attributes, batch_first=True, dtype=x.dtype)
        self._load(module, weights, "")
        start = tuple(part[None] for part in state)
        rnn = self.torch.nn.utils.rnn
        if mask is not None:
            lengths = self.torch.from_numpy(mask.sum(1))
            x = rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, after = module(x, start if len(start) > 1 else start[0])
        if mask is not None:
            y, _ = rnn.pad_packed_sequence(y, batch_first=True, total_length=mask.shape[1])
        return y, [part[0] for part in (after if len(start) > 1 else (after,))]

    def _cells(self, case: Case, weights: Any, x: Any, state: list[Any]) -> tuple[Any, list[Any]]:
        told = weights.attributes
        further = {n: told[n] for n in ("bias", "nonlinearity") if n in told}
        kind = getattr(self.torch.nn, f"{KINDS[case.layer]}Cell")
        module = kind(told["input_size"], told["hidden_size"], **further, dtype=x.dtype)
        self._load(module, weights, "_l0")
        ys = []
        for t in range(x.shape[1]):
            after = module(x[:, t], tuple(state) if len(state) > 1 else state[0])
            state = list(after) if len(state) > 1 else [after]
            ys.append(state[0])
        return self.torch.stack(ys, 1), state

    def _load(self, module: Any, weights: Any, suffix: str) -> None:
        arrays = {name.removesuffix(suffix): np.array(a) for name, a in weights.items()}
        module.load_state_dict({name: self.torch.from_numpy(a) for name, a in arrays.items()})
