"""Models of OpenVINO: LSTMSequence, GRUSequence and RNNSequence, without OpenVINO.

A model is two files: .xml, which has the operations, and .bin beside it, which has the weights.
"""

import os

from refrnn.files.graphs import Graph
from refrnn.files.openvino import network, translation

SUFFIX = ".xml"


def read(path: "str | os.PathLike[str]") -> Graph:
    """The graph in a file of OpenVINO, with the weights from the .bin beside it.

    Raises FileError for what is damaged; what refrnn does not have is a node with its trouble.
    """
    return translation.graph(network.read(path))
