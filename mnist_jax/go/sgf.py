"""Records of games in SGF: of each game the main line, the first of its variations.

Read are moves (`B`, `W`), stones set up before the first of them (`AB`, `AW`, `AE`), who begins
(`PL`), size, komi, and result. Comments, marks and other variations are passed over. A file may
hold many games, and text before, between and after them, as mails have.

Source: "SGF File Format FF[4]", red-bean.com/sgf.
"""

import re
from collections.abc import Iterator
from itertools import takewhile
from typing import NamedTuple

from mnist_jax.data.names import DataError
from mnist_jax.go import rules
from mnist_jax.go.rules import BLACK, EMPTY, LARGEST, WHITE
from mnist_jax.words import on_one_line

_TOKEN = re.compile(r"\s*(?:([();])|([A-Za-z]+)|\[((?:\\.|[^\]\\])*)\]|(\S))", re.DOTALL)
_START = re.compile(r"\(\s*;(?=\s*[A-Za-z;()])")  # of a game; a mail's (;-) is none
# What only the first node of a game has, in the letters of today and of FF[1]: GaMe, SiZe.
_ROOT = re.compile(r"\(\s*;\s*(?:GM|FF|SZ|CA|AP|ST|GaMe|SiZe)\s*\[")
_CHARSET = re.compile(rb"\bCA\s*\[([^\]]*)\]")
# Those of records that do not say; all but the last notice what is not theirs.
_ENCODINGS = ("utf-8-sig", "gb18030", "latin-1")
_MOST_SHOWN = 20  # characters of a value
_COLORS = {"B": BLACK, "W": WHITE}
_SET_UP = {"AB": BLACK, "AW": WHITE, "AE": EMPTY}

Properties = dict[str, list[str]]


class Game(NamedTuple):
    """One game."""

    where: str  # the file, and which game of it, for messages
    size: int
    stones: dict[int, int]  # set up before the first move: points, and their colours
    to_play: int
    moves: list[tuple[int, int | None]]  # colours, and points or passes
    komi: float | None
    result: str | None  # as written: "B+2.5", "W+R", "0"


class SGFError(DataError):
    """What is no record of a game of Go, or a damaged one."""


def read(content: bytes, name: str) -> list[Game]:
    """All games of a file.

    Args:
        content: of the file.
        name: what messages call it.

    Raises:
        SGFError: there is no game, or one is damaged, naming the game and the move.
    """
    games = []
    for game in read_each(content, name):
        if isinstance(game, SGFError):
            raise game
        games.append(game)
    return games


def read_each(content: bytes, name: str) -> Iterator[Game | SGFError]:
    """`read`, with an error in the place of each game that is damaged, or of a file without any.

    After a damaged game it goes on with the next that begins as records do, with `GM`, `FF`, `SZ`.
    """
    text, position, number = _decode(content), 0, 0
    while start := _START.search(text, position):
        number += 1
        where = name if number == 1 else f"{name}, game {number}"
        position = len(text)
        try:
            nodes, position = _main_line(text, start.start(), where)
            yield _game(nodes, where)
        except SGFError as error:
            yield error
            following = _ROOT.search(text, start.end(), position)  # as after a [ without its ]
            position = following.start() if following else position
    if number == 0:
        yield SGFError(f"{name} holds no game: SGF begins with (;")


def write(game: Game, black: str, white: str, comment: str = "") -> str:
    """A game as a file of its own, by area rules.

    Args:
        black, white: who played.
        comment: on the game.
    """
    about = {"GM": "1", "FF": "4", "CA": "UTF-8", "RU": "Chinese", "SZ": str(game.size)}
    about |= {} if game.komi is None else {"KM": f"{game.komi:g}"}
    about |= {"PB": black, "PW": white} | ({"RE": game.result} if game.result else {})
    about |= {"C": comment} if comment else {}
    root = "".join(f"{name}[{_escaped(text)}]" for name, text in about.items())
    for name, color in _SET_UP.items():
        here = "".join(f"[{_letters(game.size, p)}]" for p, c in game.stones.items() if c == color)
        root += f"{name}{here}" if here else ""
    names = {color: name for name, color in _COLORS.items()}
    moves = "".join(f";{names[color]}[{_letters(game.size, p)}]" for color, p in game.moves)
    return f"(;{root}PL[{names[game.to_play]}]\n{moves})\n"


def _escaped(text: str) -> str:
    return re.sub(r"([\]\\])", r"\\\1", text)


def _letters(size: int, point: int | None) -> str:
    if point is None:
        return ""
    row, column = divmod(point, size)
    return chr(ord("a") + column) + chr(ord("a") + row)


def _decode(content: bytes) -> str:
    said = _CHARSET.search(content[:4096])
    names = [said[1].decode("ascii", "replace").strip(), *_ENCODINGS] if said else _ENCODINGS
    for name in names:
        try:
            return content.decode(name)
        except (LookupError, ValueError):  # a name that is none, or bytes that do not fit
            continue
    raise AssertionError("Latin-1 takes all bytes.")


