"""What the tests of the published networks share: shapes without computing, and PyTorch beside."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax.from_torchvision import to_variables


def shapes(network, *image_shape):
    """The shapes of a network's variables."""
    images = jnp.zeros((1, *image_shape))
    return jax.eval_shape(network.init, jax.random.key(0), images)


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def counts(network, *image_shape):
    """The number of parameters of each of a network's own layers."""
    params = shapes(network, *image_shape)["params"]
    return {name: count(tree) for name, tree in params.items()}


def layer_shapes(network, *image_shape):
    """The output's shape, for one image, of each of a network's own layers."""

    def apply(variables):
        images = jnp.zeros((1, *image_shape))
        return network.apply(variables, images, capture_intermediates=True)[1]

    outputs = jax.eval_shape(apply, shapes(network, *image_shape))["intermediates"]
    return {
        name: layer["__call__"][0].shape[1:]
        for name, layer in outputs.items()
        if isinstance(layer, dict) and "__call__" in layer
    }


def fill(network, *image_shape, low=-0.1, high=0.1):
    """Variables of a network, uniform, without compiling its `init`."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(low, high, leaf.shape), jnp.float32),
        shapes(network, *image_shape),
    )


def randomize(model, seed=0):
    """Weights of a PyTorch model that no layer passes on unchanged, and batch statistics."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if value.ndim == 1:
            value.normal_(0, 0.2, generator=generator)
            if name.endswith(("running_var", "weight")):
                value.exp_()
        elif value.ndim > 1:
            value.normal_(0, math.sqrt(2 / value[0].numel()), generator=generator)
    return model


def check_against(network, model, images, train=False, gradients=True):
    """That a network, of dtype float64, and a PyTorch model agree: outputs and all gradients.

    `images` are `[n, height, width, channels]`. With `train` the heads' outputs count too, and the
    moving averages of the means are compared.
    """
    import torch

    rng = np.random.default_rng(1)
    variables = to_variables(model.state_dict())
    model = model.double().train(train)
    wanted = model(torch.tensor(np.moveaxis(images, -1, 1), dtype=torch.float64))
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    directions = [rng.normal(size=out.shape).astype(np.float32) for out in wanted]

    @jax.jit
    def gradient(variables, images):
        def along(params):
            logits, new = network.apply(
                {**variables, "params": params},
                images,
                train=train,
                mutable=["batch_stats", "auxiliary"] if train else [],
            )
            outputs = (logits, *new.get("auxiliary", {}).get("logits", ()))
            parts = [jnp.vdot(out, d) for out, d in zip(outputs, directions, strict=True)]
            return sum(parts), (outputs, new.get("batch_stats", {}))

        if not gradients:
            return None, along(variables["params"])[1]
        return jax.grad(along, has_aux=True)(variables["params"])

    with jax.enable_x64(True):
        grads, (outputs, stats) = gradient(variables, jnp.asarray(images, jnp.float64))
    for out, right in zip(outputs, wanted, strict=True):
        assert out.dtype == jnp.float32
        np.testing.assert_allclose(out, right.detach(), rtol=1e-5, atol=1e-5)
    if gradients:
        torch.autograd.backward(wanted, [torch.tensor(d).double() for d in directions])
        names = {name: parameter.grad for name, parameter in model.named_parameters()}
        compare(grads, to_variables(names)["params"], 1e-5)
    if train:
        means = to_variables(model.state_dict())["batch_stats"]
        compare(_means(stats), _means(means), 1e-5)


def compare(tree, wanted, close):
    """Each leaf, to `close` of its largest value."""
    assert jax.tree.structure(tree) == jax.tree.structure(wanted)
    for (path, a), b in zip(jax.tree.leaves_with_path(tree), jax.tree.leaves(wanted), strict=True):
        largest = np.abs(b).max()
        assert largest > 0, path
        np.testing.assert_allclose(a, b, rtol=0, atol=close * largest, err_msg=str(path))


def _means(stats):
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree.leaves_with_path(stats)
        if path[-1].key == "mean"
    }
