"""The curves of a training: few points, however long it takes."""

from typing import Any

import numpy as np

_MOST = 300  # points; beyond, each two become one


class Curve:
    """Points of loss and accuracies by step; one is a dictionary of numbers and lists of numbers.

    All points have the same fields. `steps` counts the steps a point's losses are the mean of.
    `revision` changes where earlier points do, so that whoever has seen some knows what to get.
    """

    def __init__(self) -> None:
        self.revision = 0
        self.points: list[dict[str, Any]] = []

    def add(self, point: dict[str, Any]) -> None:
        """Add a point, and thin them out where there are too many."""
        points = [*self.points, point]
        if len(points) > _MOST:
            # The first stays as it is, and so does the newest.
            head, middle, tail = points[:1], points[1:-1], points[-1:]
            pairs = [merge(*middle[i : i + 2]) for i in range(0, len(middle) - 1, 2)]
            points = [*head, *pairs, *middle[2 * len(pairs) :], *tail]
            self.revision += 1
        self.points = points


def merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """One point at the place of the second: losses are means over steps, accuracies of both."""
    weights = [first["steps"], second["steps"]]
    merged = dict(second)
    for name in second:
        if name in ("step", "seconds", "examples"):
            continue
        if name == "steps":
            merged[name] = sum(weights)
            continue
        pair = [first[name], second[name]]
        if any(part is None for part in pair):
            merged[name] = next((part for part in reversed(pair) if part is not None), None)
            continue
        merged[name] = np.average(np.array(pair, float), axis=0, weights=weights).tolist()
    return merged
