"""A workdir's trained members, ready to predict: what the commands after `run` begin with."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from etils import epath

from experiments import records, stacks
from experiments.config import Config
from mnist_jax import data, parallel
from mnist_jax.checkpoints import Checkpoints
from mnist_jax.data import Dataset


@dataclass(frozen=True)
class Member:
    """One trained network."""

    network_name: str
    network: nn.Module
    seed: int
    params: Any  # NumPy, without an axis of members


@dataclass(frozen=True)
class Trained:
    """What a workdir holds."""

    workdir: epath.Path
    config: Config
    step: int  # of the checkpoint
    members: list[Member]
    # uint8 or float32 in [0, 1], [n, 28, 28, 1], to logits, float32 [members, n, classes]
    predict: Callable[[np.ndarray], np.ndarray]


def load(workdir: epath.PathLike) -> Trained:
    """Read a workdir's config and its last saved state.

    Raises:
        ValueError: the folder is no workdir, or holds no checkpoint.
        CheckpointError: all of its checkpoints are damaged.
    """
    workdir = epath.Path(workdir)
    config = records.read_config(workdir)
    kinds = stacks.create(config, device_count=None)
    optimizer = stacks.make_optimizer(config, total_steps=1)  # for its state's structure
    folder = workdir / "checkpoints"
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax says at length that it only reads
    saved = None
    if folder.is_dir():
        with Checkpoints(folder, read_only=True) as checkpoints:
            saved = checkpoints.restore(stacks.shapes(kinds, optimizer))
    if saved is None:
        raise ValueError(f"{folder} holds no checkpoint; nothing was saved yet.")
    params = {name: state.params for name, state in saved.state.items()}
    members = [
        Member(name, stack.network, seed, jax.tree.map(lambda leaf, i=i: leaf[i], params[name]))
        for name, stack in kinds.items()
        for i, seed in enumerate(stack.seeds)
    ]
    placed = {name: parallel.place(stack.layout, params[name]) for name, stack in kinds.items()}

    def predict(images: np.ndarray) -> np.ndarray:
        logits = [stack.predict(placed[name], images) for name, stack in kinds.items()]
        return np.concatenate(logits)

    return Trained(workdir, config, saved.step, members, predict)


def load_dataset(trained: Trained) -> Dataset:
    """The data set the members were trained on, split as it was then."""
    config = trained.config
    return data.load(config.dataset, config.data_dir, validation=config.validation)
