"""Which move a policy network's probabilities make: the likeliest that is sensible."""

from collections.abc import Callable

import numpy as np

from mnist_jax.go import eyes, planes, rules
from mnist_jax.go.rules import BLACK, Position

_ENOUGH = 2  # times the points of the board: turns after which nothing is to be won

# Packed planes uint8 [1, size, size, 6] to log-probabilities [size * size]
Predict = Callable[[np.ndarray], np.ndarray]


def choose(position: Position, after_pass: bool, predict: Predict, komi: float) -> int | None:
    """The likeliest move that is legal and does not fill an own true eye; None to pass.

    It passes where there is no such move; and after a pass, where it is ahead with the stones as
    they stand, or where the game goes on for very long.
    """
    if after_pass:
        ahead = rules.score(position, komi) * (1 if position.to_play == BLACK else -1) > 0
        if ahead or position.turn > _ENOUGH * len(position.stones):
            return None
    likely = np.argsort(-predict(planes.pack(planes.of(position))[None]), kind="stable")
    size, color = position.size, position.to_play
    for point in map(int, likely):
        is_eye = eyes.is_true_eye(size, position.stones, point, color)
        if not is_eye and rules.is_legal(position, point):
            return point
    return None
