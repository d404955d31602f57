"""A workdir's trained members, ready to predict: what the commands after `run` begin with."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from experiments.config import Config
from mnist_jax import data, ensemble, models, parallel, training
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

    workdir: Path
    config: Config
    class_names: tuple[str, ...]
    members: list[Member]
    # uint8 or float32 in [0, 1], [n, 28, 28, 1], to logits, float32 [members, n, classes]
    predict: Callable[[np.ndarray], np.ndarray]


def load(workdir: Path) -> Trained:
    """Read a workdir's config and its last saved state.

    Raises:
        ValueError: the folder is no workdir, or holds no whole checkpoint.
    """
    try:
        config = Config(**json.loads((workdir / "config.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{workdir} is no workdir of experiments.run: {error}.") from None
    class_names = data.CLASS_NAMES["mnist" if config.dataset == "auto" else config.dataset]
    network = models.create(config.network, len(class_names), **config.network_options)
    params = _last_params(workdir / "checkpoints", config, network)
    members = [
        Member(config.network, network, seed, jax.tree.map(lambda leaf, i=i: leaf[i], params))
        for i, seed in enumerate(config.seeds)
    ]
    layout = parallel.plan(config.members)
    predict = parallel.make_predict(layout, network)
    placed = parallel.place(layout, params)
    return Trained(workdir, config, class_names, members, lambda images: predict(placed, images))


def load_dataset(trained: Trained) -> Dataset:
    """The data set the members were trained on, split as it was then."""
    config = trained.config
    return data.load(config.dataset, config.data_dir, validation=config.validation)


def _last_params(folder: Path, config: Config, network: nn.Module) -> Any:
    optimizer = training.make_optimizer(
        config.learning_rate, 1, config.optimizer, config.schedule, config.weight_decay
    )
    seeds = np.asarray(config.seeds, np.uint32)
    like = jax.eval_shape(partial(ensemble.init_state, network, optimizer), seeds)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not there; nothing was saved yet.")
    with Checkpoints(folder) as checkpoints:
        step = checkpoints.latest_step()
        if step is None:
            raise ValueError(f"{folder} holds no checkpoint; nothing was saved yet.")
        return jax.tree.map(np.asarray, checkpoints.restore(step, like).params)
