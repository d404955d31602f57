"""Batch normalisation over all devices that share a batch, and local response normalisation."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax


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
        if own:
            batch_mean, batch_var = self._of_batch(wide, weights)
            for average, new in ((mean, batch_mean), (var, batch_var)):
                step = (1 - self.momentum) * (new - average.value)
                average.value += step.astype(jnp.float32)
        else:
            batch_mean, batch_var = mean.value, var.value
        normal = (wide - batch_mean) * (lax.rsqrt(batch_var + self.epsilon) * scale) + bias
        return normal.astype(values.dtype)

    def _of_batch(self, values: Array, weights: Array | None) -> tuple[Array, Array]:
        """Mean and variance `[channels]`; the variance from the mean, which loses no digits."""
        weights = jnp.ones(len(values)) if weights is None else weights
        weights = weights.astype(values.dtype)
        places = values.shape[1:-1]
        total = self._sum(jnp.sum(weights)) * math.prod(places)

        def average(values: Array) -> Array:
            by_image = jnp.sum(values, axis=tuple(range(1, values.ndim - 1)))
            return self._sum(jnp.sum(by_image * weights[:, None], axis=0)) / total

        mean = average(values)
        return mean, average((values - mean) ** 2)

    def _sum(self, part: Array) -> Array:
        if self.axis_name is None:
            return part
        return lax.psum(part, self.axis_name, axis_index_groups=self.axis_index_groups)


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
    sums = sum(squares[..., i : i + channels] for i in range(size))
    return values * (k + alpha * sums) ** -beta
