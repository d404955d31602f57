"""`deep`: the lab's deep CNN, three convolutions and three dense layers with dropout."""

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Dtype
from jax import Array

from mnist_jax.layers import Conv, Dense, Dropout, MaxPool, conv_pool_relu
from mnist_jax.models.images import ImageNetwork


class Deep(ImageNetwork):
    """conv 32, 64, 128, each with relu, 2x2 pooling and dropout; dense 625, 625, num_classes.

    Maps float32 `[n, 28, 28, 1]` in [0, 1] to logits `[n, num_classes]`. With `train` an rng named
    `"dropout"` is needed. `conv_stddev` is the standard deviation of the convolutions' initial
    values: 0.01 in the lab, 1 in its class version.
    """

    num_classes: int = 10
    dtype: Dtype = jnp.float32
    dropout_rate: float = 0.3
    conv_stddev: float = 0.01

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array:
        x = self.prepare(images).astype(self.dtype)
        for features in (32, 64, 128):
            kernel_init = nn.initializers.normal(self.conv_stddev)
            conv = Conv(features, use_bias=False, kernel_init=kernel_init)
            x = conv_pool_relu(conv, MaxPool(), x)
            x = Dropout(self.dropout_rate)(x, train)
        x = x.reshape(x.shape[0], -1)
        for features in (625, 625):
            x = nn.relu(_dense(features)(x))
            x = Dropout(self.dropout_rate)(x, train)
        return _dense(self.num_classes)(x).astype(jnp.float32)


def _dense(features: int) -> Dense:
    return Dense(
        features,
        kernel_init=nn.initializers.glorot_uniform(),
        bias_init=nn.initializers.normal(1.0),
    )
