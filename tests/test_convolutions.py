"""Convolutions, pools and batch statistics of any size by the C++ kernels, against NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax import kernels, models, platforms, windows
from mnist_jax.normalization import BatchNorm
from tests import exact
from tests.needs import needs_kernels

pytestmark = pytest.mark.usefixtures("on_a_cpu")
RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def patches(padded, kernel, stride):
    """What each place of a kernel meets: i, j, and a view of the padded images."""
    down, across = (
        (side - size) // stride + 1
        for side, size in zip(padded.shape[1:3], kernel.shape[:2], strict=True)
    )
    for i, j in np.ndindex(*kernel.shape[:2]):
        rows = slice(i, i + stride * (down - 1) + 1, stride)
        yield i, j, padded[:, rows, j : j + stride * (across - 1) + 1 : stride]


def pad(images, padding):
    return np.pad(np.float64(images), ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0)))


def by_numpy(images, kernel, stride, padding, grad=None):
    """The convolution in float64; with `grad` the gradients of images and kernel."""
    padded, kernel = pad(images, padding), np.float64(kernel)
    if grad is None:
        return sum(patch @ kernel[i, j] for i, j, patch in patches(padded, kernel, stride))
    padded_grad, kernel_grad = np.zeros_like(padded), np.zeros_like(kernel)
    back = patches(padded_grad, kernel, stride)
    for (i, j, patch), (*_, patch_grad) in zip(patches(padded, kernel, stride), back, strict=True):
        kernel_grad[i, j] = np.tensordot(patch, grad, ((0, 1, 2),) * 2)
        patch_grad += grad @ kernel[i, j].T
    height, width = images.shape[1:3]
    inner = slice(padding, padding + height), slice(padding, padding + width)
    return padded_grad[:, *inner], kernel_grad


def check(convolve, images, kernel, stride, padding):
    out, vjp = jax.vjp(lambda *args: convolve(*args, stride, padding), images, kernel)
    wanted = by_numpy(images, kernel, stride, padding)
    grad = draw(*wanted.shape)
    assert exact.difference(out, wanted) < 1e-5
    for ours, right in zip(
        vjp(grad), by_numpy(images, kernel, stride, padding, np.float64(grad)), strict=True
    ):
        assert exact.difference(ours, right) < 1e-5


# n, height, width, channels, features, window, stride, padding
SHAPES = [
    (2, 9, 7, 16, 16, 3, 1, 1),
    (1, 3, 3, 8, 24, 3, 1, 0),
    (1, 1, 1, 8, 8, 3, 1, 1),
    (2, 6, 6, 16, 8, 3, 1, 2),
    (9, 8, 8, 64, 64, 3, 1, 1),
    (30, 5, 4, 24, 40, 3, 1, 1),  # more tiles than a block holds
    (1, 4, 6, 8, 8, 3, 1, 3),  # margins wider than Winograd's tiles take
    (2, 9, 7, 3, 16, 3, 1, 1),
    (2, 9, 7, 16, 5, 3, 1, 1),
    (3, 12, 11, 16, 32, 3, 2, 1),
    (2, 13, 13, 20, 130, 3, 2, 0),
    (2, 7, 8, 130, 20, 3, 1, 1),  # a window of more than is multiplied at a time
    (2, 7, 6, 16, 33, 1, 1, 0),
    (2, 7, 6, 16, 32, 1, 2, 0),  # some pixels are not seen
    (2, 8, 9, 5, 8, 2, 3, 0),
    (3, 32, 32, 1, 6, 5, 1, 0),
    (2, 14, 13, 6, 16, 5, 1, 0),
    (4, 5, 5, 16, 120, 5, 1, 0),
    (2, 9, 9, 96, 20, 5, 1, 2),
    (2, 23, 20, 3, 64, 7, 2, 3),
    (1, 43, 40, 3, 96, 11, 4, 0),
    (1, 12, 12, 1, 1, 7, 4, 1),
]


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES)
def test_convolution_and_gradients_are_numpys(shape):
    n, height, width, channels, features, window, stride, padding = shape
    images, kernel = draw(n, height, width, channels), draw(window, window, channels, features)
    assert kernels.take_windows(images, kernel)
    check(windows.convolve, images, kernel, stride, padding)


@pytest.mark.parametrize("shape", [SHAPES[3], SHAPES[9], SHAPES[13], SHAPES[14]])
def test_without_kernels_too(monkeypatch, shape):
    monkeypatch.setenv("MNIST_JAX_KERNELS", "off")
    n, height, width, channels, features, window, stride, padding = shape
    images, kernel = draw(n, height, width, channels), draw(window, window, channels, features)
    check(windows.convolve, images, kernel, stride, padding)


@needs_kernels
def test_no_images():
    out, vjp = jax.vjp(windows.convolve, jnp.zeros((0, 8, 8, 8)), jnp.asarray(draw(3, 3, 8, 8)))
    assert out.shape == (0, 6, 6, 8)
    images_grad, kernel_grad = vjp(out)
    assert images_grad.shape == (0, 8, 8, 8) and not kernel_grad.any()


@needs_kernels
@pytest.mark.parametrize(("channels", "stride"), [(8, 1), (16, 1), (24, 1), (5, 1), (16, 2)])
def test_where_all_inputs_are_zero_the_output_is_zero(channels, stride):
    images = draw(3, 14, 13, channels)
    images[:, :5] = 0
    images[:, :, 9:] = -0.0
    images[0] *= RNG.random((14, 13, 1)) < 0.1  # single pixels
    images[1, 8:12, 2:6, : channels - 1] = 0  # only the last channel is left
    kernel = draw(3, 3, channels, 16)
    out = windows.convolve(images, kernel, stride, 1)
    blank = by_numpy(np.abs(images), np.ones_like(kernel), stride, 1) == 0
    assert 100 < blank.sum() < blank.size
    np.testing.assert_array_equal(np.asarray(out) == 0, blank)


@needs_kernels
@pytest.mark.parametrize(("channels", "stride"), [(8, 1), (5, 1), (8, 2)])
def test_nan_stays_nan(channels, stride):
    images, kernel = draw(2, 9, 9, channels), draw(3, 3, channels, 8)
    images[0, 4, 4, 1] = np.nan
    out = windows.convolve(images, kernel, stride, 1)
    seen = np.isnan(by_numpy(images, kernel, stride, 1))
    assert seen.any() and np.isnan(out)[seen].all() and not np.isnan(out[1]).any()


@needs_kernels
def test_members_in_a_loop_on_two_devices():
    """As in training: each device its images, each member its kernel, a step after the other."""
    images, members = draw(2, 3, 9, 8, 8), draw(2, 3, 3, 8, 8) / 9

    def train(convolve, images):
        def loss(kernel, images):
            return jnp.sum(jnp.sin(convolve(convolve(images, kernel, 1, 1), kernel, 2, 1)))

        def step(members, _):
            grads = jax.vmap(jax.grad(loss), (0, None))(members, images)
            return members - 1e-3 * jax.lax.psum(grads, "devices"), None

        return jax.lax.scan(step, members, None, length=3)[0]

    def on_devices(convolve):
        mapped = jax.pmap(partial(train, convolve), "devices", devices=jax.devices("cpu")[:2])
        return mapped(images)[0]

    difference = exact.difference(on_devices(windows.convolve), on_devices(windows.convolve_by_xla))
    assert difference < 1e-5


@needs_kernels
def test_what_nobody_asks_for_is_left_out():
    images, kernel = draw(2, 6, 6, 3), draw(3, 3, 3, 8)
    with platforms.known("cpu"):
        grad = jax.jit(jax.grad(lambda k: windows.convolve(images, k, 1, 1).sum()))
        text = grad.lower(kernel).compile().as_text()
    assert "convolution_kernel_grad" in text and "convolution_images_grad" not in text


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_have_their_own_convolutions(platform):
    images, kernel = draw(2, 6, 6, 8), draw(3, 3, 8, 8)
    with platforms.known({"cuda": "gpu"}.get(platform, platform)):
        both = jax.jit(jax.grad(lambda *a: windows.convolve(*a, 2, 1).sum(), (0, 1)))
        text = both.trace(images, kernel).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.convolution") >= 2 and "mnist_jax." not in text
    assert "concatenate" not in text


def test_bfloat16_is_left_to_xla():
    images, kernel = (
        jnp.asarray(array, jnp.bfloat16) for array in (draw(2, 6, 6, 8), draw(3, 3, 8, 8))
    )
    assert not kernels.take_windows(images, kernel)
    out, vjp = jax.vjp(lambda *args: windows.convolve(*args, 1, 1), images, kernel)
    wide = [np.asarray(array, np.float32) for array in (images, kernel)]
    assert exact.difference(np.asarray(out, np.float32), by_numpy(*wide, 1, 1)) < 1e-2
    assert all(grad.dtype == jnp.bfloat16 for grad in vjp(out))


@pytest.mark.parametrize("name", ["lenet5", "alexnet", "googlenet", "resnet18", "resnet20"])
def test_initial_values_do_not_wait_for_the_kernels(monkeypatch, name):
    monkeypatch.setattr(kernels, "load", lambda: pytest.fail("waited for"))
    shape = (2, *models.PUBLISHED[name].image_shape)
    jax.eval_shape(models.create(name).init, jax.random.key(0), jnp.zeros(shape))


def pool_by_loops(images, window, stride, pads, grad):
    """Each window's maximum; the gradient goes to the first place that has it."""
    (top, bottom), (left, right) = pads
    widths = ((0, 0), (top, bottom), (left, right), (0, 0))
    padded = np.pad(images, widths, constant_values=-np.inf)
    out, padded_grad = np.zeros(grad.shape), np.zeros(padded.shape)
    for n, y, x, c in np.ndindex(*grad.shape):
        rows, columns = (
            slice(y * stride, y * stride + window),
            slice(x * stride, x * stride + window),
        )
        seen = padded[n, rows, columns, c]
        i, j = np.unravel_index(seen.argmax(), seen.shape)
        out[n, y, x, c] = seen[i, j]
        padded_grad[n, y * stride + i, x * stride + j, c] += grad[n, y, x, c]
    height, width = images.shape[1:3]
    return out, padded_grad[:, top : top + height, left : left + width]


