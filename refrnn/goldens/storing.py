"""A recording in a file: .npz with its arrays, and in it recording.json with all else.

Each array has its SHA-256 in the JSON, and the JSON has one of its own: a file that was damaged or
edited is refused. A chunked run with the bits of the whole one is not stored again.
"""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refrnn.files import FileError, archive
from refrnn.files.arrays import NPY, from_npz
from refrnn.files.atomic import replacing
from refrnn.files.errors import shown, within
from refrnn.gates import Array
from refrnn.goldens.recording import Given, Recording, Variant, checked
from refrnn.verify.compare import same_bits

FORMAT = "refrnn recording 1"
HEADER = "recording.json"
WRITTEN = (
    1980,
    1,
    1,
    0,
    0,
    0,
)  # the time of every member, so that equal recordings are equal files

Header = dict[str, Any]
AnyPath = str | os.PathLike[str]


def write(recording: Recording, path: AnyPath) -> None:
    """Write a recording, whole or not at all.

    Raises ValueError for a recording that is none, without proof say, and for a path that does not
    end with .npz, before anything is written.
    """
    if Path(path).suffix != ".npz":
        raise ValueError(f"{os.fspath(path)}: expected a name that ends with .npz")
    checked(recording)
    header, arrays = _packed(recording)
    header["sha256"] = {name: _digest(array) for name, array in arrays.items()}
    header["checksum"] = _checksum(header)
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as made:
        _add(made, HEADER, json.dumps(header, indent=1).encode())
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            _add(made, name + NPY, member.getvalue())
    with replacing(path) as stream:
        stream.write(data.getvalue())


def _add(made: zipfile.ZipFile, name: str, data: bytes) -> None:
    made.writestr(zipfile.ZipInfo(name, WRITTEN), data, zipfile.ZIP_DEFLATED)


def read(path: AnyPath, stand_in: bool = False) -> Recording:
    """The recording in a file.

    stand_in  take one as well that a stand-in made in the place of a graphics card: a test of this
              machinery, which says nothing about cuDNN

    Raises FileError for a file that is damaged or edited, and for a recording without provenance,
    without proof, or whose arrays do not go together.
    """
    with within(os.fspath(path), FileError), archive.opened(path) as (stream, size):
        members = archive.every_member(stream, size)
        header = _header(members.pop(HEADER, None))
        arrays = from_npz(members)
        if set(arrays) != set(header["sha256"]):
            odd = sorted(set(arrays) ^ set(header["sha256"]))
            raise FileError(f"{shown(odd[0])} is listed and not there, or there and not listed")
        for name, array in arrays.items():
            if header["sha256"][name] != _digest(array):
                raise FileError(f"{name} has another SHA-256 than is written: it was changed")
        with within("recording", KeyError, ValueError, TypeError, AttributeError, IndexError):
            found = _unpacked(header, arrays)
            checked(found)
        made_up = [v.title for v in found.variants if v.stood_in]
        if made_up and not stand_in:
            raise FileError(
                f"{shown(made_up[0])} was computed by a stand-in, expected what a graphics card"
                " returned, because a stand-in says nothing about cuDNN"
            )
        return found


def _header(text: bytes | None) -> Header:
    if text is None:
        raise FileError(f"has no {HEADER}, expected a recording: without it nothing is known of it")
    with within(HEADER, FileError):
        header = archive.parse(text)
        if header.get("format") != FORMAT:
            raise FileError(f"format is {shown(header.get('format'))}, expected {FORMAT!r}")
        if header.get("checksum") != _checksum(header):
            raise FileError("holds other than what its checksum was made of: it was changed")
    return header


def _checksum(header: Header) -> str:
    told = {name: value for name, value in header.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _digest(array: Array) -> str:
    about = f"{array.dtype.name} {array.shape} ".encode()
    return hashlib.sha256(about + np.ascontiguousarray(array).tobytes()).hexdigest()


# --- names of arrays ---


def _packed(recording: Recording) -> tuple[Header, dict[str, Array]]:
    given = recording.given
    arrays: dict[str, Array] = {"x": given.x}
    arrays |= {f"weights.{k}": array for k, array in enumerate(given.weights)}
    arrays |= {f"state.{k}": part for k, part in enumerate(given.state or ())}
    arrays |= {n: a for n, a in (("lengths", given.lengths), ("dy", given.dy)) if a is not None}
    header: Header = {
        "format": FORMAT,
        "layer": given.layer,
        "go_backwards": given.go_backwards,
        "bidirectional": given.bidirectional,
        "cuttings": [list(sizes) for sizes in given.cuttings],
        "counts": {"weights": len(given.weights), "state": len(given.state or ())},
        "variants": [],
    }
    for k, variant in enumerate(recording.variants):
        same = [same_bits(run, variant.outputs) for run in variant.chunked]
        groups = {"whole": variant.outputs, "gradients": variant.gradients}
        groups |= {f"chunked.{n}": run for n, run in enumerate(variant.chunked) if not same[n]}
        for group, members in groups.items():
            arrays |= {f"{k}.{group}.{name}": array for name, array in members.items()}
        header["variants"].append(
            {
                "name": variant.name,
                "precision": variant.precision,
                "chunks_have_the_bits_of_the_whole": same,
                "provenance": dict(variant.provenance),
                "proof": dict(variant.proof),
            }
        )
    return header, {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _unpacked(header: Header, arrays: Mapping[str, Array]) -> Recording:
    def listed(name: str) -> list[Array]:
        return [arrays[f"{name}.{k}"] for k in range(header["counts"][name])]

    def group(prefix: str) -> dict[str, Array]:
        return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}

    given = Given(
        header["layer"],
        listed("weights"),
        arrays["x"],
        listed("state") or None,
        arrays.get("lengths"),
        header["cuttings"],
        arrays.get("dy"),
        header["go_backwards"],
        header["bidirectional"],
    )
    variants = []
    for k, told in enumerate(header["variants"]):
        whole = group(f"{k}.whole.")
        chunked = [
            whole if same else group(f"{k}.chunked.{n}.")
            for n, same in enumerate(told["chunks_have_the_bits_of_the_whole"])
        ]
        variants.append(
            Variant(
                told["name"],
                told["precision"],
                whole,
                chunked,
                group(f"{k}.gradients."),
                told["provenance"],
                told["proof"],
            )
        )
    return Recording(given, variants)
