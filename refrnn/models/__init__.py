"""Models: layers in a chain or a graph, made from a list, symbols or a Keras config."""

from typing import Any

from refrnn.layers import LAYERS
from refrnn.models.graph import Graph, InputSpec, Node, Ref
from refrnn.models.model import Model, Sequential

__all__ = [
    "Graph",
    "InputSpec",
    "Model",
    "Node",
    "Ref",
    "Sequential",
    "from_config",
]

MODELS: dict[str, type[Model]] = {"Sequential": Sequential, "Functional": Model}
LAYERS |= MODELS


def from_config(kind: str, config: dict[str, Any]) -> Model:
    """A model without weights from what Keras 3's `get_config` returned.

    kind  "Sequential" or "Functional"

    Raises ValueError for a layer that refrnn does not have, by name. Nothing in a config is run.
    """
    return MODELS[kind].from_config(config)
