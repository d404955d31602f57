"""LeNet-5 against the paper's numbers and against PyTorch, map by map."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from mnist_jax import training
from mnist_jax.models.lenet5 import LeNet5, class_codes, scaled_tanh
from tests import published

# By the paper's words: contiguous threes, contiguous fours, fours with a gap, all.
C3 = [
    *(sorted((i + j) % 6 for j in range(3)) for i in range(6)),
    *(sorted((i + j) % 6 for j in range(4)) for i in range(6)),
    *(sorted({i, (i + 1) % 6, (i + 3) % 6, (i + 4) % 6}) for i in range(3)),
    list(range(6)),
]


@functools.cache
def variables(dense=False):
    network = LeNet5(dense=dense)
    return network, published.fill(network, 28, 28, 1)["params"]


def test_parameters_and_connections():
    assert published.counts(LeNet5(), 28, 28, 1) == {
        "C1": 156,
        "S2": 12,
        "C3": 1516,
        "S4": 32,
        "C5": 48120,
        "F6": 10164,
    }
    assert published.count(published.shapes(LeNet5(), 28, 28, 1)) == 60000
    assert published.counts(LeNet5(dense=True), 28, 28, 1) == {
        "C1": 156,
        "C3": 2416,
        "C5": 48120,
        "F6": 10164,
        "output": 850,
    }
    assert published.count(published.shapes(LeNet5(dense=True), 32, 32, 1)) == 61706


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("side", [28, 32])
def test_layer_shapes(dense, side):
    assert published.layer_shapes(LeNet5(dense=dense), side, side, 1) == {
        "C1": (28, 28, 6),
        "S2": (14, 14, 6),
        "C3": (10, 10, 16),
        "S4": (5, 5, 16),
        "C5": (1, 1, 120),
        "F6": (84,),
        "output": (10,),
    }


def test_scaled_tanh():
    np.testing.assert_allclose(scaled_tanh(jnp.array([-1.0, 0.0, 1.0])), [-1, 0, 1], atol=1e-4)
    assert abs(float(scaled_tanh(1e3)) - 1.7159) < 1e-6


def by_torch(params, images, dense):
    """Logits by PyTorch, in float64, each of C3's maps from its own inputs."""
    import torch
    from torch.nn import functional as F

    def squash(x):
        return 1.7159 * torch.tanh(2 * x / 3)

    def subsample(x, name):
        sums = sum(x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1))
        if dense:
            return sums / 4
        coefficient, bias = (params[name][k].reshape(-1, 1, 1) for k in ("coefficient", "bias"))
        return squash(sums * coefficient + bias)

    def conv(x, name):
        return squash(F.conv2d(x, params[name]["kernel"].permute(3, 2, 0, 1), params[name]["bias"]))

    x = F.pad(images, (2, 2, 2, 2)) * 1.275 - 0.1
    x = subsample(conv(x, "C1"), "S2")
    if dense:
        x = conv(x, "C3")
    else:
        kernels = params["C3"]["kernel"].split([len(inputs) for inputs in C3], dim=2)
        maps = [
            F.conv2d(x[:, inputs], kernel.permute(2, 0, 1)[None])
            for inputs, kernel in zip(C3, kernels, strict=True)
        ]
        x = squash(torch.cat(maps, 1) + params["C3"]["bias"].reshape(-1, 1, 1))
    x = conv(subsample(x, "S4"), "C5").flatten(1)
    x = squash(x @ params["F6"]["kernel"] + params["F6"]["bias"])
    if dense:
        return x @ params["output"]["kernel"] + params["output"]["bias"]
    return -((x[:, None] - torch.tensor(class_codes(10)).double()) ** 2).sum(-1)


@pytest.mark.parametrize("dense", [False, True])
def test_logits_and_all_gradients(dense):
    torch = pytest.importorskip("torch")
    network, params = variables(dense)
    rng = np.random.default_rng(0)
    images = rng.random((3, 28, 28, 1)).astype(np.float32)
    direction = rng.normal(size=(3, 10)).astype(np.float32)

    def along(params):
        logits = network.apply({"params": params}, images)
        return jnp.vdot(logits, direction), logits

    grads, logits = jax.jit(jax.grad(along, has_aux=True))(params)
    theirs = jax.tree.map(lambda p: torch.tensor(np.float64(p), requires_grad=True), params)
    wanted = by_torch(theirs, torch.tensor(images.transpose(0, 3, 1, 2)).double(), dense)
    (wanted * torch.tensor(direction)).sum().backward()
    np.testing.assert_allclose(logits, wanted.detach(), rtol=1e-5, atol=1e-5)
    published.compare(grads, jax.tree.map(lambda p: p.grad.numpy(), theirs), 1e-4)


