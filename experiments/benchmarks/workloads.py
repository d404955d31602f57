"""What is measured: the workloads, the networks' shapes, their weights and their arithmetic."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

SIDE, CHANNELS, CLASSES = 28, 1, 10
KERNEL = 3
BATCH = 100
CHECKED_STEPS = 3
# As in mnist_jax.go.planes, which imports JAX and which the tests hold against these.
PLANES, LEGAL = 48, slice(36, 44)
LEARNING_RATE, EPS = 0.001, 1e-8


@dataclass(frozen=True)
class Network:
    """3x3 SAME convolutions, each followed by 2x2 SAME max pooling, relu and dropout; dense layers,
    each followed by relu and dropout; a dense layer of 10 logits."""

    convolutions: tuple[int, ...]
    conv_bias: bool
    dense: tuple[int, ...]
    dropout: float


class Layer(NamedTuple):
    """One layer's weights, float32."""

    kernel: np.ndarray  # [3, 3, in, out] of a convolution, [in, out] of a dense layer
    bias: np.ndarray | None  # [out]


Weights = list[Layer]

# As in mnist_jax.models, which the tests hold against these.
NETWORKS = {
    "simple": Network((32, 64), False, (), 0.0),
    "deep": Network((32, 64, 128), False, (625, 625), 0.3),
    "layers": Network((32, 64, 128), True, (2048,), 0.3),
}


@dataclass(frozen=True)
class Published:
    """A network of the literature, and how it is trained."""

    network: str  # in mnist_jax.models
    shape: tuple[int, int, int]  # of an image: height, width, channels
    batch: int
    optimizer: Literal["adam", "momentum"]
    classes: int = CLASSES
    options: Mapping[str, Any] = field(default_factory=dict)  # of the network
    inputs: Literal["images", "planes"] = "images"


PUBLISHED = {
    "lenet5": Published("lenet5", (28, 28, 1), 100, "adam"),
    "resnet20": Published("resnet20", (32, 32, 3), 128, "momentum"),
    "alexnet": Published("alexnet", (227, 227, 3), 16, "adam"),
    "googlenet": Published("googlenet", (224, 224, 3), 16, "adam"),
    "resnet18": Published("resnet18", (224, 224, 3), 16, "adam"),
    # As the config policy has it.
    "policy": Published("policy", (19, 19, PLANES), 128, "adam", 361, {"filters": 48}, "planes"),
}


@dataclass(frozen=True)
class Workload:
    """One thing to do, over and over.

    A step of `train` is a batch of 100 for each member; a step of `published` is a batch of random
    inputs, on which time does not depend; a step of `predict` is a pass over the test images; a
    step of `recipe` is a whole training and evaluation.
    """

    text: str
    task: Literal["train", "published", "predict", "recipe"]
    network: str | None
    members: int
    steps: int  # in one turn; a multiple of 10 where something is trained


WORKLOADS = {
    "deep": Workload("one deep, training, batches of 100", "train", "deep", 1, 100),
    "ensemble": Workload("seven layers, training, batches of 100", "train", "layers", 7, 20),
    "simple": Workload("one simple, training, batches of 100", "train", "simple", 1, 200),
    "evaluation": Workload("one deep, 10,000 test images", "predict", "deep", 1, 1),
    **{
        name: Workload(
            f"one {name}, training, batches of {one.batch} random {one.inputs} of "
            f"{' x '.join(map(str, one.shape))}",
            "published",
            None,
            1,
            200 if name == "lenet5" else 10,
        )
        for name, one in PUBLISHED.items()
    },
    "fast": Workload("to 99 %: 60,000 images once, then the test images", "recipe", None, 1, 1),
}
DEFAULT = ("deep", "ensemble", "simple", "evaluation")


def random_inputs(published: Published, n: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images, or planes as they are packed, and int32 labels; the same for every side.

    On the planes every move is legal.
    """
    rng = np.random.default_rng(0)
    *sides, channels = published.shape
    bytes_ = PLANES // 8 if published.inputs == "planes" else channels
    inputs = rng.integers(0, 256, (n, *sides, bytes_), np.uint8)
    if published.inputs == "planes":
        inputs[..., LEGAL.start // 8] |= 1 << LEGAL.start % 8
    return inputs, rng.integers(0, published.classes, n, np.int32)


def layer_shapes(network: Network) -> list[tuple[tuple[int, ...], bool, int]]:
    """Of each layer: the kernel's shape, whether there is a bias, the places it is applied to."""
    shapes: list[tuple[tuple[int, ...], bool, int]] = []
    side, channels = SIDE, CHANNELS
    for features in network.convolutions:
        shapes.append(((KERNEL, KERNEL, channels, features), network.conv_bias, side * side))
        side, channels = -(-side // 2), features
    width = side * side * channels
    for features in (*network.dense, CLASSES):
        shapes.append(((width, features), True, 1))
        width = features
    return shapes


def make_weights(network: Network, seed: int = 0) -> Weights:
    """He normal kernels and normal(0.1) biases, by NumPy, for every side to start from."""
    rng = np.random.default_rng(seed)
    weights = []
    for shape, has_bias, _ in layer_shapes(network):
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        kernel = (scale * rng.standard_normal(shape)).astype(np.float32)
        bias = (0.1 * rng.standard_normal(shape[-1])).astype(np.float32) if has_bias else None
        weights.append(Layer(kernel, bias))
    return weights


def forward_flop(network: Network) -> int:
    """Two a multiply-add of the convolutions and products of one image; nothing else counts."""
    return sum(2 * int(np.prod(shape)) * places for shape, _, places in layer_shapes(network))


def training_flop(network: Network) -> int:
    """Of one image: forward, the kernels' gradients and the inputs' gradients, each as many.

    The first layer's input needs no gradient.
    """
    shape, _, places = layer_shapes(network)[0]
    return 3 * forward_flop(network) - 2 * int(np.prod(shape)) * places


def step_work(name: str, test_images: int) -> tuple[int, int | None]:
    """Images a step, counted for each member, and its FLOP; None where it is not counted."""
    workload = WORKLOADS[name]
    if workload.task == "published":
        return PUBLISHED[name].batch, None
    if workload.network is None:
        return 60_000, None
    network = NETWORKS[workload.network]
    if workload.task == "train":
        images = workload.members * BATCH
        return images, images * training_flop(network)
    images = workload.members * test_images
    return images, images * forward_flop(network)
