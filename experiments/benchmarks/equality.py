"""Does a device compute what the CPU does? Logits and one step's gradients of each network."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from mnist_jax import ensemble, models, training

MEMBERS = 3
# Of the largest value: float32 in another order of sums comes near 1e-6, TF32 near 1e-3.
TOLERANCE = 1e-4


class Outputs(NamedTuple):
    """What is compared; every leaf begins with a `members` axis."""

    logits: Any  # float32 [members, n, 10], without dropout
    loss: Any  # float32 [members], with it
    gradients: Any  # the loss's, as the parameters


def check(device: jax.Device, names: Sequence[str], images: np.ndarray, labels: np.ndarray) -> dict:
    """Compare some networks' outputs on a device with those on the CPU.

    There the members are computed at once, as the package does on that device; here one after
    another. All products are in float32 (`"highest"`).

    Args:
        device: to be checked.
        names: of networks.
        images: uint8 `[n, 28, 28, 1]`.
        labels: int32 `[n]`.

    Returns:
        Of each network: the largest difference of logits, loss and gradients, over the largest
        value of the CPU's; and whether all are within `TOLERANCE`.
    """
    cpu = jax.devices("cpu")[0]
    found = {}
    for name in names:
        network = models.create(name)
        with jax.default_device(cpu):
            params = jax.vmap(partial(_init, network))(jnp.arange(MEMBERS))
        on_device, here = (
            compute(network, params, images, labels, where, how)
            for where, how in ((device, ensemble.map_members), (cpu, _in_turn))
        )
        found[name] = compare(on_device, here)
    return found


def compute(
    network: nn.Module,
    params: Any,
    images: np.ndarray,
    labels: np.ndarray,
    device: jax.Device,
    map_members: Callable[..., Any],
    precision: str = "highest",
) -> Outputs:
    """One device's outputs, as NumPy arrays.

    Args:
        params: stacked, `[members, ...]`.
        map_members: `ensemble.map_members`, or another function of its kind.
        precision: of products, as `jax.default_matmul_precision` names it.
    """

    def one_member(params: Any, seed: Array, images: Array, labels: Array) -> Outputs:
        pixels = training.to_float(images)
        logits = training.apply(network, params, pixels, train=False)
        key = training.dropout_key(seed, jnp.int32(0), 0)
        weights = jnp.full(len(labels), 1 / len(labels))
        loss, gradients = jax.value_and_grad(training.weighted_loss, argnums=1)(
            network, params, pixels, labels, weights, key
        )
        return Outputs(logits, loss, gradients)

    @jax.jit
    def all_members(params: Any, seeds: Array, images: Array, labels: Array) -> Outputs:
        return map_members(
            lambda params, seed: one_member(params, seed, images, labels), params, seeds
        )

    seeds = np.arange(len(jax.tree.leaves(params)[0]))
    with jax.default_matmul_precision(precision):
        outputs = all_members(*jax.device_put((params, seeds, images, labels), device))
    return jax.tree.map(np.asarray, outputs)


def compare(outputs: Outputs, reference: Outputs) -> dict[str, Any]:
    """The largest difference of each field over the reference's largest value, leaf by leaf."""
    differences = {
        field: max(
            _difference(a, b)
            for a, b in zip(
                jax.tree.leaves(getattr(outputs, field)),
                jax.tree.leaves(getattr(reference, field)),
                strict=True,
            )
        )
        for field in Outputs._fields
    }
    return differences | {"equal": all(value <= TOLERANCE for value in differences.values())}


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    largest = float(np.abs(b).max())
    return float(np.abs(a - b).max()) / largest if largest else float(np.abs(a).max())


def _init(network: nn.Module, seed: Array) -> Any:
    return network.init(jax.random.key(seed), jnp.zeros((1, 28, 28, 1)))["params"]


def _in_turn(function: Callable[..., Any], *stacked: Any) -> Any:
    return lax.map(lambda member: function(*member), stacked)
