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
from mnist_jax.words import counted

Params = Any
BatchStats = Any
Variables = Any  # {"params": ...} and, of a network that has them, {"batch_stats": ...}
# Inputs as the data set stores them, [n, ...], to those that the network takes.
Decode = Callable[[Array], Array]
OptimizerName = Literal["adam", "sgd", "momentum", "adadelta"]
_ADADELTA_RHO, _ADADELTA_EPS = 0.95, 1e-6  # Zeiler's own, and Kim's
ScheduleName = Literal["constant", "cosine", "onecycle", "steps"]


class TrainState(NamedTuple):
    """All that training changes. In an ensemble every leaf has a leading `members` axis."""

    step: Array  # int32 [], optimizer steps done
    params: Params
    opt_state: optax.OptState
    batch_stats: BatchStats = None  # what batch normalisation goes by; most networks have none


class Average(NamedTuple):
    """The optimizer state of `average_weights`."""

    step: Array  # int32 []
    average: Params
    batch_stats: BatchStats = None


class Constraint(NamedTuple):
    """What a network asks of its optimizer."""

    is_trained: Callable[[Params], Any]  # parameters to a tree of bools; the others do not move
    after_step: optax.GradientTransformation  # of the updates, the learning rate in them


class Share(NamedTuple):
    """What one device sees of an epoch, or of a part of one."""

    inputs: Array  # [n, ...], the whole training set as it is stored
    labels: Array  # int32 [n]
    batches: Array  # int32 [steps, batch], which inputs each step takes here
    weights: Array  # float32 [batch], of the inputs of each batch in its loss
    shard: Array | int = 0  # which of the devices that share each batch this is
    input_weights: Array | None = None  # float32 [n], of each input in the loss; None: 1


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
    constraint: Constraint | None = None,
) -> optax.GradientTransformation:
    """Adam (eps 1e-8), SGD with momentum or Adadelta, with a schedule and weight decay.

    Args:
        learning_rate: the constant, or the largest value of the schedule.
        total_steps: optimizer steps in the whole run, for the schedule.
        optimizer: `"adam"` (Kingma and Ba 2015), `"sgd"`, with Nesterov's momentum, `"momentum"`,
            SGD with the plain one (Krizhevsky et al. 2012, section 5), or `"adadelta"` (Zeiler
            2012; rho 0.95, eps 1e-6), whose own learning rate is 1.
        schedule: `"constant"`, `"cosine"` (to 0), `"onecycle"` (Smith and Topin 2018), or
            `"steps"`, a tenth after half and again after three quarters (He et al. 2016, 4.2).
        weight_decay: times the learning rate, taken off the weights each step (Loshchilov and
            Hutter 2019); with `"momentum"` times the weights, added to their gradient.
        beta1: Adam's decay of the mean gradient; the momentum of the others.
        beta2: Adam's decay of the mean squared gradient.
        cycles: how many times the schedule is gone through, each `total_steps / cycles` long.
        ema: also keep a moving average of the weights with this decay a step, which
            `evaluated` gives; training does not depend on it.
        constraint: of the network, such as `constraints.of_sentences`.

    Returns:
        The same object for the same arguments: by it compiled training is found again.

    Raises:
        ValueError: an unknown name, a learning rate of 0 or below, a negative weight decay, a beta
            or `ema` outside [0, 1), `cycles` that do not divide `total_steps`.
    """
    if not 0 <= weight_decay < float("inf"):
        raise ValueError(f"weight_decay must be at least 0, not {weight_decay}.")
    for name, value in (("beta1", beta1), ("beta2", beta2), ("ema", ema or 0.0)):
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be in [0, 1), not {value}.")
    rate = make_schedule(learning_rate, total_steps, schedule, cycles)
    decay = optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity()
    steps = _links(optimizer, rate, decay, beta1, beta2)
    if constraint is not None:
        steps = [optax.masked(optax.chain(*steps), constraint.is_trained), constraint.after_step]
    return optax.chain(
        *steps,
        *([] if ema is None else [average_weights(ema)]),
    )


