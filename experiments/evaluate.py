"""Evaluate trained members on test data: `python -m experiments.evaluate WORKDIR`."""

import argparse
import sys
import warnings
from collections.abc import Sequence

from experiments.console import cli
from mnist_jax import data, shifts
from mnist_jax.data import sentences

_HINT = "See python -m experiments.evaluate --help."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = _parse(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = cli.show_warning
    given.workdir = cli.writable_workdir(given.workdir)
    with cli.importing_jax("Interrupted; nothing was written."):
        from experiments.workdir import evaluator
    return evaluator.run(given)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.Parser(
        prog="python -m experiments.evaluate",
        description="Evaluate a workdir's members, each of them and combined, on test images: "
        "accuracy, calibration before and after temperature scaling, every ensemble size. Writes "
        "evaluation.json and predictions.npz (the logits) into the workdir.",
    )
    parser.add_argument(
        "workdir",
        type=cli.workdir,
        nargs="?",
        default="pretrained",
        metavar="WORKDIR",
        help="of experiments.run (default: pretrained, the networks that come with the package)",
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help=f"{', '.join(data.NAMES)} (default: the one trained on)",
    )
    parser.add_argument(
        "--data-dir", metavar="FOLDER", help="or file, of the data (default: as in training)"
    )
    parser.add_argument(
        "--shift",
        default="none",
        metavar="NAME",
        help=f"also make the test images harder: {', '.join(shifts.NAMES)}, all, none "
        "(default: none)",
    )
    parser.add_argument(
        "--unfamiliar",
        metavar="FOLDER",
        help="or file, of images of something else, which uncertainty should tell apart: the test "
        "images of anything that --data-dir of experiments.run takes",
    )
    parser.add_argument(
        "--mc-dropout",
        type=int,
        default=0,
        metavar="N",
        help="also combine N predictions of each member with dropout on",
    )
    given = parser.parse(argv)
    if given.mc_dropout < 0:
        cli.fail(f"--mc-dropout must be at least 0, not {given.mc_dropout}.", _HINT)
    known = list(dict.fromkeys([*data.NAMES, *sentences.NAMES]))
    if given.dataset not in (None, *known):
        cli.fail(f"--dataset {given.dataset} does not exist.", cli.nearest(given.dataset, known))
    choices = {name: (name,) for name in shifts.NAMES} | {"all": shifts.NAMES, "none": ()}
    if given.shift not in choices:
        cli.fail(f"--shift {given.shift} does not exist.", cli.nearest(given.shift, list(choices)))
    given.shift = choices[given.shift]
    return given


if __name__ == "__main__":
    cli.call(main)
