"""A game of Go between a function that chooses moves and another program."""

from typing import Literal, NamedTuple

from mnist_jax.go import rules
from mnist_jax.go.gtp import Choose
from mnist_jax.go.opponent import Program, Refused
from mnist_jax.go.rules import BLACK, EMPTY, WHITE, IllegalMove, Position

KOMI = 7.5
# Times the points of the board: moves after which a game is stopped, as where a ko goes round.
LONGEST = 3

_NAMES = {BLACK: "black", WHITE: "white"}
_LETTERS = {BLACK: "B", WHITE: "W"}

Ending = Literal["score", "resignation", "illegal move", "too many moves"]


class Played(NamedTuple):
    """How a game went."""

    moves: list[tuple[int, int | None]]  # colours, and points or passes
    result: str  # as records write it: "B+2.5", "W+R", "B+F" after an illegal move, "Void"
    ending: Ending
    note: str = ""  # which move was illegal, or what the score rests on

    @property
    def winner(self) -> int | None:
        """A colour; None of a game without result."""
        return {"B": BLACK, "W": WHITE}.get(self.result[0]) if self.result != "Void" else None


def play(choose: Choose, program: Program, ours: int, size: int) -> Played:
    """Play a game to its end.

    Two passes end it. The area is scored (`rules.score`, komi 7.5) after what the program calls
    dead has been taken off: so the same way with every program, and it can be counted again from
    the record. A program that cannot tell what is dead has the stones counted as they stand.

    Args:
        choose: our moves.
        program: the opponent; its board is set up here.
        ours: our colour.
        size: of the board.

    Raises:
        ProgramError: the program ended, took too long, or refused a command other than a move.
    """
    for command in (f"boardsize {size}", "clear_board", f"komi {KOMI:g}"):
        program.ask(command)
    position = rules.start(size)
    moves: list[tuple[int, int | None]] = []
    after_pass = False
    while len(moves) < LONGEST * size * size:
        color = position.to_play
        if color == ours:
            point = choose(position, after_pass)
            vertex = rules.to_vertex(size, point)
        else:
            vertex = program.ask(f"genmove {_NAMES[color]}").upper()
            if vertex == "RESIGN":
                return Played(moves, f"{_LETTERS[ours]}+R", "resignation")
        try:
            point = rules.from_vertex(size, vertex)
            position = rules.play(position, point)
            if color == ours:
                program.ask(f"play {_NAMES[color]} {vertex}")
        except (IllegalMove, ValueError, Refused) as error:
            winner = _LETTERS[rules.opponent(color)]
            reason = "not on the board" if type(error) is ValueError else str(error)
            note = f"move {len(moves) + 1}, {_NAMES[color]} at {vertex}: {reason}"
            return Played(moves, f"{winner}+F", "illegal move", note)
        moves.append((color, point))
        if after_pass and point is None:
            result, note = _score(position, program)
            return Played(moves, result, "score", note)
        after_pass = point is None
    return Played(moves, "Void", "too many moves", f"stopped after {len(moves)} moves")


def _score(position: Position, program: Program) -> tuple[str, str]:
    """The result, and what was taken off the board for it."""
    try:
        vertices = program.ask("final_status_list dead").split()
        points = [rules.from_vertex(position.size, vertex) for vertex in vertices]
    except (Refused, ValueError):
        points, note = [], "counted as it stands: the opponent does not tell what is dead"
    else:
        note = f"dead: {' '.join(vertices)}" if vertices else ""
    dead = dict.fromkeys((point for point in points if point is not None), EMPTY)
    return rules.result(rules.score(rules.set_up(position, dead), KOMI)), note
