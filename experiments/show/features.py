"""What a trained network looks for, and what its layers make of one image."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mnist_jax import training
from mnist_jax.layers import Conv, MaxPool
from mnist_jax.models.googlenet import Inception
from mnist_jax.models.lenet5 import PartialConvolution, Subsampling
from mnist_jax.models.resnet import Block
from mnist_jax.windows import Convolution, MaxPooling, MeanPooling

JOINED: dict[type[nn.Module], str] = {  # of several layers, which are not looked into
    Block: "its convolutions plus what skips them",
    Inception: "its four branches side by side",
}
WATCHED = (
    *(Conv, Convolution, PartialConvolution, MaxPool, MaxPooling, MeanPooling, Subsampling),
    *JOINED,
)


class Maps(NamedTuple):
    """What one layer, or one block of them, makes of one image."""

    values: np.ndarray  # float32 [height, width, channels]
    joined: str | None = None  # of a block: what of its layers this is


def feature_maps(network: nn.Module, variables: Any, image: np.ndarray) -> dict[str, Maps]:
    """The output of each convolution, pooling and block, in the order they are called in.

    Args:
        variables: of one member, without an axis of members.
        image: uint8 or float32 in [0, 1], `[height, width, channels]`.

    Returns:
        By the layer's name; before the relu where the network has it after the layer.
    """
    about: list[tuple[str, str | None]] = []

    @jax.jit
    def run(variables: Any, image: Array) -> list[Array]:
        outputs: list[Array] = []
        inside: list[nn.Module] = []

        def watch(
            call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
        ) -> Any:
            module = context.module
            seen = context.method_name == "__call__" and isinstance(module, WATCHED) and not inside
            if not seen:
                return call(*args, **kwargs)
            inside.append(module)
            out = call(*args, **kwargs)
            inside.pop()
            about.append(("/".join(module.path), JOINED.get(type(module))))
            outputs.append(out[0].astype(jnp.float32))
            return out

        with nn.intercept_methods(watch):
            # Layers that nobody watches may be called as one.
            images = training.to_float(image)[None]
            network.apply(variables, images, mutable=["intermediates"])
        return outputs

    outputs = map(np.asarray, run(variables, image))
    return {
        name: Maps(values, joined) for (name, joined), values in zip(about, outputs, strict=True)
    }


def first_filters(params: Any, layers: Iterable[str]) -> np.ndarray:
    """The kernels of the first convolution, float32 `[height, width, channels, features]`.

    Args:
        params: of one member, without an axis of members.
        layers: the keys of its `feature_maps`.

    Raises:
        ValueError: none of the layers has a kernel.
    """
    for name in layers:
        weights = params
        for part in name.split("/"):
            weights = weights.get(part, {})
        if "kernel" in weights:
            return np.asarray(weights["kernel"], np.float32)
    raise ValueError("the network has no convolution.")
