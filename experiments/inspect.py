"""A network layer by layer: `python -m experiments.inspect --config deep`."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, get_args

from experiments.console import cli
from experiments.workdir import config as configs

_NETWORKS = get_args(configs.Network)
_EPILOG = """\
examples:
  python -m experiments.inspect                      # the config deep
  python -m experiments.inspect --config ensemble
  python -m experiments.inspect --network simple --json

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
    with cli.importing_jax("Interrupted.", prints_results=True):
        from experiments.show import inspector
    inspector.run(kinds, given.json)
    return 0


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
    return [(kind.network, len(kind.seeds), config.network_options) for kind in config.kinds]


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
    parser.add_argument("--json", action="store_true", help="print one JSON object, not a table")
    return parser


if __name__ == "__main__":
    cli.call(main, prints_results=True)
