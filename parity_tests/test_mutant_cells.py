"""The wrong cells are wrong, the right one is right, and the judge tells them apart."""

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from refrnn.cases import Case
from refrnn.verify.mutants import KINDS, MUTANTS, Engine, Mutant
from refrnn.verify.mutants.battery import battery, called, equivalent, margin
from refrnn.verify.subject import Part, subject

LAYERS = {
    "simple": ("SimpleRNN", {}),
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {}),
    "gru_reset_before": ("GRU", {"reset_after": False}),
}
SEEDS = range(2)  # not those of any constant: the bounds were fixed before
PAIRS = [(mutant, cell) for mutant in MUTANTS.values() for cell in mutant.cells]

# What the judge lets pass, and why: half of a cell's runs at most
MISSES = {
    "one recurrent weight off by 1e-5": "less than the rounding of the sum that it is part of",
    "one input weight off by 1e-5": "less than the rounding of the sum that it is part of",
    "small weights pruned": "there may be no weight that small among these",
}


def part_of(cell: str, seed: int = 0, units: int = 7, **options: Any) -> Part:
    layer, variant = LAYERS[cell]
    options = {**variant, **options}
    case = Case(layer, features=5, units=units, dtype="float32", seed=seed, options=options)
    return subject(case.build()).parts[0]


def worst(mutant: Mutant | None, part: Part, seed: int) -> float:
    """The largest margin of the judge over the battery."""
    implementation = (mutant.make if mutant else Engine().implementation)(part)
    return max(margin(part, run, called(implementation, run)) for run in battery(part, seed))


def ids(value: Any) -> str | None:
    return value.name if isinstance(value, Mutant) else None


def test_the_list_is_long_named_and_of_four_kinds() -> None:
    count = Counter(mutant.kind for mutant in MUTANTS.values())
    assert tuple(count) == KINDS
    assert len(MUTANTS) >= 80
    assert min(count.values()) >= 20
    for name, mutant in MUTANTS.items():
        assert mutant.name == name
        assert mutant.cells
        assert set(mutant.cells) <= set(LAYERS)
        assert len(mutant.wrong) > 15
        assert mutant.issue == "" or re.fullmatch(
            r"https://github\.com/[\w.-]+/[\w.-]+/issues/\d+", mutant.issue
        )
    assert len({mutant.wrong for mutant in MUTANTS.values()}) >= 0.95 * len(MUTANTS)
    assert sum(bool(mutant.issue) for mutant in MUTANTS.values()) >= 30


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"go_backwards": True},
        {"zero_output_for_mask": True},
        {"activation": "relu"},
        {"go_backwards": True, "zero_output_for_mask": True, "use_bias": False},
    ],
    ids=str,
)
def test_the_engine_without_a_bug_is_the_layer_bit_by_bit(
    cell: str, options: dict[str, Any]
) -> None:
    layer, variant = LAYERS[cell]
    for mask in (None, "holes", "left", "row"):
        for state in (True, False):
            case = Case(layer, dtype="float32", mask=mask, state=state, seed=3)
            built = case.build(**variant, **options, engine="numpy")
            arrays = case.arrays()
            given = {"initial_state": arrays.state, "mask": arrays.mask}
            want = built(arrays.x, **given)
            got = Engine().implementation(subject(built).parts[0])(arrays.x, **given)
            for a, b in zip(got, want, strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("options", [{}, {"zero_output_for_mask": True}, {"go_backwards": True}])
def test_the_engine_without_a_bug_passes_the_judge(cell: str, options: dict[str, Any]) -> None:
    for seed in range(5):
        assert worst(None, part_of(cell, seed, **options), seed) <= 1


@pytest.mark.parametrize(("mutant", "cell"), PAIRS, ids=ids)
def test_every_mutant_gives_other_bits(mutant: Mutant, cell: str) -> None:
    assert not equivalent(mutant, part_of(cell))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "numeric"])
def test_the_judge_catches_every_mutant_of(kind: str) -> None:
    missed = [
        (mutant.name, cell, seed)
        for mutant, cell in PAIRS
        for seed in SEEDS
        if mutant.kind == kind and worst(mutant, part_of(cell, seed), seed) <= 1
    ]
    assert missed == []


def test_the_judge_catches_nine_of_ten_numeric_mutants_and_the_others_are_named() -> None:
    tried, missed = 0, []
    for mutant, cell in PAIRS:
        for seed in SEEDS:
            if mutant.kind == "numeric":
                tried += 1
                if worst(mutant, part_of(cell, seed), seed) <= 1:
                    missed.append(mutant.name)
    assert set(missed) <= set(MISSES)
    assert len(missed) <= 0.1 * tried


@pytest.mark.parametrize(
    ("name", "cell", "units", "options", "same"),
    [
        ("last partial tile of units", "lstm", 8, {}, True),
        ("last partial tile of units", "lstm", 9, {}, False),
        ("hard sigmoid of Keras 3", "gru", 5, {"recurrent_activation": "hard_sigmoid"}, True),
        ("hard sigmoid of Keras 3", "gru", 5, {}, False),
        ("tanh off by 1e-4", "simple", 5, {"activation": "relu"}, True),
        ("linear for tanh", "simple", 5, {"activation": "relu"}, False),
        ("recurrent kernel transposed", "simple", 1, {}, True),
    ],
)
def test_which_mutants_are_none_is_measured(
    name: str, cell: str, units: int, options: dict[str, Any], same: bool
) -> None:
    assert equivalent(MUTANTS[name], part_of(cell, units=units, **options)) is same


def test_a_mutant_changes_no_array_of_its_layer() -> None:
    for mutant, cell in PAIRS:
        part = part_of(cell)
        before = [array.copy() for array in part.weights]
        for run in battery(part)[:5]:
            given = [a.copy() for a in (run.x, *(run.state or []))]
            called(mutant.make(part), run)
            for a, b in zip(given, (run.x, *(run.state or [])), strict=True):
                np.testing.assert_array_equal(a, b)
        for a, b in zip(before, part.weights, strict=True):
            np.testing.assert_array_equal(a, b)
