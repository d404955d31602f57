"""Eyes: empty points that their owner does better not to fill."""

from mnist_jax.go.rules import EMPTY, Stones, diagonals, neighbors, opponent


def is_true_eye(
    size: int, stones: Stones, point: int, color: int, around: tuple[int, ...] = ()
) -> bool:
    """Whether an empty point is an eye that its owner cannot lose.

    All points beside it are the owner's stones. Of its corners at most one, and none at the edge,
    is the opponent's, or empty without being a true eye itself.

    Args:
        around: eyes that are being looked at; each counts as one for those that depend on it.

    Source: `is_eye` of github.com/Rochester-NRT/RocAlphaGo, whose choices the planes follow where
    the paper leaves them open.
    """
    if stones[point] != EMPTY or any(stones[b] != color for b in neighbors(size)[point]):
        return False
    allowed = 1 if len(neighbors(size)[point]) == 4 else 0
    bad = 0
    for corner in diagonals(size)[point]:
        if stones[corner] == opponent(color):
            bad += 1
        elif stones[corner] == EMPTY and corner not in around:
            bad += not is_true_eye(size, stones, corner, color, (*around, point))
    return bad <= allowed
