"""Networks as chains of layers, which a page computes one after the other, and which JAX checks.

`page/network.js` has the same layers under the same names.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from mnist_jax.models import convnetjs, lenet5
from mnist_jax.models.convnetjs import ConvNetJS
from mnist_jax.models.deep import Deep
from mnist_jax.models.fast import MEAN, STD, Fast
from mnist_jax.models.images import ImageNetwork
from mnist_jax.models.layers import Layers
from mnist_jax.models.lenet5 import LeNet5
from mnist_jax.models.simple import Simple
from mnist_jax.words import counted

SIDE = 28  # of the images
HELD = "simple, deep, layers, fast, lenet5 and convnetjs"
Params = Mapping[str, Any]
Settings = Mapping[str, Any]
Weights = Mapping[str, Any]


class Unsupported(Exception):
    """What is no such chain."""


class Layer(NamedTuple):
    """What is computed of one image's values, `[height, width, channels]`."""

    kind: str  # of `_COMPUTE`
    name: str  # of the Flax module; empty of what only prepares
    text: str  # what it is, in words; likewise
    settings: Settings
    weights: Weights  # float32 by name; a kernel's outputs are its last axis


def layers_of(network: nn.Module, params: Params) -> list[Layer]:
    """The layers of a member, from pixels in [0, 1] to logits.

    The logits of `lenet5` as published lack a number that is the same for all classes, so that
    their softmax is the network's.

    Args:
        network: for images of 28 x 28 grey pixels.
        params: as `init` makes them, of NumPy arrays.

    Raises:
        Unsupported: a network whose layers are no chain, or which computes in another dtype.
    """
    make = _CHAINS.get(type(network))
    if make is None or not isinstance(network, ImageNetwork):
        raise Unsupported("its layers are no chain that the page knows")
    dtype = jnp.dtype(getattr(network, "dtype", jnp.float32))
    if dtype != jnp.float32:
        raise Unsupported(f"it computes in {dtype}, not in float32")
    if network.image_size not in (None, SIDE):
        raise Unsupported("it scales its images")
    return [*_prepared(network), *make(network, params)]


def forward(layers: Sequence[Layer], images: Array) -> Array:
    """What the page computes, by JAX: uint8 `[n, 28, 28, 1]` to logits `[n, classes]`."""
    x = images.astype(jnp.float32) / 255
    for layer in layers:
        x = _COMPUTE[layer.kind](x, layer.settings, layer.weights)
        x = _ACTIVATIONS[layer.settings.get("activation")](x)
    return x


def _prepared(network: ImageNetwork) -> list[Layer]:
    if network.mean is None or network.stddev is None:
        return []
    return [_rescale(1 / network.stddev[0], -network.mean[0] / network.stddev[0])]


def _of_lab(network: Any, params: Params, padding: int = 1) -> list[Layer]:
    """Convolutions, each with relu and pooling; dense layers, all but the last one with relu."""
    convolutions, dense = _named("Conv_", params), _named("Dense_", params)
    layers = []
    for i, name in enumerate(convolutions):
        layers += [_conv(name, params[name], padding), _max_pool(f"MaxPool_{i}", 2, "relu", True)]
    layers += [_dense(name, params[name], "relu") for name in dense[:-1]]
    return [*layers, _dense(dense[-1], params[dense[-1]])]


def _of_fast(network: Any, params: Params) -> list[Layer]:
    return [_rescale(1 / STD, -MEAN / STD), *_of_lab(network, params, padding=0)]


def _of_convnetjs(network: Any, params: Params) -> list[Layer]:
    layers = [_rescale(1.0, -0.5)]
    for i, line in enumerate(convnetjs.parse(network.layers), start=1):
        name = f"{line.kind}{i}"
        if line.kind == "crop":
            layers.append(_frame(int(line.numbers[0])))
        elif line.kind == "conv":
            padding = int(line.numbers[0]) // 2
            layers.append(_conv(name, params[name], padding, "relu"))
        elif line.kind == "pool":
            layers.append(_max_pool(name, int(line.numbers[0]), None, False))
        elif line.kind == "dense":
            layers.append(_dense(name, params[name], "relu"))
    return [*layers, _dense("softmax", params["softmax"])]


def _of_lenet5(network: Any, params: Params) -> list[Layer]:
    white, black, tanh = lenet5.WHITE, lenet5.BLACK, "scaled_tanh"
    third = dict(params["C3"])
    if not network.dense:
        kernel = jnp.asarray(third["kernel"])
        third["kernel"] = np.asarray(lenet5.whole_kernel(kernel, lenet5.C3_INPUTS, 6))
    pools = [_mean_pool(name, params.get(name)) for name in ("S2", "S4")]
    layers = [
        *(_frame(lenet5.SIDE), _rescale(black - white, white)),
        *(_conv("C1", params["C1"], 0, tanh), pools[0], _conv("C3", third, 0, tanh), pools[1]),
        *(_conv("C5", params["C5"], 0, tanh), _dense("F6", params["F6"], tanh)),
    ]
    if network.dense:
        return [*layers, _dense("output", params["output"])]
    # -|values - code|² without |values|², which all classes have in common.
    codes = lenet5.class_codes(network.num_classes)
    distances = _dense("output", {"kernel": 2 * codes.T, "bias": -np.sum(codes**2, axis=1)})
    text = f"less the squared distances to {len(codes)} fixed codes, but for what all share"
    return [*layers, distances._replace(text=text)]


