"""The ways back of Dropout and its kin, which lose what the way there lost, and of noise."""

import copy
from typing import Any

import numpy as np

from refrnn.gates import Array
from refrnn.random import dropout
from refrnn.training.rules.passing import Flow, Passed, Rule, Sums, local, numbers, unchanged


def dropping(layer: Any, given: dict[str, Any], memory: Any) -> Passed:
    seeds = copy.copy(layer._seeds)  # to draw the mask of this call again
    y = layer(**given)
    factor = None
    if given.get("training") and layer.rate == 1:
        factor = np.zeros_like(np.asarray(y))
    elif given.get("training") and layer.rate > 0:
        x = numbers(layer, given)
        factor = dropout(np.ones_like(x), layer.rate, seeds.next(), layer._noise(x))

    def back(dys: list[Array], sums: Sums, dmemory: Any) -> Flow:
        [dy] = dys
        return Flow({"inputs": [dy if factor is None else np.where(factor == 0, 0, dy * factor)]})

    return Passed(y, back)


def check_noise(layer: Any, training: bool) -> None:
    """Refuse what `layer.call` refuses."""
    if training and vars(layer).get("rate", vars(layer).get("stddev")):
        raise ValueError(
            f"{layer.who}: training is True, expected False, because refrnn has the random numbers"
            " of Keras for Dropout only"
        )


DROPOUT = Rule(dropping)
NOISE = Rule(local(unchanged), check_noise)
IDENTITY = Rule(local(unchanged))
