"""Networks as chains of layers, and their weights in few bits."""

import zlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.interchange import chain, packed, page_weights
from experiments.interchange.chain import Layer, Unsupported
from experiments.interchange.packed import Precision
from experiments.interchange.page_weights import Checked
from mnist_jax import models

_KINDS = {
    "simple": ("simple", {}),
    "deep": ("deep", {}),
    "fast": ("fast", {"mean": (0.2,), "stddev": (0.4,)}),
    "lenet5": ("lenet5", {}),
    "lenet5, dense": ("lenet5", {"dense": True, "mean": (0.1,), "stddev": (1.0,)}),
    "convnetjs": ("convnetjs", {}),
    "convnetjs, others": (
        "convnetjs",
        {"layers": "conv 3x3 4; crop 23; pool 2; pool 3; dense 9; dropout 0.5; dense 7"},
    ),
    "more classes": ("fast", {"num_classes": 26}),
}


def drawn(name, options):
    """A network and random parameters."""
    network = models.create(name, **options)
    like = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), like["params"])
    return network, params


@pytest.mark.parametrize("kind", _KINDS)
def test_a_chain_computes_what_its_network_does(kind):
    network, params = drawn(*_KINDS[kind])
    images = np.random.default_rng(1).integers(0, 256, (3, 28, 28, 1)).astype(np.uint8)
    wanted = jax.jit(network.apply)({"params": params}, jnp.asarray(images / 255, jnp.float32))
    found = jax.jit(partial(chain.forward, chain.layers_of(network, params)))(images)
    assert wanted.shape == found.shape
    np.testing.assert_allclose(
        jax.nn.log_softmax(found), jax.nn.log_softmax(wanted), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("resnet20", {}, "no chain"),
        ("alexnet", {"image_size": 67}, "no chain"),
        ("simple", {"dtype": jnp.bfloat16}, "bfloat16"),
        ("deep", {"image_size": 20}, "scales its images"),
    ],
)
def test_other_networks_are_no_chain(name, options, reason):
    with pytest.raises(Unsupported, match=reason):
        chain.layers_of(models.create(name, **options), {})


def test_8_bits_are_half_a_step_off_at_most():
    rng = np.random.default_rng(0)
    kernel = rng.normal(0, 0.1, (3, 3, 4, 5)).astype(np.float32) * [1, 10, 0.1, 0, 1]
    array = packed.pack(kernel, Precision(8))
    assert array.values.dtype == np.int8 and abs(array.values).max() == 127
    largest = abs(kernel).max(axis=(0, 1, 2))
    off = abs(array.unpacked() - kernel)
    assert (off <= largest / 127 * 0.5001).all() and (array.unpacked()[..., 3] == 0).all()
    bias = np.array([1e-9, 3.0], np.float32)
    np.testing.assert_array_equal(packed.pack(bias, Precision(8)).unpacked(), bias)
    half = packed.pack(kernel, Precision(16)).unpacked()
    np.testing.assert_allclose(half, kernel, rtol=2**-11, atol=1e-7)


def test_large_kernels_get_coarse_steps_and_others_do_not():
    rng = np.random.default_rng(0)
    large, small = rng.normal(0, 2, (400, 300)), rng.normal(0, 2, (300, 300))
    array = packed.pack(large, Precision(8, 0.5))
    np.testing.assert_allclose(array.steps, 0.5 * large.std(), rtol=0.01)
    assert abs(array.unpacked() - large).max() <= 0.5 * array.steps.max() * 1.0001
    np.testing.assert_array_equal(
        packed.pack(small, Precision(8, 0.5)).values, packed.pack(small, Precision(8)).values
    )


@pytest.mark.parametrize("bits", [8, 16])
def test_what_is_joined_can_be_read_again(bits):
    network, params = drawn("fast", {})
    layers = chain.layers_of(network, params)
    arrays = packed.pack_layers(layers, Precision(bits))
    described, content = packed.join([arrays, arrays])
    content = zlib.decompress(content)
    for member in described:
        for own, layer in zip(arrays, member, strict=True):
            for name, array in own.items():
                about = layer[name]
                values = read(content, about, array.values.shape)
                np.testing.assert_array_equal(values, array.unpacked())


def read(content, about, shape):
    """An array by its description, as the page reads it."""
    steps = np.frombuffer(content, "<f4", about["steps"], about["at"])
    begin = about["at"] + 4 * about["steps"]
    values = np.frombuffer(content, about["dtype"], about["size"], begin).astype(np.float32)
    values = values.reshape(shape)
    return values * steps if about["steps"] else values


def test_three_layers_take_at_most_5_mb():
    """With weights that are spread as trained ones: normal, and of some units hardly any."""
    network, params = drawn("layers", {})
    params["Dense_0"]["kernel"][:, ::4] /= 3
    layers = chain.layers_of(network, params)
    weights = page_weights._choose([layers] * 3, lambda arrays: Checked(1, 1.0, 1.0, 0.0, 0.0))
    assert weights.precision.bits == 8 and weights.precision.coarseness <= 1.25
    assert 4 / 3 * len(weights.content) + 100_000 < 5_000_000


def choose(monkeypatch, most_bytes, keeps):
    """Which precision is chosen where `keeps` says of each whether the accuracy stays."""
    monkeypatch.setattr(page_weights, "_MOST_BYTES", most_bytes)
    monkeypatch.setattr(page_weights, "_ROOM", 0)
    kernel = np.random.default_rng(0).normal(0, 1, (500, 400)).astype(np.float32)
    weights = {"kernel": kernel, "bias": np.zeros(400, np.float32)}
    layers = [Layer("dense", "Dense_0", "dense", {}, weights)]
    asked = []

    def check(arrays):
        steps = arrays[0][0]["kernel"].steps
        asked.append(None if steps is None else round(float(steps.min()), 2))
        return Checked(10_000, 0.99, 0.99 if keeps(asked[-1]) else 0.9897, 0.0, 0.0)

    chosen = page_weights._choose([layers], check)
    return chosen, asked


def test_the_finest_that_is_small_enough_is_chosen(monkeypatch):
    chosen, asked = choose(monkeypatch, 10**9, lambda step: True)
    assert chosen.precision == Precision(8, 0) and len(asked) == 1
    chosen, asked = choose(monkeypatch, 110_000, lambda step: True)
    assert 0.25 < chosen.precision.coarseness < 1 and len(asked) == 1
    assert len(chosen.content) * 4 / 3 <= 110_000


def test_what_loses_accuracy_is_not_chosen(monkeypatch):
    chosen, asked = choose(monkeypatch, 0, lambda step: step is None or step < 0.6)
    assert chosen.precision == Precision(8, 0.5) and asked == [1.25, 1.0, 0.75, 0.5]
    chosen, asked = choose(monkeypatch, 0, lambda step: step is None)
    assert chosen.precision == Precision(16) and asked[-1] is None
    assert chosen.checked.after == 0.99
