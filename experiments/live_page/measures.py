"""What is measured of one training: its curve, its speed, when it reached which accuracy."""

import time
from collections import deque
from typing import Any

import numpy as np

from experiments.live_page import answers
from experiments.live_page.curve import Curve
from mnist_jax.loop import Chunk

RECENT = 500  # validation images, at least, that an accuracy is of, where there are as many
GOALS = (0.9, 0.95, 0.97, 0.98, 0.99, 0.995)
_RATE_SECONDS = 5.0  # that images a second are a mean over


class Measures:
    """Filled by the thread that trains; others read `curve`."""

    def __init__(self, members: int, validation_images: int) -> None:
        self.curve = Curve()
        self.examples = 0  # that each member was trained on
        self.seconds = 0.0  # of training and of the curves' accuracies, without compilation
        self.decay_loss = 0.0
        self.train_accuracy: list[float] | None = None
        self.goals: list[dict[str, float]] = []
        self._members = members
        self._enough = min(RECENT, validation_images)
        self._began_at = time.monotonic()
        self._example_seconds: float | None = None  # of one member for one image, both ways
        self._forward_seconds: float | None = None  # likewise, forward
        self._losses: list[list[float]] = []  # [steps][members] since the last point
        self._last_losses: deque[float] = deque(maxlen=20)
        self._rates: deque[tuple[float, int]] = deque()  # when so many images were done
        self._validated: list[tuple[np.ndarray, np.ndarray]] = []  # logits and labels

    def add_chunk(self, chunk: Chunk, batch_size: int) -> None:
        """After a chunk of steps."""
        steps = chunk.losses.shape[1]
        self._losses += chunk.losses.T.tolist()
        self._last_losses.extend(chunk.losses.mean(axis=0).tolist())
        self.examples += steps * batch_size
        self.seconds += chunk.seconds
        self._example_seconds = chunk.seconds / (chunk.losses.size * batch_size)
        self._rates.append((time.perf_counter(), chunk.losses.size * batch_size))
        while self._rates[-1][0] - self._rates[0][0] > _RATE_SECONDS and len(self._rates) > 2:
            self._rates.popleft()

    def forget_speed(self) -> None:
        """After what was no training, as compilation and pauses."""
        self._rates.clear()

    def add_validation(self, logits: np.ndarray, labels: np.ndarray, seconds: float) -> None:
        """After a few validation images, or all; logits are `[members, n, classes]`."""
        self._forward_seconds = seconds / (len(labels) * self._members)
        parts = [*self._validated, (logits, labels)]
        while sum(len(part[1]) for part in parts[1:]) >= self._enough:
            parts.pop(0)
        self._validated = parts

    def validated(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Logits and labels of the validation images that were looked at last."""
        if not self._validated:
            return None
        logits, labels = zip(*self._validated, strict=True)
        return np.concatenate(logits, axis=1), np.concatenate(labels)

    def add_point(self, step: int) -> None:
        """A point of the curve, of all since the last one."""
        if not self._losses:
            return
        point: dict[str, Any] = {
            "step": step,
            "examples": self.examples,
            "seconds": self.seconds,
            "steps": len(self._losses),
            "loss": np.mean(self._losses, axis=0).tolist(),
            "train": self.train_accuracy,
            "validation": None,
            "validation_loss": None,
        }
        self._losses = []
        validated = self.validated()
        if validated is not None:
            logits, labels = validated
            point["validation"] = answers.accuracies(logits, labels)
            point["validation_loss"] = answers.nll(answers.combine(logits).mean, labels)
            self._note_goals(point, len(labels))
        self.curve.add(point)

    def _note_goals(self, point: dict[str, Any], images: int) -> None:
        """When an accuracy of all members together was first reached."""
        reached = {entry["accuracy"] for entry in self.goals}
        if images < self._enough:
            return
        for goal in GOALS:
            if point["validation"][-1] >= goal and goal not in reached:
                when = {name: point[name] for name in ("step", "examples", "seconds")}
                wall = time.monotonic() - self._began_at
                entry = {"accuracy": goal, "wall_seconds": wall, "images": images}
                self.goals = [*self.goals, entry | when]

    def images_per_second(self) -> float | None:
        """Of all members, by the clock: with all that is done between the chunks."""
        if len(self._rates) < 2:
            return None
        (began, _), *others = self._rates
        return sum(images for _, images in others) / (others[-1][0] - began)

    def figures(self) -> dict[str, Any]:
        """As JSON can hold them."""
        forward, whole = self._forward_seconds, self._example_seconds
        last = self.curve.points[-1] if self.curve.points else None
        return {
            "examples": self.examples,
            "seconds": self.seconds,
            "images_per_second": self.images_per_second(),
            "forward_ms": forward and 1000 * forward,
            "backward_ms": forward and whole and 1000 * max(whole - forward, 0.0),
            "loss": float(np.mean(self._last_losses)) if self._last_losses else None,
            "decay_loss": self.decay_loss,
            "train_accuracy": self.train_accuracy,
            "validation_accuracy": last and last["validation"],
            "goals": self.goals,
        }
