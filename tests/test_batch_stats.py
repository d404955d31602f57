"""Batch normalisation in training: on devices, in ensembles, averaged, saved and gone on with."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax import loop, parallel, training
from mnist_jax.checkpoints import Checkpoints
from mnist_jax.layers import Conv
from mnist_jax.normalization import BatchNorm
from tests.tiny import assert_close, member, problem, some_devices, train


class Normalized(nn.Module):
    """conv 3, batch norm, relu, mean over all places, dense."""

    num_classes: int = 10
    axis_name: str | None = None
    axis_index_groups: tuple[tuple[int, ...], ...] | None = None

    @nn.compact
    def __call__(self, images, train=False, weights=None):
        x = Conv(3, strides=(4, 4), name="conv")(images)
        axis = {"axis_name": self.axis_name, "axis_index_groups": self.axis_index_groups}
        x = nn.relu(BatchNorm(momentum=0.8, name="bn", **axis)(x, train, weights))
        return nn.Dense(self.num_classes, name="dense")(x.reshape(len(x), -1))


NETWORK = Normalized()


def test_one_step_by_numpy():
    """Loss, and the moving averages after it, of a batch whose last image has no weight."""
    images, labels = problem(6)
    optimizer = training.make_optimizer(0.1, 1, "sgd")
    state = training.init_state(NETWORK, optimizer, jnp.uint32(3))
    weights = np.array([1, 1, 1, 1, 1, 0], np.float32) / 5
    step = jax.jit(training.train_step, static_argnums=(0, 1))
    new, loss = step(NETWORK, optimizer, state, 3, images, labels, weights)

    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.params)
    pixels = images[:5].astype(np.float64) / 255
    patches = pixels[:, :27, :27].reshape(5, 27, 27)
    kernel, bias = params["conv"]["kernel"][:, :, 0], params["conv"]["bias"]
    rows = np.arange(7) * 4  # SAME of 28 by 4 with 3: no padding
    out = np.array(
        [[[np.einsum("ij,ijf", p[r : r + 3, c : c + 3], kernel) for c in rows] for r in rows]
         for p in patches]
    ) + bias  # fmt: skip
    mean, var = out.mean((0, 1, 2)), out.var((0, 1, 2))
    hidden = np.maximum((out - mean) / np.sqrt(var + 1e-5), 0).reshape(5, -1)
    logits = hidden @ params["dense"]["kernel"] + params["dense"]["bias"]
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(loss, -log_probs[np.arange(5), labels[:5]].mean(), rtol=1e-4)
    stats = new.batch_stats["bn"]
    np.testing.assert_allclose(stats["mean"], 0.2 * mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(stats["var"], 0.8 + 0.2 * var, rtol=1e-4)


@pytest.mark.parametrize("devices", [2, 3, 4])  # 10 images do not divide over 3 and 4
def test_devices_that_share_a_batch(devices):
    one, losses = train((5,), network=NETWORK)
    shared, shared_losses = train((5,), devices=devices, network=NETWORK)
    np.testing.assert_allclose(shared_losses, losses, rtol=1e-4)
    assert_close(shared, one)
    moved = one.batch_stats["bn"]["mean"]
    assert np.abs(moved).min() > 1e-3  # what is compared is not what it began with


def test_members_have_their_own():
    together, losses = train((5, 6, 7), devices=4, data=2, network=NETWORK)
    for i, seed in enumerate((5, 6, 7)):
        alone, its_losses = train((seed,), network=NETWORK)
        assert_close(member(together, i), alone)
        np.testing.assert_allclose(losses[i : i + 1], its_losses, rtol=1e-4)


def test_the_average_of_the_weights_comes_with_theirs():
    state, _ = train((5,), network=NETWORK, ema=0.7, epochs=1, n=30)
    weighted, total = 0.0, 0.0
    layout = parallel.plan(1, some_devices(1))
    optimizer = training.make_optimizer(0.05, 100, "sgd", ema=0.7)
    images, labels = problem(30)
    on_devices = parallel.replicate(layout, images), parallel.replicate(layout, labels)
    begun = parallel.init(layout, NETWORK, optimizer, [5])
    step = parallel.compile_train(layout, NETWORK, optimizer, [5], begun, *on_devices, 10, 1)
    now = begun
    for batch in np.asarray(training.epoch_batches(0, 1, 30, 10)):
        now, _ = step(now, *on_devices, batch[None])
        mean = parallel.gather(layout, now.batch_stats)["bn"]["mean"]
        weighted, total = 0.7 * weighted + mean, 0.7 * total + 1
    averaged = training.evaluated(state)
    np.testing.assert_allclose(averaged["batch_stats"]["bn"]["mean"], weighted / total, rtol=1e-5)
    assert (averaged["batch_stats"]["bn"]["mean"] != state.batch_stats["bn"]["mean"]).all()


def test_a_run_that_goes_on_ends_with_the_same_bits(tmp_path):
    images, labels = problem(40)
    layout, seeds = parallel.plan(2, some_devices(2)), [1, 2]
    optimizer = training.make_optimizer(0.05, 12, "sgd", ema=0.9)

    def go_on(state, done):
        options = {"batch_size": 10, "epochs": 3, "done": done}
        return loop.train(layout, NETWORK, optimizer, state, seeds, images, labels, **options)

    first = go_on(parallel.init(layout, NETWORK, optimizer, seeds), (0, 0))
    saved = parallel.gather(layout, next(first).state)
    *_, last = first
    wanted = parallel.gather(layout, last.state)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(4, saved, {})
        restored = checkpoints.restore(jax.tree.map(np.zeros_like, saved)).state
    *_, last = go_on(parallel.place(layout, restored), (1, 0))
    assert_close(parallel.gather(layout, last.state), wanted, 0, 0)


def test_predictions_go_by_the_moving_averages():
    state, _ = train((5, 6), network=NETWORK)
    layout = parallel.plan(2, some_devices(2))
    variables = training.evaluated(state)
    images, _ = problem(7)
    logits = parallel.make_predict(layout, NETWORK)(parallel.place(layout, variables), images)
    alone = parallel.make_predict(layout, NETWORK)(parallel.place(layout, variables), images[:1])
    np.testing.assert_allclose(logits[:, :1], alone, rtol=1e-5, atol=1e-6)
    of_second = jax.tree.map(lambda leaf: leaf[1], variables)
    by_flax = NETWORK.apply(of_second, images.astype(np.float32) / 255)
    np.testing.assert_allclose(logits[1], by_flax, rtol=1e-4, atol=1e-5)


class WithHeads(nn.Module):
    """A dense layer, and two auxiliary heads that give three and five times its logits."""

    auxiliary_weight: float = 0.25

    @nn.compact
    def __call__(self, images, train=False):
        logits = nn.Dense(10)(images.reshape(len(images), -1))
        if train:
            for factor in (3, 5):
                self.sow("auxiliary", "logits", factor * logits)
        return logits


def test_auxiliary_heads_count_with_their_weight():
    images, labels = problem(8)
    images = images.astype(np.float32) / 255
    params = WithHeads().init(jax.random.key(0), images)["params"]
    weights, key = np.full(8, 1 / 8, np.float32), jax.random.key(1)
    loss, _ = training.weighted_loss(WithHeads(), params, None, images, labels, weights, key)
    logits = np.asarray(WithHeads().apply({"params": params}, images), np.float64)

    def cross_entropy(logits):
        return np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(8), labels])

    parts = [cross_entropy(factor * logits) for factor in (1, 3, 5)]
    np.testing.assert_allclose(loss, parts[0] + 0.25 * (parts[1] + parts[2]), rtol=1e-5)
