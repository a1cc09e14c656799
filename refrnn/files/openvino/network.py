"""The two files of a network: its layers, in an order in which they can be run, and constants."""

import math
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from refrnn.files import archive
from refrnn.files.errors import FileError, shown, within
from refrnn.files.openvino.xml import MAX_XML, Element, parse
from refrnn.files.safetensors import widened
from refrnn.gates import Array

DTYPES = {
    "f16": "float16", "f32": "float32", "f64": "float64", "i8": "int8", "i16": "int16",
    "i32": "int32", "i64": "int64", "u8": "uint8", "u16": "uint16", "u32": "uint32",
    "u64": "uint64", "boolean": "bool", "bf16": "bfloat16",
}  # fmt: skip
VERSIONS = ("10", "11")
MAX_LAYERS = 100_000
ENDS = ("from-layer", "from-port", "to-layer", "to-port")
_NUMBER = re.compile(r"-?[0-9]{1,18}")


class Layer(NamedTuple):
    """One operation.

    data     its attributes
    inputs   the values that it takes, by name; "" for one that is not connected
    outputs  the names of its values: what the model's users call them, where that is stored
    inside   whether it holds a graph of its own
    """

    name: str
    type: str
    data: dict[str, str]
    inputs: list[str]
    outputs: list[str]
    inside: bool


class Network(NamedTuple):
    layers: list[Layer]
    constants: dict[str, Array]
    writer: str


def read(path: "str | os.PathLike[str]") -> Network:
    """What is in a file and its .bin. Raises FileError where it is damaged."""
    with archive.opened(path) as (stream, size):
        if size > MAX_XML:
            raise FileError(f"has {size} bytes, expected at most {MAX_XML}")
        root = parse(b"".join(stream.read(archive.PIECE) for _ in range(0, size, archive.PIECE)))
    if root.tag != "net" or root.attributes.get("version") not in VERSIONS:
        raise FileError(
            f"is <{shown(root.tag)[1:-1]}> of version {shown(root.attributes.get('version'))},"
            f" expected <net> of {' or '.join(VERSIONS)}: a model of OpenVINO"
        )
    layers = _layers(root)
    weights = Path(path).with_suffix(".bin")
    constants: dict[str, Array] = {}
    stored = [layer for layer in layers if layer.type == "Const"]
    if stored:
        data = _bytes(weights)
        for layer in stored:
            with within(f"layer {shown(layer.name)} (Const)"):
                constants[layer.outputs[0]] = _constant(layer, data)
    version = root.one("rt_info").one("Runtime_version").attributes.get("value")
    writer = f"OpenVINO {version}" if version else "not said"
    return Network([x for x in layers if x.type != "Const"], constants, writer)


def _bytes(path: Path) -> Array:
    """The weights, mapped and not read: what no constant points at costs nothing."""
    try:
        with archive.opened(path) as (stream, size):
            return np.memmap(stream, np.uint8, "r") if size else np.zeros(0, np.uint8)
    except FileError as error:
        raise FileError(f"{shown(path.name)}: {error}") from None
    except OSError as error:
        raise FileError(
            f"has weights in {shown(path.name)}, expected it beside: {error.strerror}"
        ) from None


