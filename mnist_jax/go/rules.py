"""The rules: what a move does to a board. A `Position` is never changed; `play` gives a new one."""

import functools
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

EMPTY, BLACK, WHITE = 0, 1, 2
LARGEST = 25  # side of a board: GTP has so many letters
_MARKS = {EMPTY: ".", BLACK: "X", WHITE: "O"}
_LETTERS = "ABCDEFGHJKLMNOPQRSTUVWXYZ"  # of columns; there is no I

Stones = bytes  # a colour a point, row by row
Reason = Literal["occupied", "suicide", "ko", "super-ko", "not on the board"]


class IllegalMove(ValueError):
    """A move that the rules forbid."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Position(NamedTuple):
    """A board, whose turn it is, and what the rules need of the moves before."""

    size: int
    stones: Stones
    to_play: int = BLACK
    ko: int | None = None  # where one stone was just taken, which the other side must not take back
    turn: int = 0  # moves so far, passes too
    played: tuple[int, ...] = ()  # in which turn the stone of each point was played; 0: set up
    before: frozenset[Stones] | None = None  # all boards so far, under super-ko


def start(size: int = 19, super_ko: bool = False) -> Position:
    """An empty board.

    Args:
        size: of a side, from 2 to 25.
        super_ko: forbid each move that makes a board that there was before (positional super-ko),
            and not only the simple ko.

    Raises:
        ValueError: another size.
    """
    if not 2 <= size <= LARGEST:
        raise ValueError(f"size must be from 2 to {LARGEST}, not {size}.")
    stones = bytes(size * size)
    return Position(
        size, stones, played=(0,) * len(stones), before=frozenset([stones]) if super_ko else None
    )


def set_up(position: Position, stones: dict[int, int], to_play: int | None = None) -> Position:
    """Put stones on a board, or take them off, as a handicap or a problem has them.

    Raises:
        IllegalMove: a point is not on the board.
    """
    board, played = bytearray(position.stones), list(position.played)
    for point, color in stones.items():
        _check_point(position, point)
        board[point], played[point] = color, 0
    made = bytes(board)
    before = None if position.before is None else position.before | {made}
    return position._replace(
        stones=made,
        played=tuple(played),
        to_play=position.to_play if to_play is None else to_play,
        ko=None,
        before=before,
    )


def play(position: Position, point: int | None) -> Position:
    """The position after a move of `to_play`; None is a pass.

    Raises:
        IllegalMove: the point is not on the board or occupied, or it would be suicide, or ko.
    """
    turn, color = position.turn + 1, position.to_play
    if point is None:
        return position._replace(to_play=opponent(color), ko=None, turn=turn)
    _check_point(position, point)
    if position.stones[point] != EMPTY:
        raise IllegalMove("occupied")
    stones, captured = put(position.size, position.stones, color, point)
    if point == position.ko and captured:  # who has taken there captures nothing, and may fill it
        raise IllegalMove("ko")
    own = chain(position.size, stones, point)
    own_liberties = liberties(position.size, stones, own)
    if not own_liberties:
        raise IllegalMove("suicide")
    before = position.before
    if before is not None:
        if stones in before:
            raise IllegalMove("super-ko")
        before |= {stones}
    is_ko = len(captured) == len(own) == len(own_liberties) == 1
    played = list(position.played)
    played[point] = turn
    return Position(
        position.size,
        stones,
        opponent(color),
        captured[0] if is_ko else None,
        turn,
        tuple(played),
        before,
    )


def is_legal(position: Position, point: int) -> bool:
    """Whether `to_play` may play there."""
    try:
        play(position, point)
    except IllegalMove:
        return False
    return True


def legal_moves(position: Position) -> list[int]:
    """All points where `to_play` may play; passing is always allowed."""
    return [point for point in range(len(position.stones)) if is_legal(position, point)]


def opponent(color: int) -> int:
    """The other colour."""
    return BLACK + WHITE - color


def put(size: int, stones: Stones, color: int, point: int) -> tuple[Stones, list[int]]:
    """The board with a stone more, without what it captures, and the points captured."""
    board = bytearray(stones)
    board[point] = color
    captured: set[int] = set()
    for beside in neighbors(size)[point]:
        if board[beside] == opponent(color) and beside not in captured:
            other = chain(size, bytes(board), beside)
            if not liberties(size, bytes(board), other):
                captured |= other
    for taken in captured:
        board[taken] = EMPTY
    return bytes(board), sorted(captured)


def chain(size: int, stones: Stones, point: int) -> frozenset[int]:
    """The stones of one colour that hang together with the one at a point."""
    color, found, reached = stones[point], {point}, [point]
    while reached:
        for beside in neighbors(size)[reached.pop()]:
            if stones[beside] == color and beside not in found:
                found.add(beside)
                reached.append(beside)
    return frozenset(found)


def liberties(size: int, stones: Stones, points: frozenset[int]) -> frozenset[int]:
    """The empty points beside a chain."""
    around = neighbors(size)
    return frozenset(
        beside for point in points for beside in around[point] if stones[beside] == EMPTY
    )


def chains(size: int, stones: Stones, color: int) -> Iterator[frozenset[int]]:
    """All chains of a colour, by their first point."""
    seen: set[int] = set()
    for point, here in enumerate(stones):
        if here == color and point not in seen:
            found = chain(size, stones, point)
            seen |= found
            yield found


def without_liberties(size: int, stones: Stones) -> list[int]:
    """The points of all stones that could not stay on the board; a move leaves none."""
    return sorted(
        point
        for color in (BLACK, WHITE)
        for found in chains(size, stones, color)
        if not liberties(size, stones, found)
        for point in found
    )


@functools.cache
def neighbors(size: int) -> tuple[tuple[int, ...], ...]:
    """Of each point those above, on the left, on the right and below."""
    return _beside(size, ((-1, 0), (0, -1), (0, 1), (1, 0)))


@functools.cache
def diagonals(size: int) -> tuple[tuple[int, ...], ...]:
    """Of each point those at its corners."""
    return _beside(size, ((-1, -1), (-1, 1), (1, -1), (1, 1)))


def _beside(size: int, steps: tuple[tuple[int, int], ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(
        tuple(
            (row + down) * size + column + right
            for down, right in steps
            if 0 <= row + down < size and 0 <= column + right < size
        )
        for row in range(size)
        for column in range(size)
    )


def score(position: Position, komi: float = 7.5) -> float:
    """Black's points less White's, by area: stones, and empty points that only one colour reaches.

    Dead stones count as they stand; games are to be played to the end.
    """
    size, stones = position.size, position.stones
    points = {BLACK: stones.count(BLACK), WHITE: stones.count(WHITE)}
    for region in chains(size, stones, EMPTY):
        borders = {stones[b] for point in region for b in neighbors(size)[point]} - {EMPTY}
        if len(borders) == 1:
            points[borders.pop()] += len(region)
    return points[BLACK] - points[WHITE] - komi


def result(points: float) -> str:
    """Black's points less White's as records and GTP write who won: `B+3.5`, `W+12`, `0`."""
    return "0" if points == 0 else f"{'B' if points > 0 else 'W'}+{abs(points):g}"


def draw(size: int, stones: Stones, marks: Mapping[int | None, str] | None = None) -> list[str]:
    """A board in letters, a line a row, with the names of columns and rows: X is Black, O White.

    Args:
        marks: of points that have another letter; that of None, a pass, is nowhere.
    """
    letters = [(marks or {}).get(point, _MARKS[color]) for point, color in enumerate(stones)]
    rows = [" ".join(letters[row * size : (row + 1) * size]) for row in range(size)]
    columns = " ".join(_LETTERS[:size])
    return [f"   {columns}", *(f"{size - i:2} {row}" for i, row in enumerate(rows))]


def to_vertex(size: int, point: int | None) -> str:
    """A point as people write it: `D4`; columns from the left, without I, rows from below."""
    if point is None:
        return "pass"
    row, column = divmod(point, size)
    return f"{_LETTERS[column]}{size - row}"


def from_vertex(size: int, vertex: str) -> int | None:
    """The point that is written so; None of `pass`.

    Raises:
        ValueError: it is none of the board's.
    """
    text = vertex.strip().upper()
    if text == "PASS":
        return None
    column = _LETTERS.find(text[:1]) if text else -1
    if not (0 <= column < size and text[1:].isascii() and text[1:].isdigit()):
        raise ValueError(f"{vertex!r} is no point of a board of {size} x {size}, such as A1.")
    row = size - int(text[1:])
    if not 0 <= row < size:
        raise ValueError(f"{vertex!r} is no point of a board of {size} x {size}, such as A1.")
    return row * size + column


def _check_point(position: Position, point: int) -> None:
    if not 0 <= point < len(position.stones):
        raise IllegalMove("not on the board")
