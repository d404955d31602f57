"""Convolution, pooling and dropout, in forms that are fast on a CPU and under `vmap`.

`lax.conv` is not used: inside a loop XLA's CPU backend runs it ten times slower than it should
(jax-ml/jax#12868), and under `vmap` with one kernel a member it becomes a grouped convolution, slow
on every backend. A convolution here is shifted slices, concatenated, times one matrix.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer
from jax import Array, lax

Padding = Literal["SAME", "VALID"]
Pair = tuple[int, int]
Pads = tuple[Pair, Pair]

_DROPOUT_LEVELS = 256


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv2d(
    images: Array, kernel: Array, strides: Pair = (1, 1), padding: Padding = "SAME"
) -> Array:
    """Cross-correlate images with a kernel, as `lax.conv_general_dilated` does for NHWC and HWIO.

    Args:
        images: float `[n, height, width, channels]`.
        kernel: float `[kernel_height, kernel_width, channels, features]`, of the images' dtype.
        strides: pixels between neighbouring outputs, down and across.
        padding: `"SAME"` or `"VALID"`.

    Returns:
        `[n, out_height, out_width, features]` of the images' dtype.
    """
    return _conv2d_forward(images, kernel, strides, padding)[0]


def _conv2d_forward(
    images: Array, kernel: Array, strides: Pair, padding: Padding
) -> tuple[Array, tuple[Array, Array, Array]]:
    kernel_size = (kernel.shape[0], kernel.shape[1])
    pads = lax.padtype_to_pads(images.shape[1:3], kernel_size, strides, padding)
    columns = _patches(_pad(images, pads), kernel_size, strides)
    # Kept for the kernel's gradient: making the columns again costs more than reading them.
    # `images` is kept for its shape alone; XLA drops the values.
    return _times_kernel(columns, kernel), (images, kernel, columns)


def _conv2d_backward(
    strides: Pair, padding: Padding, residuals: tuple[Array, Array, Array], grad: Array
) -> tuple[Array, Array]:
    images, kernel, columns = residuals
    kernel_size = (kernel.shape[0], kernel.shape[1])
    kernel_grad = jnp.tensordot(columns, grad, axes=((0, 1, 2), (0, 1, 2))).reshape(kernel.shape)

    # The images' gradient is a convolution of stride 1 of the spread-out output gradient with the
    # kernel turned by 180 degrees.
    pads = lax.padtype_to_pads(images.shape[1:3], kernel_size, strides, padding)
    low = [size - 1 - pad for size, (pad, _) in zip(kernel_size, pads, strict=True)]
    spread = [(out - 1) * stride + 1 for out, stride in zip(grad.shape[1:3], strides, strict=True)]
    high = [
        images.shape[1 + axis] - spread[axis] - low[axis] + kernel_size[axis] - 1 for axis in (0, 1)
    ]
    padded = _pad(grad, tuple(zip(low, high, strict=True)), spacing=strides)
    turned = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    return _times_kernel(_patches(padded, kernel_size, (1, 1)), turned), kernel_grad


conv2d.defvjp(_conv2d_forward, _conv2d_backward)


def _pad(images: Array, pads: Sequence[Pair], spacing: Pair = (1, 1)) -> Array:
    """Pad height and width with zeros; `spacing` 2 also puts one zero between neighbours."""
    (top, bottom), (left, right) = pads
    config = [(0, 0, 0), (top, bottom, spacing[0] - 1), (left, right, spacing[1] - 1), (0, 0, 0)]
    return lax.pad(images, jnp.zeros((), images.dtype), config)


def _patches(images: Array, kernel_size: Pair, strides: Pair) -> Array:
    """The pixels below each kernel position side by side: `[n, out, out, kernel * kernel * c]`."""
    n, height, width, channels = images.shape
    down, across = (
        (size - kernel) // stride + 1
        for size, kernel, stride in zip((height, width), kernel_size, strides, strict=True)
    )
    shifted = [
        lax.slice(
            images,
            (0, i, j, 0),
            (n, i + (down - 1) * strides[0] + 1, j + (across - 1) * strides[1] + 1, channels),
            (1, *strides, 1),
        )
        for i in range(kernel_size[0])
        for j in range(kernel_size[1])
    ]
    return jnp.concatenate(shifted, axis=-1)


def _times_kernel(columns: Array, kernel: Array) -> Array:
    rows = columns.reshape(-1, columns.shape[-1])
    return (rows @ kernel.reshape(-1, kernel.shape[-1])).reshape(*columns.shape[:-1], -1)


class Conv(nn.Module):
    """A 2-D convolution, `[n, height, width, channels]` to `[n, out_height, out_width, features]`.

    Parameters: `kernel` `[kernel_height, kernel_width, channels, features]` and, with `use_bias`,
    `bias` `[features]`, both float32. Images and parameters are brought to `dtype` (default: the
    images' own) before they meet.
    """

    features: int
    kernel_size: Pair = (3, 3)
    strides: Pair = (1, 1)
    padding: Padding = "SAME"
    use_bias: bool = True
    dtype: Dtype | None = None
    kernel_init: Initializer = nn.initializers.glorot_uniform()
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, images: Array) -> Array:
        dtype = self.dtype or images.dtype
        shape = (*self.kernel_size, images.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        out = conv2d(images.astype(dtype), kernel.astype(dtype), self.strides, self.padding)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
            out = out + bias.astype(dtype)
        return out


def max_pool(images: Array, window: int = 2) -> Array:
    """Maximum over non-overlapping squares, `"SAME"` padding.

    Args:
        images: `[n, height, width, channels]`.
        window: the square's side and the stride, in pixels.

    Returns:
        `[n, ceil(height / window), ceil(width / window), channels]`. Where pixels tie for the
        maximum, each gets an equal part of the gradient.
    """
    pads = lax.padtype_to_pads(images.shape[1:3], (window, window), (window, window), "SAME")
    images = jnp.pad(images, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
    n, height, width, channels = images.shape
    squares = (n, height // window, window, width // window, window, channels)
    return images.reshape(squares).max(axis=(2, 4))


class MaxPool(nn.Module):
    """`max_pool` as a module, which shows it to whoever looks at a network layer by layer."""

    window: int = 2

    @nn.compact
    def __call__(self, images: Array) -> Array:
        return max_pool(images, self.window)


def dropout(values: Array, rate: float, key: Array) -> Array:
    """Set each value to zero with probability `rate`, and scale the others to keep the mean.

    One random byte decides about one value, which is a quarter of the random bits that 32 a value
    take; so the probability is `rate` rounded to a multiple of 1/256 (0.3 becomes 77/256 = 0.3008),
    and the scale is that of the rounded one, so the expectation is exact.

    Source: Srivastava et al. 2014, section 10 ("inverted" scaling).

    Args:
        values: float, any shape.
        rate: probability of zero, in [0, 1).
        key: a PRNG key.
    """
    kept = max(_DROPOUT_LEVELS - round(rate * _DROPOUT_LEVELS), 1)
    words = jax.random.bits(key, (-(-values.size // 4),), jnp.uint32)
    levels = lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[: values.size]
    scaled = values * jnp.asarray(_DROPOUT_LEVELS / kept, values.dtype)
    # `<= kept - 1`, since 256 is no uint8.
    return jnp.where(levels.reshape(values.shape) <= kept - 1, scaled, jnp.zeros_like(values))


class Dropout(nn.Module):
    """`dropout` with the rng named `"dropout"` when `train`; nothing otherwise."""

    rate: float

    @nn.compact
    def __call__(self, values: Array, train: bool) -> Array:
        if not train or self.rate == 0:
            return values
        return dropout(values, self.rate, self.make_rng("dropout"))
