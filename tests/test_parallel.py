"""Members and devices: whatever the layout, the same networks come out."""

import functools
import os
import pickle
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax import ensemble, models, parallel, platforms, training
from mnist_jax.layers import Dropout
from tests.tiny import Tiny, assert_close, member, problem, some_devices, train

train_once = functools.cache(train)


@pytest.mark.parametrize("i", [0, 1, 2])
def test_a_member_is_the_same_seed_trained_alone(i):
    together, losses = train_once((3, 11, 4), dropout_rate=0.5)
    alone, alone_losses = train(((3, 11, 4)[i],), dropout_rate=0.5)
    assert_close(member(together, i), alone)
    np.testing.assert_allclose(losses[i : i + 1], alone_losses, rtol=1e-4)


def test_seeds_make_different_members():
    together, _ = train_once((3, 11, 4), dropout_rate=0.5)
    kernels = together.params["Dense_0"]["kernel"]
    assert not np.allclose(kernels[0], kernels[1]) and not np.allclose(kernels[1], kernels[2])


def test_the_same_seed_gives_the_same_bits():
    one, losses = train((0, 1), devices=4, dropout_rate=0.5)
    two, again = train((0, 1), devices=4, dropout_rate=0.5)
    np.testing.assert_array_equal(losses, again)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("devices", [2, 3, 4])  # 10 images do not divide over 3 and 4
def test_devices_that_share_a_batch(devices):
    one, losses = train_once((5,))
    shared, shared_losses = train((5,), devices=devices)
    np.testing.assert_allclose(shared_losses, losses, rtol=1e-4)
    assert_close(shared, one)


def test_a_batch_smaller_than_its_devices():
    assert_close(train((5,), devices=4, batch_size=2)[0], train((5,), batch_size=2)[0])


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_gradients_do_not_depend_on_the_devices(devices):
    """One step of plain SGD without momentum's past moves the weights by the gradient."""
    images, labels = problem(12)
    network, optimizer = Tiny(), training.make_optimizer(1.0, 1, "sgd")
    layout = parallel.plan(1, some_devices(devices))
    state = parallel.init(layout, network, optimizer, [0])
    before = parallel.gather(layout, state.params)
    on_devices = parallel.replicate(layout, images), parallel.replicate(layout, labels)
    step = parallel.compile_train(layout, network, optimizer, [0], state, *on_devices, 12, 1)
    state, _ = step(state, *on_devices, np.arange(12, dtype=np.int32)[None])
    after = parallel.gather(layout, state.params)

    def loss(params):
        log_probs = jax.nn.log_softmax(
            network.apply({"params": params}, training.to_float(jnp.asarray(images)))
        )
        return -log_probs[np.arange(12), labels].mean()

    grads = jax.grad(loss)(jax.tree.map(lambda leaf: leaf[0], before))
    moved = jax.tree.map(lambda a, b: (a - b)[0] / 1.9, before, after)  # Nesterov's 1 + 0.9
    assert_close(moved, grads)


@pytest.mark.parametrize(
    ("members", "devices", "data"),
    [(3, 2, 1), (5, 4, 1), (2, 4, 2), (3, 4, 2), (3, 4, 4), (3, 4, 1)],
)
def test_any_grid_of_devices(members, devices, data):
    seeds = tuple(range(members))
    wanted, losses = train_once(seeds)
    state, ours = train(seeds, devices=devices, data=data)
    np.testing.assert_allclose(ours, losses, rtol=1e-4)
    assert_close(state, wanted)


_ON_EIGHT = """
import pickle, sys
from mnist_jax import parallel
parallel.use_cpu_cores(8)
from tests.tiny import train
runs = [train(range(members), 8, data) for members, data in ((1, 8), (3, 2), (9, 1))]
pickle.dump(runs, sys.stdout.buffer)
"""


def test_eight_devices_are_one():
    """Also where neither batches nor members divide evenly; in a process of their own."""
    command, environment = [sys.executable, "-c", _ON_EIGHT], os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    for state, losses in pickle.loads(done.stdout):
        wanted, wanted_losses = train_once(tuple(range(len(losses))))
        np.testing.assert_allclose(losses, wanted_losses, rtol=1e-4)
        assert_close(state, wanted)


