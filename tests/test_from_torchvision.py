"""Weights by torchvision's names, from PyTorch models that are written out in `torch_networks`."""

import jax
import numpy as np
import pytest

from experiments.workdir import imported, trained
from mnist_jax.from_torchvision import MEAN, STD, from_torchvision
from mnist_jax.models.googlenet import GoogLeNet
from mnist_jax.models.resnet import ResNet
from tests import published

torch = pytest.importorskip("torch")

from tests import torch_networks  # noqa: E402


def logits(network, variables, images):
    return jax.jit(network.apply)(variables, np.float32(images))


def check(model, images):
    """That the network made from a model's weights gives the same logits; returns the network."""
    published.randomize(model).eval()
    network, variables = from_torchvision(model.state_dict())
    assert set(variables) == {"params", "batch_stats"}
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}
    with torch.no_grad():
        wanted = model(torch.tensor(np.moveaxis(images, -1, 1)).float()).numpy()
    atol = 1e-4 * np.abs(wanted).max()
    np.testing.assert_allclose(logits(network, variables, images), wanted, rtol=1e-3, atol=atol)
    return network


def photographs(side, channels=3):
    return np.random.default_rng(0).normal(size=(2, side, side, channels))


def test_resnet18_of_one_channel_and_seven_classes():
    network = check(torch_networks.ResNet(18, channels=1, num_classes=7), photographs(33, 1))
    assert network == ResNet(18, num_classes=7, bottleneck_stride="3x3")


def test_a_workdir_of_weights_predicts_what_pytorch_does(tmp_path):
    """A photograph's pixels, standardised as torchvision's are, through the workdir."""
    model = published.randomize(torch_networks.ResNet(18, num_classes=5)).eval()
    imported.write_torchvision(tmp_path / "run", model.state_dict(), "abcde")
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3)).astype(np.uint8)
    logits = trained.load(tmp_path / "run").predict(pixels[None])[0, 0]
    standard = (pixels / 255 - MEAN) / STD
    with torch.no_grad():
        wanted = model(torch.tensor(np.moveaxis(standard, -1, 0)[None]).float())[0].numpy()
    np.testing.assert_allclose(logits, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())
    nan = model.state_dict() | {"fc.bias": torch.full((5,), float("nan"))}
    for weights, names, message in (
        (model.state_dict(), "abc", "class_names must be 5"),
        (model.state_dict(), "abcdd", "'d' is there twice"),
        (model.state_dict(), range(5), "class_names must be strings"),
        (nan, "abcde", "NaN or infinite"),
        (torch_networks.ResNet(18, channels=4, num_classes=5).state_dict(), "abcde", "not 4"),
        (torch_networks.ResNet(18, num_classes=1).state_dict(), "a", "at least 2 classes"),
        (None, "abcde", "must be a dictionary"),
        ({"state_dict": model.state_dict()}, "abcde", "further in"),
    ):
        with pytest.raises(ValueError, match=message):
            imported.write_torchvision(tmp_path / "other", weights, names)
    assert not (tmp_path / "other").exists()
    with pytest.raises(ValueError, match="not an empty folder"):
        imported.write_torchvision(tmp_path / "run", model.state_dict(), "abcde")


@pytest.mark.slow
def test_resnet50():
    network = check(torch_networks.ResNet(50, stride_in="3x3"), photographs(33))
    assert network == ResNet(50, bottleneck_stride="3x3")


@pytest.mark.slow
@pytest.mark.parametrize("heads", [False, True])
def test_googlenet(heads):
    network = check(torch_networks.GoogLeNet(5, batch_norm=True, heads=heads), photographs(79))
    assert network == GoogLeNet(5, batch_norm=True, auxiliary_heads=heads)


def test_a_head_s_first_dense_layer_takes_pixels_before_channels():
    model = torch_networks.GoogLeNet(batch_norm=True)
    _, variables = from_torchvision(model.state_dict())
    kernel = variables["params"]["aux2"]["fc1"]["kernel"]
    weight = model.aux2.fc1.weight.detach().numpy().reshape(1024, 128, 4, 4)
    np.testing.assert_array_equal(kernel.reshape(4, 4, 128, 1024)[1, 2, 3], weight[:, 3, 1, 2])


def test_what_tensors_may_be():
    """Arrays, tensors of fewer bits, and parameters that keep a gradient give the same."""
    state = published.randomize(torch_networks.ResNet(18)).bfloat16().state_dict()
    kinds = [
        state,
        {name: value.float().numpy() for name, value in state.items()},
        {name: torch.nn.Parameter(value.float()) for name, value in state.items()},
    ]
    first, *others = [from_torchvision(kind)[1] for kind in kinds]
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, first, other)


def state_dict(**changes):
    """Of a ResNet-18, with values replaced, added, or (None) left out."""
    state = torch_networks.ResNet(18).state_dict() | changes
    return {name: value for name, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fc.weight": None}, "must be that of torchvision's resnet18"),
        (
            {"conv1.weight": None},
            r"nothing for params/conv1/kernel, where ResNet has \(7, 7, 3, 64\)",
        ),
        ({"conv1.weight": np.zeros((64, 3, 3, 3))}, r"has \(3, 3, 3, 64\) for params/conv1/kernel"),
        ({"bn1.running_var": None}, "nothing for batch_stats/bn1/var"),
        ({"extra.weight": np.zeros((2, 2))}, "params/extra/kernel, where ResNet has nothing"),
        ({"0.weight": np.zeros((2, 2))}, "where ResNet has nothing"),
        ({"layer1.0.scale": np.zeros(2)}, "'layer1.0.scale' .2,., which no such network has"),
        ({"layer4.2.conv1.weight": np.zeros((512, 512, 3, 3))}, r"stages of \(2, 2, 2, 3\) blocks"),
    ],
)
def test_other_weights_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        from_torchvision(state_dict(**changes))


@pytest.mark.parametrize("state", [{}, {"features.0.weight": np.zeros((64, 3, 11, 11))}])
def test_other_networks_are_refused(state):
    with pytest.raises(ValueError, match=r"must be that of torchvision's resnet18, 34.*googlenet"):
        from_torchvision(state)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "googlenet"]
)
def test_torchvision_s_own(name):
    """With random weights, at the published size."""
    models = pytest.importorskip("torchvision.models")
    options = {"init_weights": False, "aux_logits": True} if name == "googlenet" else {}
    network = check(getattr(models, name)(weights=None, **options), photographs(224))
    assert network.num_classes == 1000
    assert len(MEAN) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wide_resnet50_2", "resnext50_32x4d", "alexnet", "vgg11"])
def test_torchvision_s_others_are_refused(name):
    models = pytest.importorskip("torchvision.models")
    with pytest.raises(ValueError, match="state_dict"):
        from_torchvision(getattr(models, name)(weights=None).state_dict())
