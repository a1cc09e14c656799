"""What cuDNN returned is what refrnn returns, at the bound of its arithmetic; and nothing passes
for a recording that is none.

The recordings in fixtures/goldens are judged. The machinery is tested on recordings of a stand-in,
refrnn itself with cuDNN's zeros past a row's length: they say so, and are no evidence of cuDNN.
"""

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refrnn
from refrnn import formats, goldens
from refrnn.cases import Case
from refrnn.files import FileError
from refrnn.formats import PRODUCTS
from refrnn.goldens import Given, Recording, Variant
from refrnn.goldens.storing import HEADER, _checksum
from refrnn.layers import Bidirectional
from refrnn.verify.compare import same_bits

FOLDER = Path(__file__).parent / "fixtures" / "goldens"
RECORDED = sorted(FOLDER.glob("*.npz"))
CELLS = {"SimpleRNN": "simple", "GRU": "gru", "LSTM": "lstm"}
STAND_IN = {"stand_in": "refrnn"}
PROVENANCE = {
    "versions": {"front": "1.0", "cudnn": "9.28"},
    "gpu": "a card",
    "asked": {"allow_tf32": True},
    "read_back": {"allow_tf32": True},
    "repeats": True,
}
PROOF = {"calls": 10, "algorithm": "STANDARD", "math": "TENSOR_OP", "data": "FLOAT"}


# --- what was recorded ---


@pytest.mark.skipif(not RECORDED, reason="nothing has been recorded on a graphics card yet")
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_what_cudnn_returned_is_what_refrnn_returns(path: Path) -> None:
    for verdict in goldens.judge(goldens.read(path)):
        assert verdict.agrees, verdict


@pytest.mark.skipif(not RECORDED, reason="nothing has been recorded on a graphics card yet")
def test_every_wrong_convention_is_far_from_what_was_recorded() -> None:
    assert not goldens.unseen(map(goldens.read, RECORDED))
    assert sum(path.stat().st_size for path in RECORDED) < 4 << 20


# --- a stand-in ---


def given_of(
    layer: str = "LSTM",
    back: bool = False,
    both: bool = False,
    lengths: Any = None,
    dtype: str = "float32",
    seed: int = 0,
    **shape: int,
) -> Given:
    sizes = {"rows": 3, "steps": 7, "features": 5, "units": 6, **shape}
    case = Case(layer, dtype=dtype, seed=seed, **sizes)
    arrays = case.arrays()
    weights, state = list(arrays.weights), list(arrays.state or ())
    if both:
        other = replace(case, seed=seed + 1).arrays()
        weights, state = weights + list(other.weights), state + list(other.state or ())
    T = case.steps
    return Given(
        layer,
        weights,
        arrays.x,
        state,
        None if lengths is None else np.array(lengths, np.int32),
        () if both else ([1] * T, [2, 0, T - 2]),
        np.random.default_rng(seed).normal(size=(3, T, 6 * (1 + both))).astype(dtype),
        back,
        both,
    )


def ran(given: Given, precision: str, cutting: Any = None) -> dict[str, Any]:
    """The outputs of the stand-in: refrnn's layers, or its bare run for products of other bits."""
    dtype = "float64" if precision == "float64" else "float32"
    x = np.asarray(given.x, dtype)
    state = [np.asarray(part, dtype) for part in given.state or ()]
    if given.bidirectional:
        y, *ends = given.built(dtype)(x, initial_state=state, mask=given.mask)
        names = [f"{way}.{n}" for way in ("forward", "backward") for n in _parts(given)]
        return {"y": y, **dict(zip(names, ends, strict=True))}
    weights = refrnn.Weights(*(np.asarray(a, dtype) for a in given.weights))
    T, done, ys = x.shape[1], 0, []
    for size in [T] if cutting is None else cutting:
        piece = slice(T - done - size, T - done) if given.go_backwards else slice(done, done + size)
        y, state = refrnn.run(
            CELLS[given.layer],
            weights,
            x[:, piece],
            list(state),
            mask=None if given.mask is None else given.mask[:, piece],
            go_backwards=given.go_backwards,
            zero_output_for_mask=True,
            engine="numpy",
            precision=precision if precision in PRODUCTS else None,
        )
        ys.append(y)
        done += size
    return {"y": np.concatenate(ys, axis=1), **dict(zip(_parts(given), state, strict=True))}


