"""What a run shows while it goes: a progress bar in a terminal, plain lines in a pipe."""

import sys
import time
from types import TracebackType

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mnist_jax.loop import Chunk

_SECONDS_BETWEEN_LINES = 10.0
_SHADES = " ░▒▓█"


class TrainingDisplay:
    """A context manager; `update` it with each chunk, `print` lines above the bar."""

    def __init__(self, epochs: int, images_per_step: int, steps_done: int = 0) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._console.width = self._console.width or 80  # COLUMNS may be 0
        self._draws_bar = sys.stdout.isatty() and not self._console.is_dumb_terminal
        self._epochs = epochs
        self._images_per_step = images_per_step
        self._steps_done = steps_done
        self._images = 0
        self._seconds = 0.0
        self._last_line = time.perf_counter()
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            transient=True,
            disable=not self._draws_bar,
        )
        self._task = self._progress.add_task(
            "", total=None, epoch=1, epochs=epochs, status="compiling"
        )

    def __enter__(self) -> "TrainingDisplay":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def update(self, chunk: Chunk) -> None:
        """Show a chunk's loss (its mean over members and steps), the speed and the time left."""
        self._steps_done += chunk.losses.shape[1]
        self._images += chunk.losses.shape[1] * self._images_per_step
        self._seconds += chunk.seconds
        speed = self._images / self._seconds
        loss = float(chunk.losses.mean())
        total = self._epochs * chunk.steps
        self._progress.update(
            self._task,
            total=total,
            completed=self._steps_done,
            epoch=chunk.epoch,
            status=f"loss {loss:.4f}  {speed:,.0f} images/s",
        )
        now = time.perf_counter()
        if not self._draws_bar and now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (total - self._steps_done) * self._images_per_step / speed
            self.print(
                f"epoch {chunk.epoch}/{self._epochs} step {chunk.steps_done}/{chunk.steps} "
                f"loss {loss:.4f} {speed:,.0f} images/s, {left / 60:.1f} minutes left"
            )

    def print(self, line: str) -> None:
        """Print a line, above the bar where there is one."""
        self._console.print(line, markup=False)
        self._console.file.flush()


def draw(image: np.ndarray) -> str:
    """A digit as text, two characters a pixel; `image` is uint8 `[height, width, 1]`."""
    levels = image[..., 0].astype(int) * len(_SHADES) // 256
    rows = ["".join(_SHADES[level] * 2 for level in row).rstrip() for row in levels]
    inked = [i for i, row in enumerate(rows) if row]
    return "\n".join(rows[inked[0] : inked[-1] + 1]) if inked else ""
