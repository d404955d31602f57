"""Positions as packed planes, in C++: one, or all of recorded games, on all cores."""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from mnist_jax import kernels
from mnist_jax.data.names import DataError
from mnist_jax.go import planes, rules
from mnist_jax.go.rules import IllegalMove, Position
from mnist_jax.go.sgf import Game

_REASONS: tuple[rules.Reason, ...] = ("occupied", "suicide", "ko", "not on the board")  # planes.cc


class Positions(NamedTuple):
    """All positions in which somebody moved, game by game."""

    planes: np.ndarray  # uint8 [n, size, size, 6], from `planes.pack`
    moves: np.ndarray  # int32 [n], the points played
    turns: np.ndarray  # int32 [n], moves of the game before, passes too
    games: np.ndarray  # int32 [n], which game


def positions(games: Sequence[Game]) -> Positions:
    """The positions of games on boards of one size; passes are no moves to learn.

    Raises:
        DataError: a move is against the rules, naming the game and the move, or boards differ.
    """
    sizes = sorted({game.size for game in games})
    if len(sizes) > 1:
        raise DataError(f"boards must be of one size, not of {', '.join(map(str, sizes))}.")
    size = sizes[0] if sizes else 19
    moves = [[(i, p) for i, (_, p) in enumerate(game.moves) if p is not None] for game in games]
    ends = np.cumsum([0, *map(len, moves)])
    made = np.empty((ends[-1], size, size, planes.BYTES), np.uint8)
    parts = [made[first:last] for first, last in pairwise(ends)]
    with ThreadPoolExecutor() as threads:
        list(threads.map(_describer(), games, parts))
    pairs = np.array([pair for game in moves for pair in game], np.int32).reshape(-1, 2)
    numbers = np.repeat(np.arange(len(games), dtype=np.int32), np.diff(ends))
    return Positions(made, pairs[:, 1], pairs[:, 0], numbers)


def packed(position: Position) -> np.ndarray:
    """The planes of one position, uint8 `[size, size, 6]`: `planes.pack` of `planes.of`.

    Raises:
        ValueError: it is none that `rules.start`, `set_up` and `play` make.
    """
    _check(position)  # C++ reads and writes where it says
    library = kernels.host_library("go")
    if library is None or position.before is not None:  # super-ko is planes.py's alone
        return planes.pack(planes.of(position))
    stones = np.frombuffer(position.stones, np.uint8)
    played = np.array(position.played, np.int32)
    made = np.empty((position.size, position.size, planes.BYTES), np.uint8)
    given, turns, out = (ctypes.c_void_p(array.ctypes.data) for array in (stones, played, made))
    ko = -1 if position.ko is None else position.ko
    size, color = position.size, position.to_play
    library.describe_position(size, given, turns, color, ko, position.turn, out)
    return made


def _check(position: Position) -> None:
    size, points = position.size, len(position.stones)
    if not 2 <= size <= rules.LARGEST or points != size * size or len(position.played) != points:
        raise ValueError(
            f"position has stones at {points} points and turns of {len(position.played)}, on a "
            f"board of {size} x {size}. Begin with rules.start."
        )
    if not 0 <= min(position.played) <= max(position.played) <= position.turn:
        raise ValueError(
            f"position.played must be from 0 to position.turn, {position.turn}, not from "
            f"{min(position.played)} to {max(position.played)}."
        )


def forbidden(games: Sequence[Game]) -> list[DataError | None]:
    """Of each game, what is wrong with its first move against the rules; None where none is."""
    describe = _describer()

    def check(game: Game) -> DataError | None:
        try:
            describe(game, None)
        except DataError as error:
            return error
        return None

    with ThreadPoolExecutor() as threads:
        return list(threads.map(check, games))


def replay(game: Game) -> Iterator[Position]:
    """The position before each move of a game, passes too, and the one at the end.

    Raises:
        DataError: a move is against the rules, naming the game and the move.
    """
    position = rules.set_up(rules.start(game.size), game.stones, game.to_play)
    for number, (color, point) in enumerate(game.moves):
        position = position._replace(to_play=color)
        yield position
        try:
            position = rules.play(position, point)
        except IllegalMove as error:
            raise _forbidden(game, number, error.reason) from None
    yield position


def _describer() -> Callable[[Game, np.ndarray | None], None]:
    """What writes the planes of a game's positions, or only plays it."""
    library = kernels.host_library("go")
    return _describe if library is None else partial(_describe_fast, library.describe_game)


def _describe(game: Game, out: np.ndarray | None) -> None:
    played = [*(point is not None for _, point in game.moves), False]
    wanted = (position for position, is_move in zip(replay(game), played, strict=True) if is_move)
    for i, position in enumerate(wanted):
        if out is not None:
            out[i] = planes.pack(planes.of(position))


def _describe_fast(function: Callable[..., int], game: Game, out: np.ndarray | None) -> None:
    stones = np.frombuffer(rules.set_up(rules.start(game.size), game.stones).stones, np.uint8)
    colors = np.array([color for color, _ in game.moves], np.uint8)
    moves = np.array([-1 if point is None else point for _, point in game.moves], np.int16)
    reason = ctypes.c_int()
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (stones, colors, moves)]
    into = ctypes.c_void_p(None if out is None else out.ctypes.data)
    failed = function(game.size, pointers[0], len(moves), *pointers[1:], into, ctypes.byref(reason))
    if failed:
        raise _forbidden(game, failed - 1, _REASONS[reason.value - 1])


def _forbidden(game: Game, number: int, reason: rules.Reason) -> DataError:
    color, point = game.moves[number]
    name = "Black" if color == rules.BLACK else "White"
    vertex = rules.to_vertex(game.size, point)
    return DataError(
        f"{game.where}, move {number + 1}: {name} at {vertex} is against the rules ({reason})."
    )
