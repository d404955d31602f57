"""What members say of test images: the last of them, the confusions, the hardest."""

import threading
from typing import Any, NamedTuple

import numpy as np

from experiments.live_page import answers

_KEPT = 1000  # the last predictions
_AT_ONCE = 100
_MOVED = 6  # copies of each image where their mean is asked for, as on ConvNetJS's CIFAR-10 page
_SHOWN, _HARDEST = 8, 12
_ACCURACY_OF = 200
_FLIPPED = (32, 32, 3)  # images of things, which may be mirrored


class Answer(NamedTuple):
    """What is said of one test image."""

    place: int  # among the test images
    label: int
    probabilities: np.ndarray  # the members' mean, float32 [classes]
    votes: tuple[int, ...]  # one a member
    mutual_information: float
    step: int


class Predictions:
    """The last answers; each image is among them once, with the newest.

    One thread adds, others describe.
    """

    def __init__(self, class_names: tuple[str, ...], images_key: str = "") -> None:
        self.class_names = class_names
        self.images_key = images_key
        self.averages = False
        self.version = 0
        self._answers: dict[int, Answer] = {}  # the oldest first
        self._test_images = 0
        self._lock = threading.Lock()

    def is_full_at(self, step: int) -> bool:
        """Whether all that are kept were given by the weights of one step."""
        wanted = min(_KEPT, self._test_images)
        with self._lock:
            at_step = sum(answer.step == step for answer in self._answers.values())
        return 0 < wanted <= at_step

    def choose(
        self, images: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Test images to be predicted next, with moved copies where `averages`, and their places.

        Returns:
            Inputs `[n * copies, ...]`, copies of an image side by side, and int `[n]`.
        """
        self._test_images = len(images)
        count = min(_AT_ONCE // (_MOVED if self.averages else 1), len(images))
        chosen = random.choice(len(images), count, replace=False)
        if not self.averages:
            return images[chosen], chosen
        copies = [moved_copies(images[i], random) for i in chosen]
        return np.concatenate(copies), chosen

    def add(self, chosen: np.ndarray, labels: np.ndarray, logits: np.ndarray, step: int) -> None:
        """Add answers.

        Args:
            chosen: int `[n]`, places among the test images.
            labels: int `[n]`.
            logits: float32 `[members, n, classes]`, or of copies, `[members, n * copies, classes]`.
            step: of the weights.
        """
        members, rows, classes = logits.shape
        copies = rows // len(chosen)
        if copies > 1:  # the mean of a member's probabilities
            by_copy = answers.combine(logits).probabilities
            alone = by_copy.reshape(members, len(chosen), copies, classes).mean(axis=2)
            logits = np.log(np.maximum(alone, 1e-30))
        combined = answers.combine(logits)
        votes = logits.argmax(axis=-1).T
        with self._lock:
            for i, index in enumerate(chosen.tolist()):
                self._answers.pop(index, None)
                self._answers[index] = Answer(
                    *(index, int(labels[i]), combined.mean[i], tuple(votes[i].tolist())),
                    *(float(combined.mutual_information[i]), step),
                )
            while len(self._answers) > _KEPT:
                del self._answers[next(iter(self._answers))]
            self.version += 1

    def describe(self) -> dict[str, Any]:
        """As JSON can hold it."""
        with self._lock:
            given = list(self._answers.values())
        last = given[-_ACCURACY_OF:]
        right = [_is_right(answer) for answer in last]
        wrong = sorted(
            (answer for answer in given if not _is_right(answer)),
            key=lambda answer: -answer.probabilities.max(),
        )
        differing = [answer for answer in given if len(set(answer.votes)) > 1]
        differing.sort(key=lambda answer: -answer.mutual_information)
        return {
            "images": self.images_key,
            "count": len(given),
            "averages": _MOVED if self.averages else 0,
            "accuracy": float(np.mean(right)) if right else None,
            "accuracy_of": len(last),
            "accuracy_of_all": float(np.mean([*map(_is_right, given)])) if given else None,
            "member_accuracies": _member_accuracies(last),
            "recent": [self._row(answer) for answer in reversed(given[-_SHOWN:])],
            "wrong": [self._row(answer) for answer in wrong[:_HARDEST]],
            "wrong_count": len(wrong),
            "differing": [self._row(answer) for answer in differing[:_HARDEST]],
            "differing_count": len(differing),
            "confusion": confusion(given, len(self.class_names)).tolist(),
        }

    def _row(self, answer: Answer) -> dict[str, Any]:
        best = np.argsort(-answer.probabilities)[:3]
        return {
            "place": answer.place,
            "label": self.class_names[answer.label],
            "right": _is_right(answer),
            "bars": [[self.class_names[i], float(answer.probabilities[i])] for i in best],
            "votes": [self.class_names[vote] for vote in answer.votes],
            "mutual_information": answer.mutual_information,
        }


def confusion(given: list[Answer], classes: int) -> np.ndarray:
    """How many images of each class (rows) were taken for which (columns), int `[classes] * 2`."""
    counts = np.zeros((classes, classes), int)
    for answer in given:
        counts[answer.label, answer.probabilities.argmax()] += 1
    return counts


def moved_copies(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """An image and copies moved by up to two pixels, of things also mirrored: `[6, h, w, c]`."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    copies = [image]
    for _ in range(_MOVED - 1):
        top, left = random.integers(0, 5, 2)
        moved = padded[top : top + height, left : left + width]
        mirrored = image.shape == _FLIPPED and random.random() < 0.5
        copies.append(moved[:, ::-1] if mirrored else moved)
    return np.stack(copies)


def _is_right(answer: Answer) -> bool:
    return int(answer.probabilities.argmax()) == answer.label


def _member_accuracies(given: list[Answer]) -> list[float]:
    if not given:
        return []
    votes = np.array([answer.votes for answer in given])
    labels = np.array([answer.label for answer in given])
    return (votes == labels[:, None]).mean(axis=0).tolist()
