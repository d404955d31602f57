"""The C++ kernels against XLA and NumPy; how they are built, and done without."""

import os
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mnist_jax import kernels, layers, models, parallel
from tests import exact
from tests.needs import needs_kernels

pytestmark = pytest.mark.usefixtures("on_a_cpu")


def in_steps(images, kernel, bias, padding):
    """Convolution, relu and pooling by XLA, in the lab's order."""
    numbers = ("NHWC", "HWIO", "NHWC")
    x = lax.conv_general_dilated(images, kernel, (1, 1), padding, dimension_numbers=numbers)
    square = (1, 2, 2, 1)
    return lax.reduce_window(jax.nn.relu(x + bias), -jnp.inf, lax.max, square, square, "SAME")


def draw(n, height, width, channels, size, features):
    rng = np.random.default_rng(0)
    shapes = (n, height, width, channels), (size, size, channels, features), (features,)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def output_and_gradients(function, images, kernel, bias, padding):
    """The gradient that comes back is 0 at two places of three, as behind dropout."""
    out, vjp = jax.vjp(lambda *args: function(*args, padding), images, kernel, bias)
    grad = jnp.sin(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape)
    return out, *vjp(jnp.where(grad > 0.5, grad, 0))


def assert_equal_up_to_rounding(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-5 * float(jnp.abs(b).max()))


SHAPES = [
    ((3, 28, 28, 1, 3, 32), "SAME"),
    ((2, 28, 28, 1, 5, 24), "VALID"),
    ((2, 9, 11, 1, 5, 8), "SAME"),
    ((1, 3, 3, 1, 3, 8), "VALID"),
    ((5, 14, 14, 32, 3, 64), "SAME"),
    ((20, 7, 7, 64, 3, 128), "SAME"),  # more tiles than a block holds
    ((2, 12, 12, 24, 3, 32), "VALID"),
    ((7, 5, 9, 8, 3, 8), "SAME"),
    ((1, 3, 3, 8, 3, 16), "VALID"),
    ((3, 6, 4, 16, 3, 40), "SAME"),
]


@needs_kernels
@pytest.mark.parametrize(("shape", "padding"), SHAPES)
def test_output_and_gradients_are_xlas(shape, padding):
    images, kernel, bias = draw(*shape)
    assert kernels.take_convolution(images, kernel)
    ours = output_and_gradients(layers._in_one_pass, images, kernel, bias, padding)
    theirs = output_and_gradients(in_steps, images, kernel, bias, padding)
    assert_equal_up_to_rounding(ours, theirs)


LAYERS = [
    ((28, 28, 1, 3, 32), "SAME"),
    ((28, 28, 1, 5, 24), "VALID"),
    ((27, 25, 1, 3, 8), "VALID"),
    ((14, 14, 32, 3, 64), "SAME"),
    ((14, 14, 24, 3, 32), "VALID"),
    ((13, 11, 8, 3, 40), "SAME"),
]


def draw_layer(kind, shape):
    """Images of a kind, a kernel and its bias."""
    height, width, channels, *_ = shape
    _, kernel, bias = draw(1, *shape)
    return jnp.asarray(exact.draw(kind, channels)[:, :height, :width]), kernel, bias


@needs_kernels
@pytest.mark.parametrize("kind", exact.KINDS)
@pytest.mark.parametrize(("shape", "padding"), LAYERS)
def test_blank_and_repeated_pixels_are_numpys(kind, shape, padding):
    """No gradient comes back where values are so close that rounding may decide between them."""
    images, kernel, bias = draw_layer(kind, shape)
    pooled = exact.pool(images, kernel, bias, padding)
    close = pooled.close()
    assert close.mean() < 2e-3
    out, places = kernels.conv_pool_relu(images, kernel, bias, padding)
    assert exact.difference(out, pooled.output) < 1e-5
    np.testing.assert_array_equal(np.where(close, pooled.places, places), pooled.places)
    grad = np.sin(np.arange(out.size)).reshape(out.shape)
    grad = jnp.asarray(np.where(close, 0, grad), jnp.float32)
    ours = kernels.conv_pool_relu_gradients(images, kernel, places, grad, padding)
    expected = exact.gradients(images, kernel, pooled.passing, grad, padding)
    for a, b in zip(ours, expected, strict=True):
        if a is not None:  # XLA's, of images of one channel
            assert exact.difference(a, b) < 1e-5


