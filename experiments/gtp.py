"""A trained network as a player of Go: `python -m experiments.gtp WORKDIR`, which speaks GTP 2."""

import io
import sys
from collections.abc import Sequence

from etils import epath

from experiments.console import cli

_EPILOG = """For a program that plays by the Go Text Protocol the command of an engine is: python -m
experiments.gtp WORKDIR. By hand: boardsize 9, play black D4, genmove white, showboard, final_score,
quit; list_commands names them all.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = cli.Parser(
        prog="python -m experiments.gtp",
        description="Play Go with the network, or the ensemble, that a workdir holds.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "workdir", type=epath.Path, metavar="WORKDIR", help="of experiments.run --network policy"
    )
    given = parser.parse(sys.argv[1:] if argv is None else argv)
    with cli.importing_jax("Interrupted.", prints_results=True):
        import mnist_jax
        from experiments.workdir import trained
        from mnist_jax.checkpoints import CheckpointError
        from mnist_jax.go import gtp, player
        from mnist_jax.go.rules import Position

    cli.start_jax()
    try:
        loaded = trained.load(given.workdir)
    except (ValueError, CheckpointError) as error:
        cli.fail(str(error), "WORKDIR is a folder that python -m experiments.run has made.")
    if not loaded.config.reads_positions:
        cli.fail(f"{given.workdir} reads {loaded.config.input_is}s.", "Train --config policy.")

    predict = player.from_logits(loaded.predict)
    table = gtp.new("mnist_jax", mnist_jax.__version__, (loaded.image_shape[0],))

    def choose(position: Position, after_pass: bool) -> int | None:
        return player.choose(position, after_pass, predict, table.komi)

    choose(table.position, False)  # compiles, in no move's time
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # a line in another encoding is a wrong one, no end
    for line in sys.stdin:
        text, table = gtp.answer(table, line, choose)
        print(text, end="", flush=True)
        if table.has_ended:
            break
    return 0


if __name__ == "__main__":
    cli.call(main, prints_results=True)
