"""Many members at once: their states stacked along a leading axis, their predictions combined."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.typing import ArrayLike

from mnist_jax import platforms, training
from mnist_jax.augment import Augment
from mnist_jax.training import Decode, Share, TrainState


def init_state(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    seeds: Array,
    input_: jax.ShapeDtypeStruct = training.IMAGE,
) -> TrainState:
    """The stacked state of one member a seed; `seeds` is an integer `[members]`."""
    init = partial(training.init_state, network, optimizer, input_=input_)
    return jax.vmap(init)(seeds)


def train_epoch(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    seeds: Array,
    share: Share,
    sum_over_shards: Callable[[Any], Any] = lambda tree: tree,
    augment: Augment | None = None,
    decode: Decode = training.to_float,
) -> tuple[TrainState, Array]:
    """`training.train_epoch` for all members.

    The share's batches are `[steps, batch]`, the same for all members, or
    `[members, steps, batch]`.

    Returns:
        The new stacked state and the losses, float32 `[members, steps]`.
    """

    def one_member(
        state: TrainState, seed: Array, batches: Array = share.batches
    ) -> tuple[TrainState, Array]:
        mine = share._replace(batches=batches)
        return training.train_epoch(
            network, optimizer, state, seed, mine, sum_over_shards, augment, decode
        )

    def in_turn(state: TrainState, *others: Array) -> tuple[TrainState, Array]:
        def next_member(states: TrainState, i: Array) -> tuple[TrainState, Array]:
            member = jax.tree.map(lambda leaf: leaf[i], (states, *others))
            new, losses = one_member(*member)
            # In place: as an output of its own the new state would double the memory.
            return jax.tree.map(lambda leaf, part: leaf.at[i].set(part), states, new), losses

        return lax.scan(next_member, state, jnp.arange(len(seeds)))

    own = [share.batches] if share.batches.ndim == 3 else []
    at_once = jax.vmap(one_member)
    return platforms.choose(state, seeds, *own, cpu=in_turn, tpu=in_turn, default=at_once)


def map_members(function: Callable[..., Any], *stacked: Any) -> Any:
    """`function` of each member's part of stacked trees; its results stacked.

    On a GPU this is `vmap`. On a CPU or TPU the members take turns, which gives the same results
    sooner: the working set of one member is as much as a core's caches, or a chip's, hold.
    """

    def in_turn(*stacked: Any) -> Any:
        return lax.map(lambda member: function(*member), stacked)

    return platforms.choose(*stacked, cpu=in_turn, tpu=in_turn, default=jax.vmap(function))


def sum_logits(logits: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """The lab's rule: add the members' logits, `[members, n, classes]` to `[n, classes]`.

    Good for the class; as a distribution it is far too sure, since M members that agree sharpen
    each other M times. For probabilities take `mean_probability`.

    Args:
        logits: float `[members, n, classes]`.
        weights: `[members]`, at least 0; 0 leaves a member out. Default 1 each.
    """
    return _weighted_sum(jnp.asarray(logits), weights)


def mean_probability(logits: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """The members' mean probability, as log-probabilities `[n, classes]`.

    Source: Lakshminarayanan et al. 2017, section 2.4.

    Args:
        logits: float `[members, n, classes]`.
        weights: `[members]`, at least 0; 0 leaves a member out. Default 1 each.
    """
    log_probs = jax.nn.log_softmax(jnp.asarray(logits))
    weights = _weights(log_probs, weights)
    taking_part = jnp.where(weights[:, None, None] > 0, log_probs, -jnp.inf)
    # logsumexp by hand: as a matrix product its sum is several times faster on a CPU.
    largest = jnp.max(taking_part, axis=0, initial=jnp.finfo(jnp.float32).min)
    total = jnp.tensordot(weights, jnp.exp(taking_part - largest), axes=1, precision="highest")
    return largest + jnp.log(total / jnp.sum(weights))


def majority_vote(logits: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """Each member votes for its class, `[members, n, classes]` to log-probabilities `[n, classes]`.

    A class's probability is (votes + mean probability) / (members + 1): the members' mean
    probability is one more vote, divided among the classes. It decides between classes of equally
    many votes and never against more votes.

    Args:
        logits: float `[members, n, classes]`.
        weights: `[members]`, how many votes each has; 0 leaves a member out. Default 1 each.
    """
    logits = jnp.asarray(logits)
    votes = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=jnp.float32)
    members = jnp.sum(_weights(logits, weights))
    counted = jnp.log(_weighted_sum(votes, weights))
    return jnp.logaddexp(counted, mean_probability(logits, weights)) - jnp.log(members + 1)


def _weights(logits: Array, weights: ArrayLike | None) -> Array:
    return (
        jnp.ones(len(logits), jnp.float32) if weights is None else jnp.asarray(weights, jnp.float32)
    )


def _weighted_sum(values: Array, weights: ArrayLike | None) -> Array:
    return jnp.sum(_weights(values, weights)[:, None, None] * values, axis=0)
