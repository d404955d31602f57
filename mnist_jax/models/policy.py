"""`policy`: AlphaGo's policy network, which says where a strong player would move."""

import math

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Dtype
from jax import Array

from mnist_jax.go.planes import COUNT, LEGAL
from mnist_jax.windows import Convolution

EMPTY_PLANE = 2
_ILLEGAL = -1e9  # a logit, instead of minus infinity, which makes gradients NaN


class Policy(nn.Module):
    """Twelve convolutions with relu, 5x5 and then 3x3, and a 1x1 one with a bias for each point.

    Maps a position's planes, float `[n, size, size, 48]`, to logits `[n, size * size]`, one a
    point. With `planes` only the first of them are looked at. Points that are not empty, or, where
    the planes tell it, not legal, have logits of -1e9. With 192 filters and a board of 19 x 19 it
    has 3,882,793 parameters.

    Source: Silver et al. 2016, "Mastering the game of Go with deep neural networks and tree
    search", Methods, "Neural network architecture". It does not give initial values; here they are
    He's.

    Raises:
        ValueError: planes of another number than 48, or a board without `num_classes` points.
    """

    num_classes: int = 361
    filters: int = 192
    planes: int = COUNT
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, planes: Array, train: bool = False) -> Array:
        _, size, width, count = planes.shape
        if count != COUNT or size != width or size != math.isqrt(self.num_classes):
            side = math.isqrt(self.num_classes)
            raise ValueError(
                f"policy takes planes [n, {side}, {side}, {COUNT}], not {planes.shape}."
            )
        x = planes[..., : self.planes].astype(self.dtype)
        x = nn.relu(Convolution(self.filters, 5, padding=2, name="conv1")(x))
        for layer in range(2, 13):
            x = nn.relu(Convolution(self.filters, 3, padding=1, name=f"conv{layer}")(x))
        x = Convolution(1, 1, use_bias=False, name="conv13")(x).reshape(len(x), -1)
        bias = self.param("bias", nn.initializers.zeros, (self.num_classes,), jnp.float32)
        can_be_played = planes[..., EMPTY_PLANE] > 0
        if self.planes >= LEGAL.stop:
            can_be_played = planes[..., LEGAL].any(axis=-1)
        logits = x.astype(jnp.float32) + bias
        return jnp.where(can_be_played.reshape(len(x), -1), logits, _ILLEGAL)
