"""What all networks of images can do with an image before they look at it."""

from dataclasses import field

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax


class ImageNetwork(nn.Module):
    """A network of images, float32 `[n, height, width, channels]` in [0, 1].

    With `image_size` the images' shorter side is scaled to so many pixels, and the middle of the
    longer one is cut out. With `mean` and `stddev`, of each channel, the one is then subtracted and
    the result divided by the other. Both are part of the network, so that whoever uses it, with
    whatever pictures, need not know of them.
    """

    image_size: int | None = field(default=None, kw_only=True)
    mean: tuple[float, ...] | None = field(default=None, kw_only=True)
    stddev: tuple[float, ...] | None = field(default=None, kw_only=True)

    @nn.nowrap
    def prepare(self, images: Array) -> Array:
        """Scaled and standardised images, as the fields say.

        Raises:
            ValueError: images with another number of channels than `mean` and `stddev`.
        """
        if self.image_size is not None:
            images = scale(images, self.image_size)
        if self.mean is None or self.stddev is None:
            return images
        if not len(self.mean) == len(self.stddev) == images.shape[-1]:
            raise ValueError(
                f"mean and stddev must be of the {images.shape[-1]} channels of the images, "
                f"not of {len(self.mean)} and {len(self.stddev)}."
            )
        return (images - jnp.array(self.mean)) / jnp.array(self.stddev)


def scale(images: Array, side: int) -> Array:
    """The middle square of images, with linear interpolation made `side` pixels wide.

    Args:
        images: float `[n, height, width, channels]`.

    Returns:
        `[n, side, side, channels]`.
    """
    n, height, width, channels = images.shape
    square = min(height, width)
    top, left = (height - square) // 2, (width - square) // 2
    middle = lax.slice(images, (0, top, left, 0), (n, top + square, left + square, channels))
    if square == side:
        return middle
    shape = (n, side, side, channels)
    return jax.image.resize(middle, shape, "linear", precision=lax.Precision.HIGHEST)
