"""A state file continues bit for bit, and no crash, damage or wrong model goes unnoticed; and
`refrnn stream` answers line by line, whatever comes in.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_stream import MODELS, B, F, T, chain, inputs_of, piece, same

import refrnn
from refrnn import Stream, layers
from refrnn.cli import main
from refrnn.files import FileError
from refrnn.streams import files
from refrnn.streams.lines import BadLine, answer, parse

SUFFIXES = (".npz", ".h5")


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: make() for name, make in MODELS.items()}


@pytest.fixture
def stream() -> Stream:
    """Two sessions, the second four steps ahead, one with a name."""
    made = Stream(chain(layers.LSTM(5, name="first", return_sequences=True), layers.GRU(3)), 1)
    made.join("other")
    x = np.random.default_rng(0).normal(size=(2, 5, F))
    made.push(x)
    made.push(x[:1, :4], rows=[1])
    return made


# --- files ---


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_stream_goes_on_bit_for_bit(
    models: Any, name: str, suffix: str, tmp_path: Path
) -> None:
    """Of a new stream and of one in the middle, masked steps included; the model made anew."""
    model = models[name]
    x = inputs_of(model, B, T)
    path = tmp_path / f"state{suffix}"
    for seen in (0, 5):
        stream = Stream(model, B)
        if seen:
            stream.push(piece(x, slice(0, seen)))
        stream.save(path)
        loaded = Stream.load(path, MODELS[name]())
        same(list(loaded.state.values()), list(stream.state.values()))
        assert (loaded.rows, loaded.steps.tolist()) == (stream.rows, stream.steps.tolist())
        mask = np.arange(T - seen) > 1 if len(x) == 1 else None
        rest = piece(x, slice(seen, T))
        want = stream.push(rest, mask=mask if mask is None else np.tile(mask, (B, 1)))
        same(loaded.push(rest, mask=mask if mask is None else np.tile(mask, (B, 1))), want)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_names_and_steps_are_kept(stream: Stream, suffix: str, tmp_path: Path) -> None:
    stream.join("third")
    stream.leave(0)
    stream.save(tmp_path / f"s{suffix}")
    loaded = Stream.load(tmp_path / f"s{suffix}", stream.model)
    assert loaded.rows == [1, 2]
    assert loaded.names == {"other": 1, "third": 2}
    assert loaded.steps.tolist() == [9, 0]
    assert loaded.join() == 0


def test_the_arrays_have_the_names_of_the_tutorials(stream: Stream, tmp_path: Path) -> None:
    """Read by h5py and NumPy alone, and set by hand in another stream."""
    state = stream.state
    names = {"states_first_0": "h", "states_first_1": "c", "last_output_first": "last_output"}
    stream.save(tmp_path / "s.h5")
    stream.save(tmp_path / "s.npz")
    with h5py.File(tmp_path / "s.h5") as file, np.load(tmp_path / "s.npz") as arrays:
        for name, part in names.items():
            same(file[name][()], state["first"][part])
            same(arrays[name], state["first"][part])
        other = Stream(stream.model, rows=2)
        gru = next(layer for layer in state if layer != "first")
        by_hand = {
            "first": {part: file[name][()] for name, part in names.items()},
            gru: {"h": file[f"states_{gru}_0"][()]},
        }
    other.set_state(by_hand)
    x = np.ones((2, 3, F))
    same(other.push(x), stream.push(x))


def test_bidirectional_by_chunks_is_in_the_file(tmp_path: Path) -> None:
    model = chain(layers.Bidirectional(layers.GRU(3, return_sequences=True)))
    x = np.ones((1, 3, F))
    stream = Stream(model, bidirectional="chunk")
    stream.push(x)
    stream.save(tmp_path / "s.npz")
    same(Stream.load(tmp_path / "s.npz", model).push(x), stream.push(x))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_state_of_another_model_is_refused(stream: Stream, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"s{suffix}"
    stream.save(path)
    first, second = stream.model.layers
    weights = stream.model.get_weights()
    weights[0][0, 0] = np.nextafter(weights[0][0, 0], 9, dtype=np.float32)  # one bit
    near = chain(layers.LSTM(5, return_sequences=True), layers.GRU(3))
    near.set_weights(weights)
    others = [
        near,
        chain(layers.LSTM(5, return_sequences=True), layers.GRU(3, reset_after=False)),
        chain(layers.LSTM(5)),
        first,
        second,
    ]
    for other in others:
        with pytest.raises(FileError, match=r"s\..*is the state of model .*the weights are others"):
            Stream.load(path, other)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damage_is_never_loaded(stream: Stream, suffix: str, tmp_path: Path) -> None:
    """Each byte changed, and the file cut off everywhere: refused, or nothing that counts."""
    path = tmp_path / f"s{suffix}"
    stream.save(path)
    whole = path.read_bytes()
    want = stream.snapshot()
    rng = np.random.default_rng(0)
    cut = [whole[:k] for k in range(0, len(whole), 101)]
    flipped = []
    for k in rng.permutation(len(whole))[:1500]:
        changed = bytearray(whole)
        changed[k] ^= int(rng.integers(1, 256))
        flipped.append(bytes(changed))
    loaded = []
    for data in [*cut, *flipped]:
        path.write_bytes(data)
        loaded.append(loaded_or_none(path, stream.model))
    for found in loaded:
        if found is not None:
            assert (found.rows, found.names) == (want.rows, want.names)
            same([found.steps, found.fresh], [want.steps, want.fresh])
            same(list(found.state.values()), list(want.state.values()))
    assert loaded[: len(cut)] == [None] * len(cut)
    # HDF5 has thousands of bytes that mean nothing; in .npz nearly all do
    assert loaded.count(None) - len(cut) > {".npz": 1000, ".h5": 200}[suffix]


def loaded_or_none(path: Path, model: Any) -> Any:
    """The snapshot in a file; None where it is refused by name."""
    try:
        return Stream.load(path, model).snapshot()
    except FileError as error:
        if not str(error).startswith(str(path)):
            raise
        return None


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """The header of a .npz file changed by someone who also mends the checksum."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    header = json.loads(members[files.HEADER])
    arrays = {n: files._npy(d) for n, d in members.items() if n != files.HEADER}
    named = {key: arrays[f"{key}.npy"] for _, _, key in files._keys(header["layout"])}
    change(header)
    header["checksum"] = files._checksum(header, named)
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, json.dumps(header) if name == files.HEADER else data)


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.update(rows=[1, 0]),
        lambda h: h.update(rows=[0, 0]),
        lambda h: h.update(rows=[0, -1]),
        lambda h: h.update(rows=[0, 1, 2]),
        lambda h: h.update(rows=[0, 10**17]),
        lambda h: h.update(steps=[5]),
        lambda h: h.update(steps=[5, "9"]),
        lambda h: h.update(fresh=[0, 1]),
        lambda h: h.update(names={"other": 7}),
        lambda h: h.update(names={"a": 1, "b": 1}),
        lambda h: h.update(names={"a": [1]}),
        lambda h: h.update(layout={}),
        lambda h: h.update(layout={"first": {"h": "float32"}}),
        lambda h: h.update(layout={"first": 3}),
        lambda h: h.update(bidirectional="both"),
        lambda h: h.update(format="refrnn stream 2"),
        lambda h: h.pop("steps"),
    ],
)
def test_a_header_that_lies_is_refused(stream: Stream, tmp_path: Path, change: Any) -> None:
    path = tmp_path / "s.npz"
    stream.save(path)
    rewritten(path, lambda h: None)
    Stream.load(path, stream.model)  # the rewriting itself is no damage
    rewritten(path, change)
    with pytest.raises(ValueError, match=r"s\.npz|Stream"):
        Stream.load(path, stream.model)


