"""How good predictions are, from logits and labels, or from scores.

Log-probabilities do wherever logits are asked for, and leading axes `...`, such as members, are
kept. All can be jitted; those that would take long without it are.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


def accuracy(logits: ArrayLike, labels: ArrayLike) -> Array:
    """Fraction of images whose largest logit is the label's; in [0, 1], higher is better.

    Args:
        logits: float `[..., n, classes]`; log-probabilities will do.
        labels: int `[n]`.

    Returns:
        float32 `[...]`.
    """
    return jnp.mean(is_correct(logits, labels), axis=-1)


def is_correct(logits: ArrayLike, labels: ArrayLike) -> Array:
    """Whether each image's largest logit is the label's.

    Args:
        logits: float `[..., n, classes]`.
        labels: int `[n]`.

    Returns:
        bool `[..., n]`.
    """
    return jnp.argmax(jnp.asarray(logits), axis=-1) == jnp.asarray(labels)


def nll(logits: ArrayLike, labels: ArrayLike) -> Array:
    """Mean negative log-likelihood of the labels, in nats; 0 is perfect, lower is better.

    Args:
        logits: float `[..., n, classes]`; log-probabilities will do.
        labels: int `[n]`.

    Returns:
        float32 `[...]`.
    """
    log_probs = jax.nn.log_softmax(jnp.asarray(logits), axis=-1)
    labels = jnp.broadcast_to(jnp.asarray(labels), log_probs.shape[:-1])
    return -jnp.mean(jnp.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0], axis=-1)


def brier(logits: ArrayLike, labels: ArrayLike) -> Array:
    """Brier score: squared distance to the label's one-hot vector, summed over classes; in [0, 2].

    0 is perfect, lower is better. Source: Brier 1950, equation 2. For two classes it is twice the
    score that counts one class only.

    Args:
        logits: float `[..., n, classes]`.
        labels: int `[n]`.

    Returns:
        float32 `[...]`, the mean over images.
    """
    probabilities = jax.nn.softmax(jnp.asarray(logits), axis=-1)
    target = jax.nn.one_hot(jnp.asarray(labels), probabilities.shape[-1], dtype=jnp.float32)
    return jnp.mean(jnp.sum((probabilities - target) ** 2, axis=-1), axis=-1)


def confusion_matrix(logits: ArrayLike, labels: ArrayLike) -> Array:
    """How many images of each class (rows) were taken for which class (columns).

    Args:
        logits: float `[..., n, classes]`.
        labels: int `[n]`.

    Returns:
        int32 `[..., classes, classes]`; each matrix adds up to n.
    """
    logits = jnp.asarray(logits)
    classes = logits.shape[-1]

    def one(predicted: Array, labels: Array) -> Array:
        return jnp.zeros((classes, classes), jnp.int32).at[labels, predicted].add(1)

    predicted = jnp.argmax(logits, axis=-1)
    return jnp.vectorize(one, signature="(n),(n)->(c,c)")(predicted, jnp.asarray(labels))


class Reliability(NamedTuple):
    """Bins of images by confidence: what a reliability diagram shows."""

    confidence: Array  # float32 [..., bins], mean of the bin's images; NaN in an empty bin
    accuracy: Array  # float32 [..., bins]; NaN in an empty bin
    images: Array  # int32 [..., bins], how many


@partial(jax.jit, static_argnames=("bins", "equal_mass"))
def reliability(
    logits: ArrayLike, labels: ArrayLike, bins: int = 15, equal_mass: bool = False
) -> Reliability:
    """Mean confidence (largest probability) and accuracy of images binned by confidence.

    Args:
        logits: float `[..., n, classes]`.
        labels: int `[n]`.
        bins: how many.
        equal_mass: False: bins of equal width, the m-th being ((m-1)/bins, m/bins] (Guo et al.
            2017, section 2). True: bins of equally many images, up to one (the adaptive bins of
            Nixon et al. 2019, section 4); images of equal confidence count with their mean
            correctness, so that their order does not matter.

    Raises:
        ValueError: `bins` below 1.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}.")
    logits = jnp.asarray(logits)
    confidences = jnp.max(jax.nn.softmax(logits, axis=-1), axis=-1)
    one = partial(_equal_mass if equal_mass else _equal_width, bins)
    per_member = jnp.vectorize(one, signature="(n),(n)->(b),(b),(b)")
    return Reliability(*per_member(confidences, is_correct(logits, labels)))


