"""CNNs and deep ensembles of them for MNIST-sized images, in JAX."""
