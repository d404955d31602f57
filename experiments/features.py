"""What a trained network looks for, and what its layers make of one image."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mnist_jax import training
from mnist_jax.layers import Conv, MaxPool


def feature_maps(network: nn.Module, params: Any, image: np.ndarray) -> dict[str, np.ndarray]:
    """The output of each `Conv` and `MaxPool` of `layers`, in the order they are called in.

    Args:
        params: of one member, without an axis of members.
        image: uint8 or float32 in [0, 1], `[height, width, 1]`.

    Returns:
        The layer's name to float32 `[height, width, channels]`: before the relu where the network
        has it after the layer.
    """
    maps: dict[str, np.ndarray] = {}

    def watch(
        call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        out = call(*args, **kwargs)
        if context.method_name == "__call__" and isinstance(context.module, Conv | MaxPool):
            maps["/".join(context.module.path)] = np.asarray(out[0], np.float32)
        return out

    with nn.intercept_methods(watch):
        training.apply(network, params, training.to_float(jnp.asarray(image)[None]))
    return maps


def first_filters(network: nn.Module, params: Any, image: np.ndarray) -> np.ndarray:
    """The kernels of the first convolution that is called, float32 `[height, width, features]`.

    The arguments are those of `feature_maps`; kernels are of the first input channel.

    Raises:
        ValueError: the network has no convolution.
    """
    for name in feature_maps(network, params, image):
        weights = params
        for part in name.split("/"):
            weights = weights.get(part, {})
        if "kernel" in weights:
            return np.asarray(weights["kernel"], np.float32)[:, :, 0]
    raise ValueError("the network has no convolution.")
