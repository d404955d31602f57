"""Convolution and pooling with any window F, stride S and padding P.

A side of N pixels becomes (N + 2P - F)/S + 1. All is XLA's own: it makes no columns of large
images, and for the wide layers of these networks its gradients are as fast as those of `layers.py`,
which has the labs' convolutions and pools, and compile in half the time.
"""

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Initializer
from jax import Array, lax

_NEEDS = "A window of {window} pixels does not fit into {side} with {padding} padded on both sides."


class Convolution(nn.Module):
    """A 2-D convolution, `[n, height, width, channels]` to `[n, out_height, out_width, features]`.

    With `groups` the channels and features are cut into so many equal parts, and each part of the
    features sees its part of the channels alone.

    Parameters: `kernel` `[window, window, channels / groups, features]` and, with `use_bias`,
    `bias` `[features]`, float32, brought to the images' dtype.

    Raises:
        ValueError: the window does not fit into the padded images, or `groups` does not divide
            channels and features.
    """

    features: int
    window: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    use_bias: bool = True
    kernel_init: Initializer = nn.initializers.he_normal()
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, images: Array) -> Array:
        channels = images.shape[-1]
        if channels % self.groups or self.features % self.groups:
            raise ValueError(
                f"groups must divide {channels} channels and {self.features} features, "
                f"which {self.groups} does not."
            )
        shape = (self.window, self.window, channels // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        out = convolve(images, kernel.astype(images.dtype), self.stride, self.padding, self.groups)
        if not self.use_bias:
            return out
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
        return out + bias.astype(images.dtype)


def convolve(
    images: Array, kernel: Array, stride: int = 1, padding: int = 0, groups: int = 1
) -> Array:
    """Cross-correlate images with a kernel; shapes and errors of `Convolution`."""
    _check_window(images, kernel.shape[0], padding)
    # Part by part: XLA's grouped convolution is slow on every backend.
    parts = zip(jnp.split(images, groups, -1), jnp.split(kernel, groups, -1), strict=True)
    out = [
        lax.conv_general_dilated(
            *part,
            window_strides=(stride, stride),
            padding=((padding, padding), (padding, padding)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        for part in parts
    ]
    return jnp.concatenate(out, axis=-1)


class MaxPooling(nn.Module):
    """The maximum of each window, `[n, height, width, channels]`; windows may overlap.

    With `round_up` (N + 2P - F)/S is rounded up, as Caffe and its networks do: the last window may
    hang over the edge. What is outside of the image never is the maximum. Otherwise what does not
    fill a window at the lower and right edges is left out.

    Raises:
        ValueError: the window does not fit into the padded images.
    """

    window: int
    stride: int
    padding: int = 0
    round_up: bool = False

    @nn.compact
    def __call__(self, images: Array) -> Array:
        _check_window(images, self.window, self.padding)
        pads = [self._pads(side) for side in images.shape[1:3]]
        return nn.max_pool(images, (self.window,) * 2, (self.stride,) * 2, pads)

    def _pads(self, side: int) -> tuple[int, int]:
        left_over = (side + 2 * self.padding - self.window) % self.stride
        hanging = self.stride - left_over if self.round_up and left_over else 0
        return self.padding, self.padding + hanging


class MeanPooling(nn.Module):
    """The mean of each window; shapes and errors of `MaxPooling` without padding."""

    window: int
    stride: int

    @nn.compact
    def __call__(self, images: Array) -> Array:
        _check_window(images, self.window, 0)
        return nn.avg_pool(images, (self.window,) * 2, (self.stride,) * 2)


def _check_window(images: Array, window: int, padding: int) -> None:
    side = min(images.shape[1:3])
    if side + 2 * padding < window:
        raise ValueError(_NEEDS.format(window=window, side=side, padding=padding))
