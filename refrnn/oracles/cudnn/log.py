"""cuDNN's own log: which recurrent computations it was asked for, and how.

Written by the library itself where CUDNN_LOGLEVEL_DBG is 3 as it is loaded, whoever calls it. A
call is one block, of lines that begin with "i!", the descriptors that it was given inside it:

    I! CuDNN (v92800 42) function cudnnRNNForward() called:
    i!     rnnDesc: type=cudnnRNNDescriptor_t:
    i!         algo: type=cudnnRNNAlgo_t; val=CUDNN_RNN_ALGO_STANDARD (0);
    i!     fwdMode: type=cudnnForwardMode_t; val=CUDNN_FWD_MODE_TRAINING (1);

A call that was refused is told twice: as it came, and in a block of "E!" with the reason.
"""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

FORWARD = "cudnnRNNForward"
BACKWARD = ("cudnnRNNBackwardData_v8", "cudnnRNNBackwardWeights_v8")
FOLDER = "REFRNN_CUDNN_LOG"  # the variable with the folder of the logs

_CALL = re.compile(r"^([IWE])! CuDNN \(v(\d+)[^)]*\) function (\w+)\(\) called:")
_FIELD = re.compile(r"^[iwe]!( +)(\w+): (.*)$")
_VALUE = re.compile(r"val=(\S+?)(?: \(\w+\))?;?$")
_REASON = re.compile(r"^e! +Error: (.*)$")


class Call(NamedTuple):
    """One computation.

    function   cudnnRNNForward, ...
    version    of cuDNN, as 92800 for 9.28.0
    algorithm, math, data, compute, bias, direction, mode
               as cuDNN names them, without the words that all of a kind begin with: STANDARD, FMA,
               FLOAT, FLOAT, DOUBLE, UNIDIRECTIONAL, TRAINING; "" where the block does not tell
    cell       LSTM, GRU, RNN_TANH, RNN_RELU
    padded     input and output are padded, not packed
    lengths    of the sequences
    refused    why cuDNN did not compute it, or None
    """

    function: str
    version: int
    algorithm: str = ""
    cell: str = ""
    bias: str = ""
    direction: str = ""
    data: str = ""
    compute: str = ""
    math: str = ""
    mode: str = ""
    padded: bool = False
    lengths: tuple[int, ...] = ()
    refused: str | None = None


# where a field is in a block: (the descriptor it is in, its name) -> (ours, the word to drop)
_FIELDS = {
    ("rnnDesc", "algo"): ("algorithm", "CUDNN_RNN_ALGO_"),
    ("rnnDesc", "cellMode"): ("cell", "CUDNN_"),
    ("rnnDesc", "biasMode"): ("bias", "CUDNN_RNN_"),
    ("rnnDesc", "bidirectional"): ("direction", "CUDNN_"),
    ("rnnDesc", "dataType"): ("data", "CUDNN_DATA_"),
    ("rnnDesc", "mathPrec"): ("compute", "CUDNN_DATA_"),
    ("rnnDesc", "mathMode"): ("math", "CUDNN_"),
    ("rnnDesc", "auxFlags"): ("padded", "CUDNN_RNN_"),
    ("", "fwdMode"): ("mode", "CUDNN_FWD_MODE_"),
    ("xDesc", "seqLengthArray"): ("lengths", ""),
}


def parse(text: str) -> list[Call]:
    """The recurrent computations in a log, in order, those that were refused too."""
    calls: list[Call] = []
    level, inside = "", ""
    watched = False
    for line in text.splitlines():
        begins = _CALL.match(line)
        if begins:
            level, version, function = begins[1], int(begins[2]), begins[3]
            watched, inside = function in (FORWARD, *BACKWARD), ""
            if watched and level == "I":
                calls.append(Call(function, version))
            continue
        if not watched or not calls:
            continue
        reason = _REASON.match(line)
        if level == "E" and reason and calls[-1].refused is None:
            calls[-1] = calls[-1]._replace(refused=reason[1])
            continue
        field = _FIELD.match(line)
        if level == "I" and field:
            depth, name, rest = len(field[1]), field[2], field[3]
            if depth <= 5:
                inside = ""
            if rest.endswith(":"):
                inside = name
            else:
                calls[-1] = _told(calls[-1], inside, name, rest)
    return calls


def _told(call: Call, inside: str, name: str, rest: str) -> Call:
    ours, prefix = _FIELDS.get((inside, name), ("", ""))
    value = _VALUE.search(rest)
    if not ours or not value:
        return call
    word: Any = value[1].removeprefix(prefix)
    if ours == "padded":
        word = word == "PADDED_IO_ENABLED"
    elif ours == "lengths":
        word = tuple(int(n) for n in re.findall(r"\d+", word))
    else:
        word = word.removesuffix("_MATH").removesuffix("_BIAS")
    return call._replace(**{ours: word})


def forward(calls: list[Call]) -> list[Call]:
    """The forward computations that were done."""
    return [call for call in calls if call.function == FORWARD and call.refused is None]


def backward(calls: list[Call]) -> list[Call]:
    """The backward computations that were done."""
    return [call for call in calls if call.function in BACKWARD and call.refused is None]


def environment(folder: str) -> dict[str, str]:
    """The variables with which a process must start, so that its cuDNN writes a log there."""
    return {
        "CUDNN_LOGLEVEL_DBG": "3",
        "CUDNN_LOGDEST_DBG": os.path.join(folder, "cudnn_%i.log"),
        FOLDER: folder,
    }


class Log:
    """The log of this process, read piece by piece. Empty where cuDNN was never loaded."""

    def __init__(self) -> None:
        folder = os.environ.get(FOLDER)
        self.path = None if folder is None else Path(folder) / f"cudnn_{os.getpid()}.log"
        self._read = 0

    def new(self) -> list[Call]:
        """The computations since the last time: call it when results have arrived on the host."""
        if self.path is None or not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._read)
            piece = file.read()
        self._read += len(piece)
        return parse(piece.decode(errors="replace"))
