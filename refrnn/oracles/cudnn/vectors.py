"""Keras's weights as cuDNN and PyTorch take them, and gradients back in Keras's order."""

from collections.abc import Mapping

import numpy as np

from refrnn.gates import Array
from refrnn.layouts import convert
from refrnn.oracles.adapters import cell
from refrnn.oracles.cudnn.work import Work

ONE_BIAS = ("SimpleRNN", "LSTM")  # where Keras has one bias and cuDNN two


def as_torch(work: Work, weights: list[Array]) -> dict[str, Array]:
    """weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, and with _reverse for two directions."""
    return dict(convert(weights, cell(work.case), "keras", "torch"))


def vector(work: Work, weights: list[Array]) -> Array:
    """cuDNN's flat vector, the bias of an LSTM as Keras places it: the recurrent one, beside zeros.

    All matrices of both directions, then all biases.
    """
    arrays = as_torch(work, weights)
    ways = ("_l0", "_l0_reverse")[: 1 + work.bidirectional]
    biases = ("bias_ih", "bias_hh")
    if work.case.layer in ONE_BIAS:
        biases = ("bias_hh", "bias_ih")
    order = [n + way for kind in (("weight_ih", "weight_hh"), biases) for way in ways for n in kind]
    return np.concatenate([arrays[name].ravel() for name in order])


def split(work: Work, flat: Array) -> dict[str, Array]:
    """The vector of one direction, of weights or of their gradients, by PyTorch's names."""
    H, F = work.case.units, work.case.features
    G = {"SimpleRNN": 1, "LSTM": 4, "GRU": 3}[work.case.layer] * H
    parts = np.split(flat, np.cumsum([G * F, G * H, G]))
    return {
        "weight_ih_l0": parts[0].reshape(G, F),
        "weight_hh_l0": parts[1].reshape(G, H),
        "bias_ih_l0": parts[2],
        "bias_hh_l0": parts[3],
    }


def gradients(work: Work, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Gradients by PyTorch's names as gradients by Keras's, of one direction.

    Where Keras has one bias, its gradient is that of either of the two, which are equal.
    """
    given = {name: np.array(array) for name, array in arrays.items()}
    if work.case.layer in ONE_BIAS:
        given["bias_hh_l0"] = np.zeros_like(given["bias_hh_l0"])
    return dict(convert(given, cell(work.case), "torch", "keras"))
