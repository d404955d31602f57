"""AlphaGo's 48 planes of a position, which its policy network sees.

Source: Silver et al. 2016, "Mastering the game of Go with deep neural networks and tree search",
Extended Data Table 2. All are of whose turn it is. Where the paper leaves something open, the
choices are those of github.com/Rochester-NRT/RocAlphaGo:

- turns since and liberties are zero at empty points; the last plane of eight means 8 or more;
- capture size is of legal moves alone, the first plane captures nothing, the last 7 or more;
- self-atari is where the chain has one liberty after the move, the plane its size;
- liberties after the move are counted with what it captures gone;
- a stone that was set up was played 8 or more turns ago;
- sensible is what is legal and does not fill an own true eye (`eyes.py`).
"""

from itertools import accumulate

import jax.numpy as jnp
import numpy as np
from jax import Array

from mnist_jax.go import eyes, ladders, rules
from mnist_jax.go.rules import EMPTY, IllegalMove, Position, chain, liberties, opponent

FEATURES = {  # planes of each, in order
    "stone colour": 3,
    "ones": 1,
    "turns since": 8,
    "liberties": 8,
    "capture size": 8,
    "self-atari size": 8,
    "liberties after the move": 8,
    "ladder capture": 1,
    "ladder escape": 1,
    "sensibleness": 1,
    "zeros": 1,
}
COUNT = sum(FEATURES.values())
BYTES = COUNT // 8  # of a packed point
SUBSETS = (4, 12, 20, 48)  # the first planes that the paper also trained on
_ends = list(accumulate(FEATURES.values()))
FIRST = dict(zip(FEATURES, [0, *_ends[:-1]], strict=True))  # plane of each feature
LEGAL = slice(FIRST["liberties after the move"], FIRST["ladder capture"])  # one is set where legal
_MOST = 8


def of(position: Position) -> np.ndarray:
    """All planes of a position, uint8 0 or 1 `[size, size, 48]`."""
    made = np.zeros((len(position.stones), COUNT), np.uint8)
    made[:, FIRST["ones"]] = 1
    _describe_stones(position, made)
    for point, color in enumerate(position.stones):
        if color == EMPTY:
            _describe_move(position, point, made[point])
    return made.reshape(position.size, position.size, COUNT)


def pack(planes: np.ndarray) -> np.ndarray:
    """Planes as bits, uint8 `[..., 6]`; plane i is bit i % 8 of byte i // 8."""
    return np.packbits(planes, axis=-1, bitorder="little")


def unpack(packed: Array) -> Array:
    """On the device, bits as float32 0 or 1 `[..., 48]`; a `training.Decode`."""
    bits = jnp.concatenate([(packed >> bit & 1)[..., None] for bit in range(8)], axis=-1)
    return bits.reshape(*packed.shape[:-1], -1).astype(jnp.float32)


def _describe_stones(position: Position, made: np.ndarray) -> None:
    size, stones, own = position.size, position.stones, position.to_play
    for point, color in enumerate(stones):
        made[point, 2 if color == EMPTY else int(color != own)] = 1
        if color != EMPTY:
            played = position.played[point]
            turns = position.turn - played + 1 if played else _MOST
            made[point, FIRST["turns since"] + min(turns, _MOST) - 1] = 1
    for color in (own, opponent(own)):
        for points in rules.chains(size, stones, color):
            count = len(liberties(size, stones, points))
            made[list(points), FIRST["liberties"] + min(count, _MOST) - 1] = 1


def _describe_move(position: Position, point: int, made: np.ndarray) -> None:
    size, own = position.size, position.to_play
    try:
        after = rules.play(position, point)
    except IllegalMove:
        return
    taken = position.stones.count(opponent(own)) - after.stones.count(opponent(own))
    made[FIRST["capture size"] + min(taken, _MOST - 1)] = 1
    mine = chain(size, after.stones, point)
    count = len(liberties(size, after.stones, mine))
    if count == 1:
        made[FIRST["self-atari size"] + min(len(mine), _MOST) - 1] = 1
    made[FIRST["liberties after the move"] + min(count, _MOST) - 1] = 1
    made[FIRST["ladder capture"]] = ladders.captures(position, point)
    made[FIRST["ladder escape"]] = ladders.escapes(position, point)
    made[FIRST["sensibleness"]] = not eyes.is_true_eye(size, position.stones, point, own)
