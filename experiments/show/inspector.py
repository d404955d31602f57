"""What `experiments.inspect` does once JAX is imported: a network layer by layer."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import isqrt, prod
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jax import lax
from rich.table import Table

from experiments.console import cli, terminal
from experiments.show import flow
from mnist_jax import models
from mnist_jax.layers import Conv, Dense, Dropout, MaxPool
from mnist_jax.models.lenet5 import Distances, PartialConvolution, Subsampling
from mnist_jax.models.policy import OnlyPlayable, PointBias
from mnist_jax.models.sentence import WordVectors, WordWindows
from mnist_jax.normalization import BatchNorm, LocalResponseNorm
from mnist_jax.windows import Convolution, MaxPooling, MeanOverPlaces, MeanPooling

_WORDS = 18_766  # of MR, and padding


class Kind(NamedTuple):
    """Members that are the same network."""

    network: str
    members: int
    options: dict[str, Any]  # of the network


@dataclass(frozen=True)
class Layer:
    """What one layer, or a place where several meet, makes of one image."""

    name: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    size: str  # how the output's size comes about
    inputs: tuple[str, ...]  # the layers whose output it takes; of the first the network's input


def run(
    kinds: Sequence[Kind],
    image_shape: tuple[int, ...] | None,
    num_classes: int | None,
    as_json: bool,
    output: Path | None,
) -> None:
    """Print what each kind of members is, and draw it.

    Args:
        image_shape: height, width and channels; default those that the network was published for.
        num_classes: default likewise.
        output: where to draw a graph; with several kinds there is a file for each.

    Raises:
        SystemExit: code 2 with an error of two lines for images that a network does not take, or
            a file that cannot be written.
    """
    cli.check_devices()
    reports = []
    for kind in kinds:
        published = models.PUBLISHED[kind.network]
        options = kind.options
        shape = image_shape or published.image_shape
        classes = num_classes or published.num_classes
        if kind.network in models.OF_SENTENCES:
            options = {"words": _WORDS} | options
            if image_shape is not None:
                cli.fail(f"--images is of no use to {kind.network}.", "It reads sentences.")
        if kind.network in models.OF_POSITIONS:
            side = isqrt(classes)
            if image_shape is not None or side * side != classes:
                what = "--images" if image_shape is not None else f"--classes {num_classes}"
                hint = "It reads boards: --classes 81, a class a point, is one of 9 x 9."
                cli.fail(f"{what} is of no use to {kind.network}.", hint)
            shape = (side, side, shape[-1])
        try:
            network = models.create(kind.network, classes, **options)
        except ValueError as error:
            cli.fail(str(error), "Give other --network-options, or leave them out.")
        try:
            layers = look(network, shape, _given(kind.network))
        except ValueError as error:
            cli.fail(
                str(error),
                "Give another size by --images, or --network-options image_size=N to scale them.",
            )
        reports.append((kind, shape, layers))
        if output is not None:
            name = output.stem if len(kinds) == 1 else f"{output.stem}-{kind.network}"
            _draw(kind, shape, layers, output.with_stem(name))
    if as_json:
        print(json.dumps([_report(*report) for report in reports], indent=2))
        return
    for kind, shape, layers in reports:
        given = "".join(f", {option}" for option in _in_words(kind.options))
        what = _given(kind.network)
        print(f"{kind.members} x {kind.network}{given}, {what} {_by(shape)}")
        terminal.show(table(layers, what))


def _given(network: str) -> str:
    """What a network's input is called."""
    if network in models.OF_POSITIONS:
        return "planes"
    return "tokens" if network in models.OF_SENTENCES else "images"


def _in_words(options: dict[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in options.items()]


def _draw(kind: Kind, image_shape: Sequence[int], layers: Sequence[Layer], output: Path) -> None:
    from experiments.show import graph  # matplotlib takes a while to import

    title = "\n".join([kind.network, *_in_words(kind.options)])
    try:
        figure = graph.draw(title, image_shape, layers, _given(kind.network))
        figure.savefig(output, dpi=150)
    except OSError as error:
        cli.fail(f"--output {output} cannot be written: {error.strerror}.", "Choose another file.")
    print(f"The graph is in {output}.", file=sys.stderr)


def look(
    network: nn.Module, image_shape: tuple[int, ...] = (28, 28, 1), given: str = "images"
) -> list[Layer]:
    """The layers of a network, and where their outputs are added or put side by side, in the order
    they are computed in.

    Args:
        given: what the network's input is called.

    Raises:
        ValueError: images that the network cannot take.
    """
    return [_layer(node) for node in flow.trace(network, image_shape, tuple(_SIZES), given)]


def predicting(layers: Sequence[Layer]) -> list[Layer]:
    """The layers that lead to the last one; others, as auxiliary heads, are for training only."""
    leading = {layers[-1].name}
    for layer in reversed(layers):
        leading |= set(layer.inputs) if layer.name in leading else set()
    return [layer for layer in layers if layer.name in leading]


def _layer(node: flow.Node) -> Layer:
    if node.module is None:
        joined = {"add": "the sum", "concatenate": "side by side"}[node.kind]
        return Layer(node.name, node.output_shape, 0, 0, joined, node.inputs)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(node.params))
    multiply_adds = _multiply_adds(node)
    size = _SIZES[type(node.module)](node.module, node.input_shape)
    return Layer(node.name, node.output_shape, parameters, multiply_adds, size, node.inputs)


