"""Convolution and pooling with any window, stride and padding, against PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax import platforms
from mnist_jax.windows import Convolution, MaxPooling, MeanPooling, convolve
from tests import published

RNG = np.random.default_rng(0)


def torch_images(images):
    torch = pytest.importorskip("torch")
    return torch.tensor(np.moveaxis(images, -1, 1), requires_grad=True)


@pytest.mark.parametrize(
    ("window", "stride", "padding", "groups"),
    [(11, 4, 0, 1), (7, 2, 3, 1), (3, 2, 1, 1), (1, 2, 0, 1), (5, 1, 2, 2), (3, 1, 1, 3)],
)
def test_convolution_and_its_gradients(window, stride, padding, groups):
    images = RNG.normal(size=(2, 17, 14, 6)).astype(np.float32)
    theirs = torch_images(images)
    from torch.nn import functional

    layer = Convolution(12, window, stride, padding, groups)
    params = published.fill(layer, 17, 14, 6)["params"]
    kernel = theirs.new_tensor(np.transpose(params["kernel"], (3, 2, 0, 1))).requires_grad_()
    bias = theirs.new_tensor(np.array(params["bias"])).requires_grad_()
    wanted = functional.conv2d(theirs, kernel, bias, stride, padding, groups=groups)
    out = jax.jit(layer.apply)({"params": params}, images)
    np.testing.assert_allclose(
        np.moveaxis(np.array(out), -1, 1), wanted.detach(), rtol=1e-4, atol=1e-4
    )
    sides = [(side + 2 * padding - window) // stride + 1 for side in (17, 14)]
    assert out.shape == (2, *sides, 12)

    direction = RNG.normal(size=out.shape).astype(np.float32)
    wanted.backward(theirs.new_tensor(np.moveaxis(direction, -1, 1)))
    along = jax.grad(lambda p, x: jnp.vdot(layer.apply({"params": p}, x), direction), (0, 1))
    grads, images_grad = jax.jit(along)(params, images)
    close = {"rtol": 1e-3, "atol": 1e-3}
    np.testing.assert_allclose(np.moveaxis(np.array(images_grad), -1, 1), theirs.grad, **close)
    np.testing.assert_allclose(np.transpose(grads["kernel"], (3, 2, 0, 1)), kernel.grad, **close)
    np.testing.assert_allclose(grads["bias"], bias.grad, **close)


def test_without_bias():
    assert set(published.shapes(Convolution(4, 3, use_bias=False), 5, 5, 2)["params"]) == {"kernel"}


@pytest.mark.parametrize("axes", [(0, 0), (None, 0), (0, None)])
def test_on_a_gpu_each_member_has_a_convolution_of_its_own(axes):
    """Of images and kernels, one of each a member or the same for all."""
    shapes = {"images": (2, 9, 8, 5), "kernel": (3, 3, 5, 7)}
    arrays = [
        RNG.normal(size=shape if axis is None else (3, *shape)).astype(np.float32)
        for shape, axis in zip(shapes.values(), axes, strict=True)
    ]
    of_one = jax.value_and_grad(lambda *x: jnp.sum(jnp.sin(convolve(*x, 2, 1))), (0, 1))
    with platforms.known("gpu"):
        of_all = jax.jit(jax.vmap(of_one, axes))
        found, text = of_all(*arrays), of_all.lower(*arrays).as_text()
    for i in range(3):
        mine = [x if axis is None else x[i] for x, axis in zip(arrays, axes, strict=True)]
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(of_one(*mine)), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-4)
    if axes[1] == 0:
        assert "group_count = 3" not in text


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize(
    ("window", "stride", "padding", "round_up"),
    [(3, 2, 0, False), (3, 2, 0, True), (2, 2, 0, True), (3, 2, 1, False), (3, 1, 1, False)],
)
def test_max_pooling(side, window, stride, padding, round_up):
    images = RNG.normal(size=(2, side, side + 3, 3)).astype(np.float32) - 10
    theirs = torch_images(images)
    from torch.nn import functional

    wanted = functional.max_pool2d(theirs, window, stride, padding, ceil_mode=round_up)
    pool = MaxPooling(window, stride, padding, round_up)
    out = pool.apply({}, images)
    np.testing.assert_array_equal(np.moveaxis(np.array(out), -1, 1), wanted.detach())
    direction = RNG.normal(size=out.shape).astype(np.float32)
    wanted.backward(theirs.new_tensor(np.moveaxis(direction, -1, 1)))
    grad = jax.jit(jax.grad(lambda x: jnp.vdot(pool.apply({}, x), direction)))(images)
    np.testing.assert_allclose(np.moveaxis(np.array(grad), -1, 1), theirs.grad, rtol=1e-5)


def test_mean_pooling():
    images = RNG.normal(size=(2, 14, 11, 3)).astype(np.float32)
    out = MeanPooling(5, 3).apply({}, images)
    assert out.shape == (2, 4, 3, 3)
    np.testing.assert_allclose(out[1, 2, 1], images[1, 6:11, 3:8].mean((0, 1)), rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Convolution(4, 3, groups=2), "groups must divide 3 channels and 4 features.* 2 does not"),
        (Convolution(4, 3, groups=3), "groups must divide 3 channels and 4 features.* 3 does not"),
        (Convolution(4, 11), "window of 11 pixels does not fit into 8 with 0 padded"),
        (Convolution(4, 11, padding=1), "window of 11 pixels does not fit into 8 with 1 padded"),
        (MaxPooling(9, 2), "window of 9 pixels does not fit"),
        (MaxPooling(9, 2, round_up=True), "window of 9 pixels does not fit"),
        (MeanPooling(9, 2), "window of 9 pixels does not fit"),
    ],
)
def test_what_does_not_fit(layer, message):
    with pytest.raises(ValueError, match=message):
        published.shapes(layer, 8, 9, 3)
