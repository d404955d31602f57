"""Convolutions over words and each map's maximum over time: what `Kim`'s network is made of.

A convolution over words is linear in each of them: each word's vector times the kernel's part for
each place in a window, shifted and added up. So all windows of all sizes take one product, of words
with all kernels side by side.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array


def maxima(vectors: Array, kernels: Sequence[Array]) -> tuple[Array, Array]:
    """The largest value of each map over all places of its window, and the place.

    Args:
        vectors: float `[n, length, width]`, of sentences' words.
        kernels: of each size of window, `[size, width, maps]` of the vectors' dtype; no window may
            be longer than `length`.

    Returns:
        `[n, maps of all kernels]`: values of the vectors' dtype, and int32 places, each that of the
        window's first word.
    """
    width = vectors.shape[-1]
    matrix = jnp.concatenate([_as_matrix(kernel) for kernel in kernels], axis=-1)
    products = vectors.reshape(-1, width) @ matrix
    products = products.reshape(*vectors.shape[:2], -1)
    values, places, start = [], [], 0
    for size, _, maps in (kernel.shape for kernel in kernels):
        mine = products[..., start : start + size * maps]
        start += size * maps
        sums = _shifted_sum(mine, size)
        values.append(jnp.max(sums, axis=1))
        places.append(jnp.argmax(sums, axis=1).astype(jnp.int32))
    return jnp.concatenate(values, axis=-1), jnp.concatenate(places, axis=-1)


def _as_matrix(kernel: Array) -> Array:
    """`[width, size * maps]`."""
    size, width, maps = kernel.shape
    return kernel.swapaxes(0, 1).reshape(width, size * maps)


def _shifted_sum(products: Array, size: int) -> Array:
    """Each window's sum over its words, `[n, length - size + 1, maps]`.

    Args:
        products: `[n, length, size * maps]`, of each word by its place in the window.
    """
    places = products.shape[1] - size + 1
    parts = jnp.split(products, size, axis=-1)
    return (
        sum(part[:, i : i + places] for i, part in enumerate(parts[1:], 1)) + parts[0][:, :places]
    )
