"""Standard output and error that cannot fail a command, whoever reads them and however."""

import errno
import io
import os
import sys
from typing import TextIO

from rich.console import Console

_CHARACTERS = "→±…░▒▓█"  # of these commands' own, and of rich's, that ASCII does not have
_PLAIN = str.maketrans(_CHARACTERS, "/~.:+*#")  # one for one, so that columns stay columns
_READER_GONE = (errno.EPIPE, errno.EINVAL, errno.EIO)  # of a pipe, on Windows; of a terminal
_WIDTH = 1000


class Stream(io.TextIOWrapper):
    """A stream's text, written as far as it can be.

    Where its encoding lacks one of the characters that commands print, all of them become plain
    ones; what else it lacks becomes an escape such as `\\u4e03`. Once the stream cannot be written
    what follows is lost without an error: a reader that has seen enough (`| head`) does not end a
    training.

    Attributes:
        failure: what went wrong; None while nothing has, or where only the reader has gone.
    """

    def __init__(self, stream: io.TextIOWrapper) -> None:
        super().__init__(
            stream.buffer,
            stream.encoding,
            "backslashreplace",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        self.failure: OSError | None = None
        self._original = stream  # which would close the buffer, if it were let go
        self._plain = not _can_write(stream.encoding)

    def write(self, text: str) -> int:
        try:
            return super().write(text.translate(_PLAIN) if self._plain else text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())  # also for what is still in the buffers
        os.close(nowhere)
        if error.errno not in _READER_GONE:
            self.failure = error


def protect() -> None:
    """Make `sys.stdout` and `sys.stderr` a `Stream` each, and open what the caller has closed.

    Without that the next file that is opened would take the place of a closed one, and get what is
    meant for it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it takes the lowest number that is free: this one
        if getattr(sys, name) is None:
            file = open(os.devnull, "r" if name == "stdin" else "w")  # noqa: SIM115 (until the end)
            setattr(sys, name, file)
    for name in ("stdout", "stderr"):
        if type(stream := getattr(sys, name)) is io.TextIOWrapper:
            setattr(sys, name, Stream(stream))


def failure(stream: TextIO) -> OSError | None:
    """Why what was written to a stream is lost; None where it is not, or nobody wanted it."""
    stream.flush()
    return stream.failure if isinstance(stream, Stream) else None


def console() -> Console:
    """A console on standard output, for tables: as wide as they are.

    A narrower terminal breaks their lines; numbers cut short would be wrong ones.
    """
    return Console(highlight=False, width=_WIDTH, height=_WIDTH)


def _can_write(encoding: str) -> bool:
    try:
        _CHARACTERS.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
