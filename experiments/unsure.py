"""From which uncertainty on a run's members would rather not answer."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.config import Config
from mnist_jax import augment, ensemble, training, uncertainty
from mnist_jax.data import Split

_KEPT = 0.99  # of the right answers


def fit(
    config: Config, validation: Split, predict: Callable[[np.ndarray], np.ndarray]
) -> dict[str, Any]:
    """The entropy above which to be unsure, from the validation images.

    Where training changed its images, the validation images count as they are and changed like
    that, since the network is meant for both.

    Returns:
        The entropy in nats, and of the right and of the wrong answers the parts at most as
        uncertain; nothing where there are no validation images.
    """
    images, labels = validation
    if not len(labels):
        return {}
    change = augment.create(config.augment)
    if change is not None:
        key = jax.random.key(config.data_seed)
        floats = training.to_float(jax.numpy.asarray(images))
        changed, new_labels = jax.jit(change)(floats, labels, key)
        same = np.asarray(new_labels == labels)  # others have become none of the classes
        images = np.concatenate([floats, np.asarray(changed)[same]])
        labels = np.concatenate([labels, labels[same]])
    logits = np.asarray(ensemble.mean_probability(predict(images)))
    threshold = uncertainty.threshold(logits, labels, _KEPT)
    sure = np.asarray(uncertainty.entropy(logits)) <= threshold
    right = logits.argmax(axis=-1) == labels
    return {
        "unsure": {
            "entropy": threshold,
            "right_kept": float(sure[right].mean()) if right.any() else None,
            "wrong_kept": float(sure[~right].mean()) if not right.all() else None,
            "validation_images": len(labels),
        }
    }
