"""A workdir of weights that were trained elsewhere, for `evaluate`, `predict` and `report`."""

from collections.abc import Mapping, Sequence
from functools import partial
from os import PathLike
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from experiments.workdir import progress, records, stacks
from experiments.workdir.config import Config
from experiments.workdir.records import TrainedOn
from mnist_jax.checkpoints import Checkpoints
from mnist_jax.from_torchvision import MEAN, STD, channels_of, from_torchvision
from mnist_jax.models.googlenet import GoogLeNet
from mnist_jax.training import Variables, state_of

_SIDE = 224
_HALF = (0.5, 0.5, 0.5)  # makes [0, 1] [-1, 1], which torchvision's GoogLeNet expects


class Origin(NamedTuple):
    """The data that weights were trained on."""

    name: str
    source: str
    fingerprint: str | None = None  # as `data.fingerprint`; None where it is not known


def write_torchvision(
    workdir: str | PathLike[str], state_dict: Mapping[str, Any], class_names: Sequence[str]
) -> None:
    """Make a workdir of torchvision's weights of a ResNet or a GoogLeNet with ImageNet's pixels.

    Args:
        workdir: new, or empty.
        state_dict: as for `from_torchvision`.
        class_names: one a class of the weights.

    Raises:
        ValueError: weights of no such network, or not of colour images, of a class alone, or not
            finite; names that are not one a class, each another; a folder that is in use.
        CheckpointError: it cannot be written.
    """
    network, variables = from_torchvision(state_dict)
    _check(network, variables, class_names)
    folder = epath.Path(workdir)
    if records.in_use(folder):
        raise ValueError(f"workdir {folder} exists and is not an empty folder.")
    values: dict[str, Any] = {"normalize": "standard", "optimizer": "momentum"}
    if isinstance(network, GoogLeNet):
        values["network"], mean, stddev = "googlenet", _HALF, _HALF
        heads = network.auxiliary_heads
        values["network_options"] = f"batch_norm=True,auxiliary_heads={heads}"
    else:
        values["network"], mean, stddev = f"resnet{network.depth}", MEAN, STD
        values["network_options"] = "bottleneck_stride=3x3"
    config = Config(**values)
    about = TrainedOn(tuple(class_names), False, (_SIDE, _SIDE, 3), mean, stddev)
    stacked: dict[str, Variables] = {
        config.network: jax.tree.map(lambda leaf: leaf[None], variables)
    }
    write(folder, config, about, stacked, Origin("imagenet", "weights of torchvision"))


def write(
    folder: epath.Path,
    config: Config,
    about: TrainedOn,
    variables: Mapping[str, Variables],
    origin: Origin,
) -> None:
    """Make a workdir of trained weights.

    Args:
        folder: new, or empty.
        config: its members are those of `variables`.
        variables: of each network, with a leading axis of members.

    Raises:
        ValueError: a folder that is in use or cannot be written.
        CheckpointError: the weights cannot be written.
    """
    begin = jax.vmap(partial(state_of, stacks.make_optimizer(config, config.epochs)))
    states = {name: jax.tree.map(np.asarray, begin(own)) for name, own in variables.items()}
    fingerprint = origin.fingerprint or origin.source  # the latter is that of no data set
    details = {
        "fingerprint": fingerprint,
        "progress": progress.start(len(config.seeds))._asdict(),
    }
    records.begin_workdir(folder, config, origin.name, origin.source, about)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(0, states, details)


def _check(network: Any, variables: Mapping[str, Any], class_names: Sequence[str]) -> None:
    """Raise ValueError for what would only be found out by predicting."""
    count = network.num_classes
    names = list(class_names)
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"class_names must be strings, not {names[:3]}.")
    if len(names) != count:
        raise ValueError(f"class_names must be {count}, one a class, not {len(names)}.")
    if len(set(names)) < count:
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"class_names must each be another, but {twice!r} is there twice.")
    if count < 2:
        raise ValueError(f"state_dict must be of at least 2 classes, not {count}.")
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables)):
        raise ValueError("state_dict has NaN or infinite weights.")
    if channels_of(variables) != 3:
        raise ValueError(
            f"state_dict must be of images of 3 channels, not {channels_of(variables)}."
        )
