"""Arrays in .npz, safetensors and PyTorch's state dicts are read bit for bit, and nothing is run.

A hostile file makes a FileError that names it, whatever its pickle would have done.
"""

import contextlib
import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refrnn
from refrnn import layers, layouts
from refrnn.files import FileError, load_weights, read_arrays, save_weights, write_arrays

TORCH = Path(__file__).parent / "fixtures" / "torch"
CELLS = {"lstm": "lstm", "gru": "gru", "rnn": "simple"}
ODD = {
    "transposed": np.arange(12, dtype=np.float32).reshape(3, 4).T,
    "bfloat16": np.array([1.5, -2.0, 3.140625], np.float32),
    "inside": np.arange(2, 5),
    "parameter": np.array([0.25, 8.0], np.float32),
    "scalar": np.array(3.0),
    "empty": np.zeros((0, 3), np.float32),
}


def assert_same(got: dict[str, Any], want: dict[str, Any]) -> None:
    assert list(got) == list(want)
    for name, array in want.items():
        found = got[name]
        assert (found.dtype, found.shape) == (array.dtype, array.shape), name
        assert found.tobytes() == np.ascontiguousarray(array).tobytes(), name
        assert found.flags.writeable


# --- the numbers ---


@pytest.mark.parametrize("name", CELLS)
def test_a_state_dict_runs_as_pytorch_ran_it(name: str) -> None:
    recorded = np.load(TORCH / f"{name}.npz")
    arrays = read_arrays(TORCH / f"{name}.pt")
    y, _ = layouts.run(arrays, recorded["x"], cell=CELLS[name], source="torch")
    # float32: two libraries that sum 4 terms in another order, outputs below 1
    np.testing.assert_allclose(y, recorded["y"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["odd.pt", "odd_protocol4.pt"])
def test_views_and_every_kind_of_number_are_read(name: str) -> None:
    assert_same(read_arrays(TORCH / name), ODD)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_what_is_written_is_read_bit_for_bit(suffix: str, tmp_path: Path) -> None:
    kinds = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]
    arrays = {f"a/{kind}": np.arange(6).reshape(2, 3).astype(kind) for kind in kinds}
    arrays |= {
        "nan": np.array([np.nan, -0.0, np.inf], np.float32),
        "big endian": np.arange(3, dtype=">f4"),
        "by columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "file": np.array(7),
        "none": np.zeros((2, 0), np.float32),
    }
    write_arrays(arrays, tmp_path / f"w{suffix}")
    got = read_arrays(tmp_path / f"w{suffix}")
    want = {n: a.astype(a.dtype.newbyteorder("=")) for n, a in arrays.items()}
    assert_same({n: got[n] for n in want}, want)
    assert len(got) == len(want)


def test_bfloat16_is_written_as_it_is_and_read_as_float32(tmp_path: Path) -> None:
    dtypes = pytest.importorskip("ml_dtypes")
    array = np.array([1.5, -2.0, 3.140625]).astype(dtypes.bfloat16)
    write_arrays({"a": array}, tmp_path / "w.safetensors")
    assert b'"BF16"' in (tmp_path / "w.safetensors").read_bytes()
    assert_same(read_arrays(tmp_path / "w.safetensors"), {"a": array.astype(np.float32)})
    with pytest.raises(TypeError, match="a is bfloat16"):
        write_arrays({"a": array}, tmp_path / "w.npz")


