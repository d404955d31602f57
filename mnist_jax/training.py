"""Training one member on one device's share of each batch, as pure functions.

A member is made from its `seed` alone: the seed gives its initial values and its dropout masks.
`ensemble.py` maps these functions over members, `parallel.py` over devices.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from mnist_jax import keys
from mnist_jax.augment import Augment
from mnist_jax.handwriting import NO_CLASS

Params = Any
OptimizerName = Literal["adam", "sgd"]
ScheduleName = Literal["constant", "cosine", "onecycle"]


class TrainState(NamedTuple):
    """All that training changes. In an ensemble every leaf has a leading `members` axis."""

    step: Array  # int32 [], optimizer steps done
    params: Params
    opt_state: optax.OptState


class ParamsAverage(NamedTuple):
    """The optimizer state of `average_params`."""

    step: Array  # int32 []
    average: Params


class Share(NamedTuple):
    """What one device sees of an epoch, or of a part of one."""

    images: Array  # uint8 or float32 [n, 28, 28, 1], the whole training set
    labels: Array  # int32 [n]
    batches: Array  # int32 [steps, batch], which images each step takes here
    weights: Array  # float32 [batch], of the images of each batch in its loss
    shard: Array | int = 0  # which of the devices that share each batch this is
    image_weights: Array | None = None  # float32 [n], of each image in the loss; None: 1


@functools.lru_cache(maxsize=256)
def make_optimizer(
    learning_rate: float,
    total_steps: int,
    optimizer: OptimizerName = "adam",
    schedule: ScheduleName = "constant",
    weight_decay: float = 0.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    cycles: int = 1,
    ema: float | None = None,
) -> optax.GradientTransformation:
    """Adam (eps 1e-8) or SGD with Nesterov momentum, with a schedule and decoupled weight decay.

    Args:
        learning_rate: the constant, or the largest value of the schedule.
        total_steps: optimizer steps in the whole run, for the schedule.
        optimizer: `"adam"` (Kingma and Ba 2015) or `"sgd"`.
        schedule: `"constant"`, `"cosine"` (to 0) or `"onecycle"` (Smith and Topin 2018).
        weight_decay: times the learning rate, taken off the weights each step (Loshchilov and
            Hutter 2019).
        beta1: Adam's decay of the mean gradient; SGD's momentum.
        beta2: Adam's decay of the mean squared gradient.
        cycles: how many times the schedule is gone through, each `total_steps / cycles` long.
        ema: also keep a moving average of the weights with this decay a step, which
            `evaluated_params` gives; training does not depend on it.

    Returns:
        The same object for the same arguments: by it compiled training is found again.

    Raises:
        ValueError: an unknown name, a learning rate of 0 or below, a negative weight decay, a beta
            or `ema` outside [0, 1), `cycles` that do not divide `total_steps`.
    """
    if not 0 <= weight_decay < float("inf"):
        raise ValueError(f"weight_decay must be at least 0, not {weight_decay}.")
    for name, decay in (("beta1", beta1), ("beta2", beta2), ("ema", ema or 0.0)):
        if not 0 <= decay < 1:
            raise ValueError(f"{name} must be in [0, 1), not {decay}.")
    rate = make_schedule(learning_rate, total_steps, schedule, cycles)
    directions: dict[str, Callable[[], optax.GradientTransformation]] = {
        "adam": lambda: optax.scale_by_adam(beta1, beta2, eps=1e-8),
        "sgd": lambda: optax.trace(beta1, nesterov=True),
    }
    if optimizer not in directions:
        raise ValueError(f"optimizer must be one of {', '.join(directions)}, not {optimizer!r}.")
    return optax.chain(
        directions[optimizer](),
        optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity(),
        optax.scale_by_learning_rate(rate),
        *([] if ema is None else [average_params(ema)]),
    )


def make_schedule(
    learning_rate: float, total_steps: int, schedule: ScheduleName = "constant", cycles: int = 1
) -> optax.Schedule:
    """The learning rate by the number of steps done; arguments and errors of `make_optimizer`."""
    if not 0 < learning_rate < float("inf"):
        raise ValueError(f"learning_rate must be above 0, not {learning_rate}.")
    if cycles < 1 or total_steps % cycles:
        raise ValueError(f"cycles must divide the {total_steps} steps, which {cycles} does not.")
    length = total_steps // cycles
    schedules: dict[str, Callable[[], optax.Schedule]] = {
        "constant": lambda: optax.constant_schedule(learning_rate),
        "cosine": lambda: optax.cosine_decay_schedule(learning_rate, length),
        "onecycle": lambda: optax.cosine_onecycle_schedule(length, learning_rate),
    }
    if schedule not in schedules:
        raise ValueError(f"schedule must be one of {', '.join(schedules)}, not {schedule!r}.")
    once = schedules[schedule]()
    return once if cycles == 1 else (lambda step: once(step % length))


def average_params(decay: float) -> optax.GradientTransformation:
    """The last link of an optimizer's chain, which averages the weights and changes nothing.

    After step t the average is that of the weights after the steps 1, ..., t, the one after step i
    weighted by `decay ** (t - i)`. Source: Kingma and Ba 2015, section 7.2.
    """

    def init(params: Params) -> ParamsAverage:
        return ParamsAverage(jnp.zeros((), jnp.int32), params)

    def update(
        updates: Params, state: ParamsAverage, params: Params
    ) -> tuple[Params, ParamsAverage]:
        step = state.step + 1
        weight = (1 - decay) / (1 - decay**step)
        new = optax.apply_updates(params, updates)
        return updates, ParamsAverage(step, optax.incremental_update(new, state.average, weight))

    return optax.GradientTransformation(init, update)


def evaluated_params(state: TrainState) -> Params:
    """What predictions are made with: the average of the weights if there is one, or the weights.

    `state` may be of one member or stacked.
    """
    averages = [part.average for part in state.opt_state if isinstance(part, ParamsAverage)]
    return averages[0] if averages else state.params


def to_float(images: Array) -> Array:
    """uint8 pixels to float32 in [0, 1]; floats pass as they are."""
    return images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images


def init_state(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    seed: Array,
    image_shape: tuple[int, ...] = (28, 28, 1),
) -> TrainState:
    """One member's state before its first step; `seed` is an integer scalar."""
    init_key, _ = jax.random.split(keys.key(seed))
    params = network.init(init_key, jnp.zeros((1, *image_shape), jnp.float32))["params"]
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def apply(network: nn.Module, params: Params, images: Array, **options: Any) -> Array:
    """The logits of one member, float32 `[n, classes]`; options as those of `network.apply`."""
    logits = network.apply({"params": params}, images, **options)
    assert isinstance(logits, Array)  # a network without mutable collections gives nothing else
    return logits


