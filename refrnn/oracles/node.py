"""Node.js: whether it and its packages are here, and a program of it that answers questions.

Packages are looked for as Node does: in node_modules of the working directory and of the folders
around it, and in NODE_PATH.
"""

import json
import os
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from functools import cache
from typing import Any

from refrnn.oracles.process import end


def missing(packages: Sequence[str]) -> list[str]:
    """Which of Node and these packages are not here."""
    return list(_missing(tuple(packages), os.getcwd(), os.environ.get("NODE_PATH", "")))


@cache
def _missing(packages: tuple[str, ...], folder: str, path: str) -> tuple[str, ...]:
    if shutil.which("node") is None:
        return ("node",)
    program = "process.argv.slice(1).filter(n => {try {require.resolve(n)} catch {console.log(n)}})"
    found = subprocess.run(
        ["node", "-e", program, *packages], capture_output=True, text=True, check=True, timeout=60
    )
    return tuple(found.stdout.split())


class Program:
    """A program in JavaScript that answers each line of JSON with another; it ends with this."""

    def __init__(self, text: str) -> None:
        self._said = tempfile.TemporaryFile()  # what it prints explains how it ended
        self._child = subprocess.Popen(
            ["node", "-e", text],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
        )
        weakref.finalize(self, end, self._child, self._said)

    def ask(self, question: Any) -> Any:
        """The answer; RuntimeError with what it says where that has an error, or where it ends."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.stdin.write(json.dumps(question).encode() + b"\n")
            self._child.stdin.flush()
            line = self._child.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            code = self._child.wait()
            self._said.seek(0)
            lines = self._said.read().decode(errors="replace").splitlines()
            said = [line for line in lines if "Error" in line and not line.startswith(" ")]
            raise RuntimeError(f"its process ended with {code}: {' '.join(said) or lines[-5:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer
