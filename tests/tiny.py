"""A small network and a small problem, for tests that train."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from mnist_jax import loop, parallel, training
from mnist_jax.layers import Conv, Dropout, MaxPool


class Tiny(nn.Module):
    """conv 4 of stride 2, pool, dense; a thousandth of `simple`'s work."""

    num_classes: int = 10
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.relu(MaxPool()(Conv(4, strides=(2, 2))(images)))
        x = Dropout(self.dropout_rate)(x.reshape(len(x), -1), train)
        return nn.Dense(self.num_classes)(x)


def problem(n=64, classes=10, seed=0):
    """Images of noise with a bright block whose place tells the class; uint8 and int32."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n).astype(np.int32)
    images = rng.integers(0, 100, (n, 28, 28, 1)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = 5 * (label % 5), 14 * (label // 5)
        image[row : row + 5, column : column + 14] = 255
    return images, labels


def some_devices(count):
    """This process's first devices; a test that needs more than there are is skipped."""
    here = jax.local_devices()
    if len(here) < count:
        pytest.skip(f"needs {count} devices, as CPU cores are, and not {len(here)}")
    return here[:count]


def train(
    seeds,
    devices=1,
    data=None,
    dropout_rate=0.0,
    batch_size=10,
    epochs=2,
    n=64,
    network=None,
    ema=None,
    **options,
):
    """Train Tiny, or another network; the final state and losses, on the host, `[members, ...]`.

    By SGD, since Adam's first steps make a large difference of the rounding of a tiny gradient.
    """
    layout = parallel.plan(len(seeds), some_devices(devices), data)
    network = network or Tiny(dropout_rate=dropout_rate)
    optimizer = training.make_optimizer(0.05, 100, "sgd", ema=ema)
    state = parallel.init(layout, network, optimizer, seeds)
    images, labels = problem(n)
    chunks = list(
        loop.train(
            layout,
            network,
            optimizer,
            state,
            seeds,
            images,
            labels,
            batch_size=batch_size,
            epochs=epochs,
            **options,
        )
    )
    losses = np.concatenate([chunk.losses for chunk in chunks], axis=1)
    return parallel.gather(layout, chunks[-1].state), losses


def assert_close(tree, other, rtol=1e-4, atol=1e-5):
    for (path, a), b in zip(jax.tree.leaves_with_path(tree), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=str(path))


def member(tree, i):
    """One member of a stacked tree, as an ensemble of one."""
    return jax.tree.map(lambda leaf: leaf[i : i + 1], tree)
