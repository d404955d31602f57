"""How good predictions are, from logits and labels."""

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
    return jnp.mean(jnp.argmax(jnp.asarray(logits), axis=-1) == jnp.asarray(labels), axis=-1)


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