@pytest.mark.parametrize(
    ("members", "devices", "data", "wanted"),
    [
        (1, 1, None, (1, 1, 1)),
        (1, 4, None, (1, 4, 1)),
        (2, 4, None, (2, 2, 1)),
        (3, 4, None, (3, 1, 1)),
        (7, 4, None, (4, 1, 2)),
        (8, 4, None, (4, 1, 2)),
        (9, 4, None, (3, 1, 3)),
        (7, 4, 2, (2, 2, 4)),
        (1, 3, 2, (1, 2, 1)),
    ],
)
def test_plan(members, devices, data, wanted):
    layout = parallel.plan(members, some_devices(devices), data)
    assert (layout.groups, layout.data, layout.slots) == wanted
    assert len(layout.devices) == layout.groups * layout.data <= devices
    assert layout.groups * layout.slots >= members


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "members must be at least 1"),
        ((1, None, 99), "data must be from 1 to the [0-9]+ devices"),
        ((1, None, 0), "data must be from 1"),
    ],
)
def test_plan_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        parallel.plan(*arguments)


@pytest.mark.parametrize(("members", "data"), [(1, 4), (3, 1), (5, 1), (3, 2)])
def test_place_and_gather_are_inverse(members, data):
    layout = parallel.plan(members, some_devices(4), data)
    tree = {"a": np.arange(members * 6.0).reshape(members, 2, 3), "b": np.arange(members)}
    assert_close(parallel.gather(layout, parallel.place(layout, tree)), tree, 0, 0)


@pytest.mark.parametrize(("members", "data"), [(1, 4), (5, 1), (3, 2)])
@pytest.mark.parametrize("n", [1, 9, 100, 257])
def test_predict_is_apply(members, data, n):
    layout = parallel.plan(members, some_devices(4), data)
    network, optimizer = Tiny(dropout_rate=0.5), training.make_optimizer(0.01, 1)
    seeds = np.arange(members, dtype=np.uint32)
    params = ensemble.init_state(network, optimizer, seeds).params
    images, _ = problem(n)
    logits = parallel.make_predict(layout, network)(parallel.place(layout, params), images)
    wanted = jax.vmap(
        lambda p: network.apply({"params": p}, training.to_float(jnp.asarray(images)))
    )(params)
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("n", "lengths"),
    [
        (1, [1]),
        (6, [1, 1, 1]),
        (7, [4]),
        (31, [4, 4, 4, 4]),
        (33, [10, 10]),
        (61, [30, 10]),
        (120, [30, 30]),
    ],
)
def test_as_few_inputs_are_added_as_calls_allow(n, lengths, monkeypatch):
    """By two devices, in lengths short enough to see them all."""
    layout = parallel.plan(1, some_devices(2))
    platform = layout.devices[0].platform
    monkeypatch.setattr(parallel, "_PREDICT_BATCH", {platform: (10, 1_000_000)})
    for name, value in {"BLOCKS": 3, "SOME": 4, "FEW": 3}.items():
        monkeypatch.setattr(parallel, f"_PREDICT_{name}", value)
    assert parallel._predict_lengths(layout, 10, n) == lengths
    images, _ = problem(n)
    params = Tiny().init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]
    stacked = parallel.place(layout, jax.tree.map(lambda leaf: leaf[None], params))
    (logits,) = parallel.make_predict(layout, Tiny())(stacked, images)
    wanted = Tiny().apply({"params": params}, training.to_float(jnp.asarray(images)))
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5)


class WithAList(nn.Module):
    """Cannot be hashed, so that JAX's programs of it are not found again."""

    unhashable: list

    @nn.compact
    def __call__(self, images, train=False):
        return images.sum(axis=(1, 2, 3))[:, None] + self.param("bias", nn.initializers.ones, (1,))


def test_a_network_like_no_other_is_compiled_once():
    layout = parallel.plan(1, some_devices(2))
    traced = []

    def decode(images):
        traced.append(images.shape)
        return training.to_float(images)

    predict = parallel.make_predict(layout, WithAList([1]), decode)
    params = parallel.place(layout, {"bias": np.ones((1, 1), np.float32)})
    images, _ = problem(250)
    for _ in range(2):
        (logits,) = predict(params, images)
    assert len(logits) == 250 and traced == [(100, 28, 28, 1)]


def test_large_images_are_predicted_in_small_batches():
    layout = parallel.plan(1, jax.devices("cpu")[:1])
    network = models.create("resnet20")
    shapes = {side: (side, side, 3) for side in (32, 224, 2000)}
    batches = {side: parallel.predict_batch(layout, network, shapes[side]) for side in shapes}
    assert batches == {32: 100, 224: 16, 2000: 1}
    assert parallel._predict_lengths(layout, 16, 1000) == [16] * 63
    assert parallel._predict_lengths(layout, 1, 3) == [1] * 3


