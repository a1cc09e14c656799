"""What Hypothesis draws: cases (shapes, options and a seed), ways to cut a sequence, and models."""

from typing import Any

from hypothesis import strategies as st
from programs import ACTIVATIONS, GATES, Program, random_program

from refrnn.cases import MASKS, Case


@st.composite
def options(draw: st.DrawFn, layer: str) -> dict[str, Any]:
    """Arguments of `layer` that change its numbers, or must not; few at a time."""
    flags = ["go_backwards", "zero_output_for_mask", "unroll"]
    chosen: dict[str, Any] = dict.fromkeys(draw(st.sets(st.sampled_from(flags))), True)
    if draw(st.booleans()):
        chosen["use_bias"] = False
    if draw(st.booleans()):
        chosen["activation"] = draw(st.sampled_from(ACTIVATIONS))
    if layer != "SimpleRNN":
        if draw(st.booleans()):
            chosen["recurrent_activation"] = draw(st.sampled_from(GATES))
        if draw(st.booleans()):
            chosen["implementation"] = 1
    if layer == "GRU" and draw(st.booleans()):
        chosen["reset_after"] = False
    if chosen.keys() >= {"go_backwards", "zero_output_for_mask", "unroll"}:
        del chosen["unroll"]  # Keras reads the mask the wrong way round there: see test_grid.py
    return chosen


@st.composite
def cases(draw: st.DrawFn, dtypes: tuple[str, ...] = ("float64",), max_steps: int = 8) -> Case:
    layer = draw(st.sampled_from(("SimpleRNN", "GRU", "LSTM")))
    return Case(
        layer=layer,
        rows=draw(st.integers(1, 5)),
        steps=draw(st.integers(1, max_steps)),
        features=draw(st.integers(1, 6)),
        units=draw(st.integers(1, 7)),
        dtype=draw(st.sampled_from(dtypes)),
        mask=draw(st.sampled_from((None, *MASKS))),
        state=draw(st.booleans()),
        seed=draw(st.integers(0, 2**16)),
        options=draw(options(layer)),
    )


@st.composite
def cuttings(draw: st.DrawFn, steps: int) -> list[int]:
    """Chunk lengths that add up to `steps`, empty chunks among them."""
    cuts = sorted(draw(st.lists(st.integers(0, steps), max_size=4)))
    return [b - a for a, b in zip([0, *cuts], [*cuts, steps], strict=True)]


def programs(steps: int) -> st.SearchStrategy[Program]:
    """Models of 2 to 6 layers.

    One number decides on all but their number: drawn piece by piece, Hypothesis would spend most
    of its examples on variations of one model. A failing one is cut to its first lines.
    """
    return st.builds(
        lambda count, seed: random_program(seed, count, steps),
        st.sampled_from(range(2, 7)),
        st.integers(0, 2**32 - 1),
    )
