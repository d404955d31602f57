"""Weights of torchvision's ResNets and GoogLeNet for this package's. PyTorch is not needed."""

import math
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax.models.googlenet import GoogLeNet
from mnist_jax.models.resnet import STAGES, ResNet, has_bottlenecks

# What torchvision's ResNets expect of photographs in [0, 1]: (image - MEAN) / STD, by channel.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_SIDE = 224
_HEAD_PLACES = (128, 4, 4)  # channels, height and width that GoogLeNet's heads flatten
_BLOCK = r"layer{}\.\d+\.conv1\.weight"  # of a stage
_LEAVES = {  # of a weight with so many axes, and of the others
    ("weight", 4): ("params", "kernel"),
    ("weight", 2): ("params", "kernel"),
    ("weight", 1): ("params", "scale"),
    ("bias", 1): ("params", "bias"),
    ("running_mean", 1): ("batch_stats", "mean"),
    ("running_var", 1): ("batch_stats", "var"),
}


def from_torchvision(state_dict: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """The network that a `state_dict` of torchvision belongs to, and its variables.

    The network computes what torchvision's does in evaluation mode. It is a `ResNet` of depth 18,
    34, 50, 101 or 152, or a `GoogLeNet` with `batch_norm`, with as many classes as the weights
    have, and with auxiliary heads if they have them. ResNets expect images less `MEAN` and divided
    by `STD`; torchvision's GoogLeNet with ImageNet's weights (its `transform_input`) those in
    [0, 1], times 2 less 1. In training GoogLeNet differs: its heads' pool and its dropout rate are
    the paper's.

    Args:
        state_dict: PyTorch tensors on any device, or arrays, by torchvision's names.

    Returns:
        A linen module, and `{"params": ..., "batch_stats": ...}` of float32 NumPy arrays.

    Raises:
        ValueError: the names or shapes are those of no such network.
    """
    if not isinstance(state_dict, Mapping) or not all(isinstance(n, str) for n in state_dict):
        raise ValueError("state_dict must be a dictionary of names and arrays.")
    network = _network(state_dict)
    variables = to_variables(state_dict)
    _check(network, variables)
    return network, variables


def to_variables(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Variables by the names of a `state_dict`, whose numbers join the name before: `layer1_0`."""
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for name, value in state_dict.items():
        if name.endswith("num_batches_tracked"):
            continue
        array = _array(value)
        *path, last = name.split(".")
        if (last, array.ndim) not in _LEAVES:
            raise ValueError(f"state_dict has {name!r} {array.shape}, which no such network has.")
        collection, leaf = _LEAVES[last, array.ndim]
        place = variables[collection]
        for part in _joined(path):
            place = place.setdefault(part, {})
        place[leaf] = _transposed(name, array)
    return variables


def _network(state_dict: Mapping[str, Any]) -> nn.Module:
    """By names, and the number of classes by the last layer's shape."""
    if "fc.weight" in state_dict and "inception3a.branch1.conv.weight" in state_dict:
        return GoogLeNet(
            num_classes=len(state_dict["fc.weight"]),
            batch_norm=True,
            auxiliary_heads="aux1.fc1.weight" in state_dict,
        )
    if "fc.weight" in state_dict and "layer1.0.conv1.weight" in state_dict:
        classes = len(state_dict["fc.weight"])
        return ResNet(_depth(state_dict), num_classes=classes, bottleneck_stride="3x3")
    some = ", ".join(list(state_dict)[:3]) or "nothing"
    raise ValueError(
        "state_dict must be that of torchvision's resnet18, 34, 50, 101, 152 or googlenet; "
        f"this one has {some} and so on. A checkpoint may hold it further in, as "
        "checkpoint['state_dict'], or with names that begin with 'module.'."
    )


def _depth(state_dict: Mapping[str, Any]) -> int:
    """By the number of blocks of each stage, and whether they are bottlenecks."""
    blocks = tuple(
        sum(bool(re.fullmatch(_BLOCK.format(stage), name)) for name in state_dict)
        for stage in (1, 2, 3, 4)
    )
    bottlenecks = "layer1.0.conv3.weight" in state_dict
    for depth, stages in STAGES.items():
        if stages == blocks and has_bottlenecks(depth) == bottlenecks:
            return depth
    raise ValueError(f"state_dict has stages of {blocks} blocks, as no ResNet of torchvision has.")


def _array(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a tensor: maybe on a GPU, of bfloat16, or with a gradient
        value = value.detach().cpu().float()
    return np.asarray(value, np.float32)


def _joined(path: list[str]) -> list[str]:
    """`["layer1", "0", "conv1"]` as `["layer1_0", "conv1"]`."""
    parts: list[str] = []
    for part in path:
        if part.isdigit() and parts:
            parts[-1] += f"_{part}"
        else:
            parts.append(part)
    return parts


def _transposed(name: str, array: np.ndarray) -> np.ndarray:
    """As Flax has it: features last, and pixels before channels."""
    is_head = name in ("aux1.fc1.weight", "aux2.fc1.weight")
    if is_head and array.shape[1:] == (math.prod(_HEAD_PLACES),):
        array = array.reshape(-1, *_HEAD_PLACES).transpose(0, 2, 3, 1).reshape(array.shape)
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _check(network: nn.Module, variables: dict[str, Any]) -> None:
    """That the variables have the names and shapes of the network's own."""
    images = jnp.zeros((1, _SIDE, _SIDE, channels_of(variables)))
    wanted = _shapes(jax.eval_shape(network.init, jax.random.key(0), images))
    found = _shapes(variables)
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise ValueError(
                f"state_dict has {found.get(name, 'nothing')} for {name}, where "
                f"{type(network).__name__} has {wanted.get(name, 'nothing')}."
            )


def channels_of(variables: Mapping[str, Any]) -> int:
    """How many channels the images have; 3 where the first convolution is missing."""
    first = variables["params"].get("conv1", {})
    kernel = first.get("conv", first).get("kernel")
    return 3 if kernel is None else kernel.shape[-2]


def _shapes(variables: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree.leaves_with_path(variables)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): a.shape for path, a in leaves}