@needs_kernels
@pytest.mark.parametrize(
    ("window", "stride", "padding", "round_up"),
    [(3, 2, 0, True), (3, 2, 1, False), (3, 1, 1, False), (2, 2, 0, True), (2, 3, 0, False)],
)
@pytest.mark.parametrize("channels", [8, 24])
def test_pools_are_numpys(window, stride, padding, round_up, channels):
    """With many ties: whole numbers, of which most are 0."""
    images = np.maximum(np.round(draw(2, 9, 8, channels)), 0)
    pool = windows.MaxPooling(window, stride, padding, round_up)
    assert kernels.take_channels(images)
    out, vjp = jax.vjp(lambda x: pool.apply({}, x), jnp.asarray(images))
    grad = draw(*out.shape)
    pads = [pool.pads(side) for side in images.shape[1:3]]
    wanted, wanted_grad = pool_by_loops(images, window, stride, pads, grad)
    np.testing.assert_array_equal(out, wanted)
    np.testing.assert_allclose(vjp(grad)[0], wanted_grad, atol=1e-6)


@needs_kernels
def test_pools_pass_nan_on():
    images = draw(1, 6, 6, 8)
    images[0, 2, 3, 5] = np.nan
    out = windows.MaxPooling(3, 1, 1).apply({}, images)
    np.testing.assert_array_equal(np.isnan(out).sum(), 9)


