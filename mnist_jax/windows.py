"""Convolution and pooling with any window F, stride S and padding P.

A side of N pixels becomes (N + 2P - F)/S + 1. On a GPU and a TPU all is XLA's own, which makes no
columns of large images; on a GPU each member has a convolution of its own. On a CPU a convolution
and its gradients are those of `kernels.py`; without them XLA's convolution, and the gradients of
`layers.py`, as XLA's own take up to a hundred times as long in a loop of steps.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer
from jax import Array
from jax.custom_batching import custom_vmap

from mnist_jax import kernels, platforms
from mnist_jax.layers import (
    conv2d_gradients_in_blocks,
    xla_conv2d,
    xla_conv2d_gradients,
)

_WIDEST = 15  # pool, whose places a byte tells
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
        convolution = convolve_by_xla if self.is_initializing() else convolve
        kernel = kernel.astype(images.dtype)
        out = convolution(images, kernel, self.stride, self.padding, self.groups)
        if not self.use_bias:
            return out
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
        return out + bias.astype(images.dtype)


def convolve(
    images: Array, kernel: Array, stride: int = 1, padding: int = 0, groups: int = 1
) -> Array:
    """Cross-correlate images with a kernel; shapes and errors of `Convolution`.

    As with `layers.conv_pool_relu` there is one derivative and, with kernels, no export.
    """
    return _by_groups(_convolve, images, kernel, stride, padding, groups)


def convolve_by_xla(
    images: Array, kernel: Array, stride: int = 1, padding: int = 0, groups: int = 1
) -> Array:
    """`convolve` on all platforms alike: for while variables are made, when only shapes count."""
    return _by_groups(_by_xla, images, kernel, stride, padding, groups)


def _by_groups(
    convolution: Callable[[Array, Array, int, int], Array],
    images: Array,
    kernel: Array,
    stride: int,
    padding: int,
    groups: int,
) -> Array:
    """Part by part: XLA's grouped convolution is slow on every backend."""
    _check_window(images, kernel.shape[0], padding)
    parts = zip(jnp.split(images, groups, -1), jnp.split(kernel, groups, -1), strict=True)
    return jnp.concatenate([convolution(*part, stride, padding) for part in parts], axis=-1)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(images: Array, kernel: Array, stride: int, padding: int) -> Array:
    by_xla = on_cpu = partial(_by_xla, stride=stride, padding=padding)
    if kernels.take_windows(images, kernel):
        on_cpu = partial(kernels.convolution, stride=stride, padding=padding)
    on_gpu = _member_by_member(by_xla)
    return platforms.choose(images, kernel, cpu=on_cpu, tpu=by_xla, default=on_gpu)


def _by_xla(images: Array, kernel: Array, stride: int, padding: int) -> Array:
    pads = (padding, padding)
    return xla_conv2d(images, kernel, (stride, stride), (pads, pads))


def _convolve_forward(
    images: Array, kernel: Array, stride: int, padding: int
) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(images, kernel, stride, padding), (images, kernel)


def _convolve_backward(
    stride: int, padding: int, residuals: tuple[Array, Array], grad: Array
) -> tuple[Array, Array]:
    strides, pads = (stride, stride), ((padding, padding), (padding, padding))
    on_cpu: Callable[..., tuple[Array, Array]]
    if kernels.take_windows(*residuals):
        on_cpu = partial(kernels.convolution_gradients, stride=stride, padding=padding)
    else:
        on_cpu = partial(conv2d_gradients_in_blocks, strides=strides, padding=pads)
    by_xla = partial(xla_conv2d_gradients, strides=strides, padding=pads)
    on_gpu = _member_by_member(by_xla)
    return platforms.choose(*residuals, grad, cpu=on_cpu, tpu=by_xla, default=on_gpu)


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _member_by_member(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of images, a kernel and more, which `vmap` over kernels calls once for each.

    Of a convolution it would make a grouped one, which takes up to twice as long on a GPU.
    """

    @custom_vmap
    def once(*arrays: Array) -> Any:
        return function(*arrays)

    @once.def_vmap
    def of_all(size: int, batched: list[bool], *arrays: Array) -> tuple[Any, Any]:
        if batched[1]:
            members = [
                once(*(x[i] if own else x for x, own in zip(arrays, batched, strict=True)))
                for i in range(size)
            ]
            out = jax.tree.map(lambda *parts: jnp.stack(parts), *members)
        else:
            out = jax.vmap(function, [0 if own else None for own in batched])(*arrays)
        return out, jax.tree.map(lambda _: True, out)

    return once


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
        down, across = (self.pads(side) for side in images.shape[1:3])
        shape = _Pool(self.window, self.stride, down, across)
        if self.is_initializing() or self.window > _WIDEST or not kernels.take_channels(images):
            return _pool_by_xla(images, shape)
        by_kernel, by_xla = partial(_pool, shape=shape), partial(_pool_by_xla, shape=shape)
        return platforms.choose(images, cpu=by_kernel, default=by_xla)

    @nn.nowrap
    def pads(self, side: int) -> tuple[int, int]:
        """How many pixels are added before and behind a side of so many."""
        left_over = (side + 2 * self.padding - self.window) % self.stride
        hanging = self.stride - left_over if self.round_up and left_over else 0
        return self.padding, self.padding + hanging


class _Pool(NamedTuple):
    """A pool of images of one size."""

    window: int
    stride: int
    down: tuple[int, int]  # pixels of padding above and below
    across: tuple[int, int]

    def out(self, images: Array) -> tuple[int, int]:
        height, width = (
            (side + sum(pads) - self.window) // self.stride + 1
            for side, pads in zip(images.shape[1:3], (self.down, self.across), strict=True)
        )
        return height, width


def _pool_by_xla(images: Array, shape: _Pool) -> Array:
    sides = (shape.window,) * 2, (shape.stride,) * 2
    return nn.max_pool(images, *sides, (shape.down, shape.across))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _pool(images: Array, shape: _Pool) -> Array:
    """By a kernel: XLA's gradient takes longer on a CPU than the convolutions around it."""
    return _pool_forward(images, shape)[0]


def _pool_forward(images: Array, shape: _Pool) -> tuple[Array, tuple[Array, Array]]:
    window, stride, (padding, _), _ = shape
    pooled, places = kernels.max_pool(images, window, stride, padding, shape.out(images))
    return pooled, (images, places)


def _pool_backward(shape: _Pool, residuals: tuple[Array, Array], grad: Array) -> tuple[Array]:
    images, places = residuals
    window, stride, (padding, _), _ = shape
    sides = (images.shape[1], images.shape[2])
    return (kernels.max_pool_gradient(places, grad, window, stride, padding, sides),)


_pool.defvjp(_pool_forward, _pool_backward)


class MeanPooling(nn.Module):
    """The mean of each window; shapes and errors of `MaxPooling` without padding."""

    window: int
    stride: int

    @nn.compact
    def __call__(self, images: Array) -> Array:
        _check_window(images, self.window, 0)
        return nn.avg_pool(images, (self.window,) * 2, (self.stride,) * 2)


class MeanOverPlaces(nn.Module):
    """The mean of each channel, `[n, height, width, channels]` to `[n, channels]`."""

    @nn.compact
    def __call__(self, images: Array) -> Array:
        return jnp.mean(images, axis=(1, 2))


def _check_window(images: Array, window: int, padding: int) -> None:
    side = min(images.shape[1:3])
    if side + 2 * padding < window:
        raise ValueError(_NEEDS.format(window=window, side=side, padding=padding))
