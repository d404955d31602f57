"""`SentenceClassifier`: Kim's network as a scikit-learn estimator, for notebooks and pipelines."""

import numbers
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple, Self

import jax
import numpy as np
from scipy.special import log_softmax, logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from mnist_jax import cache, constraints, inputs, loop, models, parallel, training
from mnist_jax.data import sentences
from mnist_jax.data import vectors as word_vectors
from mnist_jax.models.sentence import WIDTH, Variant, set_vectors
from mnist_jax.training import OptimizerName

_LEAST = {"members": 1, "epochs": 1, "batch_size": 1, "seed": 0, "width": 1}


class _TrainedWith(NamedTuple):
    """What predictions go by, whatever the arguments are set to afterwards."""

    network: Any  # linen module
    cased: bool
    length: int  # tokens of a sentence, for which it is compiled already


class SentenceClassifier(ClassifierMixin, BaseEstimator):
    """An ensemble of Kim's CNNs for sentences with scikit-learn's interface.

    Sentences are strings, as people write them; `data.sentences.clean` makes words of them. Labels
    are anything that `np.unique` sorts. `pickle` and `joblib` keep what is fitted.

    Args:
        variant: `"rand"`, `"static"`, `"non-static"` or `"multichannel"`, as of
            `models.sentence.SentenceCNN`; all but the first need `vectors`.
        vectors: file of word vectors, as `data.vectors.read` takes.
        members: networks trained side by side; they predict by their mean probability.
        epochs: passes over the sentences.
        batch_size: sentences a step; of fewer sentences all are one batch.
        optimizer, learning_rate: as in `training.make_optimizer`; the paper's by default.
        width: numbers in a random vector; others have their own.
        cased: whether capital letters are kept.
        seed: member i is made from `seed + i`; `seed` also shuffles the sentences.

    Attributes:
        classes_: the labels there are, sorted, `[classes]`.
        vocabulary_: the word of each token.
        params_: the trained parameters, NumPy, stacked `[members, ...]`.
        losses_: float32 `[members, steps]`, one a step.
    """

    def __init__(
        self,
        variant: Variant = "rand",
        vectors: str | PathLike[str] | None = None,
        members: int = 1,
        epochs: int = 25,
        batch_size: int = 50,
        optimizer: OptimizerName = "adadelta",
        learning_rate: float = 1.0,
        width: int = WIDTH,
        cased: bool = False,
        seed: int = 0,
    ) -> None:
        self.variant = variant
        self.vectors = vectors
        self.members = members
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.width = width
        self.cased = cased
        self.seed = seed

    def fit(self, X: Sequence[str], y: Any) -> Self:
        """Train from the beginning.

        Args:
            X: sentences, `[n]`.
            y: their labels, `[n]`.

        Raises:
            TypeError: sentences that are no strings.
            ValueError: none, none with a word, labels that cannot be right, fewer than two classes,
                or an argument of the constructor out of range.
            DataError: word vectors that cannot be read.
            NonFiniteLoss: the loss became NaN or infinite.
        """
        self._check_options()
        texts = _as_texts(X)
        labels = inputs.as_labels(y, len(texts), "a sentence")
        classes, codes = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError("labels must have at least 2 classes, not 1 class.")
        words = [sentences.clean(text, self.cased).split() for text in texts]
        vocabulary = sentences.make_vocabulary(words)
        if len(vocabulary) == 1:
            raise ValueError("sentences must have words; none of these has any.")
        given = None if self.vectors is None else word_vectors.read(self.vectors, vocabulary)
        tokens = sentences.tokenize(texts, vocabulary, self.cased)
        parallel.claim_cpu_cores(self.members)
        cache.use_compilation_cache()
        layout = parallel.plan(self.members)
        width = self.width if given is None else given.width
        network = self._network(len(classes), len(vocabulary), width)
        optimizer = training.make_optimizer(
            self.learning_rate, 1, self.optimizer, constraint=constraints.of_sentences()
        )
        seeds = range(self.seed, self.seed + self.members)
        state = parallel.init(layout, network, optimizer, seeds, training.input_of(tokens))
        if given is not None:
            gathered = parallel.gather(layout, state)
            params = set_vectors(gathered.params, given.rows, given.known)
            state = parallel.place(layout, gathered._replace(params=params))
        losses = []
        for chunk in loop.train(
            layout,
            network,
            optimizer,
            state,
            seeds,
            tokens,
            codes.astype(np.int32),
            batch_size=min(self.batch_size, len(texts)),
            epochs=self.epochs,
            data_seed=self.seed,
        ):
            losses.append(chunk.losses)
        self.classes_ = classes
        self.vocabulary_ = vocabulary
        self.params_ = parallel.gather(layout, chunk.state.params)
        self.losses_ = np.concatenate(losses, axis=1)
        self._trained_with = _TrainedWith(network, self.cased, tokens.shape[1])
        return self

    def predict_logits(self, X: Sequence[str]) -> np.ndarray:
        """Each member's logits, float32 `[members, n, classes]`.

        Raises:
            TypeError, ValueError: sentences that are no strings, or none.
            NotFittedError: before `fit`.
        """
        check_is_fitted(self)
        network, cased, length = self._trained_with
        tokens = sentences.tokenize(_as_texts(X), self.vocabulary_, cased, length)
        members = len(jax.tree.leaves(self.params_)[0])
        parallel.claim_cpu_cores(members)
        layout = parallel.plan(members)
        predict = parallel.make_predict(layout, network)
        return predict(parallel.place(layout, self.params_), tokens)

    def predict_proba(self, X: Sequence[str]) -> np.ndarray:
        """The members' mean probability of each class, float32 `[n, classes]`; rows add up to 1."""
        by_member = log_softmax(self.predict_logits(X).astype(np.float64), axis=-1)
        return np.exp(logsumexp(by_member, axis=0) - np.log(len(by_member))).astype(np.float32)

    def predict(self, X: Sequence[str]) -> np.ndarray:
        """The likeliest class of each sentence, `[n]`, as the labels given to `fit`."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def __sklearn_tags__(self) -> Tags:
        """For scikit-learn: sentences are strings."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags

    def _network(self, num_classes: int, words: int, width: int) -> Any:
        return models.create(
            "sentence", num_classes, words=words, width=width, variant=self.variant
        )

    def _check_options(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
            if not is_whole or value < least:
                raise ValueError(
                    f"{name} must be a whole number of at least {least}, not {value!r}."
                )
        if self.seed + self.members > 2**32:
            raise ValueError(f"seed + members must be at most 2 ** 32; seed is {self.seed}.")
        if not isinstance(self.learning_rate, numbers.Real):
            raise ValueError(f"learning_rate must be a number, not {self.learning_rate!r}.")
        self._network(2, 2, 2)  # for its variant
        if (self.variant == "rand") != (self.vectors is None):
            needs = "has no use for" if self.variant == "rand" else "needs"
            raise ValueError(f"variant {self.variant!r} {needs} vectors, a file of word vectors.")


def _as_texts(texts: Any) -> list[str]:
    """Sentences out of any sequence of strings.

    Raises:
        TypeError, ValueError: one string alone, other things than strings, or none.
    """
    if isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Iterable):
        kind = "one string" if isinstance(texts, str) else type(texts).__name__
        raise TypeError(f"sentences must be a list of strings, not {kind}.")
    if hasattr(texts, "columns"):  # of a frame a list would be its columns' names
        raise TypeError("sentences must be one column of the frame, such as X['text'].")
    shape = getattr(texts, "shape", (0,))
    if len(shape) != 1:
        raise ValueError(f"sentences must be [n], not {shape}.")
    listed = list(texts)
    for i, text in enumerate(listed):
        if not isinstance(text, str):
            raise TypeError(f"sentences must be strings, not {type(text).__name__} as at {i}.")
    if not listed:
        raise ValueError("there must be at least 1 sentence.")
    return listed
