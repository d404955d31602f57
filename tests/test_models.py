"""The networks against the lab's numbers and against an independent forward pass."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from mnist_jax import models

COUNTS = {  # by hand, from the lab's shapes; fast from PyTorch's
    "simple": 9 * 32 + 9 * 32 * 64 + 7 * 7 * 64 * 10 + 10,
    "deep": 9 * 32
    + 9 * 32 * 64
    + 9 * 64 * 128
    + (2048 * 625 + 625)
    + (625 * 625 + 625)
    + (625 * 10 + 10),
    "layers": (9 * 32 + 32)
    + (9 * 32 * 64 + 64)
    + (9 * 64 * 128 + 128)
    + (2048 * 2048 + 2048)
    + (2048 * 10 + 10),
    "fast": (25 * 24 + 24) + (9 * 24 * 32 + 32) + (800 * 256 + 256) + (256 * 10 + 10),
}


@functools.cache
def init(name, **options):
    network = models.create(name, **options)
    variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    return network, variables["params"]


@pytest.mark.parametrize("name", models.LABS)
def test_parameter_counts(name):
    _, params = init(name)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == COUNTS[name]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(
    ("name", "convs", "pools", "denses"),
    [
        ("simple", [(28, 32), (14, 64)], [14, 7], [10]),
        ("deep", [(28, 32), (14, 64), (7, 128)], [14, 7, 4], [625, 625, 10]),
        ("layers", [(28, 32), (14, 64), (7, 128)], [14, 7, 4], [2048, 10]),
        ("fast", [(24, 24), (10, 32)], [12, 5], [256, 10]),
    ],
)
def test_layer_shapes(name, convs, pools, denses):
    network, params = init(name)
    images = jnp.zeros((2, 28, 28, 1))
    _, captured = network.apply({"params": params}, images, capture_intermediates=True)
    outputs = {
        layer: out["__call__"][0].shape
        for layer, out in captured["intermediates"].items()
        if layer != "__call__"
    }
    conv_shapes = [(2, size, size, features) for size, features in convs]
    assert [outputs[f"Conv_{i}"] for i in range(len(convs))] == conv_shapes
    assert [outputs[f"Dense_{i}"] for i in range(len(denses))] == [(2, n) for n in denses]
    pooled = [outputs[f"MaxPool_{i}"][1:3] for i in range(len(pools))]
    assert pooled == [(size, size) for size in pools]


def reference(name, params, images):
    """The lab's order (convolve, relu, pool), by XLA's convolution and pooling."""
    x = (images - 0.1307) / 0.3081 if name == "fast" else images
    padding = "VALID" if name == "fast" else "SAME"
    for i in range(sum(layer.startswith("Conv") for layer in params)):
        conv = params[f"Conv_{i}"]
        numbers = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(x, conv["kernel"], (1, 1), padding, dimension_numbers=numbers)
        x = jax.nn.relu(x + conv.get("bias", 0.0))
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME")
    x = x.reshape(len(x), -1)
    last = sum(layer.startswith("Dense") for layer in params) - 1
    for i in range(last + 1):
        dense = params[f"Dense_{i}"]
        x = x @ dense["kernel"] + dense["bias"]
        x = x if i == last else jax.nn.relu(x)
    return x


@pytest.mark.parametrize("name", models.LABS)
def test_logits_and_all_gradients(name):
    network, params = init(name)
    # Random pixels and larger weights: no ties in pooling, and no gradient near zero.
    params = jax.tree.map(lambda p: p * 5 if p.ndim == 4 else p, params)
    images = jax.random.uniform(jax.random.key(1), (3, 28, 28, 1))
    labels = jnp.array([3, 1, 4])

    def loss(logits_of):
        def of(params):
            logits = logits_of(params)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), logits

        return of

    def logits_and_gradients(logits_of):
        return jax.jit(jax.grad(loss(lambda p: logits_of(p, images)), has_aux=True))(params)

    ours, logits = logits_and_gradients(lambda p, x: network.apply({"params": p}, x))
    theirs, wanted = logits_and_gradients(functools.partial(reference, name))
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=3e-6 * float(jnp.abs(wanted).max()))
    for (path, a), b in zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        scale = float(jnp.abs(b).max())
        assert scale > 0, path
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * scale, err_msg=str(path))


@pytest.mark.parametrize(
    ("name", "options", "stddev"),
    [("simple", {}, 0.01), ("deep", {}, 0.01), ("deep", {"conv_stddev": 1.0}, 1.0)],
)
def test_initial_values_of_the_first_labs(name, options, stddev):
    _, params = init(name, **options)
    kernel = np.asarray(params["Conv_1"]["kernel"])
    assert abs(kernel.std() / stddev - 1) < 5 / np.sqrt(2 * kernel.size)
    assert "bias" not in params["Conv_1"]
    dense = np.asarray(params["Dense_0"]["kernel"])
    bound = np.sqrt(6 / sum(dense.shape))  # Glorot and Bengio 2010, equation 16
    assert np.abs(dense).max() <= bound and abs(dense.std() / (bound / np.sqrt(3)) - 1) < 0.02
    biases = np.concatenate([v["bias"] for k, v in params.items() if k.startswith("Dense")])
    assert abs(biases.std() - 1) < 5 / np.sqrt(2 * len(biases))


def test_initial_values_of_layers():
    _, params = init("layers")
    assert all((layer["bias"] == 0).all() for layer in params.values())
    kernel = np.asarray(params["Conv_1"]["kernel"])
    bound = np.sqrt(6 / (9 * 32 + 9 * 64))
    assert np.abs(kernel).max() <= bound and abs(kernel.std() / (bound / np.sqrt(3)) - 1) < 0.02


@pytest.mark.parametrize(("name", "rate"), [("deep", 0.3), ("layers", 0.3)])
def test_dropout_is_on_in_training_only(name, rate):
    network, params = init(name)
    assert network.dropout_rate == rate
    images = jax.random.uniform(jax.random.key(1), (2, 28, 28, 1))

    def apply(**options):
        return network.apply({"params": params}, images, **options)

    np.testing.assert_array_equal(apply(), apply(train=False))
    one, two = (apply(train=True, rngs={"dropout": jax.random.key(k)}) for k in (0, 1))
    assert not np.allclose(one, apply()) and not np.allclose(one, two)


@pytest.mark.parametrize("name", models.LABS)
def test_num_classes(name):
    network = models.create(name, num_classes=3)
    logits, _ = network.init_with_output(jax.random.key(0), jnp.zeros((2, 28, 28, 1)))
    assert isinstance(network, nn.Module) and logits.shape == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("dep",), {}, "'dep' is no network.*Did you mean 'deep'"),
        (("deep", 1), {}, "num_classes must be at least 2, not 1"),
        (("deep",), {"dropout_rate": 1.5}, "dropout_rate must be in .* not 1.5"),
        (("deep",), {"dropout_rate": float("nan")}, "dropout_rate must be in .* not nan"),
        (("deep",), {"conv_stddev": -1.0}, "conv_stddev must not be negative"),
        (("simple",), {"dropout_rate": 0.5}, "'simple' has no option 'dropout_rate'"),
        (("layers",), {"parent": 1.0}, "'layers' has no option 'parent'.*dropout_rate"),
        (("lenet5",), {"dense": True, "rubbish": 1.0}, "dense=True has no distances"),
        (("lenet5",), {"rubbish": -1.0}, "rubbish must not be negative"),
        (("lenet5",), {"rubbish": "some"}, "rubbish must be a number, not 'some'"),
        (("lenet5",), {"dense": "maybe"}, "dense must be True or False, not 'maybe'"),
        (("lenet5",), {"dtype": "foo"}, "dtype must be float32, .* not 'foo'"),
        (("lenet5",), {"dtype": "int32"}, "dtype must be float32, .* not 'int32'"),
        (("resnet20",), {"image_size": "big"}, "image_size must be a whole number, not 'big'"),
        (("resnet20",), {"image_size": True}, "image_size must be a whole number, not True"),
        (("resnet20",), {"image_size": 0}, "image_size must be at least 1, not 0"),
        (("resnet20",), {"mean": 0.5}, "mean must be a tuple of numbers, one a channel, not 0.5"),
        (("alexnet",), {"pixel_scale": "x"}, "pixel_scale must be a number, not 'x'"),
        (("deep",), {"dropout_rate": None}, "dropout_rate must be a number, not None"),
    ],
)
def test_wrong_arguments(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        models.create(*arguments, **options)


@pytest.mark.parametrize("name", models.LABS)
def test_bfloat16_is_close_to_float32(name):
    network, params = init(name)
    low = models.create(name, dtype=jnp.bfloat16)
    images = jnp.asarray(np.random.default_rng(0).random((4, 28, 28, 1), np.float32))

    def loss(network, params):
        logits = network.apply({"params": params}, images)
        return jnp.sum(jax.nn.log_softmax(logits)[:, 3]), logits

    gradient = jax.jit(jax.grad(loss, argnums=1, has_aux=True), static_argnums=0)
    wanted_grads, wanted = gradient(network, params)
    grads, logits = gradient(low, params)
    assert logits.dtype == jnp.float32
    assert 0 < abs(logits - wanted).max() < 0.02 * abs(wanted).max()
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(wanted_grads), strict=True):
        assert a.dtype == jnp.float32
        # Rounding changes which pixel of a pool is the largest, so not each value is close.
        assert jnp.vdot(a, b) > 0.97 * jnp.linalg.norm(a) * jnp.linalg.norm(b)
