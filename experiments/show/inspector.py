"""What `experiments.inspect` does once JAX is imported: a network layer by layer."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from experiments.console import cli, terminal
from mnist_jax import models
from mnist_jax.layers import Conv, Dense, Dropout, MaxPool


@dataclass(frozen=True)
class Layer:
    """What one layer makes of one image."""

    name: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    size: str  # how the output's size comes about


def run(kinds: Sequence[tuple[str, int, dict[str, Any]]], as_json: bool) -> None:
    """Print what each kind of members is: its network's name, how many, its network's options."""
    cli.check_devices()
    reports = [
        _report(name, members, models.create(name, **options)) for name, members, options in kinds
    ]
    if as_json:
        print(json.dumps(reports, indent=2))
        return
    for report in reports:
        _print_table(report)


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


def _report(name: str, members: int, network: nn.Module) -> dict[str, Any]:
    layers = look(network)
    return {
        "network": name,
        "members": members,
        "parameters": sum(layer.parameters for layer in layers),
        "multiply_adds": sum(layer.multiply_adds for layer in layers),
        "layers": [asdict(layer) for layer in layers],
    }


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
