"""Flax linen as its examples are written: `nn.Conv`, Optax, one jitted call a step, one device."""

from collections.abc import Callable, Iterator
from functools import partial

import flax.linen as nn
import jax
import numpy as np
import optax
from flax.training.train_state import TrainState
from jax import Array

from experiments.benchmarks.sides import fastest, linen_params
from experiments.benchmarks.workloads import BATCH, EPS, LEARNING_RATE, Network, Weights


class CNN(nn.Module):
    network: Network
    dropout: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        for features in self.network.convolutions:
            x = nn.Conv(features, (3, 3), use_bias=self.network.conv_bias)(x)
            x = nn.relu(nn.max_pool(x, (2, 2), strides=(2, 2), padding="SAME"))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = x.reshape(len(x), -1)
        for features in self.network.dense:
            x = nn.relu(nn.Dense(features)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(10)(x)


@partial(jax.jit, donate_argnums=0)
def train_step(
    state: TrainState, key: Array, images: Array, labels: Array
) -> tuple[TrainState, Array]:
    key = jax.random.fold_in(key, state.step)

    def loss_fn(params: dict) -> Array:
        logits = state.apply_fn({"params": params}, images, train=True, rngs={"dropout": key})
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    return state.apply_gradients(grads=grads), loss


@jax.jit
def predict(state: TrainState, images: Array) -> Array:
    return state.apply_fn({"params": state.params}, images, train=False)


class FlaxLinen:
    """Flax's side."""

    def losses(
        self, network: Network, weights: Weights, images: np.ndarray, labels: np.ndarray
    ) -> list[float]:
        state, x = create_state(CNN(network, 0.0), linen_params(weights)), to_float(images)
        losses = []
        for start in range(0, len(labels), BATCH):
            batch = slice(start, start + BATCH)
            state, loss = train_step(state, jax.random.key(0), x[batch], labels[batch])
            losses.append(float(loss))
        return losses

    def trainer(
        self, network: Network, members: int, images: np.ndarray, labels: np.ndarray
    ) -> Callable[[int], None]:
        x, model = to_float(images), CNN(network, network.dropout)
        keys = [jax.random.key(seed) for seed in range(members)]
        states = [
            create_state(model, model.init(key, x[:1], train=False)["params"]) for key in keys
        ]
        batches = shuffled(len(labels))

        def run(steps: int) -> None:
            for member, key in enumerate(keys):
                for _ in range(steps):
                    batch = next(batches)
                    states[member], _ = train_step(states[member], key, x[batch], labels[batch])
            jax.block_until_ready(states)

        return run

    def predictor(
        self, network: Network, weights: Weights, images: np.ndarray
    ) -> Callable[[], np.ndarray]:
        state = create_state(CNN(network, network.dropout), linen_params(weights))
        x = to_float(images)

        def run(batch: int) -> np.ndarray:
            chunks = range(0, len(x), batch)
            return np.concatenate([predict(state, x[start : start + batch]) for start in chunks])

        return fastest(run)


def create_state(model: nn.Module, params: dict) -> TrainState:
    optimizer = optax.adam(LEARNING_RATE, eps=EPS)
    return TrainState.create(apply_fn=model.apply, params=params, tx=optimizer)


def shuffled(n: int) -> Iterator[np.ndarray]:
    """Each epoch's batches, without end."""
    rng = np.random.default_rng(0)
    while True:
        yield from rng.permutation(n)[: n // BATCH * BATCH].reshape(-1, BATCH)


def to_float(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / 255
