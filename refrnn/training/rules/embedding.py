"""The ways back of Embedding, whose gradient is that of its table, and of Masking."""

from typing import Any

import numpy as np

from refrnn.gates import Array
from refrnn.layers.normalization import wide
from refrnn.training.rules.passing import Flow, Passed, Rule, Sums, local


def embedding(layer: Any, given: dict[str, Any], memory: Any) -> Passed:
    y = layer(**given)
    rows = layer._rows(layer._ids(given["inputs"]))

    def back(dys: list[Array], sums: Sums, dmemory: Any) -> Flow:
        dtable = wide(np.zeros_like(layer.embeddings))
        np.add.at(dtable, rows.reshape(-1), dys[0].reshape(-1, layer.output_dim))
        sums.add(layer.embeddings, dtable)
        return Flow({"inputs": [None]})

    return Passed(y, back)


def masking(layer: Any, given: dict[str, Any], y: Array, dy: Array) -> tuple[Array, list[Any]]:
    live = layer.compute_mask(given["inputs"], None)
    return np.where(live[..., None], dy, np.zeros((), dy.dtype)), []


EMBEDDING = Rule(embedding)
MASKING = Rule(local(masking))
