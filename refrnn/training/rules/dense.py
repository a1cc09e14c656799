"""The way back of Dense, whose products are compiled where they can be."""

from typing import Any

import numpy as np

from refrnn import engines
from refrnn.backward.steps import summed_bias
from refrnn.gates import Array
from refrnn.training.rules.activation import check, pull
from refrnn.training.rules.passing import Flow, Passed, Rule, Sums, masked


def dense(layer: Any, given: dict[str, Any], memory: Any) -> Passed:
    x = layer.checked(given["inputs"])
    kernel, product = layer.kernel, engines.product(layer.dtype)
    z = layer.sums(x, product)

    def back(dys: list[Array], sums: Sums, dmemory: Any) -> Flow:
        dz = dys[0]
        if layer.activation.name != "linear":
            dz = pull(layer)(z, dz)
        rows = np.ascontiguousarray(dz.reshape(-1, kernel.shape[1]))  # y = act(x @ kernel + bias)
        sums.add(kernel, product(x.reshape(-1, len(kernel)).T, rows))
        if layer.bias is not None:
            sums.add(layer.bias, summed_bias(rows))
        return Flow({"inputs": [product(dz, kernel.T) if sums.inputs else None]})

    return Passed(masked(layer, layer.activation.value(z), given["inputs"], given), back)


DENSE = Rule(dense, check, spares=True)
