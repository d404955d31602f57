"""Train and evaluate: `python -m experiments.run --config deep`."""

import sys
import warnings

from experiments.console import cli
from experiments.console.cli import Command
from experiments.console.clock import Clock, process_started

_INTERRUPTED = "Interrupted before training began; nothing was written."


def main(argv: list[str] | None = None, started: float | None = None) -> int:
    """Run the command line; returns the exit code, see `trainer.train_and_evaluate`.

    Args:
        started: `time.perf_counter()` at the command's start; default now.
    """
    clock = Clock(started)
    command = cli.parse(sys.argv[1:] if argv is None else argv)
    if command is None:
        return 0
    warnings.showwarning = cli.show_warning
    try:
        return _run(command, clock)
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
        return cli.INTERRUPTED


def _run(command: Command, clock: Clock) -> int:
    with clock.during("imports"), cli.importing_jax(_INTERRUPTED):
        from experiments.workdir import trainer

    return trainer.train(command, clock)


if __name__ == "__main__":
    cli.call(lambda: main(started=process_started()))
