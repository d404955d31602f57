"""Layers against XLA's own convolution and pooling, and against counting."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mnist_jax import layers, platforms
from tests import exact


def reference(images, kernel, strides, padding):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=numbers)


@pytest.fixture(params=["cpu", "gpu", "tpu"])
def backend(request):
    """Convolutions and pools as written for a platform; all of them run on a CPU as well."""
    with platforms.known(request.param):
        yield request.param


def draw(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


CASES = [
    ((9, 7), (kernel, kernel), (stride, stride), padding)
    for kernel in range(1, 8)
    for stride in (1, 2)
    for padding in ("SAME", "VALID")
] + [
    ((28, 28), (3, 3), (1, 1), "SAME"),
    ((8, 11), (2, 5), (2, 1), "SAME"),
    ((8, 11), (5, 2), (1, 3), "VALID"),
    ((5, 5), (1, 1), (3, 3), "SAME"),
    ((10, 10), (2, 2), (4, 4), "VALID"),
]


@pytest.mark.parametrize(("size", "kernel_size", "strides", "padding"), CASES)
def test_conv2d_and_its_gradients_are_lax_convs(backend, size, kernel_size, strides, padding):
    images, kernel = draw(0, (2, *size, 3), (*kernel_size, 3, 4))

    @functools.partial(jax.jit, static_argnums=0)
    def output_and_gradients(conv, images, kernel):
        out, vjp = jax.vjp(lambda x, k: conv(x, k, strides, padding), images, kernel)
        return out, *vjp(jnp.sin(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape))

    ours = output_and_gradients(layers.conv2d, images, kernel)
    theirs = output_and_gradients(reference, images, kernel)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@functools.cache
def in_steps(padding):
    """Output and gradients; what is compiled is kept, for each platform apart."""

    def steps(images, kernel, bias):
        return nn.relu(layers.max_pool(layers.conv2d(images, kernel, (1, 1), padding) + bias))

    def output_and_gradients(images, kernel, bias, grad):
        out, vjp = jax.vjp(steps, images, kernel, bias)
        return out, *vjp(grad)

    return jax.jit(output_and_gradients)


@pytest.mark.parametrize("kind", exact.KINDS)
@pytest.mark.parametrize(
    ("shape", "padding"), [((28, 28, 1, 3, 8), "SAME"), ((13, 11, 8, 3, 16), "VALID")]
)
def test_blank_and_repeated_pixels_are_numpys(backend, kind, shape, padding):
    """No gradient comes back where values are so close that rounding may decide between them."""
    height, width, channels, size, features = shape
    images = exact.draw(kind, channels)[:, :height, :width]
    kernel, bias = draw(0, (size, size, channels, features), (features,))
    pooled = exact.pool(images, kernel, bias, padding)
    close = pooled.close()
    assert close.mean() < 2e-3
    grad = np.sin(np.arange(pooled.output.size)).reshape(pooled.output.shape)
    grad = np.where(close, 0, grad)
    ours = in_steps(padding)(images, kernel, bias, jnp.float32(grad))
    gradients = exact.gradients(images, kernel, pooled.passing, grad, padding)
    for a, b in zip(ours, (pooled.output, *gradients), strict=True):
        assert exact.difference(a, b) < 1e-5


def test_conv2d_is_a_sum_of_products(backend):
    images, kernel = draw(0, (2, 6, 5, 3), (3, 2, 3, 4))
    out = layers.conv2d(images, kernel, (1, 1), "VALID")
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 2), axis=(1, 2))
    wanted = np.einsum("nyxcij,ijcf->nyxf", windows, kernel)
    np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shared_images", [True, False])
def test_conv2d_under_vmap(backend, shared_images):
    images, kernels = draw(0, (3, 2, 6, 5, 2), (3, 3, 3, 2, 4))
    images = images[0] if shared_images else images
    axes = (None if shared_images else 0, 0)

    def loss(conv):
        return jax.vmap(jax.grad(lambda x, k: jnp.sum(jnp.sin(conv(x, k))), (0, 1)), axes)

    ours = loss(lambda x, k: layers.conv2d(x, k, (1, 1), "SAME"))(images, kernels)
    theirs = loss(lambda x, k: reference(x, k, (1, 1), "SAME"))(images, kernels)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_conv2d_in_bfloat16():
    images, kernel = (x.astype(jnp.bfloat16) for x in draw(0, (2, 8, 8, 3), (3, 3, 3, 4)))
    exact = reference(images.astype(jnp.float32), kernel.astype(jnp.float32), (1, 1), "SAME")
    out, vjp = jax.vjp(lambda x, k: layers.conv2d(x, k, (1, 1), "SAME"), images, kernel)
    assert out.dtype == jnp.bfloat16 and {g.dtype for g in vjp(out)} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_allclose(out.astype(jnp.float32), exact, rtol=2**-7, atol=0.05)


def test_conv_module_is_linens_conv():
    (images,) = draw(0, (2, 9, 9, 3))
    ours = layers.Conv(5, (3, 3), strides=(2, 2), bias_init=nn.initializers.normal(1.0))
    theirs = nn.Conv(5, (3, 3), strides=(2, 2))
    variables = ours.init(jax.random.key(0), images)
    wanted = theirs.apply(variables, images)
    np.testing.assert_allclose(ours.apply(variables, images), wanted, rtol=1e-4, atol=1e-4)


def test_conv_module_computes_in_its_dtype_with_float32_parameters():
    (images,) = draw(0, (2, 9, 9, 3))
    conv = layers.Conv(5, dtype=jnp.bfloat16)
    out, variables = conv.init_with_output(jax.random.key(0), images)
    assert out.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(("size", "window"), [((8, 6), 2), ((7, 7), 2), ((5, 9), 2), ((7, 8), 3)])
def test_max_pool_is_reduce_window(backend, size, window):
    (images,) = draw(0, (2, *size, 3))
    shape = (1, window, window, 1)

    def wanted(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, shape, shape, "SAME")

    np.testing.assert_array_equal(layers.max_pool(images, window), wanted(images))
    (weights,) = draw(1, wanted(images).shape)
    ours = jax.grad(lambda x: jnp.sum(layers.max_pool(x, window) * weights))(images)
    theirs = jax.grad(lambda x: jnp.sum(wanted(x) * weights))(images)
    np.testing.assert_allclose(ours, theirs)  # no two pixels of these are alike


def test_max_pool_shares_the_gradient_among_ties(backend):
    grad = jax.grad(lambda x: layers.max_pool(x).sum())(jnp.array([[[[2.0], [2.0]], [[1.0], [0]]]]))
    np.testing.assert_allclose(grad[0, :, :, 0], [[0.5, 0.5], [0, 0]])


def test_max_pool_at_an_odd_edge_shares_among_what_is_there(backend):
    grad = jax.grad(lambda x: layers.max_pool(x).sum())(-jnp.ones((1, 3, 3, 1)))
    wanted = [[1 / 4, 1 / 4, 1 / 2], [1 / 4, 1 / 4, 1 / 2], [1 / 2, 1 / 2, 1]]
    np.testing.assert_allclose(grad[0, :, :, 0], wanted)


def test_max_pool_in_bfloat16(backend):
    images = draw(0, (2, 7, 7, 3))[0].astype(jnp.bfloat16)
    out, vjp = jax.vjp(layers.max_pool, images)
    assert out.dtype == vjp(out)[0].dtype == jnp.bfloat16
    np.testing.assert_array_equal(out, layers.max_pool(images.astype(jnp.float32)))


def pool_by_hand(image, window, strides, padding):
    """Maxima and gradient of one image `[height, width, channels]`, window by window, in NumPy.

    The gradient is that of the sum of squares of the maxima.
    """
    down, across, channels = image.shape
    if padding == "SAME":
        outs = [-(-side // stride) for side, stride in zip((down, across), strides, strict=True)]
    else:
        outs = [
            (side - size) // stride + 1
            for side, size, stride in zip((down, across), window, strides, strict=True)
        ]
    missing = [
        max((out - 1) * stride + size - side, 0) if padding == "SAME" else 0
        for out, stride, size, side in zip(outs, strides, window, (down, across), strict=True)
    ]
    maxima, grad = np.zeros((*outs, channels)), np.zeros(image.shape)
    for i, j, c in np.ndindex(*maxima.shape):
        top, left = i * strides[0] - missing[0] // 2, j * strides[1] - missing[1] // 2
        rows = slice(max(top, 0), top + window[0])
        columns = slice(max(left, 0), left + window[1])
        seen = image[rows, columns, c]
        maxima[i, j, c] = seen.max()
        largest = seen == seen.max()
        grad[rows, columns, c] += 2 * seen.max() * largest / largest.sum()
    return maxima, grad


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("size", "window", "strides"),
    [
        ((3, 3), 2, 1),
        ((7, 7), 3, 2),
        ((7, 8), 2, None),
        ((6, 9), (3, 2), (1, 3)),
        ((6, 9), (3, 2), None),
        ((8, 5), 1, 2),
        ((9, 4), 2, 3),
        ((4, 4), 4, 1),
    ],
)
def test_max_pool_takes_any_window_and_strides(backend, size, window, strides, padding):
    rng = np.random.default_rng(0)
    images = rng.integers(-3, 4, (2, *size, 3)).astype(np.float32)  # many ties
    pool = layers.MaxPool(window, strides, padding)
    out, grad = jax.value_and_grad(lambda x: jnp.sum(pool.apply({}, x) ** 2))(images)
    pooled = layers.max_pool(images, window, strides, padding)
    of_pair = [side if isinstance(side, tuple) else (side, side) for side in (window, strides)]
    window, strides = of_pair[0], of_pair[0] if strides is None else of_pair[1]
    for image, ours, its_grad in zip(images, pooled, grad, strict=True):
        maxima, wanted = pool_by_hand(image, window, strides, padding)
        np.testing.assert_array_equal(ours, maxima)
        np.testing.assert_allclose(its_grad, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out, np.sum(np.square(pooled)), rtol=1e-5)


def test_lab_1_s_pool():
    image = jnp.array([[4.0, 3.0], [2.0, 1.0]]).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(layers.max_pool(image, 2, 1)[0, ..., 0], [[4, 3], [2, 1]])
    np.testing.assert_array_equal(layers.max_pool(image, 2, 1, "VALID")[0, ..., 0], [[4]])


def test_a_pool_of_other_strides_or_padding_is_not_taken_for_a_halving_one():
    """Of a convolution, pool and relu that may be one kernel."""
    (images,) = draw(0, (2, 9, 9, 3))

    class Network(nn.Module):
        pool: layers.MaxPool

        @nn.compact
        def __call__(self, images):
            return layers.conv_pool_relu(layers.Conv(4, use_bias=False), self.pool, images)

    for pool in (layers.MaxPool(2, 1), layers.MaxPool((2, 1)), layers.MaxPool(2, padding="VALID")):
        network = Network(pool)
        variables = network.init(jax.random.key(0), images)
        kernel = variables["params"]["Conv_0"]["kernel"]
        convolved = np.asarray(reference(images, kernel, (1, 1), "SAME"))
        window, strides, padding = pool.geometry
        wanted = [np.maximum(pool_by_hand(x, window, strides, padding)[0], 0) for x in convolved]
        np.testing.assert_allclose(network.apply(variables, images), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "window must be a number of pixels from 1 on, or two, not 0"),
        ((2.5,), "window .* not 2.5"),
        (((2, 2, 2),), "window .* not \\(2, 2, 2\\)"),
        ((2, 0), "strides .* not 0"),
        ((2, (1, -1)), "strides .* not \\(1, -1\\)"),
        ((2, None, "same"), 'padding must be "SAME" or "VALID", not \'same\''),
        ((9, 1, "VALID"), "window of 9 x 9 pixels does not fit into images of 8 x 8"),
    ],
)
def test_max_pool_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        layers.max_pool(jnp.zeros((1, 8, 8, 1)), *arguments)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 0.7, 0.99])
def test_dropout_drops_its_rate_and_keeps_the_mean(rate):
    n = 400_001  # not a multiple of 4
    out = np.asarray(layers.dropout(jnp.ones(n), rate, jax.random.key(0)))
    rounded = round(rate * 256) / 256
    assert abs((out == 0).mean() - rounded) < 5 * np.sqrt(rounded * (1 - rounded) / n) + 1e-9
    np.testing.assert_allclose(out[out > 0], 1 / (1 - rounded), rtol=1e-6)


def test_dropout_draws_independently_along_every_axis():
    out = np.asarray(layers.dropout(jnp.ones((256, 32, 32)), 0.5, jax.random.key(0))) > 0
    for axis in range(3):
        same = (np.roll(out, 1, axis) == out).mean()
        assert abs(same - 0.5) < 5 * 0.5 / np.sqrt(out.size)


def test_dropout_depends_on_its_key_alone():
    x = jnp.ones(1000)
    one, again, other = (layers.dropout(x, 0.5, jax.random.key(k)) for k in (0, 0, 1))
    assert (one == again).all() and not (one == other).all()


def test_dropout_module_acts_in_training_only():
    x = jnp.ones((4, 8))
    module = layers.Dropout(0.5)
    np.testing.assert_array_equal(module.apply({}, x, False), x)
    dropped = module.apply({}, x, True, rngs={"dropout": jax.random.key(0)})
    assert set(np.unique(dropped)) == {0.0, 2.0}