_CHAINS: Mapping[type[nn.Module], Callable[[Any, Params], list[Layer]]] = {
    Simple: _of_lab,
    Deep: _of_lab,
    Layers: _of_lab,
    Fast: _of_fast,
    ConvNetJS: _of_convnetjs,
    LeNet5: _of_lenet5,
}


def _named(prefix: str, params: Params) -> list[str]:
    return sorted(name for name in params if name.startswith(prefix))


def _rescale(scale: float, shift: float) -> Layer:
    return Layer("rescale", "", "", {"scale": scale, "shift": shift}, {})


def _frame(side: int) -> Layer:
    return Layer("frame", "", "", {"side": side}, {})


def _conv(name: str, own: Params, padding: int, activation: str | None = None) -> Layer:
    kernel = np.asarray(own["kernel"])
    bias = own.get("bias", np.zeros(kernel.shape[-1], np.float32))
    window, channels = kernel.shape[0], kernel.shape[2]
    of = counted(channels, "channel")
    text = f"convolution {window} x {window} of {of}{_followed_by(activation)}"
    settings = {"window": window, "padding": padding, "activation": activation}
    return Layer("conv", name, text, settings, {"kernel": kernel, "bias": np.asarray(bias)})


def _max_pool(name: str, window: int, activation: str | None, rounds_up: bool) -> Layer:
    text = f"maximum of {window} x {window}{_followed_by(activation)}"
    settings = {"window": window, "rounds_up": rounds_up, "activation": activation}
    return Layer("max_pool", name, text, settings, {})


def _mean_pool(name: str, own: Params | None) -> Layer:
    """Of 2 x 2: subsampling where it has parameters, which are of the sum and not of the mean."""
    if own is None:
        weights = {"scale": np.ones(1, np.float32), "bias": np.zeros(1, np.float32)}
        return Layer("mean_pool", name, "mean of 2 x 2", {"window": 2}, weights)
    weights = {"scale": 4 * np.asarray(own["coefficient"]), "bias": np.asarray(own["bias"])}
    activation = "scaled_tanh"
    text = f"sum of 2 x 2, times a coefficient and plus a bias{_followed_by(activation)}"
    settings = {"window": 2, "activation": activation}
    return Layer("mean_pool", name, text, settings, weights)


def _dense(name: str, own: Params, activation: str | None = None) -> Layer:
    kernel, bias = np.asarray(own["kernel"]), np.asarray(own["bias"])
    text = f"dense, {kernel.shape[0]} inputs, {kernel.shape[1]} outputs{_followed_by(activation)}"
    return Layer("dense", name, text, {"activation": activation}, {"kernel": kernel, "bias": bias})


def _followed_by(activation: str | None) -> str:
    return "" if activation is None else f", then {activation.replace('_', ' ')}"


def _compute_rescale(x: Array, settings: Settings, _: Weights) -> Array:
    return x * settings["scale"] + settings["shift"]


def _compute_frame(x: Array, settings: Settings, _: Weights) -> Array:
    side = settings["side"]
    before = [(side - now) // 2 if side > now else -((now - side) // 2) for now in x.shape[1:3]]
    pads = [(low, side - now - low, 0) for low, now in zip(before, x.shape[1:3], strict=True)]
    return lax.pad(x, jnp.float32(0), [(0, 0, 0), *pads, (0, 0, 0)])


def _compute_conv(x: Array, settings: Settings, weights: Weights) -> Array:
    pads = [(settings["padding"],) * 2] * 2
    numbers = ("NHWC", "HWIO", "NHWC")
    out = lax.conv_general_dilated(x, weights["kernel"], (1, 1), pads, dimension_numbers=numbers)
    return out + weights["bias"]


def _compute_max_pool(x: Array, settings: Settings, _: Weights) -> Array:
    window = (settings["window"],) * 2
    return nn.max_pool(x, window, window, "SAME" if settings["rounds_up"] else "VALID")


def _compute_mean_pool(x: Array, settings: Settings, weights: Weights) -> Array:
    window = (settings["window"],) * 2
    return nn.avg_pool(x, window, window) * weights["scale"] + weights["bias"]


def _compute_dense(x: Array, _: Settings, weights: Weights) -> Array:
    return x.reshape(len(x), -1) @ weights["kernel"] + weights["bias"]


_COMPUTE: Mapping[str, Callable[[Array, Settings, Weights], Array]] = {
    "rescale": _compute_rescale,
    "frame": _compute_frame,
    "conv": _compute_conv,
    "max_pool": _compute_max_pool,
    "mean_pool": _compute_mean_pool,
    "dense": _compute_dense,
}
_ACTIVATIONS: Mapping[str | None, Callable[[Array], Array]] = {
    None: lambda x: x,
    "relu": jax.nn.relu,
    "scaled_tanh": lenet5.scaled_tanh,
}
