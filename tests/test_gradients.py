"""The networks' gradients on real digits, with and without the C++ kernels, against float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mnist_jax import kernels, models, parallel
from tests import exact

N = {"digits": 100, "blank": 20, "uniform": 20}  # images
CLOSE = 3e-6  # of a layer's largest value: the kernels' rounding

slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.fixture(params=["kernels", "xla"])
def implementation(request, monkeypatch):
    """The kernels also where there is a GPU, and more cores than the tests have devices."""
    if request.param == "kernels" and not kernels.load():
        pytest.skip("no compiler, or not a system for it")
    monkeypatch.setattr(parallel, "each_core_is_a_device", lambda: True)
    monkeypatch.setenv("MNIST_JAX_KERNELS", "on" if request.param == "kernels" else "off")
    with jax.default_device(jax.devices("cpu")[0] if request.param == "kernels" else None):
        yield request.param


def loss(network, params, images, labels, **options):
    logits = network.apply({"params": params}, images, **options)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@functools.cache
def initial(name):
    network = models.create(name)
    return jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]


def biased(name):
    """As after some training: margins of digits are no longer 0 behind a convolution."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        is_bias = path[-1].key == "bias"
        return jnp.float32(rng.normal(scale=0.1, size=leaf.shape)) if is_bias else leaf

    return jax.tree.map_with_path(draw, initial(name))


@functools.cache
def trained(name):
    """After 200 steps of Adam, with dropout."""
    network, optimizer = models.create(name), optax.adam(1e-3)
    images, labels = map(jnp.asarray, exact.digits(4000))

    def step(carry, i):
        params, state = carry
        key = jax.random.key(i)
        batch = jax.random.randint(key, (100,), 0, len(images))
        options = {"train": True, "rngs": {"dropout": key}}
        grad = jax.grad(loss, 1)(network, params, images[batch], labels[batch], **options)
        updates, state = optimizer.update(grad, state)
        return (optax.apply_updates(params, updates), state), None

    params = initial(name)
    steps = jax.jit(lambda carry: jax.lax.scan(step, carry, jnp.arange(200))[0])
    return steps((params, optimizer.init(params)))[0]


def draw(kind):
    """Three times as many images, and labels. Where images hardly differ the labels do not either:
    else little would be left of the gradients."""
    images, labels = exact.digits(3 * N[kind])
    if kind == "digits":
        return images, labels
    gray = np.linspace(0.1, 1, len(images))[:, None, None, None] if kind == "uniform" else 0
    return np.float32(gray * np.ones_like(images)), np.full_like(labels, 3)


@functools.cache
def in_float64(name):
    """Each layer's outputs, and the gradients of params and images, compiled once."""
    network = models.create(name, dtype=jnp.float64)

    def outputs(params, images):
        _, captured = network.apply({"params": params}, images, capture_intermediates=True)
        layers = captured["intermediates"].items()
        return {layer: out["__call__"][0] for layer, out in layers if layer != "__call__"}

    return jax.jit(outputs), jax.jit(jax.grad(functools.partial(loss, network), (0, 1)))


def decided_by_rounding(outputs):
    """bool `[n]`: of which images relu or pooling pass on what rounding decides, outputs that are
    close, but neither equal nor 0."""
    convs = [np.asarray(out) for layer, out in outputs.items() if layer.startswith("Conv")]
    denses = [np.asarray(out) for layer, out in outputs.items() if layer.startswith("Dense")][:-1]
    pooled = [exact.pool_outputs(out).close(CLOSE).any(axis=(1, 2, 3)) for out in convs]
    relus = [((out != 0) & (np.abs(out) < CLOSE * np.abs(out).max())).any(axis=1) for out in denses]
    return np.any(pooled + relus, axis=0)


@functools.cache
def images_and_gradients(name, params_of, kind):
    """Images that rounding leaves alone, their labels, and the gradients in float64."""
    images, labels = draw(kind)
    outputs, gradients = in_float64(name)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params_of(name))
        decided = decided_by_rounding(outputs(params, jnp.float64(images)))
        kept = np.flatnonzero(~decided)[: N[kind]]
        assert len(kept) == N[kind]
        expected = gradients(params, jnp.float64(images[kept]), labels[kept])
        return images[kept], labels[kept], jax.tree.map(np.asarray, expected)


@functools.cache
def in_float32(name, implementation):
    return jax.jit(jax.grad(functools.partial(loss, models.create(name)), (0, 1)))


@pytest.mark.parametrize("name", models.LABS)
@pytest.mark.parametrize("kind", ["digits", slow("blank"), slow("uniform")])
@pytest.mark.parametrize("params_of", [initial, biased, slow(trained)])
def test_gradients_are_those_of_float64(implementation, name, kind, params_of):
    images, labels, expected = images_and_gradients(name, params_of, kind)
    ours = in_float32(name, implementation)(params_of(name), images, labels)
    differences = jax.tree.map(exact.difference, ours, expected)
    for path, difference in jax.tree.leaves_with_path(differences):
        assert difference < 1e-5, jax.tree_util.keystr(path)