def _multiply_adds(node: flow.Node) -> int:
    """Each place of the output takes every weight of the kernel once."""
    if isinstance(node.module, WordWindows):  # its output is the maximum over the places
        places = {size: node.input_shape[0] - size + 1 for size in node.module.windows}
        return sum(n * node.params[f"kernel_{size}"].size for size, n in places.items())
    places_out = prod(node.output_shape[:-1])
    return places_out * node.params["kernel"].size if "kernel" in node.params else 0


def _conv_size(module: Conv, shape: tuple[int, ...]) -> str:
    return _window_size(shape, module.kernel_size, module.strides, module.padding)


def _pool_size(module: MaxPool, shape: tuple[int, ...]) -> str:
    return _window_size(shape, *module.geometry)


def _convolution_size(module: Convolution, shape: tuple[int, ...]) -> str:
    pads = [(module.padding, module.padding)] * 2
    size = _with_pads(shape, pads, [module.window] * 2, [module.stride] * 2)
    return size if module.groups == 1 else f"{size}; in {module.groups} groups"


def _pooling_size(module: MaxPooling, shape: tuple[int, ...]) -> str:
    pads = [module.pads(side) for side in shape[:2]]
    return _with_pads(shape, pads, [module.window] * 2, [module.stride] * 2)


def _without_pads(shape: Sequence[int], window: int, stride: int = 1) -> str:
    return _with_pads(shape, [(0, 0)] * 2, [window] * 2, [stride] * 2)


def _window_size(
    shape: Sequence[int], window: Sequence[int], strides: Sequence[int], padding: str
) -> str:
    pads = lax.padtype_to_pads(shape[:2], window, strides, padding)
    return _with_pads(shape, pads, window, strides)


def _with_pads(
    shape: Sequence[int],
    pads: Sequence[tuple[int, int]],
    window: Sequence[int],
    strides: Sequence[int],
) -> str:
    """The formula of the height and, where it is another, of the width."""
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
    Convolution: _convolution_size,
    MaxPooling: _pooling_size,
    MeanPooling: lambda module, shape: _without_pads(shape, module.window, module.stride),
    MeanOverPlaces: lambda module, shape: f"the mean of {shape[0]} x {shape[1]} places",
    BatchNorm: lambda module, shape: "mean 0, deviation 1 over the batch",
    LocalResponseNorm: lambda module, shape: "less where neighbouring channels have much",
    PartialConvolution: lambda module, shape: _without_pads(shape, module.window),
    Subsampling: lambda module, shape: _without_pads(shape, 2, 2),
    WordVectors: lambda module, shape: f"{module.words:,} words, vectors of {module.width}",
    WordWindows: lambda module, shape: (
        f"over {', '.join(map(str, module.windows))} of {shape[0]} words, {module.maps} maps each; "
        "maximum over time"
    ),
    PointBias: lambda module, shape: f"a bias for each of {shape[-1]} points",
    OnlyPlayable: lambda module, shape: "-1e9 where no move is legal, as the planes tell",
    Distances: lambda module, shape: f"squared distances to {module.num_classes} fixed codes",
}


def _report(kind: Kind, image_shape: tuple[int, ...], layers: Sequence[Layer]) -> dict[str, Any]:
    return {
        "network": kind.network,
        "members": kind.members,
        "options": kind.options,
        "image_shape": image_shape,
        **_sums(layers),
        "predicting": _sums(predicting(layers)),
        "layers": [asdict(layer) for layer in layers],
    }


def _sums(layers: Sequence[Layer]) -> dict[str, int]:
    return {
        "parameters": sum(layer.parameters for layer in layers),
        "multiply_adds": sum(layer.multiply_adds for layer in layers),
    }


def table(layers: Sequence[Layer], given: str = "images") -> Table:
    """A row a layer, and their sums: of all, and of those that predict where these are fewer.

    Args:
        given: what the network's input is called.
    """
    above = [given, *(layer.name for layer in layers)]
    elsewhere = [
        "" if layer.inputs == (up,) else ", ".join(layer.inputs)
        for layer, up in zip(layers, above, strict=False)
    ]
    rows = Table(box=None, pad_edge=False)
    rows.add_column("layer")
    for heading in ("output", "parameters", "multiply-adds"):
        rows.add_column(heading, justify="right")
    rows.add_column("size")
    branches = any(elsewhere)
    if branches:
        rows.add_column("takes, if not the row above")
    for layer, inputs in zip(layers, elsewhere, strict=True):
        counts = (f"{layer.parameters:,}", f"{layer.multiply_adds:,}")
        cells = (layer.name, _by(layer.output_shape), *counts, layer.size)
        rows.add_row(*cells, *([inputs] if branches else []))
    total = [f"{count:,}" for count in _sums(layers).values()]
    rows.add_row("total", "", *total, "of one member, for one input")
    used = predicting(layers)
    if len(used) < len(layers):
        heads = {layer.name.partition("/")[0]: None for layer in layers if layer not in used}
        in_use = [f"{count:,}" for count in _sums(used).values()]
        rows.add_row("predicting", "", *in_use, f"without {' and '.join(heads)}, for training only")
    return rows


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
