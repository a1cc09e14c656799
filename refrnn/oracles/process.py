"""An oracle in a process of its own: asked and answered through pipes."""

import importlib
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any

from refrnn.cases import Arrays, Case
from refrnn.gates import Array
from refrnn.oracles import Unavailable

ENDING = 20.0  # seconds that a child has to end when its pipes are closed


class Ended(RuntimeError):
    """The process of an oracle is no more; the message says how it ended and what it said last."""


def made(by: str) -> Any:
    """The oracle that "module:class" under refrnn.oracles makes."""
    module, name = by.split(":")
    return getattr(importlib.import_module(f"refrnn.oracles.{module}"), name)()


class Apart:
    """The oracle `made(by)`, in a child process that ends with this object.

    environment  variables that the child has on top of this process's own
    limit        seconds that an answer may take until the child is killed; None for any time

    Raises what the oracle raises there, as RuntimeError if that is no class of refrnn's, and Ended
    where the child ends before it answers.
    """

    def __init__(
        self,
        by: str,
        environment: Mapping[str, str] | None = None,
        limit: float | None = None,
    ) -> None:
        self.limit = limit
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
        with suppress(BrokenPipeError):  # of a child that has ended: there is no answer either
            self._child.stdin.write(pickle.dumps((method, arguments)))
            self._child.stdin.flush()
        return self._answer()

    def kill(self) -> None:
        """End the child at once; the question that it was at raises Ended."""
        self._child.kill()

    def _answer(self) -> Any:
        assert self._child.stdout is not None
        late = threading.Event()

        def end_late() -> None:
            late.set()
            self.kill()

        watch = None if self.limit is None else threading.Timer(self.limit, end_late)
        if watch is not None:
            watch.daemon = True
            watch.start()
        try:
            error, found = pickle.load(self._child.stdout)
        except (EOFError, pickle.UnpicklingError):  # nothing more, or half of an answer
            raise Ended(self._how_it_ended(late.is_set())) from None
        finally:
            if watch is not None:
                watch.cancel()
        if error is not None:
            raise (Unavailable if error == "Unavailable" else RuntimeError)(found)
        return found

    def _how_it_ended(self, late: bool) -> str:
        code = waited(self._child)
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip()
        how = f"was killed, {self.limit:g} s without an answer" if late else f"ended with {code}"
        return f"its process {how}: {said[-500:]}"


def end(child: "subprocess.Popen[bytes]", said: IO[bytes]) -> None:
    """Close the pipes of a child, which then ends, or is killed."""
    for pipe in (child.stdin, child.stdout, said):
        if pipe is not None:
            with suppress(BrokenPipeError):  # of a child that ended before, with a question unread
                pipe.close()
    waited(child)


def waited(child: "subprocess.Popen[bytes]") -> int:
    """The status of a child that is to end; it is killed where it does not in ENDING seconds."""
    try:
        return child.wait(ENDING)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


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
