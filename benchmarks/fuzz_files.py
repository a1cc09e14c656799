"""Do the readers survive damaged and hostile files? Mutates good ones and counts what happens.

    python benchmarks/fuzz_files.py [--count 50000] [--seed 0] [--only]

A file is loaded or refused with a FileError. Anything else is a failure: another exception, a
crash of the process, more than 2 seconds, more than 1 GiB. Files are loaded in a process of their
own, so that a crash ends neither the count nor the report. The same seed makes the same files.
"""

import argparse
import collections
import io
import json
import multiprocessing
import random
import resource
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from refrnn.files import FileError, load_model, read_arrays

FIXTURES = Path(__file__).parents[1] / "parity_tests" / "fixtures"
SLOW, HANG = 2.0, 20.0  # seconds a file
MEMORY = 1 << 30  # bytes
FOLDERS = ("onnx", "tflite", "openvino", "flax")
GRAPHS = (".onnx", ".tflite", ".xml", ".msgpack")  # of which bytes are changed alone
BATCH = 5000  # files a process

HOSTILE: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 4, 7, 2**31, 2**62, -(2**40), 10**30, 0.5, -1.5, 1e308,
    float("nan"), float("inf"), "", "x", "lstm", "float64", "float16", "object", "O,O", "(2,3)f4",
    "hard_sigmoid", "softmax", "glu", "threshold", "ave", [], {}, [None], [[]], ["lstm", 0, 0],
    ["lstm", 0, 9], ["x", 0, 0], [["x", 0, 0]], "a" * 100_000, list(range(1000)), "../../x", "\0",
    "\ud800", {"class_name": "__lambda__", "config": {"value": "AAAA"}},
    {"class_name": "Lambda", "config": {}}, {"class_name": "LSTM", "config": {"units": 10**9}},
    {"class_name": ["LSTM"], "config": []}, {"module": "os", "class_name": "system", "config": "x"},
    {"class_name": "DTypePolicy", "config": {"name": "mixed_float16"}},
    {"class_name": "__tensor__", "config": {"value": [1, [2]], "dtype": "float32"}},
    {"class_name": "__keras_tensor__", "config": {"keras_history": ["lstm", 5, 5]}},
]  # fmt: skip
WORDS = [0, 1, 255, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, 8, 24, 96, 1024]


# --- mutations of bytes ---


def flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16, 64))):
        data[rng.randrange(len(data))] = rng.randrange(256)


def bit(rng: random.Random, data: bytearray) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def word(rng: random.Random, data: bytearray) -> None:
    """A number of 2, 4 or 8 bytes where sizes and addresses are: at a multiple of its length."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        size = rng.choice((2, 4, 8))
        value = rng.choice([*WORDS, rng.randrange(len(data)), rng.randrange(len(data))])
        at = rng.randrange(len(data) // size) * size
        data[at : at + size] = (value % 256**size).to_bytes(size, "little")


def cut(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def splice(rng: random.Random, data: bytearray) -> None:
    """A block over another one."""
    size = rng.choice((1, 8, 40, 328, 544, 2000))
    source, target = rng.randrange(len(data)), rng.randrange(len(data))
    block = data[source : source + size]
    data[target : target + len(block)] = block


def erase(rng: random.Random, data: bytearray) -> None:
    start, size = rng.randrange(len(data)), rng.choice((1, 8, 64, 512, 4096))
    data[start : start + size] = bytes([rng.choice((0, 255))]) * len(data[start : start + size])


def insert(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data))
    data[at:at] = rng.randbytes(rng.choice((1, 8, 100)))


BYTES: list[Callable[[random.Random, bytearray], None]] = [
    flip, bit, bit, word, word, cut, splice, erase, insert,
]  # fmt: skip


# --- mutations of configs and trees ---


def places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every (container, key) of a structure."""
    for key in value if isinstance(value, dict) else range(len(value)):
        found.append((value, key))
        if isinstance(value[key], dict | list):
            places(value[key], found)
    return found


