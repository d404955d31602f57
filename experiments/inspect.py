"""A network layer by layer: `python -m experiments.inspect --config deep`."""

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import get_args

from etils import epath

from experiments.console import cli
from experiments.workdir import config as configs
from experiments.workdir import records

_NETWORKS = get_args(configs.Network)
_PICTURES = (".svg", ".png", ".pdf")
_CHANNELS = (1, 3)
_LARGEST_SIDE = 10_000  # of images, in pixels
_SIZE_HINT = (
    "Give height x width x channels: 28x28x1 (1 channel, grey) or 224x224x3 (3, in colour)."
)
_HINT = "See python -m experiments.inspect --help."
_EPILOG = """\
examples:
  python -m experiments.inspect                      # the config deep
  python -m experiments.inspect --config ensemble
  python -m experiments.inspect runs/ensemble-...
  python -m experiments.inspect --network resnet18 --output resnet18.svg
  python -m experiments.inspect --network resnet20 --images 28x28x1 --json
  python -m experiments.inspect --network lenet5 --network-options dense=True

Multiply-adds are those of the matrix products, for one image and one member, forward; training
takes about three times as many. A convolution or pool turns a side of N pixels into
(N + 2P - F)/S + 1, for P pixels of padding on both sides, a kernel or window of F, and stride S.
Where TensorFlow's SAME pads one side more than the other, both pads are shown instead of 2P.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = _parser().parse(sys.argv[1:] if argv is None else argv)
    config, about = _chosen(given)
    image_shape = None if given.images is None else _shape(given.images)
    output = None if given.output is None else _picture(given.output)
    if given.classes is not None and given.classes < 2:
        cli.fail(f"--classes must be at least 2, not {given.classes}.", "Leave it out.")
    with cli.importing_jax("Interrupted.", prints_results=True):
        from experiments.show import inspector
    options, classes = config.options, given.classes
    if about is not None:
        classes = classes or len(about.class_names)
        if about.vocabulary:
            options |= {"words": len(about.vocabulary), "width": about.vector_width}
        elif not config.reads_positions:  # a board's size is that of its classes
            image_shape = image_shape or about.image_shape
    members = [inspector.Kind(kind.network, len(kind.seeds), options) for kind in config.kinds]
    inspector.run(members, image_shape, classes, given.json, output)
    return 0


def _shape(text: str) -> tuple[int, ...]:
    sides = text.lower().split("x")
    if len(sides) != 3 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        cli.fail(f"--images {text} is no size of images.", _SIZE_HINT)
    height, width, channels = map(int, sides)
    if channels not in _CHANNELS:
        cli.fail(f"--images {text} must have 1 or 3 channels, not {channels}.", _SIZE_HINT)
    if max(height, width) > _LARGEST_SIDE:
        cli.fail(f"--images {text} has more than {_LARGEST_SIDE:,} pixels a side.", _SIZE_HINT)
    return height, width, channels


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in _PICTURES:
        *first, last = _PICTURES
        message = f"--output {text} does not end in {', '.join(first)} or {last}."
        cli.fail(message, f"Did you mean {_near(path)}?")
    return path


def _near(path: Path) -> Path:
    """The name of a picture that is like one that is none."""
    if path.is_dir() or path.name.startswith("."):  # Path's word for an empty name is ., a folder
        folder = path if path.is_dir() else path.parent
        return folder / f"network{_PICTURES[0]}"
    stem = Path(path.stem)
    return path.with_name(path.stem if stem.suffix in _PICTURES else f"{stem}{_PICTURES[0]}")


def _chosen(given: argparse.Namespace) -> tuple[configs.Config, records.TrainedOn | None]:
    """The config with the networks asked for, and what a WORKDIR's were trained on."""
    if given.workdir is not None:
        if given.network_options is not None:
            cli.fail("--network-options is of no use to WORKDIR.", "Its networks have their own.")
        return _of_workdir(given.workdir)
    if given.network is not None:
        return cli.with_flags(configs.Config(), given, _HINT), None
    name = "deep" if given.config is None else given.config
    if name not in configs.names():
        cli.fail(f"--config {name} does not exist.", cli.nearest(name, configs.names()))
    return cli.with_flags(configs.get(name)[0], given, _HINT), None


def _of_workdir(workdir: epath.Path) -> tuple[configs.Config, records.TrainedOn]:
    try:
        config = records.read_config(workdir)
        return config, records.read_dataset(workdir, config)
    except ValueError as error:
        if near := get_close_matches(workdir.name, [*configs.names(), *_NETWORKS], n=1):
            flag = "--config" if near[0] in configs.names() else "--network"
            cli.fail(str(error), f"Did you mean {flag} {near[0]}?")
        cli.fail(str(error), "WORKDIR is a folder that python -m experiments.run has made.")


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m experiments.inspect",
        description="Show a network layer by layer: shapes, parameters and multiply-adds.",
        epilog=_EPILOG,
    )
    which = parser.add_mutually_exclusive_group()
    names = ", ".join(configs.names())
    which.add_argument(
        "workdir",
        type=cli.workdir,
        nargs="?",
        metavar="WORKDIR",
        help="made by experiments.run; pretrained: the networks that come with the package",
    )
    which.add_argument("--config", metavar="NAME", help=f"{names} (default: deep)")
    which.add_argument("--network", metavar="NAME", help=", ".join(_NETWORKS))
    parser.add_argument(
        "--network-options",
        metavar="TEXT",
        help="fields of the network's own, as shortcut=B (resnet20), dense=True (lenet5), or "
        "several as NAME=VALUE,NAME=VALUE",
    )
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
