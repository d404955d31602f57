"""`policy`: AlphaGo's policy network, which says where a strong player would move."""

import math

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Dtype
from jax import Array, lax

from mnist_jax.go.planes import COUNT, LEGAL
from mnist_jax.windows import Convolution

_EMPTY = slice(2, 3)  # the plane of empty points
_FAR = 1e9  # below others lie illegal points; minus infinity would make gradients NaN


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
        x = _part(planes, slice(0, self.planes)).astype(self.dtype)
        x = nn.relu(Convolution(self.filters, 5, padding=2, name="conv1")(x))
        for layer in range(2, 13):
            x = nn.relu(Convolution(self.filters, 3, padding=1, name=f"conv{layer}")(x))
        x = Convolution(1, 1, use_bias=False, name="conv13")(x).reshape(x.shape[0], -1)
        logits = PointBias(name="points")(x.astype(jnp.float32))
        telling = LEGAL if self.planes >= LEGAL.stop else _EMPTY
        return OnlyPlayable(telling.start, telling.stop, name="playable")(logits, planes)


class OnlyPlayable(nn.Module):
    """Logits `[n, points]`, less 1e9 where none of the planes from `first` to `end` is set."""

    first: int
    end: int

    def __call__(self, logits: Array, planes: Array) -> Array:
        can_be_played = (
            _part(planes, slice(self.first, self.end)).max(axis=-1).reshape(logits.shape)
        )
        return logits + (can_be_played - 1) * _FAR


class PointBias(nn.Module):
    """Adds a bias of its own to each point, float32 `[n, points]`; parameter `bias` `[points]`."""

    @nn.compact
    def __call__(self, logits: Array) -> Array:
        shape = (logits.shape[-1],)
        return logits + self.param("bias", nn.initializers.zeros, shape, jnp.float32)


def _part(planes: Array, which: slice) -> Array:
    return lax.slice_in_dim(planes, which.start, which.stop, axis=planes.ndim - 1)
