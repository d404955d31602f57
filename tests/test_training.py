"""One member's training against Adam written by hand, and on problems with a known end."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mnist_jax import training
from mnist_jax.training import Share
from tests.tiny import Tiny, assert_close, problem

init_state = jax.jit(training.init_state, static_argnums=(0, 1))
train_step = jax.jit(training.train_step, static_argnums=(0, 1))


def mean_weights(n):
    return jnp.full(n, 1 / n)


def test_three_steps_equal_adam_by_hand():
    """Kingma and Ba 2015, algorithm 1, in float64 NumPy."""
    network, optimizer = Tiny(), training.make_optimizer(0.001, 10)
    state = init_state(network, optimizer, jnp.uint32(0))
    images, labels = problem(16)

    def loss(params):
        log_probs = jax.nn.log_softmax(
            network.apply({"params": params}, training.to_float(jnp.asarray(images)))
        )
        return -log_probs[jnp.arange(16), labels].mean()

    gradients = jax.jit(jax.value_and_grad(loss))
    leaves, treedef = jax.tree.flatten(state.params)
    params = [np.asarray(leaf, np.float64) for leaf in leaves]
    m, v = [0 * p for p in params], [0 * p for p in params]
    for t in range(1, 4):
        as_float32 = treedef.unflatten([jnp.asarray(p, jnp.float32) for p in params])
        wanted_loss, grads = gradients(as_float32)
        for i, g in enumerate(np.asarray(g, np.float64) for g in jax.tree.leaves(grads)):
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g**2
            m_hat, v_hat = m[i] / (1 - 0.9**t), v[i] / (1 - 0.999**t)
            params[i] = params[i] - 0.001 * m_hat / (np.sqrt(v_hat) + 1e-8)
        state, ours = train_step(
            network, optimizer, state, jnp.uint32(0), images, labels, mean_weights(16)
        )
        np.testing.assert_allclose(ours, wanted_loss, rtol=1e-5)
    assert_close(state.params, treedef.unflatten(params), rtol=1e-4, atol=2e-6)
    assert state.step == 3


def test_an_overfitted_batch_has_no_loss_left():
    network, optimizer = Tiny(), training.make_optimizer(0.01, 500)
    state = init_state(network, optimizer, jnp.uint32(0))
    images, labels = problem(16)
    batches = jnp.tile(jnp.arange(16), (500, 1))
    _, losses = jax.jit(training.train_epoch, static_argnums=(0, 1))(
        network, optimizer, state, jnp.uint32(0), Share(images, labels, batches, mean_weights(16))
    )
    assert losses[0] > 1.5 and losses[-1] < 1e-3


def test_a_step_on_weighted_images_is_a_step_on_the_images_with_weight():
    network, optimizer = Tiny(), training.make_optimizer(0.01, 10)
    state = init_state(network, optimizer, jnp.uint32(0))
    images, labels = problem(8)
    step = [network, optimizer, state, jnp.uint32(0)]
    weights = jnp.array([0.2] * 5 + [0.0] * 3)
    one, loss = train_step(*step, images, labels, weights)
    other, wanted = train_step(*step, images[:5], labels[:5], mean_weights(5))
    np.testing.assert_allclose(loss, wanted, rtol=1e-6)
    assert_close(one.params, other.params)


def test_dropout_differs_by_seed_step_and_shard():
    keys = [
        training.dropout_key(jnp.uint32(seed), jnp.int32(step), shard)
        for seed in (0, 1)
        for step in (0, 1)
        for shard in (0, 1)
    ]
    assert len({tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in keys}) == 8


def test_to_float():
    np.testing.assert_allclose(training.to_float(jnp.array([0, 51, 255], jnp.uint8)), [0, 0.2, 1])
    np.testing.assert_allclose(training.to_float(jnp.array([0.0, 0.7])), [0, 0.7])


def test_epoch_batches_are_a_permutation_of_seed_and_epoch():
    one = np.asarray(training.epoch_batches(0, 1, 53, 10))
    assert one.shape == (5, 10) and len(set(one.ravel())) == 50 and one.max() < 53
    np.testing.assert_array_equal(one, training.epoch_batches(0, 1, 53, 10))
    for seed, epoch in ((0, 2), (1, 1), (1, 0)):
        assert not np.array_equal(one, training.epoch_batches(seed, epoch, 53, 10))


@pytest.mark.parametrize(
    ("schedule", "first", "middle", "last"),
    [("constant", 0.1, 0.1, 0.1), ("cosine", 0.1, 0.05, 0.0), ("onecycle", 0.004, None, 0.0)],
)
def test_schedules(schedule, first, middle, last):
    optimizer = training.make_optimizer(0.1, 100, "sgd", schedule)
    params = jnp.zeros(())
    state = optimizer.init(params)
    # Momentum builds up along a constant gradient; a fresh state's direction is 1 + 0.9.
    sizes = []
    for step in range(101):
        updates, state = optimizer.update(jnp.ones(()), state, params)
        velocity = 1 + 0.9 * (1 - 0.9 ** (step + 1)) / 0.1
        sizes.append(-float(updates) / velocity)
    np.testing.assert_allclose(sizes[0], first, rtol=1e-4)
    np.testing.assert_allclose(sizes[100], last, rtol=1e-4, atol=1e-5)
    assert max(sizes) <= 0.1 * 1.0001
    if middle is not None:
        np.testing.assert_allclose(sizes[50], middle, rtol=1e-4)


def test_weight_decay_is_decoupled():
    params = jnp.array([2.0, -4.0])
    for name in ("adam", "sgd"):
        optimizer = training.make_optimizer(0.1, 10, name, weight_decay=0.5)
        updates, _ = optimizer.update(jnp.zeros(2), optimizer.init(params), params)
        np.testing.assert_allclose(optax.apply_updates(params, updates), [1.9, -3.8], rtol=1e-6)


def test_averaged_weights_by_hand():
    """Kingma and Ba 2015, section 7.2; and training does not notice."""
    network, images, labels = Tiny(), *problem(16)
    states, weights = {}, []
    for ema in (None, 0.8):
        optimizer = training.make_optimizer(0.1, 10, "sgd", ema=ema)
        state = init_state(network, optimizer, jnp.uint32(0))
        start = state.params
        for _ in range(3):
            state, _ = train_step(
                network, optimizer, state, jnp.uint32(0), images, labels, mean_weights(16)
            )
            weights.append(state.params)
        states[ema] = state
    assert_close(states[None].params, states[0.8].params, 0, 0)
    assert training.evaluated(states[None])["params"] is states[None].params
    factors = 0.2 * np.array([0.8**2, 0.8, 1]) / (1 - 0.8**3)
    wanted = jax.tree.map(lambda *steps: np.tensordot(factors, steps, axes=1), *weights[3:])
    assert_close(training.evaluated(states[0.8])["params"], wanted, rtol=1e-5, atol=1e-6)
    begun = init_state(network, optimizer, jnp.uint32(0))
    assert_close(training.evaluated(begun)["params"], start, 0, 0)


def test_a_cycle_begins_as_the_first_did():
    optimizer = training.make_optimizer(1.0, 6, "sgd", "cosine", beta1=0.0, cycles=2)
    opt_state, rates = optimizer.init(jnp.zeros(())), []
    for _ in range(6):
        update, opt_state = optimizer.update(jnp.ones(()), opt_state, jnp.zeros(()))
        rates.append(-float(update))
    half_waves = [(1 + np.cos(np.pi * i / 3)) / 2 for i in range(3)]
    np.testing.assert_allclose(rates, half_waves * 2, rtol=1e-6)
    with pytest.raises(ValueError, match="cycles must divide the 10 steps, which 3 does not"):
        training.make_optimizer(0.1, 10, cycles=3)


def test_a_members_own_batches():
    shared = training.epoch_batches(0, 1, 20, 5)
    own = [training.epoch_batches(0, 1, 20, 5, seed) for seed in (0, 1)]
    for batches in (shared, *own):
        assert sorted(np.ravel(batches).tolist()) == list(range(20))
    assert (shared != own[0]).any() and (own[0] != own[1]).any()


def test_momentum_and_its_weight_decay_by_hand():
    """v <- 0.9 v + g + decay w; w <- w - rate v. Krizhevsky et al. 2012, section 5."""
    optimizer = training.make_optimizer(0.1, 10, "momentum", weight_decay=0.01)
    weights, velocity = np.array([1.0, -2.0]), np.zeros(2)
    params = jnp.array(weights, jnp.float32)
    state = optimizer.init(params)
    for grad in ([0.5, 1.0], [-0.2, 0.0], [0.1, 0.3]):
        updates, state = optimizer.update(jnp.array(grad, jnp.float32), state, params)
        params = optax.apply_updates(params, updates)
        velocity = 0.9 * velocity + np.array(grad) + 0.01 * weights
        weights = weights - 0.1 * velocity
    np.testing.assert_allclose(params, weights, rtol=1e-5)


def test_the_rate_goes_down_in_steps():
    rate = training.make_schedule(0.1, 64_000, "steps")
    steps = [0, 31_999, 32_000, 47_999, 48_000, 63_999]
    wanted = [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    np.testing.assert_allclose([float(rate(step)) for step in steps], wanted, rtol=1e-5)