@needs_kernels
@pytest.mark.parametrize(("shape", "padding"), LAYERS)
def test_outputs_that_see_zeros_are_their_bias(shape, padding):
    """Zeros of both signs. Where an output sees a dot it is far below 0."""
    images, kernel, bias = draw_layer("dots", shape)
    signs = jnp.where(jnp.arange(len(images)) % 2, 1.0, -1.0)[:, None, None, None]
    images, kernel = jnp.where(images > 0, 1.0, 0.0 * signs), -jnp.abs(kernel) - 10
    pooled = exact.pool(images, kernel, 0 * bias, padding)
    sees_zeros = pooled.values == 0
    some = sees_zeros.any(axis=3)
    assert 0.1 < some.mean() < 0.99
    out, places = kernels.conv_pool_relu(images, kernel, bias, padding)
    np.testing.assert_array_equal(out, np.where(some, np.maximum(bias, 0), 0))
    bits = (sees_zeros << np.arange(4)[:, None]).sum(axis=3)
    np.testing.assert_array_equal(places, np.where(bias > 0, bits, 0))


@needs_kernels
@pytest.mark.parametrize("channels", [1, 8])
def test_places_of_the_maximum(channels):
    """A kernel that passes the image on: squares of (2, 1, 0, 0), (1, 3, 3, 0) and of zeros."""
    image = (
        jnp.zeros((1, 2, 6, channels)).at[0, :, :4, 0].set(jnp.array([[2, 1, 1, 3], [0, 0, 3, 0]]))
    )
    kernel = jnp.zeros((3, 3, channels, 8)).at[1, 1, 0, 0].set(1.0)
    pooled, places = kernels.conv_pool_relu(image, kernel, jnp.zeros(8), "SAME")
    np.testing.assert_allclose(pooled[0, 0, :, 0], [2, 3, 0], atol=1e-5)
    assert places[0, 0, 0, 0] == 1 << 0 and places[0, 0, 2, 0] == 0
    assert places[0, 0, 1, 0] in ([1 << 1 | 1 << 2] if channels == 1 else [1 << 1, 1 << 2, 6])


@needs_kernels
@pytest.mark.parametrize("channels", [1, 8])
def test_places_that_tie_share_the_gradient(channels):
    images, kernel, _ = draw(2, 6, 5, channels, 3, 8)
    images, bias = jnp.zeros_like(images), jnp.full(8, 0.5)

    def apart(images, kernel, bias, padding):
        return jax.nn.relu(layers.max_pool(layers.conv2d(images, kernel, (1, 1), padding) + bias))

    ours = output_and_gradients(layers._in_one_pass, images, kernel, bias, "SAME")
    theirs = output_and_gradients(apart, images, kernel, bias, "SAME")
    assert float(jnp.abs(theirs[1]).max()) > 0.1
    assert_equal_up_to_rounding(ours, theirs)


@needs_kernels
@pytest.mark.parametrize("channels", [1, 8])
def test_nothing_passes_where_relu_is_off(channels):
    images, kernel, bias = draw(2, 6, 5, channels, 3, 8)
    ours = output_and_gradients(layers._in_one_pass, images, kernel, bias - 1000, "SAME")
    assert all(not leaf.any() for leaf in ours)


@needs_kernels
@pytest.mark.parametrize("channels", [1, 8])
def test_nan_stays_nan(channels):
    images, kernel, bias = draw(2, 6, 5, channels, 3, 8)
    pixel = layers._in_one_pass(images.at[0, 2, 2].set(jnp.nan), kernel, bias, "SAME")
    assert jnp.isnan(pixel[0, :2, :2]).all()
    assert jnp.isnan(layers._in_one_pass(images + jnp.nan, kernel, bias, "SAME")).all()
    out = layers._in_one_pass(images, kernel.at[1, 1, 0, 3].set(jnp.nan), bias, "SAME")
    assert jnp.isnan(out[..., 3]).all() and not jnp.isnan(out[..., :3]).any()


