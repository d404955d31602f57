"""The networks, by name."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

import flax.linen as nn

from mnist_jax.models.alexnet import AlexNet
from mnist_jax.models.deep import Deep
from mnist_jax.models.fast import Fast
from mnist_jax.models.googlenet import GoogLeNet
from mnist_jax.models.layers import Layers
from mnist_jax.models.lenet5 import LeNet5
from mnist_jax.models.resnet import DEPTHS, STAGES, ResNet
from mnist_jax.models.simple import Simple

_NETWORKS: Mapping[str, tuple[type[nn.Module], Mapping[str, Any]]] = {  # fields that the name sets
    "simple": (Simple, {}),
    "deep": (Deep, {}),
    "layers": (Layers, {}),
    "fast": (Fast, {}),
    "lenet5": (LeNet5, {}),
    "alexnet": (AlexNet, {}),
    "googlenet": (GoogLeNet, {}),
    **{f"resnet{depth}": (ResNet, {"depth": depth}) for depth in DEPTHS},
}


NAMES = tuple(_NETWORKS)
LABS = ("simple", "deep", "layers", "fast")  # made for 28x28 grey images


class Published(NamedTuple):
    """What a network was published for."""

    image_shape: tuple[int, int, int]  # height, width, channels
    num_classes: int


_DIGITS, _IMAGENET = Published((28, 28, 1), 10), Published((224, 224, 3), 1000)
PUBLISHED: Mapping[str, Published] = {
    **dict.fromkeys(LABS, _DIGITS),
    "lenet5": Published((32, 32, 1), 10),
    "alexnet": Published((227, 227, 3), 1000),  # the paper's 224 does not fit its own numbers
    "googlenet": _IMAGENET,
    **{
        f"resnet{depth}": _IMAGENET if depth in STAGES else Published((32, 32, 3), 10)
        for depth in DEPTHS
    },
}
_NO_OPTIONS = {"num_classes", "parent", "name", "axis_name", "axis_index_groups"}


def create(name: str, num_classes: int = 10, **options: Any) -> nn.Module:
    """Make a network.

    Args:
        name: one of `NAMES`.
        num_classes: how many logits it gives an image; at least 2.
        options: the network's own fields, such as `dropout_rate`; all have `dtype`, what they
            compute in (default float32; parameters are always float32), and those of
            `ImageNetwork`.

    Returns:
        A linen module: `init(rngs, images, train=False)` and
        `apply(variables, images, train=..., rngs={"dropout": key})` map float32
        `[n, height, width, channels]` in [0, 1] to float32 logits `[n, num_classes]`.

    Raises:
        ValueError: an unknown name or option, `num_classes` below 2, `dropout_rate` outside [0, 1),
            a negative `conv_stddev`.
    """
    if name not in _NETWORKS:
        near = get_close_matches(name, NAMES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"name {name!r} is no network; there are {', '.join(NAMES)}.{hint}")
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, not {num_classes}.")
    network, set_by_name = _NETWORKS[name]
    known = sorted(network.__dataclass_fields__.keys() - _NO_OPTIONS - set_by_name.keys())
    for option in options:
        if option not in known:
            takes = ", ".join(known) or "none"
            raise ValueError(f"network {name!r} has no option {option!r}; its options: {takes}.")
    if not 0 <= options.get("dropout_rate", 0) < 1:
        raise ValueError(f"dropout_rate must be in [0, 1), not {options['dropout_rate']}.")
    if options.get("conv_stddev", 0) < 0:
        raise ValueError(f"conv_stddev must not be negative, but is {options['conv_stddev']}.")
    return network(num_classes=num_classes, **set_by_name, **options)
