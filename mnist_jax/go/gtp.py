"""The Go Text Protocol, version 2: a table of commands and what they answer.

Source: Farnebäck 2002, "Specification of the Go Text Protocol, version 2, draft 2",
lysator.liu.se/~gunnar/gtp.

`answer` is a pure function: a `Table`, a line, and a function that chooses moves, to the answer and
the next `Table`.
"""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

from mnist_jax.go import rules
from mnist_jax.go.rules import BLACK, WHITE, IllegalMove, Position

VERSION = "2"
_COLORS = {"b": BLACK, "black": BLACK, "w": WHITE, "white": WHITE}
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

# A position, and whether the move before was a pass, to a point; None is a pass.
Choose = Callable[[Position, bool], int | None]


class Table(NamedTuple):
    """All that a program of the protocol remembers."""

    name: str
    version: str
    sizes: tuple[int, ...]  # of boards that it plays on
    positions: tuple[Position, ...]  # so far, the first of them empty
    passes: tuple[bool, ...] = (False,)  # whether the move before each was a pass
    komi: float = 7.5
    has_ended: bool = False

    @property
    def position(self) -> Position:
        """As it is now."""
        return self.positions[-1]


class _Failure(Exception):
    """What is answered after a question mark."""


def new(name: str, version: str, sizes: tuple[int, ...]) -> Table:
    """An empty board of the first of the sizes."""
    return Table(name, version, sizes, (rules.start(sizes[0]),))


def answer(table: Table, line: str, choose: Choose) -> tuple[str, Table]:
    """Carry out a line.

    Returns:
        What is answered, with the empty line that ends it, or "" where the line has no command;
        and what is remembered afterwards.
    """
    words = _CONTROLS.sub("", line.replace("\t", " ")).partition("#")[0].split()
    number = words.pop(0) if words and words[0].isdigit() else ""
    if not words:
        return "", table
    name, *arguments = words
    try:
        if name not in _COMMANDS:
            raise _Failure("unknown command")
        text, table = _COMMANDS[name](table, arguments, choose)
        return f"={number} {text}".rstrip() + "\n\n", table
    except _Failure as failure:
        return f"?{number} {failure}\n\n", table


def _say(text: Callable[[Table], str]) -> "_Command":
    return lambda table, arguments, choose: (text(table), table)


def _known(table: Table, arguments: list[str], choose: Choose) -> tuple[str, Table]:
    return str(arguments[:1] != [] and arguments[0] in _COMMANDS).lower(), table


def _end(table: Table, arguments: list[str], choose: Choose) -> tuple[str, Table]:
    return "", table._replace(has_ended=True)


def _set_size(table: Table, arguments: list[str], choose: Choose) -> tuple[str, Table]:
    size = _integer(arguments, "boardsize not an integer")
    if size not in table.sizes:
        raise _Failure("unacceptable size")
    return "", _emptied(table, size)


def _clear(table: Table, arguments: list[str], choose: Choose) -> tuple[str, Table]:
    return "", _emptied(table, table.position.size)


def _emptied(table: Table, size: int) -> Table:
    return table._replace(positions=(rules.start(size),), passes=(False,))


def _set_komi(table: Table, arguments: list[str], choose: Choose) -> tuple[str, Table]:
    try:
        komi = float(arguments[0])
    except (IndexError, ValueError):
        raise _Failure("komi not a float") from None
    if not math.isfinite(komi):
        raise _Failure("komi not a float")
    return "", table._replace(komi=komi)


def _play(table: Table, arguments: list[str], choose: Choose) -> tuple[str, Table]:
    if len(arguments) < 2:
        raise _Failure("invalid color or coordinate")
    color = _color(arguments[0])
    try:
        point = rules.from_vertex(table.position.size, arguments[1])
    except ValueError:
        raise _Failure("invalid color or coordinate") from None
    return "", _moved(table, color, point)


def _generate(table: Table, arguments: list[str], choose: Choose) -> tuple[str, Table]:
    color = _color(arguments[0] if arguments else "")
    point = choose(table.position._replace(to_play=color), table.passes[-1])
    return rules.to_vertex(table.position.size, point), _moved(table, color, point)