@pytest.mark.parametrize("shape", [(28, 28, 3), (1000, 2000, 3)])
def test_by_the_size_to_which_a_network_scales_them(shape):
    layout = parallel.plan(1, jax.devices("cpu")[:1])
    network = models.create("resnet18", image_size=224)
    assert parallel.predict_batch(layout, network, shape) == 16


def test_init_is_the_ensembles():
    layout = parallel.plan(5)
    network, optimizer = Tiny(), training.make_optimizer(0.01, 1)
    state = parallel.gather(layout, parallel.init(layout, network, optimizer, range(5)))
    seeds = np.arange(5, dtype=np.uint32)
    assert_close(state, ensemble.init_state(network, optimizer, seeds))


@pytest.mark.parametrize(
    ("members", "devices"), [(1, 4), (3, 4), (4, 4), (5, 5), (8, 4), (31, 31), (32, 4), (33, 4)]
)
def test_members_that_do_not_divide_over_four_cores_get_a_device_each(
    members, devices, monkeypatch
):
    asked = {}
    monkeypatch.setattr(parallel, "cpu_cores", lambda: 4)
    monkeypatch.setattr(jax.config, "update", asked.__setitem__)
    parallel.use_cpu_cores(members=members)
    assert asked == {"jax_num_cpu_devices": devices}
    parallel.use_cpu_cores(2, members)
    assert asked == {"jax_num_cpu_devices": 2}


def test_use_cpu_cores_refuses_none():
    with pytest.raises(ValueError, match="count must be at least 1, not 0"):
        parallel.use_cpu_cores(0)


@pytest.mark.parametrize(("platform", "convolutions"), [("cpu", 1), ("gpu", 0), ("tpu", 2)])
def test_no_convolution_of_xlas_is_in_the_gradients(platform, convolutions):
    """On a CPU those would be up to a hundred times slower, and with members grouped on a GPU."""
    network, optimizer = Tiny(), training.make_optimizer(0.01, 1)
    state = training.init_state(network, optimizer, np.uint32(0))
    images, labels = problem(4)
    batches, weights = np.zeros((2, 4), np.int32), np.full(4, 0.25, np.float32)
    share = training.Share(images, labels, batches, weights)
    with platforms.known(platform):
        train = jax.jit(training.train_epoch, static_argnums=(0, 1))
        text = train.lower(network, optimizer, state, np.uint32(0), share).as_text()
    assert "stablehlo.while" in text and text.count("stablehlo.convolution(") == convolutions


@pytest.mark.parametrize(("devices", "data"), [(1, 1), (2, 1), (4, 2)])
def test_own_shuffles_are_those_of_the_seed_alone(devices, data):
    state, losses = train([5, 6, 7], devices, data, own_shuffles=True)
    for i, seed in enumerate([5, 6, 7]):
        alone, alone_losses = train_once((seed,), own_shuffles=True)
        assert_close(member(state, i), alone)
        np.testing.assert_allclose(losses[i], alone_losses[0], rtol=1e-4)
    assert abs(losses - train_once((5, 6, 7))[1]).max() > 0.01


class Linear(nn.Module):
    """Dropout, then the sum of the pixels in each of the ten columns 0 to 9."""

    @nn.compact
    def __call__(self, images, train=False):
        self.param("unused", nn.initializers.zeros, (1,))
        return Dropout(0.25)(images, train)[:, :, :10, 0].sum(axis=1)


def test_dropout_while_predicting_is_right_on_average_and_in_spread():
    layout = parallel.plan(2)
    predict = parallel.make_predict(layout, Linear())
    params = parallel.place(layout, {"unused": np.zeros((2, 1), np.float32)})
    images, _ = problem(3)
    passes = np.stack([predict(params, images, seed) for seed in range(400)])
    np.testing.assert_array_equal(passes[7], predict(params, images, 7))
    pixels = images[:, :, :10, 0] / 255.0
    mean, variance = pixels.sum(axis=1), (pixels**2).sum(axis=1) * 0.25 / 0.75
    every = passes.reshape(800, 3, 10)
    error = np.sqrt(variance / 800)
    assert abs((every.mean(axis=0) - mean) / error).max() < 4.5
    np.testing.assert_allclose(every.var(axis=0).mean(), variance.mean(), rtol=0.1)
    assert abs(np.corrcoef(passes[:, 0, 0, 0], passes[:, 1, 0, 0])[0, 1]) < 0.25  # own masks
    np.testing.assert_allclose(predict(params, images), np.stack([mean, mean]), rtol=1e-5)
