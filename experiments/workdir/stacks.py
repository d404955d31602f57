"""A config's members as stacks, one a network: what `run` trains and the other commands restore."""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from experiments.workdir.config import Config
from experiments.workdir.records import TrainedOn
from mnist_jax import constraints, ensemble, models, parallel, training
from mnist_jax.parallel import Layout, Predict
from mnist_jax.training import Decode, TrainState


class Stack(NamedTuple):
    """The members that share a network, and their devices."""

    seeds: list[int]
    network: nn.Module
    layout: Layout
    predict: Predict
    decode: Decode


def create(config: Config, device_count: int | None, data: TrainedOn) -> dict[str, Stack]:
    """Each network's stack, by the network's name.

    Args:
        device_count: how many devices of each process to use; None for all.
        data: what the networks are, or were, trained on.

    Raises:
        ValueError: an option that a network does not have, or devices that do not suit.
    """
    devices = parallel.first_devices(device_count)
    parallel.use_precision(config.precision)
    options = config.options | ({"mean": data.mean, "stddev": data.stddev} if data.mean else {})
    if config.reads_sentences:
        options["words"] = max(len(data.vocabulary), 2)
        options.setdefault("width", data.vector_width)
    kinds = {}
    for name, seeds in config.kinds:
        network = models.create(name, len(data.class_names), **options)
        layout = parallel.plan(len(seeds), devices, config.data_parallel)
        decode = models.decode_of(name)
        predict = parallel.make_predict(layout, network, decode)
        kinds[name] = Stack(seeds, network, layout, predict, decode)
    return kinds


def make_optimizer(config: Config, total_steps: int) -> optax.GradientTransformation:
    """The optimizer of all members; `total_steps` are those of the whole run."""
    return training.make_optimizer(
        config.learning_rate,
        total_steps,
        config.optimizer,
        config.schedule,
        config.weight_decay,
        config.beta1,
        config.beta2,
        config.snapshots,
        config.ema,
        constraints.of_sentences() if config.reads_sentences else None,
    )


def make_schedule(config: Config, total_steps: int) -> optax.Schedule:
    """The learning rate by step; `total_steps` are those of the whole run."""
    return training.make_schedule(
        config.learning_rate, total_steps, config.schedule, config.snapshots
    )


def check(stacks: dict[str, Stack], data: TrainedOn) -> None:
    """See that the networks take the data's images.

    Raises:
        ValueError: they cannot, as too small ones.
    """
    if not stacks.keys() <= set(models.NAMES):
        return  # sentences are padded, and a board's network is made for it
    for name, stack in stacks.items():
        try:
            models.check_size(name, stack.network, data.image_shape)
        except ValueError as error:
            raise ValueError(f"{error}\n--image-size scales images to another size.") from None


def shapes(
    stacks: dict[str, Stack], optimizer: optax.GradientTransformation, data: TrainedOn
) -> dict[str, TrainState]:
    """The structure, shapes and dtypes of the states that a checkpoint holds."""
    stored = jax.ShapeDtypeStruct((1, *data.image_shape), np.int32 if data.vocabulary else np.uint8)
    inputs = {name: training.input_of(stored, stack.decode) for name, stack in stacks.items()}
    return {
        name: jax.eval_shape(
            partial(ensemble.init_state, stack.network, optimizer, input_=inputs[name]),
            np.asarray(stack.seeds, np.uint32),
        )
        for name, stack in stacks.items()
    }


def snapshot_steps(config: Config, steps_per_epoch: int) -> list[int]:
    """After which steps the snapshots are taken; empty where there are none."""
    if config.snapshots == 1:
        return []
    length = config.epochs // config.snapshots * steps_per_epoch
    return [length * (i + 1) for i in range(config.snapshots)]