def _undo(table: Table, arguments: list[str], choose: Choose) -> tuple[str, Table]:
    if len(table.positions) == 1:
        raise _Failure("cannot undo")
    return "", table._replace(positions=table.positions[:-1], passes=table.passes[:-1])


def _handicap(table: Table, arguments: list[str], choose: Choose) -> tuple[str, Table]:
    count, size = _integer(arguments, "handicap not an integer"), table.position.size
    if any(table.position.stones):
        raise _Failure("board not empty")
    points = _handicap_points(size, count)
    if not points:
        raise _Failure("invalid number of stones")
    return " ".join(rules.to_vertex(size, p) for p in points), _with_black(table, points)


def _free_handicap(table: Table, arguments: list[str], choose: Choose) -> tuple[str, Table]:
    if any(table.position.stones):
        raise _Failure("board not empty")
    try:
        points = [rules.from_vertex(table.position.size, vertex) for vertex in arguments]
    except ValueError:
        raise _Failure("bad vertex list") from None
    known = [point for point in points if point is not None]
    if len(set(known)) < max(2, len(points)):
        raise _Failure("bad vertex list")
    made = _with_black(table, known)
    if rules.without_liberties(made.position.size, made.position.stones):
        raise _Failure("bad vertex list")
    return "", made


def _with_black(table: Table, points: list[int]) -> Table:
    position = rules.set_up(table.position, dict.fromkeys(points, BLACK), WHITE)
    return table._replace(positions=(*table.positions, position), passes=(*table.passes, False))


def _handicap_points(size: int, count: int) -> list[int]:
    """Of 2 to 9 stones; empty where there can be no so many.

    Boards of even sizes, and of 7, have 4 at most; smaller ones none.
    """
    most = 9 if size % 2 and size > 7 else 4
    if not 2 <= count <= most or size < 7:
        return []
    near = 3 if size > 12 else 2
    lines = {"0": near, "1": size // 2, "2": size - 1 - near}
    order = ("20", "02", "22", "00")[: min(count, 4)]
    sides = {5: (), 6: ("10", "12"), 7: ("10", "12"), 8: ("10", "12", "01", "21")}
    sides[9] = sides[8]
    middle = ("11",) if count in (5, 7, 9) else ()
    return [lines[at[0]] * size + lines[at[1]] for at in (*order, *sides.get(count, ()), *middle)]


def _score(table: Table, arguments: list[str], choose: Choose) -> tuple[str, Table]:
    return rules.result(rules.score(table.position, table.komi)), table


def _show(table: Table) -> str:
    return "\n".join(["", *rules.draw(table.position.size, table.position.stones)])


def _moved(table: Table, color: int, point: int | None) -> Table:
    try:
        position = rules.play(table.position._replace(to_play=color), point)
    except IllegalMove:
        raise _Failure("illegal move") from None
    return table._replace(
        positions=(*table.positions, position), passes=(*table.passes, point is None)
    )


def _color(word: str) -> int:
    if word.lower() not in _COLORS:
        raise _Failure("invalid color or coordinate")
    return _COLORS[word.lower()]


def _integer(arguments: list[str], complaint: str) -> int:
    try:
        return int(arguments[0])
    except (IndexError, ValueError):
        raise _Failure(complaint) from None


def _take(table: Table, arguments: list[str], choose: Choose) -> tuple[str, Table]:
    """Time, which does not matter: a move takes less than a second."""
    return "", table


_Command = Callable[[Table, list[str], Choose], tuple[str, Table]]
_COMMANDS: dict[str, _Command] = {
    "protocol_version": _say(lambda table: VERSION),
    "name": _say(lambda table: table.name),
    "version": _say(lambda table: table.version),
    "known_command": _known,
    "list_commands": _say(lambda table: "\n".join(_COMMANDS)),
    "quit": _end,
    "boardsize": _set_size,
    "clear_board": _clear,
    "komi": _set_komi,
    "fixed_handicap": _handicap,
    "place_free_handicap": _handicap,
    "set_free_handicap": _free_handicap,
    "play": _play,
    "genmove": _generate,
    "undo": _undo,
    "time_settings": _take,
    "time_left": _take,
    "final_score": _score,
    "showboard": _say(_show),
}
