"""State dicts of PyTorch: a zip archive of a pickle and of the numbers of each tensor.

The pickle is not run. A small machine of the project's own reads it: it has the instructions that
PyTorch writes for dictionaries of tensors, the functions named in `GLOBALS`, none of which is
called as code, and nothing else; any other instruction or function is refused by name.
"""

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from refrnn.files.archive import MAX_JSON, SLACK
from refrnn.files.errors import FileError, shown, within
from refrnn.files.safetensors import widened
from refrnn.gates import Array

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
PICKLE = "data.pkl"
MAX_PICKLE = MAX_JSON  # bytes; a tensor takes about 200
STORAGES = {
    "torch DoubleStorage": "f8", "torch FloatStorage": "f4", "torch HalfStorage": "f2",
    "torch BFloat16Storage": "u2", "torch LongStorage": "i8", "torch IntStorage": "i4",
    "torch ShortStorage": "i2", "torch CharStorage": "i1", "torch ByteStorage": "u1",
    "torch BoolStorage": "?",
}  # fmt: skip
TENSOR, PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"
ORDERED = "collections OrderedDict"
GLOBALS = {TENSOR, PARAMETER, ORDERED, *STORAGES}

# All instructions that there are by code, for messages.
NAMES = {
    ord(c): name
    for c, name in (
        item.split("=", 1)
        for item in (
            "(=MARK .=STOP 0=POP 1=POP_MARK 2=DUP F=FLOAT I=INT J=BININT K=BININT1 L=LONG M=BININT2"
            " N=NONE P=PERSID Q=BINPERSID R=REDUCE S=STRING T=BINSTRING U=SHORT_BINSTRING V=UNICODE"
            " X=BINUNICODE a=APPEND b=BUILD c=GLOBAL d=DICT }=EMPTY_DICT e=APPENDS g=GET h=BINGET"
            " i=INST j=LONG_BINGET l=LIST ]=EMPTY_LIST o=OBJ p=PUT q=BINPUT r=LONG_BINPUT s=SETITEM"
            " t=TUPLE )=EMPTY_TUPLE u=SETITEMS G=BINFLOAT B=BINBYTES C=SHORT_BINBYTES \x80=PROTO"
            " \x81=NEWOBJ \x82=EXT1 \x83=EXT2 \x84=EXT4 \x85=TUPLE1 \x86=TUPLE2 \x87=TUPLE3"
            " \x88=NEWTRUE \x89=NEWFALSE \x8a=LONG1 \x8b=LONG4 \x8c=SHORT_BINUNICODE"
            " \x8d=BINUNICODE8 \x8e=BINBYTES8 \x8f=EMPTY_SET \x90=ADDITEMS \x91=FROZENSET"
            " \x92=NEWOBJ_EX \x93=STACK_GLOBAL \x94=MEMOIZE \x95=FRAME \x96=BYTEARRAY8"
            " \x97=NEXT_BUFFER \x98=READONLY_BUFFER"
        ).split(" ")  # not split(): \x85 is a space to it
    )
}


class Global(NamedTuple):
    """The name of a function or class of PyTorch's; never the thing itself."""

    name: str


class Storage(NamedTuple):
    """The numbers that tensors are views of. bits: bfloat16, as its bits."""

    numbers: Array
    bits: bool


class _Mark(NamedTuple):
    pass


MARK = _Mark()


def read(members: Mapping[str, bytes]) -> dict[str, Array]:
    """The tensors of a state dict by name, from the members of the archive; bfloat16 as float32.

    Raises FileError, by name, for whatever is not a dictionary of dense tensors.
    """
    [*tops] = {n.removesuffix(PICKLE) for n in members if n.endswith("/" + PICKLE)}
    top = tops[0]
    if len(tops) > 1 or any(name.startswith(top + "code/") for name in members):
        raise FileError(
            "is an archive of TorchScript, which is code, expected a state dict: save"
            " model.state_dict() with torch.save"
        )
    order = members.get(top + "byteorder", b"little")
    if order not in (b"little", b"big"):
        raise FileError(f"byteorder is {shown(order)}, expected little or big")
    with within(PICKLE, ValueError, TypeError, IndexError, KeyError, struct.error, RecursionError):
        found = _Machine(members, top, "<" if order == b"little" else ">").run(
            members[top + PICKLE]
        )
    return _tensors(found)


