"""Single wrong weights, from the outputs of one unit."""
from collections.abc import Iterator
from refrnn.verify.conventions import Edit
from refrnn.verify.scene import Fit, Scene

def single_weights(s: Scene, f: Fit, rows) -> list[Edit]:
    return []