def test_numpy_reads_the_npz_and_its_own_is_read(tmp_path: Path) -> None:
    arrays = {"a": np.arange(3.0), "b": np.array(True)}
    write_arrays(arrays, tmp_path / "ours.npz")
    with np.load(tmp_path / "ours.npz", allow_pickle=False) as theirs:
        assert_same({name: theirs[name] for name in theirs}, arrays)
    np.savez_compressed(tmp_path / "theirs.npz", **arrays)
    assert_same(read_arrays(tmp_path / "theirs.npz"), arrays)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_models_weights_go_there_and_back(suffix: str, tmp_path: Path) -> None:
    def made() -> refrnn.Model:
        both = layers.Bidirectional(layers.GRU(4), name="both")
        return refrnn.Sequential([layers.Input((None, 3)), both, layers.Dense(2, name="end")])

    one, other = made(), made()
    path = tmp_path / f"w{suffix}"
    one.save_weights(path)
    other.load_weights(path)
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()
    arrays = read_arrays(path)
    first, *_, last = arrays
    before = other.get_weights()
    write_arrays({n: a for n, a in arrays.items() if n != last} | {"extra": arrays[last]}, path)
    with pytest.raises(FileError, match="extra"):
        load_weights(other, path)
    write_arrays(arrays | {first: arrays[first] * 0 + 1, last: np.zeros(9, np.float32)}, path)
    with pytest.raises(FileError, match="shape"):
        load_weights(other, path)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(before, other.get_weights(), strict=True))


