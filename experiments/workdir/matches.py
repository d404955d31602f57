"""What `experiments.match` does once JAX is imported: play games of Go, keep them, sum them up."""

import argparse
import hashlib
import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from scipy.stats import binomtest

from experiments.console import cli
from experiments.workdir import records, trained
from experiments.workdir.trained import Trained
from mnist_jax.checkpoints import CheckpointError
from mnist_jax.go import match, player, rules, sgf
from mnist_jax.go.match import Played
from mnist_jax.go.opponent import Program, ProgramError
from mnist_jax.go.rules import BLACK, WHITE, Position
from mnist_jax.words import counted, on_one_line

CONFIDENCE = 0.95
_DRAWN = 3  # a board's side by this is how many of our first moves are drawn
_COLORS = {BLACK: "Black", WHITE: "White"}
_Row = dict[str, Any]  # of a game


class Match(NamedTuple):
    """What stays the same during a match."""

    loaded: Trained
    command: list[str]  # the opponent's
    time_limit: float
    folder: epath.Path
    settings: dict[str, Any]  # what tells it from other matches; of match.json

    @property
    def size(self) -> int:
        """Of the board."""
        return self.loaded.image_shape[0]

    @property
    def opponent(self) -> str:
        """What it calls itself."""
        return str(self.settings["opponent"])

    def choose(
        self, position: Position, after_pass: bool, rng: np.random.Generator | None
    ) -> int | None:
        """Our move, as `player.choose` has it."""
        predict = player.from_logits(self.loaded.predict)
        return player.choose(position, after_pass, predict, match.KOMI, rng)


def run(given: argparse.Namespace) -> int:
    """Do what the command line asks for; returns the exit code.

    Raises:
        SystemExit: code 2, with an error of two lines on stderr, for what is wrong with it.
    """
    cli.start_jax()
    try:
        loaded = trained.load(given.workdir)
    except (ValueError, CheckpointError) as error:
        cli.fail(str(error), "WORKDIR is a folder that python -m experiments.run has made.")
    if not loaded.config.reads_positions:
        cli.fail(f"{given.workdir} reads {loaded.config.input_is}s.", "Train --config policy.")
    size = loaded.image_shape[0]
    if given.board_size not in (None, size):
        cli.fail(
            f"--board-size {given.board_size}: the network was trained on {size} x {size}.",
            "Leave it out, or train on games of that size.",
        )
    try:
        settings = _settings(loaded, given)
    except ProgramError as error:
        cli.fail(str(error), f"It must speak GTP, and play on {size} x {size}.")
    folder = given.output or loaded.workdir / "matches" / given.title
    try:
        rows = _open(folder, settings)
    except ValueError as error:
        message, _, hint = str(error).partition("\n")
        cli.fail(f"--output {message}", hint or "Give another folder.")
    return _play_all(Match(loaded, given.command, given.time_limit, folder, settings), given, rows)


def _settings(loaded: Trained, given: argparse.Namespace) -> dict[str, Any]:
    """What a match is, with what the opponent says of itself.

    Raises:
        ProgramError: it cannot be talked to, or does not play on such a board.
    """
    size = loaded.image_shape[0]
    with Program(given.command, given.time_limit) as program:
        name, version = (on_one_line(program.ask(what)) for what in ("name", "version"))
        program.ask(f"boardsize {size}")
    return {
        "step": loaded.step,
        "weights": trained.digest(loaded),
        "opponent": f"{name} {version}".strip(),
        "command": " ".join(given.command[1:]),  # without the place of the program
        "board_size": size,
        "komi": match.KOMI,
        "seed": given.seed,
    }


def _open(folder: epath.Path, settings: dict[str, Any]) -> list[_Row]:
    """Make the folder; the games that it has already of the same match.

    Raises:
        ValueError: it holds something else, or cannot be made; with what to do about it in a
            second line.
    """
    file = folder / "match.json"
    if not file.exists():
        if records.in_use(folder):
            raise ValueError(f"{folder} exists and is not an empty folder.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{folder} cannot be made: {error.strerror}.") from None
        if not records.writable(folder):
            raise ValueError(f"{folder} cannot be written.")
        return []
    try:
        before = json.loads(file.read_text())
        rows, then = list(before["games"]), dict(before["settings"])
        numbers = [row["game"] for row in rows]
        if not summary(rows) or numbers != list(range(1, len(rows) + 1)):
            raise ValueError("games are missing")
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"{folder} has a match.json that cannot be read.") from None
    for name, now in settings.items():
        if then.get(name) != now:
            raise ValueError(
                f"{folder} holds another match: {name} was {then.get(name)} and is now {now}.\n"
                "Give another folder."
            )
    return rows


def _play_all(plan: Match, given: argparse.Namespace, rows: list[_Row]) -> int:
    """Play what is missing, a line and a record a game; returns the exit code."""
    loaded, folder = plan.loaded, plan.folder
    size = plan.size
    print(
        f"{loaded.workdir}, step {loaded.step:,}, against {plan.opponent} "
        f"({shlex.join(plan.command[1:])}) on {size} x {size}, komi {match.KOMI:g}: "
        f"{counted(given.games, 'game')}; into {folder}"
    )
    if rows:
        print(f"{counted(len(rows), 'game')} of it there already.")
    code = 0
    try:
        plan.choose(rules.start(size), False, None)  # compiles, in no game's time
        for number in range(len(rows) + 1, given.games + 1):
            row, record = _play(plan, number)
            (folder / row["file"]).write_bytes(record.encode())
            rows.append(row)
            _write(plan, rows)
            print(_line(row), flush=True)
    except ProgramError as error:
        print(
            f"error: game {len(rows) + 1}: {error}\nThe same command goes on with this game.",
            file=sys.stderr,
        )
        code = cli.FAILED
    except OSError as error:
        print(
            f"error: {folder} cannot be written: {error.strerror}.\n"
            "The same command goes on, once that is mended.",
            file=sys.stderr,
        )
        code = cli.FAILED
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on with the match.", file=sys.stderr)
        code = cli.INTERRUPTED
    for line in _in_words(rows):
        print(line)
    return code


