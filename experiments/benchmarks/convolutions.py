"""Time the formulations of a convolution: forward and both gradients, alone on one device."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from experiments.benchmarks import measure
from experiments.benchmarks.workloads import NETWORKS, layer_shapes
from mnist_jax import layers

Convolution = Callable[[Array, Array], Array]

MEMBERS = (1, 8)
# The dtype, and the precision of products as `jax.default_matmul_precision` names it.
PRECISIONS = {
    "float32": (jnp.float32, "highest"),
    "tf32": (jnp.float32, "tensorfloat32"),
    "bfloat16": (jnp.bfloat16, "default"),
}


class Shape(NamedTuple):
    """One convolution of `layers`."""

    side: int  # of the image, in pixels
    channels: int
    features: int

    @property
    def name(self) -> str:
        """For people, and unique."""
        return f"{self.side} x {self.side} x {self.channels} to {self.features}"


def _lax_conv(images: Array, kernel: Array) -> Array:
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=dimensions)


def _layers_conv(images: Array, kernel: Array) -> Array:
    return layers.conv2d(images, kernel, (1, 1), "SAME")


FORMULATIONS: dict[str, Convolution] = {
    "layers.conv2d": _layers_conv,
    "lax.conv_general_dilated": _lax_conv,
}


def shapes() -> list[Shape]:
    """The convolutions of `layers`, the first one first."""
    kernels = [entry for entry in layer_shapes(NETWORKS["layers"]) if len(entry[0]) == 4]
    return [Shape(round(places**0.5), kernel[2], kernel[3]) for kernel, _, places in kernels]


def flop(shape: Shape, batch: int, members: int) -> int:
    """Two a multiply-add: forward, and as many for each of the two gradients."""
    return 3 * 2 * members * batch * shape.side**2 * 9 * shape.channels * shape.features


def make_steps(convolution: Convolution) -> Callable[[Array, Array, Array], tuple[Array, Array]]:
    """A function of the number of steps, images `[members, n, side, side, channels]` and kernels
    `[members, 3, 3, channels, features]`; it gives both after as many steps of descent.

    The loss is half the mean square of the output, so that forward and both gradients are needed.
    """

    def loss(images: Array, kernel: Array) -> Array:
        return 0.5 * jnp.mean(jnp.square(convolution(images, kernel).astype(jnp.float32)))

    def step(_: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        gradients = jax.vmap(jax.grad(loss, argnums=(0, 1)))(*carry)
        images, kernels = (x - 0.1 * gradient for x, gradient in zip(carry, gradients, strict=True))
        return images, kernels

    # The number of steps is no constant: one compilation for all of them.
    return jax.jit(lambda n, images, kernels: lax.fori_loop(0, n, step, (images, kernels)))


def measure_case(
    device: jax.Device,
    formulation: str,
    shape: Shape,
    members: int,
    precision: str,
    batch: int,
    turns: int,
    seconds: float,
) -> dict[str, Any]:
    """Time one case in turns of so many seconds; `ms_per_step` and `tflops`."""
    dtype, products = PRECISIONS[precision]
    random = np.random.default_rng(0)
    images_shape = members, batch, shape.side, shape.side, shape.channels
    kernels_shape = members, 3, 3, shape.channels, shape.features
    arrays = [
        jax.device_put(jnp.asarray(random.standard_normal(size), dtype), device)
        for size in (images_shape, kernels_shape)
    ]
    steps = make_steps(FORMULATIONS[formulation])
    with jax.default_matmul_precision(products):
        taken, n = measure.take_turns(
            lambda n: jax.block_until_ready(steps(jnp.int32(n), *arrays)), turns, seconds
        )
    summary = measure.summarise(taken, n, members * batch)
    rate = flop(shape, batch, members) / summary["ms_per_step"]["median"] / 1e9
    return summary | {"tflops": round(rate, 3)}
