"""CNNs and deep ensembles of them for MNIST-sized images, in JAX."""

from importlib.metadata import version

__version__ = version("mnist_jax")
