"""Which move a policy network's probabilities make: the likeliest that is sensible."""

from collections.abc import Callable

import numpy as np

from mnist_jax import ensemble
from mnist_jax.go import eyes, records, rules, symmetries
from mnist_jax.go.rules import BLACK, Position

_ENOUGH = 2  # times the points of the board: turns after which nothing is to be won

# Packed planes uint8 [1, size, size, 6] to log-probabilities [size * size]
Predict = Callable[[np.ndarray], np.ndarray]


def from_logits(predict: Callable[[np.ndarray], np.ndarray]) -> Predict:
    """What `choose` asks, by the mean probability of the members and of the board's symmetries.

    Args:
        predict: packed planes to the members' logits `[members, n, points]`.
    """
    all_ways = np.arange(symmetries.COUNT, dtype=np.int32)

    def of_all(packed: np.ndarray) -> np.ndarray:
        boards = np.repeat(packed, symmetries.COUNT, axis=0)
        logits = symmetries.predict_turned(predict, boards, all_ways)
        as_members = logits.reshape(-1, 1, logits.shape[-1])
        return np.asarray(ensemble.mean_probability(as_members))[0]

    return of_all


def choose(
    position: Position,
    after_pass: bool,
    predict: Predict,
    komi: float,
    rng: np.random.Generator | None = None,
) -> int | None:
    """The likeliest move that is legal and does not fill an own true eye; None to pass.

    It passes where there is no such move; and after a pass, where it is ahead with the stones as
    they stand, or where the game goes on for very long.

    Args:
        rng: draws the move by the probabilities, in place of the likeliest.
    """
    if after_pass:
        ahead = rules.score(position, komi) * (1 if position.to_play == BLACK else -1) > 0
        if ahead or position.turn > _ENOUGH * len(position.stones):
            return None
    scores = predict(records.packed(position)[None])
    if rng is not None:  # the order of scores with Gumbel's noise is one of draws
        scores = scores + rng.gumbel(size=len(scores))
    likely = np.argsort(-scores, kind="stable")
    size, color = position.size, position.to_play
    for point in map(int, likely):
        is_eye = eyes.is_true_eye(size, position.stones, point, color)
        if not is_eye and rules.is_legal(position, point):
            return point
    return None
