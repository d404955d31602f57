"""GoogLeNet against the published table and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax.models import googlenet
from mnist_jax.models.googlenet import GoogLeNet
from tests import published

COUNTS = {
    "conv1": 9_472,
    "conv2": 4_160,
    "conv3": 110_784,
    "inception3a": 163_696,
    "inception3b": 388_736,
    "inception4a": 376_176,
    "inception4b": 449_160,
    "inception4c": 510_104,
    "inception4d": 605_376,
    "inception4e": 868_352,
    "inception5a": 1_043_456,
    "inception5b": 1_444_080,
    "fc": 1_025_000,
}
HEADS = {"aux1": 3_188_840, "aux2": 3_190_888}
SHAPES = {
    "conv1": (112, 112, 64),
    "pool1": (56, 56, 64),
    "conv2": (56, 56, 64),
    "conv3": (56, 56, 192),
    "pool2": (28, 28, 192),
    "inception3a": (28, 28, 256),
    "inception3b": (28, 28, 480),
    "pool3": (14, 14, 480),
    "inception4a": (14, 14, 512),
    "inception4b": (14, 14, 512),
    "inception4c": (14, 14, 512),
    "inception4d": (14, 14, 528),
    "inception4e": (14, 14, 832),
    "pool4": (7, 7, 832),
    "inception5a": (7, 7, 832),
    "inception5b": (7, 7, 1024),
    "fc": (1000,),
}


def photographs(**options):
    return GoogLeNet(num_classes=1000, **options)


def test_parameters():
    assert published.counts(photographs(auxiliary_heads=False), 224, 224, 3) == COUNTS
    assert sum(COUNTS.values()) == 6_998_552
    assert published.counts(photographs(), 224, 224, 3) == COUNTS | HEADS
    assert sum((COUNTS | HEADS).values()) == 13_378_280


@pytest.mark.parametrize(("heads", "total"), [(False, 6_624_904), (True, 13_004_888)])
def test_parameters_with_batch_norm(heads, total):
    network = photographs(batch_norm=True, auxiliary_heads=heads)
    assert published.count(published.shapes(network, 224, 224, 3)["params"]) == total


@pytest.mark.parametrize("batch_norm", [False, True])
def test_layer_shapes(batch_norm):
    shapes = published.layer_shapes(photographs(batch_norm=batch_norm), 224, 224, 3)
    rest = {"mean": (1024,), "Dropout_0": (1024,)}
    if not batch_norm:
        rest |= {"norm1": SHAPES["pool1"], "norm2": SHAPES["conv3"]}
    assert shapes == SHAPES | rest


@pytest.mark.parametrize(
    ("batch_norm", "gradients"),
    [
        (False, False),
        pytest.param(False, True, marks=pytest.mark.slow),
        pytest.param(True, True, marks=pytest.mark.slow),
    ],
)
def test_logits_of_all_heads_and_gradients(batch_norm, gradients, monkeypatch):
    """In training, without dropout."""
    pytest.importorskip("torch")
    from tests import torch_networks

    monkeypatch.setattr(googlenet, "_HEAD_DROPOUT", 0)
    # Of 79 pixels the heads see one place.
    model = torch_networks.GoogLeNet(batch_norm=batch_norm, places=1)
    network = GoogLeNet(dtype=jnp.float64, batch_norm=batch_norm, dropout_rate=0)
    images = np.random.default_rng(0).normal(size=(2, 79, 79, 3))
    published.check_against(network, published.randomize(model), images, True, gradients)


def test_heads_are_for_training_only():
    network = GoogLeNet(num_classes=3)
    variables = published.shapes(network, 79, 79, 1)
    assert set(variables) == {"params"}
    images = jnp.zeros((2, 79, 79, 1))

    def outputs(train, mutable):
        rngs = {"dropout": jax.random.key(0)}
        return jax.eval_shape(
            lambda v: network.apply(v, images, train=train, rngs=rngs, mutable=mutable), variables
        )

    logits, new = outputs(True, ["auxiliary"])
    assert logits.shape == (2, 3)
    assert [head.shape for head in new["auxiliary"]["logits"]] == [(2, 3), (2, 3)]
    assert not outputs(False, ["auxiliary"])[1] and outputs(True, False).shape == (2, 3)
    assert network.auxiliary_weight == 0.3


def test_without_heads_their_parameters_are_not_needed():
    variables = published.shapes(GoogLeNet(), 79, 79, 3)
    params = {k: v for k, v in variables["params"].items() if not k.startswith("aux")}
    alone = published.shapes(GoogLeNet(auxiliary_heads=False), 79, 79, 3)["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, alone)


def test_initial_values():
    unit = googlenet.Unit(64, 3)
    params = unit.init(jax.random.key(0), jnp.zeros((1, 4, 4, 32)), False, None)["params"]["conv"]
    assert (params["bias"] == 0).all()
    spread = np.asarray(params["kernel"]).std() / np.sqrt(2 / (9 * 32))
    assert abs(spread - 1) < 5 / np.sqrt(2 * params["kernel"].size)


@pytest.mark.parametrize(
    ("shape", "heads", "least"),
    [((28, 28), True, 79), ((78, 224), True, 79), ((224, 46), False, 47)],
)
def test_small_images_are_refused(shape, heads, least):
    message = f"at least {least} x {least} pixels .published: 224 x 224., not {shape[0]}"
    with pytest.raises(ValueError, match=message):
        published.shapes(GoogLeNet(auxiliary_heads=heads), *shape, 3)


@pytest.mark.parametrize(
    ("side", "heads", "batch_norm"), [(79, True, False), (47, False, False), (47, False, True)]
)
def test_the_smallest_images(side, heads, batch_norm):
    network = GoogLeNet(2, auxiliary_heads=heads, batch_norm=batch_norm)
    assert published.layer_shapes(network, side, side, 1)["fc"] == (2,)
