"""The fixed cases of `refrnn verify`: every layer and GRU variant, option by option."""

from typing import Any

from refrnn.cases import MASKS, Case

KINDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("SimpleRNN", {}),
    ("LSTM", {}),
    ("GRU", {}),
    ("GRU", {"reset_after": False}),
)
# What is varied: shapes and weights, then the options of the layer.
VARIATIONS: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({}, {}),
    ({"dtype": "float32"}, {}),
    ({"state": False}, {}),
    ({}, {"use_bias": False}),
    *(({"mask": mask, "steps": 9, "rows": 6}, {}) for mask in MASKS),
    ({"mask": "holes", "dtype": "float32"}, {"zero_output_for_mask": True}),
    ({"mask": "holes"}, {"go_backwards": True}),
    ({"mask": "right", "steps": 6}, {"unroll": True}),
    ({}, {"activation": "relu"}),
    ({"rows": 1, "steps": 1, "features": 2, "units": 3}, {}),
    ({"rows": 2, "steps": 5, "features": 1, "units": 1}, {}),
    ({"rows": 5, "steps": 50, "features": 33, "units": 70, "dtype": "float32"}, {}),
    ({"scale": 0.01, "dtype": "float32"}, {}),
    ({"scale": 4.0, "dtype": "float32"}, {}),
    ({"scale": 4.0}, {}),
    ({"rows": 2, "steps": 1000, "features": 3, "scale": 0.9, "dtype": "float32"}, {}),
)
GATED: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({}, {"activation": "softsign", "recurrent_activation": "hard_sigmoid"}),
    ({}, {"implementation": 1}),
)


def _family() -> tuple[Case, ...]:
    cases: list[Case] = []
    for layer, variant in KINDS:
        for shape, options in VARIATIONS + (GATED if layer != "SimpleRNN" else ()):
            settings = {"layer": layer, "options": {**variant, **options}, **shape}
            cases.append(Case(seed=len(cases), **settings))
    return tuple(cases)


FAMILY = _family()