def _links(
    optimizer: OptimizerName,
    rate: optax.Schedule,
    decay: optax.GradientTransformation,
    beta1: Any,
    beta2: float,
) -> list[optax.GradientTransformation]:
    directions: dict[str, Callable[[], list[optax.GradientTransformation]]] = {
        "adam": lambda: [optax.scale_by_adam(beta1, beta2, eps=1e-8), decay],
        "sgd": lambda: [optax.trace(beta1, nesterov=True), decay],
        "momentum": lambda: [decay, optax.trace(beta1)],
        "adadelta": lambda: [optax.scale_by_adadelta(_ADADELTA_RHO, _ADADELTA_EPS), decay],
    }
    if optimizer not in directions:
        raise ValueError(f"optimizer must be one of {', '.join(directions)}, not {optimizer!r}.")
    return [*directions[optimizer](), optax.scale_by_learning_rate(rate)]


ADJUSTABLE = ("learning_rate", "beta1", "weight_decay")


@functools.lru_cache(maxsize=256)
def make_adjustable(
    optimizer: OptimizerName = "adam", beta2: float = 0.999
) -> optax.GradientTransformationExtraArgs:
    """`make_optimizer` with a constant rate, whose `ADJUSTABLE` values lie in its state.

    There they can be changed while training goes on, and nothing compiles anew. They begin with 0
    and are to be set: `state.opt_state.hyperparams` is a dictionary of them, float32 `[]` of one
    member; `state.opt_state.inner_state` is what the state of `make_optimizer`'s would be.

    Returns:
        The same object for the same arguments, as `make_optimizer`.
    """

    def chain(
        learning_rate: Any, beta1: Any, weight_decay: Any
    ) -> optax.GradientTransformationExtraArgs:
        decay = optax.add_decayed_weights(weight_decay)
        return optax.chain(*_links(optimizer, lambda step: learning_rate, decay, beta1, beta2))

    return optax.inject_hyperparams(chain)(**dict.fromkeys(ADJUSTABLE, 0.0))


def make_schedule(
    learning_rate: float, total_steps: int, schedule: ScheduleName = "constant", cycles: int = 1
) -> optax.Schedule:
    """The learning rate by the number of steps done; arguments and errors of `make_optimizer`."""
    if not 0 < learning_rate < float("inf"):
        raise ValueError(f"learning_rate must be above 0, not {learning_rate}.")
    if cycles < 1 or total_steps % cycles:
        raise ValueError(
            f"cycles must divide the {counted(total_steps, 'step')}, which {cycles} does not."
        )
    length = total_steps // cycles
    schedules: dict[str, Callable[[], optax.Schedule]] = {
        "constant": lambda: optax.constant_schedule(learning_rate),
        "cosine": lambda: optax.cosine_decay_schedule(learning_rate, length),
        "onecycle": lambda: optax.cosine_onecycle_schedule(length, learning_rate),
        "steps": lambda: optax.piecewise_constant_schedule(
            learning_rate, {length // 2: 0.1, 3 * length // 4: 0.1}
        ),
    }
    if schedule not in schedules:
        raise ValueError(f"schedule must be one of {', '.join(schedules)}, not {schedule!r}.")
    once = schedules[schedule]()
    return once if cycles == 1 else (lambda step: once(step % length))


def average_weights(decay: float) -> optax.GradientTransformationExtraArgs:
    """The last link of an optimizer's chain, which averages the weights and changes nothing.

    After step t the average is that of the weights after the steps 1, ..., t, the one after step i
    weighted by `decay ** (t - i)`. Source: Kingma and Ba 2015, section 7.2. `update` takes the
    network's `batch_stats` after the step, which are averaged in the same way.
    """

    def init(params: Params) -> Average:
        return Average(jnp.zeros((), jnp.int32), params)

    def update(
        updates: Params,
        state: Average,
        params: Params,
        *,
        batch_stats: BatchStats,
        **others: Any,
    ) -> tuple[Params, Average]:
        step = state.step + 1
        weight = (1 - decay) / (1 - decay**step)
        new = optax.apply_updates(params, updates), batch_stats
        old = state.average, state.batch_stats
        return updates, Average(step, *optax.incremental_update(new, old, weight))

    return optax.GradientTransformationExtraArgs(init, update)


def evaluated(state: TrainState) -> Variables:
    """What predictions are made with: the average of the weights if there is one, or the weights.

    `state` may be of one member or stacked.
    """
    averages = [part for part in state.opt_state if isinstance(part, Average)]
    if averages:
        return variables_of(averages[0].average, averages[0].batch_stats)
    return variables_of(state.params, state.batch_stats)


def variables_of(params: Params, batch_stats: BatchStats) -> Variables:
    """Both as Flax takes them."""
    return {"params": params} | ({"batch_stats": batch_stats} if batch_stats else {})


def to_float(images: Array) -> Array:
    """uint8 pixels to float32 in [0, 1]; anything else passes as it is."""
    return images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images


IMAGE = jax.ShapeDtypeStruct((28, 28, 1), jnp.float32)


def input_of(inputs: Any, decode: Decode = to_float) -> jax.ShapeDtypeStruct:
    """Shape and dtype of what the network takes of one input; `inputs` are stored, `[n, ...]`."""
    stored = jax.ShapeDtypeStruct((1, *inputs.shape[1:]), inputs.dtype)
    decoded = jax.eval_shape(decode, stored)
    return jax.ShapeDtypeStruct(decoded.shape[1:], decoded.dtype)


def init_state(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    seed: Array,
    input_: jax.ShapeDtypeStruct = IMAGE,
) -> TrainState:
    """One member's state before its first step.

    Args:
        seed: an integer scalar.
        input_: from `input_of`.
    """
    init_key, _ = jax.random.split(keys.key(seed))
    variables = network.init(init_key, jnp.zeros((1, *input_.shape), input_.dtype))
    return state_of(optimizer, variables)


def state_of(optimizer: optax.GradientTransformation, variables: Variables) -> TrainState:
    """The state before the first step of one member that has these weights."""
    params, batch_stats = variables["params"], variables.get("batch_stats")
    opt_state = _with_batch_stats(optimizer.init(params), batch_stats)
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, batch_stats)


