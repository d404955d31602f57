"""How unsure predictions are, and how much an ensemble's members differ.

Uncertainties are in nats unless said, one an image, higher for images the networks know less.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from mnist_jax import ensemble


def error_probability(logits: ArrayLike) -> Array:
    """1 - the largest probability: how likely the prediction is wrong, by its own account.

    The sum of the other probabilities, which keeps apart what in float32 is 1 alike.

    Args:
        logits: float `[..., n, classes]`; log-probabilities will do.

    Returns:
        float32 `[..., n]` in [0, 1 - 1 / classes].
    """
    probabilities = jax.nn.softmax(jnp.asarray(logits), axis=-1)
    largest = jnp.argmax(probabilities, axis=-1, keepdims=True)
    others = jnp.arange(probabilities.shape[-1]) != largest
    return jnp.sum(jnp.where(others, probabilities, 0.0), axis=-1)


def entropy(logits: ArrayLike) -> Array:
    """Entropy of the predicted distribution, in nats.

    Args:
        logits: float `[..., n, classes]`; log-probabilities will do.

    Returns:
        float32 `[..., n]` in [0, log(classes)], to about 1e-7.
    """
    log_probs = jax.nn.log_softmax(jnp.asarray(logits), axis=-1)
    # A probability of 0 adds 0, though its logarithm may be -inf.
    terms = jnp.where(log_probs > -jnp.inf, jnp.exp(log_probs) * log_probs, 0.0)
    return jnp.maximum(-jnp.sum(terms, axis=-1), 0.0)


class Uncertainty(NamedTuple):
    """Where an ensemble's uncertainty comes from; float32 `[n]` each, in nats."""

    total: Array  # entropy of the mean probability
    aleatoric: Array  # the members' mean entropy: what each finds ambiguous
    epistemic: Array  # mutual information of class and member: in what they differ


@jax.jit
def decompose(logits: ArrayLike) -> Uncertainty:
    """Split an ensemble's uncertainty: total = aleatoric + epistemic.

    Sources: Depeweg et al. 2018, section 3; the mutual information is the BALD score of Houlsby et
    al. 2011, for an ensemble as in Lakshminarayanan et al. 2017. All are in [0, log(classes)]; the
    mutual information also below log(members). It is right to about 1e-7 and never below 0.

    Args:
        logits: float `[members, n, classes]`.
    """
    total = entropy(ensemble.mean_probability(logits))
    aleatoric = jnp.mean(entropy(logits), axis=0)
    return Uncertainty(total, aleatoric, jnp.maximum(total - aleatoric, 0.0))


def threshold(logits: ArrayLike, labels: ArrayLike, kept: float = 0.99) -> float:
    """The entropy that a part of the right answers stays below, in nats; infinite if none is right.

    Who refuses what is above it refuses few right answers, and most of the wrong ones (selective
    classification: Geifman and El-Yaniv 2017).

    Args:
        logits: float `[n, classes]`, of images that were not trained on; log-probabilities will do.
        labels: int `[n]`.
        kept: the part, in (0, 1).
    """
    right = np.argmax(logits, axis=-1) == np.asarray(labels)
    if not right.any():
        return float("inf")
    return float(np.quantile(np.asarray(entropy(logits))[right], kept))


@jax.jit
def disagreement(logits: ArrayLike) -> Array:
    """How often two members name different classes, mean over pairs and images; in [0, 1].

    Source: Fort et al. 2019, section 4.1.

    Args:
        logits: float `[members, n, classes]`.

    Returns:
        float32 scalar; NaN for one member.
    """
    logits = jnp.asarray(logits)
    members, _, classes = logits.shape
    named = jax.nn.one_hot(jnp.argmax(logits, axis=-1), classes, dtype=jnp.float32)
    votes = jnp.sum(named, axis=0)
    differing = members**2 - jnp.sum(votes**2, axis=-1)  # ordered pairs
    return jnp.mean(differing) / (members * (members - 1))


@jax.jit
def error_correlation(logits: ArrayLike, labels: ArrayLike) -> Array:
    """Pearson correlation of two members' errors (0 or 1 an image), mean over pairs; in [-1, 1].

    1: all fail on the same images, and combining them gains nothing; 0: they fail independently.
    Source: Kuncheva and Whitaker 2003, the correlation coefficient.

    Args:
        logits: float `[members, n, classes]`.
        labels: int `[n]`.

    Returns:
        float32 scalar. Pairs where a member is always right, or always wrong, have no correlation
        and are left out; NaN where no pair is left.
    """
    wrong = (jnp.argmax(jnp.asarray(logits), axis=-1) != jnp.asarray(labels)).astype(jnp.float32)
    members, n = wrong.shape
    errors = jnp.sum(wrong, axis=1)  # as floats, since a GPU has no product of booleans
    both = jnp.dot(wrong, wrong.T)
    spread = errors * (n - errors)  # n² times the variance, exactly 0 for a constant
    correlation = (n * both - jnp.outer(errors, errors)) / jnp.sqrt(jnp.outer(spread, spread))
    return jnp.nanmean(correlation[jnp.triu_indices(members, k=1)])