def _parts(given: Given) -> str:
    return "hc" if given.layer == "LSTM" else "h"


def stand_in(given: Given, precision: str = "float32", **changes: Any) -> Variant:
    variant = Variant(
        "stand-in",
        precision,
        ran(given, precision),
        [ran(given, precision, sizes) for sizes in given.cuttings],
        provenance=STAND_IN,
    )
    return replace(variant, **changes)


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "lengths": {"lengths": [7, 2, 5]},
    "backwards": {"back": True, "lengths": [3, 7, 6]},
    "both ways": {"both": True, "lengths": [7, 1, 4]},
    "short": {"steps": 3, "seed": 4},
}


# A layer, which runs both ways, has no products of other bits.
PRECISIONS = [
    (case, precision)
    for case in CASES
    for precision in ("float64", "float32", *PRODUCTS)
    if case != "both ways" or precision not in PRODUCTS
]


@pytest.mark.parametrize(("case", "precision"), PRECISIONS)
@pytest.mark.parametrize("layer", CELLS)
def test_a_recording_comes_back_and_agrees(
    layer: str, case: str, precision: str, tmp_path: Path
) -> None:
    given = given_of(layer, **CASES[case])
    recording = Recording(given, [stand_in(given, precision)])
    path = tmp_path / "one.npz"
    goldens.write(recording, path)
    found = goldens.read(path, stand_in=True)
    assert_same(found, recording)
    (verdict,) = goldens.judge(found)
    assert verdict.agrees, verdict
    assert verdict.margin < 0.5
    assert precision in verdict.fits
    assert verdict.apart < 1e-6
    assert path.stat().st_size < 40_000


def assert_same(found: Recording, wanted: Recording) -> None:
    a, b = found.given, wanted.given
    for name in ("layer", "go_backwards", "bidirectional"):
        assert getattr(a, name) == getattr(b, name)
    assert [list(c) for c in a.cuttings] == [list(c) for c in b.cuttings]
    arrays = {"x": (a.x, b.x), "lengths": (a.lengths, b.lengths), "dy": (a.dy, b.dy)}
    arrays |= {f"w{k}": pair for k, pair in enumerate(zip(a.weights, b.weights, strict=True))}
    arrays |= {
        f"s{k}": pair for k, pair in enumerate(zip(a.state or (), b.state or (), strict=True))
    }
    for one, other in arrays.values():
        assert (one is None) == (other is None)
        if one is not None:
            assert same_bits({"a": one}, {"a": np.asarray(other)})
    for one, other in zip(found.variants, wanted.variants, strict=True):
        assert one.title == other.title
        assert same_bits(one.outputs, other.outputs)
        assert all(same_bits(p, q) for p, q in zip(one.chunked, other.chunked, strict=True))
        assert same_bits(one.gradients, other.gradients)
        assert (one.provenance, one.proof) == (other.provenance, other.proof)


