"""What a run shows while it goes: a progress bar in a terminal, plain lines in a pipe."""

import time
from types import TracebackType
from typing import Self

import numpy as np
from rich.console import Console

from experiments.console.terminal import Bar
from mnist_jax.loop import Chunk

_SECONDS_BETWEEN_LINES = 10.0
_SHADES = " ░▒▓█"


class _Display:
    """A context manager with a bar in a terminal, which is taken away at its end."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._console.width = self._console.width or 80  # COLUMNS may be 0
        self._bar = Bar(self._console)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """Take the bar away, until there is something to tell again."""
        self._bar.stop()

    def print(self, line: str) -> None:
        """Print a line, above the bar where there is one."""
        self._console.print(line, markup=False)
        self._console.file.flush()


class TrainingDisplay(_Display):
    """A context manager; `update` it with each chunk, `print` lines above the bar.

    Args:
        inputs_per_step: of all members.
        what: an input is.
    """

    def __init__(
        self, epochs: int, inputs_per_step: int, steps_done: int = 0, what: str = "image"
    ) -> None:
        super().__init__()
        self._epochs = epochs
        self._inputs_per_step = inputs_per_step
        self._what = what
        self._steps_done = steps_done
        self._inputs = 0
        self._seconds = 0.0
        self._last_line = time.perf_counter()

    def update(self, chunk: Chunk) -> None:
        """Show a chunk's loss (its mean over members and steps), the speed and the time left."""
        self._steps_done += chunk.losses.shape[1]
        self._inputs += chunk.losses.shape[1] * self._inputs_per_step
        self._seconds += chunk.seconds
        speed = self._inputs / self._seconds
        loss = float(chunk.losses.mean())
        total = self._epochs * chunk.steps
        left = (total - self._steps_done) * self._inputs_per_step / speed
        epoch = f"epoch {chunk.epoch}/{self._epochs}"
        rate = f"{speed:,.0f} {self._what}s/s"
        texts = [epoch, f"loss {loss:.4f}", f"{duration(left)} left", rate]
        self._bar.update(self._steps_done / total, texts)
        now = time.perf_counter()
        if not self._bar.is_drawn and now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self.print(
                f"{epoch} step {chunk.steps_done}/{chunk.steps} loss {loss:.4f} "
                f"{rate}, {duration(left)} left"
            )


class WorkDisplay(_Display):
    """A context manager for work whose parts are known: one bar, or in a pipe a line for each."""

    def __init__(self) -> None:
        super().__init__()
        self._started = time.perf_counter()

    def begin(self, what: str, done: float) -> None:
        """Show what comes next, and how much is done before it: from 0 to 1 of all."""
        if not self._bar.is_drawn:
            self.print(what)
            return
        spent = time.perf_counter() - self._started
        left = [f"{duration(spent * (1 - done) / done)} left"] if done > 0 else []
        self._bar.update(done, [f"{done:.0%}", *left, what])


def duration(seconds: float) -> str:
    """Hours where there are some, minutes and seconds: `1:02:03`, `0:07`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def draw(image: np.ndarray) -> str:
    """A digit as text, two characters a pixel; `image` is uint8 `[height, width, 1]`."""
    levels = image[..., 0].astype(int) * len(_SHADES) // 256
    rows = ["".join(_SHADES[level] * 2 for level in row).rstrip() for row in levels]
    inked = [i for i, row in enumerate(rows) if row]
    return "\n".join(rows[inked[0] : inked[-1] + 1]) if inked else ""
