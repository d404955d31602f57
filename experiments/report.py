"""One page of tables and pictures about trained members: `python -m experiments.report WORKDIR`."""

import argparse
import os
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
    given.workdirs = [cli.writable_workdir(workdir) for workdir in given.workdirs]
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
        "workdirs",
        type=cli.workdir,
        nargs="*",
        metavar="WORKDIR",
        help="of experiments.run (default: pretrained, the networks that come with the package)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="the page; its pictures are written beside it, named after it (default: "
        "report/index.html in the first WORKDIR)",
    )
    given = parser.parse(argv, mixed=True)
    given.workdirs = given.workdirs or [cli.workdir("pretrained")]
    if given.output is not None:
        given.output = _page(given.output)
    seen: dict[str, epath.Path] = {}
    for workdir in given.workdirs:
        there = records.COPY if records.is_pretrained(workdir) else workdir
        first = seen.setdefault(records.identity(there), workdir)
        if first is not workdir:
            cli.fail(f"{workdir} is given twice.", "Give each workdir once.")
    return given


def _page(output: str) -> epath.Path:
    """The page that `--output` names.

    Raises:
        SystemExit: code 2 with an error of two lines, where it names something else.
    """
    path = epath.Path(output)
    if output.endswith(("/", os.sep)) or path.is_dir():
        hint = f"Give the name of an HTML file, such as {path / 'index.html'}."
        cli.fail(f"--output {output} is a folder.", hint)
    if path.suffix.lower() not in (".html", ".htm"):
        cli.fail(
            f"--output {output} does not end in .html, by which browsers know a page.",
            f"Did you mean {output}.html?",
        )
    return path


if __name__ == "__main__":
    cli.call(main)