@needs_kernels
def test_pools_under_vmap():
    images, pool = draw(3, 2, 7, 7, 8), windows.MaxPooling(3, 2)

    def gradient(images):
        return jax.grad(lambda x: jnp.sum(jnp.sin(pool.apply({}, x))))(images)

    wanted = [gradient(part) for part in images]
    np.testing.assert_array_equal(jax.vmap(gradient)(images), wanted)


WEIGHTS = [None, np.array([1, 0, 0.5, 2, 1], np.float32)]


@needs_kernels
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("shape", [(5, 8), (5, 3, 3, 16), (5, 21, 20, 24), (5, 7, 136)])
def test_moments_are_numpys(shape, weights):
    values = draw(*shape) * np.linspace(0.1, 3, shape[-1], dtype=np.float32) + 1000
    values[1] = 0  # which counts for nothing where there are weights
    weights = np.ones(5, np.float32) if weights is None else weights
    assert kernels.take_channels(values)
    mean, deviations = kernels.channel_moments(values, weights)
    wide = np.float64(values).reshape(5, -1, shape[-1])
    places = np.repeat(weights, wide.shape[1])
    wide = wide.reshape(-1, shape[-1])
    right = np.average(wide, axis=0, weights=places)
    np.testing.assert_allclose(mean, right, rtol=1e-6)
    squares = (places[:, None] * (wide - right) ** 2).sum(0)
    np.testing.assert_allclose(deviations, squares, rtol=2e-3)


@pytest.mark.parametrize("switch", [pytest.param("on", marks=needs_kernels), "off"])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_gradients_of_batch_norm_are_those_of_its_formula(monkeypatch, switch, weights):
    """In float64, as JAX derives them."""
    monkeypatch.setenv("MNIST_JAX_KERNELS", switch)
    values, direction = draw(5, 6, 5, 8) * 3 + 2, draw(5, 6, 5, 8)
    params = {"scale": draw(8), "bias": draw(8)}
    stats = {"mean": jnp.zeros(8), "var": jnp.ones(8)}
    assert kernels.take_channels(values) == (switch == "on")

    def ours(params, values):
        variables = {"params": params, "batch_stats": stats}
        out, _ = BatchNorm().apply(variables, values, True, weights, mutable=["batch_stats"])
        return jnp.vdot(out, direction)

    def formula(params, values):
        shares = jnp.ones(5) if weights is None else jnp.asarray(weights, values.dtype)
        shares = (shares / shares.sum() / 30)[:, None, None, None]
        mean = (values * shares).sum((0, 1, 2))
        var = ((values - mean) ** 2 * shares).sum((0, 1, 2))
        out = (values - mean) / jnp.sqrt(var + 1e-5) * params["scale"] + params["bias"]
        return jnp.vdot(out, direction)

    found = jax.grad(ours, (0, 1))(params, values)
    with jax.enable_x64(True):
        wide = jax.tree.map(np.float64, (params, values))
        wanted = jax.device_get(jax.grad(formula, (0, 1))(*wide))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert exact.difference(a, b) < 1e-5