def _with_batch_stats(opt_state: optax.OptState, batch_stats: BatchStats) -> optax.OptState:
    """A new `opt_state` where `average_weights` has a place for what its `init` does not know."""
    if not batch_stats or not any(isinstance(part, Average) for part in opt_state):
        return opt_state
    return tuple(
        part._replace(batch_stats=batch_stats) if isinstance(part, Average) else part
        for part in opt_state
    )


def apply(network: nn.Module, variables: Variables, inputs: Array, **options: Any) -> Array:
    """The logits of one member, float32 `[n, classes]`; options as those of `network.apply`.

    `variables` are those of `evaluated`, or a state's `params` alone.
    """
    if "params" not in variables:
        variables = {"params": variables}
    logits = network.apply(variables, inputs, **options)
    assert isinstance(logits, Array)  # without mutable collections nothing else is given
    return logits


def dropout_key(seed: Array, step: Array, shard: Array | int) -> Array:
    """The key of one member's dropout in one step, on one of the devices that share its batch."""
    _, key = jax.random.split(jax.random.key(seed))
    return jax.random.fold_in(jax.random.fold_in(key, step), shard)


def weighted_loss(
    network: nn.Module,
    params: Params,
    batch_stats: BatchStats,
    inputs: Array,
    labels: Array,
    weights: Array,
    key: Array,
    may_lack_class: bool = False,
) -> tuple[Array, BatchStats]:
    """Softmax cross-entropy in training mode, summed with weights.

    A network that gives logits of auxiliary heads too, as `GoogLeNet`, has their cross-entropy
    added, times its `auxiliary_weight`. One that gives logits of a class which no input is of, as
    `LeNet5`, has that class beside its own, here alone.

    Args:
        inputs: `[batch, ...]` as the network takes them.
        labels: int32 `[batch]`.
        weights: float32 `[batch]`; `1 / batch` gives the mean. Inputs of weight 0 take no part in
            the batch's statistics.
        key: for dropout.
        may_lack_class: labels may be `NO_CLASS`, whose cross-entropy is that with equal
            probabilities of all classes (Hendrycks et al. 2019).

    Returns:
        float32 `[]`, and the new `batch_stats`.
    """
    # Only a network that goes by the batch's statistics needs to know what takes part in them.
    options: Any = {"weights": (weights > 0).astype(jnp.float32)} if batch_stats else {}
    logits, changed = network.apply(
        variables_of(params, batch_stats),
        inputs,
        train=True,
        rngs={"dropout": key},
        mutable=["batch_stats", "auxiliary"],
        **options,
    )

    auxiliary = changed.get("auxiliary", {})

    def loss(logits: Array) -> Array:
        with_rubbish = jnp.concatenate([logits, *auxiliary.get("rubbish", ())], axis=-1)
        losses = optax.softmax_cross_entropy_with_integer_labels(with_rubbish, labels)
        if may_lack_class:
            from_uniform = -jnp.mean(jax.nn.log_softmax(logits), axis=-1)
            losses = jnp.where(labels == NO_CLASS, from_uniform, losses)
        return jnp.sum(losses * weights)

    total = loss(logits)
    for of_head in auxiliary.get("logits", ()):
        total += network.auxiliary_weight * loss(of_head)
    return total, changed.get("batch_stats", batch_stats)


