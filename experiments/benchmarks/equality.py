"""Does a device compute what the CPU does? Logits and one step's gradients of each network.

Two devices add up in different orders, so their values differ by rounding. Where a relu's input is
that close to 0, or the two largest pixels of a pool to each other, rounding alone decides where the
gradient goes, and all of it goes to another place. Images with such a place are no error and are
left out of the loss and the gradients; of the others every value counts.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from mnist_jax import ensemble, models, platforms, training
from mnist_jax.layers import Conv, Dense, MaxPool, pixels_under

MEMBERS = 3
# Of the largest value: float32 in another order of sums comes near 1e-6, TF32 near 1e-3.
TOLERANCE = 1e-4
CLOSE = 3e-6  # of a layer's largest value: some times what devices differ by


class Outputs(NamedTuple):
    """What is compared; every leaf begins with a `members` axis."""

    logits: Any  # float32 [members, n, 10], without dropout
    loss: Any  # float32 [members], with it, of the images whose weight is not 0
    gradients: Any  # the loss's, as the parameters


def check(device: jax.Device, names: Sequence[str], images: np.ndarray, labels: np.ndarray) -> dict:
    """Compare some networks' outputs on a device with those on the CPU.

    There the members are computed as the package does on that device; here one after another. All
    products are in float32 (`"highest"`).

    Args:
        device: to be checked.
        names: of networks.
        images: uint8 `[n, 28, 28, 1]`.
        labels: int32 `[n]`.

    Returns:
        Of each network: the largest difference of logits, loss and gradients, over the largest
        value of the CPU's; whether all are within `TOLERANCE`; and of how many `images`, counted
        for each member, rounding decides about a gradient in how many (`by_rounding`), with the
        largest difference of the gradients of all (`gradients_of_all`). The network is not `equal`
        either where it decides in all images of a member.
    """
    cpu = jax.devices("cpu")[0]
    found = {}
    for name in names:
        network = models.create(name)
        with jax.default_device(cpu):
            params = jax.vmap(partial(_init, network))(jnp.arange(MEMBERS))
        decided = find_decided(network, params, images, cpu)
        sides = [
            make_compute(network, device, ensemble.map_members),
            make_compute(network, cpu, _in_turn),
        ]
        weights = decided / np.maximum(decided.sum(axis=1, keepdims=True), 1)
        of_all = np.full(decided.shape, 1 / len(images))
        row, row_of_all = (
            compare(*(compute(params, images, labels, of_images) for compute in sides))
            for of_images in (weights, of_all)
        )
        row["equal"] = row["equal"] and bool(decided.any(axis=1).all())
        found[name] = row | {
            "images": decided.size,
            "by_rounding": int((~decided).sum()),
            "gradients_of_all": row_of_all["gradients"],
        }
    return found


def make_compute(
    network: nn.Module,
    device: jax.Device,
    map_members: Callable[..., Any],
    precision: str = "highest",
) -> Callable[[Any, np.ndarray, np.ndarray, np.ndarray], Outputs]:
    """A function that computes the outputs on a device, and gives them as NumPy arrays.

    Args:
        map_members: `ensemble.map_members`, or another function of its kind.
        precision: of products, as `jax.default_matmul_precision` names it.

    Returns:
        A function of stacked parameters, images, labels, and the weights of each member's images in
        its loss, `[members, n]`.
    """

    def one_member(
        params: Any, seed: Array, weights: Array, images: Array, labels: Array
    ) -> Outputs:
        pixels = training.to_float(images)
        logits = training.apply(network, params, pixels, train=False)
        differentiated = jax.value_and_grad(training.weighted_loss, argnums=1, has_aux=True)
        (loss, _), gradients = differentiated(
            network, params, None, pixels, labels, weights, _dropout_key(seed)
        )
        return Outputs(logits, loss, gradients)

    @jax.jit
    def all_members(
        params: Any, seeds: Array, weights: Array, images: Array, labels: Array
    ) -> Outputs:
        return map_members(
            lambda params, seed, weights: one_member(params, seed, weights, images, labels),
            params,
            seeds,
            weights,
        )

    def compute(
        params: Any, images: np.ndarray, labels: np.ndarray, weights: np.ndarray
    ) -> Outputs:
        given = params, np.arange(len(weights)), weights.astype(np.float32), images, labels
        with jax.default_matmul_precision(precision), platforms.known(device.platform):
            outputs = all_members(*jax.device_put(given, device))
        return jax.tree.map(np.asarray, outputs)

    return compute


def find_decided(
    network: nn.Module, params: Any, images: np.ndarray, device: jax.Device
) -> np.ndarray:
    """Of which images rounding does not decide the gradient, bool `[members, n]`.

    What a `Conv`, `MaxPool` or `Dense` of `layers` gives is taken for the input of a relu; values
    that are 0 exactly, and pixels that are exactly alike, are so on every device.
    """

    def one_member(params: Any, seed: Array, images: Array) -> Array:
        close: list[Array] = []
        outputs: dict[int, Array] = {}  # of convolutions that no pool has taken

        def watch(
            call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
        ) -> Any:
            out = call(*args, **kwargs)
            if context.method_name == "__call__":
                if isinstance(context.module, MaxPool):
                    outputs.pop(id(args[0]), None)  # of these only the largest counts
                    close.append(_two_are_close(args[0], context.module))
                if isinstance(context.module, Conv):
                    outputs[id(out)] = out
                if isinstance(context.module, Dense | MaxPool):
                    close.append(_is_close(out, out))
            return out

        with nn.intercept_methods(watch):
            # Layers that nobody watches may be called as one.
            network.apply(
                {"params": params},
                training.to_float(images),
                train=True,
                rngs={"dropout": _dropout_key(seed)},
                mutable=["intermediates"],
            )
        close += [_is_close(out, out) for out in outputs.values()]
        return ~jnp.any(jnp.stack(close), axis=0)

    @jax.jit
    def all_members(params: Any, seeds: Array, images: Array) -> Array:
        return _in_turn(lambda params, seed: one_member(params, seed, images), params, seeds)

    seeds = np.arange(len(jax.tree.leaves(params)[0]))
    with platforms.known(device.platform):
        decided = [
            all_members(*jax.device_put((weights, seeds, images), device))
            # Some values are alike by chance, but not with weights a millionth larger.
            for weights in (params, jax.tree.map(lambda leaf: leaf * np.float32(1 + 1e-6), params))
        ]
        return np.asarray(decided[0] & decided[1])


def _is_close(differences: Array, values: Array) -> Array:
    """Whether any of an image's differences is not 0 but `CLOSE`; bool `[n]`."""
    size = jnp.abs(differences)
    close = (size > 0) & (size < CLOSE * jnp.abs(values).max())
    return close.reshape(len(close), -1).any(axis=1)


def _two_are_close(images: Array, pool: MaxPool) -> Array:
    """The same of the two largest pixels of each window of a pool."""
    pixels = pixels_under(images, *pool.geometry)
    *_, second, largest = jnp.sort(jnp.stack(pixels), axis=0)
    return _is_close(largest - second, images)


def _dropout_key(seed: Array) -> Array:
    return training.dropout_key(seed, jnp.int32(0), 0)


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
