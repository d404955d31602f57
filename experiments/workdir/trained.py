"""A workdir's trained members, ready to predict: what the commands after `run` begin with."""

import hashlib
import logging
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import numpy as np
from etils import epath

from experiments.workdir import datasets, records, stacks
from experiments.workdir.config import Config
from experiments.workdir.records import TrainedOn
from experiments.workdir.stacks import Stack
from mnist_jax import data, parallel, weights_file
from mnist_jax.checkpoints import Checkpoints, Saved
from mnist_jax.data import Dataset, NoPictures
from mnist_jax.training import TrainState, Variables, evaluated

_OTHER_DATA = "On others python -m experiments.evaluate does, by --dataset or --data-dir."


@dataclass(frozen=True)
class Member:
    """One trained network."""

    network_name: str
    network: nn.Module
    seed: int
    variables: Variables  # NumPy, without an axis of members
    epoch: int | None = None  # of a snapshot

    @property
    def name(self) -> str:
        """For tables: network and seed, and the epoch of a snapshot."""
        snapshot = "" if self.epoch is None else f", epoch {self.epoch}"
        return f"{self.network_name} {self.seed}{snapshot}"

    def describe(self) -> dict[str, Any]:
        """What tells this member from the others, as plain values."""
        snapshot = {} if self.epoch is None else {"epoch": self.epoch}
        return {"network": self.network_name, "seed": self.seed} | snapshot


class Predict(Protocol):
    """What `Trained.predict` is."""

    def __call__(self, images: np.ndarray, dropout_seed: int | None = None) -> np.ndarray:
        """As `parallel.Predict`, of all members in their order."""


@dataclass(frozen=True)
class Trained:
    """What a workdir holds."""

    workdir: epath.Path
    config: Config
    step: int  # of the checkpoint
    fingerprint: str | None  # of the data set trained on
    members: list[Member]
    predict: Predict
    class_names: tuple[str, ...]
    characters: bool  # what pictures must be made into, as in `mnist_jax.data.Dataset`
    image_shape: tuple[int, ...]  # height, width, channels
    trained_on: TrainedOn


def load(workdir: epath.PathLike) -> Trained:
    """Read a workdir's config and its last saved state, or the snapshots that it has.

    Raises:
        ValueError: the folder is no workdir, or holds no checkpoint, or a damaged weights file.
        CheckpointError: all of its checkpoints, or a snapshot, are damaged.
    """
    workdir = epath.Path(workdir)
    config = records.read_config(workdir)
    trained_on = records.read_dataset(workdir, config)
    kinds = stacks.create(config, None, trained_on)
    read = _read_weights_file if (workdir / weights_file.NAME).exists() else _read_checkpoints
    weights = read(workdir, config, kinds, trained_on)
    members = [
        Member(
            name, stack.network, seed, jax.tree.map(lambda leaf, i=i: leaf[i], stacked[name]), epoch
        )
        for epoch, stacked in weights.variables.items()
        for name, stack in kinds.items()
        for i, seed in enumerate(stack.seeds)
    ]
    placed = [
        (stack, parallel.place(stack.layout, stacked[name]))
        for stacked in weights.variables.values()
        for name, stack in kinds.items()
    ]

    def predict(images: np.ndarray, dropout_seed: int | None = None) -> np.ndarray:
        return np.concatenate(
            [stack.predict(variables, images, dropout_seed) for stack, variables in placed]
        )

    return Trained(
        *(workdir, config, weights.step, weights.fingerprint, members, predict),
        trained_on.class_names,
        trained_on.characters,
        trained_on.image_shape,
        trained_on,
    )


class _Weights(NamedTuple):
    """What a workdir's members predict with."""

    step: int  # of training
    fingerprint: str | None  # of the data set trained on
    # By the epoch of a snapshot, or of None where there are none, each network's, stacked.
    variables: dict[int | None, dict[str, Variables]]


