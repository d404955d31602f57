"""Where the time of a command goes."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PHASES = (
    "imports",
    "data",
    "kernels",
    "initial_values",
    "compiling",
    "training",
    "validation",
    "checkpoints",
    "evaluation",
    "closing",
)
_OTHER = "other"
_LONGEST_START = 60  # seconds; a process that is older was another program first, as by `exec`


class Clock:
    """The seconds of each phase of a command, and of what is in none; they add up to all of them.

    Before there is a clock, a command imports.

    At any time one phase goes on. What goes on beside it, such as writing a checkpoint in the
    background, is nobody's time.
    """

    def __init__(self, started: float | None = None) -> None:
        """`started` is `time.perf_counter()` at the command's start; default now."""
        self._seconds = dict.fromkeys((*PHASES, _OTHER), 0.0)
        self._phase = _OTHER
        self._since = time.perf_counter()
        self._seconds["imports"] = 0.0 if started is None else self._since - started

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """The phase is this one within the context, and the one before after it."""
        before = self._phase
        self._turn_to(phase)
        try:
            yield
        finally:
            self._turn_to(before)

    @contextmanager
    def waiting(self, phase: str, what: str) -> Iterator[None]:
        """`during`, and a line on standard output: what is waited for, then the seconds it took."""
        with waiting(what), self.during(phase):
            yield

    def seconds(self) -> dict[str, float]:
        """All of them up to now, by phase."""
        self._turn_to(self._phase)
        return dict(self._seconds)

    def _turn_to(self, phase: str) -> None:
        now = time.perf_counter()
        self._seconds[self._phase] += now - self._since
        self._phase, self._since = phase, now


def process_started() -> float:
    """`time.perf_counter()` at this process's start, where Linux tells it; elsewhere as if the
    process had always been at work."""
    age = time.process_time()
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # seconds after the machine's start
        by_clock = time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, AttributeError, ValueError, IndexError):
        by_clock = age
    if age < by_clock < _LONGEST_START:
        age = by_clock
    return time.perf_counter() - age


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A line on standard output: what is waited for, then the seconds it took."""
    print(f"{what} ... ", end="", flush=True)
    started = time.perf_counter()
    took = ""
    try:
        yield
        took = f"{time.perf_counter() - started:.1f} s"
    finally:
        print(took, flush=True)


def in_words(seconds: dict[str, float]) -> str:
    """The sum and its parts, without those below a twentieth of a second."""
    parts = [
        f"{phase.replace('_', ' ')} {spent:.1f}" for phase, spent in seconds.items() if spent > 0.05
    ]
    return f"{sum(seconds.values()):.1f} s in all: {', '.join(parts)}."