def _main_line(text: str, position: int, where: str) -> tuple[list[Properties], int]:
    """The nodes of the main line of the game that begins there, and where the game ends.

    Raises:
        SGFError: it cannot be told where that is.
    """
    depth = 0
    nodes: list[Properties] = []
    is_over, values = False, None  # is_over: the rest of the game is other variations
    while token := _TOKEN.match(text, position):
        position = token.end()
        mark, identifier, value, strange = token.groups()
        if mark == "(":
            if nodes and _ROOT.match(text, token.start(1)):
                break  # the next game
            depth += 1
        elif mark == ")":
            depth -= 1
            is_over = True
            if depth == 0:
                return nodes, position
        elif is_over:
            continue
        elif mark == ";":
            nodes.append({})
            values = None
        elif identifier is not None:
            capitals = "".join(filter(str.isupper, identifier))  # older files write Black for B
            capitals = capitals or identifier.upper()
            values = nodes[-1].setdefault(capitals, [])
        elif value is not None and values is not None:
            values.append(value)
        elif strange is not None or value is not None:
            what = strange or f"[{value}]"
            raise SGFError(f"{where} is damaged after {_moves(nodes)} moves, at {what[:20]!r}.")
    raise SGFError(f"{where} is cut off after {_moves(nodes)} moves.")


def _moves(nodes: list[Properties]) -> int:
    return sum(name in _COLORS for node in nodes for name in node)


def _game(nodes: list[Properties], where: str) -> Game:
    root = nodes[0]
    kind = _one(root, "GM") or "1"
    if kind.strip() != "1":
        raise SGFError(f"{where} is no game of Go: GM[{_shown(kind)}], not GM[1].")
    size = _size(_one(root, "SZ") or "19", where)
    stones: dict[int, int] = {}
    moves: list[tuple[int, int | None]] = []
    to_play = None
    for node in nodes:
        here = f"{where}, move {len(moves) + 1}"
        for name, color in _SET_UP.items():
            for value in node.get(name, []):
                if moves:
                    raise SGFError(f"{here}: {name} sets stones up in the middle of the game.")
                stones |= dict.fromkeys(_points(value, size, f"{here}: {name}"), color)
        to_play = _COLORS.get((_one(node, "PL") or "")[:1].upper(), to_play)
        for name, color in _COLORS.items():
            for value in node.get(name, [])[:1]:
                moves.append((color, _point(value, size, f"{here}: {name}")))
    if moves:
        to_play = moves[0][0]
    elif to_play is None:
        to_play = WHITE if BLACK in stones.values() else BLACK
    _check_handicap(nodes, stones, moves, where)
    _check_liberties(size, stones, where)
    komi, result = _one(root, "KM"), _one(root, "RE")
    return Game(where, size, stones, to_play, moves, _number(komi), result or None)


def _check_handicap(
    nodes: list[Properties],
    stones: dict[int, int],
    moves: list[tuple[int, int | None]],
    where: str,
) -> None:
    """See that handicap stones are on the board: set up, or played one after another."""
    said = next((value for node in nodes for value in node.get("HA", [])), "").strip()
    count = int(said) if said.isdecimal() and len(said) < 4 else 0
    played = sum(1 for _ in takewhile(lambda move: move[0] == BLACK, moves))
    if count > 1 and list(stones.values()).count(BLACK) + played < count:
        raise SGFError(f"{where}: HA[{said}], and it is not said where: AB sets up fewer stones.")


def _check_liberties(size: int, stones: dict[int, int], where: str) -> None:
    taken = rules.without_liberties(size, rules.set_up(rules.start(size), stones).stones)
    if taken:
        names = ", ".join(rules.to_vertex(size, point) for point in taken[:5])
        more = ", ..." if len(taken) > 5 else ""
        raise SGFError(f"{where}: what is set up at {names}{more} has no liberties.")


def _one(node: Properties, name: str) -> str | None:
    values = node.get(name)
    return values[0] if values else None


def _size(text: str, where: str) -> int:
    sides = [side.strip() for side in text.split(":")]
    if len(set(sides)) == 1 and sides[0].isdecimal() and 2 <= int(sides[0]) <= LARGEST:
        return int(sides[0])
    raise SGFError(
        f"{where}: SZ[{_shown(text)}] is no square board of 2 to {LARGEST} points a side."
    )


def _number(text: str | None) -> float | None:
    try:
        return float((text or "").replace(",", "."))
    except ValueError:
        return None


def _point(value: str, size: int, where: str) -> int | None:
    text = value.strip()
    if text == "" or (text == "tt" and size <= 19):
        return None
    column, row = (_side(letter) for letter in text) if len(text) == 2 else (-1, -1)
    if not (0 <= column < size and 0 <= row < size):
        raise SGFError(f"{where}[{_shown(value)}] is no point of a board of {size} x {size}.")
    return row * size + column


def _shown(value: str) -> str:
    """The beginning of a value, which goes on far where its bracket is missing, in one line."""
    return on_one_line(value if len(value) <= _MOST_SHOWN else f"{value[:_MOST_SHOWN]}...")


def _side(letter: str) -> int:
    return ord(letter) - ord("a") if "a" <= letter <= "z" else -1


def _points(value: str, size: int, where: str) -> list[int]:
    """Of one point, or of a rectangle, as `aa:cc`."""
    corners = [_point(part, size, where) for part in value.split(":", 1)]
    first, last = corners[0], corners[-1]
    if first is None or last is None:
        raise SGFError(f"{where}[{_shown(value)}] is no point of a board of {size} x {size}.")
    (top, left), (bottom, right) = divmod(first, size), divmod(last, size)
    rows, columns = range(top, bottom + 1), range(left, right + 1)
    return [row * size + column for row in rows for column in columns]
