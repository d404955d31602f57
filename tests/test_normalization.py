"""Batch statistics, on one and several devices, and local response normalisation, by NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax.normalization import BatchNorm, LocalResponseNorm, local_response_norm

RNG = np.random.default_rng(0)
VALUES = (RNG.normal(size=(6, 4, 3, 2)) * [3, 0.1] + [5, -2]).astype(np.float32)
DIRECTION = RNG.normal(size=VALUES.shape).astype(np.float32)
VARIABLES = {
    "params": {"scale": jnp.array([2.0, 0.5]), "bias": jnp.array([1.0, -1.0])},
    "batch_stats": {"mean": jnp.array([4.0, 0.0]), "var": jnp.array([1.0, 2.0])},
}


def by_numpy(values, weights=None, epsilon=1e-5):
    """Normalised values, mean and variance, in float64."""
    values = values.astype(np.float64)
    places = np.ones(values.shape[:-1]) * np.reshape(
        np.ones(len(values)) if weights is None else weights, (-1, 1, 1)
    )
    mean = np.average(values, axis=(0, 1, 2), weights=places[..., None] * np.ones(2))
    var = np.average((values - mean) ** 2, axis=(0, 1, 2), weights=places[..., None] * np.ones(2))
    normal = (values - mean) / np.sqrt(var + epsilon)
    return normal * [2, 0.5] + [1, -1], mean, var


def train(layer, values, weights=None, variables=VARIABLES):
    return layer.apply(variables, values, True, weights, mutable=["batch_stats"])


@pytest.mark.parametrize("weights", [None, np.array([1, 1, 0, 1, 0, 1], np.float32)])
def test_the_batch_s_own_statistics(weights):
    out, new = train(BatchNorm(momentum=0.7), VALUES, weights)
    wanted, mean, var = by_numpy(VALUES, weights)
    np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(new["batch_stats"]["mean"], 0.7 * np.array([4, 0]) + 0.3 * mean)
    np.testing.assert_allclose(
        new["batch_stats"]["var"], 0.7 * np.array([1, 2]) + 0.3 * var, rtol=1e-5
    )


def test_a_mean_far_from_zero_costs_no_digits():
    """The variance of 1000 + noise, which the mean of squares less the square would lose."""
    noise = RNG.normal(size=(64, 8, 8, 2)).astype(np.float32) * 0.01
    _, new = train(BatchNorm(momentum=0), noise + np.float32(1000))
    wanted = (noise + np.float32(1000)).astype(np.float64).var((0, 1, 2))
    np.testing.assert_allclose(new["batch_stats"]["var"], wanted, rtol=1e-2)


@pytest.mark.parametrize(("is_training", "mutable"), [(False, ["batch_stats"]), (True, [])])
def test_moving_averages_where_they_are_not_to_change(is_training, mutable):
    out, new = BatchNorm().apply(VARIABLES, VALUES, is_training, mutable=mutable)
    wanted = (VALUES - [4, 0]) / np.sqrt(np.array([1, 2]) + 1e-5) * [2, 0.5] + [1, -1]
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5)
    stats = new.get("batch_stats", VARIABLES["batch_stats"])
    assert all((stats[k] == VARIABLES["batch_stats"][k]).all() for k in ("mean", "var"))


def test_initial_variables_do_not_see_the_images():
    new = BatchNorm(axis_name="not mapped").init(jax.random.key(0), VALUES, True)
    assert {k: v.tolist() for k, v in new["batch_stats"].items()} == {
        "mean": [0, 0],
        "var": [1, 1],
    }
    assert {k: v.tolist() for k, v in new["params"].items()} == {"scale": [1, 1], "bias": [0, 0]}


def test_bfloat16():
    out, new = train(BatchNorm(), jnp.asarray(VALUES, jnp.bfloat16))
    assert out.dtype == jnp.bfloat16 and new["batch_stats"]["var"].dtype == jnp.float32
    rounded = np.asarray(jnp.asarray(VALUES, jnp.bfloat16), np.float32)
    np.testing.assert_allclose(np.float32(out), by_numpy(rounded)[0], rtol=1e-2, atol=1e-2)


def on_devices(layer, values, direction, weights, devices):
    """Outputs, statistics and the summed gradient, of shares `[devices, n, ...]`."""

    def share(values, direction, weights):
        def along(params):
            out, new = train(layer, values, weights, {**VARIABLES, "params": params})
            return jnp.vdot(out, direction), (out, new["batch_stats"])

        grads, rest = jax.grad(along, has_aux=True)(VARIABLES["params"])
        back = jax.grad(lambda x: jnp.vdot(train(layer, x, weights)[0], direction))(values)
        return jax.lax.psum(grads, "devices"), back, *rest

    mapped = jax.pmap(share, "devices", devices=jax.devices()[:devices])
    return mapped(values, direction, weights)


@pytest.mark.parametrize(("devices", "filled_up"), [(1, 0), (2, 0), (2, 1)])
def test_devices_that_share_a_batch(devices, filled_up):
    """They give what one gives, though the last one's share is filled up with other images."""
    n = len(VALUES) - filled_up

    def shares(array, filling):
        whole = np.concatenate([array[:n], np.full_like(array[:filled_up], filling)])
        return whole.reshape(devices, -1, *array.shape[1:])

    weights = shares(np.ones(len(VALUES), np.float32), 0)
    layer = BatchNorm(axis_name="devices")
    grads, back, out, stats = on_devices(
        layer, shares(VALUES, 77), shares(DIRECTION, 0), weights, devices
    )

    def along(params, values):
        out, new = train(BatchNorm(), values, None, {**VARIABLES, "params": params})
        return jnp.vdot(out, DIRECTION[:n]), (out, new["batch_stats"])

    alone = jax.grad(along, argnums=(0, 1), has_aux=True)
    (wanted_grads, wanted_back), (wanted, wanted_stats) = alone(VARIABLES["params"], VALUES[:n])
    np.testing.assert_allclose(wanted, by_numpy(VALUES[:n])[0], rtol=1e-4, atol=1e-4)
    close = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(out.reshape(VALUES.shape)[:n], wanted, **close)
    np.testing.assert_allclose(back.reshape(VALUES.shape)[:n], wanted_back, **close)
    for device in range(devices):
        for mine, right in ((grads, wanted_grads), (stats, wanted_stats)):
            for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(right), strict=True):
                np.testing.assert_allclose(a[device], b, **close)


