"""The way back of Dense."""

from typing import Any

import numpy as np

from refrnn.backward.steps import summed, summed_bias
from refrnn.cells import dot
from refrnn.gates import Array
from refrnn.training.rules.activation import check, pull
from refrnn.training.rules.passing import Rule, local, numbers


def dense(layer: Any, given: dict[str, Any], y: Array, dy: Array) -> tuple[Array, list[Array]]:
    x, kernel = numbers(layer, given), layer.kernel
    dz = dy
    if layer.activation.name != "linear":
        z = dot(x, kernel) if layer.bias is None else dot(x, kernel) + layer.bias
        dz = pull(layer)(z, dy)
    dz = np.ascontiguousarray(dz)
    rows = dz.reshape(-1, kernel.shape[1])  # y = act(x @ kernel + bias)
    dkernel = summed(x.reshape(-1, len(kernel)), rows)
    dbias = [] if layer.bias is None else [summed_bias(rows)]
    return dot(dz, np.ascontiguousarray(kernel.T)), [dkernel, *dbias]


DENSE = Rule(local(dense), check)