def test_equal_recordings_are_equal_files_and_equal_chunks_are_kept_once(tmp_path: Path) -> None:
    given = given_of()
    variant = stand_in(given)
    goldens.write(Recording(given, [variant]), tmp_path / "a.npz")
    goldens.write(Recording(given, [variant]), tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    names = zipfile.ZipFile(tmp_path / "a.npz").namelist()
    assert not any("chunked" in name for name in names)
    off = {**variant.chunked[1], "y": np.nextafter(variant.chunked[1]["y"], np.float32(2))}
    other = replace(variant, chunked=[variant.chunked[0], off])
    goldens.write(Recording(given, [other]), tmp_path / "b.npz")
    names = zipfile.ZipFile(tmp_path / "b.npz").namelist()
    assert sum("chunked.1" in name for name in names) == 3
    assert_same(goldens.read(tmp_path / "b.npz", stand_in=True), Recording(given, [other]))


# --- what is told apart ---


@pytest.mark.parametrize("layer", CELLS)
def test_wrong_conventions_are_far_from_float32_and_float64(layer: str) -> None:
    """Three recordings see all: forwards and backwards, with lengths, and both ways."""
    recordings = []
    for case in ("lengths", "backwards", "both ways"):
        given = given_of(layer, **CASES[case])
        recordings.append(Recording(given, [stand_in(given), stand_in(given, "float64")]))
    assert not goldens.unseen(recordings)
    names = " ".join(goldens.distances(recordings[0].given, recordings[0].variants[0]))
    assert "the bias is dropped" in names
    assert "masked steps repeat the last output" in names
    wanted = {"GRU": "reset_after=False", "LSTM": "read as f,i", "SimpleRNN": "transposed"}
    assert wanted[layer] in names
    assert ("the recurrent bias is dropped" in names) == (layer == "GRU")


@pytest.mark.parametrize("precision", ["tf32", "tf32 cut"])
@pytest.mark.parametrize("layer", CELLS)
def test_with_its_rounding_emulated_tf32_tells_them_apart_as_well(
    layer: str, precision: str
) -> None:
    """As long as the products are those of an emulation: the bound is float32's then. Where no
    emulation fits, TF32 is off by 3e-4 and more, and a recording is a check of range alone."""
    given = given_of(layer, lengths=[7, 2, 5])
    far = goldens.distances(given, stand_in(given, precision))
    assert min(far.values()) > goldens.FAR
    plain = goldens.judge(
        Recording(given, [replace(stand_in(given, precision), precision="float32")])
    )
    assert plain[0].margin > 100
    assert precision in plain[0].fits
    assert not plain[0].agrees


def test_a_recording_that_shows_nothing_is_found_out() -> None:
    """Without a bias and in one step from nothing, most conventions give the same numbers."""
    full = given_of("GRU", steps=2)
    blank = [np.zeros_like(part) for part in full.state or ()]
    weights = [full.weights[0], full.weights[1], np.zeros_like(full.weights[2])]
    given = replace(
        full, x=full.x[:, :1], weights=weights, state=blank, cuttings=(), dy=None, lengths=None
    )
    hidden = goldens.unseen([Recording(given, [stand_in(given)])])
    assert "GRU: the bias is dropped" in hidden
    assert "GRU: recurrent_kernel is transposed (each gate's block)" in hidden
    assert not goldens.unseen([Recording(given, [stand_in(given, "tf32")])])  # no evidence at all


MISTAKES: dict[str, Callable[[Given], Given]] = {
    "gates swapped": lambda g: replace(g, weights=[np.roll(a, 6, axis=-1) for a in g.weights]),
    "no bias": lambda g: replace(g, weights=[*g.weights[:2], np.zeros_like(g.weights[2])]),
    "no state": lambda g: replace(g, state=[np.zeros_like(part) for part in g.state or ()]),
    "no lengths": lambda g: replace(g, lengths=None),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("precision", ["float64", "float32", "tf32"])
def test_outputs_of_something_else_do_not_agree(mistake: str, precision: str) -> None:
    given = given_of("LSTM", lengths=[7, 2, 5])
    wrong = MISTAKES[mistake](given)
    (verdict,) = goldens.judge(Recording(given, [stand_in(wrong, precision)]))
    assert not verdict.agrees
    assert verdict.margin > goldens.FAR
    assert verdict.own < 1
    assert "off by" in verdict.note


@pytest.mark.parametrize("layer", CELLS)
def test_one_number_that_is_off_is_found_whole_and_in_chunks(layer: str) -> None:
    given = given_of(layer)
    variant = stand_in(given)

    def off(run: Any) -> Any:
        y = run["y"].copy()
        y[1, 4, 2] += 1e-4
        return {**run, "y": y}

    for changed in (
        replace(variant, outputs=off(variant.outputs)),
        replace(variant, chunked=[variant.chunked[0], off(variant.chunked[1])]),
    ):
        (verdict,) = goldens.judge(Recording(given, [changed]))
        assert not verdict.agrees
        assert "y[row 1, step 4, unit 2]" in verdict.note


def test_zeros_past_a_length_are_part_of_what_is_judged() -> None:
    given = given_of("GRU", lengths=[7, 2, 5])
    variant = stand_in(given)
    y = variant.outputs["y"].copy()
    y[1, 2:] = y[1, 1]
    repeats = {**variant.outputs, "y": y}
    (verdict,) = goldens.judge(Recording(given, [replace(variant, outputs=repeats, chunked=())]))
    assert verdict.margin == np.inf
    assert "an exact copy expected" in verdict.note


def gradients(given: Given, dtype: str) -> dict[str, Any]:
    found = refrnn.gradients(
        CELLS[given.layer],
        refrnn.Weights(*(np.asarray(a, dtype) for a in given.weights)),
        np.asarray(given.x, dtype),
        np.asarray(given.dy, dtype),
        [np.asarray(part, dtype) for part in given.state or ()],
        mask=given.mask,
        zero_output_for_mask=True,
    )
    names = ("kernel", "recurrent_kernel", "bias")
    weights = {name: getattr(found, f"d{name}") for name in names}
    return {"x": found.dxs, **weights, **found.dstate._asdict()}


@pytest.mark.parametrize("layer", CELLS)
def test_gradients_are_kept_and_judged(layer: str, tmp_path: Path) -> None:
    given = given_of(layer, lengths=[7, 2, 5])
    variant = stand_in(given, gradients=gradients(given, "float32"))
    goldens.write(Recording(given, [variant]), tmp_path / "g.npz")
    found = goldens.read(tmp_path / "g.npz", stand_in=True)
    assert_same(found, Recording(given, [variant]))
    (verdict,) = goldens.judge(found)
    assert verdict.agrees
    assert set(verdict.gradients) == set(variant.gradients)
    # the limit of float32, 2e-5, is 20 times and more what it is really off by
    assert 0 < max(verdict.gradients.values()) < 1e-6
    wrong = {**variant.gradients, "kernel": variant.gradients["kernel"] * np.float32(1.001)}
    (verdict,) = goldens.judge(Recording(given, [replace(variant, gradients=wrong)]))
    assert not verdict.agrees


# --- what is no recording ---


def proven(given: Given, **changes: Any) -> Variant:
    return stand_in(given, provenance=PROVENANCE, proof=PROOF, **changes)


def without(told: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in told.items() if key != name}


def changed(variant: Variant, name: str, change: Callable[[Any], Any]) -> Variant:
    """The variant with another array of its whole run."""
    return replace(variant, outputs={**variant.outputs, name: change(variant.outputs[name])})


REFUSED: dict[str, tuple[Callable[[Given, Variant], Recording], str]] = {
    "no variants": (lambda g, v: Recording(g, []), "has no variants"),
    "twice": (lambda g, v: Recording(g, [v, v]), "the variant 'stand-in, float32' twice"),
    "no proof": (lambda g, v: Recording(g, [replace(v, proof={})]), "proof has calls None"),
    "no provenance": (
        lambda g, v: Recording(g, [replace(v, provenance={})]), "provenance has versions None"),
    "empty versions": (
        lambda g, v: Recording(g, [replace(v, provenance={**PROVENANCE, "versions": {}})]),
        "provenance has versions {}"),
    "few calls": (
        lambda g, v: Recording(g, [replace(v, proof={**PROOF, "calls": 9})]),
        "proof has 9 calls of cuDNN, expected at least 10"),
    "no call": (
        lambda g, v: Recording(g, [replace(v, chunked=(), proof={**PROOF, "calls": 0})]),
        "proof has 0 calls of cuDNN, expected at least 1"),
    "calls by name": (
        lambda g, v: Recording(g, [replace(v, proof={**PROOF, "calls": "9"})]),
        "proof has calls '9', expected a int"),
    "proof of a stand-in": (
        lambda g, v: Recording(g, [replace(v, provenance=STAND_IN)]), "a stand-in has a proof"),
    "not JSON": (
        lambda g, v: Recording(g, [replace(v, proof={**PROOF, "x": np.zeros(2)})]), "is not JSON"),
    "NaN in JSON": (
        lambda g, v: Recording(g, [replace(v, proof={**PROOF, "x": np.nan})]), "is not JSON"),
    "precision": (
        lambda g, v: Recording(g, [replace(v, precision="TF32")]), "precision is 'TF32', expected"),
    "layer": (lambda g, v: Recording(replace(g, layer="RNN"), [v]), "layer is 'RNN', expected"),
    "dtypes": (
        lambda g, v: Recording(replace(g, x=g.x.astype(np.float64)), [v]), "float32, float64"),
    "half": (
        lambda g, v: Recording(replace(g, x=g.x.astype(np.float16)), [v]), "float16, float32"),
    "NaN given": (
        lambda g, v: Recording(replace(g, x=g.x * np.float32(np.nan)), [v]), "not finite"),
    "NaN returned": (
        lambda g, v: Recording(g, [changed(v, "h", lambda h: h * np.nan)]),
        "h is float32, expected float32 and no NaN"),
    "infinity returned": (
        lambda g, v: Recording(g, [changed(v, "h", lambda h: h + np.inf)]),
        "h has numbers that are not finite"),
    "other dtype": (
        lambda g, v: Recording(g, [changed(v, "y", lambda y: y.astype(np.float64))]),
        "y is float64, expected float32"),
    "no state": (
        lambda g, v: Recording(g, [replace(v, outputs=without(dict(v.outputs), "c"))]),
        "shows ['h', 'y'], expected all outputs y and ['h', 'c']"),
    "shape of y": (
        lambda g, v: Recording(g, [changed(v, "y", lambda y: y[:, 1:])]),
        "y has shape (3, 6, 6), expected"),
    "last output": (
        lambda g, v: Recording(g, [changed(v, "y", lambda y: y[:, 1])]),
        "expected all outputs y"),
    "chunks": (lambda g, v: Recording(g, [replace(v, chunked=v.chunked[:1])]), "1 chunked runs"),
    "cutting": (
        lambda g, v: Recording(replace(g, cuttings=[[3, 3]]), [v]), "lengths with the sum 7"),
    "lengths": (
        lambda g, v: Recording(replace(g, lengths=np.array([7, 0, 3])), [v]), "row 1 has no live"),
    "long": (
        lambda g, v: Recording(replace(g, lengths=np.array([7, 8, 3])), [v]), "expected at most 7"),
    "few lengths": (
        lambda g, v: Recording(replace(g, lengths=np.array([7, 2])), [v]), "expected (3,) whole"),
    "broken lengths": (
        lambda g, v: Recording(replace(g, lengths=np.array([7.0, 2, 3])), [v]), "whole numbers"),
    "weights": (
        lambda g, v: Recording(replace(g, weights=g.weights[:2]), [v]), "weights"),
    "dy": (lambda g, v: Recording(replace(g, dy=g.dy[:, 1:]), [v]), "dy has shape (3, 6, 6)"),
    "nothing": (
        lambda g, v: Recording(replace(g, x=g.x[:0], state=None), [v]), "none of them 0"),
    "finer than given": (
        lambda g, v: Recording(g, [replace(v, precision="float16")]), "that float16 does not have"),
    "gradients": (
        lambda g, v: Recording(replace(g, dy=None), [replace(v, gradients={"x": g.x})]),
        "has gradients, expected dy"),
    "shape of a gradient": (
        lambda g, v: Recording(g, [replace(v, gradients={"kernel": g.x})]), "gradient 'kernel'"),
    "name of a gradient": (
        lambda g, v: Recording(g, [replace(v, gradients={"W": g.x})]), "gradient 'W' has shape"),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_no_recording_is_not_written(why: str, tmp_path: Path) -> None:
    given = given_of()
    change, message = REFUSED[why]
    variant = proven(given)
    with pytest.raises((ValueError, TypeError)) as caught:
        goldens.write(change(given, variant), tmp_path / "no.npz")
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_with_its_proof_it_is_a_recording(tmp_path: Path) -> None:
    given = given_of()
    variant = proven(given)
    path = tmp_path / "yes.npz"
    goldens.write(Recording(given, [variant]), path)
    found = goldens.read(path)
    assert found.variants[0].proof == variant.proof
    assert found.variants[0].provenance == PROVENANCE
    with pytest.raises(ValueError, match=r"expected a name that ends with \.npz"):
        goldens.write(found, tmp_path / "yes.zip")


def read_members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def rewrite(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)


def test_a_stand_in_does_not_pass_for_a_recording(tmp_path: Path) -> None:
    given = given_of()
    path = tmp_path / "one.npz"
    goldens.write(Recording(given, [stand_in(given)]), path)
    with pytest.raises(FileError, match="was computed by a stand-in, expected what a graphics"):
        goldens.read(path)
    goldens.read(path, stand_in=True)


def edited(members: dict[str, bytes], change: Callable[[Any], None], seal: bool) -> None:
    """The JSON changed, with a checksum that fits if it is to be sealed again."""
    header = json.loads(members[HEADER])
    change(header)
    if seal:
        header["checksum"] = _checksum(header)
    members[HEADER] = json.dumps(header).encode()


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


TAMPERED: dict[str, tuple[Callable[[dict[str, bytes]], Any], str]] = {
    "a number": (
        lambda m: m.update({"0.whole.y.npy": flipped(m["0.whole.y.npy"])}), "another SHA-256"),
    "a weight": (
        lambda m: m.update({"weights.0.npy": flipped(m["weights.0.npy"])}), "another SHA-256"),
    "an array gone": (lambda m: m.pop("x.npy"), "'x' is listed and not there"),
    "an array more": (lambda m: m.update({"z.npy": m["x.npy"]}), "'z' is listed and not there, or"),
    "no JSON": (lambda m: m.pop(HEADER), "has no recording.json"),
    "broken JSON": (lambda m: m.update({HEADER: b"{"}), "recording.json"),
    "provenance": (
        lambda m: edited(m, lambda h: h["variants"][0]["provenance"].update(gpu="another"), False),
        "other than what its checksum was made of"),
    "format": (
        lambda m: edited(m, lambda h: h.update(format="refrnn recording 2"), True), "format is"),
    "proof gone": (
        lambda m: edited(m, lambda h: h["variants"][0].update(proof={}), True),
        "proof has calls None"),
    "provenance gone": (
        lambda m: edited(m, lambda h: h["variants"][0].update(provenance={}), True),
        "provenance has versions None"),
    "variants gone": (
        lambda m: edited(m, lambda h: h.pop("variants"), True), "recording: 'variants'"),
    "layer": (
        lambda m: edited(m, lambda h: h.update(layer="GRU"), True), "recording: GRU"),
    "counts": (
        lambda m: edited(m, lambda h: h["counts"].update(weights=4), True), "'weights.3'"),
    "no list": (
        lambda m: edited(m, lambda h: h.update(variants=3), True), "recording: "),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
def test_a_file_that_was_changed_is_refused(what: str, tmp_path: Path) -> None:
    given = given_of()
    variant = proven(given)
    path = tmp_path / "one.npz"
    goldens.write(Recording(given, [variant]), path)
    members = read_members(path)
    change, message = TAMPERED[what]
    change(members)
    rewrite(path, members)
    with pytest.raises(FileError) as caught:
        goldens.read(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    given = given_of()
    path = tmp_path / "one.npz"
    goldens.write(Recording(given, [stand_in(given)]), path)
    data = path.read_bytes()
    for stop in (0, 3, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:stop])
        with pytest.raises(FileError):
            goldens.read(path, stand_in=True)


def test_numbers_of_16_bits_are_recorded_as_such(tmp_path: Path) -> None:
    """float16 as it is, bfloat16 as float32; what went in must be numbers of the format too."""
    for precision, form in (("float16", formats.float16), ("bfloat16", formats.bfloat16)):
        full = given_of("GRU")
        given = replace(
            full,
            weights=[form(a) for a in full.weights],
            x=form(full.x),
            state=[form(part) for part in full.state or ()],
        )
        runs = [ran(given, f"{precision} products", sizes) for sizes in (None, *given.cuttings)]
        dtype = np.float16 if precision == "float16" else np.float32
        stored = [{name: form(a).astype(dtype) for name, a in run.items()} for run in runs]
        variant = stand_in(given, precision, outputs=stored[0], chunked=stored[1:])
        goldens.write(Recording(given, [variant]), tmp_path / "h.npz")
        (verdict,) = goldens.judge(goldens.read(tmp_path / "h.npz", stand_in=True))
        assert verdict.agrees
        assert verdict.precision == precision
        not_of_it = {name: a.astype(np.float32) for name, a in runs[0].items()}
        wrong = Recording(given, [replace(variant, outputs=not_of_it)])
        with pytest.raises(ValueError, match="y is float32, expected float"):
            goldens.write(wrong, tmp_path / "h.npz")


def test_what_is_built_is_what_was_recorded() -> None:
    layer = given_of("LSTM", back=True).built("float32")
    assert (layer.go_backwards, layer.zero_output_for_mask) == (True, True)
    assert isinstance(given_of("GRU", both=True).built("float64"), Bidirectional)
