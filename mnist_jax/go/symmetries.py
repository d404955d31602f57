"""The eight symmetries of a board, on the device.

Symmetry `i` turns the board `i % 4` times by 90 degrees counterclockwise, and for `i >= 4` mirrors
it from left to right before.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

COUNT = 8


def of_planes(planes: Array | np.ndarray, symmetry: Array | np.ndarray) -> Array:
    """Turn each position in its own way.

    Args:
        planes: `[n, size, size, ...]`.
        symmetry: int32 `[n]`, from 0 to 7.
    """
    size = planes.shape[1]
    flat = planes.reshape(len(planes), size * size, -1)
    turned = jnp.take_along_axis(
        jnp.asarray(flat), jnp.asarray(_sources(size))[symmetry][..., None], axis=1
    )
    return turned.reshape(planes.shape)


def of_points(points: Array | np.ndarray, symmetry: Array | np.ndarray, size: int) -> Array:
    """Where points come to lie; int32 `[n]`."""
    return jnp.asarray(_targets(size))[symmetry, points]


def back(logits: Array | np.ndarray, symmetry: Array | np.ndarray) -> Array:
    """Logits of turned positions, `[n, size * size]`, as those of the boards before."""
    size = round(logits.shape[-1] ** 0.5)
    return jnp.take_along_axis(jnp.asarray(logits), jnp.asarray(_targets(size))[symmetry], axis=-1)


def predict_turned(
    predict: Callable[[np.ndarray], np.ndarray], planes: np.ndarray, symmetry: np.ndarray
) -> np.ndarray:
    """Logits of boards by way of turned ones, `[members, n, points]`.

    Args:
        predict: planes to the members' logits `[members, n, points]`.
        planes: `[n, size, size, ...]`.
        symmetry: int32 `[n]`, how each is turned.
    """
    logits = predict(np.asarray(of_planes(planes, symmetry)))
    return np.stack([np.asarray(back(member, symmetry)) for member in logits])


def augment(planes: Array, moves: Array, key: Array) -> tuple[Array, Array]:
    """Turn each position and its move at random; an `augment.Augment`."""
    symmetry = jax.random.randint(key, (len(planes),), 0, COUNT)
    return of_planes(planes, symmetry), of_points(moves, symmetry, planes.shape[1])


@functools.cache
def _sources(size: int) -> np.ndarray:
    """Of each symmetry and point of the turned board, the point before; int32 `[8, points]`."""
    points = np.arange(size * size, dtype=np.int32).reshape(size, size)
    boards = [points, points[:, ::-1]]
    return np.stack([np.rot90(board, turns).ravel() for board in boards for turns in range(4)])


@functools.cache
def _targets(size: int) -> np.ndarray:
    """The other way round."""
    return np.argsort(_sources(size), axis=1).astype(np.int32)