def _read_weights_file(
    workdir: epath.Path, config: Config, kinds: dict[str, Stack], trained_on: TrainedOn
) -> _Weights:
    """Of a folder that `experiments.bundle` has made."""
    path = workdir / weights_file.NAME
    variables, details = weights_file.read(path)
    states = stacks.shapes(kinds, stacks.make_optimizer(config, config.epochs), trained_on)
    wanted = {name: evaluated(state) for name, state in states.items()}
    if jax.tree.map(np.shape, variables) != jax.tree.map(np.shape, wanted):
        raise ValueError(f"{path} has other weights than the networks of its config.json.")
    try:
        return _Weights(int(details["step"]), details["fingerprint"], {None: variables})
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{path} is damaged: it lacks the step of training, or the data."
        ) from None


def _read_checkpoints(
    workdir: epath.Path, config: Config, kinds: dict[str, Stack], trained_on: TrainedOn
) -> _Weights:
    """Of a folder that `experiments.run` has made: the last state, or the snapshots there are."""
    # The optimizer is for its state's structure.
    optimizer = stacks.make_optimizer(config, total_steps=config.epochs)
    folder = workdir / "checkpoints"
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax says at length that it only reads
    if not folder.is_dir():
        raise ValueError(f"{folder} does not exist; nothing was saved yet.")
    with Checkpoints(folder, read_only=True) as checkpoints:
        shapes = stacks.shapes(kinds, optimizer, trained_on)
        saved = checkpoints.restore(shapes)
        if saved is None:
            raise ValueError(f"{folder} holds no checkpoint; nothing was saved yet.")
        snapshots = _snapshots(checkpoints, config, saved, shapes)
    return _Weights(saved.step, saved.details.get("fingerprint"), snapshots)


def _snapshots(
    checkpoints: Checkpoints,
    config: Config,
    newest: Saved,
    shapes: dict[str, TrainState],
) -> dict[int | None, dict[str, Variables]]:
    """Each snapshot's epoch and `{network: variables}`; without any, None and the newest ones."""
    if config.snapshots == 1:
        return {None: {name: evaluated(state) for name, state in newest.state.items()}}
    history = newest.details["progress"]["history"]
    steps_per_epoch = history[0]["steps"] if history else 0
    steps = [s for s in stacks.snapshot_steps(config, steps_per_epoch) if 0 < s <= newest.step]
    by_epoch: dict[int | None, Any] = {
        step // steps_per_epoch: checkpoints.restore_step(step, shapes) for step in steps
    }
    return {
        epoch: {name: evaluated(state) for name, state in saved.state.items()}
        for epoch, saved in (by_epoch or {None: newest}).items()
    }


def digest(trained: Trained) -> str:
    """SHA-256 of what the members predict with, in hexadecimal."""
    sum_ = hashlib.sha256()
    for leaf in jax.tree.leaves([member.variables for member in trained.members]):
        sum_.update(np.ascontiguousarray(leaf).data)
    return sum_.hexdigest()


def load_dataset(trained: Trained) -> Dataset:
    """The data set the members were trained on, split as it was then.

    Raises:
        ValueError: it is another one here, as when MNIST is missing and `mnist5k` takes its place,
            whose test images are among MNIST's for training.
        DataUnavailable: it cannot be had.
    """
    config = trained.config
    if config.folds > 1:
        raise ValueError(
            f"{trained.workdir} is cross-validated: each test input trained other members; its "
            f"scores are in results.json.\n{_OTHER_DATA}"
        )
    try:
        dataset = datasets.load(config, trained.trained_on)
    except NoPictures:
        raise ValueError(
            f"{trained.workdir} was trained on pictures in folders, and does not say where they "
            f"lie.\n{_OTHER_DATA}"
        ) from None
    except ValueError as error:  # such as classes of one's own, whose files are not named
        hint = "" if "\n" in str(error) else f"\n{_OTHER_DATA}"
        raise ValueError(f"{error}{hint}") from None
    if trained.fingerprint not in (None, data.fingerprint(dataset)):
        raise ValueError(
            f"{dataset.name} ({dataset.source}) is not the data that {trained.workdir} was trained "
            f"on, and its test {config.input_is}s may be among those.\n"
            f"Make those data available. {_OTHER_DATA}"
        )
    return dataset