def _tensors(found: Any) -> dict[str, Array]:
    if not isinstance(found, dict):
        raise FileError(f"holds a {_kind(found)}, expected a state dict")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            inside = ", which may be it" if isinstance(value, dict) else ""
            raise FileError(
                f"entry {shown(name)} is a {_kind(value)}{inside}, expected a state dict: tensors"
                f" by name; the entries are {shown(list(found)[:10])}"
            )
    return found


def _kind(value: Any) -> str:
    if isinstance(value, Global):
        return value.name.replace(" ", ".")
    return {np.ndarray: "tensor", dict: "dictionary"}.get(type(value), type(value).__name__)


class _Machine:
    """A stack and a memo, as the pickle's instructions know them."""

    def __init__(self, members: Mapping[str, bytes], top: str, order: str) -> None:
        self.members, self.top, self.order = members, top, order
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self.budget = 2 * sum(map(len, members.values())) + SLACK
        self.data, self.place = b"", 0

    def run(self, data: bytes) -> Any:
        """What the pickle stands for."""
        if len(data) > MAX_PICKLE:
            raise FileError(f"has {len(data)} bytes, expected at most {MAX_PICKLE}")
        self.data = data
        while (code := self._take(1)[0]) != ord("."):
            step = STEPS.get(code)
            if step is None:
                raise FileError(
                    f"has the instruction {NAMES.get(code, hex(code))} at byte {self.place - 1},"
                    " expected only those of a dictionary of tensors: it could run code, and"
                    " nothing in a file is run"
                )
            step(self)
        return self.stack.pop()

    # --- bytes ---

    def _take(self, count: int) -> bytes:
        piece = self.data[self.place : self.place + count]
        if len(piece) < count:
            raise FileError(f"ends at byte {len(self.data)}, expected {count - len(piece)} more")
        self.place += count
        return piece

    def number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def text(self, form: str) -> str:
        return self._take(self.number(form)).decode()

    def line(self) -> str:
        end = self.data.find(b"\n", self.place)
        if end < 0:
            raise FileError("ends within a name")
        return self._take(end + 1 - self.place)[:-1].decode()

    # --- the stack ---

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < count:
            raise FileError("takes more from its stack than is on it")
        taken = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return taken

    def marked(self) -> tuple[Any, ...]:
        """What is above the last mark, which goes too."""
        for k in range(len(self.stack) - 1, -1, -1):
            if self.stack[k] is MARK:
                taken = tuple(self.stack[k + 1 :])
                del self.stack[k:]
                return taken
        raise FileError("has no mark where one is needed")

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    # --- what it makes ---

    def named(self, module: str, name: str) -> None:
        full = f"{module} {name}"
        if full not in GLOBALS:
            raise FileError(
                f"needs {shown(full.replace(' ', '.'))}, expected only tensors, their storages and"
                " OrderedDict: it could run code, and nothing in a file is run"
            )
        self.push(Global(full))

    def call(self) -> None:
        function, given = self.pop(2)
        known = isinstance(function, Global) and isinstance(given, tuple)
        if known and function.name == ORDERED and not given:
            self.push({})
        elif known and function.name == TENSOR:
            self.push(self._tensor(*given))
        elif known and function.name == PARAMETER and isinstance(given[0], np.ndarray):
            self.push(given[0])
        else:
            raise FileError(
                f"calls {shown(_kind(function))} with {shown(_kind(given))}, expected one of"
                f" {', '.join(sorted(GLOBALS - set(STORAGES)))}"
            )

    def build(self) -> None:
        """The attributes of a state dict: its _metadata, versions of modules, which is not read."""
        target, state = self.pop(2)
        if not isinstance(target, dict) or not isinstance(state, dict):
            raise FileError(f"sets attributes of a {_kind(target)}, expected none of it")
        if set(state) - {"_metadata"}:
            raise FileError(f"sets the attributes {shown(list(state))}, expected _metadata only")
        self.push(target)

    def items(self, given: tuple[Any, ...]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(given) % 2:
            raise FileError(f"puts entries into a {_kind(target)}, expected a dictionary")
        for name, value in zip(given[::2], given[1::2], strict=True):
            if not isinstance(name, str | int):
                raise FileError(f"has a {_kind(name)} as a key, expected a string")
            if name in target:
                raise FileError(f"has the key {shown(name)} twice, expected it once")
            target[name] = value

    def extend(self, given: tuple[Any, ...]) -> None:
        if not isinstance(self.stack[-1], list):
            raise FileError(f"appends to a {_kind(self.stack[-1])}, expected a list")
        self.stack[-1].extend(given)

    def storage(self) -> None:
        """('storage', class, key, device, count): a member of the archive."""
        [given] = self.pop(1)
        if not isinstance(given, tuple) or len(given) != 5 or given[0] != "storage":
            raise FileError(f"refers to {shown(_kind(given))}, expected a storage")
        _, kind, key, _, count = given
        if not isinstance(kind, Global) or kind.name not in STORAGES or not isinstance(key, str):
            raise FileError(f"has a storage of {shown(_kind(kind))}, expected one of numbers")
        if key not in self.storages:
            data = self.members.get(f"{self.top}data/{key}")
            dtype = np.dtype(self.order + STORAGES[kind.name])
            if data is None or type(count) is not int or len(data) != count * dtype.itemsize:
                raise FileError(
                    f"has storage {shown(key)} of {shown(count)} numbers, expected a member"
                    f" data/{key} with so many, found"
                    f" {'none' if data is None else f'{len(data)} bytes'}"
                )
            self.storages[key] = Storage(np.frombuffer(data, dtype), "BFloat16" in kind.name)
        self.push(self.storages[key])

    def _tensor(self, storage: Any = None, offset: Any = 0, size: Any = (), *more: Any) -> Array:
        """A copy of a view of a storage; what follows the strides (gradients) is not read."""
        stride: Any = more[0] if more else None
        if not isinstance(storage, Storage) or not all(map(_counts, ((offset,), size, stride))):
            raise FileError("has a tensor that is not dense, expected a storage, sizes and strides")
        numbers = storage.numbers
        count = math.prod(size)
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if count and (last >= len(numbers) or count > len(numbers)):
            raise FileError(
                f"has a tensor of {size} with strides {stride} from {offset} on in a storage of"
                f" {len(numbers)} numbers, expected it inside, each number there once"
            )
        self.budget -= count * numbers.itemsize
        if self.budget < 0:
            raise FileError("has tensors of more bytes than the archive, expected each number once")
        steps = [s * numbers.itemsize for s in stride]
        view = as_strided(numbers[offset:], size, steps) if count else np.zeros(size, numbers.dtype)
        array = np.array(view, numbers.dtype.newbyteorder("="), order="C")
        return widened(array) if storage.bits else array


def _counts(value: Any) -> bool:
    return isinstance(value, tuple) and all(type(n) is int and n >= 0 for n in value)


def _stacked(machine: _Machine) -> None:
    module, name = machine.pop(2)
    machine.named(str(module), str(name))


STEPS: dict[int, Callable[[_Machine], None]] = {
    ord(code): step
    for code, step in (
        ("\x80", lambda m: m.number("<B") and None),
        ("\x95", lambda m: m.number("<Q") and None),
        ("(", lambda m: m.push(MARK)),
        ("N", lambda m: m.push(None)),
        ("\x88", lambda m: m.push(True)),
        ("\x89", lambda m: m.push(False)),
        ("J", lambda m: m.push(m.number("<i"))),
        ("K", lambda m: m.push(m.number("<B"))),
        ("M", lambda m: m.push(m.number("<H"))),
        ("\x8a", lambda m: m.push(int.from_bytes(m._take(m.number("<B")), "little", signed=True))),
        ("G", lambda m: m.push(m.number(">d"))),
        ("X", lambda m: m.push(m.text("<I"))),
        ("\x8c", lambda m: m.push(m.text("<B"))),
        ("}", lambda m: m.push({})),
        ("]", lambda m: m.push([])),
        (")", lambda m: m.push(())),
        ("\x85", lambda m: m.push(m.pop(1))),
        ("\x86", lambda m: m.push(m.pop(2))),
        ("\x87", lambda m: m.push(m.pop(3))),
        ("t", lambda m: m.push(m.marked())),
        ("s", lambda m: m.items(m.pop(2))),
        ("u", lambda m: m.items(m.marked())),
        ("a", lambda m: m.extend(m.pop(1))),
        ("e", lambda m: m.extend(m.marked())),
        ("q", lambda m: m.put(m.number("<B"))),
        ("r", lambda m: m.put(m.number("<I"))),
        ("\x94", lambda m: m.put(len(m.memo))),
        ("h", lambda m: m.push(m.memo[m.number("<B")])),
        ("j", lambda m: m.push(m.memo[m.number("<I")])),
        ("c", lambda m: m.named(m.line(), m.line())),
        ("\x93", _stacked),
        ("Q", lambda m: m.storage()),
        ("R", lambda m: m.call()),
        ("b", lambda m: m.build()),
    )
}  # fmt: skip
