"""Data sets of Go positions: from records of games to packed planes and the moves played.

`load` gives `Positions`. Splits are by game, never by position: what a game's other positions show
would be known otherwise.
"""

import hashlib
import os
import shutil
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mnist_jax import cache
from mnist_jax.data import files, memory
from mnist_jax.data.files import File
from mnist_jax.data.names import GAMES, DataError, Dataset, DataWarning, Split
from mnist_jax.data.splits import listed
from mnist_jax.go import planes, records, rules, sgf
from mnist_jax.go.sgf import Game, SGFError
from mnist_jax.words import counted

READ_HERE = "Read are .sgf files, in a folder or an archive, with any number of games each."
_OWN = Path(__file__).with_name("games9x9.sgf")
_TENTH = 10  # of the games are for testing where the files' names tell none
_MOST_VALIDATION = 5000  # positions, whole games of them, but a tenth at most
_COPIES = 2  # of all planes in memory, on one device
_LEAST_SECONDS = 2.0  # what takes less time is not worth a file
_VERSION = "2"  # of how positions become planes; another one finds nothing of the former


@dataclass(frozen=True)
class Positions(Dataset):
    """A data set whose inputs are packed planes, uint8 `[n, size, size, 6]`.

    Labels are points, which are the classes; their names are as `D4`.
    """

    test_turns: np.ndarray  # int32 [n], how many moves were played before each test position


class _Games(NamedTuple):
    train: list[Game]
    validation: list[Game]
    test: list[Game]
    note: str


def load(
    name: str = "auto",
    data_dir: str | PathLike[str] | None = None,
    *,
    validation: int | None = None,
    size: int | None = None,
) -> Positions:
    """Load the positions of games.

    Args:
        name: `"games9x9"`, or `"auto"`: what `data_dir` holds, or `games9x9`, games of GNU Go
            against itself that come with the package.
        data_dir: an SGF file, a folder of them, or a zip or tar archive. Files or folders named
            train, validation and test are taken so; otherwise every tenth game is for testing.
        validation: at least so many positions are kept for validation, in whole games. Default:
            those that are named so, or else 5,000, but a tenth at most.
        size: of the board that a network takes; other games are refused. Default the games' own.

    Games that are damaged, or have a move against the rules, are left out.

    Warns:
        DataWarning: how many were left out, and why the first was.

    Raises:
        ValueError: an unknown name, a `data_dir` with `games9x9`, boards of another size,
            `validation` that leaves nothing to train on.
        DataError: no record, or none that is whole, boards of several sizes, or more positions than
            fit memory.
    """
    if name not in GAMES:
        raise ValueError(f"name {name!r} is no data set of games; there are {', '.join(GAMES)}.")
    if name == "games9x9" and data_dir is not None:
        raise ValueError("data_dir has no use with games9x9, which come with the package.")
    here = [files.single(_OWN)] if data_dir is None else _records_in(data_dir)
    place = "games that come with mnist_jax" if data_dir is None else str(data_dir)
    read, left_out = _whole([(file, _read(file)) for file in here])
    if left_out:
        _see_left_out(left_out, read, place)
    games = _split(read, validation, place)
    sizes = sorted({game.size for part in games[:3] for game in part})
    wanted = sizes[:1] if size is None else [size]
    if sizes != wanted:
        raise DataError(
            f"{place}: boards are of {listed([f'{n} x {n}' for n in sizes])}; a network takes one "
            f"size{'' if size is None else f', this one {size} x {size}'}."
        )
    _see_memory([*games.train, *games.validation, *games.test], sizes[0], place)
    train, held, test = (_positions(part) for part in games[:3])
    known = tuple(rules.to_vertex(sizes[0], point) for point in range(sizes[0] ** 2))
    title = "games9x9" if data_dir is None else Path(data_dir).name.split(".")[0] or place
    note = f"; {counted(len(left_out), 'game')} left out" if left_out else ""
    source = f"{place}; {games.note}{note}"
    parts = [Split(part.planes, part.moves) for part in (train, held, test)]
    return Positions(title, parts[0], parts[1], parts[2], known, source, False, test.turns)


def _records_in(data_dir: str | PathLike[str]) -> list[File]:
    found = [file for file in files.find(data_dir) if file.suffix == ".sgf"]
    if not found:
        raise DataError(f"{data_dir} holds no records of games.\n{READ_HERE}")
    return found