def test_groups_of_devices_do_not_see_each_other():
    layer = BatchNorm(axis_name="devices", axis_index_groups=((0, 1), (2, 3)))
    values = np.concatenate([VALUES, 10 - 3 * VALUES]).reshape(4, 3, *VALUES.shape[1:])
    out, _ = jax.pmap(lambda x: train(layer, x), "devices")(values)
    out = np.asarray(out).reshape(2, *VALUES.shape)
    np.testing.assert_allclose(out[0], by_numpy(VALUES)[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(out[1], by_numpy(10 - 3 * VALUES)[0], rtol=1e-4, atol=1e-4)


def lrn_by_loops(values, size=5, k=2.0, alpha=1e-4, beta=0.75):
    """Krizhevsky et al. 2012, section 3.3, as it is written there."""
    out = np.empty(values.shape)
    last = values.shape[-1] - 1
    for i in range(last + 1):
        near = range(max(0, i - size // 2), min(last, i + size // 2) + 1)
        total = sum(values[..., j].astype(np.float64) ** 2 for j in near)
        out[..., i] = values[..., i] / (k + alpha * total) ** beta
    return out


@pytest.mark.parametrize("channels", [2, 7])
def test_local_response_norm(channels):
    values = RNG.normal(size=(2, 3, 3, channels)).astype(np.float32) * 100
    np.testing.assert_allclose(local_response_norm(values), lrn_by_loops(values), rtol=1e-5)
    np.testing.assert_allclose(LocalResponseNorm().apply({}, values), lrn_by_loops(values), 1e-5)


def test_parts_of_the_channels():
    values = RNG.normal(size=(2, 3, 3, 12)).astype(np.float32) * 100
    wanted = [lrn_by_loops(values[..., :6]), lrn_by_loops(values[..., 6:])]
    out = LocalResponseNorm(groups=2).apply({}, values)
    np.testing.assert_allclose(out, np.concatenate(wanted, axis=-1), rtol=1e-5)