def _equal_width(bins: int, confidences: Array, correct: Array) -> tuple[Array, Array, Array]:
    inner_edges = jnp.linspace(0, 1, bins + 1)[1:-1]
    bin_of = jnp.searchsorted(inner_edges, confidences, side="left")
    return _bin(bins, bin_of, confidences, correct.astype(jnp.float32))


def _equal_mass(bins: int, confidences: Array, correct: Array) -> tuple[Array, Array, Array]:
    n = len(confidences)
    order = jnp.argsort(confidences)
    start, end = _ties(confidences[order])
    up_to = _count_up_to(correct[order])
    shared = (up_to[end] - up_to[start]) / (end - start)
    return _bin(bins, jnp.arange(n) * bins // n, confidences[order], shared)


def _bin(
    bins: int, bin_of: Array, confidences: Array, correct: Array
) -> tuple[Array, Array, Array]:
    add = partial(jax.ops.segment_sum, segment_ids=bin_of, num_segments=bins)
    count, hits = add(jnp.ones_like(bin_of)), add(correct)
    # Gaps are small, so their float32 sum is good to more digits than that of the confidences.
    return (hits - add(correct - confidences)) / count, hits / count, count


def _ties(keys: Array) -> tuple[Array, Array]:
    """Of sorted keys `[n]`: where the run of keys equal to each one starts, and ends."""
    return jnp.searchsorted(keys, keys, side="left"), jnp.searchsorted(keys, keys, side="right")


def _count_up_to(flags: Array) -> Array:
    """How many of the first 0, 1, ... n flags are true; int32 `[n + 1]`."""
    return jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(flags.astype(jnp.int32))])


def ece(logits: ArrayLike, labels: ArrayLike, bins: int = 15, equal_mass: bool = False) -> Array:
    """Expected calibration error: the bins' mean |accuracy - confidence|, weighted by their count.

    In [0, 1], lower is better. Sources: Guo et al. 2017, equation 3; with `equal_mass`, the
    adaptive bins of Nixon et al. 2019, section 4, for the predicted class alone.

    Args:
        logits: float `[..., n, classes]`.
        labels: int `[n]`.
        bins, equal_mass: see `reliability`.

    Returns:
        float32 `[...]`.

    Raises:
        ValueError: `bins` below 1.
    """
    gap, count = _gaps(reliability(logits, labels, bins, equal_mass))
    return jnp.sum(gap * count, axis=-1) / jnp.sum(count, axis=-1)


def max_calibration_error(
    logits: ArrayLike, labels: ArrayLike, bins: int = 15, equal_mass: bool = False
) -> Array:
    """The largest |accuracy - confidence| of all bins with images; in [0, 1], lower is better.

    With bins of equal width one image alone in a bin can decide it. Source: Guo et al. 2017,
    equation 5.

    Args:
        logits: float `[..., n, classes]`.
        labels: int `[n]`.
        bins, equal_mass: see `reliability`.

    Returns:
        float32 `[...]`.

    Raises:
        ValueError: `bins` below 1.
    """
    gap, _ = _gaps(reliability(logits, labels, bins, equal_mass))
    return jnp.max(gap, axis=-1)


def _gaps(curve: Reliability) -> tuple[Array, Array]:
    gap = jnp.abs(curve.accuracy - curve.confidence)
    return jnp.where(curve.images > 0, gap, 0.0), curve.images


