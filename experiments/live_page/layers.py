"""What each layer of one member makes of one image: activations, their gradients, weights."""

import base64
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from experiments.show import features, inspector
from experiments.workdir.trained import Member
from mnist_jax import training
from mnist_jax.layers import Dense, Dropout
from mnist_jax.models.lenet5 import Distances
from mnist_jax.normalization import BatchNorm, LocalResponseNorm
from mnist_jax.windows import MeanOverPlaces

_SEEN = (*features.WATCHED, Dense, Dropout, Distances, MeanOverPlaces, BatchNorm, LocalResponseNorm)
_MOST_MAPS = 64  # of a layer
_MOST_FILTERS, _MOST_CHANNELS = 32, 16  # whose weights are shown
_MOST_UNITS = 2048  # of a dense layer


class _Layer(NamedTuple):
    """A layer as it is found by calling the network."""

    name: str
    kind: str
    joined: str | None  # of a block: what of its layers its output is


class Looked(NamedTuple):
    """What is computed of one image; arrays of one image have no axis of images."""

    logits: Array  # [classes]
    loss: Array  # [], cross-entropy of the label
    outputs: list[Array]  # of each layer
    output_grads: list[Array]
    param_grads: Any
    image_grad: Array


def describe(member: Member, image: np.ndarray, label: int | None) -> dict[str, Any]:
    """All that the page shows of a member's layers, as JSON can hold it.

    Args:
        image: uint8 `[height, width, channels]`.
        label: whose cross-entropy has the gradients; None for the likeliest class.
    """
    network, shape = member.network, image.shape
    named, run, formulas = _program(network, shape)
    looked = run(member.variables, image, -1 if label is None else label)
    host: Any = jax.tree.map(np.asarray, looked)
    params = member.variables["params"]
    rows = [
        _describe_layer(layer, formulas.get(layer.name), params, host, i)
        for i, layer in enumerate(named)
    ]
    pixels = training.to_float(jnp.asarray(image))
    first = {
        "name": "images",
        "kind": "input",
        "shape": list(shape),
        "activations": _maps(np.asarray(pixels)),
        "gradients": _maps(host.image_grad),
        "colour": shape[-1] == 3,
    }
    shifted = np.exp(host.logits - host.logits.max())
    last = {
        "name": "softmax",
        "kind": "softmax",
        "shape": [len(shifted)],
        "formula": "exp(x) / sum of exp(x)",
        "activations": _maps(shifted / shifted.sum()),
    }
    return {"member": member.name, "loss": float(host.loss), "layers": [first, *rows, last]}


def _describe_layer(
    layer: _Layer, formula: str | None, params: Any, host: Any, i: int
) -> dict[str, Any]:
    own, own_grads = _inside(params, layer.name), _inside(host.param_grads, layer.name)
    described = {
        "name": layer.name,
        "kind": layer.kind,
        "shape": list(host.outputs[i].shape),
        "formula": layer.joined or formula or "",
        "parameters": parameter_sum(own),
        "activations": _maps(host.outputs[i]),
        "gradients": _maps(host.output_grads[i]),
    }
    kernel = own.get("kernel")
    if kernel is not None and np.ndim(kernel) == 4:
        described["weights"] = _filters(np.asarray(kernel))
        described["weight_gradients"] = _filters(own_grads["kernel"])
    return described


def parameter_sum(params: Any) -> str:
    """Parameters written out, such as `32*3*3*1 + 32 = 320`; empty where there are none."""
    sizes = {
        "/".join(str(part.key) for part in path): leaf.shape
        for path, leaf in jax.tree.leaves_with_path(params)
    }
    if not sizes:
        return ""
    names = sorted(sizes, key=lambda name: (not name.endswith("kernel"), name))
    terms = []
    for name in names:
        shape = sizes[name]
        ordered = (shape[-1], *shape[:-1]) if len(shape) > 1 else shape  # features first
        terms.append("*".join(map(str, ordered)) or "1")
    total = sum(int(np.prod(shape)) for shape in sizes.values())
    written = " + ".join(terms)
    return written if written == str(total) else f"{written} = {total:,}"


