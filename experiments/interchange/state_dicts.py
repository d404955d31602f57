"""PyTorch's state_dicts of the labs' networks. Their shapes tell which network it is."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax import models
from mnist_jax.training import IMAGE, Variables


class Layer(NamedTuple):
    """A convolution or a dense layer, as PyTorch has it."""

    name: str
    weight: np.ndarray  # [features, channels, height, width] or [features, inputs]
    bias: np.ndarray | None


def to_variables(state_dict: Mapping[str, Any]) -> tuple[str, Variables]:
    """The lab's network that a state_dict belongs to, and its variables.

    Convolutions and dense layers are taken in their order, by whatever names; the first dense layer
    sees channels before pixels, as `nn.Flatten` gives them.

    Returns:
        A name of `models.LABS`, and `{"params": ...}` of float32 NumPy arrays.

    Raises:
        ValueError: the layers are those of no such network.
    """
    layers = _layers(state_dict)
    found = [layer.weight.shape for layer in layers]
    for name in models.LABS:
        wanted = _shapes(name, len(layers[-1].weight))
        if [_of_pytorch(shapes["kernel"]) for shapes in wanted.values()] == found:
            return name, {"params": _params(name, layers, wanted)}
    shapes = ", ".join("x".join(map(str, shape)) for shape in found)
    raise ValueError(
        f"its layers are {shapes}, which none of {', '.join(models.LABS)} has.\n"
        "Only these networks' state_dicts can be read, of grey images of 28 x 28."
    )


def _layers(state_dict: Mapping[str, Any]) -> list[Layer]:
    """All convolutions in their order, and then all dense layers.

    Raises:
        ValueError: something that is neither.
    """
    arrays = {name: _array(name, value) for name, value in state_dict.items()}
    layers = []
    for name, array in arrays.items():
        stem, _, last = name.rpartition(".")
        if last == "weight" and array.ndim in (2, 4):
            layers.append(Layer(stem, array, arrays.get(f"{stem}.bias")))
        elif not (last == "bias" and array.ndim == 1 and f"{stem}.weight" in arrays):
            raise ValueError(
                f"it has {name!r} {array.shape}, as no convolution or dense layer has.\n"
                f"The labs' networks are {', '.join(models.LABS)}."
            )
    if not layers:
        raise ValueError("it has no layers.\nGive the state_dict of a whole network.")
    return sorted(layers, key=lambda layer: -layer.weight.ndim)


def _array(name: Any, value: Any) -> np.ndarray:
    if not (isinstance(name, str) and hasattr(value, "detach")):
        raise ValueError(
            f"its {name!r} is no tensor.\nSave network.state_dict(), and not the network or a list."
        )
    if value.is_meta or value.is_complex():
        what = "no values" if value.is_meta else "complex numbers"
        raise ValueError(f"its {name!r} has {what}.\nGive the state_dict of a trained network.")
    array = value.detach().cpu().to_dense().float().numpy()
    if not np.isfinite(array).all():
        raise ValueError(f"its {name!r} has NaN or infinite values.\nTrain it again.")
    return array


def _shapes(name: str, num_classes: int) -> dict[str, dict[str, tuple[int, ...]]]:
    """Of each layer of a network, in its order."""
    network = models.create(name, max(num_classes, 2))
    images = jax.ShapeDtypeStruct((1, *IMAGE.shape), jnp.float32)
    made = jax.eval_shape(network.init, jax.random.key(0), images)["params"]
    return {
        layer: {leaf: struct.shape for leaf, struct in made[layer].items()}
        for layer in sorted(made)  # Conv_0, Conv_1, ..., Dense_0, ...
    }


def _of_pytorch(kernel: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of PyTorch's weight."""
    return (kernel[3], kernel[2], *kernel[:2]) if len(kernel) == 4 else kernel[::-1]


def _params(
    name: str, layers: list[Layer], wanted: dict[str, dict[str, tuple[int, ...]]]
) -> dict[str, dict[str, np.ndarray]]:
    """Parameters by this package's names.

    Raises:
        ValueError: a bias where the network has none, or none where it has one.
    """
    params, channels = {}, 0
    for layer, (own, shapes) in zip(layers, wanted.items(), strict=True):
        if (layer.bias is not None) != ("bias" in shapes):
            has = "no bias" if layer.bias is None else "a bias"
            other = "one" if layer.bias is None else "none"
            raise ValueError(
                f"its shapes are those of {name}, but {layer.name} has {has}, and {name} "
                f"has {other} there.\nA network with other layers cannot be read."
            )
        is_first_dense = layer.weight.ndim == 2 and channels
        kernel = _pixels_first(layer.weight, channels) if is_first_dense else layer.weight.T
        if layer.weight.ndim == 4:
            kernel = layer.weight.transpose(2, 3, 1, 0)
        channels = len(layer.weight) if layer.weight.ndim == 4 else 0
        params[own] = {"kernel": kernel} | ({} if layer.bias is None else {"bias": layer.bias})
    return params


def _pixels_first(weight: np.ndarray, channels: int) -> np.ndarray:
    """The kernel of a dense layer whose inputs are `[height, width, channels]`, flattened."""
    features, inputs = weight.shape
    side = math.isqrt(inputs // channels)
    by_place = weight.reshape(features, channels, side, side)
    return by_place.transpose(2, 3, 1, 0).reshape(inputs, features)
