"""`Classifier`: the lab's class, as a scikit-learn estimator, for notebooks and pipelines."""

import functools
from collections.abc import Callable
from typing import Any, Self

import flax.linen as nn
import numpy as np
from rich.progress import Progress
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from mnist_jax import ensemble, loop, models, parallel, training
from mnist_jax.parallel import Layout


class Classifier(ClassifierMixin, BaseEstimator):
    """An ensemble of CNNs with scikit-learn's interface.

    Images are `[n, 28, 28, 1]`, `[n, 28, 28]` or `[n, 784]`: whole numbers 0 to 255, or floats in
    [0, 1]. Labels are anything that `np.unique` sorts.

    Args:
        network: a name in `models.NAMES`, or a linen module of one's own with as many logits as
            there are classes.
        members: networks trained side by side; they predict by their mean probability.
        epochs: passes over the images.
        batch_size: images a step; at most as many as there are.
        learning_rate: Adam's.
        seed: member i is made from `seed + i`; `seed` also shuffles the images.
        verbose: show a progress bar.

    Attributes:
        classes_: the labels there are, sorted, `[classes]`.
        params_: the trained parameters, NumPy, stacked `[members, ...]`.
        losses_: float32 `[members, steps]`, one a step.
    """

    def __init__(
        self,
        network: str | nn.Module = "deep",
        members: int = 1,
        epochs: int = 15,
        batch_size: int = 100,
        learning_rate: float = 0.001,
        seed: int = 0,
        verbose: bool = False,
    ) -> None:
        self.network = network
        self.members = members
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.seed = seed
        self.verbose = verbose

    def fit(self, images: np.ndarray, labels: np.ndarray) -> Self:
        """Train from the beginning. Ctrl-C ends it early and keeps what is trained.

        Raises:
            ValueError: images of a wrong shape or range, another number of labels, one class only,
                or an argument of the constructor out of range.
            NonFiniteLoss: the loss became NaN or infinite.
        """
        pixels = _as_images(images)
        self.classes_, codes = np.unique(np.asarray(labels), return_inverse=True)
        if codes.shape != (len(pixels),):
            raise ValueError(f"labels must be [{len(pixels)}], one an image, not {codes.shape}.")
        if len(self.classes_) < 2:
            raise ValueError(f"labels must have at least 2 classes, not {len(self.classes_)}.")
        network = self._network()
        layout = parallel.plan(self.members)
        steps = self.epochs * training.steps_per_epoch(len(pixels), self.batch_size)
        optimizer = training.make_optimizer(self.learning_rate, steps)
        seeds = range(self.seed, self.seed + self.members)
        state = parallel.init(layout, network, optimizer, seeds, pixels.shape[1:])
        losses = []
        with (
            loop.interrupts() as interrupted,
            Progress(transient=True, disable=not self.verbose) as progress,
        ):
            task = progress.add_task("training", total=steps)
            for chunk in loop.train(
                layout,
                network,
                optimizer,
                state,
                seeds,
                pixels,
                codes.astype(np.int32),
                batch_size=self.batch_size,
                epochs=self.epochs,
                data_seed=self.seed,
            ):
                losses.append(chunk.losses)
                loss = chunk.losses.mean()
                description = f"epoch {chunk.epoch}/{self.epochs}, loss {loss:.4f}"
                progress.update(task, advance=chunk.losses.shape[1], description=description)
                if interrupted:
                    break
        self.params_ = parallel.gather(layout, chunk.state.params)
        self.losses_ = np.concatenate(losses, axis=1)
        return self

    def predict_logits(self, images: np.ndarray) -> np.ndarray:
        """Each member's logits, float32 `[members, n, classes]`.

        Raises:
            ValueError: images of a wrong shape or range.
            NotFittedError: before `fit`.
        """
        check_is_fitted(self)
        layout = parallel.plan(self.members)
        predict = parallel.make_predict(layout, self._network())
        return predict(parallel.place(layout, self.params_), _as_images(images))

    def predict_proba(self, images: np.ndarray) -> np.ndarray:
        """The members' mean probability of each class, float32 `[n, classes]`; rows add up to 1."""
        return np.exp(ensemble.mean_probability(self.predict_logits(images)))

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The likeliest class of each image, `[n]`, as the labels given to `fit`."""
        best = self.predict_proba(images).argmax(axis=1)
        return self.classes_[best]

    def _network(self) -> nn.Module:
        if isinstance(self.network, nn.Module):
            return self.network
        return models.create(self.network, len(self.classes_))


def _as_images(images: np.ndarray) -> np.ndarray:
    """uint8 or float32 `[n, 28, 28, 1]`."""
    array = np.asarray(images)
    if array.shape[1:] not in ((28, 28, 1), (28, 28), (784,)) or len(array) == 0:
        raise ValueError(
            f"images must be [n, 28, 28, 1], [n, 28, 28] or [n, 784] with n > 0, not {array.shape}."
        )
    array = array.reshape(-1, 28, 28, 1)
    if array.dtype.kind in "iu":
        if array.min() < 0 or array.max() > 255:
            raise ValueError(
                f"images of whole numbers must be 0 to 255, not {array.min()} to {array.max()}."
            )
        return array.astype(np.uint8)
    if array.dtype.kind != "f":
        raise ValueError(f"images must be whole numbers or floats, not {array.dtype}.")
    if not (array.min() >= 0 and array.max() <= 1):  # also refuses NaN
        raise ValueError(
            f"images of floats must be in [0, 1], not {array.min():g} to {array.max():g}; "
            "divide pixels by 255, or give them as uint8."
        )
    return array.astype(np.float32)
