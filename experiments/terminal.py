"""Standard output and error that cannot fail a command, whoever reads them and however."""

import codecs
import errno
import io
import os
import sys
from typing import TextIO

from rich.console import Console

# One character each, so that columns stay columns.
_PLAIN = str.maketrans("→±–…░▒▓█─━│", "/~-.:+*#--|")  # noqa: RUF001
_READER_GONE = (errno.EPIPE, errno.EINVAL, errno.EIO)  # of a pipe, on Windows; of a terminal
_WIDTH = 1000


class Stream(io.TextIOWrapper):
    """A stream's text, written as far as it can be.

    Characters that its encoding does not have become plain ones or, where there is none for them,
    escapes such as `\\u4e03`. Once the stream cannot be written what follows is lost without an
    error: a reader that has seen enough (`| head`) does not end a training. Any other reason, such
    as a full disk, is said on stderr.

    Attributes:
        failure: what went wrong; None while nothing has, or where only the reader has gone.
    """

    def __init__(self, stream: io.TextIOWrapper) -> None:
        super().__init__(
            stream.buffer,
            stream.encoding,
            "plain",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        try:
            return super().write(text)
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
    codecs.register_error("plain", _plain)
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


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What `codecs` asks when an encoding has no such character."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    plain = character.translate(_PLAIN)
    if plain == character:
        plain = character.encode("ascii", "backslashreplace").decode()
    return plain, error.start + 1
