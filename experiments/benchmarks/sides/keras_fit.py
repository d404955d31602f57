"""Keras 3, trained by `fit` from arrays in memory; KERAS_BACKEND says on what."""

from collections.abc import Callable

import keras
import numpy as np
from keras import layers

from experiments.benchmarks.sides import fastest
from experiments.benchmarks.workloads import BATCH, EPS, LEARNING_RATE, Network, Weights


class Keras:
    """The side of Keras on one of its backends."""

    def __init__(self, jit_compile: bool) -> None:
        self.jit_compile = jit_compile

    def losses(
        self, network: Network, weights: Weights, images: np.ndarray, labels: np.ndarray
    ) -> list[float]:
        model = self._build(network, dropout=0.0)
        model.set_weights([array for layer in weights for array in layer if array is not None])
        x, losses = to_float(images), []
        for start in range(0, len(labels), BATCH):
            model.reset_metrics()  # the loss that Keras reports is the mean since the last reset
            batch = slice(start, start + BATCH)
            losses.append(float(model.train_on_batch(x[batch], labels[batch])))
        return losses

    def trainer(
        self, network: Network, members: int, images: np.ndarray, labels: np.ndarray
    ) -> Callable[[int], None]:
        x = to_float(images)
        models = [self._build(network, network.dropout) for _ in range(members)]

        def run(steps: int) -> None:
            epochs, rest = divmod(steps, len(labels) // BATCH)
            for model in models:
                for n, times in ((len(labels) // BATCH * BATCH, epochs), (rest * BATCH, 1)):
                    if n and times:
                        model.fit(x[:n], labels[:n], batch_size=BATCH, epochs=times, verbose=0)

        return run

    def predictor(
        self, network: Network, weights: Weights, images: np.ndarray
    ) -> Callable[[], np.ndarray]:
        model = self._build(network, network.dropout)
        model.set_weights([array for layer in weights for array in layer if array is not None])
        x = to_float(images)
        return fastest(lambda batch: model.predict(x, batch_size=batch, verbose=0))

    def _build(self, network: Network, dropout: float) -> keras.Model:
        model = keras.Sequential([keras.Input((28, 28, 1))])
        for features in network.convolutions:
            model.add(layers.Conv2D(features, 3, padding="same", use_bias=network.conv_bias))
            model.add(layers.MaxPooling2D(2, padding="same"))
            model.add(layers.ReLU())
            model.add(layers.Dropout(dropout))
        model.add(layers.Flatten())
        for features in network.dense:
            model.add(layers.Dense(features, activation="relu"))
            model.add(layers.Dropout(dropout))
        model.add(layers.Dense(10))
        model.compile(
            optimizer=keras.optimizers.Adam(LEARNING_RATE, epsilon=EPS),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=self.jit_compile,
        )
        return model


def to_float(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / 255