def edit(rng: random.Random, text: str) -> str:
    """A JSON text with a few values exchanged, removed, doubled or wrapped."""
    config = json.loads(text)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        spots = places(config, [])
        if not spots:
            break
        container, key = rng.choice(spots)
        other, other_key = rng.choice(spots)
        action = rng.randrange(8)
        if action < 4:
            container[key] = json.loads(json.dumps(rng.choice(HOSTILE)))
        elif action == 4:
            del container[key]
        elif action == 5:
            container[key] = json.loads(json.dumps(other[other_key]))
        elif action == 6 and isinstance(container, list):
            container.insert(rng.randrange(len(container) + 1), container[key])
        elif action == 6:
            container[rng.choice(("time_major", "engine", "dtype", "name", "x"))] = other[other_key]
        elif rng.random() < 0.1:
            return text.replace('"layers": [', '"layers": ' + "[" * rng.choice((60, 100_000)), 1)
        else:
            for _ in range(rng.choice((1, 30))):
                container[key] = [container[key]]
        config = json.loads(json.dumps(config))  # what was put in twice comes apart
    return json.dumps(config)


def regrow(rng: random.Random, data: bytes) -> bytes:
    """An HDF5 file with a few of its objects removed, moved, linked or of another kind."""
    stream = io.BytesIO(data)
    with h5py.File(stream, "r+") as file:
        for _ in range(rng.choice((1, 1, 2, 4))):
            names: list[str] = []
            file.visit(names.append)
            arrays = [n for n in names if isinstance(file[n], h5py.Dataset)]
            if not arrays:
                break
            name, group = rng.choice(arrays), file[rng.choice(arrays)].parent
            old, new = file[name][()], rng.choice(("0", "3", "vars", "x", "cell", "kernel"))
            action = rng.randrange(11)
            if action in (0, 1, 2, 3):
                del file[name]
            if action == 1:
                file[name] = old.reshape(-1)
            elif action == 2:
                file[name] = old.astype(rng.choice(("f2", "f8", ">f4", "i4", "S3", "c8", "?")))
            elif action == 3:
                file.create_dataset(name, (10**9, 10**6), "f4", chunks=(1000, 1000))
            elif new in group:
                continue
            elif action == 4:
                group[new] = h5py.SoftLink(rng.choice(("/", "/nowhere", "/layers", name)))
            elif action == 5:
                group[new] = h5py.ExternalLink("/etc/passwd", "/")
            elif action == 6:
                group[new] = file[rng.choice(names)]
            elif action == 7:
                group.create_dataset(new, data=[b"x", b"yy"], dtype=h5py.string_dtype())
            elif action == 8:
                group.create_dataset(new, data=old.reshape(-1), compression="gzip")
            elif action == 9:
                file.move(name, f"{group.name}/{new}")
            elif old.size:
                file[name][(0,) * old.ndim] = rng.choice((np.nan, np.inf, 1e300))
            attributes = [n for n in names if len(file.get(n, file).attrs)]
            if attributes and rng.random() < 0.3:
                holder = file[rng.choice(attributes)].attrs
                holder[rng.choice(list(holder))] = rng.choice(([], "x", 3, ["a", "a"], ["../x"]))
    return stream.getvalue()


# --- mutations of files ---


def zipped(members: dict[str, bytes], rng: random.Random) -> bytes:
    out = io.BytesIO()
    how = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(out, "w", how) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def mutate(rng: random.Random, name: str, data: bytes) -> tuple[str, bytes]:
    """What was done, and a mutated file."""
    kind = rng.choice(("bytes", "config", "inside", "tree"))
    if name.endswith(GRAPHS):
        kind = "bytes"
    if name.endswith(".keras") and kind != "bytes":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {n: archive.read(n) for n in archive.namelist()}
        weights = members["model.weights.h5"]
        if kind == "config":
            target = rng.choice(("config.json",) * 9 + ("metadata.json",))
            members[target] = edit(rng, members[target].decode()).encode("utf-8", "surrogatepass")
        elif kind == "tree":
            members["model.weights.h5"] = regrow(rng, weights)
        else:
            inside = bytearray(weights)
            rng.choice(BYTES)(rng, inside)
            members["model.weights.h5"] = bytes(inside)
        return kind, zipped(members, rng)
    if kind == "config":
        stream = io.BytesIO(data)
        with h5py.File(stream, "r+") as file:
            text = edit(rng, file.attrs["model_config"])
            file.attrs["model_config"] = text[:60_000]
        return kind, stream.getvalue()
    if kind == "tree":
        return kind, regrow(rng, data)
    raw = bytearray(data)
    rng.choice(BYTES)(rng, raw)
    return "bytes", bytes(raw)


