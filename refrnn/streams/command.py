"""`refrnn stream MODEL`: rows of numbers in, predictions out, a line at a time; state in a file."""

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

from refrnn.files import FileError, load_model
from refrnn.streams.lines import BadLine, answer, parse, step_of
from refrnn.streams.stream import Stream

FINE, REFUSED = 0, 2
HELP = "answer each row of numbers from standard input with a prediction, as it comes"
DESCRIPTION = (
    "A line is one step: numbers with commas, with spaces, or a JSON list, one for each feature;"
    " the prediction is written in the same form, and flushed. The state is carried from line to"
    " line, and with --state from run to run, bit for bit."
)
EPILOG = (
    "Exit status: 0 all lines are answered or skipped, or SIGTERM or SIGINT came; 2 stopped by a"
    " bad line or file."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `refrnn stream` takes."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="model file of Keras or tf.js")
    parser.add_argument(
        "--state", type=Path, metavar="FILE",
        help=".npz or .h5: go on from it if it is there; written at the end and on SIGTERM",
    )  # fmt: skip
    parser.add_argument(
        "--every", type=int, default=0, metavar="N", help="write the state every N lines too"
    )
    parser.add_argument(
        "--key", metavar="COLUMN",
        help="column with the key of a session, from 0 (in JSON objects its name): each key has"
        " a state of its own",
    )  # fmt: skip
    parser.add_argument(
        "--on-error", choices=("skip", "stop"), default="stop",
        help="what to do after a bad line is reported; no state is touched by it (default: stop)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """`refrnn stream`; 0: all lines are answered, 2: stopped by a bad line or a bad file."""
    try:
        stream = _stream(options)
        session = Session(stream, options)
    except (ValueError, OSError, ImportError) as error:
        print(f"refrnn: {error}", file=sys.stderr)
        return REFUSED
    with session.stoppable():
        try:
            return session.answer_all(sys.stdin.buffer)
        finally:
            session.save()


def _stream(options: argparse.Namespace) -> Stream:
    """The stream to go on with, from the state file if there is one."""
    if options.every < 0:
        raise ValueError(f"--every {options.every}: expected a number of lines")
    if options.state is not None and options.state.suffix not in (".npz", ".h5", ".hdf5"):
        raise ValueError(f"--state {options.state}: expected a file ending in .npz or .h5")
    if options.state is not None and not options.state.resolve().parent.is_dir():
        raise ValueError(f"--state {options.state}: no such folder {options.state.parent}")
    try:
        model = load_model(options.model)
    except FileNotFoundError:
        raise FileError(f"{options.model}: no such file, expected a model") from None
    if options.state is None or not options.state.exists():
        return Stream(model, rows=1 if options.key is None else 0)
    stream = Stream.load(options.state, model)
    if (options.key is None) != (not stream.names and len(stream.rows) == 1):
        what = "of sessions by key" if options.key is None else "of one session"
        raise FileError(f"{options.state}: is the state {what}, expected --key to be as it was")
    return stream


class Session:
    """A stream fed with lines, which stops between two of them."""

    def __init__(self, stream: Stream, options: argparse.Namespace) -> None:
        model = stream.model
        [item, *more] = model.inputs
        if more or model.output_count != 1:
            raise ValueError(
                f"{model.who}: has {1 + len(more)} inputs and {model.output_count} outputs,"
                " expected one of each, because a line is one step and one prediction"
            )
        shape = item.shape or (None, None, None)
        self.stream, self.options = stream, options
        self.rows = stream.names
        self.ids = len(shape) == 2
        self.features = 1 if self.ids else shape[-1]
        self._waiting = self._stopped = False

    def answer_all(self, source: IO[bytes]) -> int:
        """Answer each line as it comes, to the end or until a signal."""
        number = skipped = answered = 0
        while raw := self._next(source):
            number += 1
            try:
                told = self._answer(raw)
            except (BadLine, ValueError, TypeError) as error:
                print(f"refrnn: line {number}: {error}", file=sys.stderr, flush=True)
                if self.options.on_error == "stop":
                    return REFUSED
                skipped += 1
                continue
            if told is None:
                continue
            print(told, flush=True)
            answered += 1
            if self.options.every and answered % self.options.every == 0:
                self.save()
        if skipped:
            print(f"refrnn: {skipped} of {number} lines skipped", file=sys.stderr)
        return FINE

    def _answer(self, raw: bytes) -> str | None:
        key = self.options.key
        line = parse(raw, self.features, key)
        if line is None:
            return None
        step = step_of(line, self.ids)
        if key is None:
            return answer(line, self.stream.step(step), key)
        if line.key in self.rows:
            return answer(line, self.stream.step(step, rows=[self.rows[line.key]]), key)
        row = self.stream.join(line.key)
        try:
            told = answer(line, self.stream.step(step, rows=[row]), key)
        except Exception:
            self.stream.leave(row)
            raise
        self.rows[line.key] = row
        return told

    def save(self) -> None:
        if self.options.state is not None:
            self.stream.save(self.options.state)

    def _next(self, source: IO[bytes]) -> bytes:
        """The next line; b"" at the end, and after a signal."""
        try:
            self._waiting = True
            raw = b"" if self._stopped else source.readline()
            self._waiting = False
            return raw
        except _Stopped:
            return b""

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """SIGTERM and SIGINT end the run between two lines, not within one."""

        def stop(number: int, frame: FrameType | None) -> None:
            self._stopped = True
            if self._waiting:
                self._waiting = False
                raise _Stopped

        kinds = signal.SIGTERM, signal.SIGINT
        before = [signal.signal(kind, stop) for kind in kinds]
        try:
            yield
        finally:
            for kind, handler in zip(kinds, before, strict=True):
                signal.signal(kind, handler)


class _Stopped(Exception):
    """A signal came while a line was waited for."""
