"""Convolutions over words and each map's maximum over time: what Kim's network is made of.

A convolution over words is linear in each of them: each word's vector times the kernel's part for
each place in a window, shifted and added up. So all windows of all sizes take one product, of words
with all kernels side by side.

On a CPU two more things are used. Padding is zero, which is most of a batch of sentences, so that
the words are put together, without the padding between them, and multiplied in blocks as long as
there are any. And of each map only one place has a gradient: the matrix of gradients, which is zero
but there, is made block by block for the same words.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from mnist_jax import platforms

_BLOCK = 128  # words multiplied at a time

Kernels = list[Array]


@jax.custom_vjp
def maxima(vectors: Array, kernels: Kernels) -> tuple[Array, Array]:
    """The largest value of each map over all places of its window, and the place.

    Vectors that are zero have no gradient on a CPU: they are padding, whose vector nobody changes.

    Args:
        vectors: float `[n, length, width]`, of sentences' words.
        kernels: of each size of window, `[size, width, maps]` of the vectors' dtype; no window may
            be longer than `length`.

    Returns:
        `[n, maps of all kernels]`: values of the vectors' dtype, and int32 places, each that of the
        window's first word, the first of those with equal values.
    """
    return platforms.choose(vectors, kernels, cpu=_of_words, default=_of_all)


def _forward(vectors: Array, kernels: Kernels) -> tuple[tuple[Array, Array], tuple]:
    values, places = maxima(vectors, kernels)
    return (values, places), (vectors, kernels, places)


def _backward(residuals: tuple, grads: tuple[Array, Array]) -> tuple[Array, Kernels]:
    vectors, kernels, places = residuals
    return platforms.choose(
        vectors, kernels, places, grads[0], cpu=_gradients_of_words, default=_gradients_of_all
    )


maxima.defvjp(_forward, _backward)


def _of_all(vectors: Array, kernels: Kernels) -> tuple[Array, Array]:
    """`maxima` by one product of all words, padding too."""
    n, length, _ = vectors.shape
    products = vectors @ _side_by_side(kernels)
    values, places, start = [], [], 0
    for size, _, maps in (kernel.shape for kernel in kernels):
        ends = range(start, start + size * maps, maps)
        start += size * maps
        count = length - size + 1
        parts = [
            lax.slice(products, (0, i, end), (n, i + count, end + maps))
            for i, end in enumerate(ends)
        ]
        sums = sum(parts[1:], parts[0])
        values.append(jnp.max(sums, axis=1))
        places.append(jnp.argmax(sums, axis=1).astype(jnp.int32))
    return jnp.concatenate(values, axis=-1), jnp.concatenate(places, axis=-1)


def _gradients_of_all(
    vectors: Array, kernels: Kernels, places: Array, grad: Array
) -> tuple[Array, Kernels]:
    """By the same product backwards; the gradients' matrix is `[n, length, all kernels]`."""
    sentences = jnp.arange(len(vectors))[:, None]
    times = jnp.arange(vectors.shape[1])[None]
    spread = _spread(kernels, places, grad, *jnp.broadcast_arrays(sentences, times))
    matrix_grad = jnp.tensordot(vectors, spread, axes=((0, 1), (0, 1)))
    return spread @ _side_by_side(kernels).T, _apart(matrix_grad, kernels)


def _side_by_side(kernels: Kernels) -> Array:
    """`[width, sizes * maps]`: of each kernel, for each place in its window, its maps."""
    width = kernels[0].shape[1]
    return jnp.concatenate([k.swapaxes(0, 1).reshape(width, -1) for k in kernels], axis=-1)


def _apart(matrix: Array, kernels: Kernels) -> Kernels:
    """The kernels that `_side_by_side` has made a matrix of."""
    made, start = [], 0
    for size, width, maps in (kernel.shape for kernel in kernels):
        part = matrix[:, start : start + size * maps].reshape(width, size, maps)
        made.append(part.swapaxes(0, 1))
        start += size * maps
    return made