def test_initial_values():
    """Appendix A: uniform to 2.4 / inputs of the unit."""
    init = jax.jit(LeNet5().init)
    params = init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]
    inputs = {"C1": 25, "C5": 400, "F6": 120}
    for name, number in inputs.items():
        kernel = np.asarray(params[name]["kernel"])
        assert np.abs(kernel).max() <= 2.4 / number
        spread = kernel.std() * np.sqrt(3) * number / 2.4
        assert abs(spread - 1) < 5 / np.sqrt(kernel.size)
    largest = np.abs(params["C3"]["kernel"]).max((0, 1))
    bounds = np.concatenate([[2.4 / (25 * len(maps))] * len(maps) for maps in C3])
    assert (largest <= bounds).all() and (largest > 0.7 * bounds).all()
    assert all(np.abs(params[name]["coefficient"]).max() <= 0.6 for name in ("S2", "S4"))
    assert np.abs(params["S4"]["bias"]).max() > 0.3


@pytest.mark.parametrize("num_classes", [2, 10, 47, 100])
def test_class_codes(num_classes):
    codes = class_codes(num_classes)
    assert codes.shape == (num_classes, 84) and set(np.unique(codes)) == {-1, 1}
    differing = (codes[:, None] != codes).sum(-1) + 84 * np.eye(num_classes, dtype=int)
    assert differing.min() >= 4
    np.testing.assert_array_equal(codes[:10], class_codes(10)[:num_classes])


def test_pictures_of_the_digits():
    """By what a drawn digit has: 0 and 8 are their own mirror images, 8 and 0 differ inside."""
    pictures = class_codes(10).reshape(10, 12, 7) > 0
    for digit in (0, 8):
        np.testing.assert_array_equal(pictures[digit], pictures[digit][:, ::-1])
    assert pictures[7][0].all() and pictures[1][:11, 3].all() and not pictures[0][4:7, 3].any()
    assert (pictures[8] & ~pictures[0])[5].any()
    assert not pictures[:, 11].any()


def test_the_nearest_code_has_the_largest_logit():
    network, params = variables()
    images = np.random.default_rng(0).random((20, 28, 28, 1))
    apply = jax.jit(lambda p: network.apply({"params": p}, images, capture_intermediates=True))
    logits, state = apply(params)
    f6 = np.asarray(scaled_tanh(state["intermediates"]["F6"]["__call__"][0]))
    distances = np.linalg.norm(f6[:, None] - class_codes(10), axis=-1)
    np.testing.assert_array_equal(distances.argmin(-1), logits.argmax(-1))
    np.testing.assert_allclose(-logits, distances**2, rtol=1e-4)


def test_the_loss_is_equation_9():
    """The distance to the right code, and the logarithm of exp(-j) + sum of exp(-distances)."""
    _, params = variables()
    rng = np.random.default_rng(0)
    images, labels = rng.random((20, 28, 28, 1), np.float32), rng.integers(0, 10, 20)
    distances = -np.asarray(LeNet5().apply({"params": params}, images), np.float64)
    right = distances[np.arange(20), labels]
    for j in (0.5 * right.mean(), 2 * right.mean()):
        loss, _ = training.weighted_loss(
            *(LeNet5(rubbish=float(j)), params, None, images, labels),
            *(np.full(20, 1 / 20, np.float32), jax.random.key(0)),
        )
        every = np.concatenate([distances, np.full((20, 1), j)], axis=-1)
        np.testing.assert_allclose(loss, np.mean(right + logsumexp(-every, axis=-1)), rtol=1e-4)
    predicted = LeNet5(rubbish=1.0).apply({"params": params}, images)
    np.testing.assert_array_equal(predicted, -distances.astype(np.float32))


@pytest.mark.parametrize("shape", [(28, 28, 1), (20, 31, 3)])
def test_smaller_images_are_padded_to_32(shape):
    network = LeNet5(num_classes=5)
    images = np.random.default_rng(0).random((2, *shape)).astype(np.float32)
    variables = published.fill(network, *shape)
    apply = jax.jit(network.apply)
    logits = apply(variables, images)
    assert logits.shape == (2, 5)
    before = [(32 - side) // 2 for side in shape[:2]]
    framed = np.zeros((2, 32, 32, shape[2]), np.float32)
    place = tuple(slice(b, b + side) for b, side in zip(before, shape[:2], strict=True))
    framed[:, *place] = images
    np.testing.assert_allclose(logits, apply(variables, framed), rtol=1e-5)


@pytest.mark.parametrize("shape", [(33, 32), (28, 64), (224, 224)])
def test_larger_images_are_refused(shape):
    message = f"lenet5 takes images of up to 32 x 32 pixels, not {shape[0]} x {shape[1]}"
    with pytest.raises(ValueError, match=message):
        published.shapes(LeNet5(), *shape, 1)


def test_bfloat16_is_close_to_float32():
    network, params = variables()
    images = np.random.default_rng(0).random((4, 28, 28, 1)).astype(np.float32)
    wanted = jax.jit(network.apply)({"params": params}, images)
    logits = jax.jit(LeNet5(dtype=jnp.bfloat16).apply)({"params": params}, images)
    assert logits.dtype == jnp.float32
    assert 0 < abs(logits - wanted).max() < 0.02 * abs(wanted).max()
