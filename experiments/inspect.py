"""A network layer by layer: `python -m experiments.inspect --config deep`."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from experiments.console import cli, terminal
from experiments.workdir import config as configs
from mnist_jax import models
from mnist_jax.layers import Conv, Dense, Dropout, MaxPool

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


@dataclass(frozen=True)
class Layer:
    """What one layer makes of one image."""

    name: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    size: str  # how the output's size comes about


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    values = {"--config": configs.names(), "--network": models.NAMES}
    given = _parser().parse(sys.argv[1:] if argv is None else argv, values)
    cli.check_devices()
    reports = [_report(*kind) for kind in _chosen(given)]
    if given.json:
        print(json.dumps(reports, indent=2))
        return 0
    for report in reports:
        _print_table(report)
    return 0


def look(network: nn.Module, image_shape: tuple[int, int, int] = (28, 28, 1)) -> list[Layer]:
    """The layers of a network with weights, pools and dropouts, in the order they are called in.

    The network is called, on shapes alone, and its modules of `layers` are watched: `Conv`,
    `MaxPool`, `Dropout` and `Dense`.
    """
    layers: list[Layer] = []

    def watch(
        call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        out = call(*args, **kwargs)
        if context.method_name == "__call__" and isinstance(context.module, tuple(_SIZES)):
            layers.append(_layer(context.module, args[0].shape[1:], out.shape[1:]))
        return out

    with nn.intercept_methods(watch):
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *image_shape)))
    return layers


def _layer(module: nn.Module, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> Layer:
    weights = module.variables.get("params", {})
    parameters = sum(leaf.size for leaf in jax.tree.leaves(weights))
    # Each place of the output takes every weight of the kernel once.
    places = prod(out_shape[:-1])
    multiply_adds = places * weights["kernel"].size if "kernel" in weights else 0
    size = _SIZES[type(module)](module, in_shape)
    return Layer("/".join(module.path), tuple(out_shape), parameters, multiply_adds, size)


def _conv_size(module: Conv, shape: tuple[int, ...]) -> str:
    return _window_size(shape, module.kernel_size, module.strides, module.padding)


def _pool_size(module: MaxPool, shape: tuple[int, ...]) -> str:
    window = (module.window, module.window)
    return _window_size(shape, window, window, "SAME")


def _window_size(
    shape: Sequence[int], window: Sequence[int], strides: Sequence[int], padding: str
) -> str:
    """The formula of the height and, where it is another, of the width."""
    pads = lax.padtype_to_pads(shape[:2], window, strides, padding)
    sides = zip(shape[:2], pads, window, strides, strict=True)
    return " and ".join(dict.fromkeys(formula(*side) for side in sides))


def formula(side: int, pads: tuple[int, int], window: int, stride: int) -> str:
    """The lecture's (N + 2P - F)/S + 1 with its numbers, such as `(28 + 2*1 - 3)/1 + 1 = 28`."""
    before, after = pads
    padded = f"2*{before}" if before == after else f"{before} + {after}"
    room = side + before + after - window
    quotient = f"({side} + {padded} - {window})/{stride}"
    if room % stride:
        quotient = f"floor({quotient})"
    return f"{quotient} + 1 = {room // stride + 1}"


_SIZES: dict[type[nn.Module], Callable[[Any, tuple[int, ...]], str]] = {
    Conv: _conv_size,
    MaxPool: _pool_size,
    Dropout: lambda module, shape: f"training: 0 with probability {module.rate}",
    Dense: lambda module, shape: f"{shape[-1]} inputs, {module.features} outputs",
}


def _chosen(given: argparse.Namespace) -> list[tuple[str, int, nn.Module]]:
    """Name, number of members and network of each kind that `--network` or `--config` names."""
    if given.network is not None:
        if given.network not in models.NAMES:
            near = cli.nearest(given.network, models.NAMES)
            cli.fail(f"--network {given.network} does not exist.", near)
        return [(given.network, 1, models.create(given.network))]
    name = given.config or "deep"
    if name not in configs.names():
        cli.fail(f"--config {name} does not exist.", cli.nearest(name, configs.names()))
    config, _ = configs.get(name)
    return [
        (kind.network, len(kind.seeds), models.create(kind.network, **config.options))
        for kind in config.kinds
    ]


def _report(name: str, members: int, network: nn.Module) -> dict[str, Any]:
    layers = look(network)
    return {
        "network": name,
        "members": members,
        "parameters": sum(layer.parameters for layer in layers),
        "multiply_adds": sum(layer.multiply_adds for layer in layers),
        "layers": [asdict(layer) for layer in layers],
    }


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m experiments.inspect",
        description="Show a network layer by layer: shapes, parameters and multiply-adds.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group()
    names = ", ".join(configs.names())
    which.add_argument("--config", metavar="NAME", help=f"{names} (default: deep)")
    which.add_argument("--network", metavar="NAME", help=", ".join(models.NAMES))
    parser.add_argument("--json", action="store_true", help="print one JSON object, not a table")
    return parser


def _print_table(report: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    for heading in ("output", "parameters", "multiply-adds"):
        table.add_column(heading, justify="right")
    table.add_column("size")
    for layer in report["layers"]:
        shape = " x ".join(map(str, layer["output_shape"]))
        counts = (f"{layer['parameters']:,}", f"{layer['multiply_adds']:,}")
        table.add_row(layer["name"], shape, *counts, layer["size"])
    counts = (f"{report['parameters']:,}", f"{report['multiply_adds']:,}")
    table.add_row("total", "", *counts, "of one member, for one image")
    print(f"{report['members']} x {report['network']}")
    terminal.show(table)


if __name__ == "__main__":
    cli.call(main, prints_results=True)
