"""Weights of other programs as a workdir: `python -m experiments.import FILE... --workdir ...`."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from etils import epath

from experiments.console import cli

_EPILOG = """\
examples:
  python -m experiments.import ensemble.safetensors --workdir runs/ensemble-again
  python -m experiments.import one.pt two.pt --workdir runs/from-pytorch

A safetensors file is one of experiments.export, of any network; it comes back to the bit. A
PyTorch state_dict is one of the labs' networks (simple, deep, layers, fast), which its shapes tell,
whatever its names: convolutions and dense layers in the order of the network, on images of 28 x 28
with pixels in [0, 1]. With ten classes they are the digits; others are called 0, 1, 2, ...

All files together are one ensemble. Evaluating weights of PyTorch needs --dataset or --data-dir,
since it is not known what they were trained on.

exit codes: 0; 2 for a wrong command or file, and then nothing is written.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = _parse(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = cli.show_warning
    with cli.importing_jax("Interrupted; nothing was written."):
        from experiments.interchange import importer
    return importer.run(given)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.Parser(
        prog="python -m experiments.import",
        description="Make a workdir, for predict, evaluate and report, of trained weights.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="safetensors of experiments.export, or a PyTorch state_dict (.pt)",
    )
    parser.add_argument(
        "--workdir", type=epath.Path, required=True, metavar="FOLDER", help="new or empty"
    )
    return parser.parse(argv, mixed=True)


if __name__ == "__main__":
    cli.call(main)