def sources() -> list[tuple[str, bytes]]:
    paths = [
        p
        for p in sorted(FIXTURES.glob("keras*/*"))
        if p.suffix in (".keras", ".h5") and "weights" not in p.name
    ]
    paths += [p for folder in FOLDERS for p in sorted((FIXTURES / folder).glob("*"))
              if p.suffix in GRAPHS]  # fmt: skip
    return [(p.name, p.read_bytes()) for p in paths]


def case(seed: int, files: list[tuple[str, bytes]]) -> tuple[str, str, bytes]:
    """The name of a file, what was done to it, and what it is then."""
    rng = random.Random(seed)
    name, data = rng.choice(files)
    kind, mutated = mutate(rng, name, data)
    return name, f"{kind} of {name}", mutated


# --- loading ---

Report = tuple[int, str, str, float, int]  # seed, what was done, outcome, seconds, bytes


def load_all(
    first: int, last: int, files: list[tuple[str, bytes]], path: Path, pipe: Connection
) -> None:
    """A Report for each file; before it is loaded, its seed alone."""
    warnings.simplefilter("ignore")  # of a bound that an LSTM of TFLite may reach
    for seed in range(first, last):
        try:
            name, what, data = case(seed, files)
        except Exception as error:  # of h5py, on a tree that it has just mutated
            pipe.send((seed, "making", f"not made: {type(error).__name__}", 0.0, 0))
            continue
        path = path.with_suffix(Path(name).suffix)
        path.write_bytes(data)
        if path.suffix == ".xml":
            shutil.copy(FIXTURES / "openvino" / f"{Path(name).stem}.bin", path.with_suffix(".bin"))
        pipe.send(seed)
        start = time.perf_counter()
        try:
            (read_arrays if path.suffix == ".msgpack" else load_model)(path)
            outcome = "loaded"
        except FileError:
            outcome = "FileError"
        except BaseException as error:
            outcome = f"{type(error).__module__}.{type(error).__name__}: {error}"[:200]
        seconds = time.perf_counter() - start
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        pipe.send((seed, what, outcome, seconds, memory))


def watch(first: int, last: int, files: list[tuple[str, bytes]]) -> Iterator[Report]:
    """The reports of a process of its own, started again where it ends or is too large or slow."""
    with tempfile.TemporaryDirectory() as folder:
        while first < last:
            mine, theirs = multiprocessing.Pipe()
            arguments = first, min(first + BATCH, last), files, Path(folder) / "file", theirs
            child = multiprocessing.get_context("fork").Process(target=load_all, args=arguments)
            child.start()
            theirs.close()
            loading, bad = None, False
            while not bad:
                try:
                    message = mine.recv() if mine.poll(HANG) else None
                except EOFError:
                    break
                if isinstance(message, int):
                    loading = message
                    continue
                if message is None:
                    break
                yield message
                first, loading = message[0] + 1, None
                bad = failed(message)
            if bad or mine.poll(0) is False:  # its peak memory would be that of all that follow
                child.kill()
            child.join()
            if loading is not None:
                yield loading, "?", f"ended with {child.exitcode} or took {HANG} s", HANG, 0
                first = loading + 1


def failed(report: Report) -> bool:
    _, _, outcome, seconds, memory = report
    good = outcome in ("loaded", "FileError") or outcome.startswith("not made")
    return not good or seconds > SLOW or memory > MEMORY


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0, help="the first; each file has its own")
    parser.add_argument("--only", action="store_true", help="just write the first to mutated.bin")
    options = parser.parse_args()
    files, last = sources(), options.seed + options.count
    if options.only:
        _, what, data = case(options.seed, files)
        Path("mutated.bin").write_bytes(data)
        print(f"{what}: mutated.bin, {len(data)} bytes")
        return 0
    begun = time.perf_counter()
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    failures, seconds, memory = [], 0.0, 0
    for report in watch(options.seed, last, files):
        counts[report[1].partition(" ")[0], report[2].partition(":")[0]] += 1
        seconds, memory = max(seconds, report[3]), max(memory, report[4])
        if failed(report):
            failures.append("seed {}, {}: {}, {:.1f} s, {} bytes".format(*report))
    print(f"{counts.total()} files, seeds {options.seed} to {last - 1},", end=" ")
    print(f"in {time.perf_counter() - begun:.0f} s; slowest {seconds:.2f} s, {memory >> 20} MiB")
    for (kind, outcome), count in sorted(counts.items()):
        print(f"  {count:7d} {kind}: {outcome}")
    print(f"{len(failures)} failures", *failures[:40], sep="\n  ")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
