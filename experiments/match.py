"""Play a trained network against another program: `python -m experiments.match WORKDIR`."""

import argparse
import shlex
import shutil
import sys
from collections.abc import Sequence

from etils import epath

from experiments.console import cli

_HINT = "See python -m experiments.match --help."
_LEVELS = range(1, 11)  # of GNU Go
_PLACES = ("gnugo", "/usr/games/gnugo")  # Debian's is on no PATH but the users'
_MOST_SEED = 2**31 - 1
_EPILOG = """\
examples:
  python -m experiments.match runs/policy --level 1 --games 40
  python -m experiments.match runs/policy --opponent "python -m experiments.gtp runs/other"

Colours take turns, Black first. Each game is a new process of the opponent. Area is scored, with a
komi of 7.5: once both have passed, what the opponent calls dead (final_status_list) is taken off,
and the points are counted. An opponent that cannot tell has the stones counted as they stand. An
illegal move loses. The network plays the likeliest move, and never resigns; its first moves, as
many as a third of a side of the board, are drawn by their probabilities, so that games differ. The
draws, and the opponent's own where it knows set_random_seed, as GNU Go does, depend on --seed and
the number of the game alone. A game of more than 3 moves a point has no result.

FOLDER gets each game as SGF as it ends, and match.json. Where it has some of the same match
already, the others are played.

exit codes: 0; 1 where the opponent ended or took too long in the middle of the match; 2 for a
wrong command; 130 after Ctrl-C. What was played is summed up in any case.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = parse(sys.argv[1:] if argv is None else argv)
    with cli.importing_jax("Interrupted; nothing was played."):
        from experiments.workdir import matches
    return matches.run(given)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; `command` is the opponent's, as a list, and `title` what it is called.

    Raises:
        SystemExit: code 2 with an error of two lines; code 0 after `--help`.
    """
    given = _parser().parse(argv)
    if given.games < 1:
        cli.fail(f"--games must be at least 1, not {given.games}.", _HINT)
    if not 0 <= given.seed <= _MOST_SEED:
        cli.fail(f"--seed must be from 0 to {_MOST_SEED}, not {given.seed}.", _HINT)
    if not 0 < given.time_limit < float("inf"):
        cli.fail(f"--time-limit must be more than 0 seconds, not {given.time_limit:g}.", _HINT)
    if given.opponent is not None:
        if given.level is not None:
            cli.fail("--level is GNU Go's, and --opponent has its own.", "Leave out one of them.")
        given.command = _words(given.opponent)
        given.title = given.command[0].replace("\\", "/").rpartition("/")[2] or "opponent"
    else:
        level = 1 if given.level is None else given.level
        if level not in _LEVELS:
            cli.fail(f"--level must be from 1 to {_LEVELS[-1]}, not {level}.", _HINT)
        given.command = [_gnugo(), "--mode", "gtp", "--chinese-rules", "--level", str(level)]
        given.title = f"gnugo-level-{level}"
    return given


def _words(opponent: str) -> list[str]:
    try:
        words = shlex.split(opponent)
    except ValueError as error:
        cli.fail(f"--opponent {opponent}: {str(error).lower().rstrip('.')}.", _HINT)
    if not words:
        cli.fail("--opponent is empty.", 'Give a command, such as "gnugo --mode gtp --level 1".')
    if shutil.which(words[0]) is None:
        cli.fail(
            f"--opponent {words[0]} is no program that can be run here.",
            'Give a command, such as "gnugo --mode gtp --level 1".',
        )
    return words


def _gnugo() -> str:
    found = next(filter(None, map(shutil.which, _PLACES)), None)
    if found is None:
        cli.fail(
            "GNU Go, gnugo, is not installed.",
            "Install it (Debian: apt install gnugo; macOS: brew install gnu-go), or name a program "
            "that speaks GTP by --opponent.",
        )
    return found


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m experiments.match",
        description="Play Go with the network, or the ensemble, that a workdir holds, against "
        "another program, and say how often it wins.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "workdir", type=epath.Path, metavar="WORKDIR", help="of experiments.run --network policy"
    )
    parser.add_argument(
        "--level", type=int, metavar="L", help="of GNU Go, from 1 to 10 (default: 1)"
    )
    parser.add_argument(
        "--opponent",
        metavar="COMMAND",
        help="another program that speaks GTP, with its arguments (default: GNU Go)",
    )
    parser.add_argument(
        "--games", type=int, default=40, metavar="N", help="half with each colour (default: 40)"
    )
    parser.add_argument(
        "--board-size",
        type=int,
        metavar="N",
        help="checked: a network plays on boards of the size it was trained on",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of all games (default: 0)"
    )
    parser.add_argument(
        "--time-limit",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="of the opponent for an answer (default: 120)",
    )
    parser.add_argument(
        "--output",
        type=epath.Path,
        metavar="FOLDER",
        help="of the records (default: WORKDIR/matches/OPPONENT)",
    )
    return parser


if __name__ == "__main__":
    cli.call(main)