def _spread(kernels: Kernels, places: Array, grad: Array, sentences: Array, times: Array) -> Array:
    """The gradient of each word's products, `[..., all kernels]`.

    It is that of the map where the word is in the window of the maximum, and 0 elsewhere.

    Args:
        places, grad: `[n, maps of all kernels]`.
        sentences, times: of each word, int `[...]`.
    """
    parts, start = [], 0
    for size, _, maps in (kernel.shape for kernel in kernels):
        mine = slice(start, start + maps)
        start += maps
        first, value = places[sentences, mine], grad[sentences, mine]
        parts += [jnp.where(first + i == times[..., None], value, 0) for i in range(size)]
    return jnp.concatenate(parts, axis=-1)


def _words(vectors: Array) -> tuple[Array, Array, Array]:
    """All words before all padding.

    Returns:
        Which places of the batch they are at, int32 `[n * length]`, filled up to
        whole blocks; of each
        place of the batch where it has gone, `[n, length]`, one past the words' end if it is
        padding; and how many blocks the words are.
    """
    n, length, _ = vectors.shape
    is_word = (vectors != 0).any(axis=-1).reshape(-1)
    order = jnp.argsort(~is_word, stable=True).astype(jnp.int32)
    places = jnp.pad(order, (0, -len(order) % _BLOCK))
    count = is_word.sum()
    gone = jnp.where(is_word, jnp.cumsum(is_word) - 1, len(places)).reshape(n, length)
    return places, gone, -(-count // _BLOCK)


def _of_words(vectors: Array, kernels: Kernels) -> tuple[Array, Array]:
    """`maxima` by products of words alone."""
    n, length, width = vectors.shape
    matrix, flat = _side_by_side(kernels), vectors.reshape(-1, width)
    places, gone, blocks = _words(vectors)

    def multiply(block: Array, products: Array) -> Array:
        rows = flat[lax.dynamic_slice_in_dim(places, block * _BLOCK, _BLOCK)]
        return lax.dynamic_update_slice_in_dim(products, rows @ matrix, block * _BLOCK, 0)

    empty = jnp.zeros((len(places) + 1, matrix.shape[1]), vectors.dtype)  # the last row: padding
    products = lax.fori_loop(0, blocks, multiply, empty)
    shapes = [kernel.shape for kernel in kernels]
    largest = max(size for size, _, _ in shapes)
    gone = jnp.pad(gone, ((0, 0), (0, largest)), constant_values=len(places))

    def look(time: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
        values, at = best
        sums, start = [], 0
        for size, _, maps in shapes:
            total = 0
            for i in range(size):
                row = lax.dynamic_slice_in_dim(gone, time + i, 1, axis=1)[:, 0]
                total += products[row, start : start + maps]
                start += maps
            sums.append(jnp.where(time <= length - size, total, -jnp.inf))
        found = jnp.concatenate(sums, axis=-1)
        better = found > values
        return jnp.where(better, found, values), jnp.where(better, time, at)

    maps = sum(maps for _, _, maps in shapes)
    start = jnp.full((n, maps), -jnp.inf, vectors.dtype), jnp.zeros((n, maps), jnp.int32)
    return lax.fori_loop(0, length - min(size for size, _, _ in shapes) + 1, look, start)


def _gradients_of_words(
    vectors: Array, kernels: Kernels, places: Array, grad: Array
) -> tuple[Array, Kernels]:
    _, length, width = vectors.shape
    matrix, flat = _side_by_side(kernels), vectors.reshape(-1, width)
    transposed = matrix.T
    order, gone, blocks = _words(vectors)

    def multiply(block: Array, grads: tuple[Array, Array]) -> tuple[Array, Array]:
        rows_grad, matrix_grad = grads
        here = lax.dynamic_slice_in_dim(order, block * _BLOCK, _BLOCK)
        # Words alone: the last block is filled up with padding, whose vectors are zero.
        spread = _spread(kernels, places, grad, here // length, here % length)
        part = spread @ transposed
        rows_grad = lax.dynamic_update_slice_in_dim(rows_grad, part, block * _BLOCK, 0)
        return rows_grad, matrix_grad + flat[here].T @ spread

    empty = jnp.zeros((len(order) + 1, width), vectors.dtype), jnp.zeros_like(matrix)
    rows_grad, matrix_grad = lax.fori_loop(0, blocks, multiply, empty)
    return rows_grad[gone], _apart(matrix_grad, kernels)