def test_what_is_no_state_file_is_refused(stream: Stream, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "own.h5", "w") as file:
        file["states_first_0"] = np.zeros((2, 5))
    np.savez(tmp_path / "own.npz", states_first_0=np.zeros((2, 5)))
    np.savez_compressed(tmp_path / "packed.npz", states_first_0=np.zeros((2, 5)))
    (tmp_path / "text.npz").write_text("h,c\n1,2\n")
    for name in ("own.h5", "own.npz", "packed.npz", "text.npz"):
        with pytest.raises(FileError, match=name):
            Stream.load(tmp_path / name, stream.model)
    with pytest.raises(FileError, match="expected a file"):
        Stream.load(tmp_path, stream.model)
    with pytest.raises(FileNotFoundError):
        Stream.load(tmp_path / "none.npz", stream.model)
    with pytest.raises(ValueError, match=r"suffix '.txt', expected .npz or .h5"):
        stream.save(tmp_path / "s.txt")
    assert not (tmp_path / "s.txt").exists()


# --- crashes ---

KILLED = """
import os, random, signal, sys, time
import numpy as np
import refrnn
from refrnn import Stream, layers

path, times, folder = sys.argv[1], int(sys.argv[2]), os.path.dirname(sys.argv[1])
rng = np.random.default_rng(0)
model = refrnn.Sequential([layers.Input((None, 2)), layers.LSTM(40), layers.Dense(2)])
model.set_weights([rng.normal(0, 0.3, w.shape) for w in model.get_weights()])
x = rng.normal(size=(5000, 3, 2)).astype(np.float32)
stream = Stream(model, 3)
for t in range(7):
    stream.step(x[t])
stream.save(path)
random.seed(1)
last, moved = 7, 0
for _ in range(times):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        stream = Stream.load(path, model)
        os.write(writer, b"!")
        for t in range(int(stream.steps[0]), len(x)):
            stream.step(x[t])
            stream.save(path)
        os._exit(1)
    os.read(reader, 1)
    time.sleep(random.random() * 0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader), os.close(writer)
    found = Stream.load(path, model)
    steps = int(found.steps[0])
    assert (found.steps == steps).all() and steps >= last, (found.steps, last)
    plain = Stream(model, 3)
    for t in range(steps):
        plain.step(x[t])
    for layer, parts in plain.state.items():
        for name, part in parts.items():
            assert found.state[layer][name].tobytes() == part.tobytes(), (steps, name)
    moved += steps > last
    last = steps
left = len([name for name in os.listdir(folder) if name.startswith(".")])
print(times, moved, left)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork makes 200 processes quick to start")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_kill_at_any_moment_leaves_the_old_or_the_new_state(tmp_path: Path, suffix: str) -> None:
    """200 processes killed by SIGKILL while they save after each step: what is there is whole."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / f"s{suffix}"), "200"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    times, moved, left = map(int, done.stdout.split())
    assert times == 200
    assert moved > 10  # it was saved between kills, however busy the machine is
    assert left > 0  # and some came while a file was half written