@needs_kernels
@pytest.mark.parametrize("channels", [1, 8])
def test_nan_comes_back(channels):
    images, kernel, bias = draw(2, 6, 5, channels, 3, 8)
    out, vjp = jax.vjp(lambda *args: layers._in_one_pass(*args, "SAME"), images, kernel, bias)
    place = (1, 1, 1, jnp.argmax(out[1, 1, 1]))
    _, kernel_grad, bias_grad = vjp(jnp.ones_like(out).at[place].set(jnp.nan))
    assert jnp.isnan(kernel_grad[..., place[-1]]).all() and jnp.isnan(bias_grad[place[-1]])
    assert jnp.isnan(kernel_grad).sum() == 9 * channels and jnp.isnan(bias_grad).sum() == 1


@needs_kernels
def test_under_vmap():
    images, kernel, bias = draw(4, 6, 6, 8, 3, 16)
    kernel = jnp.stack([kernel, -kernel])

    def gradients(function):
        def loss(images, kernel, bias):
            return jnp.sum(jnp.sin(function(images, kernel, bias, "SAME")))

        return jax.vmap(jax.grad(loss, (0, 1, 2)), (None, 0, None))(images, kernel, bias)

    assert_equal_up_to_rounding(gradients(layers._in_one_pass), gradients(in_steps))