def _play(plan: Match, number: int) -> tuple[_Row, str]:
    """One game: what match.json says of it, and its record.

    Raises:
        ProgramError: the opponent failed.
    """
    seed, size = plan.settings["seed"], plan.size
    ours = BLACK if number % 2 else WHITE
    rng = np.random.default_rng([seed, number])
    their_seed = int(rng.integers(2**31))

    def choose(position: Position, after_pass: bool) -> int | None:
        is_drawn = position.turn // 2 < size // _DRAWN
        return plan.choose(position, after_pass, rng if is_drawn else None)

    began = time.monotonic()
    with Program(plan.command, plan.time_limit) as program:
        if program.ask("known_command set_random_seed") == "true":
            program.ask(f"set_random_seed {their_seed}")
        played = match.play(choose, program, ours, size)
    seconds = time.monotonic() - began
    row = {
        "game": number,
        "color": _COLORS[ours].lower(),
        "result": played.result,
        "won": None if played.winner is None else played.winner == ours,
        "ending": played.ending,
        "note": played.note,
        "moves": len(played.moves),
        "seconds": round(seconds, 1),
        "file": f"game-{number:03}.sgf",
        "opponent_seed": their_seed,
        "digest": hashlib.sha256(repr(played.moves).encode()).hexdigest()[:16],
    }
    return row, _record(plan, ours, played)


def _record(plan: Match, ours: int, played: Played) -> str:
    names = {ours: "mnist_jax", rules.opponent(ours): plan.opponent}
    game = sgf.Game("", plan.size, {}, BLACK, played.moves, match.KOMI, played.result)
    return sgf.write(game, names[BLACK], names[WHITE], played.note)


def _write(plan: Match, rows: Sequence[_Row]) -> None:
    content = {"settings": plan.settings, "summary": summary(rows), "games": rows}
    records.write_json(plan.folder / "match.json", content)


def summary(rows: Sequence[_Row]) -> dict[str, Any]:
    """How many games were won; games without a result do not count.

    Returns:
        `games`, `won` and `win_rate` with its Wilson interval of 95 %, `interval`; `black` and
        `white`, our colours, with `games` and `won` each; `endings`, how many games ended how;
        `illegal`, whose moves were, `ours` and `theirs`; `without_result`; and how many games are
        `different` from each other.
    """
    counted_ = [row for row in rows if row["won"] is not None]
    colors = {
        color: [row for row in counted_ if row["color"] == color] for color in ("black", "white")
    }
    illegal = [row for row in rows if row["ending"] == "illegal move"]
    won = _won(counted_)
    return {
        "games": len(counted_),
        "won": won,
        "win_rate": won / len(counted_) if counted_ else None,
        "interval": wilson(won, len(counted_)) if counted_ else None,
        **{color: {"games": len(some), "won": _won(some)} for color, some in colors.items()},
        "endings": dict(Counter(row["ending"] for row in rows)),
        "illegal": {"ours": len(illegal) - _won(illegal), "theirs": _won(illegal)},
        "without_result": len(rows) - len(counted_),
        "different": len({row["digest"] for row in rows}),
    }


def _won(rows: Sequence[_Row]) -> int:
    return sum(bool(row["won"]) for row in rows)


def wilson(won: int, games: int) -> list[float]:
    """The bounds of a share's confidence interval of 95 %, by Wilson's score."""
    found = binomtest(won, games).proportion_ci(CONFIDENCE, "wilson")
    return [float(found.low), float(found.high)]


def _line(row: _Row) -> str:
    outcome = {True: "won", False: "lost", None: "no result"}[row["won"]]
    note = f"; {row['note']}" if row["ending"] == "illegal move" else ""
    return (
        f"{row['game']:4}  {row['color'].capitalize()}  {row['result']:8}{row['moves']:5} moves"
        f"{row['seconds']:8.1f} s  {outcome}{note}"
    )


def _in_words(rows: Sequence[_Row]) -> Iterator[str]:
    """What is said at the end."""
    found = summary(rows)
    if not found["games"]:
        yield "No game has a result yet."
        return
    low, high = (100 * bound for bound in found["interval"])
    yield (
        f"Won {found['won']} of {counted(found['games'], 'game')}, "
        f"{100 * found['win_rate']:.1f} %; 95 % confidence interval (Wilson): {low:.1f} to "
        f"{high:.1f} %."
    )
    parts = [
        f"{found[c]['won']} of {found[c]['games']} as {c.capitalize()}" for c in ("black", "white")
    ]
    endings = [f"{count} by {ending}" for ending, count in found["endings"].items()]
    yield f"{', '.join(parts)}. Ended: {', '.join(endings)}."
    for row in rows:
        if row["ending"] == "illegal move":
            whose = "The opponent's" if row["won"] else "Our"
            yield f"{whose} illegal move lost game {row['game']}: {row['note']}."
    if found["without_result"]:
        yield f"{counted(found['without_result'], 'game')} without a result did not count."
    if found["different"] < len(rows):
        yield f"Of {len(rows)} games {found['different']} differ: the others are the same again."