@functools.lru_cache(maxsize=8)
def _program(
    network: nn.Module, shape: tuple[int, ...]
) -> tuple[list[_Layer], Callable[..., Looked], dict[str, str]]:
    """A network's layers, the compiled function of variables, image and label, and formulas."""
    named: list[_Layer] = []

    def forward(
        variables: Any, offsets: Sequence[Array] | None, image: Array
    ) -> tuple[Array, list[Array]]:
        """Logits and outputs; an offset is added to each output, so that it has a gradient."""
        named.clear()
        outputs: list[Array] = []
        inside: list[nn.Module] = []

        def watch(
            call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
        ) -> Any:
            module = context.module
            if context.method_name != "__call__" or not isinstance(module, _SEEN) or inside:
                return call(*args, **kwargs)
            inside.append(module)
            out = call(*args, **kwargs)
            inside.pop()
            if offsets is not None:
                out = out + offsets[len(outputs)][None]
            joined = features.JOINED.get(type(module))
            named.append(_Layer("/".join(module.path), type(module).__name__, joined))
            outputs.append(out[0])
            return out

        with nn.intercept_methods(watch):
            # Layers that nobody watches may be called as one.
            logits, _ = network.apply(variables, image[None], mutable=["intermediates"])
        return logits[0], outputs

    def look(variables: Any, image: Array, label: Array) -> Looked:
        pixels = training.to_float(image)
        rest = {name: part for name, part in variables.items() if name != "params"}
        shapes = jax.eval_shape(lambda: forward(variables, None, pixels)[1])
        zeros = [jnp.zeros(one.shape, one.dtype) for one in shapes]

        def loss(params: Any, offsets: list[Array], pixels: Array) -> tuple[Array, Any]:
            logits, outputs = forward(rest | {"params": params}, offsets, pixels)
            target = jnp.where(label < 0, jnp.argmax(logits), label)
            value = optax.softmax_cross_entropy_with_integer_labels(logits, target)
            return value, (logits, outputs)

        (value, (logits, outputs)), grads = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(
            variables["params"], zeros, pixels
        )
        kernels_only = jax.tree.map(lambda leaf: leaf if leaf.ndim == 4 else None, grads[0])
        return Looked(logits, value, outputs, grads[1], kernels_only, grads[2])

    # Traced once for the names, which are the same each time.
    formulas = {layer.name: layer.size for layer in inspector.look(network, shape)}
    return named, jax.jit(look), formulas


def _inside(params: Any, name: str) -> Any:
    """The parameters of a layer by its name; empty where it has none."""
    for part in name.split("/"):
        params = params.get(part, {}) if isinstance(params, dict) else {}
    return params


def _maps(values: np.ndarray) -> dict[str, Any]:
    """`[height, width, maps]` or `[units]` as the page draws them: maps `[n, height, width]`."""
    if values.ndim == 1:
        count, kept = 1, values[:_MOST_UNITS][None, None]
        count = len(values)
    else:
        count, kept = values.shape[-1], np.moveaxis(values, -1, 0)[:_MOST_MAPS]
    return {"count": count} | packed(kept, values)


def _filters(kernel: np.ndarray) -> dict[str, Any]:
    """`[height, width, channels, features]` as `[features, channels, height, width]`."""
    kept = np.moveaxis(kernel, (3, 2), (0, 1))[:_MOST_FILTERS, :_MOST_CHANNELS]
    return {"count": kernel.shape[3], "channels": kernel.shape[2]} | packed(kept, kernel)


def packed(kept: np.ndarray, of: np.ndarray) -> dict[str, Any]:
    """Values as bytes between the smallest and the largest of `of`, in base64."""
    least, most = float(of.min()), float(of.max())
    scale = 255 / (most - least) if most > least else 0.0
    values = np.round((kept - least) * scale) if np.isfinite(of).all() else np.zeros(kept.shape)
    return {
        "shape": list(kept.shape),
        "min": least if np.isfinite(least) else None,
        "max": most if np.isfinite(most) else None,
        "data": base64.b64encode(values.astype(np.uint8).tobytes()).decode(),
    }
