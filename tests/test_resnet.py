"""ResNets against the published numbers and PyTorch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax import models
from mnist_jax.models.resnet import DEPTHS, ResNet
from tests import published

PHOTOGRAPHS = {
    18: 11_689_512,
    34: 21_797_672,
    50: 25_557_032,
    101: 44_549_160,
    152: 60_192_808,
}
SMALL = {  # with shortcut A and B
    20: (269_722, 272_474),
    32: (464_154, 466_906),
    44: (658_586, 661_338),
    56: (853_018, 855_770),
    110: (1_727_962, 1_730_714),
}


@pytest.mark.parametrize("depth", PHOTOGRAPHS)
def test_parameters_for_photographs(depth):
    network = models.create(f"resnet{depth}", 1000)
    shapes = published.shapes(network, 224, 224, 3)
    assert published.count(shapes["params"]) == PHOTOGRAPHS[depth]


@pytest.mark.parametrize("depth", SMALL)
def test_parameters_for_small_pictures(depth):
    a, b = SMALL[depth]
    network = models.create(f"resnet{depth}")
    assert published.count(published.shapes(network, 32, 32, 3)["params"]) == a
    assert published.count(published.shapes(network.clone(shortcut="B"), 32, 32, 3)["params"]) == b


def test_layer_shapes():
    shapes = published.layer_shapes(ResNet(50, num_classes=1000), 224, 224, 3)
    assert shapes["conv1"] == (112, 112, 64) and shapes["maxpool"] == (56, 56, 64)
    blocks = [name for name in shapes if name.startswith("layer")]
    assert len(blocks) == 3 + 4 + 6 + 3
    last = [shapes[name] for name in ("layer1_2", "layer2_3", "layer3_5", "layer4_2")]
    assert last == [(56, 56, 256), (28, 28, 512), (14, 14, 1024), (7, 7, 2048)]
    small = published.layer_shapes(ResNet(20), 32, 32, 3)
    last = [small[name] for name in ("conv1", "layer1_2", "layer2_2", "layer3_2", "fc")]
    assert last == [(32, 32, 16), (32, 32, 16), (16, 16, 32), (8, 8, 64), (10,)]


@pytest.mark.parametrize("depth", [18, 20])
def test_digits_as_they_are(depth):
    shapes = published.layer_shapes(ResNet(depth, num_classes=7), 28, 28, 1)
    assert shapes["fc"] == (7,)


@pytest.mark.parametrize(
    ("depth", "shortcut", "stride", "gradients"),
    [
        (20, "A", "1x1", False),
        pytest.param(20, "A", "1x1", True, marks=pytest.mark.slow),
        pytest.param(20, "B", "1x1", True, marks=pytest.mark.slow),
        pytest.param(18, "A", "1x1", True, marks=pytest.mark.slow),
        pytest.param(18, "B", "1x1", True, marks=pytest.mark.slow),
        pytest.param(50, "B", "1x1", True, marks=pytest.mark.slow),
        pytest.param(50, "B", "3x3", True, marks=pytest.mark.slow),
    ],
)
def test_logits_batch_statistics_and_gradients(depth, shortcut, stride, gradients):
    pytest.importorskip("torch")
    from tests import torch_networks

    model = torch_networks.ResNet(depth, shortcut=shortcut, stride_in=stride)
    network = ResNet(depth, dtype=jnp.float64, shortcut=shortcut, bottleneck_stride=stride)
    side = 9 if depth == 20 else 40
    images = np.random.default_rng(0).normal(size=(3, side, side, 3))
    published.check_against(network, published.randomize(model), images, True, gradients)


def test_published_choices_are_the_defaults():
    """Shortcut A has no weights of its own, B has; the stride is in a bottleneck's first layer."""
    small = published.shapes(ResNet(20), 32, 32, 3)["params"]
    large = published.shapes(ResNet(34), 64, 64, 3)["params"]
    assert not any("downsample_0" in block for block in small.values())
    assert [name for name in large if "downsample_0" in large[name]] == [
        "layer2_0",
        "layer3_0",
        "layer4_0",
    ]
    assert ResNet(50).bottleneck_stride == "1x1"


def test_devices_that_share_a_batch_see_all_of_it():
    """Three images on two devices, one of them filled up: who has which does not matter."""
    network = ResNet(20, axis_name="devices")
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, 8, 8, 3)).astype(np.float32)
    variables = published.fill(network, 8, 8, 3, low=-1, high=2)

    @jax.jit
    @functools.partial(jax.vmap, axis_name="devices")
    def share(images, weights):
        return network.apply(variables, images, True, weights, mutable=["batch_stats"])

    def whole(order, filling):
        filled = np.concatenate([images[order], np.full_like(images[:1], filling)])
        weights = np.array([[1, 1], [1, 0]], np.float32)
        logits, new = share(filled.reshape(2, 2, 8, 8, 3), weights)
        return np.asarray(logits).reshape(4, 10)[np.argsort(order)], new["batch_stats"]

    logits, stats = whole([0, 1, 2], 0)
    others, other_stats = whole([2, 0, 1], 9)
    np.testing.assert_allclose(logits, others, rtol=0, atol=1e-3 * np.abs(logits).max())
    published.compare(stats, other_stats, 1e-3)
    jax.tree.map(lambda leaf: np.testing.assert_allclose(*leaf, rtol=1e-5), stats)


def test_initial_values():
    def init(key):
        return ResNet(20).init(key, jnp.zeros((1, 8, 8, 1)))["params"]["layer3_2"]

    block = jax.jit(init)(jax.random.key(0))
    kernel = np.asarray(block["conv1"]["kernel"])
    assert abs(kernel.std() / np.sqrt(2 / (9 * 64)) - 1) < 5 / np.sqrt(2 * kernel.size)
    assert (block["bn2"]["scale"] == 1).all() and (block["bn2"]["bias"] == 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 19}, "depth must be one of 18, 20, 32, 34, .*152, not 19"),
        ({"depth": 20, "shortcut": "C"}, "shortcut must be 'A' or 'B', not 'C'"),
        ({"depth": 50, "bottleneck_stride": "2"}, "bottleneck_stride must be .* not '2'"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResNet(**arguments)


def test_every_depth_has_a_name():
    assert {f"resnet{depth}" for depth in DEPTHS} <= set(models.NAMES)
    assert set(DEPTHS) == {*PHOTOGRAPHS, *SMALL}