def train_step(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    seed: Array,
    inputs: Array,
    labels: Array,
    weights: Array,
    shard: Array | int = 0,
    sum_over_shards: Callable[[Any], Any] = lambda tree: tree,
    augment: Augment | None = None,
    decode: Decode = to_float,
) -> tuple[TrainState, Array]:
    """One optimizer step of one member; arguments as in `weighted_loss`, inputs as they are stored.

    `shard` says which of the devices that share the batch this is, and `sum_over_shards` adds up
    the loss and gradients of all of them. `augment` changes the decoded inputs, in each member by
    its own key.

    Returns:
        The new state and the batch's loss, float32 `[]`, before the step.
    """
    key = dropout_key(seed, state.step, shard)
    inputs = decode(inputs)
    if augment is not None:
        inputs, labels = augment(inputs, labels, jax.random.fold_in(key, 1))
    (loss, batch_stats), grads = jax.value_and_grad(weighted_loss, argnums=1, has_aux=True)(
        network,
        state.params,
        state.batch_stats,
        inputs,
        labels,
        weights,
        key,
        may_lack_class=augment is not None,
    )
    loss, grads = sum_over_shards((loss, grads))
    updates, opt_state = optax.with_extra_args_support(optimizer).update(
        grads, state.opt_state, state.params, batch_stats=batch_stats
    )
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, opt_state, batch_stats), loss


def train_epoch(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    seed: Array,
    share: Share,
    sum_over_shards: Callable[[Any], Any] = lambda tree: tree,
    augment: Augment | None = None,
    decode: Decode = to_float,
) -> tuple[TrainState, Array]:
    """A scan of `train_step` over the batches of an epoch, or of a part of one.

    Returns:
        The new state and each step's loss, float32 `[steps]`.
    """

    def step(state: TrainState, batch: Array) -> tuple[TrainState, Array]:
        inputs, labels, weights = share.inputs[batch], share.labels[batch], share.weights
        if share.input_weights is not None:
            weights = weights * share.input_weights[batch]
        return train_step(
            network,
            optimizer,
            state,
            seed,
            inputs,
            labels,
            weights,
            share.shard,
            sum_over_shards,
            augment,
            decode,
        )

    return lax.scan(step, state, share.batches)


def steps_per_epoch(n: int, batch_size: int, what: str = "image") -> int:
    """How many whole batches `n` inputs make.

    Args:
        what: an input is, for the message.

    Raises:
        ValueError: `batch_size` below 1 or above `n`.
    """
    if not 1 <= batch_size <= n:
        raise ValueError(
            f"batch_size must be from 1 to the {counted(n, f'training {what}')}, not {batch_size}."
        )
    return n // batch_size


def epoch_batches(
    data_seed: int, epoch: int, n: int, batch_size: int, seed: int | None = None
) -> Array:
    """An epoch's shuffled batches, int32 `[n // batch_size, batch_size]`.

    They depend on `data_seed`, `epoch` and, for a shuffle of a member's own, its `seed` alone, so a
    resumed run sees what it would have seen. Inputs beyond the last whole batch are left out, in
    each epoch others.
    """
    key = jax.random.fold_in(jax.random.key(data_seed), epoch)
    key = key if seed is None else jax.random.fold_in(key, seed)
    steps = steps_per_epoch(n, batch_size)
    order = jax.random.permutation(key, n).astype(jnp.int32)  # with x64 of JAX's they are int64
    return order[: steps * batch_size].reshape(steps, batch_size)
