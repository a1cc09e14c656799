"""The ways back of the layers that run other layers: Bidirectional, TimeDistributed, TimeMajor."""

from collections.abc import Callable
from typing import Any

import numpy as np

from refrnn import checks
from refrnn.gates import Array
from refrnn.layers import Bidirectional, TimeDistributed
from refrnn.layers.masks import leaves
from refrnn.layers.reshaping import moved
from refrnn.layers.subclassing import names_of
from refrnn.layers.time_major import TimeMajor
from refrnn.training.rules.models import check_parts
from refrnn.training.rules.passing import Flow, Passed, Rule, Sums, masked, passed
from refrnn.training.rules.recurrent import unmasked


def parted(merge_mode: str, f: Array, b: Array, dy: Array) -> tuple[Array, Array]:
    """The gradients of the outputs forwards, f, and of those backwards, b, which were merged."""
    H = f.shape[-1]
    ways: dict[str, Callable[[], tuple[Array, Array]]] = {
        "concat": lambda: (dy[..., :H], dy[..., H:]),
        "sum": lambda: (dy, dy),
        "mul": lambda: (dy * b, dy * f),
        "ave": lambda: (dy / 2, dy / 2),
    }
    return ways[merge_mode]()


def bidirectional(layer: Bidirectional, given: dict[str, Any], memory: Any) -> Passed:
    """The rule; the memory is a pair, that of the layer forwards and that of the one backwards."""
    starts = layer._halves(given.get("initial_state"))
    ways = [
        unmasked(one, {**given, "initial_state": start})
        for one, start in zip((layer.forward_layer, layer.backward_layer), starts, strict=True)
    ]
    layer.built = True
    outputs = layer.merged(*(way.outputs for way in ways))
    f, b = (leaves(way.outputs)[0] for way in ways)
    states = len(leaves(ways[0].outputs)) - 1  # of the layer forwards, as far as they are returned

    def turned(y: Array) -> Array:
        """Outputs backwards, or their gradient, in the order of the other."""
        return np.flip(y, axis=1) if layer.return_sequences else y

    def back(dys: list[Array], sums: Sums, dmemory: Any) -> Flow:
        if layer.merge_mode is None:
            df, db, *dstates = dys
        else:
            dy, *dstates = dys
            df, db = parted(layer.merge_mode, f, turned(b), dy)
        parts = [[df, *dstates[:states]], [turned(db), *dstates[states:]]]
        flows = []
        for way, mine, dmine in zip(ways, parts, dmemory or (None, None), strict=True):
            dtypes = [y.dtype for y in leaves(way.outputs)]
            cast = [np.asarray(part, kind) for part, kind in zip(mine, dtypes, strict=True)]
            flows.append(way.back(cast, sums, dmine))
        dxs: list[Any] = [flow.inputs["sequences"][0] for flow in flows]
        inputs: dict[str, list[Any]] = {"sequences": [dxs[0] + dxs[1]]}
        if given.get("initial_state") is not None:
            inputs["initial_state"] = [p for flow in flows for p in flow.inputs["initial_state"]]
        return Flow(inputs, tuple(flow.start for flow in flows))

    outputs = masked(layer, outputs, given["sequences"], given)
    return Passed(outputs, back, tuple(way.memory for way in ways))


def time_distributed(layer: TimeDistributed, given: dict[str, Any], memory: Any) -> Passed:
    array = moved(layer.who, given["inputs"], layer.dtype)
    x, options = layer.inside(array, given.get("mask"))
    name = names_of(type(layer.layer).call)[0]
    made = passed(layer.layer, {name: x, **options})
    flat = np.asarray(made.outputs)

    def back(dys: list[Array], sums: Sums, dmemory: Any) -> Flow:
        flow = made.back([dys[0].reshape(flat.shape)], sums, None)
        return Flow(
            {"inputs": [d if d is None else d.reshape(array.shape) for d in flow.inputs[name]]}
        )

    y = flat.reshape(*array.shape[:2], *flat.shape[1:])
    return Passed(masked(layer, y, given["inputs"], given), back)


def time_major(layer: TimeMajor, given: dict[str, Any], memory: Any) -> Passed:
    xs, mask = checks.array(layer.who, "the input", given["sequences"]), given.get("mask")
    inside = {**given, "sequences": np.swapaxes(xs, 0, 1)}
    if mask is not None:
        inside["mask"] = np.swapaxes(np.asarray(mask), 0, 1)
    made = unmasked(layer.layer, inside)
    layer.built = True

    def exchanged(y: Array) -> Array:
        """The outputs, or their gradient, with the other axis first."""
        return np.swapaxes(y, 0, 1) if layer.layer.return_sequences else y

    def back(dys: list[Array], sums: Sums, dmemory: Any) -> Flow:
        flow = made.back([np.ascontiguousarray(exchanged(dys[0])), *dys[1:]], sums, dmemory)
        dxs: Any = flow.inputs["sequences"][0]
        return flow._replace(inputs={**flow.inputs, "sequences": [np.swapaxes(dxs, 0, 1)]})

    outputs = made.outputs
    if isinstance(outputs, tuple):
        outputs = (exchanged(outputs[0]), *outputs[1:])
    else:
        outputs = exchanged(outputs)
    return made._replace(outputs=masked(layer, outputs, given["sequences"], given), back=back)


BIDIRECTIONAL = Rule(bidirectional, check_parts)
TIME_DISTRIBUTED = Rule(time_distributed, check_parts)
TIME_MAJOR = Rule(time_major, check_parts)