def test_another_suffix_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected \.npz or \.safetensors"):
        write_arrays({"a": np.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="safetensors"):
        save_weights(refrnn.Sequential([layers.Input((2,)), layers.Dense(1)]), tmp_path / "w.pt")
    with pytest.raises(TypeError, match="a is complex128"):
        write_arrays({"a": np.zeros(1, complex)}, tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


# --- pickles ---


def archived(data: bytes, storages: dict[str, bytes] | None = None, **more: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("m/data.pkl", data)
        for key, raw in (storages or {}).items():
            archive.writestr(f"m/data/{key}", raw)
        for key, raw in more.items():
            archive.writestr(f"m/{key}", raw)
    return stream.getvalue()


def refusal(data: bytes, tmp_path: Path, name: str = "w.pt") -> str:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(FileError) as caught:
        read_arrays(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 2000
    return str(caught.value)


class Runs:
    """A pickle that touches a file when it is run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_no_pickle_is_run(protocol: int, tmp_path: Path) -> None:
    target = tmp_path / "it_ran"
    data = pickle.dumps({"w": Runs(target)}, protocol=protocol)
    said = refusal(archived(data), tmp_path)
    assert "could run code" in said
    assert not target.exists()
    pickle.loads(data)  # it would have
    assert target.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"cos\nsystem\n.", "os.system"),
        (b"\x80\x02cbuiltins\neval\n.", "builtins.eval"),
        (b"\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"c__builtin__\ngetattr\n.", "getattr"),
        (b"ctorch._utils\n_rebuild_tensor\n.", "_rebuild_tensor"),
        (b"(ios\nsystem\n.", "INST"),
        (b"(cos\nsystem\no.", "os.system"),
        (b")\x81.", "NEWOBJ"),
        (b"\x92.", "NEWOBJ_EX"),
        (b"P1\n.", "PERSID"),
        (b"I1\n.", "INT"),
        (b"\x82\x01.", "EXT1"),
        (b"\x8f.", "EMPTY_SET"),
        (b"\xff.", "0xff"),
        (b"", "ends at byte 0"),
        (b"}", "ends at byte 1"),
        (b".", "pop from empty list"),
        (b"a.", "more from its stack"),
        (b"u.", "no mark"),
        (b"h\x07.", "7"),
        (b"X\xff\xff\xff\xff.", "more"),
        (b"X\x01\x00\x00\x00\xff.", "utf-8"),
        (b"]K\x01a.", "holds a list"),
        (b"}]K\x01s.", "list as a key"),
        (b"}K\x01K\x02s.", "entry 1 is a int"),
        (b"}(X\x01\x00\x00\x00aNX\x01\x00\x00\x00aNu.", "twice"),
        (b"}K\x01a.", "expected a list"),
        (b"K\x01K\x02K\x03s.", "expected a dictionary"),
        (b"NQ.", "expected a storage"),
        (b"N)R.", "calls 'NoneType'"),
        (b"ctorch\nFloatStorage\n)R.", "calls 'torch.FloatStorage'"),
        (b"ccollections\nOrderedDict\n(K\x01tR.", "calls"),
        (b"ccollections\nOrderedDict\n)R}X\x01\x00\x00\x00aK\x01sb.", "attributes"),
        (b"K\x01}b.", "attributes of a int"),
        (b"ctorch._utils\n_rebuild_parameter\n(K\x01tR.", "calls"),
        (b"ctorch._utils\n_rebuild_parameter\n)R.", "range"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "not dense"),
    ],
)
def test_an_instruction_that_is_not_of_tensors_is_refused(
    data: bytes, message: str, tmp_path: Path
) -> None:
    said = refusal(archived(data), tmp_path)
    assert message in said


def tensor(offset: Any = 0, size: Any = (2,), stride: Any = (1,), count: Any = 2) -> bytes:
    """A state dict of one tensor, of a storage "0" of `count` numbers, as instructions."""

    def number(value: Any) -> bytes:
        if isinstance(value, tuple):
            return b"(" + b"".join(map(number, value)) + b"t"
        if isinstance(value, str):
            return b"X" + struct.pack("<I", len(value)) + value.encode()
        if isinstance(value, bool) or value is None:
            return {True: b"\x88", False: b"\x89", None: b"N"}[value]
        raw = value.to_bytes(9, "little", signed=True)
        return b"\x8a\x09" + raw

    storage = b"(" + number("storage") + b"ctorch\nFloatStorage\n" + number("0") + number("cpu")
    view = storage + number(count) + b"tQ" + number(offset) + number(size) + number(stride)
    made = b"ctorch._utils\n_rebuild_tensor_v2\n(" + view + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}" + number("w") + made + b"s."


def test_a_tensor_made_by_hand_is_read(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(archived(tensor(), {"0": np.arange(2, dtype="<f4").tobytes()}))
    assert_same(read_arrays(tmp_path / "w.pt"), {"w": np.arange(2, dtype=np.float32)})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"size": (3,)}, "expected it inside"),
        ({"offset": 1}, "expected it inside"),
        ({"stride": (2,)}, "expected it inside"),
        ({"offset": -1}, "not dense"),
        ({"size": (-1,)}, "not dense"),
        ({"stride": (-1,)}, "not dense"),
        ({"stride": (2**62,)}, "expected it inside"),
        ({"size": (2**40,), "stride": (0,)}, "each number there once"),
        ({"size": (2, 2), "stride": (1,)}, "zip"),
        ({"size": None}, "not dense"),
        ({"size": 2}, "not dense"),
        ({"count": 3}, "storage '0' of 3 numbers"),
        ({"count": None}, "storage '0' of None"),
        ({"count": 2**60}, "storage '0'"),
    ],
)
def test_a_view_that_leaves_its_storage_is_refused(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    raw = np.arange(2, dtype="<f4").tobytes()
    assert message in refusal(archived(tensor(**changed), {"0": raw}), tmp_path)


def test_a_storage_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "storage '0'" in refusal(archived(tensor()), tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("module.pt", "torch.nn.modules.linear.Linear"),
        ("checkpoint.pt", "entry 'model' is a dictionary, which may be it"),
        ("old.pt", "since 1.6"),
        ("script.pt", "TorchScript"),
    ],
)
def test_what_is_no_state_dict_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(FileError, match=message):
        read_arrays(TORCH / name)


# --- safetensors and .npz ---


def packed(header: Any, data: bytes = b"\0" * 8) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(**changed: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changed}


def test_a_file_made_by_hand_is_read(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(
        packed({"__metadata__": {"format": "pt"}, "w": entry()})
    )
    assert_same(read_arrays(tmp_path / "w.safetensors"), {"w": np.zeros(2, np.float32)})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "length of a header"),
        (b"\0" * 8, "length of a header"),
        (struct.pack("<Q", 2**63) + b"{}", "length of a header"),
        (packed(b"[]"), "expected an object"),
        (packed(b"{]"), "JSON"),
        (packed(b'{"w": 1, "w": 2}'), "twice"),
        (packed({"w": 1}), "expected dtype, shape"),
        (packed({"w": {**entry(), "more": 1}}), "expected dtype, shape"),
        (packed({"w": entry(dtype="F8_E4M3")}), "F8_E4M3"),
        (packed({"w": entry(dtype=[])}), "has dtype []"),
        (packed({"w": entry(shape=[-2])}), "whole numbers"),
        (packed({"w": entry(shape=[True, 2])}), "whole numbers"),
        (packed({"w": entry(shape="2")}), "whole numbers"),
        (packed({"w": entry(shape=[3])}), "expected 12 bytes"),
        (packed({"w": entry(shape=[2**61, 2])}), "of the 8 that there are"),
        (packed({"w": entry(data_offsets=[0, 16], shape=[4])}), "of the 8 that there are"),
        (packed({"w": entry(data_offsets=[8, 0])}), "in bytes 8 to 0"),
        (packed({"w": entry(data_offsets=[0])}), "whole numbers"),
        (packed({"a": entry(), "b": entry()}), "no overlap"),
        (packed({"w": entry(shape=[1], data_offsets=[4, 8])}), "no gap"),
        (packed({"w": entry(shape=[1], data_offsets=[0, 4])}), "8 bytes of arrays, expected 4"),
        (packed({"w": entry()}, b"\0" * 7), "of the 7 that there are"),
    ],
)
def test_a_damaged_safetensors_file_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    assert message in refusal(data, tmp_path, "w.safetensors")


def zipped(*members: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


def npy(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (zipped(("readme.txt", b"hello")), "is no array"),
        (zipped(("w.npy", b"")), "'w.npy'"),
        (zipped(("w.npy", npy(np.zeros(3))[:-1])), "has 23 bytes"),
        (zipped(("w.npy", npy(np.zeros(3)) + b"\0")), "has 25 bytes"),
        (zipped(("w.npy", npy(np.array([None]), allow_pickle=True))), "objects are pickles"),
        (zipped(("w.npy", npy(np.array(["a"])))), "has dtype <U1"),
        (zipped(("w.npy", npy(np.zeros(3), version=(3, 0)))), "version (3, 0)"),
        (zipped(("w.npy", npy(np.zeros(3)).replace(b"(3,)", b"(-3,)"))), "'w.npy'"),
        (zipped(("w.npy", npy(np.zeros(3)).replace(b"<f8", b"<f0"))), "'w.npy'"),
    ],
)
def test_a_damaged_npz_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    assert message in refusal(data, tmp_path, "w.npz")


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors", "lstm.pt"])
def test_every_cut_and_changed_byte_is_refused_or_read(name: str, tmp_path: Path) -> None:
    """No other exception, and no hang, whatever byte is another."""
    path = tmp_path / name
    if name.endswith(".pt"):
        path.write_bytes((TORCH / name).read_bytes())
    else:
        write_arrays({"a": np.arange(6.0).reshape(2, 3), "b": np.arange(2)}, path)
    whole = path.read_bytes()
    draw = np.random.default_rng(0)
    for _ in range(300):
        place = int(draw.integers(len(whole)))
        changed = bytearray(whole)
        changed[place] = int(draw.integers(256))
        for data in (bytes(changed), whole[:place]):
            path.write_bytes(data)
            with contextlib.suppress(FileError):
                read_arrays(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lstm.msgpack", "holds weights alone, which do not tell the layers"),
        ("lstm.npz", "holds weights alone, which do not tell the layers"),
        ("model.py", r"begins with b'# refrnn', expected a model of \.keras"),
    ],
)
def test_a_file_that_holds_no_model_is_told_apart(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"# refrnn, or what else there is")
    with pytest.raises(FileError, match=message):
        refrnn.load_model(tmp_path / name)