def dropout_key(seed: Array, step: Array, shard: Array | int) -> Array:
    """The key of one member's dropout in one step, on one of the devices that share its batch."""
    _, key = jax.random.split(jax.random.key(seed))
    return jax.random.fold_in(jax.random.fold_in(key, step), shard)


def weighted_loss(
    network: nn.Module,
    params: Params,
    images: Array,
    labels: Array,
    weights: Array,
    key: Array,
    may_lack_class: bool = False,
) -> Array:
    """Softmax cross-entropy in training mode, summed with weights; float32 `[]`.

    Args:
        images: float32 `[batch, 28, 28, 1]`.
        labels: int32 `[batch]`.
        weights: float32 `[batch]`; `1 / batch` gives the mean.
        key: for dropout.
        may_lack_class: labels may be `NO_CLASS`, whose cross-entropy is that with equal
            probabilities of all classes (Hendrycks et al. 2019).
    """
    logits = apply(network, params, images, train=True, rngs={"dropout": key})
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if may_lack_class:
        from_uniform = -jnp.mean(jax.nn.log_softmax(logits), axis=-1)
        losses = jnp.where(labels == NO_CLASS, from_uniform, losses)
    return jnp.sum(losses * weights)


def train_step(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    seed: Array,
    images: Array,
    labels: Array,
    weights: Array,
    shard: Array | int = 0,
    sum_over_shards: Callable[[Any], Any] = lambda tree: tree,
    augment: Augment | None = None,
) -> tuple[TrainState, Array]:
    """One optimizer step of one member; arguments as in `weighted_loss`, images as uint8 or float.

    `shard` says which of the devices that share the batch this is, and `sum_over_shards` adds up
    the loss and gradients of all of them. `augment` changes the images, in each member by its own
    key.

    Returns:
        The new state and the batch's loss, float32 `[]`, before the step.
    """
    key = dropout_key(seed, state.step, shard)
    images = to_float(images)
    if augment is not None:
        images, labels = augment(images, labels, jax.random.fold_in(key, 1))
    loss, grads = jax.value_and_grad(weighted_loss, argnums=1)(
        network, state.params, images, labels, weights, key, may_lack_class=augment is not None
    )
    loss, grads = sum_over_shards((loss, grads))
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    return TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state), loss


def train_epoch(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    seed: Array,
    share: Share,
    sum_over_shards: Callable[[Any], Any] = lambda tree: tree,
    augment: Augment | None = None,
) -> tuple[TrainState, Array]:
    """A scan of `train_step` over the batches of an epoch, or of a part of one.

    Returns:
        The new state and each step's loss, float32 `[steps]`.
    """

    def step(state: TrainState, batch: Array) -> tuple[TrainState, Array]:
        images, labels, weights = share.images[batch], share.labels[batch], share.weights
        if share.image_weights is not None:
            weights = weights * share.image_weights[batch]
        return train_step(
            network,
            optimizer,
            state,
            seed,
            images,
            labels,
            weights,
            share.shard,
            sum_over_shards,
            augment,
        )

    return lax.scan(step, state, share.batches)


def steps_per_epoch(n: int, batch_size: int) -> int:
    """How many whole batches `n` images make.

    Raises:
        ValueError: `batch_size` below 1 or above `n`.
    """
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size must be from 1 to the {n} training images, not {batch_size}.")
    return n // batch_size


def epoch_batches(
    data_seed: int, epoch: int, n: int, batch_size: int, seed: int | None = None
) -> Array:
    """An epoch's shuffled batches, int32 `[n // batch_size, batch_size]`.

    They depend on `data_seed`, `epoch` and, for a shuffle of a member's own, its `seed` alone, so a
    resumed run sees what it would have seen. Images beyond the last whole batch are left out, in
    each epoch others.
    """
    key = jax.random.fold_in(jax.random.key(data_seed), epoch)
    key = key if seed is None else jax.random.fold_in(key, seed)
    steps = steps_per_epoch(n, batch_size)
    order = jax.random.permutation(key, n).astype(jnp.int32)  # with x64 of JAX's they are int64
    return order[: steps * batch_size].reshape(steps, batch_size)
