"""What kind of layer a group of arrays looks like: by their number, their shapes and their names.

Files of weights alone do not say what layers they are of.
"""

from collections.abc import Sequence

Shape = tuple[int, ...]

# names that arrays have in .h5, in the order in which .keras numbers them
ORDER = (
    "kernel", "recurrent_kernel", "embeddings", "gamma", "beta", "bias", "moving_mean",
    "moving_variance",
)  # fmt: skip
CELLS = {1: "SimpleRNN", 3: "GRU", 4: "LSTM"}  # by the number of their gates


def rank(name: str) -> tuple[int, str]:
    """For sorting the arrays of a layer by their names, in Keras's order."""
    short = name.partition(":")[0]
    if short.isdigit():
        return int(short), ""
    return ORDER.index(short) if short in ORDER else len(ORDER), short


def like(place: str, names: Sequence[str], shapes: Sequence[Shape]) -> str:
    """What the arrays of one folder look like, in Keras's order.

    place  the names of the folders that they are in, which may tell an Embedding from a Dense
    """
    ranks = [len(shape) for shape in shapes]
    if ranks[:2] == [2, 2] and len(shapes) in (2, 3):
        return _recurrent(place, shapes) or "unknown"
    said = (place + "/".join(names)).lower()
    if ranks == [2]:
        return "Embedding" if "embed" in said else "Dense without bias"
    if ranks in ([2, 1], [3, 1]) and shapes[0][-1] == shapes[1][0]:
        return "Dense" if ranks == [2, 1] else "Conv1D"
    if ranks == [3]:
        return "Conv1D without bias"
    if len(set(shapes)) == 1 and ranks[0] == 1:
        count = len(shapes)
        if count == 4 or "moving" in said:
            return "BatchNormalization"
        return {2: "LayerNormalization", 1: "PReLU" if "alpha" in said else "unknown"}.get(
            count, "unknown"
        )
    return "unknown"


def _recurrent(place: str, shapes: Sequence[Shape]) -> str | None:
    """A cell, by the shape of its recurrent kernel, (H, gates x H), and of its bias."""
    (_, width), (units, wide), *biases = shapes
    gates = width // units if units else 0
    if width != wide or gates * units != width or gates not in CELLS:
        return None
    kind = CELLS[gates]
    if not biases:
        return f"{kind} without bias"
    [bias] = biases
    if gates == 3 and bias == (2, width):
        return "GRU, reset_after=True"
    if bias == (width,):
        return "GRU, reset_after=False" if gates == 3 else kind
    if gates > 1 and bias == (2 * width,):
        return f"CuDNN{kind}, in CuDNN's layout"
    return None