def draw_product(n, inputs, outputs):
    """Inputs, two of three of them 0, and a kernel."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(n, inputs)), rng.normal(size=(inputs, outputs))
    x *= rng.random(x.shape) < 1 / 3
    return jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)


PRODUCTS = [
    (7, 100, 136),
    (1, 64, 64),
    (100, 625, 625),
    (300, 320, 72),  # more images, and more inputs, than are summed at once
    (3, 1024, 1024),  # a gradient that is written past the caches
    (3, 1024, 1040),  # the same, whose columns are no multiple of a panel
]


@needs_kernels
@pytest.mark.parametrize("shape", PRODUCTS)
def test_product_and_gradients_are_numpys(shape):
    x, kernel = draw_product(*shape)
    assert kernels.take_product(x, kernel)
    grad, _ = draw_product(shape[0], shape[2], 1)
    ours = kernels.matmul(x, kernel), *kernels.matmul_gradients(x, kernel, grad)
    wide = [np.asarray(array, np.float64) for array in (x, kernel, grad)]
    expected = wide[0] @ wide[1], wide[2] @ wide[1].T, wide[0].T @ wide[2]
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * max(np.abs(b).max(initial=0), 1))


@needs_kernels
def test_nan_comes_through_a_product():
    x, kernel = draw_product(4, 64, 64)
    out, vjp = jax.vjp(layers.matmul, x.at[1, 2].set(jnp.nan), kernel)
    rows = np.arange(4)[:, None] + np.zeros(64)
    np.testing.assert_array_equal(jnp.isnan(out), rows == 1)
    x_grad, kernel_grad = vjp(jnp.ones((4, 64)).at[3, 5].set(jnp.nan))
    np.testing.assert_array_equal(jnp.isnan(x_grad), rows == 3)
    met = (np.asarray(x)[3] != 0)[:, None] & (np.arange(64) == 5) | (np.arange(64) == 2)[:, None]
    np.testing.assert_array_equal(jnp.isnan(kernel_grad), met)


@needs_kernels
def test_product_under_vmap():
    x, kernel = draw_product(6, 64, 72)
    stacked = jnp.stack([kernel, 2 * kernel])
    out, vjp = jax.vjp(lambda k: jax.vmap(layers.matmul, (None, 0))(x, k), stacked)
    np.testing.assert_allclose(out[1], 2 * out[0], rtol=1e-6)
    np.testing.assert_allclose(out[0], np.asarray(x) @ kernel, atol=1e-4)
    np.testing.assert_allclose(vjp(jnp.ones_like(out))[0][1, :, 0], x.sum(axis=0), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 64, 63), jnp.float32),
        ((2, 63, 64), jnp.float32),
        ((0, 64, 64), jnp.float32),
        ((2, 64, 64), jnp.bfloat16),
    ],
)
def test_products_they_do_not_take(shape, dtype):
    assert not kernels.take_product(*(array.astype(dtype) for array in draw_product(*shape)))


@pytest.mark.parametrize("shapes", [((4, 128), (256, 64)), ((4, 64), (64,))])
def test_products_that_do_not_fit_are_left_to_xla(shapes):
    x, kernel = (jnp.ones(shape) for shape in shapes)
    assert not kernels.take_product(x, kernel)


@needs_kernels
def test_images_of_other_channels_are_refused_by_xla():
    images, kernel, _ = draw(2, 8, 8, 8, 3, 8)
    assert not kernels.take_convolution(images[..., :4], kernel)


@needs_kernels
def test_a_network_uses_them_unless_it_is_watched():
    network, images = models.create("layers"), jnp.ones((2, 28, 28, 1))
    variables = network.init(jax.random.key(0), images)

    def calls(**options):
        return str(jax.make_jaxpr(lambda v: network.apply(v, images, **options))(variables))

    assert calls().count("mnist_jax.conv_pool_relu") == 3
    assert calls().count("mnist_jax.matmul") == 1
    assert "mnist_jax.conv_pool_relu" not in calls(mutable=["intermediates"])


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 8, 8, 8, 4, 8), jnp.float32),
        ((2, 8, 8, 8, 5, 8), jnp.float32),
        ((2, 8, 8, 12, 3, 8), jnp.float32),
        ((2, 8, 8, 8, 3, 12), jnp.float32),
        ((2, 2, 8, 8, 3, 8), jnp.float32),
        ((2, 8, 8, 8, 3, 8), jnp.bfloat16),
    ],
)
def test_what_they_do_not_take(shape, dtype):
    images, kernel, _ = (array.astype(dtype) for array in draw(*shape))
    assert not kernels.take_convolution(images, kernel)


def test_not_where_one_device_has_several_cores(monkeypatch):
    images, kernel, _ = draw(2, 8, 8, 8, 3, 8)
    monkeypatch.setattr(parallel, "each_core_is_a_device", lambda: False)
    assert not kernels.take_convolution(images, kernel)


def test_not_where_they_are_switched_off(monkeypatch):
    images, kernel, _ = draw(2, 8, 8, 8, 3, 8)
    monkeypatch.setenv("MNIST_JAX_KERNELS", "off")
    assert not kernels.take_convolution(images, kernel)


@pytest.mark.parametrize("padding", ["same", "SAME_LOWER"])
def test_other_paddings_are_as_while_initializing(padding):
    images = jnp.ones((2, 6, 6, 8))

    class Network(nn.Module):
        @nn.compact
        def __call__(self, images):
            conv = layers.Conv(8, padding=padding)
            return layers.conv_pool_relu(conv, layers.MaxPool(), images)

    out, variables = Network().init_with_output(jax.random.key(0), images)
    np.testing.assert_allclose(Network().apply(variables, images), out, rtol=1e-5)


def test_with_64_bits_enabled():
    network, images = models.create("deep"), jnp.ones((2, 28, 28, 1), jnp.float32)
    variables = network.init(jax.random.key(0), images)
    with jax.enable_x64(True):
        wide = network.apply(variables, images)
    np.testing.assert_allclose(wide, network.apply(variables, images), rtol=1e-4)


@pytest.fixture
def builds(monkeypatch, tmp_path):
    """The calls of a compiler, which only copies what another made, into a new cache."""
    ready = kernels._library()._name
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def compile_(command, start=subprocess.Popen, **options):
        calls.append(command)
        return start(["cp", ready, command[-1]], **options)

    monkeypatch.setattr(subprocess, "Popen", compile_)
    return calls


@needs_kernels
def test_built_once_for_a_processor(builds, monkeypatch, tmp_path):
    first, second = kernels._library(), kernels._library()
    assert first._name == second._name and len(builds) == 1
    assert [str(file) for file in (tmp_path / "mnist_jax").iterdir()] == [first._name]
    monkeypatch.setattr(kernels, "_processor", lambda: "another")
    assert kernels._library()._name != first._name and len(builds) == 2


@needs_kernels
def test_a_damaged_file_is_built_again(builds, monkeypatch, tmp_path):
    whole = Path(kernels._library()._name)
    damaged = tmp_path / "other" / "mnist_jax" / whole.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(whole.read_bytes()[:100])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    kernels._library()
    assert damaged.read_bytes() == whole.read_bytes() and len(builds) == 2


@needs_kernels
def test_a_compiler_with_arguments(builds, monkeypatch):
    monkeypatch.setenv("CXX", "ccache g++")
    kernels._library()
    assert builds[0][:2] == ["ccache", "g++"]


def no_home():
    raise RuntimeError("Could not determine home directory.")


@needs_kernels
@pytest.mark.parametrize("problem", ["a file in the way", "read-only", "no home"])
def test_built_elsewhere_where_there_is_no_cache(builds, monkeypatch, tmp_path, problem):
    if problem == "a file in the way":
        (tmp_path / "mnist_jax").write_text("")
    elif problem == "read-only":
        monkeypatch.setattr(os, "access", lambda *_: False)
    else:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", no_home)
    assert tmp_path not in Path(kernels._library()._name).parents


@needs_kernels
@pytest.mark.parametrize(
    ("compiler", "reason"), [("false", "false ended with"), ("no-such-compiler", "No such file")]
)
def test_without_a_compiler_a_warning_says_why(monkeypatch, tmp_path, compiler, reason):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", compiler)
    with pytest.warns(kernels.KernelWarning, match=f"more slowly: .*{reason}"):
        assert not kernels.load.__wrapped__()
    assert not list((tmp_path / "mnist_jax").iterdir())


@needs_kernels
def test_built_beside_other_things(builds, tmp_path):
    assert kernels.start_building() and kernels.start_building() and len(builds) == 1
    assert kernels._library()._name.startswith(str(tmp_path)) and len(builds) == 1
    assert not kernels.start_building()
    assert [file.suffix for file in (tmp_path / "mnist_jax").iterdir()] == [".so"]


@needs_kernels
def test_a_compiler_at_work_ends_with_its_process(tmp_path):
    """Nothing is left of it, neither the compiler nor its files."""
    compiler = tmp_path / "slow"
    compiler.write_text(
        f"#!/bin/sh\ncd {tmp_path}\necho $$ > written && mv written number\nsleep 6000\n"
    )
    compiler.chmod(0o755)
    code = (
        "import os, time; from mnist_jax import kernels, parallel; parallel.use_cpu_cores()\n"
        f"kernels.start_building()\nwhile not os.path.exists('{tmp_path}/number'): time.sleep(0.01)"
    )
    environment = os.environ | {"CXX": str(compiler), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=600)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "number").read_text()), 0)
    assert not list((tmp_path / "cache" / "mnist_jax").iterdir())


@needs_kernels
@pytest.mark.parametrize("switch", ["off", "compiler"])
def test_nothing_is_begun_without_a_use_or_a_compiler(switch, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    name, value = {"off": ("MNIST_JAX_KERNELS", "off"), "compiler": ("CXX", "no-such")}[switch]
    monkeypatch.setenv(name, value)
    assert not kernels.start_building() and not list(tmp_path.glob("mnist_jax/*"))


def test_initial_values_do_not_wait_for_the_kernels(monkeypatch):
    monkeypatch.setattr(kernels, "load", lambda: pytest.fail("waited for"))
    for name in models.LABS:
        jax.eval_shape(models.create(name).init, jax.random.key(0), jnp.zeros((100, 28, 28, 1)))
