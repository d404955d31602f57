"""One page of tables and pictures about trained members: `python -m experiments.report WORKDIR`."""

import argparse
import sys
import warnings
from collections.abc import Sequence

from etils import epath

from experiments.console import cli
from experiments.workdir import records


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = _parse(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = cli.show_warning
    with cli.importing_jax("Interrupted; nothing was written."):
        from experiments.show import reporter
    return reporter.run(given)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = cli.Parser(
        prog="python -m experiments.report",
        description="Write one HTML page about workdirs, side by side and one by one: tables, "
        "curves, calibration, mistakes, filters and feature maps. A workdir that was not evaluated "
        "yet is evaluated first.",
    )
    parser.add_argument(
        "workdirs", type=epath.Path, nargs="+", metavar="WORKDIR", help="of experiments.run"
    )
    parser.add_argument(
        "--output",
        type=epath.Path,
        metavar="FILE",
        help="the page; its pictures are written beside it, named after it (default: "
        "report/index.html in the first WORKDIR)",
    )
    given = parser.parse(argv)
    seen: dict[str, epath.Path] = {}
    for workdir in given.workdirs:
        first = seen.setdefault(records.identity(workdir), workdir)
        if first is not workdir:
            cli.fail(f"{workdir} is given twice.", "Give each workdir once.")
    return given


if __name__ == "__main__":
    cli.call(main)
