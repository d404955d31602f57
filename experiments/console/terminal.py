"""Standard output and error that cannot fail a command, whoever reads them and however."""

import errno
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

_CHARACTERS = "→±…░▒▓█━"  # of these commands' own, and of rich's, that ASCII does not have
_PLAIN = str.maketrans(_CHARACTERS, "/~.:+*#=")  # one for one, so that columns stay columns
_READER_GONE = (errno.EPIPE, errno.EINVAL, errno.EIO)  # of a pipe, on Windows; of a terminal
_WIDTH = 1000
_BAR, _LEAST_BAR = 40, 8


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


@contextmanager
def fleeting(line: str) -> Iterator[None]:
    """A line on standard error, where that is a terminal, until the context ends."""
    shown = sys.stderr.isatty()
    if shown:
        print(line, end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shown:
            print(f"\r{' ' * len(line)}\r", end="", file=sys.stderr, flush=True)


def show(table: Table, out: Console | None = None) -> None:
    """Print a table: as it is, or in lines of `name value` where there is no room for it.

    Numbers cut short would be wrong ones. What is not a terminal has room for anything, unless
    COLUMNS says how much.

    Args:
        out: default one on standard output.
    """
    out = out or Console(highlight=False, soft_wrap=True)
    if _natural_width(table) <= _room(out):
        Console(file=out.file, highlight=False, width=_WIDTH, no_color=out.no_color).print(table)
        return
    for line in _lines(table):
        out.print(line, soft_wrap=True)


def _room(out: Console) -> int:
    known = out.file.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return (out.width if known else 0) or _WIDTH


def _natural_width(table: Table) -> int:
    wide = Console(width=_WIDTH)
    return wide.measure(table, options=wide.options.update(width=_WIDTH)).maximum


def _lines(table: Table) -> Iterator[Text]:
    """The title, and of each row its first cell and, below it, what the other columns say."""
    if table.title:
        yield _plain(table.title).copy()
    first, *others = table.columns
    for i, name in enumerate(first.cells):
        yield _plain(name)
        for column in others:
            cell = list(column.cells)[i]
            heading = str(column.header).replace("\n", " ") if table.show_header else ""
            if _plain(cell).plain:
                yield Text(" ".join(filter(None, ["", heading, _plain(cell).plain])))


def _plain(cell: Any) -> Text:
    return cell if isinstance(cell, Text) else Text.from_markup(str(cell))


class Bar:
    """A progress bar in a terminal, in one line that fits it; in a pipe it is not drawn.

    It appears with the first `update`, when there is something to tell.
    """

    def __init__(self, out: Console) -> None:
        self.is_drawn = out.file.isatty() and not out.is_dumb_terminal
        self._console = out
        self._live = Live(console=out, transient=True, auto_refresh=False)

    def update(self, done: float, texts: Sequence[str]) -> None:
        """Show the part that is done, from 0 to 1, and those texts there is room for.

        Args:
            texts: the most important ones first.
        """
        if self.is_drawn:
            self._live.start()
            self._live.update(bar_line(done, texts, self._console.width), refresh=True)

    def stop(self) -> None:
        """Take the bar away."""
        self._live.stop()


def bar_line(done: float, texts: Sequence[str], width: int) -> Text:
    """A line of at most `width - 1` characters: the bar, if there is room, after the first text."""
    fitting = [
        list(texts[:count])
        for count in range(len(texts), 0, -1)
        if len("  ".join(texts[:count])) < width
    ]
    shown = fitting[0] if fitting else []
    room = min(_BAR, width - 1 - len("  ".join([*shown, ""])))
    if shown and room >= _LEAST_BAR:
        filled = round(done * room)
        shown.insert(1, "━" * filled + " " * (room - filled))
    return Text("  ".join(shown), no_wrap=True)


def _can_write(encoding: str) -> bool:
    try:
        _CHARACTERS.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
