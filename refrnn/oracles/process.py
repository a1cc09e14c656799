"""An oracle in a process of its own: asked and answered through pipes."""

import importlib
import os
import pickle
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any

from refrnn.cases import Arrays, Case
from refrnn.gates import Array
from refrnn.oracles import Unavailable


def made(by: str) -> Any:
    """The oracle that "module:class" under refrnn.oracles makes."""
    module, name = by.split(":")
    return getattr(importlib.import_module(f"refrnn.oracles.{module}"), name)()


class Apart:
    """The oracle `made(by)`, in a child process that ends with this object.

    environment  variables that the child has on top of this process's own

    Raises what the oracle raises there, as RuntimeError if that is no class of refrnn's.
    """

    def __init__(self, by: str, environment: Mapping[str, str] | None = None) -> None:
        self._said = tempfile.TemporaryFile()  # what it prints explains how it ended
        self._child = subprocess.Popen(
            [sys.executable, "-m", "refrnn.oracles.process", by],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, **(environment or {})},
        )
        weakref.finalize(self, end, self._child, self._said)
        self._answer()  # that it is there

    def versions(self) -> dict[str, str]:
        return dict(self.ask("versions"))

    def run(self, case: Case, way: str, arrays: Arrays | None = None) -> dict[str, Array]:
        """As the oracle's own."""
        return dict(self.ask("run", case, way, arrays))

    def run_file(self, path: str, inputs: dict[str, Array]) -> Any:
        """As the oracle's own."""
        return self.ask("run_file", path, inputs)

    def ask(self, method: str, *arguments: Any) -> Any:
        """What a method of the oracle returns."""
        assert self._child.stdin is not None
        pickle.dump((method, arguments), self._child.stdin)
        self._child.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._child.stdout is not None
        try:
            error, found = pickle.load(self._child.stdout)
        except EOFError:
            self._said.seek(0)
            said = self._said.read().decode(errors="replace").strip()
            code = self._child.wait()
            raise RuntimeError(f"its process ended with {code}: {said[-500:]}") from None
        if error is not None:
            raise (Unavailable if error == "Unavailable" else RuntimeError)(found)
        return found


def end(child: "subprocess.Popen[bytes]", said: IO[bytes]) -> None:
    """Close the pipes of a child, which then ends."""
    for pipe in (child.stdin, child.stdout, said):
        if pipe is not None:
            with suppress(BrokenPipeError):  # of a child that ended before, with a question unread
                pipe.close()
    child.wait()


def _serve(by: str) -> None:
    """The child: answers (None, result) or (name of the error, its message), until the end."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library's prints are not answers
    questions, oracle = sys.stdin.buffer, None
    answer: tuple[str | None, Any]
    while True:
        try:
            if oracle is None:
                oracle, found = made(by), None
            else:
                method, arguments = pickle.load(questions)
                found = getattr(oracle, method)(*arguments)
            answer = (None, found)
        except EOFError:
            return
        except Exception as error:  # whatever the library raises; the parent says it
            answer = (type(error).__name__, f"{error}")
        pickle.dump(answer, answers)
        answers.flush()
        if oracle is None:
            return


if __name__ == "__main__":
    _serve(sys.argv[1])