@jax.jit
def auroc(scores: ArrayLike, positive: ArrayLike) -> Array:
    """Area under the ROC curve: how often a positive scores higher than a negative; in [0, 1].

    Equal scores count one half (the Mann-Whitney statistic: Hanley and McNeil 1982), so scores that
    tell nothing give 0.5. For unfamiliar inputs: `positive` marks them, and scores are
    uncertainties (Hendrycks and Gimpel 2017).

    Args:
        scores: float `[..., n]`.
        positive: bool `[n]`.

    Returns:
        float32 `[...]`; NaN where all are positive, or none is.
    """
    return jnp.vectorize(_auroc, signature="(n),(n)->()")(*_scores_and_flags(scores, positive))


def _auroc(scores: Array, positive: Array) -> Array:
    negatives = jnp.sum(~positive)
    negative_scores = jnp.sort(jnp.where(positive, jnp.inf, scores))  # the first `negatives` are
    below = jnp.searchsorted(negative_scores, scores, side="left")
    up_to = jnp.minimum(jnp.searchsorted(negative_scores, scores, side="right"), negatives)
    won = (below + up_to).astype(jnp.float32) / (2 * negatives)
    return jnp.sum(jnp.where(positive, won, 0.0)) / jnp.sum(positive)


@jax.jit
def aupr(scores: ArrayLike, positive: ArrayLike) -> Array:
    """Area under the precision-recall curve as average precision; in [0, 1], higher is better.

    The mean over the positives of the precision at their score, as `average_precision_score` of
    scikit-learn has it, without interpolation; equal scores are one threshold. Scores that tell
    nothing give the positives' share of all.

    Args:
        scores: float `[..., n]`.
        positive: bool `[n]`.

    Returns:
        float32 `[...]`; NaN where all are positive, or none is.
    """
    return jnp.vectorize(_aupr, signature="(n),(n)->()")(*_scores_and_flags(scores, positive))


def _aupr(scores: Array, positive: Array) -> Array:
    positives = jnp.sum(positive)
    all_scores = jnp.sort(scores)
    positive_scores = jnp.sort(jnp.where(positive, scores, -jnp.inf))  # the last `positives` are
    n = len(scores)
    at_least = n - jnp.searchsorted(all_scores, scores, side="left")
    found = jnp.minimum(n - jnp.searchsorted(positive_scores, scores, side="left"), positives)
    area = jnp.sum(jnp.where(positive, found.astype(jnp.float32) / at_least, 0.0)) / positives
    return jnp.where(positives < n, area, jnp.nan)


def _scores_and_flags(scores: ArrayLike, positive: ArrayLike) -> tuple[Array, Array]:
    return jnp.asarray(scores, jnp.float32), jnp.asarray(positive, bool)


@jax.jit
def risk_coverage(confidences: ArrayLike, correct: ArrayLike) -> Array:
    """The share of errors among the 1, 2, ... n most confident predictions.

    Entry k - 1 is the risk at coverage k / n; the last is the error of all. Among equal confidences
    it is the mean over all their orders. Source: El-Yaniv and Wiener 2010, section 2.

    Args:
        confidences: float `[..., n]`, of any scale; e.g. the largest probability.
        correct: bool `[..., n]`.

    Returns:
        float32 `[..., n]`, each in [0, 1].
    """
    one = jnp.vectorize(_risk_coverage, signature="(n),(n)->(n)")
    return one(*_scores_and_flags(confidences, correct))


def _risk_coverage(confidences: Array, correct: Array) -> Array:
    order = jnp.argsort(-confidences)
    start, end = _ties(-confidences[order])
    errors_up_to = _count_up_to(~correct[order])
    rate = (errors_up_to[end] - errors_up_to[start]) / (end - start)
    kept = jnp.arange(1, len(order) + 1)
    return (errors_up_to[start] + (kept - start) * rate) / kept


def aurc(confidences: ArrayLike, correct: ArrayLike) -> Array:
    """Area under the risk-coverage curve: its mean over all coverages; in [0, 1], lower is better.

    Sources: Geifman and El-Yaniv 2017; the mean is that of Geifman et al. 2019, section 3.

    Args:
        confidences: float `[..., n]`, of any scale.
        correct: bool `[..., n]`.

    Returns:
        float32 `[...]`.
    """
    return jnp.mean(risk_coverage(confidences, correct), axis=-1)
