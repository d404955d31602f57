"""Temperature scaling: probabilities that mean what they say, without changing any prediction.

Fit on images that were not trained on, validation images, and never on test images.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0
_HALVINGS = 40  # of the logarithm's range, 9.2: down to float32's precision


def fit_temperature(logits: ArrayLike, labels: ArrayLike, shared: bool = False) -> Array:
    """The temperature by which to divide logits for the smallest NLL.

    Above 1 the predictions were too sure. Source: Guo et al. 2017, section 4.2. For an ensemble
    either the members' logits can be scaled before they are combined, or the combined prediction
    (`ensemble.mean_probability`), which calibrates better: members calibrated each on its own are
    together not sure enough (Rahaman and Thiery 2021).

    Args:
        logits: float `[..., n, classes]`; log-probabilities will do.
        labels: int `[n]`.
        shared: one temperature for all leading axes, with the smallest mean NLL, instead of one
            each.

    Returns:
        float32 `[...]`, or a scalar if `shared`; in [0.01, 100]. Where all predictions are right
        no temperature is too low, and the result is near 0.01.
    """
    logits = jnp.asarray(logits)
    labels = jnp.broadcast_to(jnp.asarray(labels), logits.shape[:-1])
    margins = logits - jnp.take_along_axis(logits, labels[..., None], axis=-1)

    def slope(log_temperature: Array) -> Array:
        """d NLL / d (1 / temperature); it grows with 1 / temperature, as NLL is convex in it."""
        probabilities = jax.nn.softmax(scale(margins, jnp.exp(log_temperature)), axis=-1)
        return jnp.mean(jnp.sum(probabilities * margins, axis=-1), axis=None if shared else -1)

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        too_sure = slope(middle) > 0
        return jnp.where(too_sure, middle, low), jnp.where(too_sure, high, middle)

    shape = () if shared else logits.shape[:-2]
    ends = (math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))
    bounds = tuple(jnp.full(shape, end, jnp.result_type(margins, jnp.float32)) for end in ends)
    low, high = lax.fori_loop(0, _HALVINGS, halve, bounds)
    return jnp.exp((low + high) / 2)


def scale(logits: ArrayLike, temperature: ArrayLike) -> Array:
    """Logits divided by a temperature; the predicted classes stay the same.

    Args:
        logits: float `[..., n, classes]`.
        temperature: float, a scalar or `[...]`, as from `fit_temperature`.

    Returns:
        float32 `[..., n, classes]`.
    """
    return jnp.asarray(logits) / jnp.asarray(temperature)[..., None, None]
