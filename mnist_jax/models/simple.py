"""`simple`: the first lab's CNN, two convolutions and one dense layer."""

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Dtype
from jax import Array

from mnist_jax.layers import Conv, Dense, MaxPool, conv_pool_relu
from mnist_jax.models.images import ImageNetwork


class Simple(ImageNetwork):
    """conv 32, conv 64, each with relu and 2x2 pooling; one dense layer.

    Maps float32 `[n, 28, 28, 1]` in [0, 1] to logits `[n, num_classes]`.
    """

    num_classes: int = 10
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array:
        x = self.prepare(images).astype(self.dtype)
        for features in (32, 64):
            conv = Conv(features, use_bias=False, kernel_init=nn.initializers.normal(0.01))
            x = conv_pool_relu(conv, MaxPool(), x)
        x = x.reshape(x.shape[0], -1)
        logits = Dense(
            self.num_classes,
            kernel_init=nn.initializers.glorot_uniform(),
            bias_init=nn.initializers.normal(1.0),
        )(x)
        return logits.astype(jnp.float32)
