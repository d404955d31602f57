"""Ladders: whether a chain can be captured, or saved, by moves that leave it one or two liberties.

A chain escapes with three liberties, or with two of which neither is a ladder capture. Reading ends
after `MOST_MOVES` tried for one question; of what is open then it is taken that the chain escapes.

Source: github.com/Rochester-NRT/RocAlphaGo, whose choices the planes follow where AlphaGo's paper
leaves them open.
"""

from mnist_jax.go import rules
from mnist_jax.go.rules import EMPTY, IllegalMove, Position, chain, liberties, neighbors, opponent

MOST_MOVES = 400  # tried for one question; a ladder across the board needs about 200
MOST_DEPTH = 100  # moves of a line


class _Budget:
    """How many moves may still be tried."""

    def __init__(self) -> None:
        self.left = MOST_MOVES


def captures(position: Position, point: int) -> bool:
    """Whether a move is a ladder capture.

    A chain beside it had two liberties, and whatever its owner does then, it is taken in the end.
    """
    size, stones = position.size, position.stones
    budget = _Budget()
    return any(
        _captures(position, point, prey, budget, MOST_DEPTH)
        for prey in _chains_beside(position, point, opponent(position.to_play))
        if len(liberties(size, stones, chain(size, stones, prey))) == 2
    )


def escapes(position: Position, point: int) -> bool:
    """Whether a move is a ladder escape: it saves an own chain in atari."""
    size, stones = position.size, position.stones
    budget = _Budget()
    in_atari = [
        min(own)
        for own in rules.chains(size, stones, position.to_play)
        if len(liberties(size, stones, own)) == 1
    ]
    return any(
        _escapes(position, point, own, budget, MOST_DEPTH)
        for own in in_atari
        if point in _rescues(position, own)
    )


def _captures(position: Position, point: int, prey: int, budget: _Budget, depth: int) -> bool:
    """Whether the hunter's move captures the chain at `prey` in the end."""
    after = _try(position, point, budget, depth)
    if after is None:
        return False
    return not any(_escapes(after, way, prey, budget, depth - 1) for way in _rescues(after, prey))


def _escapes(position: Position, point: int, prey: int, budget: _Budget, depth: int) -> bool:
    """Whether the move of the owner of the chain at `prey` saves it."""
    after = _try(position, point, budget, depth)
    if after is None:
        return budget.left <= 0 or depth <= 0
    left = liberties(after.size, after.stones, chain(after.size, after.stones, prey))
    if len(left) != 2:
        return len(left) > 2
    return not any(_captures(after, way, prey, budget, depth - 1) for way in sorted(left))


def _try(position: Position, point: int, budget: _Budget, depth: int) -> Position | None:
    """The position after a move; None where it is illegal, or there is no reading on."""
    if depth <= 0 or budget.left <= 0:
        return None
    budget.left -= 1
    try:
        return rules.play(position, point)
    except IllegalMove:
        return None


def _rescues(position: Position, prey: int) -> list[int]:
    """What can save the chain at `prey`: its liberties, and those of attackers in atari."""
    size, stones = position.size, position.stones
    own = chain(size, stones, prey)
    ways = set(liberties(size, stones, own))
    enemies = {b for p in own for b in neighbors(size)[p]} - own
    for enemy in enemies:
        if stones[enemy] != EMPTY:
            theirs = liberties(size, stones, chain(size, stones, enemy))
            if len(theirs) == 1:
                ways |= theirs
    return sorted(ways)


def _chains_beside(position: Position, point: int, color: int) -> list[int]:
    """One stone of each chain of a colour beside a point, the chain's first."""
    size, stones = position.size, position.stones
    beside = [b for b in neighbors(size)[point] if stones[b] == color]
    return sorted({min(chain(size, stones, b)) for b in beside})
