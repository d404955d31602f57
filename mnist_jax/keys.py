"""Random keys for initial values: JAX's own numbers, by a program that a CPU has compiled sooner.

For CPUs JAX writes the rounds of its generator as a loop over arrays. Written out, as it does for
GPUs and TPUs, they take XLA a fifth of the time to compile, and to run. That is so where each
array is drawn once; in a training step XLA would work the rounds out again for each use of a bit.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3": Threefry-2x32-20.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.random import define_prng_impl

_JAXS = "threefry2x32"
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_SHIFTS = sorted({n for row in _ROTATIONS for count in row for n in (count, 32 - count)})
_PARITY = np.uint32(0x1BD11BDA)


def key(seed: Any) -> Array:
    """`jax.random.key(seed)`, to be used as that is; `seed` is an integer scalar.

    Where the process has chosen another generator than JAX's default, it is that key itself.
    """
    as_chosen = jax.config.values["jax_default_prng_impl"] == _JAXS
    if as_chosen and jax.config.values["jax_threefry_partitionable"]:
        return jax.random.key(seed, impl=_written_out)
    return jax.random.key(seed)


def _threefry(key: Array, high: Array, low: Array) -> tuple[Array, Array]:
    """Two words for each two words `high` and `low`; uint32, the key `[2]`."""

    # Operations of `lax`, since those of `jnp` are traced as a call each.
    def everywhere(word: Any) -> Array:
        return lax.broadcast(word, high.shape)

    words = key[0], key[1], key[0] ^ key[1] ^ _PARITY
    counts = {count: everywhere(np.uint32(count)) for count in _SHIFTS}
    high, low = lax.add(high, everywhere(words[0])), lax.add(low, everywhere(words[1]))
    for i in range(5):
        for rotation in _ROTATIONS[i % 2]:
            high = lax.add(high, low)
            left = lax.shift_left(low, counts[rotation])
            right = lax.shift_right_logical(low, counts[32 - rotation])
            low = lax.bitwise_xor(high, lax.bitwise_or(left, right))
        high = lax.add(high, everywhere(words[(i + 1) % 3]))
        low = lax.add(low, everywhere(words[(i + 2) % 3] + np.uint32(i + 1)))
    return high, low


def _of_places(key: Array, shape: Sequence[int]) -> tuple[Array, Array]:
    """Two words for each place of an array of less than 2^32 values."""
    places = lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    return _threefry(key, jnp.zeros_like(places), places)


def _jaxs_key(key: Array) -> Array:
    return jax.random.wrap_key_data(key, impl=_JAXS)


def _seed(seed: Array) -> Array:
    return jax.random.key_data(jax.random.key(seed, impl=_JAXS))


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    return jnp.stack(_of_places(key, shape), axis=-1)


def _fold_in(key: Array, number: Any) -> Array:
    return jnp.stack(_threefry(key, *_seed(number)))


def _random_bits(key: Array, bits: int, shape: tuple[int, ...]) -> Array:
    if bits == 32 and math.prod(shape) < 2**32:
        high, low = _of_places(key, shape)
        return high ^ low
    return jax.random.bits(_jaxs_key(key), shape, f"uint{bits}")


_written_out = define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="mnist_jax_threefry2x32",
    tag="mj",
)
