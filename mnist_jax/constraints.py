"""What holds of some networks' weights after each step, as Optax transformations.

Each is a link of the optimizer's chain after the learning rate: it changes the updates so that the
parameters with them added are as they should be.
"""

import functools
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from mnist_jax.models.sentence import FIXED, OUTPUT, TRAINED
from mnist_jax.training import Constraint, Params

_EPS = 1e-7  # as Kim's code has beside a norm


@functools.cache  # so that an optimizer made of it is found again, and what it compiled
def of_sentences(norm_limit: float = 3.0) -> Constraint:
    """Kim's: classes' weights of limited norm, padding's vectors zero, fixed vectors fixed.

    Raises:
        ValueError: `norm_limit` 0 or below.
    """
    after = [limit_norms(norm_limit, OUTPUT), keep_first_rows_zero((TRAINED,)), fix((FIXED,))]
    return Constraint(_all_but_fixed, optax.chain(*after))


def _all_but_fixed(params: Params) -> Any:
    return {
        name: jax.tree.map(lambda _, trained=name != FIXED: trained, part)
        for name, part in params.items()
    }


def limit_norms(limit: float, layer: str) -> optax.GradientTransformation:
    """Scale each column of a layer's `kernel` to a norm of `limit` where it would be above.

    Source: Hinton et al. 2012, "Improving neural networks by preventing co-adaptation of feature
    detectors", section 2.

    Raises:
        ValueError: `limit` 0 or below.
    """
    if not limit > 0:
        raise ValueError(f"norm_limit must be above 0, not {limit}.")

    def scaled(params: Params, updates: Params) -> Params:
        kernel = params[layer]["kernel"]
        new = kernel + updates[layer]["kernel"]
        norms = jnp.linalg.norm(new, axis=0)
        new = new * jnp.where(norms > limit, limit / (norms + _EPS), 1)
        return updates | {layer: updates[layer] | {"kernel": new - kernel}}

    return optax.stateless(lambda updates, params: scaled(params, updates))


def keep_first_rows_zero(tables: Collection[str]) -> optax.GradientTransformation:
    """Row 0 of tables' `vectors`, which is padding's, is zero after the step."""

    def zero(updates: Params, params: Params) -> Params:
        here = [name for name in tables if name in updates]
        return updates | {
            name: {"vectors": _first_row_to_zero(params[name]["vectors"], updates[name]["vectors"])}
            for name in here
        }

    return optax.stateless(zero)


def _first_row_to_zero(table: Array, update: Array) -> Array:
    """By a comparison: setting the row would be a pass over the whole table of its own."""
    return jnp.where(jnp.arange(len(table))[:, None] == 0, -table, update)


def fix(tables: Collection[str]) -> optax.GradientTransformation:
    """Tables do not move, whatever their gradient."""

    def stay(updates: Params, params: Params) -> Params:
        here = [name for name in tables if name in updates]
        return updates | {name: jax.tree.map(jnp.zeros_like, updates[name]) for name in here}

    return optax.stateless(stay)
