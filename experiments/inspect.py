"""A network layer by layer: `python -m experiments.inspect --config deep`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from experiments.console import cli
from experiments.workdir import config as configs

_NETWORKS = get_args(configs.Network)
_PICTURES = (".svg", ".png", ".pdf")
_EPILOG = """\
examples:
  python -m experiments.inspect                      # the config deep
  python -m experiments.inspect --config ensemble
  python -m experiments.inspect --network resnet18 --output resnet18.svg
  python -m experiments.inspect --network resnet20 --images 28x28x1 --json

Multiply-adds are those of the matrix products, for one image and one member, forward; training
takes about three times as many. A convolution or pool turns a side of N pixels into
(N + 2P - F)/S + 1, for P pixels of padding on both sides, a kernel or window of F, and stride S.
Where TensorFlow's SAME pads one side more than the other, both pads are shown instead of 2P.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    values = {"--config": configs.names(), "--network": _NETWORKS}
    given = _parser().parse(sys.argv[1:] if argv is None else argv, values)
    kinds = _chosen(given)
    image_shape = None if given.images is None else _shape(given.images)
    output = None if given.output is None else _picture(given.output)
    if given.classes is not None and given.classes < 2:
        cli.fail(f"--classes must be at least 2, not {given.classes}.", "Leave it out.")
    with cli.importing_jax("Interrupted.", prints_results=True):
        from experiments.show import inspector
    members = [inspector.Kind(*kind) for kind in kinds]
    inspector.run(members, image_shape, given.classes, given.json, output)
    return 0


def _shape(text: str) -> tuple[int, ...]:
    sides = text.lower().split("x")
    if len(sides) != 3 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        cli.fail(f"--images {text} is no size of images.", "Give it like 224x224x3.")
    return tuple(map(int, sides))


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in _PICTURES:
        names = ", ".join(_PICTURES)
        cli.fail(f"--output {text} does not end in {names}.", f"Did you mean {text}.svg?")
    return path


def _chosen(given: argparse.Namespace) -> list[tuple[str, int, dict[str, Any]]]:
    """Name, number of members and options of each network that `--network` or `--config` names."""
    if given.network is not None:
        if given.network not in _NETWORKS:
            near = cli.nearest(given.network, _NETWORKS)
            cli.fail(f"--network {given.network} does not exist.", near)
        return [(given.network, 1, {})]
    name = given.config or "deep"
    if name not in configs.names():
        cli.fail(f"--config {name} does not exist.", cli.nearest(name, configs.names()))
    config, _ = configs.get(name)
    return [(kind.network, len(kind.seeds), config.options) for kind in config.kinds]


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m experiments.inspect",
        description="Show a network layer by layer: shapes, parameters and multiply-adds.",
        epilog=_EPILOG,
    )
    which = parser.add_mutually_exclusive_group()
    names = ", ".join(configs.names())
    which.add_argument("--config", metavar="NAME", help=f"{names} (default: deep)")
    which.add_argument("--network", metavar="NAME", help=", ".join(_NETWORKS))
    parser.add_argument(
        "--images",
        metavar="SIZE",
        help="height x width x channels, such as 224x224x3 (default: as published)",
    )
    parser.add_argument("--classes", type=int, metavar="N", help="how many (default: as published)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, not a table")
    parser.add_argument(
        "--output", metavar="FILE", help="also draw the network as a graph: .svg, .png or .pdf"
    )
    return parser


if __name__ == "__main__":
    cli.call(main, prints_results=True)
