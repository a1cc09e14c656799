"""All conventions that an implementation could have."""

from refrnn.verify.conventions.edit import Edit
from refrnn.verify.conventions.equations import activations_of, equations
from refrnn.verify.conventions.masks import masks
from refrnn.verify.conventions.order import directions, inputs
from refrnn.verify.conventions.rounding import precisions
from refrnn.verify.conventions.states import returned_states, states
from refrnn.verify.conventions.weights import biases, gate_orders, matrices
from refrnn.verify.scene import Scene


def catalogue(base: Scene, backwards: bool = False, turned: bool = False) -> list[Edit]:
    """All edits that could be made to a scene, most usual first.

    backwards, turned
               the reference runs from the last step to the first; and its outputs, which a scene
               has in the order of processing, come in the order of time
    """
    found: list[Edit] = []
    for maker in (
        gate_orders,
        biases,
        matrices,
        equations,
        activations_of,
        states,
        masks,
        inputs,
        precisions,
        returned_states,
    ):
        found += maker(base)
    found += directions(backwards, turned)
    return found
