"""`fast`: a small CNN that passes 99 % after one epoch."""

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Dtype
from jax import Array

from mnist_jax.layers import Conv, Dense, MaxPool, conv_pool_relu
from mnist_jax.models.images import ImageNetwork

MEAN, STD = 0.1307, 0.3081  # of MNIST's training pixels


class Fast(ImageNetwork):
    """conv 5x5 24, conv 3x3 32, without padding, each with relu and 2x2 pooling; dense 256.

    Maps float32 `[n, 28, 28, 1]` in [0, 1] to logits `[n, num_classes]`.

    Source: github.com/tuomaso/train_mnist_fast, `8_Final_00s76`, with PyTorch's initial weights
    (uniform to 1 / sqrt(inputs)), but biases of zero.
    """

    num_classes: int = 10
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array:
        kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        x = ((self.prepare(images) - MEAN) / STD).astype(self.dtype)
        for features, size in ((24, 5), (32, 3)):
            conv = Conv(features, (size, size), padding="VALID", kernel_init=kernel_init)
            x = conv_pool_relu(conv, MaxPool(), x)
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(Dense(256, kernel_init=kernel_init)(x))
        return Dense(self.num_classes, kernel_init=kernel_init)(x).astype(jnp.float32)
