"""Batch normalisation over all devices that share a batch, and local response normalisation."""

import math
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from mnist_jax import kernels, platforms


class BatchNorm(nn.Module):
    """Each channel less its mean and divided by its deviation over the batch, scaled and shifted.

    Mean and variance are those of all images and places, on all devices that share the batch:
    `axis_name` is the name of the mapped axis, and `axis_index_groups` says which of its devices
    belong together (default: all). Images can be left out of them, or count for less, by
    `weights`; so a device whose share of a batch was filled up gives the same as any other.

    Parameters: `scale` and `bias`, float32 `[channels]`. Collection `"batch_stats"`: `mean` and
    `var`, float32 `[channels]`, moving averages of the batches' mean and variance (divided by the
    number of values, not by one less). They are what is taken instead of the batch's own wherever
    they are not to be changed: without `train`, and with it where `"batch_stats"` is not
    `mutable`, as for predictions with dropout.

    Source: Ioffe and Szegedy 2015, algorithms 1 and 2.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None
    axis_index_groups: tuple[tuple[int, ...], ...] | None = None

    @nn.compact
    def __call__(self, values: Array, train: bool, weights: Array | None = None) -> Array:
        """Normalise.

        Args:
            values: float `[n, ..., channels]`.
            train: whether to take, and average, the batch's own mean and variance.
            weights: float `[n]`, at least 0, of each image in mean and variance; default 1 each.

        Returns:
            Of the shape and dtype of `values`.
        """
        shape = values.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        own = train and self.is_mutable_collection("batch_stats") and not self.is_initializing()
        wide = values.astype(jnp.promote_types(values.dtype, jnp.float32))
        if not own:
            factor = lax.rsqrt(var.value + self.epsilon) * scale
            return ((wide - mean.value) * factor + bias).astype(values.dtype)
        weights = jnp.ones(len(wide)) if weights is None else weights
        shared = _Shared(self.epsilon, self.axis_name, self.axis_index_groups)
        normal, *moments = _normalize(wide, scale, bias, weights.astype(wide.dtype), shared)
        for average, new in zip((mean, var), moments, strict=True):
            step = (1 - self.momentum) * (lax.stop_gradient(new) - average.value)
            average.value += step.astype(jnp.float32)
        return normal.astype(values.dtype)


class _Shared(NamedTuple):
    """What a normalisation over several devices is told, beside arrays."""

    epsilon: float
    axis_name: str | None
    axis_index_groups: tuple[tuple[int, ...], ...] | None

    def sum(self, part: Any) -> Any:
        if self.axis_name is None:
            return part
        return lax.psum(part, self.axis_name, axis_index_groups=self.axis_index_groups)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _normalize(
    values: Array, scale: Array, bias: Array, weights: Array, shared: _Shared
) -> tuple[Array, Array, Array]:
    """Normalised values, and the batch's mean and variance, which have no gradient here.

    The gradient is written out: that which JAX derives goes over the values twice as often.
    """
    return _normalize_forward(values, scale, bias, weights, shared)[0]


def _normalize_forward(
    values: Array, scale: Array, bias: Array, weights: Array, shared: _Shared
) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
    own = jnp.sum(weights) * math.prod(values.shape[1:-1])
    own_mean, deviations = _moments(values, weights)
    total = shared.sum(own)
    mean = shared.sum(own_mean * own) / total
    # From the mean, not by the mean of squares, which loses digits.
    var = shared.sum(deviations + own * (own_mean - mean) ** 2) / total
    inverse = lax.rsqrt(var + shared.epsilon)
    normal = (values - mean) * (inverse * scale) + bias
    return (normal, mean, var), (values, scale, weights / total, mean, inverse)


def _normalize_backward(
    shared: _Shared, residuals: tuple[Array, ...], grads: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array, Array]:
    """Ioffe and Szegedy 2015, section 3, with each image's share of the mean for 1 / m."""
    values, scale, shares, mean, inverse = residuals
    grad, *_ = grads
    sums, products = _products(values, grad, mean)
    all_sums, all_products = shared.sum((sums, products))
    shares = shares.reshape(-1, *[1] * (values.ndim - 1))
    along = all_sums + (values - mean) * (inverse**2 * all_products)
    values_grad = (grad - shares * along) * (inverse * scale)
    return values_grad, products * inverse, sums, jnp.zeros(len(values), values.dtype)


_normalize.defvjp(_normalize_forward, _normalize_backward)


def _moments(values: Array, weights: Array) -> tuple[Array, Array]:
    """One device's mean of each channel, and the weighted sum of squared deviations from it."""
    by_jax = _moments_by_jax
    if not kernels.take_channels(values):
        return by_jax(values, weights)
    return platforms.choose(values, weights, cpu=kernels.channel_moments, default=by_jax)


def _moments_by_jax(values: Array, weights: Array) -> tuple[Array, Array]:
    def total(values: Array) -> Array:
        by_image = jnp.sum(values, axis=tuple(range(1, values.ndim - 1)))
        return jnp.sum(by_image * weights[:, None], axis=0)

    count = jnp.sum(weights) * math.prod(values.shape[1:-1])
    mean = total(values) / jnp.where(count == 0, 1, count)
    return mean, total((values - mean) ** 2)


def _products(values: Array, grad: Array, mean: Array) -> tuple[Array, Array]:
    """Sums of `grad` and of `grad * (values - mean)`, by channel, on one device."""
    by_jax = _products_by_jax
    if not kernels.take_channels(values):
        return by_jax(values, grad, mean)
    return platforms.choose(values, grad, mean, cpu=kernels.channel_products, default=by_jax)


def _products_by_jax(values: Array, grad: Array, mean: Array) -> tuple[Array, Array]:
    axes = tuple(range(values.ndim - 1))
    return jnp.sum(grad, axes), jnp.sum(grad * (values - mean), axes)


class LocalResponseNorm(nn.Module):
    """`local_response_norm` with the published constants, in `groups` equal parts of the channels.

    Parts do not see each other.
    """

    groups: int = 1

    @nn.compact
    def __call__(self, values: Array) -> Array:
        parts = values.reshape(*values.shape[:-1], self.groups, -1)
        return local_response_norm(parts).reshape(values.shape)


def local_response_norm(
    values: Array, size: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75
) -> Array:
    """Divide by (k + alpha * the sum of squares over `size` neighbouring channels) ** beta.

    Source: Krizhevsky et al. 2012, section 3.3; its constants are the defaults. Caffe and PyTorch
    divide their alpha by `size`.

    Args:
        values: float `[..., channels]`.
        size: how many channels, the own one in the middle; fewer at the first and last channels.
    """
    below = (size - 1) // 2
    pads = [(0, 0)] * (values.ndim - 1) + [(below, size - 1 - below)]
    squares = jnp.pad(values**2, pads)
    channels = values.shape[-1]
    sums = sum(lax.slice_in_dim(squares, i, i + channels, axis=-1) for i in range(size))
    # A power, of which XLA makes one that is slow on a CPU, and whose gradient is another power.
    return values * jnp.exp(-beta * jnp.log(k + alpha * sums))
