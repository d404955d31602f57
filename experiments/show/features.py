"""What a trained network looks for, and what its layers make of one image."""

from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mnist_jax import training
from mnist_jax.layers import Conv, MaxPool
from mnist_jax.windows import Convolution, MaxPooling

_WATCHED = Conv | MaxPool | Convolution | MaxPooling


def feature_maps(network: nn.Module, variables: Any, image: np.ndarray) -> dict[str, np.ndarray]:
    """The output of each `Conv` and `MaxPool` of `layers`, in the order they are called in.

    Args:
        variables: of one member, without an axis of members.
        image: uint8 or float32 in [0, 1], `[height, width, channels]`.

    Returns:
        The layer's name to float32 `[height, width, channels]`: before the relu where the network
        has it after the layer.
    """
    names: list[str] = []

    @jax.jit
    def run(variables: Any, image: Array) -> list[Array]:
        outputs: list[Array] = []

        def watch(
            call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
        ) -> Any:
            out = call(*args, **kwargs)
            if context.method_name == "__call__" and isinstance(context.module, _WATCHED):
                names.append("/".join(context.module.path))
                outputs.append(out[0].astype(jnp.float32))
            return out

        with nn.intercept_methods(watch):
            # Layers that nobody watches may be called as one.
            images = training.to_float(image)[None]
            network.apply(variables, images, mutable=["intermediates"])
        return outputs

    return dict(zip(names, map(np.asarray, run(variables, image)), strict=True))


def first_filters(params: Any, layers: Iterable[str]) -> np.ndarray:
    """The kernels of the first convolution, float32 `[height, width, features]`.

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
            return np.asarray(weights["kernel"], np.float32)[:, :, 0]
    raise ValueError("the network has no convolution.")