def _read(file: File) -> list[Game | SGFError]:
    with files.reading(file) as stream:
        return list(sgf.read_each(stream.read(), file.where))


def _whole(
    parts: Sequence[tuple[File, list[Game | SGFError]]],
) -> tuple[list[tuple[File, list[Game]]], list[DataError]]:
    """The games that can be played from the first move to the last, and what others have."""
    left_out: list[DataError] = []
    whole = []
    for file, found in parts:
        games = [game for game in found if isinstance(game, Game)]
        left_out += [error for error in found if isinstance(error, SGFError)]
        wrong = records.forbidden(games)
        left_out += [error for error in wrong if error is not None]
        whole.append((file, [g for g, error in zip(games, wrong, strict=True) if error is None]))
    return whole, left_out


def _see_left_out(
    left_out: list[DataError], parts: list[tuple[File, list[Game]]], place: str
) -> None:
    if not any(games for _, games in parts):
        raise left_out[0]
    count = sum(len(games) for _, games in parts) + len(left_out)
    message = f"{place}: {len(left_out):,} of {counted(count, 'game')} are left out; {left_out[0]}"
    warnings.warn(message, DataWarning, stacklevel=3)


def _split(parts: Sequence[tuple[File, list[Game]]], validation: int | None, place: str) -> _Games:
    """Games by what the files are called, or by their places."""
    named: dict[str, list[Game]] = {"train": [], "validation": [], "test": []}
    for file, games in parts:
        split = files.role_of(file).split or files.split_of(file.path.parent)
        named[split if split in named else "train"] += games
    train, held, test = named["train"], named["validation"], named["test"]
    notes = []
    if not test:
        test, train = train[::_TENTH], [g for i, g in enumerate(train) if i % _TENTH]
        notes.append(f"every {_TENTH}th game is for testing")
    if validation is not None or not held:
        train = held + train
        count = sum(map(_length, train))
        wanted = min(_MOST_VALIDATION, count // _TENTH) if validation is None else validation
        held, train = _first(train, wanted)
    if not sum(map(_length, train)) or not sum(map(_length, test)):
        kept = f"; --validation {validation} keeps too many" if validation else ""
        raise DataError(f"{place}: too few games to train on some and test on others{kept}.")
    notes.append(f"{counted(len(train), 'game')} to train on, {len(held):,} for validation")
    return _Games(train, held, test, "; ".join([*notes, f"{len(test):,} for testing"]))


def _first(games: list[Game], wanted: int) -> tuple[list[Game], list[Game]]:
    """The first games with at least so many positions, and the others."""
    taken, count = 0, 0
    while count < wanted and taken < len(games):
        count += _length(games[taken])
        taken += 1
    return games[:taken], games[taken:]


def _length(game: Game) -> int:
    return sum(point is not None for _, point in game.moves)


def _see_memory(games: Sequence[Game], size: int, place: str) -> None:
    needed = sum(map(_length, games)) * size * size * planes.BYTES
    free = memory.available()
    if free is not None and _COPIES * needed > free:
        raise DataError(
            f"{place}: the planes of {sum(map(_length, games)):,} positions take "
            f"{needed / 1e9:.1f} GB, {_COPIES} times, and {free / 1e9:.1f} GB of memory are free.\n"
            "Give fewer games."
        )


def _positions(games: list[Game]) -> records.Positions:
    """`records.positions`, whose planes are kept in the user's cache folder."""
    kept = _kept(games)
    with suppress(OSError, ValueError, TypeError, EOFError):
        if kept is not None:
            with np.load(kept, allow_pickle=False) as arrays:
                return records.Positions(**arrays)
    began = time.monotonic()
    made = records.positions(games)
    if kept is not None and time.monotonic() - began > _LEAST_SECONDS:
        _keep(kept, made)
    return made


def _kept(games: Sequence[Game]) -> Path | None:
    folder = cache.folder()
    if folder is None:
        return None
    digest = hashlib.sha256(_VERSION.encode())
    for game in games:
        digest.update(repr((game.size, sorted(game.stones.items()), game.moves)).encode())
    return folder / "positions" / f"{digest.hexdigest()[:32]}.npz"


def _keep(path: Path, made: records.Positions) -> None:
    with suppress(OSError):  # they are made again, then
        path.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(path.parent).free < 2 * made.planes.nbytes:
            return
        unfinished = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            with unfinished.open("wb") as stream:
                np.savez(stream, **made._asdict())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