def test_a_save_that_fails_leaves_the_old_file(
    stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.npz"
    stream.save(path)
    before = path.read_bytes()
    stream.step(np.ones((2, F)))
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        stream.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["s.npz"]


# --- refrnn stream ---


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, np.ndarray]:
    """A model file, the model, and inputs (steps, F)."""
    model = chain(layers.LSTM(5, return_sequences=True), layers.Dense(2))
    path = tmp_path_factory.mktemp("model") / "m.keras"
    model.save(path)
    x = np.random.default_rng(0).normal(size=(20, F)).astype(np.float32)
    return path, refrnn.load_model(path), x


def serve(model: Path, lines: list[str], *arguments: str) -> tuple[int, list[str], str]:
    done = subprocess.run(
        [sys.executable, "-m", "refrnn", "stream", str(model), *arguments],
        input="".join(f"{line}\n" for line in lines), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout.splitlines(), done.stderr


def numbers(line: str) -> list[float]:
    return [np.float32(word) for word in line.strip("[]").replace(",", " ").split()]


@pytest.mark.parametrize(
    "form",
    [
        lambda row: ",".join(map(str, row)),
        lambda row: "  ".join(map(str, row)),
        lambda row: json.dumps([float(v) for v in row]),
    ],
    ids=["csv", "spaces", "json"],
)
def test_each_line_is_answered_in_its_own_form(served: Any, form: Any) -> None:
    path, model, x = served
    status, lines, errors = serve(path, [form(row) for row in x])
    assert (status, errors) == (0, "")
    same(np.array([numbers(line) for line in lines], np.float32), model(x[None])[0])
    assert ("," in form(x[0])) == ("," in lines[0])


def test_an_answer_comes_before_the_next_line_is_sent(served: Any) -> None:
    path, model, x = served
    command = [sys.executable, "-m", "refrnn", "stream", str(path)]
    want = model(x[None])[0]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=buffered) as process:
        hung = threading.Timer(30, process.kill)
        hung.start()
        for row, y in zip(x[:5], want, strict=False):
            process.stdin.write(f"{','.join(map(str, row))}\n")
            process.stdin.flush()
            same(np.array(numbers(process.stdout.readline()), np.float32), y)
        process.stdin.close()
        assert process.wait(30) == 0
        hung.cancel()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_state_file_goes_from_run_to_run(served: Any, suffix: str, tmp_path: Path) -> None:
    path, model, x = served
    state = str(tmp_path / f"s{suffix}")
    rows = [",".join(map(str, row)) for row in x]
    got = []
    for a, b in ((0, 7), (7, 7), (7, 20)):
        status, lines, errors = serve(path, rows[a:b], "--state", state)
        assert (status, errors) == (0, "")
        got += lines
    same(np.array([numbers(line) for line in got], np.float32), model(x[None])[0])


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_what_was_answered(served: Any, kind: Any, tmp_path: Path) -> None:
    path, model, x = served
    state = tmp_path / "s.npz"
    command = [sys.executable, "-m", "refrnn", "stream", str(path), "--state", str(state)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as process:
        for row in x[:6]:
            process.stdin.write(f"{','.join(map(str, row))}\n")
        process.stdin.flush()
        for _ in range(6):
            process.stdout.readline()
        process.send_signal(kind)
        assert process.wait(30) == 0
    stream = Stream.load(state, model)
    assert stream.steps.tolist() == [6]
    same(stream.push(x[None, 6:]), model(x[None])[:, 6:])


def test_the_state_is_saved_every_n_lines(served: Any, tmp_path: Path) -> None:
    path, model, x = served
    state = tmp_path / "s.npz"
    command = [sys.executable, "-m", "refrnn", "stream", str(path), "--state", str(state)]
    with subprocess.Popen([*command, "--every", "4"], stdin=-1, stdout=-1, text=True) as process:
        for row in x[:10]:
            process.stdin.write(f"{','.join(map(str, row))}\n")
        process.stdin.flush()
        for _ in range(10):
            process.stdout.readline()
        process.kill()
        process.wait(30)
    assert Stream.load(state, model).steps.tolist() == [8]


BAD = ["1,2,x,4", "1,2,3", "1 2 3 nan", "[1, 2, 3", '{"a": 1}', "[1, 2, 3, [4]]", "[1,2,3,null]",
       "1e999,0,0,0", "true", "[1, 2, 3, true]", '["1", "2", "3", "z"]']  # fmt: skip


def test_a_bad_line_touches_no_state(served: Any, tmp_path: Path) -> None:
    path, model, x = served
    good = [",".join(map(str, row)) for row in x]
    mixed = [line for pair in zip(good, [*BAD, *[""] * 9], strict=True) for line in pair]
    status, lines, errors = serve(path, mixed, "--on-error", "skip")
    assert status == 0
    same(np.array([numbers(line) for line in lines], np.float32), model(x[None])[0])
    for k, bad in enumerate(BAD):
        assert f"refrnn: line {2 * k + 2}: " in errors, bad
    assert f"{len(BAD)} of 40 lines skipped" in errors
    state = tmp_path / "s.npz"
    status, lines, errors = serve(path, mixed, "--state", str(state))
    assert (status, len(lines)) == (2, 1)
    assert errors == "refrnn: line 2: has 'x', expected a finite number\n"
    assert Stream.load(state, model).steps.tolist() == [1]


def test_bytes_that_are_no_text_are_a_bad_line(served: Any) -> None:
    path, _, _ = served
    done = subprocess.run(
        [sys.executable, "-m", "refrnn", "stream", str(path), "--on-error", "skip"],
        input=b"\xff\xfe\n1 2 3 4\n", capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0
    assert b"line 1: is not text in UTF-8" in done.stderr
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("form", ["csv", "spaces", "json", "object"])
def test_sessions_are_told_apart_by_key(served: Any, form: str, tmp_path: Path) -> None:
    """Three sessions, interleaved, over two runs with a state file."""
    path, model, _ = served
    rng = np.random.default_rng(1)
    x = {key: rng.normal(size=(8, F)).astype(np.float32) for key in ("ann", "bob", "cy")}
    order = list(rng.permutation([key for key in x for _ in range(8)]))
    at = dict.fromkeys(x, 0)
    lines = []
    for key in order:
        row = [float(v) for v in x[key][at[key]]]
        at[key] += 1
        texts = {
            "csv": ",".join([key, *map(str, row)]),
            "spaces": " ".join([key, *map(str, row)]),
            "json": json.dumps([key, *row]),
            "object": json.dumps({"who": key, "x": row}),
        }
        lines.append(texts[form])
    arguments = ["--key", "who" if form == "object" else "0", "--state", str(tmp_path / "s.npz")]
    got: dict[str, list[Any]] = {key: [] for key in x}
    told = []
    for part in (lines[:9], lines[9:]):
        status, answers, errors = serve(path, part, *arguments)
        assert (status, errors) == (0, "")
        told += answers
    for line in told:
        if form == "object":
            found = json.loads(line)
            key, y = found["who"], found["y"]
        elif form == "json":
            key, *y = json.loads(line)
        else:
            key, *y = line.replace(",", " ").split()
        got[key].append(np.array(y, np.float32))
    for key, rows in got.items():
        same(np.stack(rows), model(x[key][None])[0])
    status, _, errors = serve(path, [], "--state", str(tmp_path / "s.npz"))
    assert (status, "is the state of sessions by key" in errors) == (2, True)


def test_a_bad_first_line_of_a_session_leaves_no_row(served: Any, tmp_path: Path) -> None:
    path, model, _ = served
    state = tmp_path / "s.npz"
    lines = ["ann,1,2,3", "bob,1,2,3,4", ",", "cy"]
    status, told, errors = serve(
        path, lines, "--key", "0", "--state", str(state), "--on-error", "skip"
    )
    assert (status, len(told)) == (0, 1)
    assert "line 1: has 3 numbers, expected 4" in errors
    assert Stream.load(state, model).names == {"bob": 0}


def test_a_first_line_that_the_model_refuses_leaves_no_row(tmp_path: Path) -> None:
    """An id that the embedding does not have: found out after the session has joined."""
    model = chain(layers.Embedding(4, 3), layers.GRU(2), shape=(None,), dtype="int32")
    model.save(tmp_path / "m.keras")
    state = tmp_path / "s.npz"
    status, told, errors = serve(
        tmp_path / "m.keras", ["ann 9", "bob 3"], "--key", "0", "--state", str(state),
        "--on-error", "skip",
    )  # fmt: skip
    assert (status, len(told)) == (0, 1)
    assert "line 1: Embedding" in errors
    assert Stream.load(state, model).names == {"bob": 0}


def test_what_cannot_be_served_is_refused(
    served: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _, _ = served
    both = chain(layers.Bidirectional(layers.GRU(2)))
    both.save(tmp_path / "both.keras")
    two = chain(layers.GRU(2, return_state=True))
    two.save(tmp_path / "two.keras")
    other = chain(layers.LSTM(5, return_sequences=True), layers.Dense(1))
    Stream(other).save(tmp_path / "other.npz")
    before = (tmp_path / "other.npz").read_bytes()
    for arguments, why in (
        (["none.keras"], "none.keras: no such file"),
        ([str(tmp_path / "both.keras")], "cannot be streamed: Bidirectional"),
        ([str(tmp_path / "two.keras")], "has 1 inputs and 2 outputs"),
        ([str(path), "--state", "s.txt"], "expected a file ending in .npz or .h5"),
        ([str(path), "--state", str(tmp_path / "other.npz")], "is the state of model"),
        ([str(path), "--state", "nowhere/s.npz"], "no such folder nowhere"),
        ([str(path), "--every", "-1"], "--every -1: expected"),
    ):
        assert main(["stream", *arguments]) == 2
        assert why in capsys.readouterr().err
    assert (tmp_path / "other.npz").read_bytes() == before


def test_ids_are_served(tmp_path: Path) -> None:
    model = chain(
        layers.Embedding(4, 3, mask_zero=True), layers.GRU(2), shape=(None,), dtype="int32"
    )
    model.save(tmp_path / "m.keras")
    ids = [1, 3, 0, 2]
    status, lines, errors = serve(tmp_path / "m.keras", list(map(str, ids)))
    assert (status, errors) == (0, "")
    want = [model(np.array([ids[: k + 1]]))[0] for k in range(4)]
    same(np.array([numbers(line) for line in lines], np.float32), np.stack(want))


@given(line=st.binary(max_size=40))
def test_no_line_is_more_than_a_bad_one(line: bytes) -> None:
    for key in (None, "0", "7", "name"):
        with suppress(BadLine):
            found = parse(line, None, key)
            if found is not None:
                assert "\n" not in answer(found, np.ones(2, np.float32), key)
