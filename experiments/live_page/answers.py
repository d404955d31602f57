"""Members' answers combined, in NumPy: JAX's would compile anew for each number of images."""

from typing import NamedTuple

import numpy as np

from experiments.workdir.evaluation import KEPT


class Answers(NamedTuple):
    """What members say together of `n` inputs; uncertainties in nats."""

    probabilities: np.ndarray  # of each member, float32 [members, n, classes]
    mean: np.ndarray  # their mean, float32 [n, classes]
    entropy: np.ndarray  # of the mean, float32 [n]
    mutual_information: np.ndarray  # the part of it from the members' disagreement, float32 [n]


def combine(logits: np.ndarray) -> Answers:
    """From logits, float32 `[members, n, classes]`; as `uncertainty.decompose` has it."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    probabilities = exponentials / exponentials.sum(axis=-1, keepdims=True)
    mean = probabilities.mean(axis=0)
    entropy = _entropy(mean)
    information = np.maximum(entropy - _entropy(probabilities).mean(axis=0), 0)
    return Answers(probabilities, mean, entropy, information)


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    terms = probabilities * np.log(np.maximum(probabilities, 1e-30))
    return np.maximum(-terms.sum(axis=-1), 0)


def threshold(mean: np.ndarray, labels: np.ndarray) -> float | None:
    """The entropy that most right answers stay below; None where none is right.

    Args:
        mean: probabilities, `[n, classes]`.
        labels: int `[n]`.
    """
    right = mean.argmax(axis=-1) == labels
    return float(np.quantile(_entropy(mean[right]), KEPT)) if right.any() else None


def nll(mean: np.ndarray, labels: np.ndarray) -> float:
    """The mean negative log-likelihood; arguments as of `threshold`."""
    return float(-np.log(np.maximum(mean[np.arange(len(labels)), labels], 1e-30)).mean())


def accuracies(logits: np.ndarray, labels: np.ndarray) -> list[float]:
    """Of each member, and of their summed logits where there are several."""
    alone = (logits.argmax(axis=-1) == labels).mean(axis=1).tolist()
    if len(alone) == 1:
        return alone
    return [*alone, float((logits.sum(axis=0).argmax(axis=-1) == labels).mean())]
