"""AlexNet against the published numbers and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import errors

from mnist_jax.models.alexnet import AlexNet
from tests import published

COUNTS = {
    "conv1": 34_944,
    "conv2": 614_656,
    "conv3": 885_120,
    "conv4": 1_327_488,
    "conv5": 884_992,
    "fc6": 37_752_832,
    "fc7": 16_781_312,
    "fc8": 4_097_000,
}
IN_TWO_TOWERS = {"conv2": 307_456, "conv4": 663_936, "conv5": 442_624}


@pytest.mark.parametrize(
    ("two_towers", "counts", "total"),
    [(False, COUNTS, 62_378_344), (True, COUNTS | IN_TWO_TOWERS, 60_965_224)],
)
def test_parameters(two_towers, counts, total):
    network = AlexNet(num_classes=1000, two_towers=two_towers)
    assert published.counts(network, 227, 227, 3) == counts
    assert sum(counts.values()) == total


@pytest.mark.parametrize("two_towers", [False, True])
def test_layer_shapes(two_towers):
    network = AlexNet(num_classes=1000, two_towers=two_towers)
    shapes = published.layer_shapes(network, 227, 227, 3)
    assert {name: shape for name, shape in shapes.items() if "Dropout" not in name} == {
        "conv1": (55, 55, 96),
        "norm1": (55, 55, 96),
        "pool1": (27, 27, 96),
        "conv2": (27, 27, 256),
        "norm2": (27, 27, 256),
        "pool2": (13, 13, 256),
        "conv3": (13, 13, 384),
        "conv4": (13, 13, 384),
        "conv5": (13, 13, 256),
        "pool5": (6, 6, 256),
        "fc6": (4096,),
        "fc7": (4096,),
        "fc8": (1000,),
    }


@pytest.mark.parametrize("towers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_logits_and_all_gradients(towers):
    pytest.importorskip("torch")
    from tests import torch_networks

    model = published.randomize(torch_networks.AlexNet(256, towers))
    network = AlexNet(dtype=jnp.float64, two_towers=towers == 2)
    images = np.random.default_rng(0).random((2, 67, 67, 3))
    published.check_against(network, model, images)


def test_initial_values():
    def some(key):  # the large ones are not drawn
        params = AlexNet(num_classes=3).init(key, jnp.zeros((1, 67, 67, 1)))["params"]
        biases = {name: layer["bias"] for name, layer in params.items()}
        return biases, {name: params[name]["kernel"] for name in ("conv1", "conv4", "fc8")}

    biases, kernels = jax.jit(some)(jax.random.key(0))
    ones = {name for name, bias in biases.items() if (bias == 1).all()}
    assert ones == {"conv2", "conv4", "conv5", "fc6", "fc7"}
    assert all((bias == 0).all() for name, bias in biases.items() if name not in ones)
    for kernel in map(np.asarray, kernels.values()):
        assert abs(kernel.std() / 0.01 - 1) < 5 / np.sqrt(2 * kernel.size)
        assert abs(kernel.mean()) < 5 * 0.01 / np.sqrt(kernel.size)


def test_dropout_is_on_in_training_only():
    network = AlexNet(num_classes=3)
    variables = published.shapes(network, 67, 67, 1)
    images = jnp.zeros((2, 67, 67, 1))

    def apply(**options):
        return jax.eval_shape(lambda v: network.apply(v, images, **options), variables)

    assert network.dropout_rate == 0.5 and apply().shape == (2, 3)
    assert apply(train=True, rngs={"dropout": jax.random.key(0)}).shape == (2, 3)
    with pytest.raises(errors.InvalidRngError, match="dropout"):
        apply(train=True)


@pytest.mark.parametrize("shape", [(28, 28), (66, 227), (227, 66)])
def test_small_images_are_refused(shape):
    message = f"at least 67 x 67 pixels .published: 227 x 227., not {shape[0]} x {shape[1]}"
    with pytest.raises(ValueError, match=message):
        published.shapes(AlexNet(), *shape, 3)


@pytest.mark.parametrize(("side", "last"), [(67, 1), (224, 5), (227, 6)])
def test_any_larger_size_and_one_channel(side, last):
    assert published.layer_shapes(AlexNet(num_classes=2), side, side, 1)["pool5"][0] == last
