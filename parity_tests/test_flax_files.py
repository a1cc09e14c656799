"""Parameters of Flax are read by path, and give the numbers of Flax's layers.

What is no real number is refused by path; a damaged file by FileError.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import damaged
from others import needs

from refrnn import layouts
from refrnn.files import FileError, inspect, read_arrays
from refrnn.files.groups import Group, groups

FIXTURES = Path(__file__).parent / "fixtures" / "flax"
RECORDED = sorted(p.with_suffix(".msgpack") for p in FIXTURES.glob("*.npz"))
# float32: two libraries that sum a dozen terms, and compute exp, in other orders; outputs below 2
TOLERANCE = 2e-6


def stem(path: Path) -> str:
    return path.stem


def output(group: Group, x: Any) -> Any:
    y, _ = layouts.run(group.arrays, x, cell=group.cell, source=group.layout)
    return y


@pytest.mark.parametrize("path", RECORDED, ids=stem)
def test_weights_give_the_numbers_of_flax(path: Path) -> None:
    found = read_arrays(path)
    with np.load(path.with_suffix(".npz")) as recorded:
        y, wanted = recorded["x"], recorded["y"]
    by_place = {group.before: group for group in groups(found)}
    for place in sorted(by_place, reverse=True):  # OptimizedLSTMCell_0 comes before GRUCell_0
        y = output(by_place[place], y)
    if "params/Dense_0/kernel" in found:
        y = y @ found["params/Dense_0/kernel"] + found["params/Dense_0/bias"]
    assert by_place
    np.testing.assert_allclose(y, wanted, rtol=0, atol=TOLERANCE)


def test_a_planted_exchange_of_gates_gives_other_numbers() -> None:
    path = FIXTURES / "linen_lstm.msgpack"
    with np.load(path.with_suffix(".npz")) as recorded:
        x, wanted = recorded["x"], recorded["y"]
    [group] = groups(read_arrays(path))
    both = group.arrays["ii/kernel"], group.arrays["if/kernel"]
    group.arrays["if/kernel"], group.arrays["ii/kernel"] = both
    assert np.abs(output(group, x) - wanted).max() > 1e-3


@pytest.mark.others
@pytest.mark.parametrize("path", RECORDED, ids=stem)
def test_the_arrays_are_those_that_flax_reads(path: Path) -> None:
    needs("flax")
    from flax import serialization, traverse_util

    wanted = traverse_util.flatten_dict(serialization.msgpack_restore(path.read_bytes()), sep="/")
    found = read_arrays(path)
    assert found.keys() == wanted.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, wanted[name], strict=True)


def test_the_cells_are_known_by_their_names() -> None:
    found = {path.stem: [(g.before, g.layout, g.cell) for g in groups(read_arrays(path))]
             for path in RECORDED}  # fmt: skip
    assert found == {
        "linen_lstm": [("params/cell/", "flax-linen", "lstm")],
        "linen_gru": [("params/cell/", "flax-linen", "gru")],
        "linen_simple": [("params/cell/", "flax-linen", "simple")],
        "linen_model": [
            ("params/GRUCell_0/", "flax-linen", "gru"),
            ("params/OptimizedLSTMCell_0/", "flax-linen", "lstm"),
        ],
        "nnx_lstmcell": [("cell/", "flax-linen", "lstm")],
        "nnx_optimizedlstmcell": [("cell/", "flax-nnx", "lstm")],
        "nnx_grucell": [("cell/", "flax-nnx", "gru")],
        "nnx_simplecell": [("cell/", "flax-nnx", "simple")],
    }


def test_chunks_are_put_together() -> None:
    whole, cut = (read_arrays(FIXTURES / f"{n}.msgpack") for n in ("linen_lstm", "chunked"))
    assert whole.keys() == cut.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(cut[name], array, strict=True)


def test_a_checkpoint_keeps_its_numbers_and_half_precision_is_widened() -> None:
    found = read_arrays(FIXTURES / "checkpoint.msgpack")
    assert (found["step"], found["rate"]) == (7, 0.5)
    half, whole = found["ema/params/cell/ii/kernel"], found["params/cell/ii/kernel"]
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, whole, rtol=2**-8)  # bfloat16 has 8 bits
    assert not np.array_equal(half, whole)
    assert "none" not in found


def test_inspect_says_what_the_arrays_look_like() -> None:
    found = inspect(FIXTURES / "linen_model.msgpack")
    assert found.format == "MessagePack of Flax"
    assert {group.place: group.looks_like for group in found.groups} == {
        "params/GRUCell_0": "gru of flax-linen",
        "params/OptimizedLSTMCell_0": "lstm of flax-linen",
        "params/Dense_0": "Dense",
    }
    assert not found.runs
    assert found.parameters == sum(a.size for a in read_arrays(found.path).values())


# --- what is refused ---


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("complex", "has a complex number"),
        ("complex_array", "has an array of 'complex64', expected one of"),
        ("text", "'w' is a str, expected an array or a number"),
    ],
)
def test_what_is_no_real_number_is_refused(name: str, message: str) -> None:
    path = FIXTURES / f"refused_{name}.msgpack"
    with pytest.raises(FileError, match=message) as caught:
        read_arrays(path)
    assert str(caught.value).startswith(f"{path}: ")


def array(shape: bytes = b"\x91\x02", dtype: bytes = b"float32", raw: bytes = bytes(8)) -> bytes:
    body = b"\x93" + shape + bytes([0xA0 + len(dtype)]) + dtype + b"\xc4" + bytes([len(raw)]) + raw
    return b"\xc7" + bytes([len(body), 1]) + body


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut off"),
        (b"\xc1", "0xc1"),
        (b"\x80", "has no arrays"),
        (b"\x81\xa1w" + array() + b"\0", "after its value"),
        (b"\x81\xa1w" + array(raw=bytes(9)), "without the bytes"),
        (b"\x81\xa1w" + array(dtype=b"object"), "'object'"),
        (b"\x81\xa1w" + array(shape=b"\x91\xff"), "shape"),
        (b"\x82\xa1w" + array() + b"\xa1w" + array(), "twice"),
        (b"\x82\xa1w\x81\xa1v" + array() + b"\xa3w/v" + array(), "twice"),
        (b"\x81\x90" + array(), "has the key"),
        (b"\xdf" + struct.pack(">I", 2**32 - 1), "cut off"),
        (b"\xdd" + struct.pack(">I", 2**32 - 1) + bytes(100), "cut off"),
        (b"\xc6" + struct.pack(">I", 2**32 - 1), "cut off"),
        (b"\x91" * 100_000, "deep"),
        (b"\xdc\xff\xff" + b"\xdc\xff\xff" * 20 + b"\x00" * 2_000_000, "parts"),
        (b"\x81\xa1w\xd4\x05\x00", "extension 5"),
        (b"\x81\xa1w\xa1\xff", "UTF-8"),
    ],
)
def test_other_bytes_are_refused(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.msgpack"
    path.write_bytes(data)
    with pytest.raises(FileError, match=message):
        read_arrays(path)


@pytest.mark.parametrize("name", ["linen_model", "chunked", "checkpoint"])
def test_damage_is_a_file_error(name: str, tmp_path: Path) -> None:
    data, path, refused = (FIXTURES / f"{name}.msgpack").read_bytes(), tmp_path / "m.msgpack", 0
    for made in damaged(data, 300):
        path.write_bytes(made)
        try:
            list(groups(read_arrays(path)))
        except FileError:
            refused += 1
    assert refused > 50
