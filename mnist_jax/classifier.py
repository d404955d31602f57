"""`Classifier`: the lab's class, as a scikit-learn estimator, for notebooks and pipelines."""

import inspect
import math
import numbers
import signal
import sys
import warnings
from functools import partial
from os import PathLike
from typing import Any, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from rich import get_console
from scipy.special import log_softmax, logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from mnist_jax import (
    augment,
    cache,
    classifier_folder,
    inputs,
    loop,
    models,
    parallel,
    training,
)
from mnist_jax.classifier_folder import Fitted
from mnist_jax.training import OptimizerName, ScheduleName
from mnist_jax.words import counted

_LEAST = {"members": 1, "epochs": 1, "batch_size": 1, "seed": 0, "n_iter_no_change": 1}
_NOTHING = 1e-4  # nats; scikit-learn's MLPClassifier has it as its tol
_NUMBERS = ("learning_rate", "weight_decay", "ema", "validation_fraction")


class Classifier(ClassifierMixin, BaseEstimator):
    """An ensemble of CNNs with scikit-learn's interface.

    Images are `[n, height, width, channels]` of any size, with 1 or 3 channels, `[n, height,
    width]`, or rows `[n, 784]` of 28 x 28, as arrays, frames or nested lists: whole numbers 0 to
    255, floats in [0, 1], or bools, of which True is white. Once fitted, only images of the same
    size and channels are taken, also as rows. Labels are anything that `np.unique` sorts.

    On a CPU all cores are used where JAX has not started before; a warning says what to do where it
    has. What is compiled is kept: for `fit`s with the same arguments and as many images, and in
    `~/.cache/mnist_jax` for later processes. Predictions depend on the fitted attributes alone.

    Args:
        network: a name in `models.NAMES`, a network with options by `models.create`, or a linen
            module of one's own with a logit for each class and no collections of variables but
            `params` and `batch_stats`. With the latter it must work as `models.resnet.ResNet` does:
            take `weights`, and have the fields `axis_name` and `axis_index_groups`. Logits beyond
            the classes, as where a fold of a cross-validation lacks the last one, are left out of
            predictions.
        members: networks trained side by side; they predict by their mean probability.
        epochs: passes over the images, at most.
        batch_size: images a step; of fewer images all are one batch.
        learning_rate: the optimizer's, or the largest of the schedule.
        seed: member i is made from `seed + i`; `seed` also shuffles the images and chooses those
            for validation.
        verbose: show a line with epoch and loss while it trains.
        optimizer, schedule, weight_decay, ema: as in `training.make_optimizer`; predictions are
            made with the moving average of the weights where there is one.
        augment: a name in `augment.create`; `"handwriting"` is for 28 x 28 grey images of the
            labels 0 to 9.
        early_stopping: hold images out for validation, stop when they are predicted no better, and
            keep the parameters that predicted them best.
        validation_fraction: of the images, of each class in proportion, that are held out.
        n_iter_no_change: epochs that better the best score by less than 1e-4 in all, after which
            training stops.

    Attributes:
        classes_: the labels there are, sorted, `[classes]`.
        params_: the trained parameters, NumPy, stacked `[members, ...]`.
        batch_stats_: what batch normalisation goes by, stacked likewise, or None.
        losses_: float32 `[members, steps]`, one a step.
        n_iter_: epochs that training went through, or into.
        image_shape_: height, width and channels of the images.
        n_features_in_: how many values an image has; with a frame also `feature_names_in_`.
        validation_scores_: float64 `[epochs]` with early stopping, otherwise None: the mean
            log-probability of the right class of the images held out, as in scikit-learn's
            `neg_log_loss`; higher is better.
        best_validation_score_: the largest of them, or None.
        best_epoch_: from 1, the epoch after which that was; `params_` are those. Or None.
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
        optimizer: OptimizerName = "adam",
        schedule: ScheduleName = "constant",
        weight_decay: float = 0.0,
        ema: float | None = None,
        augment: augment.Name = "none",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
    ) -> None:
        self.network = network
        self.members = members
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.seed = seed
        self.verbose = verbose
        self.optimizer = optimizer
        self.schedule = schedule
        self.weight_decay = weight_decay
        self.ema = ema
        self.augment = augment
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train from the beginning. Ctrl-C ends it early, with a warning, and keeps what there is.

        Args:
            X: images, as the class says.
            y: their labels, `[n]`.
            sample_weight: of each image in the loss, `[n]`, at least 0. Only their proportions
                count: they are scaled to a mean of 1, and each batch's loss is the sum of its
                weighted losses divided by its size. An image of weight 0 is as if it were not
                there. With early stopping they also weight the validation scores.

        Raises:
            ValueError: images, labels or weights that cannot be right, fewer than two classes, or
                an argument of the constructor out of range.
            NonFiniteLoss: the loss became NaN or infinite.
            RuntimeError: in a process forked from one in which JAX had started.
        """
        _check_options(self)
        pixels = self._pixels(X, reset=True)
        inputs.warn_if_dark(pixels)
        labels = inputs.as_labels(y, len(pixels))
        weights = inputs.as_weights(sample_weight, len(pixels))
        if weights is not None:
            pixels, labels, weights = (part[weights > 0] for part in (pixels, labels, weights))
            weights = None if (weights == weights[0]).all() else weights
        classes, codes = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError("labels must have at least 2 classes, not 1 class.")
        if self.augment == "handwriting":
            _check_digits(pixels, classes)
        split = _split(self, codes)
        data = _Data(pixels, codes.astype(np.int32), weights)
        network = _make_network(self.network, len(classes))
        parallel.claim_cpu_cores(self.members)
        cache.use_compilation_cache()
        if isinstance(self.network, str):
            _check_size(self.network, network, pixels.shape[1:])
        else:
            _check_network(network, len(classes), pixels.shape[1:])
        result = _train(self, network, *(_take(data, part) for part in split))
        arguments = self.get_params(deep=False)
        self._take_over(Fitted(arguments, classes, pixels.shape[1:], *result, feature_names=None))
        return self

    def predict_logits(self, X: Any) -> np.ndarray:
        """Each member's logits, float32 `[members, n, classes]`.

        Raises:
            ValueError: images of a wrong shape or range.
            NotFittedError: before `fit`.
            RuntimeError: in a process forked from one in which JAX had started.
        """
        check_is_fitted(self)
        pixels = self._pixels(X, reset=False)
        members = len(jax.tree.leaves(self.params_)[0])
        parallel.claim_cpu_cores(members)
        cache.use_compilation_cache()
        layout = parallel.plan(members)
        network = _make_network(self._trained_with["network"], len(self.classes_))
        predict = parallel.make_predict(layout, network)
        variables = training.variables_of(self.params_, self.batch_stats_)
        logits = predict(parallel.place(layout, variables), pixels)
        return logits[..., : len(self.classes_)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The members' mean probability of each class, float32 `[n, classes]`; rows add up to 1."""
        return np.exp(_log_probabilities(self.predict_logits(X))).astype(np.float32)

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each image, `[n]`, as the labels given to `fit`."""
        best = _log_probabilities(self.predict_logits(X)).argmax(axis=1)
        return self.classes_[best]

    def save(self, folder: str | PathLike[str]) -> None:
        """Keep what `fit` has made in a new or empty folder.

        `python -m experiments.predict FOLDER ...` takes it, and `experiments.evaluate` with
        `--dataset` or `--data-dir`. Images of 28 x 28 x 1 with labels of one character each, such
        as digits, say that pictures are to be centred as MNIST's were; others of that size, that
        they are taken as they are; and images of another size, that pictures are scaled to it.
        `pickle` and `joblib` work as well, also for networks of one's own, but only with the
        versions that wrote the file.

        Raises:
            NotFittedError: before `fit`.
            ValueError: the folder exists and is not empty, the network is none of `models.NAMES`,
                or labels that are no numbers, bools or strings.
            OSError: the folder cannot be written.
        """
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        scores = self.validation_scores_
        fitted = Fitted(
            self._trained_with,
            self.classes_,
            self.image_shape_,
            training.variables_of(self.params_, self.batch_stats_),
            self.losses_,
            self.n_iter_,
            [] if scores is None else scores.tolist(),
            None if names is None else names.tolist(),
        )
        classifier_folder.write(folder, fitted)

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> Self:
        """The fitted estimator that `save` has kept in a folder.

        Raises:
            ValueError: the folder is none that `save` has made.
            CheckpointError: its checkpoint is damaged.
        """
        return cls._of(classifier_folder.read(folder))

    @classmethod
    def pretrained(cls) -> Self:
        """The networks that come with the package, as if fitted: they know digits.

        They take 28 x 28 pixels, light on black, scaled and centred as MNIST's are, which
        `mnist_jax.images.find_digits` makes of photographs; labels are 0 to 9. Of their training
        `losses_` says nothing. `pretrained/MODEL_CARD.md` tells what they are.
        """
        return cls._of(classifier_folder.read_pretrained())

    @classmethod
    def _of(cls, fitted: Fitted) -> Self:
        """An estimator that was fitted before."""
        classifier = cls(**fitted.arguments)
        classifier._take_over(fitted)
        if fitted.feature_names is not None:
            classifier.feature_names_in_ = np.array(fitted.feature_names, dtype=object)
        classifier.n_features_in_ = math.prod(fitted.image_shape)
        return classifier

    def _take_over(self, fitted: Fitted) -> None:
        """Set all attributes but those of the columns."""
        self.classes_ = fitted.classes
        self.image_shape_ = fitted.image_shape
        self.params_ = fitted.variables["params"]
        self.batch_stats_ = fitted.variables.get("batch_stats")
        self.losses_ = fitted.losses
        self.n_iter_ = fitted.epochs
        scores = fitted.scores
        self.validation_scores_ = np.array(scores) if scores else None
        self.best_validation_score_ = max(scores) if scores else None
        self.best_epoch_ = int(np.argmax(scores)) + 1 if scores else None
        self._trained_with = fitted.arguments

    def __sklearn_tags__(self) -> Tags:
        """For scikit-learn: images also have three axes, and no negative values."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.positive_only = True
        return tags

    def _pixels(self, images: Any, reset: bool) -> np.ndarray:
        """`inputs.as_images`, after scikit-learn's check (or, to `reset`, note) of the columns."""
        pixels = inputs.as_images(images, None if reset else self.image_shape_)
        table = images if hasattr(images, "columns") else pixels.reshape(len(pixels), -1)
        validate_data(self, table, skip_check_array=True, reset=reset)
        return pixels


class _Data(NamedTuple):
    """What `_train` takes."""

    images: np.ndarray  # uint8 or float32 [n, height, width, channels]
    codes: np.ndarray  # int32 [n], places in classes_
    weights: np.ndarray | None  # float64 [n]


class _Result(NamedTuple):
    """What `_train` gives."""

    variables: Any  # NumPy, [members, ...]
    losses: np.ndarray  # float32 [members, steps]
    epochs: int
    scores: list[float]  # of each epoch, where there are images for validation


def _train(options: Classifier, network: nn.Module, data: _Data, validation: _Data) -> _Result:
    """Train by the options; validate after each epoch where there are images for that."""
    members, epochs = options.members, options.epochs
    num_classes = data.codes.max() + 1
    layout = parallel.plan(members)
    batch_size = min(options.batch_size, len(data.codes))
    steps = epochs * training.steps_per_epoch(len(data.codes), batch_size)
    optimizer = _make_optimizer(options, steps)
    seeds = range(options.seed, options.seed + members)
    state = parallel.init(layout, network, optimizer, seeds, training.input_of(data.images))
    predict = parallel.make_predict(layout, network)
    weights = None if data.weights is None else data.weights / data.weights.mean()
    losses: list[np.ndarray] = []
    scores: list[float] = []
    best = None
    with loop.interrupts() as interrupted, _Line(options.verbose) as line:
        line.show("compiling")
        for chunk in loop.train(
            layout,
            network,
            optimizer,
            state,
            seeds,
            data.images,
            data.codes,
            batch_size=batch_size,
            epochs=epochs,
            data_seed=options.seed,
            augment=augment.create(options.augment),
            input_weights=weights,
        ):
            losses.append(chunk.losses)
            text = f"epoch {chunk.epoch}/{epochs}, loss {chunk.losses.mean():.4f}"
            ended = chunk.steps_done == chunk.steps
            if ended and len(validation.codes):
                variables = training.evaluated(chunk.state)
                logits = predict(variables, validation.images)[..., :num_classes]
                scores.append(_score(logits, validation))
                text += f", validation {scores[-1]:.4f}"
                if best is None or scores[-1] > max(scores[:-1]):
                    best = parallel.gather(layout, variables)
            line.show(text, ended)
            if interrupted or _no_better(scores, options.n_iter_no_change):
                break
        trained = parallel.gather(layout, training.evaluated(chunk.state))
    if interrupted:
        _tell_interrupt(interrupted[0], text)
    variables = trained if best is None else best
    return _Result(variables, np.concatenate(losses, axis=1), chunk.epoch, scores)


def _make_optimizer(options: Classifier, steps: int) -> Any:
    return training.make_optimizer(
        options.learning_rate,
        1 if options.schedule == "constant" else steps,  # or another length compiles anew
        options.optimizer,
        options.schedule,
        options.weight_decay,
        ema=options.ema,
    )


def _make_network(network: str | nn.Module, num_classes: int) -> nn.Module:
    return models.create(network, num_classes) if isinstance(network, str) else network


def _check_network(network: nn.Module, num_classes: int, image_shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a module can be trained and gives a logit for each class."""
    init = partial(network.init_with_output, train=False)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    logits, variables = jax.eval_shape(init, jax.random.key(0), image)
    shape: tuple[int, ...] = getattr(logits, "shape", ())
    if len(shape) != 2 or shape[0] != 1 or shape[1] < num_classes:
        raise ValueError(
            f"network must give [n, {num_classes}] logits, one a class, not {shape} for one image."
        )
    if not {"params"} <= variables.keys() <= {"params", "batch_stats"}:
        raise ValueError(
            f"network must have params, may have batch_stats, and nothing else; "
            f"it has {', '.join(variables)}."
        )
    fields = {"axis_name", "axis_index_groups"}
    takes_weights = "weights" in inspect.signature(network.__call__).parameters
    if "batch_stats" in variables and not (
        takes_weights and fields <= network.__dataclass_fields__.keys()
    ):
        raise ValueError(
            "network has batch_stats, so it must have the fields axis_name and axis_index_groups, "
            "and be called with weights, as mnist_jax.normalization.BatchNorm is."
        )


def _check_size(name: str, network: nn.Module, image_shape: tuple[int, ...]) -> None:
    """Raise ValueError where a network of `models.NAMES` cannot take images of this shape."""
    try:
        models.check_size(name, network, image_shape)
    except ValueError as error:
        raise ValueError(
            f"{error} To scale images, make the network by models.create({name!r}, "
            f"{network.num_classes}, image_size=...)."
        ) from None


def _check_digits(images: np.ndarray, classes: np.ndarray) -> None:
    if images.shape[1:] != training.IMAGE.shape:
        size = " x ".join(map(str, images.shape[1:]))
        raise ValueError(f"augment handwriting needs images of 28 x 28 x 1, not {size}.")
    if classes.astype(str).tolist() != list("0123456789"):
        raise ValueError(f"augment handwriting needs the labels 0 to 9, not {classes}.")


def _check_options(options: Classifier) -> None:
    """Raise ValueError for what would not be found out, or not plainly, by what comes after."""
    for name, least in _LEAST.items():
        value = getattr(options, name)
        if not isinstance(value, numbers.Integral) or isinstance(value, bool):
            raise ValueError(f"{name} must be a whole number, not {value!r}.")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}.")
    for name in _NUMBERS:
        value = getattr(options, name)
        if not isinstance(value, numbers.Real) and not (name == "ema" and value is None):
            raise ValueError(f"{name} must be a number, not {value!r}.")
    if not isinstance(options.network, str | nn.Module):
        raise ValueError(f"network must be a name or a linen module, not {options.network!r}.")
    if options.network in models.OF_SENTENCES:
        raise ValueError(f"network {options.network!r} reads sentences: use SentenceClassifier.")
    if options.seed + options.members > 2**32:
        raise ValueError(f"seed + members must be at most 2 ** 32; seed is {options.seed}.")
    if not 0 < options.validation_fraction < 1:
        raise ValueError(
            f"validation_fraction must be above 0 and below 1, not {options.validation_fraction}."
        )
    _make_optimizer(options, steps=1)
    augment.create(options.augment)


def _split(options: Classifier, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which images to train on, and which to hold out, as places."""
    everything = np.arange(len(codes))
    if not options.early_stopping:
        return everything, everything[:0]
    from sklearn.model_selection import train_test_split  # takes a while, and few need it

    try:
        train, validation = train_test_split(
            everything,
            test_size=options.validation_fraction,
            stratify=codes,
            random_state=options.seed,
        )
    except ValueError as error:
        raise ValueError(
            f"validation_fraction {options.validation_fraction} of {counted(len(codes), 'image')} "
            f"of {codes.max() + 1} classes cannot be held out: {error}"
        ) from None
    return np.sort(train), np.sort(validation)


def _take(data: _Data, places: np.ndarray) -> _Data:
    if len(places) == len(data.codes):
        return data
    weights = None if data.weights is None else data.weights[places]
    return _Data(data.images[places], data.codes[places], weights)


def _log_probabilities(logits: np.ndarray) -> np.ndarray:
    """`ensemble.mean_probability` on the host, where another n is not another program to compile.

    float64 `[n, classes]`.
    """
    by_member = log_softmax(logits.astype(np.float64), axis=-1)
    return logsumexp(by_member, axis=0) - np.log(len(logits))


def _score(logits: np.ndarray, validation: _Data) -> float:
    """The mean log-probability of the right classes."""
    each = _log_probabilities(logits)[np.arange(len(validation.codes)), validation.codes]
    return float(np.average(each, weights=validation.weights))


def _no_better(scores: list[float], patience: int) -> bool:
    """Whether so many epochs have brought nothing."""
    before, after = scores[:-patience], scores[-patience:]
    return bool(before) and max(after) < max(before) + _NOTHING


def _tell_interrupt(number: int, text: str) -> None:
    """Ctrl-C was for the training; anything else is for the process, now that nothing is lost."""
    if number != signal.SIGINT:
        signal.raise_signal(number)
    warnings.warn(f"Training was interrupted at {text}.", ConvergenceWarning, stacklevel=4)


class _Line:
    """A line that each text replaces, in a terminal or notebook; elsewhere a line an epoch."""

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose
        self._replace = verbose and (sys.stdout.isatty() or get_console().is_jupyter)
        self._length = 0

    def __enter__(self) -> "_Line":
        return self

    def __exit__(self, *_: object) -> None:
        if self._replace and self._length:
            print(flush=True)

    def show(self, text: str, ended: bool = False) -> None:
        """`ended` says that this is an epoch's last text."""
        if self._replace:
            print(f"\r{text:{self._length}}", end="", flush=True)
            self._length = len(text)
        elif self._verbose and ended:
            print(text, flush=True)
