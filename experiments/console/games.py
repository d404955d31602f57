"""`experiments.predict` for networks of Go positions: the likeliest moves, on the board."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.console import cli
from experiments.console.pictures import HIDDEN
from mnist_jax.go.rules import BLACK, Position, draw, from_vertex, to_vertex

MOST = 5  # moves that are named


class Asked(NamedTuple):
    """A position of a record."""

    name: str
    turn: int  # from 1, the move that is asked for
    position: Position
    played: int | None  # None where nothing was, or a pass


def predict(loaded: Any, arguments: Sequence[str], turn: int | None, as_json: bool) -> int:
    """Print the likeliest moves in a position of each game; returns the exit code.

    Args:
        loaded: of `trained.load`.
        arguments: SGF files, and folders of them.
        turn: which move of each game, from 1; None: the one after the last.
        as_json: an object a line instead of boards.
    """
    size = loaded.image_shape[0]
    asked, failed = cli.read_each(arguments, lambda argument: _read(argument, turn, size))
    for row, one in zip(describe(loaded, asked), asked, strict=True):
        print(json.dumps(row) if as_json else "\n".join(_lines(row, one)))
    return cli.FAILED if failed else 0


def _read(argument: str, turn: int | None, size: int) -> Iterator[Asked | ValueError]:
    """One position of each game of a file, of the files of a folder, or of standard input.

    In the place of what has none, such as a damaged game or a file that cannot be read, is why.
    """
    from mnist_jax.go import sgf

    for name in _files(argument):
        try:
            content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        except OSError as error:
            yield ValueError(f"{name or repr('')} cannot be read: {error.strerror}.")
            continue
        for game in sgf.read_each(content, name):
            try:
                yield game if isinstance(game, ValueError) else _asked(game, turn, size)
            except ValueError as error:
                yield error


def _files(argument: str) -> list[str]:
    """The records of a folder; anything else is one itself.

    Raises:
        ValueError: a folder without any.
    """
    if not os.path.isdir(argument):  # also of a name that is empty or too long
        return [argument]
    folder = Path(argument)
    inside = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() == ".sgf" and not path.is_dir()
        if not any(part.startswith(HIDDEN) for part in path.relative_to(folder).parts)
    ]
    if not inside:
        raise ValueError(f"{argument} holds no .sgf file.")
    return [str(path) for path in inside]


def _asked(game: Any, turn: int | None, size: int) -> Asked:
    """The position before a move of a game.

    Raises:
        ValueError: a board of another size, no such move, or one before it is against the rules.
    """
    from mnist_jax.go import records

    if game.size != size:
        raise ValueError(f"{game.where}: a board of {game.size} x {game.size}, not {size}.")
    number = len(game.moves) + 1 if turn is None else turn
    if not 1 <= number <= len(game.moves) + 1:
        raise ValueError(
            f"{game.where}: --move must be from 1 to {len(game.moves) + 1}, not {number}."
        )
    position = next(islice(records.replay(game), number - 1, None))
    played = game.moves[number - 1][1] if number <= len(game.moves) else None
    return Asked(game.where, number, position, played)


def describe(loaded: Any, asked: Sequence[Asked]) -> list[dict[str, Any]]:
    """What is printed of each position."""
    from mnist_jax import ensemble, uncertainty
    from mnist_jax.go import records

    if not asked:
        return []
    packed = np.stack([records.packed(one.position) for one in asked])
    logits = loaded.predict(packed)
    probabilities = np.exp(ensemble.mean_probability(logits))
    parts = uncertainty.decompose(logits)
    rows = []
    for i, one in enumerate(asked):
        size, best = one.position.size, np.argsort(-probabilities[i], kind="stable")[:MOST]
        row = {
            "image": one.name,
            "move": one.turn,
            "class": to_vertex(size, int(best[0])),
            "probability": round(float(probabilities[i, best[0]]), 6),
            "moves": {
                to_vertex(size, int(point)): round(float(probabilities[i, point]), 6)
                for point in best
            },
            "entropy": round(float(parts.total[i]), 6),
            "mutual_information": round(float(parts.epistemic[i]), 6),
        }
        played = {} if one.played is None else {"played": to_vertex(size, one.played)}
        rows.append(row | played)
    return rows


def _lines(row: dict[str, Any], one: Asked) -> list[str]:
    """A board with the likeliest moves as 1, 2, ..., and these in words."""
    position, size = one.position, one.position.size
    name = "Black (X)" if position.to_play == BLACK else "White (O)"
    numbers = {vertex: str(i + 1) for i, vertex in enumerate(row["moves"])}
    marks = {from_vertex(size, vertex): number for vertex, number in numbers.items()}
    board = draw(size, position.stones, marks)
    likely = ", ".join(
        f"{numbers[vertex]}: {vertex} {100 * share:.1f} %" for vertex, share in row["moves"].items()
    )
    played = f" Played was {row['played']}." if "played" in row else ""
    return [f"{one.name}, move {one.turn}: {name}", *board, f"{likely}.{played}", ""]
