"""Random changes of a batch of images, each image its own, on the device.

An augmentation takes and gives labels too, since some changes go by the label, and some make what
is none of the classes.
"""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.ndimage import map_coordinates

from mnist_jax import handwriting
from mnist_jax.go import symmetries

Name = Literal["none", "shift", "affine", "crop-flip", "handwriting", "symmetries"]
# float32 images [n, height, width, channels], int32 labels [n], and a key, to both of them anew
Augment = Callable[[Array, Array, Array], tuple[Array, Array]]

_PIXELS = 2
_DEGREES = 10.0
_SCALE = 0.1
_PART = 8  # of a side that crop_flip pads with: 4 pixels of CIFAR's 32


@functools.cache  # the same function for the same name: by it compiled training is found again
def create(name: str) -> Augment | None:
    """The augmentation of a name, or None for `"none"`.

    Raises:
        ValueError: an unknown name.
    """
    functions: dict[str, Augment | None] = {
        "none": None,
        "shift": _of_images(shift),
        "affine": _of_images(affine),
        "crop-flip": _of_images(crop_flip),
        "handwriting": handwriting.augment,
        "symmetries": symmetries.augment,
    }
    if name not in functions:
        raise ValueError(f"augment must be one of {', '.join(functions)}, not {name!r}.")
    return functions[name]


def _of_images(change: Callable[[Array, Array], Array]) -> Augment:
    return lambda images, labels, key: (change(images, key), labels)


def shift(images: Array, key: Array, pixels: int = _PIXELS) -> Array:
    """Move each image by whole pixels, up to `pixels` in each direction; zeros come in.

    Args:
        images: float32 `[n, height, width, channels]`.
        key: a PRNG key.
        pixels: the largest distance, along each axis.
    """
    starts = jax.random.randint(key, (len(images), 2), 0, 2 * pixels + 1)
    padded = jnp.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))

    def cut(image: Array, start: Array) -> Array:
        return jax.lax.dynamic_slice(image, (start[0], start[1], 0), images.shape[1:])

    return jax.vmap(cut)(padded, starts)


def crop_flip(images: Array, key: Array, pixels: int | None = None) -> Array:
    """Pad each image with zeros, cut its size out of that at random, and mirror every second one.

    Pixels keep their exact values. Source: He et al. 2016, "Deep residual learning for image
    recognition", section 4.2, which pads CIFAR-10's 32 x 32 images with 4 pixels.

    Args:
        images: float32 `[n, height, width, channels]`.
        key: a PRNG key.
        pixels: how many to pad with, on each side; default an eighth of the shorter side.

    Returns:
        Of the same shape; each image is mirrored, left to right, with probability 1/2.
    """
    crop_key, flip_key = jax.random.split(key)
    if pixels is None:
        pixels = min(images.shape[1:3]) // _PART
    cropped = shift(images, crop_key, pixels)
    flipped = jax.random.bernoulli(flip_key, 0.5, (len(images), 1, 1, 1))
    return jnp.where(flipped, cropped[:, :, ::-1], cropped)


def affine(
    images: Array,
    key: Array,
    degrees: float = _DEGREES,
    scale: float = _SCALE,
    pixels: float = _PIXELS,
) -> Array:
    """Turn, scale and move each image at random, with bilinear interpolation; zeros come in.

    Args:
        images: float32 `[n, height, width, channels]`.
        key: a PRNG key.
        degrees: the largest angle, to either side.
        scale: the largest change of size: 0.1 is 0.9 to 1.1 times.
        pixels: the largest distance moved along each axis.
    """
    angle_key, scale_key, move_key = jax.random.split(key, 3)
    n, height, width, _ = images.shape
    angles = jax.random.uniform(angle_key, (n,), minval=-1) * jnp.deg2rad(degrees)
    scales = 1 + jax.random.uniform(scale_key, (n,), minval=-1) * scale
    moves = jax.random.uniform(move_key, (n, 2), minval=-1) * pixels
    centre = jnp.array([height - 1, width - 1]) / 2
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), axis=-1)

    def one(image: Array, angle: Array, scale: Array, move: Array) -> Array:
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        backwards = jnp.array([[cos, -sin], [sin, cos]]) / scale
        sources = (grid - centre - move) @ backwards.T + centre  # where each pixel comes from
        places = [sources[..., 0], sources[..., 1]]
        sample = jax.vmap(
            lambda channel: map_coordinates(channel, places, order=1), in_axes=-1, out_axes=-1
        )
        return sample(image)

    return jax.vmap(one)(images, angles, scales, moves)