def _constant(layer: Layer, data: Array) -> Array:
    found = layer.data
    dtype, shape = DTYPES.get(found.get("element_type", "")), numbers(found.get("shape", ""))
    if dtype is None or min(shape, default=0) < 0 or len(shape) > 32 or not layer.outputs:
        raise FileError(
            f"has element_type {shown(found.get('element_type'))} and shape {shown(shape)},"
            f" expected one of {', '.join(DTYPES)} and sizes from 0 on"
        )
    [offset, size] = [numbers(found.get(key, "")) for key in ("offset", "size")]
    stored = np.dtype("<u2" if dtype == "bfloat16" else np.dtype(dtype).newbyteorder("<"))
    wanted = math.prod(shape) * stored.itemsize
    if offset[1:] or not offset or offset[0] < 0 or size != [wanted]:
        raise FileError(
            f"has offset {shown(found.get('offset'))} and size {shown(found.get('size'))}, expected"
            f" {wanted} bytes for {shape} of {dtype}"
        )
    if offset[0] + wanted > len(data):
        raise FileError(
            f"has {wanted} bytes from {offset[0]} on, expected them within the {len(data)} of .bin"
        )
    flat = np.frombuffer(data[offset[0] : offset[0] + wanted].tobytes(), stored)
    flat = widened(flat) if dtype == "bfloat16" else flat
    return flat.reshape(shape).astype(flat.dtype.newbyteorder("="), copy=False)


def numbers(text: str) -> list[int]:
    """Whole numbers with commas between them."""
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if not all(_NUMBER.fullmatch(part) for part in parts):
        raise FileError(f"has {shown(text)}, expected whole numbers")
    return [int(part) for part in parts]


# --- the layers and what connects them ---


def _layers(root: Element) -> list[Layer]:
    elements = root.one("layers").all("layer")
    if not elements or len(elements) > MAX_LAYERS:
        raise FileError(f"has {len(elements)} layers, expected 1 to {MAX_LAYERS}")
    by_id = {element.attributes.get("id", ""): element for element in elements}
    if len(by_id) < len(elements):
        raise FileError("has two layers of one id, expected each once")
    names: set[str] = set()
    values: dict[tuple[str, str], str] = {}  # by layer and port
    for key, element in by_id.items():
        base = name = element.attributes.get("name") or f"layer {key}"
        if name in names:
            name = f"{base}, layer {key}"
        names.add(name)
        ports = element.one("output").all("port")
        for k, port in enumerate(ports):
            own = name if len(ports) == 1 else f"{name}:{k}"
            called = port.attributes.get("names", "").partition(",")[0]
            called = own if called in names or not called else called
            names.add(called)
            values[key, port.attributes.get("id", "")] = called
    if len(set(values.values())) < len(values):
        raise FileError("has two values of one name, expected each once")
    given: dict[tuple[str, str], str] = {}
    before: dict[str, set[str]] = {key: set() for key in by_id}
    for edge in root.one("edges").all("edge"):
        ends = [edge.attributes.get(k, "") for k in ENDS]
        source, target = (ends[0], ends[1]), (ends[2], ends[3])
        if source not in values or target[0] not in by_id or target in given:
            raise FileError(f"has the edge {shown(ends)}, expected one from a port to a free one")
        given[target] = values[source]
        before[target[0]].add(source[0])
    return [_layer(by_id[key], key, values, given) for key in _ordered(before)]


def _ports(element: Element, side: str) -> list[str]:
    return [port.attributes.get("id", "") for port in element.one(side).all("port")]


def _layer(
    element: Element,
    key: str,
    values: dict[tuple[str, str], str],
    given: dict[tuple[str, str], str],
) -> Layer:
    return Layer(
        element.attributes.get("name", ""),
        element.attributes.get("type", ""),
        element.one("data").attributes,
        [given.get((key, port), "") for port in _ports(element, "input")],
        [values[key, port] for port in _ports(element, "output")],
        bool(element.all("body") or element.all("then_body")),
    )


def _ordered(before: dict[str, set[str]]) -> list[str]:
    """Each after all that it takes from."""
    after: dict[str, list[str]] = {key: [] for key in before}
    for key, sources in before.items():
        for source in sources:
            after[source].append(key)
    left = {key: len(sources) for key, sources in before.items()}
    ready = [key for key, count in left.items() if not count]
    for key in ready:
        for reader in after[key]:
            left[reader] -= 1
            if not left[reader]:
                ready.append(reader)
    if len(ready) < len(before):
        raise FileError("has layers that take from each other in a circle, expected an order")
    return ready
