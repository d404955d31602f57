"""What a training on the page rests on: a config with its data, networks and devices."""

from typing import NamedTuple

import optax

from experiments.show import inspector
from experiments.show.inspector import Layer
from experiments.workdir import datasets, records, stacks
from experiments.workdir.config import Config
from experiments.workdir.records import TrainedOn
from experiments.workdir.stacks import Stack
from mnist_jax import data, kernels, loop, training
from mnist_jax.data import Dataset

_KERNELS: tuple[kernels.Part, ...] = ("labs", "windows")
_CHUNK_WORK = 5e9  # multiply-adds of the forward pass: on two cores about a tenth of a second
_MOST_STEPS = 50  # in a chunk


class Setting(NamedTuple):
    """What stays the same while a network trains."""

    config: Config
    dataset: Dataset
    fingerprint: str  # the data set's
    about: TrainedOn
    name: str  # the network's
    stack: Stack
    optimizer: optax.GradientTransformationExtraArgs  # `training.make_adjustable`
    layers: list[Layer]  # of the network

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of the training images."""
        return training.steps_per_epoch(len(self.dataset.train.labels), self.config.batch_size)

    @property
    def chunk(self) -> int:
        """Steps that are done in one go: about a tenth of a second, so that the page can steer."""
        work = sum(layer.multiply_adds for layer in self.layers) * len(self.stack.seeds)
        steps = int(_CHUNK_WORK / max(work * self.config.batch_size, 1))
        longest = min(max(steps, 1), _MOST_STEPS)
        return loop.chunk_lengths(self.steps_per_epoch, longest)[0]


def prepare(config: Config, before: Setting | None = None) -> Setting:
    """Load the data and make the network; nothing is compiled yet.

    Args:
        before: whose data are taken where they are the same.

    Raises:
        ValueError, DataUnavailable: as `data.load` and `stacks.create`; images that the network
            does not take, or a batch larger than the training set.
    """
    for part in _KERNELS:
        kernels.start_building(part)
    if before is not None and _same_data(config, before.config):
        dataset, fingerprint = before.dataset, before.fingerprint
    else:
        dataset = datasets.load(config)
        fingerprint = data.fingerprint(dataset)
    about = records.trained_on(config, dataset)
    kinds = stacks.create(config, config.devices, about)
    stacks.check(kinds, about)
    ((name, stack),) = kinds.items()
    optimizer = training.make_adjustable(config.optimizer, config.beta2)
    layers = inspector.look(stack.network, about.image_shape)
    setting = Setting(config, dataset, fingerprint, about, name, stack, optimizer, layers)
    _ = setting.steps_per_epoch  # which says what is wrong with the batch size
    for part in _KERNELS:
        kernels.available(part)  # waits for it
    return setting


def with_config(setting: Setting, config: Config) -> Setting:
    """The same members with other values of what is adjusted while they train."""
    if config.dropout == setting.config.dropout:
        return setting._replace(config=config)
    ((_, stack),) = stacks.create(config, config.devices, setting.about).items()
    return setting._replace(config=config, stack=stack)


def _same_data(config: Config, other: Config) -> bool:
    names = ("dataset", "data_dir", "validation")
    return all(getattr(config, name) == getattr(other, name) for name in names)


def parameters(setting: Setting) -> int:
    """Of one member."""
    return sum(layer.parameters for layer in setting.layers)
