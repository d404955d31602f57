"""Another program that plays Go: a process that is talked to by the Go Text Protocol."""

import queue
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

_BEGIN = re.compile(r"^[=?]\d*\s*")  # of an answer
_MOST_WAITING = 10_000  # lines; one that says more waits until they are read
_ENDING = 1.0  # seconds that a program has to end by itself


class ProgramError(RuntimeError):
    """A program cannot be talked to; the message says why."""


class Refused(ProgramError):
    """A program answered with a question mark; the message is what follows that."""


class Program:
    """A running program; a context manager that ends it.

    It does not hear of Ctrl-C, which is for the process that started it.

    Args:
        command: the program and its arguments.
        seconds: how long an answer may take.

    Raises:
        ProgramError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], seconds: float) -> None:
        self._seconds = seconds
        self._said = tempfile.TemporaryFile()  # noqa: SIM115, closed in `close`
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            self._said.close()
            raise ProgramError(f"{command[0]} cannot be started: {error.strerror}.") from None
        self._name = command[0]
        self._lines: queue.Queue[str | None] = queue.Queue(_MOST_WAITING)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    def ask(self, command: str) -> str:
        """Send a command; what is answered, without the equals sign.

        Raises:
            Refused: the answer begins with a question mark.
            ProgramError: the program has ended, takes too long, or does not speak GTP.
        """
        assert self._process.stdin
        with suppress(BrokenPipeError):  # what ended it is said below
            self._process.stdin.write(f"{command}\n")
            self._process.stdin.flush()
        text = self._read(command)
        mark, rest = text[0], _BEGIN.sub("", text)
        if mark == "?":
            raise Refused(rest)
        return rest

    def _read(self, command: str) -> str:
        """Lines up to an empty one that follows some."""
        lines: list[str] = []
        until = time.monotonic() + self._seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                line = ""
            if time.monotonic() >= until:
                raise ProgramError(
                    f"{self._name} took more than {self._seconds:g} seconds for {command}."
                )
            if line is None:
                raise ProgramError(f"{self._name} ended at {command}: {self._last_words()}.")
            if line.strip():
                lines.append(line.strip())
                if not _BEGIN.match(lines[0]):
                    raise ProgramError(
                        f"{self._name} answers {lines[0][:40]!r} to {command}, which is not GTP."
                    )
            elif lines:
                return "\n".join(lines)

    def _last_words(self) -> str:
        """The exit code, and the last line on standard error."""
        with suppress(subprocess.TimeoutExpired):  # it may only have closed its output
            self._process.wait(_ENDING)
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        code = self._process.returncode
        return ", ".join([f"exit code {code}", *(line.strip().rstrip(".") for line in lines[-1:])])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the program."""
        assert self._process.stdin
        with suppress(OSError):  # it has ended already
            self._process.stdin.write("quit\n")
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDING)
        self._process.kill()
        self._process.wait()
        self._said.close()
