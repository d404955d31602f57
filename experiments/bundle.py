"""A trained workdir as a small folder: `python -m experiments.bundle [WORKDIR] --output FOLDER`."""

import argparse
import sys
import warnings
from collections.abc import Sequence

from etils import epath

from experiments import run
from experiments.console import cli
from experiments.workdir import records

CONFIG = "pretrained"
_EPILOG = f"""\
examples:
  python -m experiments.bundle --output runs/pretrained
  python -m experiments.bundle runs/ensemble-... --output ensemble

Without WORKDIR the networks that come with the package are trained anew, which takes a few minutes:
python -m experiments.run --config {CONFIG}, into FOLDER-training. On the same machine they come out
the same to the bit.

FOLDER holds the weights in half precision, which is all that predicting needs, without what going
on with training would: config.json, dataset.json, weights.npz, results.json and MODEL_CARD.md,
whose figures are of these very weights, tested once more. evaluate, predict, report, live and
export take FOLDER for a WORKDIR.

exit codes: 0; 1 where the training or writing failed; 2 for a wrong command.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = _parse(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = cli.show_warning
    if records.in_use(given.output):
        cli.fail(f"--output {given.output} exists and is not an empty folder.", "Choose another.")
    workdir = given.workdir
    if workdir is None:
        workdir = given.output.parent / f"{given.output.name}-training"
        code = run.main(_training(workdir, given.data_dir))
        if code != 0:
            return code
    with cli.importing_jax("Interrupted; nothing was written."):
        from experiments.workdir import bundling
    return bundling.run(workdir, given.output)


def _training(workdir: epath.Path, data_dir: str | None) -> list[str]:
    """The command line of the training."""
    where = [] if data_dir is None else ["--data-dir", data_dir]
    return ["--config", CONFIG, "--workdir", str(workdir), *where]


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.Parser(
        prog="python -m experiments.bundle",
        description="Make a small folder of a workdir, with the weights alone.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "workdir",
        type=epath.Path,
        nargs="?",
        metavar="WORKDIR",
        help=f"made by experiments.run (default: train --config {CONFIG} first)",
    )
    parser.add_argument(
        "--output", type=epath.Path, required=True, metavar="FOLDER", help="new, or empty"
    )
    parser.add_argument(
        "--data-dir", metavar="FOLDER", help="or file, of MNIST, where there is no WORKDIR"
    )
    given = parser.parse(argv)
    if given.workdir is not None and given.data_dir is not None:
        cli.fail("--data-dir is for training, and there is a WORKDIR.", "Leave one of them out.")
    return given


if __name__ == "__main__":
    cli.call(main)
