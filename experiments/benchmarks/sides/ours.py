"""mnist_jax, used as `experiments/run.py` uses it: CPU cores are JAX devices."""

from collections.abc import Callable
from itertools import count
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.sides import linen_params
from experiments.benchmarks.workloads import (
    BATCH,
    LEARNING_RATE,
    NETWORKS,
    Network,
    Published,
    Weights,
)
from experiments.workdir import stacks
from experiments.workdir.config import get
from mnist_jax import loop, metrics, models, parallel, training
from mnist_jax.parallel import Layout

_STEPS = 1_000_000  # of the optimizer, whose learning rate is constant
_EPOCHS = 1_000_000
_PUBLISHED_STEPS = 10  # in one call


class MnistJax:
    """The library's side."""

    def losses(
        self, network: Network, weights: Weights, images: np.ndarray, labels: np.ndarray
    ) -> list[float]:
        layout = parallel.plan(members=1)
        module, optimizer = _module(network, 0.0), training.make_optimizer(LEARNING_RATE, _STEPS)
        params = linen_params(weights)
        state = training.TrainState(jnp.int32(0), params, optimizer.init(params))
        state = parallel.place(layout, _stack(state))
        data = parallel.replicate(layout, images), parallel.replicate(layout, labels)
        batches = np.arange(len(labels), dtype=np.int32).reshape(-1, BATCH)
        train = parallel.compile_train(
            layout, module, optimizer, [0], state, *data, BATCH, len(batches)
        )
        _, losses = train(state, *data, batches)
        return [float(loss) for loss in parallel.gather(layout, losses)[0]]

    def trainer(
        self, network: Network, members: int, images: np.ndarray, labels: np.ndarray
    ) -> Callable[[int], Any]:
        parallel.use_cpu_cores(members=members)
        return make_trainer(parallel.plan(members), _module(network), images, labels)

    def published_trainer(
        self, published: Published, images: np.ndarray, labels: np.ndarray
    ) -> Callable[[int], None]:
        parallel.use_cpu_cores()
        layout, decode = parallel.plan(members=1), models.decode_of(published.network)
        network = models.create(published.network, published.classes, **published.options)
        optimizer = (
            training.make_optimizer(0.1, _STEPS, "momentum")
            if published.optimizer == "momentum"
            else training.make_optimizer(LEARNING_RATE, _STEPS)
        )
        state = parallel.init(layout, network, optimizer, [0], training.input_of(images, decode))
        data = parallel.replicate(layout, images), parallel.replicate(layout, labels)
        train = parallel.compile_train(
            layout,
            network,
            optimizer,
            [0],
            state,
            *data,
            published.batch,
            _PUBLISHED_STEPS,
            decode=decode,
        )
        rng = np.random.default_rng(0)

        def run(steps: int) -> None:
            nonlocal state
            for _ in range(steps // _PUBLISHED_STEPS):
                batches = [
                    rng.permutation(len(labels))[: published.batch] for _ in range(_PUBLISHED_STEPS)
                ]
                state, losses = train(state, *data, np.array(batches, np.int32))
                jax.block_until_ready(losses)

        return run

    def predictor(
        self, network: Network, weights: Weights, images: np.ndarray
    ) -> Callable[[], np.ndarray]:
        parallel.use_cpu_cores()
        layout = parallel.plan(members=1)
        params = parallel.place(layout, _stack(linen_params(weights)))
        predict = parallel.make_predict(layout, _module(network))
        return lambda: predict(params, images)[0]

    def recipe(
        self, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
    ) -> Callable[[], float]:
        """The config `fast`; each time from the same initial weights, in another order."""
        parallel.use_cpu_cores()
        config, _ = get("fast")
        layout, network, n = parallel.plan(members=1), models.create(config.network), len(train[1])
        steps = training.steps_per_epoch(n, config.batch_size)
        optimizer = stacks.make_optimizer(config, steps)
        start = parallel.init(layout, network, optimizer, [config.seed])
        data = parallel.replicate(layout, train[0]), parallel.replicate(layout, train[1])
        train_epoch = parallel.compile_train(
            layout, network, optimizer, [config.seed], start, *data, config.batch_size, steps
        )
        predict = parallel.make_predict(layout, network)
        epochs = count()

        def run() -> float:
            state = jax.tree.map(jnp.copy, start)  # training uses its state's buffers up
            batches = training.epoch_batches(0, next(epochs), n, config.batch_size)
            state, _ = train_epoch(state, *data, np.asarray(batches))
            return float(metrics.accuracy(predict(state.params, test[0]), test[1])[0])

        return run


def make_trainer(
    layout: Layout, module: nn.Module, images: np.ndarray, labels: np.ndarray
) -> Callable[[int], None]:
    """A function that trains a layout's members for some steps; whole chunks of `loop.train`."""
    seeds, optimizer = range(layout.members), training.make_optimizer(LEARNING_RATE, _STEPS)
    state = parallel.init(layout, module, optimizer, seeds)
    chunks = loop.train(
        layout,
        module,
        optimizer,
        state,
        seeds,
        images,
        labels,
        batch_size=BATCH,
        epochs=_EPOCHS,
    )

    def run(steps: int) -> None:
        done = 0
        while done < steps:
            done += next(chunks).losses.shape[1]
        assert done == steps, "a turn must be a whole number of chunks"

    return run


def _module(network: Network, dropout: float | None = None) -> nn.Module:
    name = next(name for name, other in NETWORKS.items() if other == network)
    if dropout is None or not network.dropout:
        return models.create(name)
    return models.create(name, dropout_rate=dropout)


def _stack(tree: Any) -> Any:
    """An ensemble of one."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[None], tree)
